//! Models on candle with checked gradients, data sets and their splits, and the training that a client does in a round.
//!
//! Training and evaluation run on the threads that they are given: the matrix products are asked for without threads, and
//! nothing goes through candle's own pool (what a registered model asks of it is done by one thread), so that many clients
//! can train side by side and each gets the bits that it would get alone. The bits are the same on all machines with fused multiply-add, whatever the width of their vectors,
//! and in portable arithmetic ([`dunlin_core::recipe::Arithmetic`]) on all machines. What else changes them: the number of
//! threads of a training, another device ([`model::Model::on`]), and a registered model's use of candle's own operations.

pub mod allocator;
pub mod data;
mod error;
pub mod export;
pub mod infer;
pub mod model;
pub mod onnx;
pub mod ops;
pub mod small;
mod threads;
pub mod train;

pub use error::Error;
pub use threads::Threads;

//! Models made small after training: pruned, their weights shared or quantized, and written as a container.

mod compress;
mod file;
mod prune;
mod pruning;
mod quantize;
mod share;

pub use compress::{Compress, Compressed, Stored, TensorReport};
pub use file::{FileError, Weights};
pub use prune::{Keep, prune};
pub use pruning::{Evidence, Pruning};
pub use quantize::quantize;
pub use share::share;

#[cfg(test)]
mod tests;

//! Models made small after training: pruned, their weights shared or quantized, and written as a container.

mod channels;
mod compress;
mod file;
mod prune;
mod pruning;
mod quantize;
mod share;
mod slices;
mod tune;

pub use channels::Channels;
pub use compress::{Compress, Compressed, Stored, TensorReport};
pub use file::{FileError, Weights};
pub use prune::{Keep, prune};
pub use pruning::{Evidence, Pruning};
pub use quantize::quantize;
pub(crate) use quantize::{best_scale, widest_scale};
pub use share::share;
pub use slices::{NoSlices, Slice, Slices};
pub use tune::Tuning;

#[cfg(test)]
mod tests;

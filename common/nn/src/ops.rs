//! The layers' arithmetic as candle operations with gradients of their own.
//!
//! Three of candle 0.11's own operations cannot be trained with: the gradient of `max_pool2d` is too small by the
//! window's area, and the fused softmax and norms have none. Its convolution computes the gradient of a network's
//! input, which nobody asks for, in scalar loops. What is here is checked against finite differences in 64 bits.

mod attention;
mod composed;
mod conv;
mod conv_norm;
mod dropout;
mod elementwise;
mod embedding;
mod factors;
#[cfg(test)]
mod gradcheck;
mod kernel;
mod lanes;
mod layout;
mod linear;
mod loss;
mod norm;
mod pool;
mod recurrent;
mod reduce;
mod resize;
mod row_norm;
mod saved;
mod scale;
mod sparse;
mod split_linear;
mod steps;
mod tape;
mod team;
mod transpose;

pub use attention::{attention, self_attention};
pub use conv::{Conv2dConfig, conv2d};
pub use conv_norm::conv_norm;
pub use dropout::dropout;
pub use elementwise::{add, add_relu, gelu, sigmoid, silu, tanh};
pub use embedding::{add_positions, embedding};
pub use layout::{channels_last, flatten};
pub use linear::{linear, linear_relu};
pub use loss::{cross_entropy, distillation};
pub use norm::{group_norm, group_norm_relu};
pub use pool::{Pool2dConfig, avg_pool2d, global_avg_pool, max_pool2d};
pub use recurrent::{gru, lstm};
pub use resize::resize;
pub use row_norm::{layer_norm, rms_norm};
pub use scale::scale_channels;
pub use steps::{last_step, mean_of_steps, rows_of_steps};
pub use tape::Graph;

pub(crate) use dropout::mixed;
pub(crate) use factors::{Factors, Product};
pub(crate) use kernel::{ByteProducts, vectorised, with_arithmetic};
#[cfg(test)]
pub(crate) use kernel::{as_on_any_machine, fuses};
pub(crate) use loss::{log_softmax, row_loss};
pub(crate) use sparse::Pattern;
pub(crate) use tape::Tape;
pub(crate) use team::{Member, Team};
pub(crate) use transpose::transpose;
use transpose::transpose_part;

use candle_core::{CpuStorage, Error, Layout, Result, Storage, Tensor, WithDType};
use kernel::Float;
use lanes::Lanes;

/// The elements of a contiguous operand.
fn elements<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let (start, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| Error::Msg(format!("an operand of shape {:?} is not contiguous", layout.dims())))?;
    Ok(&T::cpu_storage_as_slice(storage)?[start..end])
}

/// Calls `f` with the elements of a tensor, which are copied only if they are not contiguous.
pub(crate) fn with_elements<T: WithDType, R>(tensor: &Tensor, f: impl FnOnce(&[T]) -> Result<R>) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    f(elements_of(&storage, layout)?)
}

/// The elements of a contiguous tensor's storage.
pub(crate) fn elements_of<'a, T: WithDType>(storage: &'a Storage, layout: &Layout) -> Result<&'a [T]> {
    match storage {
        Storage::Cpu(storage) => elements(storage, layout),
        Storage::Cuda(_) | Storage::Metal(_) => Err(Error::Msg("the layers here run on the CPU only".into())),
    }
}

/// The same code for both float types: `f32` trains, `f64` checks gradients.
macro_rules! for_float {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => Err(candle_core::Error::Msg(format!("the layers here take f32 or f64, not {other:?}"))),
        }
    };
}
use for_float;

/// Adds each row of a row-major matrix, as wide as `sums` is long, to `sums`. To be called where it is vectorised.
#[inline(always)]
fn add_columns<T: Float>(rows: &[T], sums: &mut [T]) {
    let width = sums.len();
    // A few rows at a time, which stay in the first-level cache while block after block goes over them.
    for rows in rows.chunks((RUN / width).max(1) * width) {
        lanes::for_all_channels(width, &mut AddColumns { rows, sums });
    }
}

struct AddColumns<'a, T> {
    rows: &'a [T],
    sums: &'a mut [T],
}

impl<T: Float> Lanes for AddColumns<'_, T> {
    #[inline(always)]
    fn run<const LANES: usize>(&mut self, channel: usize) {
        let mut sums: [T; LANES] = lanes::load(self.sums, channel);
        for row in self.rows.chunks_exact(self.sums.len()) {
            let row: [T; LANES] = lanes::load(row, channel);
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += value;
            }
        }
        lanes::store(&sums, self.sums, channel);
    }
}

/// Elements that go by together: a part of a first-level cache.
const RUN: usize = 2048;

//! The layers' arithmetic as candle operations with gradients of their own.
//!
//! Three of candle 0.11's own operations cannot be trained with: the gradient of `max_pool2d` is too small by the
//! window's area, and the fused softmax and norms have none. Its convolution computes the gradient of a network's
//! input, which nobody asks for, in scalar loops. What is here is checked against finite differences in 64 bits.

mod conv;
mod gemm;
#[cfg(test)]
mod gradcheck;
mod linear;
mod loss;
mod norm;
mod pool;
mod tape;

pub(crate) use conv::conv2d;
pub(crate) use linear::{add, linear, relu};
pub(crate) use loss::{cross_entropy, row_loss};
pub(crate) use norm::group_norm;
pub(crate) use pool::{global_avg_pool, max_pool_2x2};
pub(crate) use tape::{Gradients, Graph, Tape};

use candle_core::{CpuStorage, Error, Layout, Result, Storage, Tensor, WithDType};

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
    match &*storage {
        Storage::Cpu(storage) => f(elements(storage, layout)?),
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

/// Σ f(x) in sixteen lanes, which vectorises and loses less to rounding than one running sum.
fn sum_of<T: WithDType>(values: &[T], f: impl Fn(T) -> T) -> T {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [T::zero(); LANES];
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += f(value);
        }
    }
    let rest = rest.iter().fold(T::zero(), |sum, &value| sum + f(value));
    lanes.into_iter().fold(rest, |sum, lane| sum + lane)
}

/// Σ f(x)·y in sixteen lanes; the slices are equally long.
fn dot_of<T: WithDType>(xs: &[T], ys: &[T], f: impl Fn(T) -> T) -> T {
    let ((x_chunks, x_rest), (y_chunks, y_rest)) = (xs.as_chunks::<LANES>(), ys.as_chunks::<LANES>());
    let mut lanes = [T::zero(); LANES];
    for (xs, ys) in x_chunks.iter().zip(y_chunks) {
        for (lane, (&x, &y)) in lanes.iter_mut().zip(xs.iter().zip(ys)) {
            *lane += f(x) * y;
        }
    }
    let rest = x_rest.iter().zip(y_rest).fold(T::zero(), |sum, (&x, &y)| sum + f(x) * y);
    lanes.into_iter().fold(rest, |sum, lane| sum + lane)
}

/// Independent partial sums: a cache line of f32.
const LANES: usize = 16;

//! Dropout.

use super::composed;
use super::kernel::{Float, vectorised};
use super::{Graph, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, WithDType};

/// In training, each element is 0 with probability `rate` and divided by 1 − rate otherwise (Srivastava et al. 2014, in
/// the form that leaves evaluation alone); outside, `x` as it is.
///
/// What is dropped is a function of the graph's seed, the number of random operations before, and the element's place,
/// the same on every platform.
///
/// # Errors
/// When `rate` is not from 0 to below 1.
pub fn dropout(graph: &mut Graph<'_>, x: &Tensor, rate: f64) -> Result<Tensor> {
    if !(0.0..1.0).contains(&rate) {
        candle_core::bail!("dropout: a rate of {rate}; it must be from 0 to below 1");
    }
    // Drawn also where nothing is dropped, so that one layer's rate does not change what the others drop.
    let Some(seed) = graph.draw() else { return Ok(x.clone()) };
    if rate == 0.0 {
        return Ok(x.clone());
    }
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| seed.as_bytes()[at + byte]));
    let below = (rate * f64::from(u32::MAX)) as u32;
    let op = Dropout { keys: [word(0), word(4)], below, scale: 1.0 / (1.0 - rate) };
    if graph.composes(x) {
        let mask = Tensor::ones(x.shape(), x.dtype(), &Device::Cpu)?.apply_op1_no_bwd(&op)?;
        return composed::masked(x, &mask);
    }
    graph.apply1(x, op)
}

struct Dropout {
    keys: [u32; 2],
    /// An element is dropped whose hash is below this.
    below: u32,
    scale: f64,
}

impl Dropout {
    fn apply<T: Float>(&self, x: &[T]) -> Vec<T> {
        // Copies, so that the compiler knows that the loop does not write over them.
        let (&Self { keys: [first, second], below, .. }, scale) = (self, T::from_f64(self.scale));
        let mut y = vec![T::zero(); x.len()];
        let results = y.as_mut_slice();
        vectorised(
            #[inline(always)]
            move || {
                for (index, (y, &x)) in results.iter_mut().zip(x).enumerate() {
                    let hash = mixed(mixed(index as u32 ^ first).wrapping_add(second));
                    *y = if hash < below { T::zero() } else { x * scale };
                }
            },
        );
        y
    }
}

/// The low-bias 32-bit mixer of C. Wellons' hash-prospector: four operations an element, and it vectorises.
#[inline(always)]
pub(crate) const fn mixed(mut hash: u32) -> u32 {
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x21f0_aaad);
    hash = (hash ^ (hash >> 15)).wrapping_mul(0xd35a_2d97);
    hash ^ (hash >> 15)
}

impl CustomOp1 for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        if u32::try_from(layout.shape().elem_count()).is_err() {
            candle_core::bail!("dropout: {:?} is more than 2³² elements", layout.dims());
        }
        for_float!(x.dtype(), T => {
            Ok((T::to_cpu_storage_owned(self.apply(elements::<T>(x, layout)?)), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        for_float!(x.dtype(), T => {
            let dx = with_elements::<T, _>(dy, |dy| Ok(self.apply(dy)))?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}

//! Channels scaled by what a small network makes of the whole image (squeeze-and-excitation, Hu et al. 2018,
//! <https://arxiv.org/abs/1709.01507>).

use super::composed;
use super::kernel::{Float, vectorised};
use super::{Graph, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, WithDType};

/// x·s: `x` is [n, h, w, c], `s` one factor for each channel of each image, [n, c].
///
/// # Errors
/// When the operands do not fit together.
pub fn scale_channels(graph: &mut Graph<'_>, x: &Tensor, s: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::scale_channels(x, s);
    }
    graph.apply2(x, s, ScaleChannels)
}

struct ScaleChannels;

impl CustomOp2 for ScaleChannels {
    fn name(&self) -> &'static str {
        "scale_channels"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        s: &CpuStorage,
        s_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (n, h, w, c) = x_layout.shape().dims4()?;
        if s_layout.dims() != [n, c] || x_layout.shape().elem_count() == 0 {
            candle_core::bail!(
                "scale_channels: x {:?}, s {:?}; want [n, h, w, c], [n, c]",
                x_layout.dims(),
                s_layout.dims()
            );
        }
        for_float!(x.dtype(), T => {
            let y = scaled(elements::<T>(x, x_layout)?, elements::<T>(s, s_layout)?, h * w, c);
            Ok((T::to_cpu_storage_owned(y), x_layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, s: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (_, h, w, c) = x.dims4()?;
        for_float!(x.dtype(), T => {
            let (dx, ds) = with_elements::<T, _>(x, |x| with_elements::<T, _>(s, |s| with_elements::<T, _>(dy, |dy| {
                Ok((scaled(dy, s, h * w, c), products(x, dy, h * w, c)))
            })))?;
            let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
            Ok((Some(dx), Some(Tensor::from_vec(ds, s.shape(), s.device())?)))
        })
    }
}

fn scaled<T: Float>(x: &[T], s: &[T], area: usize, channels: usize) -> Vec<T> {
    let mut y = Vec::with_capacity(x.len());
    vectorised(
        #[inline(always)]
        || {
            for (image, s) in x.chunks_exact(area * channels).zip(s.chunks_exact(channels)) {
                for pixel in image.chunks_exact(channels) {
                    y.extend(pixel.iter().zip(s).map(|(&x, &s)| x * s));
                }
            }
        },
    );
    y
}

/// Σ x·dy over the pixels of each image.
fn products<T: Float>(x: &[T], dy: &[T], area: usize, channels: usize) -> Vec<T> {
    let mut sums = vec![T::zero(); x.len() / area];
    vectorised(
        #[inline(always)]
        || {
            let images = x.chunks_exact(area * channels).zip(dy.chunks_exact(area * channels));
            for (sums, (x, dy)) in sums.chunks_exact_mut(channels).zip(images) {
                for (x, dy) in x.chunks_exact(channels).zip(dy.chunks_exact(channels)) {
                    for (sum, (&x, &dy)) in sums.iter_mut().zip(x.iter().zip(dy)) {
                        *sum += x * dy;
                    }
                }
            }
        },
    );
    sums
}

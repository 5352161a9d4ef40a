//! Pooling over images of shape [batch, height, width, channels].

mod windows;

use super::composed;
use super::kernel::{Float, vectorised};
use super::{Graph, add_columns, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};

/// The windows of a pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool2dConfig {
    /// Rows and columns of a window.
    pub kernel: [usize; 2],
    /// Rows and columns from one window to the next.
    pub stride: [usize; 2],
}

impl Pool2dConfig {
    /// Square windows of this side that touch and do not overlap.
    #[must_use]
    pub const fn square(side: usize) -> Self {
        Self { kernel: [side; 2], stride: [side; 2] }
    }
}

/// Largest value of each window: [n, h, w, c] becomes [n, h', w', c] with h' = ⌊(h − k)/stride⌋ + 1; rows and columns that
/// fill no window are ignored.
///
/// The gradient goes to the largest element, among equals to the first in reading order, as in torch.
///
/// # Errors
/// When the image is smaller than a window.
pub fn max_pool2d(graph: &mut Graph<'_>, x: &Tensor, config: Pool2dConfig) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::max_pool2d(x, config);
    }
    if config == Pool2dConfig::square(2) {
        return graph.apply1(x, MaxPool);
    }
    graph.apply1(x, windows::Pool { config, kind: windows::Kind::Max })
}

/// Mean of each window, which otherwise are as in [`max_pool2d`].
///
/// # Errors
/// When the image is smaller than a window.
pub fn avg_pool2d(graph: &mut Graph<'_>, x: &Tensor, config: Pool2dConfig) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::avg_pool2d(x, config);
    }
    graph.apply1(x, windows::Pool { config, kind: windows::Kind::Mean })
}

/// Mean of each channel: [n, h, w, c] becomes [n, c].
pub fn global_avg_pool(graph: &mut Graph<'_>, x: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::global_avg_pool(x);
    }
    graph.apply1(x, GlobalAvgPool)
}

/// The most common pooling, 2×2 windows side by side, in one pass each way.
struct MaxPool;

/// Images of this height, width and number of channels.
#[derive(Clone, Copy)]
struct Extent {
    height: usize,
    width: usize,
    channels: usize,
}

impl Extent {
    /// Calls `visit(output pixel, [top left, top right, bottom left, bottom right])` with the index of the first
    /// channel of each, for every window.
    #[inline(always)]
    fn for_each_window(self, images: usize, mut visit: impl FnMut(usize, [usize; 4])) {
        let Self { height, width, channels } = self;
        let mut output = 0;
        for image in 0..images {
            for row in 0..height / 2 {
                let top = (image * height + 2 * row) * width * channels;
                for column in 0..width / 2 {
                    let first = top + 2 * column * channels;
                    let below = first + width * channels;
                    visit(output, [first, first + channels, below, below + channels]);
                    output += channels;
                }
            }
        }
    }

    fn largest<T: Float>(self, images: usize, x: &[T]) -> Vec<T> {
        let mut y = vec![T::zero(); images * (self.height / 2) * (self.width / 2) * self.channels];
        vectorised(
            #[inline(always)]
            || {
                self.for_each_window(
                    images,
                    #[inline(always)]
                    |output, corners| {
                        let [a, b, c, d] = corners.map(|corner| &x[corner..corner + self.channels]);
                        let y = &mut y[output..output + self.channels];
                        for (((y, &a), &b), (&c, &d)) in y.iter_mut().zip(a).zip(b).zip(c.iter().zip(d)) {
                            let mut best = a;
                            for other in [b, c, d] {
                                best = if other > best { other } else { best };
                            }
                            *y = best;
                        }
                    },
                );
            },
        );
        y
    }

    fn gradient<T: Float>(self, images: usize, x: &[T], dy: &[T]) -> Vec<T> {
        let Self { width, channels, .. } = self;
        let mut dx = vec![T::zero(); x.len()];
        vectorised(
            #[inline(always)]
            || {
                self.for_each_window(
                    images,
                    #[inline(always)]
                    |output, corners| {
                        let [a, b, c, d] = corners.map(|corner| &x[corner..corner + channels]);
                        let dy = &dy[output..output + channels];
                        let window = &mut dx[corners[0]..corners[3] + channels];
                        let (above, below) = window.split_at_mut(width * channels);
                        let (da, db) = above[..2 * channels].split_at_mut(channels);
                        let (dc, dd) = below.split_at_mut(channels);
                        let gradients = da.iter_mut().zip(db).zip(dc.iter_mut().zip(dd));
                        let values = a.iter().zip(b).zip(c.iter().zip(d));
                        for ((&dy, ((da, db), (dc, dd))), ((&a, &b), (&c, &d))) in dy.iter().zip(gradients).zip(values)
                        {
                            let top = if b > a { b } else { a };
                            let three = if c > top { c } else { top };
                            let (is_d, is_c, is_b) = (d > three, c > top, b > a);
                            let zero = T::zero();
                            *dd = if is_d { dy } else { zero };
                            *dc = if is_c & !is_d { dy } else { zero };
                            *db = if is_b & !is_c & !is_d { dy } else { zero };
                            *da = if !is_b & !is_c & !is_d { dy } else { zero };
                        }
                    },
                );
            },
        );
        dx
    }
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool_2x2"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, height, width, channels) = layout.shape().dims4()?;
        if height < 2 || width < 2 {
            candle_core::bail!("max_pool2d: images of {height}×{width} are smaller than a window of 2×2");
        }
        for_float!(x.dtype(), T => {
            let y = Extent { height, width, channels }.largest(n, elements::<T>(x, layout)?);
            Ok((T::to_cpu_storage_owned(y), Shape::from((n, height / 2, width / 2, channels))))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (n, height, width, channels) = x.dims4()?;
        let extent = Extent { height, width, channels };
        for_float!(x.dtype(), T => {
            let dx = with_elements::<T, _>(x, |x| with_elements(dy, |dy| Ok(extent.gradient(n, x, dy))))?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}

struct GlobalAvgPool;

impl CustomOp1 for GlobalAvgPool {
    fn name(&self) -> &'static str {
        "global_avg_pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, h, w, c) = layout.shape().dims4()?;
        for_float!(x.dtype(), T => {
            let x = elements::<T>(x, layout)?;
            let mut y = vec![0.0; n * c];
            vectorised(
                #[inline(always)]
                || {
                    for (x, y) in x.chunks_exact(h * w * c).zip(y.chunks_exact_mut(c)) {
                        add_columns(x, y);
                    }
                },
            );
            for y in &mut y {
                *y /= (h * w) as T;
            }
            Ok((T::to_cpu_storage_owned(y), Shape::from((n, c))))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (_, h, w, c) = x.dims4()?;
        for_float!(x.dtype(), T => {
            let mut dx: Vec<T> = Vec::with_capacity(x.elem_count());
            with_elements::<T, _>(dy, |dy| {
                for dy in dy.chunks_exact(c) {
                    let pixel: Vec<T> = dy.iter().map(|dy| dy / (h * w) as T).collect();
                    for _ in 0..h * w {
                        dx.extend_from_slice(&pixel);
                    }
                }
                Ok(())
            })?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}

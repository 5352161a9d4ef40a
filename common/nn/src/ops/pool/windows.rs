//! Pooling with windows of any size, apart or overlapping.

use super::Pool2dConfig;
use crate::ops::kernel::{Float, vectorised};
use crate::ops::{elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};

pub(super) struct Pool {
    pub(super) config: Pool2dConfig,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Max,
    Mean,
}

impl CustomOp1 for Pool {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Max => "max_pool2d",
            Kind::Mean => "avg_pool2d",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let extent = self.extent(layout.shape())?;
        for_float!(x.dtype(), T => {
            let x = elements::<T>(x, layout)?;
            let y = vectorised(
                #[inline(always)]
                || self.forward(&extent, x),
            );
            Ok((T::to_cpu_storage_owned(y), Shape::from((extent.batch, extent.rows, extent.columns, extent.channels))))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let extent = self.extent(x.shape())?;
        for_float!(x.dtype(), T => {
            let dx = with_elements::<T, _>(x, |x| with_elements(y, |y| with_elements(dy, |dy| {
                Ok(vectorised(
                    #[inline(always)]
                    || self.backward(&extent, x, y, dy),
                ))
            })))?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}

/// Images and how many windows they have.
struct Extent {
    batch: usize,
    height: usize,
    width: usize,
    channels: usize,
    rows: usize,
    columns: usize,
}

impl Pool {
    fn extent(&self, x: &Shape) -> Result<Extent> {
        let (batch, height, width, channels) = x.dims4()?;
        let Pool2dConfig { kernel, stride } = self.config;
        if kernel.contains(&0) || stride.contains(&0) || height < kernel[0] || width < kernel[1] {
            candle_core::bail!("{}: images of {height}×{width} for {:?}", self.name(), self.config);
        }
        let (rows, columns) = ((height - kernel[0]) / stride[0] + 1, (width - kernel[1]) / stride[1] + 1);
        Ok(Extent { batch, height, width, channels, rows, columns })
    }

    /// Calls `visit(output, pixels)` for every window with the first channel's index of its result and of its pixels, in
    /// reading order.
    #[inline(always)]
    fn for_each_window(&self, extent: &Extent, mut visit: impl FnMut(usize, &[usize])) {
        let Pool2dConfig { kernel, stride } = self.config;
        let mut pixels = vec![0; kernel[0] * kernel[1]];
        for window in 0..extent.batch * extent.rows * extent.columns {
            let (image, row, column) = (
                window / (extent.rows * extent.columns),
                window / extent.columns % extent.rows,
                window % extent.columns,
            );
            for (pixel, index) in pixels.iter_mut().enumerate() {
                let (row, column) = (row * stride[0] + pixel / kernel[1], column * stride[1] + pixel % kernel[1]);
                *index = ((image * extent.height + row) * extent.width + column) * extent.channels;
            }
            visit(window * extent.channels, &pixels);
        }
    }

    #[inline(always)]
    fn forward<T: Float>(&self, extent: &Extent, x: &[T]) -> Vec<T> {
        let channels = extent.channels;
        let mut y = Vec::with_capacity(extent.batch * extent.rows * extent.columns * channels);
        self.for_each_window(
            extent,
            #[inline(always)]
            |output, pixels| {
                y.extend_from_slice(&x[pixels[0]..pixels[0] + channels]);
                let y = &mut y[output..];
                for &pixel in &pixels[1..] {
                    for (y, &x) in y.iter_mut().zip(&x[pixel..pixel + channels]) {
                        *y = match self.kind {
                            Kind::Max => {
                                if x > *y {
                                    x
                                } else {
                                    *y
                                }
                            }
                            Kind::Mean => *y + x,
                        };
                    }
                }
                if matches!(self.kind, Kind::Mean) {
                    let count = T::from_f64(pixels.len() as f64);
                    for y in y {
                        *y /= count;
                    }
                }
            },
        );
        y
    }

    #[inline(always)]
    fn backward<T: Float>(&self, extent: &Extent, x: &[T], y: &[T], dy: &[T]) -> Vec<T> {
        let channels = extent.channels;
        let mut dx = vec![T::zero(); x.len()];
        // Of a window's result what has not been passed on yet.
        let mut rest = vec![T::zero(); channels];
        self.for_each_window(
            extent,
            #[inline(always)]
            |output, pixels| {
                rest.copy_from_slice(&dy[output..output + channels]);
                let y = &y[output..output + channels];
                let count = T::from_f64(pixels.len() as f64);
                for &pixel in pixels {
                    let dx = &mut dx[pixel..pixel + channels];
                    match self.kind {
                        Kind::Max => {
                            let x = &x[pixel..pixel + channels];
                            for ((dx, rest), (&x, &y)) in dx.iter_mut().zip(&mut rest).zip(x.iter().zip(y)) {
                                let passed = if x == y { *rest } else { T::zero() };
                                *dx += passed;
                                *rest -= passed;
                            }
                        }
                        Kind::Mean => {
                            for (dx, &rest) in dx.iter_mut().zip(&rest) {
                                *dx += rest / count;
                            }
                        }
                    }
                }
            },
        );
        dx
    }
}

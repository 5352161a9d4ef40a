//! Two-dimensional convolution as a matrix product over unfolded images.

use super::gemm::{Into, Matrix, product};
use super::{Graph, elements, for_float, sum_of, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, WithDType};

/// Cross-correlation with zero padding: x [n, c, h, w], w [o, c, k, k], b [o] give y [n, o, h', w'] with
/// h' = ⌊(h + 2·padding − k)/stride⌋ + 1.
pub(crate) fn conv2d(
    graph: &mut Graph<'_>,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    padding: usize,
    stride: usize,
) -> Result<Tensor> {
    let op = Conv2d { padding, stride, input_gradient: graph.needs_gradient(x) };
    match b {
        Some(b) => graph.apply3(x, w, b, op),
        None => graph.apply3(x, w, &Tensor::zeros(w.dim(0)?, w.dtype(), w.device())?, op),
    }
}

struct Conv2d {
    padding: usize,
    stride: usize,
    /// False for a network's input, whose gradient nobody asks for.
    input_gradient: bool,
}

impl CustomOp3 for Conv2d {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let extent = self.extent(x_layout.shape(), w_layout.shape(), b_layout.shape())?;
        for_float!(x.dtype(), T => {
            let x = elements::<T>(x, x_layout)?;
            let (w, b) = (elements::<T>(w, w_layout)?, elements::<T>(b, b_layout)?);
            let filters = Matrix::new(w, extent.outputs, extent.window());
            let mut unfolded = vec![0.0; extent.window() * extent.out_area()];
            let mut y = Vec::with_capacity(extent.batch * extent.outputs * extent.out_area());
            for image in x.chunks_exact(extent.in_len()) {
                extent.unfold(image, &mut unfolded);
                let start = y.len();
                for &b in b {
                    y.extend(std::iter::repeat_n(b, extent.out_area()));
                }
                product(
                    filters,
                    Matrix::new(&unfolded, extent.window(), extent.out_area()),
                    &mut y[start..],
                    Into::Add,
                );
            }
            let shape = Shape::from((extent.batch, extent.outputs, extent.out_height, extent.out_width));
            Ok((T::to_cpu_storage_owned(y), shape))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        for_float!(x.dtype(), T => self.gradients::<T>(x, w, b, dy))
    }
}

impl Conv2d {
    fn extent(&self, x: &Shape, w: &Shape, b: &Shape) -> Result<Extent> {
        let ((batch, channels, height, width), (outputs, w_channels, side, w_side)) = (x.dims4()?, w.dims4()?);
        let smallest = side.saturating_sub(2 * self.padding).max(1);
        if channels != w_channels || side != w_side || b.dims() != [outputs] || height < smallest || width < smallest {
            candle_core::bail!("conv2d: x {x:?}, w {w:?}, b {b:?}; want [n, c, h, w], [o, c, k, k], [o]");
        }
        Ok(Extent {
            batch,
            channels,
            height,
            width,
            outputs,
            side,
            padding: self.padding,
            stride: self.stride,
            out_height: (height + 2 * self.padding - side) / self.stride + 1,
            out_width: (width + 2 * self.padding - side) / self.stride + 1,
        })
    }

    fn gradients<T: WithDType>(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let extent = self.extent(x.shape(), w.shape(), b.shape())?;
        let (window, area) = (extent.window(), extent.out_area());
        let mut unfolded = vec![T::zero(); window * area];
        // Kept transposed until the end, so that the unfolded image is read where it lies.
        let mut dw_transposed = vec![T::zero(); window * extent.outputs];
        let mut db = vec![T::zero(); extent.outputs];
        let mut dx = vec![T::zero(); if self.input_gradient { x.elem_count() } else { 0 }];
        with_elements::<T, _>(x, |x| {
            with_elements::<T, _>(w, |w| {
                with_elements::<T, _>(dy, |dy| {
                    let filters = Matrix::new(w, extent.outputs, window);
                    let images = x.chunks_exact(extent.in_len()).zip(dy.chunks_exact(extent.outputs * area));
                    for (index, (image, dy)) in images.enumerate() {
                        extent.unfold(image, &mut unfolded);
                        let dy_matrix = Matrix::new(dy, extent.outputs, area);
                        let columns = Matrix::new(&unfolded, window, area);
                        product(columns, dy_matrix.transposed(), &mut dw_transposed, Into::Add);
                        for (db, channel) in db.iter_mut().zip(dy.chunks_exact(area)) {
                            *db += sum_of(channel, |value| value);
                        }
                        if self.input_gradient {
                            product(filters.transposed(), dy_matrix, &mut unfolded, Into::Replace);
                            extent.fold(&unfolded, &mut dx[index * extent.in_len()..][..extent.in_len()]);
                        }
                    }
                    Ok(())
                })
            })
        })?;
        let mut dw = Vec::with_capacity(dw_transposed.len());
        for output in 0..extent.outputs {
            dw.extend(dw_transposed.iter().skip(output).step_by(extent.outputs).copied());
        }
        let dx = if self.input_gradient { Some(Tensor::from_vec(dx, x.shape(), x.device())?) } else { None };
        Ok((dx, Some(Tensor::from_vec(dw, w.shape(), w.device())?), Some(Tensor::from_vec(db, b.shape(), b.device())?)))
    }
}

/// All extents of one convolution.
struct Extent {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
    outputs: usize,
    side: usize,
    padding: usize,
    stride: usize,
    out_height: usize,
    out_width: usize,
}

impl Extent {
    /// Inputs that one output sees.
    fn window(&self) -> usize {
        self.channels * self.side * self.side
    }

    fn in_len(&self) -> usize {
        self.channels * self.height * self.width
    }

    fn out_area(&self) -> usize {
        self.out_height * self.out_width
    }

    /// Columns `out` whose input column `out·stride + k − padding` lies inside the image.
    fn inside(&self, k: usize) -> std::ops::Range<usize> {
        let start = self.padding.saturating_sub(k).div_ceil(self.stride);
        let end = (self.width + self.padding).saturating_sub(k).div_ceil(self.stride).min(self.out_width);
        start.min(end)..end
    }

    /// The input row that output row `row` meets with kernel row `k`, if it is not padding.
    fn input_row(&self, row: usize, k: usize) -> Option<usize> {
        (row * self.stride + k).checked_sub(self.padding).filter(|&row| row < self.height)
    }

    /// Calls `f(position in the unfolded matrix, position in the image, length)` for each run of one kernel element
    /// along one output row; what is not visited is padding.
    fn for_each_run(&self, mut f: impl FnMut(usize, usize, usize)) {
        let mut unfolded_row = 0;
        for channel in 0..self.channels {
            for ky in 0..self.side {
                for kx in 0..self.side {
                    let columns = self.inside(kx);
                    for row in 0..self.out_height {
                        if let Some(input_row) = self.input_row(row, ky)
                            && !columns.is_empty()
                        {
                            let unfolded = (unfolded_row * self.out_height + row) * self.out_width + columns.start;
                            let column = columns.start * self.stride + kx - self.padding;
                            f(unfolded, (channel * self.height + input_row) * self.width + column, columns.len());
                        }
                    }
                    unfolded_row += 1;
                }
            }
        }
    }

    /// im2col: row (channel, ky, kx) and column (y, x) of `unfolded` is what kernel element (ky, kx) meets there.
    fn unfold<T: WithDType>(&self, image: &[T], unfolded: &mut [T]) {
        unfolded.fill(T::zero());
        self.for_each_run(|to, from, len| {
            if self.stride == 1 {
                unfolded[to..to + len].copy_from_slice(&image[from..from + len]);
            } else {
                for (to, from) in unfolded[to..to + len].iter_mut().zip(image[from..].iter().step_by(self.stride)) {
                    *to = *from;
                }
            }
        });
    }

    /// The transpose of [`Self::unfold`]: what was copied out is added back.
    fn fold<T: WithDType>(&self, unfolded: &[T], image: &mut [T]) {
        self.for_each_run(|from, to, len| {
            let from = &unfolded[from..from + len];
            if self.stride == 1 {
                for (to, from) in image[to..to + len].iter_mut().zip(from) {
                    *to += *from;
                }
            } else {
                for (to, from) in image[to..].iter_mut().step_by(self.stride).zip(from) {
                    *to += *from;
                }
            }
        });
    }
}

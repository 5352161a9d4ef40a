//! Two-dimensional convolution as sums of matrix products over the image where it lies.
//!
//! With the channels of a pixel side by side, the inputs that an output pixel meets in one row of the kernel are
//! contiguous, and those of the next output pixel begin `stride` pixels on. So an output row is a sum over the
//! kernel's rows of products of a matrix that overlaps itself: nothing is unfolded, only the padding is written out.

mod frame;

use super::kernel::{Float, Start, Strided, Sum, vectorised};
use super::{Graph, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use frame::Frame;

/// Cross-correlation with zero padding: x [n, h, w, c], w [o, c, k, k], b [o] give y [n, h', w', o] with
/// h' = ⌊(h + 2·padding − k)/stride⌋ + 1.
pub fn conv2d(
    graph: &mut Graph<'_>,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    padding: usize,
    stride: usize,
) -> Result<Tensor> {
    let op = Conv2d { padding, stride, rectify: false, input_gradient: graph.needs_gradient(x) };
    match b {
        Some(b) => graph.apply3(x, w, b, op),
        None => graph.apply3(x, w, &Tensor::zeros(w.dim(0)?, w.dtype(), w.device())?, op),
    }
}

/// [`conv2d`] with a bias and the rectifier behind it, in one pass.
pub fn conv2d_relu(
    graph: &mut Graph<'_>,
    x: &Tensor,
    w: &Tensor,
    b: &Tensor,
    padding: usize,
    stride: usize,
) -> Result<Tensor> {
    let input_gradient = graph.needs_gradient(x);
    graph.apply3(x, w, b, Conv2d { padding, stride, rectify: true, input_gradient })
}

struct Conv2d {
    padding: usize,
    stride: usize,
    rectify: bool,
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
            let y = extent.forward(x, elements(w, w_layout)?, elements(b, b_layout)?, self.rectify);
            let shape = Shape::from((extent.batch, extent.out_height, extent.out_width, extent.outputs));
            Ok((candle_core::WithDType::to_cpu_storage_owned(y), shape))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let extent = self.extent(x.shape(), w.shape(), b.shape())?;
        for_float!(x.dtype(), T => {
            let gradients = with_elements::<T, _>(x, |x| with_elements(w, |w| with_elements(y, |y| {
                with_elements(dy, |dy| {
                    Ok(extent.backward(x, w, self.rectify.then_some(y), dy, self.input_gradient))
                })
            })))?;
            let dx = gradients.x.map(|dx| Tensor::from_vec(dx, x.shape(), x.device())).transpose()?;
            let dw = Tensor::from_vec(gradients.w, w.shape(), w.device())?;
            Ok((dx, Some(dw), Some(Tensor::from_vec(gradients.b, b.shape(), b.device())?)))
        })
    }
}

impl Conv2d {
    fn extent(&self, x: &Shape, w: &Shape, b: &Shape) -> Result<Extent> {
        let ((batch, height, width, channels), (outputs, w_channels, side, w_side)) = (x.dims4()?, w.dims4()?);
        let smallest = side.saturating_sub(2 * self.padding).max(1);
        let fits = channels == w_channels && side == w_side && b.dims() == [outputs];
        if !fits || height < smallest || width < smallest || self.padding >= side {
            candle_core::bail!("conv2d: x {x:?}, w {w:?}, b {b:?}; want [n, h, w, c], [o, c, k, k], [o]");
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

/// The gradients with respect to each operand.
struct Gradients<T> {
    x: Option<Vec<T>>,
    w: Vec<T>,
    b: Vec<T>,
}

impl Extent {
    fn in_len(&self) -> usize {
        self.height * self.width * self.channels
    }

    fn out_len(&self) -> usize {
        self.out_height * self.out_width * self.outputs
    }

    /// Inputs that one output meets in one row of the kernel.
    fn row_window(&self) -> usize {
        self.side * self.channels
    }

    /// A frame for one input image.
    fn frame<T: Float>(&self) -> Frame<T> {
        Frame::new(self.height, self.width, self.channels, self.padding)
    }

    /// The images' windows for one row of the kernel of every output pixel of row `row`, one segment per kernel row.
    fn windows<'a, T>(&self, frame: &'a Frame<T>, row: usize) -> Strided<'a, T> {
        let data = &frame.data[row * self.stride * frame.row()..];
        Strided { data, row: self.stride * self.channels, column: 1, segment: frame.row() }
    }

    fn forward<T: Float>(&self, x: &[T], w: &[T], b: &[T], rectify: bool) -> Vec<T> {
        // [ky][kx][c][o]
        let filters = self.permuted(w, |ky, kx, c, o| ((ky * self.side + kx) * self.channels + c) * self.outputs + o);
        let mut frame = self.frame();
        let mut y = vec![T::zero(); self.batch * self.out_len()];
        for (x, y) in x.chunks_exact(self.in_len()).zip(y.chunks_exact_mut(self.out_len())) {
            frame.fill(x);
            for (row, y) in y.chunks_exact_mut(self.out_width * self.outputs).enumerate() {
                let b_segment = self.row_window() * self.outputs;
                let sum = Sum {
                    rows: self.out_width,
                    columns: self.outputs,
                    depth: self.row_window(),
                    segments: self.side,
                    a: self.windows(&frame, row),
                    b: Strided { data: &filters, row: self.outputs, column: 1, segment: b_segment },
                    start: Start::Bias(b),
                    rectify,
                };
                sum.run(y);
            }
        }
        y
    }

    /// `y` is given if it was rectified.
    fn backward<T: Float>(&self, x: &[T], w: &[T], y: Option<&[T]>, dy: &[T], input_gradient: bool) -> Gradients<T> {
        let filter_row = self.row_window() * self.outputs;
        // [ky][kx][c][o], as the filters in the forward pass.
        let mut dw = vec![T::zero(); self.side * filter_row];
        let mut db = vec![T::zero(); self.outputs];
        let mut input = input_gradient.then(|| InputGradient::new(self, w));
        let mut frame = self.frame();
        // With stride 1 the input's gradient is itself a convolution, of the output's gradient with this padding.
        let padding = if input_gradient && self.stride == 1 { self.side - 1 - self.padding } else { 0 };
        let mut dy_frame = Frame::new(self.out_height, self.out_width, self.outputs, padding);
        for (index, (x, dy)) in x.chunks_exact(self.in_len()).zip(dy.chunks_exact(self.out_len())).enumerate() {
            frame.fill(x);
            match y {
                Some(y) => dy_frame.fill_where_positive(dy, &y[index * self.out_len()..][..self.out_len()]),
                None => dy_frame.fill(dy),
            }
            dy_frame.add_columns_to(&mut db);
            let dy_rows = &dy_frame.data[dy_frame.first()..];
            for (ky, dw) in dw.chunks_exact_mut(filter_row).enumerate() {
                let x_rows = &frame.data[ky * frame.row()..];
                let sum = Sum {
                    rows: self.row_window(),
                    columns: self.outputs,
                    depth: self.out_width,
                    segments: self.out_height,
                    a: Strided {
                        data: x_rows,
                        row: 1,
                        column: self.stride * self.channels,
                        segment: self.stride * frame.row(),
                    },
                    b: Strided { data: dy_rows, row: self.outputs, column: 1, segment: dy_frame.row() },
                    start: Start::Result,
                    rectify: false,
                };
                sum.run(dw);
            }
            if let Some(input) = &mut input {
                input.add_image(self, &dy_frame);
            }
        }
        let mut w_gradient = Vec::with_capacity(w.len());
        for o in 0..self.outputs {
            for c in 0..self.channels {
                let pixels = dw.iter().skip(c * self.outputs + o).step_by(self.channels * self.outputs);
                w_gradient.extend(pixels.copied());
            }
        }
        Gradients { x: input.map(|input| input.dx), w: w_gradient, b: db }
    }

    /// The filters [o][c][ky][kx] in another order.
    fn permuted<T: Float>(&self, w: &[T], position: impl Fn(usize, usize, usize, usize) -> usize) -> Vec<T> {
        let mut permuted = vec![T::zero(); w.len()];
        for (filter, pixels) in w.chunks_exact(self.side * self.side).enumerate() {
            let (o, c) = (filter / self.channels, filter % self.channels);
            for (pixel, &value) in pixels.iter().enumerate() {
                permuted[position(pixel / self.side, pixel % self.side, c, o)] = value;
            }
        }
        permuted
    }
}

/// The gradient with respect to the input, image by image.
struct InputGradient<T> {
    dx: Vec<T>,
    /// Stride 1: turned by 180° and transposed, [ky][kx][o][c]. Otherwise [o][ky][kx][c].
    filters: Vec<T>,
    /// For other strides: what each output pixel of a row adds to its window, and the padded image it is added to.
    unfolded: Vec<T>,
    folded: Frame<T>,
}

impl<T: Float> InputGradient<T> {
    fn new(extent: &Extent, w: &[T]) -> Self {
        let Extent { side, channels, outputs, .. } = *extent;
        let (filters, unfolded) = if extent.stride == 1 {
            let turned = |k: usize| side - 1 - k;
            let turn = |ky, kx, c, o| ((turned(ky) * side + turned(kx)) * outputs + o) * channels + c;
            (extent.permuted(w, turn), 0)
        } else {
            let filters = extent.permuted(w, |ky, kx, c, o| ((o * side + ky) * side + kx) * channels + c);
            (filters, extent.out_width * side * extent.row_window())
        };
        Self {
            dx: Vec::with_capacity(extent.batch * extent.in_len()),
            filters,
            unfolded: vec![T::zero(); unfolded],
            folded: extent.frame(),
        }
    }

    fn add_image(&mut self, extent: &Extent, dy: &Frame<T>) {
        if extent.stride == 1 { self.correlate(extent, dy) } else { self.fold(extent, dy) }
    }

    fn correlate(&mut self, extent: &Extent, dy: &Frame<T>) {
        let row_len = extent.width * extent.channels;
        let first = self.dx.len();
        self.dx.resize(first + extent.in_len(), T::zero());
        let depth = extent.side * extent.outputs;
        for (row, dx) in self.dx[first..].chunks_exact_mut(row_len).enumerate() {
            let sum = Sum {
                rows: extent.width,
                columns: extent.channels,
                depth,
                segments: extent.side,
                a: Strided { data: &dy.data[row * dy.row()..], row: extent.outputs, column: 1, segment: dy.row() },
                b: Strided { data: &self.filters, row: extent.channels, column: 1, segment: depth * extent.channels },
                start: Start::Zero,
                rectify: false,
            };
            sum.run(dx);
        }
    }

    /// Adds back to the padded image what each output pixel saw of it.
    fn fold(&mut self, extent: &Extent, dy: &Frame<T>) {
        let (window, step) = (extent.row_window(), extent.stride * extent.channels);
        let (folded, unfolded) = (&mut self.folded, &mut self.unfolded);
        folded.data.fill(T::zero());
        for row in 0..extent.out_height {
            let dy = Strided::matrix(&dy.data[row * dy.row()..][..dy.row()], extent.outputs);
            let columns = extent.side * window;
            let filters = Strided::matrix(&self.filters, columns);
            Sum::product((extent.out_width, extent.outputs, columns), dy, filters).run(unfolded);
            let frame_row = folded.row();
            vectorised(
                #[inline(always)]
                || {
                    for (column, windows) in unfolded.chunks_exact(columns).enumerate() {
                        for (ky, values) in windows.chunks_exact(window).enumerate() {
                            let start = (row * extent.stride + ky) * frame_row + column * step;
                            for (sum, value) in folded.data[start..start + window].iter_mut().zip(values) {
                                *sum += *value;
                            }
                        }
                    }
                },
            );
        }
        for row in 0..extent.height {
            let start = folded.first() + row * folded.row();
            self.dx.extend_from_slice(&folded.data[start..start + extent.width * extent.channels]);
        }
    }
}

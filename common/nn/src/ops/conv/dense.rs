//! Convolution of all channels with all, as sums of matrix products over the image where it lies.
//!
//! With the channels of a pixel side by side, the inputs that an output pixel meets in one row of the kernel are
//! contiguous, and those of the next output pixel begin `stride` pixels on. So an output row is a sum over the
//! kernel's rows of products of a matrix that overlaps itself: nothing is unfolded, only the padding is written out.
//! With a kernel of one pixel a whole batch is one product.

use super::super::add_columns;
use super::super::elementwise::where_positive;
use super::super::kernel::{Float, Start, Strided, Sum, vectorised};
use super::frame::Frame;
use super::{Extent, Gradients, Wanted};

impl Extent {
    /// Whether each output pixel depends on the input pixel in its place alone.
    fn is_pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }

    fn pointwise_forward<T: Float>(&self, x: &[T], w: &[T], b: &[T], rectify: bool) -> Vec<T> {
        // [c][o]
        let filters = self.permuted(w, |_, _, c, o| c * self.outputs + o);
        let shape = (self.batch * self.height * self.width, self.channels, self.outputs);
        let product = Sum::product(shape, Strided::matrix(x, self.channels), Strided::matrix(&filters, self.outputs));
        Sum { start: Start::Bias(b), rectify, ..product }.into_vec()
    }

    fn pointwise_backward<T: Float>(
        &self,
        x: &[T],
        w: &[T],
        y: Option<&[T]>,
        dy: &[T],
        wanted: Wanted,
    ) -> Gradients<T> {
        let masked = y.map(|y| where_positive(y, dy));
        let dy = masked.as_deref().unwrap_or(dy);
        let pixels = self.batch * self.height * self.width;
        let dy_matrix = Strided::matrix(dy, self.outputs);
        let dw = (self.outputs, pixels, self.channels);
        let dw = Sum::product(dw, dy_matrix.transposed(), Strided::matrix(x, self.channels)).into_vec();
        let db = wanted.bias.then(|| {
            let mut db = vec![T::zero(); self.outputs];
            vectorised(
                #[inline(always)]
                || add_columns(dy, &mut db),
            );
            db
        });
        let dx = (pixels, self.outputs, self.channels);
        let dx = wanted.input.then(|| Sum::product(dx, dy_matrix, Strided::matrix(w, self.channels)).into_vec());
        Gradients { x: dx, w: dw, b: db }
    }

    /// Inputs that one output meets in one row of the kernel.
    fn row_window(&self) -> usize {
        self.kernel[1] * self.channels
    }

    /// A frame for one input image.
    fn frame<T: Float>(&self) -> Frame<T> {
        Frame::new(self.height, self.width, self.channels, self.padding)
    }

    /// The images' windows for one row of the kernel of every output pixel of row `row`, one segment per kernel row.
    fn windows<'a, T>(&self, frame: &'a Frame<T>, row: usize) -> Strided<'a, T> {
        let data = &frame.data[row * self.stride[0] * frame.row()..];
        Strided { data, row: self.stride[1] * self.channels, column: 1, segment: frame.row() }
    }

    pub(super) fn dense_forward<T: Float>(&self, x: &[T], w: &[T], b: &[T], rectify: bool) -> Vec<T> {
        if self.is_pointwise() {
            return self.pointwise_forward(x, w, b, rectify);
        }
        // [ky][kx][c][o]
        let filters =
            self.permuted(w, |ky, kx, c, o| ((ky * self.kernel[1] + kx) * self.channels + c) * self.outputs + o);
        let mut frame = self.frame();
        let mut y = Vec::with_capacity(self.batch * self.out_len());
        for x in x.chunks_exact(self.in_len()) {
            frame.fill(x);
            for row in 0..self.out_height {
                let b_segment = self.row_window() * self.outputs;
                let sum = Sum {
                    rows: self.out_width,
                    columns: self.outputs,
                    depth: self.row_window(),
                    segments: self.kernel[0],
                    a: self.windows(&frame, row),
                    b: Strided { data: &filters, row: self.outputs, column: 1, segment: b_segment },
                    start: Start::Bias(b),
                    rectify,
                };
                sum.append_to(&mut y);
            }
        }
        y
    }

    /// `y` is given if it was rectified.
    pub(super) fn dense_backward<T: Float>(
        &self,
        x: &[T],
        w: &[T],
        y: Option<&[T]>,
        dy: &[T],
        wanted: Wanted,
    ) -> Gradients<T> {
        if self.is_pointwise() {
            return self.pointwise_backward(x, w, y, dy, wanted);
        }
        let filter_row = self.row_window() * self.outputs;
        // [ky][kx][c][o], as the filters in the forward pass.
        let mut dw = vec![T::zero(); self.kernel[0] * filter_row];
        let mut db = wanted.bias.then(|| vec![T::zero(); self.outputs]);
        let mut input = wanted.input.then(|| InputGradient::new(self, w));
        let mut frame = self.frame();
        // With stride 1 the input's gradient is itself a convolution, of the output's gradient with this padding.
        let padding = if wanted.input && self.is_correlation() { self.opposite_padding() } else { [0, 0] };
        let mut dy_frame = Frame::new(self.out_height, self.out_width, self.outputs, padding);
        for (index, (x, dy)) in x.chunks_exact(self.in_len()).zip(dy.chunks_exact(self.out_len())).enumerate() {
            frame.fill(x);
            match y {
                Some(y) => dy_frame.fill_where_positive(dy, &y[index * self.out_len()..][..self.out_len()]),
                None => dy_frame.fill(dy),
            }
            if let Some(db) = &mut db {
                dy_frame.add_columns_to(db);
            }
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
                        column: self.stride[1] * self.channels,
                        segment: self.stride[0] * frame.row(),
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
        for (filter, pixels) in w.chunks_exact(self.area()).enumerate() {
            let (o, c) = (filter / self.channels, filter % self.channels);
            for (pixel, &value) in pixels.iter().enumerate() {
                permuted[position(pixel / self.kernel[1], pixel % self.kernel[1], c, o)] = value;
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
        let Extent { kernel: [rows, columns], channels, outputs, .. } = *extent;
        let (filters, unfolded) = if extent.is_correlation() {
            let turn = |ky, kx, c, o| (((rows - 1 - ky) * columns + columns - 1 - kx) * outputs + o) * channels + c;
            (extent.permuted(w, turn), 0)
        } else {
            let filters = extent.permuted(w, |ky, kx, c, o| ((o * rows + ky) * columns + kx) * channels + c);
            (filters, extent.out_width * rows * extent.row_window())
        };
        Self {
            dx: Vec::with_capacity(extent.batch * extent.in_len()),
            filters,
            unfolded: vec![T::zero(); unfolded],
            folded: extent.frame(),
        }
    }

    fn add_image(&mut self, extent: &Extent, dy: &Frame<T>) {
        if extent.is_correlation() { self.correlate(extent, dy) } else { self.fold(extent, dy) }
    }

    fn correlate(&mut self, extent: &Extent, dy: &Frame<T>) {
        let depth = extent.kernel[1] * extent.outputs;
        for row in 0..extent.height {
            let sum = Sum {
                rows: extent.width,
                columns: extent.channels,
                depth,
                segments: extent.kernel[0],
                a: Strided { data: &dy.data[row * dy.row()..], row: extent.outputs, column: 1, segment: dy.row() },
                b: Strided { data: &self.filters, row: extent.channels, column: 1, segment: depth * extent.channels },
                start: Start::Zero,
                rectify: false,
            };
            sum.append_to(&mut self.dx);
        }
    }

    /// Adds back to the padded image what each output pixel saw of it.
    fn fold(&mut self, extent: &Extent, dy: &Frame<T>) {
        let (window, step) = (extent.row_window(), extent.stride[1] * extent.channels);
        let (folded, unfolded) = (&mut self.folded, &mut self.unfolded);
        folded.data.fill(T::zero());
        for row in 0..extent.out_height {
            let dy = Strided::matrix(&dy.data[row * dy.row()..][..dy.row()], extent.outputs);
            let columns = extent.kernel[0] * window;
            let filters = Strided::matrix(&self.filters, columns);
            Sum::product((extent.out_width, extent.outputs, columns), dy, filters).run(unfolded);
            let frame_row = folded.row();
            vectorised(
                #[inline(always)]
                || {
                    for (column, windows) in unfolded.chunks_exact(columns).enumerate() {
                        for (ky, values) in windows.chunks_exact(window).enumerate() {
                            let start = (row * extent.stride[0] + ky) * frame_row + column * step;
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

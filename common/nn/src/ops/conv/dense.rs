//! Convolution of all channels with all, as sums of matrix products over the image where it lies.
//!
//! With the channels of a pixel side by side, the inputs that an output pixel meets in one row of the kernel are
//! contiguous, and those of the next output pixel begin `stride` pixels on. So an output row is a sum over the
//! kernel's rows of products of a matrix that overlaps itself: nothing is unfolded, only the padding is written out.

use super::super::kernel::{Float, Start, Strided, Sum, vectorised};
use super::frame::Frame;
use super::{Backward, Extent, Forward, Gradients, Wanted};

pub(super) struct DenseForward<'a, T> {
    extent: Extent,
    /// [ky][kx][c][o]
    filters: Vec<T>,
    bias: &'a [T],
    rectify: bool,
    frame: Frame<T>,
}

impl<'a, T: Float> DenseForward<'a, T> {
    pub(super) fn new(extent: &Extent, w: &[T], bias: &'a [T], rectify: bool) -> Self {
        let Extent { kernel, channels, outputs, .. } = *extent;
        let filters = extent.permuted(w, |ky, kx, c, o| ((ky * kernel[1] + kx) * channels + c) * outputs + o);
        Self { extent: *extent, filters, bias, rectify, frame: extent.frame() }
    }
}

impl<T: Float> Forward<T> for DenseForward<'_, T> {
    fn append(&mut self, x: &[T], y: &mut Vec<T>) {
        let extent = &self.extent;
        for x in x.chunks_exact(extent.in_len()) {
            self.frame.fill(x);
            for row in 0..extent.out_height {
                let b_segment = extent.row_window() * extent.outputs;
                let sum = Sum {
                    rows: extent.out_width,
                    columns: extent.outputs,
                    depth: extent.row_window(),
                    segments: extent.kernel[0],
                    a: extent.windows(&self.frame, row),
                    b: Strided { data: &self.filters, row: extent.outputs, column: 1, segment: b_segment },
                    start: Start::Bias(self.bias),
                    rectify: self.rectify,
                };
                sum.append_to(y);
            }
        }
    }
}

pub(super) struct DenseBackward<T> {
    extent: Extent,
    /// [ky][kx][c][o], as the filters in the forward pass.
    dw: Option<Vec<T>>,
    db: Option<Vec<T>>,
    input: Option<InputGradient<T>>,
    frame: Frame<T>,
    dy_frame: Frame<T>,
}

impl<T: Float> DenseBackward<T> {
    pub(super) fn new(extent: &Extent, w: &[T], wanted: Wanted) -> Self {
        // With stride 1 the input's gradient is itself a convolution, of the output's gradient with this padding.
        let padding = if wanted.input && extent.is_correlation() { extent.opposite_padding() } else { [0, 0] };
        Self {
            extent: *extent,
            dw: wanted.weights.then(|| vec![T::zero(); w.len()]),
            db: wanted.bias.then(|| vec![T::zero(); extent.outputs]),
            input: wanted.input.then(|| InputGradient::new(extent, w)),
            frame: extent.frame(),
            dy_frame: Frame::new(extent.out_height, extent.out_width, extent.outputs, padding),
        }
    }
}

impl<T: Float> Backward<T> for DenseBackward<T> {
    fn add(&mut self, x: &[T], y: Option<&[T]>, dy: &[T]) {
        let Self { extent, frame, dy_frame, .. } = self;
        let filter_row = extent.row_window() * extent.outputs;
        for (index, (x, dy)) in x.chunks_exact(extent.in_len()).zip(dy.chunks_exact(extent.out_len())).enumerate() {
            frame.fill(x);
            match y {
                Some(y) => dy_frame.fill_where_positive(dy, &y[index * extent.out_len()..][..extent.out_len()]),
                None => dy_frame.fill(dy),
            }
            if let Some(db) = &mut self.db {
                dy_frame.add_columns_to(db);
            }
            let dy_rows = &dy_frame.data[dy_frame.first()..];
            for (ky, dw) in self.dw.iter_mut().flat_map(|dw| dw.chunks_exact_mut(filter_row)).enumerate() {
                let x_rows = &frame.data[ky * frame.row()..];
                let sum = Sum {
                    rows: extent.row_window(),
                    columns: extent.outputs,
                    depth: extent.out_width,
                    segments: extent.out_height,
                    a: Strided {
                        data: x_rows,
                        row: 1,
                        column: extent.stride[1] * extent.channels,
                        segment: extent.stride[0] * frame.row(),
                    },
                    b: Strided { data: dy_rows, row: extent.outputs, column: 1, segment: dy_frame.row() },
                    start: Start::Result,
                    rectify: false,
                };
                sum.run(dw);
            }
            if let Some(input) = &mut self.input {
                input.add_image(extent, dy_frame);
            }
        }
    }

    fn gradients(self: Box<Self>) -> Gradients<T> {
        let Extent { channels, outputs, .. } = self.extent;
        let w = self.dw.map(|dw| {
            let mut w = Vec::with_capacity(dw.len());
            for o in 0..outputs {
                for c in 0..channels {
                    w.extend(dw.iter().skip(c * outputs + o).step_by(channels * outputs).copied());
                }
            }
            w
        });
        Gradients { x: self.input.map(|input| input.dx), w, b: self.db }
    }
}

impl Extent {
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

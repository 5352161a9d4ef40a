//! Convolution with a kernel of one pixel: one product for all pixels of all images.

use super::{Backward, Extent, Forward, Gradients, Wanted};
use crate::ops::add_columns;
use crate::ops::elementwise::where_positive;
use crate::ops::kernel::{Float, Start, Strided, Sum, vectorised};

impl Extent {
    /// Whether each output pixel depends on the input pixel in its place alone.
    pub(super) fn is_pointwise(&self) -> bool {
        self.groups == 1 && self.kernel == [1, 1] && self.stride == [1, 1] && self.padding == [0, 0]
    }
}

pub(super) struct PointwiseForward<'a, T> {
    channels: usize,
    outputs: usize,
    /// [c][o]
    filters: Vec<T>,
    bias: &'a [T],
    rectify: bool,
}

impl<'a, T: Float> PointwiseForward<'a, T> {
    pub(super) fn new(extent: &Extent, w: &[T], bias: &'a [T], rectify: bool) -> Self {
        let (channels, outputs) = (extent.channels, extent.outputs);
        let filters = (0..channels).flat_map(|c| w.iter().skip(c).step_by(channels)).copied().collect();
        Self { channels, outputs, filters, bias, rectify }
    }
}

impl<T: Float> Forward<T> for PointwiseForward<'_, T> {
    fn append(&mut self, x: &[T], y: &mut Vec<T>) {
        let shape = (x.len() / self.channels, self.channels, self.outputs);
        let filters = Strided::matrix(&self.filters, self.outputs);
        let product = Sum::product(shape, Strided::matrix(x, self.channels), filters);
        Sum { start: Start::Bias(self.bias), rectify: self.rectify, ..product }.append_to(y);
    }
}

pub(super) struct PointwiseBackward<'a, T> {
    channels: usize,
    outputs: usize,
    w: &'a [T],
    gradients: Gradients<T>,
}

impl<'a, T: Float> PointwiseBackward<'a, T> {
    pub(super) fn new(extent: &Extent, w: &'a [T], wanted: Wanted) -> Self {
        let gradients = Gradients {
            x: wanted.input.then(|| Vec::with_capacity(extent.batch * extent.in_len())),
            w: wanted.weights.then(|| vec![T::zero(); w.len()]),
            b: wanted.bias.then(|| vec![T::zero(); extent.outputs]),
        };
        Self { channels: extent.channels, outputs: extent.outputs, w, gradients }
    }
}

impl<T: Float> Backward<T> for PointwiseBackward<'_, T> {
    fn add(&mut self, x: &[T], y: Option<&[T]>, dy: &[T]) {
        let Self { channels, outputs, w, .. } = *self;
        let masked = y.map(|y| where_positive(y, dy));
        let dy = masked.as_deref().unwrap_or(dy);
        let pixels = x.len() / channels;
        let (x, dy_matrix) = (Strided::matrix(x, channels), Strided::matrix(dy, outputs));
        if let Some(dw) = &mut self.gradients.w {
            let product = Sum::product((outputs, pixels, channels), dy_matrix.transposed(), x);
            Sum { start: Start::Result, ..product }.run(dw);
        }
        if let Some(db) = &mut self.gradients.b {
            vectorised(
                #[inline(always)]
                || add_columns(dy, db),
            );
        }
        if let Some(dx) = &mut self.gradients.x {
            Sum::product((pixels, outputs, channels), dy_matrix, Strided::matrix(w, channels)).append_to(dx);
        }
    }

    fn gradients(self: Box<Self>) -> Gradients<T> {
        self.gradients
    }
}

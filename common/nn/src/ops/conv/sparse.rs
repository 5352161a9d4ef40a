//! Convolution of whose weights few are left: each moves a whole image.
//!
//! Of a channel, what a pixel of the kernel sees is the padded image itself, from another place on. So images lie side by
//! side, a row for each channel, and a weight adds such a row, shifted, to a row of results as long, in which what lies
//! beyond an output row's end is of no use. That this is more work than with the pixels that count alone, by the share that
//! a kernel takes of an image, costs less than gathering them.

use super::{Backward, Extent, Forward, Gradients, Wanted};
use crate::ops::elementwise::where_positive;
use crate::ops::kernel::{Float, vectorised};
use crate::ops::sparse::{add_bias, side_by_side};
use crate::ops::{Pattern, add_columns, transpose_part};

/// Padded images side by side.
#[derive(Clone, Copy)]
struct Wide {
    extent: Extent,
    images: usize,
    /// Rows and columns with padding.
    height: usize,
    width: usize,
    /// Elements of a row of images.
    len: usize,
    /// How far the kernel sees beyond its first pixel.
    reach: usize,
}

impl Wide {
    fn new(extent: &Extent, images: usize) -> Self {
        let [height, width] = [extent.height + 2 * extent.padding[0], extent.width + 2 * extent.padding[1]];
        let reach = (extent.kernel[0] - 1) * width + extent.kernel[1] - 1;
        Self { extent: *extent, images, height, width, len: side_by_side(images * height * width), reach }
    }

    /// Where each pixel of the kernel begins to see.
    fn shifts(&self) -> impl Iterator<Item = usize> + use<> {
        let (columns, width) = (self.extent.kernel[1], self.width);
        (0..self.extent.area()).map(move |pixel| pixel / columns * width + pixel % columns)
    }

    /// For each of a row of weights, where what it sees begins among [`Self::inputs`].
    fn seen(&self) -> Vec<usize> {
        let shifts = |channel| self.shifts().map(move |shift| channel * self.len + shift);
        (0..self.extent.channels).flat_map(shifts).collect()
    }

    /// For each output and pixel of the kernel, where that begins among [`Self::gradients`] which have seen what is at the
    /// beginning of the images.
    fn seeing(&self) -> Vec<usize> {
        let shifts = |output| self.shifts().map(move |shift| self.reach + output * self.len - shift);
        (0..self.extent.outputs).flat_map(shifts).collect()
    }

    /// Calls `each` with where a row of pixels of an image begins, of those that lie one after another and of the wide ones.
    fn each_row(&self, (rows, columns): (usize, usize), padding: [usize; 2], mut each: impl FnMut(usize, usize)) {
        for row in 0..self.images * rows {
            let (image, y) = (row / rows, row % rows);
            each(row * columns, (image * self.height + y + padding[0]) * self.width + padding[1]);
        }
    }

    /// Images whose pixels have their channels side by side, and room to see beyond the last.
    fn inputs<T: Float>(&self, x: &[T]) -> Vec<T> {
        let Extent { channels, height, width, padding, .. } = self.extent;
        let mut inputs = vec![T::zero(); channels * self.len + self.reach];
        self.each_row((height, width), padding, |pixel, place| {
            let x = (&x[pixel * channels..], channels);
            transpose_part(x, [width, channels], (&mut inputs[place..], self.len));
        });
        inputs
    }

    /// Appends the images of such rows, without what was padding.
    fn append_inputs<T: Float>(&self, inputs: &[T], x: &mut Vec<T>) {
        let Extent { channels, height, width, padding, .. } = self.extent;
        let first = x.len();
        x.resize(first + self.images * self.extent.in_len(), T::zero());
        let x = &mut x[first..];
        self.each_row((height, width), padding, |pixel, place| {
            let inputs = (&inputs[place..], self.len);
            transpose_part(inputs, [channels, width], (&mut x[pixel * channels..], channels));
        });
    }

    /// Gradients of results as [`Self::append_results`] finds those, with zeros where no result is, and before all.
    fn gradients<T: Float>(&self, dy: &[T]) -> Vec<T> {
        let Extent { outputs, out_height, out_width, .. } = self.extent;
        let mut gradients = vec![T::zero(); self.reach + outputs * self.len];
        let wide = &mut gradients[self.reach..];
        self.each_row((out_height, out_width), [0, 0], |pixel, place| {
            let dy = (&dy[pixel * outputs..], outputs);
            transpose_part(dy, [out_width, outputs], (&mut wide[place..], self.len));
        });
        gradients
    }

    /// Appends the results that wide rows have, outputs side by side.
    fn append_results<T: Float>(&self, results: &[T], y: &mut Vec<T>) {
        let Extent { outputs, out_height, out_width, .. } = self.extent;
        let first = y.len();
        y.resize(first + self.images * self.extent.out_len(), T::zero());
        let y = &mut y[first..];
        self.each_row((out_height, out_width), [0, 0], |pixel, place| {
            let results = (&results[place..], self.len);
            transpose_part(results, [outputs, out_width], (&mut y[pixel * outputs..], outputs));
        });
    }
}

pub(super) struct SparseForward<'a, T> {
    extent: Extent,
    pattern: &'a Pattern,
    w: &'a [T],
    bias: &'a [T],
    rectify: bool,
}

impl<'a, T: Float> SparseForward<'a, T> {
    pub(super) fn new(extent: &Extent, (w, pattern): (&'a [T], &'a Pattern), bias: &'a [T], rectify: bool) -> Self {
        Self { extent: *extent, pattern, w, bias, rectify }
    }
}

impl<T: Float> Forward<T> for SparseForward<'_, T> {
    fn append(&mut self, x: &[T], y: &mut Vec<T>) {
        let Self { extent, pattern, w, bias, rectify } = *self;
        let first = y.len();
        for x in x.chunks(extent.portion() * extent.in_len()) {
            let wide = Wide::new(&extent, x.len() / extent.in_len());
            let mut results = vec![T::zero(); extent.outputs * wide.len];
            pattern.by_output.multiply(w, (&wide.inputs(x), &wide.seen()), wide.len, &mut results);
            wide.append_results(&results, y);
        }
        add_bias(&mut y[first..], bias, rectify);
    }
}

pub(super) struct SparseBackward<'a, T> {
    extent: Extent,
    pattern: &'a Pattern,
    /// The weights by what they see; empty where nobody asks for the gradient of that.
    by_input: Vec<T>,
    gradients: Gradients<T>,
}

impl<'a, T: Float> SparseBackward<'a, T> {
    pub(super) fn new(extent: &Extent, (w, pattern): (&'a [T], &'a Pattern), wanted: Wanted) -> Self {
        let gradients = Gradients {
            x: wanted.input.then(|| Vec::with_capacity(extent.batch * extent.in_len())),
            w: wanted.weights.then(|| vec![T::zero(); w.len()]),
            b: wanted.bias.then(|| vec![T::zero(); extent.outputs]),
        };
        let by_input = if wanted.input { pattern.values_by_input(w) } else { Vec::new() };
        Self { extent: *extent, pattern, by_input, gradients }
    }

    fn add_portion(&mut self, x: &[T], dy: &[T]) {
        let Self { extent, pattern, .. } = *self;
        let wide = Wide::new(&extent, x.len() / extent.in_len());
        let dy = wide.gradients(dy);
        if let Some(dw) = &mut self.gradients.w {
            let mut products = vec![T::zero(); dw.len()];
            let seen = wide.seen();
            pattern.by_output.products(&dy[wide.reach..], (&wide.inputs(x), &seen), wide.len, &mut products);
            dw.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
        }
        if let Some(dx) = &mut self.gradients.x {
            let mut sums = vec![T::zero(); extent.channels * wide.len];
            pattern.by_input.multiply(&self.by_input, (&dy, &wide.seeing()), wide.len, &mut sums);
            wide.append_inputs(&sums, dx);
        }
    }
}

impl<T: Float> Backward<T> for SparseBackward<'_, T> {
    fn add(&mut self, x: &[T], y: Option<&[T]>, dy: &[T]) {
        let masked = y.map(|y| where_positive(y, dy));
        let dy = masked.as_deref().unwrap_or(dy);
        let portion = self.extent.portion();
        let (images, results) = (portion * self.extent.in_len(), portion * self.extent.out_len());
        for (x, dy) in x.chunks(images).zip(dy.chunks(results)) {
            self.add_portion(x, dy);
        }
        if let Some(db) = &mut self.gradients.b {
            vectorised(
                #[inline(always)]
                || add_columns(dy, db),
            );
        }
    }

    fn gradients(self: Box<Self>) -> Gradients<T> {
        self.gradients
    }
}

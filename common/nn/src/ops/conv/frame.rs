//! An image with its padding written out.

use crate::ops::add_columns;
use crate::ops::kernel::{Float, vectorised};

/// One image in a border of zeros, which are written once.
pub(super) struct Frame<T> {
    pub(super) data: Vec<T>,
    height: usize,
    width: usize,
    channels: usize,
    padding: [usize; 2],
}

impl<T: Float> Frame<T> {
    pub(super) fn new(height: usize, width: usize, channels: usize, padding: [usize; 2]) -> Self {
        let data = vec![T::zero(); (height + 2 * padding[0]) * (width + 2 * padding[1]) * channels];
        Self { data, height, width, channels, padding }
    }

    /// Elements of the image before the border's end.
    pub(super) fn first(&self) -> usize {
        self.padding[0] * self.row() + self.padding[1] * self.channels
    }

    pub(super) fn fill(&mut self, image: &[T]) {
        let (first, row, len) = (self.first(), self.row(), self.width * self.channels);
        for (index, values) in image.chunks_exact(len).enumerate() {
            self.data[first + index * row..][..len].copy_from_slice(values);
        }
    }

    /// [`Self::fill`], with zeros where `other` is not positive: back through a rectifier.
    pub(super) fn fill_where_positive(&mut self, image: &[T], other: &[T]) {
        let (first, row, len) = (self.first(), self.row(), self.width * self.channels);
        let data = &mut self.data;
        vectorised(
            #[inline(always)]
            || {
                for (index, (image, other)) in image.chunks_exact(len).zip(other.chunks_exact(len)).enumerate() {
                    let to = &mut data[first + index * row..][..len];
                    for (to, (&value, &other)) in to.iter_mut().zip(image.iter().zip(other)) {
                        *to = if other > T::zero() { value } else { T::zero() };
                    }
                }
            },
        );
    }

    /// Adds each channel's sum over all pixels.
    pub(super) fn add_columns_to(&self, sums: &mut [T]) {
        let (first, row) = (self.first(), self.row());
        vectorised(
            #[inline(always)]
            || {
                for index in 0..self.height {
                    let pixels = &self.data[first + index * row..][..self.width * self.channels];
                    add_columns(pixels, sums);
                }
            },
        );
    }
}

impl<T> Frame<T> {
    /// Elements in a row with its border.
    pub(super) fn row(&self) -> usize {
        (self.width + 2 * self.padding[1]) * self.channels
    }
}

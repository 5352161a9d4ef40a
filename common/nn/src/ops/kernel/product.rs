//! The checked way to a sum of matrix products.
#![expect(unsafe_code, reason = "hands pointers to the inner loops, after checking that all they will touch exists")]

use super::tile::Operands;
use super::{Multiply, packed};
use std::ptr;

/// Matrices in a slice: row `i`, column `j` of matrix `s` is `data[s * segment + i * row + j * column]`.
#[derive(Clone, Copy)]
pub(in super::super) struct Strided<'a, T> {
    pub(in super::super) data: &'a [T],
    pub(in super::super) row: usize,
    pub(in super::super) column: usize,
    pub(in super::super) segment: usize,
}

impl<'a, T> Strided<'a, T> {
    /// One row-major matrix of this many columns.
    pub(in super::super) fn matrix(data: &'a [T], columns: usize) -> Self {
        Self { data, row: columns, column: 1, segment: 0 }
    }

    /// The transpose, without moving anything.
    pub(in super::super) fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    fn holds(&self, rows: usize, columns: usize, segments: usize) -> bool {
        let last = |extent: usize, stride: usize| extent.saturating_sub(1) * stride;
        rows == 0
            || columns == 0
            || segments == 0
            || last(rows, self.row) + last(columns, self.column) + last(segments, self.segment) < self.data.len()
    }
}

/// What the products are added to.
#[derive(Clone, Copy)]
pub(in super::super) enum Start<'a, T> {
    /// Nothing: the result is replaced.
    Zero,
    /// What the result holds.
    Result,
    /// The same row for all rows: a bias of one element per column.
    Bias(&'a [T]),
}

/// result = f(start + Σₛ aₛ·bₛ), with f the identity or the rectifier max(x, 0).
///
/// A convolution's output row is such a sum with one product per row of the kernel; a plain product has one segment.
#[derive(Clone, Copy)]
pub(in super::super) struct Sum<'a, T> {
    pub(in super::super) rows: usize,
    pub(in super::super) columns: usize,
    /// Columns of `a` and rows of `b`.
    pub(in super::super) depth: usize,
    pub(in super::super) segments: usize,
    pub(in super::super) a: Strided<'a, T>,
    /// Its column stride is 1, unless there is but one segment.
    pub(in super::super) b: Strided<'a, T>,
    pub(in super::super) start: Start<'a, T>,
    pub(in super::super) rectify: bool,
}

impl<'a, T: Multiply> Sum<'a, T> {
    /// The product of a rows×depth and a depth×columns matrix.
    pub(in super::super) fn product(
        (rows, depth, columns): (usize, usize, usize),
        a: Strided<'a, T>,
        b: Strided<'a, T>,
    ) -> Self {
        Self { rows, columns, depth, segments: 1, a, b, start: Start::Zero, rectify: false }
    }

    /// The result in a new row-major vector, whose elements are written only once.
    ///
    /// # Panics
    /// When an operand is too short.
    pub(in super::super) fn into_vec(self) -> Vec<T> {
        let mut result = Vec::new();
        self.append_to(&mut result);
        result
    }

    /// Appends the result, row-major, to a vector.
    ///
    /// # Panics
    /// When an operand is too short.
    pub(in super::super) fn append_to(self, to: &mut Vec<T>) {
        assert!(!matches!(self.start, Start::Result), "new elements hold nothing to add to");
        let (first, len) = (to.len(), self.rows * self.columns);
        to.reserve(len);
        // SAFETY: `run_at` writes every one of the `len` elements, for which there is room behind the others.
        unsafe {
            self.run_at(to.as_mut_ptr().add(first), self.columns);
            to.set_len(first + len);
        }
    }

    /// Writes the result into rows that start `row` elements apart.
    ///
    /// # Panics
    /// When an operand or the result is too short, or rows would overlap.
    pub(in super::super) fn run_in(self, result: &mut [T], row: usize) {
        let fits = self.rows == 0 || self.columns == 0 || (self.rows - 1) * row + self.columns <= result.len();
        assert!(fits && self.columns <= row, "{} rows of {} of {row} in {}", self.rows, self.columns, result.len());
        // SAFETY: the result was measured.
        unsafe { self.run_at(result.as_mut_ptr(), row) }
    }

    /// Writes the result, row-major.
    ///
    /// # Panics
    /// When an operand is too short or the result has another length.
    pub(in super::super) fn run(self, result: &mut [T]) {
        assert_eq!(result.len(), self.rows * self.columns, "a {}×{} result", self.rows, self.columns);
        // SAFETY: the result was measured.
        unsafe { self.run_at(result.as_mut_ptr(), self.columns) }
    }

    /// # Safety
    /// Rows of `c_row` elements can be written at `c`, and read if they are the start.
    unsafe fn run_at(self, c: *mut T, c_row: usize) {
        let Self { rows, columns, depth, segments, a, b, start, rectify } = self;
        assert!(a.holds(rows, depth, segments), "a is shorter than {segments} of {rows}×{depth}");
        assert!(
            b.holds(depth, columns, segments) && (b.column == 1 || segments == 1),
            "b is shorter than {segments} of {depth}×{columns}"
        );
        let (start, start_row) = match start {
            Start::Zero => (ptr::null(), 0),
            Start::Result => (c.cast_const(), c_row),
            Start::Bias(bias) => {
                assert_eq!(bias.len(), columns, "one bias per column");
                (bias.as_ptr(), 0)
            }
        };
        let operands = Operands {
            rows,
            columns,
            depth,
            segments,
            a: a.data.as_ptr(),
            a_row: a.row,
            a_column: a.column,
            a_segment: a.segment,
            b: b.data.as_ptr(),
            b_row: b.row,
            b_segment: b.segment,
            c,
            c_row,
            start,
            start_row,
            rectify,
        };
        // SAFETY: the operands were checked above, the result by the caller; the borrow checker keeps them apart.
        unsafe {
            if packed::pays(&operands, b.column) {
                packed::product(&operands, b.column);
            } else {
                T::sum_of_products(&operands);
            }
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

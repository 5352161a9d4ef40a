//! A tensor's gradient as an optimizer's step goes through it: a block at a time, whatever it is made of.

use crate::ops::{Product, vectorised};
use std::ops::Range;

/// Coordinates that are taken through a whole step before the next ones: with gradient and state, in the first-level
/// cache.
pub(super) const BLOCK: usize = 2048;

/// The gradient of one tensor, as the sum of those of the parts of a batch; none when the loss does not depend on it.
pub(super) struct TensorGradient<'a> {
    /// Where the tensor lies in the flat vector.
    pub(super) range: Range<usize>,
    pub(super) parts: Vec<Part<'a>>,
    /// What it is multiplied by, element by element; empty for nothing.
    pub(super) left: &'a [f32],
    /// Whether it is one of steps, which stay positive and are under no penalty.
    pub(super) is_step: bool,
}

/// The gradient of a part of a batch.
pub(super) enum Part<'a> {
    Whole(&'a [f32]),
    Product(Product<'a>),
}

impl Part<'_> {
    /// Its elements.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Whole(elements) => elements.len(),
            Self::Product(product) => product.outputs * product.inputs,
        }
    }

    /// Some rows of `columns` elements.
    fn write(&self, rows: Range<usize>, columns: usize, to: &mut [f32]) {
        match self {
            Self::Whole(elements) => to.copy_from_slice(&elements[rows.start * columns..rows.end * columns]),
            Self::Product(product) => product.rows(rows, to),
        }
    }
}

/// Room for sums, kept from one tensor to the next.
#[derive(Default)]
pub(super) struct Room {
    sum: Vec<f32>,
    other: Vec<f32>,
}

impl TensorGradient<'_> {
    /// Calls `each` with the sum over the parts for all of the tensor's coordinates in a range, at most [`BLOCK`] at a time.
    pub(super) fn for_blocks(&self, range: Range<usize>, room: &mut Room, mut each: impl FnMut(Range<usize>, &[f32])) {
        let product = self.parts.iter().find_map(|part| if let Part::Product(of) = part { Some(of) } else { None });
        // Without a product every element is a row.
        let columns = product.map_or(1, |product| product.inputs);
        let at_once = if product.is_some() { ROWS } else { BLOCK };
        for first in (range.start / columns..range.end.div_ceil(columns)).step_by(at_once) {
            let rows = first..(first + at_once).min(range.end.div_ceil(columns));
            let run = rows.start * columns..rows.end * columns;
            let sum = self.sum(rows, columns, room);
            for block in blocks(run.start.max(range.start)..run.end.min(range.end)) {
                each(block.clone(), &sum[block.start - run.start..block.end - run.start]);
            }
        }
    }

    /// The sum over the parts for some rows of the tensor.
    fn sum<'r>(&'r self, rows: Range<usize>, columns: usize, room: &'r mut Room) -> &'r [f32] {
        let (len, run) = (rows.len() * columns, rows.start * columns..rows.end * columns);
        if let ([Part::Whole(only)], []) = (&*self.parts, self.left) {
            return &only[run];
        }
        let Room { sum, other } = room;
        sum.resize(len, 0.0);
        if self.parts.is_empty() {
            sum.fill(0.0);
        }
        for (i, part) in self.parts.iter().enumerate() {
            if i == 0 {
                part.write(rows.clone(), columns, sum);
                continue;
            }
            other.resize(len, 0.0);
            part.write(rows.clone(), columns, other);
            vectorised(
                #[inline(always)]
                || sum.iter_mut().zip(&*other).for_each(|(sum, &value)| *sum += value),
            );
        }
        if !self.left.is_empty() {
            sum.iter_mut().zip(&self.left[run]).for_each(|(sum, &left)| *sum *= left);
        }
        sum
    }
}

/// A range in runs of at most [`BLOCK`].
fn blocks(range: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(BLOCK).map(move |start| start..(start + BLOCK).min(end))
}

/// Rows of a product that are multiplied out together: as many as its kernel takes through a column at once.
const ROWS: usize = 8;

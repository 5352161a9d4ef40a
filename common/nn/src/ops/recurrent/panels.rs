//! Matrices cut into panels of thirty-two columns, each lying in one piece: the order in which a product walks them.
//!
//! The last panel is filled up with zeros, which change no sum.

use super::super::kernel::Float;
use std::ops::Range;

/// Columns of a panel: four vectors of AVX2 or two of AVX-512.
pub(super) const LANES: usize = 32;

/// For each step of a sequence a matrix of batch rows: the element of step `t`, row `i`, column `j` lies at
/// `((t·panels + j / LANES)·rows + i)·LANES + j % LANES`.
pub(super) struct Steps<T> {
    pub(super) data: Vec<T>,
    pub(super) rows: usize,
    pub(super) panels: usize,
}

impl<T: Float> Steps<T> {
    pub(super) fn zeros(steps: usize, rows: usize, panels: usize) -> Self {
        Self { data: vec![T::zero(); steps * rows * panels * LANES], rows, panels }
    }

    /// From [rows, steps, width], row-major.
    pub(super) fn of_batch(batch: &[T], rows: usize, steps: usize, width: usize) -> Self {
        let mut all = Self::zeros(steps, rows, width.div_ceil(LANES));
        for (row, sequence) in batch.chunks_exact(steps * width).enumerate() {
            for (step, values) in sequence.chunks_exact(width).enumerate() {
                for (panel, values) in values.chunks(LANES).enumerate() {
                    let first = all.at(step, panel) + row * LANES;
                    all.data[first..first + values.len()].copy_from_slice(values);
                }
            }
        }
        all
    }

    /// As [rows, steps, width], row-major.
    pub(super) fn to_batch(&self, steps: usize, width: usize) -> Vec<T> {
        let mut batch = Vec::with_capacity(self.rows * steps * width);
        for row in 0..self.rows {
            for step in 0..steps {
                for panel in 0..self.panels {
                    let first = self.at(step, panel) + row * LANES;
                    let count = (width - panel * LANES).min(LANES);
                    batch.extend_from_slice(&self.data[first..first + count]);
                }
            }
        }
        batch
    }

    /// Elements of a panel.
    pub(super) const fn panel_len(&self) -> usize {
        self.rows * LANES
    }

    /// Elements of a step.
    pub(super) const fn step_len(&self) -> usize {
        self.panels * self.panel_len()
    }

    /// Where a panel of a step begins.
    pub(super) const fn at(&self, step: usize, panel: usize) -> usize {
        step * self.step_len() + panel * self.panel_len()
    }

    /// The elements of one panel of a step.
    pub(super) fn panel(&self, step: usize, panel: usize) -> &[T] {
        let first = self.at(step, panel);
        &self.data[first..first + self.panel_len()]
    }

    /// Appends one panel of some steps, one below the other.
    pub(super) fn append(&self, panel: usize, steps: Range<usize>, to: &mut Vec<T>) {
        steps.for_each(|step| to.extend_from_slice(self.panel(step, panel)));
    }

    /// All elements of a step.
    pub(super) fn step(&self, step: usize) -> &[T] {
        &self.data[step * self.step_len()..][..self.step_len()]
    }

    /// All elements of a step, to be written.
    pub(super) fn step_mut(&mut self, step: usize) -> &mut [T] {
        let len = self.step_len();
        &mut self.data[step * len..][..len]
    }
}

/// The weights between some inputs, which are columns of the weight matrix, and the slots that they feed.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a, T> {
    /// [gates·units, stride], row-major.
    pub(super) matrix: &'a [T],
    pub(super) stride: usize,
    /// First of the columns, and how many there are.
    pub(super) first: usize,
    pub(super) inputs: usize,
    pub(super) units: usize,
    /// The gate behind each slot.
    pub(super) gates: &'a [usize],
}

impl<T: Float> Weights<'_, T> {
    /// Panels of units, slot after slot, each with a row per input, up to a whole number of panels: what inputs are
    /// multiplied by.
    pub(super) fn forward(&self) -> Vec<T> {
        let (panels, depth) = (self.units.div_ceil(LANES), self.inputs.next_multiple_of(LANES));
        let mut packed = vec![T::zero(); self.gates.len() * panels * depth * LANES];
        let mut panel_of = packed.chunks_exact_mut(depth * LANES);
        for &gate in self.gates {
            for (panel, packed) in (0..panels).zip(&mut panel_of) {
                for unit in panel * LANES..((panel + 1) * LANES).min(self.units) {
                    let row = self.row(gate, unit);
                    for (packed, &weight) in packed[unit % LANES..].iter_mut().step_by(LANES).zip(row) {
                        *packed = weight;
                    }
                }
            }
        }
        packed
    }

    /// Panels of inputs, each with a row per unit of each slot, up to whole panels: what gradients are multiplied by.
    pub(super) fn backward(&self) -> Vec<T> {
        let units = self.units.next_multiple_of(LANES);
        let mut packed = vec![T::zero(); self.inputs.div_ceil(LANES) * self.gates.len() * units * LANES];
        for (panel, packed) in packed.chunks_exact_mut(self.gates.len() * units * LANES).enumerate() {
            for (&gate, packed) in self.gates.iter().zip(packed.chunks_exact_mut(units * LANES)) {
                for (unit, packed) in (0..self.units).zip(packed.chunks_exact_mut(LANES)) {
                    let row = &self.row(gate, unit)[panel * LANES..];
                    let count = row.len().min(LANES);
                    packed[..count].copy_from_slice(&row[..count]);
                }
            }
        }
        packed
    }

    fn row(&self, gate: usize, unit: usize) -> &[T] {
        let first = (gate * self.units + unit) * self.stride + self.first;
        &self.matrix[first..first + self.inputs]
    }
}

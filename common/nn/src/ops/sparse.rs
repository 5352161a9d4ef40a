//! Layers of which few weights are left: products that go through those alone.
//!
//! The weights are then a vector of what is left, in the order of the matrix, and a [`Pattern`] says where each stands. So
//! is their gradient, and so is everything that an optimizer keeps for them. Examples lie side by side, a vector of them
//! for each input and each output, and a weight moves one such vector.

#[cfg(test)]
mod tests;

use super::kernel::{COLUMNS, Float, Lists};
use super::linear::{before_rectifier, bias_gradient};
use super::tape::Fused;
use super::{Graph, elements, for_float, transpose, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Where the weights stand that are left of a matrix [out, in], or of a convolution's [out, channels, rows, columns], whose
/// inputs are then all that an output pixel sees.
#[derive(Debug)]
pub(crate) struct Pattern {
    shape: Vec<usize>,
    /// For each output the places in a row of weights.
    pub(super) by_output: Lists,
    /// For each input channel, outputs and pixels of the kernel: `output · pixels + pixel`, where layers without a kernel
    /// have one pixel.
    pub(super) by_input: Lists,
    /// For each entry by input, its place among the weights, which lie by output.
    order: Vec<u32>,
}

impl Pattern {
    /// Of the elements of a tensor, those at these places of it as it lies in memory, rising.
    ///
    /// # Panics
    /// When it has fewer than two axes, or a place is beyond its end.
    pub(crate) fn new(shape: &[usize], places: impl Iterator<Item = usize>) -> Self {
        let (outputs, inputs, pixels) = (shape[0], shape[1], shape[2..].iter().product::<usize>());
        let row = inputs * pixels;
        let (mut starts, mut entries) = (vec![0u32; outputs + 1], Vec::new());
        let mut starts_by_input = vec![0u32; inputs + 1];
        for place in places {
            entries.push((place % row) as u32);
            starts[place / row + 1] += 1;
            starts_by_input[place % row / pixels + 1] += 1;
        }
        for starts in [&mut starts, &mut starts_by_input] {
            for i in 1..starts.len() {
                starts[i] += starts[i - 1];
            }
        }
        let by_output = Lists::new(starts, entries, row);
        let mut next = starts_by_input.clone();
        let (mut entries, mut order) = (vec![0; by_output.entries().len()], vec![0; by_output.entries().len()]);
        for output in 0..outputs {
            for place in by_output.range(output) {
                let entry = by_output.entries()[place] as usize;
                let to = &mut next[entry / pixels];
                entries[*to as usize] = (output * pixels + entry % pixels) as u32;
                order[*to as usize] = place as u32;
                *to += 1;
            }
        }
        let by_input = Lists::new(starts_by_input, entries, outputs * pixels);
        Self { shape: shape.to_vec(), by_output, by_input, order }
    }

    /// The shape of the tensor with all weights.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many weights are left.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// The places of the weights in the tensor with all, in order.
    fn places(&self) -> impl Iterator<Item = usize> + '_ {
        let row: usize = self.shape[1..].iter().product();
        let rows =
            (0..self.by_output.len()).flat_map(move |output| self.by_output.range(output).map(move |_| output * row));
        rows.zip(self.by_output.entries()).map(|(row, &entry)| row + entry as usize)
    }

    /// The weights that are left in the order of `by_input`.
    pub(super) fn values_by_input<T: Float>(&self, w: &[T]) -> Vec<T> {
        self.order.iter().map(|&place| w[place as usize]).collect()
    }
}

/// [`linear`](super::linear), and the rectifier if asked for, for weights of which these are left.
pub(super) fn sparse_linear(
    graph: &mut Graph<'_>,
    pattern: &Arc<Pattern>,
    [x, w, b]: [&Tensor; 3],
    rectify: bool,
) -> Result<Tensor> {
    let (inputs, outputs) = (pattern.by_input.len(), pattern.by_output.len());
    let mut shape = x.dims().to_vec();
    if shape.pop() != Some(inputs) || w.dims() != [pattern.len()] || b.dims() != [outputs] {
        candle_core::bail!(
            "linear: x {:?}, {:?} weights that are left, b {:?}; want inputs of {inputs}, {} weights, [{outputs}]",
            x.dims(),
            w.dims(),
            b.dims(),
            pattern.len()
        );
    }
    let rows = shape.iter().product::<usize>();
    shape.push(outputs);
    for_float!(x.dtype(), T => forward::<T>(graph, pattern, [x, w, b], (rows, shape), rectify))
}

fn forward<T: Float>(
    graph: &mut Graph<'_>,
    pattern: &Arc<Pattern>,
    [x, w, b]: [&Tensor; 3],
    (rows, shape): (usize, Vec<usize>),
    rectify: bool,
) -> Result<Tensor> {
    let (inputs, outputs, lanes) = (pattern.by_input.len(), pattern.by_output.len(), side_by_side(rows));
    let columns = with_elements::<T, _>(x, |x| Ok(SideBySide::of(x, inputs)))?;
    let mut sums = SideBySide::zeros(outputs * lanes);
    with_elements::<T, _>(w, |w| {
        pattern.by_output.multiply(w, (&columns, &rows_of(lanes, inputs)), lanes, &mut sums);
        Ok(())
    })?;
    let mut y = one_after_another(&sums, lanes, rows);
    with_elements::<T, _>(b, |b| {
        add_bias(&mut y, b, rectify);
        Ok(())
    })?;
    let y = Tensor::from_vec(y, shape, x.device())?;
    let op = SparseLinear {
        pattern: Arc::clone(pattern),
        columns,
        result: rectify.then(|| y.clone()),
        wants_input: graph.needs_gradient(x),
        wants_weights: graph.needs_gradient(w),
    };
    Ok(graph.record(op, [x, w, b].map(Clone::clone).to_vec(), y))
}

struct SparseLinear<T> {
    pattern: Arc<Pattern>,
    /// The operand, with its rows side by side.
    columns: SideBySide<T>,
    /// What the rectifier made, where there is one.
    result: Option<Tensor>,
    wants_input: bool,
    wants_weights: bool,
}

impl<T: Float> Fused for SparseLinear<T> {
    fn backward(self: Box<Self>, operands: &[Tensor], dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let [x, w, b] = operands else { candle_core::bail!("linear: three operands") };
        let (inputs, outputs) = (self.pattern.by_input.len(), self.pattern.by_output.len());
        let rows = x.elem_count() / inputs.max(1);
        let lanes = side_by_side(rows);
        let dy = match &self.result {
            Some(y) => before_rectifier::<T>(true, y, dy)?,
            None => dy.contiguous()?,
        };
        with_elements::<T, _>(&dy, |dy| {
            let db = bias_gradient(dy, b)?;
            let dy = SideBySide::of(dy, outputs);
            let dw = self.wants_weights.then(|| {
                let mut dw = vec![T::zero(); self.pattern.len()];
                let starts = rows_of(lanes, inputs);
                self.pattern.by_output.products(&dy, (&self.columns, &starts), lanes, &mut dw);
                Tensor::from_vec(dw, w.shape(), w.device())
            });
            let dx = self.wants_input.then(|| {
                let by_input = with_elements::<T, _>(w, |w| Ok(self.pattern.values_by_input(w)))?;
                let mut sums = SideBySide::zeros(inputs * lanes);
                let starts = rows_of(lanes, outputs);
                self.pattern.by_input.multiply(&by_input, (&dy, &starts), lanes, &mut sums);
                Tensor::from_vec(one_after_another(&sums, lanes, rows), x.shape(), x.device())
            });
            Ok(vec![dx.transpose()?, dw.transpose()?, Some(db)])
        })
    }
}

/// Adds the bias of each output to rows of them, and rectifies them if asked for.
pub(super) fn add_bias<T: Float>(rows: &mut [T], bias: &[T], rectify: bool) {
    for row in rows.chunks_exact_mut(bias.len()) {
        row.iter_mut().zip(bias).for_each(|(y, b)| *y += *b);
    }
    if rectify {
        // NaN stays.
        rows.iter_mut().for_each(|y| *y = if *y < T::zero() { T::zero() } else { *y });
    }
}

/// Where rows of so many elements begin.
fn rows_of(lanes: usize, count: usize) -> Vec<usize> {
    (0..count).map(|row| row * lanes).collect()
}

/// All weights, with zeros for those that are gone: for layers that have no way around them.
pub(super) fn spread(graph: &mut Graph<'_>, pattern: &Arc<Pattern>, w: &Tensor) -> Result<Tensor> {
    graph.apply1(w, Spread(Arc::clone(pattern)))
}

struct Spread(Arc<Pattern>);

impl CustomOp1 for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn cpu_fwd(&self, w: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        for_float!(w.dtype(), T => {
            let mut all = vec![T::default(); self.0.shape.iter().product()];
            self.0.places().zip(elements::<T>(w, layout)?).for_each(|(place, &w)| all[place] = w);
            Ok((T::to_cpu_storage_owned(all), Shape::from(&*self.0.shape)))
        })
    }

    fn bwd(&self, w: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let left = for_float!(w.dtype(), T => with_elements::<T, _>(dy, |dy| {
            Tensor::from_vec(self.0.places().map(|place| dy[place]).collect::<Vec<T>>(), w.shape(), w.device())
        }));
        left.map(Some)
    }
}

/// Room for so many rows side by side.
pub(super) fn side_by_side(rows: usize) -> usize {
    rows.next_multiple_of(COLUMNS)
}

/// The rows of a matrix side by side, with zeros up to a multiple of [`COLUMNS`]; each block of these is a line of the cache.
pub(super) struct SideBySide<T> {
    memory: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Float> SideBySide<T> {
    pub(super) fn zeros(len: usize) -> Self {
        let memory = vec![T::zero(); len + COLUMNS];
        let start = memory.as_ptr().align_offset(CACHE_LINE).min(COLUMNS);
        Self { memory, start, len }
    }

    pub(super) fn of(matrix: &[T], columns: usize) -> Self {
        let lanes = side_by_side(matrix.len() / columns.max(1));
        let mut turned = Self::zeros(columns * lanes);
        transpose(matrix, columns, &mut turned, lanes);
        turned
    }
}

impl<T> Deref for SideBySide<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.memory[self.start..self.start + self.len]
    }
}

impl<T> DerefMut for SideBySide<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.memory[self.start..self.start + self.len]
    }
}

/// In bytes.
const CACHE_LINE: usize = 64;

/// The other way round, without the rows that were added.
pub(super) fn one_after_another<T: Float>(turned: &[T], lanes: usize, rows: usize) -> Vec<T> {
    let columns = turned.len() / lanes.max(1);
    let mut matrix = vec![T::zero(); turned.len()];
    transpose(turned, lanes, &mut matrix, columns);
    matrix.truncate(rows * columns);
    matrix
}

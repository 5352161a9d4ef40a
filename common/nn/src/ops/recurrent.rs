//! Recurrent layers, a whole sequence in one operation.
//!
//! The input's products for all steps are taken together; then each step adds those of the state, thirty-two units at a
//! time, and puts the sums through the gates while they are in the first-level cache. The weights are packed once for
//! all steps. Gates and memories are kept for the gradient, as taking the products again would cost half a pass.

mod cell;
mod panels;

use super::composed;
use super::kernel::{Float, Start, Strided, Sum, vectorised};
use super::saved::Saved;
use super::{Graph, add_columns, elements, for_float, with_elements};
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use cell::{Before, Cell, Gru, Lstm, SLOTS};
use panels::{LANES, Steps, Weights};
use std::marker::PhantomData;
use std::ops::Range;

/// A layer of long short-term memory (Hochreiter & Schmidhuber 1997; Gers et al. 2000) over whole sequences, from a
/// state of zeros: x [batch, steps, inputs] becomes [batch, steps, units].
///
/// The rows of w [4·units, inputs + units] are the gates i, f, g, o, one after the other, those of b [4·units], too; its
/// columns are the inputs, then the previous outputs: c = σ(f)·c′ + σ(i)·tanh(g), h = σ(o)·tanh(c).
pub fn lstm(graph: &mut Graph<'_>, x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::lstm(x, w, b);
    }
    for_float!(x.dtype(), T => recurrent::<Lstm, T>(graph, x, w, b))
}

/// A layer of gated recurrent units (Cho et al. 2014) over whole sequences, from a state of zeros, as torch has it: x
/// [batch, steps, inputs] becomes [batch, steps, units].
///
/// The rows of w [3·units, inputs + units] are r, z, n, its columns the inputs, then the previous outputs; b [4·units]
/// holds one bias each for r, z, the input's part of n and the state's: n = tanh(Wₙ·x + bₙ + σ(r)·(Uₙ·h′ + bₕ)),
/// h = (1 − σ(z))·n + σ(z)·h′.
pub fn gru(graph: &mut Graph<'_>, x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::gru(x, w, b);
    }
    for_float!(x.dtype(), T => recurrent::<Gru, T>(graph, x, w, b))
}

fn recurrent<C: Cell, T: Float>(graph: &mut Graph<'_>, x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    let op = Recurrent::<C, T> {
        input_gradient: graph.needs_gradient(x),
        weight_gradient: graph.needs_gradient(w),
        keep: graph.records(&[x, w, b]),
        saved: Saved::nothing(),
        cell: PhantomData,
    };
    graph.apply3(x, w, b, op)
}

struct Recurrent<C, T> {
    /// False for a network's input, whose gradient nobody asks for.
    input_gradient: bool,
    /// False for frozen weights.
    weight_gradient: bool,
    /// Whether a gradient will be asked for at all.
    keep: bool,
    saved: Saved<Pass<T>>,
    cell: PhantomData<C>,
}

/// What a forward pass leaves for the gradient, step by step.
struct Pass<T> {
    inputs: Steps<T>,
    /// The slots, one after the other.
    slots: Steps<T>,
    outputs: Steps<T>,
    /// No panels where outputs are all the memory there is.
    memories: Steps<T>,
}

#[derive(Clone, Copy)]
struct Extent {
    batch: usize,
    steps: usize,
    inputs: usize,
    units: usize,
}

impl Extent {
    fn of<C: Cell>(x: &[usize], w: &[usize], b: &[usize]) -> Result<Self> {
        if let (&[batch, steps, inputs], &[rows, columns], &[biases]) = (x, w, b) {
            let units = biases / SLOTS;
            if biases == SLOTS * units
                && rows == C::GATES * units
                && columns == inputs + units
                && x.iter().all(|&extent| extent > 0)
                && units > 0
            {
                return Ok(Self { batch, steps, inputs, units });
            }
        }
        candle_core::bail!(
            "{}: x {x:?}, w {w:?}, b {b:?}; want [batch, steps, inputs], [{}·units, inputs + units], [4·units], none of them 0",
            C::NAME,
            C::GATES
        )
    }

    fn weights<'a, T: Float>(&self, w: &'a [T], first: usize, inputs: usize, gates: &'a [usize]) -> Weights<'a, T> {
        Weights { matrix: w, stride: self.inputs + self.units, first, inputs, units: self.units, gates }
    }

    const fn unit_panels(&self) -> usize {
        self.units.div_ceil(LANES)
    }

    /// Steps whose products are taken together, so that a panel of weights is used again while it is in a cache: rows
    /// for about half of a second-level cache.
    fn steps_at_once(&self) -> usize {
        (160 / self.batch).clamp(1, self.steps)
    }

    /// Steps whose products make up one block of the weights' gradient: a panel of them fits the first-level cache.
    fn steps_in_block(&self) -> usize {
        (256 / self.batch).clamp(1, self.steps)
    }
}

/// The product of a step's panels with one panel of weights, added to `sums` or to a bias.
fn add_product<T: Float>(step: &[T], weights: &[T], rows: usize, start: Start<'_, T>, sums: &mut [T]) {
    let sum = Sum {
        rows,
        columns: LANES,
        depth: LANES,
        segments: step.len() / (rows * LANES),
        a: Strided { data: step, row: LANES, column: 1, segment: rows * LANES },
        b: Strided { data: weights, row: LANES, column: 1, segment: LANES * LANES },
        start,
        rectify: false,
    };
    sum.run(sums);
}

/// Panels whose products are taken together: so much of a panel of weights fits the first-level cache.
const PANELS_AT_ONCE: usize = 8;

impl<C: Cell, T: Float> Recurrent<C, T> {
    fn forward(&self, extent: Extent, x: &[T], w: &[T], b: &[T]) -> Pass<T> {
        let Extent { batch, steps, inputs, units } = extent;
        let panels = extent.unit_panels();
        let len = batch * LANES;
        let mut pass = Pass {
            inputs: Steps::of_batch(x, batch, steps, inputs),
            slots: Steps::zeros(steps, batch, SLOTS * panels),
            outputs: Steps::zeros(steps, batch, panels),
            memories: Steps::zeros(steps, batch, if C::HAS_MEMORY { panels } else { 0 }),
        };
        let mut biases = vec![T::zero(); SLOTS * panels * LANES];
        for (place, padded) in C::BIAS.into_iter().zip(biases.chunks_exact_mut(panels * LANES)) {
            padded[..units].copy_from_slice(&b[place * units..(place + 1) * units]);
        }

        let input_weights = extent.weights(w, 0, inputs, C::INPUT.1).forward();
        let input_panel = inputs.next_multiple_of(LANES) * LANES;
        let fed = C::INPUT.0 * panels..(C::INPUT.0 + C::INPUT.1.len()) * panels;
        for first in (0..steps).step_by(extent.steps_at_once()) {
            for (panel, bias) in biases.chunks_exact(LANES).enumerate() {
                for step in first..(first + extent.steps_at_once()).min(steps) {
                    let at = pass.slots.at(step, panel);
                    let sums = &mut pass.slots.data[at..at + len];
                    if fed.contains(&panel) {
                        let weights = &input_weights[(panel - fed.start) * input_panel..][..input_panel];
                        add_product(pass.inputs.step(step), weights, batch, Start::Bias(bias), sums);
                    } else {
                        sums.chunks_exact_mut(LANES).for_each(|row| row.copy_from_slice(bias));
                    }
                }
            }
        }

        let state_weights = extent.weights(w, inputs, units, C::STATE.1).forward();
        let state_panel = panels * LANES * LANES;
        let zeros = vec![T::zero(); panels * len];
        for step in 0..steps {
            let (before, outputs) = pass.outputs.data.split_at_mut(step * panels * len);
            let outputs = &mut outputs[..panels * len];
            let before = if step == 0 { &zeros } else { &before[(step - 1) * panels * len..] };
            let memory_len = pass.memories.step_len();
            let (memory_before, memories) = pass.memories.data.split_at_mut(step * memory_len);
            let memory_before =
                if step == 0 { &zeros[..memory_len] } else { &memory_before[(step - 1) * memory_len..] };
            let slots = pass.slots.step_mut(step);
            for panel in 0..panels {
                if step > 0 {
                    for (number, weights) in (C::STATE.0..).zip(state_weights.chunks_exact(panels * state_panel)) {
                        let sums = &mut slots[(number * panels + panel) * len..][..len];
                        let weights = &weights[panel * state_panel..][..state_panel];
                        add_product(before, weights, batch, Start::Result, sums);
                    }
                }
                let own = panel * len..(panel + 1) * len;
                let own_memory = if C::HAS_MEMORY { own.clone() } else { 0..0 };
                let before = Before { output: &before[own.clone()], memory: &memory_before[own_memory.clone()] };
                let slots = own_slots(slots, &own);
                vectorised(
                    #[inline(always)]
                    || C::step(slots, before, &mut outputs[own], &mut memories[own_memory]),
                );
            }
        }
        pass
    }

    /// Turns the slots of `pass` into the gradients of their sums, and returns those of what went in.
    fn gradients(&self, extent: Extent, mut pass: Pass<T>, w: &[T], dy: &[T]) -> Gradients<T> {
        let Extent { batch, steps, inputs, units } = extent;
        let panels = extent.unit_panels();
        let len = batch * LANES;
        let dy = Steps::of_batch(dy, batch, steps, units);
        let state_weights = extent.weights(w, inputs, units, C::STATE.1).backward();
        let zeros = vec![T::zero(); panels * len];
        let mut d_output = zeros.clone();
        let mut d_memory = zeros.clone();
        for step in (0..steps).rev() {
            let memory_len = pass.memories.step_len();
            let before_output = if step == 0 { &zeros } else { pass.outputs.step(step - 1) };
            let before_memory = if step == 0 { &zeros[..memory_len] } else { pass.memories.step(step - 1) };
            let memory = pass.memories.step(step);
            for panel in 0..panels {
                let own = panel * len..(panel + 1) * len;
                let own_memory = if C::HAS_MEMORY { own.clone() } else { 0..0 };
                let before = Before { output: &before_output[own.clone()], memory: &before_memory[own_memory.clone()] };
                let slots = own_slots(pass.slots.step_mut(step), &own);
                let (d_output, d_memory) = (&mut d_output[own.clone()], &mut d_memory[own]);
                vectorised(
                    #[inline(always)]
                    || {
                        for (total, &own) in d_output.iter_mut().zip(dy.panel(step, panel)) {
                            *total += own;
                        }
                        C::back(slots, before, &memory[own_memory], d_output, d_memory);
                    },
                );
            }
            if step > 0 {
                let fed = C::STATE.0 * panels * len..(C::STATE.0 + C::STATE.1.len()) * panels * len;
                add_gradients(&pass.slots, step..step + 1, fed, &state_weights, &mut d_output);
            }
        }
        Gradients {
            x: self.input_gradient.then(|| Self::input_gradient(extent, &pass, w)),
            w: self.weight_gradient.then(|| Self::weight_gradient(extent, &pass)),
            b: Self::bias_gradient(extent, &pass),
        }
    }

    fn input_gradient(extent: Extent, pass: &Pass<T>, w: &[T]) -> Vec<T> {
        let Extent { batch, steps, inputs, .. } = extent;
        let panel_len = extent.unit_panels() * batch * LANES;
        let weights = extent.weights(w, 0, inputs, C::INPUT.1).backward();
        let fed = C::INPUT.0 * panel_len..(C::INPUT.0 + C::INPUT.1.len()) * panel_len;
        let mut dx = Steps::zeros(steps, batch, pass.inputs.panels);
        for first in (0..steps).step_by(extent.steps_at_once()) {
            let some = first..(first + extent.steps_at_once()).min(steps);
            let to = dx.at(some.start, 0)..dx.at(some.end, 0);
            add_gradients(&pass.slots, some, fed.clone(), &weights, &mut dx.data[to]);
        }
        dx.to_batch(steps, inputs)
    }

    /// dW = Σ over steps and batch of the slots' gradients times what fed them.
    fn weight_gradient(extent: Extent, pass: &Pass<T>) -> Vec<T> {
        let Extent { steps, inputs, units, .. } = extent;
        let mut dw = vec![T::zero(); C::GATES * units * (inputs + units)];
        Self::input_columns(extent, C::INPUT, &pass.slots, (&pass.inputs, 0..inputs), 0..steps, &mut dw);
        let columns = inputs..inputs + units;
        Self::input_columns(extent, C::STATE, &pass.slots, (&pass.outputs, columns), 1..steps, &mut dw);
        dw
    }

    /// Writes the columns of dW for what fed the slots in `steps`: as many steps, from the first on.
    fn input_columns(
        extent: Extent,
        (first_slot, gates): (usize, &[usize]),
        slots: &Steps<T>,
        (fed_by, columns): (&Steps<T>, Range<usize>),
        steps: Range<usize>,
        dw: &mut [T],
    ) {
        const TILE: usize = LANES * LANES;
        let panels = extent.unit_panels();
        let (mut inputs, mut gradients) = (Vec::new(), Vec::new());
        // For each panel of units and panel of inputs the gates' tiles: added up where they lie side by side.
        let mut tiles = vec![T::zero(); panels * fed_by.panels * gates.len() * TILE];
        for first in steps.clone().step_by(extent.steps_in_block()) {
            let some = first..(first + extent.steps_in_block()).min(steps.end);
            let before = some.start - steps.start..some.end - steps.start;
            let depth = some.len() * extent.batch;
            inputs.clear();
            (0..fed_by.panels).for_each(|panel| fed_by.append(panel, before.clone(), &mut inputs));
            for (panel, tiles) in tiles.chunks_exact_mut(fed_by.panels * gates.len() * TILE).enumerate() {
                gradients.clear();
                for slot in first_slot..first_slot + gates.len() {
                    slots.append(slot * panels + panel, some.clone(), &mut gradients);
                }
                let tiles = tiles.chunks_exact_mut(gates.len() * TILE);
                for (inputs, tiles) in inputs.chunks_exact(depth * LANES).zip(tiles) {
                    let inputs = Strided::matrix(inputs, LANES);
                    for (gradients, tile) in gradients.chunks_exact(depth * LANES).zip(tiles.chunks_exact_mut(TILE)) {
                        let gradients = Strided::matrix(gradients, LANES).transposed();
                        let product = Sum::product((LANES, depth, LANES), gradients, inputs);
                        Sum { start: Start::Result, ..product }.run(tile);
                    }
                }
            }
        }
        let stride = extent.inputs + extent.units;
        for (number, tile) in tiles.chunks_exact(TILE).enumerate() {
            let (gate, number) = (gates[number % gates.len()], number / gates.len());
            let (unit, column) = (number / fed_by.panels * LANES, columns.start + number % fed_by.panels * LANES);
            let count = (columns.end - column).min(LANES);
            for (unit, row) in (unit..extent.units).zip(tile.chunks_exact(LANES)) {
                let at = (gate * extent.units + unit) * stride + column;
                dw[at..at + count].copy_from_slice(&row[..count]);
            }
        }
    }

    fn bias_gradient(extent: Extent, pass: &Pass<T>) -> Vec<T> {
        let (panels, units) = (extent.unit_panels(), extent.units);
        let mut db = vec![T::zero(); SLOTS * units];
        for (slot, place) in C::BIAS.into_iter().enumerate() {
            for (panel, db) in db[place * units..(place + 1) * units].chunks_mut(LANES).enumerate() {
                let mut sums = [T::zero(); LANES];
                vectorised(
                    #[inline(always)]
                    || {
                        for step in 0..extent.steps {
                            add_columns(pass.slots.panel(step, slot * panels + panel), &mut sums);
                        }
                    },
                );
                db.copy_from_slice(&sums[..db.len()]);
            }
        }
        db
    }
}

/// Adds the products of the gradients in a part of the slots, for some steps, with weights to `sums`, which holds panels
/// for these steps alone.
fn add_gradients<T: Float>(slots: &Steps<T>, steps: Range<usize>, part: Range<usize>, weights: &[T], sums: &mut [T]) {
    let len = slots.panel_len();
    let depth = part.len() / slots.rows;
    let panels = weights.len() / (depth * LANES);
    for first in (0..depth).step_by(PANELS_AT_ONCE * LANES) {
        let count = (depth - first).min(PANELS_AT_ONCE * LANES);
        for (panel, weights) in weights.chunks_exact(depth * LANES).enumerate() {
            let weights = &weights[first * LANES..][..count * LANES];
            for (number, step) in steps.clone().enumerate() {
                let gradients = &slots.step(step)[part.start + first * slots.rows..][..count * slots.rows];
                let sums = &mut sums[(number * panels + panel) * len..][..len];
                add_product(gradients, weights, slots.rows, Start::Result, sums);
            }
        }
    }
}

/// The gradients with respect to each operand.
struct Gradients<T> {
    x: Option<Vec<T>>,
    w: Option<Vec<T>>,
    b: Vec<T>,
}

/// The same range of each slot of a step.
fn own_slots<'a, T>(step: &'a mut [T], own: &Range<usize>) -> [&'a mut [T]; SLOTS] {
    let (left, right) = step.split_at_mut(step.len() / 2);
    let (first, second) = left.split_at_mut(left.len() / 2);
    let (third, fourth) = right.split_at_mut(right.len() / 2);
    [first, second, third, fourth].map(|slot| &mut slot[own.clone()])
}

impl<C: Cell, T: Float> CustomOp3 for Recurrent<C, T> {
    fn name(&self) -> &'static str {
        C::NAME
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
        let extent = Extent::of::<C>(x_layout.dims(), w_layout.dims(), b_layout.dims())?;
        let (x, w, b) = (elements::<T>(x, x_layout)?, elements::<T>(w, w_layout)?, elements::<T>(b, b_layout)?);
        let pass = self.forward(extent, x, w, b);
        let y = pass.outputs.to_batch(extent.steps, extent.units);
        if self.keep {
            self.saved.put(pass);
        }
        Ok((T::to_cpu_storage_owned(y), Shape::from((extent.batch, extent.steps, extent.units))))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let extent = Extent::of::<C>(x.dims(), w.dims(), b.dims())?;
        let gradients = with_elements::<T, _>(w, |w| {
            let pass = match self.saved.take() {
                Some(pass) => pass,
                None => with_elements(x, |x| with_elements(b, |b| Ok(self.forward(extent, x, w, b))))?,
            };
            with_elements(dy, |dy| Ok(self.gradients(extent, pass, w, dy)))
        })?;
        let dx = gradients.x.map(|dx| Tensor::from_vec(dx, x.shape(), x.device())).transpose()?;
        Ok((
            dx,
            gradients.w.map(|dw| Tensor::from_vec(dw, w.shape(), w.device())).transpose()?,
            Some(Tensor::from_vec(gradients.b, b.shape(), b.device())?),
        ))
    }
}

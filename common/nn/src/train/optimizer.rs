//! The client's optimizer, written on slices: one pass over the parameters' memory per step.

use super::gradient::{BLOCK, Part, Room, TensorGradient};
use crate::model::{Gradients, LEAST_STEP, Model};
use crate::ops::{Factors, Product, elements_of, vectorised, with_arithmetic};
use crate::{Error, Threads};
use candle_core::{Layout, Storage, Tensor};
use dunlin_codec::Mask;
use dunlin_core::recipe::{OptimizerKind, TrainingConfig};
use serde::{Deserialize, Serialize};
use std::ops::{Deref, Range};
use std::sync::Arc;

/// An optimizer with its state, which lives for one round.
pub(super) struct Optimizer<'a> {
    rule: Rule,
    penalties: Penalties,
    clip_norm: f64,
    /// Where the round started: the centre of the proximal term, empty without one.
    start: &'a [f32],
    /// Momentum or Adam's first moments; empty for plain SGD.
    first: Vec<f32>,
    /// Adam's second moments.
    second: Vec<f32>,
    /// 1 for each coordinate that is left of the model and 0 for the others; empty when all are.
    left: Arc<[f32]>,
    steps: i32,
}

/// What an optimizer remembers of its steps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory {
    first: Vec<f32>,
    second: Vec<f32>,
    steps: i32,
}

/// The update rule and its constants.
#[derive(Clone, Copy)]
enum Rule {
    /// w ← w − η·g
    Sgd { rate: f32 },
    /// v ← m·v + g, w ← w − η·v: torch's form, in which a change of η acts at once. Looking ahead, w ← w − η·(g + m·v)
    /// (Sutskever et al. 2013, <https://proceedings.mlr.press/v28/sutskever13.html>).
    Momentum { rate: f32, momentum: f32, nesterov: bool },
    /// Kingma & Ba 2015, <https://arxiv.org/abs/1412.6980>, algorithm 1, with w ← (1 − η·decay)·w before it (Loshchilov &
    /// Hutter 2019, <https://arxiv.org/abs/1711.05101>, algorithm 2).
    Adam { rate: f64, decay: f64 },
}

/// What is added to a loss gradient, `scale·g + weight_decay·w + proximal·(w − start)`, and by how much weights shrink
/// after a step.
#[derive(Clone, Copy)]
struct Penalties {
    scale: f32,
    weight_decay: f32,
    proximal: f32,
    shrink: f32,
}

impl Rule {
    #[inline(always)]
    fn without_decay(self) -> Self {
        match self {
            Self::Adam { rate, .. } => Self::Adam { rate, decay: 0.0 },
            other => other,
        }
    }
}

impl Penalties {
    /// Without what draws weights to zero.
    #[inline(always)]
    fn of_steps(self) -> Self {
        Self { weight_decay: 0.0, shrink: 0.0, ..self }
    }
}

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

impl<'a> Optimizer<'a> {
    /// For one round (counted from 1) of a model with so many parameters; `start` is where they start, if the
    /// proximal term has a weight.
    pub(super) fn new(config: &TrainingConfig, round: u64, parameters: usize, start: &'a [f32]) -> Self {
        let exponent = i32::try_from(round.saturating_sub(1)).unwrap_or(i32::MAX);
        let rate = config.learning_rate * config.learning_rate_decay.powi(exponent);
        let is_decoupled = config.optimizer == OptimizerKind::AdamW;
        let rule = match config.optimizer {
            OptimizerKind::Sgd if config.momentum == 0.0 => Rule::Sgd { rate: rate as f32 },
            OptimizerKind::Sgd => {
                Rule::Momentum { rate: rate as f32, momentum: config.momentum as f32, nesterov: config.nesterov }
            }
            OptimizerKind::Adam => Rule::Adam { rate, decay: 0.0 },
            OptimizerKind::AdamW => Rule::Adam { rate, decay: config.weight_decay },
        };
        let (first, second) = match rule {
            Rule::Sgd { .. } => (0, 0),
            Rule::Momentum { .. } => (parameters, 0),
            Rule::Adam { .. } => (parameters, parameters),
        };
        let penalties = Penalties {
            scale: 1.0,
            weight_decay: if is_decoupled { 0.0 } else { config.weight_decay as f32 },
            proximal: config.proximal as f32,
            shrink: (rate * config.l1) as f32,
        };
        let clip_norm = config.clip_norm;
        let left = Arc::from([]);
        Self { rule, penalties, clip_norm, start, first: vec![0.0; first], second: vec![0.0; second], left, steps: 0 }
    }

    /// What it remembers of the steps so far.
    pub(super) fn memory(&self) -> Memory {
        Memory { first: self.first.clone(), second: self.second.clone(), steps: self.steps }
    }

    /// As another one that remembered this; the same again when that was for another model or rule.
    pub(super) fn remembering(mut self, memory: Memory) -> Self {
        if (memory.first.len(), memory.second.len()) == (self.first.len(), self.second.len()) {
            (self.first, self.second, self.steps) = (memory.first, memory.second, memory.steps);
        }
        self
    }

    /// Leaves alone what a mask does not leave: without a gradient, no rule moves a weight that is zero.
    pub(super) fn within(mut self, mask: Option<&Mask>) -> Self {
        if let Some(mask) = mask {
            self.left = mask.scatter(&vec![1.0; mask.len()]).into();
        }
        self
    }

    /// One step of all the model's parameters against the sum of these gradients of the parts of a batch.
    pub(super) fn step(&mut self, model: &Model, parts: &[Gradients], threads: &Threads) -> Result<(), Error> {
        self.steps = self.steps.saturating_add(1);
        let count = model.layout().tensors().len();
        let guards: Vec<Vec<_>> =
            parts.iter().map(|part| (0..count).map(|index| guard_of(part, index)).collect()).collect();
        let mut tensors = Vec::with_capacity(count);
        let left = Arc::clone(&self.left);
        for index in (0..count).filter(|&index| model.is_trained(index)) {
            let range = model.layout().range(index);
            let mut gradients = Vec::with_capacity(parts.len());
            for guard in guards.iter().filter_map(|part| part[index].as_ref()) {
                gradients.push(match guard {
                    Guard::Whole((storage, layout)) => Part::Whole(elements_of::<f32>(storage, layout)?),
                    Guard::Factors([(dy, dy_layout), (x, x_layout)]) => {
                        let (outputs, inputs) = (dy_layout.dims()[1], x_layout.dims()[1]);
                        let (dy, x) = (elements_of::<f32>(dy, dy_layout)?, elements_of::<f32>(x, x_layout)?);
                        Part::Product(Product { dy, x, outputs, inputs })
                    }
                });
            }
            if let Some(gradient) = gradients.iter().find(|gradient| gradient.len() != range.len()) {
                let problem = format!("a gradient of {} elements for a tensor of {}", gradient.len(), range.len());
                return Err(candle_core::Error::Msg(problem).into());
            }
            let left = left.get(range.clone()).unwrap_or_default();
            tensors.push(TensorGradient { range, parts: gradients, left, is_step: model.is_step(index) });
        }
        let arithmetic = model.arithmetic();
        self.penalties.scale = with_arithmetic(arithmetic, || self.clip_scale(&tensors));
        model.with_parameters(|weights| {
            let shares = self.shares(weights, threads.count());
            threads.map(shares, |share| with_arithmetic(arithmetic, || share.step(&tensors)));
        })?;
        Ok(())
    }

    /// min(1, clip_norm / ‖gradient‖₂) over all tensors together.
    fn clip_scale(&self, tensors: &[TensorGradient<'_>]) -> f32 {
        if self.clip_norm == 0.0 {
            return 1.0;
        }
        let mut room = Room::default();
        let mut square = 0.0;
        for tensor in tensors {
            tensor.for_blocks(0..tensor.range.len(), &mut room, |_, sum| {
                square += sum.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
            });
        }
        let norm = square.sqrt();
        if norm > self.clip_norm { (self.clip_norm / norm) as f32 } else { 1.0 }
    }

    /// The parameters and the state cut into so many runs.
    fn shares<'s>(&'s mut self, mut weights: &'s mut [f32], count: usize) -> Vec<Share<'s>> {
        let (total, mut offset) = (weights.len(), 0);
        let (mut first, mut second, mut start) = (&mut *self.first, &mut *self.second, self.start);
        let mut shares = Vec::with_capacity(count);
        for index in 1..=count {
            let len = total * index / count - offset;
            let (head, tail) = std::mem::take(&mut weights).split_at_mut(len);
            weights = tail;
            // State that the rule does without stays empty.
            let cut = len.min(first.len());
            let (first_head, tail) = std::mem::take(&mut first).split_at_mut(cut);
            first = tail;
            let cut = len.min(second.len());
            let (second_head, tail) = std::mem::take(&mut second).split_at_mut(cut);
            second = tail;
            let (start_head, tail) = start.split_at(len.min(start.len()));
            start = tail;
            shares.push(Share {
                offset,
                weights: head,
                start: start_head,
                first: first_head,
                second: second_head,
                rule: self.rule,
                penalties: self.penalties,
                steps: self.steps,
            });
            offset += len;
        }
        shares
    }
}

/// What has to be held so that a gradient's elements may be borrowed.
enum Guard<G> {
    Whole(G),
    Factors([G; 2]),
}

fn guard_of(part: &Gradients, index: usize) -> Option<Guard<(impl Deref<Target = Storage>, &Layout)>> {
    match part.factors.get(index).and_then(Option::as_ref) {
        Some(Factors { dy, x }) => Some(Guard::Factors([dy, x].map(Tensor::storage_and_layout))),
        None => Some(Guard::Whole(part.tensors[index].as_ref()?.storage_and_layout())),
    }
}

/// A run of the parameters with its state: what one thread takes through a step.
struct Share<'a> {
    /// Position of the first in the flat vector.
    offset: usize,
    weights: &'a mut [f32],
    start: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
    rule: Rule,
    penalties: Penalties,
    steps: i32,
}

impl Share<'_> {
    fn step(mut self, tensors: &[TensorGradient<'_>]) {
        let (mut room, mut penalised) = (Room::default(), [0.0; BLOCK]);
        let end = self.offset + self.weights.len();
        for tensor in tensors {
            let first = tensor.range.start;
            let (from, to) = (first.max(self.offset), tensor.range.end.min(end));
            if from >= to {
                continue;
            }
            tensor.for_blocks(from - first..to - first, &mut room, |block, gradient| {
                let block = first + block.start - self.offset..first + block.end - self.offset;
                vectorised(
                    #[inline(always)]
                    || match tensor.is_step {
                        false => self.step_block(block, gradient, &mut penalised),
                        true => self.step_of_steps(block, gradient, &mut penalised),
                    },
                );
            });
        }
    }

    /// The step of steps between rounded weights, which stay positive and are under no penalty.
    #[inline(always)]
    fn step_of_steps(&mut self, block: Range<usize>, gradient: &[f32], penalised: &mut [f32; BLOCK]) {
        let penalties = (self.rule, self.penalties);
        self.rule = self.rule.without_decay();
        self.penalties = self.penalties.of_steps();
        self.step_block(block.clone(), gradient, penalised);
        (self.rule, self.penalties) = penalties;
        for step in &mut self.weights[block] {
            // What is beyond zero comes back; NaN stays.
            *step = if step.abs() < LEAST_STEP { LEAST_STEP } else { step.abs() };
        }
    }

    /// The step of a few coordinates, counted from the share's first; `penalised` is room for their gradient with penalties.
    #[inline(always)]
    fn step_block(&mut self, range: Range<usize>, gradient: &[f32], penalised: &mut [f32; BLOCK]) {
        let Penalties { scale, weight_decay, proximal, shrink } = self.penalties;
        let weights = &mut self.weights[range.clone()];
        let gradient = if proximal == 0.0 && weight_decay == 0.0 && scale == 1.0 {
            gradient
        } else {
            let penalised = &mut penalised[..gradient.len()];
            for (to, (&g, &w)) in penalised.iter_mut().zip(gradient.iter().zip(&*weights)) {
                *to = scale * g + weight_decay * w;
            }
            if proximal != 0.0 {
                for (to, (&w, &start)) in penalised.iter_mut().zip(weights.iter().zip(&self.start[range.clone()])) {
                    *to += proximal * (w - start);
                }
            }
            penalised
        };
        match self.rule {
            Rule::Sgd { rate } => {
                for (w, &g) in weights.iter_mut().zip(gradient) {
                    *w -= rate * g;
                }
            }
            Rule::Momentum { rate, momentum, nesterov } => {
                let velocity = &mut self.first[range];
                for (v, &g) in velocity.iter_mut().zip(gradient) {
                    *v = momentum * *v + g;
                }
                let (of_g, of_v) = if nesterov { (rate, rate * momentum) } else { (0.0, rate) };
                for (w, (&v, &g)) in weights.iter_mut().zip(velocity.iter().zip(gradient)) {
                    *w -= of_g * g + of_v * v;
                }
            }
            Rule::Adam { rate, decay } => {
                let first_correction = 1.0 - f64::from(BETA_1).powi(self.steps);
                let second_correction = 1.0 - f64::from(BETA_2).powi(self.steps);
                let kept = (1.0 - rate * decay) as f32;
                let rate = (rate / first_correction) as f32;
                let second_scale = (1.0 / second_correction) as f32;
                let moments = self.first[range.clone()].iter_mut().zip(&mut self.second[range]);
                for ((w, (m, v)), &g) in weights.iter_mut().zip(moments).zip(gradient) {
                    *m = BETA_1 * *m + (1.0 - BETA_1) * g;
                    *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
                    *w = kept * *w - rate * *m / ((*v * second_scale).sqrt() + EPSILON);
                }
            }
        }
        if shrink != 0.0 {
            for w in weights {
                // The proximal operator of the L1 norm (Daubechies et al. 2004); NaN stays.
                *w = if w.abs() <= shrink { 0.0 } else { *w - shrink.copysign(*w) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a rule on one weight with these gradients and returns the weight after each step.
    fn trace(config: &TrainingConfig, start: f32, gradients: &[f32]) -> Vec<f32> {
        let mut weight = [start];
        let start = [start];
        let mut optimizer = Optimizer::new(config, 1, 1, &start);
        let mut trace = Vec::new();
        for gradient in gradients {
            optimizer.steps += 1;
            for share in optimizer.shares(&mut weight, 1) {
                share.step(&[TensorGradient {
                    range: 0..1,
                    parts: vec![Part::Whole(&[*gradient])],
                    left: &[],
                    is_step: false,
                }]);
            }
            trace.push(weight[0]);
        }
        trace
    }

    fn assert_close(actual: &[f32], expected: &[f32]) {
        assert_eq!(actual.len(), expected.len());
        for (a, e) in actual.iter().zip(expected) {
            assert!((a - e).abs() < 1e-6, "{actual:?}, want {expected:?}");
        }
    }

    #[test]
    fn sgd_with_weight_decay_and_proximal_term_follows_the_formula() {
        let config =
            TrainingConfig { learning_rate: 0.5, weight_decay: 0.1, proximal: 0.2, ..TrainingConfig::default() };
        // 2 − 0.5·(1 + 0.2) = 1.4; 1.4 − 0.5·(1 + 0.14 + 0.2·(1.4 − 2)) = 0.89
        assert_close(&trace(&config, 2.0, &[1.0, 1.0]), &[1.4, 0.89]);
    }

    #[test]
    fn momentum_accumulates_gradients() {
        let config = TrainingConfig { learning_rate: 0.1, momentum: 0.9, ..TrainingConfig::default() };
        // velocities 1, 1.9, 2.71
        assert_close(&trace(&config, 0.0, &[1.0, 1.0, 1.0]), &[-0.1, -0.29, -0.561]);
    }

    #[test]
    fn momentum_that_looks_ahead_adds_the_gradient_once_more() {
        let config = TrainingConfig { learning_rate: 0.1, momentum: 0.9, nesterov: true, ..TrainingConfig::default() };
        // velocities 1, 1.9; steps 1 + 0.9·1, 1 + 0.9·1.9
        assert_close(&trace(&config, 0.0, &[1.0, 1.0]), &[-0.19, -0.19 - 0.271]);
    }

    #[test]
    fn decoupled_decay_shrinks_weights_by_rate_times_decay() {
        let config = TrainingConfig {
            optimizer: OptimizerKind::AdamW,
            learning_rate: 0.1,
            weight_decay: 0.5,
            ..TrainingConfig::default()
        };
        // (1 − 0.05)·2 − 0.1·sign(g)
        assert_close(&trace(&config, 2.0, &[3.0]), &[1.8]);
    }

    #[test]
    fn the_l1_penalty_moves_weights_to_zero_and_no_further() {
        let config = TrainingConfig { learning_rate: 0.5, l1: 0.2, ..TrainingConfig::default() };
        assert_close(&trace(&config, 0.25, &[0.0, 0.0, 0.0]), &[0.15, 0.05, 0.0]);
        assert_close(&trace(&config, -1.0, &[1.0]), &[-1.4]);
        assert!(trace(&config, f32::NAN, &[0.0])[0].is_nan());
    }

    #[test]
    fn shares_of_threads_and_parts_of_batches_add_up_to_one_step() {
        let config = TrainingConfig {
            optimizer: OptimizerKind::Adam,
            learning_rate: 0.1,
            weight_decay: 0.1,
            proximal: 0.3,
            ..TrainingConfig::default()
        };
        let n = 3 * BLOCK + 7;
        let vector = |factor: usize| (0..n).map(|i| (i * factor % 64) as f32 / 64.0).collect::<Vec<_>>();
        let (start, one, other) = (vector(3), vector(7), vector(11));
        let sum: Vec<f32> = one.iter().zip(&other).map(|(x, y)| x + y).collect();
        let run = |count: usize, parts: Vec<&[f32]>| {
            let mut weights = vector(5);
            let mut optimizer = Optimizer::new(&config, 1, n, &start);
            let cut = n / 3;
            let tensor = |range: Range<usize>| TensorGradient {
                parts: parts.iter().map(|part| Part::Whole(&part[range.clone()])).collect(),
                range,
                left: &[],
                is_step: false,
            };
            let tensors = [tensor(0..cut), tensor(cut..n)];
            for _ in 0..2 {
                optimizer.steps += 1;
                for share in optimizer.shares(&mut weights, count) {
                    share.step(&tensors);
                }
            }
            weights
        };
        let whole = run(1, vec![&sum]);
        assert_eq!(run(3, vec![&sum]), whole);
        assert_eq!(run(2, vec![&one, &other]), whole);
    }

    #[test]
    fn a_gradient_in_factors_steps_as_one_that_is_whole() {
        let config = TrainingConfig {
            optimizer: OptimizerKind::Sgd,
            learning_rate: 0.1,
            momentum: 0.9,
            proximal: 0.3,
            clip_norm: 1.0,
            ..TrainingConfig::default()
        };
        let (outputs, inputs, before) = (27, 301, 5);
        let n = before + outputs * inputs;
        let vector = |len: usize, factor: usize| (0..len).map(|i| (i * factor % 64) as f32 / 64.0).collect::<Vec<_>>();
        let (start, left) = (vector(n, 3), vector(n, 19).iter().map(|x| x.round()).collect::<Vec<_>>());
        // Parts of a batch of five examples and of two.
        let factors = [5, 2].map(|batch| (vector(batch * outputs, 7), vector(batch * inputs, 11)));
        let products = factors.each_ref().map(|(dy, x)| Product { dy, x, outputs, inputs });
        let wholes = products.map(|product| {
            let mut whole = vec![0.0; outputs * inputs];
            product.rows(0..outputs, &mut whole);
            whole
        });
        let bias = vector(before, 13);
        let run = |count: usize, is_product: [bool; 2], left: &[f32]| {
            let mut weights = vector(n, 5);
            let mut optimizer = Optimizer::new(&config, 1, n, &start);
            let part = |i: usize| match is_product[i] {
                true => Part::Product(products[i]),
                false => Part::Whole(&wholes[i]),
            };
            let tensors = [
                TensorGradient { range: 0..before, parts: vec![Part::Whole(&bias)], left: &[], is_step: false },
                TensorGradient { range: before..n, parts: vec![part(0), part(1)], left, is_step: false },
            ];
            optimizer.penalties.scale = optimizer.clip_scale(&tensors);
            assert!(optimizer.penalties.scale < 1.0);
            for share in optimizer.shares(&mut weights, count) {
                share.step(&tensors);
            }
            weights
        };
        for left in [&[][..], &left[before..]] {
            let whole = run(1, [false, false], left);
            for is_product in [[true, true], [true, false], [false, true]] {
                for count in 1..=3 {
                    assert_eq!(run(count, is_product, left), whole, "{is_product:?}, {count} threads");
                }
            }
        }
    }

    #[test]
    fn adam_follows_algorithm_1() {
        let config = TrainingConfig { optimizer: OptimizerKind::Adam, learning_rate: 0.1, ..TrainingConfig::default() };
        // m̂, v̂ of step 1: 1, 1. Of step 2: m = 0.9·0.1 − 0.2 = −0.11, v = 0.999·0.001 + 0.004 = 0.004999, so
        // m̂ = −0.11/0.19, v̂ = 0.004999/0.001999, and the step is 0.1·0.578947/1.581376.
        assert_close(&trace(&config, 0.0, &[1.0, -2.0]), &[-0.1, -0.1 + 0.036_610_3]);
    }

    #[test]
    fn the_step_size_decays_with_the_round() {
        let config = TrainingConfig { learning_rate: 1.0, learning_rate_decay: 0.5, ..TrainingConfig::default() };
        let rates = [1, 2, 4].map(|round| match Optimizer::new(&config, round, 0, &[]).rule {
            Rule::Sgd { rate } => rate,
            Rule::Momentum { .. } | Rule::Adam { .. } => unreachable!("the default is SGD"),
        });
        assert_eq!(rates, [1.0, 0.5, 0.125]);
    }
}

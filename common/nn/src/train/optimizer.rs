//! The client's optimizer, written on slices: one pass over a tensor's memory per step.

use crate::Error;
use crate::model::Model;
use crate::ops::{Gradients, vectorised, with_elements};
use candle_core::{CpuStorage, InplaceOp2, Layout};
use dunlin_core::recipe::{OptimizerKind, TrainingConfig};
use std::cell::RefCell;

/// An optimizer with its state, which lives for one round.
pub(super) struct Optimizer<'a> {
    rule: Rule,
    penalties: Penalties,
    clip_norm: f64,
    /// Where the round started: the centre of the proximal term.
    start: &'a [f32],
    /// Momentum or Adam's first moments; empty for plain SGD.
    first: Vec<f32>,
    /// Adam's second moments.
    second: Vec<f32>,
    steps: i32,
}

/// The update rule and its constants.
#[derive(Clone, Copy)]
enum Rule {
    /// w ← w − η·g
    Sgd { rate: f32 },
    /// v ← m·v + g, w ← w − η·v: torch's form, in which a change of η acts at once.
    Momentum { rate: f32, momentum: f32 },
    /// Kingma & Ba 2015, <https://arxiv.org/abs/1412.6980>, algorithm 1.
    Adam { rate: f64 },
}

/// What is added to a loss gradient: `scale·g + weight_decay·w + proximal·(w − start)`.
#[derive(Clone, Copy)]
struct Penalties {
    scale: f32,
    weight_decay: f32,
    proximal: f32,
}

impl Penalties {
    #[inline(always)]
    fn apply(&self, gradient: f32, weight: f32, start: f32) -> f32 {
        self.scale * gradient + self.weight_decay * weight + self.proximal * (weight - start)
    }
}

const BETA_1: f32 = 0.9;
const BETA_2: f32 = 0.999;
const EPSILON: f32 = 1e-8;

impl<'a> Optimizer<'a> {
    /// For one round (counted from 1) from these parameters.
    pub(super) fn new(config: &TrainingConfig, round: u64, start: &'a [f32]) -> Self {
        let exponent = i32::try_from(round.saturating_sub(1)).unwrap_or(i32::MAX);
        let rate = config.learning_rate * config.learning_rate_decay.powi(exponent);
        let rule = match config.optimizer {
            OptimizerKind::Sgd if config.momentum == 0.0 => Rule::Sgd { rate: rate as f32 },
            OptimizerKind::Sgd => Rule::Momentum { rate: rate as f32, momentum: config.momentum as f32 },
            OptimizerKind::Adam => Rule::Adam { rate },
        };
        let (first, second) = match rule {
            Rule::Sgd { .. } => (0, 0),
            Rule::Momentum { .. } => (start.len(), 0),
            Rule::Adam { .. } => (start.len(), start.len()),
        };
        let penalties =
            Penalties { scale: 1.0, weight_decay: config.weight_decay as f32, proximal: config.proximal as f32 };
        Self {
            rule,
            penalties,
            clip_norm: config.clip_norm,
            start,
            first: vec![0.0; first],
            second: vec![0.0; second],
            steps: 0,
        }
    }

    /// One step of all the model's variables against these gradients of a batch loss.
    pub(super) fn step(&mut self, model: &Model, gradients: &Gradients) -> Result<(), Error> {
        self.steps = self.steps.saturating_add(1);
        self.penalties.scale = self.clip_scale(model, gradients)?;
        for (index, variable) in model.variables().iter().enumerate() {
            let gradient = gradients
                .of(variable)
                .ok_or_else(|| candle_core::Error::Msg(format!("tensor {index} has no gradient")))?;
            let range = model.layout().range(index);
            let step = Step(RefCell::new(Slices {
                rule: self.rule,
                penalties: self.penalties,
                steps: self.steps,
                start: &self.start[range.clone()],
                first: if self.first.is_empty() { &mut [] } else { &mut self.first[range.clone()] },
                second: if self.second.is_empty() { &mut [] } else { &mut self.second[range] },
            }));
            variable.inplace_op2(gradient, &step)?;
        }
        Ok(())
    }

    /// min(1, clip_norm / ‖gradient‖₂) over all variables together.
    fn clip_scale(&self, model: &Model, gradients: &Gradients) -> Result<f32, Error> {
        if self.clip_norm == 0.0 {
            return Ok(1.0);
        }
        let mut square = 0.0;
        for gradient in model.variables().iter().filter_map(|variable| gradients.of(variable)) {
            square += with_elements::<f32, _>(gradient, |values| {
                Ok(values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>())
            })?;
        }
        let norm = square.sqrt();
        Ok(if norm > self.clip_norm { (self.clip_norm / norm) as f32 } else { 1.0 })
    }
}

/// One tensor's share of a step, as candle's in-place operation on (variable, gradient).
struct Step<'a>(RefCell<Slices<'a>>);

struct Slices<'a> {
    rule: Rule,
    penalties: Penalties,
    steps: i32,
    start: &'a [f32],
    first: &'a mut [f32],
    second: &'a mut [f32],
}

impl InplaceOp2 for Step<'_> {
    fn name(&self) -> &'static str {
        "optimizer_step"
    }

    fn cpu_fwd(
        &self,
        weights: &mut CpuStorage,
        _: &Layout,
        gradient: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<()> {
        let (CpuStorage::F32(weights), CpuStorage::F32(gradient)) = (weights, gradient) else {
            candle_core::bail!("optimizer_step: parameters and gradients are f32");
        };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("optimizer_step: a gradient of shape {:?} is not contiguous", layout.dims());
        };
        let mut slices = self.0.borrow_mut();
        vectorised(
            #[inline(always)]
            || slices.step(weights, &gradient[start..end]),
        );
        Ok(())
    }
}

impl Slices<'_> {
    #[inline(always)]
    fn step(&mut self, weights: &mut [f32], gradient: &[f32]) {
        let penalties = self.penalties;
        let inputs = gradient.iter().zip(self.start);
        match self.rule {
            // The default, in which the start need not be read: memory is what a step waits for.
            Rule::Sgd { rate } if penalties.proximal == 0.0 => {
                for (w, &g) in weights.iter_mut().zip(gradient) {
                    *w -= rate * (penalties.scale * g + penalties.weight_decay * *w);
                }
            }
            Rule::Sgd { rate } => {
                for (w, (&g, &start)) in weights.iter_mut().zip(inputs) {
                    *w -= rate * penalties.apply(g, *w, start);
                }
            }
            Rule::Momentum { rate, momentum } => {
                for ((w, v), (&g, &start)) in weights.iter_mut().zip(&mut *self.first).zip(inputs) {
                    *v = momentum * *v + penalties.apply(g, *w, start);
                    *w -= rate * *v;
                }
            }
            Rule::Adam { rate } => {
                let first_correction = 1.0 - f64::from(BETA_1).powi(self.steps);
                let second_correction = 1.0 - f64::from(BETA_2).powi(self.steps);
                let rate = (rate / first_correction) as f32;
                let second_scale = (1.0 / second_correction) as f32;
                let moments = self.first.iter_mut().zip(&mut *self.second);
                for ((w, (m, v)), (&g, &start)) in weights.iter_mut().zip(moments).zip(inputs) {
                    let g = penalties.apply(g, *w, start);
                    *m = BETA_1 * *m + (1.0 - BETA_1) * g;
                    *v = BETA_2 * *v + (1.0 - BETA_2) * g * g;
                    *w -= rate * *m / ((*v * second_scale).sqrt() + EPSILON);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a rule on one weight with these gradients and returns the weight after each step.
    fn trace(config: &TrainingConfig, start: f32, gradients: &[f32]) -> Vec<f32> {
        let start = [start];
        let optimizer = Optimizer::new(config, 1, &start);
        let (mut first, mut second, mut weight) = (vec![0.0], vec![0.0], start);
        let mut trace = Vec::new();
        for (steps, &gradient) in (1..).zip(gradients) {
            let mut slices = Slices {
                rule: optimizer.rule,
                penalties: optimizer.penalties,
                steps,
                start: &start,
                first: &mut first,
                second: &mut second,
            };
            slices.step(&mut weight, &[gradient]);
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
    fn adam_follows_algorithm_1() {
        let config = TrainingConfig { optimizer: OptimizerKind::Adam, learning_rate: 0.1, ..TrainingConfig::default() };
        // m̂, v̂ of step 1: 1, 1. Of step 2: m = 0.9·0.1 − 0.2 = −0.11, v = 0.999·0.001 + 0.004 = 0.004999, so
        // m̂ = −0.11/0.19, v̂ = 0.004999/0.001999, and the step is 0.1·0.578947/1.581376.
        assert_close(&trace(&config, 0.0, &[1.0, -2.0]), &[-0.1, -0.1 + 0.036_610_3]);
    }

    #[test]
    fn the_step_size_decays_with_the_round() {
        let config = TrainingConfig { learning_rate: 1.0, learning_rate_decay: 0.5, ..TrainingConfig::default() };
        let rates = [1, 2, 4].map(|round| match Optimizer::new(&config, round, &[]).rule {
            Rule::Sgd { rate } => rate,
            Rule::Momentum { .. } | Rule::Adam { .. } => unreachable!("the default is SGD"),
        });
        assert_eq!(rates, [1.0, 0.5, 0.125]);
    }
}

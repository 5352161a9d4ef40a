//! What a client does in a round, and how a model is judged.

mod optimizer;
#[cfg(test)]
mod tests;
mod trivial;

use crate::Error;
use crate::data::Examples;
use crate::model::Model;
use crate::ops::{self, Graph, Tape};
use candle_core::{Device, Tensor};
use dunlin_core::recipe::{ModelKind, TrainingConfig};
use dunlin_core::{Rng, Seed};
use optimizer::Optimizer;
use rand::RngCore;
use std::ops::ControlFlow;

/// What is asked of a client in one round.
#[derive(Clone, Copy, Debug)]
pub struct TrainTask<'a> {
    /// Optimizer, batch and epochs.
    pub config: &'a TrainingConfig,
    /// The round, counted from 1: the step size is `learning_rate · learning_rate_decay^(round − 1)`.
    pub round: u64,
    /// Seed of this client's work in this round; it decides the order of the examples.
    pub seed: Seed,
}

/// What training was, besides the parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainResult {
    /// Examples that they were trained on: the client's weight in the mean.
    pub examples: u32,
    /// Optimizer steps taken.
    pub steps: u64,
    /// Mean training loss per example over the last epoch, in nats, each batch judged before its step.
    pub loss: f64,
}

/// Trains `params`, in the order of the model's layout, on one client's examples: `epochs` passes, each in a new order,
/// in batches of which the last may be smaller.
///
/// The gradient of a batch is the mean over its examples; it is first clipped to `clip_norm`, then
/// `weight_decay · w` and `proximal · (w − w₀)`, with w₀ what `params` were at first (`FedProx`, Li et al. 2020,
/// <https://arxiv.org/abs/1812.06127>), are added. Works on the calling thread alone, and its result depends on nothing but the arguments and the machine's
/// vector instructions.
///
/// `progress` is called after each step with (steps done, steps in total).
///
/// # Errors
/// [`Error::Stopped`] when `progress` breaks, [`Error::Diverged`] when the loss or a parameter stops being finite,
/// [`Error::NoExamples`] without data, and when data, parameters or configuration do not fit the model.
pub fn train(
    model: &mut Model,
    data: &Examples,
    params: &mut [f32],
    task: &TrainTask<'_>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<TrainResult, Error> {
    model.expect_len(params)?;
    if *model.kind() == ModelKind::Trivial {
        return trivial::train(data, params, &task.seed, progress);
    }
    expect_input(model, data)?;
    if data.is_empty() {
        return Err(Error::NoExamples);
    }
    if task.config.epochs == 0 {
        return Err(Error::config("training.epochs", 0, "at least one pass over the data is needed"));
    }
    let batch = if task.config.batch == 0 { data.len() } else { (task.config.batch as usize).min(data.len()) };
    let total = u64::from(task.config.epochs) * data.len().div_ceil(batch) as u64;

    model.load(params)?;
    let mut optimizer = Optimizer::new(task.config, task.round, params);
    let mut order: Vec<u32> = data.indices().to_vec();
    let mut steps = 0;
    let mut loss_sum = 0.0;
    for epoch in 0..task.config.epochs {
        shuffle(&mut order, &mut task.seed.derive_n("epoch", u64::from(epoch)).rng());
        loss_sum = 0.0;
        for rows in order.chunks(batch) {
            let (x, labels) = gather(data, rows)?;
            let mut tape = Tape::default();
            let noise = task.seed.derive_n("noise", steps);
            let logits = model.record(&x, Graph::on(&mut tape).with_noise(noise))?;
            let loss = ops::cross_entropy(&mut Graph::on(&mut tape), &logits, &labels)?;
            let value = f64::from(loss.to_scalar::<f32>()?);
            steps += 1;
            if !value.is_finite() {
                return Err(Error::Diverged { step: steps });
            }
            loss_sum += value * rows.len() as f64;
            optimizer.step(model, &tape.backward(&loss)?)?;
            if progress(steps, total).is_break() {
                return Err(Error::Stopped);
            }
        }
    }
    model.store(params)?;
    if params.iter().any(|value| !value.is_finite()) {
        return Err(Error::Diverged { step: steps });
    }
    Ok(TrainResult { examples: data.len() as u32, steps, loss: loss_sum / data.len() as f64 })
}

/// How a model does on some examples; sums, so that parts can be added.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Examples judged.
    pub examples: u64,
    /// Those whose largest logit is their label's; among equal logits the first counts.
    pub correct: u64,
    /// Cross-entropy summed over the examples, in nats; not finite for a diverged model.
    pub loss_sum: f64,
}

impl Evaluation {
    /// Share of correct answers; 0 without examples.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        if self.examples == 0 { 0.0 } else { self.correct as f64 / self.examples as f64 }
    }

    /// Mean cross-entropy in nats; 0 without examples.
    #[must_use]
    pub fn loss(&self) -> f64 {
        if self.examples == 0 { 0.0 } else { self.loss_sum / self.examples as f64 }
    }
}

impl std::ops::Add for Evaluation {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            examples: self.examples + other.examples,
            correct: self.correct + other.correct,
            loss_sum: self.loss_sum + other.loss_sum,
        }
    }
}

/// Judges parameters on examples, on the calling thread; the trivial model is judged on nothing.
///
/// # Errors
/// When data or parameters do not fit the model.
pub fn evaluate(model: &mut Model, data: &Examples, params: &[f32]) -> Result<Evaluation, Error> {
    model.expect_len(params)?;
    if *model.kind() == ModelKind::Trivial {
        return Ok(Evaluation::default());
    }
    expect_input(model, data)?;
    model.load(params)?;
    let mut evaluation = Evaluation { examples: data.len() as u64, ..Evaluation::default() };
    for rows in data.indices().chunks(EVALUATION_BATCH) {
        let (x, labels) = gather(data, rows)?;
        let logits = model.infer(&x)?;
        ops::with_elements::<f32, _>(&logits, |logits| {
            for (row, &label) in logits.chunks_exact(model.input().classes).zip(&labels) {
                let label = label as usize;
                let beaten = row[..label].iter().all(|&other| other < row[label])
                    && row[label + 1..].iter().all(|&other| other <= row[label]);
                evaluation.correct += u64::from(beaten);
                evaluation.loss_sum += ops::row_loss(row, label);
            }
            Ok(())
        })?;
    }
    Ok(evaluation)
}

/// Rows judged at once: enough for an efficient product, while a convolution's activations stay below 20 MB.
const EVALUATION_BATCH: usize = 128;

fn expect_input(model: &Model, data: &Examples) -> Result<(), Error> {
    let (expected, actual) = (*model.input(), *data.dataset().input());
    if expected == actual {
        return Ok(());
    }
    Err(Error::InputShape { name: data.dataset().name().to_owned(), expected, actual })
}

/// Rows of the data set as a tensor [rows, features], and their labels.
fn gather(data: &Examples, rows: &[u32]) -> Result<(Tensor, Vec<u32>), Error> {
    let dataset = data.dataset();
    let features = dataset.input().features();
    let mut x = Vec::with_capacity(rows.len() * features);
    for &row in rows {
        dataset.append_row(row, &mut x);
    }
    let labels = rows.iter().map(|&row| dataset.labels()[row as usize]).collect();
    Ok((Tensor::from_vec(x, (rows.len(), features), &Device::Cpu)?, labels))
}

/// Fisher–Yates with 64-bit multiplication: written out so that the order stays the same whatever a library does.
pub(crate) fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last + 1));
    }
}

/// A number in `0..bound`; biased by at most bound/2⁶⁴.
fn below(rng: &mut Rng, bound: usize) -> usize {
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}

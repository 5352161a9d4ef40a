//! What a client does in a round, and how a model is judged.

mod distill;
mod gradient;
mod optimizer;
#[cfg(test)]
mod tests;
mod trivial;

pub use distill::{DistillTask, Halfway, Keep, Lesson, distill};

use crate::data::{Examples, augment};
use crate::model::{Gradients, Model, StepContext, Target};
use crate::ops::{self, Team};
use crate::{Error, Threads};
use candle_core::{Device, Tensor};
use dunlin_codec::Mask;
use dunlin_core::recipe::{Augment, ModelKind, TrainingConfig};
use dunlin_core::{Rng, Seed};
use optimizer::Optimizer;
use rand::RngCore;
use std::ops::{ControlFlow, Range};

/// What is asked of a client in one round.
#[derive(Clone, Copy, Debug)]
pub struct TrainTask<'a> {
    /// Optimizer, batch and epochs.
    pub config: &'a TrainingConfig,
    /// The round, counted from 1: the step size is `learning_rate · learning_rate_decay^(round − 1)`.
    pub round: u64,
    /// Seed of this client's work in this round; it decides the order of the examples and what is random in a step.
    pub seed: Seed,
    /// The threads among which each batch is split.
    pub threads: &'a Threads,
    /// What is left of the model; the rest is zero and stays so. None where nothing was pruned.
    pub mask: Option<&'a Mask>,
}

/// What training was, besides the parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainResult {
    /// Examples that they were trained on: the client's weight in the mean.
    pub examples: u32,
    /// Optimizer steps taken.
    pub steps: u64,
    /// Mean training loss per label over the last epoch, in nats, each batch judged before its step.
    pub loss: f64,
}

/// Trains `params`, in the order of the model's layout, on one client's examples: `epochs` passes, each in a new order,
/// in batches of which the last may be smaller.
///
/// The gradient of a batch is the mean over its labels; it is first clipped to `clip_norm`, then
/// `weight_decay · w` and `proximal · (w − w₀)`, with w₀ what `params` were at first (`FedProx`, Li et al. 2020,
/// <https://arxiv.org/abs/1812.06127>), are added; after the step, `l1` shrinks the weights. The memory of `params`
/// becomes the model's for as long as it is trained, and nothing is copied, unless layers have lost so many weights that what is
/// left of them trains by itself.
///
/// The result depends on nothing but the arguments, the number of threads and whether the machine has fused multiply-add,
/// and in portable arithmetic not on that.
///
/// `progress` is called after each step with (steps done, steps in total).
///
/// # Errors
/// [`Error::Stopped`] when `progress` breaks, [`Error::Diverged`] when the loss or a parameter stops being finite,
/// [`Error::NoExamples`] without data, and when data, parameters or configuration do not fit the model; after the first
/// two, `params` hold what had been reached.
pub fn train(
    model: &mut Model,
    data: &Examples,
    params: &mut Vec<f32>,
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
    let augment = task.config.augment;
    if augment != Augment::None && (data.dataset().input().height == 1 || data.dataset().input().vocabulary > 0) {
        let remedy = format!("the rows of {} are no images; \"none\" is right", data.dataset().name());
        return Err(Error::config("training.augment", format!("{:?}", augment.name()), remedy));
    }
    if let Some(mask) = task.mask
        && let Some(mut sparse) = model.sparse(mask)?
    {
        return sparse
            .with(params, |model, mask, params| train(model, data, params, &TrainTask { mask, ..*task }, progress));
    }
    model.freeze(task.config.frozen())?;
    // Read only by the proximal term; without it, memory for a second model is not spent.
    let start = if task.config.proximal == 0.0 { Vec::new() } else { params.clone() };
    model.swap(params)?;
    let result = steps(model, data, &start, task, progress);
    model.swap(params)?;
    let result = result?;
    if params.iter().any(|value| !value.is_finite()) {
        return Err(Error::Diverged { step: result.steps });
    }
    Ok(result)
}

/// Moves the model's own parameters.
fn steps(
    model: &Model,
    data: &Examples,
    start: &[f32],
    task: &TrainTask<'_>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<TrainResult, Error> {
    let TrainTask { config, threads, .. } = *task;
    let batch = if config.batch == 0 { data.len() } else { (config.batch as usize).min(data.len()) };
    let mut optimizer = Optimizer::new(config, task.round, model.layout().len(), start).within(task.mask);
    let order = data.indices().to_vec();
    let (loss, steps) = passes(order, (0..config.epochs, batch), &task.seed, progress, |epoch, steps, rows| {
        let augmentation = (config.augment != Augment::None)
            .then(|| (config.augment, task.seed.derive_n("augment", u64::from(epoch))));
        let noise = task.seed.derive_n("step", steps);
        let count = rows.len() * model.input().targets;
        let parts: Vec<_> = rows.chunks(rows.len().div_ceil(threads.count())).collect();
        let seats = Team::seats(parts.iter().map(|rows| rows.len()).collect());
        let parts = threads.map(parts.into_iter().zip(seats).collect(), |(rows, seat)| -> Result<Gradients, Error> {
            let (x, labels) = gather(data, rows, augmentation.as_ref())?;
            let noise = noise.derive_n("part", seat.member().number() as u64);
            let context = StepContext { noise: Some(noise), member: Some(seat.member()) };
            model.gradients_to_step(&x, Target::Labels(&labels), count, context)
        });
        let parts = parts.into_iter().collect::<Result<Vec<_>, _>>()?;
        let loss = loss_of(&parts, steps)?;
        optimizer.step(model, &parts, threads)?;
        Ok(loss)
    })?;
    Ok(TrainResult { examples: data.len() as u32, steps, loss })
}

/// Passes over rows, each in a new order, in batches of which the last may be smaller: `step` gets the pass, the number of
/// steps before it and its rows, and returns their mean loss. Passes before `epochs` begins count as done. Returns the mean
/// loss over the last pass and the steps.
///
/// # Errors
/// [`Error::Stopped`] when `progress`, called after each step with (steps done, steps in total), breaks; and those of
/// `step`.
pub(crate) fn passes(
    mut order: Vec<u32>,
    (epochs, batch): (Range<u32>, usize),
    seed: &Seed,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    mut step: impl FnMut(u32, u64, &[u32]) -> Result<f64, Error>,
) -> Result<(f64, u64), Error> {
    let in_pass = order.len().div_ceil(batch) as u64;
    let total = u64::from(epochs.end) * in_pass;
    let (mut steps, mut loss_sum) = (0, 0.0);
    for epoch in 0..epochs.end {
        // The order of a pass comes from that of the one before.
        shuffle(&mut order, &mut seed.derive_n("epoch", u64::from(epoch)).rng());
        if epoch < epochs.start {
            steps += in_pass;
            continue;
        }
        loss_sum = 0.0;
        for rows in order.chunks(batch) {
            loss_sum += step(epoch, steps, rows)? * rows.len() as f64;
            steps += 1;
            if progress(steps, total).is_break() {
                return Err(Error::Stopped);
            }
        }
    }
    Ok((loss_sum / order.len() as f64, steps))
}

/// The loss of a batch from those of its parts, after so many steps.
///
/// # Errors
/// [`Error::Diverged`] when it is not finite: then no step should follow its gradients.
pub(crate) fn loss_of(parts: &[Gradients], steps: u64) -> Result<f64, Error> {
    let loss: f64 = parts.iter().map(|part| part.loss).sum();
    if loss.is_finite() { Ok(loss) } else { Err(Error::Diverged { step: steps + 1 }) }
}

/// The mean gradient of the loss over all examples at `params`, in the order of the model's layout, and the mean loss per
/// label in nats. No penalty is part of it, nothing is left out of it, and dropout is off.
///
/// `progress` is called after each batch with (batches done, batches in total).
///
/// # Errors
/// As [`train`].
pub fn gradient(
    model: &mut Model,
    data: &Examples,
    params: &mut Vec<f32>,
    threads: &Threads,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(Vec<f32>, f64), Error> {
    model.expect_len(params)?;
    if *model.kind() == ModelKind::Trivial {
        return Ok((vec![0.0; params.len()], 0.0));
    }
    if let Some((mut model, mask)) = model.lean(params)? {
        mask.gather(params);
        let result = gradient(&mut model, data, params, threads, progress);
        *params = mask.scatter(params);
        return result.map(|(gradient, loss)| (mask.scatter(&gradient), loss));
    }
    expect_input(model, data)?;
    if data.is_empty() {
        return Err(Error::NoExamples);
    }
    model.freeze(std::iter::empty())?;
    model.swap(params)?;
    let result = sum_of_gradients(model, data, threads, progress);
    model.swap(params)?;
    result
}

fn sum_of_gradients(
    model: &Model,
    data: &Examples,
    threads: &Threads,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(Vec<f32>, f64), Error> {
    let mut sum = vec![0.0f32; model.layout().len()];
    let (mut loss, mut done) = (0.0, 0);
    let batches = data.indices().len().div_ceil(EVALUATION_BATCH) as u64;
    let count = data.len() * model.input().targets;
    for rows in data.indices().chunks(EVALUATION_BATCH) {
        let parts: Vec<_> = rows.chunks(rows.len().div_ceil(threads.count())).collect();
        let parts = threads.map(parts, |rows| -> Result<Gradients, Error> {
            let (x, labels) = gather(data, rows, None)?;
            model.gradients(&x, Target::Labels(&labels), count, None)
        });
        for part in parts {
            let part = part?;
            loss += part.loss;
            for (index, tensor) in part.tensors.iter().enumerate() {
                let Some(tensor) = tensor else { continue };
                ops::with_elements::<f32, _>(tensor, |gradient| {
                    for (sum, &g) in sum[model.layout().range(index)].iter_mut().zip(gradient) {
                        *sum += g;
                    }
                    Ok(())
                })?;
            }
        }
        done += 1;
        if progress(done, batches).is_break() {
            return Err(Error::Stopped);
        }
    }
    if !loss.is_finite() || sum.iter().any(|g| !g.is_finite()) {
        return Err(Error::Diverged { step: done });
    }
    Ok((sum, loss))
}

/// How a model does on some examples; sums, so that parts can be added.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Labels judged: one for each example, or one for each step of a sequence.
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

/// Judges parameters on examples; the trivial model is judged on nothing.
///
/// # Errors
/// When data or parameters do not fit the model.
pub fn evaluate(model: &mut Model, data: &Examples, params: &[f32], threads: &Threads) -> Result<Evaluation, Error> {
    model.expect_len(params)?;
    if *model.kind() == ModelKind::Trivial {
        return Ok(Evaluation::default());
    }
    if let Some((mut model, mask)) = model.lean(params)? {
        let mut params = params.to_vec();
        mask.gather(&mut params);
        return evaluate(&mut model, data, &params, threads);
    }
    expect_input(model, data)?;
    model.load(params)?;
    let model = &*model;
    let batches: Vec<_> = data.indices().chunks(EVALUATION_BATCH).collect();
    let parts = batches.chunks(batches.len().div_ceil(threads.count()).max(1)).collect();
    let parts = threads.map(parts, |batches: &[&[u32]]| {
        batches.iter().map(|rows| evaluate_batch(model, data, rows)).collect::<Result<Vec<_>, Error>>()
    });
    // In the order of the batches, whoever judged them.
    let mut evaluation = Evaluation::default();
    for part in parts {
        evaluation = part?.into_iter().fold(evaluation, |sum, batch| sum + batch);
    }
    Ok(evaluation)
}

fn evaluate_batch(model: &Model, data: &Examples, rows: &[u32]) -> Result<Evaluation, Error> {
    let (x, labels) = gather(data, rows, None)?;
    let logits = model.infer(&x)?;
    let mut evaluation = Evaluation { examples: labels.len() as u64, ..Evaluation::default() };
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
    Ok(evaluation)
}

/// Rows judged at once: enough for an efficient product, while a convolution's activations stay below 20 MB.
const EVALUATION_BATCH: usize = 128;

pub(crate) fn expect_input(model: &Model, data: &Examples) -> Result<(), Error> {
    let (expected, actual) = (Box::new(*model.input()), Box::new(*data.dataset().input()));
    if expected == actual {
        return Ok(());
    }
    Err(Error::InputShape { name: data.dataset().name().to_owned(), expected, actual })
}

/// Rows of the data set as a tensor [rows, features], images changed at random if asked for, and their labels.
///
/// Each row draws from a stream of its own, so that a change does not depend on the batch.
pub(crate) fn gather(
    data: &Examples,
    rows: &[u32],
    augmentation: Option<&(Augment, Seed)>,
) -> Result<(Tensor, Vec<u32>), Error> {
    let dataset = data.dataset();
    let features = dataset.input().features();
    let mut x = Vec::with_capacity(rows.len() * features);
    for &row in rows {
        let start = x.len();
        dataset.append_row(row, &mut x);
        if let Some((augment, seed)) = augmentation {
            let mut rng = seed.derive_n("row", u64::from(row)).rng();
            augment::apply(*augment, &mut x[start..], dataset.input(), &mut rng);
        }
    }
    let labels = rows.iter().flat_map(|&row| dataset.row_labels(row)).copied().collect();
    Ok((Tensor::from_vec(x, (rows.len(), features), &Device::Cpu)?, labels))
}

/// Fisher–Yates with 64-bit multiplication: written out so that the order stays the same whatever a library does.
pub fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last + 1));
    }
}

/// A number in `0..bound`; biased by at most bound/2⁶⁴.
pub(crate) fn below(rng: &mut Rng, bound: usize) -> usize {
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}

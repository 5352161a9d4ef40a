//! What a client does for a round: fetches, trains, evaluates.

use super::compute::blocking;
use super::shared::{Pass, Prepared, Shared};
use super::{ClientError, disconnected};
use crate::participant::Event;
use crate::state::{ClientState, budget};
use crate::trainer::TrainerError;
use crate::transport::Transport;
use crate::work::{self, Update, WorkError};
use bytes::Bytes;
use dunlin_core::message::{CatchUp, EvaluationReport, EvaluationTask, FetchModel, Session, TrainTask};
use dunlin_core::{ClientId, Digest, ModelVersion, RoundId, catch_up};
use dunlin_nn::small::Slice;
use dunlin_nn::train::Evaluation;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::{Instant, Interval};
use tracing::{info, warn};

/// Fetches what the client lacks of a model and keeps what it comes to.
pub(super) async fn fetch_model(
    fetch: &FetchModel,
    state: &mut dyn ClientState,
    transport: &mut Transport,
    prepared: &Arc<Prepared>,
) -> Result<Event, ClientError> {
    let client = &fetch.session.client;
    // Nobody needs more than a snapshot with every coordinate in its widest form.
    let max_bytes = 2 * prepared.limits.max_frame_bytes as u64;
    let (plan, frames) = match transport.fetch(fetch, max_bytes).await {
        Err(error) => return Ok(disconnected(client, &error)),
        Ok(Err(reject)) => return Ok(Event::Fetched(Err(reject))),
        Ok(Ok(fetched)) => fetched,
    };
    let (version, held) = (plan.version, fetch.held);
    let job = {
        let prepared = prepared.clone();
        move || apply(&plan, &frames, held, &prepared)
    };
    if !blocking(job).await? {
        if held.is_none() {
            return Err(ClientError::WrongModel { version });
        }
        warn!(client = %client, %version, "the model held has drifted: fetching a snapshot");
        state.set_held(None)?;
        return Ok(Event::Drifted);
    }
    state.set_held(Some(version))?;
    Ok(Event::Fetched(Ok(version)))
}

/// Applies a plan and keeps the version reached; false when it does not agree with the digest.
fn apply(
    plan: &CatchUp,
    frames: &[Bytes],
    held: Option<ModelVersion>,
    prepared: &Prepared,
) -> Result<bool, ClientError> {
    let models = &prepared.models;
    let model = match models.get(plan.version) {
        // Another client of the process has been here; the bytes were sent all the same.
        Some(model) => model,
        None => {
            let base = held.and_then(|version| models.take(version));
            match catch_up::apply(plan, frames, base, &prepared.seeded) {
                Ok(model) => Arc::new(model),
                Err(_) => return Ok(false),
            }
        }
    };
    models.hold(held, plan.version, plan.digest, &model)?;
    Ok(true)
}

/// What comes of being asked to train.
pub(super) enum Trained {
    /// An update, and what it passed.
    Update(Box<Update>, Option<Pass>),
    /// The round ended meanwhile.
    Stopped,
    /// The client has too few bytes left for one: in this round, or for good.
    OutOfBytes {
        /// Which of both.
        for_good: bool,
    },
}

/// Trains, and waits until the update may be sent.
pub(super) async fn train(
    client: &ClientId,
    task: &TrainTask,
    (state, shared, prepared): (&mut dyn ClientState, &Arc<Shared>, Arc<Prepared>),
    (transport, session): (Transport, Session),
) -> Result<Trained, ClientError> {
    let (recipe, spent) = (&prepared.recipe.clone(), state.spent());
    let asked = task;
    let Some(task) = budget::within(recipe, spent, asked) else {
        return Ok(Trained::OutOfBytes { for_good: true });
    };
    let steps = Arc::new(Steps { done: Arc::clone(&shared.steps), ..Steps::default() });
    let mut beats = Beats::new(transport, session, task.round);
    let Some(ready) = beats.during(shared.compute.ready(), &steps).await else { return Ok(Trained::Stopped) };
    let base = prepared.models.get(task.base).expect("a model that was just fetched is held");
    let residual =
        if prepared.recipe.uplink.feedback > 0.0 { state.residual(prepared.seeded.mask().whole())? } else { None };
    let job = {
        let (steps, task, client, shared) = (steps.clone(), task.clone(), client.clone(), Arc::clone(shared));
        move || {
            let mut trainer = prepared.workplace.trainer(&client)?;
            let mut progress = |_, total| {
                steps.done.fetch_add(1, Ordering::Relaxed);
                steps.total.store(total, Ordering::Relaxed);
                if steps.stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let assignment = work::Assignment {
                client: &client,
                task: &task,
                recipe: &prepared.recipe,
                slice: prepared.slice.as_ref(),
                base: &base,
                residual: residual.as_deref(),
                digest: Digest::of,
            };
            shared.with_encoder(|encoder| work::train_and_encode(&assignment, &mut *trainer, encoder, &mut progress))
        }
    };
    let mut training = std::pin::pin!(ready.compute(job));
    let result = loop {
        tokio::select! {
            result = &mut training => break result,
            goes_on = beats.next(&steps) => if !goes_on {
                steps.stop.store(true, Ordering::Relaxed);
            }
        }
    };
    let update = match result {
        Ok(update) => update,
        Err(WorkError::Trainer(TrainerError::Stopped)) => return Ok(Trained::Stopped),
        Err(error) => {
            let used_up = budget::used_up(recipe, spent, &error, asked, &task);
            return used_up.map(|for_good| Trained::OutOfBytes { for_good }).ok_or_else(|| error.into());
        }
    };
    let Some(gate) = &shared.gate else { return Ok(Trained::Update(Box::new(update), None)) };
    let pass = beats.during(gate.pass(client, task.round), &steps).await;
    Ok(pass.map_or(Trained::Stopped, |pass| Trained::Update(Box::new(update), Some(pass))))
}

/// How far a training is, and whether it is to be broken off.
#[derive(Default)]
struct Steps {
    /// Of all clients of the process.
    done: Arc<AtomicU64>,
    /// Of this training.
    total: AtomicU64,
    stop: AtomicBool,
}

/// What a client that is at work, or waits until others of its process are done, tells the
/// server from time to time.
struct Beats {
    interval: Interval,
    transport: Transport,
    session: Session,
    round: RoundId,
}

impl Beats {
    fn new(transport: Transport, session: Session, round: RoundId) -> Self {
        let interval = tokio::time::interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
        Self { interval, transport, session, round }
    }

    /// Awaits what may be broken off at once; nothing when the work is no longer of use.
    async fn during<T>(&mut self, waiting: impl Future<Output = T>, steps: &Steps) -> Option<T> {
        let mut waiting = std::pin::pin!(waiting);
        loop {
            tokio::select! {
                result = &mut waiting => return Some(result),
                goes_on = self.next(steps) => if !goes_on {
                    return None;
                }
            }
        }
    }

    /// Waits for the time of the next one. Returns whether the work is still of use.
    async fn next(&mut self, steps: &Steps) -> bool {
        self.interval.tick().await;
        let (done, total) = (steps.done.load(Ordering::Relaxed), steps.total.load(Ordering::Relaxed));
        // One that does not get through is made up for by the next.
        match self.transport.progress(&self.session, self.round, done, total).await {
            Ok(Err(reject)) => {
                info!(client = %self.session.client, reject = reject.label(), "training broken off: {reject}");
                false
            }
            Ok(Ok(())) | Err(_) => true,
        }
    }
}

/// Judges a model on the client's own data.
pub(super) async fn evaluate(
    client: &ClientId,
    task: EvaluationTask,
    shared: &Arc<Shared>,
    prepared: Arc<Prepared>,
) -> Result<EvaluationReport, ClientError> {
    let ready = shared.compute.ready().await;
    let model = prepared.models.get(task.version).expect("a model that was just fetched is held");
    let client = client.clone();
    let result: Result<Evaluation, TrainerError> = ready
        .compute(move || {
            let params = Slice::whole_floats(prepared.slice.as_ref(), &model);
            prepared.workplace.trainer(&client)?.evaluate(&params)
        })
        .await;
    let result = result?;
    Ok(EvaluationReport {
        round: task.round,
        version: task.version,
        examples: result.examples,
        correct: result.correct,
        loss_sum: result.loss_sum,
    })
}

/// How often a training client says that it advances; several times within the shortest sensible idle timeout.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

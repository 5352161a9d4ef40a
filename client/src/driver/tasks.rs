//! What a client does for a round: fetches, trains, evaluates.

use super::compute::blocking;
use super::shared::{Prepared, Shared};
use super::{ClientError, disconnected};
use crate::participant::Event;
use crate::state::{ClientState, budget};
use crate::trainer::TrainerError;
use crate::transport::Transport;
use crate::work::{self, Update, WorkError};
use bytes::Bytes;
use dunlin_codec::Encoder;
use dunlin_core::message::{CatchUp, EvaluationReport, EvaluationTask, FetchModel, TrainTask};
use dunlin_core::{ClientId, Digest, ModelVersion, catch_up};
use dunlin_nn::small::Slice;
use dunlin_nn::train::Evaluation;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
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

/// Trains; nothing when the round ended meanwhile.
pub(super) async fn train(
    client: &ClientId,
    task: &TrainTask,
    (state, shared, prepared): (&mut dyn ClientState, &Arc<Shared>, Arc<Prepared>),
    (mut report, session): (Transport, dunlin_core::message::Session),
) -> Result<Option<Update>, ClientError> {
    let ready = shared.compute.ready().await;
    let base = prepared.models.get(task.base).expect("a model that was just fetched is held");
    let task = budget::within(&prepared.recipe, state.spent(), task);
    let residual =
        if prepared.recipe.uplink.feedback > 0.0 { state.residual(prepared.seeded.mask().whole())? } else { None };
    let steps = Arc::new((AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false)));
    let job = {
        let (steps, task, client) = (steps.clone(), task.clone(), client.clone());
        move || {
            let mut trainer = prepared.workplace.trainer(&client)?;
            let mut encoder = Encoder::new();
            let mut progress = |done, total| {
                steps.0.store(done, Ordering::Relaxed);
                steps.1.store(total, Ordering::Relaxed);
                if steps.2.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
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
            work::train_and_encode(&assignment, &mut *trainer, &mut encoder, &mut progress)
        }
    };
    let mut training = std::pin::pin!(ready.compute(job));
    let mut beat = tokio::time::interval(PROGRESS_INTERVAL);
    beat.tick().await;
    let result = loop {
        tokio::select! {
            result = &mut training => break result,
            _ = beat.tick() => {
                let (done, total) = (steps.0.load(Ordering::Relaxed), steps.1.load(Ordering::Relaxed));
                // A beat that does not get through is made up for by the next.
                if let Ok(Err(reject)) = report.progress(&session, task.round, done, total).await {
                    info!(client = %client, reject = reject.label(), "training broken off: {reject}");
                    steps.2.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    match result {
        Ok(update) => Ok(Some(update)),
        Err(WorkError::Trainer(TrainerError::Stopped)) => Ok(None),
        Err(error) => Err(error.into()),
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

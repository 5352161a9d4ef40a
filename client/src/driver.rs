//! Carries out what a [`Participant`] decides: calls, files, training, pauses.

use crate::participant::{Action, End, Event, Participant};
use crate::state::{ClientState, ModelCache, StateError, budget};
use crate::trainer::{Trainer, TrainerError};
use crate::transport::{Answer, Disconnected, Transport};
use crate::work::{self, Update, WorkError};
use bytes::Bytes;
use dunlin_codec::{Encoder, Limits, MaskedGrid, grid};
use dunlin_core::message::{CatchUp, EvaluationReport, EvaluationTask, FetchModel, JoinRefused, TrainTask, Welcome};
use dunlin_core::recipe::Width;
use dunlin_core::{ClientId, Digest, Layout, ModelVersion, Recipe, Reject, catch_up};
use dunlin_nn::small::{NoSlices, Slice};
use dunlin_nn::train::Evaluation;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

/// Makes a client's part of a recipe: the only thing that differs between kinds of client.
///
/// It is asked when a client joins, and for a trainer each time that it trains, so that a virtual client costs memory
/// only while it does.
pub trait Workplace: Send + Sync {
    /// The model's tensors and its parameters before any training.
    ///
    /// # Errors
    /// When the model or its data cannot be made.
    fn model(&self) -> Result<(Layout, Vec<f32>), TrainerError>;

    /// Training examples of a client.
    ///
    /// # Errors
    /// When the client has no data.
    fn examples(&self, client: &ClientId) -> Result<u32, TrainerError>;

    /// How much of the model a client has: one of the recipe's [`Recipe::widths`]. The whole, unless the workplace says
    /// otherwise; what a simulation deals to its clients is [`Recipe::dealt_widths`].
    fn width(&self, client: &ClientId) -> Width {
        let _ = client;
        Width::WHOLE
    }

    /// A trainer on a client's data. It trains a model of [`Self::model`]'s layout whatever the client's width is.
    ///
    /// # Errors
    /// When it cannot be made.
    fn trainer(&self, client: &ClientId) -> Result<Box<dyn Trainer>, TrainerError>;
}

/// Makes a [`Workplace`] from the recipe that the server sends.
pub type Prepare = dyn Fn(&Recipe) -> Result<Arc<dyn Workplace>, TrainerError> + Send + Sync;

/// What a client tells those who watch it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Told<'a> {
    /// It has joined a run, and its data and model are loaded.
    Joined {
        /// Its name.
        client: &'a ClientId,
        /// The run's id.
        run: String,
        /// Training examples at hand.
        examples: u32,
        /// How much of the model it has.
        width: Width,
    },
    /// Its update counts.
    Accepted {
        /// Its name.
        client: &'a ClientId,
        /// The round.
        round: u64,
        /// Length of the update's frame.
        bytes: u64,
    },
    /// Its update does not count.
    Refused {
        /// Its name.
        client: &'a ClientId,
        /// The round.
        round: u64,
        /// The reason's label.
        reason: &'static str,
    },
    /// The run is over.
    Ended {
        /// Its name.
        client: &'a ClientId,
        /// How, as a label.
        outcome: &'static str,
    },
}

/// Takes what clients tell.
pub type Tell = dyn Fn(&Told<'_>) + Send + Sync;

/// What the clients of one process share.
pub struct Shared {
    /// Takes what they tell.
    tell: Box<Tell>,
    /// Makes the workplace, once per run.
    pub prepare: Box<Prepare>,
    /// Versions held of the whole model.
    pub models: Arc<ModelCache>,
    /// Bounds how many clients compute at once.
    pub compute: Arc<Semaphore>,
    prepared: Mutex<Option<(Welcome, PreparedRun)>>,
}

/// What is made of a recipe, once for all clients of the process.
struct PreparedRun {
    recipe: Arc<Recipe>,
    workplace: Arc<dyn Workplace>,
    /// For each width that some client of the process has.
    widths: BTreeMap<Width, Arc<Prepared>>,
}

/// The same for clients of one width.
struct Prepared {
    recipe: Arc<Recipe>,
    workplace: Arc<dyn Workplace>,
    /// The part of the model that they have; nothing for the whole.
    slice: Option<Slice>,
    limits: Limits,
    /// Version 0.
    seeded: MaskedGrid,
    /// Versions held.
    models: Arc<ModelCache>,
}

/// Why a client ended before its run did.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Its files failed it.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its training failed.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The server's recipe cannot be read; the versions differ.
    #[error("the server's recipe cannot be used: {0}")]
    Recipe(#[from] dunlin_core::recipe::RecipeError),
    /// The client's data give another model than the server's.
    #[error(
        "the model for this client's data differs from the server's: check that shapes and classes agree with the recipe"
    )]
    OtherModel,
    /// The recipe has no clients of this width.
    #[error("--width is {width}; the recipe has clients of width {known}")]
    UnknownWidth {
        /// The client's width.
        width: Width,
        /// Those of the recipe.
        known: String,
    },
    /// The model has no smaller models within it.
    #[error("the server's recipe cannot be used: {0}")]
    NoSlices(#[from] NoSlices),
    /// The server refused the client for good.
    #[error("the server refused client {client}: {reject}")]
    Refused {
        /// The client.
        client: ClientId,
        /// Why.
        reject: Reject,
    },
    /// The server and the client speak other protocols.
    #[error(transparent)]
    OtherProtocol(JoinRefused),
    /// The fetched model is wrong although nothing held went into it.
    #[error("the server's model {version} does not agree with its own digest")]
    WrongModel {
        /// The version.
        version: ModelVersion,
    },
}

impl ClientError {
    /// The key of the recipe whose value is to blame, where one is.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Work(error) => error.key(),
            Self::NoSlices(_) => Some("size.width"),
            _ => None,
        }
    }
}

impl From<TrainerError> for ClientError {
    fn from(error: TrainerError) -> Self {
        Self::Work(WorkError::Trainer(error))
    }
}

impl Shared {
    /// What `threads` computing clients of one process share.
    #[must_use]
    pub fn new(prepare: Box<Prepare>, models: ModelCache, threads: usize) -> Arc<Self> {
        Self::telling(Box::new(|_| {}), prepare, models, threads)
    }

    /// The same for clients that tell what happens to them.
    #[must_use]
    pub fn telling(tell: Box<Tell>, prepare: Box<Prepare>, models: ModelCache, threads: usize) -> Arc<Self> {
        let compute = Arc::new(Semaphore::new(threads.max(1)));
        Arc::new(Self { tell, prepare, models: Arc::new(models), compute, prepared: Mutex::new(None) })
    }

    fn prepared(&self, welcome: &Welcome, client: &ClientId) -> Result<Arc<Prepared>, ClientError> {
        let mut slot = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_none_or(|(known, _)| known != welcome) {
            let recipe = Arc::new(Recipe::from_toml(&welcome.recipe)?);
            let workplace = (self.prepare)(&recipe)?;
            *slot = Some((welcome.clone(), PreparedRun { recipe, workplace, widths: BTreeMap::new() }));
        }
        let (_, run) = slot.as_mut().expect("it was filled just now");
        let width = run.workplace.width(client);
        if let Some(prepared) = run.widths.get(&width) {
            return Ok(Arc::clone(prepared));
        }
        let prepared = Arc::new(self.prepared_for(welcome, run, width)?);
        run.widths.insert(width, Arc::clone(&prepared));
        Ok(prepared)
    }

    fn prepared_for(&self, welcome: &Welcome, run: &PreparedRun, width: Width) -> Result<Prepared, ClientError> {
        let (recipe, workplace) = (Arc::clone(&run.recipe), Arc::clone(&run.workplace));
        if !recipe.has_width(width) {
            let known: Vec<String> = recipe.widths().map(|known| known.to_string()).collect();
            return Err(ClientError::UnknownWidth { width, known: known.join(", ") });
        }
        let (layout, initial) = workplace.model()?;
        if Digest(layout.digest()) != welcome.layout {
            return Err(ClientError::OtherModel);
        }
        let mut seeded = Vec::new();
        grid::from_f32(&initial, &mut seeded);
        let mut seeded = MaskedGrid::whole(Arc::new(layout.segments()), seeded).map_err(WorkError::Codec)?;
        let slice = Slice::new(&layout, width)?;
        let mut models = Arc::clone(&self.models);
        if let Some(slice) = &slice {
            seeded = slice.of_grid(&seeded);
            models = Arc::new(models.beside(&format!("width-{width}")));
        }
        let whole = seeded.mask().whole();
        let limits = Limits::for_segments(whole);
        models.bind(welcome.run, whole)?;
        Ok(Prepared { recipe, workplace, slice, limits, seeded, models })
    }
}

/// Runs one client until its run ends.
///
/// # Errors
/// When the client's own data, files or training fail, or the server refuses it for good. A server that cannot be
/// reached is none: it is tried again, with growing pauses.
pub async fn run(
    client: ClientId,
    mut state: Box<dyn ClientState>,
    mut transport: Transport,
    shared: Arc<Shared>,
    wait_ms: u64,
) -> Result<End, ClientError> {
    let mut participant = Participant::new(client.clone(), state.token()?, wait_ms);
    let mut prepared = None;
    let mut told_of_holder = false;
    loop {
        let event = match participant.action() {
            Action::Join(join) => {
                let answer = match transport.join(&join).await {
                    Ok(Err(refused @ JoinRefused { reject: Reject::ProtocolTooOld | Reject::ProtocolTooNew, .. })) => {
                        return Err(ClientError::OtherProtocol(refused));
                    }
                    answer => answer.map(|welcome| welcome.map_err(|refused| refused.reject)),
                };
                if matches!(answer, Ok(Err(Reject::WrongSession))) && !std::mem::replace(&mut told_of_holder, true) {
                    warn!(
                        client = %client,
                        "another client holds this name: waiting until it has been silent for rounds.idle_timeout_s; \
                         give each client its own --id, and a --state-dir to be known again after a restart"
                    );
                }
                answered(&client, answer, Event::Joined)
            }
            Action::Prepare(welcome) => {
                let (run, name, process) = (welcome.run, client.clone(), shared.clone());
                let (ready, examples) = blocking(move || {
                    let prepared = process.prepared(&welcome, &name)?;
                    let examples = prepared.workplace.examples(&name)?;
                    Ok::<_, ClientError>((prepared, examples))
                })
                .await?;
                state.bind(run)?;
                let held = state.held().filter(|&version| ready.models.reclaim(version));
                let width = ready.slice.as_ref().map_or(Width::WHOLE, Slice::width);
                prepared = Some(ready);
                info!(client = %client, %run, examples, %width, "joined");
                (shared.tell)(&Told::Joined { client: &client, run: run.to_string(), examples, width });
                Event::Ready { examples, width, held, pending: state.pending().cloned() }
            }
            Action::CheckIn(check_in) => answered(&client, transport.check_in(&check_in).await, Event::Assigned),
            Action::Fetch(fetch) => fetch_model(&fetch, &mut *state, &mut transport, needed(&prepared)).await?,
            Action::Train(task) => {
                let session = participant.session().expect("a client that trains has joined");
                let report = transport.clone();
                let prepared = needed(&prepared).clone();
                match train(&client, &task, (&mut *state, &shared, prepared), (report, session)).await? {
                    Some(update) => {
                        let header = update.header.clone();
                        state.keep(update)?;
                        Event::Trained(header)
                    }
                    None => Event::TrainingStopped,
                }
            }
            Action::AskOffset(session, header) => {
                answered(&client, transport.upload_offset(&session, &header).await, Event::Offset)
            }
            Action::Upload(session, header, offset) => {
                let frame: Bytes = state.pending_frame()?;
                let answer = transport.upload(&session, &header, &frame, offset).await;
                answered(&client, answer, Event::Uploaded)
            }
            Action::Commit(header) => {
                budget::account(&needed(&prepared).recipe, &mut *state)?;
                state.commit()?;
                info!(client = %client, round = header.round.number, bytes = header.frame_len, "update accepted");
                let (round, bytes) = (header.round.number, header.frame_len);
                (shared.tell)(&Told::Accepted { client: &client, round, bytes });
                Event::Done
            }
            Action::Abandon(header, reject) => {
                budget::account(&needed(&prepared).recipe, &mut *state)?;
                state.abandon()?;
                warn!(client = %client, round = header.round.number, reject = reject.label(), "update refused: {reject}");
                let (round, reason) = (header.round.number, reject.label());
                (shared.tell)(&Told::Refused { client: &client, round, reason });
                Event::Done
            }
            Action::Evaluate(task) => {
                Event::Evaluated(evaluate(&client, task, &shared, needed(&prepared).clone()).await?)
            }
            Action::Report(session, report) => {
                answered(&client, transport.report(&session, &report).await, Event::Reported)
            }
            Action::Pause { ms, reason } => {
                debug!(client = %client, ms, reason = reason.label(), "waiting");
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Event::Done
            }
            Action::BackOff { failures } => {
                tokio::time::sleep(back_off(failures, rand::random())).await;
                Event::Done
            }
            Action::Stop(End::Refused(reject)) => return Err(ClientError::Refused { client, reject }),
            Action::Stop(end @ End::Finished(outcome)) => {
                (shared.tell)(&Told::Ended { client: &client, outcome: outcome.label() });
                return Ok(end);
            }
        };
        participant.on(event);
    }
}

/// Pause before the call after `failures` failed ones: doubling from 100 ms to 20 s, of which a random half is taken
/// off so that clients which lost the same server do not return in step.
fn back_off(failures: u32, random: f64) -> Duration {
    let full = 100.0 * f64::from(2u32.pow(failures.saturating_sub(1).min(8)));
    Duration::from_secs_f64(full.min(20_000.0) * (0.5 + random / 2.0) / 1000.0)
}

fn needed(prepared: &Option<Arc<Prepared>>) -> &Arc<Prepared> {
    prepared.as_ref().expect("a client prepares before it is given work")
}

fn answered<T>(client: &ClientId, answer: Answer<T>, event: impl FnOnce(Result<T, Reject>) -> Event) -> Event {
    match answer {
        Ok(answer) => event(answer),
        Err(error) => disconnected(client, &error),
    }
}

fn disconnected(client: &ClientId, error: &Disconnected) -> Event {
    warn!(client = %client, "the server cannot be reached: {error}");
    Event::Disconnected
}

async fn blocking<T: Send + 'static>(task: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(task).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn fetch_model(
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
async fn train(
    client: &ClientId,
    task: &TrainTask,
    (state, shared, prepared): (&mut dyn ClientState, &Arc<Shared>, Arc<Prepared>),
    (mut report, session): (Transport, dunlin_core::message::Session),
) -> Result<Option<Update>, ClientError> {
    let permit = shared.compute.clone().acquire_owned().await.expect("the semaphore is never closed");
    let base = prepared.models.get(task.base).expect("a model that was just fetched is held");
    let task = budget::within(&prepared.recipe, state.spent(), task);
    let residual =
        if prepared.recipe.uplink.feedback > 0.0 { state.residual(prepared.seeded.mask().whole())? } else { None };
    let steps = Arc::new((AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false)));
    let job = {
        let (steps, task, client) = (steps.clone(), task.clone(), client.clone());
        move || {
            let _permit = permit;
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
    let mut training = std::pin::pin!(blocking(job));
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

async fn evaluate(
    client: &ClientId,
    task: EvaluationTask,
    shared: &Arc<Shared>,
    prepared: Arc<Prepared>,
) -> Result<EvaluationReport, ClientError> {
    let permit = shared.compute.clone().acquire_owned().await.expect("the semaphore is never closed");
    let model = prepared.models.get(task.version).expect("a model that was just fetched is held");
    let client = client.clone();
    let result: Result<Evaluation, TrainerError> = blocking(move || {
        let _permit = permit;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_keep_half_of_it_at_least() {
        assert_eq!(back_off(1, 0.0), Duration::from_millis(50));
        assert_eq!(back_off(1, 1.0), Duration::from_millis(100));
        assert_eq!(back_off(3, 1.0), Duration::from_millis(400));
        assert_eq!(back_off(40, 1.0), Duration::from_millis(20_000));
    }
}

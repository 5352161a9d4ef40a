//! The clients' training on real threads, while simulated time waits only for what is due.

use super::turn::Turn;
use dunlin_client::driver::Workplace;
use dunlin_client::state::{ClientState, DirectoryState, StateError, budget};
use dunlin_client::work::{self, Assignment, Update, WorkError};
use dunlin_codec::{Encoder, MaskedGrid};
use dunlin_core::message::TrainTask;
use dunlin_core::{ClientId, Digest, Recipe, Reject, RunId, Timestamp};
use dunlin_nn::small::Slice;
use dunlin_nn::train::Evaluation;
use dunlin_server::vet::{Rules, Vetted};
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A client's work, ordered by the simulated time at which it ends: what is needed first is done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    /// When its result is due.
    pub(super) due: Timestamp,
    /// Its place among what is due at the same time.
    pub(super) turn: Turn,
    /// Tells a client's own apart.
    pub(super) number: u64,
}

/// What a client computes.
pub(super) struct Job {
    pub(super) client: ClientId,
    /// The part of the model that it has; nothing for the whole.
    pub(super) slice: Option<Arc<Slice>>,
    /// The broadcast model, or that part of it.
    pub(super) model: Arc<MaskedGrid>,
    /// What its update is held against.
    pub(super) rules: Arc<Rules>,
    pub(super) task: Task,
}

/// See [`Job`].
pub(super) enum Task {
    Train(TrainTask),
    Evaluate,
}

/// What came of a job.
pub(super) enum Done {
    /// An update, which lies in the client's state where there is one, and the server's verdict on its frame.
    Trained(Box<Update>, Result<Vetted, Reject>),
    /// No update: the client's budget has too little room for one, in this round or for good.
    OutOfBytes {
        /// Which of both.
        for_good: bool,
    },
    /// The sums of an evaluation.
    Evaluated(Evaluation),
}

/// What all jobs share.
pub(super) struct Bench {
    pub(super) recipe: Recipe,
    pub(super) workplace: Arc<dyn Workplace>,
    pub(super) run: RunId,
    /// Where residuals and accounts of bytes lie; nothing where there are neither.
    pub(super) state_dir: Option<PathBuf>,
}

impl Bench {
    /// A client's state on disk, opened for as long as it is used: an idle client costs neither memory nor a file handle.
    pub(super) fn state(&self, client: &ClientId) -> Result<Option<DirectoryState>, StateError> {
        let Some(dir) = &self.state_dir else { return Ok(None) };
        let mut state = DirectoryState::scratch(&dir.join(client.as_str()))?;
        state.bind(self.run)?;
        Ok(Some(state))
    }

    fn perform(&self, job: &Job, encoder: &mut Encoder) -> Result<Done, WorkError> {
        let mut trainer = self.workplace.trainer(&job.client)?;
        let task = match &job.task {
            Task::Train(task) => task,
            Task::Evaluate => {
                let params = Slice::whole_floats(job.slice.as_deref(), &job.model);
                return Ok(Done::Evaluated(trainer.evaluate(&params)?));
            }
        };
        let failed = |error: StateError| WorkError::Trainer(dunlin_client::trainer::TrainerError::Failed(error.into()));
        let mut state = self.state(&job.client).map_err(failed)?;
        let spent = state.as_ref().map_or(0, ClientState::spent);
        let asked = task;
        let Some(task) = &budget::within(&self.recipe, spent, asked) else {
            return Ok(Done::OutOfBytes { for_good: true });
        };
        let residual =
            state.as_mut().map_or(Ok(None), |state| state.residual(job.model.mask().whole())).map_err(failed)?;
        let assignment = Assignment {
            client: &job.client,
            task,
            recipe: &self.recipe,
            slice: job.slice.as_deref(),
            base: &job.model,
            residual: residual.as_deref(),
            digest: if state.is_some() { Digest::of } else { digest_of_checksum },
        };
        let go_on = &mut |_, _| ControlFlow::Continue(());
        let mut update = match work::train_and_encode(&assignment, &mut *trainer, encoder, go_on) {
            Ok(update) => update,
            Err(error) => {
                let used_up = budget::used_up(&self.recipe, spent, &error, asked, task);
                return used_up.map(|for_good| Done::OutOfBytes { for_good }).ok_or(error);
            }
        };
        drop(residual);
        // These very bytes are what its header is about.
        let verdict = job.rules.vet_frame(&update.frame);
        if let Some(state) = &mut state {
            let frame = update.frame.clone();
            let kept = Update { residual: update.residual.take(), ..update };
            update = Update { header: kept.header.clone(), frame, residual: None, stages: kept.stages };
            state.keep(kept).map_err(failed)?;
        }
        Ok(Done::Trained(Box::new(update), verdict))
    }
}

/// Tells frames of a client apart by the checksums that they end with, where no byte of them can get lost: a digest of
/// every update as f32 would be a fifth of a round's time.
fn digest_of_checksum(frame: &[u8]) -> Digest {
    Digest::of(frame.last_chunk::<4>().map_or(frame, |checksum| checksum))
}

/// A queue of jobs and the threads that work on it.
pub(super) struct Pool<'a> {
    bench: &'a Bench,
    state: Mutex<State>,
    /// There may be something to do, or the end.
    work: Condvar,
    /// A job has been done.
    done: Condvar,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<Ticket, Job>,
    running: BTreeSet<Ticket>,
    finished: BTreeMap<Ticket, Outcome>,
    /// Bytes of the frames that wait to be taken.
    held_bytes: usize,
    /// The one that simulated time waits for.
    urgent: Option<Ticket>,
    cancelled: BTreeSet<Ticket>,
    closed: bool,
}

/// A job's result, or what it panicked with.
type Outcome = Result<Result<Done, WorkError>, Box<dyn Any + Send>>;

impl<'a> Pool<'a> {
    pub(super) fn new(bench: &'a Bench) -> Self {
        Self { bench, state: Mutex::default(), work: Condvar::new(), done: Condvar::new() }
    }

    /// Takes a job; its result is there for [`Self::take`] from now on, or will be.
    pub(super) fn submit(&self, ticket: Ticket, job: Job) {
        self.lock().waiting.insert(ticket, job);
        self.work.notify_one();
    }

    /// Waits for a job's result.
    pub(super) fn take(&self, ticket: Ticket) -> Result<Done, WorkError> {
        let mut state = self.lock();
        let outcome = loop {
            if let Some(outcome) = state.finished.remove(&ticket) {
                break outcome;
            }
            if state.urgent.is_none() {
                state.urgent = Some(ticket);
                self.work.notify_all();
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        };
        state.urgent = None;
        state.held_bytes -= frame_bytes(&outcome);
        drop(state);
        self.work.notify_all();
        outcome.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Forgets a job that nobody will ask for.
    pub(super) fn cancel(&self, ticket: Ticket) {
        let mut state = self.lock();
        state.waiting.remove(&ticket);
        if let Some(outcome) = state.finished.remove(&ticket) {
            state.held_bytes -= frame_bytes(&outcome);
        }
        if state.running.contains(&ticket) {
            state.cancelled.insert(ticket);
        }
    }

    /// Works until the pool is closed.
    pub(super) fn work(&self) {
        let mut encoder = Encoder::new();
        let mut state = self.lock();
        while !state.closed {
            let Some((ticket, job)) = state.next() else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.running.insert(ticket);
            drop(state);
            let outcome = catch_unwind(AssertUnwindSafe(|| self.bench.perform(&job, &mut encoder)));
            drop(job);
            state = self.lock();
            state.running.remove(&ticket);
            if !state.cancelled.remove(&ticket) {
                state.held_bytes += frame_bytes(&outcome);
                state.finished.insert(ticket, outcome);
                self.done.notify_one();
            }
        }
    }

    /// Closes the pool when the value is dropped, also by a panic, so that its threads end.
    pub(super) fn closing(&self) -> Closing<'_, 'a> {
        Closing(self)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No statement that can panic leaves the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The job to do next, unless the frames that nobody has taken yet fill their room.
    fn next(&mut self) -> Option<(Ticket, Job)> {
        if let Some(ticket) = self.urgent
            && let Some(job) = self.waiting.remove(&ticket)
        {
            return Some((ticket, job));
        }
        if self.held_bytes >= MAX_HELD_BYTES {
            return None;
        }
        self.waiting.pop_first()
    }
}

/// See [`Pool::closing`].
pub(super) struct Closing<'p, 'a>(&'p Pool<'a>);

impl Drop for Closing<'_, '_> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.work.notify_all();
    }
}

fn frame_bytes(outcome: &Outcome) -> usize {
    match outcome {
        Ok(Ok(Done::Trained(update, verdict))) => update.frame.len() + verdict.as_ref().map_or(0, Vetted::bytes),
        _ => 0,
    }
}

/// Room for the frames of updates whose simulated end has not come: ten dense ones of a million parameters.
const MAX_HELD_BYTES: usize = 40 << 20;

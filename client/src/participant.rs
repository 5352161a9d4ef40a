//! What a client does next: a plain value, without clock, sockets or threads.
//!
//! Its driver carries out one [`Action`] at a time and answers with one [`Event`]. An update that was trained is never
//! lost to a dropped link, a restarted server or the client's own crash: it stays pending until the server has either
//! acknowledged or refused it, and only an acknowledgement commits the residual that goes with it.

use dunlin_core::message::{
    Assignment, CheckIn, EvaluationReport, EvaluationTask, FetchModel, Join, PROTOCOL, Session, TrainTask,
    UpdateHeader, Welcome,
};
use dunlin_core::recipe::Width;
use dunlin_core::wire::{Held, Uploaded};
use dunlin_core::{ClientId, ModelVersion, Outcome, Reject, RunId, Token, Waiting};

/// A client's protocol state.
#[derive(Debug)]
pub struct Participant {
    client: ClientId,
    token: Token,
    wait_ms: u64,
    run: Option<RunId>,
    examples: u32,
    width: Width,
    held: Option<ModelVersion>,
    pending: Option<UpdateHeader>,
    /// A round that no update will be sent for.
    declines: Option<u64>,
    step: Step,
    /// Calls that failed in a row; what the pause before the next one grows with.
    failures: u32,
    backing_off: bool,
    /// Times that the pending update's upload was begun again because its bytes went astray.
    upload_retries: u32,
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Call the server.
    Join(Join),
    /// Load the recipe's data and model; then [`Event::Ready`].
    Prepare(Welcome),
    /// Call the server.
    CheckIn(CheckIn),
    /// Fetch a model version and keep it.
    Fetch(FetchModel),
    /// Train, encode, and keep the update with its residual as pending.
    Train(TrainTask),
    /// Ask how much of the pending update the server holds.
    AskOffset(Session, UpdateHeader),
    /// Upload the pending update from this offset on.
    Upload(Session, UpdateHeader, u64),
    /// The pending update counts: its residual becomes the client's; forget the update.
    Commit(UpdateHeader),
    /// The pending update will never count: forget it and keep the old residual.
    Abandon(UpdateHeader, Reject),
    /// Evaluate the held model on the client's own data.
    Evaluate(EvaluationTask),
    /// Deliver an evaluation.
    Report(Session, EvaluationReport),
    /// Wait for a server that has no work.
    Pause {
        /// How long, in milliseconds.
        ms: u64,
        /// What for.
        reason: Waiting,
    },
    /// Wait before calling again after so many calls in a row that failed.
    BackOff {
        /// Failed calls in a row, from 1.
        failures: u32,
    },
    /// The client is done.
    Stop(End),
}

/// How a client's part ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The run is over.
    Finished(Outcome),
    /// The server will not have this client.
    Refused(Reject),
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Answer to [`Action::Join`].
    Joined(Result<Welcome, Reject>),
    /// Data and model are loaded: so many training examples.
    Ready {
        /// Training examples at hand.
        examples: u32,
        /// How much of the model the client has.
        width: Width,
        /// Version of the model that was kept from before, if it is of this run.
        held: Option<ModelVersion>,
        /// Update that was kept from before, if it is of this run.
        pending: Option<UpdateHeader>,
    },
    /// Answer to [`Action::CheckIn`].
    Assigned(Result<Assignment, Reject>),
    /// Answer to [`Action::Fetch`].
    Fetched(Result<ModelVersion, Reject>),
    /// The fetched model is not what its digest says, so what was held is wrong.
    Drifted,
    /// The update is kept as pending.
    Trained(UpdateHeader),
    /// Training was broken off because the round is over.
    TrainingStopped,
    /// The client's budget of bytes has no room for an update in this round, or for good.
    OutOfBytes {
        /// Whether there will never be any.
        for_good: bool,
    },
    /// Answer to [`Action::AskOffset`].
    Offset(Result<Held, Reject>),
    /// Answer to [`Action::Upload`].
    Uploaded(Result<Uploaded, Reject>),
    /// The model was evaluated.
    Evaluated(EvaluationReport),
    /// Answer to [`Action::Report`].
    Reported(Result<(), Reject>),
    /// What the action asked for without an answer is done.
    Done,
    /// The call did not get through.
    Disconnected,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Join,
    Prepare(Welcome),
    CheckIn,
    Fetch(Work),
    Train(TrainTask),
    AskOffset,
    Upload(u64),
    Commit,
    Abandon(Reject),
    Evaluate(EvaluationTask),
    Report(EvaluationReport),
    Pause(u64, Waiting, Box<Self>),
    Stop(End),
}

/// An assignment that needs a model.
#[derive(Clone, Debug, PartialEq)]
enum Work {
    Train(TrainTask),
    Evaluate(EvaluationTask),
}

impl Participant {
    /// A client that lets the server hold its check-ins for `wait_ms` milliseconds.
    #[must_use]
    pub fn new(client: ClientId, token: Token, wait_ms: u64) -> Self {
        Self {
            client,
            token,
            wait_ms,
            run: None,
            examples: 0,
            width: Width::WHOLE,
            held: None,
            pending: None,
            declines: None,
            step: Step::Join,
            failures: 0,
            backing_off: false,
            upload_retries: 0,
        }
    }

    /// What to do now.
    ///
    /// # Panics
    /// Never: each step that speaks of a session or an update comes after the one that gave it.
    #[must_use]
    pub fn action(&self) -> Action {
        if self.backing_off {
            return Action::BackOff { failures: self.failures };
        }
        self.due()
    }

    /// The name of the client.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        &self.client
    }

    /// The session, once joined.
    #[must_use]
    pub fn session(&self) -> Option<Session> {
        Some(Session { run: self.run?, client: self.client.clone(), token: self.token })
    }

    /// Takes in what came of the last action.
    ///
    /// An event that does not belong to the last action changes nothing.
    pub fn on(&mut self, event: Event) {
        if event == Event::Disconnected {
            self.failures += 1;
            self.backing_off = true;
            // Part of the upload may have arrived.
            if let Step::Upload(_) = self.step {
                self.step = Step::AskOffset;
            }
            return;
        }
        if self.backing_off {
            self.backing_off = event != Event::Done;
            return;
        }
        self.failures = 0;
        self.step = match (self.step.clone(), event) {
            (Step::Join, Event::Joined(Ok(welcome))) => {
                self.run = Some(welcome.run);
                Step::Prepare(welcome)
            }
            (Step::Join, Event::Joined(Err(reject))) => match reject {
                // The name frees itself when its old session has been silent long enough.
                Reject::WrongSession => Step::Pause(JOIN_RETRY_MS, Waiting::Busy, Box::new(Step::Join)),
                _ => Step::Stop(End::Refused(reject)),
            },
            (Step::Prepare(_), Event::Ready { examples, width, held, pending }) => {
                self.examples = examples;
                self.width = width;
                self.held = held;
                self.pending = pending;
                // Of another run, if of any.
                self.declines = None;
                if self.pending.is_some() { Step::AskOffset } else { Step::CheckIn }
            }
            (Step::CheckIn, Event::Assigned(Ok(assignment))) => self.assigned(assignment),
            (Step::CheckIn, Event::Assigned(Err(reject))) => rejoin_or(reject, Step::Stop(End::Refused(reject))),
            (Step::Fetch(work), Event::Fetched(Ok(version))) => {
                self.held = Some(version);
                self.begin(work)
            }
            // The version is gone already: another round runs.
            (Step::Fetch(_), Event::Fetched(Err(reject))) => rejoin_or(reject, Step::CheckIn),
            (Step::Fetch(work), Event::Drifted) => {
                self.held = None;
                Step::Fetch(work)
            }
            (Step::Train(_), Event::Trained(header)) => {
                self.pending = Some(header);
                Step::Upload(0)
            }
            (Step::Train(_), Event::TrainingStopped) => Step::CheckIn,
            (Step::Train(task), Event::OutOfBytes { for_good }) => {
                self.declines = Some(task.round.number);
                if for_good {
                    // Whoever offers no examples is not asked.
                    self.examples = 0;
                }
                Step::CheckIn
            }
            (Step::AskOffset, Event::Offset(Ok(Held::Offset(offset)))) => Step::Upload(offset),
            (Step::AskOffset, Event::Offset(Ok(Held::Receipt(_)))) => Step::Commit,
            (Step::AskOffset, Event::Offset(Err(reject))) => self.upload_refused(reject),
            (Step::Upload(_), Event::Uploaded(Ok(Uploaded::Receipt(_)))) => Step::Commit,
            (Step::Upload(_), Event::Uploaded(Ok(Uploaded::Retry(reason, ms)))) => {
                Step::Pause(ms, reason, Box::new(Step::AskOffset))
            }
            (Step::Upload(_), Event::Uploaded(Err(reject))) => self.upload_refused(reject),
            (Step::Commit | Step::Abandon(_), Event::Done) => {
                self.pending = None;
                self.upload_retries = 0;
                Step::CheckIn
            }
            (Step::Evaluate(_), Event::Evaluated(report)) => Step::Report(report),
            (Step::Report(_), Event::Reported(Ok(()))) => Step::CheckIn,
            (Step::Report(_), Event::Reported(Err(reject))) => rejoin_or(reject, Step::CheckIn),
            (Step::Pause(_, _, next), Event::Done) => *next,
            (step, _) => step,
        };
    }

    fn assigned(&self, assignment: Assignment) -> Step {
        match assignment {
            Assignment::Train(task) => self.begin(Work::Train(task)),
            Assignment::Evaluate(task) => self.begin(Work::Evaluate(task)),
            Assignment::Wait { reason, retry_after_ms } => Step::Pause(retry_after_ms, reason, Box::new(Step::CheckIn)),
            Assignment::Finished { outcome, .. } => Step::Stop(End::Finished(outcome)),
        }
    }

    fn begin(&self, work: Work) -> Step {
        if self.held != Some(work.version()) {
            return Step::Fetch(work);
        }
        match work {
            Work::Train(task) => Step::Train(task),
            Work::Evaluate(task) => Step::Evaluate(task),
        }
    }

    fn upload_refused(&mut self, reject: Reject) -> Step {
        self.upload_retries += 1;
        match reject {
            // Bytes were mangled or misplaced on the way, or the first sending is being stored: ask and go on.
            Reject::WrongOffset | Reject::WrongDigest | Reject::Duplicate
                if self.upload_retries <= MAX_UPLOAD_RETRIES =>
            {
                Step::Pause(UPLOAD_RETRY_MS, Waiting::Busy, Box::new(Step::AskOffset))
            }
            _ => rejoin_or(reject, Step::Abandon(reject)),
        }
    }

    fn due(&self) -> Action {
        let session = || self.session().expect("a step after the join has a session");
        let pending = || self.pending.clone().expect("a step of an upload has a pending update");
        match &self.step {
            Step::Join => Action::Join(Join { protocol: PROTOCOL, client: self.client.clone(), token: self.token }),
            Step::Prepare(welcome) => Action::Prepare(welcome.clone()),
            Step::CheckIn => Action::CheckIn(CheckIn {
                session: session(),
                examples: self.examples,
                width: self.width,
                held: self.held,
                wait_ms: self.wait_ms,
                declines: self.declines,
            }),
            Step::Fetch(work) => {
                Action::Fetch(FetchModel { session: session(), held: self.held, wanted: work.version() })
            }
            Step::Train(task) => Action::Train(task.clone()),
            Step::AskOffset => Action::AskOffset(session(), pending()),
            Step::Upload(offset) => Action::Upload(session(), pending(), *offset),
            Step::Commit => Action::Commit(pending()),
            Step::Abandon(reject) => Action::Abandon(pending(), *reject),
            Step::Evaluate(task) => Action::Evaluate(*task),
            Step::Report(report) => Action::Report(session(), *report),
            Step::Pause(ms, reason, _) => Action::Pause { ms: *ms, reason: *reason },
            Step::Stop(end) => Action::Stop(*end),
        }
    }
}

impl Work {
    fn version(&self) -> ModelVersion {
        match self {
            Self::Train(task) => task.base,
            Self::Evaluate(task) => task.version,
        }
    }
}

fn rejoin_or(reject: Reject, step: Step) -> Step {
    match reject {
        // The server forgot us: another run, or another data directory.
        Reject::UnknownRun | Reject::UnknownClient => Step::Join,
        // Somebody took the name while we were silent: the join waits until it is free again.
        Reject::WrongSession => Step::Join,
        _ => step,
    }
}

/// Pause before joining again under a name that another session holds, in milliseconds.
const JOIN_RETRY_MS: u64 = 2000;

/// Times that the upload of one update is begun again before it is given up.
const MAX_UPLOAD_RETRIES: u32 = 10;

/// Pause before asking about an upload again, in milliseconds.
const UPLOAD_RETRY_MS: u64 = 100;

#[cfg(test)]
mod tests;

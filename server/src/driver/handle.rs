//! The way to the engine's thread: a question, and the answer that leaves once what it rests on is durable.

use super::{Command, OfferedUpdate, Reply, RunEvent, SharedState, Status, lock};
use crate::broadcast::Broadcast;
use crate::coordinator::Advance;
use crate::store::RunRow;
use crate::vet::{Rules, Vetted};
use bytes::Bytes;
use crossbeam_channel::{Sender, TrySendError};
use dunlin_codec::StageBytes;
use dunlin_core::message::{Assignment, CheckIn, EvaluationReport, Join, Receipt, Session, UpdateHeader, Welcome};
use dunlin_core::recipe::Width;
use dunlin_core::report::Report;
use dunlin_core::{Reject, RoundId, Waiting};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// The way to the engine's thread.
#[derive(Clone)]
pub struct Handle {
    pub(super) commands: Sender<Command>,
    pub(super) broadcast: watch::Receiver<Arc<Broadcast>>,
    pub(super) rules: watch::Receiver<Arc<Rules>>,
    pub(super) shared: Arc<SharedState>,
    pub(super) changed: watch::Receiver<usize>,
}

impl Handle {
    /// The version handed out now.
    #[must_use]
    pub fn broadcast(&self) -> Arc<Broadcast> {
        Arc::clone(&self.broadcast.borrow())
    }

    /// What received frames are held against.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.borrow())
    }

    /// Counts frame bytes that arrived.
    pub fn count_upload(&self, bytes: u64) {
        self.shared.up.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts time that went into vetting a frame.
    pub fn count_vetting(&self, took: Duration) {
        self.shared.vetting_ns.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Counts a download that begins.
    pub fn count_download(&self, stages: StageBytes) {
        lock(&self.shared.downloads).push(stages);
    }

    /// See [`crate::coordinator::Coordinator::join`].
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn join(&self, join: Join) -> Result<Result<Welcome, Reject>, NoAnswer> {
        self.ask(|reply| Command::Join(join, reply)).await
    }

    /// Tells a client what to do, after up to `wait_ms` if there is nothing yet.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn check_in(&self, check_in: CheckIn) -> Result<Result<Assignment, Reject>, NoAnswer> {
        self.ask(|reply| Command::CheckIn(check_in, reply)).await
    }

    /// See [`crate::coordinator::Coordinator::authenticate`]; answers how much of the model the client has.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn authenticate(&self, session: Session) -> Result<Result<Width, Reject>, NoAnswer> {
        self.ask(|reply| Command::Authenticate(session, reply)).await
    }

    /// See [`crate::coordinator::Coordinator::progress`].
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn progress(
        &self,
        session: Session,
        round: RoundId,
        advance: Advance,
    ) -> Result<Result<(), Reject>, NoAnswer> {
        self.ask(|reply| Command::Progress(session, round, advance, reply)).await
    }

    /// See [`crate::coordinator::Coordinator::announce`].
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn announce(
        &self,
        session: Session,
        header: UpdateHeader,
    ) -> Result<Result<Option<Receipt>, Reject>, NoAnswer> {
        self.ask(|reply| Command::Announce(session, header, reply)).await
    }

    /// Offers a vetted update; the receipt comes when it is durable.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn offer(
        &self,
        session: Session,
        header: UpdateHeader,
        frame: Bytes,
        vetted: Vetted,
    ) -> Result<Result<Receipt, Reject>, NoAnswer> {
        self.ask(|reply| Command::Offer(Box::new(OfferedUpdate { session, header, frame, vetted, reply }))).await
    }

    /// Notes a message that was refused before it reached the engine: whose it was where that is clear, and for which
    /// round where it was an update.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn refused(&self, who: Option<(Session, Option<RoundId>)>, reject: Reject) -> Result<(), NoAnswer> {
        self.ask(|reply| Command::Refused(who, reject, reply)).await
    }

    /// See [`crate::coordinator::Coordinator::evaluated`].
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn evaluated(&self, session: Session, report: EvaluationReport) -> Result<Result<(), Reject>, NoAnswer> {
        self.ask(|reply| Command::Evaluated(session, report, reply)).await
    }

    /// The state of the run.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn status(&self) -> Result<Status, NoAnswer> {
        self.ask(Command::Status).await
    }

    /// All runs in the store.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn runs(&self) -> Result<Vec<RunRow>, NoAnswer> {
        self.ask(Command::Runs).await
    }

    /// Ends the run.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn stop(&self) -> Result<(), NoAnswer> {
        self.ask(Command::Stop).await
    }

    /// The `index`-th event of the run, when it has happened; nothing when the engine has ended before.
    pub async fn event(&self, index: usize) -> Option<RunEvent> {
        let mut changed = self.changed.clone();
        loop {
            changed.borrow_and_update();
            if let Some(event) = lock(&self.shared.events).get(index) {
                return Some(event.clone());
            }
            changed.changed().await.ok()?;
        }
    }

    /// The report, when the run has ended; nothing when the engine has ended before.
    pub async fn report(&self) -> Option<Report> {
        let mut index = 0;
        loop {
            match self.event(index).await? {
                RunEvent::Report(report) => return Some(*report),
                RunEvent::Round(_) => index += 1,
            }
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        match self.commands.try_send(command(reply)) {
            Ok(()) => answer.await.map_err(|_| NoAnswer::Gone),
            Err(TrySendError::Full(_)) => Err(NoAnswer::Busy),
            Err(TrySendError::Disconnected(_)) => Err(NoAnswer::Gone),
        }
    }
}

/// Why a command got no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The channel is full: try again.
    Busy,
    /// The engine has failed or ended.
    Gone,
}

impl NoAnswer {
    /// What a client is told, and after how many milliseconds it may try again.
    #[must_use]
    pub const fn waiting(self) -> (Waiting, u64) {
        (Waiting::Busy, BUSY_RETRY_MS)
    }
}

/// Pause that a client is asked for when the channel is full, in milliseconds.
const BUSY_RETRY_MS: u64 = 250;

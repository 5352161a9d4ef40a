//! One plain thread owns the engine; everything else talks to it through one bounded channel.
//!
//! Whatever arrived while the disk was busy is decided together and shares the next disk sync. Answers leave after it.
//! A full channel is an honest "busy, retry".

mod handle;

pub use handle::{Handle, NoAnswer};

use crate::broadcast::Broadcast;
use crate::coordinator::{Advance, Offer, StatusView};
use crate::distill::{Done, by_tenths};
use crate::engine::{Engine, EngineError, Settled, Timings};
use crate::store::RunRow;
use crate::vet::{Rules, Vetted};
use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvError, Sender, bounded, select};
use dunlin_codec::StageBytes;
use dunlin_core::message::{Assignment, CheckIn, EvaluationReport, Join, Receipt, Session, UpdateHeader, Welcome};
use dunlin_core::recipe::Width;
use dunlin_core::report::{Report, RoundSummary};
use dunlin_core::{ClientId, Outcome, Reject, RoundId, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{oneshot, watch};

/// Where the answer to a command goes.
type Reply<T> = oneshot::Sender<T>;

enum Command {
    Join(Join, Reply<Result<Welcome, Reject>>),
    CheckIn(CheckIn, Reply<Result<Assignment, Reject>>),
    Authenticate(Session, Reply<Result<Width, Reject>>),
    Progress(Session, RoundId, Advance, Reply<Result<(), Reject>>),
    Announce(Session, UpdateHeader, Reply<Result<Option<Receipt>, Reject>>),
    Offer(Box<OfferedUpdate>),
    Refused(Option<(Session, Option<RoundId>)>, Reject, Reply<()>),
    Evaluated(Session, EvaluationReport, Reply<Result<(), Reject>>),
    Status(Reply<Status>),
    Runs(Reply<Vec<RunRow>>),
    Stop(Reply<()>),
}

struct OfferedUpdate {
    session: Session,
    header: UpdateHeader,
    frame: Bytes,
    vetted: Vetted,
    reply: Reply<Result<Receipt, Reject>>,
}

/// What status replies and metrics show.
#[derive(Clone, Debug)]
pub struct Status {
    /// The coordinator's state.
    pub view: StatusView,
    /// The run.
    pub run: RunRow,
    /// The last round's summary.
    pub last_round: Option<RoundSummary>,
    /// Sums over all rounds, the one under way included.
    pub bytes: dunlin_core::report::Bytes,
    /// Parameters of the model.
    pub params: u64,
    /// Of them, those that are left.
    pub kept: u64,
    /// Of a distillation under way, the steps made and all of them.
    pub distilling: Option<(u64, u64)>,
    /// Where the server's time went.
    pub timings: Timings,
}

/// What a run tells those who watch it, in order; as JSON, the summary or the report itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RunEvent {
    /// A round ended, or its summary learned more.
    Round(Box<RoundSummary>),
    /// The run ended.
    Report(Box<Report>),
}

#[derive(Default)]
struct SharedState {
    /// Frame bytes received.
    up: AtomicU64,
    /// Time spent on vetting frames, in nanoseconds.
    vetting_ns: AtomicU64,
    /// The downloads begun.
    downloads: Mutex<Vec<StageBytes>>,
    /// Steps made and all steps of a distillation under way.
    distilling: Mutex<Option<(u64, u64)>>,
    events: Mutex<Vec<RunEvent>>,
}

/// The engine's thread; joining it tells how the run ended.
pub struct Driver {
    thread: std::thread::JoinHandle<Result<(), EngineError>>,
}

/// A check-in that is held open.
struct Parked {
    check_in: CheckIn,
    expires: Timestamp,
    reply: Reply<Result<Assignment, Reject>>,
}

struct Worker {
    engine: Engine,
    commands: Receiver<Command>,
    epoch: Instant,
    broadcast: watch::Sender<Arc<Broadcast>>,
    rules: watch::Sender<Arc<Rules>>,
    /// What a distillation on its own thread comes to.
    distilled: (Sender<Done>, Receiver<Done>),
    changed: watch::Sender<usize>,
    shared: Arc<SharedState>,
    parked: Vec<Parked>,
    /// Uploads that wait for the disk.
    offers: BTreeMap<ClientId, Vec<Reply<Result<Receipt, Reject>>>>,
    /// Answers that may leave once what they rest on is durable.
    outbox: Vec<Box<dyn FnOnce() + Send>>,
    asked_generation: u64,
    /// Time in which the thread did not wait.
    busy: Duration,
    run: RunRow,
}

/// Starts the thread of an engine whose timestamps count from `epoch`.
///
/// # Panics
/// When the operating system gives no thread.
#[must_use]
pub fn start(engine: Engine, run: RunRow, epoch: Instant) -> (Driver, Handle) {
    let (sender, commands) = bounded(MAX_QUEUED);
    let (broadcast, broadcast_receiver) = watch::channel(Arc::clone(engine.broadcast()));
    let (rules, rules_receiver) = watch::channel(Arc::clone(engine.rules()));
    let (changed, changed_receiver) = watch::channel(0);
    let shared = Arc::new(SharedState::default());
    let past = engine.summaries().iter().map(|summary| RunEvent::Round(Box::new(summary.clone()))).collect();
    *lock(&shared.events) = past;
    let handle = Handle {
        commands: sender,
        broadcast: broadcast_receiver,
        rules: rules_receiver,
        shared: Arc::clone(&shared),
        changed: changed_receiver,
    };
    let worker = Worker {
        engine,
        commands,
        epoch,
        broadcast,
        rules,
        changed,
        shared,
        distilled: bounded(1),
        parked: Vec::new(),
        offers: BTreeMap::new(),
        outbox: Vec::new(),
        asked_generation: 0,
        busy: Duration::ZERO,
        run,
    };
    let thread = std::thread::Builder::new().name("coordinator".into()).spawn(move || worker.run());
    (Driver { thread: thread.expect("a process can start a thread") }, handle)
}

impl Driver {
    /// Waits until every handle is dropped or the engine fails. Blocks; not for an async worker.
    ///
    /// # Errors
    /// Why the engine failed.
    pub fn join(self) -> Result<(), EngineError> {
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Worker {
    fn run(mut self) -> Result<(), EngineError> {
        // A restart has things to make durable before the first message.
        self.settle()?;
        loop {
            let patience = self.patience();
            let timer;
            select! {
                recv(self.commands) -> received => {
                    timer = Instant::now();
                    match received {
                        Ok(command) => self.take(command),
                        Err(RecvError) => return Ok(()),
                    }
                }
                recv(self.distilled.1) -> done => {
                    timer = Instant::now();
                    // This thread holds the other end.
                    done.map_or(Ok(()), |done| self.engine.distilled(done))?;
                }
                default(patience) => timer = Instant::now(),
            }
            // What else has queued up shares the disk sync.
            while let Ok(command) = self.commands.try_recv() {
                self.take(command);
            }
            let now = self.now();
            if self.engine.coordinator.deadline().is_some_and(|deadline| deadline <= now) {
                self.engine.coordinator.tick(now);
            }
            self.settle()?;
            self.busy += timer.elapsed();
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.epoch.elapsed().as_millis() as u64)
    }

    /// Time until something happens by itself.
    fn patience(&self) -> Duration {
        let now = self.now();
        let parked = self.parked.iter().map(|parked| parked.expires).min();
        let next = [self.engine.coordinator.deadline(), parked].into_iter().flatten().min();
        let ms = next.map_or(MAX_PATIENCE_MS, |next| next.since(now)).min(MAX_PATIENCE_MS);
        Duration::from_millis(ms)
    }

    fn take(&mut self, command: Command) {
        let now = self.now();
        let coordinator = &mut self.engine.coordinator;
        match command {
            Command::Join(join, reply) => {
                let joined = coordinator.join(now, &join.client, join.token);
                let answer = joined.map(|()| self.engine.welcome());
                self.answer(reply, answer);
            }
            Command::CheckIn(check_in, reply) => self.check_in(now, check_in, reply),
            Command::Authenticate(session, reply) => {
                let answer = coordinator.authenticate(now, &session).map(|()| coordinator.width(&session.client));
                self.answer(reply, answer);
            }
            Command::Progress(session, round, advance, reply) => {
                let answer = coordinator.progress(now, &session, round, advance);
                self.answer(reply, answer);
            }
            Command::Announce(session, header, reply) => {
                let answer = coordinator.announce(now, &session, &header);
                self.answer(reply, answer);
            }
            Command::Offer(offered) => {
                let OfferedUpdate { session, header, frame, vetted, reply } = *offered;
                match self.engine.offer(now, &session, &header, (frame, vetted)) {
                    Ok(Offer::Store) => self.offers.entry(header.client).or_default().push(reply),
                    Ok(Offer::Accepted(receipt)) => self.answer(reply, Ok(receipt)),
                    Err(reject) => self.answer(reply, Err(reject)),
                }
            }
            Command::Refused(who, reject, reply) => {
                match who {
                    Some((session, round)) => coordinator.refused(now, &session, round, reject),
                    None => coordinator.refused_anonymous(reject),
                }
                self.answer(reply, ());
            }
            Command::Evaluated(session, report, reply) => {
                let answer = coordinator.evaluated(now, &session, &report);
                self.answer(reply, answer);
            }
            Command::Status(reply) => {
                let status = self.status(now);
                self.answer(reply, status);
            }
            Command::Runs(reply) => match self.engine.runs() {
                Ok(runs) => self.answer(reply, runs),
                Err(error) => tracing::error!(%error, "the runs cannot be listed"),
            },
            Command::Stop(reply) => {
                coordinator.stop(now);
                self.answer(reply, ());
            }
        }
    }

    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, answer: T) {
        // Whoever asked may be gone; then nobody needs the answer.
        self.outbox.push(Box::new(move || drop(reply.send(answer))));
    }

    fn check_in(&mut self, now: Timestamp, check_in: CheckIn, reply: Reply<Result<Assignment, Reject>>) {
        let answer = self.engine.coordinator.check_in(now, &check_in);
        match answer {
            Ok(Assignment::Wait { .. }) if check_in.wait_ms > 0 && self.parked.len() < MAX_PARKED => {
                let expires = now.after_ms(check_in.wait_ms);
                self.parked.push(Parked { check_in, expires, reply });
            }
            answer => self.answer(reply, answer),
        }
    }

    /// Carries out what was decided, answers, and wakes whoever has waited for it; until nothing is left.
    fn settle(&mut self) -> Result<(), EngineError> {
        loop {
            self.engine.count_upload(self.shared.up.swap(0, Ordering::Relaxed));
            for stages in std::mem::take(&mut *lock(&self.shared.downloads)) {
                self.engine.count_download(stages);
            }
            let epoch = self.epoch;
            let settled = self.engine.settle(&|| Timestamp(epoch.elapsed().as_millis() as u64))?;
            self.tell(settled);
            for send in self.outbox.drain(..) {
                send();
            }
            let generation = self.engine.coordinator.generation();
            let now = self.now();
            let woken = generation != self.asked_generation;
            self.asked_generation = generation;
            let due = |parked: &Parked| woken || parked.expires <= now || parked.reply.is_closed();
            let (due, parked) = std::mem::take(&mut self.parked).into_iter().partition::<Vec<_>, _>(due);
            self.parked = parked;
            if due.is_empty() {
                return Ok(());
            }
            for Parked { mut check_in, expires, reply } in due {
                if !reply.is_closed() {
                    check_in.wait_ms = expires.since(now);
                    self.check_in(now, check_in, reply);
                }
            }
        }
    }

    fn tell(&mut self, settled: Settled) {
        if let Some(job) = self.engine.poll_job() {
            let (sender, shared) = (self.distilled.0.clone(), Arc::clone(&self.shared));
            *lock(&shared.distilling) = Some((0, 0));
            let work = move || {
                let mut tell = by_tenths(|percent| tracing::info!(percent, "distilling"));
                let done = job.run(&mut |done, total| {
                    *lock(&shared.distilling) = Some((done, total));
                    tell(done, total);
                });
                *lock(&shared.distilling) = None;
                // The server has ended meanwhile.
                drop(sender.send(done));
            };
            let thread = std::thread::Builder::new().name("distillation".into()).spawn(work);
            thread.expect("a process can start a thread");
        }
        for (client, receipt) in settled.receipts {
            for reply in self.offers.remove(&client).unwrap_or_default() {
                self.answer(reply, Ok(receipt));
            }
        }
        if !Arc::ptr_eq(&self.broadcast.borrow(), self.engine.broadcast()) {
            self.broadcast.send_replace(Arc::clone(self.engine.broadcast()));
        }
        if !Arc::ptr_eq(&self.rules.borrow(), self.engine.rules()) {
            self.rules.send_replace(Arc::clone(self.engine.rules()));
        }
        let rounds = settled.summaries.into_iter().map(|summary| {
            tracing::info!(
                round = summary.round,
                published = summary.published,
                cut_short = summary.cut_short,
                clients = summary.clients,
                accuracy = summary.accuracy,
                up = summary.bytes.up,
                down = summary.bytes.down,
                seconds = summary.seconds,
                "round ended"
            );
            RunEvent::Round(Box::new(summary))
        });
        let report = settled.report.map(|report| RunEvent::Report(Box::new(report)));
        let news: Vec<_> = rounds.chain(report).collect();
        if !news.is_empty() {
            let mut events = lock(&self.shared.events);
            events.extend(news);
            self.changed.send_replace(events.len());
        }
    }

    fn status(&mut self, now: Timestamp) -> Status {
        let summaries = self.engine.summaries();
        let outcome: Option<Outcome> = self.engine.coordinator.outcome();
        Status {
            view: self.engine.coordinator.status(now),
            run: RunRow { outcome, rounds: summaries.len() as u64, ..self.run.clone() },
            last_round: summaries.last().cloned(),
            bytes: self.engine.bytes(),
            params: self.engine.layout().len() as u64,
            kept: self.engine.kept() as u64,
            distilling: *lock(&self.shared.distilling),
            timings: self.timings(),
        }
    }
}

impl Worker {
    fn timings(&self) -> Timings {
        let timings = *self.engine.timings();
        let carried_out = timings.sync + timings.sum + timings.publish + timings.evaluate;
        let vet = Duration::from_nanos(self.shared.vetting_ns.load(Ordering::Relaxed));
        Timings { vet, decide: self.busy.saturating_sub(carried_out), ..timings }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Only whole values are pushed or taken, so a panic elsewhere leaves them consistent.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Commands that may wait for the engine: each is small, but for an upload's frame, whose number the service bounds.
const MAX_QUEUED: usize = 4096;

/// Check-ins held open at once; a client beyond them is told when to come back.
const MAX_PARKED: usize = 100_000;

/// Longest sleep of the thread, in milliseconds: it then looks for held check-ins whose client has gone.
const MAX_PATIENCE_MS: u64 = 10_000;

//! A server, its clients, and a network of which the operations of a case are the weather.

use crate::attack::{self, Attack};
use crate::case::Op;
use crate::ledger::{CRASH, Contents, Disk, Ledger, STEP};
use bytes::Bytes;
use dunlin::client::participant::{Action, End, Event, Participant};
use dunlin::client::state::{ClientState, MemoryState};
use dunlin::client::trainer::{Progress, Trained, Trainer, TrainerError};
use dunlin::client::work::{self, Update};
use dunlin::codec::{Encoder, Segments};
use dunlin::core::message::{
    Assignment, CheckIn, EvaluationReport, FetchModel, Join, Receipt, Session, TrainTask, UpdateHeader,
};
use dunlin::core::wire::{Held, Uploaded};
use dunlin::core::{
    ClientId, Digest, Layout, ModelVersion, Outcome, Recipe, Reject, RoundId, RunId, Seed, TensorSpec, Timestamp,
    Token, catch_up,
};
use dunlin::nn::train::Evaluation;
use dunlin::server::broadcast::Plan;
use dunlin::server::coordinator::{Offer, PhaseName};
use dunlin::server::engine::{self, Engine, EngineError, Start};
use dunlin::server::store::StoreError;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, MutexGuard};

/// A federation before anything happens to it.
pub(crate) struct Setting {
    recipe: Recipe,
}

/// What is left of a case.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ended {
    pub outcome: Outcome,
    pub rounds: u64,
    pub abandoned: u64,
    pub starts: u32,
    pub commits: u32,
    pub digest: Digest,
    pub trace: u64,
}

pub(crate) struct World {
    recipe: Recipe,
    layout: Layout,
    segments: Segments,
    engine: Engine,
    disk: Disk,
    now: u64,
    /// When the server started: its clock counts from there.
    started: u64,
    peers: Vec<Peer>,
    /// Messages on their way.
    flight: Vec<Parcel>,
    /// Answers that wait until what they speak of is durable.
    unsettled: Vec<Parcel>,
    /// Uploads that wait for their receipts.
    storing: Vec<(usize, u64)>,
    /// Uploads of the past.
    history: Vec<Request>,
    /// The furthest that anybody was told of.
    reached: (u64, ModelVersion),
    encoder: Encoder,
}

struct Peer {
    id: ClientId,
    token: Token,
    examples: u32,
    participant: Participant,
    /// What outlives its crashes.
    state: MemoryState,
    model: Option<(ModelVersion, Vec<i32>)>,
    at: At,
    calls: u64,
}

/// What a client is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Work,
    /// The answer to its call of this number.
    Call(u64),
    /// Its call was lost, and it is about to notice.
    Lost,
    Pause(u64),
}

enum Parcel {
    Call { peer: usize, call: u64, request: Request },
    Reply { peer: usize, call: u64, event: Event, plan: Option<Arc<Plan>> },
}

#[derive(Clone)]
enum Request {
    Join(Join),
    CheckIn(CheckIn),
    Fetch(FetchModel),
    AskOffset(Session, UpdateHeader),
    Upload(Session, UpdateHeader, Bytes),
    Report(Session, EvaluationReport),
}

impl Setting {
    /// Six honest clients and a hostile one, in federations of several kinds.
    pub(crate) fn random(seed: u64) -> Self {
        let mut setting = Self::of(seed, &["rounds.cohort=4", "rounds.quorum=0.5", "rounds.max_abandoned=100"]);
        let rounds = &mut setting.recipe.rounds;
        rounds.over_selection = if seed.is_multiple_of(2) { 1.0 } else { 1.5 };
        rounds.federated_evaluation_every = if seed.is_multiple_of(3) { 4 } else { 0 };
        setting
    }

    /// No silence is too long and every member is waited for, so each round has the updates of its whole cohort.
    pub(crate) fn nobody_is_lost(seed: u64) -> Self {
        let sets = ["rounds.cohort=4", "rounds.quorum=1", "rounds.idle_timeout_s=1000000", "rounds.deadline_s=1000000"];
        Self::of(seed, &sets)
    }

    /// All six are asked in each round, and the hostile one as well once it is known.
    pub(crate) fn everybody_is_chosen(seed: u64) -> Self {
        let sets = ["data.clients=7", "rounds.cohort=7", "rounds.quorum=0.5", "rounds.min_clients=7"];
        Self::of(seed, &sets)
    }

    fn of(seed: u64, sets: &[&str]) -> Self {
        let common = [
            "model.kind=trivial",
            "data.source=none",
            "data.clients=6",
            "rounds.count=12",
            "rounds.min_clients=6",
            "rounds.deadline_s=60",
            "rounds.idle_timeout_s=20",
            "uplink.density=1",
            "uplink.quantizer=f32",
            "uplink.coder=raw",
            "downlink.density=1",
            "downlink.quantizer=f32",
            "limits.packet_ring=3",
        ];
        let sets: Vec<String> = common.iter().chain(sets).map(|&set| set.into()).collect();
        let recipe = Recipe::load(None, &sets).unwrap();
        Self { recipe: Recipe { seed, ..recipe } }
    }
}

impl World {
    pub(crate) fn new(Setting { recipe }: Setting) -> Self {
        let layout = Layout::new(vec![TensorSpec::new("clients", [HONEST + 1])]).unwrap();
        let segments = layout.segments();
        let ids = (0..HONEST).map(|i| ClientId::numbered("client", i as u32));
        let examples: BTreeMap<_, _> = ids.enumerate().map(|(i, id)| (id, (i, 3 + 2 * i as u32))).collect();
        let peers = examples.iter().map(|(id, &(i, examples))| Peer::new(id.clone(), token(i), examples)).collect();
        let ledger = Ledger::new(segments.clone(), recipe.quorum(), examples);
        let disk = Disk::new(recipe.limits.packet_ring, ledger);
        let engine = open(&recipe, &layout, &disk);
        let mut world = Self {
            recipe,
            layout,
            segments,
            engine,
            disk,
            now: 0,
            started: 0,
            peers,
            flight: Vec::new(),
            unsettled: Vec::new(),
            storing: Vec::new(),
            history: Vec::new(),
            reached: (0, ModelVersion(0)),
            encoder: Encoder::new(),
        };
        world.settle();
        world
    }

    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }

    pub(crate) fn ledger(&self) -> impl std::ops::Deref<Target = Ledger> {
        LedgerGuard(self.disk.lock())
    }

    /// The run, its current round, and the version that the round starts from.
    pub(crate) fn place(&self) -> (RunId, RoundId, ModelVersion) {
        let status = self.engine.coordinator.status(self.clock());
        (self.engine.coordinator.run(), RoundId { term: status.term, number: status.round }, status.version)
    }

    /// Lets things happen.
    pub(crate) fn play(&mut self, ops: &[Op]) {
        for &op in ops {
            self.happen(op);
            self.assert_nothing_shrinks();
        }
    }

    /// Stops all faults and lets the run come to its end.
    pub(crate) fn finish(&mut self) -> Ended {
        // A crash that is still to come is a fault of its case, not one of the time after.
        for _ in 0..MAX_STEPS {
            if self.engine.report().is_some() && self.peers.iter().all(Peer::is_done) {
                return self.ended();
            }
            self.advance_calmly();
        }
        panic!("the run does not end: {:?}", self.engine.coordinator.status(self.clock()));
    }

    /// Goes on without faults until a training round is open and nobody has reported.
    pub(crate) fn run_until_training(&mut self) {
        while self.engine.coordinator.status(self.clock()).phase != PhaseName::Training {
            self.advance_calmly();
        }
    }

    /// Goes on without faults until an update was accepted.
    pub(crate) fn run_until_accepted(&mut self) {
        while self.ledger().accepted_total == 0 {
            self.advance_calmly();
        }
    }

    /// The next thing that happens when nothing goes wrong.
    fn advance_calmly(&mut self) {
        if !self.flight.is_empty() {
            self.happen(Op::Deliver(0));
        } else if self.peers.iter().any(|peer| peer.can_step(self.now)) {
            self.happen(Op::Step(0));
        } else {
            let pauses = self.peers.iter().filter_map(|peer| match peer.at {
                At::Pause(until) => Some(until),
                At::Work | At::Call(_) | At::Lost => None,
            });
            let deadline = self.engine.coordinator.deadline().map(|deadline| self.started + deadline.0);
            let next = pauses.chain(deadline).min().expect("somebody waits for something until the run ends");
            self.happen(Op::Advance(next.saturating_sub(self.now).max(1)));
        }
        self.assert_nothing_shrinks();
    }

    fn happen(&mut self, op: Op) {
        match op {
            Op::Step(choice) => {
                let able: Vec<_> = (0..self.peers.len()).filter(|&i| self.peers[i].can_step(self.now)).collect();
                if let Some(&peer) = able.get(choice % able.len().max(1)) {
                    self.step(peer);
                }
            }
            Op::Deliver(choice) => {
                self.deliver(choice);
                self.settle();
            }
            Op::DeliverUnsettled(choice) => self.deliver(choice),
            Op::Drop(choice) => {
                if !self.flight.is_empty() {
                    let (Parcel::Call { peer, call, .. } | Parcel::Reply { peer, call, .. }) =
                        self.flight.remove(choice % self.flight.len());
                    self.peers[peer].lose(call);
                }
            }
            Op::Duplicate(choice) => {
                if !self.flight.is_empty()
                    && let Parcel::Call { peer, call, request } = &self.flight[choice % self.flight.len()]
                {
                    let again = Parcel::Call { peer: *peer, call: *call, request: request.clone() };
                    self.flight.push(again);
                }
            }
            Op::Replay(choice) => {
                if !self.history.is_empty() {
                    let request = self.history[choice % self.history.len()].clone();
                    // Nobody waits for the answer.
                    self.flight.insert(0, Parcel::Call { peer: 0, call: 0, request });
                }
            }
            Op::Advance(ms) => {
                self.now += ms;
                let now = self.clock();
                if self.engine.coordinator.deadline().is_some_and(|deadline| deadline <= now) {
                    self.engine.coordinator.tick(now);
                }
                self.settle();
            }
            Op::CrashServer { after_commits, written } => self.disk.crash_after(after_commits, written),
            Op::CrashClient(choice) => {
                let peer = choice % self.peers.len();
                self.peers[peer].restart();
            }
            Op::LoseClient(choice) => {
                let peer = choice % self.peers.len();
                self.peers[peer].token = token(HONEST + self.now as usize + choice);
                self.peers[peer].state = MemoryState::default();
                self.peers[peer].model = None;
                self.peers[peer].restart();
            }
            Op::Attack(Attack::CheckIn) => {
                let (now, run) = (self.clock(), self.engine.coordinator.run());
                let session = Session { run, client: attack::name(), token: attack::TOKEN };
                let coordinator = &mut self.engine.coordinator;
                if coordinator.join(now, &session.client, session.token).is_ok() {
                    let check_in = CheckIn { session, examples: attack::EXAMPLES, held: None, wait_ms: 0 };
                    let _whatever = coordinator.check_in(now, &check_in);
                }
                self.settle();
            }
            Op::Attack(attack) => {
                let _asserted_to_be_refused = self.attack(attack);
                self.settle();
            }
            Op::Stop => {
                self.disk.lock().ledger.stopped = true;
                let now = self.clock();
                self.engine.coordinator.stop(now);
                self.settle();
            }
        }
    }

    /// The server's clock.
    fn clock(&self) -> Timestamp {
        Timestamp(self.now - self.started)
    }

    /// Makes durable what was decided, and only then sends the answers; or crashes.
    fn settle(&mut self) {
        let now = self.clock();
        let settled = match self.engine.settle(&|| now) {
            Ok(settled) => settled,
            Err(EngineError::Store(StoreError::Directory { reason, .. })) if reason == CRASH => {
                return self.restart_server();
            }
            Err(error) => panic!("the engine failed: {error}"),
        };
        for (client, receipt) in settled.receipts {
            let Some(peer) = self.peers.iter().position(|peer| peer.id == client) else { continue };
            let event = Event::Uploaded(Ok(Uploaded::Receipt(receipt)));
            let (stored, others) = std::mem::take(&mut self.storing).into_iter().partition(|&(of, _)| of == peer);
            self.storing = others;
            for (peer, call) in stored {
                self.unsettled.push(Parcel::Reply { peer, call, event: event.clone(), plan: None });
            }
        }
        self.flight.append(&mut self.unsettled);
        let version = self.engine.broadcast().version();
        let digest = self.engine.broadcast().digest();
        assert_eq!(self.ledger().versions.get(&version), Some(&digest), "{version} is handed out before it is durable");
    }

    fn restart_server(&mut self) {
        for parcel in std::mem::take(&mut self.unsettled) {
            if let Parcel::Reply { peer, call, .. } = parcel {
                self.peers[peer].lose(call);
            }
        }
        for (peer, call) in std::mem::take(&mut self.storing) {
            self.peers[peer].lose(call);
        }
        // The new process counts its time from zero.
        self.started = self.now;
        self.engine = open(&self.recipe, &self.layout, &self.disk);
        let status = self.engine.coordinator.status(Timestamp(0));
        {
            let ledger = self.ledger();
            assert_eq!(
                (status.round, status.version),
                (ledger.round, ledger.version()),
                "a restart goes on where it was"
            );
            if ledger.is_open() && status.phase == PhaseName::Training {
                assert_eq!(status.reported as usize, ledger.accepted_now(), "what was accepted still is");
            }
        }
        self.settle();
    }

    fn deliver(&mut self, choice: usize) {
        if self.flight.is_empty() {
            return;
        }
        match self.flight.remove(choice % self.flight.len()) {
            Parcel::Call { peer, call, request } => self.serve(peer, call, request),
            Parcel::Reply { peer, call, event, plan } => {
                if self.peers[peer].at == At::Call(call) {
                    self.peers[peer].at = At::Work;
                    self.hear(peer, event, plan.as_deref());
                }
            }
        }
    }

    fn serve(&mut self, peer: usize, call: u64, request: Request) {
        let now = self.clock();
        let coordinator = &mut self.engine.coordinator;
        let mut plan = None;
        let event = match request {
            Request::Join(join) => {
                let joined = coordinator.join(now, &join.client, join.token);
                Event::Joined(joined.map(|()| self.engine.welcome()))
            }
            Request::CheckIn(check_in) => {
                let answer = coordinator.check_in(now, &check_in);
                if let Ok(Assignment::Train(TrainTask { base, .. })) = &answer {
                    assert!(*base <= self.ledger().version(), "work starts from a durable version");
                }
                Event::Assigned(answer)
            }
            Request::Fetch(fetch) => Event::Fetched(match coordinator.authenticate(now, &fetch.session) {
                Err(reject) => Err(reject),
                Ok(()) if self.engine.broadcast().version() != fetch.wanted => Err(Reject::UnknownVersion),
                Ok(()) => {
                    plan = Some(self.engine.broadcast().catch_up(fetch.held));
                    Ok(fetch.wanted)
                }
            }),
            Request::AskOffset(session, header) => {
                let held = coordinator.announce(now, &session, &header);
                Event::Offset(held.map(|receipt| receipt.map_or(Held::Offset(0), Held::Receipt)))
            }
            Request::Upload(session, header, frame) => match self.receive(&session, &header, frame) {
                Ok(None) => {
                    self.storing.push((peer, call));
                    return;
                }
                Ok(Some(receipt)) => Event::Uploaded(Ok(Uploaded::Receipt(receipt))),
                Err(reject) => Event::Uploaded(Err(reject)),
            },
            Request::Report(session, report) => Event::Reported(coordinator.evaluated(now, &session, &report)),
        };
        self.unsettled.push(Parcel::Reply { peer, call, event, plan });
    }

    /// The way of an upload through the server: header, frame, offer. No receipt yet means that it is being stored.
    pub(crate) fn receive(
        &mut self,
        session: &Session,
        header: &UpdateHeader,
        frame: Bytes,
    ) -> Result<Option<Receipt>, Reject> {
        let now = self.clock();
        if let Some(receipt) = self.engine.coordinator.announce(now, session, header)? {
            return Ok(Some(receipt));
        }
        self.engine.count_upload(frame.len() as u64);
        let verdict = self.engine.rules().vet(header, &frame);
        let stages =
            verdict.inspect_err(|&reject| self.engine.coordinator.refused(now, session, header.round, reject))?;
        match self.engine.offer(now, session, header, (frame, stages))? {
            Offer::Store => Ok(None),
            Offer::Accepted(receipt) => Ok(Some(receipt)),
        }
    }

    fn hear(&mut self, number: usize, event: Event, plan: Option<&Plan>) {
        let seeded = vec![0; self.segments.len()];
        let peer = &mut self.peers[number];
        let Some(plan) = plan else { return peer.participant.on(event) };
        let Action::Fetch(fetch) = peer.participant.action() else { panic!("a model came unasked") };
        let held = peer.model.as_ref().map(|(_, model)| model.as_slice());
        match catch_up::apply(
            &self.segments,
            &plan.catch_up,
            &plan.frames,
            held.filter(|_| fetch.held.is_some()),
            &seeded,
        ) {
            Ok(model) => {
                peer.model = Some((fetch.wanted, model));
                peer.state.set_held(Some(fetch.wanted)).unwrap();
                peer.participant.on(event);
            }
            Err(error) => panic!("the way from {:?} to {} is wrong: {error}", fetch.held, fetch.wanted),
        }
    }

    /// One action of a client.
    fn step(&mut self, number: usize) {
        let now = self.now;
        let peer = &mut self.peers[number];
        if peer.at == At::Lost {
            peer.at = At::Work;
            return peer.participant.on(Event::Disconnected);
        }
        let request = match peer.participant.action() {
            Action::Join(join) => Request::Join(join),
            Action::CheckIn(check_in) => Request::CheckIn(check_in),
            Action::Fetch(fetch) => Request::Fetch(fetch),
            Action::AskOffset(session, header) => Request::AskOffset(session, header),
            Action::Upload(session, header, _) => Request::Upload(session, header, peer.state.pending_frame().unwrap()),
            Action::Report(session, report) => Request::Report(session, report),
            Action::Pause { ms, .. } => return peer.pause(now, ms),
            Action::BackOff { failures } => return peer.pause(now, 100 * u64::from(failures.min(10))),
            Action::Prepare(welcome) => {
                peer.state.bind(welcome.run).unwrap();
                let held = peer.state.held().filter(|held| peer.model.as_ref().is_some_and(|(kept, _)| kept == held));
                let pending = peer.state.pending().cloned();
                return peer.participant.on(Event::Ready { examples: peer.examples, held, pending });
            }
            Action::Train(task) => {
                let update = self.train(number, &task);
                let peer = &mut self.peers[number];
                let header = update.header.clone();
                peer.state.keep(update).unwrap();
                return peer.participant.on(Event::Trained(header));
            }
            Action::Commit(_) => {
                peer.state.commit().unwrap();
                return peer.participant.on(Event::Done);
            }
            Action::Abandon(..) => {
                peer.state.abandon().unwrap();
                return peer.participant.on(Event::Done);
            }
            Action::Evaluate(task) => {
                let (round, version) = (task.round, task.version);
                let report = EvaluationReport { round, version, examples: 2, correct: 1, loss_sum: 1.0 };
                return peer.participant.on(Event::Evaluated(report));
            }
            Action::Stop(_) => return,
        };
        if let Request::Upload(..) = request {
            if self.history.len() == MAX_HISTORY {
                self.history.remove(0);
            }
            self.history.push(request.clone());
        }
        let peer = &mut self.peers[number];
        peer.calls += 1;
        peer.at = At::Call(peer.calls);
        self.flight.push(Parcel::Call { peer: number, call: peer.calls, request });
    }

    fn train(&mut self, number: usize, task: &TrainTask) -> Update {
        let peer = &mut self.peers[number];
        let (version, model) = peer.model.as_ref().expect("a client trains from a model that it fetched");
        assert_eq!(*version, task.base, "a client trains from the round's base");
        let residual = peer.state.residual().unwrap();
        let mut trainer = Unit { layout: self.layout.clone(), coordinate: number, examples: peer.examples };
        let assignment = work::Assignment {
            client: &peer.id,
            task,
            recipe: &self.recipe,
            segments: &self.segments,
            base: model,
            residual: residual.as_ref(),
        };
        work::train_and_encode(&assignment, &mut trainer, &mut self.encoder, &mut |_, _| ControlFlow::Continue(()))
            .unwrap()
    }

    /// Versions and rounds only grow, through restarts too.
    fn assert_nothing_shrinks(&mut self) {
        let (_, round, version) = self.place();
        let here = (round.number, version);
        assert!(here.0 >= self.reached.0 && here.1 >= self.reached.1, "{:?} shrank to {here:?}", self.reached);
        self.reached = here;
    }

    fn ended(&mut self) -> Ended {
        for peer in &self.peers {
            assert_eq!(peer.state.pending(), None, "{} has an update that nobody answered", peer.id);
        }
        let max_frame = self.engine.rules().max_frame_bytes();
        let asked = u64::from(self.recipe.cohort_size());
        let report = self.engine.report().expect("the run is over");
        let mut contents = self.disk.lock();
        contents.assert_bytes_are_bounded(MAX_ROUNDS_KEPT, asked, max_frame);
        let ledger = &contents.ledger;
        ledger.assert_every_update_is_accounted_for();
        assert_eq!(ledger.accepted_now(), 0);
        assert_eq!(ledger.finished, Some(report.outcome));
        assert_eq!((report.rounds, report.abandoned), (ledger.round, ledger.abandoned));
        let digest = ledger.versions[&ledger.version()];
        assert_eq!(report.model_digest, digest.to_string());
        Ended {
            outcome: report.outcome,
            rounds: report.rounds,
            abandoned: report.abandoned,
            starts: ledger.term,
            commits: ledger.commits,
            digest,
            trace: ledger.trace(),
        }
    }
}

impl Peer {
    fn new(id: ClientId, token: Token, examples: u32) -> Self {
        let participant = Participant::new(id.clone(), token, 0);
        let state = MemoryState::default();
        Self { id, token, examples, participant, state, model: None, at: At::Work, calls: 0 }
    }

    fn can_step(&self, now: u64) -> bool {
        match self.at {
            At::Work => !self.is_done(),
            At::Lost => true,
            At::Call(_) => false,
            At::Pause(until) => until <= now,
        }
    }

    /// Whether it knows that the run is over; none of these clients may be refused for good.
    fn is_done(&self) -> bool {
        match self.participant.action() {
            Action::Stop(End::Finished(_)) => true,
            Action::Stop(End::Refused(reject)) => panic!("{} was refused: {reject}", self.id),
            _ => false,
        }
    }

    fn lose(&mut self, call: u64) {
        if self.at == At::Call(call) {
            self.at = At::Lost;
        }
    }

    fn pause(&mut self, now: u64, ms: u64) {
        if let At::Pause(_) = self.at {
            self.at = At::Work;
            self.participant.on(Event::Done);
        } else {
            self.at = At::Pause(now + ms);
        }
    }

    fn restart(&mut self) {
        self.participant = Participant::new(self.id.clone(), self.token, 0);
        self.at = At::Work;
    }
}

/// Moves one coordinate by [`STEP`].
struct Unit {
    layout: Layout,
    coordinate: usize,
    examples: u32,
}

impl Trainer for Unit {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn examples(&self) -> u32 {
        self.examples
    }

    fn train(&mut self, _: u64, _: Seed, start: &[f32], _: Progress<'_>) -> Result<Trained, TrainerError> {
        let mut params = start.to_vec();
        params[self.coordinate] += STEP;
        Ok(Trained { params, loss: 0.5 })
    }

    fn evaluate(&mut self, _: &[f32]) -> Result<Evaluation, TrainerError> {
        Ok(Evaluation::default())
    }
}

struct LedgerGuard<'a>(MutexGuard<'a, Contents>);

impl std::ops::Deref for LedgerGuard<'_> {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.0.ledger
    }
}

fn open(recipe: &Recipe, layout: &Layout, disk: &Disk) -> Engine {
    let start = Start {
        recipe: recipe.clone(),
        layout: layout.clone(),
        initial: vec![0.0; layout.len()],
        store: Box::new(disk.clone()),
        evaluator: None,
        simulated: true,
        anew: false,
        id: RunId([1; 8]),
        created_ms: 0,
    };
    engine::open(start, Timestamp(0)).unwrap()
}

fn token(number: usize) -> Token {
    Token((number as u128 + 1).to_le_bytes())
}

/// Honest clients; the hostile one has the coordinate after theirs.
const HONEST: usize = 6;

/// Steps after which a run without faults must have ended; it takes a few thousand.
const MAX_STEPS: usize = 100_000;

/// Uploads kept for being replayed.
const MAX_HISTORY: usize = 24;

/// Published rounds whose updates a store keeps at most: the engine's own bound on what a restart computes again.
const MAX_ROUNDS_KEPT: u64 = 50;

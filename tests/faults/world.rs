//! A server, its clients, and a network of which the operations of a case are the weather.

mod peer;
mod server;
mod setting;

pub(crate) use setting::Setting;

use crate::attack::{self, Attack};
use crate::case::Op;
use crate::ledger::{Contents, Disk, Ledger};
use bytes::Bytes;
use dunlin::client::participant::{Action, Event};
use dunlin::client::state::{ClientState, MemoryState};
use dunlin::codec::{Encoder, Segments};
use dunlin::core::message::{CheckIn, EvaluationReport, FetchModel, Join, Session, UpdateHeader};
use dunlin::core::recipe::Width;
use dunlin::core::{
    ClientId, Digest, Layout, ModelVersion, Outcome, Recipe, Reject, RoundId, RunId, TensorSpec, Timestamp, Token,
};
use dunlin::server::broadcast::Plan;
use dunlin::server::coordinator::Member;
use dunlin::server::engine::Engine;
use dunlin::server::service::Uploads;
use peer::{At, Peer};
use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard};

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
    /// Uploads that arrived in parts.
    pub resumed: u64,
    /// Progress reports that were taken note of.
    pub advanced: u64,
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
    /// Uploads of which the server has a part; they do not outlive it.
    uploads: Uploads,
    /// Uploads that arrived in parts, and progress reports that were taken note of, so far.
    resumed: u64,
    advanced: u64,
    /// Who is not to be dropped for its silence.
    assured: Vec<Assured>,
    /// Who will send no update for which round, whatever they said before.
    declined: Vec<(ClientId, u64)>,
    /// The round opened last, and when.
    opened: (u64, u64),
    /// Uploads of the past.
    history: Vec<Request>,
    /// The furthest that anybody was told of.
    reached: (u64, ModelVersion),
    encoder: Encoder,
}

enum Parcel {
    Call {
        peer: usize,
        call: u64,
        request: Request,
    },
    Reply {
        peer: usize,
        call: u64,
        event: Event,
        plan: Option<Arc<Plan>>,
    },
    /// The answer to a progress report that it is of no use to go on with a round.
    Stop {
        peer: usize,
        round: RoundId,
    },
}

/// Until when a client that advances in a round is to be waited for, in the world's time.
struct Assured {
    client: ClientId,
    round: u64,
    until: u64,
}

#[derive(Clone)]
enum Request {
    Join(Join),
    CheckIn(CheckIn),
    Fetch(FetchModel),
    AskOffset(Session, UpdateHeader),
    /// The frame's bytes from an offset on.
    Upload(Session, UpdateHeader, u64, Bytes),
    Progress(Session, RoundId),
    Report(Session, EvaluationReport),
}

impl World {
    pub(crate) fn new(Setting { recipe }: Setting) -> Self {
        let layout = Layout::new(vec![TensorSpec::new("clients", [HONEST + 1])]).unwrap();
        let segments = layout.segments();
        let ids = (0..HONEST).map(|i| ClientId::numbered("client", i as u32));
        let examples: BTreeMap<_, _> = ids.enumerate().map(|(i, id)| (id, (i, 3 + 2 * i as u32))).collect();
        let peers = examples.iter().map(|(id, &(i, examples))| Peer::new(id.clone(), token(i), examples)).collect();
        let ledger = Ledger::new(segments.clone(), recipe.clone(), examples);
        let disk = Disk::new(recipe.limits.packet_ring, ledger);
        let engine = server::open(&recipe, &layout, &disk);
        let uploads = Uploads::new(engine.rules().max_frame_bytes());
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
            uploads,
            resumed: 0,
            advanced: 0,
            assured: Vec::new(),
            declined: Vec::new(),
            opened: (0, 0),
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
        }
    }

    /// Stops all faults and lets the run come to its end.
    pub(crate) fn finish(&mut self) -> Ended {
        self.settle();
        self.run_until(|world| world.engine.report().is_some() && world.peers.iter().all(Peer::is_done));
        self.ended()
    }

    /// Goes on without faults until so many rounds have published.
    pub(crate) fn run_until_published(&mut self, rounds: u64) {
        self.run_until(|world| world.ledger().published == rounds);
    }

    /// Goes on without faults until an update was accepted.
    pub(crate) fn run_until_accepted(&mut self) {
        self.run_until(|world| world.ledger().accepted_total > 0);
    }

    /// Goes on without faults until some upload is on its way, and lets the link break under it when so many of its bytes
    /// have arrived.
    pub(crate) fn cut_an_upload(&mut self, bytes: usize) {
        let is_upload = |parcel: &Parcel| matches!(parcel, Parcel::Call { request: Request::Upload(..), .. });
        self.run_until(|world| world.flight.iter().any(is_upload));
        self.happen(Op::Cut(bytes));
    }

    /// Goes on without faults until an upload goes on where it broke off.
    pub(crate) fn run_until_resuming(&mut self) {
        let resumes = |parcel: &Parcel| matches!(parcel, Parcel::Call { request: Request::Upload(_, _, offset, _), .. } if *offset > 0);
        self.run_until(|world| world.flight.iter().any(resumes));
    }

    /// Goes on without faults until all that is left to do is the training of one member of the open round; which one.
    pub(crate) fn run_until_one_trains(&mut self) -> usize {
        for _ in 0..MAX_STEPS {
            let trains = |peer: &Peer| matches!(peer.participant.action(), Action::Train(_));
            let slow = self.peers.iter().position(trains);
            let able = |(i, peer): (usize, &Peer)| Some(i) != slow && peer.can_step(self.now);
            if !self.flight.is_empty() {
                self.happen(Op::Deliver(0));
            } else if let Some(other) = self.peers.iter().enumerate().position(able) {
                self.step(other);
            } else if let Some(slow) = slow {
                return slow;
            } else {
                self.advance_calmly();
            }
        }
        panic!("nobody is asked to train");
    }

    /// One of the clients that are about to train.
    fn one_that_trains(&self, choice: usize) -> Option<usize> {
        let training: Vec<_> = (0..self.peers.len()).filter(|&peer| self.trains(peer)).collect();
        training.get(choice % training.len().max(1)).copied()
    }

    /// Whether a client is about to train.
    pub(crate) fn trains(&self, peer: usize) -> bool {
        matches!(self.peers[peer].participant.action(), Action::Train(_))
    }

    /// Where a client stands in the open round.
    pub(crate) fn member(&self, peer: usize) -> Option<&Member> {
        self.engine.coordinator.member(&self.peers[peer].id)
    }

    /// How often a client was refused for a reason, by the server's status.
    pub(crate) fn refusals(&self, reject: Reject) -> u64 {
        let rejects = self.engine.coordinator.status(self.clock()).rejects;
        let of_clients = rejects.iter().filter(|(of, client, _)| *of == reject && client.is_some());
        of_clients.map(|(.., count)| count).sum()
    }

    fn run_until(&mut self, reached: impl Fn(&Self) -> bool) {
        for _ in 0..MAX_STEPS {
            if reached(self) {
                return;
            }
            self.advance_calmly();
        }
        panic!("it never comes to that: {:?}", self.engine.coordinator.status(self.clock()));
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
    }

    fn happen(&mut self, op: Op) {
        self.carry_out(op);
        self.assert_whoever_advances_is_waited_for();
    }

    fn carry_out(&mut self, op: Op) {
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
                if !self.flight.is_empty()
                    && let Parcel::Call { peer, call, .. } | Parcel::Reply { peer, call, .. } =
                        self.flight.remove(choice % self.flight.len())
                {
                    self.peers[peer].lose(call);
                }
            }
            Op::Cut(choice) => {
                let is_upload =
                    |&i: &usize| matches!(&self.flight[i], Parcel::Call { request: Request::Upload(..), .. });
                let uploads: Vec<_> = (0..self.flight.len()).filter(is_upload).collect();
                if let Some(&upload) = uploads.get(choice % uploads.len().max(1))
                    && let Parcel::Call { peer, call, request: Request::Upload(session, header, offset, rest) } =
                        self.flight.remove(upload)
                {
                    self.receive_part(&session, &header, offset, &rest[..choice % rest.len().max(1)]);
                    self.peers[peer].lose(call);
                }
            }
            Op::Progress(choice) => {
                if let Some(peer) = self.one_that_trains(choice) {
                    self.report_progress(peer);
                }
            }
            Op::Decline(choice) => {
                if let Some(peer) = self.one_that_trains(choice).map(|peer| &mut self.peers[peer])
                    && peer.at == At::Work
                    && let Action::Train(task) = peer.participant.action()
                {
                    self.declined.push((peer.id.clone(), task.round.number));
                    peer.participant.on(Event::OutOfBytes { for_good: false });
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
                let (_, round, _) = self.place();
                self.note_opening(round.number);
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
                self.peers[peer].counted = (0.0, 0.0);
                self.peers[peer].model = None;
                self.peers[peer].restart();
            }
            Op::Attack(Attack::CheckIn) => {
                let (now, run) = (self.clock(), self.engine.coordinator.run());
                let session = Session { run, client: attack::name(), token: attack::TOKEN };
                let coordinator = &mut self.engine.coordinator;
                if coordinator.join(now, &session.client, session.token).is_ok() {
                    let check_in = CheckIn {
                        session,
                        examples: attack::EXAMPLES,
                        width: Width::WHOLE,
                        held: None,
                        wait_ms: 0,
                        declines: None,
                    };
                    let _whatever = coordinator.check_in(now, &check_in);
                }
                self.settle();
            }
            Op::Attack(attack) => {
                let _asserted_to_be_refused = self.attack(attack);
                self.settle();
            }
            Op::Intrude(choice) => {
                self.intrude(choice % self.peers.len());
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
            Parcel::Stop { peer, round } => self.stop_training(peer, round),
        }
    }

    /// Versions and rounds that anybody was told of only grow, through restarts too.
    fn assert_nothing_shrinks(&mut self) {
        let (_, round, version) = self.place();
        let here = (round.number, version);
        assert!(here.0 >= self.reached.0 && here.1 >= self.reached.1, "{:?} shrank to {here:?}", self.reached);
        self.reached = here;
        self.note_opening(round.number);
    }

    fn note_opening(&mut self, round: u64) {
        if round != self.opened.0 {
            self.opened = (round, self.now);
        }
    }

    fn ended(&mut self) -> Ended {
        for peer in &self.peers {
            assert_eq!(peer.state.pending(), None, "{} has an update that nobody answered", peer.id);
        }
        let report = self.engine.report().expect("the run is over");
        let contents = self.disk.lock();
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
            resumed: self.resumed,
            advanced: self.advanced,
        }
    }
}

struct LedgerGuard<'a>(MutexGuard<'a, Contents>);

impl std::ops::Deref for LedgerGuard<'_> {
    type Target = Ledger;

    fn deref(&self) -> &Ledger {
        &self.0.ledger
    }
}

/// Honest clients; the hostile one has the coordinate after theirs.
const HONEST: usize = 6;

/// Steps after which a run without faults must have ended; it takes a few thousand.
const MAX_STEPS: usize = 100_000;

fn token(number: usize) -> Token {
    Token((number as u128 + 1).to_le_bytes())
}

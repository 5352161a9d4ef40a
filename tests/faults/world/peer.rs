//! A client: what it decides, carries out and keeps.

use super::{Parcel, Request, World};
use crate::ledger::{STEP, TOLERANCE};
use dunlin::client::participant::{Action, End, Event, Participant};
use dunlin::client::state::{ClientState, MemoryState};
use dunlin::client::trainer::{Progress, Trainer, TrainerError, Work};
use dunlin::client::work::{self, Update};
use dunlin::codec::{Codec, EntropyCoder, MaskedGrid, Quantizer};
use dunlin::core::message::{EvaluationReport, Session, TrainTask, UpdateHeader};
use dunlin::core::recipe::Width;
use dunlin::core::{ClientId, Digest, Layout, ModelVersion, RoundId, Token, catch_up};
use dunlin::nn::train::Evaluation;
use dunlin::server::broadcast::Plan;
use std::ops::ControlFlow;
use std::sync::Arc;

pub(super) struct Peer {
    pub(super) id: ClientId,
    pub(super) token: Token,
    pub(super) examples: u32,
    pub(super) participant: Participant,
    /// What outlives its crashes.
    pub(super) state: MemoryState,
    /// What it trained and what it sent, of updates with a receipt.
    pub(super) counted: (f32, f32),
    pub(super) model: Option<(ModelVersion, MaskedGrid)>,
    pub(super) at: At,
    pub(super) calls: u64,
}

/// What a client is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Work,
    /// The answer to its call of this number.
    Call(u64),
    /// Its call was lost, and it is about to notice.
    Lost,
    Pause(u64),
}

impl Peer {
    pub(super) fn new(id: ClientId, token: Token, examples: u32) -> Self {
        let participant = Participant::new(id.clone(), token, 0);
        let state = MemoryState::default();
        Self { id, token, examples, participant, state, counted: (0.0, 0.0), model: None, at: At::Work, calls: 0 }
    }

    pub(super) fn can_step(&self, now: u64) -> bool {
        match self.at {
            At::Work => !self.is_done(),
            At::Lost => true,
            At::Call(_) => false,
            At::Pause(until) => until <= now,
        }
    }

    /// Whether it knows that the run is over; none of these clients may be refused for good.
    pub(super) fn is_done(&self) -> bool {
        match self.participant.action() {
            Action::Stop(End::Finished(_)) => true,
            Action::Stop(End::Refused(reject)) => panic!("{} was refused: {reject}", self.id),
            _ => false,
        }
    }

    pub(super) fn lose(&mut self, call: u64) {
        if self.at == At::Call(call) {
            self.at = At::Lost;
        }
    }

    pub(super) fn pause(&mut self, now: u64, ms: u64) {
        if let At::Pause(_) = self.at {
            self.at = At::Work;
            self.participant.on(Event::Done);
        } else {
            self.at = At::Pause(now + ms);
        }
    }

    pub(super) fn restart(&mut self) {
        self.participant = Participant::new(self.id.clone(), self.token, 0);
        self.at = At::Work;
    }
}

impl World {
    pub(super) fn hear(&mut self, number: usize, event: Event, plan: Option<&Plan>) {
        let whole = Arc::new(self.segments.clone());
        let seeded = MaskedGrid::whole(Arc::clone(&whole), vec![0; whole.len()]).unwrap();
        let peer = &mut self.peers[number];
        let Some(plan) = plan else { return peer.participant.on(event) };
        let Action::Fetch(fetch) = peer.participant.action() else { panic!("a model came unasked") };
        let held = peer.model.take().map(|(_, model)| Arc::new(model));
        match catch_up::apply(&plan.catch_up, &plan.frames, held.filter(|_| fetch.held.is_some()), &seeded) {
            Ok(model) => {
                peer.model = Some((fetch.wanted, model));
                peer.state.set_held(Some(fetch.wanted)).unwrap();
                peer.participant.on(event);
            }
            Err(error) => panic!("the way from {:?} to {} is wrong: {error}", fetch.held, fetch.wanted),
        }
    }

    /// A client sends a right update, and not the one that it sent before, for a round in which none of it may count.
    pub(super) fn intrude(&mut self, number: usize) {
        let (run, round, base) = self.place();
        let peer = &self.peers[number];
        let (id, token, examples) = (peer.id.clone(), peer.token, peer.examples);
        let unsettled = self.ledger().round != round.number;
        if unsettled || self.ledger().may_count(&id) {
            return;
        }
        let mut update = vec![0.0; self.segments.len()];
        update[number] = 2.0 * STEP;
        let codec = Codec { density: 1.0, quantizer: Quantizer::F32, coder: EntropyCoder::Raw };
        let frame = self.encoder.encode(&codec, &self.segments, &update).unwrap().frame;
        let (frame_len, digest) = (frame.len() as u64, Digest::of(&frame));
        let header = UpdateHeader { client: id.clone(), round, base, examples, loss: 0.5, frame_len, digest };
        let answer = self.receive(&Session { run, client: id, token }, &header, 0, &frame);
        assert!(answer.is_err(), "an update that may not count was answered with {answer:?}");
    }

    /// A client that trains says that it advances; nobody waits for the answer.
    pub(super) fn report_progress(&mut self, number: usize) {
        let peer = &self.peers[number];
        let Action::Train(task) = peer.participant.action() else { return };
        let session = peer.participant.session().expect("a client that trains has joined");
        self.flight.push(Parcel::Call { peer: number, call: 0, request: Request::Progress(session, task.round) });
    }

    /// A client hears that it is of no use to go on.
    pub(super) fn stop_training(&mut self, number: usize, round: RoundId) {
        let peer = &mut self.peers[number];
        if peer.at == At::Work && matches!(peer.participant.action(), Action::Train(task) if task.round == round) {
            peer.participant.on(Event::TrainingStopped);
        }
    }

    /// One action of a client.
    pub(super) fn step(&mut self, number: usize) {
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
            Action::Upload(session, header, offset) => {
                let rest = peer.state.pending_frame().unwrap().slice(offset as usize..);
                Request::Upload(session, header, offset, rest)
            }
            Action::Report(session, report) => Request::Report(session, report),
            Action::Pause { ms, .. } => return peer.pause(now, ms),
            Action::BackOff { failures } => return peer.pause(now, 100 * u64::from(failures.min(10))),
            Action::Prepare(welcome) => {
                peer.state.bind(welcome.run).unwrap();
                let held = peer.state.held().filter(|held| peer.model.as_ref().is_some_and(|(kept, _)| kept == held));
                let pending = peer.state.pending().cloned();
                return peer.participant.on(Event::Ready {
                    examples: peer.examples,
                    width: Width::WHOLE,
                    held,
                    pending,
                });
            }
            Action::Train(task) => {
                let update = self.train(number, &task);
                let peer = &mut self.peers[number];
                let header = update.header.clone();
                peer.state.keep(update).unwrap();
                return peer.participant.on(Event::Trained(header));
            }
            Action::Commit(header) => {
                let ledger = &self.disk.lock().ledger;
                assert_ne!(ledger.fate(&header), None, "{} got a receipt before its update was durable", peer.id);
                peer.state.commit().unwrap();
                peer.counted = (peer.counted.0 + STEP, peer.counted.1 + ledger.value(&header));
                // Nothing is lost and nothing is sent twice.
                let left = peer.state.residual(&Arc::new(self.segments.clone())).unwrap();
                let left = left.map_or(0.0, |left| left.values[number].to_f32());
                let (trained, sent) = peer.counted;
                assert!((trained - sent - left).abs() < TOLERANCE, "{}: {trained} - {sent} left {left}", peer.id);
                return peer.participant.on(Event::Done);
            }
            Action::Abandon(header, reject) => {
                let fate = self.disk.lock().ledger.fate(&header);
                assert_ne!(fate, Some(true), "{} was told {reject} of an update that counted", peer.id);
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

    pub(super) fn train(&mut self, number: usize, task: &TrainTask) -> Update {
        let peer = &mut self.peers[number];
        let (version, model) = peer.model.as_ref().expect("a client trains from a model that it fetched");
        assert_eq!(*version, task.base, "a client trains from the round's base");
        let residual = peer.state.residual(model.mask().whole()).unwrap();
        let mut trainer = Unit { layout: self.layout.clone(), coordinate: number, examples: peer.examples };
        let assignment = work::Assignment {
            slice: None,
            client: &peer.id,
            task,
            recipe: &self.recipe,
            base: model,
            residual: residual.as_deref(),
            digest: Digest::of,
        };
        work::train_and_encode(&assignment, &mut trainer, &mut self.encoder, &mut |_, _| ControlFlow::Continue(()))
            .unwrap()
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

    fn train(&mut self, _: &Work<'_>, params: &mut Vec<f32>, _: Progress<'_>) -> Result<f64, TrainerError> {
        params[self.coordinate] += STEP;
        Ok(0.5)
    }

    fn evaluate(&mut self, _: &[f32]) -> Result<Evaluation, TrainerError> {
        Ok(Evaluation::default())
    }
}

/// Uploads kept for being replayed.
const MAX_HISTORY: usize = 24;

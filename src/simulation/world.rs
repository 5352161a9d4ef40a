//! The federation as a discrete-event simulation: one thing happens at a time, and time jumps from one to the next.

use super::compute::{Bench, Done, Job, Pool, Task, Ticket};
use super::network::Link;
use super::queue::{Call, Happening, Queue};
use super::turn::Turn;
use super::{OnRound, SimulationError, SimulationOutcome};
use bytes::Bytes;
use dunlin_client::participant::{Action, Event, Participant};
use dunlin_client::state::{ClientState, budget};
use dunlin_codec::{MaskedGrid, StageBytes};
use dunlin_core::message::{Assignment, CheckIn, EvaluationReport, FetchModel, Welcome};
use dunlin_core::recipe::Width;
use dunlin_core::report::ClientSummary;
use dunlin_core::wire::{Held, Uploaded};
use dunlin_core::{ClientId, ModelVersion, Reject, RoundId, Seed, Timestamp, Token, catch_up};
use dunlin_server::broadcast::Broadcast;
use dunlin_server::coordinator::{Advance, Offer};
use dunlin_server::engine::Engine;
use dunlin_server::vet::Vetted;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A server, its clients, and what is on its way between them.
pub(super) struct World<'a> {
    engine: Engine,
    bench: &'a Bench,
    pool: &'a Pool<'a>,
    on_round: Box<OnRound<'a>>,
    clients: Vec<Client>,
    index: BTreeMap<ClientId, u32>,
    queue: Queue,
    now: Timestamp,
    seed: Seed,
    /// Check-ins that the server holds open.
    parked: BTreeMap<u32, CheckIn>,
    /// The coordinator's generation for which they were last answered.
    generation: u64,
    welcome: Welcome,
    idle_ms: u64,
    jobs: u64,
    /// Version 0, where models are really computed on the clients' side to prove that they can be.
    seeded: Option<Arc<Broadcast>>,
}

/// A client: its protocol state, its link, and what it is at.
struct Client {
    id: ClientId,
    participant: Participant,
    link: Link,
    examples: u32,
    /// How much of the model it has.
    width: Width,
    /// What the server last asked of it.
    working: Option<RoundId>,
    /// Counts its pieces of work.
    episode: u64,
    job: Option<(Ticket, Work)>,
    /// The pending update's frame, and the verdict on it.
    pending: Option<(Bytes, Result<Vetted, Reject>)>,
    /// The model that it would hold.
    proof: Option<MaskedGrid>,
    cost: Cost,
}

/// What a client did so far, counted where the engine counts it for all.
#[derive(Default)]
struct Cost {
    updates: u64,
    up: u64,
    down: u64,
    busy_ms: u64,
}

impl Client {
    fn summary(&self) -> ClientSummary {
        ClientSummary {
            client: self.id.clone(),
            class: self.link.class_name().map(str::to_owned),
            width: self.width,
            examples: self.examples,
            updates: self.cost.updates,
            up: self.cost.up,
            down: self.cost.down,
            busy_seconds: self.cost.busy_ms as f64 / 1000.0,
        }
    }
}

/// What a computation's result is for.
#[derive(Clone, Copy)]
enum Work {
    Train(RoundId),
    Evaluate(RoundId, ModelVersion),
}

impl<'a> World<'a> {
    pub(super) fn new(
        engine: Engine,
        bench: &'a Bench,
        pool: &'a Pool<'a>,
        (ids, seed): (&[ClientId], &Seed),
        on_round: Box<OnRound<'a>>,
    ) -> Result<Self, SimulationError> {
        let recipe = engine.recipe();
        let idle_ms = (recipe.rounds.idle_timeout_s * 1000.0) as u64;
        let links = Link::deal(&recipe.network, recipe.data.clients, &seed.derive("network"));
        let mut clients = Vec::with_capacity(ids.len());
        for ((number, id), link) in (0..).zip(ids).zip(links) {
            let token = seed.derive_n("token", number).as_bytes().first_chunk().copied().map_or(Token([0; 16]), Token);
            clients.push(Client {
                id: id.clone(),
                participant: Participant::new(id.clone(), token, u64::MAX),
                link,
                examples: bench.workplace.examples(id).map_err(SimulationError::Workplace)?,
                width: bench.workplace.width(id),
                working: None,
                episode: 0,
                job: None,
                pending: None,
                proof: None,
                cost: Cost::default(),
            });
        }
        // Nothing is published yet.
        let seeded = cfg!(debug_assertions).then(|| Arc::clone(engine.broadcast()));
        Ok(Self {
            welcome: engine.welcome(),
            generation: engine.coordinator.generation(),
            engine,
            bench,
            pool,
            on_round,
            clients,
            index: ids.iter().cloned().zip(0..).collect(),
            queue: Queue::default(),
            now: Timestamp(0),
            seed: *seed,
            parked: BTreeMap::new(),
            idle_ms,
            jobs: 0,
            seeded,
        })
    }

    /// Lets things happen until the run is over.
    pub(super) fn run(mut self) -> Result<SimulationOutcome, SimulationError> {
        for client in 0..self.clients.len() as u32 {
            self.proceed(client)?;
        }
        loop {
            self.settle()?;
            if let Some(report) = self.engine.report() {
                return Ok(SimulationOutcome {
                    report: report.clone(),
                    rounds: self.engine.summaries().to_vec(),
                    params: self.engine.params(),
                    layout: self.engine.layout().clone(),
                    clients: self.clients.iter().map(Client::summary).collect(),
                });
            }
            let next = self.queue.next();
            // Looking for the deadline takes time in proportion to the cohort, so only when time is about to pass.
            let deadline = if next == Some(self.now) { None } else { self.engine.coordinator.deadline() };
            if let Some(deadline) = deadline.filter(|&deadline| next.is_none_or(|next| deadline < next)) {
                self.now = self.now.max(deadline);
                self.engine.coordinator.tick(self.now);
                continue;
            }
            let Some((at, client, happening)) = self.queue.pop() else {
                return Err(SimulationError::Stalled { rounds: self.engine.summaries().len() as u64 });
            };
            self.now = at;
            match happening {
                Happening::Call(call) => self.answer(client, call),
                Happening::Heard(event) => self.hear(client, event)?,
                Happening::Beat { episode, until } => self.beat(client, episode, until)?,
                Happening::Computed { episode, .. } => self.computed(client, episode)?,
            }
        }
    }

    /// Carries out what the coordinator decided, and answers whom that concerns.
    fn settle(&mut self) -> Result<(), SimulationError> {
        loop {
            let now = self.now;
            // No simulated time passes with a distillation: a server has its own machine.
            let settled = self.engine.settle_at_once(&|| now)?;
            for (client, receipt) in settled.receipts {
                let number = self.index[&client];
                self.clients[number as usize].cost.updates += u64::from(!receipt.duplicate);
                self.reply(number, Event::Uploaded(Ok(Uploaded::Receipt(receipt))), NOTHING);
            }
            for summary in &settled.summaries {
                if (self.on_round)(summary).is_break() {
                    self.engine.coordinator.stop(now);
                }
            }
            if self.generation == self.engine.coordinator.generation() {
                return Ok(());
            }
            self.generation = self.engine.coordinator.generation();
            for (client, check_in) in std::mem::take(&mut self.parked) {
                self.answer(client, Call::CheckIn(check_in));
            }
        }
    }

    /// The server's side of a call.
    fn answer(&mut self, client: u32, call: Call) {
        let now = self.now;
        let coordinator = &mut self.engine.coordinator;
        let (event, download) = match call {
            Call::Join(join) => {
                let joined = coordinator.join(now, &join.client, join.token);
                (Event::Joined(joined.map(|()| self.welcome.clone())), NOTHING)
            }
            Call::CheckIn(check_in) => {
                let answer = coordinator.check_in(now, &check_in);
                match &answer {
                    Ok(Assignment::Wait { .. }) => {
                        self.parked.insert(client, check_in);
                        return;
                    }
                    Ok(Assignment::Train(task)) => self.clients[client as usize].working = Some(task.round),
                    Ok(Assignment::Evaluate(task)) => self.clients[client as usize].working = Some(task.round),
                    Ok(Assignment::Finished { .. }) | Err(_) => {}
                }
                (Event::Assigned(answer), NOTHING)
            }
            Call::Fetch(fetch) => match coordinator.authenticate(now, &fetch.session) {
                Err(reject) => (Event::Fetched(Err(reject)), NOTHING),
                Ok(()) => self.hand_out(client, &fetch),
            },
            Call::AskOffset(session, header) => {
                let held = coordinator.announce(now, &session, &header);
                (Event::Offset(held.map(|receipt| receipt.map_or(Held::Offset(0), Held::Receipt))), NOTHING)
            }
            Call::Announce(session, header) => match coordinator.announce(now, &session, &header) {
                Err(reject) => (Event::Uploaded(Err(reject)), NOTHING),
                Ok(Some(receipt)) => (Event::Uploaded(Ok(Uploaded::Receipt(receipt))), NOTHING),
                Ok(None) => {
                    let upload = self.clients[client as usize].link.up_after_header(header.frame_len);
                    self.work_for(client, upload.ms);
                    let call = Call::Upload(session, header, upload.sendings);
                    self.queue.push(now.after_ms(upload.ms), client, Happening::Call(call));
                    return;
                }
            },
            Call::Upload(session, header, sendings) => {
                let (frame, verdict) =
                    self.clients[client as usize].pending.clone().expect("an update is pending until it was answered");
                self.engine.count_upload(header.frame_len * sendings);
                self.clients[client as usize].cost.up += header.frame_len * sendings;
                let offered = match verdict {
                    Ok(vetted) => self.engine.offer(now, &session, &header, (frame, vetted)),
                    Err(reject) => {
                        self.engine.coordinator.refused(now, &session, Some(header.round), reject);
                        Err(reject)
                    }
                };
                match offered {
                    // Its receipt comes when the update is stored.
                    Ok(Offer::Store) => return,
                    Ok(Offer::Accepted(receipt)) => (Event::Uploaded(Ok(Uploaded::Receipt(receipt))), NOTHING),
                    Err(reject) => (Event::Uploaded(Err(reject)), NOTHING),
                }
            }
            Call::Report(session, report) => (Event::Reported(coordinator.evaluated(now, &session, &report)), NOTHING),
        };
        self.reply(client, event, download);
    }

    /// Sends a client the version that it wants.
    fn hand_out(&mut self, client: u32, fetch: &FetchModel) -> (Event, StageBytes) {
        let width = self.engine.coordinator.width(&fetch.session.client);
        let broadcast = self.engine.broadcast().of(width);
        if broadcast.version() != fetch.wanted {
            return (Event::Fetched(Err(Reject::UnknownVersion)), NOTHING);
        }
        let plan = broadcast.catch_up(fetch.held);
        if let Some(seeded) =
            self.seeded.as_ref().map(|seeded| seeded.of(width).model()).filter(|_| client.is_multiple_of(PROOF_EVERY))
        {
            let proof = &mut self.clients[client as usize].proof;
            let held = proof.take().map(Arc::new);
            let model = catch_up::apply(&plan.catch_up, &plan.frames, held, seeded);
            *proof = Some(model.expect("what the server sends leads to its own model"));
        }
        (Event::Fetched(Ok(fetch.wanted)), plan.stages)
    }

    fn reply(&mut self, client: u32, event: Event, download: StageBytes) {
        let delivery = self.clients[client as usize].link.down(download.coded);
        if matches!(event, Event::Fetched(Ok(_))) {
            for _ in 0..delivery.sendings {
                self.engine.count_download(download);
                self.clients[client as usize].cost.down += download.coded;
            }
            self.work_for(client, delivery.ms);
        }
        self.queue.push(self.now.after_ms(delivery.ms), client, Happening::Heard(event));
    }

    fn hear(&mut self, client: u32, event: Event) -> Result<(), SimulationError> {
        self.clients[client as usize].participant.on(event);
        self.proceed(client)
    }

    /// Does what a client decides, up to what takes time.
    fn proceed(&mut self, number: u32) -> Result<(), SimulationError> {
        loop {
            let client = &mut self.clients[number as usize];
            client.episode += 1;
            let event = match client.participant.action() {
                Action::Join(join) => return self.call(number, Call::Join(join)),
                Action::Prepare(_) => {
                    Event::Ready { examples: client.examples, width: client.width, held: None, pending: None }
                }
                Action::CheckIn(check_in) => {
                    client.working = None;
                    return self.call(number, Call::CheckIn(check_in));
                }
                Action::Fetch(fetch) => return self.call(number, Call::Fetch(fetch)),
                Action::Train(task) => {
                    let examples = u64::from(client.examples) * u64::from(self.bench.recipe.training.epochs);
                    if let Some(away_ms) = client.link.leaves_for_ms(self.idle_ms) {
                        return self.later(number, away_ms, Event::TrainingStopped);
                    }
                    match self.model(number, task.base) {
                        Some(model) => {
                            let work = Work::Train(task.round);
                            self.compute(number, model, examples, (Task::Train(task), work));
                            return Ok(());
                        }
                        None => Event::TrainingStopped,
                    }
                }
                Action::Evaluate(task) => match self.model(number, task.version) {
                    Some(model) => {
                        let examples = u64::from(self.clients[number as usize].examples);
                        let work = Work::Evaluate(task.round, task.version);
                        self.compute(number, model, examples, (Task::Evaluate, work));
                        return Ok(());
                    }
                    // Too late to be of use: an empty report hears so.
                    None => Event::Evaluated(empty(task.round, task.version)),
                },
                Action::AskOffset(session, header) => return self.call(number, Call::AskOffset(session, header)),
                Action::Upload(session, header, _) => return self.call(number, Call::Announce(session, header)),
                Action::Commit(_) => {
                    client.pending = None;
                    if let Some(mut state) = self.bench.state(&client.id)? {
                        budget::account(&self.bench.recipe, &mut state)?;
                        state.commit()?;
                    }
                    Event::Done
                }
                Action::Abandon(..) => {
                    client.pending = None;
                    if let Some(mut state) = self.bench.state(&client.id)? {
                        budget::account(&self.bench.recipe, &mut state)?;
                        state.abandon()?;
                    }
                    Event::Done
                }
                Action::Report(session, report) => return self.call(number, Call::Report(session, report)),
                Action::Pause { ms, .. } => return self.later(number, ms, Event::Done),
                Action::BackOff { .. } => return self.later(number, BACK_OFF_MS, Event::Done),
                Action::Stop(_) => return Ok(()),
            };
            self.clients[number as usize].participant.on(event);
        }
    }

    fn call(&mut self, client: u32, call: Call) -> Result<(), SimulationError> {
        let delivery = self.clients[client as usize].link.up(0);
        self.queue.push(self.now.after_ms(delivery.ms), client, Happening::Call(call));
        Ok(())
    }

    fn later(&mut self, client: u32, ms: u64, event: Event) -> Result<(), SimulationError> {
        self.queue.push(self.now.after_ms(ms), client, Happening::Heard(event));
        Ok(())
    }

    /// The integers, for a client, of a version that is still handed out. With any other the round is over: what came of it would be
    /// refused, so it is not even begun.
    fn model(&self, client: u32, version: ModelVersion) -> Option<Arc<MaskedGrid>> {
        let broadcast = self.engine.broadcast().of(self.clients[client as usize].width);
        (broadcast.version() == version).then(|| Arc::clone(broadcast.model()))
    }

    fn compute(&mut self, number: u32, model: Arc<MaskedGrid>, examples: u64, (task, work): (Task, Work)) {
        let client = &mut self.clients[number as usize];
        let ms = client.link.compute_ms(examples);
        let (Work::Train(round) | Work::Evaluate(round, _)) = work;
        let turn = Turn::new(&self.seed, round.number, &client.id);
        self.jobs += 1;
        let ticket = Ticket { due: self.now.after_ms(ms), turn, number: self.jobs };
        client.job = Some((ticket, work));
        let (episode, client, slice) =
            (client.episode, client.id.clone(), self.engine.slices().get(client.width).cloned());
        self.pool.submit(ticket, Job { client, slice, model, rules: Arc::clone(self.engine.rules()), task });
        self.queue.push(ticket.due, number, Happening::Computed { episode, turn });
        self.work_for(number, ms);
    }

    fn computed(&mut self, number: u32, episode: u64) -> Result<(), SimulationError> {
        let client = &mut self.clients[number as usize];
        if client.episode != episode {
            return Ok(());
        }
        let Some((ticket, work)) = client.job.take() else { return Ok(()) };
        let id = client.id.clone();
        let done = self.pool.take(ticket).map_err(|source| SimulationError::Client { client: id, source })?;
        let event = match (done, work) {
            (Done::Trained(update, verdict), _) => {
                client.pending = Some((update.frame.into(), verdict));
                Event::Trained(update.header)
            }
            (Done::Evaluated(sums), Work::Evaluate(round, version)) => Event::Evaluated(EvaluationReport {
                examples: sums.examples,
                correct: sums.correct,
                loss_sum: sums.loss_sum,
                ..empty(round, version)
            }),
            (Done::OutOfBytes { for_good }, _) => Event::OutOfBytes { for_good },
            (Done::Evaluated(_), Work::Train(_)) => Event::TrainingStopped,
        };
        self.hear(number, event)
    }

    /// Lets a client that is busy for long say so from time to time, as its bytes or steps would.
    fn work_for(&mut self, client: u32, ms: u64) {
        self.clients[client as usize].cost.busy_ms += ms;
        let (beat_ms, until) = (self.beat_ms(), self.now.after_ms(ms));
        if ms > beat_ms {
            let episode = self.clients[client as usize].episode;
            self.queue.push(self.now.after_ms(beat_ms), client, Happening::Beat { episode, until });
        }
    }

    fn beat(&mut self, number: u32, episode: u64, until: Timestamp) -> Result<(), SimulationError> {
        let client = &mut self.clients[number as usize];
        let (Some(round), Some(session)) = (client.working, client.participant.session()) else { return Ok(()) };
        if client.episode != episode {
            return Ok(());
        }
        if self.engine.coordinator.progress(self.now, &session, round, Advance::Bytes).is_err() {
            // Only training can be broken off; what is on its way hears at its end.
            if let Some((ticket, Work::Train(_))) = client.job {
                client.job = None;
                self.pool.cancel(ticket);
                return self.hear(number, Event::TrainingStopped);
            }
            return Ok(());
        }
        let next = self.now.after_ms(self.beat_ms());
        if next < until {
            self.queue.push(next, number, Happening::Beat { episode, until });
        }
        Ok(())
    }

    fn beat_ms(&self) -> u64 {
        (self.idle_ms / BEATS_PER_TIMEOUT).max(1)
    }
}

fn empty(round: RoundId, version: ModelVersion) -> EvaluationReport {
    EvaluationReport { round, version, examples: 0, correct: 0, loss_sum: 0.0 }
}

/// Signs of life within an idle timeout, so that one alone may be missed.
const BEATS_PER_TIMEOUT: u64 = 3;

/// Pause of a client whose call got lost, in milliseconds. Simulated calls do not.
const BACK_OFF_MS: u64 = 1000;

/// One client of so many really computes the models that it is sent, in builds with debug assertions.
const PROOF_EVERY: u32 = 16;

/// An answer without a model.
const NOTHING: StageBytes = StageBytes { dense: 0, sparse: 0, quantized: 0, coded: 0 };

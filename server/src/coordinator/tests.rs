//! A small world around a coordinator, and what the coordinator promises in it, by theme.

mod budget;
mod closing;
mod cohort;
mod evaluation;
mod restart;
mod simulation;
mod updates;
mod waiting;
mod width;

use super::*;
use crate::store::{MemoryStore, RunRow, Store};
use bytes::Bytes;
use dunlin_core::message::UpdateHeader;
use dunlin_core::recipe::RoundsConfig;
use dunlin_core::{Choice, Recipe, RoundSummary};

const RUN: RunId = RunId([7; 8]);
const IDLE_MS: u64 = 10_000;
const DEADLINE_MS: u64 = 100_000;
const EXAMPLES: u32 = 100;
const MAX_FRAME_BYTES: u64 = 1000;

/// Three rounds of four clients, of whom two are enough at the deadline.
fn recipe() -> Recipe {
    let mut recipe = Recipe::default();
    recipe.data.clients = 4;
    recipe.rounds = RoundsConfig {
        count: 3,
        cohort: 4,
        quorum: 0.5,
        deadline_s: DEADLINE_MS as f64 / 1000.0,
        idle_timeout_s: IDLE_MS as f64 / 1000.0,
        max_abandoned: 2,
        target_accuracy: 0.9,
        ..recipe.rounds
    };
    recipe
}

/// A coordinator, its clock, and a disk to which its effects are written.
struct World {
    recipe: Recipe,
    coordinator: Coordinator,
    store: MemoryStore,
    now: Timestamp,
    /// Whether the versions published from now on have the target accuracy.
    accurate: bool,
    /// Whether the server dies before it records that the run is finished.
    dies_at_the_end: bool,
    /// Every effect that was carried out.
    log: Vec<Effect>,
}

/// A client with data asks for work, and has the whole model but no version of it.
fn check_in_of(name: &str) -> CheckIn {
    CheckIn { session: session(name), examples: EXAMPLES, width: Width::WHOLE, held: None, wait_ms: 0, declines: None }
}

impl World {
    /// A first start, before anybody has come.
    fn new(recipe: Recipe) -> Self {
        let mut store = MemoryStore::new(4);
        let row = RunRow {
            id: RUN,
            name: recipe.name.clone(),
            recipe: recipe.to_toml(),
            recipe_digest: Digest(recipe.digest()),
            created_ms: 0,
            outcome: None,
            rounds: 0,
        };
        store.create(&row).unwrap();
        let (now, log) = (Timestamp(0), Vec::new());
        let coordinator = start(&recipe, &mut store, now);
        let mut world = Self { recipe, coordinator, store, now, accurate: false, dies_at_the_end: false, log };
        assert_eq!(world.settle(), [Effect::Record(Record::Started { term: 1 })]);
        world
    }

    /// The same with clients `a` to `d`, who are ready, so that the first round is open.
    fn gathered(recipe: Recipe) -> Self {
        let mut world = Self::new(recipe);
        for name in ["a", "b", "c", "d"] {
            world.arrive(name);
        }
        world.settle();
        world
    }

    /// The server dies and starts again; what was not carried out is lost.
    fn restart(&mut self) {
        self.coordinator = start(&self.recipe, &mut self.store, self.now);
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        self.coordinator.tick(self.now);
    }

    fn join(&mut self, name: &str) {
        self.coordinator.join(self.now, &client(name), token(name)).unwrap();
    }

    fn check_in(&mut self, name: &str) -> Assignment {
        self.coordinator.check_in(self.now, &check_in_of(name)).unwrap()
    }

    fn arrive(&mut self, name: &str) -> Assignment {
        self.join(name);
        self.check_in(name)
    }

    fn progress(&mut self, name: &str) -> Result<(), Reject> {
        let round = RoundId { term: 1, number: self.round() };
        self.coordinator.progress(self.now, &session(name), round, Advance::Bytes)
    }

    /// What a client announces that was given the round's task and has trained to these bytes.
    fn header(&self, name: &str, frame: &'static str) -> UpdateHeader {
        UpdateHeader {
            client: client(name),
            round: RoundId { term: 1, number: self.round() },
            base: self.coordinator.version(),
            examples: 10,
            loss: 0.5,
            frame_len: frame.len() as u64,
            digest: Digest::of(frame.as_bytes()),
        }
    }

    /// Offers an update without making it durable.
    fn offer(&mut self, header: &UpdateHeader) -> Result<Offer, Reject> {
        let session = session(header.client.as_str());
        self.coordinator.offer(self.now, &session, header, Bytes::from_static(b"frame"))
    }

    /// Offers an update and carries out what follows.
    fn send(&mut self, header: &UpdateHeader) -> Result<Receipt, Reject> {
        match self.offer(header)? {
            Offer::Accepted(receipt) => Ok(receipt),
            Offer::Store => {
                self.settle();
                Ok(receipt(header, false))
            }
        }
    }

    /// A whole round in which every member reports.
    fn complete_round(&mut self) {
        for member in self.cohort() {
            let header = self.header(&member, "F");
            assert_eq!(self.offer(&header), Ok(Offer::Store));
        }
        self.settle();
    }

    /// Carries out the effects that are due and returns them.
    fn settle(&mut self) -> Vec<Effect> {
        self.settle_at_most(usize::MAX)
    }

    fn settle_at_most(&mut self, most: usize) -> Vec<Effect> {
        let mut done = Vec::new();
        while done.len() < most
            && let Some(effect) = self.coordinator.poll_effect()
        {
            if self.dies_at_the_end && matches!(effect, Effect::Record(Record::Finished(_))) {
                break;
            }
            self.carry_out(&effect);
            done.push(effect);
        }
        self.log.extend(done.iter().cloned());
        done
    }

    fn carry_out(&mut self, effect: &Effect) {
        match effect {
            Effect::Record(record) => {
                self.store.commit(std::slice::from_ref(record)).unwrap();
                if let Record::UpdateAccepted { header, .. } = record {
                    assert_eq!(self.coordinator.stored(self.now, header), receipt(header, false));
                }
            }
            Effect::Publish(closed) => {
                let version = closed.base.next();
                let accuracy = Some(if self.accurate { 1.0 } else { 0.1 });
                let (digest, packet) = (Digest([version.0 as u8; 32]), Bytes::new());
                let summary = RoundSummary { published: true, version: version.0, accuracy, ..summary(closed) };
                self.store.commit(&[Record::Published { version, digest, packet, summary }]).unwrap();
                self.coordinator.published(self.now, version, self.accurate);
            }
            Effect::Abandon(closed) => self.store.commit(&[Record::Abandoned { summary: summary(closed) }]).unwrap(),
            Effect::Evaluated { round, result } => {
                let summaries = self.store.restore(RUN).unwrap().summaries;
                let mut summary = summaries.into_iter().find(|summary| summary.round == *round).unwrap();
                summary.federated = Some(*result);
                self.store.commit(&[Record::Summary(summary)]).unwrap();
            }
        }
    }

    fn status(&self) -> StatusView {
        self.coordinator.status(self.now)
    }

    fn phase(&self) -> PhaseName {
        self.status().phase
    }

    fn round(&self) -> u64 {
        self.status().round
    }

    /// Members of the round opened last.
    fn cohort(&self) -> Vec<String> {
        let members = self.log.iter().rev().find_map(|effect| match effect {
            Effect::Record(Record::RoundOpened { members, .. }) => Some(members),
            _ => None,
        });
        members.into_iter().flatten().map(ToString::to_string).collect()
    }
}

fn start(recipe: &Recipe, store: &mut MemoryStore, now: Timestamp) -> Coordinator {
    let config = Config::from_recipe(recipe, MAX_FRAME_BYTES);
    let resume = Resume::from_store(&store.restore(RUN).unwrap(), recipe);
    Coordinator::new(config, RUN, Seed::from_u64(recipe.seed), resume, now)
}

fn summary(closed: &ClosedRound) -> RoundSummary {
    RoundSummary {
        round: closed.number,
        version: closed.base.0,
        clients: closed.stats.counted,
        ..RoundSummary::default()
    }
}

fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

fn clients(names: &[&str]) -> Vec<ClientId> {
    names.iter().map(|name| client(name)).collect()
}

fn token(name: &str) -> Token {
    Token([name.as_bytes()[0]; 16])
}

fn session(name: &str) -> Session {
    Session { run: RUN, client: client(name), token: token(name) }
}

fn receipt(header: &UpdateHeader, duplicate: bool) -> Receipt {
    Receipt { round: header.round, digest: header.digest, duplicate }
}

fn opened(round: u64, base: u64, eligible: u32, members: &[&str]) -> Effect {
    Effect::Record(Record::RoundOpened { round, base: ModelVersion(base), eligible, members: clients(members) })
}

/// Round `number`, which was opened at one time and closed at another, with `counted` updates as
/// [`World::header`] makes them of four members.
fn closed(number: u64, (opened, closed): (u64, u64), counted: u32, lost: u32) -> ClosedRound {
    ClosedRound {
        number,
        base: ModelVersion(number - 1),
        opened: Timestamp(opened),
        closed: Timestamp(closed),
        cut_short: false,
        stats: RoundStats {
            eligible: 4,
            chosen: 4,
            choice: Choice::AllEligible,
            needed: 4,
            counted,
            lost,
            examples: 10 * u64::from(counted),
            train_loss: if counted > 0 { 0.5 } else { 0.0 },
            rejects: BTreeMap::new(),
        },
    }
}

fn task(term: u32, number: u64, base: u64, deadline_ms: u64) -> Assignment {
    let codec = Recipe::codec(&recipe().uplink, number);
    Assignment::Train(TrainTask {
        round: RoundId { term, number },
        base: ModelVersion(base),
        deadline_ms,
        codec,
        max_bytes: 0,
        asks: 0,
    })
}

fn wait(reason: Waiting, retry_after_ms: u64) -> Assignment {
    Assignment::Wait { reason, retry_after_ms }
}

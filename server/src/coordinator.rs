//! Who takes part in which round and what counts: a plain value, without clock, sockets or threads.
//!
//! Time, randomness and messages come in as arguments, answers are return values, and what must happen outside is
//! drained with [`Coordinator::poll_effect`]. Whoever drives it makes the effects durable before it sends the answers.

mod config;
mod phases;
mod round;
mod status;
mod uploads;

pub(crate) use config::reaches_target;
pub use config::{Config, Resume, ResumeRound};
pub use round::{Advance, ClosedRound, Member, RoundStats};
pub use status::{Phase as PhaseName, StatusView};

use crate::store::{ClientRow, Record};
use dunlin_core::message::{Assignment, CheckIn, EvaluationReport, EvaluationTask, Receipt, Session, TrainTask};
use dunlin_core::recipe::Width;
use dunlin_core::report::FederatedEvaluation;
use dunlin_core::{ClientId, Digest, ModelVersion, Outcome, Reject, RoundId, RunId, Seed, Timestamp, Token, Waiting};
use round::OpenRound;
use std::collections::{BTreeMap, VecDeque};
use uploads::ends_participation;

/// The protocol state of one run.
pub struct Coordinator {
    config: Config,
    run: RunId,
    seed: Seed,
    term: u32,
    clients: BTreeMap<ClientId, ClientState>,
    phase: Phase,
    /// Number of the last round opened; 0 before the first.
    round: u64,
    version: ModelVersion,
    abandoned_in_row: u32,
    /// Length of the last published round, from which waiting clients are paced.
    pace_ms: u64,
    rejects: BTreeMap<(Reject, Option<ClientId>), u64>,
    /// Refusals since the last training round closed.
    between: BTreeMap<Reject, u32>,
    effects: VecDeque<Effect>,
    generation: u64,
    /// Bytes of the updates accepted in the rounds that are over.
    spent: u64,
    /// What clients of the last few rounds took from task to update, in milliseconds: their medians.
    client_ms: VecDeque<u64>,
}

/// What must happen outside. Effects are carried out in order.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a handful exist at a time, each moved once")]
pub enum Effect {
    /// Make this durable before the answers that follow from it are sent.
    Record(Record),
    /// Compute the next model from the round's updates, evaluate it if due, make it durable, then call
    /// [`Coordinator::published`].
    Publish(ClosedRound),
    /// Drop the round's updates and record its summary.
    Abandon(ClosedRound),
    /// A federated evaluation is complete.
    Evaluated {
        /// The round that it followed.
        round: u64,
        /// Its result.
        result: FederatedEvaluation,
    },
}

/// What becomes of an update that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is new and right: an [`Effect::Record`] asks for its storage; the receipt is due when that is durable.
    Store,
    /// It was accepted before.
    Accepted(Receipt),
}

#[derive(Clone, Debug)]
struct ClientState {
    token: Token,
    /// How much of the model it has, once it has said so.
    width: Option<Width>,
    examples: u32,
    /// It has said so of none: it has no data, or no bytes left.
    offers_nothing: bool,
    last_seen: Timestamp,
    /// End of the check-in that the server holds open for it.
    held_until: Timestamp,
    /// The last update of it that was accepted.
    last_accepted: Option<(u64, Digest)>,
}

enum Phase {
    Gathering,
    Training(OpenRound),
    Publishing { round: u64, opened: Timestamp },
    Evaluating { round: OpenRound, reports: BTreeMap<ClientId, EvaluationReport> },
    Finished(Outcome),
}

impl Coordinator {
    /// A run that starts anew, or goes on after a restart when `resume` has something in it.
    ///
    /// Restored clients count as seen now, and as ready once there has been a round, so that a restart alone does not
    /// change who is chosen.
    #[must_use]
    pub fn new(config: Config, run: RunId, seed: Seed, resume: Resume, now: Timestamp) -> Self {
        let accepted: BTreeMap<_, _> =
            resume.receipts.into_iter().map(|(client, round, digest)| (client, (round, digest))).collect();
        let was_gathered = resume.round > 0 || resume.open.is_some();
        let examples = if was_gathered { u32::MAX } else { 0 };
        let clients = resume
            .clients
            .into_iter()
            .map(|ClientRow { client, token, width }| {
                let last_accepted = accepted.get(&client).copied();
                let (last_seen, held_until) = (now, now);
                let offers_nothing = false;
                let state =
                    ClientState { token, width, examples, offers_nothing, last_seen, held_until, last_accepted };
                (client, state)
            })
            .collect();
        let mut coordinator = Self {
            config,
            run,
            seed,
            term: resume.term + 1,
            clients,
            phase: Phase::Gathering,
            round: resume.round,
            version: resume.version,
            abandoned_in_row: resume.abandoned_in_row,
            pace_ms: 1000,
            rejects: BTreeMap::new(),
            between: BTreeMap::new(),
            effects: VecDeque::new(),
            generation: 0,
            spent: resume.spent,
            client_ms: VecDeque::new(),
        };
        coordinator.effects.push_back(Effect::Record(Record::Started { term: coordinator.term }));
        if let Some(outcome) = resume.outcome {
            coordinator.phase = Phase::Finished(outcome);
        } else if resume.target_reached {
            // The server stopped between what ends a run and the record that says so.
            coordinator.finish(Outcome::TargetReached);
        } else if resume.abandoned_in_row >= coordinator.config.max_abandoned {
            coordinator.finish(Outcome::GaveUp);
        } else if let Some(open) = resume.open {
            coordinator.round = open.round;
            let mut round =
                OpenRound::new(&coordinator.config, open.round, open.base, open.eligible, open.members, now);
            coordinator.bound(&mut round);
            for header in open.updates {
                if let Some(client) = coordinator.clients.get_mut(&header.client) {
                    client.last_accepted = Some((header.round.number, header.digest));
                }
                round.restore_update(header);
            }
            coordinator.phase = Phase::Training(round);
            coordinator.close_if_complete(now);
        } else if resume.evaluation_due {
            coordinator.open_evaluation(now);
        } else {
            coordinator.advance(now);
        }
        coordinator
    }

    /// Takes a client in, or recognises it by its token.
    ///
    /// # Errors
    /// [`Reject::WrongSession`] while another session holds the name and is alive, [`Reject::TooManyClients`].
    pub fn join(&mut self, now: Timestamp, client: &ClientId, token: Token) -> Result<(), Reject> {
        let idle_ms = self.config.idle_ms;
        if let Some(state) = self.clients.get_mut(client) {
            if state.token != token {
                if state.alive(now, idle_ms) {
                    return Err(self.refuse(Reject::WrongSession, Some(client)));
                }
                // The name's holder has been silent for long: it lost its state, or it is gone. Who takes the name over
                // has not checked in yet.
                state.token = token;
                state.width = None;
                state.examples = 0;
                state.offers_nothing = false;
                self.effects.push_back(Effect::Record(Record::Joined { client: client.clone(), token, width: None }));
            }
            state.last_seen = now;
        } else {
            if self.clients.len() >= self.config.max_clients as usize {
                return Err(self.refuse(Reject::TooManyClients, None));
            }
            let state = ClientState {
                token,
                width: None,
                examples: 0,
                offers_nothing: false,
                last_seen: now,
                held_until: now,
                last_accepted: None,
            };
            self.clients.insert(client.clone(), state);
            self.effects.push_back(Effect::Record(Record::Joined { client: client.clone(), token, width: None }));
        }
        Ok(())
    }

    /// Tells a client what to do. With [`Assignment::Wait`] the caller may hold the check-in open and ask again after
    /// [`Self::generation`] has changed.
    ///
    /// # Errors
    /// When the session is not known, or [`Reject::WrongWidth`].
    pub fn check_in(&mut self, now: Timestamp, check_in: &CheckIn) -> Result<Assignment, Reject> {
        self.authenticate(now, &check_in.session)?;
        self.note_width(&check_in.session.client, check_in.width)?;
        let id = &check_in.session.client;
        let client = self.clients.get_mut(id).expect("an authenticated client is registered");
        client.examples = check_in.examples;
        client.offers_nothing = check_in.examples == 0;
        client.held_until = now;
        if let Phase::Training(round) = &mut self.phase
            && check_in.declines == Some(round.number)
        {
            round.decline(id);
            self.close_if_complete(now);
        }
        if matches!(self.phase, Phase::Gathering) {
            self.advance(now);
        }
        let round_id = |number| RoundId { term: self.term, number };
        let (reason, deadline) = match &mut self.phase {
            Phase::Gathering => (Waiting::NotEnoughClients, None),
            Phase::Publishing { .. } => (Waiting::Publishing, None),
            Phase::Finished(outcome) => {
                return Ok(Assignment::Finished { outcome: *outcome, version: self.version });
            }
            Phase::Training(round) => match round.assign(now, id) {
                Ok(deadline_ms) => {
                    let codec = self.config.recipe.update_codec(round.number);
                    let task = TrainTask {
                        round: round_id(round.number),
                        base: round.base,
                        deadline_ms,
                        codec,
                        max_bytes: round.max_bytes,
                        asks: round.asks.get(id).copied().unwrap_or_default(),
                    };
                    return Ok(Assignment::Train(task));
                }
                Err(reason) => (reason, Some(round.deadline)),
            },
            Phase::Evaluating { round, .. } => match round.assign(now, id) {
                Ok(deadline_ms) => {
                    let task = EvaluationTask { round: round_id(round.number), version: round.base, deadline_ms };
                    return Ok(Assignment::Evaluate(task));
                }
                Err(reason) => (reason, Some(round.deadline)),
            },
        };
        // A call that is held open is a sign of life for as long as it is; one that got work is answered at once.
        if let Some(client) = self.clients.get_mut(id) {
            client.held_until = now.after_ms(check_in.wait_ms);
        }
        let until_deadline = deadline.map_or(u64::MAX, |deadline| deadline.since(now));
        // Half of the idle time at most: whoever comes back as asked still counts as alive.
        let most = (self.config.idle_ms / 2).clamp(MIN_RETRY_MS, MAX_RETRY_MS);
        let retry_after_ms = (self.pace_ms / 2).min(until_deadline).clamp(MIN_RETRY_MS, most);
        Ok(Assignment::Wait { reason, retry_after_ms })
    }

    /// The width with which a client checks in first is its width for as long as its token holds its name.
    fn note_width(&mut self, id: &ClientId, width: Width) -> Result<(), Reject> {
        let recipe = &self.config.recipe;
        let is_sized = !recipe.size.is_empty();
        let client = self.clients.get_mut(id).expect("an authenticated client is registered");
        if !recipe.has_width(width) || client.width.is_some_and(|known| known != width) {
            return Err(self.refuse(Reject::WrongWidth, Some(id)));
        }
        if client.width.replace(width).is_none() && is_sized {
            let record = Record::Joined { client: id.clone(), token: client.token, width: Some(width) };
            self.effects.push_back(Effect::Record(record));
        }
        Ok(())
    }

    /// How much of the model a client has; all of it as long as it has not said.
    #[must_use]
    pub fn width(&self, client: &ClientId) -> Width {
        self.clients.get(client).and_then(|client| client.width).unwrap_or_default()
    }

    /// Notes that a client is at work. It counts as alive for it only where that work has advanced.
    ///
    /// # Errors
    /// When going on is of no use: the round is over or the client is not in it.
    pub fn progress(
        &mut self,
        now: Timestamp,
        session: &Session,
        round: RoundId,
        advance: Advance,
    ) -> Result<(), Reject> {
        self.authenticate(now, session)?;
        let verdict = match &mut self.phase {
            // Not so in an evaluation, which has its round's number: there is nothing left to train for.
            Phase::Training(open) if open.number == round.number => open.progress(now, &session.client, advance),
            _ if round.number > self.round => Err(Reject::FutureRound),
            _ => Err(Reject::Late),
        };
        verdict.map_err(|reject| self.refuse(reject, Some(&session.client)))
    }

    /// Takes a client's result of a federated evaluation.
    ///
    /// # Errors
    /// When it is late, for another version, or from a client that was not asked.
    pub fn evaluated(&mut self, now: Timestamp, session: &Session, report: &EvaluationReport) -> Result<(), Reject> {
        self.authenticate(now, session)?;
        let Phase::Evaluating { round, reports } = &mut self.phase else {
            return Err(self.refuse(Reject::Late, Some(&session.client)));
        };
        let verdict = if report.round.number != round.number {
            Err(Reject::Late)
        } else if report.version != round.base {
            Err(Reject::WrongBase)
        } else if report.examples > u64::from(self.config.max_examples) {
            Err(Reject::TooManyExamples)
        } else {
            round.count_once(&session.client)
        };
        if let Err(reject) = verdict {
            if ends_participation(reject) {
                // Asked again, it would send the same again.
                round.fail(&session.client, reject);
            }
            let reject = self.refuse(reject, Some(&session.client));
            self.close_if_complete(now);
            return Err(reject);
        }
        reports.insert(session.client.clone(), *report);
        self.close_if_complete(now);
        Ok(())
    }

    /// The next thing to do outside, in order.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Changes whenever a waiting client may get another answer.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// How the run ended, once it did.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        match self.phase {
            Phase::Finished(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// The newest published version.
    #[must_use]
    pub fn version(&self) -> ModelVersion {
        self.version
    }

    /// The run conducted.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Checks that a session is of this run and holds its name, and notes the sign of life.
    ///
    /// # Errors
    /// [`Reject::UnknownRun`], [`Reject::UnknownClient`] or [`Reject::WrongSession`].
    pub fn authenticate(&mut self, now: Timestamp, session: &Session) -> Result<(), Reject> {
        if session.run != self.run {
            return Err(self.refuse(Reject::UnknownRun, None));
        }
        match self.clients.get_mut(&session.client) {
            None => Err(self.refuse(Reject::UnknownClient, None)),
            Some(client) if client.token != session.token => {
                Err(self.refuse(Reject::WrongSession, Some(&session.client)))
            }
            Some(client) => {
                client.last_seen = now;
                Ok(())
            }
        }
    }
}

impl ClientState {
    fn alive(&self, now: Timestamp, idle_ms: u64) -> bool {
        now < self.held_until || now.since(self.last_seen) < idle_ms
    }

    /// Alive, and with data: a client that joined but has not checked in yet is still loading.
    fn ready(&self, now: Timestamp, idle_ms: u64) -> bool {
        self.examples > 0 && self.alive(now, idle_ms)
    }
}

/// Rounds over which it is told how long clients take: enough that one odd round does not count.
const RECENT_ROUNDS: usize = 5;

/// Shortest pause that a waiting client is asked for, in milliseconds: a thousand clients then cost 10,000 calls a
/// second at most, which one server answers.
const MIN_RETRY_MS: u64 = 100;

/// Longest pause that a waiting client is asked for, in milliseconds.
const MAX_RETRY_MS: u64 = 30_000;

#[cfg(test)]
mod tests;

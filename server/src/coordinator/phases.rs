//! From one phase of a run to the next: rounds that open, close and are given up.

use super::round::OpenRound;
use super::{ClientState, ClosedRound, Coordinator, Effect, Phase, RECENT_ROUNDS};
use crate::store::Record;
use dunlin_core::message::EvaluationReport;
use dunlin_core::report::FederatedEvaluation;
use dunlin_core::{ClientId, ModelVersion, Outcome, Timestamp};
use rand::seq::index;
use std::collections::BTreeMap;

impl Coordinator {
    /// Goes on after [`Effect::Publish`] was carried out; `target_reached` ends the run.
    pub fn published(&mut self, now: Timestamp, version: ModelVersion, target_reached: bool) {
        self.version = version;
        // Otherwise the run was stopped meanwhile.
        let Phase::Publishing { round, opened } = self.phase else { return };
        self.abandoned_in_row = 0;
        self.pace_ms = now.since(opened);
        if target_reached {
            self.finish(Outcome::TargetReached);
        } else if self.config.federated_every > 0 && round.is_multiple_of(self.config.federated_every) {
            self.open_evaluation(now);
        } else {
            self.phase = Phase::Gathering;
            self.advance(now);
        }
        self.generation += 1;
    }

    /// Lets time pass: members without progress are lost, a round at its deadline closes.
    pub fn tick(&mut self, now: Timestamp) {
        if let Phase::Training(round) | Phase::Evaluating { round, .. } = &mut self.phase {
            round.lose_idle(now);
        }
        self.close_if_complete(now);
        if matches!(self.phase, Phase::Gathering) {
            self.advance(now);
        }
    }

    /// When [`Self::tick`] has something to do; nothing while it waits for messages.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Training(round) | Phase::Evaluating { round, .. } => Some(round.next_deadline()),
            Phase::Gathering | Phase::Publishing { .. } | Phase::Finished(_) => None,
        }
    }

    /// Ends the run. An open round is dropped.
    pub fn stop(&mut self, now: Timestamp) {
        match &self.phase {
            Phase::Finished(_) => return,
            Phase::Training(round) => {
                let closed = round.close(now);
                self.spent += round.bytes();
                self.abandon(ClosedRound { cut_short: true, ..closed });
            }
            Phase::Gathering | Phase::Publishing { .. } | Phase::Evaluating { .. } => {}
        }
        self.finish(Outcome::Stopped);
    }

    /// Opens the next round if the run goes on and enough clients are there.
    pub(super) fn advance(&mut self, now: Timestamp) {
        if self.round >= self.config.count {
            self.finish(Outcome::Completed);
            return;
        }
        let eligible = self.eligible(now);
        let needed = if self.round == 0 {
            (self.config.min_clients as usize).max(self.config.asked as usize)
        } else {
            self.config.quorum as usize
        };
        if eligible.len() < needed {
            if self.round > 0 && self.at_most() < needed {
                self.finish(Outcome::GaveUp);
            }
            return;
        }
        self.round += 1;
        let members = self.choose(COHORT, &eligible);
        self.effects.push_back(Effect::Record(Record::RoundOpened {
            round: self.round,
            base: self.version,
            eligible: eligible.len() as u32,
            members: members.clone(),
        }));
        let mut round = OpenRound::new(&self.config, self.round, self.version, eligible.len() as u32, members, now);
        round.rejects = std::mem::take(&mut self.between);
        self.bound(&mut round);
        self.phase = Phase::Training(round);
        self.generation += 1;
    }

    pub(super) fn open_evaluation(&mut self, now: Timestamp) {
        let eligible = self.eligible(now);
        if eligible.is_empty() {
            self.phase = Phase::Gathering;
            self.advance(now);
            return;
        }
        let members = self.choose("evaluation cohort", &eligible);
        let round = OpenRound::new(&self.config, self.round, self.version, eligible.len() as u32, members, now);
        self.phase = Phase::Evaluating { round, reports: BTreeMap::new() };
        self.generation += 1;
    }

    /// Clients that a round may ever have: all of the federation but those that offer nothing.
    fn at_most(&self) -> usize {
        let all = self.clients.len().max(self.config.recipe.data.clients as usize);
        all - self.clients.values().filter(|client| client.offers_nothing).count()
    }

    /// Clients alive, in the order of their names.
    fn eligible(&self, now: Timestamp) -> Vec<ClientId> {
        let idle_ms = self.config.idle_ms;
        let alive = |(id, state): (&ClientId, &ClientState)| state.ready(now, idle_ms).then(|| id.clone());
        self.clients.iter().filter_map(alive).collect()
    }

    /// What members of a round must know about the length of their frames. It depends on what is durable alone, so a
    /// restart says the same, unless somebody has joined since the round was opened: then nothing is foretold.
    pub(super) fn bound(&self, round: &mut OpenRound) {
        round.max_bytes = self.config.recipe.max_update_bytes(round.number, self.spent);
        // Whoever is away now will be back, or not: draws among others are not foretold.
        if self.config.recipe.limits.client_bytes > 0 && round.eligible as usize == self.clients.len() {
            round.asks = self.foretold(round);
        }
    }

    /// How often members of a round will be drawn from now on, this time included, if nobody comes or goes.
    fn foretold(&self, round: &OpenRound) -> BTreeMap<ClientId, u32> {
        let mut asks = vec![0; self.clients.len()];
        let wanted = (self.config.asked as usize).min(asks.len());
        let to_come = self.config.count.saturating_sub(round.number);
        let seen = to_come.min(FORETOLD_ROUNDS);
        for number in round.number + 1..=round.number + seen {
            let mut rng = self.seed.derive_n(COHORT, number).rng();
            index::sample(&mut rng, asks.len(), wanted).into_iter().for_each(|i| asks[i] += 1);
        }
        // Beyond, as often as anybody.
        let unseen = (to_come - seen) * wanted as u64 / asks.len().max(1) as u64;
        let asks = self.clients.keys().zip(asks).filter(|(id, _)| round.members.contains_key(*id));
        asks.map(|(id, asks)| (id.clone(), u32::try_from(1 + asks + unseen).unwrap_or(u32::MAX))).collect()
    }

    /// A uniformly random cohort that depends only on the seed, the round and who is eligible.
    fn choose(&self, purpose: &str, eligible: &[ClientId]) -> Vec<ClientId> {
        let wanted = (self.config.asked as usize).min(eligible.len());
        let mut rng = self.seed.derive_n(purpose, self.round).rng();
        let mut members: Vec<_> =
            index::sample(&mut rng, eligible.len(), wanted).into_iter().map(|i| eligible[i].clone()).collect();
        members.sort();
        members
    }

    pub(super) fn close_if_complete(&mut self, now: Timestamp) {
        match &mut self.phase {
            Phase::Training(round) => {
                let Some(publishable) = round.complete(&self.config, now) else { return };
                let closed = round.close(now);
                self.spent += round.bytes();
                self.client_ms.extend(round.client_ms());
                if self.client_ms.len() > RECENT_ROUNDS {
                    self.client_ms.pop_front();
                }
                if publishable {
                    self.phase = Phase::Publishing { round: closed.number, opened: closed.opened };
                    self.effects.push_back(Effect::Publish(closed));
                } else {
                    self.abandoned_in_row += 1;
                    self.abandon(closed);
                    self.phase = Phase::Gathering;
                    if self.abandoned_in_row >= self.config.max_abandoned {
                        self.finish(Outcome::GaveUp);
                    } else {
                        self.advance(now);
                    }
                }
                self.generation += 1;
            }
            Phase::Evaluating { round, reports } => {
                if !round.all_resolved() && now < round.deadline {
                    return;
                }
                let effect = Effect::Evaluated { round: round.number, result: mean(reports.values()) };
                self.effects.push_back(effect);
                self.phase = Phase::Gathering;
                self.generation += 1;
                self.advance(now);
            }
            Phase::Gathering | Phase::Publishing { .. } | Phase::Finished(_) => {}
        }
    }

    /// Drops a round: an update of it that is sent again is late, as it is after a restart.
    fn abandon(&mut self, closed: ClosedRound) {
        for client in self.clients.values_mut() {
            client.last_accepted = client.last_accepted.filter(|(round, _)| *round != closed.number);
        }
        self.effects.push_back(Effect::Abandon(closed));
    }

    pub(super) fn finish(&mut self, outcome: Outcome) {
        self.phase = Phase::Finished(outcome);
        self.effects.push_back(Effect::Record(Record::Finished(outcome)));
        self.generation += 1;
    }
}

/// What a cohort's draw is for.
const COHORT: &str = "cohort";

/// Rounds whose draws are made ahead: what takes a few milliseconds.
const FORETOLD_ROUNDS: u64 = 1000;

/// What the clients found together, each of their examples counting alike. The reports come in the order of their
/// clients' names, so that the order in which they arrived does not tell in the last bits.
fn mean<'a>(reports: impl Iterator<Item = &'a EvaluationReport>) -> FederatedEvaluation {
    let (mut mean, mut correct, mut loss_sum) = (FederatedEvaluation::default(), 0, 0.0);
    for report in reports {
        mean.clients += 1;
        mean.examples += report.examples;
        correct += report.correct;
        // Finite, or a summary could not be read back from JSON: each report is, but their sum need not be.
        loss_sum = f64::clamp(loss_sum + report.loss_sum, f64::MIN, f64::MAX);
    }
    if mean.examples > 0 {
        mean.accuracy = correct as f64 / mean.examples as f64;
        mean.loss = loss_sum / mean.examples as f64;
    }
    mean
}

//! What people and metrics see of a coordinator.

use super::round::{OpenRound, median};
use super::{Coordinator, Member};
use dunlin_core::{Choice, ClientId, ModelVersion, Outcome, Reject, Timestamp};

/// The part of a run's life that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for clients.
    Gathering,
    /// A training round is open.
    Training,
    /// The next model is being computed and stored.
    Publishing,
    /// Clients evaluate the model.
    Evaluating,
    /// The run is over.
    Finished(Outcome),
}

impl Phase {
    /// The name in status replies and metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Gathering => "gathering",
            Self::Training => "training",
            Self::Publishing => "publishing",
            Self::Evaluating => "evaluating",
            Self::Finished(_) => "finished",
        }
    }
}

/// A coordinator's state at one time.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusView {
    /// Number of the server start.
    pub term: u32,
    /// What is going on.
    pub phase: Phase,
    /// The last round opened.
    pub round: u64,
    /// The newest version.
    pub version: ModelVersion,
    /// Clients that have joined.
    pub clients: u32,
    /// Of them, those seen lately.
    pub live: u32,
    /// Clients among which the members of the open round were chosen.
    pub eligible: u32,
    /// Members of the open round.
    pub chosen: u32,
    /// Why these.
    pub choice: Option<Choice>,
    /// Of them, those whose part is done.
    pub reported: u32,
    /// Of them, those that went silent.
    pub lost: u32,
    /// Longest frame of an update in the open round, or else the next one, in bytes; 0 for no such bound.
    pub max_bytes: u64,
    /// Median time from a task to its update over the clients of the last few rounds since the server started, in
    /// milliseconds.
    pub client_ms: Option<u64>,
    /// Refusals since the start, by reason and client.
    pub rejects: Vec<(Reject, Option<ClientId>, u64)>,
}

impl Coordinator {
    /// Where a client stands in the round or evaluation that is open; nothing where it was not asked.
    #[must_use]
    pub fn member(&self, client: &ClientId) -> Option<&Member> {
        match &self.phase {
            super::Phase::Training(round) | super::Phase::Evaluating { round, .. } => round.members.get(client),
            _ => None,
        }
    }

    /// The state for people and metrics.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> StatusView {
        let round = match &self.phase {
            super::Phase::Training(round) | super::Phase::Evaluating { round, .. } => Some(round),
            _ => None,
        };
        let tally = |wanted: &dyn Fn(&Member) -> bool| round.map_or(0, |round| round.tally(|member| wanted(member)));
        let idle_ms = self.config.idle_ms;
        StatusView {
            term: self.term,
            phase: match &self.phase {
                super::Phase::Gathering => Phase::Gathering,
                super::Phase::Training(_) => Phase::Training,
                super::Phase::Publishing { .. } => Phase::Publishing,
                super::Phase::Evaluating { .. } => Phase::Evaluating,
                super::Phase::Finished(outcome) => Phase::Finished(*outcome),
            },
            round: self.round,
            version: self.version,
            clients: self.clients.len() as u32,
            live: self.clients.values().filter(|client| client.alive(now, idle_ms)).count() as u32,
            eligible: round.map_or(0, |round| round.eligible),
            chosen: tally(&|_| true),
            choice: round.map(OpenRound::choice),
            reported: tally(&|member| matches!(member, Member::Counted(_))),
            lost: tally(&|member| matches!(member, Member::Lost | Member::Declined)),
            max_bytes: match &self.phase {
                super::Phase::Training(round) => round.max_bytes,
                _ => self.config.recipe.max_update_bytes(self.round + 1, self.spent),
            },
            client_ms: median(self.client_ms.iter().copied()),
            rejects: self.rejects.iter().map(|((reject, client), count)| (*reject, client.clone(), *count)).collect(),
        }
    }
}

//! What the coordinator needs of a recipe, and of the run's past.

use crate::store::{ClientRow, Restored};
use dunlin_core::message::UpdateHeader;
use dunlin_core::{ClientId, Digest, ModelVersion, Outcome, Recipe};
use std::sync::Arc;

/// The recipe's rules of participation, in the units in which they are applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Updates that a full round averages.
    pub cohort: u32,
    /// Clients asked in a round.
    pub asked: u32,
    /// Fewest updates to publish with.
    pub quorum: u32,
    /// Length of a round at most, in milliseconds.
    pub deadline_ms: u64,
    /// Silence after which a client counts as lost, in milliseconds.
    pub idle_ms: u64,
    /// Clients to wait for before the first round.
    pub min_clients: u32,
    /// Rounds of the run.
    pub count: u64,
    /// Abandoned rounds in a row that end the run.
    pub max_abandoned: u32,
    /// Federated evaluation every so many rounds; 0 for never.
    pub federated_every: u64,
    /// Most examples that one update may stand for.
    pub max_examples: u32,
    /// Most clients registered.
    pub max_clients: u32,
    /// Longest frame, in bytes.
    pub max_frame_bytes: u64,
    /// What says how updates are encoded, and how long they may be.
    pub recipe: Arc<Recipe>,
}

impl Config {
    /// The rules of a recipe for a model whose frames are at most `max_frame_bytes` long.
    #[must_use]
    pub fn from_recipe(recipe: &Recipe, max_frame_bytes: u64) -> Self {
        let rounds = &recipe.rounds;
        Self {
            cohort: rounds.cohort,
            asked: recipe.cohort_size(),
            quorum: recipe.quorum(),
            deadline_ms: (rounds.deadline_s * 1000.0) as u64,
            idle_ms: (rounds.idle_timeout_s * 1000.0) as u64,
            min_clients: recipe.min_clients(),
            count: rounds.count,
            max_abandoned: rounds.max_abandoned,
            federated_every: rounds.federated_evaluation_every,
            max_examples: recipe.limits.max_examples,
            max_clients: recipe.limits.max_clients,
            max_frame_bytes,
            recipe: Arc::new(recipe.clone()),
        }
    }
}

/// The past of a run that goes on; the default is a run without one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resume {
    /// The last term.
    pub term: u32,
    /// The clients known.
    pub clients: Vec<ClientRow>,
    /// Number of the last round opened.
    pub round: u64,
    /// The last version published.
    pub version: ModelVersion,
    /// Rounds abandoned since.
    pub abandoned_in_row: u32,
    /// The round that was open.
    pub open: Option<ResumeRound>,
    /// The last update accepted of each client: round and digest.
    pub receipts: Vec<(ClientId, u64, Digest)>,
    /// Whether the last version reached the target accuracy.
    pub target_reached: bool,
    /// Whether the last round's federated evaluation is still to be done.
    pub evaluation_due: bool,
    /// How the run ended.
    pub outcome: Option<Outcome>,
    /// Bytes of the updates accepted in the rounds before.
    pub spent: u64,
}

/// A round that was open when the server stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct ResumeRound {
    /// Its number.
    pub round: u64,
    /// The version that it starts from.
    pub base: ModelVersion,
    /// Clients among which the cohort was chosen.
    pub eligible: u32,
    /// The cohort.
    pub members: Vec<ClientId>,
    /// The updates accepted so far.
    pub updates: Vec<UpdateHeader>,
}

impl Resume {
    /// What the coordinator needs of what a store restored.
    #[must_use]
    pub fn from_store(restored: &Restored, recipe: &Recipe) -> Self {
        let summaries = &restored.summaries;
        let last = summaries.last();
        let every = recipe.rounds.federated_evaluation_every;
        let due = |round: u64| every > 0 && round.is_multiple_of(every);
        Self {
            term: restored.term,
            clients: restored.clients.clone(),
            round: last.map_or(0, |summary| summary.round),
            version: ModelVersion(last.map_or(0, |summary| summary.version)),
            abandoned_in_row: summaries.iter().rev().take_while(|summary| !summary.published).count() as u32,
            open: restored.open.as_ref().map(|open| ResumeRound {
                round: open.round,
                base: open.base,
                eligible: open.eligible,
                members: open.members.clone(),
                updates: open.updates.iter().map(|(header, _)| header.clone()).collect(),
            }),
            receipts: restored.receipts.clone(),
            target_reached: last.is_some_and(|summary| reaches_target(recipe, summary.round, summary.accuracy)),
            evaluation_due: last
                .is_some_and(|summary| summary.published && due(summary.round) && summary.federated.is_none()),
            outcome: restored.outcome,
            spent: summaries.iter().map(|summary| summary.coded).sum(),
        }
    }
}

/// Whether a test accuracy after a round ends a run of this recipe: not before all of its pruning is done.
pub(crate) fn reaches_target(recipe: &Recipe, round: u64, accuracy: Option<f64>) -> bool {
    let target = recipe.rounds.target_accuracy;
    let is_pruned = !recipe.pruning.is_on() || round >= recipe.pruning.last_round();
    target > 0.0 && is_pruned && accuracy.is_some_and(|accuracy| accuracy >= target)
}

//! Rounds: who takes part, when they close, when the run ends.

use serde::{Deserialize, Serialize};

/// Rounds: participation, closing, ending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoundsConfig {
    /// Most rounds to run.
    pub count: u64,
    /// Updates that a full round averages.
    pub cohort: u32,
    /// Clients chosen per update wanted; above 1, the slowest are not waited for.
    pub over_selection: f64,
    /// Smallest share of `cohort` whose updates a round may publish with at its deadline.
    pub quorum: f64,
    /// Seconds after which a round closes with what it has, or is abandoned below quorum.
    pub deadline_s: f64,
    /// Seconds without progress after which a chosen client counts as lost.
    pub idle_timeout_s: f64,
    /// Clients that must have checked in before the first cohort is chosen; 0 means `data.clients`.
    pub min_clients: u32,
    /// Evaluate on the server's test set every so many rounds; 0 means only at the end.
    pub evaluate_every: u64,
    /// Which model is evaluated.
    pub evaluate: Evaluated,
    /// Ask clients to evaluate on their own data every so many rounds; 0 means never.
    pub federated_evaluation_every: u64,
    /// Stop when this test accuracy is reached; 0 means never.
    pub target_accuracy: f64,
    /// Whether reaching the target is required: then a run that ends without it ends with an error.
    pub target_required: bool,
    /// Rounds abandoned in a row after which the run gives up.
    pub max_abandoned: u32,
}

/// Which model the server evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evaluated {
    /// ŵ, which clients hold.
    Broadcast,
    /// w, which nobody else has.
    Server,
}

impl Default for RoundsConfig {
    fn default() -> Self {
        Self {
            count: 80,
            cohort: 10,
            over_selection: 1.0,
            quorum: 0.8,
            deadline_s: 600.0,
            idle_timeout_s: 60.0,
            min_clients: 0,
            evaluate_every: 1,
            evaluate: Evaluated::Broadcast,
            federated_evaluation_every: 0,
            target_accuracy: 0.0,
            target_required: false,
            max_abandoned: 10,
        }
    }
}

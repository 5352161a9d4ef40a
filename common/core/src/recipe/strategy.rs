//! The server's optimizer.

use serde::{Deserialize, Serialize};

/// The server's optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StrategyConfig {
    /// The rule that turns the mean update into a step.
    pub kind: StrategyKind,
    /// Step size η of the server; 0 means the kind's own default (1 for averaging, 0.1 for the adaptive kinds).
    pub learning_rate: f64,
    /// Factor on the step size per round.
    pub learning_rate_decay: f64,
    /// Momentum of `FedAvgM`, and β₁ of the adaptive kinds.
    pub momentum: f64,
    /// β₂ of `FedAdam` and `FedYogi`.
    pub beta2: f64,
    /// Degree of adaptivity τ of the adaptive kinds.
    pub tau: f64,
}

/// A server optimizer (Reddi et al. 2021).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StrategyKind {
    /// The mean update as it is.
    FedAvg,
    /// With heavy-ball momentum.
    FedAvgM,
    /// Adagrad on the server.
    FedAdagrad,
    /// Adam on the server.
    FedAdam,
    /// Yogi on the server.
    FedYogi,
}

impl Default for StrategyConfig {
    fn default() -> Self {
        Self {
            kind: StrategyKind::FedAvg,
            learning_rate: 0.0,
            learning_rate_decay: 1.0,
            momentum: 0.9,
            beta2: 0.99,
            tau: 1e-3,
        }
    }
}

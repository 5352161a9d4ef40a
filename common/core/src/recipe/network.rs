//! Links and devices of a simulated world.

use serde::{Deserialize, Serialize};

/// The simulated world; a federation of separate machines has a real one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Kinds of client; none means links and devices that take no time.
    pub class: Vec<ClientClass>,
}

/// One kind of client in a simulation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientClass {
    /// Name for the report.
    pub name: String,
    /// Share of the clients that are of this class, relative to the other classes' shares.
    pub share: f64,
    /// Upload bandwidth in kilobits per second; 0 means infinite.
    pub up_kbps: f64,
    /// Download bandwidth in kilobits per second; 0 means infinite.
    pub down_kbps: f64,
    /// One-way latency in milliseconds.
    pub latency_ms: f64,
    /// Probability that a message is lost and must be sent again.
    pub loss: f64,
    /// Probability that a client leaves in a round before its update is sent.
    pub churn: f64,
    /// Training examples that the device processes per second; 0 means infinitely many.
    pub examples_per_s: f64,
}

impl Default for ClientClass {
    fn default() -> Self {
        Self {
            name: "client".into(),
            share: 1.0,
            up_kbps: 0.0,
            down_kbps: 0.0,
            latency_ms: 0.0,
            loss: 0.0,
            churn: 0.0,
            examples_per_s: 0.0,
        }
    }
}

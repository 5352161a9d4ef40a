//! Dunlin: federated learning for links where bytes are the budget.
//!
//! One recipe file describes a federation. This library runs it in one process with simulated time: see [`Simulation`].
//! The parts are crates of their own, found here under short names.

pub mod simulation;

pub use dunlin_client as client;
pub use dunlin_codec as codec;
pub use dunlin_core as core;
pub use dunlin_core::{Recipe, Report, RoundSummary};
pub use dunlin_nn as nn;
pub use dunlin_server as server;
pub use simulation::{Simulation, SimulationError, SimulationOutcome};

//! Where the server's time goes.

use std::time::Duration;

/// Time spent since the start, by what it was spent on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Timings {
    /// Rounds published.
    pub rounds: u64,
    /// Making rows and frames durable.
    pub sync: Duration,
    /// Decoding updates into the sum.
    pub sum: Duration,
    /// Mean, server step and downlink packet.
    pub publish: Duration,
    /// Evaluation on the test set.
    pub evaluate: Duration,
    /// Checking frames before they are offered, on other threads than the rest.
    pub vet: Duration,
    /// Everything else that the engine's thread did: the coordinator's decisions, answers and wake-ups.
    pub decide: Duration,
}

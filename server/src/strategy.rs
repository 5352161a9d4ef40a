//! What the server does with the mean update: averaging and the adaptive optimizers of Reddi et al., "Adaptive
//! Federated Optimization" (2021), Algorithm 2.

mod adaptive;
mod averaging;
#[cfg(test)]
mod tests;

pub use adaptive::{Adaptive, SecondMoment};
pub use averaging::{FedAvg, FedAvgM};

use dunlin_core::recipe::{StrategyConfig, StrategyKind};

/// A server optimizer: it moves the global model by the mean of a round's updates.
///
/// Plain arithmetic on its arguments and its own vectors, so the same rounds give the same bits; every implementation
/// runs the contract suite in this module's tests.
pub trait Strategy: Send {
    /// The name in recipes, logs and checkpoints.
    fn name(&self) -> &'static str;

    /// Moves `w` for the given round, counted from 1, whose updates had this `mean`.
    fn step(&mut self, round: u64, mean: &[f32], w: &mut [f32]);

    /// The vectors that the next step depends on, each as long as the model, in an order that
    /// [`Self::restore`] understands.
    fn state(&self) -> Vec<&[f32]>;

    /// Goes on from vectors that [`Self::state`] gave.
    ///
    /// # Errors
    /// When their number or a length is not this strategy's; then nothing changes.
    fn restore(&mut self, state: Vec<Vec<f32>>) -> Result<(), StateError>;
}

/// The state is not one of this strategy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{strategy} keeps vectors of lengths {expected:?}; the state has {found:?}")]
pub struct StateError {
    /// The strategy that was to take it.
    pub strategy: &'static str,
    /// Lengths that it keeps.
    pub expected: Vec<usize>,
    /// Lengths that were given.
    pub found: Vec<usize>,
}

/// The strategy of a recipe for a model of `len` parameters, at rest.
#[must_use]
pub fn from_config(config: &StrategyConfig, len: usize) -> Box<dyn Strategy> {
    let rate = ServerRate::new(config);
    let adaptive = |moment| -> Box<dyn Strategy> { Box::new(Adaptive::new(moment, config, rate, len)) };
    match config.kind {
        StrategyKind::FedAvg => Box::new(FedAvg::new(rate)),
        StrategyKind::FedAvgM => Box::new(FedAvgM::new(rate, config.momentum as f32, len)),
        StrategyKind::FedAdagrad => adaptive(SecondMoment::Adagrad),
        StrategyKind::FedAdam => adaptive(SecondMoment::Adam),
        StrategyKind::FedYogi => adaptive(SecondMoment::Yogi),
    }
}

/// The server's step size by round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ServerRate {
    first: f64,
    decay: f64,
}

impl ServerRate {
    /// The step size of a recipe, where 0 stands for the kind's default: 1 for averaging, 0.1 for the adaptive kinds
    /// (a middle value of the grids in Reddi et al., Appendix D).
    #[must_use]
    pub fn new(config: &StrategyConfig) -> Self {
        let first = match (config.learning_rate, config.kind) {
            (0.0, StrategyKind::FedAvg | StrategyKind::FedAvgM) => 1.0,
            (0.0, StrategyKind::FedAdagrad | StrategyKind::FedAdam | StrategyKind::FedYogi) => 0.1,
            (rate, _) => rate,
        };
        Self { first, decay: config.learning_rate_decay }
    }

    /// The step size of a round, counted from 1.
    ///
    /// The power is taken by squaring, since a library's `pow` may differ in its last bit between platforms.
    #[must_use]
    pub fn at(&self, round: u64) -> f32 {
        let mut exponent = round.saturating_sub(1);
        let (mut power, mut square) = (1.0, self.decay);
        while exponent > 0 {
            if exponent & 1 == 1 {
                power *= square;
            }
            square *= square;
            exponent >>= 1;
        }
        (self.first * power) as f32
    }
}

/// Checks vectors from outside against the lengths of a strategy's own.
fn check_state(strategy: &'static str, own: &[&[f32]], given: &[Vec<f32>]) -> Result<(), StateError> {
    let expected: Vec<usize> = own.iter().map(|vector| vector.len()).collect();
    let found: Vec<usize> = given.iter().map(Vec::len).collect();
    if expected == found { Ok(()) } else { Err(StateError { strategy, expected, found }) }
}

//! What a client does with its own data: the part of it that a user may replace.

use dunlin_core::recipe::TrainingConfig;
use dunlin_core::{Layout, Seed};
use dunlin_nn::Threads;
use dunlin_nn::data::Examples;
use dunlin_nn::model::Model;
use dunlin_nn::train::{self, Evaluation, TrainTask};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Called after each step with the steps done and all steps; breaking stops the training.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64) -> ControlFlow<()>;

/// Trains and evaluates a model, as its flat parameters, on data that stays with the client.
///
/// The result must depend on the arguments and the data alone: then a run can be repeated, and a client that crashed
/// computes the same update again.
pub trait Trainer: Send {
    /// The tensors of the model.
    fn layout(&self) -> &Layout;

    /// Training examples at hand.
    fn examples(&self) -> u32;

    /// Trains in `round` (from 1): moves `params`, which come as the broadcast model and as many as the layout has, to
    /// where training leads, and returns the mean training loss over the last epoch. Their memory may be lent to the
    /// model, so that nothing is copied; their number must stay.
    ///
    /// # Errors
    /// When training was stopped by `progress`, or failed; then what `params` hold is of no use.
    fn train(
        &mut self,
        round: u64,
        seed: Seed,
        params: &mut Vec<f32>,
        progress: Progress<'_>,
    ) -> Result<f64, TrainerError>;

    /// Evaluates on the client's own data.
    ///
    /// # Errors
    /// When the evaluation fails.
    fn evaluate(&mut self, params: &[f32]) -> Result<Evaluation, TrainerError>;
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum TrainerError {
    /// `progress` said so.
    #[error("training was stopped")]
    Stopped,
    /// Training or evaluation failed.
    #[error(transparent)]
    Failed(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// The trainer of the built-in models: candle on the client's rows.
pub struct CandleTrainer {
    model: Model,
    data: Examples,
    config: TrainingConfig,
    threads: Arc<Threads>,
}

impl CandleTrainer {
    /// A trainer of `model` on `data`, with these threads.
    #[must_use]
    pub fn new(model: Model, data: Examples, config: TrainingConfig, threads: Arc<Threads>) -> Self {
        Self { model, data, config, threads }
    }
}

impl Trainer for CandleTrainer {
    fn layout(&self) -> &Layout {
        self.model.layout()
    }

    fn examples(&self) -> u32 {
        self.data.len() as u32
    }

    fn train(
        &mut self,
        round: u64,
        seed: Seed,
        params: &mut Vec<f32>,
        progress: Progress<'_>,
    ) -> Result<f64, TrainerError> {
        let task = TrainTask { config: &self.config, round, seed, threads: &self.threads };
        match train::train(&mut self.model, &self.data, params, &task, progress) {
            Ok(result) => Ok(result.loss),
            Err(dunlin_nn::Error::Stopped) => Err(TrainerError::Stopped),
            Err(error) => Err(TrainerError::Failed(Box::new(error))),
        }
    }

    fn evaluate(&mut self, params: &[f32]) -> Result<Evaluation, TrainerError> {
        train::evaluate(&mut self.model, &self.data, params, &self.threads)
            .map_err(|error| TrainerError::Failed(Box::new(error)))
    }
}

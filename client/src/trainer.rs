//! What a client does with its own data: the part of it that a user may replace.

use dunlin_codec::Mask;
use dunlin_core::recipe::TrainingConfig;
use dunlin_core::{Layout, Seed};
use dunlin_nn::Threads;
use dunlin_nn::data::Examples;
use dunlin_nn::model::Model;
use dunlin_nn::train::{self, Evaluation, TrainTask};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Called after each step with the steps done and all steps; breaking stops the training. A client whose training makes no
/// step for `rounds.idle_timeout_s` is given up.
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

    /// Trains: moves `params`, which come as the broadcast model and as many as the layout has, to where training leads,
    /// and returns the mean training loss over the last epoch. Their memory may be lent to the model, so that nothing is
    /// copied; their number must stay.
    ///
    /// What is not left of the model is zero and should stay so; whatever becomes of it, nothing of it is sent.
    ///
    /// # Errors
    /// When training was stopped by `progress`, or failed; then what `params` hold is of no use.
    fn train(&mut self, work: &Work<'_>, params: &mut Vec<f32>, progress: Progress<'_>) -> Result<f64, TrainerError>;

    /// The mean gradient of the loss over the client's data at `params`, as many values as the layout has, and the mean
    /// loss: what some ways of pruning ask for.
    ///
    /// # Errors
    /// When it was stopped or failed, and from a trainer that has none to give, which need not write this method.
    fn gradient(&mut self, params: &mut Vec<f32>, progress: Progress<'_>) -> Result<(Vec<f32>, f64), TrainerError> {
        let _ = (params, progress);
        let problem = "this trainer gives no gradients: with it, pruning.importance must be \"magnitude\" or \"votes\" and \
                       pruning.regrow 0";
        Err(TrainerError::Failed(problem.into()))
    }

    /// Evaluates on the client's own data.
    ///
    /// # Errors
    /// When the evaluation fails.
    fn evaluate(&mut self, params: &[f32]) -> Result<Evaluation, TrainerError>;
}

/// What is asked of a trainer in a round.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The round, from 1.
    pub round: u64,
    /// From which all that is random in it is to be derived.
    pub seed: Seed,
    /// What is left of the model.
    pub mask: &'a Mask,
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

impl TrainerError {
    /// The key of the recipe whose value is to blame, where one is.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Stopped => None,
            Self::Failed(error) => error.downcast_ref::<dunlin_nn::Error>()?.key(),
        }
    }
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

    fn train(&mut self, work: &Work<'_>, params: &mut Vec<f32>, progress: Progress<'_>) -> Result<f64, TrainerError> {
        let mask = (!work.mask.is_all()).then_some(work.mask);
        let task = TrainTask { config: &self.config, round: work.round, seed: work.seed, threads: &self.threads, mask };
        let smaller = match mask {
            Some(mask) => self.model.shrunk(mask).map_err(failed)?,
            None => None,
        };
        let result = match smaller {
            // What is left of the parameters are those of the smaller model.
            Some(mut model) => {
                work.mask.gather(params);
                let task = TrainTask { mask: None, ..task };
                let result = train::train(&mut model, &self.data, params, &task, progress);
                *params = work.mask.scatter(params);
                result
            }
            None => train::train(&mut self.model, &self.data, params, &task, progress),
        };
        result.map(|result| result.loss).map_err(failed)
    }

    fn gradient(&mut self, params: &mut Vec<f32>, progress: Progress<'_>) -> Result<(Vec<f32>, f64), TrainerError> {
        train::gradient(&mut self.model, &self.data, params, &self.threads, progress).map_err(failed)
    }

    fn evaluate(&mut self, params: &[f32]) -> Result<Evaluation, TrainerError> {
        train::evaluate(&mut self.model, &self.data, params, &self.threads).map_err(failed)
    }
}

fn failed(error: dunlin_nn::Error) -> TrainerError {
    match error {
        dunlin_nn::Error::Stopped => TrainerError::Stopped,
        error => TrainerError::Failed(Box::new(error)),
    }
}

//! Evaluation of the broadcast model on the server's own test set.

use dunlin_core::Recipe;
use dunlin_core::recipe::ModelKind;
use dunlin_nn::Threads;
use dunlin_nn::data::{Examples, Split};
use dunlin_nn::model::{Device, Model};
use dunlin_nn::train::{self, Evaluation};
use std::sync::Arc;

/// Says how good a model is.
pub trait Evaluate: Send {
    /// Evaluates flat parameters.
    ///
    /// # Errors
    /// When the model cannot be run on the test set.
    fn evaluate(&mut self, params: &[f32]) -> Result<Evaluation, dunlin_nn::Error>;
}

/// Evaluation with candle on a held-out test set.
pub struct TestSet {
    model: Model,
    examples: Examples,
}

impl TestSet {
    /// The test set of a split, or nothing when it is empty.
    ///
    /// # Errors
    /// When the recipe's model does not fit the data.
    pub fn new(recipe: &Recipe, split: &Split) -> Result<Option<Self>, dunlin_nn::Error> {
        if split.test.is_empty() || recipe.model.kind == ModelKind::Trivial {
            return Ok(None);
        }
        let model = Model::new(&recipe.model, split.test.input())?;
        Ok(Some(Self { model, examples: Examples::all(Arc::clone(&split.test)) }))
    }
}

impl TestSet {
    /// Evaluates on this device.
    ///
    /// # Errors
    /// When it has no room for the model.
    pub fn on(self, device: &Device) -> Result<Self, dunlin_nn::Error> {
        Ok(Self { model: self.model.on(device)?, ..self })
    }
}

impl Evaluate for TestSet {
    fn evaluate(&mut self, params: &[f32]) -> Result<Evaluation, dunlin_nn::Error> {
        train::evaluate(&mut self.model, &self.examples, params, &Threads::one())
    }
}

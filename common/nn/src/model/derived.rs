//! Models made of another one: without the channels that were pruned, or as it belongs into a file.

use super::{Model, Steps, WeightFormat};
use crate::Error;
use crate::small::Channels;
use dunlin_codec::Mask;
use dunlin_core::Recipe;
use dunlin_core::recipe::{ModelConfig, Pattern};
use std::sync::Arc;

impl Model {
    /// The smaller model whose parameters are what a mask leaves of this one's, in the same order: nothing when the mask
    /// leaves parts of filters or units, or the model has no layers that may lose any.
    ///
    /// # Errors
    /// When the mask is of another model.
    pub fn shrunk(&self, mask: &Mask) -> Result<Option<Self>, Error> {
        let (expected, actual) = (self.layout.len(), mask.whole().len());
        if expected != actual {
            return Err(Error::ParameterCount { expected, actual });
        }
        let left = self.channels().and_then(|channels| channels.left(mask));
        left.map(|left| self.with_channels(&left)).transpose()
    }

    /// The same model without the filters and units that do nothing, and its parameters; as it is where all do something,
    /// or the model has no layers that may lose any.
    ///
    /// # Errors
    /// When there are not as many parameters as the layout has.
    pub fn compacted(&self, params: &[f32]) -> Result<(Self, Vec<f32>), Error> {
        self.expect_len(params)?;
        let mut params = params.to_vec();
        let (config, input) = (self.config.clone(), &self.input);
        let Some(channels) = self.channels() else { return Ok((Self::new(config, input)?, params)) };
        let left = channels.alive(&params);
        if let Some(mask) = channels.mask(Arc::new(self.layout.segments()), &left) {
            mask.gather(&mut params);
        }
        Ok((self.with_channels(&left)?, params))
    }

    /// Where norms take channels together, a model whose pruned channels are zeros is not the one without them, which was
    /// trained: then that one and its mask, if there are any.
    ///
    /// # Errors
    /// When there are not as many parameters as the layout has.
    pub(crate) fn lean(&self, params: &[f32]) -> Result<Option<(Self, Mask)>, Error> {
        self.expect_len(params)?;
        let Some(channels) = self.channels().filter(Channels::are_normed) else { return Ok(None) };
        let left = channels.alive(params);
        match channels.mask(Arc::new(self.layout.segments()), &left).filter(|mask| !mask.is_all()) {
            Some(mask) => Ok(Some((self.with_channels(&left)?, mask))),
            None => Ok(None),
        }
    }

    /// The model that a recipe's run leads to, and its parameters: without the filters and units that the recipe has pruned.
    ///
    /// # Errors
    /// When there are not as many parameters as the layout has.
    pub fn resulting(self, recipe: &Recipe, params: Vec<f32>) -> Result<(Self, Vec<f32>), Error> {
        let has_lost_channels = recipe.pruning.is_on() && recipe.pruning.pattern == Pattern::Channels;
        if has_lost_channels { self.compacted(&params) } else { Ok((self, params)) }
    }

    /// The layers that may lose channels; none where that would leave their steps.
    fn channels(&self) -> Option<Channels> {
        if self.init.len() == self.layout.tensors().len() { Channels::of(&self.layout) } else { None }
    }

    fn with_channels(&self, left: &[Vec<bool>]) -> Result<Self, Error> {
        let count = |left: &Vec<bool>| left.iter().filter(|&&is_left| is_left).count().to_string();
        let channels = left.iter().map(count).collect::<Vec<_>>().join(", ");
        let model = Self::new(ModelConfig { channels, ..self.config.clone() }, &self.input)?;
        match &self.remote {
            Some(remote) => model.composed_on(remote.device()),
            None => Ok(model),
        }
    }

    /// The model that belongs into a file, and its parameters: those that a model computes with whose trained ones are
    /// `params`. It rounds nothing itself, and has no steps.
    ///
    /// # Errors
    /// When there are not as many as the layout has.
    pub fn deployed(&self, params: &[f32]) -> Result<(Self, Vec<f32>), Error> {
        self.expect_len(params)?;
        let mut deployed = params.to_vec();
        if let Some(rounded) = &self.rounded {
            rounded.round(&mut deployed);
        }
        let config = ModelConfig { weights: WeightFormat::F32, steps: Steps::Fitted, ..self.config.clone() };
        let model = Self::new(config, &self.input)?;
        deployed.truncate(model.layout.len());
        Ok((model, deployed))
    }
}

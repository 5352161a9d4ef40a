//! Models of which few weights are left, with those alone.

use super::{Model, views};
use crate::Error;
use crate::ops::Pattern;
use candle_core::{DType, Device, TensorId, Var};
use dunlin_codec::Mask;
use dunlin_core::{Layout, TensorSpec};
use std::collections::HashMap;
use std::sync::Arc;

/// Where the weights stand that are left of layers whose tensors hold nothing else.
pub(super) type Patterns = HashMap<TensorId, Arc<Pattern>>;

/// A model whose layers have only what is left of their weights, in the place of zeros: parameters, gradients and all that
/// an optimizer keeps are shorter vectors.
pub(crate) struct SparseModel {
    /// The same architecture; weights of which few are left are vectors of those.
    pub(crate) model: Model,
    /// Its parameters among those of the whole model.
    within: Mask,
    /// What is left of it, where it still has coordinates that are gone: those of layers that lost too few.
    left: Option<Mask>,
}

impl SparseModel {
    /// Works on this model with what is left of the whole one's parameters, and puts that back among zeros.
    pub(crate) fn with<R>(
        &mut self,
        params: &mut Vec<f32>,
        work: impl FnOnce(&mut Model, Option<&Mask>, &mut Vec<f32>) -> R,
    ) -> R {
        self.within.gather(params);
        let result = work(&mut self.model, self.left.as_ref(), params);
        *params = self.within.scatter(params);
        result
    }
}

impl Model {
    /// The model as it is quicker to train with what a mask leaves of it. Nothing where no layer has lost enough, or where
    /// all weights are computed with: on other devices, and where weights are rounded.
    ///
    /// # Errors
    /// When the mask is of another model.
    pub(crate) fn sparse(&self, mask: &Mask) -> Result<Option<SparseModel>, Error> {
        let (expected, actual) = (self.layout.len(), mask.whole().len());
        if expected != actual {
            return Err(Error::ParameterCount { expected, actual });
        }
        if !self.is_taped || self.rounded.is_some() || self.remote.is_some() || self.flat.dtype() != DType::F32 {
            return Ok(None);
        }
        let mut places = vec![Vec::new(); self.layout.tensors().len()];
        let mut indices = mask.indices().peekable();
        for (tensor, places) in places.iter_mut().enumerate() {
            let range = self.layout.range(tensor);
            while let Some(index) = indices.next_if(|index| *index < range.end) {
                places.push(index - range.start);
            }
        }
        let is_sparse: Vec<bool> = (0..places.len())
            .map(|tensor| {
                let (all, left) = (self.layout.tensors()[tensor].len(), places[tensor].len());
                self.weights.contains(&tensor) && left > 0 && left as f64 <= MOST_LEFT * all as f64
            })
            .collect();
        if !is_sparse.contains(&true) {
            return Ok(None);
        }
        let mut specs = self.layout.tensors().to_vec();
        for (tensor, spec) in specs.iter_mut().enumerate().filter(|(tensor, _)| is_sparse[*tensor]) {
            *spec = TensorSpec::new(spec.name.clone(), [places[tensor].len()]);
        }
        let layout = Layout::new(specs).expect("a layout with shorter tensors is one");
        let mut is_within = vec![true; self.layout.len()];
        for tensor in (0..places.len()).filter(|&tensor| is_sparse[tensor]) {
            let start = self.layout.range(tensor).start;
            is_within[self.layout.range(tensor)].fill(false);
            places[tensor].iter().for_each(|place| is_within[start + place] = true);
        }
        let within = Mask::new(Arc::clone(mask.whole()), |index| is_within[index]).expect("something is left");
        let is_left: Vec<bool> = within.indices().map(|index| mask.contains(index)).collect();
        let left = Mask::new(Arc::new(layout.segments()), |index| is_left[index]).expect("something is left");

        let flat = Var::zeros(layout.len(), DType::F32, &Device::Cpu)?;
        let views = views(&flat.as_detached_tensor(), &layout)?;
        let patterns =
            places.into_iter().enumerate().filter(|(tensor, _)| is_sparse[*tensor]).map(|(tensor, places)| {
                let shape = &self.layout.tensors()[tensor].shape;
                (views[tensor].id(), Arc::new(Pattern::new(shape, places.into_iter())))
            });
        let model = Self {
            config: self.config.clone(),
            input: self.input,
            architecture: Arc::clone(&self.architecture),
            is_taped: true,
            init: self.init.clone(),
            weights: Vec::new(),
            patterns: patterns.collect(),
            trained: self.trained.clone(),
            layout,
            flat,
            views,
            rounded: None,
            remote: None,
        };
        Ok(Some(SparseModel { model, within, left: Some(left).filter(|left| !left.is_all()) }))
    }
}

/// Share of a layer's weights up to which going through those alone is quicker than through all.
const MOST_LEFT: f64 = 0.125;

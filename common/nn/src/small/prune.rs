//! Magnitude pruning: the weights of the least size become zero.

use super::{Evidence, Pruning};
use dunlin_codec::Mask;
use dunlin_core::recipe::{PruningConfig, Scope};
use dunlin_core::{Layout, TensorSpec};
use std::sync::Arc;

/// How many weights stay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keep {
    /// This share of the elements of matrices and kernels, rounded; vectors are not pruned.
    Density(f64),
    /// So many parameters of the whole model, vectors included, which are not pruned.
    Parameters(usize),
}

/// Sets the smallest elements of the tensors of two and more axes to zero: of all of them together, or the same share of
/// each if `per_layer` is set. Of equal ones the first stay, and at least one in each tensor.
///
/// # Panics
/// When a density is not from 0 to 1.
pub fn prune(tensors: &mut [(TensorSpec, Vec<f32>)], keep: Keep, per_layer: bool) {
    let (density, parameters) = match keep {
        Keep::Density(density) => (density, 0),
        Keep::Parameters(count) => (1.0, count.max(1) as u64),
    };
    assert!((0.0..=1.0).contains(&density), "a density of {density}");
    let scope = if per_layer { Scope::Layer } else { Scope::Global };
    let config = PruningConfig { density, parameters, scope, steps: 1, ..PruningConfig::default() };
    let layout = Layout::new(tensors.iter().map(|(spec, _)| spec.clone()).collect()).expect("a model's tensors");
    let scores: Vec<f32> = tensors.iter().flat_map(|(_, values)| values.iter().map(|value| value.abs())).collect();
    let all = Mask::all(Arc::new(layout.segments()));
    let Some(mask) = Pruning::new(&config, &layout).step(1, &all, Evidence { scores: &scores, gradients: &[] }) else {
        return;
    };
    for (tensor, (_, values)) in tensors.iter_mut().enumerate() {
        for (index, value) in layout.range(tensor).zip(values) {
            if !mask.contains(index) {
                *value = 0.0;
            }
        }
    }
}

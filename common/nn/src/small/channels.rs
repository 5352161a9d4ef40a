//! Whole filters and units: which coordinates belong to each, so that a model without some of them is a smaller model.

use dunlin_codec::{Mask, Segments};
use dunlin_core::Layout;
use std::ops::Range;
use std::sync::Arc;

/// The layers of a chain, such as a VGG or a 2NN: each a matrix or kernel and its bias, each fed by the one before.
///
/// A *channel* is an output of a layer: a filter or a unit. To it belong its row of the weights, its bias, and what the
/// next layer makes of it. Outputs of the last layer are classes, and no channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    layers: Vec<Layer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Layer {
    name: String,
    weight: Range<usize>,
    bias: Range<usize>,
    outputs: usize,
    /// Elements of the weights for each output.
    row: usize,
    /// Of them for each channel of the layer before.
    of_channel: usize,
}

impl Channels {
    /// The layers of a model; nothing when its tensors are not those of a chain.
    #[must_use]
    pub fn of(layout: &Layout) -> Option<Self> {
        let tensors = layout.tensors();
        let mut layers: Vec<Layer> = Vec::new();
        for pair in (0..tensors.len()).step_by(2) {
            let (weight, bias) = (&tensors[pair], tensors.get(pair + 1)?);
            let (outputs, row) = (*weight.shape.first()?, weight.shape.get(1..)?.iter().product::<usize>());
            if weight.shape.len() < 2 || bias.shape != [outputs] {
                return None;
            }
            let of_channel = match layers.last() {
                Some(before) if row.is_multiple_of(before.outputs) => row / before.outputs,
                Some(_) => return None,
                None => row,
            };
            let (weight_range, bias) = (layout.range(pair), layout.range(pair + 1));
            layers.push(Layer { name: weight.name.clone(), weight: weight_range, bias, outputs, row, of_channel });
        }
        (!layers.is_empty()).then_some(Self { layers })
    }

    /// How many channels each layer but the last has.
    pub fn counts(&self) -> impl Iterator<Item = usize> + '_ {
        self.hidden().iter().map(|layer| layer.outputs)
    }

    fn hidden(&self) -> &[Layer] {
        &self.layers[..self.layers.len() - 1]
    }

    /// The mask that leaves these channels of each layer but the last, and all classes.
    ///
    /// # Panics
    /// When there are not as many flags as channels.
    #[must_use]
    pub fn mask(&self, whole: Arc<Segments>, left: &[Vec<bool>]) -> Option<Mask> {
        let mut flags = vec![false; whole.len()];
        for (index, layer) in self.layers.iter().enumerate() {
            let is_left = |output: usize| left.get(index).is_none_or(|left| left[output]);
            let before = index.checked_sub(1).map(|before| &left[before]);
            for output in (0..layer.outputs).filter(|&output| is_left(output)) {
                flags[layer.bias.start + output] = true;
                let row = layer.weight.start + output * layer.row;
                for (place, flag) in flags[row..row + layer.row].iter_mut().enumerate() {
                    *flag = before.is_none_or(|before| before[place / layer.of_channel]);
                }
            }
        }
        Mask::new(whole, |index| flags[index]).ok()
    }

    /// Which channels a mask leaves of each layer but the last; nothing when it leaves parts of channels, or a layer
    /// without any.
    #[must_use]
    pub fn left(&self, mask: &Mask) -> Option<Vec<Vec<bool>>> {
        let of = |layer: &Layer| (0..layer.outputs).map(|output| mask.contains(layer.bias.start + output)).collect();
        let left: Vec<Vec<bool>> = self.hidden().iter().map(of).collect();
        let is_alive = left.iter().all(|left| left.contains(&true));
        let whole = Arc::clone(mask.whole());
        (is_alive && self.mask(whole, &left).is_some_and(|expected| expected == *mask)).then_some(left)
    }

    /// Which channels of a model's parameters do anything: all but those whose weights and bias are zero.
    #[must_use]
    pub fn alive(&self, params: &[f32]) -> Vec<Vec<bool>> {
        let of = |layer: &Layer| {
            let mut alive: Vec<bool> = (0..layer.outputs)
                .map(|output| {
                    let row = layer.weight.start + output * layer.row;
                    params[layer.bias.start + output] != 0.0 || params[row..row + layer.row].iter().any(|&w| w != 0.0)
                })
                .collect();
            if !alive.contains(&true) {
                alive[0] = true;
            }
            alive
        };
        self.hidden().iter().map(of).collect()
    }

    /// Weights that a model with so many channels in each layer but the last has.
    fn weights(&self, counts: &[usize]) -> usize {
        let outputs = |index: usize| counts.get(index).copied().unwrap_or(self.layers[index].outputs);
        let of = |(index, layer): (usize, &Layer)| {
            let inputs = index.checked_sub(1).map_or(1, outputs);
            outputs(index) * inputs * layer.of_channel
        };
        self.layers.iter().enumerate().map(of).sum()
    }

    /// The channels of the largest mean score, at least one of each layer, of which the model has at most the share
    /// `density` of its weights; channels of layers for which `is_protected` says so all stay.
    ///
    /// Where layers lose channels together, scores are compared with the mean of their layer, so that layers of small
    /// weights do not vanish (Li et al. 2017 prune by the L1 norm within each layer).
    pub(super) fn select(
        &self,
        mask: &Mask,
        scores: &[f32],
        density: f64,
        per_layer: bool,
        is_protected: impl Fn(&str) -> bool,
    ) -> Option<Mask> {
        let mut left = self.left(mask)?;
        let total = self.weights(&self.counts().collect::<Vec<_>>());
        let most = (density * total as f64).floor() as usize;
        // Of each channel that is left: how it compares with its layer's, the layer, and its number.
        let mut ranked: Vec<(f64, usize, usize)> = Vec::new();
        for (index, layer) in self.hidden().iter().enumerate().filter(|(_, layer)| !is_protected(&layer.name)) {
            let score = |output: usize| -> f64 {
                let row = layer.weight.start + output * layer.row;
                scores[row..row + layer.row].iter().map(|&score| f64::from(score)).sum()
            };
            let mut of_layer: Vec<(f64, usize, usize)> = (0..layer.outputs)
                .filter(|&output| left[index][output])
                .map(|output| (score(output), index, output))
                .collect();
            of_layer.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.2.cmp(&a.2)));
            let mean = of_layer.iter().map(|channel| channel.0).sum::<f64>() / of_layer.len() as f64;
            let count = of_layer.len() as f64;
            for (place, channel) in of_layer.iter_mut().enumerate() {
                // By place where each layer loses the same share.
                channel.0 = if per_layer { place as f64 / count } else { channel.0 / mean.max(f64::MIN_POSITIVE) };
            }
            // The best one of a layer is never taken away.
            of_layer.pop();
            ranked.extend(of_layer);
        }
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(b.2.cmp(&a.2)));
        let mut counts: Vec<usize> = left.iter().map(|left| left.iter().filter(|&&is_left| is_left).count()).collect();
        for (_, layer, output) in ranked {
            if self.weights(&counts) <= most {
                break;
            }
            left[layer][output] = false;
            counts[layer] -= 1;
        }
        self.mask(Arc::clone(mask.whole()), &left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InputShape, Model};
    use dunlin_core::recipe::{ModelConfig, ModelKind};
    use dunlin_core::{Seed, TensorSpec};

    fn model(kind: ModelKind) -> Model {
        Model::new(kind, &InputShape::image(1, 28, 28, 10)).unwrap()
    }

    #[test]
    fn chains_are_told_from_other_models() {
        for kind in [ModelKind::Softmax, ModelKind::TwoNn, ModelKind::Lenet5, ModelKind::Vgg9, ModelKind::TextbookCnn] {
            assert!(Channels::of(model(kind).layout()).is_some());
        }
        for kind in [ModelKind::ResNet8, ModelKind::MobileNet, ModelKind::EfficientNet] {
            assert_eq!(Channels::of(model(kind).layout()), None);
        }
        let counts: Vec<usize> = Channels::of(model(ModelKind::Lenet5).layout()).unwrap().counts().collect();
        assert_eq!(counts, [20, 50, 500]);
        let shapes = |shapes: [&[usize]; 4]| {
            let specs =
                shapes.into_iter().enumerate().map(|(i, shape)| TensorSpec::new(format!("t{i}"), shape.to_vec()));
            Channels::of(&Layout::new(specs.collect()).unwrap())
        };
        assert!(shapes([&[4, 3], &[4], &[2, 4], &[2]]).is_some());
        assert_eq!(shapes([&[4, 3], &[4], &[2, 5], &[2]]), None);
    }

    #[test]
    fn what_is_left_of_channels_is_a_smaller_model_that_computes_the_same() {
        let whole = model(ModelKind::Lenet5);
        let channels = Channels::of(whole.layout()).unwrap();
        let params = whole.init(&Seed::from_u64(1));
        let all = Mask::all(Arc::new(whole.layout().segments()));
        let scores: Vec<f32> = params.iter().map(|w| w.abs()).collect();
        for per_layer in [false, true] {
            let mask = channels.select(&all, &scores, 0.3, per_layer, |_| false).unwrap();
            let share = mask.len() as f64 / all.len() as f64;
            assert!((0.25..=0.31).contains(&share), "{share}");
            let mut within = params.clone();
            mask.gather(&mut within);
            let (mut small, mut masked) = (whole.shrunk(&mask).unwrap().unwrap(), model(ModelKind::Lenet5));
            assert_eq!(small.layout().len(), mask.len());
            small.load(&within).unwrap();
            masked.load(&mask.scatter(&within)).unwrap();
            let x: Vec<f32> = (0..3 * 784).map(|i| (i % 17) as f32 / 17.0).collect();
            let (a, b) = (small.logits(&x).unwrap(), masked.logits(&x).unwrap());
            assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} {b:?}");
            let again = Model::described(&small.about()).unwrap().unwrap();
            assert_eq!(again.layout(), small.layout());
            let (compact, values) = whole.compacted(&mask.scatter(&within)).unwrap();
            assert_eq!((compact.layout(), values), (small.layout(), within));
        }
        let protected = channels.select(&all, &scores, 0.3, false, |name| name.starts_with("conv")).unwrap();
        let left = channels.left(&protected).unwrap();
        assert!(left[0].iter().chain(&left[1]).all(|&is_left| is_left));
        let partly = Mask::new(Arc::clone(all.whole()), |index| index != 3).unwrap();
        assert_eq!(channels.left(&partly), None);
        assert!(whole.shrunk(&partly).unwrap().is_none());
    }

    #[test]
    fn channels_may_be_said_in_a_recipe_and_must_be_those_of_the_layers() {
        let with = |kind: ModelKind, channels: &str| {
            let config = ModelConfig { channels: channels.into(), ..kind.into() };
            Model::new(config, &InputShape::image(1, 28, 28, 10))
        };
        let small = with(ModelKind::Lenet300, "30, 10").unwrap();
        assert_eq!(small.layout().len(), 784 * 30 + 30 + 300 + 10 + 100 + 10);
        for (kind, wrong) in [
            (ModelKind::Lenet300, "30"),
            (ModelKind::Lenet300, "30, 0"),
            (ModelKind::Lenet300, "30, x"),
            (ModelKind::ResNet8, "16"),
        ] {
            let error = with(kind, wrong).unwrap_err().to_string();
            assert!(error.starts_with("model.channels"), "{error}");
        }
    }
}

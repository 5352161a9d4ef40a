//! Whole filters and units: which coordinates belong to each, so that a model without some of them is a smaller model.

use crate::model::NORM_GROUPS;
use dunlin_codec::{Mask, Segments};
use dunlin_core::Layout;
use std::ops::Range;
use std::sync::Arc;

/// The layers of a model that may lose channels: all but the last of a chain, such as a VGG or a 2NN, and the first
/// convolution of each block of a residual network, since what blocks add to each other must stay alike (Li et al. 2017,
/// <https://arxiv.org/abs/1608.08710>, prune residual networks so).
///
/// A *channel* is an output of such a layer: a filter or a unit. To it belong its row of the weights, its bias or its
/// factor and term of the norm, and what the next layer makes of it. Where a norm takes channels together, each of its
/// groups loses as many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    layers: Vec<Layer>,
    parts: Vec<Part>,
}

/// A layer that may lose channels.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Layer {
    name: String,
    outputs: usize,
    weight: Range<usize>,
    /// One element for each channel, which is left as long as the channel is: the bias, or the norm's term.
    bias: Range<usize>,
    /// The factors of the norm behind the layer.
    scale: Option<Range<usize>>,
}

/// A tensor, and whose channels its elements belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    range: Range<usize>,
    /// Extent of the first axis.
    outputs: usize,
    /// The layer whose channels the first axis counts.
    of: Option<usize>,
    /// The layer whose channels the second axis counts, and how many elements of a row each has.
    from: Option<(usize, usize)>,
}

impl Part {
    fn row(&self) -> usize {
        self.range.len() / self.outputs
    }

    /// Its elements if the layers have so many channels.
    fn len(&self, counts: &[usize]) -> usize {
        let rows = self.of.map_or(self.outputs, |layer| counts[layer]);
        rows * self.from.map_or(self.row(), |(layer, elements)| counts[layer] * elements)
    }
}

impl Layer {
    /// Channels that a norm takes together; one group where there is no norm.
    fn groups(&self) -> usize {
        if self.scale.is_some() { NORM_GROUPS } else { 1 }
    }

    fn row(&self, output: usize) -> Range<usize> {
        let row = self.weight.len() / self.outputs;
        self.weight.start + output * row..self.weight.start + (output + 1) * row
    }

    /// Whether each group has as many of these channels, and some.
    fn is_even(&self, left: &[bool]) -> bool {
        let mut counts = left.chunks(self.outputs / self.groups()).map(|group| group.iter().filter(|&&is| is).count());
        let first = counts.next().unwrap_or(0);
        first > 0 && counts.all(|count| count == first)
    }
}

/// What makes a channel important.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// The sum of its weights' scores: of magnitudes the L1 norm (Li et al. 2017).
    Weights,
    /// The score of its factor in the norm behind it (Liu et al. 2017, <https://arxiv.org/abs/1708.06519>, for batch norm).
    Scale,
}

impl Channels {
    /// The layers of a model that may lose channels; nothing when it is neither a chain nor a residual network.
    #[must_use]
    pub fn of(layout: &Layout) -> Option<Self> {
        Self::of_chain(layout).or_else(|| Self::of_residual(layout))
    }

    /// Pairs of a weight and a bias, each fed by the one before.
    fn of_chain(layout: &Layout) -> Option<Self> {
        let tensors = layout.tensors();
        let (mut layers, mut parts): (Vec<Layer>, Vec<Part>) = Default::default();
        for pair in (0..tensors.len()).step_by(2) {
            let (weight, bias) = (&tensors[pair], tensors.get(pair + 1)?);
            let (outputs, row) = (*weight.shape.first()?, weight.shape.get(1..)?.iter().product::<usize>());
            if weight.shape.len() < 2 || bias.shape != [outputs] {
                return None;
            }
            let from = match layers.last() {
                Some(before) if row.is_multiple_of(before.outputs) => Some((layers.len() - 1, row / before.outputs)),
                Some(_) => return None,
                None => None,
            };
            let of = Some(layers.len());
            let [range, bias] = [layout.range(pair), layout.range(pair + 1)];
            parts.push(Part { range: range.clone(), outputs, of, from });
            parts.push(Part { range: bias.clone(), outputs, of, from: None });
            layers.push(Layer { name: weight.name.clone(), outputs, weight: range, bias, scale: None });
        }
        // Outputs of the last layer are classes, and no channels.
        layers.pop()?;
        let classes = layers.len();
        parts.iter_mut().filter(|part| part.of == Some(classes)).for_each(|part| part.of = None);
        Some(Self { layers, parts })
    }

    /// Blocks whose tensors are called `BLOCK.conv1`, `BLOCK.norm1` and `BLOCK.conv2`.
    fn of_residual(layout: &Layout) -> Option<Self> {
        let tensors = layout.tensors();
        let mut parts: Vec<Part> = (0..tensors.len())
            .map(|i| Part {
                range: layout.range(i),
                outputs: tensors[i].shape.first().copied().unwrap_or(1),
                of: None,
                from: None,
            })
            .collect();
        let mut layers = Vec::new();
        for first in 0..tensors.len() {
            let Some(block) = tensors[first].name.strip_suffix(".conv1.weight") else { continue };
            let [weight, scale, bias, next] = tensors.get(first..first + 4)? else { return None };
            let names = ["norm1.weight", "norm1.bias", "conv2.weight"].map(|name| format!("{block}.{name}"));
            let outputs = *weight.shape.first()?;
            let is_block = [scale, bias, next].into_iter().map(|tensor| &tensor.name).eq(&names)
                && scale.shape == [outputs]
                && bias.shape == [outputs]
                && next.shape.get(1) == Some(&outputs)
                && outputs.is_multiple_of(NORM_GROUPS);
            if !is_block {
                return None;
            }
            for part in &mut parts[first..first + 3] {
                part.of = Some(layers.len());
            }
            parts[first + 3].from = Some((layers.len(), next.shape[2..].iter().product()));
            let [weight_range, scale, bias] = [0, 1, 2].map(|i| layout.range(first + i));
            layers.push(Layer { name: weight.name.clone(), outputs, weight: weight_range, bias, scale: Some(scale) });
        }
        (!layers.is_empty()).then_some(Self { layers, parts })
    }

    /// How many channels each layer has.
    pub fn counts(&self) -> impl Iterator<Item = usize> + '_ {
        self.layers.iter().map(|layer| layer.outputs)
    }

    /// First axis and row of each tensor of a model that has so many channels in each layer.
    pub(super) fn shapes(&self, counts: &[usize]) -> impl Iterator<Item = (usize, usize)> {
        self.parts.iter().map(|part| {
            let outputs = part.of.map_or(part.outputs, |layer| counts[layer]);
            (outputs, part.len(counts) / outputs)
        })
    }

    /// Whether norms take channels together: then a model with channels of zeros is another than one without them.
    #[must_use]
    pub fn are_normed(&self) -> bool {
        self.layers.iter().any(|layer| layer.scale.is_some())
    }

    /// The mask that leaves these channels of each layer, and all that is no channel.
    ///
    /// # Panics
    /// When there are not as many flags as channels.
    #[must_use]
    pub fn mask(&self, whole: Arc<Segments>, left: &[Vec<bool>]) -> Option<Mask> {
        let mut flags = vec![false; whole.len()];
        for part in &self.parts {
            let row = part.row();
            let is_left = |output: usize| part.of.is_none_or(|layer| left[layer][output]);
            for output in (0..part.outputs).filter(|&output| is_left(output)) {
                let start = part.range.start + output * row;
                for (place, flag) in flags[start..start + row].iter_mut().enumerate() {
                    *flag = part.from.is_none_or(|(layer, elements)| left[layer][place / elements]);
                }
            }
        }
        Mask::new(whole, |index| flags[index]).ok()
    }

    /// Which channels a mask leaves of each layer; nothing when it leaves parts of channels, a layer without any, or
    /// unequal groups of a norm.
    #[must_use]
    pub fn left(&self, mask: &Mask) -> Option<Vec<Vec<bool>>> {
        let of = |layer: &Layer| layer.bias.clone().map(|index| mask.contains(index)).collect();
        let left: Vec<Vec<bool>> = self.layers.iter().map(of).collect();
        let is_even = self.layers.iter().zip(&left).all(|(layer, left)| layer.is_even(left));
        let whole = Arc::clone(mask.whole());
        (is_even && self.mask(whole, &left).is_some_and(|expected| expected == *mask)).then_some(left)
    }

    /// Which channels of a model's parameters do anything: all but those whose weights, bias and factor are zero. Where
    /// that leaves nothing, or unequal groups of a norm, all of the layer.
    #[must_use]
    pub fn alive(&self, params: &[f32]) -> Vec<Vec<bool>> {
        let of = |layer: &Layer| {
            let factor = |output: usize| layer.scale.as_ref().is_some_and(|scale| params[scale.start + output] != 0.0);
            let is_alive = |output: usize| {
                params[layer.bias.start + output] != 0.0
                    || factor(output)
                    || params[layer.row(output)].iter().any(|&w| w != 0.0)
            };
            let alive: Vec<bool> = (0..layer.outputs).map(is_alive).collect();
            if layer.is_even(&alive) { alive } else { vec![true; layer.outputs] }
        };
        self.layers.iter().map(of).collect()
    }

    /// Weights, biases apart, that a model with so many channels in each layer has.
    fn weights(&self, counts: &[usize]) -> usize {
        self.parts.iter().filter(|part| part.row() > 1 || part.from.is_some()).map(|part| part.len(counts)).sum()
    }

    /// The channels of the largest mean score, at least one of each layer, of which the model has at most the share
    /// `density` of its weights; channels of layers for which `is_protected` says so all stay.
    ///
    /// Where layers lose channels together, scores are compared with the mean of their layer, so that layers of small
    /// weights do not vanish. Where a norm takes channels together, each of its groups loses its least one.
    pub(super) fn select(
        &self,
        mask: &Mask,
        (scores, by): (&[f32], By),
        density: f64,
        per_layer: bool,
        is_protected: impl Fn(&str) -> bool,
    ) -> Option<Mask> {
        let mut left = self.left(mask)?;
        let total = self.weights(&self.counts().collect::<Vec<_>>());
        let most = (density * total as f64).floor() as usize;
        // Channels that go together: how they compare with their layer's, the layer, and their numbers.
        let mut ranked: Vec<(f64, usize, Vec<usize>)> = Vec::new();
        for (index, layer) in self.layers.iter().enumerate().filter(|(_, layer)| !is_protected(&layer.name)) {
            let score = |output: usize| -> f64 {
                match (by, &layer.scale) {
                    (By::Scale, Some(scale)) => scores[scale.start + output].into(),
                    _ => scores[layer.row(output)].iter().map(|&score| f64::from(score)).sum(),
                }
            };
            let size = layer.outputs / layer.groups();
            let mut of_layer: Vec<(f64, usize, Vec<usize>)> = Vec::new();
            for start in (0..layer.outputs).step_by(size) {
                let mut group: Vec<(f64, usize)> = (start..start + size)
                    .filter(|&output| left[index][output])
                    .map(|output| (score(output), output))
                    .collect();
                group.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
                of_layer.resize(of_layer.len().max(group.len()), (0.0, index, Vec::new()));
                for (together, (score, output)) in of_layer.iter_mut().zip(group) {
                    together.0 += score;
                    together.2.push(output);
                }
            }
            let count = of_layer.len() as f64;
            let mean = of_layer.iter().map(|together| together.0).sum::<f64>() / count;
            for (place, together) in of_layer.iter_mut().enumerate() {
                // By place where each layer loses the same share.
                together.0 = if per_layer { place as f64 / count } else { together.0 / mean.max(f64::MIN_POSITIVE) };
            }
            // The best ones of a layer are never taken away.
            of_layer.pop();
            ranked.extend(of_layer);
        }
        ranked.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)).then(b.2.cmp(&a.2)));
        let mut counts: Vec<usize> = left.iter().map(|left| left.iter().filter(|&&is_left| is_left).count()).collect();
        for (_, layer, outputs) in ranked {
            if self.weights(&counts) <= most {
                break;
            }
            counts[layer] -= outputs.len();
            outputs.into_iter().for_each(|output| left[layer][output] = false);
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
        for kind in [ModelKind::MobileNet, ModelKind::EfficientNet] {
            assert_eq!(Channels::of(model(kind).layout()), None);
        }
        let inner = |kind| Channels::of(model(kind).layout()).unwrap().counts().collect::<Vec<usize>>();
        assert_eq!(inner(ModelKind::ResNet8), [16, 32, 64]);
        assert_eq!(inner(ModelKind::ResNet20), [16, 16, 16, 32, 32, 32, 64, 64, 64]);
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
            let mask = channels.select(&all, (&scores, By::Weights), 0.3, per_layer, |_| false).unwrap();
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
        let protected =
            channels.select(&all, (&scores, By::Weights), 0.3, false, |name| name.starts_with("conv")).unwrap();
        let left = channels.left(&protected).unwrap();
        assert!(left[0].iter().chain(&left[1]).all(|&is_left| is_left));
        let partly = Mask::new(Arc::clone(all.whole()), |index| index != 3).unwrap();
        assert_eq!(channels.left(&partly), None);
        assert!(whole.shrunk(&partly).unwrap().is_none());
    }

    #[test]
    fn a_residual_network_loses_as_many_channels_of_each_group_of_a_norm() {
        let whole = model(ModelKind::ResNet8);
        let channels = Channels::of(whole.layout()).unwrap();
        let mut params = whole.init(&Seed::from_u64(1));
        // The factors of the last block's norm say that the second half of each of its eight groups matters.
        let (index, _) =
            whole.layout().tensors().iter().enumerate().find(|(_, t)| t.name == "stage3.norm1.weight").unwrap();
        for (output, factor) in params[whole.layout().range(index)].iter_mut().enumerate() {
            *factor = if output % 8 < 4 { 0.1 } else { 2.0 };
        }
        let all = Mask::all(Arc::new(whole.layout().segments()));
        let scores: Vec<f32> = params.iter().map(|w| w.abs()).collect();
        for by in [By::Weights, By::Scale] {
            let mask = channels.select(&all, (&scores, by), 0.5, false, |_| false).unwrap();
            let left = channels.left(&mask).unwrap();
            let of_groups = |left: &Vec<bool>| -> Vec<usize> {
                left.chunks(left.len() / 8).map(|group| group.iter().filter(|&&is_left| is_left).count()).collect()
            };
            assert!(
                left.iter().map(of_groups).all(|counts| counts.iter().all(|&count| count == counts[0] && count > 0))
            );
            if by == By::Scale {
                assert!((0..64).all(|output| !left[2][output] || output % 8 >= 4), "{:?}", left[2]);
            }
            let mut within = params.clone();
            mask.gather(&mut within);
            let small = whole.shrunk(&mask).unwrap().unwrap();
            assert_eq!(small.layout().len(), mask.len());
            // With zeros in their place it is the smaller model that is judged.
            let scattered = mask.scatter(&within);
            let (lean, found) = whole.lean(&scattered).unwrap().unwrap();
            assert_eq!((lean.layout(), &found), (small.layout(), &mask));
            let (compact, values) = whole.compacted(&scattered).unwrap();
            assert_eq!((compact.layout(), values), (small.layout(), within));
        }
        assert!(whole.lean(&params).unwrap().is_none());
        // One channel more or less than the others of its norm cannot be left.
        let layer = &channels.layers[0];
        let row = layer.row(3);
        let uneven = Mask::new(Arc::clone(all.whole()), |i| i != layer.bias.start + 3 && !row.contains(&i)).unwrap();
        assert_eq!(channels.left(&uneven), None);
    }

    #[test]
    fn channels_may_be_said_in_a_recipe_and_must_be_those_of_the_layers() {
        let with = |kind: ModelKind, channels: &str| {
            let config = ModelConfig { channels: channels.into(), ..kind.into() };
            Model::new(config, &InputShape::image(1, 28, 28, 10))
        };
        let small = with(ModelKind::Lenet300, "30, 10").unwrap();
        assert_eq!(small.layout().len(), 784 * 30 + 30 + 300 + 10 + 100 + 10);
        let (small, usual) = (with(ModelKind::ResNet8, "8, 8, 16").unwrap(), model(ModelKind::ResNet8));
        let fewer = 8 * (9 * 32 + 2) + 24 * (9 * 48 + 2) + 48 * (9 * 96 + 2);
        assert_eq!(small.layout().len(), usual.layout().len() - fewer);
        for (kind, wrong) in [
            (ModelKind::Lenet300, "30"),
            (ModelKind::Lenet300, "30, 0"),
            (ModelKind::Lenet300, "30, x"),
            (ModelKind::ResNet8, "16"),
            (ModelKind::ResNet8, "8, 16, 20"),
            (ModelKind::MobileNet, "16"),
        ] {
            let error = with(kind, wrong).unwrap_err().to_string();
            assert!(error.starts_with("model.channels"), "{error}");
        }
    }
}

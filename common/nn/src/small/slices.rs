//! Parts of a model for clients that cannot train all of it: the first channels of each hidden layer.

use super::Channels;
use dunlin_codec::{Mask, MaskedGrid, Segment, Segments};
use dunlin_core::recipe::Width;
use dunlin_core::{Layout, Recipe};
use std::sync::Arc;

/// The part of a model that clients of one width have: a smaller model of the same kind (`HeteroFL`, Diao et al. 2021,
/// <https://arxiv.org/abs/2010.01264>).
///
/// Of each hidden layer's C channels it has the first ⌈width·C⌉, and of inputs and classes all. So of any two slices of a
/// model one lies within the other. To the codec, the downlink and a client's state a slice is a model of its own.
#[derive(Clone, Debug)]
pub struct Slice {
    width: Width,
    /// Of the whole model: what the slice has.
    mask: Mask,
    /// The smaller model's tensors.
    segments: Arc<Segments>,
}

/// Why a model has no slices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`size.width` is {width}; it must be 1, because this model is no chain of weights and biases with channels that a \
     smaller client could do without"
)]
pub struct NoSlices {
    width: Width,
}

impl Slice {
    /// The slice of a width; nothing when that is the whole model.
    ///
    /// # Errors
    /// When the model is no chain of layers.
    pub fn new(layout: &Layout, width: Width) -> Result<Option<Self>, NoSlices> {
        if width.is_whole() {
            return Ok(None);
        }
        let no_slices = NoSlices { width };
        let has_hidden = |channels: &Channels| !channels.are_normed() && channels.counts().next().is_some();
        let channels = Channels::of(layout).filter(has_hidden).ok_or_else(|| no_slices.clone())?;
        let counts: Vec<usize> = channels.counts().map(|channels| width.of(channels)).collect();
        let first = |(channels, &count): (usize, &usize)| (0..channels).map(|channel| channel < count).collect();
        let left: Vec<Vec<bool>> = channels.counts().zip(&counts).map(first).collect();
        let mask = channels.mask(Arc::new(layout.segments()), &left).ok_or_else(|| no_slices.clone())?;
        let segments = channels.shapes(&counts).map(|(outputs, row)| Segment { len: outputs * row, row }).collect();
        let segments = Arc::new(Segments::new(segments).map_err(|_| no_slices)?);
        debug_assert_eq!(segments.len(), mask.len());
        Ok(Some(Self { width, mask, segments }))
    }

    /// How much of each hidden layer it has.
    #[must_use]
    pub fn width(&self) -> Width {
        self.width
    }

    /// Which coordinates of the whole model it has.
    #[must_use]
    pub fn mask(&self) -> &Mask {
        &self.mask
    }

    /// The tensors of the smaller model, with the rows that it has.
    #[must_use]
    pub fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// Parameters of the smaller model.
    #[expect(clippy::len_without_is_empty, reason = "every layer has a channel at least")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// What a client of a slice, or of the whole model without one, holds: as a trainer takes it, whole, with zeros for
    /// what the client does not have.
    #[must_use]
    pub fn whole_floats(slice: Option<&Self>, held: &MaskedGrid) -> Vec<f32> {
        let params = held.floats();
        match slice {
            Some(slice) => slice.mask.scatter(&params),
            None => params,
        }
    }

    /// The smaller model's integers.
    ///
    /// # Panics
    /// If the grid is not that of the whole model, or something of it was pruned.
    #[must_use]
    pub fn of_grid(&self, whole: &MaskedGrid) -> MaskedGrid {
        let mut values = whole.values().to_vec();
        self.mask.gather(&mut values);
        MaskedGrid::whole(Arc::clone(&self.segments), values).expect("a slice has as many integers as its mask leaves")
    }
}

/// The slices of a recipe's sizes, largest first; the whole model is not among them.
#[derive(Clone, Debug, Default)]
pub struct Slices(Vec<Arc<Slice>>);

impl Slices {
    /// The slices of a model for a recipe's sizes.
    ///
    /// # Errors
    /// When there are some and the model is no chain of layers.
    pub fn new(recipe: &Recipe, layout: &Layout) -> Result<Self, NoSlices> {
        let mut widths: Vec<Width> = recipe.widths().collect();
        widths.sort_by(|a, b| b.cmp(a));
        let slices = widths.into_iter().map(|width| Slice::new(layout, width));
        let slices = slices.filter_map(|slice| slice.transpose().map(|slice| slice.map(Arc::new)));
        slices.collect::<Result<_, _>>().map(Self)
    }

    /// The slices, largest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Slice>> {
        self.0.iter()
    }

    /// The slice of a width; nothing for the whole model, and for a width that the recipe does not have.
    #[must_use]
    pub fn get(&self, width: Width) -> Option<&Arc<Slice>> {
        self.0.iter().find(|slice| slice.width == width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{InputShape, Model};
    use dunlin_core::recipe::{ModelConfig, ModelKind, SizeConfig};
    use dunlin_core::{Seed, TensorSpec};

    fn width(share: f64) -> Width {
        Width::new(share).unwrap()
    }

    fn model(config: impl Into<ModelConfig>) -> Model {
        Model::new(config, &InputShape::image(1, 28, 28, 10)).unwrap()
    }

    #[test]
    fn a_slice_has_the_first_channels_of_each_hidden_layer_and_all_inputs_and_classes() {
        // Two inputs, three and two channels, two classes.
        let tensors = [("a", vec![3, 2]), ("ab", vec![3]), ("b", vec![2, 3]), ("bb", vec![2])]
            .into_iter()
            .chain([("c", vec![2, 2]), ("cb", vec![2])]);
        let layout = Layout::new(tensors.map(|(name, shape)| TensorSpec::new(name, shape)).collect()).unwrap();
        let slice = Slice::new(&layout, width(0.5)).unwrap().unwrap();
        let mut indices: Vec<usize> = (0..layout.len()).collect();
        slice.mask().gather(&mut indices);
        assert_eq!(indices, [0, 1, 2, 3, 6, 7, 9, 10, 15, 17, 19, 21, 22]);
        let rows: Vec<(usize, usize)> = slice.segments().iter().map(|segment| (segment.len, segment.row)).collect();
        assert_eq!(rows, [(4, 2), (2, 1), (2, 2), (1, 1), (2, 1), (2, 1)]);
        let whole = MaskedGrid::whole(Arc::new(layout.segments()), (0..23).collect()).unwrap();
        assert_eq!(slice.of_grid(&whole).values(), [0, 1, 2, 3, 6, 7, 9, 10, 15, 17, 19, 21, 22]);
        assert!(Slice::new(&layout, Width::WHOLE).unwrap().is_none());
    }

    #[test]
    fn a_slice_is_the_model_with_fewer_channels_and_lies_within_every_larger_one() {
        for kind in [ModelKind::TwoNn, ModelKind::Lenet5, ModelKind::McmahanCnn, ModelKind::Vgg9] {
            let whole = model(kind.clone());
            let mut larger: Option<Slice> = None;
            for share in [0.5, 0.25, 0.0625, 0.001] {
                let slice = Slice::new(whole.layout(), width(share)).unwrap().unwrap();
                let small = whole.shrunk(slice.mask()).unwrap().unwrap();
                assert_eq!(**slice.segments(), small.layout().segments(), "{kind} of width {share}");
                if let Some(larger) = &larger {
                    assert!(slice.mask().indices().all(|index| larger.mask().contains(index)), "{kind} {share}");
                    assert!(slice.len() < larger.len(), "{kind} {share}");
                }
                larger = Some(slice);
            }
        }
    }

    #[test]
    fn the_whole_model_with_zeros_outside_of_a_slice_computes_what_the_smaller_one_does() {
        let mut whole = model(ModelKind::Lenet5);
        let slice = Slice::new(whole.layout(), width(0.25)).unwrap().unwrap();
        let mut within = whole.init(&Seed::from_u64(1));
        slice.mask().gather(&mut within);
        let mut small = whole.shrunk(slice.mask()).unwrap().unwrap();
        small.load(&within).unwrap();
        whole.load(&slice.mask().scatter(&within)).unwrap();
        let x: Vec<f32> = (0..3 * 784).map(|i| (i % 17) as f32 / 17.0).collect();
        let (a, b) = (small.logits(&x).unwrap(), whole.logits(&x).unwrap());
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-4), "{a:?} {b:?}");
    }

    #[test]
    fn only_chains_have_slices_and_the_refusal_says_so() {
        let sized = |shares: &[f64]| {
            let size = |&share: &f64| SizeConfig { width: width(share), share: 1.0 };
            Recipe { size: shares.iter().map(size).collect(), ..Recipe::default() }
        };
        for kind in [ModelKind::ResNet8, ModelKind::MobileNet, ModelKind::Softmax] {
            let error = Slices::new(&sized(&[1.0, 0.5]), model(kind).layout()).unwrap_err().to_string();
            assert!(error.starts_with("`size.width` is 0.5; it must be 1"), "{error}");
        }
        let resnet = model(ModelKind::ResNet8);
        assert_eq!(Slices::new(&sized(&[]), resnet.layout()).unwrap().iter().len(), 0);
        assert_eq!(Slices::new(&sized(&[1.0]), resnet.layout()).unwrap().iter().len(), 0);
        let slices = Slices::new(&sized(&[0.25, 1.0, 0.5]), model(ModelKind::TwoNn).layout()).unwrap();
        assert_eq!(slices.iter().map(|slice| slice.width()).collect::<Vec<_>>(), [width(0.5), width(0.25)]);
        assert_eq!(slices.get(width(0.25)).unwrap().len(), 784 * 50 + 50 + 50 * 50 + 50 + 10 * 50 + 10);
        assert!(slices.get(Width::WHOLE).is_none() && slices.get(width(0.3)).is_none());
    }
}

//! The shape of a model as a flat vector: which tensor lies where.

use dunlin_codec::{Segment, Segments};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// One named tensor of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// Unique name inside the model, such as `fc1.weight`.
    pub name: String,
    /// Extent of each axis; an empty shape is a scalar.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor of this name and shape.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into() }
    }

    /// Number of parameters in the tensor.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor holds no parameter; a [`Layout`] refuses such a tensor.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The tensors of a model in the order in which they stand in the flat parameter vector.
///
/// Parameters travel, are summed and are stored as one `[f32]`; the layout is what gives them names again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<TensorSpec>", into = "Vec<TensorSpec>")]
pub struct Layout {
    tensors: Vec<TensorSpec>,
    offsets: Vec<usize>,
}

/// Why a list of tensors is not a layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A layout needs something to train.
    #[error("a model needs at least one tensor")]
    NoTensors,
    /// A tensor has an axis of extent zero, or more elements than a layout may hold.
    #[error("tensor {name:?} has shape {shape:?}; every axis must be positive and the model at most {max} parameters")]
    BadShape {
        /// The tensor's name.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// [`Layout::MAX_PARAMETERS`].
        max: usize,
    },
    /// Two tensors share one name.
    #[error("two tensors are named {0:?}")]
    DuplicateName(String),
}

impl Layout {
    /// Most parameters of a model: coordinates travel as 32-bit numbers and 2³⁰ of them (4 GiB of f32) is far beyond
    /// what a client on a metered link trains.
    pub const MAX_PARAMETERS: usize = 1 << 30;

    /// A layout of these tensors, in this order.
    ///
    /// # Errors
    /// When there is no tensor, one is empty, two share a name, or there are more than
    /// [`Self::MAX_PARAMETERS`] parameters.
    pub fn new(tensors: Vec<TensorSpec>) -> Result<Self, LayoutError> {
        if tensors.is_empty() {
            return Err(LayoutError::NoTensors);
        }
        let mut names = std::collections::BTreeSet::new();
        let mut offsets = Vec::with_capacity(tensors.len() + 1);
        let mut total = 0usize;
        offsets.push(0);
        for tensor in &tensors {
            let len = tensor.shape.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis));
            total = match len.filter(|&len| len > 0).and_then(|len| total.checked_add(len)) {
                Some(total) if total <= Self::MAX_PARAMETERS => total,
                _ => {
                    return Err(LayoutError::BadShape {
                        name: tensor.name.clone(),
                        shape: tensor.shape.clone(),
                        max: Self::MAX_PARAMETERS,
                    });
                }
            };
            if !names.insert(tensor.name.as_str()) {
                return Err(LayoutError::DuplicateName(tensor.name.clone()));
            }
            offsets.push(total);
        }
        Ok(Self { tensors, offsets })
    }

    /// The tensors in order.
    #[must_use]
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Number of parameters of the model.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets[self.tensors.len()]
    }

    /// Always false; a layout has at least one parameter.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where tensor `index` stands in the flat vector.
    #[must_use]
    pub fn range(&self, index: usize) -> Range<usize> {
        self.offsets[index]..self.offsets[index + 1]
    }

    /// The tensors' lengths and rows, which is all that the codec needs to know of a model.
    #[must_use]
    pub fn segments(&self) -> Segments {
        let segments = self
            .tensors
            .iter()
            .map(|tensor| {
                // A filter's whole receptive field is its row: neighbours there are what correlates.
                let row = tensor.shape.iter().skip(1).product::<usize>().max(1);
                Segment { len: tensor.len(), row }
            })
            .collect();
        Segments::new(segments).expect("a layout's tensors are non-empty and below the codec's limit")
    }

    /// A digest of names and shapes: two peers that agree on it mean the same coordinates.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("dunlin 2026 layout v1");
        for tensor in &self.tensors {
            hasher.update(&(tensor.name.len() as u64).to_le_bytes());
            hasher.update(tensor.name.as_bytes());
            hasher.update(&(tensor.shape.len() as u64).to_le_bytes());
            for &axis in &tensor.shape {
                hasher.update(&(axis as u64).to_le_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }
}

impl TryFrom<Vec<TensorSpec>> for Layout {
    type Error = LayoutError;

    fn try_from(tensors: Vec<TensorSpec>) -> Result<Self, LayoutError> {
        Self::new(tensors)
    }
}

impl From<Layout> for Vec<TensorSpec> {
    fn from(layout: Layout) -> Self {
        layout.tensors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_one_another_and_cover_the_vector() {
        let layout =
            Layout::new(vec![TensorSpec::new("w", [2, 3]), TensorSpec::new("b", [2]), TensorSpec::new("s", [])])
                .unwrap();
        assert_eq!((layout.range(0), layout.range(1), layout.range(2), layout.len()), (0..6, 6..8, 8..9, 9));
    }

    #[test]
    fn empty_duplicate_and_overflowing_tensors_are_refused() {
        assert_eq!(Layout::new(vec![]), Err(LayoutError::NoTensors));
        assert!(matches!(Layout::new(vec![TensorSpec::new("w", [2, 0])]), Err(LayoutError::BadShape { .. })));
        assert!(matches!(Layout::new(vec![TensorSpec::new("w", [usize::MAX, 2])]), Err(LayoutError::BadShape { .. })));
        let twice = vec![TensorSpec::new("w", [1]), TensorSpec::new("w", [1])];
        assert_eq!(Layout::new(twice), Err(LayoutError::DuplicateName("w".into())));
    }

    #[test]
    fn the_digest_tells_shapes_apart_that_have_the_same_length() {
        let digest = |shape: &[usize]| Layout::new(vec![TensorSpec::new("w", shape)]).unwrap().digest();
        assert_ne!(digest(&[2, 3]), digest(&[3, 2]));
        assert_ne!(digest(&[6]), digest(&[6, 1]));
    }
}

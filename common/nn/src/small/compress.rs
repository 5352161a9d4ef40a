//! The stages of Deep Compression over a whole model, and what each of them came to.

use super::{Keep, Weights, prune, quantize, share};
use dunlin_codec::container::{Container, Error, Precision, Tensor, Values, Width};
use half::f16;

/// What is done to a model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compress {
    /// How many weights stay; without it, those that are not zero already.
    pub keep: Option<Keep>,
    /// Whether each layer keeps the same share.
    pub per_layer: bool,
    /// What matrices and kernels are stored as. Vectors are floats of 16 bits, or of 32 where those are.
    pub stored: Stored,
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// As they are.
    F32,
    /// As 16-bit floats.
    F16,
    /// As places in a codebook of 2^bits values for each tensor.
    Shared {
        /// Bits of a place, 1 to 8.
        bits: u32,
        /// What the codebook is stored in.
        precision: Precision,
    },
    /// As integers with a scale for each output channel.
    Integers(Width),
}

/// A model made small, and what it took.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// The model.
    pub container: Container,
    /// For each tensor in order.
    pub tensors: Vec<TensorReport>,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// What became of one tensor. Bytes are those after each stage: all elements as f32; the non-zeros as f32 and where they
/// are, by a bitmap or by 32-bit indices; the same with what they are stored as, codebook and scales included; and in
/// the file, with name and shape.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorReport {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Elements that are not zero in the end.
    pub nonzeros: u64,
    /// As it was: 4 bytes an element.
    pub dense: u64,
    /// After pruning.
    pub pruned: u64,
    /// After weight sharing or quantization.
    pub stored: u64,
    /// In the file.
    pub coded: u64,
    /// The root of the squared error over the squared values, against the model that was given.
    pub error: f64,
}

impl TensorReport {
    /// Number of elements.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.dense / 4
    }

    /// Share of the elements that are not zero.
    #[must_use]
    pub fn density(&self) -> f64 {
        self.nonzeros as f64 / self.elements().max(1) as f64
    }
}

impl Compress {
    /// Makes a model small.
    ///
    /// # Errors
    /// When the model has a value that is not finite or another property that no container can hold.
    pub fn run(&self, weights: &Weights) -> Result<Compressed, Error> {
        for (spec, values) in &weights.tensors {
            if let Some(index) = values.iter().position(|value| !value.is_finite()) {
                return Err(Error::BadValue { tensor: spec.name.clone(), index });
            }
        }
        let mut tensors = weights.tensors.clone();
        if let Some(keep) = self.keep {
            prune(&mut tensors, keep, self.per_layer);
        }
        let mut container = Container { about: weights.about.clone(), tensors: Vec::new() };
        let mut reports = Vec::new();
        for ((spec, pruned), (_, original)) in tensors.iter().zip(&weights.tensors) {
            let values = self.stored(pruned, &spec.shape);
            let tensor = Tensor { name: spec.name.clone(), shape: spec.shape.clone(), values };
            reports.push(report(&tensor, pruned, original)?);
            container.tensors.push(tensor);
        }
        let file_bytes = container.to_bytes()?.len() as u64;
        Ok(Compressed { container, tensors: reports, file_bytes })
    }

    fn stored(&self, values: &[f32], shape: &[usize]) -> Values {
        match self.stored {
            Stored::F32 => Values::F32(values.to_vec()),
            _ if shape.len() < 2 => halves(values),
            Stored::F16 => halves(values),
            Stored::Shared { bits, precision } => share(values, bits, precision),
            Stored::Integers(width) => quantize(values, shape, width),
        }
    }
}

fn halves(values: &[f32]) -> Values {
    let most = f16::MAX.to_f32();
    Values::F16(values.iter().map(|value| f16::from_f32(value.clamp(-most, most))).collect())
}

pub(super) fn report(tensor: &Tensor, pruned: &[f32], original: &[f32]) -> Result<TensorReport, Error> {
    let len = original.len() as u64;
    let nonzeros = tensor.values.nonzeros() as u64;
    let places = |count: u64| if count == len { 0 } else { len.div_ceil(8).min(4 * count) };
    let left = pruned.iter().filter(|&&value| value != 0.0).count() as u64;
    let (bits, table) = match &tensor.values {
        Values::F32(_) => (32, 0),
        Values::F16(_) => (16, 0),
        Values::Shared { precision, codebook, .. } => {
            let entries = codebook.len() as u64;
            let bytes = if *precision == Precision::Half { 2 } else { 4 };
            (u64::from(64 - entries.saturating_sub(1).leading_zeros()), bytes * entries)
        }
        Values::Integers { width, scales, .. } => (u64::from(width.bits()), 2 * scales.len() as u64),
    };
    let squares = |values: &mut dyn Iterator<Item = f32>| values.map(|value| f64::from(value).powi(2)).sum::<f64>();
    let small = tensor.values.to_f32();
    let size = squares(&mut original.iter().copied());
    let lost = squares(&mut original.iter().zip(&small).map(|(old, new)| old - new));
    Ok(TensorReport {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        nonzeros,
        dense: 4 * len,
        pruned: (4 * left + places(left)).min(4 * len),
        stored: (bits * nonzeros).div_ceil(8) + table + places(nonzeros),
        coded: tensor.coded_bytes()? as u64,
        error: if size > 0.0 { (lost / size).sqrt() } else { 0.0 },
    })
}

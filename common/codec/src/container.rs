//! Models as small files: pruned, quantized and entropy-coded tensors with their names and shapes.
//!
//! The stages are those of Deep Compression (Han et al. 2016, <https://arxiv.org/abs/1510.00149>): where the non-zeros
//! are, which entry of a tensor's codebook each of them is, and both written by adaptive models with contexts instead
//! of by relative indices and a Huffman code. Tensors may also hold floats or integers with a scale for each channel.
//! `docs/CONTAINER.md` describes the bytes.
//!
//! ```
//! use dunlin_codec::container::{Container, Limits, Precision, Tensor, Values};
//! use std::collections::BTreeMap;
//!
//! let weight = Values::Shared { precision: Precision::Half, codebook: vec![-0.5, 0.25], codes: vec![0, 1, 0, 0, 2, 0] };
//! let tensors = vec![Tensor { name: "fc.weight".into(), shape: vec![2, 3], values: weight }];
//! let file = Container { about: BTreeMap::new(), tensors }.to_bytes()?;
//! let read = Container::from_bytes(&file, &Limits::default())?;
//! assert_eq!(read.tensors[0].values.to_f32(), [0.0, -0.5, 0.0, 0.0, 0.25, 0.0]);
//! # Ok::<(), dunlin_codec::container::Error>(())
//! ```

mod blend;
mod error;
mod parts;
mod payload;
mod symbols;

pub use error::Error;

use crate::checksum;
use half::f16;
use parts::{Part, Reader, write_part};
use std::collections::{BTreeMap, BTreeSet};

/// What a file holds: tensors, and what their maker tells about them.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Words about the model, such as its architecture, by key.
    pub about: BTreeMap<String, String>,
    /// The tensors in order.
    pub tensors: Vec<Tensor>,
}

/// One named tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name, which no other tensor of the file has.
    pub name: String,
    /// The extent of each axis, all positive; none for a scalar.
    pub shape: Vec<usize>,
    /// Its elements, the last axis moving fastest.
    pub values: Values,
}

/// The elements of a tensor, as they are stored. A zero is stored nowhere and costs what it takes to know the others'
/// places; the sign of a zero is lost.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// 32-bit floats, kept to the bit.
    F32(Vec<f32>),
    /// 16-bit floats.
    F16(Vec<f16>),
    /// Weight sharing: each element is zero or one of a few values.
    Shared {
        /// What the codebook's entries are stored in.
        precision: Precision,
        /// The values in rising order, at most [`CODEBOOK_MAX`], none of them zero; of half precision if that is how
        /// they are stored.
        codebook: Vec<f32>,
        /// For each element 0, or one more than its entry's place in the codebook.
        codes: Vec<u8>,
    },
    /// Symmetric integers: an element is its level times its channel's scale.
    Integers {
        /// Which levels there are.
        width: Width,
        /// One for each index of the first axis, or a single one for a tensor of fewer than two axes; finite, positive
        /// and brain floats: f32 whose lower 16 bits are zero.
        scales: Vec<f32>,
        /// The levels.
        levels: Vec<i8>,
    },
}

/// What a codebook is stored in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 16-bit floats.
    Half,
    /// 32-bit floats.
    Single,
}

/// Width of an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// From −127 to 127.
    Eight,
    /// From −7 to 7.
    Four,
}

impl Width {
    /// The largest level; the smallest is its negative.
    #[must_use]
    pub const fn level_max(self) -> i8 {
        match self {
            Self::Eight => 127,
            Self::Four => 7,
        }
    }

    /// Bits of a level.
    #[must_use]
    pub const fn bits(self) -> u32 {
        match self {
            Self::Eight => 8,
            Self::Four => 4,
        }
    }
}

/// Most entries of a codebook: with zero they are what a byte can name.
pub const CODEBOOK_MAX: usize = 255;

/// What a reader is willing to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest file in bytes.
    pub max_bytes: usize,
    /// Most elements of all tensors together, for each of which up to four bytes are held, and up to twenty more while its
    /// tensor is read: a few bytes can stand for any number of zeros.
    pub max_elements: usize,
}

impl Default for Limits {
    /// What fits a small machine's memory: files of 1 GiB and 2²⁸ elements.
    fn default() -> Self {
        Self { max_bytes: 1 << 30, max_elements: 1 << 28 }
    }
}

impl Tensor {
    /// Number of elements that the shape says.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the shape leaves no element; such a tensor is not written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements of a row: all that share an index of the first axis, or all of a vector's.
    #[must_use]
    pub fn row(&self) -> usize {
        row_of(&self.shape)
    }

    /// Bytes that the tensor takes in a file.
    ///
    /// # Errors
    /// When the tensor cannot be written.
    pub fn coded_bytes(&self) -> Result<usize, Error> {
        let mut payload = Vec::new();
        let part = Part::of(self, &mut payload)?;
        let mut head = Vec::new();
        write_part(&part, &mut head);
        Ok(head.len() + payload.len())
    }
}

impl Values {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Shared { codes, .. } => codes.len(),
            Self::Integers { levels, .. } => levels.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Elements that are not zero.
    #[must_use]
    pub fn nonzeros(&self) -> usize {
        match self {
            Self::F32(values) => values.iter().filter(|&&value| value != 0.0).count(),
            Self::F16(values) => values.iter().filter(|&&value| value != f16::ZERO).count(),
            Self::Shared { codes, .. } => codes.iter().filter(|&&code| code != 0).count(),
            Self::Integers { levels, .. } => levels.iter().filter(|&&level| level != 0).count(),
        }
    }

    /// The elements as floats.
    ///
    /// # Panics
    /// When a code names no entry of the codebook or there is no scale for a level, which no file leads to.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F32(values) => values.clone(),
            Self::F16(values) => values.iter().map(|value| value.to_f32()).collect(),
            Self::Shared { codebook, codes, .. } => {
                let value = |&code: &u8| if code == 0 { 0.0 } else { codebook[usize::from(code) - 1] };
                codes.iter().map(value).collect()
            }
            Self::Integers { scales, levels, .. } => {
                let row = levels.len().div_ceil(scales.len().max(1)).max(1);
                let rows = levels.chunks(row).zip(scales);
                rows.flat_map(|(levels, &scale)| levels.iter().map(move |&level| f32::from(level) * scale)).collect()
            }
        }
    }
}

impl Container {
    /// The file's bytes.
    ///
    /// # Errors
    /// When a tensor's values are not what [`Values`] says, do not fit its shape, or share its name with another.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut file = MAGIC.to_vec();
        file.push(VERSION);
        parts::write_number(&mut file, self.about.len());
        for (key, value) in &self.about {
            parts::write_text(&mut file, key);
            parts::write_text(&mut file, value);
        }
        parts::write_number(&mut file, self.tensors.len());
        let mut names = BTreeSet::new();
        let mut payloads = Vec::new();
        for tensor in &self.tensors {
            if !names.insert(&tensor.name) {
                return Err(Error::DuplicateName { tensor: tensor.name.clone() });
            }
            write_part(&Part::of(tensor, &mut payloads)?, &mut file);
        }
        file.append(&mut payloads);
        file.extend(checksum::of(&file).to_le_bytes());
        Ok(file)
    }

    /// Reads a file from anywhere: it never panics, and holds no more memory than the limits say.
    ///
    /// # Errors
    /// When the file is not what [`Self::to_bytes`] writes, or beyond the limits.
    pub fn from_bytes(file: &[u8], limits: &Limits) -> Result<Self, Error> {
        if file.len() > limits.max_bytes {
            return Err(Error::TooLarge { got: file.len(), limit: limits.max_bytes });
        }
        if !Self::recognizes(file) {
            return Err(Error::NotAContainer);
        }
        let truncated = Error::Truncated { got: file.len() };
        let &version = file.get(MAGIC.len()).ok_or(truncated.clone())?;
        if !(VERSION_OLDEST..=VERSION).contains(&version) {
            return Err(Error::UnknownVersion(version));
        }
        let split = file.split_last_chunk::<4>().filter(|(content, _)| content.len() > MAGIC.len());
        let (content, trailer) = split.ok_or(truncated)?;
        let (expected, got) = (u32::from_le_bytes(*trailer), checksum::of(content));
        if expected != got {
            return Err(Error::Checksum { expected, got });
        }
        let mut reader = Reader::new(content, MAGIC.len() + 1);
        let mut about = BTreeMap::new();
        for _ in 0..reader.number()? {
            let (key, value) = (reader.text()?, reader.text()?);
            if about.insert(key.clone(), value).is_some() {
                return Err(Error::DuplicateKey { key });
            }
        }
        let mut names = BTreeSet::new();
        let mut parts = Vec::new();
        let mut elements = 0usize;
        for _ in 0..reader.number()? {
            let part = reader.part(limits.max_elements - elements)?;
            elements += part.len();
            if !names.insert(part.name.clone()) {
                return Err(Error::DuplicateName { tensor: part.name });
            }
            parts.push(part);
        }
        let mut tensors = Vec::with_capacity(parts.len());
        for part in parts {
            let payload = reader.bytes(part.payload)?;
            tensors.push(part.read(payload, version)?);
        }
        match reader.left() {
            0 => Ok(Self { about, tensors }),
            left => Err(Error::TrailingBytes(left)),
        }
    }

    /// Whether bytes begin as such a file does.
    #[must_use]
    pub fn recognizes(file: &[u8]) -> bool {
        file.starts_with(&MAGIC)
    }
}

fn row_of(shape: &[usize]) -> usize {
    if shape.len() < 2 { shape.iter().product() } else { shape[1..].iter().product() }
}

/// "DNLC": Dunlin container.
const MAGIC: [u8; 4] = *b"DNLC";
const VERSION: u8 = 2;
/// Version 1 had another way to write mixed positions.
const VERSION_OLDEST: u8 = 1;

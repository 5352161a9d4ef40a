//! What to do with a vector: how many coordinates, how finely, and how to write them down.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use crate::Error;

/// How an update becomes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Codec {
    /// Share of the coordinates that is sent, in (0, 1]. At 1 there is no sparsifier.
    pub density: f64,
    /// How a sent value is rounded.
    pub quantizer: Quantizer,
    /// How the result is written.
    pub coder: EntropyCoder,
}

/// How a sent value is rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Quantizer {
    /// Not at all.
    F32,
    /// To half precision, nearest even, clamped to ±65504.
    F16,
    /// To 255 levels of a scale per tensor, `f16(max|u| / 127)`.
    Int8,
    /// To a sign and a scale per tensor, `f16(mean |u|)` over the coordinates that are sent.
    Ternary,
}

/// How the positions of the sent coordinates, and 8-bit values, are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EntropyCoder {
    /// The smallest of all the others, by real size.
    Auto,
    /// A bitmap or plain 32-bit indices, whichever is smaller, per tensor.
    Raw,
    /// Golomb–Rice codes of the gaps, with the best parameter per tensor.
    Rice,
    /// Count and combinatorial rank of every 64 coordinates (Cover 1973, "Enumerative source encoding").
    Enumerative,
    /// An adaptive binary range coder over gaps, or over coordinates with their column, row and neighbourhood, per
    /// tensor.
    Adaptive,
}

/// What a vector costs after each stage, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StageBytes {
    /// Every coordinate as f32.
    pub dense: u64,
    /// After sparsification: a u32 index and an f32 per sent coordinate; `dense` without a sparsifier.
    pub sparse: u64,
    /// After quantization, nothing entropy-coded: u32 indices where sparse, packed values and scales.
    pub quantized: u64,
    /// The real frame with header and checksum.
    pub coded: u64,
}

impl Codec {
    /// Checks that the density is in (0, 1].
    ///
    /// # Errors
    /// [`Error::BadDensity`].
    pub fn validate(&self) -> Result<(), Error> {
        if self.density > 0.0 && self.density <= 1.0 {
            return Ok(());
        }
        Err(Error::BadDensity { density: self.density })
    }
}

impl Add for StageBytes {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            dense: self.dense + other.dense,
            sparse: self.sparse + other.sparse,
            quantized: self.quantized + other.quantized,
            coded: self.coded + other.coded,
        }
    }
}

impl AddAssign for StageBytes {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

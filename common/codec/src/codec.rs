//! What to do with a vector: how many coordinates, how finely, and how to write them down.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use crate::{CommonGrid, Error, FrameKind, Scheme};

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
    /// To a sign and one of a few magnitudes, the codebook of the tensor, each the mean of the magnitudes next to it.
    Codebook {
        /// A sign and the bits that tell at most 2^(b−1) magnitudes apart, 2 to [`Self::CODEBOOK_MAX_BITS`].
        bits: u8,
    },
    /// Whole blocks at once: rotated by signs and a Hadamard transform, to a uniform grid, entropy-coded. The fewest
    /// bytes of all that send every coordinate.
    Rotated {
        /// Wanted size of the whole frame; the grid's step is searched for it.
        rate: Rate,
        /// What the values sent are fitted to.
        fit: Fit,
    },
    /// Rotated as well, to the centroids of a normal variable, as they are (Vargaftik et al. 2022, "EDEN"; with one bit
    /// "DRIVE", 2021).
    Eden {
        /// Bits per coordinate, 1 to [`Self::EDEN_MAX_BITS`].
        bits: u8,
        /// What the values sent are fitted to.
        fit: Fit,
    },
    /// To random levels of the norm of every 512 coordinates (Alistarh et al. 2017), entropy-coded.
    Qsgd {
        /// Levels on either side of zero, 1 to [`Self::QSGD_MAX_LEVELS`]; 2^(b−1) − 1 for what is called b bits.
        levels: u8,
    },
    /// To a sign or zero at random, times the largest magnitude of the tensor (Wen et al. 2017), entropy-coded.
    Terngrad,
    /// To a sign and the mean magnitude of the tensor (Bernstein et al. 2018, Karimireddy et al. 2019).
    Sign,
    /// To integers of one grid that all clients share, so that they can be added by who does not see them.
    Common {
        /// The grid.
        grid: CommonGrid,
        /// Whether a value becomes one of its two neighbours at random, which within the grid's bound is unbiased, or the
        /// nearer one.
        fit: Fit,
    },
    /// Matrices to a product of two thin ones by one power iteration (Vogels et al. 2019, "PowerSGD").
    LowRank {
        /// Columns of the thin matrices, 1 to [`Self::MAX_RANK`].
        rank: u8,
    },
}

/// A wanted size in bits per coordinate, in steps of 1/1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Rate {
    thousandths: u16,
}

/// What the scale of a rotated block makes of its rounded values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Right on average over the rotations, so that errors of many senders cancel. Not for error feedback: these errors
    /// are larger than what they are made of, and would grow.
    Unbiased,
    /// The least squared error, which comes out too small. For error feedback, which makes up for that.
    LeastError,
}

/// Whether the expectation of what is decoded is what was encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bias {
    /// Nothing is lost.
    Exact,
    /// Over the encoder's random numbers it is. Must not be combined with error feedback.
    Unbiased,
    /// It is not, but the error is smaller than the vector, so that error feedback makes up for it.
    Biased,
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
    /// Checks that the density is in (0, 1], that it is 1 where the quantizer takes whole vectors, and that the
    /// quantizer's own numbers are in their ranges.
    ///
    /// # Errors
    /// [`Error::BadDensity`], [`Error::NotWhole`] or [`Error::BadQuantizer`].
    pub fn validate(&self) -> Result<(), Error> {
        if !(self.density > 0.0 && self.density <= 1.0) {
            return Err(Error::BadDensity { density: self.density });
        }
        if self.density < 1.0 && self.quantizer.is_whole() {
            return Err(Error::NotWhole { density: self.density });
        }
        let (number, least, most) = match self.quantizer {
            Quantizer::Codebook { bits } => (bits, 2, Quantizer::CODEBOOK_MAX_BITS),
            Quantizer::Eden { bits, .. } => (bits, 1, Quantizer::EDEN_MAX_BITS),
            Quantizer::Qsgd { levels } => (levels, 1, Quantizer::QSGD_MAX_LEVELS),
            Quantizer::LowRank { rank } => (rank, 1, Quantizer::MAX_RANK),
            _ => return Ok(()),
        };
        if (least..=most).contains(&number) { Ok(()) } else { Err(Error::BadQuantizer { number, least, most }) }
    }
}

impl Quantizer {
    /// Beyond eight magnitudes [`Self::Int8`] does as well.
    pub const CODEBOOK_MAX_BITS: u8 = 4;
    /// Centroids are known for so many bits.
    pub const EDEN_MAX_BITS: u8 = 4;
    /// A level and its sign are one of at most 255 symbols.
    pub const QSGD_MAX_LEVELS: u8 = 127;
    /// Beyond it low rank saves nothing on the models that this is for.
    pub const MAX_RANK: u8 = 64;

    /// Whether it takes whole vectors, so that there is nothing to choose by magnitude.
    #[must_use]
    pub fn is_whole(self) -> bool {
        !matches!(self, Self::F32 | Self::F16 | Self::Int8 | Self::Ternary | Self::Codebook { .. })
    }

    /// Whether its frames can be made as long as wanted: by more or fewer coordinates, or by another rate.
    #[must_use]
    pub fn fits_lengths(self) -> bool {
        !self.is_whole() || matches!(self, Self::Rotated { .. })
    }

    /// What the expectation of a decoded vector is.
    #[must_use]
    pub fn bias(self) -> Bias {
        match self {
            Self::F32 => Bias::Exact,
            Self::F16 | Self::Int8 | Self::Ternary | Self::Codebook { .. } | Self::Sign | Self::LowRank { .. } => {
                Bias::Biased
            }
            Self::Qsgd { .. } | Self::Terngrad => Bias::Unbiased,
            Self::Rotated { fit, .. } | Self::Eden { fit, .. } | Self::Common { fit, .. } => match fit {
                Fit::Unbiased => Bias::Unbiased,
                Fit::LeastError => Bias::Biased,
            },
        }
    }

    /// What its frames say that they hold.
    #[must_use]
    pub fn kind(self) -> FrameKind {
        match self {
            Self::F32 => FrameKind::F32,
            Self::F16 => FrameKind::F16,
            Self::Int8 => FrameKind::Int8,
            Self::Ternary => FrameKind::Ternary,
            Self::Codebook { bits } => FrameKind::Codebook { bits },
            Self::Rotated { .. } => FrameKind::Whole(Scheme::Rotated),
            Self::Eden { .. } => FrameKind::Whole(Scheme::Eden),
            Self::Qsgd { .. } => FrameKind::Whole(Scheme::Qsgd),
            Self::Terngrad => FrameKind::Whole(Scheme::Terngrad),
            Self::Sign => FrameKind::Whole(Scheme::Sign),
            Self::LowRank { .. } => FrameKind::Whole(Scheme::LowRank),
            Self::Common { .. } => FrameKind::Whole(Scheme::Common),
        }
    }
}

impl Rate {
    /// The least: a tenth of a bit.
    pub const LEAST: f64 = 0.1;
    /// The most: a byte.
    pub const MOST: f64 = 8.0;

    /// Rounded to the nearest thousandth.
    ///
    /// # Errors
    /// [`Error::BadRate`] outside of [`Self::LEAST`] to [`Self::MOST`].
    pub fn new(bits: f64) -> Result<Self, Error> {
        if (Self::LEAST..=Self::MOST).contains(&bits) {
            return Ok(Self { thousandths: (bits * 1000.0).round() as u16 });
        }
        Err(Error::BadRate { bits })
    }

    /// The nearest possible one; the least for what is not a number.
    #[must_use]
    pub fn nearest(bits: f64) -> Self {
        let bits = if bits.is_nan() { Self::LEAST } else { bits.clamp(Self::LEAST, Self::MOST) };
        Self { thousandths: (bits * 1000.0).round() as u16 }
    }

    /// In 1/1000 bits per coordinate.
    #[must_use]
    pub fn thousandths(self) -> u16 {
        self.thousandths
    }

    /// In bits per coordinate.
    #[must_use]
    pub fn bits(self) -> f64 {
        f64::from(self.thousandths) / 1000.0
    }
}

impl TryFrom<f64> for Rate {
    type Error = Error;

    fn try_from(bits: f64) -> Result<Self, Error> {
        Self::new(bits)
    }
}

impl From<Rate> for f64 {
    fn from(rate: Rate) -> Self {
        rate.bits()
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

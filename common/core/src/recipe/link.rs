//! What becomes of the values that travel: the words of a recipe, and what the codec makes of them.

use super::LinkConfig;
use dunlin_codec::{CommonGrid, Fit, Quantizer, Rate};
use serde::{Deserialize, Serialize};

/// How values are rounded; some have a number in another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QuantizerKind {
    /// Not at all.
    F32,
    /// To half precision.
    F16,
    /// To 255 levels of a scale per tensor.
    Int8,
    /// To a sign and a scale per tensor.
    Ternary,
    /// Whole blocks: rotated, to a grid, entropy-coded, in so many bits per coordinate.
    Rotated,
    /// Whole blocks: rotated, to centroids, in a fixed number of bits (EDEN; DRIVE with one).
    Eden,
    /// To random levels of a norm, as many as a number of bits has (QSGD).
    Qsgd,
    /// To a random sign or zero.
    Terngrad,
    /// To a sign and the mean magnitude.
    Sign,
    /// Matrices to thin products (PowerSGD).
    LowRank,
    /// To integers of one grid that all clients share, of so many bits, up to a common bound.
    Common,
}

impl QuantizerKind {
    /// Its word in a recipe.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Ternary => "ternary",
            Self::Rotated => "rotated",
            Self::Eden => "eden",
            Self::Qsgd => "qsgd",
            Self::Terngrad => "terngrad",
            Self::Sign => "sign",
            Self::LowRank => "low-rank",
            Self::Common => "common",
        }
    }

    /// The numbers of whole bits that it can have, where they must be whole.
    pub(super) fn whole_bits(self) -> Option<(u8, u8)> {
        match self {
            Self::Eden => Some((1, Quantizer::EDEN_MAX_BITS)),
            Self::Qsgd => Some((2, 8)),
            Self::Common => Some((CommonGrid::LEAST_BITS, CommonGrid::MOST_BITS)),
            _ => None,
        }
    }
}

impl LinkConfig {
    /// What the codec does with each value, with the numbers that it needs.
    #[must_use]
    pub fn quantizer(&self) -> Quantizer {
        match self.quantizer {
            QuantizerKind::F32 => Quantizer::F32,
            QuantizerKind::F16 => Quantizer::F16,
            QuantizerKind::Int8 => Quantizer::Int8,
            QuantizerKind::Ternary => Quantizer::Ternary,
            QuantizerKind::Rotated => Quantizer::Rotated { rate: Rate::nearest(self.bits), fit: self.fit },
            QuantizerKind::Eden => Quantizer::Eden { bits: self.bits as u8, fit: self.fit },
            // A sign and b − 1 bits of magnitude.
            QuantizerKind::Qsgd => Quantizer::Qsgd { levels: u8::MAX >> (9 - (self.bits as u32).clamp(2, 8)) },
            QuantizerKind::Terngrad => Quantizer::Terngrad,
            QuantizerKind::Sign => Quantizer::Sign,
            QuantizerKind::LowRank => Quantizer::LowRank { rank: self.rank },
            QuantizerKind::Common => Quantizer::Common { grid: self.grid(), fit: self.fit },
        }
    }

    /// The common grid of these bits and this bound.
    #[must_use]
    pub fn grid(&self) -> CommonGrid {
        let bits = (self.bits as u8).clamp(CommonGrid::LEAST_BITS, CommonGrid::MOST_BITS);
        // Only a recipe that nobody has validated has another bound than a grid can have.
        CommonGrid::new(bits, self.clip).unwrap_or_else(|_| CommonGrid::new(bits, 1.0).expect("one is a bound"))
    }
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            density: 0.01,
            quantizer: QuantizerKind::Ternary,
            bits: 2.0,
            fit: Fit::LeastError,
            clip: 0.25,
            rank: 4,
            coder: dunlin_codec::EntropyCoder::Auto,
            feedback: 0.9,
            warmup_rounds: 0,
            warmup_density: 0.1,
        }
    }
}

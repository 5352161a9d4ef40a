//! What becomes of the values that travel: the words of a recipe, and what the codec makes of them.

use crate::Layout;
use dunlin_codec::{CommonGrid, EntropyCoder, Fit, Quantizer, Rate};
use serde::{Deserialize, Serialize};

/// How model changes travel in one direction.
///
/// Its default is the uplink's; the downlink's differs, so a section that is read must have every key, and
/// [`Recipe::from_toml`](super::Recipe::from_toml) fills in the default of the right direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    /// Share of the coordinates that are sent; 1 sends all.
    pub density: f64,
    /// What becomes of each value that is sent.
    pub quantizer: QuantizerKind,
    /// Bits per coordinate, of the quantizers that can have more or fewer.
    pub bits: f64,
    /// What rotated values are fitted to, and how those on a common grid are rounded.
    pub fit: Fit,
    /// Largest magnitude of a value on a common grid.
    pub clip: f64,
    /// Columns of the thin matrices of low rank.
    pub rank: u8,
    /// What codes the positions and symbols.
    pub coder: EntropyCoder,
    /// Share β of what was left behind that is tried again next time; 0 turns feedback off. The downlink's feedback
    /// is the difference between the server's model and the broadcast one, so there 1 is the only other choice.
    pub feedback: f64,
    /// Rounds over which the density falls geometrically from `warmup_density` to `density`.
    pub warmup_rounds: u64,
    /// Density in the first round of the warm-up.
    pub warmup_density: f64,
    /// Factors on magnitudes when coordinates are chosen: how tensors' names begin, `=` and a factor, separated by
    /// commas. All other tensors count once.
    pub importance: String,
}

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
    /// To a sign and one of a few magnitudes fitted to the tensor.
    Codebook,
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
            Self::Codebook => "codebook",
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
            Self::Codebook => Some((2, Quantizer::CODEBOOK_MAX_BITS)),
            Self::Eden => Some((1, Quantizer::EDEN_MAX_BITS)),
            Self::Qsgd => Some((2, 8)),
            Self::Common => Some((CommonGrid::LEAST_BITS, CommonGrid::MOST_BITS)),
            _ => None,
        }
    }
}

impl LinkConfig {
    /// The least factor of importance.
    pub const LEAST_FACTOR: f32 = 0.001;
    /// The greatest factor of importance.
    pub const MOST_FACTOR: f32 = 1000.0;

    /// What the codec does with each value, with the numbers that it needs.
    #[must_use]
    pub fn quantizer(&self) -> Quantizer {
        match self.quantizer {
            QuantizerKind::F32 => Quantizer::F32,
            QuantizerKind::F16 => Quantizer::F16,
            QuantizerKind::Int8 => Quantizer::Int8,
            QuantizerKind::Ternary => Quantizer::Ternary,
            QuantizerKind::Codebook => Quantizer::Codebook { bits: self.bits as u8 },
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

    /// How names of tensors begin, and the factor on the magnitudes of those tensors; a later one goes first.
    ///
    /// # Errors
    /// With what is no such pair.
    pub fn importance(&self) -> Result<Vec<(&str, f32)>, &str> {
        let entries = self.importance.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let pair = |entry| {
            let (start, factor) = str::split_once(entry, '=').ok_or(entry)?;
            let factor: f32 = factor.trim().parse().map_err(|_| entry)?;
            let is_right = !start.trim().is_empty() && (Self::LEAST_FACTOR..=Self::MOST_FACTOR).contains(&factor);
            if is_right { Ok((start.trim(), factor)) } else { Err(entry) }
        };
        entries.map(pair).collect()
    }

    /// The factor of each tensor of a model; none where all count alike.
    ///
    /// # Errors
    /// With how a name is to begin that no tensor's does.
    pub fn factors(&self, layout: &Layout) -> Result<Vec<f32>, &str> {
        let pairs = self.importance()?;
        let names = || layout.tensors().iter().map(|tensor| tensor.name.as_str());
        if let Some((start, _)) = pairs.iter().find(|(start, _)| !names().any(|name| name.starts_with(start))) {
            return Err(start);
        }
        let factor =
            |name: &str| pairs.iter().rev().find(|(start, _)| name.starts_with(start)).map_or(1.0, |pair| pair.1);
        Ok(if pairs.is_empty() { Vec::new() } else { names().map(factor).collect() })
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
            importance: String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TensorSpec;

    #[test]
    fn each_tensor_has_the_factor_of_the_last_beginning_that_fits_and_the_others_one() {
        let names = ["fc1.weight", "fc1.bias", "fc2.weight", "fc10.weight"];
        let layout = Layout::new(names.map(|name| TensorSpec::new(name, [2])).to_vec()).unwrap();
        let factors = |importance: &str| {
            let link = LinkConfig { importance: importance.to_owned(), ..LinkConfig::default() };
            link.factors(&layout).map_err(str::to_owned)
        };
        assert_eq!(factors(""), Ok(vec![]));
        assert_eq!(factors("fc1=3 , fc1.bias = 0.5,"), Ok(vec![3.0, 0.5, 1.0, 3.0]));
        assert_eq!(factors("fc2=2, fc3=4"), Err("fc3".to_owned()));
        for wrong in ["fc1", "fc1=", "=2", "fc1=nan", "fc1=-1", "fc1=0.0001", "fc1=1001", "fc1=inf"] {
            assert_eq!(factors(wrong), Err(wrong.to_owned()));
        }
    }
}

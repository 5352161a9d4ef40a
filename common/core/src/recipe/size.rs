//! Clients of several sizes: how much of each hidden layer a client has, and how many clients have it.

use super::Recipe;
use crate::Seed;
use rand::RngCore;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The share of the channels of each hidden layer that a client's model has, in millionths: of C channels it has the
/// first ⌈width·C⌉ (`HeteroFL`, Diao et al. 2021, <https://arxiv.org/abs/2010.01264>).
///
/// Whole numbers, so that everybody counts the same channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Width(u32);

/// A number that is no width.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is no width; it must be a number of at least 0.001 and at most 1, such as 0.5")]
pub struct BadWidth(f64);

impl Width {
    /// All channels.
    pub const WHOLE: Self = Self(1_000_000);
    /// The least: a thousandth is one channel of every hidden layer that anybody trains.
    pub const LEAST: Self = Self(1000);

    /// A width from a share, rounded to millionths.
    ///
    /// # Errors
    /// When it is not from 0.001 to 1.
    pub fn new(share: f64) -> Result<Self, BadWidth> {
        let millionths = (share * 1e6).round();
        let is_width = (f64::from(Self::LEAST.0)..=f64::from(Self::WHOLE.0)).contains(&millionths);
        if is_width { Ok(Self(millionths as u32)) } else { Err(BadWidth(share)) }
    }

    /// From what [`Self::millionths`] gave.
    ///
    /// # Errors
    /// When it is not from [`Self::LEAST`] to [`Self::WHOLE`].
    pub fn from_millionths(millionths: u32) -> Result<Self, BadWidth> {
        Self::new(f64::from(millionths) / 1e6)
    }

    /// As whole millionths.
    #[must_use]
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// As a share.
    #[must_use]
    pub fn share(self) -> f64 {
        f64::from(self.0) / 1e6
    }

    /// Whether it is all channels.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        *self == Self::WHOLE
    }

    /// How many of so many channels a client of this width has; at least one of any.
    #[must_use]
    pub fn of(self, channels: usize) -> usize {
        (channels as u128 * u128::from(self.0)).div_ceil(1_000_000) as usize
    }
}

impl Default for Width {
    fn default() -> Self {
        Self::WHOLE
    }
}

impl TryFrom<f64> for Width {
    type Error = BadWidth;

    fn try_from(share: f64) -> Result<Self, BadWidth> {
        Self::new(share)
    }
}

impl From<Width> for f64 {
    fn from(width: Width) -> Self {
        width.share()
    }
}

impl std::str::FromStr for Width {
    type Err = BadWidth;

    fn from_str(text: &str) -> Result<Self, BadWidth> {
        Self::new(text.parse().unwrap_or(f64::NAN))
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.share().fmt(f)
    }
}

/// One size of client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SizeConfig {
    /// How much of each hidden layer its model has.
    pub width: Width,
    /// Share of the clients that are of this size, relative to the other sizes' shares.
    pub share: f64,
}

impl SizeConfig {
    /// Most sizes of a recipe: the server keeps a sum and a model for each.
    pub const MOST: usize = 16;
}

impl Default for SizeConfig {
    fn default() -> Self {
        Self { width: Width::WHOLE, share: 1.0 }
    }
}

impl Recipe {
    /// The widths that clients may have; that of the whole model alone where the recipe names none.
    pub fn widths(&self) -> impl Iterator<Item = Width> + '_ {
        let only = self.size.is_empty().then_some(Width::WHOLE);
        only.into_iter().chain(self.size.iter().map(|size| size.width))
    }

    /// Whether clients may have this width.
    #[must_use]
    pub fn has_width(&self, width: Width) -> bool {
        self.widths().any(|known| known == width)
    }

    /// The widths of the clients that have the recipe's parts of the data, by the number of the part: each size gets its
    /// share of them, dealt at random from the recipe's seed.
    #[must_use]
    pub fn dealt_widths(&self) -> Vec<Width> {
        let clients = self.data.clients as usize;
        let total: f64 = self.size.iter().map(|size| size.share).sum();
        let mut dealt = Vec::with_capacity(clients);
        let mut share = 0.0;
        for size in &self.size {
            share += size.share;
            let end = (share / total * clients as f64).round() as usize;
            dealt.resize(end.clamp(dealt.len(), clients), size.width);
        }
        dealt.resize(clients, self.size.last().map_or(Width::WHOLE, |size| size.width));
        if self.size.len() > 1 {
            let mut rng = Seed::from_u64(self.seed).derive("sizes").rng();
            for last in (1..clients).rev() {
                // Biased by at most 2⁻³², which nobody can tell.
                dealt.swap(last, (rng.next_u64() % (last as u64 + 1)) as usize);
            }
        }
        dealt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn width(share: f64) -> Width {
        Width::new(share).unwrap()
    }

    #[test]
    fn a_width_is_a_share_of_at_most_all_and_counts_channels_exactly() {
        for bad in [0.0, -0.5, 1.1, 0.0001, f64::NAN, f64::INFINITY] {
            assert!(Width::new(bad).is_err(), "{bad}");
        }
        assert!("half".parse::<Width>().is_err());
        assert_eq!("0.25".parse(), Ok(width(0.25)));
        assert_eq!((width(0.25).millionths(), width(0.25).to_string()), (250_000, "0.25".into()));
        assert_eq!(Width::from_millionths(62_500), Ok(width(0.0625)));
        assert_eq!(Width::from_millionths(0), Err(BadWidth(0.0)));
        let of = |share, channels| width(share).of(channels);
        assert_eq!([of(0.5, 200), of(0.25, 50), of(0.07, 100), of(0.001, 1), of(1.0, 7)], [100, 13, 7, 1, 7]);
        assert_eq!(width(0.5).of(1 << 30), 1 << 29);
    }

    #[test]
    fn each_size_is_dealt_its_share_and_the_same_again() {
        let mut recipe = Recipe::default();
        assert_eq!(
            (recipe.dealt_widths(), recipe.widths().collect::<Vec<_>>()),
            (vec![Width::WHOLE; 20], vec![Width::WHOLE])
        );
        let sizes = [(1.0, 1.0), (0.5, 2.0), (0.25, 1.0)];
        recipe.size = sizes.map(|(share, clients)| SizeConfig { width: width(share), share: clients }).to_vec();
        let dealt = recipe.dealt_widths();
        let count = |share: f64| dealt.iter().filter(|&&dealt| dealt == width(share)).count();
        assert_eq!((dealt.len(), count(1.0), count(0.5), count(0.25)), (20, 5, 10, 5));
        assert_eq!(recipe.dealt_widths(), dealt);
        recipe.seed = 2;
        assert_ne!(recipe.dealt_widths(), dealt);
    }
}

//! The grid that all clients of a round share, so that their integers can be added without looking at any of them.

use serde::{Deserialize, Serialize};

use crate::{Error, FrameHeader, FrameKind, Scheme};

/// Multiples of one power of two, within one bound, the same for all clients of a round.
///
/// A client's own scale would say something of its update, and sums of integers in different units mean nothing. With
/// one step for all, the sum of the integers is the sum of the updates, to the bit and in any order, whoever adds them
/// up: a server that sees each update, or a secure sum that sees none (Bonawitz et al. 2017, §6). Clipping comes before
/// rounding, so that what one client can change is known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "(u8, i8, u8)", into = "(u8, i8, u8)")]
pub struct CommonGrid {
    bits: u8,
    exponent: i8,
    most: u8,
}

impl CommonGrid {
    /// Fewest bits of an integer: a sign and one level.
    pub const LEAST_BITS: u8 = 2;
    /// Most bits of an integer. What eight leave behind is 1/254 of the bound; feedback or the mean of many makes up for
    /// it.
    pub const MOST_BITS: u8 = 8;
    /// The finest step is 2 to this: 2⁻²⁴ is the model's own unit.
    pub const LEAST_EXPONENT: i8 = -40;
    /// The coarsest step is 2 to this: what half precision ends at.
    pub const MOST_EXPONENT: i8 = 15;

    /// The grid of integers of `bits` bits that reaches as close to `clip` as it can without exceeding it: steps of
    /// 2^(⌈log₂ clip⌉ − bits + 1).
    ///
    /// # Errors
    /// [`Error::BadGrid`] for bits outside 2 to 8, and for a bound that is not finite and positive or whose step is not
    /// between the finest and the coarsest.
    pub fn new(bits: u8, clip: f64) -> Result<Self, Error> {
        let bad = Error::BadGrid { bits, exponent: 0, most: 0 };
        if !(clip.is_normal() && clip > 0.0 && (Self::LEAST_BITS..=Self::MOST_BITS).contains(&bits)) {
            return Err(bad);
        }
        // From the bits of the number: logarithms are not rounded alike everywhere.
        let floor = (clip.to_bits() >> 52) as i32 - 1023;
        let ceil = if clip > 2f64.powi(floor) { floor + 1 } else { floor };
        let exponent = i8::try_from(ceil - i32::from(bits) + 1).map_err(|_| bad)?;
        let levels = clip * 2f64.powi(-i32::from(exponent));
        Self::from_parts(bits, exponent, (levels as u32).min((1 << (bits - 1)) - 1) as u8)
    }

    /// The grid of these numbers, as received from a peer.
    ///
    /// # Errors
    /// [`Error::BadGrid`] for numbers that [`Self::new`] does not give.
    pub fn from_parts(bits: u8, exponent: i8, most: u8) -> Result<Self, Error> {
        let grid = Self { bits, exponent, most };
        if grid.is_sound() && most > 0 && u32::from(most) < 1 << (bits - 1) {
            return Ok(grid);
        }
        Err(Error::BadGrid { bits, exponent, most })
    }

    /// Whether a frame says that its integers have these bits and this step. That they are within the bound is seen in
    /// its values only.
    #[must_use]
    pub fn is_of(self, frame: &[u8]) -> bool {
        let Ok(header) = FrameHeader::parse(frame) else { return false };
        let head = frame.get(header.body..).and_then(|body| body.split_first_chunk());
        header.kind == FrameKind::Whole(Scheme::Common)
            && head.is_some_and(|(&[exponent, bits], _)| {
                (exponent.cast_signed(), bits & !CODED) == (self.exponent, self.bits)
            })
    }

    /// Bits of an integer.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// The step is 2 to this.
    #[must_use]
    pub fn exponent(self) -> i8 {
        self.exponent
    }

    /// The largest magnitude of an integer.
    #[must_use]
    pub fn most(self) -> u8 {
        self.most
    }

    /// What one integer is worth.
    #[must_use]
    pub fn step(self) -> f32 {
        2f32.powi(self.exponent.into())
    }

    /// The largest magnitude of a value: at most the bound that the grid was made for.
    #[must_use]
    pub fn largest(self) -> f32 {
        f32::from(self.most) * self.step()
    }

    /// Bits that a secure sum needs for each coordinate: ⌈log₂(2·n·q·w + 1)⌉ hold every possible sum of `updates` updates
    /// with integers up to q, each weighted by at most `max_weight`.
    #[must_use]
    pub fn sum_bits(self, updates: u32, max_weight: u32) -> u32 {
        let most = u128::from(updates) * u128::from(self.most) * u128::from(max_weight);
        // ⌈log₂(x + 1)⌉ is the number of binary digits of x.
        u128::BITS - (2 * most).leading_zeros()
    }

    fn is_sound(self) -> bool {
        (Self::LEAST_BITS..=Self::MOST_BITS).contains(&self.bits)
            && (Self::LEAST_EXPONENT..=Self::MOST_EXPONENT).contains(&self.exponent)
    }

    /// The step of a body that says these numbers.
    pub(crate) fn step_of(bits: u8, exponent: i8) -> Result<f32, Error> {
        let grid = Self { bits, exponent, most: 1 };
        if grid.is_sound() { Ok(grid.step()) } else { Err(Error::BadBlock { index: 0 }) }
    }
}

impl TryFrom<(u8, i8, u8)> for CommonGrid {
    type Error = Error;

    fn try_from((bits, exponent, most): (u8, i8, u8)) -> Result<Self, Error> {
        Self::from_parts(bits, exponent, most)
    }
}

impl From<CommonGrid> for (u8, i8, u8) {
    fn from(grid: CommonGrid) -> Self {
        (grid.bits, grid.exponent, grid.most)
    }
}

/// Set in a body's second byte when the integers are range-coded.
pub(crate) const CODED: u8 = 1 << 7;

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(bits: u8, clip: f64) -> (i8, u8, f32) {
        let grid = CommonGrid::new(bits, clip).unwrap();
        (grid.exponent(), grid.most(), grid.largest())
    }

    #[test]
    fn a_grid_reaches_as_far_as_its_bits_and_its_bound_allow() {
        assert_eq!(parts(8, 1.0), (-7, 127, 127.0 / 128.0));
        assert_eq!(parts(8, 0.25), (-9, 127, 127.0 / 512.0));
        assert_eq!(parts(2, 1.0), (-1, 1, 0.5));
        // Beyond a power of two the step doubles, and the bound ends it before the bits do.
        assert_eq!(parts(8, 0.3), (-8, 76, 76.0 / 256.0));
        assert_eq!(parts(8, 65504.0), (9, 127, 65024.0));
        for bits in 2..=8 {
            for clip in [1e-6, 0.01, 0.1, 0.5, 1.5, 3.0, 1000.0] {
                let grid = CommonGrid::new(bits, clip).unwrap();
                assert!(f64::from(grid.largest()) <= clip && f64::from(grid.largest()) * 2.0 >= clip, "{grid:?}");
                assert_eq!(CommonGrid::from_parts(bits, grid.exponent(), grid.most()), Ok(grid));
            }
        }
    }

    #[test]
    fn what_is_no_grid_is_refused() {
        for (bits, clip) in [(1, 1.0), (9, 1.0), (8, 0.0), (8, -1.0), (8, f64::NAN), (8, f64::INFINITY), (8, 1e-20)] {
            assert!(matches!(CommonGrid::new(bits, clip), Err(Error::BadGrid { .. })), "{bits} bits, {clip}");
        }
        for (bits, exponent, most) in [(1, 0, 1), (9, 0, 1), (8, 0, 0), (8, 0, 128), (4, 0, 8), (8, 16, 1), (8, -41, 1)]
        {
            assert!(CommonGrid::from_parts(bits, exponent, most).is_err(), "{bits} {exponent} {most}");
        }
    }

    #[test]
    fn a_secure_sum_has_room_for_every_sum_and_no_bit_more() {
        let grid = CommonGrid::new(8, 1.0).unwrap();
        // ⌈log₂(2·10·127·600 + 1)⌉ = ⌈log₂ 1 524 001⌉
        assert_eq!(grid.sum_bits(10, 600), 21);
        for (updates, weight) in [(1, 1), (10, 1), (100, 600), (1000, 1_000_000), (u32::MAX, u32::MAX)] {
            let values = 2 * u128::from(updates) * 127 * u128::from(weight) + 1;
            let bits = grid.sum_bits(updates, weight);
            assert!(1 << bits >= values && 1 << (bits - 1) < values, "{updates} updates of weight {weight}: {bits}");
        }
    }
}

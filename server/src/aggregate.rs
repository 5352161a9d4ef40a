//! From the updates of a round to one: exact sums, straight from the coded stream.

use crate::decoding::decode;
use dunlin_codec::{CommonGrid, Limits, Segments, Sink, Sinks, change_at, largest_magnitude, vectorised};

mod sliced;
#[cfg(test)]
mod tests;

pub use sliced::SlicedSum;

/// A rule that makes one update of many.
///
/// An implementation gives the same bits whatever the order in which updates arrive, and runs the contract suite in
/// this module's tests.
pub trait Aggregator: Send {
    /// The rule's name in recipes, logs and reports.
    fn name(&self) -> &'static str;

    /// Counts one update; `weight` is the number of examples behind it.
    ///
    /// The caller has verified the frame and bounded its values.
    ///
    /// # Errors
    /// When the frame cannot be decoded after all, or the weight is beyond what was announced; then the update does
    /// not count at all.
    fn add_frame(&mut self, frame: &[u8], segments: &Segments, limits: &Limits, weight: u32) -> Result<(), Error>;

    /// Counts one update that was decoded before: its values by index, the others being zero.
    ///
    /// # Errors
    /// When the weight is beyond what was announced; then the update does not count at all.
    fn add_values(&mut self, values: &[(u32, f32)], weight: u32) -> Result<(), Error>;

    /// Updates counted.
    fn updates(&self) -> u32;

    /// Writes the aggregate of the updates counted, and forgets them: a sum is as large as several models, and is gone
    /// through once for both.
    ///
    /// # Errors
    /// [`Error::Empty`] when there are none.
    fn aggregate(&mut self, out: &mut [f32]) -> Result<(), Error>;

    /// Forgets all updates.
    fn clear(&mut self);
}

/// Why an update could not be counted, or a mean not be taken.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The frame is not one of this model's codec.
    #[error("an update cannot be decoded: {0}")]
    Frame(#[from] dunlin_codec::Error),
    /// More weight than the sum has room for.
    #[error("weight {weight} would exceed the {max} that this sum was made for")]
    TooMuchWeight {
        /// The weight with the update.
        weight: u64,
        /// The most there may be.
        max: u64,
    },
    /// The other sum has another length or unit.
    #[error("the sums differ in length or scale")]
    OtherScale,
    /// There is nothing to aggregate.
    #[error("no update has been counted")]
    Empty,
}

/// The weighted mean of updates, summed in fixed point.
///
/// Each value is rounded once to a multiple of 2⁻ᶠ and multiplied by its weight as an integer, so the sum is the same
/// to the bit in any order and any grouping, and after any restart. Costs 8 bytes a coordinate, however many updates.
#[derive(Clone, Debug, PartialEq)]
pub struct ExactSum {
    sums: Vec<i64>,
    scale: Scale,
    weight: u64,
    updates: u32,
}

impl ExactSum {
    /// An empty sum for a model of `len` parameters.
    #[must_use]
    pub fn new(len: usize, scale: Scale) -> Self {
        Self { sums: vec![0; len], scale, weight: 0, updates: 0 }
    }

    /// Counts several dense updates of floats (see [`dunlin_codec::is_plain_dense`]) together, each with its weight: the
    /// sum, larger than all of them, is gone through once and not for each.
    ///
    /// # Errors
    /// As [`Aggregator::add_frame`]; then none of them counts.
    pub fn add_dense(&mut self, updates: &[(&[u8], u32)], segments: &Segments, limits: &Limits) -> Result<(), Error> {
        if segments.len() != self.sums.len() {
            return Err(Error::OtherScale);
        }
        let weight = updates.iter().map(|&(_, weight)| u64::from(weight)).sum();
        let total = self.scale.check(self.weight, weight)?;
        let frames: Vec<&[u8]> = updates.iter().map(|&(frame, _)| frame).collect();
        let mut pour =
            |sign| dunlin_codec::decode_together(&frames, segments, limits, &mut Together { sum: self, updates, sign });
        if let Err((_, error)) = pour(1) {
            // As in `add_frame`.
            let _same_error = pour(-1);
            return Err(Error::Frame(error));
        }
        self.weight = total;
        self.updates += updates.len() as u32;
        Ok(())
    }

    /// Adds another sum, such as that of a part of the cohort.
    ///
    /// # Errors
    /// When the sums are of different models or scales, or weigh too much together; then nothing is added.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        if self.sums.len() != other.sums.len() || self.scale != other.scale {
            return Err(Error::OtherScale);
        }
        self.weight = self.scale.check(self.weight, other.weight)?;
        self.updates = self.updates.saturating_add(other.updates);
        for (sum, &part) in self.sums.iter_mut().zip(&other.sums) {
            *sum = sum.wrapping_add(part);
        }
        Ok(())
    }

    /// Sum of the weights.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.weight
    }

    fn pour(&mut self, frame: &[u8], segments: &Segments, limits: &Limits, weight: i64) -> Result<(), Error> {
        decode(frame, segments, limits, &mut self.weighted(weight))?;
        Ok(())
    }

    fn weighted(&mut self, weight: i64) -> Weighted<'_> {
        Weighted { sums: &mut self.sums, fixed: self.scale.fixed(), weight }
    }
}

impl Aggregator for ExactSum {
    fn name(&self) -> &'static str {
        "mean"
    }

    fn add_frame(&mut self, frame: &[u8], segments: &Segments, limits: &Limits, weight: u32) -> Result<(), Error> {
        if segments.len() != self.sums.len() {
            return Err(Error::OtherScale);
        }
        let total = self.scale.check(self.weight, weight.into())?;
        if let Err(error) = self.pour(frame, segments, limits, weight.into()) {
            // Decoding fails at the same place again, and wrapping addition undoes itself.
            let _same_error = self.pour(frame, segments, limits, -i64::from(weight));
            return Err(error);
        }
        self.weight = total;
        self.updates += 1;
        Ok(())
    }

    fn add_values(&mut self, values: &[(u32, f32)], weight: u32) -> Result<(), Error> {
        let total = self.scale.check(self.weight, weight.into())?;
        let Weighted { sums, fixed, weight } = self.weighted(weight.into());
        change_at(sums, values.iter().map(|&(index, _)| index), |sum, i| {
            *sum = sum.wrapping_add(fixed.units(values[i].1).wrapping_mul(weight));
        });
        self.weight = total;
        self.updates += 1;
        Ok(())
    }

    fn updates(&self) -> u32 {
        self.updates
    }

    fn aggregate(&mut self, out: &mut [f32]) -> Result<(), Error> {
        if out.len() != self.sums.len() {
            return Err(Error::OtherScale);
        }
        if self.weight == 0 {
            return Err(Error::Empty);
        }
        let divisor = self.weight as f64 * self.scale.unit().recip();
        vectorised(
            #[inline(always)]
            || {
                for (out, sum) in out.iter_mut().zip(&mut self.sums) {
                    *out = (std::mem::take(sum) as f64 / divisor) as f32;
                }
            },
        );
        (self.weight, self.updates) = (0, 0);
        Ok(())
    }

    fn clear(&mut self) {
        // An update without weight leaves no trace.
        if self.weight > 0 {
            self.sums.fill(0);
        }
        (self.weight, self.updates) = (0, 0);
    }
}

/// The fixed-point unit of a sum, chosen so that the sum cannot overflow.
///
/// With total weight W ≤ 2ʷ and values of magnitude up to 2ᵃ, the unit 2⁻ᶠ with f = 62 − w − a keeps
/// Σ weight·|value| below 2⁶², half of what an `i64` holds. The digits federation (10 clients, 10⁶ examples, |value| ≤
/// 16) gets f = 34: each value is off by at most 2⁻³⁵.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    fraction_bits: i32,
    max_abs: f64,
    max_weight: u64,
}

impl Scale {
    /// Finest unit: 16 bits below the broadcast model's 2⁻²⁴ nothing is left to gain.
    pub const MAX_FRACTION_BITS: i32 = 40;

    /// The unit for up to `max_updates` updates of up to `max_examples` examples each and coordinates of magnitude up
    /// to `max_abs`.
    #[must_use]
    pub fn for_recipe(max_updates: u32, max_examples: u32, max_abs: f32) -> Self {
        let max_weight = (u64::from(max_updates) * u64::from(max_examples)).max(1);
        let weight_bits = ceil_log2(max_weight as f64);
        let max_abs = f64::from(max_abs).clamp(f64::from(f32::MIN_POSITIVE), 2f64.powi(50));
        let abs_bits = ceil_log2(max_abs);
        // Below 2⁵¹ units a value is rounded by one addition, which is what lets dense updates run at memory speed.
        let fraction_bits = Self::MAX_FRACTION_BITS.min(62 - weight_bits - abs_bits).min(50 - abs_bits).max(0);
        let room_bits = (62 - fraction_bits - abs_bits).clamp(0, 62);
        Self { fraction_bits, max_abs, max_weight: max_weight.min(1 << room_bits) }
    }

    /// The step of a common grid: values are whole numbers of it, and the sum is that of their integers, as a secure sum
    /// would have it.
    #[must_use]
    pub fn for_grid(max_updates: u32, max_examples: u32, grid: CommonGrid) -> Self {
        let max_weight = (u64::from(max_updates) * u64::from(max_examples)).max(1);
        Self {
            fraction_bits: -i32::from(grid.exponent()),
            max_abs: grid.largest().into(),
            max_weight: max_weight.min((1 << 62) / u64::from(grid.most())),
        }
    }

    /// Bits after the binary point; where there are fewer than none, units of more than one.
    #[must_use]
    pub fn fraction_bits(&self) -> i32 {
        self.fraction_bits
    }

    fn unit(&self) -> f64 {
        2f64.powi(-self.fraction_bits)
    }

    fn fixed(&self) -> Fixed {
        Fixed { rounder: ROUNDER * self.unit(), max: self.max_abs }
    }

    fn check(&self, held: u64, more: u64) -> Result<u64, Error> {
        let weight = held.saturating_add(more);
        if weight > self.max_weight {
            return Err(Error::TooMuchWeight { weight, max: self.max_weight });
        }
        Ok(weight)
    }
}

/// Rounds values to units.
#[derive(Clone, Copy)]
struct Fixed {
    rounder: f64,
    max: f64,
}

impl Fixed {
    /// The value in units, ties to even; out of bounds and NaN become a bound, so that a sum never overflows.
    #[inline(always)]
    fn units(self, value: f32) -> i64 {
        self.rounded(f64::from(value).max(-self.max).min(self.max))
    }

    /// The same of a value that is within bounds.
    #[inline(always)]
    fn rounded(self, value: f64) -> i64 {
        // In [2⁵², 2⁵³) the spacing of f64 is 1, and in that many units it is one unit: so the addition rounds and the low
        // bits are the integer.
        (value + self.rounder).to_bits().wrapping_sub(self.rounder.to_bits()).cast_signed()
    }

    /// Adds values to sums, each times a weight; `largest` is the largest magnitude among them. To bound each of them takes
    /// as long as the rest.
    #[inline(always)]
    fn add(self, sums: &mut [i64], values: impl Iterator<Item = f32>, largest: f32, weight: i64) {
        if f64::from(largest) <= self.max {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = sum.wrapping_add(self.rounded(value.into()).wrapping_mul(weight));
            }
        } else {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = sum.wrapping_add(self.units(value).wrapping_mul(weight));
            }
        }
    }
}

/// Receives decoded values and adds them, weighted.
struct Weighted<'a> {
    sums: &'a mut [i64],
    fixed: Fixed,
    weight: i64,
}

impl Sink for Weighted<'_> {
    fn add(&mut self, index: usize, value: f32) {
        if let Some(sum) = self.sums.get_mut(index) {
            *sum = sum.wrapping_add(self.fixed.units(value).wrapping_mul(self.weight));
        }
    }

    fn add_sparse(&mut self, start: usize, positions: &[u32], values: &[f32]) {
        let Some(sums) = self.sums.get_mut(start..) else { return };
        for (positions, values) in positions.chunks(AT_ONCE).zip(values.chunks(AT_ONCE)) {
            let mut units = [0; AT_ONCE];
            let (fixed, weight) = (self.fixed, self.weight);
            vectorised(
                #[inline(always)]
                || {
                    for (units, &value) in units.iter_mut().zip(values) {
                        *units = fixed.units(value).wrapping_mul(weight);
                    }
                },
            );
            change_at(sums, positions.iter().copied(), |sum, i| *sum = sum.wrapping_add(units[i]));
        }
    }

    fn add_floats(&mut self, start: usize, floats: &[[u8; 4]]) -> Option<u32> {
        let (fixed, weight) = (self.fixed, self.weight);
        let sums = self.sums.get_mut(start..)?;
        vectorised(
            #[inline(always)]
            || {
                // Bits of magnitudes are in the order of the magnitudes; signed integers are what is compared fastest.
                let (mut nonzeros, mut largest) = (0, 0);
                for &float in floats {
                    let magnitude = i32::from_le_bytes(float) & i32::MAX;
                    nonzeros += u32::from(magnitude != 0);
                    largest = magnitude.max(largest);
                }
                let largest = f32::from_bits(largest.cast_unsigned());
                fixed.add(sums, floats.iter().map(|&float| f32::from_le_bytes(float)), largest, weight);
                largest.is_finite().then_some(nonzeros)
            },
        )
    }

    fn add_dense(&mut self, start: usize, values: &[f32]) {
        let Some(sums) = self.sums.get_mut(start..) else { return };
        let (fixed, weight) = (self.fixed, self.weight);
        vectorised(
            #[inline(always)]
            || {
                fixed.add(sums, values.iter().copied(), largest_magnitude(values), weight);
            },
        );
    }
}

/// A sum that several updates go to, each with its weight.
struct Together<'a> {
    sum: &'a mut ExactSum,
    updates: &'a [(&'a [u8], u32)],
    sign: i64,
}

impl Sinks for Together<'_> {
    fn of(&mut self, frame: usize) -> impl Sink {
        self.sum.weighted(self.sign * i64::from(self.updates[frame].1))
    }
}

/// Values turned into units at a time.
const AT_ONCE: usize = 1024;
/// 1.5·2⁵²: adding it rounds to an integer.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// ⌈log₂ x⌉ of a normal positive number, from its exponent: no rounding of a logarithm.
fn ceil_log2(x: f64) -> i32 {
    let floor = ((x.to_bits() >> 52) & 0x7ff) as i32 - 1023;
    if x > 2f64.powi(floor) { floor + 1 } else { floor }
}

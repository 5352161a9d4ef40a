//! Exact sums of updates from clients of several sizes.

use super::{Aggregator, Error, ExactSum, Scale};
use dunlin_codec::{Limits, Segments};
use dunlin_nn::small::{Slice, Slices};
use std::sync::Arc;

/// The weighted mean of updates of which some are about a part of the model only: each coordinate is averaged over the
/// clients that have it, and is zero where none of them does (`HeteroFL`, Diao et al. 2021,
/// <https://arxiv.org/abs/2010.01264>, eq. 4–6, with examples for weights).
///
/// A sum for each size, in its own coordinates; all of one unit, so that they add up exactly. Costs 8 bytes a coordinate
/// of each size. Which size an update is of, its length tells.
#[derive(Clone, Debug)]
pub struct SlicedSum {
    whole: ExactSum,
    /// Largest first.
    slices: Vec<(Arc<Slice>, ExactSum)>,
}

impl SlicedSum {
    /// An empty sum for a model of `len` parameters and its slices.
    #[must_use]
    pub fn new(len: usize, scale: Scale, slices: &Slices) -> Self {
        let slices = slices.iter().map(|slice| (Arc::clone(slice), ExactSum::new(slice.len(), scale))).collect();
        Self { whole: ExactSum::new(len, scale), slices }
    }

    /// Counts one update that was decoded before, of the size that has `len` parameters.
    ///
    /// # Errors
    /// [`Error::OtherScale`] when none has, and as [`Aggregator::add_values`].
    pub fn add_values_of(&mut self, len: usize, values: &[(u32, f32)], weight: u32) -> Result<(), Error> {
        self.of_len(len, weight.into())?.add_values(values, weight)
    }

    /// Counts updates together that are dense and of one size.
    ///
    /// # Errors
    /// [`Error::OtherScale`] when no size has as many parameters, and as [`ExactSum::add_dense`].
    pub fn add_dense(&mut self, updates: &[(&[u8], u32)], segments: &Segments, limits: &Limits) -> Result<(), Error> {
        let weight = updates.iter().map(|&(_, weight)| u64::from(weight)).sum();
        self.of_len(segments.len(), weight)?.add_dense(updates, segments, limits)
    }

    /// Adds another sum, such as that of a part of the cohort.
    ///
    /// # Errors
    /// As [`ExactSum::merge`]; then nothing is added.
    pub fn merge(&mut self, other: &Self) -> Result<(), Error> {
        let is_alike = self.parts().map(|part| part.sums.len()).eq(other.parts().map(|part| part.sums.len()));
        if !is_alike || self.whole.scale != other.whole.scale {
            return Err(Error::OtherScale);
        }
        self.whole.scale.check(self.weight(), other.weight())?;
        self.whole.merge(&other.whole)?;
        self.slices.iter_mut().zip(&other.slices).try_for_each(|((_, sum), (_, other))| sum.merge(other))
    }

    /// Sum of the weights.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.parts().map(ExactSum::weight).sum()
    }

    fn parts(&self) -> impl Iterator<Item = &ExactSum> {
        std::iter::once(&self.whole).chain(self.slices.iter().map(|(_, sum)| sum))
    }

    /// The sum for updates of a length, if there is room for so much more weight in all of them together.
    fn of_len(&mut self, len: usize, weight: u64) -> Result<&mut ExactSum, Error> {
        self.whole.scale.check(self.weight(), weight)?;
        if len == self.whole.sums.len() {
            return Ok(&mut self.whole);
        }
        let of = self.slices.iter_mut().find(|(slice, _)| slice.len() == len);
        of.map(|(_, sum)| sum).ok_or(Error::OtherScale)
    }
}

impl Aggregator for SlicedSum {
    fn name(&self) -> &'static str {
        "mean over those that have it"
    }

    fn add_frame(&mut self, frame: &[u8], segments: &Segments, limits: &Limits, weight: u32) -> Result<(), Error> {
        self.of_len(segments.len(), weight.into())?.add_frame(frame, segments, limits, weight)
    }

    fn add_values(&mut self, values: &[(u32, f32)], weight: u32) -> Result<(), Error> {
        self.add_values_of(self.whole.sums.len(), values, weight)
    }

    fn updates(&self) -> u32 {
        self.parts().map(|part| part.updates).sum()
    }

    fn aggregate(&mut self, out: &mut [f32]) -> Result<(), Error> {
        if self.slices.iter().all(|(_, sum)| sum.weight == 0) {
            self.whole.aggregate(out)?;
            self.clear();
            return Ok(());
        }
        if out.len() != self.whole.sums.len() {
            return Err(Error::OtherScale);
        }
        let per_unit = self.whole.scale.unit().recip();
        let mut parts: Vec<_> = self
            .slices
            .iter()
            .filter(|(_, sum)| sum.weight > 0)
            .map(|(slice, sum)| (slice.mask().indices().zip(&sum.sums).peekable(), sum.weight))
            .collect();
        for (index, (out, &whole)) in out.iter_mut().zip(&self.whole.sums).enumerate() {
            let (mut sum, mut weight) = (whole, self.whole.weight);
            for (coordinates, of_part) in &mut parts {
                if let Some((_, &part)) = coordinates.next_if(|&(has, _)| has == index) {
                    sum = sum.wrapping_add(part);
                    weight += *of_part;
                }
            }
            *out = if weight > 0 { (sum as f64 / (weight as f64 * per_unit)) as f32 } else { 0.0 };
        }
        drop(parts);
        self.clear();
        Ok(())
    }

    fn clear(&mut self) {
        self.whole.clear();
        self.slices.iter_mut().for_each(|(_, sum)| sum.clear());
    }
}

//! Rounds in which all clients send the same coordinates: what their mean is a mean of, and what is announced for the next.

use super::{Error, GlobalModel};
use crate::aggregate::Scale;
use dunlin_codec::{Mask, Quantizer};
use std::sync::Arc;

/// How large the means of each coordinate that is left of the model have been: a moving average of their magnitudes over
/// the rounds that carried it.
///
/// A coordinate that was not carried keeps what is known of it. Its clients keep what they would have sent, so that it
/// comes the larger when it is drawn at random, and is announced for some rounds after.
pub(super) struct Means {
    magnitudes: Vec<f32>,
}

impl Means {
    /// Nothing is known of `len` coordinates.
    pub(super) fn new(len: usize) -> Self {
        Self { magnitudes: vec![0.0; len] }
    }

    /// As they were known before, for a checkpoint.
    pub(super) fn restored(magnitudes: Vec<f32>) -> Self {
        Self { magnitudes }
    }

    pub(super) fn magnitudes(&self) -> &[f32] {
        &self.magnitudes
    }

    /// Those of what another mask leaves.
    pub(super) fn project(self, old: &Mask, new: &Mask) -> Self {
        Self { magnitudes: old.project(new, &self.magnitudes) }
    }

    /// Learns the means of the coordinates at these places.
    fn learn(&mut self, memory: f32, places: impl Iterator<Item = u32>, means: &[f32]) {
        for (place, &mean) in places.zip(means) {
            let known = &mut self.magnitudes[place as usize];
            *known = memory * *known + (1.0 - memory) * mean.abs();
        }
    }

    /// The places of the largest, at most `count` of them and none of which nothing but zeros is known, rising. Of equal
    /// ones the first count as larger.
    fn largest(&self, count: usize) -> Vec<u32> {
        let is_known = |&place: &u32| self.magnitudes[place as usize] > 0.0;
        let mut places: Vec<u32> = (0..self.magnitudes.len() as u32).filter(is_known).collect();
        if count < places.len() {
            let order = |&a: &u32, &b: &u32| {
                self.magnitudes[b as usize].total_cmp(&self.magnitudes[a as usize]).then(a.cmp(&b))
            };
            places.select_nth_unstable_by(count, order);
            places.truncate(count);
            places.sort_unstable();
        }
        places
    }
}

impl GlobalModel {
    /// The unit of the sums of a round (from 1).
    pub(super) fn scale(&self, round: u64) -> Scale {
        match self.recipe.update_codec(round).quantizer {
            Quantizer::Common { grid, .. } => {
                Scale::for_grid(self.recipe.cohort_size(), self.recipe.limits.max_examples, grid)
            }
            _ => self.scale,
        }
    }

    /// Makes of the mean of the coordinates sent one of all that are left, the others being zero.
    pub(super) fn spread_mean(&mut self, sent: &Mask) {
        let mask = Arc::clone(self.mask());
        if let Some(means) = &mut self.means {
            means.learn(self.recipe.common.memory as f32, mask.places(sent), &self.mean);
        }
        self.mean = sent.project(&mask, &self.mean);
    }

    /// Announces the coordinates that updates of a round (from 1) are to carry, if there is such a round and something is
    /// known of any. Those that are random besides are not announced.
    pub(super) fn announce(&mut self, round: u64) -> Result<(), Error> {
        let Some(means) = &self.means else { return Ok(()) };
        let mask = Arc::clone(self.broadcast.mask());
        let mut announced = None;
        if round <= self.recipe.rounds.count && self.recipe.is_common(round) {
            let count = self.recipe.common.announced_of(self.recipe.common_count(round, mask.len()));
            announced = mask.part(&means.largest(count)).ok().map(Arc::new);
        }
        Ok(Arc::make_mut(&mut self.broadcast).announce(announced)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_those_of_the_largest_means_and_ties_go_to_the_first() {
        let mut means = Means::new(6);
        assert_eq!(means.largest(3), [] as [u32; 0], "nothing is known");
        means.learn(0.5, [1, 2, 4, 5].into_iter(), &[-0.5, 0.25, 0.25, 0.0]);
        assert_eq!(means.magnitudes(), [0.0, 0.25, 0.125, 0.0, 0.125, 0.0]);
        assert_eq!([means.largest(1), means.largest(2), means.largest(9)], [vec![1], vec![1, 2], vec![1, 2, 4]]);
        // What is not carried stays as it is known; what is, moves.
        means.learn(0.5, [1, 3].into_iter(), &[0.0, 1.0]);
        assert_eq!(means.magnitudes(), [0.0, 0.125, 0.125, 0.5, 0.125, 0.0]);
        assert_eq!(means.largest(2), [1, 3]);
    }
}

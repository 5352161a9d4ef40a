//! Exact top-k by magnitude without sorting the vector.

mod candidates;

use candidates::Candidates;

use crate::{
    Error,
    source::{Rest, Source, blocks, check_finite},
};

/// What is selected of a vector, with buffers for finding it.
#[derive(Default)]
pub(crate) struct Selection {
    /// Flat indices, rising.
    pub(crate) indices: Vec<u32>,
    /// The values there.
    pub(crate) values: Vec<f32>,
    candidates: Candidates,
    /// Magnitudes of a sample of the coordinates.
    sample: Vec<u32>,
}

impl Selection {
    /// Selects the `k` coordinates with the largest magnitude, all non-zeros if there are fewer. Equal magnitudes go by
    /// the lowest index.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the first such index.
    pub(crate) fn select(&mut self, u: &[f32], k: usize) -> Result<(), Error> {
        if self.select_above_sample(u, k, &mut ())? { Ok(()) } else { self.select_by_histogram(u, k) }
    }

    /// The same where few of many are wanted: a sample gives a magnitude that somewhat more than `k` reach, and only
    /// those are compared exactly, so that the vector is read once. The sample decides how long that takes and never
    /// what is selected.
    ///
    /// False when the vector is short or `k` large, or when fewer than `k` coordinates reach what the sample promised.
    pub(crate) fn select_above_sample<S: Source + ?Sized>(
        &mut self,
        u: &S,
        k: usize,
        rest: &mut impl Rest,
    ) -> Result<bool, Error> {
        let n = u.len();
        self.clear();
        if n < SAMPLED_FROM || k > n / 8 {
            return Ok(false);
        }
        self.sample.clear();
        let mut buffer = [0.0; BLOCK];
        // Where many are wanted, fewer of all coordinates tell as much.
        let sampled_of = (k / SAMPLE_WANTED).clamp(SAMPLED_OF_LEAST, SAMPLED_OF_MOST);
        for start in (0..=n - BLOCK).step_by(BLOCK * sampled_of) {
            self.sample.extend(u.block(start, &mut buffer).iter().map(|&value| magnitude(value)));
        }
        let expected = k as f64 * self.sample.len() as f64 / n as f64;
        // Five standard deviations more than expected, and room for a sample that is not quite random.
        let rank = (1.1 * expected + 5.0 * expected.sqrt()) as usize + 8;
        if rank >= self.sample.len() {
            return Ok(false);
        }
        let least = (*self.sample.select_nth_unstable_by(rank, |a, b| b.cmp(a)).1).max(1);
        let candidates = &mut self.candidates;
        blocks(
            u,
            #[inline(always)]
            |start, values| {
                rest.take(start, values);
                candidates.extend(start, values, least);
            },
        );
        if candidates.values().iter().any(|&value| magnitude(value) >= INFINITE) {
            check_all_finite(u)?;
        }
        if candidates.len() < k {
            return Ok(false);
        }
        candidates.largest(k, u32::MAX, &mut self.indices, &mut self.values);
        Ok(true)
    }

    /// A histogram over exponent and three bits of mantissa finds the bucket of the threshold; only the coordinates in
    /// that bucket are compared exactly.
    fn select_by_histogram(&mut self, u: &[f32], k: usize) -> Result<(), Error> {
        self.clear();
        let mut histogram = [[0u32; BUCKETS]; LANES];
        let (chunks, rest) = u.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, value) in chunk.iter().enumerate() {
                histogram[lane][bucket(*value)] += 1;
            }
        }
        for value in rest {
            histogram[0][bucket(*value)] += 1;
        }
        let counts: [usize; BUCKETS] =
            std::array::from_fn(|i| histogram.iter().map(|lane| lane[i] as usize).sum::<usize>());
        if counts[bucket(f32::INFINITY)..].iter().any(|&count| count > 0) {
            check_all_finite(u)?;
        }

        // The bucket that holds the k-th largest, and how many of it are still wanted.
        let (mut threshold, mut wanted) = (BUCKETS, k);
        while threshold > 0 && counts[threshold - 1] <= wanted {
            threshold -= 1;
            wanted -= counts[threshold];
        }
        // Whole buckets, where that one is not reached; of bucket 0 (zeros and the smallest subnormals) what is not zero.
        let is_split = threshold > 0 && wanted > 0;
        let least = (threshold as u32 - u32::from(is_split)) << SHIFT;
        let bound = (threshold as u32) << SHIFT;
        let candidates = &mut self.candidates;
        blocks(
            u,
            #[inline(always)]
            |start, values| candidates.extend(start, values, least.max(1)),
        );
        candidates.largest(k, bound, &mut self.indices, &mut self.values);
        Ok(())
    }

    fn clear(&mut self) {
        self.indices.clear();
        self.values.clear();
        self.candidates.clear();
    }
}

/// Refuses the first value that is not finite.
fn check_all_finite<S: Source + ?Sized>(u: &S) -> Result<(), Error> {
    let mut finite = Ok(());
    blocks(u, |start, values| {
        if finite.is_ok() {
            finite = check_finite(start, values);
        }
    });
    finite
}

/// The bits of |value|, which order like the magnitudes themselves.
#[inline]
fn magnitude(value: f32) -> u32 {
    value.to_bits() & MAGNITUDE
}

#[inline]
fn bucket(value: f32) -> usize {
    (magnitude(value) >> SHIFT) as usize
}

/// Below this length a histogram is as quick.
const SAMPLED_FROM: usize = 1 << 15;
/// One block of so many is in the sample: of those wanted about [`SAMPLE_WANTED`], or more.
const SAMPLED_OF_LEAST: usize = 64;
const SAMPLED_OF_MOST: usize = 512;
const SAMPLE_WANTED: usize = 256;
/// Leaves the exponent and three bits of mantissa: 2048 buckets.
const SHIFT: u32 = 20;
const BUCKETS: usize = 1 << (31 - SHIFT);
/// Separate histograms, so that neighbours in the same bucket do not wait for each other's store.
const LANES: usize = 4;
/// Of the sample.
const BLOCK: usize = 16;
/// All bits of a float but its sign.
const MAGNITUDE: u32 = 0x7fff_ffff;
/// The least magnitude that is not finite.
const INFINITE: u32 = f32::INFINITY.to_bits();

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn top(u: &[f32], k: usize) -> Vec<u32> {
        let mut selection = Selection::default();
        selection.select(u, k).unwrap();
        let there: Vec<f32> = selection.indices.iter().map(|&index| u[index as usize]).collect();
        assert_eq!(selection.values, there);
        selection.indices
    }

    #[test]
    fn zeros_are_never_selected() {
        assert_eq!(top(&[0.0, -0.0, 1.0, 0.0, -2.0], 4), [2, 4]);
        assert_eq!(top(&[0.0, -0.0], 1), [0u32; 0]);
    }

    #[test]
    fn ties_go_to_the_lowest_index() {
        assert_eq!(top(&[1.0, -1.0, 1.0, 2.0, 1.0], 3), [0, 1, 3]);
    }

    #[test]
    fn the_smallest_subnormal_counts_as_a_value() {
        assert_eq!(top(&[f32::from_bits(1), 0.0, -f32::from_bits(2)], 1), [2]);
        assert_eq!(top(&[f32::from_bits(1), 0.0, -f32::from_bits(2)], 3), [0, 2]);
    }

    #[test]
    fn the_first_value_that_is_not_finite_is_named() {
        let mut selection = Selection::default();
        let result = selection.select(&[0.0, 1.0, f32::NAN, f32::INFINITY], 2);
        assert_eq!(result, Err(Error::NotFinite { index: 2, nan: true }));
    }

    fn sorted_top(u: &[f32], k: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..u.len() as u32).filter(|&i| u[i as usize] != 0.0).collect();
        order.sort_by(|&a, &b| u[b as usize].abs().total_cmp(&u[a as usize].abs()).then(a.cmp(&b)));
        order.truncate(k);
        order.sort_unstable();
        order
    }

    #[test]
    fn the_sample_of_a_long_vector_does_not_show_in_the_selection() {
        let noise = |i: u32| ((i.wrapping_mul(2_654_435_761) >> 8) as f32 / 8e6 - 1.0).powi(9);
        let even: Vec<f32> = (0..100_000).map(noise).collect();
        // Everything large lies where the sample does not look, or only there.
        let hidden: Vec<f32> = (0..100_000).map(|i| if (i / 16) % 64 == 3 { noise(i) } else { 1e-9 }).collect();
        let in_sight: Vec<f32> = (0..100_000).map(|i| if (i / 16) % 64 == 0 { noise(i) } else { 1e-9 }).collect();
        let few: Vec<f32> = (0..100_000).map(|i| if i % 9999 == 5 { -1.0 } else { 0.0 }).collect();
        let equal = vec![0.5; 100_000];
        for u in [even, hidden, in_sight, few, equal] {
            for k in [1, 17, 1000, 12_500] {
                assert_eq!(top(&u, k), sorted_top(&u, k), "{k}");
            }
        }
    }

    #[test]
    fn a_long_vector_with_a_value_that_is_not_finite_is_refused() {
        for value in [f32::NAN, f32::NEG_INFINITY] {
            let mut u: Vec<f32> = (0..50_000).map(|i| (i as f32).sin()).collect();
            u[33_333] = value;
            let refused = Selection::default().select(&u, 100);
            assert_eq!(refused, Err(Error::NotFinite { index: 33_333, nan: value.is_nan() }));
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_full_sort(u in prop::collection::vec(prop_oneof![-2f32..2.0, Just(0.0), Just(0.5), any::<f32>()], 1..300), k in 1usize..300) {
            let u: Vec<f32> = u.into_iter().map(|x| if x.is_finite() { x } else { 0.0 }).collect();
            prop_assert_eq!(top(&u, k), sorted_top(&u, k));
        }
    }
}

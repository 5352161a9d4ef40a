//! Values of few magnitudes: fitted to a tensor, and written as a codebook, a place in it for each value, and a sign.

use half::f16;

use crate::{
    bits::Stream,
    model::Frequencies,
    range::RangeStream,
    values::{HALF_MAX, Values},
};

/// The magnitudes of one tensor, rising, as the bits of positive f16s.
#[derive(Debug, PartialEq)]
pub(crate) struct Codebook {
    entries: Vec<u16>,
    /// Halfway between each entry and the next.
    bounds: Vec<f32>,
}

impl Codebook {
    /// At most `most` magnitudes, and no more than one and another for every [`VALUES_PER_ENTRY`] values, so that the
    /// values come near them: each is the mean of the values that are nearest to it (Lloyd 1982, "Least squares
    /// quantization in PCM"). The sums go by rising magnitude, so that every machine finds the same.
    pub(crate) fn fit(values: &[f32], most: usize) -> Self {
        let mut magnitudes: Vec<f32> = values.iter().map(|value| value.abs().min(HALF_MAX)).collect();
        magnitudes.sort_unstable_by(f32::total_cmp);
        let mut sums = Vec::with_capacity(magnitudes.len() + 1);
        sums.push(0.0);
        sums.extend(magnitudes.iter().scan(0.0, |sum, &magnitude| {
            *sum += f64::from(magnitude);
            Some(*sum)
        }));
        let n = magnitudes.len();
        let count = most.min(1 + n / VALUES_PER_ENTRY);
        // Where each entry's share ends; at first as is best for many entries and an exponential density (Panter & Dite
        // 1951: as many as the cube root of the density).
        let behind = |left: usize| (n as u64 * (left as u64).pow(3) / (count as u64).pow(3)) as usize;
        let mut ends: Vec<usize> = (0..count).rev().map(|left| n - behind(left).max(left)).collect();
        let mut means = Vec::new();
        for _ in 0..ROUNDS {
            means.clear();
            let mut start = 0;
            for &end in &ends {
                if end > start {
                    means.push((sums[end] - sums[start]) / (end - start) as f64);
                }
                start = end;
            }
            let halfway = |pair: &[f64]| (pair[0] + pair[1]) / 2.0;
            let bounds = means.windows(2).map(halfway);
            let nearest: Vec<usize> = bounds
                .map(|bound| magnitudes.partition_point(|&magnitude| f64::from(magnitude) < bound))
                .chain(std::iter::once(n))
                .collect();
            if nearest == ends {
                break;
            }
            ends = nearest;
        }
        let mut entries: Vec<u16> = means.iter().map(|&mean| f16::from_f64(mean).to_bits().max(1)).collect();
        entries.dedup();
        let float = |entry: u16| f16::from_bits(entry).to_f32();
        let bounds = entries.windows(2).map(|pair| (float(pair[0]) + float(pair[1])) / 2.0).collect();
        Self { entries, bounds }
    }

    /// The bits of the f16 that a value is rounded to: the nearest magnitude with its sign.
    pub(crate) fn code(&self, value: f32) -> u32 {
        let place = self.bounds.iter().map(|bound| usize::from(value.abs() >= *bound)).sum::<usize>();
        u32::from(self.entries[place]) | u32::from(value.is_sign_negative()) << 15
    }
}

/// Values whose codebook, of at most 2^(bits − 1) entries, goes before them, and whose places in it are range-coded.
pub(crate) struct Coded {
    pub(crate) bits: u8,
}

impl<S: RangeStream> Values<S> for Coded {
    fn values(&mut self, stream: &mut S, count: usize, codes: &mut Vec<u32>) {
        code(stream, self.bits, count, codes, |stream, entries, places| {
            let mut frequencies = Frequencies::of(entries);
            for place in places {
                *place = frequencies.code(stream, *place);
            }
        });
    }
}

/// The same with places as plain bits.
pub(crate) fn code_plainly<S: Stream>(stream: &mut S, bits: u8, count: usize, codes: &mut Vec<u32>) {
    code(stream, bits, count, codes, |stream, entries, places| {
        let width = usize::BITS - (entries - 1).leading_zeros();
        for place in places {
            *place = stream.bits(*place, width);
        }
    });
}

fn code<S: Stream>(
    stream: &mut S,
    bits: u8,
    count: usize,
    codes: &mut Vec<u32>,
    code_places: impl FnOnce(&mut S, usize, &mut [u32]),
) {
    let mut entries: Vec<u32> = Vec::new();
    for code in codes.iter() {
        if let Err(at) = entries.binary_search(&(code & MAGNITUDE)) {
            entries.insert(at, code & MAGNITUDE);
        }
    }
    let len = stream.bits((entries.len() as u32).wrapping_sub(1), u32::from(bits) - 1) as usize + 1;
    entries.resize(len, 0);
    for entry in &mut entries {
        *entry = stream.bits(*entry, 15);
    }
    let mut signs: Vec<u32> = codes.iter().map(|code| code >> 15).collect();
    let place_of = |code: &u32| entries.partition_point(|entry| *entry < code & MAGNITUDE) as u32;
    let mut places: Vec<u32> = codes.iter().map(place_of).collect();
    places.resize(count, 0);
    if len > 1 {
        code_places(stream, len, &mut places);
    }
    crate::values::code_flags(stream, count, &mut signs);
    if S::READS {
        // A place beyond the entries is none that a writer wrote: zero, which the caller refuses.
        let entry = |place: u32| entries.get(place as usize).copied().unwrap_or(0);
        codes.clear();
        codes.extend(places.iter().zip(signs).map(|(&place, sign)| entry(place) | sign << 15));
    }
}

/// All bits of an f16 but its sign.
const MAGNITUDE: u32 = 0x7fff;
/// An entry costs two bytes, which fewer values do not win back.
const VALUES_PER_ENTRY: usize = 16;
/// Of means and shares; far more than bring anything.
const ROUNDS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn magnitudes(codebook: &Codebook) -> Vec<f32> {
        codebook.entries.iter().map(|&entry| f16::from_bits(entry).to_f32()).collect()
    }

    #[test]
    fn two_clusters_have_their_means_and_every_value_the_nearer_one_with_its_sign() {
        let values: Vec<f32> = (0..20).flat_map(|_| [1.0, -1.5, 7.0, -9.0]).collect();
        let codebook = Codebook::fit(&values, 2);
        assert_eq!(magnitudes(&codebook), [1.25, 8.0]);
        let decoded = |value| f16::from_bits(codebook.code(value) as u16).to_f32();
        assert_eq!([0.1, -4.0, 4.7, -100.0].map(decoded), [1.25, -1.25, 8.0, -8.0]);
    }

    #[test]
    fn few_values_share_one_magnitude_and_extremes_stay_within_half_precision() {
        assert_eq!(magnitudes(&Codebook::fit(&[1.0, -2.0, 3.0], 8)), [2.0]);
        assert_eq!(magnitudes(&Codebook::fit(&[1e-30], 2)), [f16::from_bits(1).to_f32()]);
        assert_eq!(magnitudes(&Codebook::fit(&[1e30, -1e38], 2)), [65504.0]);
        assert_eq!(magnitudes(&Codebook::fit(&[0.5; 100], 4)), [0.5]);
    }

    /// For an exponential density the conditions of Lloyd and Max can be solved as closely as wanted.
    #[test]
    fn more_entries_leave_less_error() {
        let n = 20_000;
        let values: Vec<f32> = (0..n).map(|i| -(1.0 - (i as f32 + 0.5) / n as f32).ln()).collect();
        let errors = [1, 2, 4, 8].map(|most| {
            let codebook = Codebook::fit(&values, most);
            assert_eq!(codebook.entries.len(), most);
            let error = |&value: &f32| f64::from(value - f16::from_bits(codebook.code(value) as u16).to_f32()).powi(2);
            values.iter().map(error).sum::<f64>() / f64::from(n)
        });
        for (error, least) in errors.iter().zip([1.0, 0.352_390, 0.108_952, 0.030_745]) {
            assert!((error / least - 1.0).abs() < 0.03, "{errors:?}");
        }
    }
}

//! Random levels of a norm: QSGD (Alistarh et al. 2017) with the Euclidean norm of 512 coordinates, TernGrad (Wen et al.
//! 2017) with the largest magnitude of a tensor and one level.

use std::ops::Range;

use crate::{
    Error, Scheme, Segments,
    bits::Stream,
    model::Frequencies,
    range::{RangeReader, RangeStream, RangeWriter},
    whole::{Each, dot, hadamard::word, rounded_at_random, scale},
};

/// What the levels of a frame are levels of.
pub(super) struct Norms {
    /// On either side of zero.
    levels: u8,
    /// Of a tensor, and its largest magnitude; otherwise of 512 coordinates, and Euclidean.
    of_tensors: bool,
}

impl Norms {
    pub(super) const TERNGRAD: Self = Self { levels: 1, of_tensors: true };

    pub(super) fn qsgd(levels: u8) -> Self {
        Self { levels, of_tensors: false }
    }

    /// Coordinates with a norm of their own.
    fn buckets(&self, segments: &Segments) -> impl Iterator<Item = Range<usize>> {
        let (of_tensors, n) = (self.of_tensors, segments.len());
        let count = if of_tensors { segments.count() } else { n.div_ceil(BUCKET) };
        let bucket = move |i| if of_tensors { segments.range(i) } else { i * BUCKET..n.min((i + 1) * BUCKET) };
        (0..count).map(bucket)
    }

    /// The code of the norm, rounded up so that nothing exceeds it.
    fn norm(&self, values: &[f32]) -> u16 {
        scale::above(if self.of_tensors {
            values.iter().fold(0.0, |most, value| value.abs().max(most))
        } else {
            dot(values, |i| values[i]).sqrt() as f32
        })
    }

    fn code_levels<S: RangeStream>(&self, stream: &mut S, model: &mut Frequencies, levels: &mut [i16]) {
        let zero = i16::from(self.levels);
        for level in levels {
            *level = model.code(stream, (*level + zero) as u32) as i16 - zero;
        }
    }
}

/// Appends a body to `out`.
pub(super) fn write(norms: &Norms, seed: u64, segments: &Segments, u: &[f32], out: &mut Vec<u8>) {
    let mut stream = RangeWriter::new(out);
    stream.bits(norms.levels.into(), 8);
    let mut model = Frequencies::of(2 * usize::from(norms.levels) + 1);
    let mut buffer = [0; BUCKET];
    for bucket in norms.buckets(segments) {
        let code = norms.norm(&u[bucket.clone()]);
        stream.bits(code.into(), 16);
        if code > 0 {
            let norm = scale::value(code, bucket.start).expect("norms are finite");
            for start in bucket.clone().step_by(BUCKET) {
                let levels = &mut buffer[..BUCKET.min(bucket.end - start)];
                for (i, level) in (start..).zip(&mut *levels) {
                    *level = random_level(norms.levels, norm, u[i], word(seed, i as u64));
                }
                norms.code_levels(&mut stream, &mut model, levels);
            }
        }
    }
    stream.finish();
}

/// What a body would be without entropy coding, in bytes.
pub(super) fn quantized(scheme: Scheme, body: &[u8], segments: &Segments) -> u64 {
    let levels = RangeReader::new(body).bits(0, 8);
    let width = (2 * levels).checked_ilog2().map_or(0, |log2| log2 + 1);
    let buckets = if scheme == Scheme::Terngrad { segments.count() } else { segments.len().div_ceil(BUCKET) } as u64;
    (u64::from(width) * segments.len() as u64).div_ceil(8) + 2 * buckets
}

/// Reads a body.
pub(super) fn read(
    scheme: Scheme,
    body: &[u8],
    frame_bytes: usize,
    segments: &Segments,
    each: &mut impl Each,
) -> Result<(), Error> {
    let mut stream = RangeReader::new(body);
    let levels = stream.bits(0, 8) as u8;
    let norms = Norms { levels, of_tensors: scheme == Scheme::Terngrad };
    if levels == 0 || levels > if norms.of_tensors { 1 } else { crate::Quantizer::QSGD_MAX_LEVELS } {
        return Err(Error::BadBlock { index: 0 });
    }
    let mut model = Frequencies::of(2 * usize::from(levels) + 1);
    let (mut levels, mut values) = ([0; BUCKET], [0.0; BUCKET]);
    for bucket in norms.buckets(segments) {
        let norm = scale::value(stream.bits(0, 16) as u16, bucket.start)?;
        if norm == 0.0 {
            continue;
        }
        let unit = norm / f32::from(norms.levels);
        for start in bucket.clone().step_by(BUCKET) {
            let len = BUCKET.min(bucket.end - start);
            norms.code_levels(&mut stream, &mut model, &mut levels[..len]);
            values.iter_mut().zip(&levels[..len]).for_each(|(value, level)| *value = f32::from(*level) * unit);
            each(start, &values[..len])?;
        }
    }
    stream.finish(frame_bytes)
}

/// One of the two levels next to a value, so that their mean is the value.
fn random_level(levels: u8, norm: f32, value: f32, random: u64) -> i16 {
    let position = value.abs() * f32::from(levels) / norm;
    let level = rounded_at_random(position, random).min(levels.into()) as i16;
    if value < 0.0 { -level } else { level }
}

/// Coordinates that share a norm.
const BUCKET: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_are_levels_of_their_norm_are_not_moved() {
        let u = [2.0, 3.0, 6.0];
        let norms = Norms::qsgd(7);
        let norm = scale::value(norms.norm(&u), 0).unwrap();
        assert_eq!(norm, 7.0);
        for random in [0, u64::MAX, 1 << 63] {
            assert_eq!(u.map(|x| random_level(7, norm, x, random)), [2, 3, 6]);
        }
    }
}

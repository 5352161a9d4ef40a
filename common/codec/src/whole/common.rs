//! Integers of a grid that all senders share ([`CommonGrid`]): as they are, in so many bits each, or range-coded.

use crate::{
    CommonGrid, EntropyCoder, Error, Fit, Segments,
    bits::{BitReader, BitWriter, Stream},
    common::CODED,
    model::Frequencies,
    range::{RangeReader, RangeWriter},
    whole::{Each, hadamard::word, rounded_at_random},
};

/// Appends a body to `out`; under a coder that may code values, the shorter of the two.
pub(super) fn write(
    (grid, fit): (CommonGrid, Fit),
    coder: EntropyCoder,
    seed: u64,
    (u, levels): (&[f32], &mut Vec<i8>),
    out: &mut Vec<u8>,
) {
    levels.clear();
    match fit {
        Fit::LeastError => levels.extend(u.iter().map(|&value| nearest_level(grid, value))),
        Fit::Unbiased => levels.extend((0..).zip(u).map(|(i, &value)| random_level(grid, value, word(seed, i)))),
    }
    let start = out.len();
    if matches!(coder, EntropyCoder::Auto | EntropyCoder::Adaptive) {
        out.extend([grid.exponent().cast_unsigned(), grid.bits() | CODED]);
        let mut stream = RangeWriter::new(out);
        let mut model = Frequencies::of(1 << grid.bits());
        for &level in &*levels {
            model.code(&mut stream, symbol(grid.bits(), level));
        }
        stream.finish();
        if out.len() - start <= plain_bytes(grid.bits(), u.len()) as usize {
            return;
        }
        out.truncate(start);
    }
    out.extend([grid.exponent().cast_unsigned(), grid.bits()]);
    let mut stream = BitWriter::new(out);
    for &mut level in levels {
        stream.bits(u32::from(level.cast_unsigned()) & mask(grid.bits()), grid.bits().into());
    }
    stream.finish();
}

/// Bytes of a body without coding, which is what a secure sum is given but for the width of the sum.
fn plain_bytes(bits: u8, n: usize) -> u64 {
    HEAD_BYTES + (u64::from(bits) * n as u64).div_ceil(8)
}

/// What a body would be without entropy coding, in bytes.
pub(super) fn quantized(body: &[u8], segments: &Segments) -> u64 {
    let bits = body.get(1).map_or(0, |bits| bits & !CODED);
    plain_bytes(bits, segments.len())
}

/// Reads a body. Integers beyond the bound of the grid are for the caller to refuse: the body does not say it.
pub(super) fn read(body: &[u8], frame_bytes: usize, n: usize, each: &mut impl Each) -> Result<(), Error> {
    let Some((&[exponent, head], rest)) = body.split_first_chunk() else {
        return Err(Error::Truncated { got: frame_bytes });
    };
    let bits = head & !CODED;
    let step = CommonGrid::step_of(bits, exponent.cast_signed())?;
    if head & CODED != 0 {
        let mut stream = RangeReader::new(rest);
        let mut model = Frequencies::of(1 << bits);
        read_levels(n, step, || level_of(bits, model.code(&mut stream, 0)), each)?;
        return stream.finish(frame_bytes);
    }
    if (rest.len() as u64) < plain_bytes(bits, n) - HEAD_BYTES {
        return Err(Error::Truncated { got: frame_bytes });
    }
    let mut stream = BitReader::new(rest);
    let unused = u32::from(8 - bits);
    let level = || ((stream.bits(0, bits.into()) << unused) as u8).cast_signed() >> unused;
    read_levels(n, step, level, each)?;
    stream.finish(frame_bytes)
}

fn read_levels(n: usize, step: f32, mut level: impl FnMut() -> i8, each: &mut impl Each) -> Result<(), Error> {
    let mut buffer = [0.0; RUN];
    for start in (0..n).step_by(RUN) {
        let values = &mut buffer[..RUN.min(n - start)];
        values.iter_mut().for_each(|value| *value = f32::from(level()) * step);
        each(start, values)?;
    }
    Ok(())
}

/// Counted from the lowest integer.
fn symbol(bits: u8, level: i8) -> u32 {
    (i32::from(level) + (1 << (bits - 1))) as u32
}

fn level_of(bits: u8, symbol: u32) -> i8 {
    (symbol as i32 - (1 << (bits - 1))) as i8
}

fn mask(bits: u8) -> u32 {
    (1 << bits) - 1
}

/// In steps, within the bound. Dividing by a power of two is exact.
fn position(grid: CommonGrid, value: f32) -> f32 {
    let most = f32::from(grid.most());
    (value / grid.step()).clamp(-most, most)
}

/// Halves to even.
fn nearest_level(grid: CommonGrid, value: f32) -> i8 {
    position(grid, value).round_ties_even() as i8
}

/// One of the two integers next to a value within the bound, so that their mean is the value.
fn random_level(grid: CommonGrid, value: f32, random: u64) -> i8 {
    rounded_at_random(position(grid, value), random) as i8
}

/// Exponent, and bits with the flag for coding.
const HEAD_BYTES: u64 = 2;
/// Values handed on at a time.
const RUN: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> CommonGrid {
        CommonGrid::new(4, 1.0).unwrap()
    }

    fn levels(body: &[u8], n: usize) -> Result<Vec<f32>, Error> {
        let mut all = Vec::new();
        read(body, body.len(), n, &mut |start: usize, values: &[f32]| {
            assert_eq!(start, all.len());
            all.extend(values.iter().map(|value| value / grid().step()));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn values_go_to_the_nearest_integer_within_the_bound() {
        // Steps of an eighth, at most seven of them.
        let u = [0.0, 0.125, -0.125, 0.19, 0.1875, 0.3125, 7.0, -7.0, 1e-9];
        let expected = [0.0, 1.0, -1.0, 2.0, 2.0, 2.0, 7.0, -7.0, 0.0];
        for coder in [EntropyCoder::Auto, EntropyCoder::Raw] {
            let mut body = Vec::new();
            write((grid(), Fit::LeastError), coder, 0, (&u, &mut Vec::new()), &mut body);
            assert_eq!(levels(&body, u.len()), Ok(expected.to_vec()), "{coder:?}");
        }
    }

    #[test]
    fn random_rounding_is_right_on_average_and_never_beyond_the_bound() {
        let draws = 4000;
        for value in [0.03, -0.03, 0.4, -0.81, 0.9, -5.0] {
            let sum: f64 = (0..draws).map(|i| f64::from(random_level(grid(), value, word(3, i)))).sum();
            let mean = sum / draws as f64 * f64::from(grid().step());
            let expected = f64::from(value.clamp(-grid().largest(), grid().largest()));
            assert!((mean - expected).abs() < 0.006, "{mean} for {expected}");
        }
        for random in [0, u64::MAX, 1 << 63] {
            assert_eq!([0.125, -0.25, 0.875].map(|value| random_level(grid(), value, random)), [1, -2, 7]);
        }
    }

    #[test]
    fn integers_as_they_are_have_one_length_and_cannot_be_cut_or_continued() {
        let u: Vec<f32> = (0..1500).map(|i| (i as f32).sin()).collect();
        let mut body = Vec::new();
        write((grid(), Fit::LeastError), EntropyCoder::Raw, 0, (&u, &mut Vec::new()), &mut body);
        assert_eq!(body.len(), 2 + 750);
        assert!(levels(&body, 1500).is_ok());
        assert_eq!(levels(&body[..body.len() - 1], 1500), Err(Error::Truncated { got: 751 }));
        assert_eq!(levels(&[&body[..], &[0]].concat(), 1500), Err(Error::TrailingBytes(1)));
        assert_eq!(levels(&body[..1], 1500), Err(Error::Truncated { got: 1 }));
        for head in [0, 1, 9, 127] {
            let mut body = body.clone();
            body[1] = head;
            assert_eq!(levels(&body, 1500), Err(Error::BadBlock { index: 0 }), "{head} bits");
        }
    }
}

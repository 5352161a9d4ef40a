//! Blocks rotated and rounded to the centroids of a normal variable, in a fixed number of bits (EDEN, Vargaftik et al.
//! 2022; DRIVE, 2021, is the same with one bit).

use crate::{
    Error, Fit, Quantizer,
    bits::{BitReader, BitWriter, Stream},
    vectorised,
    whole::{
        Each, code_seed, dot,
        hadamard::{blocks, flip_signs, transform},
        scale,
    },
};

/// Appends a body to `out`.
pub(super) fn write(bits: u32, fit: Fit, seed: u64, u: &mut [f32], out: &mut Vec<u8>) {
    let mut stream = BitWriter::new(out);
    code_seed(&mut stream, seed);
    stream.bits(bits, 4);
    let mut codes = [0; BLOCK];
    for block in blocks(u.len(), BLOCK.ilog2()) {
        let start = block.start;
        let (values, codes) = (&mut u[block.clone()], &mut codes[..block.len()]);
        vectorised(
            #[inline(always)]
            || {
                flip_signs(seed, start, values);
                transform(values);
            },
        );
        let scale = round(bits, fit, values, codes) / values.len() as f64;
        let scale = scale::nearest(scale as f32);
        stream.bits(scale.into(), 16);
        if scale > 0 {
            for &mut code in codes {
                stream.bits(code, bits);
            }
        }
    }
    stream.finish();
}

/// Reads a body.
pub(super) fn read(body: &[u8], frame_bytes: usize, n: usize, each: &mut impl Each) -> Result<(), Error> {
    let mut stream = BitReader::new(body);
    let seed = code_seed(&mut stream, 0);
    let bits = stream.bits(0, 4);
    if bits == 0 || bits > Quantizer::EDEN_MAX_BITS.into() {
        return Err(Error::BadBlock { index: 0 });
    }
    let mut buffer = [0.0; BLOCK];
    for block in blocks(n, BLOCK.ilog2()) {
        let scale = scale::value(stream.bits(0, 16) as u16, block.start)?;
        if scale > 0.0 {
            let values = &mut buffer[..block.len()];
            for value in &mut *values {
                *value = centroid(bits, stream.bits(0, bits));
            }
            vectorised(
                #[inline(always)]
                || {
                    transform(values);
                    for value in &mut *values {
                        *value *= scale;
                    }
                    flip_signs(seed, block.start, values);
                },
            );
            each(block.start, values)?;
        }
    }
    stream.finish(frame_bytes)
}

/// The code of each value, whose deviation is that of all of them; returns the scale of their centroids, 0 if all
/// values are.
///
/// With one bit and no rotation the centroids cancel, and the scale times them is ‖x‖²/‖x‖₁ or ‖x‖₁/d times the signs.
fn round(bits: u32, fit: Fit, values: &[f32], codes: &mut [u32]) -> f64 {
    let energy = dot(values, |i| values[i]);
    if energy == 0.0 {
        return 0.0;
    }
    let centroids = CENTROIDS[bits as usize - 1];
    let deviation = (energy / values.len() as f64).sqrt() as f32;
    for (code, value) in codes.iter_mut().zip(values) {
        let magnitude = value.abs() / deviation;
        // The number of midpoints that are passed.
        let nearest = centroids.windows(2).filter(|pair| magnitude > f32::midpoint(pair[0], pair[1])).count() as u32;
        *code = u32::from(*value < 0.0) << (bits - 1) | nearest;
    }
    let power = dot(values, |i| centroid(bits, codes[i]));
    match fit {
        Fit::Unbiased => energy / power,
        Fit::LeastError => {
            power / codes.iter().map(|&code| f64::from(centroid(bits, code))).map(|c| c * c).sum::<f64>()
        }
    }
}

/// The highest bit is the sign.
#[inline]
fn centroid(bits: u32, code: u32) -> f32 {
    let magnitude = CENTROIDS[bits as usize - 1][(code & !(1 << (bits - 1))) as usize];
    if code >> (bits - 1) == 0 { magnitude } else { -magnitude }
}

const BLOCK: usize = 1 << 13;
/// The positive centroids of a normal variable in one to four bits (Lloyd 1982, Max 1960).
const CENTROIDS: [&[f32]; 4] = [
    &[0.7978846],
    &[0.452_78, 1.5104176],
    &[0.2450942, 0.7560053, 1.3439093, 2.1519457],
    &[0.128_395, 0.3880483, 0.6567591, 0.9423405, 1.2562312, 1.6180464, 2.0690172, 2.7325896],
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drive_without_rotation_has_the_published_scales() {
        for (fit, expected) in [(Fit::Unbiased, 5.0 / 3.0), (Fit::LeastError, 1.0)] {
            let mut codes = [0; 3];
            let scale = round(1, fit, &[-1.0, 0.0, 2.0], &mut codes);
            assert_eq!(codes, [1, 0, 0]);
            assert!((scale * f64::from(centroid(1, 0)) - expected).abs() < 1e-6, "{scale} for {fit:?}");
        }
    }

    #[test]
    fn the_centroids_are_the_published_ones() {
        let rounded = |c: &f32| (c * 1e4).round() / 1e4;
        assert_eq!(CENTROIDS[0].iter().map(rounded).collect::<Vec<_>>(), [0.7979]);
        assert_eq!(CENTROIDS[1].iter().map(rounded).collect::<Vec<_>>(), [0.4528, 1.5104]);
    }
}

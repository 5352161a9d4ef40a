//! Vectors that are rounded as a whole: everything is sent, and no value for itself.

mod common;
mod eden;
mod hadamard;
mod low_rank;
mod norms;
mod rotated;
mod scale;
mod sign;
mod trellis;

pub(crate) use hadamard::word;

use crate::{Codec, Error, FrameKind, Quantizer, Scheme, Segments, source::check_finite, whole::norms::Norms};

/// Writes bodies; keeps its buffers from one to the next.
#[derive(Default)]
pub(crate) struct Whole {
    /// What everything random is drawn from.
    pub(crate) seed: u64,
    rotated: rotated::Writer,
    reader: Reader,
    /// Integers of a common grid.
    levels: Vec<i8>,
    /// A vector as it is rounded: finite, and no larger than half precision allows.
    values: Vec<f32>,
}

/// Reads bodies; keeps its buffers from one to the next.
#[derive(Default)]
pub(crate) struct Reader {
    rotated: rotated::Models,
}

/// Where values of a frame go, a run at a time and rising.
pub(crate) trait Each: FnMut(usize, &[f32]) -> Result<(), Error> {}

impl<F: FnMut(usize, &[f32]) -> Result<(), Error>> Each for F {}

impl Whole {
    /// Appends a body to the header in `out`.
    ///
    /// # Errors
    /// [`Error::NotFinite`].
    pub(crate) fn write(
        &mut self,
        codec: &Codec,
        segments: &Segments,
        u: &[f32],
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        check_finite(0, u)?;
        let (values, seed) = (&mut self.values, self.seed);
        values.clear();
        crate::vectorised(
            #[inline(always)]
            || values.extend(u.iter().map(|value| value.clamp(-LARGEST, LARGEST))),
        );
        match codec.quantizer {
            Quantizer::Rotated { rate, fit } => self.rotated.write(rate, fit, seed, values, out),
            Quantizer::Eden { bits, fit } => eden::write(bits.into(), fit, seed, values, out),
            Quantizer::Qsgd { levels } => norms::write(&Norms::qsgd(levels), seed, segments, values, out),
            Quantizer::Terngrad => norms::write(&Norms::TERNGRAD, seed, segments, values, out),
            Quantizer::Sign => sign::write(segments, values, out),
            Quantizer::LowRank { rank } => low_rank::write(rank.into(), seed, segments, values, out),
            Quantizer::Common { grid, fit } => {
                common::write((grid, fit), codec.coder, seed, (values, &mut self.levels), out);
            }
            Quantizer::F32 | Quantizer::F16 | Quantizer::Int8 | Quantizer::Ternary | Quantizer::Codebook { .. } => {}
        }
        Ok(())
    }

    /// Subtracts from `u` what was written last, exactly as it is decoded.
    pub(crate) fn subtract_from(&mut self, quantizer: Quantizer, segments: &Segments, body: &[u8], u: &mut [f32]) {
        let mut subtract = |start: usize, values: &[f32]| {
            for (u, value) in u[start..].iter_mut().zip(values) {
                *u -= value;
            }
            Ok(())
        };
        let result = match quantizer.kind() {
            FrameKind::Whole(Scheme::Rotated) => self.rotated.each(self.seed, &mut subtract),
            FrameKind::Whole(scheme) => self.reader.read(scheme, body, body.len(), segments, &mut subtract),
            _ => Ok(()),
        };
        result.expect("what was written can be read");
    }
}

impl Reader {
    /// Reads a body.
    ///
    /// # Errors
    /// What is wrong with it, or with its values.
    pub(crate) fn read(
        &mut self,
        scheme: Scheme,
        body: &[u8],
        frame_bytes: usize,
        segments: &Segments,
        each: &mut impl Each,
    ) -> Result<(), Error> {
        let n = segments.len();
        match scheme {
            Scheme::Rotated => rotated::read(body, frame_bytes, n, &mut self.rotated, each),
            Scheme::Eden => eden::read(body, frame_bytes, n, each),
            Scheme::Qsgd | Scheme::Terngrad => norms::read(scheme, body, frame_bytes, segments, each),
            Scheme::Sign => sign::read(body, frame_bytes, segments, each),
            Scheme::LowRank => low_rank::read(body, frame_bytes, segments, each),
            Scheme::Common => common::read(body, frame_bytes, n, each),
        }
    }
}

/// What a body would be without entropy coding, in bytes.
pub(crate) fn quantized(scheme: Scheme, body: &[u8], segments: &Segments) -> u64 {
    match scheme {
        Scheme::Rotated => rotated::quantized(body, segments.len()),
        Scheme::Qsgd | Scheme::Terngrad => norms::quantized(scheme, body, segments),
        Scheme::Common => common::quantized(body, segments),
        Scheme::Eden | Scheme::Sign | Scheme::LowRank => body.len() as u64,
    }
}

/// Σ aᵢ·bᵢ in eight sums, so that it vectorises and is the same everywhere.
#[inline(always)]
fn dot(a: &[f32], b: impl Fn(usize) -> f32) -> f64 {
    let mut sums = [0.0; 8];
    let (eights, rest) = a.as_chunks::<8>();
    for (chunk, eight) in eights.iter().enumerate() {
        for lane in 0..8 {
            sums[lane] += f64::from(eight[lane]) * f64::from(b(8 * chunk + lane));
        }
    }
    for (i, value) in rest.iter().enumerate() {
        sums[i] += f64::from(*value) * f64::from(b(8 * eights.len() + i));
    }
    sums.iter().sum()
}

/// One of the two integers next to a number, so that their mean is the number.
fn rounded_at_random(number: f32, random: u64) -> f32 {
    let below = number.floor();
    let uniform = (random >> 40) as f32 / (1 << 24) as f32;
    below + if uniform < number - below { 1.0 } else { 0.0 }
}

/// A seed in four parts of 16 bits, the lowest first.
fn code_seed(stream: &mut impl crate::bits::Stream, seed: u64) -> u64 {
    (0..4).fold(0, |coded, part| {
        let word = stream.bits((seed >> (16 * part)) as u32 & 0xffff, 16);
        coded | u64::from(word) << (16 * part)
    })
}

/// Values beyond half precision are cut off, as they are by [`Quantizer::F16`].
const LARGEST: f32 = 65504.0;

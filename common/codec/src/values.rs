//! What the sent coordinates of one tensor hold. In here a value is its *code*: the bits of a float, the byte of an
//! 8-bit level, 1 for a negative sign, the bits of an `i32`; of a codebook those of its f16 with the sign. Vectors that are rounded as a whole have none.

use half::f16;

use crate::{
    FrameKind, Quantizer,
    bits::Stream,
    codebook,
    model::{Frequencies, Magnitude, Tree},
    range::{Cost, RangeStream},
};

/// One way to write codes. One description serves both directions: a reader ignores and fills `codes`.
pub(crate) trait Values<S: Stream> {
    fn values(&mut self, stream: &mut S, count: usize, codes: &mut Vec<u32>);
}

/// Codes of a kind without entropy coding.
pub(crate) struct Plain(pub(crate) FrameKind);

/// 8-bit levels by their frequencies, one model per tensor.
pub(crate) struct Levels;

/// Signed integers: their common divisor, then magnitudes by a codebook or by class and bits, then signs; per tensor.
pub(crate) struct Integers;

impl<S: Stream> Values<S> for Plain {
    fn values(&mut self, stream: &mut S, count: usize, codes: &mut Vec<u32>) {
        if let FrameKind::Codebook { bits } = self.0 {
            return codebook::code_plainly(stream, bits, count, codes);
        }
        let width = width_of(self.0);
        if width == 1 {
            return code_flags(stream, count, codes);
        }
        codes.resize(count, 0);
        if width == 0 {
            return;
        }
        for code in codes {
            *code = stream.long(*code, width);
        }
    }
}

impl<S: RangeStream> Values<S> for Levels {
    fn values(&mut self, stream: &mut S, count: usize, codes: &mut Vec<u32>) {
        let mut frequencies = Frequencies::new();
        codes.resize(count, 0);
        for code in codes {
            *code = frequencies.code(stream, *code);
        }
    }
}

impl<S: RangeStream> Values<S> for Integers {
    fn values(&mut self, stream: &mut S, count: usize, codes: &mut Vec<u32>) {
        codes.resize(count, 0);
        let mut signs: Vec<u32> = codes.iter().map(|&code| code >> 31).collect();
        let mut magnitudes: Vec<u32> = codes.iter().map(|&code| (code as i32).unsigned_abs()).collect();
        let divisor = stream.number(magnitudes.iter().fold(0, |a, &b| greatest_common_divisor(a, b)));
        magnitudes.iter_mut().for_each(|magnitude| *magnitude /= divisor);

        let codebook = if S::READS { None } else { codebook_if_cheaper(&mut magnitudes) };
        if stream.bits(u32::from(codebook.is_some()), 1) == 1 {
            code_by_codebook(stream, codebook.unwrap_or_default(), &mut magnitudes);
        } else {
            code_by_class(stream, &mut magnitudes);
        }
        code_flags(stream, count, &mut signs);
        if S::READS {
            for ((code, sign), magnitude) in codes.iter_mut().zip(signs).zip(magnitudes) {
                let magnitude = u64::from(magnitude) * u64::from(divisor);
                // Zero stands for what does not fit; the caller refuses zeros.
                let fits = magnitude <= i32::MAX as u64 + u64::from(sign);
                let magnitude = if fits { magnitude as u32 } else { 0 };
                *code = if sign == 1 { magnitude.wrapping_neg() } else { magnitude };
            }
        }
    }
}

/// One bit each, sixteen at a time.
pub(crate) fn code_flags<S: Stream>(stream: &mut S, count: usize, flags: &mut Vec<u32>) {
    flags.resize(count, 0);
    for chunk in flags.chunks_mut(16) {
        let word = chunk.iter().enumerate().fold(0, |word, (i, flag)| word | flag << i);
        let word = stream.bits(word, chunk.len() as u32);
        for (i, flag) in chunk.iter_mut().enumerate() {
            *flag = word >> i & 1;
        }
    }
}

fn code_by_class<S: RangeStream>(stream: &mut S, magnitudes: &mut [u32]) {
    let low = stream.number(magnitudes.iter().copied().min().unwrap_or(1));
    let mut model = Magnitude::starting_at(low);
    for magnitude in magnitudes {
        *magnitude = model.code(stream, *magnitude);
    }
}

/// The rising entries as differences, then for every magnitude its place among them.
fn code_by_codebook<S: RangeStream>(stream: &mut S, mut entries: Vec<u32>, magnitudes: &mut [u32]) {
    let count = stream.bits((entries.len() as u32).wrapping_sub(1), 8) as usize + 1;
    entries.resize(count, 0);
    let mut last = 0u32;
    for entry in &mut entries {
        *entry = last.wrapping_add(stream.number(entry.wrapping_sub(last)));
        last = *entry;
    }
    let mut tree = Tree::of_depth(usize::BITS - (count - 1).leading_zeros());
    for magnitude in magnitudes {
        let symbol = if S::READS { 0 } else { entries.partition_point(|entry| entry < magnitude) };
        // A symbol beyond the entries comes from a stream that no writer wrote: zero, which the caller refuses.
        *magnitude = entries.get(tree.code(stream, symbol as u32) as usize).copied().unwrap_or(0);
    }
}

fn codebook_if_cheaper(magnitudes: &mut [u32]) -> Option<Vec<u32>> {
    let mut entries = Vec::new();
    for &magnitude in magnitudes.iter() {
        if let Err(at) = entries.binary_search(&magnitude) {
            if entries.len() == CODEBOOK_MAX {
                return None;
            }
            entries.insert(at, magnitude);
        }
    }
    let (mut by_codebook, mut by_class) = (Cost::default(), Cost::default());
    code_by_codebook(&mut by_codebook, entries.clone(), magnitudes);
    code_by_class(&mut by_class, magnitudes);
    (by_codebook.total < by_class.total).then_some(entries)
}

fn greatest_common_divisor(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The value of a code. The encoder subtracts and the decoder adds exactly this.
#[inline(always)]
pub(crate) fn value_of(kind: FrameKind, code: u32, scale: f32) -> f32 {
    match kind {
        FrameKind::F32 => f32::from_bits(code),
        FrameKind::F16 | FrameKind::Codebook { .. } => f16::from_bits(code as u16).to_f32(),
        FrameKind::Int8 => f32::from(code as u8 as i8) * scale,
        // Not a branch, which would be guessed wrongly every other time.
        FrameKind::Ternary => f32::from_bits(scale.to_bits() ^ u32::from(code != 0) << 31),
        FrameKind::Integers => code as i32 as f32 * crate::grid::UNIT,
        FrameKind::Whole(_) | FrameKind::Pruned | FrameKind::Announced | FrameKind::Grown => 0.0,
    }
}

/// The code of the value nearest to `u`.
#[inline(always)]
pub(crate) fn code_of(quantizer: Quantizer, u: f32, scale: f32) -> u32 {
    match quantizer {
        Quantizer::F32 => u.to_bits(),
        Quantizer::F16 => u32::from(f16::from_f32(u.clamp(-HALF_MAX, HALF_MAX)).to_bits()),
        Quantizer::Int8 => u32::from(round_level((u / scale).clamp(-LEVEL_MAX, LEVEL_MAX)) as u8),
        Quantizer::Ternary => u32::from(u < 0.0),
        _ => 0,
    }
}

/// To the nearest integer, halves to even. Adding 1.5·2^23 leaves no room for a fraction, and unlike a call to
/// `round_ties_even` the sum vectorises everywhere.
#[inline]
fn round_level(level: f32) -> i32 {
    (level + ROUNDER).to_bits() as i32 - ROUNDER.to_bits() as i32
}

/// Bits of a code as it is; of a codebook's, of its sign and place.
pub(crate) fn width_of(kind: FrameKind) -> u32 {
    match kind {
        FrameKind::F32 | FrameKind::Integers => 32,
        FrameKind::F16 => 16,
        FrameKind::Int8 => 8,
        FrameKind::Ternary => 1,
        FrameKind::Codebook { bits } => bits.into(),
        FrameKind::Whole(_) | FrameKind::Pruned | FrameKind::Announced | FrameKind::Grown => 0,
    }
}

/// Whether tensors of this kind carry a scale.
pub(crate) fn is_scaled(kind: FrameKind) -> bool {
    matches!(kind, FrameKind::Int8 | FrameKind::Ternary)
}

/// A scale as it is sent: finite and positive in half precision.
pub(crate) fn round_scale(scale: f32) -> f16 {
    let rounded = f16::from_f32(scale.clamp(0.0, HALF_MAX));
    if rounded > f16::ZERO { rounded } else { f16::MIN_POSITIVE_SUBNORMAL }
}

pub(crate) const LEVEL_MAX: f32 = 127.0;
const ROUNDER: f32 = 12_582_912.0;
pub(crate) const HALF_MAX: f32 = 65504.0;
const CODEBOOK_MAX: usize = 255;

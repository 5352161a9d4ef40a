//! The payload of one tensor: positions of what is not zero, then what stands there. One description for both directions.

use super::symbols::code_symbols;
use super::{CODEBOOK_MAX, Error, Precision, Values, Width, parts::scales_of};
use crate::model::Tree;
use crate::positions::{Adaptive, Corrupt, Positions};
use crate::{Segment, range::RangeStream};
use half::f16;

/// What the values are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    F32,
    F16,
    Shared(Precision),
    Integers(Width),
}

/// Indexed by the kind byte; the order is the format.
const KINDS: [Kind; 6] = [
    Kind::F32,
    Kind::F16,
    Kind::Shared(Precision::Half),
    Kind::Shared(Precision::Single),
    Kind::Integers(Width::Eight),
    Kind::Integers(Width::Four),
];

impl Kind {
    pub(super) fn of(values: &Values) -> Self {
        match values {
            Values::F32(_) => Self::F32,
            Values::F16(_) => Self::F16,
            Values::Shared { precision, .. } => Self::Shared(*precision),
            Values::Integers { width, .. } => Self::Integers(*width),
        }
    }

    pub(super) fn byte(self) -> u8 {
        KINDS.iter().position(|&kind| kind == self).expect("every kind is listed") as u8
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        KINDS.get(usize::from(byte)).copied()
    }
}

/// What is written of a tensor.
#[derive(Default)]
pub(super) struct Content {
    /// Of the non-zeros, rising.
    pub(super) positions: Vec<u32>,
    /// For each non-zero its bits, its place in the codebook, or its level above the lowest.
    codes: Vec<u32>,
    /// The bits of the codebook's entries, or the upper halves of the scales.
    table: Vec<u32>,
}

/// Writes a content, or reads one of `nonzeros` non-zeros into an empty one.
pub(super) fn code<S: RangeStream>(
    stream: &mut S,
    mut adaptive: Adaptive,
    kind: Kind,
    segment: Segment,
    scales: usize,
    nonzeros: usize,
    content: &mut Content,
) -> Result<(), Corrupt> {
    let Content { positions, codes, table } = content;
    if nonzeros == segment.len {
        positions.clear();
        positions.extend(0..nonzeros as u32);
    } else if nonzeros > 0 {
        adaptive.positions(stream, segment, nonzeros as u32, positions)?;
    }
    if nonzeros == 0 {
        return Ok(());
    }
    match kind {
        Kind::F32 => code_floats(stream, nonzeros, [8, 23], codes),
        Kind::F16 => code_floats(stream, nonzeros, [5, 10], codes),
        Kind::Shared(precision) => {
            let entries = stream.bits(table.len().wrapping_sub(1) as u32 & 0xff, 8) as usize + 1;
            code_table(stream, entries, if precision == Precision::Half { 16 } else { 32 }, table);
            code_symbols(stream, entries, segment.row, positions, codes);
        }
        Kind::Integers(width) => {
            code_table(stream, scales, 16, table);
            code_symbols(stream, 2 * width.level_max() as usize + 1, segment.row, positions, codes);
        }
    }
    Ok(())
}

fn code_table<S: RangeStream>(stream: &mut S, entries: usize, bits: u32, table: &mut Vec<u32>) {
    table.resize(entries, 0);
    for entry in table {
        *entry = stream.long(*entry, bits);
    }
}

/// Each as its exponent, learnt, then its sign and fraction as they are.
fn code_floats<S: RangeStream>(stream: &mut S, count: usize, [exponent, fraction]: [u32; 2], codes: &mut Vec<u32>) {
    let mut exponents = Tree::of_depth(exponent);
    codes.resize(count, 0);
    for code in codes {
        let high = exponents.code(stream, *code >> fraction & ((1 << exponent) - 1));
        let sign = stream.bits(*code >> (exponent + fraction), 1);
        let low = stream.long(*code & ((1 << fraction) - 1), fraction);
        *code = (sign << exponent | high) << fraction | low;
    }
}

/// A tensor's content, once its values are what they have to be.
pub(super) fn prepared(name: &str, shape: &[usize], values: &Values) -> Result<Content, Error> {
    let mut content = Content::default();
    let refused = |index| Error::BadValue { tensor: name.to_owned(), index };
    let mut push = |index: usize, code: u32| {
        content.positions.push(index as u32);
        content.codes.push(code);
    };
    match values {
        Values::F32(values) => {
            for (index, &value) in values.iter().enumerate().filter(|&(_, &value)| value != 0.0) {
                if !value.is_finite() {
                    return Err(refused(index));
                }
                push(index, value.to_bits());
            }
        }
        Values::F16(values) => {
            for (index, &value) in values.iter().enumerate().filter(|&(_, &value)| value != f16::ZERO) {
                if !value.is_finite() {
                    return Err(refused(index));
                }
                push(index, value.to_bits().into());
            }
        }
        Values::Shared { precision, codebook, codes } => {
            check_codebook(name, codebook)?;
            for (index, &code) in codes.iter().enumerate().filter(|&(_, &code)| code != 0) {
                if usize::from(code) > codebook.len() {
                    return Err(refused(index));
                }
                push(index, u32::from(code) - 1);
            }
            let bits = |&value: &f32| match precision {
                Precision::Single => Some(value.to_bits()),
                Precision::Half => {
                    let half = f16::from_f32(value);
                    (half.to_f32() == value).then(|| half.to_bits().into())
                }
            };
            let table: Option<Vec<u32>> = codebook.iter().map(bits).collect();
            content.table = table.ok_or_else(|| Error::BadCodebook { tensor: name.to_owned() })?;
        }
        Values::Integers { width, scales, levels } => {
            let most = width.level_max();
            for (index, &level) in levels.iter().enumerate().filter(|&(_, &level)| level != 0) {
                if !(-most..=most).contains(&level) {
                    return Err(refused(index));
                }
                push(index, (i32::from(level) + i32::from(most)) as u32);
            }
            check_scales(name, scales_of(shape), scales)?;
            content.table = scales.iter().map(|scale| scale.to_bits() >> 16).collect();
        }
    }
    Ok(content)
}

/// The values that a content from anywhere stands for.
pub(super) fn restored(name: &str, kind: Kind, shape: &[usize], content: &Content) -> Result<Values, Error> {
    let len = shape.iter().product();
    let refused = |index| Error::BadValue { tensor: name.to_owned(), index };
    let entries = || content.positions.iter().map(|&position| position as usize).zip(content.codes.iter().copied());
    Ok(match kind {
        Kind::F32 => {
            let mut values = vec![0.0; len];
            for (index, bits) in entries() {
                values[index] =
                    Some(f32::from_bits(bits)).filter(|v| v.is_finite() && *v != 0.0).ok_or(refused(index))?;
            }
            Values::F32(values)
        }
        Kind::F16 => {
            let mut values = vec![f16::ZERO; len];
            for (index, bits) in entries() {
                let value = f16::from_bits(bits as u16);
                values[index] = Some(value).filter(|v| v.is_finite() && *v != f16::ZERO).ok_or(refused(index))?;
            }
            Values::F16(values)
        }
        Kind::Shared(precision) => {
            let value = |&bits: &u32| match precision {
                Precision::Half => f16::from_bits(bits as u16).to_f32(),
                Precision::Single => f32::from_bits(bits),
            };
            let codebook: Vec<f32> = content.table.iter().map(value).collect();
            if !content.codes.is_empty() {
                check_codebook(name, &codebook)?;
            }
            let mut codes = vec![0; len];
            for (index, code) in entries() {
                if code as usize >= codebook.len() {
                    return Err(refused(index));
                }
                codes[index] = code as u8 + 1;
            }
            Values::Shared { precision, codebook, codes }
        }
        Kind::Integers(width) => {
            let most = i32::from(width.level_max());
            let mut scales: Vec<f32> = content.table.iter().map(|&bits| f32::from_bits(bits << 16)).collect();
            if content.codes.is_empty() {
                scales.resize(scales_of(shape), 1.0);
            }
            check_scales(name, scales_of(shape), &scales)?;
            let mut levels = vec![0; len];
            for (index, code) in entries() {
                let level = code as i32 - most;
                levels[index] = if level == 0 || level > most { return Err(refused(index)) } else { level as i8 };
            }
            Values::Integers { width, scales, levels }
        }
    })
}

fn check_codebook(name: &str, codebook: &[f32]) -> Result<(), Error> {
    let rises = codebook.windows(2).all(|pair| pair[0] < pair[1]);
    let is_right = |value: &f32| value.is_finite() && *value != 0.0;
    if codebook.len() <= CODEBOOK_MAX && rises && codebook.iter().all(is_right) {
        return Ok(());
    }
    Err(Error::BadCodebook { tensor: name.to_owned() })
}

fn check_scales(name: &str, expected: usize, scales: &[f32]) -> Result<(), Error> {
    let is_right = |scale: &f32| scale.is_finite() && *scale > 0.0 && scale.to_bits() & 0xffff == 0;
    if scales.len() == expected && scales.iter().all(is_right) {
        return Ok(());
    }
    Err(Error::BadScales { tensor: name.to_owned(), expected })
}

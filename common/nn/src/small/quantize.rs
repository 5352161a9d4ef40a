//! Symmetric integers with a scale for each output channel.

use dunlin_codec::container::{Values, Width};

/// The values of a tensor of this shape as integers, with a scale for each index of the first axis, or a single one for
/// tensors of fewer than two axes.
///
/// A scale is the one of some that has the least squared error: that at which the largest value just fits, and smaller
/// ones, which clip a few values and place all others better; with four bits that halves the error. Where all values are
/// levels of a scale already, as those of a model that was trained so, they stay what they are.
///
/// # Panics
/// When a value is not finite.
#[must_use]
pub fn quantize(values: &[f32], shape: &[usize], width: Width) -> Values {
    let channels = if shape.len() < 2 { 1 } else { shape[0] };
    let mut scales = Vec::with_capacity(channels);
    let mut levels = Vec::with_capacity(values.len());
    for row in values.chunks(values.len().div_ceil(channels).max(1)) {
        let best = best_scale(row, width);
        let is_exact = |scale: f32| row.iter().all(|&value| f32::from(level(value, scale, width)) * scale == value);
        let scale = if is_exact(best) { best } else { exact_scale(row, width).unwrap_or(best) };
        levels.extend(row.iter().map(|&value| level(value, scale, width)));
        scales.push(scale);
    }
    Values::Integers { width, scales, levels }
}

/// The scale of one channel's values at which the largest takes the last level, so that the values that come of it give
/// the same scale again; 1 where all are zero.
pub(crate) fn widest_scale(row: &[f32], width: Width) -> f32 {
    let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    let scale = (largest / f32::from(width.level_max())).max(f32::MIN_POSITIVE);
    // Rounded down to a brain float: what that clips is less than a level.
    if largest == 0.0 { 1.0 } else { f32::from_bits(scale.to_bits() & 0xffff_0000) }
}

/// The best scale of some for one channel's values.
///
/// # Panics
/// When a value is not finite.
pub(crate) fn best_scale(row: &[f32], width: Width) -> f32 {
    let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    assert!(largest.is_finite(), "values to be quantized are finite");
    if largest == 0.0 {
        return 1.0;
    }
    let error = |scale: f32| -> f64 {
        row.iter().map(|&value| f64::from(value - f32::from(level(value, scale, width)) * scale).powi(2)).sum()
    };
    let widest = largest / f32::from(width.level_max());
    let tried = (0..CLIPPED).map(|i| brain_float(widest * (1.0 - i as f32 / 20.0)));
    let mut best = (f64::INFINITY, 1.0);
    for scale in tried {
        let error = error(scale);
        // The first of equals, which is the widest.
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}

/// The scale, a brain float, of which all values of a row are levels; nothing where there is none.
fn exact_scale(row: &[f32], width: Width) -> Option<f32> {
    let most = f32::from(width.level_max());
    let largest = row.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    // The greatest common divisor: remainders of floats are exact.
    let mut divisor = 0f32;
    for value in row.iter().filter(|value| **value != 0.0) {
        let mut rest = value.abs();
        while rest != 0.0 {
            (divisor, rest) = (rest, divisor % rest);
        }
        if divisor * most < largest {
            return None;
        }
    }
    let mut parts = (1..=width.level_max()).map(|part| (divisor / f32::from(part), f32::from(part)));
    let fits = |&(scale, part): &(f32, f32)| {
        scale.is_normal() && scale.to_bits() & 0xffff == 0 && scale * part == divisor && scale * most >= largest
    };
    parts.find(fits).map(|(scale, _)| scale)
}

/// The nearest level, halves to even as in ONNX.
fn level(value: f32, scale: f32, width: Width) -> i8 {
    let most = f32::from(width.level_max());
    (value / scale).round_ties_even().clamp(-most, most) as i8
}

/// Rounded up to a brain float, so that nothing is clipped for it; at least the least normal one.
fn brain_float(value: f32) -> f32 {
    let bits = value.max(f32::MIN_POSITIVE).to_bits();
    f32::from_bits((bits.saturating_add(0xffff) & 0xffff_0000).min(0x7f7f_0000))
}

/// Scales that are tried: down to less than half of what fits the largest value.
const CLIPPED: usize = 12;

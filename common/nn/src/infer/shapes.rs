//! Steps without weights of their own kind: layouts, pools, norms, sizes.

use crate::ops::{transpose, vectorised};

/// A row-major matrix with rows and columns exchanged.
pub(super) fn transposed(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    transpose(x, columns, &mut y, rows);
    y
}

/// [images][channels][area] as [channels][images][area].
pub(super) fn images_to_channels(x: &[f32], images: usize, channels: usize, area: usize) -> Vec<f32> {
    let mut y = Vec::with_capacity(x.len());
    for channel in 0..channels {
        for image in 0..images {
            y.extend_from_slice(&x[(image * channels + channel) * area..][..area]);
        }
    }
    y
}

/// [channels][images][area] as [channels · area][images].
pub(super) fn flatten(x: &[f32], channels: usize, images: usize, area: usize) -> Vec<f32> {
    let mut y = Vec::with_capacity(channels * images * area);
    x.chunks_exact(images * area).for_each(|channel| y.extend(transposed(channel, images, area)));
    y
}

/// The means of runs of this length.
pub(super) fn means(x: &[f32], area: usize) -> Vec<f32> {
    x.chunks_exact(area).map(|pixels| pixels.iter().sum::<f32>() / area as f32).collect()
}

/// The largest of each 2×2 pixels.
pub(super) fn max_pool(x: &[f32], [_, height, width]: [usize; 3]) -> Vec<f32> {
    let (out_height, out_width) = (height / 2, width / 2);
    let mut y = vec![0.0; x.len() / (height * width) * out_height * out_width];
    if y.is_empty() {
        return y;
    }
    vectorised(
        #[inline(always)]
        || {
            for (plane, y) in x.chunks_exact(height * width).zip(y.chunks_exact_mut(out_height * out_width)) {
                for (rows, y) in plane.chunks_exact(2 * width).zip(y.chunks_exact_mut(out_width)) {
                    let (upper, lower) = rows.split_at(width);
                    let pairs = upper.as_chunks::<2>().0.iter().zip(lower.as_chunks::<2>().0);
                    y.iter_mut().zip(pairs).for_each(|(y, (&[a, b], &[c, d]))| *y = larger(larger(a, b), larger(c, d)));
                }
            }
        },
    );
    y
}

/// Each group of channels of each image scaled to mean 0 and variance 1, then a factor and a term for each channel.
pub(super) fn group_norm(x: &mut [f32], images: usize, groups: usize, gamma: &[f32], beta: &[f32]) {
    let channels = gamma.len();
    let area = x.len() / (channels * images);
    let per_group = channels / groups;
    for group in 0..groups {
        for image in 0..images {
            let planes = |channel: usize| (channel * images + image) * area..(channel * images + image + 1) * area;
            let own = group * per_group..(group + 1) * per_group;
            let (mut sum, mut squares) = (0f64, 0f64);
            for channel in own.clone() {
                let of_plane = moments(&x[planes(channel)]);
                sum += of_plane.0;
                squares += of_plane.1;
            }
            let count = (per_group * area) as f64;
            let mean = sum / count;
            let inverse_deviation = 1.0 / ((squares / count - mean * mean).max(0.0) + EPSILON).sqrt();
            for channel in own {
                let factor = f64::from(gamma[channel]) * inverse_deviation;
                let term = (f64::from(beta[channel]) - mean * factor) as f32;
                let factor = factor as f32;
                let plane = &mut x[planes(channel)];
                vectorised(
                    #[inline(always)]
                    || plane.iter_mut().for_each(|value| *value = *value * factor + term),
                );
            }
        }
    }
}

/// Sums of the values and of their squares, each as [`LANES`] that go by side by side, so that none waits for the one
/// before.
fn moments(x: &[f32]) -> (f64, f64) {
    let (whole, rest) = x.as_chunks::<LANES>();
    // Begun within the loop's function: there they stay in registers.
    let (mut sums, mut squares) = vectorised(
        #[inline(always)]
        || {
            let (mut sums, mut squares) = ([0f64; LANES], [0f64; LANES]);
            for values in whole {
                for lane in 0..LANES {
                    let value = f64::from(values[lane]);
                    sums[lane] += value;
                    squares[lane] += value * value;
                }
            }
            (sums, squares)
        },
    );
    for (&value, (sum, square)) in rest.iter().zip(sums.iter_mut().zip(&mut squares)) {
        *sum += f64::from(value);
        *square += f64::from(value) * f64::from(value);
    }
    (sums.iter().sum(), squares.iter().sum())
}

/// Bilinear interpolation between the centres of pixels, as [`crate::ops::resize`].
pub(super) fn resize(x: &[f32], [_, height, width]: [usize; 3], [_, new_height, new_width]: [usize; 3]) -> Vec<f32> {
    let between = |old: usize, new: usize| -> Vec<(usize, usize, f32)> {
        let place = |index: usize| {
            let position = (index as f64 + 0.5) * old as f64 / new as f64 - 0.5;
            let position = position.clamp(0.0, (old - 1) as f64);
            let first = position as usize;
            (first, (first + 1).min(old - 1), (position - first as f64) as f32)
        };
        (0..new).map(place).collect()
    };
    let (rows, columns) = (between(height, new_height), between(width, new_width));
    let mut y = Vec::with_capacity(x.len() / (height * width) * new_height * new_width);
    for plane in x.chunks_exact(height * width) {
        for &(upper, lower, down) in &rows {
            for &(left, right, across) in &columns {
                let at = |row: usize| {
                    let row = &plane[row * width..];
                    row[left] * (1.0 - across) + row[right] * across
                };
                y.push(at(upper) * (1.0 - down) + at(lower) * down);
            }
        }
    }
    y
}

/// Without `f32::max`, whose care for NaN takes several instructions.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if a > b { a } else { b }
}

/// Sums side by side.
const LANES: usize = 16;

/// As in [`crate::ops::group_norm`].
const EPSILON: f64 = 1e-5;

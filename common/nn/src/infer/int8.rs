//! Layers whose weights have 8 bits and whose inputs are rounded to 8 bits on the way: sums of integer products, exact,
//! and the same on every machine.
//!
//! An input x is the level round(x/s) + z of 0 to 255, with s and z from the range that was measured; a weight is its
//! level times its output's scale. So an output is s·scale·(Σ w·q − z·Σ w) + bias.

mod kernel;

use super::Range;
use super::convolution::Convolution;
use crate::ops::{transpose, vectorised};
use kernel::products;

/// Rows of 8-bit weights.
#[derive(Debug)]
pub(super) struct Int8 {
    /// Row after row, each the kernel's pixels with their channels side by side, filled up with zeros to a multiple of
    /// [`kernel::LANES`].
    levels: Vec<i8>,
    /// Length of a row with the zeros.
    padded: usize,
    scales: Vec<f32>,
    /// For each row its sum.
    sums: Vec<i32>,
    /// Of the inputs.
    scale: f32,
    zero: u8,
}

impl Int8 {
    /// `levels` are [outputs, channels, pixels of the kernel].
    pub(super) fn new(levels: &[i8], scales: &[f32], row: usize, pixels: usize, range: Range) -> Self {
        let padded = row.next_multiple_of(kernel::LANES);
        let mut rows = Vec::with_capacity(levels.len() / row * padded);
        let mut sums = Vec::with_capacity(levels.len() / row);
        for levels in levels.chunks_exact(row) {
            for pixel in 0..pixels {
                rows.extend(levels.iter().skip(pixel).step_by(pixels));
            }
            rows.resize(rows.len() + padded - row, 0);
            sums.push(levels.iter().map(|&level| i32::from(level)).sum());
        }
        let (scale, zero) = range.scale_and_zero();
        Self { levels: rows, padded, scales: scales.to_vec(), sums, scale, zero }
    }

    pub(super) fn bytes(&self) -> usize {
        self.levels.len() + 4 * self.scales.len() + 4 * self.sums.len()
    }

    /// See [`super::matrix::Matrix::multiply`].
    pub(super) fn multiply_columns(&self, x: &[f32], count: usize, bias: &[f32], y: &mut [f32], stride: usize) {
        let mut patches = vec![0; count * self.padded];
        transpose(&self.rounded(x), count, &mut patches, self.padded);
        for (first, patches) in (0..).step_by(COLUMNS).zip(patches.chunks(COLUMNS * self.padded)) {
            self.multiply_patches(patches, bias, &mut y[first..], stride);
        }
    }

    /// A convolution without groups.
    pub(super) fn convolve(&self, convolution: &Convolution, x: &[f32], bias: &[f32], y: &mut [f32]) {
        let ([channels, height, width], [_, out_height, out_width]) = (convolution.input, convolution.output);
        let Convolution { kernel: [kernel_rows, kernel_columns], padding, stride, batch, .. } = *convolution;
        let (area, out_area) = (height * width, out_height * out_width);
        let levels = self.rounded(x);
        // The image with its channels side by side and the level of zero around it, so that a patch is a few long runs.
        let pitch = (width + 2 * padding) * channels;
        let mut pixels = vec![self.zero; (height + 2 * padding) * pitch];
        let mut patches = vec![0; out_width * self.padded];
        let run = kernel_columns * channels;
        for image in 0..batch {
            for channel in 0..channels {
                let plane = &levels[(channel * batch + image) * area..][..area];
                for (row, to) in plane.chunks_exact(width).zip(pixels[padding * pitch..].chunks_exact_mut(pitch)) {
                    let to = to[padding * channels + channel..].iter_mut().step_by(channels);
                    to.zip(row).for_each(|(to, &level)| *to = level);
                }
            }
            for oy in 0..out_height {
                for (ox, patch) in patches.chunks_exact_mut(self.padded).enumerate() {
                    for (ky, to) in patch.chunks_exact_mut(run).take(kernel_rows).enumerate() {
                        let from = (oy * stride + ky) * pitch + ox * stride * channels;
                        to.copy_from_slice(&pixels[from..from + run]);
                    }
                }
                let first = image * out_area + oy * out_width;
                self.multiply_patches(&patches, bias, &mut y[first..], batch * out_area);
            }
        }
    }

    /// The outputs of some patches, each a row of levels: y[o · stride + patch].
    fn multiply_patches(&self, patches: &[u8], bias: &[f32], y: &mut [f32], stride: usize) {
        let columns = patches.len() / self.padded;
        let mut sums = vec![0; self.sums.len() * columns];
        products(&self.levels, patches, self.padded, &mut sums);
        let zero = i32::from(self.zero);
        let rows = self.sums.iter().zip(&self.scales).zip(bias);
        for ((sums, y), ((&sum, scale), bias)) in sums.chunks_exact(columns).zip(y.chunks_mut(stride)).zip(rows) {
            let (scale, offset) = (self.scale * scale, zero * sum);
            for (y, &sum) in y.iter_mut().zip(sums) {
                *y = (sum - offset) as f32 * scale + bias;
            }
        }
    }

    fn rounded(&self, x: &[f32]) -> Vec<u8> {
        let (inverse, zero) = (1.0 / self.scale, f32::from(self.zero));
        let (least, most) = (-zero, 255.0 - zero);
        let mut levels = vec![0; x.len()];
        vectorised(
            #[inline(always)]
            || {
                for (level, &value) in levels.iter_mut().zip(x) {
                    // Adding 1.5·2²³ rounds to the nearest integer, halves to even, and leaves it in the lowest bits: that
                    // vectorises everywhere, and casts that saturate do not.
                    let steps = value * inverse;
                    let steps = if steps > least { steps } else { least };
                    let steps = if steps < most { steps } else { most };
                    *level = ((steps + ROUNDER).to_bits() as u8).wrapping_add(self.zero);
                }
            },
        );
        levels
    }
}

const ROUNDER: f32 = 12_582_912.0;
/// Columns that are multiplied at a time: they stay in the first-level cache for rows of a few hundred.
const COLUMNS: usize = 32;

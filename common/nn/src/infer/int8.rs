//! Layers whose weights have 8 bits and whose inputs are rounded to 8 bits on the way: sums of integer products, exact,
//! and the same on every machine.
//!
//! An input x is the level round(x/s) + z of 0 to 255, with s and z from the range that was measured; a weight is its
//! level times its output's scale. So an output is s·scale·(Σ w·q − z·Σ w) + bias.

mod convolution;

use super::Range;
use super::convolution::Convolution;
use crate::ops::vectorised;
use convolution::{Scaling, Words};

/// A layer's 8-bit weights.
#[derive(Debug)]
pub(super) struct Int8 {
    words: Words,
    scales: Vec<f32>,
    /// For each output the sum of its levels.
    sums: Vec<i32>,
    /// Of the inputs.
    scale: f32,
    zero: u8,
}

/// Most weights of an output: any sum of so many products fits an `i32`.
pub(super) const MOST_WEIGHTS: usize = 1 << 16;

impl Int8 {
    /// `levels` are [outputs, channels, pixels of the kernel], where a row, [`MOST_WEIGHTS`] at most, is an output's; a
    /// fully connected layer has a kernel of one pixel.
    pub(super) fn new(levels: &[i8], scales: &[f32], row: usize, kernel: [usize; 2], range: Range) -> Self {
        let rows: Vec<&[i8]> = levels.chunks_exact(row).collect();
        let sums = rows.iter().map(|row| row.iter().map(|&level| i32::from(level)).sum()).collect();
        let (scale, zero) = range.scale_and_zero();
        Self { words: Words::new(&rows, kernel), scales: scales.to_vec(), sums, scale, zero }
    }

    pub(super) fn bytes(&self) -> usize {
        self.words.bytes() + 4 * self.scales.len() + 4 * self.sums.len()
    }

    /// For each output the scale of its sums and what they are too large by.
    fn factors(&self) -> Vec<(f32, i32)> {
        let zero = i32::from(self.zero);
        self.scales.iter().zip(&self.sums).map(|(scale, sum)| (self.scale * scale, zero * sum)).collect()
    }

    /// A convolution without groups.
    pub(super) fn convolve(&self, convolution: &Convolution, x: &[f32], bias: &[f32], y: &mut [f32]) {
        let scaling = Scaling { factors: &self.factors(), bias };
        self.words.convolve(convolution, &self.rounded(x), self.zero, scaling, y);
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
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_sums_fit() {
        for (level, x) in [(-128, 1.0), (127, 1.0), (-128, 0.0)] {
            let range = Range { least: 0.0, largest: 1.0 };
            let int8 = Int8::new(&vec![level; MOST_WEIGHTS], &[1.0], MOST_WEIGHTS, [1, 1], range);
            for batch in [1, 20] {
                let (input, output) = ([MOST_WEIGHTS, 1, batch], [1, 1, batch]);
                let convolution =
                    Convolution { input, output, kernel: [1, 1], padding: 0, stride: 1, groups: 1, batch: 1 };
                let mut y = vec![f32::NAN; batch];
                int8.convolve(&convolution, &vec![x; MOST_WEIGHTS * batch], &[0.0], &mut y);
                let sum = f64::from(level) * 255.0 * f64::from(x) * MOST_WEIGHTS as f64;
                assert!(
                    y.iter().all(|y| f64::from(*y) == f64::from(sum as f32 * int8.scale)),
                    "{level}, {batch}: {y:?}"
                );
            }
        }
    }

    fn numbers(len: usize, by: usize) -> impl Iterator<Item = i32> {
        (0..len).map(move |i| (i * by % 251) as i32 - 125)
    }

    #[test]
    fn a_convolution_is_its_definition_to_the_bit() {
        let range = Range { least: -1.0, largest: 1.5 };
        // Few and many pixels in a row of all images, words of channels and of pixels, and groups of images that are full
        // and not.
        for (batch, channels, [height, width], kernel, padding, stride) in [
            (3, 1, [9, 8], [5, 5], 2, 1),
            (1, 1, [9, 28], [5, 5], 0, 1),
            (3, 3, [7, 6], [3, 2], 1, 2),
            (1, 3, [5, 5], [3, 3], 1, 2),
            (3, 4, [6, 7], [3, 3], 1, 1),
            (2, 8, [5, 9], [2, 3], 0, 2),
            (3, 8, [6, 6], [1, 1], 0, 2),
            (2, 6, [5, 5], [1, 1], 1, 3),
            (1, 8, [4, 4], [1, 1], 0, 1),
            (33, 20, [4, 4], [3, 3], 1, 1),
            (9, 2, [3, 30], [3, 7], 3, 1),
        ] {
            let (outputs, pixels) = (7, kernel[0] * kernel[1]);
            let out = [0, 1].map(|axis| ([height, width][axis] + 2 * padding - kernel[axis]) / stride + 1);
            let row = channels * pixels;
            let levels: Vec<i8> = numbers(outputs * row, 37).map(|level| level as i8).collect();
            let scales: Vec<f32> = (1..=outputs).map(|output| 0.01 * output as f32).collect();
            let bias: Vec<f32> = (0..outputs).map(|output| output as f32 - 3.0).collect();
            let x: Vec<f32> = numbers(channels * batch * height * width, 91).map(|x| x as f32 / 100.0).collect();
            let int8 = Int8::new(&levels, &scales, row, kernel, range);
            let input = [channels, height, width];
            let output = [outputs, out[0], out[1]];
            let convolution = Convolution { input, output, kernel, padding, stride, groups: 1, batch };
            let mut y = vec![f32::NAN; outputs * batch * out[0] * out[1]];
            int8.convolve(&convolution, &x, &bias, &mut y);

            let rounded = int8.rounded(&x);
            let level = |channel: usize, image: usize, row: usize, column: usize| {
                let (row, column) = (row.wrapping_sub(padding), column.wrapping_sub(padding));
                let is_inside = row < height && column < width;
                let at = ((channel * batch + image) * height + row.min(height)) * width + column.min(width);
                if is_inside { i32::from(rounded[at]) } else { i32::from(int8.zero) }
            };
            for (at, &y) in y.iter().enumerate() {
                let (ox, oy) = (at % out[1], at / out[1] % out[0]);
                let (image, output) = (at / (out[0] * out[1]) % batch, at / (out[0] * out[1] * batch));
                let mut sum = 0;
                for (place, &weight) in levels[output * row..(output + 1) * row].iter().enumerate() {
                    let (channel, ky, kx) = (place / pixels, place % pixels / kernel[1], place % kernel[1]);
                    let here = level(channel, image, oy * stride + ky, ox * stride + kx);
                    sum += i32::from(weight) * (here - i32::from(int8.zero));
                }
                let expected = sum as f32 * (int8.scale * scales[output]) + bias[output];
                assert_eq!(y, expected, "{channels} channels, {kernel:?}, output {at}");
            }
        }
    }
}

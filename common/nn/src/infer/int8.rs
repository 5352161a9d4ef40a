//! Layers whose weights have 8 bits and whose inputs are rounded to 8 bits on the way: sums of integer products, exact,
//! and the same on every machine.
//!
//! An input x is the level round(x/s) + z of 0 to 255, with s and z from the range that was measured; a weight is its
//! level times its output's scale. So an output is s·scale·(Σ w·q − z·Σ w) + bias.

mod kernel;

use super::Range;
use super::convolution::Convolution;
use crate::ops::{ByteProducts, transpose, vectorised};
use kernel::products;
use std::iter::repeat_n;

/// Rows of 8-bit weights.
#[derive(Debug)]
pub(super) struct Int8 {
    levels: Levels,
    scales: Vec<f32>,
    /// For each row its sum.
    sums: Vec<i32>,
    /// Of the inputs.
    scale: f32,
    zero: u8,
}

/// Levels of the weights, each row the kernel's pixels with their channels side by side.
#[derive(Debug)]
enum Levels {
    /// Of a fully connected layer: row after row, filled up with zeros to a multiple of
    /// [`kernel::LANES`].
    Rows { levels: Vec<i8>, padded: usize },
    /// Of a convolution: words of four levels, for each place in a row those of all rows side by side; rows are filled up
    /// with zeros to whole words.
    Words { words: Vec<u32>, depth: usize },
}

impl Levels {
    fn new(rows: &[Vec<i8>], is_convolution: bool) -> Self {
        let row = rows.first().map_or(0, Vec::len);
        if !is_convolution {
            let padded = row.next_multiple_of(kernel::LANES);
            let filled = rows.iter().flat_map(|row| row.iter().copied().chain(repeat_n(0, padded - row.len())));
            return Self::Rows { levels: filled.collect(), padded };
        }
        let depth = row.div_ceil(WORD);
        let word = |row: &[i8], at: usize| {
            let level = |byte: usize| row.get(WORD * at + byte).map_or(0, |&level: &i8| level.cast_unsigned());
            u32::from_le_bytes(std::array::from_fn(level))
        };
        Self::Words { words: (0..depth).flat_map(|at| rows.iter().map(move |row| word(row, at))).collect(), depth }
    }

    /// Bytes of a row with the zeros.
    const fn padded(&self) -> usize {
        match self {
            Self::Rows { padded, .. } => *padded,
            Self::Words { depth, .. } => WORD * *depth,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Rows { levels, .. } => levels.len(),
            Self::Words { words, .. } => WORD * words.len(),
        }
    }
}

impl Int8 {
    /// `levels` are [outputs, channels, pixels of the kernel], or [outputs, features] without one.
    pub(super) fn new(levels: &[i8], scales: &[f32], row: usize, kernel: Option<usize>, range: Range) -> Self {
        let pixels = kernel.unwrap_or(1);
        let rows: Vec<Vec<i8>> = levels
            .chunks_exact(row)
            .map(|row| (0..pixels).flat_map(|pixel| row.iter().skip(pixel).step_by(pixels).copied()).collect())
            .collect();
        let sums = rows.iter().map(|row| row.iter().map(|&level| i32::from(level)).sum()).collect();
        let (scale, zero) = range.scale_and_zero();
        Self { levels: Levels::new(&rows, kernel.is_some()), scales: scales.to_vec(), sums, scale, zero }
    }

    pub(super) fn bytes(&self) -> usize {
        self.levels.bytes() + 4 * self.scales.len() + 4 * self.sums.len()
    }

    /// See [`super::matrix::Matrix::multiply`].
    pub(super) fn multiply_columns(&self, x: &[f32], count: usize, bias: &[f32], y: &mut [f32], stride: usize) {
        let padded = self.levels.padded();
        let mut patches = vec![0; count * padded];
        transpose(&self.rounded(x), count, &mut patches, padded);
        let (mut sums, mut words_of_patches, mut results) = (Vec::new(), Vec::new(), Vec::new());
        let factors = self.factors();
        for (first, patches) in (0..).step_by(COLUMNS).zip(patches.chunks(COLUMNS * padded)) {
            let columns = patches.len() / padded;
            let y = &mut y[first..];
            match &self.levels {
                Levels::Rows { levels, padded } => {
                    sums.resize(self.sums.len() * columns, 0);
                    products(levels, patches, *padded, &mut sums);
                    let rows = sums.chunks_exact(columns).zip(y.chunks_mut(stride)).zip(factors.iter().zip(bias));
                    for ((sums, y), (&(scale, offset), bias)) in rows {
                        for (y, &sum) in y.iter_mut().zip(sums) {
                            *y = (sum - offset) as f32 * scale + bias;
                        }
                    }
                }
                Levels::Words { words, depth } => {
                    words_of(patches, &mut words_of_patches);
                    let (a, outputs) = (&*words_of_patches, factors.len());
                    let (rows, a_row, depth) = (columns, *depth, *depth);
                    let products =
                        ByteProducts { rows, columns: outputs, depth, segments: 1, a, a_row, a_segment: 0, b: words };
                    self.finish(products, (&factors, bias), &mut results, (y, stride));
                }
            }
        }
    }

    /// For each output the scale of its sums and what they are too large by.
    fn factors(&self) -> Vec<(f32, i32)> {
        let zero = i32::from(self.zero);
        self.scales.iter().zip(&self.sums).map(|(scale, sum)| (self.scale * scale, zero * sum)).collect()
    }

    /// Takes products whose columns are the outputs, and writes those of each output side by side, `stride` after those of
    /// the one before.
    fn finish(
        &self,
        products: ByteProducts<'_>,
        (factors, bias): (&[(f32, i32)], &[f32]),
        results: &mut Vec<f32>,
        (y, stride): (&mut [f32], usize),
    ) {
        let outputs = products.columns;
        let mut sums = vec![0; products.rows * outputs];
        products.run(&mut sums);
        results.resize(sums.len(), 0.0);
        vectorised(
            #[inline(always)]
            || {
                for (results, sums) in results.chunks_exact_mut(outputs).zip(sums.chunks_exact(outputs)) {
                    for ((result, &sum), ((scale, offset), bias)) in
                        results.iter_mut().zip(sums).zip(factors.iter().zip(bias))
                    {
                        *result = (sum.cast_signed() - offset) as f32 * scale + bias;
                    }
                }
            },
        );
        // Not by square tiles: outputs are so far apart that lines of many of them would be in each other's way.
        for (output, y) in y.chunks_mut(stride).take(outputs).enumerate() {
            for (y, &result) in y.iter_mut().zip(results[output..].iter().step_by(outputs)) {
                *y = result;
            }
        }
    }

    /// A convolution without groups, an output row at a time: from the image itself where a pixel's channels are whole
    /// words, so that what lies side by side under the kernel does so in a row of weights, and from patches elsewhere.
    pub(super) fn convolve(&self, convolution: &Convolution, x: &[f32], bias: &[f32], y: &mut [f32]) {
        let Levels::Words { words, depth } = &self.levels else { unreachable!("the weights are a convolution's") };
        let ([channels, height, width], [outputs, out_height, out_width]) = (convolution.input, convolution.output);
        let Convolution { kernel: [kernel_rows, kernel_columns], padding, stride, batch, .. } = *convolution;
        let (area, out_area) = (height * width, out_height * out_width);
        let levels = self.rounded(x);
        // The image with its channels side by side and the level of zero around it.
        let pitch = (width + 2 * padding) * channels;
        let mut pixels = vec![self.zero; (height + 2 * padding) * pitch + SLACK];
        let run = kernel_columns * channels;
        let is_whole = channels.is_multiple_of(WORD);
        let (mut image_words, mut patches) = (Vec::new(), vec![0; out_width * depth * WORD + SLACK]);
        let (factors, mut results) = (self.factors(), Vec::new());
        for image in 0..batch {
            for row in 0..height {
                for channel in 0..channels {
                    let from = &levels[(channel * batch + image) * area + row * width..][..width];
                    let to = pixels[(row + padding) * pitch + padding * channels + channel..].iter_mut();
                    to.step_by(channels).zip(from).for_each(|(to, &level)| *to = level);
                }
            }
            if is_whole {
                words_of(&pixels, &mut image_words);
            }
            for oy in 0..out_height {
                let top = oy * stride * pitch;
                if !is_whole {
                    for ox in 0..out_width {
                        for ky in 0..kernel_rows {
                            let from = &pixels[top + ky * pitch + ox * stride * channels..];
                            let to = &mut patches[ox * depth * WORD + ky * run..];
                            // What goes beyond the run is written again, or meets weights of zero.
                            match (from.first_chunk::<SLACK>(), to.first_chunk_mut::<SLACK>()) {
                                (Some(from), Some(to)) if run <= SLACK => *to = *from,
                                _ => to[..run].copy_from_slice(&from[..run]),
                            }
                        }
                    }
                    words_of(&patches, &mut image_words);
                }
                let (first, a_row, a_segment, depth, segments) = if is_whole {
                    (top / WORD, stride * channels / WORD, pitch / WORD, run / WORD, kernel_rows)
                } else {
                    (0, *depth, 0, *depth, 1)
                };
                let a = &image_words[first..];
                let products =
                    ByteProducts { rows: out_width, columns: outputs, depth, segments, a, a_row, a_segment, b: words };
                let first = image * out_area + oy * out_width;
                self.finish(products, (&factors, bias), &mut results, (&mut y[first..], batch * out_area));
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

/// The bytes as words, the last of which may be dropped.
fn words_of(bytes: &[u8], words: &mut Vec<u32>) {
    words.clear();
    words.extend(bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)));
}

const ROUNDER: f32 = 12_582_912.0;
/// Bytes in a word.
const WORD: usize = 4;
/// Bytes that are copied in one go where fewer are wanted.
const SLACK: usize = 16;
/// Columns that are multiplied at a time: they stay in the first-level cache for rows of a few hundred.
const COLUMNS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, by: usize) -> impl Iterator<Item = i32> {
        (0..len).map(move |i| (i * by % 251) as i32 - 125)
    }

    #[test]
    fn a_convolution_is_its_definition_to_the_bit() {
        let range = Range { least: -1.0, largest: 1.5 };
        for (channels, [height, width], kernel, padding, stride) in [
            (1, [9, 8], [5, 5], 2, 1),
            (3, [7, 6], [3, 2], 1, 2),
            (4, [6, 7], [3, 3], 1, 1),
            (8, [5, 9], [2, 3], 0, 2),
            (8, [6, 6], [1, 1], 0, 2),
            (20, [4, 4], [3, 3], 1, 1),
        ] {
            let (batch, outputs, pixels) = (3, 7, kernel[0] * kernel[1]);
            let out = [0, 1].map(|axis| ([height, width][axis] + 2 * padding - kernel[axis]) / stride + 1);
            let row = channels * pixels;
            let levels: Vec<i8> = numbers(outputs * row, 37).map(|level| level as i8).collect();
            let scales: Vec<f32> = (1..=outputs).map(|output| 0.01 * output as f32).collect();
            let bias: Vec<f32> = (0..outputs).map(|output| output as f32 - 3.0).collect();
            let x: Vec<f32> = numbers(channels * batch * height * width, 91).map(|x| x as f32 / 100.0).collect();
            let int8 = Int8::new(&levels, &scales, row, Some(pixels), range);
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

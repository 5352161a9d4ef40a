//! Convolutions as products with the patches of an image.

use super::matrix::{Matrix, Runs};

/// All extents of a convolution; images are [channels, rows, columns].
pub(super) struct Convolution {
    pub(super) input: [usize; 3],
    pub(super) output: [usize; 3],
    pub(super) kernel: [usize; 2],
    pub(super) padding: usize,
    pub(super) stride: usize,
    pub(super) groups: usize,
    pub(super) batch: usize,
}

impl Convolution {
    pub(super) fn run(&self, matrix: &Matrix, bias: &[f32], x: &[f32]) -> Vec<f32> {
        let ([channels, height, width], [outputs, out_height, out_width]) = (self.input, self.output);
        let (area, out_area) = (height * width, out_height * out_width);
        let mut y = vec![0.0; outputs * self.batch * out_area];
        if self.groups > 1 {
            let Matrix::Dense { values, .. } = matrix else { unreachable!("grouped layers are dense") };
            self.grouped(values, bias, x, &mut y);
            return y;
        }
        let is_pointwise = self.kernel == [1, 1] && self.padding == 0 && self.stride == 1;
        if let Matrix::Int8(int8, _) = matrix {
            // No pixel sees another: images are then rows of one.
            let (input, output) = ([channels, self.batch, area], [outputs, self.batch, area]);
            let rows = Self { input, output, batch: 1, ..*self };
            int8.convolve(if is_pointwise { &rows } else { self }, x, bias, &mut y);
            return y;
        }
        if is_pointwise {
            let count = self.batch * area;
            matrix.multiply(x, count, bias, &mut y, count);
            return y;
        }
        if self.stride == 1 {
            self.shifts(matrix, bias, x, &mut y);
            return y;
        }
        let mut patches = vec![0.0; channels * self.kernel[0] * self.kernel[1] * out_area];
        for image in 0..self.batch {
            let mut rows = patches.chunks_exact_mut(out_area);
            for channel in 0..channels {
                let from = &x[(channel * self.batch + image) * area..][..area];
                for ky in 0..self.kernel[0] {
                    for kx in 0..self.kernel[1] {
                        let row = rows.next().expect("a row for each pixel of the kernel");
                        self.shifted(from, [ky, kx], row);
                    }
                }
            }
            matrix.multiply(&patches, out_area, bias, &mut y[image * out_area..], self.batch * out_area);
        }
        y
    }

    /// Without patches: what a pixel of the kernel sees is the image itself, from another place on. Each row of results is
    /// then as long as an input row, and what is computed beyond its end is not used.
    fn shifts(&self, matrix: &Matrix, bias: &[f32], x: &[f32], y: &mut [f32]) {
        let ([channels, ..], [_, out_height, out_width]) = (self.input, self.output);
        let (x, [height, width]) = self.padded(x);
        let area = height * width;
        let mut offsets = Vec::with_capacity(channels * self.kernel[0] * self.kernel[1]);
        for channel in 0..channels {
            for ky in 0..self.kernel[0] {
                let start = channel * self.batch * area + ky * width;
                offsets.extend((0..self.kernel[1]).map(|kx| (start + kx) as u32));
            }
        }
        let len = ((out_height - 1) * width + out_width).next_multiple_of(SLACK);
        let mut wide = vec![0.0; bias.len() * len];
        for image in 0..self.batch {
            let runs = Runs { x: &x[image * area..], offsets: &offsets, len };
            matrix.accumulate(&runs, bias, &mut wide, len);
            for (output, rows) in wide.chunks_exact(len).enumerate() {
                let y = &mut y[(output * self.batch + image) * out_height * out_width..];
                for (y, row) in y.chunks_exact_mut(out_width).zip(rows.chunks(width)).take(out_height) {
                    y.copy_from_slice(&row[..out_width]);
                }
            }
        }
    }

    /// The images with the zeros around them, and their rows and columns. After the last there is room to read on.
    fn padded(&self, x: &[f32]) -> (Vec<f32>, [usize; 2]) {
        let ([_, height, width], padding) = (self.input, self.padding);
        let (new_height, new_width) = (height + 2 * padding, width + 2 * padding);
        let area = new_height * new_width;
        let mut padded = vec![0.0; x.len() / (height * width) * area + SLACK];
        for (from, to) in x.chunks_exact(height * width).zip(padded.chunks_exact_mut(area)) {
            let rows = to[padding * new_width..].chunks_exact_mut(new_width);
            for (from, to) in from.chunks_exact(width).zip(rows) {
                to[padding..padding + width].copy_from_slice(from);
            }
        }
        (padded, [new_height, new_width])
    }

    /// What a pixel of the kernel sees, for all output pixels.
    fn shifted(&self, from: &[f32], [ky, kx]: [usize; 2], to: &mut [f32]) {
        let [_, _, width] = self.input;
        let [_, _, out_width] = self.output;
        for (oy, row) in to.chunks_exact_mut(out_width).enumerate() {
            let Some(iy) = self.inside(oy, ky, self.input[1]) else {
                row.fill(0.0);
                continue;
            };
            let from = &from[iy * width..][..width];
            let (start, end) = self.valid(kx);
            row[..start].fill(0.0);
            row[end..].fill(0.0);
            if start < end {
                let first = start * self.stride + kx - self.padding;
                for (to, from) in row[start..end].iter_mut().zip(from[first..].iter().step_by(self.stride)) {
                    *to = *from;
                }
            }
        }
    }

    /// The input row or column under a pixel of the kernel, unless it lies in the padding.
    fn inside(&self, out: usize, kernel: usize, extent: usize) -> Option<usize> {
        (out * self.stride + kernel).checked_sub(self.padding).filter(|&place| place < extent)
    }

    /// The output columns for which a column of the kernel lies in the image.
    fn valid(&self, kx: usize) -> (usize, usize) {
        let (width, out_width) = (self.input[2], self.output[2]);
        let start = self.padding.saturating_sub(kx).div_ceil(self.stride);
        let end = (width + self.padding).saturating_sub(kx).div_ceil(self.stride);
        (start.min(out_width), end.min(out_width).max(start.min(out_width)))
    }

    /// Each group by itself, its sums straight from the image.
    fn grouped(&self, weights: &[f32], bias: &[f32], x: &[f32], y: &mut [f32]) {
        let ([channels, height, width], [outputs, out_height, out_width]) = (self.input, self.output);
        let (area, out_area) = (height * width, out_height * out_width);
        let (inputs, per_group) = (channels / self.groups, outputs / self.groups);
        let taps = self.kernel[0] * self.kernel[1];
        for (plane, y) in y.chunks_exact_mut(out_area).enumerate() {
            let (output, image) = (plane / self.batch, plane % self.batch);
            y.fill(bias[output]);
            for input in 0..inputs {
                let channel = output / per_group * inputs + input;
                let from = &x[(channel * self.batch + image) * area..][..area];
                let weights = &weights[(output * inputs + input) * taps..][..taps];
                for (tap, &weight) in weights.iter().enumerate() {
                    let (ky, kx) = (tap / self.kernel[1], tap % self.kernel[1]);
                    let (start, end) = self.valid(kx);
                    for (oy, row) in y.chunks_exact_mut(out_width).enumerate() {
                        let Some(iy) = self.inside(oy, ky, height) else { continue };
                        if start == end {
                            continue;
                        }
                        let from = &from[iy * width + start * self.stride + kx - self.padding..(iy + 1) * width];
                        for (sum, pixel) in row[start..end].iter_mut().zip(from.iter().step_by(self.stride)) {
                            *sum += weight * pixel;
                        }
                    }
                }
            }
        }
    }
}

/// Runs of pixels are filled up to a multiple of this, the width of the narrowest tile of dense rows: what is left over
/// at an end costs more than a whole tile.
const SLACK: usize = 16;

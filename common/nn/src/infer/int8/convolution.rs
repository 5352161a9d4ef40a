//! Convolutions of 8-bit levels, four of them to a word.

use crate::infer::convolution::Convolution;
use crate::ops::{ByteProducts, vectorised};
use std::array;

/// The weights of a convolution.
#[derive(Debug)]
pub(super) struct Words {
    /// For each row of the kernel, part and step, those of all outputs.
    words: Vec<u32>,
    kernel: [usize; 2],
    channels: usize,
    form: Form,
}

/// Which four levels a word has.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// Those of four channels at a pixel: a part is four channels, a step a column of the kernel.
    Channels,
    /// Those of four pixels side by side: a part is a channel, a step four columns of the kernel.
    Pixels,
}

/// How sums become results.
#[derive(Clone, Copy)]
pub(super) struct Scaling<'a> {
    /// For each output the scale of its sums, and what they are too large by.
    pub(super) factors: &'a [(f32, i32)],
    pub(super) bias: &'a [f32],
}

impl Words {
    /// Of rows [channels, pixels of the kernel].
    pub(super) fn new(rows: &[&[i8]], kernel: [usize; 2]) -> Self {
        let [kernel_rows, kernel_columns] = kernel;
        let channels = rows.first().map_or(0, |row| row.len()) / (kernel_rows * kernel_columns);
        let by_channels = channels.div_ceil(WORD) * kernel_columns;
        let form = if by_channels <= channels * kernel_columns.div_ceil(WORD) { Form::Channels } else { Form::Pixels };
        let mut words = Self { words: Vec::new(), kernel, channels, form };
        let [parts, steps] = [words.parts(), words.steps()];
        let level = |row: &[i8], channel: usize, ky: usize, kx: usize| {
            let is_there = channel < channels && kx < kernel_columns;
            if is_there { row[(channel * kernel_rows + ky) * kernel_columns + kx].cast_unsigned() } else { 0 }
        };
        for ky in 0..kernel_rows {
            for (part, step) in (0..parts).flat_map(|part| (0..steps).map(move |step| (part, step))) {
                words.words.extend(rows.iter().map(|row| {
                    u32::from_le_bytes(array::from_fn(|byte| match form {
                        Form::Channels => level(row, WORD * part + byte, ky, step),
                        Form::Pixels => level(row, part, ky, WORD * step + byte),
                    }))
                }));
            }
        }
        words
    }

    pub(super) fn bytes(&self) -> usize {
        WORD * self.words.len()
    }

    fn parts(&self) -> usize {
        match self.form {
            Form::Channels => self.channels.div_ceil(WORD),
            Form::Pixels => self.channels,
        }
    }

    fn steps(&self) -> usize {
        match self.form {
            Form::Channels => self.kernel[1],
            Form::Pixels => self.kernel[1].div_ceil(WORD),
        }
    }

    /// The convolution of `levels`, laid out as the engine's values are, with the level `zero` around images. An output
    /// row of several images at a time: images lie side by side, so that vectors are filled, and the pixels between them
    /// are computed for nothing.
    pub(super) fn convolve(&self, of: &Convolution, levels: &[u8], zero: u8, scaling: Scaling<'_>, y: &mut [f32]) {
        let &Convolution { input: [_, height, width], output, padding, stride, batch, .. } = of;
        let [outputs, out_height, out_width] = output;
        let (full, [kernel_rows, kernel_columns]) = (width + 2 * padding, self.kernel);
        // Where a kernel is one column wide, those between the outputs are of no use.
        let every = if kernel_columns == 1 { stride } else { 1 };
        let (pitch, apart) = (full.div_ceil(every), stride / every);
        let group = (COLUMNS / pitch).clamp(1, batch.max(1));
        let parts = self.parts();
        let mut sheet = vec![0; (height + 2 * padding) * parts * group * pitch];
        let mut sums = vec![0; outputs * group * pitch];
        for first in (0..batch).step_by(group) {
            let images = group.min(batch - first);
            let line = images * pitch;
            self.lay_out(of, levels, zero, (first, images, every), &mut sheet);
            let pixels = (images - 1) * pitch + (out_width - 1) * apart + 1;
            let sums = &mut sums[..outputs * pixels];
            for oy in 0..out_height {
                let products = ByteProducts {
                    outputs,
                    pixels,
                    depth: self.steps(),
                    segments: kernel_rows * parts,
                    weights: &self.words,
                    image: &sheet[oy * stride * parts * line..],
                    step: if let Form::Channels = self.form { 1 } else { WORD },
                    segment: line,
                };
                let row = Row { pixels, pitch, apart, out_width };
                let first = (first * out_height + oy) * out_width;
                let (of_image, of_output) = (out_height * out_width, batch * out_height * out_width);
                let places = (0..outputs).map(|output| first + output * of_output);
                if pixels < FEW {
                    products.by_pixel(sums);
                    scaling.write_by_pixel(sums, (outputs, row), places, (images, of_image), y);
                } else {
                    products.by_output(sums);
                    scaling.write_by_output(sums, row, places, (images, of_image), y);
                }
            }
        }
    }

    /// Rows of the images with what is around them as words: row after row, part after part, image after image.
    fn lay_out(
        &self,
        of: &Convolution,
        levels: &[u8],
        zero: u8,
        (first, images, every): (usize, usize, usize),
        sheet: &mut [u32],
    ) {
        let &Convolution { input: [channels, height, width], padding, batch, .. } = of;
        let (full, parts) = (width + 2 * padding, self.parts());
        let pitch = full.div_ceil(every);
        if let (Form::Channels, [1, 1], 0) = (self.form, [height * width, batch], padding) {
            // One example of a fully connected layer: its levels are side by side already.
            for (word, levels) in sheet.iter_mut().zip(levels.chunks(WORD)) {
                *word = u32::from_le_bytes(array::from_fn(|byte| levels.get(byte).copied().unwrap_or(zero)));
            }
            return;
        }
        let blank = u32::from_le_bytes([zero; WORD]);
        let (blanks, mut padded, mut wide) = (vec![zero; width], vec![zero; full + WORD], vec![blank; full]);
        let mut words = sheet.chunks_exact_mut(pitch);
        vectorised(
            #[inline(always)]
            || {
                for row in 0..height + 2 * padding {
                    let row = row.checked_sub(padding).filter(|&row| row < height);
                    for (part, image) in (0..parts).flat_map(|part| (first..first + images).map(move |i| (part, i))) {
                        let to = words.next().expect("the sheet has room for all rows");
                        let Some(row) = row else {
                            to.fill(blank);
                            continue;
                        };
                        let line = |channel: usize| match channel < channels {
                            true => &levels[((channel * batch + image) * height + row) * width..][..width],
                            false => &*blanks,
                        };
                        let all = if every == 1 { &mut *to } else { &mut wide[..] };
                        match self.form {
                            Form::Channels => {
                                let at = WORD * part;
                                let four = [line(at), line(at + 1), line(at + 2), line(at + 3)];
                                all[..padding].fill(blank);
                                combine(four, &mut all[padding..padding + width]);
                                all[padding + width..].fill(blank);
                            }
                            Form::Pixels => {
                                padded[padding..padding + width].copy_from_slice(line(part));
                                let from = |byte: usize| &padded[byte..byte + full];
                                combine([from(0), from(1), from(2), from(3)], all);
                            }
                        }
                        if every > 1 {
                            to.iter_mut().zip(wide.iter().step_by(every)).for_each(|(to, word)| *to = *word);
                        }
                    }
                }
            },
        );
    }
}

/// A row of results in a row of sums.
#[derive(Clone, Copy)]
struct Row {
    /// Sums.
    pixels: usize,
    /// From one image to the next.
    pitch: usize,
    /// From one result to the next.
    apart: usize,
    /// Results of an image.
    out_width: usize,
}

impl Scaling<'_> {
    /// From a row of sums for each output. `places` are where the first image's results of each go, and the next image's
    /// are `of_image` behind.
    fn write_by_output(
        self,
        sums: &[u32],
        Row { pixels, pitch, apart, out_width }: Row,
        places: impl Iterator<Item = usize>,
        (images, of_image): (usize, usize),
        y: &mut [f32],
    ) {
        vectorised(
            #[inline(always)]
            || {
                let outputs = places.zip(sums.chunks_exact(pixels)).zip(self.factors.iter().zip(self.bias));
                for ((place, sums), (&(scale, offset), &bias)) in outputs {
                    let result = |sum: u32| (sum.cast_signed() - offset) as f32 * scale + bias;
                    for image in 0..images {
                        let y = &mut y[place + image * of_image..][..out_width];
                        let sums = &sums[image * pitch..];
                        if apart == 1 {
                            y.iter_mut().zip(&sums[..out_width]).for_each(|(y, &sum)| *y = result(sum));
                        } else {
                            y.iter_mut().zip(sums.iter().step_by(apart)).for_each(|(y, &sum)| *y = result(sum));
                        }
                    }
                }
            },
        );
    }

    /// The same from a row of sums for each pixel.
    fn write_by_pixel(
        self,
        sums: &[u32],
        (outputs, Row { pitch, apart, out_width, .. }): (usize, Row),
        places: impl Iterator<Item = usize>,
        (images, of_image): (usize, usize),
        y: &mut [f32],
    ) {
        for (output, (place, (&(scale, offset), &bias))) in places.zip(self.factors.iter().zip(self.bias)).enumerate() {
            for (image, column) in (0..images).flat_map(|image| (0..out_width).map(move |column| (image, column))) {
                let sum = sums[(image * pitch + column * apart) * outputs + output].cast_signed();
                y[place + image * of_image + column] = (sum - offset) as f32 * scale + bias;
            }
        }
    }
}

/// Four levels to a word.
#[inline(always)]
fn combine([a, b, c, d]: [&[u8]; WORD], to: &mut [u32]) {
    for ((((to, &a), &b), &c), &d) in to.iter_mut().zip(a).zip(b).zip(c).zip(d) {
        *to = u32::from_le_bytes([a, b, c, d]);
    }
}

/// Levels in a word.
const WORD: usize = 4;
/// Columns of images that are laid side by side.
const COLUMNS: usize = 128;
/// Fewer pixels than these fill a vector worse than outputs do.
const FEW: usize = 12;

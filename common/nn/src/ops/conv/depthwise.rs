//! Convolution of each channel with a kernel of its own.
//!
//! Every step is elementwise over channels, which lie side by side, so a few of them fill a vector while the pixels
//! of a row go by; the kernel's weights for them stay in registers.

use super::frame::Frame;
use super::{Extent, Gradients, Wanted};
use crate::ops::kernel::{Float, vectorised};

/// Channels that are taken together: a vector of f32 on most machines.
const LANES: usize = 8;

/// Pixels of a kernel that go by together, so that their weights stay in registers: all of a 3×3 one, a row of a 5×5
/// one, and what remains of others one by one.
const RUNS: [usize; 3] = [9, 5, 1];

impl Extent {
    pub(super) fn depthwise_forward<T: Float>(&self, x: &[T], w: &[T], b: &[T], rectify: bool) -> Vec<T> {
        let filters = self.by_pixel(w);
        let mut frame = Frame::new(self.height, self.width, self.channels, self.padding);
        let mut y = Vec::with_capacity(self.batch * self.out_len());
        for x in x.chunks_exact(self.in_len()) {
            frame.fill(x);
            self.correlate(&frame, &filters, b, rectify, &mut y);
        }
        y
    }

    pub(super) fn depthwise_backward<T: Float>(
        &self,
        x: &[T],
        w: &[T],
        y: Option<&[T]>,
        dy: &[T],
        wanted: Wanted,
    ) -> Gradients<T> {
        let filters = self.by_pixel(w);
        let turned: Vec<T> = filters.chunks_exact(self.channels).rev().flatten().copied().collect();
        let around = if wanted.input && self.is_correlation() { self.opposite_padding() } else { [0, 0] };
        // The convolution whose result is the input's gradient.
        let back = Self {
            height: self.out_height,
            width: self.out_width,
            out_height: self.height,
            out_width: self.width,
            padding: around,
            ..*self
        };
        let no_bias = vec![T::zero(); self.channels];
        let mut frame = Frame::new(self.height, self.width, self.channels, self.padding);
        let mut dy_frame = Frame::new(self.out_height, self.out_width, self.channels, around);
        let mut folded = Frame::new(self.height, self.width, self.channels, self.padding);
        let mut dw = vec![T::zero(); filters.len()];
        let mut db = wanted.bias.then(|| vec![T::zero(); self.channels]);
        let mut dx = Vec::with_capacity(if wanted.input { x.len() } else { 0 });
        for (index, (x, dy)) in x.chunks_exact(self.in_len()).zip(dy.chunks_exact(self.out_len())).enumerate() {
            frame.fill(x);
            match y {
                Some(y) => dy_frame.fill_where_positive(dy, &y[index * self.out_len()..][..self.out_len()]),
                None => dy_frame.fill(dy),
            }
            if let Some(db) = &mut db {
                dy_frame.add_columns_to(db);
            }
            self.add_weight_gradient(&frame, &dy_frame, &mut dw);
            if !wanted.input {
                continue;
            }
            if self.is_correlation() {
                back.correlate(&dy_frame, &turned, &no_bias, false, &mut dx);
            } else {
                folded.data.fill(T::zero());
                self.fold(&dy_frame, &filters, &mut folded);
                for row in 0..self.height {
                    let start = folded.first() + row * folded.row();
                    dx.extend_from_slice(&folded.data[start..start + self.width * self.channels]);
                }
            }
        }
        let dw = (0..self.channels).flat_map(|c| dw.iter().skip(c).step_by(self.channels)).copied().collect();
        Gradients { x: wanted.input.then_some(dx), w: dw, b: db }
    }

    /// The filters [c][pixel] as [pixel][c].
    fn by_pixel<T: Float>(&self, w: &[T]) -> Vec<T> {
        (0..self.area()).flat_map(|pixel| w.iter().skip(pixel).step_by(self.area())).copied().collect()
    }

    /// Calls the function of the right length for runs of a kernel's pixels, with the run's first and where in a frame
    /// its pixels lie, from that of the kernel's first.
    #[inline(always)]
    fn for_each_run<T: Float>(&self, frame: &Frame<T>, mut run: impl Run<T>) {
        let offset = |pixel: usize| pixel / self.kernel[1] * frame.row() + pixel % self.kernel[1] * self.channels;
        let mut first = 0;
        while first < self.area() {
            let rest = self.area() - first;
            if rest == RUNS[0] {
                self.for_all_channels::<T, { RUNS[0] }>(first, std::array::from_fn(|i| offset(first + i)), &mut run);
                first += RUNS[0];
            } else if rest >= RUNS[1] {
                self.for_all_channels::<T, { RUNS[1] }>(first, std::array::from_fn(|i| offset(first + i)), &mut run);
                first += RUNS[1];
            } else {
                self.for_all_channels::<T, { RUNS[2] }>(first, [offset(first)], &mut run);
                first += RUNS[2];
            }
        }
    }

    /// A vector of channels at a time, and those that fill none one by one.
    #[inline(always)]
    fn for_all_channels<T, const LEN: usize>(&self, first: usize, offsets: [usize; LEN], run: &mut impl Run<T>) {
        let whole = self.channels - self.channels % LANES;
        for channel in (0..whole).step_by(LANES) {
            run.run::<LEN, LANES>(first, offsets, channel);
        }
        for channel in whole..self.channels {
            run.run::<LEN, 1>(first, offsets, channel);
        }
    }

    /// Appends the result for one image: `filters` are [pixel][c].
    fn correlate<T: Float>(&self, frame: &Frame<T>, filters: &[T], bias: &[T], rectify: bool, y: &mut Vec<T>) {
        let mut sums = vec![T::zero(); self.out_width * self.channels];
        vectorised(
            #[inline(always)]
            || {
                // Row by row through a short vector, so that the result's memory is written once.
                for row in 0..self.out_height {
                    let x = &frame.data[row * self.stride[0] * frame.row()..];
                    self.for_each_run(frame, Correlate { extent: self, x, filters, bias, y: &mut sums });
                    if rectify {
                        for y in &mut sums {
                            *y = if *y < T::zero() { T::zero() } else { *y };
                        }
                    }
                    y.extend_from_slice(&sums);
                }
            },
        );
    }

    /// Adds Σ x·dy over the pixels of one image to `dw`, which is [pixel][c].
    fn add_weight_gradient<T: Float>(&self, frame: &Frame<T>, dy: &Frame<T>, dw: &mut [T]) {
        vectorised(
            #[inline(always)]
            || {
                for row in 0..self.out_height {
                    let x = &frame.data[row * self.stride[0] * frame.row()..];
                    let dy = &dy.data[dy.first() + row * dy.row()..][..self.out_width * self.channels];
                    self.for_each_run(frame, WeightGradient { extent: self, x, dy, dw });
                }
            },
        );
    }

    /// Adds to the padded image what each output pixel passes back to its window.
    fn fold<T: Float>(&self, dy: &Frame<T>, filters: &[T], folded: &mut Frame<T>) {
        let (channels, frame_row) = (self.channels, folded.row());
        vectorised(
            #[inline(always)]
            || {
                for row in 0..self.out_height {
                    let dy = &dy.data[dy.first() + row * dy.row()..][..self.out_width * channels];
                    for (column, dy) in dy.chunks_exact(channels).enumerate() {
                        let start = row * self.stride[0] * frame_row + column * self.stride[1] * channels;
                        for (pixel, w) in filters.chunks_exact(channels).enumerate() {
                            let at = start + pixel / self.kernel[1] * frame_row + pixel % self.kernel[1] * channels;
                            for (sum, (&dy, &w)) in folded.data[at..at + channels].iter_mut().zip(dy.iter().zip(w)) {
                                *sum += dy * w;
                            }
                        }
                    }
                }
            },
        );
    }
}

/// What is done for a run of a kernel's pixels.
trait Run<T> {
    /// For `LANES` channels from `channel` on; `first` is the run's first pixel, `offsets` where they lie in a frame.
    fn run<const LEN: usize, const LANES: usize>(&mut self, first: usize, offsets: [usize; LEN], channel: usize);
}

/// y = bias + the correlation of one row with the filters.
struct Correlate<'a, T> {
    extent: &'a Extent,
    /// The frame from the row on.
    x: &'a [T],
    filters: &'a [T],
    bias: &'a [T],
    y: &'a mut [T],
}

impl<T: Float> Run<T> for Correlate<'_, T> {
    #[inline(always)]
    fn run<const LEN: usize, const LANES: usize>(&mut self, first: usize, offsets: [usize; LEN], channel: usize) {
        let Extent { channels, stride, .. } = *self.extent;
        let weights: [[T; LANES]; LEN] = std::array::from_fn(|i| lanes(self.filters, (first + i) * channels + channel));
        let bias: [T; LANES] = lanes(self.bias, channel);
        for (column, y) in self.y.chunks_exact_mut(channels).enumerate() {
            let x = &self.x[column * stride[1] * channels + channel..];
            let mut sum = if first == 0 { bias } else { lanes(y, channel) };
            for (offset, weights) in offsets.into_iter().zip(&weights) {
                let x: [T; LANES] = lanes(x, offset);
                for (sum, (x, &w)) in sum.iter_mut().zip(x.into_iter().zip(weights)) {
                    *sum += x * w;
                }
            }
            y[channel..channel + LANES].copy_from_slice(&sum);
        }
    }
}

/// dw += Σ x·dy over one row of the result.
struct WeightGradient<'a, T> {
    extent: &'a Extent,
    /// The frame from the row on.
    x: &'a [T],
    dy: &'a [T],
    dw: &'a mut [T],
}

impl<T: Float> Run<T> for WeightGradient<'_, T> {
    #[inline(always)]
    fn run<const LEN: usize, const LANES: usize>(&mut self, first: usize, offsets: [usize; LEN], channel: usize) {
        let Extent { channels, stride, .. } = *self.extent;
        let mut sums: [[T; LANES]; LEN] = std::array::from_fn(|i| lanes(self.dw, (first + i) * channels + channel));
        for (column, dy) in self.dy.chunks_exact(channels).enumerate() {
            let x = &self.x[column * stride[1] * channels + channel..];
            let dy: [T; LANES] = lanes(dy, channel);
            for (offset, sums) in offsets.into_iter().zip(&mut sums) {
                let x: [T; LANES] = lanes(x, offset);
                for (sum, (x, dy)) in sums.iter_mut().zip(x.into_iter().zip(dy)) {
                    *sum += x * dy;
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            self.dw[(first + i) * channels + channel..][..LANES].copy_from_slice(sums);
        }
    }
}

/// `LANES` elements: with a length that the compiler knows they are a vector, with another a call.
#[inline(always)]
fn lanes<T: Float, const LANES: usize>(from: &[T], first: usize) -> [T; LANES] {
    let mut lanes = [T::zero(); LANES];
    lanes.copy_from_slice(&from[first..first + LANES]);
    lanes
}

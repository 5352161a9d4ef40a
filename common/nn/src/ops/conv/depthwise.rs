//! Convolution of each channel with a kernel of its own.
//!
//! Every step is elementwise over channels, which lie side by side, so a few of them fill a vector while the pixels
//! of a row go by; the kernel's weights for them stay in registers.

use super::frame::Frame;
use super::{Backward, Extent, Forward, Gradients, Wanted};
use crate::ops::kernel::{Float, vectorised};
use crate::ops::lanes::{load, store};

/// Channels that are taken together: a vector of f32 on most machines.
const LANES: usize = 8;

/// Pixels of a kernel that go by together, so that their weights stay in registers: all of a 3×3 one, a row of a 5×5
/// one, and what remains of others one by one.
const RUNS: [usize; 3] = [9, 5, 1];

pub(super) struct DepthwiseForward<'a, T> {
    extent: Extent,
    filters: Vec<T>,
    bias: &'a [T],
    rectify: bool,
    frame: Frame<T>,
}

impl<'a, T: Float> DepthwiseForward<'a, T> {
    pub(super) fn new(extent: &Extent, w: &[T], bias: &'a [T], rectify: bool) -> Self {
        let frame = Frame::new(extent.height, extent.width, extent.channels, extent.padding);
        Self { extent: *extent, filters: extent.by_pixel(w), bias, rectify, frame }
    }
}

impl<T: Float> Forward<T> for DepthwiseForward<'_, T> {
    fn append(&mut self, x: &[T], y: &mut Vec<T>) {
        for x in x.chunks_exact(self.extent.in_len()) {
            self.frame.fill(x);
            self.extent.correlate(&self.frame, &self.filters, self.bias, self.rectify, y);
        }
    }
}

pub(super) struct DepthwiseBackward<T> {
    extent: Extent,
    /// [pixel][c], like their gradient.
    filters: Vec<T>,
    dw: Option<Vec<T>>,
    db: Option<Vec<T>>,
    dx: Option<Vec<T>>,
    frame: Frame<T>,
    dy_frame: Frame<T>,
    way: Way<T>,
}

/// The way from the output's gradient to the input's.
enum Way<T> {
    /// Itself a convolution, with these filters and without bias.
    Correlation { extent: Extent, turned: Vec<T>, no_bias: Vec<T> },
    /// Added up in a padded image.
    Fold(Frame<T>),
}

impl<T: Float> DepthwiseBackward<T> {
    pub(super) fn new(extent: &Extent, w: &[T], wanted: Wanted) -> Self {
        let Extent { height, width, out_height, out_width, channels, padding, .. } = *extent;
        let filters = extent.by_pixel(w);
        let around = if wanted.input && extent.is_correlation() { extent.opposite_padding() } else { [0, 0] };
        let frame = Frame::new(height, width, channels, padding);
        let way = if extent.is_correlation() {
            let (inner, outer) = ([out_height, out_width], [height, width]);
            Way::Correlation {
                extent: Extent {
                    height: inner[0],
                    width: inner[1],
                    out_height: outer[0],
                    out_width: outer[1],
                    padding: around,
                    ..*extent
                },
                turned: filters.chunks_exact(channels).rev().flatten().copied().collect(),
                no_bias: vec![T::zero(); channels],
            }
        } else {
            Way::Fold(Frame::new(height, width, channels, padding))
        };
        Self {
            extent: *extent,
            dw: wanted.weights.then(|| vec![T::zero(); filters.len()]),
            db: wanted.bias.then(|| vec![T::zero(); channels]),
            dx: wanted.input.then(|| Vec::with_capacity(extent.batch * extent.in_len())),
            filters,
            frame,
            dy_frame: Frame::new(out_height, out_width, channels, around),
            way,
        }
    }
}

impl<T: Float> Backward<T> for DepthwiseBackward<T> {
    fn add(&mut self, x: &[T], y: Option<&[T]>, dy: &[T]) {
        let Self { extent, frame, dy_frame, .. } = self;
        for (index, (x, dy)) in x.chunks_exact(extent.in_len()).zip(dy.chunks_exact(extent.out_len())).enumerate() {
            frame.fill(x);
            match y {
                Some(y) => dy_frame.fill_where_positive(dy, &y[index * extent.out_len()..][..extent.out_len()]),
                None => dy_frame.fill(dy),
            }
            if let Some(db) = &mut self.db {
                dy_frame.add_columns_to(db);
            }
            if let Some(dw) = &mut self.dw {
                extent.add_weight_gradient(frame, dy_frame, dw);
            }
            let Some(dx) = &mut self.dx else { continue };
            match &mut self.way {
                Way::Correlation { extent, turned, no_bias } => extent.correlate(dy_frame, turned, no_bias, false, dx),
                Way::Fold(folded) => {
                    folded.data.fill(T::zero());
                    extent.fold(dy_frame, &self.filters, folded);
                    for row in 0..extent.height {
                        let start = folded.first() + row * folded.row();
                        dx.extend_from_slice(&folded.data[start..start + extent.width * extent.channels]);
                    }
                }
            }
        }
    }

    fn gradients(self: Box<Self>) -> Gradients<T> {
        let channels = self.extent.channels;
        let w = self.dw.map(|dw| (0..channels).flat_map(|c| dw.iter().skip(c).step_by(channels)).copied().collect());
        Gradients { x: self.dx, w, b: self.db }
    }
}

impl Extent {
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

    /// What the pixels of a run meet while the kernel moves along a row, from a channel on: slices of one length, so
    /// that a single comparison tells that a step is within all of them.
    #[inline(always)]
    fn rows<'a, T, const LEN: usize, const LANES: usize>(
        &self,
        x: &'a [T],
        offsets: [usize; LEN],
        channel: usize,
    ) -> [&'a [T]; LEN] {
        let len = (self.out_width - 1) * self.stride[1] * self.channels + LANES;
        std::array::from_fn(|i| &x[offsets[i] + channel..][..len])
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
        let weights: [[T; LANES]; LEN] = std::array::from_fn(|i| load(self.filters, (first + i) * channels + channel));
        let bias: [T; LANES] = load(self.bias, channel);
        let step = stride[1] * channels;
        let rows: [&[T]; LEN] = self.extent.rows::<T, LEN, LANES>(self.x, offsets, channel);
        for (column, y) in self.y.chunks_exact_mut(channels).enumerate() {
            let mut sum = if first == 0 { bias } else { load(y, channel) };
            for (x, weights) in rows.iter().zip(&weights) {
                let x: [T; LANES] = load(x, column * step);
                for (sum, (x, &w)) in sum.iter_mut().zip(x.into_iter().zip(weights)) {
                    *sum += x * w;
                }
            }
            store(&sum, y, channel);
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
        let mut sums: [[T; LANES]; LEN] = std::array::from_fn(|i| load(self.dw, (first + i) * channels + channel));
        let step = stride[1] * channels;
        let rows: [&[T]; LEN] = self.extent.rows::<T, LEN, LANES>(self.x, offsets, channel);
        for (column, dy) in self.dy.chunks_exact(channels).enumerate() {
            let dy: [T; LANES] = load(dy, channel);
            for (x, sums) in rows.iter().zip(&mut sums) {
                let x: [T; LANES] = load(x, column * step);
                for (sum, (x, dy)) in sums.iter_mut().zip(x.into_iter().zip(dy)) {
                    *sum += x * dy;
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            store(sums, self.dw, (first + i) * channels + channel);
        }
    }
}

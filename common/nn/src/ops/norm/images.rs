//! Group norm of images that may come in portions, by runs of pixels that stay in the first-level cache.

use crate::ops::RUN;
use crate::ops::kernel::{Float, vectorised};
use crate::ops::lanes::{Lanes, for_all_channels, load, store};

/// A group norm, maybe with a rectifier behind it.
#[derive(Clone, Copy)]
pub(in super::super) struct Norm<'a, T> {
    /// Pixels of an image.
    pub(in super::super) area: usize,
    /// Divides the number of channels.
    pub(in super::super) groups: usize,
    pub(in super::super) rectify: bool,
    /// One for each channel, like `beta`.
    pub(in super::super) gamma: &'a [T],
    pub(in super::super) beta: &'a [T],
}

impl<T: Float> Norm<'_, T> {
    fn channels(&self) -> usize {
        self.gamma.len()
    }

    /// Elements of an image.
    fn len(&self) -> usize {
        self.area * self.channels()
    }

    /// Elements of whole pixels that go by together.
    fn run(&self) -> usize {
        (RUN / self.channels()).max(1) * self.channels()
    }
}

/// Mean and 1/√(variance + ε) of a group.
#[derive(Clone, Copy)]
pub(in super::super) struct Moments {
    mean: f64,
    inverse_deviation: f64,
}

/// Added to a variance, so that a constant image stays finite.
pub(super) const EPSILON: f64 = 1e-5;

/// The pass forward.
pub(in super::super) struct NormForward<'a, T> {
    norm: Norm<'a, T>,
    map: Affine<T>,
    sums: Sums<T>,
    /// Results are computed here and then appended, so that their memory is written once and never cleared.
    results: Vec<T>,
    moments: Vec<Moments>,
}

impl<'a, T: Float> NormForward<'a, T> {
    pub(in super::super) fn new(norm: Norm<'a, T>) -> Self {
        let (map, sums) = (Affine::new(norm.channels()), Sums::new(norm.channels()));
        Self { norm, map, sums, results: vec![T::zero(); norm.run()], moments: Vec::new() }
    }

    /// Appends some images, normalized.
    pub(in super::super) fn append(&mut self, x: &[T], y: &mut Vec<T>) {
        vectorised(
            #[inline(always)]
            || {
                for x in x.chunks_exact(self.norm.len()) {
                    self.append_image(x, y);
                }
            },
        );
    }

    #[inline(always)]
    fn append_image(&mut self, x: &[T], y: &mut Vec<T>) {
        let (norm, first) = (self.norm, self.moments.len());
        self.sums.measure(x, &norm, &mut self.moments);
        self.map.set(&self.moments[first..], &norm);
        for x in x.chunks(norm.run()) {
            let results = &mut self.results[..x.len()];
            for_all_channels(norm.channels(), &mut Apply { norm: &norm, map: &self.map, x, y: results });
            y.extend_from_slice(results);
        }
    }

    /// Those of each group of each image, in order, for the pass back.
    pub(in super::super) fn moments(self) -> Vec<Moments> {
        self.moments
    }
}

/// y = f(x·scale + shift), with f the identity or the rectifier.
struct Apply<'a, T> {
    norm: &'a Norm<'a, T>,
    map: &'a Affine<T>,
    x: &'a [T],
    y: &'a mut [T],
}

impl<T: Float> Lanes for Apply<'_, T> {
    #[inline(always)]
    fn run<const LANES: usize>(&mut self, channel: usize) {
        let (channels, rectify) = (self.norm.channels(), self.norm.rectify);
        let scale: [T; LANES] = load(&self.map.scale, channel);
        let shift: [T; LANES] = load(&self.map.shift, channel);
        for (x, y) in self.x.chunks_exact(channels).zip(self.y.chunks_exact_mut(channels)) {
            let mut values: [T; LANES] = load(x, channel);
            for ((value, &scale), &shift) in values.iter_mut().zip(&scale).zip(&shift) {
                let mapped = *value * scale + shift;
                *value = if rectify && mapped < T::zero() { T::zero() } else { mapped };
            }
            store(&values, y, channel);
        }
    }
}

/// The pass back.
///
/// With x̂ the normalized input and g = γ·dy, over one group of m elements:
/// dx = (g − mean(g) − x̂·mean(g·x̂))/σ, dγ = Σ dy·x̂, dβ = Σ dy.
///
/// Two passes over an image: the sums Σ dy and Σ dy·(x − mean), then dx as a·dy + b·x + c with constants per channel.
/// Whether the rectifier was open is found anew from x, which is cheaper than reading the result.
pub(in super::super) struct NormBackward<'a, T> {
    norm: Norm<'a, T>,
    /// Of the images that are still to come.
    moments: &'a [Moments],
    map: Affine<T>,
    sum_dy: Vec<T>,
    sum_dyx: Vec<T>,
    of_dy: Vec<T>,
    of_x: Vec<T>,
    constant: Vec<T>,
    /// As in [`NormForward`].
    results: Vec<T>,
    dgamma: Vec<T>,
    dbeta: Vec<T>,
}

impl<'a, T: Float> NormBackward<'a, T> {
    /// `moments` are those of the pass forward.
    pub(in super::super) fn new(norm: Norm<'a, T>, moments: &'a [Moments]) -> Self {
        let zeros = || vec![T::zero(); norm.channels()];
        Self {
            norm,
            moments,
            map: Affine::new(norm.channels()),
            sum_dy: zeros(),
            sum_dyx: zeros(),
            of_dy: zeros(),
            of_x: zeros(),
            constant: zeros(),
            results: vec![T::zero(); norm.run()],
            dgamma: zeros(),
            dbeta: zeros(),
        }
    }

    /// Appends the gradient with respect to some images.
    pub(in super::super) fn append(&mut self, x: &[T], dy: &[T], dx: &mut Vec<T>) {
        vectorised(
            #[inline(always)]
            || {
                for (x, dy) in x.chunks_exact(self.norm.len()).zip(dy.chunks_exact(self.norm.len())) {
                    let (moments, others) = self.moments.split_at(self.norm.groups);
                    self.moments = others;
                    self.append_image(x, dy, moments, dx);
                }
            },
        );
    }

    #[inline(always)]
    fn append_image(&mut self, x: &[T], dy: &[T], moments: &[Moments], dx: &mut Vec<T>) {
        let norm = self.norm;
        self.map.set(moments, &norm);
        self.sum_dy.fill(T::zero());
        self.sum_dyx.fill(T::zero());
        for (x, dy) in x.chunks(norm.run()).zip(dy.chunks(norm.run())) {
            let (sum_dy, sum_dyx) = (&mut self.sum_dy, &mut self.sum_dyx);
            for_all_channels(norm.channels(), &mut AddSums { norm: &norm, map: &self.map, x, dy, sum_dy, sum_dyx });
        }
        self.set_constants(moments);
        for (x, dy) in x.chunks(norm.run()).zip(dy.chunks(norm.run())) {
            let mut results = std::mem::take(&mut self.results);
            let part = &mut results[..x.len()];
            for_all_channels(norm.channels(), &mut Return { pass: self, x, dy, dx: part });
            dx.extend_from_slice(part);
            self.results = results;
        }
    }

    fn set_constants(&mut self, moments: &[Moments]) {
        let norm = self.norm;
        let per_group = norm.channels() / norm.groups;
        let count = T::from_f64((per_group * norm.area) as f64);
        for (first, moments) in (0..norm.channels()).step_by(per_group).zip(moments) {
            let inverse = T::from_f64(moments.inverse_deviation);
            let (mut mean_g, mut mean_gx) = (T::zero(), T::zero());
            for channel in first..first + per_group {
                let projection = self.sum_dyx[channel] * inverse;
                self.dgamma[channel] += projection;
                self.dbeta[channel] += self.sum_dy[channel];
                mean_g += norm.gamma[channel] * self.sum_dy[channel];
                mean_gx += norm.gamma[channel] * projection;
            }
            (mean_g, mean_gx) = (mean_g / count, mean_gx / count);
            for channel in first..first + per_group {
                self.of_dy[channel] = norm.gamma[channel] * inverse;
                self.of_x[channel] = mean_gx * inverse * inverse;
                self.constant[channel] = self.of_x[channel] * self.map.mean[channel] - mean_g * inverse;
            }
        }
    }

    /// Those with respect to `gamma` and `beta`, of all images so far.
    pub(in super::super) fn gradients(self) -> (Vec<T>, Vec<T>) {
        (self.dgamma, self.dbeta)
    }
}

/// Adds Σ dy and Σ dy·(x − mean) of each channel, of those elements that passed the rectifier if there is one.
struct AddSums<'a, T> {
    norm: &'a Norm<'a, T>,
    map: &'a Affine<T>,
    x: &'a [T],
    dy: &'a [T],
    sum_dy: &'a mut [T],
    sum_dyx: &'a mut [T],
}

impl<T: Float> Lanes for AddSums<'_, T> {
    #[inline(always)]
    fn run<const LANES: usize>(&mut self, channel: usize) {
        let (channels, rectify) = (self.norm.channels(), self.norm.rectify);
        let mean: [T; LANES] = load(&self.map.mean, channel);
        let scale: [T; LANES] = load(&self.map.scale, channel);
        let shift: [T; LANES] = load(&self.map.shift, channel);
        let mut sums: [T; LANES] = load(self.sum_dy, channel);
        let mut products: [T; LANES] = load(self.sum_dyx, channel);
        for (x, dy) in self.x.chunks_exact(channels).zip(self.dy.chunks_exact(channels)) {
            let (x, dy): ([T; LANES], [T; LANES]) = (load(x, channel), load(dy, channel));
            for lane in 0..LANES {
                let open = !rectify || x[lane] * scale[lane] + shift[lane] > T::zero();
                let dy = if open { dy[lane] } else { T::zero() };
                sums[lane] += dy;
                products[lane] += dy * (x[lane] - mean[lane]);
            }
        }
        store(&sums, self.sum_dy, channel);
        store(&products, self.sum_dyx, channel);
    }
}

/// dx = of_dy·dy − of_x·x + constant
struct Return<'a, 'n, T> {
    pass: &'a NormBackward<'n, T>,
    x: &'a [T],
    dy: &'a [T],
    dx: &'a mut [T],
}

impl<T: Float> Lanes for Return<'_, '_, T> {
    #[inline(always)]
    fn run<const LANES: usize>(&mut self, channel: usize) {
        let (pass, channels, rectify) = (self.pass, self.pass.norm.channels(), self.pass.norm.rectify);
        let scale: [T; LANES] = load(&pass.map.scale, channel);
        let shift: [T; LANES] = load(&pass.map.shift, channel);
        let of_dy: [T; LANES] = load(&pass.of_dy, channel);
        let of_x: [T; LANES] = load(&pass.of_x, channel);
        let constant: [T; LANES] = load(&pass.constant, channel);
        let pixels = self.x.chunks_exact(channels).zip(self.dy.chunks_exact(channels));
        for (dx, (x, dy)) in self.dx.chunks_exact_mut(channels).zip(pixels) {
            let (x, mut dy): ([T; LANES], [T; LANES]) = (load(x, channel), load(dy, channel));
            for lane in 0..LANES {
                let open = !rectify || x[lane] * scale[lane] + shift[lane] > T::zero();
                let through = if open { dy[lane] } else { T::zero() };
                dy[lane] = through * of_dy[lane] - x[lane] * of_x[lane] + constant[lane];
            }
            store(&dy, dx, channel);
        }
    }
}

/// What becomes of each channel of an image: x·scale + shift; and its group's mean.
struct Affine<T> {
    mean: Vec<T>,
    scale: Vec<T>,
    shift: Vec<T>,
}

impl<T: Float> Affine<T> {
    fn new(channels: usize) -> Self {
        let zeros = vec![T::zero(); channels];
        Self { mean: zeros.clone(), scale: zeros.clone(), shift: zeros }
    }

    #[inline(always)]
    fn set(&mut self, moments: &[Moments], norm: &Norm<'_, T>) {
        let per_group = norm.channels() / moments.len();
        for channel in 0..norm.channels() {
            let Moments { mean, inverse_deviation } = moments[channel / per_group];
            self.mean[channel] = T::from_f64(mean);
            self.scale[channel] = T::from_f64(inverse_deviation) * norm.gamma[channel];
            self.shift[channel] = norm.beta[channel] - self.mean[channel] * self.scale[channel];
        }
    }
}

/// Sums over the pixels of an image, for each channel.
struct Sums<T> {
    first: Vec<T>,
    second: Vec<T>,
}

impl<T: Float> Sums<T> {
    fn new(channels: usize) -> Self {
        Self { first: vec![T::zero(); channels], second: vec![T::zero(); channels] }
    }

    /// Appends the moments of each group of an image.
    ///
    /// One pass: sums of x − x₀ and of its square, where x₀ is the channel's value in the first pixel. That is near
    /// enough to the mean for the difference of the two sums not to cancel, as it would around 0 where the mean is large.
    #[inline(always)]
    fn measure(&mut self, x: &[T], norm: &Norm<'_, T>, moments: &mut Vec<Moments>) {
        self.first.fill(T::zero());
        self.second.fill(T::zero());
        for pixels in x.chunks(norm.run()) {
            let origin = &x[..norm.channels()];
            for_all_channels(norm.channels(), &mut AddCentred { origin, pixels, sums: self });
        }
        let (per_group, area) = (norm.channels() / norm.groups, norm.area as f64);
        for group in (0..norm.channels()).step_by(per_group) {
            let channels = group..group + per_group;
            let mean_of = |channel: usize| x[channel].to_f64() + self.first[channel].to_f64() / area;
            let mean = channels.clone().map(mean_of).sum::<f64>() / per_group as f64;
            let squares: f64 = channels
                .map(|channel| {
                    let (sum, square) = (self.first[channel].to_f64(), self.second[channel].to_f64());
                    square - sum * sum / area + area * (mean_of(channel) - mean).powi(2)
                })
                .sum();
            // Rounding may leave the sum of a constant image a little below 0; NaN stays.
            let variance = squares / (area * per_group as f64);
            let variance = if variance < 0.0 { 0.0 } else { variance };
            moments.push(Moments { mean, inverse_deviation: 1.0 / (variance + EPSILON).sqrt() });
        }
    }
}

/// Adds the differences from the origin, and their squares.
struct AddCentred<'a, T> {
    origin: &'a [T],
    pixels: &'a [T],
    sums: &'a mut Sums<T>,
}

impl<T: Float> Lanes for AddCentred<'_, T> {
    #[inline(always)]
    fn run<const LANES: usize>(&mut self, channel: usize) {
        let origin: [T; LANES] = load(self.origin, channel);
        let mut sums: [T; LANES] = load(&self.sums.first, channel);
        let mut squares: [T; LANES] = load(&self.sums.second, channel);
        for pixel in self.pixels.chunks_exact(self.origin.len()) {
            let x: [T; LANES] = load(pixel, channel);
            for lane in 0..LANES {
                let centred = x[lane] - origin[lane];
                sums[lane] += centred;
                squares[lane] += centred * centred;
            }
        }
        store(&sums, &mut self.sums.first, channel);
        store(&squares, &mut self.sums.second, channel);
    }
}

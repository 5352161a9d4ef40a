//! Group normalization (Wu & He 2018, <https://arxiv.org/abs/1803.08494>).

use super::composed;
use super::kernel::{Float, vectorised};
use super::{BLOCK, Graph, RUN, elements, for_each_block, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use std::sync::OnceLock;

/// Each group of channels of an image scaled to mean 0 and variance 1, then `gamma·x + beta` per channel.
///
/// `x` is [n, h, w, c], `gamma` and `beta` are \[c\], `groups` divides c. ε is 1e-5, as in torch.
///
/// # Errors
/// When the operands do not fit together.
pub fn group_norm(graph: &mut Graph<'_>, x: &Tensor, gamma: &Tensor, beta: &Tensor, groups: usize) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::group_norm(x, gamma, beta, groups, EPSILON);
    }
    graph.apply3(x, gamma, beta, GroupNorm { groups, rectify: false, moments: OnceLock::new() })
}

/// [`group_norm`] with the rectifier behind it, in one pass.
///
/// # Errors
/// When the operands do not fit together.
pub fn group_norm_relu(
    graph: &mut Graph<'_>,
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    groups: usize,
) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::relu(&composed::group_norm(x, gamma, beta, groups, EPSILON)?);
    }
    graph.apply3(x, gamma, beta, GroupNorm { groups, rectify: true, moments: OnceLock::new() })
}

/// Added to a variance, so that a constant image stays finite.
const EPSILON: f64 = 1e-5;

struct GroupNorm {
    groups: usize,
    rectify: bool,
    /// Of each group of each image, from the forward pass for the one back.
    moments: OnceLock<Vec<Moments>>,
}

/// Mean and 1/√(variance + ε) of a group.
#[derive(Clone, Copy)]
struct Moments {
    mean: f64,
    inverse_deviation: f64,
}

impl CustomOp3 for GroupNorm {
    fn name(&self) -> &'static str {
        "group_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gamma: &CpuStorage,
        gamma_layout: &Layout,
        beta: &CpuStorage,
        beta_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, h, w, channels) = x_layout.shape().dims4()?;
        let (gamma_dims, beta_dims) = (gamma_layout.dims(), beta_layout.dims());
        let is_cut = self.groups > 0 && channels % self.groups == 0 && channels * h * w > 0;
        if !is_cut || gamma_dims != [channels] || beta_dims != [channels] {
            let (x, groups) = (x_layout.dims(), self.groups);
            candle_core::bail!("group_norm: x {x:?}, gamma {gamma_dims:?}, beta {beta_dims:?} in {groups} groups");
        }
        for_float!(x.dtype(), T => {
            let x = elements::<T>(x, x_layout)?;
            let (gamma, beta) = (elements::<T>(gamma, gamma_layout)?, elements::<T>(beta, beta_layout)?);
            let (y, moments) = vectorised(
                #[inline(always)]
                || self.normalized(x, h * w, gamma, beta),
            );
            // A second forward pass of the same operation would find the same.
            let _ = self.moments.set(moments);
            Ok((candle_core::WithDType::to_cpu_storage_owned(y), x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, h, w, _) = x.dims4()?;
        for_float!(x.dtype(), T => {
            let gradients = with_elements::<T, _>(x, |x| with_elements(gamma, |gamma| with_elements(beta, |beta| {
                with_elements(dy, |dy| {
                    Ok(vectorised(
                        #[inline(always)]
                        || self.gradients(x, h * w, gamma, beta, dy),
                    ))
                })
            })))?;
            Ok((
                Some(Tensor::from_vec(gradients.x, x.shape(), x.device())?),
                Some(Tensor::from_vec(gradients.gamma, gamma.shape(), gamma.device())?),
                Some(Tensor::from_vec(gradients.beta, beta.shape(), beta.device())?),
            ))
        })
    }
}

/// The gradients with respect to each operand.
struct Gradients<T> {
    x: Vec<T>,
    gamma: Vec<T>,
    beta: Vec<T>,
}

impl GroupNorm {
    #[inline(always)]
    fn normalized<T: Float>(&self, x: &[T], area: usize, gamma: &[T], beta: &[T]) -> (Vec<T>, Vec<Moments>) {
        let channels = gamma.len();
        let mut map = Affine::new(channels);
        let mut sums = Sums::new(channels);
        let mut y = Vec::with_capacity(x.len());
        // Computed here and then appended, so that the result's memory is written once and never cleared.
        let mut row = vec![T::zero(); (RUN / channels).max(1) * channels];
        let mut moments = Vec::with_capacity(x.len() / (area * channels) * self.groups);
        for x in x.chunks_exact(area * channels) {
            let first = moments.len();
            sums.measure(x, self.groups, &mut moments);
            map.set(&moments[first..], gamma, beta);
            for x in x.chunks(row.len()) {
                let row = &mut row[..x.len()];
                for (x, y) in x.chunks_exact(channels).zip(row.chunks_exact_mut(channels)) {
                    for ((y, &x), (&scale, &shift)) in y.iter_mut().zip(x).zip(map.scale.iter().zip(&map.shift)) {
                        let value = x * scale + shift;
                        *y = if self.rectify && value < T::zero() { T::zero() } else { value };
                    }
                }
                y.extend_from_slice(row);
            }
        }
        (y, moments)
    }

    /// With x̂ the normalized input and g = γ·dy, over one group of m elements:
    /// dx = (g − mean(g) − x̂·mean(g·x̂))/σ, dγ = Σ dy·x̂, dβ = Σ dy.
    ///
    /// Two passes: the sums Σ dy and Σ dy·(x − mean), then dx as a·dy + b·x + c with constants per channel. Whether the
    /// rectifier was open is found anew from x, which is cheaper than reading the result.
    #[inline(always)]
    fn gradients<T: Float>(&self, x: &[T], area: usize, gamma: &[T], beta: &[T], dy: &[T]) -> Gradients<T> {
        let channels = gamma.len();
        let per_group = channels / self.groups;
        let count = T::from_f64((per_group * area) as f64);
        let zeros = || vec![T::zero(); channels];
        let (mut dgamma, mut dbeta) = (zeros(), zeros());
        let (mut sum_dy, mut sum_dyx) = (zeros(), zeros());
        let (mut of_dy, mut of_x, mut constant) = (zeros(), zeros(), zeros());
        let mut map = Affine::new(channels);
        let mut dx = Vec::with_capacity(x.len());
        let mut row = vec![T::zero(); (RUN / channels).max(1) * channels];
        let all = self.moments.get().map_or(&[][..], Vec::as_slice);
        let images = x.chunks_exact(area * channels).zip(dy.chunks_exact(area * channels));
        for ((x, dy), moments) in images.zip(all.chunks_exact(self.groups)) {
            map.set(moments, gamma, beta);
            sum_dy.fill(T::zero());
            sum_dyx.fill(T::zero());
            map.add_sums(x, dy, self.rectify, &mut sum_dy, &mut sum_dyx);
            for (first, moments) in (0..channels).step_by(per_group).zip(moments) {
                let inverse = T::from_f64(moments.inverse_deviation);
                let (mut mean_g, mut mean_gx) = (T::zero(), T::zero());
                for channel in first..first + per_group {
                    let projection = sum_dyx[channel] * inverse;
                    dgamma[channel] += projection;
                    dbeta[channel] += sum_dy[channel];
                    mean_g += gamma[channel] * sum_dy[channel];
                    mean_gx += gamma[channel] * projection;
                }
                (mean_g, mean_gx) = (mean_g / count, mean_gx / count);
                for channel in first..first + per_group {
                    of_dy[channel] = gamma[channel] * inverse;
                    of_x[channel] = mean_gx * inverse * inverse;
                    constant[channel] = of_x[channel] * map.mean[channel] - mean_g * inverse;
                }
            }
            for (x, dy) in x.chunks(row.len()).zip(dy.chunks(row.len())) {
                let row = &mut row[..x.len()];
                let pixels = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
                for (dx, (x, dy)) in row.chunks_exact_mut(channels).zip(pixels) {
                    let operands = x.iter().zip(dy).zip(map.scale.iter().zip(&map.shift));
                    let constants = of_dy.iter().zip(&of_x).zip(&constant);
                    for ((dx, ((&x, &dy), (&scale, &shift))), ((&of_dy, &of_x), &constant)) in
                        dx.iter_mut().zip(operands).zip(constants)
                    {
                        let open = !self.rectify || x * scale + shift > T::zero();
                        let dy = if open { dy } else { T::zero() };
                        *dx = dy * of_dy - x * of_x + constant;
                    }
                }
                dx.extend_from_slice(row);
            }
        }
        Gradients { x: dx, gamma: dgamma, beta: dbeta }
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
    fn set(&mut self, moments: &[Moments], gamma: &[T], beta: &[T]) {
        let per_group = gamma.len() / moments.len();
        for channel in 0..gamma.len() {
            let Moments { mean, inverse_deviation } = moments[channel / per_group];
            self.mean[channel] = T::from_f64(mean);
            self.scale[channel] = T::from_f64(inverse_deviation) * gamma[channel];
            self.shift[channel] = beta[channel] - self.mean[channel] * self.scale[channel];
        }
    }

    /// Adds Σ dy and Σ dy·(x − mean) of each channel, of those elements that passed the rectifier if there is one.
    #[inline(always)]
    fn add_sums(&self, x: &[T], dy: &[T], rectify: bool, sum_dy: &mut [T], sum_dyx: &mut [T]) {
        let width = self.mean.len();
        for_each_block(
            width,
            #[inline(always)]
            |first, len| {
                let mut means = [T::zero(); BLOCK];
                let (mut scales, mut shifts) = (means, means);
                means[..len].copy_from_slice(&self.mean[first..first + len]);
                scales[..len].copy_from_slice(&self.scale[first..first + len]);
                shifts[..len].copy_from_slice(&self.shift[first..first + len]);
                let (mut sums, mut products) = ([T::zero(); BLOCK], [T::zero(); BLOCK]);
                let mut pixels = |len: usize| {
                    for (x, dy) in x.chunks_exact(width).zip(dy.chunks_exact(width)) {
                        let (x, dy) = (&x[first..first + len], &dy[first..first + len]);
                        for lane in 0..len {
                            let open = !rectify || x[lane] * scales[lane] + shifts[lane] > T::zero();
                            let dy = if open { dy[lane] } else { T::zero() };
                            sums[lane] += dy;
                            products[lane] += dy * (x[lane] - means[lane]);
                        }
                    }
                };
                // With a known end the loop over the lanes is a few vectors.
                if len == BLOCK {
                    pixels(BLOCK);
                } else {
                    pixels(len);
                }
                for lane in 0..len {
                    sum_dy[first + lane] += sums[lane];
                    sum_dyx[first + lane] += products[lane];
                }
            },
        );
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
    fn measure(&mut self, x: &[T], groups: usize, moments: &mut Vec<Moments>) {
        let width = self.first.len();
        for_each_block(
            width,
            #[inline(always)]
            |first, len| {
                let mut origin = [T::zero(); BLOCK];
                origin[..len].copy_from_slice(&x[first..first + len]);
                let (mut sums, mut squares) = ([T::zero(); BLOCK], [T::zero(); BLOCK]);
                let mut pixels = |len: usize| {
                    for x in x.chunks_exact(width) {
                        let x = &x[first..first + len];
                        for lane in 0..len {
                            let centred = x[lane] - origin[lane];
                            sums[lane] += centred;
                            squares[lane] += centred * centred;
                        }
                    }
                };
                if len == BLOCK {
                    pixels(BLOCK);
                } else {
                    pixels(len);
                }
                self.first[first..first + len].copy_from_slice(&sums[..len]);
                self.second[first..first + len].copy_from_slice(&squares[..len]);
            },
        );
        let (per_group, area) = (width / groups, (x.len() / width) as f64);
        for group in (0..width).step_by(per_group) {
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

//! Group normalization (Wu & He 2018, <https://arxiv.org/abs/1803.08494>).

use super::kernel::{Float, vectorised};
use super::{BLOCK, Graph, add_columns, elements, for_each_block, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

/// Each group of channels of an image scaled to mean 0 and variance 1, then `gamma·x + beta` per channel.
///
/// `x` is [n, h, w, c], `gamma` and `beta` are [c], `groups` divides c. ε is 1e-5, as in torch.
pub fn group_norm(graph: &mut Graph<'_>, x: &Tensor, gamma: &Tensor, beta: &Tensor, groups: usize) -> Result<Tensor> {
    graph.apply3(x, gamma, beta, GroupNorm { groups, rectify: false })
}

/// [`group_norm`] with the rectifier behind it, in one pass.
pub fn group_norm_relu(
    graph: &mut Graph<'_>,
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    groups: usize,
) -> Result<Tensor> {
    graph.apply3(x, gamma, beta, GroupNorm { groups, rectify: true })
}

/// Added to a variance, so that a constant image stays finite.
const EPSILON: f64 = 1e-5;

struct GroupNorm {
    groups: usize,
    rectify: bool,
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
        if channels % self.groups != 0 || gamma_layout.dims() != [channels] || beta_layout.dims() != [channels] {
            candle_core::bail!(
                "group_norm: x {:?}, gamma {:?}, beta {:?} in {} groups",
                x_layout.dims(),
                gamma_layout.dims(),
                beta_layout.dims(),
                self.groups
            );
        }
        for_float!(x.dtype(), T => {
            let x = elements::<T>(x, x_layout)?;
            let (gamma, beta) = (elements::<T>(gamma, gamma_layout)?, elements::<T>(beta, beta_layout)?);
            let y = vectorised(
                #[inline(always)]
                || self.normalized(x, h * w, gamma, beta),
            );
            Ok((candle_core::WithDType::to_cpu_storage_owned(y), x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, h, w, _) = x.dims4()?;
        for_float!(x.dtype(), T => {
            let gradients = with_elements::<T, _>(x, |x| with_elements(gamma, |gamma| with_elements(y, |y| {
                with_elements(dy, |dy| {
                    Ok(vectorised(
                        #[inline(always)]
                        || self.gradients(x, h * w, gamma, y, dy),
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
    fn normalized<T: Float>(&self, x: &[T], area: usize, gamma: &[T], beta: &[T]) -> Vec<T> {
        let channels = gamma.len();
        let mut moments = Moments::new(channels);
        let mut shift = vec![T::zero(); channels];
        let mut scale = vec![T::zero(); channels];
        let mut y = vec![T::zero(); x.len()];
        for (x, y) in x.chunks_exact(area * channels).zip(y.chunks_exact_mut(area * channels)) {
            moments.measure(x, area, self.groups);
            for channel in 0..channels {
                scale[channel] = moments.inverse_deviation[channel] * gamma[channel];
                shift[channel] = beta[channel] - moments.mean[channel] * scale[channel];
            }
            for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
                for ((y, &x), (&scale, &shift)) in y.iter_mut().zip(x).zip(scale.iter().zip(&shift)) {
                    let value = x * scale + shift;
                    *y = if self.rectify && value < T::zero() { T::zero() } else { value };
                }
            }
        }
        y
    }

    /// With x̂ the normalized input and g = γ·dy, over one group of m elements:
    /// dx = (g − mean(g) − x̂·mean(g·x̂))/σ, dγ = Σ dy·x̂, dβ = Σ dy.
    ///
    /// Two passes: the sums Σ dy and Σ dy·(x − mean), then dx as a·dy + b·(x − mean) + c with constants per channel.
    #[inline(always)]
    fn gradients<T: Float>(&self, x: &[T], area: usize, gamma: &[T], y: &[T], dy: &[T]) -> Gradients<T> {
        let channels = gamma.len();
        let count = T::from_f64((channels / self.groups * area) as f64);
        let mut moments = Moments::new(channels);
        let zeros = || vec![T::zero(); channels];
        let (mut dgamma, mut dbeta) = (zeros(), zeros());
        let (mut sum_dy, mut sum_dyx) = (zeros(), zeros());
        let (mut of_dy, mut of_x, mut constant) = (zeros(), zeros(), zeros());
        let mut dx = vec![T::zero(); x.len()];
        let mut masked = vec![T::zero(); if self.rectify { area * channels } else { 0 }];
        for (image, dx) in dx.chunks_exact_mut(area * channels).enumerate() {
            let range = image * area * channels..(image + 1) * area * channels;
            let (x, y, dy) = (&x[range.clone()], &y[range.clone()], &dy[range]);
            let dy = if self.rectify {
                for (masked, (&y, &dy)) in masked.iter_mut().zip(y.iter().zip(dy)) {
                    *masked = if y > T::zero() { dy } else { T::zero() };
                }
                &masked
            } else {
                dy
            };
            moments.measure(x, area, self.groups);
            sum_dy.fill(T::zero());
            add_columns(dy, &mut sum_dy);
            sum_dyx.fill(T::zero());
            add_centred(x, &moments.mean, Some(dy), &mut sum_dyx);
            let per_group = channels / self.groups;
            for first in (0..channels).step_by(per_group) {
                let inverse = moments.inverse_deviation[first];
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
                    constant[channel] = of_x[channel] * moments.mean[channel] - mean_g * inverse;
                }
            }
            let pixels = x.chunks_exact(channels).zip(dy.chunks_exact(channels));
            for (dx, (x, dy)) in dx.chunks_exact_mut(channels).zip(pixels) {
                let operands = x.iter().zip(dy);
                let constants = of_dy.iter().zip(&of_x).zip(&constant);
                for ((dx, (&x, &dy)), ((&of_dy, &of_x), &constant)) in dx.iter_mut().zip(operands).zip(constants) {
                    *dx = dy * of_dy - x * of_x + constant;
                }
            }
        }
        Gradients { x: dx, gamma: dgamma, beta: dbeta }
    }
}

/// Mean and 1/√(variance + ε) of the group of each channel, in one image.
struct Moments<T> {
    mean: Vec<T>,
    inverse_deviation: Vec<T>,
    sums: Vec<T>,
}

impl<T: Float> Moments<T> {
    fn new(channels: usize) -> Self {
        let zeros = vec![T::zero(); channels];
        Self { mean: zeros.clone(), inverse_deviation: zeros.clone(), sums: zeros }
    }

    #[inline(always)]
    fn measure(&mut self, x: &[T], area: usize, groups: usize) {
        let per_group = self.sums.len() / groups;
        let count = T::from_f64((per_group * area) as f64);
        self.sums.fill(T::zero());
        add_columns(x, &mut self.sums);
        for (sums, means) in self.sums.chunks_exact(per_group).zip(self.mean.chunks_exact_mut(per_group)) {
            means.fill(sums.iter().fold(T::zero(), |sum, &x| sum + x) / count);
        }
        // A second pass: the difference of two sums of squares would cancel where the mean is large.
        self.sums.fill(T::zero());
        add_centred(x, &self.mean, None, &mut self.sums);
        let inverses = self.inverse_deviation.chunks_exact_mut(per_group);
        for (sums, inverses) in self.sums.chunks_exact(per_group).zip(inverses) {
            let variance = sums.iter().fold(T::zero(), |sum, &x| sum + x) / count;
            inverses.fill(T::from_f64(1.0 / (variance.to_f64() + EPSILON).sqrt()));
        }
    }
}

/// Adds Σ (x − mean)·factor of each column to its sum; without a factor it is x − mean itself.
#[inline(always)]
fn add_centred<T: Float>(rows: &[T], means: &[T], factors: Option<&[T]>, sums: &mut [T]) {
    let width = sums.len();
    let factors = factors.unwrap_or(rows);
    let squared = std::ptr::eq(factors, rows);
    for_each_block(
        width,
        #[inline(always)]
        |first, len| {
            let (mut block, mut mean) = ([T::zero(); BLOCK], [T::zero(); BLOCK]);
            mean[..len].copy_from_slice(&means[first..first + len]);
            for (row, factors) in rows.chunks_exact(width).zip(factors.chunks_exact(width)) {
                let (row, factors) = (&row[first..first + len], &factors[first..first + len]);
                for ((sum, &mean), (&x, &factor)) in block.iter_mut().zip(&mean).zip(row.iter().zip(factors)) {
                    let centred = x - mean;
                    *sum += centred * if squared { centred } else { factor };
                }
            }
            for (sum, value) in sums[first..].iter_mut().zip(block) {
                *sum += value;
            }
        },
    );
}

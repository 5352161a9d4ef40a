//! Group normalization (Wu & He 2018, <https://arxiv.org/abs/1803.08494>).

use super::{Graph, dot_of, elements, for_float, sum_of, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, WithDType};

/// Each group of channels of an image scaled to mean 0 and variance 1, then `gamma·x + beta` per channel.
///
/// `x` is [n, c, h, w], `gamma` and `beta` are [c], `groups` divides c. ε is 1e-5, as in torch.
pub(crate) fn group_norm(
    graph: &mut Graph<'_>,
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    groups: usize,
) -> Result<Tensor> {
    graph.apply3(x, gamma, beta, GroupNorm { groups })
}

/// Added to the variance, so that a constant group stays finite.
const EPSILON: f64 = 1e-5;

struct GroupNorm {
    groups: usize,
}

/// Mean and 1/√(variance + ε) of one group.
fn moments<T: WithDType>(group: &[T]) -> (T, T) {
    let count = T::from_f64(group.len() as f64);
    let mean = sum_of(group, |x| x) / count;
    let variance = sum_of(group, |x| (x - mean) * (x - mean)) / count;
    (mean, T::from_f64(1.0 / (variance.to_f64() + EPSILON).sqrt()))
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
        let (_, channels, h, w) = x_layout.shape().dims4()?;
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
            let (area, per_group) = (h * w, channels / self.groups);
            let mut y = Vec::with_capacity(x.len());
            for (index, group) in x.chunks_exact(per_group * area).enumerate() {
                let (mean, scale) = moments(group);
                for (channel, values) in (index % self.groups * per_group..).zip(group.chunks_exact(area)) {
                    y.extend(values.iter().map(|x| (x - mean) * (scale * gamma[channel]) + beta[channel]));
                }
            }
            Ok((T::to_cpu_storage_owned(y), x_layout.shape().clone()))
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
        for_float!(x.dtype(), T => self.gradients::<T>(x, gamma, beta, dy))
    }
}

impl GroupNorm {
    /// With x̂ the normalized input and g = γ·dy, over one group of m elements:
    /// dx = (g − mean(g) − x̂·mean(g·x̂))/σ, dγ = Σ dy·x̂, dβ = Σ dy.
    fn gradients<T: WithDType>(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        beta: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (_, channels, h, w) = x.dims4()?;
        let (area, per_group) = (h * w, channels / self.groups);
        let count = T::from_f64((per_group * area) as f64);
        let mut dx: Vec<T> = Vec::with_capacity(x.elem_count());
        let (mut dgamma, mut dbeta) = (vec![T::zero(); channels], vec![T::zero(); channels]);
        with_elements::<T, _>(x, |x| {
            with_elements::<T, _>(gamma, |gamma| {
                with_elements::<T, _>(dy, |dy| {
                    let groups = x.chunks_exact(per_group * area).zip(dy.chunks_exact(per_group * area));
                    for (index, (x, dy)) in groups.enumerate() {
                        let first = index % self.groups * per_group;
                        let (mean, scale) = moments(x);
                        let (mut sum_g, mut sum_gx) = (T::zero(), T::zero());
                        for (channel, (x, dy)) in (first..).zip(x.chunks_exact(area).zip(dy.chunks_exact(area))) {
                            let sum_dy = sum_of(dy, |dy| dy);
                            let sum_dyx = dot_of(x, dy, |x| x - mean) * scale;
                            dbeta[channel] += sum_dy;
                            dgamma[channel] += sum_dyx;
                            sum_g += gamma[channel] * sum_dy;
                            sum_gx += gamma[channel] * sum_dyx;
                        }
                        let (mean_g, mean_gx) = (sum_g / count, sum_gx / count);
                        for (channel, (x, dy)) in (first..).zip(x.chunks_exact(area).zip(dy.chunks_exact(area))) {
                            dx.extend(x.iter().zip(dy).map(|(&x, &dy)| {
                                (gamma[channel] * dy - mean_g - (x - mean) * scale * mean_gx) * scale
                            }));
                        }
                    }
                    Ok(())
                })
            })
        })?;
        Ok((
            Some(Tensor::from_vec(dx, x.shape(), x.device())?),
            Some(Tensor::from_vec(dgamma, gamma.shape(), gamma.device())?),
            Some(Tensor::from_vec(dbeta, beta.shape(), beta.device())?),
        ))
    }
}

//! Group normalization (Wu & He 2018, <https://arxiv.org/abs/1803.08494>).

mod images;

use super::composed;
use super::kernel::Float;
use super::{Graph, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};
use images::EPSILON;
pub(super) use images::{Moments, Norm, NormBackward, NormForward};
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

struct GroupNorm {
    groups: usize,
    rectify: bool,
    /// Of each group of each image, from the forward pass for the one back.
    moments: OnceLock<Vec<Moments>>,
}

/// Whether the operands' extents fit together.
pub(super) fn expect(x: &[usize], gamma: &[usize], beta: &[usize], groups: usize) -> Result<()> {
    let fits =
        matches!(*x, [_, h, w, c] if groups > 0 && c % groups == 0 && c * h * w > 0 && gamma == [c] && beta == [c]);
    if !fits {
        candle_core::bail!("group_norm: x {x:?}, gamma {gamma:?}, beta {beta:?} in {groups} groups");
    }
    Ok(())
}

impl GroupNorm {
    fn norm<'a, T: Float>(&self, area: usize, gamma: &'a [T], beta: &'a [T]) -> Norm<'a, T> {
        Norm { area, groups: self.groups, rectify: self.rectify, gamma, beta }
    }
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
        expect(x_layout.dims(), gamma_layout.dims(), beta_layout.dims(), self.groups)?;
        let (_, h, w, _) = x_layout.shape().dims4()?;
        for_float!(x.dtype(), T => {
            let x = elements::<T>(x, x_layout)?;
            let (gamma, beta) = (elements::<T>(gamma, gamma_layout)?, elements::<T>(beta, beta_layout)?);
            let mut pass = NormForward::new(self.norm(h * w, gamma, beta));
            let mut y = Vec::with_capacity(x.len());
            pass.append(x, &mut y);
            // A second forward pass of the same operation would find the same.
            let _ = self.moments.set(pass.moments());
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
            with_elements::<T, _>(x, |xs| with_elements(gamma, |gammas| with_elements(beta, |betas| {
                with_elements(dy, |dy| {
                    let moments = self.moments.get().map_or(&[][..], Vec::as_slice);
                    let mut pass = NormBackward::new(self.norm(h * w, gammas, betas), moments);
                    let mut dx = Vec::with_capacity(xs.len());
                    pass.append(xs, dy, &mut dx);
                    let (dgamma, dbeta) = pass.gradients();
                    Ok((
                        Some(Tensor::from_vec(dx, x.shape(), x.device())?),
                        Some(Tensor::from_vec(dgamma, gamma.shape(), gamma.device())?),
                        Some(Tensor::from_vec(dbeta, beta.shape(), beta.device())?),
                    ))
                })
            })))
        })
    }
}

//! A convolution with the group norm behind it, a few images at a time.
//!
//! On a tape the two are one operation: the norm reads what the convolution has just written, and the gradient between
//! them is never more than a few images long. By themselves each of them goes over a whole batch, which no cache holds.

use super::Pattern;
use super::conv::{Extent, Wanted};
use super::norm::{Moments, Norm, NormBackward, NormForward};
use super::sparse::spread;
use super::tape::Fused;
use super::{Conv2dConfig, Graph, conv2d, for_float, group_norm, group_norm_relu, kernel::Float, with_elements};
use candle_core::{Result, Tensor};
use std::sync::Arc;

/// [`conv2d`] without bias, then [`group_norm`] and, if `config` says so, the rectifier: x [n, h, w, c],
/// w [o, c/config.groups, k, l], gamma and beta \[o\].
///
/// # Errors
/// When the operands do not fit together or the kernel is larger than the padded image.
pub fn conv_norm(
    graph: &mut Graph<'_>,
    x: &Tensor,
    w: &Tensor,
    [gamma, beta]: [&Tensor; 2],
    config: Conv2dConfig,
    groups: usize,
) -> Result<Tensor> {
    if !graph.is_taped() {
        let y = conv2d(graph, x, w, None, Conv2dConfig { relu: false, ..config })?;
        let norm = if config.relu { group_norm_relu } else { group_norm };
        return norm(graph, &y, gamma, beta, groups);
    }
    let pattern = graph.pattern(w);
    if let Some(pattern) = pattern.as_ref().filter(|_| config.stride != [1, 1]) {
        let w = spread(graph, pattern, w)?;
        return conv_norm(graph, x, &w, [gamma, beta], config, groups);
    }
    let extent = Extent::of(config, x.shape(), w.shape(), pattern.as_deref())?;
    super::norm::expect(&extent.out_dims(), gamma.dims(), beta.dims(), groups)?;
    let wanted = Wanted { input: graph.needs_gradient(x), weights: graph.needs_gradient(w), bias: false };
    for_float!(x.dtype(), T => {
        let (y, op) = with_elements::<T, _>(x, |x| with_elements(w, |w| {
            with_elements(gamma, |gamma| with_elements(beta, |beta| {
                let norm = Norm { area: extent.out_area(), groups, rectify: config.relu, gamma, beta };
                Ok(ConvNorm::forward(extent, wanted, x, (w, pattern), norm))
            }))
        }))?;
        let y = Tensor::from_vec(y, &extent.out_dims(), x.device())?;
        Ok(graph.record(op, [x, w, gamma, beta].map(Clone::clone).to_vec(), y))
    })
}

struct ConvNorm<T> {
    extent: Extent,
    wanted: Wanted,
    /// Where the weights stand, if they are what is left of them.
    pattern: Option<Arc<Pattern>>,
    groups: usize,
    rectify: bool,
    /// What the convolution gave, and what the norm found in it.
    between: Vec<T>,
    moments: Vec<Moments>,
}

impl<T: Float> ConvNorm<T> {
    fn forward(
        extent: Extent,
        wanted: Wanted,
        x: &[T],
        (w, pattern): (&[T], Option<Arc<Pattern>>),
        norm: Norm<'_, T>,
    ) -> (Vec<T>, Self) {
        let no_bias = vec![T::zero(); extent.out_dims()[3]];
        let mut convolution = extent.forward((w, pattern.as_deref()), &no_bias, false);
        let mut normalization = NormForward::new(norm);
        let len = extent.out_dims().iter().product();
        let (mut between, mut y) = (Vec::with_capacity(len), Vec::with_capacity(len));
        for x in x.chunks(extent.portion() * extent.in_len()) {
            let first = between.len();
            convolution.append(x, &mut between);
            normalization.append(&between[first..], &mut y);
        }
        let (groups, rectify) = (norm.groups, norm.rectify);
        drop(convolution);
        (y, Self { extent, wanted, pattern, groups, rectify, between, moments: normalization.moments() })
    }
}

impl<T: Float> Fused for ConvNorm<T> {
    fn backward(self: Box<Self>, operands: &[Tensor], dy: &Tensor) -> Result<Vec<Option<Tensor>>> {
        let Self { extent, groups, rectify, .. } = *self;
        let [x, w, gamma, beta] = operands else { candle_core::bail!("conv_norm: {} operands", operands.len()) };
        let (convolution, dgamma, dbeta) = with_elements::<T, _>(x, |x| {
            with_elements(w, |w| {
                with_elements(gamma, |gamma| {
                    with_elements(beta, |beta| {
                        with_elements(dy, |dy| {
                            let mut convolution = extent.backward((w, self.pattern.as_deref()), self.wanted);
                            let norm = Norm { area: extent.out_area(), groups, rectify, gamma, beta };
                            let mut normalization = NormBackward::new(norm, &self.moments);
                            let len = extent.portion() * extent.out_len();
                            let mut between = Vec::with_capacity(len);
                            let portions = x.chunks(extent.portion() * extent.in_len());
                            for (x, (c, dy)) in portions.zip(self.between.chunks(len).zip(dy.chunks(len))) {
                                between.clear();
                                normalization.append(c, dy, &mut between);
                                convolution.add(x, None, &between);
                            }
                            let (dgamma, dbeta) = normalization.gradients();
                            Ok((convolution.gradients(), dgamma, dbeta))
                        })
                    })
                })
            })
        })?;
        let dx = convolution.x.map(|dx| Tensor::from_vec(dx, x.shape(), x.device())).transpose()?;
        Ok(vec![
            dx,
            convolution.w.map(|dw| Tensor::from_vec(dw, w.shape(), w.device())).transpose()?,
            Some(Tensor::from_vec(dgamma, gamma.shape(), gamma.device())?),
            Some(Tensor::from_vec(dbeta, beta.shape(), beta.device())?),
        ])
    }
}

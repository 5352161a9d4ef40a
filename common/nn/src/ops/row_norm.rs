//! Normalisation of each row by itself, as in transformers.

use super::composed;
use super::kernel::{Float, vectorised};
use super::reduce::sum;
use super::{Graph, elements, for_float, with_elements};
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};
use std::marker::PhantomData;

/// (x − mean)/√(variance + 10⁻⁵)·γ + β over the last dimension d of x [.., d], with γ and β \[d\] (Ba et al. 2016).
pub fn layer_norm(graph: &mut Graph<'_>, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::row_norm(x, gamma, Some(beta), EPSILON);
    }
    for_float!(x.dtype(), T => graph.apply3(x, gamma, beta, RowNorm::<T>::new(true)))
}

/// x/√(mean of squares + 10⁻⁵)·γ over the last dimension d of x [.., d], with γ \[d\] (Zhang & Sennrich 2019).
pub fn rms_norm(graph: &mut Graph<'_>, x: &Tensor, gamma: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::row_norm(x, gamma, None, EPSILON);
    }
    for_float!(x.dtype(), T => graph.apply2(x, gamma, RowNorm::<T>::new(false)))
}

const EPSILON: f64 = 1e-5;

struct RowNorm<T> {
    /// Whether the mean is subtracted.
    centres: bool,
    float: PhantomData<T>,
}

/// The gradients with respect to each operand.
struct Gradients<T> {
    x: Vec<T>,
    gamma: Vec<T>,
    beta: Vec<T>,
}

impl<T: Float> RowNorm<T> {
    const fn new(centres: bool) -> Self {
        Self { centres, float: PhantomData }
    }

    fn check(&self, x: &[usize], parameters: &[&[usize]]) -> Result<()> {
        let width = x.last().copied().unwrap_or(0);
        if width == 0 || x.len() < 2 || parameters.iter().any(|dims| dims != &[width]) {
            let name = if self.centres { "layer_norm" } else { "rms_norm" };
            candle_core::bail!("{name}: x {x:?} with parameters of {parameters:?}; want [.., d] and [d], d above 0");
        }
        Ok(())
    }

    /// Mean, if it is subtracted, and 1/√(variance + ε) of a row.
    #[inline(always)]
    fn moments(&self, x: &[T]) -> (T, T) {
        let count = T::from_f64(x.len() as f64);
        let mean = if self.centres {
            sum(
                x,
                x,
                #[inline(always)]
                |x, _| x,
            ) / count
        } else {
            T::zero()
        };
        // A second pass: the difference of two sums of squares would cancel where the mean is large.
        let variance = sum(
            x,
            x,
            #[inline(always)]
            |x, _| (x - mean) * (x - mean),
        ) / count;
        (mean, T::from_f64(1.0 / (variance.to_f64() + EPSILON).sqrt()))
    }

    fn normalized(&self, x: &[T], gamma: &[T], beta: Option<&[T]>) -> Vec<T> {
        let width = gamma.len();
        let mut y = vec![T::zero(); x.len()];
        vectorised(
            #[inline(always)]
            || {
                for (x, y) in x.chunks_exact(width).zip(y.chunks_exact_mut(width)) {
                    let (mean, inverse) = self.moments(x);
                    for ((y, &x), &gamma) in y.iter_mut().zip(x).zip(gamma) {
                        *y = (x - mean) * inverse * gamma;
                    }
                    if let Some(beta) = beta {
                        y.iter_mut().zip(beta).for_each(|(y, &beta)| *y += beta);
                    }
                }
            },
        );
        y
    }

    /// With x̂ the normalized row and g = γ·dy: dx = (g − mean(g) − x̂·mean(g·x̂))/σ, without mean(g) where no mean is
    /// subtracted; dγ = Σ dy·x̂, dβ = Σ dy.
    fn gradients(&self, x: &[T], gamma: &[T], dy: &[T]) -> Gradients<T> {
        let width = gamma.len();
        let count = T::from_f64(width as f64);
        let zeros = vec![T::zero(); width];
        let mut gradients = Gradients { x: vec![T::zero(); x.len()], gamma: zeros.clone(), beta: zeros.clone() };
        let (mut normalized, mut scaled) = (zeros.clone(), zeros);
        vectorised(
            #[inline(always)]
            || {
                let rows = x.chunks_exact(width).zip(dy.chunks_exact(width));
                for (dx, (x, dy)) in gradients.x.chunks_exact_mut(width).zip(rows) {
                    let (mean, inverse) = self.moments(x);
                    normalized.iter_mut().zip(x).for_each(|(to, &x)| *to = (x - mean) * inverse);
                    for ((sum, &dy), &normalized) in gradients.gamma.iter_mut().zip(dy).zip(&normalized) {
                        *sum += dy * normalized;
                    }
                    gradients.beta.iter_mut().zip(dy).for_each(|(sum, &dy)| *sum += dy);
                    for ((to, &dy), &gamma) in scaled.iter_mut().zip(dy).zip(gamma) {
                        *to = dy * gamma;
                    }
                    let projection = sum(
                        &scaled,
                        &normalized,
                        #[inline(always)]
                        |g, x| g * x,
                    ) / count;
                    let mean = if self.centres {
                        sum(
                            &scaled,
                            &scaled,
                            #[inline(always)]
                            |g, _| g,
                        ) / count
                    } else {
                        T::zero()
                    };
                    for ((dx, &g), &normalized) in dx.iter_mut().zip(&scaled).zip(&normalized) {
                        *dx = (g - mean - normalized * projection) * inverse;
                    }
                }
            },
        );
        gradients
    }

    fn tensors(&self, x: &Tensor, gamma: &Tensor, dy: &Tensor) -> Result<[Tensor; 3]> {
        let gradients = with_elements::<T, _>(x, |x| {
            with_elements(gamma, |gamma| with_elements(dy, |dy| Ok(self.gradients(x, gamma, dy))))
        })?;
        Ok([
            Tensor::from_vec(gradients.x, x.shape(), x.device())?,
            Tensor::from_vec(gradients.gamma, gamma.shape(), x.device())?,
            Tensor::from_vec(gradients.beta, gamma.shape(), x.device())?,
        ])
    }
}

impl<T: Float> CustomOp3 for RowNorm<T> {
    fn name(&self) -> &'static str {
        "layer_norm"
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
        self.check(x_layout.dims(), &[gamma_layout.dims(), beta_layout.dims()])?;
        let (gamma, beta) = (elements::<T>(gamma, gamma_layout)?, elements::<T>(beta, beta_layout)?);
        let y = self.normalized(elements::<T>(x, x_layout)?, gamma, Some(beta));
        Ok((T::to_cpu_storage_owned(y), x_layout.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        gamma: &Tensor,
        _beta: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, dgamma, dbeta] = self.tensors(x, gamma, dy)?;
        Ok((Some(dx), Some(dgamma), Some(dbeta)))
    }
}

impl<T: Float> CustomOp2 for RowNorm<T> {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        gamma: &CpuStorage,
        gamma_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.check(x_layout.dims(), &[gamma_layout.dims()])?;
        let y = self.normalized(elements::<T>(x, x_layout)?, elements::<T>(gamma, gamma_layout)?, None);
        Ok((T::to_cpu_storage_owned(y), x_layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, gamma: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, dgamma, _] = self.tensors(x, gamma, dy)?;
        Ok((Some(dx), Some(dgamma)))
    }
}

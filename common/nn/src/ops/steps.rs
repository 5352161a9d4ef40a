//! From the steps of a sequence to one vector.

use super::composed;
use super::kernel::Float;
use super::{Graph, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};

/// The last step of each sequence: [batch, steps, d] becomes [batch, d].
pub fn last_step(graph: &mut Graph<'_>, x: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::last_step(x);
    }
    graph.apply1(x, Summary::Last)
}

/// The mean over the steps of each sequence: [batch, steps, d] becomes [batch, d].
pub fn mean_of_steps(graph: &mut Graph<'_>, x: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::mean_of_steps(x);
    }
    graph.apply1(x, Summary::Mean)
}

/// Every step as a row of its own, without a copy: [batch, steps, d] becomes [batch·steps, d].
pub fn rows_of_steps(graph: &mut Graph<'_>, x: &Tensor) -> Result<Tensor> {
    let (batch, steps, width) = x.dims3()?;
    graph.reshape(x, (batch * steps, width))
}

enum Summary {
    Last,
    Mean,
}

impl CustomOp1 for Summary {
    fn name(&self) -> &'static str {
        match self {
            Self::Last => "last_step",
            Self::Mean => "mean_of_steps",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, steps, width) = layout.shape().dims3()?;
        if steps * width == 0 {
            candle_core::bail!("{}: {:?} has no steps or nothing in them", self.name(), layout.dims());
        }
        for_float!(x.dtype(), T => {
            let mut y = Vec::with_capacity(batch * width);
            for sequence in elements::<T>(x, layout)?.chunks_exact(steps * width) {
                match self {
                    Self::Last => y.extend_from_slice(&sequence[(steps - 1) * width..]),
                    Self::Mean => y.extend(mean(sequence, width)),
                }
            }
            Ok((T::to_cpu_storage_owned(y), Shape::from((batch, width))))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (_, steps, width) = x.dims3()?;
        for_float!(x.dtype(), T => {
            let mut dx = vec![T::from_f64(0.0); x.elem_count()];
            with_elements::<T, _>(dy, |dy| {
                for (dx, dy) in dx.chunks_exact_mut(steps * width).zip(dy.chunks_exact(width)) {
                    match self {
                        Self::Last => dx[(steps - 1) * width..].copy_from_slice(dy),
                        Self::Mean => {
                            let share = T::from_f64(1.0 / steps as f64);
                            for dx in dx.chunks_exact_mut(width) {
                                dx.iter_mut().zip(dy).for_each(|(dx, &dy)| *dx = dy * share);
                            }
                        }
                    }
                }
                Ok(())
            })?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}

fn mean<T: Float>(sequence: &[T], width: usize) -> Vec<T> {
    let share = T::from_f64(width as f64 / sequence.len() as f64);
    let mut mean = vec![T::zero(); width];
    for step in sequence.chunks_exact(width) {
        mean.iter_mut().zip(step).for_each(|(sum, &x)| *sum += x);
    }
    mean.iter_mut().for_each(|sum| *sum *= share);
    mean
}

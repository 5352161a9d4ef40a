//! Softmax and cross-entropy in one operation.

use super::composed;
use super::{Graph, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};

/// Σ −log softmax(logits)\[label\] / `count`, a scalar: the mean when `count` is the number of rows, and a part of it when
/// the batch is computed in parts. `logits` is [rows, classes], labels are below `classes`.
///
/// The exponentials are taken in f64 after subtracting the row's largest logit, so it does not overflow.
pub fn cross_entropy(graph: &mut Graph<'_>, logits: &Tensor, labels: &[u32], count: usize) -> Result<Tensor> {
    if graph.composes(logits) {
        return composed::cross_entropy(logits, labels, count);
    }
    graph.apply1(logits, CrossEntropy { labels: labels.to_vec(), count })
}

/// T²·Σ KL(softmax(teacher/T) ‖ softmax(logits/T)) / `count`, a scalar (Hinton et al. 2015, "Distilling the knowledge in a
/// neural network", where T² keeps the gradient's size). `logits` is [rows, classes], `teacher` as many logits, and T the
/// temperature, above 0.
pub fn distillation(
    graph: &mut Graph<'_>,
    logits: &Tensor,
    teacher: &[f32],
    temperature: f64,
    count: usize,
) -> Result<Tensor> {
    if graph.composes(logits) {
        return composed::distillation(logits, teacher, temperature, count);
    }
    graph.apply1(logits, Distillation { teacher: teacher.to_vec(), temperature, count })
}

/// −log softmax(row)\[label\], in nats.
pub(crate) fn row_loss<T: WithDType>(row: &[T], label: usize) -> f64 {
    log_sum_exp(row) - row[label].to_f64()
}

struct CrossEntropy {
    labels: Vec<u32>,
    count: usize,
}

struct Distillation {
    teacher: Vec<f32>,
    temperature: f64,
    count: usize,
}

/// log softmax(row / temperature).
pub(crate) fn log_softmax<T: WithDType>(row: &[T], temperature: f64) -> Vec<f64> {
    let scaled: Vec<f64> = row.iter().map(|x| x.to_f64() / temperature).collect();
    let normaliser = log_sum_exp(&scaled);
    scaled.iter().map(|x| x - normaliser).collect()
}

/// log Σ exp of a row, by functions in plain Rust: those of a system's C library differ between processors.
fn log_sum_exp<T: WithDType>(row: &[T]) -> f64 {
    let largest = row.iter().map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = row.iter().map(|x| libm::exp(x.to_f64() - largest)).sum();
    largest + libm::log(sum)
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, classes) = layout.shape().dims2()?;
        if batch == 0
            || self.count == 0
            || batch != self.labels.len()
            || self.labels.iter().any(|&label| label as usize >= classes)
        {
            candle_core::bail!("cross_entropy: {} labels for logits of {:?}", self.labels.len(), layout.dims());
        }
        for_float!(logits.dtype(), T => {
            let rows = elements::<T>(logits, layout)?.chunks_exact(classes);
            let total: f64 = rows.zip(&self.labels).map(|(row, &label)| row_loss(row, label as usize)).sum();
            Ok((T::to_cpu_storage_owned(vec![T::from_f64(total / self.count as f64)]), Shape::from(())))
        })
    }

    fn bwd(&self, logits: &Tensor, _loss: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, classes) = logits.dims2()?;
        for_float!(logits.dtype(), T => {
            let scale = gradient.to_scalar::<T>()?.to_f64() / self.count as f64;
            let dx = with_elements::<T, _>(logits, |logits| {
                let mut dx = Vec::with_capacity(logits.len());
                for (row, &label) in logits.chunks_exact(classes).zip(&self.labels) {
                    let normaliser = log_sum_exp(row);
                    for (class, &x) in row.iter().enumerate() {
                        let target = f64::from(u8::from(class == label as usize));
                        dx.push(T::from_f64((libm::exp(x.to_f64() - normaliser) - target) * scale));
                    }
                }
                Ok(dx)
            })?;
            Ok(Some(Tensor::from_vec(dx, logits.shape(), logits.device())?))
        })
    }
}

impl CustomOp1 for Distillation {
    fn name(&self) -> &'static str {
        "distillation"
    }

    fn cpu_fwd(&self, logits: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (batch, classes) = layout.shape().dims2()?;
        if batch == 0 || self.count == 0 || batch * classes != self.teacher.len() {
            candle_core::bail!("distillation: {} logits to learn for {:?}", self.teacher.len(), layout.dims());
        }
        let square = self.temperature * self.temperature;
        for_float!(logits.dtype(), T => {
            let rows = elements::<T>(logits, layout)?.chunks_exact(classes).zip(self.teacher.chunks_exact(classes));
            let divergence = |(row, teacher): (&[T], &[f32])| {
                let (q, p) = (log_softmax(row, self.temperature), log_softmax(teacher, self.temperature));
                p.iter().zip(q).map(|(&p, q)| libm::exp(p) * (p - q)).sum::<f64>()
            };
            let total: f64 = rows.map(divergence).sum();
            Ok((T::to_cpu_storage_owned(vec![T::from_f64(square * total / self.count as f64)]), Shape::from(())))
        })
    }

    fn bwd(&self, logits: &Tensor, _loss: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (_, classes) = logits.dims2()?;
        for_float!(logits.dtype(), T => {
            let scale = gradient.to_scalar::<T>()?.to_f64() * self.temperature / self.count as f64;
            let dx = with_elements::<T, _>(logits, |logits| {
                let mut dx = Vec::with_capacity(logits.len());
                for (row, teacher) in logits.chunks_exact(classes).zip(self.teacher.chunks_exact(classes)) {
                    let (q, p) = (log_softmax(row, self.temperature), log_softmax(teacher, self.temperature));
                    dx.extend(q.iter().zip(p).map(|(&q, p)| T::from_f64((libm::exp(q) - libm::exp(p)) * scale)));
                }
                Ok(dx)
            })?;
            Ok(Some(Tensor::from_vec(dx, logits.shape(), logits.device())?))
        })
    }
}

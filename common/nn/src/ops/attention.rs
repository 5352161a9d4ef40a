//! Attention between the steps of a sequence.

use super::composed;
use super::kernel::{Float, Strided, Sum, vectorised};
use super::reduce::{largest, sum};
use super::saved::Saved;
use super::{Graph, elements, for_float, with_elements};
use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};

/// softmax(q·kᵀ/√(d/heads))·v for each head by itself (Vaswani et al. 2017): q, k and v are [batch, steps, d], of which
/// each head has d/heads columns, and so is the result. When `causal`, no step sees a later one.
pub fn attention(
    graph: &mut Graph<'_>,
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    heads: usize,
    causal: bool,
) -> Result<Tensor> {
    if graph.composes(q) {
        return composed::attention([q, k, v], heads, causal);
    }
    for_float!(q.dtype(), T => {
        let keep = graph.records(&[q, k, v]);
        graph.apply3(q, k, v, Attention::<T> { heads, causal, keep, saved: Saved::nothing() })
    })
}

/// [`attention`] of queries, keys and values that one product has computed: qkv is [batch, steps, 3·d], the result
/// [batch, steps, d].
pub fn self_attention(graph: &mut Graph<'_>, qkv: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    if graph.composes(qkv) {
        return composed::self_attention(qkv, heads, causal);
    }
    for_float!(qkv.dtype(), T => {
        let keep = graph.records(&[qkv]);
        graph.apply1(qkv, Attention::<T> { heads, causal, keep, saved: Saved::nothing() })
    })
}

struct Attention<T> {
    heads: usize,
    causal: bool,
    /// Whether a gradient will be asked for.
    keep: bool,
    /// The softmax of each sequence and head: [batch, heads, steps, steps].
    saved: Saved<Vec<T>>,
}

#[derive(Clone, Copy)]
struct Extent {
    batch: usize,
    steps: usize,
    width: usize,
    /// Elements from one step of a query to the next.
    row: usize,
}

/// Queries, keys and values from their first element on.
#[derive(Clone, Copy)]
struct Operands<'a, T>([&'a [T]; 3]);

impl<T: Float> Attention<T> {
    fn extent(&self, shape: &[usize], parts: usize) -> Result<Extent> {
        if let &[batch, steps, row] = shape {
            let width = row / parts;
            let is_whole = self.heads > 0 && row.is_multiple_of(parts) && width.is_multiple_of(self.heads);
            if is_whole && batch * steps * width > 0 {
                return Ok(Extent { batch, steps, width, row });
            }
        }
        let columns = if parts == 1 { "d" } else { "3·d" };
        candle_core::bail!(
            "attention: {shape:?} in {} heads; want [batch, steps, {columns}], none of them 0, and d a multiple of the heads",
            self.heads
        )
    }

    /// Where a head of a sequence begins: in an operand, in the result, and in the softmaxes.
    fn heads(&self, extent: Extent) -> impl Iterator<Item = [usize; 3]> {
        let Extent { batch, steps, width, row } = extent;
        let heads = self.heads;
        (0..batch * heads).map(move |number| {
            let (sequence, column) = (number / heads, number % heads * (width / heads));
            [sequence * steps * row + column, sequence * steps * width + column, number * steps * steps]
        })
    }

    /// The result, and the softmaxes if they are kept.
    fn forward(&self, extent: Extent, Operands([q, k, v]): Operands<'_, T>) -> (Vec<T>, Vec<T>) {
        let Extent { batch, steps, width, row } = extent;
        let depth = width / self.heads;
        let mut y = vec![T::zero(); batch * steps * width];
        let kept = if self.keep { batch * self.heads } else { 1 };
        let mut softmaxes = vec![T::zero(); kept * steps * steps];
        for [operand, result, softmax] in self.heads(extent) {
            let softmax = if self.keep { softmax } else { 0 };
            let weights = &mut softmaxes[softmax..][..steps * steps];
            let keys = Strided::matrix(&k[operand..], row).transposed();
            Sum::product((steps, depth, steps), Strided::matrix(&q[operand..], row), keys).run(weights);
            self.softmax(depth, steps, weights);
            let values = Strided::matrix(&v[operand..], row);
            Sum::product((steps, steps, depth), Strided::matrix(weights, steps), values)
                .run_in(&mut y[result..], width);
        }
        (y, softmaxes)
    }

    /// The softmax of each row of scores, scaled by 1/√depth; what lies in the future gets nothing.
    fn softmax(&self, depth: usize, steps: usize, scores: &mut [T]) {
        let scale = T::from_f64(1.0 / (depth as f64).sqrt());
        vectorised(
            #[inline(always)]
            || {
                for (step, row) in scores.chunks_exact_mut(steps).enumerate() {
                    let (past, future) = row.split_at_mut(if self.causal { step + 1 } else { steps });
                    let most = largest(past);
                    past.iter_mut().for_each(|score| *score = ((*score - most) * scale).exponential());
                    let total = sum(
                        past,
                        past,
                        #[inline(always)]
                        |weight, _| weight,
                    );
                    let inverse = T::one() / total;
                    past.iter_mut().for_each(|weight| *weight *= inverse);
                    future.fill(T::zero());
                }
            },
        );
    }

    /// The gradients of queries, keys and values, which begin at `parts` of the result, in rows as those of the operands.
    ///
    /// With the softmax P of scores S: dV = Pᵀ·dY, dP = dY·Vᵀ, dS = P∘(dP − Σ P∘dP), dQ = dS·K/√d, dK = dSᵀ·Q/√d.
    fn gradients(
        &self,
        extent: Extent,
        operands: Operands<'_, T>,
        softmaxes: &[T],
        dy: &[T],
        parts: [usize; 3],
    ) -> Vec<T> {
        let Extent { batch, steps, width, row } = extent;
        let depth = width / self.heads;
        let Operands([q, k, v]) = operands;
        let scale = T::from_f64(1.0 / (depth as f64).sqrt());
        let mut gradients = vec![T::zero(); 3 * batch * steps * width];
        let mut d_scores = vec![T::zero(); steps * steps];
        for [operand, result, softmax] in self.heads(extent) {
            let weights = &softmaxes[softmax..][..steps * steps];
            let dy = Strided::matrix(&dy[result..], width);
            let [to_q, to_k, to_v] = parts.map(|part| part + operand);
            Sum::product((steps, steps, depth), Strided::matrix(weights, steps).transposed(), dy)
                .run_in(&mut gradients[to_v..], row);
            let values = Strided::matrix(&v[operand..], row).transposed();
            Sum::product((steps, depth, steps), dy, values).run(&mut d_scores);
            vectorised(
                #[inline(always)]
                || {
                    for (d, p) in d_scores.chunks_exact_mut(steps).zip(weights.chunks_exact(steps)) {
                        let projection = sum(
                            d,
                            p,
                            #[inline(always)]
                            |d, p| d * p,
                        );
                        d.iter_mut().zip(p).for_each(|(d, &p)| *d = p * (*d - projection) * scale);
                    }
                },
            );
            let d_scores = Strided::matrix(&d_scores, steps);
            Sum::product((steps, steps, depth), d_scores, Strided::matrix(&k[operand..], row))
                .run_in(&mut gradients[to_q..], row);
            Sum::product((steps, steps, depth), d_scores.transposed(), Strided::matrix(&q[operand..], row))
                .run_in(&mut gradients[to_k..], row);
        }
        gradients
    }

    fn result(&self, extent: Extent, operands: Operands<'_, T>) -> (CpuStorage, Shape) {
        let (y, softmaxes) = self.forward(extent, operands);
        if self.keep {
            self.saved.put(softmaxes);
        }
        (T::to_cpu_storage_owned(y), Shape::from((extent.batch, extent.steps, extent.width)))
    }

    /// [`Self::gradients`] with the softmaxes that were kept, or with new ones.
    fn back(&self, extent: Extent, operands: Operands<'_, T>, dy: &Tensor, parts: [usize; 3]) -> Result<Vec<T>> {
        let softmaxes = self.saved.take().unwrap_or_else(|| self.forward(extent, operands).1);
        with_elements(dy, |dy| Ok(self.gradients(extent, operands, &softmaxes, dy, parts)))
    }
}

impl<T: Float> CustomOp3 for Attention<T> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let extent = self.extent(q_layout.dims(), 1)?;
        if k_layout.dims() != q_layout.dims() || v_layout.dims() != q_layout.dims() {
            let (q, k, v) = (q_layout.dims(), k_layout.dims(), v_layout.dims());
            candle_core::bail!("attention: q {q:?}, k {k:?}, v {v:?}; want three of one shape");
        }
        let operands = Operands([elements(q, q_layout)?, elements(k, k_layout)?, elements(v, v_layout)?]);
        Ok(self.result(extent, operands))
    }

    fn bwd(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let extent = self.extent(q.dims(), 1)?;
        let len = q.elem_count();
        let mut gradients = with_elements(q, |q| {
            with_elements(k, |k| with_elements(v, |v| self.back(extent, Operands([q, k, v]), dy, [0, len, 2 * len])))
        })?;
        let tensor = |values: Vec<T>| Tensor::from_vec(values, q.shape(), q.device());
        let dv = tensor(gradients.split_off(2 * len))?;
        let dk = tensor(gradients.split_off(len))?;
        Ok((Some(tensor(gradients)?), Some(dk), Some(dv)))
    }
}

/// Where queries, keys and values begin in what one product computed.
fn parts<T>(qkv: &[T], width: usize) -> Operands<'_, T> {
    Operands([qkv, &qkv[width..], &qkv[2 * width..]])
}

impl<T: Float> CustomOp1 for Attention<T> {
    fn name(&self) -> &'static str {
        "self_attention"
    }

    fn cpu_fwd(&self, qkv: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let extent = self.extent(layout.dims(), 3)?;
        Ok(self.result(extent, parts(elements(qkv, layout)?, extent.width)))
    }

    fn bwd(&self, qkv: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let extent = self.extent(qkv.dims(), 3)?;
        let width = extent.width;
        let gradient = with_elements(qkv, |qkv| self.back(extent, parts(qkv, width), dy, [0, width, 2 * width]))?;
        Ok(Some(Tensor::from_vec(gradient, qkv.shape(), qkv.device())?))
    }
}

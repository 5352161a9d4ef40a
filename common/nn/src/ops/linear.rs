//! The fully connected layer.

use super::composed;
use super::elementwise::where_positive;
use super::kernel::{Float, Start, Strided, Sum, vectorised};
use super::sparse::sparse_linear;
use super::split_linear::split_linear;
use super::tape::Factored;
use super::{Factors, Graph, add_columns, elements, for_float, transpose, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, WithDType};

/// `x·wᵀ + b` for x of shape [batch, in] or [batch, steps, in], w of [out, in], b of \[out\].
pub fn linear(graph: &mut Graph<'_>, x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::linear(x, w, b);
    }
    apply(graph, x, w, b, false)
}

/// `max(x·wᵀ + b, 0)`: [`linear`] and the rectifier, whose gradient at 0 is 0, in one pass.
pub fn linear_relu(graph: &mut Graph<'_>, x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::relu(&composed::linear(x, w, b)?);
    }
    apply(graph, x, w, b, true)
}

fn apply(graph: &mut Graph<'_>, x: &Tensor, w: &Tensor, b: &Tensor, rectify: bool) -> Result<Tensor> {
    if let Some(pattern) = graph.pattern(w) {
        return sparse_linear(graph, &pattern, [x, w, b], rectify);
    }
    if let Some(y) = split_linear(graph, [x, w, b], rectify)? {
        return Ok(y);
    }
    let wanted = Wanted { input: graph.needs_gradient(x), weights: graph.needs_gradient(w) };
    if let (Ok((batch, inputs)), Ok((outputs, _))) = (x.dims2(), w.dims2())
        && graph.may_factor(w)
        && Factors::pay(batch, outputs, inputs)
    {
        let op = Linear { rectify, wanted: Wanted { weights: false, ..wanted } };
        let y = x.apply_op3_no_bwd(w, b, &op)?;
        return Ok(graph.record_factored(op, [x.clone(), w.clone(), b.clone()], y));
    }
    graph.apply3(x, w, b, Linear { rectify, wanted })
}

/// Rows from which the weights are turned rather than the input.
const MANY_ROWS: usize = 128;

struct Linear {
    rectify: bool,
    wanted: Wanted,
}

/// The gradients that somebody asks for, beside that of the bias.
#[derive(Clone, Copy)]
struct Wanted {
    /// Not that of a network's input.
    input: bool,
    /// Not that of frozen weights.
    weights: bool,
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (outputs, inputs) = w_layout.shape().dims2()?;
        let mut shape = x_layout.dims().to_vec();
        if !(2..=3).contains(&shape.len()) || shape.pop() != Some(inputs) || b_layout.dims() != [outputs] {
            candle_core::bail!(
                "linear: x {:?}, w {:?}, b {:?}; want [batch, in] or [batch, steps, in], [out, in], [out]",
                x_layout.dims(),
                w_layout.dims(),
                b_layout.dims()
            );
        }
        let batch = shape.iter().product();
        shape.push(outputs);
        for_float!(x.dtype(), T => {
            let (x, w, b) = (elements::<T>(x, x_layout)?, elements::<T>(w, w_layout)?, elements::<T>(b, b_layout)?);
            let w = Strided::matrix(w, inputs);
            if batch >= MANY_ROWS {
                let product = Sum::product((batch, inputs, outputs), Strided::matrix(x, inputs), w.transposed());
                let y = Sum { start: Start::Bias(b), rectify: self.rectify, ..product }.into_vec();
                return Ok((T::to_cpu_storage_owned(y), Shape::from(shape)));
            }
            // Transposed, w is read where it lies, in order; only the small batch has to be turned.
            let x = transposed(x, inputs);
            let columns = Sum::product((outputs, inputs, batch), w, Strided::matrix(&x, batch)).into_vec();
            let mut y = Vec::with_capacity(batch * outputs);
            for row in 0..batch {
                let sums = b.iter().zip(columns.chunks_exact(batch)).map(|(b, column)| column[row] + b);
                if self.rectify {
                    y.extend(sums.map(|x| if x < 0.0 { 0.0 } else { x }));
                } else {
                    y.extend(sums);
                }
            }
            Ok((T::to_cpu_storage_owned(y), Shape::from(shape)))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        for_float!(x.dtype(), T => {
            with_elements::<T, _>(dy, |dy| {
                if !self.rectify {
                    return self.gradients(x, w, b, dy);
                }
                let masked = with_elements(y, |y| Ok(where_positive(y, dy)))?;
                self.gradients(x, w, b, &masked)
            })
        })
    }
}

impl Factored for Linear {
    fn backward(
        &self,
        [x, w, b]: &[Tensor; 3],
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Factors>, Option<Tensor>)> {
        for_float!(x.dtype(), T => {
            let dy = before_rectifier::<T>(self.rectify, y, dy)?;
            let (dx, _, db) = with_elements::<T, _>(&dy, |dy| self.gradients(x, w, b, dy))?;
            Ok((dx, Some(Factors { dy, x: x.contiguous()? }), db))
        })
    }
}

impl Linear {
    fn gradients<T: Float>(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        dy: &[T],
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (outputs, inputs) = w.dims2()?;
        let batch = x.elem_count() / inputs.max(1);
        let dy_matrix = Strided::matrix(dy, outputs);
        let dw = self.wanted.weights.then(|| {
            with_elements::<T, _>(x, |x| {
                let x = Strided::matrix(x, inputs);
                Ok(Sum::product((outputs, batch, inputs), dy_matrix.transposed(), x).into_vec())
            })
        });
        let dw = dw.transpose()?.map(|dw| Tensor::from_vec(dw, w.shape(), w.device())).transpose()?;
        let dx = self.wanted.input.then(|| {
            with_elements::<T, _>(w, |w| {
                let w = Strided::matrix(w, inputs);
                Ok(Sum::product((batch, outputs, inputs), dy_matrix, w).into_vec())
            })
        });
        let dx = dx.transpose()?;
        let dx = dx.map(|dx| Tensor::from_vec(dx, x.shape(), x.device())).transpose()?;
        Ok((dx, dw, Some(bias_gradient(dy, b)?)))
    }
}

/// The gradient of what the rectifier, if there is one, got, in one piece.
pub(super) fn before_rectifier<T: Float>(rectify: bool, y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    if !rectify {
        return dy.contiguous();
    }
    let masked = with_elements::<T, _>(dy, |dy| with_elements(y, |y| Ok(where_positive(y, dy))))?;
    Tensor::from_vec(masked, dy.shape(), dy.device())
}

/// The sum over the rows of the gradient of the results.
pub(super) fn bias_gradient<T: Float>(dy: &[T], b: &Tensor) -> Result<Tensor> {
    let mut db = vec![T::zero(); b.elem_count()];
    vectorised(
        #[inline(always)]
        || add_columns(dy, &mut db),
    );
    Tensor::from_vec(db, b.shape(), b.device())
}

/// The columns of a row-major matrix as rows.
fn transposed<T: Float>(matrix: &[T], columns: usize) -> Vec<T> {
    let mut transposed = vec![T::zero(); matrix.len()];
    transpose(matrix, columns, &mut transposed, matrix.len() / columns);
    transposed
}

//! The fully connected layer, the rectifier and the residual sum.

use super::kernel::{Float, Start, Strided, Sum, vectorised};
use super::{Graph, add_columns, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType};

/// `x·wᵀ + b` for x of shape [batch, in] or [batch, steps, in], w of [out, in], b of \[out\].
pub fn linear(graph: &mut Graph<'_>, x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    let input_gradient = graph.needs_gradient(x);
    graph.apply3(x, w, b, Linear { rectify: false, input_gradient })
}

/// `max(x·wᵀ + b, 0)`: [`linear`] and the rectifier, whose gradient at 0 is 0, in one pass.
pub fn linear_relu(graph: &mut Graph<'_>, x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    let input_gradient = graph.needs_gradient(x);
    graph.apply3(x, w, b, Linear { rectify: true, input_gradient })
}

/// `max(x + y, 0)` elementwise, of equal shapes: the end of a residual block.
pub fn add_relu(graph: &mut Graph<'_>, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    graph.apply2(x, y, AddRelu)
}

/// Rows from which the weights are turned rather than the input.
const MANY_ROWS: usize = 128;

struct Linear {
    rectify: bool,
    /// False for a network's input, whose gradient nobody asks for.
    input_gradient: bool,
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
            let masked = if self.rectify { Some(where_positive::<T>(y, dy)?) } else { None };
            self.gradients::<T>(x, w, b, masked.as_ref().unwrap_or(dy))
        })
    }
}

impl Linear {
    fn gradients<T: Float>(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (outputs, inputs) = w.dims2()?;
        let batch = x.elem_count() / inputs.max(1);
        let mut db = vec![T::zero(); outputs];
        let (dx, dw) = with_elements::<T, _>(dy, |dy| {
            let dy_matrix = Strided::matrix(dy, outputs);
            let dw = with_elements::<T, _>(x, |x| {
                let x = Strided::matrix(x, inputs);
                Ok(Sum::product((outputs, batch, inputs), dy_matrix.transposed(), x).into_vec())
            })?;
            vectorised(
                #[inline(always)]
                || add_columns(dy, &mut db),
            );
            let dx = self.input_gradient.then(|| {
                with_elements::<T, _>(w, |w| {
                    let w = Strided::matrix(w, inputs);
                    Ok(Sum::product((batch, outputs, inputs), dy_matrix, w).into_vec())
                })
            });
            Ok((dx.transpose()?, dw))
        })?;
        let dx = dx.map(|dx| Tensor::from_vec(dx, x.shape(), x.device())).transpose()?;
        Ok((dx, Some(Tensor::from_vec(dw, w.shape(), w.device())?), Some(Tensor::from_vec(db, b.shape(), b.device())?)))
    }
}

/// The columns of a row-major matrix as rows.
fn transposed<T: Float>(matrix: &[T], columns: usize) -> Vec<T> {
    let mut transposed = Vec::with_capacity(matrix.len());
    for column in 0..columns {
        transposed.extend(matrix.iter().skip(column).step_by(columns).copied());
    }
    transposed
}

/// `dy` where `y` is positive, else 0: back through a rectifier.
fn where_positive<T: Float>(y: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let dx = with_elements::<T, _>(y, |y| {
        with_elements::<T, _>(dy, |dy| {
            let select = |(&y, &dy): (&T, &T)| if y > T::zero() { dy } else { T::zero() };
            Ok(vectorised(
                #[inline(always)]
                || y.iter().zip(dy).map(select).collect::<Vec<T>>(),
            ))
        })
    })?;
    Tensor::from_vec(dx, y.shape(), y.device())
}

struct AddRelu;

impl CustomOp2 for AddRelu {
    fn name(&self) -> &'static str {
        "add_relu"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if x_layout.dims() != y_layout.dims() {
            candle_core::bail!("add_relu: x {:?}, y {:?}", x_layout.dims(), y_layout.dims());
        }
        for_float!(x.dtype(), T => {
            let (x, y) = (elements::<T>(x, x_layout)?, elements::<T>(y, y_layout)?);
            // Written so that NaN stays NaN: a diverged run must not look healthy.
            let add = |(&x, &y): (&T, &T)| {
                let sum = x + y;
                if sum < 0.0 { 0.0 } else { sum }
            };
            let sum = vectorised(
                #[inline(always)]
                || x.iter().zip(y).map(add).collect(),
            );
            Ok((T::to_cpu_storage_owned(sum), x_layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, sum: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        for_float!(x.dtype(), T => {
            let gradient = where_positive::<T>(sum, dy)?;
            Ok((Some(gradient.clone()), Some(gradient)))
        })
    }
}

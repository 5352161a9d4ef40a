//! The fully connected layer, the rectifier and the residual sum.

use super::gemm::{Into, Matrix, product};
use super::{Graph, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType};

/// `x·wᵀ + b` for x of shape [batch, in], w of [out, in], b of [out].
pub(crate) fn linear(graph: &mut Graph<'_>, x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    let input_gradient = graph.needs_gradient(x);
    graph.apply3(x, w, b, Linear { input_gradient })
}

/// `max(x, 0)` elementwise; the gradient at 0 is 0.
pub(crate) fn relu(graph: &mut Graph<'_>, x: &Tensor) -> Result<Tensor> {
    graph.apply1(x, Relu)
}

/// `x + y` elementwise, of equal shapes.
pub(crate) fn add(graph: &mut Graph<'_>, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    graph.apply2(x, y, Add)
}

struct Linear {
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
        let (batch, inputs) = x_layout.shape().dims2()?;
        let (outputs, w_inputs) = w_layout.shape().dims2()?;
        if inputs != w_inputs || b_layout.dims() != [outputs] {
            candle_core::bail!(
                "linear: x {:?}, w {:?}, b {:?}; want [batch, in], [out, in], [out]",
                x_layout.dims(),
                w_layout.dims(),
                b_layout.dims()
            );
        }
        for_float!(x.dtype(), T => {
            let (x, w, b) = (elements::<T>(x, x_layout)?, elements::<T>(w, w_layout)?, elements::<T>(b, b_layout)?);
            // Transposed, w is read where it lies; x·wᵀ would have it packed anew for every small batch.
            let mut transposed = vec![0.0; outputs * batch];
            let x = Matrix::new(x, batch, inputs);
            product(Matrix::new(w, outputs, inputs), x.transposed(), &mut transposed, Into::Replace);
            let mut y = Vec::with_capacity(batch * outputs);
            for row in 0..batch {
                y.extend(b.iter().zip(transposed.chunks_exact(batch)).map(|(b, column)| column[row] + b));
            }
            Ok((T::to_cpu_storage_owned(y), Shape::from((batch, outputs))))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        for_float!(x.dtype(), T => self.gradients::<T>(x, w, b, dy))
    }
}

impl Linear {
    fn gradients<T: WithDType>(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let ((batch, inputs), (outputs, _)) = (x.dims2()?, w.dims2()?);
        let mut dw = vec![T::zero(); outputs * inputs];
        let mut db = vec![T::zero(); outputs];
        let mut dx = vec![T::zero(); if self.input_gradient { batch * inputs } else { 0 }];
        with_elements::<T, _>(dy, |dy| {
            let dy_matrix = Matrix::new(dy, batch, outputs);
            with_elements::<T, _>(x, |x| {
                product(dy_matrix.transposed(), Matrix::new(x, batch, inputs), &mut dw, Into::Replace);
                Ok(())
            })?;
            for row in dy.chunks_exact(outputs) {
                for (db, &dy) in db.iter_mut().zip(row) {
                    *db += dy;
                }
            }
            if self.input_gradient {
                with_elements::<T, _>(w, |w| {
                    product(dy_matrix, Matrix::new(w, outputs, inputs), &mut dx, Into::Replace);
                    Ok(())
                })?;
            }
            Ok(())
        })?;
        let dx = if self.input_gradient { Some(Tensor::from_vec(dx, x.shape(), x.device())?) } else { None };
        Ok((dx, Some(Tensor::from_vec(dw, w.shape(), w.device())?), Some(Tensor::from_vec(db, b.shape(), b.device())?)))
    }
}

struct Relu;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        for_float!(x.dtype(), T => {
            let x = elements::<T>(x, layout)?;
            // Written so that NaN stays NaN: a diverged run must not look healthy.
            let y = x.iter().map(|&x| if x < 0.0 { 0.0 } else { x }).collect();
            Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        for_float!(x.dtype(), T => {
            let dx = with_elements::<T, _>(y, |y| with_elements::<T, _>(dy, |dy| {
                Ok(y.iter().zip(dy).map(|(&y, &dy)| if y > 0.0 { dy } else { 0.0 }).collect::<Vec<T>>())
            }))?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}

/// candle's own sum would be split over a pool of threads.
struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if x_layout.dims() != y_layout.dims() {
            candle_core::bail!("add: x {:?}, y {:?}", x_layout.dims(), y_layout.dims());
        }
        for_float!(x.dtype(), T => {
            let (x, y) = (elements::<T>(x, x_layout)?, elements::<T>(y, y_layout)?);
            let sum = x.iter().zip(y).map(|(&x, &y)| x + y).collect();
            Ok((T::to_cpu_storage_owned(sum), x_layout.shape().clone()))
        })
    }

    fn bwd(
        &self,
        _x: &Tensor,
        _y: &Tensor,
        _sum: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(gradient.clone()), Some(gradient.clone())))
    }
}

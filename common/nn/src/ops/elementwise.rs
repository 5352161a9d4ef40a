//! Operations on each element by itself.

use super::composed;
use super::kernel::{Float, vectorised};
use super::{Graph, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, WithDType};

/// x·Φ(x) with Φ the distribution function of the normal distribution (Hendrycks & Gimpel 2016), by the error function
/// and not its approximation by tanh.
pub fn gelu(graph: &mut Graph<'_>, x: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return x.gelu_erf();
    }
    graph.apply1(x, Function::Gelu)
}

/// x·σ(x), also called swish.
pub fn silu(graph: &mut Graph<'_>, x: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return x.silu();
    }
    graph.apply1(x, Function::Silu)
}

/// The hyperbolic tangent.
pub fn tanh(graph: &mut Graph<'_>, x: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return x.tanh();
    }
    graph.apply1(x, Function::Tanh)
}

/// The logistic function σ(x) = 1/(1 + e^(−x)).
pub fn sigmoid(graph: &mut Graph<'_>, x: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::sigmoid(x);
    }
    graph.apply1(x, Function::Sigmoid)
}

/// `x + y` elementwise, of equal shapes: a residual connection.
pub fn add(graph: &mut Graph<'_>, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return x + y;
    }
    graph.apply2(x, y, Add { rectify: false })
}

/// `max(x + y, 0)` elementwise, of equal shapes: the end of a residual block.
pub fn add_relu(graph: &mut Graph<'_>, x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::relu(&(x + y)?);
    }
    graph.apply2(x, y, Add { rectify: true })
}

#[derive(Clone, Copy)]
enum Function {
    Gelu,
    Silu,
    Tanh,
    Sigmoid,
}

impl CustomOp1 for Function {
    fn name(&self) -> &'static str {
        match self {
            Self::Gelu => "gelu",
            Self::Silu => "silu",
            Self::Tanh => "tanh",
            Self::Sigmoid => "sigmoid",
        }
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        for_float!(x.dtype(), T => {
            let y = self.values::<T>(elements(x, layout)?);
            Ok((T::to_cpu_storage_owned(y), layout.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        for_float!(x.dtype(), T => {
            // Two of the slopes follow from the result.
            let of = if matches!(self, Self::Gelu | Self::Silu) { x } else { y };
            let dx = with_elements::<T, _>(of, |of| with_elements(dy, |dy| Ok(self.gradients(of, dy))))?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}

impl Function {
    fn values<T: Float>(self, x: &[T]) -> Vec<T> {
        match self {
            Self::Gelu => map(
                x,
                #[inline(always)]
                |x| x * normal_distribution(x),
            ),
            Self::Silu => map(
                x,
                #[inline(always)]
                |x| x * x.logistic(),
            ),
            Self::Tanh => map(
                x,
                #[inline(always)]
                |x| x.hyperbolic_tangent(),
            ),
            Self::Sigmoid => map(
                x,
                #[inline(always)]
                |x| x.logistic(),
            ),
        }
    }

    /// The slope times `dy`, by the argument or, for the last two, by the value.
    fn gradients<T: Float>(self, of: &[T], dy: &[T]) -> Vec<T> {
        let one = T::one();
        match self {
            Self::Gelu => map2(
                of,
                dy,
                #[inline(always)]
                |x, dy| {
                    let density = (x * x * T::from_f64(-0.5)).exponential() * T::from_f64(DENSITY_AT_0);
                    dy * (normal_distribution(x) + x * density)
                },
            ),
            Self::Silu => map2(
                of,
                dy,
                #[inline(always)]
                |x, dy| {
                    let sigmoid = x.logistic();
                    dy * sigmoid * (one + x * (one - sigmoid))
                },
            ),
            Self::Tanh => map2(
                of,
                dy,
                #[inline(always)]
                |y, dy| dy * (one - y * y),
            ),
            Self::Sigmoid => map2(
                of,
                dy,
                #[inline(always)]
                |y, dy| dy * y * (one - y),
            ),
        }
    }
}

/// 1/√(2π)
const DENSITY_AT_0: f64 = 0.398_942_280_401_432_7;

/// Φ(x) = (1 + erf(x/√2))/2
#[inline(always)]
fn normal_distribution<T: Float>(x: T) -> T {
    let half = T::from_f64(0.5);
    half + half * (x * T::from_f64(std::f64::consts::FRAC_1_SQRT_2)).error_function()
}

// Written as loops: what `collect` calls would not be compiled for the vector unit.

fn map<T: Float>(x: &[T], f: impl Fn(T) -> T) -> Vec<T> {
    let mut results = vec![T::zero(); x.len()];
    vectorised(
        #[inline(always)]
        || {
            for (result, &x) in results.iter_mut().zip(x) {
                *result = f(x);
            }
        },
    );
    results
}

fn map2<T: Float>(x: &[T], y: &[T], f: impl Fn(T, T) -> T) -> Vec<T> {
    let mut results = vec![T::zero(); x.len()];
    vectorised(
        #[inline(always)]
        || {
            for (result, (&x, &y)) in results.iter_mut().zip(x.iter().zip(y)) {
                *result = f(x, y);
            }
        },
    );
    results
}

/// `dy` where `y` is positive, else 0: back through a rectifier.
pub(super) fn where_positive<T: Float>(y: &[T], dy: &[T]) -> Vec<T> {
    map2(
        y,
        dy,
        #[inline(always)]
        |y, dy| if y > T::zero() { dy } else { T::zero() },
    )
}

struct Add {
    rectify: bool,
}

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        if self.rectify { "add_relu" } else { "add" }
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if x_layout.dims() != y_layout.dims() {
            candle_core::bail!("{}: x {:?}, y {:?}", self.name(), x_layout.dims(), y_layout.dims());
        }
        for_float!(x.dtype(), T => {
            let (x, y) = (elements::<T>(x, x_layout)?, elements::<T>(y, y_layout)?);
            let sum = map2(x, y, #[inline(always)] |x, y| {
                let sum = x + y;
                // Written so that NaN stays NaN: a diverged run must not look healthy.
                if self.rectify && sum < 0.0 { 0.0 } else { sum }
            });
            Ok((T::to_cpu_storage_owned(sum), x_layout.shape().clone()))
        })
    }

    fn bwd(&self, _x: &Tensor, _y: &Tensor, sum: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        if !self.rectify {
            return Ok((Some(dy.clone()), Some(dy.clone())));
        }
        for_float!(sum.dtype(), T => {
            let gradient = with_elements::<T, _>(sum, |sum| with_elements(dy, |dy| Ok(where_positive(sum, dy))))?;
            let gradient = Tensor::from_vec(gradient, sum.shape(), sum.device())?;
            Ok((Some(gradient.clone()), Some(gradient)))
        })
    }
}

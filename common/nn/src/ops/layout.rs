//! Between images as data sets and weights have them, channel after channel, and as the layers here want them, with
//! the channels of a pixel side by side.

use super::composed;
use super::kernel::Float;
use super::{Graph, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};

/// [n, c·h·w] as [n, h, w, c]: the network's input.
pub fn channels_last(graph: &mut Graph<'_>, x: &Tensor, [c, h, w]: [usize; 3]) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::channels_last(x, [c, h, w]);
    }
    if c == 1 {
        // The same order, and no gradient that would have to find its way back to `x` on a tape.
        return x.reshape(((), h, w, c));
    }
    if graph.is_taped() {
        // Not recorded either: what went in needs no gradient.
        return x.apply_op1_no_bwd(&ChannelsLast { c, h, w });
    }
    graph.apply1(x, ChannelsLast { c, h, w })
}

/// [n, h, w, c] as [n, c·h·w]: the order in which the weights of the next linear layer lie.
pub fn flatten(graph: &mut Graph<'_>, x: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return composed::flatten(x);
    }
    graph.apply1(x, Flatten)
}

struct ChannelsLast {
    c: usize,
    h: usize,
    w: usize,
}

struct Flatten;

/// Each matrix of rows×columns transposed.
fn transpose_each<T: Float>(matrices: &[T], rows: usize, columns: usize) -> Vec<T> {
    let mut transposed = Vec::with_capacity(matrices.len());
    for matrix in matrices.chunks_exact(rows * columns) {
        for column in 0..columns {
            transposed.extend(matrix.iter().skip(column).step_by(columns).copied());
        }
    }
    transposed
}

impl CustomOp1 for ChannelsLast {
    fn name(&self) -> &'static str {
        "channels_last"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Self { c, h, w } = *self;
        let (batch, features) = layout.shape().dims2()?;
        if features != c * h * w {
            candle_core::bail!("channels_last: {features} features are not {c}×{h}×{w}");
        }
        for_float!(x.dtype(), T => {
            let x = transpose_each(elements::<T>(x, layout)?, c, h * w);
            Ok((T::to_cpu_storage_owned(x), Shape::from((batch, h, w, c))))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        for_float!(x.dtype(), T => {
            let dx = with_elements::<T, _>(dy, |dy| Ok(transpose_each(dy, self.h * self.w, self.c)))?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}

impl CustomOp1 for Flatten {
    fn name(&self) -> &'static str {
        "flatten"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, h, w, c) = layout.shape().dims4()?;
        for_float!(x.dtype(), T => {
            let x = transpose_each(elements::<T>(x, layout)?, h * w, c);
            Ok((T::to_cpu_storage_owned(x), Shape::from((n, c * h * w))))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (_, h, w, c) = x.dims4()?;
        for_float!(x.dtype(), T => {
            let dx = with_elements::<T, _>(dy, |dy| Ok(transpose_each(dy, c, h * w)))?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}

//! Pooling over images of shape [batch, channels, height, width].

use super::{Graph, elements, for_float, sum_of, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};

/// Largest value of each 2×2 window: [n, c, h, w] becomes [n, c, ⌊h/2⌋, ⌊w/2⌋]; an odd last row or column is ignored.
///
/// The gradient goes to the largest element, among equals to the first in reading order, as in torch.
pub(crate) fn max_pool_2x2(graph: &mut Graph<'_>, x: &Tensor) -> Result<Tensor> {
    graph.apply1(x, MaxPool)
}

/// Mean of each channel: [n, c, h, w] becomes [n, c].
pub(crate) fn global_avg_pool(graph: &mut Graph<'_>, x: &Tensor) -> Result<Tensor> {
    graph.apply1(x, GlobalAvgPool)
}

struct MaxPool;

/// Calls `visit(output index, input index of the largest element)` for every window.
fn for_each_maximum<T: WithDType>(x: &[T], height: usize, width: usize, mut visit: impl FnMut(usize, usize)) {
    let (out_height, out_width) = (height / 2, width / 2);
    let mut output = 0;
    for image in 0..x.len() / (height * width) {
        for row in 0..out_height {
            let top = (image * height + 2 * row) * width;
            for column in 0..out_width {
                let first = top + 2 * column;
                let mut best = first;
                for candidate in [first + 1, first + width, first + width + 1] {
                    if x[candidate] > x[best] {
                        best = candidate;
                    }
                }
                visit(output, best);
                output += 1;
            }
        }
    }
}

impl CustomOp1 for MaxPool {
    fn name(&self) -> &'static str {
        "max_pool_2x2"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, c, h, w) = layout.shape().dims4()?;
        for_float!(x.dtype(), T => {
            let x = elements::<T>(x, layout)?;
            let mut y = vec![0.0; n * c * (h / 2) * (w / 2)];
            for_each_maximum(x, h, w, |output, input| y[output] = x[input]);
            Ok((T::to_cpu_storage_owned(y), Shape::from((n, c, h / 2, w / 2))))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, h, w) = x.dims4()?;
        for_float!(x.dtype(), T => {
            let mut dx: Vec<T> = vec![0.0; x.elem_count()];
            with_elements::<T, _>(x, |x| with_elements::<T, _>(dy, |dy| {
                for_each_maximum(x, h, w, |output, input| dx[input] = dy[output]);
                Ok(())
            }))?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}

struct GlobalAvgPool;

impl CustomOp1 for GlobalAvgPool {
    fn name(&self) -> &'static str {
        "global_avg_pool"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, c, h, w) = layout.shape().dims4()?;
        for_float!(x.dtype(), T => {
            let area = (h * w) as T;
            let x = elements::<T>(x, layout)?;
            let y = x.chunks_exact(h * w).map(|channel| sum_of(channel, |value| value) / area).collect();
            Ok((T::to_cpu_storage_owned(y), Shape::from((n, c))))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (_, _, h, w) = x.dims4()?;
        for_float!(x.dtype(), T => {
            let area = (h * w) as T;
            let dx = with_elements::<T, _>(dy, |dy| {
                Ok(dy.iter().flat_map(|&dy| std::iter::repeat_n(dy / area, h * w)).collect::<Vec<T>>())
            })?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}

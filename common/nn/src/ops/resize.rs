//! Images in another size.

use super::composed;
use super::kernel::Float;
use super::{Graph, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType};

/// Bilinear interpolation between the centres of pixels: [n, h, w, c] becomes [n, size\[0\], size\[1\], c], as torch's
/// `interpolate` with `align_corners=False` does.
///
/// # Errors
/// When an extent is zero.
pub fn resize(graph: &mut Graph<'_>, x: &Tensor, size: [usize; 2]) -> Result<Tensor> {
    if graph.composes(x) {
        let (_, h, w, _) = x.dims4()?;
        return composed::resize(x, [&weights(h, size[0]), &weights(w, size[1])]);
    }
    graph.apply1(x, Resize { size })
}

struct Resize {
    size: [usize; 2],
}

/// Where a new row or column lies between two old ones.
struct Between {
    first: usize,
    second: usize,
    /// Share of the second.
    share: f64,
}

fn between(old: usize, new: usize) -> Vec<Between> {
    let scale = old as f64 / new as f64;
    let place = |index: usize| {
        let position = ((index as f64 + 0.5) * scale - 0.5).clamp(0.0, (old - 1) as f64);
        let first = position as usize;
        Between { first, second: (first + 1).min(old - 1), share: position - first as f64 }
    };
    (0..new).map(place).collect()
}

/// A matrix [new, old] of what each new row or column is made of.
fn weights(old: usize, new: usize) -> Vec<f64> {
    let mut weights = vec![0.0; new * old];
    for (row, at) in weights.chunks_exact_mut(old.max(1)).zip(between(old, new)) {
        row[at.first] += 1.0 - at.share;
        row[at.second] += at.share;
    }
    weights
}

impl Resize {
    /// Calls `visit(new pixel, old pixel, weight)` for the four old pixels that each new one is made of.
    fn for_each(&self, batch: usize, height: usize, width: usize, mut visit: impl FnMut(usize, usize, f64)) {
        let (rows, columns) = (between(height, self.size[0]), between(width, self.size[1]));
        let mut to = 0;
        for image in 0..batch {
            for row in &rows {
                for column in &columns {
                    for (y, y_weight) in [(row.first, 1.0 - row.share), (row.second, row.share)] {
                        for (x, x_weight) in [(column.first, 1.0 - column.share), (column.second, column.share)] {
                            visit(to, (image * height + y) * width + x, y_weight * x_weight);
                        }
                    }
                    to += 1;
                }
            }
        }
    }

    fn forward<T: Float>(&self, x: &[T], [n, h, w, c]: [usize; 4]) -> Vec<T> {
        let mut y = vec![T::zero(); n * self.size[0] * self.size[1] * c];
        self.for_each(n, h, w, |to, from, weight| {
            let weight = T::from_f64(weight);
            for (y, &x) in y[to * c..(to + 1) * c].iter_mut().zip(&x[from * c..(from + 1) * c]) {
                *y += x * weight;
            }
        });
        y
    }

    fn backward<T: Float>(&self, dy: &[T], [n, h, w, c]: [usize; 4]) -> Vec<T> {
        let mut dx = vec![T::zero(); n * h * w * c];
        self.for_each(n, h, w, |to, from, weight| {
            let weight = T::from_f64(weight);
            for (dx, &dy) in dx[from * c..(from + 1) * c].iter_mut().zip(&dy[to * c..(to + 1) * c]) {
                *dx += dy * weight;
            }
        });
        dx
    }
}

impl CustomOp1 for Resize {
    fn name(&self) -> &'static str {
        "resize"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (n, h, w, c) = layout.shape().dims4()?;
        let [rows, columns] = self.size;
        if h * w * rows * columns == 0 {
            candle_core::bail!("resize: from {h}×{w} to {rows}×{columns}");
        }
        for_float!(x.dtype(), T => {
            let y = self.forward(elements::<T>(x, layout)?, [n, h, w, c]);
            Ok((T::to_cpu_storage_owned(y), Shape::from((n, rows, columns, c))))
        })
    }

    fn bwd(&self, x: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (n, h, w, c) = x.dims4()?;
        for_float!(x.dtype(), T => {
            let dx = with_elements::<T, _>(dy, |dy| Ok(self.backward(dy, [n, h, w, c])))?;
            Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
        })
    }
}

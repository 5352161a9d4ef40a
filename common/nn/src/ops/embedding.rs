//! Vectors for tokens and for their places.

use super::composed;
use super::kernel::Float;
use super::{Graph, elements, for_float, with_elements};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, WithDType};

/// The row of `table` [vocabulary, d] for each token: ids [batch, steps] becomes [batch, steps, d].
///
/// The ids are whole numbers from 0 on, as floats, which is how a data set's rows come; they have no gradient.
///
/// # Errors
/// When a token is not in the vocabulary.
pub fn embedding(graph: &mut Graph<'_>, ids: &Tensor, table: &Tensor) -> Result<Tensor> {
    if graph.composes(ids) {
        return composed::embedding(ids, table);
    }
    graph.apply2(ids, table, Embedding)
}

/// `x + table` for each sequence of a batch: x is [batch, steps, d], table [steps, d].
pub fn add_positions(graph: &mut Graph<'_>, x: &Tensor, table: &Tensor) -> Result<Tensor> {
    if graph.composes(x) {
        return x.broadcast_add(table);
    }
    graph.apply2(x, table, AddPositions)
}

struct Embedding;

/// The tokens as row numbers.
fn rows<T: WithDType>(ids: &[T], steps: usize, vocabulary: usize) -> Result<Vec<usize>> {
    let row = |(place, id): (usize, &T)| {
        let id = id.to_f64();
        if id >= 0.0 && id < vocabulary as f64 && id.fract() == 0.0 {
            return Ok(id as usize);
        }
        candle_core::bail!(
            "embedding: token {id} in row {}, step {}; tokens are whole numbers below the vocabulary's {vocabulary}",
            place / steps,
            place % steps
        )
    };
    ids.iter().enumerate().map(row).collect()
}

impl CustomOp2 for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu_fwd(
        &self,
        ids: &CpuStorage,
        ids_layout: &Layout,
        table: &CpuStorage,
        table_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (batch, steps) = ids_layout.shape().dims2()?;
        let (vocabulary, width) = table_layout.shape().dims2()?;
        for_float!(table.dtype(), T => {
            let (ids, table) = (elements::<T>(ids, ids_layout)?, elements::<T>(table, table_layout)?);
            let mut y = Vec::with_capacity(ids.len() * width);
            for row in rows(ids, steps, vocabulary)? {
                y.extend_from_slice(&table[row * width..(row + 1) * width]);
            }
            Ok((T::to_cpu_storage_owned(y), Shape::from((batch, steps, width))))
        })
    }

    fn bwd(&self, ids: &Tensor, table: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let ((_, steps), (vocabulary, width)) = (ids.dims2()?, table.dims2()?);
        for_float!(table.dtype(), T => {
            let mut sums = vec![T::from_f64(0.0); vocabulary * width];
            with_elements::<T, _>(ids, |ids| with_elements::<T, _>(dy, |dy| {
                for (row, dy) in rows(ids, steps, vocabulary)?.into_iter().zip(dy.chunks_exact(width.max(1))) {
                    add_to(&mut sums[row * width..(row + 1) * width], dy);
                }
                Ok(())
            }))?;
            Ok((None, Some(Tensor::from_vec(sums, table.shape(), table.device())?)))
        })
    }
}

fn add_to<T: Float>(sums: &mut [T], values: &[T]) {
    sums.iter_mut().zip(values).for_each(|(sum, &value)| *sum += value);
}

struct AddPositions;

impl CustomOp2 for AddPositions {
    fn name(&self) -> &'static str {
        "add_positions"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        table: &CpuStorage,
        table_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, steps, width) = x_layout.shape().dims3()?;
        if table_layout.dims() != [steps, width] {
            let (x, table) = (x_layout.dims(), table_layout.dims());
            candle_core::bail!("add_positions: x {x:?}, table {table:?}; want [batch, steps, d], [steps, d]");
        }
        for_float!(x.dtype(), T => {
            let table = elements::<T>(table, table_layout)?;
            let mut y = elements::<T>(x, x_layout)?.to_vec();
            y.chunks_exact_mut(table.len().max(1)).for_each(|sequence| add_to(sequence, table));
            Ok((T::to_cpu_storage_owned(y), x_layout.shape().clone()))
        })
    }

    fn bwd(&self, _x: &Tensor, table: &Tensor, _y: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        for_float!(table.dtype(), T => {
            let mut sums = vec![T::from_f64(0.0); table.elem_count()];
            with_elements::<T, _>(dy, |dy| {
                dy.chunks_exact(sums.len().max(1)).for_each(|dy| add_to(&mut sums, dy));
                Ok(())
            })?;
            Ok((Some(dy.clone()), Some(Tensor::from_vec(sums, table.shape(), table.device())?)))
        })
    }
}

//! The gradient of a fully connected layer's weights as what it is the product of.

use super::kernel::{Float, Strided, Sum};
use super::{for_float, with_elements};
use candle_core::{Result, Tensor};
use std::ops::Range;

/// dW = dyᵀ·x, not multiplied out: for few rows of x the product is far larger than both, and an optimizer that needs each
/// element of it once can have it a few rows at a time, without its ever lying in memory.
#[derive(Debug)]
pub(crate) struct Factors {
    /// The gradient of the layer's results, of shape [batch, out].
    pub(crate) dy: Tensor,
    /// The layer's operand, of shape [batch, in].
    pub(crate) x: Tensor,
}

impl Factors {
    /// Whether a gradient is worth leaving in factors: that of many weights by few rows.
    pub(super) fn pay(batch: usize, outputs: usize, inputs: usize) -> bool {
        batch <= MOST_ROWS && outputs * inputs >= LEAST_WEIGHTS
    }

    /// The gradient, of shape [out, in].
    pub(crate) fn whole(&self) -> Result<Tensor> {
        let (outputs, inputs) = (self.dy.dim(1)?, self.x.dim(1)?);
        for_float!(self.x.dtype(), T => with_elements::<T, _>(&self.dy, |dy| {
            with_elements::<T, _>(&self.x, |x| {
                let mut whole = vec![T::default(); outputs * inputs];
                multiply((dy, outputs), (x, inputs), 0..outputs, &mut whole);
                Tensor::from_vec(whole, (outputs, inputs), self.x.device())
            })
        }))
    }
}

/// The same of borrowed elements.
#[derive(Clone, Copy)]
pub(crate) struct Product<'a> {
    pub(crate) dy: &'a [f32],
    pub(crate) x: &'a [f32],
    pub(crate) outputs: usize,
    pub(crate) inputs: usize,
}

impl Product<'_> {
    /// Some rows of it, to the same bits as in one piece.
    pub(crate) fn rows(&self, rows: Range<usize>, result: &mut [f32]) {
        multiply((self.dy, self.outputs), (self.x, self.inputs), rows, result);
    }
}

fn multiply<T: Float>((dy, outputs): (&[T], usize), (x, inputs): (&[T], usize), rows: Range<usize>, to: &mut [T]) {
    let dy = Strided::matrix(&dy[rows.start..], outputs).transposed();
    Sum::product((rows.len(), x.len() / inputs, inputs), dy, Strided::matrix(x, inputs)).run(to);
}

/// Rows of a batch: more make the product worth its memory, and are read anew for each piece of it.
const MOST_ROWS: usize = 64;
/// A quarter of a MiB of f32.
const LEAST_WEIGHTS: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::{Graph, Tape, cross_entropy, linear, linear_relu};
    use candle_core::Device;

    #[test]
    fn pieces_are_those_of_the_product() {
        let (batch, outputs, inputs) = (7, 21, 53);
        let numbers = |n: usize, by: usize| (0..n).map(|i| ((i * by) % 97) as f32 / 97.0 - 0.5).collect::<Vec<f32>>();
        let (dy, x) = (numbers(batch * outputs, 31), numbers(batch * inputs, 57));
        let tensor = |data: &[f32], columns| Tensor::from_slice(data, (batch, columns), &Device::Cpu).unwrap();
        let factors = Factors { dy: tensor(&dy, outputs), x: tensor(&x, inputs) };
        let expected = factors.dy.t().unwrap().matmul(&factors.x).unwrap().to_vec2::<f32>().unwrap();
        let whole = factors.whole().unwrap().to_vec2::<f32>().unwrap();
        let product = Product { dy: &dy, x: &x, outputs, inputs };
        for rows in [0..1, 3..11, 20..21, 0..outputs] {
            let mut piece = vec![f32::NAN; rows.len() * inputs];
            product.rows(rows.clone(), &mut piece);
            for (row, piece) in rows.zip(piece.chunks(inputs)) {
                assert_eq!(whole[row], piece, "row {row}");
                let close = piece.iter().zip(&expected[row]).all(|(a, e)| (a - e).abs() < 1e-5);
                assert!(close, "row {row}: {piece:?}, want {:?}", expected[row]);
            }
        }
    }
    #[test]
    fn weights_of_two_layers_have_one_gradient() {
        let width = 1 << 8;
        let numbers = |n: usize, by: usize| (0..n).map(|i| ((i * by) % 97) as f32 / 97.0 - 0.5).collect::<Vec<f32>>();
        let tensor = |n: usize, by, shape: &[usize]| Tensor::from_vec(numbers(n, by), shape, &Device::Cpu).unwrap();
        let w = tensor(width * width, 31, &[width, width]);
        let (b, x) = (tensor(width, 17, &[width]), tensor(3 * width, 57, &[3, width]));
        let gradient = |tape: Tape| {
            let mut tape = tape;
            let mut graph = Graph::on(&mut tape);
            let hidden = linear_relu(&mut graph, &x, &w, &b).unwrap();
            let y = linear(&mut graph, &hidden, &w, &b).unwrap();
            let loss = cross_entropy(&mut graph, &y, &[0, 9, 200], 3).unwrap();
            let mut gradients = tape.backward(&loss).unwrap();
            assert!(gradients.take_factors(&w).is_none());
            gradients.take(&w).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let of_both = || Tape::of([&w, &b]);
        assert_eq!(gradient(of_both().with_factors()), gradient(of_both()));
    }
}

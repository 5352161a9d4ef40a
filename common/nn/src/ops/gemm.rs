//! Matrix products on the calling thread.
#![allow(unsafe_code, reason = "the gemm crate takes raw pointers; `product` is the one place that hands it some")]

use candle_core::WithDType;

/// A matrix in a slice: row `i`, column `j` is `data[i * row_stride + j * column_stride]`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a, T> {
    data: &'a [T],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a, T: WithDType> Matrix<'a, T> {
    /// A row-major matrix that fills its slice.
    ///
    /// # Panics
    /// When the slice has another length.
    pub(super) fn new(data: &'a [T], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a {rows}×{columns} matrix");
        Self { data, rows, columns, row_stride: columns, column_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub(super) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }
}

/// Whether a product replaces what the destination holds or is added to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Into {
    Replace,
    Add,
}

/// Row-major `out = a·b` or `out += a·b`, on the calling thread.
///
/// # Panics
/// When the extents do not fit.
pub(super) fn product<T: WithDType>(a: Matrix<'_, T>, b: Matrix<'_, T>, out: &mut [T], into: Into) {
    assert_eq!(a.columns, b.rows, "inner extents");
    assert_eq!(out.len(), a.rows * b.columns, "a {}×{} product", a.rows, b.columns);
    // SAFETY: `Matrix` can only be made so that every (row, column) lies in its slice, `out` was measured above, and
    // the borrow checker keeps `out` apart from both. T is f32 or f64, for which gemm has kernels; for any other type
    // it panics.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            out.as_mut_ptr(),
            1,
            b.columns as isize,
            into == Into::Add,
            a.data.as_ptr(),
            a.column_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.column_stride as isize,
            b.row_stride as isize,
            T::one(),
            T::one(),
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naive(a: Matrix<'_, f64>, b: Matrix<'_, f64>, out: &mut [f64], into: Into) {
        for i in 0..a.rows {
            for j in 0..b.columns {
                let dot: f64 = (0..a.columns)
                    .map(|k| {
                        a.data[i * a.row_stride + k * a.column_stride] * b.data[k * b.row_stride + j * b.column_stride]
                    })
                    .sum();
                let old = if into == Into::Add { out[i * b.columns + j] } else { 0.0 };
                out[i * b.columns + j] = old + dot;
            }
        }
    }

    #[test]
    fn products_agree_with_the_definition_for_all_transpositions() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (17, 33, 9), (64, 10, 70), (1, 40, 3), (5, 1, 21)] {
            let a: Vec<f64> = (0..m * k).map(|i| ((i * 37 % 19) as f64) - 9.0).collect();
            let b: Vec<f64> = (0..k * n).map(|i| ((i * 53 % 23) as f64) - 11.0).collect();
            for a in [Matrix::new(&a, m, k), Matrix::new(&a, k, m).transposed()] {
                for b in [Matrix::new(&b, k, n), Matrix::new(&b, n, k).transposed()] {
                    for into in [Into::Replace, Into::Add] {
                        let (mut fast, mut slow) = (vec![2.0; m * n], vec![2.0; m * n]);
                        product(a, b, &mut fast, into);
                        naive(a, b, &mut slow, into);
                        // Small integers: every order of summation is exact.
                        assert_eq!(fast, slow, "{m}×{n}×{k}");
                    }
                }
            }
        }
    }
}

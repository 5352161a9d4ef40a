//! Weights as matrices, and their products with columns of inputs.

use super::convolution::Convolution;
use super::int8::Int8;
use crate::ops::vectorised;

/// A layer's weights: a row for each output. The second part is the kernel's rows and columns, 1×1 for linear layers.
#[derive(Debug)]
pub(super) enum Matrix {
    Dense { values: Vec<f32>, row: usize, kernel: [usize; 2] },
    Sparse(Csr, [usize; 2]),
    Int8(Int8, [usize; 2]),
}

/// Compressed sparse rows.
#[derive(Debug)]
pub(super) struct Csr {
    /// Row r has the entries from `starts[r]` to `starts[r + 1]`.
    starts: Vec<u32>,
    columns: Vec<u32>,
    values: Vec<f32>,
}

impl Csr {
    pub(super) fn new(dense: &[f32], row: usize) -> Self {
        let mut csr = Self { starts: vec![0], columns: Vec::new(), values: Vec::new() };
        for values in dense.chunks_exact(row) {
            for (column, &value) in (0..).zip(values).filter(|&(_, &value)| value != 0.0) {
                csr.columns.push(column);
                csr.values.push(value);
            }
            csr.starts.push(csr.values.len() as u32);
        }
        csr
    }

    /// Columns and values of a row.
    #[inline(always)]
    fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.starts[row] as usize..self.starts[row + 1] as usize;
        (&self.columns[range.clone()], &self.values[range])
    }
}

impl Matrix {
    pub(super) fn kernel(&self) -> [usize; 2] {
        match self {
            Self::Dense { kernel, .. } | Self::Sparse(_, kernel) | Self::Int8(_, kernel) => *kernel,
        }
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Dense { .. } => "dense",
            Self::Sparse(..) => "sparse",
            Self::Int8(..) => "int8",
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Dense { values, .. } => 4 * values.len(),
            Self::Sparse(csr, _) => 8 * csr.values.len() + 4 * csr.starts.len(),
            Self::Int8(int8, _) => int8.bytes(),
        }
    }

    /// For each output o, y[o·stride + j] = bias[o] + Σ w[o][i] · x[i·count + j] for the `count` columns j of x.
    pub(super) fn multiply(&self, x: &[f32], count: usize, bias: &[f32], y: &mut [f32], stride: usize) {
        match self {
            Self::Int8(int8, _) => {
                assert_eq!(count, stride, "8-bit layers write all columns at once");
                let (input, output) = ([x.len() / count, 1, count], [bias.len(), 1, count]);
                let layer = Convolution { input, output, kernel: [1, 1], padding: 0, stride: 1, groups: 1, batch: 1 };
                int8.convolve(&layer, x, bias, y);
            }
            Self::Sparse(csr, _) if count == 1 => {
                for (row, (y, bias)) in y.iter_mut().step_by(stride).zip(bias).enumerate() {
                    let (columns, values) = csr.row(row);
                    *y = bias + gathered(columns, values, x);
                }
            }
            Self::Dense { values, row, .. } if count == 1 => {
                for (weights, (y, bias)) in values.chunks_exact(*row).zip(y.iter_mut().step_by(stride).zip(bias)) {
                    *y = bias + dot(weights, x);
                }
            }
            _ => {
                let offsets: Vec<u32> = (0..x.len() as u32).step_by(count).collect();
                self.accumulate(&Runs { x, offsets: &offsets, len: count }, bias, y, stride);
            }
        }
    }

    /// For each output o, y[o·stride + j] = bias[o] + Σ w[o][i] · x[offsets[i] + j] for j below the runs' length.
    pub(super) fn accumulate(&self, runs: &Runs<'_>, bias: &[f32], y: &mut [f32], stride: usize) {
        match self {
            Self::Sparse(csr, _) => vectorised(
                #[inline(always)]
                || {
                    for (row, (y, &bias)) in y.chunks_mut(stride).zip(bias).enumerate() {
                        let (columns, values) = csr.row(row);
                        runs.add_sparse(columns, values, bias, y);
                    }
                },
            ),
            Self::Dense { values, row, .. } => vectorised(
                #[inline(always)]
                || {
                    for (first, values) in (0..).step_by(ROWS).zip(values.chunks(ROWS * row)) {
                        let y = &mut y[first * stride..];
                        if values.len() == ROWS * row {
                            runs.add_rows(values, &bias[first..], y, stride);
                        } else {
                            for (i, values) in values.chunks_exact(*row).enumerate() {
                                runs.add_row(values, bias[first + i], &mut y[i * stride..]);
                            }
                        }
                    }
                },
            ),
            Self::Int8(..) => unreachable!("8-bit layers have kernels of their own"),
        }
    }
}

/// Runs of inputs, one for each weight of a row.
pub(super) struct Runs<'a> {
    pub(super) x: &'a [f32],
    /// Where each begins.
    pub(super) offsets: &'a [u32],
    pub(super) len: usize,
}

impl Runs<'_> {
    #[inline(always)]
    fn run<const N: usize>(&self, weight: usize, first: usize) -> &[f32; N] {
        let start = self.offsets[weight] as usize + first;
        self.x[start..start + N].try_into().expect("N elements")
    }

    /// Tiles as wide as fit, whose sums stay in registers.
    #[inline(always)]
    fn add_sparse(&self, columns: &[u32], values: &[f32], bias: f32, y: &mut [f32]) {
        let mut first = 0;
        first = self.sparse_tiles::<64>(columns, values, bias, y, first);
        first = self.sparse_tiles::<32>(columns, values, bias, y, first);
        first = self.sparse_tiles::<16>(columns, values, bias, y, first);
        first = self.sparse_tiles::<8>(columns, values, bias, y, first);
        self.sparse_tiles::<1>(columns, values, bias, y, first);
    }

    #[inline(always)]
    fn sparse_tiles<const N: usize>(
        &self,
        columns: &[u32],
        values: &[f32],
        bias: f32,
        y: &mut [f32],
        mut first: usize,
    ) -> usize {
        while first + N <= self.len {
            let mut sums = [bias; N];
            for (&column, &value) in columns.iter().zip(values) {
                let run = self.run::<N>(column as usize, first);
                for (sum, x) in sums.iter_mut().zip(run) {
                    *sum += value * x;
                }
            }
            y[first..first + N].copy_from_slice(&sums);
            first += N;
        }
        first
    }

    /// A row of weights.
    #[inline(always)]
    fn add_row(&self, weights: &[f32], bias: f32, y: &mut [f32]) {
        let mut first = 0;
        first = self.tiles::<64>(weights, bias, y, first);
        first = self.tiles::<16>(weights, bias, y, first);
        self.tiles::<1>(weights, bias, y, first);
    }

    #[inline(always)]
    fn tiles<const N: usize>(&self, weights: &[f32], bias: f32, y: &mut [f32], mut first: usize) -> usize {
        while first + N <= self.len {
            let mut sums = [bias; N];
            for (weight, &value) in weights.iter().enumerate() {
                for (sum, x) in sums.iter_mut().zip(self.run::<N>(weight, first)) {
                    *sum += value * x;
                }
            }
            y[first..first + N].copy_from_slice(&sums);
            first += N;
        }
        first
    }

    /// [`ROWS`] rows of weights at once, so that each input is read once for all of them.
    #[inline(always)]
    fn add_rows(&self, weights: &[f32], bias: &[f32], y: &mut [f32], stride: usize) {
        const N: usize = 16;
        let row = weights.len() / ROWS;
        let (a, rest) = weights.split_at(row);
        let (b, rest) = rest.split_at(row);
        let (c, d) = rest.split_at(row);
        let mut first = 0;
        while first + N <= self.len {
            let (mut p, mut q, mut r, mut s) = ([bias[0]; N], [bias[1]; N], [bias[2]; N], [bias[3]; N]);
            for (weight, (((&a, &b), &c), &d)) in a.iter().zip(b).zip(c).zip(d).enumerate() {
                let run = self.run::<N>(weight, first);
                for i in 0..N {
                    p[i] += a * run[i];
                    q[i] += b * run[i];
                    r[i] += c * run[i];
                    s[i] += d * run[i];
                }
            }
            for (i, sums) in [p, q, r, s].iter().enumerate() {
                y[i * stride + first..][..N].copy_from_slice(sums);
            }
            first += N;
        }
        for (i, weights) in [a, b, c, d].into_iter().enumerate() {
            self.tiles::<1>(weights, bias[i], &mut y[i * stride..], first);
        }
    }
}

/// Σ of values times the elements of x at these places, four sums side by side.
fn gathered(places: &[u32], values: &[f32], x: &[f32]) -> f32 {
    let ((places, places_rest), (values, values_rest)) = (places.as_chunks::<4>(), values.as_chunks::<4>());
    let mut sums = [0f32; 4];
    for (places, values) in places.iter().zip(values) {
        for (sum, (&place, value)) in sums.iter_mut().zip(places.iter().zip(values)) {
            *sum += value * x[place as usize];
        }
    }
    let rest = places_rest.iter().zip(values_rest).map(|(&place, value)| value * x[place as usize]);
    sums.iter().sum::<f32>() + rest.sum::<f32>()
}

/// Sixteen sums side by side.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    vectorised(
        #[inline(always)]
        || {
            let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
            let mut sums = [0f32; 16];
            for (a, b) in a.iter().zip(b) {
                for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
                    *sum += a * b;
                }
            }
            let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
            sums.iter().sum::<f32>() + rest
        },
    )
}

/// Rows of dense weights that go by together.
const ROWS: usize = 4;

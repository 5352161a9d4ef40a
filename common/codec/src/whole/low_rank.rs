//! Matrices as products of two thin ones, by one power iteration from a random start (PowerSGD, Vogels et al. 2019).

use half::f16;

use crate::{
    Error, Quantizer, Segment, Segments,
    bits::{BitReader, BitWriter, Stream},
    vectorised,
    whole::{Each, dot, hadamard::word, scale},
};

/// A tensor as a matrix, and how many columns its thin ones have.
struct Shape {
    rows: usize,
    columns: usize,
    rank: usize,
}

impl Shape {
    /// Nothing where the thin matrices would not be smaller.
    fn of(segment: Segment, rank: usize) -> Option<Self> {
        let Segment { len, row: columns } = segment;
        let rows = len / columns;
        let rank = rank.min(rows).min(columns);
        (len % columns == 0 && rank * (rows + columns) < len).then_some(Self { rows, columns, rank })
    }
}

/// Appends a body to `out`.
pub(super) fn write(rank: usize, seed: u64, segments: &Segments, u: &[f32], out: &mut Vec<u8>) {
    let mut stream = BitWriter::new(out);
    stream.bits(rank as u32, 7);
    for (i, segment) in segments.iter().enumerate() {
        let range = segments.range(i);
        let values = &u[range.clone()];
        if let Some(shape) = Shape::of(segment, rank) {
            let (left, right) = vectorised(
                #[inline(always)]
                || factor(&shape, seed, range.start, values),
            );
            write_halves(&mut stream, &right);
            if right.iter().any(|&value| value != 0.0) {
                for value in left {
                    stream.bits(value.to_bits().into(), 16);
                }
            }
        } else {
            write_halves(&mut stream, values);
        }
    }
    stream.finish();
}

/// Reads a body.
pub(super) fn read(body: &[u8], frame_bytes: usize, segments: &Segments, each: &mut impl Each) -> Result<(), Error> {
    let mut stream = BitReader::new(body);
    let rank = stream.bits(0, 7) as usize;
    if rank == 0 || rank > Quantizer::MAX_RANK.into() {
        return Err(Error::BadBlock { index: 0 });
    }
    let (mut right, mut left, mut product) = (Vec::new(), Vec::new(), Vec::new());
    for (i, segment) in segments.iter().enumerate() {
        let start = segments.range(i).start;
        let Some(shape) = Shape::of(segment, rank) else {
            if read_halves(&mut stream, segment.len, start, &mut right)? {
                each(start, &right)?;
            }
            continue;
        };
        let Shape { rows, columns, rank } = shape;
        if read_halves(&mut stream, rank * columns, start, &mut right)? {
            left.resize(rank, 0.0);
            product.resize(columns, 0.0);
            for row in 0..rows {
                left.iter_mut().for_each(|value| *value = half(&mut stream));
                vectorised(
                    #[inline(always)]
                    || multiply(&left, &right, &mut product),
                );
                each(start + row * columns, &product)?;
            }
        }
    }
    stream.finish(frame_bytes)
}

/// Orthonormal columns, row by row, and what the matrix is in them, column by column.
#[inline(always)]
fn factor(shape: &Shape, seed: u64, start: usize, matrix: &[f32]) -> (Vec<f16>, Vec<f32>) {
    let &Shape { rows, columns, rank } = shape;
    let random = |i: usize| (word(seed, (start + i) as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0;
    let mut right: Vec<f32> = (0..rank * columns).map(random).collect();
    let mut left = vec![0.0; rank * rows];
    for (column, right) in left.chunks_mut(rows).zip(right.chunks(columns)) {
        for (value, row) in column.iter_mut().zip(matrix.chunks(columns)) {
            *value = dot(row, |i| right[i]) as f32;
        }
    }
    for column in 0..rank {
        let (before, now) = left.split_at_mut(column * rows);
        orthonormalize(before, &mut now[..rows]);
    }
    let left: Vec<f16> = (0..rows * rank).map(|i| f16::from_f32(left[i % rank * rows + i / rank])).collect();
    right.fill(0.0);
    for (row, left) in matrix.chunks(columns).zip(left.chunks(rank)) {
        for (right, factor) in right.chunks_mut(columns).zip(left) {
            let factor = factor.to_f32();
            right.iter_mut().zip(row).for_each(|(right, value)| *right += factor * value);
        }
    }
    (left, right)
}

/// By Gram and Schmidt; what depends on the columns before becomes zero.
#[inline(always)]
fn orthonormalize(before: &[f32], column: &mut [f32]) {
    let length = dot(column, |i| column[i]).sqrt();
    for other in before.chunks(column.len()) {
        let part = dot(other, |i| column[i]) as f32;
        column.iter_mut().zip(other).for_each(|(value, other)| *value -= part * other);
    }
    let left = dot(column, |i| column[i]).sqrt();
    let factor = if left > 1e-4 * length { (1.0 / left) as f32 } else { 0.0 };
    column.iter_mut().for_each(|value| *value *= factor);
}

/// A row of the product: Σ left[c]·right[c], one c after the other.
#[inline(always)]
fn multiply(left: &[f32], right: &[f32], product: &mut [f32]) {
    product.fill(0.0);
    for (factor, right) in left.iter().zip(right.chunks(product.len())) {
        product.iter_mut().zip(right).for_each(|(sum, value)| *sum += factor * value);
    }
}

/// A scale, unless it is 0, and every value divided by it in half precision.
fn write_halves(stream: &mut BitWriter<'_>, values: &[f32]) {
    let code = scale::above(values.iter().fold(0.0, |most, value| value.abs().max(most)));
    stream.bits(code.into(), 16);
    if let Ok(scale) = scale::value(code, 0)
        && scale > 0.0
    {
        for value in values {
            stream.bits(f16::from_f32(value / scale).to_bits().into(), 16);
        }
    }
}

/// Whether there are any but zeros.
fn read_halves(stream: &mut BitReader<'_>, count: usize, start: usize, values: &mut Vec<f32>) -> Result<bool, Error> {
    let scale = scale::value(stream.bits(0, 16) as u16, start)?;
    if scale == 0.0 {
        return Ok(false);
    }
    values.clear();
    values.extend((0..count).map(|_| half(stream) * scale));
    Ok(true)
}

fn half(stream: &mut BitReader<'_>) -> f32 {
    f16::from_bits(stream.bits(0, 16) as u16).to_f32()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_of_the_wanted_rank_is_its_product() {
        let shape = Shape::of(Segment { len: 40 * 30, row: 30 }, 2).unwrap();
        let matrix: Vec<f32> = (0..1200)
            .map(|i| ((i / 30) as f32).sin() * ((i % 30) as f32).cos() + 0.1 * (i / 30) as f32 * (i % 30) as f32)
            .collect();
        let (left, right) = factor(&shape, 1, 0, &matrix);
        let mut product = vec![0.0; 30];
        for (row, left) in matrix.chunks(30).zip(left.chunks(2)) {
            let left: Vec<f32> = left.iter().map(|value| value.to_f32()).collect();
            multiply(&left, &right, &mut product);
            for (value, product) in row.iter().zip(&product) {
                assert!((value - product).abs() < 0.2, "{product} for {value}");
            }
        }
    }
}

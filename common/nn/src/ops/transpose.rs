//! Rows as columns.

/// y[column · pitch + row] = x[row · columns + column]: four rows at a time, whose elements are then written together.
///
/// # Panics
/// When `x` does not consist of whole rows, `pitch` is below their number, or `y` is too short.
pub(crate) fn transpose<T: Copy>(x: &[T], columns: usize, y: &mut [T], pitch: usize) {
    let rows = x.len() / columns.max(1);
    assert_eq!(rows * columns, x.len(), "whole rows");
    transpose_part((x, columns), [rows, columns], (y, pitch));
}

/// The same of a part of a matrix whose rows are `x_pitch` apart.
///
/// # Panics
/// When a pitch is below what lies between, or `x` or `y` too short.
pub(crate) fn transpose_part<T: Copy>(
    (x, x_pitch): (&[T], usize),
    [rows, columns]: [usize; 2],
    (y, y_pitch): (&mut [T], usize),
) {
    if columns == 0 || rows == 0 {
        return;
    }
    assert!(x_pitch >= columns && x.len() >= (rows - 1) * x_pitch + columns, "whole rows");
    assert!(y_pitch >= rows && y.len() >= (columns - 1) * y_pitch + rows, "room for the columns");
    let row = |index: usize| &x[index * x_pitch..][..columns];
    let fours = rows / 4 * 4;
    for first in (0..fours).step_by(4) {
        let from = row(first).iter().zip(row(first + 1)).zip(row(first + 2).iter().zip(row(first + 3)));
        for (((&a, &b), (&c, &d)), to) in from.zip(y[first..].chunks_mut(y_pitch)) {
            to[..4].copy_from_slice(&[a, b, c, d]);
        }
    }
    for last in fours..rows {
        for (&value, to) in row(last).iter().zip(y[last..].iter_mut().step_by(y_pitch)) {
            *to = value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns_whatever_the_extents() {
        for (rows, columns, pitch) in [(1, 1, 1), (3, 40, 3), (40, 3, 41), (16, 16, 16), (33, 17, 50), (0, 5, 1)] {
            let x: Vec<usize> = (0..rows * columns).collect();
            let mut y = vec![usize::MAX; columns * pitch];
            transpose(&x, columns, &mut y, pitch);
            for (place, &value) in y.iter().enumerate() {
                let (column, row) = (place / pitch, place % pitch);
                let expected = if row < rows { row * columns + column } else { usize::MAX };
                assert_eq!(value, expected, "{rows}×{columns}, {pitch}");
            }
        }
    }
}

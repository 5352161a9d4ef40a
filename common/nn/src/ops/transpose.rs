//! Rows as columns.

/// y[column · pitch + row] = x[row · columns + column]: square tiles, so that what is read and written stays in the cache.
///
/// # Panics
/// When `x` does not consist of whole rows, or `y` is too short.
pub(crate) fn transpose<T: Copy>(x: &[T], columns: usize, y: &mut [T], pitch: usize) {
    let rows = x.len() / columns.max(1);
    assert_eq!(rows * columns, x.len(), "whole rows");
    for first_row in (0..rows).step_by(TILE) {
        for first_column in (0..columns).step_by(TILE) {
            let width = TILE.min(columns - first_column);
            for row in first_row..rows.min(first_row + TILE) {
                let from = &x[row * columns + first_column..][..width];
                for (value, to) in from.iter().zip(y[first_column * pitch + row..].iter_mut().step_by(pitch)) {
                    *to = *value;
                }
            }
        }
    }
}

/// Rows and columns that go by at a time.
const TILE: usize = 16;

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

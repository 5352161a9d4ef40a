//! A large product with its operands copied first into the order in which the inner loops walk them.
//!
//! A matrix whose rows are some power of two apart keeps only a few of its lines in a cache at a time, and each tile
//! would fetch them anew. Blocks are those of Goto & van de Geijn 2008, "Anatomy of High-Performance Matrix
//! Multiplication": a panel of `b` for the first-level cache, a block of `a` for the second.
#![expect(unsafe_code, reason = "copies through pointers; the operands' extents are checked by `Sum::run`")]

use super::Float;
use super::tile::{DEPTH, Operands, ROWS};

/// Whether a product is worth the copies, or cannot do without them: the inner loops want rows of `b` in one piece.
pub(super) fn pays<T: Float>(operands: &Operands<T>, b_column: usize) -> bool {
    b_column != 1 || operands.segments == 1 && (packs_a(operands) || packs_b(operands))
}

/// Rows fewer than this use a panel too few times.
const FEW: usize = 24;
/// Depth from which the lines of an operand can push each other out of a cache.
const DEEP: usize = 32;
/// Columns of `b` whose panels are kept at once: 1 MiB.
const COLUMNS: usize = 1024;
/// Rows in a panel of a transposed `a`: four tiles of AVX2, two of AVX-512; [`ROWS`] is a multiple.
const HEIGHT: usize = 24;

fn packs_a<T: Float>(operands: &Operands<T>) -> bool {
    operands.a_row == 1 && operands.a_column > HEIGHT && operands.depth >= DEEP && operands.columns >= FEW
}

fn packs_b<T: Float>(operands: &Operands<T>) -> bool {
    operands.rows >= FEW && operands.depth >= DEEP && operands.b_row > T::panel_width()
}

/// Computes a product of one segment in which also the columns of `b` may be apart.
///
/// # Safety
/// All elements that the operands describe exist.
pub(super) unsafe fn product<T: Float>(whole: &Operands<T>, b_column: usize) {
    let packs_a = packs_a(whole);
    let packs_b = b_column != 1 || packs_b(whole);
    let width = T::panel_width();
    let depth = whole.depth.min(DEPTH);
    let mut a_block = Vec::new();
    let mut b_block = Vec::new();
    if packs_a {
        a_block = vec![T::zero(); whole.rows.min(ROWS).next_multiple_of(HEIGHT) * depth];
    }
    if packs_b {
        b_block = vec![T::zero(); whole.columns.min(COLUMNS).next_multiple_of(width) * depth];
    }
    for left in (0..whole.columns).step_by(COLUMNS) {
        let columns = (whole.columns - left).min(COLUMNS);
        for done in (0..whole.depth.max(1)).step_by(DEPTH) {
            let depth = (whole.depth - done).min(DEPTH);
            let b = whole.b.wrapping_add(done * whole.b_row + left * b_column);
            if packs_b {
                for first in (0..columns).step_by(width) {
                    let to = &mut b_block[first * depth..(first + width) * depth];
                    let from = b.wrapping_add(first * b_column);
                    // SAFETY: these columns and this depth are part of the operand.
                    unsafe { copy(from, whole.b_row, b_column, (columns - first).min(width), to, width) };
                }
            }
            for top in (0..whole.rows).step_by(ROWS) {
                let rows = (whole.rows - top).min(ROWS);
                let a = whole.a.wrapping_add(top * whole.a_row + done * whole.a_column);
                if packs_a {
                    for first in (0..rows).step_by(HEIGHT) {
                        let to = &mut a_block[first * depth..(first + HEIGHT) * depth];
                        // SAFETY: these rows and this depth are part of the operand, whose rows are side by side.
                        unsafe {
                            copy(a.wrapping_add(first), whole.a_column, 1, (rows - first).min(HEIGHT), to, HEIGHT)
                        };
                    }
                }
                let c = whole.c.wrapping_add(top * whole.c_row + left);
                let (start, start_row) = if done > 0 {
                    (c.cast_const(), whole.c_row)
                } else if whole.start.is_null() {
                    (whole.start, 0)
                } else {
                    (whole.start.wrapping_add(top * whole.start_row + left), whole.start_row)
                };
                let block = Operands {
                    rows,
                    columns,
                    depth,
                    a,
                    b,
                    c,
                    start,
                    start_row,
                    rectify: whole.rectify && done + depth == whole.depth,
                    ..*whole
                };
                let width = if packs_b { width } else { columns };
                let height = if packs_a { HEIGHT } else { rows };
                for first in (0..columns).step_by(width) {
                    for row in (0..rows).step_by(height) {
                        let mut part = Operands {
                            rows: (rows - row).min(height),
                            columns: (columns - first).min(width),
                            c: c.wrapping_add(row * whole.c_row + first),
                            start: if start.is_null() { start } else { start.wrapping_add(row * start_row + first) },
                            ..block
                        };
                        if packs_a {
                            part.a = a_block[row * depth..].as_ptr();
                            (part.a_row, part.a_column) = (1, HEIGHT);
                        }
                        if packs_b {
                            part.b = b_block[first * depth..].as_ptr();
                            part.b_row = width;
                        }
                        // SAFETY: the part lies within the whole, or in a block that was filled for it.
                        unsafe { T::sum_of_products(&part) };
                    }
                }
            }
        }
    }
}

/// Copies a matrix of which `to` holds as many rows as there are of `to_row` elements each, and `columns` of those.
///
/// # Safety
/// All of it can be read.
unsafe fn copy<T: Float>(
    from: *const T,
    from_row: usize,
    from_column: usize,
    columns: usize,
    to: &mut [T],
    to_row: usize,
) {
    let rows = to.chunks_exact_mut(to_row).enumerate();
    // SAFETY: the caller's.
    unsafe {
        if from_column == 1 {
            for (row, to) in rows {
                let from = std::slice::from_raw_parts(from.add(row * from_row), columns);
                // A length that the compiler knows makes a copy of a few instructions.
                match (to.first_chunk_mut::<16>(), from.first_chunk::<16>()) {
                    (Some(to), Some(from)) if columns == 16 => *to = *from,
                    _ => to[..columns].copy_from_slice(from),
                }
            }
        } else {
            for (row, to) in rows {
                for (column, to) in to.iter_mut().take(columns).enumerate() {
                    *to = *from.add(row * from_row + column * from_column);
                }
            }
        }
    }
}

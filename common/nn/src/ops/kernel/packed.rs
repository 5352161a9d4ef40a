//! A large product with its operands copied first into the order in which the inner loops walk them.
//!
//! A matrix whose rows are some power of two apart keeps only a few of its lines in a cache at a time, and each tile
//! would fetch them anew. Blocks are those of Goto & van de Geijn 2008, "Anatomy of High-Performance Matrix
//! Multiplication": a panel of `b` for the first-level cache, a block of `a` for the second.
#![expect(unsafe_code, reason = "copies through pointers; the operands' extents are checked by `Sum::run`")]

use super::Multiply;
use super::tile::{DEPTH, Operands, ROWS};

/// Whether a product is worth the copies, or cannot do without them: the inner loops want rows of `b` in one piece.
pub(super) fn pays<T: Multiply>(operands: &Operands<T>, b_column: usize) -> bool {
    b_column != 1 || operands.segments == 1 && (packs_a(operands) || packs_b(operands))
}

/// Rows of `a` that use a copied panel of `b` often enough; a batch's are fewer, and were 9% slower with copies.
const MANY_ROWS: usize = 96;
/// Columns of `b` that use a copied panel of `a` often enough.
const MANY_COLUMNS: usize = 24;
/// Depth and stride from which the lines of an operand push each other out of a cache.
const DEEP: usize = 128;
const FAR: usize = 64;
/// Columns of `b` whose panels are kept at once: 1 MiB.
const COLUMNS: usize = 1024;
/// Rows in a panel of a transposed `a`: four tiles of AVX2, two of AVX-512; [`ROWS`] is a multiple.
const HEIGHT: usize = 24;

fn packs_a<T: Multiply>(operands: &Operands<T>) -> bool {
    operands.a_row == 1 && operands.a_column >= FAR && operands.depth >= DEEP && operands.columns >= MANY_COLUMNS
}

fn packs_b<T: Multiply>(operands: &Operands<T>) -> bool {
    operands.rows >= MANY_ROWS && operands.depth >= DEEP && operands.b_row >= FAR
}

/// Computes a product of one segment in which also the columns of `b` may be apart.
///
/// # Safety
/// All elements that the operands describe exist.
pub(super) unsafe fn product<T: Multiply>(whole: &Operands<T>, b_column: usize) {
    let depth = whole.depth.min(DEPTH);
    let mut a_block = Block::new(packs_a(whole), HEIGHT, whole.rows.min(ROWS), depth);
    let mut b_block = Block::new(b_column != 1 || packs_b(whole), T::panel_width(), whole.columns.min(COLUMNS), depth);
    for left in (0..whole.columns).step_by(COLUMNS) {
        let columns = (whole.columns - left).min(COLUMNS);
        // Once also where there is no depth, for the start.
        for done in (0..whole.depth.max(1)).step_by(DEPTH) {
            let depth = (whole.depth - done).min(DEPTH);
            let b = whole.b.wrapping_add(done * whole.b_row + left * b_column);
            // SAFETY: these columns and this depth are part of the operand.
            unsafe { b_block.fill(b, columns, b_column, depth, whole.b_row) };
            for top in (0..whole.rows).step_by(ROWS) {
                let rows = (whole.rows - top).min(ROWS);
                let a = whole.a.wrapping_add(top * whole.a_row + done * whole.a_column);
                // SAFETY: these rows and this depth are part of the operand.
                unsafe { a_block.fill(a, rows, whole.a_row, depth, whole.a_column) };
                let c = whole.c.wrapping_add(top * whole.c_row + left);
                let (start, start_row) = if done > 0 {
                    (c.cast_const(), whole.c_row)
                } else if whole.start.is_null() {
                    (whole.start, 0)
                } else {
                    (whole.start.wrapping_add(top * whole.start_row + left), whole.start_row)
                };
                let rectify = whole.rectify && done + depth == whole.depth;
                let part = Operands { rows, columns, depth, a, b, c, start, start_row, rectify, ..*whole };
                // SAFETY: the part lies within the whole, and the blocks were filled for it.
                unsafe { panels(&part, &a_block, &b_block) };
            }
        }
    }
}

/// Computes a part of the result panel by panel, from the copies where there are some.
///
/// # Safety
/// All elements that the operands describe exist, except those that were copied.
unsafe fn panels<T: Multiply>(part: &Operands<T>, a_block: &Block<T>, b_block: &Block<T>) {
    for left in (0..part.columns).step_by(b_block.step(part.columns)) {
        for top in (0..part.rows).step_by(a_block.step(part.rows)) {
            let start = part.start.wrapping_add(top * part.start_row + left);
            let mut panel = Operands {
                rows: a_block.step(part.rows).min(part.rows - top),
                columns: b_block.step(part.columns).min(part.columns - left),
                c: part.c.wrapping_add(top * part.c_row + left),
                start: if part.start.is_null() { part.start } else { start },
                ..*part
            };
            if a_block.is_used {
                panel.a = a_block.elements[top * part.depth..].as_ptr();
                (panel.a_row, panel.a_column) = (1, a_block.width);
            }
            if b_block.is_used {
                panel.b = b_block.elements[left * part.depth..].as_ptr();
                panel.b_row = b_block.width;
            }
            // SAFETY: the panel lies within the part, or in a block that was filled for it.
            unsafe { T::sum_of_products(&panel) };
        }
    }
}

/// Copied panels, each with `width` elements side by side for each step of the depth.
struct Block<T> {
    is_used: bool,
    width: usize,
    elements: Vec<T>,
}

impl<T: Multiply> Block<T> {
    fn new(is_used: bool, width: usize, extent: usize, depth: usize) -> Self {
        let len = if is_used { extent.next_multiple_of(width) * depth } else { 0 };
        Self { is_used, width, elements: vec![T::zero(); len] }
    }

    /// Extent of a panel of so many rows or columns.
    fn step(&self, extent: usize) -> usize {
        if self.is_used { self.width } else { extent }
    }

    /// Copies `extent` rows or columns, `stride` apart, for each step of the depth.
    ///
    /// # Safety
    /// All of it can be read, and the block was made for so much.
    unsafe fn fill(&mut self, from: *const T, extent: usize, stride: usize, depth: usize, depth_stride: usize) {
        if !self.is_used {
            return;
        }
        for first in (0..extent).step_by(self.width) {
            let to = &mut self.elements[first * depth..(first + self.width) * depth];
            let count = (extent - first).min(self.width);
            // SAFETY: the caller's.
            unsafe { copy(from.wrapping_add(first * stride), depth_stride, stride, count, to, self.width) };
        }
    }
}

/// Copies a matrix of which `to` holds as many rows as there are of `to_row` elements each, and `columns` of those.
///
/// # Safety
/// All of it can be read.
unsafe fn copy<T: Multiply>(
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
                // Those of a whole panel, whatever its width.
                match columns {
                    8 => copy_few::<_, 8>(from, to),
                    16 => copy_few::<_, 16>(from, to),
                    24 => copy_few::<_, 24>(from, to),
                    32 => copy_few::<_, 32>(from, to),
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

/// A length that the compiler knows makes a copy of a few instructions, another a call.
#[inline(always)]
fn copy_few<T: Copy, const COUNT: usize>(from: &[T], to: &mut [T]) {
    if let (Some(from), Some(to)) = (from.first_chunk::<COUNT>(), to.first_chunk_mut::<COUNT>()) {
        *to = *from;
    }
}

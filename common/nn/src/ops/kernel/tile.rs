//! The matrix product's inner loops, written once for any kind of vector.
//!
//! A tile of the result, a few rows by two vectors, stays in registers while the depth is walked: each step loads one
//! row of `b` and multiplies it by one broadcast element of `a` for each row of the tile. Neither operand is packed,
//! so a convolution can point `a` straight into its image.
#![expect(unsafe_code, reason = "vectors are loaded through pointers; the operands' extents are checked by `Sum::run`")]

use super::{Float, Kernel};
use candle_core::WithDType;

/// A vector register and what the product does with it. All methods are inlined into a function that is compiled for
/// the instructions they need.
pub(in super::super) trait Vector: Copy {
    type Element: WithDType;
    /// Elements in a vector.
    const LANES: usize;
    /// Rows of the largest tile: two accumulators each, and three registers to spare.
    const ROWS: usize;

    unsafe fn splat(value: Self::Element) -> Self;
    /// The first `count` elements from memory; the others are zero, and nothing is read there.
    unsafe fn load(from: *const Self::Element, count: usize) -> Self;
    /// Writes the first `count` elements.
    unsafe fn store(self, to: *mut Self::Element, count: usize);
    /// `self·factor + term`, rounded once where the instructions can.
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self;
    /// `self·factor + term`, of which the product is rounded, too.
    unsafe fn multiply_then_add(self, factor: Self, term: Self) -> Self;
    /// 0 where an element is negative; NaN stays.
    unsafe fn rectified(self) -> Self;
}

/// What a vector of floats does besides.
pub(in super::super) trait FloatVector: Vector {
    unsafe fn plus(self, other: Self) -> Self;
    /// The sum of all elements: halves added to halves.
    unsafe fn folded(self) -> Self::Element;
}

/// A vector whose products are rounded before they are added, as every processor can: with it, all compute the same bits,
/// because each element of a result is summed in the order of its depth whatever the tiles are.
#[derive(Clone, Copy)]
pub(super) struct Portable<V>(V);

// SAFETY of all methods: the inner vector's.
impl<V: Vector> Vector for Portable<V> {
    type Element = V::Element;
    const LANES: usize = V::LANES;
    const ROWS: usize = V::ROWS;

    #[inline(always)]
    unsafe fn splat(value: V::Element) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { V::splat(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const V::Element, count: usize) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { V::load(from, count) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut V::Element, count: usize) {
        // SAFETY: see the impl.
        unsafe { self.0.store(to, count) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { self.multiply_then_add(factor, term) }
    }

    #[inline(always)]
    unsafe fn multiply_then_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { self.0.multiply_then_add(factor.0, term.0) })
    }

    #[inline(always)]
    unsafe fn rectified(self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { self.0.rectified() })
    }
}

impl<V: FloatVector> FloatVector for Portable<V> {
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { self.0.plus(other.0) })
    }

    #[inline(always)]
    unsafe fn folded(self) -> V::Element {
        // SAFETY: see the impl.
        unsafe { self.0.folded() }
    }
}

/// c[i, j] = f(start[i, j] + Σₛ Σₚ a[s, i, p]·b[s, p, j]), with f the identity or the rectifier. Strides count elements.
#[derive(Clone, Copy)]
pub(in super::super) struct Operands<T> {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) depth: usize,
    pub(super) segments: usize,
    pub(super) a: *const T,
    pub(super) a_row: usize,
    pub(super) a_column: usize,
    pub(super) a_segment: usize,
    pub(super) b: *const T,
    pub(super) b_row: usize,
    pub(super) b_segment: usize,
    pub(super) c: *mut T,
    pub(super) c_row: usize,
    /// Null for zeros.
    pub(super) start: *const T,
    pub(super) start_row: usize,
    pub(super) rectify: bool,
}

/// Depth walked at once: 256 rows of a panel of `b` two AVX-512 vectors wide are the 32 KiB of a first-level cache.
pub(super) const DEPTH: usize = 256;
/// Rows of `a` that are used again for each panel while they are in the second-level cache: 168·256·4 = 172 KiB.
pub(super) const ROWS: usize = 168;

impl<T: Float> Kernel<T> for &Operands<T> {
    #[inline(always)]
    unsafe fn run<V: FloatVector<Element = T>>(self) {
        // SAFETY: the caller's.
        unsafe { sum_of_products::<V>(self) }
    }
}

/// Computes the whole result, tile by tile.
///
/// # Safety
/// All elements that the operands describe exist, and the instructions of `V` do, too.
#[inline(always)]
pub(super) unsafe fn sum_of_products<V: Vector>(operands: &Operands<V::Element>) {
    let whole = *operands;
    // With several segments one is short enough: a kernel's row.
    let step = if whole.segments == 1 { DEPTH } else { whole.depth.max(1) };
    let mut done = 0;
    loop {
        let depth = (whole.depth - done).min(step);
        let last = done + depth == whole.depth;
        let (start, start_row) =
            if done == 0 { (whole.start, whole.start_row) } else { (whole.c.cast_const(), whole.c_row) };
        for top in (0..whole.rows).step_by(ROWS) {
            let bottom = (top + ROWS).min(whole.rows);
            for left in (0..whole.columns).step_by(2 * V::LANES) {
                let mut row = top;
                while row < bottom {
                    // Tiles of equal height: 15 rows are 8 and 7, not 14 and one that waits for each product.
                    let tiles = (bottom - row).div_ceil(V::ROWS);
                    let rows = (bottom - row).div_ceil(tiles);
                    let part = Operands {
                        rows,
                        columns: (whole.columns - left).min(2 * V::LANES),
                        depth,
                        a: whole.a.wrapping_add(row * whole.a_row + done * whole.a_column),
                        b: whole.b.wrapping_add(done * whole.b_row + left),
                        c: whole.c.wrapping_add(row * whole.c_row + left),
                        start: if start.is_null() { start } else { start.wrapping_add(row * start_row + left) },
                        start_row,
                        rectify: whole.rectify && last,
                        ..whole
                    };
                    // SAFETY: the part lies within the whole.
                    unsafe { tile_of_any_height::<V>(&part) };
                    row += rows;
                }
            }
        }
        done += depth;
        if last {
            break;
        }
    }
}

/// Chooses the tile of the right height and width, so that its loops have known ends and its sums live in registers.
#[inline(always)]
unsafe fn tile_of_any_height<V: Vector>(part: &Operands<V::Element>) {
    macro_rules! heights {
        ($($rows:literal)*) => {
            match (part.rows, part.columns > V::LANES, part.columns % V::LANES == 0) {
                $(
                    // A kind of vector with few registers has no high tiles, and none are compiled for it.
                    // SAFETY: the caller's.
                    ($rows, true, true) if $rows <= V::ROWS => unsafe { tile::<V, $rows, 2, true>(part) },
                    ($rows, true, false) if $rows <= V::ROWS => unsafe { tile::<V, $rows, 2, false>(part) },
                    ($rows, false, true) if $rows <= V::ROWS => unsafe { tile::<V, $rows, 1, true>(part) },
                    ($rows, false, false) if $rows <= V::ROWS => unsafe { tile::<V, $rows, 1, false>(part) },
                )*
                _ => unreachable!("a tile of {} rows", part.rows),
            }
        };
    }
    heights!(1 2 3 4 5 6 7 8 9 10 11 12 13 14);
}

/// Where the last vector is known to be whole, too, nothing is asked in the inner loop.
#[inline(always)]
unsafe fn tile<V: Vector, const ROWS: usize, const WIDTH: usize, const WHOLE: bool>(part: &Operands<V::Element>) {
    let Operands { depth, a_row, a_column, b_row, c_row, start, start_row, .. } = *part;
    let tail = part.columns - (WIDTH - 1) * V::LANES;
    let count = |vector: usize| if !WHOLE && vector + 1 == WIDTH { tail } else { V::LANES };
    // SAFETY: every access is to an element that the operands describe; pointers are moved on with `wrapping_add`, as
    // after the last step they may leave their slice without being read.
    unsafe {
        let mut sums = [[V::splat(V::Element::from_f64(0.0)); WIDTH]; ROWS];
        if !start.is_null() {
            for (row, sums) in sums.iter_mut().enumerate() {
                for (vector, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(start.add(row * start_row + vector * V::LANES), count(vector));
                }
            }
        }
        for segment in 0..part.segments {
            let mut a = part.a.wrapping_add(segment * part.a_segment);
            let mut b = part.b.wrapping_add(segment * part.b_segment);
            for _ in 0..depth {
                let mut b_vectors = [V::splat(V::Element::from_f64(0.0)); WIDTH];
                for (vector, b_vector) in b_vectors.iter_mut().enumerate() {
                    *b_vector = V::load(b.add(vector * V::LANES), count(vector));
                }
                for (row, sums) in sums.iter_mut().enumerate() {
                    let a_element = V::splat(*a.add(row * a_row));
                    for (sum, b_vector) in sums.iter_mut().zip(b_vectors) {
                        *sum = a_element.multiply_add(b_vector, *sum);
                    }
                }
                a = a.wrapping_add(a_column);
                b = b.wrapping_add(b_row);
            }
        }
        for (row, sums) in sums.into_iter().enumerate() {
            for (vector, sum) in sums.into_iter().enumerate() {
                let sum = if part.rectify { sum.rectified() } else { sum };
                sum.store(part.c.add(row * c_row + vector * V::LANES), count(vector));
            }
        }
    }
}

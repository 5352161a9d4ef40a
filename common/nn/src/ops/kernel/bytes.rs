//! Sums of products of bytes, four of them to a word: exact, and so the same on every machine.
#![expect(unsafe_code, reason = "picks the inner loops for the machine's instructions")]

use super::tile::{Operands, Vector};
use super::{Multiply, Strided, Sum};

/// Σₛ Σₚ a[s, i, p]·b[s, p, j] for each row `i` and column `j`, where an element is a word of four bytes, of which those of
/// `a` are unsigned and those of `b` signed, and its product the sum of the four. Sums have the bits of an `i32`.
#[derive(Clone, Copy)]
pub(crate) struct ByteProducts<'a> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    /// Words of a row that lie side by side.
    pub(crate) depth: usize,
    pub(crate) segments: usize,
    pub(crate) a: &'a [u32],
    /// Words from one row to the next, and from one segment to the next.
    pub(crate) a_row: usize,
    pub(crate) a_segment: usize,
    /// For each segment and word of the depth a row of `columns`.
    pub(crate) b: &'a [u32],
}

impl ByteProducts<'_> {
    /// Writes the sums, row-major.
    ///
    /// # Panics
    /// When an operand is too short or the result has another length.
    pub(crate) fn run(self, sums: &mut [u32]) {
        let Self { rows, columns, depth, segments, a, a_row, a_segment, b } = self;
        let a = Strided { data: a, row: a_row, column: 1, segment: a_segment };
        let b = Strided { data: b, row: columns, column: 1, segment: depth * columns };
        Sum { segments, ..Sum::product((rows, depth, columns), a, b) }.run(sums);
    }
}

impl Multiply for u32 {
    fn panel_width() -> usize {
        32
    }

    unsafe fn sum_of_products(operands: &Operands<Self>) {
        // SAFETY: the instructions exist, and the caller vouches for the operands.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            {
                use super::x86;
                if is_x86_feature_detected!("avx512vnni") {
                    return x86::sum_of_bytes_avx512(operands);
                }
                if is_x86_feature_detected!("avxvnni") {
                    return x86::sum_of_bytes_vnni(operands);
                }
                if is_x86_feature_detected!("avx2") {
                    return x86::sum_of_bytes_avx2(operands);
                }
            }
            super::tile::sum_of_products::<Words>(operands);
        }
    }
}

/// Four words in plain Rust.
#[derive(Clone, Copy)]
pub(super) struct Words([u32; 4]);

// SAFETY of all methods: the trait says with how much memory they are called.
impl Vector for Words {
    type Element = u32;
    const LANES: usize = 4;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(value: u32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const u32, count: usize) -> Self {
        // SAFETY: see the impl.
        Self(std::array::from_fn(|lane| if lane < count { unsafe { *from.add(lane) } } else { 0 }))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u32, count: usize) {
        for (lane, &value) in self.0.iter().enumerate().take(count) {
            // SAFETY: see the impl.
            unsafe { *to.add(lane) = value };
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        let product = |a: u32, b: u32| -> i32 {
            a.to_le_bytes()
                .into_iter()
                .zip(b.to_le_bytes())
                .map(|(a, b)| i32::from(a) * i32::from(b.cast_signed()))
                .sum()
        };
        let sum = |lane: usize| term.0[lane].wrapping_add(product(self.0[lane], factor.0[lane]).cast_unsigned());
        Self(std::array::from_fn(sum))
    }

    #[inline(always)]
    unsafe fn multiply_then_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { self.multiply_add(factor, term) }
    }

    #[inline(always)]
    unsafe fn rectified(self) -> Self {
        Self(self.0.map(|sum| sum.cast_signed().max(0).cast_unsigned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Implementation = unsafe fn(&Operands<u32>);

    fn implementations() -> Vec<(&'static str, Implementation)> {
        let mut list: Vec<(&str, Implementation)> = vec![
            ("portable", super::super::tile::sum_of_products::<Words>),
            ("the best", <u32 as Multiply>::sum_of_products),
        ];
        #[cfg(target_arch = "x86_64")]
        {
            use super::super::x86;
            if is_x86_feature_detected!("avx512vnni") {
                list.push(("avx512", x86::sum_of_bytes_avx512));
            }
            if is_x86_feature_detected!("avxvnni") {
                list.push(("avx-vnni", x86::sum_of_bytes_vnni));
            }
            if is_x86_feature_detected!("avx2") {
                list.push(("avx2", x86::sum_of_bytes_avx2));
            }
        }
        list
    }

    fn bytes(len: usize) -> Vec<u8> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
    }

    #[test]
    fn sums_are_those_of_the_bytes_however_they_are_taken() {
        for (rows, columns, depth, segments) in
            [(14, 64, 40, 5), (7, 33, 3, 2), (1, 1, 1, 1), (28, 6, 7, 1), (3, 17, 300, 1)]
        {
            let (a_row, a_segment) = (depth + 2, rows * (depth + 2));
            let a = bytes(4 * segments * a_segment);
            let b = bytes(4 * segments * depth * columns);
            let mut expected = vec![0; rows * columns];
            for (at, sum) in expected.iter_mut().enumerate() {
                let (row, column) = (at / columns, at % columns);
                for segment in 0..segments {
                    for word in 0..depth {
                        for byte in 0..4 {
                            let a = a[4 * (segment * a_segment + row * a_row + word) + byte];
                            let b = b[4 * ((segment * depth + word) * columns + column) + byte];
                            *sum += i32::from(a) * i32::from(b.cast_signed());
                        }
                    }
                }
            }
            let (a, b) = (words(&a), words(&b));
            for (name, implementation) in implementations() {
                let mut sums = vec![7u32; rows * columns];
                let operands = Operands {
                    rows,
                    columns,
                    depth,
                    segments,
                    a: a.as_ptr(),
                    a_row,
                    a_column: 1,
                    a_segment,
                    b: b.as_ptr(),
                    b_row: columns,
                    b_segment: depth * columns,
                    c: sums.as_mut_ptr(),
                    c_row: columns,
                    start: std::ptr::null(),
                    start_row: 0,
                    rectify: false,
                };
                // SAFETY: all of it exists, and so do the instructions.
                unsafe { implementation(&operands) };
                let sums: Vec<i32> = sums.into_iter().map(u32::cast_signed).collect();
                assert_eq!(sums, expected, "{name}: {rows}×{columns}, {segments} of {depth}");
            }
            let mut sums = vec![7u32; rows * columns];
            ByteProducts { rows, columns, depth, segments, a: &a, a_row, a_segment, b: &b }.run(&mut sums);
            assert!(sums.iter().zip(&expected).all(|(sum, &expected)| sum.cast_signed() == expected));
        }
    }
}

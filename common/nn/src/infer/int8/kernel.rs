//! Sums of products of signed and unsigned bytes, with AVX2 where the machine has it.
#![expect(unsafe_code, reason = "vector instructions may be used only where they exist, and read memory by address")]

/// Bytes that go by together: rows have to be as long as a multiple of it.
pub(super) const LANES: usize = 16;

/// Σ w[row][i] · x[column][i] for each row of `w` and each of `x`, all of length `len`, a positive multiple of [`LANES`]:
/// `sums` has the columns of a row side by side. Sums are exact for lengths up to 2¹⁶.
pub(super) fn products(w: &[i8], x: &[u8], len: usize, sums: &mut [i32]) {
    assert!(len > 0 && len.is_multiple_of(LANES) && len <= 1 << 16, "rows of {len}");
    let (rows, columns) = (w.len() / len, x.len() / len);
    assert!(w.len() == rows * len && x.len() == columns * len && sums.len() == rows * columns, "whole rows");
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the instructions exist, and the lengths were checked.
        return unsafe { x86::products(w, x, len, sums) };
    }
    portable(w, x, len, sums);
}

/// What the vector code is held to, and what runs elsewhere.
fn portable(w: &[i8], x: &[u8], len: usize, sums: &mut [i32]) {
    for (w, sums) in w.chunks_exact(len).zip(sums.chunks_exact_mut(x.len() / len)) {
        for (x, sum) in x.chunks_exact(len).zip(sums) {
            *sum = w.iter().zip(x).map(|(&w, &x)| i32::from(w) * i32::from(x)).sum();
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::LANES;
    use std::arch::x86_64::{
        _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_shuffle_epi32, _mm256_add_epi32, _mm256_castsi256_si128,
        _mm256_cvtepi8_epi16, _mm256_cvtepu8_epi16, _mm256_extracti128_si256, _mm256_madd_epi16, _mm256_setzero_si256,
    };

    /// Rows of weights and of inputs that are multiplied together, so that each is widened once for several sums.
    const ROWS: usize = 4;
    const COLUMNS: usize = 2;

    /// [`super::portable`].
    ///
    /// # Safety
    /// The machine has AVX2; `len` is a positive multiple of [`LANES`], `w` and `x` consist of whole rows of that length,
    /// and there is a sum for each pair of them.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn products(w: &[i8], x: &[u8], len: usize, sums: &mut [i32]) {
        let (rows, columns) = (w.len() / len, x.len() / len);
        let mut row = 0;
        while row < rows {
            let is_full = row + ROWS <= rows;
            let mut column = 0;
            while column < columns {
                let is_wide = column + COLUMNS <= columns;
                // SAFETY: as many rows and columns are left as each block takes.
                unsafe {
                    let (w, x) = (w.as_ptr().add(row * len), x.as_ptr().add(column * len));
                    let sums = sums.as_mut_ptr().add(row * columns + column);
                    match (is_full, is_wide) {
                        (true, true) => block::<ROWS, COLUMNS>(w, x, len, sums, columns),
                        (true, false) => block::<ROWS, 1>(w, x, len, sums, columns),
                        (false, true) => block::<1, COLUMNS>(w, x, len, sums, columns),
                        (false, false) => block::<1, 1>(w, x, len, sums, columns),
                    }
                }
                column += if is_wide { COLUMNS } else { 1 };
            }
            row += if is_full { ROWS } else { 1 };
        }
    }

    /// R rows times C columns. Loops and no closures: those would not be compiled for AVX2 within the standard library.
    ///
    /// # Safety
    /// The machine has AVX2; R·len weights and C·len inputs can be read, and C sums in each of R rows of `stride` written.
    #[target_feature(enable = "avx2")]
    #[inline]
    unsafe fn block<const R: usize, const C: usize>(
        w: *const i8,
        x: *const u8,
        len: usize,
        to: *mut i32,
        stride: usize,
    ) {
        let mut sums = [[_mm256_setzero_si256(); C]; R];
        let mut at = 0;
        while at < len {
            let mut inputs = [_mm256_setzero_si256(); C];
            let mut column = 0;
            while column < C {
                // SAFETY: at + LANES ≤ len.
                inputs[column] = unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(x.add(column * len + at).cast())) };
                column += 1;
            }
            let mut row = 0;
            while row < R {
                // SAFETY: as above.
                let weights = unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(w.add(row * len + at).cast())) };
                let mut column = 0;
                while column < C {
                    // Products of 16 bits fit 32, and so do pairs of them.
                    let products = _mm256_madd_epi16(weights, inputs[column]);
                    sums[row][column] = _mm256_add_epi32(sums[row][column], products);
                    column += 1;
                }
                row += 1;
            }
            at += LANES;
        }
        let mut row = 0;
        while row < R {
            let mut column = 0;
            while column < C {
                let wide = sums[row][column];
                let four = _mm_add_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256::<1>(wide));
                let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
                let one = _mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two));
                // SAFETY: the caller vouches for the place.
                unsafe { to.add(row * stride + column).write(_mm_cvtsi128_si32(one)) };
                column += 1;
            }
            row += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(len: usize) -> impl Iterator<Item = u8> {
        let mut state = 1u32;
        (0..len).map(move |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
    }

    #[test]
    fn the_vector_code_is_its_portable_twin_to_the_bit() {
        for (rows, columns, len) in [(4, 2, 16), (7, 5, 48), (1, 1, 800), (3, 2, 32), (9, 1, 64)] {
            let w: Vec<i8> = bytes(rows * len).map(|byte| byte as i8).collect();
            let x: Vec<u8> = bytes(columns * len + 5).skip(5).collect();
            let (mut here, mut expected) = (vec![0; rows * columns], vec![0; rows * columns]);
            products(&w, &x, len, &mut here);
            portable(&w, &x, len, &mut expected);
            assert_eq!(here, expected);
        }
    }

    #[test]
    fn the_longest_rows_do_not_overflow() {
        let (w, x) = (vec![-128; 4 << 16], vec![255; 2 << 16]);
        let mut sums = [0; 8];
        products(&w, &x, 1 << 16, &mut sums);
        assert_eq!(sums, [(-128 * 255) << 16; 8]);
    }
}

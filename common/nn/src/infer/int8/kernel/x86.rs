//! The vector code for x86-64: a block of rows times a block of columns at a time, so that what is read serves several
//! sums.

use super::LANES;
use std::arch::x86_64::{
    __m256i, __m512i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_shuffle_epi32, _mm256_add_epi32,
    _mm256_castsi256_si128, _mm256_cvtepi8_epi16, _mm256_cvtepu8_epi16, _mm256_dpbusd_avx_epi32,
    _mm256_extracti128_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_setzero_si256, _mm256_zextsi128_si256,
    _mm512_dpbusd_epi32, _mm512_maskz_loadu_epi8, _mm512_reduce_add_epi32, _mm512_setzero_si512,
};

/// Instructions to multiply with. None can be had but from [`Self::here`] or [`Self::best`]: the machine has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kernel(Instructions);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instructions {
    /// 64 products and their sums by fours in one instruction.
    Avx512Vnni,
    /// 32 of them.
    AvxVnni,
    /// 16, of bytes that were widened before.
    Avx2,
}

impl Kernel {
    /// Those that this machine has, the fastest first.
    pub(super) fn here() -> impl Iterator<Item = Self> {
        let has_512 = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bw");
        let has_256 = is_x86_feature_detected!("avxvnni");
        let has_2 = is_x86_feature_detected!("avx2");
        [(has_512, Instructions::Avx512Vnni), (has_256, Instructions::AvxVnni), (has_2, Instructions::Avx2)]
            .into_iter()
            .filter_map(|(is_there, instructions)| is_there.then_some(Self(instructions)))
    }

    /// The fastest.
    pub(super) fn best() -> Option<Self> {
        Self::here().next()
    }

    /// [`super::portable`].
    ///
    /// # Panics
    /// When there are not whole rows of `len`, a positive multiple of [`LANES`], or not a sum for each pair of them.
    pub(super) fn products(self, w: &[i8], x: &[u8], len: usize, sums: &mut [i32]) {
        assert!(len > 0 && len.is_multiple_of(LANES), "rows of {len}");
        let (rows, columns) = (w.len() / len, x.len() / len);
        assert!(w.len() == rows * len && x.len() == columns * len && sums.len() == rows * columns, "whole rows");
        // SAFETY: the machine has the instructions, and lengths were checked.
        unsafe {
            match self.0 {
                Instructions::Avx512Vnni => avx512_vnni(w, x, len, sums),
                Instructions::AvxVnni => avx_vnni(w, x, len, sums),
                Instructions::Avx2 => avx2(w, x, len, sums),
            }
        }
    }
}

/// A function over all rows and columns, in blocks of `$rows` times `$columns` and then what is left of them; `$step` bytes
/// of a row go by at a time, `$inputs` and `$weights` read so many of them that are left, and `$total` adds up the parts of
/// a sum. A macro, since only then all of it is compiled for the same instructions, and loops in place of closures for the
/// same reason.
macro_rules! kernel {
    (
        $features:literal, $name:ident, [$rows:literal, $columns:literal], $step:literal,
        $zero:ident, $inputs:ident, $weights:ident, $add:ident, $total:ident
    ) => {
        /// # Safety
        /// The machine has the instructions; `len` is a positive multiple of [`LANES`], `w` and `x` consist of whole rows
        /// of that length, and there is a sum for each pair of them.
        #[target_feature(enable = $features)]
        unsafe fn $name(w: &[i8], x: &[u8], len: usize, sums: &mut [i32]) {
            /// R rows times C columns.
            ///
            /// # Safety
            /// The machine has the instructions; R·len weights and C·len inputs can be read, and C sums in each of R rows
            /// of `stride` written.
            #[target_feature(enable = $features)]
            #[inline]
            unsafe fn block<const R: usize, const C: usize>(
                w: *const i8,
                x: *const u8,
                len: usize,
                to: *mut i32,
                stride: usize,
            ) {
                let mut sums = [[$zero(); C]; R];
                let mut at = 0;
                while at < len {
                    let mut inputs = [$zero(); C];
                    let mut column = 0;
                    while column < C {
                        // SAFETY: so many bytes are left of the row.
                        inputs[column] = unsafe { $inputs(x.add(column * len + at), len - at) };
                        column += 1;
                    }
                    let mut row = 0;
                    while row < R {
                        // SAFETY: as above.
                        let weights = unsafe { $weights(w.add(row * len + at), len - at) };
                        let mut column = 0;
                        while column < C {
                            sums[row][column] = $add(sums[row][column], inputs[column], weights);
                            column += 1;
                        }
                        row += 1;
                    }
                    at += $step;
                }
                let mut row = 0;
                while row < R {
                    let mut column = 0;
                    while column < C {
                        // SAFETY: the caller vouches for the place.
                        unsafe { to.add(row * stride + column).write($total(sums[row][column])) };
                        column += 1;
                    }
                    row += 1;
                }
            }
            let (rows, columns) = (w.len() / len, x.len() / len);
            let mut row = 0;
            while row < rows {
                let is_full = row + $rows <= rows;
                let mut column = 0;
                while column < columns {
                    let is_wide = column + $columns <= columns;
                    // SAFETY: as many rows and columns are left as each block takes.
                    unsafe {
                        let (w, x) = (w.as_ptr().add(row * len), x.as_ptr().add(column * len));
                        let sums = sums.as_mut_ptr().add(row * columns + column);
                        match (is_full, is_wide) {
                            (true, true) => block::<$rows, $columns>(w, x, len, sums, columns),
                            (true, false) => block::<$rows, 1>(w, x, len, sums, columns),
                            (false, true) => block::<1, $columns>(w, x, len, sums, columns),
                            (false, false) => block::<1, 1>(w, x, len, sums, columns),
                        }
                    }
                    column += if is_wide { $columns } else { 1 };
                }
                row += if is_full { $rows } else { 1 };
            }
        }
    };
}

kernel!(
    "avx512f,avx512bw,avx512vnni",
    avx512_vnni,
    [4, 4],
    64,
    _mm512_setzero_si512,
    up_to_64,
    signed_up_to_64,
    _mm512_dpbusd_epi32,
    _mm512_reduce_add_epi32
);
kernel!(
    "avx2,avxvnni",
    avx_vnni,
    [4, 2],
    32,
    _mm256_setzero_si256,
    up_to_32,
    signed_up_to_32,
    _mm256_dpbusd_avx_epi32,
    total_of_8
);
kernel!("avx2", avx2, [4, 2], 16, _mm256_setzero_si256, widened_16, signed_widened_16, add_products, total_of_8);

/// 64 bytes, or those that are left and zeros.
///
/// # Safety
/// `left` bytes can be read, if there are not 64, and the machine has AVX-512BW.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn up_to_64(from: *const u8, left: usize) -> __m512i {
    let mask = if left >= 64 { u64::MAX } else { (1 << left) - 1 };
    // SAFETY: the mask has the bytes that may be read.
    unsafe { _mm512_maskz_loadu_epi8(mask, from.cast()) }
}

/// # Safety
/// As [`up_to_64`].
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
unsafe fn signed_up_to_64(from: *const i8, left: usize) -> __m512i {
    // SAFETY: as the caller vouches.
    unsafe { up_to_64(from.cast(), left) }
}

/// 32 bytes, or 16 that are left and zeros.
///
/// # Safety
/// So many can be read, and the machine has AVX2.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn up_to_32(from: *const u8, left: usize) -> __m256i {
    // SAFETY: the caller vouches for the bytes.
    unsafe {
        if left < 32 { _mm256_zextsi128_si256(_mm_loadu_si128(from.cast())) } else { _mm256_loadu_si256(from.cast()) }
    }
}

/// # Safety
/// As [`up_to_32`].
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn signed_up_to_32(from: *const i8, left: usize) -> __m256i {
    // SAFETY: as the caller vouches.
    unsafe { up_to_32(from.cast(), left) }
}

/// 16 bytes as 16 numbers of 16 bits.
///
/// # Safety
/// 16 bytes can be read, and the machine has AVX2.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn widened_16(from: *const u8, _: usize) -> __m256i {
    // SAFETY: the caller vouches for the bytes.
    unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast())) }
}

/// # Safety
/// As [`widened_16`].
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn signed_widened_16(from: *const i8, _: usize) -> __m256i {
    // SAFETY: the caller vouches for the bytes.
    unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) }
}

/// Products of 16 bits fit 32, and so do pairs of them.
#[target_feature(enable = "avx2")]
#[inline]
fn add_products(sums: __m256i, inputs: __m256i, weights: __m256i) -> __m256i {
    _mm256_add_epi32(sums, _mm256_madd_epi16(weights, inputs))
}

/// The sum of the eight parts of a sum.
#[target_feature(enable = "avx2")]
#[inline]
fn total_of_8(parts: __m256i) -> i32 {
    let four = _mm_add_epi32(_mm256_castsi256_si128(parts), _mm256_extracti128_si256::<1>(parts));
    let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
}

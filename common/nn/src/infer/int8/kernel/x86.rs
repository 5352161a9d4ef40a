//! The vector code for x86-64: a block of rows times a block of columns at a time, so that what is read serves several
//! sums.

use super::LANES;
use std::arch::x86_64::{
    __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_shuffle_epi32, _mm256_add_epi32,
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

/// A function over all rows and columns, in blocks of `$rows` times `$columns` and then what is left of them, by a function
/// for a block; a macro, since only then all of it is compiled for the same instructions.
macro_rules! in_blocks {
    ($features:literal, $name:ident, $block:ident, $rows:literal, $columns:literal) => {
        /// # Safety
        /// The machine has the instructions; `len` is a positive multiple of [`LANES`], `w` and `x` consist of whole rows
        /// of that length, and there is a sum for each pair of them.
        #[target_feature(enable = $features)]
        unsafe fn $name(w: &[i8], x: &[u8], len: usize, sums: &mut [i32]) {
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
                            (true, true) => $block::<$rows, $columns>(w, x, len, sums, columns),
                            (true, false) => $block::<$rows, 1>(w, x, len, sums, columns),
                            (false, true) => $block::<1, $columns>(w, x, len, sums, columns),
                            (false, false) => $block::<1, 1>(w, x, len, sums, columns),
                        }
                    }
                    column += if is_wide { $columns } else { 1 };
                }
                row += if is_full { $rows } else { 1 };
            }
        }
    };
}

in_blocks!("avx512f,avx512bw,avx512vnni", avx512_vnni, block_of_64, 4, 4);
in_blocks!("avx2,avxvnni", avx_vnni, block_of_32, 4, 2);
in_blocks!("avx2", avx2, block_of_16, 4, 2);

/// R rows times C columns.
///
/// # Safety
/// The machine has the instructions; R·len weights and C·len inputs can be read, and C sums in each of R rows of `stride`
/// written.
#[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
#[inline]
unsafe fn block_of_64<const R: usize, const C: usize>(
    w: *const i8,
    x: *const u8,
    len: usize,
    to: *mut i32,
    stride: usize,
) {
    let mut sums = [[_mm512_setzero_si512(); C]; R];
    let mut at = 0;
    while at < len {
        // Bytes beyond the row are neither read nor added.
        let mask = if len - at >= 64 { u64::MAX } else { (1 << (len - at)) - 1 };
        let mut inputs = [_mm512_setzero_si512(); C];
        let mut column = 0;
        while column < C {
            // SAFETY: the mask has the bytes that are left of the row.
            inputs[column] = unsafe { _mm512_maskz_loadu_epi8(mask, x.add(column * len + at).cast()) };
            column += 1;
        }
        let mut row = 0;
        while row < R {
            // SAFETY: as above.
            let weights = unsafe { _mm512_maskz_loadu_epi8(mask, w.add(row * len + at)) };
            let mut column = 0;
            while column < C {
                sums[row][column] = _mm512_dpbusd_epi32(sums[row][column], inputs[column], weights);
                column += 1;
            }
            row += 1;
        }
        at += 64;
    }
    let mut row = 0;
    while row < R {
        let mut column = 0;
        while column < C {
            // SAFETY: the caller vouches for the place.
            unsafe { to.add(row * stride + column).write(_mm512_reduce_add_epi32(sums[row][column])) };
            column += 1;
        }
        row += 1;
    }
}

/// As [`block_of_64`].
///
/// # Safety
/// As [`block_of_64`], and `len` is a multiple of 16.
#[target_feature(enable = "avx2,avxvnni")]
#[inline]
unsafe fn block_of_32<const R: usize, const C: usize>(
    w: *const i8,
    x: *const u8,
    len: usize,
    to: *mut i32,
    stride: usize,
) {
    let mut sums = [[_mm256_setzero_si256(); C]; R];
    let mut at = 0;
    while at < len {
        let is_half = len - at < 32;
        let mut inputs = [_mm256_setzero_si256(); C];
        let mut column = 0;
        while column < C {
            // SAFETY: 16 bytes are left of the row, or 32.
            inputs[column] = unsafe { bytes(x.add(column * len + at), is_half) };
            column += 1;
        }
        let mut row = 0;
        while row < R {
            // SAFETY: as above.
            let weights = unsafe { bytes(w.add(row * len + at).cast(), is_half) };
            let mut column = 0;
            while column < C {
                sums[row][column] = _mm256_dpbusd_avx_epi32(sums[row][column], inputs[column], weights);
                column += 1;
            }
            row += 1;
        }
        at += 32;
    }
    // SAFETY: the caller vouches for the places.
    unsafe { write(&sums, to, stride) };
}

/// 32 bytes, or 16 and zeros.
///
/// # Safety
/// So many can be read, and the machine has AVX2.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn bytes(from: *const u8, is_half: bool) -> __m256i {
    // SAFETY: the caller vouches for the bytes.
    unsafe {
        if is_half { _mm256_zextsi128_si256(_mm_loadu_si128(from.cast())) } else { _mm256_loadu_si256(from.cast()) }
    }
}

/// As [`block_of_64`]. Loops and no closures: those would not be compiled for AVX2 within the standard library.
///
/// # Safety
/// As [`block_of_64`], and `len` is a multiple of 16.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn block_of_16<const R: usize, const C: usize>(
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
            // SAFETY: at + 16 ≤ len.
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
        at += 16;
    }
    // SAFETY: the caller vouches for the places.
    unsafe { write(&sums, to, stride) };
}

/// Adds up the eight parts of each sum.
///
/// # Safety
/// The machine has AVX2, and C sums in each of R rows of `stride` can be written.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn write<const R: usize, const C: usize>(sums: &[[__m256i; C]; R], to: *mut i32, stride: usize) {
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

//! AVX-512 and AVX2 vectors, and the functions that are compiled for them.
#![expect(unsafe_code, reason = "vector instructions are unsafe to call where they may not exist")]

use super::Kernel;
use super::bytes::Bytes;
use super::tile::{self, FloatVector, Operands, Vector};
use std::arch::x86_64::*;

/// # Safety
/// The processor has AVX-512F, and the kernel may be run.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn run_avx512<V: FloatVector, K: Kernel<V::Element>>(kernel: K) {
    // SAFETY: the caller's.
    unsafe { kernel.run::<V>() }
}

/// # Safety
/// The processor has AVX2 and FMA, and the kernel may be run.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn run_avx2<V: FloatVector, K: Kernel<V::Element>>(kernel: K) {
    // SAFETY: the caller's.
    unsafe { kernel.run::<V>() }
}

#[target_feature(enable = "avx512f")]
pub(super) fn with_avx512<R>(work: impl FnOnce() -> R) -> R {
    work()
}

#[target_feature(enable = "avx2,fma")]
pub(super) fn with_avx2<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Sixteen f32; a mask says which of them are in memory, at no cost.
#[derive(Clone, Copy)]
pub(super) struct Avx512(__m512);

/// The lowest `count` bits.
#[inline(always)]
fn mask(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

// SAFETY of all methods: the trait says that they are called where AVX-512F exists, and with how much memory.
impl Vector for Avx512 {
    type Element = f32;
    const LANES: usize = 16;
    const ROWS: usize = 14;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32, count: usize) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm512_maskz_loadu_ps(mask(count), from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, count: usize) {
        // SAFETY: see the impl.
        unsafe { _mm512_mask_storeu_ps(to, mask(count), self.0) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    unsafe fn multiply_then_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm512_add_ps(_mm512_mul_ps(self.0, factor.0), term.0) })
    }

    #[inline(always)]
    unsafe fn rectified(self) -> Self {
        // The second operand is the result if one is NaN.
        // SAFETY: see the impl.
        Self(unsafe { _mm512_max_ps(_mm512_setzero_ps(), self.0) })
    }
}

// SAFETY of all methods: as above.
impl FloatVector for Avx512 {
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn folded(self) -> f32 {
        // SAFETY: see the impl; all that has AVX-512F has AVX2.
        unsafe {
            let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0)));
            Avx2(_mm256_add_ps(_mm512_castps512_ps256(self.0), high)).folded()
        }
    }
}

/// Eight f32.
#[derive(Clone, Copy)]
pub(super) struct Avx2(__m256);

/// Ones in the lowest `count` of eight lanes: loaded from this at offset 8 − count.
const ONES_THEN_ZEROS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

impl Avx2 {
    #[inline(always)]
    unsafe fn mask(count: usize) -> __m256i {
        // SAFETY: `count` is at most 8, so 8 elements follow the offset.
        unsafe { _mm256_loadu_si256(ONES_THEN_ZEROS.as_ptr().add(8 - count).cast()) }
    }
}

// SAFETY of all methods: the trait says that they are called where AVX2 and FMA exist, and with how much memory.
impl Vector for Avx2 {
    type Element = f32;
    const LANES: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32, count: usize) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { if count == 8 { _mm256_loadu_ps(from) } else { _mm256_maskload_ps(from, Self::mask(count)) } })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, count: usize) {
        // SAFETY: see the impl.
        unsafe {
            if count == 8 { _mm256_storeu_ps(to, self.0) } else { _mm256_maskstore_ps(to, Self::mask(count), self.0) }
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    unsafe fn multiply_then_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm256_add_ps(_mm256_mul_ps(self.0, factor.0), term.0) })
    }

    #[inline(always)]
    unsafe fn rectified(self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm256_max_ps(_mm256_setzero_ps(), self.0) })
    }
}

// SAFETY of all methods: as above.
impl FloatVector for Avx2 {
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn folded(self) -> f32 {
        // SAFETY: see the impl.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
}

/// # Safety
/// The processor has AVX-512F and its VNNI, and the operands are as [`tile::sum_of_products`] wants them.
#[target_feature(enable = "avx512f,avx512vnni")]
pub(super) unsafe fn sum_of_bytes_avx512<T: Bytes>(operands: &Operands<T>) {
    // SAFETY: the caller's.
    unsafe { tile::sum_of_products::<T::In<Bytes512>>(operands) }
}

/// # Safety
/// The processor has AVX2 and AVX-VNNI, and the operands are as [`tile::sum_of_products`] wants them.
#[target_feature(enable = "avx2,avxvnni")]
pub(super) unsafe fn sum_of_bytes_vnni<T: Bytes>(operands: &Operands<T>) {
    // SAFETY: the caller's.
    unsafe { tile::sum_of_products::<T::In<Bytes256<true>>>(operands) }
}

/// # Safety
/// The processor has AVX2, and the operands are as [`tile::sum_of_products`] wants them.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn sum_of_bytes_avx2<T: Bytes>(operands: &Operands<T>) {
    // SAFETY: the caller's.
    unsafe { tile::sum_of_products::<T::In<Bytes256<false>>>(operands) }
}

/// Sixteen words of four bytes.
#[derive(Clone, Copy)]
struct Bytes512(__m512i);

// SAFETY of all methods: the trait says that they are called where AVX-512F and VNNI exist, and with how much memory.
impl Vector for Bytes512 {
    type Element = u32;
    const LANES: usize = 16;
    const ROWS: usize = 14;

    #[inline(always)]
    unsafe fn splat(value: u32) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm512_set1_epi32(value.cast_signed()) })
    }

    #[inline(always)]
    unsafe fn load(from: *const u32, count: usize) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm512_maskz_loadu_epi32(mask(count), from.cast()) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u32, count: usize) {
        // SAFETY: see the impl.
        unsafe { _mm512_mask_storeu_epi32(to.cast(), mask(count), self.0) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm512_dpbusd_epi32(term.0, self.0, factor.0) })
    }

    #[inline(always)]
    unsafe fn multiply_then_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { self.multiply_add(factor, term) }
    }

    #[inline(always)]
    unsafe fn rectified(self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm512_max_epi32(self.0, _mm512_setzero_si512()) })
    }
}

/// Eight words of four bytes, with or without the instruction for their products.
#[derive(Clone, Copy)]
struct Bytes256<const VNNI: bool>(__m256i);

// SAFETY of all methods: the trait says that they are called where AVX2, and VNNI if it is said, exist, and with how much
// memory.
impl<const VNNI: bool> Vector for Bytes256<VNNI> {
    type Element = u32;
    const LANES: usize = 8;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(value: u32) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm256_set1_epi32(value.cast_signed()) })
    }

    #[inline(always)]
    unsafe fn load(from: *const u32, count: usize) -> Self {
        // SAFETY: see the impl.
        Self(unsafe {
            match count {
                8 => _mm256_loadu_si256(from.cast()),
                _ => _mm256_maskload_epi32(from.cast(), Avx2::mask(count)),
            }
        })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u32, count: usize) {
        // SAFETY: see the impl.
        unsafe {
            if count == 8 {
                _mm256_storeu_si256(to.cast(), self.0);
            } else {
                _mm256_maskstore_epi32(to.cast(), Avx2::mask(count), self.0);
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe {
            if VNNI {
                _mm256_dpbusd_avx_epi32(term.0, self.0, factor.0)
            } else {
                // Bytes at even and at odd places as numbers of 16 bits, whose products fit 32, and so do pairs of them.
                let even = _mm256_madd_epi16(
                    _mm256_and_si256(self.0, _mm256_set1_epi16(0xff)),
                    _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(factor.0)),
                );
                let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(self.0), _mm256_srai_epi16::<8>(factor.0));
                _mm256_add_epi32(term.0, _mm256_add_epi32(even, odd))
            }
        })
    }

    #[inline(always)]
    unsafe fn multiply_then_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        unsafe { self.multiply_add(factor, term) }
    }

    #[inline(always)]
    unsafe fn rectified(self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { _mm256_max_epi32(self.0, _mm256_setzero_si256()) })
    }
}

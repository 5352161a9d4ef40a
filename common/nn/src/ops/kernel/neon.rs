//! NEON vectors, which every 64-bit ARM processor has.
#![expect(unsafe_code, reason = "implements loads and stores through pointers")]

use super::tile::{FloatVector, Vector};
use std::arch::aarch64::*;

/// Four f32.
#[derive(Clone, Copy)]
pub(super) struct Neon(float32x4_t);

// SAFETY of all methods: the instructions are part of the architecture, and the trait says with how much memory they are
// called.
impl Vector for Neon {
    type Element = f32;
    const LANES: usize = 4;
    /// Of 32 registers 24 hold sums.
    const ROWS: usize = 12;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { vdupq_n_f32(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32, count: usize) -> Self {
        // SAFETY: see the impl.
        unsafe {
            if count == 4 {
                return Self(vld1q_f32(from));
            }
            let mut lanes = [0f32; 4];
            for (lane, value) in lanes.iter_mut().enumerate().take(count) {
                *value = *from.add(lane);
            }
            Self(vld1q_f32(lanes.as_ptr()))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32, count: usize) {
        // SAFETY: see the impl.
        unsafe {
            if count == 4 {
                return vst1q_f32(to, self.0);
            }
            let mut lanes = [0f32; 4];
            vst1q_f32(lanes.as_mut_ptr(), self.0);
            for (lane, value) in lanes.into_iter().enumerate().take(count) {
                *to.add(lane) = value;
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { vfmaq_f32(term.0, self.0, factor.0) })
    }

    #[inline(always)]
    unsafe fn multiply_then_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { vaddq_f32(vmulq_f32(self.0, factor.0), term.0) })
    }

    #[inline(always)]
    unsafe fn rectified(self) -> Self {
        // Where the comparison holds, zeros; NaN compares as false and stays.
        // SAFETY: see the impl.
        Self(unsafe { vbslq_f32(vcltzq_f32(self.0), vdupq_n_f32(0.0), self.0) })
    }
}

// SAFETY of all methods: as above.
impl FloatVector for Neon {
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        // SAFETY: see the impl.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn folded(self) -> f32 {
        // SAFETY: see the impl.
        unsafe {
            let halves = vadd_f32(vget_low_f32(self.0), vget_high_f32(self.0));
            vget_lane_f32::<0>(halves) + vget_lane_f32::<1>(halves)
        }
    }
}

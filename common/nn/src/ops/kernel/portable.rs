//! Vectors in plain Rust: for other processors, for `f64`, and as the twin that the vector code is tested against.
#![expect(unsafe_code, reason = "implements loads and stores through pointers")]

use super::tile::{FloatVector, Vector};
use candle_core::WithDType;

/// Four elements, which every processor with vectors at all can hold in one register or two.
#[derive(Clone, Copy)]
pub(super) struct Lanes<T>([T; 4]);

impl<T: WithDType> Vector for Lanes<T> {
    type Element = T;
    const LANES: usize = 4;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(value: T) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const T, count: usize) -> Self {
        let mut lanes = [T::zero(); 4];
        // SAFETY: the caller vouches for `count` elements.
        unsafe {
            if count == 4 {
                lanes = from.cast::<[T; 4]>().read();
            } else {
                for (lane, value) in lanes.iter_mut().enumerate().take(count) {
                    *value = *from.add(lane);
                }
            }
        }
        Self(lanes)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut T, count: usize) {
        // SAFETY: the caller vouches for `count` elements.
        unsafe {
            if count == 4 {
                to.cast::<[T; 4]>().write(self.0);
            } else {
                for (lane, &value) in self.0.iter().enumerate().take(count) {
                    *to.add(lane) = value;
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, factor: Self, term: Self) -> Self {
        // SAFETY: the caller's; without the instruction, a fused multiply-add is a call of a hundred steps.
        unsafe { self.multiply_then_add(factor, term) }
    }

    #[inline(always)]
    unsafe fn multiply_then_add(self, factor: Self, term: Self) -> Self {
        let mut sum = term.0;
        for (sum, (x, y)) in sum.iter_mut().zip(self.0.into_iter().zip(factor.0)) {
            *sum += x * y;
        }
        Self(sum)
    }

    #[inline(always)]
    unsafe fn rectified(self) -> Self {
        Self(self.0.map(|x| if x < T::zero() { T::zero() } else { x }))
    }
}

impl<T: WithDType> FloatVector for Lanes<T> {
    #[inline(always)]
    unsafe fn plus(self, other: Self) -> Self {
        let mut sum = self.0;
        for (sum, other) in sum.iter_mut().zip(other.0) {
            *sum += other;
        }
        Self(sum)
    }

    #[inline(always)]
    unsafe fn folded(self) -> T {
        (self.0[0] + self.0[2]) + (self.0[1] + self.0[3])
    }
}

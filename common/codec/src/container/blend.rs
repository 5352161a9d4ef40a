//! A probability mixed from several guesses in the logistic domain, as for positions, with weights that follow the error.

use crate::positions::mixed::{Estimate, TABLES};
use crate::range::P_BITS;

/// Weighs `N` guesses.
#[derive(Clone, Copy)]
pub(super) struct Blend<const N: usize> {
    /// In 2^-16.
    weights: [i32; N],
    inputs: [i32; N],
    /// What was foretold, in 2^-16.
    p: i32,
}

impl<const N: usize> Blend<N> {
    /// All guesses weigh the same, and together a little more than one: each has seen only a part.
    pub(super) fn new() -> Self {
        Self { weights: [START / N as i32; N], inputs: [0; N], p: 0 }
    }

    /// The probability in 2^-[`P_BITS`].
    #[inline]
    pub(super) fn mix(&mut self, guesses: [Estimate; N]) -> u32 {
        let tables = &*TABLES;
        self.inputs = guesses.map(|guess| guess.stretched(tables));
        let sum: i64 = self.inputs.iter().zip(self.weights).map(|(&x, w)| i64::from(x) * i64::from(w)).sum();
        let p = tables.squash((sum >> 16) as i32);
        self.p = (p >> (P_BITS - 16)) as i32;
        p
    }

    #[inline]
    pub(super) fn learn(&mut self, set: bool) {
        let error = (i32::from(set) << 16) - self.p;
        for (weight, &x) in self.weights.iter_mut().zip(&self.inputs) {
            let step = (i64::from(x) * i64::from(error)) >> LEARNING_SHIFT;
            // Bounded, so that no stream whatever makes them overflow.
            *weight = (*weight + step as i32).clamp(-WEIGHT_MAX, WEIGHT_MAX);
        }
    }
}

const START: i32 = 78_000;
const WEIGHT_MAX: i32 = 1 << 20;
const LEARNING_SHIFT: u32 = 14;

//! Loops compiled for the machine's vector unit, in a program that was compiled for any machine.

use std::cell::Cell;

/// Runs `loops` in the version compiled for the widest vector instructions found when the program started; the results
/// are the same to the bit in each.
///
/// What `loops` calls is part of it only where it is inlined.
#[inline]
pub fn vectorised<R>(loops: impl FnOnce() -> R) -> R {
    match WIDEST.get() {
        Vectors::Any => pulp::Arch::new().dispatch(loops),
        #[cfg(target_arch = "x86_64")]
        Vectors::Avx2 if let Some(simd) = pulp::x86::V3::try_new() => pulp::x86::Arch::V3(simd).dispatch(loops),
        _ => pulp::Simd::vectorize(pulp::Scalar, loops),
    }
}

/// Vector instructions that loops may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vectors {
    /// Whatever the machine has.
    Any,
    /// No wider than AVX2, on a processor that has it; else those of [`Vectors::Baseline`].
    Avx2,
    /// Those that every processor has for which the program was compiled.
    Baseline,
}

/// Runs `code` with no wider vector instructions than these, on this thread: the way to see on one machine what another
/// one computes.
pub fn with_vectors<R>(vectors: Vectors, code: impl FnOnce() -> R) -> R {
    /// Sets it back, whatever becomes of `code`.
    struct Before(Vectors);
    impl Drop for Before {
        fn drop(&mut self) {
            WIDEST.set(self.0);
        }
    }
    let _before = Before(WIDEST.replace(vectors));
    code()
}

thread_local! {
    static WIDEST: Cell<Vectors> = const { Cell::new(Vectors::Any) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrower_width_ends_with_its_code_even_if_that_panics() {
        let panicked = std::panic::catch_unwind(|| {
            with_vectors(Vectors::Baseline, || {
                assert_eq!(WIDEST.get(), Vectors::Baseline);
                with_vectors(Vectors::Avx2, || panic!("within"))
            })
        });
        assert!(panicked.is_err());
        assert_eq!(WIDEST.get(), Vectors::Any);
    }
}

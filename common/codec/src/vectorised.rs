//! Loops compiled for the machine's vector unit, in a program that was compiled for any machine.

/// Runs `loops` in the version compiled for the widest vector instructions found when the program started; the results
/// are the same to the bit in each.
///
/// What `loops` calls is part of it only where it is inlined.
#[inline]
pub fn vectorised<R>(loops: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(loops)
}

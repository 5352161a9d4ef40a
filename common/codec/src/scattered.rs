//! Memory that is touched here and there.

use std::ops::BitOr;

/// Brings the values at `indices` into the cache, in which a whole model or sum of them has no room: loads that nothing
/// waits for wait for memory together, and not one after the other. To be called with [`FETCHED_TOGETHER`] indices or
/// fewer, just before these values are changed; an index beyond the last value is skipped.
#[inline]
pub fn fetch<T: Copy + Default + BitOr<Output = T>>(values: &[T], indices: impl Iterator<Item = u32>) {
    let there = indices.map(|index| values.get(index as usize).copied().unwrap_or_default());
    std::hint::black_box(there.fold(T::default(), |bits, value| bits | value));
}

/// As many loads as are worth waiting for at a time.
pub const FETCHED_TOGETHER: usize = 128;

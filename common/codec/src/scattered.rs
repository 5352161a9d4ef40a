//! Memory that is touched here and there.

use std::ops::BitOr;

/// Brings the values at `indices` into the cache, in which a whole model or sum of them has no room: loads that nothing
/// waits for wait for memory together, and not one after the other. To be called with [`FETCHED_TOGETHER`] indices or
/// fewer, just before these values are changed; an index beyond the last value is skipped. `bits` are some of a value's,
/// all of which are put together, so that no load can be left out.
#[inline]
pub fn fetch<T: Copy, B: Default + BitOr<Output = B>>(
    values: &[T],
    indices: impl Iterator<Item = u32>,
    bits: impl Fn(T) -> B,
) {
    let there = indices.map(|index| values.get(index as usize).map_or_else(B::default, |&value| bits(value)));
    std::hint::black_box(there.fold(B::default(), |all, bits| all | bits));
}

/// As many loads as are worth waiting for at a time.
pub const FETCHED_TOGETHER: usize = 128;

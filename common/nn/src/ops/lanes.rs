//! Channels side by side, some vectors of them at a time, while pixels go by.
//!
//! With a number of lanes that the compiler knows, what belongs to the channels stays in registers; a number known only
//! at run time makes a call of each load and store.

use super::kernel::Float;

/// What is done for some channels.
pub(super) trait Lanes {
    /// For `LANES` channels from `channel` on.
    fn run<const LANES: usize>(&mut self, channel: usize);
}

/// Goes over all channels: by the cache line of f32, then by half of one, then one by one. To be called where it is
/// vectorised.
#[inline(always)]
pub(super) fn for_all_channels(channels: usize, work: &mut impl Lanes) {
    let mut channel = 0;
    while channel + 16 <= channels {
        work.run::<16>(channel);
        channel += 16;
    }
    if channel + 8 <= channels {
        work.run::<8>(channel);
        channel += 8;
    }
    while channel < channels {
        work.run::<1>(channel);
        channel += 1;
    }
}

/// `LANES` elements from `first` on.
#[inline(always)]
pub(super) fn load<T: Float, const LANES: usize>(from: &[T], first: usize) -> [T; LANES] {
    let mut lanes = [T::zero(); LANES];
    lanes.copy_from_slice(&from[first..first + LANES]);
    lanes
}

/// Writes them from `first` on.
#[inline(always)]
pub(super) fn store<T: Float, const LANES: usize>(lanes: &[T; LANES], to: &mut [T], first: usize) {
    to[first..first + LANES].copy_from_slice(lanes);
}

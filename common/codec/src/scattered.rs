//! Memory that is touched here and there.

use prefetch_index::prefetch_index;

/// Changes the values at `places` one after the other, of a vector for which the cache has no room: memory is asked for
/// some places before it is wanted, so that none is waited for alone. `change` gets a value and the number of its
/// place. A place beyond the last value is skipped.
#[inline(always)]
pub fn change_at<T>(
    values: &mut [T],
    places: impl Iterator<Item = u32> + Clone,
    mut change: impl FnMut(&mut T, usize),
) {
    for place in places.clone().take(AHEAD) {
        prefetch_index(&*values, place as usize);
    }
    let mut ahead = places.clone().skip(AHEAD);
    for (i, place) in places.enumerate() {
        if let Some(place) = ahead.next() {
            prefetch_index(&*values, place as usize);
        }
        if let Some(value) = values.get_mut(place as usize) {
            change(value, i);
        }
    }
}

/// More places than a processor waits for at a time, and few enough for its cache.
const AHEAD: usize = 64;

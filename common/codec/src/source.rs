//! Vectors that need not lie in memory, and what a frame leaves of them.

use crate::{Error, vectorised};

/// A vector that is computed where it is read: an update is the difference of two models plus a residual, and reading
/// these once is what encoding costs.
pub trait Source {
    /// Its length.
    fn len(&self) -> usize;

    /// Whether it has no coordinates.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values from `start` on, as many as `buffer` has room for and written into it unless they lie in memory
    /// already. The same values at every call. Worth `#[inline(always)]`: see [`vectorised`].
    fn block<'a>(&'a self, start: usize, buffer: &'a mut [f32]) -> &'a [f32];
}

impl Source for [f32] {
    fn len(&self) -> usize {
        self.len()
    }

    fn block<'a>(&'a self, start: usize, buffer: &'a mut [f32]) -> &'a [f32] {
        &self[start..start + buffer.len()]
    }
}

/// Takes what a frame does not carry of its vector, to be tried again in a later one.
pub trait Rest {
    /// Takes the values from `start` on as if none of them were sent; in rising order, and possibly all once more from
    /// 0 on, when the later ones count.
    fn take(&mut self, start: usize, values: &[f32]);

    /// Puts right some of the values taken: what is left at these places, in rising order.
    fn correct(&mut self, places: &[u32], left: &[f32]);
}

/// Without feedback what is not sent is lost.
impl Rest for () {
    fn take(&mut self, _: usize, _: &[f32]) {}

    fn correct(&mut self, _: &[u32], _: &[f32]) {}
}

/// Reads a vector from its first to its last coordinate, a few thousand at a time so that they stay in the first-level
/// cache.
pub(crate) fn blocks<S: Source + ?Sized>(u: &S, mut each: impl FnMut(usize, &[f32])) {
    let mut buffer = Buffer { _lead: [0; LEAD / 4], values: [0.0; AT_ONCE] };
    let n = u.len();
    vectorised(
        #[inline(always)]
        || {
            for start in (0..n).step_by(AT_ONCE) {
                let len = AT_ONCE.min(n - start);
                each(start, u.block(start, &mut buffer.values[..len]));
            }
        },
    );
}

/// Where values lie between the vectors that they come from and go to. A processor takes a load for one of what was just
/// stored, and waits, if the last twelve bits of both addresses agree; allocators have long vectors begin near a page's
/// beginning, and this place in a page agrees least with theirs. Wherever the stack happens to be, up to a quarter of the
/// time of encoding went that way.
#[repr(align(4096))]
struct Buffer {
    _lead: [u32; LEAD / 4],
    values: [f32; AT_ONCE],
}

/// Refuses the first of `values`, which begin at `start`, that is not finite. The loop that looks for one vectorises,
/// since it never leaves early.
#[inline]
pub(crate) fn check_finite(start: usize, values: &[f32]) -> Result<(), Error> {
    if values.iter().fold(true, |finite, value| finite & value.is_finite()) {
        return Ok(());
    }
    Err(not_finite(start, values))
}

/// Names the first of `values`, which begin at `start`, that is not finite; there is one.
#[cold]
pub(crate) fn not_finite(start: usize, values: &[f32]) -> Error {
    let at = values.iter().position(|value| !value.is_finite()).unwrap_or_default();
    Error::NotFinite { index: start + at, nan: values[at].is_nan() }
}

/// Bytes from a page's beginning to the values.
const LEAD: usize = 1024;
/// Values read at a time.
pub(crate) const AT_ONCE: usize = 128;

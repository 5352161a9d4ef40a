//! What an operation keeps from its forward pass for its gradient.

use std::sync::{Mutex, PoisonError};

/// A place for values that candle's interface has no way for: only operands and result reach a gradient.
///
/// The gradient takes them out, so that their memory is its own; a second gradient of the same pass finds nothing, and
/// has to compute them anew.
pub(super) struct Saved<S>(Mutex<Option<S>>);

impl<S> Saved<S> {
    pub(super) const fn nothing() -> Self {
        Self(Mutex::new(None))
    }

    pub(super) fn put(&self, values: S) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(values);
    }

    pub(super) fn take(&self) -> Option<S> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

//! Decoding in buffers that each thread keeps: fetching their memory anew would take a third of a sparse frame's time.

use dunlin_codec::{Decoder, Error, Limits, Segments, Sink};
use std::cell::RefCell;

thread_local! {
    static DECODER: RefCell<Decoder> = RefCell::new(Decoder::new());
}

/// Does what [`dunlin_codec::decode`] does.
pub(crate) fn decode(frame: &[u8], segments: &Segments, limits: &Limits, sink: &mut impl Sink) -> Result<(), Error> {
    DECODER.with_borrow_mut(|decoder| decoder.decode(frame, segments, limits, sink))
}

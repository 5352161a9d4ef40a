//! The same version for clients that have a part of the model.

use super::{Broadcast, kept::Kept};
use crate::packet::Packet;
use dunlin_codec::{Encoder, MaskedGrid};
use dunlin_core::recipe::Width;
use dunlin_nn::small::{Slice, Slices};
use std::sync::Arc;

/// A slice's own broadcast: what the packets and models of the whole make of it.
#[derive(Clone)]
pub(super) struct Sliced {
    slice: Arc<Slice>,
    pub(super) broadcast: Arc<Broadcast>,
}

impl Broadcast {
    /// The same, for clients of several sizes.
    #[must_use]
    pub fn with_slices(mut self, slices: &Slices) -> Self {
        let sliced = slices.iter().map(|slice| {
            let [initial, model] = [&self.initial, &self.model].map(|grid| Arc::new(slice.of_grid(grid)));
            let packets = self.packets.iter().map(|(&version, kept)| (version, restricted(kept, slice, self.plain)));
            let broadcast = Self::new(initial, self.version, model, packets.collect(), self.packet_ring);
            let broadcast = if self.plain { broadcast.plainly() } else { broadcast };
            Sliced { slice: Arc::clone(slice), broadcast: Arc::new(broadcast) }
        });
        self.sliced = sliced.collect();
        self
    }

    /// What clients of a width are handed out.
    #[must_use]
    pub fn of(self: &Arc<Self>, width: Width) -> &Arc<Self> {
        self.sliced.iter().find(|sliced| sliced.slice.width() == width).map_or(self, |sliced| &sliced.broadcast)
    }
}

impl Sliced {
    /// The slice of the version that `packet` leads to.
    pub(super) fn advance(&self, model: &MaskedGrid, kept: &Kept) -> Self {
        let slice = Arc::clone(&self.slice);
        let model = Arc::new(slice.of_grid(model));
        let digest = dunlin_core::Digest(model.digest());
        let packet = restricted(kept, &slice, self.broadcast.plain);
        Self { slice, broadcast: Arc::new(self.broadcast.advance(model, digest, packet)) }
    }
}

/// What a packet of the whole model adds to a slice of it, exactly: integers, since those of a quantizer are fitted to
/// the tensors of the whole.
fn restricted(kept: &Kept, slice: &Slice, plain: bool) -> Packet {
    let whole = slice.mask().whole();
    let mut steps = vec![0; whole.len()];
    kept.add_to(&mut steps, whole).expect("a packet of one's own can be read");
    slice.mask().gather(&mut steps);
    let mut encoder = Encoder::new();
    let encoded = match plain {
        true => encoder.encode_integers_plainly(slice.segments(), &steps),
        false => encoder.encode_integers(slice.segments(), &steps),
    };
    Packet::new(vec![encoded.expect("a slice has as many steps as its mask leaves").frame.into()])
}

//! A packet that is kept for clients that missed rounds.

use crate::packet::Packet;
use dunlin_codec::grid::{self, Steps};
use dunlin_codec::{Error, Limits, Segments};
use std::sync::OnceLock;

/// A packet, and what its values add: each version that clients hold needs the sum of another run of packets, so a
/// packet would else be decoded once for each of them.
pub(super) struct Kept {
    packet: Packet,
    steps: OnceLock<Vec<Steps>>,
}

impl Kept {
    pub(super) fn new(packet: Packet) -> Self {
        Self { packet, steps: OnceLock::new() }
    }

    pub(super) fn packet(&self) -> &Packet {
        &self.packet
    }

    /// Adds the packet's values to `delta`, which has an element for each coordinate of the mask that the packet leads
    /// to.
    pub(super) fn add_to(&self, delta: &mut [i32], segments: &Segments) -> Result<(), Error> {
        if let Some(steps) = self.steps.get() {
            steps.iter().for_each(|steps| steps.add_to(delta));
            return Ok(());
        }
        let limits = Limits::for_segments(segments);
        let frames = self.packet.value_frames();
        if self.packet.frame_bytes() > (segments.len() / BYTES_SHARE) as u64 {
            return frames.iter().try_for_each(|frame| grid::apply_update(frame, segments, &limits, delta));
        }
        let steps = frames.iter().map(|frame| Steps::of(frame, segments, &limits)).collect::<Result<Vec<_>, _>>()?;
        steps.iter().for_each(|steps| steps.add_to(delta));
        if steps.iter().map(Steps::count).sum::<usize>() <= segments.len() / STEPS_SHARE {
            // Another thread may have been faster, with the same.
            let _ = self.steps.set(steps);
        }
        Ok(())
    }
}

/// Steps are kept of packets that change at most one in so many coordinates: at eight bytes each a sixteenth of the
/// model.
const STEPS_SHARE: usize = 32;
/// Of a packet with more than one byte for so many coordinates that cannot be hoped, and it goes straight to the sum.
const BYTES_SHARE: usize = 8;

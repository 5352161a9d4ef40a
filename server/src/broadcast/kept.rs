//! A packet that is kept for clients that missed rounds.

use crate::packet::Packet;
use dunlin_codec::grid::{self, Steps};
use dunlin_codec::{Error, FrameHeader, Limits, Segments};
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
        let count = |frame| FrameHeader::parse(frame).map(|header| header.nonzeros as usize);
        let changed = frames.iter().map(|frame| count(frame)).sum::<Result<usize, _>>()?;
        if changed > segments.len() / SHARE {
            return frames.iter().try_for_each(|frame| grid::apply_update(frame, segments, &limits, delta));
        }
        let steps = frames.iter().map(|frame| Steps::of(frame, segments, &limits)).collect::<Result<Vec<_>, _>>()?;
        steps.iter().for_each(|steps| steps.add_to(delta));
        // Another thread may have been faster, with the same.
        let _ = self.steps.set(steps);
        Ok(())
    }
}

/// Steps are kept of packets that change at most one in so many coordinates: at eight bytes each a sixteenth of the
/// model.
const SHARE: usize = 32;

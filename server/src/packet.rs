//! What leads from one version of the broadcast model to the next, as it is kept and sent.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use dunlin_codec::FrameHeader;

/// Frames to apply in order: those that change the mask, where it changes, and the one with the values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    frames: Vec<Bytes>,
}

/// Bytes that are not those of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a packet of {0} bytes is cut short")]
pub struct CutShort(usize);

impl Packet {
    /// A packet of these frames.
    #[must_use]
    pub fn new(frames: Vec<Bytes>) -> Self {
        Self { frames }
    }

    /// The frames in order.
    #[must_use]
    pub fn frames(&self) -> &[Bytes] {
        &self.frames
    }

    /// Those with values, which are about the mask that the others lead to.
    #[must_use]
    pub fn value_frames(&self) -> &[Bytes] {
        let of_mask = |frame: &Bytes| FrameHeader::parse(frame).is_ok_and(|header| header.kind.is_mask());
        &self.frames[self.frames.iter().rposition(of_mask).map_or(0, |last| last + 1)..]
    }

    /// Bytes of all frames, which is what a client is sent.
    #[must_use]
    pub fn frame_bytes(&self) -> u64 {
        self.frames.iter().map(|frame| frame.len() as u64).sum()
    }

    /// Whether it changes which coordinates are left.
    #[must_use]
    pub fn changes_mask(&self) -> bool {
        self.value_frames().len() < self.frames.len()
    }

    /// As it is kept: each frame behind its length, 32 bits in little endian.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.frames.iter().map(|frame| 4 + frame.len()).sum());
        for frame in &self.frames {
            bytes.put_u32_le(frame.len() as u32);
            bytes.put_slice(frame);
        }
        bytes.freeze()
    }

    /// From what [`Self::to_bytes`] gave; the frames share its memory.
    ///
    /// # Errors
    /// When a frame is not as long as it says.
    pub fn parse(mut bytes: Bytes) -> Result<Self, CutShort> {
        let error = CutShort(bytes.len());
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let len = bytes.try_get_u32_le().map_err(|_| error)? as usize;
            if len > bytes.len() {
                return Err(error);
            }
            frames.push(bytes.split_to(len));
        }
        Ok(Self { frames })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_read_as_it_was_written_and_never_shorter() {
        let packet = Packet::new(vec![Bytes::from_static(b"mask"), Bytes::new(), Bytes::from_static(b"values")]);
        let bytes = packet.to_bytes();
        assert_eq!((bytes.len() as u64, packet.frame_bytes()), (10 + 12, 10));
        assert_eq!(Packet::parse(bytes.clone()), Ok(packet));
        for len in (0..bytes.len()).filter(|len| ![0, 8, 12].contains(len)) {
            assert_eq!(Packet::parse(bytes.slice(..len)), Err(CutShort(len)));
        }
    }
}

//! Frames that have arrived in part, for resumption after a broken link.

use bytes::{Bytes, BytesMut};
use dunlin_core::message::UpdateHeader;
use dunlin_core::{ClientId, Digest};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Interrupted uploads, one a client at most, within one bound on their bytes together.
pub struct Uploads {
    partials: Mutex<Kept>,
    max_bytes: u64,
}

#[derive(Default)]
struct Kept {
    by_client: BTreeMap<ClientId, (Digest, Partial, u64)>,
    bytes: u64,
    /// Counts upwards; the smallest one in the map is the oldest.
    clock: u64,
}

/// The bytes of a frame that have arrived.
pub struct Partial(BytesMut);

impl Partial {
    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "whoever receives compares with what was announced")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes the next ones.
    pub fn extend(&mut self, data: &[u8]) {
        self.0.extend_from_slice(data);
    }

    /// All of them.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        self.0.freeze()
    }
}

impl Uploads {
    /// Room for some frames of this size.
    #[must_use]
    pub fn new(max_frame_bytes: u64) -> Self {
        Self { partials: Mutex::default(), max_bytes: KEPT_FRAMES * max_frame_bytes }
    }

    /// How many bytes of the announced frame are here.
    #[must_use]
    pub fn held(&self, header: &UpdateHeader) -> u64 {
        let kept = self.lock();
        let held = kept.by_client.get(&header.client).filter(|(digest, ..)| *digest == header.digest);
        held.map_or(0, |(_, partial, _)| partial.len() as u64)
    }

    /// Takes out what is here of the announced frame, to go on at `offset`; nothing when that is not where it ends.
    /// Offset 0 begins anew.
    #[must_use]
    pub fn resume(&self, header: &UpdateHeader, offset: u64) -> Option<Partial> {
        let mut kept = self.lock();
        if offset == 0 {
            kept.remove(&header.client);
            // Grows as bytes arrive, so an announcement alone costs nothing.
            return Some(Partial(BytesMut::new()));
        }
        let (digest, partial, _) = kept.by_client.get(&header.client)?;
        if *digest != header.digest || partial.len() as u64 != offset {
            return None;
        }
        kept.remove(&header.client).map(|(_, partial)| partial)
    }

    /// Keeps what has arrived; the oldest go when there is no room.
    pub fn keep(&self, header: &UpdateHeader, partial: Partial) {
        let mut kept = self.lock();
        kept.remove(&header.client);
        kept.clock += 1;
        kept.bytes += partial.len() as u64;
        let clock = kept.clock;
        kept.by_client.insert(header.client.clone(), (header.digest, partial, clock));
        while kept.bytes > self.max_bytes {
            let oldest = kept.by_client.iter().min_by_key(|(_, (_, _, clock))| *clock).map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { break };
            kept.remove(&oldest);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.partials.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, client: &ClientId) -> Option<(Digest, Partial)> {
        let (digest, partial, _) = self.by_client.remove(client)?;
        self.bytes -= partial.len() as u64;
        Some((digest, partial))
    }
}

/// Interrupted frames kept, in frames of the longest kind.
const KEPT_FRAMES: u64 = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_core::{ModelVersion, RoundId};

    fn header(client: &str, digest: u8) -> UpdateHeader {
        UpdateHeader {
            client: ClientId::new(client).unwrap(),
            round: RoundId { term: 1, number: 1 },
            base: ModelVersion(0),
            examples: 1,
            loss: 0.0,
            frame_len: 100,
            digest: Digest([digest; 32]),
        }
    }

    fn partial(len: usize) -> Partial {
        Partial(BytesMut::from(vec![0; len].as_slice()))
    }

    #[test]
    fn an_upload_goes_on_only_where_it_broke_off_and_only_with_the_same_frame() {
        let uploads = Uploads::new(100);
        uploads.keep(&header("a", 1), partial(40));
        assert_eq!(
            (uploads.held(&header("a", 1)), uploads.held(&header("a", 2)), uploads.held(&header("b", 1))),
            (40, 0, 0)
        );
        assert!(uploads.resume(&header("a", 1), 30).is_none());
        assert!(uploads.resume(&header("a", 2), 40).is_none());
        assert_eq!(uploads.resume(&header("a", 1), 40).unwrap().len(), 40);
        assert!(uploads.resume(&header("a", 1), 40).is_none(), "it was taken out");
        assert_eq!(uploads.resume(&header("a", 1), 0).unwrap().len(), 0);
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let uploads = Uploads::new(10);
        for client in 0..=KEPT_FRAMES {
            uploads.keep(&header(&format!("c{client}"), 1), partial(10));
        }
        assert_eq!(uploads.held(&header("c0", 1)), 0);
        assert_eq!(uploads.held(&header("c1", 1)), 10);
    }
}

//! One version of the broadcast model and the cheapest way to it from whatever a client holds.

mod kept;
mod sliced;
#[cfg(test)]
mod tests;

use crate::packet::Packet;
use bytes::Bytes;
use dunlin_codec::{Encoder, FrameHeader, MaskedGrid, StageBytes, limit};
use dunlin_core::message::{CatchUp, CatchUpBase};
use dunlin_core::{Digest, ModelVersion};
use kept::Kept;
use sliced::Sliced;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// A version as it is handed out: immutable, shared by all fetch handlers.
///
/// A way is worked out once for each version that clients hold, which takes time in proportion to the model; callers on
/// an async worker should do so on a blocking thread.
pub struct Broadcast {
    initial: Arc<MaskedGrid>,
    version: ModelVersion,
    digest: Digest,
    model: Arc<MaskedGrid>,
    /// Leads to the version without a gap; the key is the version that a packet leads to.
    packets: BTreeMap<ModelVersion, Arc<Kept>>,
    packet_ring: u32,
    /// The frame behind all others, where coordinates are announced with the version.
    announcement: Option<Bytes>,
    /// Of the model; worked out by whoever first needs it.
    checksum: OnceLock<u32>,
    /// For clients that have a part of the model.
    sliced: Vec<Sliced>,
    /// Integers are sent as they are.
    plain: bool,
    /// Ways worked out so far, by the version held; at most one more than there are packets.
    plans: Mutex<BTreeMap<Option<ModelVersion>, Slot>>,
}

/// A way to a version: what the client is told, and the frames that follow.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The base to build on, the version and digest to arrive at, and the length of each frame.
    pub catch_up: CatchUp,
    /// The frames in order.
    pub frames: Vec<Bytes>,
    /// What they cost by stage, against one dense model.
    pub stages: StageBytes,
}

/// A way that is being worked out, or has been.
type Slot = Arc<OnceLock<Arc<Plan>>>;

impl Broadcast {
    /// The state of a version; `initial` is version 0. Of `packets`, those that lead to the version without a gap are
    /// kept, at most `packet_ring` of them.
    #[must_use]
    pub fn new(
        initial: Arc<MaskedGrid>,
        version: ModelVersion,
        model: Arc<MaskedGrid>,
        packets: Vec<(ModelVersion, Packet)>,
        packet_ring: u32,
    ) -> Self {
        let mut all: BTreeMap<ModelVersion, Packet> = packets.into_iter().collect();
        let mut kept = BTreeMap::new();
        let mut next = version;
        while let Some(packet) = all.remove(&next).filter(|_| kept.len() < packet_ring as usize) {
            kept.insert(next, Arc::new(Kept::new(packet)));
            next = ModelVersion(next.0.saturating_sub(1));
        }
        let digest = Digest(model.digest());
        let (announcement, plans) = (announcement(&model), Mutex::default());
        let (checksum, sliced, plain) = (OnceLock::new(), Vec::new(), false);
        Self {
            initial,
            version,
            digest,
            model,
            packets: kept,
            packet_ring,
            announcement,
            checksum,
            sliced,
            plain,
            plans,
        }
    }

    /// The same, but with integers sent as they are: for links where time is the budget.
    #[must_use]
    pub fn plainly(self) -> Self {
        Self { plain: true, ..self }
    }

    /// The state of the version that `packet` leads to from this one.
    #[must_use]
    pub fn advance(&self, model: Arc<MaskedGrid>, digest: Digest, packet: Packet) -> Self {
        let version = self.version.next();
        let mut packets = self.packets.clone();
        let kept = Arc::new(Kept::new(packet));
        let sliced = self.sliced.iter().map(|sliced| sliced.advance(&model, &kept)).collect();
        packets.insert(version, kept);
        while packets.len() > self.packet_ring as usize {
            packets.pop_first();
        }
        Self {
            initial: Arc::clone(&self.initial),
            version,
            digest,
            announcement: announcement(&model),
            model,
            checksum: OnceLock::new(),
            packets,
            packet_ring: self.packet_ring,
            sliced,
            plain: self.plain,
            plans: Mutex::default(),
        }
    }

    /// The version handed out.
    #[must_use]
    pub fn version(&self) -> ModelVersion {
        self.version
    }

    /// Digest of its integers.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes that each client is sent for what is announced, besides its packets.
    #[must_use]
    pub fn announcement_bytes(&self) -> u64 {
        self.announcement.as_ref().map_or(0, |frame| frame.len() as u64)
    }

    /// Its mask and integers.
    #[must_use]
    pub fn model(&self) -> &Arc<MaskedGrid> {
        &self.model
    }

    /// The way here with the fewest bytes: the packets since, those since the mask last changed merged into one, the
    /// difference from the seeded initial model, or a snapshot.
    ///
    /// A version that the packets do not reach back to, or one from the future, counts as nothing held.
    #[must_use]
    pub fn catch_up(&self, held: Option<ModelVersion>) -> Arc<Plan> {
        let held = held.filter(|&held| self.reaches(held));
        let slot = {
            let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(plans.entry(held).or_default())
        };
        // Outside the lock: a second caller with the same version waits, others do not.
        Arc::clone(slot.get_or_init(|| match held {
            Some(held) => self.way_from_held(held),
            None => self.way_from_nothing(),
        }))
    }

    /// Whether a frame changes a quarter of the model or more: then it takes long to read, and merging it with others
    /// saves little.
    fn is_dense(&self, frame: &[u8]) -> bool {
        FrameHeader::parse(frame)
            .is_ok_and(|header| header.kind.has_values() && header.nonzeros as usize >= self.model.values().len() / 4)
    }

    fn reaches(&self, held: ModelVersion) -> bool {
        held == self.version || (held < self.version && self.packets.contains_key(&held.next()))
    }

    fn way_from_held(&self, held: ModelVersion) -> Arc<Plan> {
        let packets: Vec<&Kept> = self.packets.range(held.next()..).map(|(_, kept)| &**kept).collect();
        let frames: Vec<Bytes> = packets.iter().flat_map(|kept| kept.packet().frames()).cloned().collect();
        let of_packets = frames.len();
        let mut best = Arc::new(self.plan(CatchUpBase::Held, frames));
        if packets.iter().all(|kept| !kept.packet().changes_mask()) && packets.len() <= 1 {
            return best;
        }
        if self.plain || best.frames.iter().any(|frame| self.is_dense(frame)) {
            // All of them merged are about as long as the longest, and so is the way from nothing, which many share.
            let fresh = self.catch_up(None);
            return if fresh.catch_up.total_bytes() < best.catch_up.total_bytes() { fresh } else { best };
        }
        // What came before the mask last changed is of other coordinates, and stays as it is.
        let last_change = packets.iter().rposition(|kept| kept.packet().changes_mask()).unwrap_or(0);
        let since = &packets[last_change..];
        let values: usize = since.iter().map(|kept| kept.packet().value_frames().len()).sum();
        let segments = self.model.mask().segments();
        let mut delta = vec![0; segments.len()];
        if values > 1 && since.iter().all(|kept| kept.add_to(&mut delta, segments).is_ok()) {
            let before = best.frames[..of_packets - values].to_vec();
            self.improve(&mut best, CatchUpBase::Held, before, &delta);
        }
        let (initial, values) = (self.initial.values(), self.model.values());
        let changed = self.model.mask().indices().zip(values).filter(|&(index, &now)| now != initial[index]).count();
        if could_beat(&best, changed, segments.len()) {
            let fresh = self.catch_up(None);
            if fresh.catch_up.total_bytes() < best.catch_up.total_bytes() {
                best = fresh;
            }
        }
        best
    }

    fn way_from_nothing(&self) -> Arc<Plan> {
        if self.model == self.initial {
            return Arc::new(self.plan(CatchUpBase::Seeded, Vec::new()));
        }
        let mask = self.initial.mask().change_to(self.model.mask(), &mut Encoder::new());
        let mask: Vec<Bytes> = mask.into_iter().map(Bytes::from).collect();
        if self.plain {
            return Arc::new(self.merged(CatchUpBase::Zero, mask, self.model.values()));
        }
        let since_start = self.since_start();
        let mut best = Arc::new(self.merged(CatchUpBase::Seeded, mask.clone(), &since_start));
        // The initial model has hardly a zero, so a snapshot is smaller only where training made zeros.
        if nonzero(self.model.values()) <= nonzero(&since_start) {
            self.improve(&mut best, CatchUpBase::Zero, mask, self.model.values());
        }
        best
    }

    /// What was added to the initial values of the coordinates that are left.
    fn since_start(&self) -> Vec<i32> {
        let mut initial = self.initial.values().to_vec();
        self.model.mask().gather(&mut initial);
        self.model.values().iter().zip(initial).map(|(&now, then)| now - then).collect()
    }

    /// Takes the difference as one frame, behind these, if that is smaller.
    fn improve(&self, best: &mut Arc<Plan>, base: CatchUpBase, before: Vec<Bytes>, delta: &[i32]) {
        if could_beat(best, nonzero(delta), delta.len()) {
            let merged = self.merged(base, before, delta);
            if merged.catch_up.total_bytes() < best.catch_up.total_bytes() {
                *best = Arc::new(merged);
            }
        }
    }

    fn merged(&self, base: CatchUpBase, before: Vec<Bytes>, delta: &[i32]) -> Plan {
        let mut encoder = Encoder::new();
        let segments = self.model.mask().segments();
        let encoded = match self.plain {
            true => encoder.encode_integers_plainly(segments, delta),
            false => encoder.encode_integers(segments, delta),
        };
        let encoded = encoded.expect("a delta has the length of its model, and integers are always finite");
        let mut frames = before;
        frames.push(encoded.frame.into());
        self.plan(base, frames)
    }

    fn plan(&self, base: CatchUpBase, mut frames: Vec<Bytes>) -> Plan {
        // Of what earlier packets announced nothing is left.
        frames.extend(self.announcement.clone());
        // A model has at most 2³⁰ parameters; one whose frame exceeds 4 GiB is refused by the client's length check.
        let frame_lens = frames.iter().map(|frame| u32::try_from(frame.len()).unwrap_or(u32::MAX)).collect();
        let mut stages = StageBytes::default();
        for frame in &frames {
            if let Ok(header) = FrameHeader::parse(frame) {
                stages += header.stages(self.model.mask().segments(), frame);
            }
        }
        // However many frames lead to it, the client gets one model.
        stages.dense = 4 * self.model.mask().whole().len() as u64;
        let is_held = base == CatchUpBase::Held;
        let checksum = is_held.then(|| *self.checksum.get_or_init(|| self.model.checksum()));
        let catch_up = CatchUp { base, version: self.version, digest: self.digest, checksum, frame_lens };
        Plan { catch_up, frames, stages }
    }
}

fn announcement(model: &MaskedGrid) -> Option<Bytes> {
    model.announcement(&mut Encoder::new()).map(Bytes::from)
}

/// Whether one frame with so many changed coordinates of `len` could be smaller than a plan's frames; if not, it need
/// not be written to find out.
fn could_beat(plan: &Plan, nonzeros: usize, len: usize) -> bool {
    if nonzeros == 0 {
        return true;
    }
    let bits = nonzeros as f64 * limit::bits_per_nonzero(nonzeros as f64 / len as f64) * STRUCTURE;
    bits / 8.0 < plan.catch_up.total_bytes() as f64
}

fn nonzero(delta: &[i32]) -> usize {
    delta.iter().filter(|&&step| step != 0).count()
}

/// Share of the entropy of independent positions and signs that the coder needs at least: contexts have been seen to
/// save a fifth of it.
const STRUCTURE: f64 = 0.5;

//! Every way leads to the same model, and the cheapest is taken.

mod sliced;

use super::*;
use dunlin_codec::{Codec, EntropyCoder, FrameKind, Mask, Quantizer, Segment, Segments};
use dunlin_core::catch_up::{self, CatchUpError};
use proptest::prelude::*;

const LEN: usize = 3000;

fn segments() -> Arc<Segments> {
    Arc::new(Segments::new(vec![Segment { len: LEN - 400, row: 26 }, Segment { len: 400, row: 400 }]).unwrap())
}

/// A broadcast and all the models on the way to it, of which each client holds one.
struct History {
    broadcast: Broadcast,
    models: Vec<Arc<MaskedGrid>>,
}

impl History {
    fn new(packet_ring: u32) -> Self {
        let initial = (0..LEN as i32).map(|i| (i * 7919) % 200_003 - 100_000).collect();
        let initial = Arc::new(MaskedGrid::whole(segments(), initial).unwrap());
        let (version, model) = (ModelVersion(0), Arc::clone(&initial));
        let broadcast = Broadcast::new(Arc::clone(&initial), version, model, vec![], packet_ring);
        Self { broadcast, models: vec![initial] }
    }

    fn apply(&mut self, packet: Vec<u8>) {
        self.follow(vec![packet]);
    }

    fn follow(&mut self, frames: Vec<Vec<u8>>) {
        let mut next = MaskedGrid::clone(self.broadcast.model());
        frames.iter().for_each(|frame| next.apply(frame).unwrap());
        let (digest, next) = (Digest(next.digest()), Arc::new(next));
        self.models.push(Arc::clone(&next));
        let frames = frames.into_iter().map(Bytes::from).collect();
        self.broadcast = self.broadcast.advance(next, digest, Packet::new(frames));
    }

    /// A version with which these of its coordinates are announced.
    fn announce(&mut self, frames: Vec<Vec<u8>>, count: usize, seed: u64) {
        let mut next = MaskedGrid::clone(self.broadcast.model());
        frames.iter().for_each(|frame| next.apply(frame).unwrap());
        next.announce(Some(Arc::new(next.mask().random_part(count, seed)))).unwrap();
        let (digest, next) = (Digest(next.digest()), Arc::new(next));
        self.models.push(Arc::clone(&next));
        let frames = frames.into_iter().map(Bytes::from).collect();
        self.broadcast = self.broadcast.advance(next, digest, Packet::new(frames));
    }

    fn arrive(&self, held: Option<u64>) -> Result<MaskedGrid, CatchUpError> {
        let plan = self.broadcast.catch_up(held.map(ModelVersion));
        let model = held.and_then(|held| self.models.get(held as usize)).cloned();
        catch_up::apply(&plan.catch_up, &plan.frames, model, &self.models[0])
    }
}

/// A packet as the downlink makes it: which coordinates it touches, and how far it moves them, depends on `seed`.
fn sparse(seed: u64, density: f64) -> Vec<u8> {
    let noise = |i: u64| (i * (2 * seed + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let values: Vec<f32> =
        (1..=LEN as u64).map(|i| (noise(i) as f32 / 16_777_216.0 - 0.5) / (seed + 1) as f32).collect();
    let codec = Codec { density, quantizer: Quantizer::Ternary, coder: EntropyCoder::Auto };
    Encoder::new().encode(&codec, &segments(), &values).unwrap().frame
}

fn integers(step: i32) -> Vec<u8> {
    let delta: Vec<i32> = (0..LEN as i32).map(|i| i % 5 * step).collect();
    Encoder::new().encode_integers(&segments(), &delta).unwrap().frame
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn from_any_version_held_the_way_leads_to_the_same_model(
        packet_ring in 0..6u32,
        packets in prop::collection::vec((any::<bool>(), 0..50u64, 0.01..1.0f64), 0..8),
    ) {
        let mut history = History::new(packet_ring);
        for (whole, seed, density) in packets {
            history.apply(if whole { integers(seed as i32 - 20) } else { sparse(seed, density) });
            let newest = history.broadcast.version().0;
            for held in (0..=newest).map(Some).chain([None]) {
                let arrived = history.arrive(held);
                prop_assert_eq!(arrived.as_ref(), Ok(&**history.broadcast.model()), "from {:?}", held);
            }
        }
    }
}

/// Frames that leave so many percent of the coordinates, chosen by `seed`, and then move some of those.
fn pruning(history: &History, seed: u64, percent: u64) -> Vec<Vec<u8>> {
    let old = history.broadcast.model().mask();
    let noise = |index: usize| (index as u64 * (2 * seed + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let new = Mask::new(segments(), |index| index == 5 || noise(index) % 100 < percent).unwrap();
    let mut frames = old.change_to(&new, &mut Encoder::new());
    let delta: Vec<i32> = (0..new.len() as i32).map(|i| if i % 11 == 0 { i % 7 } else { 0 }).collect();
    frames.push(Encoder::new().encode_integers(new.segments(), &delta).unwrap().frame);
    frames
}

/// A packet within the mask that is held.
fn within(history: &History, seed: u64, density: f64) -> Vec<u8> {
    let segments = history.broadcast.model().mask().segments();
    let values: Vec<f32> = (0..segments.len()).map(|i| ((i as u64 * (seed + 3)) as f32).sin()).collect();
    let codec = Codec { density, quantizer: Quantizer::Ternary, coder: EntropyCoder::Auto };
    Encoder::new().encode(&codec, segments, &values).unwrap().frame
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_way_leads_through_masks_that_lose_and_gain(
        packet_ring in 1..6u32,
        steps in prop::collection::vec((0..3u8, 0..50u64, 20..100u64, 0..3u8), 1..7),
    ) {
        let mut history = History::new(packet_ring);
        for (kind, seed, percent, announces) in steps {
            let frames = match kind {
                0 => pruning(&history, seed, percent),
                _ => vec![within(&history, seed, percent as f64 / 1000.0)],
            };
            match announces {
                0 => history.announce(frames, percent as usize, seed),
                _ => history.follow(frames),
            }
            for held in (0..=history.broadcast.version().0).map(Some).chain([None]) {
                let arrived = history.arrive(held);
                prop_assert_eq!(arrived.as_ref(), Ok(&**history.broadcast.model()), "from {:?}", held);
            }
        }
    }
}

#[test]
fn packets_since_the_mask_changed_are_merged_behind_it() {
    let mut history = History::new(64);
    history.apply(sparse(1, 0.05));
    let frames = pruning(&history, 1, 50);
    history.follow(frames);
    for _ in 0..40 {
        let packet = within(&history, 3, 0.05);
        history.apply(packet);
    }
    let plan = history.broadcast.catch_up(Some(ModelVersion(1)));
    assert_eq!((plan.frames.len(), plan.catch_up.base), (2, CatchUpBase::Held), "what is lost, and one delta");
    let before = history.broadcast.catch_up(Some(ModelVersion(0)));
    assert!(before.catch_up.total_bytes() > plan.catch_up.total_bytes());
}

#[test]
fn the_seeded_model_needs_no_bytes() {
    let history = History::new(4);
    for held in [None, Some(0)] {
        assert_eq!(history.broadcast.catch_up(held.map(ModelVersion)).frames.len(), 0);
        assert_eq!(history.arrive(held).as_ref(), Ok(&*history.models[0]));
    }
    let base = history.broadcast.catch_up(None).catch_up.base;
    assert_eq!(base, CatchUpBase::Seeded);
}

#[test]
fn one_packet_behind_is_sent_that_packet() {
    let mut history = History::new(4);
    history.apply(sparse(1, 0.1));
    history.apply(sparse(2, 0.1));
    let plan = history.broadcast.catch_up(Some(ModelVersion(1)));
    assert_eq!((plan.catch_up.base, plan.frames.clone()), (CatchUpBase::Held, vec![Bytes::from(sparse(2, 0.1))]));
}

#[test]
fn packets_that_touch_other_coordinates_are_sent_as_they_are() {
    let mut history = History::new(64);
    for seed in 1..=20 {
        history.apply(sparse(seed, 0.05));
    }
    let plan = history.broadcast.catch_up(Some(ModelVersion(2)));
    let packets: Vec<Bytes> = (3..=20).map(|seed| sparse(seed, 0.05).into()).collect();
    assert_eq!(plan.frames.len(), packets.len(), "{} bytes", plan.catch_up.total_bytes());
    assert_eq!(plan.frames, packets);
}

#[test]
fn many_packets_that_touch_the_same_coordinates_are_merged() {
    let mut history = History::new(64);
    for _ in 0..40 {
        history.apply(sparse(1, 0.05));
    }
    let plan = history.broadcast.catch_up(Some(ModelVersion(2)));
    let packets = 38 * sparse(1, 0.05).len() as u64;
    assert_eq!((plan.frames.len(), plan.catch_up.base), (1, CatchUpBase::Held));
    assert!(plan.catch_up.total_bytes() < packets / 4, "{} of {packets}", plan.catch_up.total_bytes());
}

#[test]
fn a_version_beyond_the_ring_or_from_the_future_counts_as_nothing_held() {
    let mut history = History::new(2);
    for seed in 1..=4 {
        history.apply(sparse(seed, 0.05));
    }
    for held in [0, 1, 5, u64::MAX] {
        assert_eq!(history.broadcast.catch_up(Some(ModelVersion(held))), history.broadcast.catch_up(None));
    }
    assert_eq!(history.broadcast.catch_up(Some(ModelVersion(2))).catch_up.base, CatchUpBase::Held);
    assert_eq!(history.broadcast.catch_up(None).catch_up.base, CatchUpBase::Seeded);
}

#[test]
fn a_pruned_model_is_sent_as_a_snapshot() {
    let mut history = History::new(2);
    let mut prune: Vec<i32> = history.models[0].values().iter().map(|&n| -n).collect();
    prune[17] = 0;
    history.apply(Encoder::new().encode_integers(&segments(), &prune).unwrap().frame);
    let plan = history.broadcast.catch_up(None);
    assert_eq!(plan.catch_up.base, CatchUpBase::Zero);
    assert!(plan.catch_up.total_bytes() < 40, "{}", plan.catch_up.total_bytes());
    assert_eq!(history.arrive(None).as_ref(), Ok(&**history.broadcast.model()));
}

#[test]
fn a_way_is_worked_out_once() {
    let mut history = History::new(8);
    for seed in 1..=3 {
        history.apply(sparse(seed, 0.05));
    }
    let ways: Vec<_> = std::thread::scope(|scope| {
        let ask = || history.broadcast.catch_up(Some(ModelVersion(0)));
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(ways.iter().all(|way| Arc::ptr_eq(way, &ways[0])));
}

#[test]
fn a_restored_broadcast_keeps_only_packets_without_a_gap() {
    let mut history = History::new(8);
    for seed in 1..=4 {
        history.apply(sparse(seed, 0.05));
    }
    let packet = |seed| Packet::new(vec![Bytes::from(sparse(seed, 0.05))]);
    let packets: Vec<_> = [1, 3, 4].map(|seed| (ModelVersion(seed), packet(seed))).into();
    let model = Arc::clone(history.broadcast.model());
    let restored = Broadcast::new(Arc::clone(&history.models[0]), ModelVersion(4), model, packets, 8);
    assert_eq!(restored.digest(), history.broadcast.digest());
    assert_eq!(restored.packets.keys().copied().collect::<Vec<_>>(), [ModelVersion(3), ModelVersion(4)]);
    assert_eq!(restored.catch_up(Some(ModelVersion(2))).catch_up.base, CatchUpBase::Held);
    assert_eq!(*restored.catch_up(Some(ModelVersion(1))), *restored.catch_up(None));
}

#[test]
fn another_model_than_the_client_says_it_holds_is_noticed() {
    let mut history = History::new(4);
    history.apply(sparse(1, 0.1));
    history.apply(sparse(2, 0.1));
    let plan = history.broadcast.catch_up(Some(ModelVersion(1)));
    let wrong = Some(Arc::clone(&history.models[0]));
    let arrived = catch_up::apply(&plan.catch_up, &plan.frames, wrong, &history.models[0]);
    assert!(matches!(arrived, Err(CatchUpError::WrongChecksum { .. })));
}

#[test]
fn whatever_is_held_what_is_announced_comes_last_and_only_once() {
    let mut history = History::new(64);
    for seed in 1..=5 {
        history.announce(vec![sparse(seed, 0.01)], 200, seed);
    }
    for held in [Some(0), Some(4), Some(5), Some(99), None] {
        let plan = history.broadcast.catch_up(held.map(ModelVersion));
        let kinds: Vec<_> = plan.frames.iter().map(|frame| FrameHeader::parse(frame).unwrap().kind).collect();
        let announcements = kinds.iter().filter(|&&kind| kind == FrameKind::Announced).count();
        assert_eq!((announcements, kinds.last()), (1, Some(&FrameKind::Announced)), "from {held:?}: {kinds:?}");
        assert_eq!(plan.stages.coded, plan.catch_up.total_bytes());
        assert_eq!(history.arrive(held).as_ref(), Ok(&**history.broadcast.model()), "from {held:?}");
    }
    // 200 of 3000, each with its seven bits or less.
    assert!(history.broadcast.announcement_bytes() < 160, "{} bytes", history.broadcast.announcement_bytes());
    // A version that announces nothing forgets what the one before did.
    history.follow(vec![sparse(6, 0.01)]);
    assert_eq!((history.broadcast.announcement_bytes(), history.broadcast.model().announced()), (0, None));
    assert_eq!(history.arrive(Some(2)).as_ref(), Ok(&**history.broadcast.model()));
}

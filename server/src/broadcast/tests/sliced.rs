//! What smaller clients are sent leads to their part of the very same model, from wherever they are.

use super::*;
use dunlin_core::recipe::{SizeConfig, Width};
use dunlin_core::{Layout, Recipe, TensorSpec};
use dunlin_nn::small::Slices;

fn layout() -> Layout {
    let tensors = [("a", vec![40, 50]), ("ab", vec![40]), ("b", vec![10, 40]), ("bb", vec![10])];
    Layout::new(tensors.map(|(name, shape)| TensorSpec::new(name, shape)).to_vec()).unwrap()
}

fn slices() -> Slices {
    let size = |share: f64| SizeConfig { width: Width::new(share).unwrap(), share: 1.0 };
    Slices::new(&Recipe { size: [1.0, 0.5, 0.25].map(size).to_vec(), ..Recipe::default() }, &layout()).unwrap()
}

/// A broadcast for all sizes after each of some packets; the first is of version 0.
fn history(packets: &[Packet], packet_ring: u32) -> Vec<Arc<Broadcast>> {
    let whole = Arc::new(layout().segments());
    let initial = (0..whole.len() as i32).map(|i| (i * 7919) % 200_003 - 100_000).collect();
    let initial = Arc::new(MaskedGrid::whole(whole, initial).unwrap());
    let first = Broadcast::new(Arc::clone(&initial), ModelVersion(0), initial, vec![], packet_ring);
    let mut history = vec![Arc::new(first.with_slices(&slices()))];
    for packet in packets {
        let last = &history[history.len() - 1];
        let mut next = MaskedGrid::clone(last.model());
        packet.frames().iter().for_each(|frame| next.apply(frame).unwrap());
        let digest = Digest(next.digest());
        history.push(Arc::new(last.advance(Arc::new(next), digest, packet.clone())));
    }
    history
}

fn packet(seed: u64, density: f64, quantizer: Quantizer) -> Packet {
    let len = layout().len() as u64;
    let noise = |i: u64| (i * (2 * seed + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let values: Vec<f32> = (1..=len).map(|i| (noise(i) as f32 / 16_777_216.0 - 0.5) / (seed + 1) as f32).collect();
    let codec = Codec { density, quantizer, coder: EntropyCoder::Auto };
    let frame = Encoder::for_merging().encode(&codec, &layout().segments(), &values).unwrap().frame;
    Packet::new(vec![frame.into()])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn every_size_arrives_at_its_part_of_the_model_from_any_version(
        packet_ring in 0..5u32,
        packets in prop::collection::vec((0..4usize, 0..50u64, 0.01..1.0f64), 0..6),
    ) {
        let kinds = [Quantizer::Ternary, Quantizer::F16, Quantizer::Int8, Quantizer::F32];
        let packets: Vec<Packet> =
            packets.into_iter().map(|(kind, seed, density)| packet(seed, density, kinds[kind])).collect();
        let history = history(&packets, packet_ring);
        let newest = &history[history.len() - 1];
        for slice in slices().iter() {
            let of = newest.of(slice.width());
            prop_assert_eq!(&**of.model(), &slice.of_grid(newest.model()));
            prop_assert_eq!(of.version(), newest.version());
            let seeded = history[0].of(slice.width()).model();
            for held in (0..history.len()).map(Some).chain([None]) {
                let plan = of.catch_up(held.map(|held| ModelVersion(held as u64)));
                let model = held.and_then(|held| history.get(held)).map(|held| Arc::clone(held.of(slice.width()).model()));
                let arrived = catch_up::apply(&plan.catch_up, &plan.frames, model, seeded);
                prop_assert_eq!(arrived.as_ref(), Ok(&**of.model()), "width {} from {:?}", slice.width(), held);
                prop_assert_eq!(plan.stages.dense, 4 * slice.len() as u64);
            }
        }
    }
}

#[test]
fn a_restart_hands_out_the_same_bytes_to_every_size() {
    let packets: Vec<Packet> = (0..6).map(|seed| packet(seed, 0.05, Quantizer::Ternary)).collect();
    let lived = history(&packets, 4);
    let newest = &lived[6];
    let kept = packets.into_iter().enumerate().map(|(at, packet)| (ModelVersion(at as u64 + 1), packet)).collect();
    let again = Broadcast::new(Arc::clone(lived[0].model()), ModelVersion(6), Arc::clone(newest.model()), kept, 4);
    let again = Arc::new(again.with_slices(&slices()));
    for width in [1.0, 0.5, 0.25].map(|share| Width::new(share).unwrap()) {
        for held in [None, Some(1), Some(2), Some(4), Some(5), Some(6)].map(|held| held.map(ModelVersion)) {
            assert_eq!(again.of(width).catch_up(held), newest.of(width).catch_up(held), "{width} from {held:?}");
        }
    }
}

#[test]
fn smaller_clients_are_sent_fewer_bytes() {
    let history = history(&[packet(1, 0.2, Quantizer::Ternary), packet(2, 0.2, Quantizer::Ternary)], 4);
    for held in [None, Some(ModelVersion(1))] {
        let bytes = [1.0, 0.5, 0.25].map(|share| {
            let of = history[2].of(Width::new(share).unwrap());
            of.catch_up(held).catch_up.total_bytes()
        });
        assert!(bytes[1] * 10 < bytes[0] * 7 && bytes[2] * 10 < bytes[1] * 7, "{bytes:?} from {held:?}");
    }
}

//! Rounds of a small model, restarts, and what each downlink sends.

use super::*;
use dunlin_codec::{Codec, EntropyCoder, Limits, Quantizer};
use dunlin_core::TensorSpec;
use dunlin_core::catch_up;
use dunlin_core::message::{CatchUp, CatchUpBase};
use dunlin_core::recipe::StrategyKind;

fn layout() -> Layout {
    Layout::new(vec![TensorSpec::new("fc.weight", [20, 30]), TensorSpec::new("fc.bias", [20])]).unwrap()
}

fn initial() -> Vec<f32> {
    (0..layout().len()).map(|i| (i as f32 * 0.7).sin() * 0.3).collect()
}

fn recipe(density: f64, quantizer: QuantizerKind) -> Recipe {
    let mut recipe = Recipe::default();
    recipe.downlink = LinkConfig { density, quantizer, ..recipe.downlink };
    recipe.strategy.kind = StrategyKind::FedAdam;
    recipe
}

fn model(recipe: &Recipe) -> GlobalModel {
    GlobalModel::new(recipe, &layout(), &initial()).unwrap()
}

#[test]
fn a_key_that_names_a_tensor_of_another_model_is_to_blame() {
    for (key, value) in [
        ("uplink.importance", "gc=2"),
        ("downlink.importance", "fc=3, gc=2"),
        ("pruning.protected", "fc.bias, gc"),
        ("training.frozen", "fc.weight, gc"),
    ] {
        let recipe = Recipe::load(None, &[format!("{key}={value}")]).unwrap();
        let error = GlobalModel::new(&recipe, &layout(), &initial()).err().unwrap();
        let names = "fc.weight, fc.bias".to_owned();
        assert_eq!(error, Error::NoTensor { key, start: "gc".into(), names });
        assert_eq!(error.key(), Some(key));
    }
    let recipe = Recipe::load(None, &["size=[{width=1}, {width=0.5}]".to_owned()]).unwrap();
    let error = GlobalModel::new(&recipe, &layout(), &initial()).err().unwrap();
    assert_eq!(error.key(), Some("size.width"), "a single layer has no channels: {error}");
}

/// A round's updates: three clients, of whom each moves its own way.
fn updates(model: &GlobalModel, round: u64) -> SlicedSum {
    let segments = layout().segments();
    let mut sum = model.sum(1);
    for client in 1..=3u64 {
        let wave = |i: usize| ((i as u64 * client + 13 * round) as f32 * 0.37).sin() * 0.05;
        let values: Vec<f32> = (0..layout().len()).map(wave).collect();
        let codec = Codec { density: 0.2, quantizer: Quantizer::Ternary, coder: EntropyCoder::Auto };
        let frame = Encoder::new().encode(&codec, &segments, &values).unwrap().frame;
        sum.add_frame(&frame, &segments, &Limits::for_segments(&segments), client as u32 * 10).unwrap();
    }
    sum
}

fn publish(model: &mut GlobalModel, round: u64) -> Published {
    let mut sum = updates(model, round);
    model.publish(round, &mut sum).unwrap()
}

#[test]
fn packets_lead_clients_to_the_broadcast_model() {
    for (density, quantizer) in [
        (0.1, QuantizerKind::Ternary),
        (0.3, QuantizerKind::Int8),
        (1.0, QuantizerKind::F16),
        (1.0, QuantizerKind::F32),
        (1.0, QuantizerKind::Rotated),
        (1.0, QuantizerKind::LowRank),
    ] {
        let mut model = model(&recipe(density, quantizer));
        let mut held = Arc::unwrap_or_clone(model.broadcast_grid());
        let seeded = held.clone();
        for round in 1..=4 {
            let Published { version, digest, packet, stages } = publish(&mut model, round);
            let frame_lens = packet.frames().iter().map(|frame| frame.len() as u32).collect();
            let way = CatchUp { base: CatchUpBase::Held, version, digest, checksum: None, frame_lens };
            held = catch_up::apply(&way, packet.frames(), Some(Arc::new(held)), &seeded).unwrap();
            assert_eq!((version, stages.coded), (ModelVersion(round), packet.frame_bytes()));
        }
        assert_eq!(&held, &*model.broadcast_grid(), "{quantizer:?}");
    }
}

#[test]
fn a_full_downlink_keeps_both_models_together() {
    let mut model = model(&recipe(1.0, QuantizerKind::F32));
    for round in 1..=4 {
        publish(&mut model, round);
        let mut rounded = Vec::new();
        grid::from_f32(&model.w, &mut rounded);
        assert_eq!(rounded, model.broadcast_grid().values());
    }
}

#[test]
fn what_a_packet_leaves_behind_is_sent_later_only_with_feedback() {
    for (feedback, catches_up) in [(1.0, true), (0.0, false)] {
        let mut recipe = recipe(0.1, QuantizerKind::F32);
        recipe.strategy.kind = StrategyKind::FedAvg;
        recipe.downlink.feedback = feedback;
        let mut model = model(&recipe);
        publish(&mut model, 1);
        let target = model.w.clone();
        let nothing = {
            let mut sum = model.sum(1);
            let codec = Codec { density: 1.0, quantizer: Quantizer::F32, coder: EntropyCoder::Auto };
            let frame = Encoder::new().encode(&codec, model.mask().segments(), &vec![0.0; target.len()]).unwrap().frame;
            let segments = model.mask().segments();
            sum.add_frame(&frame, segments, &Limits::for_segments(segments), 1).unwrap();
            sum
        };
        let before = model.broadcast_f32();
        for round in 2..=15 {
            model.publish(round, &mut nothing.clone()).unwrap();
        }
        assert_eq!(before != target, catches_up);
        let off = model.broadcast_f32().iter().zip(&target).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off <= grid::UNIT, "feedback {feedback}: {off}");
        if !catches_up {
            assert_eq!(model.broadcast_f32(), before, "what was not sent is forgotten");
        }
    }
}

#[test]
fn a_restored_model_makes_the_same_versions() {
    for kind in [StrategyKind::FedAvg, StrategyKind::FedAvgM, StrategyKind::FedYogi] {
        let mut recipe = recipe(0.1, QuantizerKind::Ternary);
        recipe.strategy.kind = kind;
        let mut original = model(&recipe);
        for round in 1..=3 {
            publish(&mut original, round);
        }
        let bytes = original.checkpoint();
        let mut restored = GlobalModel::from_checkpoint(&recipe, &layout(), &initial(), &bytes).unwrap();
        assert_eq!((restored.version(), restored.checkpoint()), (ModelVersion(3), bytes));
        for round in 4..=6 {
            assert_eq!(publish(&mut restored, round), publish(&mut original, round), "{kind:?}");
        }
        assert_eq!(restored.checkpoint(), original.checkpoint());
    }
}

#[test]
fn a_replay_from_the_start_gives_the_same_digests() {
    let recipe = recipe(0.05, QuantizerKind::Ternary);
    let (mut first, mut again) = (model(&recipe), model(&recipe));
    let digests: Vec<Digest> = (1..=4).map(|round| publish(&mut first, round).digest).collect();
    assert_eq!((1..=4).map(|round| publish(&mut again, round).digest).collect::<Vec<_>>(), digests);
}

#[test]
fn a_checkpoint_that_is_damaged_or_of_another_recipe_is_refused() {
    let recipe = recipe(0.1, QuantizerKind::Ternary);
    let bytes = model(&recipe).checkpoint();
    let restore = |recipe: &Recipe, layout: &Layout, bytes: &[u8]| {
        let initial = vec![0.0; layout.len()];
        GlobalModel::from_checkpoint(recipe, layout, &initial, bytes).map(drop).unwrap_err()
    };
    for len in [0, 31, 40, bytes.len() - 1] {
        assert!(matches!(restore(&recipe, &layout(), &bytes[..len]), CheckpointError::Damaged(_)));
    }
    for at in [0, 4, 50, bytes.len() / 2, bytes.len() - 1] {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1;
        assert!(matches!(restore(&recipe, &layout(), &damaged), CheckpointError::Damaged(_)), "byte {at}");
    }
    let mut other = recipe.clone();
    other.strategy.kind = StrategyKind::FedAvg;
    assert_eq!(restore(&other, &layout(), &bytes), CheckpointError::OtherRecipe("strategy"));
    let smaller = Layout::new(vec![TensorSpec::new("fc.weight", [20, 31])]).unwrap();
    assert_eq!(restore(&recipe, &smaller, &bytes), CheckpointError::OtherRecipe("model"));
}

#[test]
fn a_model_that_diverges_names_the_parameter() {
    let mut recipe = recipe(1.0, QuantizerKind::F32);
    recipe.strategy.kind = StrategyKind::FedAvg;
    recipe.strategy.learning_rate = 1e4;
    let mut model = model(&recipe);
    let mut sum = model.sum(1);
    let mut values = vec![0.0; layout().len()];
    values[603] = 1.0;
    let codec = Codec { density: 1.0, quantizer: Quantizer::F32, coder: EntropyCoder::Auto };
    let frame = Encoder::new().encode(&codec, model.mask().segments(), &values).unwrap().frame;
    let segments = model.mask().segments();
    sum.add_frame(&frame, segments, &Limits::for_segments(segments), 1).unwrap();
    let error = model.publish(1, &mut sum).unwrap_err();
    assert!(matches!(&error, Error::Diverged { parameter, .. } if parameter == "fc.bias[3]"), "{error}");
    let not_finite = GlobalModel::new(&recipe, &layout(), &vec![f32::NAN; layout().len()]).map(drop).unwrap_err();
    assert!(not_finite.to_string().starts_with("the model diverged: fc.weight[0] is NaN"), "{not_finite}");
}

#[test]
fn a_round_without_updates_publishes_nothing() {
    let mut model = model(&recipe(0.1, QuantizerKind::Ternary));
    let (before, mut empty) = (model.checkpoint(), model.sum(1));
    assert_eq!(model.publish(1, &mut empty), Err(Error::Aggregate(aggregate::Error::Empty)));
    assert_eq!(model.checkpoint(), before);
}

/// The recipe with pruning at the ends of rounds 2 and 4 to 30 % of the weights.
fn pruned(sets: &[&str]) -> Recipe {
    let common = ["pruning.density=0.3", "pruning.first_round=2", "pruning.every=2", "pruning.steps=2"];
    let sets: Vec<String> = common.iter().chain(sets).map(|&set| set.into()).collect();
    let mut recipe = recipe(0.1, QuantizerKind::Ternary);
    recipe.pruning = Recipe::load(None, &sets).unwrap().pruning;
    recipe
}

/// Updates of the coordinates that the round is about.
fn updates_within(model: &GlobalModel, recipe: &Recipe, round: u64) -> SlicedSum {
    let rules = crate::vet::Rules::new(recipe, &model.broadcast_grid(), round);
    let mut sum = model.sum(round);
    let mut values: Vec<f32> =
        (0..layout().len()).map(|i| ((i as u64 + 13 * round) as f32 * 0.37).sin() * 0.05).collect();
    rules.mask().gather(&mut values);
    let codec = Codec { density: 1.0, ..recipe.update_codec(round) };
    let frame = Encoder::new().encode(&codec, rules.segments(), &values).unwrap().frame;
    sum.add_frame(&frame, rules.segments(), rules.limits(), 10).unwrap();
    sum
}

#[test]
fn packets_lead_clients_through_pruning_and_all_that_is_kept_shrinks() {
    for sets in [&[][..], &["pruning.importance=gradient"], &["pruning.regrow=0.2"], &["pruning.rewind=ticket"]] {
        let recipe = pruned(sets);
        let mut model = model(&recipe);
        let mut held = Arc::unwrap_or_clone(model.broadcast_grid());
        for round in 1..=6 {
            let mut sum = updates_within(&model, &recipe, round);
            let published = model.publish(round, &mut sum).unwrap();
            for frame in published.packet.frames() {
                held.apply(frame).unwrap();
            }
            assert_eq!(Digest(held.digest()), published.digest, "{sets:?}, round {round}");
            assert_eq!(published.packet.changes_mask(), round == 2 || round == 4, "{sets:?}, round {round}");
            let restored = GlobalModel::from_checkpoint(&recipe, &layout(), &initial(), &model.checkpoint()).unwrap();
            assert_eq!(restored.checkpoint(), model.checkpoint());
        }
        let left = 180 + 20;
        assert_eq!((model.w.len(), model.mask().len(), held.values().len()), (left, left, left), "{sets:?}");
        assert!(model.strategy.state().iter().all(|vector| vector.len() == left));
        // What has come back is zero until a packet moves it.
        let nonzero = model.broadcast_f32().iter().filter(|&&value| value != 0.0).count();
        assert!((150..=left).contains(&nonzero), "{nonzero}");
    }
}

#[test]
fn a_ticket_goes_back_to_its_round_and_its_control_to_other_values() {
    let run = |sets: &[&str], rounds| {
        let recipe = pruned(sets);
        let mut model = model(&recipe);
        let mut versions = vec![model.broadcast_f32()];
        for round in 1..=rounds {
            let mut sum = updates_within(&model, &recipe, round);
            model.publish(round, &mut sum).unwrap();
            versions.push(model.broadcast_f32());
        }
        (model.mask().clone(), versions)
    };
    for round in [0, 1] {
        let set = format!("pruning.rewind_round={round}");
        let (mask, versions) = run(&["pruning.rewind=ticket", &set], 4);
        let is_back = |index: usize| mask.contains(index) && versions[4][index] == versions[round][index];
        assert!((0..620).all(|index| is_back(index) || versions[4][index] == 0.0), "round {round}");
        let (control, drawn) = run(&["pruning.rewind=random", &set], 4);
        assert_eq!(*control, *mask, "the same weights are left");
        let same = mask.indices().filter(|&index| drawn[4][index] == versions[4][index]).count();
        assert!(same < 10, "{same} of {} values are the ticket's", mask.len());
        let mut of_tensor: Vec<f32> = versions[0][..600].to_vec();
        of_tensor.sort_by(f32::total_cmp);
        let is_initial = |value: f32| of_tensor.binary_search_by(|other| other.total_cmp(&value)).is_ok();
        assert!(mask.indices().take_while(|&index| index < 600).all(|index| is_initial(drawn[4][index])));
    }
}

#[test]
fn a_step_whose_round_was_abandoned_is_made_up_for() {
    let recipe = pruned(&[]);
    let mut model = model(&recipe);
    let left: Vec<usize> = [1, 3, 5, 6]
        .map(|round| {
            let mut sum = updates_within(&model, &recipe, round);
            let packet = model.publish(round, &mut sum).unwrap().packet;
            assert_eq!(packet.changes_mask(), round == 3 || round == 5, "round {round}");
            model.mask().len()
        })
        .to_vec();
    let first = (600.0 * recipe.pruning.density_after(1, 0.3)).round() as usize;
    assert_eq!(left, [620, first + 20, 200, 200]);
}

/// The same rounds with a checkpoint between any two of them, and clients that follow.
#[test]
fn what_is_announced_survives_pruning_and_checkpoints() {
    let common = ["common.coordinates=announced", "common.exploration=0.3", "uplink.quantizer=common", "uplink.bits=6"];
    let sets: Vec<String> = common.iter().chain(&["uplink.density=0.1"]).map(|&set| set.into()).collect();
    let from = Recipe::load(None, &sets).unwrap();
    for sets in [&[][..], &["pruning.importance=gradient"], &["pruning.regrow=0.2"]] {
        let recipe = Recipe { common: from.common.clone(), uplink: from.uplink.clone(), ..pruned(sets) };
        let mut model = model(&recipe);
        let mut held = Arc::unwrap_or_clone(model.broadcast_grid());
        for round in 1..=6 {
            let mut sum = updates_within(&model, &recipe, round);
            let mut restored =
                GlobalModel::from_checkpoint(&recipe, &layout(), &initial(), &model.checkpoint()).unwrap();
            let published = model.publish(round, &mut sum.clone()).unwrap();
            assert_eq!(restored.publish(round, &mut sum), Ok(published.clone()), "{sets:?}, round {round}");
            assert_eq!(restored.checkpoint(), model.checkpoint());
            for frame in published.packet.frames() {
                held.apply(frame).unwrap();
            }
            let grid = model.broadcast_grid();
            if let Some(frame) = grid.announcement(&mut Encoder::new()) {
                held.apply(&frame).unwrap();
            }
            assert_eq!(Digest(held.digest()), published.digest, "{sets:?}, round {round}");
            // A round that asks for a statistic needs no coordinates.
            let is_asked = recipe.pruning.statistic(round + 1).is_some();
            assert_eq!(grid.announced().is_none(), is_asked, "{sets:?}, round {round}");
            if let Some(announced) = grid.announced() {
                let count = recipe.common_count(round + 1, grid.values().len());
                assert!(announced.len() <= recipe.common.announced_of(count), "{sets:?}, round {round}");
                assert!(announced.indices().all(|index| grid.mask().contains(index)));
                assert_eq!(recipe.sent_mask(round + 1, &grid).len(), count);
            }
        }
        let checkpoint = model.checkpoint();
        for cut in [1, 40, 100, 400] {
            let mut damaged = checkpoint[..checkpoint.len() - 32 - cut].to_vec();
            let digest = Digest::of(&damaged);
            damaged.extend(digest.0);
            let refused = GlobalModel::from_checkpoint(&recipe, &layout(), &initial(), &damaged);
            assert_eq!(refused.map(drop), Err(CheckpointError::Damaged("it is cut short")), "{cut} bytes less");
        }
    }
}

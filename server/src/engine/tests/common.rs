//! Rounds in which all clients send the same coordinates.

use super::*;
use dunlin_core::recipe::Coordinates;

const WAYS: [Coordinates; 3] = [Coordinates::Random, Coordinates::Cyclic, Coordinates::Announced];

/// Four of twelve coordinates in each round, in steps of 2⁻⁹; nothing is lost on the way down.
fn recipe_of(coordinates: Coordinates) -> Recipe {
    let mut recipe = recipe();
    recipe.common.coordinates = coordinates;
    recipe.common.exploration = 0.25;
    recipe.uplink =
        LinkConfig { density: 0.34, quantizer: QuantizerKind::Common, bits: 8.0, clip: 0.25, ..recipe.uplink };
    recipe.rounds.count = 6;
    recipe
}

/// Uploads an update of the coordinates that the round is about.
fn upload(desk: &mut Desk, name: &str, examples: u32, values: &[f32]) {
    let task = desk.task(name);
    let (header, frame) = update_within(desk.engine.rules().mask(), name, &task, examples, values);
    let vetted = desk.engine.rules().vet(&header, &frame).unwrap();
    desk.engine.count_upload(header.frame_len);
    desk.engine.offer(desk.now, &session(name), &header, (frame, vetted)).unwrap();
}

/// Client i sends the vector that is something in place i of the round's coordinates and nothing elsewhere.
#[test]
fn the_published_mean_is_that_of_the_integers_on_the_rounds_coordinates_and_nothing_elsewhere() {
    for way in WAYS {
        let disk = Disk::new();
        let mut desk = Desk::gathered(&recipe_of(way), &disk);
        let mut expected = vec![0.0; LEN];
        let mut seen = std::collections::BTreeSet::new();
        for round in 1..=6 {
            let indices: Vec<usize> = desk.engine.rules().mask().indices().collect();
            assert_eq!(indices.len(), 4, "{way:?}");
            seen.extend(indices.clone());
            // Weights that sum to 64, so that a mean of integers is a float; 0.3 is beyond the bound, and 100.4 steps are 100.
            for (i, (name, examples, value, level)) in
                [("a", 16, 0.3, 127.0), ("b", 16, -100.4 / 512.0, -100.0), ("c", 32, 3.0 / 512.0, 3.0)]
                    .into_iter()
                    .enumerate()
            {
                let mut values = vec![0.0; 4];
                (values[i], values[3]) = (value, 1.0 / 512.0);
                upload(&mut desk, name, examples, &values);
                expected[indices[i]] += level * examples as f32 / 64.0 / 512.0;
            }
            expected[indices[3]] += 1.0 / 512.0;
            let summaries = desk.settle().unwrap().summaries;
            assert_eq!((summaries.len(), summaries[0].round, summaries[0].clients), (1, round, 3));
            assert_eq!(desk.engine.params(), expected, "{way:?}, round {round}");
        }
        let few = if way == Coordinates::Announced { 5 } else { 8 };
        assert!(seen.len() >= few, "{way:?} heard of {seen:?}");
        assert!(way != Coordinates::Cyclic || seen.len() == LEN, "all had their turn");
    }
}

#[test]
fn an_announcement_is_what_the_means_say_is_counted_and_is_the_same_after_a_restart() {
    let disk = Disk::new();
    let recipe = recipe_of(Coordinates::Announced);
    let mut desk = Desk::gathered(&recipe, &disk);
    let first: Vec<usize> = desk.engine.rules().mask().indices().collect();
    assert_eq!(desk.engine.broadcast().model().announced(), None, "nothing is known yet");
    for name in NAMES {
        upload(&mut desk, name, 10, &[0.125, 0.0, -0.25, 0.0625]);
    }
    let summary = desk.settle().unwrap().summaries.remove(0);
    // One in four is random; nothing is known of what was zero.
    let announced = |desk: &Desk| desk.engine.broadcast().model().announced().unwrap().indices().collect::<Vec<_>>();
    assert_eq!(announced(&desk), [first[0], first[2], first[3]]);
    let plan = desk.engine.broadcast().catch_up(Some(ModelVersion(0)));
    let bytes = desk.engine.broadcast().announcement_bytes();
    assert!(bytes > 0 && plan.catch_up.total_bytes() == summary.packet, "{plan:?} {summary:?}");
    assert_eq!(u64::from(*plan.catch_up.frame_lens.last().unwrap()), bytes);
    let second = desk.engine.rules().mask().clone();
    assert!(second.len() == 4 && announced(&desk).iter().all(|&index| second.contains(index)));
    let mut again = Desk::open(&recipe, &disk, desk.now);
    again.settle().unwrap();
    assert_eq!(announced(&again), announced(&desk));
    assert_eq!(again.engine.rules().mask(), &second);
    assert_eq!(again.engine.broadcast().catch_up(None), desk.engine.broadcast().catch_up(None));
}

#[test]
fn another_round_of_the_same_version_has_other_random_coordinates_and_the_same_announced_ones() {
    let mut recipe = recipe_of(Coordinates::Announced);
    recipe.rounds.deadline_s = 5.0;
    let mut desk = Desk::gathered(&recipe, &Disk::new());
    for name in NAMES {
        upload(&mut desk, name, 10, &[0.125, 0.0625, -0.25, 0.0]);
    }
    desk.settle().unwrap();
    let mut masks = Vec::new();
    for _ in 0..6 {
        masks.push(desk.engine.rules().mask().clone());
        // Nobody sends anything, and the round is abandoned.
        for name in NAMES {
            desk.check_in(name);
        }
        desk.pass(6000);
        desk.settle().unwrap();
    }
    let announced = desk.engine.broadcast().model().announced().unwrap().clone();
    assert_eq!((desk.engine.broadcast().version(), announced.len()), (ModelVersion(1), 3));
    assert!(masks.iter().all(|mask| mask.len() == 4 && announced.indices().all(|index| mask.contains(index))));
    assert!(masks.iter().any(|mask| mask != &masks[0]), "{masks:?}");
}

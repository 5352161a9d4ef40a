//! What each rule leaves, on models small enough to see.

use super::*;
use dunlin_codec::Segments;
use dunlin_core::TensorSpec;
use std::sync::Arc;

/// Two matrices of 4 × 6 and a vector of 5 between them.
fn layout() -> Layout {
    Layout::new(vec![TensorSpec::new("a.weight", [4, 6]), TensorSpec::new("a.bias", [5]), TensorSpec::new("b", [4, 6])])
        .unwrap()
}

fn all() -> Mask {
    let segments: Segments = layout().segments();
    Mask::all(Arc::new(segments))
}

fn config(density: f64) -> PruningConfig {
    PruningConfig { density, steps: 1, first_round: 1, ..PruningConfig::default() }
}

/// Falling in the first matrix, larger and rising in the second.
fn scores() -> Vec<f32> {
    (0..53).map(|i| if i < 29 { 1.0 - i as f32 / 100.0 } else { i as f32 }).collect()
}

fn step(config: &PruningConfig, mask: &Mask, scores: &[f32]) -> Option<Mask> {
    Pruning::new(config, &layout()).step(1, mask, Evidence { scores, gradients: &[] })
}

fn left(mask: &Mask) -> Vec<usize> {
    mask.indices().filter(|index| !(24..29).contains(index)).collect()
}

#[test]
fn the_largest_of_the_model_or_of_each_tensor_stay_and_vectors_always_do() {
    let global = step(&config(0.5), &all(), &scores()).unwrap();
    assert_eq!(left(&global), std::iter::once(0).chain(29..53).collect::<Vec<_>>(), "one keeps the layer alive");
    assert!((24..29).all(|index| global.contains(index)));
    let layer = PruningConfig { scope: Scope::Layer, ..config(0.25) };
    let layer = step(&layer, &all(), &scores()).unwrap();
    assert_eq!(left(&layer), [0, 1, 2, 3, 4, 5, 47, 48, 49, 50, 51, 52]);
    let protected = PruningConfig { protected: "b".into(), ..config(0.25) };
    assert_eq!(
        left(&step(&protected, &all(), &scores()).unwrap()),
        [vec![0, 1, 2, 3, 4, 5], (29..53).collect()].concat()
    );
}

#[test]
fn what_is_pruned_stays_pruned_whatever_its_score() {
    let first = step(&config(0.5), &all(), &scores()).unwrap();
    let reversed: Vec<f32> = scores().iter().map(|score| 100.0 - score).collect();
    let second = step(&config(0.25), &first, &reversed).unwrap();
    assert!(second.indices().all(|index| first.contains(index)));
    assert_eq!(left(&second).len(), 12);
    assert_eq!(step(&config(0.25), &second, &scores()), None, "there is nothing left to do");
}

#[test]
fn a_number_of_parameters_counts_those_that_are_not_pruned() {
    let config = PruningConfig { density: 1.0, parameters: 17, ..config(1.0) };
    assert_eq!(step(&config, &all(), &scores()).unwrap().len(), 17 + 1, "and one that keeps a layer alive");
    let layer = PruningConfig { scope: Scope::Layer, ..config };
    assert_eq!(step(&layer, &all(), &scores()).unwrap().len(), 17);
}

#[test]
fn a_threshold_takes_what_is_below_it_down_to_the_density() {
    let by = |threshold, density| {
        let config = PruningConfig { schedule: Schedule::Threshold, threshold, ..config(density) };
        left(&step(&config, &all(), &scores()).unwrap())
    };
    assert_eq!(by(0.895, 0.1), [(0..11).collect::<Vec<_>>(), (29..53).collect()].concat());
    assert_eq!(by(40.0, 0.5), std::iter::once(0).chain(29..53).collect::<Vec<_>>()[..25], "half of 48 stay, and one");
}

#[test]
fn groups_keep_their_largest_within_rows() {
    let config = PruningConfig { pattern: Pattern::Groups { left: 2, of: 4 }, ..config(0.9) };
    let mask = step(&config, &all(), &scores()).unwrap();
    // Rows of six: a group of four, and one of two that keeps one.
    let row = |start: usize, offsets: [usize; 3]| offsets.map(|offset| start + offset);
    let first = (0..4).flat_map(|i| row(6 * i, [0, 1, 4]));
    let second = (0..4).flat_map(|i| row(29 + 6 * i, [2, 3, 5]));
    assert_eq!(left(&mask), first.chain(second).collect::<Vec<_>>());
    let two_steps = PruningConfig { steps: 2, schedule: Schedule::Geometric, ..config };
    let mask = step(&two_steps, &all(), &scores()).unwrap();
    assert!(mask.contains(2) && !mask.contains(3), "three of four after the first step");
}

#[test]
fn some_come_back_where_gradients_are_large() {
    let half = step(&config(0.5), &all(), &scores()).unwrap();
    let config = PruningConfig { regrow: 0.25, ..config(0.5) };
    let pruning = Pruning::new(&config, &layout());
    let gradients: Vec<f32> = (0..53).map(|i| if (10..16).contains(&i) { 9.0 } else { 0.0 }).collect();
    let next = pruning.step(1, &half, Evidence { scores: &scores(), gradients: &gradients }).unwrap();
    assert!((10..16).all(|index| next.contains(index)));
    assert_eq!(left(&next).len(), 24);
    assert_eq!(left(&next).iter().filter(|&&index| half.contains(index)).count(), 18);
}

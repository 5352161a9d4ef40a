//! A distillation that is left and taken up.

use super::*;
use dunlin_codec::{Codec, Encoder, EntropyCoder, Quantizer};
use std::path::Path;

fn recipe() -> Recipe {
    let sets =
        ["distillation.kind=ensemble", "distillation.epochs=4", "distillation.examples=300", "data.server_share=0.3"];
    Recipe::load(None, &sets.map(String::from)).unwrap()
}

fn set(dir: Option<&Path>) -> ServerSet {
    let recipe = recipe();
    let split = data::load(&recipe.data, &recipe.data_seed()).unwrap();
    let set = ServerSet::new(&recipe, &split).unwrap().unwrap();
    dir.into_iter().fold(set, |set, dir| set.kept_in(dir.to_owned()))
}

/// Two updates to the recipe's first model, and its parameters.
fn request(round: u64) -> (Request, Vec<f32>) {
    let recipe = recipe();
    let model = set(None).model;
    let (segments, start) = (Arc::new(model.layout().segments()), model.init(&recipe.model_seed()));
    let mut values = Vec::new();
    grid::from_f32(&start, &mut values);
    let base = Arc::new(MaskedGrid::whole(Arc::clone(&segments), values).unwrap());
    let rules = Arc::new(Rules::new(&recipe, &base, round));
    let codec = Codec { density: 0.2, quantizer: Quantizer::Ternary, coder: EntropyCoder::Auto };
    let frames = [1.3, 0.7].map(|phase| {
        let update: Vec<f32> = (0..start.len()).map(|i| (i as f32 * phase).sin() * 0.1).collect();
        Bytes::from(Encoder::new().encode(&codec, &segments, &update).unwrap().frame)
    });
    (Request::new(round, base, rules, frames.to_vec()), start)
}

/// The student, what is told of it, and the first step that was reported; calls `each` at every step.
fn run(set: &mut ServerSet, round: u64, mut each: impl FnMut()) -> (Vec<f32>, Distilled, u64) {
    let (request, mut student) = request(round);
    let mut first = 0;
    let mut progress = |done, _| {
        first = if first == 0 { done } else { first };
        each();
    };
    let distilled = set.distill(&request, &mut student, &mut progress).unwrap();
    (student, distilled, first)
}

#[test]
fn a_killed_server_takes_a_distillation_up_after_its_last_pass_and_ends_with_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("distillation");
    let (student, told, first) = run(&mut set(None), 5, || {});
    assert_eq!((first, file.exists()), (1, false));
    // What is on disk at each moment is what a server that is killed then finds.
    let mut states = Vec::new();
    let mut set_in_dir = set(Some(dir.path()));
    let same = run(&mut set_in_dir, 5, || {
        let state = std::fs::read(&file).unwrap_or_default();
        if states.last() != Some(&state) {
            states.push(state);
        }
    });
    assert_eq!((&same.0, &same.1), (&student, &told));
    // Nothing, what the teachers said, and after each pass but the last.
    assert_eq!(states.len(), 5);
    let mut begun = Vec::new();
    for state in &states {
        std::fs::write(&file, state).unwrap();
        let again = run(&mut set(Some(dir.path())), 5, || {});
        assert_eq!((&again.0, &again.1), (&student, &told));
        begun.push(again.2);
    }
    assert!(begun[0] == 1 && begun.is_sorted_by(|a, b| a < b), "{begun:?}");
    // A damaged file, or another round's, is not taken up.
    for damage in [0, 40, states[4].len() - 1] {
        let mut state = states[4].clone();
        state[damage] ^= 1;
        std::fs::write(&file, state).unwrap();
        assert_eq!(run(&mut set(Some(dir.path())), 5, || {}).2, 1);
    }
    std::fs::write(&file, &states[4]).unwrap();
    let (other, _, first) = run(&mut set(Some(dir.path())), 6, || {});
    assert!(first == 1 && other != student);
    set_in_dir.settled();
    assert!(!file.exists());
}

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

/// Why there is no set for a recipe.
fn refused(sets: &[&str]) -> String {
    let kind = ["distillation.kind=ensemble"];
    let sets: Vec<String> = kind.iter().chain(sets).map(|&set| set.to_owned()).collect();
    let recipe = Recipe::load(None, &sets).unwrap();
    let split = data::load(&recipe.data, &recipe.data_seed()).unwrap();
    ServerSet::new(&recipe, &split).err().expect("it cannot be made").to_string()
}

/// A table of four columns and a label of so many.
fn table(dir: &Path, classes: usize) -> String {
    let row = |i: usize| format!("{i},{},{},1,{}\n", i % 7, i % 3, i % classes);
    let path = dir.join(format!("{classes}.csv"));
    std::fs::write(&path, "a,b,c,d,label\n".to_owned() + &(0..60).map(row).collect::<String>()).unwrap();
    format!("csv:{}", path.display())
}

#[test]
fn another_data_set_teaches_without_its_labels_and_is_refused_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let [own, others] = [3, 2].map(|classes| table(dir.path(), classes));
    let sets = [
        format!("data.source={own}"),
        format!("distillation.source={others}"),
        "data.label=label".into(),
        "data.clients=2".into(),
        "rounds.cohort=2".into(),
    ];
    let sets: Vec<&str> = sets.iter().map(String::as_str).collect();
    let kind = ["distillation.kind=ensemble"];
    let recipe = Recipe::load(None, &kind.iter().chain(&sets).map(|&set| set.to_owned()).collect::<Vec<_>>()).unwrap();
    let split = data::load(&recipe.data, &recipe.data_seed()).unwrap();
    let set = ServerSet::new(&recipe, &split).unwrap().unwrap();
    assert!(!set.examples().is_empty());
    assert_eq!((set.examples().dataset().input().classes, split.train.input().classes), (3, 3));
    let told = refused(&[sets.as_slice(), &["distillation.labels=0.5"]].concat());
    assert!(told.contains("distillation.labels") && told.contains("set it to 0"), "{told}");
}

#[test]
fn what_the_server_holds_may_be_changed_at_random_where_it_is_little() {
    let with = |sets: &[&str]| {
        let base = ["distillation.kind=ensemble", "data.server_share=0.02", "distillation.augment=shift"];
        let sets: Vec<String> = base.iter().chain(sets).map(|&set| set.to_owned()).collect();
        let recipe = Recipe::load(None, &sets).unwrap();
        let split = data::load(&recipe.data, &recipe.data_seed()).unwrap();
        ServerSet::new(&recipe, &split).unwrap().unwrap().examples().clone()
    };
    let few = with(&[]).len();
    assert!((20..40).contains(&few), "{few}");
    assert_eq!(with(&["distillation.examples=400"]).len(), 400);
}

#[test]
fn a_server_without_examples_is_told_so() {
    // The smallest share of the digits is less than one of them.
    let told = refused(&["data.server_share=0.00001"]);
    assert!(told.contains("it holds no example; raise data.server_share"), "{told}");
    let sets = ["distillation.kind=ensemble".to_owned()];
    let told = Recipe::load(None, &sets).unwrap_err().to_string();
    assert!(told.contains("`data.server_share` is 0"), "{told}");
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

#[test]
fn a_student_of_another_architecture_learns_from_the_finished_model_and_is_taken_up_after_a_kill() {
    let sets = [
        "distillation.student=softmax",
        "distillation.student_epochs=12",
        "distillation.learning_rate=0.03",
        "data.server_share=0.3",
    ];
    let recipe = Recipe::load(None, &sets.map(String::from)).unwrap();
    let split = data::load(&recipe.data, &recipe.data_seed()).unwrap();
    let mut teacher = Model::new(&recipe.model, split.train.input()).unwrap();
    let mut finished = teacher.init(&recipe.model_seed());
    let task = dunlin_nn::train::TrainTask {
        config: &recipe.training.clone(),
        round: 1,
        mask: None,
        seed: Seed::from_u64(3),
        threads: &Threads::one(),
    };
    let all = Examples::all(split.train.clone());
    for _ in 0..10 {
        dunlin_nn::train::train(&mut teacher, &all, &mut finished, &task, &mut |_, _| ControlFlow::Continue(()))
            .unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("student.distillation");
    let mut make = |dir: Option<&Path>, progress: Progress<'_>| {
        student(&recipe, &split, (&mut teacher, &finished), dir, progress).unwrap().unwrap()
    };
    let undisturbed = make(None, &mut |_, _| {});
    let told = &undisturbed.report;
    assert_eq!((told.kind.as_str(), told.params, undisturbed.params.len()), ("softmax", 650, 650));
    assert!(told.agreement > 0.85 && told.accuracy > Some(0.8), "{told:?}");

    // As it lies on the disk in the middle.
    let mut halfway = Vec::new();
    let same = make(Some(dir.path()), &mut |done, total| {
        if done == total / 2 {
            halfway = std::fs::read(&file).unwrap();
        }
    });
    assert!(same.params == undisturbed.params && !file.exists(), "what is done is not kept");
    std::fs::write(&file, halfway).unwrap();
    let mut first = None;
    let again = make(Some(dir.path()), &mut |done, _| first = first.or(Some(done)));
    assert!(again.params == undisturbed.params && again.report == undisturbed.report);
    assert!(first > Some(1), "{first:?}");
}

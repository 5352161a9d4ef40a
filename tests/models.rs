//! A small federation of every kind of model: whether it learns, and whether its updates and packets are small.

use dunlin::{Recipe, Simulation};
use std::fmt::Write;

/// Runs a recipe; returns the losses on the test set after the first and after the last round, and the run's report.
fn run(sets: &[&str]) -> (f64, dunlin::Report) {
    let sets: Vec<String> = sets.iter().map(|&set| set.into()).collect();
    let outcome = Simulation::new(Recipe::load(None, &sets).unwrap()).run().unwrap();
    (outcome.rounds[0].loss.expect("the first round is evaluated"), outcome.report)
}

const SMALL: &[&str] =
    &["data.clients=30", "rounds.cohort=4", "rounds.count=6", "training.epochs=2", "downlink.density=0.01"];

#[test]
fn every_model_of_images_learns_in_a_federation_of_few_bytes() {
    let models: [&[&str]; 5] = [
        &["model.kind=softmax"],
        &["model.kind=lenet-300-100", "training.learning_rate=0.3"],
        &["model.kind=resnet8"],
        &["model.kind=mobilenet", "model.width=0.25"],
        &["model.kind=efficientnet", "model.scaling=-4"],
    ];
    for model in models {
        let (first, report) = run(&[SMALL, model].concat());
        assert!(report.loss < 0.97 * first, "{model:?}: {first} became {}", report.loss);
        let bytes = &report.bytes;
        assert!(bytes.up * 20 < bytes.up_dense && bytes.down * 5 < bytes.down_dense, "{model:?}: {bytes:?}");
    }
}

#[test]
fn every_model_of_text_learns_in_a_federation_of_its_speakers() {
    let dir = tempfile::tempdir().unwrap();
    let mut play = String::new();
    for speech in 0..40 {
        let role = ["ANNA", "BERT", "CLEO", "DORA"][speech % 4];
        writeln!(play, "**{role}**\n\nthe dunlin runs along the edge of the tide and the tide runs after it\n")
            .unwrap();
    }
    std::fs::write(dir.path().join("play.md"), play).unwrap();
    let source = format!("data.source=text:{}", dir.path().display());
    for kind in ["char-lstm", "char-gru", "transformer"] {
        let model = format!("model.kind={kind}");
        let sets: &[&str] = &[
            &source,
            &model,
            "data.partition=key",
            "data.clients=4",
            "rounds.cohort=3",
            "rounds.count=4",
            "training.epochs=2",
            "training.batch=2",
            "training.optimizer=adam",
            "training.learning_rate=0.003",
            "uplink.density=0.1",
            "downlink.density=0.2",
        ];
        let (first, report) = run(sets);
        assert!(report.loss < 0.8 * first, "{kind}: {first} became {}", report.loss);
        assert!(report.bytes.up * 10 < report.bytes.up_dense, "{kind}: {:?}", report.bytes);
    }
}

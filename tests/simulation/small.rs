//! Models that are made small: pruned, of few bits, distilled.

use crate::recipe;
use dunlin::simulation::Transport;
use dunlin::{Recipe, Simulation};

#[test]
fn a_pruned_model_is_small_and_so_is_what_travels_for_it() {
    let prune = [
        "rounds.count=16",
        "pruning.density=0.05",
        "pruning.first_round=4",
        "pruning.every=2",
        "pruning.steps=4",
        // Shares of what is left, which is little in the end.
        "uplink.density=0.1",
        "downlink.density=0.1",
    ];
    let run = |sets: &[&str]| Simulation::new(recipe(&[&prune[..], sets].concat())).run().unwrap();
    let pruned = run(&[]);
    // Weights of the 2NN for digits, and its biases.
    let left = (64 * 200 + 200 * 200 + 200 * 10) / 20 + 410;
    assert_eq!(pruned.rounds[15].kept, Some(left));
    assert!(pruned.report.nonzero <= left && pruned.report.nonzero > left / 2, "{:?}", pruned.report);
    assert_eq!(pruned.params.iter().filter(|&&value| value != 0.0).count() as u64, pruned.report.nonzero);
    assert!(pruned.report.accuracy > 0.6, "{:?}", pruned.report);
    let (before, after) = (pruned.rounds[3].coded, pruned.rounds[15].coded);
    assert!(after * 8 < before, "{before} bytes a round became {after}");
    for sets in [
        &["pruning.importance=taylor"][..],
        &["pruning.importance=votes", "pruning.scope=layer"],
        &["pruning.regrow=0.2", "training.optimizer=adam", "training.learning_rate=0.002"],
        &["pruning.pattern=1:20", "training.momentum=0.9", "training.weight_decay=0.001", "training.clip_norm=1"],
    ] {
        let outcome = run(sets);
        let kept = outcome.rounds[15].kept.unwrap();
        // Groups that a row cuts short keep one as well.
        assert!(kept.abs_diff(left) < 200, "{sets:?}: {kept} for {left}");
        let nonzero = outcome.params.iter().filter(|&&value| value != 0.0).count() as u64;
        assert!(nonzero <= kept && outcome.report.accuracy > 0.3, "{sets:?}: {:?}", outcome.report);
        let grpc = Simulation::new(recipe(&[&prune[..], sets].concat())).transport(Transport::Grpc).run().unwrap();
        assert_eq!(grpc.report.model_digest, outcome.report.model_digest, "{sets:?}");
    }
}

#[test]
fn a_model_without_most_of_its_units_is_trained_as_the_smaller_one_that_it_is() {
    let sets = [
        "rounds.count=12",
        "pruning.density=0.1",
        "pruning.pattern=channels",
        "pruning.first_round=3",
        "pruning.every=2",
        "pruning.steps=3",
        "uplink.density=0.2",
        "downlink.density=0.2",
    ];
    is_left_as_a_smaller_model(&recipe(&sets), 3_000..6_000);
}

/// Norms take channels together, so without some of them they compute something else; and clients are asked to judge the
/// model, too.
#[test]
fn a_residual_network_without_most_of_its_filters_is_trained_as_the_smaller_one_that_it_is() {
    let sets = [
        "model.kind=resnet8",
        "training.learning_rate=0.1",
        "training.batch=16",
        "rounds.count=12",
        "rounds.federated_evaluation_every=6",
        "pruning.density=0.36",
        "pruning.pattern=channels",
        "pruning.importance=scale",
        "pruning.first_round=3",
        "pruning.every=2",
        "pruning.steps=3",
        "uplink.density=0.3",
        "downlink.density=0.3",
    ];
    is_left_as_a_smaller_model(&recipe(&sets), 22_000..29_000);
    let grpc = Simulation::new(recipe(&sets)).transport(Transport::Grpc).run().unwrap();
    assert_eq!(grpc.report.model_digest, Simulation::new(recipe(&sets)).run().unwrap().report.model_digest);
}

fn is_left_as_a_smaller_model(recipe: &Recipe, expected: std::ops::Range<u64>) {
    let outcome = Simulation::new(recipe.clone()).run().unwrap();
    let (kept, report) = (outcome.rounds[11].kept.unwrap(), &outcome.report);
    assert!(report.accuracy > 0.7 && expected.contains(&kept), "{kept} left: {report:?}");
    let split = dunlin::nn::data::load(&recipe.data, &recipe.data_seed()).unwrap();
    let mut whole = dunlin::nn::model::Model::new(&recipe.model, split.test.input()).unwrap();
    let (mut small, params) = whole.compacted(&outcome.params).unwrap();
    assert_eq!(small.layout().len() as u64, kept, "what is left is a whole model");
    let test = dunlin::nn::data::Examples::all(split.test);
    let threads = dunlin::nn::Threads::one();
    let judge = |model: &mut dunlin::nn::model::Model, params: &[f32]| {
        dunlin::nn::train::evaluate(model, &test, params, &threads).unwrap().correct
    };
    assert_eq!(judge(&mut small, &params), judge(&mut whole, &outcome.params));
}

/// Each with its own model, on digits of its data's size; rounds and clients are such that a test has time for them.
#[test]
fn the_recipes_that_make_models_small_run_on_digits() {
    let digits = tempfile::tempdir().unwrap();
    write_large_digits(digits.path());
    let source = format!("data.source=idx:{}", digits.path().display());
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/recipes");
    for name in [
        "textbook-pruning",
        "lenet-300-100-pruned",
        "lenet-5-pruned",
        "lottery-ticket",
        "filter-pruning",
        "vgg-filter-pruning",
        "resnet-filter-pruning",
        "fashion-feddf",
        "binary-feddf",
        "mnist-heterofl",
        "mnist-tiny",
    ] {
        let text = std::fs::read_to_string(folder.join(name).with_extension("toml")).unwrap();
        let mut sets = vec![source.as_str(), "data.clients=10", "training.epochs=1", "training.augment=none"];
        sets.extend(["rounds.count=5", "rounds.cohort=4", "rounds.target_accuracy=0"]);
        if text.contains("[pruning]") {
            sets.extend(["pruning.first_round=1", "pruning.every=1", "pruning.steps=2", "pruning.rewind_round=0"]);
        }
        if text.contains("logits = \"adjusted\"") {
            // Of teachers that know next to nothing, nothing is left when how often they give each answer is taken off.
            sets.push("training.epochs=5");
        }
        let sets: Vec<String> = sets.into_iter().map(str::to_owned).collect();
        let recipe = Recipe::load(Some(&text), &sets).unwrap();
        let outcome = Simulation::new(recipe.clone()).run().unwrap_or_else(|error| panic!("{name}: {error}"));
        let least = outcome.rounds.iter().map(|round| round.train_loss).fold(f64::INFINITY, f64::min);
        assert!(least < outcome.rounds[0].train_loss, "{name}: {:?}", outcome.rounds);
        let last = &outcome.rounds[4];
        assert_eq!(recipe.pruning.is_on(), last.kept.is_some_and(|kept| kept < outcome.report.params), "{name}");
        assert_eq!(recipe.distillation.is_on(), outcome.rounds.iter().any(|round| round.distilled.is_some()), "{name}");
        assert_eq!(recipe.size.len(), outcome.report.sizes.len(), "{name}");
    }
}

/// The embedded digits as images of 28×28 pixels in MNIST's format, each pixel three times as wide and high.
fn write_large_digits(dir: &std::path::Path) {
    let split = dunlin::nn::data::load(&Recipe::default().data, &Recipe::default().data_seed()).unwrap();
    for (part, set) in [("train", split.train), ("t10k", split.test)] {
        let count = (set.labels().len() as u32).to_be_bytes();
        let mut images = [&[0, 0, 8, 3], &count[..], &[0, 0, 0, 28, 0, 0, 0, 28]].concat();
        let mut pixels = Vec::new();
        for row in 0..set.labels().len() as u32 {
            pixels.clear();
            set.append_row(row, &mut pixels);
            let large = (0..28 * 28).map(|at: usize| match (at / 28 / 3, at % 28 / 3) {
                (y @ 0..8, x @ 0..8) => (pixels[8 * y + x].clamp(0.0, 1.0) * 255.0) as u8,
                _ => 0,
            });
            images.extend(large);
        }
        let labels = set.labels().iter().map(|&label| label as u8);
        let labels: Vec<u8> = [0, 0, 8, 1].into_iter().chain(count).chain(labels).collect();
        std::fs::write(dir.join(format!("{part}-images-idx3-ubyte")), images).unwrap();
        std::fs::write(dir.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
}

#[test]
fn weights_of_few_bits_are_trained_judged_and_written() {
    for (format, least) in [("int8", 0.85), ("binary", 0.6)] {
        let weights = format!("model.weights={format}");
        let sets = ["rounds.count=20", &weights, "uplink.density=0.1", "downlink.density=0.1"];
        let outcome = Simulation::new(recipe(&sets)).run().unwrap();
        assert!(outcome.report.accuracy > least, "{format}: {:?}", outcome.report);
    }
}

#[test]
fn steps_between_weights_of_few_bits_are_learned_sent_and_averaged() {
    for (format, least) in [("int4", 0.85), ("ternary", 0.75)] {
        let weights = format!("model.weights={format}");
        let sets = ["rounds.count=20", &weights, "model.steps=learned", "uplink.density=0.1", "downlink.density=0.1"];
        let recipe = recipe(&sets);
        let outcome = Simulation::new(recipe.clone()).run().unwrap();
        assert!(outcome.report.accuracy > least, "{format}: {:?}", outcome.report);

        // What is written is judged as the server judged it.
        let split = dunlin::nn::data::load(&recipe.data, &recipe.data_seed()).unwrap();
        let model = dunlin::nn::model::Model::new(&recipe.model, split.test.input()).unwrap();
        let (mut deployed, params) = model.deployed(&outcome.params).unwrap();
        assert!(deployed.layout().tensors().iter().all(|tensor| !tensor.name.ends_with(".step")));
        let test = dunlin::nn::data::Examples::all(split.test);
        let judged = dunlin::nn::train::evaluate(&mut deployed, &test, &params, &dunlin::nn::Threads::one()).unwrap();
        assert_eq!(judged.accuracy(), outcome.report.accuracy);

        let initial = model.init(&recipe.model_seed());
        let steps = outcome.params[params.len()..].iter().zip(&initial[params.len()..]);
        assert!(steps.clone().any(|(step, initial)| step != initial) && steps.clone().all(|(step, _)| *step > 0.0));
        if format == "ternary" {
            let grpc = Simulation::new(recipe).transport(Transport::Grpc).run().unwrap();
            assert_eq!(grpc.report.model_digest, outcome.report.model_digest);
        }
    }
}

#[test]
fn the_server_learns_from_the_clients_models_what_their_mean_has_lost() {
    let skewed = [
        "data.alpha=0.1",
        "data.server_share=0.2",
        "rounds.count=4",
        "uplink.density=1",
        "uplink.quantizer=f16",
        "downlink.density=1",
        "downlink.quantizer=f16",
    ];
    let run = |sets: &[&str]| Simulation::new(recipe(&[&skewed[..], sets].concat())).run().unwrap();
    let (mean, distilled) = (run(&[]), run(&["distillation.kind=ensemble", "distillation.epochs=10"]));
    assert!(distilled.report.accuracy > mean.report.accuracy, "{:?} {:?}", distilled.report, mean.report);
    for round in &distilled.rounds {
        let distilled = round.distilled.unwrap();
        assert_eq!((distilled.teachers, distilled.examples), (10, 288), "a fifth of the digits to train on");
        assert!(distilled.agreement > distilled.before, "{distilled:?}");
    }
    let few =
        ["rounds.count=2", "distillation.kind=ensemble", "distillation.source=noise", "distillation.examples=100"];
    let pruned = ["pruning.density=0.5", "pruning.first_round=1", "pruning.steps=1", "data.server_share=0"];
    let sets = [&few[..], &pruned].concat();
    let noise = run(&sets);
    assert_eq!(noise.rounds[1].distilled.map(|distilled| distilled.examples), Some(100));
    let nonzero = noise.params.iter().filter(|&&value| value != 0.0).count() as u64;
    assert!(Some(nonzero) <= noise.rounds[1].kept, "what was pruned stays so");
    let grpc = Simulation::new(recipe(&[&skewed[..], &sets].concat())).transport(Transport::Grpc).run().unwrap();
    assert_eq!(grpc.report.model_digest, noise.report.model_digest);
}

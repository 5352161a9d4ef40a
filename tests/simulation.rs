//! Whole federations in simulated time, through the library that users call.

use dunlin::client::driver::Workplace;
use dunlin::client::trainer::{Progress, Trainer, TrainerError, Work};
use dunlin::core::recipe::Width;
use dunlin::core::report::{ClientSummary, FederatedEvaluation, SizeEvaluation};
use dunlin::core::{ClientId, Layout, Outcome, TensorSpec};
use dunlin::nn::train::Evaluation;
use dunlin::server::evaluate::Evaluate;
use dunlin::server::store::{MemoryStore, Store};
use dunlin::simulation::Transport;
use dunlin::{Recipe, Simulation, SimulationError, SimulationOutcome};
use std::ops::ControlFlow;
use std::sync::Arc;

fn recipe(sets: &[&str]) -> Recipe {
    let sets: Vec<String> = sets.iter().map(|&set| set.into()).collect();
    Recipe::load(None, &sets).unwrap()
}

/// What must be the same in two runs of one recipe.
fn timeless(mut outcome: SimulationOutcome) -> SimulationOutcome {
    outcome.report.seconds = 0.0;
    for round in &mut outcome.rounds {
        round.seconds = 0.0;
    }
    outcome
}

/// A link on which everything can happen, and quickly enough for a test.
const ROUGH: &[&str] = &[
    "network.class=[{name='phone', share=3, up_kbps=200, down_kbps=2000, latency_ms=80, loss=0.05, churn=0.1, \
     examples_per_s=100}, {name='desk', share=1, up_kbps=20000, down_kbps=50000, latency_ms=5, examples_per_s=2000}]",
    "rounds.idle_timeout_s=10",
    "rounds.deadline_s=120",
];

#[test]
fn the_default_recipe_learns_to_read_digits() {
    let outcome = Simulation::new(recipe(&["rounds.count=25"])).run().unwrap();
    let report = &outcome.report;
    assert!(report.accuracy > 0.85, "{report:?}");
    assert!(report.bytes.up * 100 < report.bytes.up_dense, "{:?}", report.bytes);
    assert_eq!((report.outcome, report.rounds, report.abandoned), (Outcome::Completed, 25, 0));
    assert_eq!((outcome.params.len() as u64, outcome.layout.len() as u64), (report.params, report.params));
    assert_eq!(outcome.rounds.len(), 25);
}

#[test]
fn what_each_client_cost_adds_up_to_the_run() {
    let outcome = Simulation::new(recipe(&["rounds.count=6", "rounds.cohort=8"])).run().unwrap();
    let (clients, report) = (&outcome.clients, &outcome.report);
    assert_eq!(clients.len(), 20);
    assert_eq!(clients.iter().map(|client| client.up).sum::<u64>(), report.bytes.up);
    assert_eq!(clients.iter().map(|client| client.down).sum::<u64>(), report.bytes.down);
    assert_eq!(clients.iter().map(|client| client.updates).sum::<u64>(), 6 * 8);
    assert!(clients.iter().all(|client| (client.class.as_deref(), client.busy_seconds) == (None, 0.0)));

    // Messages that got lost were sent again, and who was away gave nothing.
    let rough = Simulation::new(recipe(&[ROUGH, &["rounds.count=4"]].concat())).run().unwrap();
    let phones = rough.clients.iter().filter(|client| client.class.as_deref() == Some("phone"));
    assert_eq!(phones.clone().count(), 15);
    assert!(phones.clone().all(|client| client.updates == 0 || client.busy_seconds > 0.0), "{:?}", rough.clients);
    let accepted: u64 = rough.rounds.iter().map(|round| u64::from(round.clients)).sum();
    assert_eq!(rough.clients.iter().map(|client| client.updates).sum::<u64>(), accepted);
}

#[test]
fn the_same_recipe_gives_the_same_run_on_any_number_of_threads() {
    for sets in [&["rounds.count=6"][..], &[ROUGH, &["rounds.count=6", "rounds.over_selection=1.4"]].concat()] {
        let run = |threads| timeless(Simulation::new(recipe(sets)).threads(threads).run().unwrap());
        let first = run(1);
        assert_eq!(first, run(1), "{sets:?}");
        assert_eq!(first, run(2), "{sets:?}");
        assert_eq!(first, run(5), "{sets:?}");
        let other = Simulation::new(Recipe { seed: 2, ..recipe(sets) }).run().unwrap();
        assert_ne!(first.report.model_digest, other.report.model_digest, "{sets:?}");
    }
}

#[test]
fn a_federation_learns_with_each_quantizer_of_whole_vectors() {
    let quantizers: [&[&str]; 6] = [
        &["uplink.quantizer=rotated", "uplink.bits=1"],
        &["uplink.quantizer=eden", "uplink.bits=2", "uplink.fit=unbiased", "uplink.feedback=0"],
        &["uplink.quantizer=qsgd", "uplink.bits=4", "uplink.feedback=0"],
        &["uplink.quantizer=terngrad", "uplink.feedback=0"],
        &["uplink.quantizer=sign"],
        &["uplink.quantizer=low-rank", "uplink.rank=2"],
    ];
    for quantizer in quantizers {
        let sets = [quantizer, &["uplink.density=1", "downlink.density=0.2", "rounds.count=8"]].concat();
        let outcome = Simulation::new(recipe(&sets)).run().unwrap();
        let (first, report) = (outcome.rounds[0].loss.unwrap(), &outcome.report);
        assert!(report.loss < 0.8 * first, "{quantizer:?}: {first} became {}", report.loss);
        assert!(report.bytes.up * 6 < report.bytes.up_dense, "{quantizer:?}: {:?}", report.bytes);
    }
}

/// Digits with the same coordinates for all, as integers of one grid.
const COMMON: &[&str] = &["uplink.quantizer=common", "uplink.bits=6", "uplink.density=0.1"];

#[test]
fn a_federation_learns_from_the_coordinates_that_all_send_however_they_are_chosen() {
    for way in ["random", "cyclic", "announced"] {
        let chosen = format!("common.coordinates={way}");
        let sets = [COMMON, &[chosen.as_str(), "rounds.count=30", "uplink.coder=raw"]].concat();
        let outcome = Simulation::new(recipe(&sets)).run().unwrap();
        assert!(outcome.report.accuracy > 0.8, "{way}: {:?}", outcome.report);
        // As integers are: six bits for each of a tenth of the coordinates, which need not be named.
        let frame = 3 + 2 + 2 + 2 + (5521 * 6_u64).div_ceil(8) + 4;
        for round in &outcome.rounds {
            assert_eq!(round.coded, frame * u64::from(round.clients), "{way}, round {}", round.round);
        }
        let grpc = Simulation::new(recipe(&sets)).transport(Transport::Grpc).run().unwrap();
        assert_eq!(grpc.report.model_digest, outcome.report.model_digest, "{way}");
        assert_eq!(grpc.report.bytes.up, outcome.report.bytes.up, "{way}");
    }
}

#[test]
fn common_coordinates_go_with_everything_else() {
    for sets in [
        // Late updates, lost ones, rounds without a quorum.
        &[ROUGH, &["rounds.count=6", "rounds.over_selection=1.4", "common.coordinates=announced"]].concat()[..],
        &[
            "rounds.count=6",
            "common.coordinates=cyclic",
            "rounds.cohort=4",
            "downlink.quantizer=common",
            "downlink.density=1",
        ],
        &[
            "rounds.count=8",
            "common.coordinates=announced",
            "pruning.density=0.2",
            "pruning.first_round=2",
            "pruning.every=2",
            "pruning.steps=3",
        ],
        &[
            "rounds.count=6",
            "common.coordinates=announced",
            "pruning.density=0.3",
            "pruning.first_round=2",
            "pruning.every=2",
            "pruning.steps=2",
            "pruning.regrow=0.2",
        ],
        &[
            "rounds.count=4",
            "common.coordinates=random",
            "pruning.density=0.5",
            "pruning.pattern=channels",
            "pruning.first_round=2",
            "pruning.steps=1",
        ],
        &[
            "rounds.count=4",
            "common.coordinates=announced",
            "distillation.kind=ensemble",
            "data.server_share=0.2",
            "distillation.every=2",
        ],
        &[
            "rounds.count=4",
            "common.coordinates=announced",
            "uplink.warmup_rounds=3",
            "uplink.warmup_density=0.5",
            "rounds.federated_evaluation_every=2",
        ],
        &[
            "rounds.count=4",
            "common.coordinates=random",
            "uplink.feedback=0",
            "uplink.fit=unbiased",
            "strategy.kind=fedadam",
        ],
    ] {
        let sets = [COMMON, sets].concat();
        let run = |threads| timeless(Simulation::new(recipe(&sets)).threads(threads).run().unwrap());
        let first = run(1);
        assert_eq!(first, run(3), "{sets:?}");
        let (before, report) = (first.rounds[0].loss.unwrap(), &first.report);
        assert!(report.loss.is_finite() && report.loss < before, "{sets:?}: {before} became {report:?}");
        if !sets.contains(&ROUGH[0]) {
            let grpc = Simulation::new(recipe(&sets)).transport(Transport::Grpc).run().unwrap();
            assert_eq!(grpc.report.model_digest, report.model_digest, "{sets:?}");
        }
    }
}

#[test]
fn every_quantizer_goes_with_common_coordinates() {
    let quantizers: [&[&str]; 9] = [
        &["uplink.quantizer=f32"],
        &["uplink.quantizer=int8"],
        &["uplink.quantizer=ternary"],
        &["uplink.quantizer=rotated", "uplink.bits=2"],
        &["uplink.quantizer=eden", "uplink.fit=unbiased", "uplink.feedback=0"],
        &["uplink.quantizer=qsgd", "uplink.bits=4", "uplink.feedback=0"],
        &["uplink.quantizer=terngrad", "uplink.feedback=0"],
        &["uplink.quantizer=sign"],
        &["uplink.quantizer=low-rank"],
    ];
    for quantizer in quantizers {
        let sets = [quantizer, &["uplink.density=0.2", "common.coordinates=cyclic", "rounds.count=10"]].concat();
        let outcome = Simulation::new(recipe(&sets)).run().unwrap();
        let (first, report) = (outcome.rounds[0].loss.unwrap(), &outcome.report);
        assert!(report.loss < 0.95 * first, "{quantizer:?}: {first} became {}", report.loss);
        assert!(report.bytes.up * 4 < report.bytes.up_dense, "{quantizer:?}: {:?}", report.bytes);
    }
}

#[test]
fn codebooks_and_important_tensors_make_one_model_over_either_transport() {
    let sets = [
        "rounds.count=10",
        "uplink.quantizer=codebook",
        "uplink.importance=fc3=4, fc1.bias=0.5",
        "downlink.quantizer=codebook",
        "downlink.bits=3",
        "downlink.density=0.1",
        "downlink.importance=fc3=2",
        "pruning.density=0.3",
        "pruning.first_round=2",
        "pruning.every=2",
        "pruning.steps=3",
    ];
    let outcome = Simulation::new(recipe(&sets)).run().unwrap();
    let (first, report) = (outcome.rounds[0].loss.unwrap(), &outcome.report);
    assert!(report.loss < 0.7 * first, "{first} became {}", report.loss);
    let grpc = Simulation::new(recipe(&sets)).transport(Transport::Grpc).run().unwrap();
    assert_eq!(grpc.report.model_digest, report.model_digest);
    let plain = Simulation::new(recipe(&sets[..2])).run().unwrap();
    let weighed = Simulation::new(recipe(&sets[..3])).run().unwrap();
    assert_ne!(plain.report.model_digest, weighed.report.model_digest);

    let error = Simulation::new(recipe(&["downlink.importance=fc1=2, fc9=3"])).run().unwrap_err().to_string();
    assert!(
        error.contains("`downlink.importance` names \"fc9\", and no tensor's name begins so; there are fc1."),
        "{error}"
    );
}

#[test]
fn updates_fill_what_the_recipe_allows_and_no_more() {
    let outcome = Simulation::new(recipe(&["rounds.count=5", "limits.update_bytes=700"])).run().unwrap();
    for round in &outcome.rounds {
        let allowed = 700 * u64::from(round.clients);
        assert!(round.coded <= allowed && round.coded * 100 >= allowed * 98, "{} of {allowed}", round.coded);
    }
    let sets = &["rounds.count=8", "limits.run_bytes=60000", "limits.update_bytes=2000", "uplink.quantizer=int8"];
    let in_process = timeless(Simulation::new(recipe(sets)).run().unwrap());
    let spent = in_process.report.bytes.up;
    assert!((58_800..=60_000).contains(&spent), "{spent}");
    let grpc = Simulation::new(recipe(sets)).transport(Transport::Grpc).run().unwrap();
    assert_eq!(grpc.report.model_digest, in_process.report.model_digest);
}

#[test]
fn a_client_sends_no_more_than_its_budget_and_nearly_all_of_it_where_it_is_always_asked() {
    let sets = &["data.clients=10", "rounds.count=10", "limits.client_bytes=12000"];
    let outcome = Simulation::new(recipe(sets)).run().unwrap();
    assert_eq!(outcome.clients.len(), 10);
    for client in &outcome.clients {
        assert!(client.updates == 10 && (11_760..=12_000).contains(&client.up), "{client:?}");
    }
    let grpc = Simulation::new(recipe(sets)).transport(Transport::Grpc).run().unwrap();
    assert_eq!(grpc.report.model_digest, outcome.report.model_digest);
    assert_eq!(grpc.report.bytes.up, outcome.report.bytes.up);
    // Drawn at random, without feedback, beside a bound of the server's.
    for (others, least) in [
        (&["uplink.feedback=0"][..], 60_000),
        (&["limits.update_bytes=900"], 40_000),
        (&["limits.run_bytes=50000"], 40_000),
    ] {
        let sets = [&["rounds.count=12", "rounds.cohort=5", "limits.client_bytes=5000"], others].concat();
        let drawn = Simulation::new(recipe(&sets)).run().unwrap();
        assert!(drawn.clients.iter().all(|client| client.up <= 5000), "{others:?}: {:?}", drawn.clients);
        assert!(drawn.report.bytes.up > least, "{others:?}: {:?}", drawn.report.bytes);
        assert_eq!(drawn.clients.iter().map(|client| client.updates).sum::<u64>(), 60, "{others:?}");
    }
}

#[test]
fn clients_of_several_sizes_train_one_model_and_the_small_ones_pay_less() {
    let sets = ["rounds.count=30", "size=[{width=1}, {width=0.5, share=2}, {width=0.25}]"];
    let outcome = timeless(Simulation::new(recipe(&sets)).run().unwrap());
    let report = &outcome.report;
    let widths: Vec<f64> = report.sizes.iter().map(|size| size.width.share()).collect();
    assert_eq!(widths, [1.0, 0.5, 0.25]);
    // The smaller ones learn later: chance is a tenth.
    let is_learned = |(size, least): (&SizeEvaluation, f64)| size.accuracy > least;
    assert!(report.sizes.iter().zip([0.85, 0.85, 0.35]).all(is_learned), "{:?}", report.sizes);
    assert_eq!((report.sizes[0].accuracy, report.sizes[0].params), (report.accuracy, report.params));
    assert_eq!(outcome.rounds.last().unwrap().sizes, report.sizes);

    // Half of the clients have half of each layer, and a quarter a quarter.
    let of = |share: f64| outcome.clients.iter().filter(move |client| client.width.share() == share);
    assert_eq!([of(1.0).count(), of(0.5).count(), of(0.25).count()], [5, 10, 5]);
    let per_update = |share: f64, bytes: fn(&ClientSummary) -> u64| {
        let updates = of(share).map(|client| client.updates).sum::<u64>() as f64;
        of(share).map(bytes).sum::<u64>() as f64 / updates
    };
    for bytes in [|client: &ClientSummary| client.up, |client: &ClientSummary| client.down] {
        let [whole, half, quarter] = [1.0, 0.5, 0.25].map(|share| per_update(share, bytes));
        assert!(half < 0.6 * whole && quarter < 0.7 * half, "{whole} {half} {quarter}");
    }
    assert_eq!(outcome.clients.iter().map(|client| client.up).sum::<u64>(), report.bytes.up);
    assert_eq!(outcome.clients.iter().map(|client| client.down).sum::<u64>(), report.bytes.down);

    let grpc = Simulation::new(recipe(&sets)).transport(Transport::Grpc).run().unwrap();
    assert_eq!((&grpc.report.model_digest, &grpc.report.sizes), (&report.model_digest, &report.sizes));
    assert_eq!(grpc.report.bytes.up, report.bytes.up);
}

/// Clients that have less of the model than any size of the recipe.
struct Odd(Lines);

impl Workplace for Odd {
    fn model(&self) -> Result<(Layout, Vec<f32>), TrainerError> {
        self.0.model()
    }

    fn examples(&self, client: &ClientId) -> Result<u32, TrainerError> {
        self.0.examples(client)
    }

    fn width(&self, _: &ClientId) -> Width {
        Width::new(0.3).unwrap()
    }

    fn trainer(&self, client: &ClientId) -> Result<Box<dyn Trainer>, TrainerError> {
        self.0.trainer(client)
    }
}

#[test]
fn a_width_that_the_recipe_does_not_have_is_refused_before_anything_runs() {
    let layout = Layout::new(vec![TensorSpec::new("slope", [1]), TensorSpec::new("offset", [1])]).unwrap();
    let odd = Arc::new(Odd(Lines { layout, failing: None }));
    let error = Simulation::new(recipe(&[])).workplace(odd).run().unwrap_err().to_string();
    assert_eq!(error, "client client-00000 has width 0.3, which no size in the recipe has");
}

#[test]
fn a_model_without_parts_has_no_clients_of_several_sizes() {
    let recipe = Recipe { size: recipe(&["size=[{}, {width=0.5}]"]).size, ..recipe(&["model.kind=own:mine"]) };
    let layout = Layout::new(vec![TensorSpec::new("slope", [1]), TensorSpec::new("offset", [1])]).unwrap();
    let error =
        Simulation::new(recipe).workplace(Arc::new(Lines { layout, failing: None })).run().unwrap_err().to_string();
    assert!(error.starts_with("`size.width` is 0.5; it must be 1, because this model is no chain"), "{error}");
}

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

/// What makes a model small keeps its keys; data, model and rounds are such that a test has time for them.
#[test]
fn the_recipes_that_make_models_small_run_on_digits() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/recipes");
    for name in [
        "textbook-pruning",
        "lenet-300-100-pruned",
        "lenet-5-pruned",
        "lottery-ticket",
        "filter-pruning",
        "fashion-feddf",
        "binary-feddf",
    ] {
        let text = std::fs::read_to_string(folder.join(name).with_extension("toml")).unwrap();
        let sets = ["data.source=digits", "model.kind=textbook-cnn", "training.epochs=1", "training.augment=none"];
        let rounds = ["rounds.count=5", "rounds.target_accuracy=0", "pruning.first_round=1", "pruning.every=1"];
        let sets: Vec<String> =
            [sets, rounds].concat().into_iter().chain(["pruning.steps=2"]).map(str::to_owned).collect();
        let recipe = Recipe::load(Some(&text), &sets).unwrap();
        let outcome = Simulation::new(recipe.clone()).run().unwrap();
        let first = outcome.rounds[0].train_loss;
        assert!(outcome.rounds[4].train_loss < first, "{name}: {:?}", outcome.rounds[4]);
        assert_eq!(recipe.pruning.is_on(), outcome.rounds[4].kept.is_some_and(|kept| kept < outcome.report.params));
        assert_eq!(recipe.distillation.is_on(), outcome.rounds[4].distilled.is_some());
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

#[test]
fn every_feature_works_beside_every_other() {
    let sets = [
        ROUGH,
        &[
            "rounds.count=12",
            "rounds.over_selection=1.5",
            "rounds.federated_evaluation_every=3",
            "rounds.evaluate_every=2",
            "strategy.kind=fedadam",
            "strategy.learning_rate=0.01",
            "training.learning_rate=0.02",
            "training.momentum=0.9",
            "training.epochs=2",
            "training.proximal=0.01",
            "uplink.quantizer=int8",
            "uplink.warmup_rounds=5",
            "uplink.warmup_density=0.2",
            "downlink.density=0.1",
            "downlink.quantizer=f16",
            "limits.packet_ring=4",
        ],
    ];
    let outcome = Simulation::new(recipe(&sets.concat())).run().unwrap();
    let report = &outcome.report;
    assert_eq!(report.outcome, Outcome::Completed);
    assert!(report.accuracy > 0.3, "{report:?}");
    let published = outcome.rounds.iter().filter(|round| round.published);
    assert!(published.clone().all(|round| round.clients >= 8 && round.chosen == 15), "{:?}", outcome.rounds);
    for round in published {
        assert_eq!(round.federated.is_some(), round.round % 3 == 0, "{round:?}");
        assert_eq!(round.accuracy.is_some(), round.round % 2 == 0, "{round:?}");
        assert!(round.simulated_seconds > Some(0.0), "{round:?}");
    }
    // A round ends with the tenth of fifteen updates; others came too late, and some clients were away.
    assert!(outcome.rounds.iter().all(|round| round.clients <= 10), "{:?}", outcome.rounds);
    assert!(report.rejects["late"] > 0, "{report:?}");
    assert!(outcome.rounds.iter().any(|round| round.eligible < 20), "{:?}", outcome.rounds);
    // Twelve rounds take longer than the phones' training alone.
    assert!(report.simulated_seconds > Some(12.0), "{report:?}");
}

#[test]
fn slower_links_take_more_simulated_time_and_give_the_same_model() {
    let seconds = |kbps: u32| {
        let class = format!("network.class=[{{name='a', up_kbps={kbps}, down_kbps={kbps}, latency_ms=10}}]");
        let outcome = Simulation::new(recipe(&["rounds.count=4", &class])).run().unwrap();
        (outcome.report.simulated_seconds.unwrap(), outcome.report.model_digest)
    };
    let (fast, slow, slower) = (seconds(10_000), seconds(100), seconds(10));
    assert!(fast.0 > 0.0 && slow.0 > 2.0 * fast.0 && slower.0 > 5.0 * slow.0, "{fast:?} {slow:?} {slower:?}");
    assert_eq!((&fast.1, &slow.1), (&slow.1, &slower.1), "nobody was lost, so the cohorts were the same");
}

#[test]
fn clients_that_leave_are_not_waited_for_beyond_the_idle_timeout() {
    let sets = ["rounds.count=5", "rounds.quorum=0.1", "rounds.idle_timeout_s=7", "rounds.deadline_s=20"];
    let class = "network.class=[{name='a', latency_ms=10, churn=0.4}]";
    let outcome = Simulation::new(recipe(&[&sets[..], &[class]].concat())).run().unwrap();
    let lost: u32 = outcome.rounds.iter().map(|round| round.lost).sum();
    assert!(lost > 5, "{:?}", outcome.rounds);
    for round in &outcome.rounds {
        // One that comes back in time and leaves again is waited for once more, but not beyond the deadline.
        let seconds = round.simulated_seconds.unwrap();
        assert!((if round.lost > 0 { 7.0 } else { 0.0 }..=20.0).contains(&seconds), "{round:?}");
    }
}

#[test]
fn the_run_ends_when_its_target_is_reached() {
    let outcome = Simulation::new(recipe(&["rounds.target_accuracy=0.6"])).run().unwrap();
    let target = outcome.report.target.unwrap();
    assert_eq!((outcome.report.outcome, target.round), (Outcome::TargetReached, Some(outcome.report.rounds)));
    assert!(outcome.report.rounds < 30 && outcome.report.accuracy >= 0.6, "{:?}", outcome.report);
}

#[test]
fn whoever_watches_the_rounds_can_stop_the_run() {
    let mut seen = Vec::new();
    let simulation = Simulation::new(recipe(&["rounds.count=30"])).on_round(|round| {
        seen.push(round.round);
        if round.round == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let report = simulation.run().unwrap().report;
    assert_eq!(report.outcome, Outcome::Stopped);
    // The fourth round was open and was dropped.
    assert_eq!((report.rounds, report.abandoned), (4, 1));
    assert_eq!(seen, [1, 2, 3, 4]);
}

#[test]
fn a_store_gets_the_whole_run() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let open = || dunlin::server::store::SqliteStore::open(directory.path(), runtime.handle().clone()).unwrap();
    let recipe = recipe(&["rounds.count=3"]);
    let outcome = Simulation::new(recipe.clone()).store(Box::new(open())).run().unwrap();
    let mut store = open();
    let run = store.runs().unwrap().remove(0);
    assert_eq!((run.name.as_str(), run.rounds, run.outcome), ("digits", 3, Some(Outcome::Completed)));
    assert_eq!(store.restore(run.id).unwrap().summaries, outcome.rounds);
    let in_memory = Simulation::new(recipe).store(Box::new(MemoryStore::new(64))).run().unwrap();
    assert_eq!(timeless(in_memory), timeless(outcome));
}

#[test]
fn impossible_recipes_and_stalled_runs_are_errors() {
    let mut impossible = Recipe::default();
    impossible.rounds.cohort = 21;
    let error = Simulation::new(impossible).run().unwrap_err();
    assert!(matches!(error, SimulationError::Recipe(_)), "{error}");

    let failing = Lines { layout: layout(), failing: Some(ClientId::numbered("client", 2)) };
    let error = Simulation::new(recipe(LINES)).workplace(Arc::new(failing)).run().unwrap_err();
    assert_eq!(error.to_string(), "client client-00002: the scale is broken");
}

/// An integration test as a user writes it: a model and data of their own, here lines y = 2x − 1 seen with noise.
#[test]
fn a_workplace_of_ones_own_is_trained_and_evaluated() {
    let outcome = Simulation::new(recipe(LINES))
        .workplace(Arc::new(Lines { layout: layout(), failing: None }))
        .evaluator(Box::new(Truth))
        .run()
        .unwrap();
    let [slope, offset] = outcome.params[..] else { panic!("{:?}", outcome.params) };
    assert!((slope - 2.0).abs() < 0.05 && (offset + 1.0).abs() < 0.05, "{slope} {offset}");
    assert_eq!(outcome.report.accuracy, 1.0);
    let federated = outcome.rounds.iter().filter_map(|round| round.federated);
    let clients: Vec<u32> = federated.map(|FederatedEvaluation { clients, .. }| clients).collect();
    assert_eq!(clients, [4, 4, 4]);
}

const LINES: &[&str] = &[
    "name=lines",
    "data.clients=6",
    "rounds.cohort=4",
    "rounds.count=30",
    "rounds.federated_evaluation_every=10",
    "uplink.density=1",
    "uplink.quantizer=f32",
    "downlink.density=1",
    "downlink.quantizer=f32",
];

fn layout() -> Layout {
    Layout::new(vec![TensorSpec::new("slope", [1]), TensorSpec::new("offset", [1])]).unwrap()
}

struct Lines {
    layout: Layout,
    /// Its trainer does not work.
    failing: Option<ClientId>,
}

impl Workplace for Lines {
    fn model(&self) -> Result<(Layout, Vec<f32>), TrainerError> {
        Ok((self.layout.clone(), vec![0.0; 2]))
    }

    fn examples(&self, client: &ClientId) -> Result<u32, TrainerError> {
        Ok(points(client).len() as u32)
    }

    fn trainer(&self, client: &ClientId) -> Result<Box<dyn Trainer>, TrainerError> {
        if self.failing.as_ref() == Some(client) {
            return Err(TrainerError::Failed("the scale is broken".into()));
        }
        Ok(Box::new(Line { layout: self.layout.clone(), points: points(client) }))
    }
}

/// Each client sees another part of the line, and some see more of it.
fn points(client: &ClientId) -> Vec<(f32, f32)> {
    let number: u8 = client.as_str()[client.as_str().len() - 2..].parse().unwrap();
    let xs = (0..10 + number).map(|i| f32::from(i) / 10.0 - f32::from(number) / 3.0);
    xs.enumerate().map(|(i, x)| (x, 2.0 * x - 1.0 + if i % 2 == 0 { 0.02 } else { -0.02 })).collect()
}

struct Line {
    layout: Layout,
    points: Vec<(f32, f32)>,
}

impl Trainer for Line {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn examples(&self) -> u32 {
        self.points.len() as u32
    }

    fn train(&mut self, _: &Work<'_>, params: &mut Vec<f32>, progress: Progress<'_>) -> Result<f64, TrainerError> {
        let (mut slope, mut offset) = (params[0], params[1]);
        let mut loss = 0.0;
        for step in 0..50 {
            if progress(step, 50).is_break() {
                return Err(TrainerError::Stopped);
            }
            loss = 0.0;
            for &(x, y) in &self.points {
                let error = slope * x + offset - y;
                slope -= 0.05 * error * x;
                offset -= 0.05 * error;
                loss += f64::from(error * error);
            }
        }
        params.copy_from_slice(&[slope, offset]);
        Ok(loss / self.points.len() as f64)
    }

    fn evaluate(&mut self, params: &[f32]) -> Result<Evaluation, TrainerError> {
        let errors = self.points.iter().map(|(x, y)| f64::from((params[0] * x + params[1] - y).abs()));
        let near = errors.clone().filter(|&error| error < 0.1).count();
        Ok(Evaluation { examples: self.points.len() as u64, correct: near as u64, loss_sum: errors.sum() })
    }
}

/// Holds the model against the line itself.
struct Truth;

impl Evaluate for Truth {
    fn evaluate(&mut self, params: &[f32]) -> Result<Evaluation, dunlin::nn::Error> {
        let correct = u64::from((params[0] - 2.0).abs() < 0.1) + u64::from((params[1] + 1.0).abs() < 0.1);
        Ok(Evaluation { examples: 2, correct, loss_sum: 0.0 })
    }
}

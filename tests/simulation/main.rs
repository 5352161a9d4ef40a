//! Whole federations in simulated time, through the library that users call.

mod links;
mod sizes;
mod small;

use dunlin::client::driver::Workplace;
use dunlin::client::trainer::{Progress, Trainer, TrainerError, Work};
use dunlin::core::report::FederatedEvaluation;
use dunlin::core::{ClientId, Layout, Outcome, TensorSpec};
use dunlin::nn::train::Evaluation;
use dunlin::server::evaluate::Evaluate;
use dunlin::server::store::{MemoryStore, Store};
use dunlin::simulation::Transport;
use dunlin::{Recipe, RoundSummary, Simulation, SimulationError, SimulationOutcome};
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
fn a_round_that_does_not_wait_for_all_counts_the_same_ones_whatever_carries_the_calls() {
    let sets = [
        "rounds.count=6",
        "data.clients=12",
        "rounds.cohort=4",
        "rounds.over_selection=2",
        "rounds.federated_evaluation_every=2",
        "limits.client_bytes=20000",
    ];
    let run = |transport| {
        let mut outcome = timeless(Simulation::new(recipe(&sets)).transport(transport).run().unwrap());
        // One that comes when its round is being published counts as refused in the next, or in none.
        outcome.rounds.iter_mut().for_each(|round| round.rejects.clear());
        (outcome.report, outcome.rounds)
    };
    let (report, rounds) = run(Transport::InProcess);
    // Those of the last round come when the run is over.
    assert_eq!(report.rejects["late"], 5 * 4, "{report:?}");
    assert!(rounds.iter().all(|round| (round.chosen, round.clients) == (8, 4)), "{rounds:?}");
    for _ in 0..3 {
        let (real, real_rounds) = run(Transport::Grpc);
        assert_eq!((&real.model_digest, real.bytes), (&report.model_digest, report.bytes));
        let clients = |rounds: &[RoundSummary]| -> Vec<_> {
            rounds.iter().map(|round| (round.bytes, round.train_loss, round.accuracy, round.federated)).collect()
        };
        assert_eq!(clients(&real_rounds), clients(&rounds));
    }
}

#[test]
fn nobody_is_always_among_the_first() {
    let sets = ["rounds.count=40", "data.clients=12", "rounds.cohort=4", "rounds.over_selection=2"];
    let outcome = Simulation::new(recipe(&sets)).run().unwrap();
    // Each is asked in two rounds of three, and counts in half of those.
    assert!(outcome.clients.iter().all(|client| (5..=22).contains(&client.updates)), "{:?}", outcome.clients);
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
    assert_eq!((report.rounds, report.abandoned, report.cut_short), (4, 0, true));
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

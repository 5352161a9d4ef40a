//! Federated evaluations: clients judge the newest version on their own data.

use super::*;

/// Evaluated after every second round.
fn world() -> World {
    let mut recipe = recipe();
    recipe.rounds.federated_evaluation_every = 2;
    let mut world = World::gathered(recipe);
    world.complete_round();
    assert_eq!(world.phase(), PhaseName::Training, "the first round is followed by none");
    world.complete_round();
    world
}

fn report(examples: u64, correct: u64, loss_sum: f64) -> EvaluationReport {
    let round = RoundId { term: 1, number: 2 };
    EvaluationReport { round, version: ModelVersion(2), examples, correct, loss_sum }
}

fn evaluated(clients: u32, examples: u64, accuracy: f64, loss: f64) -> Effect {
    Effect::Evaluated { round: 2, result: FederatedEvaluation { clients, examples, accuracy, loss } }
}

fn deliver(world: &mut World, name: &str, report: &EvaluationReport) -> Result<(), Reject> {
    world.coordinator.evaluated(world.now, &session(name), report)
}

fn evaluation_task(term: u32) -> Assignment {
    let round = RoundId { term, number: 2 };
    Assignment::Evaluate(EvaluationTask { round, version: ModelVersion(2), deadline_ms: DEADLINE_MS })
}

#[test]
fn an_evaluation_sums_over_clients_and_the_next_round_follows_it() {
    let mut world = world();
    assert_eq!((world.phase(), world.status().chosen), (PhaseName::Evaluating, 4));
    for (name, examples, correct) in [("a", 10, 9), ("b", 30, 15), ("c", 40, 36)] {
        assert_eq!(world.check_in(name), evaluation_task(1));
        assert_eq!(deliver(&mut world, name, &report(examples, correct, 5.0)), Ok(()));
        assert_eq!(world.check_in(name), wait(Waiting::Reported, 100));
    }
    assert_eq!(world.settle(), []);
    assert_eq!(deliver(&mut world, "d", &report(20, 20, 1.0)), Ok(()));
    assert_eq!(world.settle(), [evaluated(4, 100, 0.8, 0.16), opened(3, 2, 4, &["a", "b", "c", "d"])]);
}

#[test]
fn an_evaluation_closes_without_silent_clients_or_at_its_deadline() {
    let mut silent = world();
    deliver(&mut silent, "a", &report(10, 5, 1.0)).unwrap();
    silent.pass(IDLE_MS);
    assert_eq!(silent.settle(), [evaluated(1, 10, 0.5, 0.1)]);
    let mut slow = world();
    deliver(&mut slow, "a", &report(10, 5, 1.0)).unwrap();
    for _ in 0..DEADLINE_MS / 5000 {
        assert_eq!(slow.settle(), []);
        slow.check_in("b");
        slow.pass(5000);
    }
    assert_eq!(slow.settle()[0], evaluated(1, 10, 0.5, 0.1));
    assert_eq!(deliver(&mut slow, "b", &report(10, 5, 1.0)), Err(Reject::Late));
}

#[test]
fn an_evaluation_that_nobody_answers_ends_as_well() {
    let mut world = world();
    world.pass(IDLE_MS);
    assert_eq!(world.settle(), [evaluated(0, 0, 0.0, 0.0)]);
}

#[test]
fn reports_that_come_twice_late_or_of_another_version_do_not_count() {
    let mut world = world();
    let right = report(10, 5, 1.0);
    deliver(&mut world, "a", &right).unwrap();
    assert_eq!(deliver(&mut world, "a", &right), Err(Reject::Duplicate));
    let of_round = |number| EvaluationReport { round: RoundId { term: 1, number }, ..right };
    assert_eq!(deliver(&mut world, "b", &of_round(1)), Err(Reject::Late));
    assert_eq!(deliver(&mut world, "b", &of_round(3)), Err(Reject::Late));
    let other_version = EvaluationReport { version: ModelVersion(1), ..right };
    assert_eq!(deliver(&mut world, "c", &other_version), Err(Reject::WrongBase));
    assert_eq!(deliver(&mut world, "b", &right), Ok(()));
    assert_eq!(deliver(&mut world, "d", &right), Ok(()));
    assert_eq!(world.settle()[0], evaluated(3, 30, 0.5, 0.1));
}

#[test]
fn a_client_whose_result_cannot_count_is_not_asked_again() {
    let mut recipe = recipe();
    recipe.rounds.federated_evaluation_every = 1;
    recipe.limits.max_examples = 50;
    let mut world = World::gathered(recipe);
    world.complete_round();
    let round = RoundId { term: 1, number: 1 };
    let most = EvaluationReport { round, version: ModelVersion(1), examples: 50, correct: 50, loss_sum: 0.0 };
    let too_many = EvaluationReport { examples: 51, ..most };
    for name in ["a", "b", "c"] {
        assert_eq!(deliver(&mut world, name, &most), Ok(()));
    }
    assert_eq!(world.settle(), []);
    assert_eq!(deliver(&mut world, "d", &too_many), Err(Reject::TooManyExamples));
    let result = FederatedEvaluation { clients: 3, examples: 150, accuracy: 1.0, loss: 0.0 };
    assert_eq!(world.settle()[0], Effect::Evaluated { round: 1, result });
}

#[test]
fn losses_beyond_measure_stay_finite() {
    let mut world = world();
    for (name, loss_sum) in [("a", f64::MAX), ("b", f64::MAX), ("c", f64::MIN), ("d", f64::MIN)] {
        deliver(&mut world, name, &report(1, 0, loss_sum)).unwrap();
    }
    let effects = world.settle();
    assert!(matches!(effects[0], Effect::Evaluated { result, .. } if result.loss.is_finite()), "{effects:?}");
}

#[test]
fn a_client_that_still_trains_for_the_round_hears_that_it_is_over() {
    let mut world = world();
    assert_eq!(world.progress("a"), Err(Reject::Late));
    let header = UpdateHeader { base: ModelVersion(1), ..world.header("a", "G") };
    assert_eq!(world.send(&header), Err(Reject::Late));
    assert_eq!(world.check_in("a"), evaluation_task(1));
}

#[test]
fn the_last_evaluation_is_awaited_before_the_run_completes() {
    let mut recipe = recipe();
    recipe.rounds.federated_evaluation_every = 3;
    let mut world = World::gathered(recipe);
    for _ in 0..3 {
        world.complete_round();
    }
    assert_eq!((world.phase(), world.coordinator.outcome()), (PhaseName::Evaluating, None));
    world.pass(IDLE_MS);
    assert_eq!(world.settle().last(), Some(&Effect::Record(Record::Finished(Outcome::Completed))));
}

#[test]
fn a_restart_opens_an_evaluation_again_that_was_not_recorded() {
    let mut world = world();
    deliver(&mut world, "a", &report(10, 5, 1.0)).unwrap();
    world.restart();
    assert_eq!(world.settle(), [Effect::Record(Record::Started { term: 2 })]);
    assert_eq!(world.check_in("a"), evaluation_task(2));
    for name in ["a", "b", "c", "d"] {
        assert_eq!(deliver(&mut world, name, &report(10, 5, 1.0)), Ok(()));
    }
    assert_eq!(world.settle(), [evaluated(4, 40, 0.5, 0.1), opened(3, 2, 4, &["a", "b", "c", "d"])]);
    world.restart();
    assert_eq!(world.phase(), PhaseName::Training, "one that was recorded stays done");
}

#[test]
fn a_last_evaluation_that_was_recorded_is_not_asked_for_again() {
    let mut recipe = recipe();
    recipe.rounds.federated_evaluation_every = 3;
    let mut world = World { dies_at_the_end: true, ..World::gathered(recipe) };
    for _ in 0..3 {
        world.complete_round();
    }
    world.pass(IDLE_MS);
    let result = FederatedEvaluation::default();
    assert_eq!(world.settle(), [Effect::Evaluated { round: 3, result }]);
    world.dies_at_the_end = false;
    world.restart();
    let finished = Record::Finished(Outcome::Completed);
    assert_eq!(world.settle(), [Record::Started { term: 2 }, finished].map(Effect::Record));
}

#[test]
fn stopping_drops_an_evaluation() {
    let mut world = world();
    deliver(&mut world, "a", &report(10, 5, 1.0)).unwrap();
    world.coordinator.stop(world.now);
    assert_eq!(world.settle(), [Effect::Record(Record::Finished(Outcome::Stopped))]);
    assert_eq!(deliver(&mut world, "b", &report(10, 5, 1.0)), Err(Reject::Late));
}

//! What a server that starts again goes on with.

use super::*;

fn started(term: u32) -> Effect {
    Effect::Record(Record::Started { term })
}

#[test]
fn the_same_round_goes_on_with_the_updates_that_were_durable() {
    let mut world = World::gathered(recipe());
    let durable = world.header("a", "F");
    world.send(&durable).unwrap();
    let lost = world.header("b", "F");
    assert_eq!(world.offer(&lost), Ok(Offer::Store));
    world.pass(5000);
    world.restart();
    assert_eq!(world.settle(), [started(2)]);
    let status = StatusView {
        term: 2,
        phase: PhaseName::Training,
        round: 1,
        version: ModelVersion(0),
        clients: 4,
        live: 4,
        eligible: 4,
        chosen: 4,
        choice: Some(Choice::AllEligible),
        reported: 1,
        lost: 0,
        max_bytes: 0,
        client_ms: None,
        rejects: vec![],
    };
    assert_eq!(world.status(), status);
    assert_eq!(world.check_in("a"), wait(Waiting::Reported, 500));
    for name in ["b", "c", "d"] {
        assert_eq!(world.check_in(name), task(2, 1, 0, DEADLINE_MS));
    }
    // What was announced in the term before still counts, once.
    assert_eq!(world.send(&durable), Ok(receipt(&durable, true)));
    assert_eq!(world.send(&lost), Ok(receipt(&lost, false)));
    for name in ["c", "d"] {
        let header = world.header(name, "F");
        world.send(&header).unwrap();
    }
    let mut expected = closed(1, (5000, 5000), 4, 0);
    expected.stats.rejects.insert(Reject::Duplicate, 1);
    assert!(world.log.contains(&Effect::Publish(expected)), "{:?}", world.log);
}

#[test]
fn a_round_that_had_all_it_needs_is_published_after_the_restart() {
    let mut world = World::gathered(recipe());
    for name in ["a", "b", "c", "d"] {
        let header = world.header(name, "F");
        world.offer(&header).unwrap();
    }
    world.settle_at_most(4);
    world.restart();
    let published = Effect::Publish(closed(1, (0, 0), 4, 0));
    assert_eq!(world.settle(), [started(2), published, opened(2, 1, 4, &["a", "b", "c", "d"])]);
}

#[test]
fn a_round_that_was_not_recorded_is_opened_again_with_the_same_cohort() {
    let mut recipe = recipe();
    recipe.data.clients = 12;
    let crowd = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let mut world = World::new(recipe);
    for name in crowd {
        world.arrive(name);
    }
    world.settle_at_most(crowd.len());
    let unrecorded = world.coordinator.poll_effect();
    world.restart();
    // Nobody knows who of them is ready.
    assert_eq!(world.settle(), [started(2)]);
    for name in crowd.into_iter().rev() {
        world.check_in(name);
    }
    assert_eq!(world.settle(), [unrecorded.unwrap()]);
}

#[test]
fn receipts_survive_their_round_and_the_restart() {
    let mut world = World::gathered(recipe());
    let (counted, other) = (world.header("a", "F"), world.header("a", "G"));
    world.complete_round();
    world.restart();
    assert_eq!(world.send(&counted), Ok(receipt(&counted, true)));
    assert_eq!(world.send(&other), Err(Reject::Late));
}

#[test]
fn between_rounds_a_restart_opens_the_next() {
    let mut world = World::gathered(recipe());
    world.pass(IDLE_MS);
    world.settle();
    assert_eq!((world.round(), world.phase()), (1, PhaseName::Gathering));
    world.restart();
    assert_eq!(world.settle(), [started(2), opened(2, 0, 4, &["a", "b", "c", "d"])]);
}

#[test]
fn a_finished_run_stays_finished() {
    let mut world = World::gathered(recipe());
    for _ in 0..3 {
        world.complete_round();
    }
    world.restart();
    assert_eq!(world.settle(), [started(2)]);
    let finished = Assignment::Finished { outcome: Outcome::Completed, version: ModelVersion(3) };
    assert_eq!(world.check_in("a"), finished);
}

#[test]
fn a_server_that_dies_at_the_very_end_ends_the_run_when_it_is_back() {
    let world = || World { dies_at_the_end: true, ..World::gathered(recipe()) };
    let mut accurate = World { accurate: true, ..world() };
    accurate.complete_round();
    let mut complete = world();
    for _ in 0..3 {
        complete.complete_round();
    }
    let mut given_up = world();
    for _ in 0..2 {
        given_up.check_in("a");
        given_up.check_in("b");
        given_up.pass(IDLE_MS);
    }
    given_up.settle();
    for (mut world, outcome) in
        [(accurate, Outcome::TargetReached), (complete, Outcome::Completed), (given_up, Outcome::GaveUp)]
    {
        assert_eq!(world.coordinator.outcome(), Some(outcome));
        world.dies_at_the_end = false;
        world.restart();
        assert_eq!(world.settle(), [started(2), Effect::Record(Record::Finished(outcome))]);
    }
}

#[test]
fn clients_are_known_and_count_as_seen_after_a_restart() {
    let mut world = World::gathered(recipe());
    world.pass(IDLE_MS - 1);
    world.restart();
    world.pass(1);
    assert_eq!((world.status().clients, world.status().live), (4, 4));
    assert_eq!(world.coordinator.authenticate(world.now, &session("a")), Ok(()));
    assert_eq!(world.coordinator.join(world.now, &client("b"), token("x")), Err(Reject::WrongSession));
}

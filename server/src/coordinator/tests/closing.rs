//! When a round is over, and what comes after it.

use super::*;

fn report(world: &mut World, names: &[&str]) {
    for name in names {
        let header = world.header(name, "F");
        assert_eq!(world.send(&header), Ok(receipt(&header, false)), "{name}");
    }
}

/// Lets time pass while these clients train.
fn keep_alive(world: &mut World, ms: u64, names: &[&str]) {
    let mut left = ms;
    while left > 0 {
        for name in names {
            world.progress(name).unwrap();
        }
        let step = left.min(IDLE_MS / 2);
        world.pass(step);
        left -= step;
    }
}

#[test]
fn the_next_round_opens_as_soon_as_a_version_is_published() {
    let mut world = World::gathered(recipe());
    world.pass(5000);
    for name in ["d", "a", "c", "b"] {
        let header = world.header(name, "F");
        assert_eq!(world.offer(&header), Ok(Offer::Store));
    }
    let effects = world.settle();
    assert!(effects[..4].iter().all(|effect| matches!(effect, Effect::Record(Record::UpdateAccepted { .. }))));
    let published = Effect::Publish(closed(1, (0, 5000), 4, 0));
    assert_eq!(effects[4..], [published, opened(2, 1, 4, &["a", "b", "c", "d"])]);
    assert_eq!(world.check_in("a"), task(1, 2, 1, DEADLINE_MS));
}

#[test]
fn an_over_selected_round_closes_at_its_cohort_and_the_slow_are_late_but_not_lost() {
    let mut recipe = recipe();
    recipe.rounds.cohort = 2;
    recipe.rounds.over_selection = 2.0;
    let mut world = World::gathered(recipe);
    let slow = world.header("d", "F");
    report(&mut world, &["b", "c"]);
    let mut expected = closed(1, (0, 0), 2, 0);
    expected.stats.needed = 2;
    assert!(world.log.contains(&Effect::Publish(expected)), "{:?}", world.log);
    assert_eq!(world.send(&slow), Err(Reject::Late));
    assert_eq!(world.coordinator.progress(world.now, &session("d"), slow.round, Advance::Bytes), Err(Reject::Late));
}

#[test]
fn a_round_with_a_quorum_publishes_at_its_deadline() {
    let mut world = World::gathered(recipe());
    report(&mut world, &["a", "b"]);
    keep_alive(&mut world, DEADLINE_MS - 1, &["c", "d"]);
    assert_eq!(world.settle(), []);
    world.pass(1);
    assert_eq!(world.settle()[0], Effect::Publish(closed(1, (0, DEADLINE_MS), 2, 2)));
}

#[test]
fn a_round_below_its_quorum_is_abandoned_at_its_deadline_and_another_opens() {
    let mut world = World::gathered(recipe());
    report(&mut world, &["a"]);
    keep_alive(&mut world, DEADLINE_MS, &["b", "c", "d"]);
    let abandoned = Effect::Abandon(closed(1, (0, DEADLINE_MS), 1, 3));
    assert_eq!(world.settle(), [abandoned, opened(2, 0, 3, &["b", "c", "d"])]);
}

#[test]
fn too_many_abandoned_rounds_in_a_row_end_the_run() {
    let mut world = World::gathered(recipe());
    world.pass(IDLE_MS);
    for name in ["a", "b"] {
        world.check_in(name);
    }
    assert_eq!(world.round(), 2);
    world.pass(IDLE_MS);
    assert_eq!(world.settle().last(), Some(&Effect::Record(Record::Finished(Outcome::GaveUp))));
    let finished = Assignment::Finished { outcome: Outcome::GaveUp, version: ModelVersion(0) };
    assert_eq!((world.check_in("a"), world.coordinator.outcome()), (finished, Some(Outcome::GaveUp)));
}

#[test]
fn a_published_round_forgives_the_abandoned_ones_before_it() {
    let mut world = World::gathered(recipe());
    world.pass(IDLE_MS);
    for name in ["a", "b", "c", "d"] {
        world.check_in(name);
    }
    world.settle();
    world.complete_round();
    assert_eq!((world.round(), world.coordinator.version()), (3, ModelVersion(1)));
    world.pass(IDLE_MS);
    // The third round is the last, so it ends the run, but not as given up.
    assert_eq!(world.settle().last(), Some(&Effect::Record(Record::Finished(Outcome::Completed))));
}

#[test]
fn a_member_without_progress_is_lost_and_the_round_closes_without_it() {
    let mut world = World::gathered(recipe());
    report(&mut world, &["a", "b", "c"]);
    world.pass(IDLE_MS - 1);
    assert_eq!((world.settle(), world.status().lost), (vec![], 0));
    world.pass(1);
    assert_eq!(world.settle()[0], Effect::Publish(closed(1, (0, IDLE_MS), 3, 1)));
}

#[test]
fn progress_keeps_a_member() {
    let mut world = World::gathered(recipe());
    report(&mut world, &["a", "b", "c"]);
    keep_alive(&mut world, 5 * IDLE_MS, &["d"]);
    assert_eq!((world.settle(), world.status().lost), (vec![], 0));
}

#[test]
fn a_lost_member_that_comes_back_counts_again() {
    for way in ["progress", "check-in", "update"] {
        let mut world = World::gathered(recipe());
        keep_alive(&mut world, IDLE_MS, &["a"]);
        assert_eq!(world.status().lost, 3);
        match way {
            "progress" => assert_eq!(world.progress("d"), Ok(())),
            "check-in" => assert_eq!(world.check_in("d"), task(1, 1, 0, DEADLINE_MS - IDLE_MS)),
            _ => report(&mut world, &["d"]),
        }
        assert_eq!(world.status().lost, 2, "{way}");
    }
}

#[test]
fn nothing_closes_while_an_update_is_on_its_way_to_the_disk() {
    let mut world = World::gathered(recipe());
    report(&mut world, &["a"]);
    let header = world.header("b", "F");
    assert_eq!(world.offer(&header), Ok(Offer::Store));
    world.pass(DEADLINE_MS);
    assert_eq!(world.phase(), PhaseName::Training);
    assert_eq!(world.settle()[1], Effect::Publish(closed(1, (0, DEADLINE_MS), 2, 2)));
}

#[test]
fn updates_that_become_durable_together_all_count() {
    let mut recipe = recipe();
    recipe.rounds.cohort = 2;
    recipe.rounds.over_selection = 2.0;
    let mut world = World::gathered(recipe);
    for name in ["a", "b", "c"] {
        let header = world.header(name, "F");
        assert_eq!(world.offer(&header), Ok(Offer::Store));
    }
    let mut expected = closed(1, (0, 0), 3, 0);
    expected.stats.needed = 2;
    assert_eq!(world.settle()[3], Effect::Publish(expected));
}

#[test]
fn the_target_ends_the_run() {
    let mut world = World::gathered(recipe());
    world.accurate = true;
    world.complete_round();
    assert_eq!(world.log.last(), Some(&Effect::Record(Record::Finished(Outcome::TargetReached))));
    let finished = Assignment::Finished { outcome: Outcome::TargetReached, version: ModelVersion(1) };
    assert_eq!(world.check_in("a"), finished);
}

#[test]
fn the_last_round_completes_the_run() {
    let mut world = World::gathered(recipe());
    for _ in 0..3 {
        assert_eq!(world.coordinator.outcome(), None);
        world.complete_round();
    }
    assert_eq!(world.log.last(), Some(&Effect::Record(Record::Finished(Outcome::Completed))));
    assert_eq!((world.round(), world.coordinator.version()), (3, ModelVersion(3)));
    let late = world.header("a", "G");
    assert_eq!(world.send(&late), Err(Reject::RunFinished));
    world.pass(DEADLINE_MS);
    assert_eq!((world.settle(), world.coordinator.deadline()), (vec![], None));
}

#[test]
fn stopping_drops_the_open_round_with_all_that_was_accepted_in_it() {
    let mut world = World::gathered(recipe());
    report(&mut world, &["a"]);
    let storing = world.header("b", "F");
    assert_eq!(world.offer(&storing), Ok(Offer::Store));
    world.coordinator.stop(world.now);
    let dropped = Effect::Abandon(ClosedRound { cut_short: true, ..closed(1, (0, 0), 2, 0) });
    assert_eq!(world.settle()[1..], [dropped, Effect::Record(Record::Finished(Outcome::Stopped))]);
    world.coordinator.stop(world.now);
    assert_eq!(world.settle(), [], "a run ends once");
    let finished = Assignment::Finished { outcome: Outcome::Stopped, version: ModelVersion(0) };
    assert_eq!(world.check_in("c"), finished);
}

#[test]
fn stopping_lets_a_version_that_is_being_published_come_out() {
    let mut world = World::gathered(recipe());
    report(&mut world, &["a", "b"]);
    keep_alive(&mut world, DEADLINE_MS, &["c", "d"]);
    assert_eq!(world.phase(), PhaseName::Publishing);
    world.coordinator.stop(world.now);
    let published = Effect::Publish(closed(1, (0, DEADLINE_MS), 2, 2));
    assert_eq!(world.settle(), [published, Effect::Record(Record::Finished(Outcome::Stopped))]);
    let finished = Assignment::Finished { outcome: Outcome::Stopped, version: ModelVersion(1) };
    assert_eq!(world.check_in("c"), finished);
}

#[test]
fn the_last_rounds_tell_what_their_clients_took_from_task_to_update() {
    let mut recipe = recipe();
    recipe.rounds.count = 20;
    let mut world = World::gathered(recipe);
    for name in ["a", "b", "c", "d"] {
        assert_eq!(world.check_in(name), task(1, 1, 0, DEADLINE_MS));
    }
    for name in ["a", "b"] {
        world.pass(1000);
        let header = world.header(name, "F");
        assert_eq!(world.send(&header), Ok(receipt(&header, false)));
    }
    // The link of c breaks, and it announces its update once more later.
    world.pass(1000);
    let header = world.header("c", "F");
    assert_eq!(world.coordinator.announce(world.now, &session("c"), &header), Ok(None));
    world.pass(1000);
    assert_eq!(world.offer(&world.header("d", "F")), Ok(Offer::Store));
    world.settle();
    world.pass(1000);
    assert_eq!(world.offer(&header), Ok(Offer::Store));
    assert_eq!(world.status().client_ms, None, "the round is not over");
    world.settle();
    assert_eq!((world.round(), world.status().client_ms), (2, Some(3000)));
    // One odd round among the last few does not count, and none before them.
    for (ms, median) in [(10, 3000), (11, 11), (12, 12), (13, 12), (14, 12), (15, 13)] {
        for name in ["a", "b", "c", "d"] {
            world.check_in(name);
        }
        world.pass(ms);
        world.complete_round();
        assert_eq!(world.status().client_ms, Some(median), "after a round of {ms} ms");
    }
    world.restart();
    assert_eq!(world.status().client_ms, None);
}

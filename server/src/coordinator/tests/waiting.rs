//! How long who waits, and when the coordinator wants to be woken.

use super::*;

#[test]
fn a_waiting_client_hears_why() {
    let mut world = World::new(recipe());
    assert_eq!(world.arrive("a"), wait(Waiting::NotEnoughClients, 500));
    for name in ["b", "c", "d"] {
        world.arrive(name);
    }
    for name in ["a", "b", "c", "d"] {
        let header = world.header(name, "F");
        world.offer(&header).unwrap();
        assert_eq!(world.check_in(name), wait(Waiting::Reported, 500));
    }
    // Everything is carried out up to the publication.
    while let Some(effect) = world.coordinator.poll_effect() {
        match effect {
            Effect::Publish(_) => break,
            effect => world.carry_out(&effect),
        }
    }
    assert_eq!(world.check_in("a"), wait(Waiting::Publishing, 500));
}

#[test]
fn waiting_clients_are_paced_by_the_last_round_and_come_back_before_they_count_as_gone() {
    for (round_ms, retry_ms) in [(0, 100), (1000, 500), (8000, 4000), (9999, 4999)] {
        let mut world = World::gathered(recipe());
        world.pass(round_ms);
        world.complete_round();
        let header = world.header("a", "G");
        world.send(&header).unwrap();
        assert_eq!(world.check_in("a"), wait(Waiting::Reported, retry_ms), "after a round of {round_ms} ms");
    }
    let mut recipe = recipe();
    recipe.rounds.deadline_s = 600.0;
    for (idle_s, retry_ms) in [(300.0, 30_000), (40.0, 20_000), (0.1, 100)] {
        recipe.rounds.idle_timeout_s = idle_s;
        let mut world = World::gathered(recipe.clone());
        world.coordinator.pace_ms = 400_000;
        let header = world.header("a", "F");
        world.send(&header).unwrap();
        assert_eq!(world.check_in("a"), wait(Waiting::Reported, retry_ms), "{idle_s} s idle");
    }
}

#[test]
fn nobody_waits_past_the_deadline() {
    let mut world = World::gathered(recipe());
    let header = world.header("a", "F");
    world.send(&header).unwrap();
    for _ in 0..DEADLINE_MS / 5000 - 1 {
        for name in ["b", "c", "d"] {
            world.progress(name).unwrap();
        }
        world.pass(5000);
    }
    world.progress("b").unwrap();
    world.pass(4700);
    assert_eq!(world.check_in("a"), wait(Waiting::Reported, 300));
    assert_eq!(world.check_in("b"), task(1, 1, 0, 300));
}

#[test]
fn the_deadline_is_the_earliest_time_at_which_something_happens_by_itself() {
    let mut world = World::new(recipe());
    assert_eq!(world.coordinator.deadline(), None);
    for name in ["a", "b", "c", "d"] {
        world.arrive(name);
    }
    assert_eq!(world.coordinator.deadline(), Some(Timestamp(IDLE_MS)));
    world.pass(3000);
    for name in ["a", "b", "c"] {
        world.progress(name).unwrap();
    }
    assert_eq!(world.coordinator.deadline(), Some(Timestamp(IDLE_MS)));
    world.progress("d").unwrap();
    assert_eq!(world.coordinator.deadline(), Some(Timestamp(3000 + IDLE_MS)));
    world.now = Timestamp(DEADLINE_MS - 1);
    for name in ["a", "b", "c", "d"] {
        world.progress(name).unwrap();
    }
    assert_eq!(world.coordinator.deadline(), Some(Timestamp(DEADLINE_MS)));
    world.coordinator.stop(world.now);
    assert_eq!(world.coordinator.deadline(), None);
}

#[test]
fn ticking_at_the_deadline_always_leads_on() {
    let mut recipe = recipe();
    recipe.rounds.federated_evaluation_every = 1;
    recipe.rounds.max_abandoned = 100;
    let mut world = World::gathered(recipe);
    let mut ticks = 0;
    while let Some(deadline) = world.coordinator.deadline() {
        assert!(deadline > world.now, "a tick at {:?} asks for another at {deadline:?}", world.now);
        world.now = deadline;
        world.coordinator.tick(world.now);
        world.settle();
        ticks += 1;
    }
    assert_eq!((ticks, world.phase()), (1, PhaseName::Gathering));
}

#[test]
fn the_generation_changes_whenever_a_waiting_client_may_get_another_answer() {
    let mut recipe = recipe();
    recipe.rounds.count = 2;
    recipe.rounds.federated_evaluation_every = 1;
    let mut world = World::new(recipe);
    let mut last = world.coordinator.generation();
    let mut changed = move |world: &World| {
        let generation = world.coordinator.generation();
        std::mem::replace(&mut last, generation) != generation
    };
    for (name, opens) in [("a", false), ("b", false), ("c", false), ("d", true)] {
        world.arrive(name);
        assert_eq!(changed(&world), opens, "{name}");
    }
    world.settle();
    for name in ["a", "b", "c", "d"] {
        let header = world.header(name, "F");
        world.offer(&header).unwrap();
    }
    assert!(!changed(&world));
    let mut changes = Vec::new();
    while let Some(effect) = world.coordinator.poll_effect() {
        world.carry_out(&effect);
        changes.push(changed(&world));
    }
    // Three updates, the last update, which closes the round, and the publication, which opens an evaluation.
    assert_eq!(changes, [false, false, false, true, true]);
    world.pass(DEADLINE_MS);
    assert!(changed(&world), "the evaluation closed");
    world.coordinator.stop(world.now);
    assert!(changed(&world), "stopped");
    world.pass(DEADLINE_MS);
    assert!(!changed(&world));
}

#[test]
fn a_client_is_alive_while_its_steps_advance_and_not_while_it_only_says_so() {
    let mut world = World::gathered(recipe());
    let round = RoundId { term: 1, number: 1 };
    let say = |world: &mut World, name: &str, steps| {
        world.coordinator.progress(world.now, &session(name), round, Advance::Steps(steps)).unwrap();
    };
    // "a" makes steps, "b" hangs after its third, "c" was started again and counts anew.
    for (time, of_c) in [(0, 7), (1, 8), (2, 1)] {
        say(&mut world, "a", time);
        say(&mut world, "b", 3);
        say(&mut world, "c", of_c);
        world.pass(IDLE_MS / 2);
    }
    let member = |name: &str| world.coordinator.member(&client(name)).cloned();
    assert!(matches!(member("a"), Some(Member::Asked { .. })));
    assert_eq!(member("b"), Some(Member::Lost));
    assert!(matches!(member("c"), Some(Member::Asked { .. })));
    // What hung for long may still come to something.
    say(&mut world, "b", 4);
    assert!(matches!(world.coordinator.member(&client("b")), Some(Member::Asked { .. })));
}

//! What clients are told about the rounds to come, for a budget of bytes, and members that have none left.

use super::*;

fn crowd(clients: u32) -> Recipe {
    let mut recipe = recipe();
    recipe.data.clients = clients;
    recipe.rounds.cohort = 3;
    recipe.rounds.count = 12;
    recipe.limits.client_bytes = 10_000;
    recipe
}

fn name(index: u32) -> String {
    format!("c{index:02}")
}

fn gathered(recipe: Recipe) -> World {
    let clients = recipe.data.clients;
    let mut world = World::new(recipe);
    for index in 0..clients {
        world.arrive(&name(index));
    }
    world.settle();
    world
}

fn asks(world: &mut World, name: &str) -> u32 {
    match world.check_in(name) {
        Assignment::Train(task) => task.asks,
        other => panic!("{name} is told {other:?}"),
    }
}

#[test]
fn members_are_told_how_often_they_will_be_drawn_and_a_restart_tells_the_same() {
    let mut world = gathered(crowd(10));
    let mut told: Vec<(u64, String, u32)> = Vec::new();
    for round in 1..=12 {
        assert_eq!(world.round(), round);
        let cohort = world.cohort();
        let asked: Vec<u32> = cohort.iter().map(|member| asks(&mut world, member)).collect();
        if round % 4 == 0 {
            world.restart();
            assert_eq!(cohort.iter().map(|member| asks(&mut world, member)).collect::<Vec<_>>(), asked);
            world.settle();
        }
        told.extend(cohort.into_iter().zip(asked).map(|(member, asks)| (round, member, asks)));
        world.complete_round();
    }
    for (round, member, asks) in &told {
        let drawn = told.iter().filter(|(later, who, _)| later >= round && who == member).count();
        assert_eq!(*asks as usize, drawn, "{member} in round {round}");
    }
}

#[test]
fn nothing_is_foretold_while_somebody_is_away_or_nobody_has_a_budget() {
    let mut without = crowd(10);
    without.limits.client_bytes = 0;
    let mut world = gathered(without);
    let member = world.cohort()[0].clone();
    assert_eq!(asks(&mut world, &member), 0);

    let mut world = gathered(crowd(10));
    // One more has joined and is loading its data.
    world.join("late");
    world.complete_round();
    let member = world.cohort()[0].clone();
    assert_eq!(asks(&mut world, &member), 0);
}

#[test]
fn a_member_that_declines_is_not_waited_for_nor_asked_again_in_the_round() {
    let mut world = gathered(crowd(10));
    let cohort = world.cohort();
    let declines = |world: &mut World, member: &str, round: u64, examples: u32| {
        let declining = CheckIn { examples, wait_ms: 30_000, declines: Some(round), ..check_in_of(member) };
        world.coordinator.check_in(world.now, &declining).unwrap()
    };
    let first = &cohort[0];
    // What it says of another round is of no account.
    assert!(matches!(declines(&mut world, first, 2, EXAMPLES), Assignment::Train(_)));
    assert!(matches!(declines(&mut world, first, 1, EXAMPLES), Assignment::Wait { reason: Waiting::Reported, .. }));
    assert!(matches!(world.check_in(first), Assignment::Wait { reason: Waiting::Reported, .. }));
    assert_eq!((world.coordinator.member(&client(first)), world.status().lost), (Some(&Member::Declined), 1));
    assert_eq!(world.progress(first), Ok(()));
    for member in &cohort[1..] {
        let header = world.header(member, "F");
        assert_eq!(world.offer(&header), Ok(Offer::Store));
    }
    world.settle();
    assert_eq!(world.round(), 2, "two of three are a quorum, and nobody else is to come");
    // Who offers nothing for good is not drawn.
    let second = world.cohort()[0].clone();
    declines(&mut world, &second, 2, 0);
    for _ in 2..12 {
        for member in world.cohort().into_iter().filter(|member| *member != second) {
            let header = world.header(&member, "F");
            assert_eq!(world.offer(&header), Ok(Offer::Store));
        }
        world.settle();
        assert!(!world.cohort().contains(&second));
    }
}

#[test]
fn a_run_gives_up_when_too_few_clients_have_anything_left_to_offer() {
    let mut world = gathered(crowd(4));
    world.complete_round();
    assert_eq!(world.round(), 2);
    let cohort = world.cohort();
    let spent = |world: &mut World, member: usize| {
        let round = world.round();
        let check_in = CheckIn { examples: 0, declines: Some(round), ..check_in_of(&cohort[member]) };
        world.coordinator.check_in(world.now, &check_in).unwrap();
        world.settle();
    };
    spent(&mut world, 0);
    spent(&mut world, 1);
    assert_eq!(world.coordinator.outcome(), None, "two are left, and a round may do with two");
    spent(&mut world, 2);
    // The open round has ended without an update, and for another one there is nobody.
    assert_eq!(world.coordinator.outcome(), Some(Outcome::GaveUp));
}

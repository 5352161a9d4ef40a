//! Who is chosen.

use super::*;

fn crowd(clients: u32, cohort: u32, seed: u64) -> Recipe {
    let mut recipe = Recipe { seed, ..recipe() };
    recipe.data.clients = clients;
    recipe.rounds.cohort = cohort;
    recipe
}

fn name(index: u32) -> String {
    format!("{}{index:02}", char::from(b'a' + index as u8))
}

fn first_cohort(recipe: &Recipe, arrivals: impl Iterator<Item = u32>) -> Vec<String> {
    let mut world = World::new(recipe.clone());
    for index in arrivals {
        world.arrive(&name(index));
    }
    world.settle();
    world.cohort()
}

#[test]
fn a_cohort_follows_from_the_seed_and_not_from_the_order_of_check_ins() {
    let cohort = first_cohort(&crowd(20, 5, 1), 0..20);
    assert_eq!((cohort.len(), cohort.is_sorted()), (5, true));
    assert_eq!(first_cohort(&crowd(20, 5, 1), 0..20), cohort);
    assert_eq!(first_cohort(&crowd(20, 5, 1), (0..20).rev()), cohort);
    assert_ne!(first_cohort(&crowd(20, 5, 2), 0..20), cohort);
}

#[test]
fn every_client_is_as_likely_as_any_other() {
    let mut chosen = BTreeMap::new();
    for seed in 0..300 {
        for member in first_cohort(&crowd(10, 3, seed), 0..10) {
            *chosen.entry(member).or_insert(0) += 1;
        }
    }
    // 90 expected, with a standard deviation of 8.
    assert_eq!(chosen.len(), 10);
    assert!(chosen.values().all(|count| (65..=115).contains(count)), "{chosen:?}");
}

#[test]
fn every_round_chooses_anew() {
    let mut world = World::new(crowd(20, 5, 1));
    for index in 0..20 {
        world.arrive(&name(index));
    }
    world.settle();
    let first = world.cohort();
    world.complete_round();
    assert_eq!(world.round(), 2);
    assert_ne!(world.cohort(), first);
}

#[test]
fn nobody_is_chosen_before_enough_clients_are_ready() {
    let mut recipe = recipe();
    recipe.rounds.cohort = 2;
    recipe.rounds.min_clients = 3;
    let mut world = World::new(recipe);
    for name in ["a", "b"] {
        assert_eq!(world.arrive(name), wait(Waiting::NotEnoughClients, 500));
    }
    assert_eq!((world.phase(), world.status().clients), (PhaseName::Gathering, 2));
    world.settle();
    world.arrive("c");
    let effects = world.settle();
    assert_eq!(effects[0], Effect::Record(Record::Joined { client: client("c"), token: token("c"), width: None }));
    assert!(
        matches!(&effects[1..], [Effect::Record(Record::RoundOpened { eligible: 3, members, .. })] if members.len() == 2)
    );
}

#[test]
fn a_client_that_joined_but_has_not_checked_in_is_not_chosen() {
    let mut recipe = recipe();
    recipe.rounds.cohort = 2;
    recipe.rounds.min_clients = 2;
    let mut world = World::new(recipe);
    world.join("a");
    world.join("b");
    world.join("c");
    world.check_in("c");
    world.settle();
    assert_eq!(world.phase(), PhaseName::Gathering);
    assert_eq!(world.check_in("b"), task(1, 1, 0, DEADLINE_MS));
    assert_eq!(world.settle(), [opened(1, 0, 2, &["b", "c"])]);
}

#[test]
fn a_client_without_examples_is_not_chosen() {
    let mut world = World::new(recipe());
    for name in ["a", "b", "c"] {
        world.arrive(name);
    }
    world.join("d");
    let empty = CheckIn { examples: 0, ..check_in_of("d") };
    assert_eq!(world.coordinator.check_in(world.now, &empty), Ok(wait(Waiting::NotEnoughClients, 500)));
    assert_eq!(world.check_in("d"), task(1, 1, 0, DEADLINE_MS));
}

#[test]
fn over_selection_asks_more_clients_than_it_waits_for() {
    let mut recipe = crowd(8, 4, 1);
    recipe.rounds.over_selection = 1.3;
    assert_eq!(first_cohort(&recipe, 0..8).len(), 6);
}

#[test]
fn a_round_tells_why_its_members_were_chosen_also_after_a_restart() {
    for (clients, choice) in [(6, Choice::AllEligible), (7, Choice::Random)] {
        let mut recipe = crowd(clients, 4, 1);
        recipe.rounds.over_selection = 1.5;
        let mut world = World::new(recipe);
        for index in 0..clients {
            world.arrive(&name(index));
        }
        world.settle();
        let told = |status: StatusView| (status.eligible, status.chosen, status.choice);
        assert_eq!(told(world.status()), (clients, 6, Some(choice)));
        world.restart();
        assert_eq!(told(world.status()), (clients, 6, Some(choice)));
        world.settle();
        world.complete_round();
        let closed = world.log.iter().find_map(|effect| match effect {
            Effect::Publish(closed) => Some(&closed.stats),
            _ => None,
        });
        let stats = closed.unwrap();
        assert_eq!((stats.eligible, stats.chosen, stats.choice, stats.needed), (clients, 6, choice, 4));
    }
}

#[test]
fn a_silent_client_is_not_chosen_again_but_one_whose_check_in_is_held_is() {
    let mut world = World::gathered(recipe());
    for name in ["a", "b"] {
        let header = world.header(name, "F");
        world.send(&header).unwrap();
    }
    let held = CheckIn { wait_ms: 30_000, ..check_in_of("a") };
    assert_eq!(world.coordinator.check_in(world.now, &held), Ok(wait(Waiting::Reported, 500)));
    world.pass(IDLE_MS - 1);
    assert_eq!(world.progress("d"), Ok(()));
    world.pass(1);
    assert_eq!(world.settle(), []);
    world.pass(IDLE_MS - 1);
    let summary = closed(1, (0, 19_999), 2, 2);
    assert_eq!(world.settle(), [Effect::Publish(summary)]);
    // Only `a` is left, and a round needs two.
    assert_eq!((world.phase(), world.status().live), (PhaseName::Gathering, 1));
    assert_eq!(world.check_in("c"), task(1, 2, 1, DEADLINE_MS));
    assert_eq!(world.settle(), [opened(2, 1, 2, &["a", "c"])]);
}

#[test]
fn a_cohort_that_went_silent_is_not_asked_again() {
    let mut world = World::gathered(recipe());
    world.pass(IDLE_MS);
    assert_eq!(world.settle(), [Effect::Abandon(closed(1, (0, IDLE_MS), 0, 4))]);
    assert_eq!((world.phase(), world.coordinator.deadline()), (PhaseName::Gathering, None));
}

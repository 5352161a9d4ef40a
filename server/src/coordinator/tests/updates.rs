//! Which updates count, and what the others hear.

use super::*;

#[test]
fn the_same_update_again_gets_the_same_receipt() {
    let mut world = World::gathered(recipe());
    let first = world.header("a", "F");
    assert_eq!(world.send(&first), Ok(receipt(&first, false)));
    let again = Ok(Some(receipt(&first, true)));
    assert_eq!(world.coordinator.announce(world.now, &session("a"), &first), again);
    assert_eq!(world.offer(&first), Ok(Offer::Accepted(receipt(&first, true))));
    assert_eq!((world.settle(), world.status().reported), (vec![], 1));
}

#[test]
fn another_update_of_the_same_client_is_a_duplicate() {
    let mut world = World::gathered(recipe());
    let first = world.header("a", "F");
    world.send(&first).unwrap();
    let other = world.header("a", "G");
    assert_eq!(world.coordinator.announce(world.now, &session("a"), &other), Err(Reject::Duplicate));
    assert_eq!(world.send(&other), Err(Reject::Duplicate));
    assert_eq!(world.progress("a"), Err(Reject::Duplicate), "nothing is left to train for");
    assert_eq!(world.status().reported, 1);
}

#[test]
fn an_update_has_no_receipt_before_it_is_durable() {
    let mut world = World::gathered(recipe());
    let first = world.header("a", "F");
    assert_eq!(world.offer(&first), Ok(Offer::Store));
    assert_eq!(world.offer(&first), Err(Reject::Duplicate));
    assert_eq!(world.status().reported, 0);
    assert!(
        matches!(world.settle().as_slice(), [Effect::Record(Record::UpdateAccepted { header, .. })] if *header == first)
    );
    assert_eq!(world.offer(&first), Ok(Offer::Accepted(receipt(&first, true))));
}

#[test]
fn after_its_round_an_update_that_counted_gets_its_receipt_and_any_other_is_late() {
    let mut world = World::gathered(recipe());
    let (counted, other) = (world.header("a", "F"), world.header("a", "G"));
    world.complete_round();
    assert_eq!(world.round(), 2);
    assert_eq!(world.send(&counted), Ok(receipt(&counted, true)));
    assert_eq!(world.send(&other), Err(Reject::Late));
}

#[test]
fn after_an_abandoned_round_its_updates_are_late() {
    let mut world = World::gathered(recipe());
    let dropped = world.header("a", "F");
    world.send(&dropped).unwrap();
    world.pass(IDLE_MS);
    assert!(matches!(world.settle().as_slice(), [Effect::Abandon(_)]));
    assert_eq!(world.send(&dropped), Err(Reject::Late));
    world.restart();
    assert_eq!(world.send(&dropped), Err(Reject::Late), "a restart changes nothing");
}

#[test]
fn each_fault_of_an_update_has_its_own_reason_and_none_is_recorded() {
    let mut world = World::gathered(recipe());
    world.complete_round();
    let right = world.header("a", "G");
    let round = |number| RoundId { term: 1, number };
    for (header, reject) in [
        (UpdateHeader { base: ModelVersion(0), ..right.clone() }, Reject::WrongBase),
        (UpdateHeader { base: ModelVersion(2), ..right.clone() }, Reject::WrongBase),
        (UpdateHeader { round: round(1), ..right.clone() }, Reject::Late),
        (UpdateHeader { round: round(3), ..right.clone() }, Reject::FutureRound),
        (UpdateHeader { frame_len: MAX_FRAME_BYTES + 1, ..right.clone() }, Reject::FrameTooLarge),
        (UpdateHeader { examples: EXAMPLES + 1, ..right.clone() }, Reject::TooManyExamples),
    ] {
        assert_eq!(world.coordinator.announce(world.now, &session("a"), &header), Err(reject));
        assert_eq!(world.offer(&header), Err(reject));
    }
    assert_eq!((world.settle(), world.status().reported), (vec![], 0));
    let most = UpdateHeader { frame_len: MAX_FRAME_BYTES, examples: EXAMPLES, ..right };
    assert_eq!(world.send(&most), Ok(receipt(&most, false)));
}

#[test]
fn no_update_stands_for_more_examples_than_the_recipe_allows() {
    let mut recipe = recipe();
    recipe.limits.max_examples = 50;
    let mut world = World::gathered(recipe);
    let claim = |world: &World, examples| UpdateHeader { examples, ..world.header("a", "F") };
    let (too_many, most) = (claim(&world, 51), claim(&world, 50));
    assert_eq!(world.send(&too_many), Err(Reject::TooManyExamples));
    assert_eq!(world.send(&most), Ok(receipt(&most, false)));
}

#[test]
fn a_client_that_was_not_chosen_has_no_update_to_give() {
    let mut recipe = recipe();
    recipe.rounds.cohort = 3;
    let mut world = World::gathered(recipe);
    let outsider = ["a", "b", "c", "d"].into_iter().find(|&name| !world.cohort().contains(&name.into())).unwrap();
    let header = world.header(outsider, "F");
    assert_eq!(world.send(&header), Err(Reject::NotInCohort));
    assert_eq!(world.progress(outsider), Err(Reject::NotInCohort));
    assert_eq!(world.check_in(outsider), wait(Waiting::NotChosen, 500));
}

#[test]
fn strangers_hear_why_they_are_not_known() {
    let mut world = World::gathered(recipe());
    let (now, header) = (world.now, world.header("a", "F"));
    let elsewhere = Session { run: RunId([1; 8]), ..session("a") };
    for (stranger, reject) in [
        (elsewhere, Reject::UnknownRun),
        (session("x"), Reject::UnknownClient),
        (Session { token: token("x"), ..session("a") }, Reject::WrongSession),
    ] {
        let check_in = CheckIn { session: stranger.clone(), examples: 1, ..check_in_of("a") };
        let report =
            EvaluationReport { round: header.round, version: header.base, examples: 1, correct: 1, loss_sum: 0.0 };
        assert_eq!(world.coordinator.check_in(now, &check_in), Err(reject));
        assert_eq!(world.coordinator.progress(now, &stranger, header.round, Advance::Bytes), Err(reject));
        assert_eq!(world.coordinator.announce(now, &stranger, &header), Err(reject));
        assert_eq!(world.coordinator.offer(now, &stranger, &header, Bytes::new()), Err(reject));
        assert_eq!(world.coordinator.evaluated(now, &stranger, &report), Err(reject));
    }
    let rejects = vec![
        (Reject::UnknownRun, None, 5),
        (Reject::UnknownClient, None, 5),
        (Reject::WrongSession, Some(client("a")), 5),
    ];
    assert_eq!(world.status().rejects, rejects);
}

#[test]
fn an_imposter_does_not_end_the_part_of_the_client_whose_name_it_uses() {
    let mut world = World::gathered(recipe());
    let (now, header) = (world.now, world.header("a", "F"));
    let imposter = Session { token: token("x"), ..session("a") };
    world.coordinator.refused(now, &imposter, Some(header.round), Reject::Corrupt);
    assert_eq!(world.status().rejects, [(Reject::WrongSession, Some(client("a")), 1)]);
    assert_eq!(world.check_in("a"), task(1, 1, 0, DEADLINE_MS));
    world.coordinator.refused(now, &session("a"), Some(header.round), Reject::Corrupt);
    assert_eq!(world.check_in("a"), wait(Waiting::Reported, 500));
    assert_eq!(world.progress("a"), Err(Reject::Corrupt));
}

#[test]
fn every_refusal_is_counted_by_its_reason_and_for_its_client() {
    let mut recipe = recipe();
    recipe.rounds.cohort = 3;
    let mut world = World::gathered(recipe);
    let (now, header) = (world.now, world.header("a", "F"));
    let outsider = ["a", "b", "c", "d"].into_iter().find(|&name| !world.cohort().contains(&name.into())).unwrap();
    let member = ["a", "b", "c", "d"].into_iter().find(|&name| name != outsider).unwrap();
    assert_eq!(world.progress(outsider), Err(Reject::NotInCohort));
    let later = RoundId { number: 2, ..header.round };
    assert_eq!(world.coordinator.progress(now, &session(member), later, Advance::Bytes), Err(Reject::FutureRound));
    // A call that is about no update ends nobody's part.
    for reject in [Reject::UnknownVersion, Reject::Malformed, Reject::WrongOffset] {
        world.coordinator.refused(now, &session(member), None, reject);
        world.coordinator.refused(now, &session("x"), None, reject);
    }
    let of = |name: &str| Some(client(name));
    let rejects = vec![
        (Reject::Malformed, of(member), 1),
        (Reject::UnknownClient, None, 3),
        (Reject::NotInCohort, of(outsider), 1),
        (Reject::FutureRound, of(member), 1),
        (Reject::WrongOffset, of(member), 1),
        (Reject::UnknownVersion, of(member), 1),
    ];
    assert_eq!(world.status().rejects, rejects);
    assert_eq!(world.check_in(member), task(1, 1, 0, DEADLINE_MS));
}

#[test]
fn an_imposter_does_not_keep_a_silent_client_alive() {
    let mut world = World::gathered(recipe());
    world.pass(IDLE_MS - 1);
    let imposter = Session { token: token("x"), ..session("a") };
    assert_eq!(world.coordinator.authenticate(world.now, &imposter), Err(Reject::WrongSession));
    world.pass(1);
    assert_eq!(world.status().live, 0);
}

#[test]
fn a_round_does_not_wait_for_members_whose_updates_cannot_count() {
    let mut world = World::gathered(recipe());
    for name in ["a", "b"] {
        let header = world.header(name, "F");
        world.send(&header).unwrap();
    }
    let wrong = UpdateHeader { base: ModelVersion(9), ..world.header("c", "F") };
    assert_eq!(world.send(&wrong), Err(Reject::WrongBase));
    assert_eq!(world.settle(), []);
    world.coordinator.refused(world.now, &session("d"), Some(wrong.round), Reject::NotANumber);
    let rejects = BTreeMap::from([(Reject::WrongBase, 1), (Reject::NotANumber, 1)]);
    let mut expected = closed(1, (0, 0), 2, 0);
    expected.stats.rejects = rejects;
    assert_eq!(world.settle()[0], Effect::Publish(expected));
}

#[test]
fn a_mangled_upload_may_be_sent_again() {
    let mut world = World::gathered(recipe());
    let header = world.header("a", "F");
    for mistake in [Reject::WrongDigest, Reject::WrongOffset, Reject::Corrupt] {
        world.coordinator.refused(world.now, &session("a"), Some(header.round), mistake);
    }
    assert_eq!(world.send(&header), Ok(receipt(&header, false)));
}

#[test]
fn a_name_belongs_to_its_session_until_that_is_silent_for_long() {
    let mut world = World::gathered(recipe());
    world.settle();
    world.pass(IDLE_MS - 1);
    let thief = token("x");
    assert_eq!(world.coordinator.join(world.now, &client("a"), thief), Err(Reject::WrongSession));
    assert_eq!(world.coordinator.join(world.now, &client("b"), token("b")), Ok(()), "its own holder may always join");
    world.pass(1);
    world.settle();
    assert_eq!(world.coordinator.join(world.now, &client("a"), thief), Ok(()));
    assert_eq!(world.coordinator.join(world.now, &client("b"), thief), Err(Reject::WrongSession));
    assert_eq!(world.settle(), [Effect::Record(Record::Joined { client: client("a"), token: thief, width: None })]);
    assert_eq!(world.coordinator.authenticate(world.now, &session("a")), Err(Reject::WrongSession));
    // It has not checked in, so the two who are alive are one too few.
    world.check_in("b");
    assert_eq!((world.phase(), world.status().live), (PhaseName::Gathering, 2));
    world.restart();
    let heir = Session { token: thief, ..session("a") };
    assert_eq!(world.coordinator.authenticate(world.now, &heir), Ok(()), "a restart keeps the new holder");
}

#[test]
fn a_held_check_in_keeps_a_name() {
    let mut world = World::new(recipe());
    world.join("a");
    let held = CheckIn { examples: 1, wait_ms: 30_000, ..check_in_of("a") };
    world.coordinator.check_in(world.now, &held).unwrap();
    world.pass(29_999);
    assert_eq!(world.coordinator.join(world.now, &client("a"), token("x")), Err(Reject::WrongSession));
    world.pass(1);
    assert_eq!(world.coordinator.join(world.now, &client("a"), token("x")), Ok(()));
}

#[test]
fn the_registry_has_a_bound_and_strangers_cannot_grow_the_table_of_refusals() {
    let mut recipe = recipe();
    recipe.limits.max_clients = 4;
    let mut world = World::gathered(recipe);
    for stranger in 0..50u8 {
        let name = client(&format!("stranger-{stranger}"));
        let token = Token([stranger; 16]);
        assert_eq!(world.coordinator.join(world.now, &name, token), Err(Reject::TooManyClients));
        let stranger = Session { run: RUN, client: name, token };
        assert_eq!(world.coordinator.authenticate(world.now, &stranger), Err(Reject::UnknownClient));
        world.coordinator.refused_anonymous(Reject::ProtocolTooOld);
    }
    let rejects = [Reject::ProtocolTooOld, Reject::UnknownClient, Reject::TooManyClients];
    assert_eq!(world.status().rejects, rejects.map(|reject| (reject, None, 50)));
    assert_eq!((world.status().clients, world.settle()), (4, vec![]));
}

#[test]
fn a_round_s_updates_have_a_bound_that_outlives_a_restart_and_longer_ones_are_refused() {
    let mut recipe = recipe();
    // Twelve updates are to come: 100 bytes each.
    recipe.limits.run_bytes = 1200;
    let mut world = World::gathered(recipe);
    let bound = |world: &mut World, name: &str| match world.check_in(name) {
        Assignment::Train(task) => task.max_bytes,
        other => panic!("{name} is told {other:?}"),
    };
    assert_eq!(bound(&mut world, "a"), 100);
    let header = UpdateHeader { frame_len: 100, ..world.header("a", "frame a") };
    assert_eq!(world.offer(&header), Ok(Offer::Store));
    world.settle();
    // What the open round has received does not change what the others may send in it.
    world.restart();
    for name in ["b", "c"] {
        world.join(name);
        assert_eq!(bound(&mut world, name), 100);
    }
    let long = UpdateHeader { frame_len: 101, ..world.header("b", "frame b") };
    let long = UpdateHeader { round: RoundId { term: 2, ..long.round }, ..long };
    assert_eq!(world.offer(&long), Err(Reject::FrameTooLarge));
}

//! Federations under faults: the server's engine and the clients' participants, on a network that drops, delays and
//! repeats, with crashes on both sides and a client that lies.
//!
//! A case is a seed and a list of operations, and nothing else: it can be printed, shrunk and pasted as a test. Client i
//! always sends the unit vector eᵢ, so each published model shows who was counted, and how often. What must hold at every
//! step is in `ledger.rs`, told from the records that the store is given; what must hold of the answers is in `world.rs`.

mod attack;
mod case;
mod ledger;
mod world;

use attack::Attack;
use case::{Case, Faults, Op};
use dunlin::core::{Digest, Outcome, Reject};
use dunlin::server::coordinator::Member;
use std::collections::BTreeSet;
use world::{Setting, World};

/// Federations simulated; in release builds they are enough for ten thousand rounds.
const CASES: u64 = if cfg!(debug_assertions) { 300 } else { 1000 };

#[test]
fn a_federation_keeps_its_promises_under_every_fault_and_ends_once_they_stop() {
    let (mut rounds, mut resumed, mut advanced) = (0, 0, 0);
    let mut outcomes = BTreeSet::new();
    for seed in 0..CASES {
        let ended = Case::random(seed, Faults::All).check();
        rounds += ended.rounds;
        resumed += ended.resumed;
        advanced += ended.advanced;
        outcomes.insert(ended.outcome);
    }
    assert!(cfg!(debug_assertions) || rounds >= 10_000, "only {rounds} rounds");
    assert!(
        resumed > CASES / 2 && advanced > CASES,
        "{resumed} uploads arrived in parts, {advanced} times one advanced"
    );
    assert!(outcomes.contains(&Outcome::Completed) && outcomes.contains(&Outcome::Stopped), "{outcomes:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let traces: Vec<u64> = (0..30).map(|seed| Case::random(seed, Faults::All).check().trace).collect();
    let again: Vec<u64> = (0..30).map(|seed| Case::random(seed, Faults::All).check().trace).collect();
    assert_eq!(traces, again);
    assert_eq!(traces.iter().collect::<BTreeSet<_>>().len(), 30, "seeds make a difference");
}

#[test]
fn crashes_that_lose_nobody_do_not_change_the_model() {
    for seed in 0..CASES {
        let undisturbed = Case { seed, faults: Faults::Crashes, ops: Vec::new() }.check();
        let crashed = Case::random(seed, Faults::Crashes).check();
        assert_eq!(undisturbed.starts, 1);
        assert_eq!((crashed.outcome, crashed.abandoned), (Outcome::Completed, 0), "seed {seed}");
        assert_eq!(crashed.digest, undisturbed.digest, "seed {seed} after {} starts", crashed.starts);
    }
}

#[test]
fn a_server_crash_at_each_commit_of_a_run_is_survived() {
    let undisturbed = Case { seed: 7, faults: Faults::Crashes, ops: Vec::new() }.check();
    for written in [false, true] {
        // The first commit is done when the world begins.
        for commit in 0..undisturbed.commits - 1 {
            let crash = Op::CrashServer { after_commits: commit, written };
            let ended = Case { seed: 7, faults: Faults::Crashes, ops: vec![crash] }.check();
            assert_eq!(ended.starts, 2, "commit {commit}");
            assert_eq!(ended.digest, undisturbed.digest, "commit {commit}, written: {written}");
        }
    }
}

#[test]
fn each_lie_of_a_chosen_client_hears_its_own_reason_and_does_not_count() {
    for (attack, reject) in [
        (Attack::NotANumber, Reject::NotANumber),
        (Attack::Infinite, Reject::Infinite),
        (Attack::TooLarge, Reject::ValueTooLarge),
        (Attack::WrongShape, Reject::WrongShape),
        (Attack::WrongCodec, Reject::WrongCodec),
        (Attack::WrongBase, Reject::WrongBase),
        (Attack::TooManyExamples, Reject::TooManyExamples),
        (Attack::MoreExamplesThanItHas, Reject::TooManyExamples),
        (Attack::NoExamples, Reject::NoExamples),
        (Attack::RandomBytes, Reject::Corrupt),
        (Attack::Truncated, Reject::Truncated),
        (Attack::WrongDigest, Reject::WrongDigest),
        (Attack::WrongOffset, Reject::WrongOffset),
        (Attack::FutureRound, Reject::FutureRound),
        (Attack::PastRound, Reject::Late),
        (Attack::AnotherName, Reject::WrongSession),
        (Attack::UnknownName, Reject::UnknownClient),
        (Attack::UnknownRun, Reject::UnknownRun),
    ] {
        let mut world = World::new(Setting::everybody_is_chosen(1));
        // It is there when the first round opens, and again in time to be chosen for the third.
        world.play(&[Op::Attack(Attack::CheckIn)]);
        world.run_until_published(1);
        world.play(&[Op::Attack(Attack::CheckIn)]);
        world.run_until_published(2);
        assert_eq!(world.attack(attack), Err(reject), "{attack:?}");
        world.finish();
    }
}

#[test]
fn a_replayed_update_gets_its_receipt_again_and_counts_once() {
    let mut world = World::new(Setting::nobody_is_lost(3));
    world.run_until_accepted();
    let accepted = world.ledger().accepted_total;
    for replayed in 0..5 {
        world.play(&[Op::Replay(replayed), Op::Deliver(0)]);
    }
    assert_eq!(world.ledger().accepted_total, accepted);
    world.finish();
}

#[test]
fn an_upload_that_broke_off_goes_on_where_it_did_and_makes_the_same_model() {
    let undisturbed = World::new(Setting::nobody_is_lost(3)).finish();
    for bytes in [1, 2, 5, 11, 20] {
        let mut world = World::new(Setting::nobody_is_lost(3));
        world.cut_an_upload(bytes);
        let ended = world.finish();
        assert_eq!((ended.resumed, undisturbed.resumed), (1, 0));
        assert_eq!((ended.digest, ended.rounds), (undisturbed.digest, undisturbed.rounds), "cut after {bytes} bytes");
    }
}

#[test]
fn an_upload_that_goes_on_where_the_server_has_nothing_is_refused_and_begins_anew() {
    let undisturbed = World::new(Setting::nobody_is_lost(3)).finish();
    let mut world = World::new(Setting::nobody_is_lost(3));
    world.cut_an_upload(7);
    world.run_until_resuming();
    world.restart_server();
    world.run_until_published(1);
    assert_eq!(world.refusals(Reject::WrongOffset), 1);
    let ended = world.finish();
    assert_eq!((ended.digest, ended.resumed, ended.starts), (undisturbed.digest, 0, 2));
}

#[test]
fn a_client_that_says_that_it_advances_is_waited_for_until_the_deadline() {
    let after = |reports: &[Op], seconds: u64| {
        let mut world = World::new(Setting::random(2));
        let slow = world.run_until_one_trains();
        assert_eq!(world.ledger().accepted_now(), 3);
        for _ in 0..seconds {
            world.play(reports);
            world.play(&[Op::Advance(1000)]);
        }
        (world, slow)
    };
    let counts = |world: &World| {
        let ledger = world.ledger();
        (ledger.published, ledger.aggregated_total)
    };
    let reports = [Op::Progress(0), Op::Deliver(0)];
    let (world, _) = after(&[], 20);
    assert_eq!(counts(&world), (1, 3), "who is silent is not waited for");
    let (mut world, slow) = after(&reports, 59);
    assert!(matches!(world.member(slow), Some(Member::Asked { .. })), "{:?}", world.member(slow));
    world.run_until_published(1);
    assert_eq!(world.ledger().aggregated_total, 4, "its update counts although it is late");
    world.finish();
    let (world, _) = after(&reports, 60);
    assert_eq!(counts(&world), (1, 3), "not for ever");
}

#[test]
fn a_client_that_trains_for_a_round_that_is_over_is_told_so_and_stops() {
    let mut world = World::new(Setting::random(2));
    let slow = world.run_until_one_trains();
    world.play(&[Op::Advance(20_000)]);
    assert_eq!(world.ledger().published, 1);
    assert!(world.trains(slow));
    world.play(&[Op::Progress(0), Op::Deliver(0)]);
    assert!(world.trains(slow), "it has not heard of it yet");
    world.play(&[Op::Deliver(0)]);
    assert!(!world.trains(slow));
    assert_eq!(world.refusals(Reject::Late), 1);
    world.finish();
}

#[test]
fn a_model_of_a_crashed_publication_is_made_again_bit_by_bit() {
    let digest =
        |ops: &[Op]| -> Digest { Case { seed: 11, faults: Faults::Crashes, ops: ops.to_vec() }.check().digest };
    let crash = |after_commits| Op::CrashServer { after_commits, written: true };
    assert_eq!(digest(&[]), digest(&[crash(9), Op::Advance(1), crash(0), Op::Advance(1), crash(3)]));
}

/// Seed 10068, made smaller: an old join arrives again after a long silence and takes the name back.
#[test]
fn a_client_whose_name_was_taken_while_it_was_silent_joins_again() {
    use Op::*;
    let ops = vec![
        Step(138),
        Step(103),
        Step(565),
        Step(9),
        Step(385),
        Step(858),
        Deliver(674),
        DeliverUnsettled(953),
        Deliver(762),
        Step(961),
        Step(181),
        LoseClient(327),
        Deliver(659),
        Deliver(130),
        Duplicate(860),
        Duplicate(37),
        Step(54),
        Step(739),
        DeliverUnsettled(508),
        Step(499),
        Step(533),
        DeliverUnsettled(605),
        Deliver(295),
        Deliver(35),
        DeliverUnsettled(568),
        Advance(561),
        Deliver(474),
        Advance(101676),
    ];
    Case { seed: 10068, faults: Faults::All, ops }.check();
}

//! What every [`Store`](super::Store) must do, as a suite that each implementation runs.

use super::{ClientRow, OpenRow, Record, ReplayRow, Restored, RunRow, Store, StoreError};
use bytes::Bytes;
use dunlin_core::message::UpdateHeader;
use dunlin_core::recipe::Width;
use dunlin_core::{ClientId, Digest, ModelVersion, Outcome, RoundId, RoundSummary, RunId, Token};

/// Runs the suite; `make` gives an empty store that keeps as many packets as it is told.
///
/// # Panics
/// Where the store breaks the contract.
pub fn contract(mut make: impl FnMut(u32) -> Box<dyn Store>) {
    runs_are_listed_and_told_apart(make(4).as_mut());
    records_need_a_run(make(4).as_mut());
    every_record_comes_back(make(4).as_mut());
    a_later_join_replaces_the_token_and_the_width(make(4).as_mut());
    an_open_round_comes_back_with_its_updates_by_client(make(4).as_mut());
    a_closed_round_is_not_open(make(4).as_mut());
    an_abandoned_round_loses_its_updates(make(4).as_mut());
    a_checkpoint_ends_the_replay_and_trims_packets(make(2).as_mut());
    receipts_outlive_checkpoints_but_not_abandoned_rounds(make(4).as_mut());
    a_replaced_update_replaces_its_receipt(make(4).as_mut());
    records_of_one_commit_take_effect_in_order(make(4).as_mut());
    repeating_a_commit_changes_nothing(make(4).as_mut());
    large_and_empty_frames_come_back(make(4).as_mut());
}

fn runs_are_listed_and_told_apart(store: &mut dyn Store) {
    assert_eq!(store.runs().unwrap(), []);
    let (old, new) = (run_row(1, 100), run_row(2, 200));
    store.create(&old).unwrap();
    store.commit(&[joined("a", 1), published(1, 1), Record::Finished(Outcome::Completed)]).unwrap();
    store.create(&new).unwrap();
    store.commit(&[joined("b", 2)]).unwrap();
    assert!(matches!(store.create(&new), Err(StoreError::RunExists(id)) if id == new.id));
    let ended = RunRow { outcome: Some(Outcome::Completed), rounds: 1, ..old.clone() };
    assert_eq!(store.runs().unwrap(), [new.clone(), ended]);
    assert_eq!(store.restore(old.id).unwrap().clients, [client_row("a", 1, None)]);
    store.commit(&[joined("c", 3)]).unwrap();
    assert_eq!(store.restore(new.id).unwrap().clients, [client_row("b", 2, None)]);
    let unknown = RunId([9; 8]);
    assert!(matches!(store.restore(unknown), Err(StoreError::UnknownRun(id)) if id == unknown));
}

fn records_need_a_run(store: &mut dyn Store) {
    assert!(matches!(store.commit(&[joined("a", 1)]), Err(StoreError::NoRun)));
}

fn every_record_comes_back(store: &mut dyn Store) {
    let run = run_row(1, 1);
    store.create(&run).unwrap();
    assert_eq!(store.restore(run.id).unwrap(), Restored::default());
    let evaluated = RoundSummary { accuracy: Some(0.1 + 0.2), ..summary(1, true) };
    let checkpoint = Record::Checkpoint { version: ModelVersion(0), state: Bytes::from_static(b"state") };
    for record in [
        Record::Started { term: 3 },
        joined("b", 2),
        joined("a", 1),
        checkpoint,
        opened(1, 0, &["a", "b"]),
        accepted(1, "a", b"frame a"),
        published(1, 1),
        Record::Summary(evaluated.clone()),
        opened(2, 1, &["b"]),
        Record::Abandoned { summary: summary(2, false) },
        opened(3, 1, &["a"]),
        accepted(3, "a", b"frame c"),
        Record::Finished(Outcome::GaveUp),
    ] {
        store.commit(&[record]).unwrap();
    }
    let expected = Restored {
        term: 3,
        clients: vec![client_row("a", 1, None), client_row("b", 2, None)],
        checkpoint: Some((ModelVersion(0), Bytes::from_static(b"state"))),
        replay: vec![replay(1, 1, &[("a", b"frame a")])],
        packets: vec![(ModelVersion(1), packet(1))],
        open: Some(open(3, 1, &["a"], &[("a", b"frame c")])),
        summaries: vec![evaluated, summary(2, false)],
        receipts: vec![(client("a"), 3, Digest::of(b"frame c"))],
        outcome: Some(Outcome::GaveUp),
    };
    assert_eq!(store.restore(run.id).unwrap(), expected);
}

fn a_later_join_replaces_the_token_and_the_width(store: &mut dyn Store) {
    let run = run_row(1, 1);
    store.create(&run).unwrap();
    store.commit(&[joined("a", 1), joined("a", 2), joined("b", 3), sized("b", 3, 0.25)]).unwrap();
    let expected = [client_row("a", 2, None), client_row("b", 3, Some(0.25))];
    assert_eq!(store.restore(run.id).unwrap().clients, expected);
    store.commit(&[joined("b", 4)]).unwrap();
    assert_eq!(store.restore(run.id).unwrap().clients[1], client_row("b", 4, None));
}

fn an_open_round_comes_back_with_its_updates_by_client(store: &mut dyn Store) {
    let run = run_row(1, 1);
    store.create(&run).unwrap();
    store.commit(&[opened(1, 0, &["c", "a", "b"]), accepted(1, "c", b"C")]).unwrap();
    store.commit(&[accepted(1, "a", b"A")]).unwrap();
    let expected = open(1, 0, &["c", "a", "b"], &[("a", b"A"), ("c", b"C")]);
    assert_eq!(store.restore(run.id).unwrap().open, Some(expected));
}

fn a_closed_round_is_not_open(store: &mut dyn Store) {
    let run = run_row(1, 1);
    store.create(&run).unwrap();
    store.commit(&[opened(1, 0, &["a"]), accepted(1, "a", b"A"), published(1, 1)]).unwrap();
    assert_eq!(store.restore(run.id).unwrap().open, None);
    store.commit(&[opened(2, 1, &["a"])]).unwrap();
    assert_eq!(store.restore(run.id).unwrap().open, Some(open(2, 1, &["a"], &[])));
    store.commit(&[Record::Abandoned { summary: summary(2, false) }]).unwrap();
    assert_eq!(store.restore(run.id).unwrap().open, None);
}

fn an_abandoned_round_loses_its_updates(store: &mut dyn Store) {
    let run = run_row(1, 1);
    store.create(&run).unwrap();
    store.commit(&[opened(1, 0, &["a", "b"]), accepted(1, "a", b"A"), accepted(1, "b", b"B")]).unwrap();
    store.commit(&[Record::Abandoned { summary: summary(1, false) }]).unwrap();
    // Were they kept, this round would claim them.
    store.commit(&[opened(1, 0, &["a"])]).unwrap();
    assert_eq!(store.restore(run.id).unwrap().open, Some(open(1, 0, &["a"], &[])));
}

fn a_checkpoint_ends_the_replay_and_trims_packets(store: &mut dyn Store) {
    let run = run_row(1, 1);
    store.create(&run).unwrap();
    for round in 1..=5 {
        store.commit(&[opened(round, round - 1, &["a"]), accepted(round, "a", b"A"), published(round, round)]).unwrap();
    }
    assert_eq!(store.restore(run.id).unwrap().replay.len(), 5);
    let state = Bytes::from_static(b"four");
    store.commit(&[Record::Checkpoint { version: ModelVersion(4), state: state.clone() }]).unwrap();
    let restored = store.restore(run.id).unwrap();
    assert_eq!(restored.checkpoint, Some((ModelVersion(4), state)));
    assert_eq!(restored.replay, [replay(5, 5, &[("a", b"A")])]);
    let packets: Vec<_> = [3, 4, 5].map(|version| (ModelVersion(version), packet(version))).into();
    assert_eq!(restored.packets, packets);
    assert_eq!(restored.summaries.len(), 5);
}

fn receipts_outlive_checkpoints_but_not_abandoned_rounds(store: &mut dyn Store) {
    let run = run_row(1, 1);
    store.create(&run).unwrap();
    store
        .commit(&[opened(1, 0, &["a", "b"]), accepted(1, "a", b"A1"), accepted(1, "b", b"B1"), published(1, 1)])
        .unwrap();
    store.commit(&[Record::Checkpoint { version: ModelVersion(1), state: Bytes::new() }]).unwrap();
    store.commit(&[opened(2, 1, &["a", "b"]), accepted(2, "a", b"A2")]).unwrap();
    let open = vec![(client("a"), 2, Digest::of(b"A2")), (client("b"), 1, Digest::of(b"B1"))];
    assert_eq!(store.restore(run.id).unwrap().receipts, open);
    store.commit(&[Record::Abandoned { summary: summary(2, false) }]).unwrap();
    let abandoned = vec![(client("a"), 1, Digest::of(b"A1")), (client("b"), 1, Digest::of(b"B1"))];
    assert_eq!(store.restore(run.id).unwrap().receipts, abandoned);
}

fn a_replaced_update_replaces_its_receipt(store: &mut dyn Store) {
    let run = run_row(1, 1);
    store.create(&run).unwrap();
    for frame in [b"2", b"1", b"3"] {
        store.commit(&[opened(1, 0, &["a"]), accepted(1, "a", frame), published(1, 1)]).unwrap();
        assert_eq!(store.restore(run.id).unwrap().receipts, [(client("a"), 1, Digest::of(frame))]);
    }
}

fn records_of_one_commit_take_effect_in_order(store: &mut dyn Store) {
    let run = run_row(1, 1);
    store.create(&run).unwrap();
    let state = Bytes::from_static(b"one");
    let checkpoint = Record::Checkpoint { version: ModelVersion(1), state };
    let round = [opened(1, 0, &["a"]), accepted(1, "a", b"A"), published(1, 1), checkpoint, opened(2, 1, &["a"])];
    store.commit(&round).unwrap();
    let restored = store.restore(run.id).unwrap();
    assert_eq!((restored.replay, restored.open), (vec![], Some(open(2, 1, &["a"], &[]))));
}

fn repeating_a_commit_changes_nothing(store: &mut dyn Store) {
    let run = run_row(1, 1);
    store.create(&run).unwrap();
    let records = [joined("a", 1), opened(1, 0, &["a"]), accepted(1, "a", b"A"), published(1, 1)];
    store.commit(&records).unwrap();
    let once = store.restore(run.id).unwrap();
    store.commit(&records[3..]).unwrap();
    store.commit(&[]).unwrap();
    assert_eq!(store.restore(run.id).unwrap(), once);
}

fn large_and_empty_frames_come_back(store: &mut dyn Store) {
    let run = run_row(1, 1);
    store.create(&run).unwrap();
    let large: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let state = Bytes::from(large.clone());
    store.commit(&[opened(1, 0, &["a", "b"]), accepted(1, "a", &large), accepted(1, "b", b"")]).unwrap();
    store.commit(&[Record::Checkpoint { version: ModelVersion(0), state: state.clone() }]).unwrap();
    let restored = store.restore(run.id).unwrap();
    assert_eq!(restored.open, Some(open(1, 0, &["a", "b"], &[("a", &large), ("b", b"")])));
    assert_eq!(restored.checkpoint, Some((ModelVersion(0), state)));
}

pub(super) fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

pub(super) fn run_row(id: u8, created_ms: u64) -> RunRow {
    RunRow {
        id: RunId([id; 8]),
        name: format!("run {id}"),
        recipe: "seed = 1\n".into(),
        recipe_digest: Digest([id; 32]),
        created_ms,
        outcome: None,
        rounds: 0,
    }
}

pub(super) fn joined(name: &str, token: u8) -> Record {
    Record::Joined { client: client(name), token: Token([token; 16]), width: None }
}

pub(super) fn sized(name: &str, token: u8, width: f64) -> Record {
    let width = Some(Width::new(width).expect("a test's width"));
    Record::Joined { client: client(name), token: Token([token; 16]), width }
}

fn client_row(name: &str, token: u8, width: Option<f64>) -> ClientRow {
    let width = width.map(|width| Width::new(width).expect("a test's width"));
    ClientRow { client: client(name), token: Token([token; 16]), width }
}

pub(super) fn opened(round: u64, base: u64, members: &[&str]) -> Record {
    let members = members.iter().map(|name| client(name)).collect();
    Record::RoundOpened { round, base: ModelVersion(base), eligible: 7, members }
}

pub(super) fn accepted(round: u64, name: &str, frame: &[u8]) -> Record {
    let (header, frame) = update(round, name, frame);
    Record::UpdateAccepted { header, frame }
}

pub(super) fn published(round: u64, version: u64) -> Record {
    Record::Published {
        version: ModelVersion(version),
        digest: digest(version),
        packet: packet(version),
        summary: summary(round, true),
    }
}

pub(super) fn summary(round: u64, published: bool) -> RoundSummary {
    RoundSummary { round, published, train_loss: 0.7 / round as f64, seconds: 1.0 / 3.0, ..RoundSummary::default() }
}

fn update(round: u64, name: &str, frame: &[u8]) -> (UpdateHeader, Bytes) {
    let header = UpdateHeader {
        client: client(name),
        round: RoundId { term: 1, number: round },
        base: ModelVersion(round - 1),
        examples: 12,
        loss: 0.1,
        frame_len: frame.len() as u64,
        digest: Digest::of(frame),
    };
    (header, Bytes::copy_from_slice(frame))
}

fn updates(round: u64, frames: &[(&str, &[u8])]) -> Vec<(UpdateHeader, Bytes)> {
    frames.iter().map(|(name, frame)| update(round, name, frame)).collect()
}

fn open(round: u64, base: u64, members: &[&str], frames: &[(&str, &[u8])]) -> OpenRow {
    let members = members.iter().map(|name| client(name)).collect();
    OpenRow { round, base: ModelVersion(base), eligible: 7, members, updates: updates(round, frames) }
}

fn replay(round: u64, version: u64, frames: &[(&str, &[u8])]) -> ReplayRow {
    ReplayRow { round, version: ModelVersion(version), digest: digest(version), updates: updates(round, frames) }
}

fn digest(version: u64) -> Digest {
    Digest([version as u8; 32])
}

fn packet(version: u64) -> Bytes {
    Bytes::from(format!("packet to {version}"))
}

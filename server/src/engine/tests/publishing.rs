//! What a round makes, what it says about it, and what is durable when.

use super::*;
use std::collections::BTreeMap;

#[test]
fn receipts_come_only_after_the_commit() {
    let disk = Disk::new();
    let mut desk = Desk::gathered(&recipe(), &disk);
    let commits = disk.commits();
    let (a, offer) = desk.upload("a", 10, &unit(0, 0.5));
    assert_eq!(offer, Ok(Offer::Store));
    let (b, offer) = desk.upload("b", 10, &unit(1, 0.5));
    assert_eq!((offer, disk.commits()), (Ok(Offer::Store), commits));
    assert_eq!(desk.engine.coordinator.status(desk.now).reported, 0);
    let settled = desk.settle().unwrap();
    assert_eq!(settled, Settled { receipts: vec![receipt(&a), receipt(&b)], ..Settled::default() });
    assert_eq!(disk.commits(), commits + 1, "both share one sync");
    let held: Vec<_> = disk.restored().open.unwrap().updates.into_iter().map(|(header, _)| header).collect();
    assert_eq!(held, [a, b]);
    assert_eq!((desk.settle().unwrap(), disk.commits()), (Settled::default(), commits + 1));
}

#[test]
fn a_store_that_fails_acknowledges_nothing() {
    let disk = Disk::new();
    let mut desk = Desk::gathered(&recipe(), &disk);
    disk.fail_at(1, false);
    desk.upload("a", 10, &unit(0, 0.5)).1.unwrap();
    assert!(matches!(desk.settle(), Err(EngineError::Store(_))));
    assert_eq!(desk.engine.coordinator.status(desk.now).reported, 0);
    assert_eq!(disk.restored().open.unwrap().updates, []);
}

#[test]
fn no_version_is_handed_out_before_it_is_durable() {
    let disk = Disk::new();
    let mut desk = Desk::gathered(&recipe(), &disk);
    // The updates are one commit, and the publication with the next round's opening another.
    disk.fail_at(2, false);
    for name in NAMES {
        desk.upload(name, 10, &unit(0, 0.5)).1.unwrap();
    }
    assert!(matches!(desk.settle(), Err(EngineError::Store(_))));
    assert_eq!(desk.engine.broadcast().version(), ModelVersion(0));
    let restored = disk.restored();
    assert_eq!((restored.summaries, restored.packets), (Vec::new(), Vec::new()));
    assert_eq!(restored.open.unwrap().updates.len(), NAMES.len(), "a restart publishes from what was accepted");
}

#[test]
fn each_update_moves_the_model_once_by_its_share_of_the_examples() {
    let mut desk = Desk::gathered(&recipe(), &Disk::new());
    for (i, (name, examples)) in NAMES.iter().zip([10, 20, 50]).enumerate() {
        let (header, offer) = desk.upload(name, examples, &unit(i, 0.5));
        assert_eq!(offer, Ok(Offer::Store));
        // At once a second time.
        let again = desk.engine.coordinator.announce(desk.now, &session(name), &header);
        assert_eq!(again, Err(Reject::Duplicate));
    }
    desk.settle().unwrap();
    let mut expected = vec![0.0; LEN];
    // 0.5 · (10, 20, 50) / 80, all exact in units of 2⁻²⁴.
    expected[..3].copy_from_slice(&[0.0625, 0.125, 0.3125]);
    assert_eq!(desk.engine.params(), expected);
    assert_eq!(desk.engine.broadcast().version(), ModelVersion(1));
}

#[test]
fn updates_of_an_abandoned_round_never_reach_the_model() {
    let mut desk = Desk::gathered(&recipe(), &Disk::new());
    desk.upload("a", 1000, &unit(5, 1.0)).1.unwrap();
    desk.settle().unwrap();
    desk.pass(10_000);
    let settled = desk.settle().unwrap();
    assert_eq!(settled.summaries.iter().map(|summary| summary.published).collect::<Vec<_>>(), [false]);
    for name in NAMES {
        desk.engine.coordinator.authenticate(desk.now, &session(name)).unwrap();
    }
    desk.pass(0);
    desk.settle().unwrap();
    for name in NAMES {
        desk.upload(name, 10, &unit(0, 0.5)).1.unwrap();
    }
    desk.settle().unwrap();
    assert_eq!(desk.engine.params(), unit(0, 0.5));
}

/// A model in one sparse frame of this length.
fn download(coded: u64) -> StageBytes {
    StageBytes { dense: DENSE, sparse: 4 * coded, quantized: 2 * coded, coded }
}

#[test]
fn a_summary_says_what_the_round_did_and_what_it_cost() {
    let mut desk = Desk::gathered(&recipe(), &Disk::new());
    desk.pass(4000);
    // Fetched by two; one upload was refused and one broken off half way.
    desk.engine.count_download(download(70));
    desk.engine.count_download(download(30));
    desk.engine.count_upload(5);
    let round = RoundId { term: 1, number: 1 };
    desk.engine.coordinator.refused(desk.now, &session("c"), Some(round), Reject::Corrupt);
    let values: Vec<f32> = (1..=LEN).map(|i| i as f32 / 64.0).collect();
    let (header, _) = desk.upload("a", 10, &values);
    desk.upload("b", 30, &values).1.unwrap();
    let mut settled = desk.settle().unwrap();
    let summary = &mut settled.summaries[0];
    summary.seconds = 0.0;
    let broadcast = desk.engine.broadcast();
    let packet = broadcast.catch_up(Some(ModelVersion(0))).catch_up.total_bytes();
    let expected = RoundSummary {
        round: 1,
        published: true,
        cut_short: false,
        version: 1,
        eligible: 3,
        chosen: 3,
        choice: Some(Choice::AllEligible),
        needed: 3,
        clients: 2,
        lost: 0,
        rejected: 1,
        rejects: BTreeMap::from([("corrupt".to_owned(), 1)]),
        examples: 40,
        train_loss: 0.5,
        accuracy: Some(0.02),
        loss: Some((100.0 - f64::from(desk.engine.params()[0])) / 100.0),
        sizes: Vec::new(),
        federated: None,
        bytes: ByteCount { up: 2 * header.frame_len + 5, down: 100, up_dense: 2 * DENSE, down_dense: 2 * DENSE },
        sparse: 2 * DENSE,
        quantized: 2 * DENSE,
        coded: 2 * header.frame_len,
        downlink: StageBytes { dense: 2 * DENSE, sparse: 400, quantized: 200, coded: 100 },
        packet,
        kept: None,
        distilled: None,
        seconds: 0.0,
        simulated_seconds: Some(4.0),
        model_digest: broadcast.digest().to_string(),
    };
    assert_eq!(*summary, expected);
    // The next round begins with nothing on its account.
    for name in NAMES {
        desk.upload(name, 10, &values).1.unwrap();
    }
    let next = &desk.settle().unwrap().summaries[0];
    let bytes = ByteCount { up: 3 * header.frame_len, down: 0, up_dense: 3 * DENSE, down_dense: 0 };
    assert_eq!((next.round, next.bytes, next.rejected), (2, bytes, 0));
}

#[test]
fn downloads_of_an_evaluation_belong_to_the_round_that_it_followed() {
    let mut recipe = recipe();
    recipe.rounds.federated_evaluation_every = 1;
    let disk = Disk::new();
    let mut desk = Desk::gathered(&recipe, &disk);
    for name in NAMES {
        desk.upload(name, 10, &unit(0, 0.5)).1.unwrap();
        desk.engine.count_download(download(10));
    }
    desk.settle().unwrap();
    for name in NAMES {
        let Assignment::Evaluate(task) = desk.check_in(name) else { panic!("an evaluation is due") };
        desk.engine.count_download(download(7));
        let (round, version) = (task.round, task.version);
        let report = EvaluationReport { round, version, examples: 10, correct: 5, loss_sum: 20.0 };
        desk.engine.coordinator.evaluated(desk.now, &session(name), &report).unwrap();
    }
    let settled = desk.settle().unwrap();
    let [summary] = settled.summaries.as_slice() else { panic!("{settled:?}") };
    let federated = FederatedEvaluation { clients: 3, examples: 30, accuracy: 0.5, loss: 2.0 };
    assert_eq!((summary.round, summary.federated), (1, Some(federated)));
    assert_eq!((summary.bytes.down, summary.bytes.down_dense), (51, 6 * DENSE));
    assert_eq!(summary.downlink, StageBytes { dense: 6 * DENSE, sparse: 204, quantized: 102, coded: 51 });
    assert_eq!(
        (desk.engine.summaries(), disk.restored().summaries.as_slice()),
        (&settled.summaries[..], &settled.summaries[..])
    );
}

#[test]
fn the_report_sums_up_the_run() {
    let mut recipe = recipe();
    recipe.rounds.target_accuracy = 0.9;
    let disk = Disk::new();
    let mut desk = Desk::gathered(&recipe, &disk);
    let mut frame_len = 0;
    for round in 1..=2 {
        desk.pass(1000);
        for name in NAMES {
            desk.engine.count_download(download(10));
            let (header, offer) = desk.upload(name, 10, &unit(0, 0.5));
            assert_eq!(offer, Ok(Offer::Store));
            frame_len = header.frame_len;
        }
        let settled = desk.settle().unwrap();
        assert_eq!(settled.report.is_some(), round == 2);
    }
    let expected = Report {
        student: None,
        name: "digits".into(),
        outcome: Outcome::TargetReached,
        rounds: 2,
        abandoned: 0,
        cut_short: false,
        accuracy: 1.0,
        loss: 0.99,
        sizes: Vec::new(),
        federated: None,
        target: Some(dunlin_core::report::Target { accuracy: 0.9, round: Some(2) }),
        params: LEN as u64,
        nonzero: 1,
        bytes: ByteCount { up: 6 * frame_len, down: 60, up_dense: 6 * DENSE, down_dense: 6 * DENSE },
        uplink: StageBytes { dense: 6 * DENSE, sparse: 6 * DENSE, quantized: 6 * DENSE, coded: 6 * frame_len },
        downlink: StageBytes { dense: 6 * DENSE, sparse: 240, quantized: 120, coded: 60 },
        rejects: BTreeMap::new(),
        clients: 3,
        seconds: 0.0,
        simulated_seconds: Some(2.0),
        model_digest: desk.engine.broadcast().digest().to_string(),
    };
    assert_eq!(desk.engine.report().map(|report| Report { seconds: 0.0, ..report.clone() }), Some(expected.clone()));
    assert_eq!(desk.settle().unwrap(), Settled::default(), "a run is reported once");
    let mut again = Desk::open(&recipe, &disk, Timestamp(0));
    let report = again.settle().unwrap().report.unwrap();
    let spent: f64 = again.engine.summaries().iter().map(|summary| summary.seconds).sum();
    assert_eq!(report.seconds, spent, "a run that is over takes no more time");
    assert_eq!(Report { seconds: 0.0, ..report }, expected, "and the same after a restart");
}

#[test]
fn a_run_that_is_stopped_reports_the_model_that_it_has() {
    let mut recipe = recipe();
    recipe.rounds.evaluate_every = 0;
    let mut desk = Desk::gathered(&recipe, &Disk::new());
    for name in NAMES {
        desk.upload(name, 10, &unit(0, 0.5)).1.unwrap();
    }
    assert_eq!(desk.settle().unwrap().summaries[0].accuracy, None);
    desk.upload("a", 10, &unit(0, 0.5)).1.unwrap();
    desk.engine.coordinator.stop(desk.now);
    let settled = desk.settle().unwrap();
    assert_eq!(settled.receipts.len(), 1);
    let report = settled.report.unwrap();
    assert_eq!((report.outcome, report.rounds, report.abandoned, report.cut_short), (Outcome::Stopped, 2, 0, true));
    assert_eq!((report.accuracy, desk.engine.params()), (0.5, unit(0, 0.5)));
}

#[test]
fn a_model_that_diverges_ends_the_engine_and_hands_nothing_out() {
    let mut recipe = recipe();
    recipe.strategy.learning_rate = 1000.0;
    let disk = Disk::new();
    let mut desk = Desk::gathered(&recipe, &disk);
    for name in NAMES {
        desk.upload(name, 10, &unit(0, 1.0)).1.unwrap();
    }
    assert!(matches!(desk.settle(), Err(EngineError::Model(global::Error::Diverged { .. }))));
    assert_eq!((desk.engine.broadcast().version(), disk.restored().packets), (ModelVersion(0), vec![]));
}

#[test]
fn a_store_goes_on_with_the_run_of_the_same_recipe_unless_told_otherwise() {
    let disk = Disk::new();
    let first = recipe();
    let mut other = recipe();
    other.seed = 2;
    let welcome = |recipe: &Recipe, id, anew, created_ms| {
        let engine =
            open(Start { id: RunId([id; 8]), anew, created_ms, ..start(recipe, &disk) }, Timestamp(0)).unwrap();
        engine.welcome().run
    };
    assert_eq!(welcome(&first, 1, false, 1), RunId([1; 8]));
    assert_eq!(welcome(&first, 2, false, 2), RunId([1; 8]));
    assert_eq!(welcome(&other, 3, false, 3), RunId([3; 8]));
    assert_eq!(welcome(&first, 4, true, 4), RunId([4; 8]));
    assert_eq!(welcome(&first, 5, false, 5), RunId([4; 8]), "the newest of them");
}

#[test]
fn an_update_of_another_size_than_its_client_s_is_refused_and_ends_its_part_in_the_round() {
    let mut recipe = recipe();
    recipe.size = Recipe::load(None, &["size=[{width=1}, {width=0.5}]".into()]).unwrap().size;
    let mut desk = Desk::gathered(&recipe, &Disk::new());
    let half = Arc::clone(desk.engine.slices().get(Width::new(0.5).unwrap()).unwrap());
    let masks = [Arc::new(sized_layout().segments()), Arc::clone(half.segments())].map(Mask::all);
    // The whole model's length from a client with half of it, and the other way round.
    for (name, mask) in [("b", &masks[0]), ("a", &masks[1])] {
        let task = desk.task(name);
        let (header, frame) = update_within(mask, name, &task, 10, &vec![0.5; mask.len()]);
        let vetted = desk.engine.rules().vet(&header, &frame).unwrap();
        assert_eq!(vetted.coordinates, mask.len());
        let offer = desk.engine.offer(desk.now, &session(name), &header, (frame, vetted));
        assert_eq!(offer, Err(Reject::WrongShape), "{name}");
        assert!(matches!(desk.check_in(name), Assignment::Wait { .. }));
    }
    // What is left of the round is below its quorum; the next one counts as it should.
    let values = vec![0.5; half.len()];
    let task = desk.task("c");
    let (header, frame) = update_within(&masks[1], "c", &task, 10, &values);
    let vetted = desk.engine.rules().vet(&header, &frame).unwrap();
    desk.engine.offer(desk.now, &session("c"), &header, (frame, vetted)).unwrap();
    let settled = desk.settle().unwrap();
    assert_eq!(settled.summaries[0].rejects, BTreeMap::from([("wrong_shape".to_owned(), 2)]));
    assert!(!settled.summaries[0].published);
}

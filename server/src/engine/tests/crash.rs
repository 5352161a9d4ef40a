//! A server that crashes at any commit and starts again: same model, same summaries, same end.

use super::*;

/// A run by clients that only depend on what they are asked, on a server that starts again whenever it fails.
struct Play {
    recipe: Recipe,
    disk: Disk,
    desk: Desk,
    /// Whether clients send updates.
    busy: bool,
    starts: u32,
}

impl Play {
    fn new(recipe: Recipe, busy: bool) -> Self {
        let disk = Disk::new();
        let desk = Desk::open(&recipe, &disk, Timestamp(0));
        Self { recipe, disk, desk, busy, starts: 1 }
    }

    /// Plays until the run ends, and returns its report and summaries without what may differ between two runs.
    fn finish(mut self) -> (Report, Vec<RoundSummary>, u32) {
        for _ in 0..100 {
            let step = self.step().and_then(|()| self.desk.settle());
            if step.is_err() {
                self.starts += 1;
                self.desk = Desk::open(&self.recipe, &self.disk, self.desk.now);
            }
            if let Some(report) = self.desk.engine.report() {
                let report =
                    Report { rejects: Default::default(), seconds: 0.0, simulated_seconds: None, ..report.clone() };
                let comparable = |summary: &RoundSummary| RoundSummary {
                    rejected: 0,
                    rejects: Default::default(),
                    seconds: 0.0,
                    simulated_seconds: None,
                    ..summary.clone()
                };
                return (report, self.desk.engine.summaries().iter().map(comparable).collect(), self.starts);
            }
            self.desk.pass(2500);
        }
        panic!("the run does not end: {:?}", self.desk.engine.coordinator.status(self.desk.now));
    }

    fn step(&mut self) -> Result<(), EngineError> {
        for name in NAMES {
            self.desk.engine.coordinator.join(self.desk.now, &client(name), Token([1; 16])).unwrap();
        }
        self.desk.settle()?;
        for (i, name) in NAMES.into_iter().enumerate() {
            match self.desk.check_in(name) {
                Assignment::Train(task) if self.busy => {
                    self.desk.settle()?;
                    self.train(i, name, &task)?;
                }
                Assignment::Evaluate(task) => {
                    let (round, version) = (task.round, task.version);
                    let report = EvaluationReport { round, version, examples: 10, correct: i as u64, loss_sum: 1.0 };
                    self.desk.engine.coordinator.evaluated(self.desk.now, &session(name), &report).unwrap();
                }
                _ => {}
            }
            self.desk.settle()?;
        }
        Ok(())
    }

    fn train(&mut self, i: usize, name: &str, task: &TrainTask) -> Result<(), EngineError> {
        let wave = |at: usize| ((at * (i + 1)) as f32 + task.round.number as f32).sin() * 0.05;
        let mut values: Vec<f32> = (0..LEN).map(wave).collect();
        values[0] = 0.25;
        let examples = 10 + 7 * i as u32;
        let mut mask = Arc::clone(self.desk.engine.rules().mask());
        match self.desk.engine.slices().get(width_of(&self.recipe, name)) {
            Some(slice) => {
                slice.mask().gather(&mut values);
                mask = Arc::new(Mask::all(Arc::clone(slice.segments())));
            }
            None => mask.gather(&mut values),
        }
        let (header, frame) = update_within(&mask, name, task, examples, &values);
        let Desk { engine, now } = &mut self.desk;
        // A client asks before it uploads, so bytes that have arrived do not arrive twice.
        if engine.coordinator.announce(*now, &session(name), &header).unwrap().is_none() {
            let stages = engine.rules().vet(&header, &frame).unwrap();
            engine.count_upload(header.frame_len);
            engine.offer(*now, &session(name), &header, (frame, stages)).unwrap();
        }
        self.desk.settle().map(drop)
    }
}

/// Plays a recipe undisturbed and then with a crash at every commit, before and after it is durable.
fn survives_every_crash(recipe: &Recipe, busy: bool) -> (Report, Vec<RoundSummary>) {
    let play = Play::new(recipe.clone(), busy);
    let disk = play.disk.clone();
    let (report, summaries, _) = play.finish();
    for commit in 1..=disk.commits() {
        for durable in [false, true] {
            let play = Play::new(recipe.clone(), busy);
            play.disk.fail_at(commit, durable);
            let disturbed = play.finish();
            assert_eq!(disturbed, (report.clone(), summaries.clone(), 2), "commit {commit}, durable: {durable}");
        }
    }
    (report, summaries)
}

/// Something of everything: lossy links, momentum, evaluations on both sides.
fn eventful() -> Recipe {
    let mut recipe = recipe();
    recipe.rounds.count = 4;
    recipe.rounds.federated_evaluation_every = 2;
    recipe.uplink.quantizer = QuantizerKind::Int8;
    recipe.downlink.quantizer = QuantizerKind::Int8;
    recipe.strategy.kind = dunlin_core::recipe::StrategyKind::FedAvgM;
    recipe
}

#[test]
fn a_crash_at_any_commit_of_a_run_that_is_pruned_changes_nothing_in_the_result() {
    for sets in [
        &[][..],
        &["scope=layer", "schedule=geometric"],
        &["importance=taylor"],
        &["importance=votes"],
        &["regrow=0.3"],
        &["rewind=ticket", "rewind_round=1"],
        &["rewind=random"],
        &["schedule=threshold", "threshold=0.05"],
    ] {
        let mut recipe = eventful();
        recipe.rounds.count = 6;
        let common = ["density=0.4", "first_round=2", "every=2", "steps=2"];
        let sets: Vec<String> = common.iter().chain(sets).map(|set| format!("pruning.{set}")).collect();
        recipe.pruning = Recipe::load(None, &sets).unwrap().pruning;
        let (report, summaries) = survives_every_crash(&recipe, true);
        let kept: Vec<_> = summaries.iter().filter_map(|summary| summary.kept).collect();
        assert_eq!((report.outcome, kept.len()), (Outcome::Completed, 6), "{sets:?}");
        assert_eq!((kept[0], kept[5]), (12, 3 + 4), "{sets:?}: {kept:?}");
    }
}

#[test]
fn a_crash_at_any_commit_of_a_run_that_loses_whole_units_changes_nothing_in_the_result() {
    for sets in [&[][..], &["importance=taylor"], &["scope=layer"]] {
        let mut recipe = eventful();
        recipe.rounds.count = 6;
        let common = ["pattern=channels", "density=0.7", "first_round=2", "every=2", "steps=2"];
        let sets: Vec<String> = common.iter().chain(sets).map(|set| format!("pruning.{set}")).collect();
        recipe.pruning = Recipe::load(None, &sets).unwrap().pruning;
        let (report, summaries) = survives_every_crash(&recipe, true);
        let kept: Vec<_> = summaries.iter().filter_map(|summary| summary.kept).collect();
        // Of two units in the middle one goes, with what leads there and away.
        assert_eq!(
            (report.outcome, kept.len(), kept[0], kept[5]),
            (Outcome::Completed, 6, 12, 7),
            "{sets:?}: {kept:?}"
        );
        // Nothing of it travels any more: three vectors and their headers.
        assert!(summaries[5].bytes.up < summaries[0].bytes.up, "{sets:?}: {summaries:?}");
    }
}

#[test]
fn a_crash_at_any_commit_of_a_run_with_common_coordinates_changes_nothing_in_the_result() {
    for sets in [
        &["common.coordinates=random"][..],
        &["common.coordinates=cyclic", "uplink.fit=unbiased", "uplink.feedback=0"],
        &["common.coordinates=announced"],
        &["common.coordinates=announced", "pruning.density=0.5"],
        &["common.coordinates=announced", "pruning.density=0.5", "pruning.regrow=0.3"],
        &["common.coordinates=cyclic", "pruning.density=0.5", "pruning.importance=votes"],
        &["common.coordinates=announced", "distillation.kind=ensemble", "data.server_share=0.1"],
    ] {
        let common = ["uplink.quantizer=common", "uplink.bits=6", "uplink.density=0.4", "pruning.first_round=2"];
        let steps = ["pruning.every=2", "pruning.steps=2", "distillation.every=2"];
        let sets: Vec<String> = [&common[..], &steps, sets].concat().iter().map(|&set| set.into()).collect();
        let from = Recipe::load(None, &sets).unwrap();
        let mut recipe = eventful();
        recipe.rounds.count = 6;
        (recipe.common, recipe.uplink) = (from.common, from.uplink);
        (recipe.pruning, recipe.distillation) = (from.pruning, from.distillation);
        let (report, summaries) = survives_every_crash(&recipe, true);
        assert_eq!((report.outcome, report.rounds), (Outcome::Completed, 6), "{sets:?}");
        assert!(summaries[5].model_digest != summaries[4].model_digest, "{sets:?}");
    }
}

#[test]
fn a_crash_at_any_commit_of_a_run_that_is_distilled_changes_nothing_in_the_result() {
    let mut recipe = eventful();
    recipe.distillation.kind = dunlin_core::recipe::Distillation::Ensemble;
    (recipe.distillation.first_round, recipe.distillation.every) = (2, 2);
    let (report, summaries) = survives_every_crash(&recipe, true);
    assert_eq!(report.outcome, Outcome::Completed);
    let teachers: Vec<_> = summaries.iter().map(|summary| summary.distilled.map(|of| of.teachers)).collect();
    assert_eq!(teachers, [None, Some(3), None, Some(3)]);
}

#[test]
fn a_crash_at_any_commit_of_a_run_that_goes_on_beside_its_distillations_changes_nothing_in_the_result() {
    let of = |sets: &[&str], rounds: u64| {
        let sets: Vec<String> = sets.iter().map(|&set| set.into()).collect();
        let from = Recipe::load(None, &sets).unwrap();
        let mut recipe = eventful();
        recipe.rounds.count = rounds;
        (recipe.distillation, recipe.pruning, recipe.common, recipe.uplink) =
            (from.distillation, from.pruning, from.common, from.uplink);
        recipe
    };
    let overlap = ["distillation.kind=ensemble", "data.server_share=0.1", "distillation.overlap=0.5"];
    let pruning = ["pruning.density=0.5", "pruning.first_round=2", "pruning.every=2", "pruning.steps=2"];
    let announced = ["common.coordinates=announced", "uplink.quantizer=common", "uplink.bits=6", "uplink.density=0.4"];
    for (sets, expected) in [
        (overlap.to_vec(), [false, true, true, true, true, true]),
        // Of rounds 1, 4 and 7.
        ([&overlap[..], &["distillation.every=3"]].concat(), [false, true, false, false, true, false]),
        ([&overlap[..], &pruning].concat(), [false, true, true, true, true, true]),
        // Rounds 1, 3 and 5 ask for gradients, so there are no teachers.
        ([&overlap[..], &pruning, &["pruning.importance=gradient"]].concat(), [false, true, false, true, false, true]),
        ([&overlap[..], &announced].concat(), [false, true, true, true, true, true]),
    ] {
        let (report, summaries) = survives_every_crash(&of(&sets, 6), true);
        assert_eq!((report.outcome, report.rounds), (Outcome::Completed, 6), "{sets:?}");
        let taken: Vec<_> = summaries.iter().map(|summary| summary.distilled.is_some()).collect();
        assert_eq!(taken, expected, "{sets:?}");
    }
    let mut short = of(&overlap, 6);
    short.rounds.target_accuracy = 0.5;
    let (report, _) = survives_every_crash(&short, true);
    assert_eq!(report.outcome, Outcome::TargetReached);
}

#[test]
fn a_crash_at_any_commit_of_a_run_with_clients_of_several_sizes_changes_nothing_in_the_result() {
    for is_distilled in [false, true] {
        let mut recipe = eventful();
        recipe.size =
            Recipe::load(None, &["size=[{width=1}, {width=0.5}]".into(), "model.kind=2nn".into()]).unwrap().size;
        if is_distilled {
            recipe.distillation.kind = dunlin_core::recipe::Distillation::Ensemble;
        }
        let (report, summaries) = survives_every_crash(&recipe, true);
        assert_eq!((report.outcome, report.rounds, report.clients), (Outcome::Completed, 4, 3));
        let params: Vec<u64> = report.sizes.iter().map(|size| size.params).collect();
        assert_eq!(params, [12, 2 + 1 + 2 + 2]);
        // One client with all twelve parameters and two with seven.
        assert!(summaries.iter().all(|summary| summary.bytes.up_dense == 4 * (12 + 7 + 7)), "{summaries:?}");
    }
}

#[test]
fn a_crash_at_any_commit_changes_nothing_in_the_result() {
    let (report, summaries) = survives_every_crash(&eventful(), true);
    assert_eq!((report.outcome, report.rounds, report.clients), (Outcome::Completed, 4, 3));
    assert_eq!(
        summaries.iter().map(|summary| summary.federated.is_some()).collect::<Vec<_>>(),
        [false, true, false, true]
    );
}

#[test]
fn a_crash_at_any_commit_does_not_carry_a_run_past_its_target() {
    let mut recipe = recipe();
    recipe.rounds.target_accuracy = 0.5;
    let (report, _) = survives_every_crash(&recipe, true);
    assert_eq!((report.outcome, report.rounds), (Outcome::TargetReached, 2));
}

#[test]
fn a_crash_at_any_commit_does_not_keep_a_hopeless_run_alive() {
    let mut recipe = recipe();
    recipe.rounds.deadline_s = 5.0;
    recipe.rounds.max_abandoned = 2;
    let (report, _) = survives_every_crash(&recipe, false);
    assert_eq!((report.outcome, report.rounds, report.abandoned), (Outcome::GaveUp, 2, 2));
}

/// Plays rounds of full uploads and returns the disk and the engine.
fn played(rounds: u64) -> (Disk, Desk) {
    let mut recipe = recipe();
    recipe.rounds.count = 100;
    let disk = Disk::new();
    let mut desk = Desk::gathered(&recipe, &disk);
    for _ in 0..rounds {
        for (i, name) in NAMES.iter().enumerate() {
            desk.upload(name, 10, &unit(i, 0.25)).1.unwrap();
        }
        desk.settle().unwrap();
    }
    (disk, desk)
}

#[test]
fn a_restart_computes_again_only_what_came_after_the_last_checkpoint() {
    let (disk, mut desk) = played(8);
    let restored = disk.restored();
    let (covered, _) = restored.checkpoint.clone().unwrap();
    // Three frames a round of a little more than a dense model each: eight of them are full in the third round.
    assert_eq!(covered, ModelVersion(6));
    assert_eq!(restored.replay.iter().map(|row| row.version.0).collect::<Vec<_>>(), [7, 8]);
    let mut again = Desk::open(desk.engine.recipe(), &disk, desk.now);
    assert_eq!(again.engine.broadcast().digest(), desk.engine.broadcast().digest());
    assert_eq!((again.engine.params(), again.engine.summaries()), (desk.engine.params(), desk.engine.summaries()));
    for held in [0, 5, 8].map(|version| Some(ModelVersion(version))) {
        assert_eq!(again.engine.broadcast().catch_up(held), desk.engine.broadcast().catch_up(held), "{held:?}");
    }
    again.settle().unwrap();
    for desk in [&mut desk, &mut again] {
        for (i, name) in NAMES.iter().enumerate() {
            desk.upload(name, 10, &unit(i + 4, 0.5)).1.unwrap();
        }
        desk.settle().unwrap();
    }
    assert_eq!(again.engine.params(), desk.engine.params());
}

#[test]
fn rounds_with_few_bytes_are_checkpointed_by_their_number() {
    let mut recipe = recipe();
    recipe.rounds.count = 60;
    recipe.uplink.density = 0.01;
    let layout = Layout::new(vec![TensorSpec::new("w", [100, 100])]).unwrap();
    let disk = Disk::new();
    let started = Start { layout, initial: vec![0.0; 10_000], evaluator: None, ..start(&recipe, &disk) };
    let mut engine = open(started, Timestamp(0)).unwrap();
    for name in NAMES {
        engine.coordinator.join(Timestamp(0), &client(name), Token([1; 16])).unwrap();
    }
    let mut frame: Bytes = Bytes::new();
    for round in 1..=60 {
        for name in NAMES {
            let check_in = CheckIn {
                session: session(name),
                examples: 1000,
                width: Width::WHOLE,
                held: None,
                wait_ms: 0,
                declines: None,
            };
            engine.coordinator.check_in(Timestamp(0), &check_in).unwrap();
        }
        for name in NAMES {
            if frame.is_empty() {
                let codec = Codec { density: 0.01, quantizer: Quantizer::F32, coder: EntropyCoder::Raw };
                let mut values = vec![0.0; 10_000];
                values[1] = 0.01;
                frame = Encoder::new().encode(&codec, engine.rules().segments(), &values).unwrap().frame.into();
            }
            let header = UpdateHeader {
                client: client(name),
                round: RoundId { term: 1, number: round },
                base: ModelVersion(round - 1),
                examples: 1,
                loss: 0.0,
                frame_len: frame.len() as u64,
                digest: Digest::of(&frame),
            };
            let stages = engine.rules().vet(&header, &frame).unwrap();
            engine.offer(Timestamp(0), &session(name), &header, (frame.clone(), stages)).unwrap();
        }
        engine.settle(&|| Timestamp(0)).unwrap();
    }
    let restored = disk.restored();
    assert_eq!(restored.checkpoint.map(|(version, _)| version), Some(ModelVersion(MAX_ROUNDS_WITHOUT_CHECKPOINT)));
    assert_eq!(restored.replay.len() as u64, 60 - MAX_ROUNDS_WITHOUT_CHECKPOINT);
}

#[test]
fn a_round_that_computes_to_another_model_is_an_error() {
    let (mut disk, desk) = played(2);
    let (right, wrong) = (desk.engine.broadcast().digest(), Digest([9; 32]));
    let summary = desk.engine.summaries()[1].clone();
    let forged = Record::Published { version: ModelVersion(2), digest: wrong, packet: Bytes::new(), summary };
    disk.commit(&[forged]).unwrap();
    let error = open(start(desk.engine.recipe(), &disk), desk.now).err().unwrap();
    assert!(
        matches!(error, EngineError::Replay { round: 2, expected, got } if (expected, got) == (wrong, right)),
        "{error}"
    );
}

#[test]
fn an_open_round_keeps_its_account_over_a_restart() {
    let disk = Disk::new();
    let mut desk = Desk::gathered(&recipe(), &disk);
    let (header, _) = desk.upload("a", 10, &unit(0, 0.5));
    desk.settle().unwrap();
    let mut again = Desk::open(&recipe(), &disk, desk.now);
    again.settle().unwrap();
    assert_eq!(again.engine.coordinator.status(again.now).phase, PhaseName::Training);
    for name in ["b", "c"] {
        again.upload(name, 10, &unit(0, 0.5)).1.unwrap();
    }
    let summary = &again.settle().unwrap().summaries[0];
    let bytes = ByteCount { up: 3 * header.frame_len, up_dense: 3 * DENSE, ..ByteCount::default() };
    assert_eq!((summary.clients, summary.bytes, summary.coded), (3, bytes, 3 * header.frame_len));
}

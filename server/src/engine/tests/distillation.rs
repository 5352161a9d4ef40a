//! A round whose model is distilled before it is published.

use super::*;
use dunlin_core::Waiting;
use dunlin_core::recipe::{Distillation, DistillationConfig};

fn distilled() -> Recipe {
    let mut recipe = recipe();
    recipe.distillation.kind = Distillation::Ensemble;
    recipe.distillation.first_round = 2;
    recipe
}

/// All clients send the same in this round; what they are answered is not waited for.
fn report_all(desk: &mut Desk, value: f32) {
    for (i, name) in NAMES.iter().enumerate() {
        // The mean of the models counts examples, that of the teachers does not.
        desk.upload(name, 10 + 10 * i as u32, &unit(i, value)).1.unwrap();
    }
}

#[test]
fn the_engine_goes_on_answering_and_publishes_what_the_job_has_made() {
    let mut desk = Desk::gathered(&distilled(), &Disk::new());
    report_all(&mut desk, 0.25);
    assert_eq!(desk.settle().unwrap().summaries[0].distilled, None, "the first round has none");
    let before = desk.engine.params();
    for name in NAMES {
        desk.check_in(name);
    }
    desk.settle().unwrap();
    report_all(&mut desk, 0.5);
    let now = desk.now;
    let settled = desk.engine.settle(&|| now).unwrap();
    assert_eq!((settled.receipts.len(), settled.summaries.len()), (3, 0), "receipts do not wait for it");
    let job = desk.engine.poll_job().unwrap();
    assert!(desk.engine.poll_job().is_none());
    let Assignment::Wait { reason, .. } = desk.check_in("a") else { panic!("there is nothing to do yet") };
    assert_eq!(reason, Waiting::Publishing);
    assert_eq!(desk.engine.settle(&|| now).unwrap(), Settled::default());
    assert_eq!(desk.engine.broadcast().version(), ModelVersion(1));
    desk.engine.distilled(job.run(&mut |_, _| {})).unwrap();
    let settled = desk.engine.settle(&|| now).unwrap();
    assert_eq!(settled.summaries[0].distilled.map(|distilled| distilled.teachers), Some(3));
    assert_eq!(desk.engine.broadcast().version(), ModelVersion(2));
    let moved: Vec<f32> = desk.engine.params().iter().zip(&before).map(|(now, then)| now - then).collect();
    for (i, &moved) in moved.iter().enumerate() {
        let (weighted, plain) = if i < 3 { ((10 + 10 * i) as f32 / 60.0 * 0.5, 0.5 / 3.0) } else { (0.0, 0.0) };
        let expected = (weighted + plain) / 2.0;
        assert!((moved - expected).abs() < 1e-6, "{i}: {moved}, {expected}");
    }
}

/// Two rounds of which the first is distilled while the second goes on.
fn beside() -> Recipe {
    let mut recipe = distilled();
    recipe.distillation.first_round = 1;
    recipe.distillation.every = 2;
    recipe.distillation.overlap = 0.5;
    recipe.rounds.count = 2;
    recipe
}

#[test]
fn a_round_goes_on_beside_the_distillation_of_the_one_before_and_takes_it_up_at_its_end() {
    for is_slow in [false, true] {
        let mut desk = Desk::gathered(&beside(), &Disk::new());
        let now = desk.now;
        report_all(&mut desk, 0.25);
        let settled = desk.engine.settle(&|| now).unwrap();
        assert_eq!(settled.summaries.len(), 1, "the mean is published at once");
        assert_eq!(desk.engine.broadcast().version(), ModelVersion(1));
        let mut job = desk.engine.poll_job();
        let done = if is_slow { None } else { job.take().map(|job| job.run(&mut |_, _| {})) };
        if let Some(done) = done {
            desk.engine.distilled(done).unwrap();
            assert_eq!(desk.engine.settle(&|| now).unwrap(), Settled::default(), "it waits for the round");
        }
        for name in NAMES {
            let answer = desk.check_in(name);
            assert!(matches!(answer, Assignment::Train(_)), "{answer:?}");
        }
        report_all(&mut desk, 0.5);
        let mut settled = desk.engine.settle(&|| now).unwrap();
        if let Some(job) = job {
            assert_eq!((settled.receipts.len(), settled.summaries.len()), (3, 0), "the round waits for it");
            desk.engine.distilled(job.run(&mut |_, _| {})).unwrap();
            settled = desk.engine.settle(&|| now).unwrap();
        }
        assert_eq!(settled.summaries[0].distilled.map(|distilled| distilled.teachers), Some(3));
        for (i, &value) in desk.engine.params().iter().enumerate() {
            let (weighted, plain) = if i < 3 { ((10 + 10 * i) as f32 / 60.0, 1.0 / 3.0) } else { (0.0, 0.0) };
            // Both rounds' means, and of half the way from the first one's to its teachers' mean a half.
            let expected = 0.75 * weighted + 0.5 * 0.5 * 0.25 * (plain - weighted);
            assert!((value - expected).abs() < 1e-6, "{i}: {value}, {expected}");
        }
    }
}

#[test]
fn a_distillation_beside_a_round_that_is_abandoned_waits_for_the_next() {
    let mut recipe = beside();
    (recipe.rounds.count, recipe.rounds.deadline_s) = (3, 5.0);
    recipe.distillation.every = 10;
    let mut desk = Desk::gathered(&recipe, &Disk::new());
    report_all(&mut desk, 0.25);
    desk.settle().unwrap();
    for name in NAMES {
        desk.check_in(name);
    }
    desk.settle().unwrap();
    desk.now = desk.now.after_ms(6_000);
    desk.engine.coordinator.tick(desk.now);
    let summaries = desk.settle().unwrap().summaries;
    assert_eq!((summaries[0].round, summaries[0].published), (2, false));
    for name in NAMES {
        desk.check_in(name);
    }
    desk.settle().unwrap();
    report_all(&mut desk, 0.5);
    let summaries = desk.settle().unwrap().summaries;
    assert_eq!((summaries[0].round, summaries[0].distilled.map(|distilled| distilled.teachers)), (3, Some(3)));
}

#[test]
fn who_only_looks_at_a_run_beside_a_distillation_needs_nothing_that_distills() {
    let disk = Disk::new();
    let mut desk = Desk::gathered(&beside(), &disk);
    report_all(&mut desk, 0.25);
    let now = desk.now;
    desk.engine.settle(&|| now).unwrap();
    let looked_at = open(Start { distiller: None, ..start(&beside(), &disk) }, now).unwrap();
    assert_eq!(looked_at.params(), desk.engine.params());
    assert!(open(start(&beside(), &disk), now).unwrap().poll_job().is_some(), "who goes on with it does that again");
}

#[test]
fn a_run_that_is_stopped_meanwhile_ends_without_it() {
    let mut desk = Desk::gathered(
        &Recipe { distillation: DistillationConfig { first_round: 1, ..distilled().distillation }, ..distilled() },
        &Disk::new(),
    );
    report_all(&mut desk, 0.25);
    let now = desk.now;
    desk.engine.settle(&|| now).unwrap();
    let job = desk.engine.poll_job().unwrap();
    desk.engine.coordinator.stop(now);
    let settled = desk.engine.settle(&|| now).unwrap();
    assert_eq!(
        settled.report.map(|report| (report.outcome, report.rounds, report.abandoned, report.cut_short)),
        Some((Outcome::Stopped, 1, 0, true))
    );
    desk.engine.distilled(job.run(&mut |_, _| {})).unwrap();
    assert_eq!(desk.engine.settle(&|| now).unwrap(), Settled::default());
    assert_eq!((desk.engine.broadcast().version(), desk.engine.params()), (ModelVersion(0), vec![0.0; LEN]));
}

#[test]
fn a_server_without_anything_that_distills_says_so() {
    let mut start = start(&distilled(), &Disk::new());
    start.distiller = None;
    start.recipe.distillation.first_round = 1;
    let mut desk = Desk { engine: open(start, Timestamp(0)).unwrap(), now: Timestamp(0) };
    for name in NAMES {
        desk.engine.coordinator.join(desk.now, &client(name), Token([1; 16])).unwrap();
    }
    for name in NAMES {
        desk.check_in(name);
    }
    desk.settle().unwrap();
    report_all(&mut desk, 0.25);
    assert!(matches!(desk.settle(), Err(EngineError::NoDistiller)));
}

//! Any order of messages, pauses and crashes: what holds all the time, and that the run ends once faults stop.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// One thing that happens to a federation.
#[derive(Clone, Debug)]
enum Op {
    Join(usize),
    CheckIn(usize),
    Progress(usize),
    /// Sends the update that the client was last asked for, be it late or for the second time.
    Send(usize),
    /// Reports an evaluation.
    Report(usize),
    /// Sends something that cannot count.
    Refused(usize),
    Pass(u64),
    /// Carries out so many effects at most, then crashes and starts again.
    Crash(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let client = 0..NAMES.len();
    prop_oneof![
        1 => client.clone().prop_map(Op::Join),
        4 => client.clone().prop_map(Op::CheckIn),
        2 => client.clone().prop_map(Op::Progress),
        6 => client.clone().prop_map(Op::Send),
        2 => client.clone().prop_map(Op::Report),
        1 => client.prop_map(Op::Refused),
        4 => (0..12_000u64).prop_map(Op::Pass),
        1 => (0..4usize).prop_map(Op::Crash),
    ]
}

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Clients that remember what they were asked, and what the server has promised them.
struct Federation {
    world: World,
    tasks: BTreeMap<&'static str, TrainTask>,
    evaluations: BTreeMap<&'static str, EvaluationTask>,
    /// Clients told to wait, with the generation and the reason.
    waiting: BTreeMap<&'static str, (u64, Waiting)>,
    seen: (u64, ModelVersion),
}

impl Federation {
    fn new() -> Self {
        let mut recipe = recipe();
        recipe.data.clients = NAMES.len() as u32;
        recipe.rounds.count = 5;
        recipe.rounds.min_clients = 4;
        recipe.rounds.cohort = 3;
        recipe.rounds.over_selection = 4.0 / 3.0;
        recipe.rounds.max_abandoned = 4;
        recipe.rounds.federated_evaluation_every = 2;
        Self {
            world: World::new(recipe),
            tasks: BTreeMap::new(),
            evaluations: BTreeMap::new(),
            waiting: BTreeMap::new(),
            seen: (0, ModelVersion(0)),
        }
    }

    fn check_in(&mut self, name: &'static str) {
        let check_in = check_in_of(name);
        self.waiting.remove(name);
        match self.world.coordinator.check_in(self.world.now, &check_in) {
            Ok(Assignment::Train(task)) => drop(self.tasks.insert(name, task)),
            Ok(Assignment::Evaluate(task)) => drop(self.evaluations.insert(name, task)),
            Ok(Assignment::Wait { reason, .. }) => {
                self.waiting.insert(name, (self.world.coordinator.generation(), reason));
            }
            Ok(Assignment::Finished { .. }) | Err(Reject::UnknownClient) => {}
            Err(reject) => panic!("{name} was refused a check-in: {reject}"),
        }
    }

    fn send(&mut self, name: &'static str) {
        let Some(task) = self.tasks.get(name) else { return };
        let header = UpdateHeader { round: task.round, base: task.base, ..self.world.header(name, "F") };
        let _answer = self.world.offer(&header);
    }

    fn report(&mut self, name: &'static str) {
        let Some(&EvaluationTask { round, version, .. }) = self.evaluations.get(name) else { return };
        let report = EvaluationReport { round, version, examples: 10, correct: 5, loss_sum: 1.0 };
        let _answer = self.world.coordinator.evaluated(self.world.now, &session(name), &report);
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Join(i) => self.world.join(NAMES[i]),
            Op::CheckIn(i) => self.check_in(NAMES[i]),
            Op::Progress(i) => drop(self.world.progress(NAMES[i])),
            Op::Send(i) => self.send(NAMES[i]),
            Op::Report(i) => self.report(NAMES[i]),
            Op::Refused(i) => {
                let round = RoundId { term: 1, number: self.world.round() };
                self.world.coordinator.refused(self.world.now, &session(NAMES[i]), Some(round), Reject::Corrupt);
            }
            Op::Pass(ms) => self.world.pass(ms),
            Op::Crash(after) => {
                self.world.settle_at_most(after);
                self.world.restart();
                self.waiting.clear();
            }
        }
    }

    /// What holds whenever everything decided is durable.
    fn check_settled(&mut self) {
        self.world.settle();
        let status = self.world.status();
        assert!((status.round, status.version) >= self.seen, "{status:?} after {:?}", self.seen);
        self.seen = (status.round, status.version);
    }

    /// What holds at any time.
    fn check(&mut self) {
        let generation = self.world.coordinator.generation();
        for (name, (at, reason)) in self.waiting.clone() {
            // Before the first round, and after one without enough clients, any call may bring the one that was missing.
            if at == generation && reason != Waiting::NotEnoughClients {
                self.check_in(name);
                assert_eq!(self.waiting.get(name), Some(&(at, reason)), "{name} was not woken");
            }
        }
    }

    /// Everybody takes part properly until the run is over.
    fn finish(&mut self) -> Outcome {
        for _ in 0..1000 {
            for name in NAMES {
                self.world.join(name);
                self.check_in(name);
                self.send(name);
                self.report(name);
            }
            self.world.settle();
            if let Some(outcome) = self.world.coordinator.outcome() {
                return outcome;
            }
            self.world.pass(1000);
        }
        panic!("the run does not end: {:?}", self.world.status());
    }

    /// What the log of a whole run must fulfil.
    fn check_log(&self) {
        let (mut accepted, mut rounds, mut versions, mut counted) = (BTreeSet::new(), vec![], vec![], 0);
        for effect in &self.world.log {
            match effect {
                Effect::Record(Record::UpdateAccepted { header, .. }) => {
                    assert!(accepted.insert((header.round.number, header.client.clone())), "counted twice: {header:?}");
                }
                Effect::Publish(closed) => {
                    assert!(closed.stats.counted >= self.world.recipe.quorum(), "{closed:?}");
                    assert_eq!(closed.base.0, versions.len() as u64);
                    versions.push(closed.base);
                    rounds.push(closed.number);
                    counted += closed.stats.counted;
                }
                Effect::Abandon(closed) => {
                    rounds.push(closed.number);
                    counted += closed.stats.counted;
                }
                _ => {}
            }
        }
        assert_eq!(rounds, (1..=rounds.len() as u64).collect::<Vec<_>>());
        assert_eq!(accepted.len(), counted as usize, "accepted = aggregated + abandoned");
        assert_eq!(self.world.coordinator.version().0, versions.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_run_keeps_its_promises_and_ends_once_faults_stop(ops in prop::collection::vec((op(), any::<bool>()), 0..150)) {
        let mut federation = Federation::new();
        for name in NAMES {
            federation.world.join(name);
        }
        for (op, settle) in &ops {
            federation.run(op);
            federation.check();
            if *settle {
                federation.check_settled();
                federation.check();
            }
        }
        let outcome = federation.finish();
        let expected = [Outcome::Completed, Outcome::GaveUp];
        prop_assert!(expected.contains(&outcome), "{outcome:?}");
        federation.check_log();
    }
}

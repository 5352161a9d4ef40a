//! Cases: what happens, in which order; how they are made, shown and made smaller.

use crate::attack::Attack;
use crate::world::{Ended, Setting, World};
use dunlin::core::{Rng, Seed};
use rand::Rng as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// One thing that happens. Numbers are taken modulo what there is to choose from, so that any list is a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A client that has something to do does it.
    Step(usize),
    /// A message arrives, and the server settles what it decided.
    Deliver(usize),
    /// A message arrives, and the server has others to look at before it settles.
    DeliverUnsettled(usize),
    /// A message is lost, and its sender notices.
    Drop(usize),
    /// The link breaks under an upload, of which only a part arrives.
    Cut(usize),
    /// A client that trains says that it advances.
    Progress(usize),
    /// A client that is to train has no bytes left for an update of the round.
    Decline(usize),
    /// A message to the server will arrive twice.
    Duplicate(usize),
    /// An upload from the past is sent again.
    Replay(usize),
    /// Time passes, in milliseconds.
    Advance(u64),
    /// The server crashes at its n-th commit from now, before or after that is written.
    CrashServer { after_commits: u32, written: bool },
    /// A client crashes and starts from what it kept.
    CrashClient(usize),
    /// A client crashes and has lost what it kept, its secret too.
    LoseClient(usize),
    /// The hostile client does its worst.
    Attack(Attack),
    /// A client that was not chosen, or has been counted, sends a right update all the same.
    Intrude(usize),
    /// Someone stops the run.
    Stop,
}

/// Which faults a case has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    /// All of them.
    All,
    /// Those through which every client comes in time: crashes, repetitions, disorder.
    Crashes,
}

/// A seed, which is the federation's, and what happens to it before the faults stop.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub seed: u64,
    pub faults: Faults,
    pub ops: Vec<Op>,
}

impl Case {
    /// A case from a seed alone.
    pub(crate) fn random(seed: u64, faults: Faults) -> Self {
        let mut rng = Seed::from_u64(seed).derive("faults").rng();
        let len = rng.random_range(50..1600);
        Self { seed, faults, ops: (0..len).map(|_| op(&mut rng, faults)).collect() }
    }

    /// Plays the case to its end and gives back what is left of it.
    ///
    /// A case that fails is made smaller first, and printed so that it can be pasted as a test.
    pub(crate) fn check(&self) -> Ended {
        let failed = match catch_unwind(AssertUnwindSafe(|| self.run())) {
            Ok(ended) => return ended,
            Err(panic) => panic,
        };
        let small = self.shrunk();
        #[expect(clippy::print_stderr, reason = "a failing test says how to repeat it")]
        {
            eprintln!(
                "use Op::*;\nCase {{ seed: {}, faults: Faults::{:?}, ops: vec!{:?} }}.check();",
                small.seed, small.faults, small.ops
            );
        }
        resume_unwind(failed)
    }

    fn run(&self) -> Ended {
        let setting = match self.faults {
            Faults::All => Setting::random(self.seed),
            Faults::Crashes => Setting::nobody_is_lost(self.seed),
        };
        let mut world = World::new(setting);
        world.play(&self.ops);
        world.finish()
    }

    /// Leaves out runs of operations as long as the case still fails.
    fn shrunk(&self) -> Self {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let mut best = self.clone();
        let mut len = best.ops.len().div_ceil(2);
        while len > 0 {
            let mut start = 0;
            while start < best.ops.len() {
                let mut smaller = best.clone();
                smaller.ops.drain(start..(start + len).min(best.ops.len()));
                if catch_unwind(AssertUnwindSafe(|| smaller.run())).is_err() {
                    best = smaller;
                } else {
                    start += len;
                }
            }
            len = if len == 1 { 0 } else { len.div_ceil(2) };
        }
        std::panic::set_hook(hook);
        best
    }
}

fn op(rng: &mut Rng, faults: Faults) -> Op {
    let any = rng.random_range(0..1000);
    match (rng.random_range(0..1000), faults) {
        (0..2, Faults::All) => Op::Decline(any),
        (0..380, _) => Op::Step(any),
        (380..404, _) => Op::Progress(any),
        (404..450, _) => Op::Cut(any),
        (450..700, _) => Op::Deliver(any),
        (700..820, _) => Op::DeliverUnsettled(any),
        (820..850, _) => Op::Drop(any),
        (850..880, _) => Op::Duplicate(any),
        (880..895, _) => Op::Replay(any),
        (895..945, _) => Op::Advance(rng.random_range(1..800)),
        (945..955, _) => Op::CrashServer { after_commits: rng.random_range(0..8), written: rng.random() },
        (955..965, _) => Op::CrashClient(any),
        (965..968, Faults::All) => Op::LoseClient(any),
        (968..973, Faults::All) => Op::Advance(rng.random_range(800..200_000)),
        (973..980, Faults::All) => Op::Intrude(any),
        (980..999, Faults::All) => Op::Attack(Attack::ALL[any % Attack::ALL.len()]),
        // Rare, so that most runs go on to their last round.
        (_, Faults::All) => {
            if rng.random_bool(0.1) {
                Op::Stop
            } else {
                Op::Step(any)
            }
        }
        (_, Faults::Crashes) => Op::Step(any),
    }
}

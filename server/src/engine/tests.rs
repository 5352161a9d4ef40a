//! Runs on a store that remembers, fails and lies, driven by clients that are a function.

mod common;
mod crash;
mod distillation;
mod publishing;

use super::*;
use crate::coordinator::PhaseName;
use crate::distill::{Distill, Request};
use crate::global;
use crate::store::{MemoryStore, Restored, RunRow};
use dunlin_codec::{Codec, Encoder, EntropyCoder, Mask, Quantizer};
use dunlin_core::message::{Assignment, CheckIn, EvaluationReport, TrainTask};
use dunlin_core::recipe::{LinkConfig, Pattern, QuantizerKind, Width};
use dunlin_core::report::{Distilled, FederatedEvaluation};
use dunlin_core::{Choice, ModelVersion, Outcome, RoundId, RunId, TensorSpec, Token};
use dunlin_nn::train::Evaluation;
use std::sync::Mutex;

const RUN: RunId = RunId([7; 8]);
const NAMES: [&str; 3] = ["a", "b", "c"];
const LEN: usize = 12;
const DENSE: u64 = 4 * LEN as u64;

fn layout() -> Layout {
    Layout::new(vec![TensorSpec::new("w", [3, 3]), TensorSpec::new("b", [3])]).unwrap()
}

/// Three clients in every round; nothing is lost on the way in either direction.
fn recipe() -> Recipe {
    let mut recipe = Recipe::default();
    recipe.data.clients = 3;
    recipe.rounds.cohort = 3;
    recipe.rounds.count = 3;
    recipe.rounds.quorum = 0.5;
    recipe.rounds.idle_timeout_s = 10.0;
    for link in [&mut recipe.uplink, &mut recipe.downlink] {
        *link = LinkConfig { density: 1.0, quantizer: QuantizerKind::F32, coder: EntropyCoder::Raw, ..link.clone() };
    }
    recipe
}

/// A disk that all starts of a server share, and that can fail.
#[derive(Clone)]
struct Disk(Arc<Mutex<Drive>>);

struct Drive {
    store: MemoryStore,
    commits: u32,
    /// The commit that fails, counted from 1, and whether it is durable all the same.
    fault: Option<(u32, bool)>,
}

impl Disk {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(Drive { store: MemoryStore::new(64), commits: 0, fault: None })))
    }

    /// Fails at the `commit`-th commit from now on, before or after it is durable.
    fn fail_at(&self, commit: u32, durable: bool) {
        let mut drive = self.0.lock().unwrap();
        drive.fault = Some((drive.commits + commit, durable));
    }

    fn commits(&self) -> u32 {
        self.0.lock().unwrap().commits
    }

    fn restored(&self) -> Restored {
        self.0.lock().unwrap().store.restore(RUN).unwrap()
    }
}

impl Store for Disk {
    fn runs(&mut self) -> Result<Vec<RunRow>, StoreError> {
        self.0.lock().unwrap().store.runs()
    }

    fn create(&mut self, run: &RunRow) -> Result<(), StoreError> {
        self.0.lock().unwrap().store.create(run)
    }

    fn restore(&mut self, run: RunId) -> Result<Restored, StoreError> {
        self.0.lock().unwrap().store.restore(run)
    }

    fn commit(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let mut drive = self.0.lock().unwrap();
        drive.commits += 1;
        let fault = drive.fault.filter(|(commit, _)| *commit == drive.commits);
        if fault.is_none_or(|(_, durable)| durable) {
            drive.store.commit(records)?;
        }
        match fault {
            Some(_) => Err(StoreError::Damaged { what: "the disk".into(), reason: "a test pulled it out".into() }),
            None => Ok(()),
        }
    }
}

/// Judges a model by its first parameter, which is right at 1.
struct FirstParameter;

impl Evaluate for FirstParameter {
    fn evaluate(&mut self, params: &[f32]) -> Result<Evaluation, dunlin_nn::Error> {
        let correct = (params[0] * 100.0).round() as u64;
        Ok(Evaluation { examples: 100, correct, loss_sum: 100.0 - f64::from(params[0]) })
    }
}

/// Moves the student half of the way to the teachers' mean.
struct Halfway;

impl Distill for Halfway {
    fn distill(
        &mut self,
        request: &Request,
        student: &mut Vec<f32>,
        progress: crate::distill::Progress<'_>,
    ) -> Result<Distilled, dunlin_nn::Error> {
        let teachers: Vec<_> = (0..request.teachers()).map(|index| request.teacher(index).unwrap()).collect();
        for (at, value) in student.iter_mut().enumerate() {
            let mean = teachers.iter().map(|teacher| teacher[at]).sum::<f32>() / teachers.len() as f32;
            *value += 0.5 * (mean - *value);
        }
        progress(1, 1);
        Ok(Distilled { teachers: teachers.len() as u32, ..Distilled::default() })
    }
}

/// Two inputs, two hidden units and two classes, for clients of two sizes: as long as [`layout`].
fn sized_layout() -> Layout {
    let tensors = [("a", vec![2, 2]), ("ab", vec![2]), ("b", vec![2, 2]), ("bb", vec![2])];
    Layout::new(tensors.map(|(name, shape)| TensorSpec::new(name, shape)).to_vec()).unwrap()
}

/// In a recipe with sizes the first client has the whole model, and the others half of it.
fn width_of(recipe: &Recipe, name: &str) -> Width {
    if recipe.size.is_empty() || name == NAMES[0] { Width::WHOLE } else { Width::new(0.5).unwrap() }
}

fn start(recipe: &Recipe, disk: &Disk) -> Start {
    Start {
        recipe: recipe.clone(),
        layout: if recipe.size.is_empty() && recipe.pruning.pattern != Pattern::Channels {
            layout()
        } else {
            sized_layout()
        },
        initial: vec![0.0; LEN],
        store: Box::new(disk.clone()),
        evaluator: Some(Box::new(FirstParameter)),
        distiller: recipe.distillation.is_on().then(|| Box::new(Halfway) as Box<dyn Distill>),
        simulated: true,
        anew: false,
        id: RUN,
        created_ms: 1,
    }
}

/// An engine and its simulated time.
struct Desk {
    engine: Engine,
    now: Timestamp,
}

impl Desk {
    fn open(recipe: &Recipe, disk: &Disk, now: Timestamp) -> Self {
        Self { engine: open(start(recipe, disk), now).unwrap(), now }
    }

    /// A new run with all clients ready for the first round.
    fn gathered(recipe: &Recipe, disk: &Disk) -> Self {
        let mut desk = Self::open(recipe, disk, Timestamp(0));
        for name in NAMES {
            desk.engine.coordinator.join(desk.now, &client(name), Token([1; 16])).unwrap();
        }
        for name in NAMES {
            desk.check_in(name);
        }
        desk.settle().unwrap();
        desk
    }

    fn settle(&mut self) -> Result<Settled, EngineError> {
        let now = self.now;
        self.engine.settle_at_once(&|| now)
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now.after_ms(ms);
        self.engine.coordinator.tick(self.now);
    }

    fn check_in(&mut self, name: &str) -> Assignment {
        let width = width_of(self.engine.recipe(), name);
        let check_in =
            CheckIn { session: session(name), examples: 1000, width, held: None, wait_ms: 0, declines: None };
        self.engine.coordinator.check_in(self.now, &check_in).unwrap()
    }

    fn task(&mut self, name: &str) -> TrainTask {
        match self.check_in(name) {
            Assignment::Train(task) => task,
            other => panic!("{name} got {other:?}"),
        }
    }

    /// Uploads what the client made of the round's task, as a server receives it.
    fn upload(&mut self, name: &str, examples: u32, values: &[f32]) -> (UpdateHeader, Result<Offer, Reject>) {
        let task = self.task(name);
        let (header, frame) = update(name, &task, examples, values);
        let stages = self.engine.rules().vet(&header, &frame).unwrap();
        self.engine.count_upload(header.frame_len);
        let offer = self.engine.offer(self.now, &session(name), &header, (frame, stages));
        (header, offer)
    }
}

fn update(name: &str, task: &TrainTask, examples: u32, values: &[f32]) -> (UpdateHeader, Bytes) {
    update_within(&Mask::all(Arc::new(layout().segments())), name, task, examples, values)
}

fn update_within(mask: &Mask, name: &str, task: &TrainTask, examples: u32, values: &[f32]) -> (UpdateHeader, Bytes) {
    let frame = Encoder::new().encode(&task.codec, mask.segments(), values).unwrap().frame;
    let header = UpdateHeader {
        client: client(name),
        round: task.round,
        base: task.base,
        examples,
        loss: 0.5,
        frame_len: frame.len() as u64,
        digest: Digest::of(&frame),
    };
    (header, frame.into())
}

/// The vector that is `value` in one place and nothing elsewhere: the mean shows who was counted and how often.
fn unit(index: usize, value: f32) -> Vec<f32> {
    let mut values = vec![0.0; LEN];
    values[index] = value;
    values
}

fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

fn session(name: &str) -> Session {
    Session { run: RUN, client: client(name), token: Token([1; 16]) }
}

fn receipt(header: &UpdateHeader) -> (ClientId, Receipt) {
    (header.client.clone(), Receipt { round: header.round, digest: header.digest, duplicate: false })
}

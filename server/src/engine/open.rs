//! The beginning of a run, or its continuation after a restart.

use super::{Distillations, Engine, EngineError, Tally, Timings};
use crate::aggregate::{self, Aggregator, SlicedSum};
use crate::coordinator::{Config, Coordinator, Resume};
use crate::distill::{Distill, Job, Request};
use crate::evaluate::Evaluate;
use crate::global::GlobalModel;
use crate::packet::Packet;
use crate::store::{Restored, RunRow, Store};
use crate::vet::Rules;
use dunlin_codec::Limits;
use dunlin_core::message::UpdateHeader;
use dunlin_core::{Digest, Layout, ModelVersion, Recipe, RunId, Seed, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// What a run is made of.
pub struct Start {
    /// The recipe.
    pub recipe: Recipe,
    /// The model's tensors.
    pub layout: Layout,
    /// The model's parameters before any training.
    pub initial: Vec<f32>,
    /// Where it is kept.
    pub store: Box<dyn Store>,
    /// How it is evaluated; nothing without a test set.
    pub evaluator: Option<Box<dyn Evaluate>>,
    /// What distills, where the recipe says that the server does.
    pub distiller: Option<Box<dyn Distill>>,
    /// Whether timestamps are simulated time.
    pub simulated: bool,
    /// Start anew even if the store has a run of this recipe.
    pub anew: bool,
    /// Name of a new run, and when it is created, in milliseconds since the Unix epoch.
    pub id: RunId,
    /// See `id`.
    pub created_ms: u64,
}

impl Start {
    /// The row of a run that begins.
    #[must_use]
    pub fn row(&self) -> RunRow {
        RunRow {
            id: self.id,
            name: self.recipe.name.clone(),
            recipe: self.recipe.to_toml(),
            recipe_digest: Digest(self.recipe.digest()),
            created_ms: self.created_ms,
            outcome: None,
            rounds: 0,
        }
    }
}

/// Goes on with the newest run of the recipe in the store, or begins one.
///
/// # Errors
/// When the store fails or is damaged, or what it holds cannot be computed again to the same bits.
pub fn open(mut start: Start, now: Timestamp) -> Result<Engine, EngineError> {
    let recipe_digest = Digest(start.recipe.digest());
    let known = start.store.runs()?.into_iter().find(|run| run.recipe_digest == recipe_digest);
    for other in start.store.runs()? {
        if other.outcome.is_none() && other.recipe_digest != recipe_digest {
            tracing::warn!(run = %other.id, name = %other.name, "a run of another recipe stands unfinished in this place");
        }
    }
    let (run, restored) = match known.filter(|_| !start.anew) {
        Some(run) => (run.id, start.store.restore(run.id)?),
        None => {
            start.store.create(&start.row())?;
            (start.id, Restored::default())
        }
    };
    restore(start, run, restored, now)
}

fn restore(start: Start, run: RunId, restored: Restored, now: Timestamp) -> Result<Engine, EngineError> {
    let Start { recipe, layout, initial, store, evaluator, distiller, simulated, .. } = start;
    let mut model = match &restored.checkpoint {
        Some((_, state)) => GlobalModel::from_checkpoint(&recipe, &layout, &initial, state)?,
        None => GlobalModel::new(&recipe, &layout, &initial)?,
    };
    let mut packets = Vec::with_capacity(restored.packets.len());
    for (version, bytes) in &restored.packets {
        packets.push((*version, Packet::parse(bytes.clone())?));
    }
    let add = |sum: &mut SlicedSum, rules: &Rules, updates: &[(UpdateHeader, bytes::Bytes)]| {
        updates.iter().try_fold(0, |bytes, (header, frame)| {
            let rules = rules.for_frame(frame);
            sum.add_frame(frame, rules.segments(), rules.limits(), header.examples)?;
            Ok::<_, EngineError>(bytes + frame.len() as u64)
        })
    };
    let (mut uncheckpointed, mut pending) = ((0, 0), None);
    for row in &restored.replay {
        let (mut sum, rules) = (model.sum(row.round), Rules::new(&recipe, &model.broadcast_grid(), row.round));
        let rules = rules.with_slices(model.slices());
        uncheckpointed.0 += add(&mut sum, &rules, &row.updates)?;
        uncheckpointed.1 += 1;
        model.step(row.round, &mut sum)?;
        // Of the rounds that a restart computes again, only the last can be one whose distillation nobody has taken up.
        pending = recipe.is_distilled_beside(row.round).then(|| {
            // In the order of the clients' names, as the store has them.
            let frames = row.updates.iter().map(|(_, frame)| frame.clone()).collect();
            (Request::new(row.round, model.broadcast_grid(), Arc::new(rules), frames), model.stepped())
        });
        let published = model.send(row.round)?;
        if (published.version, published.digest) != (row.version, row.digest) {
            return Err(EngineError::Replay { round: row.round, expected: row.digest, got: published.digest });
        }
        packets.retain(|(version, _)| *version != published.version);
        packets.push((published.version, published.packet));
    }
    let mut resume = Resume::from_store(&restored, &recipe);
    // The round that goes on, or the one that comes next.
    let round = restored.open.as_ref().map_or(resume.round + 1, |open| open.round);
    let mut sum = model.sum(round);
    let rules = Arc::new(Rules::new(&recipe, &model.broadcast_grid(), round).with_slices(model.slices()));
    let config = Config::from_recipe(&recipe, Limits::for_segments(&layout.segments()).max_frame_bytes as u64);
    let mut tally = Tally::default();
    let mut teachers = BTreeMap::new();
    if let Some(open) = &restored.open {
        for (header, frame) in open.updates.iter().filter(|_| recipe.is_distilled(round)) {
            teachers.insert(header.client.clone(), frame.clone());
        }
        uncheckpointed.0 += add(&mut sum, &rules, &open.updates)?;
        for (_, frame) in &open.updates {
            tally.stages += rules.stages_of(frame).map_err(aggregate::Error::Frame)?;
            tally.bytes.up += frame.len() as u64;
            let dense = rules.for_frame(frame).slice().map_or(layout.len(), |slice| slice.len());
            tally.bytes.up_dense += 4 * dense as u64;
        }
    }
    let broadcast = Arc::new(model.broadcast(packets, recipe.limits.packet_ring));
    debug_assert!(resume.version == model.version() || resume.version == ModelVersion(0));
    resume.version = model.version();
    let was_over = resume.outcome.is_some();
    let mut distillations = Distillations { distiller, teachers, ..Distillations::default() };
    if let Some((request, student)) = pending.filter(|_| !was_over) {
        distillations.beside = Some(student.clone());
        // Who only looks at a run has none; then no round is closed either.
        let distiller = distillations.distiller.take();
        distillations.job = distiller.map(|distiller| Job { distiller, request, student });
    }
    let participants = restored.receipts.iter().map(|(client, _, _)| client.clone()).collect();
    let seed = Seed::from_u64(recipe.seed).derive("coordinator");
    let coordinator = Coordinator::new(config, run, seed, resume, now);
    Ok(Engine {
        coordinator,
        recipe,
        layout,
        rules,
        model,
        sum,
        store,
        evaluator,
        distillations,
        broadcast,
        unpublished: None,
        tally,
        decoded: BTreeMap::new(),
        uncheckpointed,
        simulated,
        earlier_seconds: restored.summaries.iter().map(|summary| summary.seconds).sum(),
        started: (!was_over).then(Instant::now),
        summaries: restored.summaries,
        round_started: Instant::now(),
        participants,
        timings: Timings::default(),
        report: None,
    })
}

//! A run on one thread: the coordinator's decisions carried out on the model, the sum and the store.
//!
//! The engine has no sockets and no clock of its own, so a simulation drives the very same value with simulated time.
//! Callers hand it any number of messages and then [`Engine::settle`] it: all that was decided meanwhile shares one disk
//! sync, and only then may answers be sent.

mod distilling;
mod error;
mod open;
mod summary;
mod timings;

pub use error::EngineError;
pub use open::{Start, open};
pub use timings::Timings;

use distilling::{Distillations, Taken};
use summary::Tally;

use crate::aggregate::{Aggregator, SlicedSum};
use crate::broadcast::Broadcast;
use crate::coordinator::{ClosedRound, Coordinator, Effect, Offer, reaches_target};
use crate::evaluate::Evaluate;
use crate::global::GlobalModel;
use crate::store::{Record, Store, StoreError};
use crate::vet::{Rules, Vetted};
use bytes::Bytes;
use dunlin_codec::{StageBytes, is_plain_dense};
use dunlin_core::message::{Receipt, Session, UpdateHeader, Welcome};
use dunlin_core::report::{Bytes as ByteCount, Report, RoundSummary};
use dunlin_core::{ClientId, Digest, Layout, Recipe, Reject, Timestamp};
use dunlin_nn::small::Slices;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// One run of a recipe.
pub struct Engine {
    /// Decides.
    pub coordinator: Coordinator,
    recipe: Recipe,
    layout: Layout,
    rules: Arc<Rules>,
    model: GlobalModel,
    sum: SlicedSum,
    store: Box<dyn Store>,
    evaluator: Option<Box<dyn Evaluate>>,
    distillations: Distillations,
    broadcast: Arc<Broadcast>,
    /// The version after it, while its records are not durable yet.
    unpublished: Option<Arc<Broadcast>>,
    summaries: Vec<RoundSummary>,
    /// Of the round under way.
    tally: Tally,
    /// Values of offered updates that are not durable yet, where vetting kept them.
    decoded: BTreeMap<ClientId, Vec<(u32, f32)>>,
    /// Frames of published rounds that a restart would have to add up again, in bytes and rounds.
    uncheckpointed: (u64, u64),
    simulated: bool,
    /// Of the rounds before this start of the server.
    earlier_seconds: f64,
    /// When this start was; nothing for a run that was over before.
    started: Option<Instant>,
    round_started: Instant,
    participants: BTreeSet<ClientId>,
    timings: Timings,
    report: Option<Report>,
}

/// What [`Engine::settle`] leads to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settled {
    /// Updates that have become durable, with their receipts.
    pub receipts: Vec<(ClientId, Receipt)>,
    /// Summaries of rounds that ended, or learned more.
    pub summaries: Vec<RoundSummary>,
    /// The report, once the run has ended.
    pub report: Option<Report>,
}

impl Engine {
    /// The recipe of the run.
    #[must_use]
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// The model's tensors.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What received frames are held against.
    #[must_use]
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// The version handed out now.
    #[must_use]
    pub fn broadcast(&self) -> &Arc<Broadcast> {
        &self.broadcast
    }

    /// The parts of the model that smaller clients have.
    #[must_use]
    pub fn slices(&self) -> &Slices {
        self.model.slices()
    }

    /// Parameters that are left of the model.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.model.mask().len()
    }

    /// Summaries of the rounds so far.
    #[must_use]
    pub fn summaries(&self) -> &[RoundSummary] {
        &self.summaries
    }

    /// Bytes of the rounds so far, and of the one under way.
    #[must_use]
    pub fn bytes(&self) -> ByteCount {
        let mut bytes = self.tally.bytes;
        for summary in &self.summaries {
            bytes += summary.bytes;
        }
        bytes
    }

    /// The report, once the run has ended and was settled.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    /// Where the time went.
    #[must_use]
    pub fn timings(&self) -> &Timings {
        &self.timings
    }

    /// The runs in the store, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn runs(&mut self) -> Result<Vec<crate::store::RunRow>, StoreError> {
        self.store.runs()
    }

    /// The broadcast model as floats.
    #[must_use]
    pub fn params(&self) -> Vec<f32> {
        self.model.broadcast_f32()
    }

    /// The answer to a client that has joined.
    #[must_use]
    pub fn welcome(&self) -> Welcome {
        Welcome { run: self.coordinator.run(), recipe: self.recipe.to_toml(), layout: Digest(self.layout.digest()) }
    }

    /// Offers a verified update; its receipt comes out of [`Self::settle`].
    ///
    /// # Errors
    /// The reason why it does not count.
    pub fn offer(
        &mut self,
        now: Timestamp,
        session: &Session,
        header: &UpdateHeader,
        (frame, vetted): (Bytes, Vetted),
    ) -> Result<Offer, Reject> {
        let slice = self.model.slices().get(self.coordinator.width(&session.client));
        let expected = slice.map_or(self.rules.segments().len(), |slice| slice.len());
        // Where there are no sizes, the length may be that of an earlier round, which the coordinator calls late.
        if self.model.slices().iter().len() > 0 && vetted.coordinates != expected {
            self.coordinator.refused(now, session, Some(header.round), Reject::WrongShape);
            return Err(Reject::WrongShape);
        }
        let dense = slice.map_or(self.dense_bytes(), |slice| 4 * slice.len() as u64);
        let offer = self.coordinator.offer(now, session, header, frame)?;
        if offer == Offer::Store {
            self.tally.stages += vetted.stages;
            self.tally.bytes.up_dense += dense;
            if let Some(values) = vetted.values {
                self.decoded.insert(header.client.clone(), values);
            }
        }
        Ok(offer)
    }

    /// Counts frame bytes that arrived, whether or not they were of use.
    pub fn count_upload(&mut self, bytes: u64) {
        self.tally.bytes.up += bytes;
    }

    /// Counts frame bytes that were sent to a client so that it gets a model.
    pub fn count_download(&mut self, stages: StageBytes) {
        self.tally.bytes.down += stages.coded;
        self.tally.bytes.down_dense += stages.dense;
        self.tally.downlink += stages;
    }

    /// Carries out everything that was decided, until nothing is left to do before the next message.
    ///
    /// # Errors
    /// When the store or the model fails. Then the process should end: what is durable is consistent, and a restart
    /// goes on from it.
    pub fn settle(&mut self, clock: &dyn Fn() -> Timestamp) -> Result<Settled, EngineError> {
        let mut settled = Settled::default();
        let mut batch = self.go_on(clock, &mut settled)?;
        loop {
            match self.coordinator.poll_effect() {
                Some(Effect::Record(record)) => batch.push(record),
                Some(effect) => {
                    self.commit(&mut batch, clock, &mut settled)?;
                    match effect {
                        Effect::Record(_) => {}
                        // Nobody hears of it before what follows, often the next round's opening, is durable with it.
                        Effect::Publish(closed) => batch = self.close(closed, clock, &mut settled)?,
                        Effect::Abandon(closed) => batch.push(self.abandon(&closed, &mut settled)),
                        Effect::Evaluated { round, result } => {
                            batch.extend(self.evaluated(round, result, &mut settled));
                        }
                    }
                }
                None if batch.is_empty() => break,
                None => self.commit(&mut batch, clock, &mut settled)?,
            }
        }
        // All is durable: from here on it may be handed out.
        if let Some(broadcast) = self.unpublished.take() {
            self.broadcast = broadcast;
        }
        if self.report.is_none()
            && let Some(outcome) = self.coordinator.outcome()
        {
            self.end_distillations();
            let report = self.conclude(outcome)?;
            self.report = Some(report);
            settled.report.clone_from(&self.report);
        }
        Ok(settled)
    }

    fn commit(
        &mut self,
        batch: &mut Vec<Record>,
        clock: &dyn Fn() -> Timestamp,
        settled: &mut Settled,
    ) -> Result<(), EngineError> {
        if batch.is_empty() {
            return Ok(());
        }
        let timer = Instant::now();
        self.store.commit(batch)?;
        self.timings.sync += timer.elapsed();
        if batch.iter().any(|record| matches!(record, Record::Published { .. }))
            && let Some(distiller) = &mut self.distillations.distiller
        {
            distiller.settled();
        }
        let timer = Instant::now();
        self.add_up(batch)?;
        self.timings.sum += timer.elapsed();
        for record in batch.drain(..) {
            match record {
                Record::UpdateAccepted { header, frame } => {
                    self.uncheckpointed.0 += frame.len() as u64;
                    self.participants.insert(header.client.clone());
                    if self.recipe.is_distilled(header.round.number) {
                        self.distillations.teachers.insert(header.client.clone(), frame.clone());
                    }
                    let receipt = self.coordinator.stored(clock(), &header);
                    settled.receipts.push((header.client, receipt));
                }
                Record::RoundOpened { .. } => self.round_started = Instant::now(),
                _ => {}
            }
        }
        Ok(())
    }

    /// Adds the accepted updates to the sum, dense ones of the whole model a few at a time.
    fn add_up(&mut self, batch: &[Record]) -> Result<(), EngineError> {
        let whole = self.rules.segments();
        let mut dense = Vec::new();
        for record in batch {
            let Record::UpdateAccepted { header, frame } = record else { continue };
            let rules = self.rules.for_frame(frame);
            let segments = rules.segments();
            match self.decoded.remove(&header.client) {
                Some(values) => self.sum.add_values_of(segments.len(), &values, header.examples)?,
                None if rules.slice().is_none() && is_plain_dense(frame) => dense.push((&**frame, header.examples)),
                None => self.sum.add_frame(frame, segments, rules.limits(), header.examples)?,
            }
        }
        for updates in dense.chunks(ADDED_TOGETHER) {
            self.sum.add_dense(updates, whole, self.rules.limits())?;
        }
        Ok(())
    }

    fn publish(
        &mut self,
        closed: &ClosedRound,
        taken: Taken,
        clock: &dyn Fn() -> Timestamp,
        settled: &mut Settled,
    ) -> Result<Vec<Record>, EngineError> {
        let timer = Instant::now();
        let published = self.model.send(closed.number)?;
        self.turn_to(closed.number + 1);
        let grid = self.model.broadcast_grid();
        let broadcast = self.newest().advance(grid, published.digest, published.packet.clone());
        self.timings.publish += timer.elapsed();
        let mut summary = self.summarize(closed);
        summary.published = true;
        summary.version = published.version.0;
        summary.distilled = taken.distilled;
        summary.packet = published.packet.frame_bytes() + broadcast.announcement_bytes();
        summary.kept = self.recipe.pruning.is_on().then(|| self.model.mask().len() as u64);
        summary.model_digest = published.digest.to_string();
        let (every, count) = (self.recipe.rounds.evaluate_every, self.recipe.rounds.count);
        let due = every > 0 && closed.number.is_multiple_of(every);
        if due || closed.number >= count {
            self.evaluate_into(&mut summary)?;
        }
        let reached = reaches_target(&self.recipe, closed.number, summary.accuracy);
        self.uncheckpointed.1 += 1;
        let mut records = vec![Record::Published {
            version: published.version,
            digest: published.digest,
            packet: published.packet.to_bytes(),
            summary: summary.clone(),
        }];
        records.extend(self.checkpoint(taken));
        self.unpublished = Some(Arc::new(broadcast));
        self.push(summary, settled);
        self.timings.rounds += 1;
        self.coordinator.published(clock(), published.version, reached);
        Ok(records)
    }

    /// Makes ready for the updates of another round.
    fn turn_to(&mut self, round: u64) {
        self.distillations.teachers.clear();
        if self.recipe.pruning.is_on() || self.recipe.common.is_on() {
            self.sum = self.model.sum(round);
            let rules = Rules::new(&self.recipe, &self.model.broadcast_grid(), round);
            self.rules = Arc::new(rules.with_slices(self.model.slices()));
        } else {
            self.sum.clear();
        }
    }

    fn abandon(&mut self, closed: &ClosedRound, settled: &mut Settled) -> Record {
        self.turn_to(closed.number + 1);
        let summary = self.summarize(closed);
        self.push(summary.clone(), settled);
        Record::Abandoned { summary }
    }

    fn newest(&self) -> &Broadcast {
        self.unpublished.as_ref().unwrap_or(&self.broadcast)
    }

    /// A restart adds up again what came after the last checkpoint: as much as writing the state anew costs.
    fn checkpoint_due(&self) -> bool {
        let (bytes, rounds) = self.uncheckpointed;
        rounds >= MAX_ROUNDS_WITHOUT_CHECKPOINT || bytes >= 8 * self.dense_bytes()
    }

    fn dense_bytes(&self) -> u64 {
        4 * self.layout.len() as u64
    }
}

/// Dense updates that are added in one go through the sum, at most: more gain little.
const ADDED_TOGETHER: usize = 16;

/// Rounds that a restart computes again at most.
const MAX_ROUNDS_WITHOUT_CHECKPOINT: u64 = 50;

#[cfg(test)]
mod tests;

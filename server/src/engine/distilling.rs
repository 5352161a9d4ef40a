//! Distillations: handed out as a job, and taken back as one more thing to settle.
//!
//! A round either waits for its distillation, or the next one goes on beside it. A share of what the distillation has
//! changed about the model is then added at the end of that next round, whenever it was done: so the result depends on no
//! clock. It is a share because that round's clients, who began with a model that was not distilled, have changed a part of
//! the same; with all of it the model goes beyond and comes back, from round to round (docs/BENCHMARKS.md).

use super::{Engine, EngineError, Settled};
use crate::coordinator::ClosedRound;
use crate::distill::{Distill, Done, Job, Request};
use crate::store::Record;
use bytes::Bytes;
use dunlin_core::report::Distilled;
use dunlin_core::{ClientId, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

/// The distillations of a run: who teaches, what is under way, and what it has come to.
#[derive(Default)]
pub(super) struct Distillations {
    /// Absent where the recipe has no distillation, and while one is under way.
    pub(super) distiller: Option<Box<dyn Distill>>,
    /// The accepted updates of the round under way, where it ends with a distillation.
    pub(super) teachers: BTreeMap<ClientId, Bytes>,
    /// One that nobody has begun yet.
    pub(super) job: Option<Job>,
    /// Of one beside which the rounds go on, the model that it began with, whole.
    pub(super) beside: Option<Vec<f32>>,
    /// The round that waits: for what is beside it, or for its own.
    pub(super) waiting: Option<ClosedRound>,
    /// What one has come to.
    pub(super) done: Option<(Vec<f32>, Distilled)>,
}

/// What a version of the model has of a distillation.
#[derive(Default)]
pub(super) struct Taken {
    /// How that went.
    pub(super) distilled: Option<Distilled>,
    /// The state of the model to which it was added, before the round at hand: with this no restart does it again.
    checkpoint: Option<Record>,
}

impl Engine {
    /// [`Self::settle`] for a caller that has nothing else to do meanwhile: a distillation is done at once, here.
    ///
    /// # Errors
    /// As [`Self::settle`] and [`Self::distilled`].
    pub fn settle_at_once(&mut self, clock: &dyn Fn() -> Timestamp) -> Result<Settled, EngineError> {
        let mut settled = self.settle(clock)?;
        while let Some(job) = self.poll_job() {
            self.distilled(job.run(&mut |_, _| {}))?;
            let after = self.settle(clock)?;
            settled.receipts.extend(after.receipts);
            settled.summaries.extend(after.summaries);
            settled.report = settled.report.or(after.report);
        }
        Ok(settled)
    }

    /// A distillation to be done, on whatever thread. What becomes of it goes to [`Self::distilled`].
    pub fn poll_job(&mut self) -> Option<Job> {
        self.distillations.job.take()
    }

    /// Takes what became of a job; the next [`Self::settle`] goes on with it.
    ///
    /// # Errors
    /// When the distillation failed.
    pub fn distilled(&mut self, done: Done) -> Result<(), EngineError> {
        self.distillations.distiller = Some(done.distiller);
        if self.report.is_some() {
            if let Err(error) = done.result {
                tracing::warn!(%error, "a distillation that the run has ended without");
            }
            self.end_distillations();
            return Ok(());
        }
        self.distillations.done = Some(done.result.map_err(EngineError::Distill)?);
        Ok(())
    }

    /// Publishes a round, unless a distillation comes first: then it waits, and [`Self::go_on`] does.
    pub(super) fn close(
        &mut self,
        closed: ClosedRound,
        clock: &dyn Fn() -> Timestamp,
        settled: &mut Settled,
    ) -> Result<Vec<Record>, EngineError> {
        let beside = self.recipe.is_distilled_beside(closed.number);
        let mut taken = Taken::default();
        if let Some(before) = &self.distillations.beside {
            let Some((mut student, distilled)) = self.distillations.done.take() else {
                self.distillations.waiting = Some(closed);
                return Ok(Vec::new());
            };
            let share = self.recipe.distillation.overlap as f32;
            student.iter_mut().zip(before).for_each(|(student, before)| *student = share * (*student - before));
            self.distillations.beside = None;
            self.model.add(&student)?;
            // The next one must be able to start again from this round's updates, which a later checkpoint would drop.
            taken.checkpoint = self
                .recipe
                .is_distilled(closed.number)
                .then(|| Record::Checkpoint { version: self.model.version(), state: self.model.checkpoint() });
            taken.distilled = Some(distilled);
        }
        let timer = Instant::now();
        self.model.step(closed.number, &mut self.sum)?;
        self.timings.publish += timer.elapsed();
        if self.recipe.is_distilled(closed.number) {
            let frames = std::mem::take(&mut self.distillations.teachers).into_values().collect();
            let request = Request::new(closed.number, self.model.broadcast_grid(), Arc::clone(&self.rules), frames);
            let student = self.model.stepped();
            let distiller = self.distillations.distiller.take().ok_or(EngineError::NoDistiller)?;
            self.distillations.beside = beside.then(|| student.clone());
            self.distillations.job = Some(Job { distiller, request, student });
            if !beside {
                self.distillations.waiting = Some(closed);
                return Ok(taken.checkpoint.into_iter().collect());
            }
        }
        self.publish(&closed, taken, clock, settled)
    }

    /// Goes on with a round that has waited for a distillation, if it is done; or drops it, if the run has ended meanwhile.
    pub(super) fn go_on(
        &mut self,
        clock: &dyn Fn() -> Timestamp,
        settled: &mut Settled,
    ) -> Result<Vec<Record>, EngineError> {
        let ended = self.coordinator.outcome().is_some();
        if !ended && self.distillations.done.is_none() {
            return Ok(Vec::new());
        }
        let Some(closed) = self.distillations.waiting.take() else { return Ok(Vec::new()) };
        if ended {
            return Ok(vec![self.abandon(&ClosedRound { cut_short: true, ..closed }, settled)]);
        }
        if self.distillations.beside.is_some() {
            return self.close(closed, clock, settled);
        }
        let Some((student, distilled)) = self.distillations.done.take() else { return Ok(Vec::new()) };
        self.model.replace(student)?;
        self.publish(&closed, Taken { distilled: Some(distilled), checkpoint: None }, clock, settled)
    }

    /// The checkpoint that goes with a version which has this of a distillation.
    pub(super) fn checkpoint(&mut self, taken: Taken) -> Option<Record> {
        if self.distillations.beside.is_some() {
            // A restart computes this round again, to have its teachers.
            self.uncheckpointed = if taken.checkpoint.is_some() { (0, 1) } else { self.uncheckpointed };
            return taken.checkpoint;
        }
        // A distillation takes too long to be done again by a restart.
        if taken.distilled.is_none() && !self.checkpoint_due() {
            return None;
        }
        self.uncheckpointed = (0, 0);
        Some(Record::Checkpoint { version: self.model.version(), state: self.model.checkpoint() })
    }

    /// Nothing is distilled any more.
    pub(super) fn end_distillations(&mut self) {
        let all = &mut self.distillations;
        (all.beside, all.waiting, all.done) = (None, None, None);
        if let Some(job) = all.job.take() {
            all.distiller = Some(job.distiller);
        }
        if let Some(distiller) = &mut all.distiller {
            distiller.settled();
        }
    }
}

//! Distillations: handed out as a job, and taken back as one more thing to settle.

use super::{Engine, EngineError, Settled};
use crate::coordinator::ClosedRound;
use crate::distill::{Done, Job, Request};
use dunlin_core::Timestamp;
use std::sync::Arc;

impl Engine {
    /// [`Self::settle`] for a caller that has nothing else to do meanwhile: a distillation is done at once, here.
    ///
    /// # Errors
    /// As [`Self::settle`] and [`Self::distilled`].
    pub fn settle_at_once(&mut self, clock: &dyn Fn() -> Timestamp) -> Result<Settled, EngineError> {
        let mut settled = self.settle(clock)?;
        if let Some(job) = self.poll_job() {
            self.distilled(job.run(&mut |_, _| {}))?;
            let after = self.settle(clock)?;
            settled.receipts.extend(after.receipts);
            settled.summaries.extend(after.summaries);
            settled.report = settled.report.or(after.report);
        }
        Ok(settled)
    }

    /// A distillation to be done, on whatever thread, before the round at hand is published. What becomes of it goes to
    /// [`Self::distilled`].
    pub fn poll_job(&mut self) -> Option<Job> {
        self.job.take()
    }

    /// Takes what became of a job; the next [`Self::settle`] goes on with it.
    ///
    /// # Errors
    /// When the distillation failed.
    pub fn distilled(&mut self, done: Done) -> Result<(), EngineError> {
        self.distiller = Some(done.distiller);
        self.distilled = Some(done.result.map_err(EngineError::Distill)?);
        Ok(())
    }

    /// The distillation that a round ends with.
    pub(super) fn distillation(&mut self, closed: &ClosedRound) -> Result<Option<Job>, EngineError> {
        if !self.recipe.is_distilled(closed.number) {
            return Ok(None);
        }
        let distiller = self.distiller.take().ok_or(EngineError::NoDistiller)?;
        let frames = std::mem::take(&mut self.teachers).into_values().collect();
        let request = Request::new(closed.number, self.model.broadcast_grid(), Arc::clone(&self.rules), frames);
        Ok(Some(Job { distiller, request, student: self.model.stepped() }))
    }
}

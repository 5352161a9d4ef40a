//! What is told of a run: a summary of each round, evaluations, and the report at the end.

use super::{Engine, EngineError, Settled};
use crate::coordinator::ClosedRound;
use crate::store::Record;
use dunlin_codec::StageBytes;
use dunlin_core::Outcome;
use dunlin_core::recipe::{Evaluated, Width};
use dunlin_core::report::{Bytes as ByteCount, FederatedEvaluation, Report, RoundSummary, RunEnd, SizeEvaluation};
use dunlin_nn::train::Evaluation;
use std::time::Instant;

/// Bytes of the round under way.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) bytes: ByteCount,
    /// Of the accepted updates.
    pub(super) stages: StageBytes,
    /// Of the downloads.
    pub(super) downlink: StageBytes,
}

impl Engine {
    pub(super) fn evaluated(
        &mut self,
        round: u64,
        result: FederatedEvaluation,
        settled: &mut Settled,
    ) -> Option<Record> {
        // Downloads of the evaluation belong to the round that it followed.
        let tally = std::mem::take(&mut self.tally);
        let summary = self.summaries.iter_mut().rev().find(|summary| summary.round == round)?;
        summary.federated = Some(result);
        summary.bytes += tally.bytes;
        summary.downlink += tally.downlink;
        settled.summaries.push(summary.clone());
        Some(Record::Summary(summary.clone()))
    }

    pub(super) fn evaluate_into(&mut self, summary: &mut RoundSummary) -> Result<(), EngineError> {
        let Some(evaluator) = &mut self.evaluator else { return Ok(()) };
        let timer = Instant::now();
        let slices = self.model.slices();
        let params = match self.recipe.rounds.evaluate {
            Evaluated::Broadcast => self.model.broadcast_f32(),
            Evaluated::Server => self.model.stepped(),
        };
        let result = evaluator.evaluate(&params)?;
        summary.accuracy = Some(result.accuracy());
        summary.loss = Some(result.loss());
        if slices.iter().len() > 0 {
            summary.sizes.push(size_evaluation(Width::WHOLE, params.len(), &result));
        }
        for slice in slices.iter() {
            let mut part = params.clone();
            slice.mask().gather(&mut part);
            let result = evaluator.evaluate(&slice.mask().scatter(&part))?;
            summary.sizes.push(size_evaluation(slice.width(), slice.len(), &result));
        }
        self.timings.evaluate += timer.elapsed();
        Ok(())
    }

    pub(super) fn summarize(&mut self, closed: &ClosedRound) -> RoundSummary {
        let stats = &closed.stats;
        let tally = std::mem::take(&mut self.tally);
        let mut summary = RoundSummary {
            round: closed.number,
            version: closed.base.0,
            cut_short: closed.cut_short,
            eligible: stats.eligible,
            chosen: stats.chosen,
            choice: Some(stats.choice),
            needed: stats.needed,
            clients: stats.counted,
            lost: stats.lost,
            rejected: stats.rejects.values().sum(),
            rejects: stats.rejects.iter().map(|(reject, count)| (reject.label().to_owned(), *count)).collect(),
            examples: stats.examples,
            train_loss: stats.train_loss,
            bytes: tally.bytes,
            downlink: tally.downlink,
            seconds: self.round_started.elapsed().as_secs_f64(),
            simulated_seconds: self.simulated.then(|| closed.closed.since(closed.opened) as f64 / 1000.0),
            model_digest: self.newest().digest().to_string(),
            ..RoundSummary::default()
        };
        summary.set_stages(tally.stages);
        summary
    }

    pub(super) fn push(&mut self, summary: RoundSummary, settled: &mut Settled) {
        settled.summaries.push(summary.clone());
        self.summaries.push(summary);
    }

    pub(super) fn conclude(&mut self, outcome: Outcome) -> Result<Report, EngineError> {
        let last = self.summaries.iter().rev().find(|summary| summary.published);
        let known = last.and_then(|summary| summary.accuracy.zip(summary.loss));
        let mut sizes = last.map(|summary| summary.sizes.clone()).unwrap_or_default();
        let (accuracy, loss) = match known {
            Some(known) => known,
            None => {
                let mut summary = RoundSummary::default();
                self.evaluate_into(&mut summary)?;
                sizes = summary.sizes;
                (summary.accuracy.unwrap_or_default(), summary.loss.unwrap_or_default())
            }
        };
        let grid = self.model.broadcast_grid();
        let end = RunEnd {
            accuracy,
            loss,
            sizes,
            params: self.layout.len() as u64,
            nonzero: grid.values().iter().filter(|&&value| value != 0).count() as u64,
            clients: self.participants.len() as u32,
            seconds: self.earlier_seconds + self.started.map_or(0.0, |started| started.elapsed().as_secs_f64()),
            model_digest: self.broadcast.digest().to_string(),
        };
        let target = self.recipe.rounds.target_accuracy;
        Ok(Report::from_rounds(&self.recipe.name, outcome, &self.summaries, target, &end))
    }
}

fn size_evaluation(width: Width, params: usize, result: &Evaluation) -> SizeEvaluation {
    SizeEvaluation { width, params: params as u64, accuracy: result.accuracy(), loss: result.loss() }
}

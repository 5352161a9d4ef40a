//! What an update costs the client that makes it.

use super::median;
use crate::commands::Failure;
use dunlin::client::data::{DataSpec, DataWorkplace};
use dunlin::client::driver::Workplace;
use dunlin::client::trainer::Work;
use dunlin::client::work::{self, Assignment, Residual};
use dunlin::codec::{Encoder, MaskedGrid, grid};
use dunlin::core::message::TrainTask;
use dunlin::core::{ClientId, Digest, ModelVersion, Recipe, RoundId, Seed};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

/// Median seconds of the stand-in's training, and of all else that makes an update: residual, selection, coding.
pub(super) fn measure(recipe: &Recipe) -> Result<BTreeMap<String, f64>, Failure> {
    let client = ClientId::numbered("client", 0);
    let workplace = DataWorkplace::for_clients(recipe, &DataSpec::Recipe(0), std::slice::from_ref(&client));
    let workplace = workplace.map_err(Failure::other)?;
    let (layout, initial) = workplace.model().map_err(Failure::other)?;
    let mut base = Vec::new();
    grid::from_f32(&initial, &mut base);
    let base = MaskedGrid::whole(Arc::new(layout.segments()), base).map_err(Failure::other)?;
    let mut encoder = Encoder::new();
    let (mut training, mut all) = (Vec::new(), Vec::new());
    let mut residual: Option<Residual> = None;
    let go_on = &mut |_, _| ControlFlow::Continue(());
    for number in 1..=RUNS {
        let mut trainer = workplace.trainer(&client).map_err(Failure::other)?;
        let mut params = initial.clone();
        let timer = Instant::now();
        let work = Work { round: number, seed: Seed::from_u64(number), mask: base.mask() };
        trainer.train(&work, &mut params, go_on).map_err(Failure::other)?;
        training.push(timer.elapsed().as_secs_f64());
        let codec = recipe.update_codec(number);
        let round = RoundId { term: 1, number };
        let task = TrainTask { round, base: ModelVersion(0), deadline_ms: u64::MAX, codec, max_bytes: 0, asks: 0 };
        let assignment = Assignment {
            client: &client,
            task: &task,
            recipe,
            slice: None,
            base: &base,
            residual: residual.as_ref(),
            digest: Digest::of,
        };
        let timer = Instant::now();
        let update = work::train_and_encode(&assignment, &mut *trainer, &mut encoder, go_on).map_err(Failure::other)?;
        all.push(timer.elapsed().as_secs_f64());
        residual = update.residual;
    }
    let (training, all) = (median(training), median(all));
    let rest = (all - training).max(0.0);
    Ok(BTreeMap::from([("training".to_owned(), training), ("residual and codec".to_owned(), rest)]))
}

/// Updates made, of which the median counts.
const RUNS: u64 = 9;

//! The global model: what the server knows, what everybody holds, and the packet from one round to the next.

mod checkpoint;
#[cfg(test)]
mod tests;

pub use checkpoint::CheckpointError;

use crate::aggregate::{self, Aggregator, ExactSum, Scale};
use crate::broadcast::Broadcast;
use crate::strategy::{self, Strategy};
use bytes::Bytes;
use dunlin_codec::{Encoder, EntropyCoder, Limits, Segments, Source, StageBytes, grid, vectorised};
use dunlin_core::recipe::{LinkConfig, QuantizerKind};
use dunlin_core::{Digest, Layout, ModelVersion, Recipe};
use std::sync::Arc;

/// The server's own model w, and the broadcast model ŵ that every client holds.
///
/// A round moves w by its strategy; the packet carries what the downlink's codec makes of w − ŵ, and ŵ moves by exactly
/// that. What a packet leaves behind stays in w and is sent later, unless the recipe turns feedback off.
pub struct GlobalModel {
    layout: Layout,
    segments: Arc<Segments>,
    limits: Limits,
    downlink: LinkConfig,
    scale: Scale,
    strategy: Box<dyn Strategy>,
    version: ModelVersion,
    w: Vec<f32>,
    broadcast: Arc<Vec<i32>>,
    initial: Arc<Vec<i32>>,
    encoder: Encoder,
    /// Room for a mean, so that a round allocates nothing as large as the model.
    mean: Vec<f32>,
}

/// What a round made.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// The new version.
    pub version: ModelVersion,
    /// Digest of its integers.
    pub digest: Digest,
    /// The frame that leads to it from the version before.
    pub packet: Bytes,
    /// The packet's size by stage.
    pub stages: StageBytes,
}

/// Why there is no next model. Ours or the recipe's mistake, never a client's.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// The initial parameters are not those of the layout.
    #[error("{got} initial parameters for a model of {expected}")]
    WrongLength {
        /// Parameters of the layout.
        expected: usize,
        /// Parameters given.
        got: usize,
    },
    /// Training left the range that a broadcast model can have.
    #[error(
        "the model diverged: {parameter} is {value}, beyond ±{}; lower strategy.learning_rate or training.learning_rate",
        GlobalModel::MAX_ABS
    )]
    Diverged {
        /// The tensor and the place in it.
        parameter: String,
        /// Its value.
        value: f32,
    },
    /// There is nothing to step by.
    #[error(transparent)]
    Aggregate(#[from] aggregate::Error),
    /// The packet could not be written.
    #[error("the packet: {0}")]
    Packet(#[from] dunlin_codec::Error),
}

impl GlobalModel {
    /// Largest magnitude of a parameter: half of what the grid's `i32` holds, so that the difference of any two versions
    /// fits it as well and nothing ever saturates.
    pub const MAX_ABS: f32 = 64.0;

    /// Version 0 of a recipe's model.
    ///
    /// # Errors
    /// When the initial parameters are not the layout's, or not finite and within [`Self::MAX_ABS`].
    pub fn new(recipe: &Recipe, layout: &Layout, initial: &[f32]) -> Result<Self, Error> {
        if initial.len() != layout.len() {
            return Err(Error::WrongLength { expected: layout.len(), got: initial.len() });
        }
        check_range(layout, initial)?;
        let mut broadcast = Vec::with_capacity(initial.len());
        grid::from_f32(initial, &mut broadcast);
        let w = grid::floats(&broadcast);
        let segments = layout.segments();
        let broadcast = Arc::new(broadcast);
        let limits = &recipe.limits;
        Ok(Self {
            layout: layout.clone(),
            limits: Limits::for_segments(&segments),
            segments: Arc::new(segments),
            downlink: recipe.downlink.clone(),
            scale: Scale::for_recipe(recipe.cohort_size(), limits.max_examples, limits.max_update_abs),
            strategy: strategy::from_config(&recipe.strategy, layout.len()),
            version: ModelVersion(0),
            w,
            initial: Arc::clone(&broadcast),
            broadcast,
            encoder: Encoder::for_merging(),
            mean: vec![0.0; layout.len()],
        })
    }

    /// An empty sum for a round's updates.
    #[must_use]
    pub fn sum(&self) -> ExactSum {
        ExactSum::new(self.w.len(), self.scale)
    }

    /// Makes the next version from a round's updates; `round` counts from 1.
    ///
    /// The same calls in the same order give the same bits, before and after a restart.
    ///
    /// # Errors
    /// When there are no updates, the model diverges or cannot be encoded; after any but the first the model is of no
    /// further use.
    pub fn publish(&mut self, round: u64, updates: &dyn Aggregator) -> Result<Published, Error> {
        updates.aggregate(&mut self.mean)?;
        self.strategy.step(round, &self.mean, &mut self.w);
        check_range(&self.layout, &self.w)?;

        let encoded = if self.downlink.density >= 1.0 && self.downlink.quantizer == QuantizerKind::F32 {
            let mut steps = Vec::with_capacity(self.w.len());
            grid::from_f32(&self.w, &mut steps);
            for (step, &held) in steps.iter_mut().zip(self.broadcast.iter()) {
                *step -= held;
            }
            if self.is_plain() {
                self.encoder.encode_integers_plainly(&self.segments, &steps)?
            } else {
                self.encoder.encode_integers(&self.segments, &steps)?
            }
        } else {
            let behind = Behind { w: &self.w, held: &self.broadcast };
            // Another rotation each time, and the same one when a round is published again.
            self.encoder.seed(self.version.0);
            self.encoder.encode_source(&Recipe::codec(&self.downlink, round), &self.segments, &behind, &mut ())?
        };

        let broadcast = Arc::make_mut(&mut self.broadcast);
        grid::apply_update(&encoded.frame, &self.segments, &self.limits, broadcast)?;
        check_grid(&self.layout, broadcast)?;
        if self.downlink.feedback == 0.0 {
            grid::to_f32(broadcast, &mut self.w);
        }
        self.version = self.version.next();
        let digest = Digest(grid::digest(&self.broadcast));
        Ok(Published { version: self.version, digest, packet: encoded.frame.into(), stages: encoded.stages })
    }

    /// The version of ŵ.
    #[must_use]
    pub fn version(&self) -> ModelVersion {
        self.version
    }

    /// ŵ in units of [`grid::UNIT`].
    #[must_use]
    pub fn broadcast_grid(&self) -> Arc<Vec<i32>> {
        Arc::clone(&self.broadcast)
    }

    /// ŵ as the floats that clients start from, and the only ones ever evaluated.
    #[must_use]
    pub fn broadcast_f32(&self) -> Vec<f32> {
        grid::floats(&self.broadcast)
    }

    /// What fetch handlers need of this version; `packets` are those that lead here, as far back as they are kept.
    #[must_use]
    pub fn broadcast(&self, packets: Vec<(ModelVersion, Bytes)>, packet_ring: u32) -> Broadcast {
        let (initial, grid) = (Arc::clone(&self.initial), Arc::clone(&self.broadcast));
        let broadcast = Broadcast::new(Arc::clone(&self.segments), initial, self.version, grid, packets, packet_ring);
        if self.is_plain() { broadcast.plainly() } else { broadcast }
    }

    /// Whether everything is sent as it is.
    fn is_plain(&self) -> bool {
        let LinkConfig { density, quantizer, coder, .. } = self.downlink;
        density >= 1.0 && quantizer == QuantizerKind::F32 && coder == EntropyCoder::Raw
    }
}

/// What clients lack: w − ŵ.
struct Behind<'a> {
    w: &'a [f32],
    held: &'a [i32],
}

impl Source for Behind<'_> {
    fn len(&self) -> usize {
        self.w.len()
    }

    #[inline(always)]
    fn block<'a>(&'a self, start: usize, buffer: &'a mut [f32]) -> &'a [f32] {
        let range = start..start + buffer.len();
        for ((behind, &w), &held) in buffer.iter_mut().zip(&self.w[range.clone()]).zip(&self.held[range]) {
            // An f64 holds both exactly; f32 would lose the last bits of a large ŵ.
            *behind = (f64::from(w) - f64::from(held) * f64::from(grid::UNIT)) as f32;
        }
        buffer
    }
}

fn check_range(layout: &Layout, values: &[f32]) -> Result<(), Error> {
    let fits = |value: f32| value.abs() < GlobalModel::MAX_ABS;
    // Without an early exit the loop vectorises; a NaN fits nothing.
    if vectorised(|| values.iter().fold(true, |all, &value| all & fits(value))) {
        return Ok(());
    }
    let index = values.iter().position(|&value| !fits(value)).expect("a value was found that does not fit");
    Err(diverged(layout, index, values[index]))
}

fn check_grid(layout: &Layout, grid: &[i32]) -> Result<(), Error> {
    const MOST: u32 = (GlobalModel::MAX_ABS / grid::UNIT) as u32;
    let fits = |n: i32| n.unsigned_abs() < MOST;
    if vectorised(|| grid.iter().fold(true, |all, &n| all & fits(n))) {
        return Ok(());
    }
    let index = grid.iter().position(|&n| !fits(n)).expect("a value was found that does not fit");
    Err(diverged(layout, index, grid::float(grid[index])))
}

fn diverged(layout: &Layout, index: usize, value: f32) -> Error {
    let tensor = (0..layout.tensors().len()).find(|&tensor| layout.range(tensor).contains(&index));
    let tensor = tensor.expect("the layout covers every value");
    let parameter = format!("{}[{}]", layout.tensors()[tensor].name, index - layout.range(tensor).start);
    Error::Diverged { parameter, value }
}

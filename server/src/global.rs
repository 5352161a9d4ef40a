//! The global model: what the server knows, what everybody holds, and the packet from one round to the next.

mod checkpoint;
mod common;
#[cfg(test)]
mod tests;

pub use checkpoint::CheckpointError;

use crate::aggregate::{self, Aggregator, Scale, SlicedSum};
use crate::broadcast::Broadcast;
use crate::packet::Packet;
use crate::strategy::{self, Strategy};
use common::Means;
use dunlin_codec::{Encoded, Encoder, EntropyCoder, Mask, MaskedGrid, Source, StageBytes, grid, vectorised};
use dunlin_core::recipe::{Importance, LinkConfig, QuantizerKind, Rewind};
use dunlin_core::{Digest, Layout, ModelVersion, Recipe, Seed};
use dunlin_nn::small::{Evidence, NoSlices, Pruning, Slices};
use rand::RngCore;
use std::sync::Arc;

/// The server's own model w, and the broadcast model ŵ that every client holds, both within the mask.
///
/// A round moves w by its strategy; the packet carries what the downlink's codec makes of w − ŵ, and ŵ moves by exactly
/// that. What a packet leaves behind stays in w and is sent later, unless the recipe turns feedback off. At the end of
/// some rounds the mask loses coordinates, and with it all that is kept here.
pub struct GlobalModel {
    recipe: Arc<Recipe>,
    layout: Layout,
    downlink: LinkConfig,
    /// Of each tensor, or nothing, when the downlink's coordinates are chosen.
    importance: Vec<f32>,
    scale: Scale,
    strategy: Box<dyn Strategy>,
    /// What coordinates are announced by, where they are.
    means: Option<Means>,
    pruning: Pruning,
    /// The parts of it that smaller clients have.
    slices: Slices,
    version: ModelVersion,
    w: Vec<f32>,
    broadcast: Arc<MaskedGrid>,
    initial: Arc<MaskedGrid>,
    /// What weights go back to after a step of pruning, once its round is over; whole.
    ticket: Option<Arc<Vec<i32>>>,
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
    /// What leads to it from the version before.
    pub packet: Packet,
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
    /// The recipe has clients of several sizes, and the model no parts for them.
    #[error(transparent)]
    Slices(#[from] NoSlices),
    /// A key of the recipe speaks of a tensor that the model does not have.
    #[error("`{key}` names {start:?}, and no tensor's name begins so; there are {names}")]
    NoTensor {
        /// The key.
        key: &'static str,
        /// How a name was to begin.
        start: String,
        /// The tensors of the model.
        names: String,
    },
    /// The bound on updates is below what their quantizer takes.
    #[error(
        "`{key}` allows {bytes} bytes for an update, and the shortest has {least}; allow more, or send fewer \
             coordinates: of `uplink.quantizer` \"ternary\" some always fit"
    )]
    NoRoom {
        /// The key.
        key: &'static str,
        /// What an update of the first round may have.
        bytes: u64,
        /// What it has at least.
        least: u64,
    },
    /// Fewer parameters are wanted than can be left.
    #[error(
        "`pruning.parameters` is {wanted}; at least {least} are left, since vectors and protected tensors are not \
             pruned and each other tensor keeps a weight"
    )]
    TooFewParameters {
        /// What the recipe says.
        wanted: u64,
        /// What is left at least.
        least: u64,
    },
    /// The packet could not be written.
    #[error("the packet: {0}")]
    Packet(#[from] dunlin_codec::Error),
}

impl Error {
    /// The key of the recipe whose value is to blame, where one is.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::NoTensor { key, .. } => Some(key),
            Self::Slices(_) => Some("size.width"),
            Self::NoRoom { key, .. } => Some(key),
            Self::TooFewParameters { .. } => Some("pruning.parameters"),
            _ => None,
        }
    }
}

impl GlobalModel {
    /// Largest magnitude of a parameter: half of what the grid's `i32` holds, so that the difference of any two versions
    /// fits it as well and nothing ever saturates.
    pub const MAX_ABS: f32 = 64.0;

    /// Version 0 of a recipe's model.
    ///
    /// # Errors
    /// When the initial parameters are not the layout's, or not finite and within [`Self::MAX_ABS`], or the recipe has
    /// sizes that are not those of such a model, or names tensors that it does not have.
    pub fn new(recipe: &Recipe, layout: &Layout, initial: &[f32]) -> Result<Self, Error> {
        if initial.len() != layout.len() {
            return Err(Error::WrongLength { expected: layout.len(), got: initial.len() });
        }
        let everything = Mask::all(Arc::new(layout.segments()));
        check_range(layout, &everything, initial)?;
        let mut values = Vec::with_capacity(initial.len());
        grid::from_f32(initial, &mut values);
        let w = grid::floats(&values);
        let broadcast = Arc::new(MaskedGrid::new(Arc::new(everything), values)?);
        factors(layout, "uplink.importance", &recipe.uplink)?;
        named(layout, "pruning.protected", recipe.pruning.protected())?;
        // Clients would fail on it one by one, and the server wait for them.
        named(layout, "training.frozen", recipe.training.frozen())?;
        room(recipe, layout)?;
        let pruning = Pruning::new(&recipe.pruning, layout);
        let (wanted, least) = (recipe.pruning.parameters, pruning.least_parameters() as u64);
        if wanted > 0 && wanted < least {
            return Err(Error::TooFewParameters { wanted, least });
        }
        let limits = &recipe.limits;
        Ok(Self {
            recipe: Arc::new(recipe.clone()),
            layout: layout.clone(),
            downlink: recipe.downlink.clone(),
            importance: factors(layout, "downlink.importance", &recipe.downlink)?,
            scale: Scale::for_recipe(recipe.cohort_size(), limits.max_examples, limits.max_update_abs),
            strategy: strategy::from_config(&recipe.strategy, layout.len()),
            means: recipe.common.is_announced().then(|| Means::new(layout.len())),
            pruning,
            slices: Slices::new(recipe, layout)?,
            version: ModelVersion(0),
            w,
            initial: Arc::clone(&broadcast),
            ticket: None,
            broadcast,
            encoder: Encoder::for_merging(),
            mean: vec![0.0; layout.len()],
        })
    }

    /// What is left of the model.
    #[must_use]
    pub fn mask(&self) -> &Arc<Mask> {
        self.broadcast.mask()
    }

    /// An empty sum for the updates of a round, counted from 1.
    #[must_use]
    pub fn sum(&self, round: u64) -> SlicedSum {
        SlicedSum::new(self.recipe.sent_mask(round, &self.broadcast).len(), self.scale(round), &self.slices)
    }

    /// The parts of the model that smaller clients have.
    #[must_use]
    pub fn slices(&self) -> &Slices {
        &self.slices
    }

    /// Makes the next version from a round's updates; `round` counts from 1.
    ///
    /// The same calls in the same order give the same bits, before and after a restart.
    ///
    /// # Errors
    /// When there are no updates, the model diverges or cannot be encoded; after any but the first the model is of no
    /// further use.
    pub fn publish(&mut self, round: u64, updates: &mut dyn Aggregator) -> Result<Published, Error> {
        self.step(round, updates)?;
        self.send(round)
    }

    /// The first half of [`Self::publish`]: moves w by a round's updates.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn step(&mut self, round: u64, updates: &mut dyn Aggregator) -> Result<(), Error> {
        let sent = self.recipe.sent_mask(round, &self.broadcast);
        self.mean.resize(sent.len(), 0.0);
        updates.aggregate(&mut self.mean)?;
        if self.recipe.pruning.statistic(round).is_some() {
            return Ok(());
        }
        if self.recipe.is_common(round) {
            self.spread_mean(&sent);
        }
        self.strategy.step(round, &self.mean, &mut self.w);
        check_range(&self.layout, self.mask(), &self.w)
    }

    /// w, whole: what the round's updates made of it.
    #[must_use]
    pub fn stepped(&self) -> Vec<f32> {
        self.mask().scatter(&self.w)
    }

    /// Puts another model, whole, in the place of w, between the halves of [`Self::publish`].
    ///
    /// # Errors
    /// When it is not one of this layout, finite and in range.
    pub fn replace(&mut self, mut params: Vec<f32>) -> Result<(), Error> {
        if params.len() != self.layout.len() {
            return Err(Error::WrongLength { expected: self.layout.len(), got: params.len() });
        }
        self.mask().gather(&mut params);
        check_range(&self.layout, self.mask(), &params)?;
        self.w = params;
        Ok(())
    }

    /// Adds to w, between the halves of [`Self::publish`] or before both, what is given for the whole model.
    ///
    /// # Errors
    /// When it is not one value for each parameter, or w leaves its range.
    pub fn add(&mut self, change: &[f32]) -> Result<(), Error> {
        if change.len() != self.layout.len() {
            return Err(Error::WrongLength { expected: self.layout.len(), got: change.len() });
        }
        for (w, index) in self.w.iter_mut().zip(self.broadcast.mask().indices()) {
            *w += change[index];
        }
        check_range(&self.layout, self.mask(), &self.w)
    }

    /// The second half of [`Self::publish`]: prunes where a step of that is due, and sends what w has moved.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn send(&mut self, round: u64) -> Result<Published, Error> {
        let (mut frames, mut stages) = self.prune(round)?;
        let encoded = self.encode_step(round)?;
        frames.push(encoded.frame.into());
        stages += encoded.stages;

        let broadcast = Arc::make_mut(&mut self.broadcast);
        broadcast.apply(&frames[frames.len() - 1])?;
        check_grid(&self.layout, broadcast)?;
        if self.downlink.feedback == 0.0 {
            grid::to_f32(broadcast.values(), &mut self.w);
        }
        let pruning = &self.recipe.pruning;
        if pruning.rewind != Rewind::None && pruning.rewind_round == round {
            self.ticket = Some(Arc::new(self.broadcast.mask().scatter(self.broadcast.values())));
        }
        self.announce(round + 1)?;
        self.version = self.version.next();
        let digest = Digest(self.broadcast.digest());
        Ok(Published { version: self.version, digest, packet: Packet::new(frames), stages })
    }

    /// The step of pruning that belongs to the end of this round, if one does: narrows all that is kept to what is left
    /// and returns the frames that tell clients of it.
    fn prune(&mut self, round: u64) -> Result<(Vec<bytes::Bytes>, StageBytes), Error> {
        let none = (Vec::new(), StageBytes::default());
        let old = Arc::clone(self.mask());
        // A round that was abandoned took its step along.
        let missed = || self.recipe.pruning.step_before(round).filter(|&step| self.pruning.is_behind(step, &old));
        let Some(step) = self.recipe.pruning.step(round).or_else(missed) else { return Ok(none) };
        let magnitudes = || old.scatter(&self.w).iter().map(|w| w.abs()).collect::<Vec<f32>>();
        let is_of_whole = self.recipe.pruning.is_of_whole(round);
        let asked = || self.recipe.update_mask(round, &old).scatter(&self.mean);
        let scores = match self.recipe.pruning.importance {
            Importance::Magnitude | Importance::Scale => magnitudes(),
            Importance::Votes => asked(),
            Importance::Gradient => asked().iter().map(|g| g.abs()).collect(),
            Importance::Taylor => asked().iter().zip(magnitudes()).map(|(g, w)| g.abs() * w).collect(),
        };
        let gradients: Vec<f32> = if is_of_whole { self.mean.iter().map(|g| g.abs()).collect() } else { Vec::new() };
        let evidence = Evidence { scores: &scores, gradients: &gradients };
        let Some(new) = self.pruning.step(step, &old, evidence).map(Arc::new) else { return Ok(none) };

        let mut stages = StageBytes::default();
        let mut frames = Vec::new();
        let mut mask = Arc::clone(&old);
        for frame in old.change_to(&new, &mut self.encoder) {
            let header = dunlin_codec::FrameHeader::parse(&frame)?;
            stages += header.stages(mask.segments(), &frame);
            mask = Arc::new(mask.changed(&frame)?);
            frames.push(frame.into());
        }
        self.w = old.project(&new, &self.w);
        self.mean.resize(new.len(), 0.0);
        self.means = self.means.take().map(|means| means.project(&old, &new));
        Arc::make_mut(&mut self.broadcast).mask_with(Arc::clone(&new));
        let state: Vec<Vec<f32>> = self.strategy.state().iter().map(|vector| old.project(&new, vector)).collect();
        self.strategy = strategy::from_config(&self.recipe.strategy, new.len());
        match self.recipe.pruning.rewind {
            Rewind::None => self.strategy.restore(state).expect("what it kept has the length of its model"),
            // What the optimizer had gathered was of a model that is left behind.
            Rewind::Ticket => self.go_back_to(&new),
            Rewind::Random if step < self.recipe.pruning.steps => self.go_back_to(&new),
            Rewind::Random => self.draw_anew(&new),
        }
        Ok((frames, stages))
    }

    /// Gives the weights the values of the round that the recipe names; the initial ones for round 0.
    fn go_back_to(&mut self, mask: &Mask) {
        let mut ticket = self.ticket.as_ref().map_or_else(|| self.initial.values().to_vec(), |ticket| ticket.to_vec());
        mask.gather(&mut ticket);
        self.w = grid::floats(&ticket);
    }

    /// Gives each weight the initial value of another place of its tensor, at random: values of the same distribution, of
    /// which none is where the ticket has it.
    fn draw_anew(&mut self, mask: &Mask) {
        let mut values = self.initial.floats();
        let mut rng = Seed::from_u64(self.recipe.seed).derive("drawn anew").rng();
        for tensor in 0..self.layout.tensors().len() {
            let values = &mut values[self.layout.range(tensor)];
            for last in (1..values.len()).rev() {
                // Biased by at most 2⁻³², which no training tells.
                values.swap(last, (rng.next_u64() % (last as u64 + 1)) as usize);
            }
        }
        mask.gather(&mut values);
        self.w = values;
    }

    /// What the downlink's codec makes of w − ŵ.
    fn encode_step(&mut self, round: u64) -> Result<Encoded, Error> {
        let (segments, held) = (self.broadcast.mask().segments(), self.broadcast.values());
        let has_jumped = self.recipe.pruning.rewind != Rewind::None && self.recipe.pruning.step(round).is_some();
        if has_jumped || self.downlink.density >= 1.0 && self.downlink.quantizer == QuantizerKind::F32 {
            let mut steps = Vec::with_capacity(self.w.len());
            grid::from_f32(&self.w, &mut steps);
            for (step, &held) in steps.iter_mut().zip(held) {
                *step -= held;
            }
            return Ok(match self.is_plain() {
                true => self.encoder.encode_integers_plainly(segments, &steps)?,
                false => self.encoder.encode_integers(segments, &steps)?,
            });
        }
        let behind = Behind { w: &self.w, held };
        if !self.importance.is_empty() {
            self.encoder.weigh(self.broadcast.mask().of_tensors(&self.importance));
        }
        // Another rotation each time, and the same one when a round is published again.
        self.encoder.seed(self.version.0);
        Ok(self.encoder.encode_source(&Recipe::codec(&self.downlink, round), segments, &behind, &mut ())?)
    }

    /// The version of ŵ.
    #[must_use]
    pub fn version(&self) -> ModelVersion {
        self.version
    }

    /// ŵ, within its mask.
    #[must_use]
    pub fn broadcast_grid(&self) -> Arc<MaskedGrid> {
        Arc::clone(&self.broadcast)
    }

    /// ŵ as the floats that clients start from, and the only ones ever evaluated; whole.
    #[must_use]
    pub fn broadcast_f32(&self) -> Vec<f32> {
        self.broadcast.floats()
    }

    /// What fetch handlers need of this version; `packets` are those that lead here, as far back as they are kept.
    #[must_use]
    pub fn broadcast(&self, packets: Vec<(ModelVersion, Packet)>, packet_ring: u32) -> Broadcast {
        let (initial, model) = (Arc::clone(&self.initial), Arc::clone(&self.broadcast));
        let broadcast = Broadcast::new(initial, self.version, model, packets, packet_ring);
        let broadcast = if self.is_plain() { broadcast.plainly() } else { broadcast };
        broadcast.with_slices(&self.slices)
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

fn factors(layout: &Layout, key: &'static str, config: &LinkConfig) -> Result<Vec<f32>, Error> {
    config.factors(layout).map_err(|start| no_tensor(layout, key, start))
}

/// Checks that an update of the first round fits into what the recipe allows it: otherwise clients would fail one by one.
fn room(recipe: &Recipe, layout: &Layout) -> Result<(), Error> {
    let codec = recipe.update_codec(1);
    let key = match (recipe.max_update_bytes(1, 0), recipe.client_update_bytes(1, 0, 0, 0)) {
        (0, 0) => return Ok(()),
        (run, client) if client > 0 && (run == 0 || client < run) => "limits.client_bytes",
        (run, _) if run == recipe.limits.update_bytes => "limits.update_bytes",
        _ => "limits.run_bytes",
    };
    let bytes = recipe.client_update_bytes(1, 0, recipe.max_update_bytes(1, 0), 0);
    // Any update will do: lengths hardly differ where all coordinates are sent, and otherwise few of them fit anywhere.
    let update: Vec<f32> = (0..layout.len()).map(|i| (i as f32).sin()).collect();
    match Encoder::new().encode_source_within(&codec, bytes, &layout.segments(), &*update, &mut ()) {
        Err(dunlin_codec::Error::NoRoom { least, .. }) => Err(Error::NoRoom { key, bytes, least }),
        _ => Ok(()),
    }
}

/// Checks that each beginning of a name is that of some tensor.
fn named<'a>(layout: &Layout, key: &'static str, mut starts: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    let is_known = |start: &str| layout.tensors().iter().any(|tensor| tensor.name.starts_with(start));
    starts.find(|start| !is_known(start)).map_or(Ok(()), |start| Err(no_tensor(layout, key, start)))
}

fn no_tensor(layout: &Layout, key: &'static str, start: &str) -> Error {
    let names: Vec<&str> = layout.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    Error::NoTensor { key, start: start.to_owned(), names: names.join(", ") }
}

fn check_range(layout: &Layout, mask: &Mask, values: &[f32]) -> Result<(), Error> {
    let fits = |value: f32| value.abs() < GlobalModel::MAX_ABS;
    // Without an early exit the loop vectorises; a NaN fits nothing.
    if vectorised(|| values.iter().fold(true, |all, &value| all & fits(value))) {
        return Ok(());
    }
    let index = values.iter().position(|&value| !fits(value)).expect("a value was found that does not fit");
    Err(diverged(layout, mask, index, values[index]))
}

fn check_grid(layout: &Layout, grid: &MaskedGrid) -> Result<(), Error> {
    const MOST: u32 = (GlobalModel::MAX_ABS / grid::UNIT) as u32;
    let fits = |n: i32| n.unsigned_abs() < MOST;
    let values = grid.values();
    if vectorised(|| values.iter().fold(true, |all, &n| all & fits(n))) {
        return Ok(());
    }
    let index = values.iter().position(|&n| !fits(n)).expect("a value was found that does not fit");
    Err(diverged(layout, grid.mask(), index, grid::float(values[index])))
}

fn diverged(layout: &Layout, mask: &Mask, index: usize, value: f32) -> Error {
    let index = mask.indices().nth(index).expect("the mask covers every value");
    let tensor = (0..layout.tensors().len()).find(|&tensor| layout.range(tensor).contains(&index));
    let tensor = tensor.expect("the layout covers every value");
    let parameter = format!("{}[{}]", layout.tensors()[tensor].name, index - layout.range(tensor).start);
    Error::Diverged { parameter, value }
}

//! What the clients of one process have in common.

use super::error::ClientError;
use super::{Compute, Tell};
use crate::state::ModelCache;
use crate::trainer::{Trainer, TrainerError};
use crate::work::WorkError;
use dunlin_codec::{Encoder, Limits, MaskedGrid, grid};
use dunlin_core::message::Welcome;
use dunlin_core::recipe::Width;
use dunlin_core::{ClientId, Digest, Layout, Recipe, RoundId};
use dunlin_nn::small::Slice;
use std::any::Any;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

/// Makes a client's part of a recipe: the only thing that differs between kinds of client.
///
/// It is asked when a client joins, and for a trainer each time that it trains, so that a virtual client costs memory
/// only while it does.
pub trait Workplace: Send + Sync {
    /// The model's tensors and its parameters before any training.
    ///
    /// # Errors
    /// When the model or its data cannot be made.
    fn model(&self) -> Result<(Layout, Vec<f32>), TrainerError>;

    /// Training examples of a client.
    ///
    /// # Errors
    /// When the client has no data.
    fn examples(&self, client: &ClientId) -> Result<u32, TrainerError>;

    /// How much of the model a client has: one of the recipe's [`Recipe::widths`]. The whole, unless the workplace says
    /// otherwise; what a simulation deals to its clients is [`Recipe::dealt_widths`].
    fn width(&self, client: &ClientId) -> Width {
        let _ = client;
        Width::WHOLE
    }

    /// A trainer on a client's data. It trains a model of [`Self::model`]'s layout whatever the client's width is.
    ///
    /// # Errors
    /// When it cannot be made.
    fn trainer(&self, client: &ClientId) -> Result<Box<dyn Trainer>, TrainerError>;
}

/// Holds trained updates back: what a simulation orders those of its clients with.
pub trait Gate: Send + Sync {
    /// Waits until a client may send its update for a round. What is given back is dropped when the update has been
    /// answered for.
    fn pass<'a>(&'a self, client: &ClientId, round: RoundId) -> Passing<'a>;
}

/// See [`Gate::pass`].
pub type Passing<'a> = Pin<Box<dyn Future<Output = Pass> + Send + 'a>>;

/// See [`Gate::pass`].
pub type Pass = Box<dyn Any + Send>;

/// Makes a [`Workplace`] from the recipe that the server sends.
pub type Prepare = dyn Fn(&Recipe) -> Result<Arc<dyn Workplace>, TrainerError> + Send + Sync;

/// What the clients of one process share.
pub struct Shared {
    /// Takes what they tell.
    pub(super) tell: Box<Tell>,
    /// Makes the workplace, once per run.
    pub prepare: Box<Prepare>,
    /// Versions held of the whole model.
    pub models: Arc<ModelCache>,
    /// Bounds how many clients compute at once.
    pub compute: Compute,
    /// Steps that they have made, all together: whoever waits for a turn is alive as long as these advance.
    pub(super) steps: Arc<AtomicU64>,
    /// As many as compute at a time, with the buffers that they have from updates before.
    encoders: Mutex<Vec<Encoder>>,
    /// What they pass before they send an update.
    pub(super) gate: Option<Box<dyn Gate>>,
    prepared: Mutex<Option<(Welcome, PreparedRun)>>,
}

/// What is made of a recipe, once for all clients of the process.
struct PreparedRun {
    recipe: Arc<Recipe>,
    workplace: Arc<dyn Workplace>,
    /// For each width that some client of the process has.
    widths: BTreeMap<Width, Arc<Prepared>>,
}

/// The same for clients of one width.
pub(super) struct Prepared {
    pub(super) recipe: Arc<Recipe>,
    pub(super) workplace: Arc<dyn Workplace>,
    /// The part of the model that they have; nothing for the whole.
    pub(super) slice: Option<Slice>,
    pub(super) limits: Limits,
    /// Version 0.
    pub(super) seeded: MaskedGrid,
    /// Versions held.
    pub(super) models: Arc<ModelCache>,
}

impl Shared {
    /// What `threads` computing clients of one process share.
    #[must_use]
    pub fn new(prepare: Box<Prepare>, models: ModelCache, threads: usize) -> Arc<Self> {
        Self::telling(Box::new(|_| {}), prepare, models, threads)
    }

    /// The same for clients that pass a gate before they send an update.
    #[must_use]
    pub fn gated(gate: Box<dyn Gate>, prepare: Box<Prepare>, models: ModelCache, threads: usize) -> Arc<Self> {
        Self::with(Box::new(|_| {}), Some(gate), prepare, models, threads)
    }

    /// The same for clients that tell what happens to them.
    #[must_use]
    pub fn telling(tell: Box<Tell>, prepare: Box<Prepare>, models: ModelCache, threads: usize) -> Arc<Self> {
        Self::with(tell, None, prepare, models, threads)
    }

    fn with(
        tell: Box<Tell>,
        gate: Option<Box<dyn Gate>>,
        prepare: Box<Prepare>,
        models: ModelCache,
        threads: usize,
    ) -> Arc<Self> {
        let compute = Compute::new(threads);
        let (models, steps, prepared) = (Arc::new(models), Arc::default(), Mutex::new(None));
        let encoders = Mutex::default();
        Arc::new(Self { tell, prepare, models, compute, steps, encoders, gate, prepared })
    }

    /// Encodes with one that is free.
    pub(super) fn with_encoder<T>(&self, encode: impl FnOnce(&mut Encoder) -> T) -> T {
        let free = || self.encoders.lock().unwrap_or_else(PoisonError::into_inner);
        let mut encoder = free().pop().unwrap_or_default();
        let result = encode(&mut encoder);
        free().push(encoder);
        result
    }

    pub(super) fn prepared(&self, welcome: &Welcome, client: &ClientId) -> Result<Arc<Prepared>, ClientError> {
        let mut slot = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_none_or(|(known, _)| known != welcome) {
            let recipe = Arc::new(Recipe::from_toml(&welcome.recipe)?);
            let workplace = (self.prepare)(&recipe)?;
            *slot = Some((welcome.clone(), PreparedRun { recipe, workplace, widths: BTreeMap::new() }));
        }
        let (_, run) = slot.as_mut().expect("it was filled just now");
        let width = run.workplace.width(client);
        if let Some(prepared) = run.widths.get(&width) {
            return Ok(Arc::clone(prepared));
        }
        let prepared = Arc::new(self.prepared_for(welcome, run, width)?);
        run.widths.insert(width, Arc::clone(&prepared));
        Ok(prepared)
    }

    fn prepared_for(&self, welcome: &Welcome, run: &PreparedRun, width: Width) -> Result<Prepared, ClientError> {
        let (recipe, workplace) = (Arc::clone(&run.recipe), Arc::clone(&run.workplace));
        if !recipe.has_width(width) {
            let known: Vec<String> = recipe.widths().map(|known| known.to_string()).collect();
            return Err(ClientError::UnknownWidth { width, known: known.join(", ") });
        }
        let (layout, initial) = workplace.model()?;
        if Digest(layout.digest()) != welcome.layout {
            return Err(ClientError::OtherModel);
        }
        let mut seeded = Vec::new();
        grid::from_f32(&initial, &mut seeded);
        let mut seeded = MaskedGrid::whole(Arc::new(layout.segments()), seeded).map_err(WorkError::Codec)?;
        let slice = Slice::new(&layout, width)?;
        let mut models = Arc::clone(&self.models);
        if let Some(slice) = &slice {
            seeded = slice.of_grid(&seeded);
            models = Arc::new(models.beside(&format!("width-{width}")));
        }
        let whole = seeded.mask().whole();
        let limits = Limits::for_segments(whole);
        models.bind(welcome.run, whole)?;
        Ok(Prepared { recipe, workplace, slice, limits, seeded, models })
    }
}

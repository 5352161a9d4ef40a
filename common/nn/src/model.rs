//! Models: an architecture and the flat vector of parameters as which they are trained, travel and are averaged.

mod about;
mod arch;
mod derived;
mod device;
mod input;
mod plan;
mod registry;
mod sparse;
mod steps;
mod weights;

pub(crate) use arch::{ATTENTION_HEADS, GROUPS as NORM_GROUPS};
pub use arch::{Architecture, Init, Parameters};
pub use candle_core::Device;
pub use device::device;
pub use input::InputShape;
pub use plan::{Extent, Operation, Plan, Planner, Step, Value};
pub use registry::register;
pub(crate) use steps::LEAST_STEP;
pub use weights::round_weights;

use crate::Error;
use crate::ops::{Factors, Graph, Member, Tape, cross_entropy, distillation, with_arithmetic};
use crate::threads::alone;
use candle_core::{CpuStorage, DType, InplaceOp1, Tensor, Var};
use device::Remote;
use dunlin_core::recipe::{Arithmetic, ModelConfig, ModelKind, Steps, WeightFormat};
use dunlin_core::{Layout, Seed};
use sparse::Patterns;
use std::sync::Arc;
use steps::LearnedSteps;
use weights::Rounded;

/// A model: an architecture and one set of parameters.
///
/// All parameters lie in one candle variable, in the order of [`Self::layout`]; the tensors that the architecture works
/// with are views of it.
pub struct Model {
    config: ModelConfig,
    input: InputShape,
    architecture: Arc<dyn Architecture>,
    /// Whether the architecture's forward pass may be recorded on a tape: it uses nothing but [`crate::ops`].
    is_taped: bool,
    layout: Layout,
    /// Of the architecture's tensors; learned steps come behind them.
    init: Vec<Init>,
    /// The tensors that layers multiply by, where the architecture says so.
    weights: Vec<usize>,
    /// Where the weights of tensors stand that hold only what is left of them.
    patterns: Patterns,
    /// Whether each tensor of the layout is trained.
    trained: Vec<bool>,
    flat: Var,
    /// The tensors of the layout, which share the memory of `flat`.
    views: Vec<Tensor>,
    /// The weights that it computes with, if not these.
    rounded: Option<Rounded>,
    /// Where the model computes, if not here.
    remote: Option<Remote>,
}

impl std::fmt::Debug for Model {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Model")
            .field("config", &self.config)
            .field("input", &self.input)
            .field("parameters", &self.layout.len())
            .finish_non_exhaustive()
    }
}

/// What a batch's logits are held against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    /// The right classes.
    Labels(&'a [u32]),
    /// Another model's logits, softened by a temperature.
    Teacher { logits: &'a [f32], temperature: f64 },
}

/// What a pass through the network needs to know besides examples and goal.
#[derive(Clone, Default)]
pub(crate) struct StepContext<'a> {
    /// The seed of what is random in training; without one nothing is.
    pub(crate) noise: Option<Seed>,
    /// The thread's place among those that have the other parts of the batch.
    pub(crate) member: Option<&'a Member>,
}

/// The loss of some examples, and what each tensor of the layout has to do with it.
pub(crate) struct Gradients {
    /// The sum of the losses over the number that the mean is taken over.
    pub(crate) loss: f64,
    /// One for each tensor; nothing where the loss does not depend on it.
    pub(crate) tensors: Vec<Option<Tensor>>,
    /// The same for tensors whose gradients were left in factors; empty where none are.
    pub(crate) factors: Vec<Option<Factors>>,
}

impl Gradients {
    /// With nothing left in factors.
    fn multiplied_out(mut self) -> candle_core::Result<Self> {
        for (tensor, factors) in self.tensors.iter_mut().zip(std::mem::take(&mut self.factors)) {
            if let Some(factors) = factors {
                *tensor = Some(factors.whole()?);
            }
        }
        Ok(self)
    }
}

impl Model {
    /// A model of this architecture for data of this shape, with all parameters zero.
    ///
    /// For [`ModelKind::Trivial`] the width is the number of parameters.
    ///
    /// # Errors
    /// When the data do not suit the architecture, have an extent of zero, or give a model beyond
    /// [`Layout::MAX_PARAMETERS`], and when nobody has [registered](register) an architecture of that name.
    pub fn new(config: impl Into<ModelConfig>, input: &InputShape) -> Result<Self, Error> {
        Self::with_dtype(config.into(), input, DType::F32)
    }

    /// [`Self::new`] in another float type, for gradient checks.
    pub(crate) fn with_dtype(config: ModelConfig, input: &InputShape, dtype: DType) -> Result<Self, Error> {
        let (architecture, is_taped) = match &config.kind {
            ModelKind::Own(name) => (registry::find(name)?, false),
            _ => (arch::built_in(&config)?, true),
        };
        if input.features() == 0 || input.classes == 0 || input.targets == 0 {
            return Err(Error::config("data.source", format!("{input:?}"), "a model needs data of positive extents"));
        }
        let mut parameters = Parameters::default();
        architecture.parameters(input, &mut parameters)?;
        let (mut specs, init, weights) = parameters.into_parts();
        specs.extend(LearnedSteps::specs(&config, &specs));
        let layout = Layout::new(specs)
            .map_err(|error| Error::config("model.kind", config.kind.to_string(), error.to_string()))?;
        // The trivial model stands for a large one in measurements of everything else, so it takes no memory.
        let is_trivial = config.kind == ModelKind::Trivial;
        let flat = Var::zeros(if is_trivial { 0 } else { layout.len() }, dtype, &Device::Cpu)?;
        let views = if is_trivial { Vec::new() } else { views(&flat.as_detached_tensor(), &layout)? };
        let trained = vec![true; layout.tensors().len()];
        let rounded = if is_trivial { None } else { Rounded::new(config.weights, &layout, init.len(), dtype)? };
        let input = *input;
        let patterns = Patterns::new();
        Ok(Self {
            config,
            input,
            architecture,
            is_taped,
            layout,
            init,
            weights,
            patterns,
            trained,
            flat,
            views,
            rounded,
            remote: None,
        })
    }

    /// The model with its computations on another device, where they are candle's own operations; parameters and
    /// optimizer stay in this machine's memory. On the CPU nothing changes.
    ///
    /// # Errors
    /// When the device has no room for the parameters.
    pub fn on(self, device: &Device) -> Result<Self, Error> {
        if device.is_cpu() { Ok(self) } else { self.composed_on(device) }
    }

    fn composed_on(mut self, device: &Device) -> Result<Self, Error> {
        if !self.views.is_empty() {
            self.remote = Some(Remote::new(device, &self.layout)?);
            self.upload()?;
        }
        Ok(self)
    }

    /// Brings the parameters to where, and into the form in which, they are computed with.
    fn upload(&self) -> candle_core::Result<()> {
        if let Some(rounded) = &self.rounded {
            rounded.follow(self.flat.as_tensor())?;
        }
        let computed = self.rounded.as_ref().map_or(self.flat.as_tensor(), Rounded::flat);
        self.remote.as_ref().map_or(Ok(()), |remote| remote.set(computed))
    }

    /// The tensors that are computed with.
    fn computed(&self) -> &[Tensor] {
        self.rounded.as_ref().map_or(&self.views, Rounded::views)
    }

    /// Decides which tensors are trained: all but those whose names begin with one of `frozen`.
    ///
    /// # Errors
    /// When a beginning is that of no tensor, or nothing is left to train.
    pub(crate) fn freeze<'f>(&mut self, frozen: impl Iterator<Item = &'f str>) -> Result<(), Error> {
        self.trained.fill(true);
        for prefix in frozen {
            let mut is_found = false;
            for (is_trained, tensor) in self.trained.iter_mut().zip(self.layout.tensors()) {
                let matches = tensor.name.starts_with(prefix);
                *is_trained &= !matches;
                is_found |= matches;
            }
            if !is_found {
                let names: Vec<_> = self.layout.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
                let remedy = format!("no tensor's name begins so; there are {}", names.join(", "));
                return Err(Error::config("training.frozen", prefix, remedy));
            }
        }
        if !self.trained.contains(&true) {
            return Err(Error::config("training.frozen", self.kind(), "every tensor of the model is frozen"));
        }
        Ok(())
    }

    /// Whether a tensor of the layout is trained.
    pub(crate) fn is_trained(&self, index: usize) -> bool {
        self.trained[index]
    }

    /// Whether a tensor of the layout holds steps between rounded weights: no penalty is put on it.
    pub(crate) fn is_step(&self, index: usize) -> bool {
        index >= self.init.len()
    }

    /// Names and shapes of the parameters in their order in the flat vector: those of the architecture and, where steps
    /// are learned, a vector `NAME.step` for each tensor that is rounded.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The architecture.
    #[must_use]
    pub const fn kind(&self) -> &ModelKind {
        &self.config.kind
    }

    /// How its products are rounded.
    pub(crate) const fn arithmetic(&self) -> Arithmetic {
        self.config.arithmetic
    }

    /// The shape of the data that the model was built for.
    #[must_use]
    pub const fn input(&self) -> &InputShape {
        &self.input
    }

    /// The variable that holds all parameters, flat: with a loss computed from [`Self::forward`], candle's `backward`
    /// gives its gradient as one vector.
    #[must_use]
    pub const fn variable(&self) -> &Var {
        &self.flat
    }

    /// Fresh parameters, each tensor as its architecture says; see [`Init`].
    ///
    /// Each tensor draws from a stream named after it, so the values do not depend on the rest of the model and are
    /// the same on every platform.
    #[must_use]
    pub fn init(&self, seed: &Seed) -> Vec<f32> {
        let mut flat = Vec::with_capacity(self.layout.len());
        for (tensor, init) in self.layout.tensors().iter().zip(&self.init) {
            init.fill(&seed.derive("init").derive(&tensor.name), tensor.len(), &mut flat);
        }
        if let Some(steps) = self.rounded.as_ref().and_then(Rounded::steps) {
            steps.init(&mut flat);
        }
        flat
    }

    /// Sets all parameters from a flat vector in the order of [`Self::layout`].
    ///
    /// # Errors
    /// When the vector has another length.
    pub fn load(&mut self, flat: &[f32]) -> Result<(), Error> {
        self.expect_len(flat)?;
        if !self.views.is_empty() {
            self.flat.inplace_op1(&Load(flat))?;
        }
        Ok(self.upload()?)
    }

    /// Takes a vector's memory as the parameters, or gives it back: nothing is copied.
    ///
    /// # Errors
    /// When the vector has another length.
    pub(crate) fn swap(&mut self, flat: &mut Vec<f32>) -> Result<(), Error> {
        self.expect_len(flat)?;
        Ok(self.with_parameters(|parameters| std::mem::swap(parameters, flat))?)
    }

    /// Calls `f` with the memory of all parameters, whose length it must not change.
    pub(crate) fn with_parameters<R>(&self, f: impl FnOnce(&mut Vec<f32>) -> R) -> candle_core::Result<R> {
        let access = Access(std::cell::Cell::new(Some(f)), std::cell::Cell::new(None));
        self.flat.inplace_op1(&access)?;
        self.upload()?;
        Ok(access.1.into_inner().expect("the operation was carried out"))
    }

    /// The logits of a batch: `x` is [batch, channels·height·width], the result [batch·targets, classes].
    ///
    /// The result remembers how it came from [`Self::variable`].
    ///
    /// # Errors
    /// When `x` has another shape, or for the trivial model, which computes nothing.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor, Error> {
        let flat = self.flat.as_tensor();
        let tensors = match &self.rounded {
            None => views(flat, &self.layout)?,
            Some(rounded) => rounded.straight_through(flat)?,
        };
        self.on_this_thread(|| Ok(self.pass(&mut Graph::candle(), x, &tensors)?))
    }

    /// The logits of rows that lie one after the other, in the same way, for one who has no tensors.
    ///
    /// # Errors
    /// When `x` does not consist of whole rows, or for the trivial model.
    pub fn logits(&self, x: &[f32]) -> Result<Vec<f32>, Error> {
        let features = self.input.features();
        let x = Tensor::from_slice(x, (x.len() / features, features), &Device::Cpu)?;
        Ok(self.infer(&x)?.flatten_all()?.to_vec1()?)
    }

    /// [`Self::forward`] with nothing behind the result, so that memory is returned as the batch moves on.
    pub(crate) fn infer(&self, x: &Tensor) -> Result<Tensor, Error> {
        if let Some(remote) = &self.remote {
            let x = x.to_device(remote.device())?;
            let logits = self.pass(&mut Graph::composed(), &x, &remote.views()?)?;
            return Ok(logits.to_device(&Device::Cpu)?);
        }
        self.on_this_thread(|| Ok(self.pass(&mut Graph::candle().with_patterns(&self.patterns), x, self.computed())?))
    }

    /// Computes in the model's arithmetic, with no more threads than the one that calls.
    fn on_this_thread<R: Send>(&self, work: impl FnOnce() -> Result<R, Error> + Send) -> Result<R, Error> {
        let work = || with_arithmetic(self.config.arithmetic, work);
        // Architectures of others may use operations of candle that ask for all threads there are.
        if self.is_taped { work() } else { alone(work)? }
    }

    /// The architecture's forward pass with some of the layout's tensors.
    fn pass(&self, graph: &mut Graph<'_>, x: &Tensor, tensors: &[Tensor]) -> candle_core::Result<Tensor> {
        let own = tensors.get(..self.init.len()).unwrap_or(tensors);
        self.architecture.forward(&self.input, graph, x, own)
    }

    /// The gradients of a batch's loss: the sum over all its targets, of which there are [`InputShape::targets`] to an
    /// example, over `count`. With noise, what is random in training is.
    ///
    /// # Errors
    /// When the architecture fails, or data and model do not fit.
    pub(crate) fn gradients(
        &self,
        x: &Tensor,
        target: Target<'_>,
        count: usize,
        noise: Option<Seed>,
    ) -> Result<Gradients, Error> {
        let gradients = self.gradients_to_step(x, target, count, StepContext { noise, member: None })?;
        with_arithmetic(self.config.arithmetic, || Ok(gradients.multiplied_out()?))
    }

    /// The same, with gradients left in factors where an optimizer's step is quicker with those.
    ///
    /// # Errors
    /// As [`Self::gradients`].
    pub(crate) fn gradients_to_step(
        &self,
        x: &Tensor,
        target: Target<'_>,
        count: usize,
        context: StepContext<'_>,
    ) -> Result<Gradients, Error> {
        let mut gradients = self.on_this_thread(|| match &self.remote {
            Some(remote) => self.gradients_elsewhere(remote, x, (target, count), context.noise),
            None if self.is_taped => self.gradients_by_tape(x, (target, count), context),
            None => self.gradients_by_candle(x, (target, count), context.noise),
        })?;
        if let Some(rounded) = &self.rounded {
            rounded.backward(self.flat.as_tensor(), &self.trained, &mut gradients.tensors)?;
        }
        Ok(gradients)
    }

    fn gradients_by_tape(
        &self,
        x: &Tensor,
        goal: (Target<'_>, usize),
        StepContext { noise, member }: StepContext<'_>,
    ) -> Result<Gradients, Error> {
        let computed = self.computed();
        let trained = computed.iter().zip(&self.trained).filter_map(|(view, is_trained)| is_trained.then_some(view));
        let mut tape = Tape::of(trained);
        // What is rounded takes gradients on to the parameters, and needs them whole.
        if self.rounded.is_none() {
            tape = tape.with_factors();
        }
        let graph = with_noise(Graph::on(&mut tape), noise).with_member(member).with_patterns(&self.patterns);
        let loss = self.loss(graph, x, computed, goal)?;
        let mut gradients = tape.backward(&loss)?;
        let factors = computed.iter().map(|view| gradients.take_factors(view)).collect();
        let tensors = computed.iter().map(|view| gradients.take(view)).collect();
        Ok(Gradients { loss: scalar(&loss)?, tensors, factors })
    }

    /// For architectures of others, which may use any operation of candle: through its own `backward`, for which each
    /// tensor has to be a variable.
    fn gradients_by_candle(
        &self,
        x: &Tensor,
        goal: (Target<'_>, usize),
        noise: Option<Seed>,
    ) -> Result<Gradients, Error> {
        let mut tensors = self.computed().to_vec();
        for (tensor, _) in tensors.iter_mut().zip(&self.trained).filter(|(_, is_trained)| **is_trained) {
            *tensor = Var::from_tensor(tensor)?.into_inner();
        }
        let loss = self.loss(with_noise(Graph::candle(), noise), x, &tensors, goal)?;
        let mut gradients = loss.backward()?;
        let tensors = tensors.iter().map(|tensor| gradients.remove(tensor)).collect();
        Ok(Gradients { loss: scalar(&loss)?, tensors, factors: Vec::new() })
    }

    /// On another device, as one gradient of all parameters, whose parts come back.
    fn gradients_elsewhere(
        &self,
        remote: &Remote,
        x: &Tensor,
        goal: (Target<'_>, usize),
        noise: Option<Seed>,
    ) -> Result<Gradients, Error> {
        let (flat, tensors) = remote.variable_and_views()?;
        let x = x.to_device(remote.device())?;
        let loss = self.loss(with_noise(Graph::composed(), noise), &x, &tensors, goal)?;
        let mut tensors = vec![None; self.layout.tensors().len()];
        if let Some(gradient) = loss.backward()?.remove(&flat) {
            let parts = views(&gradient.to_device(&Device::Cpu)?.contiguous()?, &self.layout)?;
            for ((tensor, part), is_trained) in tensors.iter_mut().zip(parts).zip(&self.trained) {
                *tensor = is_trained.then_some(part);
            }
        }
        Ok(Gradients { loss: scalar(&loss)?, tensors, factors: Vec::new() })
    }

    /// The forward pass with these parameters and the loss behind it.
    fn loss(
        &self,
        mut graph: Graph<'_>,
        x: &Tensor,
        tensors: &[Tensor],
        (target, count): (Target<'_>, usize),
    ) -> Result<Tensor, Error> {
        let logits = self.pass(&mut graph, x, tensors)?;
        Ok(match target {
            Target::Labels(labels) => cross_entropy(&mut graph, &logits, labels, count)?,
            Target::Teacher { logits: teacher, temperature } => {
                distillation(&mut graph, &logits, teacher, temperature, count)?
            }
        })
    }

    pub(crate) fn expect_len(&self, flat: &[f32]) -> Result<(), Error> {
        let (expected, actual) = (self.layout.len(), flat.len());
        if expected == actual { Ok(()) } else { Err(Error::ParameterCount { expected, actual }) }
    }
}

/// The tensors of a layout as views of a flat one.
fn views(flat: &Tensor, layout: &Layout) -> Result<Vec<Tensor>, Error> {
    let mut views = Vec::with_capacity(layout.tensors().len());
    for (index, tensor) in layout.tensors().iter().enumerate() {
        views.push(flat.narrow(0, layout.range(index).start, tensor.len())?.reshape(tensor.shape.as_slice())?);
    }
    Ok(views)
}

fn with_noise(graph: Graph<'_>, noise: Option<Seed>) -> Graph<'_> {
    match noise {
        Some(seed) => graph.with_noise(seed),
        None => graph,
    }
}

fn scalar(loss: &Tensor) -> Result<f64, Error> {
    Ok(loss.to_dtype(DType::F64)?.to_scalar()?)
}

/// Overwrites a variable's storage.
struct Load<'a>(&'a [f32]);

impl InplaceOp1 for Load<'_> {
    fn name(&self) -> &'static str {
        "load"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &candle_core::Layout) -> candle_core::Result<()> {
        match storage {
            CpuStorage::F32(values) => values.copy_from_slice(self.0),
            CpuStorage::F64(values) => {
                for (value, &new) in values.iter_mut().zip(self.0) {
                    *value = f64::from(new);
                }
            }
            _ => candle_core::bail!("load: a model is made of f32 or f64"),
        }
        Ok(())
    }
}

/// Calls a function with a variable's storage and keeps its result.
struct Access<F, R>(std::cell::Cell<Option<F>>, std::cell::Cell<Option<R>>);

impl<F: FnOnce(&mut Vec<f32>) -> R, R> InplaceOp1 for Access<F, R> {
    fn name(&self) -> &'static str {
        "access"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &candle_core::Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(values) = storage else {
            candle_core::bail!("access: a model that is trained is made of f32");
        };
        let len = values.len();
        if let Some(f) = self.0.take() {
            self.1.set(Some(f(values)));
        }
        assert_eq!(values.len(), len, "the number of parameters was changed");
        Ok(())
    }
}

#[cfg(test)]
mod tests;

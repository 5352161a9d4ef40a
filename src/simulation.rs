//! A federation in one process: the server's and the clients' own state machines, and a clock that jumps.

mod compute;
mod grpc;
mod network;
mod queue;
mod turn;
mod world;

use compute::{Bench, Pool};
use dunlin_client::data::DataWorkplace;
use dunlin_client::driver::{ClientError, Workplace};
use dunlin_client::state::StateError;
use dunlin_client::trainer::TrainerError;
use dunlin_client::work::WorkError;
use dunlin_core::recipe::{RecipeError, Width};
use dunlin_core::report::ClientSummary;
use dunlin_core::{ClientId, Layout, Recipe, Report, RoundSummary, RunId, Seed, Timestamp};
use dunlin_nn::data;
use dunlin_nn::model::Device;
use dunlin_server::distill::{Distill, ServerSet};
use dunlin_server::engine::{self, EngineError, Start};
use dunlin_server::evaluate::{Evaluate, TestSet};
use dunlin_server::store::{DiscardStore, Store};
use std::io;
use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::Arc;
use world::World;

/// Runs a recipe's federation in this process, with simulated time.
///
/// The server is the very engine that `dunlin server` runs, and each client the very participant that `dunlin client`
/// runs; only links and clock are simulated, by the recipe's `network`. The same recipe and data give the same
/// [`Report`], but for its `seconds`, whatever the number of threads.
///
/// ```
/// use dunlin::client::{driver::Workplace, trainer::{Progress, Trainer, TrainerError, Work}};
/// use dunlin::core::{ClientId, Layout, Recipe, TensorSpec};
/// use dunlin::nn::train::Evaluation;
/// use std::sync::Arc;
///
/// /// Each client pulls the model's only parameter towards a number that it does not tell.
/// struct Mean(Layout);
///
/// impl Workplace for Mean {
///     fn model(&self) -> Result<(Layout, Vec<f32>), TrainerError> {
///         Ok((self.0.clone(), vec![0.0]))
///     }
///
///     fn examples(&self, _: &ClientId) -> Result<u32, TrainerError> {
///         Ok(1)
///     }
///
///     fn trainer(&self, client: &ClientId) -> Result<Box<dyn Trainer>, TrainerError> {
///         let secret = if client.as_str() == "client-00000" { 1.0 } else { 3.0 };
///         Ok(Box::new(Pull { layout: self.0.clone(), secret }))
///     }
/// }
///
/// struct Pull { layout: Layout, secret: f32 }
///
/// impl Trainer for Pull {
///     fn layout(&self) -> &Layout {
///         &self.layout
///     }
///
///     fn examples(&self) -> u32 {
///         1
///     }
///
///     fn train(&mut self, _: &Work<'_>, params: &mut Vec<f32>, _: Progress<'_>) -> Result<f64, TrainerError> {
///         let distance = self.secret - params[0];
///         params[0] += 0.5 * distance;
///         Ok(f64::from(distance.abs()))
///     }
///
///     fn evaluate(&mut self, _: &[f32]) -> Result<Evaluation, TrainerError> {
///         Ok(Evaluation::default())
///     }
/// }
///
/// let sets = ["data.clients=2", "rounds.cohort=2", "rounds.count=20", "uplink.density=1", "downlink.density=1"];
/// let recipe = Recipe::load(None, &sets.map(String::from))?;
/// let layout = Layout::new(vec![TensorSpec::new("mean", [1])])?;
/// let outcome = dunlin::Simulation::new(recipe).workplace(Arc::new(Mean(layout))).run()?;
/// assert!((outcome.params[0] - 2.0).abs() < 0.01);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a simulation does nothing until it is run"]
pub struct Simulation<'a> {
    recipe: Recipe,
    workplace: Option<Arc<dyn Workplace>>,
    evaluator: Option<Box<dyn Evaluate>>,
    distiller: Option<Box<dyn Distill>>,
    store: Option<Box<dyn Store>>,
    threads: usize,
    device: Device,
    transport: Transport,
    on_round: Box<OnRound<'a>>,
}

/// See [`Simulation::on_round`].
type OnRound<'a> = dyn FnMut(&RoundSummary) -> ControlFlow<()> + 'a;

/// What carries the calls of a simulation's clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Transport {
    /// Function calls, in simulated time.
    #[default]
    InProcess,
    /// gRPC over the loopback interface, in real time: the recipe's `network` plays no part.
    Grpc,
}

/// What a simulation leads to.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulationOutcome {
    /// The end of the run, as `dunlin simulate` writes it.
    pub report: Report,
    /// Every round.
    pub rounds: Vec<RoundSummary>,
    /// The final broadcast model.
    pub params: Vec<f32>,
    /// The tensors of `params`.
    pub layout: Layout,
    /// What it cost each client, by number; empty behind gRPC, where the server counts for all of them together.
    pub clients: Vec<ClientSummary>,
}

/// Why a simulation came to no end.
#[derive(Debug, thiserror::Error)]
pub enum SimulationError {
    /// The recipe breaks its own rules.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The data cannot be loaded or do not fit the model.
    #[error(transparent)]
    Data(#[from] dunlin_nn::Error),
    /// The clients' data or model cannot be made.
    #[error("the clients' data: {0}")]
    Workplace(#[source] TrainerError),
    /// The server cannot go on.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The workplace gives a client a width that the recipe does not have.
    #[error("client {client} has width {width}, which no size in the recipe has")]
    Width {
        /// Which one.
        client: ClientId,
        /// Its width.
        width: Width,
    },
    /// A client cannot go on.
    #[error("client {client}: {source}")]
    Client {
        /// Which one.
        client: ClientId,
        /// What went wrong.
        source: WorkError,
    },
    /// A client behind gRPC cannot go on.
    #[error("client {client}: {source}")]
    RemoteClient {
        /// Which one.
        client: ClientId,
        /// What went wrong.
        source: ClientError,
    },
    /// There is no port, or no thread for it.
    #[error("the loopback interface: {0}")]
    Network(io::Error),
    /// A client's state cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
    /// There is no place for what idle clients keep.
    #[error("a folder for the clients' state: {0}")]
    Scratch(io::Error),
    /// Nothing can happen any more, and the run is not over.
    #[error(
        "after {rounds} rounds no client has anything left to do and no deadline is ahead: too few clients take part"
    )]
    Stalled {
        /// Rounds that ended.
        rounds: u64,
    },
}

impl SimulationError {
    /// The key of the recipe whose value is to blame, where one is.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Data(error) => error.key(),
            Self::Workplace(error) => error.key(),
            Self::Engine(error) => error.key(),
            Self::Client { source, .. } => source.key(),
            Self::RemoteClient { source, .. } => source.key(),
            _ => None,
        }
    }
}

impl<'a> Simulation<'a> {
    /// A simulation of a recipe, on the recipe's own data.
    pub fn new(recipe: Recipe) -> Self {
        Self {
            recipe,
            workplace: None,
            evaluator: None,
            distiller: None,
            store: None,
            threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            device: Device::Cpu,
            transport: Transport::default(),
            on_round: Box::new(|_| ControlFlow::Continue(())),
        }
    }

    /// Gives the clients another model and other data than the recipe's. Client `i` of `data.clients` is called
    /// [`ClientId::numbered`]`("client", i)`.
    pub fn workplace(mut self, workplace: Arc<dyn Workplace>) -> Self {
        self.workplace = Some(workplace);
        self
    }

    /// Evaluates the model otherwise than on the recipe's test set. Without a call of this, a simulation with a
    /// workplace of its own is not evaluated.
    pub fn evaluator(mut self, evaluator: Box<dyn Evaluate>) -> Self {
        self.evaluator = Some(evaluator);
        self
    }

    /// Distills otherwise than on the recipe's examples; needed with a workplace of one's own where the recipe distills.
    pub fn distiller(mut self, distiller: Box<dyn Distill>) -> Self {
        self.distiller = Some(distiller);
        self
    }

    /// Keeps the run's records; by default they are discarded. A run of the same recipe that the store has is not gone
    /// on with.
    pub fn store(mut self, store: Box<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Trains so many clients at once; by default as many as there are processors.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Lets the recipe's models compute on this device; see [`dunlin_nn::model::device`]. A workplace of the caller's own
    /// chooses for itself.
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Chooses what carries the clients' calls.
    pub fn transport(mut self, transport: Transport) -> Self {
        self.transport = transport;
        self
    }

    /// Calls `on_round` with the summary of each round that ends, and again when a summary has learned more from a
    /// federated evaluation. Breaking stops the run.
    pub fn on_round(mut self, on_round: impl FnMut(&RoundSummary) -> ControlFlow<()> + 'a) -> Self {
        self.on_round = Box::new(on_round);
        self
    }

    /// Runs the federation to its end.
    ///
    /// # Errors
    /// When the recipe is wrong, data are missing, a client's training fails or the model diverges.
    ///
    /// # Panics
    /// When a trainer does.
    pub fn run(self) -> Result<SimulationOutcome, SimulationError> {
        let Self { recipe, workplace, mut evaluator, mut distiller, store, threads, device, transport, on_round } =
            self;
        recipe.validate()?;
        let clients: Vec<_> = (0..recipe.data.clients).map(|i| ClientId::numbered("client", i)).collect();
        let workplace = match workplace {
            Some(workplace) => workplace,
            None => {
                let split = data::load(&recipe.data, &recipe.data_seed())?;
                if evaluator.is_none() {
                    let set = TestSet::new(&recipe, &split)?.map(|set| set.on(&device)).transpose()?;
                    evaluator = set.map(|set| Box::new(set) as Box<dyn Evaluate>);
                }
                if distiller.is_none() {
                    let set = ServerSet::new(&recipe, &split)?.map(|set| set.on(&device)).transpose()?;
                    distiller = set.map(|set| Box::new(set) as Box<dyn Distill>);
                }
                let whole = DataWorkplace::whole(&recipe, split.train, &clients);
                Arc::new(whole.map_err(SimulationError::Workplace)?.with_device(device))
            }
        };
        if let Some(client) = clients.iter().find(|client| !recipe.has_width(workplace.width(client))) {
            return Err(SimulationError::Width { client: client.clone(), width: workplace.width(client) });
        }
        let (layout, initial) = workplace.model().map_err(SimulationError::Workplace)?;
        let seed = Seed::from_u64(recipe.seed).derive("simulation");
        let id = seed.derive("run").as_bytes().first_chunk().copied().map_or(RunId([0; 8]), RunId);
        let start = Start {
            recipe: recipe.clone(),
            layout,
            initial,
            store: store.unwrap_or_else(|| Box::<DiscardStore>::default()),
            evaluator,
            distiller,
            simulated: transport == Transport::InProcess,
            anew: true,
            id,
            created_ms: 0,
        };
        let run = start.row();
        let engine = engine::open(start, Timestamp(0))?;

        let scratch = if recipe.uplink.feedback > 0.0 || recipe.limits.client_bytes > 0 {
            Some(tempfile::tempdir().map_err(SimulationError::Scratch)?)
        } else {
            None
        };
        if transport == Transport::Grpc {
            let state_dir = scratch.as_ref().map(|dir| dir.path().to_owned());
            let orders = recipe.cohort_size() > recipe.rounds.cohort;
            let clients =
                grpc::Clients { names: clients, workplace, threads, state_dir, turns: orders.then_some(seed) };
            return grpc::run(engine, run, &clients, on_round);
        }
        let bench = Bench { recipe, workplace, run: id, state_dir: scratch.as_ref().map(|dir| dir.path().to_owned()) };
        let pool = Pool::new(&bench);
        std::thread::scope(|scope| {
            let _closing = pool.closing();
            for _ in 0..threads {
                scope.spawn(|| pool.work());
            }
            World::new(engine, &bench, &pool, (&clients, &seed), on_round)?.run()
        })
    }
}

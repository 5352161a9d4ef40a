//! A server and a channel to it, joined by pipes in memory.

use dunlin::client::driver::{self, Shared, Workplace};
use dunlin::client::participant::End;
use dunlin::client::state::{MemoryState, ModelCache};
use dunlin::client::trainer::{Progress, Trainer, TrainerError, Work};
use dunlin::client::transport::Transport;
use dunlin::core::{ClientId, Layout, Recipe, Report, RunId, TensorSpec, Timestamp};
use dunlin::nn::train::Evaluation;
use dunlin::server::driver::{Driver, Handle};
use dunlin::server::engine::{self, Start};
use dunlin::server::store::MemoryStore;
use dunlin::server::{driver as server, serve};
use hyper_util::rt::TokioIo;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::DuplexStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Parameters of the toy model.
pub(crate) const LEN: usize = 400;

pub(crate) struct World {
    pub(crate) handle: Handle,
    connect: mpsc::UnboundedSender<io::Result<DuplexStream>>,
    _driver: Driver,
}

pub(crate) fn recipe(sets: &[&str]) -> Recipe {
    let mut all = vec!["uplink.density=1", "uplink.quantizer=f32", "uplink.feedback=0", "data.clients=10"];
    all.extend(["downlink.density=1", "downlink.quantizer=f32", "rounds.cohort=10", "rounds.idle_timeout_s=600"]);
    all.extend(sets);
    let all: Vec<_> = all.into_iter().map(String::from).collect();
    Recipe::load(None, &all).unwrap()
}

pub(crate) fn layout() -> Layout {
    Toy { len: LEN }.layout()
}

impl World {
    /// A server of `recipe` on the toy model.
    pub(crate) fn start(recipe: &Recipe) -> Self {
        Self::start_on(recipe, &Toy { len: LEN })
    }

    /// The same on one of another size.
    pub(crate) fn start_on(recipe: &Recipe, toy: &Toy) -> Self {
        let start = Start {
            recipe: recipe.clone(),
            layout: toy.layout(),
            initial: vec![0.0; toy.len],
            store: Box::new(MemoryStore::new(recipe.limits.packet_ring)),
            evaluator: None,
            distiller: None,
            simulated: false,
            anew: true,
            id: RunId([7; 8]),
            created_ms: 1,
        };
        let row = start.row();
        let engine = engine::open(start, Timestamp(0)).unwrap();
        let (driver, handle) = server::start(engine, row, Instant::now());
        let (connect, incoming) = mpsc::unbounded_channel();
        let serving = handle.clone();
        tokio::spawn(async move {
            serve::serve_on(&serving, UnboundedReceiverStream::new(incoming), std::future::pending()).await.unwrap();
        });
        Self { handle, connect, _driver: driver }
    }

    /// Connects to the server: a pipe of 64 KiB, closed at its other end if the server is gone.
    pub(crate) fn connector(&self) -> impl Fn() -> DuplexStream + Clone + Send + 'static {
        let connect = self.connect.clone();
        move || {
            let (near, far) = tokio::io::duplex(64 << 10);
            drop(connect.send(Ok(far)));
            near
        }
    }

    /// A channel of its own.
    pub(crate) fn channel(&self) -> Channel {
        channel_over(self.connector())
    }

    pub(crate) fn transport(&self) -> Transport {
        Transport::over(self.channel())
    }

    /// A transport over a socket of the loopback interface.
    pub(crate) async fn tcp_transport(&self) -> Transport {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            serve::serve_on(&handle, incoming, std::future::pending()).await.unwrap();
        });
        Transport::new(&url).unwrap()
    }

    /// Runs honest clients of these numbers to the end of the run.
    pub(crate) fn honest(&self, numbers: std::ops::Range<u32>) -> Vec<JoinHandle<End>> {
        let shared =
            Shared::new(Box::new(|_| Ok(Arc::new(Toy { len: LEN }) as Arc<dyn Workplace>)), ModelCache::new(None), 2);
        let clients = numbers.map(|number| ClientId::numbered("client", number));
        let spawn = |client: ClientId| {
            let (transport, shared) = (self.transport(), Arc::clone(&shared));
            tokio::spawn(async move {
                driver::run(client, Box::<MemoryState>::default(), transport, shared, 10_000).await.unwrap()
            })
        };
        clients.map(spawn).collect()
    }

    pub(crate) async fn report(&self) -> Report {
        self.handle.report().await.expect("the run comes to an end")
    }
}

/// A channel each of whose connections is another pipe.
pub(crate) fn channel_over(connect: impl Fn() -> DuplexStream + Send + 'static) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let near = connect();
        async { Ok::<_, io::Error>(TokioIo::new(near)) }
    });
    Endpoint::from_static("http://memory").connect_with_connector_lazy(connector)
}

/// Each client pulls its own coordinate up by one eighth a round, so the model shows who was counted how often.
#[derive(Clone, Copy)]
pub(crate) struct Toy {
    pub(crate) len: usize,
}

pub(crate) struct ToyTrainer(Layout, usize);

impl Toy {
    fn layout(&self) -> Layout {
        Layout::new(vec![TensorSpec::new("w", [self.len / 10, 10])]).unwrap()
    }
}

impl Workplace for Toy {
    fn model(&self) -> Result<(Layout, Vec<f32>), TrainerError> {
        Ok((self.layout(), vec![0.0; self.len]))
    }

    fn examples(&self, _: &ClientId) -> Result<u32, TrainerError> {
        Ok(1)
    }

    fn trainer(&self, client: &ClientId) -> Result<Box<dyn Trainer>, TrainerError> {
        let number = client.as_str().rsplit('-').next().unwrap().parse().unwrap();
        Ok(Box::new(ToyTrainer(self.layout(), number)))
    }
}

impl Trainer for ToyTrainer {
    fn layout(&self) -> &Layout {
        &self.0
    }

    fn examples(&self) -> u32 {
        1
    }

    fn train(&mut self, _: &Work<'_>, params: &mut Vec<f32>, _: Progress<'_>) -> Result<f64, TrainerError> {
        params[self.1] += 0.125;
        Ok(0.5)
    }

    fn evaluate(&mut self, _: &[f32]) -> Result<Evaluation, TrainerError> {
        Ok(Evaluation { examples: 10, correct: 5 + self.1 as u64 % 2, loss_sum: 1.0 })
    }
}

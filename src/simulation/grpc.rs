//! A federation in one process whose calls go through gRPC over the loopback interface, in real time.

use super::turn::Turnstile;
use super::{OnRound, SimulationError, SimulationOutcome};
use dunlin_client::driver::{self as client, ClientError, Prepare, Shared, Workplace};
use dunlin_client::participant::End;
use dunlin_client::state::{ClientState, DirectoryState, MemoryState, ModelCache};
use dunlin_client::transport::Transport;
use dunlin_core::{ClientId, RoundSummary, Seed};
use dunlin_server::driver::{self as server, Handle, RunEvent};
use dunlin_server::engine::Engine;
use dunlin_server::serve;
use dunlin_server::store::RunRow;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;

/// What the clients of a run share.
pub(super) struct Clients {
    /// Their names.
    pub(super) names: Vec<ClientId>,
    /// Their data.
    pub(super) workplace: Arc<dyn Workplace>,
    /// How many of them compute at once.
    pub(super) threads: usize,
    /// Where idle ones keep their residuals and models; in RAM without it.
    pub(super) state_dir: Option<PathBuf>,
    /// What the order of their updates is drawn from, where it decides which of them count.
    pub(super) turns: Option<Seed>,
}

/// Serves `engine` on a port of the system's choice and runs the clients against it until the run ends.
pub(super) fn run(
    engine: Engine,
    run: RunRow,
    clients: &Clients,
    mut on_round: Box<OnRound<'_>>,
) -> Result<SimulationOutcome, SimulationError> {
    let runtime = tokio::runtime::Runtime::new().map_err(SimulationError::Network)?;
    let layout = engine.layout().clone();
    let (driver, handle) = server::start(engine, run, Instant::now());
    let result = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(SimulationError::Network)?;
        let url = format!("http://{}", listener.local_addr().map_err(SimulationError::Network)?);
        let serving = {
            let handle = handle.clone();
            tokio::spawn(async move {
                serve::serve_on(&handle, TcpListenerStream::new(listener), std::future::pending()).await
            })
        };
        let mut running = start_clients(clients, &url, &handle)?;
        let mut rounds: Vec<RoundSummary> = Vec::new();
        let mut index = 0;
        let report = loop {
            tokio::select! {
                event = handle.event(index) => match event {
                    Some(RunEvent::Round(summary)) => {
                        index += 1;
                        if on_round(&summary) == ControlFlow::Break(()) {
                            // An engine that is gone has stopped already.
                            let _stopped = handle.stop().await;
                        }
                        match rounds.iter_mut().find(|known| known.round == summary.round) {
                            Some(known) => *known = *summary,
                            None => rounds.push(*summary),
                        }
                    }
                    Some(RunEvent::Report(report)) => break Some(*report),
                    None => break None,
                },
                Some(ended) = running.join_next() => match ended {
                    Ok(Ok(_)) => {}
                    Ok(Err((client, source))) => return Err(SimulationError::RemoteClient { client, source }),
                    Err(panic) => std::panic::resume_unwind(panic.into_panic()),
                },
            }
        };
        let params = handle.broadcast().model().floats();
        running.abort_all();
        serving.abort();
        let Some(report) = report else { return Ok(None) };
        Ok(Some(SimulationOutcome { report, rounds, params, layout, clients: Vec::new() }))
    });
    runtime.shutdown_background();
    drop(handle);
    match result? {
        Some(outcome) => Ok(outcome),
        None => {
            let rounds = 0;
            driver.join()?;
            Err(SimulationError::Stalled { rounds })
        }
    }
}

type Ended = Result<End, (ClientId, ClientError)>;

fn start_clients(clients: &Clients, url: &str, server: &Handle) -> Result<JoinSet<Ended>, SimulationError> {
    let transport = Transport::new(url).expect("a socket's address makes a URL");
    let workplace = Arc::clone(&clients.workplace);
    let models = ModelCache::new(clients.state_dir.as_ref().map(|dir| dir.join("models")));
    let prepare: Box<Prepare> = Box::new(move |_| Ok(Arc::clone(&workplace)));
    let shared = match &clients.turns {
        Some(seed) => {
            let turnstile = Turnstile::new(server.clone(), *seed);
            Shared::gated(Box::new(turnstile), prepare, models, clients.threads)
        }
        None => Shared::new(prepare, models, clients.threads),
    };
    let mut running = JoinSet::new();
    for client in &clients.names {
        let state: Box<dyn ClientState> = match &clients.state_dir {
            Some(dir) => Box::new(DirectoryState::scratch(&dir.join(client.as_str()))?),
            None => Box::new(MemoryState::default()),
        };
        let (client, transport, shared) = (client.clone(), transport.clone(), Arc::clone(&shared));
        running.spawn(async move {
            let ended = client::run(client.clone(), state, transport, shared, WAIT_MS).await;
            ended.map_err(|source| (client, source))
        });
    }
    Ok(running)
}

/// How long the server may hold a check-in: longer than rounds take, shorter than any timeout on the way.
const WAIT_MS: u64 = 20_000;

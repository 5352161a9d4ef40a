//! A server on the network: sockets, services, metrics, shutdown.

mod accept;
mod metrics;

pub use metrics::metrics_text;

use crate::coordinator::{PhaseName, StatusView};
use crate::distill::{Distill, ServerSet, by_tenths, student};
use crate::driver::{self, Driver, Handle, RunEvent};
use crate::engine::{self, Engine, EngineError, Start};
use crate::evaluate::{Evaluate, TestSet};
use crate::service::router;
use crate::store::{RunRow, SqliteStore, StoreError};
use dunlin_core::report::Report;
use dunlin_core::{Digest, Recipe, RunId, Timestamp};
use dunlin_nn::data;
use dunlin_nn::export::Results;
use dunlin_nn::model::Model;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

/// How to serve a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The recipe.
    pub recipe: Recipe,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where to answer `GET /metrics`, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// Where the run is kept.
    pub data_dir: PathBuf,
    /// Begin a new run even if the directory holds one of this recipe.
    pub new_run: bool,
    /// Keep answering after the run has ended.
    pub stay: bool,
}

/// Why a server ended before its run did.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The recipe's data or model cannot be made.
    #[error(transparent)]
    Data(#[from] dunlin_nn::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The network failed.
    #[error("serving: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The results cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
}

impl ServeError {
    /// The key of the recipe whose value is to blame, where one is.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Data(error) => error.key(),
            Self::Engine(error) => error.key(),
            _ => None,
        }
    }
}

/// Loads the recipe's test set, opens or begins its run in `data_dir`, and starts its thread.
///
/// # Errors
/// When data, model or store fail.
pub async fn open(options: &Options) -> Result<(Driver, Handle), ServeError> {
    let options = options.clone();
    let runtime = tokio::runtime::Handle::current();
    let opened = tokio::task::spawn_blocking(move || {
        let epoch = Instant::now();
        let recipe = options.recipe;
        let split = data::load(&recipe.data, &recipe.data_seed())?;
        let model = Model::new(&recipe.model, split.train.input())?;
        let evaluator = TestSet::new(&recipe, &split)?;
        let distiller = ServerSet::new(&recipe, &split)?.map(|set| set.kept_in(options.data_dir.clone()));
        let store = SqliteStore::open(&options.data_dir, runtime)?.with_packet_ring(recipe.limits.packet_ring);
        let start = Start {
            layout: model.layout().clone(),
            initial: model.init(&recipe.model_seed()),
            store: Box::new(store),
            evaluator: evaluator.map(|evaluator| Box::new(evaluator) as Box<dyn Evaluate>),
            distiller: distiller.map(|set| Box::new(set) as Box<dyn Distill>),
            simulated: false,
            anew: options.new_run,
            id: RunId(rand::random()),
            created_ms: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64),
            recipe,
        };
        let mut engine = engine::open(start, Timestamp(0))?;
        let run = row(&mut engine)?;
        tracing::info!(run = %run.id, name = %run.name, rounds = run.rounds, "run opened");
        Ok::<_, ServeError>(driver::start(engine, run, epoch))
    })
    .await;
    match opened {
        Ok(opened) => opened,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

fn row(engine: &mut Engine) -> Result<RunRow, StoreError> {
    let id = engine.coordinator.run();
    let known = engine.runs()?.into_iter().find(|run| run.id == id);
    Ok(known.unwrap_or_else(|| RunRow {
        id,
        name: engine.recipe().name.clone(),
        recipe: engine.recipe().to_toml(),
        recipe_digest: Digest(engine.recipe().digest()),
        created_ms: 0,
        outcome: None,
        rounds: 0,
    }))
}

/// Serves connections until `shutdown`, and then at most a little longer for calls under way.
///
/// # Errors
/// When the transport fails.
pub async fn serve_on<S, C, E>(
    handle: &Handle,
    incoming: S,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError>
where
    S: Stream<Item = Result<C, E>>,
    C: Connected + tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        // The receiver is gone when serving has failed already.
        let _ = stopping.send(());
    };
    let serving = router(handle).await.serve_with_incoming_shutdown(incoming, shutdown);
    let drained = async {
        if stopped.await.is_ok() {
            tokio::time::sleep(DRAIN).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        result = serving => result?,
        () = drained => tracing::info!("calls under way were cut off"),
    }
    Ok(())
}

/// Serves a run until it ends, or until the process is told to stop; returns the report if it ended. `tell` is called
/// with each event of the run.
///
/// # Errors
/// When the run or the network fails.
pub async fn serve(options: Options, tell: &(dyn Fn(&RunEvent) + Sync)) -> Result<Option<Report>, ServeError> {
    let listen = |address: SocketAddr| async move {
        TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
    };
    let listener = listen(options.listen).await?;
    let metrics = match options.metrics {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let (driver, handle) = open(&options).await?;
    let address = listener.local_addr().unwrap_or(options.listen);
    tracing::info!(%address, "listening");
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "links are neither encrypted nor authenticated: expose this address to a trusted network only");
    }
    if let Some(listener) = metrics {
        tokio::spawn(metrics::serve(listener, handle.clone()));
    }
    let mut outcome = Ok(None);
    let end = async {
        let ended = tokio::select! {
            report = handle.report() => report,
            () = interrupted() => {
                // An engine that is busy is not waited for: what it has accepted is durable.
                let status = tokio::time::timeout(LAST_LOOK, handle.status()).await;
                let place = status.ok().and_then(Result::ok).map_or_else(String::new, |status| standing(&status.view));
                let dir = options.data_dir.display();
                tracing::info!("interrupted{place}; the run goes on when the server is started again with --data-dir {dir}");
                return;
            }
        };
        // Without a report the engine has failed, and tells why when it is joined.
        let Some(report) = ended else { return };
        tracing::info!(outcome = report.outcome.label(), accuracy = report.accuracy, digest = %report.model_digest, "run ended");
        outcome = tokio::select! {
            written = write_results(&options, &handle, &report) => written.map(Some),
            () = interrupted() => {
                let dir = options.data_dir.display();
                tracing::info!("interrupted while the student learned; it goes on when the server is started again with --data-dir {dir}");
                return;
            }
        };
        if options.stay {
            interrupted().await;
        } else {
            tokio::time::sleep(FAREWELL).await;
        }
    };
    let telling = async {
        let mut index = 0;
        while let Some(event) = handle.event(index).await {
            index += 1;
            tell(&event);
        }
        // Serving goes on, and ends by itself.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // What has happened is told before the end is looked at.
        biased;
        () = telling => {}
        served = serve_on(&handle, accept::connections(listener), end) => served?,
    }
    let report = outcome?;
    drop(handle);
    if report.is_none() && driver.is_finished() {
        let result = tokio::task::spawn_blocking(|| driver.join()).await;
        match result {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    Ok(report)
}

/// Where a run stands that is interrupted, and what it has of its round.
fn standing(view: &StatusView) -> String {
    let (round, reported, chosen) = (view.round, view.reported, view.chosen);
    match view.phase {
        PhaseName::Gathering => format!(" after {round} rounds, while it waited for clients"),
        PhaseName::Training => format!(" in round {round} with {reported} of {chosen} updates in, which are kept"),
        PhaseName::Publishing => format!(" while the model of round {round} was made"),
        PhaseName::Evaluating => {
            format!(" while clients evaluated the model of round {round}, which they will do again")
        }
        PhaseName::Finished(_) => String::new(),
    }
}

async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    // Without a handler the default action ends the process just as well.
    let _ = tokio::signal::ctrl_c().await;
}

async fn write_results(options: &Options, handle: &Handle, report: &Report) -> Result<Report, ServeError> {
    let Ok(status) = handle.status().await else { return Ok(report.clone()) };
    let dir = results_dir(&options.data_dir, status.run.id);
    let mut rounds = Vec::new();
    let mut index = 0;
    while let Some(crate::driver::RunEvent::Round(summary)) = handle.event(index).await {
        index += 1;
        rounds.retain(|known: &dunlin_core::RoundSummary| known.round != summary.round);
        rounds.push(*summary);
    }
    let params = handle.broadcast().model().floats();
    let split = data::load(&options.recipe.data, &options.recipe.data_seed())?;
    let model = Model::new(&options.recipe.model, split.train.input())?;
    let recipe = &options.recipe;
    let (mut model, params) = model.resulting(recipe, params)?;
    let mut report = report.clone();
    // On a thread of its own: meanwhile clients hear that the run is over.
    let work = {
        let (recipe, data_dir) = (recipe.clone(), options.data_dir.clone());
        move || {
            let mut progress = by_tenths(|percent| tracing::info!(percent, "the student learns"));
            let made = student(&recipe, &split, (&mut model, &params), Some(&data_dir), &mut progress);
            made.map(|student| (model, params, student))
        }
    };
    let made = tokio::task::spawn_blocking(work).await;
    let (model, params, student) = made.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
    report.student = student.as_ref().map(|student| student.report.clone());
    let results = Results {
        recipe,
        report: &report,
        rounds: &rounds,
        clients: &[],
        model: &model,
        params: &params,
        student: student.as_ref().map(|student| (&student.model, student.params.as_slice())),
    };
    results.write(&dir).map_err(|source| ServeError::Write { path: dir.clone(), source })?;
    tracing::info!(dir = %dir.display(), "report, rounds and model written");
    Ok(report)
}

/// Where the results of a run are written.
#[must_use]
pub fn results_dir(data_dir: &Path, run: RunId) -> PathBuf {
    data_dir.join("runs").join(run.to_string())
}

/// Time in which an interrupted server finds out how its run stands.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// Time for calls under way to finish after a stop.
const DRAIN: Duration = Duration::from_secs(3);

/// Time between the end of a run and the end of its server: held check-ins are answered at once, others come back
/// within their pause.
const FAREWELL: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_core::{Choice, ModelVersion, Outcome};

    #[test]
    fn an_interrupted_run_tells_where_it_stands_and_what_it_keeps() {
        let view = |phase| StatusView {
            phase,
            term: 2,
            round: 5,
            version: ModelVersion(4),
            clients: 12,
            live: 12,
            eligible: 12,
            chosen: 10,
            choice: Some(Choice::Random),
            reported: 3,
            lost: 1,
            max_bytes: 0,
            client_ms: None,
            rejects: Vec::new(),
        };
        for (phase, told) in [
            (PhaseName::Gathering, " after 5 rounds, while it waited for clients"),
            (PhaseName::Training, " in round 5 with 3 of 10 updates in, which are kept"),
            (PhaseName::Publishing, " while the model of round 5 was made"),
            (PhaseName::Evaluating, " while clients evaluated the model of round 5, which they will do again"),
            (PhaseName::Finished(Outcome::Completed), ""),
        ] {
            assert_eq!(standing(&view(phase)), told);
        }
    }
}

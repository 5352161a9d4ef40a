//! Rounds between processes: a server and its clients, started from this program.

use super::{Figures, PEAK, median, memory_of};
use crate::commands::{Failure, runtime};
use crate::progress::Progress;
use dunlin::RoundSummary;
use dunlin::client::transport::control::{ControlTransport, RunEvent};
use dunlin::core::{ClientId, Outcome, Recipe};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A process that ends with this value.
pub(super) struct Process(pub(super) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the recipe between processes in a folder that is removed afterwards.
pub(super) fn measure(recipe: &Recipe, per_process: u32, state_dir: bool) -> Result<Figures, Failure> {
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join("recipe.toml"), recipe.to_toml())?;
    let (listen, metrics) = (free_address()?, free_address()?);
    let url = format!("http://{listen}");
    let program = std::env::current_exe()?;
    let mut server = start(dir.path(), "server", &program, |command| {
        command.args(["server", "recipe.toml", "--data-dir", "run"]);
        command.args(["--listen", &listen.to_string(), "--metrics", &metrics.to_string()]);
    })?;
    let runtime = runtime()?;
    let mut transport = {
        let _entered = runtime.enter();
        ControlTransport::new(&url)?
    };
    let patience = Instant::now();
    while let Err(error) = runtime.block_on(transport.status()) {
        if server.0.try_wait()?.is_some() || patience.elapsed() > MAX_START {
            let log = std::fs::read_to_string(dir.path().join("server.log")).unwrap_or_default();
            let last = log.lines().last().unwrap_or("no log").to_owned();
            return Err(Failure::other(format!("the server did not start: {error}; its last words: {last}")));
        }
        std::thread::sleep(POLL);
    }
    let call_seconds = Some(runtime.block_on(call(&mut transport))?);
    let mut clients = Vec::new();
    for first in (0..recipe.data.clients).step_by(per_process as usize) {
        let count = per_process.min(recipe.data.clients - first);
        let name = ClientId::numbered("client", first);
        clients.push(start(dir.path(), name.as_str(), &program, |command| {
            command.args(["client", "--server", &url, "--data", &format!("recipe:{first}")]);
            if state_dir {
                command.args(["--state-dir", &format!("state-{name}")]);
            }
            match count {
                1 => command.args(["--threads", "1", "--id", name.as_str()]),
                _ => command.args(["--id", "client", "--virtual", &count.to_string()]),
            };
        })?);
    }
    // They leave when the run ends, so they are asked after each round.
    let mut client_peak_bytes = None;
    let weigh = || {
        let peaks = clients.iter().filter_map(|client| memory_of(&client.0.id().to_string(), PEAK));
        client_peak_bytes = client_peak_bytes.max(peaks.max());
    };
    let rounds = runtime.block_on(follow(recipe, &mut transport, weigh))?;
    // The server lingers a little for its clients, which is time enough to ask.
    let peak_bytes = memory_of(&server.0.id().to_string(), PEAK);
    let server_seconds = timings(metrics, rounds.len() as u64);
    Ok(Figures {
        server_seconds,
        call_seconds,
        peak_bytes,
        client_peak_bytes,
        ..Figures::from_rounds(recipe, &rounds, recipe.data.features)
    })
}

/// Median seconds of a small call there and back.
async fn call(transport: &mut ControlTransport) -> Result<f64, Failure> {
    let mut seconds = Vec::new();
    for _ in 0..CALLS {
        let timer = Instant::now();
        transport.status().await?;
        seconds.push(timer.elapsed().as_secs_f64());
    }
    Ok(median(seconds))
}

/// The rounds of the run, when it has ended as it should.
async fn follow(
    recipe: &Recipe,
    transport: &mut ControlTransport,
    mut after_each: impl FnMut(),
) -> Result<Vec<RoundSummary>, Failure> {
    let mut progress = Progress::new(recipe.rounds.count, false);
    let mut rounds = Vec::new();
    let mut events = transport.watch().await?;
    while let Some(event) = events.next().await? {
        match event {
            RunEvent::Round(round) => {
                progress.round(&round);
                after_each();
                rounds.push(*round);
            }
            RunEvent::Report(report) if report.outcome == Outcome::Completed => {
                progress.finish();
                return Ok(rounds);
            }
            RunEvent::Report(report) => return Err(Failure::other(format!("the run ended early: {}", report.outcome))),
        }
    }
    Err(Failure::other("the server stopped before the run had ended"))
}

/// Starts a program, its log in a file.
pub(super) fn start(
    dir: &Path,
    name: &str,
    program: &Path,
    arguments: impl FnOnce(&mut Command),
) -> Result<Process, Failure> {
    let log = File::create(dir.join(format!("{name}.log")))?;
    let mut command = Command::new(program);
    arguments(&mut command);
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let child = command.spawn().map_err(|error| Failure::other(format!("cannot start {name}: {error}")))?;
    Ok(Process(child))
}

/// An address on the loopback interface that nobody uses now.
pub(super) fn free_address() -> Result<SocketAddr, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Seconds a round by what the server spent them on; empty when it does not tell.
fn timings(metrics: SocketAddr, rounds: u64) -> BTreeMap<String, f64> {
    let text = scrape(metrics).unwrap_or_default();
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse::<f64>().ok()
    };
    let parts = [
        ("disk sync", "dunlin_sync_seconds"),
        ("codec, checking", "dunlin_vet_seconds"),
        ("codec, adding up", "dunlin_sum_seconds"),
        ("mean and packet", "dunlin_publish_seconds"),
        ("coordinator", "dunlin_decide_seconds"),
    ];
    parts.iter().filter_map(|(part, name)| Some(((*part).to_owned(), value(name)? / rounds.max(1) as f64))).collect()
}

fn scrape(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Longest time for a server to start.
const MAX_START: Duration = Duration::from_secs(30);

/// How often a server that starts is asked.
const POLL: Duration = Duration::from_millis(50);

/// Calls timed, of which the median counts.
const CALLS: usize = 201;

//! What a server and an idle client cost: time to be ready, memory, size of the program.

use super::median;
use super::memory_of;
use super::processes::{Process, free_address, start};
use crate::commands::output::{self, bytes, seconds};
use crate::commands::summary::plain_table;
use crate::commands::{Done, Failure, runtime};
use clap::Args;
use dunlin::client::transport::control::{ControlTransport, RunState};
use dunlin::core::Recipe;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Time how long a server and a client take to be ready, and weigh them
#[derive(Args, Clone, Debug)]
pub(super) struct StartArgs {
    /// Times that both are started
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,

    /// The program of the client [default: dunlin-client beside this program]
    #[arg(long, value_name = "FILE")]
    client: Option<PathBuf>,

    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// What was measured; seconds and bytes are medians.
#[derive(Debug, Serialize)]
struct Figures {
    runs: u32,
    server_ready_seconds: f64,
    server_bytes: u64,
    server_memory_bytes: Option<u64>,
    client_ready_seconds: f64,
    client_bytes: u64,
    client_memory_bytes: Option<u64>,
}

pub(super) fn run(args: &StartArgs) -> Done {
    let server = std::env::current_exe()?;
    let client = args.client.clone().unwrap_or_else(|| server.with_file_name("dunlin-client"));
    let size = |program: &Path| match std::fs::metadata(program) {
        Ok(about) => Ok(about.len()),
        Err(error) => Err(Failure::usage(format!(
            "--client {}: {error}; `cargo build --profile dist --workspace --bins` makes it beside dunlin",
            program.display()
        ))),
    };
    let (server_bytes, client_bytes) = (size(&server)?, size(&client)?);
    let measured = (0..args.runs).map(|_| once(&client)).collect::<Result<Vec<_>, _>>()?;
    let figures = Figures {
        runs: args.runs,
        server_ready_seconds: median(measured.iter().map(|once| once.server_ready)),
        server_bytes,
        server_memory_bytes: median_bytes(measured.iter().map(|once| once.server_memory)),
        client_ready_seconds: median(measured.iter().map(|once| once.client_ready)),
        client_bytes,
        client_memory_bytes: median_bytes(measured.iter().map(|once| once.client_memory)),
    };
    if args.json {
        output::json(&figures);
    } else {
        print(&figures);
    }
    Ok(ExitCode::SUCCESS)
}

/// One start of both.
struct Once {
    server_ready: f64,
    server_memory: Option<u64>,
    client_ready: f64,
    client_memory: Option<u64>,
}

fn once(client: &Path) -> Result<Once, Failure> {
    let dir = tempfile::tempdir()?;
    // Two clients are waited for and one comes, so it has nothing to do.
    let recipe = Recipe::load(None, &["data.clients=2".into(), "rounds.cohort=2".into()]).map_err(Failure::usage)?;
    std::fs::write(dir.path().join("recipe.toml"), recipe.to_toml())?;
    let listen = free_address()?;
    let url = format!("http://{listen}");
    let runtime = runtime()?;
    let mut transport = {
        let _entered = runtime.enter();
        ControlTransport::new(&url)?
    };

    let timer = Instant::now();
    let mut server = start(dir.path(), "server", &std::env::current_exe()?, |command| {
        command.args(["server", "recipe.toml", "--data-dir", "run", "--listen", &listen.to_string()]);
    })?;
    let mut reached = |process: &mut Process, state: &dyn Fn(&RunState) -> bool, name: &str| {
        while !runtime.block_on(transport.status()).is_ok_and(|status| state(&status)) {
            if process.0.try_wait()?.is_some() || timer.elapsed() > MAX_START {
                return Err(Failure::other(format!("the {name} did not start")));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    };
    reached(&mut server, &|_| true, "server")?;
    let server_ready = timer.elapsed();

    let started = timer.elapsed();
    let mut client = start(dir.path(), "client", client, |command| {
        command.args(["--server", &url, "--data", "recipe:0", "--id", "idle"]);
    })?;
    reached(&mut client, &|status| status.live > 0, "client")?;
    let client_ready = timer.elapsed() - started;
    std::thread::sleep(SETTLE);
    let memory = |process: &Process| memory_of(&process.0.id().to_string(), "VmRSS:");
    Ok(Once {
        server_ready: server_ready.as_secs_f64(),
        server_memory: memory(&server),
        client_ready: client_ready.as_secs_f64(),
        client_memory: memory(&client),
    })
}

fn print(figures: &Figures) {
    let mut table = plain_table();
    let runs = format!("median of {}", figures.runs);
    table.add_row(["server ready", &seconds(figures.server_ready_seconds), &runs]);
    table.add_row(["server program", &bytes(figures.server_bytes), ""]);
    if let Some(memory) = figures.server_memory_bytes {
        table.add_row(["server memory", &bytes(memory), "resident, waiting for clients"]);
    }
    table.add_row(["client ready", &seconds(figures.client_ready_seconds), "started, joined, data loaded"]);
    table.add_row(["client program", &bytes(figures.client_bytes), ""]);
    if let Some(memory) = figures.client_memory_bytes {
        table.add_row(["client memory", &bytes(memory), "resident, waiting for work"]);
    }
    output::line(table);
}

fn median_bytes(values: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    let mut values = values.collect::<Option<Vec<u64>>>()?;
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

/// Longest time for both to start.
const MAX_START: Duration = Duration::from_secs(30);

/// How often the server is asked; it is also how exact the times are.
const POLL: Duration = Duration::from_millis(1);

/// Time for a client that is ready to come to rest.
const SETTLE: Duration = Duration::from_millis(200);

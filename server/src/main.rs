//! `dunlin-server`: the coordinator alone, without clients and simulation.

use clap::Parser;
use dunlin_server::command::{self, ServerArgs};
use std::process::ExitCode;

/// The coordinator of a Dunlin federation
#[derive(Parser)]
#[command(name = "dunlin-server", version)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let recipe = command::load_recipe(cli.server.recipe.as_ref(), &cli.server.set)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(command::run(cli.server))?;
    // Background work, such as a held connection, must not keep the process.
    runtime.shutdown_background();
    Ok(match report {
        Some(report) if command::as_asked(&recipe, &report) => ExitCode::SUCCESS,
        Some(_) => ExitCode::from(3),
        None => ExitCode::SUCCESS,
    })
}

//! `dunlin-client`: the client alone, small enough for an edge device.

use clap::Parser;
use dunlin_client::command::{self, ClientArgs};
use std::process::ExitCode;

/// A client of a Dunlin federation
#[derive(Parser)]
#[command(name = "dunlin-client", version)]
struct Cli {
    #[command(flatten)]
    client: ClientArgs,
}

fn main() -> anyhow::Result<ExitCode> {
    dunlin_nn::allocator::keep_freed_memory();
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    // One thread for the calls; training has its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let end = runtime.block_on(command::run(cli.client))?;
    tracing::info!(?end, "done");
    Ok(ExitCode::SUCCESS)
}

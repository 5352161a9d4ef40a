//! `dunlin-client`: the client alone, small enough for an edge device.

use clap::Parser;
use dunlin_client::command::{self, ClientArgs, CommandError};
use dunlin_client::participant::End;
use dunlin_core::exit::{self, Exit};
use std::io::Write;
use std::process::ExitCode;

/// A client of a Dunlin federation
#[derive(Parser)]
#[command(name = "dunlin-client", version, max_term_width = 100, after_help = exit::OF_CLIENT)]
struct Cli {
    #[command(flatten)]
    client: ClientArgs,
}

fn main() -> ExitCode {
    dunlin_nn::allocator::keep_freed_memory();
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let exit = match run(cli.client) {
        Ok(end) => {
            tracing::info!(?end, "done");
            Exit::Done
        }
        Err(error) => {
            // When nobody can be told, the code still says it.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            error.exit()
        }
    };
    exit.into()
}

fn run(args: ClientArgs) -> Result<End, CommandError> {
    // One thread for the calls; training has its own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(CommandError::Runtime)?.block_on(command::run(args, Box::new(|_| {})))
}

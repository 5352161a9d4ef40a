//! `dunlin-server`: the coordinator alone, without clients and simulation.

use clap::Parser;
use dunlin_core::exit::{self, Exit};
use dunlin_server::command::{self, CommandError, ServerArgs};
use std::io::Write;
use std::process::ExitCode;

/// The coordinator of a Dunlin federation
#[derive(Parser)]
#[command(name = "dunlin-server", version, max_term_width = 100, after_help = exit::OF_RUN)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let exit = run(cli.server).unwrap_or_else(|error| {
        // When nobody can be told, the code still says it.
        let _ = writeln!(std::io::stderr(), "error: {error}");
        error.exit()
    });
    exit.into()
}

fn run(args: ServerArgs) -> Result<Exit, Box<CommandError>> {
    let given = command::load_recipe(args.recipe.as_ref(), &args.set)?;
    let runtime = tokio::runtime::Runtime::new().map_err(CommandError::Threads)?;
    let report = runtime.block_on(command::run(args, &given, &|_| {}));
    // Background work, such as a held connection, must not keep the process.
    runtime.shutdown_background();
    Ok(command::exit(&given.recipe, report?.as_ref()))
}

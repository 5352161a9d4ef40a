//! `dunlin server` and `dunlin client`.

use super::{Done, Failure, code_of, of_server_command, output, summary};
use dunlin::client::command::{self as client, ClientArgs};
use dunlin::client::participant::End;
use dunlin::server::command::{self as server, ServerArgs};
use std::process::ExitCode;
use tokio::runtime::{Builder, Runtime};

/// Conducts a run to its end, or until the process is told to stop.
pub(crate) fn serve(args: ServerArgs) -> Done {
    let recipe = server::load_recipe(args.recipe.as_ref(), &args.set).map_err(of_server_command)?;
    let runtime = Runtime::new()?;
    let report = runtime.block_on(server::run(args));
    // Background work, such as a held connection, must not keep the process.
    runtime.shutdown_background();
    match report.map_err(of_server_command)? {
        Some(report) => {
            summary::print(&report, &[]);
            Ok(code_of(&recipe, &report))
        }
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Takes part in a run until it ends.
pub(crate) fn take_part(args: ClientArgs) -> Done {
    // One thread for the calls; training has its own.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let end = runtime.block_on(client::run(args)).map_err(|error| match error {
        client::CommandError::Url(_)
        | client::CommandError::Name(_)
        | client::CommandError::Data(_)
        | client::CommandError::Threads(_) => Failure::usage(error),
        client::CommandError::State(_) | client::CommandError::Client { .. } => Failure::other(error),
    })?;
    match end {
        End::Finished(outcome) => {
            output::note(&format!("the run is over: {outcome}"));
            Ok(ExitCode::SUCCESS)
        }
        End::Refused(reject) => Err(Failure::other(reject)),
    }
}

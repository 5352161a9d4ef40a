//! `dunlin server`.

use super::{Done, of_server_command, summary};
use crate::progress::Progress;
use dunlin::RoundSummary;
use dunlin::server::command::{self as server, ServerArgs};
use dunlin::server::driver::RunEvent;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::runtime::Runtime;

/// Conducts a run to its end, or until the process is told to stop.
pub(crate) fn serve(args: ServerArgs) -> Done {
    let given = server::load_recipe(args.recipe.as_ref(), &args.set).map_err(|error| of_server_command(&error))?;
    let json = args.json;
    let runtime = Runtime::new()?;
    // Logs tell of each round where nobody looks at a terminal.
    let progress = if json { Progress::Quiet } else { Progress::on_terminal(given.recipe.rounds.count) };
    let seen = Mutex::new((progress, BTreeMap::new()));
    let watch = |event: &RunEvent| {
        if let RunEvent::Round(round) = event {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.0.round(round);
            // A round is told again when its summary has learnt more.
            seen.1.insert(round.round, RoundSummary::clone(round));
        }
    };
    let report = runtime.block_on(server::run(args, &given, &watch));
    // Background work, such as a held connection, must not keep the process.
    runtime.shutdown_background();
    let (progress, rounds) = seen.into_inner().unwrap_or_else(PoisonError::into_inner);
    progress.finish();
    let report = report.map_err(|error| of_server_command(&error))?;
    if let Some(report) = report.as_ref().filter(|_| !json) {
        summary::print(report, &rounds.into_values().collect::<Vec<_>>());
    }
    Ok(server::exit(&given.recipe, report.as_ref()).into())
}

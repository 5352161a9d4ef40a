//! `dunlin status`, `runs`, `watch` and `stop`: what a server tells and takes.

use super::output::{self, count, percent, seconds};
use super::summary::{self, plain_table};
use super::{Done, Failure, code_of, runtime};
use crate::progress::{Progress, figures};
use clap::Args;
use dunlin::RoundSummary;
use dunlin::client::transport::Disconnected;
use dunlin::client::transport::control::{ControlTransport, Run, RunEvent, RunState};
use dunlin::core::{Choice, Outcome, Recipe};
use dunlin::server::store::{RunRow, SqliteStore, Store};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// Which server is asked.
#[derive(Args)]
struct ServerAddress {
    /// The server
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7700")]
    server: String,
}

/// Tell how a server's run stands
#[derive(Args)]
pub(crate) struct AskArgs {
    #[command(flatten)]
    address: ServerAddress,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// List the runs of a server or of a data directory, newest first
#[derive(Args)]
pub(crate) struct RunsArgs {
    #[command(flatten)]
    address: ServerAddress,

    /// Read this data directory, which no server may be using, instead of asking a server
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    data_dir: Option<PathBuf>,

    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

/// Follow a server's run until it ends
///
/// With --json: one round summary a line, a corrected one again, and the report as the last line.
#[derive(Args)]
#[command(after_help = dunlin::core::exit::OF_RUN)]
pub(crate) struct WatchArgs {
    #[command(flatten)]
    address: ServerAddress,

    /// Print each event as a line of JSON
    #[arg(long)]
    json: bool,
}

/// End a server's run; the round at hand is dropped and the models stay
#[derive(Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    address: ServerAddress,
}

impl ServerAddress {
    /// Makes calls to the server.
    fn ask<T>(&self, calls: impl AsyncFnOnce(&mut ControlTransport) -> Result<T, Disconnected>) -> Result<T, Failure> {
        runtime()?.block_on(async {
            let mut transport = ControlTransport::new(&self.server).map_err(Failure::usage)?;
            calls(&mut transport).await.map_err(|error| self.failed(&error))
        })
    }

    fn failed(&self, error: &Disconnected) -> Failure {
        Failure::other(format!("no answer from {}: {error}; is a server running there?", self.server))
    }
}

pub(crate) fn status(args: &AskArgs) -> Done {
    let state = args.address.ask(async |transport| transport.status().await)?;
    if args.json {
        output::json(&state_json(&state));
    } else {
        print_state(&state);
    }
    Ok(ExitCode::SUCCESS)
}

fn print_state(state: &RunState) {
    let rounds = Recipe::from_toml(&state.recipe).ok().map(|recipe| recipe.rounds);
    let of = rounds.as_ref().map_or_else(String::new, |rounds| format!(" of {}", rounds.count));
    let run = &state.run;
    let mut table = plain_table();
    table.add_row(["run", &format!("{} {}, {}", run.id, run.name, age(run.created_ms))]);
    table.add_row(["phase", &format!("{}, round {}{of}", state.phase, state.round)]);
    if state.chosen > 0 {
        let (chosen, reported, lost) = (state.chosen, state.reported, state.lost);
        table.add_row(["cohort", &format!("{chosen} asked, {reported} reported, {lost} lost")]);
    }
    if let Some(choice) = state.choice {
        let needed = rounds.map_or(state.chosen, |rounds| rounds.cohort);
        table.add_row(["chosen", &why(choice, state.eligible, state.chosen, needed)]);
    }
    table.add_row(["clients", &format!("{} joined, {} seen lately", state.clients, state.live)]);
    let left = state.kept.filter(|&kept| kept < state.params);
    let left = left.map_or_else(String::new, |kept| format!(", {} of them left", count(kept)));
    table.add_row(["model", &format!("version {}, {} parameters{left}", state.version, count(state.params))]);
    if let Some(took) = state.client_seconds {
        table.add_row(["from task to update", &format!("{} for a client of the last rounds", seconds(took))]);
    }
    if let Some((done, total)) = state.distilling {
        let part = if total == 0 { String::new() } else { format!(", {}", percent(done as f64 / total as f64)) };
        table.add_row(["distilling", &format!("{} of {} steps{part}", count(done), count(total))]);
    }
    if let Some(round) = &state.last_round {
        table.add_row(["last round", &format!("{}: {}", round.round, figures(round))]);
    }
    if let Some(outcome) = run.outcome {
        table.add_row(["ended", &outcome.to_string()]);
    }
    if state.term > 1 {
        table.add_row(["starts", &format!("the server was started {} times", state.term)]);
    }
    for refusals in &state.refusals {
        let who = refusals.client.as_deref().unwrap_or("an unnamed client");
        table.add_row(["refused", &format!("{} {}: {who}", count(refusals.count), refusals.reason.replace('_', " "))]);
    }
    output::line(table);
}

/// Why the members of a round were chosen, and so many of them.
fn why(choice: Choice, eligible: u32, chosen: u32, needed: u32) -> String {
    let why = match choice {
        Choice::Random => format!("at random among {eligible}"),
        Choice::AllEligible => format!("all {eligible} that are there: no more than a round asks"),
    };
    if chosen > needed { format!("{why}; {needed} updates are enough") } else { why }
}

fn state_json(state: &RunState) -> Value {
    let refusals = state.refusals.iter();
    let refusals: Vec<_> =
        refusals.map(|it| json!({ "reason": it.reason, "client": it.client, "count": it.count })).collect();
    json!({
        "run": run_json(&state.run),
        "term": state.term,
        "phase": state.phase,
        "round": state.round,
        "version": state.version,
        "clients": state.clients,
        "live": state.live,
        "eligible": state.eligible,
        "chosen": state.chosen,
        "choice": state.choice,
        "reported": state.reported,
        "lost": state.lost,
        "rejects": refusals,
        "last_round": state.last_round,
        "params": state.params,
        "kept": state.kept,
        "max_update_bytes": state.max_update_bytes,
        "client_seconds": state.client_seconds,
        "distilling": state.distilling.map(|(done, total)| json!({ "done": done, "total": total })),
        "program": state.program,
        "recipe": state.recipe,
    })
}

pub(crate) fn runs(args: &RunsArgs) -> Done {
    let runs = match &args.data_dir {
        Some(dir) => {
            let runtime = runtime()?;
            let rows = open_store(dir, runtime.handle())?.runs()?;
            rows.into_iter().map(from_row).collect()
        }
        None => args.address.ask(async |transport| transport.runs().await)?,
    };
    if args.json {
        output::json(&runs.iter().map(run_json).collect::<Vec<_>>());
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = plain_table();
    table.set_header(["run", "name", "created", "rounds", "state"]);
    for run in &runs {
        let state = run.outcome.map_or_else(|| "goes on".to_owned(), |outcome| outcome.label().replace('_', " "));
        table.add_row([run.id.as_str(), run.name.as_str(), &age(run.created_ms), &count(run.rounds), &state]);
    }
    output::line(table);
    Ok(ExitCode::SUCCESS)
}

/// Opens the store of a data directory that exists; `runtime` is entered by each of its calls.
pub(super) fn open_store(dir: &Path, runtime: &tokio::runtime::Handle) -> Result<SqliteStore, Failure> {
    if !dir.join("dunlin.db").is_file() {
        return Err(Failure::usage(format!("{} is no data directory of a server", dir.display())));
    }
    Ok(SqliteStore::open(dir, runtime.clone())?)
}

fn from_row(row: RunRow) -> Run {
    let RunRow { id, name, created_ms, outcome, rounds, .. } = row;
    Run { id: id.to_string(), name, created_ms, outcome, rounds }
}

fn run_json(run: &Run) -> Value {
    json!({
        "id": run.id,
        "name": run.name,
        "created_ms": run.created_ms,
        "outcome": run.outcome.map(Outcome::label),
        "rounds": run.rounds,
    })
}

pub(crate) fn watch(args: &WatchArgs) -> Done {
    let ended = args.address.ask(async |transport| {
        let recipe = transport.status().await?.recipe;
        let rounds = Recipe::from_toml(&recipe).map_or(0, |recipe| recipe.rounds.count);
        let mut events = transport.watch().await?;
        let mut progress = Progress::new(rounds, args.json);
        let mut rounds: Vec<RoundSummary> = Vec::new();
        while let Some(event) = events.next().await? {
            match event {
                RunEvent::Round(round) => {
                    if args.json {
                        output::json_line(&round);
                    }
                    progress.round(&round);
                    rounds.retain(|known| known.round != round.round);
                    rounds.push(*round);
                }
                RunEvent::Report(report) => {
                    progress.finish();
                    return Ok(Some((recipe, rounds, report)));
                }
            }
        }
        progress.finish();
        Ok(None)
    })?;
    let Some((recipe, rounds, report)) = ended else {
        return Err(Failure::other("the server stopped before the run had ended"));
    };
    if args.json {
        output::json_line(&report);
    } else {
        summary::print(&report, &rounds);
    }
    let recipe = Recipe::from_toml(&recipe)
        .map_err(|error| Failure::other(format!("the server's recipe is not understood: {error}")))?;
    Ok(code_of(&recipe, &report))
}

pub(crate) fn stop(args: &StopArgs) -> Done {
    let state = args.address.ask(async |transport| {
        let state = transport.status().await?;
        transport.stop().await?;
        Ok(state)
    })?;
    let accuracy = state.last_round.and_then(|round| round.accuracy);
    let accuracy = accuracy.map_or_else(String::new, |accuracy| format!(", accuracy {}", percent(accuracy)));
    let already = if state.run.outcome.is_some() { "had ended" } else { "was stopped" };
    output::line(format_args!("run {} {already} at version {}{accuracy}", state.run.id, state.version));
    Ok(ExitCode::SUCCESS)
}

/// How long ago something was.
fn age(created_ms: u64) -> String {
    if created_ms == 0 {
        return String::new();
    }
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    match now_ms.saturating_sub(created_ms) {
        0..1000 => "just now".into(),
        ms @ 1000..120_000 => format!("{} s ago", ms / 1000),
        ms => format!("{} ago", seconds((ms / 1000) as f64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cohort_is_told_with_its_reason_and_with_the_over_selection_that_applied() {
        assert_eq!(why(Choice::Random, 20, 4, 4), "at random among 20");
        assert_eq!(why(Choice::Random, 20, 6, 4), "at random among 20; 4 updates are enough");
        assert_eq!(why(Choice::AllEligible, 3, 3, 4), "all 3 that are there: no more than a round asks");
    }
}

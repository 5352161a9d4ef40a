//! `dunlin doctor`: what stands in the way of a run on this machine, and what its link would make of one.

mod link;
mod machine;

use super::{Done, RecipeArgs, output};
use clap::Args;
use dunlin::core::{Exit, Recipe};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;

/// Check this machine, its data and its link to a server
///
/// One line a check. Exits with 1 when something is wrong.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    recipe: RecipeArgs,

    /// Check the link to this server too, and predict what a round of its recipe costs on it
    #[arg(long, value_name = "URL")]
    server: Option<String>,

    /// Where a server on this machine would keep its run
    #[arg(long, value_name = "DIR", default_value = "dunlin-data")]
    data_dir: PathBuf,

    /// Print the checks as JSON
    #[arg(long)]
    json: bool,
}

/// What was looked at, and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Check {
    /// What was looked at, in a word.
    name: &'static str,
    state: State,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// No fault, but good to know.
    Note,
    Problem,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Ok, found: found.into(), remedy: None }
    }

    fn note(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, state: State::Note, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn problem(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, state: State::Problem, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// What was found out.
#[derive(Serialize)]
struct Findings {
    ok: bool,
    checks: Vec<Check>,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<link::Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<link::RoundCost>,
}

pub(crate) fn run(args: &DoctorArgs) -> Done {
    let given = args.recipe.load()?;
    let mut checks = vec![Check::ok("dunlin", concat!("version ", env!("CARGO_PKG_VERSION")))];
    let met = match &args.server {
        Some(url) => link::look(url, &mut checks)?,
        None => link::Met::default(),
    };
    // What the server conducts matters more than a default that nobody asked for.
    let recipe = met.recipe.filter(|_| args.recipe.recipe.is_none() && args.recipe.set.is_empty());
    let place = |key: Option<&str>| match &recipe {
        Some(_) => "the server's recipe: ".to_owned(),
        None => given.place_of(key),
    };
    let is_served = recipe.is_some();
    let recipe: &Recipe = recipe.as_ref().unwrap_or(&given.recipe);
    machine::look(recipe, &place, &args.data_dir, &mut checks);
    let state = met.state.map(|state| if is_served { state } else { link::begun(recipe, state) });
    let round = state.map(|state| link::predict(recipe, &state, met.link, &mut checks));
    let ok = checks.iter().all(|check| check.state != State::Problem);
    let findings = Findings { ok, checks, link: met.link, round };
    if args.json {
        output::json(&findings);
    } else {
        print(&findings.checks);
    }
    Ok(if ok { ExitCode::SUCCESS } else { Exit::Failed.into() })
}

fn print(checks: &[Check]) {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    for Check { name, state, found, remedy } in checks {
        let state = match state {
            State::Ok => "ok     ",
            State::Note => "note   ",
            State::Problem => "problem",
        };
        let remedy = remedy.as_ref().map_or_else(String::new, |remedy| format!("; {remedy}"));
        output::line(format_args!("{state}  {name:width$}  {found}{remedy}"));
    }
}

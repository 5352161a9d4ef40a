//! `dunlin report`: a run as one HTML page, and as tables.

mod analysis;
mod page;
mod source;
mod terminal;
mod view;

use super::output::{self, bytes};
use super::{Done, Failure};
use analysis::{Analysis, Options};
use clap::Args;
use serde_json::Value;
use source::Run;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use view::{Beside, View};

/// Write what became of a run as one HTML page, and print a summary
///
/// The page needs no network and no script. It shows accuracy and bytes over the rounds, by stage and by client, what
/// clients paid, and the final model layer by layer: what was pruned and what could be, its size as a file, and what
/// quantization loses.
#[derive(Args)]
pub(crate) struct ReportArgs {
    /// The directory given to simulate --out, or a server's data directory, which no server may be using
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// The page to write [default: report.html among the run's results]
    #[arg(long, value_name = "FILE.html")]
    out: Option<PathBuf>,

    /// The run in a data directory [default: the newest]
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,

    /// Hold the run against another one, up to four: curves of all in one plot, such as of a lottery ticket, its control
    /// and the dense model
    #[arg(long, value_name = "RUN")]
    beside: Vec<PathBuf>,

    /// Take sizes when this share of the weights is kept, the largest; without it, all that are not zero
    #[arg(long, value_name = "P")]
    density: Option<f64>,

    /// Do not prune layers one by one to see what that costs
    #[arg(long)]
    no_sensitivity: bool,

    /// Print the numbers as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ReportArgs) -> Done {
    if let Some(density) = args.density.filter(|density| !(*density > 0.0 && *density <= 1.0)) {
        return Err(Failure::usage(format!(
            "--density {density}: a share above 0 and at most 1 is right, such as 0.1"
        )));
    }
    if args.beside.len() > MAX_BESIDE {
        return Err(Failure::usage(format!(
            "--beside was given {} times; up to {MAX_BESIDE} are told apart",
            args.beside.len()
        )));
    }
    let run = Run::read(&args.run, args.run_id.as_deref())?;
    let names = names(&args.run, &args.beside);
    let others = args.beside.iter().zip(&names[1..]).map(|(dir, name)| {
        let Run { report, rounds, .. } = Run::read(dir, None)?;
        Ok(Beside::new(name.clone(), report, rounds))
    });
    let others = others.collect::<Result<Vec<_>, Failure>>()?;
    let to = args.out.clone().unwrap_or_else(|| run.dir.join("report.html"));
    let options = Options { density: args.density, sensitivity: !args.no_sensitivity };
    let analysis = Analysis::of(&run, &options)?;
    let dir = run.dir.clone();
    let view = View::new(run, analysis).beside(names[0].clone(), others);
    let page = page::page(&view);
    if args.out.is_none() {
        // A run that goes on has none yet.
        std::fs::create_dir_all(&dir)
            .map_err(|error| Failure::other(format!("cannot make {}: {error}", dir.display())))?;
    }
    std::fs::write(&to, &page).map_err(|error| Failure::other(format!("cannot write {}: {error}", to.display())))?;
    if args.json {
        output::json(&json(&view)?);
    } else {
        terminal::print(&view);
        output::note(&format!("wrote {}, {}", to.display(), bytes(page.len() as u64)));
    }
    Ok(ExitCode::SUCCESS)
}

/// What runs are called: their directories' own names where these tell them apart, or else the whole paths.
fn names(run: &Path, beside: &[PathBuf]) -> Vec<String> {
    let all: Vec<&Path> = std::iter::once(run).chain(beside.iter().map(PathBuf::as_path)).collect();
    let own = |dir: &&Path| dir.file_name().map(|name| name.to_string_lossy().into_owned());
    let short: Option<Vec<String>> = all.iter().map(own).collect();
    let are_different =
        |names: &Vec<String>| names.iter().collect::<std::collections::BTreeSet<_>>().len() == names.len();
    short.filter(are_different).unwrap_or_else(|| all.iter().map(|dir| dir.display().to_string()).collect())
}

/// Runs that can be held against one: as many as there are colours left.
const MAX_BESIDE: usize = 4;

fn json(view: &View) -> Result<Value, Failure> {
    let mut json = serde_json::to_value(view)?;
    if view.goes_on {
        json["report"]["outcome"] = Value::Null;
    }
    Ok(json)
}

//! `dunlin simulate`.

use super::{Done, Failure, RecipeArgs, code_of, interrupt, of_data, of_recipe, output, summary};
use crate::progress::{Progress, spinner};
use clap::{Args, ValueEnum};
use dunlin::nn::export::Results;
use dunlin::nn::{data, model::Model};
use dunlin::server::command::GivenRecipe;
use dunlin::server::distill::student;
use dunlin::simulation::Transport;
use dunlin::{Simulation, SimulationError, SimulationOutcome};
use std::num::NonZero;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// Run a whole federation in this process
///
/// Ctrl-C stops the run after the round at hand.
#[derive(Args)]
#[command(after_help = dunlin::core::exit::OF_RUN)]
pub(crate) struct SimulateArgs {
    #[command(flatten)]
    recipe: RecipeArgs,

    /// Write report.json, rounds.jsonl, clients.jsonl, recipe.toml and model.safetensors here, for `dunlin report`
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// The root of all randomness; the same as --set seed=N
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    seed: Option<u64>,

    /// Clients that train at once [default: as many as there are processors]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    threads: Option<NonZero<usize>>,

    /// Where the models compute: cpu, or cuda or cuda:N in a program that was built with --features cuda
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: String,

    /// What carries the clients' calls
    #[arg(long, value_name = "KIND", default_value = "in-process")]
    transport: TransportKind,

    /// Print the report as JSON, and nothing else, to the standard output
    #[arg(long)]
    json: bool,

    /// Show no progress
    #[arg(long, short)]
    quiet: bool,
}

/// See [`Transport`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum TransportKind {
    /// Function calls, in simulated time
    InProcess,
    /// gRPC over the loopback interface, in real time; the recipe's network plays no part
    Grpc,
}

impl From<TransportKind> for Transport {
    fn from(kind: TransportKind) -> Self {
        match kind {
            TransportKind::InProcess => Self::InProcess,
            TransportKind::Grpc => Self::Grpc,
        }
    }
}

fn at_least_one(text: &str) -> Result<NonZero<usize>, String> {
    text.parse().map_err(|_| "a whole number of at least 1 is right".to_owned())
}

pub(crate) fn run(mut args: SimulateArgs) -> Done {
    if let Some(seed) = args.seed {
        args.recipe.set.push(format!("seed={seed}"));
    }
    let given = args.recipe.load()?;
    let recipe = &given.recipe;
    if let Some(dir) = &args.out {
        // Before the run, so that a long one is not lost.
        std::fs::create_dir_all(dir)
            .map_err(|error| Failure::other(format!("cannot make {}: {error}", dir.display())))?;
    }
    if args.transport == TransportKind::Grpc && !recipe.network.class.is_empty() {
        output::note("--transport grpc runs in real time: network.class plays no part");
    }
    let device = dunlin::nn::model::device(&args.device).map_err(of_data)?;
    let interrupted =
        interrupt::flag("stopping after this round; once more to stop now, which keeps nothing of the run")?;
    let mut progress = Progress::new(recipe.rounds.count, args.quiet);
    let mut simulation =
        Simulation::new(recipe.clone()).transport(args.transport.into()).device(device).on_round(|round| {
            progress.round(round);
            if interrupted.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
    if let Some(threads) = args.threads {
        simulation = simulation.threads(threads.get());
    }
    let outcome = simulation.run();
    progress.finish();
    let mut outcome = outcome.map_err(|error| of_simulation(&given, error))?;
    if args.out.is_some() || recipe.distillation.student_model().is_some() {
        finish(&given, &mut outcome, args.out.as_deref())?;
    }
    if args.json {
        output::json(&outcome.report);
    } else {
        summary::print(&outcome.report, &outcome.rounds);
    }
    Ok(code_of(recipe, &outcome.report))
}

/// What is done with a finished model: the student of the recipe learns from it, and all is written.
fn finish(given: &GivenRecipe, outcome: &mut SimulationOutcome, out: Option<&Path>) -> Result<(), Failure> {
    let recipe = &given.recipe;
    let split = data::load(&recipe.data, &recipe.data_seed()).map_err(of_data)?;
    let model = Model::new(&recipe.model, split.train.input()).map_err(of_data)?;
    let (mut model, params) = model.resulting(recipe, outcome.params.clone()).map_err(of_data)?;
    let spinner = spinner();
    let mut progress = |done, total| spinner.set_message(format!("the student learns: step {done} of {total}"));
    let made = student(recipe, &split, (&mut model, &params), None, &mut progress);
    spinner.finish_and_clear();
    let student = made.map_err(|error| of_recipe(given, error.key(), &error))?;
    outcome.report.student = student.as_ref().map(|student| student.report.clone());
    let Some(dir) = out else { return Ok(()) };
    let SimulationOutcome { report, rounds, clients, .. } = &*outcome;
    let student = student.as_ref().map(|student| (&student.model, student.params.as_slice()));
    let results = Results { recipe, report, rounds, clients, model: &model, params: &params, student };
    results.write(dir).map_err(|error| Failure::other(format!("cannot write to {}: {error}", dir.display())))
}

/// A recipe that does not fit its data is the user's to mend.
fn of_simulation(given: &GivenRecipe, error: SimulationError) -> Failure {
    match error {
        SimulationError::Recipe(error) => Failure::usage(error),
        // Whose data they were is of no interest where all would fail alike.
        SimulationError::Workplace(error) if error.key().is_some() => of_recipe(given, error.key(), &error),
        SimulationError::Client { source, .. } if source.key().is_some() => of_recipe(given, source.key(), &source),
        SimulationError::RemoteClient { source, .. } if source.key().is_some() => {
            of_recipe(given, source.key(), &source)
        }
        error => of_recipe(given, error.key(), &error),
    }
}

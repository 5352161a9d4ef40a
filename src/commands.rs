//! The command line: what can be asked, and what the exit code says about the answer.

mod bench;
mod completions;
mod control;
mod data;
mod doctor;
mod export;
mod init;
mod interrupt;
mod output;
mod server;
mod simulate;
mod summary;

pub(crate) use output::{bytes, note, percent};

use clap::{Args, Parser, Subcommand};
use dunlin::core::Recipe;
use dunlin::server::command::{self, CommandError};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::runtime::Runtime;

/// Federated learning for links where bytes are the budget
#[derive(Parser)]
#[command(name = "dunlin", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Simulate(simulate::SimulateArgs),
    Init(init::InitArgs),
    #[command(after_help = EXIT_CODES)]
    Server(dunlin::server::command::ServerArgs),
    Client(dunlin::client::command::ClientArgs),
    Status(control::AskArgs),
    Runs(control::RunsArgs),
    Watch(control::WatchArgs),
    Stop(control::StopArgs),
    Data(data::DataArgs),
    Export(export::ExportArgs),
    Doctor(doctor::DoctorArgs),
    Bench(bench::BenchArgs),
    Completions(completions::CompletionsArgs),
}

impl Cli {
    /// What is logged unless `RUST_LOG` says otherwise.
    pub(crate) fn log_level(&self) -> &'static str {
        match self.command {
            Command::Server(_) | Command::Client(_) => "info",
            _ => "warn",
        }
    }

    /// Runs the command.
    pub(crate) fn run(self) -> Done {
        match self.command {
            Command::Simulate(args) => simulate::run(args),
            Command::Init(args) => init::run(&args),
            Command::Server(args) => server::serve(args),
            Command::Client(args) => server::take_part(args),
            Command::Status(args) => control::status(&args),
            Command::Runs(args) => control::runs(&args),
            Command::Watch(args) => control::watch(&args),
            Command::Stop(args) => control::stop(&args),
            Command::Data(args) => data::run(args),
            Command::Export(args) => export::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Bench(args) => bench::run(args),
            Command::Completions(args) => completions::run(&args),
        }
    }
}

/// What a command comes to: an exit code, or why there is none but an error's.
type Done = Result<ExitCode, Failure>;

/// Why a command failed, in one line, and its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// The command line or the recipe is wrong.
    fn usage(message: impl std::fmt::Display) -> Self {
        Self { code: USAGE, message: message.to_string() }
    }

    /// Anything else went wrong.
    fn other(message: impl std::fmt::Display) -> Self {
        Self { code: OTHER, message: message.to_string() }
    }

    /// Tells the reason and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        output::error(&self.message);
        ExitCode::from(self.code)
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::other(error)
    }
}

/// A recipe and changes to it.
#[derive(Args, Clone, Debug)]
struct RecipeArgs {
    /// The recipe; without one, the embedded digits
    #[arg(value_name = "RECIPE.toml")]
    recipe: Option<PathBuf>,

    /// Change one key of the recipe, such as rounds.cohort=20; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl RecipeArgs {
    fn load(&self) -> Result<Recipe, Failure> {
        command::load_recipe(self.recipe.as_ref(), &self.set).map_err(of_server_command)
    }
}

/// Recipe errors are the user's to mend; what the server met later is not.
fn of_server_command(error: CommandError) -> Failure {
    use dunlin::server::serve::ServeError;
    match error {
        CommandError::Read { .. } | CommandError::Recipe { .. } => Failure::usage(error),
        CommandError::Serve(ServeError::Data(error)) => of_data(error),
        CommandError::Serve(_) => Failure::other(error),
    }
}

/// A key that the data or the model cannot satisfy is an error of the recipe.
fn of_data(error: dunlin::nn::Error) -> Failure {
    match error {
        dunlin::nn::Error::Config { .. } => Failure::usage(error),
        _ => Failure::other(error),
    }
}

/// The exit code of a run that came to its end.
fn code_of(recipe: &Recipe, report: &dunlin::Report) -> ExitCode {
    if command::as_asked(recipe, report) { ExitCode::SUCCESS } else { ExitCode::from(NOT_AS_ASKED) }
}

/// A runtime for calls and for the store's handle; the store itself blocks, so its calls are made outside of it.
fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|error| Failure::other(format!("cannot start the threads for calls: {error}")))
}

/// Anything that is not one of the others.
const OTHER: u8 = 1;
/// The command line or the recipe is wrong; clap uses the same.
const USAGE: u8 = 2;
/// The run ended otherwise than its recipe asks.
const NOT_AS_ASKED: u8 = 3;

const EXIT_CODES: &str = "\
Exit codes:
  0  done; of a run: it ended as its recipe asks
  1  something went wrong
  2  the command line or the recipe is wrong
  3  the run ended otherwise than its recipe asks: a required target was missed,
     it gave up, or it was stopped";

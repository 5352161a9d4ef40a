//! The command line: what can be asked, and what the exit code says about the answer.

mod bench;
mod client;
mod codec;
mod completions;
mod compress;
mod control;
mod data;
mod distill;
mod doctor;
mod eval;
mod export;
mod init;
mod interrupt;
mod model;
mod output;
mod report;
mod server;
mod simulate;
mod stored;
mod summary;

pub(crate) use output::{bytes, count, note, percent};

use clap::{Args, Parser, Subcommand};
use dunlin::core::Recipe;
use dunlin::core::exit::{self, Exit};
use dunlin::server::command::{self, CommandError, GivenRecipe};
use std::path::PathBuf;
use std::process::ExitCode;
use tokio::runtime::Runtime;

/// Federated learning for links where bytes are the budget
#[derive(Parser)]
#[command(name = "dunlin", version, max_term_width = 100, after_help = exit::OF_RUN)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Simulate(simulate::SimulateArgs),
    Init(init::InitArgs),
    #[command(after_help = exit::OF_RUN)]
    Server(dunlin::server::command::ServerArgs),
    #[command(after_help = exit::OF_CLIENT)]
    Client(dunlin::client::command::ClientArgs),
    Status(control::AskArgs),
    Runs(control::RunsArgs),
    Watch(control::WatchArgs),
    Stop(control::StopArgs),
    Report(report::ReportArgs),
    Data(data::DataArgs),
    Compress(compress::CompressArgs),
    Decompress(compress::DecompressArgs),
    Distill(distill::DistillArgs),
    Eval(eval::EvalArgs),
    Predict(eval::PredictArgs),
    Export(export::ExportArgs),
    Doctor(doctor::DoctorArgs),
    Bench(bench::BenchArgs),
    Codec(codec::CodecArgs),
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
            Command::Client(args) => client::take_part(args),
            Command::Status(args) => control::status(&args),
            Command::Runs(args) => control::runs(&args),
            Command::Watch(args) => control::watch(&args),
            Command::Stop(args) => control::stop(&args),
            Command::Report(args) => report::run(&args),
            Command::Data(args) => data::run(args),
            Command::Compress(args) => compress::run(&args),
            Command::Decompress(args) => compress::decompress(&args),
            Command::Distill(args) => distill::run(&args),
            Command::Eval(args) => eval::eval(&args),
            Command::Predict(args) => eval::predict(&args),
            Command::Export(args) => export::run(&args),
            Command::Doctor(args) => doctor::run(&args),
            Command::Bench(args) => bench::run(args),
            Command::Codec(args) => codec::run(&args),
            Command::Completions(args) => completions::run(&args),
        }
    }
}

/// What a command comes to: an exit code, or why there is none but an error's.
type Done = Result<ExitCode, Failure>;

/// Why a command failed, in one line, and its exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// The command line or the recipe is wrong.
    fn usage(message: impl std::fmt::Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }

    /// Anything else went wrong.
    fn other(message: impl std::fmt::Display) -> Self {
        Self { exit: Exit::Failed, message: message.to_string() }
    }

    /// Tells the reason and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        output::error(&self.message);
        self.exit.into()
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
    fn load(&self) -> Result<GivenRecipe, Failure> {
        command::load_recipe(self.recipe.as_ref(), &self.set).map_err(|error| of_server_command(&error))
    }
}

fn of_server_command(error: &CommandError) -> Failure {
    Failure { exit: error.exit(), message: error.to_string() }
}

/// An error for which a key is to blame is one of usage.
fn of_key(key: Option<&str>, error: impl std::fmt::Display) -> Failure {
    match key {
        Some(_) => Failure::usage(error),
        None => Failure::other(error),
    }
}

/// A key that the data or the model cannot satisfy is an error of the command line.
fn of_data(error: dunlin::nn::Error) -> Failure {
    match error {
        // Both were given on the command line.
        dunlin::nn::Error::InputShape { .. } => Failure::usage(error),
        error => of_key(error.key(), error),
    }
}

/// The same where the key may be one of a recipe, in which it has a place.
fn of_recipe(given: &GivenRecipe, key: Option<&str>, error: impl std::fmt::Display) -> Failure {
    of_key(key, format!("{}{error}", given.place_of(key)))
}

/// The exit code of a run that came to its end.
fn code_of(recipe: &Recipe, report: &dunlin::Report) -> ExitCode {
    command::exit(recipe, Some(report)).into()
}

/// A runtime for calls and for the store's handle; the store itself blocks, so its calls are made outside of it.
fn runtime() -> Result<Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map_err(|error| Failure::other(format!("cannot start the threads for calls: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// The words after `dunlin` in the deployment files, with a value where the machine puts one.
    fn deployed() -> Vec<Vec<String>> {
        let read = |name: &str| {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(name);
            std::fs::read_to_string(path).unwrap()
        };
        let mut commands = Vec::new();
        let compose = read("compose.yaml");
        for (at, _) in compose.match_indices("command: [") {
            let list = &compose[at + "command: ".len()..];
            let list = &list[..=list.find(']').unwrap()];
            commands.push(serde_json::from_str(list).unwrap());
        }
        for name in ["dunlin-server.service", "dunlin-client@.service"] {
            let unit = read(name);
            let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/dunlin ")).unwrap();
            let value = |word: &str| match word {
                "${DUNLIN_LISTEN}" => "0.0.0.0:7700".to_owned(),
                "${DUNLIN_CLIENT_DATA}" => "recipe:0".to_owned(),
                word => word.replace("%i", "north").replace("${DUNLIN_SERVER}", "http://a:7700"),
            };
            commands.push(line.split(' ').map(value).collect());
        }
        commands
    }

    #[test]
    fn the_commands_of_the_deployment_files_are_ours() {
        let commands = deployed();
        assert_eq!(commands.iter().filter(|words| words[0] == "server").count(), 2);
        assert_eq!(commands.iter().filter(|words| words[0] == "client").count(), 4);
        for words in commands {
            let parsed = Cli::try_parse_from(std::iter::once("dunlin").chain(words.iter().map(String::as_str)));
            assert!(parsed.is_ok(), "{words:?}: {}", parsed.err().unwrap());
        }
    }
}

//! `dunlin data`: which data sets there are, how to get them, how a recipe deals them out.

mod drawing;
mod show;
mod svg;

use super::output::{self, bytes, count};
use super::summary::plain_table;
use super::{Done, Failure, of_data};
use crate::progress;
use clap::{Args, Subcommand};
use dunlin::core::Seed;
use dunlin::core::recipe::DataConfig;
use dunlin::nn::data::{self, Fetching, Split};
use dunlin::nn::{Error, data::Dataset};
use std::process::ExitCode;

/// List, fetch and look at data sets
#[derive(Args)]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// List the data sets that have a name
    List,
    /// Fetch a data set into $DUNLIN_DATA or data/, checking its digests
    Fetch {
        /// The data set, or `minilm` for weights
        name: String,
    },
    Show(show::ShowArgs),
}

pub(crate) fn run(args: DataArgs) -> Done {
    match args.command {
        DataCommand::List => list(),
        DataCommand::Fetch { name } => fetch(&name),
        DataCommand::Show(args) => show::run(&args),
    }
}

fn list() -> Done {
    let mut table = plain_table();
    table.set_header(["name", "to train on", "to test", "rows of", "where"]);
    for name in data::NAMED {
        let config = DataConfig { source: name.to_owned(), ..DataConfig::default() };
        match data::load(&config, &Seed::from_u64(0)) {
            Ok(Split { train, test }) => {
                let place = match name {
                    "digits" | "penguins" => "in this program".to_owned(),
                    name => data::root().join(name).display().to_string(),
                };
                let (train_len, test_len) = (count(train.len() as u64), count(test.len() as u64));
                table.add_row([name, &train_len, &test_len, &shape(&train), &place]);
            }
            Err(Error::Missing { .. }) => {
                table.add_row([name, "", "", "", &missing(name)]);
            }
            Err(error) => {
                table.add_row([name, "", "", "", &error.to_string()]);
            }
        }
    }
    for name in data::fetchable().filter(|name| !data::NAMED.contains(name)) {
        let place = data::find(name, &data::root());
        let place = place.map_or_else(|| missing(name), |dir| dir.display().to_string());
        table.add_row([name, "", "", "weights", &place]);
    }
    output::line(table);
    output::line(
        "Your own data: data.source = \"idx:DIR\", \"png:DIR\", \"csv:FILE\", \"npz:FILE\", \"safetensors:FILE\", \
         \"text:FILE\" or \"text:DIR\".",
    );
    Ok(ExitCode::SUCCESS)
}

fn missing(name: &str) -> String {
    format!("not here: dunlin data fetch {name}")
}

/// What a row is, in words.
fn shape(set: &Dataset) -> String {
    let input = set.input();
    let rows = match (input.channels, input.height, input.vocabulary) {
        (1, 1, 0) => format!("{} features", input.width),
        (1, height, 0) => format!("{height}×{} values", input.width),
        (channels, height, 0) => format!("{channels}×{height}×{} values", input.width),
        (_, steps, vocabulary) => format!("{steps} tokens of {vocabulary}"),
    };
    if input.targets > 1 { format!("{rows}, each with the next") } else { format!("{rows}, {} labels", input.classes) }
}

fn fetch(name: &str) -> Done {
    let spinner = progress::spinner();
    let mut step = String::new();
    let dir = data::fetch(name, &data::root(), &mut |told| match told {
        Fetching::Step(line) => {
            spinner.set_message(line.to_owned());
            if spinner.is_hidden() {
                output::note(line);
            }
            line.clone_into(&mut step);
        }
        Fetching::Arrived(arrived) => spinner.set_message(format!("{step}, {}", bytes(arrived))),
    });
    spinner.finish_and_clear();
    // Of what the recipe's key may be, only names can be fetched.
    let told = |error| match error {
        Error::Config { value, remedy, .. } => Failure::usage(format!("{value}: {remedy}")),
        error => of_data(error),
    };
    output::line(dir.map_err(told)?.display());
    Ok(ExitCode::SUCCESS)
}

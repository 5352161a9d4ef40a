//! `dunlin data`: which data sets there are, how to get them, how a recipe deals them out.

use super::output::{self, count, percent};
use super::summary::plain_table;
use super::{Done, RecipeArgs, of_data};
use crate::progress;
use clap::{Args, Subcommand};
use dunlin::core::Seed;
use dunlin::core::recipe::DataConfig;
use dunlin::nn::data::{self, Examples, Split};
use dunlin::nn::{Error, data::Dataset};
use std::process::ExitCode;
use std::sync::Arc;

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
        /// The data set
        name: String,
    },
    Show(ShowArgs),
}

/// Show how a recipe deals its examples and labels out to clients
#[derive(Args)]
struct ShowArgs {
    #[command(flatten)]
    recipe: RecipeArgs,

    /// Show every client, not only the first
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(args: DataArgs) -> Done {
    match args.command {
        DataCommand::List => list(),
        DataCommand::Fetch { name } => fetch(&name),
        DataCommand::Show(args) => show(&args),
    }
}

fn list() -> Done {
    let mut table = plain_table();
    table.set_header(["name", "to train on", "to test", "rows of", "where"]);
    for name in NAMED {
        let config = DataConfig { source: name.to_owned(), ..DataConfig::default() };
        match data::load(&config, &Seed::from_u64(0)) {
            Ok(Split { train, test }) => {
                let place = match name {
                    "digits" => "in this program".to_owned(),
                    name => data::root().join(name).display().to_string(),
                };
                let (train_len, test_len) = (count(train.len() as u64), count(test.len() as u64));
                table.add_row([name, &train_len, &test_len, &shape(&train), &place]);
            }
            Err(Error::Missing { .. }) => {
                table.add_row([name, "", "", "", &format!("not here: dunlin data fetch {name}")]);
            }
            Err(error) => {
                table.add_row([name, "", "", "", &error.to_string()]);
            }
        }
    }
    output::line(table);
    output::line("Your own data: data.source = \"idx:DIR\" for IDX files, \"csv:FILE\" for a table.");
    Ok(ExitCode::SUCCESS)
}

fn shape(set: &Dataset) -> String {
    let input = set.input();
    let rows = match (input.channels, input.height) {
        (1, 1) => format!("{} features", input.width),
        (1, height) => format!("{height}×{} pixels", input.width),
        (channels, height) => format!("{channels}×{height}×{} pixels", input.width),
    };
    format!("{rows}, {} labels", input.classes)
}

fn fetch(name: &str) -> Done {
    let spinner = progress::spinner();
    let dir = data::fetch(name, &data::root(), &mut |line| {
        spinner.set_message(line.to_owned());
        if spinner.is_hidden() {
            output::note(line);
        }
    });
    spinner.finish_and_clear();
    output::line(dir.map_err(of_data)?.display());
    Ok(ExitCode::SUCCESS)
}

fn show(args: &ShowArgs) -> Done {
    let recipe = args.recipe.load()?;
    let Split { train, test } = data::load(&recipe.data, &recipe.data_seed()).map_err(of_data)?;
    let parts = data::partition(&recipe.data, &train, &recipe.data_seed()).map_err(of_data)?;
    let parts: Vec<_> = parts
        .into_iter()
        .map(|part| Examples::new(Arc::clone(&train), part))
        .collect::<Result<_, _>>()
        .map_err(of_data)?;
    let labels = train.input().classes;
    output::line(format_args!(
        "{}: {} examples of {} for {} clients, {} to test on",
        recipe.data.source,
        count(train.len() as u64),
        shape(&train),
        parts.len(),
        count(test.len() as u64),
    ));
    let shown = if args.all { parts.len() } else { parts.len().min(MAX_CLIENTS) };
    let mut table = plain_table();
    let heads = format!("labels 0 to {}", labels.saturating_sub(1));
    table.set_header(["client", "examples", &heads, "most frequent"]);
    for (client, part) in parts.iter().enumerate().take(shown) {
        let histogram = part.label_histogram();
        let (label, most) =
            (0..).zip(&histogram).max_by_key(|&(label, n)| (n, std::cmp::Reverse(label))).unwrap_or((0, &0));
        let share = *most as f64 / part.len().max(1) as f64;
        let frequent = format!("{label}: {}", percent(share));
        table.add_row([client.to_string(), count(part.len() as u64), bars(&histogram), frequent]);
    }
    output::line(table);
    if shown < parts.len() {
        output::line(format_args!("… and {} more: --all shows them", parts.len() - shown));
    }
    let mut sizes: Vec<_> = parts.iter().map(Examples::len).collect();
    sizes.sort_unstable();
    let (least, median, most) = (sizes[0], sizes[sizes.len() / 2], sizes[sizes.len() - 1]);
    let seen: usize = parts.iter().map(|part| part.label_histogram().iter().filter(|&&n| n > 0).count()).sum();
    let seen = seen as f64 / parts.len() as f64;
    output::line(format_args!(
        "examples of a client: {least} to {most}, median {median}; it sees {seen:.1} of {labels} labels on average"
    ));
    Ok(ExitCode::SUCCESS)
}

/// A histogram as one bar a label; a label that is missing is a dot. Neighbours share a bar when there are too many.
fn bars(histogram: &[u64]) -> String {
    let columns = histogram.len().min(MAX_BARS);
    let sums: Vec<f64> = (0..columns)
        .map(|i| &histogram[i * histogram.len() / columns..(i + 1) * histogram.len() / columns])
        .map(|part| part.iter().sum::<u64>() as f64)
        .collect();
    let most = sums.iter().copied().fold(0.0, f64::max);
    let bar = |&sum: &f64| if sum == 0.0 { "·".to_owned() } else { output::curve(&[sum], 0.0, most, 1) };
    sums.iter().map(bar).collect()
}

/// The data sets with a name.
const NAMED: [&str; 3] = ["digits", "mnist", "fashion-mnist"];

/// Clients that are shown unless all are asked for.
const MAX_CLIENTS: usize = 40;

/// Most characters of a histogram.
const MAX_BARS: usize = 62;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_shows_which_labels_are_missing() {
        assert_eq!(bars(&[8, 0, 4, 1]), "█·▅▂");
        assert_eq!(bars(&[1; 124]).chars().count(), MAX_BARS);
    }
}

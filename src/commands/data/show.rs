//! `dunlin data show`: how a recipe deals its data out to clients, as a table and a drawing, as JSON, as SVG.

use super::{drawing, shape, svg};
use crate::commands::output::{self, count, percent};
use crate::commands::summary::plain_table;
use crate::commands::{Done, Failure, RecipeArgs, of_recipe};
use clap::Args;
use dunlin::core::Recipe;
use dunlin::core::recipe::Partition;
use dunlin::nn::data::{self, Examples, Split};
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Show how a recipe deals its examples and labels out to clients
#[derive(Args)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    recipe: RecipeArgs,

    /// Show every client, not only the first
    #[arg(long)]
    all: bool,

    /// Print one JSON document instead of the table and the drawing
    #[arg(long)]
    json: bool,

    /// Also draw all clients as stacked bars into this file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(super) fn run(args: &ShowArgs) -> Done {
    let given = args.recipe.load()?;
    let (deal, rows) = deal(&given.recipe).map_err(|error| of_recipe(&given, error.key(), &error))?;
    if let Some(path) = &args.svg {
        std::fs::write(path, svg::draw(&deal)?)
            .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))?;
    }
    if args.json {
        output::json(&deal);
    } else {
        print(&deal, &rows, args.all);
    }
    Ok(ExitCode::SUCCESS)
}

/// Who has what.
#[derive(Serialize)]
pub(super) struct Deal {
    pub(super) source: String,
    /// Examples to train on, whether a client has them or not, and to test on.
    train: u64,
    test: u64,
    /// Number of labels.
    pub(super) labels: usize,
    /// Labels of an example.
    pub(super) targets: usize,
    pub(super) clients: Vec<Part>,
}

/// What one client has.
#[derive(Serialize)]
pub(super) struct Part {
    pub(super) client: usize,
    /// Whose data it is, where the split follows the natural key of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    examples: u64,
    /// How often each label stands in them.
    pub(super) labels: Vec<u64>,
}

impl Deal {
    /// What the sizes count: characters where each has a label, else examples.
    pub(super) const fn unit(&self) -> &'static str {
        if self.targets > 1 { "characters" } else { "examples" }
    }

    pub(super) fn size(&self, part: &Part) -> u64 {
        part.examples * self.targets as u64
    }
}

impl Part {
    /// The client's number, and its key.
    pub(super) fn name(&self) -> String {
        match &self.key {
            Some(key) => format!("{} {key}", self.client),
            None => self.client.to_string(),
        }
    }
}

/// Who has what by a recipe, and what a row is.
fn deal(recipe: &Recipe) -> Result<(Deal, String), dunlin::nn::Error> {
    let Split { train, test } = data::load(&recipe.data, &recipe.data_seed())?;
    let parts = data::partition(&recipe.data, &train, &recipe.data_seed())?;
    let keys = match train.keys() {
        Some(keys) if recipe.data.partition == Partition::Key && recipe.data.key_file.is_empty() => Some(keys),
        _ => None,
    };
    let part = |(client, rows): (usize, Vec<u32>)| {
        let key = keys.map(|keys| train.key_names()[keys[rows[0] as usize] as usize].clone());
        let examples = Examples::new(Arc::clone(&train), rows)?;
        Ok(Part { client, key, examples: examples.len() as u64, labels: examples.label_histogram() })
    };
    let deal = Deal {
        source: recipe.data.source.clone(),
        train: train.len() as u64,
        test: test.len() as u64,
        labels: train.input().classes,
        targets: train.input().targets,
        clients: parts.into_iter().enumerate().map(part).collect::<Result<_, dunlin::nn::Error>>()?,
    };
    Ok((deal, shape(&train)))
}

fn print(deal: &Deal, rows: &str, all: bool) {
    let dealt: u64 = deal.clients.iter().map(|part| part.examples).sum();
    let unused = deal.train - dealt;
    let unused = if unused > 0 { format!(", {} of other keys unused", count(unused)) } else { String::new() };
    output::line(format_args!(
        "{}: {} examples of {rows} for {} clients{unused}, {} to test on",
        deal.source,
        count(dealt),
        deal.clients.len(),
        count(deal.test),
    ));
    let shown = if all { deal.clients.len() } else { deal.clients.len().min(MAX_CLIENTS) };
    let mut table = plain_table();
    if deal.targets == 1 {
        let heads = format!("labels 0 to {}", deal.labels.saturating_sub(1));
        table.set_header(["client", deal.unit(), &heads, "most frequent"]);
    } else {
        table.set_header(["client", deal.unit()]);
    }
    for part in &deal.clients[..shown] {
        let (name, size) = (part.name(), count(deal.size(part)));
        // Which characters a text has tells little of whose it is.
        if deal.targets > 1 {
            table.add_row([name, size]);
            continue;
        }
        let (label, most) =
            (0..).zip(&part.labels).max_by_key(|&(label, n)| (n, std::cmp::Reverse(label))).unwrap_or((0, &0));
        let frequent = format!("{label}: {}", percent(*most as f64 / part.examples.max(1) as f64));
        table.add_row([name, size, drawing::bars(&part.labels), frequent]);
    }
    output::line(table);
    output::raw(&drawing::map(deal, shown));
    if shown < deal.clients.len() {
        output::line(format_args!("… and {} more: --all shows them", deal.clients.len() - shown));
    }
    let mut sizes: Vec<_> = deal.clients.iter().map(|part| deal.size(part)).collect();
    sizes.sort_unstable();
    let (least, median, most) = (sizes[0], sizes[sizes.len() / 2], sizes[sizes.len() - 1]);
    let seen: usize = deal.clients.iter().map(|part| part.labels.iter().filter(|&&n| n > 0).count()).sum();
    output::line(format_args!(
        "{} of a client: {} to {}, median {}; it sees {:.1} of {} labels on average",
        deal.unit(),
        count(least),
        count(most),
        count(median),
        seen as f64 / deal.clients.len() as f64,
        deal.labels,
    ));
}

/// Clients that are shown unless all are asked for.
const MAX_CLIENTS: usize = 40;

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A split with these histograms, one for each client.
    pub(in crate::commands::data) fn deal(targets: usize, histograms: &[&[u64]]) -> Deal {
        let part = |(client, labels): (usize, &&[u64])| {
            let examples = labels.iter().sum::<u64>() / targets as u64;
            Part { client, key: None, examples, labels: labels.to_vec() }
        };
        let clients: Vec<Part> = histograms.iter().enumerate().map(part).collect();
        let train = clients.iter().map(|part| part.examples).sum();
        Deal { source: "test".into(), train, test: 0, labels: histograms[0].len(), targets, clients }
    }

    #[test]
    fn a_client_goes_by_its_number_and_its_key() {
        let mut deal = deal(1, &[&[1, 2]]);
        assert_eq!(deal.clients[0].name(), "0");
        deal.clients[0].key = Some("Hungary".into());
        assert_eq!(deal.clients[0].name(), "0 Hungary");
        let json = serde_json::to_string(&deal).unwrap();
        assert_eq!(
            json,
            r#"{"source":"test","train":3,"test":0,"labels":2,"targets":1,"clients":[{"client":0,"key":"Hungary","examples":3,"labels":[1,2]}]}"#
        );
    }
}

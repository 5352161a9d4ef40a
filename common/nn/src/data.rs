//! Data sets, how they are read, and how they are split among clients.
//!
//! Named sets other than the embedded digits and penguins lie in `$DUNLIN_DATA/NAME`, or `./data/NAME` without that variable.

mod arrays;
pub(crate) mod augment;
mod fetch;
mod heart;
mod idx;
mod partition;
mod penguins;
mod png;
mod records;
mod sentiment;
mod set;
mod spoken;
mod table;
mod text;

pub use augment::augmented;
pub use fetch::{Fetching, fetch, fetchable, find};
pub use partition::{partition, server_rows};
pub use set::{Dataset, Examples};

use crate::Error;
pub use crate::train::shuffle;
use arrays::Archive;
use dunlin_core::Seed;
use dunlin_core::recipe::DataConfig;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A data set in two parts.
#[derive(Clone, Debug)]
pub struct Split {
    /// What is dealt out to the clients.
    pub train: Arc<Dataset>,
    /// What the server evaluates on; may be empty.
    pub test: Arc<Dataset>,
}

/// Loads the data that a recipe names.
///
/// A source with no test set of its own has `test_share` of it held out: of each label, where rows have one and tell
/// whose they are of each label and key, and of text the end of each role's. Which rows those are follows from the
/// source alone and not from the run's seed, so that accuracies of runs with different seeds can be compared.
///
/// # Errors
/// When the source is unknown, missing or malformed, or a key does not fit it.
pub fn load(config: &DataConfig, _seed: &Seed) -> Result<Split, Error> {
    load_under(&root(), config).map_err(|error| error.of_source("data.source", &config.source))
}

/// The folder under which fetched data sets lie: `$DUNLIN_DATA`, or `data` in the working directory.
#[must_use]
pub fn root() -> PathBuf {
    std::env::var_os("DUNLIN_DATA").filter(|dir| !dir.is_empty()).map_or_else(|| "data".into(), PathBuf::from)
}

/// The data sets with a name of their own, which a recipe's `data.source` can be.
pub const NAMED: [&str; 9] =
    ["digits", "penguins", "mnist", "fashion-mnist", "cifar10", "shakespeare", "heart", "spoken-digits", "sentiment"];

/// Most distinct labels; what has more is a measurement and not a label.
const MAX_CLASSES: usize = 1000;

fn load_under(root: &Path, config: &DataConfig) -> Result<Split, Error> {
    let source = config.source.as_str();
    if source == "none" {
        let train = Dataset::featureless(config)?;
        return Ok(Split { test: Arc::new(train.select(&[])), train: Arc::new(train) });
    }
    let share = config.test_share;
    if !(0.0..1.0).contains(&share) {
        return Err(Error::config("data.test_share", share, "a share from 0 to below 1 is right, such as 0.2"));
    }
    let (train, test) = match source.split_once(':') {
        None => named(root, source, share)?,
        Some((form, path)) => {
            let path = Path::new(path);
            match form {
                "idx" => idx::read_dir(source, path)?,
                "png" => png::read_dir(source, path)?,
                "csv" => with_test(table::read(path, config, |labels| hold_out(labels, share))?),
                "npz" => Archive::npz(path)?.read(source, path)?,
                "safetensors" => Archive::safetensors(path)?.read(source, path)?,
                "text" => with_test(text::read(source, path, share)?),
                _ => return Err(unknown(source)),
            }
        }
    };
    let split = match test {
        Some(test) => Split { train: Arc::new(train), test: Arc::new(test) },
        None => {
            let (train_rows, test_rows) = hold_out(&groups(&train), share)?;
            Split { train: Arc::new(train.select(&train_rows)), test: Arc::new(train.select(&test_rows)) }
        }
    };
    if split.train.is_empty() {
        return Err(Error::config("data.test_share", share, "leaves nothing to train on; lower it"));
    }
    Ok(split)
}

fn named(root: &Path, name: &str, share: f64) -> Result<(Dataset, Option<Dataset>), Error> {
    if name == "digits" {
        return Ok((idx::digits()?, None));
    }
    let split = |groups: &[u32]| hold_out(groups, share);
    if name == "penguins" {
        return Ok(with_test(penguins::read(split)?));
    }
    if !NAMED.contains(&name) {
        return Err(unknown(name));
    }
    let dir = find(name, root).ok_or_else(|| Error::Missing {
        key: "data.source",
        name: name.into(),
        dir: root.join(name),
    })?;
    Ok(match name {
        "shakespeare" => with_test(text::read(name, &dir, share)?),
        "heart" => with_test(heart::read(&dir.join(heart::FILE), split)?),
        "spoken-digits" => with_test(spoken::read(&dir.join(spoken::FILE), split)?),
        "sentiment" => with_test(sentiment::read(&dir, split)?),
        _ => idx::read_dir(name, &dir)?,
    })
}

fn with_test((train, test): (Dataset, Dataset)) -> (Dataset, Option<Dataset>) {
    (train, Some(test))
}

fn unknown(source: &str) -> Error {
    let remedy = format!(
        "known are {}, idx:DIR, png:DIR, csv:FILE, npz:FILE, safetensors:FILE, text:FILE or DIR, and none",
        NAMED.join(", ")
    );
    Error::config("data.source", format!("{source:?}"), remedy)
}

/// For each row a number that is the same for those of the same label and, where there are keys, the same key.
fn groups(dataset: &Dataset) -> Vec<u32> {
    let Some(keys) = dataset.keys() else { return dataset.labels().to_vec() };
    let pairs = || keys.iter().zip(dataset.labels());
    let distinct: std::collections::BTreeSet<_> = pairs().collect();
    let numbers: std::collections::BTreeMap<_, u32> = distinct.into_iter().zip(0..).collect();
    pairs().map(|pair| numbers[&pair]).collect()
}

/// The seed behind every held-out test set, fixed for all runs.
const HOLD_OUT_SEED: u64 = 0x6475_6e6c_696e;

/// Rows to train on and rows to test on, both ascending: `share` of the rows of each label, or of each other group, is
/// held out, rounded.
fn hold_out(labels: &[u32], share: f64) -> Result<(Vec<u32>, Vec<u32>), Error> {
    let seed = Seed::from_u64(HOLD_OUT_SEED).derive("hold-out");
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (label, mut rows) in (0..).zip(rows_by_label(labels)) {
        shuffle(&mut rows, &mut seed.derive_n("label", label).rng());
        let held_out = (rows.len() as f64 * share).round() as usize;
        train.extend_from_slice(&rows[held_out..]);
        test.extend_from_slice(&rows[..held_out]);
    }
    train.sort_unstable();
    test.sort_unstable();
    Ok((train, test))
}

/// For each label from 0 to the largest, its rows in ascending order.
fn rows_by_label(labels: &[u32]) -> Vec<Vec<u32>> {
    let mut rows = vec![Vec::new(); labels.iter().max().map_or(0, |&label| label as usize + 1)];
    for (row, &label) in (0..).zip(labels) {
        rows[label as usize].push(row);
    }
    rows
}

#[cfg(test)]
mod tests;

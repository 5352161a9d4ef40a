//! Data sets, how they are read, and how they are split among clients.
//!
//! Named sets other than the embedded digits lie in `$DUNLIN_DATA/NAME`, or `./data/NAME` without that variable.

mod fetch;
mod idx;
mod partition;
mod set;
mod table;

pub use fetch::fetch;
pub use partition::partition;
pub use set::{Dataset, Examples};

use crate::Error;
use crate::model::InputShape;
use crate::train::shuffle;
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
/// A source with no test set of its own (digits, CSV, IDX without `t10k` files) has `test_share` of each label held
/// out. Which rows those are follows from the source alone and not from the run's seed, so that accuracies of runs
/// with different seeds can be compared; no source samples by the seed yet.
///
/// # Errors
/// When the source is unknown, missing or malformed, or a key does not fit it.
pub fn load(config: &DataConfig, _seed: &Seed) -> Result<Split, Error> {
    load_under(&root(), config)
}

/// The folder under which fetched data sets lie: `$DUNLIN_DATA`, or `data` in the working directory.
#[must_use]
pub fn root() -> PathBuf {
    std::env::var_os("DUNLIN_DATA").filter(|dir| !dir.is_empty()).map_or_else(|| "data".into(), PathBuf::from)
}

fn load_under(root: &Path, config: &DataConfig) -> Result<Split, Error> {
    let source = config.source.as_str();
    let (train, test) = match source {
        "digits" => (idx::digits()?, None),
        "none" => {
            let train = Dataset::featureless(config)?;
            return Ok(Split { test: Arc::new(train.select(&[])), train: Arc::new(train) });
        }
        "mnist" | "fashion-mnist" => {
            let dir = root.join(source);
            if !idx::is_dataset(&dir) {
                return Err(Error::Missing { name: source.into(), dir });
            }
            idx::read_dir(source, &dir)?
        }
        _ => {
            if let Some(dir) = source.strip_prefix("idx:") {
                idx::read_dir(source, Path::new(dir))?
            } else if let Some(file) = source.strip_prefix("csv:") {
                let test_rows = |labels: &[u32]| hold_out(labels, config.test_share);
                let (train, test) = table::read(Path::new(file), config, test_rows)?;
                (train, Some(test))
            } else {
                let remedy = "known are digits, mnist, fashion-mnist, idx:DIR, csv:FILE and none";
                return Err(Error::config("data.source", format!("{source:?}"), remedy));
            }
        }
    };
    let split = match test {
        Some(test) => Split { train: Arc::new(train), test: Arc::new(test) },
        None => {
            let (train_rows, test_rows) = hold_out(train.labels(), config.test_share)?;
            Split { train: Arc::new(train.select(&train_rows)), test: Arc::new(train.select(&test_rows)) }
        }
    };
    if split.train.is_empty() {
        return Err(Error::config("data.test_share", config.test_share, "leaves nothing to train on; lower it"));
    }
    Ok(split)
}

/// The seed behind every held-out test set, fixed for all runs.
const HOLD_OUT_SEED: u64 = 0x6475_6e6c_696e;

/// Rows to train on and rows to test on, both ascending: `share` of each label's rows, rounded, is held out.
fn hold_out(labels: &[u32], share: f64) -> Result<(Vec<u32>, Vec<u32>), Error> {
    if !(0.0..1.0).contains(&share) {
        return Err(Error::config("data.test_share", share, "a share from 0 to below 1 is right, such as 0.2"));
    }
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

//! The split by whom each row belongs to: numbers in a file, or the natural key of the source.

use crate::Error;
use crate::data::{Dataset, idx, rows_by_label, table};
use crate::train::shuffle;
use dunlin_core::Rng;
use dunlin_core::recipe::DataConfig;
use std::path::Path;

/// The rows of each key's client, keys in their order.
///
/// When there are more keys than `data.clients`, as many are drawn and the rows of the others stay unused, as LEAF
/// samples users (Caldas et al. 2018, <https://arxiv.org/abs/1812.01097>).
pub(super) fn split(config: &DataConfig, train: &Dataset, rng: &mut Rng) -> Result<Vec<Vec<u32>>, Error> {
    let (mut parts, whose) = match (config.key_file.as_str(), train.keys()) {
        ("", Some(keys)) => (rows_by_label(keys), train.name().to_owned()),
        ("", None) => {
            let remedy =
                format!("{} says of no row whose it is; name a file with one client number per row", train.name());
            return Err(Error::config("data.key_file", "\"\"", remedy));
        }
        (file, _) => {
            let numbers = numbers(file, train).map_err(|error| error.of_source("data.key_file", file))?;
            (rows_by_label(&numbers), file.to_owned())
        }
    };
    // A key may have lost its few rows to the test set.
    parts.retain(|rows| !rows.is_empty());
    let clients = config.clients as usize;
    if parts.len() < clients {
        let remedy = format!("{whose} has rows of {} keys; set data.clients to at most that", parts.len());
        return Err(Error::config("data.clients", clients, remedy));
    }
    if parts.len() > clients {
        let mut drawn: Vec<usize> = (0..parts.len()).collect();
        shuffle(&mut drawn, rng);
        drawn.truncate(clients);
        drawn.sort_unstable();
        parts = drawn.into_iter().map(|key| std::mem::take(&mut parts[key])).collect();
    }
    Ok(parts)
}

/// Column of QMNIST's label files that holds the writer.
const WRITER_COLUMN: usize = 2;

/// For each training row the number of its key in a file, keys numbered in their order.
fn numbers(key_file: &str, train: &Dataset) -> Result<Vec<u32>, Error> {
    let wrong = |remedy: String| Error::config("data.key_file", format!("{key_file:?}"), remedy);
    let (path, column) = table::key_column(key_file);
    let keys: Vec<String> = match column {
        Some(column) => table::read_column(Path::new(path), column)?,
        None if path.trim_end_matches(".gz").ends_with("idx2-int") => {
            let mut writers = idx::read_column(Path::new(path), WRITER_COLUMN)?;
            // QMNIST's files go on after MNIST's own rows.
            writers.truncate(train.len());
            writers.iter().map(i32::to_string).collect()
        }
        None => {
            let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
            text.lines().map(|line| line.trim().to_owned()).collect()
        }
    };
    if let Some(row) = keys.iter().position(String::is_empty) {
        return Err(wrong(format!("row {row} (from 0) has no key")));
    }
    let of_source = keys.len() == train.source_len() && keys.len() != train.len();
    if !of_source && keys.len() != train.len() {
        return Err(wrong(format!("it has {} rows and the training set {}", keys.len(), train.len())));
    }
    let keys: Vec<&str> =
        (0..train.len()).map(|row| keys[if of_source { train.source_row(row) } else { row }].as_str()).collect();
    Ok(table::enumerate(&keys).0)
}

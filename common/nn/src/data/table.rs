//! Tables in CSV files: a header, one column of labels, all others numbers.

use super::MAX_CLASSES;
use super::set::Dataset;
use crate::Error;
use crate::model::InputShape;
use dunlin_core::recipe::{DataConfig, Partition};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A table split by `split` (labels to training and test rows), its features standardised to mean 0 and variance 1
/// over the training rows. A constant feature becomes 0.
///
/// Labels are numbered in the order of their values: as numbers if all are, else as text.
pub(super) fn read(
    path: &Path,
    config: &DataConfig,
    split: impl Fn(&[u32]) -> Result<(Vec<u32>, Vec<u32>), Error>,
) -> Result<(Dataset, Dataset), Error> {
    let file = path.display();
    let table = Table::open(path)?;
    let label = table.column(&config.label).ok_or_else(|| {
        let remedy = format!("{file} has no such column; it has {}", table.header.join(", "));
        Error::config("data.label", format!("{:?}", config.label), remedy)
    })?;
    // The column that says which client a row belongs to is not a feature.
    let key = match key_column(&config.key_file) {
        (key_path, Some(name)) if config.partition == Partition::Key && Path::new(key_path) == path => {
            table.column(name)
        }
        _ => None,
    };
    let columns: Vec<usize> = (0..table.header.len()).filter(|&index| index != label && Some(index) != key).collect();
    if columns.is_empty() || table.rows.is_empty() {
        return Err(Error::malformed(
            file,
            "a header, one feature column and one row are the least that can be learnt",
        ));
    }
    let mut features = Vec::with_capacity(table.rows.len() * columns.len());
    for row in 0..table.rows.len() {
        for &column in &columns {
            features.push(table.number(path, row, column)?);
        }
    }
    let texts: Vec<&str> = table.rows.iter().map(|record| record[label].trim()).collect();
    if let Some(row) = texts.iter().position(|text| text.is_empty()) {
        return Err(Error::malformed(table.place(path, row, label), "the label is missing"));
    }
    let (labels, classes) = enumerate(&texts);
    if classes > MAX_CLASSES {
        let remedy = format!("{classes} distinct values are no labels; name a column with at most {MAX_CLASSES}");
        return Err(Error::config("data.label", format!("{:?}", config.label), remedy));
    }
    let (train_rows, test_rows) = split(&labels)?;
    standardise(&mut features, columns.len(), &train_rows);
    let input = InputShape::table(columns.len(), classes);
    let features = features.into_iter().map(|value| value as f32).collect();
    let all = Dataset::new(format!("csv:{file}"), input, features, labels)?;
    Ok((all.select(&train_rows), all.select(&test_rows)))
}

/// `FILE:COLUMN` in two, or `FILE` alone.
pub(super) fn key_column(key_file: &str) -> (&str, Option<&str>) {
    match key_file.rsplit_once(':') {
        Some((path, column)) if path.ends_with(".csv") => (path, Some(column)),
        _ => (key_file, None),
    }
}

/// The values of one column as text.
pub(super) fn read_column(path: &Path, column: &str) -> Result<Vec<String>, Error> {
    let table = Table::open(path)?;
    let index = table.column(column).ok_or_else(|| {
        let remedy = format!("{} has no column {column:?}; it has {}", path.display(), table.header.join(", "));
        Error::config("data.key_file", format!("{:?}", format!("{}:{column}", path.display())), remedy)
    })?;
    Ok(table.rows.iter().map(|record| record[index].trim().to_owned()).collect())
}

/// Distinct texts numbered in the order of their values, and how many there are.
pub(super) fn enumerate<S: AsRef<str>>(texts: &[S]) -> (Vec<u32>, usize) {
    let (numbers, names) = enumerate_names(texts);
    (numbers, names.len())
}

/// Distinct texts numbered in the order of their values, as numbers if all are, and which they are.
pub(super) fn enumerate_names<S: AsRef<str>>(texts: &[S]) -> (Vec<u32>, Vec<String>) {
    let distinct: BTreeSet<&str> = texts.iter().map(AsRef::as_ref).collect();
    let mut distinct: Vec<&str> = distinct.into_iter().collect();
    if let Ok(mut numbers) =
        distinct.iter().map(|&text| Ok((text.parse()?, text))).collect::<Result<Vec<_>, std::num::ParseIntError>>()
    {
        numbers.sort_unstable_by_key(|&(number, _): &(i64, &str)| number);
        distinct = numbers.into_iter().map(|(_, text)| text).collect();
    }
    let number: std::collections::HashMap<&str, u32> = distinct.iter().copied().zip(0..).collect();
    let numbers = texts.iter().map(|text| number[text.as_ref()]).collect();
    (numbers, distinct.into_iter().map(str::to_owned).collect())
}

/// A file in memory, every record as long as the header.
pub(super) struct Table {
    header: Vec<String>,
    pub(super) rows: Vec<csv::StringRecord>,
}

impl Table {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        Self::read(File::open(path).map_err(|error| Error::io(path, error))?, path)
    }

    /// From what `file` holds.
    pub(super) fn read(file: impl Read, path: &Path) -> Result<Self, Error> {
        let malformed = |error: csv::Error| match error.into_kind() {
            csv::ErrorKind::Io(error) => Error::io(path, error),
            csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
                let line = pos.map_or(0, |pos| pos.line());
                Error::malformed(path.display(), format!("line {line} has {len} fields and the header {expected_len}"))
            }
            kind => Error::malformed(path.display(), format!("{kind:?}")),
        };
        let mut reader = csv::Reader::from_reader(file);
        let header = reader.headers().map_err(malformed)?.iter().map(|name| name.trim().to_owned()).collect();
        let rows = reader.records().collect::<Result<_, _>>().map_err(malformed)?;
        Ok(Self { header, rows })
    }

    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }

    /// The file, row and column of a cell, for an error.
    pub(super) fn place(&self, path: &Path, row: usize, column: usize) -> String {
        let line = self.rows[row].position().map_or(row as u64 + 2, csv::Position::line);
        format!("{}, line {line}, column {:?}", path.display(), self.header[column])
    }

    /// A cell that holds a number.
    pub(super) fn number(&self, path: &Path, row: usize, column: usize) -> Result<f64, Error> {
        let text = self.rows[row][column].trim();
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(value),
            _ => {
                let problem = if text.is_empty() {
                    "the value is missing; fill it in or drop the row".to_owned()
                } else {
                    format!("{text:?} is not a finite number; encode the column as numbers or drop it")
                };
                Err(Error::malformed(self.place(path, row, column), problem))
            }
        }
    }
}

/// Brings each column to mean 0 and variance 1 over `rows`; a constant one becomes 0.
pub(super) fn standardise(features: &mut [f64], width: usize, rows: &[u32]) {
    let count = rows.len().max(1) as f64;
    for column in 0..width {
        let value = |row: &u32| features[*row as usize * width + column];
        let mean = rows.iter().map(value).sum::<f64>() / count;
        let variance = rows.iter().map(|row| (value(row) - mean).powi(2)).sum::<f64>() / count;
        let scale = if variance > 0.0 { 1.0 / variance.sqrt() } else { 0.0 };
        for value in features.iter_mut().skip(column).step_by(width) {
            *value = (*value - mean) * scale;
        }
    }
}

#[cfg(test)]
mod tests;

//! Tables whose columns and words are known: measurements with gaps, of people or animals at several places.

use super::set::Dataset;
use super::table::{self, Table};
use crate::Error;
use crate::model::InputShape;
use std::path::Path;

/// A table that is known.
pub(super) struct Records {
    pub(super) name: &'static str,
    /// The columns that become features.
    pub(super) columns: &'static [(&'static str, Column)],
    /// What stands where nothing is known, beside nothing.
    pub(super) gap: &'static str,
    /// The column that says where a row comes from: the natural key.
    pub(super) place: &'static str,
    pub(super) label: (&'static str, Label),
}

/// What a column becomes.
pub(super) enum Column {
    /// A measurement; where it is missing, the median of the training rows. Zero is missing if no living body has it.
    Number { zero_is_missing: bool },
    /// 1 for the second of two words, 0 for the first; where it is missing, the training rows' more frequent one.
    Either([&'static str; 2]),
    /// One feature for each word, 1 for the one that stands there; where none does, the most frequent one.
    OneOf(&'static [&'static str]),
}

/// What the column of the label becomes.
pub(super) enum Label {
    /// 1 for a number above 0, and 0 for 0.
    AboveZero,
    /// The place of the word among these.
    OneOf(&'static [&'static str]),
}

impl Label {
    const fn count(&self) -> usize {
        match self {
            Self::AboveZero => 2,
            Self::OneOf(words) => words.len(),
        }
    }
}

impl Records {
    /// The rows that `split` puts among those to train on and to test on, given for each a number that is the same for those
    /// of the same place and label. Features are standardised over the training rows.
    pub(super) fn read(
        &self,
        table: &Table,
        path: &Path,
        split: impl Fn(&[u32]) -> Result<(Vec<u32>, Vec<u32>), Error>,
    ) -> Result<(Dataset, Dataset), Error> {
        let column = |name: &str| {
            let missing = || Error::malformed(path.display(), format!("it has no column {name:?}; fetch it again"));
            table.column(name).ok_or_else(missing)
        };
        let text = |row: usize, column: usize| match table.rows[row][column].trim() {
            text if text == self.gap => "",
            text => text,
        };
        let word = |row: usize, column: usize, words: &[&str]| {
            let text = text(row, column);
            let unknown = || {
                Error::malformed(table.place(path, row, column), format!("{text:?} is none of {}", words.join(", ")))
            };
            words.iter().position(|word| *word == text).ok_or_else(unknown)
        };
        let rows = table.rows.len();
        let places = column(self.place)?;
        let places: Vec<&str> = (0..rows).map(|row| text(row, places)).collect();
        let (keys, names) = table::enumerate_names(&places);
        let (label, kind) = (column(self.label.0)?, &self.label.1);
        let labels = (0..rows).map(|row| match kind {
            Label::AboveZero => Ok(u32::from(table.number(path, row, label)? > 0.0)),
            Label::OneOf(words) => Ok(word(row, label, words)? as u32),
        });
        let labels: Vec<u32> = labels.collect::<Result<_, Error>>()?;
        let groups: Vec<u32> = keys.iter().zip(&labels).map(|(key, label)| key * kind.count() as u32 + label).collect();
        let (train, test) = split(&groups)?;

        let mut features: Vec<Vec<f64>> = vec![Vec::new(); rows];
        for (name, kind) in self.columns {
            let column = column(name)?;
            // For each row the number, or the word's place, if there is one.
            let mut values = Vec::with_capacity(rows);
            for row in 0..rows {
                values.push(match kind {
                    _ if text(row, column).is_empty() => None,
                    Column::Number { zero_is_missing } => {
                        Some(table.number(path, row, column)?).filter(|&value| value != 0.0 || !zero_is_missing)
                    }
                    Column::Either(words) => Some(word(row, column, words)? as f64),
                    Column::OneOf(words) => Some(word(row, column, words)? as f64),
                });
            }
            let known = train.iter().filter_map(|&row| values[row as usize]).collect();
            let usual = match kind {
                Column::Number { .. } | Column::Either(_) => median(known),
                Column::OneOf(words) => most_frequent(&known, words.len()),
            };
            for (features, value) in features.iter_mut().zip(values) {
                let value = value.unwrap_or(usual);
                match kind {
                    Column::Number { .. } | Column::Either(_) => features.push(value),
                    Column::OneOf(words) => {
                        features.extend((0..words.len()).map(|place| f64::from(u8::from(place as f64 == value))));
                    }
                }
            }
        }
        let width = features.first().map_or(0, Vec::len);
        let mut features = features.concat();
        table::standardise(&mut features, width, &train);
        let features = features.into_iter().map(|value| value as f32).collect();
        let all = Dataset::new(self.name, InputShape::table(width, self.label.1.count()), features, labels)?
            .with_keys(names, keys)?;
        Ok((all.select(&train), all.select(&test)))
    }
}

/// The upper median, or 0 of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The most frequent of the numbers below `count`, among equals the first.
fn most_frequent(values: &[f64], count: usize) -> f64 {
    let often = |place: usize| values.iter().filter(|&&value| value == place as f64).count();
    (0..count).rev().max_by_key(|&place| often(place)).unwrap_or(0) as f64
}

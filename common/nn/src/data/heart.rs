//! The heart disease data of four hospitals (Detrano et al. 1989; UCI repository, id 45).

use super::set::Dataset;
use super::table::{self, Table};
use crate::Error;
use crate::model::InputShape;
use std::path::Path;

/// The file in the data set's folder.
pub(super) const FILE: &str = "heart_disease_uci.csv";

/// What a column becomes.
enum Column {
    /// A measurement; where it is missing, the median of the training rows. Zero is missing if no living body has it.
    Number { zero_is_missing: bool },
    /// 1 for the second of two words, 0 for the first; where it is missing, the training rows' more frequent one.
    Either([&'static str; 2]),
    /// One feature for each word, 1 for the one that stands there; where none does, the most frequent one.
    OneOf(&'static [&'static str]),
}

/// The columns that are used. `ca`, `thal` and `slope` are not: three of the hospitals hardly measured them.
const COLUMNS: [(&str, Column); 10] = [
    ("age", Column::Number { zero_is_missing: true }),
    ("sex", Column::Either(["Female", "Male"])),
    ("cp", Column::OneOf(&["typical angina", "atypical angina", "non-anginal", "asymptomatic"])),
    ("trestbps", Column::Number { zero_is_missing: true }),
    // Switzerland measured no cholesterol and wrote 0.
    ("chol", Column::Number { zero_is_missing: true }),
    ("fbs", Column::Either(["FALSE", "TRUE"])),
    ("restecg", Column::OneOf(&["normal", "st-t abnormality", "lv hypertrophy"])),
    ("thalch", Column::Number { zero_is_missing: true }),
    ("exang", Column::Either(["FALSE", "TRUE"])),
    ("oldpeak", Column::Number { zero_is_missing: false }),
];

const HOSPITAL: &str = "dataset";
/// 0 for a healthy vessel, 1 to 4 for a narrowed one.
const DISEASE: &str = "num";
const LABELS: usize = 2;

/// The patients that `split` puts among the training and the test rows, given for each a number that is the same for
/// those of the same hospital and label. Features are standardised over the training rows; the label says whether a
/// vessel is narrowed; the natural key is the hospital.
pub(super) fn read(
    path: &Path,
    split: impl Fn(&[u32]) -> Result<(Vec<u32>, Vec<u32>), Error>,
) -> Result<(Dataset, Dataset), Error> {
    let table = Table::open(path)?;
    let column = |name: &str| {
        let missing = || Error::malformed(path.display(), format!("it has no column {name:?}; fetch it again"));
        table.column(name).ok_or_else(missing)
    };
    let text = |row: usize, column: usize| table.rows[row][column].trim();
    let rows = table.rows.len();
    let (hospital, disease) = (column(HOSPITAL)?, column(DISEASE)?);
    let hospitals: Vec<&str> = (0..rows).map(|row| text(row, hospital)).collect();
    let (keys, names) = table::enumerate_names(&hospitals);
    let labels = (0..rows).map(|row| Ok(u32::from(table.number(path, row, disease)? > 0.0)));
    let labels: Vec<u32> = labels.collect::<Result<_, Error>>()?;
    let groups: Vec<u32> = keys.iter().zip(&labels).map(|(key, label)| key * LABELS as u32 + label).collect();
    let (train, test) = split(&groups)?;

    let mut features: Vec<Vec<f64>> = vec![Vec::new(); rows];
    for (name, kind) in &COLUMNS {
        let column = column(name)?;
        // For each row the number, or the word's place, if there is one.
        let mut values = Vec::with_capacity(rows);
        for row in 0..rows {
            let text = text(row, column);
            let unknown = |words: &[&str]| {
                Error::malformed(table.place(path, row, column), format!("{text:?} is none of {}", words.join(", ")))
            };
            let place = |words: &[&str]| words.iter().position(|word| *word == text).ok_or_else(|| unknown(words));
            values.push(match kind {
                _ if text.is_empty() => None,
                Column::Number { zero_is_missing } => {
                    Some(table.number(path, row, column)?).filter(|&value| value != 0.0 || !zero_is_missing)
                }
                Column::Either(words) => Some(place(words)? as f64),
                Column::OneOf(words) => Some(place(words)? as f64),
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
    let all = Dataset::new("heart", InputShape::table(width, LABELS), features, labels)?.with_keys(names, keys)?;
    Ok((all.select(&train), all.select(&test)))
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

#[cfg(test)]
mod tests;

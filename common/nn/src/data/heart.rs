//! The heart disease data of four hospitals (Detrano et al. 1989; UCI repository, id 45).

use super::records::{Column, Label, Records};
use super::set::Dataset;
use super::table::Table;
use crate::Error;
use std::path::Path;

/// The file in the data set's folder.
pub(super) const FILE: &str = "heart_disease_uci.csv";

const HEART: Records = Records {
    name: "heart",
    columns: &COLUMNS,
    gap: "",
    place: "dataset",
    // 0 for a healthy vessel, 1 to 4 for a narrowed one.
    label: ("num", Label::AboveZero),
};

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

/// The patients of the hospitals; the label says whether a vessel is narrowed.
pub(super) fn read(
    path: &Path,
    split: impl Fn(&[u32]) -> Result<(Vec<u32>, Vec<u32>), Error>,
) -> Result<(Dataset, Dataset), Error> {
    HEART.read(&Table::open(path)?, path, split)
}

#[cfg(test)]
mod tests;

//! Penguins of three islands (Gorman et al. 2014, <https://doi.org/10.1371/journal.pone.0090081>; Horst et al. 2020), which
//! are part of the program.

use super::records::{Column, Label, Records};
use super::set::Dataset;
use super::table::Table;
use crate::Error;
use std::path::Path;

const MEASURED: Column = Column::Number { zero_is_missing: false };

const PENGUINS: Records = Records {
    name: "penguins",
    columns: &[
        ("bill_length_mm", MEASURED),
        ("bill_depth_mm", MEASURED),
        ("flipper_length_mm", MEASURED),
        ("body_mass_g", MEASURED),
        ("sex", Column::Either(["female", "male"])),
    ],
    gap: "NA",
    place: "island",
    label: ("species", Label::OneOf(&["Adelie", "Chinstrap", "Gentoo"])),
};

/// The penguins; the label is the species, of which no island has all three.
pub(super) fn read(split: impl Fn(&[u32]) -> Result<(Vec<u32>, Vec<u32>), Error>) -> Result<(Dataset, Dataset), Error> {
    let file = Path::new("penguins.csv");
    let table = Table::read(include_bytes!("../../assets/penguins.csv").as_slice(), file)?;
    PENGUINS.read(&table, file, split)
}

//! The parts of the page, one file each: a part is a function from the view, or nothing where the run has nothing to tell.

mod clients;
mod layers;
mod learning;
pub(super) mod overview;
mod quantization;
mod recipe;
mod sizes;
mod traffic;

use super::Section;
use crate::commands::output::factor;
use crate::commands::report::view::View;

/// In the order of the page. A new part is a file and a line here.
pub(super) const SECTIONS: [fn(&View) -> Option<Section>; 7] = [
    learning::section,
    traffic::section,
    clients::section,
    layers::section,
    sizes::section,
    quantization::section,
    recipe::section,
];

/// How much smaller than `dense` something is, or larger; nothing where there is nothing to compare.
fn smaller(dense: u64, size: u64) -> String {
    match size {
        0 => String::new(),
        size if size == dense => String::new(),
        size if size > dense => format!("{} larger", factor(size, dense)),
        size => format!("{} smaller", factor(dense, size)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_compared_where_there_is_something_to_compare() {
        assert_eq!([0, 50, 100, 200].map(|size| smaller(100, size)), ["", "2.00 × smaller", "", "2.00 × larger"]);
    }
}

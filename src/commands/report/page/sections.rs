//! The parts of the page, one file each: a part is a function from the view, or nothing where the run has nothing to tell.

mod beside;
mod clients;
mod distillation;
mod layers;
mod learning;
pub(super) mod overview;
mod pruning;
mod quantization;
mod recipe;
mod sizes;
mod traffic;

use super::Section;
use crate::commands::output::factor;
use crate::commands::report::view::View;

/// In the order of the page. A new part is a file and a line here.
pub(super) const SECTIONS: [fn(&View) -> Option<Section>; 10] = [
    learning::section,
    beside::section,
    traffic::section,
    clients::section,
    pruning::section,
    distillation::section,
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
    use crate::commands::report::view::tests::view;
    use dunlin::core::report::Distilled;

    #[test]
    fn what_a_run_did_not_do_has_no_section() {
        let mut view = view();
        assert!(pruning::section(&view).is_none() && distillation::section(&view).is_none());
        for (round, kept) in view.rounds.iter_mut().zip([100, 25]) {
            round.kept = Some(kept);
            round.distilled = Some(Distilled { teachers: 3, examples: 50, loss: 0.5, before: 0.5, agreement: 0.75 });
        }
        let pruning = pruning::section(&view).unwrap().body.0;
        // The first round took nothing away.
        assert_eq!(pruning.matches("<tr>").count(), 2, "{pruning}");
        assert!(pruning.contains("<td>25.00 %</td>"), "{pruning}");
        let distillation = distillation::section(&view).unwrap().body.0;
        assert!(distillation.contains("mean of the models: 50.00 %\nafter distilling: 75.00 %"), "{distillation}");
    }

    #[test]
    fn sizes_are_compared_where_there_is_something_to_compare() {
        assert_eq!([0, 50, 100, 200].map(|size| smaller(100, size)), ["", "2.00 × smaller", "", "2.00 × larger"]);
    }
}

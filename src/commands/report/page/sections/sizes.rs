//! How small the final model gets as a file, stage by stage.

use super::smaller;
use crate::commands::output::percent;
use crate::commands::report::analysis::Size;
use crate::commands::report::page::Section;
use crate::commands::report::page::plot::{Colour, Row, waterfall};
use crate::commands::report::view::View;
use maud::html;

pub(super) fn section(view: &View) -> Option<Section> {
    let sizes = &view.model.sizes;
    if sizes.files.is_empty() {
        return None;
    }
    let body = html! {
        p.note {
            @match sizes.density {
                Some(density) => {
                    "The final model with the largest " (percent(density)) " of its weights, which was not trained again. "
                }
                None => { "The final model as it is. " }
            }
            "Pruned is its non-zeros as f32 and where they are; then the weights are stored in fewer bits, with what that needs "
            "of codebooks and scales; coded is the file that dunlin compress writes."
        }
        div.plots { @for size in &sizes.files { (waterfall(&title(size), &rows(size, 4 * view.report.params))) } }
    };
    Some(Section { id: "sizes", title: "Size", body })
}

fn title(size: &Size) -> String {
    let what = match size.values {
        "shared" => "shared: a codebook of 32 values a tensor",
        "int8" => "int8: a scale for each channel",
        "int4" => "int4: a scale for each channel",
        other => other,
    };
    match size.accuracy {
        Some(accuracy) => format!("{what}, accuracy {}", percent(accuracy)),
        None => what.into(),
    }
}

/// The stages, and before them the model with all its filters and units, if some are gone.
fn rows(size: &Size, whole: u64) -> Vec<Row> {
    let stages =
        [("dense f32", size.dense), ("pruned", size.pruned), (size.values, size.stored), ("coded", size.coded)];
    let first = whole.max(size.dense);
    let row = |(name, value): (&str, u64)| Row {
        name: name.into(),
        colour: Colour::First,
        value,
        remark: smaller(first, value),
    };
    let whole = (whole > size.dense).then_some(("all filters", whole));
    whole.into_iter().chain(stages).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_without_some_of_its_filters_is_compared_with_the_whole_one() {
        let size = Size { values: "int8", dense: 400, pruned: 200, stored: 50, coded: 40, accuracy: None };
        let told = |whole| rows(&size, whole).into_iter().map(|row| (row.name, row.remark)).collect::<Vec<_>>();
        assert_eq!(told(400)[1], ("pruned".into(), "2.00 × smaller".into()));
        assert_eq!(told(800)[0], ("all filters".into(), String::new()));
        assert_eq!(told(800)[1], ("dense f32".into(), "2.00 × smaller".into()));
    }
}

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
        div.plots { @for size in &sizes.files { (waterfall(&title(size), &rows(size))) } }
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

fn rows(size: &Size) -> Vec<Row> {
    let stages =
        [("dense f32", size.dense), ("pruned", size.pruned), (size.values, size.stored), ("coded", size.coded)];
    let row = |(name, value): (&str, u64)| Row {
        name: name.into(),
        colour: Colour::First,
        value,
        remark: smaller(size.dense, value),
    };
    stages.map(row).into()
}

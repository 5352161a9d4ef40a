//! The final model layer by layer: what is left, how large the weights are, and how much of them is needed.

use crate::commands::output::{count, percent};
use crate::commands::report::analysis::{DENSITIES, Importance, Layer, Sensitivity};
use crate::commands::report::page::Section;
use crate::commands::report::page::plot::{histogram, share};
use crate::commands::report::view::View;
use maud::{Markup, html};

pub(super) fn section(view: &View) -> Option<Section> {
    let layers = &view.model.layers;
    if layers.is_empty() {
        return None;
    }
    let whole = match &view.model.sensitivity {
        Sensitivity::Measured { accuracy, densities, .. } if !densities.is_empty() => Some(*accuracy),
        _ => None,
    };
    let params: u64 = layers.iter().map(|layer| layer.params).sum();
    let zeros: u64 = layers.iter().map(|layer| layer.params - layer.nonzero).sum();
    let body = html! {
        p.note {
            @if params < view.report.params {
                (count(view.report.params - params)) " of " (count(view.report.params))
                " parameters went with whole filters and units. "
            }
            @if zeros == 0 { "No parameter of the final model is zero. " }
            @else { (count(zeros)) " of " (count(params)) " parameters of the final model are zero. " }
            "Pruning by magnitude takes the weights of the least size first: the histograms show how many there are of "
            "each size, from a four-thousandth of the largest on the left to the largest on the right, each column 1.26 "
            "times the one before. The lines stand where 50, 25 and 10 % of the layer would be left."
        }
        div.table {
            table.layers {
                thead {
                    tr {
                        th { "layer" } th { "shape" } th { "parameters" } th { "not zero" } th {} th { "sizes of the weights" }
                        @if whole.is_some() {
                            @for density in DENSITIES { th { "at " (format!("{:.0} %", 100.0 * density)) } }
                        }
                    }
                }
                tbody { @for layer in layers { (row(layer, whole)) } }
            }
        }
        (sensitivity(&view.model.sensitivity))
    };
    Some(Section { id: "layers", title: "Layers and pruning", body })
}

fn row(layer: &Layer, whole: Option<f64>) -> Markup {
    html! {
        tr {
            th { (layer.name) }
            td { (layer.extents()) }
            td { (count(layer.params)) }
            td { (percent(layer.density())) }
            td { (share(layer.density())) }
            td { (importance(&layer.importance)) }
            @if let Some(whole) = whole {
                @match layer.pruned_accuracy {
                    Some(accuracies) => { @for accuracy in accuracies { (heat(accuracy, whole)) } }
                    None => { @for _ in DENSITIES { td.quiet { "–" } } }
                }
            }
        }
    }
}

fn importance(importance: &Importance) -> Markup {
    let marks = DENSITIES.into_iter().zip(importance.cuts).filter_map(|(density, cut)| {
        let cut = cut?;
        Some((importance.place(cut), format!("{:.0} % are at least {cut:.3e}", 100.0 * density)))
    });
    histogram(&importance.bins, &marks.collect::<Vec<_>>(), |bin| {
        let (low, high) = importance.bounds(bin);
        format!("{} weights from {low:.3e} to {high:.3e}", count(importance.bins[bin]))
    })
}

/// An accuracy on a ground that is stronger the more was lost.
fn heat(accuracy: f64, whole: f64) -> Markup {
    let lost = ((whole - accuracy) / whole.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    html! { td.heat style={ "--heat:" (format!("{:.0}", 60.0 * lost)) "%" } { (percent(accuracy)) } }
}

fn sensitivity(sensitivity: &Sensitivity) -> Markup {
    html! {
        p.note {
            @match sensitivity {
                Sensitivity::Measured { examples, accuracy, densities } if !densities.is_empty() => {
                    "The columns at the right show the accuracy when that layer alone keeps the largest 50, 25 or 10 % of its "
                    "weights, without any training after it, on " (count(*examples as u64)) " examples of the test set. Of the "
                    "whole model it is " b { (percent(*accuracy)) } "."
                }
                Sensitivity::Measured { .. } => { "How sensitive each layer is to pruning was not measured." }
                Sensitivity::Skipped { reason } => {
                    "How sensitive each layer is to pruning was not measured: " (reason) "."
                }
            }
        }
    }
}

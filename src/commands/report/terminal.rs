//! The report as tables.

use super::analysis::{DENSITIES, Sensitivity};
use super::view::{Beside, View};
use crate::commands::output::{self, bytes, count, factor, percent, seconds};
use crate::commands::summary::{self, plain_table};
use comfy_table::{Cell, CellAlignment, Table};

pub(super) fn print(view: &View) {
    summary::print_as(&view.state(), &view.report, &view.rounds);
    for table in [cost(view), layers(view), sizes(view)] {
        output::line(table);
    }
    if !view.beside.is_empty() {
        output::line(beside(view));
    }
    match &view.model.sensitivity {
        Sensitivity::Skipped { reason } => output::line(format_args!("layers were not pruned one by one: {reason}")),
        Sensitivity::Measured { densities, .. } if densities.is_empty() => {}
        Sensitivity::Measured { examples, accuracy, .. } => output::line(format_args!(
            "at a share: accuracy with that layer alone pruned to it, on {} examples; of the whole model {}",
            count(*examples as u64),
            percent(*accuracy),
        )),
    }
}

fn cost(view: &View) -> Table {
    let cost = &view.cost;
    let mut table = plain_table();
    let smaller = |mean: f64| format!("{} smaller than f32", factor(cost.dense, mean.round() as u64));
    let mut row = |what: &str, value: String, remark: String| {
        table.add_row([Cell::new(what), right(value), Cell::new(remark)]);
    };
    row("an update up", bytes(cost.up.round() as u64), smaller(cost.up));
    row("a model down", bytes(cost.down.round() as u64), smaller(cost.down));
    row("asked", count(cost.chosen), format!("{} updates counted", count(cost.updates)));
    if let Some(simulated) = cost.round_seconds {
        row("a round", seconds(simulated), "simulated".into());
    }
    let sent = view.clients.iter().map(|client| client.up + client.down);
    if let (Some(least), Some(most)) = (sent.clone().min(), sent.max()) {
        row("a client", bytes(most), format!("both ways at most, {} at least", bytes(least)));
    }
    table
}

fn beside(view: &View) -> Table {
    let mut table = plain_table();
    table.set_header(Beside::HEADS);
    for run in &view.beside {
        table.add_row(std::iter::once(Cell::new(&run.name)).chain(run.cells().map(right)));
    }
    table
}

fn layers(view: &View) -> Table {
    let is_pruned = view.model.layers.iter().any(|layer| layer.pruned_accuracy.is_some());
    let mut table = plain_table();
    let heads = ["layer", "shape", "parameters", "not zero", "shared error", "int8", "int4"].map(str::to_owned);
    let at = DENSITIES.into_iter().filter(|_| is_pruned).map(|density| format!("at {:.0} %", 100.0 * density));
    table.set_header(heads.into_iter().chain(at));
    for layer in &view.model.layers {
        let errors = match layer.error {
            Some(error) => [error.shared, error.int8, error.int4].map(percent),
            None => [(); 3].map(|()| "–".to_owned()),
        };
        let accuracies = match layer.pruned_accuracy {
            Some(accuracies) => accuracies.map(percent),
            None => DENSITIES.map(|_| "–".to_owned()),
        };
        let numbers = [layer.extents(), count(layer.params), percent(layer.density())].into_iter().chain(errors);
        let accuracies = accuracies.into_iter().filter(|_| is_pruned);
        table.add_row(std::iter::once(Cell::new(&layer.name)).chain(numbers.chain(accuracies).map(right)));
    }
    table
}

fn sizes(view: &View) -> Table {
    let sizes = &view.model.sizes;
    let mut table = plain_table();
    let pruned = sizes.density.map_or_else(|| "pruned".to_owned(), |density| format!("pruned to {}", percent(density)));
    table.set_header(["stored as", "dense", &pruned, "stored", "coded", "smaller", "accuracy"]);
    for size in &sizes.files {
        let stages = [size.dense, size.pruned, size.stored, size.coded].map(bytes);
        let accuracy = size.accuracy.map_or_else(|| "–".to_owned(), percent);
        let cells = stages.into_iter().chain([factor(size.dense, size.coded), accuracy]).map(right);
        table.add_row(std::iter::once(Cell::new(size.values)).chain(cells));
    }
    table
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

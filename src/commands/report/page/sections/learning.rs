//! Accuracy and loss over rounds, and accuracy over what it cost.

use crate::commands::report::page::Section;
use crate::commands::report::page::plot::{Axes, Colour, Series, Unit, lines};
use crate::commands::report::view::View;
use dunlin::RoundSummary;
use maud::html;

pub(super) fn section(view: &View) -> Option<Section> {
    let series = |name, colour, value: fn(&RoundSummary) -> Option<f64>| {
        let points = view.rounds.iter().filter_map(|round| Some((round.round as f64, value(round)?)));
        Series { name, colour, points: points.collect() }
    };
    let accuracy = [
        series("test set", Colour::First, |round| round.accuracy),
        series("clients' own data", Colour::Second, |round| round.federated.map(|it| it.accuracy)),
    ];
    let loss = [
        // An abandoned round may have no update, and then no loss.
        series("training", Colour::Third, |round| (round.clients > 0).then_some(round.train_loss)),
        series("clients' own data", Colour::Second, |round| round.federated.map(|it| it.loss)),
        series("test set", Colour::First, |round| round.loss),
    ];
    let mut sent = 0;
    let mut by_bytes = Series { name: "test set", colour: Colour::First, points: Vec::new() };
    for round in &view.rounds {
        sent += round.bytes.up + round.bytes.down;
        by_bytes.points.extend(round.accuracy.map(|accuracy| (sent as f64, accuracy)));
    }
    let over_rounds = |unit| Axes { x: ("round", Unit::Count), y: unit, from_zero: false };
    let over_bytes = Axes { x: ("bytes up and down so far", Unit::Bytes), y: Unit::Percent, from_zero: false };
    let plots = [
        lines("accuracy", &over_rounds(Unit::Percent), &accuracy),
        lines("loss", &Axes { from_zero: true, ..over_rounds(Unit::Number) }, &loss),
        lines("accuracy over bytes", &over_bytes, &[by_bytes]),
    ];
    if plots.iter().all(Option::is_none) {
        return None;
    }
    let body = html! { div.plots { @for plot in plots.into_iter().flatten() { (plot) } } };
    Some(Section { id: "learning", title: "Learning", body })
}

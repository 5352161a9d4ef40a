//! How far the global model agrees with the clients' models that it learned from.

use crate::commands::output::count;
use crate::commands::report::page::Section;
use crate::commands::report::page::plot::{Axes, Colour, Series, Unit, lines};
use crate::commands::report::view::View;
use dunlin::core::report::Distilled;
use maud::html;

pub(super) fn section(view: &View) -> Option<Section> {
    let last = view.rounds.iter().rev().find_map(|round| round.distilled)?;
    let series = |name, colour, value: fn(&Distilled) -> f64| {
        let rounds = view.rounds.iter();
        let points = rounds.filter_map(|round| Some((round.round as f64, value(&round.distilled?))));
        Series { name, colour, points: points.collect() }
    };
    let agreement = [
        series("mean of the models", Colour::Quiet, |distilled| distilled.before),
        series("after distilling", Colour::First, |distilled| distilled.agreement),
    ];
    let loss = series("loss", Colour::First, |distilled| distilled.loss);
    let axes = |y| Axes { x: ("round", Unit::Count), y, from_zero: false };
    let plots = [
        lines("agreement with the teachers", &axes(Unit::Percent), &agreement),
        lines("loss of an answer", &Axes { from_zero: true, ..axes(Unit::Number) }, &[loss]),
    ];
    let body = html! {
        p.note {
            "At the end of a round the global model learned what the models of the round's clients say together, in the end "
            "from " (count(last.teachers.into())) " teachers on " (count(last.examples)) " examples. Agreement is the share of "
            "answers that are the same."
        }
        div.plots { @for plot in plots.into_iter().flatten() { (plot) } }
    };
    Some(Section { id: "distillation", title: "Teachers and student", body })
}

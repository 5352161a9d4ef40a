//! Other runs beside this one: how accuracy came, over rounds and over bytes, and where each ended.

use crate::commands::report::page::Section;
use crate::commands::report::page::plot::{Axes, Colour, Series, Unit, lines};
use crate::commands::report::view::{Beside, View};
use dunlin::RoundSummary;
use maud::html;

pub(super) fn section(view: &View) -> Option<Section> {
    if view.beside.len() < 2 {
        return None;
    }
    let over_rounds = |round: &RoundSummary, _: u64| Some((round.round as f64, round.accuracy?));
    let over_bytes = |round: &RoundSummary, sent: u64| Some((sent as f64, round.accuracy?));
    let kept = |round: &RoundSummary, _: u64| Some((round.round as f64, round.kept? as f64));
    let rounds = Axes { x: ("round", Unit::Count), y: Unit::Percent, from_zero: false };
    let traffic = Axes { x: ("bytes up and down so far", Unit::Bytes), y: Unit::Percent, from_zero: false };
    let left = Axes { x: ("round", Unit::Count), y: Unit::Count, from_zero: true };
    let plots = [
        lines("accuracy", &rounds, &series(view, over_rounds)),
        lines("accuracy over bytes", &traffic, &series(view, over_bytes)),
        lines("parameters that are left", &left, &series(view, kept)),
    ];
    let body = html! {
        div.plots { @for plot in plots.into_iter().flatten() { (plot) } }
        div.table {
            table {
                thead { tr { @for head in Beside::HEADS { th { (head) } } } }
                tbody {
                    @for run in &view.beside {
                        tr {
                            th { (run.name) }
                            @for cell in run.cells() { td { (cell) } }
                        }
                    }
                }
            }
        }
    };
    Some(Section { id: "beside", title: "Beside other runs", body })
}

/// A line for each run; a point is made of a round and the bytes sent up to its end.
fn series(view: &View, point: fn(&RoundSummary, u64) -> Option<(f64, f64)>) -> Vec<Series<'_>> {
    let points = |run: &Beside| {
        let mut sent = 0;
        let points = run.rounds.iter().filter_map(|round| {
            sent += round.bytes.up + round.bytes.down;
            point(round, sent)
        });
        points.collect()
    };
    let runs = view.beside.iter().zip(COLOURS);
    runs.map(|(run, colour)| Series { name: &run.name, colour, points: points(run) }).collect()
}

/// This run's first.
const COLOURS: [Colour; 5] = [Colour::First, Colour::Second, Colour::Third, Colour::Fourth, Colour::Fifth];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::report::view::tests::view;

    #[test]
    fn each_run_has_a_line_and_a_row() {
        let mut view = view();
        assert!(section(&view).is_none(), "a run beside itself is no comparison");
        let beside = |name: &str| Beside::new(name.to_owned(), view.report.clone(), view.rounds.clone());
        view.beside = ["ticket", "<control>", "dense"].map(beside).into();
        let page = section(&view).unwrap().body.0;
        assert_eq!(page.matches("<tr>").count(), 4, "{page}");
        assert!(page.contains("<th>&lt;control&gt;</th>") && !page.contains("<control>"), "{page}");
        // Accuracy over rounds and over bytes; nothing was pruned.
        assert_eq!(page.matches("<figure>").count(), 2, "{page}");
        assert_eq!(page.matches("class=\"c3\"").count(), 2 * 2, "{page}");
    }
}

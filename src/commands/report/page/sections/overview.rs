//! What is read first: the run's name, its end, and the numbers that sum it up.

use super::smaller;
use crate::commands::output::{bytes, count, percent, seconds};
use crate::commands::report::view::View;
use maud::{Markup, html};

pub(in crate::commands::report::page) fn header(view: &View) -> Markup {
    let report = &view.report;
    let (state, sentence) = view.state();
    let asked = view.recipe.as_ref().map(|recipe| format!("of {}", count(recipe.rounds.count)));
    let abandoned = (report.abandoned > 0).then(|| format!("{} abandoned", count(report.abandoned)));
    let cut_short = report.cut_short.then(|| "the last one cut short by a stop".to_owned());
    let of_rounds = asked.into_iter().chain(abandoned).chain(cut_short).collect::<Vec<_>>().join(", ");
    let (dense, sent) = (report.bytes.up_dense + report.bytes.down_dense, report.bytes.up + report.bytes.down);
    let compared = |dense: u64, sent: u64| match smaller(dense, sent) {
        same if same.is_empty() => format!("{} as f32", bytes(dense)),
        smaller => format!("{smaller} than {}", bytes(dense)),
    };
    let simulated = report.simulated_seconds.filter(|&simulated| simulated > 0.0);
    let target = report.target.map(|target| match target.round {
        Some(round) => format!("target {} reached in round {round}", percent(target.accuracy)),
        None => format!("target {} not reached", percent(target.accuracy)),
    });
    html! {
        header {
            h1 { (report.name) }
            p.lead {
                b { (state) } ": " (sentence)
                @if let Some(recipe) = &view.recipe {
                    ". A " (recipe.model.kind) " on " (recipe.data.source) ", dealt out to " (count(recipe.data.clients.into()))
                    " clients"
                }
                @if let Some(id) = &view.id { ". Run " code { (id) } }
                "."
            }
            div.tiles {
                @if view.is_judged() {
                    (tile("accuracy", &percent(report.accuracy), target.as_deref().unwrap_or("on the test set")))
                    (tile("loss", &format!("{:.4}", report.loss), "on the test set"))
                } @else {
                    (tile("accuracy", "–", "no test set"))
                }
                (tile("rounds", &count(report.rounds), &of_rounds))
                (tile("clients", &count(report.clients.into()), "took part"))
                (tile("parameters", &count(report.params), &format!("{} not zero", count(report.nonzero))))
                (tile("both ways", &bytes(sent), &compared(dense, sent)))
                (tile("up", &bytes(report.bytes.up), &compared(report.bytes.up_dense, report.bytes.up)))
                (tile("down", &bytes(report.bytes.down), &compared(report.bytes.down_dense, report.bytes.down)))
                (tile("time", &seconds(report.seconds), &simulated.map_or_else(String::new, |it| format!("{} simulated", seconds(it)))))
            }
        }
    }
}

fn tile(name: &str, value: &str, remark: &str) -> Markup {
    html! { div.tile { span { (name) } b { (value) } small { (remark) } } }
}

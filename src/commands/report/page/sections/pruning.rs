//! What was pruned while the federation trained: how much is left, round by round, and what each step cost.

use crate::commands::output::{bytes, count, percent};
use crate::commands::report::page::Section;
use crate::commands::report::page::plot::{Axes, Colour, Series, Unit, lines, share};
use crate::commands::report::view::View;
use dunlin::RoundSummary;
use dunlin::core::Recipe;
use dunlin::core::recipe::{Importance, Pattern, Rewind, Schedule, Scope};
use maud::{Markup, html};

pub(super) fn section(view: &View) -> Option<Section> {
    let rounds = view.rounds.iter();
    let left = rounds.clone().filter_map(|round| Some((round.round as f64, round.kept? as f64))).collect();
    let axes = Axes { x: ("round", Unit::Count), y: Unit::Count, from_zero: true };
    let left = Series { name: "left", colour: Colour::First, points: left };
    let plot = lines("parameters that are left", &axes, &[left])?;
    let body = html! {
        @if let Some(recipe) = &view.recipe { (why(recipe)) }
        div.plots { (plot) (steps(view)) }
    };
    Some(Section { id: "pruning", title: "Pruning while training", body })
}

/// What the recipe asks for, in a sentence.
fn why(recipe: &Recipe) -> Markup {
    let pruning = &recipe.pruning;
    let importance = match pruning.importance {
        Importance::Magnitude => "of the least magnitude",
        Importance::Gradient => "of the least gradient over the clients' data",
        Importance::Taylor => "without which the loss would change least, by the clients' gradients,",
        Importance::Scale => "of the channels with the least factor in their norm",
        Importance::Votes => "that the fewest clients would keep",
    };
    let scope = match pruning.scope {
        Scope::Global => "in the whole model",
        Scope::Layer => "in each layer",
    };
    let schedule = match pruning.schedule {
        Schedule::Cubic => "quickly at first",
        Schedule::Geometric => "by the same factor each time",
        Schedule::Threshold => "whatever is below a fixed magnitude",
    };
    html! {
        p.note {
            "The weights " (importance) " went first, " (scope) ": " (schedule) ", in " (count(pruning.steps))
            " steps from round " (count(pruning.first_round)) " on, every " (count(pruning.every)) " rounds, down to "
            @if pruning.parameters > 0 { (count(pruning.parameters)) " parameters." }
            @else { (percent(pruning.density)) " of the weights." }
            @if pruning.pattern != Pattern::Unstructured { " Their pattern: " (pruning.pattern) "." }
            @if pruning.regrow > 0.0 { " Each step gave " (percent(pruning.regrow)) " of what was left to other weights." }
            @match pruning.rewind {
                Rewind::None => {}
                Rewind::Ticket => { " After a step the weights went back to those of round " (count(pruning.rewind_round)) "." }
                Rewind::Random => {
                    " After a step the weights went back to those of round " (count(pruning.rewind_round))
                    ", and in the end to random ones."
                }
            }
        }
    }
}

/// The rounds after which less was left than before.
fn steps(view: &View) -> Markup {
    let mut left = view.report.params;
    let mut steps: Vec<&RoundSummary> = Vec::new();
    for round in &view.rounds {
        if let Some(kept) = round.kept.filter(|&kept| kept != left) {
            left = kept;
            steps.push(round);
        }
    }
    html! {
        figure {
            figcaption { "steps" }
            table {
                thead { tr { th { "round" } th { "left" } th { "share" } th {} th { "accuracy after it" } th { "up" } } }
                tbody {
                    @for round in steps {
                        @let kept = round.kept.unwrap_or_default();
                        @let of_all = kept as f64 / view.report.params.max(1) as f64;
                        tr {
                            th { (count(round.round)) }
                            td { (count(kept)) }
                            td { (percent(of_all)) }
                            td { (share(of_all)) }
                            td { (round.accuracy.map_or_else(|| "–".to_owned(), percent)) }
                            td { (bytes(round.bytes.up)) }
                        }
                    }
                }
            }
        }
    }
}

//! What a model's rounded weights need of the rest of the recipe.

use super::super::{Pattern, Recipe, Steps, Width};
use super::{Conflict, conflict_of, quoted};

pub(super) fn steps(recipe: &Recipe) -> Option<Conflict> {
    let model = &recipe.model;
    if model.steps == Steps::Fitted {
        return None;
    }
    if model.weights.largest_level().is_none() {
        return conflict_of(
            &["model.steps", "model.weights"],
            quoted("learned"),
            format!(
                "\"fitted\", because `model.weights` is \"{}\", which has no levels; those of int8, int4 and ternary are \
                 multiples of a step",
                model.weights.word()
            ),
        );
    }
    if recipe.pruning.is_on() && recipe.pruning.pattern == Pattern::Channels {
        return conflict_of(
            &["model.steps", "pruning.pattern"],
            quoted("learned"),
            "\"fitted\", because `pruning.pattern` is \"channels\", which takes filters and units away and would leave \
             their steps",
        );
    }
    if let Some(width) = recipe.widths().find(|&width| width < Width::WHOLE) {
        return conflict_of(
            &["model.steps", "size.width", "size"],
            quoted("learned"),
            format!("\"fitted\", because `size.width` is {width} for some clients, whose slices have no steps"),
        );
    }
    None
}

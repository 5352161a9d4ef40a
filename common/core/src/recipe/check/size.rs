//! What clients of several sizes need of the rest of the recipe.

use super::super::{Pattern, Recipe, SizeConfig};
use super::{Conflict, conflict_of, is_chain, quoted};
use crate::recipe::{ModelKind, Width};
use std::collections::BTreeSet;

pub(super) fn sizes(recipe: &Recipe) -> Option<Conflict> {
    let widths: Vec<Width> = recipe.size.iter().map(|size| size.width).collect();
    let smallest = *widths.iter().min()?;
    if widths.len() > SizeConfig::MOST {
        return conflict_of(
            &["size"],
            format!("a list of {} sections", widths.len()),
            format!("at most {} of them", SizeConfig::MOST),
        );
    }
    let mut known = BTreeSet::new();
    if let Some(twin) = widths.iter().find(|&&width| !known.insert(width)) {
        return conflict_of(&["size.width", "size"], twin, "different in each size");
    }
    if !known.contains(&Width::WHOLE) {
        return conflict_of(
            &["size.width", "size", "model.channels"],
            widths.iter().max().copied().unwrap_or_default(),
            "1 in one size, because nobody would train the rest of the model; for a smaller one set `model.channels`",
        );
    }
    if smallest.is_whole() {
        return None;
    }
    // Whether a model of the program's own is a chain shows when it is made.
    let has_slices = is_chain(&recipe.model.kind) || matches!(recipe.model.kind, ModelKind::Own(_));
    if !has_slices {
        return conflict_of(
            &["size.width", "size", "model.kind"],
            smallest,
            format!(
                "1, because {} is no chain of layers with channels that a smaller client could do without; those are \
                 2nn, mcmahan-cnn, textbook-cnn, the lenets, simple-cnn, mlp and the vggs",
                recipe.model.kind
            ),
        );
    }
    if recipe.pruning.is_on() {
        return conflict_of(
            &["size.width", "size", "pruning.density", "pruning.parameters", "pruning.pattern"],
            smallest,
            format!(
                "1, because `pruning` is on ({}) and takes weights from under clients that have only a part of them; \
                 leave out either",
                if recipe.pruning.pattern == Pattern::Channels { "channels" } else { "weights" }
            ),
        );
    }
    if recipe.common.is_on() {
        return conflict_of(
            &["size.width", "size", "common.coordinates"],
            smallest,
            "1, because `common.coordinates` is not \"own\": smaller clients have only some of the coordinates that all \
             would send",
        );
    }
    let word = recipe.downlink.quantizer.word();
    if recipe.downlink.quantizer().is_whole() {
        return conflict_of(
            &["downlink.quantizer", "size.width", "size"],
            quoted(word),
            "f32, f16, int8 or ternary, because of a whole vector smaller clients could not be sent their part",
        );
    }
    None
}

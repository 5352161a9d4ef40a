//! What a recipe must fulfil beyond the form of each key: the rules that tie keys together.

mod model;
mod size;

use super::parse::Problem;
use super::{
    Augment, Distillation, Importance, LinkConfig, ModelKind, OptimizerKind, Partition, Pattern, QuantizerKind, Recipe,
    Rewind, Schedule,
};
use dunlin_codec::{Bias, Quantizer};
use std::collections::BTreeSet;
use std::fmt::Display;

/// A rule that a recipe breaks.
pub(super) struct Conflict {
    /// What is wrong, told of the key that would usually be changed.
    pub(super) problem: Problem,
    /// The keys whose values took part, the one at fault first.
    pub(super) keys: &'static [&'static str],
}

/// The first rule that ties keys together and is broken.
///
/// Each key by itself is taken to be of its [`Form`](super::Form).
pub(super) fn conflict(recipe: &Recipe) -> Option<Conflict> {
    data(recipe)
        .or_else(|| model::steps(recipe))
        .or_else(|| training(recipe))
        .or_else(|| rounds(recipe))
        .or_else(|| links(recipe))
        .or_else(|| pruning(recipe))
        .or_else(|| distillation(recipe))
        .or_else(|| budgets(recipe))
        .or_else(|| classes(recipe))
        .or_else(|| size::sizes(recipe))
}

fn data(recipe: &Recipe) -> Option<Conflict> {
    let data = &recipe.data;
    if data.source == "none" && recipe.model.kind != ModelKind::Trivial {
        return conflict_of(
            &["data.source", "model.kind"],
            quoted(&data.source),
            "a data set, because only a trivial `model.kind` trains without one",
        );
    }
    let form = data.source.split(':').next().unwrap_or_default();
    if data.partition == Partition::Key && data.key_file.is_empty() && !WITH_NATURAL_KEY.contains(&form) {
        return conflict_of(
            &["data.key_file", "data.partition", "data.source"],
            quoted(&data.key_file),
            format!("the path of a file, because `data.partition` is \"key\" and {form} says of no row whose it is"),
        );
    }
    if recipe.training.augment != Augment::None && WITHOUT_IMAGES.contains(&form) {
        return conflict_of(
            &["training.augment", "data.source"],
            quoted(recipe.training.augment.name()),
            format!("\"none\", because {form} holds no images"),
        );
    }
    None
}

/// Sources, by name or form, whose rows may say to whom they belong.
const WITH_NATURAL_KEY: [&str; 7] = ["penguins", "shakespeare", "heart", "sentiment", "text", "npz", "safetensors"];

/// Sources, by name or form, whose rows are never images.
const WITHOUT_IMAGES: [&str; 8] =
    ["penguins", "shakespeare", "heart", "spoken-digits", "sentiment", "csv", "text", "none"];

fn training(recipe: &Recipe) -> Option<Conflict> {
    let training = &recipe.training;
    if training.nesterov && (training.optimizer != OptimizerKind::Sgd || training.momentum == 0.0) {
        return conflict_of(
            &["training.nesterov", "training.momentum", "training.optimizer"],
            training.nesterov,
            "false, unless `training.optimizer` is \"sgd\" and `training.momentum` above 0",
        );
    }
    None
}

fn rounds(recipe: &Recipe) -> Option<Conflict> {
    let (rounds, clients) = (&recipe.rounds, recipe.data.clients);
    if rounds.cohort > clients {
        return conflict_of(
            &["rounds.cohort", "data.clients"],
            rounds.cohort,
            format!("at most `data.clients`, which is {clients}"),
        );
    }
    if recipe.cohort_size() > clients {
        return conflict_of(
            &["rounds.over_selection", "rounds.cohort", "data.clients"],
            rounds.over_selection,
            format!(
                "at most {}, because `rounds.cohort` is {} and `data.clients` is {clients}",
                f64::from(clients) / f64::from(rounds.cohort),
                rounds.cohort,
            ),
        );
    }
    if rounds.min_clients > clients {
        return conflict_of(
            &["rounds.min_clients", "data.clients"],
            rounds.min_clients,
            format!("at most `data.clients`, which is {clients}"),
        );
    }
    if recipe.min_clients() > recipe.limits.max_clients {
        return conflict_of(
            &["limits.max_clients", "rounds.min_clients", "data.clients"],
            recipe.limits.max_clients,
            format!("at least {}, the number of clients that the first round waits for", recipe.min_clients()),
        );
    }
    if rounds.target_required && rounds.target_accuracy == 0.0 {
        return conflict_of(
            &["rounds.target_accuracy", "rounds.target_required"],
            rounds.target_accuracy,
            "above 0, because `rounds.target_required` is true",
        );
    }
    None
}

fn links(recipe: &Recipe) -> Option<Conflict> {
    link((&recipe.uplink, &UPLINK), recipe.common.is_on())
        .or_else(|| link((&recipe.downlink, &DOWNLINK), false))
        .or_else(|| common(recipe))
}

fn common(recipe: &Recipe) -> Option<Conflict> {
    let (uplink, limits) = (&recipe.uplink, &recipe.limits);
    if uplink.quantizer == QuantizerKind::Common && uplink.clip > limits.max_update_abs.into() {
        return conflict_of(
            &["uplink.clip", "limits.max_update_abs"],
            uplink.clip,
            format!("at most `limits.max_update_abs`, which is {}", limits.max_update_abs),
        );
    }
    for (value, keys) in [
        (limits.update_bytes, &["limits.update_bytes", "common.coordinates"]),
        (limits.run_bytes, &["limits.run_bytes", "common.coordinates"]),
        (limits.client_bytes, &["limits.client_bytes", "common.coordinates"]),
    ] {
        if value > 0 && recipe.common.is_on() {
            let right =
                "0, because `common.coordinates` is not \"own\": how many there are is the same for all clients";
            return conflict_of(keys, value, right);
        }
    }
    None
}

/// With `is_part`, vectors are those of coordinates that were chosen before.
fn link((link, keys): (&LinkConfig, &LinkKeys), is_part: bool) -> Option<Conflict> {
    let LinkKeys { name, .. } = keys;
    if link.warmup_rounds > 0 && link.warmup_density < link.density {
        return conflict_of(
            keys.warmup,
            link.warmup_density,
            format!("at least `{name}.density`, which is {}", link.density),
        );
    }
    if let Err(entry) = link.importance() {
        let right =
            "how names of tensors begin, = and a factor from 0.001 to 1000, such as \"fc3=4\", with commas between";
        return conflict_of(keys.importance, quoted(entry), right);
    }
    let (quantizer, word) = (link.quantizer(), link.quantizer.word());
    if !link.importance.is_empty() && (quantizer.is_whole() || is_part) {
        let right = "\"\", because coordinates are not chosen by magnitude here; leave out either";
        return conflict_of(keys.importance, quoted(&link.importance), right);
    }
    let is_fitted = matches!(quantizer, Quantizer::Rotated { .. } | Quantizer::Eden { .. } | Quantizer::Common { .. });
    if quantizer.is_whole() && link.density < 1.0 && !is_part {
        return conflict_of(
            keys.density,
            link.density,
            format!("1, because `{name}.quantizer` is \"{word}\", which sends every coordinate"),
        );
    }
    if quantizer.is_whole() && link.warmup_rounds > 0 && !is_part {
        return conflict_of(
            keys.warmup_rounds,
            link.warmup_rounds,
            format!("0, because `{name}.quantizer` is \"{word}\", which sends every coordinate in every round"),
        );
    }
    if let Some((least, most)) = link.quantizer.whole_bits()
        && (link.bits.fract() != 0.0 || link.bits < least.into() || link.bits > most.into())
    {
        return conflict_of(
            keys.bits,
            link.bits,
            format!("a whole number from {least} to {most}, because `{name}.quantizer` is \"{word}\""),
        );
    }
    if quantizer.bias() == Bias::Unbiased && link.feedback > 0.0 {
        let other =
            if is_fitted { format!("; with feedback `{name}.fit` must be \"least-error\"") } else { String::new() };
        return conflict_of(
            keys.feedback,
            link.feedback,
            format!("0, because \"{word}\" is unbiased, and errors that are tried again would grow{other}"),
        );
    }
    // The downlink without feedback loses most of every step whatever the quantizer is, and is there for comparison.
    if quantizer.is_whole() && quantizer.bias() == Bias::Biased && link.feedback == 0.0 && *name == "uplink" {
        let other = if is_fitted { "; without feedback `uplink.fit` must be \"unbiased\"" } else { "" };
        return conflict_of(
            keys.feedback,
            link.feedback,
            format!("above 0, because \"{word}\" is biased, and its errors would add up{other}"),
        );
    }
    None
}

fn pruning(recipe: &Recipe) -> Option<Conflict> {
    let pruning = &recipe.pruning;
    if !pruning.is_on() {
        return None;
    }
    if pruning.density < 1.0 && pruning.parameters > 0 {
        return conflict_of(
            &["pruning.parameters", "pruning.density"],
            pruning.parameters,
            format!("0, or `pruning.density` 1, because it is {} and both say how much is left", pruning.density),
        );
    }
    if pruning.last_round() > recipe.rounds.count {
        return conflict_of(
            &["pruning.steps", "pruning.every", "pruning.first_round", "rounds.count"],
            pruning.steps,
            format!(
                "fewer, or closer together: the last step would come with round {} of `rounds.count` {}",
                pruning.last_round(),
                recipe.rounds.count,
            ),
        );
    }
    let is_by_threshold = pruning.schedule == Schedule::Threshold;
    if is_by_threshold != (pruning.threshold > 0.0) {
        return conflict_of(
            &["pruning.threshold", "pruning.schedule"],
            pruning.threshold,
            if is_by_threshold {
                "above 0, because `pruning.schedule` is \"threshold\""
            } else {
                "0, because `pruning.schedule` is not \"threshold\""
            },
        );
    }
    if is_by_threshold && pruning.importance != Importance::Magnitude {
        return conflict_of(
            &["pruning.importance", "pruning.schedule"],
            toml::Value::try_from(pruning.importance).unwrap_or_else(|_| "another".into()),
            "\"magnitude\", because that is what `pruning.schedule` \"threshold\" looks at",
        );
    }
    if pruning.pattern != Pattern::Unstructured && (is_by_threshold || pruning.regrow > 0.0) {
        return conflict_of(
            &["pruning.pattern", "pruning.schedule", "pruning.regrow"],
            quoted(&pruning.pattern.to_string()),
            "\"unstructured\", because neither a threshold nor regrowth looks at more than single weights",
        );
    }
    if let Some(conflict) = channels(recipe) {
        return Some(conflict);
    }
    if pruning.regrow > 0.0 && pruning.importance == Importance::Votes {
        return conflict_of(
            &["pruning.regrow", "pruning.importance"],
            pruning.regrow,
            "0, because clients that vote tell nothing of their gradients",
        );
    }
    if pruning.rewind != Rewind::None && pruning.rewind_round >= pruning.first_round {
        return conflict_of(
            &["pruning.rewind_round", "pruning.first_round"],
            pruning.rewind_round,
            format!("below `pruning.first_round`, which is {}", pruning.first_round),
        );
    }
    None
}

/// What whole filters and units need.
fn channels(recipe: &Recipe) -> Option<Conflict> {
    let pruning = &recipe.pruning;
    let is_residual = matches!(recipe.model.kind, ModelKind::ResNet8 | ModelKind::ResNet20);
    let is_chain = is_chain(&recipe.model.kind);
    let is_by_channels = pruning.pattern == Pattern::Channels;
    if is_by_channels && !is_chain && !is_residual {
        return conflict_of(
            &["pruning.pattern", "model.kind"],
            quoted("channels"),
            format!("another, because {} has no layers that may lose filters or units", recipe.model.kind),
        );
    }
    if pruning.importance == Importance::Scale && !(is_by_channels && is_residual) {
        return conflict_of(
            &["pruning.importance", "pruning.pattern", "model.kind"],
            quoted("scale"),
            "another, because only with `pruning.pattern` \"channels\" and resnet8 or resnet20 has what is pruned a norm",
        );
    }
    if is_by_channels && is_residual && recipe.distillation.kind != Distillation::None {
        return conflict_of(
            &["distillation.kind", "pruning.pattern", "model.kind"],
            quoted("ensemble"),
            format!(
                "\"none\", because {} with fewer channels in its norms cannot be taught by whole models",
                recipe.model.kind
            ),
        );
    }
    None
}

/// Whether a model is a chain of layers of which some are hidden.
fn is_chain(kind: &ModelKind) -> bool {
    matches!(
        kind,
        ModelKind::TwoNn
            | ModelKind::McmahanCnn
            | ModelKind::TextbookCnn
            | ModelKind::Lenet300
            | ModelKind::Lenet5
            | ModelKind::SimpleCnn
            | ModelKind::Mlp
            | ModelKind::Vgg9
            | ModelKind::Vgg11s
    )
}

fn distillation(recipe: &Recipe) -> Option<Conflict> {
    let config = &recipe.distillation;
    if !config.student.is_empty() {
        let student = config.student_model().map(|student| student.kind);
        if student.is_none_or(|kind| kind == ModelKind::Trivial) || recipe.model.kind == ModelKind::Trivial {
            return conflict_of(
                &["distillation.student", "model.kind"],
                quoted(&config.student),
                "empty, or an architecture that `model.kind` may be and that says something, such as \"2nn\"",
            );
        }
    } else if config.kind == Distillation::None {
        return None;
    }
    if config.overlap > 0.0 && recipe.pruning.rewind != Rewind::None {
        return conflict_of(
            &["distillation.overlap", "pruning.rewind"],
            config.overlap,
            "0, because weights go back to what they were, and what was learned from them meanwhile is of no use",
        );
    }
    if config.source == "server" && recipe.data.server_share == 0.0 {
        return conflict_of(
            &["data.server_share", "distillation.source", "distillation.kind"],
            recipe.data.server_share,
            "above 0, because `distillation.source` is \"server\" and the server would have no examples",
        );
    }
    if config.source == "noise" && config.examples == 0 {
        return conflict_of(
            &["distillation.examples", "distillation.source"],
            config.examples,
            "above 0, because there is no end to noise",
        );
    }
    if config.source == "noise" && config.labels > 0.0 {
        return conflict_of(
            &["distillation.labels", "distillation.source"],
            config.labels,
            "0, because noise has no labels",
        );
    }
    if recipe.model.kind == ModelKind::Trivial && config.is_on() {
        return conflict_of(
            &["distillation.kind", "model.kind"],
            quoted("ensemble"),
            "\"none\", because a trivial `model.kind` says nothing",
        );
    }
    None
}

/// The shortest frame that is worth a round trip: header, checksum, and a few coordinates.
pub(super) const LEAST_FRAME_BYTES: u64 = 64;

fn budgets(recipe: &Recipe) -> Option<Conflict> {
    let limits = &recipe.limits;
    let word = recipe.uplink.quantizer.word();
    let is_fixed = !recipe.uplink.quantizer().fits_lengths();
    for (value, keys, updates) in [
        (limits.update_bytes, &["limits.update_bytes", "uplink.quantizer"], 1),
        (
            limits.run_bytes,
            &["limits.run_bytes", "rounds.count"],
            recipe.rounds.count.saturating_mul(recipe.cohort_size().into()),
        ),
        (limits.client_bytes, &["limits.client_bytes", "rounds.count"], recipe.rounds.count),
    ] {
        if value == 0 {
            continue;
        }
        if is_fixed {
            return conflict_of(
                keys,
                value,
                format!("0, because frames of `uplink.quantizer` \"{word}\" have one length"),
            );
        }
        let least = LEAST_FRAME_BYTES.saturating_mul(updates);
        if value < least {
            return conflict_of(
                keys,
                value,
                format!("0 or at least {least}, which is {LEAST_FRAME_BYTES} bytes for each of {updates} update(s)"),
            );
        }
    }
    let pruning = &recipe.pruning;
    let asks = pruning.is_on() && (pruning.importance != Importance::Magnitude || pruning.regrow > 0.0);
    let bounds: [(u64, &[&str]); 2] = [
        (limits.run_bytes, &["limits.run_bytes", "pruning.importance", "pruning.regrow"]),
        (limits.client_bytes, &["limits.client_bytes", "pruning.importance", "pruning.regrow"]),
    ];
    if let Some((value, keys)) = bounds.into_iter().find(|(value, _)| asks && *value > 0) {
        let why = "0, because what `pruning.importance` or `pruning.regrow` asks clients for has a length of its own";
        return conflict_of(keys, value, why);
    }
    None
}

/// The keys of one direction that take part in a rule, the one at fault first.
struct LinkKeys {
    name: &'static str,
    warmup: &'static [&'static str],
    warmup_rounds: &'static [&'static str],
    density: &'static [&'static str],
    bits: &'static [&'static str],
    feedback: &'static [&'static str],
    importance: &'static [&'static str],
}

const UPLINK: LinkKeys = LinkKeys {
    name: "uplink",
    warmup: &["uplink.warmup_density", "uplink.density", "uplink.warmup_rounds"],
    warmup_rounds: &["uplink.warmup_rounds", "uplink.quantizer"],
    density: &["uplink.density", "uplink.quantizer"],
    bits: &["uplink.bits", "uplink.quantizer"],
    feedback: &["uplink.feedback", "uplink.fit", "uplink.quantizer"],
    importance: &["uplink.importance", "uplink.quantizer", "common.coordinates"],
};

const DOWNLINK: LinkKeys = LinkKeys {
    name: "downlink",
    warmup: &["downlink.warmup_density", "downlink.density", "downlink.warmup_rounds"],
    warmup_rounds: &["downlink.warmup_rounds", "downlink.quantizer"],
    density: &["downlink.density", "downlink.quantizer"],
    bits: &["downlink.bits", "downlink.quantizer"],
    feedback: &["downlink.feedback", "downlink.fit", "downlink.quantizer"],
    importance: &["downlink.importance", "downlink.quantizer"],
};

fn classes(recipe: &Recipe) -> Option<Conflict> {
    let mut names = BTreeSet::new();
    let twin = recipe.network.class.iter().find(|class| !names.insert(&class.name))?;
    conflict_of(&["network.class.name", "network.class"], quoted(&twin.name), "different in each class")
}

fn conflict_of(keys: &'static [&'static str], value: impl Display, right: impl Display) -> Option<Conflict> {
    let problem = Problem::Wrong { key: keys[0].to_owned(), value: value.to_string(), right: right.to_string() };
    Some(Conflict { problem, keys })
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

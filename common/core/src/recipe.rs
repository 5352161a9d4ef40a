//! The recipe: one file that describes a federation, whether simulated or run on separate machines.

mod check;
mod common;
mod data;
mod distillation;
mod document;
mod form;
mod keys;
mod limits;
mod link;
mod model;
mod network;
mod parse;
mod pruning;
mod rounds;
mod size;
mod strategy;
mod training;
mod write;

pub use common::{CommonConfig, Coordinates};
pub use data::{DataConfig, Partition};
pub use distillation::{Distillation, DistillationConfig, Logits};
pub use form::Form;
pub use keys::{KEYS, Key};
pub use limits::LimitsConfig;
pub use link::{LinkConfig, QuantizerKind};
pub use model::{Arithmetic, ModelConfig, ModelKind, Steps, UnknownModel, WeightFormat};
pub use network::{ClientClass, NetworkConfig};
pub use parse::{Place, Places, Problem, RecipeError};
pub use pruning::{Importance, Pattern, PruningConfig, Rewind, Schedule, Scope, Statistic, UnknownPattern};
pub use rounds::{Evaluated, RoundsConfig};
pub use size::{BadWidth, SizeConfig, Width};
pub use strategy::{StrategyConfig, StrategyKind};
pub use training::{Augment, OptimizerKind, TrainingConfig};
pub use write::reference;

use dunlin_codec::{Codec, EntropyCoder, Fit, Mask, Quantizer, Rate};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Everything that decides the result of a federation.
///
/// Two parties that hold the same recipe and the same data compute the same model. Every key has a default; the
/// default as a whole is the digits federation that `dunlin simulate` runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// A name for people and for listings.
    pub name: String,
    /// The root of all randomness of the run.
    pub seed: u64,
    /// What is trained.
    pub model: ModelConfig,
    /// What it is trained on, and how the data lies among the clients of a simulation.
    pub data: DataConfig,
    /// How many rounds, who takes part, when a round ends, when the run ends.
    pub rounds: RoundsConfig,
    /// What a client does with its data in a round.
    pub training: TrainingConfig,
    /// What the server does with the mean of the updates.
    pub strategy: StrategyConfig,
    /// How updates travel to the server.
    pub uplink: LinkConfig,
    /// Coordinates that all clients of a round send, in place of each its own.
    pub common: CommonConfig,
    /// How the global model travels to the clients.
    pub downlink: LinkConfig,
    /// How the global model loses weights while it is trained.
    pub pruning: PruningConfig,
    /// How the server makes one model of the clients' models, beyond their mean.
    pub distillation: DistillationConfig,
    /// Bounds on what a client may send.
    pub limits: LimitsConfig,
    /// Sizes of the clients; none means that all have the whole model.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub size: Vec<SizeConfig>,
    /// Links and devices of the clients, for simulated time.
    pub network: NetworkConfig,
}

impl Recipe {
    /// The codec of one direction in a round (1-based), after the warm-up schedule.
    #[must_use]
    pub fn codec(link: &LinkConfig, round: u64) -> Codec {
        let density = if round > link.warmup_rounds || link.warmup_rounds == 0 {
            link.density
        } else {
            let progress = (round - 1) as f64 / link.warmup_rounds as f64;
            link.warmup_density * (link.density / link.warmup_density).powf(progress)
        };
        Codec { density, quantizer: link.quantizer(), coder: link.coder }
    }

    /// How updates of a round (1-based) are encoded: as the uplink says, unless the round asks for a statistic.
    #[must_use]
    pub fn update_codec(&self, round: u64) -> Codec {
        match self.pruning.statistic(round) {
            // Which coordinates there are is settled before: of those, everything is sent.
            None if self.common.is_on() => Codec { density: 1.0, ..Self::codec(&self.uplink, round) },
            None => Self::codec(&self.uplink, round),
            // Errors of many clients cancel, and half a byte keeps the order of what is important.
            Some(Statistic::Gradient) => Codec {
                density: 1.0,
                quantizer: Quantizer::Rotated { rate: Rate::nearest(4.0), fit: Fit::Unbiased },
                coder: EntropyCoder::Auto,
            },
            Some(Statistic::Votes) => Codec { density: 1.0, quantizer: Quantizer::Ternary, coder: EntropyCoder::Auto },
        }
    }

    /// The coordinates that updates of a round (1-based) are about, where `mask` is left of the model.
    #[must_use]
    pub fn update_mask(&self, round: u64, mask: &Arc<Mask>) -> Arc<Mask> {
        match self.pruning.is_of_whole(round) {
            true => Arc::new(Mask::all(Arc::clone(mask.whole()))),
            false => Arc::clone(mask),
        }
    }

    /// Whether the server distills at the end of a round (1-based): not what a step of pruning has asked for.
    #[must_use]
    pub fn is_distilled(&self, round: u64) -> bool {
        self.distillation.is_due(round) && self.pruning.statistic(round).is_none()
    }

    /// Whether the round (1-based) after one that is distilled goes on meanwhile. After the last one there is none.
    #[must_use]
    pub fn is_distilled_beside(&self, round: u64) -> bool {
        self.distillation.overlap > 0.0 && self.is_distilled(round) && round < self.rounds.count
    }

    /// The downlink's density where none is written: the uplink's times the share of the clients in a cohort. A client is
    /// in that share of the rounds and receives a packet for each, so both directions then cost it alike. Below
    /// [`Self::LEAST_BALANCED`], at which little of the model would arrive, it does not fall; where the uplink sends all
    /// coordinates, there is nothing to go by, and it is the default.
    #[must_use]
    pub fn balanced_downlink_density(&self) -> f64 {
        if self.uplink.density >= 1.0 {
            return LinkConfig::default().density;
        }
        let share = f64::from(self.rounds.cohort) / f64::from(self.data.clients.max(1));
        (self.uplink.density * share.min(1.0)).max(Self::LEAST_BALANCED)
    }

    /// The least [`Self::balanced_downlink_density`].
    pub const LEAST_BALANCED: f64 = 0.001;

    /// Clients asked in a round: the cohort and its over-selection.
    #[must_use]
    pub fn cohort_size(&self) -> u32 {
        (f64::from(self.rounds.cohort) * self.rounds.over_selection).ceil() as u32
    }

    /// Fewest updates with which a round may publish.
    #[must_use]
    pub fn quorum(&self) -> u32 {
        ((f64::from(self.rounds.cohort) * self.rounds.quorum).ceil() as u32).max(1)
    }

    /// Clients that must be known before the first cohort is chosen.
    #[must_use]
    pub fn min_clients(&self) -> u32 {
        if self.rounds.min_clients == 0 { self.data.clients } else { self.rounds.min_clients }
    }

    /// The seed from which the model's initial parameters are drawn.
    #[must_use]
    pub fn model_seed(&self) -> crate::Seed {
        crate::Seed::from_u64(self.seed).derive("model")
    }

    /// The seed with which the data are split.
    #[must_use]
    pub fn data_seed(&self) -> crate::Seed {
        crate::Seed::from_u64(self.seed).derive("data")
    }

    /// A digest of every key: two recipes with the same digest describe the same federation.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let json = serde_json::to_vec(self).expect("a recipe holds only numbers, strings and lists");
        blake3::derive_key("dunlin 2026 recipe v1", &json)
    }
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            name: "digits".into(),
            seed: 1,
            model: ModelConfig::default(),
            data: DataConfig::default(),
            rounds: RoundsConfig::default(),
            training: TrainingConfig::default(),
            strategy: StrategyConfig::default(),
            uplink: LinkConfig { density: 0.02, ..LinkConfig::default() },
            common: CommonConfig::default(),
            downlink: LinkConfig { feedback: 1.0, ..LinkConfig::default() },
            pruning: PruningConfig::default(),
            distillation: DistillationConfig::default(),
            limits: LimitsConfig::default(),
            size: Vec::new(),
            network: NetworkConfig::default(),
        }
    }
}

#[cfg(test)]
mod tests;

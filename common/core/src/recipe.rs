//! The recipe: one file that describes a federation, whether simulated or run on separate machines.

mod budget;
mod check;
mod common;
mod distillation;
mod document;
mod form;
mod keys;
mod link;
mod model;
mod parse;
mod pruning;
mod size;
mod write;

pub use common::{CommonConfig, Coordinates};
pub use distillation::{Distillation, DistillationConfig, Logits};
pub use form::Form;
pub use keys::{KEYS, Key};
pub use link::QuantizerKind;
pub use model::{Arithmetic, ModelConfig, ModelKind, Steps, UnknownModel, WeightFormat};
pub use parse::{Place, Places, Problem, RecipeError};
pub use pruning::{Importance, Pattern, PruningConfig, Rewind, Schedule, Scope, Statistic, UnknownPattern};
pub use size::{BadWidth, SizeConfig, Width};
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

/// The data set and its split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataConfig {
    /// A named set (`digits` is embedded, the others are fetched), a form with a path such as `csv:FILE`, or `none` with
    /// a trivial model.
    pub source: String,
    /// Number of clients among which the training set is split.
    pub clients: u32,
    /// How it is split.
    pub partition: Partition,
    /// Concentration of the Dirichlet and the quantity split; small means that clients differ much.
    pub alpha: f64,
    /// Label-sorted shards dealt to each client by the shard split.
    pub shards_per_client: u32,
    /// File with one client number per training row, for the split by key; empty for the source's own natural key.
    pub key_file: String,
    /// Column of a CSV file that holds the label.
    pub label: String,
    /// Share of a source without a test set of its own that is held out for the server's evaluation.
    pub test_share: f64,
    /// Share of the training set that no client has but the server, which looks at no label of it.
    pub server_share: f64,
    /// Size of the trivial model, in parameters.
    pub features: u64,
}

/// How a data set is split among clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Partition {
    /// Shuffled, equal parts.
    Iid,
    /// Sorted by label, cut into shards, `shards_per_client` of them each (McMahan et al. 2017).
    Shards,
    /// Each label dealt to the clients in proportions drawn from a Dirichlet distribution (Yurochkin et al. 2019).
    Dirichlet,
    /// Sizes drawn from a Dirichlet distribution, labels alike (Li et al. 2022).
    Quantity,
    /// By the client number that `key_file` gives for each row, or by the source's natural key.
    Key,
}

/// Rounds: participation, closing, ending.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoundsConfig {
    /// Most rounds to run.
    pub count: u64,
    /// Updates that a full round averages.
    pub cohort: u32,
    /// Clients chosen per update wanted; above 1, the slowest are not waited for.
    pub over_selection: f64,
    /// Smallest share of `cohort` whose updates a round may publish with at its deadline.
    pub quorum: f64,
    /// Seconds after which a round closes with what it has, or is abandoned below quorum.
    pub deadline_s: f64,
    /// Seconds without progress after which a chosen client counts as lost.
    pub idle_timeout_s: f64,
    /// Clients that must have checked in before the first cohort is chosen; 0 means `data.clients`.
    pub min_clients: u32,
    /// Evaluate on the server's test set every so many rounds; 0 means only at the end.
    pub evaluate_every: u64,
    /// Which model is evaluated.
    pub evaluate: Evaluated,
    /// Ask clients to evaluate on their own data every so many rounds; 0 means never.
    pub federated_evaluation_every: u64,
    /// Stop when this test accuracy is reached; 0 means never.
    pub target_accuracy: f64,
    /// Whether reaching the target is required: then a run that ends without it ends with an error.
    pub target_required: bool,
    /// Rounds abandoned in a row after which the run gives up.
    pub max_abandoned: u32,
}

/// Which model the server evaluates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Evaluated {
    /// ŵ, which clients hold.
    Broadcast,
    /// w, which nobody else has.
    Server,
}

/// Local training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingConfig {
    /// The local optimizer; its state starts anew in each round.
    pub optimizer: OptimizerKind,
    /// Step size in the first round.
    pub learning_rate: f64,
    /// Factor on the step size per round.
    pub learning_rate_decay: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Whether the momentum of SGD looks ahead.
    pub nesterov: bool,
    /// Weight λ of the penalty λ/2·‖w‖², or of AdamW's decay.
    pub weight_decay: f64,
    /// Weight λ of the penalty λ·‖w‖₁.
    pub l1: f64,
    /// Examples in a batch; 0 means all of them.
    pub batch: u32,
    /// Passes over the client's data in a round.
    pub epochs: u32,
    /// Weight μ of the proximal term μ/2·‖w − ŵ‖² (`FedProx`, Li et al. 2020); 0 turns it off.
    pub proximal: f64,
    /// Largest L2 norm of a batch gradient; 0 means no bound.
    pub clip_norm: f64,
    /// What is done to each image before a step sees it.
    pub augment: Augment,
    /// Tensors that keep their values: names or how they begin, separated by commas.
    pub frozen: String,
}

impl TrainingConfig {
    /// How the names of the tensors that keep their values begin.
    pub fn frozen(&self) -> impl Iterator<Item = &str> {
        self.frozen.split(',').map(str::trim).filter(|name| !name.is_empty())
    }
}

/// Random changes of training images under which their label stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Augment {
    /// Images as they are.
    None,
    /// Mirrored left to right, one in two.
    Flip,
    /// Shifted by up to two pixels in each direction.
    Shift,
    /// Shifted by up to four pixels in each direction, and mirrored (He et al. 2016).
    CropFlip,
}

impl Augment {
    /// The word in recipes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Flip => "flip",
            Self::Shift => "shift",
            Self::CropFlip => "crop-flip",
        }
    }
}

/// A client's optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerKind {
    /// Stochastic gradient descent, with momentum on request.
    Sgd,
    /// Adam (Kingma & Ba 2015) with β₁ = 0.9, β₂ = 0.999, ε = 1e-8.
    Adam,
    /// Adam with weight decay apart from the gradient (Loshchilov & Hutter 2019).
    #[serde(rename = "adamw")]
    AdamW,
}

/// The server's optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StrategyConfig {
    /// The rule that turns the mean update into a step.
    pub kind: StrategyKind,
    /// Step size η of the server; 0 means the kind's own default (1 for averaging, 0.1 for the adaptive kinds).
    pub learning_rate: f64,
    /// Factor on the step size per round.
    pub learning_rate_decay: f64,
    /// Momentum of `FedAvgM`, and β₁ of the adaptive kinds.
    pub momentum: f64,
    /// β₂ of `FedAdam` and `FedYogi`.
    pub beta2: f64,
    /// Degree of adaptivity τ of the adaptive kinds.
    pub tau: f64,
}

/// A server optimizer (Reddi et al. 2021).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StrategyKind {
    /// The mean update as it is.
    FedAvg,
    /// With heavy-ball momentum.
    FedAvgM,
    /// Adagrad on the server.
    FedAdagrad,
    /// Adam on the server.
    FedAdam,
    /// Yogi on the server.
    FedYogi,
}

/// How model changes travel in one direction.
///
/// Its default is the uplink's; the downlink's differs, so a section that is read must have every key, and
/// [`Recipe::from_toml`] fills in the default of the right direction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkConfig {
    /// Share of the coordinates that are sent; 1 sends all.
    pub density: f64,
    /// What becomes of each value that is sent.
    pub quantizer: QuantizerKind,
    /// Bits per coordinate, of the quantizers that can have more or fewer.
    pub bits: f64,
    /// What rotated values are fitted to, and how those on a common grid are rounded.
    pub fit: Fit,
    /// Largest magnitude of a value on a common grid.
    pub clip: f64,
    /// Columns of the thin matrices of low rank.
    pub rank: u8,
    /// What codes the positions and symbols.
    pub coder: EntropyCoder,
    /// Share β of what was left behind that is tried again next time; 0 turns feedback off. The downlink's feedback
    /// is the difference between the server's model and the broadcast one, so there 1 is the only other choice.
    pub feedback: f64,
    /// Rounds over which the density falls geometrically from `warmup_density` to `density`.
    pub warmup_rounds: u64,
    /// Density in the first round of the warm-up.
    pub warmup_density: f64,
    /// Factors on magnitudes when coordinates are chosen: how tensors' names begin, `=` and a factor, separated by
    /// commas. All other tensors count once.
    pub importance: String,
}

/// Bounds on what a client may claim or send.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Most training examples that one update may stand for.
    pub max_examples: u32,
    /// Largest magnitude of one coordinate of an update.
    pub max_update_abs: f32,
    /// Most clients that may be registered.
    pub max_clients: u32,
    /// Packets kept for clients that missed rounds.
    pub packet_ring: u32,
    /// Longest frame of an update, in bytes, which the density is chosen for; 0 for the density of the recipe.
    pub update_bytes: u64,
    /// Bytes of all updates of the run together, shared out among those that are still to come; 0 for no such bound.
    pub run_bytes: u64,
    /// Bytes of all updates of one client in the run, of which it keeps account; 0 for no such bound.
    pub client_bytes: u64,
}

/// The simulated world; a federation of separate machines has a real one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// Kinds of client; none means links and devices that take no time.
    pub class: Vec<ClientClass>,
}

/// One kind of client in a simulation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientClass {
    /// Name for the report.
    pub name: String,
    /// Share of the clients that are of this class, relative to the other classes' shares.
    pub share: f64,
    /// Upload bandwidth in kilobits per second; 0 means infinite.
    pub up_kbps: f64,
    /// Download bandwidth in kilobits per second; 0 means infinite.
    pub down_kbps: f64,
    /// One-way latency in milliseconds.
    pub latency_ms: f64,
    /// Probability that a message is lost and must be sent again.
    pub loss: f64,
    /// Probability that a client leaves in a round before its update is sent.
    pub churn: f64,
    /// Training examples that the device processes per second; 0 means infinitely many.
    pub examples_per_s: f64,
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

    /// Longest frame of an update, in bytes, in a round (1-based) before which updates of `spent` bytes were accepted; 0
    /// when the recipe sets no bound.
    #[must_use]
    pub fn max_update_bytes(&self, round: u64, spent: u64) -> u64 {
        let LimitsConfig { update_bytes, run_bytes, .. } = self.limits;
        if self.pruning.statistic(round).is_some() {
            return 0;
        }
        if run_bytes == 0 {
            return update_bytes;
        }
        // All that are asked in this round may count, and of later ones as many as are wanted.
        let later = self.rounds.count.saturating_sub(round) * u64::from(self.rounds.cohort);
        let to_come = later + u64::from(self.cohort_size());
        // Never nothing: that would be no bound.
        let share = (run_bytes.saturating_sub(spent) / to_come).max(1);
        if update_bytes == 0 { share } else { share.min(update_bytes) }
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

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            source: "digits".into(),
            clients: 20,
            partition: Partition::Dirichlet,
            alpha: 0.5,
            shards_per_client: 2,
            key_file: String::new(),
            label: "label".into(),
            test_share: 0.2,
            server_share: 0.0,
            features: 1_663_370,
        }
    }
}

impl Default for RoundsConfig {
    fn default() -> Self {
        Self {
            count: 80,
            cohort: 10,
            over_selection: 1.0,
            quorum: 0.8,
            deadline_s: 600.0,
            idle_timeout_s: 60.0,
            min_clients: 0,
            evaluate_every: 1,
            evaluate: Evaluated::Broadcast,
            federated_evaluation_every: 0,
            target_accuracy: 0.0,
            target_required: false,
            max_abandoned: 10,
        }
    }
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            optimizer: OptimizerKind::Sgd,
            learning_rate: 0.1,
            learning_rate_decay: 1.0,
            momentum: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            l1: 0.0,
            batch: 10,
            epochs: 5,
            proximal: 0.0,
            clip_norm: 0.0,
            augment: Augment::None,
            frozen: String::new(),
        }
    }
}

impl Default for StrategyConfig {
    fn default() -> Self {
        Self {
            kind: StrategyKind::FedAvg,
            learning_rate: 0.0,
            learning_rate_decay: 1.0,
            momentum: 0.9,
            beta2: 0.99,
            tau: 1e-3,
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_examples: 1_000_000,
            max_update_abs: 16.0,
            max_clients: 100_000,
            packet_ring: 64,
            update_bytes: 0,
            run_bytes: 0,
            client_bytes: 0,
        }
    }
}

impl Default for ClientClass {
    fn default() -> Self {
        Self {
            name: "client".into(),
            share: 1.0,
            up_kbps: 0.0,
            down_kbps: 0.0,
            latency_ms: 0.0,
            loss: 0.0,
            churn: 0.0,
            examples_per_s: 0.0,
        }
    }
}

#[cfg(test)]
mod tests;

//! Local training: the optimizer, its steps, and what is done to images.

use serde::{Deserialize, Serialize};

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

//! Distillation on the server: one model learns what all the clients' models say.

use super::{Augment, ModelConfig, ModelKind};
use serde::{Deserialize, Serialize};

/// How the server makes one model of the clients' models, beyond their mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DistillationConfig {
    /// Whether, and from whom, the global model learns.
    pub kind: Distillation,
    /// The examples on which the server asks.
    pub source: String,
    /// How many of them; 0 for all, which noise does not have.
    pub examples: u64,
    /// What is done to them, where they are images.
    pub augment: Augment,
    /// First round at whose end the server distills.
    pub first_round: u64,
    /// Rounds from one distillation to the next.
    pub every: u64,
    /// How much of what a distillation changes is added a round later, where the next round goes on meanwhile; 0 where it
    /// waits.
    pub overlap: f64,
    /// Passes over the examples.
    pub epochs: u32,
    /// Examples in a batch.
    pub batch: u32,
    /// Step size of Adam.
    pub learning_rate: f64,
    /// Temperature T that softens what is said.
    pub temperature: f64,
    /// How the clients' models are heard.
    pub logits: Logits,
    /// Weight of the examples' own labels, where they have any that count.
    pub labels: f64,
    /// The architecture of a model that learns from the finished one; empty for none.
    pub student: String,
    /// As `model.channels`, of that model.
    pub student_channels: String,
    /// Passes over the examples for it.
    pub student_epochs: u32,
}

/// From whom the global model learns at the end of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Distillation {
    /// Nobody: it is the mean of the clients' models.
    None,
    /// All clients of the round together: it begins as the mean of their models and learns the mean of their logits
    /// (`FedDF`, Lin et al. 2020).
    Ensemble,
}

/// How a model is heard of whose answers the mean is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Logits {
    /// By its logits.
    Plain,
    /// By its logits less the logarithm of how often it gives each answer (Menon et al. 2021, "Long-tail learning via logit
    /// adjustment", <https://arxiv.org/abs/2007.07314>, where the prior is that of the labels, which the server does not
    /// know): a class that a client has not seen is then one that it says nothing about, and not one that it denies.
    Adjusted,
}

impl DistillationConfig {
    /// Whether the server ever distills.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.kind != Distillation::None
    }

    /// The architecture of the model that learns from the finished one, where there is one.
    #[must_use]
    pub fn student_model(&self) -> Option<ModelConfig> {
        let kind: ModelKind = Some(self.student.as_str()).filter(|kind| !kind.is_empty())?.parse().ok()?;
        Some(ModelConfig { channels: self.student_channels.clone(), ..ModelConfig::from(kind) })
    }

    /// How that model learns.
    #[must_use]
    pub fn of_student(&self) -> Self {
        Self { epochs: self.student_epochs, ..self.clone() }
    }

    /// Whether the server distills at the end of a round (from 1).
    #[must_use]
    pub fn is_due(&self, round: u64) -> bool {
        self.is_on() && round.checked_sub(self.first_round).is_some_and(|since| since.is_multiple_of(self.every))
    }
}

impl Default for DistillationConfig {
    fn default() -> Self {
        Self {
            kind: Distillation::None,
            source: "server".into(),
            examples: 0,
            augment: Augment::None,
            first_round: 1,
            every: 1,
            overlap: 0.0,
            epochs: 2,
            batch: 64,
            learning_rate: 0.001,
            temperature: 1.0,
            logits: Logits::Plain,
            labels: 0.0,
            student: String::new(),
            student_channels: String::new(),
            student_epochs: 30,
        }
    }
}

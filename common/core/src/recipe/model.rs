//! Which model is trained.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Which model is trained, and how large it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// The architecture.
    pub kind: ModelKind,
    /// Factor on the channels of a `mobilenet`.
    pub width: f64,
    /// Compound coefficient φ of an `efficientnet`.
    pub scaling: f64,
    /// Outputs of each layer but the last, separated by commas, in place of the architecture's own.
    pub channels: String,
    /// How products are rounded.
    pub arithmetic: Arithmetic,
    /// What the weights that it computes with are rounded to.
    pub weights: WeightFormat,
    /// Where the steps between rounded weights come from; [`Steps::Learned`] needs a format that [has some](WeightFormat::largest_level).
    pub steps: Steps,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            kind: ModelKind::TwoNn,
            width: 1.0,
            scaling: 0.0,
            channels: String::new(),
            arithmetic: Arithmetic::Fast,
            weights: WeightFormat::F32,
            steps: Steps::Fitted,
        }
    }
}

impl From<ModelKind> for ModelConfig {
    fn from(kind: ModelKind) -> Self {
        Self { kind, ..Self::default() }
    }
}

impl From<&ModelKind> for ModelConfig {
    fn from(kind: &ModelKind) -> Self {
        kind.clone().into()
    }
}

impl From<&Self> for ModelConfig {
    fn from(config: &Self) -> Self {
        config.clone()
    }
}

/// How a model's products are rounded, and so whether another processor computes the same bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arithmetic {
    /// With fused multiply-add where the processor has it: one rounding instead of two.
    #[default]
    Fast,
    /// A product and a sum are rounded one after the other, on every processor.
    Portable,
}

/// What the weights are rounded to before a model computes with them, in training as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightFormat {
    /// Nothing.
    #[default]
    F32,
    /// 8 bits and a scale for each output channel.
    Int8,
    /// 4 bits and a scale for each output channel.
    Int4,
    /// A sign or zero, and a scale for each tensor.
    Ternary,
    /// A sign, and a scale for each tensor.
    Binary,
}

impl WeightFormat {
    /// The largest level of weights that are whole multiples of a step; nothing for f32, which is not rounded, and binary,
    /// which has no level 0.
    #[must_use]
    pub const fn largest_level(self) -> Option<u8> {
        match self {
            Self::F32 | Self::Binary => None,
            Self::Int8 => Some(127),
            Self::Int4 => Some(7),
            Self::Ternary => Some(1),
        }
    }

    /// The word for it in recipes.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Ternary => "ternary",
            Self::Binary => "binary",
        }
    }
}

/// Where the steps between rounded weights come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Steps {
    /// From the weights, whenever they are rounded.
    #[default]
    Fitted,
    /// They are parameters, trained with the weights (Esser et al. 2020, <https://arxiv.org/abs/1902.08153>).
    Learned,
}

/// A built-in architecture, or one that the user's program registers with the library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ModelKind {
    /// Multinomial logistic regression.
    Softmax,
    /// Two hidden layers of 200 units (McMahan et al. 2017).
    TwoNn,
    /// Two 5×5 convolutions (32 and 64 channels), each with 2×2 max pooling, and 512 units (McMahan et al. 2017).
    McmahanCnn,
    /// A 3×3 convolution of 32 channels with 2×2 max pooling, as in textbooks.
    TextbookCnn,
    /// Hidden layers of 300 and 100 units (LeCun et al. 1998).
    Lenet300,
    /// Two 5×5 convolutions (20 and 50 channels), each with 2×2 max pooling, and 500 units: LeNet-5 as in Caffe.
    Lenet5,
    /// Two 5×5 convolutions (6 and 16 channels), each with 2×2 max pooling, 120 and 84 units (Li et al. 2022).
    SimpleCnn,
    /// Hidden layers of 32, 16 and 8 units, for tables (Li et al. 2022).
    Mlp,
    /// Six 3×3 convolutions (32 to 256 channels), each second with 2×2 max pooling, and twice 512 units (Wang et al. 2020).
    Vgg9,
    /// Eight 3×3 convolutions (32 to 128 channels), five with 2×2 max pooling, and twice 128 units: the VGG11* of Sattler
    /// et al. 2020.
    Vgg11s,
    /// A ResNet of three stages of one block (He et al. 2016) with group normalization.
    ResNet8,
    /// A ResNet of three stages of three blocks (He et al. 2016) with group normalization.
    ResNet20,
    /// Depthwise-separable convolutions (Howard et al. 2017) for small images, with group normalization.
    MobileNet,
    /// Inverted bottlenecks with squeeze-and-excitation (Tan & Le 2019) for small images, with group normalization.
    EfficientNet,
    /// An embedding of 8, two LSTM layers of 256 units, a linear layer (Reddi et al. 2021).
    CharLstm,
    /// The same with gated recurrent units.
    CharGru,
    /// Two blocks of attention in four heads of 32, with a norm before each part.
    Transformer,
    /// One flat tensor of `data.features` parameters and no real work: for measuring everything but training.
    Trivial,
    /// The architecture of this name that the program has registered.
    Own(String),
}

impl ModelKind {
    /// All that are built in.
    pub const BUILT_IN: [Self; 18] = [
        Self::Softmax,
        Self::TwoNn,
        Self::McmahanCnn,
        Self::TextbookCnn,
        Self::Lenet300,
        Self::Lenet5,
        Self::SimpleCnn,
        Self::Mlp,
        Self::Vgg9,
        Self::Vgg11s,
        Self::ResNet8,
        Self::ResNet20,
        Self::MobileNet,
        Self::EfficientNet,
        Self::CharLstm,
        Self::CharGru,
        Self::Transformer,
        Self::Trivial,
    ];

    /// The word for it in recipes, which for [`Self::Own`] a colon and the name follow.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::TwoNn => "2nn",
            Self::McmahanCnn => "mcmahan-cnn",
            Self::TextbookCnn => "textbook-cnn",
            Self::Lenet300 => "lenet-300-100",
            Self::Lenet5 => "lenet-5",
            Self::SimpleCnn => "simple-cnn",
            Self::Mlp => "mlp",
            Self::Vgg9 => "vgg9",
            Self::Vgg11s => "vgg11s",
            Self::ResNet8 => "resnet8",
            Self::ResNet20 => "resnet20",
            Self::MobileNet => "mobilenet",
            Self::EfficientNet => "efficientnet",
            Self::CharLstm => "char-lstm",
            Self::CharGru => "char-gru",
            Self::Transformer => "transformer",
            Self::Trivial => "trivial",
            Self::Own(_) => "own",
        }
    }
}

impl fmt::Display for ModelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(name) => write!(f, "own:{name}"),
            kind => f.write_str(kind.word()),
        }
    }
}

/// A word that names no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no model; write the word for a built-in one, or own:NAME for one that the program has registered")]
pub struct UnknownModel(String);

impl FromStr for ModelKind {
    type Err = UnknownModel;

    fn from_str(text: &str) -> Result<Self, UnknownModel> {
        if let Some(name) = text.strip_prefix("own:").filter(|name| !name.is_empty()) {
            return Ok(Self::Own(name.to_owned()));
        }
        Self::BUILT_IN.into_iter().find(|kind| kind.word() == text).ok_or_else(|| UnknownModel(text.to_owned()))
    }
}

impl TryFrom<String> for ModelKind {
    type Error = UnknownModel;

    fn try_from(text: String) -> Result<Self, UnknownModel> {
        text.parse()
    }
}

impl From<ModelKind> for String {
    fn from(kind: ModelKind) -> Self {
        kind.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_a_word_of_its_own_that_is_read_back() {
        let own = [ModelKind::Own("mine".into())];
        for kind in ModelKind::BUILT_IN.into_iter().chain(own) {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        for unknown in ["", "own", "own:", "2NN"] {
            assert!(unknown.parse::<ModelKind>().is_err(), "{unknown}");
        }
    }
}

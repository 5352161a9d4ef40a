//! Architectures: for each its tensors, and its forward pass over them in the same order.

mod chain;
mod efficient;
mod mobile;
mod recurrent;
mod residual;
mod transformer;

use super::InputShape;
use super::plan::{Planner, Value};
use crate::Error;
use crate::ops::{Conv2dConfig, Graph, conv_norm, conv2d, linear, linear_relu, silu};
use candle_core::{Result as CandleResult, Tensor};
use chain::Chain;
use dunlin_core::recipe::{ModelConfig, ModelKind};
use dunlin_core::{Seed, TensorSpec};
use efficient::EfficientNet;
use mobile::MobileNet;
use rand::RngCore;
use recurrent::Recurrent;
use residual::Residual;
use std::sync::Arc;
pub(crate) use transformer::HEADS as ATTENTION_HEADS;
use transformer::Transformer;

/// What a model computes, apart from its parameters' values.
///
/// An architecture of your own is ordinary candle code, which may use [`crate::ops`] where they are faster or have the
/// gradient that candle's operation lacks; [`super::register`] makes it known to recipes. What it computes must depend
/// on its arguments alone.
pub trait Architecture: Send + Sync {
    /// Lists the tensors for data of this shape, in order.
    ///
    /// # Errors
    /// When the architecture cannot take such data.
    fn parameters(&self, input: &InputShape, list: &mut Parameters) -> Result<(), Error>;

    /// The logits [batch·targets, classes] of `x` [batch, channels·height·width] with the tensors of
    /// [`Self::parameters`] in order.
    ///
    /// # Errors
    /// When `x` does not have that shape.
    fn forward(
        &self,
        input: &InputShape,
        graph: &mut Graph<'_>,
        x: &Tensor,
        parameters: &[Tensor],
    ) -> CandleResult<Tensor>;

    /// The logits as steps, for exports and for inference with small weights: the same as [`Self::forward`]. Nothing if
    /// they cannot be told so.
    fn plan(&self, _: &InputShape, _: &mut Planner) -> Option<Value> {
        None
    }
}

/// How a tensor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// U(−1/√n, 1/√n) for n inputs of one unit: what `kaiming_uniform_(a=√5)` (He et al. 2015) and torch's layers do.
    Uniform {
        /// Inputs of one unit.
        inputs: usize,
    },
    /// Uniform with mean 0 and this standard deviation σ: U(−√3·σ, √3·σ).
    Spread(f32),
    /// The same value everywhere.
    Constant(f32),
}

impl Init {
    /// Appends `len` values.
    pub(super) fn fill(self, seed: &Seed, len: usize, out: &mut Vec<f32>) {
        let bound = match self {
            Self::Constant(value) => return out.resize(out.len() + len, value),
            Self::Uniform { inputs } => 1.0 / (inputs as f32).sqrt(),
            Self::Spread(deviation) => 3f32.sqrt() * deviation,
        };
        let mut rng = seed.rng();
        out.extend((0..len).map(|_| {
            // 24 bits are what an f32 in [0, 1) can hold evenly.
            let unit = (rng.next_u32() >> 8) as f32 / (1 << 24) as f32;
            (2.0 * unit - 1.0) * bound
        }));
    }
}

/// A list of tensors under construction.
#[derive(Debug, Default)]
pub struct Parameters {
    list: Vec<(TensorSpec, Init)>,
    /// Those that [`crate::ops::linear`] and convolutions of one group multiply by.
    weights: Vec<usize>,
}

impl Parameters {
    /// A tensor, whose name is its own.
    pub fn add(&mut self, name: impl Into<String>, shape: &[usize], init: Init) {
        self.list.push((TensorSpec::new(name, shape), init));
    }

    /// `NAME.weight` [outputs, inputs] and `NAME.bias` \[outputs\].
    pub fn linear(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.weights.push(self.list.len());
        self.add(format!("{name}.weight"), &[outputs, inputs], Init::Uniform { inputs });
        self.bias(name, inputs, outputs);
    }

    /// `NAME.weight` [outputs, channels, kernel, kernel], with the input channels that one output sees.
    pub fn conv(&mut self, name: &str, channels: usize, outputs: usize, kernel: usize) {
        let inputs = channels * kernel * kernel;
        self.weights.push(self.list.len());
        self.add(format!("{name}.weight"), &[outputs, channels, kernel, kernel], Init::Uniform { inputs });
    }

    /// `NAME.weight` [channels, 1, kernel, kernel] of a convolution of each channel by itself.
    pub fn depthwise(&mut self, name: &str, channels: usize, kernel: usize) {
        let init = Init::Uniform { inputs: kernel * kernel };
        self.add(format!("{name}.weight"), &[channels, 1, kernel, kernel], init);
    }

    /// `NAME.weight` [rows, width], a row for each token or place, of mean 0 and this standard deviation.
    pub fn embedding(&mut self, name: &str, rows: usize, width: usize, deviation: f32) {
        self.add(format!("{name}.weight"), &[rows, width], Init::Spread(deviation));
    }

    /// `NAME.bias` \[outputs\] of units with so many inputs.
    pub fn bias(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.add(format!("{name}.bias"), &[outputs], Init::Uniform { inputs });
    }

    /// `NAME.weight` and `NAME.bias` \[channels\] of a norm, which starts as the identity.
    pub fn norm(&mut self, name: &str, channels: usize) {
        self.add(format!("{name}.weight"), &[channels], Init::Constant(1.0));
        self.add(format!("{name}.bias"), &[channels], Init::Constant(0.0));
    }

    /// The tensors, how each starts, and which of them layers multiply by.
    pub(super) fn into_parts(self) -> (Vec<TensorSpec>, Vec<Init>, Vec<usize>) {
        let (specs, init) = self.list.into_iter().unzip();
        (specs, init, self.weights)
    }
}

/// The architecture of a kind that comes with this library.
///
/// # Errors
/// When it has no layers whose channels could be said, or others.
pub(super) fn built_in(config: &ModelConfig) -> Result<Arc<dyn Architecture>, Error> {
    if let Some(chain) = Chain::of(config)? {
        return Ok(Arc::new(chain));
    }
    if let Some(residual) = Residual::of(config)? {
        return Ok(Arc::new(residual));
    }
    if !config.channels.trim().is_empty() {
        let remedy = format!("nothing is right for {}, which has no layers that may have other channels", config.kind);
        return Err(Error::config("model.channels", format!("{:?}", config.channels), remedy));
    }
    Ok(match config.kind {
        ModelKind::MobileNet => Arc::new(MobileNet { width: config.width }),
        ModelKind::EfficientNet => Arc::new(EfficientNet { scaling: config.scaling }),
        ModelKind::CharLstm => Arc::new(Recurrent::Lstm),
        ModelKind::CharGru => Arc::new(Recurrent::Gru),
        ModelKind::Transformer => Arc::new(Transformer),
        _ => Arc::new(Trivial),
    })
}

/// Gives layers the numbers of channels that a recipe says, where it says any.
///
/// # Errors
/// When they are not as many as there are layers, or not multiples of `groups` above 0.
fn resize<'a>(layers: impl Iterator<Item = &'a mut usize>, channels: &str, groups: usize) -> Result<(), Error> {
    if channels.trim().is_empty() {
        return Ok(());
    }
    let mut layers: Vec<&mut usize> = layers.collect();
    let numbers: Vec<usize> = channels.split(',').filter_map(|number| number.trim().parse().ok()).collect();
    let is_right = numbers.len() == layers.len() && channels.split(',').count() == layers.len();
    if !is_right || numbers.iter().any(|&number| number == 0 || !number.is_multiple_of(groups)) {
        let usual: Vec<String> = layers.iter().map(|layer| layer.to_string()).collect();
        let kind = if groups == 1 { "numbers above 0".to_owned() } else { format!("multiples of {groups} above 0") };
        let remedy = format!("{} {kind} are right, such as {}", usual.len(), usual.join(", "));
        return Err(Error::config("model.channels", format!("{channels:?}"), remedy));
    }
    layers.iter_mut().zip(numbers).for_each(|(layer, number)| **layer = number);
    Ok(())
}

/// One flat tensor and no computation.
struct Trivial;

impl Architecture for Trivial {
    fn parameters(&self, input: &InputShape, list: &mut Parameters) -> Result<(), Error> {
        list.add("flat", &[input.width], Init::Constant(0.0));
        Ok(())
    }

    fn forward(&self, _: &InputShape, _: &mut Graph<'_>, _: &Tensor, _: &[Tensor]) -> CandleResult<Tensor> {
        candle_core::bail!("the trivial model computes nothing")
    }
}

/// A forward pass on its way: where operations are recorded, and the parameters that are still to be used.
struct Net<'a, 'g> {
    graph: &'a mut Graph<'g>,
    parameters: std::slice::Iter<'a, Tensor>,
}

impl<'a, 'g> Net<'a, 'g> {
    fn new(graph: &'a mut Graph<'g>, parameters: &'a [Tensor]) -> Self {
        Self { graph, parameters: parameters.iter() }
    }

    fn next(&mut self) -> CandleResult<&'a Tensor> {
        self.parameters.next().ok_or_else(|| candle_core::Error::Msg("the model has more layers than tensors".into()))
    }

    fn linear(&mut self, x: &Tensor) -> CandleResult<Tensor> {
        let (weight, bias) = (self.next()?, self.next()?);
        linear(self.graph, x, weight, bias)
    }

    fn linear_relu(&mut self, x: &Tensor) -> CandleResult<Tensor> {
        let (weight, bias) = (self.next()?, self.next()?);
        linear_relu(self.graph, x, weight, bias)
    }

    fn conv_relu(&mut self, x: &Tensor, padding: usize) -> CandleResult<Tensor> {
        let (weight, bias) = (self.next()?, self.next()?);
        let config = Conv2dConfig { padding: [padding; 2], relu: true, ..Conv2dConfig::default() };
        conv2d(self.graph, x, weight, Some(bias), config)
    }

    fn conv_norm(&mut self, x: &Tensor, padding: usize, stride: usize) -> CandleResult<Tensor> {
        self.configured_conv_norm(x, square(padding, stride, 1))
    }

    fn conv_norm_relu(&mut self, x: &Tensor, padding: usize, stride: usize) -> CandleResult<Tensor> {
        self.configured_conv_norm(x, Conv2dConfig { relu: true, ..square(padding, stride, 1) })
    }

    fn conv_norm_silu(&mut self, x: &Tensor, padding: usize, stride: usize) -> CandleResult<Tensor> {
        let y = self.conv_norm(x, padding, stride)?;
        silu(self.graph, &y)
    }

    /// A convolution with a kernel of its own for each channel.
    fn depthwise_norm_relu(&mut self, x: &Tensor, padding: usize, stride: usize) -> CandleResult<Tensor> {
        self.configured_conv_norm(x, Conv2dConfig { relu: true, ..square(padding, stride, x.dim(3)?) })
    }

    fn depthwise_norm_silu(&mut self, x: &Tensor, padding: usize, stride: usize) -> CandleResult<Tensor> {
        let y = self.configured_conv_norm(x, square(padding, stride, x.dim(3)?))?;
        silu(self.graph, &y)
    }

    fn configured_conv_norm(&mut self, x: &Tensor, config: Conv2dConfig) -> CandleResult<Tensor> {
        let (weight, gamma, beta) = (self.next()?, self.next()?, self.next()?);
        conv_norm(self.graph, x, weight, [gamma, beta], config, GROUPS)
    }
}

fn square(padding: usize, stride: usize, groups: usize) -> Conv2dConfig {
    Conv2dConfig { padding: [padding; 2], stride: [stride; 2], groups, relu: false }
}

/// Groups of every group norm; statistics of batch norm would leak and drift between clients (Hsieh et al. 2020).
pub(crate) const GROUPS: usize = 8;

/// A number of channels of which group norm can make its groups: the nearest multiple, at least one.
fn rounded_to_groups(channels: f64) -> usize {
    ((channels / GROUPS as f64).round() as usize).max(1) * GROUPS
}

//! The architectures: for each its tensors, and its forward pass over them in the same order.

mod recurrent;
mod transformer;

use super::InputShape;
use crate::Error;
use crate::ops::{
    Graph, add_relu, channels_last, conv2d, conv2d_relu, flatten, global_avg_pool, group_norm, group_norm_relu, linear,
    linear_relu, max_pool_2x2,
};
use candle_core::Tensor;
use dunlin_core::recipe::ModelKind;
use dunlin_core::{Seed, TensorSpec};
use rand::RngCore;
use recurrent::Recurrent;
use transformer::Transformer;

/// How a tensor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Init {
    /// U(−1/√n, 1/√n) for n inputs of one unit.
    Uniform { inputs: usize },
    /// The same value everywhere.
    Constant(f32),
    /// Uniform with mean 0 and this standard deviation σ: U(−√3·σ, √3·σ).
    Spread(f32),
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

/// A chain of convolutions, each with bias and ReLU and some with 2×2 max pooling, and of linear layers with ReLU, before
/// the linear layer that gives the logits.
struct Chain {
    /// Width of the convolutions' square kernels, and of the zeros around their inputs.
    kernel: usize,
    padding: usize,
    /// Channels of each convolution, and whether pooling follows.
    convolutions: &'static [(usize, bool)],
    /// Units of each hidden linear layer.
    units: &'static [usize],
}

const fn linear_only(units: &'static [usize]) -> Chain {
    Chain { kernel: 1, padding: 0, convolutions: &[], units }
}

/// What a kind is, unless it is no chain.
fn chain(kind: &ModelKind) -> Option<Chain> {
    Some(match kind {
        ModelKind::Softmax => linear_only(&[]),
        // McMahan et al. 2017, <https://arxiv.org/abs/1602.05629>.
        ModelKind::TwoNn => linear_only(&[200, 200]),
        ModelKind::McmahanCnn => {
            Chain { kernel: 5, padding: 2, convolutions: &[(32, true), (64, true)], units: &[512] }
        }
        // LeCun et al. 1998; the second as in Caffe, which is what the literature on pruning prunes.
        ModelKind::Lenet300 => linear_only(&[300, 100]),
        ModelKind::Lenet5 => Chain { kernel: 5, padding: 0, convolutions: &[(20, true), (50, true)], units: &[500] },
        // Li et al. 2022, <https://arxiv.org/abs/2102.02079>: "simple-cnn" and the network for tables.
        ModelKind::SimpleCnn => {
            Chain { kernel: 5, padding: 0, convolutions: &[(6, true), (16, true)], units: &[120, 84] }
        }
        ModelKind::Mlp => linear_only(&[32, 16, 8]),
        // Wang et al. 2020, <https://arxiv.org/abs/2002.06440>.
        ModelKind::Vgg9 => Chain {
            kernel: 3,
            padding: 1,
            convolutions: &[(32, false), (64, true), (128, false), (128, true), (256, false), (256, true)],
            units: &[512, 512],
        },
        ModelKind::ResNet8
        | ModelKind::ResNet20
        | ModelKind::CharLstm
        | ModelKind::CharGru
        | ModelKind::Transformer
        | ModelKind::Trivial => return None,
    })
}

impl Chain {
    /// Height or width after all convolutions; nothing when there is too little for them.
    fn extent(&self, input: usize) -> Option<usize> {
        let mut extent = input;
        for &(_, is_pooled) in self.convolutions {
            extent = (extent + 2 * self.padding + 1).checked_sub(self.kernel)?;
            extent /= if is_pooled { 2 } else { 1 };
        }
        (extent > 0).then_some(extent)
    }

    fn tensors(&self, kind: &ModelKind, input: &InputShape, list: &mut Tensors) -> Result<(), Error> {
        let (Some(height), Some(width)) = (self.extent(input.height), self.extent(input.width)) else {
            let value = format!("{} for {}×{}", kind.name(), input.height, input.width);
            let remedy = "its convolutions and poolings leave nothing of such images; use softmax, 2nn or resnet8";
            return Err(Error::config("model.kind", value, remedy));
        };
        let mut channels = input.channels;
        for (i, &(outputs, _)) in (1..).zip(self.convolutions) {
            list.conv(&format!("conv{i}"), channels, outputs, self.kernel);
            list.bias(&format!("conv{i}"), channels * self.kernel * self.kernel, outputs);
            channels = outputs;
        }
        let mut inputs = channels * height * width;
        for (i, &outputs) in (1..).zip(self.units) {
            list.linear(&format!("fc{i}"), inputs, outputs);
            inputs = outputs;
        }
        let last = if self.units.is_empty() { "fc".to_owned() } else { format!("fc{}", self.units.len() + 1) };
        list.linear(&last, inputs, input.classes);
        Ok(())
    }

    fn forward(&self, net: &mut Net<'_>, x: &Tensor, image: [usize; 3]) -> candle_core::Result<Tensor> {
        let mut x = x.clone();
        if !self.convolutions.is_empty() {
            x = channels_last(&mut net.graph, &x, image)?;
            for &(_, is_pooled) in self.convolutions {
                x = net.conv_relu(&x, self.padding)?;
                if is_pooled {
                    x = max_pool_2x2(&mut net.graph, &x)?;
                }
            }
            x = flatten(&mut net.graph, &x)?;
        }
        for _ in self.units {
            x = net.linear_relu(&x)?;
        }
        net.linear(&x)
    }
}

/// Channels of the three stages of a CIFAR ResNet (He et al. 2016, <https://arxiv.org/abs/1512.03385>).
const RESNET_CHANNELS: [usize; 3] = [16, 32, 64];
/// Groups of every group norm; statistics of batch norm would leak and drift between clients (Hsieh et al. 2020).
const RESNET_GROUPS: usize = 8;

/// The tensors of an architecture, in order, and how they start.
pub(super) fn tensors(kind: &ModelKind, input: &InputShape) -> Result<Vec<(TensorSpec, Init)>, Error> {
    let InputShape { channels, height, width, classes, .. } = *input;
    if channels == 0 || height == 0 || width == 0 || classes == 0 {
        return Err(Error::config("data.source", format!("{input:?}"), "a model needs data of positive extents"));
    }
    let mut list = Tensors::default();
    if let Some(chain) = chain(kind) {
        chain.tensors(kind, input, &mut list)?;
    } else if let Some(blocks) = resnet_blocks(kind) {
        list.conv("conv", channels, RESNET_CHANNELS[0], 3);
        list.norm("norm", RESNET_CHANNELS[0]);
        let mut inputs = RESNET_CHANNELS[0];
        for (stage, outputs) in (1..).zip(RESNET_CHANNELS) {
            for block in 1..=blocks {
                let name = if blocks == 1 { format!("stage{stage}") } else { format!("stage{stage}.block{block}") };
                list.conv(&format!("{name}.conv1"), inputs, outputs, 3);
                list.norm(&format!("{name}.norm1"), outputs);
                list.conv(&format!("{name}.conv2"), outputs, outputs, 3);
                list.norm(&format!("{name}.norm2"), outputs);
                if inputs != outputs {
                    list.conv(&format!("{name}.shortcut"), inputs, outputs, 1);
                    list.norm(&format!("{name}.shortcut_norm"), outputs);
                }
                inputs = outputs;
            }
        }
        list.linear("fc", inputs, classes);
    } else if let Some(model) = Recurrent::of(kind) {
        model.tensors(kind, input, &mut list)?;
    } else if let Some(model) = Transformer::of(kind) {
        model.tensors(kind, input, &mut list)?;
    } else {
        list.0.push((TensorSpec::new("flat", [width]), Init::Constant(0.0)));
    }
    Ok(list.0)
}

/// Blocks in each of the three stages of a ResNet; nothing for other kinds.
fn resnet_blocks(kind: &ModelKind) -> Option<usize> {
    match kind {
        ModelKind::ResNet8 => Some(1),
        ModelKind::ResNet20 => Some(3),
        _ => None,
    }
}

/// A list of tensors under construction.
#[derive(Default)]
struct Tensors(Vec<(TensorSpec, Init)>);

impl Tensors {
    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.0.push((TensorSpec::new(format!("{name}.weight"), [outputs, inputs]), Init::Uniform { inputs }));
        self.bias(name, inputs, outputs);
    }

    fn conv(&mut self, name: &str, channels: usize, outputs: usize, kernel: usize) {
        let spec = TensorSpec::new(format!("{name}.weight"), [outputs, channels, kernel, kernel]);
        self.0.push((spec, Init::Uniform { inputs: channels * kernel * kernel }));
    }

    fn bias(&mut self, name: &str, inputs: usize, outputs: usize) {
        self.0.push((TensorSpec::new(format!("{name}.bias"), [outputs]), Init::Uniform { inputs }));
    }

    fn norm(&mut self, name: &str, channels: usize) {
        self.0.push((TensorSpec::new(format!("{name}.weight"), [channels]), Init::Constant(1.0)));
        self.0.push((TensorSpec::new(format!("{name}.bias"), [channels]), Init::Constant(0.0)));
    }
}

/// The logits [batch·targets, classes] of `x` [batch, features], with the parameters of [`tensors`] in order.
pub(super) fn forward(
    kind: &ModelKind,
    input: &InputShape,
    graph: Graph<'_>,
    x: &Tensor,
    parameters: &[Tensor],
) -> candle_core::Result<Tensor> {
    let mut net = Net { graph, parameters: parameters.iter() };
    if let Some(model) = Recurrent::of(kind) {
        return model.forward(&mut net, input, x);
    }
    if let Some(model) = Transformer::of(kind) {
        return model.forward(&mut net, input, x);
    }
    let image = [input.channels, input.height, input.width];
    match (chain(kind), resnet_blocks(kind)) {
        (Some(chain), _) => chain.forward(&mut net, x, image),
        (None, Some(blocks)) => {
            let x = channels_last(&mut net.graph, x, image)?;
            resnet(&mut net, &x, blocks)
        }
        (None, None) => candle_core::bail!("the trivial model computes nothing"),
    }
}

fn resnet(net: &mut Net<'_>, x: &Tensor, blocks: usize) -> candle_core::Result<Tensor> {
    let mut x = net.conv_norm_relu(x, 1, 1)?;
    let mut inputs = RESNET_CHANNELS[0];
    for outputs in RESNET_CHANNELS {
        for _ in 0..blocks {
            let widens = inputs != outputs;
            let stride = if widens { 2 } else { 1 };
            let y = net.conv_norm_relu(&x, 1, stride)?;
            let y = net.conv_norm(&y, 1, 1)?;
            let shortcut = if widens { net.conv_norm(&x, 0, stride)? } else { x };
            x = add_relu(&mut net.graph, &y, &shortcut)?;
            inputs = outputs;
        }
    }
    let x = global_avg_pool(&mut net.graph, &x)?;
    net.linear(&x)
}

/// A forward pass on its way: where operations are recorded, and the parameters that are still to be used.
struct Net<'a> {
    graph: Graph<'a>,
    parameters: std::slice::Iter<'a, Tensor>,
}

impl<'a> Net<'a> {
    fn next(&mut self) -> candle_core::Result<&'a Tensor> {
        self.parameters.next().ok_or_else(|| candle_core::Error::Msg("the model has more layers than tensors".into()))
    }

    fn linear(&mut self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (weight, bias) = (self.next()?, self.next()?);
        linear(&mut self.graph, x, weight, bias)
    }

    fn linear_relu(&mut self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (weight, bias) = (self.next()?, self.next()?);
        linear_relu(&mut self.graph, x, weight, bias)
    }

    fn conv_relu(&mut self, x: &Tensor, padding: usize) -> candle_core::Result<Tensor> {
        let (weight, bias) = (self.next()?, self.next()?);
        conv2d_relu(&mut self.graph, x, weight, bias, padding, 1)
    }

    fn conv_norm(&mut self, x: &Tensor, padding: usize, stride: usize) -> candle_core::Result<Tensor> {
        let (weight, gamma, beta) = (self.next()?, self.next()?, self.next()?);
        let y = conv2d(&mut self.graph, x, weight, None, padding, stride)?;
        group_norm(&mut self.graph, &y, gamma, beta, RESNET_GROUPS)
    }

    fn conv_norm_relu(&mut self, x: &Tensor, padding: usize, stride: usize) -> candle_core::Result<Tensor> {
        let (weight, gamma, beta) = (self.next()?, self.next()?, self.next()?);
        let y = conv2d(&mut self.graph, x, weight, None, padding, stride)?;
        group_norm_relu(&mut self.graph, &y, gamma, beta, RESNET_GROUPS)
    }
}

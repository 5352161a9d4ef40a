//! The architectures: for each its tensors, and its forward pass over them in the same order.

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

/// How a tensor starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Init {
    /// U(−1/√n, 1/√n) for n inputs of one unit.
    Uniform { inputs: usize },
    /// The same value everywhere.
    Constant(f32),
}

impl Init {
    /// Appends `len` values.
    pub(super) fn fill(self, seed: &Seed, len: usize, out: &mut Vec<f32>) {
        match self {
            Self::Constant(value) => out.resize(out.len() + len, value),
            Self::Uniform { inputs } => {
                let bound = 1.0 / (inputs as f32).sqrt();
                let mut rng = seed.rng();
                out.extend((0..len).map(|_| {
                    // 24 bits are what an f32 in [0, 1) can hold evenly.
                    let unit = (rng.next_u32() >> 8) as f32 / (1 << 24) as f32;
                    (2.0 * unit - 1.0) * bound
                }));
            }
        }
    }
}

/// Units of each hidden layer of the 2NN (McMahan et al. 2017, <https://arxiv.org/abs/1602.05629>).
const TWO_NN_UNITS: usize = 200;
/// Channels of the two convolutions of the CNN of the same paper, and units of its hidden layer.
const CNN_CHANNELS: [usize; 2] = [32, 64];
const CNN_UNITS: usize = 512;
const CNN_KERNEL: usize = 5;
/// Channels of the three stages of a CIFAR ResNet (He et al. 2016, <https://arxiv.org/abs/1512.03385>).
const RESNET_CHANNELS: [usize; 3] = [16, 32, 64];
/// Groups of every group norm; statistics of batch norm would leak and drift between clients (Hsieh et al. 2020).
const RESNET_GROUPS: usize = 8;

/// The tensors of an architecture, in order, and how they start.
pub(super) fn tensors(kind: &ModelKind, input: &InputShape) -> Result<Vec<(TensorSpec, Init)>, Error> {
    let InputShape { channels, height, width, classes } = *input;
    if channels == 0 || height == 0 || width == 0 || classes == 0 {
        return Err(Error::config("data.source", format!("{input:?}"), "a model needs data of positive extents"));
    }
    let mut list = Tensors::default();
    match kind {
        ModelKind::Softmax => list.linear("fc", input.features(), classes),
        ModelKind::TwoNn => {
            list.linear("fc1", input.features(), TWO_NN_UNITS);
            list.linear("fc2", TWO_NN_UNITS, TWO_NN_UNITS);
            list.linear("fc3", TWO_NN_UNITS, classes);
        }
        ModelKind::McmahanCnn => {
            if height < 4 || width < 4 {
                let remedy = "two 2×2 poolings need images of at least 4×4 pixels; use softmax or 2nn";
                return Err(Error::config("model.kind", format!("mcmahan-cnn for {height}×{width}"), remedy));
            }
            let [first, second] = CNN_CHANNELS;
            list.conv("conv1", channels, first, CNN_KERNEL);
            list.bias("conv1", channels * CNN_KERNEL * CNN_KERNEL, first);
            list.conv("conv2", first, second, CNN_KERNEL);
            list.bias("conv2", first * CNN_KERNEL * CNN_KERNEL, second);
            list.linear("fc1", second * (height / 4) * (width / 4), CNN_UNITS);
            list.linear("fc2", CNN_UNITS, classes);
        }
        ModelKind::ResNet8 => {
            list.conv("conv", channels, RESNET_CHANNELS[0], 3);
            list.norm("norm", RESNET_CHANNELS[0]);
            let mut inputs = RESNET_CHANNELS[0];
            for (stage, outputs) in (1..).zip(RESNET_CHANNELS) {
                list.conv(&format!("stage{stage}.conv1"), inputs, outputs, 3);
                list.norm(&format!("stage{stage}.norm1"), outputs);
                list.conv(&format!("stage{stage}.conv2"), outputs, outputs, 3);
                list.norm(&format!("stage{stage}.norm2"), outputs);
                if inputs != outputs {
                    list.conv(&format!("stage{stage}.shortcut"), inputs, outputs, 1);
                    list.norm(&format!("stage{stage}.shortcut_norm"), outputs);
                }
                inputs = outputs;
            }
            list.linear("fc", inputs, classes);
        }
        ModelKind::Trivial => list.0.push((TensorSpec::new("flat", [width]), Init::Constant(0.0))),
    }
    Ok(list.0)
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

/// The logits [batch, classes] of `x` [batch, features], with the parameters of [`tensors`] in order.
pub(super) fn forward(
    kind: &ModelKind,
    input: &InputShape,
    graph: Graph<'_>,
    x: &Tensor,
    parameters: &[Tensor],
) -> candle_core::Result<Tensor> {
    let mut net = Net { graph, parameters: parameters.iter() };
    let image = [input.channels, input.height, input.width];
    match kind {
        ModelKind::Softmax => net.linear(x),
        ModelKind::TwoNn => two_nn(&mut net, x),
        ModelKind::McmahanCnn => {
            let x = channels_last(&mut net.graph, x, image)?;
            mcmahan_cnn(&mut net, x)
        }
        ModelKind::ResNet8 => {
            let x = channels_last(&mut net.graph, x, image)?;
            resnet8(&mut net, &x)
        }
        ModelKind::Trivial => candle_core::bail!("the trivial model computes nothing"),
    }
}

fn two_nn(net: &mut Net<'_>, x: &Tensor) -> candle_core::Result<Tensor> {
    let x = net.linear_relu(x)?;
    let x = net.linear_relu(&x)?;
    net.linear(&x)
}

fn mcmahan_cnn(net: &mut Net<'_>, mut x: Tensor) -> candle_core::Result<Tensor> {
    for _ in CNN_CHANNELS {
        let y = net.conv_relu(&x)?;
        x = max_pool_2x2(&mut net.graph, &y)?;
    }
    let x = flatten(&mut net.graph, &x)?;
    let x = net.linear_relu(&x)?;
    net.linear(&x)
}

fn resnet8(net: &mut Net<'_>, x: &Tensor) -> candle_core::Result<Tensor> {
    let mut x = net.conv_norm_relu(x, 1, 1)?;
    let mut inputs = RESNET_CHANNELS[0];
    for outputs in RESNET_CHANNELS {
        let widens = inputs != outputs;
        let stride = if widens { 2 } else { 1 };
        let y = net.conv_norm_relu(&x, 1, stride)?;
        let y = net.conv_norm(&y, 1, 1)?;
        let shortcut = if widens { net.conv_norm(&x, 0, stride)? } else { x };
        x = add_relu(&mut net.graph, &y, &shortcut)?;
        inputs = outputs;
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

    fn conv_relu(&mut self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (weight, bias) = (self.next()?, self.next()?);
        conv2d_relu(&mut self.graph, x, weight, bias, CNN_KERNEL / 2, 1)
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

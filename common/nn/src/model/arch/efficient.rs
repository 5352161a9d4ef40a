//! EfficientNet (Tan & Le 2019, <https://arxiv.org/abs/1905.11946>) for small images, with group normalization.

use super::{Architecture, CandleResult, InputShape, Net, Parameters, Planner, Value, rounded_to_groups};
use crate::Error;
use crate::model::Operation;
use crate::ops::{Graph, add, channels_last, global_avg_pool, resize, scale_channels, sigmoid, silu};
use candle_core::Tensor;

/// Inverted bottlenecks with squeeze-and-excitation, in a base network that images of 32×32 suit, and the paper's
/// compound scaling of depth, width and resolution.
pub(super) struct EfficientNet {
    /// The paper's compound coefficient φ.
    pub(super) scaling: f64,
}

/// One stage of the base network: the paper's first four, of which the first stride is left out.
struct Stage {
    /// Channels of a bottleneck's inside over those of its input.
    expansion: usize,
    kernel: usize,
    channels: usize,
    layers: usize,
    stride: usize,
}

const STAGES: [Stage; 4] = [
    Stage { expansion: 1, kernel: 3, channels: 16, layers: 1, stride: 1 },
    Stage { expansion: 6, kernel: 3, channels: 24, layers: 2, stride: 2 },
    Stage { expansion: 6, kernel: 5, channels: 40, layers: 2, stride: 2 },
    Stage { expansion: 6, kernel: 3, channels: 80, layers: 3, stride: 2 },
];

/// Channels of the first convolution and of the last, 1×1.
const FIRST: usize = 16;
const LAST: usize = 160;

/// A block's input channels over the units of its squeeze.
const SQUEEZE: usize = 4;

/// The paper's α, β and γ: factors on depth, width and resolution for each unit of φ.
const DEPTH: f64 = 1.2;
const WIDTH: f64 = 1.1;
const RESOLUTION: f64 = 1.15;

/// One inverted bottleneck.
struct Block {
    name: String,
    inputs: usize,
    inside: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
}

impl EfficientNet {
    fn width(&self, channels: usize) -> usize {
        rounded_to_groups(channels as f64 * libm::pow(WIDTH, self.scaling))
    }

    fn resolution(&self, extent: usize) -> usize {
        ((extent as f64 * libm::pow(RESOLUTION, self.scaling)).round() as usize).max(1)
    }

    fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut inputs = self.width(FIRST);
        for (stage_number, stage) in (1..).zip(&STAGES) {
            let layers = (stage.layers as f64 * libm::pow(DEPTH, self.scaling)).ceil() as usize;
            let outputs = self.width(stage.channels);
            for layer in 1..=layers {
                blocks.push(Block {
                    name: format!("stage{stage_number}.block{layer}"),
                    inputs,
                    inside: inputs * stage.expansion,
                    outputs,
                    kernel: stage.kernel,
                    stride: if layer == 1 { stage.stride } else { 1 },
                });
                inputs = outputs;
            }
        }
        blocks
    }
}

impl Block {
    fn parameters(&self, list: &mut Parameters) {
        let Self { name, inputs, inside, outputs, kernel, .. } = self;
        if inside != inputs {
            list.conv(&format!("{name}.expand"), *inputs, *inside, 1);
            list.norm(&format!("{name}.norm1"), *inside);
        }
        list.depthwise(&format!("{name}.depthwise"), *inside, *kernel);
        list.norm(&format!("{name}.norm2"), *inside);
        let squeezed = (inputs / SQUEEZE).max(1);
        list.linear(&format!("{name}.squeeze"), *inside, squeezed);
        list.linear(&format!("{name}.excite"), squeezed, *inside);
        list.conv(&format!("{name}.project"), *inside, *outputs, 1);
        list.norm(&format!("{name}.norm3"), *outputs);
    }

    fn forward(&self, net: &mut Net<'_, '_>, x: &Tensor) -> CandleResult<Tensor> {
        let mut y = x.clone();
        if self.inside != self.inputs {
            y = net.conv_norm_silu(&y, 0, 1)?;
        }
        y = net.depthwise_norm_silu(&y, self.kernel / 2, self.stride)?;
        let squeezed = global_avg_pool(net.graph, &y)?;
        let squeezed = net.linear(&squeezed)?;
        let squeezed = silu(net.graph, &squeezed)?;
        let excited = net.linear(&squeezed)?;
        let excited = sigmoid(net.graph, &excited)?;
        y = scale_channels(net.graph, &y, &excited)?;
        y = net.conv_norm(&y, 0, 1)?;
        if self.stride == 1 && self.inputs == self.outputs { add(net.graph, &y, x) } else { Ok(y) }
    }

    fn plan(&self, net: &mut Planner, x: Value) -> Value {
        let mut y = x;
        if self.inside != self.inputs {
            y = net.conv_norm(y, 0, 1);
            y = net.silu(y);
        }
        y = net.depthwise_norm(y, self.kernel / 2, self.stride);
        y = net.silu(y);
        let squeezed = net.global_avg_pool(y);
        let squeezed = net.linear(squeezed);
        let squeezed = net.silu(squeezed);
        let excited = net.linear(squeezed);
        let excited = net.elementwise(Operation::Sigmoid, excited);
        y = net.scale_channels(y, excited);
        y = net.conv_norm(y, 0, 1);
        if self.stride == 1 && self.inputs == self.outputs { net.add(y, x) } else { y }
    }
}

impl Architecture for EfficientNet {
    fn parameters(&self, input: &InputShape, list: &mut Parameters) -> Result<(), Error> {
        let first = self.width(FIRST);
        list.conv("conv", input.channels, first, 3);
        list.norm("norm", first);
        let mut channels = first;
        for block in self.blocks() {
            block.parameters(list);
            channels = block.outputs;
        }
        let last = self.width(LAST);
        list.conv("head", channels, last, 1);
        list.norm("head_norm", last);
        list.linear("fc", last, input.classes);
        Ok(())
    }

    fn forward(
        &self,
        input: &InputShape,
        graph: &mut Graph<'_>,
        x: &Tensor,
        parameters: &[Tensor],
    ) -> CandleResult<Tensor> {
        let mut x = channels_last(graph, x, [input.channels, input.height, input.width])?;
        let size = [input.height, input.width].map(|extent| self.resolution(extent));
        if size != [input.height, input.width] {
            x = resize(graph, &x, size)?;
        }
        let mut net = Net::new(graph, parameters);
        x = net.conv_norm_silu(&x, 1, 1)?;
        for block in self.blocks() {
            x = block.forward(&mut net, &x)?;
        }
        x = net.conv_norm_silu(&x, 0, 1)?;
        let x = global_avg_pool(net.graph, &x)?;
        net.linear(&x)
    }

    fn plan(&self, input: &InputShape, net: &mut Planner) -> Option<Value> {
        let mut x = net.image(input);
        let size = [input.height, input.width].map(|extent| self.resolution(extent));
        if size != [input.height, input.width] {
            x = net.resize(x, size);
        }
        x = net.conv_norm(x, 1, 1);
        x = net.silu(x);
        for block in self.blocks() {
            x = block.plan(net, x);
        }
        x = net.conv_norm(x, 0, 1);
        x = net.silu(x);
        let x = net.global_avg_pool(x);
        Some(net.linear(x))
    }
}

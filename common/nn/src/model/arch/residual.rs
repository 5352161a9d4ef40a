//! Residual networks for small images (He et al. 2016, <https://arxiv.org/abs/1512.03385>).

use super::{Architecture, CandleResult, InputShape, Net, Parameters, Planner, Value};
use crate::Error;
use crate::ops::{Graph, add_relu, channels_last, global_avg_pool};
use candle_core::Tensor;

/// Three stages of so many blocks with group normalization; the first convolution of the second and third stage
/// halves height and width, and a 1×1 convolution makes the shortcut fit.
pub(super) struct Residual {
    pub(super) blocks: usize,
}

/// Channels of the three stages.
const CHANNELS: [usize; 3] = [16, 32, 64];

impl Architecture for Residual {
    fn parameters(&self, input: &InputShape, list: &mut Parameters) -> Result<(), Error> {
        list.conv("conv", input.channels, CHANNELS[0], 3);
        list.norm("norm", CHANNELS[0]);
        let mut inputs = CHANNELS[0];
        for (stage, outputs) in (1..).zip(CHANNELS) {
            for block in 1..=self.blocks {
                let name =
                    if self.blocks == 1 { format!("stage{stage}") } else { format!("stage{stage}.block{block}") };
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
        list.linear("fc", inputs, input.classes);
        Ok(())
    }

    fn forward(
        &self,
        input: &InputShape,
        graph: &mut Graph<'_>,
        x: &Tensor,
        parameters: &[Tensor],
    ) -> CandleResult<Tensor> {
        let x = channels_last(graph, x, [input.channels, input.height, input.width])?;
        let mut net = Net::new(graph, parameters);
        let mut x = net.conv_norm_relu(&x, 1, 1)?;
        let mut inputs = CHANNELS[0];
        for outputs in CHANNELS {
            for _ in 0..self.blocks {
                let widens = inputs != outputs;
                let stride = if widens { 2 } else { 1 };
                let y = net.conv_norm_relu(&x, 1, stride)?;
                let y = net.conv_norm(&y, 1, 1)?;
                let shortcut = if widens { net.conv_norm(&x, 0, stride)? } else { x };
                x = add_relu(net.graph, &y, &shortcut)?;
                inputs = outputs;
            }
        }
        let x = global_avg_pool(net.graph, &x)?;
        net.linear(&x)
    }

    fn plan(&self, input: &InputShape, net: &mut Planner) -> Option<Value> {
        let x = net.image(input);
        let x = net.conv_norm(x, 1, 1);
        let mut x = net.relu(x);
        let mut inputs = CHANNELS[0];
        for outputs in CHANNELS {
            for _ in 0..self.blocks {
                let widens = inputs != outputs;
                let stride = if widens { 2 } else { 1 };
                let y = net.conv_norm(x, 1, stride);
                let y = net.relu(y);
                let y = net.conv_norm(y, 1, 1);
                let shortcut = if widens { net.conv_norm(x, 0, stride) } else { x };
                let sum = net.add(y, shortcut);
                x = net.relu(sum);
                inputs = outputs;
            }
        }
        let x = net.global_avg_pool(x);
        Some(net.linear(x))
    }
}

//! MobileNet (Howard et al. 2017, <https://arxiv.org/abs/1704.04861>) for small images, with group normalization.

use super::{Architecture, CandleResult, InputShape, Net, Parameters, Planner, Value};
use crate::Error;
use crate::ops::{Graph, channels_last, global_avg_pool};
use candle_core::Tensor;

/// A 3×3 convolution, then pairs of a depthwise 3×3 and a 1×1 convolution, each with norm and ReLU, and the mean over the
/// image before the linear layer: the paper's network from its second stage to its fourth, since images of 32×32 are as
/// small as what the paper's first stages leave.
pub(super) struct MobileNet {
    /// The paper's width multiplier α.
    pub(super) width: f64,
}

/// Channels of the first convolution.
const FIRST: usize = 32;

/// Outputs and stride of each pair.
const PAIRS: [(usize, usize); 5] = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1)];

impl MobileNet {
    /// Channels after the multiplier, rounded to whole groups.
    fn scaled(&self, channels: usize) -> usize {
        super::rounded_to_groups(channels as f64 * self.width)
    }
}

impl Architecture for MobileNet {
    fn parameters(&self, input: &InputShape, list: &mut Parameters) -> Result<(), Error> {
        let mut channels = self.scaled(FIRST);
        list.conv("conv", input.channels, channels, 3);
        list.norm("norm", channels);
        for (i, (outputs, _)) in (1..).zip(PAIRS) {
            let outputs = self.scaled(outputs);
            list.depthwise(&format!("block{i}.depthwise"), channels, 3);
            list.norm(&format!("block{i}.norm1"), channels);
            list.conv(&format!("block{i}.pointwise"), channels, outputs, 1);
            list.norm(&format!("block{i}.norm2"), outputs);
            channels = outputs;
        }
        list.linear("fc", channels, input.classes);
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
        for (_, stride) in PAIRS {
            x = net.depthwise_norm_relu(&x, 1, stride)?;
            x = net.conv_norm_relu(&x, 0, 1)?;
        }
        let x = global_avg_pool(net.graph, &x)?;
        net.linear(&x)
    }

    fn plan(&self, input: &InputShape, net: &mut Planner) -> Option<Value> {
        let x = net.image(input);
        let x = net.conv_norm(x, 1, 1);
        let mut x = net.relu(x);
        for (_, stride) in PAIRS {
            x = net.depthwise_norm(x, 1, stride);
            x = net.relu(x);
            x = net.conv_norm(x, 0, 1);
            x = net.relu(x);
        }
        let x = net.global_avg_pool(x);
        Some(net.linear(x))
    }
}

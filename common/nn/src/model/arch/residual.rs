//! Residual networks for small images (He et al. 2016, <https://arxiv.org/abs/1512.03385>).

use super::{Architecture, CandleResult, GROUPS, InputShape, Net, Parameters, Planner, Value, resize};
use crate::Error;
use crate::ops::{Graph, add_relu, channels_last, global_avg_pool};
use candle_core::Tensor;
use dunlin_core::recipe::{ModelConfig, ModelKind};

/// Three stages of so many blocks with group normalization; the first convolution of the second and third stage
/// halves height and width, and a 1×1 convolution makes the shortcut fit.
pub(super) struct Residual {
    blocks: usize,
    /// Outputs of the first convolution of each block; those of the second are the stage's, since blocks are added up.
    inner: Vec<usize>,
}

/// Channels of the three stages.
const CHANNELS: [usize; 3] = [16, 32, 64];

impl Residual {
    /// What a model of this configuration is, unless it is no such network.
    ///
    /// # Errors
    /// When the configuration's channels are not those of the blocks' first convolutions.
    pub(super) fn of(config: &ModelConfig) -> Result<Option<Self>, Error> {
        let blocks = match config.kind {
            ModelKind::ResNet8 => 1,
            ModelKind::ResNet20 => 3,
            _ => return Ok(None),
        };
        let mut inner: Vec<usize> = CHANNELS.into_iter().flat_map(|outputs| vec![outputs; blocks]).collect();
        resize(inner.iter_mut(), &config.channels, GROUPS)?;
        Ok(Some(Self { blocks, inner }))
    }
}

impl Architecture for Residual {
    fn parameters(&self, input: &InputShape, list: &mut Parameters) -> Result<(), Error> {
        list.conv("conv", input.channels, CHANNELS[0], 3);
        list.norm("norm", CHANNELS[0]);
        let mut inputs = CHANNELS[0];
        let mut of_blocks = self.inner.iter();
        for (stage, outputs) in (1..).zip(CHANNELS) {
            for block in 1..=self.blocks {
                let name =
                    if self.blocks == 1 { format!("stage{stage}") } else { format!("stage{stage}.block{block}") };
                let inner = of_blocks.next().copied().unwrap_or(outputs);
                list.conv(&format!("{name}.conv1"), inputs, inner, 3);
                list.norm(&format!("{name}.norm1"), inner);
                list.conv(&format!("{name}.conv2"), inner, outputs, 3);
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

//! Chains of layers: everything from logistic regression to VGG.

use super::{Architecture, CandleResult, InputShape, Net, Parameters, Planner, Value, resize};
use crate::Error;
use crate::ops::{Graph, Pool2dConfig, channels_last, flatten, max_pool2d};
use candle_core::Tensor;
use dunlin_core::recipe::{ModelConfig, ModelKind};

/// A chain of convolutions, each with bias and ReLU and some with 2×2 max pooling, and of linear layers with ReLU, before
/// the linear layer that gives the logits.
pub(super) struct Chain {
    /// Width of the convolutions' square kernels, and of the zeros around their inputs.
    kernel: usize,
    padding: usize,
    /// Channels of each convolution, and whether pooling follows.
    convolutions: Vec<(usize, bool)>,
    /// Units of each hidden linear layer.
    units: Vec<usize>,
}

impl Chain {
    /// What a model of this configuration is, unless it is no chain.
    ///
    /// # Errors
    /// When the configuration's channels are not those of the layers.
    pub(super) fn of(config: &ModelConfig) -> Result<Option<Self>, Error> {
        let chain = |kernel: usize, padding: usize, convolutions: &[(usize, bool)], units: &[usize]| Self {
            kernel,
            padding,
            convolutions: convolutions.to_vec(),
            units: units.to_vec(),
        };
        let mut chain = match config.kind {
            ModelKind::Softmax => chain(1, 0, &[], &[]),
            // McMahan et al. 2017, <https://arxiv.org/abs/1602.05629>.
            ModelKind::TwoNn => chain(1, 0, &[], &[200, 200]),
            ModelKind::McmahanCnn => chain(5, 2, &[(32, true), (64, true)], &[512]),
            ModelKind::TextbookCnn => chain(3, 0, &[(32, true)], &[]),
            // LeCun et al. 1998; the second as in Caffe, which is what the literature on pruning prunes.
            ModelKind::Lenet300 => chain(1, 0, &[], &[300, 100]),
            ModelKind::Lenet5 => chain(5, 0, &[(20, true), (50, true)], &[500]),
            // Li et al. 2022, <https://arxiv.org/abs/2102.02079>: "simple-cnn" and the network for tables.
            ModelKind::SimpleCnn => chain(5, 0, &[(6, true), (16, true)], &[120, 84]),
            ModelKind::Mlp => chain(1, 0, &[], &[32, 16, 8]),
            // Wang et al. 2020, <https://arxiv.org/abs/2002.06440>.
            ModelKind::Vgg9 => {
                let convolutions = [(32, false), (64, true), (128, false), (128, true), (256, false), (256, true)];
                chain(3, 1, &convolutions, &[512, 512])
            }
            // Sattler et al. 2020, <https://arxiv.org/abs/1903.02891>: "VGG11*".
            ModelKind::Vgg11s => {
                let deep = [(128, false), (128, true)];
                let convolutions = [vec![(32, true), (64, true)], [deep; 3].concat()].concat();
                chain(3, 1, &convolutions, &[128, 128])
            }
            _ => return Ok(None),
        };
        let outputs = chain.convolutions.iter_mut().map(|(outputs, _)| outputs).chain(&mut chain.units);
        resize(outputs, &config.channels, 1)?;
        Ok(Some(chain))
    }

    /// Height or width after all convolutions; nothing when there is too little for them.
    fn extent(&self, input: usize) -> Option<usize> {
        let mut extent = input;
        for &(_, is_pooled) in &self.convolutions {
            extent = (extent + 2 * self.padding + 1).checked_sub(self.kernel)?;
            extent /= if is_pooled { 2 } else { 1 };
        }
        (extent > 0).then_some(extent)
    }
}

impl Architecture for Chain {
    fn parameters(&self, input: &InputShape, list: &mut Parameters) -> Result<(), Error> {
        let (Some(height), Some(width)) = (self.extent(input.height), self.extent(input.width)) else {
            let (layers, height, width) = (self.convolutions.len(), input.height, input.width);
            let value = format!("{layers} convolutions for {height}×{width}");
            let remedy = "they and their poolings leave nothing of such images; use softmax, 2nn or resnet8";
            return Err(Error::config("model.kind", value, remedy));
        };
        let mut channels = input.channels;
        for (i, &(outputs, _)) in (1..).zip(&self.convolutions) {
            list.conv(&format!("conv{i}"), channels, outputs, self.kernel);
            list.bias(&format!("conv{i}"), channels * self.kernel * self.kernel, outputs);
            channels = outputs;
        }
        let mut inputs = channels * height * width;
        for (i, &outputs) in (1..).zip(&self.units) {
            list.linear(&format!("fc{i}"), inputs, outputs);
            inputs = outputs;
        }
        let last = if self.units.is_empty() { "fc".to_owned() } else { format!("fc{}", self.units.len() + 1) };
        list.linear(&last, inputs, input.classes);
        Ok(())
    }

    fn forward(
        &self,
        input: &InputShape,
        graph: &mut Graph<'_>,
        x: &Tensor,
        parameters: &[Tensor],
    ) -> CandleResult<Tensor> {
        let mut net = Net::new(graph, parameters);
        let mut x = x.clone();
        if !self.convolutions.is_empty() {
            x = channels_last(net.graph, &x, [input.channels, input.height, input.width])?;
            for &(_, is_pooled) in &self.convolutions {
                x = net.conv_relu(&x, self.padding)?;
                if is_pooled {
                    x = max_pool2d(net.graph, &x, Pool2dConfig::square(2))?;
                }
            }
            x = flatten(net.graph, &x)?;
        }
        for _ in &self.units {
            x = net.linear_relu(&x)?;
        }
        net.linear(&x)
    }

    fn plan(&self, input: &InputShape, net: &mut Planner) -> Option<Value> {
        let mut x = net.features();
        if !self.convolutions.is_empty() {
            x = net.image(input);
            for &(_, is_pooled) in &self.convolutions {
                x = net.conv(x, self.padding, 1, 1, true);
                x = net.relu(x);
                if is_pooled {
                    x = net.max_pool(x);
                }
            }
            x = net.flatten(x);
        }
        for _ in &self.units {
            x = net.linear(x);
            x = net.relu(x);
        }
        Some(net.linear(x))
    }
}

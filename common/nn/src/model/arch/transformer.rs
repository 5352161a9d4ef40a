//! A small transformer, which takes any sequence.

use super::recurrent::expect_sequence;
use super::{Architecture, CandleResult, InputShape, Net, Parameters};
use crate::Error;
use crate::ops::{
    Graph, add, add_positions, dropout, embedding, gelu, layer_norm, mean_of_steps, rows_of_steps, self_attention,
};
use candle_core::Tensor;

/// Vaswani et al. 2017 with the norm before each part (Xiong et al. 2020, <https://arxiv.org/abs/2002.04745>): learnt
/// positions are added to the embedded tokens, or to a linear image of the measurements; each block adds attention, then
/// two linear layers with GELU; a last norm and a linear layer give the logits.
///
/// When each step has a label, no step sees a later one and each has logits; otherwise all see each other and the logits
/// are those of their mean.
pub(super) struct Transformer;

const WIDTH: usize = 128;
/// Heads of each attention.
pub(crate) const HEADS: usize = 4;
const BLOCKS: usize = 2;
/// Width of the hidden linear layer.
const HIDDEN: usize = 4 * WIDTH;
/// Share dropped of the embedded input and of what each part adds.
const DROPOUT: f64 = 0.1;
/// Standard deviation of a fresh embedding, as in GPT-2 (Radford et al. 2019).
const EMBEDDING_DEVIATION: f32 = 0.02;

impl Architecture for Transformer {
    fn parameters(&self, input: &InputShape, list: &mut Parameters) -> Result<(), Error> {
        expect_sequence("transformer", input)?;
        if input.vocabulary > 0 {
            list.embedding("embedding", input.vocabulary, WIDTH, EMBEDDING_DEVIATION);
        } else {
            list.linear("embedding", input.width, WIDTH);
        }
        list.embedding("positions", input.height, WIDTH, EMBEDDING_DEVIATION);
        for block in 1..=BLOCKS {
            list.norm(&format!("block{block}.norm1"), WIDTH);
            list.linear(&format!("block{block}.qkv"), WIDTH, 3 * WIDTH);
            list.linear(&format!("block{block}.out"), WIDTH, WIDTH);
            list.norm(&format!("block{block}.norm2"), WIDTH);
            list.linear(&format!("block{block}.fc1"), WIDTH, HIDDEN);
            list.linear(&format!("block{block}.fc2"), HIDDEN, WIDTH);
        }
        list.norm("norm", WIDTH);
        list.linear("fc", WIDTH, input.classes);
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
        let x = if input.vocabulary > 0 {
            let ids = x.reshape(((), input.height))?;
            let table = net.next()?;
            embedding(net.graph, &ids, table)?
        } else {
            net.linear(&x.reshape(((), input.height, input.width))?)?
        };
        let positions = net.next()?;
        let x = add_positions(net.graph, &x, positions)?;
        let mut x = dropout(net.graph, &x, DROPOUT)?;
        let labels_steps = input.targets > 1;
        for _ in 0..BLOCKS {
            let y = net.layer_norm(&x)?;
            let qkv = net.linear(&y)?;
            let y = self_attention(net.graph, &qkv, HEADS, labels_steps)?;
            let y = net.linear(&y)?;
            x = net.add_dropped(&x, &y)?;
            let y = net.layer_norm(&x)?;
            let y = net.linear(&y)?;
            let y = gelu(net.graph, &y)?;
            let y = net.linear(&y)?;
            x = net.add_dropped(&x, &y)?;
        }
        let x = net.layer_norm(&x)?;
        let x = if labels_steps { rows_of_steps(net.graph, &x)? } else { mean_of_steps(net.graph, &x)? };
        net.linear(&x)
    }
}

impl Net<'_, '_> {
    fn layer_norm(&mut self, x: &Tensor) -> CandleResult<Tensor> {
        let (gamma, beta) = (self.next()?, self.next()?);
        layer_norm(self.graph, x, gamma, beta)
    }

    fn add_dropped(&mut self, x: &Tensor, y: &Tensor) -> CandleResult<Tensor> {
        let y = dropout(self.graph, y, DROPOUT)?;
        add(self.graph, x, &y)
    }
}

//! Language models of recurrent layers, which take any sequence.

use super::{Architecture, CandleResult, Init, InputShape, Net, Parameters};
use crate::Error;
use crate::ops::{Graph, embedding, gru, last_step, lstm, rows_of_steps};
use candle_core::Tensor;

/// Two recurrent layers over the embedded tokens, or over the measurements as they are, and a linear layer on each
/// step's output when each step has a label, on the last one's otherwise.
///
/// With the LSTM and 90 characters these are the 820,522 parameters of Reddi et al. 2021,
/// <https://arxiv.org/abs/2003.00295>, table 2, Shakespeare.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Recurrent {
    Lstm,
    Gru,
}

/// Elements of a token's vector.
const EMBEDDING: usize = 8;
const UNITS: usize = 256;
const LAYERS: usize = 2;

impl Architecture for Recurrent {
    fn parameters(&self, input: &InputShape, list: &mut Parameters) -> Result<(), Error> {
        let (name, gates) = match self {
            Self::Lstm => ("lstm", 4),
            Self::Gru => ("gru", 3),
        };
        expect_sequence(name, input)?;
        let mut inputs = input.width;
        if input.vocabulary > 0 {
            // The variance of torch's embedding, which is normal.
            list.embedding("embedding", input.vocabulary, EMBEDDING, 1.0);
            inputs = EMBEDDING;
        }
        // As torch's: U(−1/√units, 1/√units) for everything.
        let init = Init::Uniform { inputs: UNITS };
        for layer in 1..=LAYERS {
            list.add(format!("{name}{layer}.weight"), &[gates * UNITS, inputs + UNITS], init);
            list.add(format!("{name}{layer}.bias"), &[4 * UNITS], init);
            inputs = UNITS;
        }
        list.linear("fc", UNITS, input.classes);
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
        let mut x = if input.vocabulary > 0 {
            let ids = x.reshape(((), input.height))?;
            let table = net.next()?;
            embedding(net.graph, &ids, table)?
        } else {
            x.reshape(((), input.height, input.width))?
        };
        for _ in 0..LAYERS {
            let (weight, bias) = (net.next()?, net.next()?);
            x = match self {
                Self::Lstm => lstm(net.graph, &x, weight, bias)?,
                Self::Gru => gru(net.graph, &x, weight, bias)?,
            };
        }
        x = if input.targets > 1 { rows_of_steps(net.graph, &x)? } else { last_step(net.graph, &x)? };
        net.linear(&x)
    }
}

/// Refuses data that are no sequence.
pub(super) fn expect_sequence(name: &str, input: &InputShape) -> Result<(), Error> {
    let InputShape { channels, height, width, vocabulary, targets, .. } = *input;
    let problem = if channels != 1 || height <= 1 {
        "it is for sequences, which have one channel and several steps; use resnet8 for images in colour and mlp for tables"
    } else if vocabulary > 0 && width != 1 {
        "a step of a sequence of tokens is one token"
    } else if targets != 1 && targets != height {
        "a sequence has one label, or one for each step"
    } else {
        return Ok(());
    };
    Err(Error::config("model.kind", format!("{name} for {input:?}"), problem))
}

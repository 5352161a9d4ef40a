//! Language models of recurrent layers, which take any sequence.

use super::{Init, Net, Tensors};
use crate::Error;
use crate::model::InputShape;
use crate::ops::{embedding, gru, last_step, lstm, rows_of_steps};
use candle_core::Tensor;
use dunlin_core::TensorSpec;
use dunlin_core::recipe::ModelKind;

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

impl Recurrent {
    pub(super) const fn of(kind: &ModelKind) -> Option<Self> {
        match kind {
            ModelKind::CharLstm => Some(Self::Lstm),
            ModelKind::CharGru => Some(Self::Gru),
            _ => None,
        }
    }

    pub(super) fn tensors(self, kind: &ModelKind, input: &InputShape, list: &mut Tensors) -> Result<(), Error> {
        expect_sequence(kind, input)?;
        let mut inputs = input.width;
        if input.vocabulary > 0 {
            // The variance of torch's embedding, which is normal.
            list.embedding("embedding", input.vocabulary, EMBEDDING, 1.0);
            inputs = EMBEDDING;
        }
        let (name, gates) = match self {
            Self::Lstm => ("lstm", 4),
            Self::Gru => ("gru", 3),
        };
        // As torch's: U(−1/√units, 1/√units) for everything.
        let init = Init::Uniform { inputs: UNITS };
        for layer in 1..=LAYERS {
            let weight = TensorSpec::new(format!("{name}{layer}.weight"), [gates * UNITS, inputs + UNITS]);
            list.0.push((weight, init));
            list.0.push((TensorSpec::new(format!("{name}{layer}.bias"), [4 * UNITS]), init));
            inputs = UNITS;
        }
        list.linear("fc", UNITS, input.classes);
        Ok(())
    }

    pub(super) fn forward(self, net: &mut Net<'_>, input: &InputShape, x: &Tensor) -> candle_core::Result<Tensor> {
        let mut x = if input.vocabulary > 0 {
            let ids = x.reshape(((), input.height))?;
            let table = net.next()?;
            embedding(&mut net.graph, &ids, table)?
        } else {
            x.reshape(((), input.height, input.width))?
        };
        for _ in 0..LAYERS {
            let (weight, bias) = (net.next()?, net.next()?);
            x = match self {
                Self::Lstm => lstm(&mut net.graph, &x, weight, bias)?,
                Self::Gru => gru(&mut net.graph, &x, weight, bias)?,
            };
        }
        x = if input.targets > 1 { rows_of_steps(&mut net.graph, &x)? } else { last_step(&mut net.graph, &x)? };
        net.linear(&x)
    }
}

/// Refuses data that are no sequence.
pub(super) fn expect_sequence(kind: &ModelKind, input: &InputShape) -> Result<(), Error> {
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
    Err(Error::config("model.kind", format!("{} for {input:?}", kind.name()), problem))
}

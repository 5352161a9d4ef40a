//! One client's training round as a function: from a model and a residual to an encoded update and the next residual.

use crate::trainer::{Progress, Trainer, TrainerError};
use dunlin_codec::{Encoder, Segments, StageBytes, grid};
use dunlin_core::message::{TrainTask, UpdateHeader};
use dunlin_core::{ClientId, Digest, Recipe, Seed};
use half::bf16;

/// What a client left untransmitted, and when.
///
/// In brain floats: half the memory, half the reading and writing. Their error, 2⁻⁹ of a value that is to be tried again
/// anyway, is to either side and far below what the quantizer makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Residual {
    /// The round whose update left it.
    pub round: u64,
    /// One value per parameter.
    pub values: Vec<bf16>,
}

impl Residual {
    /// Rounds finite values, halves to even.
    #[must_use]
    pub fn new(round: u64, values: &[f32]) -> Self {
        let rounded = |value: &f32| {
            let bits = value.to_bits();
            // Without the branch for NaN, which no update has, the loop vectorises.
            bf16::from_bits(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16)
        };
        Self { round, values: values.iter().map(rounded).collect() }
    }
}

/// An update ready to upload, and the residual that it leaves once it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Update {
    /// What the upload announces.
    pub header: UpdateHeader,
    /// The encoded bytes.
    pub frame: Vec<u8>,
    /// What the frame does not carry; absent without error feedback.
    pub residual: Option<Residual>,
    /// Sizes of the stages of encoding.
    pub stages: StageBytes,
}

/// Why there is no update.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// Training failed or was stopped.
    #[error(transparent)]
    Trainer(#[from] TrainerError),
    /// The trainer's result cannot be encoded.
    #[error("the update cannot be encoded: {0}")]
    Codec(#[from] dunlin_codec::Error),
    /// The trainer returned another number of parameters than its layout has.
    #[error("the trainer returned {got} parameters, the model has {expected}")]
    WrongLength {
        /// Parameters of the model.
        expected: usize,
        /// Parameters returned.
        got: usize,
    },
}

/// All that a training round depends on, besides the client's data.
#[derive(Clone, Copy)]
pub struct Assignment<'a> {
    /// Who trains.
    pub client: &'a ClientId,
    /// The round, and how to encode.
    pub task: &'a TrainTask,
    /// The federation's rules.
    pub recipe: &'a Recipe,
    /// The model's tensors.
    pub segments: &'a Segments,
    /// The broadcast model, in integers of the model grid.
    pub base: &'a [i32],
    /// What the client's last update left behind.
    pub residual: Option<&'a Residual>,
}

/// Trains from the broadcast model and encodes u = Δ + βˢ·e, where Δ is the change
/// of the parameters, e the residual and s the rounds since it was left.
///
/// The residual ages with the rounds that the client missed, since it answers to a model that has moved on (error
/// feedback: Seide et al. 2014, Karimireddy et al. 2019; ageing: Sattler et al. 2020 for partial participation).
///
/// # Errors
/// When training fails or its result cannot be encoded.
pub fn train_and_encode(
    assignment: &Assignment<'_>,
    trainer: &mut dyn Trainer,
    encoder: &mut Encoder,
    progress: Progress<'_>,
) -> Result<Update, WorkError> {
    let Assignment { client, task, recipe, segments, base, residual } = *assignment;
    let mut start = vec![0.0; base.len()];
    grid::to_f32(base, &mut start);
    let round = task.round.number;
    let seed = Seed::from_u64(recipe.seed).derive_client(round, client.as_str(), "training");
    let trained = trainer.train(round, seed, &start, progress)?;
    let mut update = trained.params;
    if update.len() != start.len() {
        return Err(WorkError::WrongLength { expected: start.len(), got: update.len() });
    }
    let bound = recipe.limits.max_update_abs;
    let beta = recipe.uplink.feedback;
    match residual.filter(|residual| beta > 0.0 && residual.round < round && residual.values.len() == start.len()) {
        Some(residual) => {
            let factor = beta.powi(i32::try_from(round - residual.round).unwrap_or(i32::MAX)) as f32;
            for ((u, w), e) in update.iter_mut().zip(&start).zip(&residual.values) {
                *u = (*u - w + factor * widened(*e)).clamp(-bound, bound);
            }
        }
        None => {
            for (u, w) in update.iter_mut().zip(&start) {
                *u = (*u - w).clamp(-bound, bound);
            }
        }
    }
    let (encoded, residual) = if beta > 0.0 {
        let encoded = encoder.encode_with_feedback(&task.codec, segments, &mut update)?;
        (encoded, Some(Residual::new(round, &update)))
    } else {
        (encoder.encode(&task.codec, segments, &update)?, None)
    };
    let header = UpdateHeader {
        client: client.clone(),
        round: task.round,
        base: task.base,
        examples: trainer.examples().min(recipe.limits.max_examples),
        loss: trained.loss as f32,
        frame_len: encoded.frame.len() as u64,
        digest: Digest::of(&encoded.frame),
    };
    Ok(Update { header, frame: encoded.frame, residual, stages: encoded.stages })
}

/// A brain float as what it is: the upper half of a float.
fn widened(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_residual_is_rounded_as_the_library_rounds() {
        let values: Vec<f32> = (0..100_000u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761))).collect();
        let values: Vec<f32> = values.into_iter().filter(|value| value.is_finite()).collect();
        let residual = Residual::new(7, &values);
        for (value, rounded) in values.iter().zip(&residual.values) {
            assert_eq!(*rounded, bf16::from_f32(*value), "{value}");
            assert_eq!(widened(*rounded), rounded.to_f32());
        }
    }
}

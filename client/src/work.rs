//! One client's training round as a function: from a model and a residual to an encoded update and the next residual.

mod common;

use crate::trainer::{Progress, Trainer, TrainerError, Work};
use dunlin_codec::{Encoded, Encoder, Mask, MaskedGrid, Rest, Source, StageBytes, change_at, grid};
use dunlin_core::message::{TrainTask, UpdateHeader};
use dunlin_core::recipe::Statistic;
use dunlin_core::{ClientId, Digest, Recipe, Seed};
use dunlin_nn::small::{Pruning, Slice};
use half::bf16;
use std::borrow::Cow;
use std::sync::Arc;

/// What a client left untransmitted, and when.
///
/// In brain floats: half the memory, half the reading and writing. Their error, 2⁻⁹ of a value that is to be tried again
/// anyway, is to either side and far below what the quantizer makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Residual {
    /// The round whose update left it.
    pub round: u64,
    /// The coordinates that the update was about.
    pub mask: Arc<Mask>,
    /// One value for each of them.
    pub values: Vec<bf16>,
}

impl Residual {
    /// The values for what another mask leaves: a coordinate that is gone takes its value along, and one that came back
    /// begins without any.
    #[must_use]
    pub fn within(&self, mask: &Mask) -> Cow<'_, [bf16]> {
        if *self.mask == *mask {
            Cow::Borrowed(&self.values)
        } else {
            Cow::Owned(self.mask.project(mask, &self.values))
        }
    }
}

impl Rest for Residual {
    #[inline(always)]
    fn take(&mut self, start: usize, values: &[f32]) {
        self.values.truncate(start);
        self.values.extend(values.iter().map(|&value| narrowed(value)));
    }

    fn correct(&mut self, places: &[u32], left: &[f32]) {
        change_at(&mut self.values, places.iter().copied(), |value, i| *value = narrowed(left[i]));
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
}

impl WorkError {
    /// The key of the recipe whose value is to blame, where one is.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Trainer(error) => error.key(),
            Self::Codec(_) => None,
        }
    }
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
    /// The part of the model that the client has; nothing for the whole.
    pub slice: Option<&'a Slice>,
    /// The broadcast model, or that part of it.
    pub base: &'a MaskedGrid,
    /// What the client's last update left behind.
    pub residual: Option<&'a Residual>,
    /// What tells the frame from others of the client: [`Digest::of`], unless the frame is neither kept nor leaves the
    /// process.
    pub digest: fn(&[u8]) -> Digest,
}

impl Assignment<'_> {
    /// What the client has of the whole model.
    fn left(&self) -> &Mask {
        self.slice.map_or(&**self.base.mask(), Slice::mask)
    }
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
    let Assignment { task, recipe, base, residual, .. } = *assignment;
    if let Some(statistic) = recipe.pruning.statistic(task.round.number) {
        return observe_and_encode(assignment, statistic, trainer, encoder, progress);
    }
    let mask = base.mask();
    let mut params = Slice::whole_floats(assignment.slice, base);
    let round = task.round.number;
    let loss = trainer.train(&work_of(assignment), &mut params, progress)?;
    assignment.left().gather(&mut params);
    let beta = recipe.uplink.feedback;
    let is_of_use = |residual: &&Residual| {
        (recipe.pruning.residuals_from(round)..round).contains(&residual.round) && residual.mask.whole() == mask.whole()
    };
    let held = residual.filter(|residual| beta > 0.0 && is_of_use(residual));
    let factor = |held: &Residual| beta.powi(i32::try_from(round - held.round).unwrap_or(i32::MAX)) as f32;
    let left = held.map(|held| (held.within(mask), factor(held)));
    let change = Change {
        params: &params,
        base: base.values(),
        residual: left.as_ref().map(|(values, factor)| (&**values, *factor)),
        bound: recipe.limits.max_update_abs,
    };
    encoder.seed(quantizer_seed(assignment));
    // A name that fits no tensor is refused by the server before anybody trains.
    let factors = recipe.uplink.factors(trainer.layout()).unwrap_or_default();
    encoder.weigh(if factors.is_empty() { factors } else { mask.of_tensors(&factors) });
    let sent = recipe.sent_mask(round, base);
    let (encoded, residual) = if beta > 0.0 {
        let mut left = Residual { round, mask: Arc::clone(mask), values: Vec::with_capacity(mask.len()) };
        (encode(encoder, task, (mask, &sent), &change, &mut left)?, Some(left))
    } else {
        (encode(encoder, task, (mask, &sent), &change, &mut ())?, None)
    };
    let header = header(assignment, trainer, loss, &encoded.frame);
    Ok(Update { header, frame: encoded.frame, residual, stages: encoded.stages })
}

/// Observes what a step of pruning asks for at the broadcast model, and encodes that in place of an update. Nothing of it
/// is left behind, and the residual that is there stays.
fn observe_and_encode(
    assignment: &Assignment<'_>,
    statistic: Statistic,
    trainer: &mut dyn Trainer,
    encoder: &mut Encoder,
    progress: Progress<'_>,
) -> Result<Update, WorkError> {
    let Assignment { task, recipe, base, .. } = *assignment;
    let round = task.round.number;
    let mut params = base.floats();
    let (mut observed, loss) = match statistic {
        Statistic::Gradient => trainer.gradient(&mut params, progress)?,
        Statistic::Votes => {
            let loss = trainer.train(&work_of(assignment), &mut params, progress)?;
            let config = Pruning::new(&recipe.pruning, trainer.layout());
            let step = recipe.pruning.step(round).expect("a statistic belongs to a step");
            (config.votes(step, base.mask(), &params), loss)
        }
    };
    let mask = recipe.update_mask(round, base.mask());
    mask.gather(&mut observed);
    let bound = recipe.limits.max_update_abs;
    observed.iter_mut().for_each(|value| *value = value.clamp(-bound, bound));
    encoder.seed(quantizer_seed(assignment));
    encoder.weigh(Vec::new());
    let encoded = encoder.encode(&task.codec, mask.segments(), &observed)?;
    let header = header(assignment, trainer, loss, &encoded.frame);
    Ok(Update { header, frame: encoded.frame, residual: None, stages: encoded.stages })
}

fn work_of<'a>(assignment: &'a Assignment<'_>) -> Work<'a> {
    let Assignment { client, task, recipe, .. } = *assignment;
    let round = task.round.number;
    let seed = Seed::from_u64(recipe.seed).derive_client(round, client.as_str(), "training");
    Work { round, seed, mask: assignment.left() }
}

fn quantizer_seed(assignment: &Assignment<'_>) -> u64 {
    let Assignment { client, task, recipe, .. } = *assignment;
    let random = Seed::from_u64(recipe.seed).derive_client(task.round.number, client.as_str(), "quantizer");
    random.word()
}

fn header(assignment: &Assignment<'_>, trainer: &dyn Trainer, loss: f64, frame: &[u8]) -> UpdateHeader {
    let Assignment { client, task, recipe, digest, .. } = *assignment;
    UpdateHeader {
        client: client.clone(),
        round: task.round,
        base: task.base,
        examples: trainer.examples().min(recipe.limits.max_examples),
        loss: loss as f32,
        frame_len: frame.len() as u64,
        digest: digest(frame),
    }
}

/// As the task asks: the coordinates that all send, of the codec's density, or as long as it allows.
fn encode(
    encoder: &mut Encoder,
    task: &TrainTask,
    (mask, sent): (&Mask, &Mask),
    change: &Change<'_>,
    left: &mut impl Rest,
) -> Result<Encoded, dunlin_codec::Error> {
    if mask != sent {
        return common::encode(encoder, &task.codec, (mask, sent), change, left);
    }
    let segments = mask.segments();
    match task.max_bytes {
        0 => encoder.encode_source(&task.codec, segments, change, left),
        bytes => encoder.encode_source_within(&task.codec, bytes, segments, change, left),
    }
}

/// u = Δ + βˢ·e, computed where it is read.
struct Change<'a> {
    /// The parameters that training reached.
    params: &'a [f32],
    /// Those that it started from.
    base: &'a [i32],
    /// e and βˢ.
    residual: Option<(&'a [bf16], f32)>,
    /// Largest magnitude of u.
    bound: f32,
}

impl Source for Change<'_> {
    fn len(&self) -> usize {
        self.params.len()
    }

    #[inline(always)]
    fn block<'a>(&'a self, start: usize, buffer: &'a mut [f32]) -> &'a [f32] {
        let range = start..start + buffer.len();
        let moved = self.params[range.clone()].iter().zip(&self.base[range.clone()]);
        match self.residual {
            Some((residual, factor)) => {
                for ((u, (&w, &n)), &e) in buffer.iter_mut().zip(moved).zip(&residual[range]) {
                    *u = (w - grid::float(n) + factor * widened(e)).clamp(-self.bound, self.bound);
                }
            }
            None => {
                for (u, (&w, &n)) in buffer.iter_mut().zip(moved) {
                    *u = (w - grid::float(n)).clamp(-self.bound, self.bound);
                }
            }
        }
        buffer
    }
}

/// A brain float as what it is: the upper half of a float.
fn widened(value: bf16) -> f32 {
    f32::from_bits(u32::from(value.to_bits()) << 16)
}

/// A finite value rounded, halves to even.
fn narrowed(value: f32) -> bf16 {
    let bits = value.to_bits();
    // Without the branch for NaN, which no update has, loops over it vectorise.
    bf16::from_bits(((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_codec::{Codec, Decoder, EntropyCoder, Limits, Quantizer, Segment, Segments};
    use dunlin_core::{Layout, ModelVersion, RoundId, TensorSpec};
    use dunlin_nn::train::Evaluation;

    /// Leaves the model as it is, so that an update is what was left before.
    struct Idle(Layout);

    impl Trainer for Idle {
        fn layout(&self) -> &Layout {
            &self.0
        }

        fn examples(&self) -> u32 {
            1
        }

        fn train(&mut self, _: &Work<'_>, _: &mut Vec<f32>, _: Progress<'_>) -> Result<f64, TrainerError> {
            Ok(0.0)
        }

        fn evaluate(&mut self, _: &[f32]) -> Result<Evaluation, TrainerError> {
            Ok(Evaluation::default())
        }
    }

    /// What a client sends in round 7 of `base`, with feedback 0.9.
    fn sent(base: &MaskedGrid, residual: &Residual) -> Vec<f32> {
        let layout = Layout::new(vec![TensorSpec::new("w", [4])]).unwrap();
        let codec = Codec { density: 1.0, quantizer: Quantizer::F32, coder: EntropyCoder::Raw };
        let task = TrainTask {
            round: RoundId { term: 1, number: 7 },
            base: ModelVersion(6),
            deadline_ms: 1,
            codec,
            max_bytes: 0,
            asks: 0,
        };
        let sets = ["uplink.density=1", "uplink.quantizer=f32", "uplink.feedback=0.9"].map(str::to_owned);
        let assignment = Assignment {
            client: &ClientId::new("a").unwrap(),
            task: &task,
            recipe: &Recipe::load(None, &sets).unwrap(),
            slice: None,
            base,
            residual: Some(residual),
            digest: Digest::of,
        };
        let mut go_on = |_, _| std::ops::ControlFlow::Continue(());
        let update = train_and_encode(&assignment, &mut Idle(layout), &mut Encoder::new(), &mut go_on).unwrap();
        let segments = base.mask().segments();
        let mut values = vec![0.0; segments.len()];
        Decoder::new().decode(&update.frame, segments, &Limits::for_segments(segments), &mut values).unwrap();
        values
    }

    fn whole() -> MaskedGrid {
        MaskedGrid::whole(Arc::new(Segments::new(vec![Segment { len: 4, row: 4 }]).unwrap()), vec![0; 4]).unwrap()
    }

    fn residual(mask: &Arc<Mask>, round: u64, values: &[f32]) -> Residual {
        Residual { round, mask: Arc::clone(mask), values: values.iter().copied().map(bf16::from_f32).collect() }
    }

    #[test]
    fn what_was_left_counts_less_for_each_round_since() {
        let base = whole();
        for (round, factor) in [(6, 0.9f32), (5, 0.81), (4, 0.729), (1, 0.531_441)] {
            let got = sent(&base, &residual(base.mask(), round, &[1.0, -2.0, 0.0, 0.5]));
            for (got, left) in got.iter().zip([1.0, -2.0, 0.0, 0.5]) {
                assert!((got - factor * left).abs() < 1e-6, "{round}: {got} of {left}");
            }
        }
        assert_eq!(sent(&base, &residual(base.mask(), 7, &[1.0; 4])), [0.0; 4], "not of a round before this one");
    }

    #[test]
    fn what_was_left_goes_with_its_coordinate_when_the_mask_changes() {
        let base = whole();
        let before = Arc::new(Mask::new(Arc::clone(base.mask().whole()), |index| index != 1).unwrap());
        let left = residual(&before, 6, &[1.0, 2.0, 4.0]);
        let got = sent(&base, &left);
        let expected = [0.9, 0.0, 1.8, 3.6];
        assert!(got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 1e-6), "{got:?}");
        let after = Arc::new(Mask::new(Arc::clone(base.mask().whole()), |index| index < 3).unwrap());
        let kept = left.within(&after);
        assert_eq!(kept.iter().map(|value| value.to_f32()).collect::<Vec<_>>(), [1.0, 0.0, 2.0]);
    }

    #[test]
    fn a_residual_is_rounded_as_the_library_rounds() {
        let values: Vec<f32> = (0..100_000u32).map(|i| f32::from_bits(i.wrapping_mul(2_654_435_761))).collect();
        let values: Vec<f32> = values.into_iter().filter(|value| value.is_finite()).collect();
        for value in values {
            let rounded = narrowed(value);
            assert_eq!(rounded, bf16::from_f32(value), "{value}");
            assert_eq!(widened(rounded), rounded.to_f32());
        }
    }
}

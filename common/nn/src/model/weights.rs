//! Weights of few bits in training: the model computes with rounded ones, and what is trained moves behind them.

use super::steps::LearnedSteps;
use super::views;
use crate::Error;
use crate::ops::{vectorised, with_elements};
use crate::small::{best_scale, widest_scale};
use candle_core::{CpuStorage, DType, Device, InplaceOp1, Tensor, Var};
use dunlin_codec::container::Width;
use dunlin_core::Layout;
use dunlin_core::recipe::WeightFormat;

/// The weights that a model computes with, where they are others than those that are trained.
///
/// Gradients are taken at the rounded weights and move the unrounded ones (the straight-through estimator, Bengio et al.
/// 2013, <https://arxiv.org/abs/1308.3432>). Vectors, such as biases, are not rounded, and zero stays zero.
pub(super) struct Rounded {
    format: WeightFormat,
    layout: Layout,
    /// None where scales are fitted.
    steps: Option<LearnedSteps>,
    flat: Var,
    views: Vec<Tensor>,
}

impl Rounded {
    /// None where weights stay as they are. Tensors of the layout behind the first `own` are steps.
    pub(super) fn new(format: WeightFormat, layout: &Layout, own: usize, dtype: DType) -> Result<Option<Self>, Error> {
        if format == WeightFormat::F32 {
            return Ok(None);
        }
        let flat = Var::zeros(layout.len(), dtype, &Device::Cpu)?;
        let views = views(&flat.as_detached_tensor(), layout)?;
        let steps = LearnedSteps::of(format, layout, own);
        Ok(Some(Self { format, layout: layout.clone(), steps, flat, views }))
    }

    /// The tensors of the layout.
    pub(super) fn views(&self) -> &[Tensor] {
        &self.views
    }

    /// All of them, flat.
    pub(super) fn flat(&self) -> &Tensor {
        self.flat.as_tensor()
    }

    /// The steps that are learned.
    pub(super) fn steps(&self) -> Option<&LearnedSteps> {
        self.steps.as_ref()
    }

    /// Rounds a model's parameters, in place.
    pub(super) fn round(&self, params: &mut [f32]) {
        match &self.steps {
            Some(steps) => steps.round(params),
            None => round_weights(self.format, &self.layout, params),
        }
    }

    /// The tensors of the layout, rounded, as candle's operations on what is trained: with the gradients of
    /// [`Self::backward`].
    pub(super) fn straight_through(&self, trained: &Tensor) -> Result<Vec<Tensor>, Error> {
        let mut tensors = views(&(trained + (self.flat().detach() - trained.detach())?)?, &self.layout)?;
        match &self.steps {
            Some(steps) if trained.dtype() == DType::F32 => {
                steps.straight_through(trained, &self.layout, &mut tensors)?;
            }
            _ => {}
        }
        Ok(tensors)
    }

    /// Turns gradients with respect to rounded weights into those with respect to what is trained.
    pub(super) fn backward(
        &self,
        trained: &Tensor,
        is_trained: &[bool],
        tensors: &mut [Option<Tensor>],
    ) -> candle_core::Result<()> {
        match &self.steps {
            Some(steps) if trained.dtype() == DType::F32 => {
                with_elements::<f32, _>(trained, |params| steps.backward(params, |i| is_trained[i], tensors))
            }
            // They go straight through.
            _ => Ok(()),
        }
    }

    /// Rounds what is trained.
    pub(super) fn follow(&self, trained: &Tensor) -> candle_core::Result<()> {
        match trained.dtype() {
            DType::F32 => {
                with_elements::<f32, _>(trained, |values| self.flat.inplace_op1(&Round { values, rounded: self }))
            }
            // Gradient checks look at layers, not at rounding.
            _ => self.flat.set(trained),
        }
    }
}

/// Overwrites a variable with rounded values.
struct Round<'a> {
    values: &'a [f32],
    rounded: &'a Rounded,
}

impl InplaceOp1 for Round<'_> {
    fn name(&self) -> &'static str {
        "round"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, _: &candle_core::Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(values) = storage else { candle_core::bail!("round: weights are rounded in f32") };
        values.copy_from_slice(self.values);
        self.rounded.round(values);
        Ok(())
    }
}

/// Rounds the tensors of two and more axes of a model to weights of a format, in place. Weights that are of the format
/// already stay as they are.
///
/// - 8 and 4 bits: levels of a scale for each output channel, as [`crate::small::quantize`] has them; with 8 bits the
///   largest weight just fits.
/// - ternary: what is above 0.7 of the mean magnitude becomes plus or minus the mean magnitude of those, the rest 0 (Li et
///   al. 2016, <https://arxiv.org/abs/1605.04711>).
/// - binary: plus or minus the mean magnitude of what is not 0 (Rastegari et al. 2016,
///   <https://arxiv.org/abs/1603.05279>).
///
/// The last two have one scale a tensor, so that the tensor has two or three values.
///
/// # Panics
/// When there are not as many parameters as the layout has.
pub fn round_weights(format: WeightFormat, layout: &Layout, params: &mut [f32]) {
    assert_eq!(params.len(), layout.len(), "one value for each parameter");
    for (index, tensor) in layout.tensors().iter().enumerate().filter(|(_, tensor)| tensor.shape.len() >= 2) {
        let values = &mut params[layout.range(index)];
        match format {
            WeightFormat::F32 => {}
            WeightFormat::Int8 => to_levels(values, tensor.shape[0], Width::Eight),
            WeightFormat::Int4 => to_levels(values, tensor.shape[0], Width::Four),
            WeightFormat::Ternary => {
                // Three values of one magnitude are what they would become.
                let threshold = 0.7 * mean(values.iter().map(|value| value.abs()));
                to_signs(values, threshold);
            }
            WeightFormat::Binary => to_signs(values, 0.0),
        }
    }
}

fn to_levels(values: &mut [f32], channels: usize, width: Width) {
    for row in values.chunks_mut(values.len().div_ceil(channels).max(1)) {
        // A finer scale that clips gains nothing in 8 bits that is seen.
        let scale = if width == Width::Eight { widest_scale(row, width) } else { best_scale(row, width) };
        let most = f32::from(width.level_max());
        vectorised(
            #[inline(always)]
            || {
                for value in row {
                    *value = (*value / scale).round_ties_even().clamp(-most, most) * scale;
                }
            },
        );
    }
}

/// What is above a threshold becomes a sign times the mean magnitude of all that is, and the rest 0.
fn to_signs(values: &mut [f32], threshold: f32) {
    let is_above = |value: f32| value.abs() > threshold;
    let magnitude = mean(values.iter().filter(|&&value| is_above(value)).map(|value| value.abs()));
    for value in values {
        *value = if is_above(*value) { magnitude.copysign(*value) } else { 0.0 };
    }
}

/// Summed in order; 0 of nothing.
fn mean(values: impl Iterator<Item = f32>) -> f32 {
    let (sum, count) = values.fold((0.0, 0u64), |(sum, count), value| (sum + f64::from(value), count + 1));
    if count == 0 { 0.0 } else { (sum / count as f64) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{self, Examples};
    use crate::model::Model;
    use crate::train::{TrainTask, evaluate, train};
    use crate::{Threads, small};
    use dunlin_core::recipe::{DataConfig, ModelConfig, ModelKind, TrainingConfig};
    use dunlin_core::{Seed, TensorSpec};
    use std::ops::ControlFlow;

    const FORMATS: [WeightFormat; 4] =
        [WeightFormat::Int8, WeightFormat::Int4, WeightFormat::Ternary, WeightFormat::Binary];

    fn layout() -> Layout {
        Layout::new(vec![TensorSpec::new("w", [4, 50]), TensorSpec::new("b", [50])]).unwrap()
    }

    fn params() -> Vec<f32> {
        (0..250).map(|i| if i % 9 == 0 { 0.0 } else { ((i * i) as f32).sin() * (1.0 + (i / 50) as f32) }).collect()
    }

    #[test]
    fn rounded_weights_stay_as_they_are_and_so_do_zeros_and_vectors() {
        for format in FORMATS {
            let mut rounded = params();
            round_weights(format, &layout(), &mut rounded);
            assert_eq!(rounded[200..], params()[200..]);
            assert!((0..200).all(|i| params()[i] != 0.0 || rounded[i] == 0.0), "{format:?}");
            let mut again = rounded.clone();
            round_weights(format, &layout(), &mut again);
            let off = again.iter().zip(&rounded).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-6, "{format:?}: {off}");
        }
    }

    #[test]
    fn each_format_has_as_many_values_as_it_says() {
        let distinct = |format| {
            let mut rounded = params();
            round_weights(format, &layout(), &mut rounded);
            let bits: std::collections::BTreeSet<u32> = rounded[..50].iter().map(|value| value.to_bits()).collect();
            bits.len()
        };
        assert!(distinct(WeightFormat::Int8) > 30);
        assert!((8..=15).contains(&distinct(WeightFormat::Int4)));
        assert_eq!(distinct(WeightFormat::Ternary), 3);
        assert_eq!(distinct(WeightFormat::Binary), 3, "two and the zeros");
        let mut rounded = params();
        round_weights(WeightFormat::Int8, &layout(), &mut rounded);
        let stored = small::quantize(&rounded[..200], &[4, 50], Width::Eight).to_f32();
        assert_eq!(stored, rounded[..200], "what is stored in 8 bits is what was computed with");
    }

    #[test]
    fn a_model_learns_with_rounded_weights_and_is_judged_with_them() {
        let split = data::load(&DataConfig::default(), &Seed::from_u64(1)).unwrap();
        let (examples, test) = (Examples::all(split.train), Examples::all(split.test));
        let input = *examples.dataset().input();
        for (format, least) in FORMATS.into_iter().zip([0.95, 0.95, 0.93, 0.9]) {
            let config = ModelConfig { kind: ModelKind::TwoNn, weights: format, ..ModelConfig::default() };
            let mut model = Model::new(config, &input).unwrap();
            let mut params = model.init(&Seed::from_u64(2));
            let training = TrainingConfig { epochs: 8, learning_rate: 0.05, ..TrainingConfig::default() };
            let threads = Threads::one();
            let task =
                TrainTask { config: &training, round: 1, seed: Seed::from_u64(3), threads: &threads, mask: None };
            train(&mut model, &examples, &mut params, &task, &mut |_, _| ControlFlow::Continue(())).unwrap();
            let judged = evaluate(&mut model, &test, &params, &threads).unwrap();
            assert!(judged.accuracy() > least, "{format:?}: {}", judged.accuracy());
            // The same model without the format, from the rounded weights.
            let mut plain = Model::new(ModelKind::TwoNn, &input).unwrap();
            round_weights(format, model.layout(), &mut params);
            let same = evaluate(&mut plain, &test, &params, &threads).unwrap();
            assert!((same.loss() - judged.loss()).abs() < 1e-5 && same.correct.abs_diff(judged.correct) <= 1);
        }
    }
}

//! Steps between rounded weights that are trained with the weights (LSQ, Esser et al. 2020,
//! <https://arxiv.org/abs/1902.08153>).

use super::views;
use crate::Error;
use crate::ops::{vectorised, with_elements};
use candle_core::{Device, Tensor};
use dunlin_core::recipe::{ModelConfig, Steps, WeightFormat};
use dunlin_core::{Layout, TensorSpec};
use half::bf16;
use std::ops::Range;

/// The steps that a model learns: vectors behind the tensors of its architecture, one for each tensor that is rounded,
/// with as many elements as fitted scales would have.
pub(super) struct LearnedSteps {
    /// Q, the largest level.
    most: f32,
    pairs: Vec<Pair>,
}

/// A tensor that is rounded, and its steps.
struct Pair {
    weight: usize,
    weights: Range<usize>,
    step: usize,
    steps: Range<usize>,
}

impl Pair {
    /// N, the weights that have a step in common.
    fn row(&self) -> usize {
        self.weights.len() / self.steps.len()
    }
}

impl LearnedSteps {
    /// The tensors of steps that a model has besides those of its architecture: `NAME.step`, of one element for each output
    /// channel where rounding has a scale for each, and otherwise of one.
    pub(super) fn specs(config: &ModelConfig, own: &[TensorSpec]) -> Vec<TensorSpec> {
        if config.steps == Steps::Fitted || config.weights.largest_level().is_none() {
            return Vec::new();
        }
        let channels = |tensor: &TensorSpec| if config.weights == WeightFormat::Ternary { 1 } else { tensor.shape[0] };
        let rounded = own.iter().filter(|tensor| tensor.shape.len() >= 2);
        rounded.map(|tensor| TensorSpec::new(format!("{}.step", tensor.name), [channels(tensor)])).collect()
    }

    /// The steps of a layout that ends with [`Self::specs`]; nothing where there are none. `own` is the number of the
    /// architecture's tensors.
    pub(super) fn of(format: WeightFormat, layout: &Layout, own: usize) -> Option<Self> {
        let most = f32::from(format.largest_level()?);
        let rounded = (0..own).filter(|&index| layout.tensors()[index].shape.len() >= 2);
        let pair = |(weight, step)| Pair { weight, weights: layout.range(weight), step, steps: layout.range(step) };
        let pairs: Vec<Pair> = rounded.zip(own..layout.tensors().len()).map(pair).collect();
        (!pairs.is_empty()).then_some(Self { most, pairs })
    }

    /// Appends the initial steps to initial weights: 2·mean|w|/√Q (section 2.1), and 1/√(N·Q), as if the weights were
    /// U(−1/√N, 1/√N), where they are all zero.
    pub(super) fn init(&self, params: &mut Vec<f32>) {
        for pair in &self.pairs {
            for row in pair.weights.clone().step_by(pair.row()) {
                let weights = &params[row..row + pair.row()];
                let sum: f64 = weights.iter().map(|w| f64::from(w.abs())).sum();
                let n = pair.row() as f64;
                let mean = if sum == 0.0 { 0.5 / n.sqrt() } else { sum / n };
                params.push(width((2.0 * mean / f64::from(self.most).sqrt()) as f32));
            }
        }
    }

    /// Rounds a model's weights to multiples of its steps, in place: v̂ = ⌊clip(v/s, −Q, Q)⌉·s (equations 1 and 2), halves
    /// to even, s being the [`width`] of the step.
    pub(super) fn round(&self, params: &mut [f32]) {
        for pair in &self.pairs {
            // An architecture's tensors come first.
            let (own, steps) = params.split_at_mut(pair.steps.start);
            let rows = own[pair.weights.clone()].chunks_mut(pair.row());
            for (row, &step) in rows.zip(&*steps) {
                let (s, most) = (width(step), self.most);
                vectorised(
                    #[inline(always)]
                    || {
                        for value in row {
                            *value = (*value / s).round_ties_even().clamp(-most, most) * s;
                        }
                    },
                );
            }
        }
    }

    /// Turns gradients with respect to rounded weights into those with respect to weights and steps; `params` are what was
    /// rounded.
    ///
    /// To a weight its gradient goes as it is if |v/s| < Q, and not at all otherwise (equation 5). A step has the sum over
    /// its weights of their gradients times [`Slope::of_step`], times 1/√(N·Q) (section 2.2), which makes it move, in
    /// proportion, about as much as its weights do.
    pub(super) fn backward(
        &self,
        params: &[f32],
        is_trained: impl Fn(usize) -> bool,
        tensors: &mut [Option<Tensor>],
    ) -> candle_core::Result<()> {
        for pair in &self.pairs {
            tensors[pair.step] = None;
            let Some(gradient) = tensors[pair.weight].take() else { continue };
            let mut to_weights = Vec::with_capacity(pair.weights.len());
            let mut to_steps = Vec::with_capacity(pair.steps.len());
            with_elements::<f32, _>(&gradient, |gradient| {
                let rows = params[pair.weights.clone()].chunks(pair.row()).zip(gradient.chunks(pair.row()));
                for ((weights, gradient), &step) in rows.zip(&params[pair.steps.clone()]) {
                    let sum = self.backward_row(weights, gradient, step, &mut to_weights);
                    to_steps.push(sum * self.scale(pair.row()));
                }
                Ok(())
            })?;
            tensors[pair.weight] = Some(Tensor::from_vec(to_weights, gradient.shape(), &Device::Cpu)?);
            if is_trained(pair.step) {
                tensors[pair.step] = Some(Tensor::from_vec(to_steps, pair.steps.len(), &Device::Cpu)?);
            }
        }
        Ok(())
    }

    /// Appends the gradients of weights that have a step in common, and returns the step's, unscaled.
    fn backward_row(&self, weights: &[f32], gradient: &[f32], step: f32, to_weights: &mut Vec<f32>) -> f32 {
        let (s, most) = (width(step), self.most);
        let start = to_weights.len();
        to_weights.resize(start + weights.len(), 0.0);
        let to_weights = &mut to_weights[start..];
        // Summed in the same order whatever the vectors' width is.
        let mut sums = [0.0f32; LANES];
        vectorised(
            #[inline(always)]
            || {
                let chunks = weights.chunks(LANES).zip(gradient.chunks(LANES)).zip(to_weights.chunks_mut(LANES));
                for ((weights, gradient), to_weights) in chunks {
                    for (((&w, &g), to), sum) in weights.iter().zip(gradient).zip(to_weights).zip(&mut sums) {
                        let slope = Slope::of(w / s, most);
                        *to = g * slope.of_weight;
                        *sum += g * slope.of_step;
                    }
                }
            },
        );
        sums.iter().sum::<f32>() * sign(step)
    }

    /// 1/√(N·Q).
    fn scale(&self, row: usize) -> f32 {
        (1.0 / (row as f64 * f64::from(self.most)).sqrt()) as f32
    }

    /// Puts rounded weights, of which candle's `backward` gives the gradients of [`Self::backward`], in the place of
    /// others: `flat` is what was rounded, `tensors` are those of the layout.
    pub(super) fn straight_through(&self, flat: &Tensor, layout: &Layout, tensors: &mut [Tensor]) -> Result<(), Error> {
        let params = flat.to_vec1::<f32>()?;
        let trained = views(flat, layout)?;
        for pair in &self.pairs {
            let (rows, row) = (pair.steps.len(), pair.row());
            let scale = self.scale(row);
            let weights = params[pair.weights.clone()].iter().enumerate();
            let slopes = weights.map(|(i, w)| {
                let step = params[pair.steps.start + i / row];
                let slope = Slope::of(w / width(step), self.most);
                (slope.of_weight, slope.of_step * sign(step) * scale)
            });
            let (of_weight, of_step): (Vec<_>, Vec<_>) = slopes.unzip();
            let [of_weight, of_step] = [of_weight, of_step].map(|of| Tensor::from_vec(of, (rows, row), &Device::Cpu));
            // Zeros that have gradients.
            let moved = |tensor: &Tensor, columns| (tensor - tensor.detach())?.reshape((rows, columns));
            let by_weights = (of_weight? * moved(&trained[pair.weight], row)?)?;
            let by_steps = of_step?.broadcast_mul(&moved(&trained[pair.step], 1)?)?;
            let tensor = &mut tensors[pair.weight];
            *tensor = (tensor.detach() + (by_weights + by_steps)?.reshape(tensor.shape())?)?;
        }
        Ok(())
    }
}

/// How a rounded weight changes with what it came from.
struct Slope {
    /// 1 within the clipping range, and 0 outside.
    of_weight: f32,
    /// ⌊v/s⌉ − v/s within the range, and the level at its end outside (equation 3).
    of_step: f32,
}

impl Slope {
    /// At v/s = `place`.
    #[inline(always)]
    fn of(place: f32, most: f32) -> Self {
        let is_within = place.abs() < most;
        let level = place.round_ties_even().clamp(-most, most);
        Self { of_weight: if is_within { 1.0 } else { 0.0 }, of_step: if is_within { level - place } else { level } }
    }
}

/// What a step's parameter stands for, whatever optimizers, averages and rounding made of it: its magnitude, within
/// [`LEAST_STEP`] and [`MOST_STEP`], to the nearest brain float, as containers have their scales. Levels times it are exact.
pub(super) fn width(step: f32) -> f32 {
    bf16::from_f32(step.abs().clamp(LEAST_STEP, MOST_STEP)).to_f32()
}

/// How a step's width changes with its parameter.
fn sign(step: f32) -> f32 {
    1f32.copysign(step)
}

/// The finest step, the unit of broadcast models.
pub(crate) const LEAST_STEP: f32 = 1.0 / 16_777_216.0;
/// The coarsest step; beyond any weight, and far from overflow.
const MOST_STEP: f32 = 65_536.0;
/// Sums that are added up side by side.
const LANES: usize = 16;

#[cfg(test)]
mod tests;

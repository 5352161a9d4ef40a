//! Inference with small weights on the processor: sparse and 8-bit layers of a model's [`Plan`].
//!
//! Values are laid out channel after channel, and within one image after image, so that a weight meets a run of pixels:
//! a sparse layer adds such runs, and its work is that of its non-zeros. Features are rows over the images.

mod convolution;
mod int8;
mod matrix;
mod range;
mod shapes;

pub use range::{Calibration, Range, calibrate};

use crate::Error;
use crate::model::{Extent, Model, Operation, Plan, Value};
use crate::ops::vectorised;
use convolution::Convolution;
use dunlin_codec::container::{Tensor, Values, Width};
use int8::{Int8, MOST_WEIGHTS};
use matrix::{Csr, Matrix};
use std::collections::BTreeMap;

/// A model made ready to run.
#[derive(Debug)]
pub struct Engine {
    plan: Plan,
    /// For each step its weights.
    layers: Vec<Layer>,
    /// For each value, the last step that reads it.
    last_use: Vec<usize>,
}

/// Which kernels to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// For each layer what its tensor is made for: 8-bit ones where the file has 8-bit levels and ranges of their inputs,
    /// sparse ones where most weights are zero, dense ones otherwise.
    Auto,
    /// Dense f32 throughout.
    Dense,
    /// Sparse f32 throughout, but for depthwise convolutions.
    Sparse,
}

/// What a step needs beside its operands.
#[derive(Debug)]
enum Layer {
    Nothing,
    Weighted { matrix: Matrix, bias: Vec<f32> },
    Norm { gamma: Vec<f32>, beta: Vec<f32> },
}

impl Engine {
    /// Prepares the tensors of a file for the model that they belong to. `ranges` has those of the inputs of 8-bit
    /// layers, by the name of the layer's weight.
    ///
    /// # Errors
    /// When the model has no plan, or a tensor is missing or of another shape.
    pub fn new(model: &Model, tensors: &[Tensor], ranges: &Calibration, kernels: Kernels) -> Result<Self, Error> {
        let plan = model.plan()?;
        let by_name: BTreeMap<&str, &Tensor> = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let specs = model.layout().tensors();
        let tensor = |parameter: usize| -> Result<&Tensor, Error> {
            let spec = &specs[parameter];
            let found = by_name.get(spec.name.as_str()).filter(|tensor| tensor.shape == spec.shape);
            found.copied().ok_or_else(|| {
                Error::malformed("the file", format!("it has no tensor {:?} of shape {:?}", spec.name, spec.shape))
            })
        };
        let mut layers = Vec::with_capacity(plan.steps.len());
        let mut last_use = vec![0; plan.steps.len() + 1];
        for (index, step) in plan.steps.iter().enumerate() {
            step.operands.iter().for_each(|value| last_use[value.0] = index);
            layers.push(match step.operation {
                Operation::Conv { .. } | Operation::Linear => {
                    let weight = tensor(step.parameters[0])?;
                    let bias = match step.parameters.get(1) {
                        Some(&bias) => tensor(bias)?.values.to_f32(),
                        None => vec![0.0; weight.shape[0]],
                    };
                    let groups = if let Operation::Conv { groups, .. } = step.operation { groups } else { 1 };
                    let range = ranges.get(&weight.name).copied();
                    Layer::Weighted { matrix: matrix(weight, kernels, range, groups), bias }
                }
                Operation::GroupNorm { .. } => {
                    let [gamma, beta] = [0, 1].map(|i| tensor(step.parameters[i]).map(|found| found.values.to_f32()));
                    Layer::Norm { gamma: gamma?, beta: beta? }
                }
                _ => Layer::Nothing,
            });
        }
        Ok(Self { plan, layers, last_use })
    }

    /// The logits of a batch: `x` has its rows one after the other, as a data set has them, and so does the result.
    ///
    /// # Panics
    /// When `x` does not consist of whole rows.
    #[must_use]
    pub fn logits(&self, x: &[f32]) -> Vec<f32> {
        self.run(x, &mut |_, _| {})
    }

    /// [`Self::logits`], showing each step's number and first operand before it is taken.
    fn run(&self, x: &[f32], observe: &mut dyn FnMut(usize, &[f32])) -> Vec<f32> {
        let features = self.plan.input.len();
        assert!(x.len().is_multiple_of(features), "{} values are no rows of {features}", x.len());
        let batch = x.len() / features;
        if batch == 0 {
            return Vec::new();
        }
        let mut values: Vec<Vec<f32>> = vec![Vec::new(); self.plan.steps.len() + 1];
        values[0] = match self.plan.input {
            Extent::Image([channels, height, width]) => shapes::images_to_channels(x, batch, channels, height * width),
            Extent::Features(len) => shapes::transposed(x, batch, len),
        };
        for (index, step) in self.plan.steps.iter().enumerate() {
            observe(index, &values[step.operands[0].0]);
            let result = self.step(index, batch, &mut values);
            values[index + 1] = result;
            for operand in &step.operands {
                if self.last_use[operand.0] == index && *operand != self.plan.output {
                    values[operand.0] = Vec::new();
                }
            }
        }
        let logits = &values[self.plan.output.0];
        shapes::transposed(logits, logits.len() / batch, batch)
    }

    fn step(&self, index: usize, batch: usize, values: &mut [Vec<f32>]) -> Vec<f32> {
        let step = &self.plan.steps[index];
        let from = step.operands[0];
        let extent = self.extent(from);
        // What nobody reads afterwards is changed in place.
        let owned = |values: &mut [Vec<f32>]| {
            if self.last_use[from.0] == index { std::mem::take(&mut values[from.0]) } else { values[from.0].clone() }
        };
        match (step.operation, &self.layers[index]) {
            (Operation::Linear, Layer::Weighted { matrix, bias }) => {
                let mut y = vec![0.0; bias.len() * batch];
                matrix.multiply(&values[from.0], batch, bias, &mut y, batch);
                y
            }
            (Operation::Conv { padding, stride, groups }, Layer::Weighted { matrix, bias }) => {
                let (Extent::Image(input), Extent::Image(output)) = (extent, step.extent) else { return Vec::new() };
                let kernel = matrix.kernel();
                let convolution = Convolution { input, output, kernel, padding, stride, groups, batch };
                convolution.run(matrix, bias, &values[from.0])
            }
            (Operation::GroupNorm { groups }, Layer::Norm { gamma, beta }) => {
                let mut y = owned(values);
                shapes::group_norm(&mut y, batch, groups, gamma, beta);
                y
            }
            (Operation::Relu, _) => {
                let mut y = owned(values);
                vectorised(
                    #[inline(always)]
                    || y.iter_mut().for_each(|value| *value = value.max(0.0)),
                );
                y
            }
            (Operation::Silu, _) => {
                let mut y = owned(values);
                y.iter_mut().for_each(|value| *value /= 1.0 + (-*value).exp());
                y
            }
            (Operation::Sigmoid, _) => {
                let mut y = owned(values);
                y.iter_mut().for_each(|value| *value = 1.0 / (1.0 + (-*value).exp()));
                y
            }
            (Operation::Add, _) => {
                let mut y = owned(values);
                let terms = &values[step.operands[1].0];
                vectorised(
                    #[inline(always)]
                    || y.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term),
                );
                y
            }
            (Operation::ScaleChannels, _) => {
                let mut y = owned(values);
                // Both are channel after channel and image after image.
                let factors = &values[step.operands[1].0];
                let area = y.len() / factors.len();
                for (pixels, factor) in y.chunks_exact_mut(area).zip(factors) {
                    pixels.iter_mut().for_each(|pixel| *pixel *= factor);
                }
                y
            }
            (Operation::MaxPool, _) => shapes::max_pool(&values[from.0], image(extent)),
            (Operation::GlobalAvgPool, _) => shapes::means(&values[from.0], extent.len() / step.extent.len()),
            (Operation::Flatten, _) => {
                let [channels, height, width] = image(extent);
                shapes::flatten(&values[from.0], channels, batch, height * width)
            }
            (Operation::Resize, _) => shapes::resize(&values[from.0], image(extent), image(step.extent)),
            (Operation::Linear | Operation::Conv { .. } | Operation::GroupNorm { .. }, _) => {
                unreachable!("every such step was given its tensors")
            }
        }
    }

    fn extent(&self, value: Value) -> Extent {
        value.0.checked_sub(1).map_or(self.plan.input, |step| self.plan.steps[step].extent)
    }

    /// For each layer with weights, the word for its kernel.
    pub fn kernels(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.layers.iter().filter_map(|layer| match layer {
            Layer::Weighted { matrix, .. } => Some(matrix.word()),
            _ => None,
        })
    }

    /// Bytes that the weights of convolutions and linear layers take in memory.
    #[must_use]
    pub fn weight_bytes(&self) -> usize {
        self.layers
            .iter()
            .map(|layer| if let Layer::Weighted { matrix, .. } = layer { matrix.bytes() } else { 0 })
            .sum()
    }
}

fn image(extent: Extent) -> [usize; 3] {
    match extent {
        Extent::Image(image) => image,
        Extent::Features(len) => [len, 1, 1],
    }
}

/// The weights of a layer as its kernel wants them.
fn matrix(weight: &Tensor, kernels: Kernels, range: Option<Range>, groups: usize) -> Matrix {
    let size = match weight.shape[..] {
        [.., rows, columns] if weight.shape.len() == 4 => [rows, columns],
        _ => [1, 1],
    };
    let row = weight.row();
    if let (Kernels::Auto, Values::Integers { width: Width::Eight, scales, levels }, Some(range), 1) =
        (kernels, &weight.values, range, groups)
        && row <= MOST_WEIGHTS
    {
        return Matrix::Int8(Int8::new(levels, scales, row, size, range), size);
    }
    let values = weight.values.to_f32();
    let sparse = weight.values.nonzeros() as f64 <= SPARSE_UP_TO * values.len() as f64;
    if groups == 1 && (kernels == Kernels::Sparse || kernels == Kernels::Auto && sparse) {
        return Matrix::Sparse(Csr::new(&values, row), size);
    }
    Matrix::Dense { values, row, kernel: size }
}

/// Density up to which a sparse layer is the faster one, with room for the machine: see `docs/BENCHMARKS.md`.
const SPARSE_UP_TO: f64 = 0.3;

#[cfg(test)]
pub(crate) mod tests;

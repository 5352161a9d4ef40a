//! The final model looked into: what each layer holds, how small it can be stored, and how much of it is needed.

use super::source::Run;
use crate::commands::{Failure, output};
use dunlin::codec::container::{Precision, Width};
use dunlin::core::recipe::ModelKind;
use dunlin::core::{Recipe, TensorSpec};
use dunlin::nn::data::{self, Examples};
use dunlin::nn::model::Model;
use dunlin::nn::small::{Compress, Compressed, Keep, Stored, TensorReport, Weights, prune};
use dunlin::nn::train;
use dunlin::nn::{Error, Threads};
use serde::Serialize;
use std::num::NonZero;
use std::sync::Arc;

/// What is asked of the analysis.
pub(super) struct Options {
    /// The share of the weights that is kept before sizes are taken.
    pub(super) density: Option<f64>,
    /// Whether layers are pruned one by one to see what that costs.
    pub(super) sensitivity: bool,
}

/// The final model.
#[derive(Serialize)]
pub(super) struct Analysis {
    pub(super) layers: Vec<Layer>,
    pub(super) sizes: Sizes,
    pub(super) sensitivity: Sensitivity,
}

/// A tensor of the model.
#[derive(Serialize)]
pub(super) struct Layer {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) params: u64,
    pub(super) nonzero: u64,
    pub(super) importance: Importance,
    /// Of matrices and kernels; vectors are not quantized.
    pub(super) error: Option<QuantizationError>,
    /// The accuracy with this layer alone pruned to each of [`DENSITIES`], where it was measured.
    pub(super) pruned_accuracy: Option<[f64; DENSITIES.len()]>,
}

/// How large the weights of a layer are, by which magnitude pruning tells what they matter.
#[derive(Serialize)]
pub(super) struct Importance {
    /// The largest magnitude.
    pub(super) largest: f32,
    /// Non-zero weights by magnitude, [`BINS_PER_OCTAVE`] bins for each factor of two, the last one up to the largest.
    /// What is smaller than all bins is in the first.
    pub(super) bins: Vec<u64>,
    /// The magnitude below which weights go, for each of [`DENSITIES`] that is less than what there is; vectors are not
    /// pruned.
    pub(super) cuts: [Option<f32>; DENSITIES.len()],
}

/// Root of the squared error over the squared values.
#[derive(Clone, Copy, Serialize)]
pub(super) struct QuantizationError {
    /// A codebook of 32 values.
    pub(super) shared: f64,
    /// Integers of 8 bits with a scale for each output channel.
    pub(super) int8: f64,
    /// The same with 4 bits.
    pub(super) int4: f64,
}

/// The model's size, stage by stage.
#[derive(Serialize)]
pub(super) struct Sizes {
    /// The share of the weights that was kept, if any were pruned for it.
    pub(super) density: Option<f64>,
    pub(super) files: Vec<Size>,
}

/// Bytes after each stage, summed over the tensors; the last is the file itself.
#[derive(Serialize)]
pub(super) struct Size {
    /// What matrices and kernels are stored as.
    pub(super) values: &'static str,
    pub(super) dense: u64,
    pub(super) pruned: u64,
    pub(super) stored: u64,
    pub(super) coded: u64,
    /// Accuracy of what the file holds, on the examples of the sensitivity.
    pub(super) accuracy: Option<f64>,
}

/// Whether and on what the model was judged.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Sensitivity {
    Measured {
        /// Examples of the test set.
        examples: usize,
        /// Accuracy of the model as it is.
        accuracy: f64,
        /// What layers were pruned to; nothing when that was not asked for.
        densities: Vec<f64>,
    },
    /// There is nothing to judge it on.
    Skipped { reason: String },
}

impl Analysis {
    pub(super) fn of(run: &Run, options: &Options) -> Result<Self, Failure> {
        if run.weights.tensors.iter().any(|(_, values)| values.iter().any(|value| !value.is_finite())) {
            return Ok(Self::diverged(&run.weights));
        }
        let mut judge = Judge::new(run.recipe.as_ref(), &run.weights);
        let whole = compress(&run.weights, None)?;
        let layers = run.weights.tensors.iter().zip(quantization_errors(&whole));
        let mut layers: Vec<_> = layers.map(|((spec, values), error)| Layer::of(spec, values, error)).collect();
        let small = match options.density {
            Some(density) => compress(&run.weights, Some(Keep::Density(density)))?,
            None => whole,
        };
        let mut files = small.iter().map(Size::of).collect::<Vec<_>>();
        if let Ok(judge) = &mut judge {
            for (file, (_, small)) in files.iter_mut().zip(small) {
                file.accuracy = Some(judge.accuracy(&small.container.into())?);
            }
        }
        let sizes = Sizes { density: options.density, files };
        let sensitivity = match &mut judge {
            Err(reason) => Sensitivity::Skipped { reason: reason.clone() },
            Ok(judge) => {
                if options.sensitivity {
                    judge.prune_each(&run.weights, &mut layers)?;
                }
                Sensitivity::Measured {
                    examples: judge.examples.len(),
                    accuracy: judge.accuracy(&run.weights)?,
                    densities: if options.sensitivity { DENSITIES.to_vec() } else { Vec::new() },
                }
            }
        };
        Ok(Self { layers, sizes, sensitivity })
    }

    /// Of a model that cannot be stored, nor judged.
    fn diverged(weights: &Weights) -> Self {
        let layers = weights.tensors.iter().map(|(spec, values)| Layer::of(spec, values, None));
        Self {
            layers: layers.collect(),
            sizes: Sizes { density: None, files: Vec::new() },
            sensitivity: Sensitivity::Skipped {
                reason: "the model diverged: some of its values are no numbers".into(),
            },
        }
    }
}

impl Size {
    fn of((values, small): &(&'static str, Compressed)) -> Self {
        let sum = |bytes: fn(&TensorReport) -> u64| small.tensors.iter().map(bytes).sum();
        Self {
            values,
            dense: sum(|tensor| tensor.dense),
            pruned: sum(|tensor| tensor.pruned),
            stored: sum(|tensor| tensor.stored),
            coded: small.file_bytes,
            accuracy: None,
        }
    }
}

impl Layer {
    fn of(spec: &TensorSpec, values: &[f32], error: Option<QuantizationError>) -> Self {
        Self {
            name: spec.name.clone(),
            shape: spec.shape.clone(),
            params: values.len() as u64,
            nonzero: values.iter().filter(|&&value| value != 0.0).count() as u64,
            importance: Importance::of(values, spec.shape.len() >= 2),
            error,
            pruned_accuracy: None,
        }
    }

    pub(super) fn density(&self) -> f64 {
        self.nonzero as f64 / self.params.max(1) as f64
    }

    /// Its extents, such as 16×8×3×3.
    pub(super) fn extents(&self) -> String {
        self.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("×")
    }
}

impl Importance {
    fn of(values: &[f32], is_pruned: bool) -> Self {
        let sizes = values.iter().map(|value| value.abs());
        let mut sizes: Vec<f32> = sizes.filter(|&size| size > 0.0 && size.is_finite()).collect();
        sizes.sort_unstable_by(|a, b| b.total_cmp(a));
        let largest = sizes.first().copied().unwrap_or(0.0);
        let mut bins = vec![0; BINS];
        for &size in &sizes {
            bins[(Self::place_below(largest, size) * BINS as f64).ceil().max(1.0) as usize - 1] += 1;
        }
        let cuts = DENSITIES.map(|density| {
            let kept = (density * values.len() as f64).round() as usize;
            (is_pruned && kept > 0 && kept < sizes.len()).then(|| sizes[kept - 1])
        });
        Self { largest, bins, cuts }
    }

    /// Where a magnitude stands on the axis of the bins, from 0 to 1.
    pub(super) fn place(&self, size: f32) -> f64 {
        Self::place_below(self.largest, size)
    }

    fn place_below(largest: f32, size: f32) -> f64 {
        let octaves = (f64::from(size) / f64::from(largest)).log2();
        (1.0 + octaves * BINS_PER_OCTAVE / BINS as f64).clamp(0.0, 1.0)
    }

    /// The magnitudes between which a bin's weights lie.
    pub(super) fn bounds(&self, bin: usize) -> (f32, f32) {
        let bound = |bin: usize| {
            let octaves = (bin as f64 - BINS as f64) / BINS_PER_OCTAVE;
            (f64::from(self.largest) * octaves.exp2()) as f32
        };
        (if bin == 0 { 0.0 } else { bound(bin) }, bound(bin + 1))
    }
}

/// The model with its matrices and kernels stored in each way, and the name of the way.
fn compress(weights: &Weights, keep: Option<Keep>) -> Result<Vec<(&'static str, Compressed)>, Failure> {
    let mut files = Vec::new();
    for (values, stored) in STORED {
        files.push((values, Compress { keep, per_layer: false, stored }.run(weights)?));
    }
    Ok(files)
}

/// For each tensor; nothing for vectors.
fn quantization_errors(files: &[(&str, Compressed)]) -> Vec<Option<QuantizationError>> {
    let error = |file: usize, tensor: usize| files[file].1.tensors[tensor].error;
    let tensors = files[0].1.tensors.iter().enumerate().map(|(i, tensor)| {
        let error = || QuantizationError { shared: error(0, i), int8: error(1, i), int4: error(2, i) };
        (tensor.shape.len() >= 2).then(error)
    });
    tensors.collect()
}

/// The model and a part of the recipe's test set.
struct Judge {
    model: Model,
    examples: Examples,
    threads: Threads,
}

impl Judge {
    /// A judge of the model that a recipe trains, or why there is none.
    fn new(recipe: Option<&Recipe>, weights: &Weights) -> Result<Self, String> {
        let Some(recipe) = recipe else { return Err("the results do not hold the recipe".into()) };
        if recipe.model.kind == ModelKind::Trivial {
            return Err("the trivial model predicts nothing".into());
        }
        let test = data::load(&recipe.data, &recipe.data_seed())
            .map_err(|error| format!("the test data are not at hand: {error}"))?
            .test;
        if test.is_empty() {
            return Err(format!("{} has no test set", recipe.data.source));
        }
        // Spread over the set, which may be in order of its labels.
        let rows: Vec<_> = (0..test.len() as u32).step_by(test.len().div_ceil(MAX_EXAMPLES)).collect();
        let told = |error: Error| format!("the model cannot be judged: {error}");
        // Whole filters may be gone from the recipe's model; the file tells what is left.
        let model = match Model::described(&weights.about).map_err(told)? {
            Some(model) => model,
            None => Model::new(&recipe.model, test.input()).map_err(told)?,
        };
        if model.input() != test.input() {
            return Err(format!("the model does not take {}", recipe.data.source));
        }
        weights.flat(model.layout()).map_err(|error| format!("the model is not the recipe's: {error}"))?;
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        Ok(Self {
            model,
            examples: Examples::new(Arc::clone(&test), rows).map_err(told)?,
            threads: Threads::new(threads).map_err(told)?,
        })
    }

    fn accuracy(&mut self, weights: &Weights) -> Result<f64, Failure> {
        let params = weights.flat(self.model.layout()).map_err(Failure::other)?;
        Ok(train::evaluate(&mut self.model, &self.examples, &params, &self.threads)?.accuracy())
    }

    /// Prunes each matrix and kernel by itself and judges what is left.
    fn prune_each(&mut self, weights: &Weights, layers: &mut [Layer]) -> Result<(), Failure> {
        let prunable = |layer: &&Layer| layer.shape.len() >= 2;
        let count = layers.iter().filter(prunable).count();
        if count * self.examples.len() > QUICK {
            let examples = self.examples.len();
            output::note(&format!(
                "pruning {count} layers one by one and judging each on {examples} examples; --no-sensitivity does not"
            ));
        }
        for (i, layer) in layers.iter_mut().enumerate() {
            if layer.shape.len() < 2 {
                continue;
            }
            let mut accuracies = [0.0; DENSITIES.len()];
            for (accuracy, density) in accuracies.iter_mut().zip(DENSITIES) {
                let mut pruned = weights.clone();
                prune(&mut pruned.tensors[i..=i], Keep::Density(density), true);
                *accuracy = self.accuracy(&pruned)?;
            }
            layer.pruned_accuracy = Some(accuracies);
        }
        Ok(())
    }
}

/// The ways of storing weights that are compared.
const STORED: [(&str, Stored); 3] = [
    ("shared", Stored::Shared { bits: 5, precision: Precision::Half }),
    ("int8", Stored::Integers(Width::Eight)),
    ("int4", Stored::Integers(Width::Four)),
];

/// What each layer is pruned to, from the most to the least.
pub(super) const DENSITIES: [f64; 3] = [0.5, 0.25, 0.1];

/// Bins of a layer's histogram: twelve octaves, below which a weight is less than a four-thousandth of the largest.
const BINS: usize = 36;
const BINS_PER_OCTAVE: f64 = 3.0;

/// Most examples that a model is judged on: with these, an accuracy is known to about a percent.
const MAX_EXAMPLES: usize = 2000;

/// Examples to judge, over all layers, that take no noticeable time.
const QUICK: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn weights() -> Weights {
        let matrix: Vec<f32> = (0..200).map(|i| (i as f32 * 0.37).sin() * if i % 4 == 0 { 0.0 } else { 0.5 }).collect();
        let tensors =
            vec![(TensorSpec::new("fc.weight", [10, 20]), matrix), (TensorSpec::new("fc.bias", [10]), vec![0.25; 10])];
        Weights { about: BTreeMap::new(), tensors }
    }

    #[test]
    fn importance_counts_every_weight_once_and_knows_where_pruning_cuts() {
        let values = [0.0, 1.0, -0.5, 0.25, 1e-9, -0.125, 0.75, 0.3];
        let importance = Importance::of(&values, true);
        assert_eq!(importance.bins.iter().sum::<u64>(), 7);
        assert_eq!((importance.bins[0], importance.bins[BINS - 1]), (1, 1));
        assert_eq!(importance.cuts, [Some(0.3), Some(0.75), Some(1.0)]);
        assert_eq!([1.0, 0.5, 0.0].map(|size| importance.place(size)), [1.0, 1.0 - 3.0 / 36.0, 0.0]);
        for (bin, &n) in importance.bins.iter().enumerate() {
            let (low, high) = importance.bounds(bin);
            let within = values.iter().map(|value| value.abs()).filter(|&size| size > low && size <= high).count();
            assert_eq!(within as u64, n, "bin {bin}, {low} to {high}");
        }
        assert_eq!(Importance::of(&[0.0; 4], true).bins.iter().sum::<u64>(), 0);
        assert_eq!(Importance::of(&values, false).cuts, [None; 3]);
    }

    #[test]
    fn sizes_are_those_of_the_files_and_fall_from_stage_to_stage() {
        let files = compress(&weights(), Some(Keep::Density(0.3))).unwrap();
        for file in &files {
            let size = Size::of(file);
            assert_eq!(size.dense, 4 * 210);
            assert!(size.dense > size.pruned && size.pruned > size.stored, "{}", size.values);
            assert_eq!(size.coded, file.1.container.to_bytes().unwrap().len() as u64);
        }
    }

    #[test]
    fn fewer_bits_have_larger_errors_and_vectors_have_none() {
        let errors = quantization_errors(&compress(&weights(), None).unwrap());
        let error = errors[0].unwrap();
        assert!(error.int8 > 0.0 && error.int8 < 0.01 && error.int4 > 5.0 * error.int8, "{}", error.int4);
        assert!(errors[1].is_none());
    }

    #[test]
    fn without_a_recipe_or_its_data_there_is_a_reason_and_no_number() {
        let reason = |recipe: Option<&Recipe>| Judge::new(recipe, &weights()).err().unwrap();
        assert_eq!(reason(None), "the results do not hold the recipe");
        let mut recipe = Recipe::default();
        assert!(reason(Some(&recipe)).starts_with("the model is not the recipe's: it has no tensor"));
        recipe.data.source = "csv:nowhere.csv".into();
        assert!(reason(Some(&recipe)).starts_with("the test data are not at hand: "));
    }
}

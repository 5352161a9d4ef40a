//! `dunlin compress` and `dunlin decompress`: a model as a small file, and back.

use super::model::{ACTIVATION, ArchitectureArgs, ModelFile, load, measured};
use super::output::{self, bytes, factor, percent};
use super::summary::plain_table;
use super::{Done, Failure, of_data};
use clap::{Args, ValueEnum};
use comfy_table::{Cell, CellAlignment};
use dunlin::codec::container::{Precision, Width};
use dunlin::core::recipe::PruningConfig;
use dunlin::core::{Layout, Seed};
use dunlin::nn::Threads;
use dunlin::nn::data::Examples;
use dunlin::nn::small::{Compress, Compressed, Keep, Pruning, Stored, Tuning, Weights};
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Make a model small: prune it, share or quantize its weights, and write it entropy-coded
///
/// This is what Deep Compression (Han et al. 2016) does to a trained model, with context coding instead of Huffman's.
/// Biases and other vectors are not pruned, and are stored as 16-bit floats unless everything stays f32.
#[derive(Args)]
pub(crate) struct CompressArgs {
    /// The model: safetensors, from here or from elsewhere, or a file that this command wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Keep this share of the weights, the largest; without it, all that are not zero
    #[arg(long, value_name = "P", conflicts_with = "parameters")]
    density: Option<f64>,

    /// Keep so many parameters of the model, the vectors among them
    #[arg(long, value_name = "N")]
    parameters: Option<usize>,

    /// Keep the same share of each layer, instead of the largest weights of all layers
    #[arg(long)]
    per_layer: bool,

    #[command(flatten)]
    stored: StoredArgs,

    /// Measure the ranges of what goes into each layer on the training part of this data set, as in a recipe's
    /// data.source, and write them down: what 8-bit activations need
    #[arg(long, value_name = "SPEC")]
    calibrate: Option<String>,

    /// Train the codebooks on the training part of this data set, as in a recipe's data.source, once weights share them
    #[arg(long, value_name = "SPEC")]
    train: Option<String>,

    /// Passes over that data
    #[arg(long, value_name = "N", default_value_t = 3, requires = "train")]
    epochs: u32,

    /// Step size of training codebooks
    #[arg(long, value_name = "R", default_value_t = 0.0002, requires = "train")]
    learning_rate: f64,

    #[command(flatten)]
    architecture: ArchitectureArgs,

    /// The file to write [default: FILE with the ending .dnl]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,

    /// Print the sizes as JSON
    #[arg(long)]
    json: bool,
}

/// How a container has a model's weights.
#[derive(Args)]
pub(crate) struct StoredArgs {
    /// What the weights of a small file are stored as
    #[arg(long, value_name = "KIND", default_value = "shared")]
    values: StoredKind,

    /// Bits of a place in a codebook, 1 to 8
    #[arg(long, value_name = "B", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=8))]
    bits: u32,

    /// Store codebooks in f32 instead of f16
    #[arg(long)]
    exact_codebook: bool,
}

impl StoredArgs {
    pub(super) fn stored(&self) -> Stored {
        let precision = if self.exact_codebook { Precision::Single } else { Precision::Half };
        match self.values {
            StoredKind::Shared => Stored::Shared { bits: self.bits, precision },
            StoredKind::Int8 => Stored::Integers(Width::Eight),
            StoredKind::Int4 => Stored::Integers(Width::Four),
            StoredKind::F16 => Stored::F16,
            StoredKind::F32 => Stored::F32,
        }
    }
}

/// See [`Stored`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoredKind {
    /// Places in a codebook of 2^B values for each tensor
    Shared,
    /// 8-bit integers with a scale for each output channel
    Int8,
    /// 4-bit integers with a scale for each output channel
    Int4,
    /// 16-bit floats
    F16,
    /// 32-bit floats, as they are
    F32,
}

/// Write a file of `dunlin compress` as safetensors
#[derive(Args)]
pub(crate) struct DecompressArgs {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The file to write [default: FILE with the ending .safetensors]
    #[arg(long, value_name = "FILE.safetensors")]
    to: Option<PathBuf>,
}

pub(crate) fn run(args: &CompressArgs) -> Done {
    let keep = match (args.density, args.parameters) {
        (Some(density), _) if !(density > 0.0 && density <= 1.0) => {
            return Err(Failure::usage(format!(
                "--density {density}: a share above 0 and at most 1 is right, such as 0.1"
            )));
        }
        (Some(density), _) => Some(Keep::Density(density)),
        (None, count) => count.map(Keep::Parameters),
    };
    let weights = read_weights(&args.file)?;
    if let Some(wanted) = args.parameters {
        let specs = weights.tensors.iter().map(|(spec, _)| spec.clone()).collect();
        let layout = Layout::new(specs).map_err(Failure::usage)?;
        let least = Pruning::new(&PruningConfig::default(), &layout).least_parameters();
        if wanted < least {
            return Err(Failure::usage(format!(
                "--parameters {wanted}: at least {least} are left, since vectors are not pruned and each other tensor \
                 keeps a weight"
            )));
        }
    }
    let mut small = Compress { keep, per_layer: args.per_layer, stored: args.stored.stored() }.run(&weights)?;
    if let Some(source) = &args.train {
        train_codebooks(&mut small, &weights, source, args)?;
    }
    if let Some(source) = &args.calibrate {
        let split = load(source)?;
        let container = &mut small.container;
        let file = ModelFile { about: container.about.clone(), tensors: container.tensors.clone() };
        let model = file.model(&args.architecture, Some(split.train.input()))?;
        file.params(&model)?;
        let ranges = measured(&model, &file.tensors, &split)?.into_iter();
        container.about.extend(model.about());
        container.about.extend(ranges.map(|(name, range)| (format!("{ACTIVATION}{name}"), range.to_word())));
        small.file_bytes = container.to_bytes()?.len() as u64;
    }
    let to = args.to.clone().unwrap_or_else(|| args.file.with_extension("dnl"));
    write(&to, &args.file, &small.container.to_bytes()?)?;
    if args.json {
        output::json(&Sizes::of(&small, &to));
    } else {
        print(&small, args.stored.values);
        output::note(&format!("wrote {}, {}", to.display(), bytes(small.file_bytes)));
    }
    Ok(ExitCode::SUCCESS)
}

fn train_codebooks(
    small: &mut Compressed,
    weights: &Weights,
    source: &str,
    args: &CompressArgs,
) -> Result<(), Failure> {
    let split = load(source)?;
    let container = &small.container;
    let file = ModelFile { about: container.about.clone(), tensors: container.tensors.clone() };
    let mut model = file.model(&args.architecture, Some(split.train.input()))?;
    let tuning = Tuning { epochs: args.epochs, batch: 50, learning_rate: args.learning_rate, seed: Seed::from_u64(1) };
    let spinner = crate::progress::spinner();
    let mut progress = |done, total| {
        spinner.set_message(format!("training codebooks: step {done} of {total}"));
        ControlFlow::Continue(())
    };
    let examples = Examples::all(split.train);
    let loss = small.tune(weights, &mut model, &examples, &tuning, &Threads::one(), &mut progress).map_err(of_data)?;
    spinner.finish_and_clear();
    output::note(&format!("codebooks trained to a loss of {loss:.4}"));
    Ok(())
}

pub(crate) fn decompress(args: &DecompressArgs) -> Done {
    let file = read_weights(&args.file)?.to_safetensors()?;
    let to = args.to.clone().unwrap_or_else(|| args.file.with_extension("safetensors"));
    write(&to, &args.file, &file)?;
    output::note(&format!("wrote {}, {}", to.display(), bytes(file.len() as u64)));
    Ok(ExitCode::SUCCESS)
}

/// A model from a file of either kind.
pub(super) fn read_weights(path: &Path) -> Result<Weights, Failure> {
    let told = |error: &dyn std::fmt::Display| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let file = std::fs::read(path).map_err(|error| told(&error))?;
    Weights::from_bytes(&file).map_err(|error| told(&error))
}

/// Nobody means to lose the file that was read.
fn write(to: &Path, from: &Path, file: &[u8]) -> Result<(), Failure> {
    if to == from {
        return Err(Failure::usage(format!("{} is the file that was read; say --to FILE", to.display())));
    }
    std::fs::write(to, file).map_err(|error| Failure::other(format!("cannot write {}: {error}", to.display())))
}

fn print(small: &Compressed, values: StoredKind) {
    let kind = values.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let mut table = plain_table();
    table.set_header(["tensor", "shape", "not zero", "dense", "pruned", &kind, "coded", "error"]);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    for tensor in &small.tensors {
        let shape = tensor.shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("×");
        table.add_row(
            [Cell::new(&tensor.name), right(shape), right(percent(tensor.density()))]
                .into_iter()
                .chain([tensor.dense, tensor.pruned, tensor.stored, tensor.coded].map(|size| right(bytes(size))))
                .chain([right(percent(tensor.error))]),
        );
    }
    let sizes = StageSizes::of(small);
    let totals = [sizes.dense, sizes.pruned, sizes.stored, sizes.coded];
    let density = sizes.nonzero as f64 / sizes.params.max(1) as f64;
    let row = |name: &str, density: String, columns: [String; 4]| {
        let cells = [Cell::new(name), right(String::new()), right(density)].into_iter().chain(columns.map(right));
        cells.chain([Cell::new("")]).collect::<Vec<_>>()
    };
    table.add_row(row("all", percent(density), totals.map(bytes)));
    table.add_row(row("smaller", String::new(), totals.map(|size| factor(sizes.dense, size))));
    output::line(table);
}

/// What `--json` prints.
#[derive(Serialize)]
struct Sizes {
    file: String,
    #[serde(flatten)]
    all: StageSizes,
    tensors: Vec<TensorSizes>,
}

#[derive(Serialize)]
struct StageSizes {
    params: u64,
    nonzero: u64,
    dense: u64,
    pruned: u64,
    stored: u64,
    coded: u64,
}

#[derive(Serialize)]
struct TensorSizes {
    name: String,
    shape: Vec<usize>,
    nonzero: u64,
    density: f64,
    dense: u64,
    pruned: u64,
    stored: u64,
    coded: u64,
    error: f64,
}

impl StageSizes {
    fn of(small: &Compressed) -> Self {
        let mut sum = Self { params: 0, nonzero: 0, dense: 0, pruned: 0, stored: 0, coded: small.file_bytes };
        for tensor in &small.tensors {
            sum.params += tensor.elements();
            sum.nonzero += tensor.nonzeros;
            sum.dense += tensor.dense;
            sum.pruned += tensor.pruned;
            sum.stored += tensor.stored;
        }
        sum
    }
}

impl Sizes {
    fn of(small: &Compressed, to: &Path) -> Self {
        let tensors = small.tensors.iter().map(|tensor| TensorSizes {
            name: tensor.name.clone(),
            shape: tensor.shape.clone(),
            nonzero: tensor.nonzeros,
            density: tensor.density(),
            dense: tensor.dense,
            pruned: tensor.pruned,
            stored: tensor.stored,
            coded: tensor.coded,
            error: tensor.error,
        });
        Self { file: to.display().to_string(), all: StageSizes::of(small), tensors: tensors.collect() }
    }
}

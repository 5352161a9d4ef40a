//! `dunlin eval` and `dunlin predict`: a model's file on data, with the kernels that it was made small for.

use super::model::{ArchitectureArgs, ModelFile, load, measured};
use super::output::{self, bytes, count, percent, seconds};
use super::summary::plain_table;
use super::{Done, Failure, of_data};
use clap::{Args, ValueEnum};
use comfy_table::{Cell, CellAlignment};
use dunlin::nn::data::Dataset;
use dunlin::nn::infer::{Engine, Kernels};
use dunlin::nn::model::Model;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Judge a model's file on the test part of a data set
///
/// Layers run with the kernels that their tensors are made for, on one thread.
#[derive(Args)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    run: RunArgs,

    /// Examples at once
    #[arg(long, value_name = "N", default_value_t = 32)]
    batch: usize,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Print what a model's file takes each row of a data set's test part for
#[derive(Args)]
pub(crate) struct PredictArgs {
    #[command(flatten)]
    run: RunArgs,

    /// Only the first rows
    #[arg(long, value_name = "N")]
    rows: Option<usize>,

    /// Print one JSON object a row, with all probabilities
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct RunArgs {
    /// The model: safetensors, or a file of `dunlin compress`
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The data set, as in a recipe's data.source
    #[arg(long, value_name = "SPEC")]
    data: String,

    #[command(flatten)]
    architecture: ArchitectureArgs,

    /// Which kernels run the layers
    #[arg(long, value_name = "KIND", default_value = "auto")]
    kernels: KernelKind,

    /// Measure the ranges of 8-bit activations on the data's training part, if the file does not tell them
    #[arg(long)]
    calibrate: bool,
}

/// See [`Kernels`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KernelKind {
    /// For each layer what its tensor is made for: int8, sparse or dense; all dense in batches as in training
    Auto,
    /// Dense f32
    Dense,
    /// Sparse f32
    Sparse,
    /// Dense f32 as in training
    Training,
}

/// What computes logits.
enum Runner {
    Engine(Engine),
    /// For models without a plan, and to compare with.
    Training(Box<Model>),
}

impl Runner {
    fn logits(&self, x: &[f32]) -> Result<Vec<f32>, Failure> {
        match self {
            Self::Engine(engine) => Ok(engine.logits(x)),
            Self::Training(model) => model.logits(x).map_err(of_data),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Engine(engine) => {
                let mut words: Vec<_> = engine.kernels().collect();
                words.dedup();
                words.join(", ")
            }
            Self::Training(_) => "dense, as in training".to_owned(),
        }
    }

    fn weight_bytes(&self) -> u64 {
        match self {
            Self::Engine(engine) => engine.weight_bytes() as u64,
            Self::Training(model) => 4 * model.layout().len() as u64,
        }
    }
}

impl RunArgs {
    /// What runs the model on so many rows at a time, and the rows to run it on.
    fn open(&self, batch: usize) -> Result<(Runner, Arc<Dataset>), Failure> {
        let file = ModelFile::read(&self.file)?;
        let split = load(&self.data)?;
        let mut model = file.model(&self.architecture, Some(split.test.input()))?;
        if model.input() != split.test.input() {
            let (expected, actual) = (model.input(), split.test.input());
            return Err(Failure::usage(format!("the model takes {expected}, and {} has {actual}", self.data)));
        }
        if split.test.is_empty() {
            return Err(Failure::usage(format!("{} has nothing to test on", self.data)));
        }
        let kernels = match self.kernels {
            KernelKind::Auto => Kernels::Auto,
            KernelKind::Dense => Kernels::Dense,
            KernelKind::Sparse => Kernels::Sparse,
            KernelKind::Training => Kernels::Dense,
        };
        if self.kernels == KernelKind::Training || model.plan().is_err() {
            let params = file.params(&model)?;
            model.load(&params).map_err(of_data)?;
            return Ok((Runner::Training(Box::new(model)), split.test));
        }
        // For the sentence that says what does not fit.
        let params = file.params(&model)?;
        let mut ranges = file.ranges();
        if ranges.is_empty() && self.calibrate {
            ranges = measured(&model, &file.tensors, &split)?;
        }
        let engine = Engine::new(&model, &file.tensors, &ranges, kernels).map_err(of_data)?;
        // The engine is made for small weights and for single rows.
        let is_small = engine.kernels().any(|word| word != "dense");
        if self.kernels == KernelKind::Auto && !is_small && batch >= BATCHED {
            model.load(&params).map_err(of_data)?;
            return Ok((Runner::Training(Box::new(model)), split.test));
        }
        Ok((Runner::Engine(engine), split.test))
    }
}

pub(crate) fn eval(args: &EvalArgs) -> Done {
    let batch = args.batch.max(1);
    let (runner, test) = args.run.open(batch)?;
    let (classes, targets) = (test.input().classes, test.input().targets);
    let (mut correct, mut loss, mut spent) = (0u64, 0f64, 0f64);
    let rows: Vec<u32> = (0..test.len() as u32).collect();
    for rows in rows.chunks(batch) {
        let mut x = Vec::with_capacity(rows.len() * test.input().features());
        rows.iter().for_each(|&row| test.append_row(row, &mut x));
        let begun = Instant::now();
        let logits = runner.logits(&x)?;
        spent += begun.elapsed().as_secs_f64();
        let labels = rows.iter().flat_map(|&row| test.row_labels(row));
        for (logits, &label) in logits.chunks_exact(classes).zip(labels) {
            let chances = chances(logits);
            correct += u64::from(largest(&chances) == label as usize);
            loss -= chances[label as usize].max(f64::MIN_POSITIVE).ln();
        }
    }
    let judged = (test.len() * targets) as u64;
    let (accuracy, loss) = (correct as f64 / judged as f64, loss / judged as f64);
    let file_bytes = std::fs::metadata(&args.run.file)?.len();
    if args.json {
        output::json(&Judgement {
            examples: test.len(),
            correct,
            accuracy,
            loss,
            file_bytes,
            weight_bytes: runner.weight_bytes(),
            kernels: runner.words(),
            seconds: spent,
        });
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = plain_table();
    let mut row = |what: &str, value: String| {
        table.add_row([Cell::new(what), Cell::new(value).set_alignment(CellAlignment::Right)]);
    };
    row("accuracy", percent(accuracy));
    row("error", percent(1.0 - accuracy));
    row("loss", format!("{loss:.4}"));
    row("examples", count(test.len() as u64));
    row("file", bytes(file_bytes));
    row("weights in memory", bytes(runner.weight_bytes()));
    row("kernels", runner.words());
    row("time", seconds(spent));
    row("an example", seconds(spent / test.len() as f64));
    output::line(table);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn predict(args: &PredictArgs) -> Done {
    let (runner, test) = args.run.open(1)?;
    let (classes, targets) = (test.input().classes, test.input().targets);
    let rows = args.rows.unwrap_or(usize::MAX).min(test.len()) as u32;
    for row in 0..rows {
        let mut x = Vec::new();
        test.append_row(row, &mut x);
        let logits = runner.logits(&x)?;
        for (step, logits) in logits.chunks_exact(classes).enumerate() {
            let probabilities = chances(logits);
            let (label, truth) = (largest(&probabilities), test.row_labels(row)[step]);
            if args.json {
                output::json_line(&Prediction {
                    row,
                    step: (targets > 1).then_some(step),
                    label,
                    truth,
                    probabilities,
                });
                continue;
            }
            let place = if targets > 1 { format!("{row}.{step}") } else { row.to_string() };
            let verdict = if label == truth as usize { String::new() } else { format!("  is {truth}") };
            output::line(format_args!("{place}  {label}  {}{verdict}", percent(probabilities[label])));
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Judgement {
    examples: usize,
    correct: u64,
    accuracy: f64,
    loss: f64,
    file_bytes: u64,
    weight_bytes: u64,
    kernels: String,
    /// Of computing, on one thread.
    seconds: f64,
}

#[derive(Serialize)]
struct Prediction {
    row: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<usize>,
    label: usize,
    truth: u32,
    probabilities: Vec<f64>,
}

/// Rows at a time from which the layers that training uses are the quicker ones.
const BATCHED: usize = 8;

/// The probabilities that logits stand for.
fn chances(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().fold(f64::NEG_INFINITY, |most, &logit| most.max(logit.into()));
    let powers: Vec<f64> = logits.iter().map(|&logit| (f64::from(logit) - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / sum).collect()
}

/// The first of the largest.
fn largest(chances: &[f64]) -> usize {
    let better = |best: usize, (at, chance): (usize, &f64)| if *chance > chances[best] { at } else { best };
    chances.iter().enumerate().fold(0, better)
}

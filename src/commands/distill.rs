//! `dunlin distill`: a small model learns what larger ones say.

use super::model::{ArchitectureArgs, ModelFile, load};
use super::output::{self, bytes, count, percent};
use super::summary::plain_table;
use super::{Done, Failure, of_data};
use clap::Args;
use comfy_table::{Cell, CellAlignment};
use dunlin::core::recipe::{DistillationConfig, Logits, ModelConfig, ModelKind};
use dunlin::core::{Digest, Seed};
use dunlin::nn::Threads;
use dunlin::nn::data::Examples;
use dunlin::nn::export::safetensors;
use dunlin::nn::model::Model;
use dunlin::nn::train::{DistillTask, Lesson, distill, evaluate};
use dunlin::server::distill::Kept;
use serde::Serialize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

/// Let a small model learn what a larger one says, or several together
///
/// The student learns the mean of the teachers' logits on the training part of a data set, whose labels need not be right,
/// nor looked at (Hinton et al. 2015). Both are judged on the test part.
///
/// After each pass the student is kept beside the file to write, as FILE.distillation: the same command goes on from there
/// after one that was stopped.
#[derive(Args)]
pub(crate) struct DistillArgs {
    /// The teachers: safetensors, or files of `dunlin compress`
    #[arg(value_name = "FILE", required = true)]
    teachers: Vec<PathBuf>,

    /// The student's architecture, as in a recipe's model.kind
    #[arg(long, value_name = "KIND")]
    student: ModelKind,

    /// Outputs of each of its layers but the last, as in a recipe's model.channels
    #[arg(long, value_name = "N,N", default_value = "")]
    channels: String,

    /// Factor on its channels, as in a recipe's model.width
    #[arg(long, value_name = "F", default_value_t = 1.0)]
    width: f64,

    /// The data set, as in a recipe's data.source
    #[arg(long, value_name = "SPEC")]
    data: String,

    /// Passes over its training part
    #[arg(long, value_name = "N", default_value_t = 5)]
    epochs: u32,

    /// Examples in a batch
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,

    /// Step size of Adam
    #[arg(long, value_name = "R", default_value_t = 0.001)]
    learning_rate: f64,

    /// Temperature by which logits are divided before they are compared
    #[arg(long, value_name = "T", default_value_t = 2.0)]
    temperature: f64,

    /// Hear each teacher less the logarithm of how often it gives each answer: for teachers that know some of the classes
    #[arg(long)]
    adjusted: bool,

    /// Weight of the cross-entropy of the data's own labels
    #[arg(long, value_name = "W", default_value_t = 0.0)]
    labels: f64,

    /// The root of all that is random
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// The file to write
    #[arg(long, value_name = "FILE.safetensors")]
    to: PathBuf,

    #[command(flatten)]
    architecture: ArchitectureArgs,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &DistillArgs) -> Done {
    let positive = |name: &str, value: f64, least: f64| match value >= least && value.is_finite() {
        true => Ok(()),
        false => Err(Failure::usage(format!("{name} {value}: a number of at least {least} is right"))),
    };
    positive("--temperature", args.temperature, 1e-3)?;
    positive("--learning-rate", args.learning_rate, 1e-9)?;
    positive("--labels", args.labels, 0.0)?;
    let split = load(&args.data)?;
    let (train, test) = (Examples::all(split.train), Examples::all(split.test));
    if train.is_empty() || test.is_empty() {
        return Err(Failure::usage(format!("{} has nothing to learn from or to be judged on", args.data)));
    }
    let input = *train.dataset().input();
    let threads = Threads::one();
    let mut teachers = Vec::new();
    for path in &args.teachers {
        let file = ModelFile::read(path)?;
        let mut teacher = file.model(&args.architecture, Some(&input))?;
        if teacher.input() != &input {
            let (expected, actual) = (teacher.input(), input);
            let path = path.display();
            return Err(Failure::usage(format!("{path} takes {expected}, and {} has {actual}", args.data)));
        }
        let params = file.params(&teacher)?;
        let accuracy = evaluate(&mut teacher, &test, &params, &threads).map_err(of_data)?.accuracy();
        let judged = Judged { file: path.display().to_string(), parameters: params.len() as u64, accuracy };
        teachers.push(Teacher { model: teacher, params, judged });
    }
    let config =
        ModelConfig { channels: args.channels.clone(), width: args.width, ..ModelConfig::from(args.student.clone()) };
    let mut student = Model::new(config, &input).map_err(of_data)?;
    let seed = Seed::from_u64(args.seed);
    let mut params = student.init(&seed.derive("model"));
    let config = DistillationConfig {
        epochs: args.epochs,
        batch: args.batch,
        learning_rate: args.learning_rate,
        temperature: args.temperature,
        labels: args.labels,
        ..DistillationConfig::default()
    };
    let logits = if args.adjusted { Logits::Adjusted } else { Logits::Plain };
    let place = PathBuf::from(format!("{}.distillation", args.to.display()));
    let key = key(&student, &config, (args.seed, logits), &teachers, &train);
    let mut kept = match Kept::open(place.clone(), key) {
        Some(kept) => {
            output::note(&format!("going on from {}", place.display()));
            kept
        }
        None => {
            let mut lesson = Lesson::new(&train);
            for Teacher { model, params, .. } in &mut teachers {
                lesson.add(model, params, &train, &threads, logits).map_err(of_data)?;
            }
            Kept::begin(place.clone(), key, lesson, 0.0)
        }
    };
    let (lesson, _) = kept.lesson();
    let task = DistillTask { config: &config, seed: seed.derive("distillation"), threads: &threads, mask: None };
    let spinner = crate::progress::spinner();
    let mut progress = |done, total| {
        spinner.set_message(format!("step {done} of {total}"));
        ControlFlow::Continue(())
    };
    let loss = distill(&mut student, &train, &lesson, &mut params, &task, &mut kept, &mut progress).map_err(of_data)?;
    spinner.finish_and_clear();
    let agreement = lesson.agreement(&mut student, &params, &train, &threads).map_err(of_data)?;
    let accuracy = evaluate(&mut student, &test, &params, &threads).map_err(of_data)?.accuracy();
    let mut about = student.about();
    about.insert("format".to_owned(), "dunlin".to_owned());
    let file = safetensors(student.layout(), &params, &about)?;
    std::fs::write(&args.to, &file)
        .map_err(|error| Failure::other(format!("cannot write {}: {error}", args.to.display())))?;
    Kept::remove(&place);
    let judged = teachers.into_iter().map(|teacher| teacher.judged).collect();
    let student = Judged { file: args.to.display().to_string(), parameters: params.len() as u64, accuracy };
    let result = Distilled { teachers: judged, student, agreement, loss };
    if args.json {
        output::json(&result);
    } else {
        print(&result);
        output::note(&format!("wrote {}, {}", args.to.display(), bytes(file.len() as u64)));
    }
    Ok(ExitCode::SUCCESS)
}

struct Teacher {
    model: Model,
    params: Vec<f32>,
    judged: Judged,
}

/// Of all that the student depends on.
fn key(
    student: &Model,
    config: &DistillationConfig,
    (seed, logits): (u64, Logits),
    teachers: &[Teacher],
    data: &Examples,
) -> Digest {
    let mut all = format!("{:?} {config:?} {seed} {logits:?}", student.about()).into_bytes();
    let floats = |all: &mut Vec<u8>, values: &[f32]| all.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    for Teacher { model, params, .. } in teachers {
        all.extend(format!("{:?}", model.about()).bytes());
        floats(&mut all, params);
    }
    // Row by row, since all of them as floats are many times what a data set takes.
    let mut digest = Digest::of(&all);
    let mut row = Vec::new();
    for &index in data.indices() {
        all.clear();
        all.extend(digest.0);
        row.clear();
        data.dataset().append_row(index, &mut row);
        floats(&mut all, &row);
        all.extend(data.dataset().row_labels(index).iter().flat_map(|label| label.to_le_bytes()));
        digest = Digest::of(&all);
    }
    digest
}

fn print(result: &Distilled) {
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let mut table = plain_table();
    table.set_header(["model", "parameters", "accuracy", "agrees"]);
    for teacher in &result.teachers {
        let figures = [count(teacher.parameters), percent(teacher.accuracy), String::new()];
        table.add_row([Cell::new(&teacher.file)].into_iter().chain(figures.map(right)));
    }
    let student = &result.student;
    let figures = [count(student.parameters), percent(student.accuracy), percent(result.agreement)];
    table.add_row([Cell::new(&student.file)].into_iter().chain(figures.map(right)));
    output::line(table);
}

/// What `--json` prints.
#[derive(Serialize)]
struct Distilled {
    teachers: Vec<Judged>,
    student: Judged,
    /// Share of the training part on which the student says what the teachers say together.
    agreement: f64,
    /// Mean loss of an answer in the last pass, in nats.
    loss: f64,
}

#[derive(Serialize)]
struct Judged {
    file: String,
    parameters: u64,
    accuracy: f64,
}

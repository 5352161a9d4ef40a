//! Training speed as lines of model, batch, examples per second (the median of five passes) and, on Linux, the peak of
//! the process's memory in MiB:
//! `cargo run --release -p dunlin-nn --example throughput [MODEL [BATCH [THREADS [ARITHMETIC]]]]`; without a model or with
//! `all`, those that `scripts/compare-torch` compares, in batches of 10 and 32, in fast arithmetic.
#![allow(clippy::print_stdout, reason = "a program that reports on the terminal")]

use dunlin_core::Seed;
use dunlin_core::recipe::{Arithmetic, ModelConfig, ModelKind, TrainingConfig};
use dunlin_nn::Threads;
use dunlin_nn::data::{Dataset, Examples};
use dunlin_nn::model::{InputShape, Model};
use dunlin_nn::train::{TrainTask, train};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // As every program of dunlin that trains does.
    dunlin_nn::allocator::keep_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "all".into());
    let batches = match arguments.next().as_deref() {
        None | Some("all") => vec![10, 32],
        Some(batch) => vec![batch.parse()?],
    };
    let threads = Threads::new(arguments.next().map_or(Ok(1), |count| count.parse())?)?;
    let arithmetic = match arguments.next().as_deref() {
        None | Some("fast") => Arithmetic::Fast,
        Some("portable") => Arithmetic::Portable,
        Some(other) => return Err(format!("ARITHMETIC is fast or portable, not {other}").into()),
    };
    let compared = ["2nn", "mcmahan-cnn", "resnet8", "resnet20", "mobilenet", "char-lstm", "transformer"];
    let names = if name == "all" { compared.to_vec() } else { vec![name.as_str()] };
    for name in names {
        for &batch in &batches {
            measure(name, batch, &threads, arithmetic)?;
        }
    }
    Ok(())
}

fn measure(
    name: &str,
    batch: u32,
    threads: &Threads,
    arithmetic: Arithmetic,
) -> Result<(), Box<dyn std::error::Error>> {
    let kind: ModelKind = name.parse()?;
    let mnist = InputShape::image(1, 28, 28, 10);
    let colour = InputShape::image(3, 32, 32, 10);
    let (input, rows) = match &kind {
        ModelKind::Trivial => (InputShape::table(1_663_370, 1), 1),
        ModelKind::Softmax | ModelKind::TwoNn | ModelKind::Lenet300 | ModelKind::Mlp => (mnist, 10_000),
        ModelKind::McmahanCnn | ModelKind::Lenet5 => (mnist, 600),
        ModelKind::ResNet8 | ModelKind::SimpleCnn => (colour, 500),
        ModelKind::CharLstm | ModelKind::CharGru => (InputShape::tokens(80, 90, 90), 320),
        ModelKind::Transformer => (InputShape::tokens(64, 1000, 2), 640),
        _ => (colour, 200),
    };
    let shape = if kind == ModelKind::Trivial { InputShape { width: 1, ..input } } else { input };
    let features = shape.features();
    let value = |i: usize| match shape.vocabulary {
        0 => (i * 7919 % 256) as f32 / 255.0,
        vocabulary => (i * 7919 % vocabulary) as f32,
    };
    let values = (0..rows * features).map(value).collect();
    let labels = (0..rows).map(|row| (row % shape.classes) as u32).collect();
    let data = Examples::all(Arc::new(Dataset::new("noise", shape, values, labels)?));
    let mut model = Model::new(ModelConfig { arithmetic, ..ModelConfig::from(&kind) }, &input)?;
    let mut params = model.init(&Seed::from_u64(1));
    let config = TrainingConfig { batch, epochs: 1, learning_rate: 0.01, ..TrainingConfig::default() };
    let mut seconds = Vec::new();
    for round in 1..=5 {
        let task = TrainTask { config: &config, round, seed: Seed::from_u64(round), threads, mask: None };
        let begin = Instant::now();
        train(&mut model, &data, &mut params, &task, &mut |_, _| ControlFlow::Continue(()))?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    println!("{name} {batch} {:.0} {}", rows as f64 / seconds[2], peak_mib().map_or("-".into(), |mib| mib.to_string()));
    Ok(())
}

fn peak_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? / 1024)
}

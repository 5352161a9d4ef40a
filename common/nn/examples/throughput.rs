//! Training speed on one thread, in examples per second, as lines of model, batch and the median of five passes:
//! `cargo run --release -p dunlin-nn --example throughput [MODEL [BATCH]]`; without a model, those that
//! `scripts/compare-torch` compares, in batches of 10 and 32.
#![allow(clippy::print_stdout, reason = "a program that reports on the terminal")]

use dunlin_core::Seed;
use dunlin_core::recipe::{ModelKind, TrainingConfig};
use dunlin_nn::data::{Dataset, Examples};
use dunlin_nn::model::{InputShape, Model};
use dunlin_nn::train::{TrainTask, train};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    if let Some(name) = arguments.next() {
        return measure(&name, arguments.next().unwrap_or_else(|| "10".into()).parse()?);
    }
    for name in ["2nn", "mcmahan-cnn", "resnet8", "resnet20", "char-lstm", "transformer"] {
        for batch in [10, 32] {
            measure(name, batch)?;
        }
    }
    Ok(())
}

fn measure(name: &str, batch: u32) -> Result<(), Box<dyn std::error::Error>> {
    let (kind, input, rows) = match name {
        "softmax" => (ModelKind::Softmax, MNIST, 20_000),
        "2nn" => (ModelKind::TwoNn, MNIST, 10_000),
        "mcmahan-cnn" => (ModelKind::McmahanCnn, MNIST, 500),
        "resnet8" => (ModelKind::ResNet8, InputShape::image(3, 32, 32, 10), 500),
        "resnet20" => (ModelKind::ResNet20, InputShape::image(3, 32, 32, 10), 200),
        "char-lstm" => (ModelKind::CharLstm, InputShape::tokens(80, 90, 90), 320),
        "char-gru" => (ModelKind::CharGru, InputShape::tokens(80, 90, 90), 320),
        "transformer" => (ModelKind::Transformer, InputShape::tokens(64, 1000, 2), 640),
        "trivial" => (ModelKind::Trivial, InputShape::image(1, 1, 1_663_370, 1), 1),
        _ => {
            let known = "softmax, 2nn, mcmahan-cnn, resnet8, resnet20, char-lstm, char-gru, transformer and trivial";
            return Err(format!("{name}: known are {known}").into());
        }
    };
    let features = if kind == ModelKind::Trivial { 1 } else { input.features() };
    let value = |i: usize| match input.vocabulary {
        0 => (i * 7919 % 256) as f32 / 255.0,
        vocabulary => (i * 7919 % vocabulary) as f32,
    };
    let values = (0..rows * features).map(value).collect();
    let shape = if kind == ModelKind::Trivial { InputShape { width: 1, ..input } } else { input };
    let labels = (0..rows).map(|row| (row % shape.classes) as u32).collect();
    let data = Examples::all(Arc::new(Dataset::new("noise", shape, values, labels)?));
    let mut model = Model::new(&kind, &input)?;
    let mut params = model.init(&Seed::from_u64(1));
    let config = TrainingConfig { batch, epochs: 1, learning_rate: 0.01, ..TrainingConfig::default() };
    let mut seconds = Vec::new();
    for round in 1..=5 {
        let task = TrainTask { config: &config, round, seed: Seed::from_u64(round) };
        let begin = Instant::now();
        train(&mut model, &data, &mut params, &task, &mut |_, _| ControlFlow::Continue(()))?;
        seconds.push(begin.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    println!("{name} {batch} {:.0}", rows as f64 / seconds[2]);
    Ok(())
}

const MNIST: InputShape = InputShape::image(1, 28, 28, 10);

//! Local training: whole steps of the models and single operations.
//!
//! `cargo bench -p dunlin-nn`; a name behind `--` chooses. Against torch: `scripts/compare-torch`.

use candle_core::{Device, Tensor, Var};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dunlin_codec::Mask;
use dunlin_core::Seed;
use dunlin_core::recipe::{Arithmetic, ModelConfig, ModelKind, OptimizerKind, TrainingConfig};
use dunlin_nn::Threads;
use dunlin_nn::data::{Dataset, Examples};
use dunlin_nn::model::{InputShape, Model};
use dunlin_nn::ops::{self, Conv2dConfig, Graph, Pool2dConfig};
use dunlin_nn::train::{TrainTask, train};
use std::ops::ControlFlow;
use std::sync::Arc;

const MNIST: InputShape = InputShape::image(1, 28, 28, 10);
const CIFAR: InputShape = InputShape::image(3, 32, 32, 10);

/// Rows of a pattern without meaning.
fn noise(input: InputShape, rows: usize) -> Examples {
    let value = |i: usize| match input.vocabulary {
        0 => (i * 7919 % 256) as f32 / 255.0,
        vocabulary => (i * 7919 % vocabulary) as f32,
    };
    let values = (0..rows * input.features()).map(value).collect();
    let labels = (0..rows * input.targets).map(|i| (i % input.classes) as u32).collect();
    Examples::all(Arc::new(Dataset::new("noise", input, values, labels).expect("a data set")))
}

/// Measures an epoch of a model over so many rows.
fn epoch(c: &mut Criterion, group: &str, name: &str, config: &ModelConfig, training: &TrainingConfig, threads: usize) {
    let (input, rows) = match config.kind {
        ModelKind::TwoNn => (MNIST, 600),
        ModelKind::McmahanCnn => (MNIST, 60),
        ModelKind::CharLstm => (InputShape::tokens(80, 90, 90), 20),
        ModelKind::Transformer => (InputShape::tokens(64, 1000, 2), 40),
        _ => (CIFAR, 40),
    };
    let data = noise(input, rows);
    let mut model = Model::new(config, &input).expect("a model");
    let mut params = model.init(&Seed::from_u64(1));
    let threads = Threads::new(threads).expect("threads");
    let mut group = c.benchmark_group(group);
    group.sample_size(10).throughput(Throughput::Elements(rows as u64));
    group.bench_function(BenchmarkId::new(name, training.batch), |bench| {
        bench.iter(|| {
            let task = TrainTask { config: training, round: 1, seed: Seed::from_u64(2), threads: &threads, mask: None };
            train(&mut model, &data, &mut params, &task, &mut |_, _| ControlFlow::Continue(())).expect("training")
        });
    });
    group.finish();
}

fn models(c: &mut Criterion) {
    dunlin_nn::allocator::keep_freed_memory();
    let kinds = [
        ModelKind::TwoNn,
        ModelKind::McmahanCnn,
        ModelKind::ResNet8,
        ModelKind::ResNet20,
        ModelKind::MobileNet,
        ModelKind::EfficientNet,
        ModelKind::CharLstm,
        ModelKind::Transformer,
    ];
    for kind in &kinds {
        for batch in [10, 32] {
            let training = TrainingConfig { batch, learning_rate: 0.01, ..TrainingConfig::default() };
            epoch(c, "examples", &kind.to_string(), &kind.into(), &training, 1);
        }
    }
    let training = TrainingConfig { batch: 10, learning_rate: 0.01, ..TrainingConfig::default() };
    for kind in [ModelKind::McmahanCnn, ModelKind::ResNet8] {
        epoch(c, "examples with two threads", &kind.to_string(), &ModelConfig::from(&kind), &training, 2);
        let portable = ModelConfig { arithmetic: Arithmetic::Portable, ..kind.clone().into() };
        epoch(c, "examples in portable arithmetic", &kind.to_string(), &portable, &training, 1);
    }
}

/// Models of which a mask leaves so many weights of each matrix, and dense ones (1.0), on images of MNIST.
fn pruned(c: &mut Criterion) {
    let data = noise(MNIST, 600);
    for (kind, batch) in
        [(ModelKind::Lenet300, 10), (ModelKind::Lenet300, 64), (ModelKind::Lenet5, 10), (ModelKind::Lenet5, 64)]
    {
        let mut group = c.benchmark_group("pruned");
        group.sample_size(10).throughput(Throughput::Elements(600));
        for density in [1.0, 0.25, 0.1, 0.05, 0.02] {
            let mut model = Model::new(&kind, &MNIST).expect("a model");
            let mut params = model.init(&Seed::from_u64(1));
            let layout = model.layout().clone();
            let is_left = |index: usize| {
                let tensor = (0..layout.tensors().len()).find(|&tensor| layout.range(tensor).contains(&index));
                let is_vector = tensor.is_some_and(|tensor| layout.tensors()[tensor].shape.len() == 1);
                // A fraction of the golden ratio's multiples falls below any share that often.
                is_vector || (index as f64 * 0.618_033_988_749_895).fract() < density
            };
            let mask = Mask::new(Arc::new(layout.segments()), is_left).expect("something is left");
            mask.gather(&mut params);
            params = mask.scatter(&params);
            let training = TrainingConfig { batch, learning_rate: 0.01, ..TrainingConfig::default() };
            let mask = (density < 1.0).then_some(&mask);
            group.bench_function(BenchmarkId::new(format!("{kind} of batch {batch}"), density), |bench| {
                bench.iter(|| {
                    let (config, seed) = (&training, Seed::from_u64(2));
                    let task = TrainTask { config, round: 1, seed, threads: &Threads::one(), mask };
                    train(&mut model, &data, &mut params, &task, &mut |_, _| ControlFlow::Continue(()))
                        .expect("training")
                });
            });
        }
        group.finish();
    }
}

fn optimizers(c: &mut Criterion) {
    let sgd = TrainingConfig { batch: 10, learning_rate: 1e-3, ..TrainingConfig::default() };
    let all = [
        ("sgd", sgd.clone()),
        ("momentum", TrainingConfig { momentum: 0.9, ..sgd.clone() }),
        ("proximal and clipped", TrainingConfig { proximal: 0.01, clip_norm: 1.0, ..sgd.clone() }),
        ("adam", TrainingConfig { optimizer: OptimizerKind::Adam, ..sgd }),
    ];
    for (name, training) in all {
        epoch(c, "optimizers on 2nn", name, &ModelKind::TwoNn.into(), &training, 1);
    }
}

/// A variable of reproducible values in ±½.
fn variable(shape: impl Into<candle_core::Shape>) -> Var {
    let shape = shape.into();
    let values: Vec<f32> = (0..shape.elem_count()).map(|i| (i * 7919 % 1024) as f32 / 1024.0 - 0.5).collect();
    Var::from_tensor(&Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor")).expect("a variable")
}

/// Forward and, by candle's `backward`, all gradients of single operations, on activations of a batch of ten.
fn operations(c: &mut Criterion) {
    let mut group = c.benchmark_group("operations");
    let mut add = |name: &str, forward: &dyn Fn(&mut Graph<'_>) -> candle_core::Result<Tensor>| {
        group.bench_function(name, |bench| {
            bench.iter(|| forward(&mut Graph::candle()).and_then(|y| y.backward()).expect("an operation"));
        });
    };
    let image = variable((10, 16, 16, 32));
    let (w, b) = (variable((32, 32, 3, 3)), variable(32));
    let same = Conv2dConfig { padding: [1, 1], ..Conv2dConfig::default() };
    add("conv2d 3x3", &|graph| ops::conv2d(graph, &image, &w, Some(&b), same));
    let w = variable((64, 32, 1, 1));
    add("conv2d 1x1", &|graph| ops::conv2d(graph, &image, &w, None, Conv2dConfig::default()));
    let w = variable((32, 1, 3, 3));
    add("conv2d depthwise 3x3", &|graph| ops::conv2d(graph, &image, &w, None, Conv2dConfig { groups: 32, ..same }));
    let (gamma, beta) = (variable(32), variable(32));
    add("group_norm_relu", &|graph| ops::group_norm_relu(graph, &image, &gamma, &beta, 8));
    add("max_pool2d", &|graph| ops::max_pool2d(graph, &image, Pool2dConfig::square(2)));
    let (x, w, b) = (variable((10, 784)), variable((200, 784)), variable(200));
    add("linear_relu 784 to 200", &|graph| ops::linear_relu(graph, &x, &w, &b));
    let (x, w, b) = (variable((10, 40, 64)), variable((4 * 128, 64 + 128)), variable(4 * 128));
    add("lstm of 40 steps", &|graph| ops::lstm(graph, &x, &w, &b));
    let qkv = variable((10, 64, 3 * 128));
    add("self_attention of 64 steps", &|graph| ops::self_attention(graph, &qkv, 4, true));
    group.finish();
}

criterion_group!(benches, models, pruned, optimizers, operations);
criterion_main!(benches);

//! Writes models as ONNX, in f32 and with 8-bit layers, with inputs and our own logits, for `scripts/check-onnx`:
//! onnx_cases DIR
#![expect(clippy::print_stdout, reason = "this is its output")]

use dunlin_codec::container::{Tensor, Values, Width};
use dunlin_core::recipe::{DataConfig, ModelConfig, ModelKind, TrainingConfig};
use dunlin_core::{Layout, Seed, TensorSpec};
use dunlin_nn::data::{self, Dataset, Examples};
use dunlin_nn::infer::{Calibration, Engine, Kernels, calibrate};
use dunlin_nn::model::{InputShape, Model};
use dunlin_nn::train::{TrainTask, train};
use dunlin_nn::{Threads, export, onnx, small};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const ROWS: usize = 20;

fn main() {
    let dir = std::env::args().nth(1).expect("a folder to write to");
    let dir = Path::new(&dir);
    let grey = InputShape::image(1, 28, 28, 10);
    let colour = InputShape::image(3, 32, 32, 10);
    let mut cases: Vec<(String, ModelConfig, InputShape)> = [
        (ModelKind::Softmax, grey),
        (ModelKind::TwoNn, grey),
        (ModelKind::Lenet300, grey),
        (ModelKind::Lenet5, grey),
        (ModelKind::McmahanCnn, grey),
        (ModelKind::TextbookCnn, grey),
        (ModelKind::Mlp, InputShape::table(13, 2)),
        (ModelKind::SimpleCnn, colour),
        (ModelKind::Vgg9, colour),
        (ModelKind::Vgg11s, colour),
        (ModelKind::ResNet8, colour),
        (ModelKind::ResNet20, colour),
        (ModelKind::MobileNet, colour),
        (ModelKind::EfficientNet, colour),
    ]
    .into_iter()
    .map(|(kind, input)| (kind.to_string(), kind.into(), input))
    .collect();
    let scaled = ModelConfig { scaling: 1.0, ..ModelKind::EfficientNet.into() };
    cases.push(("efficientnet-scaled".into(), scaled, InputShape::image(3, 24, 20, 7)));
    for (name, config, input) in cases {
        let model = Model::new(config, &input).expect("a model of the zoo");
        let params = model.init(&Seed::from_u64(1));
        write(dir, &name, &model, &params, &noise(ROWS * input.features()));
        println!("{name}");
    }
    let (tokens, text) = (InputShape::tokens(17, 50, 3), InputShape::text(12, 30));
    for kind in [ModelKind::CharLstm, ModelKind::CharGru, ModelKind::Transformer] {
        for (name, input) in [("tokens", tokens), ("text", text), ("rows", InputShape::sequence(9, 6, 4))] {
            let model = Model::new(kind.clone(), &input).expect("a model of the zoo");
            let params = model.init(&Seed::from_u64(1));
            let mut x = noise(ROWS * input.features());
            if input.vocabulary > 0 {
                x.iter_mut().for_each(|x| *x = (*x * input.vocabulary as f32).floor());
            }
            write_sequence(dir, &format!("{kind}-{name}"), &model, &params, &x);
            println!("{kind}-{name}");
        }
    }
    for (name, model, params, rows) in trained() {
        write(dir, name, &model, &params, &rows);
        println!("{name}");
    }
}

/// Numbers from 0 to 1.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    (0..count).map(|_| next()).collect()
}

/// Models that have learned the digits, with rows of them: as it is, with a tenth of its weights, and without most of its
/// filters and units.
fn trained() -> Vec<(&'static str, Model, Vec<f32>, Vec<f32>)> {
    let split = data::load(&DataConfig::default(), &Seed::from_u64(1)).expect("embedded data");
    let (examples, input) = (Examples::all(Arc::clone(&split.train)), *split.train.input());
    let kind: ModelConfig = ModelKind::TextbookCnn.into();
    let mut model = Model::new(kind, &input).expect("a model of the zoo");
    let mut params = model.init(&Seed::from_u64(1));
    let config = TrainingConfig { epochs: 3, ..TrainingConfig::default() };
    let task = TrainTask { config: &config, round: 1, seed: Seed::from_u64(1), threads: &Threads::one(), mask: None };
    train(&mut model, &examples, &mut params, &task, &mut |_, _| ControlFlow::Continue(())).expect("training");

    let mut magnitudes: Vec<f32> = params.iter().map(|value| value.abs()).collect();
    let least = *magnitudes.select_nth_unstable_by(params.len() * 9 / 10, f32::total_cmp).1;
    let sparse: Vec<f32> = params.iter().map(|&value| if value.abs() < least { 0.0 } else { value }).collect();

    let mut fewer = params.clone();
    for (i, spec) in model.layout().tensors().iter().enumerate().filter(|(i, _)| *i < 2) {
        // Of the first layer, three filters of four with their biases.
        let range = model.layout().range(i);
        let per_filter = range.len() / spec.shape[0];
        for (filter, values) in fewer[range].chunks_mut(per_filter).enumerate() {
            if filter % 4 > 0 {
                values.fill(0.0);
            }
        }
    }
    let (small, fewer) = model.compacted(&fewer).expect("as many parameters as before");
    assert!(fewer.len() < params.len() / 2, "{} of {} are left", fewer.len(), params.len());
    let mut rows = Vec::new();
    (0..ROWS as u32).for_each(|row| split.test.append_row(row, &mut rows));
    let whole = || Model::new(ModelConfig::from(ModelKind::TextbookCnn), &input).expect("a model of the zoo");
    vec![
        ("trained", model, params, rows.clone()),
        ("trained-sparse", whole(), sparse, rows.clone()),
        ("trained-fewer-filters", small, fewer, rows),
    ]
}

fn tensors(model: &Model, params: &[f32]) -> Vec<Tensor> {
    let specs = model.layout().tensors().iter().enumerate();
    let tensor = |(i, spec): (usize, &TensorSpec)| Tensor {
        name: spec.name.clone(),
        shape: spec.shape.clone(),
        values: Values::F32(params[model.layout().range(i)].to_vec()),
    };
    specs.map(tensor).collect()
}

/// A model of sequences, which is written in f32 alone; what to expect is what training computes.
fn write_sequence(dir: &Path, name: &str, model: &Model, params: &[f32], x: &[f32]) {
    let file = onnx::onnx(model, &tensors(model, params), None, &model.about()).expect("a model of sequences");
    std::fs::write(dir.join(format!("{name}.onnx")), file).expect("a folder that can be written to");
    let mut model = Model::new(model.kind().clone(), model.input()).expect("the same again");
    model.load(params).expect("as many parameters");
    let (input, logits) = (*model.input(), model.logits(x).expect("whole rows"));
    let layout = Layout::new(vec![
        TensorSpec::new("x", [ROWS, input.features()]),
        TensorSpec::new("f32", [ROWS * input.targets, input.classes]),
    ]);
    let values = [x.to_vec(), logits].concat();
    let file = export::safetensors(&layout.expect("two names"), &values, &BTreeMap::new()).expect("as many values");
    std::fs::write(dir.join(format!("{name}.safetensors")), file).expect("a folder that can be written to");
}

fn write(dir: &Path, name: &str, model: &Model, params: &[f32], x: &[f32]) {
    let input = model.input();
    let mut tensors = tensors(model, params);
    let data = Dataset::new("cases", *input, x.to_vec(), vec![0; ROWS]).expect("rows of the model's shape");
    let ranges = calibrate(model, &tensors, &Examples::all(Arc::new(data))).expect("a model with a plan");
    let dense = Engine::new(model, &tensors, &Calibration::new(), Kernels::Dense).expect("a model with a plan");
    let file = onnx::onnx(model, &tensors, None, &model.about()).expect("a model with a plan");
    std::fs::write(dir.join(format!("{name}.onnx")), file).expect("a folder that can be written to");
    for tensor in tensors.iter_mut().filter(|tensor| tensor.shape.len() >= 2) {
        tensor.values = small::quantize(&tensor.values.to_f32(), &tensor.shape, Width::Eight);
    }
    let int8 = Engine::new(model, &tensors, &ranges, Kernels::Auto).expect("a model with a plan");
    let file = onnx::onnx(model, &tensors, Some(&ranges), &model.about()).expect("ranges of all layers");
    std::fs::write(dir.join(format!("{name}.int8.onnx")), file).expect("a folder that can be written to");

    let classes = input.classes;
    let layout = Layout::new(vec![
        TensorSpec::new("x", [ROWS, input.features()]),
        TensorSpec::new("f32", [ROWS, classes]),
        TensorSpec::new("int8", [ROWS, classes]),
    ]);
    let values = [x.to_vec(), dense.logits(x), int8.logits(x)].concat();
    let file = export::safetensors(&layout.expect("three names"), &values, &BTreeMap::new()).expect("as many values");
    std::fs::write(dir.join(format!("{name}.safetensors")), file).expect("a folder that can be written to");
}

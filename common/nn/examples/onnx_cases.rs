//! Writes models as ONNX, in f32 and with 8-bit layers, with inputs and our own logits, for `scripts/check-onnx`:
//! onnx_cases DIR
#![expect(clippy::print_stdout, reason = "this is its output")]

use dunlin_codec::container::{Tensor, Values, Width};
use dunlin_core::recipe::{ModelConfig, ModelKind};
use dunlin_core::{Layout, Seed, TensorSpec};
use dunlin_nn::data::{Dataset, Examples};
use dunlin_nn::infer::{Calibration, Engine, Kernels, calibrate};
use dunlin_nn::model::{InputShape, Model};
use dunlin_nn::{export, onnx, small};
use std::collections::BTreeMap;
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
        write(dir, &name, config, &input);
        println!("{name}");
    }
}

fn write(dir: &Path, name: &str, config: ModelConfig, input: &InputShape) {
    let model = Model::new(config, input).expect("a model of the zoo");
    let params = model.init(&Seed::from_u64(1));
    let specs = model.layout().tensors().iter().enumerate();
    let mut tensors: Vec<Tensor> = specs
        .map(|(i, spec)| Tensor {
            name: spec.name.clone(),
            shape: spec.shape.clone(),
            values: Values::F32(params[model.layout().range(i)].to_vec()),
        })
        .collect();
    let mut state = 1u32;
    let mut x = Vec::new();
    for _ in 0..ROWS * input.features() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        x.push((state >> 8) as f32 / (1 << 24) as f32);
    }
    let data = Dataset::new("cases", *input, x.clone(), vec![0; ROWS]).expect("rows of the model's shape");
    let ranges = calibrate(&model, &tensors, &Examples::all(Arc::new(data))).expect("a model with a plan");
    let dense = Engine::new(&model, &tensors, &Calibration::new(), Kernels::Dense).expect("a model with a plan");
    let file = onnx::onnx(&model, &tensors, None, &model.about()).expect("a model with a plan");
    std::fs::write(dir.join(format!("{name}.onnx")), file).expect("a folder that can be written to");
    for tensor in tensors.iter_mut().filter(|tensor| tensor.shape.len() >= 2) {
        tensor.values = small::quantize(&tensor.values.to_f32(), &tensor.shape, Width::Eight);
    }
    let int8 = Engine::new(&model, &tensors, &ranges, Kernels::Auto).expect("a model with a plan");
    let file = onnx::onnx(&model, &tensors, Some(&ranges), &model.about()).expect("ranges of all layers");
    std::fs::write(dir.join(format!("{name}.int8.onnx")), file).expect("a folder that can be written to");

    let classes = input.classes;
    let layout = Layout::new(vec![
        TensorSpec::new("x", [ROWS, input.features()]),
        TensorSpec::new("f32", [ROWS, classes]),
        TensorSpec::new("int8", [ROWS, classes]),
    ]);
    let values = [x.clone(), dense.logits(&x), int8.logits(&x)].concat();
    let file = export::safetensors(&layout.expect("three names"), &values, &BTreeMap::new()).expect("as many values");
    std::fs::write(dir.join(format!("{name}.safetensors")), file).expect("a folder that can be written to");
}

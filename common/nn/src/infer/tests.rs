//! Every plan against what its architecture computes, and small kernels against dense ones.

use super::*;
use crate::data::{Dataset, Examples};
use crate::model::InputShape;
use crate::small::quantize;
use candle_core::{Device, Tensor as CandleTensor};
use dunlin_core::Seed;
use dunlin_core::recipe::{ModelConfig, ModelKind};
use std::sync::Arc;

pub(crate) fn numbers(seed: u32, len: usize) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// A model with parameters, and its tensors.
pub(crate) fn model(config: ModelConfig, input: &InputShape) -> (Model, Vec<Tensor>) {
    let mut model = Model::new(config, input).unwrap();
    let mut params = model.init(&Seed::from_u64(3));
    // Norms that are the identity would hide mistakes.
    params.iter_mut().zip(numbers(5, model.layout().len())).for_each(|(param, noise)| *param += 0.05 * noise);
    model.load(&params).unwrap();
    let tensors = tensors(&model, &params);
    (model, tensors)
}

fn tensors(model: &Model, params: &[f32]) -> Vec<Tensor> {
    let specs = model.layout().tensors().iter().enumerate();
    specs
        .map(|(i, spec)| Tensor {
            name: spec.name.clone(),
            shape: spec.shape.clone(),
            values: Values::F32(params[model.layout().range(i)].to_vec()),
        })
        .collect()
}

fn expected(model: &Model, x: &[f32]) -> Vec<f32> {
    let features = model.input().features();
    let x = CandleTensor::from_vec(x.to_vec(), (x.len() / features, features), &Device::Cpu).unwrap();
    model.infer(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(1e-6f32, |largest, b| largest.max(b.abs()));
    a.iter().zip(b).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest
}

/// Every kind that has a plan.
pub(crate) fn zoo() -> Vec<(ModelConfig, InputShape)> {
    let image = InputShape::image(3, 32, 32, 10);
    let odd = InputShape::image(1, 29, 27, 5);
    let small = InputShape::image(3, 13, 16, 4);
    let config = |kind: ModelKind| ModelConfig::from(kind);
    vec![
        (config(ModelKind::Softmax), odd),
        (config(ModelKind::TwoNn), odd),
        (config(ModelKind::Mlp), InputShape::table(9, 2)),
        (config(ModelKind::Lenet300), odd),
        (config(ModelKind::McmahanCnn), odd),
        (config(ModelKind::Lenet5), odd),
        (config(ModelKind::SimpleCnn), image),
        (config(ModelKind::Vgg9), image),
        (config(ModelKind::Vgg11s), image),
        (config(ModelKind::ResNet8), small),
        (config(ModelKind::ResNet20), small),
        (ModelConfig { width: 0.5, ..config(ModelKind::MobileNet) }, small),
        (config(ModelKind::EfficientNet), small),
        (ModelConfig { scaling: 1.0, ..config(ModelKind::EfficientNet) }, small),
    ]
}

#[test]
fn every_plan_computes_what_its_architecture_does() {
    for (config, input) in zoo() {
        let (model, tensors) = model(config.clone(), &input);
        let x = numbers(11, 3 * input.features());
        let expected = expected(&model, &x);
        for kernels in [Kernels::Dense, Kernels::Sparse] {
            let engine = Engine::new(&model, &tensors, &Calibration::new(), kernels).unwrap();
            let together = engine.logits(&x);
            let difference_found = difference(&together, &expected);
            assert!(difference_found < 2e-5, "{config:?} with {kernels:?} kernels: {difference_found}");
            let alone: Vec<f32> = x.chunks(input.features()).flat_map(|x| engine.logits(x)).collect();
            assert!(difference(&alone, &expected) < 2e-5, "{config:?} with {kernels:?} kernels, one by one");
        }
    }
}

#[test]
fn eight_bits_compute_nearly_the_same_and_take_a_quarter_of_the_memory() {
    for (config, input) in zoo() {
        let (model, mut tensors) = model(config.clone(), &input);
        let x = numbers(11, 20 * input.features());
        let data = Dataset::new("test", input, x.clone(), vec![0; 20]).unwrap();
        let ranges = calibrate(&model, &tensors, &Examples::all(Arc::new(data))).unwrap();
        let dense = Engine::new(&model, &tensors, &ranges, Kernels::Dense).unwrap();
        for tensor in tensors.iter_mut().filter(|tensor| tensor.shape.len() >= 2) {
            tensor.values = quantize(&tensor.values.to_f32(), &tensor.shape, Width::Eight);
        }
        let small = Engine::new(&model, &tensors, &ranges, Kernels::Auto).unwrap();
        assert!(small.kernels().any(|kernel| kernel == "int8"), "{config:?}");
        let difference = difference(&small.logits(&x), &expected(&model, &x));
        assert!(difference < 0.08, "{config:?}: {difference}");
        if small.kernels().all(|kernel| kernel == "int8") && dense.weight_bytes() > 100_000 {
            assert!(small.weight_bytes() * 7 < dense.weight_bytes() * 2, "{config:?}");
        }
    }
}

#[test]
fn sparse_kernels_are_chosen_for_sparse_tensors() {
    let (model, mut tensors) = model(ModelKind::TwoNn.into(), &InputShape::image(1, 28, 28, 10));
    let Values::F32(values) = &mut tensors[0].values else { unreachable!() };
    values.iter_mut().enumerate().filter(|(i, _)| i % 20 != 0).for_each(|(_, value)| *value = 0.0);
    let engine = Engine::new(&model, &tensors, &Calibration::new(), Kernels::Auto).unwrap();
    assert_eq!(engine.kernels().collect::<Vec<_>>(), ["sparse", "dense", "dense"]);
}

#[test]
fn a_range_is_read_back_and_its_zero_is_a_level() {
    let range = Range { least: -1.5, largest: 0.1 };
    assert_eq!(Range::from_word(&range.to_word()), Some(range));
    for word in ["", "1 2", "-1", "-1 inf", "0 NaN"] {
        assert_eq!(Range::from_word(word), None, "{word}");
    }
    let (scale, zero) = range.scale_and_zero();
    assert_eq!((scale, zero), (1.6 / 255.0, 239));
    assert_eq!(Range { least: 0.0, largest: 0.0 }.scale_and_zero(), (1.0, 0));
}

#[test]
fn models_of_sequences_say_that_they_have_no_plan() {
    let (model, tensors) = model(ModelKind::CharGru.into(), &InputShape::text(5, 20));
    let error = Engine::new(&model, &tensors, &Calibration::new(), Kernels::Auto).unwrap_err();
    assert!(error.to_string().starts_with("model.kind = char-gru: "), "{error}");
}

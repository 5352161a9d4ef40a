//! Models of candle's own operations, as on a graphics processor, against the kernels.

use super::*;
use crate::Threads;
use crate::data::{Dataset, Examples};
use crate::train::{Evaluation, TrainResult, TrainTask, evaluate, train};
use dunlin_core::recipe::TrainingConfig;
use std::ops::ControlFlow;

/// The logits and all gradients of a batch of four, and the loss.
fn computed(model: &Model, x: &Tensor) -> (Vec<f32>, f64) {
    let input = model.input();
    let labels: Vec<u32> = (0..4 * input.targets).map(|i| (i * 7 % input.classes) as u32).collect();
    let gradients = model.gradients(x, Target::Labels(&labels), labels.len(), Some(Seed::from_u64(9))).unwrap();
    let mut all: Vec<f32> = model.infer(x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    for (gradient, tensor) in gradients.tensors.into_iter().zip(model.layout().tensors()) {
        let gradient = gradient.unwrap_or_else(|| panic!("{}: no gradient of {}", model.kind(), tensor.name));
        all.extend(gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }
    (all, gradients.loss)
}

#[test]
fn every_model_computes_the_same_with_candle_s_own_operations() {
    for kind in trainable() {
        for input in small_inputs(&kind) {
            let mut here = Model::new(&kind, &input).unwrap();
            let mut elsewhere = Model::new(&kind, &input).unwrap().composed_on(&Device::Cpu).unwrap();
            let seed = Seed::from_u64(7);
            let mut params = here.init(&seed);
            // Biases that are not zero, too.
            params.iter_mut().enumerate().for_each(|(i, value)| *value += (i % 7) as f32 * 0.003);
            here.load(&params).unwrap();
            elsewhere.load(&params).unwrap();
            let x = values(&input, 4, &mut seed.rng()).to_dtype(DType::F32).unwrap();
            let ((ours, our_loss), (theirs, their_loss)) = (computed(&here, &x), computed(&elsewhere, &x));
            assert!((our_loss - their_loss).abs() < 1e-5 * our_loss, "{kind}: {our_loss} {their_loss}");
            let largest = ours.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let error = ours.iter().zip(&theirs).fold(0f32, |error, (a, b)| error.max((a - b).abs()));
            assert_eq!(ours.len(), theirs.len());
            assert!(error < 2e-5 * largest, "{kind} on {input:?}: {error} of {largest}");
        }
    }
}

#[test]
fn training_elsewhere_moves_the_caller_s_parameters_and_is_judged_alike() {
    let input = InputShape::image(1, 8, 8, 10);
    let values = (0..40 * 64).map(|i| (i * 7919 % 256) as f32 / 255.0).collect();
    let labels = (0..40).map(|i| i % 10).collect();
    let data = Examples::all(Arc::new(Dataset::new("noise", input, values, labels).unwrap()));
    let config = TrainingConfig { batch: 16, epochs: 2, momentum: 0.9, ..TrainingConfig::default() };
    let run = |mut model: Model| -> (Vec<f32>, TrainResult, Evaluation) {
        let mut params = model.init(&Seed::from_u64(1));
        let task =
            TrainTask { config: &config, round: 1, seed: Seed::from_u64(2), threads: &Threads::one(), mask: None };
        let result = train(&mut model, &data, &mut params, &task, &mut |_, _| ControlFlow::Continue(())).unwrap();
        let evaluation = evaluate(&mut model, &data, &params, &Threads::one()).unwrap();
        (params, result, evaluation)
    };
    let here = run(Model::new(&ModelKind::ResNet8, &input).unwrap());
    let elsewhere = run(Model::new(&ModelKind::ResNet8, &input).unwrap().composed_on(&Device::Cpu).unwrap());
    let start = Model::new(&ModelKind::ResNet8, &input).unwrap().init(&Seed::from_u64(1));
    assert!(start.iter().zip(&here.0).any(|(a, b)| (a - b).abs() > 1e-2));
    let error = here.0.iter().zip(&elsewhere.0).fold(0f32, |error, (a, b)| error.max((a - b).abs()));
    assert!(error < 1e-3, "{error}");
    assert_eq!(here.1.steps, elsewhere.1.steps);
    assert_eq!(here.2.correct, elsewhere.2.correct);
    assert!((here.2.loss() - elsewhere.2.loss()).abs() < 1e-3);
}

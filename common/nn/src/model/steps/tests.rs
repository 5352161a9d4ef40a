//! What steps that are learned round to, and how they are trained.

use super::*;
use crate::Threads;
use crate::data::{self, Examples};
use crate::model::{Device, InputShape, Model, Target};
use crate::small;
use crate::train::{TrainTask, evaluate, train};
use dunlin_codec::container::Width;
use dunlin_core::Seed;
use dunlin_core::recipe::{DataConfig, ModelKind, OptimizerKind, TrainingConfig};
use std::ops::ControlFlow;

fn config(weights: WeightFormat) -> ModelConfig {
    ModelConfig { weights, steps: Steps::Learned, ..ModelKind::TwoNn.into() }
}

fn model(weights: WeightFormat) -> Model {
    Model::new(config(weights), &InputShape::image(1, 4, 4, 3)).unwrap()
}

fn learned(weights: WeightFormat, layout: &Layout) -> LearnedSteps {
    LearnedSteps::of(weights, layout, layout.tensors().len() - 1).unwrap()
}

/// A matrix [2, 4], a vector [2], and so many steps.
fn layout(steps: usize) -> Layout {
    let step = TensorSpec::new("w.step", [steps]);
    Layout::new(vec![TensorSpec::new("w", [2, 4]), TensorSpec::new("b", [2]), step]).unwrap()
}

#[test]
fn a_layout_ends_with_a_step_for_each_scale_that_would_be_fitted() {
    let shapes = |weights| -> Vec<(String, Vec<usize>)> {
        let model = model(weights);
        let steps = model.layout().tensors().iter().enumerate().filter(|(index, _)| model.is_step(*index));
        steps.map(|(_, tensor)| (tensor.name.clone(), tensor.shape.clone())).collect()
    };
    let named = |lens: [usize; 3]| -> Vec<(String, Vec<usize>)> {
        ["fc1", "fc2", "fc3"].iter().zip(lens).map(|(name, len)| (format!("{name}.weight.step"), vec![len])).collect()
    };
    assert_eq!(shapes(WeightFormat::Int8), named([200, 200, 3]));
    assert_eq!(shapes(WeightFormat::Int4), named([200, 200, 3]));
    assert_eq!(shapes(WeightFormat::Ternary), named([1, 1, 1]));
    assert!(shapes(WeightFormat::Binary).is_empty() && shapes(WeightFormat::F32).is_empty());
}

#[test]
fn weights_become_the_nearest_level_that_is_not_clipped() {
    let mut params = [0.2, 0.25, 0.75, -9.0, 0.0, 0.4, -0.6, 3.5, 0.3, 0.7, 0.5, -1.0];
    learned(WeightFormat::Int4, &layout(2)).round(&mut params);
    assert_eq!(params, [0.0, 0.0, 1.0, -3.5, 0.0, 0.0, -1.0, 4.0, 0.3, 0.7, 0.5, -1.0], "halves to even, Q = 7");
    let mut params = [0.2, 0.25, 0.75, -9.0, 0.0, 0.4, -0.6, 3.5, 0.3, 0.7, 0.5];
    learned(WeightFormat::Ternary, &layout(1)).round(&mut params);
    assert_eq!(params, [0.0, 0.0, 0.5, -0.5, 0.0, 0.5, -0.5, 0.5, 0.3, 0.7, 0.5]);
}

#[test]
fn whatever_a_step_has_become_its_width_is_positive_finite_and_a_brain_float() {
    for step in [0.0, -0.0, 1e-30, -1e-30, f32::MIN_POSITIVE / 4.0, 0.1, -0.1, 7.3, f32::MAX, f32::MIN, f32::INFINITY] {
        let width = width(step);
        assert!((LEAST_STEP..=MOST_STEP).contains(&width) && width.to_bits() & 0xffff == 0, "{step}: {width}");
        assert_eq!(width, super::width(-step));
        assert!((f32::from(i8::MAX) * width).is_finite());
    }
    assert_eq!((width(0.5), width(-3.0), width(0.0)), (0.5, 3.0, LEAST_STEP));
}

#[test]
fn steps_begin_as_the_paper_says() {
    let layout = layout(2);
    let mut params = vec![0.5, -0.25, 1.0, 0.25, 0.0, 0.0, 0.0, 0.0, 9.0, 9.0];
    learned(WeightFormat::Int4, &layout).init(&mut params);
    // 2·0.5/√7, and 1/√(4·7) for weights that are all zero.
    assert_eq!(params[10..], [1.0 / 7f32.sqrt(), 1.0 / 28f32.sqrt()].map(width));
    let model = model(WeightFormat::Ternary);
    let params = model.init(&Seed::from_u64(1));
    let plain = Model::new(ModelKind::TwoNn, model.input()).unwrap();
    assert_eq!(params[..plain.layout().len()], plain.init(&Seed::from_u64(1)), "weights begin as they always do");
}

/// ⌊·⌉ replaced by x + (⌊x₀⌉ − x₀), which has the slope that the straight-through estimator takes it to have.
fn relaxed(v: f64, s: f64, at: (f64, f64), most: f64) -> f64 {
    let clip = |x: f64| x.clamp(-most, most);
    let (place, place_at) = (clip(v / s), clip(at.0 / at.1));
    (place + place_at.round_ties_even() - place_at) * s
}

#[test]
fn slopes_are_the_finite_differences_of_the_definition() {
    for most in [1.0, 7.0, 127.0] {
        for i in -300..300 {
            let (v, s) = (f64::from(i) * most / 199.7, 1.1);
            let difference = 1e-6;
            if ((v / s).abs() - most).abs() < 1e-4 {
                continue;
            }
            let slope = Slope::of((v / s) as f32, most as f32);
            let by = |dv: f64, ds: f64| {
                let at = |sign: f64| relaxed(v + sign * dv, s + sign * ds, (v, s), most);
                (at(1.0) - at(-1.0)) / (2.0 * difference)
            };
            assert!((by(difference, 0.0) - f64::from(slope.of_weight)).abs() < 1e-4, "{v} {most}");
            assert!((by(0.0, difference) - f64::from(slope.of_step)).abs() < 1e-4 * most, "{v} {most}");
        }
    }
}

/// Some examples' loss, with the weights that a model computes with given.
fn loss(plain: &mut Model, rounded: &[f32], x: &Tensor, labels: &[u32]) -> f64 {
    plain.load(rounded).unwrap();
    plain.gradients(x, Target::Labels(labels), labels.len(), None).unwrap().loss
}

#[test]
fn a_models_gradients_are_those_of_its_rounded_weights_times_the_slopes() {
    for weights in [WeightFormat::Int8, WeightFormat::Int4, WeightFormat::Ternary] {
        let mut model = model(weights);
        let most = f64::from(weights.largest_level().unwrap());
        let mut params = model.init(&Seed::from_u64(4));
        // Some weights beyond their range, and a step that an average has made negative.
        params[..200 * 16].iter_mut().step_by(20).for_each(|value| *value *= 1.5 * (most as f32).sqrt());
        let layout = model.layout().clone();
        let steps = layout.range(6);
        params[steps.start] = -params[steps.start];
        model.load(&params).unwrap();
        let x: Vec<f32> = (0..5 * 16).map(|i| (i as f32 * 0.7).sin()).collect();
        let (x, labels) = (Tensor::from_vec(x, (5, 16), &Device::Cpu).unwrap(), [0, 1, 2, 1, 0]);
        let gradients = model.gradients(&x, Target::Labels(&labels), 5, None).unwrap();
        let of =
            |index: usize| gradients.tensors[index].as_ref().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();

        let (mut plain, rounded) = model.deployed(&params).unwrap();
        let (weight, step) = (of(0), of(6));
        let row = layout.range(0).len() / steps.len();
        let s = f64::from(width(params[steps.start]));
        let moved = |ds: f64| -> Vec<f32> {
            let mut rounded = rounded.clone();
            for (v, rounded) in params[..row].iter().zip(&mut rounded) {
                *rounded = relaxed(f64::from(*v), s + ds, (f64::from(*v), s), most) as f32;
            }
            rounded
        };
        // The step of a whole tensor moves many units over the edges of their rectifiers.
        let difference = s * if steps.len() == 1 { 0.001 } else { 0.01 };
        let slope = (loss(&mut plain, &moved(difference), &x, &labels)
            - loss(&mut plain, &moved(-difference), &x, &labels))
            / (2.0 * difference);
        // 1/√(N·Q), and the parameter is minus the step.
        let expected = -slope / (row as f64 * most).sqrt();
        assert!(
            (f64::from(step[0]) - expected).abs() < 0.03 * expected.abs() + 1e-5,
            "{weights:?} {} {expected}",
            step[0]
        );

        plain.load(&rounded).unwrap();
        let straight = plain.gradients(&x, Target::Labels(&labels), 5, None).unwrap();
        let straight = straight.tensors[0].as_ref().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut clipped = 0;
        for (i, (&weight, &straight)) in weight.iter().zip(&straight).enumerate() {
            let is_within = (params[i] / width(params[steps.start + i / row])).abs() < most as f32;
            clipped += usize::from(!is_within);
            assert_eq!(weight, if is_within { straight } else { 0.0 }, "{weights:?} {i}");
        }
        assert!(clipped > 0, "{weights:?}");

        // The same by candle's own way through the model.
        let logits = model.forward(&x).unwrap();
        assert_eq!(logits.to_vec2::<f32>().unwrap(), model.infer(&x).unwrap().to_vec2::<f32>().unwrap());
        let labels = Tensor::new(&labels, &Device::Cpu).unwrap();
        let loss = candle_nn::loss::cross_entropy(&logits, &labels).unwrap();
        let flat = loss.backward().unwrap().remove(model.variable()).unwrap().to_vec1::<f32>().unwrap();
        for index in 0..layout.tensors().len() {
            for (a, b) in flat[layout.range(index)].iter().zip(of(index)) {
                assert!((a - b).abs() < 1e-5 + 1e-3 * b.abs(), "{weights:?} {index}: {a} {b}");
            }
        }
    }
}

#[test]
fn a_model_learns_its_steps_and_its_file_has_the_weights_that_it_was_judged_with() {
    let split = data::load(&DataConfig::default(), &Seed::from_u64(1)).unwrap();
    let (examples, test) = (Examples::all(split.train), Examples::all(split.test));
    let threads = Threads::one();
    for (weights, least) in [(WeightFormat::Int8, 0.95), (WeightFormat::Int4, 0.95), (WeightFormat::Ternary, 0.9)] {
        let mut model = Model::new(config(weights), test.dataset().input()).unwrap();
        let initial = model.init(&Seed::from_u64(2));
        let mut params = initial.clone();
        let training = TrainingConfig { epochs: 8, learning_rate: 0.05, ..TrainingConfig::default() };
        let task = TrainTask { config: &training, round: 1, seed: Seed::from_u64(3), threads: &threads, mask: None };
        train(&mut model, &examples, &mut params, &task, &mut |_, _| ControlFlow::Continue(())).unwrap();
        let judged = evaluate(&mut model, &test, &params, &threads).unwrap();
        assert!(judged.accuracy() > least, "{weights:?}: {}", judged.accuracy());
        let (mut deployed, rounded) = model.deployed(&params).unwrap();
        assert_eq!(params.len() - rounded.len(), (6..9).map(|index| model.layout().range(index).len()).sum::<usize>());
        let steps = params[rounded.len()..].iter().zip(&initial[rounded.len()..]);
        assert!(2 * steps.clone().filter(|(new, old)| new != old).count() > steps.len(), "{weights:?}");
        assert_eq!(evaluate(&mut deployed, &test, &rounded, &threads).unwrap(), judged, "{weights:?}");

        let width = if weights == WeightFormat::Int8 { Width::Eight } else { Width::Four };
        let tensors = deployed.layout().tensors().iter().enumerate();
        for (index, tensor) in tensors.filter(|(_, tensor)| tensor.shape.len() >= 2) {
            let values = &rounded[deployed.layout().range(index)];
            for width in [width, Width::Eight] {
                let stored = small::quantize(values, &tensor.shape, width).to_f32();
                let off = stored.iter().zip(values).position(|(stored, value)| stored != value);
                assert_eq!(off, None, "{weights:?} {width:?} {}", tensor.name);
            }
        }
    }
}

#[test]
fn steps_stay_positive_and_are_under_no_penalty() {
    let split = data::load(&DataConfig::default(), &Seed::from_u64(1)).unwrap();
    let examples = Examples::all(split.train);
    let threads = Threads::one();
    let run = |training: TrainingConfig| {
        let mut model = Model::new(config(WeightFormat::Ternary), examples.dataset().input()).unwrap();
        let mut params = model.init(&Seed::from_u64(2));
        let steps = model.layout().range(6).start..params.len();
        // As an average may leave them.
        params[steps.start] = -0.2;
        params[steps.start + 1] = 0.0;
        let task = TrainTask { config: &training, round: 1, seed: Seed::from_u64(3), threads: &threads, mask: None };
        train(&mut model, &examples, &mut params, &task, &mut |_, _| ControlFlow::Continue(())).unwrap();
        params[steps].to_vec()
    };
    let wild = TrainingConfig { optimizer: OptimizerKind::Adam, learning_rate: 0.3, ..TrainingConfig::default() };
    for step in run(wild) {
        assert!((LEAST_STEP..MOST_STEP).contains(&step), "{step}");
    }
    // Gradients are clipped to nothing, so only penalties move anything.
    let still = TrainingConfig { clip_norm: 1e-30, learning_rate: 0.1, epochs: 1, ..TrainingConfig::default() };
    let adamw = TrainingConfig { optimizer: OptimizerKind::AdamW, ..still.clone() };
    for training in [still, adamw] {
        let free = run(training.clone());
        assert_eq!(run(TrainingConfig { weight_decay: 0.1, l1: 0.01, ..training }), free);
    }
}

//! Training: determinism, optimizers, and that it learns.

mod pruned;

use super::*;
use crate::Threads;
use crate::data::{self, Dataset};
use crate::model::{Architecture, Init, InputShape, Parameters, register};
use crate::ops::Graph;
use dunlin_core::recipe::DataConfig;
use std::sync::{Arc, Mutex};

const ONE: Threads = Threads::one();

fn digits() -> (Examples, Examples) {
    let split = data::load(&DataConfig::default(), &Seed::from_u64(1)).unwrap();
    (Examples::all(split.train), Examples::all(split.test))
}

fn small(data: &Examples, rows: u32) -> Examples {
    Examples::new(data.dataset().clone(), (0..rows).collect::<Vec<_>>()).unwrap()
}

#[derive(Debug, PartialEq)]
struct Ran {
    params: Vec<f32>,
    examples: u32,
    steps: u64,
    loss: f64,
}

fn run(kind: &ModelKind, data: &Examples, config: &TrainingConfig) -> Result<Ran, Error> {
    let mut model = Model::new(kind, data.dataset().input()).unwrap();
    let mut params = model.init(&Seed::from_u64(3));
    let task = TrainTask { config, round: 1, seed: Seed::from_u64(4), threads: &ONE, mask: None };
    let result = train(&mut model, data, &mut params, &task, &mut |_, _| ControlFlow::Continue(()))?;
    Ok(Ran { params, examples: result.examples, steps: result.steps, loss: result.loss })
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

fn start_of(kind: &ModelKind, data: &Examples) -> Vec<f32> {
    Model::new(kind, data.dataset().input()).unwrap().init(&Seed::from_u64(3))
}

#[test]
fn two_nn_learns_the_digits() {
    let (training, test) = digits();
    let result = run(&ModelKind::TwoNn, &training, &TrainingConfig::default()).unwrap();
    let mut model = Model::new(&ModelKind::TwoNn, training.dataset().input()).unwrap();
    let evaluation = evaluate(&mut model, &test, &result.params, &ONE).unwrap();
    assert_eq!((evaluation.examples, result.examples as usize), (test.len() as u64, training.len()));
    assert!(evaluation.accuracy() > 0.9, "{evaluation:?}");
    assert!(evaluation.loss() < 0.3 && result.loss < 0.2, "{evaluation:?} {}", result.loss);
}

#[test]
fn convolutional_models_learn_a_few_digits() {
    let training = small(&digits().0, 200);
    for kind in [ModelKind::McmahanCnn, ModelKind::ResNet8] {
        let config = TrainingConfig { epochs: 16, ..TrainingConfig::default() };
        let result = run(&kind, &training, &config).unwrap();
        let mut model = Model::new(&kind, training.dataset().input()).unwrap();
        let evaluation = evaluate(&mut model, &training, &result.params, &ONE).unwrap();
        assert!(evaluation.accuracy() > 0.9, "{kind:?}: {evaluation:?}");
    }
}

#[test]
fn models_of_sequences_learn_a_few_digits_row_by_row() {
    let training = small(&digits().0, 200);
    for kind in [ModelKind::CharLstm, ModelKind::CharGru, ModelKind::Transformer] {
        let adam = dunlin_core::recipe::OptimizerKind::Adam;
        let config = TrainingConfig { optimizer: adam, learning_rate: 2e-3, epochs: 12, ..TrainingConfig::default() };
        let result = run(&kind, &training, &config).unwrap();
        let mut model = Model::new(&kind, training.dataset().input()).unwrap();
        let evaluation = evaluate(&mut model, &training, &result.params, &ONE).unwrap();
        assert!(evaluation.accuracy() > 0.9, "{kind:?}: {evaluation:?}");
    }
}

#[test]
fn four_trainings_at_once_give_the_bits_of_one_alone() {
    let training = small(&digits().0, 50);
    for kind in
        [ModelKind::TwoNn, ModelKind::McmahanCnn, ModelKind::ResNet8, ModelKind::CharLstm, ModelKind::Transformer]
    {
        let config = TrainingConfig { epochs: 2, ..TrainingConfig::default() };
        let alone = run(&kind, &training, &config).unwrap();
        std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| run(&kind, &training, &config).unwrap()));
            for thread in threads {
                assert!(thread.join().unwrap() == alone, "{kind:?}");
            }
        });
    }
}

#[test]
fn another_seed_gives_another_order_and_another_result() {
    let training = small(&digits().0, 50);
    let config = TrainingConfig::default();
    let mut model = Model::new(&ModelKind::Softmax, training.dataset().input()).unwrap();
    let start = model.init(&Seed::from_u64(3));
    let mut with_seed = |seed| {
        let task = TrainTask { config: &config, round: 1, seed: Seed::from_u64(seed), threads: &ONE, mask: None };
        let mut params = start.clone();
        train(&mut model, &training, &mut params, &task, &mut |_, _| ControlFlow::Continue(())).unwrap();
        params
    };
    assert_ne!(with_seed(1), with_seed(2));
}

#[test]
fn augmentation_changes_what_is_trained_on_the_same_way_each_time() {
    let training = small(&digits().0, 50);
    let trained = |augment| {
        let config = TrainingConfig { augment, epochs: 2, ..TrainingConfig::default() };
        run(&ModelKind::Softmax, &training, &config).unwrap()
    };
    let (plain, flipped, cropped) = (trained(Augment::None), trained(Augment::Flip), trained(Augment::CropFlip));
    assert!(plain != flipped && plain != cropped && flipped != cropped);
    assert_eq!(cropped, trained(Augment::CropFlip));
}

#[test]
fn augmentation_draws_by_epoch_and_row_and_not_by_batch() {
    let data = small(&digits().0, 20);
    let of = |rows: &[u32], seed| {
        let (x, _) = gather(&data, rows, Some(&(Augment::CropFlip, Seed::from_u64(seed)))).unwrap();
        x.to_vec2::<f32>().unwrap()
    };
    let (all, last) = (of(&[3, 4, 5], 1), of(&[5], 1));
    assert_eq!(all[2], last[0]);
    assert_ne!(last, of(&[5], 2));
    let (plain, _) = gather(&data, &[5], None).unwrap();
    assert_ne!(last, plain.to_vec2::<f32>().unwrap());
}

#[test]
fn rows_that_are_no_images_are_not_augmented() {
    let input = InputShape::table(4, 2);
    let table = Examples::all(Arc::new(Dataset::new("table", input, vec![0.0; 8], vec![0, 1]).unwrap()));
    let config = TrainingConfig { augment: Augment::Flip, ..TrainingConfig::default() };
    let message = run(&ModelKind::Softmax, &table, &config).unwrap_err().to_string();
    assert_eq!(message, "training.augment = \"flip\": the rows of table are no images; \"none\" is right");
}

#[test]
fn every_step_is_reported_and_the_last_partial_batch_is_used() {
    let training = small(&digits().0, 25);
    for (batch, steps) in [(10, 6), (0, 2), (25, 2), (100, 2), (1, 50)] {
        let config = TrainingConfig { batch, epochs: 2, ..TrainingConfig::default() };
        let mut model = Model::new(&ModelKind::Softmax, training.dataset().input()).unwrap();
        let mut params = model.init(&Seed::from_u64(3));
        let task = TrainTask { config: &config, round: 1, seed: Seed::from_u64(4), threads: &ONE, mask: None };
        let mut reports = Vec::new();
        let result = train(&mut model, &training, &mut params, &task, &mut |done, total| {
            reports.push((done, total));
            ControlFlow::Continue(())
        });
        assert_eq!(reports, (1..=steps).map(|step| (step, steps)).collect::<Vec<_>>());
        assert_eq!(result.unwrap().steps, steps);
    }
}

#[test]
fn a_caller_can_stop_a_training() {
    let training = small(&digits().0, 25);
    let config = TrainingConfig::default();
    for kind in [ModelKind::Softmax, ModelKind::Trivial] {
        let mut model = Model::new(&kind, training.dataset().input()).unwrap();
        let mut params = model.init(&Seed::from_u64(3));
        let task = TrainTask { config: &config, round: 1, seed: Seed::from_u64(4), threads: &ONE, mask: None };
        let result = train(&mut model, &training, &mut params, &task, &mut |_, _| ControlFlow::Break(()));
        assert!(matches!(result, Err(Error::Stopped)));
    }
}

#[test]
fn a_step_size_beyond_reason_is_reported_as_divergence() {
    let training = small(&digits().0, 40);
    let config = TrainingConfig { learning_rate: 1e30, ..TrainingConfig::default() };
    let result = run(&ModelKind::TwoNn, &training, &config);
    assert!(matches!(result, Err(Error::Diverged { step: 2..=4 })), "{result:?}");
}

#[test]
fn parameters_that_overflow_in_the_last_step_are_divergence_too() {
    let training = small(&digits().0, 10);
    let config = TrainingConfig { learning_rate: f64::from(f32::MAX) * 1e9, epochs: 1, ..TrainingConfig::default() };
    assert!(matches!(run(&ModelKind::Softmax, &training, &config), Err(Error::Diverged { step: 1 })));
}

#[test]
fn frozen_tensors_keep_their_values_and_the_others_learn_as_if_nothing_were_computed_for_them() {
    let training = small(&digits().0, 100);
    for kind in [ModelKind::TwoNn, ModelKind::McmahanCnn, ModelKind::ResNet8] {
        let start = start_of(&kind, &training);
        let layout = Model::new(&kind, training.dataset().input()).unwrap().layout().clone();
        let first = layout.tensors()[0].name.split('.').next().unwrap().to_owned();
        let config = TrainingConfig {
            frozen: format!("{first}, {}", layout.tensors()[2].name),
            weight_decay: 0.01,
            momentum: 0.5,
            proximal: 0.1,
            epochs: 1,
            ..TrainingConfig::default()
        };
        let trained = run(&kind, &training, &config).unwrap().params;
        for (index, tensor) in layout.tensors().iter().enumerate() {
            let is_frozen = tensor.name.starts_with(&first) || index == 2;
            let range = layout.range(index);
            assert_eq!(start[range.clone()] == trained[range], is_frozen, "{kind}: {}", tensor.name);
        }
    }
    let message = |frozen: &str| {
        let config = TrainingConfig { frozen: frozen.into(), ..TrainingConfig::default() };
        run(&ModelKind::Softmax, &training, &config).unwrap_err().to_string()
    };
    assert!(message("hidden").starts_with("training.frozen = hidden: no tensor's name begins so; there are "));
    assert_eq!(message("fc,"), "training.frozen = softmax: every tensor of the model is frozen");
}

#[test]
fn the_proximal_term_keeps_the_client_near_its_start() {
    let training = small(&digits().0, 100);
    let start = start_of(&ModelKind::TwoNn, &training);
    let distances = [0.0, 0.1, 1.0].map(|proximal| {
        let config = TrainingConfig { proximal, ..TrainingConfig::default() };
        distance(&run(&ModelKind::TwoNn, &training, &config).unwrap().params, &start)
    });
    assert!(distances[0] > distances[1] && distances[1] > distances[2], "{distances:?}");
}

#[test]
fn one_clipped_full_step_moves_by_rate_times_bound() {
    let training = small(&digits().0, 30);
    let start = start_of(&ModelKind::TwoNn, &training);
    let step = |clip_norm| {
        let config = TrainingConfig { clip_norm, batch: 0, epochs: 1, learning_rate: 2.0, ..TrainingConfig::default() };
        distance(&run(&ModelKind::TwoNn, &training, &config).unwrap().params, &start)
    };
    assert!((step(0.01) - 0.02).abs() < 1e-5, "{}", step(0.01));
    assert_eq!(step(1e6), step(0.0));
}

#[test]
fn every_optimizer_lowers_the_loss() {
    let training = small(&digits().0, 200);
    let sgd = TrainingConfig { learning_rate: 0.1, epochs: 5, ..TrainingConfig::default() };
    let momentum = TrainingConfig { momentum: 0.9, weight_decay: 1e-4, ..sgd.clone() };
    let adam = dunlin_core::recipe::OptimizerKind::Adam;
    let adam = TrainingConfig { optimizer: adam, learning_rate: 1e-3, ..sgd.clone() };
    for config in [sgd, momentum, adam] {
        let result = run(&ModelKind::TwoNn, &training, &config).unwrap();
        assert!(result.loss < 1.8, "{:?}: {}", config.optimizer, result.loss);
    }
}

#[test]
fn arguments_that_do_not_fit_are_errors() {
    let training = small(&digits().0, 10);
    let config = TrainingConfig::default();
    let task = TrainTask { config: &config, round: 1, seed: Seed::from_u64(4), threads: &ONE, mask: None };
    let go = &mut |_, _| ControlFlow::Continue(());
    let mut model = Model::new(&ModelKind::Softmax, training.dataset().input()).unwrap();
    let mut start = model.init(&Seed::from_u64(3));
    let short = train(&mut model, &training, &mut start[1..].to_vec(), &task, go);
    assert!(matches!(short, Err(Error::ParameterCount { expected: 650, actual: 649 })));
    let empty = Examples::new(training.dataset().clone(), Vec::new()).unwrap();
    assert!(matches!(train(&mut model, &empty, &mut start, &task, go), Err(Error::NoExamples)));
    let other = InputShape::image(1, 1, 2, 2);
    let other = Examples::all(Arc::new(Dataset::new("other", other, vec![0.0; 4], vec![0, 1]).unwrap()));
    assert!(matches!(train(&mut model, &other, &mut start, &task, go), Err(Error::InputShape { .. })));
    assert!(matches!(evaluate(&mut model, &other, &start, &ONE), Err(Error::InputShape { .. })));
}

#[test]
fn evaluations_of_parts_add_up_to_that_of_the_whole() {
    let (_, test) = digits();
    let mut model = Model::new(&ModelKind::Softmax, test.dataset().input()).unwrap();
    let params = model.init(&Seed::from_u64(3));
    let whole = evaluate(&mut model, &test, &params, &ONE).unwrap();
    let (left, right) = test.indices().split_at(100);
    let mut sum = Evaluation::default();
    for part in [left, right] {
        let part = Examples::new(test.dataset().clone(), part).unwrap();
        sum = sum + evaluate(&mut model, &part, &params, &ONE).unwrap();
    }
    assert_eq!((whole.examples, whole.correct), (sum.examples, sum.correct));
    assert!((whole.loss_sum - sum.loss_sum).abs() < 1e-3);
}

#[test]
fn the_trivial_model_moves_some_parameters_and_repeats_itself() {
    let config = DataConfig { source: "none".into(), features: 5000, clients: 3, ..DataConfig::default() };
    let split = data::load(&config, &Seed::from_u64(1)).unwrap();
    let client = small(&Examples::all(split.train), 1);
    let first = run(&ModelKind::Trivial, &client, &TrainingConfig::default()).unwrap();
    let second = run(&ModelKind::Trivial, &client, &TrainingConfig::default()).unwrap();
    assert_eq!(first, second);
    assert_eq!((first.examples, first.steps), (1, 1));
    let moved = first.params.iter().filter(|&&value| value != 0.0).count();
    assert!((120..=200).contains(&moved), "{moved} of 5000");
    let mut model = Model::new(&ModelKind::Trivial, client.dataset().input()).unwrap();
    assert_eq!(evaluate(&mut model, &client, &first.params, &ONE).unwrap(), Evaluation::default());
}

#[test]
fn two_threads_repeat_themselves_and_stay_close_to_one() {
    let training = small(&digits().0, 50);
    for kind in [ModelKind::TwoNn, ModelKind::McmahanCnn, ModelKind::ResNet8] {
        let run = |count| {
            let threads = Threads::new(count).unwrap();
            let config = TrainingConfig { epochs: 2, momentum: 0.9, learning_rate: 0.01, ..TrainingConfig::default() };
            let mut model = Model::new(&kind, training.dataset().input()).unwrap();
            let mut params = model.init(&Seed::from_u64(3));
            let task = TrainTask { config: &config, round: 1, seed: Seed::from_u64(4), threads: &threads, mask: None };
            let result =
                train(&mut model, &training, &mut params, &task, &mut |_, _| ControlFlow::Continue(())).unwrap();
            (params, result.loss)
        };
        let (one, two) = (run(1), run(2));
        assert!(run(2) == two, "{kind}");
        assert!(distance(&one.0, &two.0) < 1e-4 * distance(&one.0, &start_of(&kind, &training)), "{kind}");
        assert!((one.1 - two.1).abs() < 1e-4, "{kind}");
    }
}

#[test]
fn an_evaluation_has_the_same_bits_with_any_number_of_threads() {
    let (training, _) = digits();
    let mut model = Model::new(&ModelKind::TwoNn, training.dataset().input()).unwrap();
    let params = model.init(&Seed::from_u64(3));
    let one = evaluate(&mut model, &training, &params, &ONE).unwrap();
    for count in [2, 3] {
        assert_eq!(evaluate(&mut model, &training, &params, &Threads::new(count).unwrap()).unwrap(), one);
    }
}

/// The two-layer network in plain candle, as a user would write it.
struct PlainTwoNn;

impl Architecture for PlainTwoNn {
    fn parameters(&self, input: &InputShape, list: &mut Parameters) -> Result<(), Error> {
        list.linear("fc1", input.features(), 200);
        list.linear("fc2", 200, 200);
        list.linear("fc3", 200, input.classes);
        list.add("unused", &[3], Init::Constant(0.5));
        Ok(())
    }

    fn forward(
        &self,
        _: &InputShape,
        _: &mut Graph<'_>,
        x: &Tensor,
        parameters: &[Tensor],
    ) -> candle_core::Result<Tensor> {
        let layer = |x: &Tensor, i: usize| x.matmul(&parameters[i].t()?)?.broadcast_add(&parameters[i + 1]);
        layer(&layer(&layer(x, 0)?.relu()?, 2)?.relu()?, 4)
    }
}

/// Asks rayon for threads where a user's layers would.
struct Crowd(Arc<Mutex<Vec<usize>>>);

impl Architecture for Crowd {
    fn parameters(&self, input: &InputShape, list: &mut Parameters) -> Result<(), Error> {
        list.linear("fc", input.features(), input.classes);
        Ok(())
    }

    fn forward(
        &self,
        _: &InputShape,
        _: &mut Graph<'_>,
        x: &Tensor,
        parameters: &[Tensor],
    ) -> candle_core::Result<Tensor> {
        self.0.lock().unwrap().push(rayon::current_num_threads());
        x.matmul(&parameters[0].t()?)?.broadcast_add(&parameters[1])
    }
}

#[test]
fn a_registered_model_gets_no_more_threads_than_the_training_was_given() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    register("crowd", Crowd(Arc::clone(&seen)));
    let training = small(&digits().0, 50);
    run(&ModelKind::Own("crowd".into()), &training, &TrainingConfig::default()).unwrap();
    let mut model = Model::new(ModelKind::Own("crowd".into()), training.dataset().input()).unwrap();
    let params = model.init(&Seed::from_u64(3));
    evaluate(&mut model, &training, &params, &ONE).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.len() > 5 && seen.iter().all(|&threads| threads == 1), "{seen:?}");
}

#[test]
fn a_registered_model_trains_as_the_built_in_one_that_computes_the_same() {
    register("plain-2nn", PlainTwoNn);
    let training = small(&digits().0, 50);
    let config = TrainingConfig { epochs: 1, ..TrainingConfig::default() };
    let built_in = run(&ModelKind::TwoNn, &training, &config).unwrap();
    let mut own = run(&ModelKind::Own("plain-2nn".into()), &training, &config).unwrap();
    assert_eq!(own.params.split_off(built_in.params.len()), [0.5; 3], "what the loss does not depend on stays");
    assert!(distance(&own.params, &built_in.params) < 1e-4, "{}", distance(&own.params, &built_in.params));
    let unknown = Model::new(ModelKind::Own("nobodys".into()), training.dataset().input()).unwrap_err();
    assert!(unknown.to_string().contains("own:plain-2nn"), "{unknown}");
}

//! Training what is left of a pruned model.

use super::*;
use dunlin_core::recipe::{ModelConfig, WeightFormat};

/// A tenth of each tensor of more than one axis.
fn tenth(model: &Model) -> Mask {
    let layout = model.layout().clone();
    Mask::new(Arc::new(layout.segments()), |index| {
        let tensor = (0..layout.tensors().len()).find(|&tensor| layout.range(tensor).contains(&index)).unwrap();
        layout.tensors()[tensor].shape.len() == 1 || index * 7919 % 10 == 0
    })
    .unwrap()
}

#[test]
fn a_model_with_what_is_left_of_it_trains_as_one_with_zeros() {
    let data = small(&digits().0, 60);
    for kind in
        [ModelKind::TwoNn, ModelKind::McmahanCnn, ModelKind::ResNet8, ModelKind::MobileNet, ModelKind::Transformer]
    {
        let mut model = Model::new(&kind, data.dataset().input()).unwrap();
        let mask = tenth(&model);
        let mut start = model.init(&Seed::from_u64(3));
        mask.gather(&mut start);
        let start = mask.scatter(&start);
        let sparse = model.sparse(&mask).unwrap().unwrap();
        assert!(sparse.model.layout().len() < model.layout().len() / 2, "{kind}");
        let config = TrainingConfig { batch: 20, epochs: 1, momentum: 0.9, proximal: 0.1, ..TrainingConfig::default() };
        for threads in [1, 2] {
            let threads = Threads::new(threads).unwrap();
            let task =
                TrainTask { config: &config, round: 1, seed: Seed::from_u64(4), threads: &threads, mask: Some(&mask) };
            let go_on = &mut |_, _| ControlFlow::Continue(());
            let mut with_zeros = start.clone();
            model.swap(&mut with_zeros).unwrap();
            let result = steps(&model, &data, &start, &task, go_on);
            model.swap(&mut with_zeros).unwrap();
            let mut left = start.clone();
            let found = train(&mut model, &data, &mut left, &task, go_on).unwrap();
            let expected = result.unwrap();
            assert!((found.loss - expected.loss).abs() < 1e-3, "{kind}: {found:?}, {expected:?}");
            let moved = with_zeros.iter().zip(&start).fold(0f32, |most, (w, s)| most.max((w - s).abs()));
            let apart = with_zeros.iter().zip(&left).fold(0f32, |most, (w, l)| most.max((w - l).abs()));
            assert!(apart < 0.01 * moved, "{kind}: {apart} apart, {moved} moved");
            assert!((0..left.len()).all(|index| mask.contains(index) || left[index] == 0.0), "{kind}");
        }
    }
}

#[test]
fn what_has_lost_little_and_what_computes_with_other_weights_stays_whole() {
    let input = InputShape::image(1, 8, 8, 10);
    let model = Model::new(ModelKind::TwoNn, &input).unwrap();
    let half = Mask::new(Arc::new(model.layout().segments()), |index| index % 2 == 0).unwrap();
    assert!(model.sparse(&half).unwrap().is_none());
    let rounded = ModelConfig { weights: WeightFormat::Ternary, ..ModelKind::TwoNn.into() };
    let rounded = Model::new(rounded, &input).unwrap();
    assert!(rounded.sparse(&tenth(&rounded)).unwrap().is_none());
    let other = Model::new(ModelKind::Softmax, &input).unwrap();
    assert!(matches!(other.sparse(&half), Err(Error::ParameterCount { .. })));
}

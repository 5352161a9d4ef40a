//! What pruning, sharing, quantizing and the files do.

use super::*;
use crate::model::{InputShape, Model};
use dunlin_codec::container::{Container, Precision, Values, Width};
use dunlin_core::recipe::ModelKind;
use dunlin_core::{Seed, TensorSpec};
use std::collections::BTreeMap;

fn two_layers() -> Vec<(TensorSpec, Vec<f32>)> {
    vec![
        (TensorSpec::new("a", [2, 3]), vec![0.1, -0.2, 0.3, -0.4, 0.5, -0.6]),
        (TensorSpec::new("a.bias", [2]), vec![0.01, 0.02]),
        (TensorSpec::new("b", [2, 2]), vec![1.0, -2.0, 3.0, -4.0]),
    ]
}

fn values(tensors: &[(TensorSpec, Vec<f32>)]) -> Vec<&[f32]> {
    tensors.iter().map(|(_, values)| values.as_slice()).collect()
}

#[test]
fn the_largest_weights_of_all_layers_stay_and_vectors_are_left_alone() {
    let mut tensors = two_layers();
    prune(&mut tensors, Keep::Density(0.5), false);
    let expected: [&[f32]; 3] = [&[0.0, 0.0, 0.0, 0.0, 0.0, -0.6], &[0.01, 0.02], &[1.0, -2.0, 3.0, -4.0]];
    assert_eq!(values(&tensors), expected);
}

#[test]
fn each_layer_keeps_its_share_when_asked_to() {
    let mut tensors = two_layers();
    prune(&mut tensors, Keep::Density(0.5), true);
    let expected: [&[f32]; 3] = [&[0.0, 0.0, 0.0, -0.4, 0.5, -0.6], &[0.01, 0.02], &[0.0, 0.0, 3.0, -4.0]];
    assert_eq!(values(&tensors), expected);
}

#[test]
fn a_number_of_parameters_counts_vectors_too() {
    let mut tensors = two_layers();
    prune(&mut tensors, Keep::Parameters(5), false);
    // A matrix without weights would let nothing through.
    let expected: [&[f32]; 3] = [&[0.0, 0.0, 0.0, 0.0, 0.0, -0.6], &[0.01, 0.02], &[0.0, -2.0, 3.0, -4.0]];
    assert_eq!(values(&tensors), expected);
    prune(&mut tensors, Keep::Parameters(1), false);
    let expected: [&[f32]; 3] = [&[0.0, 0.0, 0.0, 0.0, 0.0, -0.6], &[0.01, 0.02], &[0.0, 0.0, 0.0, -4.0]];
    assert_eq!(values(&tensors), expected);
}

#[test]
fn of_equal_weights_the_first_stay() {
    let mut tensors = vec![(TensorSpec::new("a", [2, 3]), vec![1.0, -1.0, 1.0, 1.0, -1.0, 1.0])];
    prune(&mut tensors, Keep::Density(0.5), false);
    assert_eq!(values(&tensors), [[1.0, -1.0, 1.0, 0.0, 0.0, 0.0]]);
}

#[test]
fn few_distinct_values_are_shared_without_loss_and_zero_stays_zero() {
    let values = [0.5, 0.0, -0.25, 0.5, 8.0, 0.0];
    let shared = share(&values, 2, Precision::Half);
    assert_eq!(shared.to_f32(), values);
    let Values::Shared { codebook, .. } = shared else { panic!("{shared:?}") };
    assert_eq!(codebook, [-0.25, 0.5, 8.0]);
}

#[test]
fn means_are_those_of_their_values() {
    let values = [1.0, 1.25, 1.5, 9.0, 9.5, -4.0];
    let shared = share(&values, 1, Precision::Single);
    // Begun at −4 and 9.5, of which the first takes what is below 2.75, and so on until nothing moves.
    assert_eq!(shared.to_f32(), [-0.0625, -0.0625, -0.0625, 9.25, 9.25, -0.0625]);
    let shared = share(&values, 2, Precision::Single);
    assert_eq!(shared.to_f32(), [1.25, 1.25, 1.25, 9.25, 9.25, -4.0]);
}

#[test]
fn nothing_is_shared_of_nothing() {
    assert_eq!(share(&[0.0; 3], 5, Precision::Half).to_f32(), [0.0; 3]);
}

#[test]
fn more_bits_lose_less() {
    let values: Vec<f32> = (0..2000u32).map(|i| ((i * 7919 % 2003) as f32 / 1001.0 - 1.0).powi(3)).collect();
    let error = |small: &Values| -> f64 {
        let small = small.to_f32();
        values.iter().zip(&small).map(|(old, new)| f64::from(old - new).powi(2)).sum()
    };
    let of_bits: Vec<f64> = (1..=8).map(|bits| error(&share(&values, bits, Precision::Half))).collect();
    assert!(of_bits.windows(2).all(|pair| pair[1] < pair[0]), "{of_bits:?}");
    let [four, eight] = [Width::Four, Width::Eight].map(|width| error(&quantize(&values, &[20, 100], width)));
    assert!(eight * 50.0 < four, "{eight} and {four}");
    assert!(of_bits[3] < four, "a codebook of as many bits lies better than an even grid");
}

#[test]
fn a_channel_of_eight_bits_is_right_to_half_a_step() {
    let values = [0.1, -0.2, 0.3, 10.0, -20.0, 12.7, 0.0, 0.0, 0.0];
    let small = quantize(&values, &[3, 3], Width::Eight);
    let Values::Integers { scales, .. } = &small else { panic!("{small:?}") };
    for (i, (old, new)) in values.iter().zip(small.to_f32()).enumerate() {
        assert!((old - new).abs() <= 0.5 * scales[i / 3], "{old} became {new}");
    }
    assert!(scales[1] > 40.0 * scales[0] && scales[2] == 1.0, "{scales:?}");
}

#[test]
fn a_model_goes_through_all_stages_and_is_read_back_by_name() {
    let model = Model::new(ModelKind::Lenet300, &InputShape::image(1, 28, 28, 10)).unwrap();
    let params = model.init(&Seed::from_u64(1));
    let file = crate::export::safetensors(model.layout(), &params, &model.about()).unwrap();
    let weights = Weights::from_bytes(&file).unwrap();
    assert_eq!(weights.flat(model.layout()).unwrap(), params);

    let stored = Stored::Shared { bits: 4, precision: Precision::Half };
    let small = Compress { keep: Some(Keep::Density(0.1)), per_layer: false, stored }.run(&weights).unwrap();
    let bytes = small.container.to_bytes().unwrap();
    assert_eq!(small.file_bytes, bytes.len() as u64);
    assert!(bytes.len() * 40 < file.len(), "{} of {} bytes", bytes.len(), file.len());
    for tensor in &small.tensors {
        let TensorReport { dense, pruned, stored, coded, .. } = *tensor;
        assert!(stored < pruned && pruned <= dense && coded < stored + 40, "{tensor:?}");
    }
    let read = Weights::from_bytes(&bytes).unwrap();
    let described = Model::described(&read.about).unwrap().unwrap();
    assert_eq!((described.kind(), described.layout()), (model.kind(), model.layout()));
    let flat = read.flat(model.layout()).unwrap();
    let nonzeros = flat.iter().filter(|&&value| value != 0.0).count();
    assert_eq!(nonzeros, 26_620 + 410);
    assert_eq!(Weights::from_bytes(&read.to_safetensors().unwrap()).unwrap().flat(model.layout()).unwrap(), flat);
}

#[test]
fn a_file_of_another_model_says_what_differs() {
    let model = Model::new(ModelKind::Softmax, &InputShape::table(3, 2)).unwrap();
    let tensor = |name: &str, shape: &[usize]| (TensorSpec::new(name, shape), vec![0.0; shape.iter().product()]);
    let flat = |tensors| Weights { about: BTreeMap::new(), tensors }.flat(model.layout());
    let (weight, bias) = (tensor("fc.weight", &[2, 3]), tensor("fc.bias", &[2]));
    assert_eq!(flat(vec![weight.clone(), bias.clone()]), Ok(vec![0.0; 8]));
    assert_eq!(flat(vec![weight.clone()]), Err("it has no tensor \"fc.bias\" of shape [2]".into()));
    let turned = tensor("fc.weight", &[3, 2]);
    assert_eq!(
        flat(vec![turned, bias.clone()]),
        Err("its tensor \"fc.weight\" has shape [3, 2] and not [2, 3]".into())
    );
    let more = vec![weight, bias, tensor("other", &[1])];
    assert_eq!(flat(more), Err("it has a tensor \"other\", which the model has not".into()));
}

#[test]
fn every_float_type_is_read_and_large_whole_numbers_are_refused() {
    use safetensors::{Dtype, tensor::TensorView};
    let read = |dtype, bytes: &[u8], len| {
        let view = TensorView::new(dtype, vec![len], bytes).unwrap();
        let file = safetensors::serialize([("t", view)], None).unwrap();
        Weights::from_bytes(&file).map(|weights| weights.tensors[0].1.clone()).map_err(|error| error.to_string())
    };
    assert_eq!(read(Dtype::F16, &[0, 0x3c, 0, 0xc0], 2), Ok(vec![1.0, -2.0]));
    assert_eq!(read(Dtype::BF16, &[0x80, 0x3f], 1), Ok(vec![1.0]));
    assert_eq!(read(Dtype::F64, &1.5f64.to_le_bytes(), 1), Ok(vec![1.5]));
    assert_eq!(read(Dtype::I64, &(-7i64).to_le_bytes(), 1), Ok(vec![-7.0]));
    let refused = "tensor \"t\" holds numbers of type I64, which are not read; F32, F16, BF16 and F64 are";
    assert_eq!(read(Dtype::I64, &i64::MAX.to_le_bytes(), 1), Err(refused.into()));
    assert!(matches!(Weights::from_bytes(b"DNLC\x09"), Err(FileError::Container(_))));
    assert!(matches!(Weights::from_bytes(b"hello"), Err(FileError::Safetensors(_))));
    assert!(Container::recognizes(b"DNLC\x09"));
}

//! What goes in comes out, in as few bytes as it should.
#![expect(clippy::print_stdout, reason = "the sizes are what some of these tests are read for")]

use crate::support::{codebook, codes, every_kind, floats, integers, shared, tensor, without_words};
use dunlin_codec::container::{Container, Error, Limits, Precision, Values, Width};
use half::f16;
use proptest::prelude::*;
use std::path::PathBuf;

#[test]
fn every_kind_comes_back_as_it_was() {
    let container = every_kind();
    let file = container.to_bytes().unwrap();
    assert_eq!(Container::from_bytes(&file, &Limits::default()).unwrap(), container);
}

/// A change here is a change of the format: raise the version. `UPDATE_GOLDEN=1` writes it anew.
#[test]
fn the_file_is_the_golden_file() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/container.bin");
    let file = every_kind().to_bytes().unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &file).unwrap();
    }
    assert!(std::fs::read(&path).unwrap() == file, "the container differs from its golden bytes");
}

#[test]
fn a_file_of_version_1_is_read() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/1/container.bin");
    assert_eq!(Container::from_bytes(&std::fs::read(path).unwrap(), &Limits::default()).unwrap(), every_kind());
}

#[test]
fn floats_are_the_values_that_the_codes_stand_for() {
    let values = Values::Shared { precision: Precision::Half, codebook: vec![-2.0, 0.5], codes: vec![0, 2, 1] };
    assert_eq!((values.to_f32(), values.nonzeros()), (vec![0.0, 0.5, -2.0], 2));
    let values = Values::Integers { width: Width::Four, scales: vec![1.0, 0.25], levels: vec![0, 7, -1, 2] };
    assert_eq!((values.to_f32(), values.nonzeros()), (vec![0.0, 7.0, -0.25, 0.5], 3));
    assert_eq!(Values::F16(vec![f16::ZERO, f16::NEG_ONE]).to_f32(), [0.0, -1.0]);
}

#[test]
fn independent_codes_cost_little_more_than_their_entropy() {
    let (shape, entries) = ([1000, 300], 16);
    let values = shared(&shape, 10, entries);
    let Values::Shared { codes, .. } = &values else { unreachable!() };
    let mut counts = vec![0f64; entries + 1];
    codes.iter().for_each(|&code| counts[usize::from(code)] += 1.0);
    let entropy: f64 = counts.iter().filter(|&&n| n > 0.0).map(|n| -n * (n / codes.len() as f64).log2()).sum();
    let coded = tensor("w", &shape, values.clone()).coded_bytes().unwrap() as f64;
    println!("independent codes: {coded} bytes, entropy {:.0}", entropy / 8.0);
    assert!(coded < 1.02 * entropy / 8.0 + 64.0, "{coded} bytes for {}", entropy / 8.0);
}

#[test]
fn codes_like_their_neighbours_cost_less() {
    let independent = codes(1, 60_000, 1, 16);
    let mut smooth = independent.clone();
    for i in 1..smooth.len() {
        smooth[i] = ((3 * u32::from(smooth[i - 1]) + u32::from(independent[i]) + 2) / 4) as u8;
    }
    let coded = |codes: &Vec<u8>| {
        let values = Values::Shared { precision: Precision::Half, codebook: codebook(16), codes: codes.clone() };
        tensor("w", &[200, 300], values).coded_bytes().unwrap()
    };
    println!("smooth codes: {} bytes, independent ones {}", coded(&smooth), coded(&independent));
    assert!(coded(&smooth) < coded(&independent) * 7 / 10);
}

#[test]
fn integers_and_floats_cost_no_more_than_their_width() {
    let shape = [40, 500];
    for (width, bits) in [(Width::Eight, 8), (Width::Four, 4)] {
        let coded = tensor("w", &shape, integers(width, &shape)).coded_bytes().unwrap();
        assert!(coded < 20_000 * bits / 8 + 80 + 20_000 / 40, "{coded} bytes of {bits} bits");
    }
    let coded = tensor("w", &shape, Values::F32(floats(1, 20_000))).coded_bytes().unwrap();
    assert!(coded < 80_000, "{coded}");
}

#[test]
fn what_is_no_tensor_is_not_written() {
    let refused = |values: Values| without_words(vec![tensor("w", &[2, 2], values)]).to_bytes().unwrap_err();
    let name = || "w".to_owned();
    assert_eq!(refused(Values::F32(vec![1.0; 3])), Error::WrongLength { tensor: name(), expected: 4, got: 3 });
    let infinite = Values::F32(vec![0.0, 1.0, f32::NAN, 2.0]);
    assert_eq!(refused(infinite), Error::BadValue { tensor: name(), index: 2 });
    let of_codebook =
        |codebook: Vec<f32>, codes: Vec<u8>| refused(Values::Shared { precision: Precision::Half, codebook, codes });
    for codebook in [vec![0.5, 0.25], vec![0.0, 1.0], vec![f32::INFINITY], vec![0.1], vec![1.0; 300]] {
        assert_eq!(of_codebook(codebook, vec![1; 4]), Error::BadCodebook { tensor: name() });
    }
    assert_eq!(of_codebook(vec![0.5], vec![0, 1, 1, 2]), Error::BadValue { tensor: name(), index: 3 });
    let of_scales = |scales: Vec<f32>, level| {
        refused(Values::Integers { width: Width::Four, scales, levels: vec![0, 0, level, 0] })
    };
    for scales in [vec![1.0], vec![1.0, -1.0], vec![1.0, 0.1], vec![1.0, f32::NAN]] {
        assert_eq!(of_scales(scales, 1), Error::BadScales { tensor: name(), expected: 2 });
    }
    assert_eq!(of_scales(vec![1.0, 1.0], 8), Error::BadValue { tensor: name(), index: 2 });
    let twice =
        without_words(vec![tensor("w", &[1], Values::F32(vec![1.0])), tensor("w", &[1], Values::F32(vec![1.0]))]);
    assert_eq!(twice.to_bytes().unwrap_err(), Error::DuplicateName { tensor: name() });
    let empty = without_words(vec![tensor("w", &[3, 0], Values::F32(vec![]))]);
    assert_eq!(empty.to_bytes().unwrap_err(), Error::BadShape { tensor: name(), shape: vec![3, 0] });
}

proptest! {
    #[test]
    fn pruned_tensors_come_back_whatever_their_shape(
        rows in 1usize..20, columns in 1usize..40, every in 1u32..30, entries in 1usize..256,
    ) {
        let container = without_words(vec![tensor("w", &[rows, columns], shared(&[rows, columns], every, entries))]);
        let file = container.to_bytes().unwrap();
        let read = Container::from_bytes(&file, &Limits::default()).unwrap();
        prop_assert_eq!(read.tensors[0].values.to_f32(), container.tensors[0].values.to_f32());
    }
}

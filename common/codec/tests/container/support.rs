//! Tensors that the tests share, from recurrences and not from generators that may change.

use dunlin_codec::container::{Container, Precision, Tensor, Values, Width};
use half::f16;
use std::collections::BTreeMap;

/// Numbers below 2²⁴.
pub(crate) fn numbers(seed: u32, len: usize) -> impl Iterator<Item = u32> {
    let mut state = seed;
    (0..len).map(move |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    })
}

pub(crate) fn floats(seed: u32, len: usize) -> Vec<f32> {
    numbers(seed, len).map(|number| (number as f32 / (1 << 23) as f32 - 1.0).powi(3)).collect()
}

/// One in `every` of the codes is not zero, and they favour the middle of the codebook.
pub(crate) fn codes(seed: u32, len: usize, every: u32, entries: u32) -> Vec<u8> {
    let pairs = numbers(seed, len).zip(numbers(seed + 1, len)).zip(numbers(seed + 2, len));
    let code = |((zero, a), b): ((u32, u32), u32)| {
        if zero % every != 0 { 0 } else { ((a % entries + b % entries) / 2 + 1) as u8 }
    };
    pairs.map(code).collect()
}

/// Rising and without zero.
pub(crate) fn codebook(entries: usize) -> Vec<f32> {
    (0..entries).map(|i| (2 * i + 1) as f32 / 64.0 - entries as f32 / 64.0 + 1.0 / 128.0).collect()
}

pub(crate) fn tensor(name: &str, shape: &[usize], values: Values) -> Tensor {
    Tensor { name: name.to_owned(), shape: shape.to_vec(), values }
}

pub(crate) fn shared(shape: &[usize], every: u32, entries: usize) -> Values {
    let codes = codes(7, shape.iter().product(), every, entries as u32);
    Values::Shared { precision: Precision::Half, codebook: codebook(entries), codes }
}

pub(crate) fn integers(width: Width, shape: &[usize]) -> Values {
    let most = i32::from(width.level_max());
    let levels =
        numbers(3, shape.iter().product()).map(|number| (number as i32 % (2 * most + 1) - most) as i8).collect();
    let scales = (1..=shape[0]).map(|i| i as f32 / 128.0).collect();
    Values::Integers { width, scales, levels }
}

/// A tensor of every kind.
pub(crate) fn every_kind() -> Container {
    let halves = |seed, len| floats(seed, len).into_iter().map(f16::from_f32).collect();
    let single =
        Values::Shared { precision: Precision::Single, codebook: vec![-1.25, 0.1, 3.0], codes: codes(9, 40, 2, 3) };
    let about = [("model", "lenet-300-100"), ("origin", "a test ✓")];
    Container {
        about: about.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        tensors: vec![
            tensor("f32", &[30, 4], Values::F32(floats(1, 120))),
            tensor(
                "f32 with zeros",
                &[6, 20],
                Values::F32(floats(2, 120).into_iter().map(|x| if x < 0.2 { 0.0 } else { x }).collect()),
            ),
            tensor("f16", &[50], Values::F16(halves(4, 50))),
            tensor("scalar", &[], Values::F16(halves(5, 1))),
            tensor("shared", &[40, 25], shared(&[40, 25], 5, 31)),
            tensor("shared and dense", &[4, 3, 3, 3], shared(&[4, 3, 3, 3], 1, 16)),
            tensor(
                "one value",
                &[64],
                Values::Shared { precision: Precision::Half, codebook: vec![0.5], codes: vec![1; 64] },
            ),
            tensor("shared in f32", &[5, 8], single),
            tensor("int8", &[9, 17], integers(Width::Eight, &[9, 17])),
            tensor("int4", &[9, 17], integers(Width::Four, &[9, 17])),
            tensor(
                "int8 of nothing",
                &[3, 3],
                Values::Integers { width: Width::Eight, scales: vec![1.0; 3], levels: vec![0; 9] },
            ),
            tensor("zeros", &[7, 7], Values::F32(vec![0.0; 49])),
        ],
    }
}

pub(crate) fn without_words(tensors: Vec<Tensor>) -> Container {
    Container { about: BTreeMap::new(), tensors }
}

//! Portable arithmetic: bits that no processor's instructions change.

use super::*;
use crate::ops::{as_on_any_machine, fuses};
use dunlin_core::recipe::Arithmetic;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The logits and all gradients of a batch of five.
fn computed(kind: &ModelKind, input: &InputShape, arithmetic: Arithmetic) -> Vec<f32> {
    let mut model = Model::new(ModelConfig { arithmetic, ..kind.into() }, input).unwrap();
    let seed = Seed::from_u64(7);
    model.load(&model.init(&seed)).unwrap();
    let x = values(input, 5, &mut seed.rng()).to_dtype(DType::F32).unwrap();
    let labels: Vec<u32> = (0..5 * input.targets).map(|i| (i * 7 % input.classes) as u32).collect();
    let gradients = model.gradients(&x, Target::Labels(&labels), labels.len(), Some(seed)).unwrap();
    let mut all = model.infer(&x).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    all.push(gradients.loss as f32);
    for gradient in gradients.tensors.into_iter().flatten() {
        all.extend(gradient.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    }
    all
}

/// A line for each model: its name and a digest of what it computes.
fn digests(arithmetic: Arithmetic) -> String {
    let mut digests = String::new();
    for kind in trainable() {
        let mut digest = Sha256::new();
        for input in small_inputs(&kind) {
            let values = computed(&kind, &input, arithmetic);
            assert!(values.iter().any(|value| *value != 0.0), "{kind} on {input:?} computes nothing");
            // Adding 0 makes −0 and 0 the same.
            values.iter().for_each(|value| digest.update((value + 0.0).to_le_bytes()));
        }
        let digest: String = digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        writeln!(digests, "{kind} {digest}").unwrap();
    }
    digests
}

/// Also the definition of the portable arithmetic: this file's digests must come out on every machine.
#[test]
fn portable_arithmetic_gives_the_stored_bits_on_any_machine() {
    let here = digests(Arithmetic::Portable);
    assert_eq!(here, as_on_any_machine(|| digests(Arithmetic::Portable)));
    insta::assert_snapshot!(here);
}

/// However wide its vectors are: each element is summed in the same order.
#[test]
fn fast_arithmetic_gives_the_stored_bits_on_any_machine_with_fused_multiply_add() {
    if fuses() {
        insta::assert_snapshot!(digests(Arithmetic::Fast));
    }
}

#[test]
fn fast_arithmetic_differs_from_it_only_by_rounding() {
    let input = &DIGITS;
    let [fast, portable] = [Arithmetic::Fast, Arithmetic::Portable].map(|arithmetic| {
        let logits = computed(&ModelKind::TwoNn, input, arithmetic);
        logits[..50].to_vec()
    });
    for (fast, portable) in fast.iter().zip(&portable) {
        assert!((fast - portable).abs() < 1e-5, "{fast} {portable}");
    }
}

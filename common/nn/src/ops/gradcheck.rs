//! Every operation's gradient against central differences in 64 bits.

use super::*;
use candle_core::{DType, Device, Var};
use dunlin_core::Seed;
use rand::RngCore;

/// Numbers in ±1 that lie apart, so that no rectifier or maximum changes its mind within a difference's step.
fn values(seed: u64, len: usize) -> Vec<f64> {
    let mut rng = Seed::from_u64(seed).rng();
    (0..len).map(|_| f64::from(rng.next_u32() >> 8) / f64::from(1 << 23) - 1.0).collect()
}

fn variable(seed: u64, shape: &[usize]) -> Var {
    Var::from_vec(values(seed, shape.iter().product()), shape, &Device::Cpu).unwrap()
}

/// Compares the gradients of a fixed weighted sum of `f`'s result with respect to every element of every variable.
fn check(variables: &[Var], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    let objective = |variables: &[Var]| -> Tensor {
        let tensors: Vec<Tensor> = variables.iter().map(|variable| variable.as_tensor().clone()).collect();
        let y = f(&tensors).unwrap();
        let weights = Tensor::from_vec(values(99, y.elem_count()), y.shape(), &Device::Cpu).unwrap();
        (y * weights).unwrap().sum_all().unwrap()
    };
    let gradients = objective(variables).backward().unwrap();
    for (number, variable) in variables.iter().enumerate() {
        let gradient = gradients.get(variable).expect("every variable has a gradient");
        let gradient = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let original = variable.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for (element, &analytic) in gradient.iter().enumerate() {
            let at = |offset: f64| {
                let mut moved = original.clone();
                moved[element] += offset;
                variable.set(&Tensor::from_vec(moved, variable.shape(), &Device::Cpu).unwrap()).unwrap();
                objective(variables).to_scalar::<f64>().unwrap()
            };
            let numeric = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            assert!(
                (numeric - analytic).abs() <= 1e-6 * (1.0 + numeric.abs()),
                "variable {number}, element {element}: {analytic}, want {numeric}"
            );
        }
        variable.set(&Tensor::from_vec(original, variable.shape(), &Device::Cpu).unwrap()).unwrap();
    }
}

/// Offset of a central difference: its error is about STEP² and rounding about 1e-16/STEP.
const STEP: f64 = 1e-5;

#[test]
fn linear_has_the_right_gradient() {
    check(&[variable(1, &[3, 5]), variable(2, &[4, 5]), variable(3, &[4])], |v| {
        linear(&mut Graph::Candle, &v[0], &v[1], &v[2])
    });
}

#[test]
fn relu_has_the_right_gradient() {
    check(&[variable(1, &[4, 7])], |v| relu(&mut Graph::Candle, &v[0]));
}

#[test]
fn conv2d_has_the_right_gradient_for_every_shape_in_use() {
    // (channels, height, width, outputs, kernel, padding, stride)
    for (c, h, w, o, k, padding, stride) in [
        (2, 6, 5, 3, 5, 2, 1),
        (3, 4, 4, 2, 3, 1, 1),
        (2, 5, 7, 3, 3, 1, 2),
        (2, 8, 6, 3, 3, 1, 2),
        (3, 5, 4, 2, 1, 0, 2),
        (2, 1, 1, 2, 3, 1, 2),
        (1, 2, 2, 2, 5, 2, 1),
    ] {
        let variables = [variable(1, &[2, c, h, w]), variable(2, &[o, c, k, k]), variable(3, &[o])];
        check(&variables, |v| conv2d(&mut Graph::Candle, &v[0], &v[1], Some(&v[2]), padding, stride));
        check(&variables[..2], |v| conv2d(&mut Graph::Candle, &v[0], &v[1], None, padding, stride));
    }
}

#[test]
fn max_pool_has_the_right_gradient_also_with_an_odd_last_row_and_column() {
    check(&[variable(1, &[2, 3, 4, 6])], |v| max_pool_2x2(&mut Graph::Candle, &v[0]));
    check(&[variable(1, &[2, 2, 5, 7])], |v| max_pool_2x2(&mut Graph::Candle, &v[0]));
}

#[test]
fn global_average_pool_has_the_right_gradient() {
    check(&[variable(1, &[2, 3, 3, 5])], |v| global_avg_pool(&mut Graph::Candle, &v[0]));
}

#[test]
fn group_norm_has_the_right_gradient() {
    for (channels, groups) in [(4, 2), (6, 6), (3, 1)] {
        let variables = [variable(1, &[2, channels, 3, 7]), variable(2, &[channels]), variable(3, &[channels])];
        check(&variables, |v| group_norm(&mut Graph::Candle, &v[0], &v[1], &v[2], groups));
    }
}

#[test]
fn cross_entropy_has_the_right_gradient() {
    check(&[variable(1, &[4, 5])], |v| cross_entropy(&mut Graph::Candle, &(&v[0] * 6.0)?, &[0, 4, 2, 2]));
}

#[test]
fn reshapes_and_sums_have_the_right_gradient() {
    check(&[variable(1, &[2, 12]), variable(2, &[2, 3, 2, 2])], |v| {
        let x = v[0].reshape(((), 3, 2, 2))?;
        Graph::Candle.flatten(&add(&mut Graph::Candle, &x, &v[1])?)
    });
}

#[test]
fn convolution_agrees_with_candles() {
    for (k, padding, stride) in [(5, 2, 1), (3, 1, 1), (3, 1, 2), (1, 0, 2)] {
        let (x, w) = (variable(1, &[2, 3, 9, 8]), variable(2, &[4, 3, k, k]));
        let ours = conv2d(&mut Graph::Candle, &x, &w, None, padding, stride).unwrap();
        let theirs = x.conv2d(&w, padding, stride, 1, 1).unwrap();
        let difference = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(difference < 1e-12, "kernel {k}: {difference}");
    }
}

#[test]
fn among_equal_elements_the_first_gets_the_gradient() {
    let x = Var::ones((1, 1, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let gradients = max_pool_2x2(&mut Graph::Candle, &x).unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(gradient, [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn the_rectifier_passes_no_gradient_at_zero_and_keeps_nan() {
    let x = Var::new(&[-1.0f32, 0.0, 2.0, f32::NAN], &Device::Cpu).unwrap();
    let y = relu(&mut Graph::Candle, &x).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    assert_eq!(gradients.get(&x).unwrap().to_vec1::<f32>().unwrap(), [0.0, 0.0, 1.0, 0.0]);
    assert!(y.to_vec1::<f32>().unwrap()[3].is_nan());
}

#[test]
fn cross_entropy_of_huge_logits_is_finite() {
    let logits = Tensor::new(&[[1e30f32, 0.0], [0.0, 1e30]], &Device::Cpu).unwrap();
    assert_eq!(cross_entropy(&mut Graph::Candle, &logits, &[0, 1]).unwrap().to_scalar::<f32>().unwrap(), 0.0);
}

#[test]
fn wrong_shapes_and_labels_are_errors() {
    let tensor = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    assert!(linear(&mut Graph::Candle, &tensor(&[2, 3]), &tensor(&[4, 5]), &tensor(&[4])).is_err());
    assert!(conv2d(&mut Graph::Candle, &tensor(&[1, 2, 4, 4]), &tensor(&[3, 1, 3, 3]), None, 1, 1).is_err());
    assert!(conv2d(&mut Graph::Candle, &tensor(&[1, 1, 2, 2]), &tensor(&[3, 1, 5, 5]), None, 0, 1).is_err());
    assert!(group_norm(&mut Graph::Candle, &tensor(&[1, 4, 2, 2]), &tensor(&[4]), &tensor(&[4]), 3).is_err());
    assert!(cross_entropy(&mut Graph::Candle, &tensor(&[2, 3]), &[0, 3]).is_err());
    assert!(cross_entropy(&mut Graph::Candle, &tensor(&[2, 3]), &[0]).is_err());
}

//! Every operation's gradient against central differences in 64 bits.

mod sequences;
mod torch;

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
        linear(&mut Graph::candle(), &v[0], &v[1], &v[2])
    });
    check(&[variable(1, &[3, 5]), variable(2, &[4, 5]), variable(3, &[4])], |v| {
        linear_relu(&mut Graph::candle(), &v[0], &v[1], &v[2])
    });
}

#[test]
fn the_rectified_sum_has_the_right_gradient() {
    check(&[variable(1, &[4, 7]), variable(2, &[4, 7])], |v| add_relu(&mut Graph::candle(), &v[0], &v[1]));
}

/// Height, width, channels and outputs; then kernel, padding, stride and groups.
type Convolution = ([usize; 4], [usize; 2], [usize; 2], [usize; 2], usize);

/// Convolutions of every kind.
const CONVOLUTIONS: [Convolution; 17] = [
    ([6, 5, 2, 3], [5, 5], [2, 2], [1, 1], 1),
    ([4, 4, 3, 2], [3, 3], [1, 1], [1, 1], 1),
    ([5, 7, 2, 3], [3, 3], [1, 1], [2, 2], 1),
    ([8, 6, 2, 3], [3, 3], [1, 1], [2, 2], 1),
    ([5, 4, 3, 2], [1, 1], [0, 0], [2, 2], 1),
    ([1, 1, 2, 2], [3, 3], [1, 1], [2, 2], 1),
    ([2, 2, 1, 2], [5, 5], [2, 2], [1, 1], 1),
    // Not square, and more padding than kernel.
    ([6, 5, 2, 3], [1, 3], [0, 1], [1, 1], 1),
    ([6, 7, 2, 3], [3, 2], [2, 0], [2, 3], 1),
    ([3, 3, 2, 2], [2, 2], [3, 2], [1, 1], 1),
    // One pixel.
    ([3, 4, 5, 6], [1, 1], [0, 0], [1, 1], 1),
    // Groups and depthwise, with more and fewer channels than a vector has lanes.
    ([4, 5, 4, 6], [3, 3], [1, 1], [1, 1], 2),
    ([5, 4, 3, 6], [3, 3], [1, 1], [2, 2], 3),
    ([5, 4, 3, 3], [3, 3], [1, 1], [1, 1], 3),
    ([5, 6, 11, 11], [3, 3], [1, 1], [2, 2], 11),
    ([6, 5, 9, 9], [5, 5], [2, 2], [1, 1], 9),
    ([4, 6, 2, 2], [2, 4], [2, 1], [1, 2], 2),
];

#[test]
fn conv2d_has_the_right_gradient_for_every_shape() {
    for ([h, w, c, o], [k, l], padding, stride, groups) in CONVOLUTIONS {
        let variables = [variable(1, &[2, h, w, c]), variable(2, &[o, c / groups, k, l]), variable(3, &[o])];
        for relu in [false, true] {
            let config = Conv2dConfig { padding, stride, groups, relu };
            check(&variables, |v| conv2d(&mut Graph::candle(), &v[0], &v[1], Some(&v[2]), config));
            check(&variables[..2], |v| conv2d(&mut Graph::candle(), &v[0], &v[1], None, config));
        }
    }
}

#[test]
fn max_pool_has_the_right_gradient_also_with_an_odd_last_row_and_column() {
    check(&[variable(1, &[2, 4, 6, 3])], |v| max_pool2d(&mut Graph::candle(), &v[0], Pool2dConfig::square(2)));
    check(&[variable(1, &[2, 5, 7, 2])], |v| max_pool2d(&mut Graph::candle(), &v[0], Pool2dConfig::square(2)));
}

#[test]
fn pools_have_the_right_gradient_with_windows_apart_and_overlapping() {
    for (kernel, stride) in [([3, 3], [3, 3]), ([3, 2], [1, 2]), ([2, 2], [3, 3]), ([1, 4], [2, 1])] {
        let config = Pool2dConfig { kernel, stride };
        check(&[variable(1, &[2, 5, 7, 3])], |v| max_pool2d(&mut Graph::candle(), &v[0], config));
        check(&[variable(1, &[2, 5, 7, 3])], |v| avg_pool2d(&mut Graph::candle(), &v[0], config));
    }
}

#[test]
fn pools_agree_with_candles() {
    let x = variable(1, &[2, 7, 8, 3]);
    let planes = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
    for (kernel, stride) in [((2, 2), (2, 2)), ((3, 2), (1, 2)), ((2, 3), (3, 3))] {
        let config = Pool2dConfig { kernel: kernel.into(), stride: stride.into() };
        for (ours, theirs) in [
            (max_pool2d(&mut Graph::candle(), &x, config), planes.max_pool2d_with_stride(kernel, stride)),
            (avg_pool2d(&mut Graph::candle(), &x, config), planes.avg_pool2d_with_stride(kernel, stride)),
        ] {
            let theirs = theirs.unwrap().permute((0, 2, 3, 1)).unwrap();
            let difference = (ours.unwrap() - theirs).unwrap().abs().unwrap().max_all().unwrap();
            assert!(difference.to_scalar::<f64>().unwrap() < 1e-12, "{config:?}");
        }
    }
}

#[test]
fn scaled_channels_have_the_right_gradient() {
    check(&[variable(1, &[2, 3, 5, 11]), variable(2, &[2, 11])], |v| {
        scale_channels(&mut Graph::candle(), &v[0], &v[1])
    });
}

#[test]
fn resized_images_have_the_right_gradient_and_keep_a_ramp() {
    for size in [[7, 9], [3, 4], [5, 6]] {
        check(&[variable(1, &[2, 5, 6, 3])], |v| resize(&mut Graph::candle(), &v[0], size));
    }
    // Twice as wide: between the centres of the old pixels a ramp stays a ramp.
    let x = Tensor::new(&[0f64, 4.0, 8.0], &Device::Cpu).unwrap().reshape((1, 1, 3, 1)).unwrap();
    let wide = resize(&mut Graph::candle(), &x, [1, 6]).unwrap().flatten_all().unwrap();
    assert_eq!(wide.to_vec1::<f64>().unwrap(), [0.0, 1.0, 3.0, 5.0, 7.0, 8.0]);
}

#[test]
fn global_average_pool_has_the_right_gradient() {
    check(&[variable(1, &[2, 3, 5, 3])], |v| global_avg_pool(&mut Graph::candle(), &v[0]));
}

#[test]
fn group_norm_has_the_right_gradient() {
    for (channels, groups) in [(4, 2), (6, 6), (3, 1), (18, 3)] {
        let variables = [variable(1, &[2, 3, 7, channels]), variable(2, &[channels]), variable(3, &[channels])];
        check(&variables, |v| group_norm(&mut Graph::candle(), &v[0], &v[1], &v[2], groups));
        check(&variables, |v| group_norm_relu(&mut Graph::candle(), &v[0], &v[1], &v[2], groups));
    }
}

/// On a tape they are one operation, of a few images at a time: of most shapes here fewer than the fifteen.
#[test]
fn a_convolution_with_its_norm_is_both_of_them_one_after_the_other() {
    for ([h, w, c, o], [k, l], padding, stride, groups) in CONVOLUTIONS {
        let shapes = [&[15, h, w, c][..], &[o, c / groups, k, l], &[o], &[o]];
        let v: Vec<Var> = (1..).zip(shapes).map(|(seed, shape)| variable(seed, shape)).collect();
        for relu in [false, true] {
            let config = Conv2dConfig { padding, stride, groups, relu };
            let loss = |graph: &mut Graph<'_>| {
                // The input comes from the tape, too, so that its gradient is asked for.
                let x = add(graph, &v[0], &v[0]).unwrap();
                let y = conv_norm(graph, &x, &v[1], [&v[2], &v[3]], config, 1).unwrap();
                let y = flatten(graph, &y).unwrap();
                let classes = y.dim(1).unwrap() as u32;
                let labels: Vec<u32> = (0..15).map(|row| row % classes).collect();
                cross_entropy(graph, &y, &labels, 15).unwrap()
            };
            let apart = loss(&mut Graph::candle());
            let mut tape = Tape::of(v.iter().map(Var::as_tensor));
            let together = loss(&mut Graph::on(&mut tape));
            let difference =
                |x: &Tensor, y: &Tensor| (x - y).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            assert!(difference(&together, &apart) < 1e-14, "{config:?}");
            let (apart, mut together) = (apart.backward().unwrap(), tape.backward(&together).unwrap());
            for (index, v) in v.iter().enumerate() {
                let off = difference(&together.take(v).unwrap(), apart.get(v).unwrap());
                assert!(off < 1e-13, "operand {index} of {config:?}: off by {off}");
            }
        }
    }
}

#[test]
fn cross_entropy_has_the_right_gradient() {
    check(&[variable(1, &[4, 5])], |v| cross_entropy(&mut Graph::candle(), &(&v[0] * 6.0)?, &[0, 4, 2, 2], 7));
}

#[test]
fn changes_of_layout_have_the_right_gradient_and_undo_each_other() {
    for channels in [1, 3] {
        let features = [2, channels * 20];
        check(&[variable(1, &features)], |v| channels_last(&mut Graph::candle(), &v[0], [channels, 4, 5]));
        check(&[variable(1, &[2, 4, 5, channels])], |v| flatten(&mut Graph::candle(), &v[0]));
        let x = variable(1, &features);
        let images = channels_last(&mut Graph::candle(), &x, [channels, 4, 5]).unwrap();
        let back = flatten(&mut Graph::candle(), &images).unwrap();
        assert_eq!(back.to_vec2::<f64>().unwrap(), x.to_vec2::<f64>().unwrap());
    }
}

#[test]
fn convolution_agrees_with_candles() {
    for ([h, w, c, o], [k, l], padding, stride, groups) in CONVOLUTIONS {
        // Candle knows only one padding and one stride for both axes.
        if padding[0] != padding[1] || stride[0] != stride[1] {
            continue;
        }
        let (x, weights) = (variable(1, &[2, h, w, c]), variable(2, &[o, c / groups, k, l]));
        let config = Conv2dConfig { padding, stride, groups, relu: false };
        let ours = conv2d(&mut Graph::candle(), &x, &weights, None, config).unwrap();
        let planes = x.permute((0, 3, 1, 2)).unwrap().contiguous().unwrap();
        let theirs = planes.conv2d(&weights, padding[0], stride[0], 1, groups).unwrap();
        let theirs = theirs.permute((0, 2, 3, 1)).unwrap();
        let difference = (ours - theirs).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        assert!(difference < 1e-12, "kernel {k}×{l}, groups {groups}: {difference}");
    }
}

/// The vector code in f32 against the portable code in f64, with channels that fill no vector.
#[test]
fn layers_in_f32_agree_with_those_in_f64() {
    for (c, o, side, padding, stride, groups) in [
        (3, 17, 3, 1, 1, 1),
        (18, 35, 3, 1, 2, 1),
        (2, 16, 5, 2, 1, 1),
        (5, 33, 1, 0, 2, 1),
        (19, 33, 1, 0, 1, 1),
        (19, 19, 3, 1, 1, 19),
        (19, 19, 5, 2, 2, 19),
        (6, 34, 3, 1, 1, 2),
    ] {
        let config = Conv2dConfig { padding: [padding; 2], stride: [stride; 2], groups, relu: true };
        let variables =
            [&[3, 9, 7, c][..], &[o, c / groups, side, side], &[o], &[o], &[4, o]].map(|shape| variable(7, shape));
        let run = |dtype: DType| -> Vec<Vec<f64>> {
            let v: Vec<Var> =
                variables.iter().map(|v| Var::from_tensor(&v.to_dtype(dtype).unwrap()).unwrap()).collect();
            let graph = &mut Graph::candle();
            let y = conv2d(graph, &v[0], &v[1], Some(&v[2]), config).unwrap();
            let y = group_norm(graph, &y, &v[2], &v[3], 1).unwrap();
            let y = max_pool2d(graph, &y, Pool2dConfig::square(2)).unwrap();
            let y = global_avg_pool(graph, &y).unwrap();
            let bias = Tensor::zeros(4, dtype, &Device::Cpu).unwrap();
            let y = linear(graph, &y, &v[4], &bias).unwrap();
            let gradients = cross_entropy(graph, &y, &[0, 3, 1], 3).unwrap().backward().unwrap();
            let flat = |x: &Tensor| x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap();
            std::iter::once(flat(&y)).chain(v.iter().map(|v| flat(gradients.get(v).unwrap()))).collect()
        };
        for (single, double) in run(DType::F32).iter().zip(run(DType::F64)) {
            let scale = double.iter().fold(0f64, |largest, x| largest.max(x.abs()));
            for (x, y) in single.iter().zip(&double) {
                assert!((x - y).abs() < 1e-5 * scale, "{c} to {o} channels: {x}, want {y} of {scale}");
            }
        }
    }
}

#[test]
fn among_equal_elements_the_first_gets_the_gradient() {
    let x = Var::ones((1, 2, 2, 1), DType::F32, &Device::Cpu).unwrap();
    let gradients =
        max_pool2d(&mut Graph::candle(), &x, Pool2dConfig::square(2)).unwrap().sum_all().unwrap().backward().unwrap();
    let gradient = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(gradient, [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn the_rectifier_passes_no_gradient_at_zero_and_keeps_nan() {
    let x = Var::new(&[-1.0f32, 0.0, 2.0, f32::NAN], &Device::Cpu).unwrap();
    let y = add_relu(&mut Graph::candle(), &x, &x.zeros_like().unwrap()).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    assert_eq!(gradients.get(&x).unwrap().to_vec1::<f32>().unwrap(), [0.0, 0.0, 1.0, 0.0]);
    assert!(y.to_vec1::<f32>().unwrap()[3].is_nan());
}

#[test]
fn distillation_has_the_right_gradient_and_none_at_the_teacher() {
    let teacher: Vec<f32> = (0..20).map(|i| (i * 7 % 11) as f32 / 3.0 - 1.5).collect();
    for temperature in [0.7, 1.0, 4.0] {
        check(&[variable(1, &[4, 5])], |v| {
            distillation(&mut Graph::candle(), &(&v[0] * 6.0)?, &teacher, temperature, 7)
        });
        let same = Tensor::from_slice(&teacher, (4, 5), &Device::Cpu).unwrap();
        for graph in [&mut Graph::candle(), &mut Graph::composed()] {
            let loss = distillation(graph, &same, &teacher, temperature, 4).unwrap().to_scalar::<f32>().unwrap();
            assert!(loss.abs() < 1e-6, "{loss}");
            assert!(distillation(graph, &same, &teacher[1..], temperature, 4).is_err());
        }
    }
    let logits = variable(2, &[4, 5]);
    let loss = |graph: &mut Graph<'_>| {
        distillation(graph, &logits.to_dtype(DType::F32).unwrap(), &teacher, 2.0, 4)
            .unwrap()
            .to_scalar::<f32>()
            .unwrap()
    };
    let (own, candles) = (loss(&mut Graph::candle()), loss(&mut Graph::composed()));
    assert!((own - candles).abs() < 1e-5 && own > 0.1, "{own} {candles}");
}

#[test]
fn cross_entropy_of_huge_logits_is_finite() {
    let logits = Tensor::new(&[[1e30f32, 0.0], [0.0, 1e30]], &Device::Cpu).unwrap();
    assert_eq!(cross_entropy(&mut Graph::candle(), &logits, &[0, 1], 2).unwrap().to_scalar::<f32>().unwrap(), 0.0);
}

#[test]
fn wrong_shapes_and_labels_are_errors() {
    let tensor = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    assert!(linear(&mut Graph::candle(), &tensor(&[2, 3]), &tensor(&[4, 5]), &tensor(&[4])).is_err());
    let conv = |x: &[usize], w: &[usize], config| conv2d(&mut Graph::candle(), &tensor(x), &tensor(w), None, config);
    let plain = Conv2dConfig::default();
    assert!(conv(&[1, 4, 4, 2], &[3, 1, 3, 3], plain).is_err());
    assert!(conv(&[1, 2, 2, 1], &[3, 1, 5, 5], plain).is_err());
    assert!(conv(&[1, 2, 2, 1], &[3, 1, 1, 1], Conv2dConfig { stride: [1, 0], ..plain }).is_err());
    assert!(conv(&[1, 2, 2, 4], &[3, 2, 1, 1], Conv2dConfig { groups: 2, ..plain }).is_err());
    assert!(conv(&[1, 2, 2, 4], &[3, 4, 1, 1], Conv2dConfig { groups: 0, ..plain }).is_err());
    let pool = |shape: &[usize], side| max_pool2d(&mut Graph::candle(), &tensor(shape), Pool2dConfig::square(side));
    assert!(pool(&[1, 1, 4, 1], 2).is_err() && pool(&[1, 4, 2, 1], 3).is_err() && pool(&[1, 4, 4, 1], 0).is_err());
    assert!(scale_channels(&mut Graph::candle(), &tensor(&[2, 2, 2, 3]), &tensor(&[2, 2])).is_err());
    assert!(resize(&mut Graph::candle(), &tensor(&[1, 2, 2, 1]), [0, 1]).is_err());
    assert!(group_norm(&mut Graph::candle(), &tensor(&[1, 2, 2, 4]), &tensor(&[4]), &tensor(&[4]), 3).is_err());
    assert!(cross_entropy(&mut Graph::candle(), &tensor(&[2, 3]), &[0, 3], 2).is_err());
    assert!(cross_entropy(&mut Graph::candle(), &tensor(&[2, 3]), &[0], 1).is_err());
}

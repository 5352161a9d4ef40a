//! The operations on sequences.

use super::*;

fn graph() -> Graph<'static> {
    Graph::candle()
}

#[test]
fn linear_has_the_right_gradient_for_sequences_and_for_many_rows() {
    check(&[variable(1, &[2, 3, 5]), variable(2, &[4, 5]), variable(3, &[4])], |v| {
        linear(&mut graph(), &v[0], &v[1], &v[2])
    });
    check(&[variable(1, &[65, 2, 3]), variable(2, &[4, 3]), variable(3, &[4])], |v| {
        linear(&mut graph(), &v[0], &v[1], &v[2])
    });
}

#[test]
fn many_rows_are_rectified_as_few_are() {
    let (x, w, b) = (variable(1, &[130, 3]), variable(2, &[4, 3]), variable(3, &[4]));
    let many = linear_relu(&mut graph(), &x, &w, &b).unwrap().narrow(0, 0, 5).unwrap().to_vec2::<f64>().unwrap();
    let few = linear_relu(&mut graph(), &x.narrow(0, 0, 5).unwrap(), &w, &b).unwrap().to_vec2::<f64>().unwrap();
    assert!(few.iter().flatten().any(|&value| value == 0.0) && few.iter().flatten().any(|&value| value > 0.0));
    for (many, few) in many.iter().flatten().zip(few.iter().flatten()) {
        assert!((many - few).abs() < 1e-14, "{many}, want {few}");
    }
}

#[test]
fn lstm_has_the_right_gradient_also_for_units_and_inputs_that_fill_no_panel() {
    for (batch, steps, inputs, units) in [(1, 1, 1, 1), (3, 4, 5, 3), (2, 3, 17, 18), (2, 5, 16, 1)] {
        let shapes = [&[batch, steps, inputs][..], &[4 * units, inputs + units], &[4 * units]];
        let variables = [variable(1, shapes[0]), variable(2, shapes[1]), variable(3, shapes[2])];
        check(&variables, |v| lstm(&mut graph(), &v[0], &v[1], &v[2]));
    }
}

#[test]
fn gru_has_the_right_gradient_also_for_units_and_inputs_that_fill_no_panel() {
    for (batch, steps, inputs, units) in [(1, 1, 1, 1), (3, 4, 5, 3), (2, 3, 17, 18), (2, 5, 16, 1)] {
        let shapes = [&[batch, steps, inputs][..], &[3 * units, inputs + units], &[4 * units]];
        let variables = [variable(1, shapes[0]), variable(2, shapes[1]), variable(3, shapes[2])];
        check(&variables, |v| gru(&mut graph(), &v[0], &v[1], &v[2]));
    }
}

/// What torch computes for this cell and sequence, worked out from its documented equations.
#[test]
fn one_unit_of_a_gru_follows_the_equations_of_torch() {
    let tensor = |values: &[f64], shape: &[usize]| Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
    let x = tensor(&[1.0, -0.5], &[1, 2, 1]);
    // Rows r, z, n; columns input, state.
    let w = tensor(&[0.5, -0.3, 0.2, 0.8, -1.0, 0.6], &[3, 2]);
    let b = tensor(&[0.1, -0.2, 0.3, 0.4], &[4]);
    let y = gru(&mut graph(), &x, &w, &b).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let mut h = 0.0;
    for (x, y) in [1.0, -0.5].into_iter().zip(y) {
        let r = sigmoid(0.5 * x + 0.1 - 0.3 * h);
        let z = sigmoid(0.2 * x - 0.2 + 0.8 * h);
        let n = (-x + 0.3 + r * (0.6 * h + 0.4)).tanh();
        h = (1.0 - z) * n + z * h;
        assert!((h - y).abs() < 1e-14, "{y}, want {h}");
    }
}

#[test]
fn a_second_gradient_of_the_same_pass_is_that_of_the_first() {
    let (x, w, b) = (variable(1, &[2, 3, 4]), variable(2, &[20, 9]), variable(3, &[20]));
    let y = lstm(&mut graph(), &x, &w, &b).unwrap().sum_all().unwrap();
    let attended = attention(&mut graph(), &x, &x, &x, 2, true).unwrap().sum_all().unwrap();
    for (result, variable) in [(&y, &w), (&attended, &x)] {
        let [first, second] = [(); 2].map(|()| {
            let gradients = result.backward().unwrap();
            gradients.get(variable).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()
        });
        assert_eq!(first, second);
    }
}

#[test]
fn norms_of_rows_have_the_right_gradient() {
    for width in [1, 3, 16, 21] {
        let variables = [variable(1, &[2, 3, width]), variable(2, &[width]), variable(3, &[width])];
        check(&variables, |v| layer_norm(&mut graph(), &v[0], &v[1], &v[2]));
        check(&variables[..2], |v| rms_norm(&mut graph(), &v[0], &v[1]));
    }
}

#[test]
fn a_norm_of_a_far_off_row_does_not_cancel() {
    let x = Tensor::new(&[[10_000.0f32, 10_001.0, 10_002.0]], &Device::Cpu).unwrap();
    let (one, zero) = (Tensor::new(&[1f32; 3], &Device::Cpu).unwrap(), Tensor::new(&[0f32; 3], &Device::Cpu).unwrap());
    let y = layer_norm(&mut graph(), &x, &one, &zero).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!((y[2] - 1.224_736).abs() < 1e-4 && y[1].abs() < 1e-4 && (y[0] + y[2]).abs() < 1e-4, "{y:?}");
}

#[test]
fn elementwise_functions_have_the_right_gradient() {
    let x = || [Var::from_tensor(&(variable(1, &[3, 19]).as_tensor() * 4.0).unwrap()).unwrap()];
    check(&x(), |v| gelu(&mut graph(), &v[0]));
    check(&x(), |v| silu(&mut graph(), &v[0]));
    check(&x(), |v| tanh(&mut graph(), &v[0]));
    check(&x(), |v| sigmoid(&mut graph(), &v[0]));
    check(&[variable(1, &[4, 7]), variable(2, &[4, 7])], |v| add(&mut graph(), &v[0], &v[1]));
}

#[test]
fn elementwise_functions_are_those_of_candle() {
    let x = (variable(1, &[3, 19]).as_tensor() * 4.0).unwrap();
    for (ours, theirs) in [
        (gelu(&mut graph(), &x), x.gelu_erf()),
        (silu(&mut graph(), &x), x.silu()),
        (tanh(&mut graph(), &x), x.tanh()),
        (sigmoid(&mut graph(), &x), candle_nn::ops::sigmoid(&x)),
    ] {
        let difference = (ours.unwrap() - theirs.unwrap()).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f64>().unwrap() < 1e-12);
    }
}

#[test]
fn attention_has_the_right_gradient_with_and_without_a_future() {
    for (steps, width, heads) in [(1, 2, 1), (4, 6, 2), (5, 6, 3), (33, 4, 2)] {
        for causal in [false, true] {
            let shape = [2, steps, width];
            check(&[variable(1, &shape), variable(2, &shape), variable(3, &shape)], |v| {
                attention(&mut graph(), &v[0], &v[1], &v[2], heads, causal)
            });
            check(&[variable(1, &[2, steps, 3 * width])], |v| self_attention(&mut graph(), &v[0], heads, causal));
        }
    }
}

#[test]
fn attention_agrees_with_its_definition_and_with_the_fused_operand() {
    let (batch, steps, width, heads) = (2, 5, 6, 3);
    let qkv = variable(1, &[batch, steps, 3 * width]);
    let parts = [0, 1, 2].map(|part| qkv.narrow(2, part * width, width).unwrap().contiguous().unwrap());
    for causal in [false, true] {
        let fused = self_attention(&mut graph(), &qkv, heads, causal).unwrap();
        let apart = attention(&mut graph(), &parts[0], &parts[1], &parts[2], heads, causal).unwrap();
        let [q, k, v] = parts.each_ref().map(|part| {
            part.reshape((batch, steps, heads, width / heads)).unwrap().transpose(1, 2).unwrap().contiguous().unwrap()
        });
        let scores = (q.matmul(&k.t().unwrap()).unwrap() / (width as f64 / heads as f64).sqrt()).unwrap();
        let mask: Vec<f64> = (0..steps * steps)
            .map(|at| if causal && at % steps > at / steps { f64::NEG_INFINITY } else { 0.0 })
            .collect();
        let mask = Tensor::from_vec(mask, (steps, steps), &Device::Cpu).unwrap();
        let weights = candle_nn::ops::softmax(&scores.broadcast_add(&mask).unwrap(), 3).unwrap();
        let y = weights.matmul(&v).unwrap().transpose(1, 2).unwrap().reshape((batch, steps, width)).unwrap();
        for ours in [fused, apart] {
            let difference = (ours - &y).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            assert!(difference < 1e-12, "causal {causal}: {difference}");
        }
    }
}

#[test]
fn attention_to_huge_scores_is_finite() {
    let x = (Tensor::ones((1, 3, 2), DType::F32, &Device::Cpu).unwrap() * 1e15).unwrap();
    let y = attention(&mut graph(), &x, &x, &x, 1, false).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(y.iter().all(|value| (value / 1e15 - 1.0).abs() < 1e-5), "{y:?}");
}

#[test]
fn embeddings_and_positions_have_the_right_gradient() {
    let ids = Tensor::new(&[[0f64, 2.0, 1.0], [2.0, 2.0, 0.0]], &Device::Cpu).unwrap();
    check(&[variable(1, &[4, 3])], |v| embedding(&mut graph(), &ids, &v[0]));
    check(&[variable(1, &[2, 3, 4]), variable(2, &[3, 4])], |v| add_positions(&mut graph(), &v[0], &v[1]));
}

#[test]
fn a_token_that_is_not_in_the_vocabulary_is_named() {
    let table = Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap();
    for (token, name) in [(4.0f32, "4"), (-1.0, "-1"), (0.5, "0.5"), (f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let ids = Tensor::new(&[[0f32, 1.0], [3.0, token]], &Device::Cpu).unwrap();
        let error = embedding(&mut graph(), &ids, &table).unwrap_err().to_string();
        let message =
            format!("embedding: token {name} in row 1, step 1; tokens are whole numbers below the vocabulary's 4");
        assert!(error.contains(&message), "{error}");
    }
}

#[test]
fn summaries_of_steps_have_the_right_gradient() {
    check(&[variable(1, &[2, 3, 4])], |v| last_step(&mut graph(), &v[0]));
    check(&[variable(1, &[2, 3, 4])], |v| mean_of_steps(&mut graph(), &v[0]));
    check(&[variable(1, &[2, 3, 4])], |v| rows_of_steps(&mut graph(), &v[0]));
}

#[test]
fn a_tape_finds_its_way_through_a_change_of_shape() {
    let (x, w, b) = (variable(1, &[2, 3, 4]), variable(2, &[5, 4]), variable(3, &[5]));
    let mut tape = Tape::of([x.as_tensor(), w.as_tensor(), b.as_tensor()]);
    let recorded = &mut Graph::on(&mut tape);
    let y = linear(recorded, &x, &w, &b).unwrap();
    let y = rows_of_steps(recorded, &y).unwrap();
    let loss = cross_entropy(recorded, &y, &[0, 1, 2, 3, 4, 0], 6).unwrap();
    let mut gradients = tape.backward(&loss).unwrap();
    let y = rows_of_steps(&mut graph(), &linear(&mut graph(), &x, &w, &b).unwrap()).unwrap();
    let candles = cross_entropy(&mut graph(), &y, &[0, 1, 2, 3, 4, 0], 6).unwrap().backward().unwrap();
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(flat(&gradients.take(&w).unwrap()), flat(candles.get(&w).unwrap()));
}

#[test]
fn dropout_has_the_right_gradient_and_is_the_identity_outside_training() {
    let x = variable(1, &[5, 40]);
    check(std::slice::from_ref(&x), |v| dropout(&mut graph().with_noise(Seed::from_u64(3)), &v[0], 0.3));
    let flat = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(flat(&dropout(&mut graph(), &x, 0.3).unwrap()), flat(&x));
    assert_eq!(flat(&dropout(&mut graph().with_noise(Seed::from_u64(3)), &x, 0.0).unwrap()), flat(&x));
}

#[test]
fn dropout_drops_the_share_asked_for_another_in_each_call_and_the_same_with_the_same_seed() {
    let x = Tensor::ones((100, 1000), DType::F32, &Device::Cpu).unwrap();
    let draw = |seed| {
        let graph = &mut graph().with_noise(Seed::from_u64(seed));
        [(); 2].map(|()| dropout(graph, &x, 0.25).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap())
    };
    let [first, second] = draw(1);
    for values in [&first, &second] {
        assert!(values.iter().all(|&value| value == 0.0 || value == 4.0 / 3.0));
        let dropped = values.iter().filter(|&&value| value == 0.0).count();
        assert!((24_300..25_700).contains(&dropped), "{dropped} of 100000");
    }
    // Independent masks drop a sixteenth together.
    let both = first.iter().zip(&second).filter(|&(&first, &second)| first == 0.0 && second == 0.0).count();
    assert!((5_800..6_700).contains(&both), "{both} of 100000");
    assert!(draw(1) == [first, second] && draw(1) != draw(2));
    // A change here changes every run that anybody has recorded.
    let golden: Vec<usize> = (0..40).filter(|&at| draw(1)[0][at] == 0.0).collect();
    assert_eq!(golden, GOLDEN_DROPPED);
}

const GOLDEN_DROPPED: [usize; 10] = [6, 7, 9, 11, 13, 15, 26, 28, 30, 38];

/// The vector code in f32 against the portable code in f64.
#[test]
fn sequences_in_f32_agree_with_those_in_f64() {
    for (batch, steps, width, units) in [(3, 5, 6, 20), (10, 3, 16, 32), (33, 4, 18, 17)] {
        let variables = [
            &[30, width][..],
            &[steps, width],
            &[width],
            &[width],
            &[3 * width, width],
            &[3 * width],
            &[4 * units, width + units],
            &[4 * units],
            &[3 * units, 2 * units],
            &[4 * units],
            &[5, units],
            &[5],
        ]
        .map(|shape| variable(7, shape));
        let ids: Vec<f64> = (0..batch * steps).map(|at| (at * 7 % 30) as f64).collect();
        let ids = Tensor::from_vec(ids, (batch, steps), &Device::Cpu).unwrap();
        let labels: Vec<u32> = (0..batch * steps).map(|at| (at % 5) as u32).collect();
        let run = |dtype: DType| -> Vec<Vec<f64>> {
            let v: Vec<Var> =
                variables.iter().map(|v| Var::from_tensor(&v.to_dtype(dtype).unwrap()).unwrap()).collect();
            let graph = &mut graph().with_noise(Seed::from_u64(2));
            let x = embedding(graph, &ids.to_dtype(dtype).unwrap(), &v[0]).unwrap();
            let x = add_positions(graph, &x, &v[1]).unwrap();
            let x = dropout(graph, &x, 0.1).unwrap();
            let y = layer_norm(graph, &x, &v[2], &v[3]).unwrap();
            let y = linear(graph, &y, &v[4], &v[5]).unwrap();
            let y = self_attention(graph, &y, 2, true).unwrap();
            let y = gelu(graph, &y).unwrap();
            let x = add(graph, &x, &y).unwrap();
            let x = rms_norm(graph, &x, &v[2]).unwrap();
            let y = lstm(graph, &x, &v[6], &v[7]).unwrap();
            let y = gru(graph, &y, &v[8], &v[9]).unwrap();
            let y = linear(graph, &y, &v[10], &v[11]).unwrap();
            let y = rows_of_steps(graph, &y).unwrap();
            let gradients = cross_entropy(graph, &y, &labels, labels.len()).unwrap().backward().unwrap();
            let flat = |x: &Tensor| x.flatten_all().unwrap().to_dtype(DType::F64).unwrap().to_vec1().unwrap();
            std::iter::once(flat(&y)).chain(v.iter().map(|v| flat(gradients.get(v).unwrap()))).collect()
        };
        for (number, (single, double)) in run(DType::F32).iter().zip(run(DType::F64)).enumerate() {
            let scale = double.iter().fold(0f64, |largest, x| largest.max(x.abs()));
            for (x, y) in single.iter().zip(&double) {
                assert!((x - y).abs() < 2e-5 * scale, "{number} of {units} units: {x}, want {y} of {scale}");
            }
        }
    }
}

#[test]
fn wrong_shapes_are_errors() {
    let tensor = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    let g = &mut graph();
    for (x, w, b) in [
        (&[2, 3, 4][..], &[20, 8][..], &[20][..]),
        (&[2, 3, 4], &[20, 9], &[19]),
        (&[2, 3, 4], &[15, 9], &[20]),
        (&[2, 0, 4], &[20, 9], &[20]),
        (&[0, 3, 4], &[20, 9], &[20]),
        (&[2, 3, 0], &[20, 5], &[20]),
        (&[2, 3, 4], &[0, 4], &[0]),
        (&[6, 4], &[20, 9], &[20]),
    ] {
        assert!(lstm(g, &tensor(x), &tensor(w), &tensor(b)).is_err(), "{x:?} {w:?} {b:?}");
    }
    assert!(gru(g, &tensor(&[2, 3, 4]), &tensor(&[20, 9]), &tensor(&[20])).is_err());
    assert!(gru(g, &tensor(&[2, 3, 4]), &tensor(&[15, 9]), &tensor(&[15])).is_err());
    assert!(layer_norm(g, &tensor(&[2, 3]), &tensor(&[3]), &tensor(&[2])).is_err());
    assert!(layer_norm(g, &tensor(&[2, 0]), &tensor(&[0]), &tensor(&[0])).is_err());
    assert!(rms_norm(g, &tensor(&[2, 3]), &tensor(&[2])).is_err());
    assert!(add(g, &tensor(&[2, 3]), &tensor(&[3, 2])).is_err());
    assert!(attention(g, &tensor(&[1, 2, 4]), &tensor(&[1, 2, 4]), &tensor(&[1, 3, 4]), 2, false).is_err());
    for (shape, heads) in [(&[1, 2, 12][..], 3), (&[1, 2, 12], 0), (&[1, 2, 13], 1), (&[1, 0, 12], 2), (&[2, 12], 2)] {
        assert!(self_attention(g, &tensor(shape), heads, false).is_err(), "{shape:?} in {heads}");
    }
    assert!(embedding(g, &tensor(&[2]), &tensor(&[4, 3])).is_err());
    assert!(embedding(g, &tensor(&[1, 2]), &tensor(&[0, 3])).is_err());
    assert!(add_positions(g, &tensor(&[2, 3, 4]), &tensor(&[2, 4])).is_err());
    assert!(last_step(g, &tensor(&[2, 0, 4])).is_err() && mean_of_steps(g, &tensor(&[2, 0, 4])).is_err());
    assert!(linear(g, &tensor(&[2, 3, 4]), &tensor(&[5, 3]), &tensor(&[5])).is_err());
    assert!(linear(g, &tensor(&[4]), &tensor(&[5, 4]), &tensor(&[5])).is_err());
    for rate in [-0.1, 1.0, f64::NAN] {
        assert!(dropout(g, &tensor(&[2, 3]), rate).is_err(), "{rate}");
    }
}

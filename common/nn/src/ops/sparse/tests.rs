//! Layers with what is left of their weights, against the same with zeros.

use super::*;
use crate::ops::{Conv2dConfig, Tape, as_on_any_machine, conv_norm, conv2d, linear, linear_relu};
use candle_core::{DType, Device};
use std::collections::HashMap;

fn numbers(n: usize, by: usize) -> Vec<f64> {
    (0..n).map(|i| ((i * by) % 97) as f64 / 97.0 - 0.5).collect()
}

fn tensor(values: Vec<f64>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// ⟨y, weights⟩, so that all results have another gradient.
struct Weighed(Tensor);

impl Fused for Weighed {
    fn backward(self: Box<Self>, _: &[Tensor], _: &Tensor) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.0)])
    }
}

/// A layer: its operands are the images or rows, the weights, and what else it has.
type Layer<'a> = &'a dyn Fn(&mut Graph<'_>, &[Tensor]) -> Result<Tensor>;

/// The results of a layer and the gradients of all its operands.
fn pass(layer: Layer<'_>, operands: &[Tensor], pattern: Option<&Arc<Pattern>>) -> Vec<Tensor> {
    let patterns: HashMap<_, _> = pattern.map(|pattern| (operands[1].id(), Arc::clone(pattern))).into_iter().collect();
    let mut tape = Tape::of(operands);
    let graph = &mut Graph::on(&mut tape).with_patterns(&patterns);
    let y = layer(graph, operands).unwrap();
    let weights = tensor(numbers(y.elem_count(), 41), y.dims()).to_dtype(y.dtype()).unwrap();
    let loss = (&y * &weights).unwrap().sum_all().unwrap();
    let loss = graph.record(Weighed(weights), vec![y.clone()], loss);
    let mut gradients = tape.backward(&loss).unwrap();
    let gradients = operands.iter().map(|operand| gradients.take(operand).unwrap());
    std::iter::once(y).chain(gradients).collect()
}

fn close(sparse: &Tensor, dense: &Tensor, what: &str) {
    let flat = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f64>().unwrap();
    assert_eq!(sparse.dims(), dense.dims(), "{what}");
    for (at, (s, d)) in flat(sparse).iter().zip(&flat(dense)).enumerate() {
        assert!((s - d).abs() < 1e-12, "{what}, element {at}: {s}, want {d}");
    }
}

/// Compares what is left of a layer with the same of all weights; `others` are the shapes of operands behind these.
fn compare(what: &str, layer: Layer<'_>, x: &[usize], w: &[usize], others: &[Vec<usize>]) {
    let count: usize = w.iter().product();
    let (row, pixels) = (count / w[0], w[2..].iter().product::<usize>());
    // One output and, where there are enough, one input have lost everything.
    let is_left = |place: usize| place * 37 % 10 < 3 && place / row != 2 && place % row / pixels != 4;
    let places: Vec<usize> = (0..count).filter(|&place| is_left(place)).collect();
    let pattern = Arc::new(Pattern::new(w, places.iter().copied()));
    let all: Vec<f64> =
        numbers(count, 29).into_iter().enumerate().map(|(at, w)| if is_left(at) { w } else { 0.0 }).collect();
    let left = tensor(places.iter().map(|&place| all[place]).collect(), &[places.len()]);
    let others = others.iter().map(|shape| tensor(numbers(shape.iter().product(), 13), shape));
    let mut operands = vec![tensor(numbers(x.iter().product(), 31), x), tensor(all, w)];
    operands.extend(others);
    let dense = pass(layer, &operands, None);
    operands[1] = left;
    let sparse = pass(layer, &operands, Some(&pattern));
    for (number, (sparse, dense)) in sparse.iter().zip(&dense).enumerate() {
        let what = format!("{what}, result or gradient {number}");
        if number != 2 {
            close(sparse, dense, &what);
            continue;
        }
        let dense = dense.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        close(sparse, &tensor(places.iter().map(|&place| dense[place]).collect(), &[places.len()]), &what);
    }
}

#[test]
fn fully_connected_layers_compute_as_with_zeros() {
    for (rows, inputs, outputs) in
        [(vec![1], 5, 3), (vec![16], 7, 1), (vec![33], 1, 4), (vec![70], 23, 19), (vec![3, 6], 11, 9)]
    {
        for rectify in [false, true] {
            let layer = if rectify { linear_relu } else { linear };
            compare(
                &format!("{rows:?} of {inputs} to {outputs}, {rectify}"),
                &|graph, v| layer(graph, &v[0], &v[1], &v[2]),
                &[&rows[..], &[inputs]].concat(),
                &[outputs, inputs],
                &[vec![outputs]],
            );
        }
    }
}

#[test]
fn convolutions_compute_as_with_zeros() {
    for (x, w, padding, stride) in [
        ([2, 6, 5, 2], [3, 5, 5], [2, 2], [1, 1]),
        ([3, 4, 4, 3], [8, 3, 3], [1, 1], [1, 1]),
        ([2, 8, 9, 6], [8, 3, 2], [0, 0], [1, 1]),
        // One pixel; one image larger than a portion; more padding than kernel; strides.
        ([2, 3, 4, 5], [8, 1, 1], [0, 0], [1, 1]),
        ([2, 17, 19, 1], [8, 5, 5], [0, 0], [1, 1]),
        ([2, 6, 5, 2], [8, 1, 3], [0, 3], [1, 1]),
        ([2, 7, 6, 3], [8, 3, 3], [1, 1], [2, 2]),
        ([9, 6, 6, 3], [8, 3, 3], [1, 1], [1, 1]),
    ] {
        let [outputs, rows, columns] = w;
        let w = [outputs, x[3], rows, columns];
        for relu in [false, true] {
            let config = Conv2dConfig { padding, stride, groups: 1, relu };
            let what = format!("{x:?}, {w:?}, {config:?}");
            let layer = |graph: &mut Graph<'_>, v: &[Tensor]| conv2d(graph, &v[0], &v[1], Some(&v[2]), config);
            compare(&what, &layer, &x, &w, &[vec![outputs]]);
            compare(&what, &|graph, v| conv2d(graph, &v[0], &v[1], None, config), &x, &w, &[]);
            let groups = if outputs == 8 { 4 } else { 1 };
            let layer =
                |graph: &mut Graph<'_>, v: &[Tensor]| conv_norm(graph, &v[0], &v[1], [&v[2], &v[3]], config, groups);
            compare(&format!("{what} and norm"), &layer, &x, &w, &[vec![outputs], vec![outputs]]);
        }
    }
}

#[test]
fn sums_have_the_same_bits_with_and_without_vectors_where_these_round_alike() {
    use crate::ops::with_arithmetic;
    use dunlin_core::recipe::Arithmetic;
    let (rows, inputs, outputs) = (37, 50, 40);
    let places: Vec<usize> = (0..inputs * outputs).filter(|place| place % 7 == 0).collect();
    let pattern = Arc::new(Pattern::new(&[outputs, inputs], places.iter().copied()));
    let tensor = |shape: &[usize], by| tensor(numbers(shape.iter().product(), by), shape).to_dtype(DType::F32).unwrap();
    let operands = [tensor(&[rows, inputs], 31), tensor(&[places.len()], 29), tensor(&[outputs], 13)];
    let run = || {
        with_arithmetic(Arithmetic::Portable, || {
            let all = pass(&|graph, v| linear_relu(graph, &v[0], &v[1], &v[2]), &operands, Some(&pattern));
            all.iter().map(|tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap()).collect::<Vec<_>>()
        })
    };
    assert_eq!(run(), as_on_any_machine(run));
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let pattern = Arc::new(Pattern::new(&[2, 3], [0, 4].into_iter()));
    let tensor = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
    for (x, w, b) in [(&[1, 4][..], 2, 2), (&[1, 3], 3, 2), (&[1, 3], 2, 3)] {
        let (x, w, b) = (tensor(x), tensor(&[w]), tensor(&[b]));
        let patterns = HashMap::from([(w.id(), Arc::clone(&pattern))]);
        let error = linear(&mut Graph::candle().with_patterns(&patterns), &x, &w, &b).unwrap_err();
        assert!(error.to_string().contains("want inputs of 3, 2 weights, [2]"), "{error}");
    }
    let pattern = Arc::new(Pattern::new(&[2, 1, 2, 2], [0, 4].into_iter()));
    for (w, groups) in [(3, 1), (2, 2)] {
        let (x, w) = (tensor(&[1, 4, 4, 1]), tensor(&[w]));
        let patterns = HashMap::from([(w.id(), Arc::clone(&pattern))]);
        let config = Conv2dConfig { groups, ..Conv2dConfig::default() };
        let error = conv2d(&mut Graph::candle().with_patterns(&patterns), &x, &w, None, config).unwrap_err();
        assert!(error.to_string().contains("want [2] and one group"), "{error}");
    }
}

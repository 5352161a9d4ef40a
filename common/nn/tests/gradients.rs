//! Every operation against torch in 64 bits: results and gradients that `scripts/golden_gradients.py` has stored.

use candle_core::{DType, Device, Result, Tensor, Var};
use dunlin_nn::ops::{self, Conv2dConfig, Graph, Pool2dConfig};
use std::collections::{BTreeSet, HashMap};

/// What an operation makes of a case's operands.
type Operation = fn(&mut Graph<'_>, &[Tensor]) -> Result<Tensor>;

const CASES: &[(&str, Operation)] = &[
    ("linear", |graph, v| ops::linear(graph, &v[0], &v[1], &v[2])),
    ("linear_relu", |graph, v| ops::linear_relu(graph, &v[0], &v[1], &v[2])),
    ("add_relu", |graph, v| ops::add_relu(graph, &v[0], &v[1])),
    ("conv_5x5", |graph, v| conv(graph, v, [2, 2], [1, 1], 1, true)),
    ("conv_3x3_stride_2", |graph, v| conv(graph, v, [1, 1], [2, 2], 1, false)),
    ("conv_1x3", |graph, v| conv(graph, v, [0, 1], [2, 1], 1, false)),
    ("conv_pointwise", |graph, v| conv(graph, v, [0, 0], [1, 1], 1, true)),
    ("conv_groups", |graph, v| conv(graph, v, [1, 1], [1, 1], 2, false)),
    ("conv_depthwise", |graph, v| conv(graph, v, [1, 1], [1, 1], 9, true)),
    ("conv_depthwise_stride_2", |graph, v| conv(graph, v, [2, 2], [2, 2], 9, false)),
    ("max_pool_2x2", |graph, v| ops::max_pool2d(graph, &v[0], Pool2dConfig::square(2))),
    ("max_pool_3x3_overlapping", |graph, v| {
        ops::max_pool2d(graph, &v[0], Pool2dConfig { kernel: [3, 3], stride: [2, 2] })
    }),
    ("avg_pool_3x2", |graph, v| ops::avg_pool2d(graph, &v[0], Pool2dConfig { kernel: [3, 2], stride: [2, 1] })),
    ("global_avg_pool", |graph, v| ops::global_avg_pool(graph, &v[0])),
    ("group_norm", |graph, v| ops::group_norm(graph, &v[0], &v[1], &v[2], 3)),
    ("group_norm_relu", |graph, v| ops::group_norm_relu(graph, &v[0], &v[1], &v[2], 2)),
    ("scale_channels", |graph, v| ops::scale_channels(graph, &v[0], &v[1])),
    ("resize", |graph, v| ops::resize(graph, &v[0], [7, 9])),
    ("cross_entropy", |graph, v| ops::cross_entropy(graph, &v[0], &[0, 4, 2, 2], 4)),
    ("embedding", |graph, v| ops::embedding(graph, &v[0], &v[1])),
    ("lstm", |graph, v| ops::lstm(graph, &v[0], &v[1], &v[2])),
    ("gru", |graph, v| ops::gru(graph, &v[0], &v[1], &v[2])),
    ("layer_norm", |graph, v| ops::layer_norm(graph, &v[0], &v[1], &v[2])),
    ("rms_norm", |graph, v| ops::rms_norm(graph, &v[0], &v[1])),
    ("gelu", |graph, v| ops::gelu(graph, &v[0])),
    ("silu", |graph, v| ops::silu(graph, &v[0])),
    ("tanh", |graph, v| ops::tanh(graph, &v[0])),
    ("sigmoid", |graph, v| ops::sigmoid(graph, &v[0])),
    ("attention", |graph, v| ops::attention(graph, &v[0], &v[1], &v[2], 3, false)),
    ("attention_causal", |graph, v| ops::attention(graph, &v[0], &v[1], &v[2], 3, true)),
];

fn conv(
    graph: &mut Graph<'_>,
    v: &[Tensor],
    padding: [usize; 2],
    stride: [usize; 2],
    groups: usize,
    relu: bool,
) -> Result<Tensor> {
    ops::conv2d(graph, &v[0], &v[1], Some(&v[2]), Conv2dConfig { padding, stride, groups, relu })
}

fn golden() -> HashMap<String, Tensor> {
    candle_core::safetensors::load_buffer(include_bytes!("gradients.safetensors"), &Device::Cpu).unwrap()
}

/// The largest difference, relative to the largest element that is wanted.
fn error(actual: &Tensor, wanted: &Tensor) -> f64 {
    assert_eq!(actual.dims(), wanted.dims());
    let largest = |x: Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
    largest((actual.to_dtype(DType::F64).unwrap() - wanted).unwrap()) / largest(wanted.clone())
}

fn check(dtype: DType, tolerance: f64) {
    let golden = golden();
    for (name, operation) in CASES {
        let mut operands = Vec::new();
        while let Some(operand) = golden.get(&format!("{name}.{}", operands.len())) {
            operands.push(Var::from_tensor(&operand.to_dtype(dtype).unwrap()).unwrap());
        }
        let tensors: Vec<Tensor> = operands.iter().map(|operand| operand.as_tensor().clone()).collect();
        let result = operation(&mut Graph::candle(), &tensors).unwrap();
        let off = error(&result, &golden[&format!("{name}.result")]);
        assert!(off <= tolerance, "the result of {name} is off by {off}");
        let upstream = golden[&format!("{name}.upstream")].to_dtype(dtype).unwrap();
        let gradients = (result * upstream).unwrap().sum_all().unwrap().backward().unwrap();
        for (index, operand) in operands.iter().enumerate() {
            if let Some(wanted) = golden.get(&format!("{name}.grad.{index}")) {
                let off = error(gradients.get(operand).expect("a gradient"), wanted);
                assert!(off <= tolerance, "the gradient of {name} with respect to operand {index} is off by {off}");
            }
        }
    }
}

#[test]
fn results_and_gradients_in_64_bits_are_those_of_torch() {
    check(DType::F64, 1e-12);
}

#[test]
fn results_and_gradients_in_32_bits_are_within_a_hundred_thousandth_of_those_of_torch_in_64() {
    check(DType::F32, 1e-5);
}

#[test]
fn every_stored_case_is_compared() {
    let stored: BTreeSet<String> =
        golden().keys().map(|name| name.split('.').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(stored, CASES.iter().map(|(name, _)| (*name).to_owned()).collect());
}

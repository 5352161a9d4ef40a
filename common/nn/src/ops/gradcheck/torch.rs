//! Every operation against torch in 64 bits: results and gradients that `scripts/golden_gradients.py` has stored. What
//! dropout drops is drawn in a way of its own, so it alone has no twin there.

use crate::ops::{self, Conv2dConfig, Graph, Pool2dConfig, Tape};
use candle_core::{DType, Device, Result, Tensor, Var};
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
    ("self_attention", |graph, v| ops::self_attention(graph, &v[0], 3, false)),
    ("self_attention_causal", |graph, v| ops::self_attention(graph, &v[0], 3, true)),
    ("conv_norm", |graph, v| conv_norm(graph, v, [1, 1], 1, 2, false)),
    ("conv_norm_relu", |graph, v| conv_norm(graph, v, [2, 2], 1, 4, true)),
    ("conv_norm_depthwise", |graph, v| conv_norm(graph, v, [1, 1], 9, 3, true)),
    ("add", |graph, v| ops::add(graph, &v[0], &v[1])),
    ("add_positions", |graph, v| ops::add_positions(graph, &v[0], &v[1])),
    ("channels_last", |graph, v| ops::channels_last(graph, &v[0], [3, 4, 5])),
    ("flatten", |graph, v| ops::flatten(graph, &v[0])),
    ("last_step", |graph, v| ops::last_step(graph, &v[0])),
    ("mean_of_steps", |graph, v| ops::mean_of_steps(graph, &v[0])),
    ("rows_of_steps", |graph, v| ops::rows_of_steps(graph, &v[0])),
    ("distillation", |graph, v| {
        let teacher: Vec<f32> = (0..20).map(|i| (7 * i % 11) as f32 / 4.0).collect();
        ops::distillation(graph, &v[0], &teacher, 3.0, 6)
    }),
];

/// Operations that a tape does not record: what goes into them needs no gradient in a network.
const NOT_ON_A_TAPE: &str = "channels_last";

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

fn conv_norm(
    graph: &mut Graph<'_>,
    v: &[Tensor],
    stride: [usize; 2],
    groups: usize,
    norm_groups: usize,
    relu: bool,
) -> Result<Tensor> {
    let config = Conv2dConfig { padding: [1, 1], stride, groups, relu };
    ops::conv_norm(graph, &v[0], &v[1], [&v[2], &v[3]], config, norm_groups)
}

fn golden() -> HashMap<String, Tensor> {
    candle_core::safetensors::load_buffer(include_bytes!("torch.safetensors"), &Device::Cpu).unwrap()
}

/// The largest difference, relative to the largest element that is wanted.
fn error(actual: &Tensor, wanted: &Tensor) -> f64 {
    assert_eq!(actual.dims(), wanted.dims());
    let largest = |x: Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
    largest((actual.to_dtype(DType::F64).unwrap() - wanted).unwrap()) / largest(wanted.clone())
}

/// How gradients are come by.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Candle,
    Tape,
}

/// The result, and for each operand the gradient of Σ upstream·result.
fn run(way: Way, operation: Operation, v: &[Tensor], upstream: &Tensor) -> Result<(Tensor, Vec<Option<Tensor>>)> {
    if way == Way::Candle {
        let result = operation(&mut Graph::candle(), v)?;
        let gradients = (&result * upstream)?.sum_all()?.backward()?;
        return Ok((result, v.iter().map(|v| gradients.get(v).cloned()).collect()));
    }
    let mut tape = Tape::of(v);
    let mut graph = Graph::on(&mut tape);
    let result = operation(&mut graph, v)?;
    // A tape knows only its own operations: the weighted sum is a layer of one unit.
    let count = result.elem_count();
    let row = graph.reshape(&result, (1, count))?;
    let bias = Tensor::zeros(1, row.dtype(), row.device())?;
    let sum = ops::linear(&mut graph, &row, &upstream.reshape((1, count))?, &bias)?;
    let mut gradients = tape.backward(&sum)?;
    Ok((result, v.iter().map(|v| gradients.take(v)).collect()))
}

fn check(dtype: DType, tolerance: f64) {
    let golden = golden();
    for (name, operation) in CASES {
        let mut operands = Vec::new();
        while let Some(operand) = golden.get(&format!("{name}.{}", operands.len())) {
            operands.push(Var::from_tensor(&operand.to_dtype(dtype).unwrap()).unwrap().into_inner());
        }
        let upstream = golden[&format!("{name}.upstream")].to_dtype(dtype).unwrap();
        for way in [Way::Candle, Way::Tape] {
            if way == Way::Tape && *name == NOT_ON_A_TAPE {
                continue;
            }
            let (result, gradients) = run(way, *operation, &operands, &upstream).unwrap();
            let off = error(&result, &golden[&format!("{name}.result")]);
            assert!(off <= tolerance, "the result of {name} is off by {off}");
            for (index, gradient) in gradients.iter().enumerate() {
                if let Some(wanted) = golden.get(&format!("{name}.grad.{index}")) {
                    let off = error(gradient.as_ref().expect("a gradient"), wanted);
                    assert!(off <= tolerance, "the gradient of {name} with respect to operand {index} is off by {off}");
                }
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

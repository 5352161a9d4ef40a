"""Gradients of torch in 64 bits, as the oracle of common/nn/src/ops/gradcheck/torch.rs: writes
common/nn/src/ops/gradcheck/torch.safetensors.

Each case has its operands `CASE.0`, `CASE.1`, …, the weights `CASE.upstream` of the scalar Σ upstream·result, the result
`CASE.result` and the gradients `CASE.grad.0`, … of that scalar. Images are saved as [n, h, w, c], which is how dunlin-nn
has them. Needs torch and safetensors: scripts/compare-torch makes such an environment.
"""

import pathlib

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

torch.manual_seed(20261125)
FILE = pathlib.Path(__file__).parent.parent / "common/nn/src/ops/gradcheck/torch.safetensors"
saved = {}


def rand(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def planes(x):
    return x.permute(0, 3, 1, 2)


def pixels(x):
    return x.permute(0, 2, 3, 1)


def case(name, function, *operands):
    operands = [operand.clone().requires_grad_(operand.is_floating_point()) for operand in operands]
    result = function(*operands)
    upstream = torch.randn(result.shape, dtype=torch.float64)
    (upstream * result).sum().backward()
    for index, operand in enumerate(operands):
        saved[f"{name}.{index}"] = operand.detach().double().contiguous()
        if operand.grad is not None:
            saved[f"{name}.grad.{index}"] = operand.grad.contiguous().clone()
    saved[f"{name}.result"] = result.detach().contiguous().clone()
    saved[f"{name}.upstream"] = upstream


def conv(padding, stride, groups, relu=False):
    def function(x, w, b):
        y = F.conv2d(planes(x), w, b, stride=stride, padding=padding, groups=groups)
        return pixels(torch.relu(y) if relu else y)

    return function


case("linear", lambda x, w, b: F.linear(x, w, b), rand(5, 7), rand(3, 7), rand(3))
case("linear_relu", lambda x, w, b: torch.relu(F.linear(x, w, b)), rand(5, 7), rand(3, 7), rand(3))
case("add_relu", lambda x, y: torch.relu(x + y), rand(4, 6), rand(4, 6))
case("conv_5x5", conv(2, 1, 1, True), rand(2, 7, 6, 3), rand(4, 3, 5, 5), rand(4))
case("conv_3x3_stride_2", conv(1, 2, 1), rand(2, 7, 6, 3), rand(4, 3, 3, 3), rand(4))
case("conv_1x3", conv((0, 1), (2, 1), 1), rand(2, 7, 6, 3), rand(4, 3, 1, 3), rand(4))
case("conv_pointwise", conv(0, 1, 1, True), rand(2, 3, 4, 5), rand(6, 5, 1, 1), rand(6))
case("conv_groups", conv(1, 1, 2), rand(2, 5, 4, 4), rand(6, 2, 3, 3), rand(6))
case("conv_depthwise", conv(1, 1, 9, True), rand(2, 5, 4, 9), rand(9, 1, 3, 3), rand(9))
case("conv_depthwise_stride_2", conv(2, 2, 9), rand(2, 6, 5, 9), rand(9, 1, 5, 5), rand(9))
case("max_pool_2x2", lambda x: pixels(F.max_pool2d(planes(x), 2)), rand(2, 5, 6, 3))
case("max_pool_3x3_overlapping", lambda x: pixels(F.max_pool2d(planes(x), 3, 2)), rand(2, 7, 8, 3))
case("avg_pool_3x2", lambda x: pixels(F.avg_pool2d(planes(x), (3, 2), (2, 1))), rand(2, 7, 8, 3))
case("global_avg_pool", lambda x: planes(x).mean((2, 3)), rand(2, 3, 5, 4))
case("group_norm", lambda x, g, b: pixels(F.group_norm(planes(x), 3, g, b)), rand(2, 4, 5, 6), rand(6), rand(6))
case(
    "group_norm_relu",
    lambda x, g, b: pixels(torch.relu(F.group_norm(planes(x), 2, g, b))),
    rand(2, 4, 5, 18),
    rand(18),
    rand(18),
)
case("scale_channels", lambda x, s: x * s[:, None, None, :], rand(2, 3, 4, 5), rand(2, 5))
case(
    "resize",
    lambda x: pixels(F.interpolate(planes(x), (7, 9), mode="bilinear", align_corners=False)),
    rand(2, 5, 6, 3),
)
case("cross_entropy", lambda x: F.cross_entropy(x, torch.tensor([0, 4, 2, 2])), 6 * rand(4, 5))

# Sequences.
ids = torch.tensor([[0, 3, 3, 1], [6, 2, 0, 5]])
case("embedding", lambda ids, table: F.embedding(ids, table), ids, rand(7, 3))


def lstm(x, w, b):
    """Gates i, f, g, o; the weights of the input before those of the state, in one matrix."""
    hidden, inputs = w.shape[0] // 4, x.shape[2]
    h = c = torch.zeros(x.shape[0], hidden, dtype=torch.float64)
    results = []
    for step in x.unbind(1):
        i, f, g, o = F.linear(torch.cat([step, h], 1), w, b).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        results.append(h)
    ours = torch.stack(results, 1)
    layer = torch.nn.LSTM(inputs, hidden, batch_first=True).double()
    with torch.no_grad():
        layer.weight_ih_l0.copy_(w[:, :inputs])
        layer.weight_hh_l0.copy_(w[:, inputs:])
        layer.bias_ih_l0.copy_(b)
        layer.bias_hh_l0.zero_()
        assert torch.allclose(layer(x)[0], ours, atol=1e-12)
    return ours


case("lstm", lstm, rand(3, 5, 4), 0.5 * rand(24, 10), 0.5 * rand(24))


def gru(x, w, b):
    """Gates r, z, n; one matrix for input and state; biases of r, z, and of n for the input and for the state."""
    hidden, inputs = w.shape[0] // 3, x.shape[2]
    h = torch.zeros(x.shape[0], hidden, dtype=torch.float64)
    (w_r, w_z, w_n), (b_r, b_z, b_in, b_hn) = w.chunk(3), b.chunk(4)
    results = []
    for step in x.unbind(1):
        both = torch.cat([step, h], 1)
        r, z = torch.sigmoid(F.linear(both, w_r, b_r)), torch.sigmoid(F.linear(both, w_z, b_z))
        n = torch.tanh(F.linear(step, w_n[:, :inputs], b_in) + r * F.linear(h, w_n[:, inputs:], b_hn))
        h = (1 - z) * n + z * h
        results.append(h)
    return torch.stack(results, 1)


case("gru", gru, rand(3, 5, 4), 0.5 * rand(18, 10), 0.5 * rand(24))
case("layer_norm", lambda x, g, b: F.layer_norm(x, (6,), g, b), rand(2, 3, 6), rand(6), rand(6))
case("rms_norm", lambda x, g: F.rms_norm(x, (6,), g, eps=1e-5), rand(2, 3, 6), rand(6))
for name, function in [("gelu", F.gelu), ("silu", F.silu), ("tanh", torch.tanh), ("sigmoid", torch.sigmoid)]:
    case(name, function, 2 * rand(3, 7))


def attention(causal):
    def function(q, k, v):
        heads = [x.reshape(2, 5, 3, 4).transpose(1, 2) for x in (q, k, v)]
        return F.scaled_dot_product_attention(*heads, is_causal=causal).transpose(1, 2).reshape(2, 5, 12)

    return function


case("attention", attention(False), rand(2, 5, 12), rand(2, 5, 12), rand(2, 5, 12))
case("attention_causal", attention(True), rand(2, 5, 12), rand(2, 5, 12), rand(2, 5, 12))


def self_attention(causal):
    return lambda qkv: attention(causal)(*qkv.chunk(3, 2))


case("self_attention", self_attention(False), rand(2, 5, 36))
case("self_attention_causal", self_attention(True), rand(2, 5, 36))


def conv_norm(padding, stride, groups, norm_groups, relu):
    def function(x, w, g, b):
        y = F.group_norm(F.conv2d(planes(x), w, stride=stride, padding=padding, groups=groups), norm_groups, g, b)
        return pixels(torch.relu(y) if relu else y)

    return function


case("conv_norm", conv_norm(1, 1, 1, 2, False), rand(2, 7, 6, 3), rand(4, 3, 3, 3), rand(4), rand(4))
case("conv_norm_relu", conv_norm(1, 2, 1, 4, True), rand(3, 7, 6, 3), rand(8, 3, 3, 3), rand(8), rand(8))
case("conv_norm_depthwise", conv_norm(1, 1, 9, 3, True), rand(2, 5, 4, 9), rand(9, 1, 3, 3), rand(9), rand(9))
case("add", lambda x, y: x + y, rand(4, 6), rand(4, 6))
case("add_positions", lambda x, table: x + table, rand(3, 4, 5), rand(4, 5))
case("channels_last", lambda x: pixels(x.reshape(2, 3, 4, 5)), rand(2, 60))
case("flatten", lambda x: planes(x).reshape(2, 60), rand(2, 4, 5, 3))
case("last_step", lambda x: x[:, -1], rand(3, 4, 5))
case("mean_of_steps", lambda x: x.mean(1), rand(3, 4, 5))
case("rows_of_steps", lambda x: x.reshape(12, 5), rand(3, 4, 5))

# Numbers that are exact as f32, which is how a teacher's logits come.
teacher = torch.tensor([(7 * i % 11) / 4 for i in range(20)], dtype=torch.float64).reshape(4, 5)


def distillation(x, temperature=3.0):
    wanted = F.softmax(teacher / temperature, 1)
    return F.kl_div(F.log_softmax(x / temperature, 1), wanted, reduction="sum") * temperature**2 / 6


case("distillation", distillation, 4 * rand(4, 5))

save_file(saved, FILE)
print(f"{len(saved)} tensors in {FILE.stat().st_size} bytes")

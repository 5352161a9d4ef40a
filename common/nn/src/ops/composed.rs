//! The layers put together from candle's own operations, for devices that the kernels here do not run on.
//!
//! Shapes, rounding apart, and gradients are those of the CPU's layers, also where candle's own would differ: the gradient
//! of a rectifier at 0 is 0, and that of a maximum goes to the first of equals. `max_pool2d` of candle 0.11 is not used,
//! as its gradient is wrong. Everything here is traced by candle, so gradients come from its `backward`.

use super::conv::Conv2dConfig;
use super::pool::Pool2dConfig;
use candle_core::{D, DType, Device, Result, Tensor};

/// max(x, 0); candle's own passes a gradient on at 0.
pub(super) fn relu(x: &Tensor) -> Result<Tensor> {
    let zeros = x.zeros_like()?;
    x.gt(&zeros)?.where_cond(x, &zeros)
}

pub(super) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

pub(super) fn linear(x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    let inputs = shape.pop().unwrap_or(0);
    shape.push(w.dim(0)?);
    x.reshape(((), inputs))?.matmul(&w.t()?)?.broadcast_add(b)?.reshape(shape)
}

/// Rows or columns `first`, `first + stride`, … of an image, so many of them.
fn strided(x: &Tensor, dim: usize, first: usize, stride: usize, count: usize) -> Result<Tensor> {
    if stride == 1 {
        return x.narrow(dim, first, count);
    }
    let indices: Vec<u32> = (0..count).map(|i| (first + i * stride) as u32).collect();
    x.contiguous()?.index_select(&Tensor::new(indices, x.device())?, dim)
}

fn padded(x: &Tensor, [rows, columns]: [usize; 2]) -> Result<Tensor> {
    let x = if rows == 0 { x.clone() } else { x.pad_with_zeros(1, rows, rows)? };
    if columns == 0 { Ok(x) } else { x.pad_with_zeros(2, columns, columns) }
}

pub(super) fn conv2d(x: &Tensor, w: &Tensor, b: Option<&Tensor>, config: Conv2dConfig) -> Result<Tensor> {
    let (outputs, per_group, rows, columns) = w.dims4()?;
    let Conv2dConfig { padding, stride, groups, relu: rectify } = config;
    let y = if per_group == 1 && groups == outputs {
        depthwise(x, w, config)?
    } else {
        // Of unequal strides neither, and then every so many rows and columns of what that leaves.
        let least = if stride[0] == stride[1] { stride[0] } else { 1 };
        // Without padding and without a rest at the edges: candle's gradient takes them to be equal on all sides.
        let x = padded(x, padding)?;
        let (_, height, width, _) = x.dims4()?;
        if height < rows || width < columns {
            candle_core::bail!("conv2d: a kernel of {rows}×{columns} on an image of {height}×{width}");
        }
        let x = x.narrow(1, 0, height - (height - rows) % least)?.narrow(2, 0, width - (width - columns) % least)?;
        let x = x.permute((0, 3, 1, 2))?.contiguous()?;
        let y = x.conv2d(w, 0, least, 1, groups)?.permute((0, 2, 3, 1))?.contiguous()?;
        if least == stride[0] && least == stride[1] {
            y
        } else {
            let (_, height, width, _) = y.dims4()?;
            let y = strided(&y, 1, 0, stride[0], height.div_ceil(stride[0]))?;
            strided(&y, 2, 0, stride[1], width.div_ceil(stride[1]))?
        }
    };
    let y = match b {
        Some(b) => y.broadcast_add(b)?,
        None => y,
    };
    if rectify { relu(&y) } else { Ok(y) }
}

/// One multiple of the image for each pixel of the kernel: candle's own would take one convolution for each channel.
fn depthwise(x: &Tensor, w: &Tensor, config: Conv2dConfig) -> Result<Tensor> {
    let (channels, _, rows, columns) = w.dims4()?;
    let x = padded(x, config.padding)?;
    let (_, height, width, _) = x.dims4()?;
    if height < rows || width < columns {
        candle_core::bail!("conv2d: a kernel of {rows}×{columns} on an image of {height}×{width}");
    }
    let [down, right] = config.stride;
    let (out_height, out_width) = ((height - rows) / down + 1, (width - columns) / right + 1);
    let mut sum: Option<Tensor> = None;
    for row in 0..rows {
        let x = strided(&x, 1, row, down, out_height)?;
        for column in 0..columns {
            let weights = w.narrow(2, row, 1)?.narrow(3, column, 1)?.reshape(channels)?;
            let part = strided(&x, 2, column, right, out_width)?.broadcast_mul(&weights)?;
            sum = Some(match sum {
                None => part,
                Some(sum) => (sum + part)?,
            });
        }
    }
    sum.ok_or_else(|| candle_core::Error::Msg("conv2d: a kernel without pixels".into()))
}

/// Each window's pixels in reading order, as images of one pixel per window.
fn windows(x: &Tensor, config: Pool2dConfig) -> Result<Vec<Tensor>> {
    let (_, height, width, _) = x.dims4()?;
    let ([rows, columns], [down, right]) = (config.kernel, config.stride);
    if rows * columns * down * right == 0 || height < rows || width < columns {
        candle_core::bail!("pooling: windows of {rows}×{columns} on an image of {height}×{width}");
    }
    let (out_height, out_width) = ((height - rows) / down + 1, (width - columns) / right + 1);
    let mut pixels = Vec::with_capacity(rows * columns);
    for row in 0..rows {
        let x = strided(x, 1, row, down, out_height)?;
        for column in 0..columns {
            pixels.push(strided(&x, 2, column, right, out_width)?.contiguous()?);
        }
    }
    Ok(pixels)
}

pub(super) fn max_pool2d(x: &Tensor, config: Pool2dConfig) -> Result<Tensor> {
    let mut pixels = windows(x, config)?.into_iter();
    let first = pixels.next().ok_or_else(|| candle_core::Error::Msg("pooling: an empty window".into()))?;
    // By choice and not by candle's maximum, which would split the gradient among equals.
    pixels.try_fold(first, |largest, pixel| pixel.gt(&largest)?.where_cond(&pixel, &largest))
}

pub(super) fn avg_pool2d(x: &Tensor, config: Pool2dConfig) -> Result<Tensor> {
    let pixels = windows(x, config)?;
    let count = pixels.len() as f64;
    let mut pixels = pixels.into_iter();
    let first = pixels.next().ok_or_else(|| candle_core::Error::Msg("pooling: an empty window".into()))?;
    pixels.try_fold(first, |sum, pixel| sum + pixel)? / count
}

pub(super) fn global_avg_pool(x: &Tensor) -> Result<Tensor> {
    x.mean((1, 2))
}

pub(super) fn group_norm(x: &Tensor, gamma: &Tensor, beta: &Tensor, groups: usize, epsilon: f64) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    if groups == 0 || c % groups != 0 {
        candle_core::bail!("group_norm: {c} channels in {groups} groups");
    }
    let x = x.reshape((n, h * w, groups, c / groups))?;
    let mean = x.mean_keepdim((1, 3))?;
    let centred = x.broadcast_sub(&mean)?;
    let variance = centred.sqr()?.mean_keepdim((1, 3))?;
    let y = centred.broadcast_div(&(variance + epsilon)?.sqrt()?)?.reshape((n, h, w, c))?;
    y.broadcast_mul(gamma)?.broadcast_add(beta)
}

pub(super) fn row_norm(x: &Tensor, gamma: &Tensor, beta: Option<&Tensor>, epsilon: f64) -> Result<Tensor> {
    // Layer norm has a shift and takes the mean away; RMS norm does neither.
    let x = match beta {
        Some(_) => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
        None => x.clone(),
    };
    let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + epsilon)?.sqrt()?;
    let y = x.broadcast_div(&scale)?.broadcast_mul(gamma)?;
    match beta {
        Some(beta) => y.broadcast_add(beta),
        None => Ok(y),
    }
}

/// Over the last dimension; the largest element is taken away first, and is no part of the gradient.
fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let x = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    x.broadcast_sub(&x.exp()?.sum_keepdim(D::Minus1)?.log()?)
}

pub(super) fn cross_entropy(logits: &Tensor, labels: &[u32], count: usize) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    if rows == 0 || count == 0 || rows != labels.len() || labels.iter().any(|&label| label as usize >= classes) {
        candle_core::bail!("cross_entropy: {} labels for logits of {:?}", labels.len(), logits.dims());
    }
    let labels = Tensor::new(labels, logits.device())?.reshape((rows, 1))?;
    log_softmax(logits)?.gather(&labels, 1)?.sum_all()? * (-1.0 / count as f64)
}

pub(super) fn distillation(logits: &Tensor, teacher: &[f32], temperature: f64, count: usize) -> Result<Tensor> {
    let (rows, classes) = logits.dims2()?;
    if rows == 0 || count == 0 || rows * classes != teacher.len() {
        candle_core::bail!("distillation: {} logits to learn for {:?}", teacher.len(), logits.dims());
    }
    let teacher = Tensor::from_slice(teacher, (rows, classes), logits.device())?.to_dtype(logits.dtype())?;
    let p = log_softmax(&(teacher / temperature)?)?;
    let q = log_softmax(&(logits / temperature)?)?;
    (p.exp()? * (p - q)?)?.sum_all()? * (temperature * temperature / count as f64)
}

/// `mask` holds what each element is multiplied with.
pub(super) fn masked(x: &Tensor, mask: &Tensor) -> Result<Tensor> {
    x * mask.to_device(x.device())?
}

pub(super) fn embedding(ids: &Tensor, table: &Tensor) -> Result<Tensor> {
    let (batch, steps) = ids.dims2()?;
    let (_, width) = table.dims2()?;
    let ids = ids.to_dtype(DType::U32)?.flatten_all()?.contiguous()?;
    table.index_select(&ids, 0)?.reshape((batch, steps, width))
}

/// The weights' columns are the inputs, then the previous outputs.
fn step(x: &Tensor, h: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    linear(&Tensor::cat(&[x, h], 1)?, w, b)
}

/// Calls `cell(input, output before)` for each step and collects the outputs.
fn over_steps(x: &Tensor, units: usize, mut cell: impl FnMut(&Tensor, &Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let (batch, steps, _) = x.dims3()?;
    let mut h = Tensor::zeros((batch, units), x.dtype(), x.device())?;
    let mut outputs = Vec::with_capacity(steps);
    for t in 0..steps {
        h = cell(&x.narrow(1, t, 1)?.squeeze(1)?, &h)?;
        outputs.push(h.clone());
    }
    Tensor::stack(&outputs, 1)
}

pub(super) fn lstm(x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    let units = b.dim(0)? / 4;
    let mut c = Tensor::zeros((x.dim(0)?, units), x.dtype(), x.device())?;
    over_steps(x, units, |x, h| {
        let gates = step(x, h, w, b)?.chunk(4, 1)?;
        c = ((sigmoid(&gates[1])? * &c)? + (sigmoid(&gates[0])? * gates[2].tanh()?)?)?;
        sigmoid(&gates[3])? * c.tanh()?
    })
}

pub(super) fn gru(x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    let units = b.dim(0)? / 4;
    let inputs = x.dim(2)?;
    let bias = |part: usize| b.narrow(0, part * units, units);
    let (gates, gate_bias) = (w.narrow(0, 0, 2 * units)?, b.narrow(0, 0, 2 * units)?);
    let candidate = w.narrow(0, 2 * units, units)?;
    let (of_input, of_state) = (candidate.narrow(1, 0, inputs)?, candidate.narrow(1, inputs, units)?);
    over_steps(x, units, |x, h| {
        let gates = step(x, h, &gates, &gate_bias)?.chunk(2, 1)?;
        let (r, z) = (sigmoid(&gates[0])?, sigmoid(&gates[1])?);
        let n = (linear(x, &of_input, &bias(2)?)? + (r * linear(h, &of_state, &bias(3)?)?)?)?.tanh()?;
        // (1 − z)·n + z·h
        &n + (z * (h - &n)?)?
    })
}

pub(super) fn attention([q, k, v]: [&Tensor; 3], heads: usize, causal: bool) -> Result<Tensor> {
    let (batch, steps, width) = q.dims3()?;
    if heads == 0 || width % heads != 0 {
        candle_core::bail!("attention: a width of {width} in {heads} heads");
    }
    let depth = width / heads;
    let apart = |x: &Tensor| x.reshape((batch, steps, heads, depth))?.transpose(1, 2)?.contiguous();
    let (q, k, v) = (apart(q)?, apart(k)?, apart(v)?);
    let mut scores = (q.matmul(&k.t()?.contiguous()?)? / (depth as f64).sqrt())?;
    if causal {
        scores = scores.broadcast_add(&later_steps(steps, scores.dtype(), scores.device())?)?;
    }
    let y = log_softmax(&scores)?.exp()?.matmul(&v)?;
    y.transpose(1, 2)?.contiguous()?.reshape((batch, steps, width))
}

/// −∞ where a step would look at a later one.
fn later_steps(steps: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let score = |at: usize| if at % steps > at / steps { f32::NEG_INFINITY } else { 0.0 };
    let scores: Vec<f32> = (0..steps * steps).map(score).collect();
    Tensor::from_vec(scores, (steps, steps), device)?.to_dtype(dtype)
}

pub(super) fn self_attention(qkv: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    let parts = qkv.chunk(3, 2)?;
    attention([&parts[0].contiguous()?, &parts[1].contiguous()?, &parts[2].contiguous()?], heads, causal)
}

/// A product with a matrix [new, old] along the rows and one along the columns of an image.
pub(super) fn resize(x: &Tensor, [rows, columns]: [&[f64]; 2]) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let matrix = |weights: &[f64], old: usize| {
        Tensor::from_slice(weights, (weights.len() / old, old), &Device::Cpu)?
            .to_dtype(x.dtype())?
            .to_device(x.device())
    };
    let (rows, columns) = (matrix(rows, h)?, matrix(columns, w)?);
    let (new_h, new_w) = (rows.dim(0)?, columns.dim(0)?);
    let y = rows.broadcast_left(n)?.contiguous()?.matmul(&x.reshape((n, h, w * c))?)?;
    let y = columns.broadcast_left(n * new_h)?.contiguous()?.matmul(&y.reshape((n * new_h, w, c))?)?;
    y.reshape((n, new_h, new_w, c))
}

pub(super) fn scale_channels(x: &Tensor, s: &Tensor) -> Result<Tensor> {
    let (n, _, _, c) = x.dims4()?;
    x.broadcast_mul(&s.reshape((n, 1, 1, c))?)
}

pub(super) fn last_step(x: &Tensor) -> Result<Tensor> {
    let steps = x.dim(1)?;
    x.narrow(1, steps - 1, 1)?.squeeze(1)?.contiguous()
}

pub(super) fn mean_of_steps(x: &Tensor) -> Result<Tensor> {
    x.mean(1)
}

pub(super) fn channels_last(x: &Tensor, [c, h, w]: [usize; 3]) -> Result<Tensor> {
    x.reshape(((), c, h, w))?.permute((0, 2, 3, 1))?.contiguous()
}

pub(super) fn flatten(x: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    x.permute((0, 3, 1, 2))?.contiguous()?.reshape((n, c * h * w))
}

//! A fully connected layer whose outputs, and in the gradient whose inputs, are split among the threads of a batch.
//!
//! Weights that no cache holds take as long to read for five rows as for ten. Where each thread has a part of the
//! batch, each would read all of them; here each reads its share of them for the whole batch (tensor parallelism:
//! Shoeybi et al. 2019, Megatron-LM, <https://arxiv.org/abs/1909.08053>, section 3). Elements are summed as on one thread,
//! to the same bits.

use super::kernel::{Float, Strided, Sum};
use super::linear::{before_rectifier, bias_gradient};
use super::tape::Factored;
use super::{Factors, Graph, Member, for_float, transpose, vectorised, with_elements};
use candle_core::{Result, Tensor};

/// Weights from which splitting pays: 4 MiB of f32, more than a core's own caches hold.
const LEAST_WEIGHTS: usize = 1 << 20;
/// Inputs that share a line of the cache, and are not split.
const LINE: usize = 16;

/// The layer, if it is worth splitting on this thread and those of the other parts, which all decide alike.
pub(super) fn split_linear(graph: &mut Graph<'_>, [x, w, b]: [&Tensor; 3], rectify: bool) -> Result<Option<Tensor>> {
    let (Some(member), Ok((rows, inputs)), Ok((outputs, _))) = (graph.member(), x.dims2(), w.dims2()) else {
        return Ok(None);
    };
    let pays = member.rows().len() > 1
        && outputs * inputs >= LEAST_WEIGHTS
        && Factors::pay(member.rows().iter().sum(), outputs, inputs);
    if !pays || rows != member.own_rows().len() || !graph.may_factor(w) {
        return Ok(None);
    }
    let member = member.clone();
    let input_gradient = graph.needs_gradient(x);
    for_float!(x.dtype(), T => {
        let parts = member.exchange(x.contiguous()?)?;
        let whole = if member.number() == 0 { Some(concatenated::<T>(&parts, inputs)?) } else { None };
        let y = forward::<T>(&member, &parts, w, b, rectify)?;
        let op = SplitLinear { rectify, input_gradient, member, x: whole };
        Ok(Some(graph.record_factored(op, [x.clone(), w.clone(), b.clone()], y)))
    })
}

struct SplitLinear {
    rectify: bool,
    input_gradient: bool,
    member: Member,
    /// The operand of all threads, for the one that answers for the gradient of the weights.
    x: Option<Tensor>,
}

/// The rows of all threads, one below the other.
fn concatenated<T: Float>(parts: &[Tensor], columns: usize) -> Result<Tensor> {
    let mut all = Vec::with_capacity(parts.iter().map(Tensor::elem_count).sum());
    for part in parts {
        with_elements::<T, _>(part, |part| {
            all.extend_from_slice(part);
            Ok(())
        })?;
    }
    Tensor::from_vec(all, (parts.iter().map(Tensor::elem_count).sum::<usize>() / columns, columns), parts[0].device())
}

/// The thread's rows of max(x·wᵀ + b, 0), or of what is in the brackets.
fn forward<T: Float>(member: &Member, parts: &[Tensor], w: &Tensor, b: &Tensor, rectify: bool) -> Result<Tensor> {
    let (outputs, inputs) = w.dims2()?;
    let rows: usize = member.rows().iter().sum();
    let mut x = vec![T::zero(); rows * inputs];
    let mut first = 0;
    for (part, rows_of_part) in parts.iter().zip(member.rows()) {
        with_elements::<T, _>(part, |part| {
            transpose(part, inputs, &mut x[first..], rows);
            Ok(())
        })?;
        first += rows_of_part;
    }
    let own = member.share(outputs, 1);
    let mut columns = with_elements::<T, _>(w, |w| {
        let w = Strided::matrix(&w[own.start * inputs..own.end * inputs], inputs);
        Ok(Sum::product((own.len(), inputs, rows), w, Strided::matrix(&x, rows)).into_vec())
    })?;
    with_elements::<T, _>(b, |b| {
        vectorised(
            #[inline(always)]
            || {
                for (column, &b) in columns.chunks_exact_mut(rows).zip(&b[own.clone()]) {
                    for value in column {
                        let sum = *value + b;
                        *value = if rectify && sum < T::zero() { T::zero() } else { sum };
                    }
                }
            },
        );
        Ok(())
    })?;
    let columns = member.exchange(Tensor::from_vec(columns, (own.len(), rows), w.device())?)?;
    let own = member.own_rows();
    let mut y = vec![T::zero(); own.len() * outputs];
    let mut first = 0;
    for columns in columns.iter() {
        with_elements::<T, _>(columns, |columns| {
            for (output, column) in (first..).zip(columns.chunks_exact(rows)) {
                for (to, &value) in y[output..].iter_mut().step_by(outputs).zip(&column[own.clone()]) {
                    *to = value;
                }
            }
            Ok(())
        })?;
        first += columns.dim(0)?;
    }
    Tensor::from_vec(y, (own.len(), outputs), w.device())
}

impl Factored for SplitLinear {
    fn backward(
        &self,
        [x, w, b]: &[Tensor; 3],
        y: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Factors>, Option<Tensor>)> {
        for_float!(x.dtype(), T => {
            let (outputs, _) = w.dims2()?;
            let dy = before_rectifier::<T>(self.rectify, y, dy)?;
            let db = with_elements::<T, _>(&dy, |dy| bias_gradient(dy, b))?;
            let dy = concatenated::<T>(&self.member.exchange(dy)?, outputs)?;
            let dx = match self.input_gradient {
                true => Some(self.input_gradient::<T>(&dy, w)?),
                false => None,
            };
            let factors = self.x.clone().map(|x| Factors { dy, x });
            Ok((dx, factors, Some(db)))
        })
    }
}

impl SplitLinear {
    /// The thread's rows of dy·w.
    fn input_gradient<T: Float>(&self, dy: &Tensor, w: &Tensor) -> Result<Tensor> {
        let (outputs, inputs) = w.dims2()?;
        let rows = dy.dim(0)?;
        let own = self.member.share(inputs, LINE);
        let part = with_elements::<T, _>(dy, |dy| {
            with_elements::<T, _>(w, |w| {
                let w = Strided::matrix(&w[own.start..], inputs);
                Ok(Sum::product((rows, outputs, own.len()), Strided::matrix(dy, outputs), w).into_vec())
            })
        })?;
        let parts = self.member.exchange(Tensor::from_vec(part, (rows, own.len()), w.device())?)?;
        let rows = self.member.own_rows();
        let mut dx = vec![T::zero(); rows.len() * inputs];
        let mut first = 0;
        for part in parts.iter() {
            let columns = part.dim(1)?;
            with_elements::<T, _>(part, |part| {
                let part = &part[rows.start * columns..rows.end * columns];
                for (to, from) in dx.chunks_exact_mut(inputs).zip(part.chunks_exact(columns.max(1))) {
                    to[first..first + columns].copy_from_slice(from);
                }
                Ok(())
            })?;
            first += columns;
        }
        Tensor::from_vec(dx, (rows.len(), inputs), w.device())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Tape, Team, cross_entropy, linear, linear_relu};
    use super::*;
    use candle_core::Device;

    const CPU: Device = Device::Cpu;

    fn tensor(len: usize, by: usize, shape: &[usize]) -> Tensor {
        let numbers: Vec<f32> = (0..len).map(|i| ((i * by) % 97) as f32 / 97.0 - 0.5).collect();
        Tensor::from_vec(numbers, shape, &CPU).unwrap()
    }

    fn bits(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    /// Hidden values, the gradient of the operand, that of the weights if this thread answers for it, that of the bias.
    type Results = (Vec<f32>, Vec<f32>, Option<Vec<f32>>, Vec<f32>);

    fn run([x, w, b, out]: [&Tensor; 4], rectify: bool, member: Option<&Member>, rows: usize) -> Results {
        let nothing = Tensor::zeros(out.dim(0).unwrap(), x.dtype(), &CPU).unwrap();
        let mut tape = Tape::of([x, w, b]).with_factors();
        let mut graph = Graph::on(&mut tape).with_member(member);
        let layer = if rectify { linear_relu } else { linear };
        let hidden = layer(&mut graph, x, w, b).unwrap();
        let y = linear(&mut graph, &hidden, out, &nothing).unwrap();
        let labels: Vec<u32> = (0..x.dim(0).unwrap() as u32).map(|row| row % 3).collect();
        let loss = cross_entropy(&mut graph, &y, &labels, rows).unwrap();
        let mut gradients = tape.backward(&loss).unwrap();
        let dw = gradients.take_factors(w).map(|factors| bits(&factors.whole().unwrap()));
        assert!(gradients.take(w).is_none());
        (bits(&hidden), bits(&gradients.take(x).unwrap()), dw, bits(&gradients.take(b).unwrap()))
    }

    #[test]
    fn a_split_layer_has_the_bits_of_a_whole_one() {
        let (outputs, inputs) = (513, 2051);
        let (w, b) = (tensor(outputs * inputs, 31, &[outputs, inputs]), tensor(outputs, 17, &[outputs]));
        let out = tensor(3 * outputs, 13, &[3, outputs]);
        for parts in [vec![5, 5], vec![3, 3, 1]] {
            for rectify in [false, true] {
                let rows: usize = parts.iter().sum();
                let xs: Vec<_> = parts.iter().map(|&rows| tensor(rows * inputs, 57 + rows, &[rows, inputs])).collect();
                let split: Vec<_> = std::thread::scope(|scope| {
                    let seats = Team::seats(parts.clone());
                    let threads: Vec<_> = seats
                        .into_iter()
                        .zip(&xs)
                        .map(|(seat, x)| {
                            let (w, b, out) = (&w, &b, &out);
                            scope.spawn(move || run([x, w, b, out], rectify, Some(seat.member()), rows))
                        })
                        .collect();
                    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
                });
                let alone: Vec<_> = xs.iter().map(|x| run([x, &w, &b, &out], rectify, None, rows)).collect();
                let mut sum = vec![0.0; outputs * inputs];
                for (number, (split, alone)) in split.iter().zip(&alone).enumerate() {
                    assert_eq!((&split.0, &split.1, &split.3), (&alone.0, &alone.1, &alone.3), "{parts:?}, {number}");
                    assert_eq!(split.2.is_some(), number == 0);
                    sum.iter_mut().zip(alone.2.as_ref().unwrap()).for_each(|(sum, &part)| *sum += part);
                }
                let whole = split[0].2.as_ref().unwrap();
                let most = sum.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                assert!(whole.iter().zip(&sum).all(|(a, b)| (a - b).abs() <= 1e-6 * most.max(1e-3)), "{parts:?}");
            }
        }
    }
}

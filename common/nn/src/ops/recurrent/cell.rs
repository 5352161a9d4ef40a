//! What the units of a recurrent layer do with their gates, elementwise, and its derivative.

use super::super::kernel::Float;

/// A kind of recurrent unit.
///
/// A unit has four sums, its slots, which lie side by side; each is fed by the input, by the previous state or by both,
/// with the weights of one gate. Its state is what it puts out; an LSTM has a memory besides.
pub(in super::super) trait Cell: Send + Sync + 'static {
    const NAME: &'static str;
    /// Gates that have weights: rows of the weight matrix per unit.
    const GATES: usize;
    /// The first slot that the input feeds, and the gate whose weights it has, with those of the slots that follow.
    const INPUT: (usize, &'static [usize]);
    /// The same for the previous state.
    const STATE: (usize, &'static [usize]);
    /// For each slot its place in the bias.
    const BIAS: [usize; SLOTS];
    /// Whether a unit has a memory that is not its output.
    const HAS_MEMORY: bool;

    /// Replaces the sums in `slots` by what [`Self::back`] needs, and writes the output and memory that follow on the
    /// previous ones.
    fn step<T: Float>(slots: [&mut [T]; SLOTS], before: Before<'_, T>, output: &mut [T], memory: &mut [T]);

    /// Replaces the slots by the gradients of their sums.
    ///
    /// `d_output` comes with the gradient of the output and leaves with the part of the previous output's that does not
    /// go through the weights; `d_memory` comes with the memory's gradient and leaves with the previous memory's.
    fn back<T: Float>(
        slots: [&mut [T]; SLOTS],
        before: Before<'_, T>,
        memory: &[T],
        d_output: &mut [T],
        d_memory: &mut [T],
    );
}

/// Sums of a unit.
pub(in super::super) const SLOTS: usize = 4;

/// Output and memory of the previous step; the memory is empty where there is none.
#[derive(Clone, Copy)]
pub(in super::super) struct Before<'a, T> {
    pub(super) output: &'a [T],
    pub(super) memory: &'a [T],
}

/// Slots: input gate i, forget gate f, candidate g, output gate o.
pub(in super::super) struct Lstm;

impl Cell for Lstm {
    const NAME: &'static str = "lstm";
    const GATES: usize = 4;
    const INPUT: (usize, &'static [usize]) = (0, &[0, 1, 2, 3]);
    const STATE: (usize, &'static [usize]) = (0, &[0, 1, 2, 3]);
    const BIAS: [usize; SLOTS] = [0, 1, 2, 3];
    const HAS_MEMORY: bool = true;

    /// c = f·c′ + i·g, h = o·tanh c
    #[inline(always)]
    fn step<T: Float>([i, f, g, o]: [&mut [T]; SLOTS], before: Before<'_, T>, output: &mut [T], memory: &mut [T]) {
        let len = output.len();
        let (i, f, g, o) = (&mut i[..len], &mut f[..len], &mut g[..len], &mut o[..len]);
        let (before, memory) = (&before.memory[..len], &mut memory[..len]);
        for at in 0..len {
            i[at] = i[at].logistic();
            f[at] = f[at].logistic();
            g[at] = g[at].hyperbolic_tangent();
            o[at] = o[at].logistic();
            memory[at] = f[at] * before[at] + i[at] * g[at];
            output[at] = o[at] * memory[at].hyperbolic_tangent();
        }
    }

    #[inline(always)]
    fn back<T: Float>(
        [i, f, g, o]: [&mut [T]; SLOTS],
        before: Before<'_, T>,
        memory: &[T],
        d_output: &mut [T],
        d_memory: &mut [T],
    ) {
        let len = d_output.len();
        let (i, f, g, o) = (&mut i[..len], &mut f[..len], &mut g[..len], &mut o[..len]);
        let (before, memory, d_memory) = (&before.memory[..len], &memory[..len], &mut d_memory[..len]);
        let one = T::one();
        for at in 0..len {
            let squashed = memory[at].hyperbolic_tangent();
            let d_cell = d_memory[at] + d_output[at] * o[at] * (one - squashed * squashed);
            o[at] = d_output[at] * squashed * o[at] * (one - o[at]);
            d_memory[at] = d_cell * f[at];
            f[at] = d_cell * before[at] * f[at] * (one - f[at]);
            let d_input = d_cell * g[at] * i[at] * (one - i[at]);
            g[at] = d_cell * i[at] * (one - g[at] * g[at]);
            i[at] = d_input;
            d_output[at] = T::zero();
        }
    }
}

/// Slots: the candidate's part from the input, reset gate r, update gate z, the candidate's part from the state.
///
/// In this order each of input and state feeds neighbours.
pub(in super::super) struct Gru;

impl Cell for Gru {
    const NAME: &'static str = "gru";
    const GATES: usize = 3;
    const INPUT: (usize, &'static [usize]) = (0, &[2, 0, 1]);
    const STATE: (usize, &'static [usize]) = (1, &[0, 1, 2]);
    const BIAS: [usize; SLOTS] = [2, 0, 1, 3];
    const HAS_MEMORY: bool = false;

    /// n = tanh(x̃ + r·h̃), h = (1 − z)·n + z·h′
    #[inline(always)]
    fn step<T: Float>([n, r, z, of_state]: [&mut [T]; SLOTS], before: Before<'_, T>, output: &mut [T], _: &mut [T]) {
        let len = output.len();
        let (n, r, z, of_state) = (&mut n[..len], &mut r[..len], &mut z[..len], &of_state[..len]);
        let before = &before.output[..len];
        for at in 0..len {
            r[at] = r[at].logistic();
            z[at] = z[at].logistic();
            n[at] = (n[at] + r[at] * of_state[at]).hyperbolic_tangent();
            output[at] = n[at] + z[at] * (before[at] - n[at]);
        }
    }

    #[inline(always)]
    fn back<T: Float>(
        [n, r, z, of_state]: [&mut [T]; SLOTS],
        before: Before<'_, T>,
        _: &[T],
        d_output: &mut [T],
        _: &mut [T],
    ) {
        let len = d_output.len();
        let (n, r, z, of_state) = (&mut n[..len], &mut r[..len], &mut z[..len], &mut of_state[..len]);
        let before = &before.output[..len];
        let one = T::one();
        for at in 0..len {
            let d_candidate = d_output[at] * (one - z[at]) * (one - n[at] * n[at]);
            let d_update = d_output[at] * (before[at] - n[at]) * z[at] * (one - z[at]);
            d_output[at] *= z[at];
            n[at] = d_candidate;
            z[at] = d_update;
            let d_reset = d_candidate * of_state[at] * r[at] * (one - r[at]);
            of_state[at] = d_candidate * r[at];
            r[at] = d_reset;
        }
    }
}

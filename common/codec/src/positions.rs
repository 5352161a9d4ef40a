//! Where the non-zeros of one tensor are: how many, then which. Four ways, one trait.

pub(crate) mod adaptive;
mod ans;
pub(crate) mod enumerative;
pub(crate) mod mixed;
pub(crate) mod plain;
pub(crate) mod rice;

pub(crate) use adaptive::{ANS_FROM, Adaptive};
pub(crate) use enumerative::Enumerative;
pub(crate) use plain::Plain;
pub(crate) use rice::Rice;

use crate::{
    Segment,
    bits::Stream,
    model::{Learning, Tree},
    range::RangeStream,
};

/// One way to write how many and which. Like [`Stream`], one description serves both directions: when `S` writes, `k`
/// and `positions` are what to write, and when it reads, `k` is ignored and `positions` is filled.
pub(crate) trait Positions<S: Stream> {
    /// How many of `share.n` coordinates are non-zero.
    fn count(&mut self, stream: &mut S, k: u32, share: Share) -> u32;

    /// Which `k` coordinates of `segment` are non-zero, rising, counted from its start; 0 < k < segment.len.
    fn positions(&mut self, stream: &mut S, segment: Segment, k: u32, positions: &mut Vec<u32>) -> Result<(), Corrupt>;
}

/// What is known before a tensor's count: its size, and how many non-zeros and coordinates are left from it onwards.
#[derive(Clone, Copy)]
pub(crate) struct Share {
    pub(crate) n: u32,
    pub(crate) k_left: u32,
    pub(crate) n_left: u32,
}

/// Positions that no writer writes.
#[derive(Debug)]
pub(crate) struct Corrupt;

/// Whether there are any; then ⌊log2⌋ of the count, relative to what an even spread would give, learnt over the
/// tensors; then plain bits.
struct Counts {
    /// By the bits of what an even spread would give.
    any: [Learning; 4],
    classes: Tree<[Learning; 64]>,
}

impl Counts {
    fn new() -> Self {
        let chances: [f64; 64] = std::array::from_fn(|symbol| 1.0 / (1u64 << symbol.abs_diff(32)) as f64);
        Self {
            any: ANY.map(|chance| Learning::with_prior(chance, COUNTS_PRIOR)),
            classes: Tree::expecting(&chances, COUNTS_PRIOR),
        }
    }

    fn code<S: RangeStream>(&mut self, stream: &mut S, k: u32, share: Share) -> u32 {
        let even = (u64::from(share.k_left) * u64::from(share.n) / u64::from(share.n_left)) as u32;
        let any = &mut self.any[(32 - even.leading_zeros()).min(3) as usize];
        if !any.code(stream, k > 0) {
            return 0;
        }
        let middle = 32 - even.max(1).ilog2();
        let symbol = self.classes.code(stream, k.checked_ilog2().unwrap_or(0) + middle);
        let class = symbol.wrapping_sub(middle) & 31;
        1 << class | stream.long(k & !(1 << class), class)
    }
}

/// Plain counterpart of [`Counts`]: the delta code of k + 1 (Elias 1975), one bit for zero.
fn plain_count<S: Stream>(stream: &mut S, k: u32) -> u32 {
    let value = k.wrapping_add(1);
    let class = value.checked_ilog2().unwrap_or(0);
    let class_bits = stream.unary((class + 1).ilog2()).min(5);
    let class = ((1 << class_bits | stream.bits((class + 1) & !(1 << class_bits), class_bits)) - 1) & 31;
    (1 << class | stream.long(value & !(1 << class), class)) - 1
}

/// Chances of any non-zero where an even spread would give less than 1, 1, less than 4, and more.
const ANY: [f64; 4] = [0.5, 0.75, 0.875, 0.96875];
/// How much the guesses about counts weigh: a model has few tensors.
const COUNTS_PRIOR: u8 = 4;

//! Where the non-zeros of one tensor are: how many, then which. Four ways, one trait.

pub(crate) mod adaptive;
pub(crate) mod enumerative;
pub(crate) mod plain;
pub(crate) mod rice;

pub(crate) use adaptive::Adaptive;
pub(crate) use enumerative::Enumerative;
pub(crate) use plain::Plain;
pub(crate) use rice::Rice;

use crate::{Segment, bits::Stream, model::Tree, range::RangeStream};

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

/// Counts as ⌊log2⌋ of count + 1 relative to what an even spread would give, learnt over the tensors, then plain bits.
struct Counts {
    classes: Tree,
}

impl Counts {
    fn new() -> Self {
        Self { classes: Tree::new(6) }
    }

    fn code<S: RangeStream>(&mut self, stream: &mut S, k: u32, share: Share) -> u32 {
        let even = u64::from(share.k_left) * u64::from(share.n) / u64::from(share.n_left);
        let expected = even as u32 + 1;
        let value = k.wrapping_add(1);
        let shift = 32 - expected.ilog2();
        let class = self.classes.code(stream, value.checked_ilog2().unwrap_or(0) + shift).wrapping_sub(shift) & 31;
        let value = 1 << class | stream.long(value & ((1 << class) - 1), class);
        value - 1
    }
}

/// Plain counterpart of [`Counts`].
fn plain_count<S: Stream>(stream: &mut S, k: u32) -> u32 {
    stream.number(k.wrapping_add(1)) - 1
}

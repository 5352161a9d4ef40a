//! An adaptive binary range coder over gaps, whose work grows with the non-zeros, or over coordinates with their
//! neighbourhood, whose work grows with the tensor but which sees columns and clusters. The cheaper one per tensor.

use super::{Corrupt, Counts, Positions, Share};
use crate::{
    Segment,
    model::{Learning, Magnitude},
    range::{Cost, RangeStream},
};

pub(crate) struct Adaptive {
    counts: Counts,
    by_neighbours: Learning,
    /// One bit per coordinate of the tensor at hand; reused.
    bitmap: Vec<u64>,
}

impl Adaptive {
    pub(crate) fn new() -> Self {
        Self { counts: Counts::new(), by_neighbours: Learning::EVEN, bitmap: Vec::new() }
    }

    /// Writes both ways into nothing and compares; of a long tensor only the rows in its middle.
    fn neighbours_cost_less(&mut self, segment: Segment, positions: &[u32]) -> bool {
        let row = segment.row.clamp(1, segment.len);
        let len = segment.len.min((TRIED / row).max(1) * row);
        let start = (segment.len - len) / 2 / row * row;
        let within = |&&position: &&u32| (start..start + len).contains(&(position as usize));
        let mut tried: Vec<u32> = positions.iter().filter(within).map(|position| position - start as u32).collect();
        if tried.is_empty() {
            return false;
        }
        let (segment, k) = (Segment { len, ..segment }, tried.len() as u32);
        let (mut by_gaps, mut by_neighbours) = (Cost::default(), Cost::default());
        let gaps = code_gaps(&mut by_gaps, len as u32, k, &mut tried);
        let neighbours = code_neighbours(&mut by_neighbours, &mut self.bitmap, segment, k, &mut tried);
        gaps.is_ok() && neighbours.is_ok() && by_neighbours.total < by_gaps.total
    }
}

impl<S: RangeStream> Positions<S> for Adaptive {
    fn count(&mut self, stream: &mut S, k: u32, share: Share) -> u32 {
        self.counts.code(stream, k, share)
    }

    fn positions(&mut self, stream: &mut S, segment: Segment, k: u32, positions: &mut Vec<u32>) -> Result<(), Corrupt> {
        if k < NEIGHBOURS_FROM {
            return code_gaps(stream, segment.len as u32, k, positions);
        }
        let by_neighbours =
            !S::READS && is_clustered(segment, positions) && self.neighbours_cost_less(segment, positions);
        if self.by_neighbours.code(stream, by_neighbours) {
            code_neighbours(stream, &mut self.bitmap, segment, k, positions)
        } else {
            code_gaps(stream, segment.len as u32, k, positions)
        }
    }
}

/// Whether more non-zeros than independent ones would have another just before them or one row back; without that,
/// looking at the neighbours cannot pay, and is not tried.
fn is_clustered(segment: Segment, positions: &[u32]) -> bool {
    let expected = positions.len() as f64 * positions.len() as f64 / segment.len as f64;
    let unlikely =
        |found: usize, places: f64| found as f64 > 1.15 * places * expected + 2.0 * (places * expected).sqrt();
    let beside = positions.windows(2).filter(|pair| pair[1] - pair[0] <= 2).count();
    let mut above = 0;
    let row = segment.row.min(segment.len) as u32;
    let mut next = positions.iter().peekable();
    for &position in positions {
        let Some(middle) = position.checked_sub(row) else { continue };
        while next.next_if(|&&other| other + 1 < middle).is_some() {}
        above += usize::from(next.peek().is_some_and(|&&other| other <= middle + 1));
    }
    unlikely(beside, 2.0) || unlikely(above, 3.0)
}

/// Gaps as class and bits, in two contexts: whether the gap before was shorter than a quarter of the mean.
fn code_gaps<S: RangeStream>(stream: &mut S, n: u32, k: u32, positions: &mut Vec<u32>) -> Result<(), Corrupt> {
    let mut models = [Magnitude::of_gaps(k, n), Magnitude::of_gaps(k, n)];
    let short = n / (4 * k.min(n / 4).max(1));
    let mut context = 0;
    let mut start = 0;
    for i in 0..k as usize {
        let gap = if S::READS { 0 } else { positions[i] - start + 1 };
        let gap = models[context].code(stream, gap);
        if S::READS {
            let position = start.checked_add(gap - 1).filter(|&position| position < n).ok_or(Corrupt)?;
            positions.push(position);
        }
        context = usize::from(gap <= short);
        start = positions[i] + 1;
    }
    Ok(())
}

/// For every 16 coordinates whether any is non-zero, in contexts of the block before and the 16 above (one row back);
/// then each coordinate of such a block, in contexts of the three above it and, until the block's first non-zero,
/// how many are left (the last one is then certain), after it, the two before it.
fn code_neighbours<S: RangeStream>(
    stream: &mut S,
    bitmap: &mut Vec<u64>,
    segment: Segment,
    k: u32,
    positions: &mut Vec<u32>,
) -> Result<(), Corrupt> {
    let n = segment.len;
    bitmap.clear();
    bitmap.resize(n / 64 + 2, 0);
    let mut model = Neighbours::new(f64::from(k) / n as f64);
    // Above a vector or a very short row there is nothing that is not already beside it.
    let row = if segment.row >= SHORTEST_ROW && segment.row < n { segment.row as i64 } else { i64::MAX / 2 };
    let mut left = k as usize;
    let mut next = 0;
    let mut before = 0u32;
    for start in (0..n).step_by(BLOCK) {
        let width = (n - start).min(BLOCK);
        let mut above = window(bitmap, start as i64 - row - 1);
        let any = !S::READS && positions[next] < (start + width) as u32;
        if !model.block(before != 0, above >> 1 & 0xffff).code(stream, any) {
            before = 0;
            continue;
        }
        let mut block = 0u32;
        for i in 0..width {
            if row < BLOCK as i64 + 2 {
                above = window(bitmap, (start + i) as i64 - row - 1) << i;
            }
            let set = !S::READS && next < positions.len() && positions[next] == (start + i) as u32;
            let certain = block == 0 && i + 1 == width;
            let set = certain || model.coordinate(i, block, before, above >> i & 7).code(stream, set);
            if !set {
                continue;
            }
            block |= 1 << i;
            bitmap[(start + i) / 64] |= 1 << ((start + i) % 64);
            if S::READS {
                positions.push((start + i) as u32);
            }
            next += 1;
            left -= 1;
            if left == 0 {
                return Ok(());
            }
        }
        before = block;
    }
    Err(Corrupt)
}

struct Neighbours {
    blocks: [[Learning; 3]; 2],
    /// Before the first non-zero of a block: by how many are left, by what is above.
    first: [[Learning; ABOVE]; BLOCK],
    /// After it: by the two before, by what is above.
    then: [[Learning; ABOVE]; 3],
}

impl Neighbours {
    /// For independent coordinates with probability `p`.
    fn new(p: f64) -> Self {
        let mut none = 1.0;
        let mut first = [[Learning::EVEN; ABOVE]; BLOCK];
        for i in (0..BLOCK).rev() {
            none *= 1.0 - p;
            first[i].fill(Learning::with_prior(p / (1.0 - none), PRIOR));
        }
        Self {
            blocks: [[Learning::with_prior(1.0 - none, PRIOR); 3]; 2],
            first,
            then: [[Learning::with_prior(p, PRIOR); ABOVE]; 3],
        }
    }

    #[inline]
    fn block(&mut self, before: bool, above: u32) -> &mut Learning {
        &mut self.blocks[usize::from(before)][above.count_ones().min(2) as usize]
    }

    /// `above` holds left neighbour, middle and right neighbour one row back, in that order from the lowest bit.
    #[inline]
    fn coordinate(&mut self, i: usize, block: u32, before: u32, above: u32) -> &mut Learning {
        let above = if above & 2 != 0 { 2 } else { usize::from(above != 0) };
        if block == 0 {
            return &mut self.first[i][above];
        }
        let beside = (block << BLOCK | before) >> (BLOCK + i - 2) & 3;
        &mut self.then[beside.count_ones() as usize][above]
    }
}

/// 18 bits of the bitmap from `from` on; zeros outside.
#[inline]
fn window(bitmap: &[u64], from: i64) -> u32 {
    let (from, shift) = if from < 0 { (0, from.unsigned_abs().min(32)) } else { (from as usize, 0) };
    let (word, offset) = (from / 64, from % 64);
    let low = bitmap[word] >> offset;
    let high = if offset > 46 { bitmap[word + 1] << (64 - offset) } else { 0 };
    ((low | high) << shift) as u32 & 0x3ffff
}

/// Coordinates on which the two ways are compared: enough for their models to settle, and a tensor of the 2NN whole.
const TRIED: usize = 1 << 18;
/// With fewer non-zeros the choice itself costs more than it brings.
const NEIGHBOURS_FROM: u32 = 32;
const BLOCK: usize = 16;
const SHORTEST_ROW: usize = 3;
const ABOVE: usize = 3;
const PRIOR: u8 = 16;

//! Gaps, or blocks of coordinates with mixed probabilities, which see columns, rows and clusters. The cheaper one per
//! tensor. Gaps by an adaptive binary range coder where they are few, and by asymmetric numeral systems where they are
//! many.

use super::{Corrupt, Counts, Positions, Share, ans::Ans, mixed::Mixed};
use crate::{
    Segment,
    model::{Learning, Magnitude},
    range::{Cost, RangeStream},
};

pub(crate) struct Adaptive {
    counts: Counts,
    is_mixed: Learning,
    mixed: Mixed,
    /// Positions on which the ways are compared.
    tried: Vec<u32>,
    /// Where many gaps may be told by it.
    ans: Option<Ans>,
}

impl Adaptive {
    pub(crate) fn new() -> Self {
        Self { ans: Some(Ans::default()), ..Self::ranged() }
    }

    /// Forgets the frame before.
    pub(crate) fn begin(&mut self) {
        (self.counts, self.is_mixed) = (Counts::new(), Learning::EVEN);
    }

    /// With nothing but choices of the range coder, as frames of version 2 have it.
    pub(crate) fn ranged() -> Self {
        Self { counts: Counts::new(), is_mixed: Learning::EVEN, mixed: Mixed::default(), tried: Vec::new(), ans: None }
    }

    /// As containers of that version have it: 1 looked at every coordinate of a mixed tensor.
    pub(crate) fn in_container(version: u8) -> Self {
        let mut adaptive = Self::ranged();
        adaptive.mixed.is_first = version == 1;
        adaptive
    }

    /// Writes both ways into nothing and compares; of a long tensor only the rows in its middle.
    fn mixed_costs_less(&mut self, segment: Segment, positions: &[u32]) -> bool {
        let mut tried = std::mem::take(&mut self.tried);
        let costs_less = self.mixed_costs_less_than_gaps(segment, positions, &mut tried);
        self.tried = tried;
        costs_less
    }

    fn mixed_costs_less_than_gaps(&mut self, segment: Segment, positions: &[u32], tried: &mut Vec<u32>) -> bool {
        let row = segment.row.clamp(1, segment.len);
        let len = tried_len(segment);
        let start = (segment.len - len) / 2 / row * row;
        let within = |&&position: &&u32| (start..start + len).contains(&(position as usize));
        tried.clear();
        tried.extend(positions.iter().filter(within).map(|position| position - start as u32));
        if tried.is_empty() {
            return false;
        }
        let mut by_gaps = Cost::default();
        let gaps = self.code_gaps(&mut by_gaps, len as u32, tried.len() as u32, tried);
        if gaps.is_err() {
            return false;
        }
        if len == segment.len {
            return self.mixed.remembered_cost(segment, tried) < by_gaps.total;
        }
        let mut by_mixing = Cost::default();
        let mixed = self.mixed.code(&mut by_mixing, Segment { len, ..segment }, tried.len() as u32, tried);
        mixed.is_ok() && by_mixing.total < by_gaps.total
    }

    fn code_gaps<S: RangeStream>(
        &mut self,
        stream: &mut S,
        n: u32,
        k: u32,
        positions: &mut Vec<u32>,
    ) -> Result<(), Corrupt> {
        match &mut self.ans {
            Some(ans) if k >= ANS_FROM => ans.code(stream, n, k, positions),
            _ => code_ranged_gaps(stream, n, k, positions),
        }
    }
}

/// Coordinates on which the two ways are compared: whole rows of them.
fn tried_len(segment: Segment) -> usize {
    let row = segment.row.clamp(1, segment.len);
    segment.len.min((TRIED / row).max(1) * row)
}

impl Default for Adaptive {
    fn default() -> Self {
        Self::new()
    }
}

impl<S: RangeStream> Positions<S> for Adaptive {
    fn count(&mut self, stream: &mut S, k: u32, share: Share) -> u32 {
        self.counts.code(stream, k, share)
    }

    fn positions(&mut self, stream: &mut S, segment: Segment, k: u32, positions: &mut Vec<u32>) -> Result<(), Corrupt> {
        if k < MIXED_FROM {
            return self.code_gaps(stream, segment.len as u32, k, positions);
        }
        // A long vector has neither columns nor rows to learn from.
        let is_short = segment.len <= ALWAYS_TRIED;
        let may_pay = !S::READS && (is_short || segment.row > 1 && is_clustered(segment, positions));
        let is_mixed = may_pay && self.mixed_costs_less(segment, positions);
        if self.is_mixed.code(stream, is_mixed) {
            // A trial of the whole tensor has found all probabilities.
            if !S::READS && tried_len(segment) == segment.len {
                self.mixed.write_again(stream);
                return Ok(());
            }
            self.mixed.code(stream, segment, k, positions)
        } else {
            self.code_gaps(stream, segment.len as u32, k, positions)
        }
    }
}

/// Whether more non-zeros than independent ones would have another just before them or one row back; without that,
/// looking at every coordinate of a long tensor hardly pays, and is not tried.
fn is_clustered(segment: Segment, positions: &[u32]) -> bool {
    let density = positions.len() as f64 / segment.len as f64;
    // Those in the middle, if there are many.
    let skipped = positions.len().saturating_sub(LOOKED_AT) / 2;
    let positions = &positions[skipped..][..positions.len().min(LOOKED_AT)];
    let expected = positions.len() as f64 * density;
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
fn code_ranged_gaps<S: RangeStream>(stream: &mut S, n: u32, k: u32, positions: &mut Vec<u32>) -> Result<(), Corrupt> {
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

/// Coordinates on which the two ways are compared: enough for their models to settle.
const TRIED: usize = 1 << 16;
/// Non-zeros that tell whether they keep together.
const LOOKED_AT: usize = 1 << 14;
/// Tensors up to this long are always tried: the largest of the 2NN is.
const ALWAYS_TRIED: usize = 1 << 18;
/// From so many gaps on, the beginning of four states costs less than two parts in a thousand.
pub(crate) const ANS_FROM: u32 = 4096;
/// With fewer non-zeros the choice itself costs more than it brings.
const MIXED_FROM: u32 = 32;

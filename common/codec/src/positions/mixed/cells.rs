//! Positions as version 1 wrote them: every coordinate up to the last non-zero, each with a probability mixed from its
//! column, its row, its neighbourhood and how many non-zeros are left. Only read, for frames and files from then.

use super::{Corrupt, ESTIMATE_BITS, Estimate, INPUTS, Mixer, NEIGHBOURHOODS, TABLES, window};
use crate::{Segment, range::RangeStream};

/// The positions of `k` ≥ 1 non-zeros, into an empty vector.
pub(super) fn read<S: RangeStream>(
    stream: &mut S,
    segment: Segment,
    k: u32,
    positions: &mut Vec<u32>,
) -> Result<(), Corrupt> {
    let (n, row_len) = (segment.len, segment.row.clamp(1, segment.len));
    let density = ((u64::from(k) << ESTIMATE_BITS) / n as u64) as u32;
    let tables = &*TABLES;
    let mut bitmap = vec![0; n / 8 + 2];
    let mut columns = vec![Estimate::new(density, COLUMN_PRIOR); row_len];
    let mut near = [Estimate::new(density, NEAR_PRIOR); NEIGHBOURHOODS];
    let mut mixer = Mixer::new(WEIGHTS);
    let (mut left, mut before, mut remaining) = (k as usize, 0, 0);
    for start in (0..n).step_by(row_len) {
        let mut row = Estimate::new(density, ROW_PRIOR);
        let width = row_len.min(n - start);
        for (column, i) in columns[..width].iter_mut().zip(start..) {
            if i % REMAINDER_EVERY == 0 || i == start {
                remaining = tables.stretch(((left as u64) << 16).div_euclid((n - i) as u64).min(0xffff) as u32);
            }
            let above = if i > row_len { window(&bitmap, i - row_len - 1) } else { 0 };
            let near = &mut near[(before | above << 2) as usize];
            let [of_column, of_row, of_near] = [*column, row, *near].map(|guess| guess.stretched(tables));
            let set = stream.choice(mixer.mix(tables, [of_column, of_row, of_near, remaining]), false);
            mixer.learn(set);
            column.learn(set);
            row.learn(set);
            near.learn(set);
            before = before << 1 & 3 | u32::from(set);
            if !set {
                continue;
            }
            bitmap[i / 8] |= 1 << (i % 8);
            positions.push(i as u32);
            left -= 1;
            if left == 0 {
                return Ok(());
            }
        }
    }
    Err(Corrupt)
}

/// Column, row, neighbourhood, remainder; in 2^-16.
const WEIGHTS: [i64; INPUTS] = [28_000, 22_000, 26_000, -6000];
const COLUMN_PRIOR: u32 = 4;
const ROW_PRIOR: u32 = 10;
const NEAR_PRIOR: u32 = 16;
const REMAINDER_EVERY: usize = 16;

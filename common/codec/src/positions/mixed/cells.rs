//! Positions as version 1 wrote them: every coordinate up to the last non-zero, each with a probability mixed from its
//! column, its row, its neighbourhood and how many non-zeros are left. Only read, for frames and files from then.

use super::{Corrupt, ESTIMATE_BITS, INPUTS, Level, Mixer, Priors, TABLES};
use crate::{Segment, range::RangeStream};

/// The positions of `k` ≥ 1 non-zeros, into an empty vector.
pub(super) fn read<S: RangeStream>(
    stream: &mut S,
    cells: &mut Level,
    segment: Segment,
    k: u32,
    positions: &mut Vec<u32>,
) -> Result<(), Corrupt> {
    let (n, row_len) = (segment.len, segment.row.clamp(1, segment.len));
    let tables = &*TABLES;
    cells.begin(((u64::from(k) << ESTIMATE_BITS) / n as u64) as u32, &PRIORS, row_len, n);
    cells.mixers.push(Mixer::new(WEIGHTS));
    let mut remaining = 0;
    for i in 0..n {
        let column = i % row_len;
        if column == 0 {
            cells.begin_row();
        }
        if column == 0 || i % REMAINDER_EVERY == 0 {
            let left = k as usize - positions.len();
            remaining = tables.stretch(((left as u64) << 16).div_euclid((n - i) as u64).min(0xffff) as u32);
        }
        if cells.code(stream, tables, (i, column, 0), remaining, false) {
            positions.push(i as u32);
            if positions.len() == k as usize {
                return Ok(());
            }
        }
    }
    Err(Corrupt)
}

/// Column, row, neighbourhood, remainder; in 2^-16.
const WEIGHTS: [i64; INPUTS] = [28_000, 22_000, 26_000, -6000];
const PRIORS: Priors = Priors { column: 4, row: 10, near: 16 };
const REMAINDER_EVERY: usize = 16;

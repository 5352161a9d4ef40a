//! Cover (1973), "Enumerative source encoding": for every 64 coordinates their count, then the rank of their positions
//! among all sets of that size. Counts are range-coded with probabilities that start from the binomial law of the
//! tensor's density and follow what was seen, so the whole costs log2 C(n, k) and a fraction of a bit per tensor on
//! coordinates that are exchangeable.

use super::{Corrupt, Counts, Positions, Share};
use crate::{
    Segment,
    model::Stationary,
    range::{RangeStream, uniform},
};

pub(crate) struct Enumerative {
    counts: Counts,
}

impl Enumerative {
    pub(crate) fn new() -> Self {
        Self { counts: Counts::new() }
    }
}

impl<S: RangeStream> Positions<S> for Enumerative {
    fn count(&mut self, stream: &mut S, k: u32, share: Share) -> u32 {
        self.counts.code(stream, k, share)
    }

    fn positions(&mut self, stream: &mut S, segment: Segment, k: u32, positions: &mut Vec<u32>) -> Result<(), Corrupt> {
        let n = segment.len as u32;
        let mut more = binomial_prior(f64::from(k) / f64::from(n));
        let mut left = k;
        let mut next = 0;
        for start in (0..n).step_by(BLOCK) {
            let width = (n - start).min(BLOCK as u32);
            let in_block = if S::READS {
                0
            } else {
                positions[next..].iter().take(BLOCK).take_while(|&&p| p < start + width).count() as u32
            };
            // What does not fit behind this block must be in it.
            let least = left.saturating_sub(n - start - width);
            let most = left.min(width);
            let mut count = least;
            while count < most && more[count as usize].code(stream, in_block > count) {
                count += 1;
            }
            if count == 0 {
                if left == 0 {
                    break;
                }
                continue;
            }
            let choices = BINOMIALS[count as usize][width as usize];
            let rank = if S::READS { 0 } else { rank(&positions[next..next + count as usize], start) };
            let rank = uniform(stream, rank, choices);
            if S::READS {
                if rank >= choices {
                    return Err(Corrupt);
                }
                positions.resize(next + count as usize, 0);
                unrank(rank, start, &mut positions[next..]);
            }
            next += count as usize;
            left -= count;
        }
        if left == 0 { Ok(()) } else { Err(Corrupt) }
    }
}

/// The number of smaller sets in colexicographic order: Σ C(pᵢ, i) for the i-th lowest position pᵢ.
fn rank(positions: &[u32], start: u32) -> u64 {
    positions.iter().enumerate().map(|(i, p)| BINOMIALS[i + 1][(p - start) as usize]).sum()
}

fn unrank(mut rank: u64, start: u32, positions: &mut [u32]) {
    for i in (0..positions.len()).rev() {
        let column = &BINOMIALS[i + 1];
        let position = match i {
            0 => rank as usize,
            1 => HIGHER_OF_TWO[rank as usize].into(),
            _ => column.partition_point(|&c| c <= rank) - 1,
        };
        rank -= column[position];
        positions[i] = start + position as u32;
    }
}

/// For every count, the probability that a block holds more, if coordinates are non-zero independently with
/// probability `p`. Only sums, products and quotients, which every machine rounds alike.
fn binomial_prior(p: f64) -> [Stationary; BLOCK] {
    let mut chance = [0.0; BLOCK + 1];
    chance[0] = (0..6).fold(1.0 - p, |power, _| power * power);
    for count in 0..BLOCK {
        chance[count + 1] = chance[count] * (BLOCK - count) as f64 / (count + 1) as f64 * p / (1.0 - p);
    }
    let mut tail = 0.0;
    let mut more = [Stationary::with_prior(0.5, 2); BLOCK];
    for count in (0..BLOCK).rev() {
        tail += chance[count + 1];
        let at_least = tail + chance[count];
        if at_least > 1e-200 {
            more[count] = Stationary::with_prior(tail / at_least, PRIOR);
        }
    }
    more
}

const BLOCK: usize = 64;
/// How many observations the binomial prior weighs.
const PRIOR: u32 = 32;

/// The higher position of two, by the rank of both: most blocks hold few.
static HIGHER_OF_TWO: [u8; BLOCK * (BLOCK - 1) / 2] = {
    let mut table = [0; BLOCK * (BLOCK - 1) / 2];
    let (mut rank, mut position) = (0, 1);
    while position < BLOCK {
        let end = rank + position;
        while rank < end {
            table[rank] = position as u8;
            rank += 1;
        }
        position += 1;
    }
    table
};

/// `BINOMIALS[i][p]` is C(p, i); every C(p ≤ 64, i) fits in 64 bits.
static BINOMIALS: [[u64; BLOCK + 1]; BLOCK + 1] = {
    let mut table = [[0; BLOCK + 1]; BLOCK + 1];
    let mut p = 0;
    while p <= BLOCK {
        table[0][p] = 1;
        let mut i = 1;
        while i <= p {
            table[i][p] = table[i - 1][p - 1] + table[i][p - 1];
            i += 1;
        }
        p += 1;
    }
    table
};

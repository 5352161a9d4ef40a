//! Coordinates one by one, each with a probability mixed from several guesses: how often its column, its row and its
//! neighbourhood were non-zero so far, and how many non-zeros are left.
//!
//! The guesses are mixed in the logistic domain with weights that follow the error (Mahoney 2005, "Adaptive weighing of
//! context models for lossless data compression", the mixer of PAQ). All of it is integer arithmetic; its tables come
//! from products, quotients and square roots, which every machine rounds alike.

use super::Corrupt;
use crate::{
    Segment,
    range::{P_BITS, P_MAX, P_MIN, RangeStream},
};
use std::sync::LazyLock;

/// Room that is reused from tensor to tensor.
#[derive(Default)]
pub(super) struct Mixed {
    /// One bit per coordinate of the tensor at hand.
    bitmap: Vec<u64>,
    columns: Vec<Estimate>,
}

impl Mixed {
    /// The positions of `k` ≥ 1 non-zeros; a reader fills `positions`, which is empty.
    pub(super) fn code<S: RangeStream>(
        &mut self,
        stream: &mut S,
        segment: Segment,
        k: u32,
        positions: &mut Vec<u32>,
    ) -> Result<(), Corrupt> {
        let (n, row_len) = (segment.len, segment.row.clamp(1, segment.len));
        let density = ((u64::from(k) << ESTIMATE_BITS) / n as u64) as u32;
        let Self { bitmap, columns } = self;
        let tables = &*TABLES;
        bitmap.clear();
        bitmap.resize(n / 64 + 2, 0);
        columns.clear();
        columns.resize(row_len, Estimate::new(density, COLUMN_PRIOR));
        let mut near = [Estimate::new(density, NEAR_PRIOR); NEIGHBOURHOODS];
        let mut mixer = Mixer::new();
        let (mut left, mut next, mut before) = (k as usize, 0, 0);
        for start in (0..n).step_by(row_len) {
            let mut row = Estimate::new(density, ROW_PRIOR);
            let width = row_len.min(n - start);
            for (column, i) in columns[..width].iter_mut().zip(start..) {
                // Every so often is enough for what moves so slowly.
                if i % REMAINDER_EVERY == 0 || i == start {
                    mixer.remaining =
                        tables.stretch(((left as u64) << 16).div_euclid((n - i) as u64).min(0xffff) as u32);
                }
                let above = if i > row_len { window(bitmap, i - row_len - 1) } else { 0 };
                let near = &mut near[(before | above << 2) as usize];
                let guesses = [*column, row, *near].map(|guess| tables.stretch(guess.p >> (ESTIMATE_BITS - 16)));
                let p = mixer.mix(tables, guesses);
                let set = !S::READS && positions.get(next) == Some(&(i as u32));
                let set = stream.choice(p, set);
                mixer.learn(set);
                column.learn(set);
                row.learn(set);
                near.learn(set);
                before = before << 1 & 3 | u32::from(set);
                if !set {
                    continue;
                }
                bitmap[i / 64] |= 1 << (i % 64);
                if S::READS {
                    positions.push(i as u32);
                }
                next += 1;
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
        }
        Err(Corrupt)
    }
}

/// The probability of a non-zero in one context, and how often that was seen: the more, the less it moves.
#[derive(Clone, Copy)]
pub(crate) struct Estimate {
    p: u32,
    seen: u32,
}

impl Estimate {
    /// A guess in 2^-[`ESTIMATE_BITS`] that weighs as much as `seen` observations.
    fn new(p: u32, seen: u32) -> Self {
        Self { p: p.min(ESTIMATE_MAX), seen }
    }

    /// Nothing known.
    pub(crate) fn even() -> Self {
        Self::new(1 << (ESTIMATE_BITS - 1), 0)
    }

    /// In 2^-[`ESTIMATE_BITS`].
    #[inline]
    pub(crate) fn p(self) -> u32 {
        self.p
    }

    #[inline]
    pub(crate) fn learn(&mut self, set: bool) {
        let target = if set { ESTIMATE_MAX } else { 0 };
        let step = ((i64::from(target) - i64::from(self.p)) * RATES[self.seen as usize]) >> 16;
        self.p = (i64::from(self.p) + step) as u32;
        self.seen = (self.seen + 1).min(SEEN_MAX);
    }
}

/// Weighs the guesses; the last of them is how many are left.
struct Mixer {
    weights: [i32; INPUTS],
    inputs: [i32; INPUTS],
    remaining: i32,
    /// What was foretold, in 2^-16.
    p: i32,
}

impl Mixer {
    fn new() -> Self {
        Self { weights: WEIGHTS, inputs: [0; INPUTS], remaining: 0, p: 0 }
    }

    /// The probability in 2^-[`P_BITS`].
    #[inline]
    fn mix(&mut self, tables: &Tables, [column, row, near]: [i32; INPUTS - 1]) -> u32 {
        self.inputs = [column, row, near, self.remaining];
        let sum: i64 = self.inputs.iter().zip(self.weights).map(|(&x, w)| i64::from(x) * i64::from(w)).sum();
        let p = tables.squash((sum >> 16) as i32);
        self.p = (p >> (P_BITS - 16)) as i32;
        p
    }

    #[inline]
    fn learn(&mut self, set: bool) {
        let error = (i32::from(set) << 16) - self.p;
        for (weight, &x) in self.weights.iter_mut().zip(&self.inputs) {
            // Bounded, so that no stream whatever makes them overflow.
            let step = (i64::from(x) * i64::from(error)) >> LEARNING_SHIFT;
            *weight = (*weight + step as i32).clamp(-WEIGHT_MAX, WEIGHT_MAX);
        }
    }
}

/// Three bits of the row before, from `from` on; past the end of the bitmap there are none.
#[inline]
fn window(bitmap: &[u64], from: usize) -> u32 {
    let (word, offset) = (from / 64, from % 64);
    let low = bitmap[word] >> offset;
    let high = if offset > 61 { bitmap[word + 1] << (64 - offset) } else { 0 };
    (low | high) as u32 & 7
}

pub(crate) struct Tables {
    stretch: Box<[i16]>,
    squash: Box<[u32]>,
}

impl Tables {
    /// log2(p / (1 − p)) in 2^-8, of a probability in 2^-16.
    #[inline]
    pub(crate) fn stretch(&self, p: u32) -> i32 {
        self.stretch[p as usize & 0xffff].into()
    }

    /// The inverse of [`Self::stretch`], in 2^-[`P_BITS`] and never certain.
    #[inline]
    pub(crate) fn squash(&self, x: i32) -> u32 {
        self.squash[(x.clamp(-STRETCH_MAX, STRETCH_MAX) + STRETCH_MAX) as usize]
    }
}

pub(crate) static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    // 2^(1/256), by eight square roots; then every power of it by products.
    let step = (0..8).fold(2.0f64, |root, _| root.sqrt());
    let mut power = 1.0;
    let mut half = Vec::with_capacity(STRETCH_MAX as usize + 1);
    for _ in 0..=STRETCH_MAX {
        half.push(power / (1.0 + power));
        power *= step;
    }
    let to_p = |share: f64| ((share * f64::from(1u32 << P_BITS)) as u32).clamp(P_MIN, P_MAX);
    let below = half.iter().skip(1).rev().map(|&share| to_p(1.0 - share));
    let squash: Box<[u32]> = below.chain(half.iter().map(|&share| to_p(share))).collect();
    // For each probability the largest x that does not lead beyond it.
    let mut x = 0;
    let stretch = (0u32..1 << 16).map(|p| {
        let wanted = (2 * p + 1) << (P_BITS - 17);
        while x + 1 < squash.len() && squash[x + 1] <= wanted {
            x += 1;
        }
        (x as i32 - STRETCH_MAX) as i16
    });
    let stretch = stretch.collect();
    Tables { stretch, squash }
});

/// 2^16 / (seen + 1.5)
static RATES: [i64; SEEN_MAX as usize + 1] = {
    let mut rates = [0; SEEN_MAX as usize + 1];
    let mut seen = 0;
    while seen < rates.len() {
        rates[seen] = (1 << 17) / (2 * seen as i64 + 3);
        seen += 1;
    }
    rates
};

const INPUTS: usize = 4;
/// Column, row, neighbourhood, remainder; in 2^-16.
const WEIGHTS: [i32; INPUTS] = [28_000, 22_000, 26_000, -6000];
const WEIGHT_MAX: i32 = 1 << 20;
const LEARNING_SHIFT: u32 = 15;
pub(crate) const ESTIMATE_BITS: u32 = 22;
const ESTIMATE_MAX: u32 = (1 << ESTIMATE_BITS) - 1;
const SEEN_MAX: u32 = 255;
/// How many observations the tensor's density weighs in each context.
const COLUMN_PRIOR: u32 = 4;
const ROW_PRIOR: u32 = 10;
const NEAR_PRIOR: u32 = 16;
/// Two coordinates before and three one row back.
const NEIGHBOURHOODS: usize = 32;
const REMAINDER_EVERY: usize = 16;
/// ±12 in 2^-8: 2^-12 is below what the range coder resolves well.
const STRETCH_MAX: i32 = 12 << 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretching_undoes_squashing() {
        for x in [-2000, -512, -3, 0, 7, 300, 1999] {
            let p = TABLES.squash(x) >> (P_BITS - 16);
            // Near the ends one step of a 16-bit probability is several of x.
            assert!((TABLES.stretch(p) - x).abs() <= 1 + (1 << (x.abs() / 256)) / 64, "{x}: {}", TABLES.stretch(p));
        }
        assert_eq!((TABLES.squash(0), TABLES.squash(256)), (1 << (P_BITS - 1), (2 << P_BITS) / 3));
        assert_eq!(TABLES.squash(i32::MIN), TABLES.squash(-STRETCH_MAX));
        assert_eq!(TABLES.squash(i32::MAX), TABLES.squash(STRETCH_MAX));
    }

    #[test]
    fn an_estimate_approaches_the_frequency() {
        let mut estimate = Estimate::new(ESTIMATE_MAX / 2, 0);
        for i in 0..3000 {
            estimate.learn(i % 10 == 0);
        }
        let p = f64::from(estimate.p) / f64::from(ESTIMATE_MAX);
        assert!((0.09..0.11).contains(&p), "{p}");
    }
}

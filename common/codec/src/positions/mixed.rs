//! Coordinates one by one, each with a probability mixed from several guesses: how often its column, its row and its
//! neighbourhood were non-zero so far, and how many non-zeros are left.
//!
//! The guesses are mixed in the logistic domain with weights that follow the error (Mahoney 2005, "Adaptive weighing of
//! context models for lossless data compression", the mixer of PAQ). All of it is integer arithmetic; its tables come
//! from products, quotients and square roots, which every machine rounds alike.

use super::Corrupt;
use crate::{
    Segment,
    bits::Stream,
    range::{Cost, P_BITS, P_MAX, P_MIN, RangeStream},
};
use std::sync::LazyLock;

/// Room that is reused from tensor to tensor.
#[derive(Default)]
pub(super) struct Mixed {
    /// One bit per coordinate of the tensor at hand.
    bitmap: Vec<u8>,
    columns: Vec<Estimate>,
    /// The probability of every coordinate up to the last non-zero, as [`Self::remembered_cost`] found them.
    foretold: Vec<u32>,
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
        let Self { bitmap, columns, .. } = self;
        let tables = &*TABLES;
        bitmap.clear();
        bitmap.resize(n / 8 + 2, 0);
        columns.clear();
        columns.resize(row_len, Estimate::new(density, COLUMN_PRIOR));
        let mut near = [Estimate::new(density, NEAR_PRIOR); NEIGHBOURHOODS];
        let mut mixer = Mixer::new();
        let (mut left, mut next, mut before) = (k as usize, 0, 0);
        // A writer's next non-zero.
        let mut upcoming = positions.first().copied().unwrap_or(u32::MAX);
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
                let set = stream.choice(p, !S::READS && upcoming == i as u32);
                mixer.learn(set);
                column.learn(set);
                row.learn(set);
                near.learn(set);
                before = before << 1 & 3 | u32::from(set);
                if !set {
                    continue;
                }
                bitmap[i / 8] |= 1 << (i % 8);
                next += 1;
                if S::READS {
                    positions.push(i as u32);
                } else {
                    upcoming = positions.get(next).copied().unwrap_or(u32::MAX);
                }
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
        }
        Err(Corrupt)
    }
}

impl Mixed {
    /// What [`Self::code`] would write costs so much, in 2^-16 bits; remembers the probabilities for
    /// [`Self::write_again`].
    pub(super) fn remembered_cost(&mut self, segment: Segment, positions: &mut Vec<u32>) -> u64 {
        let mut foretold = std::mem::take(&mut self.foretold);
        foretold.clear();
        foretold.reserve(segment.len);
        let mut trial = Trial { cost: Cost::default(), foretold };
        let written = self.code(&mut trial, segment, positions.len() as u32, positions);
        self.foretold = trial.foretold;
        if written.is_ok() { trial.cost.total } else { u64::MAX }
    }

    /// Writes what [`Self::code`] would, if these positions are those whose cost was asked for last: then the
    /// probabilities are known.
    pub(super) fn write_again<S: RangeStream>(&self, stream: &mut S, positions: &[u32]) {
        let mut coded = 0;
        for &position in positions {
            let position = position as usize;
            for &p in &self.foretold[coded..position] {
                stream.choice(p, false);
            }
            stream.choice(self.foretold[position], true);
            coded = position + 1;
        }
    }
}

/// Adds up a cost and remembers the probabilities.
struct Trial {
    cost: Cost,
    foretold: Vec<u32>,
}

impl Stream for Trial {
    const READS: bool = false;

    fn bits(&mut self, value: u32, bits: u32) -> u32 {
        self.cost.bits(value, bits)
    }
}

impl RangeStream for Trial {
    #[inline]
    fn choice(&mut self, p: u32, choice: bool) -> bool {
        self.foretold.push(p);
        self.cost.choice(p, choice)
    }

    fn uniform(&mut self, value: u32, n: u32) -> u32 {
        self.cost.uniform(value, n)
    }

    fn step(&mut self) -> u32 {
        self.cost.step()
    }

    fn interval(&mut self, start: u32, size: u32) {
        self.cost.interval(start, size);
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

    #[inline(always)]
    pub(crate) fn learn(&mut self, set: bool) {
        let target = if set { ESTIMATE_MAX } else { 0 };
        let step = ((i64::from(target) - i64::from(self.p)) * RATES[usize::from(self.seen as u8)]) >> 16;
        self.p = (i64::from(self.p) + step) as u32;
        self.seen = (self.seen + 1).min(SEEN_MAX);
    }
}

/// Weighs the guesses; the last of them is how many are left. What one choice teaches decides on the next, so what
/// counts is how long that takes: bounds that are almost never met are branches and not minima, which would be waited
/// for.
struct Mixer {
    weights: [i64; INPUTS],
    inputs: [i64; INPUTS],
    remaining: i32,
    /// What was foretold, in 2^-16.
    p: i64,
}

impl Mixer {
    fn new() -> Self {
        Self { weights: WEIGHTS, inputs: [0; INPUTS], remaining: 0, p: 0 }
    }

    /// The probability in 2^-[`P_BITS`].
    #[inline(always)]
    fn mix(&mut self, tables: &Tables, [column, row, near]: [i32; INPUTS - 1]) -> u32 {
        self.inputs = [column, row, near, self.remaining].map(i64::from);
        let [a, b, c, d]: [i64; INPUTS] = std::array::from_fn(|i| self.inputs[i] * self.weights[i]);
        let p = tables.squash((((a + b) + (c + d)) >> 16) as i32);
        self.p = i64::from(p >> (P_BITS - 16));
        p
    }

    #[inline(always)]
    fn learn(&mut self, set: bool) {
        let error = (i64::from(set) << 16) - self.p;
        let mut beyond = 0;
        for (weight, x) in self.weights.iter_mut().zip(self.inputs) {
            *weight += (x * error) >> LEARNING_SHIFT;
            beyond |= *weight + WEIGHT_MAX;
        }
        // Bounded, so that no stream whatever makes them overflow.
        if beyond as u64 >= 2 * WEIGHT_MAX as u64 {
            self.weights = bounded(self.weights);
        }
    }
}

/// Takes and returns them by value, so that where this is not called they stay in registers.
#[cold]
fn bounded(weights: [i64; INPUTS]) -> [i64; INPUTS] {
    weights.map(|weight| weight.clamp(-WEIGHT_MAX, WEIGHT_MAX))
}

/// Three bits of the row before, from `from` on; past the end of the bitmap there are none.
#[inline]
fn window(bitmap: &[u8], from: usize) -> u32 {
    let bytes = [bitmap[from / 8], bitmap[from / 8 + 1]];
    u32::from(u16::from_le_bytes(bytes) >> (from % 8)) & 7
}

pub(crate) struct Tables {
    stretch: [i16; 1 << 16],
    squash: [u32; SQUASHED],
}

impl Tables {
    /// log2(p / (1 − p)) in 2^-8, of a probability in 2^-16.
    #[inline(always)]
    pub(crate) fn stretch(&self, p: u32) -> i32 {
        self.stretch[p as usize & 0xffff].into()
    }

    /// The inverse of [`Self::stretch`], in 2^-[`P_BITS`] and never certain.
    #[inline(always)]
    pub(crate) fn squash(&self, x: i32) -> u32 {
        match self.squash.get(x.wrapping_add(STRETCH_MAX) as u32 as usize) {
            Some(&p) => p,
            None => self.squash_bounded(x),
        }
    }

    #[cold]
    fn squash_bounded(&self, x: i32) -> u32 {
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
    let mut squash = [0; SQUASHED];
    squash.iter_mut().zip(below.chain(half.iter().map(|&share| to_p(share)))).for_each(|(p, of_x)| *p = of_x);
    // For each probability the largest x that does not lead beyond it.
    let mut x = 0;
    let stretch = std::array::from_fn(|p| {
        let wanted = (2 * p as u32 + 1) << (P_BITS - 17);
        while x + 1 < squash.len() && squash[x + 1] <= wanted {
            x += 1;
        }
        (x as i32 - STRETCH_MAX) as i16
    });
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
const WEIGHTS: [i64; INPUTS] = [28_000, 22_000, 26_000, -6000];
const WEIGHT_MAX: i64 = 1 << 20;
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
const SQUASHED: usize = 2 * STRETCH_MAX as usize + 1;

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

//! Whether a few neighbours in a row have any non-zero, and if so, which: each choice with a probability mixed from how
//! often its column, its row and its neighbourhood were chosen so far.
//!
//! The guesses are mixed in the logistic domain with weights that follow the error (Mahoney 2005, "Adaptive weighing of
//! context models for lossless data compression", the mixer of PAQ). All of it is integer arithmetic; its tables come
//! from products, quotients and square roots, which every machine rounds alike.

mod cells;

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
    /// Whether to read what version 1 wrote.
    pub(super) is_first: bool,
    blocks: Level,
    cells: Level,
    /// The choices of [`Self::remembered_cost`]: a probability each, and in the lowest bit what was chosen.
    foretold: Vec<u32>,
}

impl Mixed {
    /// The positions of `k` ≥ 1 non-zeros; a reader fills `positions`, which is empty.
    ///
    /// Rows are cut into blocks, and a cell, which is a coordinate, is looked at only in a block that has a non-zero:
    /// so the work grows with the non-zeros, and what is learnt about cells is about those that matter.
    pub(super) fn code<S: RangeStream>(
        &mut self,
        stream: &mut S,
        segment: Segment,
        k: u32,
        positions: &mut Vec<u32>,
    ) -> Result<(), Corrupt> {
        if self.is_first {
            return cells::read(stream, &mut self.cells, segment, k, positions);
        }
        let (n, row_len) = (segment.len, segment.row.clamp(1, segment.len));
        let tables = &*TABLES;
        let width = self.begin(tables, segment, k);
        let Self { blocks, cells, .. } = self;
        // How many were met; a writer's next one.
        let (mut met, mut upcoming) = (0, positions.first().map_or(n, |&first| first as usize));
        let mut block = 0;
        for start in (0..n).step_by(row_len) {
            let end = n.min(start + row_len);
            blocks.begin_row();
            cells.begin_row();
            for (column, from) in (start..end).step_by(width).enumerate() {
                let to = end.min(from + width);
                let any = blocks.code(stream, tables, (block, column, 0), CONSTANT, upcoming < to);
                block += 1;
                if !any {
                    cells.skip();
                    continue;
                }
                let mut is_empty = true;
                for i in from..to {
                    let left = if is_empty { to - i } else { 0 };
                    let set = if left == 1 {
                        cells.pass(i);
                        true
                    } else {
                        cells.code(stream, tables, (i, i - start, left), CONSTANT, upcoming == i)
                    };
                    if !set {
                        continue;
                    }
                    is_empty = false;
                    met += 1;
                    if S::READS {
                        positions.push(i as u32);
                    } else {
                        upcoming = positions.get(met).map_or(n, |&next| next as usize);
                    }
                    if met == k as usize {
                        return Ok(());
                    }
                }
            }
        }
        Err(Corrupt)
    }

    /// Forgets the tensor before; gives the cells in a block.
    fn begin(&mut self, tables: &Tables, segment: Segment, k: u32) -> usize {
        let (n, row_len) = (segment.len, segment.row.clamp(1, segment.len));
        let density = ((u64::from(k) << ESTIMATE_BITS) / n as u64) as u32;
        let width = block_len(row_len, density);
        let blocks_in_row = row_len.div_ceil(width);
        // Of independent cells: that a block has any; that a cell is one, if its block has any; and the same if those
        // before it in the block are none.
        let any = any_of(density, width as u32);
        let within = share(density, any);
        self.blocks.begin(any, &PRIORS, blocks_in_row, n.div_ceil(row_len) * blocks_in_row);
        self.blocks.mixers.push(Mixer::expecting(tables, any, any));
        self.cells.begin(within, &PRIORS, row_len, n);
        let expected =
            (0..=width as u32).map(|left| if left == 0 { density } else { share(density, any_of(density, left)) });
        self.cells.mixers.extend(expected.map(|expected| Mixer::expecting(tables, within, expected)));
        width
    }

    /// What [`Self::code`] would write costs so much, in 2^-16 bits; remembers the probabilities for
    /// [`Self::write_again`].
    pub(super) fn remembered_cost(&mut self, segment: Segment, positions: &mut Vec<u32>) -> u64 {
        let mut foretold = std::mem::take(&mut self.foretold);
        foretold.clear();
        let mut trial = Trial { cost: Cost::default(), foretold };
        let written = self.code(&mut trial, segment, positions.len() as u32, positions);
        self.foretold = trial.foretold;
        if written.is_ok() { trial.cost.total } else { u64::MAX }
    }

    /// Writes what [`Self::code`] would of the positions whose cost was asked for last.
    pub(super) fn write_again<S: RangeStream>(&self, stream: &mut S) {
        for &choice in &self.foretold {
            stream.choice(choice >> 1, choice & 1 == 1);
        }
    }
}

/// Cells in a block, of which one in two would have a non-zero if those were independent; each row is cut evenly.
fn block_len(row_len: usize, density: u32) -> usize {
    let most = ((1 << (ESTIMATE_BITS - 1)) / density.max(1)).clamp(1, BLOCK_MAX) as usize;
    row_len.div_ceil(row_len.div_ceil(most))
}

/// The probability that any of `n` independent cells is set, each with `p`; both in 2^-[`ESTIMATE_BITS`].
fn any_of(p: u32, n: u32) -> u32 {
    let one = 1u64 << ESTIMATE_BITS;
    let (mut none, mut power, mut n) = (one, one - u64::from(p), n);
    while n > 0 {
        if n % 2 == 1 {
            none = (none * power) >> ESTIMATE_BITS;
        }
        power = (power * power) >> ESTIMATE_BITS;
        n /= 2;
    }
    (one - none) as u32
}

/// `p` of `all`, both in 2^-[`ESTIMATE_BITS`].
fn share(p: u32, all: u32) -> u32 {
    ((u64::from(p) << ESTIMATE_BITS) / u64::from(all.max(1))).min(ESTIMATE_MAX.into()) as u32
}

/// What is learnt about choices that lie in rows: the blocks, or the cells.
#[derive(Default)]
struct Level {
    /// One bit per choice of the tensor at hand.
    bitmap: Vec<u8>,
    columns: Vec<Estimate>,
    row: Estimate,
    /// What each row begins with.
    new_row: Estimate,
    near: Vec<Estimate>,
    /// The two choices before.
    before: u32,
    /// By what is known of the choice besides.
    mixers: Vec<Mixer>,
}

/// How many observations a tensor's density weighs in each context before there are any.
struct Priors {
    column: u32,
    row: u32,
    near: u32,
}

impl Level {
    /// Forgets everything, its mixers too.
    fn begin(&mut self, density: u32, priors: &Priors, row_len: usize, n: usize) {
        self.new_row = Estimate::new(density, priors.row);
        self.before = 0;
        self.mixers.clear();
        self.bitmap.clear();
        self.bitmap.resize(n / 8 + 2, 0);
        self.columns.clear();
        self.columns.resize(row_len, Estimate::new(density, priors.column));
        self.near.clear();
        self.near.resize(NEIGHBOURHOODS, Estimate::new(density, priors.near));
    }

    fn begin_row(&mut self) {
        self.row = self.new_row;
    }

    /// Number `i`, in that column, by that mixer, whose last input is `last`.
    #[inline(always)]
    fn code<S: RangeStream>(
        &mut self,
        stream: &mut S,
        tables: &Tables,
        (i, column, mixer): (usize, usize, usize),
        last: i32,
        set: bool,
    ) -> bool {
        let row_len = self.columns.len();
        let above = if i > row_len { window(&self.bitmap, i - row_len - 1) } else { 0 };
        let near = &mut self.near[(self.before | above << 2) as usize];
        let (column, row, mixer) = (&mut self.columns[column], &mut self.row, &mut self.mixers[mixer]);
        let [of_column, of_row, of_near] = [*column, *row, *near].map(|guess| guess.stretched(tables));
        let p = mixer.mix(tables, [of_column, of_row, of_near, last]);
        let set = stream.choice(p, set);
        mixer.learn(set);
        column.learn(set);
        row.learn(set);
        near.learn(set);
        self.before = self.before << 1 & 3 | u32::from(set);
        self.bitmap[i / 8] |= u8::from(set) << (i % 8);
        set
    }

    /// Number `i` is set, since one must be, and nothing is to be learnt from it.
    #[inline(always)]
    fn pass(&mut self, i: usize) {
        self.before = self.before << 1 & 3 | 1;
        self.bitmap[i / 8] |= 1 << (i % 8);
    }

    /// Two or more are not set, and that was known.
    fn skip(&mut self) {
        self.before = 0;
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
        self.foretold.push(p << 1 | u32::from(choice));
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

/// The probability of a choice in one context, and how often that was seen: the more, the less it moves.
#[derive(Clone, Copy, Default)]
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

    /// As mixers take it.
    #[inline(always)]
    pub(crate) fn stretched(self, tables: &Tables) -> i32 {
        tables.stretch(self.p >> (ESTIMATE_BITS - 16))
    }

    #[inline(always)]
    pub(crate) fn learn(&mut self, set: bool) {
        let target = if set { ESTIMATE_MAX } else { 0 };
        let step = ((i64::from(target) - i64::from(self.p)) * RATES[usize::from(self.seen as u8)]) >> 16;
        self.p = (i64::from(self.p) + step) as u32;
        self.seen = (self.seen + 1).min(SEEN_MAX);
    }
}

/// Weighs guesses. What one choice teaches decides on the next, so what counts is how long that takes: bounds that are
/// almost never met are branches and not minima, which would be waited for.
struct Mixer {
    weights: [i64; INPUTS],
    inputs: [i64; INPUTS],
    /// What was foretold, in 2^-16.
    p: i64,
}

impl Mixer {
    /// In 2^-16.
    fn new(weights: [i64; INPUTS]) -> Self {
        Self { weights, inputs: [0; INPUTS], p: 0 }
    }

    /// Where all guesses are `guess`, this foretells `expected`; both in 2^-[`ESTIMATE_BITS`].
    fn expecting(tables: &Tables, guess: u32, expected: u32) -> Self {
        let [guess, expected] = [guess, expected].map(|p| i64::from(tables.stretch(p >> (ESTIMATE_BITS - 16))));
        let constant = ((expected << 16) - guess * WEIGHTS.iter().sum::<i64>()) >> CONSTANT.ilog2();
        let [column, row, near] = WEIGHTS;
        Self::new(bounded([column, row, near, constant]))
    }

    /// The probability in 2^-[`P_BITS`].
    #[inline(always)]
    fn mix(&mut self, tables: &Tables, inputs: [i32; INPUTS]) -> u32 {
        self.inputs = inputs.map(i64::from);
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
/// Column, row, neighbourhood; in 2^-16.
const WEIGHTS: [i64; INPUTS - 1] = [30_000, 26_000, 24_000];
/// The input that is always there: four bits, in 2^-8.
const CONSTANT: i32 = 4 << 8;
const WEIGHT_MAX: i64 = 1 << 20;
const LEARNING_SHIFT: u32 = 15;
const ESTIMATE_BITS: u32 = 22;
const ESTIMATE_MAX: u32 = (1 << ESTIMATE_BITS) - 1;
const SEEN_MAX: u32 = 255;
const PRIORS: Priors = Priors { column: 0, row: 1, near: 2 };
/// Two before and three one row back.
const NEIGHBOURHOODS: usize = 32;
/// Most cells in a block.
const BLOCK_MAX: u32 = 64;
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

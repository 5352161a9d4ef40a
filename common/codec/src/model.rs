//! Learning models for the range coder.

use crate::range::{P_BITS, P_MAX, P_MIN, RangeStream};

/// The probability of a choice, learnt at two rates: both start at 1/n, one settles at 1/32, one at 1/256.
#[derive(Clone, Copy)]
pub(crate) struct Learning {
    slow: u16,
    fast: u16,
    seen: u8,
}

impl Learning {
    /// Nothing known.
    pub(crate) const EVEN: Self = Self { slow: 1 << 15, fast: 1 << 15, seen: 0 };

    /// A guess that weighs as much as `seen` observations.
    pub(crate) fn with_prior(probability: f64, seen: u8) -> Self {
        let p = (probability * 65536.0).clamp(f64::from(LEAST), f64::from(MOST)) as u16;
        Self { slow: p, fast: p, seen }
    }

    #[inline]
    pub(crate) fn code<S: RangeStream>(&mut self, stream: &mut S, choice: bool) -> bool {
        // In 2^-18, and by construction never certain.
        let choice = stream.choice(3 * u32::from(self.slow) + u32::from(self.fast), choice);
        let rate = RATES[usize::from(self.seen)];
        self.slow = toward(self.slow, choice, rate);
        self.fast = toward(self.fast, choice, rate.max(FAST_RATE));
        self.seen = self.seen.saturating_add(1);
        choice
    }
}

/// The probability of a choice that never changes, estimated from all that was seen.
#[derive(Clone, Copy)]
pub(crate) struct Stationary {
    /// In 2^-8 observations.
    yes: u32,
    all: u32,
}

impl Stationary {
    /// A guess that weighs as much as `seen` observations.
    pub(crate) fn with_prior(probability: f64, seen: u32) -> Self {
        let all = seen << 8;
        Self { yes: (probability * f64::from(all)).clamp(1.0, f64::from(all - 1)) as u32, all }
    }

    #[inline]
    pub(crate) fn code<S: RangeStream>(&mut self, stream: &mut S, choice: bool) -> bool {
        let p = ((u64::from(self.yes) << P_BITS) / u64::from(self.all)) as u32;
        let choice = stream.choice(p.clamp(P_MIN, P_MAX), choice);
        self.yes += u32::from(choice) << 8;
        self.all += 1 << 8;
        if self.all > 1 << 30 {
            self.yes >>= 1;
            self.all >>= 1;
        }
        choice
    }
}

/// A number below 2^`depth` as choices from the highest bit down, each with its own adaptive probability.
pub(crate) struct Tree {
    depth: u32,
    nodes: Vec<Learning>,
}

impl Tree {
    pub(crate) fn new(depth: u32) -> Self {
        Self { depth, nodes: vec![Learning::EVEN; 1 << depth] }
    }

    /// Starts from the chances of the symbols.
    fn expect(&mut self, chances: &[f64]) {
        let mut sums = vec![0.0; 2 << self.depth];
        sums[1 << self.depth..].copy_from_slice(chances);
        for node in (1..1 << self.depth).rev() {
            sums[node] = sums[2 * node] + sums[2 * node + 1];
            if sums[node] > 1e-200 {
                self.nodes[node] = Learning::with_prior(sums[2 * node + 1] / sums[node], PRIOR);
            }
        }
    }

    #[inline]
    pub(crate) fn code<S: RangeStream>(&mut self, stream: &mut S, symbol: u32) -> u32 {
        let mut node = 1;
        for level in (0..self.depth).rev() {
            let choice = self.nodes[node].code(stream, symbol >> level & 1 != 0);
            node = node << 1 | usize::from(choice);
        }
        node as u32 & ((1 << self.depth) - 1)
    }
}

/// A number ≥ 1: its class ⌊log2⌋ by a tree, the next two bits adaptively, the others as they are.
pub(crate) struct Magnitude {
    usual: Usual,
    classes: Tree,
    /// Three nodes for the two bits after the first, per class.
    next: [[Learning; 3]; 32],
}

/// A small tree for the classes from `low` on, whose last symbol stands for all others.
struct Usual {
    low: u32,
    tree: Tree,
}

impl Magnitude {
    /// For any `u32` ≥ 1, nothing known but that most have seven classes from that of `low` on.
    pub(crate) fn starting_at(low: u32) -> Self {
        Self {
            usual: Usual { low: low.ilog2(), tree: Tree::new(USUAL_DEPTH) },
            classes: Tree::new(5),
            next: [[Learning::EVEN; 3]; 32],
        }
    }

    /// For the gaps between `k` coordinates spread evenly over `n`: geometric, P(gap ≥ g) = (1 − k/n)^(g−1).
    /// Only sums, products and quotients, which every machine rounds alike.
    pub(crate) fn of_gaps(k: u32, n: u32) -> Self {
        let stay = 1.0 - f64::from(k) / f64::from(n);
        let mut powers = [stay; 33];
        for i in 1..powers.len() {
            powers[i] = powers[i - 1] * powers[i - 1];
        }
        // P(gap ≥ 2^class)
        let tail = |class: usize| if class == 0 { 1.0 } else { powers[class] / stay };
        let mut chance: [f64; 32] = std::array::from_fn(|class| tail(class) - tail(class + 1));

        let mut model = Self::starting_at(((n / k) >> BELOW_MEAN).max(1));
        let low = model.usual.low as usize;
        let mut usual = [0.0; 1 << USUAL_DEPTH];
        for (class, chance) in chance.iter_mut().enumerate() {
            let symbol = class.wrapping_sub(low).min(OTHERS as usize);
            usual[symbol] += *chance;
            if symbol != OTHERS as usize {
                *chance = 0.0;
            }
        }
        model.usual.tree.expect(&usual);
        model.classes.expect(&chance);
        for class in 1..32 {
            let half = powers[class - 1];
            model.next[class][0] = Learning::with_prior(half / (1.0 + half), PRIOR);
            if class > 1 {
                let quarter = powers[class - 2];
                model.next[class][1..].fill(Learning::with_prior(quarter / (1.0 + quarter), PRIOR));
            }
        }
        model
    }

    #[inline]
    pub(crate) fn code<S: RangeStream>(&mut self, stream: &mut S, value: u32) -> u32 {
        let class = value.checked_ilog2().unwrap_or(0);
        let Usual { low, tree } = &mut self.usual;
        let symbol = tree.code(stream, class.wrapping_sub(*low).min(OTHERS));
        let class = if symbol < OTHERS { (*low + symbol) & 31 } else { self.classes.code(stream, class) };
        if class == 0 {
            return 1;
        }
        let next = &mut self.next[class as usize];
        let first = next[0].code(stream, value >> (class - 1) & 1 != 0);
        if class == 1 {
            return 2 | u32::from(first);
        }
        let second = next[1 + usize::from(first)].code(stream, value >> (class - 2) & 1 != 0);
        let rest = class - 2;
        let top = 4 | u32::from(first) << 1 | u32::from(second);
        top << rest | stream.long(value & ((1 << rest) - 1), rest)
    }
}

/// Rounds toward the target in both directions, so that near certainty is reached at every rate.
#[inline]
fn toward(p: u16, choice: bool, rate: i32) -> u16 {
    let mask = -i32::from(choice);
    let target = i32::from(LEAST) + (mask & i32::from(MOST - LEAST));
    let round = mask & ((1 << RATE_BITS) - 1);
    let p = i32::from(p);
    (p + (((target - p) * rate + round) >> RATE_BITS)) as u16
}

/// How much the geometric prior of a gap weighs.
const PRIOR: u8 = 32;
/// The classes that are usual for gaps start this many below that of the mean gap.
const BELOW_MEAN: u32 = 4;
const USUAL_DEPTH: u32 = 3;
const OTHERS: u32 = (1 << USUAL_DEPTH) - 1;
/// An adaptive probability stays between these, in 2^-16.
const LEAST: u16 = (P_MIN >> (P_BITS - 16)) as u16;
const MOST: u16 = (P_MAX >> (P_BITS - 16)) as u16;
const RATE_BITS: u32 = 15;
const FAST_RATE: i32 = 1 << (RATE_BITS - 5);
/// 1 / (n + 1.5) in 2^-15.
static RATES: [i32; 256] = {
    let mut rates = [0; 256];
    let mut n = 0;
    while n < rates.len() {
        rates[n] = (2 << RATE_BITS) / (2 * n as i32 + 3);
        n += 1;
    }
    rates
};

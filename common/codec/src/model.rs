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
        let choice = stream.choice(self.p(), choice);
        self.learn(choice);
        choice
    }

    /// In 2^-18, and by construction never certain.
    #[inline]
    fn p(self) -> u32 {
        3 * u32::from(self.slow) + u32::from(self.fast)
    }

    #[inline]
    fn learn(&mut self, choice: bool) {
        let rate = RATES[usize::from(self.seen)];
        self.slow = toward(self.slow, choice, rate);
        self.fast = toward(self.fast, choice, rate.max(FAST_RATE));
        self.seen = self.seen.saturating_add(1);
    }
}

/// The probability of a choice that never changes, estimated from all that was seen.
#[derive(Clone, Copy)]
pub(crate) struct Stationary {
    /// Of `true`, in 2^-[`P_BITS`].
    p: u32,
    /// In 2^-8 observations.
    yes: u32,
    all: u32,
}

impl Stationary {
    /// A guess that weighs as much as `seen` observations.
    pub(crate) fn with_prior(probability: f64, seen: u32) -> Self {
        let all = seen << 8;
        let yes = (probability * f64::from(all)).clamp(1.0, f64::from(all - 1)) as u32;
        Self { p: estimate(yes, all), yes, all }
    }

    #[inline]
    pub(crate) fn code<S: RangeStream>(&mut self, stream: &mut S, choice: bool) -> bool {
        let choice = stream.choice(self.p, choice);
        self.yes += u32::from(choice) << 8;
        self.all += 1 << 8;
        // The more was seen, the less a single choice moves the estimate, and a division is slow.
        if self.all < OFTEN_UNTIL || self.all & (SELDOM - 1) < 1 << 8 {
            self.p = estimate(self.yes, self.all);
        }
        if self.all > 1 << 30 {
            self.yes >>= 1;
            self.all >>= 1;
        }
        choice
    }
}

fn estimate(yes: u32, all: u32) -> u32 {
    (((u64::from(yes) << P_BITS) / u64::from(all)) as u32).clamp(P_MIN, P_MAX)
}

/// The chances of up to 256 symbols from their counts, as intervals of 2^16 steps. They follow the counts whenever those
/// have doubled, and at the latest after [`REFRESH`] more.
pub(crate) struct Frequencies {
    symbols: usize,
    counts: [u32; SYMBOLS],
    /// Symbols until the intervals are made anew.
    wait: u32,
    /// Symbol `s` has the steps from `starts[s]` to `starts[s + 1]`.
    starts: [u32; SYMBOLS + 1],
    /// The symbol that has step 256·i.
    coarse: [u8; SYMBOLS],
}

impl Frequencies {
    /// Nothing known of 256 symbols.
    pub(crate) fn new() -> Self {
        Self::of(SYMBOLS)
    }

    /// Nothing known of `symbols` symbols, 1 to 256.
    pub(crate) fn of(symbols: usize) -> Self {
        let mut frequencies =
            Self { symbols, counts: [0; SYMBOLS], wait: 0, starts: [0; SYMBOLS + 1], coarse: [0; SYMBOLS] };
        frequencies.refresh();
        frequencies
    }

    #[inline]
    pub(crate) fn code<S: RangeStream>(&mut self, stream: &mut S, symbol: u32) -> u32 {
        let step = stream.step();
        let mut symbol = symbol as usize;
        if S::READS {
            symbol = self.coarse[step as usize >> 8].into();
            while self.starts[symbol + 1] <= step {
                symbol += 1;
            }
        }
        let start = self.starts[symbol];
        stream.interval(start, self.starts[symbol + 1] - start);
        self.counts[symbol] += 1;
        self.wait -= 1;
        if self.wait == 0 {
            self.refresh();
        }
        symbol as u32
    }

    /// Every symbol keeps one step; the others are shared out by count, at first evenly.
    fn refresh(&mut self) {
        let seen: u32 = self.counts.iter().sum();
        self.wait = seen.clamp(FIRST_REFRESH, REFRESH);
        let symbols = self.symbols as u64;
        let all = SEEN_WEIGHT * u64::from(seen) + symbols;
        let mut before = 0;
        for symbol in 0..self.symbols {
            before += SEEN_WEIGHT * u64::from(self.counts[symbol]) + 1;
            let end = (symbol as u64 + 1) + before * ((1 << 16) - symbols) / all;
            self.starts[symbol + 1] = end as u32;
            let coarse = self.starts[symbol].div_ceil(256) as usize..end.div_ceil(256) as usize;
            self.coarse[coarse].fill(symbol as u8);
        }
    }
}

/// A number below a power of two as choices from the highest bit down, each with its own adaptive probability: as many as
/// there are numbers, in an array where that is known, so that a frame needs no memory for it.
pub(crate) struct Tree<N> {
    depth: u32,
    nodes: N,
}

impl Tree<Vec<Learning>> {
    /// For 2^`depth` numbers.
    pub(crate) fn of_depth(depth: u32) -> Self {
        Self { depth, nodes: vec![Learning::EVEN; 1 << depth] }
    }
}

impl<const N: usize> Tree<[Learning; N]> {
    /// All numbers alike.
    pub(crate) const EVEN: Self = Self { depth: N.ilog2(), nodes: [Learning::EVEN; N] };

    /// A guess at the chances of the numbers that weighs as much as `seen` observations.
    pub(crate) fn expecting(chances: &[f64; N], seen: u8) -> Self {
        let mut tree = Self::EVEN;
        // Those of inner nodes; below the last of these are the numbers.
        let mut sums = [0.0; N];
        for node in (1..N).rev() {
            let below = [2 * node, 2 * node + 1].map(|node| if node < N { sums[node] } else { chances[node - N] });
            sums[node] = below[0] + below[1];
            if sums[node] > 1e-200 {
                tree.nodes[node] = Learning::with_prior(below[1] / sums[node], seen);
            }
        }
        tree
    }
}

impl<N: AsMut<[Learning]>> Tree<N> {
    #[inline]
    pub(crate) fn code<S: RangeStream>(&mut self, stream: &mut S, symbol: u32) -> u32 {
        let nodes = &mut self.nodes.as_mut()[..1 << self.depth];
        let within = nodes.len() - 1;
        let (mut node, mut p) = (1, nodes[1 & within].p());
        for level in (0..self.depth).rev() {
            // Both that may be next are looked up before it is known which is: a reader waits for nothing but the choice.
            let next = [2 * node, 2 * node + 1].map(|node| nodes[node & within].p());
            let choice = stream.choice(p, symbol >> level & 1 != 0);
            nodes[node & within].learn(choice);
            p = std::hint::select_unpredictable(choice, next[1], next[0]);
            node = node << 1 | usize::from(choice);
        }
        node as u32 & within as u32
    }
}

/// A number ≥ 1: its class ⌊log2⌋ by a tree, the next two bits adaptively, the others as they are.
pub(crate) struct Magnitude {
    usual: Usual,
    classes: Tree<[Learning; 32]>,
    /// Three nodes for the two bits after the first, per class.
    next: [[Learning; 3]; 32],
}

/// A small tree for the classes from `low` on, whose last symbol stands for all others.
struct Usual {
    low: u32,
    tree: Tree<[Learning; 1 << USUAL_DEPTH]>,
}

impl Magnitude {
    /// For any `u32` ≥ 1, nothing known but that most have seven classes from that of `low` on.
    pub(crate) fn starting_at(low: u32) -> Self {
        Self {
            usual: Usual { low: low.ilog2(), tree: Tree::EVEN },
            classes: Tree::EVEN,
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
        model.usual.tree = Tree::expecting(&usual, PRIOR);
        model.classes = Tree::expecting(&chance, PRIOR);
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
        let after = [next[1].p(), next[2].p()];
        let first = next[0].code(stream, value >> (class - 1) & 1 != 0);
        if class == 1 {
            return 2 | u32::from(first);
        }
        let p = std::hint::select_unpredictable(first, after[1], after[0]);
        let second = stream.choice(p, value >> (class - 2) & 1 != 0);
        next[1 + usize::from(first)].learn(second);
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

const SYMBOLS: usize = 256;
const FIRST_REFRESH: u32 = 16;
const REFRESH: u32 = 4096;
/// A symbol that was seen once is this much more likely than before.
const SEEN_WEIGHT: u64 = 4;
/// A stationary estimate follows each of the first 256 choices, then every 16th.
const OFTEN_UNTIL: u32 = 256 << 8;
const SELDOM: u32 = 16 << 8;
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

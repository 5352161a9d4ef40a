//! Runs of zeros by asymmetric numeral systems (Duda 2013, arXiv:1311.2540, the range variant): of the length of each
//! run the first digits by a table of frequencies, the others as they are. The table starts from the geometric law of the
//! tensor's density and follows what was seen, block by block. Four states take turns, so that a processor decodes several
//! runs at once where a range coder waits for each choice.

use super::Corrupt;
use crate::{bits::Stream, vectorised};

/// Room that a writer reuses from tensor to tensor.
#[derive(Default)]
pub(super) struct Ans {
    symbols: Vec<Symbol>,
}

/// What a writer knows of a symbol when its turn comes, last ones first.
struct Symbol {
    frequency: u16,
    /// The frequencies before it.
    start: u16,
    /// Bits of the state that a reader needs after this symbol, and how many: 16 or none.
    word: (u16, u8),
    /// How many bits there are of `low`: none behind a step.
    low_bits: u8,
    low: u32,
}

impl Ans {
    /// The positions of `k` ≥ 1 non-zeros among `n` > `k` coordinates; a reader fills `positions`, which is empty.
    pub(super) fn code<S: Stream>(
        &mut self,
        stream: &mut S,
        n: u32,
        k: u32,
        positions: &mut Vec<u32>,
    ) -> Result<(), Corrupt> {
        // For the shifts by variable counts that newer processors have.
        if S::READS {
            return vectorised(
                #[inline(always)]
                || read(stream, n, k, positions),
            );
        }
        vectorised(
            #[inline(always)]
            || self.write(stream, n, positions),
        );
        Ok(())
    }

    #[inline(always)]
    fn write<S: Stream>(&mut self, stream: &mut S, n: u32, positions: &[u32]) {
        let mut lengths = Lengths::new(n, positions.len() as u32);
        let scale = lengths.scale;
        let step = Digits::of(lengths.step, scale);
        self.symbols.clear();
        let mut take = |symbol: u32, low: u32, low_bits: u32| {
            let Lengths { frequencies: of, before, .. } = &lengths;
            let at = symbol as usize % SYMBOLS;
            let (frequency, start) = (of[at] as u16, before[at] as u16);
            self.symbols.push(Symbol { frequency, start, word: (0, 0), low_bits: low_bits as u8, low });
            lengths.count(symbol);
            if self.symbols.len().is_multiple_of(BLOCK) {
                lengths.learn();
            }
        };
        let mut start = 0;
        for &position in positions {
            let mut length = position - start;
            while length >= step.first {
                take(step.symbol, 0, 0);
                length -= step.first;
            }
            let digits = Digits::holding(length, scale);
            take(digits.symbol, length - digits.first, digits.low_bits);
            start = position + 1;
        }
        // A reader undoes the last symbol first.
        let mut states = [STATE_MIN; LANES];
        for (i, symbol) in self.symbols.iter_mut().enumerate().rev() {
            let state = &mut states[i % LANES];
            let frequency = u32::from(symbol.frequency);
            let bits = if *state >> (32 - TABLE_BITS) >= frequency { 16 } else { 0 };
            symbol.word = ((*state & ((1 << bits) - 1)) as u16, bits);
            *state >>= bits;
            *state = ((*state / frequency) << TABLE_BITS) + *state % frequency + u32::from(symbol.start);
        }
        for state in states {
            stream.long(state, 32);
        }
        for &Symbol { word: (word, word_bits), low, low_bits, .. } in &self.symbols {
            stream.pair((word.into(), word_bits.into()), (low, low_bits.into()));
        }
    }
}

#[inline(always)]
fn read<S: Stream>(stream: &mut S, n: u32, k: u32, positions: &mut Vec<u32>) -> Result<(), Corrupt> {
    let mut states: [u32; LANES] = std::array::from_fn(|_| stream.long(0, 32));
    let mut reader = Reader { lengths: Lengths::new(n, k), slots: [0; 1 << TABLE_BITS], start: 0 };
    let mut left = k as usize;
    while left > 0 {
        reader.lengths.fill(&mut reader.slots);
        let before = positions.len();
        positions.resize(before + left.min(BLOCK), 0);
        let block = &mut positions[before..];
        let (mut found, mut symbols) = (0, 0);
        while symbols < BLOCK && found + LANES <= block.len() {
            for state in &mut states {
                found += reader.next(stream, state, &mut block[found]);
            }
            symbols += LANES;
        }
        while symbols < BLOCK && found < block.len() {
            found += reader.next(stream, &mut states[symbols % LANES], &mut block[found]);
            symbols += 1;
        }
        left -= found;
        positions.truncate(before + found);
        // Positions only rise, so none of them is beyond the last.
        if reader.start > u64::from(n) {
            return Err(Corrupt);
        }
        reader.lengths.learn();
    }
    if states == [STATE_MIN; LANES] { Ok(()) } else { Err(Corrupt) }
}

struct Reader {
    lengths: Lengths,
    slots: [u32; 1 << TABLE_BITS],
    /// Where the next run begins.
    start: u64,
}

impl Reader {
    /// Reads a symbol; if it is no step, there is a position behind the run, and one was found.
    #[inline(always)]
    fn next<S: Stream>(&mut self, stream: &mut S, state: &mut u32, position: &mut u32) -> usize {
        let Self { lengths, slots, start } = self;
        let slot = slots[*state as usize % slots.len()];
        let (symbol, frequency, place) = (slot % SYMBOLS as u32, slot >> 6 & TABLE_MAX, slot >> 18);
        let after = frequency * (*state >> TABLE_BITS) + place;
        let digits = Digits::of(symbol, lengths.scale);
        let is_run = u32::from(symbol != lengths.step);
        let word_bits = if after < STATE_MIN { 16 } else { 0 };
        let (word, low) = stream.pair((0, word_bits), (0, digits.low_bits * is_run));
        *state = after << word_bits | word;
        lengths.count(symbol);
        *start += u64::from(digits.first + low);
        *position = *start as u32;
        *start += u64::from(is_run);
        is_run as usize
    }
}

/// The lengths that a symbol stands for.
struct Digits {
    symbol: u32,
    /// The shortest of them.
    first: u32,
    /// Binary digits that tell them apart.
    low_bits: u32,
}

impl Digits {
    /// Four symbols for every octave, from 4·2^`scale` on; below it, one for 2^`scale` lengths.
    #[inline(always)]
    fn of(symbol: u32, scale: u32) -> Self {
        let octave = (symbol / 4).max(1) - 1;
        let low_bits = octave + scale;
        Self { symbol, first: (symbol - 4 * octave) << low_bits, low_bits }
    }

    #[inline(always)]
    fn holding(length: u32, scale: u32) -> Self {
        let scaled = length >> scale;
        let octave = (scaled | 4).ilog2() - 2;
        Self::of((scaled >> octave) + 4 * octave, scale)
    }
}

/// How frequent each symbol is.
struct Lengths {
    scale: u32,
    /// The last symbol: a step as long as the shortest run that it would stand for, behind which there is no non-zero yet.
    step: u32,
    counts: [u32; SYMBOLS],
    /// Of 2^[`TABLE_BITS`]; none is zero up to the last symbol.
    frequencies: [u32; SYMBOLS],
    /// The sum of those of the symbols before.
    before: [u32; SYMBOLS],
}

impl Lengths {
    /// With a geometric law, P(length ≥ l) = (1 − k/n)^l. Only sums, products and quotients, which every machine rounds
    /// alike.
    fn new(n: u32, k: u32) -> Self {
        let scale = ((n / k) >> MEAN_BITS).max(1).ilog2();
        let mut stay = 1.0 - f64::from(k) / f64::from(n);
        for _ in 0..scale {
            stay *= stay;
        }
        let mut counts = [0; SYMBOLS];
        let (mut at_least, mut octave, mut step) = (1.0, 0, 0);
        while step < SYMBOLS - 1 && at_least > RARE {
            // As many as the symbols of its octave stand for.
            if step >= 8 && step / 4 - 1 > octave {
                octave += 1;
                stay *= stay;
            }
            let more = at_least * stay;
            counts[step] = ((at_least - more) * f64::from(PRIOR)) as u32;
            at_least = more;
            step += 1;
        }
        counts[step] = (at_least * f64::from(PRIOR)) as u32;
        let mut lengths = Self { scale, step: step as u32, counts, frequencies: [0; SYMBOLS], before: [0; SYMBOLS] };
        lengths.share_out();
        lengths
    }

    #[inline(always)]
    fn count(&mut self, symbol: u32) {
        self.counts[symbol as usize % SYMBOLS] += 1;
    }

    /// At the end of a block.
    fn learn(&mut self) {
        if self.counts.iter().sum::<u32>() > COUNTED_MAX {
            self.counts.iter_mut().for_each(|count| *count /= 2);
        }
        self.share_out();
    }

    /// One to each symbol, the others by count, and what is left by rounding to the first of the most frequent.
    fn share_out(&mut self) {
        let symbols = self.step as usize + 1;
        let all = self.counts.iter().sum::<u32>().max(1);
        let mut left = 1 << TABLE_BITS;
        for (frequency, count) in self.frequencies[..symbols].iter_mut().zip(self.counts) {
            *frequency = 1 + count * ((1 << TABLE_BITS) - symbols as u32) / all;
            left -= *frequency;
        }
        let mut most = 0;
        for symbol in 1..symbols {
            if self.frequencies[symbol] > self.frequencies[most] {
                most = symbol;
            }
        }
        self.frequencies[most] += left;
        let mut sum = 0;
        for (before, frequency) in self.before.iter_mut().zip(self.frequencies) {
            *before = sum;
            sum += frequency;
        }
    }

    /// For every remainder of a state: the symbol (6 bits), its frequency (12) and the place among its own (12).
    fn fill(&self, slots: &mut [u32; 1 << TABLE_BITS]) {
        let mut rest = slots.as_mut_slice();
        for (symbol, &frequency) in (0..).zip(&self.frequencies) {
            let (own, others) = rest.split_at_mut(frequency as usize);
            for (place, slot) in (0..).zip(own) {
                *slot = symbol | frequency << 6 | place << 18;
            }
            rest = others;
        }
    }
}

const SYMBOLS: usize = 64;
/// The mean length has so many binary digits before the scale is more than one.
const MEAN_BITS: u32 = 6;
/// Runs that are so unlikely begin with a step.
const RARE: f64 = 1.0 / 2048.0;
const TABLE_BITS: u32 = 12;
const TABLE_MAX: u32 = (1 << TABLE_BITS) - 1;
/// A state below it takes 16 bits from the stream.
const STATE_MIN: u32 = 1 << 16;
const LANES: usize = 4;
/// Symbols after which frequencies follow the counts; a multiple of [`LANES`].
const BLOCK: usize = 1024;
/// How many observations the geometric law weighs.
const PRIOR: u32 = 1024;
/// Counts are halved beyond it, so that what was seen long ago weighs less.
const COUNTED_MAX: u32 = 16384;

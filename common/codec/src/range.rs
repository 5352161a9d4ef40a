//! A binary range coder with carry propagation, after Martin (1979) as used by LZMA, with 18-bit probabilities.

use crate::{
    Error,
    bits::{Stream, expect_all},
};

/// A stream that can spend fractions of a bit on a choice.
pub(crate) trait RangeStream: Stream {
    /// One binary choice; `p` is the probability of `true` in 2^-[`P_BITS`], within `P_MIN..=P_MAX`.
    fn choice(&mut self, p: u32, choice: bool) -> bool;

    /// One of `n` ≤ 4096 equally likely values.
    fn uniform(&mut self, value: u32, n: u32) -> u32;

    /// Divides what is left into 2^16 equal steps; a reader returns the step that was written. [`Self::interval`] follows.
    fn step(&mut self) -> u32;

    /// Narrows what [`Self::step`] divided to the `size` ≥ 1 steps from `start` on.
    fn interval(&mut self, start: u32, size: u32);
}

/// One of `n` equally likely values, for any `n` ≥ 1: the top 12 bits exactly, the others as plain bits. The excess
/// over log2(n) is below 2^-10 bits. A reader may return a value ≥ `n` from a stream that no writer wrote.
#[inline]
pub(crate) fn uniform<S: RangeStream>(stream: &mut S, value: u64, n: u64) -> u64 {
    let width = 64 - (n - 1).leading_zeros();
    if width <= 12 && n == 1 << width {
        // The same without a division.
        return stream.bits(value as u32, width).into();
    }
    uniform_in_parts(stream, value, n, width)
}

fn uniform_in_parts<S: RangeStream>(stream: &mut S, value: u64, n: u64, width: u32) -> u64 {
    let mut low_bits = width.saturating_sub(12);
    let mut result = u64::from(stream.uniform((value >> low_bits) as u32, ((n - 1) >> low_bits) as u32 + 1));
    while low_bits > 0 {
        let bits = low_bits.min(16);
        low_bits -= bits;
        let chunk = (value >> low_bits) as u32 & ((1 << bits) - 1);
        result = result << bits | u64::from(stream.bits(chunk, bits));
    }
    result
}

/// Writes to the end of a byte vector.
pub(crate) struct RangeWriter<'a> {
    out: &'a mut Vec<u8>,
    low: u32,
    range: u32,
}

impl<'a> RangeWriter<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, low: 0, range: u32::MAX }
    }

    /// Ends the stream with as few bytes as name a value inside the last interval; readers see zeros after them.
    /// Gives back what was written to.
    pub(crate) fn finish(self) -> &'a mut Vec<u8> {
        self.end(false)
    }

    /// Ends a stream behind which a reader may see anything.
    pub(crate) fn finish_before_others(self) -> &'a mut Vec<u8> {
        self.end(true)
    }

    fn end(mut self, are_others_behind: bool) -> &'a mut Vec<u8> {
        let (by, bytes) = shortest_end(self.low, self.range, are_others_behind);
        self.advance(by);
        self.out.extend_from_slice(&self.low.to_be_bytes()[..bytes]);
        self.out
    }

    #[inline]
    fn advance(&mut self, by: u32) {
        let (low, carry) = self.low.overflowing_add(by);
        self.low = low;
        if carry {
            for byte in self.out.iter_mut().rev() {
                *byte = byte.wrapping_add(1);
                if *byte != 0 {
                    break;
                }
            }
        }
    }

    #[inline]
    fn normalize(&mut self) {
        while self.range < RANGE_MIN {
            self.out.push((self.low >> 24) as u8);
            self.low <<= 8;
            self.range <<= 8;
        }
    }
}

impl Stream for RangeWriter<'_> {
    const READS: bool = false;

    #[inline]
    fn bits(&mut self, value: u32, bits: u32) -> u32 {
        self.range >>= bits;
        self.advance(self.range * value);
        self.normalize();
        value
    }
}

impl RangeStream for RangeWriter<'_> {
    #[inline]
    fn choice(&mut self, p: u32, choice: bool) -> bool {
        let bound = split(self.range, p);
        // Selects instead of branches: the choice is what no branch predictor knows.
        self.advance(bound & u32::from(choice).wrapping_sub(1));
        self.range = std::hint::select_unpredictable(choice, bound, self.range - bound);
        self.normalize();
        choice
    }

    #[inline]
    fn uniform(&mut self, value: u32, n: u32) -> u32 {
        self.range /= n;
        self.advance(self.range * value);
        self.normalize();
        value
    }

    #[inline]
    fn step(&mut self) -> u32 {
        self.range >>= 16;
        0
    }

    #[inline]
    fn interval(&mut self, start: u32, size: u32) {
        self.advance(self.range * start);
        self.range *= size;
        self.normalize();
    }
}

/// Reads what [`RangeWriter`] wrote; if `BACKWARD`, from the last byte to the first, with others behind. Any bytes decode to something; nothing
/// overflows or divides by zero.
pub(crate) struct RangeReader<'a, const BACKWARD: bool = false> {
    data: &'a [u8],
    at: usize,
    code: u32,
    range: u32,
}

impl<'a> RangeReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self::starting(data)
    }
}

impl<'a> RangeReader<'a, true> {
    pub(crate) fn backward(data: &'a [u8]) -> Self {
        Self::starting(data)
    }
}

impl<'a, const BACKWARD: bool> RangeReader<'a, BACKWARD> {
    fn starting(data: &'a [u8]) -> Self {
        let mut reader = Self { data, at: WINDOW_BYTES, code: 0, range: u32::MAX };
        reader.code = reader.window();
        reader
    }

    /// Bytes that a writer of what was read would have needed.
    pub(crate) fn used(&self) -> usize {
        let low = self.window().wrapping_sub(self.code);
        self.at - WINDOW_BYTES + shortest_end(low, self.range, BACKWARD).1
    }

    /// Checks that the stream is as long as its writer would have made it.
    pub(crate) fn finish(self, frame_bytes: usize) -> Result<(), Error> {
        expect_all(self.used(), self.data.len(), frame_bytes)
    }

    /// The last bytes read; zeros past the end.
    fn window(&self) -> u32 {
        (self.at - WINDOW_BYTES..self.at).fold(0, |window, at| window << 8 | self.byte(at))
    }

    #[inline]
    fn byte(&self, at: usize) -> u32 {
        let at = if BACKWARD { self.data.len().wrapping_sub(1 + at) } else { at };
        self.data.get(at).map_or(0, |&byte| u32::from(byte))
    }

    #[inline]
    fn normalize(&mut self) {
        while self.range < RANGE_MIN {
            self.code = self.code << 8 | self.byte(self.at);
            self.at += 1;
            self.range <<= 8;
        }
    }

    #[inline]
    fn take(&mut self, n: u32) -> u32 {
        let value = (self.code / self.range).min(n - 1);
        self.code -= value * self.range;
        self.normalize();
        value
    }
}

impl<const BACKWARD: bool> Stream for RangeReader<'_, BACKWARD> {
    const READS: bool = true;

    #[inline]
    fn bits(&mut self, _: u32, bits: u32) -> u32 {
        self.range >>= bits;
        self.take(1 << bits)
    }
}

impl<const BACKWARD: bool> RangeStream for RangeReader<'_, BACKWARD> {
    #[inline]
    fn choice(&mut self, p: u32, _: bool) -> bool {
        let bound = split(self.range, p);
        // Selects instead of branches: the choice is what no branch predictor knows.
        let choice = self.code < bound;
        let passed = bound & u32::from(choice).wrapping_sub(1);
        self.code -= passed;
        self.range = std::hint::select_unpredictable(choice, bound, self.range - bound);
        self.normalize();
        choice
    }

    #[inline]
    fn uniform(&mut self, _: u32, n: u32) -> u32 {
        self.range /= n;
        self.take(n)
    }

    #[inline]
    fn step(&mut self) -> u32 {
        self.range >>= 16;
        (self.code / self.range).min(0xffff)
    }

    #[inline]
    fn interval(&mut self, start: u32, size: u32) {
        self.code -= self.range * start;
        self.range *= size;
        self.normalize();
    }
}

/// Writes nothing and adds up what it would cost.
#[derive(Default)]
pub(crate) struct Cost {
    /// In 2^-16 bits.
    pub(crate) total: u64,
}

impl Stream for Cost {
    const READS: bool = false;

    #[inline]
    fn bits(&mut self, value: u32, bits: u32) -> u32 {
        self.total += u64::from(bits) << 16;
        value
    }
}

impl RangeStream for Cost {
    #[inline]
    fn choice(&mut self, p: u32, choice: bool) -> bool {
        let p = if choice { p } else { (1 << P_BITS) - p };
        self.total += u64::from(COSTS[(p >> COST_SHIFT) as usize]);
        choice
    }

    fn uniform(&mut self, value: u32, n: u32) -> u32 {
        self.total += u64::from(log2(n));
        value
    }

    fn step(&mut self) -> u32 {
        0
    }

    fn interval(&mut self, _: u32, size: u32) {
        self.total += u64::from((16 << 16) - log2(size));
    }
}

/// How far to advance from `low` within `range` so that as few bytes as possible name the result, and how many: with
/// zeros behind them, or with anything.
fn shortest_end(low: u32, range: u32, are_others_behind: bool) -> (u32, usize) {
    if (low, range) == (0, u32::MAX) {
        return (0, 0);
    }
    let low = u64::from(low);
    for bytes in 0..WINDOW_BYTES {
        let rest = u64::from(u32::MAX) >> (8 * bytes);
        let end = (low + rest) & !rest;
        let last = if are_others_behind { end + rest } else { end };
        if last < low + u64::from(range) {
            return ((end - low) as u32, bytes);
        }
    }
    (0, WINDOW_BYTES)
}

#[inline]
fn split(range: u32, p: u32) -> u32 {
    ((u64::from(range) * u64::from(p)) >> P_BITS) as u32
}

/// log2 of x > 0 in 2^-16 bits, rounded down, in integers so that every machine makes the same choices.
pub(crate) const fn log2(x: u32) -> u32 {
    let whole = x.ilog2();
    let mut mantissa = (x as u64) << (32 - whole);
    let mut log = whole;
    let mut i = 0;
    while i < 16 {
        mantissa = ((mantissa as u128 * mantissa as u128) >> 32) as u64;
        let doubled = mantissa >> 33;
        log = log << 1 | doubled as u32;
        mantissa >>= doubled;
        i += 1;
    }
    log
}

/// Probabilities of choices are in 2^-`P_BITS`.
pub(crate) const P_BITS: u32 = 18;
/// The least probability of either choice: as little as keeps certain choices nearly free.
pub(crate) const P_MIN: u32 = 1 << 7;
pub(crate) const P_MAX: u32 = (1 << P_BITS) - P_MIN;

const RANGE_MIN: u32 = 1 << 24;
/// A reader looks this far ahead.
const WINDOW_BYTES: usize = 4;
const COST_SHIFT: u32 = 5;
static COSTS: [u32; 1 << (P_BITS - COST_SHIFT)] = {
    let mut costs = [0; 1 << (P_BITS - COST_SHIFT)];
    let mut i = 0;
    while i < costs.len() {
        costs[i] = (P_BITS << 16) - log2(((i as u32) << COST_SHIFT) + (1 << COST_SHIFT >> 1));
        i += 1;
    }
    costs
};

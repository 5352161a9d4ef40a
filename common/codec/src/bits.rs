//! Plain bit streams, and the trait that lets one description of a format both write and read it.

use crate::Error;

/// A stream of plain bits. Writers store `value` and return it; readers ignore it and return what was stored.
/// So each piece of the format is written down once, and the two directions cannot drift apart.
pub(crate) trait Stream {
    /// Whether this stream reads.
    const READS: bool;

    /// The low `bits` ≤ 16 bits of a value.
    fn bits(&mut self, value: u32, bits: u32) -> u32;

    /// Up to 32 bits.
    #[inline]
    fn long(&mut self, value: u32, bits: u32) -> u32 {
        if bits <= 16 {
            return self.bits(value, bits);
        }
        let low = self.bits(value & 0xffff, 16);
        self.bits(value >> 16, bits - 16) << 16 | low
    }

    /// `value` ones and a zero. A reader sees zeros past its end, so this ends too.
    #[inline]
    fn unary(&mut self, value: u32) -> u32 {
        let mut ones = 0u32;
        while self.bits(u32::from(ones < value), 1) != 0 {
            ones = ones.saturating_add(1);
        }
        ones
    }

    /// A quotient by 2^`bits` in unary, then `bits` ≤ 31 plain bits.
    #[inline]
    fn rice(&mut self, value: u32, bits: u32) -> (u32, u32) {
        (self.unary(value >> bits), self.long(value & ((1 << bits) - 1), bits))
    }

    /// Two values after one another: the first of up to 16 bits, the second of up to 31.
    #[inline(always)]
    fn pair(&mut self, (first, first_bits): (u32, u32), (second, second_bits): (u32, u32)) -> (u32, u32) {
        let first = self.bits(first, first_bits);
        (first, self.long(second, second_bits))
    }

    /// A number ≥ 1 as the length of its binary form (5 bits), then its bits below the first.
    fn number(&mut self, value: u32) -> u32 {
        let class = self.bits(value.checked_ilog2().unwrap_or(0), 5);
        1 << class | self.long(value & !(1 << class), class)
    }
}

/// Checks that what was read is all there is of a body, and no more than there is.
pub(crate) fn expect_all(read: usize, bytes: usize, frame_bytes: usize) -> Result<(), Error> {
    match bytes.checked_sub(read) {
        None => Err(Error::Truncated { got: frame_bytes }),
        Some(0) => Ok(()),
        Some(left) => Err(Error::TrailingBytes(left)),
    }
}

/// Writes bits, lowest first, to the end of a byte vector.
pub(crate) struct BitWriter<'a> {
    out: &'a mut Vec<u8>,
    pending: u64,
    held: u32,
}

impl<'a> BitWriter<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, pending: 0, held: 0 }
    }

    /// Writes all whole bytes that are held.
    #[inline(always)]
    fn flush(&mut self) {
        let bytes = self.held / 8;
        let written = self.out.len() + bytes as usize;
        self.out.extend_from_slice(&self.pending.to_le_bytes());
        self.out.truncate(written);
        self.pending >>= 8 * bytes;
        self.held %= 8;
    }

    /// Fills up the last byte; gives back what was written to.
    pub(crate) fn finish(self) -> &'a mut Vec<u8> {
        let bytes = self.held.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.pending.to_le_bytes()[..bytes]);
        self.out
    }
}

impl Stream for BitWriter<'_> {
    const READS: bool = false;

    #[inline]
    fn bits(&mut self, value: u32, bits: u32) -> u32 {
        self.pending |= u64::from(value) << self.held;
        self.held += bits;
        if self.held >= 32 {
            self.out.extend_from_slice(&(self.pending as u32).to_le_bytes());
            self.pending >>= 32;
            self.held -= 32;
        }
        value
    }

    #[inline]
    fn unary(&mut self, value: u32) -> u32 {
        let mut left = value;
        while left >= 16 {
            self.bits(0xffff, 16);
            left -= 16;
        }
        self.bits((1 << left) - 1, left + 1);
        value
    }

    /// Without a branch on what is held, which would be guessed wrongly again and again.
    #[inline(always)]
    fn pair(&mut self, (first, first_bits): (u32, u32), (second, second_bits): (u32, u32)) -> (u32, u32) {
        if self.held >= 8 {
            self.flush();
        }
        self.pending |= (u64::from(first) | u64::from(second) << first_bits) << self.held;
        self.held += first_bits + second_bits;
        self.flush();
        (first, second)
    }
}

/// Reads what [`BitWriter`] wrote; past the end it reads zeros and remembers.
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    at: usize,
    /// Above the bits held there are zeros, or what comes next.
    pending: u64,
    held: u32,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, pending: 0, held: 0 }
    }

    /// Checks that exactly the whole stream was read.
    pub(crate) fn finish(self, frame_bytes: usize) -> Result<(), Error> {
        self.finish_beside(0, frame_bytes)
    }

    /// The same where so many bytes are another stream's.
    pub(crate) fn finish_beside(self, others: usize, frame_bytes: usize) -> Result<(), Error> {
        let used = self.at - self.held as usize / 8;
        expect_all(used + others, self.data.len(), frame_bytes)
    }

    #[inline]
    fn refill(&mut self) {
        if let Some(word) = self.data.get(self.at..self.at + 4) {
            let word = u32::from_le_bytes(word.try_into().expect("four bytes"));
            self.pending |= u64::from(word) << self.held;
        } else {
            for i in 0..4 {
                let byte = self.data.get(self.at + i).copied().unwrap_or(0);
                self.pending |= u64::from(byte) << (self.held + 8 * i as u32);
            }
        }
        self.at += 4;
        self.held += 32;
    }
}

impl Stream for BitReader<'_> {
    const READS: bool = true;

    #[inline]
    fn bits(&mut self, _: u32, bits: u32) -> u32 {
        if self.held < bits {
            self.refill();
        }
        let value = self.pending as u32 & ((1 << bits) - 1);
        self.pending >>= bits;
        self.held -= bits;
        value
    }

    #[inline]
    fn unary(&mut self, _: u32) -> u32 {
        let mut ones = 0u32;
        loop {
            if self.held == 0 {
                self.refill();
            }
            let more = self.pending.trailing_ones();
            if more < self.held {
                self.pending >>= more + 1;
                self.held -= more + 1;
                return ones.saturating_add(more);
            }
            ones = ones.saturating_add(self.held);
            self.pending = 0;
            self.held = 0;
        }
    }

    #[inline]
    fn rice(&mut self, _: u32, bits: u32) -> (u32, u32) {
        if self.held < 32 {
            self.refill();
        }
        let ones = self.pending.trailing_ones();
        let used = ones + 1 + bits;
        if used >= self.held {
            return (self.unary(0), self.long(0, bits));
        }
        let rest = (self.pending >> (ones + 1)) as u32 & ((1 << bits) - 1);
        self.pending >>= used;
        self.held -= used;
        (ones, rest)
    }

    /// Without a branch on what is held, which would be guessed wrongly again and again.
    #[inline(always)]
    fn pair(&mut self, (_, first_bits): (u32, u32), (_, second_bits): (u32, u32)) -> (u32, u32) {
        let Some(word) = self.data.get(self.at..self.at + 8) else {
            return (self.bits(0, first_bits), self.long(0, second_bits));
        };
        self.pending |= u64::from_le_bytes(word.try_into().expect("eight bytes")) << self.held;
        // As many whole bytes as make it 56 to 63 bits.
        self.at += (63 - self.held as usize) / 8;
        self.held |= 56;
        let first = self.pending as u32 & ((1 << first_bits) - 1);
        let rest = self.pending >> first_bits;
        let second = rest as u32 & ((1 << second_bits) - 1);
        self.pending = rest >> second_bits;
        self.held -= first_bits + second_bits;
        (first, second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unary_number_is_its_ones_and_a_zero() {
        let numbers = [0, 1, 15, 16, 17, 0, 31, 32, 33, 63, 64, 1000, 2];
        let (mut together, mut one_by_one) = (Vec::new(), Vec::new());
        let mut stream = BitWriter::new(&mut together);
        for number in numbers {
            stream.unary(number);
        }
        stream.finish();
        let mut stream = BitWriter::new(&mut one_by_one);
        for number in numbers {
            (0..number).for_each(|_| _ = stream.bits(1, 1));
            stream.bits(0, 1);
        }
        stream.finish();
        assert_eq!(together, one_by_one);
        let mut stream = BitReader::new(&together);
        assert_eq!(numbers.map(|_| stream.unary(0)), numbers);
        assert_eq!(stream.finish(0), Ok(()));
    }

    #[test]
    fn a_rice_code_is_a_unary_quotient_and_the_rest() {
        // Short ones, ones that need more than what is held, and a rest of 31 bits.
        for bits in [0, 1, 5, 16, 17, 31] {
            let numbers =
                [0, 1, 3, 31, 40, 7 << bits >> 1, 1 << bits, 0, 2].map(|number: u32| number.min(1000 << bits));
            let (mut together, mut apart) = (Vec::new(), Vec::new());
            let mut stream = BitWriter::new(&mut together);
            numbers.iter().for_each(|&number| _ = stream.rice(number, bits));
            stream.finish();
            let mut stream = BitWriter::new(&mut apart);
            for number in numbers {
                stream.unary(number >> bits);
                stream.long(number & ((1 << bits) - 1), bits);
            }
            stream.finish();
            assert_eq!(together, apart);
            let mut stream = BitReader::new(&together);
            let read = numbers.map(|_| stream.rice(0, bits));
            assert_eq!(read, numbers.map(|number| (number >> bits, number & ((1 << bits) - 1))));
            assert_eq!(stream.finish(0), Ok(()));
        }
    }
}

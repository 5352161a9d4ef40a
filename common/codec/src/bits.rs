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
    fn long(&mut self, value: u32, bits: u32) -> u32 {
        if bits <= 16 {
            return self.bits(value, bits);
        }
        let low = self.bits(value & 0xffff, 16);
        self.bits(value >> 16, bits - 16) << 16 | low
    }

    /// A number ≥ 1 as the length of its binary form (5 bits), then its bits below the first.
    fn number(&mut self, value: u32) -> u32 {
        let class = self.bits(value.checked_ilog2().unwrap_or(0), 5);
        1 << class | self.long(value & !(1 << class), class)
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

    pub(crate) fn finish(self) {
        let bytes = self.held.div_ceil(8) as usize;
        self.out.extend_from_slice(&self.pending.to_le_bytes()[..bytes]);
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
}

/// Reads what [`BitWriter`] wrote; past the end it reads zeros and remembers.
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    at: usize,
    pending: u64,
    held: u32,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, pending: 0, held: 0 }
    }

    /// Checks that exactly the whole stream was read.
    pub(crate) fn finish(self, frame_bytes: usize) -> Result<(), Error> {
        let used = self.at - self.held as usize / 8;
        match self.data.len().checked_sub(used) {
            None => Err(Error::Truncated { got: frame_bytes }),
            Some(0) => Ok(()),
            Some(left) => Err(Error::TrailingBytes(left)),
        }
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
}

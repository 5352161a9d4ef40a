//! Two streams in one: plain bits from the front and the range coder's bytes from the back, so that neither waits for
//! the other and no length is written.

use crate::{
    Error,
    bits::{BitReader, BitWriter, Stream},
    range::{RangeReader, RangeStream, RangeWriter},
};

/// A stream of plain bits, and a range coder that takes the choices.
pub(crate) struct Paired<B, R> {
    bits: B,
    range: R,
}

/// Writes plain bits to the end of one byte vector, and in the end what the range coder wrote to another.
pub(crate) type PairedWriter<'a> = Paired<BitWriter<'a>, RangeWriter<'a>>;

/// Reads what [`PairedWriter`] wrote.
pub(crate) type PairedReader<'a> = Paired<BitReader<'a>, RangeReader<'a, true>>;

impl<'a> PairedWriter<'a> {
    /// `choices` is room for what the range coder writes.
    pub(crate) fn new(out: &'a mut Vec<u8>, choices: &'a mut Vec<u8>) -> Self {
        choices.clear();
        Self { bits: BitWriter::new(out), range: RangeWriter::new(choices) }
    }

    pub(crate) fn finish(self) {
        let choices = self.range.finish_before_others();
        self.bits.finish().extend(choices.iter().rev());
    }
}

impl<'a> PairedReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { bits: BitReader::new(data), range: RangeReader::backward(data) }
    }

    /// Checks that the two streams together are as long as what was given.
    pub(crate) fn finish(self, frame_bytes: usize) -> Result<(), Error> {
        self.bits.finish_beside(self.range.used(), frame_bytes)
    }
}

impl<B: Stream, R: RangeStream> Stream for Paired<B, R> {
    const READS: bool = B::READS;

    #[inline]
    fn bits(&mut self, value: u32, bits: u32) -> u32 {
        self.bits.bits(value, bits)
    }

    #[inline(always)]
    fn pair(&mut self, first: (u32, u32), second: (u32, u32)) -> (u32, u32) {
        self.bits.pair(first, second)
    }
}

impl<B: Stream, R: RangeStream> RangeStream for Paired<B, R> {
    #[inline]
    fn choice(&mut self, p: u32, choice: bool) -> bool {
        self.range.choice(p, choice)
    }

    #[inline]
    fn uniform(&mut self, value: u32, n: u32) -> u32 {
        self.range.uniform(value, n)
    }

    #[inline]
    fn step(&mut self) -> u32 {
        self.range.step()
    }

    #[inline]
    fn interval(&mut self, start: u32, size: u32) {
        self.range.interval(start, size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: u32 = 1 << 15;

    fn written(rounds: u32) -> Vec<u8> {
        let (mut out, mut choices) = (Vec::new(), Vec::new());
        let mut stream = PairedWriter::new(&mut out, &mut choices);
        for i in 0..rounds {
            stream.choice(P, i % 9 == 0);
            stream.bits(i & 31, 5);
            stream.pair((i & 3, 2), (i, 29));
        }
        stream.finish();
        out
    }

    fn read(data: &[u8], rounds: u32) -> Result<(), Error> {
        let mut stream = PairedReader::new(data);
        for i in 0..rounds {
            let found = (stream.choice(P, false), stream.bits(0, 5), stream.pair((0, 2), (0, 29)));
            if found != (i % 9 == 0, i & 31, (i & 3, i)) {
                return Err(Error::TrailingBytes(usize::MAX));
            }
        }
        stream.finish(data.len())
    }

    #[test]
    fn both_streams_come_back_and_end_where_they_meet() {
        for rounds in (0..200).chain([5000]) {
            assert_eq!(read(&written(rounds), rounds), Ok(()), "{rounds}");
        }
    }

    #[test]
    fn what_lies_between_the_two_is_left_over_and_what_is_missing_is_missed() {
        let whole = written(300);
        // The plain bits are 36 a round.
        let middle = 36 * 300 / 8;
        for inserted in [0, 0xff] {
            let mut longer = whole.clone();
            longer.splice(middle..middle, [inserted; 3]);
            assert_eq!(read(&longer, 300), Err(Error::TrailingBytes(3)));
        }
        let mut shorter = whole;
        shorter.remove(middle - 1);
        assert!(read(&shorter, 300).is_err());
    }
}

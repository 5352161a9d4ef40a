//! The body of a sparse frame, once for both directions.
//!
//! Small tensors that travel whole come first: a flag, and unless it says that all is zero, their f16 values. Then for
//! every other tensor: the count of its non-zeros (for the last one it follows), their positions, the scale if the
//! kind has one and the count is not zero, and the values.

use crate::{
    Error, FrameKind, Segment, Segments,
    bits::Stream,
    header::SMALL_TENSOR,
    positions::{Positions, Share},
    values::{self, Values, is_scaled},
};

/// What is sent of one tensor.
#[derive(Default)]
pub(crate) struct Part {
    /// Rising, from the tensor's start; empty for a tensor that travels whole.
    pub(crate) positions: Vec<u32>,
    /// As many as positions, or as the tensor has elements. Empty if all are zero.
    pub(crate) codes: Vec<u32>,
    /// The bits of an f16; 0 if there is none.
    pub(crate) scale: u16,
}

/// Where parts come from when a frame is written, and go to when it is read.
pub(crate) trait Parts {
    /// Fills `part`, which is empty, when writing.
    fn load(&mut self, segment: usize, part: &mut Part);

    /// Takes `part` when reading; returns how many of its values are not zero.
    fn store(&mut self, segment: usize, part: &Part, whole: bool) -> Result<u32, Error>;
}

/// What both sides know before the body.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) small_dense: bool,
    pub(crate) nonzeros: u32,
    pub(crate) segments: &'a Segments,
}

impl Frame<'_> {
    /// Whether a segment travels whole.
    pub(crate) fn is_whole(&self, segment: Segment) -> bool {
        self.small_dense && segment.len < SMALL_TENSOR
    }

    pub(crate) fn code<S: Stream, P: Positions<S>, V: Values<S>>(
        &self,
        stream: &mut S,
        positions: &mut P,
        values: &mut V,
        parts: &mut impl Parts,
        part: &mut Part,
    ) -> Result<(), Error> {
        let mut k_left = self.nonzeros;
        let mut n_left = self.segments.len() as u32;
        for (i, segment) in self.segments.iter().enumerate().filter(|(_, segment)| self.is_whole(*segment)) {
            part.load(i, parts);
            if stream.bits(u32::from(!part.codes.is_empty()), 1) == 1 {
                values::Plain { width: 16 }.values(stream, segment.len, &mut part.codes);
            }
            let nonzeros = parts.store(i, part, true)?;
            k_left = k_left
                .checked_sub(nonzeros)
                .ok_or(Error::WrongNonzeros { expected: self.nonzeros.into(), got: nonzeros.into() })?;
            n_left -= segment.len as u32;
        }
        for (i, segment) in self.segments.iter().enumerate().filter(|(_, segment)| !self.is_whole(*segment)) {
            part.load(i, parts);
            let share = Share { n: segment.len as u32, k_left, n_left };
            n_left -= share.n;
            let sent = part.positions.len() as u32;
            let k = if n_left == 0 { k_left } else { positions.count(stream, sent, share) };
            if k > k_left.min(share.n) {
                return Err(Error::TooManyNonzeros { got: k.into(), limit: k_left.min(share.n).into() });
            }
            k_left -= k;
            if k > 0 {
                self.code_nonzeros(stream, positions, values, (i, segment, k), part)?;
            }
            parts.store(i, part, false)?;
        }
        // Without any sparse tensor nothing has taken what is left.
        if k_left > 0 {
            let (expected, got) = (self.nonzeros.into(), (self.nonzeros - k_left).into());
            return Err(Error::WrongNonzeros { expected, got });
        }
        Ok(())
    }

    fn code_nonzeros<S: Stream, P: Positions<S>, V: Values<S>>(
        &self,
        stream: &mut S,
        positions: &mut P,
        values: &mut V,
        (i, segment, k): (usize, Segment, u32),
        part: &mut Part,
    ) -> Result<(), Error> {
        if k < segment.len as u32 {
            positions
                .positions(stream, segment, k, &mut part.positions)
                .map_err(|_| Error::IndexOrder { segment: i })?;
        } else if S::READS {
            part.positions.extend(0..k);
        }
        if is_scaled(self.kind) {
            part.scale = stream.bits(part.scale.into(), 16) as u16;
        }
        values.values(stream, k as usize, &mut part.codes);
        Ok(())
    }
}

impl Part {
    fn load(&mut self, segment: usize, parts: &mut impl Parts) {
        self.positions.clear();
        self.codes.clear();
        self.scale = 0;
        parts.load(segment, self);
    }
}

//! The body of a sparse frame, once for both directions.
//!
//! For every tensor: the count of its non-zeros unless only one is possible, and if it is not zero, their positions, the
//! scale if the kind has one, and the values.

use crate::{
    Error, FrameKind, Segment, Segments,
    bits::Stream,
    positions::{Positions, Share},
    values::{Values, is_scaled},
};

/// What is sent of one tensor.
#[derive(Default)]
pub(crate) struct Part {
    /// Rising, from the tensor's start.
    pub(crate) positions: Vec<u32>,
    /// As many as positions.
    pub(crate) codes: Vec<u32>,
    /// The bits of an f16; 0 if there is none.
    pub(crate) scale: u16,
}

/// Where parts come from when a frame is written, and go to when it is read.
pub(crate) trait Parts {
    /// Fills `part`, which is empty, when writing.
    fn load(&mut self, segment: usize, part: &mut Part);

    /// Takes `part`, which is not empty, when reading.
    fn store(&mut self, segment: usize, part: &Part) -> Result<(), Error>;
}

/// What both sides know before the body.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) nonzeros: u32,
    pub(crate) segments: &'a Segments,
}

impl Frame<'_> {
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
        for (i, segment) in self.segments.iter().enumerate() {
            part.load(i, parts);
            let share = Share { n: segment.len as u32, k_left, n_left };
            n_left -= share.n;
            // What does not fit into the tensors behind this one must be in it.
            let (least, most) = (k_left.saturating_sub(n_left), k_left.min(share.n));
            let sent = part.positions.len() as u32;
            let k = if least == most { least } else { positions.count(stream, sent, share) };
            if k < least || k > most {
                return Err(Error::WrongNonzeros { expected: k.clamp(least, most).into(), got: k.into() });
            }
            k_left -= k;
            if k > 0 {
                self.code_nonzeros(stream, positions, values, (i, segment, k), part)?;
                parts.store(i, part)?;
            }
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

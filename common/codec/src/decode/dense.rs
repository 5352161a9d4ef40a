//! Dense frames whose values are as they are: read a run at a time, and several frames in step.

use std::ops::Range;

use prefetch_index::prefetch_index;

use super::{RUN, Reader, Sink, ToFloats, is_of_floats, scale_of};
use crate::{
    Error, FrameHeader, FrameKind, Layout, Limits, Segments,
    bits::expect_all,
    checksum,
    header::{self, Sealed},
    values::{is_scaled, width_of},
};

/// The values of a dense frame, at most [`RUN`] at a time. The checksum is added up on the way, so that they are read from
/// memory once.
pub(super) struct DenseRuns<'a> {
    kind: FrameKind,
    segments: &'a Segments,
    sealed: Sealed<'a>,
    checksum: u32,
    rest: &'a [u8],
    /// The tensor after the one that is read.
    next_segment: usize,
    /// What is left of that one.
    left: Range<usize>,
    scale: f32,
}

/// Some of them.
pub(super) struct Run<'a> {
    /// Flat index of the first.
    pub(super) start: usize,
    /// One to four bytes each, by the kind of the frame.
    pub(super) bytes: &'a [u8],
    /// Their tensor's.
    pub(super) scale: f32,
}

impl<'a> DenseRuns<'a> {
    pub(super) fn new(
        kind: FrameKind,
        segments: &'a Segments,
        sealed: Sealed<'a>,
        frame_bytes: usize,
    ) -> Result<Self, Error> {
        let (width, scale_bytes) = (width_of(kind) as usize / 8, if is_scaled(kind) { 2 } else { 0 });
        let expected = segments.len() * width + segments.count() * scale_bytes;
        expect_all(expected, sealed.unchecked().len(), frame_bytes)?;
        let (checksum, rest) = (sealed.begin(), sealed.unchecked());
        Ok(Self { kind, segments, sealed, checksum, rest, next_segment: 0, left: 0..0, scale: 0.0 })
    }

    /// The next values; nothing after the last.
    pub(super) fn next(&mut self) -> Result<Option<Run<'a>>, Error> {
        while self.left.is_empty() {
            if self.next_segment == self.segments.count() {
                return Ok(None);
            }
            self.left = self.segments.range(self.next_segment);
            let scale = self.take(if is_scaled(self.kind) { 2 } else { 0 });
            let bits = if let [a, b] = *scale { u16::from_le_bytes([a, b]) } else { 0 };
            self.scale = scale_of(self.kind, self.next_segment, bits)?;
            self.next_segment += 1;
        }
        let (start, len) = (self.left.start, self.left.len().min(RUN));
        self.left.start += len;
        let bytes = self.take(len * width_of(self.kind) as usize / 8);
        ask_for(&self.rest[..bytes.len().min(self.rest.len())]);
        Ok(Some(Run { start, bytes, scale: self.scale }))
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len);
        self.checksum = checksum::append(self.checksum, taken);
        self.rest = rest;
        taken
    }

    /// Whether the checksum was right.
    pub(super) fn finish(self) -> Result<(), Error> {
        self.sealed.compare(self.checksum)
    }
}

/// Asks for memory for what comes next while what is here is computed with.
fn ask_for(bytes: &[u8]) {
    (0..bytes.len()).step_by(LINE).for_each(|at| prefetch_index(bytes, at));
}

/// Whether [`decode_together`] takes a frame.
pub fn is_plain_dense(frame: &[u8]) -> bool {
    FrameHeader::parse(frame).is_ok_and(|header| is_plain(&header))
}

fn is_plain(header: &FrameHeader) -> bool {
    lies_as_it_is(header) && is_of_floats(header.kind)
}

/// Whether [`DenseRuns`] reads it: every coordinate has its value, and none is coded.
pub(super) fn lies_as_it_is(header: &FrameHeader) -> bool {
    header.layout == Layout::Dense && !header.values_coded && !matches!(header.kind, FrameKind::Whole(_))
}

/// Where the values of several frames go.
pub trait Sinks {
    /// That of a frame.
    fn of(&mut self, frame: usize) -> impl Sink;
}

/// Decodes dense frames of floats, all of one model and with values that are not coded, in step: first a run of each
/// frame, then the next run of each. A sum of them is then read and written once for all, and not once for each.
///
/// # Errors
/// The number of a frame and what is wrong with it, [`Error::WrongKind`] for one that is not [`is_plain_dense`]; then
/// `sinks` may have seen a part of each.
pub fn decode_together(
    frames: &[&[u8]],
    segments: &Segments,
    limits: &Limits,
    sinks: &mut impl Sinks,
) -> Result<(), (usize, Error)> {
    let mut all = Vec::with_capacity(frames.len());
    for (i, frame) in frames.iter().enumerate() {
        let open = || {
            let (header, sealed) = header::open(frame, segments, limits)?;
            if !is_plain(&header) {
                return Err(Error::WrongKind { got: header.kind });
            }
            Ok((DenseRuns::new(header.kind, segments, sealed, frame.len())?, header, 0))
        };
        all.push(open().map_err(|error| (i, error))?);
    }
    let mut is_over = all.is_empty();
    loop {
        for (i, (runs, header, nonzeros)) in all.iter_mut().enumerate() {
            let mut read = || {
                let mut sink = sinks.of(i);
                let target = ToFloats(&mut sink);
                let mut reader = Reader { kind: header.kind, segments, target, nonzeros: *nonzeros };
                for _ in 0..RUNS {
                    let Some(run) = runs.next()? else { return Ok(false) };
                    reader.read_run(run)?;
                    *nonzeros = reader.nonzeros;
                }
                Ok(true)
            };
            match read() {
                Ok(more) => is_over = !more,
                Err(error) => return Err((i, runs.sealed.checked().err().unwrap_or(error))),
            }
        }
        // They are as long as each other.
        if is_over {
            return finish(all);
        }
    }
}

fn finish(all: Vec<(DenseRuns<'_>, FrameHeader, u64)>) -> Result<(), (usize, Error)> {
    for (i, (runs, header, got)) in all.into_iter().enumerate() {
        runs.finish().map_err(|error| (i, error))?;
        if got != u64::from(header.nonzeros) {
            return Err((i, Error::WrongNonzeros { expected: header.nonzeros.into(), got }));
        }
    }
    Ok(())
}

/// Runs of a frame in turn: memory is fetched in order, and what a sum has for so many stays in the second-level cache.
const RUNS: usize = 2;
/// Bytes of a line of the cache, of most processors.
const LINE: usize = 64;

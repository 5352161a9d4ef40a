//! From a frame back to values.

mod dense;

pub use dense::{Sinks, decode_together, is_plain_dense};

use dense::{DenseRuns, Run};
use half::{f16, slice::HalfFloatSliceExt};

use crate::{
    Error, FrameHeader, FrameKind, Layout, Limits, Scheme, Segments,
    bits::BitReader,
    body::{Frame, Part, Parts},
    codebook, header,
    paired::PairedReader,
    positions::{Adaptive, Enumerative, Plain, Positions, Rice},
    range::{RangeReader, RangeStream},
    source::{check_finite, not_finite},
    values::{self, Values, is_scaled, value_of, width_of},
    vectorised, whole,
};

/// Where decoded values go: usually a sum that grows by them.
pub trait Sink {
    /// Takes one value. Indices rise over the whole frame.
    fn add(&mut self, index: usize, value: f32);

    /// Takes the values from `start` on.
    fn add_dense(&mut self, start: usize, values: &[f32]) {
        for (i, &value) in values.iter().enumerate() {
            self.add(start + i, value);
        }
    }

    /// Takes floats as a frame has them, at most a few thousand, from `start` on. Returns how many are not zero, or
    /// nothing if one is not finite: then the frame is refused.
    fn add_floats(&mut self, start: usize, floats: &[[u8; 4]]) -> Option<u32> {
        let (mut nonzeros, mut buffer) = (0, [0.0; RUN]);
        for (start, floats) in (start..).step_by(RUN).zip(floats.chunks(RUN)) {
            let values = &mut buffer[..floats.len()];
            nonzeros += vectorised(
                #[inline(always)]
                || {
                    values.iter_mut().zip(floats).for_each(|(value, &float)| *value = f32::from_le_bytes(float));
                    nonzeros_if_finite(values)
                },
            )?;
            self.add_dense(start, values);
        }
        Some(nonzeros)
    }

    /// Takes one value for every position, which is counted from `start`. Where a sum is too large for the cache its
    /// cost is that of waiting for memory, and a loop of few instructions waits for several values at once.
    fn add_sparse(&mut self, start: usize, positions: &[u32], values: &[f32]) {
        for (&position, &value) in positions.iter().zip(values) {
            self.add(start + position as usize, value);
        }
    }
}

/// Adds every value to its coordinate: a vector as long as the model.
impl Sink for Vec<f32> {
    fn add(&mut self, index: usize, value: f32) {
        self[index] += value;
    }

    fn add_dense(&mut self, start: usize, values: &[f32]) {
        for (sum, value) in self[start..].iter_mut().zip(values) {
            *sum += value;
        }
    }
}

/// Where decoded integers go.
pub trait IntegerSink {
    /// Takes one value.
    fn add(&mut self, index: usize, value: i32);

    /// Takes the values from `start` on.
    fn add_dense(&mut self, start: usize, values: &[i32]) {
        for (i, &value) in values.iter().enumerate() {
            self.add(start + i, value);
        }
    }
}

/// What a whole frame was found to hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verified {
    /// Coordinates that decode to something other than zero.
    pub nonzeros: usize,
    /// The largest magnitude; integers count in units of [`crate::grid::UNIT`].
    pub max_abs: f32,
}

/// Decodes frames; keeps its buffers from one to the next, since fetching their memory anew takes as long as decoding a
/// sparse frame into it.
#[derive(Default)]
pub struct Decoder {
    part: Part,
    adaptive: Adaptive,
    whole: whole::Reader,
}

impl Decoder {
    /// Has no buffers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Does what [`decode`] does.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn decode<S: Sink>(
        &mut self,
        frame: &[u8],
        segments: &Segments,
        limits: &Limits,
        sink: &mut S,
    ) -> Result<(), Error> {
        read(frame, segments, limits, ToFloats(sink), self).map(drop)
    }
}

/// Decodes a frame of any kind without keeping anything: checksum, version, kind, counts, rising indices, finite
/// values, no byte left over. A frame that passes decodes without error.
///
/// # Errors
/// What is wrong with the frame.
pub fn verify(frame: &[u8], segments: &Segments, limits: &Limits) -> Result<Verified, Error> {
    let mut seen = Seen(0.0);
    let nonzeros = match header::admit(frame, segments, limits)?.kind {
        FrameKind::Integers => read(frame, segments, limits, ToIntegers(&mut seen), &mut Decoder::new())?,
        kind if !kind.has_values() => positions(frame, kind, segments, limits)?.len(),
        _ => read(frame, segments, limits, ToFloats(&mut seen), &mut Decoder::new())?,
    };
    Ok(Verified { nonzeros, max_abs: seen.0 })
}

/// Decodes a frame of floats into `sink`. Zeros of sparse frames are not reported.
///
/// # Errors
/// As [`verify`]; then the sink may have seen a part of the frame, so verify first what comes from elsewhere.
/// [`Error::WrongKind`] for a frame of integers.
pub fn decode<S: Sink>(frame: &[u8], segments: &Segments, limits: &Limits, sink: &mut S) -> Result<(), Error> {
    Decoder::new().decode(frame, segments, limits, sink)
}

/// Decodes a frame of integers into `sink`. Zeros of sparse frames are not reported.
///
/// # Errors
/// As [`decode`], with [`Error::WrongKind`] for a frame of floats.
pub fn decode_integers<S: IntegerSink>(
    frame: &[u8],
    segments: &Segments,
    limits: &Limits,
    sink: &mut S,
) -> Result<(), Error> {
    read(frame, segments, limits, ToIntegers(sink), &mut Decoder::new()).map(drop)
}

/// The positions of a frame of `kind`, one of those without values.
pub(crate) fn positions(
    frame: &[u8],
    kind: FrameKind,
    segments: &Segments,
    limits: &Limits,
) -> Result<Vec<u32>, Error> {
    let got = header::admit(frame, segments, limits)?.kind;
    if got != kind {
        return Err(Error::WrongKind { got });
    }
    // Not reserved by what the header says: that is not to be believed yet.
    let mut found = Vec::new();
    read(frame, segments, limits, ToPositions(&mut found), &mut Decoder::new())?;
    Ok(found)
}

fn read<T: Target>(
    frame: &[u8],
    segments: &Segments,
    limits: &Limits,
    target: T,
    Decoder { part, adaptive, whole }: &mut Decoder,
) -> Result<usize, Error> {
    let (header, sealed) = header::open(frame, segments, limits)?;
    let kind = header.kind;
    if !T::takes(kind) {
        return Err(Error::WrongKind { got: kind });
    }
    let bytes = frame.len();
    if dense::lies_as_it_is(&header) {
        let mut reader = Reader { kind, segments, target, nonzeros: 0 };
        let read = DenseRuns::new(kind, segments, sealed, bytes).and_then(|runs| reader.read_dense(runs));
        let read = read.and_then(|()| reader.expect_nonzeros(&header));
        // What is wrong with values that were damaged on the way is that.
        return if read.is_err() { sealed.checked().and(read) } else { read };
    }
    let body = sealed.checked()?;
    if let FrameKind::Whole(scheme) = kind {
        return read_whole((scheme, whole), &header, body, bytes, segments, target);
    }
    let mut reader = Reader { kind, segments, target, nonzeros: 0 };
    let description = Frame { kind, nonzeros: header.nonzeros, segments };
    let mut plain = values::Plain(kind);
    match header.layout {
        // As they are they were read above.
        Layout::Dense => {
            let mut stream = RangeReader::new(body);
            reader.read_coded_levels(&mut stream, part)?;
            stream.finish(bytes)?;
        }
        Layout::Raw => {
            let mut stream = BitReader::new(body);
            description.code(&mut stream, &mut Plain, &mut plain, &mut reader, part)?;
            stream.finish(bytes)?;
        }
        Layout::Rice => {
            let mut stream = BitReader::new(body);
            description.code(&mut stream, &mut Rice, &mut plain, &mut reader, part)?;
            stream.finish(bytes)?;
        }
        Layout::Enumerative => {
            let mut stream = RangeReader::new(body);
            read_ranged(&description, header.values_coded, &mut stream, &mut Enumerative::new(), &mut reader, part)?;
            stream.finish(bytes)?;
        }
        Layout::Adaptive if header.version == 2 => {
            let mut stream = RangeReader::new(body);
            read_ranged(&description, header.values_coded, &mut stream, &mut Adaptive::ranged(), &mut reader, part)?;
            stream.finish(bytes)?;
        }
        Layout::Adaptive => {
            let mut stream = PairedReader::new(body);
            adaptive.begin();
            read_ranged(&description, header.values_coded, &mut stream, adaptive, &mut reader, part)?;
            stream.finish(bytes)?;
        }
    }
    reader.expect_nonzeros(&header)
}

fn read_whole<T: Target>(
    (scheme, reader): (Scheme, &mut whole::Reader),
    header: &FrameHeader,
    body: &[u8],
    frame_bytes: usize,
    segments: &Segments,
    mut target: T,
) -> Result<usize, Error> {
    if header.nonzeros != header.coordinates {
        return Err(Error::WrongNonzeros { expected: header.nonzeros.into(), got: header.coordinates.into() });
    }
    reader.read(scheme, body, frame_bytes, segments, &mut |start, values: &[f32]| target.floats(start, values))?;
    Ok(segments.len())
}

fn read_ranged<S: RangeStream, P: Positions<S>>(
    frame: &Frame<'_>,
    values_coded: bool,
    stream: &mut S,
    positions: &mut P,
    reader: &mut impl Parts,
    part: &mut Part,
) -> Result<(), Error> {
    match frame.kind {
        FrameKind::Integers => frame.code(stream, positions, &mut values::Integers, reader, part),
        FrameKind::Codebook { bits } => frame.code(stream, positions, &mut codebook::Coded { bits }, reader, part),
        _ if values_coded => frame.code(stream, positions, &mut values::Levels, reader, part),
        kind => frame.code(stream, positions, &mut values::Plain(kind), reader, part),
    }
}

struct Reader<'a, T> {
    kind: FrameKind,
    segments: &'a Segments,
    target: T,
    nonzeros: u64,
}

impl<T: Target> Reader<'_, T> {
    /// As many as the header says.
    fn expect_nonzeros(&self, header: &FrameHeader) -> Result<usize, Error> {
        if self.nonzeros != u64::from(header.nonzeros) {
            return Err(Error::WrongNonzeros { expected: header.nonzeros.into(), got: self.nonzeros });
        }
        Ok(header.nonzeros as usize)
    }

    /// Takes the values of a range of the flat vector, of which some may be zero; at most [`RUN`] of them.
    fn run(&mut self, start: usize, codes: impl ExactSizeIterator<Item = u32>, scale: f32) -> Result<(), Error> {
        self.nonzeros += self.target.run(self.kind, start, codes, scale)?;
        Ok(())
    }

    fn read_coded_levels<S: RangeStream>(&mut self, stream: &mut S, part: &mut Part) -> Result<(), Error> {
        for i in 0..self.segments.count() {
            let range = self.segments.range(i);
            let scale = scale_of(self.kind, i, stream.bits(0, 16) as u16)?;
            part.codes.clear();
            values::Levels.values(stream, range.len(), &mut part.codes);
            for (start, codes) in range.step_by(RUN).zip(part.codes.chunks(RUN)) {
                self.run(start, codes.iter().copied(), scale)?;
            }
        }
        Ok(())
    }

    fn read_dense(&mut self, mut runs: DenseRuns<'_>) -> Result<(), Error> {
        while let Some(run) = runs.next()? {
            self.read_run(run)?;
        }
        runs.finish()
    }

    fn read_run(&mut self, Run { start, bytes, scale }: Run<'_>) -> Result<(), Error> {
        match width_of(self.kind) {
            8 => self.run(start, bytes.iter().map(|&b| b.into()), scale),
            16 => self.run(start, bytes.as_chunks().0.iter().map(|&b| u16::from_le_bytes(b).into()), scale),
            _ => {
                self.nonzeros += self.target.words(self.kind, start, bytes.as_chunks().0)?;
                Ok(())
            }
        }
    }
}

impl<T: Target> Parts for Reader<'_, T> {
    fn load(&mut self, _: usize, _: &mut Part) {}

    fn store(&mut self, segment: usize, part: &Part) -> Result<(), Error> {
        let start = self.segments.range(segment).start;
        let scale = scale_of(self.kind, segment, part.scale)?;
        for (positions, codes) in part.positions.chunks(RUN).zip(part.codes.chunks(RUN)) {
            self.target.sparse(self.kind, (start, positions), codes, scale)?;
        }
        self.nonzeros += part.positions.len() as u64;
        Ok(())
    }
}

fn scale_of(kind: FrameKind, segment: usize, bits: u16) -> Result<f32, Error> {
    let scale = f16::from_bits(bits);
    if !is_scaled(kind) || (scale.is_finite() && scale > f16::ZERO) {
        return Ok(scale.to_f32());
    }
    Err(Error::BadScale { segment })
}

/// Turns codes into what a sink takes.
trait Target {
    fn takes(kind: FrameKind) -> bool;

    /// The values from `start` on, of a vector that was taken as a whole.
    fn floats(&mut self, start: usize, values: &[f32]) -> Result<(), Error>;

    /// At most [`RUN`] values that must not be zero, at positions counted from a start.
    fn sparse(&mut self, kind: FrameKind, positions: (usize, &[u32]), codes: &[u32], scale: f32) -> Result<(), Error>;

    /// At most [`RUN`] values of four bytes, as they lie in a frame, from `start` on; returns how many are not zero.
    fn words(&mut self, kind: FrameKind, start: usize, words: &[[u8; 4]]) -> Result<u64, Error> {
        self.run(kind, start, words.iter().map(|&word| u32::from_le_bytes(word)), 0.0)
    }

    /// At most [`RUN`] values from `start` on; returns how many are not zero.
    fn run(
        &mut self,
        kind: FrameKind,
        start: usize,
        codes: impl ExactSizeIterator<Item = u32>,
        scale: f32,
    ) -> Result<u64, Error>;
}

fn is_of_floats(kind: FrameKind) -> bool {
    kind != FrameKind::Integers && kind.has_values()
}

struct ToFloats<'a, S>(&'a mut S);

impl<S: Sink> Target for ToFloats<'_, S> {
    fn takes(kind: FrameKind) -> bool {
        is_of_floats(kind)
    }

    fn floats(&mut self, start: usize, values: &[f32]) -> Result<(), Error> {
        check_finite(start, values)?;
        self.0.add_dense(start, values);
        Ok(())
    }

    fn sparse(
        &mut self,
        kind: FrameKind,
        (start, positions): (usize, &[u32]),
        codes: &[u32],
        scale: f32,
    ) -> Result<(), Error> {
        let mut buffer = [0.0; RUN];
        let values = &mut buffer[..codes.len()];
        decode_values(kind, codes.iter().copied(), scale, values);
        let is_good = |value: f32| value.is_finite() & (value != 0.0);
        if !values.iter().fold(true, |good, &value| good & is_good(value)) {
            for (&position, &value) in positions.iter().zip(&*values) {
                let index = start + position as usize;
                if !value.is_finite() {
                    return Err(Error::NotFinite { index, nan: value.is_nan() });
                }
                if value == 0.0 {
                    return Err(Error::BadValue { index });
                }
            }
        }
        self.0.add_sparse(start, positions, values);
        Ok(())
    }

    fn words(&mut self, _: FrameKind, start: usize, words: &[[u8; 4]]) -> Result<u64, Error> {
        if let Some(nonzeros) = self.0.add_floats(start, words) {
            return Ok(nonzeros.into());
        }
        let values: Vec<f32> = words.iter().map(|&word| f32::from_le_bytes(word)).collect();
        Err(not_finite(start, &values))
    }

    fn run(
        &mut self,
        kind: FrameKind,
        start: usize,
        codes: impl ExactSizeIterator<Item = u32>,
        scale: f32,
    ) -> Result<u64, Error> {
        let mut buffer = [0.0; RUN];
        let values = &mut buffer[..codes.len()];
        let nonzeros = if kind == FrameKind::F16 {
            // Slices of these are converted with the processor's own instructions, and single ones with a call each.
            let mut halves = [f16::ZERO; RUN];
            let halves = &mut halves[..codes.len()];
            halves.iter_mut().zip(codes).for_each(|(half, code)| *half = f16::from_bits(code as u16));
            halves.convert_to_f32_slice(values);
            vectorised(
                #[inline(always)]
                || nonzeros_if_finite(values),
            )
        } else {
            vectorised(
                #[inline(always)]
                || {
                    decode_values(kind, codes, scale, values);
                    nonzeros_if_finite(values)
                },
            )
        };
        let nonzeros = nonzeros.ok_or_else(|| not_finite(start, values))?;
        self.0.add_dense(start, values);
        Ok(nonzeros.into())
    }
}

/// How many are not zero; nothing when one is not finite.
#[inline(always)]
fn nonzeros_if_finite(values: &[f32]) -> Option<u32> {
    let (mut nonzeros, mut finite) = (0, true);
    for value in values {
        nonzeros += u32::from(*value != 0.0);
        finite &= value.is_finite();
    }
    finite.then_some(nonzeros)
}

/// Kinds are told apart here and not for each value, and the loops never leave early: then they vectorise.
#[inline(always)]
fn decode_values(kind: FrameKind, codes: impl Iterator<Item = u32>, scale: f32, values: &mut [f32]) {
    let pairs = values.iter_mut().zip(codes);
    match kind {
        FrameKind::F32 => pairs.for_each(|(value, code)| *value = f32::from_bits(code)),
        FrameKind::Ternary => pairs.for_each(|(value, code)| *value = value_of(FrameKind::Ternary, code, scale)),
        kind => pairs.for_each(|(value, code)| *value = value_of(kind, code, scale)),
    }
}

struct ToIntegers<'a, S>(&'a mut S);

impl<S: IntegerSink> Target for ToIntegers<'_, S> {
    fn takes(kind: FrameKind) -> bool {
        kind == FrameKind::Integers
    }

    fn floats(&mut self, start: usize, _: &[f32]) -> Result<(), Error> {
        Err(Error::BadValue { index: start })
    }

    fn sparse(
        &mut self,
        _: FrameKind,
        (start, positions): (usize, &[u32]),
        codes: &[u32],
        _: f32,
    ) -> Result<(), Error> {
        for (&position, &code) in positions.iter().zip(codes) {
            let index = start + position as usize;
            if code == 0 {
                return Err(Error::BadValue { index });
            }
            self.0.add(index, code as i32);
        }
        Ok(())
    }

    fn run(
        &mut self,
        _: FrameKind,
        start: usize,
        codes: impl ExactSizeIterator<Item = u32>,
        _: f32,
    ) -> Result<u64, Error> {
        let mut buffer = [0; RUN];
        let values = &mut buffer[..codes.len()];
        values.iter_mut().zip(codes).for_each(|(value, code)| *value = code as i32);
        self.0.add_dense(start, values);
        Ok(values.iter().map(|&value| u32::from(value != 0)).sum::<u32>().into())
    }
}

struct ToPositions<'a>(&'a mut Vec<u32>);

impl Target for ToPositions<'_> {
    fn takes(kind: FrameKind) -> bool {
        !kind.has_values()
    }

    fn floats(&mut self, start: usize, _: &[f32]) -> Result<(), Error> {
        Err(Error::BadValue { index: start })
    }

    fn sparse(&mut self, _: FrameKind, (start, positions): (usize, &[u32]), _: &[u32], _: f32) -> Result<(), Error> {
        self.0.extend(positions.iter().map(|position| start as u32 + position));
        Ok(())
    }

    fn run(&mut self, _: FrameKind, start: usize, _: impl ExactSizeIterator<Item = u32>, _: f32) -> Result<u64, Error> {
        Err(Error::BadValue { index: start })
    }
}

/// The largest magnitude seen.
struct Seen(f32);

/// The largest magnitude of some numbers; 0 of none.
#[inline(always)]
#[must_use]
pub fn largest_magnitude(values: &[f32]) -> f32 {
    // The bits of magnitudes are in the order of the magnitudes, and integers are compared several at a time.
    let largest = values.iter().fold(0, |most: i32, value| most.max(value.abs().to_bits().cast_signed()));
    f32::from_bits(largest.cast_unsigned())
}

impl Sink for Seen {
    fn add(&mut self, _: usize, value: f32) {
        self.0 = self.0.max(value.abs());
    }

    fn add_dense(&mut self, _: usize, values: &[f32]) {
        self.0 = self.0.max(largest_magnitude(values));
    }
}

impl IntegerSink for Seen {
    fn add(&mut self, _: usize, value: i32) {
        self.0 = self.0.max(value.unsigned_abs() as f32 * crate::grid::UNIT);
    }
}

/// Values handed to a sink at a time.
const RUN: usize = 1024;

//! From a vector to the smallest frame that a codec allows.

mod sent;

use crate::{
    Codec, EntropyCoder, Error, FrameHeader, FrameKind, Layout, Quantizer, Segments, StageBytes,
    bits::{BitWriter, Stream},
    body::{Frame, Part},
    checksum, codebook,
    encode::sent::Sent,
    header,
    paired::PairedWriter,
    positions::{Adaptive, Enumerative, Plain, Positions, Rice},
    range::{RangeStream, RangeWriter},
    select::Selection,
    source::{self, Rest, Source, blocks, check_finite},
    values::{self, Values, is_scaled, width_of},
    whole::Whole,
};

/// Encodes vectors; keeps its buffers from one to the next.
#[derive(Default)]
pub struct Encoder {
    selection: Selection,
    sent: Sent,
    part: Part,
    scales: Scales,
    /// One for each tensor, or none.
    importance: Vec<f32>,
    /// A vector times its tensors' importance.
    weighted: Vec<f32>,
    /// A source read into memory.
    values: Vec<f32>,
    whole: Whole,
    /// Room for a frame of a whole vector.
    whole_bytes: usize,
    adaptive: Adaptive,
    /// Room for a range coder's bytes that end up behind others.
    choices: Vec<u8>,
    /// Of frames that lost a comparison, or were given back.
    spare: Vec<Vec<u8>>,
}

/// Which scales a ternary frame may have.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Scales {
    /// The mean magnitude: the least error.
    #[default]
    Mean,
    /// The power of two nearest to it.
    PowersOfTwo,
}

/// A frame and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// What travels.
    pub frame: Vec<u8>,
    /// Size after each stage.
    pub stages: StageBytes,
    /// Coordinates that decode to something other than zero.
    pub nonzeros: usize,
}

impl Encoder {
    /// Has no buffers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// For frames that are later added up and sent as one: ternary scales are powers of two.
    ///
    /// A scale is then off by a factor of √2 at most, which feedback makes up for. In return the sum of several frames
    /// is made of small multiples of one number, and not of as many sizes as there were frames.
    pub fn for_merging() -> Self {
        Self { scales: Scales::PowersOfTwo, ..Self::default() }
    }

    /// Takes back a frame that nobody needs any more, for its memory: an encoder to which all of them come back asks for
    /// none once it has its buffers, but for the matrices of [`Quantizer::LowRank`].
    pub fn recycle(&mut self, frame: Vec<u8>) {
        if self.spare.len() < SPARE_MOST {
            self.spare.push(frame);
        }
    }

    /// Draws what is random in a quantizer from `seed`, which should be another one for every vector: errors of the same
    /// seed do not cancel. The same seed and vector give the same frame.
    pub fn seed(&mut self, seed: u64) {
        self.whole.seed = seed;
    }

    /// Multiplies magnitudes by these factors, one for each tensor, when coordinates are chosen, and at no other time:
    /// the least important tensors are sent last. With none all count alike.
    pub fn weigh(&mut self, importance: Vec<f32>) {
        self.importance = importance;
    }

    /// Encodes `u` and leaves in it what the frame does not carry: each coordinate minus its decoded value, one f32
    /// subtraction with the scale as it was sent. On error `u` is as it was.
    ///
    /// # Errors
    /// [`Error::BadDensity`], [`Error::WrongLength`], [`Error::NotFinite`], or [`Error::BadImportance`] for factors that
    /// are not one positive number for each tensor.
    pub fn encode_with_feedback(
        &mut self,
        codec: &Codec,
        segments: &Segments,
        u: &mut [f32],
    ) -> Result<Encoded, Error> {
        let encoded = self.encode(codec, segments, u)?;
        if codec.quantizer.is_whole() {
            let header = FrameHeader::parse(&encoded.frame)?;
            let body = &encoded.frame[header.body..encoded.frame.len() - header::TRAILER_BYTES];
            self.whole.subtract_from(codec.quantizer, segments, body, u);
        } else {
            self.sent.subtract_from(u, segments);
        }
        Ok(encoded)
    }

    /// Encodes a vector where it is computed and gives `rest` what the frame does not carry, as
    /// [`Self::encode_with_feedback`] would leave it. Where few of many coordinates are sent, or all of them as they
    /// are, the vector never lies in memory as a whole. On error what `rest` was given has no meaning.
    ///
    /// # Errors
    /// As [`Self::encode_with_feedback`].
    pub fn encode_source<S: Source + ?Sized>(
        &mut self,
        codec: &Codec,
        segments: &Segments,
        u: &S,
        rest: &mut impl Rest,
    ) -> Result<Encoded, Error> {
        self.begin(codec, segments, u.len())?;
        let is_weighed = !self.importance.is_empty();
        if is_sparse(codec) && !is_weighed && self.selection.select_above_sample(u, kept(codec, u.len()), rest)? {
            let encoded = self.encode_selected(codec, segments);
            // What is selected is left but for what is sent of it.
            let Selection { indices, values: left, .. } = &mut self.selection;
            let mut at = 0;
            self.sent.for_each(segments, |index, decoded| {
                while indices[at] as usize != index {
                    at += 1;
                }
                left[at] -= decoded;
                at += 1;
            });
            rest.correct(indices, left);
            return Ok(encoded);
        }
        if codec.quantizer == Quantizer::F32
            && !is_sparse(codec)
            && let Some(encoded) = self.encode_floats(codec.coder, segments, u, rest)?
        {
            return Ok(encoded);
        }
        let mut values = std::mem::take(&mut self.values);
        values.clear();
        blocks(u, |_, block| values.extend_from_slice(block));
        let encoded = self.encode_with_feedback(codec, segments, &mut values);
        rest.take(0, &values);
        self.values = values;
        encoded
    }

    /// Encodes `u`.
    ///
    /// # Errors
    /// As [`Self::encode_with_feedback`].
    pub fn encode(&mut self, codec: &Codec, segments: &Segments, u: &[f32]) -> Result<Encoded, Error> {
        self.begin(codec, segments, u.len())?;
        if codec.quantizer.is_whole() {
            return self.encode_whole(codec, segments, u);
        }
        if is_sparse(codec) {
            self.select(segments, u, kept(codec, u.len()))?;
            return Ok(self.encode_selected(codec, segments));
        }
        self.sent.quantize_all(codec.quantizer, segments, u)?;
        let mut frame = self.smallest_dense(codec.coder, segments);
        if codec.coder == EntropyCoder::Auto && is_dense_in_name_only(self.sent.nonzeros, segments) {
            self.selection.select(u, segments.len())?;
            self.quantize_selected(codec, segments);
            let other = self.smallest_sparse(codec, segments);
            frame = self.shorter(frame, other);
        }
        Ok(self.encoded(frame, false, segments))
    }

    fn begin(&mut self, codec: &Codec, segments: &Segments, len: usize) -> Result<(), Error> {
        codec.validate()?;
        check_length(segments, len)?;
        let is_factor = |factor: &f32| factor.is_finite() && *factor > 0.0;
        let fits = self.importance.is_empty() || self.importance.len() == segments.count();
        if !fits || !self.importance.iter().all(is_factor) {
            return Err(Error::BadImportance { expected: segments.count(), got: self.importance.len() });
        }
        self.sent.kind = codec.quantizer.kind();
        Ok(())
    }

    fn select(&mut self, segments: &Segments, u: &[f32], k: usize) -> Result<(), Error> {
        if self.importance.is_empty() {
            return self.selection.select(u, k);
        }
        check_finite(0, u)?;
        self.weighted.clear();
        for (i, &factor) in self.importance.iter().enumerate() {
            let weighted = u[segments.range(i)].iter().map(|value| (value * factor).clamp(-f32::MAX, f32::MAX));
            self.weighted.extend(weighted);
        }
        self.selection.select(&self.weighted, k)?;
        let Selection { indices, values, .. } = &mut self.selection;
        values.clear();
        values.extend(indices.iter().map(|&index| u[index as usize]));
        Ok(())
    }

    fn encode_whole(&mut self, codec: &Codec, segments: &Segments, u: &[f32]) -> Result<Encoded, Error> {
        self.sent.nonzeros = u.len();
        let mut frame = self.room(self.whole_bytes);
        self.header(Layout::Dense, false, segments).write(&mut frame);
        self.whole.write(codec, segments, u, &mut frame)?;
        // The next one is about as long, and somewhat longer where its rate is searched for.
        self.whole_bytes = frame.len() + frame.len() / 8;
        header::seal(&mut frame);
        let stages = FrameHeader::parse(&frame)?.stages(segments, &frame);
        Ok(Encoded { frame, stages, nonzeros: u.len() })
    }

    fn encode_selected(&mut self, codec: &Codec, segments: &Segments) -> Encoded {
        self.quantize_selected(codec, segments);
        let frame = self.smallest_sparse(codec, segments);
        self.encoded(frame, codec.density < 1.0, segments)
    }

    fn quantize_selected(&mut self, codec: &Codec, segments: &Segments) {
        let selected = (self.selection.indices.as_slice(), self.selection.values.as_slice());
        self.sent.quantize((codec.quantizer, self.scales), segments, selected);
    }

    /// Every float as it is; nothing when the coder may find something shorter.
    fn encode_floats<S: Source + ?Sized>(
        &mut self,
        coder: EntropyCoder,
        segments: &Segments,
        u: &S,
        rest: &mut impl Rest,
    ) -> Result<Option<Encoded>, Error> {
        let (mut nonzeros, mut finite, mut checksum) = (0, Ok(()), 0);
        self.sent.nonzeros = u.len();
        let mut frame = self.start(Layout::Dense, false, segments);
        let header_bytes = frame.len();
        let mut checked = header_bytes;
        blocks(
            u,
            #[inline(always)]
            |start, values| {
                if finite.is_ok() {
                    finite = check_finite(start, values);
                }
                nonzeros += values.iter().map(|&value| u32::from(value != 0.0)).sum::<u32>() as usize;
                extend_plainly(&mut frame, values, |value| value.to_le_bytes());
                if frame.len() >= checked + CHECKED_TOGETHER {
                    checksum = checksum::append(checksum, &frame[checked..]);
                    checked = frame.len();
                }
                rest.take(start, &ZEROS[..values.len()]);
            },
        );
        finite?;
        checksum = checksum::append(checksum, &frame[checked..]);
        if coder == EntropyCoder::Auto && is_dense_in_name_only(nonzeros, segments) {
            self.recycle(frame);
            return Ok(None);
        }
        self.sent.nonzeros = nonzeros;
        let mut header = self.room(64);
        self.header(Layout::Dense, false, segments).write(&mut header);
        let body = header.len();
        frame.splice(..header_bytes, header.drain(..));
        self.recycle(header);
        header::seal_body(&mut frame, body, checksum);
        let dense = 4 * u.len() as u64;
        let stages = StageBytes { dense, sparse: dense, quantized: dense, coded: frame.len() as u64 };
        Ok(Some(Encoded { frame, stages, nonzeros }))
    }

    /// Encodes integers exactly: merged deltas and snapshots of the grid.
    ///
    /// # Errors
    /// [`Error::WrongLength`].
    pub fn encode_integers(&mut self, segments: &Segments, values: &[i32]) -> Result<Encoded, Error> {
        check_length(segments, values.len())?;
        self.sent.take_integers(segments, values);
        let nonzeros = self.sent.nonzeros;
        let dense = 4 * segments.len() as u64;
        let mut frame = self.write_sparse(Layout::Adaptive, false, segments);
        // Ranks of positions pay only where there are many more coordinates than non-zeros.
        if nonzeros < segments.len() / 2 && self.gaps_are_few() {
            let ranks = self.write_sparse(Layout::Enumerative, false, segments);
            frame = self.shorter(frame, ranks);
        }
        if frame.len() as u64 > dense {
            let plain = self.write_plain_integers(segments, values);
            frame = self.shorter(frame, plain);
        }
        let sparse = dense.min(8 * nonzeros as u64);
        let stages = StageBytes { dense, sparse, quantized: sparse, coded: frame.len() as u64 };
        Ok(Encoded { frame, stages, nonzeros })
    }

    /// Encodes integers exactly and as they are, four bytes each: for links where time is the budget.
    ///
    /// # Errors
    /// [`Error::WrongLength`].
    pub fn encode_integers_plainly(&mut self, segments: &Segments, values: &[i32]) -> Result<Encoded, Error> {
        check_length(segments, values.len())?;
        self.sent.kind = FrameKind::Integers;
        self.sent.nonzeros = values.iter().filter(|&&value| value != 0).count();
        let frame = self.write_plain_integers(segments, values);
        let dense = 4 * segments.len() as u64;
        let stages = StageBytes { dense, sparse: dense, quantized: dense, coded: frame.len() as u64 };
        Ok(Encoded { frame, stages, nonzeros: self.sent.nonzeros })
    }

    /// Encodes rising positions without values, as a frame that changes a mask.
    pub(crate) fn encode_positions(&mut self, kind: FrameKind, segments: &Segments, positions: &[u32]) -> Vec<u8> {
        self.sent.kind = kind;
        self.sent.take_positions(segments, positions);
        self.smallest_of_all(segments)
    }

    fn write_plain_integers(&mut self, segments: &Segments, values: &[i32]) -> Vec<u8> {
        let mut plain = self.start(Layout::Dense, false, segments);
        extend_plainly(&mut plain, values, |value| value.to_le_bytes());
        header::seal(&mut plain);
        plain
    }

    fn encoded(&self, frame: Vec<u8>, is_sparse: bool, segments: &Segments) -> Encoded {
        let stages = StageBytes { coded: frame.len() as u64, ..self.sent.stages(is_sparse, segments) };
        Encoded { frame, stages, nonzeros: self.sent.nonzeros }
    }

    fn smallest_sparse(&mut self, codec: &Codec, segments: &Segments) -> Vec<u8> {
        match codec.coder {
            EntropyCoder::Auto => self.smallest_of_all(segments),
            EntropyCoder::Raw => self.write_sparse(Layout::Raw, false, segments),
            EntropyCoder::Rice => self.write_sparse(Layout::Rice, false, segments),
            EntropyCoder::Enumerative => self.smallest_ranged(Layout::Enumerative, segments),
            EntropyCoder::Adaptive => self.smallest_ranged(Layout::Adaptive, segments),
        }
    }

    /// The shortest of the frames that could be.
    fn smallest_of_all(&mut self, segments: &Segments) -> Vec<u8> {
        let mut best = self.smallest_ranged(Layout::Adaptive, segments);
        // Ranks of positions cost what independent ones do, less what their counts in blocks tell: so not where positions
        // were found to depend on one another.
        if self.gaps_are_few() && best.len() as u64 > self.sent.independent_bits(segments) / 8 * 15 / 16 {
            let ranks = self.smallest_ranged(Layout::Enumerative, segments);
            best = self.shorter(best, ranks);
        }
        // Whole bits a gap are as short only where a range coder's beginning and end weigh.
        if self.sent.nonzeros < RICE_BELOW {
            let rice = self.write_sparse(Layout::Rice, false, segments);
            best = self.shorter(best, rice);
        }
        // Only a handful of coordinates, or a tensor full of them, can be shorter without any coding.
        if self.sent.raw_bytes_at_least(segments) < best.len() {
            let raw = self.write_sparse(Layout::Raw, false, segments);
            best = self.shorter(best, raw);
        }
        best
    }

    /// Where gaps are many they are as short as ranks to a few parts in a thousand, and read several times as quickly.
    fn gaps_are_few(&self) -> bool {
        self.sent.nonzeros < RANKED_BELOW || 8 * self.sent.among_few() > self.sent.nonzeros
    }

    /// A frame by a range coder, and where values are levels, coded or not.
    fn smallest_ranged(&mut self, layout: Layout, segments: &Segments) -> Vec<u8> {
        let frame = self.write_sparse(layout, false, segments);
        match self.sent.kind {
            FrameKind::Int8 => {
                let coded = self.write_sparse(layout, true, segments);
                self.shorter(frame, coded)
            }
            _ => frame,
        }
    }

    fn write_sparse(&mut self, layout: Layout, values_coded: bool, segments: &Segments) -> Vec<u8> {
        let mut out = self.start(layout, values_coded, segments);
        let kind = self.sent.kind;
        let frame = Frame { kind, nonzeros: self.sent.nonzeros as u32, segments };
        let (sent, part) = (&mut self.sent, &mut self.part);
        let mut plain = values::Plain(kind);
        match layout {
            Layout::Dense => unreachable!("a dense frame has no positions"),
            Layout::Raw | Layout::Rice => {
                let mut stream = BitWriter::new(&mut out);
                let written = if layout == Layout::Raw {
                    frame.code(&mut stream, &mut Plain, &mut plain, sent, part)
                } else {
                    frame.code(&mut stream, &mut Rice, &mut plain, sent, part)
                };
                written.expect("what is sent is in order");
                stream.finish();
            }
            Layout::Enumerative => {
                let mut stream = RangeWriter::new(&mut out);
                write_ranged(&frame, values_coded, &mut stream, &mut Enumerative::new(), sent, part);
                stream.finish();
            }
            Layout::Adaptive => {
                let mut stream = PairedWriter::new(&mut out, &mut self.choices);
                self.adaptive.begin();
                write_ranged(&frame, values_coded, &mut stream, &mut self.adaptive, sent, part);
                stream.finish();
            }
        }
        header::seal(&mut out);
        out
    }

    fn smallest_dense(&mut self, coder: EntropyCoder, segments: &Segments) -> Vec<u8> {
        let plain = self.write_dense(segments);
        let may_code = matches!(coder, EntropyCoder::Auto | EntropyCoder::Adaptive);
        if may_code && self.sent.kind == FrameKind::Int8 {
            let coded = self.write_coded_levels(segments);
            return self.shorter(coded, plain);
        }
        plain
    }

    fn write_dense(&mut self, segments: &Segments) -> Vec<u8> {
        let mut out = self.start(Layout::Dense, false, segments);
        for span in &self.sent.spans {
            let codes = &self.sent.codes[span.codes.clone()];
            if is_scaled(self.sent.kind) {
                out.extend(span.scale.to_le_bytes());
            }
            match width_of(self.sent.kind) {
                8 => out.extend(codes.iter().map(|&code| code as u8)),
                16 => out.extend(codes.iter().flat_map(|&code| (code as u16).to_le_bytes())),
                _ => extend_plainly(&mut out, codes, |code| code.to_le_bytes()),
            }
        }
        header::seal(&mut out);
        out
    }

    fn write_coded_levels(&mut self, segments: &Segments) -> Vec<u8> {
        let mut out = self.start(Layout::Dense, true, segments);
        let mut stream = RangeWriter::new(&mut out);
        for span in &self.sent.spans {
            stream.bits(span.scale.into(), 16);
            self.part.codes.clear();
            self.part.codes.extend_from_slice(&self.sent.codes[span.codes.clone()]);
            values::Levels.values(&mut stream, span.codes.len(), &mut self.part.codes);
        }
        stream.finish();
        header::seal(&mut out);
        out
    }

    fn start(&mut self, layout: Layout, values_coded: bool, segments: &Segments) -> Vec<u8> {
        let expected = if layout == Layout::Dense { 4 * segments.len() } else { 2 * self.sent.nonzeros };
        let mut out = self.room(expected + 64);
        self.header(layout, values_coded, segments).write(&mut out);
        out
    }

    /// An empty frame: a spare one, if there is any.
    fn room(&mut self, expected: usize) -> Vec<u8> {
        let mut frame = self.spare.pop().unwrap_or_default();
        frame.clear();
        frame.reserve(expected);
        frame
    }

    /// The first one unless the other is shorter.
    fn shorter(&mut self, first: Vec<u8>, other: Vec<u8>) -> Vec<u8> {
        let (shorter, longer) = if other.len() < first.len() { (other, first) } else { (first, other) };
        self.recycle(longer);
        shorter
    }

    fn header(&self, layout: Layout, values_coded: bool, segments: &Segments) -> FrameHeader {
        FrameHeader {
            kind: self.sent.kind,
            layout,
            coordinates: segments.len() as u32,
            nonzeros: self.sent.nonzeros as u32,
            version: header::VERSION,
            values_coded,
            body: 0,
        }
    }
}

fn write_ranged<S: RangeStream, P: Positions<S>>(
    frame: &Frame<'_>,
    values_coded: bool,
    stream: &mut S,
    positions: &mut P,
    sent: &mut Sent,
    part: &mut Part,
) {
    let written = match frame.kind {
        FrameKind::Integers => frame.code(stream, positions, &mut values::Integers, sent, part),
        FrameKind::Codebook { bits } => frame.code(stream, positions, &mut codebook::Coded { bits }, sent, part),
        _ if values_coded => frame.code(stream, positions, &mut values::Levels, sent, part),
        kind => frame.code(stream, positions, &mut values::Plain(kind), sent, part),
    };
    written.expect("what is sent is in order");
}

/// Appends the values in little-endian order.
fn extend_plainly<T: bytemuck::NoUninit>(out: &mut Vec<u8>, values: &[T], to_bytes: impl Fn(T) -> [u8; 4]) {
    if cfg!(target_endian = "little") {
        out.extend_from_slice(bytemuck::cast_slice(values));
    } else {
        out.extend(values.iter().flat_map(|&value| to_bytes(value)));
    }
}

/// Frames that are there at a time at most: the shortest one so far, the next one, its header.
const SPARE_MOST: usize = 4;

/// From so many non-zeros on gaps are as good as ranks.
const RANKED_BELOW: usize = 8192;
/// From so many non-zeros on a range coder is always the shorter one.
const RICE_BELOW: usize = 4096;

/// Bytes whose checksum is taken while they are in the first-level cache.
const CHECKED_TOGETHER: usize = 8192;

/// What a vector leaves of a block when it is sent as it is.
static ZEROS: [f32; source::AT_ONCE] = [0.0; source::AT_ONCE];

/// Whether coordinates are chosen.
fn is_sparse(codec: &Codec) -> bool {
    codec.density < 1.0 || matches!(codec.quantizer, Quantizer::Ternary | Quantizer::Codebook { .. })
}

/// How many coordinates of `n` are chosen.
fn kept(codec: &Codec, n: usize) -> usize {
    ((codec.density * n as f64).round() as usize).clamp(1, n)
}

/// Whether so many coordinates are zero, as in a pruned model, that the others with their positions may be shorter.
fn is_dense_in_name_only(nonzeros: usize, segments: &Segments) -> bool {
    nonzeros < segments.len() - segments.len() / 16
}

pub(crate) fn check_length(segments: &Segments, got: usize) -> Result<(), Error> {
    let expected = segments.len();
    if expected == got { Ok(()) } else { Err(Error::WrongLength { expected, got }) }
}

//! From a vector to the smallest frame that a codec allows.

mod sent;

use crate::{
    Codec, EntropyCoder, Error, FrameHeader, FrameKind, Layout, Quantizer, Segments, StageBytes,
    bits::{BitWriter, Stream},
    body::{Frame, Part},
    encode::sent::Sent,
    header,
    positions::{Adaptive, Enumerative, Plain, Positions, Rice},
    range::RangeWriter,
    select::Selection,
    values::{self, Values, is_scaled, width_of},
};

/// Encodes vectors; keeps its buffers from one to the next.
#[derive(Default)]
pub struct Encoder {
    selection: Selection,
    sent: Sent,
    part: Part,
    scales: Scales,
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

    /// Encodes `u` and leaves in it what the frame does not carry: each coordinate minus its decoded value, one f32
    /// subtraction with the scale as it was sent. On error `u` is as it was.
    ///
    /// # Errors
    /// [`Error::BadDensity`], [`Error::WrongLength`] or [`Error::NotFinite`].
    pub fn encode_with_feedback(
        &mut self,
        codec: &Codec,
        segments: &Segments,
        u: &mut [f32],
    ) -> Result<Encoded, Error> {
        let encoded = self.encode(codec, segments, u)?;
        self.sent.subtract_from(u, segments);
        Ok(encoded)
    }

    /// Encodes `u`.
    ///
    /// # Errors
    /// As [`Self::encode_with_feedback`].
    pub fn encode(&mut self, codec: &Codec, segments: &Segments, u: &[f32]) -> Result<Encoded, Error> {
        codec.validate()?;
        check_length(segments, u.len())?;
        self.sent.kind = match codec.quantizer {
            Quantizer::F32 => FrameKind::F32,
            Quantizer::F16 => FrameKind::F16,
            Quantizer::Int8 => FrameKind::Int8,
            Quantizer::Ternary => FrameKind::Ternary,
        };
        if codec.density < 1.0 || codec.quantizer == Quantizer::Ternary {
            self.choose(codec, segments, u)?;
            let frame = self.smallest_sparse(codec, segments);
            return Ok(self.encoded(frame, codec.density < 1.0, segments));
        }
        self.sent.quantize_all(codec.quantizer, segments, u)?;
        let mut frame = self.smallest_dense(codec.coder, segments);
        // A pruned model is dense in name only.
        if codec.coder == EntropyCoder::Auto && self.sent.nonzeros < segments.len() - segments.len() / 16 {
            self.choose(codec, segments, u)?;
            frame = shorter(frame, self.smallest_sparse(codec, segments));
        }
        Ok(self.encoded(frame, false, segments))
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
        if nonzeros < segments.len() / 2 {
            frame = shorter(frame, self.write_sparse(Layout::Enumerative, false, segments));
        }
        if frame.len() as u64 > dense {
            frame = shorter(frame, self.write_plain_integers(segments, values));
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

    fn write_plain_integers(&self, segments: &Segments, values: &[i32]) -> Vec<u8> {
        let mut plain = self.start(Layout::Dense, false, segments);
        extend_plainly(&mut plain, values, |value| value.to_le_bytes());
        header::seal(&mut plain);
        plain
    }

    /// Selects and rounds what is sent of the coordinates.
    fn choose(&mut self, codec: &Codec, segments: &Segments, u: &[f32]) -> Result<(), Error> {
        let n = segments.len();
        let k = ((codec.density * n as f64).round() as usize).clamp(1, n);
        self.selection.select(u, k)?;
        self.sent.quantize((codec.quantizer, self.scales), segments, u, &self.selection.indices);
        Ok(())
    }

    fn encoded(&self, frame: Vec<u8>, is_sparse: bool, segments: &Segments) -> Encoded {
        let stages = StageBytes { coded: frame.len() as u64, ..self.sent.stages(is_sparse, segments) };
        Encoded { frame, stages, nonzeros: self.sent.nonzeros }
    }

    fn smallest_sparse(&mut self, codec: &Codec, segments: &Segments) -> Vec<u8> {
        let layouts: &[Layout] = match codec.coder {
            EntropyCoder::Auto => &[Layout::Adaptive, Layout::Enumerative, Layout::Rice],
            EntropyCoder::Raw => &[Layout::Raw],
            EntropyCoder::Rice => &[Layout::Rice],
            EntropyCoder::Enumerative => &[Layout::Enumerative],
            EntropyCoder::Adaptive => &[Layout::Adaptive],
        };
        let mut best = self.write_sparse(layouts[0], false, segments);
        for &layout in layouts {
            if layout != layouts[0] {
                best = shorter(best, self.write_sparse(layout, false, segments));
            }
            let ranged = matches!(layout, Layout::Adaptive | Layout::Enumerative);
            if ranged && self.sent.kind == FrameKind::Int8 {
                best = shorter(best, self.write_sparse(layout, true, segments));
            }
        }
        // Only a handful of coordinates, or a tensor full of them, can be shorter without any coding.
        if codec.coder == EntropyCoder::Auto && self.sent.raw_bytes_at_least(segments) < best.len() {
            return shorter(best, self.write_sparse(Layout::Raw, false, segments));
        }
        best
    }

    fn write_sparse(&mut self, layout: Layout, values_coded: bool, segments: &Segments) -> Vec<u8> {
        let mut out = self.start(layout, values_coded, segments);
        let kind = self.sent.kind;
        let frame = Frame { kind, nonzeros: self.sent.nonzeros as u32, segments };
        let (sent, part) = (&mut self.sent, &mut self.part);
        let mut plain = values::Plain { width: width_of(kind) };
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
            Layout::Enumerative => write_ranged(&frame, values_coded, &mut out, &mut Enumerative::new(), sent, part),
            Layout::Adaptive => write_ranged(&frame, values_coded, &mut out, &mut Adaptive::new(), sent, part),
        }
        header::seal(&mut out);
        out
    }

    fn smallest_dense(&mut self, coder: EntropyCoder, segments: &Segments) -> Vec<u8> {
        let plain = self.write_dense(segments);
        let may_code = matches!(coder, EntropyCoder::Auto | EntropyCoder::Adaptive);
        if may_code && self.sent.kind == FrameKind::Int8 {
            return shorter(self.write_coded_levels(segments), plain);
        }
        plain
    }

    fn write_dense(&self, segments: &Segments) -> Vec<u8> {
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

    fn start(&self, layout: Layout, values_coded: bool, segments: &Segments) -> Vec<u8> {
        let expected = if layout == Layout::Dense { 4 * segments.len() } else { 2 * self.sent.nonzeros };
        let mut out = Vec::with_capacity(expected + 64);
        let header = FrameHeader {
            kind: self.sent.kind,
            layout,
            coordinates: segments.len() as u32,
            nonzeros: self.sent.nonzeros as u32,
            values_coded,
            body: 0,
        };
        header.write(&mut out);
        out
    }
}

fn write_ranged<'a, P: Positions<RangeWriter<'a>>>(
    frame: &Frame<'_>,
    values_coded: bool,
    out: &'a mut Vec<u8>,
    positions: &mut P,
    sent: &mut Sent,
    part: &mut Part,
) {
    let mut stream = RangeWriter::new(out);
    let written = if frame.kind == FrameKind::Integers {
        frame.code(&mut stream, positions, &mut values::Integers, sent, part)
    } else if values_coded {
        frame.code(&mut stream, positions, &mut values::Levels, sent, part)
    } else {
        frame.code(&mut stream, positions, &mut values::Plain { width: width_of(frame.kind) }, sent, part)
    };
    written.expect("what is sent is in order");
    stream.finish();
}

fn shorter(a: Vec<u8>, b: Vec<u8>) -> Vec<u8> {
    if b.len() < a.len() { b } else { a }
}

/// Appends four bytes for each value, at memory speed: `extend` of an iterator over bytes goes byte by byte.
fn extend_plainly<T: Copy>(out: &mut Vec<u8>, values: &[T], to_bytes: impl Fn(T) -> [u8; 4]) {
    for values in values.chunks(PLAIN_CHUNK) {
        let start = out.len();
        out.resize(start + 4 * values.len(), 0);
        for (bytes, &value) in out[start..].as_chunks_mut().0.iter_mut().zip(values) {
            *bytes = to_bytes(value);
        }
    }
}

/// Values written at a time, so that their room is in the cache when they are.
const PLAIN_CHUNK: usize = 4096;

fn check_length(segments: &Segments, got: usize) -> Result<(), Error> {
    let expected = segments.len();
    if expected == got { Ok(()) } else { Err(Error::WrongLength { expected, got }) }
}

//! The first bytes of a frame, its checksum, and the limits checked before anything else.
//!
//! ```text
//! 0xD7  version  kind  varint coordinates  varint nonzeros  body …  crc32c (4 bytes, little endian)
//! kind: bits 0–2 content, bits 3–5 layout or scheme, bit 6 values range-coded, by codebook or announced, bit 7 zero
//! A frame of values by codebook has their bits in one more byte before its body.
//! ```

use crate::{
    Error, Quantizer, Segments, StageBytes, checksum,
    values::{is_scaled, width_of},
    whole,
};

/// What a frame says about itself before its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the values are.
    pub kind: FrameKind,
    /// How they are laid out.
    pub layout: Layout,
    /// Length of the flat vector.
    pub coordinates: u32,
    /// How many of them decode to something other than zero; all, without looking, where the vector was taken as a whole.
    pub nonzeros: u32,
    /// What wrote it.
    pub(crate) version: u8,
    /// Whether values (8-bit ones) go through the range coder.
    pub(crate) values_coded: bool,
    /// Where the body starts.
    pub(crate) body: usize,
}

/// What the values of a frame are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 8-bit levels with a scale per tensor.
    Int8,
    /// Signs with a scale per tensor.
    Ternary,
    /// Signs and magnitudes of a codebook per tensor.
    Codebook {
        /// A sign and the place of a magnitude.
        bits: u8,
    },
    /// Exact 32-bit integers in units of [`crate::grid::UNIT`].
    Integers,
    /// Values that are not rounded one by one.
    Whole(Scheme),
    /// No values: the positions, among the coordinates that are left, of those that a mask loses.
    Pruned,
    /// No values: the positions, among the coordinates that are left, of those that updates are to carry.
    Announced,
    /// No values: the positions, among the coordinates that are not left, of those that a mask gains.
    Grown,
}

/// How a vector is rounded as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Blocks rotated, to a grid, entropy-coded.
    Rotated,
    /// Blocks rotated, to centroids.
    Eden,
    /// Random levels of norms.
    Qsgd,
    /// Random signs of largest magnitudes.
    Terngrad,
    /// Signs of mean magnitudes.
    Sign,
    /// Products of thin matrices.
    LowRank,
    /// Integers of a grid that all senders share.
    Common,
}

/// How the values of a frame are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Every coordinate, no positions.
    Dense,
    /// Positions as bitmaps or plain indices.
    Raw,
    /// Positions as Rice-coded gaps.
    Rice,
    /// Positions as counts and ranks.
    Enumerative,
    /// Positions by the adaptive range coder.
    Adaptive,
}

/// What a receiver is willing to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest frame in bytes.
    pub max_frame_bytes: usize,
}

impl Limits {
    /// No encoder of this crate needs more than the dense f32 vector, a bitmap with its rounding, and a few bytes per
    /// tensor. The longest: nearly everything sent as f32 with the coder forced to [`crate::EntropyCoder::Raw`].
    pub fn for_segments(segments: &Segments) -> Self {
        Self { max_frame_bytes: 4 * segments.len() + segments.len() / 4 + 16 * segments.count() + 64 }
    }
}

impl FrameKind {
    /// Whether frames of it change a mask, and hold positions only.
    #[must_use]
    pub fn is_mask(self) -> bool {
        matches!(self, Self::Pruned | Self::Grown)
    }

    /// Whether frames of it hold values, and not positions only.
    #[must_use]
    pub fn has_values(self) -> bool {
        !self.is_mask() && self != Self::Announced
    }
}

impl FrameHeader {
    /// Reads the header only: nothing is allocated and the checksum is not looked at.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::NotAFrame`], [`Error::UnknownVersion`], [`Error::UnknownKind`], or
    /// [`Error::TooManyNonzeros`] when there are more non-zeros than coordinates.
    pub fn parse(frame: &[u8]) -> Result<Self, Error> {
        let truncated = Error::Truncated { got: frame.len() };
        let &[magic, version, kind_byte, ..] = frame else { return Err(truncated) };
        if magic != MAGIC {
            return Err(Error::NotAFrame(magic));
        }
        if !(VERSION_OLDEST..=VERSION).contains(&version) {
            return Err(Error::UnknownVersion(version));
        }
        let unknown = Error::UnknownKind(kind_byte);
        let (low, middle) = (kind_byte & 7, usize::from(kind_byte >> 3 & 7));
        let is_flagged = kind_byte & VALUES_CODED != 0;
        let layout = LAYOUTS.get(middle).copied().ok_or(unknown);
        let (mut kind, layout) = match low {
            WHOLE => (FrameKind::Whole(*SCHEMES.get(middle).ok_or(unknown)?), Layout::Dense),
            F16 if is_flagged => (FrameKind::Codebook { bits: 0 }, layout?),
            PRUNED if is_flagged => (FrameKind::Announced, layout?),
            PRUNED => (FrameKind::Pruned, layout?),
            GROWN => (FrameKind::Grown, layout?),
            low => (KINDS[usize::from(low)], layout?),
        };
        let values_coded = is_flagged && !says_by_flag(kind);
        let ranged = matches!(layout, Layout::Enumerative | Layout::Adaptive);
        let values_ok = match kind {
            FrameKind::Int8 => !values_coded || ranged || layout == Layout::Dense,
            FrameKind::Integers => !values_coded && (ranged || layout == Layout::Dense),
            FrameKind::Ternary
            | FrameKind::Codebook { .. }
            | FrameKind::Pruned
            | FrameKind::Announced
            | FrameKind::Grown => !values_coded && layout != Layout::Dense,
            FrameKind::F32 | FrameKind::F16 | FrameKind::Whole(_) => !values_coded,
        };
        if !values_ok || kind_byte & RESERVED != 0 {
            return Err(unknown);
        }
        let mut body = 3;
        let coordinates = read_varint(frame, &mut body)?;
        let nonzeros = read_varint(frame, &mut body)?;
        if nonzeros > coordinates {
            return Err(Error::TooManyNonzeros { got: nonzeros.into(), limit: coordinates.into() });
        }
        if let FrameKind::Codebook { bits } = &mut kind {
            *bits = *frame.get(body).ok_or(truncated)?;
            body += 1;
            let (least, most) = (2, Quantizer::CODEBOOK_MAX_BITS);
            if !(least..=most).contains(bits) {
                return Err(Error::BadQuantizer { number: *bits, least, most });
            }
        }
        Ok(Self { kind, layout, coordinates, nonzeros, version, values_coded, body })
    }

    /// What the frame, of which this is the header, would have cost without its later stages.
    #[must_use]
    pub fn stages(&self, segments: &Segments, frame: &[u8]) -> StageBytes {
        let (len, values) = (segments.len() as u64, u64::from(self.nonzeros));
        let coded = frame.len() as u64;
        if let FrameKind::Whole(scheme) = self.kind {
            let body = frame.get(self.body..frame.len().saturating_sub(TRAILER_BYTES)).unwrap_or_default();
            let quantized = whole::quantized(scheme, body, segments);
            return StageBytes { dense: 4 * len, sparse: 4 * len, quantized, coded };
        }
        if !self.kind.has_values() {
            // Without any coding: a bitmap, or indices.
            let bitmap = u64::from(self.coordinates).div_ceil(8);
            let plain = bitmap.min(4 * values);
            return StageBytes { dense: bitmap, sparse: plain, quantized: plain, coded };
        }
        let width = u64::from(width_of(self.kind));
        let scales = if is_scaled(self.kind) && values > 0 { 2 * segments.count() as u64 } else { 0 };
        let dense = 4 * len;
        // Without positions a ternary value needs two bits.
        let whole = (width.max(2) * len).div_ceil(8) + scales;
        let (sparse, quantized) = match self.layout {
            Layout::Dense => (dense, whole),
            _ => ((8 * values).min(dense), (4 * values + (width * values).div_ceil(8) + scales).min(whole)),
        };
        StageBytes { dense, sparse, quantized, coded }
    }

    /// Starts a frame.
    pub(crate) fn write(&self, frame: &mut Vec<u8>) {
        let layout = || LAYOUTS.iter().position(|&l| l == self.layout).expect("every layout is listed") as u8;
        let (kind, layout) = match self.kind {
            FrameKind::Whole(scheme) => {
                (WHOLE, SCHEMES.iter().position(|&s| s == scheme).expect("every scheme is listed") as u8)
            }
            FrameKind::Codebook { .. } => (F16, layout()),
            FrameKind::Pruned | FrameKind::Announced => (PRUNED, layout()),
            FrameKind::Grown => (GROWN, layout()),
            kind => (KINDS.iter().position(|&k| k == kind).expect("every other kind is listed") as u8, layout()),
        };
        let flags = if self.values_coded || says_by_flag(self.kind) { VALUES_CODED } else { 0 };
        frame.clear();
        frame.extend([MAGIC, self.version, kind | layout << 3 | flags]);
        write_varint(frame, self.coordinates);
        write_varint(frame, self.nonzeros);
        if let FrameKind::Codebook { bits } = self.kind {
            frame.push(bits);
        }
    }
}

/// Whether the flag for coded values tells a kind from another that has none to code.
fn says_by_flag(kind: FrameKind) -> bool {
    matches!(kind, FrameKind::Codebook { .. } | FrameKind::Announced)
}

/// Ends a frame.
pub(crate) fn seal(frame: &mut Vec<u8>) {
    let checksum = checksum::of(frame);
    frame.extend(checksum.to_le_bytes());
}

/// Ends a frame of whose body the checksum was added up as it was written, while it was in the cache.
pub(crate) fn seal_body(frame: &mut Vec<u8>, body: usize, checksum: u32) {
    let head = checksum::of(&frame[..body]);
    let checksum = checksum::combine(head, checksum, frame.len() - body);
    frame.extend(checksum.to_le_bytes());
}

/// Checks length and header against the model.
pub(crate) fn admit(frame: &[u8], segments: &Segments, limits: &Limits) -> Result<FrameHeader, Error> {
    if frame.len() > limits.max_frame_bytes {
        return Err(Error::TooLarge { got: frame.len(), limit: limits.max_frame_bytes });
    }
    let header = FrameHeader::parse(frame)?;
    if header.coordinates as usize != segments.len() {
        return Err(Error::WrongCoordinates { expected: segments.len(), got: header.coordinates.into() });
    }
    Ok(header)
}

/// A frame's content, of which nobody has computed the checksum yet.
#[derive(Clone, Copy)]
pub(crate) struct Sealed<'a> {
    head: &'a [u8],
    body: &'a [u8],
    expected: u32,
}

impl<'a> Sealed<'a> {
    /// The body, once the checksum is right.
    pub(crate) fn checked(self) -> Result<&'a [u8], Error> {
        self.compare(checksum::append(self.begin(), self.body))?;
        Ok(self.body)
    }

    /// The body for who adds up the checksum on the way, which saves reading it twice: from [`Self::begin`] with
    /// [`checksum::append`], to be handed to [`Self::compare`].
    pub(crate) fn unchecked(self) -> &'a [u8] {
        self.body
    }

    /// The checksum of what is before the body.
    pub(crate) fn begin(self) -> u32 {
        checksum::of(self.head)
    }

    /// Whether the checksum is right.
    pub(crate) fn compare(self, got: u32) -> Result<(), Error> {
        let expected = self.expected;
        if expected == got { Ok(()) } else { Err(Error::Checksum { expected, got }) }
    }
}

/// Checks all that [`admit`] does; returns the header and the rest.
pub(crate) fn open<'a>(
    frame: &'a [u8],
    segments: &Segments,
    limits: &Limits,
) -> Result<(FrameHeader, Sealed<'a>), Error> {
    let header = admit(frame, segments, limits)?;
    let Some((content, trailer)) = frame.split_last_chunk::<TRAILER_BYTES>() else {
        return Err(Error::Truncated { got: frame.len() });
    };
    let Some((head, body)) = content.split_at_checked(header.body) else {
        return Err(Error::Truncated { got: frame.len() });
    };
    Ok((header, Sealed { head, body, expected: u32::from_le_bytes(*trailer) }))
}

fn read_varint(frame: &[u8], at: &mut usize) -> Result<u32, Error> {
    let mut value = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let &byte = frame.get(*at).ok_or(Error::Truncated { got: frame.len() })?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    u32::try_from(value).map_err(|_| Error::TooManyCoordinates { coordinates: value })
}

fn write_varint(frame: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        frame.push(value as u8 | 0x80);
        value >>= 7;
    }
    frame.push(value as u8);
}

/// The version that this build writes.
pub(crate) const VERSION: u8 = 3;
/// The oldest that it reads. Version 2 had another way to write adaptive bodies.
pub(crate) const VERSION_OLDEST: u8 = 2;
pub(crate) const TRAILER_BYTES: usize = 4;

const MAGIC: u8 = 0xD7;
const VALUES_CODED: u8 = 1 << 6;
const RESERVED: u8 = 1 << 7;
/// Indexed by the kind byte's low bits; the order is the format.
const KINDS: [FrameKind; 5] =
    [FrameKind::F32, FrameKind::F16, FrameKind::Int8, FrameKind::Ternary, FrameKind::Integers];
/// Of [`KINDS`], the one that with the flag for coded values is [`FrameKind::Codebook`].
const F16: u8 = 1;
/// The low bits for a vector as a whole; the middle bits are then its scheme.
const WHOLE: u8 = 5;
/// The low bits for the two kinds that change a mask; of the first, which has no values that could be coded, the flag for
/// that makes positions that are announced.
const PRUNED: u8 = 6;
const GROWN: u8 = 7;
/// Indexed by the kind byte's middle bits where the low ones are [`WHOLE`]; the order is the format.
const SCHEMES: [Scheme; 7] =
    [Scheme::Rotated, Scheme::Eden, Scheme::Qsgd, Scheme::Terngrad, Scheme::Sign, Scheme::LowRank, Scheme::Common];
/// Indexed by the kind byte's middle bits; the order is the format.
const LAYOUTS: [Layout; 5] = [Layout::Dense, Layout::Raw, Layout::Rice, Layout::Enumerative, Layout::Adaptive];

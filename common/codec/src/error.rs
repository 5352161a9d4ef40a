//! What can go wrong while encoding or decoding, with the numbers that explain it.

/// Why a vector could not be encoded or a frame could not be decoded.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A model must have at least one tensor.
    #[error("a parameter vector needs at least one segment")]
    NoSegments,
    /// A tensor without elements, or with rows of length zero.
    #[error("segment {segment} has length {len} and row {row}; both must be at least 1")]
    EmptySegment {
        /// Position in the list of segments.
        segment: usize,
        /// Its number of elements.
        len: usize,
        /// Its innermost row.
        row: usize,
    },
    /// More coordinates than an index of 32 bits can name.
    #[error("{coordinates} coordinates; at most {} can be indexed", u32::MAX)]
    TooManyCoordinates {
        /// Sum of the segments' lengths.
        coordinates: u64,
    },
    /// The density is not in (0, 1].
    #[error("density {density} is outside (0, 1]")]
    BadDensity {
        /// The refused value.
        density: f64,
    },
    /// A part of a vector for a quantizer that takes whole ones.
    #[error("density {density}; a quantizer of whole vectors sends every coordinate: 1 would be right")]
    NotWhole {
        /// The refused value.
        density: f64,
    },
    /// A rate that is not in [`crate::Rate::LEAST`] to [`crate::Rate::MOST`].
    #[error("{bits} bits per coordinate are outside {} to {}", crate::Rate::LEAST, crate::Rate::MOST)]
    BadRate {
        /// The refused value.
        bits: f64,
    },
    /// A quantizer's number of bits, levels or columns.
    #[error("the quantizer is asked for {number} bits, levels or columns; {least} to {most} would be right")]
    BadQuantizer {
        /// The refused value.
        number: u8,
        /// The smallest possible.
        least: u8,
        /// The largest possible.
        most: u8,
    },
    /// Factors by which tensors are chosen from are no such factors.
    #[error("{got} factors of importance for {expected} tensors; one finite number above 0 for each would be right")]
    BadImportance {
        /// Tensors of the model.
        expected: usize,
        /// Factors given.
        got: usize,
    },
    /// The numbers of a common grid do not go together.
    #[error(
        "no grid has {bits} bits, a step of 2^{exponent} and integers up to {most}; {} to {} bits and a step of 2^{} to 2^{} would be right",
        crate::CommonGrid::LEAST_BITS,
        crate::CommonGrid::MOST_BITS,
        crate::CommonGrid::LEAST_EXPONENT,
        crate::CommonGrid::MOST_EXPONENT
    )]
    BadGrid {
        /// Bits of an integer.
        bits: u8,
        /// The step is 2 to this.
        exponent: i8,
        /// The largest integer.
        most: u8,
    },
    /// Not even one coordinate fits.
    #[error("a frame of at most {bytes} bytes is wanted; the shortest has {least}")]
    NoRoom {
        /// What was wanted.
        bytes: u64,
        /// What is possible.
        least: u64,
    },
    /// A wanted length for a quantizer whose frames have one length only.
    #[error(
        "the quantizer's frames have one length only; f32, f16, int8, ternary and rotated can be fitted into another"
    )]
    NoRate,
    /// The vector does not have the length that the segments add up to.
    #[error("the vector has {got} coordinates, the segments {expected}")]
    WrongLength {
        /// What the segments add up to.
        expected: usize,
        /// The vector's length.
        got: usize,
    },
    /// NaN or infinity.
    #[error("coordinate {index} is {}", if *nan { "not a number" } else { "infinite" })]
    NotFinite {
        /// Index in the flat vector.
        index: usize,
        /// Whether it is NaN; otherwise it is infinite.
        nan: bool,
    },
    /// The frame ends before its content does.
    #[error("the frame of {got} bytes is cut short")]
    Truncated {
        /// The frame's length in bytes.
        got: usize,
    },
    /// The frame is longer than the caller is willing to look at.
    #[error("the frame has {got} bytes, the limit is {limit}")]
    TooLarge {
        /// The frame's length in bytes.
        got: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The first byte is not a frame's.
    #[error("not a frame: first byte is {0:#04x}")]
    NotAFrame(u8),
    /// The bytes are not the bytes that were written.
    #[error("checksum {got:#010x}, the frame says {expected:#010x}")]
    Checksum {
        /// From the trailer.
        expected: u32,
        /// Computed.
        got: u32,
    },
    /// Written by another version of this format.
    #[error("frame version {0}; this build reads {oldest} to {newest}", oldest = crate::header::VERSION_OLDEST,
        newest = crate::header::VERSION)]
    UnknownVersion(u8),
    /// A kind byte that this version does not define.
    #[error("unknown frame kind {0:#04x}")]
    UnknownKind(u8),
    /// The frame is valid but not of the kind that the caller can take.
    #[error("a frame of {got:?} cannot be used here")]
    WrongKind {
        /// What the frame holds.
        got: crate::FrameKind,
    },
    /// The frame was made for another model.
    #[error("the frame covers {got} coordinates, the model has {expected}")]
    WrongCoordinates {
        /// The model's coordinates.
        expected: usize,
        /// The frame's coordinates.
        got: u64,
    },
    /// More non-zeros than there are places for them.
    #[error("{got} non-zeros where at most {limit} fit")]
    TooManyNonzeros {
        /// What the frame says.
        got: u64,
        /// What fits.
        limit: u64,
    },
    /// The content does not hold as many non-zeros as the header says.
    #[error("{got} non-zeros where the frame promises {expected}")]
    WrongNonzeros {
        /// What the frame says.
        expected: u64,
        /// What was found.
        got: u64,
    },
    /// Indices repeat, go back or leave their tensor.
    #[error("indices of segment {segment} do not rise within it")]
    IndexOrder {
        /// Position in the list of segments.
        segment: usize,
    },
    /// Bytes after the content.
    #[error("{0} bytes follow the content")]
    TrailingBytes(usize),
    /// A scale that is not finite and positive.
    #[error("the scale of segment {segment} is not finite and positive")]
    BadScale {
        /// Position in the list of segments.
        segment: usize,
    },
    /// The head or a block of a frame of a whole vector that no encoder writes.
    #[error("the block at coordinate {index} is not one that is written")]
    BadBlock {
        /// Its first coordinate.
        index: usize,
    },
    /// A mask that would leave nothing of the model.
    #[error("a mask must leave at least one coordinate of the model")]
    EmptyMask,
    /// A mask has no coordinates of which some could come back.
    #[error("every coordinate is left, so that none can come back")]
    NothingPruned,
    /// A value that no encoder writes: zero at a listed index, or out of its range.
    #[error("coordinate {index} carries a value that is zero or out of range")]
    BadValue {
        /// Index in the flat vector.
        index: usize,
    },
}

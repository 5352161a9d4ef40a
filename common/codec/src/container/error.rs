//! What can be wrong with a container, with the tensor that it is about.

/// Why tensors could not be written as a container, or bytes are none.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is longer than the caller is willing to read.
    #[error("the file has {got} bytes, the limit is {limit}")]
    TooLarge {
        /// The file's length in bytes.
        got: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The first bytes are not a container's.
    #[error("not a container: it does not begin with \"DNLC\"")]
    NotAContainer,
    /// Written by another version of this format.
    #[error("container version {0}; this build reads {oldest} to {newest}", oldest = super::VERSION_OLDEST,
        newest = super::VERSION)]
    UnknownVersion(u8),
    /// The file ends before its content does.
    #[error("the file of {got} bytes is cut short")]
    Truncated {
        /// The file's length in bytes.
        got: usize,
    },
    /// The bytes are not the bytes that were written.
    #[error("the file is damaged or cut short: its checksum is {got:#010x}, and it says {expected:#010x}")]
    Checksum {
        /// From the file.
        expected: u32,
        /// Computed.
        got: u32,
    },
    /// A number of more than 32 bits.
    #[error("a number at byte {at} has more than 32 bits")]
    BadNumber {
        /// Where it begins.
        at: usize,
    },
    /// A name, key or value is not UTF-8.
    #[error("the text at byte {at} is not UTF-8")]
    BadText {
        /// Where it begins.
        at: usize,
    },
    /// Two words about the model have the same key.
    #[error("{key:?} is told twice")]
    DuplicateKey {
        /// The key.
        key: String,
    },
    /// Two tensors share a name.
    #[error("two tensors are named {tensor:?}")]
    DuplicateName {
        /// The name.
        tensor: String,
    },
    /// A kind byte that this version does not define.
    #[error("tensor {tensor:?} is of the unknown kind {kind}")]
    UnknownKind {
        /// The tensor's name.
        tensor: String,
        /// The byte.
        kind: u8,
    },
    /// An axis of extent zero, or too many axes.
    #[error("tensor {tensor:?} has shape {shape:?}; every axis must be positive, and there can be at most 8")]
    BadShape {
        /// The tensor's name.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// The tensors are larger than the caller is willing to hold.
    #[error(
        "tensor {tensor:?} of shape {shape:?} brings the file beyond the {left} elements that are left of the limit"
    )]
    TooManyElements {
        /// The tensor's name.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Elements that were left for it.
        left: usize,
    },
    /// The number of values is not what the shape says.
    #[error("tensor {tensor:?} has {got} values and its shape says {expected}")]
    WrongLength {
        /// The tensor's name.
        tensor: String,
        /// What the shape says.
        expected: usize,
        /// The values' number.
        got: usize,
    },
    /// More non-zeros than elements.
    #[error("tensor {tensor:?} has {len} elements and says that {got} of them are not zero")]
    TooManyNonzeros {
        /// The tensor's name.
        tensor: String,
        /// Its elements.
        len: usize,
        /// What the file says.
        got: usize,
    },
    /// Positions that do not rise within their tensor.
    #[error("the positions of tensor {tensor:?} do not rise within it")]
    BadPositions {
        /// The tensor's name.
        tensor: String,
    },
    /// A codebook that does not rise, holds zero or what is not finite, is too long, or is not of its precision.
    #[error("the codebook of tensor {tensor:?} must hold up to 255 finite values in rising order, without zero")]
    BadCodebook {
        /// The tensor's name.
        tensor: String,
    },
    /// A scale that is not a finite, positive brain float, or the wrong number of them.
    #[error("tensor {tensor:?} needs {expected} scales, each a finite and positive brain float")]
    BadScales {
        /// The tensor's name.
        tensor: String,
        /// Scales that it needs.
        expected: usize,
    },
    /// A value that is not finite, or out of the range of its kind, or zero at the place of a non-zero.
    #[error("element {index} of tensor {tensor:?} has a value that its kind does not have")]
    BadValue {
        /// The tensor's name.
        tensor: String,
        /// Which of its elements.
        index: usize,
    },
    /// A tensor's bytes are more or fewer than its content takes.
    #[error("the content of tensor {tensor:?} does not end where the file says")]
    BadPayload {
        /// The tensor's name.
        tensor: String,
    },
    /// Bytes after the content.
    #[error("{0} bytes follow the content")]
    TrailingBytes(usize),
}

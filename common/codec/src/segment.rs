//! Where each tensor lies in the flat parameter vector.

use std::ops::Range;

use crate::Error;

/// The tensors of a model in the order of the flat parameter vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segments {
    segments: Vec<Segment>,
    /// `ends[i]` is where segment `i` ends.
    ends: Vec<usize>,
}

/// One tensor's place in the flat parameter vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Segment {
    /// Number of elements, at least 1.
    pub len: usize,
    /// Length of the innermost row, at least 1. The coder looks one row back for its contexts;
    /// `row == len` is right for a vector.
    pub row: usize,
}

impl Segments {
    /// Lays the tensors end to end.
    ///
    /// # Errors
    /// An empty list, an empty tensor or row, or more than `u32::MAX` coordinates in total.
    pub fn new(segments: Vec<Segment>) -> Result<Self, Error> {
        if segments.is_empty() {
            return Err(Error::NoSegments);
        }
        let mut total = 0u64;
        let mut ends = Vec::with_capacity(segments.len());
        for (segment, &Segment { len, row }) in segments.iter().enumerate() {
            if len == 0 || row == 0 {
                return Err(Error::EmptySegment { segment, len, row });
            }
            total = total.saturating_add(len as u64);
            if total > u64::from(u32::MAX) {
                return Err(Error::TooManyCoordinates { coordinates: total });
            }
            ends.push(total as usize);
        }
        Ok(Self { segments, ends })
    }

    /// Number of coordinates of the flat vector.
    #[expect(clippy::len_without_is_empty, reason = "never empty by construction")]
    pub fn len(&self) -> usize {
        self.ends[self.ends.len() - 1]
    }

    /// Number of tensors.
    pub fn count(&self) -> usize {
        self.segments.len()
    }

    /// Where tensor `i` lies in the flat vector.
    ///
    /// # Panics
    /// If `i >= self.count()`.
    pub fn range(&self, i: usize) -> Range<usize> {
        self.ends[i] - self.segments[i].len..self.ends[i]
    }

    /// The tensors in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Segment> + '_ {
        self.segments.iter().copied()
    }
}

//! Which coordinates of a model are left after pruning: vectors of those alone, and frames that change which they are.

mod grid;
mod part;
#[cfg(test)]
mod tests;

pub use grid::MaskedGrid;

use std::sync::Arc;

use crate::{Encoder, Error, FrameKind, Limits, Segment, Segments, decode};

/// The coordinates of a model that are left; the others are zero, and nobody trains, sends or keeps them.
///
/// A vector *within* the mask has one element for each coordinate that is left, in the order of the whole vector, and
/// [`Self::segments`] are its tensors. A model that was never pruned has a mask of everything, which costs nothing.
#[derive(Debug, Clone)]
pub struct Mask {
    whole: Arc<Segments>,
    left: Option<Left>,
}

#[derive(Debug, Clone)]
struct Left {
    /// One bit for each coordinate of the whole, the lowest first.
    words: Vec<u64>,
    segments: Segments,
}

impl Mask {
    /// Everything is left.
    #[must_use]
    pub fn all(whole: Arc<Segments>) -> Self {
        Self { whole, left: None }
    }

    /// Those are left for which `is_left` says so, by their index in the whole vector.
    ///
    /// # Errors
    /// [`Error::EmptyMask`] when none is.
    pub fn new(whole: Arc<Segments>, is_left: impl Fn(usize) -> bool) -> Result<Self, Error> {
        let n = whole.len();
        let words = (0..n)
            .step_by(BITS)
            .map(|start| (start..n.min(start + BITS)).fold(0, |word, i| word | u64::from(is_left(i)) << (i - start)))
            .collect();
        Self::from_words(whole, words)
    }

    /// From one bit for each coordinate, the lowest first, in as many words as that takes.
    fn from_words(whole: Arc<Segments>, words: Vec<u64>) -> Result<Self, Error> {
        let count = words.iter().map(|word| word.count_ones() as usize).sum::<usize>();
        if count == whole.len() {
            return Ok(Self::all(whole));
        }
        let segments = segments_of(&whole, &words, false).ok_or(Error::EmptyMask)?;
        Ok(Self { whole, left: Some(Left { words, segments }) })
    }

    /// Whether nothing was pruned.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.left.is_none()
    }

    /// How many coordinates are left.
    #[expect(clippy::len_without_is_empty, reason = "never empty by construction")]
    #[must_use]
    pub fn len(&self) -> usize {
        self.segments().len()
    }

    /// The tensors of the whole model.
    #[must_use]
    pub fn whole(&self) -> &Arc<Segments> {
        &self.whole
    }

    /// The tensors of a vector within the mask. Tensors of which nothing is left are no longer among them; the others
    /// have no rows, since what is left of two rows is not below one another.
    #[must_use]
    pub fn segments(&self) -> &Segments {
        self.left.as_ref().map_or(&self.whole, |left| &left.segments)
    }

    /// Of what there is one of for each tensor of the whole, that of the tensors that are still among
    /// [`Self::segments`].
    ///
    /// # Panics
    /// If there is not one for each.
    #[must_use]
    pub fn of_tensors<T: Copy>(&self, each: &[T]) -> Vec<T> {
        assert_eq!(each.len(), self.whole.count(), "one for each tensor");
        let Some(left) = &self.left else { return each.to_vec() };
        let counts = counts(&self.whole, &left.words, false);
        each.iter().zip(counts).filter(|(_, count)| *count > 0).map(|(one, _)| *one).collect()
    }

    /// Whether a coordinate of the whole is left.
    #[must_use]
    pub fn contains(&self, index: usize) -> bool {
        index < self.whole.len()
            && self.left.as_ref().is_none_or(|left| left.words[index / BITS] >> (index % BITS) & 1 == 1)
    }

    /// The coordinates of the whole that are left, rising.
    pub fn indices(&self) -> impl Iterator<Item = usize> + '_ {
        let words = self.left.as_ref().map_or(&[][..], |left| &left.words);
        let all = if self.is_all() { 0..self.whole.len() } else { 0..0 };
        let some = (0..).step_by(BITS).zip(words).flat_map(|(start, &word)| ones(word).map(move |bit| start + bit));
        all.chain(some)
    }

    /// Leaves those elements of a whole vector that are within the mask.
    ///
    /// # Panics
    /// If the vector is not as long as the model.
    pub fn gather<T: Copy>(&self, values: &mut Vec<T>) {
        assert_eq!(values.len(), self.whole.len(), "one value per coordinate");
        if self.is_all() {
            return;
        }
        for (to, from) in self.indices().enumerate() {
            values[to] = values[from];
        }
        values.truncate(self.len());
    }

    /// A whole vector from one within the mask; `T::default()` elsewhere.
    ///
    /// # Panics
    /// If the vector is not as long as the mask.
    #[must_use]
    pub fn scatter<T: Copy + Default>(&self, values: &[T]) -> Vec<T> {
        assert_eq!(values.len(), self.len(), "one value per coordinate that is left");
        if self.is_all() {
            return values.to_vec();
        }
        let mut whole = vec![T::default(); self.whole.len()];
        for (index, &value) in self.indices().zip(values) {
            whole[index] = value;
        }
        whole
    }

    /// A vector within another mask of the same model, from one within this: what both have stays, and what only the
    /// other has is `T::default()`.
    ///
    /// # Panics
    /// If the vector is not as long as this mask, or the masks are of different models.
    #[must_use]
    pub fn project<T: Copy + Default>(&self, to: &Self, values: &[T]) -> Vec<T> {
        if self == to {
            return values.to_vec();
        }
        let mut values = self.scatter(values);
        to.gather(&mut values);
        values
    }

    /// The frames that lead from this mask to another of the same model, shortest first applied: one for what is lost
    /// and one for what is gained, as far as there is any.
    ///
    /// # Panics
    /// If the masks are of different models, or have no coordinate in common.
    #[must_use]
    pub fn change_to(&self, to: &Self, encoder: &mut Encoder) -> Vec<Vec<u8>> {
        assert_eq!(self.whole, to.whole, "masks of one model");
        assert!(self.indices().any(|index| to.contains(index)), "masks with a coordinate in common");
        let mut frames = Vec::new();
        let lost = (0..).zip(self.indices()).filter(|&(_, index)| !to.contains(index));
        let lost: Vec<u32> = lost.map(|(position, _)| position).collect();
        if !lost.is_empty() {
            frames.push(encoder.encode_positions(FrameKind::Pruned, self.segments(), &lost));
        }
        // What was lost is not gained at once, so the gained ones may be counted among what neither has and they.
        let others = (0..self.whole.len()).filter(|&index| !self.contains(index) || !to.contains(index));
        let gained = (0..).zip(others).filter(|&(_, index)| to.contains(index));
        let gained: Vec<u32> = gained.map(|(position, _)| position).collect();
        if !gained.is_empty() {
            let both: Vec<u64> = self.words().iter().zip(&to.words()).map(|(a, b)| a & b).collect();
            let segments = segments_of(&self.whole, &both, true).expect("what is gained is not among what both have");
            frames.push(encoder.encode_positions(FrameKind::Grown, &segments, &gained));
        }
        frames
    }

    /// The mask that a frame of [`Self::change_to`] leads to.
    ///
    /// # Errors
    /// What is wrong with the frame, [`Error::WrongKind`] for one with values, [`Error::EmptyMask`] when it would leave
    /// nothing and [`Error::NothingPruned`] when there is nothing that could come back.
    pub fn changed(&self, frame: &[u8]) -> Result<Self, Error> {
        let kind = crate::FrameHeader::parse(frame)?.kind;
        let mut words = self.words();
        match kind {
            FrameKind::Pruned => {
                let lost = decode::positions(frame, kind, self.segments(), &Limits::for_segments(self.segments()))?;
                let mut lost = lost.into_iter().peekable();
                for (position, index) in (0..).zip(self.indices()) {
                    if lost.next_if_eq(&position).is_some() {
                        words[index / BITS] &= !(1 << (index % BITS));
                    }
                }
            }
            FrameKind::Grown => {
                let others = segments_of(&self.whole, &words, true).ok_or(Error::NothingPruned)?;
                let gained = decode::positions(frame, kind, &others, &Limits::for_segments(&others))?;
                let mut gained = gained.into_iter().peekable();
                let missing = (0..self.whole.len()).filter(|&index| !self.contains(index));
                for (position, index) in (0..).zip(missing) {
                    if gained.next_if_eq(&position).is_some() {
                        words[index / BITS] |= 1 << (index % BITS);
                    }
                }
            }
            got => return Err(Error::WrongKind { got }),
        }
        Self::from_words(Arc::clone(&self.whole), words)
    }

    /// One bit for each coordinate of the whole, the lowest first, as many bytes as that takes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.words().iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.truncate(self.whole.len().div_ceil(8));
        bytes
    }

    /// From what [`Self::to_bytes`] gave.
    ///
    /// # Errors
    /// [`Error::WrongLength`] in bytes, [`Error::BadValue`] for a bit behind the last coordinate, [`Error::EmptyMask`].
    pub fn from_bytes(whole: Arc<Segments>, bytes: &[u8]) -> Result<Self, Error> {
        let n = whole.len();
        if bytes.len() != n.div_ceil(8) {
            return Err(Error::WrongLength { expected: n.div_ceil(8), got: bytes.len() });
        }
        let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |word, &byte| word << 8 | u64::from(byte));
        let words: Vec<u64> = bytes.chunks(BITS / 8).map(word).collect();
        if !n.is_multiple_of(BITS) && words[words.len() - 1] >> (n % BITS) > 0 {
            return Err(Error::BadValue { index: n });
        }
        Self::from_words(whole, words)
    }

    fn words(&self) -> Vec<u64> {
        if let Some(left) = &self.left {
            return left.words.clone();
        }
        let n = self.whole.len();
        let mut words = vec![u64::MAX; n.div_ceil(BITS)];
        if !n.is_multiple_of(BITS) {
            words[n / BITS] = (1 << (n % BITS)) - 1;
        }
        words
    }
}

/// Masks of the same model that leave the same.
impl PartialEq for Mask {
    fn eq(&self, other: &Self) -> bool {
        let left = |mask: &Self| mask.left.as_ref().map(|left| left.words.as_ptr());
        // The same memory nearly always, and then there is nothing to compare.
        (Arc::ptr_eq(&self.whole, &other.whole) || self.whole == other.whole)
            && (left(self) == left(other)
                || match (&self.left, &other.left) {
                    (Some(this), Some(other)) => this.words == other.words,
                    _ => false,
                })
    }
}

/// The tensors of what the bits leave, or of what they do not; none when that is nothing.
fn segments_of(whole: &Segments, words: &[u64], of_others: bool) -> Option<Segments> {
    let lens = counts(whole, words, of_others).filter(|&len| len > 0);
    let segments: Vec<Segment> = lens.map(|len| Segment { len, row: len }).collect();
    Segments::new(segments).ok()
}

/// How much of each tensor the bits leave, or do not.
fn counts(whole: &Segments, words: &[u64], of_others: bool) -> impl Iterator<Item = usize> {
    let count = move |range: std::ops::Range<usize>| {
        let ones = |i: usize| -> usize {
            let from = range.start.max(i * BITS) - i * BITS;
            let to = range.end.min((i + 1) * BITS) - i * BITS;
            let within = u64::MAX >> (BITS - (to - from)) << from;
            (words[i] & within).count_ones() as usize
        };
        let left: usize = (range.start / BITS..range.end.div_ceil(BITS)).map(ones).sum();
        if of_others { range.len() - left } else { left }
    };
    (0..whole.count()).map(move |tensor| count(whole.range(tensor)))
}

/// The places of the bits that are set.
fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        (word != 0).then(|| {
            let bit = word.trailing_zeros() as usize;
            word &= word - 1;
            bit
        })
    })
}

const BITS: usize = u64::BITS as usize;

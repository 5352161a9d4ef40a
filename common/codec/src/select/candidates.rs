//! Coordinates that may be among the largest of a vector.

use super::magnitude;

/// The coordinates of a vector that are not small, in rising order.
#[derive(Default)]
pub(super) struct Candidates {
    /// Room for [`WORD`] more than there are, so that adding some asks nothing.
    indices: Vec<u32>,
    values: Vec<f32>,
    len: usize,
    /// Magnitudes in some order.
    ranked: Vec<u32>,
}

impl Candidates {
    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn indices(&self) -> &[u32] {
        &self.indices[..self.len]
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values[..self.len]
    }

    /// Adds the coordinates of `values`, the first of which is `start`, whose magnitude's bits reach `least`.
    ///
    /// Which they are is a word of bits for 64 coordinates, made by vector instructions alone. The first two of a word
    /// are written whether they are there or not, as a branch on something that chance decides is often guessed wrongly,
    /// and a word with more is rare where a hundredth is wanted.
    #[inline(always)]
    pub(super) fn extend(&mut self, start: usize, values: &[f32], least: u32) {
        let room = self.len + values.len() + WORD;
        if room > self.indices.len() {
            self.indices.resize(2 * room, 0);
            self.values.resize(2 * room, 0.0);
        }
        let (indices, selected) = (self.indices.as_mut_slice(), self.values.as_mut_slice());
        let mut len = self.len;
        let (words, rest) = values.as_chunks::<WORD>();
        for (i, values) in words.iter().enumerate() {
            let start = (start + WORD * i) as u32;
            let mut marks = reaching(values, least);
            let count = marks.count_ones() as usize;
            let indices = indices[len..].first_chunk_mut::<WORD>().expect("there is room");
            let selected = selected[len..].first_chunk_mut::<WORD>().expect("there is room");
            let mut write = |to: usize| {
                let at = marks.trailing_zeros() as usize % WORD;
                (indices[to], selected[to]) = (start + at as u32, values[at]);
                marks &= marks.wrapping_sub(1);
            };
            for to in 0..ALWAYS {
                write(to);
            }
            for to in ALWAYS..count {
                write(to);
            }
            len += count;
        }
        let start = start + values.len() - rest.len();
        for (at, &value) in rest.iter().enumerate() {
            (indices[len], selected[len]) = ((start + at) as u32, value);
            len += usize::from(magnitude(value) >= least);
        }
        self.len = len;
    }

    /// Writes the `k` largest that are here, or all where there are fewer, in rising order; equal magnitudes go by the
    /// lowest index. The `k`-th largest magnitude is below `bound`, or all are written.
    pub(super) fn largest(&mut self, k: usize, bound: u32, indices: &mut Vec<u32>, values: &mut Vec<f32>) {
        let sizes = self.values[..self.len].iter().map(|&value| magnitude(value));
        self.ranked.clear();
        self.ranked.extend(sizes.filter(|&size| size < bound));
        let wanted = k.saturating_sub(self.len - self.ranked.len());
        if wanted == 0 || wanted >= self.ranked.len() {
            indices.extend_from_slice(self.indices());
            values.extend_from_slice(self.values());
            return;
        }
        let (larger, &mut last, _) = self.ranked.select_nth_unstable_by(wanted - 1, |a, b| b.cmp(a));
        let mut ties = wanted - larger.iter().filter(|&&size| size > last).count();
        // All are written and some of them overwritten by the next: see above.
        indices.resize(self.len, 0);
        values.resize(self.len, 0.0);
        let mut kept = 0;
        for (&index, &value) in self.indices[..self.len].iter().zip(&self.values) {
            (indices[kept], values[kept]) = (index, value);
            let size = magnitude(value);
            let tie = usize::from(size == last).min(ties);
            ties -= tie;
            kept += usize::from(size > last) + tie;
        }
        indices.truncate(kept);
        values.truncate(kept);
    }
}

/// A bit for each value whose magnitude's bits reach `least`, from the lowest on.
#[inline(always)]
fn reaching(values: &[f32; WORD], least: u32) -> u64 {
    // Magnitudes and bounds are below 2³¹, and signed integers are what every vector unit compares.
    let reaches = |value: f32| magnitude(value).cast_signed() >= least.cast_signed();
    values.iter().enumerate().fold(0, |marks, (at, &value)| marks | u64::from(reaches(value)) << at)
}

/// Coordinates in a word of marks.
const WORD: usize = u64::BITS as usize;
/// Coordinates of a word that are written without asking whether there are so many.
const ALWAYS: usize = 2;

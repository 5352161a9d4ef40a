//! The broadcast model within a mask.

use std::sync::Arc;

use super::Mask;
use crate::{Error, FrameHeader, Limits, Segments, grid};

/// The broadcast model ŵ: which coordinates are left of it, and their integers in units of [`grid::UNIT`].
#[derive(Debug, Clone, PartialEq)]
pub struct MaskedGrid {
    mask: Arc<Mask>,
    values: Vec<i32>,
}

impl MaskedGrid {
    /// The integers of what a mask leaves.
    ///
    /// # Errors
    /// [`Error::WrongLength`] when they are not as many.
    pub fn new(mask: Arc<Mask>, values: Vec<i32>) -> Result<Self, Error> {
        crate::encode::check_length(mask.segments(), values.len())?;
        Ok(Self { mask, values })
    }

    /// A model of which nothing was pruned.
    ///
    /// # Errors
    /// [`Error::WrongLength`] when there is not one integer for each coordinate.
    pub fn whole(segments: Arc<Segments>, values: Vec<i32>) -> Result<Self, Error> {
        Self::new(Arc::new(Mask::all(segments)), values)
    }

    /// What is left.
    #[must_use]
    pub fn mask(&self) -> &Arc<Mask> {
        &self.mask
    }

    /// One integer for each coordinate that is left.
    #[must_use]
    pub fn values(&self) -> &[i32] {
        &self.values
    }

    /// The integers, to be changed in place.
    pub fn values_mut(&mut self) -> &mut [i32] {
        &mut self.values
    }

    /// The whole model as floats: zero where it was pruned.
    #[must_use]
    pub fn floats(&self) -> Vec<f32> {
        let floats = grid::floats(&self.values);
        if self.mask.is_all() { floats } else { self.mask.scatter(&floats) }
    }

    /// Keeps what another mask leaves as well; what only it leaves becomes zero.
    pub fn mask_with(&mut self, mask: Arc<Mask>) {
        if *self.mask != *mask {
            self.values = self.mask.project(&mask, &self.values);
        }
        self.mask = mask;
    }

    /// Applies a frame of any kind: one that changes the mask, or one whose values are added.
    ///
    /// # Errors
    /// What is wrong with the frame; then the integers may be partly changed.
    pub fn apply(&mut self, frame: &[u8]) -> Result<(), Error> {
        if FrameHeader::parse(frame)?.kind.is_mask() {
            let mask = Arc::new(self.mask.changed(frame)?);
            self.mask_with(mask);
            return Ok(());
        }
        let segments = self.mask.segments();
        grid::apply_update(frame, segments, &Limits::for_segments(segments), &mut self.values)
    }

    /// Equal digests mean equal models with equal masks, on every machine: [`grid::digest`] of a model that was never
    /// pruned, and BLAKE3 of the mask's bits and then the integers, with a key of its own, otherwise.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let values = grid::digest(&self.values);
        if self.mask.is_all() {
            return values;
        }
        let mut hasher = blake3::Hasher::new_derive_key("dunlin 2026 masked model v1");
        hasher.update(&self.mask.to_bytes());
        hasher.update(&values);
        hasher.finalize().into()
    }
}

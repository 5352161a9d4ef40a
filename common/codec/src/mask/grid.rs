//! The broadcast model within a mask.

use std::sync::Arc;

use super::Mask;
use crate::{Encoder, Error, FrameHeader, FrameKind, Limits, Segments, checksum::append, decode, grid};

/// The broadcast model ŵ: which coordinates are left of it, and their integers in units of [`grid::UNIT`].
#[derive(Debug, Clone, PartialEq)]
pub struct MaskedGrid {
    mask: Arc<Mask>,
    values: Vec<i32>,
    announced: Option<Arc<Mask>>,
}

impl MaskedGrid {
    /// The integers of what a mask leaves.
    ///
    /// # Errors
    /// [`Error::WrongLength`] when they are not as many.
    pub fn new(mask: Arc<Mask>, values: Vec<i32>) -> Result<Self, Error> {
        crate::encode::check_length(mask.segments(), values.len())?;
        Ok(Self { mask, values, announced: None })
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

    /// The coordinates that were announced with the model for the updates to it, if any were.
    #[must_use]
    pub fn announced(&self) -> Option<&Arc<Mask>> {
        self.announced.as_ref()
    }

    /// Announces coordinates, or none.
    ///
    /// # Errors
    /// [`Error::BadValue`] for one that is not left of the model.
    pub fn announce(&mut self, announced: Option<Arc<Mask>>) -> Result<(), Error> {
        let gone = announced.as_ref().and_then(|part| part.indices().find(|&index| !self.mask.contains(index)));
        if let Some(index) = gone {
            return Err(Error::BadValue { index });
        }
        self.announced = announced;
        Ok(())
    }

    /// The frame that tells others what is announced.
    #[must_use]
    pub fn announcement(&self, encoder: &mut Encoder) -> Option<Vec<u8>> {
        let places: Vec<u32> = self.mask.places(self.announced.as_ref()?).collect();
        Some(encoder.encode_positions(FrameKind::Announced, self.mask.segments(), &places))
    }

    /// The whole model as floats: zero where it was pruned.
    #[must_use]
    pub fn floats(&self) -> Vec<f32> {
        let floats = grid::floats(&self.values);
        if self.mask.is_all() { floats } else { self.mask.scatter(&floats) }
    }

    /// Keeps what another mask leaves as well; what only it leaves becomes zero. Nothing is announced of it.
    pub fn mask_with(&mut self, mask: Arc<Mask>) {
        self.announced = None;
        if *self.mask != *mask {
            self.values = self.mask.project(&mask, &self.values);
        }
        self.mask = mask;
    }

    /// Applies a frame of any kind: one that changes the mask, one whose values are added, or one that announces
    /// coordinates. What was announced holds until the next frame.
    ///
    /// # Errors
    /// What is wrong with the frame; then the integers may be partly changed.
    pub fn apply(&mut self, frame: &[u8]) -> Result<(), Error> {
        let kind = FrameHeader::parse(frame)?.kind;
        if kind.is_mask() {
            let mask = Arc::new(self.mask.changed(frame)?);
            self.mask_with(mask);
            return Ok(());
        }
        let segments = self.mask.segments();
        if kind == FrameKind::Announced {
            let places = decode::positions(frame, kind, segments, &Limits::for_segments(segments))?;
            self.announced = Some(Arc::new(self.mask.part(&places)?));
            return Ok(());
        }
        self.announced = None;
        grid::apply_update(frame, segments, &Limits::for_segments(segments), &mut self.values)
    }

    /// Equal digests mean equal models with equal masks, on every machine: [`grid::digest`] of a model that was never
    /// pruned, and BLAKE3 of the mask's bits and then the integers, with a key of its own, otherwise. Where coordinates
    /// are announced, BLAKE3 of their bits and then that, with another key.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let model = self.digest_of_model();
        let Some(announced) = &self.announced else { return model };
        let mut hasher = blake3::Hasher::new_derive_key("dunlin 2026 announced model v1");
        hasher.update(&announced.to_bytes());
        hasher.update(&model);
        hasher.finalize().into()
    }

    /// CRC-32C of all that the digest is of: the bits of what is announced, if something is, those of the mask, if
    /// something was pruned, and the integers. It tells a model from one that a mistake made of it, in a quarter of the
    /// digest's time, and not from one that somebody made to look like it.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let mut checksum = 0;
        if let Some(announced) = &self.announced {
            checksum = append(checksum, &announced.to_bytes());
        }
        if !self.mask.is_all() {
            checksum = append(checksum, &self.mask.to_bytes());
        }
        grid::checksum(checksum, &self.values)
    }

    fn digest_of_model(&self) -> [u8; 32] {
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

//! The global model as bytes, exact to the bit.
//!
//! ```text
//! "DNLC" 0x02 | layout digest (32) | version u64 | name length u8, strategy name | vectors u8 | pruned u8 | ticket u8
//! | where pruned is 1, a bit for each of the layout's N parameters, the lowest first
//! | w: f32 × n | ŵ: i32 × n | each strategy vector: f32 × n | where ticket is 1, i32 × N
//! | where the recipe announces coordinates: what is known of their means, f32 × n | announced u8
//! | where announced is 1, a bit for each of the layout's N parameters
//! | blake3 of all before (32)                                      little endian, n parameters left of N
//! ```

use super::common::Means;
use super::{Error, GlobalModel};
use crate::strategy::{self, StateError};
use bytes::Bytes;
use dunlin_codec::{Mask, MaskedGrid};
use dunlin_core::{Digest, Layout, ModelVersion, Recipe};
use std::sync::Arc;

/// Why bytes are not a checkpoint of this model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CheckpointError {
    /// The bytes end early, go on too long, or are not those that were written.
    #[error("the checkpoint is damaged: {0}")]
    Damaged(&'static str),
    /// Another version of this program wrote it.
    #[error("the checkpoint has format {0} and this dunlin reads {FORMAT}: use the dunlin that wrote it")]
    UnknownFormat(u8),
    /// The recipe or the model has changed.
    #[error("the checkpoint is of another {0} than the recipe's")]
    OtherRecipe(&'static str),
    /// The strategy cannot take its vectors.
    #[error(transparent)]
    Strategy(#[from] StateError),
    /// The recipe's model cannot be made.
    #[error(transparent)]
    Model(#[from] Error),
}

impl GlobalModel {
    /// The whole state: w, ŵ and the strategy's vectors.
    #[must_use]
    pub fn checkpoint(&self) -> Bytes {
        let state = self.strategy.state();
        let name = self.strategy.name();
        let mut bytes = Vec::with_capacity(128 + 4 * self.w.len() * (2 + state.len()));
        bytes.extend(MAGIC);
        bytes.push(FORMAT);
        bytes.extend(self.layout.digest());
        bytes.extend(self.version.0.to_le_bytes());
        bytes.push(name.len() as u8);
        bytes.extend(name.as_bytes());
        bytes.push(state.len() as u8);
        let mask = self.broadcast.mask();
        bytes.extend([!mask.is_all(), self.ticket.is_some()].map(u8::from));
        if !mask.is_all() {
            bytes.extend(mask.to_bytes());
        }
        extend(&mut bytes, &self.w, |value| value.to_le_bytes());
        extend(&mut bytes, self.broadcast.values(), |value| value.to_le_bytes());
        for vector in state {
            extend(&mut bytes, vector, |value| value.to_le_bytes());
        }
        if let Some(ticket) = &self.ticket {
            extend(&mut bytes, ticket, |value| value.to_le_bytes());
        }
        if let Some(means) = &self.means {
            extend(&mut bytes, means.magnitudes(), |value| value.to_le_bytes());
            let announced = self.broadcast.announced().map(|announced| announced.to_bytes());
            bytes.push(announced.is_some().into());
            bytes.extend(announced.unwrap_or_default());
        }
        let digest = Digest::of(&bytes);
        bytes.extend(digest.0);
        bytes.into()
    }

    /// Goes on from a checkpoint; `initial` are the parameters that the recipe's seed gives.
    ///
    /// # Errors
    /// When the bytes are damaged or of another format, or the recipe's model or strategy is another.
    pub fn from_checkpoint(
        recipe: &Recipe,
        layout: &Layout,
        initial: &[f32],
        bytes: &[u8],
    ) -> Result<Self, CheckpointError> {
        let mut model = Self::new(recipe, layout, initial)?;
        let (content, digest) = bytes.split_last_chunk::<32>().ok_or(CheckpointError::Damaged("it is cut short"))?;
        if Digest::of(content) != Digest(*digest) {
            return Err(CheckpointError::Damaged("its digest is another"));
        }
        let mut reader = Reader(content);
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(CheckpointError::Damaged("it does not begin like one"));
        }
        match reader.byte()? {
            FORMAT => {}
            other => return Err(CheckpointError::UnknownFormat(other)),
        }
        if reader.take(32)? != layout.digest() {
            return Err(CheckpointError::OtherRecipe("model"));
        }
        model.version = ModelVersion(u64::from_le_bytes(*reader.array()?));
        let name_len = reader.byte()?.into();
        if reader.take(name_len)? != model.strategy.name().as_bytes() {
            return Err(CheckpointError::OtherRecipe("strategy"));
        }
        let vectors = reader.byte()?;
        let (is_pruned, has_ticket) = (reader.byte()? != 0, reader.byte()? != 0);
        let mut mask = Arc::clone(model.mask());
        if is_pruned {
            let bits = reader.take(layout.len().div_ceil(8))?;
            let pruned = Mask::from_bytes(Arc::clone(mask.whole()), bits);
            mask = Arc::new(pruned.map_err(|_| CheckpointError::Damaged("its mask leaves nothing"))?);
        }
        let len = mask.len();
        model.w = reader.vector(len, f32::from_le_bytes)?;
        model.mean.truncate(len);
        let values = reader.vector(len, i32::from_le_bytes)?;
        model.broadcast = Arc::new(MaskedGrid::new(mask, values).map_err(Error::Packet)?);
        let state = (0..vectors).map(|_| reader.vector(len, f32::from_le_bytes)).collect::<Result<_, _>>()?;
        model.strategy = strategy::from_config(&recipe.strategy, len);
        model.strategy.restore(state)?;
        if has_ticket {
            model.ticket = Some(Arc::new(reader.vector(layout.len(), i32::from_le_bytes)?));
        }
        if model.means.is_some() {
            model.means = Some(Means::restored(reader.vector(len, f32::from_le_bytes)?));
            if reader.byte()? != 0 {
                let bits = reader.take(layout.len().div_ceil(8))?;
                let announced = Mask::from_bytes(Arc::clone(model.mask().whole()), bits);
                let announced = announced.map_err(|_| CheckpointError::Damaged("it announces nothing"))?;
                let taken = Arc::make_mut(&mut model.broadcast).announce(Some(Arc::new(announced)));
                taken.map_err(|_| CheckpointError::Damaged("it announces what is not left"))?;
            }
        }
        if reader.0.is_empty() { Ok(model) } else { Err(CheckpointError::Damaged("bytes follow its end")) }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], CheckpointError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(CheckpointError::Damaged("it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], CheckpointError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(CheckpointError::Damaged("it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, CheckpointError> {
        Ok(self.array::<1>()?[0])
    }

    fn vector<T>(&mut self, len: usize, read: fn([u8; 4]) -> T) -> Result<Vec<T>, CheckpointError> {
        let (words, _) = self.take(4 * len)?.as_chunks();
        Ok(words.iter().map(|&word| read(word)).collect())
    }
}

fn extend<T: Copy>(bytes: &mut Vec<u8>, values: &[T], write: fn(T) -> [u8; 4]) {
    bytes.extend(values.iter().flat_map(|&value| write(value)));
}

const MAGIC: [u8; 4] = *b"DNLC";
const FORMAT: u8 = 2;

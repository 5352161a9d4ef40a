//! State in RAM, for a client that may forget when it ends.

use super::{ClientState, StateError, new_token};
use crate::work::{Residual, Update};
use bytes::Bytes;
use dunlin_codec::Segments;
use dunlin_core::message::UpdateHeader;
use dunlin_core::{ModelVersion, RunId, Token};
use std::sync::Arc;

/// A client's state in RAM; it ends with the process.
#[derive(Debug, Default)]
pub struct MemoryState {
    token: Option<Token>,
    run: Option<RunId>,
    held: Option<ModelVersion>,
    residual: Option<Arc<Residual>>,
    pending: Option<(UpdateHeader, Bytes, Option<Residual>)>,
    spent: u64,
    /// Whether the pending update is part of it.
    is_accounted: bool,
}

impl ClientState for MemoryState {
    fn token(&mut self) -> Result<Token, StateError> {
        Ok(*self.token.get_or_insert_with(new_token))
    }

    fn bind(&mut self, run: RunId) -> Result<(), StateError> {
        if self.run != Some(run) {
            *self = Self { token: self.token, run: Some(run), ..Self::default() };
        }
        Ok(())
    }

    fn held(&self) -> Option<ModelVersion> {
        self.held
    }

    fn set_held(&mut self, held: Option<ModelVersion>) -> Result<(), StateError> {
        self.held = held;
        Ok(())
    }

    fn residual(&mut self, _: &Arc<Segments>) -> Result<Option<Arc<Residual>>, StateError> {
        Ok(self.residual.clone())
    }

    fn pending(&self) -> Option<&UpdateHeader> {
        self.pending.as_ref().map(|(header, _, _)| header)
    }

    fn pending_frame(&mut self) -> Result<Bytes, StateError> {
        self.pending.as_ref().map(|(_, frame, _)| frame.clone()).ok_or(StateError::NothingPending)
    }

    fn spent(&self) -> u64 {
        self.spent
    }

    fn spend(&mut self) -> Result<(), StateError> {
        let (header, _, _) = self.pending.as_ref().ok_or(StateError::NothingPending)?;
        if !std::mem::replace(&mut self.is_accounted, true) {
            self.spent += header.frame_len;
        }
        Ok(())
    }

    fn keep(&mut self, update: Update) -> Result<(), StateError> {
        self.is_accounted = false;
        self.pending = Some((update.header, update.frame.into(), update.residual));
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StateError> {
        let (_, _, residual) = self.pending.take().ok_or(StateError::NothingPending)?;
        if let Some(residual) = residual {
            self.residual = Some(Arc::new(residual));
        }
        Ok(())
    }

    fn abandon(&mut self) -> Result<(), StateError> {
        self.pending.take().map(|_| ()).ok_or(StateError::NothingPending)
    }
}

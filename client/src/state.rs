//! What a client keeps between rounds and through its own crash.

pub mod budget;
mod directory;
mod memory;
mod models;

pub use directory::DirectoryState;
pub use memory::MemoryState;
pub use models::ModelCache;

use crate::work::{Residual, Update};
use bytes::Bytes;
use dunlin_codec::Segments;
use dunlin_core::message::UpdateHeader;
use dunlin_core::{ModelVersion, RunId, Token};
use std::path::PathBuf;
use std::sync::Arc;

/// One client's memory: its name's secret, its residual, and an update on its way to the server.
///
/// [`ClientState::keep`] and the calls that end it are a two-phase commit: the residual of an update takes the place of
/// the old one only by [`ClientState::commit`]. Every implementation runs the same contract suite.
pub trait ClientState: Send {
    /// The secret that holds the client's name; made at the first call.
    ///
    /// # Errors
    /// When it cannot be read or written.
    fn token(&mut self) -> Result<Token, StateError>;

    /// Turns to a run. What was kept for another run is forgotten.
    ///
    /// # Errors
    /// When it cannot be read or written.
    fn bind(&mut self, run: RunId) -> Result<(), StateError>;

    /// The model version that the client holds.
    fn held(&self) -> Option<ModelVersion>;

    /// Notes the model version that the client holds.
    ///
    /// # Errors
    /// When it cannot be written.
    fn set_held(&mut self, held: Option<ModelVersion>) -> Result<(), StateError>;

    /// What the last update that counted left behind, of a model with these tensors.
    ///
    /// # Errors
    /// When it cannot be read, or is of another model.
    fn residual(&mut self, whole: &Arc<Segments>) -> Result<Option<Arc<Residual>>, StateError>;

    /// The update that is neither acknowledged nor refused yet.
    fn pending(&self) -> Option<&UpdateHeader>;

    /// The pending update's frame.
    ///
    /// # Errors
    /// When it cannot be read, or there is none.
    fn pending_frame(&mut self) -> Result<Bytes, StateError>;

    /// Bytes of this run's updates that were accounted for.
    fn spent(&self) -> u64;

    /// Accounts for the bytes of the pending update, once however often it is called: before it is committed or
    /// abandoned, where clients have a budget of bytes.
    ///
    /// # Errors
    /// When it cannot be written, or nothing is pending.
    fn spend(&mut self) -> Result<(), StateError>;

    /// Keeps an update, with its residual, until it is acknowledged or refused.
    ///
    /// # Errors
    /// When it cannot be written.
    fn keep(&mut self, update: Update) -> Result<(), StateError>;

    /// The pending update counts: its residual takes the place of the old one.
    ///
    /// # Errors
    /// When it cannot be written.
    fn commit(&mut self) -> Result<(), StateError>;

    /// The pending update will never count: the old residual stands.
    ///
    /// # Errors
    /// When it cannot be written.
    fn abandon(&mut self) -> Result<(), StateError>;
}

/// Why a client cannot keep or find its state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file could not be read or written.
    #[error("client state {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A file does not hold what was written to it.
    #[error("client state {path} is damaged; remove the file to start without it")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// Another process uses the directory.
    #[error("client state {path} is in use by another process; give each client its own --state-dir")]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// There is no pending update.
    #[error("there is no pending update")]
    NothingPending,
}

/// A new secret from the operating system's generator.
pub(crate) fn new_token() -> Token {
    Token(rand::random())
}

#[cfg(test)]
mod tests;

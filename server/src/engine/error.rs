//! What ends a run that nobody meant to end.

use crate::store::StoreError;
use crate::{aggregate, global};
use dunlin_core::Digest;

/// Why a run cannot go on. Ours to mend, never a client's mistake.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The global model failed, most likely because training diverged.
    #[error(transparent)]
    Model(#[from] global::Error),
    /// A checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] global::CheckpointError),
    /// A packet in the store cannot be used.
    #[error("the store: {0}")]
    Packet(#[from] crate::packet::CutShort),
    /// An update that was verified could not be added up.
    #[error("adding up an accepted update: {0}")]
    Aggregate(#[from] aggregate::Error),
    /// The test set cannot be evaluated.
    #[error("evaluation: {0}")]
    Evaluate(#[from] dunlin_nn::Error),
    /// Computing a published round again gave another model.
    #[error(
        "round {round} gives another model than when it was published ({got:?} for {expected:?}); was the binary or the recipe changed?"
    )]
    Replay {
        /// The round.
        round: u64,
        /// The digest recorded.
        expected: Digest,
        /// The digest computed.
        got: Digest,
    },
    /// The recipe distills, and nobody was given to do it.
    #[error("distillation.kind is not \"none\", and this server was started without what distills")]
    NoDistiller,
    /// The distillation failed.
    #[error("distillation: {0}")]
    Distill(#[source] dunlin_nn::Error),
    /// The run in the store was made from another recipe.
    #[error("the run's recipe cannot be read: {0}")]
    Recipe(#[from] dunlin_core::recipe::RecipeError),
}

impl EngineError {
    /// The key of the recipe whose value is to blame, where one is.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Model(error) => error.key(),
            Self::Evaluate(error) | Self::Distill(error) => error.key(),
            _ => None,
        }
    }
}

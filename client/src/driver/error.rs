//! Why clients end before their runs do.

use crate::state::StateError;
use crate::trainer::TrainerError;
use crate::work::WorkError;
use dunlin_core::message::JoinRefused;
use dunlin_core::recipe::Width;
use dunlin_core::{ClientId, ModelVersion, Reject};
use dunlin_nn::small::NoSlices;

/// Why a client ended before its run did.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Its files failed it.
    #[error(transparent)]
    State(#[from] StateError),
    /// Its training failed.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The server's recipe cannot be read; the versions differ.
    #[error("the server's recipe cannot be used: {0}")]
    Recipe(#[from] dunlin_core::recipe::RecipeError),
    /// The client's data give another model than the server's.
    #[error(
        "the model for this client's data differs from the server's: check that shapes and classes agree with the recipe"
    )]
    OtherModel,
    /// The recipe has no clients of this width.
    #[error("--width is {width}; the recipe has clients of width {known}")]
    UnknownWidth {
        /// The client's width.
        width: Width,
        /// Those of the recipe.
        known: String,
    },
    /// The model has no smaller models within it.
    #[error("the server's recipe cannot be used: {0}")]
    NoSlices(#[from] NoSlices),
    /// The server refused the client for good.
    #[error("the server refused client {client}: {reject}")]
    Refused {
        /// The client.
        client: ClientId,
        /// Why.
        reject: Reject,
    },
    /// The server and the client speak other protocols.
    #[error(transparent)]
    OtherProtocol(JoinRefused),
    /// The fetched model is wrong although nothing held went into it.
    #[error("the server's model {version} does not agree with its own digest")]
    WrongModel {
        /// The version.
        version: ModelVersion,
    },
}

impl ClientError {
    /// The key of the recipe, or the option of the command line, whose value is to blame, where one is.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Work(error) => error.key(),
            Self::NoSlices(_) => Some("size.width"),
            Self::OtherModel => Some("--data"),
            Self::UnknownWidth { .. } => Some("--width"),
            _ => None,
        }
    }
}

impl From<TrainerError> for ClientError {
    fn from(error: TrainerError) -> Self {
        Self::Work(WorkError::Trainer(error))
    }
}

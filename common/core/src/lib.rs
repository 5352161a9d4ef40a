//! What every part of Dunlin shares: seeds, layouts, the recipe, ids, messages and their wire form.

pub mod answer;
pub mod catch_up;
pub mod exit;
pub mod id;
pub mod layout;
pub mod message;
pub mod recipe;
pub mod report;
pub mod seed;
pub mod wire;

pub use answer::{Outcome, Reject, Waiting};
pub use exit::Exit;
pub use id::{ClientId, Digest, ModelVersion, RoundId, RunId, Timestamp, Token};
pub use layout::{Layout, LayoutError, TensorSpec};
pub use recipe::Recipe;
pub use report::{Choice, Report, RoundSummary};
pub use seed::{Rng, Seed};

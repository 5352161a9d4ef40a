//! A client's own budget of bytes (`limits.client_bytes`), of which its state keeps the account.

use super::{ClientState, StateError};
use dunlin_core::Recipe;
use dunlin_core::message::TrainTask;

/// Notes the bytes of the pending update, where clients have a budget of them: for when it has been answered for, before
/// it is committed or abandoned.
///
/// # Errors
/// As [`ClientState::spend`].
pub fn account(recipe: &Recipe, state: &mut dyn ClientState) -> Result<(), StateError> {
    if recipe.limits.client_bytes > 0 { state.spend() } else { Ok(()) }
}

/// The task with a frame no longer than a client may send that has sent updates of `spent` bytes before.
#[must_use]
pub fn within(recipe: &Recipe, spent: u64, task: &TrainTask) -> TrainTask {
    TrainTask { max_bytes: recipe.client_update_bytes(task.round.number, spent, task.max_bytes), ..task.clone() }
}

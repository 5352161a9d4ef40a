//! A client's own budget of bytes (`limits.client_bytes`), of which its state keeps the account.

use super::{ClientState, StateError};
use crate::work::WorkError;
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
    let max_bytes = recipe.client_update_bytes(task.round.number, spent, task.max_bytes, task.asks);
    TrainTask { max_bytes, ..task.clone() }
}

/// Whether an update could not be encoded because the client's budget, and not the task, leaves too little for it.
#[must_use]
pub fn is_used_up(error: &WorkError, task: &TrainTask, within: &TrainTask) -> bool {
    let no_room = matches!(error, WorkError::Codec(dunlin_codec::Error::NoRoom { .. }));
    no_room && (task.max_bytes == 0 || within.max_bytes < task.max_bytes)
}

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

/// The task with a frame no longer than a client may send that has sent updates of `spent` bytes before; nothing if it may
/// never send one again.
#[must_use]
pub fn within(recipe: &Recipe, spent: u64, task: &TrainTask) -> Option<TrainTask> {
    let max_bytes = recipe.client_update_bytes(task.round.number, spent, task.max_bytes, task.asks);
    recipe.has_client_bytes(spent).then(|| TrainTask { max_bytes, ..task.clone() })
}

/// Whether an update could not be encoded because the client's budget, and not the task, leaves too little for it; if so,
/// whether that is for good, since even the shortest frame is longer than what is left.
#[must_use]
pub fn used_up(recipe: &Recipe, spent: u64, error: &WorkError, asked: &TrainTask, within: &TrainTask) -> Option<bool> {
    let WorkError::Codec(dunlin_codec::Error::NoRoom { least, .. }) = *error else { return None };
    let is_own = asked.max_bytes == 0 || within.max_bytes < asked.max_bytes;
    is_own.then(|| spent.saturating_add(least) > recipe.limits.client_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_codec::{Codec, EntropyCoder, Quantizer};
    use dunlin_core::{ModelVersion, RoundId};

    #[test]
    fn a_budget_that_is_too_small_for_now_is_told_from_one_that_is_used_up_and_from_a_task_that_allows_too_little() {
        let recipe = Recipe::load(None, &["limits.client_bytes=10000".into()]).unwrap();
        let task = |max_bytes| TrainTask {
            round: RoundId { term: 1, number: 3 },
            base: ModelVersion(2),
            deadline_ms: 1000,
            codec: Codec { density: 0.1, quantizer: Quantizer::Ternary, coder: EntropyCoder::Auto },
            max_bytes,
            asks: 4,
        };
        let no_room = WorkError::Codec(dunlin_codec::Error::NoRoom { bytes: 500, least: 600 });
        let told = |spent, error: &WorkError, allowed| {
            used_up(&recipe, spent, error, &task(allowed), &within(&recipe, spent, &task(allowed)).unwrap())
        };
        assert_eq!(within(&recipe, 9990, &task(0)), None);
        assert_eq!(told(8000, &no_room, 0), Some(false), "2000 bytes are left for four updates");
        assert_eq!(told(9500, &no_room, 0), Some(true), "500 bytes are left");
        assert_eq!(told(0, &no_room, 500), None, "the task allows 500");
        assert_eq!(told(9500, &WorkError::Codec(dunlin_codec::Error::NoRate), 0), None);
    }
}

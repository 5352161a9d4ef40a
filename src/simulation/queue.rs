//! What is going to happen, in order of simulated time.

use super::turn::Turn;
use dunlin_client::participant::Event;
use dunlin_core::Timestamp;
use dunlin_core::message::{CheckIn, EvaluationReport, FetchModel, Join, Session, UpdateHeader};
use std::collections::BTreeMap;

/// Something that happens to or by one client.
pub(super) enum Happening {
    /// A call of it reaches the server.
    Call(Call),
    /// An answer reaches it, or what it waited for is over.
    Heard(Event),
    /// It says that it is still at work; `until` is when that work ends.
    Beat {
        /// Which of its pieces of work; others are over.
        episode: u64,
        /// When it ends.
        until: Timestamp,
    },
    /// Its computation ends.
    Computed {
        /// As in `Beat`.
        episode: u64,
        /// Its place among those that end at the same time.
        turn: Turn,
    },
}

/// A call to the server.
pub(super) enum Call {
    Join(Join),
    CheckIn(CheckIn),
    Fetch(FetchModel),
    AskOffset(Session, UpdateHeader),
    /// The header of an upload.
    Announce(Session, UpdateHeader),
    /// The last byte of an upload that was sent so many times.
    Upload(Session, UpdateHeader, u64),
    Report(Session, EvaluationReport),
}

/// An event queue. What is due at one time happens in the order in which it was foreseen, but computations end last, by
/// their turns: an update goes all its way before the next one is asked of the threads, so that only a few frames exist
/// at once.
#[derive(Default)]
pub(super) struct Queue {
    due: BTreeMap<(Timestamp, Option<Turn>, u64), (u32, Happening)>,
    foreseen: u64,
}

impl Queue {
    pub(super) fn push(&mut self, at: Timestamp, client: u32, happening: Happening) {
        let turn = if let Happening::Computed { turn, .. } = happening { Some(turn) } else { None };
        self.foreseen += 1;
        self.due.insert((at, turn, self.foreseen), (client, happening));
    }

    /// When the next thing happens.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.due.first_key_value().map(|(&(at, _, _), _)| at)
    }

    pub(super) fn pop(&mut self) -> Option<(Timestamp, u32, Happening)> {
        self.due.pop_first().map(|((at, _, _), (client, happening))| (at, client, happening))
    }
}

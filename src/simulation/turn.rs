//! In which order the updates of a round come that nothing else puts in order.

use dunlin_client::driver::{Gate, Passing};
use dunlin_core::{ClientId, RoundId, Seed};
use dunlin_server::coordinator::PhaseName;
use dunlin_server::driver::Handle;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// A client's place in the order of a round: drawn, so that where a round does not wait for all
/// (`rounds.over_selection`) nobody is always among the first, and derived from the seed, so that it is the same in
/// each run. Earlier rounds come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Turn {
    round: u64,
    draw: u64,
}

impl Turn {
    pub(super) fn new(seed: &Seed, round: u64, client: &ClientId) -> Self {
        Self { round, draw: seed.derive_client(round, client.as_str(), "turn").word() }
    }
}

/// Brings updates to a server in the order of their turns, although they are trained in real time: those of a round
/// wait until all of its cohort are there, and each then until the one before it has been answered.
pub(super) struct Turnstile {
    server: Handle,
    seed: Seed,
    round: Arc<Mutex<Queued>>,
    /// Somebody has come, or passed.
    changed: Arc<Notify>,
}

/// The updates of one round.
#[derive(Default)]
struct Queued {
    round: Option<RoundId>,
    /// Whether each that has come has passed.
    passed: BTreeMap<(Turn, ClientId), bool>,
}

impl Turnstile {
    pub(super) fn new(server: Handle, seed: Seed) -> Self {
        Self { server, seed, round: Arc::default(), changed: Arc::default() }
    }

    /// How many the round has asked; nothing when it is over.
    async fn asked(&self, round: RoundId) -> Option<usize> {
        let view = self.server.status().await.ok()?.view;
        (view.phase == PhaseName::Training && view.round == round.number).then_some(view.chosen as usize)
    }

    async fn wait(&self, client: ClientId, round: RoundId) -> Option<Passed> {
        let place = (Turn::new(&self.seed, round.number, &client), client);
        {
            let mut queued = lock(&self.round);
            if queued.round < Some(round) {
                *queued = Queued { round: Some(round), passed: BTreeMap::new() };
            } else if queued.round > Some(round) {
                return None;
            }
            queued.passed.insert(place.clone(), false);
        }
        self.changed.notify_waiters();
        let asked = self.asked(round).await?;
        loop {
            let changed = self.changed.notified();
            {
                let queued = lock(&self.round);
                if queued.round != Some(round) {
                    return None;
                }
                let first = queued.passed.iter().find(|&(_, &passed)| !passed);
                if queued.passed.len() >= asked && first.is_some_and(|(first, _)| *first == place) {
                    let (round, changed) = (Arc::clone(&self.round), Arc::clone(&self.changed));
                    return Some(Passed { place, round, changed });
                }
            }
            changed.await;
        }
    }
}

impl Gate for Turnstile {
    fn pass<'a>(&'a self, client: &ClientId, round: RoundId) -> Passing<'a> {
        let client = client.clone();
        Box::pin(async move { Box::new(self.wait(client, round).await) as _ })
    }
}

/// Lets the next one pass when it is dropped.
struct Passed {
    place: (Turn, ClientId),
    round: Arc<Mutex<Queued>>,
    changed: Arc<Notify>,
}

impl Drop for Passed {
    fn drop(&mut self) {
        if let Some(passed) = lock(&self.round).passed.get_mut(&self.place) {
            *passed = true;
        }
        self.changed.notify_waiters();
    }
}

fn lock(round: &Mutex<Queued>) -> MutexGuard<'_, Queued> {
    // No statement that can panic leaves it half changed.
    round.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Carries out what a [`Participant`] decides: calls, files, training, pauses.

mod compute;
mod error;
mod shared;
mod tasks;

pub use compute::Compute;
pub use error::ClientError;
pub use shared::{Gate, Pass, Passing, Prepare, Shared, Workplace};

use crate::participant::{Action, End, Event, Participant};
use crate::state::{ClientState, budget};
use crate::transport::{Answer, Disconnected, Transport};
use bytes::Bytes;
use compute::blocking;
use dunlin_core::message::JoinRefused;
use dunlin_core::recipe::Width;
use dunlin_core::{ClientId, Reject};
use dunlin_nn::small::Slice;
use serde::Serialize;
use shared::Prepared;
use std::sync::Arc;
use std::time::Duration;
use tasks::{Trained, evaluate, fetch_model, train};
use tracing::{debug, info, warn};

/// What a client tells those who watch it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Told<'a> {
    /// It has joined a run, and its data and model are loaded.
    Joined {
        /// Its name.
        client: &'a ClientId,
        /// The run's id.
        run: String,
        /// Training examples at hand.
        examples: u32,
        /// How much of the model it has.
        width: Width,
    },
    /// It trains for a round.
    Training {
        /// Its name.
        client: &'a ClientId,
        /// The round.
        round: u64,
    },
    /// Its update counts.
    Accepted {
        /// Its name.
        client: &'a ClientId,
        /// The round.
        round: u64,
        /// Length of the update's frame.
        bytes: u64,
    },
    /// Its update does not count.
    Refused {
        /// Its name.
        client: &'a ClientId,
        /// The round.
        round: u64,
        /// The reason's label.
        reason: &'static str,
    },
    /// The run is over.
    Ended {
        /// Its name.
        client: &'a ClientId,
        /// How, as a label.
        outcome: &'static str,
    },
}

/// Takes what clients tell.
pub type Tell = dyn Fn(&Told<'_>) + Send + Sync;

/// Runs one client until its run ends.
///
/// # Errors
/// When the client's own data, files or training fail, or the server refuses it for good. A server that cannot be
/// reached is none: it is tried again, with growing pauses.
pub async fn run(
    client: ClientId,
    mut state: Box<dyn ClientState>,
    mut transport: Transport,
    shared: Arc<Shared>,
    wait_ms: u64,
) -> Result<End, ClientError> {
    let mut participant = Participant::new(client.clone(), state.token()?, wait_ms);
    let mut prepared = None;
    let mut told_of_holder = false;
    // Held for as long as an update is on its way.
    let mut _pass = None;
    loop {
        let event = match participant.action() {
            Action::Join(join) => {
                let answer = match transport.join(&join).await {
                    Ok(Err(refused @ JoinRefused { reject: Reject::ProtocolTooOld | Reject::ProtocolTooNew, .. })) => {
                        return Err(ClientError::OtherProtocol(refused));
                    }
                    answer => answer.map(|welcome| welcome.map_err(|refused| refused.reject)),
                };
                if matches!(answer, Ok(Err(Reject::WrongSession))) && !std::mem::replace(&mut told_of_holder, true) {
                    warn!(
                        client = %client,
                        "another client holds this name: waiting until it has been silent for rounds.idle_timeout_s; \
                         give each client its own --id, and a --state-dir to be known again after a restart"
                    );
                }
                answered(&client, answer, Event::Joined)
            }
            Action::Prepare(welcome) => {
                let (run, name, process) = (welcome.run, client.clone(), shared.clone());
                let (ready, examples) = blocking(move || {
                    let prepared = process.prepared(&welcome, &name)?;
                    let examples = prepared.workplace.examples(&name)?;
                    Ok::<_, ClientError>((prepared, examples))
                })
                .await?;
                state.bind(run)?;
                let held = state.held().filter(|&version| ready.models.reclaim(version));
                let width = ready.slice.as_ref().map_or(Width::WHOLE, Slice::width);
                prepared = Some(ready);
                info!(client = %client, %run, examples, %width, "joined");
                (shared.tell)(&Told::Joined { client: &client, run: run.to_string(), examples, width });
                Event::Ready { examples, width, held, pending: state.pending().cloned() }
            }
            Action::CheckIn(check_in) => answered(&client, transport.check_in(&check_in).await, Event::Assigned),
            Action::Fetch(fetch) => fetch_model(&fetch, &mut *state, &mut transport, needed(&prepared)).await?,
            Action::Train(task) => {
                let session = participant.session().expect("a client that trains has joined");
                let report = transport.clone();
                let prepared = needed(&prepared).clone();
                let budget = prepared.recipe.limits.client_bytes;
                (shared.tell)(&Told::Training { client: &client, round: task.round.number });
                match train(&client, &task, (&mut *state, &shared, prepared), (report, session)).await? {
                    Trained::Update(update, pass) => {
                        _pass = pass;
                        let header = update.header.clone();
                        state.keep(*update)?;
                        Event::Trained(header)
                    }
                    Trained::Stopped => Event::TrainingStopped,
                    Trained::OutOfBytes { for_good } => {
                        let (sent, what) =
                            (state.spent(), if for_good { "any further one" } else { "an update of this round" });
                        info!(client = %client, sent, budget, "limits.client_bytes leaves too little for {what}");
                        Event::OutOfBytes { for_good }
                    }
                }
            }
            Action::AskOffset(session, header) => {
                answered(&client, transport.upload_offset(&session, &header).await, Event::Offset)
            }
            Action::Upload(session, header, offset) => {
                let frame: Bytes = state.pending_frame()?;
                let answer = transport.upload(&session, &header, &frame, offset).await;
                answered(&client, answer, Event::Uploaded)
            }
            Action::Commit(header) => {
                budget::account(&needed(&prepared).recipe, &mut *state)?;
                state.commit()?;
                info!(client = %client, round = header.round.number, bytes = header.frame_len, "update accepted");
                let (round, bytes) = (header.round.number, header.frame_len);
                (shared.tell)(&Told::Accepted { client: &client, round, bytes });
                _pass = None;
                Event::Done
            }
            Action::Abandon(header, reject) => {
                budget::account(&needed(&prepared).recipe, &mut *state)?;
                state.abandon()?;
                warn!(client = %client, round = header.round.number, reject = reject.label(), "update refused: {reject}");
                let (round, reason) = (header.round.number, reject.label());
                (shared.tell)(&Told::Refused { client: &client, round, reason });
                _pass = None;
                Event::Done
            }
            Action::Evaluate(task) => {
                Event::Evaluated(evaluate(&client, task, &shared, needed(&prepared).clone()).await?)
            }
            Action::Report(session, report) => {
                answered(&client, transport.report(&session, &report).await, Event::Reported)
            }
            Action::Pause { ms, reason } => {
                debug!(client = %client, ms, reason = reason.label(), "waiting");
                // The server tells all that wait the same time: they had better not come back together.
                tokio::time::sleep(Duration::from_millis(ms).mul_f64(1.0 + rand::random::<f64>() / 4.0)).await;
                Event::Done
            }
            Action::BackOff { failures } => {
                tokio::time::sleep(back_off(failures, rand::random())).await;
                Event::Done
            }
            Action::Stop(End::Refused(reject)) => return Err(ClientError::Refused { client, reject }),
            Action::Stop(end @ End::Finished(outcome)) => {
                (shared.tell)(&Told::Ended { client: &client, outcome: outcome.label() });
                return Ok(end);
            }
        };
        participant.on(event);
    }
}

/// Pause before the call after `failures` failed ones: doubling from 100 ms to 20 s, of which a random half is taken
/// off so that clients which lost the same server do not return in step.
fn back_off(failures: u32, random: f64) -> Duration {
    let full = 100.0 * f64::from(2u32.pow(failures.saturating_sub(1).min(8)));
    Duration::from_secs_f64(full.min(20_000.0) * (0.5 + random / 2.0) / 1000.0)
}

fn needed(prepared: &Option<Arc<Prepared>>) -> &Arc<Prepared> {
    prepared.as_ref().expect("a client prepares before it is given work")
}

fn answered<T>(client: &ClientId, answer: Answer<T>, event: impl FnOnce(Result<T, Reject>) -> Event) -> Event {
    match answer {
        Ok(answer) => event(answer),
        Err(error) => disconnected(client, &error),
    }
}

fn disconnected(client: &ClientId, error: &Disconnected) -> Event {
    warn!(client = %client, "the server cannot be reached: {error}");
    Event::Disconnected
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_keep_half_of_it_at_least() {
        assert_eq!(back_off(1, 0.0), Duration::from_millis(50));
        assert_eq!(back_off(1, 1.0), Duration::from_millis(100));
        assert_eq!(back_off(3, 1.0), Duration::from_millis(400));
        assert_eq!(back_off(40, 1.0), Duration::from_millis(20_000));
    }
}

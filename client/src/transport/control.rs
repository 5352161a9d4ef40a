//! What people and scripts ask a server: its runs, its state, its rounds as they end, a stop, a probe of the link.

use super::{BadUrl, CALL_TIMEOUT, Disconnected, connect, timed};
use dunlin_core::{Choice, Outcome, Report, RoundSummary};
use dunlin_proto::v1;
use dunlin_proto::v1::control_client::ControlClient;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// A connection for the control calls. It connects when first used and again after each break.
#[derive(Clone, Debug)]
pub struct ControlTransport {
    control: ControlClient<Channel>,
}

/// A run, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its id, in hexadecimal.
    pub id: String,
    /// The recipe's name.
    pub name: String,
    /// When it was created, in milliseconds since the Unix epoch; 0 when that is not known.
    pub created_ms: u64,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// Rounds so far.
    pub rounds: u64,
}

/// The state of the current run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunState {
    /// The run.
    pub run: Run,
    /// Counts server starts, from 1.
    pub term: u32,
    /// What is going on: `gathering`, `training`, `evaluating`, `publishing` or `finished`.
    pub phase: String,
    /// The last round opened.
    pub round: u64,
    /// The newest model version.
    pub version: u64,
    /// Clients that have joined.
    pub clients: u32,
    /// Of them, those seen lately.
    pub live: u32,
    /// Clients among which the members of the open round were chosen; 0 from a server that does not tell.
    pub eligible: u32,
    /// Clients asked in the open round.
    pub chosen: u32,
    /// Why these; nothing from a server that does not tell.
    pub choice: Option<Choice>,
    /// Of them, those that have reported.
    pub reported: u32,
    /// Of them, those that were lost.
    pub lost: u32,
    /// Refusals since the server started.
    pub refusals: Vec<Refusals>,
    /// The last round that ended.
    pub last_round: Option<RoundSummary>,
    /// Parameters of the model.
    pub params: u64,
    /// The recipe, as TOML.
    pub recipe: String,
    /// The protocol versions that the server accepts.
    pub protocols: RangeInclusive<u32>,
    /// The version of the server's program; nothing from a server that does not tell.
    pub program: Option<String>,
    /// Parameters that are left of the model; nothing from a server that does not tell.
    pub kept: Option<u64>,
    /// Longest frame of an update in the open round, or else the next one, in bytes; 0 for no such bound, and from a server
    /// that does not tell.
    pub max_update_bytes: u64,
    /// Median time from a task to its update over the clients of the last few rounds, in seconds; nothing before anything
    /// is known of it, and from a server that does not tell.
    pub client_seconds: Option<f64>,
    /// Of a distillation under way, the steps made and all of them, 0 while these are not known.
    pub distilling: Option<(u64, u64)>,
}

/// How often a client was refused for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusals {
    /// The reason's label.
    pub reason: String,
    /// The client; nothing when it gave no usable name.
    pub client: Option<String>,
    /// How often.
    pub count: u64,
}

/// What a watched run tells, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum RunEvent {
    /// A round ended, or its summary learned more.
    Round(Box<RoundSummary>),
    /// The run ended.
    Report(Box<Report>),
}

/// The events of a run that is watched.
pub struct Watch(tonic::Streaming<v1::WatchRunReply>);

impl ControlTransport {
    /// A transport to `http://HOST:PORT`.
    ///
    /// # Errors
    /// When the URL is not one.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(url: &str) -> Result<Self, BadUrl> {
        Ok(Self::over(connect(url)?))
    }

    /// A transport over a channel that exists, such as one end of a pipe in a test.
    #[must_use]
    pub fn over(channel: Channel) -> Self {
        Self { control: ControlClient::new(channel) }
    }

    /// All runs in the server's data directory, newest first.
    ///
    /// # Errors
    /// When the call did not get through.
    pub async fn runs(&mut self) -> Result<Vec<Run>, Disconnected> {
        let reply = self.control.list_runs(timed(v1::ListRunsRequest {}, CALL_TIMEOUT)).await?.into_inner();
        Ok(reply.runs.into_iter().map(Run::from).collect())
    }

    /// The state of the current run.
    ///
    /// # Errors
    /// When the call did not get through, or the server's answer is not understood.
    pub async fn status(&mut self) -> Result<RunState, Disconnected> {
        let reply = self.control.status(timed(v1::StatusRequest {}, CALL_TIMEOUT)).await?.into_inner();
        RunState::try_from(reply)
    }

    /// The rounds that have ended and, from now on, each that does, until the run ends.
    ///
    /// # Errors
    /// When the call did not get through.
    pub async fn watch(&mut self) -> Result<Watch, Disconnected> {
        Ok(Watch(self.control.watch_run(v1::WatchRunRequest {}).await?.into_inner()))
    }

    /// Ends the current run.
    ///
    /// # Errors
    /// When the call did not get through.
    pub async fn stop(&mut self) -> Result<(), Disconnected> {
        self.control.stop_run(timed(v1::StopRunRequest {}, CALL_TIMEOUT)).await?;
        Ok(())
    }

    /// Sends `up` bytes, receives `down` bytes (at most [`MAX_PROBE_BYTES`] each), and returns how long it took.
    ///
    /// # Errors
    /// When the call did not get through, or fewer bytes came back.
    pub async fn probe(&mut self, up: usize, down: usize) -> Result<Duration, Disconnected> {
        let (up, down) = (up.min(MAX_PROBE_BYTES), down.min(MAX_PROBE_BYTES));
        let request = v1::ProbeRequest { payload: vec![0; up].into(), reply_bytes: down as u32 };
        let sent = Instant::now();
        let reply = self.control.probe(timed(request, CALL_TIMEOUT)).await?.into_inner();
        let took = sent.elapsed();
        match reply.payload.len() {
            len if len == down => Ok(took),
            len => Err(Disconnected(format!("{down} bytes were asked for and {len} came back"))),
        }
    }
}

impl Watch {
    /// The next event, when it happens; nothing when the server has ended without one.
    ///
    /// # Errors
    /// When the link broke, or the server's answer is not understood.
    pub async fn next(&mut self) -> Result<Option<RunEvent>, Disconnected> {
        use v1::watch_run_reply::Event;
        let event = match self.0.message().await? {
            None => return Ok(None),
            Some(message) => message.event,
        };
        match event {
            Some(Event::Round(json)) => Ok(Some(RunEvent::Round(parse(&json)?))),
            Some(Event::Report(json)) => Ok(Some(RunEvent::Report(parse(&json)?))),
            None => Err(Disconnected("the server sent an event that this dunlin does not know".into())),
        }
    }
}

impl From<v1::Run> for Run {
    fn from(run: v1::Run) -> Self {
        let v1::Run { id, name, created_ms, outcome, rounds } = run;
        Self { id, name, created_ms, outcome: Outcome::from_number(outcome), rounds }
    }
}

impl TryFrom<v1::StatusReply> for RunState {
    type Error = Disconnected;

    fn try_from(reply: v1::StatusReply) -> Result<Self, Disconnected> {
        let refusals = reply.rejects.into_iter().map(|row| Refusals {
            reason: row.reason,
            client: Some(row.client).filter(|client| !client.is_empty()),
            count: row.count,
        });
        Ok(Self {
            run: reply.run.ok_or_else(|| Disconnected("the server told no run".into()))?.into(),
            term: reply.term,
            phase: reply.phase,
            round: reply.round,
            version: reply.version,
            clients: reply.clients,
            live: reply.live,
            eligible: reply.eligible,
            chosen: reply.chosen,
            choice: Choice::from_label(&reply.choice),
            reported: reply.reported,
            lost: reply.lost,
            refusals: refusals.collect(),
            last_round: if reply.last_round.is_empty() { None } else { Some(parse(&reply.last_round)?) },
            params: reply.params,
            recipe: reply.recipe,
            protocols: reply.protocol_oldest..=reply.protocol_newest,
            program: Some(reply.program).filter(|program| !program.is_empty()),
            kept: Some(reply.kept).filter(|&kept| kept > 0),
            max_update_bytes: reply.max_update_bytes,
            client_seconds: reply.client_seconds.filter(|seconds| seconds.is_finite() && *seconds >= 0.0),
            distilling: reply.distilling.map(|it| (it.done, it.total)),
        })
    }
}

fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, Disconnected> {
    serde_json::from_str(json).map_err(|error| Disconnected(format!("the server's answer is not understood: {error}")))
}

/// Most bytes of a probe in either direction, as the protocol says.
pub const MAX_PROBE_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_without_run_or_with_a_wrong_summary_is_not_understood() {
        let run = v1::Run { id: "00".into(), name: "x".into(), created_ms: 5, outcome: 1, rounds: 2 };
        assert!(RunState::try_from(v1::StatusReply::default()).is_err());
        let wrong = v1::StatusReply { run: Some(run.clone()), last_round: "7".into(), ..Default::default() };
        assert!(RunState::try_from(wrong).is_err());
        let rejects = vec![v1::RejectCount { reason: "late".into(), client: String::new(), count: 3 }];
        let state = RunState::try_from(v1::StatusReply { run: Some(run), rejects, ..Default::default() }).unwrap();
        assert_eq!(state.run.outcome, Some(Outcome::Completed));
        assert_eq!(state.refusals, [Refusals { reason: "late".into(), client: None, count: 3 }]);
        assert_eq!(state.last_round, None);
        let untold = (None, None, 0, None);
        assert_eq!((state.program, state.kept, state.max_update_bytes, state.client_seconds), untold);
    }
}

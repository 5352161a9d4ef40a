//! What people and scripts call: runs, status, watching, stopping.

use crate::driver::{Handle, NoAnswer, RunEvent, Status as RunStatus};
use crate::store::RunRow;
use dunlin_core::{Choice, Outcome};
use dunlin_proto::v1;
use dunlin_proto::v1::control_server::Control;
use std::pin::Pin;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

/// The control service before an engine.
pub struct ControlService {
    handle: Handle,
}

impl ControlService {
    /// The service before an engine.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn list_runs(&self, _: Request<v1::ListRunsRequest>) -> Result<Response<v1::ListRunsReply>, Status> {
        let runs = self.handle.runs().await.map_err(no_answer)?;
        Ok(Response::new(v1::ListRunsReply { runs: runs.into_iter().map(run).collect() }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::StatusReply>, Status> {
        let RunStatus { view, run: row, last_round, params, kept, distilling, .. } =
            self.handle.status().await.map_err(no_answer)?;
        let rejects = view.rejects.into_iter().map(|(reject, client, count)| v1::RejectCount {
            reason: reject.label().into(),
            client: client.map(|client| client.to_string()).unwrap_or_default(),
            count,
        });
        Ok(Response::new(v1::StatusReply {
            recipe: row.recipe.clone(),
            run: Some(run(row)),
            term: view.term,
            phase: view.phase.label().into(),
            round: view.round,
            version: view.version.0,
            clients: view.clients,
            live: view.live,
            eligible: view.eligible,
            chosen: view.chosen,
            choice: view.choice.map(Choice::label).unwrap_or_default().into(),
            reported: view.reported,
            lost: view.lost,
            rejects: rejects.collect(),
            last_round: last_round.map(|summary| json(&summary)).unwrap_or_default(),
            params,
            protocol_oldest: dunlin_core::message::PROTOCOL_OLDEST,
            protocol_newest: dunlin_core::message::PROTOCOL,
            program: env!("CARGO_PKG_VERSION").into(),
            kept,
            max_update_bytes: view.max_bytes,
            client_seconds: view.client_ms.map(|ms| ms as f64 / 1000.0),
            distilling: distilling.map(|(done, total)| v1::Progress { done, total }),
        }))
    }

    type WatchRunStream = Pin<Box<dyn Stream<Item = Result<v1::WatchRunReply, Status>> + Send>>;

    async fn watch_run(&self, _: Request<v1::WatchRunRequest>) -> Result<Response<Self::WatchRunStream>, Status> {
        use v1::watch_run_reply::Event;
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let handle = self.handle.clone();
        tokio::spawn(async move {
            let mut index = 0;
            while let Some(event) = handle.event(index).await {
                index += 1;
                let (event, last) = match event {
                    RunEvent::Round(summary) => (Event::Round(json(&summary)), false),
                    RunEvent::Report(report) => (Event::Report(json(&report)), true),
                };
                if sender.send(Ok(v1::WatchRunReply { event: Some(event) })).await.is_err() || last {
                    break;
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }

    async fn stop_run(&self, _: Request<v1::StopRunRequest>) -> Result<Response<v1::StopRunReply>, Status> {
        self.handle.stop().await.map_err(no_answer)?;
        Ok(Response::new(v1::StopRunReply {}))
    }

    async fn probe(&self, request: Request<v1::ProbeRequest>) -> Result<Response<v1::ProbeReply>, Status> {
        let bytes = request.get_ref().reply_bytes.min(MAX_PROBE_BYTES) as usize;
        Ok(Response::new(v1::ProbeReply { payload: vec![0; bytes].into() }))
    }
}

fn run(row: RunRow) -> v1::Run {
    v1::Run {
        id: row.id.to_string(),
        name: row.name,
        created_ms: row.created_ms,
        outcome: row.outcome.map_or(0, Outcome::number),
        rounds: row.rounds,
    }
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("summaries and reports hold only numbers, strings and lists")
}

fn no_answer(no_answer: NoAnswer) -> Status {
    match no_answer {
        NoAnswer::Busy => Status::unavailable("the server is busy: try again"),
        NoAnswer::Gone => Status::unavailable("the server is stopping"),
    }
}

/// Longest answer to a probe of the link.
const MAX_PROBE_BYTES: u32 = 1 << 20;

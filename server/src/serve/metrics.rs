//! `GET /metrics` in the Prometheus text format.

use crate::driver::{Handle, Status};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::sync::atomic::AtomicU64;
use tokio::net::TcpListener;

/// Answers until the process ends.
pub(super) async fn serve(listener: TcpListener, handle: Handle) {
    let app = Router::new().route("/metrics", get(scrape)).with_state(handle);
    if let Err(error) = axum::serve(listener, app).await {
        tracing::error!(%error, "metrics are no longer served");
    }
}

async fn scrape(State(handle): State<Handle>) -> Response {
    let Ok(status) = handle.status().await else {
        return (StatusCode::SERVICE_UNAVAILABLE, "the server is busy or stopping\n").into_response();
    };
    match metrics_text(&status) {
        Ok(text) => {
            ([("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

type FloatGauge = Gauge<f64, AtomicU64>;

/// A status in the Prometheus text format. The values are taken from the coordinator at each scrape, so there is nothing to keep in step.
///
/// # Errors
/// When the text cannot be written.
pub fn metrics_text(status: &Status) -> Result<String, std::fmt::Error> {
    let mut registry = Registry::with_prefix("dunlin");
    let mut gauge = |name: &str, help: &str, value: f64| {
        let gauge = FloatGauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    let view = &status.view;
    gauge("round", "Last round opened", view.round as f64);
    gauge("model_version", "Newest version published", view.version.0 as f64);
    gauge("term", "Server starts of the run", f64::from(view.term));
    gauge("clients", "Clients that have joined", f64::from(view.clients));
    gauge("clients_live", "Clients seen lately", f64::from(view.live));
    gauge("cohort", "Clients asked in the open round", f64::from(view.chosen));
    gauge("cohort_reported", "Clients whose part in the open round is done", f64::from(view.reported));
    gauge("cohort_lost", "Clients lost in the open round", f64::from(view.lost));
    gauge("parameters", "Parameters of the model", status.params as f64);
    gauge("parameters_left", "Of them, those that are not pruned", status.kept as f64);
    if let Some(ms) = view.client_ms {
        gauge("client_seconds", "Median time from task to update in the last rounds", ms as f64 / 1000.0);
    }
    let (done, total) = status.distilling.unwrap_or_default();
    gauge("distillation_steps", "Steps made of a distillation under way; 0 while there is none", done as f64);
    gauge("distillation_steps_total", "All steps of a distillation under way; 0 while there is none", total as f64);
    gauge("up_bytes", "Frame bytes received", status.bytes.up as f64);
    gauge("down_bytes", "Frame bytes sent", status.bytes.down as f64);
    gauge("up_dense_bytes", "What the uploads had cost as f32", status.bytes.up_dense as f64);
    gauge("down_dense_bytes", "What the downloads had cost as f32", status.bytes.down_dense as f64);
    gauge("sync_seconds", "Time spent making rows and frames durable", status.timings.sync.as_secs_f64());
    gauge("sum_seconds", "Time spent adding up updates", status.timings.sum.as_secs_f64());
    gauge("publish_seconds", "Time spent computing models and packets", status.timings.publish.as_secs_f64());
    gauge("vet_seconds", "Time spent checking frames", status.timings.vet.as_secs_f64());
    gauge("decide_seconds", "Time spent on decisions and answers", status.timings.decide.as_secs_f64());
    gauge("evaluate_seconds", "Time spent evaluating", status.timings.evaluate.as_secs_f64());
    if let Some(round) = &status.last_round {
        gauge("train_loss", "Mean training loss of the last round", round.train_loss);
        if let Some(accuracy) = round.accuracy {
            gauge("accuracy", "Test accuracy after the last round", accuracy);
        }
        if let Some(own) = &round.federated {
            gauge("federated_accuracy", "Accuracy on clients' own data after the last round", own.accuracy);
            gauge("federated_loss", "Mean loss on clients' own data after the last round", own.loss);
        }
    }
    let rejects = Family::<Vec<(String, String)>, Gauge>::default();
    for (reject, client, count) in &view.rejects {
        let client = client.as_ref().map(ToString::to_string).unwrap_or_default();
        let labels = vec![("reason".to_owned(), reject.label().to_owned()), ("client".to_owned(), client)];
        rejects.get_or_create(&labels).set(i64::try_from(*count).unwrap_or(i64::MAX));
    }
    registry.register("rejects", "Messages refused since the server started", rejects);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::{PhaseName, StatusView};
    use crate::store::RunRow;
    use dunlin_core::{Choice, ClientId, Digest, ModelVersion, Reject, RunId};

    #[test]
    fn refusals_are_told_by_reason_and_client() {
        let client = ClientId::new("ward-7").unwrap();
        let view = StatusView {
            phase: PhaseName::Training,
            term: 2,
            round: 5,
            version: ModelVersion(4),
            clients: 3,
            live: 2,
            eligible: 2,
            chosen: 2,
            choice: Some(Choice::AllEligible),
            reported: 1,
            lost: 0,
            max_bytes: 0,
            client_ms: Some(2500),
            rejects: vec![(Reject::NotANumber, Some(client), 7), (Reject::Malformed, None, 1)],
        };
        let run = RunRow {
            id: RunId([1; 8]),
            name: "x".into(),
            recipe: String::new(),
            recipe_digest: Digest([0; 32]),
            created_ms: 0,
            outcome: None,
            rounds: 4,
        };
        let status = Status {
            view,
            run,
            last_round: None,
            bytes: dunlin_core::report::Bytes { up: 10, ..Default::default() },
            params: 100,
            kept: 60,
            distilling: Some((30, 40)),
            timings: crate::engine::Timings::default(),
        };
        let text = metrics_text(&status).unwrap();
        for line in [
            "dunlin_rejects{reason=\"not_a_number\",client=\"ward-7\"} 7",
            "dunlin_rejects{reason=\"malformed\",client=\"\"} 1",
            "dunlin_round 5.0",
            "dunlin_up_bytes 10.0",
            "dunlin_parameters_left 60.0",
            "dunlin_client_seconds 2.5",
            "dunlin_distillation_steps 30.0",
            "dunlin_distillation_steps_total 40.0",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in {text}");
        }
    }
}

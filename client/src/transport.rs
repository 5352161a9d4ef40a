//! The calls of a client, over gRPC.

pub mod control;

use bytes::{Bytes, BytesMut};
use dunlin_core::message::{
    Assignment, CatchUp, CheckIn, EvaluationReport, FetchModel, Join, JoinRefused, Session, UpdateHeader, Welcome,
};
use dunlin_core::wire::{self, CHUNK_BYTES, Held, Uploaded};
use dunlin_core::{Reject, RoundId};
use dunlin_proto::v1;
use dunlin_proto::v1::federation_client::FederationClient;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

/// The call did not get through, or what came back was not an answer. It may be tried again.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Disconnected(String);

impl From<tonic::Status> for Disconnected {
    fn from(status: tonic::Status) -> Self {
        Self(format!("{}: {}", status.code(), status.message()))
    }
}

/// A server's address that is no address.
#[derive(Debug, thiserror::Error)]
#[error("server {url:?} is not an address; write it as http://HOST:PORT")]
pub struct BadUrl {
    /// What was given.
    pub url: String,
}

/// An answer, a refusal, or no answer at all.
pub type Answer<T> = Result<Result<T, Reject>, Disconnected>;

/// A connection to a server, shared by clones. It connects when first used and again after each break.
#[derive(Clone, Debug)]
pub struct Transport {
    client: FederationClient<Channel>,
}

impl Transport {
    /// A transport to `http://HOST:PORT`.
    ///
    /// # Errors
    /// When the URL is not one.
    pub fn new(url: &str) -> Result<Self, BadUrl> {
        Ok(Self::over(connect(url)?))
    }

    /// A transport over a channel that exists, such as one end of a pipe in a test.
    #[must_use]
    pub fn over(channel: Channel) -> Self {
        Self { client: FederationClient::new(channel) }
    }

    /// See the protocol's `Join`.
    ///
    /// # Errors
    /// When the call did not get through.
    pub async fn join(&mut self, join: &Join) -> Result<Result<Welcome, JoinRefused>, Disconnected> {
        let software = concat!("dunlin-client ", env!("CARGO_PKG_VERSION"));
        let request = timed(join.to_wire(software), CALL_TIMEOUT);
        Ok(wire::read_join_reply(self.client.join(request).await?.into_inner()))
    }

    /// See the protocol's `CheckIn`.
    ///
    /// # Errors
    /// When the call did not get through.
    pub async fn check_in(&mut self, check_in: &CheckIn) -> Answer<Assignment> {
        let timeout = CALL_TIMEOUT + Duration::from_millis(check_in.wait_ms);
        let request = timed(v1::CheckInRequest::from(check_in), timeout);
        Ok(wire::read_check_in_reply(self.client.check_in(request).await?.into_inner()))
    }

    /// See the protocol's `FetchModel`: the plan, and its frames.
    ///
    /// No more is buffered than a plan for a model of `max_bytes` of frames may announce.
    ///
    /// # Errors
    /// When the call did not get through, or broke off.
    pub async fn fetch(&mut self, fetch: &FetchModel, max_bytes: u64) -> Answer<(CatchUp, Vec<Bytes>)> {
        use v1::fetch_model_reply::Reply;
        let mut stream = {
            let call = self.client.fetch_model(v1::FetchModelRequest::from(fetch));
            let opened = tokio::time::timeout(CALL_TIMEOUT, call).await;
            opened.map_err(|_| Disconnected("the server does not answer".into()))??.into_inner()
        };
        let mut next = async || -> Result<Option<Reply>, Disconnected> {
            match tokio::time::timeout(CALL_TIMEOUT, stream.message()).await {
                Ok(message) => Ok(message?.and_then(|message| message.reply)),
                Err(_) => Err(Disconnected("the server stopped sending".into())),
            }
        };
        let plan = match next().await? {
            Some(Reply::Plan(plan)) => match CatchUp::try_from(plan) {
                Ok(plan) => plan,
                Err(reject) => return Ok(Err(reject)),
            },
            Some(Reply::Reject(number)) => {
                return Ok(Err(wire::accepted(number).err().unwrap_or(Reject::Malformed)));
            }
            Some(Reply::Data(_)) | None => return Err(Disconnected("the server sent no plan".into())),
        };
        let total = plan.total_bytes();
        if total > max_bytes {
            return Err(Disconnected(format!("the server announced {total} bytes, the model allows {max_bytes}")));
        }
        let mut data = BytesMut::with_capacity(total as usize);
        while (data.len() as u64) < total {
            match next().await? {
                Some(Reply::Data(chunk)) if data.len() as u64 + chunk.len() as u64 <= total => {
                    data.extend_from_slice(&chunk);
                }
                Some(_) => return Err(Disconnected("the server sent more than it announced".into())),
                None => return Err(Disconnected(format!("the model broke off at {} of {total} bytes", data.len()))),
            }
        }
        let mut data = data.freeze();
        let frames = plan.frame_lens.iter().map(|&len| data.split_to(len as usize)).collect();
        Ok(Ok((plan, frames)))
    }

    /// See the protocol's `UploadOffset`.
    ///
    /// # Errors
    /// When the call did not get through.
    pub async fn upload_offset(&mut self, session: &Session, header: &UpdateHeader) -> Answer<Held> {
        let request = v1::UploadOffsetRequest { header: Some(wire::update_header(session, header)) };
        let request = timed(request, CALL_TIMEOUT);
        Ok(wire::read_upload_offset_reply(self.client.upload_offset(request).await?.into_inner()))
    }

    /// See the protocol's `Upload`: sends `frame` from `offset` on.
    ///
    /// # Errors
    /// When the call did not get through.
    pub async fn upload(
        &mut self,
        session: &Session,
        header: &UpdateHeader,
        frame: &Bytes,
        offset: u64,
    ) -> Answer<Uploaded> {
        let start = v1::UploadStart { header: Some(wire::update_header(session, header)), offset };
        let first = v1::UploadRequest { part: Some(v1::upload_request::Part::Start(start)) };
        let mut rest = frame.slice((offset as usize).min(frame.len())..);
        let chunks = std::iter::from_fn(move || {
            (!rest.is_empty()).then(|| {
                let chunk = rest.split_to(rest.len().min(CHUNK_BYTES));
                v1::UploadRequest { part: Some(v1::upload_request::Part::Data(chunk)) }
            })
        });
        let stream = tokio_stream::iter(std::iter::once(first).chain(chunks));
        // Whether the bytes arrive is not seen from here, so the slowest link that is still of use sets the bound. What
        // did arrive until then is kept by the server.
        let bound = CALL_TIMEOUT + Duration::from_secs((frame.len() as u64).saturating_sub(offset) / SLOWEST_LINK);
        let answer = tokio::time::timeout(bound, self.client.upload(stream)).await;
        let answer = answer.map_err(|_| Disconnected(format!("the upload took more than {} s", bound.as_secs())))?;
        Ok(wire::read_upload_reply(answer?.into_inner()))
    }

    /// See the protocol's `Progress`.
    ///
    /// # Errors
    /// When the call did not get through.
    pub async fn progress(&mut self, session: &Session, round: RoundId, done: u64, total: u64) -> Answer<()> {
        let request = v1::ProgressRequest {
            session: Some(session.into()),
            round: Some(round.into()),
            steps_done: done,
            steps_total: total,
        };
        let request = timed(request, CALL_TIMEOUT);
        Ok(wire::accepted(self.client.progress(request).await?.into_inner().reject))
    }

    /// See the protocol's `ReportEvaluation`.
    ///
    /// # Errors
    /// When the call did not get through.
    pub async fn report(&mut self, session: &Session, report: &EvaluationReport) -> Answer<()> {
        let request = timed(wire::evaluation(session, report), CALL_TIMEOUT);
        Ok(wire::accepted(self.client.report_evaluation(request).await?.into_inner().reject))
    }
}

/// A channel that connects when it is first used.
fn connect(url: &str) -> Result<Channel, BadUrl> {
    let bad = || BadUrl { url: url.into() };
    if !url.starts_with("http://") {
        return Err(bad());
    }
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|_| bad())?;
    Ok(tune(endpoint).connect_lazy())
}

/// Windows wide enough that a long link is filled: the defaults of 64 KiB allow 5 Mbit/s at 100 ms.
fn tune(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(Duration::from_secs(10))
        .tcp_nodelay(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(16 << 20)
}

fn timed<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

/// Bytes a second that a link must carry at least: 4 kbit/s.
const SLOWEST_LINK: u64 = 512;

/// Longest silence of the server in a call, beyond what the call itself may be held.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests;

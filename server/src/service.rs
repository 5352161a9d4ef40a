//! The gRPC service: turns messages into domain values, streams into frames, and asks the engine's thread.

mod control;
mod router;
mod uploads;

pub use control::ControlService;
pub use router::router;
pub use uploads::{Partial, Uploads};

use crate::coordinator::Advance;
use crate::driver::{Handle, NoAnswer};
use bytes::Bytes;
use dunlin_core::message::{CheckIn, FetchModel, Join, Session, UpdateHeader};
use dunlin_core::wire::{self, CHUNK_BYTES, Held, Uploaded};
use dunlin_core::{Reject, RoundId, Waiting};
use dunlin_proto::v1;
use dunlin_proto::v1::federation_server::Federation;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// What clients call.
pub struct FederationService {
    handle: Handle,
    uploads: Arc<Uploads>,
    receiving: Arc<Semaphore>,
}

impl FederationService {
    /// The service before an engine.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        // Never less than for a few of a model's longest.
        let room = MAX_RECEIVING_BYTES.max(4 * handle.rules().max_frame_bytes());
        Self::with_room(handle, room)
    }

    /// The same with so many bytes of memory for the frames under way and what they decode to.
    #[must_use]
    pub fn with_room(handle: Handle, bytes: u64) -> Self {
        let uploads = Arc::new(Uploads::new(handle.rules().max_frame_bytes()));
        Self { handle, uploads, receiving: Arc::new(Semaphore::new((bytes / 1024) as usize)) }
    }

    /// Notes that an update was refused, which the engine has not seen, and passes that on.
    async fn refuse(&self, session: &Session, header: &UpdateHeader, reject: Reject) -> Reject {
        self.note(Some((session.clone(), Some(header.round))), reject).await
    }

    /// The same of a message that makes no sense, or of a call that is about no update: on the account of its sender
    /// where that is clear.
    async fn refuse_message(&self, sender: Option<&v1::Session>, reject: Reject) -> Reject {
        let session = wire::session(sender).ok();
        self.note(session.map(|session| (session, None)), reject).await
    }

    async fn note(&self, who: Option<(Session, Option<RoundId>)>, reject: Reject) -> Reject {
        // Only a count is lost when the engine is busy.
        let _counted = self.handle.refused(who, reject).await;
        reject
    }

    async fn receive(&self, mut stream: Streaming<v1::UploadRequest>) -> Result<Result<Uploaded, Reject>, Status> {
        let first = stream.message().await?.and_then(|message| message.part);
        let Some(v1::upload_request::Part::Start(start)) = first else {
            return Ok(Err(self.refuse_message(None, Reject::Malformed).await));
        };
        let offset = start.offset;
        let read = wire::read_update_header(start.header.clone());
        let (session, header) = match read {
            Ok(read) => read,
            Err(reject) => return Ok(Err(self.refuse_header(start.header, reject).await)),
        };
        match self.handle.announce(session.clone(), header.clone()).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(receipt))) => return Ok(Ok(Uploaded::Receipt(receipt))),
            Ok(Err(reject)) => return Ok(Err(reject)),
            Err(no_answer) => return retry(no_answer),
        }
        // Those of the round that was just found open: of an update that comes too late it should be said that it is late.
        let rules = self.handle.rules();
        // Held until the answer, so that it bounds the memory of frames and of what they decode to; the length was found
        // allowed just now.
        let decoded = rules.max_kept_bytes().min(MOST_EXPANSION * header.frame_len);
        let kib = (header.frame_len + decoded).div_ceil(1024).max(1) as u32;
        let Ok(_permit) = Arc::clone(&self.receiving).try_acquire_many_owned(kib) else {
            return Ok(Ok(Uploaded::Retry(Waiting::Busy, RECEIVING_RETRY_MS)));
        };
        let Some(mut partial) = self.uploads.resume(&header, offset) else {
            return Ok(Err(self.refuse(&session, &header, Reject::WrongOffset).await));
        };
        match self.fill(&mut stream, &mut partial, &session, &header).await {
            Ok(Ok(())) => {}
            Ok(Err(Stopped::Refused(reject))) => {
                if reject == Reject::Truncated {
                    // A cancelled call ends like this too: the client may go on where it stopped.
                    self.uploads.keep(&header, partial);
                }
                return Ok(Err(self.refuse(&session, &header, reject).await));
            }
            Ok(Err(Stopped::ByEngine(reject))) => return Ok(Err(reject)),
            Err(broken) => {
                // The link broke: what has arrived waits for the rest.
                self.uploads.keep(&header, partial);
                return Err(broken);
            }
        }
        let (frame, announced) = (partial.freeze(), header.clone());
        let vetting = frame.clone();
        let verdict = tokio::task::spawn_blocking(move || {
            let timer = Instant::now();
            (rules.vet(&announced, &vetting), timer.elapsed())
        });
        let (verdict, took) = verdict.await.map_err(|_| Status::internal("the frame's verdict was lost"))?;
        self.handle.count_vetting(took);
        match verdict {
            Ok(vetted) => match self.handle.offer(session, header, frame, vetted).await {
                Ok(answer) => Ok(answer.map(Uploaded::Receipt)),
                Err(no_answer) => retry(no_answer),
            },
            Err(reject) => Ok(Err(self.refuse(&session, &header, reject).await)),
        }
    }

    /// Receives the rest of a frame.
    async fn fill(
        &self,
        stream: &mut Streaming<v1::UploadRequest>,
        partial: &mut Partial,
        session: &Session,
        header: &UpdateHeader,
    ) -> Result<Result<(), Stopped>, Status> {
        let mut reported = Instant::now();
        while (partial.len() as u64) < header.frame_len {
            let next = tokio::time::timeout(SILENCE, stream.message()).await;
            let next = next.map_err(|_| Status::deadline_exceeded("the upload went silent"))??;
            let Some(message) = next else {
                return Ok(Err(Stopped::Refused(Reject::Truncated)));
            };
            let Some(v1::upload_request::Part::Data(data)) = message.part else {
                return Ok(Err(Stopped::Refused(Reject::Malformed)));
            };
            if data.is_empty() {
                // Or one could hold its place in the round by sending nothing for ever.
                return Ok(Err(Stopped::Refused(Reject::Malformed)));
            }
            self.handle.count_upload(data.len() as u64);
            if partial.len() as u64 + data.len() as u64 > header.frame_len {
                return Ok(Err(Stopped::Refused(Reject::FrameTooLarge)));
            }
            partial.extend(&data);
            if reported.elapsed() > PROGRESS_INTERVAL {
                reported = Instant::now();
                if let Ok(Err(reject)) = self.handle.progress(session.clone(), header.round, Advance::Bytes).await {
                    return Ok(Err(Stopped::ByEngine(reject)));
                }
            }
        }
        Ok(Ok(()))
    }

    /// Counts a header that makes no sense, on the account of its sender where that is clear.
    async fn refuse_header(&self, message: Option<v1::UpdateHeader>, reject: Reject) -> Reject {
        let session = message.as_ref().and_then(|message| wire::session(message.session.as_ref()).ok());
        let round = message.and_then(|message| message.round);
        let round = round.map(|round| RoundId { term: round.term, number: round.number });
        self.note(session.map(|session| (session, round)), reject).await
    }
}

/// Why an upload is not received any further.
enum Stopped {
    /// For what arrived; nobody has counted it yet.
    Refused(Reject),
    /// The engine said so, which has counted it.
    ByEngine(Reject),
}

#[tonic::async_trait]
impl Federation for FederationService {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinReply>, Status> {
        let answer = match Join::try_from(request.get_ref()) {
            Ok(join) => self.handle.join(join).await.map_err(unavailable)?,
            // Its name proves nothing before it has joined.
            Err(reject) => Err(self.refuse_message(None, reject).await),
        };
        Ok(Response::new(wire::join_reply(answer)))
    }

    async fn check_in(&self, request: Request<v1::CheckInRequest>) -> Result<Response<v1::CheckInReply>, Status> {
        use dunlin_core::message::Assignment;
        let answer = match CheckIn::try_from(request.get_ref()) {
            Ok(check_in) => match self.handle.check_in(check_in).await {
                Ok(answer) => answer,
                Err(NoAnswer::Gone) => return Err(unavailable(NoAnswer::Gone)),
                Err(busy) => {
                    let (reason, retry_after_ms) = busy.waiting();
                    Ok(Assignment::Wait { reason, retry_after_ms })
                }
            },
            Err(reject) => Err(self.refuse_message(request.get_ref().session.as_ref(), reject).await),
        };
        Ok(Response::new(wire::check_in_reply(answer)))
    }

    type FetchModelStream = Pin<Box<dyn Stream<Item = Result<v1::FetchModelReply, Status>> + Send>>;

    async fn fetch_model(
        &self,
        request: Request<v1::FetchModelRequest>,
    ) -> Result<Response<Self::FetchModelStream>, Status> {
        use v1::fetch_model_reply::Reply;
        let refuse = |reject: Reject| {
            let reply = v1::FetchModelReply { reply: Some(Reply::Reject(reject.number())) };
            Ok(Response::new(Box::pin(tokio_stream::once(Ok(reply))) as Self::FetchModelStream))
        };
        let fetch = match FetchModel::try_from(request.get_ref()) {
            Ok(fetch) => fetch,
            Err(reject) => return refuse(self.refuse_message(request.get_ref().session.as_ref(), reject).await),
        };
        let width = match self.handle.authenticate(fetch.session).await.map_err(unavailable)? {
            Ok(width) => width,
            Err(reject) => return refuse(reject),
        };
        let broadcast = Arc::clone(self.handle.broadcast().of(width));
        if broadcast.version() != fetch.wanted {
            return refuse(self.refuse_message(request.get_ref().session.as_ref(), Reject::UnknownVersion).await);
        }
        let plan = tokio::task::spawn_blocking(move || broadcast.catch_up(fetch.held)).await;
        let plan = plan.map_err(|_| Status::internal("the way to the model was lost"))?;
        self.handle.count_download(plan.stages);
        let first = Reply::Plan((&plan.catch_up).into());
        let mut frames = plan.frames.clone().into_iter();
        let mut rest = Bytes::new();
        let chunks = std::iter::from_fn(move || {
            while rest.is_empty() {
                rest = frames.next()?;
            }
            Some(Reply::Data(rest.split_to(rest.len().min(CHUNK_BYTES))))
        });
        let replies = std::iter::once(first).chain(chunks);
        let replies = replies.map(|reply| Ok(v1::FetchModelReply { reply: Some(reply) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(replies))))
    }

    async fn upload_offset(
        &self,
        request: Request<v1::UploadOffsetRequest>,
    ) -> Result<Response<v1::UploadOffsetReply>, Status> {
        let message = request.into_inner().header;
        let answer = match wire::read_update_header(message.clone()) {
            Ok((session, header)) => match self.handle.announce(session, header.clone()).await.map_err(unavailable)? {
                Ok(None) => Ok(Held::Offset(self.uploads.held(&header))),
                Ok(Some(receipt)) => Ok(Held::Receipt(receipt)),
                Err(reject) => Err(reject),
            },
            Err(reject) => Err(self.refuse_header(message, reject).await),
        };
        Ok(Response::new(wire::upload_offset_reply(answer)))
    }

    async fn upload(
        &self,
        request: Request<Streaming<v1::UploadRequest>>,
    ) -> Result<Response<v1::UploadReply>, Status> {
        let answer = self.receive(request.into_inner()).await?;
        Ok(Response::new(wire::upload_reply(answer)))
    }

    async fn progress(&self, request: Request<v1::ProgressRequest>) -> Result<Response<v1::ProgressReply>, Status> {
        let answer = match wire::read_progress(request.get_ref()) {
            // A beat that finds no room is made up for by the next.
            Ok((session, round, steps)) => match self.handle.progress(session, round, Advance::Steps(steps)).await {
                Err(NoAnswer::Gone) => return Err(unavailable(NoAnswer::Gone)),
                Err(NoAnswer::Busy) => Ok(()),
                Ok(answer) => answer,
            },
            Err(reject) => Err(self.refuse_message(request.get_ref().session.as_ref(), reject).await),
        };
        Ok(Response::new(v1::ProgressReply { reject: answer.err().map_or(0, Reject::number) }))
    }

    async fn report_evaluation(
        &self,
        request: Request<v1::ReportEvaluationRequest>,
    ) -> Result<Response<v1::ReportEvaluationReply>, Status> {
        let answer = match wire::read_evaluation(request.get_ref()) {
            Ok((session, report)) => self.handle.evaluated(session, report).await.map_err(unavailable)?,
            Err(reject) => Err(self.refuse_message(request.get_ref().session.as_ref(), reject).await),
        };
        Ok(Response::new(v1::ReportEvaluationReply { reject: answer.err().map_or(0, Reject::number) }))
    }
}

fn retry(no_answer: NoAnswer) -> Result<Result<Uploaded, Reject>, Status> {
    match no_answer {
        NoAnswer::Busy => {
            let (reason, retry_after_ms) = no_answer.waiting();
            Ok(Ok(Uploaded::Retry(reason, retry_after_ms)))
        }
        NoAnswer::Gone => Err(unavailable(no_answer)),
    }
}

fn unavailable(no_answer: NoAnswer) -> Status {
    match no_answer {
        NoAnswer::Busy => Status::unavailable("the server is busy: try again"),
        NoAnswer::Gone => Status::unavailable("the server is stopping"),
    }
}

/// Bytes of frames received at once, and of their values: forty dense updates of 1.6 million parameters, or three
/// hundred sparse ones.
const MAX_RECEIVING_BYTES: u64 = 256 << 20;

/// Bytes that a byte of a frame decodes to at most: a value costs a bit, its sign, and takes eight bytes.
const MOST_EXPANSION: u64 = 64;

/// Pause that a client is asked for when too many upload at once, in milliseconds.
const RECEIVING_RETRY_MS: u64 = 200;

/// Silence after which an upload is given up; what arrived is kept for its resumption.
const SILENCE: Duration = Duration::from_secs(30);

/// How often an upload under way counts as a sign of life.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

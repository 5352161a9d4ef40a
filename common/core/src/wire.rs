//! Between the generated protocol messages and the domain's: every check on what arrives, once, here.
//!
//! Reading is `TryFrom` with a [`Reject`] as its error; writing is `From`. What passed these conversions is not checked
//! again further in.

use crate::answer::{Outcome, Reject, Waiting};
use crate::id::{ClientId, Digest, ModelVersion, RoundId, RunId, Token};
use crate::message::{
    Assignment, CatchUp, CatchUpBase, CheckIn, EvaluationReport, EvaluationTask, FetchModel, Join, JoinRefused,
    Receipt, Session, TrainTask, UpdateHeader, Welcome,
};
use crate::recipe::Width;
use dunlin_codec::{Codec, CommonGrid, EntropyCoder, Fit, Quantizer, Rate};
use dunlin_proto::v1;

/// Most bytes of frame data in one streamed message; far below gRPC's default limit of 4 MiB.
pub const CHUNK_BYTES: usize = 512 << 10;

/// Longest that a client may ask a check-in to be held, in milliseconds; below the idle limits of common proxies.
pub const MAX_WAIT_MS: u64 = 30_000;

/// Most frames in a catch-up; more than any ring of packets holds.
pub const MAX_CATCH_UP_FRAMES: usize = 4096;

/// Longest recipe, in bytes.
pub const MAX_RECIPE_BYTES: usize = 1 << 20;

fn client(name: &str) -> Result<ClientId, Reject> {
    ClientId::new(name).map_err(|_| Reject::Malformed)
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Reject> {
    bytes.try_into().map_err(|_| Reject::Malformed)
}

fn required<T>(field: Option<T>) -> Result<T, Reject> {
    field.ok_or(Reject::Malformed)
}

fn reject(number: i32) -> Reject {
    // A number that a newer server invented is a refusal all the same.
    Reject::from_number(number).unwrap_or(Reject::Malformed)
}

/// The answer behind a bare reject number, where 0 means that all is well.
///
/// # Errors
/// The refusal.
pub fn accepted(number: i32) -> Result<(), Reject> {
    if number == 0 { Ok(()) } else { Err(reject(number)) }
}

impl TryFrom<&v1::JoinRequest> for Join {
    type Error = Reject;

    fn try_from(message: &v1::JoinRequest) -> Result<Self, Reject> {
        crate::message::negotiate(message.protocol)?;
        Ok(Self { protocol: message.protocol, client: client(&message.client)?, token: Token(array(&message.token)?) })
    }
}

impl Join {
    /// The message, with the name of the software that sends it.
    #[must_use]
    pub fn to_wire(&self, software: &str) -> v1::JoinRequest {
        v1::JoinRequest {
            protocol: self.protocol,
            client: self.client.to_string(),
            token: self.token.0.to_vec().into(),
            software: software.into(),
        }
    }
}

/// The reply to a join, with the versions that this build speaks.
#[must_use]
pub fn join_reply(result: Result<Welcome, Reject>) -> v1::JoinReply {
    let reply = match result {
        Ok(welcome) => v1::join_reply::Reply::Welcome(v1::Welcome {
            run: welcome.run.0.to_vec().into(),
            recipe: welcome.recipe,
            layout: welcome.layout.0.to_vec().into(),
        }),
        Err(reject) => v1::join_reply::Reply::Reject(reject.number()),
    };
    v1::JoinReply {
        reply: Some(reply),
        protocol_oldest: crate::message::PROTOCOL_OLDEST,
        protocol_newest: crate::message::PROTOCOL,
    }
}

/// What a server answered to a join.
///
/// # Errors
/// Its refusal, or [`Reject::Malformed`], with the versions that it speaks.
pub fn read_join_reply(message: v1::JoinReply) -> Result<Welcome, JoinRefused> {
    let (oldest, newest) = (message.protocol_oldest, message.protocol_newest);
    let welcome = match message.reply {
        Some(v1::join_reply::Reply::Welcome(welcome)) => read_welcome(welcome),
        Some(v1::join_reply::Reply::Reject(number)) => Err(reject(number)),
        None => Err(Reject::Malformed),
    };
    welcome.map_err(|reject| JoinRefused { reject, oldest, newest })
}

fn read_welcome(welcome: v1::Welcome) -> Result<Welcome, Reject> {
    if welcome.recipe.len() > MAX_RECIPE_BYTES {
        return Err(Reject::Malformed);
    }
    let (run, layout) = (RunId(array(&welcome.run)?), Digest(array(&welcome.layout)?));
    Ok(Welcome { run, recipe: welcome.recipe, layout })
}

impl TryFrom<&v1::Session> for Session {
    type Error = Reject;

    fn try_from(message: &v1::Session) -> Result<Self, Reject> {
        Ok(Self {
            run: RunId(array(&message.run)?),
            client: client(&message.client)?,
            token: Token(array(&message.token)?),
        })
    }
}

impl From<&Session> for v1::Session {
    fn from(session: &Session) -> Self {
        Self {
            run: session.run.0.to_vec().into(),
            client: session.client.to_string(),
            token: session.token.0.to_vec().into(),
        }
    }
}

/// The session of a message that must have one.
///
/// # Errors
/// [`Reject::Malformed`] when it is missing or wrong.
pub fn session(message: Option<&v1::Session>) -> Result<Session, Reject> {
    required(message)?.try_into()
}

fn round(message: Option<v1::RoundId>) -> Result<RoundId, Reject> {
    let message = required(message)?;
    // Both count from 1.
    if message.number == 0 || message.term == 0 {
        return Err(Reject::Malformed);
    }
    Ok(RoundId { term: message.term, number: message.number })
}

impl From<RoundId> for v1::RoundId {
    fn from(round: RoundId) -> Self {
        Self { term: round.term, number: round.number }
    }
}

impl TryFrom<&v1::CheckInRequest> for CheckIn {
    type Error = Reject;

    fn try_from(message: &v1::CheckInRequest) -> Result<Self, Reject> {
        Ok(Self {
            session: session(message.session.as_ref())?,
            examples: u32::try_from(message.examples).map_err(|_| Reject::NoExamples)?,
            width: match message.width {
                0 => Width::WHOLE,
                millionths => Width::from_millionths(millionths).map_err(|_| Reject::Malformed)?,
            },
            held: message.held.map(ModelVersion),
            wait_ms: message.wait_ms.min(MAX_WAIT_MS),
            declines: Some(message.declines).filter(|&round| round > 0),
        })
    }
}

impl From<&CheckIn> for v1::CheckInRequest {
    fn from(check_in: &CheckIn) -> Self {
        Self {
            session: Some((&check_in.session).into()),
            examples: check_in.examples.into(),
            held: check_in.held.map(|version| version.0),
            wait_ms: check_in.wait_ms,
            declines: check_in.declines.unwrap_or_default(),
            width: if check_in.width.is_whole() { 0 } else { check_in.width.millionths() },
        }
    }
}

/// The reply to a check-in.
#[must_use]
pub fn check_in_reply(result: Result<Assignment, Reject>) -> v1::CheckInReply {
    use v1::check_in_reply::Reply;
    let reply = match result {
        Ok(Assignment::Train(task)) => Reply::Train(v1::TrainTask {
            round: Some(task.round.into()),
            base: task.base.0,
            deadline_ms: task.deadline_ms,
            codec: Some(codec_to_wire(&task.codec)),
            max_bytes: task.max_bytes,
            asks: task.asks,
        }),
        Ok(Assignment::Evaluate(task)) => Reply::Evaluate(v1::EvaluationTask {
            round: Some(task.round.into()),
            version: task.version.0,
            deadline_ms: task.deadline_ms,
        }),
        Ok(Assignment::Wait { reason, retry_after_ms }) => Reply::Wait(wait(reason, retry_after_ms)),
        Ok(Assignment::Finished { outcome, version }) => {
            Reply::Finished(v1::Finished { outcome: outcome.number(), version: version.0 })
        }
        Err(reject) => Reply::Reject(reject.number()),
    };
    v1::CheckInReply { reply: Some(reply) }
}

/// What a server answered to a check-in.
///
/// # Errors
/// Its refusal, or [`Reject::Malformed`].
pub fn read_check_in_reply(message: v1::CheckInReply) -> Result<Assignment, Reject> {
    use v1::check_in_reply::Reply;
    Ok(match required(message.reply)? {
        Reply::Train(task) => Assignment::Train(TrainTask {
            round: round(task.round)?,
            base: ModelVersion(task.base),
            deadline_ms: task.deadline_ms,
            codec: codec_from_wire(&required(task.codec)?)?,
            max_bytes: task.max_bytes,
            asks: task.asks,
        }),
        Reply::Evaluate(task) => Assignment::Evaluate(EvaluationTask {
            round: round(task.round)?,
            version: ModelVersion(task.version),
            deadline_ms: task.deadline_ms,
        }),
        Reply::Wait(wait) => Assignment::Wait {
            reason: Waiting::from_number(wait.reason).unwrap_or(Waiting::Busy),
            retry_after_ms: wait.retry_after_ms,
        },
        Reply::Finished(finished) => Assignment::Finished {
            outcome: Outcome::from_number(finished.outcome).ok_or(Reject::Malformed)?,
            version: ModelVersion(finished.version),
        },
        Reply::Reject(number) => return Err(reject(number)),
    })
}

/// A "not yet" on the wire.
#[must_use]
pub fn wait(reason: Waiting, retry_after_ms: u64) -> v1::Wait {
    v1::Wait { reason: reason.number(), retry_after_ms }
}

const FITS: [Fit; 2] = [Fit::Unbiased, Fit::LeastError];
const CODERS: [EntropyCoder; 5] =
    [EntropyCoder::Auto, EntropyCoder::Raw, EntropyCoder::Rice, EntropyCoder::Enumerative, EntropyCoder::Adaptive];

fn number_in<T: PartialEq>(table: &[T], value: &T) -> i32 {
    table.iter().position(|entry| entry == value).map_or(0, |index| index as i32 + 1)
}

fn entry_of<T: Copy>(table: &[T], number: i32) -> Result<T, Reject> {
    number
        .checked_sub(1)
        .and_then(|index| usize::try_from(index).ok())
        .and_then(|index| table.get(index))
        .copied()
        .ok_or(Reject::Malformed)
}

fn codec_to_wire(codec: &Codec) -> v1::Codec {
    let (quantizer, number, fit) = match codec.quantizer {
        Quantizer::F32 => (1, 0, None),
        Quantizer::F16 => (2, 0, None),
        Quantizer::Int8 => (3, 0, None),
        Quantizer::Ternary => (4, 0, None),
        Quantizer::Rotated { rate, fit } => (5, rate.thousandths().into(), Some(fit)),
        Quantizer::Eden { bits, fit } => (6, bits.into(), Some(fit)),
        Quantizer::Qsgd { levels } => (7, levels.into(), None),
        Quantizer::Terngrad => (8, 0, None),
        Quantizer::Sign => (9, 0, None),
        Quantizer::LowRank { rank } => (10, rank.into(), None),
        Quantizer::Common { grid, fit } => (11, grid.bits().into(), Some(fit)),
        Quantizer::Codebook { bits } => (12, bits.into(), None),
    };
    let grid = if let Quantizer::Common { grid, .. } = codec.quantizer { Some(grid) } else { None };
    v1::Codec {
        density: codec.density,
        quantizer,
        coder: number_in(&CODERS, &codec.coder),
        number,
        fit: fit.map_or(0, |fit| number_in(&FITS, &fit)),
        exponent: grid.map_or(0, |grid| grid.exponent().into()),
        most: grid.map_or(0, |grid| grid.most().into()),
    }
}

fn codec_from_wire(message: &v1::Codec) -> Result<Codec, Reject> {
    let number = || u8::try_from(message.number).map_err(|_| Reject::Malformed);
    let fit = || entry_of(&FITS, message.fit);
    let quantizer = match message.quantizer {
        1 => Quantizer::F32,
        2 => Quantizer::F16,
        3 => Quantizer::Int8,
        4 => Quantizer::Ternary,
        5 => {
            let rate = Rate::new(f64::from(message.number) / 1000.0).map_err(|_| Reject::Malformed)?;
            Quantizer::Rotated { rate, fit: fit()? }
        }
        6 => Quantizer::Eden { bits: number()?, fit: fit()? },
        7 => Quantizer::Qsgd { levels: number()? },
        8 => Quantizer::Terngrad,
        9 => Quantizer::Sign,
        10 => Quantizer::LowRank { rank: number()? },
        11 => {
            let exponent = i8::try_from(message.exponent).map_err(|_| Reject::Malformed)?;
            let most = u8::try_from(message.most).map_err(|_| Reject::Malformed)?;
            let grid = CommonGrid::from_parts(number()?, exponent, most).map_err(|_| Reject::Malformed)?;
            Quantizer::Common { grid, fit: fit()? }
        }
        12 => Quantizer::Codebook { bits: number()? },
        _ => return Err(Reject::Malformed),
    };
    let codec = Codec { density: message.density, quantizer, coder: entry_of(&CODERS, message.coder)? };
    codec.validate().map_err(|_| Reject::Malformed)?;
    Ok(codec)
}

impl TryFrom<&v1::FetchModelRequest> for FetchModel {
    type Error = Reject;

    fn try_from(message: &v1::FetchModelRequest) -> Result<Self, Reject> {
        Ok(Self {
            session: session(message.session.as_ref())?,
            held: message.held.map(ModelVersion),
            wanted: ModelVersion(message.wanted),
        })
    }
}

impl From<&FetchModel> for v1::FetchModelRequest {
    fn from(fetch: &FetchModel) -> Self {
        Self {
            session: Some((&fetch.session).into()),
            held: fetch.held.map(|version| version.0),
            wanted: fetch.wanted.0,
        }
    }
}

const BASES: [CatchUpBase; 3] = [CatchUpBase::Zero, CatchUpBase::Seeded, CatchUpBase::Held];

impl From<&CatchUp> for v1::CatchUp {
    fn from(plan: &CatchUp) -> Self {
        Self {
            base: number_in(&BASES, &plan.base),
            version: plan.version.0,
            digest: plan.digest.0.to_vec().into(),
            checksum: plan.checksum,
            frame_lens: plan.frame_lens.clone(),
        }
    }
}

impl TryFrom<v1::CatchUp> for CatchUp {
    type Error = Reject;

    fn try_from(message: v1::CatchUp) -> Result<Self, Reject> {
        if message.frame_lens.len() > MAX_CATCH_UP_FRAMES {
            return Err(Reject::Malformed);
        }
        Ok(Self {
            base: entry_of(&BASES, message.base)?,
            version: ModelVersion(message.version),
            digest: Digest(array(&message.digest)?),
            checksum: message.checksum,
            frame_lens: message.frame_lens,
        })
    }
}

/// What an upload announces and who announces it.
///
/// # Errors
/// [`Reject::NoExamples`] or [`Reject::TooManyExamples`] for a count that no client can have, otherwise
/// [`Reject::Malformed`].
pub fn read_update_header(message: Option<v1::UpdateHeader>) -> Result<(Session, UpdateHeader), Reject> {
    let message = required(message)?;
    let session = session(message.session.as_ref())?;
    if message.examples < 1 {
        return Err(Reject::NoExamples);
    }
    let header = UpdateHeader {
        client: session.client.clone(),
        round: round(message.round)?,
        base: ModelVersion(message.base),
        examples: u32::try_from(message.examples).map_err(|_| Reject::TooManyExamples)?,
        // Only reported, never computed with; a NaN must not reach a JSON line.
        loss: if message.loss.is_finite() { message.loss } else { f32::MAX },
        frame_len: message.frame_len,
        digest: Digest(array(&message.digest)?),
    };
    Ok((session, header))
}

/// An update header on the wire.
#[must_use]
pub fn update_header(session: &Session, header: &UpdateHeader) -> v1::UpdateHeader {
    v1::UpdateHeader {
        session: Some(session.into()),
        round: Some(header.round.into()),
        base: header.base.0,
        examples: header.examples.into(),
        loss: header.loss,
        frame_len: header.frame_len,
        digest: header.digest.0.to_vec().into(),
    }
}

impl From<Receipt> for v1::Receipt {
    fn from(receipt: Receipt) -> Self {
        Self {
            round: Some(receipt.round.into()),
            digest: receipt.digest.0.to_vec().into(),
            duplicate: receipt.duplicate,
        }
    }
}

impl TryFrom<v1::Receipt> for Receipt {
    type Error = Reject;

    fn try_from(message: v1::Receipt) -> Result<Self, Reject> {
        Ok(Self { round: round(message.round)?, digest: Digest(array(&message.digest)?), duplicate: message.duplicate })
    }
}

/// How an upload went, when it was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// It is durable.
    Receipt(Receipt),
    /// It could not be taken now; try again after so many milliseconds.
    Retry(Waiting, u64),
}

/// The reply to an upload.
#[must_use]
pub fn upload_reply(result: Result<Uploaded, Reject>) -> v1::UploadReply {
    use v1::upload_reply::Reply;
    let reply = match result {
        Ok(Uploaded::Receipt(receipt)) => Reply::Receipt(receipt.into()),
        Ok(Uploaded::Retry(reason, retry_after_ms)) => Reply::Wait(wait(reason, retry_after_ms)),
        Err(reject) => Reply::Reject(reject.number()),
    };
    v1::UploadReply { reply: Some(reply) }
}

/// What a server answered to an upload.
///
/// # Errors
/// Its refusal, or [`Reject::Malformed`].
pub fn read_upload_reply(message: v1::UploadReply) -> Result<Uploaded, Reject> {
    use v1::upload_reply::Reply;
    match required(message.reply)? {
        Reply::Receipt(receipt) => Ok(Uploaded::Receipt(receipt.try_into()?)),
        Reply::Wait(wait) => {
            Ok(Uploaded::Retry(Waiting::from_number(wait.reason).unwrap_or(Waiting::Busy), wait.retry_after_ms))
        }
        Reply::Reject(number) => Err(reject(number)),
    }
}

/// How much of an upload a server holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// So many bytes of the frame.
    Offset(u64),
    /// All of it, durable.
    Receipt(Receipt),
}

/// The reply to a question for an upload's offset.
#[must_use]
pub fn upload_offset_reply(result: Result<Held, Reject>) -> v1::UploadOffsetReply {
    use v1::upload_offset_reply::Reply;
    let reply = match result {
        Ok(Held::Offset(offset)) => Reply::Offset(offset),
        Ok(Held::Receipt(receipt)) => Reply::Receipt(receipt.into()),
        Err(reject) => Reply::Reject(reject.number()),
    };
    v1::UploadOffsetReply { reply: Some(reply) }
}

/// What a server answered to a question for an upload's offset.
///
/// # Errors
/// Its refusal, or [`Reject::Malformed`].
pub fn read_upload_offset_reply(message: v1::UploadOffsetReply) -> Result<Held, Reject> {
    use v1::upload_offset_reply::Reply;
    match required(message.reply)? {
        Reply::Offset(offset) => Ok(Held::Offset(offset)),
        Reply::Receipt(receipt) => Ok(Held::Receipt(receipt.try_into()?)),
        Reply::Reject(number) => Err(reject(number)),
    }
}

/// A federated evaluation's result and who reports it.
///
/// # Errors
/// [`Reject::NoExamples`] without examples, [`Reject::NotANumber`] or [`Reject::Infinite`] for such a loss, otherwise
/// [`Reject::Malformed`].
pub fn read_evaluation(message: &v1::ReportEvaluationRequest) -> Result<(Session, EvaluationReport), Reject> {
    let session = session(message.session.as_ref())?;
    if message.loss_sum.is_nan() {
        return Err(Reject::NotANumber);
    }
    if message.loss_sum.is_infinite() {
        return Err(Reject::Infinite);
    }
    if message.examples < 1 {
        return Err(Reject::NoExamples);
    }
    let report = EvaluationReport {
        round: round(message.round)?,
        version: ModelVersion(message.version),
        examples: message.examples as u64,
        correct: u64::try_from(message.correct).map_err(|_| Reject::Malformed)?,
        loss_sum: message.loss_sum,
    };
    if report.correct > report.examples {
        return Err(Reject::Malformed);
    }
    Ok((session, report))
}

/// A federated evaluation's result on the wire.
#[must_use]
pub fn evaluation(session: &Session, report: &EvaluationReport) -> v1::ReportEvaluationRequest {
    v1::ReportEvaluationRequest {
        session: Some(session.into()),
        round: Some(report.round.into()),
        version: report.version.0,
        examples: report.examples.min(i64::MAX as u64) as i64,
        correct: report.correct.min(i64::MAX as u64) as i64,
        loss_sum: report.loss_sum,
    }
}

/// Who is at work, in which round, and the steps made so far.
///
/// # Errors
/// [`Reject::Malformed`].
pub fn read_progress(message: &v1::ProgressRequest) -> Result<(Session, RoundId, u64), Reject> {
    Ok((session(message.session.as_ref())?, round(message.round)?, message.steps_done))
}

#[cfg(test)]
mod tests;

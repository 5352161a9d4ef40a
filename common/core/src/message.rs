//! What clients and server say to each other, as checked domain values.

use crate::answer::{Outcome, Reject, Waiting};
use crate::id::{ClientId, Digest, ModelVersion, RoundId, RunId, Token};
use crate::recipe::Width;
use dunlin_codec::Codec;
use serde::{Deserialize, Serialize};

/// The protocol version that this build speaks.
pub const PROTOCOL: u32 = 3;
/// The oldest protocol version that this build still understands. Version 2 has the same messages, but its speakers
/// cannot read frames of version 3.
pub const PROTOCOL_OLDEST: u32 = 3;

/// Answers for a peer's protocol version.
///
/// # Errors
/// [`Reject::ProtocolTooOld`] or [`Reject::ProtocolTooNew`] outside `PROTOCOL_OLDEST..=PROTOCOL`.
pub fn negotiate(protocol: u32) -> Result<(), Reject> {
    match protocol {
        0..PROTOCOL_OLDEST => Err(Reject::ProtocolTooOld),
        PROTOCOL_OLDEST..=PROTOCOL => Ok(()),
        _ => Err(Reject::ProtocolTooNew),
    }
}

/// A refused [`Join`], with what the server speaks: only with both sides' numbers is it plain which one to update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub struct JoinRefused {
    /// Why.
    pub reject: Reject,
    /// The oldest protocol version that the server speaks; 0 from one that did not say.
    pub oldest: u32,
    /// The newest.
    pub newest: u32,
}

impl std::fmt::Display for JoinRefused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { reject, oldest, newest } = self;
        let older = match reject {
            Reject::ProtocolTooOld => "the client",
            Reject::ProtocolTooNew => "the server, or use an older client",
            _ => return write!(f, "{reject}"),
        };
        let server = if oldest == newest { newest.to_string() } else { format!("{oldest} to {newest}") };
        write!(f, "the server speaks protocol {server}, this client {PROTOCOL}: update {older}")
    }
}

/// A client introduces itself, once per process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The protocol version that the client speaks.
    pub protocol: u32,
    /// Its name.
    pub client: ClientId,
    /// The secret that holds the name.
    pub token: Token,
}

/// The server's answer to an accepted [`Join`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The run that the server conducts.
    pub run: RunId,
    /// The recipe as TOML, without the parts that are the server's business.
    pub recipe: String,
    /// Digest of the model's layout, which the client compares with its own.
    pub layout: Digest,
}

/// Who speaks, on every call after the join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The run joined.
    pub run: RunId,
    /// The client.
    pub client: ClientId,
    /// Its secret.
    pub token: Token,
}

/// A client asks for work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckIn {
    /// Who asks.
    pub session: Session,
    /// Training examples at hand; bounds what its update may claim.
    pub examples: u32,
    /// How much of the model it has, which stays as it is for as long as its session does.
    pub width: Width,
    /// The model version that it holds.
    pub held: Option<ModelVersion>,
    /// How long the server may hold the call open when there is no work, in milliseconds.
    pub wait_ms: u64,
    /// A round (from 1) that the client was asked to train in and will send no update for.
    pub declines: Option<u64>,
}

/// What a client that checked in should do.
#[derive(Clone, Debug, PartialEq)]
pub enum Assignment {
    /// Train and upload an update.
    Train(TrainTask),
    /// Evaluate a model on its own data.
    Evaluate(EvaluationTask),
    /// Come back later.
    Wait {
        /// Why there is no work.
        reason: Waiting,
        /// When to ask again, in milliseconds.
        retry_after_ms: u64,
    },
    /// The run is over; the version is the last model's.
    Finished {
        /// How it ended.
        outcome: Outcome,
        /// The final model.
        version: ModelVersion,
    },
}

/// One client's work in a training round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainTask {
    /// The round.
    pub round: RoundId,
    /// The model version to start from.
    pub base: ModelVersion,
    /// Time until the round closes, in milliseconds.
    pub deadline_ms: u64,
    /// How to encode the update.
    pub codec: Codec,
    /// Longest frame, in bytes, that the density is to be chosen for; 0 for none.
    pub max_bytes: u64,
    /// How often the client will be asked to train from now on, this time included, if nobody comes or goes; 0 where that
    /// is not known.
    pub asks: u32,
}

/// One client's work in a federated evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvaluationTask {
    /// The round that the evaluation follows.
    pub round: RoundId,
    /// The model version to evaluate.
    pub version: ModelVersion,
    /// Time until the evaluation closes, in milliseconds.
    pub deadline_ms: u64,
}

/// What an upload announces before its bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpdateHeader {
    /// The client's name.
    pub client: ClientId,
    /// The round that the update is for.
    pub round: RoundId,
    /// The model version that training started from.
    pub base: ModelVersion,
    /// Training examples behind the update: its weight in the mean.
    pub examples: u32,
    /// Mean training loss over the last local epoch.
    pub loss: f32,
    /// Length of the frame in bytes.
    pub frame_len: u64,
    /// Digest of the frame.
    pub digest: Digest,
}

/// The server's word that an update is durable and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The round.
    pub round: RoundId,
    /// Digest of the frame that was received.
    pub digest: Digest,
    /// Whether the same update had been received before.
    pub duplicate: bool,
}

/// A client's result of an [`EvaluationTask`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationReport {
    /// The round that the evaluation follows.
    pub round: RoundId,
    /// The model version evaluated.
    pub version: ModelVersion,
    /// Examples looked at.
    pub examples: u64,
    /// Of them predicted right.
    pub correct: u64,
    /// Sum of their losses.
    pub loss_sum: f64,
}

/// A client asks for a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchModel {
    /// Who asks.
    pub session: Session,
    /// The version that it holds, if any.
    pub held: Option<ModelVersion>,
    /// The version that it wants.
    pub wanted: ModelVersion,
}

/// What a client builds a fetched model on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CatchUpBase {
    /// All zeros: the frames are a snapshot.
    Zero,
    /// The initial model, which the client computes from the recipe's seed.
    Seeded,
    /// The version that it said it holds.
    Held,
}

/// How a client gets from what it holds to what it wants: frames to apply in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// What to start from.
    pub base: CatchUpBase,
    /// The version after the last frame.
    pub version: ModelVersion,
    /// Digest of the integers of that version.
    pub digest: Digest,
    /// A checksum of them, where they are built on what the client holds and has checked before; none from a server that
    /// knows of no checksums.
    pub checksum: Option<u32>,
    /// Length of each frame that follows, in bytes.
    pub frame_lens: Vec<u32>,
}

impl CatchUp {
    /// Bytes of all frames.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.frame_lens.iter().map(|&len| u64::from(len)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_versions_are_understood_and_others_get_their_own_answer() {
        for known in PROTOCOL_OLDEST..=PROTOCOL {
            assert_eq!(negotiate(known), Ok(()));
        }
        assert_eq!(negotiate(PROTOCOL + 1), Err(Reject::ProtocolTooNew));
        assert_eq!(negotiate(PROTOCOL_OLDEST - 1), Err(Reject::ProtocolTooOld));
    }

    #[test]
    fn a_refused_join_tells_both_numbers_where_versions_are_the_reason() {
        let text = |reject, oldest, newest| JoinRefused { reject, oldest, newest }.to_string();
        let own = format!("this client {PROTOCOL}");
        assert_eq!(
            text(Reject::ProtocolTooOld, 7, 8),
            format!("the server speaks protocol 7 to 8, {own}: update the client")
        );
        assert_eq!(
            text(Reject::ProtocolTooNew, 1, 1),
            format!("the server speaks protocol 1, {own}: update the server, or use an older client")
        );
        assert_eq!(text(Reject::TooManyClients, 1, 2), Reject::TooManyClients.to_string());
    }
}

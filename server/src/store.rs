//! What must survive the server: rows and frames, behind one small trait.

#[doc(hidden)]
pub mod contract;
mod discard;
mod memory;
mod sqlite;
#[cfg(test)]
mod tests;

pub use discard::DiscardStore;
pub use memory::MemoryStore;
pub use sqlite::SqliteStore;

use bytes::Bytes;
use dunlin_core::message::UpdateHeader;
use dunlin_core::recipe::Width;
use dunlin_core::{ClientId, Digest, ModelVersion, Outcome, RoundSummary, RunId, Token};

/// One fact that must be durable before anybody acts on it.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The server started for the `term`-th time.
    Started {
        /// Number of the start, from 1.
        term: u32,
    },
    /// A client took its name.
    Joined {
        /// The name.
        client: ClientId,
        /// The secret that holds it; a later record for the same name replaces it.
        token: Token,
        /// How much of the model it has; nothing as long as it has not said.
        width: Option<Width>,
    },
    /// A cohort was chosen.
    RoundOpened {
        /// Number of the round.
        round: u64,
        /// The model version that it starts from.
        base: ModelVersion,
        /// Clients among which the cohort was chosen.
        eligible: u32,
        /// The cohort.
        members: Vec<ClientId>,
    },
    /// An update was accepted: it counts unless its round is abandoned.
    UpdateAccepted {
        /// What the client announced.
        header: UpdateHeader,
        /// Its encoded bytes.
        frame: Bytes,
    },
    /// A round's updates made a new model version.
    Published {
        /// The version made.
        version: ModelVersion,
        /// Digest of its integers.
        digest: Digest,
        /// The packet that leads to it from the version before.
        packet: Bytes,
        /// The round's summary.
        summary: RoundSummary,
    },
    /// A round missed its quorum; its updates are dropped.
    Abandoned {
        /// The round's summary.
        summary: RoundSummary,
    },
    /// A round's summary learned more, such as an evaluation.
    Summary(RoundSummary),
    /// The whole state of the global model; updates of rounds up to it are no longer needed.
    Checkpoint {
        /// Its version.
        version: ModelVersion,
        /// [`GlobalModel::checkpoint`](crate::global::GlobalModel::checkpoint).
        state: Bytes,
    },
    /// The run ended.
    Finished(Outcome),
}

/// A run as listed.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// Its id.
    pub id: RunId,
    /// The recipe's name.
    pub name: String,
    /// The recipe as TOML.
    pub recipe: String,
    /// Digest of the recipe.
    pub recipe_digest: Digest,
    /// When it was created, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// How it ended, if it did.
    pub outcome: Option<Outcome>,
    /// Rounds summarised so far.
    pub rounds: u64,
}

/// A client that took its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRow {
    /// The name.
    pub client: ClientId,
    /// The secret that holds it.
    pub token: Token,
    /// How much of the model it has; nothing as long as it has not said, or where the recipe has no sizes.
    pub width: Option<Width>,
}

/// A round that was open when the server stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenRow {
    /// Number of the round.
    pub round: u64,
    /// The model version that it starts from.
    pub base: ModelVersion,
    /// Clients among which the cohort was chosen.
    pub eligible: u32,
    /// The cohort.
    pub members: Vec<ClientId>,
    /// The updates accepted so far, by client.
    pub updates: Vec<(UpdateHeader, Bytes)>,
}

/// A published round after the last checkpoint, to be computed again.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayRow {
    /// Number of the round.
    pub round: u64,
    /// The version that it made.
    pub version: ModelVersion,
    /// Digest that computing it again must give.
    pub digest: Digest,
    /// The updates that it counted, by client.
    pub updates: Vec<(UpdateHeader, Bytes)>,
}

/// Everything that a server needs to go on with a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restored {
    /// Last term recorded; 0 before the first start.
    pub term: u32,
    /// The clients, by name.
    pub clients: Vec<ClientRow>,
    /// The last checkpoint.
    pub checkpoint: Option<(ModelVersion, Bytes)>,
    /// Rounds published after it, in order.
    pub replay: Vec<ReplayRow>,
    /// Packets that lead to the given versions, in order of version, as far back as they are kept.
    pub packets: Vec<(ModelVersion, Bytes)>,
    /// The open round.
    pub open: Option<OpenRow>,
    /// Every round's summary, in order.
    pub summaries: Vec<RoundSummary>,
    /// The last update of each client that was accepted in a round not abandoned, by client: round and digest. Kept
    /// through checkpoints, so that a client which lost its receipt still hears that its update counted.
    pub receipts: Vec<(ClientId, u64, Digest)>,
    /// How the run ended, if it did.
    pub outcome: Option<Outcome>,
}

/// Why a store could not do its work. Ours to mend, never a client's mistake.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The rows could not be read or written.
    #[error("database in {place}: {source}")]
    Rows {
        /// Where the database lies.
        place: String,
        /// What went wrong.
        source: sqlx::Error,
    },
    /// A blob could not be read or written.
    #[error("blob {key}: {source}")]
    Blob {
        /// Its key.
        key: String,
        /// What went wrong.
        source: object_store::Error,
    },
    /// The directory could not be made or locked.
    #[error("data directory {place}: {reason}")]
    Directory {
        /// The directory.
        place: String,
        /// What went wrong and what to do.
        reason: String,
    },
    /// What was read is not what was written.
    #[error("{what} in the store is damaged: {reason}")]
    Damaged {
        /// Which row or blob.
        what: String,
        /// How it shows.
        reason: String,
    },
    /// No such run.
    #[error("the store holds no run {0}")]
    UnknownRun(RunId),
    /// A run of that id was created before.
    #[error("the store holds a run {0} already")]
    RunExists(RunId),
    /// Records came before a run was created or restored.
    #[error("no run was created or restored before its records")]
    NoRun,
}

/// Rows and frames that outlive the process.
///
/// A call returns when its effect is durable. One writer owns a store; every implementation runs the same contract
/// suite.
pub trait Store: Send {
    /// All runs, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn runs(&mut self) -> Result<Vec<RunRow>, StoreError>;

    /// Creates a run and makes it the current one; `outcome` and `rounds` of the row are ignored.
    ///
    /// # Errors
    /// [`StoreError::RunExists`], or when the store cannot be written.
    fn create(&mut self, run: &RunRow) -> Result<(), StoreError>;

    /// Reads a run and makes it the current one.
    ///
    /// # Errors
    /// [`StoreError::UnknownRun`], or when the store cannot be read or is damaged.
    fn restore(&mut self, run: RunId) -> Result<Restored, StoreError>;

    /// Makes records of the current run durable, all of them or none; they share one disk sync.
    ///
    /// Records take effect in order and each can be repeated, as after a commit whose result was never learned. A
    /// [`Record::Checkpoint`] also lets go of what no restore needs any more: updates of rounds that it covers, and
    /// packets that have left the ring.
    ///
    /// # Errors
    /// When no run is current or the store cannot be written; then none of the records may be acted on.
    fn commit(&mut self, records: &[Record]) -> Result<(), StoreError>;
}

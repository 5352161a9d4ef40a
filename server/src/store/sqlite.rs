//! The embedded store: SQLite for rows and small frames, a directory for large ones.

mod blobs;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod write;

use super::{Record, Restored, RunRow, Store, StoreError};
use blobs::Blobs;
use dunlin_core::RunId;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;
use tokio::runtime::Handle;

/// `dunlin.db` and `blobs/` in a directory that one server holds at a time.
///
/// A commit first makes its large frames durable, side by side, then its rows in one transaction; so a row never
/// speaks of a frame that is not there, and what a crash leaves in between is a blob without a row, which the next
/// checkpoint sweeps. Its calls block and must come from a thread outside the runtime.
pub struct SqliteStore {
    handle: Handle,
    connection: SqliteConnection,
    blobs: Blobs,
    place: String,
    current: Option<RunId>,
    packet_ring: u32,
    /// Held as long as the store; the system lets go of it when the process ends, however it ends.
    _lock: File,
}

impl SqliteStore {
    /// Packets kept unless [`Self::with_packet_ring`] says otherwise: the recipe's default.
    pub const DEFAULT_PACKET_RING: u32 = 64;

    /// Opens the store in `dir`, making both when they do not exist.
    ///
    /// # Errors
    /// When the directory cannot be used, another server holds it, or a newer Dunlin wrote it.
    ///
    /// # Panics
    /// Like every call of the store, on a thread of the runtime.
    pub fn open(dir: &Path, handle: Handle) -> Result<Self, StoreError> {
        let place = dir.display().to_string();
        std::fs::create_dir_all(dir.join("blobs")).map_err(|error| directory(&place, &error))?;
        let lock = lock(dir, &place)?;
        let blobs = Blobs::open(&dir.join("blobs"))?;
        let options = SqliteConnectOptions::new()
            .filename(dir.join("dunlin.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let connect = async {
            let mut connection = SqliteConnection::connect_with(&options).await.map_err(rows(&place))?;
            schema::prepare(&mut connection, &place).await?;
            Ok::<_, StoreError>(connection)
        };
        let connection = handle.block_on(connect)?;
        Ok(Self {
            handle,
            connection,
            blobs,
            place,
            current: None,
            packet_ring: Self::DEFAULT_PACKET_RING,
            _lock: lock,
        })
    }

    /// Keeps the packets of the last `packets` versions.
    #[must_use]
    pub fn with_packet_ring(mut self, packets: u32) -> Self {
        self.packet_ring = packets;
        self
    }
}

impl Store for SqliteStore {
    fn runs(&mut self) -> Result<Vec<RunRow>, StoreError> {
        self.handle.block_on(read::runs(&mut self.connection, &self.place))
    }

    fn create(&mut self, run: &RunRow) -> Result<(), StoreError> {
        self.handle.block_on(write::create(&mut self.connection, &self.place, run))?;
        self.current = Some(run.id);
        Ok(())
    }

    fn restore(&mut self, run: RunId) -> Result<Restored, StoreError> {
        let source = read::Source { connection: &mut self.connection, blobs: &self.blobs, place: &self.place, run };
        let restored = self.handle.block_on(source.restored())?;
        self.current = Some(run);
        Ok(restored)
    }

    fn commit(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let run = self.current.ok_or(StoreError::NoRun)?;
        let (connection, place, blobs) = (&mut self.connection, self.place.as_str(), &self.blobs);
        self.handle.block_on(async {
            blobs.put_all(run, records).await?;
            write::records(connection, run, records, self.packet_ring).await.map_err(rows(place))?;
            if records.iter().any(|record| matches!(record, Record::Checkpoint { .. })) {
                // A blob too many does no harm, so the commit stands; the next checkpoint tries again.
                if let Err(error) = sweep(connection, place, blobs, run).await {
                    tracing::warn!(%run, %error, "could not remove blobs that are no longer needed");
                }
            }
            Ok(())
        })
    }
}

async fn sweep(connection: &mut SqliteConnection, place: &str, blobs: &Blobs, run: RunId) -> Result<(), StoreError> {
    let needed = read::blob_digests(connection, run).await.map_err(rows(place))?;
    blobs.keep_only(run, &needed).await
}

fn lock(dir: &Path, place: &str) -> Result<File, StoreError> {
    let path = dir.join("dunlin.lock");
    let file = File::options().create(true).truncate(false).write(true).open(path);
    let file = file.map_err(|error| directory(place, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(directory(place, &"another server uses it; stop that one or choose another directory"))
        }
        Err(TryLockError::Error(error)) => Err(directory(place, &error)),
    }
}

fn directory(place: &str, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Directory { place: place.into(), reason: reason.to_string() }
}

/// Tells an error of the database where it lies.
fn rows(place: &str) -> impl Fn(sqlx::Error) -> StoreError + '_ {
    |source| StoreError::Rows { place: place.into(), source }
}

/// How long to wait for another connection, such as someone's SQL shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest frame, in bytes, that lies in its row: there it shares the sync of the transaction, where a file of its own
/// costs two more. Longer ones would be written twice, to the log and to the database.
const INLINE_MAX: usize = 64 * 1024;

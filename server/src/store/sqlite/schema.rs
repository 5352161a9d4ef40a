//! The tables and their version.

use super::{StoreError, directory, rows};
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;

/// Makes the tables where there are none.
pub(super) async fn prepare(connection: &mut SqliteConnection, place: &str) -> Result<(), StoreError> {
    let version: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await.map_err(rows(place))?;
    match version {
        0 => create(connection).await.map_err(rows(place)),
        1 => sqlx::raw_sql(FROM_1).execute(connection).await.map(drop).map_err(rows(place)),
        VERSION => Ok(()),
        newer => {
            let reason = format!("its database has schema {newer} and this dunlin knows {VERSION}: use a newer dunlin");
            Err(directory(place, &reason))
        }
    }
}

async fn create(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(TABLES).execute(&mut *transaction).await?;
    transaction.commit().await
}

const VERSION: i64 = 2;

/// Version 1 did not know how much of the model a client has: all had all of it.
const FROM_1: &str = "
BEGIN IMMEDIATE;
ALTER TABLE clients ADD COLUMN width INTEGER;
PRAGMA user_version = 2;
COMMIT;
";

/// A frame, packet or state is in its row, or NULL there and in the blob of its digest. Members stand one a line;
/// headers are postcard, summaries JSON; numbers of outcomes are those of the wire, widths millionths.
/// Receipts are the last update of each client in a published round.
const TABLES: &str = "
CREATE TABLE runs (
    id BLOB PRIMARY KEY, name TEXT NOT NULL, recipe TEXT NOT NULL, recipe_digest BLOB NOT NULL,
    created_ms INTEGER NOT NULL, term INTEGER NOT NULL DEFAULT 0, outcome INTEGER
) STRICT, WITHOUT ROWID;
CREATE TABLE clients (
    run BLOB NOT NULL, client TEXT NOT NULL, token BLOB NOT NULL, width INTEGER, PRIMARY KEY (run, client)
) STRICT, WITHOUT ROWID;
CREATE TABLE rounds (
    run BLOB NOT NULL, round INTEGER NOT NULL, base INTEGER NOT NULL, eligible INTEGER NOT NULL,
    members TEXT NOT NULL, closed INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (run, round)
) STRICT;
CREATE TABLE updates (
    run BLOB NOT NULL, round INTEGER NOT NULL, client TEXT NOT NULL, header BLOB NOT NULL,
    digest BLOB NOT NULL, frame BLOB, PRIMARY KEY (run, round, client)
) STRICT;
CREATE TABLE versions (
    run BLOB NOT NULL, version INTEGER NOT NULL, round INTEGER NOT NULL, model_digest BLOB NOT NULL,
    digest BLOB NOT NULL, frame BLOB, PRIMARY KEY (run, version)
) STRICT;
CREATE TABLE summaries (
    run BLOB NOT NULL, round INTEGER NOT NULL, summary TEXT NOT NULL, PRIMARY KEY (run, round)
) STRICT;
CREATE TABLE receipts (
    run BLOB NOT NULL, client TEXT NOT NULL, round INTEGER NOT NULL, digest BLOB NOT NULL, PRIMARY KEY (run, client)
) STRICT, WITHOUT ROWID;
CREATE TABLE checkpoints (
    run BLOB PRIMARY KEY, version INTEGER NOT NULL, digest BLOB NOT NULL, frame BLOB
) STRICT;
PRAGMA user_version = 2;
";

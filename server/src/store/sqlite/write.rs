//! Records to rows.

use super::blobs::is_inline;
use super::{Record, RunRow, StoreError, rows};
use dunlin_core::recipe::Width;
use dunlin_core::{ClientId, Digest, ModelVersion, RoundSummary, RunId};
use sqlx::Connection as _;
use sqlx::sqlite::SqliteConnection;

/// Adds a run.
pub(super) async fn create(connection: &mut SqliteConnection, place: &str, run: &RunRow) -> Result<(), StoreError> {
    let added = sqlx::query(
        "INSERT INTO runs (id, name, recipe, recipe_digest, created_ms) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(run.id.0.to_vec())
    .bind(run.name.clone())
    .bind(run.recipe.clone())
    .bind(run.recipe_digest.0.to_vec())
    .bind(run.created_ms.cast_signed())
    .execute(connection)
    .await
    .map_err(rows(place))?;
    if added.rows_affected() == 1 { Ok(()) } else { Err(StoreError::RunExists(run.id)) }
}

/// Applies the records in one transaction.
pub(super) async fn records(
    connection: &mut SqliteConnection,
    run: RunId,
    records: &[Record],
    packet_ring: u32,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let mut rows = Rows { connection: &mut transaction, run: run.0.to_vec() };
    for record in records {
        rows.apply(record, packet_ring).await?;
    }
    transaction.commit().await
}

/// The rows of one run in an open transaction.
struct Rows<'a> {
    connection: &'a mut SqliteConnection,
    run: Vec<u8>,
}

impl Rows<'_> {
    async fn apply(&mut self, record: &Record, packet_ring: u32) -> Result<(), sqlx::Error> {
        match record {
            Record::Started { term } => {
                let query = sqlx::query("UPDATE runs SET term = ? WHERE id = ?").bind(*term).bind(self.run.clone());
                query.execute(&mut *self.connection).await?;
            }
            Record::Joined { client, token, width } => {
                let query = sqlx::query("REPLACE INTO clients (run, client, token, width) VALUES (?, ?, ?, ?)");
                let query = query.bind(self.run.clone()).bind(client.to_string()).bind(token.0.to_vec());
                let query = query.bind(width.map(Width::millionths));
                query.execute(&mut *self.connection).await?;
            }
            Record::RoundOpened { round, base, eligible, members } => {
                sqlx::query("REPLACE INTO rounds (run, round, base, eligible, members) VALUES (?, ?, ?, ?, ?)")
                    .bind(self.run.clone())
                    .bind(round.cast_signed())
                    .bind(base.0.cast_signed())
                    .bind(*eligible)
                    .bind(members.iter().map(ClientId::as_str).collect::<Vec<_>>().join("\n"))
                    .execute(&mut *self.connection)
                    .await?;
            }
            Record::UpdateAccepted { header, frame } => {
                let encoded = postcard::to_stdvec(header).expect("a header holds only numbers and a name");
                sqlx::query(
                    "REPLACE INTO updates (run, round, client, header, digest, frame) VALUES (?, ?, ?, ?, ?, ?)",
                )
                .bind(self.run.clone())
                .bind(header.round.number.cast_signed())
                .bind(header.client.to_string())
                .bind(encoded)
                .bind(digest_of(frame))
                .bind(inline(frame))
                .execute(&mut *self.connection)
                .await?;
            }
            Record::Published { version, digest, packet, summary } => {
                sqlx::query(
                    "REPLACE INTO versions (run, version, round, model_digest, digest, frame) VALUES (?, ?, ?, ?, ?, ?)",
                )
                .bind(self.run.clone())
                .bind(version.0.cast_signed())
                .bind(summary.round.cast_signed())
                .bind(digest.0.to_vec())
                .bind(digest_of(packet))
                .bind(inline(packet))
                .execute(&mut *self.connection)
                .await?;
                self.execute(
                    "INSERT INTO receipts (run, client, round, digest)
                     SELECT run, client, round, digest FROM updates WHERE run = ? AND round = ?
                     ON CONFLICT DO UPDATE SET round = excluded.round, digest = excluded.digest
                     WHERE excluded.round >= receipts.round",
                    summary.round,
                )
                .await?;
                self.close(summary).await?;
            }
            Record::Abandoned { summary } => {
                self.execute("DELETE FROM updates WHERE run = ? AND round = ?", summary.round).await?;
                self.close(summary).await?;
            }
            Record::Summary(summary) => self.summarise(summary).await?,
            Record::Checkpoint { version, state } => {
                sqlx::query("REPLACE INTO checkpoints (run, version, digest, frame) VALUES (?, ?, ?, ?)")
                    .bind(self.run.clone())
                    .bind(version.0.cast_signed())
                    .bind(digest_of(state))
                    .bind(inline(state))
                    .execute(&mut *self.connection)
                    .await?;
                self.let_go(*version, packet_ring).await?;
            }
            Record::Finished(outcome) => {
                let query = sqlx::query("UPDATE runs SET outcome = ? WHERE id = ?").bind(outcome.number());
                query.bind(self.run.clone()).execute(&mut *self.connection).await?;
            }
        }
        Ok(())
    }

    async fn close(&mut self, summary: &RoundSummary) -> Result<(), sqlx::Error> {
        self.execute("UPDATE rounds SET closed = 1 WHERE run = ? AND round = ?", summary.round).await?;
        self.summarise(summary).await
    }

    async fn summarise(&mut self, summary: &RoundSummary) -> Result<(), sqlx::Error> {
        sqlx::query("REPLACE INTO summaries (run, round, summary) VALUES (?, ?, ?)")
            .bind(self.run.clone())
            .bind(summary.round.cast_signed())
            .bind(serde_json::to_string(summary).expect("a summary holds only numbers and names"))
            .execute(&mut *self.connection)
            .await?;
        Ok(())
    }

    /// Drops what a restore from the checkpoint of `version` does not need.
    async fn let_go(&mut self, version: ModelVersion, packet_ring: u32) -> Result<(), sqlx::Error> {
        self.execute(
            "DELETE FROM updates WHERE run = ?1
             AND round <= (SELECT max(round) FROM versions WHERE run = ?1 AND version <= ?2)",
            version.0,
        )
        .await?;
        if let Some(last) = version.0.checked_sub(packet_ring.into()) {
            self.execute("DELETE FROM versions WHERE run = ? AND version <= ?", last).await?;
        }
        let rounds = sqlx::query(
            "DELETE FROM rounds WHERE run = ?1 AND closed = 1
             AND round < (SELECT max(round) FROM rounds WHERE run = ?1)",
        );
        rounds.bind(self.run.clone()).execute(&mut *self.connection).await?;
        Ok(())
    }

    /// Runs a statement about the run and one number.
    async fn execute(&mut self, statement: &'static str, number: u64) -> Result<(), sqlx::Error> {
        let query = sqlx::query(statement).bind(self.run.clone()).bind(number.cast_signed());
        query.execute(&mut *self.connection).await?;
        Ok(())
    }
}

fn digest_of(frame: &[u8]) -> Vec<u8> {
    Digest::of(frame).0.to_vec()
}

fn inline(frame: &[u8]) -> Option<Vec<u8>> {
    is_inline(frame).then(|| frame.to_vec())
}

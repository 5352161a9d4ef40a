//! Rows to what a server goes on from.

use super::blobs::{Blobs, check};
use super::{Restored, RunRow, StoreError, rows};
use crate::store::{ClientRow, OpenRow, ReplayRow};
use bytes::Bytes;
use dunlin_core::message::UpdateHeader;
use dunlin_core::recipe::Width;
use dunlin_core::{ClientId, Digest, ModelVersion, Outcome, RoundSummary, RunId, Token};
use sqlx::sqlite::SqliteConnection;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// All runs, newest first.
pub(super) async fn runs(connection: &mut SqliteConnection, place: &str) -> Result<Vec<RunRow>, StoreError> {
    type Row = (Vec<u8>, String, String, Vec<u8>, i64, Option<i32>, i64);
    let found: Vec<Row> = sqlx::query_as(
        "SELECT id, name, recipe, recipe_digest, created_ms, outcome,
                (SELECT count(*) FROM summaries WHERE run = id)
         FROM runs ORDER BY created_ms DESC, id",
    )
    .fetch_all(connection)
    .await
    .map_err(rows(place))?;
    let mut listed = Vec::with_capacity(found.len());
    for (id, name, recipe, recipe_digest, created_ms, outcome, rounds) in found {
        listed.push(RunRow {
            id: RunId(array(&"run id", id)?),
            name,
            recipe,
            recipe_digest: Digest(array(&"recipe digest", recipe_digest)?),
            created_ms: created_ms.cast_unsigned(),
            outcome: outcome_of(outcome)?,
            rounds: rounds.cast_unsigned(),
        });
    }
    Ok(listed)
}

/// Digests of the frames that a run's rows expect in blobs.
pub(super) async fn blob_digests(
    connection: &mut SqliteConnection,
    run: RunId,
) -> Result<BTreeSet<Digest>, sqlx::Error> {
    let digests: Vec<Vec<u8>> = sqlx::query_scalar(
        "SELECT digest FROM updates WHERE run = ?1 AND frame IS NULL
         UNION SELECT digest FROM versions WHERE run = ?1 AND frame IS NULL
         UNION SELECT digest FROM checkpoints WHERE run = ?1 AND frame IS NULL",
    )
    .bind(run.0.to_vec())
    .fetch_all(connection)
    .await?;
    // A digest of another length names no blob.
    Ok(digests.into_iter().filter_map(|digest| digest.try_into().ok()).map(Digest).collect())
}

/// Where one run is read from.
pub(super) struct Source<'a> {
    pub(super) connection: &'a mut SqliteConnection,
    pub(super) blobs: &'a Blobs,
    pub(super) place: &'a str,
    pub(super) run: RunId,
}

impl Source<'_> {
    /// Everything that a server needs to go on.
    pub(super) async fn restored(mut self) -> Result<Restored, StoreError> {
        let row = sqlx::query_as("SELECT term, outcome FROM runs WHERE id = ?").bind(self.id());
        let row: Option<(u32, Option<i32>)> =
            row.fetch_optional(&mut *self.connection).await.map_err(rows(self.place))?;
        let Some((term, outcome)) = row else { return Err(StoreError::UnknownRun(self.run)) };
        let checkpoint = self.checkpoint().await?;
        let covered = checkpoint.as_ref().map_or(ModelVersion(0), |(version, _)| *version);
        let (packets, replay) = self.versions(covered).await?;
        let open = self.open().await?;
        let mut receipts = self.receipts().await?;
        for (header, _) in open.iter().flat_map(|open| &open.updates) {
            receipts.insert(header.client.clone(), (header.round.number, header.digest));
        }
        Ok(Restored {
            term,
            clients: self.clients().await?,
            checkpoint,
            replay,
            packets,
            open,
            summaries: self.summaries().await?,
            receipts: receipts.into_iter().map(|(client, (round, digest))| (client, round, digest)).collect(),
            outcome: outcome_of(outcome)?,
        })
    }

    async fn clients(&mut self) -> Result<Vec<ClientRow>, StoreError> {
        let query =
            sqlx::query_as("SELECT client, token, width FROM clients WHERE run = ? ORDER BY client").bind(self.id());
        let found: Vec<(String, Vec<u8>, Option<u32>)> =
            query.fetch_all(&mut *self.connection).await.map_err(rows(self.place))?;
        let mut clients = Vec::with_capacity(found.len());
        for (name, token, width) in found {
            let token = Token(array(&format_args!("token of {name}"), token)?);
            let width = width.map(Width::from_millionths).transpose();
            let width = width.map_err(|error| damaged(&format_args!("width of {name}"), &error))?;
            clients.push(ClientRow { client: client_of(&name)?, token, width });
        }
        Ok(clients)
    }

    async fn checkpoint(&mut self) -> Result<Option<(ModelVersion, Bytes)>, StoreError> {
        let query = sqlx::query_as("SELECT version, digest, frame FROM checkpoints WHERE run = ?").bind(self.id());
        let row: Option<(i64, Vec<u8>, Option<Vec<u8>>)> =
            query.fetch_optional(&mut *self.connection).await.map_err(rows(self.place))?;
        let Some((version, digest, frame)) = row else { return Ok(None) };
        let version = ModelVersion(version.cast_unsigned());
        let state = self.frame(&format_args!("checkpoint of {version}"), digest, frame).await?;
        Ok(Some((version, state)))
    }

    /// Packets as far back as they are kept, and the rounds published after the version that a checkpoint covers.
    async fn versions(
        &mut self,
        covered: ModelVersion,
    ) -> Result<(Vec<(ModelVersion, Bytes)>, Vec<ReplayRow>), StoreError> {
        type Row = (i64, i64, Vec<u8>, Vec<u8>, Option<Vec<u8>>);
        let query = sqlx::query_as(
            "SELECT version, round, model_digest, digest, frame FROM versions WHERE run = ? ORDER BY version",
        );
        let found: Vec<Row> = query.bind(self.id()).fetch_all(&mut *self.connection).await.map_err(rows(self.place))?;
        let (mut packets, mut replay) = (Vec::with_capacity(found.len()), Vec::new());
        for (version, round, model_digest, digest, frame) in found {
            let (version, round) = (ModelVersion(version.cast_unsigned()), round.cast_unsigned());
            packets.push((version, self.frame(&format_args!("packet to {version}"), digest, frame).await?));
            if version > covered {
                let digest = Digest(array(&format_args!("model digest of {version}"), model_digest)?);
                replay.push(ReplayRow { round, version, digest, updates: self.updates(round).await? });
            }
        }
        Ok((packets, replay))
    }

    async fn open(&mut self) -> Result<Option<OpenRow>, StoreError> {
        type Row = (i64, i64, u32, String, bool);
        let query = sqlx::query_as(
            "SELECT round, base, eligible, members, closed FROM rounds WHERE run = ? ORDER BY round DESC LIMIT 1",
        );
        let row: Option<Row> =
            query.bind(self.id()).fetch_optional(&mut *self.connection).await.map_err(rows(self.place))?;
        let Some((round, base, eligible, members, false)) = row else { return Ok(None) };
        let round = round.cast_unsigned();
        Ok(Some(OpenRow {
            round,
            base: ModelVersion(base.cast_unsigned()),
            eligible,
            members: members.lines().map(client_of).collect::<Result<_, _>>()?,
            updates: self.updates(round).await?,
        }))
    }

    async fn updates(&mut self, round: u64) -> Result<Vec<(UpdateHeader, Bytes)>, StoreError> {
        type Row = (String, Vec<u8>, Vec<u8>, Option<Vec<u8>>);
        let query = sqlx::query_as(
            "SELECT client, header, digest, frame FROM updates WHERE run = ? AND round = ? ORDER BY client",
        );
        let query = query.bind(self.id()).bind(round.cast_signed());
        let found: Vec<Row> = query.fetch_all(&mut *self.connection).await.map_err(rows(self.place))?;
        let mut updates = Vec::with_capacity(found.len());
        for (client, header, digest, frame) in found {
            let what = format!("update of {client} in round {round}");
            let header = postcard::from_bytes(&header).map_err(|error| damaged(&what, &error))?;
            updates.push((header, self.frame(&what, digest, frame).await?));
        }
        Ok(updates)
    }

    async fn receipts(&mut self) -> Result<BTreeMap<ClientId, (u64, Digest)>, StoreError> {
        let query = sqlx::query_as("SELECT client, round, digest FROM receipts WHERE run = ?").bind(self.id());
        let found: Vec<(String, i64, Vec<u8>)> =
            query.fetch_all(&mut *self.connection).await.map_err(rows(self.place))?;
        let mut receipts = BTreeMap::new();
        for (client, round, digest) in found {
            let digest = Digest(array(&format_args!("receipt of {client}"), digest)?);
            receipts.insert(client_of(&client)?, (round.cast_unsigned(), digest));
        }
        Ok(receipts)
    }

    async fn summaries(&mut self) -> Result<Vec<RoundSummary>, StoreError> {
        let query = sqlx::query_scalar("SELECT summary FROM summaries WHERE run = ? ORDER BY round").bind(self.id());
        let found: Vec<String> = query.fetch_all(&mut *self.connection).await.map_err(rows(self.place))?;
        let read = |json: &String| serde_json::from_str(json).map_err(|error| damaged(&"round summary", &error));
        found.iter().map(read).collect()
    }

    /// A frame from its row or its blob, with its digest checked.
    async fn frame(&self, what: &dyn Display, digest: Vec<u8>, frame: Option<Vec<u8>>) -> Result<Bytes, StoreError> {
        let digest = Digest(array(what, digest)?);
        let Some(frame) = frame else { return self.blobs.get(self.run, digest).await };
        check(what, digest, &frame)?;
        Ok(frame.into())
    }

    fn id(&self) -> Vec<u8> {
        self.run.0.to_vec()
    }
}

fn outcome_of(number: Option<i32>) -> Result<Option<Outcome>, StoreError> {
    let Some(number) = number else { return Ok(None) };
    match Outcome::from_number(number) {
        Some(outcome) => Ok(Some(outcome)),
        None => Err(damaged(&"outcome", &format_args!("there is no outcome {number}"))),
    }
}

fn client_of(name: &str) -> Result<ClientId, StoreError> {
    ClientId::new(name).map_err(|error| damaged(&"client", &error))
}

fn array<const N: usize>(what: &dyn Display, bytes: Vec<u8>) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|bytes: Vec<u8>| damaged(what, &format_args!("{} bytes instead of {N}", bytes.len())))
}

fn damaged(what: &dyn Display, reason: &dyn Display) -> StoreError {
    StoreError::Damaged { what: what.to_string(), reason: reason.to_string() }
}

//! A store for simulations: it keeps what a restore needs, and nothing outlives the process.

use super::{ClientRow, OpenRow, Record, ReplayRow, Restored, RunRow, Store, StoreError};
use bytes::Bytes;
use dunlin_core::message::UpdateHeader;
use dunlin_core::{ClientId, Digest, ModelVersion, Outcome, RoundSummary, RunId};
use std::collections::BTreeMap;

/// Runs in memory. A clone is what a disk would hold at that moment, so a test can crash a server and go on from it.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    runs: BTreeMap<RunId, Run>,
    current: Option<RunId>,
    packet_ring: u64,
}

/// The tables of one run.
#[derive(Clone, Debug)]
struct Run {
    row: RunRow,
    term: u32,
    clients: BTreeMap<ClientId, ClientRow>,
    rounds: BTreeMap<u64, Opened>,
    updates: BTreeMap<(u64, ClientId), (UpdateHeader, Bytes)>,
    versions: BTreeMap<ModelVersion, Version>,
    summaries: BTreeMap<u64, RoundSummary>,
    /// The last update of each client in a published round.
    receipts: BTreeMap<ClientId, (u64, Digest)>,
    checkpoint: Option<(ModelVersion, Bytes)>,
    outcome: Option<Outcome>,
}

#[derive(Clone, Debug)]
struct Opened {
    base: ModelVersion,
    eligible: u32,
    members: Vec<ClientId>,
    closed: bool,
}

#[derive(Clone, Debug)]
struct Version {
    round: u64,
    digest: Digest,
    packet: Bytes,
}

impl MemoryStore {
    /// An empty store that keeps the packets of the last `packet_ring` versions.
    #[must_use]
    pub fn new(packet_ring: u32) -> Self {
        Self { runs: BTreeMap::new(), current: None, packet_ring: packet_ring.into() }
    }
}

impl Store for MemoryStore {
    fn runs(&mut self) -> Result<Vec<RunRow>, StoreError> {
        let mut rows: Vec<RunRow> = self.runs.values().map(Run::listed).collect();
        rows.sort_by_key(|row| (std::cmp::Reverse(row.created_ms), row.id));
        Ok(rows)
    }

    fn create(&mut self, run: &RunRow) -> Result<(), StoreError> {
        if self.runs.contains_key(&run.id) {
            return Err(StoreError::RunExists(run.id));
        }
        self.runs.insert(run.id, Run::new(run.clone()));
        self.current = Some(run.id);
        Ok(())
    }

    fn restore(&mut self, run: RunId) -> Result<Restored, StoreError> {
        let restored = self.runs.get(&run).ok_or(StoreError::UnknownRun(run))?.restored();
        self.current = Some(run);
        Ok(restored)
    }

    fn commit(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let run = self.current.and_then(|id| self.runs.get_mut(&id)).ok_or(StoreError::NoRun)?;
        for record in records {
            run.apply(record, self.packet_ring);
        }
        Ok(())
    }
}

impl Run {
    fn new(row: RunRow) -> Self {
        Self {
            row,
            term: 0,
            clients: BTreeMap::new(),
            rounds: BTreeMap::new(),
            updates: BTreeMap::new(),
            versions: BTreeMap::new(),
            summaries: BTreeMap::new(),
            receipts: BTreeMap::new(),
            checkpoint: None,
            outcome: None,
        }
    }

    fn listed(&self) -> RunRow {
        RunRow { outcome: self.outcome, rounds: self.summaries.len() as u64, ..self.row.clone() }
    }

    fn restored(&self) -> Restored {
        let covered = self.checkpoint.as_ref().map_or(ModelVersion(0), |(version, _)| *version);
        let replay = self.versions.range(covered.next()..).map(|(&version, made)| ReplayRow {
            round: made.round,
            version,
            digest: made.digest,
            updates: self.updates_of(made.round),
        });
        let open = self.rounds.last_key_value().filter(|(_, opened)| !opened.closed).map(|(&round, opened)| OpenRow {
            round,
            base: opened.base,
            eligible: opened.eligible,
            members: opened.members.clone(),
            updates: self.updates_of(round),
        });
        let mut receipts = self.receipts.clone();
        for (header, _) in open.iter().flat_map(|open| &open.updates) {
            receipts.insert(header.client.clone(), (header.round.number, header.digest));
        }
        Restored {
            term: self.term,
            clients: self.clients.values().cloned().collect(),
            checkpoint: self.checkpoint.clone(),
            replay: replay.collect(),
            packets: self.versions.iter().map(|(&version, made)| (version, made.packet.clone())).collect(),
            open,
            summaries: self.summaries.values().cloned().collect(),
            receipts: receipts.into_iter().map(|(client, (round, digest))| (client, round, digest)).collect(),
            outcome: self.outcome,
        }
    }

    fn updates_of(&self, round: u64) -> Vec<(UpdateHeader, Bytes)> {
        // A map of pairs has no range by its first part alone that needs no smallest client id.
        self.updates.iter().filter(|((of, _), _)| *of == round).map(|(_, update)| update.clone()).collect()
    }

    fn apply(&mut self, record: &Record, packet_ring: u64) {
        match record {
            Record::Started { term } => self.term = *term,
            Record::Joined { client, token, width } => {
                let row = ClientRow { client: client.clone(), token: *token, width: *width };
                self.clients.insert(client.clone(), row);
            }
            Record::RoundOpened { round, base, eligible, members } => {
                let opened = Opened { base: *base, eligible: *eligible, members: members.clone(), closed: false };
                self.rounds.insert(*round, opened);
            }
            Record::UpdateAccepted { header, frame } => {
                let key = (header.round.number, header.client.clone());
                self.updates.insert(key, (header.clone(), frame.clone()));
            }
            Record::Published { version, digest, packet, summary } => {
                let made = Version { round: summary.round, digest: *digest, packet: packet.clone() };
                self.versions.insert(*version, made);
                for (header, _) in self.updates_of(summary.round) {
                    if self.receipts.get(&header.client).is_none_or(|&(last, _)| last <= summary.round) {
                        self.receipts.insert(header.client, (summary.round, header.digest));
                    }
                }
                self.close(summary);
            }
            Record::Abandoned { summary } => {
                self.updates.retain(|(round, _), _| *round != summary.round);
                self.close(summary);
            }
            Record::Summary(summary) => {
                self.summaries.insert(summary.round, summary.clone());
            }
            Record::Checkpoint { version, state } => {
                self.checkpoint = Some((*version, state.clone()));
                self.let_go(*version, packet_ring);
            }
            Record::Finished(outcome) => self.outcome = Some(*outcome),
        }
    }

    fn close(&mut self, summary: &RoundSummary) {
        if let Some(opened) = self.rounds.get_mut(&summary.round) {
            opened.closed = true;
        }
        self.summaries.insert(summary.round, summary.clone());
    }

    /// Drops what a restore from the checkpoint of `version` does not need.
    fn let_go(&mut self, version: ModelVersion, packet_ring: u64) {
        if let Some(covered) = self.versions.range(..=version).map(|(_, made)| made.round).max() {
            self.updates.retain(|(round, _), _| *round > covered);
        }
        self.versions.retain(|made, _| made.0 + packet_ring > version.0);
        let last = self.rounds.last_key_value().map(|(&round, _)| round);
        self.rounds.retain(|&round, opened| Some(round) == last || !opened.closed);
    }
}

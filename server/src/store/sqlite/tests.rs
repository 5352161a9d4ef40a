//! What only a disk can do: locks, versions, damage and leftovers.

use super::*;
use crate::store::contract::{accepted, joined, opened, published, run_row, sized};
use bytes::Bytes;
use dunlin_core::ModelVersion;
use dunlin_core::recipe::Width;
use std::path::PathBuf;
use tokio::runtime::Runtime;

struct Fixture {
    runtime: Runtime,
    dir: tempfile::TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { runtime: Runtime::new().unwrap(), dir: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Result<SqliteStore, StoreError> {
        SqliteStore::open(self.dir.path(), self.runtime.handle().clone())
    }

    /// A store whose current run has one open round with an update in a blob.
    fn with_blob(&self) -> SqliteStore {
        let mut store = self.open().unwrap();
        store.create(&run_row(1, 1)).unwrap();
        store.commit(&[opened(1, 0, &["a"]), accepted(1, "a", &LARGE)]).unwrap();
        store
    }

    fn blobs(&self) -> Vec<PathBuf> {
        let run = self.dir.path().join("blobs").join(run_row(1, 1).id.to_string());
        let mut paths: Vec<_> = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }
}

static LARGE: [u8; INLINE_MAX + 1] = [7; INLINE_MAX + 1];

#[test]
fn two_servers_cannot_share_a_directory() {
    let fixture = Fixture::new();
    let first = fixture.open().unwrap();
    let second = fixture.open().map(drop).unwrap_err().to_string();
    assert!(second.ends_with("another server uses it; stop that one or choose another directory"), "{second}");
    drop(first);
    fixture.open().unwrap();
}

#[test]
fn a_newer_schema_is_refused() {
    let fixture = Fixture::new();
    let mut store = fixture.open().unwrap();
    let newer = sqlx::query("PRAGMA user_version = 3").execute(&mut store.connection);
    fixture.runtime.block_on(newer).unwrap();
    drop(store);
    let error = fixture.open().map(drop).unwrap_err().to_string();
    assert!(error.ends_with("has schema 3 and this dunlin knows 2: use a newer dunlin"), "{error}");
}

#[test]
fn a_directory_from_before_clients_had_widths_is_gone_on_with() {
    let fixture = Fixture::new();
    let mut store = fixture.open().unwrap();
    store.create(&run_row(1, 1)).unwrap();
    store.commit(&[joined("a", 1), opened(1, 0, &["a"])]).unwrap();
    let before = store.restore(run_row(1, 1).id).unwrap();
    let old = sqlx::raw_sql("ALTER TABLE clients DROP COLUMN width; PRAGMA user_version = 1;");
    fixture.runtime.block_on(old.execute(&mut store.connection)).unwrap();
    drop(store);
    let mut store = fixture.open().unwrap();
    assert_eq!(store.restore(run_row(1, 1).id).unwrap(), before);
    store.commit(&[sized("b", 2, 0.5)]).unwrap();
    drop(store);
    let clients = fixture.open().unwrap().restore(run_row(1, 1).id).unwrap().clients;
    assert_eq!(clients.iter().map(|row| row.width).collect::<Vec<_>>(), [None, Some(Width::new(0.5).unwrap())]);
}

#[test]
fn a_damaged_blob_is_told_from_a_missing_one() {
    let fixture = Fixture::new();
    let mut store = fixture.with_blob();
    let blob = fixture.blobs().remove(0);
    std::fs::write(&blob, [8; INLINE_MAX + 1]).unwrap();
    assert!(matches!(store.restore(run_row(1, 1).id), Err(StoreError::Damaged { .. })));
    std::fs::remove_file(&blob).unwrap();
    assert!(matches!(store.restore(run_row(1, 1).id), Err(StoreError::Blob { .. })));
}

#[test]
fn a_damaged_row_is_noticed() {
    let fixture = Fixture::new();
    let mut store = fixture.open().unwrap();
    store.create(&run_row(1, 1)).unwrap();
    store.commit(&[opened(1, 0, &["a"]), accepted(1, "a", b"small")]).unwrap();
    let damage = sqlx::query("UPDATE updates SET frame = x'00'").execute(&mut store.connection);
    fixture.runtime.block_on(damage).unwrap();
    let error = store.restore(run_row(1, 1).id).unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { what, .. } if what == "update of a in round 1"), "{error}");
}

#[test]
fn a_failed_commit_leaves_nothing() {
    let fixture = Fixture::new();
    let mut store = fixture.open().unwrap();
    store.create(&run_row(1, 1)).unwrap();
    let before = store.restore(run_row(1, 1).id).unwrap();
    let break_it = sqlx::query("DROP TABLE updates").execute(&mut store.connection);
    fixture.runtime.block_on(break_it).unwrap();
    assert!(matches!(store.commit(&[joined("a", 1), accepted(1, "a", b"A")]), Err(StoreError::Rows { .. })));
    let clients = sqlx::query_scalar("SELECT count(*) FROM clients").fetch_one(&mut store.connection);
    let clients: i64 = fixture.runtime.block_on(clients).unwrap();
    assert_eq!((before.clients.len(), clients), (0, 0));
    store.commit(&[joined("b", 2)]).unwrap();
}

#[test]
fn a_checkpoint_sweeps_blobs_that_no_row_needs() {
    let fixture = Fixture::new();
    let mut store = fixture.with_blob();
    let orphan = fixture.blobs()[0].with_file_name("00ff");
    std::fs::write(&orphan, b"left by a crash").unwrap();
    let state = Bytes::from(vec![1; INLINE_MAX + 1]);
    store.commit(&[Record::Checkpoint { version: ModelVersion(0), state: state.clone() }]).unwrap();
    assert_eq!(fixture.blobs().len(), 2, "the open round's update and the state");
    store.commit(&[published(1, 1), Record::Checkpoint { version: ModelVersion(1), state }]).unwrap();
    assert_eq!(fixture.blobs().len(), 1, "only the state");
    assert!(store.restore(run_row(1, 1).id).is_ok());
}

#[test]
fn a_loss_that_is_not_a_number_survives() {
    let fixture = Fixture::new();
    let mut store = fixture.open().unwrap();
    store.create(&run_row(1, 1)).unwrap();
    let summary = dunlin_core::RoundSummary { round: 1, train_loss: f64::NAN, ..Default::default() };
    store.commit(&[Record::Abandoned { summary }]).unwrap();
    assert!(store.restore(run_row(1, 1).id).unwrap().summaries[0].train_loss.is_nan());
}

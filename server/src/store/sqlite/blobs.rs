//! Frames too large for a row, each in a file named by its digest.

use super::{INLINE_MAX, Record, StoreError};
use bytes::Bytes;
use dunlin_core::{Digest, RunId};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutPayload};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use tokio::task::JoinSet;

/// The blobs of all runs.
pub(super) struct Blobs {
    files: Arc<LocalFileSystem>,
}

impl Blobs {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let files = LocalFileSystem::new_with_prefix(dir).map_err(failed(&dir.display()))?;
        Ok(Self { files: Arc::new(files.with_fsync(true)) })
    }

    /// Makes the records' large frames durable; they are written side by side, so that they wait for the disk together.
    pub(super) async fn put_all(&self, run: RunId, records: &[Record]) -> Result<(), StoreError> {
        let mut writes = JoinSet::new();
        for frame in records.iter().filter_map(frame_of).filter(|frame| !is_inline(frame)) {
            let (files, key, frame) = (Arc::clone(&self.files), key(run, Digest::of(frame)), frame.clone());
            writes.spawn(async move {
                files.put(&key, PutPayload::from_bytes(frame)).await.map_err(failed(&key))?;
                Ok::<_, StoreError>(())
            });
        }
        while let Some(written) = writes.join_next().await {
            written.expect("writing a blob neither panics nor is cancelled")?;
        }
        Ok(())
    }

    /// Reads a blob and checks that it is what was written.
    pub(super) async fn get(&self, run: RunId, digest: Digest) -> Result<Bytes, StoreError> {
        let key = key(run, digest);
        let found = self.files.get(&key).await.map_err(failed(&key))?;
        let frame = found.bytes().await.map_err(failed(&key))?;
        check(&format_args!("blob {key}"), digest, &frame)?;
        Ok(frame)
    }

    /// Deletes a run's blobs other than these.
    pub(super) async fn keep_only(&self, run: RunId, needed: &BTreeSet<Digest>) -> Result<(), StoreError> {
        let prefix = Key::from(run.to_string());
        let listed = self.files.list_with_delimiter(Some(&prefix)).await.map_err(failed(&prefix))?;
        let needed: BTreeSet<String> = needed.iter().map(Digest::to_string).collect();
        for key in listed.objects.into_iter().map(|object| object.location) {
            if key.filename().is_some_and(|name| !needed.contains(name)) {
                self.files.delete(&key).await.map_err(failed(&key))?;
            }
        }
        Ok(())
    }
}

/// Whether a frame lies in its row.
pub(super) fn is_inline(frame: &[u8]) -> bool {
    frame.len() <= INLINE_MAX
}

/// Compares what was read with the digest of what was written.
pub(super) fn check(what: &dyn std::fmt::Display, digest: Digest, frame: &[u8]) -> Result<(), StoreError> {
    if Digest::of(frame) == digest {
        return Ok(());
    }
    let reason = format!("its {} bytes do not have the digest they were written with", frame.len());
    Err(StoreError::Damaged { what: what.to_string(), reason })
}

fn frame_of(record: &Record) -> Option<&Bytes> {
    match record {
        Record::UpdateAccepted { frame, .. } => Some(frame),
        Record::Published { packet, .. } => Some(packet),
        Record::Checkpoint { state, .. } => Some(state),
        Record::Started { .. }
        | Record::Joined { .. }
        | Record::RoundOpened { .. }
        | Record::Abandoned { .. }
        | Record::Summary(_)
        | Record::Finished(_) => None,
    }
}

fn key(run: RunId, digest: Digest) -> Key {
    Key::from(format!("{run}/{digest}"))
}

fn failed(key: &dyn std::fmt::Display) -> impl Fn(object_store::Error) -> StoreError {
    let key = key.to_string();
    move |source| StoreError::Blob { key: key.clone(), source }
}

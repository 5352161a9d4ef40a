//! State in a directory: it outlives the process, and an idle client's residual is not in RAM.

use super::{ClientState, StateError, new_token};
use crate::work::{Residual, Update};
use bytes::Bytes;
use dunlin_codec::{Mask, Segments};
use dunlin_core::message::UpdateHeader;
use dunlin_core::{ModelVersion, RunId, Token};
use half::bf16;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A client's state in files of one directory.
///
/// Every file is written under another name and renamed, so a crash leaves the old one or the new one. The rename of
/// `pending` is what makes an update pending; the rename of its residual is what commits it.
#[derive(Debug)]
pub struct DirectoryState {
    dir: PathBuf,
    sync: bool,
    about: About,
    pending: Option<UpdateHeader>,
    _lock: File,
}

/// The small facts, in `client.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct About {
    token: Option<Token>,
    run: Option<RunId>,
    held: Option<ModelVersion>,
    /// Bytes of updates that were accounted for.
    #[serde(default)]
    spent: u64,
    /// Whether the pending update is part of them.
    #[serde(default)]
    is_accounted: bool,
}

const ABOUT: &str = "client.json";
const RESIDUAL: &str = "residual";
const PENDING: &str = "pending";
const PENDING_RESIDUAL: &str = "pending-residual";
const LOCK: &str = "lock";

impl DirectoryState {
    /// Opens or makes a directory that survives a crash of the machine.
    ///
    /// # Errors
    /// When it cannot be made or read, or another process uses it.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        Self::with_sync(dir, true)
    }

    /// Opens or makes a directory that need not survive a crash of the machine: nothing waits for the disk.
    ///
    /// # Errors
    /// When it cannot be made or read, or another process uses it.
    pub fn scratch(dir: &Path) -> Result<Self, StateError> {
        Self::with_sync(dir, false)
    }

    fn with_sync(dir: &Path, sync: bool) -> Result<Self, StateError> {
        let fail = |source| StateError::File { path: dir.into(), source };
        fs::create_dir_all(dir).map_err(fail)?;
        let lock = File::create(dir.join(LOCK)).map_err(fail)?;
        lock.try_lock().map_err(|_| StateError::InUse { path: dir.into() })?;
        let path = dir.join(ABOUT);
        let about = match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|_| StateError::Damaged { path })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => About::default(),
            Err(source) => return Err(StateError::File { path, source }),
        };
        let mut state = Self { dir: dir.into(), sync, about, pending: None, _lock: lock };
        state.pending = state.read_pending()?.map(|(header, _)| header);
        Ok(state)
    }

    fn read_pending(&self) -> Result<Option<(UpdateHeader, Bytes)>, StateError> {
        let path = self.dir.join(PENDING);
        let Some(bytes) = self.read(PENDING)? else { return Ok(None) };
        let (header, frame) = postcard::take_from_bytes::<UpdateHeader>(&bytes)
            .map_err(|_| StateError::Damaged { path: path.clone() })?;
        if frame.len() as u64 != header.frame_len || dunlin_core::Digest::of(frame) != header.digest {
            return Err(StateError::Damaged { path });
        }
        Ok(Some((header, Bytes::copy_from_slice(frame))))
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let path = self.dir.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StateError::File { path, source }),
        }
    }

    fn write(&self, name: &str, fill: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), StateError> {
        let path = self.dir.join(name);
        let staging = self.dir.join(format!("{name}.new"));
        let write = || {
            let mut file = File::create(&staging)?;
            fill(&mut file)?;
            if self.sync {
                file.sync_all()?;
            }
            fs::rename(&staging, &path)?;
            self.sync_dir()
        };
        write().map_err(|source| StateError::File { path: path.clone(), source })
    }

    fn write_about(&self) -> Result<(), StateError> {
        let json = serde_json::to_vec(&self.about).expect("names and numbers are JSON");
        self.write(ABOUT, |file| file.write_all(&json))
    }

    fn remove(&self, name: &str) -> Result<(), StateError> {
        let path = self.dir.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StateError::File { path, source: error }),
            _ => Ok(()),
        }
    }

    fn sync_dir(&self) -> io::Result<()> {
        if self.sync { File::open(&self.dir)?.sync_all() } else { Ok(()) }
    }
}

impl ClientState for DirectoryState {
    fn token(&mut self) -> Result<Token, StateError> {
        if let Some(token) = self.about.token {
            return Ok(token);
        }
        let token = new_token();
        self.about.token = Some(token);
        self.write_about()?;
        Ok(token)
    }

    fn bind(&mut self, run: RunId) -> Result<(), StateError> {
        if self.about.run == Some(run) {
            return Ok(());
        }
        for name in [PENDING, PENDING_RESIDUAL, RESIDUAL] {
            self.remove(name)?;
        }
        self.pending = None;
        self.about = About { token: self.about.token, run: Some(run), ..About::default() };
        self.write_about()
    }

    fn held(&self) -> Option<ModelVersion> {
        self.about.held
    }

    fn set_held(&mut self, held: Option<ModelVersion>) -> Result<(), StateError> {
        self.about.held = held;
        self.write_about()
    }

    fn residual(&mut self, whole: &Arc<Segments>) -> Result<Option<Arc<Residual>>, StateError> {
        let path = self.dir.join(RESIDUAL);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StateError::File { path, source }),
        };
        let residual =
            read_residual(&mut file, whole).map_err(|source| StateError::File { path: path.clone(), source })?;
        residual.map(|residual| Some(Arc::new(residual))).ok_or(StateError::Damaged { path })
    }

    fn pending(&self) -> Option<&UpdateHeader> {
        self.pending.as_ref()
    }

    fn pending_frame(&mut self) -> Result<Bytes, StateError> {
        self.read_pending()?.map(|(_, frame)| frame).ok_or(StateError::NothingPending)
    }

    fn spent(&self) -> u64 {
        self.about.spent
    }

    fn spend(&mut self) -> Result<(), StateError> {
        let header = self.pending.as_ref().ok_or(StateError::NothingPending)?;
        if self.about.is_accounted {
            return Ok(());
        }
        self.about.spent += header.frame_len;
        self.about.is_accounted = true;
        self.write_about()
    }

    fn keep(&mut self, update: Update) -> Result<(), StateError> {
        // Before there is another update, which the account does not have yet.
        if std::mem::replace(&mut self.about.is_accounted, false) {
            self.write_about()?;
        }
        match &update.residual {
            Some(residual) => {
                self.write(PENDING_RESIDUAL, |file| write_residual(file, residual))?;
            }
            None => self.remove(PENDING_RESIDUAL)?,
        }
        let header = postcard::to_stdvec(&update.header).expect("a header has a plain form");
        self.write(PENDING, |file| {
            file.write_all(&header)?;
            file.write_all(&update.frame)
        })?;
        self.pending = Some(update.header);
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StateError> {
        self.pending.take().ok_or(StateError::NothingPending)?;
        let (from, to) = (self.dir.join(PENDING_RESIDUAL), self.dir.join(RESIDUAL));
        match fs::rename(&from, &to).and_then(|()| self.sync_dir()) {
            // Renamed before a crash, or there is no feedback.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(StateError::File { path: from, source }),
            Ok(()) => {}
        }
        self.remove(PENDING)
    }

    fn abandon(&mut self) -> Result<(), StateError> {
        self.pending.take().ok_or(StateError::NothingPending)?;
        self.remove(PENDING)?;
        self.remove(PENDING_RESIDUAL)
    }
}

/// The round, whether the model was pruned and if so a bit for each coordinate, then the values, in little-endian bytes
/// and a chunk at a time: no second copy of the model in RAM.
fn write_residual(file: &mut File, residual: &Residual) -> io::Result<()> {
    file.write_all(&residual.round.to_le_bytes())?;
    file.write_all(&[u8::from(!residual.mask.is_all())])?;
    if !residual.mask.is_all() {
        file.write_all(&residual.mask.to_bytes())?;
    }
    let mut chunk = vec![0; CHUNK];
    for values in residual.values.chunks(CHUNK / 2) {
        let bytes = &mut chunk[..2 * values.len()];
        for (bytes, value) in bytes.as_chunks_mut().0.iter_mut().zip(values) {
            *bytes = value.to_le_bytes();
        }
        file.write_all(bytes)?;
    }
    Ok(())
}

/// What [`write_residual`] wrote; nothing when it is of another model.
fn read_residual(file: &mut File, whole: &Arc<Segments>) -> io::Result<Option<Residual>> {
    let mut head = [0; 9];
    file.read_exact(&mut head)?;
    let [round @ .., is_pruned] = head;
    let mut mask = Mask::all(Arc::clone(whole));
    if is_pruned != 0 {
        let mut bits = vec![0; whole.len().div_ceil(8)];
        file.read_exact(&mut bits)?;
        let Ok(pruned) = Mask::from_bytes(Arc::clone(whole), &bits) else { return Ok(None) };
        mask = pruned;
    }
    let mut values = Vec::with_capacity(mask.len());
    let mut chunk = vec![0; CHUNK];
    loop {
        let filled = fill(file, &mut chunk)?;
        values.extend(chunk[..filled].as_chunks().0.iter().map(|&bytes| bf16::from_le_bytes(bytes)));
        if values.len() > mask.len() {
            return Ok(None);
        }
        if filled < chunk.len() {
            break;
        }
    }
    let is_whole = values.len() == mask.len();
    Ok(is_whole.then(|| Residual { round: u64::from_le_bytes(round), mask: Arc::new(mask), values }))
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Bytes of a residual that are read or written at a time; they stay in the second-level cache.
const CHUNK: usize = 1 << 18;

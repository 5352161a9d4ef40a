//! The model versions that the clients of one process hold.

use super::StateError;
use dunlin_codec::{Mask, MaskedGrid, Segments};
use dunlin_core::{Digest, ModelVersion, RunId};
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

/// Broadcast models by version, shared by all virtual clients of a process.
///
/// A version is kept as long as some client holds it: on disk where there is a directory, otherwise in RAM. The newest
/// few are in RAM in any case, since the cohort of a round trains from the same one.
#[derive(Debug)]
pub struct ModelCache {
    dir: Option<PathBuf>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    run: Option<RunId>,
    /// The tensors of the run's model.
    whole: Option<Arc<Segments>>,
    holders: BTreeMap<ModelVersion, u32>,
    recent: VecDeque<(ModelVersion, Arc<MaskedGrid>)>,
    in_memory: BTreeMap<ModelVersion, Arc<MaskedGrid>>,
}

impl ModelCache {
    /// Versions in RAM when there is a directory: the one that is left and the one that is reached.
    const RECENT: usize = 2;

    /// A cache that keeps what is held in files under `dir`, or in RAM without one.
    #[must_use]
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self { dir, inner: Mutex::default() }
    }

    /// A cache for another part of the same models, which on disk has a directory of this name within this one's.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        Self::new(self.dir.as_ref().map(|dir| dir.join(name)))
    }

    /// Turns to a run, whose model has these tensors; versions of another one are forgotten.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn bind(&self, run: RunId, whole: &Arc<Segments>) -> Result<(), StateError> {
        let mut inner = self.lock();
        if inner.run != Some(run) {
            *inner = Inner { run: Some(run), ..Inner::default() };
        }
        inner.whole = Some(Arc::clone(whole));
        if let Some(dir) = self.run_dir(&inner) {
            fs::create_dir_all(&dir).map_err(|source| StateError::File { path: dir, source })?;
        }
        Ok(())
    }

    /// Notes that one more client holds a version from an earlier process, if its file is there and whole.
    #[must_use]
    pub fn reclaim(&self, version: ModelVersion) -> bool {
        let held = self.get(version).is_some();
        if held {
            *self.lock().holders.entry(version).or_default() += 1;
        }
        held
    }

    /// A version, from RAM or disk.
    #[must_use]
    pub fn get(&self, version: ModelVersion) -> Option<Arc<MaskedGrid>> {
        let (path, whole) = {
            let inner = self.lock();
            if let Some((_, model)) = inner.recent.iter().find(|(recent, _)| *recent == version) {
                return Some(model.clone());
            }
            if let Some(model) = inner.in_memory.get(&version) {
                return Some(model.clone());
            }
            (self.path(&inner, version)?, inner.whole.clone()?)
        };
        let model = Arc::new(read(&fs::read(path).ok()?, &whole)?);
        self.lock().remember(version, &model);
        Some(model)
    }

    /// A version for a client that holds it and is about to leave it. When no other does, it is no longer kept here, so
    /// that it need not be copied to be changed.
    #[must_use]
    pub fn take(&self, version: ModelVersion) -> Option<Arc<MaskedGrid>> {
        let model = self.get(version)?;
        let mut inner = self.lock();
        if inner.holders.get(&version) == Some(&1) {
            inner.recent.retain(|(recent, _)| *recent != version);
            inner.in_memory.remove(&version);
        }
        Some(model)
    }

    /// One client moves from the version that it held to a new one, whose integers have this digest.
    ///
    /// # Errors
    /// When the version cannot be written.
    pub fn hold(
        &self,
        old: Option<ModelVersion>,
        version: ModelVersion,
        digest: Digest,
        model: &Arc<MaskedGrid>,
    ) -> Result<(), StateError> {
        let mut inner = self.lock();
        let holders = inner.holders.entry(version).or_default();
        *holders += 1;
        if *holders == 1 {
            match self.path(&inner, version) {
                Some(path) => write(&path, digest, model).map_err(|source| StateError::File { path, source })?,
                None => {
                    inner.in_memory.insert(version, model.clone());
                }
            }
        }
        inner.remember(version, model);
        if let Some(old) = old {
            self.release(&mut inner, old);
        }
        Ok(())
    }

    fn release(&self, inner: &mut Inner, version: ModelVersion) {
        let Some(holders) = inner.holders.get_mut(&version) else { return };
        *holders -= 1;
        if *holders == 0 {
            inner.holders.remove(&version);
            inner.in_memory.remove(&version);
            if let Some(path) = self.path(inner, version) {
                // A file that stays costs disk, nothing else.
                let _ = fs::remove_file(path);
            }
        }
    }

    fn run_dir(&self, inner: &Inner) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(inner.run?.to_string()))
    }

    fn path(&self, inner: &Inner, version: ModelVersion) -> Option<PathBuf> {
        Some(self.run_dir(inner)?.join(format!("{version}.model")))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // The maps are consistent between statements, so a panic elsewhere does not spoil them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remember(&mut self, version: ModelVersion, model: &Arc<MaskedGrid>) {
        if self.recent.iter().any(|(recent, _)| *recent == version) {
            return;
        }
        self.recent.push_back((version, model.clone()));
        if self.recent.len() > ModelCache::RECENT {
            self.recent.pop_front();
        }
    }
}

/// The digest, whether the model was pruned (1) and whether something is announced with it (2), for each a bit for each
/// coordinate, then the integers in little-endian bytes.
fn write(path: &std::path::Path, digest: Digest, model: &MaskedGrid) -> std::io::Result<()> {
    let (mask, values) = (model.mask(), model.values());
    let mut bytes = Vec::with_capacity(33 + values.len() * 4);
    bytes.extend_from_slice(&digest.0);
    let announced = model.announced();
    bytes.push(u8::from(!mask.is_all()) | u8::from(announced.is_some()) << 1);
    if !mask.is_all() {
        bytes.extend(mask.to_bytes());
    }
    bytes.extend(announced.map(|announced| announced.to_bytes()).unwrap_or_default());
    for value in values {
        bytes.extend_from_slice(&value.to_le_bytes());
    }
    let staging = path.with_extension("new");
    fs::write(&staging, bytes)?;
    fs::rename(staging, path)
}

/// What [`write`] wrote; nothing when the bytes are not a whole model of this run.
fn read(bytes: &[u8], whole: &Arc<Segments>) -> Option<MaskedGrid> {
    let (digest, rest) = bytes.split_at_checked(32)?;
    let (&masks, mut rest) = rest.split_first()?;
    let mut mask_if = |is_there: bool| {
        if !is_there {
            return Some(Mask::all(Arc::clone(whole)));
        }
        let (bits, behind) = rest.split_at_checked(whole.len().div_ceil(8))?;
        rest = behind;
        Mask::from_bytes(Arc::clone(whole), bits).ok()
    };
    let (mask, has_announced) = (mask_if(masks & 1 != 0)?, masks & 2 != 0);
    let announced = mask_if(has_announced)?;
    let values = rest.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let mut model = MaskedGrid::new(Arc::new(mask), values).ok()?;
    model.announce(has_announced.then(|| Arc::new(announced))).ok()?;
    (model.digest() == digest).then_some(model)
}

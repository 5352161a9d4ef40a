//! A distillation on disk while it goes on: a server that was killed meanwhile takes it up after the last whole pass.

use dunlin_core::Digest;
use dunlin_nn::train::{Halfway, Keep, Lesson};
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// The file of one distillation.
pub struct Kept {
    path: PathBuf,
    content: Content,
}

/// What is in it, behind its digest.
#[derive(Serialize, Deserialize)]
struct Content {
    /// Of all that the result depends on.
    key: Digest,
    lesson: Lesson,
    /// How far the student agreed at first.
    before: f64,
    halfway: Option<Halfway>,
}

impl Kept {
    /// Where a server keeps that of a round.
    #[must_use]
    pub fn of_round(dir: &Path) -> PathBuf {
        dir.join("distillation")
    }

    /// Where it keeps that of the student with which a run ends.
    #[must_use]
    pub fn of_student(dir: &Path) -> PathBuf {
        dir.join("student.distillation")
    }

    /// What a file has of the distillation of this key. Nothing when there is none, or one that is damaged or another.
    #[must_use]
    pub fn open(path: PathBuf, key: Digest) -> Option<Self> {
        let file = match std::fs::read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a distillation begins anew");
                return None;
            }
        };
        let (digest, content) = file.split_first_chunk()?;
        let content: Content = (Digest::of(content).0 == *digest).then(|| postcard::from_bytes(content).ok())??;
        (content.key == key).then_some(Self { path, content })
    }

    /// Begins the file of the distillation of this key.
    #[must_use]
    pub fn begin(path: PathBuf, key: Digest, lesson: Lesson, before: f64) -> Self {
        let kept = Self { path, content: Content { key, lesson, before, halfway: None } };
        kept.write();
        kept
    }

    /// What the teachers said, and how far the student agreed at first.
    #[must_use]
    pub fn lesson(&self) -> (Lesson, f64) {
        (self.content.lesson.clone(), self.content.before)
    }

    /// Nobody will ask for this distillation again.
    pub fn remove(path: &Path) {
        // Without one there is nothing to do, and one that stays has another key than the next.
        drop(std::fs::remove_file(path));
    }

    /// Renamed when it is whole. A distillation that cannot be kept goes on all the same.
    fn write(&self) {
        let written = postcard::to_stdvec(&self.content).map_err(io::Error::other).and_then(|content| {
            let mut new = self.path.clone().into_os_string();
            new.push(".new");
            std::fs::write(&new, [&Digest::of(&content).0[..], &content].concat())?;
            std::fs::rename(new, &self.path)
        });
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "a distillation under way cannot be kept");
        }
    }
}

impl Keep for Kept {
    fn take(&mut self) -> Option<Halfway> {
        self.content.halfway.take()
    }

    fn keep(&mut self, halfway: Halfway) {
        self.content.halfway = Some(halfway);
        self.write();
    }
}

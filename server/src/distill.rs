//! Distillation at the end of a round: the mean of the clients' models learns what those models say together.
//!
//! It is work for seconds or minutes, so it is handed out as a [`Job`] for another thread, while the engine goes on
//! answering. A job is a function of the updates that are durable: a server that was killed meanwhile does it again, with
//! the same result; what the data directory has of it already it does not do twice.

mod kept;
mod student;
#[cfg(test)]
mod tests;

use crate::decoding::decode;
use crate::vet::Rules;
use bytes::Bytes;
use dunlin_codec::{Mask, MaskedGrid, grid};
use dunlin_core::recipe::{Augment, DistillationConfig};
use dunlin_core::report::Distilled;
use dunlin_core::{Digest, Recipe, Seed};
use dunlin_nn::Threads;
use dunlin_nn::data::{self, Dataset, Examples, Split};
use dunlin_nn::model::{Device, Model};
use dunlin_nn::train::{DistillTask, Keep, Lesson, distill};
pub use kept::Kept;
use rand::RngCore;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
pub use student::{Student, student};

/// Called with the steps done and all steps: one for each teacher, and then those of the student.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// Progress that is told a tenth at a time, in percent.
pub(crate) fn by_tenths(mut tell: impl FnMut(u64)) -> impl FnMut(u64, u64) {
    let mut told = 0;
    move |done, total| {
        let tenth = 10 * done / total.max(1);
        if tenth > told {
            told = tenth;
            tell(10 * tenth);
        }
    }
}

/// Makes one model of several.
pub trait Distill: Send {
    /// Moves `student`, the parameters of the whole model, towards what the teachers say.
    ///
    /// The result must depend on the arguments alone: a server that crashed meanwhile does it again.
    ///
    /// # Errors
    /// When models and examples do not fit, or something is no longer finite.
    fn distill(
        &mut self,
        request: &Request,
        student: &mut Vec<f32>,
        progress: Progress<'_>,
    ) -> Result<Distilled, dunlin_nn::Error>;

    /// The round of the last distillation is durable: nobody will ask for it again.
    fn settled(&mut self) {}
}

/// What a distillation is made of.
#[derive(Debug)]
pub struct Request {
    /// The round (from 1) whose updates the teachers are.
    pub round: u64,
    /// What is left of the model.
    pub mask: Arc<Mask>,
    base: Arc<MaskedGrid>,
    rules: Arc<Rules>,
    /// The updates, in the order of the clients' names.
    frames: Vec<Bytes>,
}

impl Request {
    /// The updates of a round to the model `base`, each by its frame.
    #[must_use]
    pub fn new(round: u64, base: Arc<MaskedGrid>, rules: Arc<Rules>, frames: Vec<Bytes>) -> Self {
        Self { round, mask: Arc::clone(base.mask()), base, rules, frames }
    }

    /// Of all that tells this request and this student from others.
    fn key(&self, recipe: Digest, student: &[f32]) -> Digest {
        let mut all = self.round.to_le_bytes().to_vec();
        all.extend(recipe.0);
        all.extend(self.base.digest());
        self.frames.iter().for_each(|frame| all.extend(Digest::of(frame).0));
        all.extend(student.iter().flat_map(|value| value.to_le_bytes()));
        Digest::of(&all)
    }

    /// How many models there are.
    #[must_use]
    pub fn teachers(&self) -> usize {
        self.frames.len()
    }

    /// A client's model as its update tells it, whole: the broadcast model, or the client's part of it with zeros for the
    /// rest, moved by what was decoded.
    ///
    /// # Errors
    /// When the frame cannot be decoded after all.
    pub fn teacher(&self, index: usize) -> Result<Vec<f32>, dunlin_codec::Error> {
        let frame = &self.frames[index];
        let rules = self.rules.for_frame(frame);
        let mut values = grid::floats(self.base.values());
        let (sent, segments, limits) = (rules.mask(), rules.segments(), rules.limits());
        if let Some(slice) = rules.slice() {
            slice.mask().gather(&mut values);
            decode(frame, segments, limits, &mut values)?;
            return Ok(slice.mask().scatter(&values));
        }
        if **sent == *self.mask {
            decode(frame, segments, limits, &mut values)?;
        } else {
            let mut update = vec![0.0; sent.len()];
            decode(frame, segments, limits, &mut update)?;
            for (place, change) in self.mask.places(sent).zip(update) {
                values[place as usize] += change;
            }
        }
        Ok(self.mask.scatter(&values))
    }
}

/// A distillation that is to be done.
pub struct Job {
    pub(crate) distiller: Box<dyn Distill>,
    pub(crate) request: Request,
    pub(crate) student: Vec<f32>,
}

/// What became of a [`Job`].
pub struct Done {
    pub(crate) distiller: Box<dyn Distill>,
    pub(crate) result: Result<(Vec<f32>, Distilled), dunlin_nn::Error>,
}

impl Job {
    /// Does it, on the thread that calls.
    #[must_use]
    pub fn run(self, progress: Progress<'_>) -> Done {
        let Self { mut distiller, request, mut student } = self;
        let result = distiller.distill(&request, &mut student, progress).map(|distilled| (student, distilled));
        Done { distiller, result }
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("round", &self.request.round).finish_non_exhaustive()
    }
}

/// Distillation with candle on the server's own examples.
pub struct ServerSet {
    model: Model,
    examples: Examples,
    config: DistillationConfig,
    seed: Seed,
    threads: Threads,
    recipe: Digest,
    /// Where a distillation is kept while it goes on.
    dir: Option<PathBuf>,
}

impl ServerSet {
    /// The distillation of a recipe whose data are these; nothing when it has none.
    ///
    /// # Errors
    /// When the examples cannot be had, are none, or do not fit the model.
    pub fn new(recipe: &Recipe, split: &Split) -> Result<Option<Self>, dunlin_nn::Error> {
        let config = &recipe.distillation;
        if !config.is_on() {
            return Ok(None);
        }
        let model = Model::new(&recipe.model, split.train.input())?;
        let seed = Seed::from_u64(recipe.seed).derive("distillation");
        let examples = examples(recipe, split, &seed)?;
        if examples.is_empty() {
            return Err(no_example(recipe));
        }
        let (config, recipe) = (config.clone(), Digest(recipe.digest()));
        Ok(Some(Self { model, examples, config, seed, threads: Threads::one(), recipe, dir: None }))
    }

    /// Keeps a distillation in this directory while it goes on, so that a server that is killed does not begin it again.
    #[must_use]
    pub fn kept_in(self, dir: PathBuf) -> Self {
        Self { dir: Some(dir), ..self }
    }

    /// Computes on this device.
    ///
    /// # Errors
    /// When it has no room for the model.
    pub fn on(self, device: &Device) -> Result<Self, dunlin_nn::Error> {
        Ok(Self { model: self.model.on(device)?, ..self })
    }

    /// The examples on which the teachers are asked.
    #[must_use]
    pub fn examples(&self) -> &Examples {
        &self.examples
    }
}

fn no_example(recipe: &Recipe) -> dunlin_nn::Error {
    dunlin_nn::Error::Config {
        key: "distillation.source",
        value: format!("{:?}", recipe.distillation.source),
        remedy: "it holds no example; raise data.server_share, or name another source".into(),
    }
}

fn examples(recipe: &Recipe, split: &Split, seed: &Seed) -> Result<Examples, dunlin_nn::Error> {
    let (config, input) = (&recipe.distillation, split.train.input());
    let examples = match config.source.as_str() {
        "server" => {
            let (_, rows) = data::server_rows(&recipe.data, &split.train, &recipe.data_seed());
            Examples::new(Arc::clone(&split.train), rows)?
        }
        "noise" => {
            let mut rng = seed.derive("noise").rng();
            let count = config.examples as usize;
            let values = (0..count * input.features()).map(|_| match input.vocabulary {
                // 24 random bits make a float below 1.
                0 => (rng.next_u32() >> 8) as f32 / 16_777_216.0,
                tokens => (rng.next_u64() % tokens as u64) as f32,
            });
            let labels = vec![0; count * input.targets];
            Examples::all(Arc::new(Dataset::new("noise", *input, values.collect(), labels)?))
        }
        source => {
            let other = dunlin_core::recipe::DataConfig { source: source.into(), ..recipe.data.clone() };
            let wrong = |error: dunlin_nn::Error| error.of_source("distillation.source", source);
            let train = data::load(&other, &recipe.data_seed()).map_err(wrong)?.train;
            let has_labels = train.input() == input;
            let train = if has_labels { train } else { Arc::new(train.without_labels(input).map_err(wrong)?) };
            if !has_labels && config.labels > 0.0 {
                return Err(dunlin_nn::Error::Config {
                    key: "distillation.labels",
                    value: config.labels.to_string(),
                    remedy: format!("labels of {source} are not those of {}; set it to 0", recipe.data.source),
                });
            }
            Examples::all(train)
        }
    };
    if config.augment != Augment::None {
        let count = if config.examples == 0 { examples.len() } else { config.examples as usize };
        let all = data::augmented(&examples, config.augment, count, &seed.derive("augment"));
        return Ok(Examples::all(Arc::new(all.map_err(|remedy| dunlin_nn::Error::Config {
            key: "distillation.augment",
            value: format!("{:?}", config.augment.name()),
            remedy,
        })?)));
    }
    match config.examples as usize {
        0 => Ok(examples),
        count => {
            let mut rows = examples.indices().to_vec();
            data::shuffle(&mut rows, &mut seed.derive("examples").rng());
            rows.truncate(count);
            Examples::new(Arc::clone(examples.dataset()), rows)
        }
    }
}

impl Distill for ServerSet {
    fn distill(
        &mut self,
        request: &Request,
        student: &mut Vec<f32>,
        progress: Progress<'_>,
    ) -> Result<Distilled, dunlin_nn::Error> {
        let Self { model, examples, config, seed, threads, recipe, dir } = self;
        let teachers = request.teachers() as u64;
        let key = request.key(*recipe, student);
        let mut kept = dir.as_deref().and_then(|dir| Kept::open(Kept::of_round(dir), key));
        let (lesson, before) = if let Some(kept) = &kept {
            tracing::info!(round = request.round, "a distillation is taken up where it was left");
            kept.lesson()
        } else {
            let mut lesson = Lesson::new(examples);
            for index in 0..request.teachers() {
                let teacher = request.teacher(index).expect("a frame that was vetted is decoded");
                lesson.add(model, &teacher, examples, threads, config.logits)?;
                progress(index as u64 + 1, teachers + 1);
            }
            let before = lesson.agreement(model, student, examples, threads)?;
            kept = dir.as_deref().map(|dir| Kept::begin(Kept::of_round(dir), key, lesson.clone(), before));
            (lesson, before)
        };
        let task = DistillTask {
            config,
            seed: seed.derive_n("round", request.round),
            threads,
            mask: (!request.mask.is_all()).then_some(&*request.mask),
        };
        let mut stepped = |done, total| {
            progress(teachers + done, teachers + total);
            ControlFlow::Continue(())
        };
        let mut nowhere = ();
        let keep = kept.as_mut().map_or(&mut nowhere as &mut dyn Keep, |kept| kept);
        let loss = distill(model, examples, &lesson, student, &task, keep, &mut stepped)?;
        let agreement = lesson.agreement(model, student, examples, threads)?;
        Ok(Distilled { teachers: lesson.teachers(), examples: examples.len() as u64, loss, before, agreement })
    }

    fn settled(&mut self) {
        if let Some(dir) = &self.dir {
            Kept::remove(&Kept::of_round(dir));
        }
    }
}

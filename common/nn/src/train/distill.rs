//! Distillation: a student learns what teachers say about examples whose labels nobody needs to know.

use super::optimizer::{Memory, Optimizer};
use super::{EVALUATION_BATCH, expect_input, gather, loss_of, passes};
use crate::data::Examples;
use crate::model::{Gradients, Model, StepContext, Target};
use crate::{Error, Threads, ops};
use dunlin_codec::Mask;
use dunlin_core::Seed;
use dunlin_core::recipe::{DistillationConfig, Logits, OptimizerKind, TrainingConfig};
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// What is asked of a student.
#[derive(Clone, Copy, Debug)]
pub struct DistillTask<'a> {
    /// Passes, batch, step size, temperature.
    pub config: &'a DistillationConfig,
    /// Decides the order of the examples and what is random in a step.
    pub seed: Seed,
    /// The threads among which each batch is split.
    pub threads: &'a Threads,
    /// What is left of the student; none where nothing was pruned.
    pub mask: Option<&'a Mask>,
}

/// A distillation between two of its passes: all that is needed to go on with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Halfway {
    passes: u32,
    params: Vec<f32>,
    memory: Memory,
}

/// Where a distillation is kept while it goes on, for another process to take it up; `()` keeps nothing.
pub trait Keep {
    /// What was kept of the same distillation.
    fn take(&mut self) -> Option<Halfway>;

    /// Keeps it, between two passes.
    fn keep(&mut self, halfway: Halfway);
}

impl Keep for () {
    fn take(&mut self) -> Option<Halfway> {
        None
    }

    fn keep(&mut self, _: Halfway) {}
}

/// What teachers say about some examples: the mean of their logits, [examples, classes], which is what `FedDF` has a
/// student learn (Lin et al. 2020, <https://arxiv.org/abs/2006.07242>).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lesson {
    sums: Vec<f64>,
    teachers: u32,
}

impl Lesson {
    /// Nothing said yet about data on which a model gives these many logits an example.
    #[must_use]
    pub fn new(data: &Examples) -> Self {
        let input = data.dataset().input();
        Self { sums: vec![0.0; data.len() * input.targets * input.classes], teachers: 0 }
    }

    /// Adds what one teacher says, as it says it or [adjusted](Logits::Adjusted).
    ///
    /// # Errors
    /// When data or parameters do not fit the model, or it says something that is not finite.
    pub fn add(
        &mut self,
        teacher: &mut Model,
        params: &[f32],
        data: &Examples,
        threads: &Threads,
        logits: Logits,
    ) -> Result<(), Error> {
        expect_input(teacher, data)?;
        teacher.load(params)?;
        let teacher = &*teacher;
        let parts: Vec<&[u32]> = data.indices().chunks(data.len().div_ceil(threads.count()).max(1)).collect();
        let said = threads.map(parts, |part| -> Result<Vec<f32>, Error> {
            let mut said = Vec::new();
            for rows in part.chunks(EVALUATION_BATCH) {
                let (x, _) = gather(data, rows, None)?;
                ops::with_elements::<f32, _>(&teacher.infer(&x)?, |logits| {
                    said.extend_from_slice(logits);
                    Ok(())
                })?;
            }
            Ok(said)
        });
        let said = said.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        if said.iter().any(|logit| !logit.is_finite()) {
            return Err(Error::Diverged { step: 0 });
        }
        let classes = data.dataset().input().classes;
        let taken_off = match logits {
            Logits::Plain => vec![0.0; classes],
            Logits::Adjusted => log_prior(&said, classes),
        };
        for (sum, (logit, off)) in self.sums.iter_mut().zip(said.iter().zip(taken_off.iter().cycle())) {
            *sum += f64::from(*logit) - off;
        }
        self.teachers += 1;
        Ok(())
    }

    /// How many teachers were heard.
    #[must_use]
    pub fn teachers(&self) -> u32 {
        self.teachers
    }

    /// The mean logits, one example after the other.
    fn logits(&self) -> Vec<f32> {
        let count = f64::from(self.teachers.max(1));
        self.sums.iter().map(|sum| (sum / count) as f32).collect()
    }

    /// The class with the largest sum of logits of each answer.
    fn answers(&self, classes: usize) -> Vec<usize> {
        let largest = |row: &[f64]| (0..classes).rev().max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap_or(0);
        self.sums.chunks_exact(classes).map(largest).collect()
    }

    /// Share of the answers in which a model agrees with the teachers' mean.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn agreement(
        &self,
        model: &mut Model,
        params: &[f32],
        data: &Examples,
        threads: &Threads,
    ) -> Result<f64, Error> {
        let mut own = Self::new(data);
        own.add(model, params, data, threads, Logits::Plain)?;
        let classes = data.dataset().input().classes;
        let (theirs, own) = (self.answers(classes), own.answers(classes));
        Ok(theirs.iter().zip(&own).filter(|(a, b)| a == b).count() as f64 / own.len().max(1) as f64)
    }
}

/// How often each of the classes is answered: the logarithm of its mean probability, as if each had been answered once
/// more than it was.
fn log_prior(logits: &[f32], classes: usize) -> Vec<f64> {
    let mut answered = vec![1.0; classes];
    for row in logits.chunks_exact(classes) {
        answered.iter_mut().zip(ops::log_softmax(row, 1.0)).for_each(|(sum, log)| *sum += libm::exp(log));
    }
    let all: f64 = answered.iter().sum();
    answered.into_iter().map(|sum| libm::log(sum / all)).collect()
}

/// Moves a student's `params`, in the order of its layout, towards what the teachers say: Adam on
/// T²·KL(teachers ‖ student) at temperature T, plus `labels` times the cross-entropy of the labels where that weight is
/// above 0. Returns the mean loss per answer over the last pass, in nats.
///
/// What `keep` has of it already is not done again; the result is the same. `progress` is called after each step with
/// (steps done, steps in total).
///
/// # Errors
/// As [`super::train`].
pub fn distill(
    student: &mut Model,
    data: &Examples,
    lesson: &Lesson,
    params: &mut Vec<f32>,
    task: &DistillTask<'_>,
    keep: &mut dyn Keep,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<f64, Error> {
    student.expect_len(params)?;
    expect_input(student, data)?;
    if data.is_empty() || lesson.teachers == 0 {
        return Err(Error::NoExamples);
    }
    if let Some(mask) = task.mask
        && let Some(mut sparse) = student.sparse(mask)?
    {
        return sparse.with(params, |student, mask, params| {
            distill(student, data, lesson, params, &DistillTask { mask, ..*task }, keep, progress)
        });
    }
    student.freeze(std::iter::empty())?;
    let fits = |kept: &Halfway| kept.params.len() == params.len() && kept.passes < task.config.epochs;
    let kept = keep.take().filter(fits);
    let done = kept.map(|kept| {
        params.clone_from(&kept.params);
        (kept.passes, kept.memory)
    });
    student.swap(params)?;
    let result = steps(student, data, &lesson.logits(), task, done, keep, progress);
    student.swap(params)?;
    let (loss, steps) = result?;
    if params.iter().any(|value| !value.is_finite()) {
        return Err(Error::Diverged { step: steps });
    }
    Ok(loss)
}

fn steps(
    student: &Model,
    data: &Examples,
    teacher: &[f32],
    task: &DistillTask<'_>,
    done: Option<(u32, Memory)>,
    keep: &mut dyn Keep,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<(f64, u64), Error> {
    let DistillTask { config, seed, threads, mask } = *task;
    let training = TrainingConfig {
        optimizer: OptimizerKind::Adam,
        learning_rate: config.learning_rate,
        ..TrainingConfig::default()
    };
    let mut optimizer = Optimizer::new(&training, 1, student.layout().len(), &[]).within(mask);
    let mut pass = 0;
    if let Some((passes, memory)) = done {
        pass = passes;
        optimizer = optimizer.remembering(memory);
    }
    let per_example = student.input().targets * student.input().classes;
    let batch = (config.batch as usize).min(data.len());
    let order: Vec<u32> = (0..data.len() as u32).collect();
    passes(order, (pass..config.epochs, batch), &seed, progress, |epoch, steps, places| {
        if epoch > pass {
            pass = epoch;
            let params = student.with_parameters(|params| params.clone())?;
            keep.keep(Halfway { passes: epoch, params, memory: optimizer.memory() });
        }
        let noise = seed.derive_n("step", steps);
        let count = places.len() * student.input().targets;
        let parts: Vec<_> = places.chunks(places.len().div_ceil(threads.count())).enumerate().collect();
        let parts = threads.map(parts, |(part, places)| -> Result<Vec<Gradients>, Error> {
            let rows: Vec<u32> = places.iter().map(|&place| data.indices()[place as usize]).collect();
            let (x, labels) = gather(data, &rows, None)?;
            let said = places.iter().flat_map(|&place| {
                let start = place as usize * per_example;
                &teacher[start..start + per_example]
            });
            let logits: Vec<f32> = said.copied().collect();
            let context = StepContext { noise: Some(noise.derive_n("part", part as u64)), member: None };
            let target = Target::Teacher { logits: &logits, temperature: config.temperature };
            let mut gradients = vec![student.gradients_to_step(&x, target, count, context.clone())?];
            if config.labels > 0.0 {
                // The gradient of a weighted loss is the loss's over as many more targets.
                let weighted = ((count as f64 / config.labels).round() as usize).max(1);
                gradients.push(student.gradients_to_step(&x, Target::Labels(&labels), weighted, context)?);
            }
            Ok(gradients)
        });
        let parts: Vec<Gradients> = parts.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let loss = loss_of(&parts, steps)?;
        optimizer.step(student, &parts, threads)?;
        Ok(loss)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;
    use crate::train::{TrainTask, evaluate, train};
    use dunlin_core::recipe::{DataConfig, ModelKind};
    use std::sync::Arc;

    #[test]
    fn a_student_of_another_architecture_learns_from_teachers_without_labels() {
        let split = data::load(&DataConfig::default(), &Seed::from_u64(1)).unwrap();
        let (examples, test) = (Examples::all(split.train), Examples::all(split.test));
        let input = *examples.dataset().input();
        let threads = Threads::one();
        let go_on = &mut |_, _| ControlFlow::Continue(());
        // Two teachers, each of one half of the digits.
        let mut teacher = Model::new(ModelKind::TwoNn, &input).unwrap();
        let mut lesson = Lesson::new(&examples);
        let half = |n: u32| {
            let rows: Arc<[u32]> = (0..examples.len() as u32).filter(|row| row % 2 == n).collect();
            Examples::new(Arc::clone(examples.dataset()), rows).unwrap()
        };
        for n in 0..2 {
            let mut params = teacher.init(&Seed::from_u64(n));
            let config = TrainingConfig::default();
            let task = TrainTask { config: &config, round: 1, seed: Seed::from_u64(n), threads: &threads, mask: None };
            train(&mut teacher, &half(n as u32), &mut params, &task, go_on).unwrap();
            lesson.add(&mut teacher, &params, &examples, &threads, Logits::Plain).unwrap();
        }
        let mut student = Model::new(ModelKind::Softmax, &input).unwrap();
        let mut params = student.init(&Seed::from_u64(7));
        let before = lesson.agreement(&mut student, &params, &examples, &threads).unwrap();
        let config = DistillationConfig { epochs: 20, learning_rate: 0.01, ..DistillationConfig::default() };
        let task = DistillTask { config: &config, seed: Seed::from_u64(3), threads: &threads, mask: None };
        let mut run =
            |params: &mut Vec<f32>| distill(&mut student, &examples, &lesson, params, &task, &mut (), go_on).unwrap();
        let mut again = params.clone();
        let loss = run(&mut params);
        assert_eq!((run(&mut again), &again), (loss, &params), "the same task gives the same student");
        let agreement = lesson.agreement(&mut student, &params, &examples, &threads).unwrap();
        assert!(before < 0.4 && agreement > 0.93, "{before} became {agreement}");
        let accuracy = evaluate(&mut student, &test, &params, &threads).unwrap().accuracy();
        assert!(accuracy > 0.9, "{accuracy}");
    }

    #[test]
    fn a_teacher_that_gives_one_answer_to_everything_is_not_heard_when_adjusted() {
        let split = data::load(&DataConfig::default(), &Seed::from_u64(1)).unwrap();
        let (train_on, test) = (Examples::all(split.train), Examples::all(split.test));
        let threads = Threads::one();
        let mut teacher = Model::new(ModelKind::Softmax, train_on.dataset().input()).unwrap();
        let config = TrainingConfig { epochs: 10, ..TrainingConfig::default() };
        let task = TrainTask { config: &config, round: 1, seed: Seed::from_u64(1), threads: &threads, mask: None };
        let mut knows = teacher.init(&Seed::from_u64(1));
        train(&mut teacher, &train_on, &mut knows, &task, &mut |_, _| ControlFlow::Continue(())).unwrap();
        // Weights of zero; the last ten parameters are the biases, of which one is large.
        let mut stubborn = vec![0.0; knows.len()];
        *stubborn.last_mut().unwrap() = 6.0;
        let mut right_of = |logits| {
            let mut lesson = Lesson::new(&test);
            for params in [&knows, &stubborn] {
                lesson.add(&mut teacher, params, &test, &threads, logits).unwrap();
            }
            let answers = lesson.answers(10);
            let right = answers.iter().zip(test.dataset().labels()).filter(|(a, b)| **a == **b as usize).count();
            right as f64 / answers.len() as f64
        };
        let (plain, adjusted) = (right_of(Logits::Plain), right_of(Logits::Adjusted));
        assert!(plain < 0.5 && adjusted > 0.95, "{plain} and {adjusted}");
    }

    /// Keeps the last, and how often it was given one.
    #[derive(Default)]
    struct Last(Option<Halfway>, u32);

    impl Keep for Last {
        fn take(&mut self) -> Option<Halfway> {
            self.0.take()
        }

        fn keep(&mut self, halfway: Halfway) {
            self.0 = Some(halfway);
            self.1 += 1;
        }
    }

    #[test]
    fn a_distillation_that_is_taken_up_after_any_pass_ends_as_one_that_was_never_left() {
        let split = data::load(&DataConfig::default(), &Seed::from_u64(1)).unwrap();
        let all = Examples::all(split.train);
        let examples = Examples::new(Arc::clone(all.dataset()), (0..200).collect::<Vec<u32>>()).unwrap();
        let (input, threads) = (*all.dataset().input(), Threads::one());
        let mut model = Model::new(ModelKind::Softmax, &input).unwrap();
        let (teacher, start) = (model.init(&Seed::from_u64(1)), model.init(&Seed::from_u64(2)));
        let mut lesson = Lesson::new(&examples);
        lesson.add(&mut model, &teacher, &examples, &threads, Logits::Plain).unwrap();
        let config = DistillationConfig { epochs: 4, batch: 30, ..DistillationConfig::default() };
        let task = DistillTask { config: &config, seed: Seed::from_u64(3), threads: &threads, mask: None };
        // Seven steps a pass; ends after so many.
        let mut run = |keep: &mut Last, until: u64| {
            let (mut params, mut first) = (start.clone(), 0);
            let mut progress = |done, total| {
                assert_eq!(total, 28);
                first = if first == 0 { done } else { first };
                if done == until { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            let result = distill(&mut model, &examples, &lesson, &mut params, &task, keep, &mut progress);
            (result.ok(), params, first)
        };
        let mut undisturbed = Last::default();
        let (loss, params, _) = run(&mut undisturbed, u64::MAX);
        assert_eq!((undisturbed.1, loss.is_some()), (3, true));
        for until in [3, 7, 8, 16, 27] {
            let mut keep = Last::default();
            assert_eq!(run(&mut keep, until).0, None);
            let (again, same, first) = run(&mut keep, u64::MAX);
            assert_eq!((again, &same), (loss, &params), "left after {until} steps");
            assert_eq!(first, (until - 1) / 7 * 7 + 1, "nothing is done twice that was kept");
        }
        // What was kept of another distillation is none of this one.
        let other = Halfway { params: vec![0.0; 3], ..undisturbed.0.unwrap() };
        assert_eq!(run(&mut Last(Some(other), 0), u64::MAX).1, params);
    }
}

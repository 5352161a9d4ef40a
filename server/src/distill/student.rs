//! A model of another architecture, which learns what the federation's model says once that is finished.

use super::{Kept, Progress, examples};
use dunlin_core::recipe::Logits;
use dunlin_core::report::StudentReport;
use dunlin_core::{Digest, Recipe, Seed};
use dunlin_nn::data::{Examples, Split};
use dunlin_nn::model::Model;
use dunlin_nn::train::{DistillTask, Keep, Lesson, distill, evaluate};
use dunlin_nn::{Error, Threads};
use std::ops::ControlFlow;
use std::path::Path;

/// A student that has learned.
pub struct Student {
    /// Its architecture.
    pub model: Model,
    /// Its parameters.
    pub params: Vec<f32>,
    /// How good it is.
    pub report: StudentReport,
}

/// Makes the student of a recipe from the finished model and its parameters; nothing where the recipe has none.
///
/// A function of its arguments. With a directory it is kept there after each pass, so that one that is killed is taken up
/// again.
///
/// # Errors
/// When the student or its examples do not fit the data, or something is no longer finite.
pub fn student(
    recipe: &Recipe,
    split: &Split,
    (teacher, teacher_params): (&mut Model, &[f32]),
    dir: Option<&Path>,
    progress: Progress<'_>,
) -> Result<Option<Student>, Error> {
    let Some(config) = recipe.distillation.student_model() else { return Ok(None) };
    let seed = Seed::from_u64(recipe.seed).derive("student");
    let examples = examples(recipe, split, &seed)?;
    if examples.is_empty() {
        return Err(super::no_example(recipe));
    }
    let threads = Threads::one();
    let mut model = Model::new(&config, split.train.input())?;
    let mut params = model.init(&seed.derive("model"));
    let key = {
        let mut all = recipe.digest().to_vec();
        all.extend(teacher_params.iter().flat_map(|value| value.to_le_bytes()));
        Digest::of(&all)
    };
    let mut kept = dir.and_then(|dir| Kept::open(Kept::of_student(dir), key));
    let lesson = if let Some(kept) = &kept {
        tracing::info!("the student is taken up where it was left");
        kept.lesson().0
    } else {
        let mut lesson = Lesson::new(&examples);
        lesson.add(teacher, teacher_params, &examples, &threads, Logits::Plain)?;
        kept = dir.map(|dir| Kept::begin(Kept::of_student(dir), key, lesson.clone(), 0.0));
        lesson
    };
    let config = recipe.distillation.of_student();
    let task = DistillTask { config: &config, seed: seed.derive("passes"), threads: &threads, mask: None };
    let mut stepped = |done, total| {
        progress(done, total);
        ControlFlow::Continue(())
    };
    let mut nowhere = ();
    let keep = kept.as_mut().map_or(&mut nowhere as &mut dyn Keep, |kept| kept);
    distill(&mut model, &examples, &lesson, &mut params, &task, keep, &mut stepped)?;
    let agreement = lesson.agreement(&mut model, &params, &examples, &threads)?;
    let test = Examples::all(split.test.clone());
    let accuracy =
        if test.is_empty() { None } else { Some(evaluate(&mut model, &test, &params, &threads)?.accuracy()) };
    let report = StudentReport {
        kind: model.kind().to_string(),
        params: params.len() as u64,
        examples: examples.len() as u64,
        accuracy,
        agreement,
    };
    if let Some(dir) = dir {
        Kept::remove(&Kept::of_student(dir));
    }
    Ok(Some(Student { model, params, report }))
}

//! Codebooks that are trained after weights share them (Han et al. 2016, section 3.3).

use super::{Compressed, Weights, compress::report};
use crate::data::Examples;
use crate::model::{Model, Target};
use crate::train::{expect_input, gather, loss_of, passes};
use crate::{Error, Threads, ops};
use dunlin_codec::container::{Precision, Values};
use dunlin_core::{Seed, TensorSpec};
use half::f16;
use std::ops::ControlFlow;

/// How codebooks are trained.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Passes over the examples.
    pub epochs: u32,
    /// Examples in a batch.
    pub batch: u32,
    /// Step size of Adam.
    pub learning_rate: f64,
    /// Decides the order of the examples.
    pub seed: Seed,
}

/// One tensor's codebook while it is trained.
struct Book {
    /// Its tensor in the layout.
    tensor: usize,
    precision: Precision,
    entries: Vec<f32>,
    codes: Vec<u8>,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Compressed {
    /// Trains the codebooks of a compressed model on labelled examples: which weights share a value stays, and the values
    /// move by the sums of their gradients, with Adam. Everything else of the model stays as it is. `original` is what was
    /// compressed, against which errors are told. Returns the mean loss per label over the last pass, in nats.
    ///
    /// `progress` is called after each step with (steps done, steps in total).
    ///
    /// # Errors
    /// When the tensors are not those of the model, there are no examples or none of its shape, nothing is shared, or
    /// training diverges; then the model is as it was.
    pub fn tune(
        &mut self,
        original: &Weights,
        model: &mut Model,
        data: &Examples,
        tuning: &Tuning,
        threads: &Threads,
        progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<f64, Error> {
        let layout = model.layout().clone();
        let tensors = &self.container.tensors;
        // Files may have them in another order than the model.
        let place = |spec: &TensorSpec| {
            tensors.iter().position(|tensor| tensor.name == spec.name && tensor.shape == spec.shape)
        };
        let places: Vec<usize> = layout.tensors().iter().filter_map(place).collect();
        if places.len() != layout.tensors().len() || places.len() != tensors.len() {
            return Err(Error::config("model", model.kind(), "the file's tensors have other names or shapes"));
        }
        let of = |(index, &place): (usize, &usize)| Book::of(index, &tensors[place].values);
        let mut books: Vec<Book> = places.iter().enumerate().filter_map(of).collect();
        if books.is_empty() {
            return Err(Error::config("values", "not shared", "there is no codebook to train"));
        }
        if data.is_empty() {
            return Err(Error::NoExamples);
        }
        expect_input(model, data)?;
        let mut params: Vec<f32> = places.iter().flat_map(|&place| tensors[place].values.to_f32()).collect();
        model.freeze(std::iter::empty())?;
        let batch = (tuning.batch.max(1) as usize).min(data.len());
        let rows = data.indices().to_vec();
        let (loss, steps) = passes(rows, (0..tuning.epochs, batch), &tuning.seed, progress, |_, steps, rows| {
            model.load(&params)?;
            let trained = &*model;
            let count = rows.len() * trained.input().targets;
            let parts: Vec<_> = rows.chunks(rows.len().div_ceil(threads.count())).collect();
            let parts = threads.map(parts, |rows| {
                let (x, labels) = gather(data, rows, None)?;
                trained.gradients(&x, Target::Labels(&labels), count, None)
            });
            let parts = parts.into_iter().collect::<Result<Vec<_>, Error>>()?;
            let loss = loss_of(&parts, steps)?;
            for book in &mut books {
                let mut sums = vec![0.0f32; book.entries.len()];
                for gradient in parts.iter().filter_map(|part| part.tensors[book.tensor].as_ref()) {
                    ops::with_elements::<f32, _>(gradient, |gradient| {
                        book.add(gradient, &mut sums);
                        Ok(())
                    })?;
                }
                book.step(&sums, tuning.learning_rate, steps + 1);
                book.write(&mut params[layout.range(book.tensor)]);
            }
            Ok(loss)
        })?;
        if params.iter().any(|value| !value.is_finite()) {
            return Err(Error::Diverged { step: steps });
        }
        for book in books {
            let index = places[book.tensor];
            let tensor = &mut self.container.tensors[index];
            tensor.values = book.stored();
            let original = &original.tensors[index].1;
            let small = tensor.values.to_f32();
            self.tensors[index] = report(tensor, &small, original).map_err(|error| {
                Error::config("values", "shared", format!("the trained codebook cannot be stored: {error}"))
            })?;
        }
        let bytes = self.container.to_bytes();
        self.file_bytes = bytes.map(|bytes| bytes.len() as u64).map_err(|error| {
            Error::config("values", "shared", format!("the trained model cannot be stored: {error}"))
        })?;
        Ok(loss)
    }
}

impl Book {
    fn of(tensor: usize, values: &Values) -> Option<Self> {
        let Values::Shared { precision, codebook, codes } = values else { return None };
        let entries = codebook.clone();
        let moments = vec![0.0; entries.len()];
        (!entries.is_empty()).then(|| Self {
            tensor,
            precision: *precision,
            entries,
            codes: codes.clone(),
            first: moments.clone(),
            second: moments,
        })
    }

    /// Adds a tensor's gradient up by the values that its elements share.
    fn add(&self, gradient: &[f32], sums: &mut [f32]) {
        for (&code, &g) in self.codes.iter().zip(gradient) {
            if code > 0 {
                sums[usize::from(code) - 1] += g;
            }
        }
    }

    /// Adam (Kingma & Ba 2015, algorithm 1); `step` counts from 1.
    fn step(&mut self, gradient: &[f32], rate: f64, step: u64) {
        let exponent = i32::try_from(step).unwrap_or(i32::MAX);
        let corrections = (1.0 - 0.9f64.powi(exponent), 1.0 - 0.999f64.powi(exponent));
        let moments = self.first.iter_mut().zip(&mut self.second);
        for ((entry, (first, second)), &g) in self.entries.iter_mut().zip(moments).zip(gradient) {
            *first = 0.9 * *first + 0.1 * g;
            *second = 0.999 * *second + 0.001 * g * g;
            let (first, second) = (f64::from(*first) / corrections.0, f64::from(*second) / corrections.1);
            *entry -= (rate * first / (second.sqrt() + 1e-8)) as f32;
        }
    }

    fn write(&self, values: &mut [f32]) {
        for (value, &code) in values.iter_mut().zip(&self.codes) {
            *value = if code == 0 { 0.0 } else { self.entries[usize::from(code) - 1] };
        }
    }

    /// As a container holds it: rising, rounded to how it is stored, none of them zero.
    fn stored(self) -> Values {
        let round = |entry: f32| match self.precision {
            Precision::Half => f16::from_f32(entry.clamp(-f16::MAX.to_f32(), f16::MAX.to_f32())).to_f32(),
            Precision::Single => entry,
        };
        let rounded: Vec<f32> = self.entries.iter().map(|&entry| round(entry)).collect();
        let mut codebook: Vec<f32> = rounded.iter().copied().filter(|&entry| entry != 0.0).collect();
        codebook.sort_unstable_by(f32::total_cmp);
        codebook.dedup();
        let place = |entry: f32| match codebook.binary_search_by(|other| other.total_cmp(&entry)) {
            Ok(place) => place as u8 + 1,
            // It became zero.
            Err(_) => 0,
        };
        let places: Vec<u8> = rounded.iter().map(|&entry| place(entry)).collect();
        let codes = self.codes.iter().map(|&code| if code == 0 { 0 } else { places[usize::from(code) - 1] }).collect();
        Values::Shared { precision: self.precision, codebook, codes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data;
    use crate::small::{Compress, Keep, Stored};
    use crate::train::{TrainTask, evaluate, train};
    use dunlin_core::recipe::{DataConfig, ModelKind, TrainingConfig};

    #[test]
    fn trained_codebooks_give_back_what_sharing_took() {
        let split = data::load(&DataConfig::default(), &Seed::from_u64(1)).unwrap();
        let (examples, test) = (Examples::all(split.train), Examples::all(split.test));
        let mut model = Model::new(ModelKind::TwoNn, examples.dataset().input()).unwrap();
        let mut params = model.init(&Seed::from_u64(2));
        let threads = Threads::one();
        let config = TrainingConfig::default();
        let task = TrainTask { config: &config, round: 1, seed: Seed::from_u64(3), threads: &threads, mask: None };
        let go_on = &mut |_, _| ControlFlow::Continue(());
        train(&mut model, &examples, &mut params, &task, go_on).unwrap();
        let tensors = model.layout().tensors().iter().enumerate();
        let tensors = tensors.map(|(i, spec)| (spec.clone(), params[model.layout().range(i)].to_vec())).collect();
        let weights = Weights { about: model.about(), tensors };
        let stored = Stored::Shared { bits: 1, precision: Precision::Half };
        let compress = Compress { keep: Some(Keep::Density(0.3)), per_layer: false, stored };
        let mut small = compress.run(&weights).unwrap();
        let params_of = |small: &Compressed| -> Vec<f32> {
            small.container.tensors.iter().flat_map(|tensor| tensor.values.to_f32()).collect()
        };
        let mut loss = |small: &Compressed| evaluate(&mut model, &test, &params_of(small), &threads).unwrap().loss();
        let (before, bytes) = (loss(&small), small.file_bytes);
        let tuning = Tuning { epochs: 5, batch: 32, learning_rate: 0.001, seed: Seed::from_u64(4) };
        let mut same = Model::new(ModelKind::TwoNn, examples.dataset().input()).unwrap();
        small.tune(&weights, &mut same, &examples, &tuning, &threads, go_on).unwrap();
        let after = loss(&small);
        assert!(after < 0.8 * before, "{before} became {after}");
        assert!(small.file_bytes <= bytes + 8 && small.file_bytes == small.container.to_bytes().unwrap().len() as u64);
        let distinct = |values: &Values| match values {
            Values::Shared { codebook, .. } => codebook.len(),
            _ => 0,
        };
        assert!(small.container.tensors.iter().all(|tensor| distinct(&tensor.values) <= 2));
        let other = &mut Model::new(ModelKind::Softmax, examples.dataset().input()).unwrap();
        assert!(small.tune(&weights, other, &examples, &tuning, &threads, go_on).is_err());
    }
}

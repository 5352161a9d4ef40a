//! The ranges of what goes into layers, measured on data: what 8-bit activations need to know.

use super::{Engine, Kernels, Layer};
use crate::Error;
use crate::data::Examples;
use crate::model::Model;
use crate::train::expect_input;
use dunlin_codec::container::Tensor;
use std::collections::BTreeMap;

/// The least and the largest value that a layer's input took; zero lies between them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// At most 0.
    pub least: f32,
    /// At least 0.
    pub largest: f32,
}

/// Ranges by the name of the layer's weight.
pub type Calibration = BTreeMap<String, Range>;

impl Range {
    /// The step between neighbouring levels of 0 to 255, and the level of zero.
    #[must_use]
    pub fn scale_and_zero(self) -> (f32, u8) {
        let scale = (self.largest - self.least) / 255.0;
        if scale > 0.0 && scale.is_finite() {
            (scale, (-self.least / scale).round_ties_even().clamp(0.0, 255.0) as u8)
        } else {
            (1.0, 0)
        }
    }

    /// As two numbers in a file's words.
    #[must_use]
    pub fn to_word(self) -> String {
        format!("{} {}", self.least, self.largest)
    }

    /// Reads [`Self::to_word`].
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let (least, largest) = word.split_once(' ')?;
        let range = Self { least: least.parse().ok()?, largest: largest.parse().ok()? };
        (range.least <= 0.0 && range.largest >= 0.0 && range.least.is_finite() && range.largest.is_finite())
            .then_some(range)
    }
}

/// Runs a model's dense layers on some examples and notes what goes into each of them.
///
/// # Errors
/// When the model has no plan, or the tensors or the data do not fit it.
pub fn calibrate(model: &Model, tensors: &[Tensor], data: &Examples) -> Result<Calibration, Error> {
    expect_input(model, data)?;
    let engine = Engine::new(model, tensors, &Calibration::new(), Kernels::Dense)?;
    let names: Vec<_> = model.layout().tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    let mut calibration = Calibration::new();
    for rows in data.indices().chunks(BATCH) {
        let mut x = Vec::with_capacity(rows.len() * model.input().features());
        rows.iter().for_each(|&row| data.dataset().append_row(row, &mut x));
        engine.run(&x, &mut |step, values| {
            if !matches!(engine.layers[step], Layer::Weighted { .. }) {
                return;
            }
            let name = names[engine.plan.steps[step].parameters[0]];
            let range = calibration.entry(name.to_owned()).or_insert(Range { least: 0.0, largest: 0.0 });
            for &value in values {
                range.least = range.least.min(value);
                range.largest = range.largest.max(value);
            }
        });
    }
    Ok(calibration)
}

/// Examples at once: their values stay in the caches for small models.
const BATCH: usize = 32;

//! A data set in memory and views on its rows.

use super::InputShape;
use crate::Error;
use dunlin_core::recipe::DataConfig;
use std::sync::Arc;

/// A labelled data set in memory: rows of equal length, each with a label below [`InputShape::classes`].
///
/// Pixels stay bytes until a batch is gathered, a quarter of the memory that floats would take.
#[derive(Clone, Debug)]
pub struct Dataset {
    name: String,
    input: InputShape,
    features: Features,
    labels: Vec<u32>,
    /// For each row its position in the source from which it was selected.
    source_rows: Option<Vec<u32>>,
    /// Rows of that source.
    source_len: usize,
}

/// The values of all rows, one row after the other.
#[derive(Clone, Debug)]
pub(super) enum Features {
    /// A byte times `scale`.
    Bytes { values: Vec<u8>, scale: f32 },
    /// As they are.
    Floats(Vec<f32>),
    /// All zero, for the trivial model, which does not look at them.
    Zero,
}

impl Dataset {
    /// A data set from floats: `features` holds the rows one after the other, as many as there are labels.
    ///
    /// # Errors
    /// When the lengths do not fit together or a label is not below `input.classes`.
    pub fn new(
        name: impl Into<String>,
        input: InputShape,
        features: Vec<f32>,
        labels: Vec<u32>,
    ) -> Result<Self, Error> {
        Self::with_features(name.into(), input, Features::Floats(features), labels)
    }

    pub(super) fn with_features(
        name: String,
        input: InputShape,
        features: Features,
        labels: Vec<u32>,
    ) -> Result<Self, Error> {
        let len = match &features {
            Features::Bytes { values, .. } => Some(values.len()),
            Features::Floats(values) => Some(values.len()),
            Features::Zero => None,
        };
        let expected = labels.len().checked_mul(input.features());
        if expected.is_none() || len.is_some_and(|len| expected != Some(len)) {
            let problem = format!("{} labels of rows of {input:?} do not go with {len:?} values", labels.len());
            return Err(Error::malformed(name, problem));
        }
        if u32::try_from(labels.len()).is_err() {
            return Err(Error::malformed(name, "rows are numbered with 32 bits and these are more"));
        }
        if let Some((row, label)) = labels.iter().enumerate().find(|&(_, &label)| label as usize >= input.classes) {
            let problem = format!("row {row} has label {label} where {} classes are known", input.classes);
            return Err(Error::malformed(name, problem));
        }
        Ok(Self { name, input, features, source_len: labels.len(), labels, source_rows: None })
    }

    /// One row per client and nothing in it.
    pub(super) fn featureless(config: &DataConfig) -> Result<Self, Error> {
        let too_large = || Error::config("data.features", config.features, "does not fit this machine's memory");
        let width = usize::try_from(config.features).map_err(|_| too_large())?;
        let input = InputShape::image(1, 1, width, 1);
        let labels = vec![0; config.clients as usize];
        if labels.len().checked_mul(width).is_none() {
            return Err(too_large());
        }
        Self::with_features("none".into(), input, Features::Zero, labels)
    }

    /// The source's name, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The shape of a row and the number of labels.
    #[must_use]
    pub const fn input(&self) -> &InputShape {
        &self.input
    }

    /// Number of rows.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The label of each row.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Appends the values of one row.
    ///
    /// # Panics
    /// When there is no such row.
    pub fn append_row(&self, row: u32, out: &mut Vec<f32>) {
        let width = self.input.features();
        let range = row as usize * width..(row as usize + 1) * width;
        match &self.features {
            Features::Bytes { values, scale } => {
                out.extend(values[range].iter().map(|&value| f32::from(value) * scale));
            }
            Features::Floats(values) => out.extend_from_slice(&values[range]),
            Features::Zero => out.resize(out.len() + width, 0.0),
        }
    }

    /// Number of rows that the source had before any were held out.
    pub(super) const fn source_len(&self) -> usize {
        self.source_len
    }

    /// Position of a row in its source.
    pub(super) fn source_row(&self, row: usize) -> usize {
        self.source_rows.as_ref().map_or(row, |rows| rows[row] as usize)
    }

    /// A data set of these rows, in this order.
    pub(super) fn select(&self, rows: &[u32]) -> Self {
        fn pick<T: Copy>(values: &[T], width: usize, rows: &[u32]) -> Vec<T> {
            rows.iter().flat_map(|&row| &values[row as usize * width..(row as usize + 1) * width]).copied().collect()
        }
        let width = self.input.features();
        let features = match &self.features {
            Features::Bytes { values, scale } => Features::Bytes { values: pick(values, width, rows), scale: *scale },
            Features::Floats(values) => Features::Floats(pick(values, width, rows)),
            Features::Zero => Features::Zero,
        };
        Self {
            name: self.name.clone(),
            input: self.input,
            features,
            labels: pick(&self.labels, 1, rows),
            source_rows: Some(rows.iter().map(|&row| self.source_row(row as usize) as u32).collect()),
            source_len: self.source_len,
        }
    }
}

/// Some rows of a data set, such as one client's; cheap to clone.
#[derive(Clone, Debug)]
pub struct Examples {
    dataset: Arc<Dataset>,
    indices: Arc<[u32]>,
}

impl Examples {
    /// These rows of a data set.
    ///
    /// # Errors
    /// When one of them does not exist.
    pub fn new(dataset: Arc<Dataset>, indices: impl Into<Arc<[u32]>>) -> Result<Self, Error> {
        let indices = indices.into();
        if let Some(row) = indices.iter().find(|&&row| row as usize >= dataset.len()) {
            let problem = format!("row {row} was asked for and there are {}", dataset.len());
            return Err(Error::malformed(&dataset.name, problem));
        }
        Ok(Self { dataset, indices })
    }

    /// Every row of a data set.
    #[must_use]
    pub fn all(dataset: Arc<Dataset>) -> Self {
        let indices = (0..dataset.len() as u32).collect();
        Self { dataset, indices }
    }

    /// The data set that the rows belong to.
    #[must_use]
    pub const fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// The rows' numbers in the data set.
    #[must_use]
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// How many of the rows have each label, from 0 to `classes − 1`.
    #[must_use]
    pub fn label_histogram(&self) -> Vec<u64> {
        let mut histogram = vec![0; self.dataset.input.classes];
        for &row in &*self.indices {
            histogram[self.dataset.labels[row as usize] as usize] += 1;
        }
        histogram
    }
}

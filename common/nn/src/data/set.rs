//! A data set in memory and views on its rows.

use crate::Error;
use crate::model::InputShape;
use dunlin_core::recipe::DataConfig;
use std::sync::Arc;

/// A labelled data set in memory: rows of equal length, each with [`InputShape::targets`] labels below
/// [`InputShape::classes`], and, where the source tells it, the key of whom each row belongs to.
///
/// Pixels and characters stay bytes until a batch is gathered, a quarter of the memory that floats would take.
#[derive(Clone, Debug)]
pub struct Dataset {
    name: String,
    input: InputShape,
    features: Features,
    len: usize,
    /// The labels of all rows, one row after the other.
    labels: Vec<u32>,
    keys: Option<Keys>,
    /// For each row its position in the source from which it was selected.
    source_rows: Option<Vec<u32>>,
    /// Rows of that source.
    source_len: usize,
}

/// Whom the rows belong to.
#[derive(Clone, Debug)]
struct Keys {
    names: Arc<[String]>,
    /// For each row its name's number.
    of_rows: Vec<u32>,
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
    /// A data set from floats: `features` holds the rows one after the other, and `labels` theirs.
    ///
    /// # Errors
    /// When the lengths do not fit together, a value is not finite, a token is not below `input.vocabulary`, or a label
    /// is not below `input.classes`.
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
        let values = match &features {
            Features::Bytes { values, .. } => Some(values.len()),
            Features::Floats(values) => Some(values.len()),
            Features::Zero => None,
        };
        let len = labels.len() / input.targets.max(1);
        let expected = len.checked_mul(input.features());
        let fits = expected.is_some() && values.is_none_or(|values| expected == Some(values));
        if !fits || len.checked_mul(input.targets) != Some(labels.len()) {
            let problem = format!("{} labels of rows of {input:?} do not go with {values:?} values", labels.len());
            return Err(Error::malformed(name, problem));
        }
        if u32::try_from(len).is_err() {
            return Err(Error::malformed(name, "rows are numbered with 32 bits and these are more"));
        }
        if let Some((at, label)) = labels.iter().enumerate().find(|&(_, &label)| label as usize >= input.classes) {
            let row = at / input.targets;
            let problem = format!("row {row} has label {label} where {} classes are known", input.classes);
            return Err(Error::malformed(name, problem));
        }
        if let Some((at, problem)) = features.fault(input.vocabulary) {
            let row = at / input.features().max(1);
            return Err(Error::malformed(name, format!("row {row} has {problem}")));
        }
        Ok(Self { name, input, features, len, labels, keys: None, source_rows: None, source_len: len })
    }

    /// The same rows, of which each belongs to one of `names`: `keys` has the number of its name for each row.
    ///
    /// # Errors
    /// When there is not one key for each row, or a number has no name.
    pub fn with_keys(self, names: impl Into<Arc<[String]>>, keys: Vec<u32>) -> Result<Self, Error> {
        let names = names.into();
        if keys.len() != self.len {
            let problem = format!("{} keys do not go with {} rows", keys.len(), self.len);
            return Err(Error::malformed(self.name, problem));
        }
        if let Some((row, key)) = keys.iter().enumerate().find(|&(_, &key)| key as usize >= names.len()) {
            let problem = format!("row {row} has key {key} where {} names are known", names.len());
            return Err(Error::malformed(self.name, problem));
        }
        Ok(Self { keys: Some(Keys { names, of_rows: keys }), ..self })
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
        self.len
    }

    /// Whether there is no row.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The labels of all rows, one row after the other: [`InputShape::targets`] each.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// The labels of one row.
    ///
    /// # Panics
    /// When there is no such row.
    #[must_use]
    pub fn row_labels(&self, row: u32) -> &[u32] {
        let (row, targets) = (row as usize, self.input.targets);
        &self.labels[row * targets..(row + 1) * targets]
    }

    /// For each row the number of its natural key's name, if the source tells whom its rows belong to.
    #[must_use]
    pub fn keys(&self) -> Option<&[u32]> {
        self.keys.as_ref().map(|keys| keys.of_rows.as_slice())
    }

    /// The names of the natural keys: roles of plays, hospitals, authors; none without keys.
    #[must_use]
    pub fn key_names(&self) -> &[String] {
        self.keys.as_ref().map_or(&[], |keys| &keys.names)
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

    /// The same rows for a model of another input, whose labels all become 0.
    ///
    /// # Errors
    /// When the rows are of another shape, or hold tokens of another vocabulary.
    pub fn without_labels(&self, input: &InputShape) -> Result<Self, Error> {
        let is_alike = InputShape { classes: input.classes, targets: input.targets, ..self.input } == *input;
        if !is_alike {
            let (expected, actual) = (Box::new(*input), Box::new(self.input));
            return Err(Error::InputShape { name: self.name.clone(), expected, actual });
        }
        Ok(Self { input: *input, labels: vec![0; self.len * input.targets], ..self.clone() })
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
            len: rows.len(),
            labels: pick(&self.labels, self.input.targets, rows),
            keys: self
                .keys
                .as_ref()
                .map(|keys| Keys { names: keys.names.clone(), of_rows: pick(&keys.of_rows, 1, rows) }),
            source_rows: Some(rows.iter().map(|&row| self.source_row(row as usize) as u32).collect()),
            source_len: self.source_len,
        }
    }
}

impl Features {
    /// The first value that no model could take, and what it is: one that is not finite, or no token of the vocabulary
    /// where there is one.
    fn fault(&self, vocabulary: usize) -> Option<(usize, String)> {
        let is_token = |value: f32| value >= 0.0 && value.fract() == 0.0 && (value as usize) < vocabulary;
        let is_right = |value: f32| if vocabulary == 0 { value.is_finite() } else { is_token(value) };
        let (at, value) = match self {
            // A byte times a scale of ours is finite.
            Self::Bytes { .. } if vocabulary == 0 => None,
            Self::Bytes { values, scale } => {
                values.iter().map(|&value| f32::from(value) * scale).enumerate().find(|&(_, value)| !is_right(value))
            }
            Self::Floats(values) => values.iter().copied().enumerate().find(|&(_, value)| !is_right(value)),
            Self::Zero => None,
        }?;
        Some((
            at,
            match vocabulary {
                0 => format!("the value {value}; finite ones are right"),
                _ => format!("the token {value}; whole numbers from 0 to {} are right", vocabulary - 1),
            },
        ))
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

    /// How often each label, from 0 to `classes − 1`, stands in the rows; each label of a row counts.
    #[must_use]
    pub fn label_histogram(&self) -> Vec<u64> {
        let mut histogram = vec![0; self.dataset.input.classes];
        for &row in &*self.indices {
            for &label in self.dataset.row_labels(row) {
                histogram[label as usize] += 1;
            }
        }
        histogram
    }
}

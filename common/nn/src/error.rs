//! What can go wrong with data, models and training, each with its remedy.

use std::path::PathBuf;

/// What can go wrong between a recipe, its data and a trained model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A key of the recipe has a value that this data or model cannot satisfy.
    #[error("{key} = {value}: {remedy}")]
    Config {
        /// The key, such as `data.clients`.
        key: &'static str,
        /// Its value, as written.
        value: String,
        /// What would be right.
        remedy: String,
    },
    /// A data set that has to be fetched is not there.
    #[error(
        "{key} = {name:?}: {} holds no such data; run `dunlin data fetch {name}`, or set DUNLIN_DATA to the \
         folder that holds {name}/", dir.display()
    )]
    Missing {
        /// The key of the recipe that names it.
        key: &'static str,
        /// The data set.
        name: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A data file is not what its format says.
    #[error("{file}: {problem}")]
    Malformed {
        /// The file's path, with row and column where there are some.
        file: String,
        /// What was found, and what would be right.
        problem: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// No source of a data set could be fetched.
    #[error("{name} could not be fetched; tried {tried}; put its files into {} by hand", into.display())]
    Fetch {
        /// The data set.
        name: String,
        /// Each source with the reason why it failed.
        tried: String,
        /// The folder that the files belong in.
        into: PathBuf,
    },
    /// The model has another number of parameters than the vector it was given.
    #[error("the model has {expected} parameters and was given {actual}; both sides need the same recipe and data")]
    ParameterCount {
        /// What the model's layout says.
        expected: usize,
        /// The length that was given.
        actual: usize,
    },
    /// The data are not of the shape that the model was built for.
    #[error("the model takes {expected}, and the data set {name:?} has {actual}")]
    InputShape {
        /// The data set.
        name: String,
        /// What the model was built for.
        expected: Box<crate::model::InputShape>,
        /// What the data are.
        actual: Box<crate::model::InputShape>,
    },
    /// There is nothing to train on.
    #[error("the client has no training example; give every client at least one")]
    NoExamples,
    /// The loss or a parameter is no longer finite.
    #[error("training diverged at step {step}: a value is not finite; lower training.learning_rate")]
    Diverged {
        /// The step, counted from 1.
        step: u64,
    },
    /// The caller asked for a stop.
    #[error("training was stopped by its caller")]
    Stopped,
    /// The tensor library refused an operation: a bug here, or a layer that the caller built wrongly.
    #[error("tensor operation failed: {0}")]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// The key of the recipe, or the option of the command line, whose value is to blame, where one is.
    #[must_use]
    pub fn key(&self) -> Option<&'static str> {
        match self {
            Self::Config { key, .. } => Some(key),
            Self::Missing { key, .. } => Some(key),
            _ => None,
        }
    }

    /// The same about data that this key of the recipe names, where nothing else is to blame.
    #[must_use]
    pub fn of_source(self, key: &'static str, source: &str) -> Self {
        match self {
            Self::Missing { name, dir, .. } => Self::Missing { key, name, dir },
            Self::Config { key: "data.source", value, remedy } => Self::Config { key, value, remedy },
            Self::InputShape { .. } | Self::Malformed { .. } | Self::Io { .. } => {
                Self::Config { key, value: format!("{source:?}"), remedy: self.to_string() }
            }
            other => other,
        }
    }

    pub(crate) fn config(key: &'static str, value: impl std::fmt::Display, remedy: impl Into<String>) -> Self {
        Self::Config { key, value: value.to_string(), remedy: remedy.into() }
    }

    pub(crate) fn malformed(file: impl std::fmt::Display, problem: impl Into<String>) -> Self {
        Self::Malformed { file: file.to_string(), problem: problem.into() }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}

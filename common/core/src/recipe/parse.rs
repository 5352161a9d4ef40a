//! From text and `--set` assignments to a recipe, with errors that say where, what, and what would be right.

use super::document::{Document, check_entries};
use super::keys::Key;
use super::{Recipe, check};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use toml::Value;

/// Why a text or an assignment is not a recipe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}{problem}")]
pub struct RecipeError {
    /// Where it was written.
    pub place: Place,
    /// What is wrong there.
    pub problem: Problem,
}

/// Where a value of a recipe comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A line of the file, counted from 1.
    Line(usize),
    /// An assignment given with `--set`.
    Set(String),
    /// Nowhere in particular: a default, or a recipe that was put together by code.
    Value,
}

/// Where the keys of a recipe were written, for what turns out to be wrong once data and model are at hand.
///
/// ```
/// use dunlin_core::Recipe;
///
/// let text = "[data]\nclients = 5000";
/// let (_, places) = Recipe::load_with_places(Some(text), &["data.partition=iid".to_owned()])?;
/// let told = |key| places.of(key).map(|place| place.to_string());
/// assert_eq!(told("data.clients").as_deref(), Some("line 2: "));
/// assert_eq!(told("data.partition").as_deref(), Some("--set data.partition=iid: "));
/// assert_eq!(told("data.source").as_deref(), Some(""), "a default is written nowhere");
/// assert_eq!(told("--device"), None, "no key of a recipe");
/// # Ok::<(), dunlin_core::recipe::RecipeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(pub(super) BTreeMap<String, Place>);

impl Places {
    /// Where a key was written; nothing for what is no key of a recipe. A key of a repeated section is where it first
    /// stands, or where the list of its sections was given.
    #[must_use]
    pub fn of(&self, key: &str) -> Option<Place> {
        Key::find(key)?;
        let list = key.rsplit_once('.').map(|(section, _)| section).filter(|section| Key::find(section).is_some());
        Some(match list {
            Some(list) => self.of_first(&[key, list]),
            None => self.of_first(&[key]),
        })
    }

    /// Whether a key was written.
    pub(super) fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// Where to point for a problem that involves these keys: at an assignment if it took part, else at the first key
    /// that was written at all.
    pub(super) fn of_first(&self, keys: &[&str]) -> Place {
        let places = || keys.iter().filter_map(|key| self.0.get(*key));
        let place = places().find(|place| matches!(place, Place::Set(_))).or_else(|| places().next());
        place.cloned().unwrap_or(Place::Value)
    }
}

/// What is wrong with a recipe.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is not TOML.
    #[error("{0}")]
    Syntax(String),
    /// An assignment has no equals sign.
    #[error("an assignment must be `key=value`, such as `rounds.cohort=10`")]
    NoAssignment,
    /// There is no such key or section.
    #[error("unknown {what} `{path}`; {hint}")]
    Unknown {
        /// `key` or `section`.
        what: &'static str,
        /// What was written.
        path: String,
        /// A likely correction, or the names to choose from.
        hint: String,
    },
    /// The value of a key is of the wrong type, out of range, or at odds with another key.
    #[error("`{key}` is {value}; it must be {right}")]
    Wrong {
        /// The key's dotted path.
        key: String,
        /// The value, as TOML.
        value: String,
        /// What would be right.
        right: String,
    },
}

impl Recipe {
    /// The recipe of a TOML text; keys that it leaves out have their defaults.
    ///
    /// # Errors
    ///
    /// The first problem, in the order of the text.
    pub fn from_toml(text: &str) -> Result<Self, RecipeError> {
        Self::load(Some(text), &[])
    }

    /// The recipe of a TOML text, or the default one, changed by assignments such as `rounds.cohort=10`.
    ///
    /// The part of an assignment after the first `=` is a TOML value; texts need no quotes. A key of `network.class`
    /// is set in every class of the recipe, or in a first one.
    ///
    /// ```
    /// use dunlin_core::Recipe;
    ///
    /// let text = "[rounds]\ncohort = 5\ncount = 100";
    /// let recipe = Recipe::load(Some(text), &["rounds.count=3".to_owned(), "model.kind=softmax".to_owned()])?;
    /// assert_eq!((recipe.rounds.cohort, recipe.rounds.count), (5, 3));
    ///
    /// let error = Recipe::load(Some(text), &["rounds.quorum=1.5".to_owned()]).unwrap_err();
    /// assert_eq!(
    ///     error.to_string(),
    ///     "--set rounds.quorum=1.5: `rounds.quorum` is 1.5; it must be a number above 0 and at most 1",
    /// );
    /// # Ok::<(), dunlin_core::recipe::RecipeError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The first problem: of the text, then of the assignments, then of both together.
    pub fn load(text: Option<&str>, sets: &[String]) -> Result<Self, RecipeError> {
        Self::load_with_places(text, sets).map(|(recipe, _)| recipe)
    }

    /// [`Recipe::load`], with where each key was written.
    ///
    /// # Errors
    ///
    /// As of [`Recipe::load`].
    pub fn load_with_places(text: Option<&str>, sets: &[String]) -> Result<(Self, Places), RecipeError> {
        let mut document = match text {
            Some(text) => Document::parse(text)?,
            None => Document::default(),
        };
        for set in sets {
            document.set(set)?;
        }
        let mut recipe = Self::deserialize(document.to_value())
            .map_err(|error| Place::Value.error(Problem::Syntax(error.message().to_owned())))?;
        if !document.places().has("downlink.density") {
            recipe.downlink.density = recipe.balanced_downlink_density();
        }
        match check::conflict(&recipe) {
            None => Ok((recipe, document.into_places())),
            Some(conflict) => Err(document.places().of_first(conflict.keys).error(conflict.problem)),
        }
    }

    /// Checks a recipe that was put together by code; one that was parsed is valid already.
    ///
    /// # Errors
    ///
    /// The first key that is out of range or at odds with another.
    pub fn validate(&self) -> Result<(), RecipeError> {
        let table = toml::Table::try_from(self).map_err(|_| {
            // A seed that TOML has no number for could not be written down.
            Place::Value.error(Problem::Syntax(format!("whole numbers must be at most {}", i64::MAX)))
        })?;
        check_entries("", &Value::Table(table)).map_err(|problem| Place::Value.error(problem))?;
        match check::conflict(self) {
            None => Ok(()),
            Some(conflict) => Err(Place::Value.error(conflict.problem)),
        }
    }
}

impl Place {
    pub(super) fn error(self, problem: Problem) -> RecipeError {
        RecipeError { place: self, problem }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}: "),
            Self::Set(assignment) => write!(f, "--set {assignment}: "),
            Self::Value => Ok(()),
        }
    }
}

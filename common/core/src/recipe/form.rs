//! What may stand at a key of a recipe: the check of a value, and the words for what would be right.

use super::{ModelKind, Pattern};
use std::fmt;
use std::ops::Bound::{self, Excluded, Included, Unbounded};
use toml::Value;

/// The values that a key may have.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// Any text.
    Text,
    /// Any text but the empty one.
    Name,
    /// `true` or `false`.
    Flag,
    /// One of a few words.
    Choice(&'static [&'static str]),
    /// A whole number between two bounds, both included.
    Whole(i64, i64),
    /// A finite number between two bounds.
    Real(Bound<f64>, Bound<f64>),
    /// 0 for no limit, or a number from 0.001 to a thousand million.
    Rate,
    /// The number 0 or the number 1.
    ZeroOrOne,
    /// The word for a built-in model, or the name of one that the program has registered.
    Model,
    /// The name of a data set, or where its files are.
    Source,
    /// Which weights may be left together by pruning.
    Pattern,
    /// The server's own examples: held back, random, or a data set.
    Examples,
    /// A section that may be repeated.
    Sections,
}

impl Form {
    /// Whether `value` is of this form.
    #[must_use]
    pub(super) fn admits(&self, value: &Value) -> bool {
        let real = || match value {
            Value::Integer(whole) => Some(*whole as f64),
            Value::Float(real) if real.is_finite() => Some(*real),
            _ => None,
        };
        match self {
            Self::Text => value.is_str(),
            Self::Name => value.as_str().is_some_and(|text| !text.is_empty()),
            Self::Flag => value.is_bool(),
            Self::Choice(words) => value.as_str().is_some_and(|text| words.contains(&text)),
            Self::Whole(min, max) => value.as_integer().is_some_and(|whole| (*min..=*max).contains(&whole)),
            Self::Real(min, max) => real().is_some_and(|real| std::ops::RangeBounds::contains(&(*min, *max), &real)),
            Self::Rate => real().is_some_and(|real| real == 0.0 || (MIN_RATE..=MAX_RATE).contains(&real)),
            Self::ZeroOrOne => real().is_some_and(|real| real == 0.0 || real == 1.0),
            Self::Model => value.as_str().is_some_and(|text| text.parse::<ModelKind>().is_ok()),
            Self::Source => value.as_str().is_some_and(is_source),
            Self::Examples => value
                .as_str()
                .is_some_and(|text| ["server", "noise"].contains(&text) || is_source(text) && text != "none"),
            Self::Pattern => value.as_str().is_some_and(|text| text.parse::<Pattern>().is_ok()),
            Self::Sections => value.as_array().is_some_and(|items| items.iter().all(Value::is_table)),
        }
    }

    /// Whether `--set` takes the text after `=` as it stands.
    pub(super) fn is_textual(&self) -> bool {
        matches!(
            self,
            Self::Text | Self::Name | Self::Model | Self::Source | Self::Pattern | Self::Examples | Self::Choice(_)
        )
    }
}

fn is_source(text: &str) -> bool {
    match text.split_once(':') {
        None => SOURCES.contains(&text),
        Some((form, path)) => FORMS.iter().any(|(name, _)| *name == form) && !path.is_empty(),
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a text"),
            Self::Name => f.write_str("a text that is not empty"),
            Self::Flag => f.write_str("true or false"),
            Self::Choice(words) => {
                let (last, others) = words.split_last().expect("a choice has words");
                write!(f, "{} or {last}", others.join(", "))
            }
            Self::Whole(min, max) => write!(f, "a whole number from {min} to {max}"),
            Self::Real(min, max) => {
                let kind = if *max == Unbounded { "a finite number" } else { "a number" };
                let min = match min {
                    Included(min) => format!("of at least {min}"),
                    Excluded(min) => format!("above {min}"),
                    Unbounded => String::new(),
                };
                let max = match max {
                    Included(max) => format!(" and at most {max}"),
                    Excluded(max) => format!(" and below {max}"),
                    Unbounded => String::new(),
                };
                write!(f, "{kind} {min}{max}")
            }
            Self::Rate => write!(f, "0 or a number from {MIN_RATE} to {MAX_RATE}"),
            Self::ZeroOrOne => f.write_str("0 or 1"),
            Self::Model => write!(f, "{} or own:NAME", MODELS.join(", ")),
            Self::Source => {
                let forms: Vec<_> = FORMS.iter().map(|(name, path)| format!("{name}:{path}")).collect();
                let (last, others) = forms.split_last().expect("there are forms");
                write!(f, "{}, {} or {last}", SOURCES.join(", "), others.join(", "))
            }
            Self::Pattern => write!(f, "unstructured, channels or N:M with 1 ≤ N < M ≤ {}", Pattern::MOST),
            Self::Examples => f.write_str("server, noise, or what `data.source` may be but none"),
            Self::Sections => f.write_str("a list of sections"),
        }
    }
}

/// The slowest rate that is not 0: anything slower would exceed every deadline, and simulated time with it.
const MIN_RATE: f64 = 0.001;

/// The fastest rate; above it, 0 for "takes no time" says the same.
const MAX_RATE: f64 = 1e9;

/// The data sets with a name of their own.
const SOURCES: &[&str] = &[
    "digits",
    "penguins",
    "mnist",
    "fashion-mnist",
    "cifar10",
    "shakespeare",
    "heart",
    "spoken-digits",
    "sentiment",
    "none",
];

/// The forms of data of one's own, each with what follows its colon.
const FORMS: &[(&str, &str)] = &[
    ("idx", "DIRECTORY"),
    ("png", "DIRECTORY"),
    ("csv", "FILE"),
    ("npz", "FILE"),
    ("safetensors", "FILE"),
    ("text", "FILE_OR_DIRECTORY"),
];

/// The words for the built-in models.
const MODELS: [&str; ModelKind::BUILT_IN.len()] = {
    let mut words = [""; ModelKind::BUILT_IN.len()];
    let mut i = 0;
    while i < words.len() {
        words[i] = ModelKind::BUILT_IN[i].word();
        i += 1;
    }
    words
};

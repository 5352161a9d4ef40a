//! An architecture in words, for files that hold a model.

use super::{InputShape, Model};
use crate::Error;
use dunlin_core::recipe::{ModelConfig, ModelKind};
use std::collections::BTreeMap;

impl Model {
    /// The architecture in words: `model`, `input`, `classes`, and where they are not usual `model.width`,
    /// `model.scaling`, `model.channels`, `vocabulary` and `targets`. [`Self::described`] reads them back.
    #[must_use]
    pub fn about(&self) -> BTreeMap<String, String> {
        let InputShape { channels, height, width, classes, vocabulary, targets } = self.input;
        let usual = ModelConfig::from(&self.config.kind);
        let words = [
            (MODEL, Some(self.config.kind.to_string())),
            (WIDTH, (self.config.width != usual.width).then(|| self.config.width.to_string())),
            (SCALING, (self.config.scaling != usual.scaling).then(|| self.config.scaling.to_string())),
            (CHANNELS, (self.config.channels != usual.channels).then(|| self.config.channels.clone())),
            (INPUT, Some(format!("{channels}x{height}x{width}"))),
            (CLASSES, Some(classes.to_string())),
            (VOCABULARY, (vocabulary > 0).then(|| vocabulary.to_string())),
            (TARGETS, (targets != 1).then(|| targets.to_string())),
        ];
        words.into_iter().filter_map(|(key, word)| Some((key.to_owned(), word?))).collect()
    }

    /// The model that such words describe, with all parameters zero; nothing when they name none.
    ///
    /// # Errors
    /// When a word is not what its key takes, or there is no such model.
    pub fn described(about: &BTreeMap<String, String>) -> Result<Option<Self>, Error> {
        fn read<T: std::str::FromStr>(about: &BTreeMap<String, String>, key: &'static str) -> Result<Option<T>, Error> {
            let word = about.get(key);
            let wrong =
                |word: &String| Error::config("model", format!("{key}={word}"), "the file says so; it cannot be");
            word.map(|word| word.parse().map_err(|_| wrong(word))).transpose()
        }
        let Some(kind) = read::<ModelKind>(about, MODEL)? else { return Ok(None) };
        let Some(input) = about.get(INPUT) else { return Ok(None) };
        let mut config = ModelConfig::from(kind);
        config.width = read(about, WIDTH)?.unwrap_or(config.width);
        config.channels = read(about, CHANNELS)?.unwrap_or(config.channels);
        config.scaling = read(about, SCALING)?.unwrap_or(config.scaling);
        let input = InputShape {
            classes: read(about, CLASSES)?.unwrap_or(0),
            vocabulary: read(about, VOCABULARY)?.unwrap_or(0),
            targets: read(about, TARGETS)?.unwrap_or(1),
            ..InputShape::parse(input)?
        };
        Self::new(config, &input).map(Some)
    }
}

impl InputShape {
    /// The shape of `CHANNELSxHEIGHTxWIDTH`, or of as many features as a single number says; without classes.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let extents = text.split('x').map(str::parse).collect::<Result<Vec<usize>, _>>();
        let extents = extents.ok().filter(|extents| extents.iter().all(|&extent| (1..=MAX_EXTENT).contains(&extent)));
        match extents.as_deref() {
            Some(&[features]) => Ok(Self::table(features, 0)),
            Some(&[channels, height, width]) => Ok(Self::image(channels, height, width, 0)),
            _ => Err(Error::config("input", text, "CHANNELSxHEIGHTxWIDTH is right, such as 1x28x28")),
        }
    }
}

const MODEL: &str = "model";
const WIDTH: &str = "model.width";
const SCALING: &str = "model.scaling";
const CHANNELS: &str = "model.channels";
const INPUT: &str = "input";
const CLASSES: &str = "classes";
const VOCABULARY: &str = "vocabulary";
const TARGETS: &str = "targets";
/// So that products of extents from a file stay far from overflow.
const MAX_EXTENT: usize = 1 << 20;

//! A model in a file, whichever kind of file that is, and what it was built for.

use super::{Failure, of_data};
use clap::Args;
use dunlin::codec::container::{Container, Limits, Tensor, Values};
use dunlin::core::Seed;
use dunlin::core::recipe::{DataConfig, ModelKind};
use dunlin::nn::data::{self, Examples, Split};
use dunlin::nn::infer::{Calibration, Range, calibrate};
use dunlin::nn::model::{InputShape, Model};
use dunlin::nn::small::Weights;
use std::collections::BTreeMap;
use std::path::Path;

/// The architecture of a model, for files that do not tell it.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct ArchitectureArgs {
    /// The architecture, as in a recipe's model.kind, of a file that does not tell it
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,

    /// The shape of its input, such as 1x28x28 [default: that of the data]
    #[arg(long, value_name = "CxHxW")]
    input: Option<String>,

    /// Number of its classes [default: that of the data]
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
}

impl ArchitectureArgs {
    /// A file that tells its architecture is right; what is said besides must be the same.
    fn agree_with(&self, model: &Model) -> Result<(), Failure> {
        let told = model.input();
        if let Some(classes) = self.classes.filter(|&classes| classes != told.classes) {
            return Err(Failure::usage(format!("--classes {classes}: the file tells a model of {told}")));
        }
        let Some(text) = &self.input else { return Ok(()) };
        let said = InputShape { classes: told.classes, ..InputShape::parse(text).map_err(of_data)? };
        if said.features() == told.features() {
            return Ok(());
        }
        Err(Failure::usage(format!("--input {text}: the file tells a model of {told}")))
    }
}

/// A file's tensors as they are stored, and its words.
pub(super) struct ModelFile {
    pub(super) about: BTreeMap<String, String>,
    pub(super) tensors: Vec<Tensor>,
}

impl ModelFile {
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let told = |error: &dyn std::fmt::Display| Failure::usage(format!("cannot read {}: {error}", path.display()));
        let bytes = std::fs::read(path).map_err(|error| told(&error))?;
        Self::from_bytes(&bytes).map_err(|error| told(&error))
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        if Container::recognizes(bytes) {
            let Container { about, tensors } =
                Container::from_bytes(bytes, &Limits::default()).map_err(|error| error.to_string())?;
            return Ok(Self { about, tensors });
        }
        let Weights { about, tensors } = Weights::from_bytes(bytes).map_err(|error| error.to_string())?;
        let tensors = tensors.into_iter();
        let tensors =
            tensors.map(|(spec, values)| Tensor { name: spec.name, shape: spec.shape, values: Values::F32(values) });
        Ok(Self { about, tensors: tensors.collect() })
    }

    /// The model that the tensors belong to: what the file says, unless the command line says otherwise.
    pub(super) fn model(&self, args: &ArchitectureArgs, data: Option<&InputShape>) -> Result<Model, Failure> {
        let Some(kind) = &args.kind else {
            if let Some(described) = Model::described(&self.about).map_err(of_data)? {
                args.agree_with(&described)?;
                return Ok(described);
            }
            let mut fitting = ModelKind::BUILT_IN.into_iter().filter_map(|kind| Model::new(kind, data?).ok());
            return fitting.find(|model| self.params(model).is_ok()).ok_or_else(|| {
                Failure::usage("the file does not tell its architecture; say --kind KIND, such as --kind lenet-5")
            });
        };
        let kind: ModelKind = kind.parse().map_err(Failure::usage)?;
        let mut input = match (&args.input, data) {
            (Some(text), data) => {
                let classes = data.map_or(0, |data| data.classes);
                InputShape { classes, ..InputShape::parse(text).map_err(of_data)? }
            }
            (None, Some(data)) => *data,
            (None, None) => return Err(Failure::usage("with --kind, say --input CxHxW too, such as --input 1x28x28")),
        };
        if let Some(classes) = args.classes {
            input.classes = classes;
        }
        if input.classes == 0 {
            return Err(Failure::usage("with --kind, say --classes N too"));
        }
        Model::new(kind, &input).map_err(of_data)
    }

    /// The ranges that the file tells.
    pub(super) fn ranges(&self) -> Calibration {
        let ranges = self
            .about
            .iter()
            .filter_map(|(key, word)| Some((key.strip_prefix(ACTIVATION)?.to_owned(), Range::from_word(word)?)));
        ranges.collect()
    }

    /// The parameters in the order of the model's layout.
    pub(super) fn params(&self, model: &Model) -> Result<Vec<f32>, Failure> {
        let container = Container { about: BTreeMap::new(), tensors: self.tensors.clone() };
        Weights::from(container)
            .flat(model.layout())
            .map_err(|error| Failure::usage(format!("the file is no {}: {error}", model.kind())))
    }
}

/// A data set by the word that a recipe has for it.
pub(super) fn load(source: &str) -> Result<Split, Failure> {
    let config = DataConfig { source: source.to_owned(), ..DataConfig::default() };
    data::load(&config, &Seed::from_u64(0)).map_err(of_data)
}

/// The ranges of what goes into the layers, on the first rows of a data set's training part.
pub(super) fn measured(model: &Model, tensors: &[Tensor], split: &Split) -> Result<Calibration, Failure> {
    let rows: Vec<u32> = (0..split.train.len().min(CALIBRATION_ROWS) as u32).collect();
    let examples = Examples::new(split.train.clone(), rows).map_err(of_data)?;
    calibrate(model, tensors, &examples).map_err(of_data)
}

/// What the file's key for the range of a layer's input begins with; the weight's name follows.
pub(super) const ACTIVATION: &str = "activation.";
/// Enough that the extremes hardly move with more.
const CALIBRATION_ROWS: usize = 1000;

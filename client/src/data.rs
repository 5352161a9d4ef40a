//! Where a client's data come from, as given on its command line.

use crate::driver::Workplace;
use crate::trainer::{CandleTrainer, Trainer, TrainerError};
use dunlin_core::recipe::{DataConfig, Width};
use dunlin_core::{ClientId, Layout, Recipe};
use dunlin_nn::Threads;
use dunlin_nn::data::{self, Dataset, Examples};
use dunlin_nn::model::{Device, Model};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A client's data, as text: `recipe:N` for part N of the recipe's own data set, or a source of the client's own in one
/// of the recipe's forms: `idx:DIR`, `png:DIR`, `csv:FILE`, `npz:FILE`, `safetensors:FILE`, `text:FILE` or `text:DIR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataSpec {
    /// Part N of the recipe's data set, split as the recipe says.
    Recipe(u32),
    /// A source of the client's own, written as in the recipe's `data.source`.
    Own(String),
}

/// The forms of a source of the client's own.
const FORMS: [&str; 6] = ["idx", "png", "csv", "npz", "safetensors", "text"];

/// A text that names no data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--data {0:?} is not understood; write recipe:N for part N of the recipe's data, \
         idx:DIR, png:DIR, csv:FILE, npz:FILE, safetensors:FILE, text:FILE or text:DIR"
)]
pub struct BadDataSpec(pub String);

impl std::str::FromStr for DataSpec {
    type Err = BadDataSpec;

    fn from_str(text: &str) -> Result<Self, BadDataSpec> {
        let bad = || BadDataSpec(text.into());
        match text.split_once(':') {
            Some(("recipe", part)) => Ok(Self::Recipe(part.parse().map_err(|_| bad())?)),
            Some((form, path)) if FORMS.contains(&form) && !path.is_empty() => Ok(Self::Own(text.into())),
            _ => Err(bad()),
        }
    }
}

/// Data that are not where the command line says.
#[derive(Debug, thiserror::Error)]
#[error("--data {spec}: {source}")]
pub struct MissingData {
    /// As it was given.
    pub spec: String,
    /// What the system says.
    pub source: std::io::Error,
}

impl DataSpec {
    /// Looks whether the client's own file or folder is there and may be read: before it joins, and before the server
    /// knows of it. What is in it is read once the recipe says how.
    ///
    /// # Errors
    /// When it is not.
    pub fn find(&self) -> Result<(), MissingData> {
        let Self::Own(spec) = self else { return Ok(()) };
        let path = std::path::Path::new(spec.split_once(':').map_or(spec.as_str(), |(_, path)| path));
        let found = match spec.split_once(':') {
            Some(("idx" | "png", _)) => std::fs::read_dir(path).map(drop),
            Some(("text", _)) if path.is_dir() => std::fs::read_dir(path).map(drop),
            _ => std::fs::File::open(path).map(drop),
        };
        found.map_err(|source| MissingData { spec: spec.clone(), source })
    }
}

/// The built-in workplace: candle models on rows of a data set.
pub struct DataWorkplace {
    recipe: Recipe,
    train: Arc<Dataset>,
    rows: BTreeMap<ClientId, Arc<[u32]>>,
    /// Of clients that do not have the whole model.
    widths: BTreeMap<ClientId, Width>,
    threads: Arc<Threads>,
    device: Device,
}

impl DataWorkplace {
    /// The clients of a simulation: each has its part of the recipe's data set.
    ///
    /// # Errors
    /// When the data cannot be loaded or split.
    pub fn whole(recipe: &Recipe, train: Arc<Dataset>, clients: &[ClientId]) -> Result<Self, TrainerError> {
        let parts = data::partition(&recipe.data, &train, &recipe.data_seed()).map_err(boxed)?;
        let rows = clients.iter().cloned().zip(parts).map(|(client, part)| (client, part.into())).collect();
        Ok(Self::new(recipe, train, rows).dealt(clients, 0))
    }

    fn new(recipe: &Recipe, train: Arc<Dataset>, rows: BTreeMap<ClientId, Arc<[u32]>>) -> Self {
        let (widths, threads, device) = (BTreeMap::new(), Arc::default(), Device::Cpu);
        Self { recipe: recipe.clone(), train, rows, widths, threads, device }
    }

    /// With the widths that the recipe deals to the parts from `first` on.
    fn dealt(mut self, clients: &[ClientId], first: usize) -> Self {
        if !self.recipe.size.is_empty() {
            let widths = self.recipe.dealt_widths().into_iter().skip(first);
            self.widths = clients.iter().cloned().zip(widths).collect();
        }
        self
    }

    /// Clients of one process: from part N on in order, or all of them on data of their own.
    ///
    /// # Errors
    /// When the data cannot be loaded or split, or the recipe has fewer parts.
    pub fn for_clients(recipe: &Recipe, spec: &DataSpec, clients: &[ClientId]) -> Result<Self, TrainerError> {
        match spec {
            DataSpec::Recipe(first) => {
                let train = data::load(&recipe.data, &recipe.data_seed()).map_err(boxed)?.train;
                let parts = data::partition(&recipe.data, &train, &recipe.data_seed()).map_err(boxed)?;
                let (first, count) = (*first as usize, clients.len());
                if first + count > parts.len() {
                    let (last, parts) = (first + count - 1, parts.len());
                    return Err(boxed(dunlin_nn::Error::Config {
                        key: "--data",
                        value: format!("recipe:{first}"),
                        remedy: format!(
                            "{count} client(s) need parts up to {last}, and the recipe's data.clients is {parts}"
                        ),
                    }));
                }
                let parts = parts.into_iter().skip(first);
                let rows = clients.iter().cloned().zip(parts).map(|(client, part)| (client, part.into())).collect();
                Ok(Self::new(recipe, train, rows).dealt(clients, first))
            }
            DataSpec::Own(source) => {
                let config = DataConfig { source: source.clone(), ..recipe.data.clone() };
                let train = data::load(&config, &recipe.data_seed()).map_err(boxed)?.train;
                let every: Arc<[u32]> = (0..train.len() as u32).collect();
                let rows = clients.iter().map(|client| (client.clone(), every.clone())).collect();
                Ok(Self::new(recipe, train, rows))
            }
        }
    }

    /// Gives all clients this width; without, those with parts of the recipe's data have what it deals to them, and those
    /// with data of their own the whole model.
    #[must_use]
    pub fn with_width(mut self, width: Width) -> Self {
        self.widths = self.rows.keys().map(|client| (client.clone(), width)).collect();
        self
    }

    /// Lets each training split its batches among these threads; without, it works on the one that calls.
    #[must_use]
    pub fn with_threads(mut self, threads: Arc<Threads>) -> Self {
        self.threads = threads;
        self
    }

    /// Lets each training compute on this device; without, on the CPU.
    #[must_use]
    pub fn with_device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    fn model(&self) -> Result<Model, TrainerError> {
        Model::new(&self.recipe.model, self.train.input()).and_then(|model| model.on(&self.device)).map_err(boxed)
    }

    fn rows_of(&self, client: &ClientId) -> Result<&Arc<[u32]>, TrainerError> {
        self.rows.get(client).ok_or_else(|| TrainerError::Failed(format!("client {client} has no data").into()))
    }
}

impl Workplace for DataWorkplace {
    fn model(&self) -> Result<(Layout, Vec<f32>), TrainerError> {
        let model = self.model()?;
        let initial = model.init(&self.recipe.model_seed());
        Ok((model.layout().clone(), initial))
    }

    fn examples(&self, client: &ClientId) -> Result<u32, TrainerError> {
        Ok(self.rows_of(client)?.len() as u32)
    }

    fn width(&self, client: &ClientId) -> Width {
        self.widths.get(client).copied().unwrap_or_default()
    }

    fn trainer(&self, client: &ClientId) -> Result<Box<dyn Trainer>, TrainerError> {
        let examples = Examples::new(self.train.clone(), self.rows_of(client)?.clone()).map_err(boxed)?;
        Ok(Box::new(CandleTrainer::new(self.model()?, examples, self.recipe.training.clone(), self.threads.clone())))
    }
}

fn boxed(error: dunlin_nn::Error) -> TrainerError {
    TrainerError::Failed(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_data_are_looked_for_before_anything_else() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.csv");
        std::fs::write(&file, "label\n").unwrap();
        DataSpec::Recipe(0).find().unwrap();
        DataSpec::Own(format!("csv:{}", file.display())).find().unwrap();
        for form in ["idx", "png", "text"] {
            DataSpec::Own(format!("{form}:{}", dir.path().display())).find().unwrap();
        }
        DataSpec::Own(format!("text:{}", file.display())).find().unwrap();
        assert!(DataSpec::Own(format!("png:{}", file.display())).find().is_err());
        let missing = DataSpec::Own("csv:nowhere/a.csv".into()).find().unwrap_err();
        assert!(missing.to_string().starts_with("--data csv:nowhere/a.csv: "), "{missing}");
    }

    #[test]
    fn a_data_spec_is_a_part_or_a_source() {
        assert_eq!("recipe:3".parse(), Ok(DataSpec::Recipe(3)));
        assert_eq!("csv:a.csv".parse(), Ok(DataSpec::Own("csv:a.csv".into())));
        for form in FORMS {
            let spec = format!("{form}:a");
            assert_eq!(spec.parse(), Ok(DataSpec::Own(spec.clone())));
        }
        for bad in ["", "digits", "recipe:", "recipe:x", "idx:", "sql:x"] {
            assert_eq!(bad.parse::<DataSpec>(), Err(BadDataSpec(bad.into())));
        }
    }
}

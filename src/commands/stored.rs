//! A run in a server's data directory, to be looked at: nothing is written to it.

use super::control::open_store;
use super::{Failure, of_data, runtime};
use dunlin::core::{Recipe, RunId, Timestamp};
use dunlin::nn::{data, model::Model};
use dunlin::server::engine::{self, Engine, Start};
use dunlin::server::store::{Record, Restored, RunRow, SqliteStore, Store, StoreError};
use std::path::Path;
use tokio::runtime::Runtime;

/// A run that a data directory holds.
pub(super) struct StoredRun {
    pub(super) row: RunRow,
    store: SqliteStore,
    /// The store's calls enter it, so it outlives them.
    runtime: Runtime,
}

/// A run as a server would go on with it.
pub(super) struct OpenRun {
    pub(super) engine: Engine,
    /// What is left of the model, and the weights that it is deployed with.
    pub(super) model: Model,
    pub(super) params: Vec<f32>,
    /// Clients with an update that counts.
    pub(super) participants: u32,
    _runtime: Runtime,
}

impl StoredRun {
    /// The run of an id, or the newest.
    pub(super) fn find(dir: &Path, id: Option<&str>) -> Result<Self, Failure> {
        let runtime = runtime()?;
        let mut store = open_store(dir, runtime.handle())?;
        let row = choose(store.runs()?, dir, id)?;
        Ok(Self { row, store, runtime })
    }

    pub(super) fn recipe(&self) -> Result<Recipe, Failure> {
        Recipe::from_toml(&self.row.recipe)
            .map_err(|error| Failure::other(format!("the recipe of run {} is not understood: {error}", self.row.id)))
    }

    /// Computes the newest published model, and everything else that a restart would.
    pub(super) fn open(self) -> Result<OpenRun, Failure> {
        let recipe = self.recipe()?;
        let Self { row, mut store, runtime } = self;
        let participants = store.restore(row.id)?.receipts.len() as u32;
        let split = data::load(&recipe.data, &recipe.data_seed()).map_err(of_data)?;
        let model = Model::new(&recipe.model, split.train.input()).map_err(of_data)?;
        let (run, created_ms) = (row.id, row.created_ms);
        let start = Start {
            layout: model.layout().clone(),
            initial: model.init(&recipe.model_seed()),
            recipe,
            store: Box::new(OneRun { store, row }),
            evaluator: None,
            distiller: None,
            simulated: false,
            anew: false,
            id: run,
            created_ms,
        };
        let engine = engine::open(start, Timestamp(0))?;
        if engine.broadcast().version().0 == 0 {
            return Err(Failure::other(format!("run {run} has published no model yet")));
        }
        let (model, params) = model.resulting(engine.recipe(), engine.params()).map_err(of_data)?;
        let (model, params) = model.deployed(&params).map_err(of_data)?;
        Ok(OpenRun { engine, model, params, participants, _runtime: runtime })
    }
}

/// The run of an id, or the newest; `runs` are newest first.
fn choose(runs: Vec<RunRow>, dir: &Path, id: Option<&str>) -> Result<RunRow, Failure> {
    let known: Vec<_> = runs.iter().map(|run| run.id.to_string()).collect();
    let chosen = match id {
        None => runs.into_iter().next(),
        Some(text) => {
            let id = RunId::from_hex(text);
            runs.into_iter().find(|run| Some(run.id) == id)
        }
    };
    chosen.ok_or_else(|| match id {
        None => Failure::usage(format!("{} holds no run", dir.display())),
        Some(id) => Failure::usage(format!("{} holds no run {id}; it holds {}", dir.display(), known.join(", "))),
    })
}

/// A store that shows one of its runs and is never written to.
struct OneRun {
    store: SqliteStore,
    row: RunRow,
}

impl Store for OneRun {
    fn runs(&mut self) -> Result<Vec<RunRow>, StoreError> {
        Ok(vec![self.row.clone()])
    }

    fn create(&mut self, run: &RunRow) -> Result<(), StoreError> {
        Err(StoreError::RunExists(run.id))
    }

    fn restore(&mut self, run: RunId) -> Result<Restored, StoreError> {
        self.store.restore(run)
    }

    fn commit(&mut self, _: &[Record]) -> Result<(), StoreError> {
        Err(StoreError::NoRun)
    }
}

//! A run as it was written: by `simulate --out`, or by a server into its data directory.

use crate::commands::Failure;
use crate::commands::stored::StoredRun;
use dunlin::core::report::{ClientSummary, RunEnd};
use dunlin::core::{Outcome, Recipe};
use dunlin::nn::export;
use dunlin::nn::model::Model;
use dunlin::nn::small::Weights;
use dunlin::server::serve::results_dir;
use dunlin::{Report, RoundSummary};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// A run, whether it has ended or not.
pub(super) struct Run {
    /// Where its results are, or would be.
    pub(super) dir: PathBuf,
    /// Its id, where a server gave it one.
    pub(super) id: Option<String>,
    /// Whether a server would go on with it; then the report's outcome says nothing.
    pub(super) goes_on: bool,
    /// Nothing where it was not written down.
    pub(super) recipe: Option<Recipe>,
    pub(super) report: Report,
    pub(super) rounds: Vec<RoundSummary>,
    /// Empty where only their sums were counted.
    pub(super) clients: Vec<ClientSummary>,
    /// The final model, or the newest.
    pub(super) weights: Weights,
}

impl Run {
    /// Reads a directory of results, or a run of a data directory: the newest, or that of an id.
    pub(super) fn read(dir: &Path, id: Option<&str>) -> Result<Self, Failure> {
        if let Err(error) = std::fs::read_dir(dir) {
            return Err(Failure::usage(format!("cannot read {}: {error}", dir.display())));
        }
        if dir.join("report.json").is_file() {
            if id.is_some() {
                let reason = "holds the results of one run; --run-id is for data directories";
                return Err(Failure::usage(format!("{} {reason}", dir.display())));
            }
            return Self::results(dir);
        }
        if dir.join("dunlin.db").is_file() {
            return Self::stored(dir, id);
        }
        let remedy = "it has neither report.json, as simulate --out writes it, nor dunlin.db, as a server does";
        Err(Failure::usage(format!("{} is no run: {remedy}", dir.display())))
    }

    fn results(dir: &Path) -> Result<Self, Failure> {
        let recipe = dir.join("recipe.toml");
        let recipe = match recipe.is_file() {
            true => {
                let told = |error| Failure::usage(format!("{}: {error}", recipe.display()));
                Some(Recipe::from_toml(&text(&recipe)?).map_err(told)?)
            }
            false => None,
        };
        let report = dir.join("report.json");
        let model = dir.join("model.safetensors");
        let clients = dir.join("clients.jsonl");
        Ok(Self {
            dir: dir.to_owned(),
            id: None,
            goes_on: false,
            recipe,
            report: serde_json::from_str(&text(&report)?).map_err(|error| damaged(&report, &error))?,
            rounds: lines(&dir.join("rounds.jsonl"))?,
            clients: if clients.is_file() { lines(&clients)? } else { Vec::new() },
            weights: in_order(Weights::from_bytes(&bytes(&model)?).map_err(|error| damaged(&model, &error))?),
        })
    }

    fn stored(data_dir: &Path, id: Option<&str>) -> Result<Self, Failure> {
        let stored = StoredRun::find(data_dir, id)?;
        let (id, outcome, recipe) = (stored.row.id, stored.row.outcome, stored.recipe()?);
        let dir = results_dir(data_dir, id);
        if dir.join("report.json").is_file() {
            return Ok(Self { id: Some(id.to_string()), recipe: Some(recipe), ..Self::results(&dir)? });
        }
        // It has not ended, or its server was killed before it had written the results.
        let open = stored.open()?;
        let rounds = open.engine.summaries().to_vec();
        let params = open.engine.params();
        let judged = rounds.iter().rev().find_map(|round| Some((round.accuracy?, round.loss?)));
        let end = RunEnd {
            accuracy: judged.map_or(0.0, |judged| judged.0),
            loss: judged.map_or(0.0, |judged| judged.1),
            sizes: rounds
                .iter()
                .rev()
                .find(|round| round.accuracy.is_some())
                .map_or_else(Vec::new, |round| round.sizes.clone()),
            params: params.len() as u64,
            nonzero: params.iter().filter(|&&value| value != 0.0).count() as u64,
            clients: open.participants,
            seconds: rounds.iter().map(|round| round.seconds).sum(),
            model_digest: open.engine.broadcast().digest().to_string(),
        };
        let target = recipe.rounds.target_accuracy;
        let report = Report::from_rounds(&recipe.name, outcome.unwrap_or(Outcome::Stopped), &rounds, target, &end);
        let file = export::safetensors(open.model.layout(), &open.params, &open.model.about())?;
        Ok(Self {
            dir,
            id: Some(id.to_string()),
            goes_on: outcome.is_none(),
            recipe: Some(recipe),
            report,
            rounds,
            clients: Vec::new(),
            weights: in_order(Weights::from_bytes(&file)?),
        })
    }
}

/// The tensors in the order of the model's layers, not in that of their names, where the file tells what model it is.
fn in_order(mut weights: Weights) -> Weights {
    if let Ok(Some(model)) = Model::described(&weights.about) {
        let tensors = model.layout().tensors();
        weights.tensors.sort_by_key(|(spec, _)| tensors.iter().position(|tensor| tensor.name == spec.name));
    }
    weights
}

fn bytes(path: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(path).map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

fn text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(bytes(path)?).map_err(|error| damaged(path, &error))
}

/// A JSON object a line.
fn lines<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, Failure> {
    let read = |(number, line): (usize, &str)| {
        let wrong = |error| Failure::usage(format!("{} is damaged: line {number}: {error}", path.display()));
        serde_json::from_str(line).map_err(wrong)
    };
    (1..).zip(text(path)?.lines()).map(read).collect()
}

fn damaged(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("{} is damaged: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::runtime;
    use dunlin::Simulation;
    use dunlin::core::RunId;
    use dunlin::server::store::SqliteStore;
    use std::ops::ControlFlow;

    #[test]
    fn a_run_whose_results_were_never_written_is_read_from_its_store() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = runtime().unwrap();
        let sets = ["model.kind=softmax", "data.clients=4", "rounds.cohort=4", "rounds.count=9"].map(String::from);
        let recipe = Recipe::load(None, &sets).unwrap();
        let store = SqliteStore::open(dir.path(), runtime.handle().clone()).unwrap();
        let stop = |round: &RoundSummary| match round.round {
            3 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        };
        let outcome = Simulation::new(recipe.clone()).store(Box::new(store)).on_round(stop).run().unwrap();

        let run = Run::read(dir.path(), None).unwrap();
        assert_eq!(run.recipe, Some(recipe));
        assert!(!run.goes_on);
        let seconds = outcome.report.seconds;
        assert_eq!(Report { seconds, ..run.report }, outcome.report);
        assert_eq!(run.rounds, outcome.rounds);
        assert_eq!(run.weights.flat(&outcome.layout), Ok(outcome.params));
        assert_eq!(run.dir, results_dir(dir.path(), RunId::from_hex(&run.id.unwrap()).unwrap()));
    }

    #[test]
    fn what_is_no_run_is_told_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let told = |id| match Run::read(dir.path(), id) {
            Ok(_) => panic!("there is no run"),
            Err(failure) => failure.message.replace(&dir.path().display().to_string(), "DIR"),
        };
        let neither = "it has neither report.json, as simulate --out writes it, nor dunlin.db, as a server does";
        assert_eq!(told(None), format!("DIR is no run: {neither}"));
        std::fs::write(dir.path().join("report.json"), "{\n").unwrap();
        assert!(told(None).starts_with("DIR/report.json is damaged: EOF while parsing"), "{}", told(None));
        assert_eq!(told(Some("1")), "DIR holds the results of one run; --run-id is for data directories");
    }
}

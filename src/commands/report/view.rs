//! What a report tells, in numbers: the page, the tables and the JSON all show these.

use super::analysis::Analysis;
use super::source::Run;
use crate::commands::output::{bytes, count, percent};
use dunlin::core::Recipe;
use dunlin::core::report::ClientSummary;
use dunlin::{Report, RoundSummary};
use serde::Serialize;
use std::collections::BTreeMap;

/// A run and its final model.
#[derive(Serialize)]
pub(super) struct View {
    /// The run's id, where a server gave it one.
    pub(super) id: Option<String>,
    /// Whether the run has not ended.
    pub(super) goes_on: bool,
    pub(super) report: Report,
    pub(super) cost: Cost,
    /// By class of link, where clients were counted and have one.
    pub(super) classes: Vec<ClassCost>,
    pub(super) model: Analysis,
    pub(super) clients: Vec<ClientSummary>,
    pub(super) rounds: Vec<RoundSummary>,
    /// This run and those that it is held against, or nothing.
    pub(super) beside: Vec<Beside>,
    #[serde(skip)]
    pub(super) recipe: Option<Recipe>,
}

/// A run as it is held against others.
#[derive(Serialize)]
pub(super) struct Beside {
    pub(super) name: String,
    /// The highest accuracy of a round.
    pub(super) best: Option<f64>,
    pub(super) report: Report,
    #[serde(skip)]
    pub(super) rounds: Vec<RoundSummary>,
}

impl Beside {
    pub(super) fn new(name: String, report: Report, rounds: Vec<RoundSummary>) -> Self {
        let best = rounds.iter().filter_map(|round| round.accuracy).max_by(f64::total_cmp);
        Self { name, best, report, rounds }
    }

    /// What its row in a table is headed by.
    pub(super) const HEADS: [&str; 9] =
        ["run", "rounds", "accuracy", "best", "loss", "parameters", "not zero", "up", "down"];

    /// Its row, but for its name.
    pub(super) fn cells(&self) -> [String; 8] {
        let Self { best, report, .. } = self;
        [
            count(report.rounds),
            percent(report.accuracy),
            best.map_or_else(|| "–".to_owned(), percent),
            format!("{:.4}", report.loss),
            count(report.params),
            count(report.nonzero),
            bytes(report.bytes.up),
            bytes(report.bytes.down),
        ]
    }
}

/// What taking part costs a client on average.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Cost {
    /// Times that a client was chosen, over all rounds.
    pub(super) chosen: u64,
    /// Updates that were accepted.
    pub(super) updates: u64,
    /// Bytes sent by clients for each accepted update.
    pub(super) up: f64,
    /// Bytes sent to clients for each time that one was chosen.
    pub(super) down: f64,
    /// What either would have been as f32.
    pub(super) dense: u64,
    /// Simulated time of a round, in seconds, where time was simulated and passed.
    pub(super) round_seconds: Option<f64>,
}

/// What the run cost a client of one class, on average.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ClassCost {
    pub(super) class: String,
    pub(super) clients: u64,
    pub(super) updates: f64,
    pub(super) up: f64,
    pub(super) down: f64,
    pub(super) busy_seconds: f64,
}

impl View {
    pub(super) fn new(run: Run, model: Analysis) -> Self {
        let Run { id, goes_on, recipe, report, rounds, clients, .. } = run;
        let (cost, classes) = (Cost::of(&report, &rounds), ClassCost::of(&clients));
        Self { id, goes_on, report, cost, classes, model, clients, rounds, beside: Vec::new(), recipe }
    }

    /// With other runs beside it; this one goes by `name`.
    pub(super) fn beside(mut self, name: String, others: Vec<Beside>) -> Self {
        if !others.is_empty() {
            self.beside = vec![Beside::new(name, self.report.clone(), self.rounds.clone())];
            self.beside.extend(others);
        }
        self
    }

    /// How the run stands, in a word and in a sentence.
    pub(super) fn state(&self) -> (String, String) {
        if self.goes_on {
            return ("goes on".into(), "the run has not ended".into());
        }
        (self.report.outcome.label().replace('_', " "), self.report.outcome.to_string())
    }

    /// Whether anything was judged on a test set: without one, both numbers are zero.
    pub(super) fn is_judged(&self) -> bool {
        self.report.accuracy != 0.0 || self.report.loss != 0.0
    }
}

impl Cost {
    fn of(report: &Report, rounds: &[RoundSummary]) -> Self {
        let chosen = rounds.iter().map(|round| u64::from(round.chosen)).sum();
        let updates = rounds.iter().map(|round| u64::from(round.clients)).sum();
        let mean = |bytes: u64, times: u64| if times == 0 { 0.0 } else { bytes as f64 / times as f64 };
        let simulated = report.simulated_seconds.filter(|&seconds| seconds > 0.0);
        Self {
            chosen,
            updates,
            up: mean(report.bytes.up, updates),
            down: mean(report.bytes.down, chosen),
            dense: 4 * report.params,
            round_seconds: simulated.map(|seconds| seconds / rounds.len().max(1) as f64),
        }
    }
}

impl ClassCost {
    fn of(clients: &[ClientSummary]) -> Vec<Self> {
        let mut classes: BTreeMap<&str, Vec<&ClientSummary>> = BTreeMap::new();
        for client in clients {
            if let Some(class) = &client.class {
                classes.entry(class).or_default().push(client);
            }
        }
        let cost = |(class, clients): (&str, Vec<&ClientSummary>)| {
            let mean = |value: fn(&ClientSummary) -> f64| {
                clients.iter().map(|client| value(client)).sum::<f64>() / clients.len() as f64
            };
            Self {
                class: class.to_owned(),
                clients: clients.len() as u64,
                updates: mean(|client| client.updates as f64),
                up: mean(|client| client.up as f64),
                down: mean(|client| client.down as f64),
                busy_seconds: mean(|client| client.busy_seconds),
            }
        };
        classes.into_iter().map(cost).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::analysis::{Importance, Layer, QuantizationError, Sensitivity, Size, Sizes};
    use super::*;
    use dunlin::core::report::{Bytes, RunEnd};
    use dunlin::core::{ClientId, Outcome};

    /// Two rounds of three clients, and a model of one layer.
    pub(in crate::commands::report) fn view() -> View {
        let round = |number, clients| RoundSummary {
            round: number,
            published: true,
            chosen: 3,
            clients,
            lost: 3 - clients,
            accuracy: Some(0.25 * number as f64),
            loss: Some(1.0),
            train_loss: 2.0,
            bytes: Bytes { up: 30, down: 90, up_dense: 1200, down_dense: 1200 },
            simulated_seconds: Some(4.0),
            ..RoundSummary::default()
        };
        let rounds = vec![round(1, 3), round(2, 2)];
        let end = RunEnd { accuracy: 0.5, loss: 1.0, params: 100, nonzero: 90, clients: 3, ..RunEnd::default() };
        let client = |number: u32, class: Option<&str>| ClientSummary {
            width: dunlin::core::recipe::Width::WHOLE,
            client: ClientId::numbered("client", number),
            class: class.map(str::to_owned),
            examples: 10,
            updates: 2,
            up: 20 + u64::from(number),
            down: 60,
            busy_seconds: 1.0,
        };
        let report = Report::from_rounds("a <b> & \"c\"", Outcome::Completed, &rounds, 0.0, &end);
        let layer = Layer {
            name: "w<eight>".into(),
            shape: vec![10, 10],
            params: 100,
            nonzero: 90,
            importance: Importance { largest: 1.0, bins: vec![0, 20, 70], cuts: [Some(0.5), None, None] },
            error: Some(QuantizationError { shared: 0.1, int8: 0.01, int4: 0.2 }),
            pruned_accuracy: None,
        };
        let size = Size { values: "int8", dense: 400, pruned: 373, stored: 123, coded: 110, accuracy: None };
        let model = Analysis {
            layers: vec![layer],
            sizes: Sizes { density: None, files: vec![size] },
            sensitivity: Sensitivity::Skipped { reason: "there is <none>".into() },
        };
        View {
            beside: Vec::new(),
            id: None,
            goes_on: false,
            cost: Cost::of(&report, &rounds),
            classes: Vec::new(),
            report,
            model,
            clients: vec![client(0, None), client(1, None), client(2, None)],
            rounds,
            recipe: Some(Recipe::default()),
        }
    }

    #[test]
    fn the_cost_of_a_client_is_a_mean_over_its_turns() {
        let cost = Cost { chosen: 6, updates: 5, up: 12.0, down: 30.0, dense: 400, round_seconds: Some(4.0) };
        assert_eq!(view().cost, cost);
        assert_eq!(Cost::of(&view().report, &[]).updates, 0);
    }

    #[test]
    fn classes_are_told_apart_where_there_are_any() {
        let mut clients = view().clients;
        assert_eq!(ClassCost::of(&clients), []);
        clients[0].class = Some("phone".into());
        clients[2].class = Some("phone".into());
        let phone =
            ClassCost { class: "phone".into(), clients: 2, updates: 2.0, up: 21.0, down: 60.0, busy_seconds: 1.0 };
        assert_eq!(ClassCost::of(&clients), [phone]);
    }
}

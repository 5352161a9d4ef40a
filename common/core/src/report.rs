//! What a run tells about itself: one line a round, and the report at its end.

use crate::ClientId;
use crate::answer::Outcome;
use crate::recipe::Width;
use dunlin_codec::StageBytes;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Payload bytes of both directions and what they would have cost as f32.
///
/// Payload is every frame with its header and checksum, each transfer counted, summed over clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bytes {
    /// Clients to server: update frames.
    pub up: u64,
    /// Server to clients: packets, merged deltas and snapshots.
    pub down: u64,
    /// The same uploads as f32.
    pub up_dense: u64,
    /// The same downloads, each a whole model, as f32.
    pub down_dense: u64,
}

impl std::ops::AddAssign for Bytes {
    fn add_assign(&mut self, other: Self) {
        self.up += other.up;
        self.down += other.down;
        self.up_dense += other.up_dense;
        self.down_dense += other.down_dense;
    }
}

/// Why the members of a round were chosen, and nobody else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Choice {
    /// More clients were eligible than a round asks, so its members were drawn, each client with the same chance.
    Random,
    /// No more clients were eligible than a round asks, so all of them were asked.
    AllEligible,
}

impl Choice {
    /// Why so many of those eligible were chosen. Both numbers are durable with the round, so a restart tells the same.
    #[must_use]
    pub const fn of(chosen: u32, eligible: u32) -> Self {
        if chosen < eligible { Self::Random } else { Self::AllEligible }
    }

    /// The name in status replies and summaries.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::AllEligible => "all-eligible",
        }
    }

    /// The choice of a name, if it is known.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        [Self::Random, Self::AllEligible].into_iter().find(|choice| choice.label() == label)
    }
}

/// An evaluation by clients on their own data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FederatedEvaluation {
    /// Clients that reported.
    pub clients: u32,
    /// Examples looked at, over all of them.
    pub examples: u64,
    /// Share predicted right.
    pub accuracy: f64,
    /// Mean loss of an example.
    #[serde(deserialize_with = "nan_for_null")]
    pub loss: f64,
}

/// The last evaluation by clients of a run, and the round after which it was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastFederated {
    /// The round.
    pub round: u64,
    /// What they found.
    pub result: FederatedEvaluation,
}

/// A distillation at the end of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distilled {
    /// Models asked.
    pub teachers: u32,
    /// Examples on which they were asked.
    pub examples: u64,
    /// Mean loss of an answer in the last pass, in nats.
    pub loss: f64,
    /// Share of the answers in which the mean of the models agreed with the teachers.
    pub before: f64,
    /// The same of what it has become.
    pub agreement: f64,
}

/// How good the model of one size of client is: the part of the global model that such a client has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SizeEvaluation {
    /// Its width.
    pub width: Width,
    /// Its parameters.
    pub params: u64,
    /// Share of the server's test set predicted right.
    pub accuracy: f64,
    /// Mean loss on the server's test set.
    #[serde(deserialize_with = "nan_for_null")]
    pub loss: f64,
}

/// One round, as a line of `rounds.jsonl`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoundSummary {
    /// Number of the round, from 1.
    pub round: u64,
    /// Whether its updates made a new model; otherwise it was abandoned, or cut short.
    pub published: bool,
    /// Whether it ended because the run was stopped, however many updates it had.
    #[serde(skip_serializing_if = "is_false")]
    pub cut_short: bool,
    /// The model version after the round.
    pub version: u64,
    /// Clients among which the cohort was chosen.
    pub eligible: u32,
    /// Clients asked.
    pub chosen: u32,
    /// Why these; absent in summaries from before it was told.
    pub choice: Option<Choice>,
    /// Updates after which the round was over; fewer than clients asked where the recipe has over-selection, 0 in
    /// summaries from before it was told.
    pub needed: u32,
    /// Clients whose update was accepted.
    pub clients: u32,
    /// Clients that were lost: no progress, none before the deadline, or an update that they declined to send.
    pub lost: u32,
    /// Messages refused until it closed, since the round before it did.
    pub rejected: u32,
    /// The same by reason.
    pub rejects: BTreeMap<String, u32>,
    /// Training examples behind the accepted updates.
    pub examples: u64,
    /// Mean of the clients' training losses, weighted by examples.
    #[serde(deserialize_with = "nan_for_null")]
    pub train_loss: f64,
    /// Share of the server's test set predicted right, where this round was evaluated.
    pub accuracy: Option<f64>,
    /// Mean loss on the server's test set, where this round was evaluated.
    pub loss: Option<f64>,
    /// The same for each size of client, largest first, where the recipe has several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<SizeEvaluation>,
    /// Evaluation on clients' data, where this round had one.
    pub federated: Option<FederatedEvaluation>,
    /// Payload bytes of the round.
    pub bytes: Bytes,
    /// Uplink bytes after sparsifying: a 32-bit index and an f32 for each coordinate sent.
    pub sparse: u64,
    /// Uplink bytes after quantizing, before entropy coding.
    pub quantized: u64,
    /// Uplink bytes as sent; equal to `bytes.up` unless uploads were repeated.
    pub coded: u64,
    /// Downlink bytes by stage: what the round's downloads would have cost without the later ones.
    pub downlink: StageBytes,
    /// Size of the packet that leads to the new version.
    pub packet: u64,
    /// Parameters that are left of the model after the round, where the recipe prunes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<u64>,
    /// The distillation that its model has taken up, where the recipe has one: at its end, or beside the round of the one
    /// before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distilled: Option<Distilled>,
    /// Real time from opening to publication, in seconds.
    pub seconds: f64,
    /// Simulated time from opening to publication, in seconds.
    pub simulated_seconds: Option<f64>,
    /// Digest of the broadcast model after the round.
    pub model_digest: String,
}

impl RoundSummary {
    /// Takes the uplink stages of the accepted updates.
    pub fn set_stages(&mut self, stages: StageBytes) {
        self.sparse = stages.sparse;
        self.quantized = stages.quantized;
        self.coded = stages.coded;
    }
}

/// What a run cost one client, as a line of `clients.jsonl`. Bytes are counted as in [`Bytes`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientSummary {
    /// Its name.
    pub client: ClientId,
    /// The class of its link, where the recipe's network has classes.
    pub class: Option<String>,
    /// How much of the model it has.
    #[serde(default, skip_serializing_if = "Width::is_whole")]
    pub width: Width,
    /// Training examples that it has.
    pub examples: u32,
    /// Its updates that were accepted.
    pub updates: u64,
    /// Update frames that it sent, whether or not they counted.
    pub up: u64,
    /// Packets, merged deltas and snapshots that it was sent.
    pub down: u64,
    /// Simulated time of its transfers and computing, in seconds; what was broken off counts whole.
    pub busy_seconds: f64,
}

/// A target accuracy and when it was reached.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// The accuracy asked for.
    pub accuracy: f64,
    /// First round that reached it; absent if none did.
    pub round: Option<u64>,
}

/// The end of a run, as `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The recipe's name.
    pub name: String,
    /// How the run ended.
    pub outcome: Outcome,
    /// Rounds run, abandoned ones included.
    pub rounds: u64,
    /// Rounds abandoned.
    pub abandoned: u64,
    /// Whether the last round was cut short by who stopped the run; it is one of the rounds, but not of those abandoned.
    #[serde(default, skip_serializing_if = "is_false")]
    pub cut_short: bool,
    /// Accuracy of the final model on the server's test set.
    pub accuracy: f64,
    /// Mean loss of the final model on the server's test set.
    #[serde(deserialize_with = "nan_for_null")]
    pub loss: f64,
    /// The same for each size of client, largest first, where the recipe has several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<SizeEvaluation>,
    /// The last evaluation on clients' own data, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub federated: Option<LastFederated>,
    /// The target, where the recipe has one.
    pub target: Option<Target>,
    /// Parameters of the model.
    pub params: u64,
    /// Of them not zero in the final model.
    pub nonzero: u64,
    /// Payload bytes of the run.
    pub bytes: Bytes,
    /// Uplink bytes by stage.
    pub uplink: StageBytes,
    /// Downlink bytes by stage.
    pub downlink: StageBytes,
    /// Messages refused, by reason.
    pub rejects: BTreeMap<String, u32>,
    /// Clients that took part.
    pub clients: u32,
    /// Real time, in seconds.
    pub seconds: f64,
    /// Simulated time, in seconds.
    pub simulated_seconds: Option<f64>,
    /// Digest of the final broadcast model.
    pub model_digest: String,
    /// The model that learned from it, where the recipe has one; in `report.json` and not before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student: Option<StudentReport>,
}

/// A model of another architecture that learned from the final one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudentReport {
    /// Its architecture, as in `model.kind`.
    pub kind: String,
    /// Its parameters.
    pub params: u64,
    /// Examples that it learned from.
    pub examples: u64,
    /// Its accuracy on the server's test set, where there is one.
    pub accuracy: Option<f64>,
    /// Share of the examples on which it says what its teacher does.
    pub agreement: f64,
}

impl Report {
    /// Sums the rounds of a run; what only its end knows is given apart.
    #[must_use]
    pub fn from_rounds(
        name: &str,
        outcome: Outcome,
        rounds: &[RoundSummary],
        target_accuracy: f64,
        end: &RunEnd,
    ) -> Self {
        let mut bytes = Bytes::default();
        let (mut uplink, mut downlink) = (StageBytes::default(), StageBytes::default());
        let mut rejects = BTreeMap::new();
        let mut simulated = None;
        for round in rounds {
            bytes += round.bytes;
            uplink.dense += round.bytes.up_dense;
            uplink.sparse += round.sparse;
            uplink.quantized += round.quantized;
            uplink.coded += round.coded;
            downlink += round.downlink;
            for (label, count) in &round.rejects {
                *rejects.entry(label.clone()).or_default() += count;
            }
            if let Some(seconds) = round.simulated_seconds {
                *simulated.get_or_insert(0.0) += seconds;
            }
        }
        // A model that is still to be pruned has reached nothing.
        let kept = rounds.iter().filter_map(|round| round.kept).min();
        let reached = |round: &&RoundSummary| {
            round.kept <= kept && round.accuracy.is_some_and(|accuracy| accuracy >= target_accuracy)
        };
        let target = (target_accuracy > 0.0)
            .then(|| Target { accuracy: target_accuracy, round: rounds.iter().find(reached).map(|round| round.round) });
        Self {
            name: name.into(),
            outcome,
            rounds: rounds.len() as u64,
            abandoned: rounds.iter().filter(|round| !round.published && !round.cut_short).count() as u64,
            cut_short: rounds.iter().any(|round| round.cut_short),
            accuracy: end.accuracy,
            loss: end.loss,
            sizes: end.sizes.clone(),
            federated: rounds
                .iter()
                .rev()
                .find_map(|round| round.federated.map(|result| LastFederated { round: round.round, result })),
            target,
            params: end.params,
            nonzero: end.nonzero,
            bytes,
            uplink,
            downlink,
            rejects,
            student: None,
            clients: end.clients,
            seconds: end.seconds,
            simulated_seconds: simulated,
            model_digest: end.model_digest.clone(),
        }
    }
}

/// What [`Report::from_rounds`] cannot read from the rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunEnd {
    /// Accuracy of the final model.
    pub accuracy: f64,
    /// Mean loss of the final model.
    pub loss: f64,
    /// The same for each size of client, where there are several.
    pub sizes: Vec<SizeEvaluation>,
    /// Parameters of the model.
    pub params: u64,
    /// Of them not zero.
    pub nonzero: u64,
    /// Clients that took part.
    pub clients: u32,
    /// Real time of the run, in seconds.
    pub seconds: f64,
    /// Digest of the final broadcast model.
    pub model_digest: String,
}

/// Writes what a program tells a script: one line of JSON. A reader that has gone away is no reason to end a run or a
/// client, so what cannot be written is not.
///
/// # Panics
/// When the value cannot be written as JSON, as those of this module can.
pub fn write_line(mut to: impl std::io::Write, value: &impl Serialize) {
    let mut line = serde_json::to_vec(value).expect("what is told holds only numbers, strings and lists");
    line.push(b'\n');
    // See above.
    let _ = to.write_all(&line).and_then(|()| to.flush());
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// JSON has no NaN: the loss of a model that diverged was written as null.
fn nan_for_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_from_before_choices_were_told_is_read_and_a_choice_has_one_name() {
        let old: RoundSummary = serde_json::from_str(r#"{"round": 3, "eligible": 9, "chosen": 4}"#).unwrap();
        assert_eq!(old, RoundSummary { round: 3, eligible: 9, chosen: 4, ..Default::default() });
        for choice in [Choice::of(4, 9), Choice::of(9, 9)] {
            assert_eq!(Choice::from_label(choice.label()), Some(choice));
            assert_eq!(serde_json::to_value(choice).unwrap(), choice.label());
        }
        assert_eq!(Choice::from_label("by lot"), None);
    }

    #[test]
    fn a_value_is_a_line_of_json_and_a_reader_that_has_gone_away_ends_nothing() {
        let mut lines = Vec::new();
        for choice in [Choice::Random, Choice::AllEligible] {
            write_line(&mut lines, &choice);
        }
        assert_eq!(String::from_utf8(lines).unwrap(), "\"random\"\n\"all-eligible\"\n");
        write_line(&mut [0_u8; 3][..], &Choice::Random);
    }

    #[test]
    fn a_loss_that_is_no_number_comes_back_from_json() {
        let round = RoundSummary { round: 3, train_loss: f64::NAN, loss: Some(f64::INFINITY), ..Default::default() };
        let read: RoundSummary = serde_json::from_str(&serde_json::to_string(&round).unwrap()).unwrap();
        assert!(read.train_loss.is_nan());
        assert_eq!(RoundSummary { train_loss: 0.0, ..read }, RoundSummary { train_loss: 0.0, loss: None, ..round });

        let report =
            Report::from_rounds("none", Outcome::GaveUp, &[], 0.0, &RunEnd { loss: f64::NAN, ..Default::default() });
        let read: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert!(read.loss.is_nan());
        assert_eq!(Report { loss: 0.0, ..read }, Report { loss: 0.0, ..report });
    }
}

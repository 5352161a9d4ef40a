//! A run's report as a table.

use super::output::{self, bytes, count, curve, factor, percent, seconds};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{Cell, CellAlignment, Table};
use dunlin::core::report::LastFederated;
use dunlin::{Report, RoundSummary};

/// Prints the report of a run and, where its rounds are at hand, the curve of their accuracy.
pub(crate) fn print(report: &Report, rounds: &[RoundSummary]) {
    let state = (report.outcome.label().replace('_', " "), report.outcome.to_string());
    print_as(&state, report, rounds);
}

/// [`print`] with a word and a sentence for how the run stands, which may have not ended.
pub(super) fn print_as(state: &(String, String), report: &Report, rounds: &[RoundSummary]) {
    output::line(table(state, report));
    if let Some(curve) = accuracy_curve(rounds) {
        output::line(curve);
    }
    output::line(format_args!("model digest  {}", report.model_digest));
}

/// A table of three columns: what, how much, and a remark.
pub(crate) fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table
}

fn table((state, sentence): &(String, String), report: &Report) -> Table {
    let mut table = plain_table();
    let mut row = |what: &str, value: String, remark: String| {
        table.add_row([Cell::new(what), Cell::new(value).set_alignment(CellAlignment::Right), Cell::new(remark)]);
    };
    let target = report.target.map_or_else(String::new, |target| match target.round {
        Some(round) => format!("target {} reached in round {round}", percent(target.accuracy)),
        None => format!("target {} not reached", percent(target.accuracy)),
    });
    row(&report.name, state.clone(), sentence.clone());
    if report.accuracy == 0.0 && report.loss == 0.0 {
        row("accuracy", "–".into(), "no test set".into());
    } else {
        row("accuracy", percent(report.accuracy), target);
        row("loss", format!("{:.4}", report.loss), String::new());
    }
    if let Some(student) = &report.student {
        let (params, agrees) = (count(student.params), percent(student.agreement));
        let about = format!("a {} of {params} parameters, which agrees in {agrees}", student.kind);
        row("student", student.accuracy.map_or_else(|| "–".into(), percent), about);
    }
    if let Some(LastFederated { round, result }) = report.federated {
        let remark = format!(
            "{} clients, {} examples, after round {round}",
            count(result.clients.into()),
            count(result.examples)
        );
        row("  on clients' own data", percent(result.accuracy), remark);
    }
    let mut rounds = format!("{} clients took part", report.clients);
    if report.abandoned > 0 {
        rounds += &format!(", {} abandoned", report.abandoned);
    }
    if report.cut_short {
        rounds += ", the last one cut short by the stop";
    }
    for size in &report.sizes {
        let what = format!("  width {}", size.width);
        row(&what, percent(size.accuracy), format!("loss {:.4}, {} parameters", size.loss, count(size.params)));
    }
    row("rounds", count(report.rounds), rounds);
    let zero = report.params - report.nonzero;
    let zero = if zero > 0 { format!("{} of them zero", count(zero)) } else { String::new() };
    row("parameters", count(report.params), zero);

    for (direction, link) in [("up", &report.uplink), ("down", &report.downlink)] {
        row(&format!("{direction}, dense f32"), bytes(link.dense), String::new());
        for (stage, size) in [("sparse", link.sparse), ("quantized", link.quantized), ("coded", link.coded)] {
            row(&format!("  → {stage}"), bytes(size), format!("{} smaller", factor(link.dense, size)));
        }
        if direction == "up" && report.bytes.up != link.coded {
            row("  sent", bytes(report.bytes.up), "repeated and refused uploads included".into());
        }
    }
    let (dense, sent) = (report.bytes.up_dense + report.bytes.down_dense, report.bytes.up + report.bytes.down);
    row("both ways", bytes(sent), format!("instead of {}: {} smaller", bytes(dense), factor(dense, sent)));

    let simulated = report.simulated_seconds.filter(|&simulated| simulated > 0.0);
    let simulated = simulated.map_or_else(String::new, |simulated| format!("{} of simulated time", seconds(simulated)));
    row("time", seconds(report.seconds), simulated);
    let refused: u32 = report.rejects.values().sum();
    if refused > 0 {
        let reasons = report.rejects.iter().map(|(reason, count)| format!("{count} {}", reason.replace('_', " ")));
        row("refused", count(refused.into()), reasons.collect::<Vec<_>>().join(", "));
    }
    table
}

/// The accuracy over the rounds in which it was measured, in one line.
fn accuracy_curve(rounds: &[RoundSummary]) -> Option<String> {
    let points: Vec<_> = rounds.iter().filter_map(|round| Some((round.round, round.accuracy?))).collect();
    let (&(first, start), &(last, end)) = (points.first()?, points.last()?);
    if points.len() < 2 {
        return None;
    }
    let values: Vec<_> = points.iter().map(|point| point.1).collect();
    let (low, high) = values.iter().fold((1.0_f64, 0.0_f64), |(low, high), &value| (low.min(value), high.max(value)));
    let curve = curve(&values, low, high, CURVE_WIDTH);
    Some(format!("accuracy  {curve}  {} in round {first}, {} in round {last}", percent(start), percent(end)))
}

/// Most characters of the curve.
const CURVE_WIDTH: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_has_the_rounds_that_were_evaluated() {
        let round = |round, accuracy| RoundSummary { round, accuracy, ..RoundSummary::default() };
        assert_eq!(accuracy_curve(&[round(1, Some(0.5)), round(2, None)]), None);
        assert_eq!(
            accuracy_curve(&[round(1, None), round(2, Some(0.1)), round(3, Some(0.9))]).unwrap(),
            "accuracy  ▁█  10.00 % in round 2, 90.00 % in round 3",
        );
    }
}

//! Bytes: round by round, and what each stage of the codec makes of them.

use super::smaller;
use crate::commands::output::bytes;
use crate::commands::report::page::Section;
use crate::commands::report::page::plot::{Axes, Colour, Row, Series, Unit, lines, magnitudes};
use crate::commands::report::page::scale::LogScale;
use crate::commands::report::view::View;
use dunlin::RoundSummary;
use dunlin::codec::StageBytes;
use maud::html;

pub(super) fn section(view: &View) -> Option<Section> {
    let report = &view.report;
    let series = |name, colour, value: fn(&RoundSummary) -> u64| {
        let points = view.rounds.iter().map(|round| (round.round as f64, value(round) as f64));
        Series { name, colour, points: points.collect() }
    };
    let by_round =
        [series("up", Colour::First, |round| round.bytes.up), series("down", Colour::Second, |round| round.bytes.down)];
    let axes = Axes { x: ("round", Unit::Count), y: Unit::Bytes, from_zero: true };
    let by_round = lines("bytes of a round", &axes, &by_round)?;
    let scale = LogScale::around([report.uplink, report.downlink].into_iter().flat_map(sizes).map(|size| size as f64));
    let (up, down) = (rows(report.uplink, Colour::First), rows(report.downlink, Colour::Second));
    let body = html! {
        div.plots {
            (by_round)
            div.stack {
                (magnitudes("up, by stage", &scale, &up))
                (magnitudes("down, by stage", &scale, &down))
            }
        }
        p.note {
            "Dense is every transfer as f32; sparse is an index and an f32 for each coordinate that was sent; quantized is "
            "before entropy coding; coded is what travelled, headers and checksums included."
            @if report.bytes.up != report.uplink.coded {
                " Uploads that were repeated or refused make that " (bytes(report.bytes.up)) " up."
            }
        }
    };
    Some(Section { id: "bytes", title: "Bytes", body })
}

fn rows(link: StageBytes, colour: Colour) -> Vec<Row> {
    let names = ["dense f32", "sparse", "quantized", "coded"];
    let row = |(name, value): (&str, u64)| Row { name: name.into(), colour, value, remark: smaller(link.dense, value) };
    names.into_iter().zip(sizes(link)).map(row).collect()
}

const fn sizes(link: StageBytes) -> [u64; 4] {
    [link.dense, link.sparse, link.quantized, link.coded]
}

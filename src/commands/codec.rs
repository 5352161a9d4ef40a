//! `dunlin codec`: what every codec makes of one vector, side by side.

mod measure;
mod vector;

use super::output::{self, bytes, count, factor};
use super::summary::plain_table;
use super::{Done, Failure};
use clap::{ArgGroup, Args};
use comfy_table::{Cell, CellAlignment};
use dunlin::codec::{Bias, Codec, CommonGrid, EntropyCoder, Fit, Quantizer, Rate};
use measure::Figures;
use serde::Serialize;
use std::path::PathBuf;
use std::process::ExitCode;
use vector::Vector;

/// Compare codecs on a vector: bytes by stage, distance to the entropy, error, speed
#[derive(Args)]
#[command(group = ArgGroup::new("vector").required(true))]
pub(crate) struct CodecArgs {
    /// The vector: all floating-point tensors of this file, such as the difference of two models
    #[arg(value_name = "FILE.safetensors", group = "vector")]
    file: Option<PathBuf>,

    /// Take random numbers in the shape of a CNN with 1,663,370 parameters, some layers and rows larger than others
    #[arg(long, group = "vector")]
    synthetic: bool,

    /// Share of the coordinates that the codecs with a sparsifier send
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    density: f64,

    /// Times that each is measured; the fastest counts
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,

    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

/// All that is printed.
#[derive(Serialize)]
struct Comparison {
    source: String,
    coordinates: usize,
    tensors: usize,
    density: f64,
    codecs: Vec<Figures>,
}

pub(crate) fn run(args: &CodecArgs) -> Done {
    let (vector, source) = match &args.file {
        Some(path) => {
            let vector = Vector::read(path).map_err(|why| Failure::usage(format!("{}: {why}", path.display())))?;
            (vector, path.display().to_string())
        }
        None => (Vector::synthetic(), "synthetic".to_owned()),
    };
    let codecs = codecs(args.density, &vector.values)
        .into_iter()
        .map(|(name, codec)| measure::measure(name, &codec, &vector, args.repeat))
        .collect::<Result<Vec<_>, _>>()
        .map_err(Failure::other)?;
    let (coordinates, tensors) = (vector.values.len(), vector.segments.count());
    let comparison = Comparison { source, coordinates, tensors, density: args.density, codecs };
    if args.json {
        output::json(&comparison);
    } else {
        print(&comparison);
    }
    Ok(ExitCode::SUCCESS)
}

/// What is compared, with names.
fn codecs(density: f64, values: &[f32]) -> Vec<(String, Codec)> {
    let auto = EntropyCoder::Auto;
    let mut codecs = Vec::new();
    for (name, quantizer) in [("f32", Quantizer::F32), ("f16", Quantizer::F16), ("int8", Quantizer::Int8)] {
        codecs.push((name.to_owned(), Codec { density: 1.0, quantizer, coder: auto }));
        codecs.push((format!("top-k {name}"), Codec { density, quantizer, coder: auto }));
    }
    for (name, coder) in [
        ("raw", EntropyCoder::Raw),
        ("rice", EntropyCoder::Rice),
        ("enumerative", EntropyCoder::Enumerative),
        ("adaptive", EntropyCoder::Adaptive),
        ("auto", auto),
    ] {
        codecs.push((format!("top-k ternary, {name}"), Codec { density, quantizer: Quantizer::Ternary, coder }));
    }
    for bits in 2..=Quantizer::CODEBOOK_MAX_BITS {
        codecs.push((
            format!("top-k codebook {bits} b"),
            Codec { density, quantizer: Quantizer::Codebook { bits }, coder: auto },
        ));
    }
    let mut whole = |name: String, quantizer| codecs.push((name, Codec { density: 1.0, quantizer, coder: auto }));
    for (word, fit) in [("", Fit::LeastError), (", unbiased", Fit::Unbiased)] {
        for bits in [0.25, 0.5, 1.0, 2.0, 4.0] {
            whole(format!("rotated {bits} b{word}"), Quantizer::Rotated { rate: Rate::nearest(bits), fit });
        }
        for bits in [1, 2, 4] {
            whole(format!("EDEN {bits} b{word}"), Quantizer::Eden { bits, fit });
        }
    }
    for (bits, levels) in [(2, 1), (4, 7), (8, 127)] {
        whole(format!("QSGD {bits} b"), Quantizer::Qsgd { levels });
    }
    whole("TernGrad".to_owned(), Quantizer::Terngrad);
    whole("sign".to_owned(), Quantizer::Sign);
    whole("low rank 4".to_owned(), Quantizer::LowRank { rank: 4 });
    let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
    let rms = (squares / values.len().max(1) as f64).sqrt();
    for bits in [4, 8] {
        // Of a vector of zeros there is no grid.
        if let Ok(grid) = CommonGrid::new(bits, CLIP * rms) {
            whole(format!("common {bits} b"), Quantizer::Common { grid, fit: Fit::LeastError });
        }
    }
    codecs
}

fn print(comparison: &Comparison) {
    let Comparison { source, coordinates, tensors, density, codecs } = comparison;
    output::line(format_args!(
        "{source}: {} coordinates in {tensors} tensors; top-k sends {}",
        count(*coordinates as u64),
        output::percent(*density),
    ));
    let mut table = plain_table();
    table.set_header([
        "",
        "dense",
        "sparse",
        "quantized",
        "coded",
        "smaller",
        "b/coord.",
        "b/non-zero",
        "× limit",
        "error",
        "",
        "encode",
        "decode",
    ]);
    for figures in codecs {
        let number = |value: Option<f64>, digits| value.map_or_else(String::new, |value| format!("{value:.digits$}"));
        let speed = |seconds: f64| format!("{:.0} M/s", *coordinates as f64 / seconds / 1e6);
        let stages = &figures.stages;
        let cells = [
            bytes(stages.dense),
            bytes(stages.sparse),
            bytes(stages.quantized),
            bytes(stages.coded),
            factor(stages.dense, stages.coded),
            number(Some(figures.bits_per_coordinate), 3),
            number(figures.bits_per_nonzero, 3),
            number(figures.of_limit, 3),
            number(Some(figures.error), 4),
            figures.bias.to_owned(),
            speed(figures.encode_seconds),
            speed(figures.decode_seconds),
        ];
        let right = |cell| Cell::new(cell).set_alignment(CellAlignment::Right);
        table.add_row(std::iter::once(Cell::new(&figures.codec)).chain(cells.into_iter().map(right)));
    }
    output::line(table);
    output::line(
        "error: squared, over the vector's square. × limit: coded bits over the entropy of positions at the same density \
         and of each tensor's values; of vectors that are rotated, rounded at random or factored, over the least for a \
         normal variable at the same error. Below 1 where tensors and rows differ. Encoding includes what is left for feedback where the codec needs it.",
    );
}

/// Bound of the common grid, in root mean squares.
const CLIP: f64 = 8.0;

fn word(bias: Bias) -> &'static str {
    match bias {
        Bias::Exact => "exact",
        Bias::Unbiased => "unbiased",
        Bias::Biased => "biased",
    }
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share <= 1.0 => Ok(share),
        _ => Err("must be a number above 0 and at most 1".to_owned()),
    }
}

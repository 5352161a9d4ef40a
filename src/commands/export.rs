//! `dunlin export`: a model as safetensors or ONNX, for other programs, or as a small file.

use super::compress::StoredArgs;
use super::model::{ACTIVATION, ArchitectureArgs, ModelFile, load, measured};
use super::output::{self, bytes};
use super::stored::{OpenRun, StoredRun};
use super::{Done, Failure, of_data};
use clap::{ArgGroup, Args, ValueEnum};
use dunlin::core::recipe::Width;
use dunlin::nn::small::{Compress, Slice, Weights};
use dunlin::nn::{export, onnx};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write a model for other programs, as safetensors or ONNX, or as a small file
///
/// From a data directory it is the newest published model of the run, whether the run has ended or not.
#[derive(Args)]
#[command(group = ArgGroup::new("source").required(true))]
pub(crate) struct ExportArgs {
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "safetensors")]
    to: Format,

    /// Take the model from a file: safetensors, or one of `dunlin compress`
    #[arg(long, value_name = "FILE", group = "source", conflicts_with_all = ["run", "data_dir", "run_id"])]
    model: Option<PathBuf>,

    /// Take the model from the results of a run, such as the directory given to simulate --out
    #[arg(long, value_name = "DIR", conflicts_with_all = ["data_dir", "run_id"], group = "source")]
    run: Option<PathBuf>,

    /// Take the model from a server's data directory, which no server may be using
    #[arg(long, value_name = "DIR", group = "source")]
    data_dir: Option<PathBuf>,

    /// The run in the data directory [default: the newest]
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,

    #[command(flatten)]
    stored: StoredArgs,

    #[command(flatten)]
    architecture: ArchitectureArgs,

    /// Take the part of the model that clients of this width have, such as 0.25; for chains of layers
    #[arg(long, value_name = "WIDTH", default_value_t = Width::WHOLE, hide_default_value = true)]
    width: Width,

    /// For onnx-int8: the data set on whose training part the ranges of activations are measured, as in a recipe's
    /// data.source; not needed for a file that tells them
    #[arg(long, value_name = "SPEC")]
    data: Option<String>,
}

/// What a model is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One f32 tensor for each of the model's
    Safetensors,
    /// ONNX with f32 weights
    Onnx,
    /// ONNX with 8-bit weights and activations, in QDQ form
    OnnxInt8,
    /// The file of `dunlin compress`, with --values, --bits and --exact-codebook as there; nothing is pruned
    Container,
}

pub(crate) fn run(args: &ExportArgs) -> Done {
    let file = match (&args.model, &args.run, &args.data_dir) {
        (Some(path), ..) => {
            let told = |error: String| Failure::usage(format!("cannot read {}: {error}", path.display()));
            let file = std::fs::read(path).map_err(|error| told(error.to_string()))?;
            ModelFile::from_bytes(&file).map_err(told)?;
            file
        }
        (None, Some(dir), _) => results(dir)?,
        (None, None, Some(dir)) => stored(dir, args.run_id.as_deref())?,
        (None, None, None) => unreachable!("the group of these is required"),
    };
    let file = if args.width.is_whole() { file } else { narrowed(args, &file)? };
    let file = written(args, file)?;
    let path = args.out.display();
    std::fs::write(&args.out, &file).map_err(|error| Failure::other(format!("cannot write {path}: {error}")))?;
    output::note(&format!("wrote {path}, {}", bytes(file.len() as u64)));
    Ok(ExitCode::SUCCESS)
}

/// The part of a model that clients of the width asked for have.
fn narrowed(args: &ExportArgs, file: &[u8]) -> Result<Vec<u8>, Failure> {
    let file = ModelFile::from_bytes(file).map_err(Failure::usage)?;
    let model = file.model(&args.architecture, None)?;
    let no_part =
        || Failure::usage(format!("--width {}: a {} has no parts for smaller clients", args.width, model.kind()));
    let slice = Slice::new(model.layout(), args.width).map_err(|_| no_part())?.ok_or_else(no_part)?;
    let part = model.shrunk(slice.mask()).map_err(of_data)?.ok_or_else(no_part)?;
    let mut params = file.params(&model)?;
    slice.mask().gather(&mut params);
    let mut about = file.about;
    // They are of the whole model.
    about.retain(|key, _| key != "model_digest" && !key.starts_with(ACTIVATION));
    about.extend(part.about());
    Ok(export::safetensors(part.layout(), &params, &about)?)
}

/// The model in the format that was asked for.
fn written(args: &ExportArgs, file: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if args.to == Format::Safetensors {
        return match args.model {
            Some(_) => Ok(Weights::from_bytes(&file)?.to_safetensors()?),
            None => Ok(file),
        };
    }
    if args.to == Format::Container {
        let small = Compress { keep: None, per_layer: false, stored: args.stored.stored() };
        return Ok(small.run(&Weights::from_bytes(&file)?)?.container.to_bytes()?);
    }
    let file = ModelFile::from_bytes(&file).map_err(Failure::usage)?;
    let split = args.data.as_deref().map(load).transpose()?;
    // A part of a model tells what it is.
    let told = ArchitectureArgs::default();
    let architecture = if args.width.is_whole() { &args.architecture } else { &told };
    let model = file.model(architecture, split.as_ref().map(|split| split.train.input()))?;
    // For the sentence that says what does not fit.
    file.params(&model)?;
    let ranges = match (args.to, split) {
        (Format::OnnxInt8, Some(split)) => Some(measured(&model, &file.tensors, &split)?),
        (Format::OnnxInt8, None) => {
            let ranges = file.ranges();
            if ranges.is_empty() {
                return Err(Failure::usage("the file does not tell the ranges of activations; say --data SPEC"));
            }
            Some(ranges)
        }
        _ => None,
    };
    onnx::onnx(&model, &file.tensors, ranges.as_ref(), &file.about).map_err(of_data)
}

/// The model that a run's results hold.
fn results(dir: &Path) -> Result<Vec<u8>, Failure> {
    let path = dir.join("model.safetensors");
    std::fs::read(&path).map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

/// The newest published model of a run in a server's store.
fn stored(dir: &Path, id: Option<&str>) -> Result<Vec<u8>, Failure> {
    let stored = StoredRun::find(dir, id)?;
    let (run, name) = (stored.row.id, stored.row.name.clone());
    let OpenRun { engine, model, params, .. } = &stored.open()?;
    let version = engine.broadcast().version();
    let mut about = model.about();
    about.extend([
        ("format".to_owned(), "dunlin".to_owned()),
        ("name".to_owned(), name),
        ("run".to_owned(), run.to_string()),
        ("version".to_owned(), version.0.to_string()),
        ("model_digest".to_owned(), engine.broadcast().digest().to_string()),
    ]);
    output::note(&format!("run {run}, model version {}", version.0));
    Ok(export::safetensors(model.layout(), params, &about)?)
}

//! `dunlin export`: a model as safetensors or ONNX, for other programs.

use super::model::{ArchitectureArgs, ModelFile, load, measured};
use super::output::{self, bytes};
use super::stored::{OpenRun, StoredRun};
use super::{Done, Failure, of_data};
use clap::{Args, ValueEnum};
use dunlin::nn::small::Weights;
use dunlin::nn::{export, onnx};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write a model for other programs, as safetensors or ONNX
///
/// From a data directory it is the newest published model of the run, whether the run has ended or not.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// What to write
    #[arg(long, value_name = "FORMAT", default_value = "safetensors")]
    to: Format,

    /// Take the model from a file: safetensors, or one of `dunlin compress`
    #[arg(long, value_name = "FILE", conflicts_with_all = ["run", "data_dir", "run_id"])]
    model: Option<PathBuf>,

    /// Take the model from the results of a run, such as the directory given to simulate --out
    #[arg(long, value_name = "DIR", conflicts_with_all = ["data_dir", "run_id"], required_unless_present_any = ["data_dir", "model"])]
    run: Option<PathBuf>,

    /// Take the model from a server's data directory, which no server may be using
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The run in the data directory [default: the newest]
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,

    #[command(flatten)]
    architecture: ArchitectureArgs,

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
}

pub(crate) fn run(args: &ExportArgs) -> Done {
    let file = match (&args.model, &args.run, &args.data_dir) {
        (Some(path), ..) => {
            std::fs::read(path).map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?
        }
        (None, Some(dir), _) => results(dir)?,
        (None, None, Some(dir)) => stored(dir, args.run_id.as_deref())?,
        (None, None, None) => return Err(Failure::usage("one of --model, --run and --data-dir is needed")),
    };
    let file = written(args, file)?;
    let path = args.out.display();
    std::fs::write(&args.out, &file).map_err(|error| Failure::other(format!("cannot write {path}: {error}")))?;
    output::note(&format!("wrote {path}, {}", bytes(file.len() as u64)));
    Ok(ExitCode::SUCCESS)
}

/// The model in the format that was asked for.
fn written(args: &ExportArgs, file: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if args.to == Format::Safetensors {
        return match args.model {
            Some(_) => Ok(Weights::from_bytes(&file)?.to_safetensors()?),
            None => Ok(file),
        };
    }
    let file = ModelFile::from_bytes(&file).map_err(Failure::usage)?;
    let split = args.data.as_deref().map(load).transpose()?;
    let model = file.model(&args.architecture, split.as_ref().map(|split| split.train.input()))?;
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

//! From what a source delivers to the files that are stored, the same ones from every source.

use super::Recipe;
use crate::data::{idx, png};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// Makes a recipe's files in the second folder from what was delivered into the first.
pub(super) type Convert = fn(&Recipe, &Path, &Path) -> Result<(), String>;

/// Largest file that is stored: CIFAR-10's training images are 154 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// Copies the files, decompressing those that are there with `.gz`; they may lie in folders of the first.
pub(super) fn copy(recipe: &Recipe, from: &Path, to: &Path) -> Result<(), String> {
    for (file, _) in recipe.files {
        copy_without(b"", file, from, to)?;
    }
    Ok(())
}

/// The heading that one of the sources of the scored texts puts before them.
const SCORES_HEADING: &[u8] = b"id\tsentiment\ttext\r\n";

/// Copies the files without the heading.
pub(super) fn copy_scores(recipe: &Recipe, from: &Path, to: &Path) -> Result<(), String> {
    for (file, _) in recipe.files {
        copy_without(SCORES_HEADING, file, from, to)?;
    }
    Ok(())
}

fn copy_without(heading: &[u8], file: &str, from: &Path, to: &Path) -> Result<(), String> {
    let path = locate(from, file).ok_or_else(|| format!("it holds no {file}"))?;
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let source = File::open(&path).map_err(failed)?;
    let compressed = path.extension().is_some_and(|extension| extension == "gz");
    let mut reader: Box<dyn Read> = if compressed { Box::new(MultiGzDecoder::new(source)) } else { Box::new(source) };
    let mut start = Vec::new();
    reader.by_ref().take(heading.len() as u64).read_to_end(&mut start).map_err(failed)?;
    let start = if start == heading { &[] } else { start.as_slice() };
    let mut target = File::create(to.join(file)).map_err(failed)?;
    // What is cut off here fails its check afterwards.
    std::io::copy(&mut start.chain(reader).take(MAX_FILE_BYTES), &mut target).map_err(failed)?;
    Ok(())
}

/// A file of this name, plain or with `.gz`, in the folder or one below it.
fn locate(folder: &Path, file: &str) -> Option<PathBuf> {
    let below = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let folders = std::iter::once(folder.to_owned()).chain(below.filter(|path| path.is_dir()));
    folders.flat_map(|folder| [folder.join(file), folder.join(format!("{file}.gz"))]).find(|path| path.is_file())
}

/// CIFAR-10: planes, height and width of an image.
const CIFAR_IMAGE: [u32; 3] = [3, 32, 32];

/// CIFAR-10 from images that are rows of PNG files.
pub(super) fn cifar_from_png(_: &Recipe, from: &Path, to: &Path) -> Result<(), String> {
    let (train, test) = png::read_parts(from).map_err(|error| error.to_string())?;
    let test = test.ok_or("it holds no test images")?;
    write_cifar(to, "train", &[(&train.labels, &train.pixels)])?;
    write_cifar(to, "t10k", &[(&test.labels, &test.pixels)])
}

/// CIFAR-10 from its own binary files: for each image its label and its three planes.
pub(super) fn cifar_from_binary(_: &Recipe, from: &Path, to: &Path) -> Result<(), String> {
    let batches = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"];
    for (part, batches) in [("train", batches.as_slice()), ("t10k", &["test_batch"])] {
        let mut sets = Vec::new();
        for batch in batches {
            let path = from.join(format!("{batch}.bin"));
            let mut records = Vec::new();
            File::open(&path)
                .and_then(|file| file.take(MAX_FILE_BYTES).read_to_end(&mut records))
                .map_err(|error| format!("{}: {error}", path.display()))?;
            let (labels, pixels): (Vec<u8>, Vec<&[u8]>) = records
                .chunks(1 + image_bytes())
                .filter_map(|record| record.split_first())
                .map(|(l, p)| (*l, p))
                .unzip();
            sets.push((labels, pixels.concat()));
        }
        let sets: Vec<(&[u8], &[u8])> = sets.iter().map(|(labels, pixels)| (&labels[..], &pixels[..])).collect();
        write_cifar(to, part, &sets)?;
    }
    Ok(())
}

const fn image_bytes() -> usize {
    (CIFAR_IMAGE[0] * CIFAR_IMAGE[1] * CIFAR_IMAGE[2]) as usize
}

/// Writes labels and images, set after set, as IDX files.
fn write_cifar(to: &Path, part: &str, sets: &[(&[u8], &[u8])]) -> Result<(), String> {
    if sets.iter().any(|(labels, pixels)| labels.len() * image_bytes() != pixels.len()) {
        return Err("an image is cut short".into());
    }
    let count = sets.iter().map(|(labels, _)| labels.len()).sum::<usize>() as u32;
    let [channels, height, width] = CIFAR_IMAGE;
    let pixels = sets.iter().map(|(_, pixels)| *pixels);
    let labels = sets.iter().map(|(labels, _)| *labels);
    write_idx(&to.join(format!("{part}-images-idx4-ubyte")), &[count, channels, height, width], pixels)?;
    write_idx(&to.join(format!("{part}-labels-idx1-ubyte")), &[count], labels)
}

fn write_idx<'a>(path: &Path, extents: &[u32], values: impl Iterator<Item = &'a [u8]>) -> Result<(), String> {
    let write = || -> std::io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        file.write_all(&idx::header(extents))?;
        for values in values {
            file.write_all(values)?;
        }
        file.flush()
    };
    write().map_err(|error| format!("{}: {error}", path.display()))
}

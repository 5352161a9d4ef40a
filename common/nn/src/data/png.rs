//! PNG files in which each row of pixels is one image, with the labels in JSON files beside them.
//!
//! A row of colour pixels is an image of three planes, its pixels in reading order; a row of grey pixels is a grey image,
//! or, three times as long, the three planes of a colour image one after the other. Images are square.

use super::idx;
use super::set::{Dataset, Features};
use crate::Error;
use crate::model::InputShape;
use png::{BitDepth, ColorType, Decoder, Limits};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// The images and labels of a training or test set.
pub(super) struct Part {
    pub(super) channels: usize,
    pub(super) side: usize,
    /// One image after the other, each plane by plane.
    pub(super) pixels: Vec<u8>,
    pub(super) labels: Vec<u8>,
}

/// Names of the files with the labels; a widely copied CIFAR-10 misspells them.
const TRAIN_LABELS: [&str; 2] = ["train_labels.json", "train_lables.json"];
const TEST_LABELS: [&str; 2] = ["test_labels.json", "test_lables.json"];

/// Memory that the decoder itself may take: a few rows.
const MAX_DECODER_BYTES: usize = 64 << 20;
/// Longest file of labels: a hundred million numbers below a hundred.
const MAX_LABEL_BYTES: u64 = 300_000_000;

/// The training set of a folder, and its test set if it has one: the files whose names begin with `test`.
pub(super) fn read_dir(name: &str, dir: &Path) -> Result<(Dataset, Option<Dataset>), Error> {
    let (train, test) = read_parts(dir)?;
    let largest = |part: &Part| part.labels.iter().max().map_or(0, |&label| usize::from(label));
    let classes = largest(&train).max(test.as_ref().map_or(0, largest)) + 1;
    let dataset = |part: Part| {
        let input = InputShape::image(part.channels, part.side, part.side, classes);
        let labels = part.labels.into_iter().map(u32::from).collect();
        let features = Features::Bytes { values: part.pixels, scale: 1.0 / 255.0 };
        Dataset::with_features(name.to_owned(), input, features, labels)
    };
    Ok((dataset(train)?, test.map(dataset).transpose()?))
}

/// The images and labels of a folder, training and test.
pub(super) fn read_parts(dir: &Path) -> Result<(Part, Option<Part>), Error> {
    let entries = std::fs::read_dir(dir).map_err(|error| Error::io(dir, error))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png")))
        .collect();
    files.sort();
    let is_test = |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"test"));
    let (test, train): (Vec<_>, Vec<_>) = files.into_iter().partition(is_test);
    if train.is_empty() {
        return Err(Error::malformed(dir.display(), "no PNG file to train on is there"));
    }
    let train = read_part(dir, &train, &TRAIN_LABELS)?;
    if test.is_empty() {
        return Ok((train, None));
    }
    let test = read_part(dir, &test, &TEST_LABELS)?;
    if (test.channels, test.side) != (train.channels, train.side) {
        let shape = |part: &Part| format!("{}×{}×{}", part.channels, part.side, part.side);
        let problem = format!("test images are {} and training images {}", shape(&test), shape(&train));
        return Err(Error::malformed(dir.display(), problem));
    }
    Ok((train, Some(test)))
}

fn read_part(dir: &Path, files: &[PathBuf], label_names: &[&str]) -> Result<Part, Error> {
    let labels_path = label_names.iter().map(|name| dir.join(name)).find(|path| path.is_file());
    let labels_path = labels_path
        .ok_or_else(|| Error::malformed(dir.display(), format!("{} with the labels is missing", label_names[0])))?;
    let labels = read_labels(&labels_path)?;
    // The first file tells the shape.
    let mut part = Part { channels: 0, side: 0, pixels: Vec::new(), labels };
    for path in files {
        read_file(path, &mut part)?;
    }
    let images = part.pixels.len() / (part.channels * part.side * part.side).max(1);
    if images != part.labels.len() {
        let problem = format!("{} labels do not go with the {images} images of {}", part.labels.len(), dir.display());
        return Err(Error::malformed(labels_path.display(), problem));
    }
    Ok(part)
}

/// Appends the images of one file.
fn read_file(path: &Path, part: &mut Part) -> Result<(), Error> {
    let malformed = |problem: String| Error::malformed(path.display(), problem);
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let limits = Limits { bytes: MAX_DECODER_BYTES };
    let mut reader = Decoder::new_with_limits(BufReader::new(file), limits)
        .read_info()
        .map_err(|error| malformed(format!("it is no PNG file: {error}")))?;
    let info = reader.info();
    let (colour, depth, width, height) = (info.color_type, info.bit_depth, info.width as usize, info.height as usize);
    if depth != BitDepth::Eight || info.interlaced || !matches!(colour, ColorType::Rgb | ColorType::Grayscale) {
        return Err(malformed(format!(
            "{colour:?} of {depth:?} bits; 8 bits of RGB or grey, not interlaced, are read"
        )));
    }
    let (channels, side) = match colour {
        ColorType::Rgb => (3, width.isqrt()),
        _ if width.isqrt().pow(2) == width => (1, width.isqrt()),
        _ => (3, (width / 3).isqrt()),
    };
    let row_bytes = if colour == ColorType::Rgb { 3 * width } else { width };
    if side == 0 || channels * side * side != row_bytes {
        return Err(malformed(format!("a row of {width} {colour:?} pixels is no square image")));
    }
    if part.channels != 0 && (part.channels, part.side) != (channels, side) {
        let before = (part.channels, part.side, part.side);
        return Err(malformed(format!(
            "images are {:?}, those of the files before {before:?}",
            (channels, side, side)
        )));
    }
    (part.channels, part.side) = (channels, side);
    let mut rows = 0;
    while let Some(row) =
        reader.next_row().map_err(|error| malformed(format!("row {rows} of {height} is broken: {error}")))?
    {
        if part.pixels.len() + row_bytes > idx::MAX_VALUES {
            return Err(malformed(format!("all images together are beyond the limit of {} bytes", idx::MAX_VALUES)));
        }
        let pixels = row.data();
        match colour {
            ColorType::Rgb => {
                for channel in 0..3 {
                    part.pixels.extend(pixels.iter().skip(channel).step_by(3));
                }
            }
            _ => part.pixels.extend_from_slice(pixels),
        }
        rows += 1;
    }
    Ok(())
}

/// A JSON list of numbers.
fn read_labels(path: &Path) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(|error| Error::io(path, error))?;
    let labels: Vec<u64> = serde_json::from_reader(BufReader::new(file).take(MAX_LABEL_BYTES))
        .map_err(|error| Error::malformed(path.display(), format!("a list of numbers is wanted: {error}")))?;
    let label = |&label: &u64| u8::try_from(label).map_err(|_| label);
    labels.iter().map(label).collect::<Result<_, _>>().map_err(|wrong| {
        Error::malformed(path.display(), format!("label {wrong} is no label; they are numbers from 0 to 255"))
    })
}

#[cfg(test)]
mod tests;

//! The IDX format of MNIST: big-endian magic `00 00 TYPE RANK`, RANK extents of 32 bits, then the values.

use super::set::{Dataset, Features};
use crate::Error;
use crate::model::InputShape;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// Images, grey or in several planes, and their labels.
const TRAIN: Names =
    Names { images: ["train-images-idx3-ubyte", "train-images-idx4-ubyte"], labels: "train-labels-idx1-ubyte" };
const TEST: Names =
    Names { images: ["t10k-images-idx3-ubyte", "t10k-images-idx4-ubyte"], labels: "t10k-labels-idx1-ubyte" };

/// Most values that an IDX file may hold: a gigabyte of pixels, twenty times MNIST's.
pub(super) const MAX_VALUES: usize = 1 << 30;
/// Most axes of an IDX file: images, channels, rows, columns.
const MAX_RANK: usize = 4;

const TYPE_U8: u8 = 0x08;
const TYPE_I32: u8 = 0x0c;

/// The digits that come with this crate, 1,797 of 8×8 pixels; see `assets/README.md`.
pub(super) fn digits() -> Result<Dataset, Error> {
    let images = read(gzip(include_bytes!("../../assets/digits-images-idx3-ubyte.gz").as_slice()), "digits images")?;
    let labels = read(gzip(include_bytes!("../../assets/digits-labels-idx1-ubyte.gz").as_slice()), "digits labels")?;
    // Each pixel counts the dark ones among the 4×4 of the original scan.
    dataset("digits", images, labels, 1.0 / 16.0, 10)
}

/// The training set of a folder, and its test set if it has one.
pub(super) fn read_dir(name: &str, dir: &Path) -> Result<(Dataset, Option<Dataset>), Error> {
    let train = TRAIN.read(dir)?;
    let test = if TEST.find_images(dir).is_some() { Some(TEST.read(dir)?) } else { None };
    let largest = |pair: &(Idx, Idx)| pair.1.values.iter().max().map_or(0, |&label| usize::from(label));
    let classes = largest(&train).max(test.as_ref().map_or(0, largest)) + 1;
    let train = dataset(name, train.0, train.1, 1.0 / 255.0, classes)?;
    let test = test.map(|test| dataset(name, test.0, test.1, 1.0 / 255.0, classes)).transpose()?;
    if let Some(test) = &test
        && test.input() != train.input()
    {
        let problem = format!("test images are {:?} and training images {:?}", test.input(), train.input());
        return Err(Error::malformed(dir.display(), problem));
    }
    Ok((train, test))
}

/// One column of a gzipped or plain IDX matrix of 32-bit numbers, such as the writers in QMNIST's label files.
pub(super) fn read_column(path: &Path, column: usize) -> Result<Vec<i32>, Error> {
    let file = path.display();
    let Idx { kind, extents, values } = read(open(path)?, &file)?;
    let (TYPE_I32, &[_, columns]) = (kind, extents.as_slice()) else {
        let problem = format!("type {kind:#04x} with extents {extents:?}; a matrix of 32-bit integers is wanted");
        return Err(Error::malformed(file, problem));
    };
    if column >= columns {
        return Err(Error::malformed(file, format!("{columns} columns; column {column} (from 0) is wanted")));
    }
    let (cells, _) = values.as_chunks::<4>();
    Ok(cells.chunks_exact(columns).map(|row| i32::from_be_bytes(row[column])).collect())
}

/// The header of a file of bytes with these extents.
pub(super) fn header(extents: &[u32]) -> Vec<u8> {
    let mut header = vec![0, 0, TYPE_U8, extents.len() as u8];
    header.extend(extents.iter().flat_map(|extent| extent.to_be_bytes()));
    header
}

/// A decoded file; `values` are the bytes after the header.
struct Idx {
    kind: u8,
    extents: Vec<usize>,
    values: Vec<u8>,
}

/// The names of the two files of a set.
struct Names {
    /// With one plane, and with several.
    images: [&'static str; 2],
    labels: &'static str,
}

impl Names {
    fn find_images(&self, dir: &Path) -> Option<PathBuf> {
        self.images.iter().find_map(|name| find(dir, name))
    }

    fn read(&self, dir: &Path) -> Result<(Idx, Idx), Error> {
        let path = |found: Option<PathBuf>, name: &str| {
            found.ok_or_else(|| Error::malformed(dir.display(), format!("neither {name} nor {name}.gz is there")))
        };
        let images = path(self.find_images(dir), self.images[0])?;
        let labels = path(find(dir, self.labels), self.labels)?;
        Ok((read(open(&images)?, images.display())?, read(open(&labels)?, labels.display())?))
    }
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    [dir.join(name), dir.join(format!("{name}.gz"))].into_iter().find(|path| path.is_file())
}

fn dataset(name: &str, images: Idx, labels: Idx, scale: f32, classes: usize) -> Result<Dataset, Error> {
    if images.kind != TYPE_U8 || labels.kind != TYPE_U8 {
        return Err(Error::malformed(name, "images and labels must be unsigned bytes"));
    }
    let (channels, height, width) = match *images.extents {
        [_, height, width] => (1, height, width),
        [_, channels, height, width] => (channels, height, width),
        _ => {
            let problem = format!(
                "images of extents {:?}; [n, height, width] or [n, channels, height, width] is wanted",
                images.extents
            );
            return Err(Error::malformed(name, problem));
        }
    };
    let input = InputShape::image(channels, height, width, classes);
    let labels = labels.values.into_iter().map(u32::from).collect();
    Dataset::with_features(name.into(), input, Features::Bytes { values: images.values, scale }, labels)
}

fn gzip<'a>(reader: impl Read + 'a) -> Box<dyn Read + 'a> {
    Box::new(MultiGzDecoder::new(reader))
}

fn open(path: &Path) -> Result<Box<dyn Read>, Error> {
    let file = BufReader::new(File::open(path).map_err(|error| Error::io(path, error))?);
    Ok(if path.extension().is_some_and(|extension| extension == "gz") { gzip(file) } else { Box::new(file) })
}

/// Reads a whole file. Memory grows with the bytes that are really there, never with what the header claims.
fn read(mut reader: impl Read, file: impl std::fmt::Display) -> Result<Idx, Error> {
    let malformed = |problem: String| Error::malformed(&file, problem);
    let mut word = || {
        let mut word = [0; 4];
        reader
            .read_exact(&mut word)
            .map(|()| word)
            .map_err(|error| malformed(format!("the header ends early: {error}")))
    };
    let [zero_0, zero_1, kind, rank] = word()?;
    let size = match kind {
        TYPE_U8 => 1,
        TYPE_I32 => 4,
        _ => 0,
    };
    if (zero_0, zero_1) != (0, 0) || size == 0 || !(1..=MAX_RANK).contains(&usize::from(rank)) {
        let magic = [zero_0, zero_1, kind, rank];
        return Err(malformed(format!("starts with {magic:02x?}, which is no IDX file of bytes or 32-bit integers")));
    }
    let extents = (0..rank).map(|_| Ok(u32::from_be_bytes(word()?) as usize)).collect::<Result<Vec<_>, Error>>()?;
    let len = extents.iter().try_fold(size, |len: usize, &extent| len.checked_mul(extent));
    let Some(len) = len.filter(|&len| len <= MAX_VALUES) else {
        return Err(malformed(format!("extents {extents:?} are beyond the limit of {MAX_VALUES} bytes")));
    };
    let mut values = Vec::new();
    let read = reader.take(len as u64 + 1).read_to_end(&mut values).map_err(|error| malformed(error.to_string()))?;
    if read != len {
        let found = if read > len { "more".to_owned() } else { read.to_string() };
        return Err(malformed(format!("extents {extents:?} promise {len} bytes and {found} follow")));
    }
    Ok(Idx { kind, extents, values })
}

#[cfg(test)]
mod tests;

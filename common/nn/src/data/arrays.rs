//! Arrays in NPZ and safetensors files: `x` and `y`, and when there are `x_test`, `y_test` and `key`.

mod npz;
mod tensors;

use super::set::{Dataset, Features};
use super::{MAX_CLASSES, table};
use crate::Error;
use crate::model::InputShape;
use std::path::Path;

/// A file with named arrays.
pub(super) enum Archive {
    Npz(npz::Npz),
    Tensors(tensors::Tensors),
}

/// One array: its values in row-major order.
pub(super) struct Array {
    pub(super) shape: Vec<usize>,
    pub(super) values: Values,
}

/// What an array holds, in the widest type that is told apart here.
pub(super) enum Values {
    Bytes(Vec<u8>),
    Integers(Vec<i64>),
    Floats(Vec<f32>),
}

/// Most bytes that an array may take: a gigabyte, as of IDX files.
pub(super) const MAX_ARRAY_BYTES: usize = 1 << 30;

impl Archive {
    pub(super) fn npz(path: &Path) -> Result<Self, Error> {
        npz::Npz::open(path).map(Self::Npz)
    }

    pub(super) fn safetensors(path: &Path) -> Result<Self, Error> {
        tensors::Tensors::open(path).map(Self::Tensors)
    }

    /// The training set, and the test set if there is one.
    ///
    /// `x` is [n, features], [n, height, width] or [n, channels, height, width]; bytes count as pixels, divided by 255,
    /// and other numbers as they are. `y` is [n], whole numbers from 0. `key` is [n] and says whom each training row
    /// belongs to.
    pub(super) fn read(mut self, name: &str, path: &Path) -> Result<(Dataset, Option<Dataset>), Error> {
        let (x, y) = (self.required(path, "x")?, self.required(path, "y")?);
        let labels = whole(path, "y", y)?;
        let test = match self.array(path, "x_test")? {
            Some(x) => {
                let y = self.required(path, "y_test")?;
                Some((x, whole(path, "y_test", y)?))
            }
            None => None,
        };
        let largest = |labels: &[u32]| labels.iter().max().map_or(0, |&label| label as usize);
        let classes = largest(&labels).max(test.as_ref().map_or(0, |(_, labels)| largest(labels))) + 1;
        if classes > MAX_CLASSES {
            let problem = format!("label {} is no label; they are numbers from 0 to {}", classes - 1, MAX_CLASSES - 1);
            return Err(Error::malformed(place(path, "y"), problem));
        }
        let mut train = dataset(path, "x", name, x, labels, classes)?;
        if let Some(key) = self.array(path, "key")? {
            let keys = numbers(path, "key", key)?;
            let (of_rows, names) = table::enumerate_names(&keys.iter().map(i64::to_string).collect::<Vec<_>>());
            train = train.with_keys(names, of_rows)?;
        }
        let test = test.map(|(x, labels)| dataset(path, "x_test", name, x, labels, classes)).transpose()?;
        if let Some(test) = &test
            && test.input() != train.input()
        {
            let problem = format!("its rows are {:?} and those of x are {:?}", test.input(), train.input());
            return Err(Error::malformed(place(path, "x_test"), problem));
        }
        Ok((train, test))
    }

    /// An array, if the file has one of that name.
    fn array(&mut self, path: &Path, name: &str) -> Result<Option<Array>, Error> {
        match self {
            Self::Npz(file) => file.array(name),
            Self::Tensors(file) => file.array(name),
        }
        .map_err(|problem| Error::malformed(place(path, name), problem))
    }

    pub(super) fn required(&mut self, path: &Path, name: &str) -> Result<Array, Error> {
        self.array(path, name)?.ok_or_else(|| {
            let found = match self {
                Self::Npz(file) => file.names(),
                Self::Tensors(file) => file.names(),
            };
            Error::malformed(path.display(), format!("no array {name:?} is there; found {}", found.join(", ")))
        })
    }
}

/// The file and array, for an error.
fn place(path: &Path, array: &str) -> String {
    format!("{}, array {array:?}", path.display())
}

fn dataset(path: &Path, array: &str, name: &str, x: Array, labels: Vec<u32>, classes: usize) -> Result<Dataset, Error> {
    let (rows, input) = match *x.shape {
        [rows, features] => (rows, InputShape::table(features, classes)),
        [rows, height, width] => (rows, InputShape::image(1, height, width, classes)),
        [rows, channels, height, width] => (rows, InputShape::image(channels, height, width, classes)),
        _ => {
            let problem =
                format!("it is {:?}; [n, features], [n, height, width] or [n, channels, height, width]", x.shape);
            return Err(Error::malformed(place(path, array), problem));
        }
    };
    if rows != labels.len() {
        return Err(Error::malformed(
            place(path, array),
            format!("{rows} rows do not go with {} labels", labels.len()),
        ));
    }
    let features = match x.values {
        Values::Bytes(values) => Features::Bytes { values, scale: 1.0 / 255.0 },
        Values::Integers(values) => Features::Floats(values.into_iter().map(|value| value as f32).collect()),
        Values::Floats(values) => Features::Floats(values),
    };
    Dataset::with_features(name.to_owned(), input, features, labels)
}

/// A vector of whole numbers.
pub(super) fn numbers(path: &Path, name: &str, array: Array) -> Result<Vec<i64>, Error> {
    if array.shape.len() != 1 {
        return Err(Error::malformed(place(path, name), format!("it is {:?}; a vector [n] is wanted", array.shape)));
    }
    match array.values {
        Values::Bytes(values) => Ok(values.into_iter().map(i64::from).collect()),
        Values::Integers(values) => Ok(values),
        Values::Floats(_) => Err(Error::malformed(place(path, name), "it holds floats; whole numbers are wanted")),
    }
}

/// A vector of whole numbers from 0 to what 32 bits hold.
pub(super) fn whole(path: &Path, name: &str, array: Array) -> Result<Vec<u32>, Error> {
    let numbers = numbers(path, name, array)?;
    let whole = numbers.iter().map(|&number| u32::try_from(number)).collect::<Result<Vec<_>, _>>();
    whole.map_err(|_| {
        let wrong = numbers.iter().find(|&&number| u32::try_from(number).is_err()).copied().unwrap_or_default();
        Error::malformed(
            place(path, name),
            format!("{wrong} is no label; they are numbers from 0 to {}", MAX_CLASSES - 1),
        )
    })
}

/// The number types that are read, little-endian.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Element {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
}

impl Element {
    const fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The bytes of an array of this shape; nothing when they are beyond [`MAX_ARRAY_BYTES`].
    fn bytes_of(self, shape: &[usize]) -> Option<usize> {
        let bytes = shape.iter().try_fold(self.size(), |bytes: usize, &extent| bytes.checked_mul(extent))?;
        (bytes <= MAX_ARRAY_BYTES).then_some(bytes)
    }

    /// Values from bytes, of which there are a multiple of the size.
    fn decode(self, bytes: Vec<u8>) -> Values {
        fn each<const N: usize, T>(bytes: &[u8], decode: fn([u8; N]) -> T) -> Vec<T> {
            bytes.as_chunks::<N>().0.iter().map(|chunk| decode(*chunk)).collect()
        }
        match self {
            Self::U8 => Values::Bytes(bytes),
            Self::I8 => Values::Integers(each(&bytes, |b| i64::from(i8::from_le_bytes(b)))),
            Self::U16 => Values::Integers(each(&bytes, |b| i64::from(u16::from_le_bytes(b)))),
            Self::I16 => Values::Integers(each(&bytes, |b| i64::from(i16::from_le_bytes(b)))),
            Self::U32 => Values::Integers(each(&bytes, |b| i64::from(u32::from_le_bytes(b)))),
            Self::I32 => Values::Integers(each(&bytes, |b| i64::from(i32::from_le_bytes(b)))),
            // Larger numbers than these are neither labels nor keys.
            Self::U64 => Values::Integers(each(&bytes, |b| i64::try_from(u64::from_le_bytes(b)).unwrap_or(i64::MAX))),
            Self::I64 => Values::Integers(each(&bytes, i64::from_le_bytes)),
            Self::F32 => Values::Floats(each(&bytes, f32::from_le_bytes)),
            Self::F64 => Values::Floats(each(&bytes, |b| f64::from_le_bytes(b) as f32)),
        }
    }
}

#[cfg(test)]
mod tests;

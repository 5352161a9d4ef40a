//! Arrays in a safetensors file.

use super::{Array, Element, MAX_ARRAY_BYTES};
use crate::Error;
use safetensors::{Dtype, SafeTensors};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A file in memory, whose header has been checked.
pub(in crate::data) struct Tensors(Vec<u8>);

/// Most bytes of a file: those of four arrays would not fit this machine's users anyway.
const MAX_FILE_BYTES: u64 = 2 * MAX_ARRAY_BYTES as u64;

impl Tensors {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| Error::io(path, error))?;
        let mut bytes = Vec::new();
        let read = file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| Error::io(path, error))?;
        if read as u64 > MAX_FILE_BYTES {
            return Err(Error::malformed(path.display(), format!("it is beyond the limit of {MAX_FILE_BYTES} bytes")));
        }
        // It compares the header's extents and offsets with the bytes that are there.
        SafeTensors::deserialize(&bytes)
            .map_err(|error| Error::malformed(path.display(), format!("it is no safetensors file: {error}")))?;
        Ok(Self(bytes))
    }

    pub(super) fn names(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.0);
        file.map(|file| file.names().into_iter().map(str::to_owned).collect()).unwrap_or_default()
    }

    pub(super) fn array(&self, name: &str) -> Result<Option<Array>, String> {
        let file = SafeTensors::deserialize(&self.0).map_err(|error| error.to_string())?;
        let Ok(view) = file.tensor(name) else { return Ok(None) };
        let element = match view.dtype() {
            Dtype::BOOL | Dtype::U8 => Element::U8,
            Dtype::I8 => Element::I8,
            Dtype::U16 => Element::U16,
            Dtype::I16 => Element::I16,
            Dtype::U32 => Element::U32,
            Dtype::I32 => Element::I32,
            Dtype::U64 => Element::U64,
            Dtype::I64 => Element::I64,
            Dtype::F32 => Element::F32,
            Dtype::F64 => Element::F64,
            other => return Err(format!("numbers of type {other:?} are not read; use F32, I64 or U8")),
        };
        let shape = view.shape().to_vec();
        if element.bytes_of(&shape).is_none() {
            return Err(format!("extents {shape:?} are beyond the limit of {MAX_ARRAY_BYTES} bytes"));
        }
        Ok(Some(Array { shape, values: element.decode(view.data().to_vec()) }))
    }
}

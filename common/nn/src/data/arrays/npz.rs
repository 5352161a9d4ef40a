//! NPZ, the archive of `numpy.savez`: a ZIP file with one NPY file for each array.
//!
//! The format is numpy's NEP 1: magic, version, the length of a header, a Python dictionary, then the values.

use super::{Array, Element, MAX_ARRAY_BYTES};
use crate::Error;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::ZipArchive;
use zip::result::ZipError;

/// An open archive.
pub(in crate::data) struct Npz(ZipArchive<BufReader<File>>);

/// Longest header: numpy writes below 200 bytes for what is read here.
const MAX_HEADER_BYTES: usize = 4096;

impl Npz {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|error| Error::io(path, error))?;
        let archive = ZipArchive::new(BufReader::new(file))
            .map_err(|error| Error::malformed(path.display(), format!("it is no archive of numpy: {error}")))?;
        Ok(Self(archive))
    }

    pub(super) fn names(&self) -> Vec<String> {
        let names = self.0.file_names().filter_map(Result::ok);
        names.map(|name| name.strip_suffix(".npy").unwrap_or(&name).to_owned()).collect()
    }

    pub(super) fn array(&mut self, name: &str) -> Result<Option<Array>, String> {
        match self.0.by_name(&format!("{name}.npy")) {
            Ok(mut file) => read(&mut file).map(Some),
            Err(ZipError::FileNotFound) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Reads one NPY file. Memory grows with the bytes that are really there, never with what the header claims.
fn read(file: &mut impl Read) -> Result<Array, String> {
    let header = read_header(file)?;
    let (element, shape) = parse_header(&header)?;
    let Some(len) = element.bytes_of(&shape) else {
        return Err(format!("extents {shape:?} are beyond the limit of {MAX_ARRAY_BYTES} bytes"));
    };
    let mut bytes = Vec::new();
    let found = file.take(len as u64 + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if found != len {
        let found = if found > len { "more".to_owned() } else { found.to_string() };
        return Err(format!("extents {shape:?} promise {len} bytes and {found} follow"));
    }
    Ok(Array { shape, values: element.decode(bytes) })
}

fn read_header(file: &mut impl Read) -> Result<String, String> {
    let ends_early = |error: std::io::Error| format!("the header ends early: {error}");
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(ends_early)?;
    let [magic @ .., major, _] = start;
    if magic != *b"\x93NUMPY" {
        return Err(format!("starts with {magic:02x?}, which is no NPY file"));
    }
    let mut len = [0; 4];
    let width = if major == 1 { 2 } else { 4 };
    file.read_exact(&mut len[..width]).map_err(ends_early)?;
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_HEADER_BYTES {
        return Err(format!("a header of {len} bytes is beyond the limit of {MAX_HEADER_BYTES}"));
    }
    let mut header = vec![0; len];
    file.read_exact(&mut header).map_err(ends_early)?;
    String::from_utf8(header).map_err(|_| "the header is no text".to_owned())
}

/// The type and shape in a dictionary such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }`.
fn parse_header(header: &str) -> Result<(Element, Vec<usize>), String> {
    let value = |key: &str| {
        let rest = header.split_once(&format!("'{key}':")).map(|(_, rest)| rest.trim_start());
        rest.ok_or_else(|| format!("the header {header:?} has no {key:?}"))
    };
    let kind = value("descr")?.strip_prefix('\'').and_then(|rest| rest.split('\'').next()).unwrap_or_default();
    let element = match kind.trim_start_matches(['<', '|']) {
        "u1" | "b1" => Element::U8,
        "i1" => Element::I8,
        "u2" => Element::U16,
        "i2" => Element::I16,
        "u4" => Element::U32,
        "i4" => Element::I32,
        "u8" => Element::U64,
        "i8" => Element::I64,
        "f4" => Element::F32,
        "f8" => Element::F64,
        _ => return Err(format!("numbers of type {kind:?} are not read; use float32, int64 or uint8")),
    };
    let inner = value("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')')).map(|(inner, _)| inner);
    let shape = inner
        .map(|inner| inner.split(',').map(str::trim).filter(|extent| !extent.is_empty()).map(str::parse).collect())
        .and_then(|extents: Result<Vec<usize>, _>| extents.ok())
        .ok_or_else(|| format!("the header {header:?} has no shape"))?;
    if value("fortran_order")?.starts_with("True") && shape.len() > 1 {
        return Err("it lies column by column; save numpy.ascontiguousarray of it".to_owned());
    }
    Ok((element, shape))
}

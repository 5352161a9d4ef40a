//! The table of a container: for each tensor its name, shape and kind, and how many bytes its payload has.

use super::payload::{Kind, code, prepared, restored};
use super::{Error, Tensor, VERSION, Values, row_of};
use crate::Segment;
use crate::positions::Adaptive;
use crate::range::{RangeReader, RangeWriter};

/// One tensor's entry in the table.
pub(super) struct Part {
    pub(super) name: String,
    shape: Vec<usize>,
    kind: Kind,
    nonzeros: usize,
    /// Bytes of the payload.
    pub(super) payload: usize,
}

impl Part {
    /// Appends a tensor's payload to `payloads` and gives its entry.
    pub(super) fn of(tensor: &Tensor, payloads: &mut Vec<u8>) -> Result<Self, Error> {
        let Tensor { name, shape, values } = tensor;
        let len = checked_len(name, shape, u32::MAX as usize)?;
        if values.len() != len {
            return Err(Error::WrongLength { tensor: name.clone(), expected: len, got: values.len() });
        }
        let kind = Kind::of(values);
        let mut content = prepared(name, shape, values)?;
        let nonzeros = content.positions.len();
        let start = payloads.len();
        let mut stream = RangeWriter::new(payloads);
        let segment = Segment { len, row: row_of(shape) };
        code(&mut stream, Adaptive::in_container(VERSION), kind, segment, scales_of(shape), nonzeros, &mut content)
            .map_err(|_| Error::BadPositions { tensor: name.clone() })?;
        stream.finish();
        let payload = payloads.len() - start;
        Ok(Self { name: name.clone(), shape: shape.clone(), kind, nonzeros, payload })
    }

    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The tensor that a payload of a container of that version holds.
    pub(super) fn read(self, payload: &[u8], version: u8) -> Result<Tensor, Error> {
        let segment = Segment { len: self.len(), row: row_of(&self.shape) };
        let mut stream = RangeReader::new(payload);
        let mut content = Default::default();
        code(
            &mut stream,
            Adaptive::in_container(version),
            self.kind,
            segment,
            scales_of(&self.shape),
            self.nonzeros,
            &mut content,
        )
        .map_err(|_| Error::BadPositions { tensor: self.name.clone() })?;
        stream.finish(payload.len()).map_err(|_| Error::BadPayload { tensor: self.name.clone() })?;
        let values: Values = restored(&self.name, self.kind, &self.shape, &content)?;
        Ok(Tensor { name: self.name, shape: self.shape, values })
    }
}

/// Scales of a tensor of integers.
pub(super) fn scales_of(shape: &[usize]) -> usize {
    if shape.len() < 2 { 1 } else { shape[0] }
}

/// Appends an entry.
pub(super) fn write_part(part: &Part, file: &mut Vec<u8>) {
    write_text(file, &part.name);
    write_number(file, part.shape.len());
    part.shape.iter().for_each(|&axis| write_number(file, axis));
    file.push(part.kind.byte());
    write_number(file, part.nonzeros);
    write_number(file, part.payload);
}

pub(super) fn write_text(file: &mut Vec<u8>, text: &str) {
    write_number(file, text.len());
    file.extend_from_slice(text.as_bytes());
}

/// Seven bits at a time, lowest first.
pub(super) fn write_number(file: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        file.push(number as u8 | 0x80);
        number >>= 7;
    }
    file.push(number as u8);
}

/// Reads a container's content from front to back.
pub(super) struct Reader<'a> {
    content: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(content: &'a [u8], at: usize) -> Self {
        Self { content, at }
    }

    pub(super) fn left(&self) -> usize {
        self.content.len() - self.at
    }

    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let bytes = self.at.checked_add(len).and_then(|end| self.content.get(self.at..end));
        let bytes = bytes.ok_or(Error::Truncated { got: self.content.len() })?;
        self.at += len;
        Ok(bytes)
    }

    pub(super) fn number(&mut self) -> Result<usize, Error> {
        let at = self.at;
        let mut number = 0u64;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.bytes(1)?[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(number).map(|number| number as usize).map_err(|_| Error::BadNumber { at });
            }
        }
        Err(Error::BadNumber { at })
    }

    pub(super) fn text(&mut self) -> Result<String, Error> {
        let at = self.at;
        let len = self.number()?;
        let text = self.bytes(len)?;
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| Error::BadText { at })
    }

    /// An entry of a tensor with at most `max_elements`.
    pub(super) fn part(&mut self, max_elements: usize) -> Result<Part, Error> {
        let name = self.text()?;
        let axes = self.number()?;
        if axes > MAX_AXES {
            return Err(Error::BadShape { tensor: name, shape: vec![0; MAX_AXES + 1] });
        }
        let shape = (0..axes).map(|_| self.number()).collect::<Result<Vec<_>, _>>()?;
        let kind = self.bytes(1)?[0];
        let kind = Kind::from_byte(kind).ok_or_else(|| Error::UnknownKind { tensor: name.clone(), kind })?;
        let (nonzeros, payload) = (self.number()?, self.number()?);
        let len = checked_len(&name, &shape, max_elements)?;
        if nonzeros > len {
            return Err(Error::TooManyNonzeros { tensor: name, len, got: nonzeros });
        }
        Ok(Part { name, shape, kind, nonzeros, payload })
    }
}

/// The number of elements of a shape, if it is one and there are not too many.
fn checked_len(name: &str, shape: &[usize], max_elements: usize) -> Result<usize, Error> {
    if shape.len() > MAX_AXES || shape.contains(&0) {
        return Err(Error::BadShape { tensor: name.to_owned(), shape: shape.to_vec() });
    }
    let max_elements = max_elements.min(u32::MAX as usize);
    let len = shape.iter().try_fold(1usize, |product, &axis| product.checked_mul(axis));
    len.filter(|&len| len <= max_elements).ok_or_else(|| Error::TooManyElements {
        tensor: name.to_owned(),
        shape: shape.to_vec(),
        left: max_elements,
    })
}

const MAX_AXES: usize = 8;

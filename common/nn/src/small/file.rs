//! Models as files: safetensors from anywhere, and containers.

use dunlin_codec::container::{Container, Error as ContainerError, Limits};
use dunlin_core::{Layout, TensorSpec};
use half::{bf16, f16};
use safetensors::tensor::{TensorView, serialize};
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, HashMap};

/// The tensors of a model, by name, as floats, and what its file tells about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Words about the model.
    pub about: BTreeMap<String, String>,
    /// The tensors, in the order in which they lie in the file.
    pub tensors: Vec<(TensorSpec, Vec<f32>)>,
}

/// Why a file is no model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It begins as a container and is none.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// It is neither.
    #[error("neither a container nor a safetensors file: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// Numbers that are no floats, and do not fit a float.
    #[error("tensor {tensor:?} holds numbers of type {dtype}, which are not read; F32, F16, BF16 and F64 are")]
    Dtype {
        /// The tensor's name.
        tensor: String,
        /// The type.
        dtype: String,
    },
}

impl Weights {
    /// Reads a safetensors file, or a container.
    ///
    /// # Errors
    /// When the bytes are neither, or hold what is no float. Whole numbers are read if a float has them exactly.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FileError> {
        if Container::recognizes(bytes) {
            return Ok(Container::from_bytes(bytes, &Limits::default())?.into());
        }
        let file = SafeTensors::deserialize(bytes)?;
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let about = metadata.metadata().iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut views = file.tensors();
        // In the order of the file: a hash map's would change from run to run.
        views.sort_by_key(|(_, view)| view.data().as_ptr() as usize);
        let mut tensors = Vec::with_capacity(views.len());
        for (name, view) in views {
            let values = floats(&view)
                .ok_or_else(|| FileError::Dtype { tensor: name.clone(), dtype: format!("{:?}", view.dtype()) })?;
            tensors.push((TensorSpec::new(name, view.shape()), values));
        }
        Ok(Self { about, tensors })
    }

    /// A safetensors file of 32-bit floats.
    ///
    /// # Errors
    /// When the library refuses it.
    pub fn to_safetensors(&self) -> Result<Vec<u8>, FileError> {
        let bytes: Vec<Vec<u8>> = self
            .tensors
            .iter()
            .map(|(_, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
            .collect();
        let mut views = Vec::with_capacity(bytes.len());
        for ((spec, _), bytes) in self.tensors.iter().zip(&bytes) {
            views.push((spec.name.as_str(), TensorView::new(Dtype::F32, spec.shape.clone(), bytes)?));
        }
        let about: HashMap<String, String> = self.about.clone().into_iter().collect();
        Ok(crate::export::in_order(&serialize(views, Some(about))?))
    }

    /// The parameters in the order of a layout.
    ///
    /// # Errors
    /// With a sentence that says which tensor is missing, too much, or of another shape.
    pub fn flat(&self, layout: &Layout) -> Result<Vec<f32>, String> {
        let by_name: BTreeMap<&str, &(TensorSpec, Vec<f32>)> =
            self.tensors.iter().map(|tensor| (tensor.0.name.as_str(), tensor)).collect();
        let mut flat = Vec::with_capacity(layout.len());
        for wanted in layout.tensors() {
            let Some((spec, values)) = by_name.get(wanted.name.as_str()) else {
                return Err(format!("it has no tensor {:?} of shape {:?}", wanted.name, wanted.shape));
            };
            if spec.shape != wanted.shape {
                return Err(format!(
                    "its tensor {:?} has shape {:?} and not {:?}",
                    wanted.name, spec.shape, wanted.shape
                ));
            }
            flat.extend_from_slice(values);
        }
        let known = |name: &str| layout.tensors().iter().any(|tensor| tensor.name == name);
        match self.tensors.iter().find(|(spec, _)| !known(&spec.name)) {
            Some((spec, _)) => Err(format!("it has a tensor {:?}, which the model has not", spec.name)),
            None => Ok(flat),
        }
    }
}

impl From<Container> for Weights {
    fn from(container: Container) -> Self {
        let tensors = container.tensors.into_iter();
        let tensors = tensors.map(|tensor| (TensorSpec::new(tensor.name, tensor.shape), tensor.values.to_f32()));
        Self { about: container.about, tensors: tensors.collect() }
    }
}

fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    fn read<const N: usize>(view: &TensorView<'_>, value: impl Fn([u8; N]) -> Option<f32>) -> Option<Vec<f32>> {
        view.data().chunks_exact(N).map(|bytes| value(bytes.try_into().expect("N bytes"))).collect()
    }
    // Such as the number of batches that a batch norm has seen.
    let whole = |number: i64| (number.unsigned_abs() <= 1 << 24).then_some(number as f32);
    match view.dtype() {
        Dtype::F32 => read(view, |bytes| Some(f32::from_le_bytes(bytes))),
        Dtype::F16 => read(view, |bytes| Some(f16::from_le_bytes(bytes).to_f32())),
        Dtype::BF16 => read(view, |bytes| Some(bf16::from_le_bytes(bytes).to_f32())),
        Dtype::F64 => read(view, |bytes| Some(f64::from_le_bytes(bytes) as f32)),
        Dtype::I64 => read(view, |bytes| whole(i64::from_le_bytes(bytes))),
        Dtype::I32 => read(view, |bytes| whole(i32::from_le_bytes(bytes).into())),
        Dtype::U8 | Dtype::BOOL => read(view, |[byte]| Some(byte.into())),
        Dtype::I8 => read(view, |bytes| Some(i8::from_le_bytes(bytes).into())),
        _ => None,
    }
}

//! Where a model computes.

use super::views;
use crate::Error;
use candle_core::{DType, Device, Tensor, Var};
use dunlin_core::Layout;
use std::sync::Mutex;

/// The device of this name: `cpu`, `cuda` for the first graphics processor, or `cuda:N`.
///
/// # Errors
/// When there is no such device, or the program was built without the feature `cuda`.
pub fn device(name: &str) -> Result<Device, Error> {
    let number = match name {
        "cpu" => return Ok(Device::Cpu),
        "cuda" => Some(0),
        _ => name.strip_prefix("cuda:").and_then(|number| number.parse().ok()),
    };
    match number {
        Some(number) => cuda(name, number),
        None => Err(Error::config("--device", name, "cpu, cuda or cuda:N with the number of a graphics processor")),
    }
}

#[cfg(feature = "cuda")]
fn cuda(name: &str, number: usize) -> Result<Device, Error> {
    Device::new_cuda(number).map_err(|error| Error::config("--device", name, error.to_string()))
}

#[cfg(not(feature = "cuda"))]
fn cuda(name: &str, _: usize) -> Result<Device, Error> {
    Err(Error::config(
        "--device",
        name,
        "this program was built without CUDA; build it with `--features cuda`, or use cpu",
    ))
}

/// The parameters on another device.
pub(super) struct Remote {
    device: Device,
    layout: Layout,
    /// Replaced as a whole when the parameters change.
    flat: Mutex<Tensor>,
}

impl Remote {
    pub(super) fn new(device: &Device, layout: &Layout) -> Result<Self, Error> {
        let flat = Mutex::new(Tensor::zeros(layout.len(), DType::F32, device)?);
        Ok(Self { device: device.clone(), layout: layout.clone(), flat })
    }

    pub(super) const fn device(&self) -> &Device {
        &self.device
    }

    /// Replaces all parameters, from a tensor of this machine's memory.
    pub(super) fn set(&self, flat: &Tensor) -> candle_core::Result<()> {
        // A copy even on the CPU, where `to_device` would share what is going to be changed.
        let copy = if self.device.is_cpu() { flat.detach().copy()? } else { flat.detach().to_device(&self.device)? };
        *self.flat.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = copy;
        Ok(())
    }

    fn flat(&self) -> Tensor {
        self.flat.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// The tensors of the layout.
    pub(super) fn views(&self) -> Result<Vec<Tensor>, Error> {
        views(&self.flat(), &self.layout)
    }

    /// All parameters as one variable, and the tensors of the layout as parts of it.
    pub(super) fn variable_and_views(&self) -> Result<(Var, Vec<Tensor>), Error> {
        let variable = Var::from_tensor(&self.flat())?;
        let views = views(variable.as_tensor(), &self.layout)?;
        Ok((variable, views))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_found_by_its_name_or_refused_with_what_would_be_right() {
        assert!(device("cpu").unwrap().is_cpu());
        let messages: Vec<String> =
            ["gpu", "cuda:x", ""].iter().map(|name| device(name).unwrap_err().to_string()).collect();
        assert_eq!(messages[0], "--device = gpu: cpu, cuda or cuda:N with the number of a graphics processor");
        assert!(messages.iter().all(|message| message.contains("cuda:N")), "{messages:?}");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_program_without_cuda_says_so() {
        let message = device("cuda:1").unwrap_err().to_string();
        assert_eq!(
            message,
            "--device = cuda:1: this program was built without CUDA; build it with `--features cuda`, or use cpu"
        );
    }
}

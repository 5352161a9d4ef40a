//! The vector that codecs are compared on.

use dunlin::codec::{Segment, Segments};
use half::{bf16, f16};
use rand::SeedableRng;
use rand_distr::{Distribution, LogNormal, StandardNormal};
use safetensors::{Dtype, SafeTensors};
use std::path::Path;

/// A flat vector and its tensors.
pub(super) struct Vector {
    pub(super) segments: Segments,
    pub(super) values: Vec<f32>,
}

impl Vector {
    /// All floating-point tensors of a file, by name.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| format!("not a safetensors file: {error}"))?;
        let mut tensors = file.tensors();
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        let (mut segments, mut values) = (Vec::new(), Vec::new());
        for (name, tensor) in tensors {
            let start = values.len();
            let data = tensor.data();
            match tensor.dtype() {
                Dtype::F32 => values.extend(data.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
                Dtype::F64 => values.extend(data.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32)),
                Dtype::F16 => values.extend(data.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32())),
                Dtype::BF16 => values.extend(data.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32())),
                _ => continue,
            }
            if let Some(at) = values[start..].iter().position(|value: &f32| !value.is_finite()) {
                return Err(format!("value {at} of tensor {name} is not finite"));
            }
            let len = values.len() - start;
            if len > 0 {
                segments.push(Segment { len, row: tensor.shape().iter().skip(1).product::<usize>().max(1) });
            }
        }
        let segments = Segments::new(segments).map_err(|_| "no tensor of it is of floating point".to_owned())?;
        Ok(Self { segments, values })
    }

    /// Normal values, each row with a scale of its own and each layer with another; the same every time.
    pub(super) fn synthetic() -> Self {
        let segments = Segments::new(CNN.map(|(len, row)| Segment { len, row }).to_vec()).expect("no tensor is empty");
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let rows = LogNormal::new(0.0, 1.0).expect("a deviation of 1 is possible");
        let mut values = Vec::with_capacity(segments.len());
        for (layer, segment) in segments.iter().enumerate() {
            let mut scale = 0.0;
            for i in 0..segment.len {
                if i % segment.row == 0 {
                    scale = 0.01 * rows.sample(&mut rng) / (1 + layer) as f32;
                }
                let value: f32 = StandardNormal.sample(&mut rng);
                values.push(scale * value);
            }
        }
        Self { segments, values }
    }
}

/// Lengths and rows of the CNN of McMahan et al. 2017.
const CNN: [(usize, usize); 8] =
    [(800, 25), (32, 1), (51_200, 800), (64, 1), (1_605_632, 3136), (512, 1), (5120, 512), (10, 1)];

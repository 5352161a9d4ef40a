//! One codec on one vector.

use super::Vector;
use dunlin::codec::{Bias, Codec, Encoded, Encoder, Error, Limits, Quantizer, Segments, StageBytes, decode, limit};
use serde::Serialize;
use std::collections::HashMap;
use std::time::Instant;

/// What was measured.
#[derive(Serialize)]
pub(super) struct Figures {
    pub(super) codec: String,
    /// Whether what is decoded is right on average: exact, unbiased or biased.
    pub(super) bias: &'static str,
    pub(super) stages: StageBytes,
    pub(super) nonzeros: usize,
    pub(super) bits_per_coordinate: f64,
    /// Where only some are sent.
    pub(super) bits_per_nonzero: Option<f64>,
    /// Coded bits over the least that they could be, where that is known.
    pub(super) of_limit: Option<f64>,
    /// ‖x̂ − x‖² / ‖x‖².
    pub(super) error: f64,
    pub(super) encode_seconds: f64,
    /// Decoded and added up.
    pub(super) decode_seconds: f64,
}

pub(super) fn measure(name: String, codec: &Codec, vector: &Vector, repeat: u32) -> Result<Figures, Error> {
    let Vector { segments, values: u } = vector;
    let limits = Limits::for_segments(segments);
    let mut encoder = Encoder::new();
    let (mut residual, mut sum) = (Vec::new(), Vec::<f32>::new());
    let (mut encode_seconds, mut decode_seconds) = (f64::INFINITY, f64::INFINITY);
    let mut encoded = None;
    for _ in 0..repeat {
        residual.clone_from(u);
        let timer = Instant::now();
        let frame = match codec.quantizer.bias() {
            Bias::Biased => encoder.encode_with_feedback(codec, segments, &mut residual)?,
            Bias::Exact | Bias::Unbiased => encoder.encode(codec, segments, u)?,
        };
        encode_seconds = encode_seconds.min(timer.elapsed().as_secs_f64());
        sum.clear();
        sum.resize(u.len(), 0.0);
        let timer = Instant::now();
        decode(&frame.frame, segments, &limits, &mut sum)?;
        decode_seconds = decode_seconds.min(timer.elapsed().as_secs_f64());
        encoded = Some(frame);
    }
    let Encoded { stages, nonzeros, .. } = encoded.expect("measured at least once");
    let squares = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>();
    let off = squares(&mut u.iter().zip(&sum).map(|(u, d)| f64::from(*u) - f64::from(*d)));
    let error = off / squares(&mut u.iter().map(|u| f64::from(*u))).max(f64::MIN_POSITIVE);
    let bits = 8.0 * stages.coded as f64;
    let sparse = stages.sparse < stages.dense || codec.quantizer == Quantizer::Ternary;
    Ok(Figures {
        codec: name,
        bias: super::word(codec.quantizer.bias()),
        stages,
        nonzeros,
        bits_per_coordinate: bits / u.len() as f64,
        bits_per_nonzero: (sparse && nonzeros > 0).then(|| bits / nonzeros as f64),
        of_limit: least_bits(codec, sparse, nonzeros, error, &Decoded { segments, values: &sum })
            .map(|least| bits / least),
        error,
        encode_seconds,
        decode_seconds,
    })
}

/// Bits without which independent coordinates cannot be told: which of them are sent and as what, where only some are
/// or they have few values; otherwise normal ones of this error.
fn least_bits(codec: &Codec, sparse: bool, nonzeros: usize, error: f64, decoded: &Decoded<'_>) -> Option<f64> {
    let n = decoded.values.len();
    let values = match codec.quantizer {
        Quantizer::F32 => 32.0 * if sparse { nonzeros } else { n } as f64,
        Quantizer::F16 => 16.0 * if sparse { nonzeros } else { n } as f64,
        Quantizer::Ternary => nonzeros as f64,
        Quantizer::Int8 | Quantizer::Codebook { .. } | Quantizer::Common { .. } => decoded.bits_of_values(sparse),
        Quantizer::Rotated { .. }
        | Quantizer::Eden { .. }
        | Quantizer::Qsgd { .. }
        | Quantizer::Terngrad
        | Quantizer::Sign
        | Quantizer::LowRank { .. } => {
            // An unbiased estimate of error v is a scaled one of error v / (1 + v).
            let error = if codec.quantizer.bias() == Bias::Unbiased { error / (1.0 + error) } else { error };
            limit::bits_of_normals(n, error)
        }
    };
    let positions = if sparse { n as f64 * limit::binary_entropy(nonzeros as f64 / n as f64) } else { 0.0 };
    Some(positions + values).filter(|least| least.is_finite() && *least > 0.0)
}

/// What came out.
struct Decoded<'a> {
    segments: &'a Segments,
    values: &'a [f32],
}

impl Decoded<'_> {
    /// The entropy of the values of each tensor, of those that are not zero or of all.
    fn bits_of_values(&self, sparse: bool) -> f64 {
        let of_tensor = |i| {
            let mut counts = HashMap::<u32, u64>::new();
            let sent = self.values[self.segments.range(i)].iter().filter(|value| !sparse || **value != 0.0);
            // Zeros of both signs are one value.
            sent.for_each(|value| *counts.entry((value + 0.0).to_bits()).or_default() += 1);
            limit::bits_of_symbols(counts.into_values())
        };
        (0..self.segments.count()).map(of_tensor).sum()
    }
}

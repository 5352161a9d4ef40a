//! Golomb–Rice codes of gap − 1: the quotient by 2^b in unary, then b plain bits.

use super::{Corrupt, Positions, Share, plain_count};
use crate::{Segment, bits::Stream};

pub(crate) struct Rice;

impl<S: Stream> Positions<S> for Rice {
    fn count(&mut self, stream: &mut S, k: u32, _: Share) -> u32 {
        plain_count(stream, k)
    }

    fn positions(&mut self, stream: &mut S, segment: Segment, k: u32, positions: &mut Vec<u32>) -> Result<(), Corrupt> {
        let parameter = if S::READS { 0 } else { best_parameter(positions, segment.len) };
        let parameter = stream.bits(parameter, 5);
        let mut start = 0u64;
        for i in 0..k as usize {
            let skipped = if S::READS { 0 } else { positions[i] - start as u32 };
            let quotient = unary(stream, skipped >> parameter);
            let rest = stream.long(skipped & ((1 << parameter) - 1), parameter);
            if S::READS {
                let position = start + (u64::from(quotient) << parameter) + u64::from(rest);
                if position >= segment.len as u64 {
                    return Err(Corrupt);
                }
                positions.push(position as u32);
            }
            start = u64::from(positions[i]) + 1;
        }
        Ok(())
    }
}

/// `value` ones and a zero. A reader sees zeros past its end, so this ends too.
fn unary<S: Stream>(stream: &mut S, value: u32) -> u32 {
    let mut ones = 0u32;
    loop {
        let more = stream.bits(u32::from(ones < value), 1) != 0;
        if !more {
            return ones;
        }
        ones = ones.saturating_add(1);
    }
}

/// The parameter with the shortest code: near log2 of the mean gap, tried out.
fn best_parameter(positions: &[u32], n: usize) -> u32 {
    let near = (n / positions.len()).ilog2();
    let bits = |b: u32| {
        let mut start = 0;
        let mut bits = positions.len() as u64 * u64::from(b + 1);
        for &position in positions {
            bits += u64::from((position - start) >> b);
            start = position + 1;
        }
        bits
    };
    (near.saturating_sub(2)..=near.min(30) + 1).min_by_key(|&b| bits(b)).unwrap_or(near)
}

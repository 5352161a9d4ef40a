//! Golomb–Rice codes of gap − 1: the quotient by 2^b in unary, then b plain bits.

use super::{Corrupt, Positions, Share, plain_count};
use crate::{Segment, bits::Stream};

pub(crate) struct Rice;

impl<S: Stream> Positions<S> for Rice {
    fn count(&mut self, stream: &mut S, k: u32, _: Share) -> u32 {
        plain_count(stream, k)
    }

    fn positions(&mut self, stream: &mut S, segment: Segment, k: u32, positions: &mut Vec<u32>) -> Result<(), Corrupt> {
        let near = (segment.len as u32 / k).ilog2();
        let choice = if S::READS { 0 } else { best_choice(positions, near) };
        let parameter = parameter(near, stream.bits(choice, 2));
        let mut start = 0u64;
        for i in 0..k as usize {
            let skipped = if S::READS { 0 } else { positions[i] - start as u32 };
            let (quotient, rest) = stream.rice(skipped, parameter);
            let position = start + (u64::from(quotient) << parameter) + u64::from(rest);
            if S::READS {
                if position >= segment.len as u64 {
                    return Err(Corrupt);
                }
                positions.push(position as u32);
            }
            start = position + 1;
        }
        Ok(())
    }
}

/// The parameter with the shortest code, as an offset to the smallest that is tried.
fn best_choice(positions: &[u32], near: u32) -> u32 {
    let bits = |b: u32| {
        let mut start = 0;
        let mut bits = positions.len() as u64 * u64::from(b);
        for &position in positions {
            bits += u64::from((position - start) >> b);
            start = position + 1;
        }
        bits
    };
    (0..4).min_by_key(|&choice| bits(parameter(near, choice))).unwrap_or(0)
}

/// Four parameters around log2 of the mean gap.
fn parameter(near: u32, choice: u32) -> u32 {
    (near + choice).saturating_sub(2).min(31)
}

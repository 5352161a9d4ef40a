//! A bitmap or a list of 32-bit indices, whichever is shorter: the baseline.

use super::{Corrupt, Positions, Share, plain_count};
use crate::{Segment, bits::Stream};

pub(crate) struct Plain;

impl<S: Stream> Positions<S> for Plain {
    fn count(&mut self, stream: &mut S, k: u32, _: Share) -> u32 {
        plain_count(stream, k)
    }

    fn positions(&mut self, stream: &mut S, segment: Segment, k: u32, positions: &mut Vec<u32>) -> Result<(), Corrupt> {
        let n = segment.len as u32;
        if u64::from(k) * 32 < u64::from(n) {
            for i in 0..k as usize {
                let position = stream.long(if S::READS { 0 } else { positions[i] }, 32);
                if S::READS {
                    if position >= n || positions.last().is_some_and(|&last| last >= position) {
                        return Err(Corrupt);
                    }
                    positions.push(position);
                }
            }
            return Ok(());
        }
        let mut next = 0;
        for start in (0..n).step_by(16) {
            let mut word = 0;
            while !S::READS && next < positions.len() && positions[next] < start + 16 {
                word |= 1 << (positions[next] - start);
                next += 1;
            }
            word = stream.bits(word, (n - start).min(16));
            while S::READS && word != 0 {
                positions.push(start + word.trailing_zeros());
                word &= word - 1;
            }
        }
        if positions.len() == k as usize { Ok(()) } else { Err(Corrupt) }
    }
}

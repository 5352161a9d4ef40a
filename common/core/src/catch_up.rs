//! From the model that a client holds to the one that it wants: the receiving end of a [`CatchUp`].

use crate::id::Digest;
use crate::message::{CatchUp, CatchUpBase};
use dunlin_codec::MaskedGrid;
use std::sync::Arc;

/// Why frames did not lead to the version that was promised. The remedy is to fetch anew, holding nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CatchUpError {
    /// The frames build on a model that the client does not hold.
    #[error("the frames build on a held model, and none is held")]
    NothingHeld,
    /// Other frames arrived than were announced.
    #[error("frames of {got:?} bytes arrived where {expected:?} were announced")]
    WrongFrames {
        /// Lengths announced.
        expected: Vec<u32>,
        /// Lengths received.
        got: Vec<usize>,
    },
    /// A frame cannot be applied to this model.
    #[error("frame {index} of {count}: {source}")]
    Frame {
        /// Which frame, from 1.
        index: usize,
        /// How many there are.
        count: usize,
        /// What is wrong with it.
        source: dunlin_codec::Error,
    },
    /// What the frames made of the held model is not what the server has.
    #[error("the model has checksum {got:08x} and should have {expected:08x}")]
    WrongChecksum {
        /// The server's checksum.
        expected: u32,
        /// The result's checksum.
        got: u32,
    },
    /// The result is not the model that the server has.
    #[error("the model has digest {got} and should have {expected}")]
    WrongDigest {
        /// The server's digest.
        expected: Digest,
        /// The result's digest.
        got: Digest,
    },
}

/// Applies the frames in order and checks the result: by its digest, or by its checksum if there is one and the base was
/// held, which was checked when it arrived.
///
/// `seeded` is the initial model, of which nothing was pruned yet. A held model that nobody else refers to is changed in
/// place instead of copied.
///
/// # Errors
/// When a frame is missing, damaged or for another model, or the result differs from the server's.
pub fn apply(
    catch_up: &CatchUp,
    frames: &[impl AsRef<[u8]>],
    held: Option<Arc<MaskedGrid>>,
    seeded: &MaskedGrid,
) -> Result<MaskedGrid, CatchUpError> {
    let got: Vec<usize> = frames.iter().map(|frame| frame.as_ref().len()).collect();
    if !got.iter().copied().eq(catch_up.frame_lens.iter().map(|&len| len as usize)) {
        return Err(CatchUpError::WrongFrames { expected: catch_up.frame_lens.clone(), got });
    }
    let mut model = match catch_up.base {
        CatchUpBase::Zero => {
            let mut zero = seeded.clone();
            zero.values_mut().fill(0);
            zero
        }
        CatchUpBase::Seeded => seeded.clone(),
        CatchUpBase::Held => Arc::unwrap_or_clone(held.ok_or(CatchUpError::NothingHeld)?),
    };
    for (index, frame) in (1..).zip(frames) {
        let applied = model.apply(frame.as_ref());
        applied.map_err(|source| CatchUpError::Frame { index, count: frames.len(), source })?;
    }
    if let (CatchUpBase::Held, Some(expected)) = (catch_up.base, catch_up.checksum) {
        let got = model.checksum();
        return if got == expected { Ok(model) } else { Err(CatchUpError::WrongChecksum { expected, got }) };
    }
    let got = Digest(model.digest());
    if got != catch_up.digest {
        return Err(CatchUpError::WrongDigest { expected: catch_up.digest, got });
    }
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ModelVersion;
    use dunlin_codec::{Encoder, Mask, Segment, Segments, grid};

    fn segments() -> Segments {
        Segments::new(vec![Segment { len: 4, row: 4 }]).unwrap()
    }

    fn model(values: [i32; 4]) -> MaskedGrid {
        MaskedGrid::whole(Arc::new(segments()), values.to_vec()).unwrap()
    }

    fn frame(delta: [i32; 4]) -> Vec<u8> {
        Encoder::new().encode_integers(&segments(), &delta).unwrap().frame
    }

    fn catch_up(base: CatchUpBase, frames: &[Vec<u8>], result: [i32; 4]) -> CatchUp {
        let frame_lens = frames.iter().map(|frame| frame.len() as u32).collect();
        let checksum = (base == CatchUpBase::Held).then(|| model(result).checksum());
        CatchUp { base, version: ModelVersion(3), digest: Digest(grid::digest(&result)), checksum, frame_lens }
    }

    #[test]
    fn frames_are_applied_in_order_to_the_base_named() {
        let frames = [frame([1, 0, 0, -2]), frame([0, 5, 0, -2])];
        let (held, seeded) = (Arc::new(model([10; 4])), model([100; 4]));
        for (base, result) in [
            (CatchUpBase::Zero, [1, 5, 0, -4]),
            (CatchUpBase::Seeded, [101, 105, 100, 96]),
            (CatchUpBase::Held, [11, 15, 10, 6]),
        ] {
            let got = apply(&catch_up(base, &frames, result), &frames, Some(held.clone()), &seeded);
            assert_eq!(got, Ok(model(result)), "{base:?}");
        }
    }

    #[test]
    fn no_frames_leave_the_base() {
        let none: [Vec<u8>; 0] = [];
        let same = catch_up(CatchUpBase::Seeded, &none, [7; 4]);
        assert_eq!(apply(&same, &none, None, &model([7; 4])), Ok(model([7; 4])));
    }

    #[test]
    fn a_held_base_must_be_held() {
        let frames = [frame([1, 0, 0, 0])];
        let from_held = catch_up(CatchUpBase::Held, &frames, [1, 0, 0, 0]);
        assert_eq!(apply(&from_held, &frames, None, &model([0; 4])), Err(CatchUpError::NothingHeld));
    }

    #[test]
    fn a_mask_arrives_before_what_is_within_it() {
        let all = Mask::all(Arc::new(segments()));
        let half = Arc::new(Mask::new(Arc::clone(all.whole()), |index| index != 1).unwrap());
        let mut frames = all.change_to(&half, &mut Encoder::new());
        frames.push(Encoder::new().encode_integers(half.segments(), &[0, 0, 5]).unwrap().frame);
        let result = MaskedGrid::new(half, vec![10, 10, 15]).unwrap();
        let frame_lens = frames.iter().map(|frame| frame.len() as u32).collect();
        let (digest, checksum) = (Digest(result.digest()), Some(result.checksum()));
        let pruned = CatchUp { base: CatchUpBase::Held, version: ModelVersion(3), digest, checksum, frame_lens };
        assert_eq!(apply(&pruned, &frames, Some(Arc::new(model([10; 4]))), &model([0; 4])), Ok(result));
    }

    #[test]
    fn another_model_than_promised_is_noticed() {
        let frames = [frame([1, 0, 0, 0])];
        let promised = catch_up(CatchUpBase::Held, &frames, [1, 0, 0, 0]);
        let drifted = apply(&promised, &frames, Some(Arc::new(model([0, 0, 1, 0]))), &model([0; 4]));
        assert!(matches!(drifted, Err(CatchUpError::WrongChecksum { .. })));
        // As from a server of the version before.
        let promised = CatchUp { checksum: None, ..promised };
        let drifted = apply(&promised, &frames, Some(Arc::new(model([0, 0, 1, 0]))), &model([0; 4]));
        assert!(matches!(drifted, Err(CatchUpError::WrongDigest { .. })));
        let fresh = apply(&catch_up(CatchUpBase::Seeded, &frames, [1, 0, 0, 0]), &frames, None, &model([0, 1, 0, 0]));
        assert!(matches!(fresh, Err(CatchUpError::WrongDigest { .. })));
    }

    #[test]
    fn missing_cut_and_damaged_frames_are_refused() {
        let frames = [frame([1, 2, 3, 4])];
        let whole = catch_up(CatchUpBase::Zero, &frames, [1, 2, 3, 4]);
        let none: [Vec<u8>; 0] = [];
        let missing = apply(&whole, &none, None, &model([0; 4]));
        assert!(matches!(missing, Err(CatchUpError::WrongFrames { .. })));
        for at in 0..frames[0].len() {
            let mut damaged = frames.clone();
            damaged[0][at] ^= 0x55;
            let refused = apply(&whole, &damaged, None, &model([0; 4]));
            assert!(matches!(refused, Err(CatchUpError::Frame { index: 1, count: 1, .. })), "byte {at}: {refused:?}");
        }
    }
}

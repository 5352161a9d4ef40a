//! Whether a received frame may count: the codec's verdict in the protocol's words.

use crate::decoding::decode;
use dunlin_codec::{
    CommonGrid, Error, FrameHeader, FrameKind, Limits, Mask, MaskedGrid, Quantizer, Segments, Sink, StageBytes,
};
use dunlin_core::message::UpdateHeader;
use dunlin_core::{Digest, Recipe, Reject};
use dunlin_nn::small::{Slice, Slices};
use std::sync::Arc;

/// What the frames of a round are held against.
#[derive(Clone, Debug)]
pub struct Rules {
    mask: Arc<Mask>,
    limits: Limits,
    max_abs: f32,
    kind: FrameKind,
    /// What integers are multiples of, where they have to be.
    grid: Option<CommonGrid>,
    /// The part of the model that such updates are about; nothing for the whole.
    slice: Option<Arc<Slice>>,
    /// What updates of smaller clients are held against.
    smaller: Vec<Self>,
}

/// A frame that may count.
#[derive(Clone, Debug, PartialEq)]
pub struct Vetted {
    /// Sizes of its stages.
    pub stages: StageBytes,
    /// Length of its vector, which tells the size of its sender.
    pub coordinates: usize,
    /// Its values by rising index, where they are few enough to be kept so that nobody decodes the frame again.
    pub values: Option<Vec<(u32, f32)>>,
}

impl Vetted {
    /// Memory that the values take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.values.as_ref().map_or(0, |values| size_of_val(values.as_slice()))
    }
}

impl Rules {
    /// The rules of a recipe for the updates of a round (from 1) to the model `base`.
    #[must_use]
    pub fn new(recipe: &Recipe, base: &MaskedGrid, round: u64) -> Self {
        let mask = recipe.sent_mask(round, base);
        let quantizer = recipe.update_codec(round).quantizer;
        let limits = Limits::for_segments(mask.segments());
        let grid = if let Quantizer::Common { grid, .. } = quantizer { Some(grid) } else { None };
        let max_abs = grid.map_or(recipe.limits.max_update_abs, CommonGrid::largest);
        Self { mask, limits, max_abs, kind: quantizer.kind(), grid, slice: None, smaller: Vec::new() }
    }

    /// The same, for clients of several sizes.
    #[must_use]
    pub fn with_slices(mut self, slices: &Slices) -> Self {
        let smaller = slices.iter().map(|slice| {
            let mask = Arc::new(Mask::all(Arc::clone(slice.segments())));
            let limits = Limits::for_segments(mask.segments());
            Self { mask, limits, slice: Some(Arc::clone(slice)), smaller: Vec::new(), ..self.clone() }
        });
        self.smaller = smaller.collect();
        self
    }

    /// The rules for updates of a frame's length: those for the whole model where no size has it.
    #[must_use]
    pub fn for_frame(&self, frame: &[u8]) -> &Self {
        FrameHeader::parse(frame).map_or(self, |header| self.for_header(&header))
    }

    fn for_header(&self, header: &FrameHeader) -> &Self {
        self.smaller.iter().find(|rules| rules.segments().len() == header.coordinates as usize).unwrap_or(self)
    }

    /// The part of the model that the updates are about; nothing for the whole.
    #[must_use]
    pub fn slice(&self) -> Option<&Slice> {
        self.slice.as_deref()
    }

    /// Longest frame that is received at all in any round, in bytes.
    #[must_use]
    pub fn max_frame_bytes(&self) -> u64 {
        Limits::for_segments(self.mask.whole()).max_frame_bytes as u64
    }

    /// The coordinates that updates are about.
    #[must_use]
    pub fn mask(&self) -> &Arc<Mask> {
        &self.mask
    }

    /// The tensors of those coordinates.
    #[must_use]
    pub fn segments(&self) -> &Segments {
        self.mask.segments()
    }

    /// The codec's limits.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Decodes a frame without using it. Takes time in proportion to the frame, so callers on an async worker do this
    /// elsewhere.
    ///
    /// # Errors
    /// Why the frame cannot count.
    pub fn vet(&self, header: &UpdateHeader, frame: &[u8]) -> Result<Vetted, Reject> {
        if frame.len() as u64 != header.frame_len {
            return Err(Reject::Truncated);
        }
        if Digest::of(frame) != header.digest {
            return Err(Reject::WrongDigest);
        }
        self.vet_frame(frame)
    }

    /// The same for a frame of whose length and digest the caller is certain.
    ///
    /// # Errors
    /// Why the frame cannot count.
    pub fn vet_frame(&self, frame: &[u8]) -> Result<Vetted, Reject> {
        let parsed = FrameHeader::parse(frame).map_err(|error| reason(&error))?;
        self.for_header(&parsed).vet_parsed(&parsed, frame)
    }

    fn vet_parsed(&self, parsed: &FrameHeader, frame: &[u8]) -> Result<Vetted, Reject> {
        if parsed.kind == FrameKind::Integers || !parsed.kind.has_values() {
            return Err(Reject::WrongCodec);
        }
        let (max_abs, values) = if self.keeps(parsed) {
            let mut kept = Kept { values: Vec::with_capacity(parsed.nonzeros as usize), max_abs: 0.0 };
            decode(frame, self.segments(), &self.limits, &mut kept).map_err(|error| reason(&error))?;
            (kept.max_abs, Some(kept.values))
        } else {
            let verified = dunlin_codec::verify(frame, self.segments(), &self.limits);
            (verified.map_err(|error| reason(&error))?.max_abs, None)
        };
        if parsed.kind != self.kind || self.grid.is_some_and(|grid| !grid.is_of(frame)) {
            return Err(Reject::WrongCodec);
        }
        if max_abs > self.max_abs {
            return Err(Reject::ValueTooLarge);
        }
        Ok(Vetted { stages: parsed.stages(self.segments(), frame), coordinates: self.segments().len(), values })
    }

    /// Most memory that the values of one frame take beside it, in bytes.
    #[must_use]
    pub fn max_kept_bytes(&self) -> u64 {
        (self.segments().len() / KEPT_OF * size_of::<(u32, f32)>()) as u64
    }

    /// Whether a frame's values are kept: those of a frame with more are read as quickly as it is.
    fn keeps(&self, header: &FrameHeader) -> bool {
        header.nonzeros as usize <= self.segments().len() / KEPT_OF
    }

    /// The sizes of the stages of a frame that was vetted before.
    pub(crate) fn stages_of(&self, frame: &[u8]) -> Result<StageBytes, Error> {
        let header = FrameHeader::parse(frame)?;
        Ok(header.stages(self.for_header(&header).segments(), frame))
    }
}

/// Receives values and keeps them.
struct Kept {
    values: Vec<(u32, f32)>,
    max_abs: f32,
}

impl Sink for Kept {
    fn add(&mut self, index: usize, value: f32) {
        self.values.push((index as u32, value));
        self.max_abs = self.max_abs.max(value.abs());
    }

    fn add_dense(&mut self, start: usize, values: &[f32]) {
        // Of a dense frame most are zero, and whether any of so many is not takes one comparison.
        for (start, values) in (start..).step_by(AT_ONCE).zip(values.chunks(AT_ONCE)) {
            if values.iter().fold(0, |bits, value| bits | value.to_bits() << 1) != 0 {
                for (index, &value) in (start..).zip(values).filter(|(_, value)| **value != 0.0) {
                    self.add(index, value);
                }
            }
        }
    }
}

/// Values of a dense frame that are skipped together.
const AT_ONCE: usize = 16;

/// Values are kept of frames in which at most one coordinate of so many is not zero.
const KEPT_OF: usize = 16;

fn reason(error: &Error) -> Reject {
    match error {
        Error::NotFinite { nan: true, .. } => Reject::NotANumber,
        Error::NotFinite { nan: false, .. } => Reject::Infinite,
        Error::Truncated { .. } => Reject::Truncated,
        Error::TooLarge { .. } => Reject::FrameTooLarge,
        Error::WrongCoordinates { .. } => Reject::WrongShape,
        Error::WrongKind { .. } => Reject::WrongCodec,
        Error::UnknownVersion(_) | Error::UnknownKind(_) => Reject::UnknownFormat,
        _ => Reject::Corrupt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_codec::{Codec, Encoder, EntropyCoder, Fit, Segment};
    use dunlin_core::recipe::{Coordinates, LinkConfig, QuantizerKind};
    use dunlin_core::{ClientId, ModelVersion, RoundId};

    fn header(frame: &[u8]) -> UpdateHeader {
        UpdateHeader {
            client: ClientId::new("a").unwrap(),
            round: RoundId { term: 1, number: 1 },
            base: ModelVersion(0),
            examples: 1,
            loss: 0.0,
            frame_len: frame.len() as u64,
            digest: Digest::of(frame),
        }
    }

    fn zero_model(segments: Segments) -> MaskedGrid {
        let zeros = vec![0; segments.len()];
        MaskedGrid::whole(Arc::new(segments), zeros).unwrap()
    }

    fn setting(kind: QuantizerKind) -> (Rules, Vec<u8>) {
        let mut recipe = Recipe::default();
        recipe.uplink.quantizer = kind;
        let quantizer = recipe.uplink.quantizer();
        let segments = Segments::new(vec![Segment { len: 1000, row: 10 }]).unwrap();
        let codec = Codec { density: 1.0, quantizer, coder: EntropyCoder::Raw };
        let u: Vec<f32> = (0..1000).map(|i| i as f32 / 100.0 - 5.0).collect();
        let frame = Encoder::new().encode(&codec, &segments, &u).unwrap().frame;
        (Rules::new(&recipe, &zero_model(segments), 1), frame)
    }

    fn resealed(mut frame: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        frame.truncate(frame.len() - 4);
        change(&mut frame);
        let checksum = crc32c::crc32c(&frame);
        frame.extend(checksum.to_le_bytes());
        frame
    }

    #[test]
    fn each_fault_of_a_frame_has_its_own_reason() {
        let (rules, frame) = setting(QuantizerKind::F32);
        let verdict = |frame: &[u8]| rules.vet(&header(frame), frame).map(|_| ());
        assert_eq!(verdict(&frame), Ok(()));
        let last_value = frame.len() - 8;
        let with =
            |value: f32| resealed(frame.clone(), |frame| frame[last_value..].copy_from_slice(&value.to_le_bytes()));
        assert_eq!(verdict(&with(f32::NAN)), Err(Reject::NotANumber));
        assert_eq!(verdict(&with(f32::INFINITY)), Err(Reject::Infinite));
        assert_eq!(verdict(&with(f32::NEG_INFINITY)), Err(Reject::Infinite));
        assert_eq!(verdict(&with(1e6)), Err(Reject::ValueTooLarge));
        assert_eq!(verdict(&resealed(frame.clone(), |frame| frame.truncate(500))), Err(Reject::Truncated));
        assert_eq!(verdict(b"random bytes that nobody encoded"), Err(Reject::Corrupt));
        let (other, other_frame) = setting(QuantizerKind::F16);
        assert_eq!(verdict(&other_frame), Err(Reject::WrongCodec));
        assert_eq!(other.vet(&header(&frame), &frame).map(|_| ()), Err(Reject::WrongCodec));
        let announced = UpdateHeader { frame_len: 9999, ..header(&frame) };
        assert_eq!(rules.vet(&announced, &frame).map(|_| ()), Err(Reject::Truncated));
        let announced = UpdateHeader { digest: Digest([0; 32]), ..header(&frame) };
        assert_eq!(rules.vet(&announced, &frame).map(|_| ()), Err(Reject::WrongDigest));
    }

    #[test]
    fn every_quantizer_passes_its_own_rules_with_the_sizes_that_its_encoder_counts() {
        for kind in [
            QuantizerKind::F32,
            QuantizerKind::F16,
            QuantizerKind::Int8,
            QuantizerKind::Ternary,
            QuantizerKind::Codebook,
        ] {
            for (density, value) in [(1.0, 0.5), (0.05, 0.5), (0.05, 0.0)] {
                let (rules, _) = setting(kind);
                let quantizer = LinkConfig { quantizer: kind, ..LinkConfig::default() }.quantizer();
                let u: Vec<f32> = (0..1000).map(|i| value * (i as f32).cos()).collect();
                let codec = Codec { density, quantizer, coder: EntropyCoder::Auto };
                let encoded = Encoder::new().encode(&codec, rules.segments(), &u).unwrap();
                let vetted = rules.vet(&header(&encoded.frame), &encoded.frame).unwrap();
                assert_eq!(vetted.stages, encoded.stages, "{codec:?} of {value}");
                assert_eq!(vetted.values.is_some(), encoded.nonzeros <= 1000 / KEPT_OF);
                assert_eq!(vetted.values.map_or(encoded.nonzeros, |values| values.len()), encoded.nonzeros);
                assert_eq!(rules.stages_of(&encoded.frame), Ok(encoded.stages));
            }
        }
    }

    #[test]
    fn whole_vectors_pass_their_own_rules_with_the_sizes_that_their_encoder_counts() {
        for kind in [
            QuantizerKind::Rotated,
            QuantizerKind::Eden,
            QuantizerKind::Qsgd,
            QuantizerKind::Terngrad,
            QuantizerKind::Sign,
            QuantizerKind::LowRank,
            QuantizerKind::Common,
        ] {
            let (rules, _) = setting(kind);
            let quantizer = LinkConfig { quantizer: kind, ..LinkConfig::default() }.quantizer();
            let u: Vec<f32> = (0..1000).map(|i| (i as f32).cos()).collect();
            let codec = Codec { density: 1.0, quantizer, coder: EntropyCoder::Auto };
            let encoded = Encoder::new().encode(&codec, rules.segments(), &u).unwrap();
            let vetted = rules.vet(&header(&encoded.frame), &encoded.frame).unwrap();
            assert_eq!(vetted, Vetted { stages: encoded.stages, coordinates: 1000, values: None }, "{kind:?}");
            assert_eq!(rules.stages_of(&encoded.frame), Ok(encoded.stages));
        }
    }

    #[test]
    fn a_frame_whose_values_are_kept_is_held_against_the_same_rules() {
        let (rules, _) = setting(QuantizerKind::F32);
        let verdict = |value: f32| {
            let mut u = vec![0.0; 1000];
            u[7] = value;
            let codec = Codec { density: 0.001, quantizer: Quantizer::F32, coder: EntropyCoder::Raw };
            let frame = Encoder::new().encode(&codec, rules.segments(), &u).unwrap().frame;
            rules.vet(&header(&frame), &frame).map(|vetted| vetted.values)
        };
        assert_eq!(verdict(-0.5), Ok(Some(vec![(7, -0.5)])));
        assert_eq!(verdict(1e6), Err(Reject::ValueTooLarge));
        let (other, _) = setting(QuantizerKind::F16);
        let codec = Codec { density: 0.001, quantizer: Quantizer::F32, coder: EntropyCoder::Raw };
        let frame = Encoder::new().encode(&codec, rules.segments(), &[0.5; 1000]).unwrap().frame;
        assert_eq!(other.vet(&header(&frame), &frame), Err(Reject::WrongCodec));
    }

    #[test]
    fn integers_of_another_grid_beyond_its_bound_or_of_other_coordinates_have_each_their_own_reason() {
        let mut recipe = Recipe::default();
        // Steps of 1/16, at most four of them, of a tenth of the coordinates.
        let uplink = LinkConfig { quantizer: QuantizerKind::Common, bits: 4.0, clip: 0.3, ..LinkConfig::default() };
        recipe.uplink = LinkConfig { density: 0.1, ..uplink };
        recipe.common.coordinates = Coordinates::Random;
        let base = zero_model(Segments::new(vec![Segment { len: 1000, row: 10 }]).unwrap());
        let rules = Rules::new(&recipe, &base, 1);
        let frame = |bits: u8, clip: f64, len: usize, value: f32| {
            let quantizer = Quantizer::Common { grid: CommonGrid::new(bits, clip).unwrap(), fit: Fit::LeastError };
            let codec = Codec { density: 1.0, quantizer, coder: EntropyCoder::Raw };
            let segments = Segments::new(vec![Segment { len, row: len }]).unwrap();
            Encoder::new().encode(&codec, &segments, &vec![value; len]).unwrap().frame
        };
        let verdict = |frame: Vec<u8>| rules.vet(&header(&frame), &frame).map(|_| ());
        assert_eq!([0.25, -0.25, 0.0, 9.0].map(|value| verdict(frame(4, 0.3, 100, value))), [Ok(()); 4]);
        // The same integers, of which the bound allows more.
        assert_eq!(verdict(frame(4, 0.5, 100, 0.3125)), Err(Reject::ValueTooLarge));
        assert_eq!(verdict(frame(4, 0.5, 100, -0.3125)), Err(Reject::ValueTooLarge));
        assert_eq!(verdict(frame(4, 0.5, 100, 0.25)), Ok(()));
        assert_eq!(verdict(frame(4, 0.25, 100, 0.25)), Err(Reject::WrongCodec), "half the step");
        assert_eq!(verdict(frame(5, 1.0, 100, 0.25)), Err(Reject::WrongCodec), "the step in more bits");
        assert_eq!(verdict(frame(4, 0.3, 99, 0.25)), Err(Reject::WrongShape));
        assert_eq!(verdict(frame(4, 0.3, 500, 0.25)), Err(Reject::WrongShape), "too many coordinates");
        let mut cut = frame(4, 0.3, 100, 0.25);
        cut.truncate(cut.len() - 5);
        assert_eq!(verdict(resealed(cut, |_| {})), Err(Reject::Truncated));
        assert_eq!(verdict(resealed(frame(4, 0.3, 100, 0.25), |frame| frame.push(0))), Err(Reject::Corrupt));
        let impossible = resealed(frame(4, 0.3, 100, 0.25), |frame| frame[6] = 9);
        assert_eq!(verdict(impossible), Err(Reject::Corrupt), "integers of nine bits");
        let mut announcing = base;
        announcing.announce(Some(Arc::new(announcing.mask().random_part(100, 1)))).unwrap();
        let announcement = announcing.announcement(&mut Encoder::new()).unwrap();
        assert_eq!(verdict(announcement), Err(Reject::WrongCodec));
    }

    #[test]
    fn exact_integers_are_not_an_update() {
        let (rules, _) = setting(QuantizerKind::F32);
        let frame = Encoder::new().encode_integers(rules.segments(), &[1; 1000]).unwrap().frame;
        assert_eq!(rules.vet(&header(&frame), &frame), Err(Reject::WrongCodec));
    }

    #[test]
    fn the_largest_value_allowed_is_the_recipes() {
        let (rules, _) = setting(QuantizerKind::F32);
        let verdict = |value: f32| {
            let codec = Codec { density: 1.0, quantizer: Quantizer::F32, coder: EntropyCoder::Raw };
            let frame = Encoder::new().encode(&codec, rules.segments(), &[value; 1000]).unwrap().frame;
            rules.vet(&header(&frame), &frame).map(|_| ())
        };
        let most = Recipe::default().limits.max_update_abs;
        assert_eq!((verdict(most), verdict(-most)), (Ok(()), Ok(())));
        assert_eq!(verdict(most.next_up()), Err(Reject::ValueTooLarge));
        assert_eq!(verdict(-most.next_up()), Err(Reject::ValueTooLarge));
    }

    #[test]
    fn a_frame_beyond_the_bound_is_refused_before_it_is_decoded() {
        let (rules, frame) = setting(QuantizerKind::F32);
        let mut long = frame;
        long.resize(rules.max_frame_bytes() as usize + 1, 0);
        assert_eq!(rules.vet(&header(&long), &long), Err(Reject::FrameTooLarge));
    }

    #[test]
    fn a_frame_for_another_model_has_the_wrong_shape() {
        let (_, frame) = setting(QuantizerKind::F32);
        let segments = Segments::new(vec![Segment { len: 2000, row: 10 }]).unwrap();
        let mut recipe = Recipe::default();
        recipe.uplink.quantizer = QuantizerKind::F32;
        let rules = Rules::new(&recipe, &zero_model(segments), 1);
        assert_eq!(rules.vet(&header(&frame), &frame).map(|_| ()), Err(Reject::WrongShape));
    }
}

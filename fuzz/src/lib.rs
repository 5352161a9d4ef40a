//! What must hold for any bytes, as functions that a fuzzer and a test can call. They panic when it does not.

use dunlin_codec::{
    Encoder, FrameHeader, FrameKind, IntegerSink, Limits, MaskedGrid, Segment, Segments, Sink, decode_integers, verify,
};
use dunlin_core::Recipe;
use dunlin_core::message::{CatchUp, CheckIn, FetchModel, Join, Receipt};
use dunlin_core::wire;
use dunlin_proto::v1;
use prost::Message;
use std::sync::Arc;

/// The names of the functions here.
pub const TARGETS: [&str; 3] = ["decode", "boundary", "catch_up"];

/// A frame for one of a few models: the first byte says which. What verifies decodes to as many finite values as it
/// says, within the model; what does not verify does not decode.
pub fn decode(data: &[u8]) {
    let Some((model, content)) = data.split_first() else { return };
    let segments = segments(*model);
    let frame = sealed(content);
    let limits = Limits::for_segments(&segments);
    let verified = verify(&frame, &segments, &limits);
    let (mut floats, mut integers) = (Strict::of(&segments), Strict::of(&segments));
    let decoded = dunlin_codec::decode(&frame, &segments, &limits, &mut floats);
    let as_integers = decode_integers(&frame, &segments, &limits, &mut integers);
    if FrameHeader::parse(&frame).is_ok_and(|header| !header.kind.has_values()) {
        // It has no values.
        assert!(decoded.is_err() && as_integers.is_err());
        return;
    }
    assert_eq!(verified.is_ok(), decoded.is_ok() || as_integers.is_ok(), "{verified:?} {decoded:?} {as_integers:?}");
    if let Ok(verified) = verified {
        let is_whole = FrameHeader::parse(&frame).is_ok_and(|header| matches!(header.kind, FrameKind::Whole(_)));
        let sink = if decoded.is_ok() { floats } else { integers };
        if is_whole {
            // Blocks of nothing but zeros are left out.
            assert!(verified.nonzeros == segments.len() && sink.added <= segments.len());
        } else {
            assert_eq!(verified.nonzeros, sink.nonzeros);
        }
    }
}

/// A message of one of the protocol's kinds, or a recipe: the first byte says which. What is read can be written, and is
/// then read again as the same.
pub fn boundary(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 12 {
        0 => {
            let Some(join) = read::<v1::JoinRequest>(bytes).and_then(|message| Join::try_from(&message).ok()) else {
                return;
            };
            assert_eq!(Join::try_from(&join.to_wire("fuzz")), Ok(join));
        }
        1 => drop(read(bytes).map(wire::read_join_reply)),
        2 => {
            let Some(check_in) = read(bytes).and_then(|message: v1::CheckInRequest| CheckIn::try_from(&message).ok())
            else {
                return;
            };
            assert_eq!(CheckIn::try_from(&v1::CheckInRequest::from(&check_in)), Ok(check_in));
        }
        3 => {
            let Some(Ok(assignment)) = read(bytes).map(wire::read_check_in_reply) else { return };
            assert_eq!(wire::read_check_in_reply(wire::check_in_reply(Ok(assignment.clone()))), Ok(assignment));
        }
        4 => {
            let Some(fetch) =
                read(bytes).and_then(|message: v1::FetchModelRequest| FetchModel::try_from(&message).ok())
            else {
                return;
            };
            assert_eq!(FetchModel::try_from(&v1::FetchModelRequest::from(&fetch)), Ok(fetch));
        }
        5 => {
            let Some(plan) = read(bytes).and_then(|message: v1::CatchUp| CatchUp::try_from(message).ok()) else {
                return;
            };
            assert_eq!(CatchUp::try_from(v1::CatchUp::from(&plan)), Ok(plan));
        }
        6 => {
            let Some(Ok((session, header))) = read(bytes).map(|message| wire::read_update_header(Some(message))) else {
                return;
            };
            let again = wire::read_update_header(Some(wire::update_header(&session, &header)));
            // A loss may be NaN, which is not equal to itself.
            assert_eq!(format!("{again:?}"), format!("{:?}", Ok::<_, ()>((session, header))));
        }
        7 => {
            let Some(receipt) = read(bytes).and_then(|message: v1::Receipt| Receipt::try_from(message).ok()) else {
                return;
            };
            assert_eq!(Receipt::try_from(v1::Receipt::from(receipt)), Ok(receipt));
        }
        8 => drop(read(bytes).map(wire::read_upload_reply)),
        9 => drop(read(bytes).map(wire::read_upload_offset_reply)),
        10 => {
            let _ = read(bytes).map(|message: v1::ReportEvaluationRequest| wire::read_evaluation(&message));
        }
        _ => {
            let Some(recipe) = std::str::from_utf8(bytes).ok().and_then(|text| Recipe::from_toml(text).ok()) else {
                return;
            };
            assert_eq!(Recipe::from_toml(&recipe.to_toml()).as_ref(), Ok(&recipe));
        }
    }
}

/// Frames of values and of masks, one after the other, each behind its length in two bytes; the first byte says for which
/// model. Applied, they lead to a model to which a few frames lead from nothing.
pub fn catch_up(data: &[u8]) {
    let Some((model, mut rest)) = data.split_first() else { return };
    let whole = Arc::new(segments(*model));
    let zeros = vec![0; whole.len()];
    let seeded = MaskedGrid::whole(Arc::clone(&whole), zeros).expect("one integer for each coordinate");
    let mut held = seeded.clone();
    while let Some((len, after)) = rest.split_first_chunk::<2>() {
        let (content, after) = after.split_at(usize::from(u16::from_le_bytes(*len)).min(after.len()));
        rest = after;
        let frame = sealed(content);
        let of_mask = FrameHeader::parse(&frame).is_ok_and(|header| !header.kind.has_values());
        let segments = held.mask().segments();
        let is_valid = verify(&frame, segments, &Limits::for_segments(segments)).is_ok();
        let before = held.clone();
        let applied = held.apply(&frame);
        assert!(of_mask || is_valid == applied.is_ok(), "{applied:?}");
        if applied.is_err() {
            held = before;
        }
        assert!(held.values().len() == held.mask().len() && held.mask().indices().count() == held.mask().len());
    }
    let mut fresh = seeded;
    let mut encoder = Encoder::new();
    let mut frames = fresh.mask().change_to(held.mask(), &mut encoder);
    let values = encoder.encode_integers(held.mask().segments(), held.values());
    frames.push(values.expect("a model fits its own mask").frame);
    frames.extend(held.announcement(&mut encoder));
    for frame in &frames {
        fresh.apply(frame).expect("a snapshot applies");
    }
    assert_eq!(fresh, held);
    assert_eq!(fresh.digest(), held.digest());
}

/// Models with what makes layouts differ: a matrix and its bias, one row, single elements, many coordinates.
fn segments(choice: u8) -> Segments {
    let shapes: &[(usize, usize)] = match choice % 5 {
        0 => &[(700, 25), (30, 30), (400, 400)],
        1 => &[(1, 1)],
        2 => &[(5, 5), (1, 1), (64, 8)],
        3 => &[(4096, 64)],
        // With as many non-zeros as make gaps worth a table.
        _ => &[(40_000, 200)],
    };
    Segments::new(shapes.iter().map(|&(len, row)| Segment { len, row }).collect()).expect("shapes of a model")
}

/// A frame's content with the checksum that it should have, without which nothing else would ever be tried.
fn sealed(content: &[u8]) -> Vec<u8> {
    let mut frame = content.to_vec();
    frame.extend(crc32c::crc32c(content).to_le_bytes());
    frame
}

fn read<M: Message + Default>(bytes: &[u8]) -> Option<M> {
    M::decode(bytes).ok()
}

/// Refuses what no sink should ever see.
struct Strict {
    len: usize,
    added: usize,
    nonzeros: usize,
}

impl Strict {
    fn of(segments: &Segments) -> Self {
        Self { len: segments.len(), added: 0, nonzeros: 0 }
    }
}

impl Sink for Strict {
    fn add(&mut self, index: usize, value: f32) {
        assert!(index < self.len && value.is_finite(), "{value} at {index} of {}", self.len);
        self.added += 1;
        self.nonzeros += usize::from(value != 0.0);
    }
}

impl IntegerSink for Strict {
    fn add(&mut self, index: usize, value: i32) {
        assert!(index < self.len, "{value} at {index} of {}", self.len);
        self.added += 1;
        self.nonzeros += usize::from(value != 0);
    }
}

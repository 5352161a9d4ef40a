//! Masks against plain lists of indices.

use super::{Mask, MaskedGrid};
use crate::{Encoder, Error, FrameHeader, FrameKind, Segment, Segments, Verified, grid, verify};
use std::sync::Arc;

fn whole() -> Arc<Segments> {
    let segment = |len, row| Segment { len, row };
    Arc::new(Segments::new(vec![segment(640, 64), segment(3, 3), segment(130, 13)]).unwrap())
}

fn hash(index: usize, salt: u32) -> u32 {
    (index as u32).wrapping_mul(2_654_435_761).wrapping_add(salt).wrapping_mul(0x9E37_79B9) >> 16
}

fn mask(salt: u32, percent: u32) -> Mask {
    Mask::new(whole(), |index| hash(index, salt) % 100 < percent).unwrap()
}

#[test]
fn gathering_and_scattering_undo_each_other() {
    for percent in [1, 5, 50, 99, 100] {
        let mask = mask(7, percent);
        let expected: Vec<usize> = (0..773).filter(|&index| mask.contains(index)).collect();
        assert_eq!(mask.indices().collect::<Vec<_>>(), expected);
        assert_eq!((mask.len(), mask.is_all()), (expected.len(), percent == 100));
        let mut values: Vec<i32> = (1..=773).collect();
        mask.gather(&mut values);
        assert_eq!(values, expected.iter().map(|&index| index as i32 + 1).collect::<Vec<_>>());
        let scattered = mask.scatter(&values);
        assert!((0..773).all(|index| scattered[index] == if mask.contains(index) { index as i32 + 1 } else { 0 }));
        assert_eq!(Mask::from_bytes(whole(), &mask.to_bytes()).unwrap(), mask);
    }
}

#[test]
fn segments_count_what_is_left_of_each_tensor() {
    let mask = Mask::new(whole(), |index| !(70..=700).contains(&index)).unwrap();
    let lens: Vec<usize> = mask.segments().iter().map(|segment| segment.len).collect();
    assert_eq!(lens, [70, 72], "the second tensor is gone");
    assert_eq!(Mask::new(whole(), |_| false), Err(Error::EmptyMask));
    assert!(!mask.contains(773));
}

#[test]
fn frames_lead_from_any_mask_to_any_other() {
    let masks = [mask(1, 100), mask(1, 50), mask(1, 40), mask(2, 50), mask(3, 2), mask(4, 99)];
    let mut encoder = Encoder::new();
    for from in &masks {
        for to in &masks {
            let frames = from.change_to(to, &mut encoder);
            let mut reached = from.clone();
            for frame in &frames {
                reached = reached.changed(frame).unwrap();
            }
            assert_eq!(&reached, to);
            assert_eq!(frames.is_empty(), from == to);
        }
    }
    let kinds: Vec<FrameKind> = masks[1]
        .change_to(&masks[3], &mut encoder)
        .iter()
        .map(|frame| FrameHeader::parse(frame).unwrap().kind)
        .collect();
    assert_eq!(kinds, [FrameKind::Pruned, FrameKind::Grown]);
    // 40 of 50 % are left: only what is lost of them is told.
    let nested = masks[1].change_to(&masks[2], &mut encoder);
    let anew = masks[0].change_to(&masks[2], &mut encoder);
    assert!(nested.len() == 1 && nested[0].len() < anew[0].len());
}

#[test]
fn a_frame_of_positions_costs_what_its_entropy_is() {
    let n = 200_000;
    let whole = Arc::new(Segments::new(vec![Segment { len: n, row: 500 }]).unwrap());
    let mask = Mask::new(Arc::clone(&whole), |index| hash(index, 9) % 100 < 10).unwrap();
    let frames = Mask::all(whole).change_to(&mask, &mut Encoder::new());
    let (p, n) = (mask.len() as f64 / n as f64, n as f64);
    let entropy = -n * (p * p.log2() + (1.0 - p) * (1.0 - p).log2()) / 8.0;
    assert!((frames[0].len() as f64) < 1.01 * entropy + 16.0, "{} bytes, {entropy} of entropy", frames[0].len());
}

#[test]
fn a_model_follows_frames_of_masks_and_values() {
    let all = Arc::new(Mask::all(whole()));
    let mut model = MaskedGrid::new(Arc::clone(&all), (1..=773).collect()).unwrap();
    assert_eq!(model.digest(), grid::digest(model.values()));
    let (first, second) = (mask(1, 50), mask(2, 60));
    let mut encoder = Encoder::new();
    for frame in all.change_to(&first, &mut encoder) {
        model.apply(&frame).unwrap();
    }
    let mut delta = vec![0; first.len()];
    delta[3] = 1000;
    model.apply(&encoder.encode_integers(first.segments(), &delta).unwrap().frame).unwrap();
    for frame in first.change_to(&second, &mut encoder) {
        model.apply(&frame).unwrap();
    }
    let moved = first.indices().nth(3).unwrap();
    let expected: Vec<i32> = second
        .indices()
        .map(|index| if !first.contains(index) { 0 } else { index as i32 + if index == moved { 1001 } else { 1 } })
        .collect();
    assert_eq!((model.values(), &**model.mask()), (expected.as_slice(), &second));
    let floats = model.floats();
    assert!((0..773).all(|index| second.contains(index) || floats[index] == 0.0));
    let other = MaskedGrid::new(Arc::new(mask(5, 60)), vec![0; mask(5, 60).len()]).unwrap();
    let zeros = MaskedGrid::new(Arc::new(second.clone()), vec![0; second.len()]).unwrap();
    assert_ne!(other.digest(), zeros.digest());
}

#[test]
fn frames_that_do_not_fit_are_refused() {
    let (all, half) = (Mask::all(whole()), mask(1, 50));
    let mut encoder = Encoder::new();
    let frame = &all.change_to(&half, &mut encoder)[0];
    assert!(matches!(half.changed(frame), Err(Error::WrongCoordinates { .. })));
    let grown = &half.change_to(&mask(1, 60), &mut encoder)[0];
    assert_eq!(all.changed(grown), Err(Error::NothingPruned));
    let values = encoder.encode_integers(all.segments(), &[1; 773]).unwrap().frame;
    assert_eq!(all.changed(&values), Err(Error::WrongKind { got: FrameKind::Integers }));
    let everything: Vec<u32> = (0..773).collect();
    let nothing_left = encoder.encode_positions(FrameKind::Pruned, all.segments(), &everything);
    assert_eq!(all.changed(&nothing_left), Err(Error::EmptyMask));
    let limits = crate::Limits::for_segments(all.segments());
    let nonzeros = 773 - half.len();
    assert_eq!(verify(frame, all.segments(), &limits), Ok(Verified { nonzeros, max_abs: 0.0 }));
    let got = FrameKind::Pruned;
    assert_eq!(crate::decode(frame, all.segments(), &limits, &mut vec![0.0; 773]), Err(Error::WrongKind { got }));
    for at in 0..frame.len() {
        let mut damaged = frame.clone();
        damaged[at] ^= 0x10;
        assert!(all.changed(&damaged).is_err(), "byte {at}");
    }
    let bytes = half.to_bytes();
    assert_eq!(bytes.len(), 97);
    assert!(matches!(Mask::from_bytes(whole(), &bytes[1..]), Err(Error::WrongLength { .. })));
    let mut behind = bytes;
    behind[96] |= 0x80;
    assert_eq!(Mask::from_bytes(whole(), &behind), Err(Error::BadValue { index: 773 }));
}

#[test]
fn an_announcement_arrives_with_a_model_and_holds_until_the_next_frame() {
    let mut encoder = Encoder::new();
    for mask in [Mask::all(whole()), mask(1, 50)].map(Arc::new) {
        let zeros = vec![0; mask.len()];
        let plain = MaskedGrid::new(Arc::clone(&mask), zeros.clone()).unwrap();
        let announced = Arc::new(mask.random_part(40, 2));
        let mut sender = plain.clone();
        assert_eq!((sender.announced(), sender.announcement(&mut encoder)), (None, None));
        sender.announce(Some(Arc::clone(&announced))).unwrap();
        let frame = sender.announcement(&mut encoder).unwrap();
        let segments = mask.segments();
        let verified = verify(&frame, segments, &crate::Limits::for_segments(segments));
        assert_eq!(verified, Ok(Verified { nonzeros: 40, max_abs: 0.0 }));
        assert_eq!(FrameHeader::parse(&frame).unwrap().kind, FrameKind::Announced);
        let mut receiver = plain.clone();
        receiver.apply(&frame).unwrap();
        assert_eq!((&receiver, receiver.digest()), (&sender, sender.digest()));
        assert_eq!(receiver.announced(), Some(&announced));
        // The same model with other coordinates, and with none, is told apart.
        let mut other = plain.clone();
        other.announce(Some(Arc::new(mask.random_part(40, 3)))).unwrap();
        assert!(plain.digest() != sender.digest() && other.digest() != sender.digest());
        receiver.apply(&encoder.encode_integers(segments, &zeros).unwrap().frame).unwrap();
        assert_eq!(receiver, plain);
        receiver.apply(&frame).unwrap();
        let smaller = Arc::new(mask.random_part(mask.len() - 1, 2));
        receiver.apply(&mask.change_to(&smaller, &mut encoder)[0]).unwrap();
        assert_eq!((receiver.mask(), receiver.announced()), (&smaller, None));
        assert!(matches!(receiver.apply(&frame), Err(Error::WrongCoordinates { .. })));
    }
}

#[test]
fn what_cannot_be_announced_is_refused() {
    let (all, half) = (Arc::new(Mask::all(whole())), Arc::new(mask(1, 50)));
    let mut model = MaskedGrid::new(Arc::clone(&half), vec![0; half.len()]).unwrap();
    let gone = (0..773).find(|&index| !half.contains(index)).unwrap();
    assert_eq!(model.announce(Some(Arc::clone(&all))), Err(Error::BadValue { index: gone }));
    assert_eq!(model.announced(), None);
    let mut encoder = Encoder::new();
    let nothing = encoder.encode_positions(FrameKind::Announced, half.segments(), &[]);
    assert_eq!(model.apply(&nothing), Err(Error::EmptyMask));
    let frame = encoder.encode_positions(FrameKind::Announced, half.segments(), &[3, 5, 200]);
    let got = FrameKind::Announced;
    assert_eq!(half.changed(&frame), Err(Error::WrongKind { got }), "it changes no mask");
    let limits = crate::Limits::for_segments(half.segments());
    let mut values = vec![0.0; half.len()];
    assert_eq!(crate::decode(&frame, half.segments(), &limits, &mut values), Err(Error::WrongKind { got }));
    for at in 0..frame.len() {
        let mut damaged = frame.clone();
        damaged[at] ^= 0x10;
        assert!(model.apply(&damaged).is_err(), "byte {at}");
    }
}

#[test]
fn what_belongs_to_tensors_goes_with_those_that_are_left() {
    let segments = Arc::new(Segments::new([3, 70, 2].map(|len| Segment { len, row: len }).to_vec()).unwrap());
    assert_eq!(Mask::all(Arc::clone(&segments)).of_tensors(&['a', 'b', 'c']), ['a', 'b', 'c']);
    let left = |is_left: &dyn Fn(usize) -> bool| Mask::new(Arc::clone(&segments), is_left).unwrap();
    assert_eq!(left(&|i| i == 0 || i == 74).of_tensors(&['a', 'b', 'c']), ['a', 'c']);
    assert_eq!(left(&|i| i == 72).of_tensors(&['a', 'b', 'c']), ['b']);
}

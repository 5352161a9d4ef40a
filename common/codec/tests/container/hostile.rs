//! Bytes from anywhere: never a panic, never more memory than allowed, and for each corruption an error of its own.

use crate::support::every_kind;
use dunlin_codec::container::{Container, Error, Limits};
use proptest::prelude::*;

const LIMITS: Limits = Limits { max_bytes: 1 << 16, max_elements: 1 << 12 };

fn read(file: &[u8]) -> Result<Container, Error> {
    Container::from_bytes(file, &LIMITS)
}

/// A file of this content after magic and version, with the right checksum.
fn sealed(content: &[u8]) -> Vec<u8> {
    let mut file = [b"DNLC\x02", content].concat();
    file.extend(crc32c::crc32c(&file).to_le_bytes());
    file
}

/// An entry of the table without payload.
fn entry(name: &str, shape: &[u8], kind: u8, nonzeros: u8, payload: u8) -> Vec<u8> {
    [&[name.len() as u8], name.as_bytes(), &[shape.len() as u8], shape, &[kind, nonzeros, payload]].concat()
}

/// A file of one tensor.
fn one(entry: &[u8], payload: &[u8]) -> Vec<u8> {
    sealed(&[&[0, 1], entry, payload].concat())
}

#[test]
fn every_truncation_and_every_changed_byte_is_noticed() {
    let file = every_kind().to_bytes().unwrap();
    for len in 0..file.len() {
        assert!(read(&file[..len]).is_err(), "{len} bytes");
    }
    for i in 0..file.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = file.clone();
            changed[i] ^= change;
            let error = read(&changed).unwrap_err();
            match i {
                0..4 => assert_eq!(error, Error::NotAContainer),
                4 => assert_eq!(error, Error::UnknownVersion(2 ^ change)),
                _ => assert!(matches!(error, Error::Checksum { .. }), "{error}"),
            }
        }
    }
}

#[test]
fn changed_bytes_under_a_right_checksum_are_harmless() {
    let file = every_kind().to_bytes().unwrap();
    let content = &file[5..file.len() - 4];
    for i in 0..content.len() {
        for change in [1, 2, 0x10, 0x80, 0xff] {
            let mut changed = content.to_vec();
            changed[i] ^= change;
            if let Ok(container) = read(&sealed(&changed)) {
                container.tensors.iter().for_each(|tensor| assert_eq!(tensor.values.to_f32().len(), tensor.len()));
                assert!(container.to_bytes().is_ok());
            }
        }
    }
}

#[test]
fn each_part_has_its_own_refusal() {
    let name = || "w".to_owned();
    assert_eq!(read(b"safetens"), Err(Error::NotAContainer));
    assert_eq!(read(b"DNLC\x03"), Err(Error::UnknownVersion(3)));
    assert_eq!(read(b"DNLC\x02\0"), Err(Error::Truncated { got: 6 }));
    assert_eq!(read(&vec![0; (1 << 16) + 1]), Err(Error::TooLarge { got: (1 << 16) + 1, limit: 1 << 16 }));
    assert_eq!(read(&sealed(&[0, 1, 1])), Err(Error::Truncated { got: 8 }));
    assert_eq!(read(&sealed(&[0xff; 6])), Err(Error::BadNumber { at: 5 }));
    assert_eq!(read(&sealed(&[1, 1, 0xfe, 0, 0])), Err(Error::BadText { at: 6 }));
    assert_eq!(read(&sealed(&[2, 1, b'k', 0, 1, b'k', 0, 0])), Err(Error::DuplicateKey { key: "k".into() }));
    assert_eq!(read(&sealed(&[0, 0, 9])), Err(Error::TrailingBytes(1)));
    assert_eq!(read(&one(&entry("w", &[2], 6, 0, 0), &[])), Err(Error::UnknownKind { tensor: name(), kind: 6 }));
    assert_eq!(
        read(&one(&entry("w", &[2, 0], 0, 0, 0), &[])),
        Err(Error::BadShape { tensor: name(), shape: vec![2, 0] })
    );
    assert!(matches!(read(&one(&entry("w", &[1; 9], 0, 0, 0), &[])), Err(Error::BadShape { .. })));
    let twice = [entry("w", &[2], 0, 0, 0), entry("w", &[2], 0, 0, 0)].concat();
    assert_eq!(read(&sealed(&[&[0, 2], twice.as_slice()].concat())), Err(Error::DuplicateName { tensor: name() }));
    let crowded = entry("w", &[2], 0, 3, 0);
    assert_eq!(read(&one(&crowded, &[])), Err(Error::TooManyNonzeros { tensor: name(), len: 2, got: 3 }));
    assert_eq!(read(&one(&entry("w", &[2], 0, 0, 9), &[])), Err(Error::Truncated { got: 14 }));
    let long = entry("w", &[2], 0, 0, 3);
    assert_eq!(read(&one(&long, &[1, 2, 3])), Err(Error::BadPayload { tensor: name() }));
    // Zeros decode to codes of zero: the float 0, a codebook of one zero, a scale of zero.
    let of_zeros = |kind| {
        let read = |len| read(&one(&entry("w", &[1], kind, 1, len), &vec![0; len.into()]));
        let bad_length = Err(Error::BadPayload { tensor: name() });
        (0..8).map(read).find(|result| *result != bad_length).unwrap()
    };
    assert_eq!(of_zeros(0), Err(Error::BadValue { tensor: name(), index: 0 }));
    assert_eq!(of_zeros(2), Err(Error::BadCodebook { tensor: name() }));
    assert_eq!(of_zeros(5), Err(Error::BadScales { tensor: name(), expected: 1 }));
}

#[test]
fn a_claim_of_more_elements_than_allowed_is_refused_before_they_are_held() {
    let huge = [&[1, b'w', 3][..], &[0xff, 0xff, 0xff, 0xff, 0x0f].repeat(3), &[0, 0, 0]].concat();
    let shape = vec![u32::MAX as usize; 3];
    let refused = |left| Error::TooManyElements { tensor: "w".into(), shape: shape.clone(), left };
    assert_eq!(read(&one(&huge, &[])), Err(refused(1 << 12)));
    // The limit is one for all tensors together.
    let both = [entry("v", &[0x7f], 0, 0, 0), huge].concat();
    assert_eq!(read(&sealed(&[&[0, 2], both.as_slice()].concat())), Err(refused((1 << 12) - 127)));
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes);
        let _ = read(&sealed(&bytes));
    }

    #[test]
    fn random_payloads_never_panic(
        kind in 0u8..6, rows in 1u8..60, columns in 1u8..60, nonzeros in 0u8..128,
        payload in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let entry = entry("w", &[rows, columns], kind, nonzeros, payload.len() as u8);
        if let Ok(container) = read(&one(&entry, &payload)) {
            prop_assert_eq!(container.tensors[0].values.nonzeros(), usize::from(nonzeros));
        }
    }
}

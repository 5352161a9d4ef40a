//! Frames as they were written when the format was made. A change here is a change of the format: raise the version.
//! `UPDATE_GOLDEN=1` writes them anew.

use std::{fs, path::PathBuf, sync::Arc};

use dunlin_codec::{
    Encoder, EntropyCoder, Fit, FrameHeader, FrameKind, Limits, Mask, MaskedGrid, Quantizer, Rate, Segments, grid,
};

use crate::support::{CODERS, QUANTIZERS, codec, common, floats, segments};

/// Numbers from a recurrence, not from a generator that may change.
fn numbers(len: usize) -> Vec<f32> {
    let mut state = 1u32;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let uniform = (state >> 8) as f32 / (1 << 24) as f32 - 0.5;
            uniform * uniform * uniform
        })
        .collect()
}

fn whole() -> [(&'static str, Quantizer); 9] {
    let rotated = |bits, fit| Quantizer::Rotated { rate: Rate::new(bits).unwrap(), fit };
    [
        ("rotated-unbiased", rotated(1.0, Fit::Unbiased)),
        ("rotated-least-error", rotated(2.0, Fit::LeastError)),
        ("rotated-plain-bits", rotated(8.0, Fit::LeastError)),
        ("eden", Quantizer::Eden { bits: 2, fit: Fit::Unbiased }),
        ("qsgd", Quantizer::Qsgd { levels: 7 }),
        ("terngrad", Quantizer::Terngrad),
        ("sign", Quantizer::Sign),
        ("low-rank", Quantizer::LowRank { rank: 2 }),
        ("common", common(6, 0.1, Fit::LeastError)),
    ]
}

/// Of more than one block, of which the first is much larger than the last and the second is nothing.
fn blocks() -> ([(&'static str, Quantizer); 3], Segments, Vec<f32>) {
    let quantizers = [
        ("rotated-blocks", Quantizer::Rotated { rate: Rate::new(8.0).unwrap(), fit: Fit::LeastError }),
        ("eden-blocks", Quantizer::Eden { bits: 3, fit: Fit::LeastError }),
        ("qsgd-blocks", Quantizer::Qsgd { levels: 1 }),
    ];
    let factor = |i| [64.0, 0.0, 1.0][i / 8192];
    let values = numbers(20_000).iter().enumerate().map(|(i, &x)| x * factor(i)).collect();
    (quantizers, segments(&[(20_000, 100)]), values)
}

/// Decoded floats are the same to the bit on every machine; their digests are part of docs/WIRE.md.
#[test]
fn whole_vectors_decode_to_their_golden_bits() {
    let (in_blocks, long, _) = blocks();
    let short = segments(&[(600, 20), (12, 12), (300, 300)]);
    let names = whole().map(|(name, _)| name).into_iter().chain(["common-plain"]).map(|name| (name, &short));
    let digests: Vec<String> = names
        .chain(in_blocks.iter().map(|&(name, _)| (name, &long)))
        .map(|(name, segments)| {
            let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("bin");
            let values = floats(&fs::read(&path).unwrap(), segments).unwrap();
            let bytes: Vec<u8> = values.iter().flat_map(|value| (value + 0.0).to_le_bytes()).collect();
            format!("{name} {}", &blake3::hash(&bytes).to_hex()[..16])
        })
        .collect();
    let documented = include_str!("../../../../docs/WIRE.md");
    for digest in &digests {
        let (name, digest) = digest.split_once(' ').unwrap();
        assert!(documented.contains(&format!("| `{name}` | `{digest}` |")), "{digests:#?}");
    }
}

/// The version before this build's own: the same content, as it was written then.
#[test]
fn frames_of_version_2_are_read() {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let segments = segments(&[(600, 20), (12, 12), (300, 300)]);
    let limits = Limits::for_segments(&segments);
    let (mut frames, mut changed) = (0, 0);
    for entry in fs::read_dir(golden.join("2")).unwrap() {
        let path = entry.unwrap().path();
        let [old, new] = [&path, &golden.join(path.file_name().unwrap())].map(|path| fs::read(path).unwrap());
        let header = FrameHeader::parse(&old).unwrap();
        frames += 1;
        // Behind the version and before the checksum.
        changed += usize::from(old[2..old.len() - 4] != new[2..new.len() - 4]);
        assert_eq!((old[1], new[1]), (2, 3), "{}", path.display());
        if header.kind == FrameKind::Pruned {
            let all = Mask::all(Arc::new(segments.clone()));
            assert_eq!(all.changed(&old).unwrap(), all.changed(&new).unwrap());
        } else if header.kind.has_values() {
            let [old, new] = [old, new].map(|frame| {
                let mut values = vec![0; segments.len()];
                grid::apply_update(&frame, &segments, &limits, &mut values).unwrap();
                values
            });
            assert!(old == new, "{}", path.display());
        }
    }
    assert!(frames >= 20 && changed >= 1, "{changed} of {frames}");
}

/// Few values far apart.
const CODEBOOK: [i32; 7] = [0, 37, 4099, 50_021, 777_777, 1_000_003, 2_000_003];

fn check(name: &str, frame: &[u8]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name).with_extension("bin");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, frame).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(golden == frame, "{name} differs from its golden bytes");
}

fn name(quantizer: Quantizer) -> String {
    let debugged = format!("{quantizer:?}");
    debugged.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn frames_are_the_golden_bytes() {
    let segments = segments(&[(600, 20), (12, 12), (300, 300)]);
    let u = numbers(segments.len());
    let mut encoder = Encoder::new();
    for quantizer in QUANTIZERS {
        for coder in CODERS {
            let in_each = matches!(quantizer, Quantizer::Ternary | Quantizer::Codebook { .. });
            if coder == EntropyCoder::Auto || (coder != EntropyCoder::Adaptive && !in_each) {
                continue;
            }
            let frame = encoder.encode(&codec(0.1, quantizer, coder), &segments, &u).unwrap().frame;
            check(&format!("{}-{coder:?}", name(quantizer)).to_lowercase(), &frame);
        }
        if quantizer != Quantizer::F32 {
            let frame = encoder.encode(&codec(1.0, quantizer, EntropyCoder::Adaptive), &segments, &u).unwrap().frame;
            check(&format!("{}-dense", name(quantizer)).to_lowercase(), &frame);
        }
    }
    encoder.seed(0x0123_4567_89ab_cdef);
    for (name, quantizer) in whole() {
        check(name, &encoder.encode(&codec(1.0, quantizer, EntropyCoder::Auto), &segments, &u).unwrap().frame);
    }
    let (in_blocks, long, values) = blocks();
    for (name, quantizer) in in_blocks {
        check(name, &encoder.encode(&codec(1.0, quantizer, EntropyCoder::Auto), &long, &values).unwrap().frame);
    }
    let plain = codec(1.0, common(3, 0.1, Fit::Unbiased), EntropyCoder::Raw);
    check("common-plain", &encoder.encode(&plain, &segments, &u).unwrap().frame);
    // Five columns in twenty and nothing else: what columns foretell.
    let columns: Vec<f32> = u.iter().enumerate().map(|(i, &x)| if i < 600 && i % 20 < 5 { x } else { 0.0 }).collect();
    let sparse = codec(0.1, Quantizer::Ternary, EntropyCoder::Adaptive);
    check("ternary-mixed", &encoder.encode(&sparse, &segments, &columns).unwrap().frame);
    let codebook: Vec<i32> = u.iter().map(|x| CODEBOOK[(x * 50.0) as usize]).collect();
    check("integers-codebook", &encoder.encode_integers(&segments, &codebook).unwrap().frame);
    let half = Mask::new(Arc::new(segments.clone()), |i| u[i] > 0.0 || i % 7 == 0).unwrap();
    let more = Mask::new(Arc::new(segments.clone()), |i| half.contains(i) || i % 5 == 0).unwrap();
    check("pruned", &Mask::all(Arc::new(segments.clone())).change_to(&half, &mut encoder)[0]);
    check("grown", &half.change_to(&more, &mut encoder)[0]);
    let mut model = MaskedGrid::whole(Arc::new(segments.clone()), vec![0; segments.len()]).unwrap();
    model.announce(Some(Arc::new(model.mask().random_part(90, 1)))).unwrap();
    check("announced", &model.announcement(&mut encoder).unwrap());
    // So many that their gaps go by asymmetric numeral systems, with a hole that takes steps.
    let long = crate::support::segments(&[(40_000, 40_000)]);
    let many: Vec<f32> =
        numbers(40_000).iter().enumerate().map(|(i, &x)| if (10_000..10_400).contains(&i) { 0.0 } else { x }).collect();
    let eighth = codec(0.125, Quantizer::Ternary, EntropyCoder::Adaptive);
    check("ternary-many", &encoder.encode(&eighth, &long, &many).unwrap().frame);
    let classes: Vec<i32> = u.iter().map(|x| (x * 1e6) as i32).collect();
    check("integers-classes", &encoder.encode_integers(&segments, &classes).unwrap().frame);
}

//! The fuzzer's functions over its committed corpus, and one seed of each kind of frame and message.
//!
//! `UPDATE_CORPUS=1 cargo test --test corpus` writes the seeds anew; `cargo fuzz run TARGET -s none` looks for more.

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, reason = "the fuzzer's programs are its users")]
mod fuzz;

use dunlin_codec::{
    Codec, CommonGrid, Encoder, EntropyCoder, Fit, Mask, MaskedGrid, Quantizer, Rate, Segment, Segments,
};
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

#[test]
fn whatever_the_fuzzer_has_found_is_dealt_with() {
    let functions: [fn(&[u8]); 3] = [fuzz::decode, fuzz::boundary, fuzz::catch_up];
    for (target, function) in fuzz::TARGETS.into_iter().zip(functions) {
        let mut files = 0;
        for entry in std::fs::read_dir(corpus(target)).unwrap() {
            function(&std::fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= 10, "{target} has {files} inputs");
        function(&[]);
    }
}

/// What a fuzzer would try next, the same in every run: each input with bits, bytes and ends changed, and pieces of others
/// put in.
#[test]
fn changed_inputs_are_dealt_with() {
    let functions: [fn(&[u8]); 3] = [fuzz::decode, fuzz::boundary, fuzz::catch_up];
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for (target, function) in fuzz::TARGETS.into_iter().zip(functions) {
        let mut paths: Vec<PathBuf> =
            std::fs::read_dir(corpus(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        let inputs: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(path).unwrap()).collect();
        for input in &inputs {
            for _ in 0..CHANGES {
                let mut changed = input.clone();
                for _ in 0..random.random_range(1..4) {
                    change(&mut changed, &inputs, &mut random);
                }
                function(&changed);
            }
        }
    }
}

fn change(input: &mut Vec<u8>, others: &[Vec<u8>], random: &mut ChaCha8Rng) {
    if input.is_empty() {
        input.push(random.random());
    }
    let at = random.random_range(0..input.len());
    match random.random_range(0..6) {
        0 => input[at] ^= 1 << random.random_range(0..8),
        1 => input[at] = random.random(),
        2 => input.truncate(at),
        3 => input.insert(at, random.random()),
        4 => drop(input.remove(at)),
        _ => {
            let other = &others[random.random_range(0..others.len())];
            let from = random.random_range(0..=other.len());
            let until = (from + random.random_range(0..64)).min(other.len());
            input.splice(at.., other[from..until].iter().copied());
        }
    }
}

/// Of each input.
const CHANGES: usize = 1000;

/// A frame of every kind and layout for the first of the fuzzer's models, without its checksum.
fn frames() -> BTreeMap<String, Vec<u8>> {
    let shapes = [(700, 25), (30, 30), (400, 400)];
    let segments = Segments::new(shapes.map(|(len, row)| Segment { len, row }).to_vec()).unwrap();
    let update: Vec<f32> = (0..segments.len()).map(|i| ((i * 7919 % 2001) as f32 - 1000.0) * 1e-5).collect();
    let mut encoder = Encoder::new();
    let mut frames = BTreeMap::new();
    let sparse = [
        ("f32", Quantizer::F32),
        ("f16", Quantizer::F16),
        ("int8", Quantizer::Int8),
        ("ternary", Quantizer::Ternary),
        ("codebook", Quantizer::Codebook { bits: 3 }),
    ];
    for (name, quantizer) in sparse {
        for coder in [EntropyCoder::Raw, EntropyCoder::Rice, EntropyCoder::Enumerative, EntropyCoder::Adaptive] {
            for density in [0.02, 0.5, 1.0] {
                let codec = Codec { density, quantizer, coder };
                let frame = encoder.encode(&codec, &segments, &update).unwrap().frame;
                frames.insert(format!("{name}-{coder:?}-{density}").to_lowercase(), frame);
            }
        }
    }
    let (rate, fit) = (Rate::nearest(1.5), Fit::LeastError);
    for (name, quantizer) in [
        ("rotated", Quantizer::Rotated { rate, fit }),
        ("rotated-unbiased", Quantizer::Rotated { rate: Rate::nearest(0.2), fit: Fit::Unbiased }),
        ("eden", Quantizer::Eden { bits: 2, fit }),
        ("qsgd", Quantizer::Qsgd { levels: 7 }),
        ("terngrad", Quantizer::Terngrad),
        ("sign", Quantizer::Sign),
        ("low-rank", Quantizer::LowRank { rank: 2 }),
        ("common", Quantizer::Common { grid: CommonGrid::new(5, 0.01).unwrap(), fit }),
    ] {
        let codec = Codec { density: 1.0, quantizer, coder: EntropyCoder::Auto };
        frames.insert(name.into(), encoder.encode(&codec, &segments, &update).unwrap().frame);
    }
    let grid = CommonGrid::new(3, 0.01).unwrap();
    let plain =
        Codec { density: 1.0, quantizer: Quantizer::Common { grid, fit: Fit::Unbiased }, coder: EntropyCoder::Raw };
    frames.insert("common-plain".into(), encoder.encode(&plain, &segments, &update).unwrap().frame);
    let mut model = MaskedGrid::whole(Arc::new(segments.clone()), vec![0; segments.len()]).unwrap();
    model.announce(Some(Arc::new(model.mask().random_part(60, 1)))).unwrap();
    frames.insert("announced".into(), model.announcement(&mut encoder).unwrap());
    let integers: Vec<i32> = (0..segments.len() as i32).map(|i| if i % 5 == 0 { i % 7 - 3 } else { 0 }).collect();
    frames.insert("integers".into(), encoder.encode_integers(&segments, &integers).unwrap().frame);
    let all = Mask::all(Arc::new(segments.clone()));
    let half = Mask::new(Arc::new(segments.clone()), |index| index % 3 == 0).unwrap();
    frames.insert("pruned".into(), all.change_to(&half, &mut encoder).remove(0));
    let more = Mask::new(Arc::new(segments), |index| index % 3 == 0 || index % 5 == 0).unwrap();
    frames.insert("grown".into(), half.change_to(&more, &mut encoder).remove(0));
    frames.values_mut().for_each(|frame| frame.truncate(frame.len() - 4));
    frames
}

/// A frame of more non-zeros than are coded one by one, without its checksum.
fn many_gaps() -> Vec<u8> {
    let segments = Segments::new(vec![Segment { len: 40_000, row: 200 }]).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(2);
    let update: Vec<f32> = (0..segments.len()).map(|_| random.random::<f32>() - 0.5).collect();
    let codec = Codec { density: 0.11, quantizer: Quantizer::Ternary, coder: EntropyCoder::Adaptive };
    let mut frame = Encoder::new().encode(&codec, &segments, &update).unwrap().frame;
    frame.truncate(frame.len() - 4);
    frame
}

/// A little of everything that TOML can write.
const RECIPE: &str = r#"name = "seed"
[model]
kind = "own:mine"
[training]
learning_rate = 1e-2
frozen = ""
[[network.class]]
name = 'phone'
share = 3
"#;

/// One message of each kind, by the number that the fuzzer's function knows it by.
fn messages() -> BTreeMap<String, Vec<u8>> {
    use dunlin_core::message::*;
    use dunlin_core::{ClientId, Digest, ModelVersion, RoundId, RunId, Token, wire};
    use dunlin_proto::v1;
    let session = Session { run: RunId([1; 8]), client: ClientId::new("phone-1").unwrap(), token: Token([2; 16]) };
    let round = RoundId { term: 1, number: 7 };
    let header = UpdateHeader {
        client: session.client.clone(),
        round,
        base: ModelVersion(6),
        examples: 600,
        loss: 0.25,
        frame_len: 1234,
        digest: Digest([3; 32]),
    };
    let plan = CatchUp {
        base: CatchUpBase::Held,
        version: ModelVersion(6),
        digest: Digest([4; 32]),
        checksum: Some(5),
        frame_lens: vec![100, 2000],
    };
    let join = Join { protocol: 1, client: session.client.clone(), token: session.token };
    let check_in = CheckIn {
        session: session.clone(),
        examples: 600,
        width: dunlin_core::recipe::Width::WHOLE,
        held: Some(ModelVersion(5)),
        wait_ms: 20_000,
        declines: None,
    };
    let fetch = FetchModel { session: session.clone(), held: None, wanted: ModelVersion(6) };
    let codec = Codec { density: 0.01, quantizer: Quantizer::Ternary, coder: EntropyCoder::Auto };
    let task = TrainTask { round, base: ModelVersion(6), deadline_ms: 60_000, codec, max_bytes: 0, asks: 0 };
    let of = |kind: u8, bytes: Vec<u8>| [vec![kind], bytes].concat();
    let encoded = |kind: u8, message: &dyn Fn() -> Vec<u8>| of(kind, message());
    BTreeMap::from([
        ("join".into(), encoded(0, &|| join.to_wire("dunlin").encode_to_vec())),
        ("check-in".into(), encoded(2, &|| v1::CheckInRequest::from(&check_in).encode_to_vec())),
        (
            "assignment".into(),
            encoded(3, &|| wire::check_in_reply(Ok(Assignment::Train(task.clone()))).encode_to_vec()),
        ),
        ("fetch".into(), encoded(4, &|| v1::FetchModelRequest::from(&fetch).encode_to_vec())),
        ("plan".into(), encoded(5, &|| v1::CatchUp::from(&plan).encode_to_vec())),
        ("header".into(), encoded(6, &|| wire::update_header(&session, &header).encode_to_vec())),
        ("recipe".into(), of(11, RECIPE.as_bytes().to_vec())),
        ("wrong-recipe".into(), of(11, b"[uplink]\ndensity = 2.0\n".to_vec())),
        ("nothing".into(), of(1, Vec::new())),
    ])
}

#[test]
fn the_corpus_has_a_seed_of_every_kind() {
    let mut seeds = BTreeMap::new();
    let frames = frames();
    for (name, frame) in &frames {
        seeds.insert(corpus("decode").join(name), [&[0], frame.as_slice()].concat());
    }
    seeds.insert(corpus("decode").join("many-gaps"), [&[4], many_gaps().as_slice()].concat());
    for (name, message) in messages() {
        seeds.insert(corpus("boundary").join(name), message);
    }
    let packet = |frame: &Vec<u8>| [(frame.len() as u16).to_le_bytes().as_slice(), frame].concat();
    // Those that came later have seeds of their own, and do not shift which of the others do.
    let first = frames.iter().filter(|(name, _)| !name.starts_with("common") && *name != "announced");
    for (name, frame) in first.step_by(4) {
        let packets = [vec![0], packet(frame), packet(&frames["integers"])].concat();
        seeds.insert(corpus("catch_up").join(name), packets);
    }
    let masks = [vec![0], packet(&frames["integers"]), packet(&frames["pruned"]), packet(&frames["grown"])].concat();
    seeds.insert(corpus("catch_up").join("masks"), masks);
    let announced = [vec![0], packet(&frames["common"]), packet(&frames["announced"])].concat();
    seeds.insert(corpus("catch_up").join("announcement"), announced);
    for (path, seed) in seeds {
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &seed).unwrap();
        }
        let held = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(held == seed, "{} is out of date: UPDATE_CORPUS=1 cargo test --test corpus", path.display());
    }
}

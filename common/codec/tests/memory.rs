//! How much memory encoding and decoding ask for. A program of its own, since it counts what its allocator gives.

use allocation_counter::{AllocationInfo, measure};
use dunlin_codec::{
    Codec, Decoder, Encoder, EntropyCoder, Limits, Quantizer, Rate, Segment, Segments, decode, decode_integers, verify,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const N: usize = 200_000;

fn segments() -> Segments {
    Segments::new(vec![Segment { len: N - 1000, row: 500 }, Segment { len: 1000, row: 1000 }]).unwrap()
}

fn update(seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..N).map(|_| random.random::<f32>() - random.random::<f32>()).collect()
}

/// What clients send in most rounds, and what is sent dense.
fn codecs() -> Vec<Codec> {
    let auto = EntropyCoder::Auto;
    let mut codecs = vec![
        Codec { density: 1.0, quantizer: Quantizer::F32, coder: EntropyCoder::Raw },
        Codec { density: 1.0, quantizer: Quantizer::Int8, coder: EntropyCoder::Raw },
        Codec {
            density: 1.0,
            quantizer: Quantizer::Rotated { rate: Rate::nearest(1.0), fit: dunlin_codec::Fit::LeastError },
            coder: auto,
        },
    ];
    for coder in [auto, EntropyCoder::Raw, EntropyCoder::Rice, EntropyCoder::Enumerative, EntropyCoder::Adaptive] {
        for density in [0.001, 0.01, 0.1] {
            codecs.push(Codec { density, quantizer: Quantizer::Ternary, coder });
        }
    }
    codecs
}

/// Of the third time, when all buffers are there.
fn steady(mut work: impl FnMut()) -> AllocationInfo {
    work();
    work();
    measure(work)
}

#[test]
fn a_decoder_asks_for_no_memory_once_it_has_its_buffers() {
    let (segments, limits) = (segments(), Limits::for_segments(&segments()));
    for codec in codecs() {
        let frame = Encoder::new().encode(&codec, &segments, &update(1)).unwrap().frame;
        let (mut decoder, mut sum) = (Decoder::new(), vec![0.0; N]);
        let asked = steady(|| decoder.decode(&frame, &segments, &limits, &mut sum).unwrap());
        match codec.quantizer {
            // A frame of a whole vector has numbers for each tensor, and blocks that are turned back.
            Quantizer::Rotated { .. } => assert!(asked.bytes_max < 8 * N as u64, "{codec:?}: {asked:?}"),
            _ => assert_eq!(asked.count_total, 0, "{codec:?}: {asked:?}"),
        }
    }
}

#[test]
fn an_encoder_asks_for_the_frames_that_it_compares_and_for_nothing_else() {
    let segments = segments();
    for codec in codecs().into_iter().filter(|codec| !codec.quantizer.is_whole()) {
        let (mut encoder, update, mut bytes) = (Encoder::new(), update(3), 0);
        let asked = steady(|| bytes = encoder.encode(&codec, &segments, &update).unwrap().frame.len());
        // The room that a frame begins with and grows to.
        assert!(asked.count_total <= 24, "{codec:?}: {asked:?}");
        assert!(asked.bytes_max <= 6 * bytes as u64 + 4096, "{codec:?}: {asked:?} for {bytes} bytes");
    }
}

/// Whatever a frame claims, memory is a small multiple of the model that it is allowed to be about.
#[test]
fn what_a_frame_claims_is_not_what_it_gets() {
    let (segments, limits) = (segments(), Limits::for_segments(&segments()));
    let most = 24 * N as u64 + (1 << 20);
    let mut random = ChaCha8Rng::seed_from_u64(9);
    for codec in codecs() {
        let frame = Encoder::new().encode(&codec, &segments, &update(2)).unwrap().frame;
        for _ in 0..40 {
            let mut lying = frame[..frame.len() - 4].to_vec();
            for _ in 0..random.random_range(1..5) {
                // Mostly the header, where sizes are.
                let end = if random.random_bool(0.8) { 16 } else { lying.len() };
                lying[random.random_range(2..end)] = random.random();
            }
            lying.truncate(random.random_range(10..=lying.len()));
            lying.extend(crc32c::crc32c(&lying).to_le_bytes());
            let asked = measure(|| {
                let _ = verify(&lying, &segments, &limits);
                let _ = decode(&lying, &segments, &limits, &mut vec![0.0; N]);
                let _ = decode_integers(&lying, &segments, &limits, &mut Nowhere);
            });
            assert!(asked.bytes_max <= most, "{codec:?}: {asked:?}");
        }
    }
}

struct Nowhere;

impl dunlin_codec::IntegerSink for Nowhere {
    fn add(&mut self, _: usize, _: i32) {}
}

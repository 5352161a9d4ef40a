//! How much memory encoding and decoding ask for. A program of its own, since it counts what its allocator gives.

use allocation_counter::{AllocationInfo, measure};
use dunlin_codec::{
    Codec, CommonGrid, Decoder, Encoder, EntropyCoder, Fit, Limits, Quantizer, Rate, Rest, Segment, Segments, decode,
    decode_integers, verify,
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
    ];
    let rotated = |rate, fit| Quantizer::Rotated { rate: Rate::nearest(rate), fit };
    for quantizer in [
        rotated(0.1, Fit::Unbiased),
        rotated(1.0, Fit::LeastError),
        Quantizer::Eden { bits: 2, fit: Fit::Unbiased },
        Quantizer::Qsgd { levels: 7 },
        Quantizer::Terngrad,
        Quantizer::Sign,
        Quantizer::LowRank { rank: 2 },
        Quantizer::Common { grid: CommonGrid::new(4, 1.0).unwrap(), fit: Fit::LeastError },
    ] {
        codecs.push(Codec { density: 1.0, quantizer, coder: auto });
    }
    for coder in [auto, EntropyCoder::Raw, EntropyCoder::Rice, EntropyCoder::Enumerative, EntropyCoder::Adaptive] {
        for density in [0.001, 0.01, 0.1] {
            codecs.push(Codec { density, quantizer: Quantizer::Ternary, coder });
        }
    }
    codecs
}

/// Matrices that a codec makes for each tensor: only the low rank, which is there for comparison, keeps none of them.
fn factors(codec: &Codec) -> u64 {
    if matches!(codec.quantizer, Quantizer::LowRank { .. }) { 16 } else { 0 }
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
        assert!(asked.count_total <= factors(&codec), "{codec:?}: {asked:?}");
    }
}

#[test]
fn an_encoder_asks_for_no_memory_when_its_frames_come_back_and_else_for_the_frame_alone() {
    let segments = segments();
    for codec in codecs() {
        let (mut encoder, update, mut bytes) = (Encoder::new(), update(3), 0);
        let returned = steady(|| {
            let encoded = encoder.encode(&codec, &segments, &update).unwrap();
            bytes = encoded.frame.len();
            encoder.recycle(encoded.frame);
        });
        assert!(returned.count_total <= factors(&codec), "{codec:?}: {returned:?}");
        let mut left = Left(vec![0.0; N]);
        let as_clients_do = steady(|| {
            let encoded = encoder.encode_source(&codec, &segments, &update[..], &mut left).unwrap();
            encoder.recycle(encoded.frame);
        });
        assert!(as_clients_do.count_total <= factors(&codec), "{codec:?}: {as_clients_do:?}");
        if codec.quantizer.fits_lengths() {
            let within = steady(|| {
                let encoded = encoder.encode_source_within(&codec, 4000, &segments, &update[..], &mut left).unwrap();
                encoder.recycle(encoded.frame);
            });
            assert_eq!(within.count_total, 0, "{codec:?}: {within:?}");
        }
        let kept = steady(|| bytes = encoder.encode(&codec, &segments, &update).unwrap().frame.len());
        // The room that a frame begins with and grows to.
        assert!(kept.count_total <= 8 + factors(&codec), "{codec:?}: {kept:?}");
        assert!(kept.bytes_max <= 4 * bytes as u64 + 4096, "{codec:?}: {kept:?} for {bytes} bytes");
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

/// What a frame does not carry.
struct Left(Vec<f32>);

impl Rest for Left {
    fn take(&mut self, start: usize, values: &[f32]) {
        self.0[start..start + values.len()].copy_from_slice(values);
    }

    fn correct(&mut self, indices: &[u32], values: &[f32]) {
        indices.iter().zip(values).for_each(|(&index, &value)| self.0[index as usize] = value);
    }
}

struct Nowhere;

impl dunlin_codec::IntegerSink for Nowhere {
    fn add(&mut self, _: usize, _: i32) {}
}

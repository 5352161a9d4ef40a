//! Tensors that count for more than others when coordinates are chosen.

use dunlin_codec::{Encoder, EntropyCoder, Error, Quantizer};

use crate::source::Left;
use crate::support::{codec, floats, gaussian, segments};

#[test]
fn important_tensors_are_sent_first_and_with_their_own_values() {
    let segments = segments(&[(40_000, 200), (40_000, 200)]);
    let u = gaussian(5, segments.len());
    let codec = codec(0.05, Quantizer::F32, EntropyCoder::Auto);
    let mut encoder = Encoder::new();
    let mut sent = |importance: Vec<f32>| {
        encoder.weigh(importance);
        let mut left = u.clone();
        let encoded = encoder.encode_with_feedback(&codec, &segments, &mut left).unwrap();
        let mut of_source = Left::default();
        let streamed = encoder.encode_source(&codec, &segments, &u[..], &mut of_source).unwrap();
        assert_eq!((&streamed.frame, &of_source.0), (&encoded.frame, &left));
        let decoded = floats(&encoded.frame, &segments).unwrap();
        // Nothing is multiplied but what the choice goes by.
        assert!(
            u.iter()
                .zip(&decoded)
                .zip(&left)
                .all(|((u, d), left)| (*d == *u && *left == 0.0) || (*d == 0.0 && left == u))
        );
        let (first, second) = decoded.split_at(40_000);
        [first, second].map(|part| part.iter().filter(|value| **value != 0.0).count())
    };
    let [first, second] = sent(Vec::new());
    assert!(first + second == 4000 && first.abs_diff(second) < 300, "{first} {second}");
    let [first, second] = sent(vec![1.0, 1.5]);
    assert!(first + second == 4000 && first * 3 < second, "{first} {second}");
    assert_eq!(sent(vec![0.001, 1000.0]), [0, 4000]);
    // As without, once they are taken back.
    assert_eq!(sent(vec![2.0, 2.0]), sent(Vec::new()));
    for bad in [vec![1.0], vec![1.0, 0.0], vec![1.0, f32::NAN]] {
        let got = bad.len();
        encoder.weigh(bad);
        assert_eq!(encoder.encode(&codec, &segments, &u), Err(Error::BadImportance { expected: 2, got }));
    }
    encoder.weigh(vec![1.0, 1000.0]);
    let mut infinite = u.clone();
    infinite[7] = f32::INFINITY;
    assert_eq!(encoder.encode(&codec, &segments, &infinite), Err(Error::NotFinite { index: 7, nan: false }));
}

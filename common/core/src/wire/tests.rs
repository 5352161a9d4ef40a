//! What was written reads back, and each malformed field gets its own answer.

use super::*;
use crate::message::{JoinRefused, PROTOCOL, PROTOCOL_OLDEST};

fn sample_session() -> Session {
    Session { run: RunId([1; 8]), client: ClientId::new("a").unwrap(), token: Token([7; 16]) }
}

fn sample_header() -> UpdateHeader {
    UpdateHeader {
        client: ClientId::new("a").unwrap(),
        round: RoundId { term: 1, number: 3 },
        base: ModelVersion(2),
        examples: 60,
        loss: 0.5,
        frame_len: 100,
        digest: Digest([3; 32]),
    }
}

#[test]
fn join_reads_back_and_other_versions_are_told_so() {
    let join = Join { protocol: PROTOCOL, client: ClientId::new("a").unwrap(), token: Token([7; 16]) };
    let message = join.to_wire("test");
    assert_eq!(Join::try_from(&message), Ok(join));
    assert_eq!(
        Join::try_from(&v1::JoinRequest { protocol: PROTOCOL_OLDEST - 1, ..message.clone() }),
        Err(Reject::ProtocolTooOld)
    );
    assert_eq!(
        Join::try_from(&v1::JoinRequest { protocol: PROTOCOL + 1, ..message.clone() }),
        Err(Reject::ProtocolTooNew)
    );
    assert_eq!(Join::try_from(&v1::JoinRequest { client: "../x".into(), ..message.clone() }), Err(Reject::Malformed));
    assert_eq!(Join::try_from(&v1::JoinRequest { token: vec![1].into(), ..message }), Err(Reject::Malformed));
    let welcome = Welcome { run: RunId([1; 8]), recipe: "name = \"x\"".into(), layout: Digest([2; 32]) };
    assert_eq!(read_join_reply(join_reply(Ok(welcome.clone()))), Ok(welcome));
    let refused = JoinRefused { reject: Reject::WrongSession, oldest: PROTOCOL_OLDEST, newest: PROTOCOL };
    assert_eq!(read_join_reply(join_reply(Err(Reject::WrongSession))), Err(refused));
    let silent = JoinRefused { reject: Reject::Malformed, oldest: 0, newest: 0 };
    assert_eq!(read_join_reply(v1::JoinReply::default()), Err(silent));
}

#[test]
fn every_assignment_and_every_reject_reads_back() {
    let round = RoundId { term: 2, number: 5 };
    let codec = Codec { density: 0.25, quantizer: Quantizer::Ternary, coder: EntropyCoder::Auto };
    let mut answers = vec![
        Ok(Assignment::Train(TrainTask {
            round,
            base: ModelVersion(4),
            deadline_ms: 10,
            codec,
            max_bytes: 7000,
            asks: 3,
        })),
        Ok(Assignment::Evaluate(EvaluationTask { round, version: ModelVersion(5), deadline_ms: 10 })),
        Ok(Assignment::Wait { reason: Waiting::NotChosen, retry_after_ms: 5 }),
        Ok(Assignment::Finished { outcome: Outcome::Completed, version: ModelVersion(9) }),
    ];
    answers.extend(Reject::ALL.iter().map(|&reject| Err(reject)));
    for answer in answers {
        assert_eq!(read_check_in_reply(check_in_reply(answer.clone())), answer);
    }
}

#[test]
fn a_width_is_said_in_millionths_and_nothing_said_is_the_whole_model() {
    let session = Session { run: RunId([1; 8]), client: ClientId::new("a").unwrap(), token: Token([2; 16]) };
    let check_in = |share: f64| CheckIn {
        session: session.clone(),
        examples: 7,
        width: Width::new(share).unwrap(),
        held: Some(ModelVersion(3)),
        wait_ms: 5,
        declines: None,
    };
    for (share, millionths) in [(1.0, 0), (0.25, 250_000), (0.0625, 62_500)] {
        let message = v1::CheckInRequest::from(&check_in(share));
        assert_eq!((message.width, CheckIn::try_from(&message)), (millionths, Ok(check_in(share))));
    }
    for (width, read) in
        [(1_000_000, Ok(Width::WHOLE)), (1, Err(Reject::Malformed)), (1_000_001, Err(Reject::Malformed))]
    {
        let message = v1::CheckInRequest { width, ..v1::CheckInRequest::from(&check_in(0.5)) };
        assert_eq!(CheckIn::try_from(&message).map(|check_in| check_in.width), read, "{width}");
    }
}

#[test]
fn every_codec_reads_back_and_a_density_outside_its_range_is_refused() {
    for coder in CODERS {
        let codebook = Quantizer::Codebook { bits: 2 };
        for quantizer in [Quantizer::F32, Quantizer::F16, Quantizer::Int8, Quantizer::Ternary, codebook] {
            let codec = Codec { density: 0.5, quantizer, coder };
            assert_eq!(codec_from_wire(&codec_to_wire(&codec)), Ok(codec));
        }
    }
    let mut whole =
        vec![Quantizer::Qsgd { levels: 7 }, Quantizer::Terngrad, Quantizer::Sign, Quantizer::LowRank { rank: 64 }];
    for fit in FITS {
        whole.extend([0.1, 1.234, 8.0].map(|bits| Quantizer::Rotated { rate: Rate::nearest(bits), fit }));
        whole.push(Quantizer::Eden { bits: 4, fit });
        let grids = [(2, 1.0), (8, 1e-6), (8, 65504.0)].map(|(bits, clip)| CommonGrid::new(bits, clip).unwrap());
        whole.extend(grids.map(|grid| Quantizer::Common { grid, fit }));
    }
    for quantizer in whole {
        let codec = Codec { density: 1.0, quantizer, coder: EntropyCoder::Auto };
        assert_eq!(codec_from_wire(&codec_to_wire(&codec)), Ok(codec));
    }
    let good = v1::Codec { density: 1.0, quantizer: 5, coder: 1, number: 1000, fit: 1, exponent: 0, most: 0 };
    assert!(codec_from_wire(&good).is_ok());
    let common = v1::Codec { quantizer: 11, number: 8, exponent: -9, most: 127, ..good };
    assert!(codec_from_wire(&common).is_ok());
    for density in [0.0, -1.0, 1.5, f64::NAN] {
        let message = v1::Codec { density, quantizer: 1, ..good };
        assert_eq!(codec_from_wire(&message), Err(Reject::Malformed));
    }
    for bad in [
        v1::Codec { quantizer: 0, ..good },
        v1::Codec { quantizer: i32::MIN, ..good },
        v1::Codec { quantizer: 12, ..good },
        v1::Codec { number: 1, ..common },
        v1::Codec { number: 9, ..common },
        v1::Codec { exponent: 16, ..common },
        v1::Codec { exponent: -300, ..common },
        v1::Codec { most: 0, ..common },
        v1::Codec { most: 128, ..common },
        v1::Codec { fit: 0, ..common },
        v1::Codec { density: 0.5, ..good },
        v1::Codec { number: 99, ..good },
        v1::Codec { number: 8001, ..good },
        v1::Codec { fit: 0, ..good },
        v1::Codec { fit: 3, ..good },
        v1::Codec { quantizer: 6, number: 5, ..good },
        v1::Codec { quantizer: 7, number: 0, ..good },
        v1::Codec { quantizer: 10, number: -1, ..good },
    ] {
        assert_eq!(codec_from_wire(&bad), Err(Reject::Malformed), "{bad:?}");
    }
}

#[test]
fn an_update_header_reads_back_and_impossible_counts_get_their_own_answer() {
    let message = update_header(&sample_session(), &sample_header());
    assert_eq!(read_update_header(Some(message.clone())), Ok((sample_session(), sample_header())));
    let with = |change: &dyn Fn(&mut v1::UpdateHeader)| {
        let mut message = message.clone();
        change(&mut message);
        read_update_header(Some(message)).unwrap_err()
    };
    assert_eq!(with(&|m| m.examples = 0), Reject::NoExamples);
    assert_eq!(with(&|m| m.examples = -5), Reject::NoExamples);
    assert_eq!(with(&|m| m.examples = 1 << 40), Reject::TooManyExamples);
    assert_eq!(with(&|m| m.digest = vec![1].into()), Reject::Malformed);
    assert_eq!(with(&|m| m.round = None), Reject::Malformed);
    assert_eq!(with(&|m| m.session = None), Reject::Malformed);
    assert_eq!(read_update_header(None), Err(Reject::Malformed));
}

#[test]
fn an_evaluation_reads_back_and_impossible_results_are_refused() {
    let round = RoundId { term: 1, number: 1 };
    let report = EvaluationReport { round, version: ModelVersion(1), examples: 10, correct: 9, loss_sum: 1.5 };
    let message = evaluation(&sample_session(), &report);
    assert_eq!(read_evaluation(&message), Ok((sample_session(), report)));
    let with = |change: &dyn Fn(&mut v1::ReportEvaluationRequest)| {
        let mut message = message.clone();
        change(&mut message);
        read_evaluation(&message).unwrap_err()
    };
    assert_eq!(with(&|m| m.examples = -1), Reject::NoExamples);
    assert_eq!(with(&|m| m.correct = 11), Reject::Malformed);
    assert_eq!(with(&|m| m.correct = -1), Reject::Malformed);
    assert_eq!(with(&|m| m.loss_sum = f64::NAN), Reject::NotANumber);
    assert_eq!(with(&|m| m.loss_sum = f64::INFINITY), Reject::Infinite);
}

#[test]
fn catch_ups_uploads_and_offsets_read_back() {
    let plan = CatchUp {
        base: CatchUpBase::Held,
        version: ModelVersion(3),
        digest: Digest([9; 32]),
        checksum: Some(7),
        frame_lens: vec![1, 2, 3],
    };
    let plain = CatchUp { base: CatchUpBase::Zero, checksum: None, ..plan.clone() };
    assert_eq!(CatchUp::try_from(v1::CatchUp::from(&plan)), Ok(plan.clone()));
    assert_eq!(CatchUp::try_from(v1::CatchUp::from(&plain)), Ok(plain));
    let frame_lens = vec![1; MAX_CATCH_UP_FRAMES + 1];
    let endless = v1::CatchUp { frame_lens, ..v1::CatchUp::from(&plan) };
    assert_eq!(CatchUp::try_from(endless), Err(Reject::Malformed));
    let receipt = Receipt { round: RoundId { term: 1, number: 2 }, digest: Digest([1; 32]), duplicate: true };
    for answer in [Ok(Uploaded::Receipt(receipt)), Ok(Uploaded::Retry(Waiting::Busy, 7)), Err(Reject::Late)] {
        assert_eq!(read_upload_reply(upload_reply(answer)), answer);
    }
    for answer in [Ok(Held::Offset(5)), Ok(Held::Receipt(receipt)), Err(Reject::Late)] {
        assert_eq!(read_upload_offset_reply(upload_offset_reply(answer)), answer);
    }
}

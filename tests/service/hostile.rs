//! One client among ten sends everything that must not count.

use crate::calls::{Hand, header, update};
use crate::world::{LEN, World, recipe};
use bytes::Bytes;
use dunlin::codec::{Encoder, Segment, Segments};
use dunlin::core::message::{TrainTask, UpdateHeader};
use dunlin::core::wire::{self, Uploaded};
use dunlin::core::{Digest, ModelVersion, Reject, RoundId};
use dunlin::server::serve::metrics_text;
use dunlin_proto::v1;
use dunlin_proto::v1::federation_client::FederationClient;

/// What is sent in one round, and how it is answered. The last ends the sender's part in the round.
type Attack = fn(&Hand, &TrainTask) -> Vec<(v1::UpdateHeader, Bytes, Reject)>;

fn on_wire(hand: &Hand, header: &UpdateHeader) -> v1::UpdateHeader {
    wire::update_header(&hand.session, header)
}

/// A frame whose last value is changed, with a checksum that fits.
fn with_value(hand: &Hand, task: &TrainTask, value: f32, reject: Reject) -> (v1::UpdateHeader, Bytes, Reject) {
    // Without a zero no position needs coding, and the values lie there as they are.
    let frame = Encoder::new().encode(&task.codec, &crate::world::layout().segments(), &[0.5; LEN]).unwrap().frame;
    let mut frame = frame[..frame.len() - 8].to_vec();
    frame.extend(value.to_le_bytes());
    frame.extend(crc32c::crc32c(&frame).to_le_bytes());
    let header = header(&hand.session.client, task, &frame);
    (on_wire(hand, &header), frame.into(), reject)
}

const ATTACKS: &[(&str, Attack)] = &[
    ("no examples", |hand, task| {
        let (good, frame) = update(&hand.session.client, task, 0, 1.0);
        let wrong = v1::UpdateHeader { examples: 0, ..on_wire(hand, &good) };
        vec![(wrong, frame, Reject::NoExamples)]
    }),
    ("NaN", |hand, task| vec![with_value(hand, task, f32::NAN, Reject::NotANumber)]),
    ("infinity", |hand, task| vec![with_value(hand, task, f32::INFINITY, Reject::Infinite)]),
    ("a huge value", |hand, task| vec![with_value(hand, task, 1e6, Reject::ValueTooLarge)]),
    ("wrong shape", |hand, task| {
        let segments = Segments::new(vec![Segment { len: LEN + 1, row: 1 }]).unwrap();
        // One coordinate more in as few bytes: the length alone does not give it away.
        let codec = dunlin::codec::Codec { density: 0.01, ..task.codec };
        let frame = Encoder::new().encode(&codec, &segments, &vec![1.0; LEN + 1]).unwrap().frame;
        vec![(on_wire(hand, &header(&hand.session.client, task, &frame)), frame.into(), Reject::WrongShape)]
    }),
    ("wrong base version", |hand, task| {
        let (good, frame) = update(&hand.session.client, task, 0, 1.0);
        let wrong = UpdateHeader { base: ModelVersion(task.base.0 + 7), ..good };
        vec![(on_wire(hand, &wrong), frame, Reject::WrongBase)]
    }),
    ("a claim of 4 GB", |hand, task| {
        let (good, frame) = update(&hand.session.client, task, 0, 1.0);
        let wrong = UpdateHeader { frame_len: 4 << 30, ..good };
        vec![(on_wire(hand, &wrong), frame, Reject::FrameTooLarge)]
    }),
    ("a truncated frame", |hand, task| {
        let (good, frame) = update(&hand.session.client, task, 0, 1.0);
        vec![
            // This may be a broken link as well, so the sender may still go on.
            (on_wire(hand, &good), frame.slice(..frame.len() / 2), Reject::Truncated),
            with_value(hand, task, f32::NAN, Reject::NotANumber),
        ]
    }),
    ("random bytes", |hand, task| {
        let frame: Vec<u8> = (0..500u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        vec![(on_wire(hand, &header(&hand.session.client, task, &frame)), frame.into(), Reject::Corrupt)]
    }),
    ("a frame of a version to come", |hand, task| {
        let (_, frame) = update(&hand.session.client, task, 0, 1.0);
        let mut frame = frame[..frame.len() - 4].to_vec();
        frame[1] = 200;
        frame.extend(crc32c::crc32c(&frame).to_le_bytes());
        vec![(on_wire(hand, &header(&hand.session.client, task, &frame)), frame.into(), Reject::UnknownFormat)]
    }),
    ("the same update twice", |hand, task| {
        let (header, frame, reject) = with_value(hand, task, f32::NAN, Reject::NotANumber);
        vec![(header.clone(), frame.clone(), reject), (header, frame, Reject::NotANumber)]
    }),
    ("a billion examples", |hand, task| {
        let (good, frame) = update(&hand.session.client, task, 0, 1.0);
        let wrong = v1::UpdateHeader { examples: 1_000_000_000, ..on_wire(hand, &good) };
        vec![(wrong, frame, Reject::TooManyExamples)]
    }),
    ("a negative count", |hand, task| {
        let (good, frame) = update(&hand.session.client, task, 0, 1.0);
        let wrong = v1::UpdateHeader { examples: -1, ..on_wire(hand, &good) };
        vec![(wrong, frame, Reject::NoExamples)]
    }),
    ("another client's id, an old round, a future one, mangled bytes", |hand, task| {
        let (good, frame) = update(&hand.session.client, task, 0, 1.0);
        let mut stolen = on_wire(hand, &good);
        stolen.session.as_mut().unwrap().client = "client-00003".into();
        let in_round = |number| {
            let round = RoundId { number, ..task.round };
            on_wire(hand, &UpdateHeader { round, ..good.clone() })
        };
        let mangled = on_wire(hand, &UpdateHeader { digest: Digest([1; 32]), ..good.clone() });
        vec![
            (stolen, frame.clone(), Reject::WrongSession),
            (in_round(task.round.number - 1), frame.clone(), Reject::Late),
            (in_round(task.round.number + 1), frame.clone(), Reject::FutureRound),
            (mangled, frame, Reject::WrongDigest),
            with_value(hand, task, f32::NAN, Reject::NotANumber),
        ]
    }),
];

async fn send(world: &World, header: v1::UpdateHeader, frame: Bytes) -> Result<Uploaded, Reject> {
    let mut raw = FederationClient::new(world.channel());
    let start = v1::UploadStart { header: Some(header), offset: 0 };
    let parts = [v1::upload_request::Part::Start(start), v1::upload_request::Part::Data(frame)];
    let stream = tokio_stream::iter(parts.map(|part| v1::UploadRequest { part: Some(part) }));
    wire::read_upload_reply(raw.upload(stream).await.unwrap().into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_attack_is_refused_with_its_own_reason_and_the_model_is_as_without_the_attacker() {
    let rounds = format!("rounds.count={}", ATTACKS.len());
    let world = World::start(&recipe(&[&rounds]));
    let honest = world.honest(0..7);
    // Client 7 is honest and slow, client 8 honest but for that it says everything twice.
    let (mut slow, mut twice) = (Hand::join(&world, 7).await, Hand::join(&world, 8).await);
    let mut hand = Hand::join(&world, 9).await;
    let mut expected = std::collections::BTreeMap::<String, u32>::new();
    for (name, attack) in ATTACKS {
        let (slow_task, its_task, task) = tokio::join!(slow.task(), twice.task(), hand.task());
        send_twice(&world, &twice, &its_task).await;
        *expected.entry(Reject::Duplicate.label().into()).or_default() += 2;
        for (header, frame, reject) in attack(&hand, &task) {
            assert_eq!(send(&world, header, frame).await, Err(reject), "{name}");
            *expected.entry(reject.label().into()).or_default() += 1;
        }
        // The round has stayed open until now.
        let (header, frame) = update(&slow.session.client, &slow_task, 7, 0.125);
        let answer = send(&world, on_wire(&slow, &header), frame).await;
        assert!(matches!(answer, Ok(Uploaded::Receipt(_))), "{name}: {answer:?}");
    }
    let report = world.report().await;
    let status = world.handle.status().await.unwrap();
    for client in honest {
        client.await.unwrap();
    }
    let seen: u64 = status.view.rejects.iter().map(|(_, _, count)| count).sum();
    assert_eq!(seen, u64::from(expected.values().sum::<u32>()), "{:?}", status.view.rejects);
    assert_eq!(report.rejects, expected);
    let metrics = metrics_text(&status).unwrap();
    let mut control = v1::control_client::ControlClient::new(world.channel());
    let told = control.status(v1::StatusRequest {}).await.unwrap().into_inner().rejects;
    for (reason, &count) in &expected {
        let line = format!("dunlin_rejects{{reason=\"{reason}\",client=\"");
        let counted = metrics.lines().filter_map(|found| found.strip_prefix(&line)?.split_once("\"} "));
        let offenders: Vec<(&str, u32)> = counted.map(|(who, count)| (who, count.parse().unwrap())).collect();
        assert_eq!(offenders.iter().map(|(_, count)| count).sum::<u32>(), count, "{reason} in {metrics}");
        // Who pretends to be another is nobody that is known.
        let expected = if reason == "duplicate" { "client-00008" } else { "client-00009" };
        let is_told = |who: &str| (who == expected) != (reason == "wrong_session");
        assert!(offenders.iter().all(|(who, _)| is_told(who)), "{reason}: {offenders:?}");
        let told: u64 = told.iter().filter(|it| it.reason == *reason).map(|it| it.count).sum();
        assert_eq!(told, u64::from(count), "{reason}");
    }
    assert_eq!((report.rounds, report.abandoned), (ATTACKS.len() as u64, 0));

    let without = World::start(&recipe(&[&rounds, "data.clients=9", "rounds.cohort=9"]));
    for client in without.honest(0..9) {
        client.await.unwrap();
    }
    assert_eq!(report.model_digest, without.report().await.model_digest);
}

/// Sends what client 8 would send, then the same bytes again, then others: it counts once.
async fn send_twice(world: &World, hand: &Hand, task: &TrainTask) {
    let (header, frame) = update(&hand.session.client, task, 8, 0.125);
    for duplicate in [false, true] {
        let answer = send(world, on_wire(hand, &header), frame.clone()).await;
        assert!(
            matches!(&answer, Ok(Uploaded::Receipt(receipt)) if receipt.duplicate == duplicate
                && receipt.digest == header.digest),
            "{answer:?}"
        );
    }
    let (other, frame) = update(&hand.session.client, task, 8, 0.25);
    assert_eq!(send(world, on_wire(hand, &other), frame).await, Err(Reject::Duplicate));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_is_late_after_its_round_and_there_is_none_after_the_run() {
    let world = World::start(&recipe(&["data.clients=2", "rounds.cohort=2", "rounds.count=2"]));
    let (mut first, mut second) = (Hand::join(&world, 0).await, Hand::join(&world, 1).await);
    for round in 1..=2 {
        let (task, its_task) = tokio::join!(first.task(), second.task());
        for (hand, task, index) in [(&first, &task, 0), (&second, &its_task, 1)] {
            let (header, frame) = update(&hand.session.client, task, index, 1.0);
            send(&world, on_wire(hand, &header), frame).await.unwrap();
        }
        // The receipt of the last update says that the round is over; the end of the run is told by its report.
        let refusal = if round == 1 { Reject::Late } else { Reject::RunFinished };
        if round == 2 {
            world.report().await;
        }
        let (other, frame) = update(&first.session.client, &task, 0, 2.0);
        assert_eq!(send(&world, on_wire(&first, &other), frame).await, Err(refusal));
    }
    // Two rounds, each the mean of two updates: one unit of 2⁻²⁴·2²⁴ each.
    assert_eq!(world.handle.broadcast().model().values()[..3], [1 << 24, 1 << 24, 0]);
}

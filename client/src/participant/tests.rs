//! The client's protocol, event by event.

use super::*;
use dunlin_codec::{Codec, EntropyCoder, Quantizer};
use dunlin_core::message::Receipt;
use dunlin_core::{Digest, RoundId};

const ROUND: RoundId = RoundId { term: 1, number: 4 };

fn joined(pending: Option<UpdateHeader>) -> Participant {
    let mut participant = Participant::new(ClientId::new("a").unwrap(), Token([1; 16]), 1000);
    assert!(matches!(participant.action(), Action::Join(_)));
    let welcome = Welcome { run: RunId([1; 8]), recipe: String::new(), layout: Digest([0; 32]) };
    participant.on(Event::Joined(Ok(welcome.clone())));
    assert_eq!(participant.action(), Action::Prepare(welcome));
    participant.on(Event::Ready { examples: 60, width: Width::WHOLE, held: Some(ModelVersion(2)), pending });
    participant
}

fn task() -> TrainTask {
    let codec = Codec { density: 0.1, quantizer: Quantizer::Ternary, coder: EntropyCoder::Auto };
    TrainTask { round: ROUND, base: ModelVersion(3), deadline_ms: 1000, codec, max_bytes: 0, asks: 0 }
}

fn header() -> UpdateHeader {
    UpdateHeader {
        client: ClientId::new("a").unwrap(),
        round: ROUND,
        base: ModelVersion(3),
        examples: 60,
        loss: 0.1,
        frame_len: 10,
        digest: Digest([2; 32]),
    }
}

fn uploading() -> Participant {
    let mut participant = joined(None);
    participant.on(Event::Assigned(Ok(Assignment::Train(task()))));
    assert!(matches!(participant.action(), Action::Fetch(FetchModel { wanted: ModelVersion(3), .. })));
    participant.on(Event::Fetched(Ok(ModelVersion(3))));
    assert_eq!(participant.action(), Action::Train(task()));
    participant.on(Event::Trained(header()));
    assert!(matches!(participant.action(), Action::Upload(_, _, 0)));
    participant
}

fn receipt() -> Receipt {
    Receipt { round: ROUND, digest: Digest([2; 32]), duplicate: false }
}

#[test]
fn a_receipt_commits_the_update_and_the_client_checks_in_again() {
    let mut participant = uploading();
    participant.on(Event::Uploaded(Ok(Uploaded::Receipt(receipt()))));
    assert_eq!(participant.action(), Action::Commit(header()));
    participant.on(Event::Done);
    assert!(matches!(participant.action(), Action::CheckIn(CheckIn { held: Some(ModelVersion(3)), .. })));
}

#[test]
fn a_refused_update_is_abandoned_with_its_reason() {
    let mut participant = uploading();
    participant.on(Event::Uploaded(Err(Reject::Late)));
    assert_eq!(participant.action(), Action::Abandon(header(), Reject::Late));
    participant.on(Event::Done);
    assert!(matches!(participant.action(), Action::CheckIn(_)));
}

#[test]
fn a_client_without_bytes_declines_the_round_and_offers_nothing_any_more_when_that_is_for_good() {
    for (for_good, examples) in [(false, 60), (true, 0)] {
        let mut participant = joined(None);
        participant.on(Event::Assigned(Ok(Assignment::Train(task()))));
        participant.on(Event::Fetched(Ok(ModelVersion(3))));
        assert_eq!(participant.action(), Action::Train(task()));
        participant.on(Event::OutOfBytes { for_good });
        let Action::CheckIn(check_in) = participant.action() else { panic!("{:?}", participant.action()) };
        assert_eq!((check_in.declines, check_in.examples), (Some(ROUND.number), examples));
        // Another run has other rounds, and another budget.
        participant.on(Event::Assigned(Err(Reject::UnknownRun)));
        let welcome = Welcome { run: RunId([8; 8]), recipe: String::new(), layout: Digest([0; 32]) };
        participant.on(Event::Joined(Ok(welcome)));
        participant.on(Event::Ready { examples: 60, width: Width::WHOLE, held: None, pending: None });
        let Action::CheckIn(check_in) = participant.action() else { panic!("{:?}", participant.action()) };
        assert_eq!((check_in.declines, check_in.examples), (None, 60));
    }
}

#[test]
fn a_dropped_upload_backs_off_longer_each_time_and_then_resumes_where_the_server_stands() {
    let mut participant = uploading();
    for failures in 1..=3 {
        participant.on(Event::Disconnected);
        assert_eq!(participant.action(), Action::BackOff { failures });
        participant.on(Event::Done);
        assert!(matches!(participant.action(), Action::AskOffset(..)));
    }
    participant.on(Event::Offset(Ok(Held::Offset(7))));
    assert!(matches!(participant.action(), Action::Upload(_, _, 7)));
    participant.on(Event::Disconnected);
    assert_eq!(participant.action(), Action::BackOff { failures: 1 });
}

#[test]
fn a_receipt_that_got_lost_is_asked_for() {
    let mut participant = uploading();
    participant.on(Event::Disconnected);
    participant.on(Event::Done);
    participant.on(Event::Offset(Ok(Held::Receipt(receipt()))));
    assert_eq!(participant.action(), Action::Commit(header()));
}

#[test]
fn a_restarted_client_first_brings_home_its_pending_update() {
    let participant = joined(Some(header()));
    assert!(matches!(participant.action(), Action::AskOffset(_, pending) if pending == header()));
}

#[test]
fn a_server_that_forgot_the_client_is_joined_again_with_the_update_still_pending() {
    let mut participant = uploading();
    participant.on(Event::Uploaded(Err(Reject::UnknownClient)));
    assert!(matches!(participant.action(), Action::Join(_)));
}

#[test]
fn drift_leads_to_a_fetch_that_claims_to_hold_nothing() {
    let mut participant = joined(None);
    participant.on(Event::Assigned(Ok(Assignment::Train(task()))));
    participant.on(Event::Drifted);
    assert!(matches!(participant.action(), Action::Fetch(FetchModel { held: None, wanted: ModelVersion(3), .. })));
}

#[test]
fn bytes_that_go_astray_are_sent_again_but_not_for_ever() {
    let mut participant = uploading();
    for _ in 0..MAX_UPLOAD_RETRIES {
        participant.on(Event::Uploaded(Err(Reject::WrongDigest)));
        assert!(matches!(participant.action(), Action::Pause { .. }));
        participant.on(Event::Done);
        participant.on(Event::Offset(Ok(Held::Offset(0))));
    }
    participant.on(Event::Uploaded(Err(Reject::WrongDigest)));
    assert_eq!(participant.action(), Action::Abandon(header(), Reject::WrongDigest));
}

#[test]
fn waiting_pauses_as_long_as_the_server_asks_and_the_end_of_the_run_stops_the_client() {
    let mut participant = joined(None);
    participant.on(Event::Assigned(Ok(Assignment::Wait { reason: Waiting::NotChosen, retry_after_ms: 250 })));
    assert_eq!(participant.action(), Action::Pause { ms: 250, reason: Waiting::NotChosen });
    participant.on(Event::Done);
    let finished = Assignment::Finished { outcome: Outcome::Completed, version: ModelVersion(9) };
    participant.on(Event::Assigned(Ok(finished)));
    assert_eq!(participant.action(), Action::Stop(End::Finished(Outcome::Completed)));
}

#[test]
fn a_name_in_use_is_waited_for_and_another_protocol_is_final() {
    let mut participant = Participant::new(ClientId::new("a").unwrap(), Token([1; 16]), 0);
    participant.on(Event::Joined(Err(Reject::WrongSession)));
    assert!(matches!(participant.action(), Action::Pause { .. }));
    participant.on(Event::Done);
    participant.on(Event::Joined(Err(Reject::ProtocolTooOld)));
    assert_eq!(participant.action(), Action::Stop(End::Refused(Reject::ProtocolTooOld)));
}

#[test]
fn an_event_out_of_turn_changes_nothing() {
    let mut participant = uploading();
    participant.on(Event::Reported(Ok(())));
    participant.on(Event::Trained(header()));
    assert!(matches!(participant.action(), Action::Upload(_, _, 0)));
}

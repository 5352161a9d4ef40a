//! What every way of carrying a client's calls must do: one script, the same answers.

use crate::calls::update;
use crate::world::{World, recipe};
use bytes::Bytes;
use dunlin::client::transport::Transport;
use dunlin::core::message::{
    Assignment, CatchUp, CheckIn, EvaluationReport, FetchModel, Join, PROTOCOL, Session, TrainTask, UpdateHeader,
    Welcome,
};
use dunlin::core::recipe::Width;
use dunlin::core::wire::{self, Held, Uploaded};
use dunlin::core::{ClientId, Digest, ModelVersion, Reject, RoundId, Token};
use dunlin::server::coordinator::Advance;
use dunlin::server::driver::Handle;
use dunlin_proto::v1;
use std::fmt::Debug;

/// A client's calls, and what carries them.
enum Calls {
    /// Functions of the server's process, behind the boundary that refuses what a peer cannot say.
    Direct(Handle),
    /// gRPC.
    Wire(Box<Transport>),
}

type Answer<T> = Result<T, Reject>;

impl Calls {
    async fn join(&mut self, join: &Join) -> Answer<Welcome> {
        match self {
            Self::Direct(handle) => handle.join(Join::try_from(&join.to_wire("test"))?).await.unwrap(),
            Self::Wire(transport) => transport.join(join).await.unwrap().map_err(|refused| refused.reject),
        }
    }

    async fn check_in(&mut self, check_in: &CheckIn) -> Answer<Assignment> {
        match self {
            Self::Direct(handle) => {
                handle.check_in(CheckIn::try_from(&v1::CheckInRequest::from(check_in))?).await.unwrap()
            }
            Self::Wire(transport) => transport.check_in(check_in).await.unwrap(),
        }
    }

    async fn fetch(&mut self, fetch: &FetchModel) -> Answer<(CatchUp, Vec<Bytes>)> {
        match self {
            Self::Direct(handle) => {
                let fetch = FetchModel::try_from(&v1::FetchModelRequest::from(fetch))?;
                handle.authenticate(fetch.session).await.unwrap()?;
                let broadcast = handle.broadcast();
                if broadcast.version() != fetch.wanted {
                    return Err(Reject::UnknownVersion);
                }
                let plan = broadcast.catch_up(fetch.held);
                Ok((plan.catch_up.clone(), plan.frames.clone()))
            }
            Self::Wire(transport) => transport.fetch(fetch, 10_000).await.unwrap(),
        }
    }

    async fn offset(&mut self, session: &Session, header: &UpdateHeader) -> Answer<Held> {
        match self {
            Self::Direct(handle) => {
                let (session, header) = wire::read_update_header(Some(wire::update_header(session, header)))?;
                let known = handle.announce(session, header).await.unwrap()?;
                Ok(known.map_or(Held::Offset(0), Held::Receipt))
            }
            Self::Wire(transport) => transport.upload_offset(session, header).await.unwrap(),
        }
    }

    async fn upload(&mut self, session: &Session, header: &UpdateHeader, frame: &Bytes) -> Answer<Uploaded> {
        match self {
            Self::Direct(handle) => {
                let (session, header) = wire::read_update_header(Some(wire::update_header(session, header)))?;
                if let Some(receipt) = handle.announce(session.clone(), header.clone()).await.unwrap()? {
                    return Ok(Uploaded::Receipt(receipt));
                }
                let vetted = handle.rules().vet(&header, frame)?;
                handle.offer(session, header, frame.clone(), vetted).await.unwrap().map(Uploaded::Receipt)
            }
            Self::Wire(transport) => transport.upload(session, header, frame, 0).await.unwrap(),
        }
    }

    async fn progress(&mut self, session: &Session, round: RoundId) -> Answer<()> {
        match self {
            Self::Direct(handle) => handle.progress(session.clone(), round, Advance::Bytes).await.unwrap(),
            Self::Wire(transport) => transport.progress(session, round, 1, 2).await.unwrap(),
        }
    }

    async fn report(&mut self, session: &Session, report: &EvaluationReport) -> Answer<()> {
        match self {
            Self::Direct(handle) => {
                let (session, report) = wire::read_evaluation(&wire::evaluation(session, report))?;
                handle.evaluated(session, report).await.unwrap()
            }
            Self::Wire(transport) => transport.report(session, report).await.unwrap(),
        }
    }

    /// The next thing to do but waiting.
    async fn work(&mut self, session: &Session, held: Option<ModelVersion>) -> Assignment {
        let check_in = CheckIn {
            session: session.clone(),
            examples: 1,
            width: Width::WHOLE,
            held,
            wait_ms: 10_000,
            declines: None,
        };
        loop {
            match self.check_in(&check_in).await.unwrap() {
                Assignment::Wait { .. } => {}
                work => return work,
            }
        }
    }

    async fn task(&mut self, session: &Session, held: Option<ModelVersion>) -> TrainTask {
        match self.work(session, held).await {
            Assignment::Train(task) => task,
            other => panic!("wanted a task, got {other:?}"),
        }
    }
}

/// Everything that was answered, in order.
#[derive(Default)]
struct Heard(Vec<String>);

impl Heard {
    fn note<T: Debug>(&mut self, call: &str, answer: T) -> T {
        self.0.push(format!("{call}: {answer:?}"));
        answer
    }
}

/// A client's whole life with most of what can go wrong in it; two rounds with an evaluation after each.
async fn script(mut calls: Calls) -> Vec<String> {
    let mut heard = Heard::default();
    let (client, token) = (ClientId::numbered("client", 0), Token([1; 16]));
    let join = Join { protocol: PROTOCOL, client: client.clone(), token };
    let welcome = heard.note("join", calls.join(&join).await).unwrap();
    heard.note("join again", calls.join(&join).await).unwrap();
    let thief = Join { token: Token([2; 16]), ..join.clone() };
    assert_eq!(heard.note("another's name", calls.join(&thief).await), Err(Reject::WrongSession));
    let newer = Join { protocol: PROTOCOL + 1, ..join };
    assert_eq!(heard.note("another protocol", calls.join(&newer).await), Err(Reject::ProtocolTooNew));

    let session = Session { run: welcome.run, client: client.clone(), token };
    let stranger = Session { token: Token([2; 16]), ..session.clone() };
    let check_in =
        CheckIn { session: stranger.clone(), examples: 1, width: Width::WHOLE, held: None, wait_ms: 0, declines: None };
    assert_eq!(heard.note("a stranger's check-in", calls.check_in(&check_in).await), Err(Reject::WrongSession));

    for round in 1..=2 {
        let held = (round > 1).then_some(ModelVersion(0));
        let task = calls.task(&session, held).await;
        heard.note("task", (task.round, task.base, task.codec));
        let fetch = FetchModel { session: session.clone(), held, wanted: task.base };
        heard.note("fetch", calls.fetch(&fetch).await).unwrap();
        heard.note("fetch from nothing", calls.fetch(&FetchModel { held: None, ..fetch.clone() }).await).unwrap();
        let future = FetchModel { wanted: ModelVersion(99), ..fetch.clone() };
        assert_eq!(heard.note("a future model", calls.fetch(&future).await), Err(Reject::UnknownVersion));
        let stolen = FetchModel { session: stranger.clone(), ..fetch };
        assert_eq!(heard.note("a stranger's fetch", calls.fetch(&stolen).await), Err(Reject::WrongSession));
        heard.note("progress", calls.progress(&session, task.round).await).unwrap();

        let (header, frame) = update(&client, &task, 3, 1.0);
        heard.note("offset", calls.offset(&session, &header).await).unwrap();
        let later = RoundId { number: task.round.number + 1, ..task.round };
        let early = UpdateHeader { round: later, ..header.clone() };
        assert_eq!(heard.note("early", calls.upload(&session, &early, &frame).await), Err(Reject::FutureRound));
        let mangled = UpdateHeader { digest: Digest([9; 32]), ..header.clone() };
        assert_eq!(heard.note("mangled", calls.upload(&session, &mangled, &frame).await), Err(Reject::WrongDigest));
        let stolen = calls.upload(&stranger, &header, &frame).await;
        assert_eq!(heard.note("a stranger's upload", stolen), Err(Reject::WrongSession));
        heard.note("upload", calls.upload(&session, &header, &frame).await).unwrap();
        heard.note("upload again", calls.upload(&session, &header, &frame).await).unwrap();
        heard.note("offset of what is there", calls.offset(&session, &header).await).unwrap();
        let (other, other_frame) = update(&client, &task, 4, 1.0);
        assert!(heard.note("another update", calls.upload(&session, &other, &other_frame).await).is_err());

        let Assignment::Evaluate(evaluate) = calls.work(&session, held).await else { panic!("an evaluation is due") };
        heard.note("evaluate", (evaluate.round, evaluate.version));
        let report = EvaluationReport {
            round: evaluate.round,
            version: evaluate.version,
            examples: 4,
            correct: 3,
            loss_sum: 0.5,
        };
        let absurd = EvaluationReport { correct: 5, ..report };
        assert!(heard.note("more right than there are", calls.report(&session, &absurd).await).is_err());
        heard.note("report", calls.report(&session, &report).await).unwrap();
    }
    let end = calls.work(&session, None).await;
    assert!(matches!(heard.note("end", &end), Assignment::Finished { .. }));
    heard.0
}

#[tokio::test(flavor = "multi_thread")]
async fn function_calls_pipes_and_sockets_give_the_same_answers() {
    let sets = ["data.clients=1", "rounds.cohort=1", "rounds.count=2", "rounds.federated_evaluation_every=1"];
    let start = || World::start(&recipe(&sets));
    let (direct, pipe, socket) = (start(), start(), start());
    let expected = script(Calls::Direct(direct.handle.clone())).await;
    assert_eq!(script(Calls::Wire(Box::new(pipe.transport()))).await, expected);
    assert_eq!(script(Calls::Wire(Box::new(socket.tcp_transport().await))).await, expected);
    let reports = [direct.report().await, pipe.report().await, socket.report().await];
    assert!(reports.iter().all(|report| report.model_digest == reports[0].model_digest));
    assert!(reports.iter().all(|report| report.rounds == 2));
}

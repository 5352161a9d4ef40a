//! Each call of the protocol, and whole federations through them.

use crate::world::{LEN, Toy, World, channel_over, recipe};
use bytes::Bytes;
use dunlin::client::transport::Transport;
use dunlin::codec::Encoder;
use dunlin::core::message::{
    Assignment, CheckIn, FetchModel, Join, JoinRefused, PROTOCOL, PROTOCOL_OLDEST, Session, TrainTask, UpdateHeader,
};
use dunlin::core::recipe::Width;
use dunlin::core::wire::{Held, Uploaded};
use dunlin::core::{ClientId, Digest, ModelVersion, Outcome, Reject, RoundId, Token, Waiting};
use dunlin::server::serve::metrics_text;
use dunlin::server::service::FederationService;
use dunlin::simulation::Transport as Carrier;
use dunlin_proto::v1;
use dunlin_proto::v1::federation_client::FederationClient;
use dunlin_proto::v1::federation_server::FederationServer;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::server::Router;
use tonic::transport::{Channel, Server};
use tonic::{Response, Status};

/// Far longer than what is waited for takes on a busy machine.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A client by hand: joined, and with a task of the round that is open.
pub(crate) struct Hand {
    pub(crate) transport: Transport,
    pub(crate) session: Session,
}

impl Hand {
    pub(crate) async fn join(world: &World, number: u32) -> Self {
        let mut transport = world.transport();
        let (client, token) = (ClientId::numbered("client", number), Token([number as u8; 16]));
        let join = Join { protocol: PROTOCOL, client: client.clone(), token };
        let welcome = transport.join(&join).await.unwrap().unwrap();
        Self { transport, session: Session { run: welcome.run, client, token } }
    }

    pub(crate) async fn check_in(&mut self) -> Result<Assignment, Reject> {
        self.check_in_for(5000).await
    }

    pub(crate) async fn check_in_for(&mut self, wait_ms: u64) -> Result<Assignment, Reject> {
        let session = self.session.clone();
        let check_in = CheckIn { session, examples: 1, width: Width::WHOLE, held: None, wait_ms, declines: None };
        self.transport.check_in(&check_in).await.unwrap()
    }

    pub(crate) async fn task(&mut self) -> TrainTask {
        loop {
            match self.check_in().await.unwrap() {
                Assignment::Train(task) => return task,
                Assignment::Wait { .. } => {}
                other => panic!("wanted a task, got {other:?}"),
            }
        }
    }
}

/// An update with `value` at coordinate `index`.
pub(crate) fn update(client: &ClientId, task: &TrainTask, index: usize, value: f32) -> (UpdateHeader, Bytes) {
    let mut u = vec![0.0; LEN];
    u[index] = value;
    let frame = Encoder::new().encode(&task.codec, &crate::world::layout().segments(), &u).unwrap().frame;
    (header(client, task, &frame), frame.into())
}

pub(crate) fn header(client: &ClientId, task: &TrainTask, frame: &[u8]) -> UpdateHeader {
    UpdateHeader {
        client: client.clone(),
        round: task.round,
        base: task.base,
        examples: 1,
        loss: 0.5,
        frame_len: frame.len() as u64,
        digest: Digest::of(frame),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_clients_make_the_model_that_the_simulation_makes() {
    let recipe = recipe(&["rounds.count=5", "rounds.federated_evaluation_every=2", "downlink.quantizer=ternary"]);
    let world = World::start(&recipe);
    let clients = world.honest(0..10);
    let report = world.report().await;
    for client in clients {
        assert_eq!(client.await.unwrap(), dunlin::client::participant::End::Finished(Outcome::Completed),);
    }
    let simulate = |carrier| {
        let recipe = recipe.clone();
        let run = move || {
            dunlin::Simulation::new(recipe).workplace(Arc::new(Toy { len: LEN })).transport(carrier).run().unwrap()
        };
        std::thread::spawn(run).join().unwrap()
    };
    let (simulated, through_grpc) = (simulate(Carrier::InProcess), simulate(Carrier::Grpc));
    assert_eq!(report.model_digest, simulated.report.model_digest);
    assert_eq!(report.model_digest, through_grpc.report.model_digest);
    assert_eq!((report.bytes, report.clients), (simulated.report.bytes, 10));
    assert_eq!(simulated.rounds[1].federated, through_grpc.rounds[1].federated);
    assert_eq!(simulated.rounds[1].federated.unwrap().accuracy, 0.55);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_the_link_broke_and_counts_once() {
    let world = World::start(&recipe(&["data.clients=1", "rounds.cohort=1", "rounds.count=1"]));
    let mut hand = Hand::join(&world, 0).await;
    let task = hand.task().await;
    let (header, frame) = update(&hand.session.client, &task, 3, 1.0);
    let held = break_an_upload(&world, &mut hand, &header, &frame).await;

    let wrong = hand.transport.upload(&hand.session, &header, &frame, held - 1).await.unwrap();
    assert_eq!(wrong, Err(Reject::WrongOffset));
    let status = world.handle.status().await.unwrap();
    let misplaced = (Reject::WrongOffset, Some(hand.session.client.clone()), 1);
    assert!(status.view.rejects.contains(&misplaced), "{:?}", status.view.rejects);
    let before = status.bytes.up;
    let answer = hand.transport.upload(&hand.session, &header, &frame, held).await.unwrap();
    assert!(matches!(answer, Ok(Uploaded::Receipt(receipt)) if !receipt.duplicate), "{answer:?}");
    let again = hand.transport.upload(&hand.session, &header, &frame, 0).await.unwrap();
    assert!(matches!(again, Ok(Uploaded::Receipt(receipt)) if receipt.duplicate), "{again:?}");
    let report = world.report().await;
    let sent = [before, world.handle.status().await.unwrap().bytes.up, report.bytes.up];
    assert_eq!(sent, [held, frame.len() as u64, frame.len() as u64], "no byte was sent twice");
    assert_eq!(report.rejects.get("wrong_offset"), Some(&1));
    assert_eq!(world.handle.broadcast().model().values()[3], 1 << 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_may_begin_anew_after_the_link_broke() {
    let world = World::start(&recipe(&["data.clients=1", "rounds.cohort=1", "rounds.count=1"]));
    let mut hand = Hand::join(&world, 0).await;
    let task = hand.task().await;
    let (header, frame) = update(&hand.session.client, &task, 3, 1.0);
    break_an_upload(&world, &mut hand, &header, &frame).await;
    let answer = hand.transport.upload(&hand.session, &header, &frame, 0).await.unwrap();
    assert!(matches!(answer, Ok(Uploaded::Receipt(receipt)) if !receipt.duplicate), "{answer:?}");
    world.report().await;
    assert_eq!(world.handle.broadcast().model().values()[3], 1 << 24);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_room_for_another_frame_says_when_to_come_back() {
    let world = World::start(&recipe(&["data.clients=2", "rounds.cohort=2", "rounds.count=1"]));
    let (mut first, mut second) = (Hand::join(&world, 0).await, Hand::join(&world, 1).await);
    // The cohort is chosen when both are there.
    assert!(matches!(first.check_in_for(0).await, Ok(Assignment::Wait { .. })));
    let (task, _) = (second.task().await, first.task().await);
    let (header, frame) = update(&first.session.client, &task, 3, 1.0);
    let (other, other_frame) = update(&second.session.client, &task, 4, 1.0);

    // Each takes 1 KiB with what it decodes to.
    let narrow = FederationService::with_room(world.handle.clone(), 1 << 10);
    let channel = serve_over_pipes(Server::builder().add_service(FederationServer::new(narrow)));
    let (sender, call) = begin_an_upload(&world, channel.clone(), &first, &header, &frame).await;
    let mut transport = Transport::over(channel);
    let refused = transport.upload(&second.session, &other, &other_frame, 0).await.unwrap();
    assert!(matches!(refused, Ok(Uploaded::Retry(Waiting::Busy, 1..))), "{refused:?}");
    // Nobody is to blame.
    assert_eq!(world.handle.status().await.unwrap().view.rejects, []);

    let rest = v1::upload_request::Part::Data(frame.slice(frame.len() / 3..));
    sender.send(v1::UploadRequest { part: Some(rest) }).await.unwrap();
    drop(sender);
    call.await.unwrap().unwrap();
    let accepted = transport.upload(&second.session, &other, &other_frame, 0).await.unwrap();
    assert!(matches!(accepted, Ok(Uploaded::Receipt(_))), "{accepted:?}");
    assert_eq!(world.report().await.rejects, BTreeMap::new());
}

/// A channel to a server of these services alone.
fn serve_over_pipes(services: Router) -> Channel {
    let (connect, incoming) = tokio::sync::mpsc::unbounded_channel();
    let incoming = tokio_stream::wrappers::UnboundedReceiverStream::new(incoming);
    tokio::spawn(services.serve_with_incoming(incoming));
    channel_over(move || {
        let (near, far) = tokio::io::duplex(64 << 10);
        drop(connect.send(Ok::<_, std::io::Error>(far)));
        near
    })
}

type Begun = (mpsc::Sender<v1::UploadRequest>, JoinHandle<Result<Response<v1::UploadReply>, Status>>);

/// Sends a third of a frame, and returns when the server has read it.
async fn begin_an_upload(world: &World, channel: Channel, hand: &Hand, header: &UpdateHeader, frame: &Bytes) -> Begun {
    let mut raw = FederationClient::new(channel);
    let start = v1::UploadStart { header: Some(dunlin::core::wire::update_header(&hand.session, header)), offset: 0 };
    let (sender, receiver) = mpsc::channel(4);
    let part = |part| v1::UploadRequest { part: Some(part) };
    sender.send(part(v1::upload_request::Part::Start(start))).await.unwrap();
    let third = frame.len() / 3;
    sender.send(part(v1::upload_request::Part::Data(frame.slice(..third)))).await.unwrap();
    let call = tokio::spawn(async move { raw.upload(tokio_stream::wrappers::ReceiverStream::new(receiver)).await });
    let read = async {
        while world.handle.status().await.unwrap().bytes.up < third as u64 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the server reads what has arrived");
    (sender, call)
}

/// Sends a third of a frame through a stream that then breaks; how many bytes the server says that it holds.
async fn break_an_upload(world: &World, hand: &mut Hand, header: &UpdateHeader, frame: &Bytes) -> u64 {
    // The server has read it before the link breaks; what waits in a buffer may be lost with the stream.
    let (_sender, call) = begin_an_upload(world, world.channel(), hand, header, frame).await;
    let third = frame.len() / 3;
    call.abort();
    let noticed = async {
        loop {
            match hand.transport.upload_offset(&hand.session, header).await.unwrap() {
                Ok(Held::Offset(0)) => tokio::task::yield_now().await,
                Ok(Held::Offset(offset)) => break offset,
                other => panic!("{other:?}"),
            }
        }
    };
    let held = tokio::time::timeout(PATIENCE, noticed).await.expect("the server notices the break");
    assert_eq!(held, third as u64);
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_another_version_is_told_which_side_to_update() {
    let world = World::start(&recipe(&[]));
    let mut raw = FederationClient::new(world.channel());
    for (protocol, reject) in [(PROTOCOL - 1, Reject::ProtocolTooOld), (PROTOCOL + 1, Reject::ProtocolTooNew)] {
        let token = vec![1; 16].into();
        let request = v1::JoinRequest { protocol, client: "a".into(), token, software: "test".into() };
        let reply = raw.join(request).await.unwrap().into_inner();
        assert_eq!(reply.reply, Some(v1::join_reply::Reply::Reject(reject.number())));
        assert_eq!((reply.protocol_oldest, reply.protocol_newest), (PROTOCOL_OLDEST, PROTOCOL));
        let token = Token([1; 16]);
        let join = Join { protocol, client: ClientId::numbered("client", 0), token };
        let refused = JoinRefused { reject, oldest: PROTOCOL_OLDEST, newest: PROTOCOL };
        assert_eq!(world.transport().join(&join).await.unwrap(), Err(refused));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_handed_out_to_those_who_joined_and_only_as_it_is_now() {
    let world = World::start(&recipe(&[]));
    let mut hand = Hand::join(&world, 0).await;
    let fetch = FetchModel { session: hand.session.clone(), held: None, wanted: ModelVersion(0) };
    let (plan, frames) = hand.transport.fetch(&fetch, 10_000).await.unwrap().unwrap();
    assert_eq!((plan.version, plan.total_bytes(), frames.len()), (ModelVersion(0), 0, 0), "the seed costs no bytes");
    let future = FetchModel { wanted: ModelVersion(9), ..fetch.clone() };
    assert_eq!(hand.transport.fetch(&future, 10_000).await.unwrap(), Err(Reject::UnknownVersion));
    let session = Session { token: Token([9; 16]), ..fetch.session.clone() };
    let stranger = FetchModel { session, ..fetch };
    assert_eq!(hand.transport.fetch(&stranger, 10_000).await.unwrap(), Err(Reject::WrongSession));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_was_refused_is_told_under_its_name() {
    let world = World::start(&recipe(&["data.clients=2", "rounds.cohort=2", "rounds.count=1"]));
    let mut hand = Hand::join(&world, 0).await;
    let session = hand.session.clone();
    let round = RoundId { term: 1, number: 9 };
    assert_eq!(hand.transport.progress(&session, round, 1, 2).await.unwrap(), Err(Reject::FutureRound));
    let fetch = FetchModel { session: session.clone(), held: None, wanted: ModelVersion(9) };
    assert_eq!(hand.transport.fetch(&fetch, 10_000).await.unwrap(), Err(Reject::UnknownVersion));
    let mut raw = FederationClient::new(world.channel());
    let sender = || v1::Session {
        run: session.run.0.to_vec().into(),
        client: session.client.to_string(),
        token: session.token.0.to_vec().into(),
    };
    // Neither names a round.
    let progress = v1::ProgressRequest { session: Some(sender()), ..Default::default() };
    assert_eq!(raw.progress(progress).await.unwrap().into_inner().reject, Reject::Malformed.number());
    let report = v1::ReportEvaluationRequest { session: Some(sender()), examples: 1, ..Default::default() };
    assert_eq!(raw.report_evaluation(report).await.unwrap().into_inner().reject, Reject::Malformed.number());

    let status = world.handle.status().await.unwrap();
    let of = |reject, count| (reject, Some(session.client.clone()), count);
    let rejects = vec![of(Reject::Malformed, 2), of(Reject::FutureRound, 1), of(Reject::UnknownVersion, 1)];
    assert_eq!(status.view.rejects, rejects);
    let metrics = metrics_text(&status).unwrap();
    let line = "dunlin_rejects{reason=\"unknown_version\",client=\"client-00000\"} 1";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_reflection_and_control_answer() {
    let world = World::start(&recipe(&[]));
    let mut health = tonic_health::pb::health_client::HealthClient::new(world.channel());
    let request = tonic_health::pb::HealthCheckRequest { service: "dunlin.v1.Federation".into() };
    let status = health.check(request).await.unwrap().into_inner().status();
    assert_eq!(status, tonic_health::pb::health_check_response::ServingStatus::Serving);

    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::{ServerReflectionRequest, server_reflection_request::MessageRequest};
    let mut reflection = ServerReflectionClient::new(world.channel());
    let message_request = Some(MessageRequest::FileContainingSymbol("dunlin.v1.Control".into()));
    let request = ServerReflectionRequest { host: String::new(), message_request };
    let mut replies = reflection.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let reply = replies.message().await.unwrap().unwrap();
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    assert!(matches!(reply.message_response, Some(MessageResponse::FileDescriptorResponse(_))), "{reply:?}");

    let mut control = v1::control_client::ControlClient::new(world.channel());
    Hand::join(&world, 0).await;
    let status = control.status(v1::StatusRequest {}).await.unwrap().into_inner();
    assert_eq!((status.phase.as_str(), status.clients, status.term), ("gathering", 1, 1));
    let runs = control.list_runs(v1::ListRunsRequest {}).await.unwrap().into_inner().runs;
    assert_eq!((runs.len(), runs[0].id.as_str()), (1, "0707070707070707"));
    control.stop_run(v1::StopRunRequest {}).await.unwrap();
    let mut watch = control.watch_run(v1::WatchRunRequest {}).await.unwrap().into_inner();
    let event = watch.message().await.unwrap().unwrap().event.unwrap();
    assert!(matches!(event, v1::watch_run_reply::Event::Report(json) if json.contains("\"stopped\"")));
    assert_eq!(watch.message().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_check_in_is_answered_when_the_round_opens() {
    let world = World::start(&recipe(&["data.clients=2", "rounds.cohort=2", "rounds.count=1"]));
    let mut first = Hand::join(&world, 0).await;
    let waiting = tokio::spawn(async move { first.check_in().await });
    let mut second = Hand::join(&world, 1).await;
    let task = second.task().await;
    let Assignment::Train(first) = waiting.await.unwrap().unwrap() else { panic!("the held call brings a task") };
    assert_eq!(TrainTask { deadline_ms: task.deadline_ms, ..first }, task);
    assert!(task.deadline_ms <= 600_000);
}

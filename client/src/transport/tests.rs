//! Links that break in silence: bytes leave, and nothing ever comes back.

use super::*;
use dunlin_core::{ClientId, Digest, ModelVersion, RunId, Token};
use hyper_util::rt::TokioIo;
use std::io;
use tonic::transport::Uri;

/// A transport whose other end reads everything and says nothing.
fn to_nowhere() -> Transport {
    let connector = tower::service_fn(|_: Uri| async {
        let (near, mut far) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move { tokio::io::copy(&mut far, &mut tokio::io::sink()).await });
        Ok::<_, io::Error>(TokioIo::new(near))
    });
    Transport::over(Endpoint::from_static("http://nowhere").connect_with_connector_lazy(connector))
}

fn session() -> Session {
    Session { run: RunId([1; 8]), client: ClientId::new("a").unwrap(), token: Token([2; 16]) }
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_nobody_answers_ends() {
    let fetch = FetchModel { session: session(), held: None, wanted: ModelVersion(1) };
    let ended = to_nowhere().fetch(&fetch, 1000).await;
    assert_eq!(ended.unwrap_err().to_string(), "the server does not answer");
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_nobody_acknowledges_ends_after_what_the_slowest_link_would_take() {
    let frame = Bytes::from(vec![7; 51_200]);
    let header = UpdateHeader {
        client: ClientId::new("a").unwrap(),
        round: RoundId { term: 1, number: 1 },
        base: ModelVersion(0),
        examples: 1,
        loss: 0.0,
        frame_len: frame.len() as u64,
        digest: Digest::of(&frame),
    };
    let started = tokio::time::Instant::now();
    let ended = to_nowhere().upload(&session(), &header, &frame, 0).await;
    assert_eq!(ended.unwrap_err().to_string(), "the upload took more than 130 s");
    assert_eq!(started.elapsed().as_secs(), 130);
}

//! Links that break again and again, in the middle of whatever is on its way.

use crate::world::{Toy, World, channel_over, recipe};
use dunlin::client::driver::{self, Shared, Workplace};
use dunlin::client::state::{MemoryState, ModelCache};
use dunlin::client::transport::Transport;
use dunlin::core::wire::CHUNK_BYTES;
use dunlin::core::{ClientId, Outcome, Report};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, DuplexStream};

/// Parameters of a model whose updates go in three chunks.
const LEN: usize = 300_000;
const CLIENTS: u32 = 6;
const ROUNDS: u64 = 4;

/// Counts what becomes of links.
#[derive(Default)]
struct Cuts {
    up: AtomicU64,
    down: AtomicU64,
}

/// A transport each of whose connections carries a drawn number of bytes in either direction, and then is gone.
fn brittle(world: &World, seed: u64, cuts: &Arc<Cuts>) -> Transport {
    let draws = Mutex::new(ChaCha8Rng::seed_from_u64(seed));
    let (connect, cuts) = (world.connector(), Arc::clone(cuts));
    Transport::over(channel_over(move || {
        let (up, down) = {
            let mut rng = draws.lock().unwrap();
            (rng.random_range(0..2 << 20), rng.random_range(0..3 << 20))
        };
        let (near, client) = tokio::io::duplex(64 << 10);
        let server = connect();
        tokio::spawn(relay(client, server, (up, down), Arc::clone(&cuts)));
        near
    }))
}

/// Carries so many bytes up and down, and then drops both ends.
async fn relay(client: DuplexStream, server: DuplexStream, (up, down): (u64, u64), cuts: Arc<Cuts>) {
    let (from_client, mut to_client) = tokio::io::split(client);
    let (from_server, mut to_server) = tokio::io::split(server);
    let (mut upwards, mut downwards) = (from_client.take(up), from_server.take(down));
    // One that the client or the server ended is not cut.
    tokio::select! {
        carried = tokio::io::copy(&mut upwards, &mut to_server) => if carried.is_ok_and(|bytes| bytes == up) {
            cuts.up.fetch_add(1, Ordering::Relaxed);
        },
        carried = tokio::io::copy(&mut downwards, &mut to_client) => if carried.is_ok_and(|bytes| bytes == down) {
            cuts.down.fetch_add(1, Ordering::Relaxed);
        },
    }
}

async fn run(link: impl Fn(&World, u64) -> Transport) -> Report {
    let (clients, rounds) = (format!("data.clients={CLIENTS}"), format!("rounds.count={ROUNDS}"));
    // Every value is sent as it is, zeros too.
    let raw = ["uplink.coder=raw", "downlink.coder=raw"];
    let sets = [&*clients, &*rounds, "rounds.cohort=6", "rounds.deadline_s=600", raw[0], raw[1]];
    let toy = Toy { len: LEN };
    let world = World::start_on(&recipe(&sets), &toy);
    let running: Vec<_> = (0..CLIENTS)
        .map(|number| {
            // Each is a process of its own: what one has fetched does not help another.
            let prepare = Box::new(move |_: &_| Ok(Arc::new(toy) as Arc<dyn Workplace>));
            let shared = Shared::new(prepare, ModelCache::new(None), 1);
            let (client, link) = (ClientId::numbered("client", number), link(&world, u64::from(number)));
            tokio::spawn(driver::run(client, Box::<MemoryState>::default(), link, shared, 10_000))
        })
        .collect();
    let report = world.report().await;
    for client in running {
        client.await.unwrap().unwrap();
    }
    report
}

#[tokio::test(flavor = "multi_thread")]
async fn a_federation_whose_links_break_makes_the_same_model_and_sends_little_twice() {
    let whole = run(|world, _| world.transport()).await;
    assert_eq!((whole.outcome, whole.rounds), (Outcome::Completed, ROUNDS));
    assert!(whole.bytes.up > u64::from(CLIENTS) * ROUNDS * 4 * LEN as u64, "{:?}", whole.bytes);

    let cuts = Arc::new(Cuts::default());
    let broken = run(|world, number| brittle(world, number, &cuts)).await;
    assert_eq!(broken.model_digest, whole.model_digest);
    assert_eq!((broken.outcome, broken.rounds, broken.abandoned), (whole.outcome, whole.rounds, 0));
    assert!(broken.rejects.keys().all(|label| label == "truncated"), "{:?}", broken.rejects);
    let (up, down) = (cuts.up.load(Ordering::Relaxed), cuts.down.load(Ordering::Relaxed));
    assert!(up >= 10 && down >= 5, "links were cut {up} times on the way up and {down} times on the way down");
    // An upload goes on with the chunk in which it broke off. A download begins anew.
    assert!(broken.bytes.up >= whole.bytes.up, "{:?}", broken.bytes);
    assert!(broken.bytes.up <= whole.bytes.up + up * CHUNK_BYTES as u64, "{:?}, {up} cuts", broken.bytes);
    assert!(broken.bytes.down >= whole.bytes.down, "{:?}", broken.bytes);
}

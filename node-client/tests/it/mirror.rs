//! A real S3 server on loopback as one more provider, and as the place that contents are copied to.

mod server;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use node_client::{
    clock::{Clock, ManualClock},
    mirror::{Mirror, MirrorError},
    network::{Fault, FaultKind, FetchError, FetchRequest, Network, PeerAddress, PiecesRequest},
};
use protocol::Hash;

use crate::network::{
    address, breathe, config, content, numbered, peer, peer_with, Impatient, Known, Peer, Transport,
};
use server::Server;

/// Larger than a part, of which it has three.
const LARGE: usize = 20 << 20;

/// A clock on which every wait is over at once.
struct Hasty;

#[async_trait]
impl Clock for Hasty {
    fn now_millis(&self) -> u64 {
        0
    }

    async fn sleep(&self, _: Duration) {
        breathe().await;
    }
}

/// A peer with a mirror.
async fn with_mirror(mirror: Mirror, clock: impl Clock + 'static) -> Peer {
    let Peer { client, folder } = peer_with(config(Transport::Tcp), clock).await;
    Peer { client: client.with_mirror(mirror), folder }
}

fn pieces(id: Hash, pieces: Arc<Known>, providers: Vec<PeerAddress>) -> PiecesRequest {
    PiecesRequest { id, providers, pieces, whole: true }
}

fn fault(peer: &Peer, kind: FaultKind) -> Fault {
    Fault { peer: peer.client.mirror_peer().unwrap(), kind }
}

/// A miner ends after its reveal, and nobody else has what it revealed.
#[tokio::test]
async fn what_nobody_serves_any_more_comes_whole_from_the_mirror() {
    let server = Server::start().await;
    let miner = with_mirror(server.mirror().copied_to(None), Impatient).await;
    let ((list_id, list), (id, bytes)) = (content(700), content(12_345));
    let wanted = numbered(&bytes);
    miner.client.publish(list_id, list.clone()).await.unwrap();
    let cut = Some(wanted.cut.clone());
    miner.client.publish_content(id, Arc::new(bytes.clone()), cut).await.unwrap();
    for copied in [true, false] {
        for id in [list_id, id] {
            assert_eq!(miner.client.copy_to_mirror(id).await.unwrap(), copied);
        }
    }
    let gone = address(&miner.client).await;
    miner.client.shutdown().await;

    let late = with_mirror(server.mirror(), Impatient).await;
    let expected = list.clone();
    let request = FetchRequest::new(list_id, 700, move |bytes| *bytes == expected);
    let request = request.from_peers([gone.clone()]);
    assert_eq!(late.client.fetch(request).await.unwrap().bytes, list);
    let request = PiecesRequest { id, providers: vec![gone], pieces: wanted, whole: true };
    let fetched = late.client.fetch_pieces(request).await.unwrap();
    assert_eq!(fetched.bytes.unwrap(), bytes);
    assert_eq!(fetched.peers, [late.client.mirror_peer().unwrap()]);
    assert_eq!(late.client.counters().bytes_received, 0);
    assert!(late.client.counters().bytes_mirrored >= 12_345);
    // Who is not told to copies nothing.
    let asked = server.asked().len();
    assert!(!late.client.copy_to_mirror(id).await.unwrap());
    assert_eq!(server.asked().len(), asked);
}

/// A peer is asked for a few pieces at a time, and the mirror for others meanwhile.
#[tokio::test]
async fn a_mirror_has_its_part_of_a_download() {
    let server = Server::start().await;
    let honest = with_mirror(server.mirror().copied_to(None), Impatient).await;
    let (id, bytes) = content(40_000);
    honest.client.publish(id, bytes.clone()).await.unwrap();
    assert!(honest.client.copy_to_mirror(id).await.unwrap());
    let reader = with_mirror(server.mirror(), Impatient).await;
    let providers = vec![address(&honest.client).await];
    let request = pieces(id, Known::new(&bytes, 1_000), providers);
    let fetched = reader.client.fetch_pieces(request).await.unwrap();
    assert_eq!((fetched.bytes, fetched.faults), (Some(bytes), Vec::new()));
    let counters = reader.client.counters();
    assert!(counters.bytes_received >= 1_000 && counters.bytes_mirrored >= 1_000, "{counters:?}");
    assert_eq!(counters.bytes_received + counters.bytes_mirrored, 40_000);
}

#[tokio::test]
async fn a_mirror_that_lies_costs_a_piece_and_is_asked_last_from_then_on() {
    let server = Server::start().await;
    let honest = with_mirror(server.mirror().copied_to(None), Impatient).await;
    let (id, bytes) = content(25_000);
    honest.client.publish(id, bytes.clone()).await.unwrap();
    assert!(honest.client.copy_to_mirror(id).await.unwrap());
    let mut damaged = std::fs::read(server.file(&id)).unwrap();
    damaged[13_000] ^= 1;
    std::fs::write(server.file(&id), damaged).unwrap();

    let reader = with_mirror(server.mirror(), Impatient).await;
    let known = Known::new(&bytes, 2_500);
    let alone = reader.client.fetch_pieces(pieces(id, known.clone(), Vec::new())).await;
    let Err(FetchError::Unavailable { faults, .. }) = alone else { panic!("{alone:?}") };
    assert_eq!(faults, [fault(&reader, FaultKind::Corrupt)]);
    // What was right of it stays, and the rest is the peer's.
    let providers = vec![address(&honest.client).await];
    let mirrored = reader.client.counters().bytes_mirrored;
    let fetched = reader.client.fetch_pieces(pieces(id, known, providers.clone())).await.unwrap();
    assert_eq!(fetched.bytes.unwrap(), bytes);
    assert!(fetched.peers.contains(&honest.client.local_peer()));
    assert!(reader.client.counters().bytes_received >= 2_500);
    assert!(mirrored >= 2_500, "{mirrored}");
    // Where a peer has all of a small content nobody asks the liar.
    let (id, bytes) = content(4_000);
    honest.client.publish(id, bytes.clone()).await.unwrap();
    honest.client.copy_to_mirror(id).await.unwrap();
    server.fail(None);
    let known = Known::new(&bytes, 4_000);
    reader.client.fetch_pieces(pieces(id, known, providers)).await.unwrap();
    assert_eq!(server.asked(), [""; 0]);
}

#[tokio::test]
async fn a_mirror_that_is_down_stops_nobody_and_rests() {
    // Held to the end, and nobody listens there.
    let nowhere = tokio::net::TcpSocket::new_v4().unwrap();
    nowhere.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mirror = server::at(&format!("http://{}", nowhere.local_addr().unwrap()));
    let clock = ManualClock::new(0);
    let reader = with_mirror(mirror, clock.clone()).await;
    let (id, bytes) = content(4_000);
    let alone = |id| {
        let request = pieces(id, Known::new(&bytes, 1_000), Vec::new());
        let fetch = reader.client.fetch_pieces(request);
        async move {
            match fetch.await {
                Err(FetchError::Unavailable { faults, .. }) => faults,
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(alone(id).await, [fault(&reader, FaultKind::Unreachable)]);
    assert_eq!(alone(id).await, [], "it rests");
    clock.advance(Duration::from_millis(1_000));
    assert_eq!(alone(id).await, [fault(&reader, FaultKind::Unreachable)]);
    clock.advance(Duration::from_millis(1_999));
    assert_eq!(alone(id).await, [], "it rests for twice as long");

    let server = peer(Transport::Tcp).await;
    server.client.publish(id, bytes.clone()).await.unwrap();
    clock.advance(Duration::from_millis(1));
    let providers = vec![address(&server.client).await];
    let request = pieces(id, Known::new(&bytes, 1_000), providers);
    let fetched = reader.client.fetch_pieces(request).await.unwrap();
    assert_eq!(fetched.bytes.unwrap(), bytes);
    assert_eq!(fetched.peers, [server.client.local_peer()]);
}

/// What a mirror does not have is no fault of its own.
#[tokio::test]
async fn a_mirror_without_the_content_is_asked_for_the_next_one() {
    let server = Server::start().await;
    let reader = with_mirror(server.mirror(), Impatient).await;
    let (id, bytes) = content(4_000);
    for _ in 0..2 {
        let request = pieces(id, Known::new(&bytes, 1_000), Vec::new());
        let Err(FetchError::Unavailable { faults, .. }) = reader.client.fetch_pieces(request).await
        else {
            panic!("nobody has it");
        };
        assert_eq!(faults, [fault(&reader, FaultKind::Missing)]);
    }
}

#[tokio::test]
async fn a_copy_that_fails_half_way_goes_on_with_the_part_that_failed() {
    let server = Server::start().await;
    let (id, bytes) = content(LARGE);
    let mirror = server.mirror();
    let mut failures = 2;
    server.fail(Some(Box::new(move |name| {
        let fails = failures > 0 && is_part(name, 2);
        failures -= u32::from(fails);
        fails
    })));
    assert!(put(&mirror, &id, &bytes).await.unwrap());
    let sent = server.asked();
    let times = |part| sent.iter().filter(|name| is_part(name, part)).count();
    assert_eq!([1, 2, 3].map(times), [1, 3, 1]);
    assert_eq!(std::fs::read(server.file(&id)).unwrap(), bytes);
    assert!(!put(&mirror, &id, &bytes).await.unwrap(), "it is there");
}

#[tokio::test]
async fn a_copy_that_is_given_up_is_seen_by_nobody_and_is_made_anew() {
    let server = Server::start().await;
    let (id, bytes) = content(LARGE);
    let mirror = server.mirror();
    server.fail(Some(Box::new(|name| is_part(name, 3))));
    let given_up = put(&mirror, &id, &bytes).await;
    assert!(matches!(given_up, Err(MirrorError::Failed(_))), "{given_up:?}");
    assert_eq!(mirror.len_of(&id).await.unwrap(), None);
    let tries = server.asked().iter().filter(|name| is_part(name, 3)).count();
    assert!((2..=11).contains(&tries), "{tries}");
    server.fail(None);
    assert!(put(&mirror, &id, &bytes).await.unwrap());
    let read = mirror.read(&id, LARGE as u64 - 10, 100).await.unwrap().unwrap();
    assert_eq!((read.total_len, &read.bytes[..]), (LARGE as u64, &bytes[LARGE - 10..]));
}

#[tokio::test]
async fn who_may_not_write_is_told_so_at_once() {
    let server = Server::start().await;
    let mirror = server.mirror_for("another key");
    let refused = put(&mirror, &content(10).0, &content(10).1).await;
    assert!(matches!(refused, Err(MirrorError::Refused(_))), "{refused:?}");
    // A look, which says no more than that nothing is there, and the refusal.
    assert_eq!(server.asked().len(), 2);
}

#[tokio::test]
async fn copies_leave_as_fast_as_they_may() {
    let mirror = Mirror::in_memory().copied_to(Some(4 << 20));
    let (id, bytes) = content(LARGE);
    let waits = Waits::default();
    assert!(mirror.put(&waits, &id, Arc::new(bytes), None).await.unwrap());
    // 8, 8 and 4 MiB.
    assert_eq!(*waits.0.lock().unwrap(), [2, 2, 1].map(Duration::from_secs));
}

/// A clock that notes how long somebody would have waited.
#[derive(Default)]
struct Waits(Mutex<Vec<Duration>>);

#[async_trait]
impl Clock for Waits {
    fn now_millis(&self) -> u64 {
        0
    }

    async fn sleep(&self, duration: Duration) {
        self.0.lock().unwrap().push(duration);
    }
}

async fn put(mirror: &Mirror, id: &Hash, bytes: &Bytes) -> Result<bool, MirrorError> {
    mirror.put(&Hasty, id, Arc::new(bytes.clone()), None).await
}

/// Whether a request brings this part of an object.
fn is_part(name: &str, part: u32) -> bool {
    name.starts_with("PUT") && name.contains(&format!("partNumber={part}&"))
}

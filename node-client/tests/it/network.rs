//! Real swarms on loopback, over QUIC and over TCP, and the same rules in memory.
//!
//! Nothing waits for a wall clock: a test goes on when the network says so, and what takes time to spread is asked for
//! again until it is there.

mod attacks;
mod maps;

use std::{
    collections::HashSet,
    net::{Ipv6Addr, UdpSocket},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use libp2p::{
    identity::Keypair,
    multiaddr::Protocol,
    request_response::{self, ProtocolSupport},
    swarm::SwarmEvent,
    Multiaddr, StreamProtocol, Swarm, SwarmBuilder,
};
use node_client::{
    clock::{Clock, ManualClock},
    network::{
        codec::{protocol_name, RangeCodec, RangeRequest, RangeResponse},
        start, Client, Fault, FaultKind, FetchError, FetchRequest, MemoryHub, MemoryNetwork,
        Network, NetworkConfig, PeerAddress, PeerId, Pieces, PiecesRequest, Serving,
    },
    store::{Cut, Span, Store},
};
use protocol::Hash;
use tempfile::TempDir;
use tokio::task::JoinHandle;

pub(super) const NAME: &str = "test";
pub(super) const RANGE_LEN: u32 = 1_000;

/// No wait for a busy peer is as long, and after it another peer is asked.
const SLOW: Duration = Duration::from_secs(2);

/// A running peer with its store's folder.
pub(super) struct Peer {
    pub(super) client: Client,
    pub(super) folder: TempDir,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Transport {
    Quic,
    Tcp,
}

fn listen(transport: Transport) -> Vec<Multiaddr> {
    let both = NetworkConfig::loopback().listen;
    let is_quic = |address: &Multiaddr| address.iter().any(|part| part == Protocol::QuicV1);
    both.into_iter()
        .filter(|address| is_quic(address) == matches!(transport, Transport::Quic))
        .collect()
}

pub(super) fn config(transport: Transport) -> NetworkConfig {
    NetworkConfig {
        name: NAME.to_owned(),
        listen: listen(transport),
        // Several ranges per content, so that they can be torn between peers.
        range_len: RANGE_LEN,
        ..NetworkConfig::loopback()
    }
}

pub(super) async fn peer_with(config: NetworkConfig, clock: impl Clock + 'static) -> Peer {
    let folder = TempDir::new().unwrap();
    let client = client(config, Keypair::generate_ed25519(), &folder, clock).await;
    Peer { client, folder }
}

pub(super) async fn client(
    config: NetworkConfig,
    key: Keypair,
    folder: &TempDir,
    clock: impl Clock + 'static,
) -> Client {
    let store = Arc::new(Store::open(folder.path(), 1 << 30).unwrap());
    start(config, key, store, Arc::new(clock)).await.unwrap()
}

/// A clock on which no time passes: a busy peer is asked again as good as at once, and for the second that makes a peer
/// slow one waits for ever.
pub(super) struct Impatient;

/// Waits for so little that it does not count, so that who waits in a loop leaves the machine to others.
pub(super) async fn breathe() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[async_trait]
impl Clock for Impatient {
    fn now_millis(&self) -> u64 {
        0
    }

    async fn sleep(&self, duration: Duration) {
        if duration >= SLOW {
            std::future::pending::<()>().await;
        }
        breathe().await;
    }
}

pub(super) async fn peer(transport: Transport) -> Peer {
    peer_with(config(transport), Impatient).await
}

pub(super) async fn address(client: &Client) -> PeerAddress {
    PeerAddress { peer: client.local_peer(), addresses: client.listen_addresses().await.unwrap() }
}

/// Content of `len` bytes that differ from range to range, and its id.
pub(super) fn content(len: usize) -> (Hash, Bytes) {
    let mut bytes = vec![0; len];
    let mut reader = blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof();
    reader.fill(&mut bytes);
    (*blake3::hash(&bytes).as_bytes(), bytes.into())
}

pub(super) fn want(id: Hash) -> FetchRequest {
    FetchRequest::new(id, 1 << 20, move |bytes| *blake3::hash(bytes).as_bytes() == id)
}

fn fault(peer: PeerId, kind: FaultKind) -> Fault {
    Fault { peer, kind }
}

pub(super) fn faults(error: FetchError) -> Vec<Fault> {
    match error {
        FetchError::Unavailable { faults, .. } => faults,
        other => panic!("{other}"),
    }
}

/// How a peer of the test's own making answers the n-th request.
type Answers = Box<dyn FnMut(usize, RangeRequest) -> Option<RangeResponse> + Send>;

/// A peer of the test's own making that listens and speaks by `codec`, and who it is.
async fn stranger<C>(codec: C) -> (Swarm<request_response::Behaviour<C>>, PeerAddress)
where
    C: request_response::Codec<Protocol = StreamProtocol> + Clone + Send + 'static,
{
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            libp2p::tcp::Config::default(),
            libp2p::noise::Config::new,
            libp2p::yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| {
            let protocols = [(protocol_name(NAME).unwrap(), ProtocolSupport::Full)];
            request_response::Behaviour::with_codec(codec, protocols, Default::default())
        })
        .unwrap()
        // By default a connection closes when it has no stream, so before the first request.
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(Duration::from_secs(60)))
        .build();
    swarm.listen_on(listen(Transport::Tcp).remove(0)).unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    let peer = PeerAddress { peer: *swarm.local_peer_id(), addresses: vec![address] };
    (swarm, peer)
}

/// A peer that speaks the range protocol as the test likes; it stops, closing every connection, at the first `None`.
async fn impostor(mut answers: Answers) -> (PeerAddress, JoinHandle<()>) {
    let (mut swarm, peer) = stranger(RangeCodec).await;
    let task = tokio::spawn(async move {
        let (mut count, mut unsent, mut refused) = (0, HashSet::new(), Vec::new());
        // What it has answered goes out before it stops.
        while refused.is_empty() || !unsent.is_empty() {
            let SwarmEvent::Behaviour(event) = swarm.select_next_some().await else { continue };
            let message = match event {
                request_response::Event::Message { message, .. } => message,
                request_response::Event::ResponseSent { request_id, .. }
                | request_response::Event::InboundFailure { request_id, .. } => {
                    unsent.remove(&request_id);
                    continue;
                }
                request_response::Event::OutboundFailure { .. } => continue,
            };
            let request_response::Message::Request { request_id, request, channel } = message
            else {
                continue;
            };
            match answers(count, request) {
                Some(response) if refused.is_empty() => {
                    count += 1;
                    unsent.insert(request_id);
                    let _ = swarm.behaviour_mut().send_response(channel, response);
                }
                // Dropped now, its stream would close before the connection does.
                _ => refused.push(channel),
            }
        }
    });
    (peer, task)
}

/// A peer that takes every request and answers none.
async fn mute() -> PeerAddress {
    let (mut swarm, peer) = stranger(RangeCodec).await;
    tokio::spawn(async move {
        let mut requests = Vec::new();
        loop {
            // A request that is dropped would be refused.
            requests.push(swarm.select_next_some().await);
        }
    });
    peer
}

/// Lets time pass for ever.
async fn pass(clock: &ManualClock) {
    loop {
        clock.advance(SLOW);
        breathe().await;
    }
}

/// The honest answer to a request for `bytes`.
fn honest(bytes: &Bytes, request: RangeRequest) -> RangeResponse {
    let start = bytes.len().min(request.offset as usize);
    let end = bytes.len().min(start + request.len as usize);
    RangeResponse::Found { total_len: bytes.len() as u64, bytes: bytes.slice(start..end) }
}

async fn a_hinted_peer_delivers(transport: Transport) {
    let (a, b) = (peer(transport).await, peer(transport).await);
    for len in [0, 1, 999, 1_000, 1_001, 123_456] {
        let (id, bytes) = content(len);
        a.client.publish(id, bytes.clone()).await.unwrap();
        let request = want(id).from_peers([address(&a.client).await]);
        let fetched = b.client.fetch(request).await.unwrap();
        assert_eq!(fetched.bytes, bytes, "{transport:?}, {len} bytes");
        assert_eq!(fetched.peers, [a.client.local_peer()]);
        assert!(fetched.faults.is_empty());
    }
    assert_eq!(a.client.counters().bytes_sent, b.client.counters().bytes_received);
}

#[tokio::test]
async fn a_hinted_peer_delivers_over_quic() {
    a_hinted_peer_delivers(Transport::Quic).await;
}

#[tokio::test]
async fn a_hinted_peer_delivers_over_tcp() {
    a_hinted_peer_delivers(Transport::Tcp).await;
}

#[tokio::test]
async fn a_content_comes_over_ipv6() {
    if UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    for transport in [Transport::Quic, Transport::Tcp] {
        let mut config = config(transport);
        let ipv6 = |_: &Protocol<'_>| Some(Protocol::Ip6(Ipv6Addr::LOCALHOST));
        config.listen.iter_mut().for_each(|address| *address = address.replace(0, ipv6).unwrap());
        let publisher = peer_with(config.clone(), Impatient).await;
        let fetcher = peer_with(config, Impatient).await;
        let (id, bytes) = content(5_000);
        publisher.client.publish(id, bytes.clone()).await.unwrap();
        let publisher = address(&publisher.client).await;
        let is_ipv6 = |address: &Multiaddr| address.to_string().starts_with("/ip6/::1/");
        assert!(!publisher.addresses.is_empty() && publisher.addresses.iter().all(is_ipv6));
        let fetched = fetcher.client.fetch(want(id).from_peers([publisher])).await.unwrap();
        assert_eq!((fetched.bytes, fetched.faults), (bytes, Vec::new()));
    }
}

async fn kademlia_names_a_provider(transport: Transport) {
    let (a, b, c) = (peer(transport).await, peer(transport).await, peer(transport).await);
    let (id, bytes) = content(5_000);
    let meeting_point = address(&c.client).await;
    a.client.add_peer(meeting_point.clone()).await.unwrap();
    b.client.add_peer(meeting_point).await.unwrap();
    a.client.publish(id, bytes.clone()).await.unwrap();
    loop {
        a.client.announce(id).await.unwrap();
        match b.client.fetch(want(id)).await {
            Ok(fetched) => {
                assert_eq!(fetched.bytes, bytes);
                assert_eq!(fetched.peers, [a.client.local_peer()]);
                break;
            }
            // The three have not met yet.
            Err(error) => assert!(!faults(error).iter().any(|fault| fault.kind.is_malicious())),
        }
    }
}

#[tokio::test]
async fn kademlia_names_a_provider_over_quic() {
    kademlia_names_a_provider(Transport::Quic).await;
}

#[tokio::test]
async fn kademlia_names_a_provider_over_tcp() {
    kademlia_names_a_provider(Transport::Tcp).await;
}

#[tokio::test]
async fn a_liar_is_named_and_the_next_peer_delivers() {
    let (liar, honest, b) =
        (peer(Transport::Quic).await, peer(Transport::Quic).await, peer(Transport::Quic).await);
    let (id, bytes) = content(5_000);
    let mut bad = bytes.to_vec();
    bad[4_321] ^= 1;
    liar.client.publish(id, bad.into()).await.unwrap();
    honest.client.publish(id, bytes.clone()).await.unwrap();
    let providers = [address(&liar.client).await, address(&honest.client).await];
    let fetched = b.client.fetch(want(id).from_peers(providers)).await.unwrap();
    assert_eq!(fetched.bytes, bytes);
    assert_eq!(fetched.peers, [honest.client.local_peer()]);
    assert_eq!(fetched.faults, [fault(liar.client.local_peer(), FaultKind::Corrupt)]);
}

#[tokio::test]
async fn mute_peers_are_overtaken_and_from_then_on_asked_last() {
    let clock = ManualClock::default();
    let a = peer(Transport::Tcp).await;
    let b = peer_with(config(Transport::Tcp), clock.clone()).await;
    let providers = [mute().await, mute().await, address(&a.client).await];
    let contents = [content(5_000), content(5_001)];
    for (id, bytes) in &contents {
        a.client.publish(*id, bytes.clone()).await.unwrap();
    }
    let [first, second] =
        contents.each_ref().map(|(id, _)| b.client.fetch(want(*id).from_peers(providers.clone())));
    let first = tokio::select! {
        fetched = first => fetched,
        () = pass(&clock) => unreachable!("time passes for ever"),
    };
    // No more time passes.
    for (fetched, (_, bytes)) in [first, second.await].into_iter().zip(contents) {
        let fetched = fetched.unwrap();
        assert_eq!(fetched.bytes, bytes);
        assert_eq!(fetched.peers, [a.client.local_peer()]);
        assert!(fetched.faults.is_empty());
    }
}

#[tokio::test]
async fn content_over_the_bound_is_refused_before_it_is_received() {
    let (a, b) = (peer(Transport::Quic).await, peer(Transport::Quic).await);
    let (id, bytes) = content(50_000);
    a.client.publish(id, bytes).await.unwrap();
    let mut request = want(id).from_peers([address(&a.client).await]);
    request.len_max = 49_999;
    let error = b.client.fetch(request).await.unwrap_err();
    let expected = FaultKind::TooLong { total_len: 50_000 };
    assert_eq!(faults(error), [fault(a.client.local_peer(), expected)]);
    assert!(b.client.counters().bytes_received <= u64::from(RANGE_LEN));
}

#[tokio::test]
async fn another_peer_takes_over_where_one_died() {
    let (a, b) = (peer(Transport::Tcp).await, peer(Transport::Tcp).await);
    let (id, bytes) = content(5_000);
    a.client.publish(id, bytes.clone()).await.unwrap();
    let served = bytes.clone();
    let (dying, task) =
        impostor(Box::new(move |n, request| (n < 2).then(|| honest(&served, request)))).await;
    let dying_peer = dying.peer;
    let request = want(id).from_peers([dying, address(&a.client).await]);
    let fetched = b.client.fetch(request).await.unwrap();
    assert_eq!(fetched.bytes, bytes);
    assert_eq!(fetched.peers, [dying_peer, a.client.local_peer()]);
    assert_eq!(fetched.faults, [fault(dying_peer, FaultKind::Unreachable)]);
    // Only what was missing came from the second.
    assert_eq!(a.client.counters().bytes_sent, 3_000);
    task.await.unwrap();
}

#[tokio::test]
async fn a_fetch_goes_on_where_an_earlier_one_failed() {
    let (a, b) = (peer(Transport::Tcp).await, peer(Transport::Tcp).await);
    let (id, bytes) = content(5_000);
    a.client.publish(id, bytes.clone()).await.unwrap();
    let served = bytes.clone();
    let (dying, _task) =
        impostor(Box::new(move |n, request| (n < 3).then(|| honest(&served, request)))).await;
    let dying_peer = dying.peer;
    let error = b.client.fetch(want(id).from_peers([dying])).await.unwrap_err();
    assert_eq!(faults(error), [fault(dying_peer, FaultKind::Unreachable)]);
    let request = want(id).from_peers([address(&a.client).await]);
    let fetched = b.client.fetch(request).await.unwrap();
    assert_eq!(fetched.bytes, bytes);
    assert_eq!(fetched.peers, [dying_peer, a.client.local_peer()]);
    assert_eq!(a.client.counters().bytes_sent, 2_000);
}

#[tokio::test]
async fn a_claim_of_another_length_than_the_known_one_takes_nothing_from_the_others() {
    let (a, b) = (peer(Transport::Tcp).await, peer(Transport::Tcp).await);
    let (id, bytes) = content(5_000);
    a.client.publish(id, bytes.clone()).await.unwrap();
    let served = bytes.clone();
    let (dying, _one) =
        impostor(Box::new(move |n, request| (n < 3).then(|| honest(&served, request)))).await;
    let shorter = bytes.slice(..4_999);
    let (liar, _two) = impostor(Box::new(move |_, request| Some(honest(&shorter, request)))).await;
    let peers = [dying.peer, liar.peer];
    let request = FetchRequest { len_max: 5_000, ..want(id) }.exactly();
    let providers = [dying, liar, address(&a.client).await];
    let fetched = b.client.fetch(request.from_peers(providers)).await.unwrap();
    assert_eq!(fetched.bytes, bytes);
    assert_eq!(fetched.peers, [peers[0], a.client.local_peer()]);
    let [died, lied] = [FaultKind::Unreachable, FaultKind::Malformed];
    assert_eq!(fetched.faults, [fault(peers[0], died), fault(peers[1], lied)]);
    assert_eq!(a.client.counters().bytes_sent, 2_000);
}

#[tokio::test]
async fn nobody_is_blamed_for_what_two_served() {
    let (a, b) = (peer(Transport::Tcp).await, peer(Transport::Tcp).await);
    let (id, bytes) = content(5_000);
    a.client.publish(id, bytes.clone()).await.unwrap();
    let garbage = Bytes::from(vec![0; 5_000]);
    let (dying, _task) =
        impostor(Box::new(move |n, request| (n < 2).then(|| honest(&garbage, request)))).await;
    let dying_peer = dying.peer;
    let request = want(id).from_peers([dying, address(&a.client).await]);
    let fetched = b.client.fetch(request).await.unwrap();
    assert_eq!(fetched.bytes, bytes);
    // What was missing, and then all of it, alone.
    assert_eq!(fetched.peers, [a.client.local_peer()]);
    assert_eq!(a.client.counters().bytes_sent, 3_000 + 5_000);
    assert_eq!(fetched.faults, [fault(dying_peer, FaultKind::Unreachable)]);
}

#[tokio::test]
async fn answers_to_other_questions_are_malformed() {
    let b = peer(Transport::Tcp).await;
    let (id, bytes) = content(5_000);
    let short = |bytes: &Bytes, n: usize, request| match honest(bytes, request) {
        RangeResponse::Found { total_len, bytes } => RangeResponse::Found {
            // A length that changes, and a range that is too short.
            total_len: total_len + n as u64,
            bytes: if n == 0 { bytes } else { bytes.slice(1..) },
        },
        other => other,
    };
    let first = bytes.clone();
    let (too_short, _one) =
        impostor(Box::new(move |n, request| Some(short(&first, n, request)))).await;
    let growing_bytes = bytes.clone();
    let (growing, _two) = impostor(Box::new(move |n, request| {
        Some(match honest(&growing_bytes, request) {
            RangeResponse::Found { bytes, .. } => {
                RangeResponse::Found { total_len: 100_000 + n as u64, bytes }
            }
            other => other,
        })
    }))
    .await;
    let expected =
        [fault(too_short.peer, FaultKind::Malformed), fault(growing.peer, FaultKind::Malformed)];
    let request = want(id).from_peers([too_short, growing]);
    assert_eq!(faults(b.client.fetch(request).await.unwrap_err()), expected);
}

#[tokio::test]
async fn a_busy_peer_is_asked_again() {
    let b = peer(Transport::Tcp).await;
    let (id, bytes) = content(2_000);
    let served = bytes.clone();
    let (busy, _task) = impostor(Box::new(move |n, request| {
        Some(match n {
            0 | 2 => RangeResponse::Busy,
            _ => honest(&served, request),
        })
    }))
    .await;
    let fetched = b.client.fetch(want(id).from_peers([busy])).await.unwrap();
    assert_eq!(fetched.bytes, bytes);
    assert!(fetched.faults.is_empty());
}

#[tokio::test]
async fn a_peer_over_its_rate_is_told_that_we_are_busy() {
    let slow = NetworkConfig {
        // A burst of ten seconds' worth is one range, which counts as 4 KiB.
        serve_bytes_per_second_max: (4_u64 << 10).div_ceil(10),
        ..config(Transport::Quic)
    };
    let (a, b) = (peer_with(slow, Impatient).await, peer(Transport::Quic).await);
    let (id, bytes) = content(50_000);
    a.client.publish(id, bytes).await.unwrap();
    let request = want(id).from_peers([address(&a.client).await]);
    let error = b.client.fetch(request).await.unwrap_err();
    let expected = fault(a.client.local_peer(), FaultKind::Busy);
    assert_eq!(faults(error), [expected]);
    assert!(a.client.counters().refused > 0);
}

#[tokio::test]
async fn who_comes_back_has_no_more_than_who_stayed() {
    let slow = NetworkConfig {
        // A burst of ten seconds' worth is three ranges, each of which counts as 4 KiB.
        serve_bytes_per_second_max: (3 * (4_u64 << 10)).div_ceil(10),
        ..config(Transport::Tcp)
    };
    let a = peer_with(slow, Impatient).await;
    let (id, bytes) = content(50_000);
    a.client.publish(id, bytes).await.unwrap();
    let (key, folder) = (Keypair::generate_ed25519(), TempDir::new().unwrap());
    for _ in 0..3 {
        // A new connection each time, of the same peer; no time passes.
        let b = client(config(Transport::Tcp), key.clone(), &folder, Impatient).await;
        let request = want(id).from_peers([address(&a.client).await]);
        let error = b.fetch(request).await.unwrap_err();
        assert_eq!(faults(error), [fault(a.client.local_peer(), FaultKind::Busy)]);
        b.shutdown().await;
    }
    assert_eq!(a.client.counters().bytes_sent, 3 * u64::from(RANGE_LEN));
}

#[tokio::test]
async fn what_nobody_has_is_unavailable() {
    let (a, b) = (peer(Transport::Quic).await, peer(Transport::Quic).await);
    let (id, bytes) = content(10);
    let nowhere = PeerAddress { peer: PeerId::random(), addresses: Vec::new() };
    let hints = [nowhere.clone(), address(&a.client).await];
    let mut expected = [
        fault(nowhere.peer, FaultKind::Unreachable),
        fault(a.client.local_peer(), FaultKind::Missing),
    ];
    let request = want(id).from_peers(hints);
    let error = b.client.fetch(request.clone()).await.unwrap_err();
    assert_eq!(faults(error), expected);
    // What was published and withdrawn is not served, though it may still be on disk.
    a.client.publish(id, bytes).await.unwrap();
    a.client.unpublish(id).await.unwrap();
    assert!(a.client.store().contains(&id));
    let error = b.client.fetch(request).await.unwrap_err();
    // Who could not be reached is asked last from then on.
    expected.reverse();
    assert_eq!(faults(error), expected);
}

#[tokio::test]
async fn networks_of_other_names_do_not_talk() {
    let other = NetworkConfig { name: "other".to_owned(), ..config(Transport::Quic) };
    let (a, b) = (peer_with(other, Impatient).await, peer(Transport::Quic).await);
    let (id, bytes) = content(10);
    a.client.publish(id, bytes).await.unwrap();
    let request = want(id).from_peers([address(&a.client).await]);
    let error = b.client.fetch(request).await.unwrap_err();
    let expected = fault(a.client.local_peer(), FaultKind::Missing);
    assert_eq!(faults(error), [expected]);
}

#[tokio::test]
async fn a_restarted_peer_still_serves_what_it_published() {
    let (a, b) = (peer(Transport::Quic).await, peer(Transport::Quic).await);
    let (id, bytes) = content(5_000);
    a.client.publish(id, bytes.clone()).await.unwrap();
    a.client.shutdown().await;
    let request = want(id);
    assert!(matches!(
        a.client.fetch(request.clone()).await,
        // Its own copy is on disk, shut down or not.
        Ok(fetched) if fetched.peers.is_empty()
    ));
    let (unknown, _) = content(1);
    assert!(matches!(a.client.fetch(want(unknown)).await, Err(FetchError::Closed)));
    let Peer { client: old, folder } = a;
    drop(old);
    let key = Keypair::generate_ed25519();
    let again = client(config(Transport::Quic), key, &folder, Impatient).await;
    let request = request.from_peers([address(&again).await]);
    assert_eq!(b.client.fetch(request).await.unwrap().bytes, bytes);
}

#[tokio::test]
async fn many_fetches_at_once_all_end() {
    let (a, b) = (peer(Transport::Quic).await, peer(Transport::Quic).await);
    let hint = address(&a.client).await;
    let contents: Vec<_> = (0..40).map(|n| content(3_000 + n)).collect();
    for (id, bytes) in &contents {
        a.client.publish(*id, bytes.clone()).await.unwrap();
    }
    let fetches = contents.iter().map(|(id, _)| {
        let request = want(*id).from_peers([hint.clone()]);
        b.client.fetch(request)
    });
    let fetched = futures::future::join_all(fetches).await;
    for (fetched, (_, bytes)) in fetched.into_iter().zip(&contents) {
        assert_eq!(fetched.unwrap().bytes, bytes);
    }
}

#[test]
fn an_announcement_gives_back_the_peer_and_drops_what_is_no_address() {
    let peer = PeerAddress { peer: PeerId::random(), addresses: listen(Transport::Quic) };
    let (id, mut addresses) = peer.to_announcement();
    assert_eq!(PeerAddress::from_announcement(&id, &addresses), Some(peer.clone()));
    addresses.push(b"nonsense".to_vec());
    assert_eq!(PeerAddress::from_announcement(&id, &addresses), Some(peer));
    assert_eq!(PeerAddress::from_announcement::<Vec<u8>>(b"nobody", &[]), None);
}

/// Takes the pieces of a content that it knows.
pub(super) struct Known {
    whole: Bytes,
    piece_len: usize,
    here: Mutex<Vec<Option<Bytes>>>,
}

impl Known {
    pub(super) fn new(whole: &Bytes, piece_len: usize) -> Arc<Self> {
        let here = vec![None; whole.len().div_ceil(piece_len)];
        Arc::new(Self { whole: whole.clone(), piece_len, here: Mutex::new(here) })
    }

    fn has_all(&self) -> bool {
        let here = self.here.lock().unwrap();
        let pieces: Vec<u8> = here.iter().flatten().flatten().copied().collect();
        pieces == self.whole
    }
}

impl Pieces for Known {
    fn byte_len(&self) -> u64 {
        self.whole.len() as u64
    }

    fn count(&self) -> usize {
        self.here.lock().unwrap().len()
    }

    fn piece(&self, index: usize) -> Option<(u64, u32, bool)> {
        let is_here = self.here.lock().unwrap().get(index)?.is_some();
        let start = index * self.piece_len;
        let len = self.piece_len.min(self.whole.len() - start);
        Some((start as u64, len as u32, is_here))
    }

    fn accept(&self, index: usize, bytes: &[u8]) -> bool {
        let (start, len, _) = self.piece(index).unwrap();
        let is_right = self.whole[start as usize..][..len as usize] == *bytes;
        if is_right {
            self.here.lock().unwrap()[index] = Some(Bytes::copy_from_slice(bytes));
        }
        is_right
    }
}

/// Both halves of what a state takes: served from disk, piece by piece, and taken to where it stays, from whoever has it.
#[tokio::test]
async fn pieces_are_served_from_disk_and_taken_one_by_one() {
    let [server, joiner] = [peer(Transport::Quic).await, peer(Transport::Quic).await];
    let (id, bytes) = content(25_300);
    struct Lent(Bytes);
    impl node_client::store::Content for Lent {
        fn byte_len(&self) -> u64 {
            self.0.len() as u64
        }
        fn read(&self, offset: u64, into: &mut [u8]) -> usize {
            node_client::store::Content::read(&self.0[..], offset, into)
        }
    }
    let lent = Arc::new(Lent(bytes.clone()));
    server.client.publish_content(id, lent.clone(), None).await.unwrap();
    assert_eq!(Arc::strong_count(&lent), 1, "it is let go of");

    // A liar is alone at first: of the first four pieces it serves what is right, of the others what is wrong.
    let (right, total_len) = (bytes.clone(), bytes.len() as u64);
    let (liar, task) = impostor(Box::new(move |_, request| {
        let response = honest(&right, request);
        match response {
            RangeResponse::Found { bytes, .. } if request.offset >= 10_000 => {
                let bytes = bytes.iter().map(|byte| !byte).collect();
                Some(RangeResponse::Found { total_len, bytes })
            }
            other => Some(other),
        }
    }))
    .await;
    let known = Known::new(&bytes, 2_500);
    let providers = vec![liar.clone()];
    let request = PiecesRequest { id, providers, pieces: known.clone(), whole: false };
    let error = joiner.client.fetch_pieces(request).await.unwrap_err();
    let lied = [fault(liar.peer, FaultKind::Corrupt)];
    assert!(matches!(&error, FetchError::Unavailable { faults, .. } if *faults == lied), "{error}");
    let providers = vec![address(&server.client).await];
    let request = PiecesRequest { id, providers, pieces: known.clone(), whole: false };
    let fetched = joiner.client.fetch_pieces(request).await.unwrap();
    assert!(known.has_all() && fetched.faults.is_empty());
    assert_eq!(fetched.peers, [server.client.local_peer()]);
    // What is wrong is all that came twice: the pieces that the liar was asked for at that moment.
    let received = joiner.client.counters().bytes_received;
    assert!(received <= bytes.len() as u64 + 6 * 2_500, "{received}");
    assert!(joiner.client.store().contains(&id), "it is kept");
    task.abort();

    // From the own store without a peer; a piece that the disk changed is had from a peer.
    let own = Known::new(&bytes, 2_500);
    let request = PiecesRequest { id, providers: Vec::new(), pieces: own.clone(), whole: false };
    assert!(server.client.fetch_pieces(request).await.unwrap().peers.is_empty());
    assert!(own.has_all());
    let path = server.client.store().object_path(&id);
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[48 + 7_000] ^= 1;
    std::fs::write(&path, &damaged).unwrap();
    let own = Known::new(&bytes, 2_500);
    let request = PiecesRequest { id, providers: Vec::new(), pieces: own.clone(), whole: false };
    let error = server.client.fetch_pieces(request).await.unwrap_err();
    assert!(matches!(error, FetchError::Unavailable { .. }));
    assert!(!own.has_all());
    joiner.client.publish(id, bytes.clone()).await.unwrap();
    let providers = vec![address(&joiner.client).await];
    let request = PiecesRequest { id, providers, pieces: own.clone(), whole: false };
    let fetched = server.client.fetch_pieces(request).await.unwrap();
    assert_eq!(fetched.peers, [joiner.client.local_peer()]);
    assert!(own.has_all());
}

/// Takes the pieces of a content, of several lengths, that are asked for by their numbers.
pub(super) struct Numbered {
    known: Arc<Known>,
    head: Bytes,
    pub(super) cut: Cut,
}

/// Each piece of the content is 100 bytes of a table behind a head of 7, and 900 and more behind the tables.
pub(super) fn numbered(whole: &Bytes) -> Arc<Numbered> {
    let count = 9;
    let (mut table, mut rest) = (7, 7 + 100 * count);
    let mut spans = Vec::new();
    for index in 0..count {
        let last = index + 1 == count;
        let len = if last { whole.len() as u64 - rest } else { 900 + 10 * index };
        let span = |offset, len| Span { offset, len };
        spans.push([span(table, 100), span(rest, len as u32)]);
        (table, rest) = (table + 100, rest + len);
    }
    let known = Known::new(whole, whole.len().div_ceil(count as usize));
    Arc::new(Numbered { known, head: whole.slice(..7), cut: Cut(spans) })
}

const NUMBERED_LEN_MAX: u32 = 5_000;

impl Pieces for Numbered {
    fn byte_len(&self) -> u64 {
        self.known.byte_len()
    }

    fn count(&self) -> usize {
        self.cut.0.len()
    }

    fn piece(&self, index: usize) -> Option<(u64, u32, bool)> {
        let is_here = self.known.here.lock().unwrap().get(index)?.is_some();
        Some((index as u64 * u64::from(NUMBERED_LEN_MAX), NUMBERED_LEN_MAX, is_here))
    }

    fn is_numbered(&self) -> bool {
        true
    }

    fn accept(&self, index: usize, bytes: &[u8]) -> bool {
        let spans = self.cut.0[index];
        let part = |span: Span| &self.known.whole[span.offset as usize..][..span.len as usize];
        let is_right = [part(spans[0]), part(spans[1])].concat() == bytes;
        if is_right {
            self.known.here.lock().unwrap()[index] = Some(Bytes::copy_from_slice(bytes));
        }
        is_right
    }

    fn cut(&self) -> Option<(Bytes, Cut)> {
        Some((self.head.clone(), self.cut.clone()))
    }
}

/// A payload's way: served by whoever has all of it, in pieces, each from when it is there, and whole in the end.
#[tokio::test]
async fn numbered_pieces_make_the_content_and_are_served_by_who_fetched_them() {
    let [server, joiner, last] =
        [peer(Transport::Tcp).await, peer(Transport::Tcp).await, peer(Transport::Tcp).await];
    let (id, bytes) = content(12_345);
    let cut = numbered(&bytes).cut.clone();
    server.client.publish_content(id, Arc::new(bytes.clone()), Some(cut)).await.unwrap();
    let fetch = |from: &Peer, to: &Peer| {
        let (from, to) = (from.client.clone(), to.client.clone());
        let pieces = numbered(&bytes);
        async move {
            let providers = vec![address(&from).await];
            to.fetch_pieces(PiecesRequest { id, providers, pieces, whole: true }).await
        }
    };
    let fetched = fetch(&server, &joiner).await.unwrap();
    assert_eq!(fetched.bytes, Some(bytes.clone()));
    assert_eq!(fetched.peers, [server.client.local_peer()]);
    // Again, from the own store.
    let again = fetch(&server, &joiner).await.unwrap();
    assert_eq!((again.bytes, again.peers), (Some(bytes.clone()), Vec::new()));
    // What was fetched is served with its cut, over a restart too.
    let (shared, cut) = (Arc::new(bytes.clone()), numbered(&bytes).cut.clone());
    joiner.client.publish_content(id, shared, Some(cut)).await.unwrap();
    joiner.client.shutdown().await;
    let Peer { client: old, folder } = joiner;
    drop(old);
    let key = Keypair::generate_ed25519();
    let restarted = client(config(Transport::Tcp), key, &folder, Impatient).await;
    let restarted = Peer { client: restarted, folder };
    let fetched = fetch(&restarted, &last).await.unwrap();
    assert_eq!(fetched.bytes, Some(bytes.clone()));
    // A disk that changed a byte costs the piece that it is in.
    drop(fetched);
    let path = last.client.store().object_path(&id);
    let mut damaged = std::fs::read(&path).unwrap();
    damaged[48 + 7_000] ^= 1;
    let other = path.with_extension("other");
    std::fs::write(&other, &damaged).unwrap();
    std::fs::rename(&other, &path).unwrap();
    let received = last.client.counters().bytes_received;
    assert_eq!(fetch(&server, &last).await.unwrap().bytes, Some(bytes.clone()));
    let received = last.client.counters().bytes_received - received;
    assert!((1..2_000).contains(&received), "{received}");
}

/// Three peers of one network in memory, of which the first has this content, cut into numbered pieces.
async fn three_in_memory() -> ([MemoryNetwork; 3], Hash, Bytes) {
    let hub = MemoryHub::new();
    let clock = Arc::new(ManualClock::default());
    let peers = [1, 2, 3].map(|seed| hub.join(seed, clock.clone()));
    let (id, bytes) = content(12_345);
    let cut = numbered(&bytes).cut.clone();
    peers[0].publish_content(id, Arc::new(bytes.clone()), Some(cut)).await.unwrap();
    (peers, id, bytes)
}

#[tokio::test]
async fn numbered_pieces_come_in_memory_too() {
    let ([a, b, _], id, bytes) = three_in_memory().await;
    let request =
        PiecesRequest { id, providers: Vec::new(), pieces: numbered(&bytes), whole: true };
    assert_eq!(b.fetch_pieces(request.clone()).await.unwrap().bytes, Some(bytes.clone()));
    let own = PiecesRequest { pieces: numbered(&bytes), ..request };
    assert_eq!(a.fetch_pieces(own).await.unwrap().bytes, Some(bytes));
}

#[tokio::test]
async fn who_has_it_is_found_however_many_hints_are_in_vain() {
    let ([_, b, c], id, bytes) = three_in_memory().await;
    let nobody = |_| PeerAddress { peer: PeerId::random(), addresses: Vec::new() };
    let providers: Vec<_> = (0..40).map(nobody).collect();
    let fetched = b.fetch(want(id).from_peers(providers.clone())).await.unwrap();
    assert_eq!(fetched.bytes, bytes);
    let request = PiecesRequest { id, providers, pieces: numbered(&bytes), whole: true };
    assert_eq!(c.fetch_pieces(request).await.unwrap().bytes, Some(bytes));
}

#[tokio::test]
async fn pieces_come_from_several_peers_at_once() {
    let servers =
        [peer(Transport::Tcp).await, peer(Transport::Tcp).await, peer(Transport::Tcp).await];
    let b = peer(Transport::Tcp).await;
    let (id, bytes) = content(60_000);
    let mut providers = Vec::new();
    for server in &servers {
        server.client.publish(id, bytes.clone()).await.unwrap();
        providers.push(address(&server.client).await);
    }
    let pieces = Known::new(&bytes, 1_000);
    let request = PiecesRequest { id, providers, pieces, whole: true };
    let fetched = b.client.fetch_pieces(request).await.unwrap();
    assert_eq!(fetched.bytes, Some(bytes.clone()));
    assert_eq!(fetched.peers.len(), 3);
    assert!(fetched.faults.is_empty());
    // Nothing comes twice.
    assert_eq!(b.client.counters().bytes_received, bytes.len() as u64);
}

#[tokio::test]
async fn mute_peers_cost_patience_and_liars_a_piece() {
    let clock = ManualClock::default();
    let a = peer(Transport::Tcp).await;
    let b = peer_with(config(Transport::Tcp), clock.clone()).await;
    let (id, bytes) = content(30_000);
    a.client.publish(id, bytes.clone()).await.unwrap();
    let total_len = bytes.len() as u64;
    let lie = move |_, request: RangeRequest| {
        let bytes = vec![7; request.len as usize].into();
        Some(RangeResponse::Found { total_len, bytes })
    };
    let (one, _one) = impostor(Box::new(lie)).await;
    let (two, _two) = impostor(Box::new(lie)).await;
    let liars = [one.peer, two.peer];
    let providers = vec![one, mute().await, two, mute().await, address(&a.client).await];
    let pieces = Known::new(&bytes, 1_000);
    let request = PiecesRequest { id, providers, pieces, whole: true };
    let fetched = tokio::select! {
        fetched = b.client.fetch_pieces(request) => fetched.unwrap(),
        () = pass(&clock) => unreachable!("time passes for ever"),
    };
    assert_eq!(fetched.bytes, Some(bytes.clone()));
    assert_eq!(fetched.peers, [a.client.local_peer()]);
    let mut blamed: Vec<PeerId> = fetched.faults.iter().map(|fault| fault.peer).collect();
    blamed.sort_unstable();
    let mut expected = liars;
    expected.sort_unstable();
    assert_eq!(blamed, expected);
    assert!(fetched.faults.iter().all(|fault| fault.kind == FaultKind::Corrupt));
    // Of each liar what it was asked for at once, and of the honest one what it was asked for twice.
    let received = b.client.counters().bytes_received;
    assert!(received <= total_len + 2 * 6 * 1_000 + 2_000, "{received}");
}

/// A question that another peer overtook counted as one that takes too long, so that its piece was asked for and counted again, and the
/// last one was missing in the end.
#[tokio::test]
async fn a_piece_that_has_come_is_not_asked_for_again() {
    let clock = ManualClock::default();
    let a = peer(Transport::Tcp).await;
    let b = peer_with(config(Transport::Tcp), clock.clone()).await;
    let (id, bytes) = content(3_000);
    a.client.publish(id, bytes.clone()).await.unwrap();
    let providers = vec![mute().await, address(&a.client).await];
    let request = PiecesRequest { id, providers, pieces: Known::new(&bytes, 1_000), whole: true };
    let fetched = tokio::select! {
        fetched = b.client.fetch_pieces(request) => fetched.unwrap(),
        () = pass(&clock) => unreachable!("time passes for ever"),
    };
    assert_eq!(fetched.bytes, Some(bytes.clone()));
    assert_eq!(a.client.counters().bytes_sent, bytes.len() as u64);
}

#[tokio::test]
async fn a_piece_is_served_from_when_it_is_here() {
    let (a, b, c) =
        (peer(Transport::Tcp).await, peer(Transport::Tcp).await, peer(Transport::Tcp).await);
    let (id, bytes) = content(20_000);
    let served = bytes.clone();
    let (dying, _task) =
        impostor(Box::new(move |n, request| (n < 10).then(|| honest(&served, request)))).await;
    let want = |providers| {
        let pieces = Known::new(&bytes, 1_000);
        PiecesRequest { id, providers, pieces, whole: true }
    };
    let request = want(vec![dying]);
    let pieces = request.pieces.clone();
    faults(b.client.fetch_pieces(request).await.unwrap_err());
    // What was being written when the connection closed may not have come.
    let here = (0..20).filter(|index| pieces.piece(*index).unwrap().2).count();
    assert!((1..=10).contains(&here), "{here}");
    // Who has some pieces serves them, and is not to blame for the others.
    let error = c.client.fetch_pieces(want(vec![address(&b.client).await])).await.unwrap_err();
    assert!(faults(error).is_empty());
    assert_eq!(b.client.counters().bytes_sent, 1_000 * here as u64);
    a.client.publish(id, bytes.clone()).await.unwrap();
    let both = vec![address(&b.client).await, address(&a.client).await];
    let fetched = c.client.fetch_pieces(want(both)).await.unwrap();
    assert_eq!(fetched.bytes, Some(bytes.clone()));
    assert!(fetched.faults.is_empty());
    assert_eq!(a.client.counters().bytes_sent, 1_000 * (20 - here as u64));
}

const KILLED: &str = "GAUNTLET_TEST_KILLED";
const KILLED_PIECES: usize = 40;
const KILLED_PIECE_LEN: usize = 1_000;

/// The other process of the test below: it fetches from the peer that its environment names, says how many pieces it has, and waits
/// to be killed.
#[tokio::test]
async fn the_one_that_is_killed() {
    let Ok(place) = std::env::var(KILLED) else { return };
    let [folder, peer, listens] = place.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let store = Arc::new(Store::open(folder, 1 << 30).unwrap());
    let key = Keypair::generate_ed25519();
    let client = start(config(Transport::Tcp), key, store, Arc::new(Impatient)).await.unwrap();
    let (id, bytes) = content(KILLED_PIECES * KILLED_PIECE_LEN);
    let addresses = vec![listens.parse().unwrap()];
    let providers = vec![PeerAddress { peer: peer.parse().unwrap(), addresses }];
    let pieces = Known::new(&bytes, KILLED_PIECE_LEN);
    let request = PiecesRequest { id, providers, pieces: pieces.clone(), whole: true };
    client.fetch_pieces(request).await.unwrap_err();
    let here = (0..KILLED_PIECES).filter(|index| pieces.piece(*index).unwrap().2).count();
    println!("pieces: {here}");
    std::future::pending().await
}

#[tokio::test]
async fn after_a_kill_only_what_is_missing_is_fetched() {
    use std::io::BufRead;
    let (id, bytes) = content(KILLED_PIECES * KILLED_PIECE_LEN);
    let served = bytes.clone();
    let (dying, _task) =
        impostor(Box::new(move |n, request| (n < 20).then(|| honest(&served, request)))).await;
    let folder = TempDir::new().unwrap();
    let place = format!("{} {} {}", folder.path().display(), dying.peer, dying.addresses[0]);
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "network::the_one_that_is_killed", "--nocapture"])
        .env(KILLED, place)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let child = tokio::task::spawn_blocking(move || {
        let mut child = child;
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        // The line begins with the name of the test.
        let here = lines.find_map(|line| line.unwrap().split_once("pieces: ")?.1.parse().ok());
        child.kill().unwrap();
        child.wait().unwrap();
        here.unwrap()
    });
    let here: usize = child.await.unwrap();
    assert!((1..=20).contains(&here), "{here}");
    let a = peer(Transport::Tcp).await;
    a.client.publish(id, bytes.clone()).await.unwrap();
    let key = Keypair::generate_ed25519();
    let b = client(config(Transport::Tcp), key, &folder, Impatient).await;
    let pieces = Known::new(&bytes, KILLED_PIECE_LEN);
    let providers = vec![address(&a.client).await];
    let request = PiecesRequest { id, providers, pieces, whole: true };
    let fetched = b.fetch_pieces(request).await.unwrap();
    assert_eq!(fetched.bytes, Some(bytes.clone()));
    assert_eq!(a.client.counters().bytes_sent, (KILLED_PIECE_LEN * (KILLED_PIECES - here)) as u64);
}

#[tokio::test]
async fn in_memory_pieces_go_on_where_a_peer_vanished() {
    let hub = MemoryHub::new();
    let clock = Arc::new(ManualClock::default());
    let [a, b, c] = [1, 2, 3].map(|seed| hub.join(seed, clock.clone()));
    let (id, bytes) = content(9_000);
    a.publish(id, bytes.clone()).await.unwrap();
    hub.vanish_after(a.local_peer(), 5);
    let known = Known::new(&bytes, 1_000);
    let request = PiecesRequest { id, providers: Vec::new(), pieces: known.clone(), whole: false };
    let error = c.fetch_pieces(request.clone()).await.unwrap_err();
    assert_eq!(faults(error), [fault(a.local_peer(), FaultKind::Unreachable)]);
    b.publish(id, bytes.clone()).await.unwrap();
    hub.vanish_after(b.local_peer(), 4);
    assert_eq!(c.fetch_pieces(request).await.unwrap().peers, [b.local_peer()]);
    assert!(known.has_all());
}

#[tokio::test]
async fn in_memory_a_vanished_peer_is_followed_by_the_next() {
    let hub = MemoryHub::new();
    let clock = Arc::new(ManualClock::default());
    let [a, b, c] = [1, 2, 3].map(|seed| hub.join(seed, clock.clone()));
    let (id, bytes) = content(3 << 20);
    a.publish(id, bytes.clone()).await.unwrap();
    b.publish(id, bytes.clone()).await.unwrap();
    hub.vanish_after(a.local_peer(), 1);
    let mut request =
        want(id).from_peers([PeerAddress { peer: a.local_peer(), addresses: Vec::new() }]);
    request.len_max = 3 << 20;
    let fetched = c.fetch(request.clone()).await.unwrap();
    assert_eq!(fetched.bytes, bytes);
    assert_eq!(fetched.peers, [a.local_peer(), b.local_peer()]);
    hub.set_cut(b.local_peer(), c.local_peer(), true);
    let error = c.fetch(request).await.unwrap_err();
    assert_eq!(faults(error), [a, b].map(|peer| fault(peer.local_peer(), FaultKind::Unreachable)));
}

#[tokio::test]
async fn in_memory_a_liar_is_named() {
    let hub = MemoryHub::new();
    let clock = Arc::new(ManualClock::default());
    let [a, b] = [1, 2].map(|seed| hub.join(seed, clock.clone()));
    let (id, _) = content(100);
    a.publish(id, Bytes::from_static(b"not it")).await.unwrap();
    let error = b.fetch(want(id)).await.unwrap_err();
    assert_eq!(faults(error), [fault(a.local_peer(), FaultKind::Corrupt)]);
}

#[tokio::test]
async fn who_lied_once_is_asked_last_and_heard() {
    let hub = MemoryHub::new();
    let clock = Arc::new(ManualClock::default());
    let [liar, fetcher] = [1, 2].map(|seed| hub.join(seed, clock.clone()));
    let (id, bytes) = content(4_000);
    liar.publish(id, bytes.clone()).await.unwrap();
    let others = (3..8).map(|seed| hub.join(seed, clock.clone()).local_peer());
    let peers = std::iter::once(liar.local_peer()).chain(others);
    let providers: Vec<PeerAddress> =
        peers.map(|peer| PeerAddress { peer, addresses: Vec::new() }).collect();
    let want = || {
        let pieces = Known::new(&bytes, 4_000);
        PiecesRequest { id, providers: providers.clone(), pieces, whole: true }
    };
    hub.set_serving(liar.local_peer(), Serving::Wrong);
    for _ in 0..20 {
        let error = fetcher.fetch_pieces(want()).await.unwrap_err();
        assert!(faults(error).contains(&fault(liar.local_peer(), FaultKind::Corrupt)));
    }
    hub.set_serving(liar.local_peer(), Serving::Honest);
    assert_eq!(fetcher.fetch_pieces(want()).await.unwrap().bytes, Some(bytes));
}

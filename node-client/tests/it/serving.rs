//! Who is served what, on real sockets: by right, each its part, and strangers never more than what is kept for them.
//!
//! Time is moved by hand on the serving side, and only where the server waits for it; nothing depends on how fast the
//! machine is.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{AsyncRead, AsyncWrite, StreamExt};
use libp2p::{
    request_response::{self, Codec, ProtocolSupport},
    StreamProtocol, SwarmBuilder,
};
use node_client::{
    clock::{Clock, ManualClock},
    network::{
        codec::{protocol_name, RangeCodec, RangeRequest, RangeResponse, RANGE_LEN_MAX},
        Counters, FaultKind, Network, NetworkConfig, PeerAddress, PeerId, Role,
    },
};
use protocol::Hash;
use tokio::task::{JoinHandle, JoinSet};

use super::store::{flip, HEADER_BYTES};

use super::network::{
    address, breathe, config, content, faults, peer_with, want, Impatient, Peer, Transport, NAME,
    RANGE_LEN,
};

/// What a question costs at the least, in bytes.
const CHARGED_MIN: u64 = 4 << 10;

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3_600);

fn patient() -> NetworkConfig {
    NetworkConfig { idle_timeout: FOR_EVER, ..config(Transport::Tcp) }
}

async fn peer() -> Peer {
    peer_with(patient(), Impatient).await
}

/// A server whose clock stands still, and which knows the roles of these peers.
async fn server<const N: usize>(
    config: NetworkConfig,
    roles: [(&Peer, Role); N],
) -> (Peer, ManualClock) {
    let clock = ManualClock::default();
    let server = peer_with(config, clock.clone()).await;
    set_roles(&server, roles.map(|(peer, role)| (peer.client.local_peer(), role))).await;
    (server, clock)
}

async fn set_roles(server: &Peer, roles: impl IntoIterator<Item = (PeerId, Role)>) {
    let roles: HashMap<PeerId, Role> = roles.into_iter().collect();
    server.client.set_roles(roles).await.unwrap();
}

/// Waits until the server's counters are so.
async fn until(server: &Peer, is_so: impl Fn(Counters) -> bool) {
    while !is_so(server.client.counters()) {
        breathe().await;
    }
}

/// Publishes a content of `len` bytes.
async fn publish(server: &Peer, len: usize) -> (Hash, Bytes) {
    let (id, bytes) = content(len);
    server.client.publish(id, bytes.clone()).await.unwrap();
    (id, bytes)
}

/// What a peer has of a content that only the server has, or what went wrong.
async fn fetch(peer: &Peer, server: &PeerAddress, id: Hash) -> Result<Bytes, Vec<FaultKind>> {
    let request = want(id).from_peers([server.clone()]);
    let fetched = peer.client.fetch(request).await;
    fetched
        .map(|fetched| fetched.bytes)
        .map_err(|error| faults(error).into_iter().map(|fault| fault.kind).collect())
}

/// Asks, and never reads an answer.
#[derive(Clone)]
struct DeafCodec;

impl Codec for DeafCodec {
    type Protocol = StreamProtocol;
    type Request = RangeRequest;
    type Response = RangeResponse;

    async fn read_request<T>(
        &mut self,
        name: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<RangeRequest>
    where
        T: AsyncRead + Unpin + Send,
    {
        RangeCodec.read_request(name, io).await
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, _: &mut T) -> io::Result<RangeResponse>
    where
        T: AsyncRead + Unpin + Send,
    {
        std::future::pending().await
    }

    async fn write_request<T>(
        &mut self,
        name: &StreamProtocol,
        io: &mut T,
        request: RangeRequest,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        RangeCodec.write_request(name, io, request).await
    }

    async fn write_response<T>(
        &mut self,
        name: &StreamProtocol,
        io: &mut T,
        response: RangeResponse,
    ) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        RangeCodec.write_response(name, io, response).await
    }
}

#[tokio::test]
async fn whose_disk_flipped_a_bit_lacks_it_and_lies_to_nobody() {
    let (damaged, asker) = (peer().await, peer().await);
    let (id, bytes) = publish(&damaged, 3 * RANGE_LEN as usize).await;
    let address = address(&damaged.client).await;
    let path = damaged.client.store().object_path(&id);
    let sums = damaged.folder.path().join("sums").join(hex::encode(id));
    for (file, offset) in [(path, HEADER_BYTES + u64::from(RANGE_LEN) + 1), (sums, 9)] {
        asker.client.store().remove(&id).unwrap();
        flip(&file, offset);
        assert_eq!(fetch(&asker, &address, id).await, Err(vec![FaultKind::Missing]));
        // Whoever put it puts it again, and it is whole.
        let content = Arc::new(bytes.clone());
        damaged.client.publish_content(id, content, None).await.unwrap();
        assert_eq!(fetch(&asker, &address, id).await.as_ref(), Ok(&bytes));
    }
}

/// Nobody in particular, who asks for a range of a content so many times at once and reads nothing.
fn deaf(server: &PeerAddress, id: Hash, questions: usize) -> JoinHandle<()> {
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            libp2p::tcp::Config::default(),
            libp2p::noise::Config::new,
            libp2p::yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|_| {
            let protocols = [(protocol_name(NAME).unwrap(), ProtocolSupport::Outbound)];
            let config = request_response::Config::default().with_request_timeout(FOR_EVER);
            request_response::Behaviour::with_codec(DeafCodec, protocols, config)
        })
        .unwrap()
        .with_swarm_config(|swarm| swarm.with_idle_connection_timeout(FOR_EVER))
        .build();
    for address in &server.addresses {
        swarm.add_peer_address(server.peer, address.clone());
    }
    for _ in 0..questions {
        let request = RangeRequest { id, piece: None, offset: 0, len: RANGE_LEN_MAX };
        swarm.behaviour_mut().send_request(&server.peer, request);
    }
    tokio::spawn(async move {
        loop {
            swarm.select_next_some().await;
        }
    })
}

/// The attack of 8 peers with 8 streams each that made a rival's payload unavailable.
#[tokio::test]
async fn who_reads_nothing_keeps_nobody_from_being_served() {
    let [validator, replica, stranger] = [peer().await, peer().await, peer().await];
    let roles = [(&validator, Role::Validator), (&replica, Role::Replica)];
    let (server, clock) = server(patient(), roles).await;
    let place = address(&server.client).await;
    let (large, _) = publish(&server, RANGE_LEN_MAX as usize).await;
    let (id, bytes) = publish(&server, 5_000).await;
    let _deaf: Vec<_> = (0..8).map(|_| deaf(&place, large, 8)).collect();
    until(&server, |counters| counters.serving + counters.waiting == 64).await;
    assert_eq!(server.client.counters().serving, 8);
    for peer in [&validator, &replica] {
        assert_eq!(fetch(peer, &place, id).await.as_ref(), Ok(&bytes));
    }
    // At once: no time has passed, and all of the others are still there.
    assert_eq!(clock.now_millis(), 0);
    until(&server, |counters| counters.serving == 8 && counters.waiting == 56).await;
    // Who reads nothing loses its slot, so that a stranger is served in the end.
    let served = async {
        loop {
            if let Ok(fetched) = fetch(&stranger, &place, id).await {
                return fetched;
            }
        }
    };
    let time = async {
        loop {
            clock.advance(Duration::from_secs(1));
            breathe().await;
        }
    };
    tokio::select! {
        fetched = served => assert_eq!(fetched, bytes),
        () = time => unreachable!("time passes for ever"),
    }
}

#[tokio::test]
async fn strangers_of_one_network_do_not_take_every_incoming_connection() {
    let few = NetworkConfig { connections_max: 32, limit_private_networks: true, ..patient() };
    let validator = peer().await;
    let (server, _) = server(few, [(&validator, Role::Validator)]).await;
    let place = address(&server.client).await;
    let (id, bytes) = publish(&server, 5_000).await;
    let mut strangers = Vec::new();
    for _ in 0..16 {
        let stranger = peer().await;
        let fetched = fetch(&stranger, &place, id).await;
        strangers.push((stranger, fetched));
    }
    let let_in = strangers.iter().filter(|(_, fetched)| fetched.is_ok()).count();
    // A quarter of the 16 incoming ones, which stay; and a known peer comes in from there all the same.
    assert_eq!(let_in, 4);
    assert_eq!(fetch(&validator, &place, id).await, Ok(bytes));
}

#[tokio::test]
async fn strangers_of_one_network_connect_so_often_in_a_minute() {
    let few =
        NetworkConfig { connects_per_minute_max: 3, limit_private_networks: true, ..patient() };
    let validator = peer().await;
    let (server, clock) = server(few, [(&validator, Role::Validator)]).await;
    let place = address(&server.client).await;
    let (id, _) = publish(&server, 5_000).await;
    let mut let_in = Vec::new();
    for attempt in 0..6 {
        if attempt == 5 {
            clock.advance(Duration::from_secs(60));
        }
        let stranger = peer().await;
        let_in.push(fetch(&stranger, &place, id).await.is_ok());
        stranger.client.shutdown().await;
    }
    assert_eq!(let_in, [true, true, true, false, false, true]);
}

#[tokio::test]
async fn strangers_of_one_network_have_together_what_one_may_have() {
    let slow = NetworkConfig {
        // A burst of ten seconds' worth is three ranges, each of which counts as 4 KiB.
        serve_bytes_per_second_max: (3 * CHARGED_MIN).div_ceil(10),
        limit_private_networks: true,
        ..patient()
    };
    let validator = peer().await;
    let (server, _) = server(slow, [(&validator, Role::Validator)]).await;
    let place = address(&server.client).await;
    let (id, _) = publish(&server, 50_000).await;
    for _ in 0..3 {
        assert_eq!(fetch(&peer().await, &place, id).await, Err(vec![FaultKind::Busy]));
    }
    assert_eq!(server.client.counters().bytes_sent, 3 * u64::from(RANGE_LEN));
    assert_eq!(fetch(&validator, &place, id).await, Err(vec![FaultKind::Busy]));
    assert_eq!(server.client.counters().bytes_sent, 6 * u64::from(RANGE_LEN));
}

#[tokio::test]
async fn a_question_for_a_byte_costs_as_much_as_one_for_four_kib() {
    let slow = NetworkConfig {
        // A burst of ten seconds' worth is three questions.
        serve_bytes_per_second_max: (3 * CHARGED_MIN).div_ceil(10),
        ..patient()
    };
    let replica = peer().await;
    let (server, clock) = server(slow, [(&replica, Role::Replica)]).await;
    let place = address(&server.client).await;
    let mut ids = Vec::new();
    for len in 1..=5 {
        ids.push(publish(&server, len).await);
    }
    for (id, bytes) in &ids[..3] {
        assert_eq!(fetch(&replica, &place, *id).await.as_ref(), Ok(bytes));
    }
    let (id, bytes) = &ids[3];
    assert_eq!(fetch(&replica, &place, *id).await, Err(vec![FaultKind::Busy]));
    assert_eq!(server.client.counters().bytes_sent, 1 + 2 + 3);
    clock.advance(Duration::from_secs(10));
    assert_eq!(fetch(&replica, &place, *id).await.as_ref(), Ok(bytes));
}

#[tokio::test]
async fn a_stranger_is_told_so_often_that_there_is_nothing() {
    let few = NetworkConfig { refusals_per_minute_max: 3, ..patient() };
    let [joiner, stranger] = [peer().await, peer().await];
    let (server, clock) = server(few, [(&joiner, Role::Joiner)]).await;
    let place = address(&server.client).await;
    let (nothing, _) = content(10);
    let [missing, no_answer] = [FaultKind::Missing, FaultKind::Unreachable];
    for told in [&missing, &missing, &missing, &no_answer, &no_answer] {
        assert_eq!(fetch(&stranger, &place, nothing).await, Err(vec![told.clone()]));
        assert_eq!(fetch(&joiner, &place, nothing).await, Err(vec![missing.clone()]));
    }
    clock.advance(Duration::from_secs(20));
    for told in [missing, no_answer] {
        assert_eq!(fetch(&stranger, &place, nothing).await, Err(vec![told]));
    }
}

/// Lets a peer fetch contents of a million bytes, all at the same time, of which no two peers have the same.
fn fetch_all(fetches: &mut JoinSet<()>, peer: &Peer, server: &PeerAddress, ids: &[Hash]) {
    for id in ids {
        let (client, request) = (peer.client.clone(), want(*id).from_peers([server.clone()]));
        fetches.spawn(async move {
            client.fetch(request).await.unwrap();
        });
    }
}

/// Contents of about a million bytes.
async fn contents(server: &Peer, count: usize) -> Vec<Hash> {
    let mut ids = Vec::new();
    for index in 0..count {
        ids.push(publish(server, 1_000_000 + index).await.0);
    }
    ids
}

#[tokio::test]
async fn all_together_have_no_more_than_the_uplink() {
    let rate = 1_000_000;
    let capped = NetworkConfig { up_bytes_per_second: Some(rate), ..patient() };
    let fetcher = || {
        let config = NetworkConfig { range_len: 50_000, ..patient() };
        peer_with(config, Impatient)
    };
    let peers = [fetcher().await, fetcher().await, fetcher().await];
    let roles = [Role::Validator, Role::Replica, Role::Joiner];
    let (server, clock) = server(capped, [0, 1, 2].map(|at| (&peers[at], roles[at]))).await;
    let place = address(&server.client).await;
    let ids = contents(&server, 6).await;
    let mut fetches = JoinSet::new();
    for (peer, ids) in peers.iter().zip(ids.chunks(2)) {
        fetch_all(&mut fetches, peer, &place, ids);
    }
    while !fetches.is_empty() {
        let Counters { bytes_sent, serving, waiting, .. } = server.client.counters();
        let most = u64::from(RANGE_LEN_MAX) + rate * clock.now_millis() / 1_000;
        assert!(bytes_sent <= most, "{bytes_sent} of {most}");
        if serving == 0 && waiting > 0 {
            clock.advance(Duration::from_millis(10));
        }
        breathe().await;
        while let Some(fetched) = fetches.try_join_next() {
            fetched.unwrap();
        }
    }
    // It was used, too: six million bytes less a burst take five seconds.
    assert!((4_900..10_000).contains(&clock.now_millis()), "{}", clock.now_millis());
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_leaves_the_queue() {
    for transport in [Transport::Tcp, Transport::Quic] {
        let config = NetworkConfig { idle_timeout: FOR_EVER, ..config(transport) };
        let fetcher = peer_with(config.clone(), Impatient).await;
        let capped = NetworkConfig { up_bytes_per_second: Some(1_000_000), ..config };
        let (server, clock) = server(capped, [(&fetcher, Role::Replica)]).await;
        let place = address(&server.client).await;
        let ids = contents(&server, 3).await;
        let mut fetches = JoinSet::new();
        fetch_all(&mut fetches, &fetcher, &place, &ids);
        // Time stands still: some of the first has left, and nothing else will.
        until(&server, |counters| counters.waiting == 3 && counters.serving == 0).await;
        let sent = server.client.counters().bytes_sent;
        fetches.shutdown().await;
        until(&server, |counters| counters.waiting == 0).await;
        assert_eq!(server.client.counters().bytes_sent, sent);
        // They are there no more, and what is asked for has its turn.
        let (id, _) = publish(&server, 1_000).await;
        let fetched = fetch(&fetcher, &place, id);
        let time = async {
            loop {
                clock.advance(Duration::from_millis(100));
                breathe().await;
            }
        };
        tokio::select! {
            fetched = fetched => assert_eq!(fetched.unwrap().len(), 1_000),
            () = time => unreachable!("time passes for ever"),
        }
    }
}

#[tokio::test]
async fn roles_share_the_uplink_by_their_weights() {
    const LEN: u64 = 10_000;
    let capped = NetworkConfig { up_bytes_per_second: Some(10 * LEN), ..patient() };
    let fetcher = || {
        let config = NetworkConfig { range_len: LEN as u32, ..patient() };
        peer_with(config, Impatient)
    };
    let peers = [fetcher().await, fetcher().await, fetcher().await];
    let roles = [Role::Validator, Role::Replica, Role::Joiner];
    let (server, clock) = server(capped, [0, 1, 2].map(|at| (&peers[at], roles[at]))).await;
    let place = address(&server.client).await;
    let ids = contents(&server, 12).await;
    let mut fetches = JoinSet::new();
    for (peer, ids) in peers.iter().zip(ids.chunks(4)) {
        fetch_all(&mut fetches, peer, &place, ids);
    }
    // Once the burst is used up all of them wait.
    let all_wait = |counters: Counters| counters.waiting == 12 && counters.serving == 0;
    until(&server, all_wait).await;
    let received = || peers.each_ref().map(|peer| peer.client.counters().bytes_received);
    let before = received();
    for _ in 0..140 {
        let sent = server.client.counters().bytes_sent;
        // What one range takes.
        clock.advance(Duration::from_millis(100));
        until(&server, |counters| counters.bytes_sent > sent && all_wait(counters)).await;
    }
    let after = received();
    let had = [0, 1, 2].map(|at| (after[at] - before[at]) / LEN);
    for (had, part) in had.into_iter().zip([80, 40, 20]) {
        assert!((part - 2..=part + 2).contains(&had), "{had} of {part}");
    }
}

#[tokio::test]
async fn until_roles_are_known_all_are_served_alike() {
    let server = peer_with(patient(), ManualClock::default()).await;
    let place = address(&server.client).await;
    let (large, _) = publish(&server, RANGE_LEN_MAX as usize).await;
    let (id, bytes) = publish(&server, 5_000).await;
    let _deaf: Vec<_> = (0..4).map(|_| deaf(&place, large, 8)).collect();
    until(&server, |counters| counters.serving == 32).await;
    assert_eq!(fetch(&peer().await, &place, id).await, Ok(bytes));
}

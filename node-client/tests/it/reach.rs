//! Peers that cannot be dialled, and connections that are kept, on real sockets.
//!
//! What must not end is waited for longer than it would take to end; what must happen is asked for until it has.

use std::time::Duration;

use libp2p::identity::Keypair;
use node_client::network::{FaultKind, Keep, Network, NetworkConfig, PeerAddress, PeerId};
use tempfile::TempDir;

use crate::network::{
    address, client, config, content, faults, peer_with, want, Impatient, Peer, Transport,
};

/// A connection over which nothing goes is closed after this.
pub(super) const IDLE: Duration = Duration::from_millis(200);

pub(super) fn quick(transport: Transport) -> NetworkConfig {
    NetworkConfig {
        idle_timeout: IDLE,
        redial_interval: Duration::from_millis(10),
        ..config(transport)
    }
}

/// As behind a router: others cannot dial it.
pub(super) async fn hidden(transport: Transport) -> Peer {
    peer_with(NetworkConfig { listen: Vec::new(), ..quick(transport) }, Impatient).await
}

/// Whom a connection must be there for.
fn nowhere(peer: &Peer) -> PeerAddress {
    PeerAddress { peer: peer.client.local_peer(), addresses: Vec::new() }
}

pub(super) fn hold(peer: &Peer) -> Keep {
    Keep { dialled: Vec::new(), held: vec![peer.client.local_peer()] }
}

pub(super) async fn dial(peer: &Peer) -> Keep {
    Keep { dialled: vec![address(&peer.client).await], held: Vec::new() }
}

/// Publishes a content of `len` bytes at `from` and asks for it once; whether it came.
async fn comes(by: &impl Network, from: &Peer, len: usize) -> bool {
    let (id, bytes) = content(len);
    from.client.publish(id, bytes.clone()).await.unwrap();
    match by.fetch(want(id).from_peers([nowhere(from)])).await {
        Ok(fetched) => {
            assert_eq!(fetched.bytes, bytes);
            assert_eq!(fetched.peers, [from.client.local_peer()]);
            true
        }
        Err(error) => {
            assert!(faults(error).iter().all(|fault| fault.kind == FaultKind::Unreachable));
            false
        }
    }
}

/// The same until it comes.
async fn comes_at_last(by: &impl Network, from: &Peer, len: usize) {
    while !comes(by, from, len).await {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn who_listens_nowhere_is_fetched_from(transport: Transport) {
    let b = peer_with(quick(transport), Impatient).await;
    let (kept, stranger) = (hidden(transport).await, hidden(transport).await);
    // They connect; what is asked for is not there.
    for peer in [&kept, &stranger] {
        let (unknown, _) = content(1);
        let asked = peer.client.fetch(want(unknown).from_peers([address(&b.client).await])).await;
        assert_eq!(faults(asked.unwrap_err())[0].kind, FaultKind::Missing);
    }
    b.client.keep(hold(&kept)).await.unwrap();
    kept.client.keep(dial(&b).await).await.unwrap();
    comes_at_last(&b.client, &kept, 5_000).await;
    tokio::time::sleep(5 * IDLE).await;
    assert!(comes(&b.client, &kept, 5_001).await, "the connection has been closed");
    // As it goes without keeping.
    let mut len = 6_000;
    while comes(&b.client, &stranger, len).await {
        tokio::time::sleep(5 * IDLE).await;
        len += 1;
    }
}

#[tokio::test]
async fn who_listens_nowhere_is_fetched_from_over_quic() {
    who_listens_nowhere_is_fetched_from(Transport::Quic).await;
}

#[tokio::test]
async fn who_listens_nowhere_is_fetched_from_over_tcp() {
    who_listens_nowhere_is_fetched_from(Transport::Tcp).await;
}

#[tokio::test]
async fn a_restarted_peer_is_dialled_again() {
    let (key, folder) = (Keypair::generate_ed25519(), TempDir::new().unwrap());
    let mut settings = NetworkConfig {
        // Nobody else is at this address, so that the port stays free.
        listen: vec!["/ip4/127.77.0.1/tcp/0".parse().unwrap()],
        ..quick(Transport::Tcp)
    };
    let first = client(settings.clone(), key.clone(), &folder, Impatient).await;
    let a = hidden(Transport::Tcp).await;
    let b = address(&first).await;
    settings.listen.clone_from(&b.addresses);
    a.client.keep(Keep { dialled: vec![b], held: Vec::new() }).await.unwrap();
    first.keep(hold(&a)).await.unwrap();
    comes_at_last(&first, &a, 5_000).await;
    first.shutdown().await;
    drop(first);
    let second = client(settings, key, &folder, Impatient).await;
    second.keep(hold(&a)).await.unwrap();
    comes_at_last(&second, &a, 5_001).await;
}

#[tokio::test]
async fn who_is_held_comes_in_where_strangers_have_taken_all() {
    let full = NetworkConfig { connections_max: 4, ..config(Transport::Tcp) };
    let (b, a) = (peer_with(full, Impatient).await, hidden(Transport::Tcp).await);
    b.client.keep(hold(&a)).await.unwrap();
    let (id, bytes) = content(5_000);
    b.client.publish(id, bytes).await.unwrap();
    let strangers = strangers_in(&b, id).await;
    a.client.keep(dial(&b).await).await.unwrap();
    comes_at_last(&b.client, &a, 5_001).await;
    drop(strangers);
}

#[tokio::test]
async fn who_is_held_takes_no_room_of_strangers() {
    let full = NetworkConfig { connections_max: 4, ..config(Transport::Tcp) };
    let (b, a) = (peer_with(full, Impatient).await, hidden(Transport::Tcp).await);
    b.client.keep(hold(&a)).await.unwrap();
    a.client.keep(dial(&b).await).await.unwrap();
    comes_at_last(&b.client, &a, 5_001).await;
    let (id, bytes) = content(5_000);
    b.client.publish(id, bytes).await.unwrap();
    let strangers = strangers_in(&b, id).await;
    assert!(comes(&b.client, &a, 5_002).await);
    drop(strangers);
}

/// Lets strangers connect and fetch a content, one after the other: those stay who may, half of four connections.
async fn strangers_in(server: &Peer, id: protocol::Hash) -> Vec<Peer> {
    let mut strangers = Vec::new();
    for n in 0..4 {
        let settings = NetworkConfig { listen: Vec::new(), ..config(Transport::Tcp) };
        let stranger = peer_with(settings, Impatient).await;
        let place = address(&server.client).await;
        let fetched = stranger.client.fetch(want(id).from_peers([place])).await;
        assert_eq!(fetched.is_ok(), n < 2, "stranger {n}");
        strangers.push(stranger);
    }
    strangers
}

#[tokio::test]
async fn who_is_kept_no_longer_is_let_go() {
    let b = peer_with(quick(Transport::Tcp), Impatient).await;
    let a = hidden(Transport::Tcp).await;
    b.client.keep(hold(&a)).await.unwrap();
    a.client.keep(dial(&b).await).await.unwrap();
    comes_at_last(&b.client, &a, 5_000).await;
    let another = Keep { dialled: Vec::new(), held: vec![PeerId::random()] };
    a.client.keep(another).await.unwrap();
    let mut len = 6_000;
    while comes(&b.client, &a, len).await {
        tokio::time::sleep(5 * IDLE).await;
        len += 1;
    }
}

#[tokio::test]
async fn all_interfaces_are_listened_on_and_what_is_announced_is_listened_on() {
    // Whether or not this machine has IPv6.
    let settings = NetworkConfig { name: "test".to_owned(), ..NetworkConfig::default() };
    let all = peer_with(settings, Impatient).await;
    let reachable = all.client.reachable_addresses().await.unwrap();
    let listened = all.client.listen_addresses().await.unwrap();
    assert!(!reachable.is_empty());
    assert!(reachable.iter().all(|address| listened.contains(address)), "{reachable:?}");
    assert!(reachable.is_sorted());
    let nowhere = hidden(Transport::Tcp).await;
    assert!(nowhere.client.reachable_addresses().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_network_of_one_machine_announces_its_loopback_addresses_or_what_it_is_told_to() {
    let local = peer_with(NetworkConfig::loopback(), Impatient).await;
    let mut listened = local.client.listen_addresses().await.unwrap();
    listened.sort();
    assert_eq!(local.client.reachable_addresses().await.unwrap(), listened);
    let external = vec!["/ip4/203.0.113.5/tcp/4001".parse().unwrap()];
    let settings = NetworkConfig { external: external.clone(), ..NetworkConfig::loopback() };
    let told = peer_with(settings, Impatient).await;
    assert_eq!(told.client.reachable_addresses().await.unwrap(), external);
}

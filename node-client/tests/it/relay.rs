//! Peers that cannot be dialled, and that are reached over validators that relay to them, on real sockets.
//!
//! What must happen is asked for until it has. Relays have a clock that goes on: what circuits cost comes back.

use libp2p::{identity::Keypair, multiaddr::Protocol};
use node_client::{
    clock::SystemClock,
    network::{Client, FaultKind, FetchError, Keep, Network, NetworkConfig, PeerAddress, Role},
};
use tempfile::TempDir;

use super::{
    network::{
        address, breathe, client, content, faults, peer_with, want, Impatient, Peer, Transport,
    },
    reach::{dial, hidden, quick},
};

/// Lets a validator relay to these miners, and hold their connections.
async fn relay_to(validator: &Client, miners: &[&Peer]) {
    let miners: Vec<_> = miners.iter().map(|miner| miner.client.local_peer()).collect();
    let roles = miners.iter().map(|miner| (*miner, Role::Joiner));
    let own = (validator.local_peer(), Role::Validator);
    validator.set_roles(roles.chain([own]).collect()).await.unwrap();
    validator.keep(Keep { dialled: Vec::new(), held: miners }).await.unwrap();
}

/// Where a peer says that it is reached.
async fn announced(peer: &Peer) -> PeerAddress {
    let addresses = peer.client.reachable_addresses().await.unwrap();
    PeerAddress { peer: peer.client.local_peer(), addresses }
}

/// The same as soon as it is reached over `count` relays.
async fn relayed(peer: &Peer, count: usize) -> PeerAddress {
    loop {
        let found = announced(peer).await;
        if found.addresses.len() == count {
            let is_circuit =
                |address: &libp2p::Multiaddr| address.iter().last() == Some(Protocol::P2pCircuit);
            assert!(found.addresses.iter().all(is_circuit), "{found:?}");
            assert!(found.addresses.is_sorted());
            return found;
        }
        breathe().await;
    }
}

/// Publishes a content of `len` bytes at `from` and fetches it as soon as it comes, knowing nothing but what that
/// announces.
async fn comes(by: &Peer, from: &Peer, len: usize) {
    let (id, bytes) = content(len);
    from.client.publish(id, bytes.clone()).await.unwrap();
    loop {
        let request = want(id).from_peers([announced(from).await]);
        match by.client.fetch(request).await {
            Ok(fetched) => {
                assert_eq!(fetched.bytes, bytes);
                assert_eq!(fetched.peers, [from.client.local_peer()]);
                return;
            }
            Err(FetchError::Unavailable { .. }) => breathe().await,
            Err(other) => panic!("{other}"),
        }
    }
}

async fn who_listens_nowhere_is_fetched_from_over_a_relay(transport: Transport) {
    let relay = peer_with(quick(transport), SystemClock).await;
    let (miner, other) = (hidden(transport).await, peer_with(quick(transport), Impatient).await);
    relay_to(&relay.client, &[&miner, &other]).await;
    miner.client.keep(dial(&relay).await).await.unwrap();
    let found = relayed(&miner, 1).await;
    assert!(found.addresses[0].iter().any(|part| part == Protocol::P2p(relay.client.local_peer())));
    comes(&other, &miner, 5_000).await;
    // Who can be dialled has nobody relay to it.
    assert!(!announced(&other).await.addresses.is_empty());
    other.client.keep(dial(&relay).await).await.unwrap();
    comes(&other, &miner, 5_001).await;
    assert_eq!(announced(&other).await, address(&other.client).await);
}

#[tokio::test]
async fn who_listens_nowhere_is_fetched_from_over_a_relay_over_quic() {
    who_listens_nowhere_is_fetched_from_over_a_relay(Transport::Quic).await;
}

#[tokio::test]
async fn who_listens_nowhere_is_fetched_from_over_a_relay_over_tcp() {
    who_listens_nowhere_is_fetched_from_over_a_relay(Transport::Tcp).await;
}

#[tokio::test]
async fn a_circuit_carries_so_much_and_no_more() {
    let narrow = NetworkConfig { circuit_bytes_max: 64 << 10, ..quick(Transport::Tcp) };
    let relay = peer_with(narrow, SystemClock).await;
    let miner = hidden(Transport::Tcp).await;
    // It asks for more at a time than a circuit carries.
    let whole = NetworkConfig { range_len: 1 << 20, ..quick(Transport::Tcp) };
    let other = peer_with(whole, Impatient).await;
    relay_to(&relay.client, &[&miner, &other]).await;
    miner.client.keep(dial(&relay).await).await.unwrap();
    let found = relayed(&miner, 1).await;
    let (id, bytes) = content(300_000);
    miner.client.publish(id, bytes).await.unwrap();
    let fetched = other.client.fetch(want(id).from_peers([found])).await;
    let kinds = faults(fetched.unwrap_err()).into_iter().map(|fault| fault.kind);
    assert_eq!(kinds.collect::<Vec<_>>(), [FaultKind::Unreachable]);
    comes(&other, &miner, 5_000).await;
}

#[tokio::test]
async fn a_lost_relay_is_asked_again_and_the_others_stay() {
    let (key, folder) = (Keypair::generate_ed25519(), TempDir::new().unwrap());
    let mut settings = NetworkConfig {
        // Nobody else is at this address, so that the port stays free.
        listen: vec!["/ip4/127.77.0.2/tcp/0".parse().unwrap()],
        ..quick(Transport::Tcp)
    };
    let first = client(settings.clone(), key.clone(), &folder, SystemClock).await;
    let other_relay = peer_with(quick(Transport::Tcp), SystemClock).await;
    let miner = hidden(Transport::Tcp).await;
    let fetcher = peer_with(quick(Transport::Tcp), Impatient).await;
    relay_to(&first, &[&miner, &fetcher]).await;
    relay_to(&other_relay.client, &[&miner, &fetcher]).await;
    let place = address(&first).await;
    settings.listen.clone_from(&place.addresses);
    let dialled = vec![place, address(&other_relay.client).await];
    miner.client.keep(Keep { dialled, held: Vec::new() }).await.unwrap();
    let both = relayed(&miner, 2).await;
    first.shutdown().await;
    drop(first);
    let left = relayed(&miner, 1).await;
    assert!(both.addresses.contains(&left.addresses[0]));
    comes(&fetcher, &miner, 5_000).await;
    let second = client(settings, key, &folder, SystemClock).await;
    relay_to(&second, &[&miner, &fetcher]).await;
    assert_eq!(relayed(&miner, 2).await, both);
    other_relay.client.shutdown().await;
    relayed(&miner, 1).await;
    comes(&fetcher, &miner, 5_001).await;
}

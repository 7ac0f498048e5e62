//! What others announce, and where it makes a peer of the internet connect.

use std::{io::ErrorKind, net::TcpListener};

use libp2p::multiaddr::Protocol;
use node_client::network::{FaultKind, Multiaddr, Network, NetworkConfig, PeerAddress, PeerId};

use crate::network::{address, content, peer, peer_with, want, Impatient, Transport, NAME};

/// An address of this machine by the name that all have for it.
fn by_name(port: u16) -> Multiaddr {
    Multiaddr::from_iter([Protocol::Dns4("localhost".into()), Protocol::Tcp(port)])
}

fn by_ip(port: u16) -> Multiaddr {
    Multiaddr::from_iter([Protocol::Ip4([127, 0, 0, 1].into()), Protocol::Tcp(port)])
}

fn port(peer: &PeerAddress) -> u16 {
    let ports = peer.addresses.iter().flatten().filter_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    ports.last().unwrap()
}

#[tokio::test]
async fn a_made_up_private_address_is_never_connected_to_and_the_operators_name_is() {
    // What else listens on a machine, as a database does.
    let victim = TcpListener::bind("127.0.0.1:0").unwrap();
    victim.set_nonblocking(true).unwrap();
    let victims = victim.local_addr().unwrap().port();
    let made_up = [
        by_ip(victims),
        by_name(victims),
        by_ip(victims).with(Protocol::Ip4([8, 8, 8, 8].into())),
        Multiaddr::from(Protocol::Ip4([8, 8, 8, 8].into()))
            .with(Protocol::Ip4([127, 0, 0, 1].into()))
            .with(Protocol::Tcp(victims)),
    ];
    let liar = PeerAddress { peer: PeerId::random(), addresses: made_up.into() };

    let honest = peer(Transport::Tcp).await;
    let (id, bytes) = content(2_000);
    honest.client.publish(id, bytes.clone()).await.unwrap();
    let announced = address(&honest.client).await;
    let by_operator =
        PeerAddress { addresses: vec![by_name(port(&announced))], ..announced.clone() };
    let config = NetworkConfig {
        name: NAME.to_owned(),
        // It is on the internet, whatever interfaces there are here.
        external: vec!["/ip4/203.0.113.7/tcp/1".parse().unwrap()],
        bootstrap: vec![by_operator],
        ..NetworkConfig::default()
    };
    let fetcher = peer_with(config, Impatient).await;

    let request = want(id).from_peers([liar.clone(), announced]);
    let fetched = fetcher.client.fetch(request).await.unwrap();
    assert_eq!((fetched.bytes, fetched.peers), (bytes, vec![honest.client.local_peer()]));
    // The liar was looked for before.
    let looked_for: Vec<_> = fetched.faults.iter().map(|fault| (fault.peer, &fault.kind)).collect();
    assert_eq!(looked_for, [(liar.peer, &FaultKind::Unreachable)]);
    assert_eq!(victim.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

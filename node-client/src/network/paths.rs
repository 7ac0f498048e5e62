//! Prefers direct connections to relayed ones: a circuit is closed as soon as there is a way around it.
//!
//! A peer is asked over a direct connection where there is one, and a circuit costs its relay a place. Who dialled the
//! circuit closes it: it knows of the direct connection, over which it asks again what was under way.

use std::collections::HashMap;

use libp2p::{core::ConnectedPoint, multiaddr::Protocol, swarm::ConnectionId, Multiaddr, PeerId};

/// Whether an address leads over a relay.
pub(super) fn is_relayed(address: &Multiaddr) -> bool {
    address.iter().any(|part| part == Protocol::P2pCircuit)
}

/// The connections of one peer.
#[derive(Default)]
struct Ways {
    direct: Vec<ConnectionId>,
    /// The circuits that we dialled.
    dialled: Vec<ConnectionId>,
}

/// By which ways peers are connected.
#[derive(Default)]
pub(super) struct Paths(HashMap<PeerId, Ways>);

impl Paths {
    /// Notes a connection, and returns those that are not needed any more.
    pub(super) fn on_connected(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        endpoint: &ConnectedPoint,
    ) -> Vec<ConnectionId> {
        let ways = self.0.entry(peer).or_default();
        match (endpoint.is_relayed(), endpoint.is_dialer()) {
            (true, true) => ways.dialled.push(connection),
            (true, false) => {}
            (false, _) => ways.direct.push(connection),
        }
        if ways.direct.is_empty() {
            return Vec::new();
        }
        std::mem::take(&mut ways.dialled)
    }

    /// Forgets all connections of a peer.
    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// Forgets a connection, if it is known.
    pub(super) fn on_closed(&mut self, peer: &PeerId, connection: ConnectionId) {
        if let Some(ways) = self.0.get_mut(peer) {
            ways.direct.retain(|other| *other != connection);
            ways.dialled.retain(|other| *other != connection);
            if ways.direct.is_empty() && ways.dialled.is_empty() {
                self.0.remove(peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::core::{transport::PortUse, Endpoint};

    use super::*;

    fn dialled(address: &str) -> ConnectedPoint {
        ConnectedPoint::Dialer {
            address: address.parse().unwrap(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        }
    }

    #[test]
    fn a_circuit_is_closed_when_there_is_a_direct_connection() {
        let (relay, peer) = (PeerId::random(), PeerId::random());
        let circuit = dialled(&format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit"));
        let direct = dialled("/ip4/192.0.2.2/tcp/1");
        let [a, b, c, d] = [1, 2, 3, 4].map(ConnectionId::new_unchecked);
        let mut paths = Paths::default();
        assert!(paths.on_connected(peer, a, &circuit).is_empty());
        assert_eq!(paths.on_connected(peer, b, &direct), [a]);
        // Another that was on its way.
        assert_eq!(paths.on_connected(peer, c, &circuit), [c]);
        for closed in [a, b, c] {
            paths.on_closed(&peer, closed);
        }
        assert!(paths.0.is_empty());
        assert!(paths.on_connected(peer, d, &circuit).is_empty());
        paths.forget(&peer);
        // One that is being closed is no way around.
        assert!(paths.on_connected(peer, b, &direct).is_empty());
        paths.on_closed(&peer, b);
        assert!(paths.on_connected(peer, d, &circuit).is_empty());
        // What others dialled is theirs to close.
        let came = ConnectedPoint::Listener {
            local_addr: format!("/ip4/192.0.2.1/tcp/1/p2p/{relay}/p2p-circuit").parse().unwrap(),
            send_back_addr: Multiaddr::from(Protocol::P2p(peer)),
        };
        let other = PeerId::random();
        assert!(paths.on_connected(other, a, &came).is_empty());
        assert!(paths.on_connected(other, b, &direct).is_empty());
    }
}

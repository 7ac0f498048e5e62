//! Holds the connections of chosen peers open however long they are idle, and bounds how many each of them has.
//!
//! libp2p closes a connection without streams after a while, unless a protocol's handler objects. The one here does,
//! and does nothing else.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    convert::Infallible,
    task::{Context, Poll},
};

use libp2p::{
    core::{transport::PortUse, upgrade::DeniedUpgrade, ConnectedPoint, Endpoint},
    swarm::{
        handler::ConnectionEvent, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent,
        ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, SubstreamProtocol, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
    Multiaddr, PeerId,
};

use super::paths::is_relayed;

/// A peer whose connections are held has as many as it may.
#[derive(Debug, thiserror::Error)]
#[error("a peer has {0} connections already")]
struct TooMany(usize);

pub(super) struct Behaviour {
    held: HashSet<PeerId>,
    /// The connections of all peers, but for dial-backs: one that is not held now may be soon.
    connections: HashMap<PeerId, Vec<Connection>>,
    per_peer_max: usize,
    /// What connections are still to be told: whether they are held.
    untold: VecDeque<(PeerId, ConnectionId, bool)>,
}

/// A connection of a peer.
struct Connection {
    id: ConnectionId,
    /// Whether the peer has made it.
    is_incoming: bool,
    /// Circuits count, and end soon whoever has them.
    is_circuit: bool,
}

/// How many connections held peers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) incoming: usize,
    pub(super) all: usize,
}

impl Behaviour {
    /// Nobody is held yet; who will be has at most `per_peer_max` connections.
    pub(super) fn new(per_peer_max: u32) -> Self {
        Self {
            held: HashSet::new(),
            connections: HashMap::new(),
            per_peer_max: per_peer_max as usize,
            untold: VecDeque::new(),
        }
    }

    /// The peers whose connections are held.
    pub(super) fn held(&self) -> &HashSet<PeerId> {
        &self.held
    }

    /// Holds these peers' connections from now on, and no others.
    pub(super) fn hold(&mut self, peers: HashSet<PeerId>) {
        for (peer, connections) in &self.connections {
            let is_held = peers.contains(peer);
            if is_held != self.held.contains(peer) {
                let lasting = connections.iter().filter(|connection| !connection.is_circuit);
                let told = lasting.map(|connection| (*peer, connection.id, is_held));
                self.untold.extend(told);
            }
        }
        self.held = peers;
    }

    /// The connections of those who are held now.
    pub(super) fn count(&self) -> Count {
        let of_held = self.connections.iter().filter(|(peer, _)| self.held.contains(peer));
        let mut count = Count { incoming: 0, all: 0 };
        for connection in of_held.flat_map(|(_, connections)| connections) {
            count.all += 1;
            count.incoming += usize::from(connection.is_incoming);
        }
        count
    }

    /// What holds a connection with a peer that came by this address, if the peer may have one more.
    fn handler(&self, peer: &PeerId, by: &Multiaddr) -> Result<Handler, ConnectionDenied> {
        let is_held = self.held.contains(peer);
        let count = self.connections.get(peer).map_or(0, Vec::len);
        if is_held && count >= self.per_peer_max {
            return Err(ConnectionDenied::new(TooMany(count)));
        }
        Ok(Handler { is_held: is_held && !is_relayed(by) })
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(&peer, local)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        match port {
            PortUse::Reuse => self.handler(&peer, address),
            PortUse::New => Ok(Handler { is_held: false }),
        }
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(event) if !is_dial_back(event.endpoint) => {
                let connection = Connection {
                    id: event.connection_id,
                    is_incoming: event.endpoint.is_listener(),
                    is_circuit: event.endpoint.is_relayed(),
                };
                self.connections.entry(event.peer_id).or_default().push(connection);
            }
            FromSwarm::ConnectionClosed(event) => {
                if let Some(connections) = self.connections.get_mut(&event.peer_id) {
                    connections.retain(|connection| connection.id != event.connection_id);
                    if connections.is_empty() {
                        self.connections.remove(&event.peer_id);
                    }
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The event loop polls after each command, so there is nobody to wake.
        let Some((peer_id, connection, event)) = self.untold.pop_front() else {
            return Poll::Pending;
        };
        let handler = NotifyHandler::One(connection);
        Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event })
    }
}

/// Whether a connection was made to see whether the peer is reached, which needs a port that nothing was sent from.
fn is_dial_back(endpoint: &ConnectedPoint) -> bool {
    matches!(endpoint, ConnectedPoint::Dialer { port_use: PortUse::New, .. })
}

/// Objects to the end of a connection that is held; speaks no protocol.
pub(super) struct Handler {
    is_held: bool,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = bool;
    type ToBehaviour = Infallible;
    type InboundProtocol = DeniedUpgrade;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(DeniedUpgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.is_held
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, is_held: Self::FromBehaviour) {
        self.is_held = is_held;
    }

    fn on_connection_event(
        &mut self,
        _: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol>,
    ) {
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{multiaddr::Protocol, swarm::behaviour::ConnectionEstablished};

    use super::*;

    fn connect(behaviour: &mut Behaviour, peer: PeerId, connection: usize) {
        let endpoint = ConnectedPoint::Listener {
            local_addr: Multiaddr::empty(),
            send_back_addr: Multiaddr::empty(),
        };
        establish(behaviour, peer, connection, endpoint);
    }

    fn establish(
        behaviour: &mut Behaviour,
        peer: PeerId,
        connection: usize,
        endpoint: ConnectedPoint,
    ) {
        behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: ConnectionId::new_unchecked(connection),
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
    }

    #[test]
    fn who_is_held_has_no_more_connections_than_it_may() {
        let (held, stranger) = (PeerId::random(), PeerId::random());
        let here = Multiaddr::empty();
        let mut behaviour = Behaviour::new(2);
        behaviour.hold(HashSet::from([held]));
        for connection in 0..2 {
            assert!(behaviour.handler(&held, &here).unwrap().connection_keep_alive());
            connect(&mut behaviour, held, connection);
            connect(&mut behaviour, stranger, 2 + connection);
        }
        assert!(behaviour.handler(&held, &here).is_err());
        // All of them have room beside that of strangers.
        assert_eq!(behaviour.count(), Count { incoming: 2, all: 2 });
        // One that is made to see whether it is reached ends by itself.
        let address = Multiaddr::empty();
        let mut dial = |port_use| {
            let connection = ConnectionId::new_unchecked(9);
            behaviour.handle_established_outbound_connection(
                connection,
                held,
                &address,
                Endpoint::Dialer,
                port_use,
            )
        };
        assert!(!dial(PortUse::New).unwrap().connection_keep_alive());
        assert!(dial(PortUse::Reuse).is_err());
        // How many a stranger has is bounded elsewhere.
        assert!(!behaviour.handler(&stranger, &here).unwrap().connection_keep_alive());
    }

    #[test]
    fn a_circuit_counts_and_is_not_held() {
        let held = PeerId::random();
        let circuit = Multiaddr::from(Protocol::P2pCircuit);
        let mut behaviour = Behaviour::new(2);
        behaviour.hold(HashSet::from([held]));
        assert!(!behaviour.handler(&held, &circuit).unwrap().connection_keep_alive());
        let endpoint = ConnectedPoint::Listener {
            local_addr: circuit.clone(),
            send_back_addr: Multiaddr::from(Protocol::P2p(held)),
        };
        for connection in 0..2 {
            establish(&mut behaviour, held, connection, endpoint.clone());
        }
        assert!(behaviour.handler(&held, &circuit).is_err());
        behaviour.hold(HashSet::new());
        assert!(behaviour.untold.is_empty());
    }

    #[test]
    fn connections_are_told_when_it_changes_whether_they_are_held() {
        let [a, b] = [(); 2].map(|()| PeerId::random());
        let mut behaviour = Behaviour::new(2);
        connect(&mut behaviour, a, 0);
        connect(&mut behaviour, b, 1);
        let dial_back = ConnectedPoint::Dialer {
            address: Multiaddr::empty(),
            role_override: Endpoint::Dialer,
            port_use: PortUse::New,
        };
        establish(&mut behaviour, a, 2, dial_back);
        behaviour.hold(HashSet::from([a]));
        behaviour.hold(HashSet::from([a]));
        behaviour.hold(HashSet::new());
        let connection = ConnectionId::new_unchecked(0);
        assert_eq!(behaviour.untold, [(a, connection, true), (a, connection, false)]);
    }
}

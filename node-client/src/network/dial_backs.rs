//! Dials peers back that want to know where they are reached, a few at a time.
//!
//! AutoNAT's answering side by itself would dial as often as it is asked to, and leave no room for the dials of our
//! own.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    autonat::v2::server,
    core::{transport::PortUse, Endpoint},
    multiaddr::Protocol,
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        ToSwarm,
    },
    Multiaddr, PeerId,
};

use super::{dials::Rules, hand_on::hand_on};

/// Dials for one peer at a time: its addresses of each transport.
const PER_PEER_MAX: usize = 4;

/// Dials at a time for all peers to whom no connection is kept, and connections that came of them and are not closed yet.
const STRANGERS_MAX: usize = 16;

pub(super) struct DialBacks {
    inner: server::Behaviour,
    held: HashSet<PeerId>,
    /// The dials under way, and for whom; of strangers the connections, too.
    dials: HashMap<ConnectionId, PeerId>,
    rules: Arc<Rules>,
}

impl DialBacks {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        let inner = server::Behaviour::default();
        Self { inner, held: HashSet::new(), dials: HashMap::new(), rules }
    }

    /// Lets these peers not wait for strangers.
    pub(super) fn hold(&mut self, peers: HashSet<PeerId>) {
        self.held = peers;
    }

    /// Whether one more dial for a peer may begin.
    fn has_room(&self, peer: &PeerId) -> bool {
        let count = |counts: &dyn Fn(&PeerId) -> bool| {
            self.dials.values().filter(|peer| counts(peer)).count()
        };
        count(&|other| other == peer) < PER_PEER_MAX
            && (self.held.contains(peer)
                || count(&|other| !self.held.contains(other)) < STRANGERS_MAX)
    }
}

impl NetworkBehaviour for DialBacks {
    type ConnectionHandler = THandler<server::Behaviour>;
    type ToSwarm = server::Event;

    /// Dials no names for others: what they stand for is known too late.
    fn handle_pending_outbound_connection(
        &mut self,
        connection: ConnectionId,
        _: Option<PeerId>,
        addresses: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        let is_ip = |address: &Multiaddr| {
            matches!(address.iter().next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_)))
        };
        if self.dials.contains_key(&connection) && !addresses.iter().all(is_ip) {
            return Err(ConnectionDenied::new(std::io::Error::other("a dial-back to a name")));
        }
        Ok(Vec::new())
    }

    hand_on!(inner);

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(event) if self.held.contains(&event.peer_id) => {
                self.dials.remove(&event.connection_id);
            }
            FromSwarm::ConnectionClosed(event) => {
                self.dials.remove(&event.connection_id);
            }
            FromSwarm::DialFailure(event) => {
                self.dials.remove(&event.connection_id);
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            let event = std::task::ready!(self.inner.poll(context));
            let ToSwarm::Dial { opts } = event else {
                return Poll::Ready(event);
            };
            let (peer_id, connection_id) = (opts.get_peer_id(), opts.connection_id());
            if let Some(peer) = peer_id.filter(|peer| self.has_room(peer)) {
                self.dials.insert(connection_id, peer);
                // Who asks says where it is.
                self.rules.told(connection_id);
                return Poll::Ready(ToSwarm::Dial { opts });
            }
            // Not that it was not reached: that would be final. Who is told of an error asks again.
            if let Some(peer) = peer_id {
                let (nowhere, port) = (Multiaddr::empty(), PortUse::New);
                let dialer = Endpoint::Dialer;
                drop(self.inner.handle_established_outbound_connection(
                    connection_id,
                    peer,
                    &nowhere,
                    dialer,
                    port,
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::{behaviour::DialFailure, DialError};

    use super::*;
    use crate::{clock::ManualClock, network::NetworkConfig};

    fn begin(dial_backs: &mut DialBacks, peer: PeerId) -> bool {
        let has_room = dial_backs.has_room(&peer);
        if has_room {
            let connection = ConnectionId::new_unchecked(dial_backs.dials.len());
            dial_backs.dials.insert(connection, peer);
        }
        has_room
    }

    #[test]
    fn strangers_leave_room_for_kept_peers() {
        let kept = PeerId::random();
        let rules = Rules::new(&NetworkConfig::default(), Arc::new(ManualClock::default()));
        let mut dial_backs = DialBacks::new(Arc::new(rules));
        dial_backs.hold(HashSet::from([kept]));
        let one = PeerId::random();
        let begun = (0..10).filter(|_| begin(&mut dial_backs, one)).count();
        assert_eq!(begun, PER_PEER_MAX);
        let begun = (0..100).filter(|_| begin(&mut dial_backs, PeerId::random())).count();
        assert_eq!(begun, STRANGERS_MAX - PER_PEER_MAX);
        let begun = (0..10).filter(|_| begin(&mut dial_backs, kept)).count();
        assert_eq!(begun, PER_PEER_MAX);
        let failure = DialFailure {
            peer_id: Some(one),
            error: &DialError::Aborted,
            connection_id: ConnectionId::new_unchecked(0),
        };
        dial_backs.on_swarm_event(FromSwarm::DialFailure(failure));
        assert!(dial_backs.has_room(&one));
        assert!(!dial_backs.has_room(&kept));
    }
}

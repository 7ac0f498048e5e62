//! Decides which strangers may connect: not all from one place, and not so many that nobody else can.
//!
//! Who connects is not known before it has said so: of connections that have only begun one network has a part, too.
//! Peers with a role are let in as far as the connections reach; the limits on those are `connection_limits`' own.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    core::{transport::PortUse, ConnectedPoint, Endpoint},
    swarm::{
        dummy, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
    Multiaddr, PeerId,
};

use super::{
    origin::{origin_address, Origin},
    rate::{Buckets, Limit},
    roles::{Role, Roles},
    NetworkConfig,
};
use crate::clock::Clock;

/// Incoming connections that have begun and are not made yet, and how many of them may come from one site.
pub(super) const PENDING_MAX: u32 = 64;
const PENDING_OF_SITE: usize = PENDING_MAX as usize / 4;

/// Why a stranger was not let in.
#[derive(Debug, thiserror::Error)]
#[error("too many strangers are connected, or from there")]
struct TooMany;

/// Counts the incoming connections of strangers.
pub(super) struct Gate {
    roles: Roles,
    clock: Arc<dyn Clock>,
    with_private: bool,
    /// Incoming connections of strangers at a time: of all, and of one origin.
    strangers_max: usize,
    per_origin_max: usize,
    /// New connections of the strangers of one origin.
    connects: Buckets<Origin>,
    /// Every incoming connection: as many as `connection_limits` lets in.
    incoming: HashMap<ConnectionId, (PeerId, Option<Origin>)>,
    /// The sites of those that have begun, where they have one: as many as `connection_limits` lets begin.
    pending: HashMap<ConnectionId, Origin>,
}

impl Gate {
    pub(super) fn new(config: &NetworkConfig, clock: Arc<dyn Clock>) -> Self {
        let incoming_max = config.connections_max as usize / 2;
        let per_minute = config.connects_per_minute_max;
        Self {
            roles: Roles::default(),
            clock,
            with_private: config.limit_private_networks,
            strangers_max: (incoming_max * 3 / 4).max(1),
            per_origin_max: (incoming_max / 4).max(1),
            connects: Buckets::new(Limit {
                burst: per_minute,
                fill: per_minute,
                per_millis: 60_000,
            }),
            incoming: HashMap::new(),
            pending: HashMap::new(),
        }
    }

    /// Replaces the roles. Who is connected stays so.
    pub(super) fn set_roles(&mut self, roles: Roles) {
        self.roles = roles;
    }

    fn admits(&mut self, peer: &PeerId, origin: Option<Origin>) -> bool {
        if self.roles.of(peer) != Role::Stranger {
            return true;
        }
        let is_stranger = |peer: &PeerId| self.roles.of(peer) == Role::Stranger;
        let strangers = self.incoming.values().filter(|(peer, _)| is_stranger(peer));
        let (mut all, mut near) = (0, 0);
        for (_, other) in strangers {
            all += 1;
            near += usize::from(*other == origin);
        }
        let Some(origin) = origin else {
            return all < self.strangers_max;
        };
        all < self.strangers_max
            && near < self.per_origin_max
            && self.connects.take(origin, self.clock.now_millis(), 1)
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        connection: ConnectionId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        let from = origin_address(local, remote);
        if let Some(site) = Origin::of(from, self.with_private).map(Origin::site) {
            let near = self.pending.values().filter(|other| **other == site).count();
            if near >= PENDING_OF_SITE {
                return Err(ConnectionDenied::new(TooMany));
            }
            self.pending.insert(connection, site);
        }
        Ok(())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.admits(&peer, Origin::of(origin_address(local, remote), self.with_private)) {
            return Err(ConnectionDenied::new(TooMany));
        }
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ListenFailure(failure) => {
                self.pending.remove(&failure.connection_id);
            }
            FromSwarm::ConnectionEstablished(established) => {
                self.pending.remove(&established.connection_id);
                if let ConnectedPoint::Listener { local_addr, send_back_addr } =
                    established.endpoint
                {
                    let from = origin_address(local_addr, send_back_addr);
                    let origin = Origin::of(from, self.with_private);
                    self.incoming.insert(established.connection_id, (established.peer_id, origin));
                }
            }
            FromSwarm::ConnectionClosed(closed) => {
                self.incoming.remove(&closed.connection_id);
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
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::{ListenError, ListenFailure};

    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn one_site_has_a_part_of_what_has_begun() {
        let config = NetworkConfig { limit_private_networks: false, ..NetworkConfig::default() };
        let mut gate = Gate::new(&config, Arc::new(ManualClock::default()));
        let local: Multiaddr = "/ip4/198.51.100.1/tcp/1".parse().unwrap();
        let mut next = 0;
        let mut begin = |gate: &mut Gate, from: &str| {
            next += 1;
            let connection = ConnectionId::new_unchecked(next);
            let remote = from.parse().unwrap();
            gate.handle_pending_inbound_connection(connection, &local, &remote)
                .is_ok()
                .then_some(connection)
        };
        let begun: Vec<_> = (1..100)
            .filter_map(|end| begin(&mut gate, &format!("/ip4/192.0.2.{end}/tcp/1")))
            .collect();
        assert_eq!(begun.len(), PENDING_OF_SITE);
        // A /48 is one site, whatever /64 it comes from.
        let in_48 = |end| format!("/ip6/2001:db8:1:{end}::1/tcp/1");
        let of_48 = (1..100).filter(|end| begin(&mut gate, &in_48(*end)).is_some());
        assert_eq!(of_48.count(), PENDING_OF_SITE);
        assert!(begin(&mut gate, "/ip4/192.0.3.1/tcp/1").is_some());
        assert!((0..100).all(|_| begin(&mut gate, "/ip4/10.0.0.1/tcp/1").is_some()));
        // What has failed makes room.
        let remote = "/ip4/192.0.2.1/tcp/1".parse().unwrap();
        gate.on_swarm_event(FromSwarm::ListenFailure(ListenFailure {
            local_addr: &local,
            send_back_addr: &remote,
            error: &ListenError::Aborted,
            connection_id: begun[0],
            peer_id: None,
        }));
        assert!(begin(&mut gate, "/ip4/192.0.2.1/tcp/1").is_some());
        assert!(begin(&mut gate, "/ip4/192.0.2.1/tcp/1").is_none());
    }

    #[test]
    fn strangers_of_all_origins_together_leave_room_for_the_known() {
        let config = NetworkConfig { connections_max: 32, ..NetworkConfig::default() };
        let mut gate = Gate::new(&config, Arc::new(ManualClock::default()));
        let validator = PeerId::random();
        gate.set_roles(Roles::new([(validator, Role::Validator)].into()));
        let mut next = 0;
        let mut enter = |gate: &mut Gate, peer: PeerId, origin| {
            let admitted = gate.admits(&peer, origin);
            if admitted {
                next += 1;
                gate.incoming.insert(ConnectionId::new_unchecked(next), (peer, origin));
            }
            admitted
        };
        let mut admitted = [0; 4];
        for (origin, count) in admitted.iter_mut().enumerate() {
            for _ in 0..16 {
                let origin = Some(Origin::V4([0, 0, origin as u8]));
                *count += u32::from(enter(&mut gate, PeerId::random(), origin));
            }
        }
        // Of the 16 incoming ones a quarter an origin, and three quarters in all.
        assert_eq!(admitted, [4, 4, 4, 0]);
        assert!(!enter(&mut gate, PeerId::random(), None));
        assert!(enter(&mut gate, validator, Some(Origin::V4([0, 0, 0]))));
        // Who becomes known leaves its place to the next.
        let known = gate.incoming.values().map(|(peer, _)| (*peer, Role::Joiner)).collect();
        gate.set_roles(Roles::new(known));
        assert!(enter(&mut gate, PeerId::random(), Some(Origin::V4([0, 0, 0]))));
    }
}

//! Decides which strangers may connect: not all from one place, and not so many that nobody else can.
//!
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
            FromSwarm::ConnectionEstablished(established) => {
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
    use super::*;
    use crate::clock::ManualClock;

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

//! Tells the rules for dials ([`Rules`]) which attempt to reach a peer begins, and who was met where.
//!
//! A swarm asks its behaviours about each attempt, and then dials its addresses before it does anything else.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    core::{transport::PortUse, Endpoint},
    swarm::{
        dummy, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
        THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
    Multiaddr, PeerId,
};

use super::{dials::Rules, roles::Roles};

pub(super) struct Attempts(Arc<Rules>);

impl Attempts {
    pub(super) fn new(rules: Arc<Rules>) -> Self {
        Self(rules)
    }

    /// Says that the addresses given with this attempt, which is the next to begin, are the peer's own word.
    pub(super) fn told(&self, attempt: ConnectionId) {
        self.0.told(attempt);
    }

    /// Replaces the roles.
    pub(super) fn set_roles(&self, roles: Roles) {
        self.0.set_roles(roles);
    }
}

impl NetworkBehaviour for Attempts {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_outbound_connection(
        &mut self,
        attempt: ConnectionId,
        _: Option<PeerId>,
        given: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        self.0.begin(attempt, given);
        Ok(Vec::new())
    }

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
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
            FromSwarm::ConnectionEstablished(event) if !event.endpoint.is_relayed() => {
                let at = event.endpoint.get_remote_address();
                self.0.on_connected(event.connection_id, event.peer_id, at);
            }
            FromSwarm::ConnectionClosed(event) => self.0.on_closed(event.connection_id),
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
    use libp2p::{multiaddr::Protocol, Swarm};
    use tokio::{sync::oneshot, time::Instant};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::network::{
        behaviour::Behaviour,
        codec::RangeRequest,
        dials::Said,
        kept::Kept,
        questions::{Question, Questions},
        swarms::listening,
        Keep, NetworkConfig, PeerAddress,
    };

    /// Who says that a peer is at an address, in the attempt that began last.
    fn said(swarm: &mut Swarm<Behaviour>, peer: &PeerAddress, address: usize) -> Option<Said> {
        let address = peer.addresses[address].clone().with(Protocol::P2p(peer.peer));
        swarm.behaviour_mut().attempts.0.said(&address)
    }

    #[tokio::test]
    async fn what_kept_peers_and_those_asked_say_is_their_own_word_and_what_kademlia_says_is_not() {
        let config = NetworkConfig::loopback();
        let mut swarm = listening(&config, 1).await;
        let peer = || PeerAddress {
            peer: PeerId::random(),
            addresses: [1, 2]
                .map(|port| {
                    Multiaddr::from_iter([
                        Protocol::Ip4([127, 0, 0, 1].into()),
                        Protocol::Tcp(port),
                    ])
                })
                .into(),
        };
        let both = |swarm: &mut _, peer: &_| [0, 1].map(|index| said(swarm, peer, index));
        let (own, anybodys) = (Some(Said::ByPeer), Some(Said::ByAnybody));

        let (all, now) = (peer(), Instant::now());
        let one = PeerAddress { addresses: all.addresses[..1].to_vec(), ..all };
        let mut kept = Kept::new(&config);
        let keep = Keep { dialled: vec![one], held: Vec::new() };
        kept.replace(keep, &PeerId::random(), now);
        kept.dial(&mut swarm, now);
        assert_eq!(both(&mut swarm, &all), [own, anybodys]);

        let asked = peer();
        let mut questions = Questions::new(config.redial_interval);
        let request = RangeRequest { id: [7; 32], piece: None, offset: 0, len: 1 };
        let (reply, _answer) = oneshot::channel();
        let question = Question::new(asked.clone(), request, CancellationToken::new(), reply);
        questions.ask(&mut swarm, question);
        assert_eq!(both(&mut swarm, &asked), [own, own]);

        let found = peer();
        for address in &found.addresses {
            swarm.behaviour_mut().kademlia.add_address(&found.peer, address.clone());
        }
        questions.dial(&mut swarm, PeerAddress { peer: found.peer, addresses: Vec::new() });
        assert_eq!(both(&mut swarm, &found), [anybodys, anybodys]);
    }
}

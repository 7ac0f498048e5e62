//! Finds a direct way between two peers that are connected over a relay (DCUtR), in bounds.
//!
//! The two tell each other over the circuit where others see them come from, and dial each other there at the same
//! time, so that the router of each takes the other's packets for answers. By itself libp2p's behaviour would tell what
//! any stranger claims to see, and dial as often as the other side asks.

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    dcutr,
    swarm::{
        behaviour::NewExternalAddrCandidate, ConnectionId, FromSwarm, NetworkBehaviour, THandler,
        THandlerInEvent, ToSwarm,
    },
    Multiaddr, PeerId,
};

use super::{dials::Rules, hand_on::hand_on, idle::Idle};

/// Dials of one circuit: an honest peer asks for three at most.
const DIALS_MAX: usize = 4;

/// What comes of it.
#[derive(Debug)]
pub(super) enum Event {
    /// How a way was found, or not.
    Ended(dcutr::Event),
    /// A peer has us dial on and on by this circuit, wherever it says: it is to be closed.
    Spent(PeerId, ConnectionId),
}

/// A circuit, and how often it had us dial.
struct Circuit {
    connection: ConnectionId,
    dials: usize,
}

pub(super) struct Punches {
    inner: dcutr::Behaviour,
    /// The open circuits with each peer.
    circuits: HashMap<PeerId, Vec<Circuit>>,
    rules: Arc<Rules>,
}

impl Punches {
    pub(super) fn new(local: PeerId, rules: Arc<Rules>) -> Self {
        Self { inner: dcutr::Behaviour::new(local), circuits: HashMap::new(), rules }
    }

    /// Notes where a trusted peer sees us come from.
    pub(super) fn on_observed(&mut self, address: &Multiaddr) {
        let candidate = NewExternalAddrCandidate { addr: address };
        self.inner.on_swarm_event(FromSwarm::NewExternalAddrCandidate(candidate));
    }

    /// Whether one more dial may be made that a peer asked for; if not, the circuits over which it could ask.
    fn take_dial(&mut self, peer: &PeerId) -> Result<(), Option<ConnectionId>> {
        let circuits = self.circuits.get_mut(peer).ok_or(None)?;
        match circuits.iter_mut().find(|circuit| circuit.dials < DIALS_MAX) {
            Some(circuit) => {
                circuit.dials += 1;
                Ok(())
            }
            None => Err(circuits.first().map(|circuit| circuit.connection)),
        }
    }
}

impl NetworkBehaviour for Punches {
    type ConnectionHandler = Idle<THandler<dcutr::Behaviour>>;
    type ToSwarm = Event;

    hand_on!(inner, Idle);

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match &event {
            FromSwarm::NewExternalAddrCandidate(_) => return,
            FromSwarm::ConnectionEstablished(event) if event.endpoint.is_relayed() => {
                let circuit = Circuit { connection: event.connection_id, dials: 0 };
                self.circuits.entry(event.peer_id).or_default().push(circuit);
            }
            FromSwarm::ConnectionClosed(event) if event.endpoint.is_relayed() => {
                if let Some(circuits) = self.circuits.get_mut(&event.peer_id) {
                    circuits.retain(|circuit| circuit.connection != event.connection_id);
                    if circuits.is_empty() {
                        self.circuits.remove(&event.peer_id);
                    }
                }
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
                return Poll::Ready(event.map_out(Event::Ended));
            };
            let Some(peer) = opts.get_peer_id() else { continue };
            match self.take_dial(&peer) {
                Ok(()) => {
                    // Who is at the other end of the circuit says where it is.
                    self.rules.told(opts.connection_id());
                    return Poll::Ready(ToSwarm::Dial { opts });
                }
                Err(Some(circuit)) => {
                    return Poll::Ready(ToSwarm::GenerateEvent(Event::Spent(peer, circuit)));
                }
                Err(None) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{
        core::ConnectedPoint,
        identify,
        multiaddr::Protocol,
        swarm::{behaviour::ConnectionEstablished, dial_opts::DialOpts, SwarmEvent},
    };

    use super::*;
    use crate::{
        clock::ManualClock,
        network::{
            behaviour::BehaviourEvent,
            swarms::{listening, next, over, reserve, set_roles},
            NetworkConfig, Role,
        },
    };

    #[test]
    fn who_has_us_dial_on_and_on_loses_its_circuit() {
        let peer = PeerId::random();
        let rules = Rules::new(&NetworkConfig::default(), Arc::new(ManualClock::default()));
        let mut punches = Punches::new(PeerId::random(), Arc::new(rules));
        assert_eq!(punches.take_dial(&peer), Err(None));
        let circuit = ConnectionId::new_unchecked(1);
        let endpoint = ConnectedPoint::Listener {
            local_addr: Multiaddr::from(Protocol::P2pCircuit),
            send_back_addr: Multiaddr::from(Protocol::P2p(peer)),
        };
        punches.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            peer_id: peer,
            connection_id: circuit,
            endpoint: &endpoint,
            failed_addresses: &[],
            other_established: 0,
        }));
        for _ in 0..DIALS_MAX {
            assert_eq!(punches.take_dial(&peer), Ok(()));
        }
        assert_eq!(punches.take_dial(&peer), Err(Some(circuit)));
    }

    /// The relay, the one behind it, and who wants to reach that.
    #[tokio::test]
    async fn a_relayed_peer_is_connected_to_directly_in_the_end() {
        let config = NetworkConfig::loopback();
        let mut swarms = [(); 3].map(|()| None);
        for swarm in &mut swarms {
            *swarm = Some(listening(&config, 0).await);
        }
        let [mut relay, mut miner, mut fetcher] = swarms.map(Option::unwrap);
        let [own, a, b] = [&relay, &miner, &fetcher].map(|swarm| *swarm.local_peer_id());
        set_roles(&mut relay, &[(own, Role::Validator), (a, Role::Joiner), (b, Role::Joiner)]);
        reserve(&mut miner, &relay);
        fetcher.dial(relay.listeners().next().unwrap().clone()).unwrap();
        let (mut is_reserved, mut is_known) = (false, [false; 3]);
        // Both know where the relay sees them.
        while !(is_reserved && is_known[1] && is_known[2]) {
            let (at, event) = next(&mut [&mut relay, &mut miner, &mut fetcher]).await;
            is_reserved |= at == 1 && matches!(event, SwarmEvent::ExternalAddrConfirmed { .. });
            is_known[at] |= matches!(
                event,
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { .. }))
            );
        }
        let options = DialOpts::peer_id(a).addresses(vec![over(&relay)]).build();
        fetcher.dial(options).unwrap();
        loop {
            let (at, event) = next(&mut [&mut relay, &mut miner, &mut fetcher]).await;
            match event {
                SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. }
                    if at == 2 && peer_id == a && !endpoint.is_relayed() =>
                {
                    return
                }
                SwarmEvent::Behaviour(BehaviourEvent::Punches(event)) => {
                    assert!(matches!(&event, Event::Ended(end) if end.result.is_ok()), "{event:?}");
                }
                _ => {}
            }
        }
    }
}

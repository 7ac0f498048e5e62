//! Relays between peers that cannot dial each other: a validator's side of it.
//!
//! Only peers that the chain announces get a reservation or a circuit. A reservation costs little and stays as long as
//! its connection and the role of who has it. A circuit is there to find a direct way (the two punch holes into their
//! routers' filters over it), and to carry a few ranges where there is none; what it carries is no part of the uplink's
//! fair shares, so it is bounded by itself: in bytes, in time, in number, and over all circuits in bytes per second.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    relay::{self, RateLimiter, Status},
    swarm::{
        behaviour::ExternalAddrConfirmed, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        ToSwarm,
    },
    Multiaddr, PeerId,
};

use super::{
    hand_on::hand_on,
    idle::Idle,
    paths::is_relayed,
    rate::{Bucket, Buckets, Limit},
    roles::{Role, Roles},
    NetworkConfig,
};
use crate::clock::Clock;

/// How long a circuit may last: longer than the attempts to find a direct way take.
const CIRCUIT_TIME_MAX: Duration = Duration::from_secs(120);

/// Circuits that one peer opens at once, and one more each ten seconds: as many as the miners that it fetches from in
/// a window. It counts what it asks for, though nothing is opened.
const CIRCUITS_OF_PEER: Limit = Limit { burst: 32, fill: 1, per_millis: 10_000 };

/// The circuits of one peer that may use up what is there for all; what it opens beyond leaves half of that to others.
/// By the defaults it takes fifteen peers to use up the rest for good, which fills by one circuit in four seconds.
const FIRST_CIRCUITS_OF_PEER: Limit = Limit { burst: 4, fill: 1, per_millis: 60_000 };

/// A reservation lasts for as long as its connection: ten years, in which no time-out races with a renewal.
const RESERVED: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Who may have what.
struct Rights {
    roles: Roles,
    circuit_bytes: u64,
    of_peer: Buckets<PeerId>,
    first_of_peer: Buckets<PeerId>,
    of_all: Bucket,
    of_all_limit: Limit,
}

impl Rights {
    fn new(config: &NetworkConfig) -> Self {
        let circuit_bytes = config.circuit_bytes_max;
        let burst = circuit_bytes.saturating_mul(config.circuits_max as u64);
        let fill = config.circuit_bytes_per_second;
        Self {
            roles: Roles::default(),
            circuit_bytes,
            of_peer: Buckets::new(CIRCUITS_OF_PEER),
            first_of_peer: Buckets::new(FIRST_CIRCUITS_OF_PEER),
            of_all: Bucket::default(),
            of_all_limit: Limit { burst, fill, per_millis: 1_000 },
        }
    }

    fn may_reserve(&self, peer: &PeerId) -> bool {
        self.roles.of(peer) != Role::Stranger
    }

    /// Whether a peer may ask for one more circuit now. It is charged for the question alone: whether anything is
    /// opened is not known yet.
    fn may_ask(&mut self, peer: PeerId, now_millis: u64) -> bool {
        if !self.may_reserve(&peer) || !self.of_peer.take(peer, now_millis, 1) {
            return false;
        }
        let left_to_others = match self.first_of_peer.has(&peer, now_millis, 1) {
            true => 0,
            false => self.of_all_limit.burst / 2,
        };
        let needed = self.circuit_bytes.saturating_add(left_to_others);
        self.of_all.wait_millis(now_millis, needed, &self.of_all_limit) == 0
    }

    /// Charges all for a circuit that was opened, as if it carried all that it may. Those that were asked for at the
    /// same time may be more than there was room for: what is owed is to be filled first.
    fn opened(&mut self, peer: PeerId, now_millis: u64) {
        self.first_of_peer.take(peer, now_millis, 1);
        self.of_all.owe(now_millis, self.circuit_bytes, &self.of_all_limit);
    }
}

/// The relay's side, which relays only while this peer is a validator.
pub(super) struct Relay {
    inner: relay::Behaviour,
    local: PeerId,
    // Shared with what the inner behaviour asks, on the same thread; held for a look.
    rights: Arc<Mutex<Rights>>,
    clock: Arc<dyn Clock>,
    /// Who has a reservation.
    reserved: HashSet<PeerId>,
}

impl Relay {
    /// Relays for nobody yet.
    pub(super) fn new(config: &NetworkConfig, local: PeerId, clock: Arc<dyn Clock>) -> Self {
        let rights = Arc::new(Mutex::new(Rights::new(config)));
        let of_reservation = rights.clone();
        let may_reserve = move |peer: PeerId, _: &Multiaddr, _| {
            of_reservation.lock().unwrap_or_else(PoisonError::into_inner).may_reserve(&peer)
        };
        let (of_circuit, time) = (rights.clone(), clock.clone());
        let may_ask = move |peer: PeerId, _: &Multiaddr, _| {
            let now = time.now_millis();
            of_circuit.lock().unwrap_or_else(PoisonError::into_inner).may_ask(peer, now)
        };
        let settings = relay::Config {
            // One a connection: of one that failed half-way the inner behaviour thinks that it is there.
            max_reservations: config
                .kept_max
                .saturating_mul(config.connections_per_peer_max as usize),
            max_reservations_per_peer: config.connections_per_peer_max as usize,
            // One more than these: the inner behaviour refuses who has more than it may, not who has as many.
            max_circuits_per_peer: config.circuits_per_peer_max.saturating_sub(1),
            reservation_duration: RESERVED,
            reservation_rate_limiters: limiters(may_reserve),
            max_circuits: config.circuits_max,
            max_circuit_duration: CIRCUIT_TIME_MAX,
            max_circuit_bytes: config.circuit_bytes_max,
            circuit_src_rate_limiters: limiters(may_ask),
        };
        let mut inner = relay::Behaviour::new(local, settings);
        inner.set_status(Some(Status::Disable));
        Self { inner, local, rights, clock, reserved: HashSet::new() }
    }

    /// Replaces the roles, and returns whose connections are to be closed, with which its reservation goes: who has no
    /// part in the run any more, and all when this peer is no validator any more.
    #[must_use]
    pub(super) fn set_roles(&mut self, roles: &Roles) -> Vec<PeerId> {
        let is_relay = roles.of(&self.local) == Role::Validator;
        self.inner.set_status(Some(if is_relay { Status::Enable } else { Status::Disable }));
        let mut rights = self.rights.lock().unwrap_or_else(PoisonError::into_inner);
        rights.roles = roles.clone();
        let without = |peer: &PeerId| !is_relay || !rights.may_reserve(peer);
        self.reserved.extract_if(without).collect()
    }

    fn note(&mut self, event: &relay::Event) {
        match event {
            relay::Event::ReservationReqAccepted { src_peer_id, .. } => {
                self.reserved.insert(*src_peer_id);
            }
            relay::Event::CircuitReqAccepted { src_peer_id, .. } => {
                let now = self.clock.now_millis();
                let mut rights = self.rights.lock().unwrap_or_else(PoisonError::into_inner);
                rights.opened(*src_peer_id, now);
            }
            _ => {}
        }
    }
}

fn limiters<F>(may: F) -> Vec<Box<dyn RateLimiter>>
where
    F: RateLimiter + 'static,
{
    vec![Box::new(may)]
}

impl NetworkBehaviour for Relay {
    type ConnectionHandler = Idle<THandler<relay::Behaviour>>;
    type ToSwarm = relay::Event;

    hand_on!(inner, Idle);

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match &event {
            // It would tell the handlers of relayed connections its status, and they take nothing.
            FromSwarm::ConnectionEstablished(event) if event.endpoint.is_relayed() => return,
            // It must tell an address to who has a reservation, which does not use it. Some are never confirmed.
            FromSwarm::NewListenAddr(new) if !is_relayed(new.addr) => {
                let confirmed = ExternalAddrConfirmed { addr: new.addr };
                self.inner.on_swarm_event(FromSwarm::ExternalAddrConfirmed(confirmed));
            }
            FromSwarm::ConnectionClosed(closed) if closed.remaining_established == 0 => {
                self.reserved.remove(&closed.peer_id);
            }
            _ => {}
        }
        self.inner.on_swarm_event(event);
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        let event = std::task::ready!(self.inner.poll(context));
        if let ToSwarm::GenerateEvent(event) = &event {
            self.note(event);
        }
        Poll::Ready(event)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{
        core::transport::ListenerId,
        relay::client,
        swarm::{
            dial_opts::{DialOpts, PeerCondition},
            SwarmEvent,
        },
        Swarm,
    };

    use super::*;
    use crate::network::{
        behaviour::{Behaviour, BehaviourEvent},
        swarms::{listening, next, over, reserve, set_roles},
    };

    fn is_granted(event: &SwarmEvent<BehaviourEvent>) -> bool {
        let of_relayed =
            |event: &client::Event| matches!(event, client::Event::ReservationReqAccepted { .. });
        matches!(event, SwarmEvent::Behaviour(BehaviourEvent::Relayed(event)) if of_relayed(event))
    }

    /// Whether a relay grants what is asked for.
    async fn is_reserved(
        relay: &mut Swarm<Behaviour>,
        asker: &mut Swarm<Behaviour>,
        asked: ListenerId,
    ) -> bool {
        loop {
            match next(&mut [&mut *relay, &mut *asker]).await {
                (1, event) if is_granted(&event) => return true,
                (1, SwarmEvent::ListenerClosed { listener_id, .. }) if listener_id == asked => {
                    return false
                }
                _ => {}
            }
        }
    }

    #[tokio::test]
    async fn only_validators_relay_and_only_to_who_is_announced() {
        let config = NetworkConfig::loopback();
        let mut relay = listening(&config, 1).await;
        let (mut miner, mut stranger) = (listening(&config, 1).await, listening(&config, 1).await);
        let [own, known] = [&relay, &miner].map(|swarm| *swarm.local_peer_id());
        // Nobody knows of any role; then it is a miner itself; then a validator that knows one miner.
        let as_miner = [(own, Role::Replica), (known, Role::Joiner)];
        for roles in [&[][..], &as_miner[..]] {
            set_roles(&mut relay, roles);
            let asked = reserve(&mut miner, &relay);
            assert!(!is_reserved(&mut relay, &mut miner, asked).await);
            let _ = miner.disconnect_peer_id(own);
        }
        set_roles(&mut relay, &[(own, Role::Validator), (known, Role::Joiner)]);
        let asked = reserve(&mut stranger, &relay);
        assert!(!is_reserved(&mut relay, &mut stranger, asked).await);
        let asked = reserve(&mut miner, &relay);
        assert!(is_reserved(&mut relay, &mut miner, asked).await);
        let is_circuit =
            |address: &Multiaddr| address.to_string().starts_with(&over(&relay).to_string());
        assert!(miner.external_addresses().any(is_circuit));
        // Whoever has left the run is let go.
        set_roles(&mut relay, &[(own, Role::Validator)]);
        loop {
            let (at, event) = next(&mut [&mut relay, &mut miner]).await;
            if at == 1 && matches!(event, SwarmEvent::ListenerClosed { .. }) {
                break;
            }
        }
    }

    /// Dials over a relay, beside the circuits that there are; whether it is connected.
    async fn is_relayed_to(swarms: &mut [&mut Swarm<Behaviour>; 3]) -> bool {
        let peer = *swarms[1].local_peer_id();
        let options = DialOpts::peer_id(peer)
            .condition(PeerCondition::Always)
            .addresses(vec![over(swarms[0])])
            .build();
        let dial = options.connection_id();
        swarms[2].dial(options).unwrap();
        loop {
            match next(swarms).await {
                (2, SwarmEvent::ConnectionEstablished { connection_id, .. })
                    if connection_id == dial =>
                {
                    return true
                }
                (2, SwarmEvent::OutgoingConnectionError { connection_id, .. })
                    if connection_id == dial =>
                {
                    return false
                }
                _ => {}
            }
        }
    }

    async fn relayed_to(config: &NetworkConfig) -> [Swarm<Behaviour>; 3] {
        let mut relay = listening(config, 1).await;
        let [mut miner, fetcher] = [listening(config, 1).await, listening(config, 1).await];
        let [own, a, b] = [&relay, &miner, &fetcher].map(|swarm| *swarm.local_peer_id());
        set_roles(&mut relay, &[(own, Role::Validator), (a, Role::Joiner), (b, Role::Joiner)]);
        let asked = reserve(&mut miner, &relay);
        assert!(is_reserved(&mut relay, &mut miner, asked).await);
        [relay, miner, fetcher]
    }

    #[tokio::test]
    async fn a_peer_has_so_many_circuits_and_a_stranger_none() {
        let config = NetworkConfig { circuits_per_peer_max: 2, ..NetworkConfig::loopback() };
        let [mut relay, mut miner, mut fetcher] = relayed_to(&config).await;
        let mut stranger = listening(&config, 1).await;
        assert!(!is_relayed_to(&mut [&mut relay, &mut miner, &mut stranger]).await);
        let mut opened = [false; 3];
        for opened in &mut opened {
            *opened = is_relayed_to(&mut [&mut relay, &mut miner, &mut fetcher]).await;
        }
        assert_eq!(opened, [true, true, false]);
    }

    #[tokio::test]
    async fn circuits_that_are_not_opened_take_none_from_others() {
        // Two circuits for all, and no more for a year.
        let config = NetworkConfig {
            circuits_max: 2,
            circuit_bytes_max: 1 << 20,
            circuit_bytes_per_second: 1,
            ..NetworkConfig::loopback()
        };
        let [mut relay, mut miner, mut fetcher] = relayed_to(&config).await;
        // Has a part in the run, and no reservation.
        let mut absent = listening(&config, 1).await;
        let roles = [&miner, &fetcher, &absent].map(|swarm| (*swarm.local_peer_id(), Role::Joiner));
        let own = (*relay.local_peer_id(), Role::Validator);
        set_roles(&mut relay, &[&roles[..], &[own]].concat());
        for _ in 0..3 {
            assert!(!is_relayed_to(&mut [&mut relay, &mut absent, &mut fetcher]).await);
        }
        assert!(is_relayed_to(&mut [&mut relay, &mut miner, &mut fetcher]).await);
    }

    #[test]
    fn circuits_are_opened_at_a_rate_by_each_and_by_all() {
        let mut rights = Rights::new(&NetworkConfig {
            circuits_max: 40,
            circuit_bytes_max: 1_000,
            circuit_bytes_per_second: 500,
            ..NetworkConfig::default()
        });
        let [a, b, c, stranger] = [(); 4].map(|()| PeerId::random());
        let known = [a, b, c].map(|peer| (peer, Role::Joiner));
        rights.roles = Roles::new(known.into());
        let mut open = |peer, now| {
            let mut opens = || {
                let may = rights.may_ask(peer, now);
                may.then(|| rights.opened(peer, now));
                may
            };
            (0..100).filter(|_| opens()).count()
        };
        assert_eq!(open(stranger, 0), 0);
        // One peer leaves half of all to others, and the others have their first ones of it.
        assert_eq!([open(a, 0), open(b, 0), open(c, 0)], [20, 4, 4]);
        assert_eq!([open(a, 10_000), open(b, 10_000)], [0, 0]);
        // All is full again, and it may ask for one in ten seconds.
        assert_eq!(open(c, 80_000), 8);
    }

    #[test]
    fn who_asks_at_the_same_time_owes_what_there_was_no_room_for() {
        let mut rights = Rights::new(&NetworkConfig {
            circuits_max: 2,
            circuit_bytes_max: 1_000,
            circuit_bytes_per_second: 500,
            ..NetworkConfig::default()
        });
        let peers = [(); 4].map(|()| PeerId::random());
        rights.roles = Roles::new(peers.map(|peer| (peer, Role::Joiner)).into());
        assert!(peers.iter().all(|peer| rights.may_ask(*peer, 0)));
        peers.iter().for_each(|peer| rights.opened(*peer, 0));
        // Two too many, and one more, at half a circuit a second.
        assert!(!rights.may_ask(peers[0], 5_999));
        assert!(rights.may_ask(peers[0], 6_000));
    }
}

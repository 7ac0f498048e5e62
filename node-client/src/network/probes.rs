//! Has others dial this peer back where it may be reached (AutoNAT v2, the asking side).
//!
//! By itself libp2p's behaviour would test whatever any peer claims to see, have any peer test it, and take the first
//! word of one for final. Here kept peers that are dialled (validators) are asked before others that the chain
//! announces; what strangers say does not count; and an address that nobody has reached is tested again, ever later, by
//! whom chance names among them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    autonat::v2::client,
    multiaddr::Protocol,
    swarm::{
        behaviour::NewExternalAddrCandidate, ConnectionId, FromSwarm, NetworkBehaviour,
        NotifyHandler, THandler, THandlerInEvent, ToSwarm,
    },
    Multiaddr, PeerId,
};
use rand::seq::SliceRandom;
use tokio::time::Instant;

use super::hand_on::hand_on;

/// Addresses that are tested in the life of a process: those of some moves, each of a few ports.
const TESTED_MAX: usize = 64;

/// Tests of one address: the last begins two hours after the first.
const ROUNDS_MAX: u32 = 8;

/// How long the first test may take before it counts as one that said nothing; each next waits twice as long.
const ROUND: Duration = Duration::from_secs(60);

/// The protocol of those who dial back.
const SERVER_PROTOCOL: &str = "/libp2p/autonat/2/dial-request";

/// How an address stands.
struct Tested {
    /// Tests begun.
    rounds: u32,
    /// When to test again; `None` once it is reached, or was tested often enough.
    due: Option<Instant>,
}

/// A connection that this peer has made.
struct Server {
    peer: PeerId,
    dials_back: bool,
}

/// Whose word counts, the better first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Trust {
    Dialled,
    Announced,
}

pub(super) struct Probes {
    inner: client::Behaviour,
    local: PeerId,
    /// At most [`TESTED_MAX`].
    tested: HashMap<Multiaddr, Tested>,
    servers: HashMap<ConnectionId, Server>,
    /// Until it is said whose word counts, everybody's does.
    trusted: Option<HashMap<PeerId, Trust>>,
    events: VecDeque<client::Event>,
}

impl Probes {
    pub(super) fn new(local: PeerId) -> Self {
        Self {
            inner: client::Behaviour::default(),
            local,
            tested: HashMap::new(),
            servers: HashMap::new(),
            trusted: None,
            events: VecDeque::new(),
        }
    }

    /// Says whose word counts from now on: those who are dialled before the others.
    pub(super) fn trust(
        &mut self,
        dialled: impl Iterator<Item = PeerId>,
        announced: &HashSet<PeerId>,
    ) {
        let announced = announced.iter().map(|peer| (*peer, Trust::Announced));
        self.trusted = Some(announced.chain(dialled.map(|peer| (peer, Trust::Dialled))).collect());
    }

    /// Notes which protocols the other end of a connection speaks.
    pub(super) fn on_protocols<'a>(
        &mut self,
        connection: ConnectionId,
        mut protocols: impl Iterator<Item = &'a str>,
    ) {
        if let Some(server) = self.servers.get_mut(&connection) {
            server.dials_back = protocols.any(|protocol| protocol == SERVER_PROTOCOL);
        }
    }

    /// Has an address tested soon, if that has not begun before.
    pub(super) fn begin(&mut self, address: &Multiaddr, now: Instant) {
        if self.tested.len() < TESTED_MAX && !self.tested.contains_key(address) {
            let due = Some(now + ROUND);
            self.tested.insert(address.clone(), Tested { rounds: 1, due });
            self.test(address);
        }
    }

    /// Tests again what is due.
    pub(super) fn again(&mut self, now: Instant) {
        let mut due = Vec::new();
        for (address, tested) in &mut self.tested {
            if tested.due.is_none_or(|due| due > now) {
                continue;
            }
            due.push(marked(address, tested.rounds, self.local));
            tested.rounds += 1;
            let is_last = tested.rounds >= ROUNDS_MAX;
            tested.due = (!is_last).then(|| now + ROUND * 2_u32.pow(tested.rounds - 1));
        }
        for address in due {
            self.test(&address);
        }
    }

    /// Whether an address has been tested or is about to be.
    #[cfg(test)]
    pub(super) fn has_begun(&self, address: &Multiaddr) -> bool {
        self.tested.contains_key(address)
    }

    fn test(&mut self, address: &Multiaddr) {
        let candidate = NewExternalAddrCandidate { addr: address };
        self.inner.on_swarm_event(FromSwarm::NewExternalAddrCandidate(candidate));
    }

    fn counts(&self, peer: &PeerId) -> bool {
        self.trusted.as_ref().is_none_or(|trusted| trusted.contains_key(peer))
    }

    /// Whom to ask instead of a peer that the inner behaviour chose among all; `None` if there is no better one.
    fn better(&self) -> Option<(ConnectionId, PeerId)> {
        let trusted = self.trusted.as_ref()?;
        let trust = |server: &Server| trusted.get(&server.peer).filter(|_| server.dials_back);
        let best = self.servers.values().filter_map(trust).min()?;
        let of_best = self.servers.iter().filter(|(_, server)| trust(server) == Some(best));
        let of_best: Vec<_> = of_best.collect();
        let (connection, server) = of_best.choose(&mut rand::thread_rng())?;
        Some((**connection, server.peer))
    }

    /// Takes what a test said: whether the address was reached, as far as it counts.
    fn on_result(&mut self, mut event: client::Event) -> Option<client::Event> {
        if !self.counts(&event.server) {
            return None;
        }
        event.tested_addr = unmarked(&event.tested_addr);
        if event.result.is_ok() {
            if let Some(tested) = self.tested.get_mut(&event.tested_addr) {
                tested.due = None;
            }
        }
        Some(event)
    }
}

/// An address under a name that the inner behaviour has not tested yet: it tests none twice. What dials it passes over
/// all but the last of the peer ids.
fn marked(address: &Multiaddr, rounds: u32, local: PeerId) -> Multiaddr {
    (0..rounds).fold(address.clone(), |address, _| address.with(Protocol::P2p(local)))
}

fn unmarked(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}

impl NetworkBehaviour for Probes {
    type ConnectionHandler = THandler<client::Behaviour>;
    type ToSwarm = client::Event;

    hand_on!(inner);

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match &event {
            FromSwarm::NewExternalAddrCandidate(_) => return,
            FromSwarm::ConnectionEstablished(event)
                if event.endpoint.is_dialer() && !event.endpoint.is_relayed() =>
            {
                let server = Server { peer: event.peer_id, dials_back: false };
                self.servers.insert(event.connection_id, server);
            }
            FromSwarm::ConnectionClosed(event) => {
                self.servers.remove(&event.connection_id);
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
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(ToSwarm::GenerateEvent(event));
            }
            match std::task::ready!(self.inner.poll(context)) {
                // It says so whoever reached it; the event that follows says who did.
                ToSwarm::ExternalAddrConfirmed(_) => {}
                ToSwarm::GenerateEvent(event) => {
                    let Some(event) = self.on_result(event) else { continue };
                    let reached = event.result.is_ok().then(|| event.tested_addr.clone());
                    self.events.push_back(event);
                    if let Some(address) = reached {
                        return Poll::Ready(ToSwarm::ExternalAddrConfirmed(address));
                    }
                }
                ToSwarm::NotifyHandler { peer_id, handler, event } => {
                    let (handler, peer_id) = match self.better() {
                        Some((connection, peer)) => (NotifyHandler::One(connection), peer),
                        None => (handler, peer_id),
                    };
                    return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event });
                }
                other => return Poll::Ready(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use libp2p::{swarm::SwarmEvent, Swarm};

    use super::*;
    use crate::network::{
        behaviour::{Behaviour, BehaviourEvent},
        swarms::{listening, next},
        NetworkConfig,
    };

    /// What the test of an address said, and who said it, among all that happens at a peer.
    fn outcome(event: SwarmEvent<BehaviourEvent>) -> Option<(Multiaddr, PeerId, bool)> {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Probes(event)) => {
                Some((event.tested_addr, event.server, event.result.is_ok()))
            }
            _ => None,
        }
    }

    /// Nobody listens at port 1.
    fn closed() -> Multiaddr {
        Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(1))
    }

    fn dial(swarm: &mut Swarm<Behaviour>, other: &Swarm<Behaviour>) {
        swarm.dial(other.listeners().next().unwrap().clone()).unwrap();
    }

    #[tokio::test]
    async fn another_peer_dials_back_and_says_whether_it_reached_us() {
        let config = NetworkConfig::loopback();
        let (mut other, mut own) = (listening(&config, 1).await, listening(&config, 1).await);
        dial(&mut own, &other);
        let listened = own.listeners().next().unwrap().clone();
        let local = *own.local_peer_id();
        let probes = &mut own.behaviour_mut().probes;
        for address in [&listened, &closed()] {
            probes.begin(address, Instant::now());
        }
        // As when it is tested once more.
        probes.test(&marked(&listened, 2, local));
        let mut outcomes = Vec::new();
        while outcomes.len() < 3 {
            if let (0, event) = next(&mut [&mut own, &mut other]).await {
                outcomes
                    .extend(outcome(event).map(|(address, _, is_reached)| (address, is_reached)));
            }
        }
        outcomes.sort();
        let listened_twice = [(listened.clone(), true), (listened.clone(), true)];
        let mut expected = [&listened_twice[..], &[(closed(), false)]].concat();
        expected.sort();
        assert_eq!(outcomes, expected);
        assert_eq!(own.external_addresses().collect::<Vec<_>>(), [&listened]);
        // What is reached is not tested again, and the other is.
        let tested = &own.behaviour().probes.tested;
        assert!(tested[&listened].due.is_none() && tested[&closed()].due.is_some());
    }

    #[tokio::test]
    async fn whose_word_counts_is_asked_and_asked_again() {
        let config = NetworkConfig::loopback();
        let mut own = listening(&config, 1).await;
        let (mut kept, mut stranger) = (listening(&config, 1).await, listening(&config, 1).await);
        dial(&mut own, &kept);
        dial(&mut own, &stranger);
        let name = *kept.local_peer_id();
        own.behaviour_mut().probes.trust([name].into_iter(), &HashSet::new());
        while own.behaviour().probes.servers.values().filter(|server| server.dials_back).count() < 2
        {
            next(&mut [&mut own, &mut kept, &mut stranger]).await;
        }
        let mut now = Instant::now();
        own.behaviour_mut().probes.begin(&closed(), now);
        for _ in 0..2 {
            loop {
                if let (0, event) = next(&mut [&mut own, &mut kept, &mut stranger]).await {
                    if let Some(outcome) = outcome(event) {
                        assert_eq!(outcome, (closed(), name, false));
                        break;
                    }
                }
            }
            now += ROUND * 2_u32.pow(ROUNDS_MAX);
            own.behaviour_mut().probes.again(now);
        }
    }

    #[test]
    fn an_address_is_tested_ever_later_and_not_for_ever() {
        let mut probes = Probes::new(PeerId::random());
        let begin = Instant::now();
        probes.begin(&closed(), begin);
        let mut at = Vec::new();
        for minute in 0..1_000 {
            let before = probes.tested[&closed()].rounds;
            probes.again(begin + minute * Duration::from_secs(60));
            if probes.tested[&closed()].rounds > before {
                at.push(minute);
            }
        }
        assert_eq!(at, [1, 3, 7, 15, 31, 63, 127]);
        let local = probes.local;
        assert_eq!(unmarked(&marked(&closed(), 3, local)), closed());
    }

    #[test]
    fn what_a_stranger_says_does_not_count() {
        let [kept, stranger] = [(); 2].map(|()| PeerId::random());
        let mut probes = Probes::new(PeerId::random());
        probes.begin(&closed(), Instant::now());
        let said =
            |server| client::Event { tested_addr: closed(), bytes_sent: 0, server, result: Ok(()) };
        assert!(probes.on_result(said(stranger)).is_some());
        probes.tested.clear();
        probes.begin(&closed(), Instant::now());
        probes.trust(std::iter::empty(), &HashSet::from([kept]));
        assert!(probes.on_result(said(stranger)).is_none());
        assert!(probes.tested[&closed()].due.is_some());
        assert!(probes.on_result(said(kept)).is_some());
        assert!(probes.tested[&closed()].due.is_none());
    }

    #[test]
    fn only_so_many_addresses_are_tested() {
        let mut probes = Probes::new(PeerId::random());
        for port in 1..1_000 {
            let address = Multiaddr::from(Ipv4Addr::LOCALHOST).with(Protocol::Tcp(port));
            probes.begin(&address, Instant::now());
        }
        assert_eq!(probes.tested.len(), TESTED_MAX);
    }
}

//! Decides what may be dialled: addresses come from announcements, from Kademlia, from circuits and from whoever
//! connects, and are anybody's text.
//!
//! **Private addresses** (this machine's, and of private networks) are dialled if the operator named one of their
//! kind, to listen on, as the own or as a bootstrap peer's; or if this peer listens there itself, as others on this
//! machine do. A name leads there only if the operator wrote it: who has others resolve a name of its own would reach
//! anything else. Nothing but unicast is ever dialled. An IPv6 address in which one of IPv4 is embedded is judged by
//! that.
//!
//! **Public addresses** may be a victim's, and whoever is made to dial it by many is a weapon; but a bound that all
//! share is one as well: it makes an honest peer undialable by lies about it. So each has bounds by who says where a
//! peer is:
//! - The operator says it: no bound.
//! - The peer itself says it: on chain, when we chose to dial it, or over a connection, when it asks for that. It takes
//!   part by the chain, or was met there. A bucket of this peer at this host: only its own words draw from it. Those
//!   who were not met at a host share one of it besides. Who would use that up registers a peer for each share: what
//!   comes back goes to whoever tries next, and how often one tries is bounded. Who was met draws nothing from it.
//! - Anybody says it of a peer that was met there: a bucket of this peer at this host, beside the one above.
//! - Anybody says it of whomever: a small bucket of the host, and so many at a time in all, so that the other dials
//!   have room. Five invented peers at an honest one's host use that up, and it is dialled all the same, as above.
//!
//! To be met at a host takes a connection with the peer's key from or to there; of those who take part it is
//! remembered. A host is an IPv4 address or a /64.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use libp2p::{
    core::transport::TransportEvent, multiaddr::Protocol, swarm::ConnectionId, Multiaddr, PeerId,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    rate::{Buckets, Limit},
    reach::{embedded, ip, scope, scope_of, Scope},
    roles::{Role, Roles},
    NetworkConfig, ADDRESSES_MAX,
};
use crate::clock::Clock;

/// Dials of one peer at one host where it says itself that it is: four addresses, as often as [`super::failing`] and
/// [`super::kept`] let each be dialled.
const TOLD: Limit = Limit { burst: 32, fill: 1, per_millis: 1_000 };

/// Dials at one host of all who say that they are there and were not met there: of all peers of a site that has one
/// address, and then two a second.
const UNMET: Limit = Limit { burst: 256, fill: 2, per_millis: 1_000 };

/// Dials of one peer where it was met, because anybody says that it is there.
const MET: Limit = Limit { burst: 16, fill: 1, per_millis: 4_000 };

/// Dials at one host because anybody says that somebody is there.
const UNKNOWN: Limit = Limit { burst: 32, fill: 1, per_millis: 10_000 };

/// Such dials at a time, at all hosts: half of the connections that are set up at a time.
const UNKNOWN_MAX: usize = 32;

/// Addresses of one attempt to reach a peer: its own, and as many of which others tell.
const ADDRESSES_OF_ATTEMPT_MAX: usize = 2 * ADDRESSES_MAX;

/// Peers remembered where they were met; of more the longest gone make room.
const MET_MAX: usize = 8_192;

/// Who says that a peer is where it is dialled.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(super) enum Said {
    /// The operator, of this peer.
    ByOperator,
    /// Anybody, but by a name that the operator says to be the own.
    OfOwnName,
    /// The peer itself.
    ByPeer,
    ByAnybody,
}

/// Lets one address be dialled; to be held while it is.
#[derive(Debug)]
pub(super) struct Pass {
    _one_of_few: Option<OwnedSemaphorePermit>,
}

impl Pass {
    const FREE: Self = Self { _one_of_few: None };
}

/// Somebody at a host.
type Place = (IpAddr, PeerId);

/// What may be dialled.
pub(super) struct Rules {
    /// Of the kinds that not everybody reaches, those that the operator named.
    named: Vec<Scope>,
    /// Whether the operator says that others than those on this machine reach it.
    is_reached: bool,
    /// Where the operator says that peers are.
    bootstrap: Vec<(PeerId, Multiaddr)>,
    /// Names that the operator says to be the own.
    names: Vec<String>,
    clock: Arc<dyn Clock>,
    unknown_at_once: Arc<Semaphore>,
    /// Held for a look or a change.
    state: Mutex<State>,
}

struct State {
    /// Where this peer listens: its interfaces bound it.
    own: Vec<Multiaddr>,
    roles: Roles,
    /// The attempt that is about to begin, if what is given with it is the peer's own word.
    told: Option<ConnectionId>,
    attempt: Attempt,
    /// With whom there is a direct connection, and where: the limits on connections bound it.
    here: HashMap<ConnectionId, Place>,
    /// Who was met where, and when last; at most [`MET_MAX`].
    met: HashMap<Place, u64>,
    by_peer: Buckets<Place>,
    unmet: Buckets<IpAddr>,
    of_met: Buckets<Place>,
    unknown: Buckets<IpAddr>,
}

/// The attempt to reach a peer whose addresses are dialled now.
#[derive(Default)]
struct Attempt {
    /// Addresses that are the peer's own word.
    told: Vec<Multiaddr>,
    /// How many more may be dialled.
    left: usize,
}

impl Rules {
    pub(super) fn new(config: &NetworkConfig, clock: Arc<dyn Clock>) -> Self {
        let peers = config.bootstrap.iter();
        let bootstrap: Vec<_> = peers
            .flat_map(|peer| peer.addresses.iter().map(|address| (peer.peer, bare(address).0)))
            .collect();
        let named = config.listen.iter().chain(&config.external);
        let named = named.chain(bootstrap.iter().map(|(_, address)| address));
        let named = match config.listen.is_empty() {
            // A tool's peer, which goes where it is told to, and not a participant's.
            true => vec![Scope::Site, Scope::Bridge, Scope::Machine],
            false => named.filter_map(scope).filter(|scope| *scope != Scope::World).collect(),
        };
        Self {
            named,
            is_reached: config.external.iter().any(|own| scope(own) != Some(Scope::Machine)),
            bootstrap,
            names: config.external.iter().filter_map(name).collect(),
            clock,
            unknown_at_once: Arc::new(Semaphore::new(UNKNOWN_MAX)),
            state: Mutex::new(State {
                own: Vec::new(),
                roles: Roles::default(),
                told: None,
                attempt: Attempt::default(),
                here: HashMap::new(),
                met: HashMap::new(),
                by_peer: Buckets::new(TOLD),
                unmet: Buckets::new(UNMET),
                of_met: Buckets::new(MET),
                unknown: Buckets::new(UNKNOWN),
            }),
        }
    }

    /// Replaces the roles.
    pub(super) fn set_roles(&self, roles: Roles) {
        self.state().roles = roles;
    }

    /// Says that the addresses given with this attempt, which is the next to begin, are the peer's own word.
    pub(super) fn told(&self, attempt: ConnectionId) {
        self.state().told = Some(attempt);
    }

    /// An attempt to reach a peer begins, with these addresses given; they and what else is known are asked for next,
    /// before any other attempt begins.
    pub(super) fn begin(&self, attempt: ConnectionId, given: &[Multiaddr]) {
        let mut state = self.state();
        let is_told = state.told.take() == Some(attempt);
        let told = if is_told { given } else { &[] };
        let told = told.iter().map(|address| bare(address).0).collect();
        state.attempt = Attempt { told, left: ADDRESSES_OF_ATTEMPT_MAX };
    }

    /// Who says that a peer is at an address of the attempt that has begun; `None` if that has too many addresses.
    pub(super) fn said(&self, address: &Multiaddr) -> Option<Said> {
        let (place, peer) = bare(address);
        let mut state = self.state();
        let attempt = &mut state.attempt;
        attempt.left = attempt.left.checked_sub(1)?;
        let is_at = |at: &(PeerId, Multiaddr)| Some(at.0) == peer && at.1 == place;
        Some(if self.bootstrap.iter().any(is_at) {
            Said::ByOperator
        } else if name(&place).is_some_and(|name| self.names.contains(&name)) {
            Said::OfOwnName
        } else if attempt.told.contains(&place) {
            Said::ByPeer
        } else {
            Said::ByAnybody
        })
    }

    /// Lets an address be dialled, in which names are resolved; `None` if it may not be, or not now.
    pub(super) fn pass(&self, address: &Multiaddr, said: Said) -> Option<Pass> {
        let ip = only_ip(address)?;
        let is_operators = matches!(said, Said::ByOperator | Said::OfOwnName);
        let mut state = self.state();
        match scope_of(ip)? {
            Scope::World if !is_global(ip) => None,
            Scope::World if said == Said::ByOperator => Some(Pass::FREE),
            Scope::World => self.take(&mut state, host(ip), bare(address).1, said),
            _ if is_operators => Some(Pass::FREE),
            scope => self.is_near(&state, scope, ip).then_some(Pass::FREE),
        }
    }

    /// Whether a private address is of a kind that the operator named, or where others on this machine are.
    fn is_near(&self, state: &State, scope: Scope, ip: IpAddr) -> bool {
        let names = |scope| self.named.contains(&scope);
        match scope {
            Scope::Machine => names(Scope::Machine) || (!self.is_reached && state.is_alone()),
            _ => names(Scope::Site) || names(Scope::Bridge) || state.listens_at(ip),
        }
    }

    /// Takes a dial at a public host from whoever has to pay for it.
    fn take(
        &self,
        state: &mut State,
        host: IpAddr,
        peer: Option<PeerId>,
        said: Said,
    ) -> Option<Pass> {
        let now = self.clock.now_millis();
        let place = peer.map(|peer| (host, peer));
        let met = place.filter(|place| state.has_met(place));
        let partakes = |place: &Place| state.roles.of(&place.1) != Role::Stranger;
        let told = place.filter(|place| said == Said::ByPeer && (met.is_some() || partakes(place)));
        if let Some(place) = told {
            let takes = state.by_peer.take(place, now, 1)
                && (met.is_some() || state.unmet.take(host, now, 1));
            return takes.then_some(Pass::FREE);
        }
        if let Some(place) = met {
            return state.of_met.take(place, now, 1).then_some(Pass::FREE);
        }
        let permit = self.unknown_at_once.clone().try_acquire_owned().ok()?;
        state.unknown.take(host, now, 1).then_some(Pass { _one_of_few: Some(permit) })
    }

    /// A dial has reached a peer at this address, in which names are resolved.
    pub(super) fn on_reached(&self, peer: PeerId, at: &Multiaddr) {
        if let Some(place) = public(peer, at) {
            let mut state = self.state();
            state.count_anew(place);
            state.remember(place, self.clock.now_millis());
        }
    }

    /// A peer is connected directly, from or to this address.
    pub(super) fn on_connected(&self, connection: ConnectionId, peer: PeerId, at: &Multiaddr) {
        if let Some(place) = public(peer, at) {
            let mut state = self.state();
            state.count_anew(place);
            state.here.insert(connection, place);
        }
    }

    /// A connection is over.
    pub(super) fn on_closed(&self, connection: ConnectionId) {
        let mut state = self.state();
        if let Some(place) = state.here.remove(&connection) {
            state.remember(place, self.clock.now_millis());
        }
    }

    /// Notes where this peer listens.
    pub(super) fn note<U, E>(&self, event: &TransportEvent<U, E>) {
        match event {
            TransportEvent::NewAddress { listen_addr, .. } => {
                self.state().own.push(listen_addr.clone());
            }
            TransportEvent::AddressExpired { listen_addr, .. } => {
                self.state().own.retain(|own| own != listen_addr);
            }
            _ => {}
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether nobody else can reach this machine, so that all peers are on it.
    fn is_alone(&self) -> bool {
        let is_machine = |own: &Multiaddr| scope(own) == Some(Scope::Machine);
        !self.own.is_empty() && self.own.iter().all(is_machine)
    }

    fn listens_at(&self, at: IpAddr) -> bool {
        self.own.iter().any(|own| ip(own) == Some(at))
    }

    fn has_met(&self, place: &Place) -> bool {
        self.met.contains_key(place) || self.here.values().any(|here| here == place)
    }

    /// Lets what was dialled there in vain count no more: a peer is there.
    fn count_anew(&mut self, place: Place) {
        self.by_peer.forget(&place);
        self.of_met.forget(&place);
        self.unmet.give_back(&place.0, ADDRESSES_MAX as u64);
        self.unknown.give_back(&place.0, ADDRESSES_MAX as u64);
    }

    /// Remembers where a peer was met that takes part by the chain: of others anybody has as many as it likes.
    fn remember(&mut self, place: Place, now: u64) {
        if self.roles.of(&place.1) == Role::Stranger {
            return;
        }
        if self.met.len() >= MET_MAX && !self.met.contains_key(&place) {
            let oldest = self.met.iter().min_by_key(|(_, at)| **at).map(|(place, _)| *place);
            oldest.and_then(|oldest| self.met.remove(&oldest));
        }
        self.met.insert(place, now);
    }
}

/// An address without the peer that is said to be there, and that peer.
fn bare(address: &Multiaddr) -> (Multiaddr, Option<PeerId>) {
    let mut place = address.clone();
    match place.pop() {
        Some(Protocol::P2p(peer)) => (place, Some(peer)),
        _ => (address.clone(), None),
    }
}

/// The name that an address begins with.
fn name(address: &Multiaddr) -> Option<String> {
    match address.iter().next()? {
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => {
            Some(name.into_owned())
        }
        _ => None,
    }
}

/// The IP of an address, which begins with it. Of two the transports would take one or the other.
fn only_ip(address: &Multiaddr) -> Option<IpAddr> {
    let is_ip = |part: &Protocol<'_>| matches!(part, Protocol::Ip4(_) | Protocol::Ip6(_));
    ip(address).filter(|_| address.iter().filter(is_ip).count() == 1)
}

/// A peer at the host of an address, if that is a public one.
fn public(peer: PeerId, at: &Multiaddr) -> Option<Place> {
    let ip = only_ip(at).filter(|ip| scope_of(*ip) == Some(Scope::World))?;
    Some((host(ip), peer))
}

/// What one party has of addresses: one of IPv4, a /64 of IPv6.
fn host(ip: IpAddr) -> IpAddr {
    match embedded(ip) {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip => ip,
    }
}

/// Whether an address that is neither private nor special otherwise is one that hosts have. The ranges for
/// documentation are routed nowhere, and do no harm.
fn is_global(ip: IpAddr) -> bool {
    match embedded(ip) {
        // "This network" (RFC 791), the future use of class E (RFC 1112), and what protocols and clouds have for
        // themselves (RFC 6890).
        IpAddr::V4(ip) => !matches!(Ipv4Addr::octets(&ip), [0 | 240.., ..] | [192, 0, 0, _]),
        // 2000::/3 is all that is given out (RFC 4291).
        IpAddr::V6(ip) => ip.segments()[0] & 0xE000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use libp2p::core::transport::ListenerId;

    use super::*;
    use crate::{clock::ManualClock, network::PeerAddress};

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    /// An address as it is dialled: with the peer that is said to be there.
    fn at(text: &str, peer: PeerId) -> Multiaddr {
        address(text).with(Protocol::P2p(peer))
    }

    fn rules(config: &NetworkConfig) -> (Rules, ManualClock) {
        let clock = ManualClock::new(0);
        (Rules::new(config, Arc::new(clock.clone())), clock)
    }

    /// Rules of a peer of the internet, and peers that take part by the chain.
    fn with_miners<const N: usize>() -> (Rules, ManualClock, [PeerId; N]) {
        let (rules, clock) = rules(&NetworkConfig::default());
        let miners = [(); N].map(|()| PeerId::random());
        rules.set_roles(Roles::new(miners.map(|miner| (miner, Role::Joiner)).into()));
        (rules, clock, miners)
    }

    /// How many of eight addresses at a host may be dialled, where a peer is said to be.
    fn dials(rules: &Rules, host: &str, peer: PeerId, said: Said) -> usize {
        let addresses = (1..=8).map(|port| at(&format!("{host}/tcp/{port}"), peer));
        addresses.filter(|address| rules.pass(address, said).is_some()).count()
    }

    fn listen(rules: &Rules, text: &str) {
        let listener_id = ListenerId::next();
        let event =
            TransportEvent::NewAddress::<(), ()> { listener_id, listen_addr: address(text) };
        rules.note(&event);
    }

    const SAID: [Said; 4] = [Said::ByOperator, Said::OfOwnName, Said::ByPeer, Said::ByAnybody];

    const HOST: &str = "/ip4/8.8.8.8";

    const NEVER: [&str; 13] = [
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/0.1.2.3/tcp/1",
        "/ip4/192.0.0.192/tcp/80",
        "/ip4/224.0.0.1/udp/1/quic-v1",
        "/ip4/255.255.255.255/tcp/1",
        "/ip4/169.254.169.254/tcp/80",
        "/ip6/64:ff9b::169.254.169.254/tcp/80",
        "/ip6/64:ff9b:1::1/tcp/1",
        "/ip6/fe80::1/tcp/1",
        "/ip6/ff02::1/tcp/1",
        // A transport could take either.
        "/ip4/8.8.8.8/ip4/127.0.0.1/tcp/80",
        "/ip4/127.0.0.1/tcp/80/ip4/8.8.8.8/tcp/1",
        "/memory/1",
    ];
    const MACHINE: [&str; 4] = [
        "/ip4/127.0.0.1/tcp/9944",
        "/ip6/::1/tcp/1",
        "/ip6/::ffff:127.0.0.1/tcp/1",
        "/ip6/64:ff9b::127.0.0.1/tcp/1",
    ];
    const SITE: [&str; 5] = [
        "/ip4/192.168.1.1/tcp/80",
        "/ip4/10.1.2.3/udp/1/quic-v1",
        "/ip4/172.17.0.1/tcp/1",
        "/ip6/fd00::1/tcp/1",
        "/ip6/64:ff9b::10.1.2.3/tcp/1",
    ];
    const WORLD: [&str; 3] =
        ["/ip4/8.8.8.8/tcp/1", "/ip6/2001:4860::1/tcp/1", "/ip6/64:ff9b::8.8.4.4/tcp/1"];

    #[test]
    fn private_addresses_are_dialled_if_the_operator_named_one() {
        let all = |config: &NetworkConfig, said| {
            let (rules, _) = rules(config);
            [&NEVER[..], &MACHINE, &SITE, &WORLD].map(|addresses| {
                let dialled = |text: &&&str| rules.pass(&address(text), said).is_some();
                addresses.iter().filter(dialled).count()
            })
        };
        let default = NetworkConfig::default();
        let own = vec![address("/ip4/10.0.0.7/tcp/1")];
        for said in [Said::ByPeer, Said::ByAnybody] {
            assert_eq!(all(&default, said), [0, 0, 0, 3]);
            assert_eq!(all(&NetworkConfig::loopback(), said), [0, 4, 0, 3]);
            let nowhere = NetworkConfig { listen: Vec::new(), ..default.clone() };
            assert_eq!(all(&nowhere, said), [0, 4, 5, 3]);
            let named = NetworkConfig { listen: own.clone(), ..default.clone() };
            assert_eq!(all(&named, said), [0, 0, 5, 3]);
            let bootstrap = vec![PeerAddress { peer: PeerId::random(), addresses: own.clone() }];
            assert_eq!(all(&NetworkConfig { bootstrap, ..default.clone() }, said), [0, 0, 5, 3]);
        }
        // To what the names stand for that the operator wrote.
        for said in [Said::ByOperator, Said::OfOwnName] {
            assert_eq!(all(&default, said), [0, 4, 5, 3]);
        }
    }

    #[test]
    fn whoever_is_on_this_machine_is_dialled_where_this_peer_listens() {
        let [home, gateway, machine] =
            ["/ip4/192.168.1.5/tcp/7", "/ip4/192.168.1.1/tcp/80", "/ip4/127.0.0.1/tcp/9"];
        let dials = |rules: &Rules| {
            [home, gateway, machine]
                .map(|text| rules.pass(&address(text), Said::ByAnybody).is_some())
        };
        let (reached, _) = rules(&NetworkConfig {
            external: vec![address("/dns/miner.example/tcp/1")],
            ..NetworkConfig::default()
        });
        listen(&reached, "/ip4/127.0.0.1/tcp/1");
        assert_eq!(dials(&reached), [false; 3]);
        let (rules, _) = rules(&NetworkConfig::default());
        listen(&rules, "/ip4/127.0.0.1/tcp/1");
        // There is nothing else.
        assert_eq!(dials(&rules), [false, false, true]);
        listen(&rules, "/ip4/192.168.1.5/udp/1/quic-v1");
        assert_eq!(dials(&rules), [true, false, false]);
        let listen_addr = address("/ip4/192.168.1.5/udp/1/quic-v1");
        let listener_id = ListenerId::next();
        rules.note(&TransportEvent::<(), ()>::AddressExpired { listener_id, listen_addr });
        assert_eq!(dials(&rules), [false, false, true]);
    }

    #[test]
    fn a_private_name_that_the_operator_wrote_is_followed_and_no_other() {
        let [validator, other] = [(); 2].map(|()| PeerId::random());
        let lan = "/dns/validator.lan/tcp/4001";
        let peer = PeerAddress { peer: validator, addresses: vec![address(lan)] };
        let (rules, _) = rules(&NetworkConfig {
            bootstrap: vec![peer],
            external: vec![address("/dns4/home.lan/tcp/1")],
            ..NetworkConfig::default()
        });
        let said = |text: &str, peer: PeerId| {
            rules.begin(ConnectionId::new_unchecked(1), &[address(text)]);
            rules.said(&at(text, peer)).unwrap()
        };
        assert_eq!(said(lan, validator), Said::ByOperator);
        assert_eq!(said("/dns/home.lan/tcp/2", other), Said::OfOwnName);
        for text in ["/dns/validator.lan/tcp/22", "/dns/evil.example/tcp/4001"] {
            assert_eq!(said(text, validator), Said::ByAnybody);
        }
        assert_eq!(said(lan, other), Said::ByAnybody);
        // What they stand for.
        let resolved = at("/ip4/192.168.1.9/tcp/4001", validator);
        let may = SAID.map(|said| rules.pass(&resolved, said).is_some());
        assert_eq!(may, [true, true, false, false]);
        let metadata = at("/ip4/169.254.169.254/tcp/80", validator);
        assert!(SAID.iter().all(|said| rules.pass(&metadata, *said).is_none()));
    }

    #[test]
    fn invented_peers_at_the_host_of_an_honest_one_do_not_make_it_undialable() {
        let (rules, clock, [honest]) = with_miners();
        let lies = (0..5).map(|_| dials(&rules, HOST, PeerId::random(), Said::ByAnybody));
        assert_eq!(lies.sum::<usize>(), UNKNOWN.burst as usize);
        // Whoever is invented, and whatever of the honest one.
        let own_word = dials(&rules, HOST, PeerId::random(), Said::ByPeer);
        assert_eq!((own_word, dials(&rules, HOST, honest, Said::ByAnybody)), (0, 0));
        assert_eq!(dials(&rules, HOST, honest, Said::ByPeer), 8);
        // Others at another host are nobody's concern.
        assert_eq!(dials(&rules, "/ip4/8.8.4.4", PeerId::random(), Said::ByAnybody), 8);
        // Where it was met it is dialled on anybody's word, and nobody's lies change that.
        rules.on_reached(honest, &at(&format!("{HOST}/udp/1/quic-v1"), honest));
        assert_eq!(dials(&rules, HOST, honest, Said::ByAnybody), 8);
        while dials(&rules, HOST, honest, Said::ByAnybody) > 0 {}
        assert_eq!(dials(&rules, HOST, honest, Said::ByPeer), 8);
        clock.advance(Duration::from_secs(60));
        while dials(&rules, HOST, PeerId::random(), Said::ByAnybody) > 0 {}
        assert_eq!(dials(&rules, HOST, honest, Said::ByPeer), 8);
    }

    #[test]
    fn a_victim_is_dialled_at_a_rate_by_whatever_port_and_transport() {
        let (rules, clock) = rules(&NetworkConfig::default());
        rules.set_roles(Roles::new([(PeerId::random(), Role::Validator)].into()));
        let victims = |of: &dyn Fn(u16) -> String| {
            let addresses = (1..1_000).map(|end| at(&of(end), PeerId::random()));
            addresses.filter(|address| rules.pass(address, Said::ByPeer).is_some()).count()
        };
        let by_tcp = |port| format!("{HOST}/tcp/{port}");
        assert_eq!(victims(&by_tcp), 32);
        assert_eq!(victims(&|port| format!("{HOST}/udp/{port}/quic-v1")), 0);
        assert_eq!(victims(&|port| format!("/ip6/64:ff9b::8.8.8.8/tcp/{port}")), 0);
        clock.advance(Duration::from_secs(60));
        assert_eq!(victims(&by_tcp), 6);
        assert_eq!(victims(&|end| format!("/ip6/2001:4860:1:2:{end:x}::1/tcp/1")), 32);
    }

    #[test]
    fn what_registered_peers_say_of_a_host_leaves_others_their_share() {
        let (rules, clock, miners) = with_miners::<21>();
        let [honest, liars @ ..] = miners;
        // One alone uses up what is its own.
        while dials(&rules, HOST, liars[0], Said::ByPeer) > 0 {}
        assert_eq!(dials(&rules, HOST, honest, Said::ByPeer), 8);
        // Twenty use up what all share who were not met there.
        for liar in liars {
            while dials(&rules, HOST, liar, Said::ByPeer) > 0 {}
        }
        assert_eq!(dials(&rules, HOST, honest, Said::ByPeer), 0);
        // Then each has a part of what comes back, though the others try each second and it once in sixteen.
        let mut reached = 0;
        for second in 1..=1_600_usize {
            clock.advance(Duration::from_secs(1));
            let mut turns = miners;
            turns.rotate_left(second % miners.len());
            for peer in turns {
                let is_due = peer != honest || second % 16 == 0;
                let text = format!("{HOST}/tcp/1");
                let may = is_due && rules.pass(&at(&text, peer), Said::ByPeer).is_some();
                reached += usize::from(may && peer == honest);
            }
        }
        assert!(reached >= 3, "{reached}");
        // Who was met there shares nothing with them.
        let connection = ConnectionId::new_unchecked(1);
        rules.on_connected(connection, honest, &address(&format!("{HOST}/tcp/9")));
        for liar in liars {
            while dials(&rules, HOST, liar, Said::ByPeer) > 0 {}
        }
        assert_eq!(dials(&rules, HOST, honest, Said::ByPeer), 8);
        rules.on_closed(connection);
        assert_eq!(dials(&rules, HOST, honest, Said::ByPeer), 8);
    }

    #[test]
    fn what_anybody_says_leaves_room_for_the_other_dials() {
        let (rules, _, [honest]) = with_miners();
        let somewhere = |index| at(&format!("/ip4/8.8.{index}.8/tcp/1"), PeerId::random());
        let said = |index| rules.pass(&somewhere(index), Said::ByAnybody);
        let mut passes: Vec<_> = (0..200).filter_map(said).collect();
        assert_eq!(passes.len(), UNKNOWN_MAX);
        assert_eq!(dials(&rules, HOST, honest, Said::ByPeer), 8);
        // One that has ended makes room.
        passes.pop();
        assert_eq!((0..200).filter_map(said).collect::<Vec<_>>().len(), 1);
    }

    #[test]
    fn only_what_is_given_with_an_attempt_is_the_peers_own_word() {
        let (rules, _, [honest]) = with_miners();
        let [own, other] = [1, 2].map(|port| format!("{HOST}/tcp/{port}"));
        let [ours, anybodys] = [1, 2].map(ConnectionId::new_unchecked);
        let said = |text: &str| rules.said(&at(text, honest));
        rules.told(ours);
        rules.begin(ours, &[address(&own)]);
        assert_eq!(said(&own), Some(Said::ByPeer));
        assert_eq!(said(&other), Some(Said::ByAnybody));
        rules.begin(anybodys, &[address(&own)]);
        assert_eq!(said(&own), Some(Said::ByAnybody));
        rules.told(ours);
        rules.begin(anybodys, &[address(&own)]);
        rules.begin(ours, &[address(&own)]);
        assert_eq!(said(&own), Some(Said::ByAnybody));
        // However many addresses others tell.
        let asked = (0..1_000).filter(|_| said(&other).is_some()).count();
        assert_eq!(asked, ADDRESSES_OF_ATTEMPT_MAX - 1);
        rules.begin(ours, &[]);
        assert!(said(&other).is_some());
    }

    #[test]
    fn not_more_than_so_many_are_remembered_where_they_were_met() {
        let (rules, clock) = rules(&NetworkConfig::default());
        let here = address(&format!("{HOST}/tcp/1"));
        let first = PeerId::random();
        rules.on_reached(first, &here);
        clock.advance(Duration::from_secs(1));
        for _ in 0..MET_MAX {
            rules.on_reached(PeerId::random(), &here);
        }
        let state = rules.state();
        assert_eq!(state.met.len(), MET_MAX);
        assert!(!state.has_met(&public(first, &here).unwrap()));
    }
}

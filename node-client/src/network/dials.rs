//! Bounds what others make this peer dial: addresses come from announcements, from Kademlia and from whoever connects,
//! and are anybody's text.
//!
//! An address of this machine or of a private network is dialled if the operator named one of its kind to listen on, as
//! the own or as a bootstrap peer's; or if it is where this peer listens itself, as others on this machine do. No other
//! than unicast ever is. To one public address so many dials in vain are
//! made at a rate, whoever is said to be there: many announcements of one victim's address make everybody dial it now
//! and then, and no more. What answers as a peer does is no victim, and counts anew.
//!
//! It wraps the transports, so that it sees what names are resolved to, and whoever dials.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::{future::BoxFuture, FutureExt};
use libp2p::{
    core::transport::{self, ListenerId, TransportError, TransportEvent},
    Multiaddr, Transport,
};

use super::{
    rate::{Buckets, Limit},
    reach::{ip, scope, Scope},
    NetworkConfig,
};
use crate::clock::Clock;

/// Dials in vain to one IP address, or to a /64 of IPv6: as many as some peers of one host have addresses, and then one
/// in ten seconds.
const IN_VAIN: Limit = Limit { burst: 32, fill: 1, per_millis: 10_000 };

/// What may be dialled.
pub(super) struct Rules {
    /// Of the kinds that not everybody reaches, those that the operator named.
    named: Vec<Scope>,
    clock: Arc<dyn Clock>,
    /// Where this peer listens: its interfaces bound it. Held for a look or a change, as what follows.
    own: Mutex<Vec<Multiaddr>>,
    in_vain: Mutex<Buckets<IpAddr>>,
}

impl Rules {
    pub(super) fn new(config: &NetworkConfig, clock: Arc<dyn Clock>) -> Self {
        let bootstrap = config.bootstrap.iter().flat_map(|peer| &peer.addresses);
        let named = config.listen.iter().chain(&config.external).chain(bootstrap);
        let named = match config.listen.is_empty() {
            // A tool's peer, which goes where it is told to, and not a participant's.
            true => vec![Scope::Site, Scope::Bridge, Scope::Machine],
            false => named.filter_map(scope).filter(|scope| *scope != Scope::World).collect(),
        };
        let in_vain = Mutex::new(Buckets::new(IN_VAIN));
        Self { named, clock, own: Mutex::default(), in_vain }
    }

    /// Whether an address may be dialled now; if so it counts as in vain until [`Self::reached`].
    fn take(&self, address: &Multiaddr) -> bool {
        let Some(ip) = ip(address) else {
            // A transport that knows no IP.
            return true;
        };
        let is_own = |own: &Multiaddr| self::ip(own) == Some(ip);
        match scope(address) {
            Some(Scope::World) => {
                is_global(ip) && self.in_vain().take(host(ip), self.clock.now_millis(), 1)
            }
            Some(Scope::Site | Scope::Bridge) => {
                self.named.contains(&Scope::Site)
                    || self.named.contains(&Scope::Bridge)
                    || self.own().iter().any(is_own)
            }
            Some(Scope::Machine) => self.named.contains(&Scope::Machine) || self.is_alone(),
            None => false,
        }
    }

    /// Whether nobody else can reach this machine, so that all peers are on it.
    fn is_alone(&self) -> bool {
        let own = self.own();
        !own.is_empty() && own.iter().all(|own| scope(own) == Some(Scope::Machine))
    }

    /// Notes where this peer listens.
    fn note<U, E>(&self, event: &TransportEvent<U, E>) {
        match event {
            TransportEvent::NewAddress { listen_addr, .. } => self.own().push(listen_addr.clone()),
            TransportEvent::AddressExpired { listen_addr, .. } => {
                self.own().retain(|own| own != listen_addr);
            }
            _ => {}
        }
    }

    /// Notes that a peer is where it was dialled.
    fn reached(&self, address: &Multiaddr) {
        if let Some(ip) = ip(address) {
            self.in_vain().forget(&host(ip));
        }
    }

    fn own(&self) -> MutexGuard<'_, Vec<Multiaddr>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_vain(&self) -> MutexGuard<'_, Buckets<IpAddr>> {
        self.in_vain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one party has of addresses: one of IPv4, a /64 of IPv6.
fn host(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        ip => ip,
    }
}

/// Whether an address that is neither private nor special otherwise is one that hosts have. The ranges for
/// documentation are routed nowhere, and do no harm.
fn is_global(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        // "This network" (RFC 791) and the future use of class E (RFC 1112).
        IpAddr::V4(ip) => !matches!(Ipv4Addr::octets(&ip)[0], 0 | 240..),
        // 2000::/3 is all that is given out (RFC 4291).
        IpAddr::V6(ip) => ip.segments()[0] & 0xE000 == 0x2000,
    }
}

/// A transport that dials by the rules.
pub(super) struct Dials<T> {
    inner: T,
    rules: Arc<Rules>,
}

impl<T> Dials<T> {
    pub(super) fn new(inner: T, rules: Rules) -> Self {
        Self { inner, rules: Arc::new(rules) }
    }
}

impl<T> Transport for Dials<T>
where
    T: Transport + Unpin,
    T::Output: 'static,
    T::Dial: Send + 'static,
    T::Error: 'static,
{
    type Output = T::Output;
    type Error = T::Error;
    type ListenerUpgrade = T::ListenerUpgrade;
    type Dial = BoxFuture<'static, Result<T::Output, T::Error>>;

    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<Self::Error>> {
        self.inner.listen_on(id, address)
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.inner.remove_listener(id)
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        options: transport::DialOpts,
    ) -> Result<Self::Dial, TransportError<Self::Error>> {
        if !self.rules.take(&address) {
            tracing::debug!(%address, "not dialled: private, or too often in vain");
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        let dial = self.inner.dial(address.clone(), options)?;
        let rules = self.rules.clone();
        Ok(dial
            .inspect(move |dialled| {
                if dialled.is_ok() {
                    rules.reached(&address);
                }
            })
            .boxed())
    }

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, Self::Error>> {
        let event = std::task::ready!(Pin::new(&mut self.inner).poll(context));
        self.rules.note(&event);
        Poll::Ready(event)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use libp2p::{
        core::{transport::PortUse, Endpoint},
        PeerId,
    };

    use super::*;
    use crate::{clock::ManualClock, network::PeerAddress};

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    fn rules(config: &NetworkConfig, clock: &ManualClock) -> Rules {
        Rules::new(config, Arc::new(clock.clone()))
    }

    const NEVER: [&str; 7] = [
        "/ip4/0.0.0.0/tcp/1",
        "/ip4/0.1.2.3/tcp/1",
        "/ip4/224.0.0.1/udp/1/quic-v1",
        "/ip4/255.255.255.255/tcp/1",
        "/ip4/169.254.169.254/tcp/80",
        "/ip6/fe80::1/tcp/1",
        "/ip6/ff02::1/tcp/1",
    ];
    const MACHINE: [&str; 3] =
        ["/ip4/127.0.0.1/tcp/9944", "/ip6/::1/tcp/1", "/ip6/::ffff:127.0.0.1/tcp/1"];
    const SITE: [&str; 4] = [
        "/ip4/192.168.1.1/tcp/80",
        "/ip4/10.1.2.3/udp/1/quic-v1",
        "/ip4/172.17.0.1/tcp/1",
        "/ip6/fd00::1/tcp/1",
    ];
    const WORLD: [&str; 3] = ["/ip4/8.8.8.8/tcp/1", "/ip6/2001:4860::1/tcp/1", "/memory/1"];

    #[test]
    fn private_addresses_are_dialled_if_the_operator_named_one() {
        let clock = ManualClock::new(0);
        let count = |rules: &Rules, addresses: &[&str]| {
            addresses.iter().filter(|text| rules.take(&address(text))).count()
        };
        let all = |config: &NetworkConfig| {
            let rules = rules(config, &clock);
            [&NEVER[..], &MACHINE, &SITE, &WORLD].map(|addresses| count(&rules, addresses))
        };
        let default = NetworkConfig::default();
        assert_eq!(all(&default), [0, 0, 0, 3]);
        assert_eq!(all(&NetworkConfig::loopback()), [0, 3, 0, 3]);
        let nowhere = NetworkConfig { listen: Vec::new(), ..default.clone() };
        assert_eq!(all(&nowhere), [0, 3, 4, 3]);
        let own = vec![address("/ip4/10.0.0.7/tcp/1")];
        let named = NetworkConfig { listen: own.clone(), ..default.clone() };
        assert_eq!(all(&named), [0, 0, 4, 3]);
        let bootstrap = vec![PeerAddress { peer: PeerId::random(), addresses: own }];
        assert_eq!(all(&NetworkConfig { bootstrap, ..default }), [0, 0, 4, 3]);
    }

    #[test]
    fn one_host_is_dialled_in_vain_at_a_rate_by_whatever_port_and_transport() {
        let clock = ManualClock::new(0);
        let rules = rules(&NetworkConfig::default(), &clock);
        let victim = |port| address(&format!("/ip4/8.8.8.8/tcp/{port}"));
        let dials = |rules: &Rules| (1..1_000).filter(|port| rules.take(&victim(*port))).count();
        assert_eq!(dials(&rules), 32);
        assert!(!rules.take(&address("/ip4/8.8.8.8/udp/1/quic-v1")));
        assert!(rules.take(&address("/ip4/8.8.4.4/tcp/1")));
        clock.advance(Duration::from_secs(60));
        assert_eq!(dials(&rules), 6);
        // Somebody is there after all.
        rules.reached(&victim(7));
        assert_eq!(dials(&rules), 32);
        let near = |end| address(&format!("/ip6/2001:4860:1:2:{end}::1/tcp/1"));
        assert_eq!((1..100).filter(|end| rules.take(&near(*end))).count(), 32);
    }

    #[test]
    fn whoever_is_on_this_machine_is_dialled_where_this_peer_listens() {
        let rules = rules(&NetworkConfig::default(), &ManualClock::new(0));
        let listen = |text: &str| {
            let event: TransportEvent<(), ()> = TransportEvent::NewAddress {
                listener_id: ListenerId::next(),
                listen_addr: address(text),
            };
            rules.note(&event);
        };
        let [home, gateway, machine] =
            ["/ip4/192.168.1.5/tcp/7", "/ip4/192.168.1.1/tcp/80", "/ip4/127.0.0.1/tcp/9"]
                .map(address);
        listen("/ip4/127.0.0.1/tcp/1");
        // There is nothing else.
        assert!(rules.take(&machine) && !rules.take(&home));
        listen("/ip4/192.168.1.5/udp/1/quic-v1");
        assert!(!rules.take(&machine) && rules.take(&home) && !rules.take(&gateway));
        let listen_addr = address("/ip4/192.168.1.5/udp/1/quic-v1");
        let listener_id = ListenerId::next();
        rules.note(&TransportEvent::<(), ()>::AddressExpired { listener_id, listen_addr });
        assert!(rules.take(&machine) && !rules.take(&home));
    }

    #[tokio::test]
    async fn an_announced_address_of_this_machine_is_not_dialled_by_a_peer_of_the_internet() {
        // Stands for what else listens here, as a node's or a database's port does.
        let victim = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = victim.local_addr().unwrap().port();
        let dial = |config: &NetworkConfig| {
            let tcp = libp2p::tcp::tokio::Transport::default();
            let options = transport::DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
            let mut dials = Dials::new(tcp, rules(config, &ManualClock::new(0)));
            dials.dial(address(&format!("/ip4/127.0.0.1/tcp/{port}")), options)
        };
        let refused = dial(&NetworkConfig::default());
        assert!(matches!(refused, Err(TransportError::MultiaddrNotSupported(_))));
        let dialled = dial(&NetworkConfig::loopback()).unwrap();
        let (dialled, accepted) = futures::join!(dialled, victim.accept());
        assert!(dialled.is_ok() && accepted.is_ok());
    }
}

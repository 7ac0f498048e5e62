//! Finds out at which addresses others reach this peer, and which of them to announce.
//!
//! Validators to whom a connection is kept say from which IP they see us come; each is asked by AutoNAT v2 to dial us
//! there, at the ports that we listen on (`probes`). What one of them reaches is confirmed for as long as the process
//! lives, and the next one begins with it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use libp2p::{multiaddr::Protocol, Multiaddr};

/// Where a peer that sees us come from `observed` may reach us: there, at the ports of the listeners, and at the public
/// addresses of this machine.
pub(super) fn candidates<'a>(
    observed: &Multiaddr,
    listeners: impl Iterator<Item = &'a Multiaddr>,
) -> BTreeSet<Multiaddr> {
    let seen = ip(observed);
    let at = |listener: &Multiaddr| {
        let seen =
            seen.filter(|seen| ip(listener).is_some_and(|own| own.is_ipv4() == seen.is_ipv4()))?;
        Some(std::iter::once(Protocol::from(seen)).chain(listener.iter().skip(1)).collect())
    };
    let own = |listener: &Multiaddr| scope(listener) == Some(Scope::World);
    listeners
        .flat_map(|listener| [at(listener), Some(listener.clone()).filter(own)])
        .flatten()
        .collect()
}

/// What is known of the own addresses.
#[derive(Default)]
pub(super) struct Known {
    /// Given by the operator as what others reach.
    pub(super) external: Vec<Multiaddr>,
    /// Given by the operator to listen on.
    pub(super) listen: Vec<Multiaddr>,
    /// Listened on, with their ports.
    pub(super) listeners: Vec<Multiaddr>,
    /// Reached by another peer.
    pub(super) confirmed: Vec<Multiaddr>,
    /// Reached before this process began.
    pub(super) remembered: Vec<Multiaddr>,
    /// Tried in vain by another peer.
    pub(super) refuted: BTreeSet<Multiaddr>,
    /// Relayed to by a validator.
    pub(super) circuits: Vec<Multiaddr>,
}

/// What can be dialled without a relay.
#[derive(Default)]
struct Direct {
    addresses: Vec<Multiaddr>,
    /// Whether it is known that they can.
    is_sure: bool,
}

impl Known {
    /// The addresses to announce, in their order, each once.
    ///
    /// What is given as external and nothing else, if there is any. Otherwise what is confirmed, and loopback addresses
    /// that the operator listens on by their IP; beside these what is not tested yet: public addresses of this machine,
    /// and as long as nobody has tested anything the others. Of all these those that reach furthest, and of them the
    /// confirmed alone if any is. Where none is, what validators relay to comes first.
    pub(super) fn announced(self) -> Vec<Multiaddr> {
        let direct = self.direct();
        if direct.is_sure {
            return direct.addresses;
        }
        sorted(self.circuits).into_iter().chain(direct.addresses).collect()
    }

    /// Whether somebody should relay to this peer: others tried to dial it and could not, or there is nothing to dial.
    pub(super) fn needs_relay(&self) -> bool {
        let direct = self.direct();
        !direct.is_sure && (direct.addresses.is_empty() || self.is_tested())
    }

    fn is_tested(&self) -> bool {
        !self.refuted.is_empty() || self.reached().any(is_wide)
    }

    /// What is confirmed, and what was before and is listened on as then, until somebody tries in vain.
    fn reached(&self) -> impl Iterator<Item = &Multiaddr> {
        let is_as_then = move |address: &&Multiaddr| {
            let end = |address: &Multiaddr| address.iter().skip(1).collect::<Multiaddr>();
            !self.refuted.contains(*address)
                && self.listeners.iter().any(|listener| end(listener) == end(address))
        };
        self.confirmed.iter().chain(self.remembered.iter().filter(is_as_then))
    }

    /// What the next process is to begin with.
    pub(super) fn to_remember(&self) -> Vec<Multiaddr> {
        sorted(self.confirmed.iter().filter(|address| is_wide(address)).cloned().collect())
    }

    fn direct(&self) -> Direct {
        if !self.external.is_empty() {
            return Direct { addresses: sorted(self.external.clone()), is_sure: true };
        }
        let is_named = |listener: &Multiaddr| {
            let own = ip(listener);
            self.listen.iter().any(|given| ip(given) == own)
        };
        let is_tested = self.is_tested();
        let is_open = |scope, address: &Multiaddr| {
            !is_tested || (scope == Scope::World && !self.refuted.contains(address))
        };
        let confirmed = self.reached().map(|address| (address, true));
        let listeners = self
            .listeners
            .iter()
            .map(|address| (address, scope(address) == Some(Scope::Machine) && is_named(address)));
        let found: Vec<_> = confirmed
            .chain(listeners)
            .filter_map(|(address, is_sure)| Some((scope(address)?, is_sure, address)))
            .filter(|(scope, is_sure, address)| *is_sure || is_open(*scope, address))
            .collect();
        let Some(widest) = found.iter().map(|(scope, ..)| *scope).min() else {
            return Direct::default();
        };
        let is_sure = found.iter().any(|(scope, is_sure, _)| *scope == widest && *is_sure);
        let best = found.iter().filter(|found| found.0 == widest && found.1 == is_sure);
        let addresses = sorted(best.map(|(.., address)| (*address).clone()).collect());
        Direct { addresses, is_sure }
    }
}

/// Whether others than those on this machine reach an address; who reaches us from here says nothing about them.
fn is_wide(address: &Multiaddr) -> bool {
    scope(address).is_some_and(|scope| scope <= Scope::Site)
}

fn sorted(mut addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    addresses.sort();
    addresses.dedup();
    addresses
}

/// From where an address is reached, the furthest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Scope {
    World,
    /// The networks of RFC 1918, RFC 6598 and RFC 4193.
    Site,
    /// The machine's end of a container bridge, by the address that it has by default.
    Bridge,
    Machine,
}

/// `None` if nobody can dial it without knowing more.
pub(super) fn scope(address: &Multiaddr) -> Option<Scope> {
    match ip(address) {
        Some(ip) => scope_of(ip),
        // A name.
        None => Some(Scope::World),
    }
}

pub(super) fn scope_of(ip: IpAddr) -> Option<Scope> {
    match embedded(ip) {
        IpAddr::V4(ip) => scope_v4(ip),
        IpAddr::V6(ip) => scope_v6(ip),
    }
}

/// The IPv4 address to which one of IPv6 leads: a mapped one (RFC 4291), by NAT64 (RFC 6052) or by 6to4 (RFC 3056).
/// Others are what they are.
pub(super) fn embedded(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(ip) = ip.to_canonical() else {
        return ip.to_canonical();
    };
    match ip.segments() {
        [0x64, 0xFF9B, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)).into()
        }
        _ => ip.into(),
    }
}

fn scope_v4(ip: Ipv4Addr) -> Option<Scope> {
    let [a, b, c, d] = ip.octets();
    if ip.is_loopback() {
        Some(Scope::Machine)
    } else if ip.is_unspecified() || ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() {
        None
    } else if ip.is_private() && (a, c, d) == (172, 0, 1) {
        Some(Scope::Bridge)
    } else if ip.is_private() || (a == 100 && b & 0xC0 == 64) {
        Some(Scope::Site)
    } else {
        Some(Scope::World)
    }
}

fn scope_v6(ip: Ipv6Addr) -> Option<Scope> {
    if ip.is_loopback() {
        Some(Scope::Machine)
    } else if ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast() {
        None
    } else if ip.is_unique_local() {
        Some(Scope::Site)
    } else {
        Some(Scope::World)
    }
}

pub(super) fn ip(address: &Multiaddr) -> Option<IpAddr> {
    match address.iter().next()? {
        Protocol::Ip4(ip) => Some(ip.into()),
        Protocol::Ip6(ip) => Some(ip.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use libp2p::PeerId;

    use super::*;

    fn addresses(given: &[&str]) -> Vec<Multiaddr> {
        given.iter().map(|address| address.parse().unwrap()).collect()
    }

    /// A machine that listens on everything: loopback, a container bridge, its network, and nothing that others can
    /// dial.
    fn at_home() -> Known {
        Known {
            listen: addresses(&["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"]),
            listeners: addresses(&[
                "/ip4/127.0.0.1/tcp/4001",
                "/ip4/172.17.0.1/tcp/4001",
                "/ip4/192.168.1.5/tcp/4001",
                "/ip4/169.254.3.4/tcp/4001",
                "/ip6/::1/tcp/4001",
                "/ip6/fe80::1/tcp/4001",
            ]),
            ..Known::default()
        }
    }

    #[test]
    fn of_all_interfaces_the_one_that_reaches_furthest_is_announced() {
        assert_eq!(at_home().announced(), addresses(&["/ip4/192.168.1.5/tcp/4001"]));
        let mut known = at_home();
        known.listeners.extend(addresses(&[
            "/ip6/2001:db8::5/tcp/4001",
            "/ip4/203.0.113.5/tcp/4001",
            "/ip4/203.0.113.5/tcp/4001",
        ]));
        let public = addresses(&["/ip4/203.0.113.5/tcp/4001", "/ip6/2001:db8::5/tcp/4001"]);
        assert_eq!(known.announced(), public);
        let mut known = at_home();
        known.listeners.remove(2);
        assert_eq!(known.announced(), addresses(&["/ip4/172.17.0.1/tcp/4001"]));
        let mut known = at_home();
        known.listeners.drain(1..3);
        let machine = addresses(&["/ip4/127.0.0.1/tcp/4001", "/ip6/::1/tcp/4001"]);
        assert_eq!(known.announced(), machine);
    }

    #[test]
    fn behind_a_router_nothing_is_announced_once_it_is_known() {
        let mut known = at_home();
        known.refuted.extend(addresses(&["/ip4/203.0.113.5/tcp/4001"]));
        assert!(known.announced().is_empty());
        // A public address of its own, behind a filter.
        let mut known = at_home();
        known.listeners.extend(addresses(&["/ip6/2001:db8::5/tcp/4001"]));
        known.refuted.extend(addresses(&["/ip6/2001:db8::5/tcp/4001"]));
        assert!(known.announced().is_empty());
    }

    #[test]
    fn behind_a_router_what_validators_relay_is_announced_and_nothing_else() {
        let circuits = |of: &[&str]| -> Vec<Multiaddr> {
            let relay = PeerId::random();
            let over = |at: &&str| format!("{at}/p2p/{relay}/p2p-circuit").parse().unwrap();
            of.iter().map(over).collect()
        };
        let mut known = at_home();
        assert!(!known.needs_relay());
        known.refuted.extend(addresses(&["/ip4/203.0.113.5/tcp/4001"]));
        assert!(known.needs_relay());
        known.circuits = circuits(&["/ip4/192.0.2.2/tcp/1", "/ip4/192.0.2.1/tcp/1"]);
        let sorted: Vec<_> = known.circuits.iter().rev().cloned().collect();
        assert_eq!(known.announced(), sorted);
        // What is only guessed comes after them.
        let mut known = at_home();
        let guess = addresses(&["/ip6/2001:db8::5/tcp/4001"]);
        known.listeners.extend(guess.clone());
        known.refuted.extend(addresses(&["/ip4/203.0.113.5/tcp/4001"]));
        known.circuits = circuits(&["/ip4/192.0.2.1/tcp/1"]);
        assert!(known.needs_relay());
        let expected: Vec<_> = known.circuits.iter().cloned().chain(guess).collect();
        assert_eq!(known.announced(), expected);
        // What is known to be reached needs none.
        let mut known = at_home();
        known.circuits = circuits(&["/ip4/192.0.2.1/tcp/1"]);
        known.confirmed = addresses(&["/ip4/203.0.113.5/tcp/4001"]);
        assert!(!known.needs_relay());
        assert_eq!(known.announced(), addresses(&["/ip4/203.0.113.5/tcp/4001"]));
        assert!(Known::default().needs_relay());
    }

    #[test]
    fn what_another_peer_reached_is_announced_alone() {
        let mut known = at_home();
        known.listeners.extend(addresses(&["/ip6/2001:db8::5/tcp/4001"]));
        known.confirmed = addresses(&["/ip4/203.0.113.5/tcp/4001", "/ip4/127.0.0.1/tcp/4001"]);
        assert_eq!(known.announced(), addresses(&["/ip4/203.0.113.5/tcp/4001"]));
        // Somebody on this machine.
        let mut known = at_home();
        known.confirmed = addresses(&["/ip4/127.0.0.1/tcp/4001"]);
        assert_eq!(known.announced(), addresses(&["/ip4/192.168.1.5/tcp/4001"]));
        // Within one network nobody sees another address.
        let mut known = at_home();
        known.confirmed = addresses(&["/ip4/192.168.1.5/tcp/4001"]);
        assert_eq!(known.announced(), addresses(&["/ip4/192.168.1.5/tcp/4001"]));
    }

    #[test]
    fn what_was_reached_before_a_restart_is_announced_as_long_as_nobody_tried_in_vain() {
        let mut known = at_home();
        known.confirmed = addresses(&["/ip4/203.0.113.5/tcp/4001", "/ip4/127.0.0.1/tcp/4001"]);
        let public = addresses(&["/ip4/203.0.113.5/tcp/4001"]);
        assert_eq!(known.to_remember(), public);
        let restarted = || Known { remembered: public.clone(), ..at_home() };
        assert!(!restarted().needs_relay());
        assert_eq!(restarted().announced(), public);
        let mut known = restarted();
        known.refuted.extend(public.clone());
        assert!(known.announced().is_empty());
        // It listens elsewhere now.
        let mut known = restarted();
        known.listeners = addresses(&["/ip4/192.168.1.5/tcp/4002"]);
        assert_eq!(known.announced(), addresses(&["/ip4/192.168.1.5/tcp/4002"]));
    }

    #[test]
    fn what_the_operator_says_is_announced() {
        let mut known = at_home();
        known.external = addresses(&["/ip4/203.0.113.9/tcp/9", "/dns4/miner.example/tcp/9"]);
        known.confirmed = addresses(&["/ip4/203.0.113.5/tcp/4001"]);
        let external = addresses(&["/ip4/203.0.113.9/tcp/9", "/dns4/miner.example/tcp/9"]);
        assert_eq!(known.announced(), external);
        // A network of one machine, whatever has been tried.
        let known = Known {
            listen: addresses(&["/ip4/127.0.0.1/tcp/0"]),
            listeners: addresses(&["/ip4/127.0.0.1/tcp/4001"]),
            refuted: addresses(&["/ip4/127.0.0.1/tcp/4001"]).into_iter().collect(),
            ..Known::default()
        };
        assert_eq!(known.announced(), addresses(&["/ip4/127.0.0.1/tcp/4001"]));
    }

    #[test]
    fn an_address_behind_a_router_is_not_announced_though_it_is_listened_on_by_name() {
        let mut known = at_home();
        known.listen = addresses(&["/ip4/192.168.1.5/tcp/4001"]);
        known.listeners.clone_from(&known.listen);
        known.refuted.extend(addresses(&["/ip4/203.0.113.5/tcp/4001"]));
        assert!(known.announced().is_empty());
    }

    #[test]
    fn addresses_are_of_the_widest_scope_that_they_have() {
        let scopes = [
            ("/ip4/8.8.8.8/tcp/1", Some(Scope::World)),
            ("/ip4/100.63.0.1/tcp/1", Some(Scope::World)),
            ("/ip4/100.64.0.1/tcp/1", Some(Scope::Site)),
            ("/ip4/100.127.255.255/tcp/1", Some(Scope::Site)),
            ("/ip4/100.128.0.1/tcp/1", Some(Scope::World)),
            ("/ip4/10.1.2.3/tcp/1", Some(Scope::Site)),
            ("/ip4/172.17.0.2/tcp/1", Some(Scope::Site)),
            ("/ip4/172.31.0.1/tcp/1", Some(Scope::Bridge)),
            ("/ip4/172.32.0.1/tcp/1", Some(Scope::World)),
            ("/ip4/127.1.2.3/tcp/1", Some(Scope::Machine)),
            ("/ip4/0.0.0.0/tcp/1", None),
            ("/ip4/224.0.0.1/tcp/1", None),
            ("/ip6/fd00::1/tcp/1", Some(Scope::Site)),
            ("/ip6/::ffff:10.0.0.1/tcp/1", Some(Scope::Site)),
            ("/ip6/64:ff9b::8.8.8.8/tcp/1", Some(Scope::World)),
            ("/ip6/64:ff9b::10.0.0.1/tcp/1", Some(Scope::Site)),
            ("/ip6/64:ff9b::127.0.0.1/tcp/1", Some(Scope::Machine)),
            ("/ip6/2002:a9fe:a9fe::1/tcp/1", None),
            ("/ip6/2001:db8::1/tcp/1", Some(Scope::World)),
            ("/ip6/ff02::1/tcp/1", None),
            ("/dns4/peer.example/tcp/1", Some(Scope::World)),
        ];
        for (address, expected) in scopes {
            assert_eq!(scope(&address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn what_is_seen_is_tried_at_the_ports_of_the_same_family() {
        let listeners = addresses(&[
            "/ip4/127.0.0.1/tcp/4001",
            "/ip4/192.168.1.5/tcp/4001",
            "/ip4/192.168.1.5/udp/4002/quic-v1",
            "/ip6/2001:db8::5/tcp/4003",
        ]);
        let observed = "/ip4/203.0.113.5/tcp/55555".parse().unwrap();
        let found: Vec<_> = candidates(&observed, listeners.iter()).into_iter().collect();
        let expected = addresses(&[
            "/ip4/203.0.113.5/tcp/4001",
            "/ip4/203.0.113.5/udp/4002/quic-v1",
            "/ip6/2001:db8::5/tcp/4003",
        ]);
        assert_eq!(found, expected);
    }
}

//! Tells from which part of the internet a connection comes: peer ids cost nothing, addresses do.

use std::net::{IpAddr, Ipv6Addr};

use libp2p::{multiaddr::Protocol, Multiaddr};

use super::paths::is_relayed;

/// The addresses that one party usually has many of: a /24 of IPv4, a /64 of IPv6.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(super) enum Origin {
    V4([u8; 3]),
    V6([u8; 8]),
}

impl Origin {
    /// Where an address is; `None` if it is no IP address, or one of this machine or of a private network, unless
    /// `with_private`.
    pub(super) fn of(address: &Multiaddr, with_private: bool) -> Option<Self> {
        let ip = match address.iter().next()? {
            Protocol::Ip4(ip) => IpAddr::V4(ip),
            Protocol::Ip6(ip) => IpAddr::V6(ip).to_canonical(),
            _ => return None,
        };
        if is_private(ip) && !with_private {
            return None;
        }
        Some(match ip {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Self::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        })
    }
}

impl Origin {
    /// The addresses that one customer of a provider may have: a /24 of IPv4, a /48 of IPv6.
    pub(super) fn site(self) -> Self {
        match self {
            Self::V4(_) => self,
            Self::V6([a, b, c, d, e, f, ..]) => Self::V6([a, b, c, d, e, f, 0, 0]),
        }
    }
}

/// The address that says where a connection comes from, which came to `local` from `remote`: over a relay nothing is
/// known but where that is, and it answers for whom it sends.
pub(super) fn origin_address<'a>(local: &'a Multiaddr, remote: &'a Multiaddr) -> &'a Multiaddr {
    if is_relayed(local) {
        local
    } else {
        remote
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || is_local(ip),
    }
}

/// Whether an address is of fc00::/7 (unique local) or fe80::/10 (link local).
fn is_local(ip: Ipv6Addr) -> bool {
    let first = ip.segments()[0];
    first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_of_one_origin_and_private_addresses_of_none() {
        let of = |address: &str| Origin::of(&address.parse().unwrap(), false);
        let near = of("/ip4/192.0.2.1/tcp/1");
        assert!(near.is_some());
        assert_eq!(near, of("/ip4/192.0.2.200/udp/2/quic-v1"));
        assert_eq!(near, of("/ip6/::ffff:192.0.2.7/tcp/1"));
        assert_ne!(near, of("/ip4/192.0.3.1/tcp/1"));
        let near = of("/ip6/2001:db8:1:2::1/tcp/1");
        assert!(near.is_some());
        assert_eq!(near, of("/ip6/2001:db8:1:2:3::/tcp/1"));
        assert_ne!(near, of("/ip6/2001:db8:1:3::1/tcp/1"));
        for private in
            ["/ip4/127.0.0.1", "/ip4/10.1.2.3", "/ip6/::1", "/ip6/fd00::1", "/ip6/fe80::1"]
        {
            assert_eq!(of(private), None);
            assert!(Origin::of(&private.parse().unwrap(), true).is_some());
        }
        assert_eq!(of("/dns4/example.org/tcp/1"), None);
    }
}

//! Asks the router to forward the ports that are listened on (UPnP).
//!
//! Where it says that it does is one more address to test: libp2p's behaviour by itself would take its word, though the
//! router may be behind another one.

use std::{
    net::IpAddr,
    task::{Context, Poll},
};

use libp2p::{
    multiaddr::Protocol,
    swarm::{
        behaviour::toggle::Toggle, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, ToSwarm,
    },
    upnp, Multiaddr,
};

use super::{hand_on::hand_on, NetworkConfig};

pub(super) struct Mapping {
    inner: Toggle<upnp::tokio::Behaviour>,
}

impl Mapping {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(config: &NetworkConfig) -> Self {
        Self { inner: Toggle::from(is_wanted(config).then(upnp::tokio::Behaviour::default)) }
    }
}

/// Whether a router is asked: not by who is told not to, nor on behalf of a network of one machine.
fn is_wanted(config: &NetworkConfig) -> bool {
    let is_own = |address: &Multiaddr| match address.iter().next() {
        Some(Protocol::Ip4(ip)) => IpAddr::from(ip).is_loopback(),
        Some(Protocol::Ip6(ip)) => IpAddr::from(ip).is_loopback(),
        _ => false,
    };
    config.upnp && !config.listen.iter().all(is_own)
}

/// What is to be heard of what the inner behaviour does.
fn heard<I>(event: ToSwarm<upnp::Event, I>) -> Option<ToSwarm<upnp::Event, I>> {
    match event {
        // The event that comes with it has the address tested.
        ToSwarm::ExternalAddrConfirmed(_) => None,
        event => Some(event),
    }
}

impl NetworkBehaviour for Mapping {
    type ConnectionHandler = THandler<Toggle<upnp::tokio::Behaviour>>;
    type ToSwarm = upnp::Event;

    hand_on!(inner);

    fn on_swarm_event(&mut self, event: FromSwarm) {
        self.inner.on_swarm_event(event);
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(event) = heard(std::task::ready!(self.inner.poll(context))) {
                return Poll::Ready(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_router_is_asked_unless_told_not_to_or_all_is_on_this_machine() {
        let asked = NetworkConfig { upnp: true, ..NetworkConfig::default() };
        assert!(is_wanted(&asked));
        assert!(!is_wanted(&NetworkConfig { upnp: false, ..asked.clone() }));
        assert!(!is_wanted(&NetworkConfig { upnp: true, ..NetworkConfig::loopback() }));
        let both = ["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.5/tcp/1"];
        let listen = both.iter().map(|address| address.parse().unwrap()).collect();
        assert!(is_wanted(&NetworkConfig { listen, ..asked }));
    }

    #[test]
    fn what_a_router_says_is_not_taken_for_reached() {
        let address: Multiaddr = "/ip4/203.0.113.5/tcp/4001".parse().unwrap();
        let confirmed: ToSwarm<_, ()> = ToSwarm::ExternalAddrConfirmed(address.clone());
        assert!(heard(confirmed).is_none());
        let expired: ToSwarm<_, ()> = ToSwarm::ExternalAddrExpired(address);
        assert!(matches!(heard(expired), Some(ToSwarm::ExternalAddrExpired(_))));
    }
}

//! Has validators relay to this peer when nobody can dial it: the miner's side of it.
//!
//! A few of the validators to whom a connection is kept are asked, those whose ids are next to the own one, so that
//! miners spread over them. What they grant is an external address of the swarm's until the connection is lost. Then,
//! or when one refuses, the next is asked.

use std::{cmp::Reverse, collections::HashMap, time::Duration};

use libp2p::{
    core::transport::ListenerId, kad::KBucketKey, multiaddr::Protocol, Multiaddr, PeerId, Swarm,
};
use tokio::time::Instant;

use super::{behaviour::Behaviour, kept::Kept, paths::is_relayed};

/// Relays at a time. With one the loss of it is noticed by whoever wants to fetch; the chain keeps four addresses.
pub(super) const RELAYS_MAX: usize = 3;

/// Bytes of an announced address: the chain takes no announcement with a longer one, whatever a validator's own address
/// is.
const ADDRESS_BYTES_MAX: usize = 128;

/// A relay that refused or was lost is asked again after so many of the intervals at which kept peers are dialled
/// again: at the start it learns from the chain who asks within a few of them.
const PAUSE_INTERVALS: u32 = 10;

/// The relays that are asked or have granted.
pub(super) struct Reservations {
    listeners: HashMap<ListenerId, PeerId>,
    /// When a relay may be asked again; of kept peers only.
    due: HashMap<PeerId, Instant>,
    pause: Duration,
}

impl Reservations {
    pub(super) fn new(redial_interval: Duration) -> Self {
        Self {
            listeners: HashMap::new(),
            due: HashMap::new(),
            pause: redial_interval * PAUSE_INTERVALS,
        }
    }

    /// Asks as many more as there is need of.
    pub(super) fn ask(&mut self, swarm: &mut Swarm<Behaviour>, kept: &Kept, now: Instant) {
        self.due.retain(|peer, _| kept.dials(peer));
        // One that is no validator any more is to relay no more.
        let is_over = |relay: &PeerId| !kept.dials(relay);
        for (listener, _) in self.listeners.extract_if(|_, relay| is_over(relay)) {
            swarm.remove_listener(listener);
        }
        let local = KBucketKey::from(*swarm.local_peer_id());
        let is_free = |peer: &PeerId| {
            !self.listeners.values().any(|other| other == peer)
                && self.due.get(peer).is_none_or(|due| *due <= now)
        };
        let mut relays: Vec<_> = kept
            .addresses()
            .filter(|(peer, _)| is_free(peer) && swarm.is_connected(peer))
            .filter_map(|(peer, addresses)| Some((*peer, circuit(peer, addresses)?)))
            .collect();
        relays.sort_by_key(|(peer, _)| Reverse(KBucketKey::from(*peer).distance(&local)));
        while self.listeners.len() < RELAYS_MAX {
            let Some((relay, address)) = relays.pop() else { return };
            match swarm.listen_on(address) {
                Ok(listener) => {
                    self.listeners.insert(listener, relay);
                }
                Err(error) => tracing::debug!(%relay, %error, "cannot ask a relay"),
            }
            self.due.insert(relay, now + self.pause);
        }
    }

    /// A relay has refused, or was lost.
    pub(super) fn on_closed(&mut self, listener: &ListenerId, now: Instant) {
        if let Some(relay) = self.listeners.remove(listener) {
            tracing::debug!(%relay, "does not relay to this peer");
            self.due.insert(relay, now + self.pause);
        }
    }
}

/// Where others reach this peer over a relay, by the first address that leads to it directly and that the chain has
/// room for.
fn circuit(relay: &PeerId, addresses: &[Multiaddr]) -> Option<Multiaddr> {
    let direct = addresses.iter().filter(|address| !is_relayed(address));
    let over = |address: &Multiaddr| {
        Some(address.clone().with_p2p(*relay).ok()?.with(Protocol::P2pCircuit))
    };
    direct.filter_map(over).find(|circuit| circuit.len() <= ADDRESS_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use libp2p::identity::Keypair;

    use super::*;

    #[test]
    fn a_relay_is_one_that_is_reached_directly() {
        let [relay, other] = [(); 2].map(|()| PeerId::random());
        let over: Multiaddr =
            format!("/ip4/192.0.2.1/tcp/1/p2p/{other}/p2p-circuit").parse().unwrap();
        assert_eq!(circuit(&relay, std::slice::from_ref(&over)), None);
        let direct: Multiaddr = "/ip4/192.0.2.2/udp/2/quic-v1".parse().unwrap();
        let expected = format!("{direct}/p2p/{relay}/p2p-circuit");
        for given in [direct.clone(), direct.with(Protocol::P2p(relay))] {
            let circuit = circuit(&relay, &[over.clone(), given]).unwrap();
            assert_eq!(circuit.to_string(), expected);
        }
    }
    #[test]
    fn a_circuit_fits_into_an_announcement() {
        let relay = Keypair::generate_ed25519().public().to_peer_id();
        let of = |len: usize| -> Multiaddr {
            format!("/dns4/{}/udp/2/quic-v1", "n".repeat(len)).parse().unwrap()
        };
        // 128 bytes, of which the name has 77.
        assert_eq!(circuit(&relay, &[of(77)]).map(|address| address.len()), Some(128));
        assert_eq!(circuit(&relay, &[of(78)]), None);
        assert_eq!(circuit(&relay, &[of(78), of(10)]), circuit(&relay, &[of(10)]));
    }
}

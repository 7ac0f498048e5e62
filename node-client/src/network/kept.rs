//! Dials the peers to whom a connection is kept, and dials again when it is lost.
//!
//! What the connection is for: a peer behind a router cannot be dialled, but answers over a connection that it has
//! made. The miners keep connections to the validators, and the validators hold them: see [`Keep`].

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    time::Duration,
};

use libp2p::{
    swarm::{
        dial_opts::{DialOpts, PeerCondition},
        ConnectionId, DialError,
    },
    Multiaddr, PeerId, Swarm,
};
use rand::Rng;
use tokio::time::Instant;

use super::{behaviour::Behaviour, Keep, NetworkConfig, ADDRESSES_MAX};

/// A connection that lasted so long was one: when it is lost the waiting begins anew.
const LASTING: Duration = Duration::from_secs(60);

/// How often the wait is doubled: from a second to about a minute.
const DOUBLINGS_MAX: u32 = 6;

/// The peers to whom a connection is kept, and where the dials stand.
pub(super) struct Kept {
    dialled: BTreeMap<PeerId, Dialled>,
    /// Of those to dial and those who dial, together.
    peers_max: usize,
    /// The first wait before a peer is dialled again.
    wait_min: Duration,
}

/// A peer to dial.
#[derive(Default)]
struct Dialled {
    addresses: Vec<Multiaddr>,
    /// Dials in a row that failed and connections that did not last.
    failures: u32,
    /// When to dial; `None` while connected or connecting.
    due: Option<Instant>,
    /// Our dial under way. Others dial, too; their failures say nothing about this one.
    dial: Option<ConnectionId>,
    /// Since when there is a connection.
    since: Option<Instant>,
}

impl Kept {
    pub(super) fn new(config: &NetworkConfig) -> Self {
        Self {
            dialled: BTreeMap::new(),
            peers_max: config.kept_max,
            wait_min: config.redial_interval,
        }
    }

    /// Keeps these and no others from now on, and returns all whose connections are to be held. Whom there is no room
    /// for is left out: first those who are not dialled, then the last in the order of peer ids.
    pub(super) fn replace(&mut self, keep: Keep, local: &PeerId, now: Instant) -> HashSet<PeerId> {
        let dialled = keep.dialled.into_iter().filter(|peer| peer.peer != *local);
        let dialled: BTreeMap<_, _> = dialled.map(|peer| (peer.peer, peer.addresses)).collect();
        let mut before = std::mem::take(&mut self.dialled);
        for (peer, mut addresses) in dialled.into_iter().take(self.peers_max) {
            addresses.truncate(ADDRESSES_MAX);
            let mut entry = before
                .remove(&peer)
                .unwrap_or_else(|| Dialled { due: Some(now), ..Dialled::default() });
            if entry.addresses != addresses {
                // Where it is now it need not be waited for.
                entry.due = entry.due.map(|due| due.min(now));
                entry.addresses = addresses;
            }
            self.dialled.insert(peer, entry);
        }
        let room = self.peers_max - self.dialled.len();
        let held: BTreeSet<_> = keep.held.into_iter().collect();
        let held = held.into_iter().filter(|peer| !self.dialled.contains_key(peer)).take(room);
        held.chain(self.dialled.keys().copied()).collect()
    }

    /// Begins the dials that are due.
    pub(super) fn dial(&mut self, swarm: &mut Swarm<Behaviour>, now: Instant) {
        for (peer, entry) in &mut self.dialled {
            if entry.due.is_none_or(|due| due > now) {
                continue;
            }
            if swarm.is_connected(peer) {
                entry.on_connected(now);
                continue;
            }
            let options = DialOpts::peer_id(*peer)
                .condition(PeerCondition::DisconnectedAndNotDialing)
                .addresses(entry.addresses.clone())
                .extend_addresses_through_behaviour()
                .build();
            let connection = options.connection_id();
            swarm.behaviour_mut().attempts.told(connection);
            match swarm.dial(options) {
                Ok(()) => (entry.due, entry.dial) = (None, Some(connection)),
                // Somebody else's dial; its end is looked at later.
                Err(DialError::DialPeerConditionFalse(_)) => {
                    entry.due = Some(now + self.wait_min);
                }
                Err(error) => {
                    tracing::debug!(%peer, %error, "cannot dial a kept peer");
                    entry.failed(self.wait_min, now);
                }
            }
        }
    }

    /// Whether a peer is one of those to dial.
    pub(super) fn dials(&self, peer: &PeerId) -> bool {
        self.dialled.contains_key(peer)
    }

    /// The peers to dial, and where.
    pub(super) fn addresses(&self) -> impl Iterator<Item = (&PeerId, &[Multiaddr])> {
        self.dialled.iter().map(|(peer, entry)| (peer, entry.addresses.as_slice()))
    }

    pub(super) fn on_connected(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.dialled.get_mut(peer) {
            entry.on_connected(now);
        }
    }

    /// The last connection with a peer is gone.
    pub(super) fn on_disconnected(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.dialled.get_mut(peer) {
            let lasted = entry.since.take().is_some_and(|since| now - since >= LASTING);
            if lasted {
                entry.failures = 0;
                entry.due = Some(now + wait(self.wait_min, 0));
            } else {
                entry.failed(self.wait_min, now);
            }
        }
    }

    pub(super) fn on_dial_failed(&mut self, peer: &PeerId, connection: ConnectionId, now: Instant) {
        if let Some(entry) = self.dialled.get_mut(peer) {
            if entry.dial == Some(connection) {
                entry.failed(self.wait_min, now);
            }
        }
    }
}

impl Dialled {
    fn on_connected(&mut self, now: Instant) {
        (self.due, self.dial) = (None, None);
        self.since.get_or_insert(now);
    }

    fn failed(&mut self, wait_min: Duration, now: Instant) {
        (self.dial, self.due) = (None, Some(now + wait(wait_min, self.failures)));
        self.failures = self.failures.saturating_add(1);
    }
}

/// How long to wait after so many failures: twice as long each time, and by chance up to half as long again, so that
/// those who lost the same peer do not come back at once.
fn wait(min: Duration, failures: u32) -> Duration {
    let wait = min * 2_u32.pow(failures.min(DOUBLINGS_MAX));
    wait.mul_f64(rand::thread_rng().gen_range(1.0..1.5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::PeerAddress;

    const SECOND: Duration = Duration::from_secs(1);

    fn kept(peers_max: usize) -> Kept {
        Kept::new(&NetworkConfig { kept_max: peers_max, ..NetworkConfig::default() })
    }

    fn peers<const N: usize>() -> [PeerId; N] {
        let mut peers = [(); N].map(|()| PeerId::random());
        peers.sort();
        peers
    }

    fn to_dial(peers: &[PeerId]) -> Vec<PeerAddress> {
        let address = |peer: &PeerId| PeerAddress { peer: *peer, addresses: Vec::new() };
        peers.iter().map(address).collect()
    }

    fn due(kept: &Kept, peer: &PeerId, since: Instant) -> Option<Duration> {
        kept.dialled[peer].due.map(|due| due - since)
    }

    #[test]
    fn whom_there_is_no_room_for_is_left_out_the_dialled_last() {
        let now = Instant::now();
        let [a, b, c, d] = peers();
        let mut kept = kept(3);
        let keep = Keep { dialled: to_dial(&[d, a, d]), held: vec![c, b, b, a] };
        let held = kept.replace(keep.clone(), &PeerId::random(), now);
        assert_eq!(held, HashSet::from([a, b, d]));
        assert_eq!(kept.dialled.keys().copied().collect::<Vec<_>>(), [a, d]);
        // Itself it does not dial.
        let held = kept.replace(keep, &d, now);
        assert_eq!(held, HashSet::from([a, b, c]));
        assert_eq!(kept.dialled.keys().copied().collect::<Vec<_>>(), [a]);
        let keep = Keep { dialled: to_dial(&[d, c, b, a]), held: Vec::new() };
        assert_eq!(kept.replace(keep, &PeerId::random(), now), HashSet::from([a, b, c]));
        assert!(kept.replace(Keep::default(), &a, now).is_empty());
        assert!(kept.dialled.is_empty());
    }

    #[test]
    fn who_fails_is_dialled_ever_more_seldom_and_who_lasted_soon() {
        let now = Instant::now();
        let [peer] = peers();
        let mut kept = kept(1);
        let keep = Keep { dialled: to_dial(&[peer]), held: Vec::new() };
        kept.replace(keep.clone(), &PeerId::random(), now);
        assert_eq!(due(&kept, &peer, now), Some(Duration::ZERO));
        for wait in [1, 2, 4, 8, 16, 32, 64, 64, 64] {
            // A dial of another's is not ours.
            kept.on_dial_failed(&peer, ConnectionId::new_unchecked(1), now);
            let connection = ConnectionId::new_unchecked(2);
            let entry = kept.dialled.get_mut(&peer).unwrap();
            (entry.due, entry.dial) = (None, Some(connection));
            kept.on_dial_failed(&peer, ConnectionId::new_unchecked(1), now);
            assert_eq!(due(&kept, &peer, now), None);
            kept.on_dial_failed(&peer, connection, now);
            let waits = due(&kept, &peer, now).unwrap();
            assert!((SECOND * wait..SECOND * wait * 3 / 2).contains(&waits), "{waits:?}, {wait}");
            // The same set again changes nothing.
            kept.replace(keep.clone(), &PeerId::random(), now);
            assert_eq!(due(&kept, &peer, now), Some(waits));
        }
        // One that closes at once is waited for as long.
        kept.on_connected(&peer, now);
        assert_eq!(due(&kept, &peer, now), None);
        kept.on_disconnected(&peer, now + LASTING - SECOND);
        assert!(due(&kept, &peer, now + LASTING - SECOND).unwrap() >= 64 * SECOND);
        kept.on_connected(&peer, now);
        // A second connection beside the first says nothing.
        kept.on_connected(&peer, now + LASTING);
        kept.on_disconnected(&peer, now + LASTING);
        assert!(due(&kept, &peer, now + LASTING).unwrap() < 2 * SECOND);
        // It says where else it is: that is tried at once.
        let mut elsewhere = keep;
        elsewhere.dialled[0].addresses = vec!["/ip4/192.0.2.1/tcp/1".parse().unwrap()];
        kept.replace(elsewhere, &PeerId::random(), now);
        assert_eq!(due(&kept, &peer, now), Some(Duration::ZERO));
    }
}

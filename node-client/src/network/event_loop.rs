//! Runs the one task that owns the swarm.
//!
//! It takes commands from the clients and events from the swarm, one at a time, and never waits for either: what takes
//! time (a dial, a question to a peer, a read from disk) is started, and its end is one more event. Nothing that a peer
//! sends ends the loop. What belongs together is kept together: [`Published`], [`Searches`], [`Questions`], [`Server`];
//! the loop lends them the swarm.

use std::{
    collections::{BTreeSet, HashMap},
    net::Ipv6Addr,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use libp2p::{
    autonat::v2::client as autonat,
    core::transport::ListenerId,
    identify,
    kad::{self, store::RecordStore, GetProvidersOk, QueryResult},
    multiaddr::Protocol,
    ping,
    swarm::{CloseConnection, SwarmEvent},
    upnp, Multiaddr, PeerId, Swarm,
};
use protocol::Hash;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    behaviour::{hold, kademlia_name, make_room, Behaviour, BehaviourEvent, Kademlia},
    codec::{RangeResponse, RANGE_LEN_MAX},
    command::Command,
    counters::CounterCells,
    kept::Kept,
    paths::{is_relayed, Paths},
    published::Published,
    punches,
    questions::{Question, Questions},
    ranges,
    reach::{candidates, Known},
    remembered::Remembered,
    reservations::Reservations,
    roles::Roles,
    searches::Searches,
    server::Server,
    streams::News,
    Keep, NetworkConfig, PeerAddress, StartError, ADDRESSES_MAX,
};
use crate::store::Store;

/// How long nobody can dial this peer before it says so: long enough for a few tests of each address.
const HIDDEN_TOLD: Duration = Duration::from_secs(10 * 60);

pub(super) struct EventLoop {
    config: NetworkConfig,
    swarm: Swarm<Behaviour>,
    store: Arc<Store>,
    counters: Arc<CounterCells>,
    commands: mpsc::Receiver<Command>,
    shutdown: CancellationToken,

    published: Published,
    searches: Searches,
    questions: Questions,
    server: Server,
    kept: Kept,
    paths: Paths,
    reservations: Reservations,
    /// Own addresses that kept peers dialled in vain.
    refuted: BTreeSet<Multiaddr>,
    remembered: Remembered,
    /// Since when nobody can dial this peer, and whether that was said.
    hidden: Option<(Instant, bool)>,
}

impl EventLoop {
    pub(super) fn new(
        config: NetworkConfig,
        swarm: Swarm<Behaviour>,
        store: Arc<Store>,
        counters: Arc<CounterCells>,
        server: Server,
        commands: mpsc::Receiver<Command>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            published: Published::new(&config),
            searches: Searches::default(),
            questions: Questions::new(config.redial_interval),
            kept: Kept::new(&config),
            paths: Paths::default(),
            reservations: Reservations::new(config.redial_interval),
            refuted: BTreeSet::new(),
            remembered: Remembered::open(config.reached.clone()),
            hidden: None,
            server,
            config,
            swarm,
            store,
            counters,
            commands,
            shutdown,
        }
    }

    /// Starts listening, and returns when every configured address is listened on. All IPv6 addresses of the machine
    /// are not waited for: it may have none.
    ///
    /// Not cancel-safe: when dropped, some addresses are listened on; drop the loop too.
    pub(super) async fn listen(&mut self) -> Result<(), StartError> {
        for address in self.config.external.clone() {
            self.swarm.add_external_address(address);
        }
        let mut waiting: HashMap<ListenerId, Multiaddr> = HashMap::new();
        for address in self.config.listen.clone() {
            match self.swarm.listen_on(address.clone()) {
                Ok(_) if is_any_ipv6(&address) => None,
                Ok(listener) => waiting.insert(listener, address),
                Err(error) if is_any_ipv6(&address) => {
                    tracing::debug!(%address, %error, "no IPv6");
                    None
                }
                Err(error) => {
                    let reason = error.to_string();
                    return Err(StartError::Listen { address, reason });
                }
            };
        }
        while !waiting.is_empty() {
            let event = self.swarm.select_next_some().await;
            match &event {
                SwarmEvent::NewListenAddr { listener_id, .. } => {
                    waiting.remove(listener_id);
                }
                SwarmEvent::ListenerClosed { listener_id, reason, .. } => {
                    if let Some(address) = waiting.remove(listener_id) {
                        let reason = format!("{reason:?}");
                        return Err(StartError::Listen { address, reason });
                    }
                }
                _ => {}
            }
            self.on_event(event);
        }
        Ok(())
    }

    /// Publishes what an earlier process left pinned, meets the bootstrap peers, and works until it is shut down or the
    /// last client is gone. Questions that are under way then end as [`super::FetchError::Closed`].
    ///
    /// Not cancel-safe: when dropped, everything under way is lost; that is how it ends at the latest.
    pub(super) async fn run(mut self) {
        for id in self.store.pinned_ids() {
            if self.published.add(kademlia(&mut self.swarm), id).is_err() {
                tracing::warn!("more is pinned in the store than may be published");
                break;
            }
        }
        self.meet_bootstrap();
        let shutdown = self.shutdown.clone();
        let mut announce = tokio::time::interval(self.config.announce_interval);
        announce.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut redial = tokio::time::interval(self.config.redial_interval);
        redial.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = self.questions.count() < self.config.requests_max;
            tokio::select! {
                () = shutdown.cancelled() => break,
                command = self.commands.recv(), if has_room => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
                turn = self.server.next_turn() => self.server.on_turn(turn),
                now = redial.tick() => self.on_redial(now),
                _ = announce.tick() => self.published.on_tick(kademlia(&mut self.swarm)),
            }
        }
        let streams = self.swarm.behaviour().ranges.opened();
        tracing::debug!(streams, "network closed");
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::ListenAddresses { reply } => {
                let external = self.swarm.external_addresses();
                let addresses = external.chain(self.swarm.listeners());
                let mut unique = Vec::new();
                for address in addresses {
                    if !unique.contains(address) {
                        unique.push(address.clone());
                    }
                }
                let _ = reply.send(unique);
            }
            Command::ReachableAddresses { reply } => {
                let _ = reply.send(self.known().announced());
            }
            Command::AddPeer { peer, reply } => {
                self.add_peer(peer);
                let _ = reply.send(());
            }
            Command::SetRoles { roles, reply } => {
                let roles = Roles::new(roles);
                self.swarm.behaviour_mut().gate.set_roles(roles.clone());
                self.swarm.behaviour_mut().attempts.set_roles(roles.clone());
                for peer in self.swarm.behaviour_mut().relay.set_roles(&roles) {
                    self.close(peer, CloseConnection::All);
                }
                self.server.set_roles(roles);
                self.remove_strangers();
                let _ = reply.send(());
            }
            Command::Keep { keep, reply } => {
                self.keep(keep);
                let _ = reply.send(());
            }
            Command::Publish { id, reply } => {
                let _ = reply.send(self.published.add(kademlia(&mut self.swarm), id));
            }
            Command::Unpublish { id, reply } => {
                self.published.remove(kademlia(&mut self.swarm), &id);
                let _ = reply.send(());
            }
            Command::Announce { id, reply } => {
                self.published.announce(kademlia(&mut self.swarm), id, reply);
            }
            Command::Providers { id, reply } => {
                self.searches.begin(kademlia(&mut self.swarm), id, reply);
            }
            Command::Range { peer, request, given_up, reply } => {
                let question = Question::new(peer, request, given_up, reply);
                self.questions.ask(&mut self.swarm, question);
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Ranges(event)) => self.on_ranges(event),
            SwarmEvent::Behaviour(BehaviourEvent::Kademlia(event)) => self.on_kademlia(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => self.on_identify(event),
            SwarmEvent::Behaviour(BehaviourEvent::Ping(event)) => self.on_ping(event),
            SwarmEvent::Behaviour(BehaviourEvent::Probes(event)) => self.on_probe(event),
            SwarmEvent::Behaviour(BehaviourEvent::Mapping(event)) => self.on_mapping(event),
            SwarmEvent::Behaviour(BehaviourEvent::Punches(event)) => self.on_punch(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                make_room(&mut self.swarm, &self.config);
                for circuit in self.paths.on_connected(peer_id, connection_id, &endpoint) {
                    self.close(peer_id, CloseConnection::One(circuit));
                }
                self.server.on_connected(peer_id, &endpoint);
                self.kept.on_connected(&peer_id, Instant::now());
                self.questions.on_connected(&mut self.swarm, &peer_id);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, num_established, .. } => {
                make_room(&mut self.swarm, &self.config);
                self.paths.on_closed(&peer_id, connection_id);
                if num_established == 0 {
                    self.server.on_disconnected(&peer_id);
                    self.kept.on_disconnected(&peer_id, Instant::now());
                }
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id: Some(peer), error } => {
                tracing::debug!(%peer, %error, "dial failed");
                self.questions.on_dial_failed(peer, connection_id);
                self.kept.on_dial_failed(&peer, connection_id, Instant::now());
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "listening");
            }
            SwarmEvent::ListenerClosed { listener_id, .. } => {
                self.reservations.on_closed(&listener_id, Instant::now());
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "listener failed");
            }
            _ => {}
        }
    }

    fn on_redial(&mut self, now: Instant) {
        self.questions.on_tick(now);
        self.kept.dial(&mut self.swarm, now);
        self.swarm.behaviour_mut().probes.again(now);
        let known = self.known();
        self.remembered.note(known.to_remember());
        if known.needs_relay() {
            self.reservations.ask(&mut self.swarm, &self.kept, now);
            self.tell_hidden(known.circuits.len(), now);
        } else {
            self.hidden = None;
        }
    }

    /// Says it once when nobody could dial this peer for a while.
    fn tell_hidden(&mut self, relays: usize, now: Instant) {
        let (since, is_told) = self.hidden.get_or_insert((now, false));
        if now.duration_since(*since) >= HIDDEN_TOLD && !*is_told {
            *is_told = true;
            tracing::warn!(
                relays,
                "nobody can dial this peer: others reach it over its own connections to validators and over relays. A validator, or whoever has a public address behind a router, forwards its ports and sets [network] external"
            );
        }
    }

    /// What is known of the own addresses.
    fn known(&self) -> Known {
        let (relayed, confirmed): (Vec<_>, _) =
            self.swarm.external_addresses().cloned().partition(is_relayed);
        let local = Protocol::P2p(*self.swarm.local_peer_id());
        // Who it leads to is announced beside it.
        let without_end = |address: Multiaddr| match address.iter().last() {
            Some(last) if last == local => {
                address.iter().take(address.iter().count() - 1).collect()
            }
            _ => address,
        };
        let listeners = self.swarm.listeners().filter(|address| !is_relayed(address));
        Known {
            external: self.config.external.clone(),
            listen: self.config.listen.clone(),
            listeners: listeners.cloned().collect(),
            confirmed,
            remembered: self.remembered.addresses().to_vec(),
            refuted: self.refuted.clone(),
            circuits: relayed.into_iter().map(without_end).collect(),
        }
    }

    fn add_peer(&mut self, peer: PeerAddress) {
        if peer.peer == *self.swarm.local_peer_id() {
            return;
        }
        let kademlia = kademlia(&mut self.swarm);
        let known = addresses_of(kademlia, &peer.peer);
        for address in new_addresses(&known, peer.addresses) {
            kademlia.add_address(&peer.peer, address);
        }
    }

    fn meet_bootstrap(&mut self) {
        for peer in self.config.bootstrap.clone() {
            self.add_peer(peer);
        }
    }

    /// Takes whom the chain does not name out of the table, but for those that the configuration does.
    fn remove_strangers(&mut self) {
        let (server, bootstrap) = (&self.server, &self.config.bootstrap);
        let is_meant = |peer: &PeerId| bootstrap.iter().any(|known| known.peer == *peer);
        let kademlia = &mut self.swarm.behaviour_mut().kademlia;
        let mut strangers = Vec::new();
        for bucket in kademlia.kbuckets() {
            let peers = bucket.iter().map(|entry| *entry.node.key.preimage());
            strangers.extend(peers.filter(|peer| server.is_stranger(peer) && !is_meant(peer)));
        }
        for peer in strangers {
            kademlia.remove_peer(&peer);
        }
    }

    fn keep(&mut self, keep: Keep) {
        let (local, now) = (*self.swarm.local_peer_id(), Instant::now());
        let held = self.kept.replace(keep, &local, now);
        let dialled = self.kept.addresses().map(|(peer, _)| *peer);
        self.swarm.behaviour_mut().probes.trust(dialled, &held);
        hold(&mut self.swarm, &self.config, held);
        self.kept.dial(&mut self.swarm, now);
    }

    /// Ends a connection over which nothing comes any more, as when a router on the way has forgotten it. libp2p tells
    /// of a second failure in a row.
    fn on_ping(&mut self, event: ping::Event) {
        if let Err(ping::Failure::Timeout | ping::Failure::Other { .. }) = event.result {
            tracing::debug!(peer = %event.peer, "a connection is dead");
            self.close(event.peer, CloseConnection::One(event.connection));
        }
    }

    fn on_punch(&mut self, event: punches::Event) {
        match event {
            punches::Event::Ended(end) => tracing::debug!(?end, "a way around a relay"),
            punches::Event::Spent(peer, circuit) => self.close(peer, CloseConnection::One(circuit)),
        }
    }

    /// Closes one connection of a peer or all: whatever closes any goes this way.
    fn close(&mut self, peer: PeerId, which: CloseConnection) {
        self.swarm.behaviour_mut().ranges.closing(peer, &which);
        // What is being closed is no way any more, however long that takes.
        let was_open = match which {
            CloseConnection::One(connection) => {
                self.paths.on_closed(&peer, connection);
                self.swarm.close_connection(connection)
            }
            CloseConnection::All => {
                self.paths.forget(&peer);
                self.swarm.disconnect_peer_id(peer).is_ok()
            }
        };
        tracing::debug!(%peer, was_open, "closing");
    }

    /// A dial-back by somebody whose word counts has ended. What one has reached another's failure does not change: it
    /// may speak no IPv6, or lie.
    fn on_probe(&mut self, event: autonat::Event) {
        let autonat::Event { tested_addr: address, server, result, .. } = event;
        match result {
            Ok(()) => {
                tracing::info!(%address, %server, "others reach this peer");
                self.refuted.remove(&address);
            }
            Err(error) if self.kept.dials(&server) => {
                tracing::info!(%address, %server, %error, "others do not reach this peer");
                if !self.swarm.external_addresses().any(|reached| *reached == address) {
                    self.refuted.insert(address);
                }
            }
            // Of those who are not dialled anybody could be one.
            Err(error) => {
                tracing::debug!(%address, %server, %error, "another miner does not reach this peer")
            }
        }
    }

    /// The router says that it forwards a port: then somebody should reach us there.
    fn on_mapping(&mut self, event: upnp::Event) {
        if let upnp::Event::NewExternalAddr { external_addr: address, .. } = &event {
            self.swarm.behaviour_mut().probes.begin(address, Instant::now());
        }
        tracing::debug!(?event, "ports at the router");
    }

    fn on_identify(&mut self, event: identify::Event) {
        if let identify::Event::Received { peer_id, connection_id, info } = event {
            let protocols = info.protocols.iter().map(AsRef::as_ref);
            self.swarm.behaviour_mut().probes.on_protocols(connection_id, protocols);
            if self.kept.dials(&peer_id) && !is_relayed(&info.observed_addr) {
                let listeners = self.swarm.listeners().filter(|address| !is_relayed(address));
                let found = candidates(&info.observed_addr, listeners);
                for address in found.iter().chain(self.remembered.addresses()) {
                    self.swarm.behaviour_mut().probes.begin(address, Instant::now());
                }
                self.swarm.behaviour_mut().punches.on_observed(&info.observed_addr);
            }
            let speaks = kademlia_name(&self.config.name)
                .is_some_and(|kademlia| info.protocols.contains(&kademlia));
            // Strangers find others in the table; who is nobody to the chain is not in it, as everybody may be as many as he likes.
            if speaks && !self.server.is_stranger(&peer_id) {
                self.add_peer(PeerAddress { peer: peer_id, addresses: info.listen_addrs });
            }
        }
    }

    fn on_kademlia(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => match result {
                QueryResult::GetProviders(result) => {
                    if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result {
                        let local = *self.swarm.local_peer_id();
                        let kademlia = kademlia(&mut self.swarm);
                        let new = self.searches.on_providers(kademlia, local, &id, providers);
                        self.connect(new);
                    }
                    if step.last {
                        self.searches.end(&id);
                    }
                }
                QueryResult::StartProviding(_) => {
                    self.published.on_announced(kademlia(&mut self.swarm), &id);
                }
                _ => {}
            },
            kad::Event::RoutingUpdated { peer, is_new_peer: true, .. }
                if !self.server.is_stranger(&peer) =>
            {
                self.published.on_new_peer()
            }
            kad::Event::RoutablePeer { peer, address } if !self.server.is_stranger(&peer) => {
                self.add_peer(PeerAddress { peer, addresses: vec![address] });
            }
            kad::Event::InboundRequest {
                request: kad::InboundRequest::AddProvider { record: Some(record) },
            } => self.on_record(record),
            _ => {}
        }
    }

    fn connect(&mut self, peers: Vec<PeerId>) {
        for peer in peers {
            let peer = PeerAddress { peer, addresses: Vec::new() };
            self.questions.dial(&mut self.swarm, peer);
        }
    }

    /// Keeps another peer's provider record, if it is one of ours in form and the peer has not sent too many. Kademlia
    /// has checked that the provider is who sent it.
    fn on_record(&mut self, mut record: kad::ProviderRecord) {
        let admitted = self.server.admit_record(&record.provider);
        if !admitted || record.key.as_ref().len() != size_of::<Hash>() {
            tracing::debug!(peer = %record.provider, "provider record refused");
            return;
        }
        record.addresses.truncate(ADDRESSES_MAX);
        let store = kademlia(&mut self.swarm).store_mut();
        if let Err(error) = store.add_provider(record) {
            tracing::debug!(%error, "provider record not kept");
        }
    }

    fn on_ranges(&mut self, ranges::Event { peer, news }: ranges::Event) {
        match news {
            News::Question { id, request, answer } => {
                // What is still arriving is served to others meanwhile.
                let is_served =
                    self.published.contains(&request.id) || self.store.has_part(&request.id);
                if !is_served || request.len > RANGE_LEN_MAX {
                    self.server.refuse(&peer, answer, RangeResponse::Missing);
                    return;
                }
                self.server.serve(peer, id, request, answer);
            }
            News::Answer { id, result: Ok(response) } => {
                let received = self.questions.on_answer(&id, response);
                self.counters.add_received(received);
                self.server.received(received);
            }
            News::Answer { id, result: Err(error) } => {
                self.questions.on_failure(&mut self.swarm, peer, &id, error);
            }
            News::Told { id, result } => {
                if let Err(error) = result {
                    tracing::debug!(%peer, %error, "a range was not served");
                }
                self.server.on_sent(&id);
            }
        }
    }
}

/// Whether an address means all IPv6 addresses of this machine.
fn is_any_ipv6(address: &Multiaddr) -> bool {
    address.iter().next() == Some(Protocol::Ip6(Ipv6Addr::UNSPECIFIED))
}

/// The addresses that the routing table has of a peer, without the peer id that it adds to them.
fn addresses_of(kademlia: &mut Kademlia, peer: &PeerId) -> Vec<Multiaddr> {
    let Some(bucket) = kademlia.kbucket(*peer) else {
        return Vec::new();
    };
    let entry = bucket.iter().find(|entry| entry.node.key.preimage() == peer);
    let known = entry.into_iter().flat_map(|entry| entry.node.value.iter());
    let without_peer =
        |address: &Multiaddr| address.iter().filter(|part| *part != Protocol::P2p(*peer)).collect();
    known.map(without_peer).collect()
}

/// What there is room for of a peer's `told` addresses: it may tell others as often as it likes, and each is kept.
fn new_addresses(known: &[Multiaddr], told: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let room = ADDRESSES_MAX.saturating_sub(known.len());
    told.into_iter()
        .take(ADDRESSES_MAX)
        .filter(|address| !known.contains(address))
        .take(room)
        .collect()
}

fn kademlia(swarm: &mut Swarm<Behaviour>) -> &mut Kademlia {
    &mut swarm.behaviour_mut().kademlia
}

#[cfg(test)]
mod tests {
    use libp2p::{
        core::ConnectedPoint, identity::Keypair, kad::store::MemoryStore, swarm::ConnectionId,
    };
    use tokio::sync::oneshot;

    use super::*;
    use crate::{
        clock::{Clock, ManualClock},
        network::{
            behaviour::swarm,
            pace::Pace,
            roles::Role,
            swarms::{listening, next},
        },
    };

    fn address(port: usize) -> Multiaddr {
        format!("/ip4/192.0.2.1/tcp/{port}").parse().unwrap()
    }

    /// A peer on loopback, which nobody asks for anything.
    fn event_loop(config: NetworkConfig, folder: &tempfile::TempDir) -> EventLoop {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
        let pace = Pace::new(clock.clone());
        let key = Keypair::generate_ed25519();
        let swarm = swarm(&config, key, clock.clone(), pace.clone()).unwrap();
        let store = Arc::new(Store::open(folder.path(), 1 << 20).unwrap());
        let counters = Arc::new(CounterCells::default());
        let server = Server::new(&config, store.clone(), clock, counters.clone(), pace);
        let (_, commands) = mpsc::channel(1);
        EventLoop::new(config, swarm, store, counters, server, commands, CancellationToken::new())
    }

    #[tokio::test]
    async fn what_the_router_forwards_is_tested_and_announced_when_it_is_reached() {
        let folder = tempfile::tempdir().unwrap();
        let mut peer = event_loop(NetworkConfig::loopback(), &folder);
        let mapped = address(4001);
        peer.on_event(SwarmEvent::Behaviour(BehaviourEvent::Mapping(
            upnp::Event::NewExternalAddr {
                local_addr: "/ip4/192.168.1.5/tcp/4001".parse().unwrap(),
                external_addr: mapped.clone(),
            },
        )));
        assert!(peer.swarm.behaviour().probes.has_begun(&mapped));
        assert!(peer.known().announced().is_empty());
        peer.swarm.add_external_address(mapped.clone());
        assert_eq!(peer.known().announced(), [mapped]);
    }

    #[tokio::test]
    async fn strangers_are_not_in_the_table_and_make_nobody_tell_everything_again() {
        let folder = tempfile::tempdir().unwrap();
        let meant = PeerAddress { peer: PeerId::random(), addresses: vec![address(5)] };
        let config = NetworkConfig { bootstrap: vec![meant.clone()], ..NetworkConfig::loopback() };
        let mut peer = event_loop(config.clone(), &folder);
        peer.meet_bootstrap();
        let [known, stranger] = [(); 2].map(|()| Keypair::generate_ed25519());
        let ids = [&known, &stranger].map(|key| key.public().to_peer_id());
        let (reply, _) = oneshot::channel();
        let roles = [(ids[0], Role::Joiner)].into();
        peer.on_command(Command::SetRoles { roles, reply });
        for (number, key) in [known, stranger].iter().enumerate() {
            let info = identify::Info {
                public_key: key.public(),
                protocol_version: String::new(),
                agent_version: String::new(),
                listen_addrs: vec![address(number + 1)],
                protocols: kademlia_name(&config.name).into_iter().collect(),
                observed_addr: address(9),
                signed_peer_record: None,
            };
            let connection_id = ConnectionId::new_unchecked(number);
            let peer_id = ids[number];
            peer.on_identify(identify::Event::Received { connection_id, peer_id, info });
            assert!(!peer.server.admit_record(&peer_id), "it is not connected");
            let endpoint = ConnectedPoint::Listener {
                local_addr: address(4001),
                send_back_addr: address(number + 1),
            };
            peer.server.on_connected(peer_id, &endpoint);
        }
        assert_eq!(ids.map(|id| peer.server.admit_record(&id)), [true, false]);
        let found = ids.map(|id| addresses_of(kademlia(&mut peer.swarm), &id));
        assert_eq!(found, [vec![address(1)], Vec::new()]);
        // One that we dialled ourselves, neither.
        let routable = |peer| kad::Event::RoutablePeer { peer, address: address(3) };
        for id in ids {
            peer.on_kademlia(routable(id));
        }
        let found = ids.map(|id| addresses_of(kademlia(&mut peer.swarm), &id));
        assert_eq!(found, [vec![address(1), address(3)], Vec::new()]);
        // One that got there before the chain was known is no reason to tell anything, and goes.
        kademlia(&mut peer.swarm).add_address(&ids[1], address(2));
        let mut updated = 0;
        while updated < 3 {
            let event = peer.swarm.select_next_some().await;
            if let SwarmEvent::Behaviour(BehaviourEvent::Kademlia(event)) = event {
                let kad::Event::RoutingUpdated { peer: who, is_new_peer: true, .. } = &event else {
                    continue;
                };
                let is_stranger = *who != ids[0];
                peer.on_kademlia(event);
                assert_eq!(peer.published.is_due(), !is_stranger);
                peer.published.on_tick(kademlia(&mut peer.swarm));
                updated += 1;
            }
        }
        let (reply, _) = oneshot::channel();
        let roles = [(ids[0], Role::Replica)].into();
        peer.on_command(Command::SetRoles { roles, reply });
        let all = [ids[0], ids[1], meant.peer];
        let left = all.map(|id| addresses_of(kademlia(&mut peer.swarm), &id).len());
        assert_eq!(left, [2, 0, 1]);
    }

    #[tokio::test]
    async fn a_circuit_that_has_us_dial_on_and_on_is_closed_and_asked_over_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let config = NetworkConfig::loopback();
        let mut peer = event_loop(config.clone(), &folder);
        let mut other = listening(&config, 1).await;
        let id = *other.local_peer_id();
        peer.swarm.dial(other.listeners().next().unwrap().clone()).unwrap();
        let connection = loop {
            let (at, event) = next(&mut [&mut peer.swarm, &mut other]).await;
            let connected = match &event {
                SwarmEvent::ConnectionEstablished { connection_id, .. } => Some(*connection_id),
                _ => None,
            };
            if at == 0 {
                peer.on_event(event);
                if let Some(connection) = connected {
                    break connection;
                }
            }
        };
        assert!(peer.swarm.behaviour().ranges.can_ask(&id));
        let spent = punches::Event::Spent(id, connection);
        peer.on_event(SwarmEvent::Behaviour(BehaviourEvent::Punches(spent)));
        assert!(!peer.swarm.behaviour().ranges.can_ask(&id));
        let is_closed = |event: &SwarmEvent<BehaviourEvent>| matches!(event, SwarmEvent::ConnectionClosed { connection_id, .. } if *connection_id == connection);
        loop {
            let (at, event) = next(&mut [&mut peer.swarm, &mut other]).await;
            if at == 0 && is_closed(&event) {
                break;
            }
        }
    }

    #[tokio::test]
    async fn a_peer_that_nobody_can_dial_says_so_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut peer = event_loop(NetworkConfig::loopback(), &folder);
        let begin = Instant::now();
        let after = |peer: &mut EventLoop, passed| {
            peer.on_redial(begin + passed);
            peer.hidden.map(|(_, is_told)| is_told)
        };
        assert_eq!(after(&mut peer, Duration::ZERO), Some(false));
        assert_eq!(after(&mut peer, HIDDEN_TOLD / 2), Some(false));
        assert_eq!(after(&mut peer, HIDDEN_TOLD), Some(true));
        // It is reached, and lost again: a new story.
        peer.swarm.add_external_address(address(4001));
        assert_eq!(after(&mut peer, HIDDEN_TOLD * 2), None);
        peer.swarm.remove_external_address(&address(4001));
        assert_eq!(after(&mut peer, HIDDEN_TOLD * 3), Some(false));
    }

    #[test]
    fn a_peer_that_keeps_telling_addresses_has_eight_in_the_table() {
        let (local, peer) = (PeerId::random(), PeerId::random());
        let mut kademlia = Kademlia::new(local, MemoryStore::new(local));
        for message in 0..1_000 {
            let told = (1..4).map(|index| address(message * 3 + index)).collect();
            let known = addresses_of(&mut kademlia, &peer);
            for address in new_addresses(&known, told) {
                kademlia.add_address(&peer, address);
            }
        }
        let known = addresses_of(&mut kademlia, &peer);
        assert_eq!(known, (1..=ADDRESSES_MAX).map(address).collect::<Vec<_>>());
        assert_eq!(new_addresses(&known[..7], known.clone()), [address(8)]);
    }
}

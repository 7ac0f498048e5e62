//! The one task that owns the swarm.
//!
//! It takes commands from the clients and events from the swarm, one at a time, and never waits for either: what takes
//! time (a dial, a question to a peer, a read from disk) is started, and its end is one more event. Nothing that a peer
//! sends ends the loop.

use std::{
    collections::{hash_map::Entry, HashMap, HashSet, VecDeque},
    sync::Arc,
};

use futures::{future::BoxFuture, stream::FuturesUnordered, FutureExt, StreamExt};
use libp2p::{
    core::transport::ListenerId,
    identify,
    kad::{self, store::RecordStore, GetProvidersOk, QueryId, QueryResult, RecordKey},
    request_response::{
        self, InboundFailure, InboundRequestId, OutboundFailure, OutboundRequestId, ResponseChannel,
    },
    swarm::{
        dial_opts::{DialOpts, PeerCondition},
        ConnectionId, SwarmEvent,
    },
    Multiaddr, PeerId, Swarm,
};
use protocol::Hash;
use tokio::{
    sync::{mpsc, oneshot},
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use super::{
    behaviour::{kademlia_name, Behaviour, BehaviourEvent},
    codec::{RangeRequest, RangeResponse, RANGE_LEN_MAX},
    command::{Answer, Command},
    counters::CounterCells,
    rate::Bucket,
    FaultKind, NetworkConfig, NetworkError, PeerAddress, StartError, ADDRESSES_MAX,
};
use crate::{clock::Clock, store::Store};

/// Provider records being spread at a time; the others wait for their turn.
const ANNOUNCING_MAX: usize = 16;

/// Providers that end a search: more than a fetch needs to find one that delivers.
const PROVIDERS_MAX: usize = 8;

/// Seconds' worth of a rate that a peer may use at once.
const BURST_SECONDS: u64 = 10;

/// A question under way.
struct Question {
    /// Whom to ask, and where a connection may be made if there is none.
    peer: PeerAddress,
    request: RangeRequest,
    reply: oneshot::Sender<Answer>,
    /// Whether a connection has closed under it once already.
    repeated: bool,
}

/// Questions that wait for a connection.
struct Dial {
    connection: ConnectionId,
    questions: Vec<Question>,
}

/// A search for providers.
struct Search {
    found: HashSet<PeerId>,
    reply: oneshot::Sender<Vec<PeerId>>,
}

/// What one connected peer has had of us.
#[derive(Default)]
struct PeerUse {
    serving: usize,
    bytes: Bucket,
    records: Bucket,
}

/// A range read from the store, and to whom it goes.
struct Served {
    channel: ResponseChannel<RangeResponse>,
    response: RangeResponse,
}

pub(super) struct EventLoop {
    config: NetworkConfig,
    swarm: Swarm<Behaviour>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    counters: Arc<CounterCells>,
    commands: mpsc::Receiver<Command>,
    shutdown: CancellationToken,

    /// What is served; at most `published_max`.
    published: HashSet<Hash>,
    /// Ids whose provider records wait to be spread; a subset of `published`, each once.
    to_announce: VecDeque<Hash>,
    announcing: HashMap<QueryId, Hash>,
    announce_replies: HashMap<Hash, Vec<oneshot::Sender<()>>>,
    /// Set when a peer became known that should perhaps keep our records.
    announce_due: bool,

    searches: HashMap<QueryId, Search>,
    questions: HashMap<OutboundRequestId, Question>,
    dials: HashMap<PeerId, Dial>,

    /// One entry per connected peer.
    peers: HashMap<PeerId, PeerUse>,
    /// Ranges admitted and not yet sent; at most `serves_max`.
    serving: HashMap<InboundRequestId, PeerId>,
    reads: FuturesUnordered<BoxFuture<'static, Served>>,
}

impl EventLoop {
    pub(super) fn new(
        config: NetworkConfig,
        swarm: Swarm<Behaviour>,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        counters: Arc<CounterCells>,
        commands: mpsc::Receiver<Command>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            config,
            swarm,
            store,
            clock,
            counters,
            commands,
            shutdown,
            published: HashSet::new(),
            to_announce: VecDeque::new(),
            announcing: HashMap::new(),
            announce_replies: HashMap::new(),
            announce_due: false,
            searches: HashMap::new(),
            questions: HashMap::new(),
            dials: HashMap::new(),
            peers: HashMap::new(),
            serving: HashMap::new(),
            reads: FuturesUnordered::new(),
        }
    }

    /// Starts listening, and returns when every configured address is listened on.
    ///
    /// Not cancel-safe: when dropped, some addresses are listened on; drop the loop too.
    pub(super) async fn listen(&mut self) -> Result<(), StartError> {
        for address in self.config.external.clone() {
            self.swarm.add_external_address(address);
        }
        let mut waiting: HashMap<ListenerId, Multiaddr> = HashMap::new();
        for address in self.config.listen.clone() {
            match self.swarm.listen_on(address.clone()) {
                Ok(listener) => waiting.insert(listener, address),
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
            if self.publish(id).is_err() {
                tracing::warn!("more is pinned in the store than may be published");
                break;
            }
        }
        for peer in std::mem::take(&mut self.config.bootstrap) {
            self.add_peer(peer);
        }
        let shutdown = self.shutdown.clone();
        let mut announce = tokio::time::interval(self.config.announce_interval);
        announce.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let has_room = self.questions_count() < self.config.requests_max;
            tokio::select! {
                () = shutdown.cancelled() => break,
                command = self.commands.recv(), if has_room => match command {
                    Some(command) => self.on_command(command),
                    None => break,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
                Some(served) = self.reads.next() => self.on_served(served),
                _ = announce.tick() => self.on_announce_tick(),
            }
        }
        tracing::debug!("network closed");
    }

    fn questions_count(&self) -> usize {
        let waiting = self.dials.values().map(|dial| dial.questions.len());
        self.questions.len() + waiting.sum::<usize>()
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
            Command::AddPeer { peer, reply } => {
                self.add_peer(peer);
                let _ = reply.send(());
            }
            Command::Publish { id, reply } => {
                let _ = reply.send(self.publish(id));
            }
            Command::Unpublish { id, reply } => {
                self.unpublish(&id);
                let _ = reply.send(());
            }
            Command::Announce { id, reply } => self.announce(id, reply),
            Command::Providers { id, reply } => self.search(id, reply),
            Command::Range { peer, request, reply } => {
                let question = Question { peer, request, reply, repeated: false };
                self.ask(question);
            }
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Ranges(event)) => self.on_ranges(event),
            SwarmEvent::Behaviour(BehaviourEvent::Kademlia(event)) => self.on_kademlia(event),
            SwarmEvent::Behaviour(BehaviourEvent::Identify(event)) => self.on_identify(event),
            SwarmEvent::ConnectionEstablished { peer_id, .. } => self.on_connected(peer_id),
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.peers.remove(&peer_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, peer_id: Some(peer), error } => {
                tracing::debug!(%peer, %error, "dial failed");
                self.on_dial_failed(peer, connection_id);
            }
            SwarmEvent::NewListenAddr { address, .. } => {
                tracing::info!(%address, "listening");
            }
            SwarmEvent::ListenerError { error, .. } => {
                tracing::warn!(%error, "listener failed");
            }
            _ => {}
        }
    }
}

/// Publishing, and telling Kademlia.
impl EventLoop {
    fn publish(&mut self, id: Hash) -> Result<(), NetworkError> {
        let count = self.published.len();
        let count_max = self.config.published_max.min(self.config.records_max / 2);
        if !self.published.contains(&id) {
            if count >= count_max {
                return Err(NetworkError::TooMany { count });
            }
            self.published.insert(id);
            self.to_announce.push_back(id);
            self.announce_next();
        }
        Ok(())
    }

    fn unpublish(&mut self, id: &Hash) {
        self.published.remove(id);
        self.to_announce.retain(|waiting| waiting != id);
        self.announce_replies.remove(id);
        let kademlia = &mut self.swarm.behaviour_mut().kademlia;
        kademlia.stop_providing(&RecordKey::new(id));
    }

    fn announce(&mut self, id: Hash, reply: oneshot::Sender<()>) {
        // Not published: the dropped reply says so.
        if self.published.contains(&id) {
            let replies = self.announce_replies.entry(id).or_default();
            replies.retain(|reply| !reply.is_closed());
            // Those who wait are the callers of as many clients; a bound all the same.
            if replies.len() < self.config.commands_max {
                replies.push(reply);
            }
            self.to_announce.retain(|waiting| *waiting != id);
            self.to_announce.push_front(id);
            self.announce_next();
        }
    }

    fn on_announce_tick(&mut self) {
        if std::mem::take(&mut self.announce_due) {
            self.to_announce = self.published.iter().copied().collect();
            self.announce_next();
        }
    }

    fn announce_next(&mut self) {
        while self.announcing.len() < ANNOUNCING_MAX {
            let Some(id) = self.to_announce.pop_front() else {
                return;
            };
            let kademlia = &mut self.swarm.behaviour_mut().kademlia;
            match kademlia.start_providing(RecordKey::new(&id)) {
                Ok(query) => {
                    self.announcing.insert(query, id);
                }
                // The table is full of others' records; the chain's hints still name us.
                Err(error) => {
                    tracing::debug!(%error, "provider record not kept");
                    self.announce_replies.remove(&id);
                }
            }
        }
    }

    fn on_announced(&mut self, query: &QueryId) {
        if let Some(id) = self.announcing.remove(query) {
            for reply in self.announce_replies.remove(&id).into_iter().flatten() {
                let _ = reply.send(());
            }
        }
        self.announce_next();
    }
}

/// Finding peers.
impl EventLoop {
    fn add_peer(&mut self, peer: PeerAddress) {
        if peer.peer == *self.swarm.local_peer_id() {
            return;
        }
        let kademlia = &mut self.swarm.behaviour_mut().kademlia;
        for address in peer.addresses.into_iter().take(ADDRESSES_MAX) {
            kademlia.add_address(&peer.peer, address);
        }
    }

    fn on_identify(&mut self, event: identify::Event) {
        if let identify::Event::Received { peer_id, info, .. } = event {
            let speaks = kademlia_name(&self.config.name)
                .is_some_and(|kademlia| info.protocols.contains(&kademlia));
            if speaks {
                self.add_peer(PeerAddress { peer: peer_id, addresses: info.listen_addrs });
            }
        }
    }

    fn search(&mut self, id: Hash, reply: oneshot::Sender<Vec<PeerId>>) {
        let kademlia = &mut self.swarm.behaviour_mut().kademlia;
        let query = kademlia.get_providers(RecordKey::new(&id));
        let found = HashSet::new();
        self.searches.insert(query, Search { found, reply });
    }

    fn on_kademlia(&mut self, event: kad::Event) {
        match event {
            kad::Event::OutboundQueryProgressed { id, result, step, .. } => match result {
                QueryResult::GetProviders(result) => {
                    if let Ok(GetProvidersOk::FoundProviders { providers, .. }) = result {
                        self.on_providers(&id, providers);
                    }
                    if step.last {
                        self.end_search(&id);
                    }
                }
                QueryResult::StartProviding(_) => self.on_announced(&id),
                _ => {}
            },
            kad::Event::RoutingUpdated { is_new_peer: true, .. } => self.announce_due = true,
            kad::Event::InboundRequest {
                request: kad::InboundRequest::AddProvider { record: Some(record) },
            } => self.on_record(record),
            _ => {}
        }
    }

    fn on_providers(&mut self, query: &QueryId, providers: HashSet<PeerId>) {
        let local = *self.swarm.local_peer_id();
        let Some(search) = self.searches.get_mut(query) else {
            return;
        };
        let mut new = Vec::new();
        for peer in providers {
            let has_room = search.found.len() < PROVIDERS_MAX;
            if has_room && peer != local && search.found.insert(peer) {
                new.push(peer);
            }
        }
        if search.found.len() >= PROVIDERS_MAX {
            let kademlia = &mut self.swarm.behaviour_mut().kademlia;
            if let Some(mut query) = kademlia.query_mut(query) {
                query.finish();
            }
        }
        // Kademlia knows their addresses only while the query runs: connect now.
        for peer in new {
            self.dial(PeerAddress { peer, addresses: Vec::new() });
        }
    }

    fn end_search(&mut self, query: &QueryId) {
        if let Some(Search { found, reply }) = self.searches.remove(query) {
            let mut found: Vec<_> = found.into_iter().collect();
            found.sort();
            let _ = reply.send(found);
        }
    }

    /// Keeps another peer's provider record, if it is one of ours in form and the peer has not sent too many. Kademlia
    /// has checked that the provider is who sent it.
    fn on_record(&mut self, mut record: kad::ProviderRecord) {
        let per_minute = self.config.records_per_minute_max;
        let now = self.clock.now_millis();
        let peer = self.peers.get_mut(&record.provider);
        let admitted =
            peer.is_some_and(|peer| peer.records.take(now, 1, per_minute, per_minute, 60_000));
        if !admitted || record.key.as_ref().len() != size_of::<Hash>() {
            tracing::debug!(peer = %record.provider, "provider record refused");
            return;
        }
        record.addresses.truncate(ADDRESSES_MAX);
        let store = self.swarm.behaviour_mut().kademlia.store_mut();
        if let Err(error) = store.add_provider(record) {
            tracing::debug!(%error, "provider record not kept");
        }
    }
}

/// Asking peers.
impl EventLoop {
    fn ask(&mut self, question: Question) {
        if self.swarm.is_connected(&question.peer.peer) {
            self.send(question);
            return;
        }
        self.dial(question.peer.clone());
        match self.dials.get_mut(&question.peer.peer) {
            Some(dial) => dial.questions.push(question),
            None => {
                let _ = question.reply.send(Err(FaultKind::Unreachable));
            }
        }
    }

    fn send(&mut self, question: Question) {
        // Whoever asked has given up.
        if question.reply.is_closed() {
            return;
        }
        let ranges = &mut self.swarm.behaviour_mut().ranges;
        let id = ranges.send_request(&question.peer.peer, question.request);
        self.questions.insert(id, question);
    }

    /// Begins to connect, unless connected or connecting. Request-response must not dial by itself: it would take
    /// another's failed dial for its own.
    fn dial(&mut self, peer: PeerAddress) {
        if self.swarm.is_connected(&peer.peer) {
            return;
        }
        let Entry::Vacant(entry) = self.dials.entry(peer.peer) else {
            return;
        };
        let addresses = peer.addresses.into_iter().take(ADDRESSES_MAX).collect();
        let options = DialOpts::peer_id(peer.peer)
            // Even while another behaviour dials: it may know other addresses than these.
            .condition(PeerCondition::Disconnected)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .build();
        let connection = options.connection_id();
        match self.swarm.dial(options) {
            Ok(()) => {
                entry.insert(Dial { connection, questions: Vec::new() });
            }
            Err(error) => tracing::debug!(peer = %peer.peer, %error, "cannot dial"),
        }
    }

    fn on_connected(&mut self, peer: PeerId) {
        self.peers.entry(peer).or_default();
        if let Some(dial) = self.dials.remove(&peer) {
            for question in dial.questions {
                self.send(question);
            }
        }
    }

    fn on_dial_failed(&mut self, peer: PeerId, connection: ConnectionId) {
        let Entry::Occupied(entry) = self.dials.entry(peer) else {
            return;
        };
        // Other behaviours dial too; their failures say nothing about this dial.
        if entry.get().connection == connection {
            for question in entry.remove().questions {
                let _ = question.reply.send(Err(FaultKind::Unreachable));
            }
        }
    }

    fn on_failure(&mut self, peer: PeerId, id: OutboundRequestId, error: OutboundFailure) {
        let Some(mut question) = self.questions.remove(&id) else {
            return;
        };
        tracing::debug!(%peer, %error, "a question failed");
        let kind = match error {
            OutboundFailure::ConnectionClosed if !question.repeated => {
                // It may have been closed for being idle just before: that is worth one more connection.
                question.repeated = true;
                return self.ask(question);
            }
            OutboundFailure::ConnectionClosed | OutboundFailure::DialFailure => {
                FaultKind::Unreachable
            }
            OutboundFailure::Timeout => FaultKind::TimedOut,
            OutboundFailure::UnsupportedProtocols => FaultKind::Missing,
            OutboundFailure::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                FaultKind::Malformed
            }
            // The stream broke: a peer that stops, or a connection that goes away.
            OutboundFailure::Io(_) => FaultKind::Unreachable,
        };
        let _ = question.reply.send(Err(kind));
    }
}

/// Serving peers.
impl EventLoop {
    fn on_ranges(&mut self, event: request_response::Event<RangeRequest, RangeResponse>) {
        use request_response::{Event, Message};
        match event {
            Event::Message { peer, message } => match message {
                Message::Request { request_id, request, channel } => {
                    self.serve(peer, request_id, request, channel)
                }
                Message::Response { request_id, response } => {
                    if let Some(question) = self.questions.remove(&request_id) {
                        if let RangeResponse::Found { bytes, .. } = &response {
                            self.counters.add_received(bytes.len());
                        }
                        let _ = question.reply.send(Ok(response));
                    }
                }
            },
            Event::OutboundFailure { peer, request_id, error } => {
                self.on_failure(peer, request_id, error)
            }
            Event::InboundFailure { peer, request_id, error } => {
                if !matches!(error, InboundFailure::ConnectionClosed) {
                    tracing::debug!(%peer, %error, "could not serve a range");
                }
                self.on_sent(&request_id);
            }
            Event::ResponseSent { request_id, .. } => self.on_sent(&request_id),
        }
    }

    fn serve(
        &mut self,
        peer: PeerId,
        request_id: InboundRequestId,
        request: RangeRequest,
        channel: ResponseChannel<RangeResponse>,
    ) {
        if !self.published.contains(&request.id) || request.len > RANGE_LEN_MAX {
            self.respond(channel, RangeResponse::Missing);
            return;
        }
        if !self.admit(&peer, request.len) {
            self.counters.add_refused();
            self.respond(channel, RangeResponse::Busy);
            return;
        }
        self.serving.insert(request_id, peer);
        let store = self.store.clone();
        let RangeRequest { id, offset, len } = request;
        let read = tokio::task::spawn_blocking(move || store.read_range(&id, offset, len));
        let served = async move {
            let response = match read.await {
                Ok(Ok(Some(range))) => {
                    RangeResponse::Found { total_len: range.total_len, bytes: range.bytes }
                }
                Ok(Ok(None)) | Err(_) => RangeResponse::Missing,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot read what is published");
                    RangeResponse::Missing
                }
            };
            Served { channel, response }
        };
        self.reads.push(served.boxed());
    }

    /// Whether `peer` may have `len` more bytes now; if so they are charged to it.
    fn admit(&mut self, peer: &PeerId, len: u32) -> bool {
        if self.serving.len() >= self.config.serves_max {
            return false;
        }
        let fill = self.config.serve_bytes_per_second_max;
        let burst = fill.saturating_mul(BURST_SECONDS);
        let now = self.clock.now_millis();
        let Some(peer) = self.peers.get_mut(peer) else {
            return false;
        };
        let admitted = peer.serving < self.config.serves_per_peer_max
            && peer.bytes.take(now, u64::from(len), burst, fill, 1_000);
        if admitted {
            peer.serving += 1;
        }
        admitted
    }

    fn on_served(&mut self, served: Served) {
        if let RangeResponse::Found { bytes, .. } = &served.response {
            self.counters.add_sent(bytes.len());
        }
        self.respond(served.channel, served.response);
    }

    fn respond(&mut self, channel: ResponseChannel<RangeResponse>, response: RangeResponse) {
        // The peer may be gone; request-response says so in an event of its own.
        let _ = self.swarm.behaviour_mut().ranges.send_response(channel, response);
    }

    /// A range has left, or never will.
    fn on_sent(&mut self, request_id: &InboundRequestId) {
        if let Some(peer) = self.serving.remove(request_id) {
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.serving = peer.serving.saturating_sub(1);
            }
        }
    }
}

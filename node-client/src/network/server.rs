//! Serves ranges to peers, each within what it may have of us.

use std::{collections::HashMap, sync::Arc};

use futures::{future::BoxFuture, stream::FuturesUnordered, FutureExt, StreamExt};
use libp2p::{
    request_response::{self, InboundRequestId, ResponseChannel},
    PeerId,
};

use super::{
    codec::{RangeCodec, RangeRequest, RangeResponse},
    counters::CounterCells,
    rate::Bucket,
    NetworkConfig,
};
use crate::{
    clock::Clock,
    store::{Found, Store},
};

/// Seconds' worth of a rate that a peer may use at once.
const BURST_SECONDS: u64 = 10;

/// Peers whose use is remembered, connected or not; of those that are not, the ones longest without use make room.
const PEERS_MAX: usize = 8_192;

/// The protocol that ranges are served by.
type Ranges = request_response::Behaviour<RangeCodec>;

/// What one peer has had of us. It outlives its connections: who comes back has no more than who stayed.
#[derive(Default)]
struct PeerUse {
    is_connected: bool,
    serving: usize,
    bytes: Bucket,
    records: Bucket,
}

/// A range read from the store, and to whom it goes.
pub(super) struct Served {
    channel: ResponseChannel<RangeResponse>,
    response: RangeResponse,
}

/// What is being served, and what each peer has had.
pub(super) struct Server {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    counters: Arc<CounterCells>,
    serves_max: usize,
    serves_per_peer_max: usize,
    bytes_per_second_max: u64,
    records_per_minute_max: u64,
    /// Every connected peer, and [`PEERS_MAX`] in all unless more are connected.
    peers: HashMap<PeerId, PeerUse>,
    /// Ranges admitted and not yet sent; at most `serves_max`.
    serving: HashMap<InboundRequestId, PeerId>,
    reads: FuturesUnordered<BoxFuture<'static, Served>>,
}

impl Server {
    pub(super) fn new(
        config: &NetworkConfig,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        counters: Arc<CounterCells>,
    ) -> Self {
        Self {
            store,
            clock,
            counters,
            serves_max: config.serves_max,
            serves_per_peer_max: config.serves_per_peer_max,
            bytes_per_second_max: config.serve_bytes_per_second_max,
            records_per_minute_max: config.records_per_minute_max,
            peers: HashMap::new(),
            serving: HashMap::new(),
            reads: FuturesUnordered::new(),
        }
    }

    pub(super) fn on_connected(&mut self, peer: PeerId) {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            let idle = self.peers.iter().filter(|(_, held)| !held.is_connected);
            let oldest = idle.min_by_key(|(_, held)| held.bytes.used_at()).map(|(peer, _)| *peer);
            oldest.and_then(|oldest| self.peers.remove(&oldest));
        }
        self.peers.entry(peer).or_default().is_connected = true;
    }

    pub(super) fn on_disconnected(&mut self, peer: &PeerId) {
        if let Some(held) = self.peers.get_mut(peer) {
            // What was being sent over its connections is not any more.
            held.is_connected = false;
            held.serving = 0;
        }
    }

    /// Whether `peer` may have one more provider record kept; if so it is charged for it.
    pub(super) fn admit_record(&mut self, peer: &PeerId) -> bool {
        let per_minute = self.records_per_minute_max;
        let now = self.clock.now_millis();
        let peer = self.peers.get_mut(peer);
        peer.is_some_and(|peer| peer.records.take(now, 1, per_minute, per_minute, 60_000))
    }

    /// Starts to read what a published content's request asks for; the end is [`Server::next_read`].
    pub(super) fn serve(
        &mut self,
        ranges: &mut Ranges,
        peer: PeerId,
        request_id: InboundRequestId,
        request: RangeRequest,
        channel: ResponseChannel<RangeResponse>,
    ) {
        if !self.admit(&peer, request.len) {
            self.counters.add_refused();
            respond(ranges, channel, RangeResponse::Busy);
            return;
        }
        self.serving.insert(request_id, peer);
        let store = self.store.clone();
        let RangeRequest { id, piece, offset, len } = request;
        let read = tokio::task::spawn_blocking(move || match piece {
            Some(piece) => store.read_piece(&id, piece, offset, len),
            None => store.find_range(&id, offset, len),
        });
        let served = async move {
            let response = match read.await {
                Ok(Ok(Found::Range(range))) => {
                    RangeResponse::Found { total_len: range.total_len, bytes: range.bytes }
                }
                Ok(Ok(Found::OtherPieces)) => RangeResponse::OtherPieces,
                Ok(Ok(Found::Nothing)) | Err(_) => RangeResponse::Missing,
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
        if self.serving.len() >= self.serves_max {
            return false;
        }
        let fill = self.bytes_per_second_max;
        let burst = fill.saturating_mul(BURST_SECONDS);
        let now = self.clock.now_millis();
        let Some(peer) = self.peers.get_mut(peer) else {
            return false;
        };
        let admitted = peer.serving < self.serves_per_peer_max
            && peer.bytes.take(now, u64::from(len), burst, fill, 1_000);
        if admitted {
            peer.serving += 1;
        }
        admitted
    }

    /// The next range that has been read; `None` while none is being read. Cancel-safe.
    pub(super) async fn next_read(&mut self) -> Option<Served> {
        self.reads.next().await
    }

    pub(super) fn on_read(&mut self, ranges: &mut Ranges, served: Served) {
        if let RangeResponse::Found { bytes, .. } = &served.response {
            self.counters.add_sent(bytes.len());
        }
        respond(ranges, served.channel, served.response);
    }

    /// Notes that a range has left, or never will.
    pub(super) fn on_sent(&mut self, request_id: &InboundRequestId) {
        if let Some(peer) = self.serving.remove(request_id) {
            if let Some(peer) = self.peers.get_mut(&peer) {
                peer.serving = peer.serving.saturating_sub(1);
            }
        }
    }
}

/// Sends an answer to the peer that asked.
pub(super) fn respond(
    ranges: &mut Ranges,
    channel: ResponseChannel<RangeResponse>,
    response: RangeResponse,
) {
    // The peer may be gone; request-response says so in an event of its own.
    let _ = ranges.send_response(channel, response);
}

//! Decides which peer is asked for which range, and which is to blame; knows no libp2p.
//!
//! Peers are asked one after another, ranges of one peer in order. A peer that fails half-way is followed by the next,
//! which takes over where it stopped. Only the whole can be checked, so when content that came from several peers turns
//! out wrong nobody is blamed, and the peer that finished is asked for all of it, alone; wrong content from one peer
//! alone is [`FaultKind::Corrupt`].
//!
//! A content whose pieces can be checked by themselves ([`fetch_pieces`]) is asked for a few pieces at a time; whoever serves a
//! wrong one is to blame at once, and nothing that was right is asked for again.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{stream, StreamExt};
use libp2p::PeerId;
use protocol::Hash;

use super::{
    codec::{RangeRequest, RangeResponse},
    Fault, FaultKind, FetchError, FetchRequest, Fetched, PeerAddress, Pieces, PiecesFetched,
    PiecesRequest, Verify,
};
use crate::clock::Clock;

/// How often a busy peer is asked again for one range, the wait doubling from [`BUSY_WAIT`]: 3 seconds in all.
const BUSY_RETRIES_MAX: u32 = 5;
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// Faults kept for the report of one fetch; each peer makes a few at the most.
const FAULTS_MAX: usize = 256;

/// The memory a fetch reserves before any byte has come, whatever length a peer claims.
const RESERVE_MAX: u64 = 4 << 20;

/// Pieces that one peer is asked for at a time: what hides the way there and back, and half of what a peer serves to one.
const PIECES_AT_ONCE: usize = 4;

/// What a fetch needs of the network.
#[async_trait]
pub(super) trait RangeSource: Send + Sync {
    /// One question to one peer.
    async fn range(
        &self,
        peer: &PeerAddress,
        request: RangeRequest,
    ) -> Result<Result<RangeResponse, FaultKind>, FetchError>;

    /// Who else has the content.
    async fn providers(&self, id: Hash) -> Result<Vec<PeerAddress>, FetchError>;

    fn local_peer(&self) -> PeerId;
}

/// The limits of one fetch.
#[derive(Clone, Copy, Debug)]
pub(super) struct FetchLimits {
    pub(super) range_len: u32,
    pub(super) peers_max: usize,
}

/// What has come so far. Invariant: `bytes` are the first of `total_len` bytes, from `peers` in this order.
#[derive(Default)]
struct Partial {
    total_len: Option<u64>,
    bytes: Vec<u8>,
    peers: Vec<PeerId>,
}

/// Fetches and checks one content. Cancel-safe.
pub(super) async fn fetch(
    source: &impl RangeSource,
    clock: &dyn Clock,
    limits: FetchLimits,
    request: FetchRequest,
) -> Result<Fetched, FetchError> {
    let mut candidates = Candidates::new(source.local_peer(), limits.peers_max, request.providers);
    let mut partial = Partial::default();
    let mut faults = Vec::new();
    let mut lookup = true;
    loop {
        let Some(peer) = candidates.queue.pop_front() else {
            if std::mem::take(&mut lookup) {
                candidates.extend(source.providers(request.id).await?);
                continue;
            }
            break;
        };
        let asked = ask(source, clock, limits, request.id, request.len_max, &peer, &mut partial);
        if let Err(kind) = asked.await? {
            blame(&mut faults, peer.peer, kind);
            continue;
        }
        let Partial { bytes, peers, .. } = std::mem::take(&mut partial);
        match verified(&request.verify, bytes.into()).await {
            Some(bytes) => return Ok(Fetched { bytes, peers, faults }),
            None if peers.len() == 1 => blame(&mut faults, peer.peer, FaultKind::Corrupt),
            None => candidates.queue.push_front(peer),
        }
    }
    Err(FetchError::Unavailable { id: request.id, faults })
}

fn blame(faults: &mut Vec<Fault>, peer: PeerId, kind: FaultKind) {
    tracing::debug!(%peer, ?kind, "a peer failed to deliver");
    if faults.len() < FAULTS_MAX {
        faults.push(Fault { peer, kind });
    }
}

/// Whom to ask, each peer once, ourselves never.
struct Candidates {
    queue: VecDeque<PeerAddress>,
    seen: HashSet<PeerId>,
    peers_max: usize,
}

impl Candidates {
    fn new(local: PeerId, peers_max: usize, hints: Vec<PeerAddress>) -> Self {
        let mut candidates = Self {
            queue: VecDeque::new(),
            seen: HashSet::from([local]),
            // The local peer is among the seen.
            peers_max: peers_max.saturating_add(1),
        };
        candidates.extend(hints);
        candidates
    }

    fn extend(&mut self, peers: Vec<PeerAddress>) {
        for peer in peers {
            if self.seen.len() < self.peers_max && self.seen.insert(peer.peer) {
                self.queue.push_back(peer);
            }
        }
    }
}

/// Asks one peer for what is missing, range by range. `Ok(Ok(()))` when `partial` is complete.
async fn ask(
    source: &impl RangeSource,
    clock: &dyn Clock,
    limits: FetchLimits,
    id: Hash,
    len_max: u64,
    peer: &PeerAddress,
    partial: &mut Partial,
) -> Result<Result<(), FaultKind>, FetchError> {
    let mut busy = 0;
    loop {
        let offset = partial.bytes.len() as u64;
        let len = limits.range_len;
        let range = RangeRequest { id, offset, len };
        let (total_len, bytes) = match source.range(peer, range).await? {
            Ok(RangeResponse::Found { total_len, bytes }) => (total_len, bytes),
            Ok(RangeResponse::Missing) => return Ok(Err(FaultKind::Missing)),
            Ok(RangeResponse::Busy) if busy == BUSY_RETRIES_MAX => return Ok(Err(FaultKind::Busy)),
            Ok(RangeResponse::Busy) => {
                clock.sleep(BUSY_WAIT.saturating_mul(1 << busy)).await;
                busy += 1;
                continue;
            }
            Err(kind) => return Ok(Err(kind)),
        };
        if total_len > len_max {
            return Ok(Err(FaultKind::TooLong { total_len }));
        }
        if bytes.len() as u64 != total_len.saturating_sub(offset).min(u64::from(len)) {
            return Ok(Err(FaultKind::Malformed));
        }
        if partial.total_len.is_some_and(|claimed| claimed != total_len) {
            // An honest peer keeps its claim, so the bytes so far are another's: this peer starts afresh. One that
            // changes its own claim does not get to do so for ever.
            let own = partial.peers.last() == Some(&peer.peer);
            *partial = Partial::default();
            if own {
                return Ok(Err(FaultKind::Malformed));
            }
            continue;
        }
        if partial.total_len.is_none() {
            partial.total_len = Some(total_len);
            let reserve = total_len.min(RESERVE_MAX);
            partial.bytes.reserve(usize::try_from(reserve).unwrap_or_default());
        }
        if partial.peers.last() != Some(&peer.peer) {
            partial.peers.push(peer.peer);
        }
        partial.bytes.extend_from_slice(&bytes);
        if partial.bytes.len() as u64 == total_len {
            return Ok(Ok(()));
        }
        busy = 0;
    }
}

/// Fetches what is missing of a content, each piece checked as it arrives. Cancel-safe.
pub(super) async fn fetch_pieces(
    source: &impl RangeSource,
    clock: &dyn Clock,
    limits: FetchLimits,
    request: PiecesRequest,
) -> Result<PiecesFetched, FetchError> {
    let PiecesRequest { id, providers, pieces } = request;
    let mut candidates = Candidates::new(source.local_peer(), limits.peers_max, providers);
    let mut fetched = PiecesFetched::default();
    let mut lookup = true;
    loop {
        let missing = missing(&*pieces);
        if missing.is_empty() {
            return Ok(fetched);
        }
        let Some(peer) = candidates.queue.pop_front() else {
            if std::mem::take(&mut lookup) {
                candidates.extend(source.providers(id).await?);
                continue;
            }
            return Err(FetchError::Unavailable { id, faults: fetched.faults });
        };
        let mut asked = stream::iter(missing)
            .map(|index| ask_piece(source, clock, limits, id, &peer, &pieces, index))
            .buffered(PIECES_AT_ONCE);
        while let Some(answer) = asked.next().await {
            match answer? {
                Ok(()) if fetched.peers.last() == Some(&peer.peer) => {}
                Ok(()) => fetched.peers.push(peer.peer),
                Err(kind) => {
                    blame(&mut fetched.faults, peer.peer, kind);
                    break;
                }
            }
        }
    }
}

/// The pieces that are not here.
fn missing(pieces: &dyn Pieces) -> Vec<usize> {
    let is_missing = |index: &usize| pieces.piece(*index).is_some_and(|(_, _, is_here)| !is_here);
    (0..pieces.count()).filter(is_missing).collect()
}

/// Asks one peer for one piece, range by range, and hands it over.
async fn ask_piece(
    source: &impl RangeSource,
    clock: &dyn Clock,
    limits: FetchLimits,
    id: Hash,
    peer: &PeerAddress,
    pieces: &Arc<dyn Pieces>,
    index: usize,
) -> Result<Result<(), FaultKind>, FetchError> {
    let Some((start, piece_len, _)) = pieces.piece(index) else {
        return Ok(Ok(()));
    };
    let mut piece = Vec::with_capacity(piece_len as usize);
    let mut busy = 0;
    while piece.len() < piece_len as usize {
        let have = piece.len() as u64;
        let len = limits.range_len.min(piece_len.saturating_sub(have as u32));
        let range = RangeRequest { id, offset: start.saturating_add(have), len };
        let (total_len, bytes) = match source.range(peer, range).await? {
            Ok(RangeResponse::Found { total_len, bytes }) => (total_len, bytes),
            Ok(RangeResponse::Missing) => return Ok(Err(FaultKind::Missing)),
            Ok(RangeResponse::Busy) if busy == BUSY_RETRIES_MAX => return Ok(Err(FaultKind::Busy)),
            Ok(RangeResponse::Busy) => {
                clock.sleep(BUSY_WAIT.saturating_mul(1 << busy)).await;
                busy += 1;
                continue;
            }
            Err(kind) => return Ok(Err(kind)),
        };
        if total_len > pieces.byte_len() {
            return Ok(Err(FaultKind::TooLong { total_len }));
        }
        if total_len != pieces.byte_len() || bytes.len() as u64 != u64::from(len) {
            return Ok(Err(FaultKind::Malformed));
        }
        piece.extend_from_slice(&bytes);
        busy = 0;
    }
    let pieces = pieces.clone();
    let accepted = tokio::task::spawn_blocking(move || pieces.accept(index, &piece)).await;
    // A check that panics has not accepted.
    Ok(if accepted.unwrap_or(false) { Ok(()) } else { Err(FaultKind::Corrupt) })
}

/// The bytes if the check accepts them; checked on a thread that may block.
pub(super) async fn verified(verify: &Verify, bytes: Bytes) -> Option<Bytes> {
    let verify = verify.clone();
    let checked = tokio::task::spawn_blocking(move || verify(&bytes).then_some(bytes));
    // A check that panics has not accepted.
    checked.await.unwrap_or(None)
}

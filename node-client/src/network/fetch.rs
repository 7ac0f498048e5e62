//! Decides which peer is asked for which range, and which is to blame; knows no libp2p.
//!
//! Peers are asked one after another, ranges of one peer in order, who delivered before ahead of who failed ([`Standing`]).
//! A peer that fails half-way is followed by the next, which takes over where it stopped. When one
//! takes much longer than ranges usually do, the next is asked beside it, and whoever delivers first goes on. Only the whole
//! can be checked, so when content that came from several peers turns out wrong nobody is blamed, and the peer that finished
//! is asked for all of it, alone, as from then on the others are; wrong content from one peer alone is
//! [`FaultKind::Corrupt`].
//!
//! A content whose pieces can be checked by themselves is fetched by [`super::download`], from several at once.

use std::{
    collections::{HashSet, VecDeque},
    future::Future,
    ops::RangeInclusive,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{stream::FuturesUnordered, StreamExt};
use libp2p::PeerId;
use protocol::Hash;

use super::{
    codec::{RangeRequest, RangeResponse},
    partials::{Partial, Partials},
    standing::Standing,
    Fault, FaultKind, FetchError, FetchRequest, Fetched, PeerAddress, Verify,
};
use crate::{clock::Clock, store::PieceMap};

/// How often a busy peer is asked again for one range, the wait doubling from [`BUSY_WAIT`]: 3 seconds in all.
const BUSY_RETRIES_MAX: u32 = 5;
const BUSY_WAIT: Duration = Duration::from_millis(100);

/// Faults kept for the report of one fetch; each peer makes a few at the most.
const FAULTS_MAX: usize = 256;

/// What a fetch needs of the network.
#[async_trait]
pub(super) trait RangeSource: Send + Sync {
    /// One question to one peer; to drop the future withdraws it.
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

/// Fetches and checks one content, going on where an earlier fetch of it ended. Cancel-safe.
pub(super) async fn fetch(
    source: &impl RangeSource,
    clock: &dyn Clock,
    limits: FetchLimits,
    standing: &Standing,
    partials: &Partials,
    request: FetchRequest,
) -> Result<Fetched, FetchError> {
    let FetchRequest { id, len_min, len_max, providers, verify } = request;
    let local = source.local_peer();
    let mut race = Race {
        clock,
        candidates: Candidates::new(local, limits.peers_max, standing, providers),
        faults: Vec::new(),
        is_open: true,
    };
    let mut kept = partials.resume(id);
    let partial = &mut kept.partial;
    let mut next = None;
    loop {
        let Some(first) = (match next.take() {
            Some(peer) => Some(peer),
            None => race.candidates.next(source, id).await?,
        }) else {
            return Err(FetchError::Unavailable { id, faults: race.faults });
        };
        let offset = partial.bytes.len() as u64;
        let range = RangeRequest { id, piece: None, offset, len: limits.range_len };
        let ask = |peer| ask(source, clock, range, len_min..=len_max, peer);
        let Some((peer, (total_len, bytes))) = race.run(first, ask).await? else {
            continue;
        };
        if !partial.add(peer.peer, total_len, &bytes) {
            // An honest peer keeps its claim, so the bytes so far are another's: this peer starts afresh, and alone, or two
            // could do so to each other for ever. One that changes its own claim does not get to do so again.
            let own = partial.peers.last() == Some(&peer.peer);
            *partial = Partial::default();
            race.is_open = false;
            if own {
                race.blame(peer.peer, FaultKind::Malformed);
            } else {
                next = Some(peer);
            }
            continue;
        }
        if !partial.is_whole() {
            next = Some(peer);
            continue;
        }
        let Partial { bytes, peers, .. } = std::mem::take(partial);
        match verified(&verify, bytes.into()).await {
            Some(bytes) => return Ok(Fetched { bytes, peers, faults: race.faults }),
            None if peers.len() == 1 => race.blame(peer.peer, FaultKind::Corrupt),
            None => {
                race.is_open = false;
                next = Some(peer);
            }
        }
    }
}

/// Who is asked in one fetch, and who failed.
struct Race<'a> {
    clock: &'a dyn Clock,
    candidates: Candidates<'a>,
    faults: Vec<Fault>,
    /// Whether another peer may be asked beside one that takes long.
    is_open: bool,
}

impl Race<'_> {
    /// Asks `first`, after a while another peer beside it, and so on: who delivered, and what. `None` if all who were asked
    /// failed. Who was overtaken stays a candidate, after all others. Cancel-safe.
    async fn run<T, F>(
        &mut self,
        first: PeerAddress,
        ask: impl Fn(PeerAddress) -> F,
    ) -> Result<Option<(PeerAddress, T)>, FetchError>
    where
        F: Future<Output = (PeerAddress, Result<Result<T, FaultKind>, FetchError>)>,
    {
        let Self { clock, candidates, .. } = self;
        let standing = candidates.standing;
        let patience = standing.patience();
        let mut answers = FuturesUnordered::new();
        let mut waiting = Vec::new();
        let mut another = Some(first);
        loop {
            if let Some(another) = another.take() {
                waiting.push((another.clone(), clock.now_millis()));
                answers.push(ask(another));
            }
            let has_more = self.is_open && !candidates.queue.is_empty();
            let (peer, answer) = tokio::select! {
                // What has come is looked at before the time.
                biased;
                answer = answers.next() => match answer {
                    Some(answer) => answer,
                    None => return Ok(None),
                },
                () = clock.sleep(patience), if has_more => {
                    another = candidates.queue.pop_front();
                    continue;
                }
            };
            let now = clock.now_millis();
            let asked = waiting.iter().position(|(other, _)| other.peer == peer.peer);
            let asked_at = asked.map_or(now, |index| waiting.swap_remove(index).1);
            match answer? {
                Ok(delivered) => {
                    standing.delivered(&peer.peer, now.saturating_sub(asked_at));
                    for (slow, asked_at) in waiting {
                        if u128::from(now.saturating_sub(asked_at)) >= patience.as_millis() {
                            standing.failed(slow.peer);
                        }
                        candidates.queue.push_back(slow);
                    }
                    return Ok(Some((peer, delivered)));
                }
                Err(kind) => blame(&mut self.faults, standing, peer.peer, kind),
            }
        }
    }

    fn blame(&mut self, peer: PeerId, kind: FaultKind) {
        blame(&mut self.faults, self.candidates.standing, peer, kind);
    }
}

pub(super) fn blame(faults: &mut Vec<Fault>, standing: &Standing, peer: PeerId, kind: FaultKind) {
    tracing::debug!(%peer, ?kind, "a peer failed to deliver");
    // That it has not this content, or is busy, says nothing of another time.
    if !matches!(kind, FaultKind::Missing | FaultKind::Busy) {
        standing.failed(peer);
    }
    if faults.len() < FAULTS_MAX {
        faults.push(Fault { peer, kind });
    }
}

/// Whom to ask, each peer once, ourselves never, and who failed before last.
pub(super) struct Candidates<'a> {
    pub(super) queue: VecDeque<PeerAddress>,
    seen: HashSet<PeerId>,
    /// Of hints so many are asked, and as many of those whom the network names.
    peers_max: usize,
    found_max: usize,
    /// Whether the network has been asked who else there is.
    looked_up: bool,
    standing: &'a Standing,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(
        local: PeerId,
        peers_max: usize,
        standing: &'a Standing,
        hints: Vec<PeerAddress>,
    ) -> Self {
        let mut candidates = Self {
            queue: VecDeque::new(),
            seen: HashSet::from([local]),
            // The local peer is among the seen.
            peers_max: peers_max.saturating_add(1),
            found_max: peers_max,
            looked_up: false,
            standing,
        };
        candidates.extend(hints);
        candidates
    }

    fn extend(&mut self, mut peers: Vec<PeerAddress>) {
        self.standing.sort(&mut peers);
        for peer in peers {
            if self.seen.len() < self.peers_max && self.seen.insert(peer.peer) {
                self.queue.push_back(peer);
            }
        }
    }

    /// The next to ask; those whom the network names come after the hints.
    pub(super) async fn next(
        &mut self,
        source: &impl RangeSource,
        id: Hash,
    ) -> Result<Option<PeerAddress>, FetchError> {
        if self.queue.is_empty() && !std::mem::replace(&mut self.looked_up, true) {
            let found = source.providers(id).await?;
            // However many hints were in vain.
            self.peers_max = self.peers_max.saturating_add(self.found_max);
            self.extend(found);
        }
        Ok(self.queue.pop_front())
    }
}

/// Asks one peer for the next range: the bytes of the whole content, and those of the range.
async fn ask(
    source: &impl RangeSource,
    clock: &dyn Clock,
    range: RangeRequest,
    total_lens: RangeInclusive<u64>,
    peer: PeerAddress,
) -> (PeerAddress, Result<Result<(u64, Bytes), FaultKind>, FetchError>) {
    let answer = range_of(source, clock, &peer, range).await;
    let checked = answer.map(|answer| {
        let (total_len, bytes) = match answer? {
            Answered::Range(total_len, bytes, _) => (total_len, bytes),
            // Who has pieces only does not have the content.
            Answered::OtherPieces(_) => return Err(FaultKind::Missing),
        };
        if total_len > *total_lens.end() {
            return Err(FaultKind::TooLong { total_len });
        }
        if total_len < *total_lens.start() {
            return Err(FaultKind::Malformed);
        }
        let len = total_len.saturating_sub(range.offset).min(u64::from(range.len));
        if bytes.len() as u64 != len {
            return Err(FaultKind::Malformed);
        }
        Ok((total_len, bytes))
    });
    (peer, checked)
}

/// What a peer has of what it is asked for.
pub(super) enum Answered {
    /// How many bytes it says that the content or the piece has, those of the range, and which pieces it has, if it says
    /// so.
    Range(u64, Bytes, Option<PieceMap>),
    OtherPieces(PieceMap),
}

/// Asks one peer for a range, again while it is busy.
pub(super) async fn range_of(
    source: &impl RangeSource,
    clock: &dyn Clock,
    peer: &PeerAddress,
    range: RangeRequest,
) -> Result<Result<Answered, FaultKind>, FetchError> {
    let mut busy = 0;
    loop {
        return Ok(match source.range(peer, range).await? {
            Ok(RangeResponse::Found { total_len, bytes }) => {
                Ok(Answered::Range(total_len, bytes, None))
            }
            Ok(RangeResponse::Part { total_len, bytes, map }) => {
                Ok(Answered::Range(total_len, bytes, Some(map)))
            }
            Ok(RangeResponse::OtherPieces(map)) => Ok(Answered::OtherPieces(map)),
            Ok(RangeResponse::Missing) => Err(FaultKind::Missing),
            Ok(RangeResponse::Busy) if busy == BUSY_RETRIES_MAX => Err(FaultKind::Busy),
            Ok(RangeResponse::Busy) => {
                clock.sleep(BUSY_WAIT.saturating_mul(1 << busy)).await;
                busy += 1;
                continue;
            }
            Err(kind) => Err(kind),
        });
    }
}

/// The bytes if the check accepts them; checked on a thread that may block.
pub(super) async fn verified(verify: &Verify, bytes: Bytes) -> Option<Bytes> {
    let verify = verify.clone();
    let checked = tokio::task::spawn_blocking(move || verify(&bytes).then_some(bytes));
    // A check that panics has not accepted.
    checked.await.unwrap_or(None)
}

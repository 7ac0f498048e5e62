//! Asks a mirror as if it were one more peer, which has a peer id of its own in reports and in
//! [`Standing`](super::standing).
//!
//! It is asked after the first few peers that a fetch begins with, so that it has its part of every download and is
//! soon found when peers are gone. When it fails it rests, each time twice as long. What it delivers is checked as a
//! peer's is.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use libp2p::PeerId;
use protocol::Hash;

use super::{
    codec::{RangeRequest, RangeResponse},
    FaultKind, PeerAddress,
};
use crate::{
    clock::Clock,
    mirror::{Mirror, MirrorError},
    store::{Cut, Range},
};

/// Peers that are asked before it.
const PLACE: usize = 4;

/// How long it rests after its first failure, and at most.
const REST: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(300);

/// Lists of pieces that are remembered, and for how long: one that was wrong may be right later.
const CUTS_MAX: usize = 16;
const CUT_MILLIS: u64 = 60_000;

/// The multihash code of SHA2-256 and its length: the form of a peer id that is 32 bytes of hash.
const HASHED: [u8; 2] = [0x12, 32];

/// A mirror among the peers.
pub(super) struct Mirrored {
    pub(super) mirror: Mirror,
    peer: PeerId,
    clock: Arc<dyn Clock>,
    // Held for a look or a change, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Failures since it last answered.
    failures: u32,
    /// Until when nobody asks it, by the clock.
    rests_until: u64,
    /// Where pieces of contents lie, and when each was read, the oldest first.
    cuts: VecDeque<(Hash, u64, Bytes)>,
}

impl Mirrored {
    pub(super) fn new(mirror: Mirror, clock: Arc<dyn Clock>) -> Self {
        let digest = *blake3::hash(mirror.name().as_bytes()).as_bytes();
        // A hash has the length that its code says.
        let peer = PeerId::from_bytes(&[&HASHED[..], &digest].concat());
        Self {
            mirror,
            peer: peer.unwrap_or_else(|_| PeerId::random()),
            clock,
            state: Mutex::default(),
        }
    }

    /// The mirror among those to ask for a content, unless it rests.
    pub(super) fn among(&self, mut providers: Vec<PeerAddress>) -> Vec<PeerAddress> {
        if self.clock.now_millis() >= self.state().rests_until {
            let mirror = PeerAddress { peer: self.peer, addresses: Vec::new() };
            providers.insert(providers.len().min(PLACE), mirror);
        }
        providers
    }

    pub(super) fn is(&self, peer: &PeerAddress) -> bool {
        peer.peer == self.peer
    }

    /// Who it is in reports.
    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }

    /// What it answers. Cancel-safe.
    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, FaultKind> {
        // It has all of a content or nothing, and says so when asked for bytes. A bucket serves no empty range.
        if request.len == 0 {
            return Ok(RangeResponse::Missing);
        }
        let read = match request.piece {
            None => self.mirror.read(&request.id, request.offset, request.len).await,
            Some(piece) => self.piece(&request, piece).await,
        };
        let mut state = self.state();
        match read {
            Ok(found) => {
                state.failures = 0;
                let found = found
                    .map(|Range { total_len, bytes }| RangeResponse::Found { total_len, bytes });
                Ok(found.unwrap_or(RangeResponse::Missing))
            }
            Err(error) => {
                let rest = REST.saturating_mul(2u32.saturating_pow(state.failures)).min(REST_MAX);
                // Questions under way at the same time fail together.
                if self.clock.now_millis() >= state.rests_until {
                    tracing::warn!(mirror = self.mirror.name(), %error, ?rest, "the mirror rests");
                    state.failures = state.failures.saturating_add(1);
                    let rest = u64::try_from(rest.as_millis()).unwrap_or(u64::MAX);
                    state.rests_until = self.clock.now_millis().saturating_add(rest);
                }
                Err(FaultKind::Unreachable)
            }
        }
    }

    /// A range of a numbered piece: what it has of each of the spans that are the piece.
    async fn piece(
        &self,
        request: &RangeRequest,
        piece: u32,
    ) -> Result<Option<Range>, MirrorError> {
        let Some(cut) = self.cut(&request.id).await? else { return Ok(None) };
        let Some(spans) = Cut::entry(&cut, piece) else { return Ok(None) };
        let (total_len, wanted) = Cut::range(&spans, request.offset, request.len);
        let read = |span: crate::store::Span| async move {
            match span.len {
                0 => Ok(Some(Bytes::new())),
                len => Ok(self
                    .mirror
                    .read(&request.id, span.offset, len)
                    .await?
                    .map(|range| range.bytes)),
            }
        };
        let [first, second] = wanted;
        let read: Result<_, MirrorError> = futures::try_join!(read(first), read(second));
        let (first, second) = read?;
        let both = first.zip(second);
        Ok(both.map(|(first, second)| Range { total_len, bytes: [first, second].concat().into() }))
    }

    async fn cut(&self, id: &Hash) -> Result<Option<Bytes>, MirrorError> {
        let now = self.clock.now_millis();
        let known = {
            let mut state = self.state();
            state.cuts.retain(|(_, read_at, _)| now.saturating_sub(*read_at) < CUT_MILLIS);
            state.cuts.iter().find(|(other, ..)| other == id).map(|(.., cut)| cut.clone())
        };
        if known.is_some() {
            return Ok(known);
        }
        let read = self.mirror.read_cut(id).await?;
        if let Some(cut) = &read {
            let mut state = self.state();
            if state.cuts.len() >= CUTS_MAX {
                state.cuts.pop_front();
            }
            state.cuts.push_back((*id, now, cut.clone()));
        }
        Ok(read)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

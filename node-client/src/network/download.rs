//! Fetches a content piece by piece from several peers at once; knows no libp2p.
//!
//! Each peer is asked for as many pieces as it delivers in a second ([`Standing::turn`]), of all contents together, and
//! the bytes of pieces on their way are bounded over all contents (`room`). Who has a part only says which pieces it
//! has, with the first answer that it lacks one and once a second from then on: it is asked for those, the rarest
//! first. When a piece takes three times as long as expected another peer is asked for it beside the first, and whoever
//! delivers it first goes on. Each is checked as it arrives and kept in the [`Part`]: who served a wrong one is to
//! blame, nobody else, and nothing that was right is asked for again.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc,
    },
    time::Duration,
};

use futures::{
    future::{abortable, AbortHandle, BoxFuture},
    stream::FuturesUnordered,
    FutureExt, StreamExt,
};
use libp2p::PeerId;
use protocol::Hash;
use tokio::sync::Semaphore;

use super::{
    codec::{RangeRequest, RangeResponse},
    fetch::{blame, range_of, Answered, Candidates, FetchLimits, RangeSource},
    standing::{Standing, Turn},
    FaultKind, FetchError, PeerAddress, Pieces, PiecesFetched, PiecesRequest,
};
use crate::{
    clock::Clock,
    store::{Part, PieceMap},
};

/// How often who has a part is asked which pieces it has by now, how long it has for the answer, and how often all are
/// asked until a piece counts as had by nobody.
const OTHER_PIECES_PAUSE: Duration = Duration::from_secs(1);
const MAP_PATIENCE: Duration = Duration::from_secs(5);
const OTHER_PIECES_ROUNDS_MAX: u32 = 10;

/// Pieces among which the rarest is looked for: each choice takes so many looks at each provider.
const RAREST_OF: usize = 256;

/// A piece of fewer bytes is checked where it arrives: that takes less than to hand it to another thread.
const CHECKED_HERE_MAX: usize = 64 << 10;

/// Bytes that one permit of the room stands for.
const PERMIT_BYTES: u64 = 1 << 10;

/// What all downloads of a process share.
pub(super) struct Shared {
    pub(super) standing: Arc<Standing>,
    /// Permits for [`PERMIT_BYTES`] each of pieces on their way.
    room: Semaphore,
    room_max: u32,
}

impl Shared {
    pub(super) fn new(standing: Arc<Standing>, pieces_bytes_max: usize) -> Self {
        let permits = pieces_bytes_max as u64 / PERMIT_BYTES;
        let room_max = u32::try_from(permits).unwrap_or(u32::MAX).max(1);
        Self { standing, room: Semaphore::new(room_max as usize), room_max }
    }
}

/// Fetches what is missing of a content, and keeps it in `part`, if there is one. Cancel-safe: what has come stays.
pub(super) async fn download(
    source: &impl RangeSource,
    clock: &dyn Clock,
    limits: FetchLimits,
    shared: &Shared,
    request: PiecesRequest,
    part: Option<Arc<Part>>,
) -> Result<PiecesFetched, FetchError> {
    let PiecesRequest { id, providers, pieces, .. } = request;
    let candidates =
        Candidates::new(source.local_peer(), limits.peers_max, &shared.standing, providers);
    let missing = (0..pieces.count()).filter(|index| is_missing(&*pieces, *index));
    let mut missing: VecDeque<usize> = missing.collect();
    // Everybody begins elsewhere, so that those who fetch have something for each other.
    let begin = source
        .local_peer()
        .to_bytes()
        .iter()
        .fold(0, |sum, byte| (sum * 31 + usize::from(*byte)) & 0xFFFF);
    let begin = begin.checked_rem(missing.len()).unwrap_or_default();
    missing.rotate_left(begin);
    let download = Download {
        left: missing.len(),
        missing,
        asker: Asker { source, clock, limits, shared, id, pieces, part },
        candidates,
        providers: Vec::new(),
        asked: HashMap::new(),
        next_ticket: 0,
        rounds: 0,
        fetched: PiecesFetched::default(),
    };
    download.run().await
}

fn is_missing(pieces: &dyn Pieces, index: usize) -> bool {
    pieces.piece(index).is_some_and(|(_, _, is_here)| !is_here)
}

/// What one question needs.
struct Asker<'a, S> {
    source: &'a S,
    clock: &'a dyn Clock,
    limits: FetchLimits,
    shared: &'a Shared,
    id: Hash,
    pieces: Arc<dyn Pieces>,
    part: Option<Arc<Part>>,
}

/// A peer that takes part in a download.
struct Provider {
    address: PeerAddress,
    /// It failed: it is asked no more in this download.
    is_gone: bool,
    /// Another one overtook it: it is asked when nobody else can be.
    is_slow: bool,
    /// Which pieces it has, if it said that it has not all.
    map: Option<PieceMap>,
    /// Pieces that it did not have when asked, whatever it says.
    lacks: HashSet<usize>,
    /// Whether it is asked for its map now.
    is_asked: bool,
}

impl Provider {
    fn new(address: PeerAddress) -> Self {
        Self {
            address,
            is_gone: false,
            is_slow: false,
            map: None,
            lacks: HashSet::new(),
            is_asked: false,
        }
    }

    fn may_have(&self, piece: usize) -> bool {
        !self.lacks.contains(&piece) && self.map.as_ref().is_none_or(|map| map.may_have(piece))
    }

    /// Whether it may have more by now than it had.
    fn is_partial(&self) -> bool {
        !self.is_gone && (self.map.is_some() || !self.lacks.is_empty())
    }
}

/// A question under way.
struct Asked {
    provider: usize,
    piece: usize,
    /// When there was room for it, by the clock; 0 before.
    started: Arc<AtomicU64>,
    patience: Duration,
    abort: AbortHandle,
}

/// How a question ended.
enum Outcome {
    /// The piece is here; so many bytes came.
    Delivered(u64),
    Failed(FaultKind),
    OtherPieces(PieceMap),
    Overtaken,
}

/// What comes of what was asked.
enum Answer {
    /// The end of a question for a piece.
    Piece(u64, Result<Outcome, FetchError>),
    /// What a provider says of what it has; `None` if it takes too long.
    Map(usize, Result<Option<Result<RangeResponse, FaultKind>>, FetchError>),
}

struct Download<'a, S> {
    asker: Asker<'a, S>,
    candidates: Candidates<'a>,
    providers: Vec<Provider>,
    /// Pieces that nobody is asked for, in the order in which to ask.
    missing: VecDeque<usize>,
    /// Pieces that are not here.
    left: usize,
    asked: HashMap<u64, Asked>,
    next_ticket: u64,
    /// How often nobody had a further piece, since one came.
    rounds: u32,
    fetched: PiecesFetched,
}

impl<'a, S: RangeSource> Download<'a, S> {
    async fn run(mut self) -> Result<PiecesFetched, FetchError> {
        // Lives outside of `self`, whose asker the questions borrow.
        let asker = Asker {
            pieces: self.asker.pieces.clone(),
            part: self.asker.part.clone(),
            ..self.asker
        };
        let mut answers: FuturesUnordered<BoxFuture<'_, Answer>> = FuturesUnordered::new();
        // When those who have a part are asked again what they have, however much comes meanwhile.
        let mut look: Option<BoxFuture<'_, ()>> = None;
        while self.left > 0 {
            let is_blocked = self.assign(&asker, &mut answers);
            if !self.may_look_again() {
                look = None;
                if answers.is_empty() && !is_blocked {
                    self.widen().await?;
                    continue;
                }
            } else if look.is_none() {
                look = Some(asker.clock.sleep(OTHER_PIECES_PAUSE));
            }
            // What other downloads release between the look and now is seen a moment later.
            let blocked = is_blocked.then_some(OTHER_PIECES_PAUSE);
            let pause = self.pause().into_iter().chain(blocked).min();
            let looks = look.is_some();
            tokio::select! {
                // What has come is looked at before the time.
                biased;
                Some(answer) = answers.next(), if !answers.is_empty() => match answer {
                    Answer::Piece(ticket, outcome) => self.take(ticket, outcome?),
                    Answer::Map(provider, said) => self.told(provider, said?),
                },
                () = asker.shared.standing.released(), if is_blocked => {}
                () = async { if let Some(look) = &mut look { look.await } }, if looks => {
                    look = None;
                    self.look_again(&asker, &mut answers);
                }
                () = asker.clock.sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
        Ok(self.fetched)
    }

    /// Asks whom it can for what nobody is asked for, and for what takes too long. Whether peers could be asked for more if other
    /// downloads did not.
    fn assign<'b>(
        &mut self,
        asker: &'b Asker<'a, S>,
        answers: &mut FuturesUnordered<BoxFuture<'b, Answer>>,
    ) -> bool {
        let mut is_blocked = false;
        let mut full = HashSet::new();
        loop {
            let choice = self.next_missing(&full).or_else(|| self.next_overdue(&full));
            if let Some((provider, piece)) = choice {
                let Some((_, len, _)) = asker.pieces.piece(piece) else {
                    self.missing.retain(|other| *other != piece);
                    continue;
                };
                let peer = self.providers[provider].address.peer;
                match asker.shared.standing.turn(peer, len.into()) {
                    Some(turn) => answers.push(self.ask(asker, provider, piece, turn)),
                    None => {
                        is_blocked = true;
                        full.insert(provider);
                    }
                }
                continue;
            }
            let wants_more = !self.missing.is_empty() || self.overdue().next().is_some();
            let next = if wants_more { self.candidates.queue.pop_front() } else { None };
            match next {
                Some(address) => self.providers.push(Provider::new(address)),
                None => return is_blocked,
            }
        }
    }

    /// The next piece that nobody is asked for, and whom to ask for it.
    fn next_missing(&self, full: &HashSet<usize>) -> Option<(usize, usize)> {
        let choose = |provider: usize| {
            let piece = rarest(&self.missing, &self.providers, provider)?;
            Some((provider, piece))
        };
        self.free(full).find_map(choose)
    }

    /// A piece that takes too long, and who else may be asked for it.
    fn next_overdue(&self, full: &HashSet<usize>) -> Option<(usize, usize)> {
        self.overdue().find_map(|piece| {
            let is_asked = |provider: usize| {
                self.asked.values().any(|asked| asked.piece == piece && asked.provider == provider)
            };
            let other = self
                .free(full)
                .find(|provider| !is_asked(*provider) && self.providers[*provider].may_have(piece));
            other.map(|provider| (provider, piece))
        })
    }

    /// Who may be asked for one more piece, the fast before the slow.
    fn free<'b>(&'b self, full: &'b HashSet<usize>) -> impl Iterator<Item = usize> + 'b {
        let of = move |is_slow: bool| {
            (0..self.providers.len()).filter(move |index| {
                let provider = &self.providers[*index];
                !provider.is_gone && provider.is_slow == is_slow && !full.contains(index)
            })
        };
        of(false).chain(of(true))
    }

    /// The pieces of which every question has taken too long.
    fn overdue(&self) -> impl Iterator<Item = usize> + '_ {
        let now = self.asker.clock.now_millis();
        let late = move |asked: &Asked| self.wait_for(asked, now).is_zero();
        let on_time: HashSet<usize> =
            self.asked.values().filter(|asked| !late(asked)).map(|asked| asked.piece).collect();
        let mut late: Vec<usize> = self.asked.values().map(|asked| asked.piece).collect();
        late.retain(|piece| !on_time.contains(piece));
        late.sort_unstable();
        late.dedup();
        late.into_iter()
    }

    /// How long a question has until another peer is asked beside it.
    fn wait_for(&self, asked: &Asked, now: u64) -> Duration {
        match asked.started.load(Ordering::Relaxed) {
            0 => asked.patience,
            started => asked
                .patience
                .saturating_sub(Duration::from_millis(now.saturating_sub(started - 1))),
        }
    }

    /// How long until something is to be done though no answer comes.
    fn pause(&self) -> Option<Duration> {
        let now = self.asker.clock.now_millis();
        let waits = self.asked.values().map(|asked| self.wait_for(asked, now));
        // Those for which nobody else can be asked now are not waited for.
        waits.filter(|wait| !wait.is_zero()).min()
    }

    fn ask<'b>(
        &mut self,
        asker: &'b Asker<'a, S>,
        provider: usize,
        piece: usize,
        turn: Turn,
    ) -> BoxFuture<'b, Answer> {
        self.missing.retain(|other| *other != piece);
        let (ticket, started) = (self.next_ticket, Arc::new(AtomicU64::new(0)));
        self.next_ticket += 1;
        let address = self.providers[provider].address.clone();
        let len = asker.pieces.piece(piece).map_or(0, |(_, len, _)| len);
        let patience = asker.shared.standing.piece_patience(&address.peer, len.into());
        let (question, abort) = abortable(asker.ask(address, piece, started.clone()));
        self.asked.insert(ticket, Asked { provider, piece, started, patience, abort });
        async move {
            let outcome = question.await.unwrap_or(Ok(Outcome::Overtaken));
            drop(turn);
            Answer::Piece(ticket, outcome)
        }
        .boxed()
    }

    fn take(&mut self, ticket: u64, outcome: Outcome) {
        let Some(asked) = self.asked.remove(&ticket) else {
            return;
        };
        let peer = self.providers[asked.provider].address.peer;
        match outcome {
            Outcome::Delivered(len) => self.delivered(&asked, peer, len),
            Outcome::Overtaken => {}
            Outcome::OtherPieces(map) => {
                let provider = &mut self.providers[asked.provider];
                provider.map = Some(map);
                provider.lacks.insert(asked.piece);
                self.again(asked.piece);
            }
            Outcome::Failed(kind) => {
                self.failed(asked.provider, kind);
                self.again(asked.piece);
            }
        }
    }

    /// Lets a provider be asked no more, and blames it once.
    fn failed(&mut self, provider: usize, kind: FaultKind) {
        let Provider { address, is_gone, .. } = &mut self.providers[provider];
        if !std::mem::replace(is_gone, true) {
            if kind.is_malicious() {
                self.asker.shared.standing.lied(address.peer);
            }
            blame(&mut self.fetched.faults, &self.asker.shared.standing, address.peer, kind);
        }
    }

    /// Notes what a provider says that it has.
    fn told(&mut self, index: usize, said: Option<Result<RangeResponse, FaultKind>>) {
        let provider = &mut self.providers[index];
        provider.is_asked = false;
        match said {
            Some(Ok(RangeResponse::OtherPieces(map))) => {
                provider.map = Some(map);
                provider.lacks.clear();
            }
            // It has all by now.
            Some(Ok(RangeResponse::Found { .. })) => {
                provider.map = None;
                provider.lacks.clear();
            }
            Some(Ok(RangeResponse::Missing)) => self.failed(index, FaultKind::Missing),
            Some(Err(kind)) => self.failed(index, kind),
            Some(Ok(RangeResponse::Busy)) | None => {}
        }
    }

    /// Lets a piece be asked for before the others, unless it is here or being asked for.
    fn again(&mut self, piece: usize) {
        let is_asked = self.asked.values().any(|asked| asked.piece == piece);
        if !is_asked && !self.missing.contains(&piece) && is_missing(&*self.asker.pieces, piece) {
            self.missing.push_front(piece);
        }
    }

    fn delivered(&mut self, asked: &Asked, peer: PeerId, len: u64) {
        let now = self.asker.clock.now_millis();
        let started = asked.started.load(Ordering::Relaxed).saturating_sub(1);
        let standing = &self.asker.shared.standing;
        standing.delivered_piece(&peer, len, now.saturating_sub(started));
        self.rounds = 0;
        self.left = self.left.saturating_sub(1);
        self.missing.retain(|piece| *piece != asked.piece);
        if !self.fetched.peers.contains(&peer) {
            self.fetched.peers.push(peer);
        }
        // Whoever else is asked for it is asked no more, and is not waited for.
        for (_, other) in self.asked.extract_if(|_, other| other.piece == asked.piece) {
            other.abort.abort();
            let provider = &mut self.providers[other.provider];
            let waited =
                now.saturating_sub(other.started.load(Ordering::Relaxed).saturating_sub(1));
            if u128::from(waited) >= other.patience.as_millis() {
                provider.is_slow = true;
                standing.failed(provider.address.peer);
            }
        }
    }

    /// Whether somebody who did not have a piece may have it by now.
    fn may_look_again(&self) -> bool {
        self.rounds < OTHER_PIECES_ROUNDS_MAX && self.providers.iter().any(Provider::is_partial)
    }

    /// Asks those who have a part what they have by now.
    fn look_again<'b>(
        &mut self,
        asker: &'b Asker<'a, S>,
        answers: &mut FuturesUnordered<BoxFuture<'b, Answer>>,
    ) {
        let before = answers.len();
        for (index, provider) in self.providers.iter_mut().enumerate() {
            if provider.is_partial() && !std::mem::replace(&mut provider.is_asked, true) {
                answers.push(asker.ask_map(index, provider.address.clone()).boxed());
            }
        }
        self.rounds += u32::from(answers.len() > before);
    }

    /// Finds more peers when nobody is left to ask.
    async fn widen(&mut self) -> Result<(), FetchError> {
        match self.candidates.next(self.asker.source, self.asker.id).await? {
            Some(address) => {
                self.candidates.queue.push_front(address);
                Ok(())
            }
            None => {
                let faults = std::mem::take(&mut self.fetched.faults);
                Err(FetchError::Unavailable { id: self.asker.id, faults })
            }
        }
    }
}

/// Of the pieces that nobody is asked for one that a provider may have and that the fewest may have; of equally rare
/// ones the first.
fn rarest(missing: &VecDeque<usize>, providers: &[Provider], provider: usize) -> Option<usize> {
    let provider = providers.get(provider)?;
    let mut had = missing.iter().copied().filter(|piece| provider.may_have(*piece));
    // Where everybody has everything the first is as rare as any.
    if !providers.iter().any(Provider::is_partial) {
        return had.next();
    }
    had.take(RAREST_OF).min_by_key(|piece| {
        let has = |other: &&Provider| !other.is_gone && other.may_have(*piece);
        providers.iter().filter(has).count()
    })
}

impl<S: RangeSource> Asker<'_, S> {
    /// Asks one peer which pieces it has.
    async fn ask_map(&self, provider: usize, peer: PeerAddress) -> Answer {
        let request = RangeRequest { id: self.id, piece: None, offset: 0, len: 0 };
        let said = tokio::select! {
            biased;
            said = self.source.range(&peer, request) => said.map(Some),
            () = self.clock.sleep(MAP_PATIENCE) => Ok(None),
        };
        Answer::Map(provider, said)
    }

    /// Asks one peer for one piece, range by range, checks it and keeps it.
    async fn ask(
        &self,
        peer: PeerAddress,
        index: usize,
        started: Arc<AtomicU64>,
    ) -> Result<Outcome, FetchError> {
        let Some((start, len_max, _)) = self.pieces.piece(index) else {
            return Ok(Outcome::Overtaken);
        };
        let permits = u32::try_from(u64::from(len_max).div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let permits = permits.clamp(1, self.shared.room_max);
        let _room = self.shared.room.acquire_many(permits).await.map_err(|_| FetchError::Closed)?;
        // 0 says that it has not started.
        started.store(self.clock.now_millis().saturating_add(1), Ordering::Relaxed);
        let numbered = self.pieces.is_numbered();
        let whole_len = if numbered { u64::from(len_max) } else { self.pieces.byte_len() };
        let mut piece: Vec<u8> = Vec::new();
        let mut piece_len = len_max;
        while piece.len() < piece_len as usize {
            let have = piece.len() as u64;
            let len = self.limits.range_len.min(piece_len.saturating_sub(have as u32));
            let request = RangeRequest {
                id: self.id,
                piece: numbered.then(|| u32::try_from(index).unwrap_or(u32::MAX)),
                offset: if numbered { have } else { start.saturating_add(have) },
                len,
            };
            let (total_len, bytes) = match range_of(self.source, self.clock, &peer, request).await?
            {
                Ok(Answered::Range(total_len, bytes)) => (total_len, bytes),
                Ok(Answered::OtherPieces(map)) => return Ok(Outcome::OtherPieces(map)),
                Err(kind) => return Ok(Outcome::Failed(kind)),
            };
            if total_len > whole_len {
                return Ok(Outcome::Failed(FaultKind::TooLong { total_len }));
            }
            // Who said how long the content is may have lied, rather than this peer.
            if !numbered && total_len < whole_len {
                return Ok(Outcome::Failed(FaultKind::Missing));
            }
            let wanted = if numbered {
                u64::from(len).min(total_len.saturating_sub(have))
            } else {
                len.into()
            };
            // Of a piece the first answer says how long it is, and the others must agree.
            let is_known = !numbered || have == 0 || total_len == u64::from(piece_len);
            if !is_known || bytes.len() as u64 != wanted || wanted == 0 {
                return Ok(Outcome::Failed(FaultKind::Malformed));
            }
            if numbered {
                piece_len = u32::try_from(total_len).unwrap_or(len_max);
            }
            piece.extend_from_slice(&bytes);
        }
        self.check(index, piece).await
    }

    async fn check(&self, index: usize, piece: Vec<u8>) -> Result<Outcome, FetchError> {
        let (pieces, part, len) = (self.pieces.clone(), self.part.clone(), piece.len());
        let check = move || {
            let is_right = pieces.accept(index, &piece);
            let kept = part.filter(|_| is_right).map_or(Ok(()), |part| part.write(index, &piece));
            (is_right, kept)
        };
        let (is_right, kept) = if len < CHECKED_HERE_MAX {
            check()
        } else {
            // A check that panics has not accepted.
            tokio::task::spawn_blocking(check).await.unwrap_or((false, Ok(())))
        };
        kept.map_err(FetchError::Unkept)?;
        Ok(if is_right {
            Outcome::Delivered(len as u64)
        } else {
            Outcome::Failed(FaultKind::Corrupt)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(map: Option<&[bool]>) -> Provider {
        let address = PeerAddress { peer: PeerId::random(), addresses: Vec::new() };
        let map = map.map(|here| PieceMap::of(here.iter().copied()));
        Provider { map, ..Provider::new(address) }
    }

    #[test]
    fn a_peer_is_asked_for_the_rarest_of_what_it_has() {
        let (here, not) = (true, false);
        let mut providers = [
            provider(None),
            provider(Some(&[here, here, not, not])),
            provider(Some(&[here, not, here, not])),
        ];
        let missing = VecDeque::from([0, 1, 2, 3]);
        // Piece 3 is had by the first alone, 1 and 2 by two, 0 by all.
        assert_eq!([0, 1, 2].map(|at| rarest(&missing, &providers, at)), [3, 1, 2].map(Some));
        // Who is gone has nothing; of equally rare ones the first.
        providers[2].is_gone = true;
        assert_eq!(rarest(&missing, &providers, 0), Some(2));
        providers[1].lacks.insert(1);
        assert_eq!(rarest(&missing, &providers, 1), Some(0));
        assert_eq!(rarest(&VecDeque::from([1, 2, 3]), &providers, 1), None);
        let all = [provider(None), provider(None)];
        assert_eq!(rarest(&VecDeque::from([2, 0]), &all, 1), Some(2));
    }
}

//! Fetches a content piece by piece from several peers at once; knows no libp2p.
//!
//! Each peer is asked for as many pieces as it delivers in a second ([`Waiter::turn`]), of all contents together, for
//! what nobody else is known to have before others; and the bytes of pieces on their way are bounded over all contents (`room`); a
//! few contents arrive at a time ([`Lanes`]). Who has a part only says which pieces it has, with the first answer
//! that it lacks one, and again when it has none more of use: it is asked for those, the rarest first. Who had none
//! at first may have some by then; the longer it has not, the less it is asked; each piece of it that comes says what
//! else it has. Who has all is asked for the own share first, and for the others' only where those do not deliver
//! ([`Shares`]), or where more have all than a part. When a piece takes three times as long as expected another peer
//! is asked for it beside the first, and whoever delivers it first goes on; the last pieces wait less where somebody
//! has nothing else to do. Each is checked as it arrives and kept in the [`Part`]: who served a wrong one is to
//! blame, nobody else, and nothing that was right is asked for again.

use std::{
    collections::HashMap,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc, Mutex, PoisonError,
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
    holdings::{Holdings, Missing},
    lanes::{rank, Lane, Lanes},
    promises::{Breach, Promises, Word},
    rate::{Bucket, Limit},
    shares::Shares,
    standing::{Standing, Turn, Waiter},
    FaultKind, FetchError, PeerAddress, Pieces, PiecesFetched, PiecesRequest,
};
use crate::{
    clock::Clock,
    store::{Part, PieceMap},
};

/// How soon who has a part is asked which pieces it has by now, how long it has for the answer, and after how many
/// looks in vain nobody waits for it: 15 seconds.
const OTHER_PIECES_PAUSE: Duration = Duration::from_secs(1);
const MAP_PATIENCE: Duration = Duration::from_secs(5);
const WAITED_LOOKS: u32 = 4;

/// Pieces among which the own share is looked for: those of it are the first.
const SHARE_OF: usize = 1 << 10;

/// How often it is asked who has which pieces, by all downloads of a process: each is a small message there and one back,
/// and takes as long as some kilobytes of content.
const LOOKS: Limit = Limit { burst: 12, fill: 8, per_millis: 1_000 };

/// Of so many looks at the most one is at somebody who had nothing of use again and again.
const VAIN_LOOKS_MAX: u32 = 8;

/// How long a content that nothing comes of is among the first, in milliseconds.
const LANE_STALL_MILLIS: u64 = 5_000;

/// A piece of fewer bytes is checked where it arrives: that takes less than to hand it to another thread.
const CHECKED_HERE_MAX: usize = 64 << 10;

/// How many times as long as somebody else takes who has nothing else to do, and how long at the least, the last pieces
/// are waited for; and how soon it is looked who has nothing else to do.
const SPARE_FACTOR: u32 = 2;
const SPARE_MIN: Duration = Duration::from_millis(150);
const SPARE_LOOK: Duration = Duration::from_millis(250);

/// Pieces that are checked side by side at the most: copies of one piece are looked at one after the other.
const CHECKS: usize = 16;

/// Bytes that one permit of the room stands for.
const PERMIT_BYTES: u64 = 1 << 10;

/// What all downloads of a process share.
pub(super) struct Shared {
    pub(super) standing: Arc<Standing>,
    lanes: Arc<Lanes>,
    /// Permits for [`PERMIT_BYTES`] each of pieces on their way.
    room: Semaphore,
    room_max: u32,
    /// The looks that were made lately, held for one.
    looks: Mutex<Bucket>,
}

impl Shared {
    pub(super) fn new(standing: Arc<Standing>, pieces_bytes_max: usize) -> Self {
        let permits = pieces_bytes_max as u64 / PERMIT_BYTES;
        let room_max = u32::try_from(permits).unwrap_or(u32::MAX).max(1);
        let room = Semaphore::new(room_max as usize);
        Self { standing, lanes: Arc::default(), room, room_max, looks: Mutex::default() }
    }

    /// Whether one more may be asked now what it has.
    fn may_look(&self, now_millis: u64) -> bool {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        looks.take(now_millis, 1, &LOOKS)
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
    let rank = rank(&source.local_peer(), &id);
    let lane = shared.lanes.enter(rank, pieces.byte_len(), || clock.now_millis()).await;
    let (count, now) = (pieces.count(), clock.now_millis());
    let missing = (0..count).filter(|index| is_missing(&*pieces, *index));
    let others = candidates.queue.iter().map(|other| &other.peer);
    let (shares, missing) = Shares::new(&source.local_peer(), others, count, missing, now);
    let download = Download {
        lane: Some(lane),
        left: missing.len(),
        holdings: Holdings::new(count),
        missing: Missing::new(count, missing),
        shares,
        is_holding: false,
        is_open: false,
        waiter: shared.standing.waiter(),
        asker: Asker { source, clock, limits, shared, id, pieces, part, checks: Arc::default() },
        candidates,
        providers: Vec::new(),
        spare: Vec::new(),
        asked: HashMap::new(),
        next_ticket: 0,
        looked_at: 0,
        last_at: now,
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
    checks: Arc<[tokio::sync::Mutex<()>; CHECKS]>,
}

/// A peer that takes part in a download.
struct Provider {
    address: PeerAddress,
    /// It failed: it is asked no more in this download.
    is_gone: bool,
    /// Another one overtook it: it is asked when nobody else can be.
    is_slow: bool,
    /// It delivered a piece of this content.
    has_delivered: bool,
    /// It has all of it, as far as it has shown.
    has_all: bool,
    /// It says beside pieces which others it has, as long as it has a part.
    says_beside: bool,
    /// It is in the line of those who wait for its turns.
    is_awaited: bool,
    /// Turns of it that were waited for.
    turns: Vec<Turn>,
    /// What it said that it has, and whether it had it.
    promises: Promises,
    /// Whether it is asked for its map now.
    is_asked: bool,
    /// It had nothing, or served others; by the next look it may be otherwise. Nobody waits for it.
    has_nothing: bool,
    /// Whether that it had nothing is among the faults.
    is_blamed: bool,
    /// Looks in a row at which it had nothing of use, and how many are to be left out until the next one.
    vain_looks: u32,
    looks_left_out: u32,
}

impl Provider {
    fn new(address: PeerAddress) -> Self {
        Self {
            address,
            is_gone: false,
            is_slow: false,
            has_delivered: false,
            has_all: false,
            says_beside: false,
            is_awaited: false,
            turns: Vec::new(),
            promises: Promises::default(),
            is_asked: false,
            has_nothing: false,
            is_blamed: false,
            vain_looks: 0,
            looks_left_out: 0,
        }
    }

    /// Whether it has all, and is asked.
    fn is_whole(&self) -> bool {
        self.has_all && !self.is_gone && !self.has_nothing
    }

    /// Whether it is to be asked now what it has, as it has nothing of use: it has a part, or had nothing and is to be
    /// asked all the same. To be called once a look.
    fn is_due(&mut self, is_partial: bool, with_nothing: bool) -> bool {
        let may = is_partial || (!self.is_gone && self.has_nothing && with_nothing);
        if !may || self.is_asked {
            return false;
        }
        if self.looks_left_out > 0 {
            self.looks_left_out -= 1;
            return false;
        }
        true
    }

    /// Notes how a look at it ended.
    fn looked(&mut self, is_of_use: bool) {
        self.vain_looks = if is_of_use { 0 } else { self.vain_looks.saturating_add(1) };
        let every = 1u32.checked_shl(self.vain_looks).unwrap_or(u32::MAX).min(VAIN_LOOKS_MAX);
        self.looks_left_out = if is_of_use { 0 } else { every - 1 };
    }
}

/// A question under way.
struct Asked {
    provider: usize,
    piece: usize,
    /// When there was room for it, by the clock; 0 before.
    started: Arc<AtomicU64>,
    patience: Duration,
    /// Whether it is not known that its provider ever delivers.
    is_first: bool,
    /// Whether nothing of it had come to this process.
    is_new: bool,
    /// On what the provider is asked.
    word: Word,
    abort: AbortHandle,
}

/// How a question ended.
enum Outcome {
    /// The piece is here; so many bytes came, and what else the provider has, if it said so.
    Delivered(u64, Option<PieceMap>),
    Failed(FaultKind),
    /// It says that it does not have it.
    Missing,
    OtherPieces(PieceMap),
    Overtaken,
}

/// What comes of what was asked.
enum Answer {
    /// The end of a question for a piece, and the right to have asked it.
    Piece(u64, Result<Outcome, FetchError>, Turn),
    /// What a provider says of what it has; `None` if it takes too long.
    Map(usize, Result<Option<Result<RangeResponse, FaultKind>>, FetchError>),
}

struct Download<'a, S> {
    asker: Asker<'a, S>,
    /// The right to be among the first, as long as it lasts.
    lane: Option<Lane>,
    candidates: Candidates<'a>,
    providers: Vec<Provider>,
    holdings: Holdings,
    missing: Missing,
    shares: Shares,
    /// Whether somebody has what is left to others to fetch, and nothing else is to be asked for.
    is_holding: bool,
    /// Whether that is asked for now all the same.
    is_open: bool,
    /// Waits for turns of those who are asked for as much as they may be.
    waiter: Waiter,
    /// Pieces that are not here.
    left: usize,
    /// Who has nothing else to do, and what a piece takes of it ([`Self::spare`]).
    spare: Vec<(usize, Duration)>,
    asked: HashMap<u64, Asked>,
    next_ticket: u64,
    /// Who is the first to be asked what it has.
    looked_at: usize,
    /// When the last piece came, or the first was asked for, by the clock.
    last_at: u64,
    fetched: PiecesFetched,
}

impl<'a, S: RangeSource> Download<'a, S> {
    async fn run(mut self) -> Result<PiecesFetched, FetchError> {
        // Lives outside of `self`, whose asker the questions borrow.
        let asker = Asker {
            pieces: self.asker.pieces.clone(),
            part: self.asker.part.clone(),
            checks: self.asker.checks.clone(),
            ..self.asker
        };
        let mut answers: FuturesUnordered<BoxFuture<'_, Answer>> = FuturesUnordered::new();
        // When those who have a part are asked again what they have, however much comes meanwhile.
        let mut look: Option<BoxFuture<'_, ()>> = None;
        // When what is left to others is asked for all the same.
        let mut hold: Option<BoxFuture<'_, ()>> = None;
        while self.left > 0 {
            let is_blocked = self.assign(&asker, &mut answers);
            if hold.is_none() || !self.is_holding {
                hold = self.hold_time().map(|time| asker.clock.sleep(time));
                if self.is_open {
                    continue;
                }
            }
            let waits = is_blocked || hold.is_some();
            if answers.is_empty() && !waits && !self.may_look_again() {
                self.widen().await?;
                continue;
            }
            if !self.may_look_again() && !self.may_look_beside() {
                look = None;
            } else if look.is_none() {
                look = Some(asker.clock.sleep(OTHER_PIECES_PAUSE));
            }
            self.give_way();
            let pause = self.pause();
            let (looks, holds) = (look.is_some(), hold.is_some());
            tokio::select! {
                // What has come is looked at before the time.
                biased;
                Some(answer) = answers.next(), if !answers.is_empty() => match answer {
                    Answer::Piece(ticket, outcome, _turn) => {
                        self.take(ticket, outcome?);
                        hold = None;
                    }
                    Answer::Map(provider, said) => self.told(provider, said?),
                },
                () = self.waiter.told() => {}
                () = async { if let Some(hold) = &mut hold { hold.await } }, if holds => {
                    hold = None;
                    self.shares.waited();
                    self.is_open = true;
                }
                () = async { if let Some(look) = &mut look { look.await } }, if looks => {
                    look = None;
                    self.look_again(&asker, &mut answers);
                }
                () = asker.clock.sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
        Ok(self.fetched)
    }

    /// Asks whom it can for what nobody is asked for, and for what takes too long. Whether it waits for turns of
    /// somebody who has anything of use.
    fn assign<'b>(
        &mut self,
        asker: &'b Asker<'a, S>,
        answers: &mut FuturesUnordered<BoxFuture<'b, Answer>>,
    ) -> bool {
        self.take_turns();
        self.is_holding = false;
        loop {
            let next = self.next_missing().or_else(|| self.next_overdue());
            self.spare = self.spare();
            if let Some((provider, piece)) = next.or_else(|| self.next_for_spare()) {
                let Some((_, len, _)) = asker.pieces.piece(piece) else {
                    self.missing.remove(piece);
                    continue;
                };
                if let Some(turn) = self.turn(provider, piece, len) {
                    answers.push(self.ask(asker, provider, piece, turn));
                }
                continue;
            }
            let wants_more = !self.missing.is_empty() || self.overdue().next().is_some();
            let next = if wants_more { self.candidates.queue.pop_front() } else { None };
            let Some(address) = next else { break };
            self.providers.push(Provider::new(address));
            self.holdings.add();
        }
        self.is_open = false;
        // What is of no use goes to the next in the line.
        self.providers.iter_mut().for_each(|provider| provider.turns.clear());
        let waits = |(index, provider): (usize, &Provider)| {
            provider.is_awaited && self.holdings.has_any(index, &self.missing)
        };
        self.providers.iter().enumerate().any(waits)
    }

    /// Takes the turns that were waited for.
    fn take_turns(&mut self) {
        for turn in self.waiter.turns() {
            let is_of = |provider: &&mut Provider| provider.address.peer == turn.peer();
            if let Some(provider) = self.providers.iter_mut().find(is_of) {
                provider.is_awaited = false;
                provider.turns.push(turn);
            }
        }
    }

    /// The right to ask a provider for a piece of this length. If there is none it is waited for from now on.
    fn turn(&mut self, index: usize, piece: usize, len: u32) -> Option<Turn> {
        let provider = &mut self.providers[index];
        let peer = provider.address.peer;
        let turn = provider.turns.pop();
        let turn = turn.or_else(|| self.waiter.turn(peer, len.into(), self.is_rare(index, piece)));
        self.providers[index].is_awaited = turn.is_none();
        turn
    }

    /// Whether a provider is known to have a piece, nobody else is, and nobody is asked for it.
    fn is_rare(&self, index: usize, piece: usize) -> bool {
        let has_part = self.holdings.is_partial(index) && !self.holdings.is_silent(index, piece);
        let has_it = has_part || self.providers[index].is_whole();
        let has_all = |(other, provider): (usize, &Provider)| other != index && provider.is_whole();
        has_it
            && self.holdings.had_by_others(index, piece) == 0
            && !self.providers.iter().enumerate().any(has_all)
            && !self.asked.values().any(|asked| asked.piece == piece)
    }

    /// The next piece that nobody is asked for, and whom to ask for it.
    fn next_missing(&mut self) -> Option<(usize, usize)> {
        let all = |provider| {
            let rarest = self.holdings.rarest(provider, &self.missing, usize::MAX, |_| true);
            rarest.map(|piece| (provider, piece))
        };
        let fetching = self.holdings.fetching();
        if self.is_open || fetching == 0 || !self.shares.binds() || self.is_plenty(fetching) {
            return self.free().find_map(all);
        }
        // Of those who fetch as we do whatever they have; of the others our share, which comes first in the order.
        let ours = |provider| {
            let is_ours = |piece| !self.shares.is_of(piece, fetching);
            let rarest = self.holdings.rarest(provider, &self.missing, SHARE_OF, is_ours);
            rarest.map(|piece| (provider, piece))
        };
        let choose = |provider| match self.holdings.is_partial(provider) {
            true => all(provider),
            false => ours(provider),
        };
        let chosen = self.free().find_map(choose);
        self.is_holding = chosen.is_none()
            && self.free().any(|index| self.holdings.has_any(index, &self.missing));
        chosen
    }

    /// Whether more have all than a part: then nobody needs to spare them.
    fn is_plenty(&self, fetching: u64) -> bool {
        let whole = self.providers.iter().filter(|provider| provider.is_whole()).count();
        whole > fetching.count_ones() as usize
    }

    /// How long nothing is to come until what is another's share is asked for; `None` if nothing is left to others.
    fn hold_time(&mut self) -> Option<Duration> {
        if !self.is_holding {
            return None;
        }
        let (asker, now) = (&self.asker, self.asker.clock.now_millis());
        let usual = asker.shared.standing.usual(self.first_len());
        let patience = self.shares.patience(usual, now);
        self.is_open = patience.is_none();
        patience
    }

    /// A piece that takes too long, and who else may be asked for it: those who deliver before others, and who keeps us
    /// waiting only if nobody else has it. If the others are asked for as much as they may be it waits for them.
    fn next_overdue(&self) -> Option<(usize, usize)> {
        let now = self.asker.clock.now_millis();
        let late: Vec<usize> = self.late(now).map(|asked| asked.provider).collect();
        let is_good = |index: usize| {
            let provider = &self.providers[index];
            !provider.is_gone && !provider.is_slow && !late.contains(&index)
        };
        self.overdue().find_map(|piece| {
            let is_asked = |provider: usize| {
                self.asked.values().any(|asked| asked.piece == piece && asked.provider == provider)
            };
            let may = |index: &usize| self.holdings.may_have(*index, piece) && !is_asked(*index);
            let has_good = (0..self.providers.len()).any(|index| is_good(index) && may(&index));
            let others = self.free().filter(|index| may(index) && (!has_good || is_good(*index)));
            // Of those alike the first.
            let other = others
                .min_by_key(|index| (!self.providers[*index].has_delivered, self.time_of(*index)));
            other.map(|provider| (provider, piece))
        })
    }

    /// What a piece usually takes of a provider; the most that there is if that is not known.
    fn time_of(&self, index: usize) -> Duration {
        let standing = &self.asker.shared.standing;
        let time = standing.time_of(&self.providers[index].address.peer, self.first_len());
        time.unwrap_or(Duration::MAX)
    }

    /// Bytes of the first piece: of all but the last.
    fn first_len(&self) -> u64 {
        self.asker.pieces.piece(0).map_or(0, |(_, len, _)| len.into())
    }

    /// Who delivered and has nothing else to do, of this content or another, where all that is left is being asked for.
    fn spare(&self) -> Vec<(usize, Duration)> {
        if !self.missing.is_empty() || self.asked.is_empty() {
            return Vec::new();
        }
        let (standing, len) = (&self.asker.shared.standing, self.first_len());
        let is_spare = |index: &usize| {
            let provider = &self.providers[*index];
            let may = !provider.is_slow && !provider.has_nothing && provider.has_delivered;
            may && (!provider.turns.is_empty() || standing.is_spare(&provider.address.peer, len))
        };
        self.free().filter(is_spare).map(|index| (index, self.time_of(index))).collect()
    }

    /// The quickest of those who have nothing else to do that may be asked for a piece beside the only one who is, and how
    /// long that one has left: twice what it takes of the other, and as long as it usually takes itself. So the last
    /// pieces do not wait for the slowest.
    fn spare_for(&self, asked: &Asked, now: u64) -> Option<(usize, Duration)> {
        let may = |(index, _): &&(usize, Duration)| {
            *index != asked.provider && self.holdings.may_have(*index, asked.piece)
        };
        let (spare, time) = *self.spare.iter().filter(may).min_by_key(|(_, time)| *time)?;
        if self.asked.values().filter(|other| other.piece == asked.piece).count() > 1 {
            return None;
        }
        let own = Some(self.time_of(asked.provider)).filter(|time| *time < Duration::MAX);
        let patience = time.saturating_mul(SPARE_FACTOR).max(own.unwrap_or_default());
        let patience = patience.max(SPARE_MIN).min(asked.patience);
        Some((spare, self.left_of(asked, patience, now)))
    }

    /// A piece that the last ones wait for, and who has nothing else to do.
    fn next_for_spare(&self) -> Option<(usize, usize)> {
        let now = self.asker.clock.now_millis();
        let late = self.asked.values().filter_map(|asked| {
            let (spare, left) = self.spare_for(asked, now)?;
            left.is_zero().then_some((asked, spare))
        });
        let first = late.min_by_key(|(asked, _)| asked.started.load(Ordering::Relaxed));
        first.map(|(asked, spare)| (spare, asked.piece))
    }

    /// Who may be asked for one more piece, the fast before the slow.
    fn free(&self) -> impl Iterator<Item = usize> + '_ {
        let of = move |is_slow: bool| {
            (0..self.providers.len()).filter(move |index| {
                let provider = &self.providers[*index];
                !provider.is_gone && provider.is_slow == is_slow && !provider.is_awaited
            })
        };
        of(false).chain(of(true))
    }

    /// The questions that have taken too long.
    fn late(&self, now: u64) -> impl Iterator<Item = &Asked> {
        self.asked.values().filter(move |asked| self.wait_for(asked, now).is_zero())
    }

    /// The pieces of which every question has taken too long.
    fn overdue(&self) -> impl Iterator<Item = usize> + '_ {
        let now = self.asker.clock.now_millis();
        let mut late: Vec<usize> = self.late(now).map(|asked| asked.piece).collect();
        late.sort_unstable();
        late.dedup();
        let is_on_time = |asked: &Asked| !self.wait_for(asked, now).is_zero();
        if !late.is_empty() {
            let on_time = self.asked.values().filter(|asked| is_on_time(asked));
            let on_time: Vec<usize> = on_time.map(|asked| asked.piece).collect();
            late.retain(|piece| !on_time.contains(piece));
        }
        late.into_iter()
    }

    /// How long a question has until another peer is asked beside it.
    fn wait_for(&self, asked: &Asked, now: u64) -> Duration {
        let is_first = asked.is_first && !self.providers[asked.provider].has_delivered;
        let len = self.asker.pieces.piece(asked.piece).map_or(0, |(_, len, _)| len);
        let first = || self.asker.shared.standing.first_patience(len.into());
        let patience = is_first.then(first).flatten();
        let patience = patience.map_or(asked.patience, |first| first.min(asked.patience));
        self.left_of(asked, patience, now)
    }

    /// What is left of a question's time; all of it before there was room for it.
    fn left_of(&self, asked: &Asked, patience: Duration, now: u64) -> Duration {
        match asked.started.load(Ordering::Relaxed) {
            0 => patience,
            started => {
                patience.saturating_sub(Duration::from_millis(now.saturating_sub(started - 1)))
            }
        }
    }

    /// How long until something is to be done though no answer comes.
    fn pause(&self) -> Option<Duration> {
        let now = self.asker.clock.now_millis();
        let waits = self.asked.values().map(|asked| self.wait_for(asked, now));
        let spare = self.asked.values().filter_map(|asked| self.spare_for(asked, now));
        let waits = waits.chain(spare.map(|(_, left)| left));
        // Nobody says when somebody has nothing else to do any more.
        let is_last = self.missing.is_empty() && !self.asked.is_empty();
        let look = is_last.then_some(SPARE_LOOK);
        let lane = self.lane_ends_at().map(|at| Duration::from_millis(at.saturating_sub(now)));
        // Those for which nobody else can be asked now are not waited for.
        waits.filter(|wait| !wait.is_zero()).chain(lane).chain(look).min()
    }

    fn ask<'b>(
        &mut self,
        asker: &'b Asker<'a, S>,
        provider: usize,
        piece: usize,
        turn: Turn,
    ) -> BoxFuture<'b, Answer> {
        self.missing.remove(piece);
        let (ticket, started) = (self.next_ticket, Arc::new(AtomicU64::new(0)));
        self.next_ticket += 1;
        let address = self.providers[provider].address.clone();
        let len = asker.pieces.piece(piece).map_or(0, |(_, len, _)| len);
        let patience = asker.shared.standing.piece_patience(&address.peer, len.into());
        let is_first = !asker.shared.standing.is_known(&address.peer);
        let is_new = !asker.shared.standing.has_rate(&address.peer);
        let (question, abort) = abortable(asker.ask(address, piece, started.clone()));
        let word = self.word(provider, piece);
        let asked = Asked { provider, piece, started, patience, is_first, is_new, word, abort };
        self.asked.insert(ticket, asked);
        async move {
            let outcome = question.await.unwrap_or(Ok(Outcome::Overtaken));
            Answer::Piece(ticket, outcome, turn)
        }
        .boxed()
    }

    fn take(&mut self, ticket: u64, outcome: Outcome) {
        let Some(asked) = self.asked.remove(&ticket) else {
            return;
        };
        let peer = self.providers[asked.provider].address.peer;
        match outcome {
            Outcome::Delivered(len, map) => {
                match map {
                    Some(map) => self.has_more(asked.provider, &map),
                    None => self.has_no_part(asked.provider),
                }
                self.delivered(&asked, peer, len);
            }
            Outcome::Overtaken => self.again(asked.piece),
            Outcome::OtherPieces(map) => {
                self.broke(&asked);
                let provider = &mut self.providers[asked.provider];
                (provider.has_nothing, provider.has_all) = (false, false);
                provider.promises.said();
                self.holdings.lacks(asked.provider, &map, asked.piece);
                self.count_in(asked.provider);
                self.again(asked.piece);
            }
            Outcome::Missing => {
                self.broke(&asked);
                self.failed(asked.provider, FaultKind::Missing);
                self.again(asked.piece);
            }
            Outcome::Failed(kind) => {
                self.failed(asked.provider, kind);
                self.again(asked.piece);
            }
        }
    }

    /// On what a provider is asked for a piece.
    fn word(&self, provider: usize, piece: usize) -> Word {
        match self.holdings.is_silent(provider, piece) {
            true => Word::default(),
            false => self.providers[provider].promises.word(),
        }
    }

    /// Notes that a provider has not what it was asked for: if it said so again and again it is asked no more.
    fn broke(&mut self, asked: &Asked) {
        let provider = &mut self.providers[asked.provider];
        match provider.promises.broke(asked.word) {
            Breach::None => {}
            Breach::Failed => self.asker.shared.standing.failed(provider.address.peer),
            Breach::Lied => self.failed(asked.provider, FaultKind::Contradicted),
        }
    }

    /// Has a provider in account, if it is asked.
    fn count_in(&mut self, index: usize) {
        let provider = &self.providers[index];
        self.holdings.set_out(index, provider.is_gone || provider.has_nothing);
    }

    /// Lets a provider be asked no more, or who has nothing, or serves others, not for now; blames it once.
    fn failed(&mut self, index: usize, kind: FaultKind) {
        let provider = &mut self.providers[index];
        let is_for_now = matches!(kind, FaultKind::Missing | FaultKind::Busy);
        let is_known = if is_for_now {
            provider.looked(false);
            provider.has_nothing = true;
            std::mem::replace(&mut provider.is_blamed, true) || provider.is_gone
        } else {
            std::mem::replace(&mut provider.is_gone, true)
        };
        self.count_in(index);
        if is_known {
            return;
        }
        let peer = self.providers[index].address.peer;
        if kind.is_malicious() {
            self.asker.shared.standing.lied(peer);
        }
        blame(&mut self.fetched.faults, &self.asker.shared.standing, peer, kind);
    }

    /// Notes what a provider says that it has.
    fn told(&mut self, index: usize, said: Option<Result<RangeResponse, FaultKind>>) {
        self.providers[index].is_asked = false;
        match said {
            Some(Ok(RangeResponse::OtherPieces(map) | RangeResponse::Part { map, .. })) => {
                self.has(index, Some(&map));
            }
            // It has all by now.
            Some(Ok(RangeResponse::Found { .. })) => self.has(index, None),
            Some(Ok(RangeResponse::Missing)) => self.failed(index, FaultKind::Missing),
            Some(Err(kind)) => self.failed(index, kind),
            Some(Ok(RangeResponse::Busy)) | None => self.providers[index].looked(false),
        }
    }

    /// A provider has these pieces, or all.
    fn has(&mut self, index: usize, map: Option<&PieceMap>) {
        self.providers[index].has_nothing = false;
        self.providers[index].has_all = map.is_none();
        self.providers[index].promises.said();
        self.holdings.said(index, map);
        self.count_in(index);
        let is_of_use = self.holdings.has_any(index, &self.missing);
        self.providers[index].looked(is_of_use);
    }

    /// A provider said nothing of a part beside a piece: if it would have, it has all by now.
    fn has_no_part(&mut self, index: usize) {
        if !self.holdings.is_partial(index) {
            // Of a long one nobody says it.
            self.providers[index].has_all |= self.asker.pieces.count() <= 8 * PieceMap::BESIDE_MAX;
        } else if self.providers[index].says_beside {
            self.has(index, None);
        }
    }

    /// A provider that has a part said beside a piece which others it has.
    fn has_more(&mut self, index: usize, map: &PieceMap) {
        let provider = &mut self.providers[index];
        if provider.has_all {
            // An answer from before it had.
            return;
        }
        provider.says_beside = true;
        provider.promises.said();
        self.holdings.more(index, map);
        self.count_in(index);
    }

    /// Lets a piece be asked for before the others, unless it is being asked for; or it is here though nobody who is
    /// asked brought it, as an earlier fetch that was given up did.
    fn again(&mut self, piece: usize) {
        if self.asked.values().any(|asked| asked.piece == piece) {
            return;
        }
        if is_missing(&*self.asker.pieces, piece) {
            self.missing.put_first(piece);
        } else {
            self.left = self.left.saturating_sub(1);
        }
    }

    fn delivered(&mut self, asked: &Asked, peer: PeerId, len: u64) {
        let now = self.asker.clock.now_millis();
        let started = asked.started.load(Ordering::Relaxed).saturating_sub(1);
        let standing = &self.asker.shared.standing;
        standing.delivered_piece(&peer, len, now.saturating_sub(started), asked.is_new);
        self.last_at = now;
        for provider in &mut self.providers {
            // Where something comes more may come.
            provider.vain_looks = provider.vain_looks.min(WAITED_LOOKS - 1);
        }
        let provider = &mut self.providers[asked.provider];
        (provider.has_nothing, provider.has_delivered) = (false, true);
        self.count_in(asked.provider);
        self.left = self.left.saturating_sub(1);
        self.missing.remove(asked.piece);
        if !self.fetched.peers.contains(&peer) {
            self.fetched.peers.push(peer);
        }
        // Whoever else is asked for it is asked no more, and is not waited for.
        let others = self.asked.extract_if(|_, other| other.piece == asked.piece);
        for other in others.map(|(_, other)| other).collect::<Vec<_>>() {
            other.abort.abort();
            let started = other.started.load(Ordering::Relaxed);
            let has_waited = Duration::from_millis(now.saturating_sub(started.saturating_sub(1)));
            if self.wait_for(&other, now).is_zero() {
                let provider = &mut self.providers[other.provider];
                provider.is_slow = true;
                // Who was only slower than is expected of strangers may wait for our own line, as all do.
                if has_waited >= other.patience {
                    self.asker.shared.standing.failed(provider.address.peer);
                }
            } else if started > 0 {
                let peer = self.providers[other.provider].address.peer;
                self.asker.shared.standing.took_longer(&peer, len, has_waited);
            }
        }
    }

    /// Whether somebody who did not have a piece may have it by now.
    fn may_look_again(&self) -> bool {
        let may = |(index, provider): (usize, &Provider)| {
            self.holdings.is_partial(index) && provider.vain_looks < WAITED_LOOKS
        };
        self.providers.iter().enumerate().any(may)
    }

    /// Whether it may be asked what they have by now who had nothing, while something else is being asked for.
    fn may_look_beside(&self) -> bool {
        let may = |provider: &Provider| !provider.is_gone && provider.has_nothing;
        !self.asked.is_empty() && self.providers.iter().any(may)
    }

    /// Asks what they have by now of whom nothing of use is known.
    fn look_again<'b>(
        &mut self,
        asker: &'b Asker<'a, S>,
        answers: &mut FuturesUnordered<BoxFuture<'b, Answer>>,
    ) {
        let beside = self.may_look_beside();
        if self.missing.is_empty() {
            return;
        }
        let now = asker.clock.now_millis();
        let count = self.providers.len();
        // Where there are too many to ask each has its turn.
        let first = self.looked_at.checked_rem(count).unwrap_or_default();
        let mut looks = 0;
        for index in (first..count).chain(0..first) {
            let is_partial = self.holdings.is_partial(index);
            let is_of_use = self.holdings.has_any(index, &self.missing);
            if !is_of_use && self.providers[index].is_due(is_partial, beside) {
                self.looked_at = index;
                // One at each look, however many others look.
                if !asker.shared.may_look(now) && looks > 0 {
                    break;
                }
                looks += 1;
                answers.push(self.ask_map(asker, index));
            }
        }
    }

    fn ask_map<'b>(&mut self, asker: &'b Asker<'a, S>, index: usize) -> BoxFuture<'b, Answer> {
        let provider = &mut self.providers[index];
        provider.is_asked = true;
        asker.ask_map(index, provider.address.clone()).boxed()
    }

    /// When this content is no longer among the first.
    fn lane_ends_at(&self) -> Option<u64> {
        let stalls_at = self.last_at.saturating_add(LANE_STALL_MILLIS);
        self.lane.as_ref().map(|lane| lane.ends_at.min(stalls_at))
    }

    /// Lets another content be among the first, when it is time.
    fn give_way(&mut self) {
        let now = self.asker.clock.now_millis();
        if self.lane_ends_at().is_some_and(|at| at <= now) {
            self.lane = None;
        }
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
        let (mut piece_len, mut has) = (len_max, None);
        while piece.len() < piece_len as usize {
            let have = piece.len() as u64;
            let len = self.limits.range_len.min(piece_len.saturating_sub(have as u32));
            let request = RangeRequest {
                id: self.id,
                piece: numbered.then(|| u32::try_from(index).unwrap_or(u32::MAX)),
                offset: if numbered { have } else { start.saturating_add(have) },
                len,
            };
            let answer = range_of(self.source, self.clock, &peer, request).await?;
            let (total_len, bytes, map) = match answer {
                Ok(Answered::Range(total_len, bytes, map)) => (total_len, bytes, map),
                Ok(Answered::OtherPieces(map)) => return Ok(Outcome::OtherPieces(map)),
                Err(FaultKind::Missing) => return Ok(Outcome::Missing),
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
            has = map;
        }
        self.check(index, piece, has).await
    }

    async fn check(
        &self,
        index: usize,
        piece: Vec<u8>,
        has: Option<PieceMap>,
    ) -> Result<Outcome, FetchError> {
        let _turn = self.checks[index % CHECKS].lock().await;
        // Another copy was right: what this one is says nothing of its peer, and is kept nowhere.
        if !is_missing(&*self.pieces, index) {
            return Ok(Outcome::Overtaken);
        }
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
            Outcome::Delivered(len as u64, has)
        } else {
            Outcome::Failed(FaultKind::Corrupt)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use async_trait::async_trait;

    use super::*;
    use crate::clock::ManualClock;

    const PIECE_LEN: u32 = 1_000;

    /// Pieces of which any bytes are right.
    struct Any(Vec<AtomicBool>);

    impl Pieces for Any {
        fn byte_len(&self) -> u64 {
            self.0.len() as u64 * u64::from(PIECE_LEN)
        }

        fn count(&self) -> usize {
            self.0.len()
        }

        fn piece(&self, index: usize) -> Option<(u64, u32, bool)> {
            let is_here = self.0.get(index)?.load(Ordering::Relaxed);
            Some((index as u64 * u64::from(PIECE_LEN), PIECE_LEN, is_here))
        }

        fn accept(&self, index: usize, _: &[u8]) -> bool {
            self.0[index].store(true, Ordering::Relaxed);
            true
        }
    }

    fn any(count: usize) -> Arc<Any> {
        Arc::new(Any((0..count).map(|_| AtomicBool::new(false)).collect()))
    }

    fn provider() -> PeerAddress {
        PeerAddress { peer: PeerId::random(), addresses: Vec::new() }
    }

    /// Peers that say this of what they are asked; nothing, for ever, where it is `None`.
    struct Says<F>(F);

    #[async_trait]
    impl<F> RangeSource for Says<F>
    where
        F: Fn(&PeerId, RangeRequest) -> Option<Result<RangeResponse, FaultKind>> + Send + Sync,
    {
        async fn range(
            &self,
            peer: &PeerAddress,
            request: RangeRequest,
        ) -> Result<Result<RangeResponse, FaultKind>, FetchError> {
            match (self.0)(&peer.peer, request) {
                Some(said) => Ok(said),
                None => std::future::pending().await,
            }
        }

        async fn providers(&self, _: Hash) -> Result<Vec<PeerAddress>, FetchError> {
            Ok(Vec::new())
        }

        fn local_peer(&self) -> PeerId {
            PeerId::random()
        }
    }

    /// Fetches so many pieces of these peers, of whom the first few say what they have and the others have all and
    /// answer: how many of these delivered, and after how many waits of 300 ms.
    fn fetch_of(
        (silent, answering): (usize, usize),
        pieces: usize,
        others: Option<PieceMap>,
        known: impl Fn(&Standing, &[PeerAddress]),
    ) -> (usize, usize) {
        let providers: Vec<_> = (0..silent + answering).map(|_| provider()).collect();
        let who: Vec<PeerId> = providers[silent..].iter().map(|provider| provider.peer).collect();
        let pieces = any(pieces);
        let total_len = pieces.byte_len();
        let source = Says(|peer: &PeerId, request: RangeRequest| {
            let bytes = vec![0; request.len as usize].into();
            if who.contains(peer) {
                return Some(Ok(RangeResponse::Found { total_len, bytes }));
            }
            let map = others.clone()?;
            let has_it = map.may_have(request.offset as usize / PIECE_LEN as usize);
            Some(Ok(match request.len > 0 && has_it {
                true => RangeResponse::Part { total_len, bytes, map },
                false => RangeResponse::OtherPieces(map),
            }))
        });
        let (fetched, waits) = fetched_of(&source, providers, pieces, known);
        (fetched.peers.iter().filter(|peer| who.contains(peer)).count(), waits)
    }

    /// What was fetched of a source, after how many waits of 300 ms.
    fn fetched_of(
        source: &impl RangeSource,
        providers: Vec<PeerAddress>,
        pieces: Arc<Any>,
        known: impl Fn(&Standing, &[PeerAddress]),
    ) -> (PiecesFetched, usize) {
        let clock = ManualClock::default();
        let shared = Shared::new(Arc::new(Standing::new(Arc::new(clock.clone()))), 1 << 20);
        known(&shared.standing, &providers);
        let request = PiecesRequest { id: [7; 32], providers, pieces, whole: false };
        let limits = FetchLimits { range_len: PIECE_LEN, peers_max: 32 };
        let mut fetch = Box::pin(download(source, &clock, limits, &shared, request, None));
        let mut waits = 0;
        loop {
            if let Some(fetched) = (&mut fetch).now_or_never() {
                return (fetched.unwrap(), waits);
            }
            assert!(waits < 100, "it never ends");
            clock.advance(Duration::from_millis(300));
            waits += 1;
        }
    }

    #[test]
    fn eleven_mute_peers_of_twelve_cost_one_short_wait() {
        assert_eq!(fetch_of((11, 1), 40, None, |_, _| {}), (1, 1));
    }

    #[test]
    fn who_has_nothing_of_use_is_not_asked_again_while_no_time_passes() {
        let nothing = PieceMap::of([false; 200]);
        assert_eq!(fetch_of((11, 1), 200, Some(nothing), |_, _| {}), (1, 0));
    }

    #[test]
    fn nothing_is_left_to_others_where_more_have_all_than_a_part() {
        let one = || PieceMap::of((0..200).map(|piece| piece == 7));
        let waits = |peers| fetch_of(peers, 200, Some(one()), |_, _| {}).1;
        assert_eq!(waits((1, 3)), 0);
        // Of one who has all, what is the others' share is left to them for a while.
        assert!(waits((2, 1)) > 0);
    }

    #[test]
    fn the_last_pieces_do_not_wait_for_the_slowest_while_others_have_nothing_to_do() {
        // Of the first a piece takes 4 s, and three times as long is not yet slow; it is not waited for longer than 4 s.
        let known = |standing: &Standing, providers: &[PeerAddress]| {
            standing.delivered_piece(&providers[0].peer, PIECE_LEN.into(), 4_000, false);
            standing.delivered_piece(&providers[1].peer, PIECE_LEN.into(), 1, false);
        };
        assert_eq!(fetch_of((1, 1), 3, None, known), (1, 14));
    }

    #[tokio::test]
    async fn copies_of_a_piece_are_looked_at_one_after_another() {
        /// A piece that one thread at a time can take.
        #[derive(Default)]
        struct One {
            is_busy: AtomicBool,
            is_here: AtomicBool,
            looks: AtomicU64,
        }

        impl Pieces for One {
            fn byte_len(&self) -> u64 {
                CHECKED_HERE_MAX as u64
            }

            fn count(&self) -> usize {
                1
            }

            fn piece(&self, index: usize) -> Option<(u64, u32, bool)> {
                let is_here = self.is_here.load(Ordering::Relaxed);
                (index == 0).then_some((0, CHECKED_HERE_MAX as u32, is_here))
            }

            fn accept(&self, _: usize, _: &[u8]) -> bool {
                self.looks.fetch_add(1, Ordering::Relaxed);
                let was_busy = self.is_busy.swap(true, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
                self.is_here.store(true, Ordering::Relaxed);
                !was_busy
            }
        }

        let clock = ManualClock::default();
        let shared = Shared::new(Arc::new(Standing::new(Arc::new(clock.clone()))), 1 << 20);
        let one = Arc::new(One::default());
        let source = Says(|_: &PeerId, _| None);
        let asker = Asker {
            source: &source,
            clock: &clock,
            limits: FetchLimits { range_len: PIECE_LEN, peers_max: 32 },
            shared: &shared,
            id: [7; 32],
            pieces: one.clone(),
            part: None,
            checks: Arc::default(),
        };
        let copy = || asker.check(0, vec![0; CHECKED_HERE_MAX], None);
        let (first, second) = futures::join!(copy(), copy());
        assert!(matches!(first, Ok(Outcome::Delivered(..))));
        assert!(matches!(second, Ok(Outcome::Overtaken)));
        assert_eq!(one.looks.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_piece_that_an_earlier_fetch_brought_meanwhile_counts() {
        // It is brought as soon as it is asked for, of who has it and of who does not answer in time.
        for is_delivered in [true, false] {
            let pieces = any(2);
            let source = Says(|_: &PeerId, request: RangeRequest| {
                pieces.0[0].store(true, Ordering::Relaxed);
                if request.offset == 0 && !is_delivered {
                    return Some(Err(FaultKind::TimedOut));
                }
                let (total_len, bytes) = (pieces.byte_len(), vec![0; request.len as usize].into());
                Some(Ok(RangeResponse::Found { total_len, bytes }))
            });
            let providers = vec![provider(), provider()];
            let (_, waits) = fetched_of(&source, providers, pieces.clone(), |_, _| {});
            assert_eq!(waits, 0);
        }
    }

    #[test]
    fn who_said_what_it_has_beside_a_piece_and_does_not_any_more_has_all() {
        let known = |standing: &Standing, providers: &[PeerAddress]| {
            // One piece at a time.
            standing.delivered_piece(&providers[0].peer, PIECE_LEN.into(), 4_000, false);
        };
        let (asked, pieces) = (Mutex::new(Vec::new()), any(3));
        // It lacks what it is asked for first, has all but that one more time, and then all.
        let source = Says(|_: &PeerId, request: RangeRequest| {
            let mut asked = asked.lock().unwrap();
            asked.push(request.offset as usize / PIECE_LEN as usize);
            let map = PieceMap::of((0..3).map(|piece| piece != asked[0]));
            let (total_len, bytes) = (pieces.byte_len(), vec![0; request.len as usize].into());
            Some(Ok(match asked.len() {
                1 => RangeResponse::OtherPieces(map),
                2 => RangeResponse::Part { total_len, bytes, map },
                _ => RangeResponse::Found { total_len, bytes },
            }))
        });
        let (_, waits) = fetched_of(&source, vec![provider()], pieces.clone(), known);
        let asked = asked.into_inner().unwrap();
        assert_eq!((asked.len(), asked[0] == asked[3], waits), (4, true, 0));
    }

    #[test]
    fn who_has_nothing_of_use_is_asked_less_and_less() {
        let provider = || Provider::new(provider());
        let due = |provider: &mut Provider, is_partial| -> Vec<usize> {
            let mut at = Vec::new();
            for look in 1..=32 {
                if provider.is_due(is_partial, true) {
                    at.push(look);
                    provider.looked(false);
                }
            }
            at
        };
        // After one second, two more, four more, and then every eight.
        assert_eq!(due(&mut provider(), true), [1, 3, 7, 15, 23, 31]);
        assert!(due(&mut provider(), false).is_empty());
        let mut nothing = provider();
        nothing.has_nothing = true;
        assert!(!nothing.is_due(false, false));
        assert_eq!(due(&mut nothing, false)[..2], [1, 3]);
        nothing.looked(true);
        assert_eq!(nothing.vain_looks, 0);
        assert!(nothing.is_due(true, false));
    }
}

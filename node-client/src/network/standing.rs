//! Remembers from fetch to fetch which peers failed to deliver or lied, how fast each is, and how much each is asked for now.
//!
//! What is remembered fades: a failure counts half after an hour, a lie and a rate count for a week.

use std::{
    collections::HashMap,
    sync::{
        atomic::{AtomicU64, Ordering},
        Arc, Mutex, MutexGuard, PoisonError,
    },
    time::Duration,
};

use libp2p::PeerId;
use tokio::sync::Notify;

use super::{awaited::Awaited, PeerAddress};
use crate::clock::Clock;

/// Peers remembered, more than runs have participants. When there are more, all are forgotten who are not being asked.
pub(super) const PEERS_MAX: usize = 8_192;

/// A peer is slow when it takes this many times as long as usual, and how long that is at the least and at the most. 1 MiB in
/// two seconds is 4 Mb/s. Where all is slow it is our own line, which does not get faster by asking others beside.
const SLOW_FACTOR: u64 = 3;
const PATIENCE_MILLIS_MIN: u64 = 2_000;
const PATIENCE_MILLIS_MAX: u64 = 10_000;

/// The most patience with one piece: bytes of it may keep coming.
const PIECE_PATIENCE_MILLIS_MAX: u64 = 60_000;

/// The least patience with who never delivered, when pieces of others take less.
const FIRST_MILLIS_MIN: u64 = 300;

/// Pieces that one peer is asked for at a time, of all contents: as long as its rate is not known, and at the most, fewer
/// than a peer serves to one.
const PIECES_FIRST: u32 = 2;
const PIECES_MAX: u32 = 6;

/// How much faster a peer may be than its first pieces say.
const FIRST_FACTOR: u64 = 2;

const MIB: u64 = 1 << 20;

/// After how long failures count half, and after how long a peer is as good as unknown: its line, and who uses it, may
/// be others by then.
const FAILURE_HALF_LIFE_MILLIS: u64 = 60 * 60 * 1_000;
const FORGET_MILLIS: u64 = 7 * 24 * 60 * 60 * 1_000;

/// What is known of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// How often it has failed since it last delivered.
    pub(super) failures: u32,
    /// Whether it ever served what it was not asked for.
    pub(super) lied: bool,
    /// What a MiB of it took, the last counting an eighth; 0 until one has come.
    pub(super) mib_millis: u64,
    /// When any of that changed, by the clock.
    pub(super) noted_at: u64,
    /// Pieces that it is asked for now, and their bytes.
    asked: u32,
    asked_bytes: u64,
    /// Bytes that it delivers in a second, of all pieces together; 0 until one has come.
    rate: u64,
}

impl Record {
    /// Of a peer that is asked for nothing.
    pub(super) fn new(failures: u32, lied: bool, mib_millis: u64, noted_at: u64) -> Self {
        Self { failures, lied, mib_millis, noted_at, ..Self::default() }
    }

    /// Whether it is asked for as many pieces of `len` bytes as it delivers in a second, or as it serves to one.
    fn is_full(&self, now: u64, len: u64) -> bool {
        let known = self.faded(now);
        let a_second = match (known.rate, known.mib_millis) {
            (0, 0) => return self.asked >= PIECES_FIRST,
            // Of an earlier process, and how many were asked for at a time is not known.
            (0, millis) => 1_000 * MIB / millis,
            (rate, _) => rate,
        };
        let pieces = u32::try_from(a_second / len.max(1)).unwrap_or(u32::MAX);
        self.asked >= pieces.clamp(1, PIECES_MAX)
    }

    /// Notes that it is asked for one piece more.
    fn take(&mut self, len: u64) {
        self.asked += 1;
        self.asked_bytes = self.asked_bytes.saturating_add(len);
    }

    /// Notes the rate when a piece has come after so many milliseconds: in the time that one piece takes it delivers as
    /// much as it is asked for at a time. Where that is less than it may be asked for, it may be faster. What it was asked
    /// for before any came (`is_new`) waited for a connection, and for that to find its pace.
    fn note_rate(&mut self, now: u64, len: u64, millis: u64, is_new: bool) {
        let factor = if is_new { FIRST_FACTOR } else { 1 };
        let rate = self.asked_bytes.max(len).saturating_mul(factor * 1_000) / millis.max(1);
        if rate >= self.rate {
            self.rate = rate;
        } else if self.is_full(now, len) {
            self.rate = self.rate.saturating_mul(7).saturating_add(rate) / 8;
        }
    }

    /// What of it still counts.
    fn faded(self, now: u64) -> Self {
        let age = now.saturating_sub(self.noted_at);
        if age >= FORGET_MILLIS {
            let Self { asked, asked_bytes, .. } = self;
            return Self { asked, asked_bytes, ..Self::default() };
        }
        let halvings = u32::try_from(age / FAILURE_HALF_LIFE_MILLIS).unwrap_or(u32::MAX);
        Self { failures: self.failures.checked_shr(halvings).unwrap_or(0), ..self }
    }
}

/// What is known of the peers; who is not here has neither delivered nor failed.
pub(super) struct Standing {
    clock: Arc<dyn Clock>,
    /// What ranges took, the last of them counting an eighth; and what pieces of a MiB did.
    usual_millis: AtomicU64,
    usual_mib_millis: AtomicU64,
    // Held for a look or a change, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    records: HashMap<PeerId, Record>,
    /// Who waits for turns.
    awaited: Awaited,
}

impl State {
    /// Gives turns of a peer to those who wait for them, as far as there are any.
    fn give(&mut self, now: u64, peer: PeerId) {
        while let Some(len) = self.awaited.first(&peer) {
            let record = self.records.entry(peer).or_default();
            if record.is_full(now, len) {
                break;
            }
            record.take(len);
            self.awaited.give(&peer);
        }
    }
}

/// One who may wait for turns, until it is dropped.
pub(super) struct Waiter {
    standing: Arc<Standing>,
    who: u64,
    told: Arc<Notify>,
}

impl Waiter {
    /// Lets one more piece of `len` bytes be asked of a peer. If it is asked for as many as it delivers in a second, or
    /// as it serves to one, or others wait for that, this one waits in its line from now on; `is_rare` says that nobody
    /// else is known to have what it is for.
    pub(super) fn turn(&self, peer: PeerId, len: u64, is_rare: bool) -> Option<Turn> {
        let standing = &self.standing;
        let now = standing.clock.now_millis();
        let mut state = standing.state();
        let is_next = state.awaited.first(&peer).is_none();
        let record = state.records.entry(peer).or_default();
        if is_next && !record.is_full(now, len) {
            record.take(len);
            return Some(Turn { standing: standing.clone(), peer, len });
        }
        state.awaited.wait(self.who, (peer, len), is_rare);
        state.give(now, peer);
        None
    }

    /// The turns that it waited for and has by now.
    pub(super) fn turns(&self) -> Vec<Turn> {
        let given = self.standing.state().awaited.take(self.who);
        let turn = |(peer, len)| Turn { standing: self.standing.clone(), peer, len };
        given.into_iter().map(turn).collect()
    }

    /// Waits until it has some. Cancel-safe.
    pub(super) async fn told(&self) {
        self.told.notified().await;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let unused = self.standing.state().awaited.leave(self.who);
        for (peer, len) in unused {
            self.standing.release(peer, len);
        }
    }
}

/// The right to ask a peer for a piece, until it is dropped.
pub(super) struct Turn {
    standing: Arc<Standing>,
    peer: PeerId,
    len: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.standing.release(self.peer, self.len);
    }
}

impl Turn {
    /// Whom it lets ask.
    pub(super) fn peer(&self) -> PeerId {
        self.peer
    }
}

impl Standing {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            usual_millis: AtomicU64::new(0),
            usual_mib_millis: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }

    /// Takes over what an earlier process knew, of peers of which nothing is known yet.
    pub(super) fn recall(&self, known: impl IntoIterator<Item = (PeerId, Record)>) {
        let records = &mut self.state().records;
        for (peer, record) in known {
            if records.len() < PEERS_MAX {
                records.entry(peer).or_insert(record);
            }
        }
    }

    /// What is worth to be known by a later process, in the order of peer ids.
    pub(super) fn known(&self) -> Vec<(PeerId, Record)> {
        let now = self.clock.now_millis();
        let is_known = |(_, record): &(PeerId, Record)| {
            record.failures > 0 || record.lied || record.mib_millis > 0
        };
        let faded = |(peer, record): (&PeerId, &Record)| {
            let age = now.saturating_sub(record.noted_at);
            // As it was noted: what fades, fades from then on.
            let Record { failures, lied, mib_millis, noted_at, .. } = *record;
            let kept = Record::new(failures, lied, mib_millis, noted_at);
            (age < FORGET_MILLIS).then_some((*peer, kept))
        };
        let records = &self.state().records;
        let mut known: Vec<_> = records.iter().filter_map(faded).filter(is_known).collect();
        known.sort_unstable_by_key(|(peer, _)| *peer);
        known
    }

    /// Notes that a peer broke off, or took longer than another one.
    pub(super) fn failed(&self, peer: PeerId) {
        self.change(peer, |record| record.failures = record.failures.saturating_add(1));
    }

    /// Notes that a peer lied: from then on it is asked when nobody else is left.
    pub(super) fn lied(&self, peer: PeerId) {
        self.change(peer, |record| record.lied = true);
    }

    /// Notes that a peer delivered a range, and what it took.
    pub(super) fn delivered(&self, peer: &PeerId, millis: u64) {
        self.change(*peer, |record| record.failures = 0);
        note_usual(&self.usual_millis, millis);
    }

    /// Notes that a peer delivered a piece of `len` bytes, and what it took. A small one takes the way there and back, as a MiB does.
    /// `is_new` says that it was asked for it before any had come.
    pub(super) fn delivered_piece(&self, peer: &PeerId, len: u64, millis: u64, is_new: bool) {
        let mib_millis = (millis.saturating_mul(MIB) / len.max(MIB)).max(1);
        let now = self.clock.now_millis();
        self.change(*peer, |record| {
            record.failures = 0;
            record.note_rate(now, len, millis, is_new);
            record.mib_millis = match record.mib_millis {
                0 => mib_millis,
                known => (known.saturating_mul(7).saturating_add(mib_millis) / 8).max(1),
            };
        });
        note_usual(&self.usual_millis, mib_millis);
        note_usual(&self.usual_mib_millis, mib_millis);
    }

    /// Notes that a piece of `len` bytes takes longer than this of a peer, which is no failure: it is expected to take
    /// more, then.
    pub(super) fn took_longer(&self, peer: &PeerId, len: u64, waited: Duration) {
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        let mib_millis = millis.min(PIECE_PATIENCE_MILLIS_MAX).saturating_mul(MIB) / len.max(MIB);
        if mib_millis <= self.record(peer).mib_millis.max(1) || !self.is_known(peer) {
            return;
        }
        self.change(*peer, |record| {
            record.mib_millis = record.mib_millis.saturating_mul(7).saturating_add(mib_millis) / 8;
            record.rate = (record.rate.saturating_mul(7) / 8).max(record.rate.min(1));
        });
    }

    /// How long a peer has for a range before another is asked beside it.
    pub(super) fn patience(&self) -> Duration {
        let slow = self.usual_millis.load(Ordering::Relaxed).saturating_mul(SLOW_FACTOR);
        Duration::from_millis(slow.clamp(PATIENCE_MILLIS_MIN, PATIENCE_MILLIS_MAX))
    }

    /// How long a peer has for a piece of `len` bytes before another is asked beside it: three times what it is expected to take, by
    /// what this peer took before, or what others do.
    pub(super) fn piece_patience(&self, peer: &PeerId, len: u64) -> Duration {
        let mib_millis = match self.record(peer).mib_millis {
            0 => self.usual_millis.load(Ordering::Relaxed),
            known => known,
        };
        let slow = piece_millis(mib_millis, len).saturating_mul(SLOW_FACTOR);
        Duration::from_millis(slow.clamp(PATIENCE_MILLIS_MIN, PIECE_PATIENCE_MILLIS_MAX))
    }

    /// How long a peer that never delivered has for a piece before another that has nothing else to do is asked beside
    /// it: three times what pieces take, once one has come.
    pub(super) fn first_patience(&self, len: u64) -> Option<Duration> {
        let usual = self.usual_mib_millis.load(Ordering::Relaxed);
        let usual = Some(usual).filter(|usual| *usual > 0)?;
        let slow = piece_millis(usual, len).saturating_mul(SLOW_FACTOR);
        Some(Duration::from_millis(slow.clamp(FIRST_MILLIS_MIN, PIECE_PATIENCE_MILLIS_MAX)))
    }

    /// What a piece of `len` bytes usually takes of a peer; `None` before one has come.
    pub(super) fn time_of(&self, peer: &PeerId, len: u64) -> Option<Duration> {
        let known = Some(self.record(peer).mib_millis).filter(|millis| *millis > 0)?;
        Some(Duration::from_millis(piece_millis(known, len)))
    }

    /// What a piece of `len` bytes usually takes; zero before one has come.
    pub(super) fn usual(&self, len: u64) -> Duration {
        let usual = self.usual_mib_millis.load(Ordering::Relaxed);
        Duration::from_millis(piece_millis(usual, len))
    }

    /// Whether a peer may be asked for one more piece of `len` bytes, and nobody waits for that.
    pub(super) fn is_spare(&self, peer: &PeerId, len: u64) -> bool {
        let (state, now) = (self.state(), self.clock.now_millis());
        let has_room = |record: &Record| !record.is_full(now, len);
        state.awaited.first(peer).is_none() && state.records.get(peer).is_none_or(has_room)
    }

    /// Whether a peer has delivered a piece to this process.
    pub(super) fn has_rate(&self, peer: &PeerId) -> bool {
        self.record(peer).rate > 0
    }

    /// Whether a peer ever delivered a piece, as far as is known.
    pub(super) fn is_known(&self, peer: &PeerId) -> bool {
        self.record(peer).mib_millis > 0
    }

    /// One more who may wait for turns.
    pub(super) fn waiter(self: &Arc<Self>) -> Waiter {
        let (who, told) = self.state().awaited.enter();
        Waiter { standing: self.clone(), who, told }
    }

    fn release(&self, peer: PeerId, len: u64) {
        let now = self.clock.now_millis();
        let mut state = self.state();
        if let Some(record) = state.records.get_mut(&peer) {
            record.asked = record.asked.saturating_sub(1);
            record.asked_bytes = record.asked_bytes.saturating_sub(len);
        }
        state.give(now, peer);
    }

    /// Puts liars behind the others, and who failed behind who did not, the most often last; else the order stays.
    pub(super) fn sort(&self, peers: &mut [PeerAddress]) {
        let (state, now) = (self.state(), self.clock.now_millis());
        let record =
            |peer: &PeerId| state.records.get(peer).copied().unwrap_or_default().faded(now);
        peers.sort_by_key(|peer| {
            let Record { lied, failures, .. } = record(&peer.peer);
            (lied, failures)
        });
    }

    fn record(&self, peer: &PeerId) -> Record {
        let now = self.clock.now_millis();
        self.state().records.get(peer).copied().unwrap_or_default().faded(now)
    }

    fn change(&self, peer: PeerId, change: impl FnOnce(&mut Record)) {
        let now = self.clock.now_millis();
        let records = &mut self.state().records;
        if records.len() >= PEERS_MAX && !records.contains_key(&peer) {
            records.retain(|_, record| record.asked > 0);
        }
        let record = records.entry(peer).or_default();
        *record = record.faded(now);
        change(record);
        record.noted_at = now;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a piece of `len` bytes takes where a MiB takes so long: a small one takes the way there and back, as a MiB does.
fn piece_millis(mib_millis: u64, len: u64) -> u64 {
    mib_millis.saturating_mul(len.max(MIB)) / MIB
}

/// Notes what something took: the last counts an eighth, the first is all that is known.
fn note_usual(usual_millis: &AtomicU64, millis: u64) {
    let usual = usual_millis.load(Ordering::Relaxed);
    // Two at the same time may count as one.
    let usual = match usual {
        0 => millis.max(1),
        usual => (usual.saturating_mul(7).saturating_add(millis) / 8).max(1),
    };
    usual_millis.store(usual, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn standing(clock: &ManualClock) -> Standing {
        Standing::new(Arc::new(clock.clone()))
    }

    fn address(peer: PeerId) -> PeerAddress {
        PeerAddress { peer, addresses: Vec::new() }
    }

    #[test]
    fn who_is_overtaken_is_expected_to_take_longer() {
        let standing = Standing::new(Arc::new(ManualClock::default()));
        let [known, unknown] = [(); 2].map(|()| PeerId::random());
        standing.delivered_piece(&known, MIB, 1_000, false);
        let after = |waited| {
            for peer in [known, unknown] {
                standing.took_longer(&peer, MIB, Duration::from_millis(waited));
            }
            standing.time_of(&known, MIB).unwrap().as_millis()
        };
        assert_eq!([after(500), after(3_000), after(u64::MAX)], [1_000, 1_250, 8_593]);
        assert_eq!(standing.time_of(&unknown, MIB), None);
        assert_eq!(standing.record(&known).failures, 0);
    }

    #[test]
    fn liars_come_last_and_who_failed_before_them() {
        let standing = standing(&ManualClock::new(0));
        let [good, failed, liar] = [(); 3].map(|()| PeerId::random());
        standing.lied(liar);
        standing.failed(failed);
        standing.delivered(&liar, 1);
        let mut peers = [liar, failed, good].map(address);
        standing.sort(&mut peers);
        assert_eq!(peers, [good, failed, liar].map(address));
    }

    #[test]
    fn a_peer_is_asked_for_what_it_delivers_in_a_second() {
        let standing = Arc::new(standing(&ManualClock::new(0)));
        let [unknown, fast, new] = [(); 3].map(|()| PeerId::random());
        let turns = |peer| -> Vec<Turn> {
            let waiter = standing.waiter();
            std::iter::from_fn(|| waiter.turn(peer, MIB, false)).collect()
        };
        assert_eq!(turns(unknown).len(), PIECES_FIRST as usize);
        // Turns that are dropped are to be had again.
        assert_eq!(turns(unknown).len(), PIECES_FIRST as usize);
        standing.delivered_piece(&fast, 2 * MIB, 500, false);
        assert_eq!(turns(fast).len(), 4);
        // When the first was asked for there was no connection.
        standing.delivered_piece(&new, MIB, 500, true);
        assert_eq!(turns(new).len(), 4);
        assert_eq!(standing.piece_patience(&fast, 4 * MIB), Duration::from_millis(3_000));
        assert_eq!(standing.piece_patience(&fast, 1), Duration::from_millis(2_000));
    }

    /// A far peer: each piece takes 350 ms, however many are on their way.
    #[test]
    fn a_peer_whose_pieces_take_no_longer_is_asked_for_more() {
        let standing = Arc::new(standing(&ManualClock::new(0)));
        let (peer, waiter) = (PeerId::random(), standing.waiter());
        let turns =
            || -> Vec<Turn> { std::iter::from_fn(|| waiter.turn(peer, MIB, false)).collect() };
        let mut counts = Vec::new();
        for millis in [350, 350, 350, 3_000, 3_000] {
            let turns = turns();
            counts.push(turns.len());
            for _ in 0..16 {
                standing.delivered_piece(&peer, MIB, millis, false);
            }
            drop(turns);
            // What it waited for.
            drop(waiter.turns());
        }
        // Its line is full in the end, and what is on its way lasts for a second.
        assert_eq!(counts, [2, 5, 6, 6, 3]);
    }

    #[test]
    fn a_turn_goes_to_who_waits_longest_and_on_if_it_is_not_used() {
        let standing = Arc::new(standing(&ManualClock::new(0)));
        let peer = PeerId::random();
        let [one, two, three, gone] = [(); 4].map(|()| standing.waiter());
        let all: Vec<Turn> = std::iter::from_fn(|| one.turn(peer, MIB, false)).collect();
        assert!(gone.turn(peer, MIB, false).is_none());
        assert!(two.turn(peer, MIB, false).is_none() && three.turn(peer, MIB, false).is_none());
        let count = |waiter: &Waiter| waiter.turns().len();
        assert_eq!((count(&one), count(&gone), count(&two)), (0, 0, 0));
        drop(all);
        let first = one.turns();
        assert_eq!((first.len(), count(&two), count(&three)), (1, 0, 0));
        // Who leaves with what it was given leaves it to the next.
        drop(gone);
        let second = two.turns();
        assert_eq!((second.len(), count(&three)), (1, 0));
        // Though it could be had it is the next one's.
        drop(first);
        assert!(one.turn(peer, MIB, false).is_none());
        assert_eq!(count(&three), 1);
        drop(second);
        assert_eq!(standing.record(&peer).asked, 1);
        assert_eq!(count(&one), 1);
        assert_eq!(standing.record(&peer).asked, 0);
    }

    #[test]
    fn a_turn_goes_first_to_who_needs_what_nobody_else_has() {
        let standing = Arc::new(standing(&ManualClock::new(0)));
        let peer = PeerId::random();
        let [busy, common, rare] = [(); 3].map(|()| standing.waiter());
        // One piece at a time.
        standing.delivered_piece(&peer, MIB, 4_000, false);
        let turn = busy.turn(peer, MIB, false).unwrap();
        assert!(common.turn(peer, MIB, false).is_none() && rare.turn(peer, MIB, true).is_none());
        drop(turn);
        let turns = rare.turns();
        assert_eq!((turns.len(), common.turns().len()), (1, 0));
        // Who waits alone waits for nobody.
        drop(turns);
        assert_eq!(common.turns().len(), 1);
    }

    #[test]
    fn failures_fade_in_hours_and_lies_and_rates_in_a_week() {
        let clock = ManualClock::new(5);
        let standing = standing(&clock);
        let [failed, liar, fast] = [(); 3].map(|()| PeerId::random());
        for _ in 0..5 {
            standing.failed(failed);
        }
        standing.lied(liar);
        standing.delivered_piece(&fast, MIB, 500, false);
        clock.advance(Duration::from_millis(2 * FAILURE_HALF_LIFE_MILLIS));
        assert_eq!(standing.record(&failed).failures, 1);
        // It is 1 and not 5 to which the next one is added.
        standing.failed(failed);
        assert_eq!(standing.record(&failed).failures, 2);
        clock.advance(Duration::from_millis(FORGET_MILLIS - 2 * FAILURE_HALF_LIFE_MILLIS - 1));
        assert!(standing.record(&liar).lied);
        assert_eq!(standing.record(&fast).mib_millis, 500);
        assert_eq!(standing.record(&failed).failures, 0);
        clock.advance(Duration::from_millis(1));
        assert_eq!(standing.record(&liar), Record::default());
        assert_eq!(standing.record(&fast), Record::default());
    }
}

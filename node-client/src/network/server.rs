//! Serves ranges to peers: by right, each within what it may have of us.
//!
//! A question is charged to who asks, waits in the [`Queue`], and is served when there is a slot and room on the
//! uplink; who withdraws it before pays for its place alone. A slot that a role may take any higher one may take too, and
//! some are kept for the higher alone ([`Slots`]); who does not read what it asked for loses its own ([`Pace`]). What is
//! more than may wait, or waits too long, is told that we are busy; answers without content to strangers are counted.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{future::BoxFuture, stream::FuturesUnordered, FutureExt, StreamExt};
use libp2p::{core::ConnectedPoint, PeerId};
use protocol::Hash;
use tokio::sync::oneshot;

use super::{
    codec::{RangeRequest, RangeResponse},
    counters::CounterCells,
    origin::{origin_address, Origin},
    pace::Pace,
    queue::{Queue, Waiting, Wanted},
    rate::{Buckets, Limit},
    roles::{Role, Roles},
    slots::{Slot, Slots},
    streams::QuestionId,
    uplink::Uplink,
    NetworkConfig,
};
use crate::{
    clock::Clock,
    store::{Found, PieceMap, Range, Store},
};

/// Seconds' worth of a rate that a peer may use at once.
const BURST_SECONDS: u64 = 10;

/// How long a question waits for its turn: who asks gives up after 10 s
/// ([`STALL_TIMEOUT`](super::codec::STALL_TIMEOUT)).
const WAIT_MILLIS_MAX: u64 = 8_000;

/// What a question costs at the least, in bytes of who asks: one for a byte takes a place and a look at the disk, too.
const CHARGED_MIN: u32 = 4 << 10;

/// Ranges of which it is remembered that they have left, in some four MiB; then all are forgotten.
const LEFT_MAX: usize = 1 << 15;

/// How long others go before what has left already.
const COPY_MILLIS_MAX: u64 = 5_000;

/// To whom something is charged. It outlives connections: who comes back has no more than who stayed.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Account {
    Peer(PeerId),
    /// All strangers of one origin.
    Strangers(Origin),
}

/// Who asks.
#[derive(Clone, Copy)]
struct Asker {
    peer: PeerId,
    role: Role,
    origin: Option<Origin>,
}

impl Asker {
    fn account(&self) -> Account {
        match self.origin {
            Some(origin) if self.role == Role::Stranger => Account::Strangers(origin),
            _ => Account::Peer(self.peer),
        }
    }
}

/// What is asked for, and the way back.
struct Question {
    asker: Asker,
    id: QuestionId,
    request: RangeRequest,
    answer: oneshot::Sender<RangeResponse>,
}

/// A range read from the store, and to whom it goes.
pub(super) struct Served {
    asker: Asker,
    id: QuestionId,
    request: RangeRequest,
    /// Bytes that were charged for it.
    len: u32,
    answer: oneshot::Sender<RangeResponse>,
    response: RangeResponse,
}

/// Why the server is looked at again.
pub(super) enum Turn {
    Read(Box<Served>),
    /// Somebody who waits can be served, or has waited too long.
    Time,
}

/// What is being served, what waits, and what each has had.
pub(super) struct Server {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    counters: Arc<CounterCells>,
    pace: Arc<Pace>,
    with_private: bool,
    roles: Roles,
    /// Where each connected peer comes from.
    origins: HashMap<PeerId, Option<Origin>>,
    bytes: Buckets<Account>,
    records: Buckets<Account>,
    refusals: Buckets<Account>,
    uplink: Option<Uplink>,
    queue: Queue<Question>,
    slots: Slots<QuestionId>,
    reads: FuturesUnordered<BoxFuture<'static, Served>>,
    /// What is being read, and whether it will leave: if not, its slot is taken until it has been read all the same.
    reading: HashMap<QuestionId, bool>,
    /// The ranges that left lately, to others than strangers.
    left: HashSet<RangeRequest>,
    /// When to look again though nothing happens.
    look_at: Option<u64>,
}

impl Server {
    pub(super) fn new(
        config: &NetworkConfig,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        counters: Arc<CounterCells>,
        pace: Arc<Pace>,
    ) -> Self {
        let fill = config.serve_bytes_per_second_max;
        let burst = fill.saturating_mul(BURST_SECONDS);
        let a_minute = |fill| Limit { burst: fill, fill, per_millis: 60_000 };
        Self {
            store,
            clock,
            counters,
            pace,
            with_private: config.limit_private_networks,
            roles: Roles::default(),
            origins: HashMap::new(),
            bytes: Buckets::new(Limit { burst, fill, per_millis: 1_000 }),
            records: Buckets::new(a_minute(config.records_per_minute_max)),
            refusals: Buckets::new(a_minute(config.refusals_per_minute_max)),
            uplink: config.up_bytes_per_second.map(Uplink::new),
            queue: Queue::new(config.serves_per_peer_max),
            slots: Slots::new(config.serves_max, config.serves_per_peer_max),
            reads: FuturesUnordered::new(),
            reading: HashMap::new(),
            left: HashSet::new(),
            look_at: None,
        }
    }

    /// Replaces the roles. What waits and is served stays as it is.
    pub(super) fn set_roles(&mut self, roles: Roles) {
        self.roles = roles;
    }

    /// Notes from where a peer comes. Where we dialled it is what it says of itself, and counts only while it never came.
    pub(super) fn on_connected(&mut self, peer: PeerId, endpoint: &ConnectedPoint) {
        let from = match endpoint {
            ConnectedPoint::Listener { local_addr, send_back_addr } => {
                origin_address(local_addr, send_back_addr)
            }
            ConnectedPoint::Dialer { address, .. } => address,
        };
        let origin = Origin::of(from, self.with_private);
        if endpoint.is_listener() {
            self.origins.insert(peer, origin);
        } else {
            self.origins.entry(peer).or_insert(origin);
        }
    }

    pub(super) fn on_disconnected(&mut self, peer: &PeerId) {
        self.origins.remove(peer);
        self.queue.forget(peer);
        self.go_on();
    }

    fn asker(&self, peer: &PeerId) -> Asker {
        let origin = self.origins.get(peer).copied().flatten();
        Asker { peer: *peer, role: self.roles.of(peer), origin }
    }

    /// Whether the chain has named peers, and not this one.
    pub(super) fn is_stranger(&self, peer: &PeerId) -> bool {
        self.roles.of(peer) == Role::Stranger
    }

    /// Whether `peer` may have one more provider record kept; if so it is charged for it. Strangers have none: they would
    /// take the place of those that matter.
    pub(super) fn admit_record(&mut self, peer: &PeerId) -> bool {
        let account = self.asker(peer).account();
        let is_known = self.origins.contains_key(peer) && !self.is_stranger(peer);
        is_known && self.records.take(account, self.clock.now_millis(), 1)
    }

    /// Serves what a published content's request asks for, now or when it is its turn.
    pub(super) fn serve(
        &mut self,
        peer: PeerId,
        id: QuestionId,
        request: RangeRequest,
        answer: oneshot::Sender<RangeResponse>,
    ) {
        let (asker, len) = (self.asker(&peer), cost(&request));
        let since_millis = self.clock.now_millis();
        let item = Question { asker, id, request, answer };
        if !self.bytes.take(asker.account(), since_millis, len.into()) {
            self.give_up(item);
            return;
        }
        let waiting = Waiting { peer, role: asker.role, len, since_millis, item };
        if let Err(too_many) = self.queue.push(waiting) {
            self.bytes.give_back(&asker.account(), len.into());
            self.give_up(too_many.item);
            return;
        }
        self.go_on();
    }

    /// Tells who asks that it gets nothing. Strangers who ask on and on are not even told that.
    pub(super) fn refuse(
        &mut self,
        peer: &PeerId,
        answer: oneshot::Sender<RangeResponse>,
        response: RangeResponse,
    ) {
        let asker = self.asker(peer);
        let now = self.clock.now_millis();
        let is_told = asker.role != Role::Stranger || self.refusals.take(asker.account(), now, 1);
        if !is_told || response == RangeResponse::Busy {
            self.counters.add_refused();
        }
        if is_told {
            // The peer may be gone: its connection's end says so.
            let _ = answer.send(response);
        }
    }

    fn give_up(&mut self, question: Question) {
        self.refuse(&question.asker.peer, question.answer, RangeResponse::Busy);
    }

    /// Serves whose turn it is, as far as there is room.
    fn go_on(&mut self) {
        let (now, mut leaves_at) = (self.clock.now_millis(), None);
        while let Some(place) =
            self.queue.next(|one| self.has_room(now, one), |one| self.wanted(now, one))
        {
            let next = self.uplink.as_ref().zip(self.queue.get(place));
            let wait = next
                .map_or(0, |(uplink, waiting)| uplink.wait_millis(now, waiting.role, waiting.len));
            if wait > 0 {
                // Its turn stays its own: smaller ones that there is room for do not overtake it.
                leaves_at = Some(now.saturating_add(wait));
                break;
            }
            let Some(waiting) = self.queue.take(place) else { break };
            if let Some(uplink) = &mut self.uplink {
                uplink.take(now, waiting.role, waiting.len);
            }
            self.begin(waiting.item);
        }
        self.look_at = self.next_look(now).into_iter().chain(leaves_at).min();
        self.pace.set_others_wait(self.queue.fronts().any(|waiting| self.wants_a_slot(waiting)));
        self.counters.set_serving(self.slots.count(), self.queue.len());
    }

    /// What a question is for: a range that has left lately is a copy, until the question has waited long.
    fn wanted(&self, now: u64, waiting: &Waiting<Question>) -> Wanted<Hash> {
        let request = &waiting.item.request;
        let is_new = now.saturating_sub(waiting.since_millis) < COPY_MILLIS_MAX;
        Wanted { content: request.id, is_copy: is_new && self.left.contains(request) }
    }

    /// Whether there is a slot for a question, and a part of the uplink that is its role's.
    fn has_room(&self, now: u64, waiting: &Waiting<Question>) -> bool {
        let reserve = |uplink: &Uplink| uplink.reserve_wait_millis(now, waiting.role, waiting.len);
        let Asker { peer, role, origin } = waiting.item.asker;
        self.slots.has_room(&Slot { peer, role, origin })
            && self.uplink.as_ref().map_or(0, reserve) == 0
    }

    /// Whether a question waits for slots that others have. Strangers wait for no one's but each other's, and a peer that has all
    /// that one may have for its own.
    fn wants_a_slot(&self, waiting: &Waiting<Question>) -> bool {
        let Asker { peer, role, origin } = waiting.item.asker;
        role != Role::Stranger && self.slots.is_full_for(&Slot { peer, role, origin })
    }

    fn next_look(&self, now: u64) -> Option<u64> {
        let looks = self.queue.fronts().flat_map(|waiting| {
            let expires = waiting.since_millis.saturating_add(WAIT_MILLIS_MAX);
            let uplink = self.uplink.as_ref();
            let wait = uplink.map(|uplink| uplink.wait_millis(now, waiting.role, waiting.len));
            let leaves = wait.filter(|wait| *wait > 0).map(|wait| now.saturating_add(wait));
            [Some(expires), leaves]
        });
        looks.flatten().min()
    }

    /// Starts to read what a question asks for; the end is [`Turn::Read`].
    fn begin(&mut self, question: Question) {
        let Question { asker, id: question_id, request, answer } = question;
        let (Asker { peer, role, origin }, cost) = (asker, cost(&request));
        self.slots.take(question_id, Slot { peer, role, origin });
        self.reading.insert(question_id, true);
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
                Ok(Ok(Found::Part(Range { total_len, bytes }, map))) => match map {
                    Some(map) => RangeResponse::Part { total_len, bytes, map },
                    None => RangeResponse::Found { total_len, bytes },
                },
                Ok(Ok(Found::OtherPieces(map))) => RangeResponse::OtherPieces(map),
                Ok(Ok(Found::Nothing)) | Err(_) => RangeResponse::Missing,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot read what is published");
                    RangeResponse::Missing
                }
            };
            Served { asker, id: question_id, request, len: cost, answer, response }
        };
        self.reads.push(served.boxed());
    }

    /// What is to be done next. Cancel-safe.
    pub(super) async fn next_turn(&mut self) -> Turn {
        let now = self.clock.now_millis();
        let look_in = self.look_at.map(|at| Duration::from_millis(at.saturating_sub(now)));
        tokio::select! {
            Some(served) = self.reads.next() => Turn::Read(Box::new(served)),
            () = self.clock.sleep(look_in.unwrap_or_default()), if look_in.is_some() => Turn::Time,
            else => std::future::pending().await,
        }
    }

    pub(super) fn on_turn(&mut self, turn: Turn) {
        match turn {
            Turn::Read(served) => self.on_read(*served),
            Turn::Time => {
                let since = self.clock.now_millis().checked_sub(WAIT_MILLIS_MAX);
                for waiting in since.map(|since| self.queue.expired(since)).unwrap_or_default() {
                    let account = waiting.item.asker.account();
                    self.bytes.give_back(&account, waiting.len.into());
                    self.give_up(waiting.item);
                }
            }
        }
        self.go_on();
    }

    /// Sends what has been read, and gives back what was charged for more. What its peer wants no more is charged to it all
    /// the same, but for the line.
    fn on_read(&mut self, served: Served) {
        let Served { asker, id, request, len, answer, response } = served;
        let leaves = self.reading.remove(&id) == Some(true) && !answer.is_closed();
        let sent = response.content_len();
        // A map beside content is too short to count.
        let used = if sent == 0 { response.map_len() } else { sent };
        self.give_back(&asker, len, used);
        if let Some(uplink) = &mut self.uplink {
            // The line carries what is sent, and no more.
            let used = if leaves { used as u64 } else { 0 };
            uplink.give_back(asker.role, u64::from(len).saturating_sub(used));
        }
        if !leaves {
            self.slots.leave(&id);
            return;
        }
        self.counters.add_sent(sent);
        if sent == 0 {
            self.refuse(&asker.peer, answer, response);
            return;
        }
        if asker.role != Role::Stranger {
            if self.left.len() >= LEFT_MAX {
                self.left.clear();
            }
            self.left.insert(request);
        }
        let _ = answer.send(response);
    }

    /// Gives back what was charged for more than was used. The least that a question costs is kept, whatever came of it.
    fn give_back(&mut self, asker: &Asker, len: u32, used: usize) {
        let charged = (used as u64).max(CHARGED_MIN.into());
        self.bytes.give_back(&asker.account(), u64::from(len).saturating_sub(charged));
    }

    /// Notes that so many bytes of content came, of whatever was asked.
    pub(super) fn received(&mut self, len: usize) {
        let now = self.clock.now_millis();
        if let Some(uplink) = &mut self.uplink {
            uplink.received(now, len);
        }
    }

    /// Notes that a range has left, or never will: its connection is gone, though the peer may have others, or who asked
    /// has withdrawn the question.
    pub(super) fn on_sent(&mut self, id: &QuestionId) {
        if let Some(leaves) = self.reading.get_mut(id) {
            *leaves = false;
            return;
        }
        if !self.slots.leave(id) {
            let Some(waiting) = self.queue.remove(|question| question.id == *id) else {
                return;
            };
            self.give_back(&waiting.item.asker, waiting.len, 0);
        }
        self.go_on();
    }
}

/// What a question is charged for until its answer is read: a map of pieces may be as long as maps are.
fn cost(request: &RangeRequest) -> u32 {
    let len = match request.len {
        0 => PieceMap::BYTES_MAX as u32,
        len => len,
    };
    len.max(CHARGED_MIN)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{clock::ManualClock, network::streams::QuestionIds};

    const LEN: u32 = 10 * CHARGED_MIN;
    const ID: [u8; 32] = [7; 32];

    /// A server with two slots that lets a peer have five contents, and nothing more, as no time passes.
    struct Serving {
        server: Server,
        ids: QuestionIds,
        peer: PeerId,
        _folder: tempfile::TempDir,
    }

    impl Serving {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = Arc::new(Store::open(folder.path(), 1 << 20).unwrap());
            store.put(ID, &Bytes::from(vec![1; LEN as usize])).unwrap();
            let config = NetworkConfig {
                serves_max: 2,
                serves_per_peer_max: 2,
                serve_bytes_per_second_max: u64::from(5 * LEN) / BURST_SECONDS,
                ..NetworkConfig::loopback()
            };
            let clock: Arc<dyn Clock> = Arc::new(ManualClock::default());
            let pace = Pace::new(clock.clone());
            let mut server = Server::new(&config, store, clock, Arc::default(), pace);
            let peer = PeerId::random();
            server.set_roles(Roles::new([(peer, Role::Validator)].into()));
            Self { server, ids: QuestionIds::default(), peer, _folder: folder }
        }

        fn ask(&mut self) -> (QuestionId, oneshot::Receiver<RangeResponse>) {
            let (id, (answer, response)) = (self.ids.next(), oneshot::channel());
            let request = RangeRequest { id: ID, piece: None, offset: 0, len: LEN };
            self.server.serve(self.peer, id, request, answer);
            (id, response)
        }

        /// Whether one more question is told that we are busy.
        fn is_busy(&mut self) -> bool {
            matches!(self.ask().1.try_recv(), Ok(RangeResponse::Busy))
        }

        async fn turn(&mut self) {
            let turn = self.server.next_turn().await;
            self.server.on_turn(turn);
        }

        fn serving(&self) -> (u64, u64) {
            let counters = self.server.counters.read();
            (counters.serving, counters.waiting)
        }
    }

    #[tokio::test]
    async fn what_is_withdrawn_while_it_is_read_has_its_slot_so_long_and_is_charged() {
        let mut serving = Serving::new();
        for _ in 0..5 {
            let (id, response) = serving.ask();
            drop(response);
            serving.server.on_sent(&id);
            assert_eq!(serving.serving(), (1, 0));
            serving.turn().await;
            assert_eq!(serving.serving(), (0, 0));
        }
        assert!(serving.is_busy());
        assert_eq!(serving.server.counters.read().bytes_sent, 0);
    }

    #[tokio::test]
    async fn a_range_that_has_left_is_a_copy_for_a_while() {
        let mut serving = Serving::new();
        let request = RangeRequest { id: ID, piece: None, offset: 0, len: LEN };
        let is_copy = |serving: &Serving, now| {
            let (answer, _) = oneshot::channel();
            let asker = serving.server.asker(&serving.peer);
            let item = Question { asker, id: serving.ids.next(), request, answer };
            let (peer, role) = (serving.peer, asker.role);
            let waiting = Waiting { peer, role, len: LEN, since_millis: 0, item };
            serving.server.wanted(now, &waiting).is_copy
        };
        let (id, response) = serving.ask();
        assert!(!is_copy(&serving, 0));
        serving.turn().await;
        assert!(matches!(response.await, Ok(RangeResponse::Found { .. })));
        serving.server.on_sent(&id);
        let millis = [0, COPY_MILLIS_MAX - 1, COPY_MILLIS_MAX];
        assert_eq!(millis.map(|now| is_copy(&serving, now)), [true, true, false]);
    }

    #[tokio::test]
    async fn what_is_withdrawn_before_its_turn_is_charged_for_its_place() {
        let mut serving = Serving::new();
        let _served = [serving.ask(), serving.ask()];
        // Of the three contents that it may have still, twenty places take two, and the next question needs one.
        for _ in 0..=20 {
            let (id, response) = serving.ask();
            assert_eq!(serving.serving(), (2, 1));
            drop(response);
            serving.server.on_sent(&id);
            assert_eq!(serving.serving(), (2, 0));
        }
        assert!(serving.is_busy());
    }
}

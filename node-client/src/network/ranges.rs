//! Speaks the range protocol with all peers that are connected: takes their questions, and asks them.
//!
//! What it says of a question comes once: a connection that closes ends what was asked and told on it.

use std::{
    collections::{hash_map::Entry, HashMap, HashSet, VecDeque},
    sync::{atomic::Ordering, Arc},
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    core::{transport::PortUse, Endpoint},
    swarm::{
        CloseConnection, ConnectionClosed, ConnectionDenied, ConnectionId, FromSwarm,
        NetworkBehaviour, NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
    },
    Multiaddr, PeerId, StreamProtocol,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    codec::{RangeRequest, STALL_TIMEOUT},
    pace::Pace,
    streams::{Ask, AskError, Handler, News, QuestionId, TellError, Terms},
};

/// How long a connection comes after others on which a question was withdrawn: as long as it takes to see that nothing
/// comes.
const DOUBT: Duration = STALL_TIMEOUT;

/// What came of a question, and with which peer.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) peer: PeerId,
    pub(super) news: News,
}

/// A connection, with the questions on it that are still to be told of.
struct Connection {
    id: ConnectionId,
    is_circuit: bool,
    /// The last question on it had no answer: it may be dead.
    has_failed: bool,
    /// Until when it comes after others, as a question on it was withdrawn: it may be dead, too.
    doubted_until: Option<Instant>,
    /// It is being closed, which takes as long as its peer likes.
    is_closing: bool,
    asked: HashSet<QuestionId>,
    told: HashSet<QuestionId>,
}

impl Connection {
    /// The end of all that was asked and told.
    fn end(&mut self) -> impl Iterator<Item = News> + '_ {
        let told = self.told.drain();
        let asked = self.asked.drain();
        let told = told.map(|id| News::Told { id, result: Err(TellError::Closed) });
        told.chain(asked.map(|id| News::Answer { id, result: Err(AskError::Closed) }))
    }
}

/// The range protocol.
pub(super) struct Ranges {
    terms: Terms,
    connections: HashMap<PeerId, Vec<Connection>>,
    // Emptied at each turn of the swarm; bounded by what is asked and told.
    events: VecDeque<ToSwarm<Event, Ask>>,
}

impl Ranges {
    /// Speaks the protocol under a name, answering at a pace; no answer of ours takes longer than `time_max`.
    pub(super) fn new(name: StreamProtocol, pace: Arc<Pace>, time_max: Duration) -> Self {
        let (ids, opened) = Default::default();
        let terms = Terms { name, pace, ids, time_max, opened };
        Self { terms, connections: HashMap::new(), events: VecDeque::new() }
    }

    /// Asks a peer, which has to be connected, over its best connection: one that works, not a circuit, the idlest, the
    /// latest; one on which a question was just withdrawn comes after others. Nobody waits for the answer when it is `due`,
    /// nor once it is `given_up`.
    pub(super) fn ask(
        &mut self,
        peer: PeerId,
        request: RangeRequest,
        due: Instant,
        given_up: CancellationToken,
    ) -> QuestionId {
        let (id, now) = (self.terms.ids.next(), Instant::now());
        let connections = self.connections.get_mut(&peer);
        let best = connections.and_then(|connections| {
            let open = connections.iter_mut().filter(|connection| !connection.is_closing);
            open.rev().min_by_key(|connection| {
                let Connection { has_failed, is_circuit, doubted_until, asked, .. } = &**connection;
                let is_doubted = doubted_until.is_some_and(|until| now < until);
                (*has_failed, *is_circuit, is_doubted, asked.len())
            })
        });
        self.events.push_back(match best {
            Some(connection) => {
                connection.asked.insert(id);
                let handler = NotifyHandler::One(connection.id);
                let event = Ask { id, request, due, given_up };
                ToSwarm::NotifyHandler { peer_id: peer, handler, event }
            }
            None => {
                let news = News::Answer { id, result: Err(AskError::Closed) };
                ToSwarm::GenerateEvent(Event { peer, news })
            }
        });
        id
    }

    /// Whether there is a connection to ask a peer over.
    pub(super) fn can_ask(&self, peer: &PeerId) -> bool {
        let mut connections = self.connections.get(peer).into_iter().flatten();
        connections.any(|connection| !connection.is_closing)
    }

    /// Asks and answers over one connection of a peer or all no more, and ends what was asked and told there: they are
    /// going to be closed.
    pub(super) fn closing(&mut self, peer: PeerId, which: &CloseConnection) {
        let connections = self.connections.get_mut(&peer).into_iter().flatten();
        let is_it = |connection: &&mut Connection| match which {
            CloseConnection::One(id) => connection.id == *id,
            CloseConnection::All => true,
        };
        for connection in connections.filter(is_it) {
            connection.is_closing = true;
            let news = connection.end();
            self.events.extend(news.map(|news| ToSwarm::GenerateEvent(Event { peer, news })));
        }
    }

    /// How many streams were opened so far to ask.
    pub(super) fn opened(&self) -> u64 {
        self.terms.opened.load(Ordering::Relaxed)
    }

    fn connection(&mut self, peer: &PeerId, id: ConnectionId) -> Option<&mut Connection> {
        let connections = self.connections.get_mut(peer)?;
        connections.iter_mut().find(|connection| connection.id == id)
    }

    fn on_closed(&mut self, closed: ConnectionClosed<'_>) {
        let (peer, id) = (closed.peer_id, closed.connection_id);
        self.closing(peer, &CloseConnection::One(id));
        if let Entry::Occupied(mut connections) = self.connections.entry(peer) {
            connections.get_mut().retain(|connection| connection.id != id);
            if connections.get().is_empty() {
                connections.remove();
            }
        }
    }
}

impl NetworkBehaviour for Ranges {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.terms.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(Handler::new(self.terms.clone()))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                let id = event.connection_id;
                let connection = Connection {
                    id,
                    is_circuit: event.endpoint.is_relayed(),
                    has_failed: false,
                    doubted_until: None,
                    is_closing: false,
                    asked: HashSet::new(),
                    told: HashSet::new(),
                };
                self.connections.entry(event.peer_id).or_default().push(connection);
            }
            FromSwarm::ConnectionClosed(event) => self.on_closed(event),
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        news: THandlerOutEvent<Self>,
    ) {
        // Of what has closed everything was said.
        let Some(connection) = self.connection(&peer, connection) else { return };
        let is_news = match &news {
            News::Question { .. } if connection.is_closing => false,
            News::Question { id, .. } => connection.told.insert(*id),
            News::Told { id, .. } => connection.told.remove(id),
            News::Answer { id, result } => {
                let is_withdrawn = matches!(result, Err(AskError::Withdrawn));
                connection.doubted_until = is_withdrawn.then(|| Instant::now() + DOUBT);
                if !is_withdrawn {
                    connection.has_failed = result.is_err();
                }
                connection.asked.remove(id)
            }
        };
        if is_news {
            self.events.push_back(ToSwarm::GenerateEvent(Event { peer, news }));
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        // The event loop polls after each command, so there is nobody to wake.
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

#[cfg(test)]
mod tests {
    use libp2p::{swarm::SwarmEvent, Swarm};

    use super::*;
    use crate::network::{
        behaviour::{Behaviour, BehaviourEvent},
        codec::RangeResponse,
        swarms::{listening, next},
        NetworkConfig,
    };

    /// Two peers that are connected, over QUIC (0) or TCP (1); the second is asked.
    async fn connected(transport: usize) -> ([Swarm<Behaviour>; 2], PeerId) {
        let config = NetworkConfig::loopback();
        let mut swarms = [listening(&config, transport).await, listening(&config, transport).await];
        let [asker, asked] = &mut swarms;
        let peer = *asked.local_peer_id();
        asker.dial(asked.listeners().next().unwrap().clone()).unwrap();
        while !asker.is_connected(&peer) || !asked.is_connected(asker.local_peer_id()) {
            next(&mut [&mut *asker, &mut *asked]).await;
        }
        (swarms, peer)
    }

    /// The same over two connections, of TCP.
    async fn connected_twice() -> ([Swarm<Behaviour>; 2], PeerId) {
        let (mut swarms, peer) = connected(1).await;
        let address = swarms[1].listeners().next().unwrap().clone();
        swarms[0].dial(address).unwrap();
        while swarms[0].behaviour().ranges.connections[&peer].len() < 2 {
            let [asker, other] = &mut swarms;
            next(&mut [asker, other]).await;
        }
        (swarms, peer)
    }

    fn ask(asker: &mut Swarm<Behaviour>, peer: PeerId, offset: u64) -> QuestionId {
        ask_until(asker, peer, offset, CancellationToken::new())
    }

    fn ask_until(
        asker: &mut Swarm<Behaviour>,
        peer: PeerId,
        offset: u64,
        given_up: CancellationToken,
    ) -> QuestionId {
        let request = RangeRequest { id: [7; 32], piece: None, offset, len: 1 };
        let due = Instant::now() + Duration::from_secs(60);
        asker.behaviour_mut().ranges.ask(peer, request, due, given_up)
    }

    /// The next that is said of a question.
    async fn news([asker, asked]: &mut [Swarm<Behaviour>; 2]) -> News {
        loop {
            let (_, event) = next(&mut [&mut *asker, &mut *asked]).await;
            if let SwarmEvent::Behaviour(BehaviourEvent::Ranges(event)) = event {
                return event.news;
            }
        }
    }

    /// Goes on until a question is answered; who is asked answers all with their offsets.
    async fn answered(
        swarms: &mut [Swarm<Behaviour>; 2],
    ) -> (QuestionId, Result<RangeResponse, AskError>) {
        loop {
            match news(swarms).await {
                News::Question { request, answer, .. } => {
                    let (total_len, bytes) = (request.offset, Default::default());
                    answer.send(RangeResponse::Found { total_len, bytes }).unwrap();
                }
                News::Answer { id, result } => return (id, result),
                News::Told { result, .. } => result.unwrap(),
            }
        }
    }

    fn opened(swarms: &[Swarm<Behaviour>; 2]) -> u64 {
        swarms[0].behaviour().ranges.opened()
    }

    #[tokio::test]
    async fn questions_go_one_after_another_over_one_stream() {
        for transport in [0, 1] {
            let (mut swarms, peer) = connected(transport).await;
            for offset in 0..20 {
                let id = ask(&mut swarms[0], peer, offset);
                let (answered, result) = answered(&mut swarms).await;
                assert_eq!(answered, id);
                let bytes = Default::default();
                assert_eq!(result.unwrap(), RangeResponse::Found { total_len: offset, bytes });
            }
            assert_eq!(opened(&swarms), 1);
        }
    }

    #[tokio::test]
    async fn questions_go_side_by_side_and_what_is_too_many_waits() {
        const COUNT: u64 = 40;
        for transport in [0, 1] {
            let (mut swarms, peer) = connected(transport).await;
            let mut asked: HashSet<_> =
                (0..COUNT).map(|offset| ask(&mut swarms[0], peer, offset)).collect();
            let (mut unanswered, mut most) = (Vec::new(), 0);
            while !asked.is_empty() {
                match news(&mut swarms).await {
                    News::Question { answer, .. } => unanswered.push(answer),
                    News::Answer { id, result } => {
                        assert!(asked.remove(&id));
                        result.unwrap();
                    }
                    News::Told { result, .. } => result.unwrap(),
                }
                most = most.max(unanswered.len());
                // All that can be asked are, before any is answered.
                if most == 16 {
                    for answer in unanswered.drain(..) {
                        answer.send(RangeResponse::Missing).unwrap();
                    }
                }
            }
            assert_eq!((most, opened(&swarms)), (16, 16));
        }
    }

    #[tokio::test]
    async fn a_stream_is_answered_on_for_a_while_and_then_the_next() {
        for transport in [0, 1] {
            let (mut swarms, peer) = connected(transport).await;
            for offset in 0..513 {
                let id = ask(&mut swarms[0], peer, offset);
                let (answered, result) = answered(&mut swarms).await;
                assert!(answered == id && result.is_ok(), "{offset}: {result:?}");
                assert_eq!(opened(&swarms), 1 + offset / 512);
            }
        }
    }

    /// What comes of three questions when `closer` ends the connection.
    async fn end_of_questions(transport: usize, closer: usize) {
        let (mut swarms, peer) = connected(transport).await;
        let other = *swarms[1 - closer].local_peer_id();
        let mut asked: HashSet<_> =
            (0..3).map(|offset| ask(&mut swarms[0], peer, offset)).collect();
        let (mut unanswered, mut untold) = (Vec::new(), HashSet::new());
        while !asked.is_empty() || unanswered.len() < 3 || !untold.is_empty() {
            match news(&mut swarms).await {
                News::Question { id, answer, .. } => {
                    untold.insert(id);
                    unanswered.push(answer);
                    if unanswered.len() == 3 {
                        swarms[closer].disconnect_peer_id(other).unwrap();
                    }
                }
                News::Answer { id, result } => {
                    assert!(matches!(result, Err(AskError::Closed)), "{result:?}");
                    assert!(asked.remove(&id));
                }
                News::Told { id, result } => {
                    assert!(matches!(result, Err(TellError::Closed)), "{result:?}");
                    assert!(untold.remove(&id));
                }
            }
        }
        // Who is not connected is not asked, and nothing else is said of those before.
        let id = ask(&mut swarms[0], peer, 9);
        let (answered, result) = answered(&mut swarms).await;
        assert_eq!(answered, id);
        assert!(matches!(result, Err(AskError::Closed)));
    }

    #[tokio::test]
    async fn a_connection_that_closes_ends_its_questions_once() {
        for (transport, closer) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            end_of_questions(transport, closer).await;
        }
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_withdrawn_on_both_sides_and_the_next_is_answered() {
        for transport in [0, 1] {
            let (mut swarms, peer) = connected(transport).await;
            // On a new stream, and on one that was kept.
            for is_kept in [false, true] {
                if is_kept {
                    ask(&mut swarms[0], peer, 0);
                    answered(&mut swarms).await.1.unwrap();
                }
                let given_up = CancellationToken::new();
                let withdrawn = ask_until(&mut swarms[0], peer, 1, given_up.clone());
                let (mut question, mut told, mut answer) = (None, None, None);
                while told.is_none() || answer.is_none() {
                    match news(&mut swarms).await {
                        // Held, as by who has others to serve first.
                        News::Question { id, answer, .. } => {
                            question = Some((id, answer));
                            given_up.cancel();
                        }
                        News::Told { result: Ok(()), .. } => {}
                        News::Told { id, result } => told = Some((id, result)),
                        News::Answer { id, result } => answer = Some((id, result)),
                    }
                }
                let (id, held) = question.unwrap();
                let is_told = matches!(told, Some((told, Err(TellError::Withdrawn))) if told == id);
                assert!(is_told && held.is_closed());
                let (answered_id, result) = answer.unwrap();
                assert!(answered_id == withdrawn && matches!(result, Err(AskError::Withdrawn)));
                let next = ask(&mut swarms[0], peer, 2);
                let (answered_id, result) = answered(&mut swarms).await;
                assert!(answered_id == next && result.is_ok(), "{result:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_connection_on_which_a_question_was_withdrawn_comes_after_another() {
        let (mut swarms, peer) = connected_twice().await;
        let place_of = |swarms: &[Swarm<Behaviour>; 2], id| {
            let mut connections = swarms[0].behaviour().ranges.connections[&peer].iter();
            connections.position(|connection| connection.asked.contains(&id)).unwrap()
        };
        let given_up = CancellationToken::new();
        let first = ask_until(&mut swarms[0], peer, 0, given_up.clone());
        let doubted = place_of(&swarms, first);
        given_up.cancel();
        let (answered_id, result) = answered(&mut swarms).await;
        assert!(answered_id == first && matches!(result, Err(AskError::Withdrawn)), "{result:?}");
        for offset in 1..4 {
            let next = ask(&mut swarms[0], peer, offset);
            assert_ne!(place_of(&swarms, next), doubted);
            answered(&mut swarms).await.1.unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_being_closed_is_asked_no_more() {
        let (mut swarms, peer) = connected_twice().await;
        let close = |swarm: &mut Swarm<Behaviour>, asked| {
            let ranges = &mut swarm.behaviour_mut().ranges;
            let mut connections = ranges.connections[&peer].iter();
            let it = connections.find(|connection| connection.asked.contains(&asked)).unwrap().id;
            ranges.closing(peer, &CloseConnection::One(it));
        };
        let first = ask(&mut swarms[0], peer, 0);
        close(&mut swarms[0], first);
        let (asked, result) = answered(&mut swarms).await;
        assert!(asked == first && matches!(result, Err(AskError::Closed)), "{result:?}");
        // The other connection is there for what comes.
        let second = ask(&mut swarms[0], peer, 1);
        let (asked, result) = answered(&mut swarms).await;
        assert!(asked == second && result.is_ok(), "{result:?}");
        assert!(swarms[0].behaviour().ranges.can_ask(&peer));
        let third = ask(&mut swarms[0], peer, 2);
        close(&mut swarms[0], third);
        assert!(!swarms[0].behaviour().ranges.can_ask(&peer));
        for last in [third, ask(&mut swarms[0], peer, 3)] {
            let (asked, result) = answered(&mut swarms).await;
            assert!(asked == last && matches!(result, Err(AskError::Closed)), "{result:?}");
        }
    }

    #[tokio::test]
    async fn all_connections_of_a_peer_are_closed_together() {
        let (mut swarms, peer) = connected_twice().await;
        // Each goes over the idlest.
        let mut asked: HashSet<_> =
            (0..2).map(|offset| ask(&mut swarms[0], peer, offset)).collect();
        let ranges = &mut swarms[0].behaviour_mut().ranges;
        let is_asked = |connection: &Connection| connection.asked.len() == 1;
        assert!(ranges.connections[&peer].iter().all(is_asked));
        ranges.closing(peer, &CloseConnection::All);
        assert!(!ranges.can_ask(&peer));
        while !asked.is_empty() {
            let (answered, result) = answered(&mut swarms).await;
            assert!(matches!(result, Err(AskError::Closed)), "{result:?}");
            assert!(asked.remove(&answered));
        }
    }

    #[tokio::test]
    async fn what_is_told_on_a_connection_that_closes_is_over_at_once() {
        let (mut swarms, peer) = connected(1).await;
        let asker = *swarms[0].local_peer_id();
        ask(&mut swarms[0], peer, 0);
        let News::Question { id, answer, .. } = news(&mut swarms).await else {
            unreachable!("nothing else was begun")
        };
        let ranges = &mut swarms[1].behaviour_mut().ranges;
        let connection = ranges.connections[&asker][0].id;
        ranges.closing(asker, &CloseConnection::One(connection));
        let told = news(&mut swarms).await;
        let is_it =
            matches!(&told, News::Told { id: told, result: Err(TellError::Closed) } if *told == id);
        assert!(is_it, "{told:?}");
        // What leaves all the same is not said again, and no other question is taken.
        answer.send(RangeResponse::Missing).unwrap();
        let (_, result) = answered(&mut swarms).await;
        result.unwrap();
        ask(&mut swarms[0], peer, 1);
        let (_, result) = answered(&mut swarms).await;
        assert!(matches!(result, Err(AskError::Unheard)), "{result:?}");
    }
}

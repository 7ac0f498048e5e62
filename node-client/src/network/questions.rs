//! Asks peers for ranges, connecting first where there is no connection.

use std::{
    collections::{hash_map::Entry, HashMap},
    time::Duration,
};

use libp2p::{
    core::upgrade::NegotiationError,
    swarm::{
        dial_opts::{DialOpts, PeerCondition},
        ConnectionId,
    },
    Multiaddr, PeerId, Swarm,
};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    behaviour::Behaviour,
    codec::{RangeRequest, RangeResponse},
    command::Answer,
    failing::Failing,
    paths::is_relayed,
    streams::{AskError, QuestionId},
    FaultKind, PeerAddress, ADDRESSES_MAX,
};
use crate::{budget::budget, store::PieceMap};

/// Bytes a second below which an answer is given up. They give a MiB, the most that is asked for, the five minutes in which
/// the protocol ends by itself.
const RATE_MIN: u64 = 4_000;

/// How long the answer to a request may take in all, though bytes keep coming.
fn answer_time(request: &RangeRequest) -> Duration {
    // Who has a part may answer with a map of its pieces.
    let len = u64::from(request.len).max(PieceMap::BYTES_MAX as u64);
    budget(len, RATE_MIN)
}

/// A question under way.
pub(super) struct Question {
    /// Whom to ask, and where a connection may be made if there is none.
    peer: PeerAddress,
    request: RangeRequest,
    /// Cancelled when nobody waits for the reply any more.
    given_up: CancellationToken,
    reply: oneshot::Sender<Answer>,
    /// Whether a connection has closed under it once already.
    repeated: bool,
}

impl Question {
    pub(super) fn new(
        peer: PeerAddress,
        request: RangeRequest,
        given_up: CancellationToken,
        reply: oneshot::Sender<Answer>,
    ) -> Self {
        Self { peer, request, given_up, reply, repeated: false }
    }
}

/// Questions that wait for a connection.
struct Dial {
    connection: ConnectionId,
    addresses: Vec<Multiaddr>,
    questions: Vec<Question>,
}

/// A question that was sent.
struct Asked {
    question: Question,
    /// When nobody waits for the answer any more.
    due: Instant,
}

/// The questions under way, and those that wait for a connection.
pub(super) struct Questions {
    asked: HashMap<QuestionId, Asked>,
    dials: HashMap<PeerId, Dial>,
    failing: Failing,
}

impl Questions {
    /// None yet; who was not reached is not dialled again for `redial_interval`, and ever longer.
    pub(super) fn new(redial_interval: Duration) -> Self {
        let failing = Failing::new(redial_interval);
        Self { asked: HashMap::new(), dials: HashMap::new(), failing }
    }

    pub(super) fn count(&self) -> usize {
        let waiting = self.dials.values().map(|dial| dial.questions.len());
        self.asked.len() + waiting.sum::<usize>()
    }

    pub(super) fn ask(&mut self, swarm: &mut Swarm<Behaviour>, question: Question) {
        if question.given_up.is_cancelled() {
            return;
        }
        if swarm.behaviour().ranges.can_ask(&question.peer.peer) {
            self.send(swarm, question);
            return;
        }
        self.dial(swarm, question.peer.clone());
        match self.dials.get_mut(&question.peer.peer) {
            Some(dial) => dial.questions.push(question),
            None => {
                let _ = question.reply.send(Err(FaultKind::Unreachable));
            }
        }
    }

    fn send(&mut self, swarm: &mut Swarm<Behaviour>, question: Question) {
        if question.given_up.is_cancelled() {
            return;
        }
        let ranges = &mut swarm.behaviour_mut().ranges;
        let due = Instant::now() + answer_time(&question.request);
        let given_up = question.given_up.clone();
        let id = ranges.ask(question.peer.peer, question.request, due, given_up);
        self.asked.insert(id, Asked { question, due });
    }

    /// Gives up the questions whose answers have taken too long.
    pub(super) fn on_tick(&mut self, now: Instant) {
        for (_, Asked { question, .. }) in self.asked.extract_if(|_, asked| asked.due <= now) {
            let _ = question.reply.send(Err(FaultKind::TimedOut));
        }
    }

    /// Begins to connect, unless connected or connecting, or it failed shortly before.
    pub(super) fn dial(&mut self, swarm: &mut Swarm<Behaviour>, peer: PeerAddress) {
        if swarm.behaviour().ranges.can_ask(&peer.peer) {
            return;
        }
        if !self.failing.may_dial(&peer, Instant::now()) {
            return;
        }
        let Entry::Vacant(entry) = self.dials.entry(peer.peer) else {
            return;
        };
        let given = peer.addresses.clone();
        let addresses = one_circuit(peer.addresses);
        let options = DialOpts::peer_id(peer.peer)
            // Even while another behaviour dials: it may know other addresses than these; and while a connection closes.
            .condition(match swarm.is_connected(&peer.peer) {
                true => PeerCondition::Always,
                false => PeerCondition::Disconnected,
            })
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .build();
        let connection = options.connection_id();
        swarm.behaviour_mut().attempts.told(connection);
        match swarm.dial(options) {
            Ok(()) => {
                entry.insert(Dial { connection, addresses: given, questions: Vec::new() });
            }
            Err(error) => tracing::debug!(peer = %peer.peer, %error, "cannot dial"),
        }
    }

    pub(super) fn on_connected(&mut self, swarm: &mut Swarm<Behaviour>, peer: &PeerId) {
        self.failing.reached(peer);
        if let Some(dial) = self.dials.remove(peer) {
            for question in dial.questions {
                self.send(swarm, question);
            }
        }
    }

    pub(super) fn on_dial_failed(&mut self, peer: PeerId, connection: ConnectionId) {
        let Entry::Occupied(entry) = self.dials.entry(peer) else {
            return;
        };
        // Other behaviours dial too; their failures say nothing about this dial.
        if entry.get().connection == connection {
            let Dial { addresses, questions, .. } = entry.remove();
            self.failing.failed(peer, addresses, Instant::now());
            for question in questions {
                let _ = question.reply.send(Err(FaultKind::Unreachable));
            }
        }
    }

    /// Hands an answer to whoever asked, and returns the bytes of content in it, if anybody had asked.
    pub(super) fn on_answer(&mut self, id: &QuestionId, response: RangeResponse) -> usize {
        let Some(Asked { question, .. }) = self.asked.remove(id) else {
            return 0;
        };
        let received = response.content_len();
        let _ = question.reply.send(Ok(response));
        received
    }

    pub(super) fn on_failure(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        peer: PeerId,
        id: &QuestionId,
        error: AskError,
    ) {
        let Some(Asked { mut question, .. }) = self.asked.remove(id) else {
            return;
        };
        if !matches!(error, AskError::Withdrawn) {
            tracing::debug!(%peer, %error, "a question failed");
        }
        let kind = match error {
            AskError::Closed if !question.repeated => {
                // It may have been closed for being idle just before: that is worth one more connection.
                question.repeated = true;
                return self.ask(swarm, question);
            }
            AskError::Closed => FaultKind::Unreachable,
            AskError::TimedOut => FaultKind::TimedOut,
            AskError::Unsupported => FaultKind::Missing,
            AskError::Io(error) if is_unsupported(&error) => FaultKind::Missing,
            AskError::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                FaultKind::Malformed
            }
            AskError::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                FaultKind::TimedOut
            }
            AskError::Withdrawn => return,
            // The stream broke: a peer that stops, or a connection that goes away.
            AskError::Unheard | AskError::Io(_) => FaultKind::Unreachable,
        };
        let _ = question.reply.send(Err(kind));
    }
}

/// Whether a stream broke because the peer does not speak our protocol: the question went before its answer came.
fn is_unsupported(error: &std::io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<NegotiationError>());
    matches!(cause, Some(NegotiationError::Failed))
}

/// All direct addresses of a peer and one of those over relays: each that is dialled costs its relay a circuit, and the first that
/// answers is taken. Which one is drawn.
fn one_circuit(addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let addresses = addresses.into_iter().take(ADDRESSES_MAX);
    let (relayed, mut some): (Vec<_>, Vec<_>) = addresses.partition(is_relayed);
    let drawn = rand::random::<usize>().checked_rem(relayed.len());
    some.extend(drawn.and_then(|drawn| relayed.into_iter().nth(drawn)));
    some
}

#[cfg(test)]
mod tests {
    use libp2p::swarm::{CloseConnection, SwarmEvent};

    use super::*;
    use crate::network::{
        behaviour::BehaviourEvent,
        ranges,
        streams::News,
        swarms::{listening, next},
        NetworkConfig,
    };

    #[test]
    fn one_way_over_a_relay_is_tried_beside_all_direct_ones() {
        let [relay, other] = [(); 2].map(|()| PeerId::random());
        let parse = |text: String| text.parse::<Multiaddr>().unwrap();
        let direct =
            ["/ip4/192.0.2.1/tcp/1", "/ip4/192.0.2.1/tcp/2"].map(|text| parse(text.into()));
        let circuits = [relay, other]
            .map(|relay| parse(format!("/ip4/192.0.2.2/tcp/1/p2p/{relay}/p2p-circuit")));
        let all = [direct.clone(), circuits.clone()].concat();
        let dialled = one_circuit(all);
        assert_eq!((&dialled[..2], dialled.len()), (&direct[..], 3));
        assert!(circuits.contains(&dialled[2]));
        assert_eq!(one_circuit(direct.to_vec()), direct);
    }

    fn request(len: u32) -> RangeRequest {
        RangeRequest { id: [7; 32], piece: None, offset: 0, len }
    }

    #[test]
    fn an_answer_has_the_time_that_its_bytes_take() {
        let seconds = |len| answer_time(&request(len)).as_secs();
        assert_eq!([0, 64 << 10, 1 << 20].map(seconds), [46, 46, 292]);
    }

    /// Asks a peer that is connected: the questions, where the answer comes, and the connection.
    async fn asked() -> (Questions, oneshot::Receiver<Answer>, [Swarm<Behaviour>; 2], ConnectionId)
    {
        let config = NetworkConfig::loopback();
        let [mut asker, mut mute] = [listening(&config, 1).await, listening(&config, 1).await];
        let peer = PeerAddress {
            peer: *mute.local_peer_id(),
            addresses: mute.listeners().cloned().collect(),
        };
        let mut questions = Questions::new(config.redial_interval);
        let (reply, answer) = oneshot::channel();
        let question = Question::new(peer.clone(), request(0), CancellationToken::new(), reply);
        questions.ask(&mut asker, question);
        loop {
            let (at, event) = next(&mut [&mut asker, &mut mute]).await;
            if let (0, SwarmEvent::ConnectionEstablished { connection_id, .. }) = (at, event) {
                questions.on_connected(&mut asker, &peer.peer);
                return (questions, answer, [asker, mute], connection_id);
            }
        }
    }

    #[tokio::test]
    async fn a_question_that_nobody_answers_is_given_up() {
        // The other one is held still.
        let (mut questions, mut answer, _swarms, _) = asked().await;
        let due = questions.asked.values().next().unwrap().due;
        questions.on_tick(due - Duration::from_millis(1));
        assert!(answer.try_recv().is_err());
        assert_eq!(questions.count(), 1);
        questions.on_tick(due);
        assert!(matches!(answer.try_recv(), Ok(Err(FaultKind::TimedOut))));
        assert_eq!(questions.count(), 0);
    }

    #[tokio::test]
    async fn a_question_whose_connection_is_being_closed_is_asked_over_another() {
        let (mut questions, mut answer, [mut asker, mut mute], connection) = asked().await;
        let peer = *mute.local_peer_id();
        asker.behaviour_mut().ranges.closing(peer, &CloseConnection::One(connection));
        loop {
            match next(&mut [&mut asker, &mut mute]).await {
                (0, SwarmEvent::Behaviour(BehaviourEvent::Ranges(ranges::Event { news, .. }))) => {
                    let News::Answer { id, result: Err(error) } = news else { continue };
                    questions.on_failure(&mut asker, peer, &id, error);
                    assert_eq!((questions.asked.len(), questions.dials.len()), (0, 1));
                }
                (0, SwarmEvent::ConnectionEstablished { .. }) => break,
                _ => {}
            }
        }
        questions.on_connected(&mut asker, &peer);
        assert_eq!((questions.asked.len(), questions.dials.len()), (1, 0));
        assert!(answer.try_recv().is_err());
        let response = loop {
            let (_, event) = next(&mut [&mut asker, &mut mute]).await;
            let SwarmEvent::Behaviour(BehaviourEvent::Ranges(ranges::Event { news, .. })) = event
            else {
                continue;
            };
            match news {
                News::Question { answer, .. } => answer.send(RangeResponse::Busy).unwrap(),
                News::Answer { id, result } => {
                    questions.on_answer(&id, result.unwrap());
                    break answer.try_recv().unwrap();
                }
                News::Told { .. } => {}
            }
        };
        assert!(matches!(response, Ok(RangeResponse::Busy)), "{response:?}");
    }

    #[tokio::test]
    async fn who_was_not_reached_is_not_dialled_for_each_question() {
        let config = NetworkConfig::loopback();
        let mut asker = listening(&config, 1).await;
        // Nobody is there any more.
        let gone = listening(&config, 1).await;
        let peer = PeerAddress {
            peer: *gone.local_peer_id(),
            addresses: gone.listeners().cloned().collect(),
        };
        drop(gone);
        let mut questions = Questions::new(Duration::from_secs(1 << 20));
        let ask = |questions: &mut Questions, asker: &mut Swarm<Behaviour>, peer| {
            let (reply, answer) = oneshot::channel();
            let question = Question::new(peer, request(0), CancellationToken::new(), reply);
            questions.ask(asker, question);
            answer
        };
        let mut first = ask(&mut questions, &mut asker, peer.clone());
        loop {
            if let (_, SwarmEvent::OutgoingConnectionError { connection_id, .. }) =
                next(&mut [&mut asker]).await
            {
                questions.on_dial_failed(peer.peer, connection_id);
                break;
            }
        }
        assert!(matches!(first.try_recv(), Ok(Err(FaultKind::Unreachable))));
        let mut second = ask(&mut questions, &mut asker, peer.clone());
        assert!(matches!(second.try_recv(), Ok(Err(FaultKind::Unreachable))));
        assert!(questions.dials.is_empty());
        // It says where else it is.
        let elsewhere =
            PeerAddress { addresses: vec!["/ip4/127.0.0.1/tcp/1".parse().unwrap()], ..peer };
        let _third = ask(&mut questions, &mut asker, elsewhere);
        assert_eq!(questions.dials.len(), 1);
    }
}

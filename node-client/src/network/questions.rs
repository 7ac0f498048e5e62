//! Asks peers for ranges, connecting first where there is no connection.

use std::collections::{hash_map::Entry, HashMap};

use libp2p::{
    core::upgrade::NegotiationError,
    request_response::{OutboundFailure, OutboundRequestId},
    swarm::{
        dial_opts::{DialOpts, PeerCondition},
        ConnectionId,
    },
    Multiaddr, PeerId, Swarm,
};
use tokio::sync::oneshot;

use super::{
    behaviour::Behaviour,
    codec::{RangeRequest, RangeResponse},
    command::Answer,
    paths::is_relayed,
    FaultKind, PeerAddress, ADDRESSES_MAX,
};

/// A question under way.
pub(super) struct Question {
    /// Whom to ask, and where a connection may be made if there is none.
    peer: PeerAddress,
    request: RangeRequest,
    reply: oneshot::Sender<Answer>,
    /// Whether a connection has closed under it once already.
    repeated: bool,
}

impl Question {
    pub(super) fn new(
        peer: PeerAddress,
        request: RangeRequest,
        reply: oneshot::Sender<Answer>,
    ) -> Self {
        Self { peer, request, reply, repeated: false }
    }
}

/// Questions that wait for a connection.
struct Dial {
    connection: ConnectionId,
    questions: Vec<Question>,
}

/// The questions under way, and those that wait for a connection.
#[derive(Default)]
pub(super) struct Questions {
    asked: HashMap<OutboundRequestId, Question>,
    dials: HashMap<PeerId, Dial>,
}

impl Questions {
    pub(super) fn count(&self) -> usize {
        let waiting = self.dials.values().map(|dial| dial.questions.len());
        self.asked.len() + waiting.sum::<usize>()
    }

    pub(super) fn ask(&mut self, swarm: &mut Swarm<Behaviour>, question: Question) {
        if swarm.is_connected(&question.peer.peer) {
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
        // Whoever asked has given up.
        if question.reply.is_closed() {
            return;
        }
        let ranges = &mut swarm.behaviour_mut().ranges;
        let id = ranges.send_request(&question.peer.peer, question.request);
        self.asked.insert(id, question);
    }

    /// Begins to connect, unless connected or connecting. Request-response must not dial by itself: it would take
    /// another's failed dial for its own.
    pub(super) fn dial(&mut self, swarm: &mut Swarm<Behaviour>, peer: PeerAddress) {
        if swarm.is_connected(&peer.peer) {
            return;
        }
        let Entry::Vacant(entry) = self.dials.entry(peer.peer) else {
            return;
        };
        let addresses = one_circuit(peer.addresses);
        let options = DialOpts::peer_id(peer.peer)
            // Even while another behaviour dials: it may know other addresses than these.
            .condition(PeerCondition::Disconnected)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .build();
        let connection = options.connection_id();
        match swarm.dial(options) {
            Ok(()) => {
                entry.insert(Dial { connection, questions: Vec::new() });
            }
            Err(error) => tracing::debug!(peer = %peer.peer, %error, "cannot dial"),
        }
    }

    pub(super) fn on_connected(&mut self, swarm: &mut Swarm<Behaviour>, peer: &PeerId) {
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
            for question in entry.remove().questions {
                let _ = question.reply.send(Err(FaultKind::Unreachable));
            }
        }
    }

    /// Hands an answer to whoever asked, and returns the bytes of content in it, if anybody had asked.
    pub(super) fn on_answer(&mut self, id: &OutboundRequestId, response: RangeResponse) -> usize {
        let Some(question) = self.asked.remove(id) else {
            return 0;
        };
        let received = match &response {
            RangeResponse::Found { bytes, .. } => bytes.len(),
            RangeResponse::Missing | RangeResponse::Busy | RangeResponse::OtherPieces(_) => 0,
        };
        let _ = question.reply.send(Ok(response));
        received
    }

    pub(super) fn on_failure(
        &mut self,
        swarm: &mut Swarm<Behaviour>,
        peer: PeerId,
        id: &OutboundRequestId,
        error: OutboundFailure,
    ) {
        let Some(mut question) = self.asked.remove(id) else {
            return;
        };
        tracing::debug!(%peer, %error, "a question failed");
        let kind = match error {
            OutboundFailure::ConnectionClosed if !question.repeated => {
                // It may have been closed for being idle just before: that is worth one more connection.
                question.repeated = true;
                return self.ask(swarm, question);
            }
            OutboundFailure::ConnectionClosed | OutboundFailure::DialFailure => {
                FaultKind::Unreachable
            }
            OutboundFailure::Timeout => FaultKind::TimedOut,
            OutboundFailure::UnsupportedProtocols => FaultKind::Missing,
            OutboundFailure::Io(error) if is_unsupported(&error) => FaultKind::Missing,
            OutboundFailure::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                FaultKind::Malformed
            }
            OutboundFailure::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                FaultKind::TimedOut
            }
            // The stream broke: a peer that stops, or a connection that goes away.
            OutboundFailure::Io(_) => FaultKind::Unreachable,
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
    use super::*;

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
}

//! Carries what clients ask of the event loop, each with the way back for its answer.

use std::collections::HashMap;

use libp2p::{Multiaddr, PeerId};
use protocol::Hash;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    codec::{RangeRequest, RangeResponse},
    roles::Role,
    FaultKind, Keep, NetworkError, PeerAddress,
};

/// How a question to a peer ended.
pub(super) type Answer = Result<RangeResponse, FaultKind>;

/// What a client wants done. A reply whose client has gone away is dropped.
pub(super) enum Command {
    ListenAddresses {
        reply: oneshot::Sender<Vec<Multiaddr>>,
    },
    ReachableAddresses {
        reply: oneshot::Sender<Vec<Multiaddr>>,
    },
    AddPeer {
        peer: PeerAddress,
        reply: oneshot::Sender<()>,
    },
    SetRoles {
        roles: HashMap<PeerId, Role>,
        reply: oneshot::Sender<()>,
    },
    Keep {
        keep: Keep,
        reply: oneshot::Sender<()>,
    },
    Publish {
        id: Hash,
        reply: oneshot::Sender<Result<(), NetworkError>>,
    },
    Unpublish {
        id: Hash,
        reply: oneshot::Sender<()>,
    },
    /// Replies once a provider record has been sent to the peers that should keep it, or could not be.
    Announce {
        id: Hash,
        reply: oneshot::Sender<()>,
    },
    /// Replies with peers that have the content; connections to them are being made.
    Providers {
        id: Hash,
        reply: oneshot::Sender<Vec<PeerId>>,
    },
    Range {
        peer: PeerAddress,
        request: RangeRequest,
        /// Cancelled when nobody waits for the reply any more.
        given_up: CancellationToken,
        reply: oneshot::Sender<Answer>,
    },
}

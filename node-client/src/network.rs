//! Publishes bytes under a content id, and fetches them, verified, from any peer that has them, through a trait.
//!
//! A *content id* is a hash that the chain knows: a payload's Merkle root or a model's state root. The network does not
//! know how either is computed: who fetches brings the check ([`Verify`]), which sees the whole content before anybody
//! else does. Peers announce their [`PeerId`] and addresses on the chain; those are the hints of a fetch. If no hinted
//! peer delivers, Kademlia's provider records name others.
//!
//! ```text
//! Client (cloneable) --Command, bounded--> EventLoop (owns the Swarm) <--QUIC, TCP--> peers
//!   fetch: ranges from one peer after another        serves ranges from the Store
//!   fetch_pieces: pieces from several at once        and pieces from when they are checked
//! ```
//!
//! - `config`: every limit, in one place.
//! - `codec`: the two messages of the range protocol.
//! - `streams`: asks and answers over one connection; `ranges`: over all of them.
//! - `behaviour`: which libp2p protocols are spoken, with which limits; `transport`: over what.
//! - `dials`: what may be dialled, and how often; `attempts`: tells it whose word is followed.
//! - `rate`: how much a peer may have of us in a time; `uplink`: how much all of them.
//! - `roles`: who takes part by the chain; `origin`: from which part of the internet a peer comes.
//! - `gate`: which strangers may connect; `pace`: who reads too slowly to be served.
//! - `counters`: how much has been sent, received and refused.
//! - `command`: what a client asks of the event loop.
//! - `published`: what is served, and the word of it; `searches`: who else has a content.
//! - `questions`: ranges asked of peers; `server`: ranges served to them; `slots`: who is served now; `queue`: who is
//!   next.
//! - `kept`: to whom a connection is kept, and when to dial again; `keep_alive`: what holds it open; `failing`: whom dials
//!   did not reach.
//! - `relay`: what validators relay to those whom nobody can dial, and `idle`, its handler; `hand_on`: what such
//!   behaviours leave as it is; `reservations`: which of them relay to this peer; `punches`: how two peers that are relayed
//!   find a direct way; `paths`: which of their connections is used.
//! - `reach`: at which addresses others reach this peer; `probes`: has them try; `remembered`: what they reached before
//!   a restart; `mapping`: what the router forwards; `dial_backs`: tries for others.
//! - `event_loop`: the one task that owns the swarm.
//! - `standing`: which peers failed to deliver or lied, and how fast they are.
//! - `scores`: the same over restarts.
//! - `partials`: what has come of contents whose fetch ended early.
//! - `mirrored`: a bucket that is asked as if it were a peer.
//! - `fetch`: from which peer to ask what, and whom to blame; knows no libp2p.
//! - `lanes`: which contents arrive first.
//! - `download`: the same of a content in pieces, from several peers at once; `promises`: who has what it says.
//! - `client`: the handle, which implements [`Network`].
//! - `memory`: the same trait without sockets, for tests.
//!
//! **Properties.** A fetch returns only content that its check accepted, from at most `len_max` bytes. It ends: each peer
//! is asked a bounded number of times, and each question has a time-out. A peer that lies costs the time of its own
//! answers and is named in the report; it can neither end a fetch nor a loop.

mod config;

pub mod codec;

mod behaviour;

mod rate;

mod roles;

mod origin;

mod uplink;

mod gate;

mod pace;

mod streams;

mod ranges;

mod counters;

mod command;

mod published;

mod searches;

mod questions;

mod slots;

mod queue;

mod keep_alive;

mod kept;

mod failing;

mod paths;

mod punches;

mod idle;

mod hand_on;

mod relay;

mod reservations;

mod reach;

mod dials;

mod transport;

mod attempts;

mod probes;

mod remembered;

mod mapping;

mod dial_backs;

mod server;

#[cfg(test)]
mod swarms;

mod event_loop;

mod awaited;

mod standing;

mod scores;

mod partials;

mod mirrored;

mod fetch;

mod lanes;

mod holdings;

mod promises;

mod shares;

mod download;

mod client;

mod memory;

use std::{collections::HashMap, fmt, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use protocol::Hash;

pub use client::{start, Client};
pub use config::NetworkConfig;
pub use counters::Counters;
pub use libp2p::{Multiaddr, PeerId};
pub use memory::{MemoryHub, MemoryNetwork, Serving};
pub use roles::Role;

use crate::{
    mirror::MirrorError,
    store::{Content, Cut, StoreError},
};

/// Decides whether bytes are the content that an id names. Runs on a thread that may block; must not panic.
pub type Verify = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Takes a content that arrives in pieces, each checked by itself, to where it stays.
///
/// All is called from several threads and must not panic.
pub trait Pieces: Send + Sync {
    /// Bytes of the whole content.
    fn byte_len(&self) -> u64;

    /// How many pieces there are.
    fn count(&self) -> usize;

    /// First byte and length of a piece, and whether it is here already; `None` past the last. Of a content whose pieces are numbered
    /// the most bytes that the piece may have, and a place for as many, after those of the pieces before.
    fn piece(&self, index: usize) -> Option<(u64, u32, bool)>;

    /// Whether pieces are asked for by their numbers, because nobody knows where they lie in the content before all are here.
    fn is_numbered(&self) -> bool {
        false
    }

    /// When all are here: the first bytes of the content, which are in no piece, and where the pieces lie. `None` of a content that is its
    /// pieces one after the other.
    fn cut(&self) -> Option<(Bytes, Cut)> {
        None
    }

    /// Takes the bytes of a piece if they are the right ones; whether the piece is here now. Of one fetch copies of a
    /// piece come one after another. May take a millisecond.
    fn accept(&self, index: usize, bytes: &[u8]) -> bool;
}

/// A content to fetch piece by piece, and from whom.
#[derive(Clone)]
pub struct PiecesRequest {
    /// The content id.
    pub id: Hash,
    /// Whom to ask first, in this order.
    pub providers: Vec<PeerAddress>,
    /// Where the pieces go. What is here already is not asked for.
    pub pieces: Arc<dyn Pieces>,
    /// Whether the content is wanted in the answer, too.
    pub whole: bool,
}

/// Who delivered a content piece by piece.
#[derive(Clone, Debug, Default)]
pub struct PiecesFetched {
    /// The content, if it was wanted: mapped from where it is kept.
    pub bytes: Option<Bytes>,
    /// Who served a piece of it, in the order of their first. Empty if all was here.
    pub peers: Vec<PeerId>,
    /// What went wrong on the way.
    pub faults: Vec<Fault>,
}

/// The most addresses that are kept of one peer: the chain announces at most 4.
pub const ADDRESSES_MAX: usize = 8;

/// A peer and where it may be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    /// Who it is: the hash of its network key.
    pub peer: PeerId,
    /// Where it listens, without the peer id; may be empty if it is known otherwise. The first [`ADDRESSES_MAX`] count.
    pub addresses: Vec<Multiaddr>,
}

impl PeerAddress {
    /// Reads an announcement of the chain: a peer id and addresses, both in libp2p's binary form.
    ///
    /// `None` if the peer id is none; an address that is none is left out, because what is announced is anybody's text.
    pub fn from_announcement<A: AsRef<[u8]>>(peer: &[u8], addresses: &[A]) -> Option<Self> {
        let peer = PeerId::from_bytes(peer).ok()?;
        let addresses = addresses
            .iter()
            .filter_map(|bytes| Multiaddr::try_from(bytes.as_ref().to_vec()).ok())
            .take(ADDRESSES_MAX)
            .collect();
        Some(Self { peer, addresses })
    }

    /// How many of the addresses lead over relays.
    pub fn relayed_count(&self) -> usize {
        self.addresses.iter().filter(|address| paths::is_relayed(address)).count()
    }

    /// What to announce: the peer id and the addresses in binary form.
    pub fn to_announcement(&self) -> (Vec<u8>, Vec<Vec<u8>>) {
        let addresses = self.addresses.iter().map(Multiaddr::to_vec).collect();
        (self.peer.to_bytes(), addresses)
    }
}

/// To whom a connection is kept, however long nothing goes over it.
///
/// A connection stays open when both ends keep it: the one dials, the other holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep {
    /// Whom to dial, and to dial again whenever the connection is lost. What they dial is held, too.
    pub dialled: Vec<PeerAddress>,
    /// Whose connections are held when they make one.
    pub held: Vec<PeerId>,
}

/// What to fetch, and from whom.
#[derive(Clone)]
pub struct FetchRequest {
    /// The content id.
    pub id: Hash,
    /// The fewest bytes the content may have; 0 if its length is not known.
    pub len_min: u64,
    /// The most bytes the content may have.
    pub len_max: u64,
    /// Whom to ask first, in this order.
    pub providers: Vec<PeerAddress>,
    /// Decides whether the bytes are the content.
    pub verify: Verify,
}

impl FetchRequest {
    /// A request without hints.
    pub fn new(
        id: Hash,
        len_max: u64,
        verify: impl Fn(&[u8]) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { id, len_min: 0, len_max, providers: Vec::new(), verify: Arc::new(verify) }
    }

    /// The same request for a content that is known to have exactly `len_max` bytes: who claims another length is not heard.
    pub fn exactly(mut self) -> Self {
        self.len_min = self.len_max;
        self
    }

    /// The same request with these peers asked first.
    pub fn from_peers(mut self, providers: impl IntoIterator<Item = PeerAddress>) -> Self {
        self.providers.extend(providers);
        self
    }
}

impl fmt::Debug for FetchRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchRequest")
            .field("id", &hex::encode(self.id))
            .field("len_min", &self.len_min)
            .field("len_max", &self.len_max)
            .field("providers", &self.providers)
            .finish()
    }
}

/// Content that its check accepted.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The content.
    pub bytes: Bytes,
    /// Who served it, in order; more than one if a later peer took over. Empty if it was in the own store.
    pub peers: Vec<PeerId>,
    /// What went wrong on the way.
    pub faults: Vec<Fault>,
}

/// What one peer did wrong in one fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The peer.
    pub peer: PeerId,
    /// What it did.
    pub kind: FaultKind,
}

/// How a peer failed to deliver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// No connection, or it broke. Nobody's fault; another time it may work.
    Unreachable,
    /// No byte came for [`codec::STALL_TIMEOUT`], or a range took longer than [`NetworkConfig::request_timeout`].
    TimedOut,
    /// It is serving others. Another time it may work.
    Busy,
    /// It says that it does not have the content, or has one of fewer bytes than somebody said that it has.
    Missing,
    /// It says that the content has more bytes than asked for. No other peer's answer can be shorter and right.
    TooLong {
        /// Bytes it claims.
        total_len: u64,
    },
    /// It answered something else than it was asked.
    Malformed,
    /// All of what it served, alone, is not the content: it lied.
    Corrupt,
    /// It said of pieces of one content three times that it has them, and had them not when asked.
    Contradicted,
}

impl FaultKind {
    /// Whether an honest peer never does this.
    pub fn is_malicious(&self) -> bool {
        matches!(self, Self::Malformed | Self::Corrupt | Self::Contradicted)
    }
}

/// Why a fetch has no content, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody delivered it now. Retry later, or treat the content as unavailable.
    #[error("nobody delivered {} (asked {} times in vain)", hex::encode(id), faults.len())]
    Unavailable {
        /// The content id.
        id: Hash,
        /// What went wrong, peer by peer; empty if nobody was known to ask.
        faults: Vec<Fault>,
    },
    /// What came cannot be kept: the disk is full or fails.
    #[error("what came cannot be kept: {0}")]
    Unkept(#[source] std::io::Error),
    /// The network has been shut down: stop.
    #[error("the network is closed")]
    Closed,
}

/// Why a call other than a fetch failed, by what the caller does next.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The bytes could not be kept: see [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The limit on content served at once is reached: unpublish something.
    #[error("{count} contents are published already")]
    TooMany {
        /// How many are.
        count: usize,
    },
    /// The network has been shut down: stop.
    #[error("the network is closed")]
    Closed,
}

/// Why the network did not start. Change the configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {reason}")]
    Listen {
        /// The address.
        address: Multiaddr,
        /// What the transport says.
        reason: String,
    },
    /// The network's name does not make a protocol name.
    #[error("{name:?} is no network name")]
    Name {
        /// The name.
        name: String,
    },
    /// A transport could not be set up.
    #[error("transport: {reason}")]
    Transport {
        /// What it says.
        reason: String,
    },
}

/// The peers, as the rest of a participant sees them.
#[async_trait]
pub trait Network: Send + Sync {
    /// Who this peer is.
    fn local_peer(&self) -> PeerId;

    /// This peer's signature over `message`, an ed25519 one; `None` if its key is of another kind.
    fn sign(&self, message: &Hash) -> Option<[u8; 64]>;

    /// Where this peer listens, the ports being the real ones. Cancel-safe.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    async fn listen_addresses(&self) -> Result<Vec<Multiaddr>, NetworkError>;

    /// Where others reach this peer, for all that is known now, in a fixed order: the addresses to announce. What is
    /// given as [`NetworkConfig::external`] if there is any; otherwise what peers to whom a connection is kept have
    /// dialled back, now or before a restart, and as long as none has tried to, what looks best. If they tried in vain,
    /// over which of them it is relayed to (`/…/p2p/RELAY/p2p-circuit`); nothing while there are none: then it is reached
    /// over connections of its own. Cancel-safe.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    async fn reachable_addresses(&self) -> Result<Vec<Multiaddr>, NetworkError>;

    /// Remembers where a peer may be reached, and learns from it who else there is. Cancel-safe.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    async fn add_peer(&self, peer: PeerAddress) -> Result<(), NetworkError>;

    /// Says what peers are by the chain, in place of what was said before: who has the better right is served first,
    /// and whoever is not named is a stranger. Until it is called all are served alike. Cancel-safe.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    async fn set_roles(&self, roles: HashMap<PeerId, Role>) -> Result<(), NetworkError>;

    /// Keeps connections to these peers, and to no others that were kept before. Of more than
    /// [`NetworkConfig::kept_max`] the last are left out: first those who are not dialled, then in the order of peer ids.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`NetworkError::Closed`].
    async fn keep(&self, keep: Keep) -> Result<(), NetworkError>;

    /// Keeps `bytes` under `id` until [`Network::unpublish`], serves them to whoever asks, and tells Kademlia. On return
    /// they are on disk and served; the word spreads after that. The bytes are not checked against the id.
    ///
    /// Not cancel-safe: when dropped, the bytes may or may not be served; call again.
    ///
    /// # Errors
    /// [`NetworkError`].
    async fn publish(&self, id: Hash, bytes: Bytes) -> Result<(), NetworkError>;

    /// [`Network::publish`] of what is read where it lies, piece by piece; it is not written again if the store has it. `content`
    /// is let go of on return. Of a content whose pieces are numbered, `cut` says where they lie.
    ///
    /// Not cancel-safe, as there.
    ///
    /// # Errors
    /// [`NetworkError`].
    async fn publish_content(
        &self,
        id: Hash,
        content: Arc<dyn Content>,
        cut: Option<Cut>,
    ) -> Result<(), NetworkError>;

    /// Copies a published content to the mirror, if there is one to copy to that does not have it; whether it did.
    /// Tries for minutes what fails. Cancel-safe: what was begun is seen by nobody.
    ///
    /// # Errors
    /// [`MirrorError`].
    async fn copy_to_mirror(&self, id: Hash) -> Result<bool, MirrorError>;

    /// Stops serving `id` and lets the store drop it when it needs room. No effect if not published. Not cancel-safe, as
    /// [`Network::publish`].
    ///
    /// # Errors
    /// [`NetworkError`].
    async fn unpublish(&self, id: Hash) -> Result<(), NetworkError>;

    /// The content that `request` names: from the own store, the hinted peers, or whom Kademlia knows, in this order.
    ///
    /// Cancel-safe: when dropped, or when it fails, what has been received is kept for the next fetch of it, up to 1 GiB of all
    /// contents.
    ///
    /// # Errors
    /// [`FetchError`].
    async fn fetch(&self, request: FetchRequest) -> Result<Fetched, FetchError>;

    /// The content that `request` names, piece by piece: from the own store, then from the hinted peers, several at once, or whom
    /// Kademlia knows. A peer that serves a wrong piece is named, and the others go on. Each piece is on disk and served to others from
    /// when it was accepted, and the content is in the store on return, not pinned, if there is room.
    ///
    /// Cancel-safe: when dropped, the pieces that were accepted stay, over a restart too; another request goes on with the rest.
    ///
    /// # Errors
    /// [`FetchError`]; what was accepted stays.
    async fn fetch_pieces(&self, request: PiecesRequest) -> Result<PiecesFetched, FetchError>;
}

//! Holds every limit of the network in one place, with the reason for its default.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use libp2p::{multiaddr::Protocol, Multiaddr};

use super::{codec::RANGE_LEN_MAX, PeerAddress};

/// How the network is run. The most memory that peers can make this process use is about
/// `serves_max` MiB to serve, `fetches_max * len_max` of the fetches of whole contents and `pieces_bytes_max` to receive, 1 MiB
/// for each of `connections_max` connections, of `kept_max` times `connections_per_peer_max`, and of `circuits_max`, and for each
/// of these whose peer sends what nobody reads, up to 16 MiB more: 15 MB over QUIC; over TCP 256 KiB on each of 64 streams, 32
/// whose protocol is not said yet and as many questions.
#[derive(Clone, Debug)]
pub struct NetworkConfig {
    /// Name of the network, part of each protocol's name: peers of different networks do not understand each other.
    /// Use the chain's genesis hash. Without `/` at either end.
    pub name: String,
    /// Where to listen. Port 0 means any. To listen on all IPv6 addresses of a machine that has none is no error. An
    /// address of this machine or of a private network, here or of `external` or `bootstrap`, says that peers at others
    /// of its kind are dialled; otherwise none but those on this machine are, whoever announces them.
    pub listen: Vec<Multiaddr>,
    /// Under which addresses others reach this peer. If there are any, they and no others are to be announced.
    pub external: Vec<Multiaddr>,
    /// The file that keeps what is known of peers over restarts: who failed or lied, and how fast they are.
    pub scores: Option<PathBuf>,
    /// Whether a router is asked to forward the ports that are listened on (UPnP). Where it says that it does is
    /// announced when a peer has reached it.
    pub upnp: bool,
    /// The file that remembers over a restart where others have reached this peer; `None` for none.
    pub reached: Option<PathBuf>,
    /// Peers to meet at the start.
    pub bootstrap: Vec<PeerAddress>,
    /// Connections at a time, in and out, beside those of peers to whom a connection is kept. Half of them may be incoming,
    /// and of these strangers have three quarters at the most, and those of one network a quarter.
    pub connections_max: u32,
    /// Connections at a time with one peer: one of each side, and as many as it has addresses to be dialled back at.
    pub connections_per_peer_max: u32,
    /// How long a connection without streams stays open.
    pub idle_timeout: Duration,
    /// How long one range may take, from the request to the last byte, though bytes keep coming: when none does for
    /// [`STALL_TIMEOUT`](super::codec::STALL_TIMEOUT) it is over before.
    pub request_timeout: Duration,
    /// Peers to whom a connection is kept, at most; see [`Network::keep`](super::Network::keep).
    pub kept_max: usize,
    /// How long after its connection was lost a kept peer is dialled again; up to 96 times as long when that fails.
    pub redial_interval: Duration,
    /// Circuits that a validator relays at a time. They are for peers that the chain announces.
    pub circuits_max: usize,
    /// Circuits of one peer at a time, those that it opens and those that lead to it, at least 1.
    pub circuits_per_peer_max: usize,
    /// Bytes that one circuit carries, both ways together: some ranges, where no direct way is found.
    pub circuit_bytes_max: u64,
    /// Bytes that all circuits carry per second at most, over time: each counts as if it carried all that it may, and
    /// `circuits_max` may be opened at once.
    pub circuit_bytes_per_second: u64,
    /// How long a Kademlia query may take.
    pub query_timeout: Duration,
    /// How many bytes are asked for at a time, from 1 to [`RANGE_LEN_MAX`].
    pub range_len: u32,
    /// Ranges served at a time, to all peers: an eighth to strangers at most, a half to them and joiners, all but an
    /// eighth to whoever is no validator. What is more waits, for 8 seconds at most, and then is told that we are busy.
    pub serves_max: usize,
    /// Ranges served at a time to one peer, and as many that wait.
    pub serves_per_peer_max: usize,
    /// Bytes served to all peers per second, of which strangers have a fiftieth at most; what waits is served by
    /// weights: 8 to validators, 4 to replicas, 2 to joiners, 1 to strangers. An eighth of a second's worth may leave at
    /// once, or one range. What is acknowledged of content that comes is counted, too; the headers of what leaves are
    /// not. Not 0; `None` for no limit.
    pub up_bytes_per_second: Option<u64>,
    /// Bytes served to one peer, or to all strangers of one network, per second, after a burst of ten seconds' worth; a
    /// question counts as 4 KiB at the least. A network is a /24 of IPv4 or a /64 of IPv6.
    pub serve_bytes_per_second_max: u64,
    /// Answers without content to a stranger, or to all of one network, per minute; beyond it there is no answer.
    pub refusals_per_minute_max: u64,
    /// Connections that the strangers of one network make per minute.
    pub connects_per_minute_max: u64,
    /// Whether the addresses of this machine and of private networks are limited as networks, too. Peers of a localnet,
    /// or behind one router, have few.
    pub limit_private_networks: bool,
    /// Provider records accepted from one peer per minute; strangers' are not, once the chain has named peers.
    pub records_per_minute_max: u64,
    /// Provider records kept, own ones included.
    pub records_max: usize,
    /// Contents published at a time; half of `records_max` at the most.
    pub published_max: usize,
    /// Fetches of whole contents at a time; more wait.
    pub fetches_max: usize,
    /// Bytes of pieces on their way at a time, of all contents that are fetched piece by piece.
    pub pieces_bytes_max: usize,
    /// Peers asked in one fetch: so many of the hints, and as many of those whom Kademlia names.
    pub fetch_peers_max: usize,
    /// Commands that wait for the event loop; the callers of more wait.
    pub commands_max: usize,
    /// Requests under way at a time; commands wait beyond it.
    pub requests_max: usize,
    /// How long after peers became known their share of the provider records is sent to them.
    pub announce_interval: Duration,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            name: "local".to_owned(),
            listen: [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
                .into_iter()
                .flat_map(any_ports)
                .collect(),
            external: Vec::new(),
            scores: None,
            upnp: false,
            reached: None,
            bootstrap: Vec::new(),
            connections_max: 256,
            connections_per_peer_max: 8,
            idle_timeout: Duration::from_secs(60),
            // A MiB at 3.5 kB/s; who is so slow is overtaken long before.
            request_timeout: Duration::from_secs(300),
            kept_max: 256,
            redial_interval: Duration::from_secs(1),
            circuits_max: 64,
            circuits_per_peer_max: 8,
            circuit_bytes_max: 4 << 20,
            circuit_bytes_per_second: 1 << 20,
            query_timeout: Duration::from_secs(15),
            range_len: RANGE_LEN_MAX,
            serves_max: 64,
            serves_per_peer_max: 8,
            up_bytes_per_second: None,
            serve_bytes_per_second_max: 64 << 20,
            // Who looks for a content asks a few dozen peers, and again after a while.
            refusals_per_minute_max: 1_024,
            connects_per_minute_max: 120,
            limit_private_networks: false,
            records_per_minute_max: 256,
            records_max: 16_384,
            published_max: 4_096,
            fetches_max: 16,
            pieces_bytes_max: 64 << 20,
            fetch_peers_max: 32,
            commands_max: 64,
            requests_max: 256,
            announce_interval: Duration::from_secs(2),
        }
    }
}

impl NetworkConfig {
    /// The defaults, listening only on this machine, on any ports.
    pub fn loopback() -> Self {
        Self { listen: any_ports(Ipv4Addr::LOCALHOST.into()).to_vec(), ..Self::default() }
    }
}

/// Any QUIC and any TCP port of an address.
fn any_ports(ip: IpAddr) -> [Multiaddr; 2] {
    let ip = Multiaddr::from(ip);
    [ip.clone().with(Protocol::Udp(0)).with(Protocol::QuicV1), ip.with(Protocol::Tcp(0))]
}

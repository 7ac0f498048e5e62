//! Makes the contents that peers of a lab exchange: each is known by its length.

use std::{
    error::Error,
    net::IpAddr,
    sync::{
        atomic::{AtomicBool, Ordering},
        Arc,
    },
};

use bytes::Bytes;
use libp2p::{multiaddr::Protocol, Multiaddr};
use node_client::network::{PeerAddress, Pieces, PiecesRequest};
use protocol::Hash;

/// The name of the lab's network.
pub(crate) const NAME: &str = "netlab";

/// The content of `len` bytes, and its id.
pub(crate) fn content(len: usize) -> (Hash, Bytes) {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    (*blake3::hash(&bytes).as_bytes(), bytes.into())
}

/// Bytes of a piece: a 64th of the content, between these.
const PIECE_BYTES: (usize, usize) = (64 << 10, 1 << 20);

/// The pieces of a content, of which the hashes are known.
struct Known {
    len: usize,
    piece_len: usize,
    hashes: Vec<blake3::Hash>,
    here: Vec<AtomicBool>,
}

impl Pieces for Known {
    fn byte_len(&self) -> u64 {
        self.len as u64
    }

    fn count(&self) -> usize {
        self.hashes.len()
    }

    fn piece(&self, index: usize) -> Option<(u64, u32, bool)> {
        let here = self.here.get(index)?.load(Ordering::Relaxed);
        let offset = index * self.piece_len;
        Some((offset as u64, (self.len - offset).min(self.piece_len) as u32, here))
    }

    fn accept(&self, index: usize, bytes: &[u8]) -> bool {
        let is_right = self.hashes.get(index).is_some_and(|hash| *hash == blake3::hash(bytes));
        if is_right {
            self.here[index].store(true, Ordering::Relaxed);
        }
        is_right
    }
}

/// What to fetch for the content of `len` bytes; clones go on with the same pieces.
pub(crate) fn request(len: usize, providers: Vec<PeerAddress>) -> PiecesRequest {
    let (id, bytes) = content(len);
    let piece_len = (len / 64).clamp(PIECE_BYTES.0, PIECE_BYTES.1);
    let hashes: Vec<_> = bytes.chunks(piece_len).map(blake3::hash).collect();
    let here = hashes.iter().map(|_| AtomicBool::new(false)).collect();
    let pieces = Arc::new(Known { len, piece_len, hashes, here });
    PiecesRequest { id, providers, pieces, whole: false }
}

/// Any port of `ip`, by QUIC or by TCP.
pub(crate) fn listen(ip: IpAddr, is_quic: bool) -> Multiaddr {
    let address = Multiaddr::from(ip);
    if is_quic {
        address.with(Protocol::Udp(0)).with(Protocol::QuicV1)
    } else {
        address.with(Protocol::Tcp(0))
    }
}

/// Reads an address that ends with a peer id.
pub(crate) fn peer_address(text: &str) -> Result<PeerAddress, Box<dyn Error>> {
    let mut address: Multiaddr = text.parse()?;
    match address.pop() {
        Some(Protocol::P2p(peer)) => Ok(PeerAddress { peer, addresses: vec![address] }),
        _ => Err(format!("{text} names no peer").into()),
    }
}

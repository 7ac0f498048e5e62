//! Makes the contents that peers of a lab exchange: each is known by its length.

use std::{error::Error, net::IpAddr};

use bytes::Bytes;
use libp2p::{multiaddr::Protocol, Multiaddr};
use node_client::network::{FetchRequest, PeerAddress};
use protocol::Hash;

/// The name of the lab's network.
pub(crate) const NAME: &str = "netlab";

/// The content of `len` bytes, and its id.
pub(crate) fn content(len: usize) -> (Hash, Bytes) {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof().fill(&mut bytes);
    (*blake3::hash(&bytes).as_bytes(), bytes.into())
}

/// What to fetch for the content of `len` bytes.
pub(crate) fn request(len: usize, providers: Vec<PeerAddress>) -> FetchRequest {
    let (id, _) = content(len);
    let verify = move |bytes: &[u8]| *blake3::hash(bytes).as_bytes() == id;
    FetchRequest::new(id, len as u64, verify).exactly().from_peers(providers)
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

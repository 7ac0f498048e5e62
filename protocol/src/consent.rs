//! Builds the messages that keys sign to say that they agree to be named by somebody else's call.
//!
//! A hot key is public as soon as it signs anything: without its consent anybody could register it under a cold key of
//! his own and be paid for its work. The message binds chain, run, role and cold key, so that a consent is good for
//! nothing else; the signature binds the hot key. The same holds for the key of a peer, under which others reach a
//! participant: who announces it shows that it is his.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{
    ids::{AccountBytes, Hash, RunId},
    merkle::blake2_256,
};

const HOT_KEY_DOMAIN: &[u8] = b"gauntlet/hot-key-consent/1";
const PEER_DOMAIN: &[u8] = b"gauntlet/peer-consent/1";

/// What stands before the 32 bytes of an ed25519 key in its libp2p peer id: the identity multihash of 36 bytes (0, 36), which
/// are the key's protobuf message: type 1 (8, 1), 32 bytes of data (18, 32).
const PEER_ID_PREFIX: [u8; 6] = [0, 36, 8, 1, 18, 32];

/// What a hot key works as.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    Copy,
    PartialEq,
    Eq,
    Debug
)]
pub enum Role {
    /// It trains.
    Miner,
    /// It measures.
    Validator,
}

/// The message with which a hot key consents to work in `role` for the account `cold`, which then owns its pay:
/// BLAKE2b-256 of domain ‖ genesis ‖ run ‖ role ‖ cold key.
pub fn hot_key_consent(genesis: &Hash, run: RunId, role: Role, cold: &AccountBytes) -> Hash {
    let role = match role {
        Role::Miner => [0],
        Role::Validator => [1],
    };
    blake2_256(&[HOT_KEY_DOMAIN, genesis, &run.to_le_bytes(), &role, cold])
}

/// The message with which a network key consents to be announced as the peer of the hot key `hot`: BLAKE2b-256 of domain ‖
/// genesis ‖ run ‖ hot key.
pub fn peer_consent(genesis: &Hash, run: RunId, hot: &AccountBytes) -> Hash {
    blake2_256(&[PEER_DOMAIN, genesis, &run.to_le_bytes(), hot])
}

/// The ed25519 key of a libp2p peer id, which contains it; `None` for peer ids of other keys.
pub fn peer_key(peer_id: &[u8]) -> Option<[u8; 32]> {
    peer_id.strip_prefix(&PEER_ID_PREFIX)?.try_into().ok()
}

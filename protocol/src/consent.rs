//! Builds the messages that keys sign to say that they agree to be named by somebody else's call.
//!
//! A hot key is public as soon as it signs anything: without its consent anybody could register it under a cold key of
//! his own and be paid for its work. The message binds chain, run, role and cold key, so that a consent is good for
//! nothing else; the signature binds the hot key.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;

use crate::{
    ids::{AccountBytes, Hash, RunId},
    merkle::blake2_256,
};

const HOT_KEY_DOMAIN: &[u8] = b"gauntlet/hot-key-consent/1";

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

//! Hashes what miners and validators commit to before anybody can see it, an update, an attestation or evaluations,
//! and draws the chunks that a reveal must show.
//!
//! Every hash is BLAKE2b-256 over a domain string, the chain's genesis hash and fields of fixed
//! length (or lists after their length), so that no commitment is good for another chain, run,
//! window, key or purpose.

use alloc::vec::Vec;

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use scale_info::TypeInfo;
use serde::{Deserialize, Serialize};

use crate::consensus::Evaluation;
use crate::ids::{AccountBytes, Hash, RunId, Uid, Window};
use crate::merkle::blake2_256;

const UPDATE_DOMAIN: &[u8] = b"gauntlet/update-commitment/1";
const ATTESTATION_DOMAIN: &[u8] = b"gauntlet/attestation-commitment/1";
const SCORE_DOMAIN: &[u8] = b"gauntlet/score-commitment/1";
const CHALLENGE_DOMAIN: &[u8] = b"gauntlet/challenge/1";

/// What opens a miner's commitment.
#[derive(
    Clone,
    PartialEq,
    Eq,
    Debug,
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Serialize,
    Deserialize
)]
pub struct Opening {
    /// Merkle root over the chunks ([`crate::update::Payload::root`]).
    pub payload_root: Hash,
    /// Chunks in the payload; the layout's, or the reveal is refused.
    pub chunk_count: u32,
    /// Bytes of the whole payload, with its header and its table of lengths.
    pub byte_len: u64,
    /// State root of the parameters from which the miner started.
    pub base_state_root: Hash,
    /// Drawn by the miner, so that nobody can recognise the commitment to a payload that he holds.
    pub salt: Hash,
}

/// One chunk and the proof that it belongs to a payload ([`crate::merkle::verify`]).
#[derive(
    Clone,
    PartialEq,
    Eq,
    Debug,
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    Serialize,
    Deserialize
)]
pub struct ChunkProof {
    /// The chunk's number in the payload.
    pub index: u32,
    /// The chunk's bytes, at most [`crate::update::CHUNK_BYTES_MAX`].
    pub chunk: Vec<u8>,
    /// Neighbours from the bottom up, at most [`crate::merkle::MERKLE_PROOF_MAX`].
    pub proof: Vec<Hash>,
}

/// The hash that a miner commits to: domain ‖ genesis ‖ run ‖ window ‖ hot key ‖ SCALE of the
/// opening.
pub fn commitment_hash(
    genesis: &Hash,
    run: RunId,
    window: Window,
    hot_key: &AccountBytes,
    opening: &Opening,
) -> Hash {
    blake2_256(&[
        UPDATE_DOMAIN,
        genesis,
        &run.to_le_bytes(),
        &window.to_le_bytes(),
        hot_key,
        &opening.encode(),
    ])
}

/// What a validator says of a window's payloads and of the state that it holds.
#[derive(
    Clone,
    PartialEq,
    Eq,
    Debug,
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    Serialize,
    Deserialize
)]
pub struct AttestationOpening {
    /// The uids whose payloads it fetched and found valid, see [`crate::accept::bitmap_of`].
    pub bitmap: Vec<u8>,
    /// Root of the parameters that it holds at the start of the window.
    pub state_root: Hash,
    /// Drawn by the validator: without it, anybody could try the few likely bitmaps and roots against the hash.
    pub salt: Hash,
}

/// The hash that a validator commits to before it attests: domain ‖ genesis ‖ run ‖ window ‖ hot key ‖ SCALE of the
/// opening.
pub fn attestation_commitment_hash(
    genesis: &Hash,
    run: RunId,
    window: Window,
    hot_key: &AccountBytes,
    opening: &AttestationOpening,
) -> Hash {
    blake2_256(&[
        ATTESTATION_DOMAIN,
        genesis,
        &run.to_le_bytes(),
        &window.to_le_bytes(),
        hot_key,
        &opening.encode(),
    ])
}

/// The hash that a validator commits to: domain ‖ genesis ‖ run ‖ window ‖ hot key ‖ SCALE of the
/// evaluations, in the order in which they will be revealed ‖ the version of measuring ‖ salt.
pub fn score_commitment_hash(
    genesis: &Hash,
    run: RunId,
    window: Window,
    hot_key: &AccountBytes,
    evaluations: &[Evaluation],
    version: u32,
    salt: &Hash,
) -> Hash {
    blake2_256(&[
        SCORE_DOMAIN,
        genesis,
        &run.to_le_bytes(),
        &window.to_le_bytes(),
        hot_key,
        &evaluations.encode(),
        &version.to_le_bytes(),
        salt,
    ])
}

/// The chunks that the chain asks of a miner: `min(count, chunk_count)` different numbers below
/// `chunk_count`, ascending. `challenge_seed` must not be known before the commitments are closed.
///
/// Draw i is BLAKE2b-256(domain ‖ seed ‖ run ‖ window ‖ uid ‖ i), its first eight bytes as a
/// little-endian number modulo `chunk_count` (the bias is below 2^-32); a number drawn before moves
/// on to the next free one, cyclically.
pub fn challenged_chunks(
    challenge_seed: &Hash,
    run: RunId,
    window: Window,
    uid: Uid,
    chunk_count: u32,
    count: u8,
) -> Vec<u32> {
    let mut drawn: Vec<u32> = Vec::new();
    for draw in 0..u32::from(count).min(chunk_count) {
        let hash = blake2_256(&[
            CHALLENGE_DOMAIN,
            challenge_seed,
            &run.to_le_bytes(),
            &window.to_le_bytes(),
            &uid.to_le_bytes(),
            &draw.to_le_bytes(),
        ]);
        let [a, b, c, d, e, f, g, h, ..] = hash;
        let number = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        let Some(remainder) = number.checked_rem(u64::from(chunk_count)) else {
            return drawn;
        };
        // Below `chunk_count`, which is a u32.
        let mut index = remainder as u32;
        while drawn.contains(&index) {
            index = index.checked_add(1).filter(|next| *next < chunk_count).unwrap_or(0);
        }
        drawn.push(index);
    }
    drawn.sort_unstable();
    drawn
}

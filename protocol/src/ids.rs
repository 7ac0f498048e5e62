//! Names the plain integers and byte strings that identify runs, uids, windows, blocks, hashes and
//! accounts.
//!
//! They are aliases, not newtypes, so that the chain's metadata and the code that clients generate
//! from it stay plain (`u16`, `[u8; 32]`); the names carry the meaning.

/// Names one model being trained on a chain; given out from 0 upwards and never reused.
pub type RunId = u32;

/// A miner's slot in a run, from 0; may pass to another miner after its holder has left.
pub type Uid = u16;

/// A validator's slot in a run, from 0.
pub type ValidatorIndex = u16;

/// One training round of a run, counted from 0.
pub type Window = u64;

/// A block of the chain that keeps the run's books.
pub type BlockNumber = u32;

/// A 256-bit hash; its function (BLAKE2b-256 or BLAKE3) is named where it is made.
pub type Hash = [u8; 32];

/// The 32 bytes of an account identifier: an sr25519 public key, hot or cold.
pub type AccountBytes = [u8; 32];

/// An amount of the chain's currency in its smallest unit.
pub type Planck = u128;

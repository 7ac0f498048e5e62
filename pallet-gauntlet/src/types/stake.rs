//! The records of the money behind a validator, and of slashes that wait.

use codec::{Decode, DecodeWithMemTracking, Encode, MaxEncodedLen};
use frame_support::{traits::ConstU32, BoundedVec};
use protocol::{
    pool::{Pool, Take},
    Planck, RunId, Uid, ValidatorIndex, Window,
};
use scale_info::TypeInfo;

/// Names a pool of a run. Unlike a validator's index it is never given out again.
pub type PoolId = u32;

/// Windows in which one account may have money of one pool unbonding, or unbonded and not withdrawn.
pub const UNBONDINGS_MAX: u32 = 32;

/// The money behind one validator: its own and its nominators'. It outlives the validator's slot.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct StakePool<AccountId> {
    /// The validator's cold key, on which its own stake is held.
    pub cold: AccountId,
    /// The validator's slot; `None` once it has left.
    pub index: Option<ValidatorIndex>,
    /// The validator's own stake.
    pub own: Planck,
    /// What nominators delegated, held on the pool's account.
    pub delegated: Pool,
    /// The validator's part of its nominators' pay.
    pub take: Take,
    /// The windows in which the validator began to take out parts of its own stake.
    pub unbonding: BoundedVec<Window, ConstU32<UNBONDINGS_MAX>>,
}

/// What left a pool in one window and still answers for what was done until then.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct Unbonding {
    /// The first window in which it can be withdrawn, fixed when it left.
    pub due: Window,
    /// Of the validator's own stake.
    pub own: Planck,
    /// Of what nominators delegated.
    pub delegated: Pool,
}

/// What one nominator has in a pool.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    PartialEq,
    Eq,
    Debug,
    Default
)]
pub struct Delegation {
    /// Its shares of what is delegated.
    pub shares: u128,
    /// Its shares of what left the pool, by the window in which it did.
    pub unbonding: BoundedVec<(Window, u128), ConstU32<UNBONDINGS_MAX>>,
}

/// Whose money a slash takes.
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
pub enum Offender {
    /// A miner.
    Miner {
        /// Its slot.
        uid: Uid,
        /// Since when it has it: whoever took over the slot later is innocent.
        registered_window: Window,
    },
    /// A validator with its nominators, whether it still has a slot or not.
    Pool(PoolId),
}

/// A slash that was decided and can still be cancelled.
#[derive(
    Encode,
    Decode,
    DecodeWithMemTracking,
    TypeInfo,
    MaxEncodedLen,
    Clone,
    PartialEq,
    Eq,
    Debug
)]
pub struct UnappliedSlash<AccountId> {
    /// Who pays.
    pub offender: Offender,
    /// The window of the fault: money that was taken out before it is free.
    pub window: Window,
    /// How much, at most.
    pub amount: Planck,
    /// Who gets half of it.
    pub reporter: Option<AccountId>,
    /// The first window in which it is applied.
    pub due: Window,
}

/// The slashes of a run that wait are those from `next` to `end`; they fall due in this order.
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
    Debug,
    Default
)]
pub struct SlashQueue {
    /// The next one to be applied.
    pub next: u32,
    /// One after the last.
    pub end: u32,
}

/// The seed of a pool's account: what tells it from every other account of the pallet.
pub(crate) fn pool_seed(run: RunId, pool: PoolId) -> ([u8; 4], RunId, PoolId) {
    (*b"pool", run, pool)
}

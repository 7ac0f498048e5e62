//! Holds an extrinsic that is signed until it is in a block or dead.

use std::sync::atomic::AtomicBool;

use subxt::{
    client::OnlineClientAtBlockImpl, transactions::SubmittableTransaction, PolkadotConfig,
};

/// An extrinsic that can be handed to a node.
pub(super) type Extrinsic =
    SubmittableTransaction<PolkadotConfig, OnlineClientAtBlockImpl<PolkadotConfig>>;

/// An extrinsic, and how far the finalised chain has been looked through for it.
pub(super) struct Signed {
    /// Its bytes, for the connection that it was signed over.
    pub(super) extrinsic: Extrinsic,
    /// The generation of that connection.
    pub(super) generation: u64,
    /// Whether nodes beside the one in use may have it.
    pub(super) is_out: AtomicBool,
    /// The nonce that it was signed for.
    pub(super) nonce: u64,
    /// The block from which on it is valid.
    pub(super) birth: u64,
    /// The last block that has been looked at.
    pub(super) seen: u64,
    /// What names the chain's errors.
    pub(super) metadata: subxt::ArcMetadata,
}

//! Signs transactions with the keys that a development chain endows.

use codec::Encode;
use runtime::{transactions::sign, RuntimeCall};
use sp_core::H256;
use sp_keyring::Sr25519Keyring;

use crate::process::Node;

/// A call signed by `signer` as its transaction number `nonce`, for ever valid, in hexadecimal.
pub(crate) fn signed(
    node: &Node,
    signer: Sr25519Keyring,
    nonce: u32,
    call: impl Into<RuntimeCall>,
) -> String {
    let genesis: H256 = node.block_hash(0).parse().expect("a hash is hexadecimal");
    let signed = sign(&signer.pair(), nonce, 0, genesis, call);
    format!("0x{}", hex::encode(signed.encode()))
}

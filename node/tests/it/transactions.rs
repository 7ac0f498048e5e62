//! Signs transactions with the keys that a development chain endows.

use codec::Encode;
use runtime::{RuntimeCall, SignedPayload, TxExtension, UncheckedExtrinsic, VERSION};
use serde_json::json;
use sp_core::H256;
use sp_keyring::Sr25519Keyring;
use sp_runtime::generic::Era;

use crate::process::Node;

/// A call signed by `signer` as its transaction number `nonce`, for ever valid, in hexadecimal.
pub(crate) fn signed(
    node: &Node,
    signer: Sr25519Keyring,
    nonce: u32,
    call: impl Into<RuntimeCall>,
) -> String {
    let genesis: H256 = node.block_hash(0).parse().expect("a hash is hexadecimal");
    let extension: TxExtension = (
        frame_system::CheckNonZeroSender::new(),
        frame_system::CheckSpecVersion::new(),
        frame_system::CheckTxVersion::new(),
        frame_system::CheckGenesis::new(),
        frame_system::CheckEra::from(Era::Immortal),
        frame_system::CheckNonce::from(nonce),
        frame_system::CheckWeight::new(),
        pallet_transaction_payment::ChargeTransactionPayment::from(0),
        frame_metadata_hash_extension::CheckMetadataHash::new(false),
        frame_system::WeightReclaim::new(),
    );
    let version = node.call("state_getRuntimeVersion", json!([]));
    let version = version["specVersion"].as_u64().expect("a version is a number") as u32;
    let implicit =
        ((), version, VERSION.transaction_version, genesis, genesis, (), (), (), None, ());
    let payload = SignedPayload::from_raw(call.into(), extension.clone(), implicit);
    let signature = payload.using_encoded(|bytes| signer.sign(bytes));
    let (call, _, _) = payload.deconstruct();
    let account = signer.to_account_id();
    let signed = UncheckedExtrinsic::new_signed(call, account.into(), signature.into(), extension);
    format!("0x{}", hex::encode(signed.encode()))
}

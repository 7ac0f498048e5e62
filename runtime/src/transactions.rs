//! Puts transactions together as a signer does, for tests and tools that have the runtime itself.

use codec::Encode;
use sp_core::{sr25519, Pair};

use crate::{
    Address, Balance, Hash, Nonce, Runtime, RuntimeCall, Signature, SignedPayload, TxExtension,
    UncheckedExtrinsic, VERSION,
};

/// The extensions of a transaction that may be included at any time.
fn extension(nonce: Nonce, tip: Balance) -> TxExtension {
    let payment = pallet_transaction_payment::ChargeTransactionPayment::<Runtime>::from(tip);
    (
        frame_system::CheckNonZeroSender::new(),
        frame_system::CheckSpecVersion::new(),
        frame_system::CheckTxVersion::new(),
        frame_system::CheckGenesis::new(),
        frame_system::CheckEra::from(sp_runtime::generic::Era::Immortal),
        frame_system::CheckNonce::from(nonce),
        frame_system::CheckWeight::new(),
        pallet_gauntlet::extension::CheckWindowWork::new(payment),
        frame_metadata_hash_extension::CheckMetadataHash::new(false),
        frame_system::WeightReclaim::new(),
    )
}

/// Signs a call for the chain of this runtime with the given genesis.
pub fn sign(
    signer: &sr25519::Pair,
    nonce: Nonce,
    tip: Balance,
    genesis: Hash,
    call: impl Into<RuntimeCall>,
) -> UncheckedExtrinsic {
    let (call, extension) = (call.into(), extension(nonce, tip));
    let (spec, transaction) = (VERSION.spec_version, VERSION.transaction_version);
    // What is signed beside what is sent; a transaction without an end is bound to the genesis block twice.
    let implicit = ((), spec, transaction, genesis, genesis, (), (), (), None, ());
    let payload = SignedPayload::from_raw(call.clone(), extension.clone(), implicit);
    let signature = payload.using_encoded(|bytes| signer.sign(bytes));
    let address = Address::Id(signer.public().into());
    UncheckedExtrinsic::new_signed(call, address, Signature::Sr25519(signature), extension)
}

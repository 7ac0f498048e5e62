//! Both runtimes behind one trait, block by block and by signed transactions alone.

use std::cell::Cell;

use example_runtime::{parachain, solo, AccountId, Balance, Header, UNIT};
use frame_support::traits::IntegrityTest;
use pallet_gauntlet::{Call, Pallet};
use protocol::{BlockNumber, RunId, Window};
use sp_core::{sr25519, Encode, Pair, H256};
use sp_inherents::InherentData;
use sp_runtime::{
    traits::{BlockNumberProvider, Header as _},
    ApplyExtrinsicResult, BuildStorage, Digest, MultiAddress, Storage,
};

/// The run of every scenario.
pub(crate) const RUN: RunId = 0;
/// What each account begins with.
const ENDOWMENT: Balance = 1_000_000 * UNIT;

/// The key pair of somebody.
pub(crate) fn key(name: &str) -> sr25519::Pair {
    sr25519::Pair::from_string(&format!("//{name}"), None).expect("a path is a key")
}

/// The account of a key pair.
pub(crate) fn account(key: &sr25519::Pair) -> AccountId {
    key.public().into()
}

/// An example runtime with the pallet.
pub(crate) trait Chain {
    /// The runtime.
    type Runtime: pallet_gauntlet::Config
        + frame_system::Config<AccountId = AccountId, Hash = H256>
        + pallet_balances::Config<Balance = Balance>;

    /// The genesis in which these accounts own something.
    fn genesis(endowed: &[AccountId]) -> Storage;

    /// Begins a block, as an author does: hooks, then inherents.
    fn begin(number: BlockNumber, parent: H256);

    /// Ends the block.
    fn end() -> Header;

    /// Sends a transaction of the pallet's with the signer's next nonce.
    fn send(signer: &sr25519::Pair, call: Call<Self::Runtime>) -> ApplyExtrinsicResult;

    /// What every pallet of the runtime asks of the runtime's constants.
    fn integrity_test();
}

/// Implements [`Chain`] by the types that every runtime's module has.
macro_rules! chain {
    ($name:ident, $runtime:ident, $inherents:expr) => {
        impl Chain for $name {
            type Runtime = $runtime::Runtime;

            fn genesis(endowed: &[AccountId]) -> Storage {
                let balances = endowed.iter().map(|who| (who.clone(), ENDOWMENT)).collect();
                let balances = $runtime::BalancesConfig { balances, ..Default::default() };
                let genesis = $runtime::RuntimeGenesisConfig { balances, ..Default::default() };
                genesis.build_storage().expect("the genesis is valid")
            }

            fn begin(number: BlockNumber, parent: H256) {
                let header = Header::new(
                    number,
                    Default::default(),
                    Default::default(),
                    parent,
                    Digest::default(),
                );
                $runtime::Executive::initialize_block(&header);
                let inherents: Vec<$runtime::UncheckedExtrinsic> = $inherents(number);
                for inherent in inherents {
                    let applied = $runtime::Executive::apply_extrinsic(inherent);
                    assert_eq!(applied, Ok(Ok(())));
                }
                $runtime::Executive::inherents_applied();
            }

            fn end() -> Header {
                $runtime::Executive::finalize_block()
            }

            fn send(signer: &sr25519::Pair, call: Call<Self::Runtime>) -> ApplyExtrinsicResult {
                type Extension = $runtime::TxExtension;
                type Payload = sp_runtime::generic::SignedPayload<$runtime::RuntimeCall, Extension>;

                let who = account(signer);
                let paid = pallet_transaction_payment::ChargeTransactionPayment::from(0);
                let extension: Extension = (
                    frame_system::CheckNonZeroSender::new(),
                    frame_system::CheckSpecVersion::new(),
                    frame_system::CheckTxVersion::new(),
                    frame_system::CheckGenesis::new(),
                    frame_system::CheckEra::from(sp_runtime::generic::Era::Immortal),
                    frame_system::CheckNonce::from($runtime::System::account_nonce(&who)),
                    frame_system::CheckWeight::new(),
                    pallet_gauntlet::extension::CheckWindowWork::new(paid),
                    frame_system::WeightReclaim::new(),
                );
                let call = $runtime::RuntimeCall::from(call);
                let payload = Payload::new(call.clone(), extension.clone());
                let payload = payload.expect("what is signed beside is known");
                let signature = payload.using_encoded(|bytes| signer.sign(bytes));
                let transaction = $runtime::UncheckedExtrinsic::new_signed(
                    call,
                    MultiAddress::Id(who),
                    signature.into(),
                    extension,
                );
                $runtime::Executive::apply_extrinsic(transaction)
            }

            fn integrity_test() {
                <$runtime::AllPalletsWithSystem as IntegrityTest>::integrity_test();
            }
        }
    };
}

/// The chain by its own clock.
pub(crate) struct Solo;

/// The chain by a relay chain's clock.
pub(crate) struct Parachain;

thread_local! {
    /// For how many of its blocks the relay chain was without this chain.
    static STOOD_STILL: Cell<BlockNumber> = const { Cell::new(0) };
}

/// The relay chain makes so many blocks, and the parachain none.
pub(crate) fn stand_still(numbers: BlockNumber) {
    STOOD_STILL.set(STOOD_STILL.get() + numbers);
}

/// On which block of the relay chain a block of the parachain is built: every second one, and now and then one is late.
fn relay_block(number: BlockNumber) -> BlockNumber {
    1_000 + STOOD_STILL.get() + 2 * number + u32::from(number.is_multiple_of(7))
}

fn relay_inherents(number: BlockNumber) -> Vec<parachain::UncheckedExtrinsic> {
    use example_runtime::relay_clock::IDENTIFIER;

    let mut data = InherentData::new();
    data.put_data(IDENTIFIER, &relay_block(number)).expect("the number is put in once");
    parachain::inherents(data)
}

chain!(Solo, solo, |_| Vec::new());
chain!(Parachain, parachain, relay_inherents);

/// What the pallet's clock shows.
pub(crate) fn clock<C: Chain>() -> BlockNumber {
    type Clock<R> = <R as pallet_gauntlet::Config>::BlockNumberProvider;
    let number = Clock::<C::Runtime>::current_block_number();
    number.try_into().ok().expect("a test's clock stays below 2^32")
}

/// Ends the block and begins the next.
pub(crate) fn next_block<C: Chain>() {
    let header = C::end();
    C::begin(header.number + 1, header.hash());
}

/// Makes blocks until work of a window can be done that begins at this offset: hooks that run before the inherent see the
/// clock of the block before, so that it is one block more.
pub(crate) fn roll_to_offset<C: Chain>(window: Window, offset: u32) {
    let schedule = Pallet::<C::Runtime>::schedule(RUN, window);
    let begins = schedule.expect("the window is near").start + offset;
    while clock::<C>() < begins {
        next_block::<C>();
    }
    next_block::<C>();
}

//! Who makes blocks changes while the chain runs: by governance, and by equivocation.

use codec::Encode;
use frame_support::{assert_ok, traits::KeyOwnerProofSystem};
use pallet_grandpa::Call as GrandpaCall;
use runtime::{
    authorities::{Authorities, Call, Error, Event},
    AccountId, BlockNumber, Executive, Grandpa, Historical, Runtime, RuntimeCall, RuntimeOrigin,
    Session, SessionKeys, System, UncheckedExtrinsic,
};
use sp_consensus_aura::sr25519::AuthorityId as AuraId;
use sp_consensus_grandpa::{
    localized_payload, AuthoritySignature, Equivocation, EquivocationProof, KEY_TYPE,
};
use sp_core::{proof_of_possession::ProofOfPossessionGenerator, Pair, H256};
use sp_keyring::{Ed25519Keyring, Sr25519Keyring};
use sp_runtime::{
    traits::Dispatchable,
    transaction_validity::{InvalidTransaction, TransactionValidityError},
    DispatchError,
};

use crate::{
    governance::council_of_alice,
    network::{open_block, preset_storage, roll_to},
};

type Vote = finality_grandpa::Prevote<H256, BlockNumber>;

/// Runs a scenario on the chain of Alice and Bob from its block 1.
fn local_chain(scenario: impl FnOnce()) {
    sp_io::TestExternalities::from(preset_storage("local_testnet")).execute_with(|| {
        open_block(1, H256::repeat_byte(7));
        scenario();
    });
}

/// Lets an account of the test keyring set its session keys.
fn set_keys(author: Sr25519Keyring, voter: Ed25519Keyring) {
    let owner = author.to_account_id();
    let proof = (
        author.pair().generate_proof_of_possession(owner.as_ref()),
        voter.pair().generate_proof_of_possession(owner.as_ref()),
    );
    let keys = SessionKeys { aura: author.public().into(), grandpa: voter.public().into() };
    let call = pallet_session::Call::set_keys { keys, proof: proof.encode() };
    assert_ok!(RuntimeCall::from(call).dispatch(RuntimeOrigin::signed(owner)));
}

/// Runs to the first block of the next session.
fn next_session() {
    let before = Session::current_index();
    while Session::current_index() == before {
        roll_to(System::block_number() + 1);
    }
}

/// Who makes blocks now.
fn authors() -> Vec<AuraId> {
    pallet_aura::Authorities::<Runtime>::get().into_inner()
}

/// Who is on the list.
fn listed() -> Vec<AccountId> {
    Authorities::<Runtime>::get().into_inner()
}

#[test]
fn aura_and_grandpa_start_with_the_authorities_of_the_genesis() {
    local_chain(|| {
        let names = [Sr25519Keyring::Alice, Sr25519Keyring::Bob];
        assert_eq!(listed(), names.map(Sr25519Keyring::to_account_id));
        assert_eq!(authors(), names.map(|who| who.public().into()));
        assert_eq!(Grandpa::grandpa_authorities().len(), 2);
    });
}

#[test]
fn an_authority_that_governance_names_makes_blocks_after_a_whole_session() {
    local_chain(|| {
        let charlie = Sr25519Keyring::Charlie.to_account_id();
        let add = Call::add_authority { authority: charlie.clone() };
        let error = council_of_alice(add.clone()).unwrap_err();
        assert_eq!(error, Error::<Runtime>::NoSessionKeys.into());
        set_keys(Sr25519Keyring::Charlie, Ed25519Keyring::Charlie);
        assert_ok!(council_of_alice(add));

        next_session();
        assert_eq!(authors().len(), 2, "the keys of the next session were chosen before");
        next_session();
        assert!(authors().contains(&Sr25519Keyring::Charlie.public().into()));
        roll_to(System::block_number() + 1);
        assert_eq!(Grandpa::grandpa_authorities().len(), 3);

        assert_ok!(council_of_alice(Call::remove_authority { authority: charlie }));
        next_session();
        next_session();
        assert_eq!(authors().len(), 2);
    });
}

#[test]
fn strangers_change_no_authority_and_governance_never_removes_the_last() {
    local_chain(|| {
        let [alice, bob] =
            [Sr25519Keyring::Alice, Sr25519Keyring::Bob].map(Sr25519Keyring::to_account_id);
        let remove_alice = Call::remove_authority { authority: alice };
        let signed = RuntimeOrigin::signed(bob.clone());
        let refused = RuntimeCall::from(remove_alice.clone()).dispatch(signed).unwrap_err();
        assert_eq!(refused.error, DispatchError::BadOrigin);

        assert_ok!(council_of_alice(Call::remove_authority { authority: bob }));
        let error = council_of_alice(remove_alice).unwrap_err();
        assert_eq!(error, Error::<Runtime>::LastAuthority.into());
    });
}

/// A voter's vote for a block in round 1 of the first set, signed by itself.
fn vote(voter: Ed25519Keyring, block: u8) -> (Vote, AuthoritySignature) {
    let vote = Vote { target_hash: H256::repeat_byte(block), target_number: 1 };
    let message = finality_grandpa::Message::Prevote(vote.clone());
    let signature = voter.pair().sign(&localized_payload(1, 0, &message));
    (vote, signature.into())
}

/// Two votes that are said to be one voter's.
fn equivocation(
    voter: Ed25519Keyring,
    first: (Vote, AuthoritySignature),
    second: (Vote, AuthoritySignature),
) -> EquivocationProof<H256, BlockNumber> {
    let identity = voter.public().into();
    let votes = finality_grandpa::Equivocation { round_number: 1, identity, first, second };
    EquivocationProof::new(0, Equivocation::Prevote(votes))
}

/// The transaction in which a node reports an equivocation.
fn report(proof: EquivocationProof<H256, BlockNumber>) -> UncheckedExtrinsic {
    let owner = Historical::prove((KEY_TYPE, proof.offender().clone())).expect("an authority's");
    UncheckedExtrinsic::new_bare(
        GrandpaCall::report_equivocation_unsigned {
            equivocation_proof: Box::new(proof),
            key_owner_proof: owner,
        }
        .into(),
    )
}

#[test]
fn who_votes_twice_is_struck_at_once_and_gone_after_the_session() {
    local_chain(|| {
        let bob = Ed25519Keyring::Bob;
        let proof = equivocation(bob, vote(bob, 1), vote(bob, 2));
        assert_ok!(Executive::apply_extrinsic(report(proof.clone())).expect("it is valid"));
        let authority = Sr25519Keyring::Bob.to_account_id();
        System::assert_has_event(Event::Equivocated { authority, session: 0 }.into());
        assert_eq!(listed(), [Sr25519Keyring::Alice.to_account_id()]);

        let again = Executive::apply_extrinsic(report(proof));
        let stale = TransactionValidityError::Invalid(InvalidTransaction::Stale);
        assert_eq!(again, Err(stale), "one offence is reported once");

        next_session();
        next_session();
        assert_eq!(authors(), [Sr25519Keyring::Alice.public().into()]);
    });
}

#[test]
fn another_ones_vote_proves_nothing() {
    local_chain(|| {
        let [alice, bob] = [Ed25519Keyring::Alice, Ed25519Keyring::Bob];
        let forged = equivocation(alice, vote(alice, 1), vote(bob, 2));
        let refused = Executive::apply_extrinsic(report(forged)).expect("an authority is named");
        let error = pallet_grandpa::Error::<Runtime>::InvalidEquivocationProof;
        assert_eq!(refused, Err(error.into()));
        assert_eq!(listed().len(), 2);
    });
}

//! Nobody decides alone: a council does, by motions, and safe mode leaves a window's work alone.

use codec::Encode;
use frame_support::{assert_ok, dispatch::GetDispatchInfo, traits::Hooks};
use pallet_collective::Instance1;
use protocol::window::Phase;
use runtime::{
    AccountId, Runtime, RuntimeCall, RuntimeEvent, RuntimeOrigin, SafeMode, System,
    EXISTENTIAL_DEPOSIT,
};
use sp_keyring::Sr25519Keyring::{Alice, Bob, Charlie, Dave};
use sp_runtime::{
    traits::{BlakeTwo256, Dispatchable, Hash},
    DispatchError, DispatchResult,
};

use crate::network::{miner_hot, roll_to_phase, ExtBuilder, Model, Update};

type CouncilCall = pallet_collective::Call<Runtime, Instance1>;

/// Dispatches a call of any pallet, signed by `who`.
fn signed(who: &AccountId, call: impl Into<RuntimeCall>) -> DispatchResult {
    let origin = RuntimeOrigin::signed(who.clone());
    call.into().dispatch(origin).map(|_| ()).map_err(|error| error.error)
}

/// What became of the call of the last motion that was executed.
fn executed() -> Option<DispatchResult> {
    System::events().into_iter().rev().find_map(|record| match record.event {
        RuntimeEvent::Council(pallet_collective::Event::Executed { result, .. }) => Some(result),
        _ => None,
    })
}

/// Lets a council of Alice alone decide, and returns what became of the call.
pub(crate) fn council_of_alice(call: impl Into<RuntimeCall>) -> DispatchResult {
    let motion = Box::new(call.into());
    let length_bound = motion.encoded_size() as u32;
    let propose = CouncilCall::propose { threshold: 1, proposal: motion, length_bound };
    signed(&Alice.to_account_id(), propose)?;
    executed().expect("a motion of the only member is executed at once")
}

/// Seats Alice, Bob, Charlie and Dave.
fn seat_four() {
    let members = [Alice, Bob, Charlie, Dave].map(|member| member.to_account_id());
    let seat =
        CouncilCall::set_members { new_members: members.to_vec(), prime: None, old_count: 1 };
    assert_ok!(council_of_alice(seat));
}

/// Moves a call, lets the first `ayes` members vote for it and closes the motion.
fn motion(ayes: u32, call: impl Into<RuntimeCall>) -> DispatchResult {
    let members = [Alice, Bob, Charlie, Dave].map(|member| member.to_account_id());
    let call = call.into();
    let (length_bound, hash) = (call.encoded_size() as u32, BlakeTwo256::hash_of(&call));
    let weight = call.get_dispatch_info().call_weight;
    let index = pallet_collective::ProposalCount::<Runtime, Instance1>::get();
    let propose = CouncilCall::propose { threshold: ayes, proposal: Box::new(call), length_bound };
    signed(&members[0], propose)?;
    for member in members.iter().take(ayes as usize) {
        signed(member, CouncilCall::vote { proposal: hash, index, approve: true })?;
    }
    let close = CouncilCall::close {
        proposal_hash: hash,
        index,
        proposal_weight_bound: weight,
        length_bound,
    };
    signed(&members[0], close)?;
    executed().expect("the threshold was reached")
}

/// A call that root alone may make.
fn root_call() -> RuntimeCall {
    let item = (b"a key".to_vec(), b"a value".to_vec());
    frame_system::Call::set_storage { items: vec![item] }.into()
}

/// Admits a root's call by its hash, and dispatches it.
fn as_root(call: RuntimeCall) -> RuntimeCall {
    let admit = pallet_whitelist::Call::whitelist_call { call_hash: BlakeTwo256::hash_of(&call) };
    let dispatch =
        pallet_whitelist::Call::dispatch_whitelisted_call_with_preimage { call: Box::new(call) };
    pallet_utility::Call::batch_all { calls: vec![admit.into(), dispatch.into()] }.into()
}

#[test]
fn two_thirds_of_the_council_administer_and_less_do_not() {
    ExtBuilder::default().execute(|| {
        seat_four();
        let seats = CouncilCall::set_members {
            new_members: vec![Alice.to_account_id()],
            prime: None,
            old_count: 4,
        };
        assert_eq!(motion(2, seats.clone()), Err(DispatchError::BadOrigin), "half of it");
        assert_ok!(motion(3, seats));
        assert_eq!(pallet_collective::Members::<Runtime, Instance1>::get().len(), 1);
    });
}

#[test]
fn three_quarters_of_the_council_can_do_what_root_can() {
    ExtBuilder::default().execute(|| {
        assert_eq!(signed(&Alice.to_account_id(), root_call()), Err(DispatchError::BadOrigin));
        assert_eq!(council_of_alice(root_call()), Err(DispatchError::BadOrigin), "not without ado");
        seat_four();
        assert_eq!(motion(2, as_root(root_call())), Err(DispatchError::BadOrigin));
        assert_eq!(sp_io::storage::get(b"a key"), None);
        assert_ok!(motion(3, as_root(root_call())));
        assert_eq!(sp_io::storage::get(b"a key").as_deref(), Some(&b"a value"[..]));
    });
}

#[test]
fn a_proposal_of_a_stranger_is_refused() {
    ExtBuilder::default().execute(|| {
        let propose = CouncilCall::propose {
            threshold: 1,
            proposal: Box::new(root_call()),
            length_bound: 1_000,
        };
        let refused = signed(&Bob.to_account_id(), propose);
        assert_eq!(refused, Err(pallet_collective::Error::<Runtime, Instance1>::NotMember.into()));
    });
}

#[test]
fn safe_mode_stops_money_and_no_windows_work() {
    ExtBuilder::default().participants(1, 0).execute(|| {
        roll_to_phase(1, Phase::Commit);
        assert_ok!(council_of_alice(pallet_safe_mode::Call::force_enter {}));
        assert!(SafeMode::is_entered());

        let alice = Alice.to_account_id();
        let transfer = || pallet_balances::Call::transfer_allow_death {
            dest: Bob.to_account_id().into(),
            value: EXISTENTIAL_DEPOSIT,
        };
        let filtered = Err(frame_system::Error::<Runtime>::CallFiltered.into());
        assert_eq!(signed(&alice, transfer()), filtered);
        let wrapped = pallet_utility::Call::batch_all { calls: vec![transfer().into()] };
        assert_eq!(signed(&alice, wrapped), filtered, "nor in a wrapping");

        let hot = miner_hot(0);
        let update = Update::new(1, Model::genesis().root());
        assert_ok!(signed(&hot, update.commit_call(1, &hot)));
        roll_to_phase(1, Phase::Reveal);
        assert_ok!(signed(&hot, update.reveal_call(1, &hot)));

        assert_ok!(council_of_alice(pallet_safe_mode::Call::force_exit {}));
        assert_ok!(signed(&alice, transfer()));
    });
}

#[test]
fn safe_mode_ends_by_itself() {
    ExtBuilder::default().execute(|| {
        assert_ok!(council_of_alice(pallet_safe_mode::Call::force_enter {}));
        let until = pallet_safe_mode::EnteredUntil::<Runtime>::get().expect("it is entered");
        assert_eq!(until - System::block_number(), 43_200, "a day of blocks of two seconds");
        SafeMode::on_initialize(until + 1);
        assert!(!SafeMode::is_entered());
    });
}

//! A window from the run's creation to the money, by either clock, in signed transactions.

use example_runtime::{solo, AccountId, UNIT};
use frame_system::pallet_prelude::BlockNumberFor;
use pallet_gauntlet::{Bitmap, Call, Config, MinerUids, Pallet, WindowStatus, Windows};
use protocol::{
    accept::bitmap_of,
    commitment::{
        attestation_commitment_hash, commitment_hash, score_commitment_hash, AttestationOpening,
    },
    consent::{hot_key_consent, Role},
    settings::SCORE_VERSION,
    AccountBytes, Hash, Planck, Uid, Window,
};
use sp_core::{sr25519, Pair};
use sp_runtime::{BuildStorage, DispatchError, MultiSignature};

use crate::{
    chain::{
        account, clock, key, next_block, roll_to_offset, stand_still, Chain, Parachain, Solo, RUN,
    },
    update::{evaluation, layout_vec, settings, Update, ROOT},
};

/// How many miners and validators take part.
const MINERS: u8 = 2;
const VALIDATORS: u8 = 2;

/// The settlement takes some blocks at most.
const SETTLEMENT_BLOCKS: u32 = 4;

fn owner() -> sr25519::Pair {
    key("owner")
}

fn cold(role: &str, number: u8) -> sr25519::Pair {
    key(&format!("{role}-cold-{number}"))
}

fn hot(role: &str, number: u8) -> sr25519::Pair {
    key(&format!("{role}-hot-{number}"))
}

fn bytes(key: &sr25519::Pair) -> AccountBytes {
    key.public().0
}

/// The hash to which signatures and commitments are bound.
fn genesis<C: Chain>() -> Hash {
    frame_system::Pallet::<C::Runtime>::block_hash(BlockNumberFor::<C::Runtime>::default()).into()
}

/// A transaction that succeeds.
fn send<C: Chain>(signer: &sr25519::Pair, call: Call<C::Runtime>) {
    assert_eq!(C::send(signer, call.clone()), Ok(Ok(())), "{call:?} at {}", clock::<C>());
}

/// The consent of `hot` to work for `cold`.
fn consent<C: Chain>(hot: &sr25519::Pair, role: Role, cold: &sr25519::Pair) -> MultiSignature {
    hot.sign(&hot_key_consent(&genesis::<C>(), RUN, role, &bytes(cold))).into()
}

/// The owner creates a run, sponsors it, and everybody registers.
fn found<C: Chain>()
where
    C::Runtime: Config<HotKeyProof = MultiSignature>,
{
    let mut settings = settings();
    settings.schedule.start_block = clock::<C>() + 20;
    let create = Call::create_run { settings: settings.into(), layout: layout_vec() };
    send::<C>(&owner(), create);
    let fund = Call::fund_run { run: RUN, amount: 1_000 * UNIT, per_window: 100 * UNIT };
    send::<C>(&owner(), fund);
    for number in 0..MINERS {
        let (hot, cold) = (hot("miner", number), cold("miner", number));
        let proof = consent::<C>(&hot, Role::Miner, &cold);
        let max_price = Planck::MAX;
        let hot = account(&hot);
        send::<C>(&cold, Call::register_miner { run: RUN, hot, proof, max_price });
    }
    for number in 0..VALIDATORS {
        let (hot, cold) = (hot("validator", number), cold("validator", number));
        let proof = consent::<C>(&hot, Role::Validator, &cold);
        let stake = 1_000 * UNIT;
        let hot = account(&hot);
        send::<C>(&cold, Call::register_validator { run: RUN, hot, proof, stake });
    }
}

/// Miners commit and reveal, validators attest.
fn work<C: Chain>(window: Window) {
    let schedule = settings().schedule;
    roll_to_offset::<C>(window, 0);
    for number in 0..MINERS {
        let (hot, opening) = (hot("miner", number), Update::of_miner(number).opening());
        let hash = commitment_hash(&genesis::<C>(), RUN, window, &bytes(&hot), &opening);
        send::<C>(&hot, Call::commit_update { run: RUN, window, hash });
    }
    roll_to_offset::<C>(window, schedule.challenge_offset());
    for number in 0..MINERS {
        let (hot, update) = (hot("miner", number), Update::of_miner(number));
        let uid = MinerUids::<C::Runtime>::get(RUN, account(&hot)).expect("it is registered");
        let record = Windows::<C::Runtime>::get(RUN, window).expect("the window is open");
        let seed = record.challenge_seed.expect("the challenge is drawn");
        let (opening, chunks) = (update.opening(), update.shown(&seed, window, uid));
        send::<C>(&hot, Call::reveal_update { run: RUN, window, opening, chunks });
    }
    let uids: Vec<Uid> = (0..Uid::from(MINERS)).collect();
    let words = |number| AttestationOpening {
        bitmap: bitmap_of(&uids),
        state_root: ROOT,
        salt: [number; 32],
    };
    roll_to_offset::<C>(window, schedule.reveal_end);
    for number in 0..VALIDATORS {
        let hot = hot("validator", number);
        let hash =
            attestation_commitment_hash(&genesis::<C>(), RUN, window, &bytes(&hot), &words(number));
        send::<C>(&hot, Call::commit_attestation { run: RUN, window, hash });
    }
    roll_to_offset::<C>(window, schedule.attest_commit_end);
    for number in 0..VALIDATORS {
        let AttestationOpening { bitmap, state_root, salt } = words(number);
        let bitmap = Bitmap::truncate_from(bitmap);
        let reveal = Call::reveal_attestation { run: RUN, window, bitmap, state_root, salt };
        send::<C>(&hot("validator", number), reveal);
    }
    roll_to_offset::<C>(window, schedule.attest_end);
}

/// Validators score a window in the one after it, until it is settled.
fn score<C: Chain>(window: Window) {
    let schedule = settings().schedule;
    let evaluations: Vec<_> = (0..Uid::from(MINERS)).map(evaluation).collect();
    let version = SCORE_VERSION;
    roll_to_offset::<C>(window + 1, 0);
    for number in 0..VALIDATORS {
        let hot = hot("validator", number);
        let hash = score_commitment_hash(
            &genesis::<C>(),
            RUN,
            window,
            &bytes(&hot),
            &evaluations,
            version,
            &[number; 32],
        );
        send::<C>(&hot, Call::commit_scores { run: RUN, window, hash, version });
    }
    roll_to_offset::<C>(window + 1, schedule.score_commit_end);
    for number in 0..VALIDATORS {
        let evaluations = evaluations.clone().try_into().expect("evaluations fit");
        let salt = [number; 32];
        let reveal = Call::reveal_scores { run: RUN, window, evaluations, salt, version };
        send::<C>(&hot("validator", number), reveal);
    }
    roll_to_offset::<C>(window + 1, schedule.score_reveal_end);
    (0..SETTLEMENT_BLOCKS).for_each(|_| next_block::<C>());
}

fn balance<C: Chain>(who: &AccountId) -> Planck {
    pallet_balances::Pallet::<C::Runtime>::free_balance(who)
}

/// What the chain fixed in a window, without its hashes.
fn outcome<C: Chain>(window: Window) -> (Vec<Uid>, Option<Hash>, WindowStatus, bool) {
    let record = Windows::<C::Runtime>::get(RUN, window).expect("the window is kept");
    (record.accepted.to_vec(), record.state_root, record.status, record.excused)
}

/// Owner and cold keys own something; hot keys own nothing.
fn on<C: Chain>(scenario: impl FnOnce()) {
    let colds = (0..MINERS).map(|number| cold("miner", number));
    let colds = colds.chain((0..VALIDATORS).map(|number| cold("validator", number)));
    let endowed: Vec<_> = colds.chain([owner()]).map(|key| account(&key)).collect();
    sp_io::TestExternalities::from(C::genesis(&endowed)).execute_with(|| {
        C::begin(1, [7; 32].into());
        scenario();
        C::end();
    });
}

fn a_window_runs_through<C: Chain>()
where
    C::Runtime: Config<HotKeyProof = MultiSignature>,
{
    on::<C>(|| {
        found::<C>();
        work::<C>(0);
        assert_eq!(outcome::<C>(0), (vec![0, 1], Some(ROOT), WindowStatus::Accepted, false));
        score::<C>(0);
        assert_eq!(outcome::<C>(0), (vec![0, 1], Some(ROOT), WindowStatus::Settled, false));

        // A window later everybody can claim; hot keys have worked and own nothing.
        roll_to_offset::<C>(2, 0);
        for number in 0..MINERS {
            assert_eq!(balance::<C>(&account(&hot("miner", number))), 0);
            let who = account(&cold("miner", number));
            let owed = Pallet::<C::Runtime>::claimable(RUN, who.clone()).expect("the run is there");
            let before = balance::<C>(&who);
            send::<C>(&owner(), Call::claim { run: RUN, account: who.clone() });
            assert!(owed.now > 0);
            assert_eq!(balance::<C>(&who), before + owed.now);
        }
    });
}

#[test]
fn a_window_runs_through_by_the_chains_own_clock() {
    a_window_runs_through::<Solo>();
}

#[test]
fn a_window_runs_through_by_a_relay_chains_clock() {
    a_window_runs_through::<Parachain>();
}

#[test]
fn a_run_of_the_genesis_opens_with_its_first_block() {
    let owner = account(&owner());
    let genesis = solo::genesis(owner.clone(), settings(), layout_vec().to_vec());
    let storage = genesis.build_storage().expect("the genesis is valid");
    sp_io::TestExternalities::from(storage).execute_with(|| {
        Solo::begin(1, [7; 32].into());
        assert_eq!(solo::Gauntlet::settings(RUN), Some(settings()));
        assert!(balance::<Solo>(&owner) < 9_000 * UNIT, "the deposit is held");
        roll_to_offset::<Solo>(0, 0);
        assert!(Windows::<solo::Runtime>::contains_key(RUN, 0));
    });
}

/// Work that is late is refused before it costs anything, with the pallet's error.
#[test]
fn what_comes_in_the_wrong_phase_is_no_transaction() {
    on::<Parachain>(|| {
        found::<Parachain>();
        roll_to_offset::<Parachain>(0, settings().schedule.commit_end);
        let late = Call::commit_update { run: RUN, window: 0, hash: [1; 32] };
        let error: DispatchError =
            pallet_gauntlet::Error::<<Parachain as Chain>::Runtime>::WrongPhase.into();
        let DispatchError::Module(module) = error else {
            panic!("the pallet's errors are its own")
        };
        let expected =
            sp_runtime::transaction_validity::InvalidTransaction::Custom(module.error[0]);
        assert_eq!(Parachain::send(&hot("miner", 0), late), Err(expected.into()));
    });
}

/// A relay chain's number that runs on while the chain stands still excuses everybody whose work it cut off.
#[test]
fn a_clock_that_runs_on_alone_excuses_everybody() {
    on::<Parachain>(|| {
        found::<Parachain>();
        roll_to_offset::<Parachain>(0, 0);
        stand_still(40);
        // The next block's inherent tells of it, the hooks of the one after it act.
        next_block::<Parachain>();
        assert!(!outcome::<Parachain>(0).3);
        next_block::<Parachain>();
        assert!(outcome::<Parachain>(0).3);
    });
}

#[test]
fn both_runtimes_hold_what_the_pallet_asks_of_them() {
    Solo::integrity_test();
    Parachain::integrity_test();
}

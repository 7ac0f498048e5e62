//! Thousands of random calls in random order: whatever they do, the books balance in every block.

use std::collections::BTreeMap;

use pallet_gauntlet::{Call, Departures, Ledgers, MinerUids, Runs, ValidatorIndices};
use protocol::{
    entry::Seat,
    window::{phase_at, Phase},
    Hash, RunId, Uid,
};
use runtime::{AccountId, Runtime, System, UNIT};
use sp_core::Pair;

use crate::{draws::Draws, network::*};

/// The default seed; the environment's `GAUNTLET_TEST_SEED` replaces it.
const SEED: u64 = 2_609;
const BLOCKS: u32 = 800;
const CALLS_PER_BLOCK: u32 = 12;
/// The first number that draws an attestation.
const ATTEST: u64 = 25;
/// Different updates that miners draw from, few enough that some copy others.
const FLAVOURS: u8 = 8;

fn phase() -> Option<Phase> {
    phase_at(&settings().schedule, System::block_number()).map(|moment| moment.phase)
}

/// A random call with its signer, which is sensible most of the time.
fn draw_call(draws: &mut Draws, updates: &[Update]) -> (AccountId, Call<Runtime>) {
    let miner = draws.below(6) as u8;
    let validator = draws.below(7) as u8;
    let hots = [miner_hot(miner), validator_hot(validator)];
    let hot = hots[draws.below(2) as usize].clone();
    let uid = draws.below(8) as Uid;
    let now = current_window().unwrap_or(0);
    let window = if draws.one_in(20) { draws.below(40) } else { now };
    let scored = window.saturating_sub(1);
    let run = if draws.one_in(50) { 7 } else { RUN };
    // A miner's update of a window is always the same, and sometimes another miner's too.
    let flavour = (u64::from(miner) * 3 + window) % u64::from(FLAVOURS);
    let update = &updates[flavour as usize];
    let evaluations =
        (0..6).map(|uid| evaluation(uid, draws_gain(draws, uid), draws_gain(draws, uid))).collect();
    // The example's phases of attestations are brief.
    let is_attesting = matches!(phase(), Some(Phase::AttestCommit | Phase::AttestReveal));
    let choice = if is_attesting && !draws.one_in(8) { ATTEST } else { draws.below(40) };
    match choice {
        0 => {
            let cold = miner_cold(miner);
            let register = register_miner(&miner_key(miner), run, &cold);
            (cold, register)
        }
        // Seldom, as the keys of who left wait for their bond.
        1 if draws.one_in(10) => {
            let own = MinerUids::<Runtime>::get(RUN, miner_hot(miner));
            let uid = own.filter(|_| !draws.one_in(4)).unwrap_or(uid);
            (miner_cold(miner), Call::leave_miner { run, uid })
        }
        2 => {
            let (hot, cold) = (validator_key(validator), validator_cold(validator));
            let stake = u128::from(draws.below(3_000)) * UNIT;
            let register = register_validator(&hot, run, &cold, stake);
            (cold, register)
        }
        3 => {
            let (index, amount) = (uid, u128::from(draws.below(100)) * UNIT);
            let add = Call::add_stake { run, index, amount };
            (validator_cold(validator), add)
        }
        4 if draws.one_in(2) => {
            let own = ValidatorIndices::<Runtime>::get(RUN, validator_hot(validator));
            let index = own.filter(|_| !draws.one_in(4)).unwrap_or(uid);
            let leave = Call::deregister_validator { run, index };
            (validator_cold(validator), leave)
        }
        5 => {
            // Now and then somebody else's.
            let owner = if draws.one_in(8) { owner() } else { hot.clone() };
            let (peer_id, proof) = peer(uid as u8, run, &owner);
            let announce = Call::announce {
                run,
                peer_id: peer_id.try_into().expect("a peer id fits"),
                addresses: Default::default(),
                proof,
            };
            (hot, announce)
        }
        // Seldom, as each change replaces the one that waits.
        6 if draws.one_in(8) => {
            let mut changed = settings();
            changed.incentive.power = 15 + draws.below(3) as u8;
            changed.emission.owner_ppm = draws.below(100_000) as u32;
            changed.emission.miners_ppm = 700_000 - changed.emission.owner_ppm;
            let settings = Box::new(changed);
            (owner(), Call::set_params { run, settings })
        }
        7 => keys_call(draws, run, miner, validator),
        8 if draws.one_in(3) => {
            let key = Departures::<Runtime>::iter_key_prefix(RUN).next();
            let (uid, registered_window) = key.unwrap_or((uid, 0));
            (owner(), Call::withdraw_bond { run, uid, registered_window })
        }
        9 if draws.one_in(2) => (owner(), Call::evict { run, uid }),
        8..=9 => {
            let account = endowed(draws.below(14) as usize);
            (hot, Call::claim { run, account })
        }
        // One of the miners never works, and can be evicted.
        10..=16 if miner != 3 => {
            let hot = miner_hot(miner);
            let commit = update.commit_call(window, &hot);
            (hot, commit)
        }
        17..=24 => {
            let hot = miner_hot(miner);
            let reveal = update.reveal_call(window, &hot);
            (hot, reveal)
        }
        ATTEST..=31 => {
            let hot = validator_hot(validator);
            let (uids, root) = attested(validator, window);
            let [commit, reveal] = attest_calls(window, &hot, &uids, root);
            let is_revealing = phase() == Some(Phase::AttestReveal);
            (hot, if is_revealing != draws.one_in(8) { reveal } else { commit })
        }
        32..=35 => {
            let hot = validator_hot(validator);
            let [commit, _] = score_calls(scored, &hot, measured(validator, scored));
            (hot, commit)
        }
        36..=38 => {
            let hot = validator_hot(validator);
            let [_, reveal] = score_calls(scored, &hot, measured(validator, scored));
            (hot, reveal)
        }
        _ => {
            let [_, reveal] = score_calls(scored, &hot, evaluations);
            (hot, reveal)
        }
    }
}

/// A call that changes a seat's keys, mostly of the one that `miner` or `validator` holds.
fn keys_call(
    draws: &mut Draws,
    run: RunId,
    miner: u8,
    validator: u8,
) -> (AccountId, Call<Runtime>) {
    let (seat, cold) = if draws.one_in(2) {
        let uid = MinerUids::<Runtime>::get(RUN, miner_hot(miner)).unwrap_or(miner.into());
        (Seat::Miner(uid), miner_cold(miner))
    } else {
        let index = ValidatorIndices::<Runtime>::get(RUN, validator_hot(validator));
        (Seat::Validator(index.unwrap_or(validator.into())), validator_cold(validator))
    };
    match draws.below(12) {
        0..=3 => {
            // Of a miner to come, so that keys come back into use.
            let hot = miner_key(draws.below(9) as u8);
            let proof = consent(&hot, run, seat.role(), &cold).into();
            let hot = hot.public().into();
            (cold, Call::rotate_hot_key { run, seat, hot, proof })
        }
        4 | 5 => (cold.clone(), Call::offer_cold { run, seat, to: cold }),
        6..=10 => (cold, Call::accept_cold { run, seat }),
        _ => (cold, Call::cancel_cold { run, seat }),
    }
}

fn draws_gain(draws: &mut Draws, uid: Uid) -> i64 {
    draws.below(2_000) as i64 - 1_000 + i64::from(uid)
}

/// What a validator could fetch of a window and what state it holds, so that its reveal fits its commitment: mostly all
/// and the right one.
fn attested(validator: u8, window: u64) -> (Vec<Uid>, Hash) {
    let mut draws = Draws::after(u64::from(validator), window << 16);
    let uids = (0..8).filter(|_| !draws.one_in(24)).collect();
    let root = if draws.one_in(20) { [9; 32] } else { Model::genesis().root() };
    (uids, root)
}

/// What a validator says of a window, so that its reveal fits its commitment: mostly gains, some losses.
fn measured(validator: u8, window: u64) -> Vec<protocol::consensus::Evaluation> {
    let seed = u64::from(validator % 3);
    let mut draws = Draws::after(seed, window << 16);
    (0..6)
        .map(|uid| {
            let own = draws.below(60) as i64 - 10;
            evaluation(uid, own, own - draws.below(10) as i64)
        })
        .collect()
}

#[test]
fn the_books_balance_whatever_is_called() {
    let seed =
        std::env::var("GAUNTLET_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    println!("GAUNTLET_TEST_SEED={seed}");
    let mut draws = Draws::after(seed, 0);
    let root: Hash = Model::genesis().root();
    let updates: Vec<_> = (0..FLAVOURS).map(|flavour| Update::new(flavour, root)).collect();

    ExtBuilder::default().participants(4, 4).execute(|| {
        let mut results: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        while System::block_number() < BLOCKS {
            for _ in 0..CALLS_PER_BLOCK {
                let (who, drawn) = draw_call(&mut draws, &updates);
                let name = frame_support::traits::GetCallName::get_call_name(&drawn);
                let counts = results.entry(name.to_owned()).or_default();
                match call(&who, drawn) {
                    Ok(()) => counts.0 += 1,
                    Err(_) => counts.1 += 1,
                }
            }
            // Checks every invariant and the ledger.
            roll_to(System::block_number() + 1);
        }
        println!("calls (done, refused): {results:?}");
        let ledger = Ledgers::<Runtime>::get(RUN);
        println!("{ledger:?}");

        // The walk went where it should: every call was done and refused, windows were settled and pay transferred.
        for (name, (done, refused)) in &results {
            let may_always_succeed = name == "set_params";
            assert!(*done > 0, "{name} was never done");
            assert!(*refused > 0 || may_always_succeed, "{name} never failed");
        }
        assert_eq!(results.len(), 20, "{results:?}");
        let run = Runs::<Runtime>::get(RUN).expect("the run exists");
        assert!(run.next_settlement >= 14, "{}", run.next_settlement);
        assert!(ledger.paid > 0);
        assert!(run.settings_version > 0, "no change of settings was applied");
        assert_eq!(ledger.minted, u128::from(run.next_settlement) * MINTED, "settings only split");
    });
}

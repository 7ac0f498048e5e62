//! Each broken piece of storage is found by the invariant of its number.

use protocol::{RunId, Window};
use sp_runtime::DispatchError;

use crate::{mock::*, *};

/// A way to break storage: what the check says, and how.
type Break = (&'static str, fn());

const BREAKS: [Break; 42] = [
    ("1: a run from the future", || NextRunId::<Test>::put(0)),
    ("2: no settings", || RunSettings::<Test>::remove(0, 0)),
    ("2: a run without layout", || Layouts::<Test>::remove(0)),
    ("4: held bonds are off", || {
        Miners::<Test>::mutate(0, 0, |miner| miner.as_mut().unwrap().bond += 1)
    }),
    ("4: held deposits are off", || {
        Runs::<Test>::mutate(0, |run| run.as_mut().unwrap().deposit += 1)
    }),
    ("5: a miner in a free slot", || MinerSlots::<Test>::remove(0)),
    ("5: a miner's hot key leads elsewhere", || MinerUids::<Test>::remove(0, miner_hot(1))),
    ("5: a validator in a free slot", || ValidatorSlots::<Test>::remove(0)),
    ("5: a hot key without validator", || {
        ValidatorIndices::<Test>::insert(0, account(77), 9);
    }),
    ("6: a stake differs from its pool", || {
        Validators::<Test>::mutate(0, 0, |validator| validator.as_mut().unwrap().stake += 1);
    }),
    ("8: a window without record", || Windows::<Test>::remove(0, 1)),
    ("9: an accepted set out of order", || {
        Windows::<Test>::mutate(0, 0, |record| {
            record.as_mut().unwrap().accepted = vec![1, 0].try_into().unwrap()
        });
    }),
    ("9: accepted without state root", || {
        Windows::<Test>::mutate(0, 0, |record| record.as_mut().unwrap().state_root = None);
    }),
    ("10: a window's status is off", || {
        Windows::<Test>::mutate(0, 0, |record| {
            record.as_mut().unwrap().status = WindowStatus::Open
        });
    }),
    ("11: the order of commitments is off", || Commitments::<Test>::remove((0, 2, 0))),
    ("12: a reveal with another order", || {
        Reveals::<Test>::mutate((0, 2, 0), |reveal| reveal.as_mut().unwrap().order += 1);
    }),
    ("13: an owner without reveal", || PayloadOwners::<Test>::insert((0, 2, [9; 32]), 0)),
    ("14: an attestation without permit", || Permits::<Test>::remove(0, 2)),
    ("14: an attestation without commitment", || {
        AttestationCommitments::<Test>::remove((0, 2, 0));
    }),
    ("17: money is not conserved", || Ledgers::<Test>::mutate(0, |ledger| ledger.burned += 1)),
    ("18: claims and ledger differ", || {
        let (account, _) = Claims::<Test>::iter_prefix(0).next().unwrap();
        Claims::<Test>::remove(0, account);
    }),
    ("19: the run's account lacks money", || {
        Runs::<Test>::mutate(0, |run| run.as_mut().unwrap().foundation += 1);
    }),
    ("22: settings without window", || {
        RunSettings::<Test>::insert(0, 7, settings());
    }),
    ("23:", || RunSchedule::<Test>::kill()),
    ("24: permits outside of the history", || {
        Permits::<Test>::insert(0, 50, Permits::<Test>::get(0, 2));
    }),
    ("24: too many permits", || {
        RunSettings::<Test>::mutate(0, 0, |settings| {
            settings.as_mut().unwrap().incentive.permits_max = 1;
        });
    }),
    ("41: a weight without run", || {
        RunWeights::<Test>::insert(9, RunWeights::<Test>::get(0));
    }),
    ("41: the sum of weights is off", || {
        ChainAccrual::<Test>::mutate(|accrual| accrual.total_weight += 1);
    }),
    ("42: more than the schedule gives", || Emitted::<Test>::put(u128::MAX)),
    ("43: pay outside of the history", || {
        PaidWindows::<Test>::insert(0, 50, PaidWindows::<Test>::get(0, 1).unwrap());
    }),
    ("43: pay without settlement", || {
        PaidWindows::<Test>::insert(0, 2, PaidWindows::<Test>::get(0, 1).unwrap());
    }),
    ("43: validators' pay is off", || change_pay(|pay| pay.validators[1].0 = 0)),
    ("43: validators' pay is off", || change_pay(|pay| pay.validators[1].0 = 64)),
    ("44: validators were paid another sum", || change_pay(|pay| pay.validators[0].1 += 1)),
    ("44: more pay is noted than was credited", || change_pay(|pay| pay.paid.owner += 1)),
    ("45: miners' pay outside of the history", || copy_miner_pay((0, 50, 0))),
    ("45: miners' pay is off", || copy_miner_pay((0, 1, 1))),
    ("45: miners' pay without settlement", || copy_miner_pay((0, 2, 0))),
    ("47: a bench outside of the history", || {
        Benches::<Test>::insert(0, 50, Benches::<Test>::get(0, 2));
    }),
    ("47: a bench without permits", || {
        Benches::<Test>::mutate(0, 2, |bench| bench[0].stake += 1);
    }),
    ("48: a pool of nothing", || {
        let cold = Pools::<Test>::get(0, 0).unwrap().cold;
        let nothing = StakePool { index: None, own: 0, cold, ..Pools::<Test>::get(0, 0).unwrap() };
        Pools::<Test>::insert(0, 9, nothing);
    }),
    ("46: miners were paid less", || {
        PaidMiners::<Test>::mutate((0, 1, 0), |page| page.as_mut().unwrap()[0].1 += 1);
    }),
];

fn change_pay(change: fn(&mut PaidWindow)) {
    PaidWindows::<Test>::mutate(0, 1, |pay| change(pay.as_mut().unwrap()));
}

fn copy_miner_pay(to: (RunId, Window, u32)) {
    PaidMiners::<Test>::insert(to, PaidMiners::<Test>::get((0, 1, 0)).unwrap());
}

#[test]
fn each_broken_storage_is_found_by_its_number() {
    let mut missed = Vec::new();
    for (expected, break_storage) in BREAKS {
        ExtBuilder::default().participants(2, 2).build().execute_with(|| {
            for window in 0..3 {
                play_window(window, 2, 2);
            }
            check_state();
            break_storage();
            match Gauntlet::do_try_state() {
                Err(DispatchError::Other(found)) if found.starts_with(expected) => (),
                other => missed.push((expected, other)),
            }
        });
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

//! Checks the invariants of the pallet's storage, which are numbered; each function checks those it lists.

use alloc::{collections::BTreeMap, vec::Vec};

use frame_support::{
    ensure,
    traits::{fungible::Inspect, Get},
};
use protocol::{
    books::permit_of, entry::Seat, layout::Layout, window::phase_at, Planck, RunId, Uid, Window,
};
use sp_runtime::TryRuntimeError;

use crate::{
    emission_schedule::EmissionSchedule, Announcements, AttestationCommitments, Attestations,
    Benches, Bonds, ChainAccrual, Change, Changes, Claims, ColdOffers, CommitCounts, Commitments,
    Config, CoolingKeys, Delegations, Departures, Emitted, EvaluationDisputes, HoldReason, Layouts,
    Ledgers, MinerSlots, MinerUids, Miners, NextHotKeys, NextRunId, PaidMiners, PaidWindow,
    PaidWindows, Pallet, PayloadOwners, PendingSettings, Permits, Pools, Reveals, RunOf,
    RunSchedule, RunSettings, RunStatus, RunWeights, Runs, ScoreCommitments, ScoreReveals,
    SettlementPages, Settlements, SlashQueues, Sponsors, Sponsorship, Stage, UnappliedSlashes,
    Unbondings, ValidatorIndices, ValidatorSlots, Validators, WindowStatus, Windows, WorkQueue,
    VALIDATORS_MAX,
};

impl<T: Config> Pallet<T> {
    /// Checks all invariants.
    pub(crate) fn do_try_state() -> Result<(), TryRuntimeError> {
        Self::try_state_runs()?;
        Self::try_state_holds()?;
        Self::try_state_schedule()?;
        Self::try_state_budgets()?;
        for (run_id, run) in Runs::<T>::iter() {
            Self::try_state_emission(run_id, &run)?;
            if run.status == RunStatus::Closed {
                // It is being removed, row by row.
                continue;
            }
            Self::try_state_participants(run_id, &run)?;
            Self::try_state_windows(run_id, &run)?;
            Self::try_state_updates(run_id, &run)?;
            Self::try_state_scores(run_id, &run)?;
            Self::try_state_benches(run_id, &run)?;
            Self::try_state_settlement(run_id, &run)?;
            Self::try_state_pay(run_id, &run)?;
            Self::try_state_miner_pay(run_id, &run)?;
            Self::try_state_settings(run_id, &run)?;
            Self::try_state_bonds(run_id, &run)?;
        }
        Self::try_state_pools()
    }

    /// 1. There are at most `RunsMax` runs, all below `NextRunId`.
    /// 2. A run's settings are valid; its layout is, and has `chunk_count` chunks.
    /// 3. Settings that wait are valid and for a window to come.
    fn try_state_runs() -> Result<(), TryRuntimeError> {
        ensure!(
            Runs::<T>::iter().count() as u32 == Runs::<T>::count(),
            "1: the counter of runs is off"
        );
        ensure!(Runs::<T>::count() <= T::RunsMax::get(), "1: too many runs");
        for (run_id, run) in Runs::<T>::iter() {
            ensure!(run_id < NextRunId::<T>::get(), "1: a run from the future");
            if run.status == RunStatus::Closed {
                continue;
            }
            let settings =
                RunSettings::<T>::get(run_id, run.settings_version).ok_or("2: no settings")?;
            ensure!(settings.validate().is_ok(), "2: invalid settings");
            ensure!(settings.schedule == run.schedule, "2: a schedule that changed");
            let layout = Layouts::<T>::get(run_id).ok_or("2: a run without layout")?;
            ensure!(
                Layout(layout.into_inner()).chunk_count() == Some(run.chunk_count),
                "2: wrong chunk count"
            );
            if let Some(scheduled) = PendingSettings::<T>::get(run_id) {
                ensure!(scheduled.settings.validate().is_ok(), "3: invalid settings wait");
                let current = Self::current_window(&run);
                ensure!(
                    current.is_none_or(|window| scheduled.window > window),
                    "3: settings are late"
                );
            }
        }
        Ok(())
    }

    /// 4. What is held of an account is the sum of its miners' bonds, with those of miners that are gone, of its
    ///    validators' own stakes with what unbonds of them, and of its runs' deposits; a key cools off as long as a bond
    ///    of a miner that is gone names it.
    fn try_state_holds() -> Result<(), TryRuntimeError> {
        let mut holds: BTreeMap<Vec<u8>, (T::AccountId, Planck, Planck)> = BTreeMap::new();
        for (_, _, miner) in Miners::<T>::iter() {
            let key = codec::Encode::encode(&miner.cold);
            holds.entry(key).or_insert((miner.cold, 0, 0)).1 += miner.bond;
        }
        let mut cooling: BTreeMap<(RunId, Vec<u8>), u32> = BTreeMap::new();
        for (run_id, _, departure) in Departures::<T>::iter() {
            let key = codec::Encode::encode(&departure.cold);
            for key in [codec::Encode::encode(&departure.hot), key.clone()] {
                *cooling.entry((run_id, key)).or_default() += 1;
            }
            holds.entry(key).or_insert((departure.cold, 0, 0)).1 += departure.bond;
        }
        let mut deposits: BTreeMap<Vec<u8>, (T::AccountId, Planck)> = BTreeMap::new();
        for (_, run) in Runs::<T>::iter() {
            let key = codec::Encode::encode(&run.owner);
            deposits.entry(key).or_insert((run.owner, 0)).1 += run.deposit;
        }
        for (owner, deposit) in deposits.into_values() {
            ensure!(
                Self::held(HoldReason::RunDeposit, &owner) == deposit,
                "4: held deposits are off"
            );
        }
        let counted = CoolingKeys::<T>::iter()
            .map(|(run_id, cold, count)| ((run_id, codec::Encode::encode(&cold)), count))
            .collect();
        ensure!(cooling == counted, "4: the count of departures is off");
        for (run_id, id, pool) in Pools::<T>::iter() {
            let key = codec::Encode::encode(&pool.cold);
            let unbonding = Unbondings::<T>::iter_prefix_values((run_id, id));
            let own = pool.own + unbonding.map(|unbonding| unbonding.own).sum::<Planck>();
            holds.entry(key).or_insert((pool.cold, 0, 0)).2 += own;
        }
        for (cold, bond, stake) in holds.into_values() {
            ensure!(Self::held(HoldReason::MinerBond, &cold) == bond, "4: held bonds are off");
            ensure!(
                Self::held(HoldReason::ValidatorStake, &cold) == stake,
                "4: held stakes are off"
            );
        }
        Ok(())
    }

    /// 5. `Miners`, `MinerUids` and `MinerSlots` name the same slots, all below `uid_max`; so do
    ///    those of the validators, all below `VALIDATORS_MAX`.
    /// 6. A validator's stake is what its pool holds, and its pool names it.
    /// 7. A hot key takes part once and its account is kept; only hot keys that take part announce.
    fn try_state_participants(run_id: RunId, run: &RunOf<T>) -> Result<(), TryRuntimeError> {
        let settings = Self::current_settings(run_id, run).map_err(|_| "2: no settings")?;
        let (waiting_miners, waiting_validators) = Self::try_state_keys(run_id)?;
        let slots = MinerSlots::<T>::get(run_id);
        let mut count = 0;
        for (uid, miner) in Miners::<T>::iter_prefix(run_id) {
            ensure!(uid < settings.incentive.uid_max, "5: a uid beyond uid_max");
            ensure!(slots.contains(uid), "5: a miner in a free slot");
            ensure!(
                MinerUids::<T>::get(run_id, &miner.hot) == Some(uid),
                "5: a miner's hot key leads elsewhere"
            );
            ensure!(
                !ValidatorIndices::<T>::contains_key(run_id, &miner.hot),
                "7: a hot key takes part twice"
            );
            ensure!(
                frame_system::Pallet::<T>::sufficients(&miner.hot) > 0,
                "7: a hot key whose account is not kept"
            );
            count += 1;
        }
        ensure!(slots.count() == count, "5: a taken slot without miner");
        ensure!(
            MinerUids::<T>::iter_prefix(run_id).count() as u32 == count + waiting_miners,
            "5: a hot key without miner"
        );

        let slots = ValidatorSlots::<T>::get(run_id);
        let mut count = 0;
        for (index, validator) in Validators::<T>::iter_prefix(run_id) {
            ensure!(u32::from(index) < VALIDATORS_MAX, "5: an index beyond VALIDATORS_MAX");
            ensure!(slots.contains(index), "5: a validator in a free slot");
            let found = ValidatorIndices::<T>::get(run_id, &validator.hot);
            ensure!(found == Some(index), "5: a validator's hot key leads elsewhere");
            let pool =
                Pools::<T>::get(run_id, validator.pool).ok_or("6: a validator without pool")?;
            ensure!(pool.index == Some(index), "6: a pool of another validator");
            ensure!(
                validator.stake == pool.own + pool.delegated.amount,
                "6: a stake differs from its pool"
            );
            ensure!(
                frame_system::Pallet::<T>::sufficients(&validator.hot) > 0,
                "7: a hot key whose account is not kept"
            );
            count += 1;
        }
        ensure!(slots.count() == count, "5: a taken slot without validator");
        ensure!(
            ValidatorIndices::<T>::iter_prefix(run_id).count() as u32 == count + waiting_validators,
            "5: a hot key without validator"
        );

        for (hot, _) in Announcements::<T>::iter_prefix(run_id) {
            let takes_part = MinerUids::<T>::contains_key(run_id, &hot)
                || ValidatorIndices::<T>::contains_key(run_id, &hot);
            ensure!(takes_part, "7: an announcement of somebody who left");
        }
        Ok(())
    }

    /// 20. A hot key that waits and an offer are for a taken seat; the key leads to it, and its change is scheduled.
    /// 21. A miner that asked to leave has its departure scheduled.
    ///
    /// Returns how many hot keys wait for seats of miners and of validators.
    fn try_state_keys(run_id: RunId) -> Result<(u32, u32), TryRuntimeError> {
        let changes: Vec<Change> =
            Changes::<T>::iter_prefix(run_id).flat_map(|(_, list)| list.into_iter()).collect();
        let holds = |seat: Seat| match seat {
            Seat::Miner(uid) => Miners::<T>::contains_key(run_id, uid),
            Seat::Validator(index) => Validators::<T>::contains_key(run_id, index),
        };
        let (mut miners, mut validators) = (0, 0);
        for (seat, next) in NextHotKeys::<T>::iter_prefix(run_id) {
            let leads = match seat {
                Seat::Miner(uid) => {
                    miners += 1;
                    MinerUids::<T>::get(run_id, &next.hot) == Some(uid)
                }
                Seat::Validator(index) => {
                    validators += 1;
                    ValidatorIndices::<T>::get(run_id, &next.hot) == Some(index)
                }
            };
            ensure!(leads && holds(seat), "20: a hot key waits for nothing");
            ensure!(changes.contains(&Change::RotateHotKey(seat)), "20: a key waits for ever");
        }
        ensure!(
            ColdOffers::<T>::iter_key_prefix(run_id).all(holds),
            "20: a seat without holder is offered"
        );
        for (uid, miner) in Miners::<T>::iter_prefix(run_id) {
            ensure!(
                miner.last_window.is_none() || changes.contains(&Change::Leave(uid)),
                "21: a miner leaves never"
            );
        }
        Ok((miners, validators))
    }

    /// 8. There is a record for each window from `next_pruning` to the current one, and no other.
    /// 9. An accepted set is sorted, within `accepted_max`, names miners that revealed, and is empty
    ///    without a state root.
    /// 10. A window is settled or void exactly if it is before `next_settlement`.
    fn try_state_windows(run_id: RunId, run: &RunOf<T>) -> Result<(), TryRuntimeError> {
        let mut count = 0;
        for (window, record) in Windows::<T>::iter_prefix(run_id) {
            ensure!(Self::is_kept(run, window), "8: a record outside of the history");
            ensure!(
                record.accepted.windows(2).all(|pair| pair[0] < pair[1]),
                "9: an accepted set out of order"
            );
            let settings = Self::settings_of(run_id, window)
                .ok_or("22: a window names settings that are gone")?;
            let accepted_max = usize::from(settings.incentive.accepted_max);
            ensure!(record.accepted.len() <= accepted_max, "9: an accepted set too large");
            for uid in &record.accepted {
                ensure!(
                    Reveals::<T>::contains_key((run_id, window, uid)),
                    "9: accepted without reveal"
                );
            }
            ensure!(
                record.state_root.is_some() || record.accepted.is_empty(),
                "9: accepted without state root"
            );
            let is_over = matches!(record.status, WindowStatus::Settled | WindowStatus::Void);
            ensure!(is_over == (window < run.next_settlement), "10: a window's status is off");
            count += 1;
        }
        let last = Self::last_opened(run);
        let expected = last.map_or(0, |window| window + 1 - run.next_pruning);
        ensure!(count == expected, "8: a window without record");
        Ok(())
    }

    /// 11. Commitments belong to kept windows and are numbered without gap or repetition.
    /// 12. A reveal has its commitment, with the same order.
    /// 13. `PayloadOwners` is the inverse of `Reveals`: no payload is revealed twice in a window.
    fn try_state_updates(run_id: RunId, run: &RunOf<T>) -> Result<(), TryRuntimeError> {
        let mut orders: BTreeMap<Window, Vec<u32>> = BTreeMap::new();
        for ((window, _), commitment) in Commitments::<T>::iter_prefix((run_id,)) {
            ensure!(Self::is_kept(run, window), "11: a commitment outside of the history");
            orders.entry(window).or_default().push(commitment.order);
        }
        for (window, mut orders) in orders {
            orders.sort_unstable();
            // Rows of the window being pruned go page by page.
            let is_whole = window > run.next_pruning;
            let expected = 0..CommitCounts::<T>::get(run_id, window);
            ensure!(
                !is_whole || orders.into_iter().eq(expected),
                "11: the order of commitments is off"
            );
        }
        let mut reveals = 0;
        for ((window, uid), reveal) in Reveals::<T>::iter_prefix((run_id,)) {
            if window == run.next_pruning {
                continue;
            }
            let commitment = Commitments::<T>::get((run_id, window, uid))
                .ok_or("12: a reveal without commitment")?;
            ensure!(commitment.order == reveal.order, "12: a reveal with another order");
            let owner = PayloadOwners::<T>::get((run_id, window, reveal.opening.payload_root));
            ensure!(owner == Some(uid), "13: a revealed payload of another owner");
            reveals += 1;
        }
        let owners = PayloadOwners::<T>::iter_prefix((run_id,));
        let owners = owners.filter(|((window, _), _)| *window != run.next_pruning).count();
        ensure!(owners == reveals, "13: an owner without reveal");
        Ok(())
    }

    /// 14. Attestations and scores belong to kept windows, are of validators with a permit, and were committed to.
    /// 24. Permits belong to kept windows, are sorted by index, and within `permits_max`.
    fn try_state_scores(run_id: RunId, run: &RunOf<T>) -> Result<(), TryRuntimeError> {
        let has_permit =
            |window, index| permit_of(&Permits::<T>::get(run_id, window), index).is_some();
        for ((window, index), _) in Attestations::<T>::iter_prefix((run_id,)) {
            ensure!(Self::is_kept(run, window), "14: an attestation outside of the history");
            ensure!(has_permit(window, index), "14: an attestation without permit");
            let is_committed = AttestationCommitments::<T>::contains_key((run_id, window, index));
            let is_pruned = window == run.next_pruning;
            ensure!(is_committed || is_pruned, "14: an attestation without commitment");
        }
        for (window, permits) in Permits::<T>::iter_prefix(run_id) {
            ensure!(Self::is_kept(run, window), "24: permits outside of the history");
            let is_sorted = permits.windows(2).all(|pair| pair[0].0 < pair[1].0);
            ensure!(is_sorted, "24: permits out of order");
            let record = Windows::<T>::get(run_id, window).ok_or("24: permits without window")?;
            let settings = RunSettings::<T>::get(run_id, record.settings_version);
            let settings = settings.ok_or("24: permits without settings")?;
            let permits_max = usize::from(settings.incentive.permits_max);
            ensure!(permits.len() <= permits_max, "24: too many permits");
        }
        for ((window, index), _) in ScoreReveals::<T>::iter_prefix((run_id,)) {
            ensure!(Self::is_kept(run, window), "14: scores outside of the history");
            ensure!(has_permit(window, index), "14: scores without permit");
            let is_committed = ScoreCommitments::<T>::contains_key((run_id, window, index));
            ensure!(is_committed || window == run.next_pruning, "14: scores without commitment");
        }
        Ok(())
    }

    /// 47. A bench belongs to a kept window, and is of those with a permit, or to one of which an evaluation is disputed.
    fn try_state_benches(run_id: RunId, run: &RunOf<T>) -> Result<(), TryRuntimeError> {
        for (window, bench) in Benches::<T>::iter_prefix(run_id) {
            if !Self::is_kept(run, window) {
                let mut disputed = EvaluationDisputes::<T>::iter_key_prefix((run_id, window));
                ensure!(disputed.next().is_some(), "47: a bench outside of the history");
                continue;
            }
            let permits = Permits::<T>::get(run_id, window);
            let seats = bench.iter().map(|judge| (judge.index, judge.stake));
            ensure!(seats.eq(permits), "47: a bench without permits");
        }
        Ok(())
    }

    /// 15. A settlement being written is of `next_settlement`; exactly its pages not yet paid exist.
    /// 16. What it will still pay to a group is carried for that group until then.
    fn try_state_settlement(run_id: RunId, run: &RunOf<T>) -> Result<(), TryRuntimeError> {
        let pages: Vec<_> = SettlementPages::<T>::iter_prefix(run_id).collect();
        let Some(settlement) = Settlements::<T>::get(run_id) else {
            ensure!(pages.is_empty(), "15: pages without settlement");
            return Ok(());
        };
        ensure!(settlement.window == run.next_settlement, "15: a settlement of another window");
        let expected = match settlement.stage {
            Stage::Miners { page, page_count } => page..page_count,
            Stage::Validators => 0..0,
        };
        ensure!(pages.len() == expected.len(), "15: wrong number of pages");
        ensure!(pages.iter().all(|(page, _)| expected.contains(page)), "15: a page that is paid");
        let miners: Planck = pages.iter().flat_map(|(_, page)| page).map(|pay| pay.amount).sum();
        let validators: Planck = settlement.validators.iter().map(|pay| pay.amount).sum();
        let carried = Ledgers::<T>::get(run_id).carried();
        ensure!(miners <= carried.miners, "16: more to pay to miners than carried");
        ensure!(validators <= carried.validators, "16: more to pay to validators than carried");
        Ok(())
    }

    /// 43. Pay is noted of kept windows that are settled, of slots that there are, each once and above 0.
    /// 44. What a window paid to validators is the sum of theirs; all windows paid at most what left the carries.
    fn try_state_pay(run_id: RunId, run: &RunOf<T>) -> Result<(), TryRuntimeError> {
        let settlement = Settlements::<T>::get(run_id);
        let begun = settlement.map_or(Some(0), |settlement| settlement.paid.checked_sum());
        let mut noted = begun.ok_or("44: a sum of pay does not fit")?;
        for (window, PaidWindow { paid, validators }) in PaidWindows::<T>::iter_prefix(run_id) {
            ensure!(Self::is_kept(run, window), "43: pay outside of the history");
            let status = Windows::<T>::get(run_id, window).map(|record| record.status);
            ensure!(status == Some(WindowStatus::Settled), "43: pay without settlement");
            ensure!(is_pay_of_slots(&validators, VALIDATORS_MAX), "43: validators' pay is off");
            let sum: Planck = validators.iter().map(|(_, amount)| amount).sum();
            ensure!(sum == paid.validators, "44: validators were paid another sum");
            noted += paid.checked_sum().ok_or("44: a sum of pay does not fit")?;
        }
        let ledger = Ledgers::<T>::get(run_id);
        let credited = ledger.claimable + ledger.paid + ledger.slashed + ledger.burned;
        ensure!(noted <= credited, "44: more pay is noted than was credited");
        Ok(())
    }

    /// 45. Miners' pay is noted as that of validators, also of the window that is being settled and of the one whose
    ///     rows are being removed.
    /// 46. The sum of theirs is what the window paid to miners so far, or less: of a window that was being settled when
    ///     the chain began to note pay, some is missing.
    fn try_state_miner_pay(run_id: RunId, run: &RunOf<T>) -> Result<(), TryRuntimeError> {
        let mut windows: BTreeMap<Window, Vec<(Uid, Planck)>> = BTreeMap::new();
        for ((window, _), page) in PaidMiners::<T>::iter_prefix((run_id,)) {
            windows.entry(window).or_default().extend(page);
        }
        let settlement = Settlements::<T>::get(run_id);
        for (window, mut pays) in windows {
            ensure!(Self::is_kept(run, window), "45: miners' pay outside of the history");
            pays.sort_unstable();
            let settings = Self::settings_of(run_id, window)
                .ok_or("22: a window names settings that are gone")?;
            let slots = u32::from(settings.incentive.uid_max);
            ensure!(is_pay_of_slots(&pays, slots), "45: miners' pay is off");
            let settled = PaidWindows::<T>::get(run_id, window).map(|record| record.paid);
            let settling = settlement.as_ref().filter(|settlement| settlement.window == window);
            let Some(paid) = settled.or(settling.map(|settlement| settlement.paid)) else {
                ensure!(window == run.next_pruning, "45: miners' pay without settlement");
                continue;
            };
            let sum: Planck = pays.iter().map(|(_, amount)| amount).sum();
            ensure!(sum <= paid.miners, "46: miners were paid less");
        }
        Ok(())
    }

    /// 17. minted + funded = paid + claimable + carried + unspent + slashed + burned.
    /// 18. What is claimable is the sum of all claims, none of which is empty, each in order of windows.
    /// 19. The run's account holds the foundation, what is claimable, carried and unspent, at least (anybody may send it
    ///     more).
    /// 40. What is unspent is the sum of the sponsors' unspent money; each is there once.
    fn try_state_emission(run_id: RunId, run: &RunOf<T>) -> Result<(), TryRuntimeError> {
        let ledger = Ledgers::<T>::get(run_id);
        ensure!(ledger.is_conserved(), "17: money is not conserved");
        let mut claimable = 0;
        for (_, claims) in Claims::<T>::iter_prefix(run_id) {
            ensure!(!claims.is_empty(), "18: an empty list of claims");
            ensure!(
                claims.windows(2).all(|pair| pair[0].due < pair[1].due),
                "18: claims out of order"
            );
            ensure!(claims.iter().all(|claim| claim.amount > 0), "18: a claim of nothing");
            claimable += claims.iter().map(|claim| claim.amount).sum::<Planck>();
        }
        ensure!(claimable == ledger.claimable, "18: claims and ledger differ");
        let held = T::Currency::balance(&Self::run_account(run_id));
        let owed = ledger.held().ok_or("19: the ledger's sums do not fit")?;
        ensure!(held >= run.foundation + owed, "19: the run's account lacks money");
        let sponsors = Sponsors::<T>::get(run_id);
        let unspent: Planck = sponsors.iter().map(|sponsor| sponsor.unspent).sum();
        ensure!(unspent == ledger.unspent, "40: sponsors and ledger differ");
        let is_once = |(place, own): (usize, &Sponsorship<T::AccountId>)| {
            sponsors.iter().skip(place + 1).all(|other| other.sponsor != own.sponsor)
        };
        ensure!(sponsors.iter().enumerate().all(is_once), "40: a sponsor twice");
        Ok(())
    }

    /// 41. The accrual's sum of weights is that of the weights in force, of runs that exist, and counts no block to come.
    /// 42. Runs have had at most what the schedule gave until now, and what the runs that exist have had is a part of it.
    fn try_state_budgets() -> Result<(), TryRuntimeError> {
        let accrual = ChainAccrual::<T>::get();
        let mut total: u32 = 0;
        for (run_id, weight) in RunWeights::<T>::iter() {
            ensure!(Runs::<T>::contains_key(run_id), "41: a weight without run");
            ensure!(weight.mark <= accrual.per_weight, "41: a weight from the future");
            total += u32::from(weight.current);
        }
        ensure!(total == accrual.total_weight, "41: the sum of weights is off");
        ensure!(accrual.block <= Self::now(), "41: blocks to come are counted");
        let emitted = Emitted::<T>::get();
        ensure!(emitted <= T::Emission::through(Self::now()), "42: more than the schedule gives");
        let minted: Planck = Ledgers::<T>::iter_values().map(|ledger| ledger.minted).sum();
        ensure!(minted <= emitted, "42: more minted than was emitted");
        Ok(())
    }

    /// 22. Every kept window names settings that are kept; there are no others.
    fn try_state_settings(run_id: RunId, run: &RunOf<T>) -> Result<(), TryRuntimeError> {
        let oldest = Windows::<T>::get(run_id, run.next_pruning);
        let oldest = oldest.map_or(run.settings_version, |record| record.settings_version);
        let mut versions: Vec<_> = RunSettings::<T>::iter_key_prefix(run_id).collect();
        versions.sort_unstable();
        ensure!(
            versions.into_iter().eq(oldest..=run.settings_version),
            "22: settings without window, or a window without settings"
        );
        Ok(())
    }

    /// 23. Every run that does not end has one next boundary; who waits for work is a run, once.
    fn try_state_schedule() -> Result<(), TryRuntimeError> {
        let mut scheduled: Vec<_> = RunSchedule::<T>::get().iter().map(|due| due.run).collect();
        scheduled.sort_unstable();
        ensure!(scheduled.windows(2).all(|pair| pair[0] < pair[1]), "23: a run is scheduled twice");
        ensure!(scheduled.iter().all(Runs::<T>::contains_key), "23: a boundary of no run");
        for (run_id, run) in Runs::<T>::iter() {
            let ends = run.status == RunStatus::Closed || run.last_window.is_some();
            ensure!(ends || scheduled.contains(&run_id), "23: a run without a boundary");
        }
        let mut queue = WorkQueue::<T>::get().into_inner();
        queue.sort_unstable();
        ensure!(queue.windows(2).all(|pair| pair[0] < pair[1]), "23: a run waits twice");
        ensure!(queue.iter().all(Runs::<T>::contains_key), "23: work of no run");
        Ok(())
    }

    /// The last window that should have been opened.
    fn last_opened(run: &RunOf<T>) -> Option<Window> {
        let current = Self::current_window(run)?;
        Some(run.last_window.map_or(current, |last| last.min(current)))
    }

    /// 30. What a pool's account holds is what is delegated to the pool, and what of that unbonds.
    /// 31. The shares of a pool, and of each part that left it, are those of its nominators.
    /// 32. Each part of a validator's own stake that unbonds is named by its pool.
    /// 33. Only slashes in the queue wait, in the order in which they are due.
    /// 48. The pool of a validator that has left has something in it, or is owed it, while its run goes on.
    fn try_state_pools() -> Result<(), TryRuntimeError> {
        for (run_id, id, pool) in Pools::<T>::iter() {
            let mut amount = pool.delegated.amount;
            let mut shares: BTreeMap<Window, u128> = BTreeMap::new();
            let mut active = 0;
            for (_, delegation) in Delegations::<T>::iter_prefix((run_id, id)) {
                ensure!(delegation != Default::default(), "31: an empty delegation");
                active += delegation.shares;
                for (began, left) in delegation.unbonding {
                    *shares.entry(began).or_default() += left;
                }
            }
            ensure!(active == pool.delegated.shares, "31: shares of nobody");
            for (began, unbonding) in Unbondings::<T>::iter_prefix((run_id, id)) {
                amount += unbonding.delegated.amount;
                let left = shares.remove(&began).unwrap_or(0);
                ensure!(left == unbonding.delegated.shares, "31: unbonding shares of nobody");
                ensure!(
                    unbonding.own == 0 || pool.unbonding.contains(&began),
                    "32: stake unbonds that its pool does not name"
                );
            }
            ensure!(shares.is_empty(), "31: a delegation to nothing");
            let held = Self::held(HoldReason::Delegation, &Self::pool_account(run_id, id));
            ensure!(held == amount, "30: held delegations are off");
            let goes_on = Runs::<T>::get(run_id).is_some_and(|run| run.status != RunStatus::Closed);
            ensure!(!goes_on || !Self::is_pool_over(run_id, id, &pool), "48: a pool of nothing");
        }
        for (run_id, queue) in SlashQueues::<T>::iter() {
            let mut waiting: Vec<_> = UnappliedSlashes::<T>::iter_prefix(run_id).collect();
            waiting.sort_unstable_by_key(|(number, _)| *number);
            ensure!(
                waiting.iter().all(|(number, _)| (queue.next..queue.end).contains(number)),
                "33: a slash outside of the queue"
            );
            ensure!(
                waiting.windows(2).all(|pair| pair[0].1.due <= pair[1].1.due),
                "33: slashes out of order"
            );
        }
        Ok(())
    }

    /// 25. Bonds are a validator's, of a settled window, by uid and above 0.
    fn try_state_bonds(run_id: RunId, run: &RunOf<T>) -> Result<(), TryRuntimeError> {
        for (index, row) in Bonds::<T>::iter_prefix(run_id) {
            ensure!(Validators::<T>::contains_key(run_id, index), "25: bonds of nobody");
            ensure!(row.window <= run.next_settlement, "25: bonds of a later window");
            let entries = &row.entries;
            ensure!(entries.windows(2).all(|pair| pair[0].0 < pair[1].0), "25: bonds out of order");
            ensure!(entries.iter().all(|(_, bond)| *bond > 0), "25: a bond of nothing");
            ensure!(!entries.is_empty(), "25: an empty row of bonds");
        }
        Ok(())
    }

    fn current_window(run: &RunOf<T>) -> Option<Window> {
        phase_at(&run.schedule, Self::now()).map(|moment| moment.window)
    }

    fn is_kept(run: &RunOf<T>, window: Window) -> bool {
        window >= run.next_pruning && Self::last_opened(run).is_some_and(|last| window <= last)
    }
}

/// Whether each slot is below `slots`, is there once, in order, and was paid something.
fn is_pay_of_slots(pays: &[(u16, Planck)], slots: u32) -> bool {
    pays.windows(2).all(|pair| pair[0].0 < pair[1].0)
        && pays.iter().all(|(slot, amount)| u32::from(*slot) < slots && *amount > 0)
}

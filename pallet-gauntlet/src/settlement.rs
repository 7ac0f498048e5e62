//! Settles windows, paged over blocks: gather → one call of [`protocol::consensus::settle`] → pages
//! of standings and pay → close. No formula is here.
//!
//! `work.rs` says whose step is next; each step is taken whole or not at all, and each run settles
//! its windows in order. Nothing here can fail: a settlement that `protocol` refuses makes the
//! window void.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::{
    window::voter, work::Step, BondRow, Bonds, CommitCounts, Commitments, Config, Event, Ledgers,
    MinerOf, MinerPay, MinerPayPage, MinerSlots, Miners, PaidMiners, PaidWindow, PaidWindows,
    Pallet, ProvenFaults, Reveals, RunStatus, Runs, ScoreCommitments, ScoreReveals, Settlement,
    SettlementPages, Settlements, Stage, ValidatorOf, ValidatorPay, ValidatorPayList,
    ValidatorSlots, Validators, VoidReason, WeightInfo, WindowRecord, WindowStatus, Windows,
    PAGE_LEN,
};
use frame_support::{defensive, traits::Get, weights::WeightMeter, BoundedVec};
use protocol::{
    accept::bitmap_of,
    books::{
        self, due, scoring_seed, settlement_input, takes_part, Facts, MinerRow, ValidatorRow, Voter,
    },
    consensus::{pay, settle, Outcome, ValidatorOutcome},
    emission::{claim_due_window, Pot, Pots},
    settings::{ConsensusKind, Settings, StandingKind},
    strikes, Planck, RunId, Uid, ValidatorIndex, Window,
};

/// Everything that one settlement pays and writes, computed and not yet stored.
struct Payout<AccountId> {
    owner: Planck,
    miners: Vec<MinerPay<AccountId>>,
    validators: Vec<ValidatorPay<AccountId>>,
    /// Each validator's bonds after the window, if it has any.
    bonds: Vec<(ValidatorIndex, Option<BondRow>)>,
}

impl<T: Config> Pallet<T> {
    /// Takes the next step of a run's settlement.
    pub(crate) fn settle_step(run_id: RunId, meter: &mut WeightMeter) -> Step {
        if meter.try_consume(T::WeightInfo::look_at_run()).is_err() {
            return Step::NoRoom;
        }
        let Some(settlement) = Settlements::<T>::get(run_id) else {
            return Self::begin(run_id, meter);
        };
        match settlement.stage {
            Stage::Miners { page, page_count } => {
                if meter.try_consume(T::WeightInfo::settle_page(PAGE_LEN)).is_err() {
                    return Step::NoRoom;
                }
                Self::pay_page(run_id, settlement, page, page_count);
            }
            Stage::Validators => {
                let count = settlement.validators.len() as u32;
                if meter.try_consume(T::WeightInfo::settle_close(count)).is_err() {
                    return Step::NoRoom;
                }
                Self::close(run_id, settlement);
            }
        }
        Step::Taken
    }

    /// Computes the settlement of the next window, if that is due.
    fn begin(run_id: RunId, meter: &mut WeightMeter) -> Step {
        let Some(run) = Runs::<T>::get(run_id) else {
            return Step::Nothing;
        };
        let Some(window) = due(&run.schedule, Self::now(), run.next_settlement) else {
            return Step::Nothing;
        };
        if !Self::is_opened(&run, window) {
            return Step::Nothing;
        }
        let miners = MinerSlots::<T>::get(run_id).count();
        let validators = ValidatorSlots::<T>::get(run_id).count();
        let mut cost = T::WeightInfo::settle_begin(miners, validators);
        let settings = Self::settings_of(run_id, window);
        let is_match = settings
            .as_ref()
            .is_some_and(|settings| settings.incentive.standing == StandingKind::PlackettLuce);
        if is_match {
            // Only who committed can be scored.
            let players = CommitCounts::<T>::get(run_id, window).min(miners);
            cost = cost.saturating_add(T::WeightInfo::settle_match(players));
        }
        let is_yuma = settings
            .as_ref()
            .is_some_and(|settings| matches!(settings.incentive.consensus, ConsensusKind::Yuma(_)));
        if is_yuma {
            cost = cost.saturating_add(T::WeightInfo::settle_yuma(miners, validators));
        }
        if meter.try_consume(cost).is_err() {
            return Step::NoRoom;
        }
        Self::compute(run_id, &run.owner, window);
        Step::Taken
    }

    /// Brings the window its money, computes everything, and stores it in pages.
    pub(crate) fn compute(run_id: RunId, owner: &T::AccountId, window: Window) {
        let found = Windows::<T>::get(run_id, window).zip(Self::settings_of(run_id, window));
        let Some((record, settings)) = found else {
            return Self::void(run_id, window, VoidReason::TooLate);
        };
        let funds = Self::fund_window(run_id, window, &settings);
        let payout = funds
            .payable(&settings, record.state_root.is_some())
            .map_err(VoidReason::from)
            .and_then(|pots| Self::payout(run_id, window, &record, &settings, &pots));
        let payout = match payout {
            Ok(payout) => payout,
            Err(reason) => return Self::void(run_id, window, reason),
        };
        Self::change_record(run_id, window, |record| {
            record.status = WindowStatus::Settling;
        });

        for (index, bonds) in payout.bonds {
            Bonds::<T>::set(run_id, index, bonds);
        }
        let due = claim_due_window(window, settings.incentive.claim_delay_windows);
        let owner_paid = Self::credit(run_id, Pot::Owner, due, owner, payout.owner);
        let mut page_count = 0u32;
        for page in payout.miners.chunks(PAGE_LEN as usize) {
            SettlementPages::<T>::insert(
                run_id,
                page_count,
                BoundedVec::truncate_from(page.to_vec()),
            );
            page_count = page_count.saturating_add(1);
        }
        let stage =
            if page_count > 0 { Stage::Miners { page: 0, page_count } } else { Stage::Validators };
        let settlement = Settlement {
            window,
            stage,
            due,
            paid: Pots { owner: owner_paid, ..Pots::default() },
            validators: BoundedVec::truncate_from(payout.validators),
        };
        Settlements::<T>::insert(run_id, settlement);
    }

    /// Divides what the window may pay among owner, miners and validators.
    fn payout(
        run_id: RunId,
        window: Window,
        record: &WindowRecord,
        settings: &Settings,
        pots: &Pots,
    ) -> Result<Payout<T::AccountId>, VoidReason> {
        let miners: BTreeMap<Uid, MinerOf<T>> = Miners::<T>::iter_prefix(run_id).collect();
        let validators: BTreeMap<u16, ValidatorOf<T>> =
            Validators::<T>::iter_prefix(run_id).collect();
        let next = window.checked_add(1).and_then(|next| Windows::<T>::get(run_id, next));
        let rows = Self::attestation_rows(run_id, window);
        let voters: Vec<Voter<'_>> = rows.iter().map(voter).collect();
        let revealed: Vec<Uid> = Reveals::<T>::iter_key_prefix((run_id, window)).collect();
        let convicted: Vec<Uid> = ProvenFaults::<T>::iter_key_prefix((run_id, window)).collect();
        let facts = Facts {
            state_root: record.state_root,
            voters: &voters,
            revealed: &revealed,
            unavailable: &record.unavailable,
            convicted: &bitmap_of(&convicted),
            excused: record.excused,
            scoring_seed: scoring_seed(next.map(|next| next.scoring_seed), record.challenge_seed),
        };
        let incentive = &settings.incentive;
        let input = settlement_input(
            window,
            Self::miner_rows(run_id, window, &miners),
            Self::validator_rows(run_id, window, &validators),
            facts,
            incentive,
        );
        let mut outcome = settle(&input, incentive)?;
        let struck = Self::struck(run_id, window, &validators);
        strikes::refuse_pay(&mut outcome.validators, &struck);
        let miner_shares: Vec<_> = outcome.miners.iter().map(|miner| miner.share).collect();
        let (miner_amounts, _) = pay(pots.miners, &miner_shares)?;
        let validator_shares: Vec<_> =
            outcome.validators.iter().map(|validator| validator.share).collect();
        let (validator_amounts, _) = pay(pots.validators, &validator_shares)?;
        let bonds = Self::changed_bonds(run_id, window, &outcome.validators);
        let Outcome { miners: miner_outcomes, validators: validator_outcomes } = outcome;

        let miners = miner_outcomes
            .into_iter()
            .zip(miner_amounts)
            .filter_map(|(outcome, amount)| {
                let Some(miner) = miners.get(&outcome.uid) else {
                    defensive!("a settlement pays a miner that was not among its inputs");
                    return None;
                };
                Some(MinerPay {
                    uid: outcome.uid,
                    cold: miner.cold.clone(),
                    own: outcome.own,
                    random: outcome.random,
                    standing: outcome.standing,
                    value: outcome.value,
                    share: outcome.share,
                    amount,
                })
            })
            .collect();
        let validators = validator_outcomes
            .into_iter()
            .zip(validator_amounts)
            .filter_map(|(outcome, amount)| {
                let Some(validator) = validators.get(&outcome.index) else {
                    defensive!("a settlement pays a validator that was not among its inputs");
                    return None;
                };
                Some(ValidatorPay {
                    index: outcome.index,
                    cold: validator.cold.clone(),
                    agreement: outcome.agreement,
                    share: outcome.share,
                    amount,
                })
            })
            .collect();
        Ok(Payout { owner: pots.owner, miners, validators, bonds })
    }

    /// The rows of bonds that a settlement changes: new ones, and those that it leaves nothing of.
    fn changed_bonds(
        run_id: RunId,
        window: Window,
        outcomes: &[ValidatorOutcome],
    ) -> Vec<(ValidatorIndex, Option<BondRow>)> {
        let row = |outcome: &ValidatorOutcome| {
            if outcome.bonds.is_empty() {
                return Bonds::<T>::contains_key(run_id, outcome.index)
                    .then_some((outcome.index, None));
            }
            let entries = BoundedVec::truncate_from(outcome.bonds.clone());
            Some((outcome.index, Some(BondRow { window, entries })))
        };
        outcomes.iter().filter_map(row).collect()
    }

    /// Reads the miners' rows of the window.
    fn miner_rows(
        run_id: RunId,
        window: Window,
        miners: &BTreeMap<Uid, MinerOf<T>>,
    ) -> Vec<MinerRow> {
        let row = |(uid, miner): (&Uid, &MinerOf<T>)| {
            let key = (run_id, window, *uid);
            MinerRow {
                uid: *uid,
                registered_window: miner.registered_window,
                standing: miner.standing.clone(),
                committed: Commitments::<T>::contains_key(key),
                revealed: Reveals::<T>::contains_key(key),
            }
        };
        miners.iter().map(row).collect()
    }

    /// Reads the validators' rows of the window.
    fn validator_rows(
        run_id: RunId,
        window: Window,
        validators: &BTreeMap<u16, ValidatorOf<T>>,
    ) -> Vec<ValidatorRow> {
        let row = |(index, validator): (&u16, &ValidatorOf<T>)| ValidatorRow {
            index: *index,
            registered_window: validator.registered_window,
            evaluations: ScoreReveals::<T>::get((run_id, window, *index))
                .map(|reveal| reveal.evaluations.into_inner()),
            bonds: Bonds::<T>::get(run_id, index).map(|bonds| books::Bonds {
                window: bonds.window,
                entries: bonds.entries.into_inner(),
            }),
        };
        validators.iter().map(row).collect()
    }

    /// The validators, by index, that committed to scores in one of the last windows and withheld them.
    pub(crate) fn struck(
        run_id: RunId,
        window: Window,
        validators: &BTreeMap<u16, ValidatorOf<T>>,
    ) -> Vec<ValidatorIndex> {
        let excused: Vec<Window> = strikes::judged_windows(window, 0)
            .filter(|judged| Self::is_excused(run_id, *judged))
            .collect();
        let is_struck = |index: u16, validator: &ValidatorOf<T>| {
            strikes::is_struck(window, validator.registered_window, |judged| {
                let key = (run_id, judged, index);
                let revealed = ScoreReveals::<T>::contains_key(key);
                let committed = ScoreCommitments::<T>::contains_key(key);
                strikes::is_withheld(committed, revealed, excused.contains(&judged))
            })
        };
        let struck = validators.iter().filter(|(index, validator)| is_struck(**index, validator));
        struck.map(|(index, _)| *index).collect()
    }

    /// What the settlement of `window` credited to a slot's holder, or is about to, in planck; 0 before it begins.
    ///
    /// Costs a walk over the pages of the window's pay, [`UIDS_MAX`](crate::UIDS_MAX) / [`PAGE_LEN`] at most.
    pub(crate) fn pay_of(run_id: RunId, window: Window, uid: Uid) -> Planck {
        let noted = Self::paid_miners(run_id, window).find(|(paid, _)| *paid == uid);
        let waiting = || {
            Settlements::<T>::get(run_id).filter(|settlement| settlement.window == window)?;
            let pages = SettlementPages::<T>::iter_prefix_values(run_id);
            pages.flatten().find(|pay| pay.uid == uid).map(|pay| pay.amount)
        };
        noted.map(|(_, paid)| paid).or_else(waiting).unwrap_or(0)
    }

    /// Writes the standings and the pay of one page of miners, and notes the pay.
    pub(crate) fn pay_page(
        run_id: RunId,
        mut settlement: Settlement<T::AccountId>,
        page: u32,
        page_count: u32,
    ) {
        let window = settlement.window;
        let mut noted: Vec<(Uid, Planck)> = Vec::new();
        for pay in SettlementPages::<T>::take(run_id, page).into_iter().flatten() {
            let paid = Self::credit(run_id, Pot::Miners, settlement.due, &pay.cold, pay.amount);
            settlement.paid.miners = settlement.paid.miners.saturating_add(paid);
            if paid > 0 {
                noted.push((pay.uid, paid));
            }
            Miners::<T>::mutate(run_id, pay.uid, |miner| {
                // A miner that took over the slot since takes part from a later window on.
                if let Some(miner) =
                    miner.as_mut().filter(|miner| takes_part(miner.registered_window, window))
                {
                    miner.standing = pay.standing;
                    miner.value = pay.value;
                    miner.share = pay.share;
                }
            });
            Self::deposit_event(Event::MinerScored {
                run: run_id,
                window,
                uid: pay.uid,
                own: pay.own,
                random: pay.random,
                standing_value: pay.value,
                share: pay.share,
                paid,
            });
        }
        if !noted.is_empty() {
            PaidMiners::<T>::insert((run_id, window, page), MinerPayPage::truncate_from(noted));
        }
        let next = page.saturating_add(1);
        settlement.stage = if next < page_count {
            Stage::Miners { page: next, page_count }
        } else {
            Stage::Validators
        };
        Settlements::<T>::insert(run_id, settlement);
    }

    /// Writes the validators' pay, notes what the window paid and ends the settlement.
    pub(crate) fn close(run_id: RunId, settlement: Settlement<T::AccountId>) {
        let window = settlement.window;
        let mut total = settlement.paid;
        let mut noted: Vec<(ValidatorIndex, Planck)> = Vec::new();
        for pay in settlement.validators {
            let paid = Self::pay_validator(
                run_id,
                (window, settlement.due),
                pay.index,
                &pay.cold,
                pay.amount,
            );
            total.validators = total.validators.saturating_add(paid);
            if paid > 0 {
                noted.push((pay.index, paid));
            }
            Validators::<T>::mutate(run_id, pay.index, |validator| {
                if let Some(validator) =
                    validator.as_mut().filter(|found| takes_part(found.registered_window, window))
                {
                    validator.agreement = pay.agreement;
                    validator.share = pay.share;
                }
            });
            Self::deposit_event(Event::ValidatorPaid {
                run: run_id,
                window,
                index: pay.index,
                agreement: pay.agreement,
                paid,
            });
        }
        let validators = ValidatorPayList::truncate_from(noted);
        PaidWindows::<T>::insert(run_id, window, PaidWindow { paid: total, validators });
        Settlements::<T>::remove(run_id);
        Self::finish(run_id, window, WindowStatus::Settled);
        let (minted, funded) = Self::given(run_id, window);
        Self::deposit_event(Event::WindowSettled {
            run: run_id,
            window,
            minted,
            funded,
            paid: total,
            carried: Ledgers::<T>::get(run_id).carried(),
        });
    }

    /// Ends a settlement that pays nobody.
    fn void(run_id: RunId, window: Window, reason: VoidReason) {
        Self::finish(run_id, window, WindowStatus::Void);
        let (minted, funded) = Self::given(run_id, window);
        Self::deposit_event(Event::WindowVoid {
            run: run_id,
            window,
            error: reason,
            minted,
            funded,
        });
    }

    /// What schedule and sponsors gave a window.
    fn given(run_id: RunId, window: Window) -> (Planck, Planck) {
        Windows::<T>::get(run_id, window).map_or((0, 0), |record| (record.minted, record.funded))
    }

    /// Notes how a window ended, and makes the next one the next to settle.
    fn finish(run_id: RunId, window: Window, status: WindowStatus) {
        Self::change_record(run_id, window, |record| record.status = status);
        Runs::<T>::mutate(run_id, |run| {
            if let Some(run) = run {
                run.next_settlement = window.saturating_add(1);
                if run.last_window == Some(window) {
                    run.status = RunStatus::Closed;
                    Self::deposit_event(Event::RunClosed { run: run_id });
                }
            }
        });
    }

    /// Checks that the constants fit together; called by `integrity_test`, which may panic.
    pub(crate) fn check_constants() {
        assert!(T::RunsMax::get() > 0, "RunsMax must allow a run");
        assert!(T::ClockPerBlock::get() >= 1, "ClockPerBlock must let a block pass in time");
        assert!(
            T::IdleWindows::get() >= 1,
            "IdleWindows must leave a window to accept something in"
        );
        assert!(
            T::HistoryWindows::get() >= 3,
            "a window is settled in the one after it and claimed later"
        );
        assert!(T::AdminDelayWindows::get() >= 1, "settings of an open window cannot change");
        let provable = T::HistoryWindows::get().saturating_add(T::SlashDelayWindows::get());
        assert!(provable < T::DisputeWindows::get(), "a slash must find what it is due from");
        assert!(
            T::ReapDelayWindows::get() >= T::DisputeWindows::get(),
            "a run is not removed while its last windows can be disputed"
        );
        Self::check_steps();
        Self::check_boundaries();
    }
}

//! Gives runs their part of the chain's emission and of their sponsors' money, keeps the ledger that says where every unit
//! of it is, and pays claims. The arithmetic is [`protocol::emission`]'s.

use alloc::vec::Vec;

use frame_support::{
    defensive, ensure,
    traits::{
        fungible::{Inspect, Mutate},
        tokens::Preservation,
    },
    BoundedVec,
};
use protocol::{
    consensus::ConsensusError,
    emission::{
        add_claim, fund, payable, refunds, release, split_emission, take_due, FundError, Funded,
        Ledger, LedgerError, Pot, Pots, Refunds, Sponsorship,
    },
    settings::Settings,
    window::phase_at,
    Planck, RunId, Window,
};
use sp_runtime::{DispatchError, DispatchResult};

use crate::{
    emission_schedule::EmissionSchedule, ChainAccrual, ClaimBatch, ClaimList, Claims, Config,
    Emitted, Error, Event, Ledgers, Pallet, RunWeights, Runs, Sponsors, Windows,
};

impl<T: Config> From<FundError> for Error<T> {
    fn from(error: FundError) -> Self {
        match error {
            FundError::Nothing => Error::FundingTooSmall,
            FundError::NoPlace => Error::TooManySponsors,
            FundError::Overflow => Error::Internal,
        }
    }
}

impl<T: Config> From<LedgerError> for Error<T> {
    fn from(_: LedgerError) -> Self {
        Error::Internal
    }
}

/// What a window got, in planck.
#[derive(Clone, Copy, Default)]
pub(crate) struct WindowFunds {
    /// Of the chain's schedule.
    pub(crate) minted: Planck,
    /// Of the run's sponsors.
    pub(crate) funded: Planck,
    /// The carries before.
    carried: Pots,
}

impl WindowFunds {
    /// What the window may pay; nothing without a final state root.
    pub(crate) fn payable(
        &self,
        settings: &Settings,
        has_final_root: bool,
    ) -> Result<Pots, ConsensusError> {
        let split = split_emission(&settings.emission, self.minted.saturating_add(self.funded))?;
        payable(&settings.emission, &split, &self.carried, has_final_root)
    }
}

impl<T: Config> Pallet<T> {
    pub(crate) fn do_set_run_weight(run_id: RunId, weight: u16) -> DispatchResult {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        Self::ensure_not_closed(&run)?;
        RunWeights::<T>::mutate(run_id, |own| own.next = weight);
        Self::deposit_event(Event::RunWeightSet { run: run_id, weight });
        Ok(())
    }

    /// Ends the budget of a window, with the weight that waited in force from now on if the run `earns`. Returns the
    /// budget, in planck.
    fn turn_budget(run_id: RunId, earns: bool) -> Planck {
        if !RunWeights::<T>::contains_key(run_id) {
            return 0;
        }
        Self::with_accrual(|accrual| {
            RunWeights::<T>::mutate(run_id, |own| {
                let budget = own.open_window(accrual);
                if !earns {
                    own.suspend(accrual);
                }
                budget
            })
        })
    }

    /// Notes the budget of the window before `next` in its record. From then on the run earns only if `next` earns: it is
    /// opened, and not paused.
    pub(crate) fn end_budget(run_id: RunId, next: Window, earns: bool) {
        let budget = Self::turn_budget(run_id, earns);
        if let Some(window) = next.checked_sub(1) {
            Self::change_record(run_id, window, |record| record.budget = budget);
        }
    }

    /// Changes the sum of weights with all blocks before this one counted.
    fn with_accrual<R>(change: impl FnOnce(&mut protocol::emission::Accrual) -> R) -> R {
        ChainAccrual::<T>::mutate(|accrual| {
            accrual.advance(Self::now(), T::Emission::through);
            change(accrual)
        })
    }

    /// Brings a window its money: its budget of the schedule, and what the sponsors release. It is carried until it is
    /// credited. Void windows get it too, so that why a window is void changes nothing.
    pub(crate) fn fund_window(run_id: RunId, window: Window, settings: &Settings) -> WindowFunds {
        let mut funds = WindowFunds::default();
        let budget = Windows::<T>::get(run_id, window).map_or(0, |record| record.budget);
        let mut ledger = Ledgers::<T>::get(run_id);
        funds.carried = ledger.carried();
        funds.minted = Self::draw(run_id, budget);
        funds.funded =
            Sponsors::<T>::mutate_extant(run_id, |sponsors| release(sponsors.iter_mut()));
        let received =
            split_emission(&settings.emission, funds.minted.saturating_add(funds.funded))
                .is_ok_and(|split| ledger.receive(funds.minted, funds.funded, &split).is_ok());
        if !received {
            defensive!("a window's money does not fit the ledger");
            return WindowFunds::default();
        }
        Ledgers::<T>::insert(run_id, ledger);
        Self::change_record(run_id, window, |record| {
            record.minted = funds.minted;
            record.funded = funds.funded;
        });
        funds
    }

    /// Draws up to `amount` from the schedule into a run's account. Returns what arrived.
    fn draw(run_id: RunId, amount: Planck) -> Planck {
        let emitted = Emitted::<T>::get();
        let left = T::Emission::through(Self::now()).saturating_sub(emitted);
        let amount = amount.min(left);
        if amount == 0 {
            return 0;
        }
        let drawn = T::Emission::draw(&Self::run_account(run_id), amount);
        Emitted::<T>::put(emitted.saturating_add(drawn));
        drawn
    }

    /// Moves `amount` from what a group carries to what `account` may claim from window `due` on. Returns what was moved:
    /// nothing in the impossible case that less is carried.
    pub(crate) fn credit(
        run_id: RunId,
        pot: Pot,
        due: Window,
        account: &T::AccountId,
        amount: Planck,
    ) -> Planck {
        if amount == 0 {
            return 0;
        }
        let credited = Ledgers::<T>::mutate(run_id, |ledger| ledger.credit(pot, amount));
        if credited.is_err() {
            defensive!("the shares of a pot exceed the pot");
            return 0;
        }
        Self::owe(run_id, due, account, amount);
        amount
    }

    /// Lists `amount`, which the ledger has as claimable, for `account`.
    fn owe(run_id: RunId, due: Window, account: &T::AccountId, amount: Planck) {
        if amount == 0 {
            return;
        }
        Claims::<T>::mutate(run_id, account, |claims| {
            let mut list = core::mem::take(claims).into_inner();
            add_claim(&mut list, due, amount);
            *claims = ClaimList::truncate_from(list);
        });
    }

    pub(crate) fn do_claim(run_id: RunId, account: T::AccountId) -> Result<Planck, DispatchError> {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let now = phase_at(&run.schedule, Self::now()).map_or(0, |moment| moment.window);
        let mut claims = Claims::<T>::get(run_id, &account).into_inner();
        let amount = take_due(&mut claims, now);
        ensure!(amount > 0, Error::<T>::NothingClaimable);
        let balance = T::Currency::total_balance(&account).saturating_add(amount);
        ensure!(balance >= T::Currency::minimum_balance(), Error::<T>::ClaimTooSmall);

        let mut ledger = Ledgers::<T>::get(run_id);
        ledger.pay(amount).map_err(Error::<T>::from)?;
        // The foundation stays, so that the account is alive and no dust is lost.
        T::Currency::transfer(
            &Self::run_account(run_id),
            &account,
            amount,
            Preservation::Preserve,
        )?;
        Ledgers::<T>::insert(run_id, ledger);
        if claims.is_empty() {
            Claims::<T>::remove(run_id, &account);
        } else {
            Claims::<T>::insert(run_id, &account, ClaimList::truncate_from(claims));
        }
        Self::deposit_event(Event::Claimed { run: run_id, account, amount });
        Ok(amount)
    }

    pub(crate) fn do_claim_many(claims: ClaimBatch<T>) -> DispatchResult {
        let mut paid = false;
        for (run_id, account) in claims {
            // Who cannot be paid yet does not keep the others from their pay; nothing was changed then.
            paid |= frame_support::storage::with_storage_layer(|| Self::do_claim(run_id, account))
                .is_ok();
        }
        ensure!(paid, Error::<T>::NothingClaimable);
        Ok(())
    }

    pub(crate) fn do_fund_run(
        sponsor: T::AccountId,
        run_id: RunId,
        amount: Planck,
        per_window: Planck,
    ) -> DispatchResult {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        Self::ensure_takes_participants(&run)?;
        ensure!(amount >= T::Currency::minimum_balance(), Error::<T>::FundingTooSmall);
        let mut sponsors = Sponsors::<T>::get(run_id).into_inner();
        let funded = fund(&mut sponsors, &sponsor, amount, per_window).map_err(Error::<T>::from)?;
        let mut ledger = Ledgers::<T>::get(run_id);
        ledger.deposit(amount).map_err(Error::<T>::from)?;
        T::Currency::transfer(
            &sponsor,
            &Self::run_account(run_id),
            amount,
            Preservation::Preserve,
        )?;
        if let Funded::Replaced(other, left) = funded {
            ledger.refund(left).map_err(Error::<T>::from)?;
            Self::owe(run_id, 0, &other, left);
        }
        Ledgers::<T>::insert(run_id, ledger);
        Sponsors::<T>::insert(run_id, BoundedVec::truncate_from(sponsors));
        Self::deposit_event(Event::RunFunded { run: run_id, sponsor, amount, per_window });
        Ok(())
    }

    /// What sponsors put into a run and no window has had yet, in planck.
    pub fn unspent(run_id: RunId) -> Planck {
        Ledgers::<T>::get(run_id).unspent
    }

    /// Ends the money of a run that is closed: it has no weight, its sponsors may claim what is theirs of what is left, and
    /// the schedule gets the rest back. What is claimable stays so. Nothing is left to do the second time.
    pub(crate) fn sweep_run(run_id: RunId) {
        Self::turn_budget(run_id, false);
        RunWeights::<T>::remove(run_id);
        let mut ledger = Ledgers::<T>::get(run_id);
        let refunded = Self::refund_sponsors(run_id, &mut ledger);
        let given_back = Self::give_back(run_id, &mut ledger);
        let (Ok(refunded), Ok(given_back)) = (refunded, given_back) else {
            defensive!("what is left of a run is more than it had");
            return;
        };
        Ledgers::<T>::insert(run_id, ledger);
        if refunded > 0 || given_back > 0 {
            Self::deposit_event(Event::RunSwept { run: run_id, refunded, given_back });
        }
    }

    /// Makes claimable what is the sponsors' of what is left. Returns the sum, in planck.
    fn refund_sponsors(run_id: RunId, ledger: &mut Ledger) -> Result<Planck, LedgerError> {
        let sponsors = Sponsors::<T>::take(run_id);
        let mut refunded: Planck = 0;
        for refund in Self::refunds_of(ledger, &sponsors) {
            let amount = Self::refund(ledger, &refund)?;
            Self::owe(run_id, 0, &refund.sponsor, amount);
            refunded = refunded.saturating_add(amount);
        }
        Ok(refunded)
    }

    /// Gives what is carried back to the schedule. Returns the sum, in planck.
    fn give_back(run_id: RunId, ledger: &mut Ledger) -> Result<Planck, LedgerError> {
        let account = Self::run_account(run_id);
        let mut given_back: Planck = 0;
        for pot in Pot::ALL {
            let amount = T::Emission::give_back(&account, ledger.carried().of(pot));
            ledger.give_back(pot, amount)?;
            given_back = given_back.saturating_add(amount);
        }
        Ok(given_back)
    }

    fn refunds_of(
        ledger: &Ledger,
        sponsors: &[Sponsorship<T::AccountId>],
    ) -> Vec<Refunds<T::AccountId>> {
        let released = ledger.funded.saturating_sub(ledger.unspent);
        refunds(sponsors, &ledger.carried(), ledger.minted.saturating_add(released))
    }

    /// Makes a refund claimable. Returns its sum, in planck.
    fn refund(ledger: &mut Ledger, refund: &Refunds<T::AccountId>) -> Result<Planck, LedgerError> {
        ledger.refund(refund.unspent)?;
        for pot in Pot::ALL {
            ledger.credit(pot, refund.carried.of(pot))?;
        }
        let carried = refund.carried.checked_sum().ok_or(LedgerError)?;
        refund.unspent.checked_add(carried).ok_or(LedgerError)
    }
}

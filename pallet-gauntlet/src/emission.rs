//! Issues a run's emission from its source, and keeps the ledger that says where every unit of it is.

use core::marker::PhantomData;

use frame_support::{
    ensure,
    traits::{
        fungible::{Inspect, Mutate},
        tokens::{Fortitude, Precision, Preservation},
        Get,
    },
};
use protocol::{window::phase_at, Planck, RunId, Window};
use sp_runtime::DispatchError;

pub use crate::emission_source::EmissionSource;
use crate::{ClaimList, Claims, Config, Error, Event, Ledgers, Pallet, Runs};

/// Mints: the emission is new money, on the run's halving schedule.
pub struct Mint<Currency>(PhantomData<Currency>);

impl<AccountId: Eq, Currency> EmissionSource<AccountId> for Mint<Currency>
where
    Currency: Mutate<AccountId> + Inspect<AccountId, Balance = Planck>,
{
    fn issue(_run: RunId, _window: Window, account: &AccountId, amount: Planck) -> Planck {
        Currency::mint_into(account, amount).unwrap_or(0)
    }
}

/// Draws on one account until it is empty: a sponsored run.
pub struct Pot<Currency, Source>(PhantomData<(Currency, Source)>);

impl<AccountId: Eq, Currency, Source> EmissionSource<AccountId> for Pot<Currency, Source>
where
    Currency: Mutate<AccountId> + Inspect<AccountId, Balance = Planck>,
    Source: Get<AccountId>,
{
    fn issue(_run: RunId, _window: Window, account: &AccountId, amount: Planck) -> Planck {
        let source = Source::get();
        let available = Currency::reducible_balance(
            &source,
            Preservation::Preserve,
            frame_support::traits::tokens::Fortitude::Polite,
        );
        Currency::transfer(&source, account, amount.min(available), Preservation::Preserve)
            .unwrap_or(0)
    }
}

impl<T: Config> Pallet<T> {
    /// Asks the emission source for `amount` for a window; what arrives is carried until it is
    /// credited. Returns what arrived.
    pub(crate) fn issue(run_id: RunId, window: Window, amount: Planck) -> Planck {
        if amount == 0 {
            return 0;
        }
        let mut ledger = Ledgers::<T>::get(run_id);
        // Ask for no more than the ledger can count.
        let amount = amount.min(Planck::MAX.saturating_sub(ledger.minted));
        let minted = T::EmissionSource::issue(run_id, window, &Self::run_account(run_id), amount);
        // Neither sum saturates: `carried` is a part of `minted`, which fits by the line above.
        ledger.minted = ledger.minted.saturating_add(minted);
        ledger.carried = ledger.carried.saturating_add(minted);
        Ledgers::<T>::insert(run_id, ledger);
        minted
    }

    /// Moves `amount` from what is carried to what `account` may claim. Returns what was moved:
    /// nothing in the impossible case that less is carried.
    pub(crate) fn credit(
        run_id: RunId,
        window: Window,
        account: &T::AccountId,
        amount: Planck,
    ) -> Planck {
        if amount == 0 {
            return 0;
        }
        let mut ledger = Ledgers::<T>::get(run_id);
        let sums = ledger.carried.checked_sub(amount).zip(ledger.claimable.checked_add(amount));
        let Some((carried, claimable)) = sums else {
            frame_support::defensive!("the shares of a pot exceed the pot");
            return 0;
        };
        ledger.carried = carried;
        ledger.claimable = claimable;
        Ledgers::<T>::insert(run_id, ledger);
        Claims::<T>::mutate(run_id, account, |claims| add_claim(claims, window, amount));
        amount
    }

    /// Destroys what a run that is removed owes to nobody.
    pub(crate) fn sweep_carried(run_id: RunId) {
        let account = Self::run_account(run_id);
        Ledgers::<T>::mutate(run_id, |ledger| {
            let burned = T::Currency::burn_from(
                &account,
                ledger.carried,
                Preservation::Preserve,
                Precision::BestEffort,
                Fortitude::Polite,
            );
            let burned = burned.unwrap_or(0);
            ledger.carried = ledger.carried.saturating_sub(burned);
            ledger.burned = ledger.burned.saturating_add(burned);
        });
    }

    pub(crate) fn do_claim(run_id: RunId, account: T::AccountId) -> Result<Planck, DispatchError> {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let moment = phase_at(&run.schedule, Self::now()).ok_or(Error::<T>::RunNotStarted)?;
        let settings = Self::current_settings(run_id, &run)?;
        let delay = settings.incentive.claim_delay_windows;
        let mut claims = Claims::<T>::get(run_id, &account);
        // What was earned in window w is settled in w + 1 and waits `delay` windows from there.
        let mut amount: Planck = 0;
        claims.retain(|(window, earned)| {
            let due = is_due(*window, delay, moment.window);
            if due {
                amount = amount.saturating_add(*earned);
            }
            !due
        });
        ensure!(amount > 0, Error::<T>::NothingClaimable);

        let mut ledger = Ledgers::<T>::get(run_id);
        ledger.claimable = ledger.claimable.checked_sub(amount).ok_or(Error::<T>::Internal)?;
        ledger.paid = ledger.paid.checked_add(amount).ok_or(Error::<T>::Internal)?;
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
            Claims::<T>::insert(run_id, &account, claims);
        }
        Self::deposit_event(Event::Claimed { run: run_id, account, amount });
        Ok(amount)
    }
}

/// Whether pay of window `earned` can be claimed in `window`.
pub(crate) fn is_due(earned: Window, delay: u32, window: Window) -> bool {
    earned.saturating_add(delay.into()) < window
}

/// Adds pay of `window`, the newest, to a list. A full one first joins its two oldest entries under
/// the later window of the two: nothing is lost, the older amount waits a little longer.
fn add_claim(claims: &mut ClaimList, window: Window, amount: Planck) {
    if let Some((_, earned)) = claims.last_mut().filter(|(last, _)| *last == window) {
        *earned = earned.saturating_add(amount);
        return;
    }
    if claims.is_full() {
        let (_, oldest) = claims.remove(0);
        if let Some((_, earned)) = claims.iter_mut().next() {
            *earned = earned.saturating_add(oldest);
        }
    }
    // There is room: the list was not full or has lost an entry.
    let _ = claims.try_push((window, amount));
}

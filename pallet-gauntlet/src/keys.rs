//! Handles hot and cold keys: the hot key's consent, its rotation, and the hand-over of a seat to another cold key.
//!
//! **Invariant.** Nothing that a hot key does or holds can delay or refuse what its cold key asks for: a seat's reference on
//! the hot account is a sufficient one, whose removal cannot fail.

use frame_support::{
    ensure,
    traits::{
        fungible::MutateHold,
        tokens::{Fortitude, Precision, Restriction},
    },
};
use protocol::{
    consent::{hot_key_consent, Role},
    entry::Seat,
    Planck, RunId, Window,
};
use sp_runtime::{traits::Verify, DispatchResult};

use crate::{
    account_bytes,
    registration::{first_window, window_of},
    Announcements, Change, ColdOffer, ColdOffers, Config, Error, Event, HoldReason, MinerUids,
    Miners, NextHotKey, NextHotKeys, Pallet, ValidatorIndices, Validators,
};

impl<T: Config> Pallet<T> {
    /// Checks that `hot` agrees to work in `role` for `cold`.
    pub(crate) fn ensure_consent(
        run_id: RunId,
        role: Role,
        cold: &T::AccountId,
        hot: &T::AccountId,
        proof: &T::HotKeyProof,
    ) -> Result<(), Error<T>> {
        let message = hot_key_consent(&Self::genesis_hash(), run_id, role, &account_bytes(cold));
        ensure!(proof.verify(&message[..], hot), Error::<T>::HotKeyProofInvalid);
        Ok(())
    }

    /// Whether a key is a hot key of the run, or will be one.
    pub(crate) fn takes_part(run_id: RunId, hot: &T::AccountId) -> bool {
        MinerUids::<T>::contains_key(run_id, hot)
            || ValidatorIndices::<T>::contains_key(run_id, hot)
    }

    pub(crate) fn ensure_hot_key_free(run_id: RunId, hot: &T::AccountId) -> Result<(), Error<T>> {
        ensure!(!Self::takes_part(run_id, hot), Error::<T>::HotKeyTaken);
        Ok(())
    }

    /// Makes `hot` lead to a seat. Its account exists from now on, so that it can sign without owning anything.
    pub(crate) fn take_hot_key(run_id: RunId, seat: Seat, hot: &T::AccountId) {
        match seat {
            Seat::Miner(uid) => MinerUids::<T>::insert(run_id, hot, uid),
            Seat::Validator(index) => ValidatorIndices::<T>::insert(run_id, hot, index),
        }
        frame_system::Pallet::<T>::inc_sufficients(hot);
    }

    /// The reverse of [`Self::take_hot_key`]; the key's announcement goes with it.
    fn drop_hot_key(run_id: RunId, seat: Seat, hot: &T::AccountId) {
        match seat {
            Seat::Miner(_) => MinerUids::<T>::remove(run_id, hot),
            Seat::Validator(_) => ValidatorIndices::<T>::remove(run_id, hot),
        }
        Announcements::<T>::remove(run_id, hot);
        frame_system::Pallet::<T>::dec_sufficients(hot);
    }

    /// Removes all that hangs on a seat whose holder, with the hot key `hot`, is gone: the next one inherits nothing.
    pub(crate) fn leave_seat(run_id: RunId, seat: Seat, hot: &T::AccountId) {
        Self::drop_hot_key(run_id, seat, hot);
        if let Some(next) = NextHotKeys::<T>::take(run_id, seat) {
            Self::drop_hot_key(run_id, seat, &next.hot);
        }
        ColdOffers::<T>::remove(run_id, seat);
    }

    pub(crate) fn do_rotate_hot_key(
        who: T::AccountId,
        run_id: RunId,
        seat: Seat,
        hot: T::AccountId,
    ) -> DispatchResult {
        let (_, moment) = Self::run_at(run_id)?;
        Self::ensure_cold_key(run_id, seat, &who)?;
        Self::ensure_hot_key_free(run_id, &hot)?;
        Self::ensure_not_cooling(run_id, &hot)?;
        let window = match NextHotKeys::<T>::get(run_id, seat) {
            // The change that is scheduled takes the later key.
            Some(waiting) => {
                Self::drop_hot_key(run_id, seat, &waiting.hot);
                waiting.window
            }
            None => {
                Self::schedule_change(run_id, first_window(moment), Change::RotateHotKey(seat))?
            }
        };
        Self::take_hot_key(run_id, seat, &hot);
        NextHotKeys::<T>::insert(run_id, seat, NextHotKey { hot: hot.clone(), window });
        Self::deposit_event(Event::HotKeyRotating { run: run_id, seat, hot, window });
        Ok(())
    }

    /// Puts the hot key that waits for `window` into force.
    pub(crate) fn finish_rotation(run_id: RunId, seat: Seat, window: Window) {
        let Some(NextHotKey { hot, .. }) =
            NextHotKeys::<T>::get(run_id, seat).filter(|next| next.window <= window)
        else {
            return;
        };
        NextHotKeys::<T>::remove(run_id, seat);
        let mut before = hot.clone();
        match seat {
            Seat::Miner(uid) => Miners::<T>::mutate(run_id, uid, |miner| {
                if let Some(miner) = miner {
                    core::mem::swap(&mut miner.hot, &mut before);
                }
            }),
            Seat::Validator(index) => Validators::<T>::mutate(run_id, index, |validator| {
                if let Some(validator) = validator {
                    core::mem::swap(&mut validator.hot, &mut before);
                }
            }),
        }
        Self::drop_hot_key(run_id, seat, &before);
        Self::deposit_event(Event::HotKeyRotated { run: run_id, seat, hot });
    }

    pub(crate) fn do_offer_cold(
        who: T::AccountId,
        run_id: RunId,
        seat: Seat,
        to: T::AccountId,
    ) -> DispatchResult {
        let (run, moment) = Self::run_at(run_id)?;
        Self::ensure_cold_key(run_id, seat, &who)?;
        let settings = Self::current_settings(run_id, &run)?;
        let wait = u64::from(settings.entry.hand_over_windows);
        let window = window_of(moment).saturating_add(wait);
        ColdOffers::<T>::insert(run_id, seat, ColdOffer { to: to.clone(), window });
        Self::deposit_event(Event::ColdOffered { run: run_id, seat, to, window });
        Ok(())
    }

    pub(crate) fn do_cancel_cold(who: T::AccountId, run_id: RunId, seat: Seat) -> DispatchResult {
        Self::ensure_cold_key(run_id, seat, &who)?;
        ColdOffers::<T>::take(run_id, seat).ok_or(Error::<T>::NotOffered)?;
        Self::deposit_event(Event::ColdOfferCancelled { run: run_id, seat });
        Ok(())
    }

    pub(crate) fn do_accept_cold(who: T::AccountId, run_id: RunId, seat: Seat) -> DispatchResult {
        let (_, moment) = Self::run_at(run_id)?;
        let offer = ColdOffers::<T>::get(run_id, seat).ok_or(Error::<T>::NotOffered)?;
        ensure!(offer.to == who, Error::<T>::NotOffered);
        ensure!(offer.window <= window_of(moment), Error::<T>::OfferNotDue);
        ColdOffers::<T>::remove(run_id, seat);
        match seat {
            Seat::Miner(uid) => {
                let mut miner = Miners::<T>::get(run_id, uid).ok_or(Error::<T>::MinerUnknown)?;
                Self::move_hold(HoldReason::MinerBond, &miner.cold, &who, miner.bond)?;
                miner.cold = who.clone();
                Miners::<T>::insert(run_id, uid, miner);
            }
            Seat::Validator(index) => {
                let mut validator =
                    Validators::<T>::get(run_id, index).ok_or(Error::<T>::ValidatorUnknown)?;
                Self::hand_over_pool(run_id, validator.pool, &who)?;
                validator.cold = who.clone();
                Validators::<T>::insert(run_id, index, validator);
            }
        }
        Self::deposit_event(Event::ColdHandedOver { run: run_id, seat, cold: who });
        Ok(())
    }

    /// Moves money that is held of one account to another, where it stays held.
    pub(crate) fn move_hold(
        reason: HoldReason,
        from: &T::AccountId,
        to: &T::AccountId,
        amount: Planck,
    ) -> DispatchResult {
        T::Currency::transfer_on_hold(
            &reason.into(),
            from,
            to,
            amount,
            Precision::Exact,
            Restriction::OnHold,
            Fortitude::Polite,
        )?;
        Ok(())
    }

    /// Checks that `who` is the cold key of a seat.
    fn ensure_cold_key(run_id: RunId, seat: Seat, who: &T::AccountId) -> Result<(), Error<T>> {
        let cold = match seat {
            Seat::Miner(uid) => Miners::<T>::get(run_id, uid).ok_or(Error::<T>::MinerUnknown)?.cold,
            Seat::Validator(index) => {
                Validators::<T>::get(run_id, index).ok_or(Error::<T>::ValidatorUnknown)?.cold
            }
        };
        ensure!(cold == *who, Error::<T>::NotColdKey);
        Ok(())
    }
}

//! Handles the calls of miners with their bonds, and the announcements of both kinds of participants.

use frame_support::{
    ensure,
    traits::{fungible::MutateHold, tokens::Precision},
};
use protocol::{consensus::Standing, fixed::Q32, window::Moment, RunId, Uid, Window};
use sp_runtime::{DispatchError, DispatchResult};

use crate::{
    Addresses, Announcement, Announcements, Commitments, Config, Error, Event, HoldReason, Miner,
    MinerSlots, MinerUids, Miners, Pallet, PeerId, Runs, ValidatorIndices,
};

impl<T: Config> Pallet<T> {
    pub(crate) fn do_register_miner(
        cold: T::AccountId,
        run_id: RunId,
        hot: T::AccountId,
    ) -> Result<Uid, DispatchError> {
        let (run, moment) = Self::run_at(run_id)?;
        Self::ensure_hot_key_free(run_id, &hot)?;
        let limit = u32::from(run.settings.incentive.uid_max);
        let uid = MinerSlots::<T>::mutate(run_id, |slots| slots.take(limit))
            .ok_or(Error::<T>::NoFreeSlot)?;
        let bond = run.settings.incentive.miner_bond;
        T::Currency::hold(&HoldReason::MinerBond.into(), &cold, bond)?;
        frame_system::Pallet::<T>::inc_providers(&hot);
        MinerUids::<T>::insert(run_id, &hot, uid);
        let miner = Miner {
            hot: hot.clone(),
            cold: cold.clone(),
            bond,
            registered_window: first_window(moment),
            standing: Standing::default(),
            value: Q32::ZERO,
            share: Q32::ZERO,
        };
        Miners::<T>::insert(run_id, uid, miner);
        Self::deposit_event(Event::MinerRegistered { run: run_id, uid, hot, cold });
        Ok(uid)
    }

    pub(crate) fn do_deregister_miner(
        who: T::AccountId,
        run_id: RunId,
        uid: Uid,
    ) -> DispatchResult {
        let (_, moment) = Self::run_at(run_id)?;
        let miner = Miners::<T>::get(run_id, uid).ok_or(Error::<T>::MinerUnknown)?;
        ensure!(miner.cold == who, Error::<T>::NotColdKey);
        if let Some(moment) = moment {
            ensure!(
                !Commitments::<T>::contains_key((run_id, moment.window, uid)),
                Error::<T>::WorkOpen
            );
        }
        T::Currency::release(
            &HoldReason::MinerBond.into(),
            &miner.cold,
            miner.bond,
            Precision::Exact,
        )?;
        frame_system::Pallet::<T>::dec_providers(&miner.hot)?;
        Miners::<T>::remove(run_id, uid);
        MinerUids::<T>::remove(run_id, &miner.hot);
        Announcements::<T>::remove(run_id, &miner.hot);
        MinerSlots::<T>::mutate(run_id, |slots| slots.release(uid));
        Self::deposit_event(Event::MinerLeft { run: run_id, uid });
        Ok(())
    }

    pub(crate) fn do_announce(
        hot: T::AccountId,
        run_id: RunId,
        peer_id: PeerId,
        addresses: Addresses,
    ) -> DispatchResult {
        ensure!(Runs::<T>::contains_key(run_id), Error::<T>::RunUnknown);
        ensure!(Self::takes_part(run_id, &hot), Error::<T>::HotKeyUnknown);
        let announcement = Announcement { peer_id, addresses, block: Self::now() };
        Announcements::<T>::insert(run_id, &hot, announcement);
        Self::deposit_event(Event::Announced { run: run_id, hot });
        Ok(())
    }

    /// Whether a hot key is a miner's or a validator's of the run.
    fn takes_part(run_id: RunId, hot: &T::AccountId) -> bool {
        MinerUids::<T>::contains_key(run_id, hot)
            || ValidatorIndices::<T>::contains_key(run_id, hot)
    }

    pub(crate) fn ensure_hot_key_free(run_id: RunId, hot: &T::AccountId) -> Result<(), Error<T>> {
        ensure!(!Self::takes_part(run_id, hot), Error::<T>::HotKeyTaken);
        Ok(())
    }
}

/// The first window of a participant that registers now: the next one, or window 0 before the run's first block.
pub(crate) fn first_window(moment: Option<Moment>) -> Window {
    moment.map_or(0, |moment| moment.window.saturating_add(1))
}

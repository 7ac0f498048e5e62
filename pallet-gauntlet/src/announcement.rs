//! Handles the announcements of how peers reach a participant.

use frame_support::ensure;
use protocol::RunId;
use sp_runtime::DispatchResult;

use crate::{Addresses, Announcement, Announcements, Config, Error, Event, Pallet, PeerId, Runs};

impl<T: Config> Pallet<T> {
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
}

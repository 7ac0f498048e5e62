//! Handles the announcements of how peers reach a participant.
//!
//! One is kept for each hot key that takes part, and removed with it: registration bounds them. The peer's own key signs, so
//! that nobody can have another's peer reached, and banned, in his name.

use frame_support::ensure;
use protocol::{
    consent::{peer_consent, peer_key},
    RunId,
};
use sp_core::ed25519;
use sp_runtime::DispatchResult;

use crate::{
    account_bytes, Addresses, Announcement, Announcements, Config, Error, Event, Pallet, PeerId,
    PeerProof, Runs,
};

impl<T: Config> Pallet<T> {
    /// Checks that the key of a peer agrees to be announced as the peer of `hot`.
    pub(crate) fn ensure_peer(
        run_id: RunId,
        hot: &T::AccountId,
        peer_id: &PeerId,
        proof: PeerProof,
    ) -> Result<(), Error<T>> {
        let key = peer_key(peer_id).ok_or(Error::<T>::PeerProofInvalid)?;
        let message = peer_consent(&Self::genesis_hash(), run_id, &account_bytes(hot));
        let is_proven = sp_io::crypto::ed25519_verify(
            &ed25519::Signature::from_raw(proof),
            &message,
            &ed25519::Public::from_raw(key),
        );
        ensure!(is_proven, Error::<T>::PeerProofInvalid);
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
}

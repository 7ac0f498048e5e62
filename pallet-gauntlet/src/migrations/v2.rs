//! Settings that wait for a window tell whether the chain's governance forced them.

use core::marker::PhantomData;

use frame_support::{
    traits::{Get, UncheckedOnRuntimeUpgrade},
    weights::Weight,
};
use protocol::RunId;
#[cfg(feature = "try-runtime")]
use {
    alloc::vec::Vec,
    codec::{Decode, Encode},
    frame_support::ensure,
    sp_runtime::TryRuntimeError,
};

use super::stored_v2::{PendingSettings, ScheduledSettings};
use crate::Config;

/// What version 1 stored, under the names that it has in storage.
mod v1 {
    use codec::{Decode, Encode};
    use protocol::Window;
    #[cfg(feature = "try-runtime")]
    use {
        crate::{Config, Pallet},
        frame_support::{storage_alias, Twox64Concat},
        protocol::RunId,
    };

    use crate::migrations::stored_v2::Settings;

    #[derive(Encode, Decode)]
    pub(super) struct ScheduledSettings {
        pub(super) window: Window,
        // The same in both versions.
        pub(super) settings: Settings,
    }

    #[cfg(feature = "try-runtime")]
    #[storage_alias]
    pub(super) type PendingSettings<T: Config> =
        StorageMap<Pallet<T>, Twox64Concat, RunId, ScheduledSettings>;
}

/// The step, without a look at the version.
pub struct TellWhoForced<T>(PhantomData<T>);

impl<T: Config> UncheckedOnRuntimeUpgrade for TellWhoForced<T> {
    fn on_runtime_upgrade() -> Weight {
        let mut rows: u64 = 0;
        PendingSettings::<T>::translate(|_run: RunId, old: v1::ScheduledSettings| {
            rows = rows.saturating_add(1);
            let v1::ScheduledSettings { window, settings } = old;
            Some(ScheduledSettings { window, settings, by_admin: false })
        });
        // The read that finds no further row, too.
        T::DbWeight::get().reads_writes(rows.saturating_add(1), rows)
    }

    /// The rows before.
    #[cfg(feature = "try-runtime")]
    fn pre_upgrade() -> Result<Vec<u8>, TryRuntimeError> {
        let rows: Vec<_> = v1::PendingSettings::<T>::iter().collect();
        let stored = v1::PendingSettings::<T>::iter_keys().count();
        ensure!(rows.len() == stored, "settings that wait do not decode as those of version 1");
        Ok(rows.encode())
    }

    /// Every row is there, with the same settings for the same window, and nothing beside.
    #[cfg(feature = "try-runtime")]
    fn post_upgrade(state: Vec<u8>) -> Result<(), TryRuntimeError> {
        let before: Vec<(RunId, v1::ScheduledSettings)> =
            Decode::decode(&mut state.as_slice()).map_err(|_| "the rows before do not decode")?;
        ensure!(
            PendingSettings::<T>::iter_keys().count() == before.len(),
            "settings that wait were lost or made up"
        );
        for (run, v1::ScheduledSettings { window, settings }) in before {
            let expected = ScheduledSettings { window, settings, by_admin: false }.encode();
            let found = PendingSettings::<T>::get(run).map(|found| found.encode());
            ensure!(found == Some(expected), "settings that wait are not what they were");
        }
        Ok(())
    }
}

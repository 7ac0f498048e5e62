//! Settings tell whether a run's training overlaps with its exchange, which is not so in those of before; records of
//! windows have the seeds that it needs.

use core::marker::PhantomData;

use frame_support::{
    traits::{Get, UncheckedOnRuntimeUpgrade},
    weights::Weight,
};
use protocol::{RunId, Window};
#[cfg(feature = "try-runtime")]
use {
    alloc::vec::Vec,
    codec::{Decode, Encode},
    frame_support::ensure,
    protocol::settings::Settings,
    sp_runtime::TryRuntimeError,
};

use super::stored_v2;
use crate::{
    Config, PendingSettings, RunSettings, ScheduledSettings, SettingsVersion, WindowRecord, Windows,
};

/// The maps that are rewritten: the end of each is a read, too.
const MAPS: u64 = 3;

/// The step, without a look at the version.
pub struct LetTrainingOverlap<T>(PhantomData<T>);

impl<T: Config> UncheckedOnRuntimeUpgrade for LetTrainingOverlap<T> {
    fn on_runtime_upgrade() -> Weight {
        let mut rows: u64 = 0;
        RunSettings::<T>::translate(|_: RunId, _: SettingsVersion, old: stored_v2::Settings| {
            rows = rows.saturating_add(1);
            Some(old.into())
        });
        PendingSettings::<T>::translate(|_: RunId, old: stored_v2::ScheduledSettings| {
            rows = rows.saturating_add(1);
            Some(ScheduledSettings::from(old))
        });
        Windows::<T>::translate(|_: RunId, _: Window, old: stored_v2::WindowRecord| {
            rows = rows.saturating_add(1);
            Some(WindowRecord::from(old))
        });
        T::DbWeight::get().reads_writes(rows.saturating_add(MAPS), rows)
    }

    /// What the rows are to be.
    #[cfg(feature = "try-runtime")]
    fn pre_upgrade() -> Result<Vec<u8>, TryRuntimeError> {
        let expected = Expected {
            settings: stored_v2::RunSettings::<T>::iter()
                .map(|(run, version, old)| (run, version, old.into()))
                .collect(),
            pending: stored_v2::PendingSettings::<T>::iter()
                .map(|(run, old)| (run, old.into()))
                .collect(),
            windows: stored_v2::Windows::<T>::iter()
                .map(|(run, window, old)| (run, window, old.into()))
                .collect(),
        };
        ensure!(expected.has_all_rows::<T>(), "rows do not decode as those of version 2");
        Ok(expected.encode())
    }

    /// Every row is there as it was, its training without overlap, and nothing beside.
    #[cfg(feature = "try-runtime")]
    fn post_upgrade(state: Vec<u8>) -> Result<(), TryRuntimeError> {
        let expected =
            Expected::decode(&mut state.as_slice()).map_err(|_| "the rows do not decode")?;
        ensure!(expected.has_all_rows::<T>(), "rows were lost or made up");
        for (run, version, settings) in expected.settings {
            let found = RunSettings::<T>::get(run, version);
            ensure!(found == Some(settings), "a run's settings are not what they were");
        }
        for (run, pending) in expected.pending {
            let found = PendingSettings::<T>::get(run);
            ensure!(found == Some(pending), "settings that wait are not what they were");
        }
        for (run, window, record) in expected.windows {
            let found = Windows::<T>::get(run, window);
            ensure!(found == Some(record), "a window is not what it was");
        }
        Ok(())
    }
}

/// The rows after the step.
#[cfg(feature = "try-runtime")]
#[derive(Encode, Decode)]
struct Expected {
    settings: Vec<(RunId, SettingsVersion, Settings)>,
    pending: Vec<(RunId, ScheduledSettings)>,
    windows: Vec<(RunId, Window, WindowRecord)>,
}

#[cfg(feature = "try-runtime")]
impl Expected {
    /// Whether storage has as many.
    fn has_all_rows<T: Config>(&self) -> bool {
        self.settings.len() == RunSettings::<T>::iter_keys().count()
            && self.pending.len() == PendingSettings::<T>::iter_keys().count()
            && self.windows.len() == Windows::<T>::iter_keys().count()
    }
}

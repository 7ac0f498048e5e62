//! What version 2 stored in another form than version 3, under the names that it has in storage.

use codec::{Decode, Encode};
use frame_support::{storage_alias, Twox64Concat};
use protocol::{
    settings::{self, InnerOptimiser, OuterStep},
    window::Schedule,
    Hash, Planck, RunId, Window,
};

use crate::{AcceptedSet, Bitmap, Config, Pallet, SettingsVersion, WindowStatus};

/// Settings without `training.overlap`. Their other parts are the same in both versions; the step that changes one
/// keeps a copy of it here.
#[derive(Encode, Decode)]
pub(super) struct Settings {
    schedule: Schedule,
    training: Training,
    incentive: settings::Incentive,
    emission: settings::Emission,
    staking: settings::Staking,
    disputes: settings::Disputes,
    entry: settings::Entry,
}

#[derive(Encode, Decode)]
struct Training {
    inner_steps: u32,
    batch_size: u32,
    sample_len: u32,
    sample_count: u64,
    data_root: Hash,
    keep: u16,
    outer: OuterStep,
    evaluation_rate_ppm: u32,
    error_decay_ppm: u32,
    optimiser: InnerOptimiser,
    inner_rate_ppb: u32,
    evaluation_samples: u16,
    model_seed: u64,
    genesis_state_root: Hash,
}

#[derive(Encode, Decode)]
pub(super) struct ScheduledSettings {
    pub(super) window: Window,
    pub(super) settings: Settings,
    pub(super) by_admin: bool,
}

/// A window without `scoring_seed` and `next_seed`.
#[derive(Encode, Decode)]
pub(super) struct WindowRecord {
    seed: Hash,
    challenge_seed: Option<Hash>,
    state_root: Option<Hash>,
    accepted: AcceptedSet,
    unavailable: Bitmap,
    status: WindowStatus,
    budget: Planck,
    minted: Planck,
    funded: Planck,
    settings_version: SettingsVersion,
    excused: bool,
}

#[storage_alias]
pub(super) type PendingSettings<T: Config> =
    StorageMap<Pallet<T>, Twox64Concat, RunId, ScheduledSettings>;

#[cfg(feature = "try-runtime")]
#[storage_alias]
pub(super) type RunSettings<T: Config> =
    StorageDoubleMap<Pallet<T>, Twox64Concat, RunId, Twox64Concat, SettingsVersion, Settings>;

#[cfg(feature = "try-runtime")]
#[storage_alias]
pub(super) type Windows<T: Config> =
    StorageDoubleMap<Pallet<T>, Twox64Concat, RunId, Twox64Concat, Window, WindowRecord>;

impl From<Settings> for settings::Settings {
    /// Training does not overlap.
    fn from(old: Settings) -> Self {
        let Settings { schedule, training, incentive, emission, staking, disputes, entry } = old;
        let training = settings::Training {
            inner_steps: training.inner_steps,
            batch_size: training.batch_size,
            sample_len: training.sample_len,
            sample_count: training.sample_count,
            data_root: training.data_root,
            keep: training.keep,
            outer: training.outer,
            evaluation_rate_ppm: training.evaluation_rate_ppm,
            error_decay_ppm: training.error_decay_ppm,
            optimiser: training.optimiser,
            inner_rate_ppb: training.inner_rate_ppb,
            evaluation_samples: training.evaluation_samples,
            model_seed: training.model_seed,
            genesis_state_root: training.genesis_state_root,
            overlap: false,
        };
        Self { schedule, training, incentive, emission, staking, disputes, entry }
    }
}

impl From<ScheduledSettings> for crate::ScheduledSettings {
    fn from(ScheduledSettings { window, settings, by_admin }: ScheduledSettings) -> Self {
        Self { window, settings: settings.into(), by_admin }
    }
}

impl From<WindowRecord> for crate::WindowRecord {
    /// Without overlap the seed was drawn when the window opened, and decides who evaluates the window before, too.
    fn from(old: WindowRecord) -> Self {
        Self {
            seed: old.seed,
            scoring_seed: old.seed,
            challenge_seed: old.challenge_seed,
            next_seed: None,
            state_root: old.state_root,
            accepted: old.accepted,
            unavailable: old.unavailable,
            status: old.status,
            budget: old.budget,
            minted: old.minted,
            funded: old.funded,
            settings_version: old.settings_version,
            excused: old.excused,
        }
    }
}

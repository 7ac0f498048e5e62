//! A chain of an older storage version is led to the one of the code, whole and once.

use codec::Encode;
use frame_support::{
    assert_ok,
    traits::{GetStorageVersion, OnRuntimeUpgrade, StorageVersion},
    weights::Weight,
};
use protocol::settings::Settings;

use crate::{
    migrations::{MigrateV1ToV2, MigrateV2ToV3},
    mock::*,
    Pallet, PendingSettings, ScheduledSettings,
};

mod overlap;

type Step = MigrateV1ToV2<Test>;
type Steps = (Step, MigrateV2ToV3<Test>);

/// Settings as they were encoded before version 3: the last value of `training` was not there.
fn old_settings(settings: &Settings) -> Vec<u8> {
    let Settings { schedule, training, incentive, emission, staking, disputes, entry } = settings;
    let mut training = training.encode();
    assert_eq!(training.pop(), Some(0), "no training of before overlaps");
    let rest = (incentive, emission, staking, disputes, entry).encode();
    [schedule.encode(), training, rest].concat()
}

/// Settings that wait as version 1 encoded them.
fn old_row(window: u64, settings: &Settings) -> Vec<u8> {
    [window.encode(), old_settings(settings)].concat()
}

/// Where the settings of a run wait.
fn key_of(run: u32) -> Vec<u8> {
    PendingSettings::<Test>::hashed_key_for(run)
}

/// Puts bytes where the settings of a run wait.
fn store(run: u32, row: &[u8]) {
    sp_io::storage::set(&key_of(run), row);
}

/// The bytes that are there.
fn row(run: u32) -> Option<Vec<u8>> {
    sp_io::storage::get(&key_of(run)).map(|row| row.to_vec())
}

/// Settings that differ from run to run.
fn settings_of_run(run: u32) -> Settings {
    let mut settings = settings();
    settings.training.inner_steps = 10 + run;
    settings
}

/// A chain of version 1 on which the settings of three runs wait.
fn version_1() -> sp_io::TestExternalities {
    let mut ext = new_test_ext();
    ext.execute_with(|| {
        StorageVersion::new(1).put::<Pallet<Test>>();
        for run in 0..3 {
            store(run, &old_row(7 + u64::from(run), &settings_of_run(run)));
        }
    });
    ext
}

#[test]
fn a_new_chain_has_the_version_of_the_code() {
    new_test_ext().execute_with(|| {
        assert_eq!(Gauntlet::on_chain_storage_version(), Gauntlet::in_code_storage_version());
        assert_eq!(Gauntlet::in_code_storage_version(), StorageVersion::new(3));
    });
}

#[test]
fn settings_that_wait_are_read_again_after_the_step() {
    version_1().execute_with(|| {
        assert_eq!(PendingSettings::<Test>::get(1), None, "the old encoding is another");

        let weight = Step::on_runtime_upgrade();
        assert_eq!(Gauntlet::on_chain_storage_version(), StorageVersion::new(2));
        Steps::on_runtime_upgrade();
        for run in 0..3 {
            let (window, settings) = (7 + u64::from(run), settings_of_run(run));
            let expected = ScheduledSettings { window, settings, by_admin: false };
            assert_eq!(PendingSettings::<Test>::get(run), Some(expected));
        }
        assert_eq!(Gauntlet::on_chain_storage_version(), StorageVersion::new(3));
        // Three rows and the version, read and written, and the read that finds no further row.
        let db = <Test as frame_system::Config>::DbWeight::get();
        assert_eq!(weight, db.reads_writes(5, 4));
        let block = <Test as frame_system::Config>::BlockWeights::get().max_block;
        assert!(weight.all_lt(block));
    });
}

#[test]
fn each_step_is_taken_once() {
    version_1().execute_with(|| {
        Steps::on_runtime_upgrade();
        let forced = ScheduledSettings { window: 9, settings: settings_of_run(0), by_admin: true };
        PendingSettings::<Test>::insert(0, &forced);

        let weight = Steps::on_runtime_upgrade();
        assert_eq!(PendingSettings::<Test>::get(0), Some(forced));
        assert_eq!(weight, <Test as frame_system::Config>::DbWeight::get().reads(2));
    });
}

#[test]
fn a_chain_from_before_versions_is_left_alone() {
    version_1().execute_with(|| {
        StorageVersion::new(0).put::<Pallet<Test>>();
        Steps::on_runtime_upgrade();
        assert_eq!(Gauntlet::on_chain_storage_version(), StorageVersion::new(0));
        assert_eq!(row(0), Some(old_row(7, &settings_of_run(0))));
    });
}

#[test]
fn a_chain_without_rows_takes_the_steps_too() {
    new_test_ext().execute_with(|| {
        StorageVersion::new(1).put::<Pallet<Test>>();
        assert_ne!(Steps::on_runtime_upgrade(), Weight::zero());
        assert_eq!(Gauntlet::on_chain_storage_version(), StorageVersion::new(3));
        assert_ok!(Gauntlet::do_try_state());
    });
}

/// What `try-runtime` checks, which `cargo xtask test` compiles.
#[cfg(feature = "try-runtime")]
mod checks {
    use super::*;

    #[test]
    fn a_whole_upgrade_passes() {
        version_1().execute_with(|| {
            let state = Step::pre_upgrade().unwrap();
            Step::on_runtime_upgrade();
            assert_ok!(Step::post_upgrade(state));
        });
    }

    #[test]
    fn an_upgrade_that_loses_or_changes_a_row_is_refused() {
        let spoilers: [fn(); 3] = [
            || PendingSettings::<Test>::remove(1),
            || store(3, &row(0).unwrap()),
            || {
                // The first byte is of the window.
                let mut changed = row(2).unwrap();
                changed[0] += 1;
                store(2, &changed);
            },
        ];
        for spoil in spoilers {
            version_1().execute_with(|| {
                let state = Step::pre_upgrade().unwrap();
                Step::on_runtime_upgrade();
                spoil();
                assert!(Step::post_upgrade(state).is_err());
            });
        }
    }

    #[test]
    fn a_row_that_no_version_wrote_is_found_beforehand() {
        version_1().execute_with(|| {
            store(1, &[1, 2, 3]);
            assert!(Step::pre_upgrade().is_err());
        });
    }
}

//! Settings and windows of version 2, in which no training overlapped, are read again after the step to version 3.

use super::*;
use crate::{RunSettings, WindowRecord, Windows};

type Step = MigrateV2ToV3<Test>;

/// Rows as the code of version 2 encoded them, a line each: the map, the key and the value in hexadecimal. They are of
/// the golden file of `runtime-tests` as it was then, with every variant of every enum.
const GOLDEN: &str = include_str!("v2.txt");

fn golden() -> impl Iterator<Item = (&'static str, Vec<u8>, Vec<u8>)> {
    let bytes = |text| sp_core::bytes::from_hex(text).unwrap();
    GOLDEN.lines().map(move |line| {
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap();
        (word(), bytes(word()), bytes(word()))
    })
}

fn old_pending(row: &ScheduledSettings) -> Vec<u8> {
    let ScheduledSettings { window, settings, by_admin } = row;
    [window.encode(), old_settings(settings), by_admin.encode()].concat()
}

fn old_window(record: &WindowRecord) -> Vec<u8> {
    assert_eq!((record.scoring_seed, record.next_seed), (record.seed, None));
    let seeds = (record.seed, record.challenge_seed, record.state_root);
    let miners = (&record.accepted, &record.unavailable, record.status);
    let money = (record.budget, record.minted, record.funded);
    (seeds, miners, money, record.settings_version, record.excused).encode()
}

/// The only row of a map that the code can read, as version 2 would have encoded it.
fn read(map: &str) -> Option<Vec<u8>> {
    match map {
        "RunSettings" => RunSettings::<Test>::iter_values().next().map(|row| old_settings(&row)),
        "PendingSettings" => {
            PendingSettings::<Test>::iter_values().next().map(|row| old_pending(&row))
        }
        "Windows" => Windows::<Test>::iter_values().next().map(|row| old_window(&row)),
        other => panic!("{other} is as it was"),
    }
}

/// Rewrites the whole state as version 2 had it.
fn go_back() {
    StorageVersion::new(2).put::<Pallet<Test>>();
    for (run, version, row) in RunSettings::<Test>::iter().collect::<Vec<_>>() {
        let key = RunSettings::<Test>::hashed_key_for(run, version);
        sp_io::storage::set(&key, &old_settings(&row));
    }
    for (run, row) in PendingSettings::<Test>::iter().collect::<Vec<_>>() {
        store(run, &old_pending(&row));
    }
    for (run, window, row) in Windows::<Test>::iter().collect::<Vec<_>>() {
        sp_io::storage::set(&Windows::<Test>::hashed_key_for(run, window), &old_window(&row));
    }
}

/// Settings that the run's may become.
fn other_settings() -> Settings {
    let mut settings = settings();
    settings.training.inner_steps += 1;
    settings
}

/// A chain of version 2 in its window 2, whose run has other settings waiting.
fn version_2(then: impl FnOnce()) {
    ExtBuilder::default().participants(2, 3).build_and_execute(|| {
        play_window(0, 2, 3);
        play_window(1, 2, 3);
        roll_to_window(2);
        assert_ok!(Gauntlet::set_params(
            RuntimeOrigin::signed(owner()),
            0,
            other_settings().into()
        ));
        go_back();
        then();
    });
}

#[test]
fn what_version_2_encoded_is_read_after_the_step_and_not_before() {
    let mut maps: Vec<&str> = golden()
        .map(|(map, key, old)| {
            new_test_ext().execute_with(|| {
                StorageVersion::new(2).put::<Pallet<Test>>();
                sp_io::storage::set(&key, &old);
                assert_eq!(read(map), None, "the old encoding is another");
                Step::on_runtime_upgrade();
                assert_eq!(read(map), Some(old));
                assert_eq!(Gauntlet::on_chain_storage_version(), StorageVersion::new(3));
            });
            map
        })
        .collect();
    maps.dedup();
    assert_eq!(maps, ["PendingSettings", "RunSettings", "Windows"]);
}

#[test]
fn a_run_goes_on_where_it_was() {
    version_2(|| {
        assert_eq!((Windows::<Test>::get(0, 2), RunSettings::<Test>::get(0, 0)), (None, None));
        let weight = Step::on_runtime_upgrade();
        // Three windows, the run's settings, those that wait, and the version; the end of each map is a read.
        let db = <Test as frame_system::Config>::DbWeight::get();
        assert_eq!(weight, db.reads_writes(6 + 3, 6));

        play_window(2, 2, 3);
        play_window(3, 2, 3);
        roll_to_window(5);
        // Window 1 was scored by the seed of the one in which the step was taken; nobody scored the last.
        for window in 0..3 {
            let pay = Gauntlet::pay(0, window).unwrap();
            assert!(!pay.miners.is_empty(), "{window}");
        }
        assert_eq!(settings_of(4), other_settings());
    });
}

/// What `try-runtime` checks.
#[cfg(feature = "try-runtime")]
mod checks {
    use super::*;

    #[test]
    fn a_whole_upgrade_passes() {
        version_2(|| {
            let state = Step::pre_upgrade().unwrap();
            Step::on_runtime_upgrade();
            assert_ok!(Step::post_upgrade(state));
        });
    }

    #[test]
    fn an_upgrade_that_loses_or_changes_a_row_is_refused() {
        let spoilers: [fn(); 6] = [
            || Windows::<Test>::remove(0, 1),
            || Windows::<Test>::mutate(0, 1, |row| row.as_mut().unwrap().scoring_seed = [9; 32]),
            || RunSettings::<Test>::insert(0, 9, settings()),
            || {
                RunSettings::<Test>::mutate(0, 0, |row| {
                    row.as_mut().unwrap().training.overlap = true
                })
            },
            || PendingSettings::<Test>::remove(0),
            || PendingSettings::<Test>::mutate(0, |row| row.as_mut().unwrap().by_admin = true),
        ];
        for spoil in spoilers {
            // The state is a spoilt one: no invariant holds of it.
            let mut ext = new_test_ext();
            ext.execute_with(|| {
                assert_ok!(Gauntlet::create_run(
                    RuntimeOrigin::signed(owner()),
                    settings().into(),
                    layout()
                ));
                roll_to_window(1);
                assert_ok!(Gauntlet::set_params(
                    RuntimeOrigin::signed(owner()),
                    0,
                    other_settings().into()
                ));
                go_back();
                let state = Step::pre_upgrade().unwrap();
                Step::on_runtime_upgrade();
                spoil();
                assert!(Step::post_upgrade(state).is_err());
            });
        }
    }

    #[test]
    fn rows_that_are_not_of_version_2_are_found_beforehand() {
        // As a build between two releases had them: this code's records under version 2.
        ExtBuilder::default().participants(1, 1).build_and_execute(|| {
            roll_to_window(1);
            StorageVersion::new(2).put::<Pallet<Test>>();
            assert!(Step::pre_upgrade().is_err());
            StorageVersion::new(3).put::<Pallet<Test>>();
        });
    }
}

//! Windows and phases of blocks; settings that cannot work are refused with what is wrong.

use codec::{Decode, Encode, MaxEncodedLen};
use proptest::prelude::*;
use protocol::{
    settings::{InnerOptimiser, Settings, SettingsError},
    window::{phase_at, Moment, Phase, Schedule, ScheduleError, ScorePhase},
};

fn schedule() -> Schedule {
    Settings::example().schedule
}

fn check(block: u32, expected: (u64, u32, Phase, ScorePhase)) {
    let (window, offset, phase, score_phase) = expected;
    let expected = Moment { window, offset, phase, score_phase };
    assert_eq!(phase_at(&schedule(), block), Some(expected), "block {block}");
}

#[test]
fn a_boundary_belongs_to_what_follows_it() {
    assert_eq!(phase_at(&schedule(), 4), None);
    check(5, (0, 0, Phase::Commit, ScorePhase::Commit));
    check(12, (0, 7, Phase::Commit, ScorePhase::Commit));
    check(13, (0, 8, Phase::Commit, ScorePhase::Reveal));
    check(14, (0, 9, Phase::Commit, ScorePhase::Reveal));
    check(15, (0, 10, Phase::Reveal, ScorePhase::Reveal));
    check(17, (0, 12, Phase::Reveal, ScorePhase::Settle));
    check(18, (0, 13, Phase::AttestCommit, ScorePhase::Settle));
    check(20, (0, 15, Phase::AttestReveal, ScorePhase::Settle));
    check(21, (0, 16, Phase::Apply, ScorePhase::Settle));
    check(24, (0, 19, Phase::Apply, ScorePhase::Settle));
    check(25, (1, 0, Phase::Commit, ScorePhase::Commit));
}

#[test]
fn the_last_block_number_has_a_window() {
    assert!(phase_at(&schedule(), u32::MAX).is_some());
    assert_eq!(schedule().window_start(u64::MAX), None);
    assert_eq!(schedule().score_phase_end_block(u64::MAX, ScorePhase::Commit), None);
    let no_blocks = Schedule { window_blocks: 0, ..schedule() };
    assert_eq!(phase_at(&no_blocks, 10), None);
}

#[test]
fn boundaries_out_of_order_are_named() {
    let mut wrong = schedule();
    wrong.reveal_end = wrong.commit_end;
    let expected = ScheduleError::Order {
        earlier_name: "commit_end",
        earlier: 10,
        later_name: "reveal_end",
        later: 10,
    };
    assert_eq!(wrong.validate(), Err(expected.clone()));
    assert_eq!(expected.to_string(), "reveal_end (10) must be after commit_end (10)");
    let changes: [fn(&mut Schedule); 9] = [
        |s| s.reveal_end = s.commit_end + 1,
        |s| s.commit_end = 0,
        |s| s.reveal_end = 16,
        |s| s.attest_commit_end = 13,
        |s| s.attest_end = 20,
        |s| s.window_blocks = 16,
        |s| s.score_commit_end = 0,
        |s| s.score_reveal_end = 8,
        |s| s.score_reveal_end = 20,
    ];
    for change in changes {
        let mut wrong = schedule();
        change(&mut wrong);
        assert!(wrong.validate().is_err(), "{wrong:?}");
    }
    assert_eq!(schedule().validate(), Ok(()));
}

#[test]
fn the_example_settings_are_valid_and_survive_their_encodings() {
    let settings = Settings::example();
    assert_eq!(settings.validate(), Ok(()));
    assert_eq!(settings.samples_per_miner(), 32);
    let bytes = settings.encode();
    assert!(bytes.len() <= Settings::max_encoded_len());
    assert_eq!(Settings::decode(&mut bytes.as_slice()), Ok(settings.clone()));
    let json = serde_json::to_string(&settings).unwrap();
    assert_eq!(serde_json::from_str::<Settings>(&json).unwrap(), settings);

    assert!(json.contains("\"optimiser\":\"AdamW\""), "{json}");
    let muon = json.replace("\"AdamW\"", "{\"Muon\":{\"rate_ppb\":4000000}}");
    let muon: Settings = serde_json::from_str(&muon).unwrap();
    assert_eq!(muon.training.optimiser, InnerOptimiser::Muon { rate_ppb: 4_000_000 });
    let outer = "{\"rate_ppm\":1000000,\"warm_up_windows\":0,\"decay_start\":0,\
        \"decay_windows\":0,\"final_rate_ppm\":1000000,\"senders_min_ppm\":1000000}";
    assert!(json.contains(&format!("\"outer\":{outer}")), "{json}");

    let root = format!("\"0x{}\"", "00".repeat(32));
    assert!(json.contains(&format!("\"data_root\":{root}")), "{json}");
    for wrong in ["\"00\"", "\"0x00\"", &root.replace("0x0", "0x+"), &root.replace('x', "")] {
        let json = json.replace(&root, wrong);
        assert!(serde_json::from_str::<Settings>(&json).is_err(), "{wrong}");
    }
}

#[test]
fn settings_out_of_range_are_named_with_their_value() {
    type Change = fn(&mut Settings);
    let changes: [(&str, Change); 48] = [
        ("inner_steps", |s| s.training.inner_steps = 0),
        ("batch_size", |s| s.training.batch_size = 0),
        ("sample_len", |s| s.training.sample_len = 1),
        ("sample_count", |s| s.training.sample_count = 0),
        ("keep", |s| s.training.keep = 0),
        ("keep", |s| s.training.keep = 4_097),
        ("outer.rate_ppm", |s| s.training.outer.rate_ppm = 0),
        ("outer.final_rate_ppm", |s| s.training.outer.final_rate_ppm = 0),
        ("outer.final_rate_ppm", |s| s.training.outer.final_rate_ppm = 1_000_001),
        ("outer.senders_min_ppm", |s| s.training.outer.senders_min_ppm = 1_000_001),
        ("evaluation_rate_ppm", |s| s.training.evaluation_rate_ppm = 0),
        ("error_decay_ppm", |s| s.training.error_decay_ppm = 1_000_001),
        ("optimiser.rate_ppb", |s| s.training.optimiser = InnerOptimiser::Muon { rate_ppb: 0 }),
        ("inner_rate_ppb", |s| s.training.inner_rate_ppb = 0),
        ("evaluation_samples", |s| s.training.evaluation_samples = 0),
        ("uid_max", |s| s.incentive.uid_max = 4_097),
        ("accepted_max", |s| s.incentive.accepted_max = 257),
        ("evaluations_per_validator", |s| s.incentive.evaluations_per_validator = 257),
        ("power", |s| s.incentive.power = 17),
        ("proof_rate_ppm", |s| s.incentive.proof_rate_ppm = 0),
        ("gain_rate_min_ppm", |s| s.incentive.gain_rate_min_ppm = 1_000_001),
        ("proof_gate_ppm", |s| s.incentive.proof_gate_ppm = 1_000_001),
        ("proof_full_ppm", |s| s.incentive.proof_full_ppm = s.incentive.proof_gate_ppm),
        ("knee_ppm", |s| s.incentive.knee_ppm = 99_999),
        ("permits_max", |s| s.incentive.permits_max = 65),
        ("unscored_max", |s| s.incentive.unscored_max = s.incentive.accepted_max + 1),
        ("evaluators_per_miner", |s| s.incentive.evaluators_per_miner = 65),
        // 200 miners, 16 evaluators each, 32 validators: 100 evaluations a validator.
        ("evaluations_per_validator", |s| {
            s.incentive.uid_max = 200;
            s.incentive.permits_max = 32;
        }),
        // A block holds fewer than 1500 reveals of four chunks.
        ("uid_max", |s| {
            s.incentive.uid_max = 1_500;
            s.incentive.evaluators_per_miner = 1;
            s.incentive.challenge_chunks = 4;
            s.schedule.reveal_end = s.schedule.commit_end + 2;
        }),
        ("evaluation_quorum_ppm", |s| s.incentive.evaluation_quorum_ppm = 0),
        ("missed_penalty_ppm", |s| s.incentive.missed_penalty_ppm = 1_000_001),
        ("validator_stake_min", |s| s.incentive.validator_stake_min = 0),
        ("unbonding_windows", |s| s.staking.unbonding_windows = 0),
        ("unbonding_windows", |s| s.staking.unbonding_windows = u32::MAX),
        ("delegation_min", |s| s.staking.delegation_min = 0),
        ("take_max_ppm", |s| s.staking.take_max_ppm = 1_000_001),
        ("take_step_ppm", |s| s.staking.take_step_ppm = 0),
        ("take_delay_windows", |s| s.staking.take_delay_windows = 0),
        ("miner_slash_ppm", |s| s.disputes.miner_slash_ppm = 1_000_001),
        ("validator_slash_ppm", |s| s.disputes.validator_slash_ppm = 1_000_001),
        ("copy_overlap_ppm", |s| s.disputes.copy_overlap_ppm = 899_999),
        ("challenge_bond", |s| s.disputes.challenge_bond = 0),
        ("answer_blocks", |s| s.disputes.answer_blocks = 0),
        ("dispute_bond", |s| s.disputes.dispute_bond = 0),
        ("jurors", |s| s.disputes.jurors = 16),
        ("evaluation_tolerance_ppm", |s| s.disputes.evaluation_tolerance_ppm = 1_000_001),
        ("challenge_chunks", |s| s.incentive.challenge_chunks = 0),
        ("challenge_chunks", |s| s.incentive.challenge_chunks = 5),
    ];
    for (name, change) in changes {
        let mut settings = Settings::example();
        change(&mut settings);
        match settings.validate() {
            Err(SettingsError::OutOfRange { field, value, min, max }) => {
                assert_eq!(field, name);
                assert!(value < min || value > max);
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn settings_that_contradict_one_another_are_refused() {
    let mut settings = Settings::example();
    settings.training.sample_count = 64 * 32 - 1;
    let error = SettingsError::TooFewSamples { needed: 2_048, sample_count: 2_047 };
    assert_eq!(settings.validate(), Err(error));
    settings.training.sample_count = 64 * 32;
    assert_eq!(settings.validate(), Ok(()));
    settings.training.inner_steps = u32::MAX;
    settings.training.batch_size = u32::MAX;
    assert!(matches!(settings.validate(), Err(SettingsError::TooFewSamples { .. })));

    let mut settings = Settings::example();
    settings.training.outer.warm_up_windows = 10;
    settings.training.outer.decay_start = 9;
    assert_eq!(settings.validate(), Ok(()), "there is no decay");
    settings.training.outer.decay_windows = 1;
    let error = SettingsError::DecayInWarmUp { decay_start: 9, warm_up_windows: 10 };
    assert_eq!(settings.validate(), Err(error.clone()));
    assert_eq!(
        error.to_string(),
        "the outer rate decays from window 9 on, but warms up until window 10"
    );
    settings.training.outer.decay_start = 10;
    assert_eq!(settings.validate(), Ok(()));

    let mut settings = Settings::example();
    settings.emission.owner_ppm += 1;
    assert_eq!(settings.validate(), Err(SettingsError::EmissionSum { sum: 1_000_001 }));
    settings.emission.owner_ppm = u32::MAX;
    settings.emission.miners_ppm = u32::MAX;
    assert!(matches!(settings.validate(), Err(SettingsError::EmissionSum { .. })));
}

#[test]
fn no_setting_locks_pay_or_takes_all_of_it() {
    let refused = |change: fn(&mut Settings), name: &str| {
        let mut settings = Settings::example();
        change(&mut settings);
        let error = settings.validate();
        let Err(SettingsError::OutOfRange { field, .. }) = error else {
            panic!("{name}: {error:?}");
        };
        assert_eq!(field, name);
    };
    refused(|s| s.incentive.claim_delay_windows = 33, "claim_delay_windows");
    refused(|s| (s.emission.owner_ppm, s.emission.miners_ppm) = (250_001, 449_999), "owner_ppm");
    refused(|s| s.emission.release_ppm = 0, "release_ppm");
    refused(|s| s.emission.release_ppm = 100_001, "release_ppm");
    let mut settings = Settings::example();
    settings.incentive.claim_delay_windows = 32;
    (settings.emission.owner_ppm, settings.emission.miners_ppm) = (250_000, 450_000);
    settings.emission.release_ppm = 100_000;
    assert_eq!(settings.validate(), Ok(()));
}

proptest! {
    #[test]
    fn blocks_and_windows_agree(start in 0u32..1000, window in 0u64..100_000, offset in 0u32..20) {
        let schedule = Schedule { start_block: start, ..schedule() };
        let block = schedule.window_start(window).unwrap() + offset;
        let moment = phase_at(&schedule, block).unwrap();
        prop_assert_eq!((moment.window, moment.offset), (window, offset));
        // The phase is the first one that has not ended.
        let phases = [
            Phase::Commit,
            Phase::Reveal,
            Phase::AttestCommit,
            Phase::AttestReveal,
            Phase::Apply,
        ];
        let first = phases.into_iter().find(|p| block < schedule.phase_end_block(window, *p).unwrap());
        prop_assert_eq!(first, Some(moment.phase));
        if let Some(scored) = window.checked_sub(1) {
            let phases = [ScorePhase::Commit, ScorePhase::Reveal, ScorePhase::Settle];
            let first = phases
                .into_iter()
                .find(|p| block < schedule.score_phase_end_block(scored, *p).unwrap());
            prop_assert_eq!(first, Some(moment.score_phase));
        }
    }

    #[test]
    fn no_block_panics(
        block in any::<u32>(),
        window in any::<u64>(),
        numbers in proptest::array::uniform8(any::<u32>()),
    ) {
        let [start_block, window_blocks, commit_end, reveal_end, attest_commit_end, attest_end, score_commit_end, score_reveal_end] = numbers;
        let schedule = Schedule { start_block, window_blocks, commit_end, reveal_end, attest_commit_end, attest_end, score_commit_end, score_reveal_end };
        let _ = (phase_at(&schedule, block), schedule.validate(), schedule.window_start(window));
        let _ = schedule.phase_end_block(window, Phase::Apply);
        let _ = schedule.score_phase_end_block(window, ScorePhase::Settle);
    }
}

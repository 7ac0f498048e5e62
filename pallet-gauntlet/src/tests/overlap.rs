//! Training that overlaps with the exchange: when the seed of the next window is fixed, and when it does not count.

use frame_support::assert_ok;
use protocol::{
    seed::{mix_salt, window_seed},
    settings::Settings,
    window::Phase,
    Hash, Window,
};

use crate::{mock::*, *};

/// Settings of a run whose training overlaps with its exchange.
fn overlapping() -> Settings {
    let mut settings = settings();
    settings.training.overlap = true;
    settings
}

/// A chain with such a run, three validators and a miner.
fn chain() -> ExtBuilder {
    ExtBuilder::default().settings(overlapping()).participants(1, 3)
}

/// What is drawn for `window` in the block `offset` of window `of`, after `mix`.
fn drawn(of: Window, offset: u32, window: Window, mix: &Hash) -> Hash {
    let block = run().schedule.window_start(of).unwrap() + offset;
    let parent = sp_io::hashing::blake2_256(&(block - 1).to_le_bytes());
    window_seed(&parent, 0, window, mix)
}

#[test]
fn the_next_seed_is_fixed_with_the_challenge_and_the_next_window_takes_it() {
    chain().build_and_execute(|| {
        let schedule = run().schedule;
        roll_to(START + schedule.commit_end);
        assert_eq!(record(0).next_seed, None);
        roll_to(START + schedule.challenge_offset());
        let next = drawn(0, schedule.challenge_offset(), 1, &[0; 32]);
        assert_eq!(record(0).next_seed, Some(next));
        attest_nothing(0);
        roll_to_window(1);
        assert_eq!(record(0).next_seed, Some(next));
        assert_eq!(record(1).seed, next);
        // Who evaluates whom is drawn as ever.
        assert_eq!(record(1).scoring_seed, drawn(1, 0, 1, &[0; 32]));
        assert!(events().contains(&Event::WindowOpened { run: 0, window: 1, seed: next }));
    });
}

#[test]
fn a_first_window_and_a_run_without_overlap_draw_their_seeds_when_they_open() {
    chain().build_and_execute(|| {
        roll_to_window(0);
        assert_eq!(record(0).seed, drawn(0, 0, 0, &[0; 32]));
        assert_eq!(record(0).scoring_seed, record(0).seed);
    });
    ExtBuilder::default().participants(1, 1).build_and_execute(|| {
        roll_to_window(1);
        assert_eq!(record(0).next_seed, None);
        assert_eq!(record(1).seed, drawn(1, 0, 1, &[0; 32]));
        assert_eq!(record(1).scoring_seed, record(1).seed);
    });
}

#[test]
fn a_salt_that_is_revealed_later_changes_what_scores_are_drawn_from_and_not_the_seed() {
    chain().build_and_execute(|| {
        play_window(0, 1, 3);
        roll_to_window(1);
        (0..3).for_each(|number| commit_scores(0, number, &evaluations(1)));
        let schedule = run().schedule;
        let start = schedule.window_start(1).unwrap();
        roll_to(start + schedule.score_commit_end);
        reveal_scores(0, 0, &evaluations(1));
        roll_to(start + schedule.challenge_offset());
        let before = mix_salt(&[0; 32], 0, 0, &[0; 32]);
        let next = drawn(1, schedule.challenge_offset(), 2, &before);
        assert_eq!(record(1).next_seed, Some(next));
        reveal_scores(0, 1, &evaluations(1));
        assert_eq!(record(1).next_seed, Some(next));
        attest_nothing(1);
        roll_to_window(2);
        assert_eq!(record(2).seed, next);
        let after = mix_salt(&before, 0, 1, &[1; 32]);
        assert_eq!(record(2).scoring_seed, drawn(2, 0, 2, &after));
    });
}

#[test]
fn after_a_pause_the_seed_is_drawn_when_the_window_opens() {
    chain().build_and_execute(|| {
        roll_to_phase(0, Phase::Reveal);
        let early = record(0).next_seed.unwrap();
        assert_ok!(Gauntlet::pause_run(RuntimeOrigin::root(), 0));
        roll_to_window(1);
        assert_ne!(record(1).seed, early);
        assert_eq!(record(1).seed, drawn(1, 0, 1, &[0; 32]));
        // A paused window has no use for the next one's.
        roll_to_phase(1, Phase::Reveal);
        assert_eq!(record(1).next_seed, None);
        assert_ok!(Gauntlet::resume_run(RuntimeOrigin::root(), 0));
        roll_to_window(2);
        assert_eq!(record(2).seed, drawn(2, 0, 2, &[0; 32]));
        attest_nothing(2);
        roll_to_window(3);
        assert_eq!(Some(record(3).seed), record(2).next_seed);
    });
}

#[test]
fn after_a_stall_the_seed_is_drawn_when_the_window_opens() {
    for phase in [Phase::Reveal, Phase::Apply] {
        ClockSkew::set(0);
        chain().build_and_execute(|| {
            roll_to_phase(0, phase);
            let early = record(0).next_seed.unwrap();
            let left = run().schedule.window_start(1).unwrap() - Gauntlet::now();
            roll_clock(left - 1);
            roll_to(Gauntlet::now() + 1);
            assert_eq!(run().window, Some(1), "{phase:?}");
            assert!(record(0).excused);
            assert_ne!(record(1).seed, early);
            assert_eq!(record(1).seed, record(1).scoring_seed);
        });
    }
}

#[test]
fn after_a_window_that_is_not_attested_the_seed_is_drawn_when_the_next_one_opens() {
    chain().build_and_execute(|| {
        roll_to_phase(0, Phase::Reveal);
        let early = record(0).next_seed.unwrap();
        roll_to_window(1);
        assert!(record(0).excused);
        assert_ne!(record(1).seed, early);
        assert_eq!(record(1).seed, record(1).scoring_seed);
    });
}

#[test]
fn settings_of_the_next_window_leave_a_seed_that_is_fixed_as_it_is() {
    chain().build_and_execute(|| {
        roll_to_phase(0, Phase::Reveal);
        let early = record(0).next_seed;
        assert!(early.is_some());
        assert_ok!(Gauntlet::force_params(RuntimeOrigin::root(), 0, settings().into()));
        attest_nothing(0);
        roll_to_window(1);
        assert!(!settings_of(1).training.overlap);
        assert_eq!(Some(record(1).seed), early);
        roll_to_window(2);
        assert_eq!(record(1).next_seed, None);
        assert_eq!(record(2).seed, record(2).scoring_seed);
    });
}

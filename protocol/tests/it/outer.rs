//! The outer rate of a window: its shape, its edges, and no number that breaks it.

use proptest::prelude::*;
use protocol::{
    aggregate::{rate, OuterRule},
    settings::{OuterStep, Settings, PPM},
    Window,
};

fn check(outer: &OuterStep, expected: &[(Window, u32)]) {
    for (window, rate_ppm) in expected {
        assert_eq!(outer.rate_ppm_at(*window), *rate_ppm, "window {window} of {outer:?}");
    }
}

#[test]
fn a_constant_rate_is_that_of_every_window() {
    let outer = OuterStep::constant(700_000);
    check(&outer, &[(0, 700_000), (1, 700_000), (u64::MAX, 700_000)]);
    let rule = OuterRule::of_window(&outer, 5);
    assert_eq!(rule, OuterRule { rate: 0.7, senders_min_ppm: PPM });
    assert!(!rule.counts_senders());
}

#[test]
fn a_warm_up_grows_to_the_full_rate_and_never_is_0() {
    let outer = OuterStep { warm_up_windows: 4, ..OuterStep::constant(1_000_000) };
    check(&outer, &[(0, 250_000), (1, 500_000), (2, 750_000), (3, 1_000_000), (4, 1_000_000)]);
    let least = OuterStep { warm_up_windows: 10, ..OuterStep::constant(3) };
    check(&least, &[(0, 1), (5, 1), (6, 2), (9, 3), (10, 3)]);
    let one = OuterStep { warm_up_windows: 1, ..OuterStep::constant(9) };
    check(&one, &[(0, 9), (1, 9)]);
}

#[test]
fn a_decay_falls_to_the_final_rate_and_stays() {
    let outer = OuterStep {
        warm_up_windows: 2,
        decay_start: 10,
        decay_windows: 4,
        final_rate_ppm: 200_000,
        ..OuterStep::constant(1_000_000)
    };
    let fall = [(10, 1_000_000), (11, 800_000), (12, 600_000), (13, 400_000), (14, 200_000)];
    check(&outer, &fall);
    check(&outer, &[(0, 500_000), (9, 1_000_000), (15, 200_000), (u64::MAX, 200_000)]);
    // What is left over by the division stays with the rate.
    let thirds = OuterStep { decay_windows: 3, final_rate_ppm: 1, ..OuterStep::constant(11) };
    check(&thirds, &[(0, 11), (1, 8), (2, 5), (3, 1)]);
    let never = OuterStep { decay_windows: 0, ..outer };
    check(&never, &[(10, 1_000_000), (u64::MAX, 1_000_000)]);
}

#[test]
fn the_largest_numbers_overflow_nothing() {
    let largest = OuterStep {
        rate_ppm: u32::MAX,
        warm_up_windows: u32::MAX,
        decay_start: u64::MAX,
        decay_windows: u32::MAX,
        final_rate_ppm: 1,
        senders_min_ppm: 0,
    };
    check(&largest, &[(0, 1), (u64::from(u32::MAX) - 1, u32::MAX), (u64::MAX, u32::MAX)]);
    let early = OuterStep { warm_up_windows: 0, decay_start: 1, ..largest };
    check(&early, &[(u64::from(u32::MAX), 2), (u64::from(u32::MAX) + 1, 1), (u64::MAX, 1)]);
    assert_eq!(OuterRule::of_window(&early, u64::MAX).rate, rate(1));
}

fn any_outer() -> impl Strategy<Value = OuterStep> {
    let windows = || prop_oneof![Just(0u32), 1u32..20, any::<u32>()];
    let start = prop_oneof![0u64..40, any::<u64>()];
    (any::<u32>(), windows(), start, windows(), any::<u32>(), any::<u32>()).prop_map(
        |(
            rate_ppm,
            warm_up_windows,
            decay_start,
            decay_windows,
            final_rate_ppm,
            senders_min_ppm,
        )| OuterStep {
            rate_ppm,
            warm_up_windows,
            decay_start,
            decay_windows,
            final_rate_ppm,
            senders_min_ppm,
        },
    )
}

proptest! {
    #[test]
    fn the_rate_rises_then_falls_within_its_bounds(
        drawn in any_outer(),
        windows in [prop_oneof![0u64..60, any::<u64>()], prop_oneof![0u64..60, any::<u64>()]],
    ) {
        // No number panics; of valid ones the shape holds.
        let _ = (drawn.rate_ppm_at(windows[0]), OuterRule::of_window(&drawn, windows[1]));
        let mut settings = Settings::example();
        settings.training.outer = OuterStep {
            final_rate_ppm: drawn.final_rate_ppm.clamp(1, drawn.rate_ppm.max(1)),
            rate_ppm: drawn.rate_ppm.max(1),
            senders_min_ppm: drawn.senders_min_ppm % (PPM + 1),
            decay_start: drawn.decay_start.max(u64::from(drawn.warm_up_windows)),
            ..drawn
        };
        prop_assert_eq!(settings.validate(), Ok(()));
        let outer = settings.training.outer;
        let [early, late] = [windows[0].min(windows[1]), windows[0].max(windows[1])];
        let [first, second] = [outer.rate_ppm_at(early), outer.rate_ppm_at(late)];
        prop_assert!((1..=outer.rate_ppm).contains(&first));
        if late < outer.decay_start || outer.decay_windows == 0 {
            prop_assert!(first <= second);
        } else if early >= u64::from(outer.warm_up_windows) {
            prop_assert!(first >= second && second >= outer.final_rate_ppm);
        }
    }
}

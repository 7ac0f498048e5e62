//! What the calls and steps are charged is at least what was measured.

use frame_support::weights::Weight;

use crate::{
    mock::Test,
    weights::{measured::MeasuredWeight, SubstrateWeight, WeightInfo},
};

/// The weights of each function at the ends of its parameters' ranges, as charged and as measured.
macro_rules! corners {
    ($($name:ident($($range:expr),*);)+) => {
        [$((stringify!($name), corners!(@ $name [] $($range),*))),+]
    };
    (@ $name:ident [$($arg:expr),*]) => {
        vec![(
            <SubstrateWeight<Test> as WeightInfo>::$name($($arg),*),
            <MeasuredWeight<Test> as WeightInfo>::$name($($arg),*),
        )]
    };
    (@ $name:ident [$($arg:expr),*] $range:expr $(, $rest:expr)*) => {{
        let mut found: Vec<(Weight, Weight)> = corners!(@ $name [$($arg,)* *$range.start()] $($rest),*);
        found.extend(corners!(@ $name [$($arg,)* *$range.end()] $($rest),*));
        found
    }};
}

/// The table's file, for the number of its functions.
const MEASURED: &str = include_str!("../weights/measured.rs");

#[test]
fn nothing_is_charged_less_time_than_was_measured() {
    let functions = corners! {
        create_run(1..=1024);
        register_miner(1..=1024);
        leave_miner();
        evict();
        withdraw_bond();
        rotate_hot_key();
        offer_cold();
        cancel_cold();
        accept_cold();
        make_changes(1..=16);
        register_validator();
        add_stake();
        deregister_validator();
        unstake();
        withdraw_unbonded(1..=63);
        delegate();
        undelegate();
        set_take();
        compound();
        cancel_slash();
        apply_slash();
        report_copy();
        report_malformed();
        challenge_data();
        answer_data();
        time_out();
        dispute_evaluation();
        commit_verdict();
        reveal_verdict();
        close_dispute();
        announce();
        commit_update();
        reveal_update(1..=4);
        commit_attestation();
        reveal_attestation();
        commit_scores();
        reveal_scores(0..=256);
        claim();
        set_run_weight();
        fund_run();
        set_params();
        pause_run();
        resume_run();
        close_run();
        reap_run(0..=1024);
        offer_run();
        accept_run();
        cancel_params();
        look_at_schedule(1..=16);
        look_at_queue(1..=16);
        look_at_run();
        enqueue();
        open_window();
        draw_challenge();
        accept(0..=1024, 0..=64);
        settle_begin(0..=1024, 0..=64);
        settle_yuma(1..=1024, 1..=64);
        settle_page(1..=64);
        settle_close(0..=64);
        prune(0..=2048);
        settle_match(0..=1536);
    };
    assert_eq!(functions.len(), MEASURED.matches("    fn ").count());
    for (name, weights) in functions {
        for (charged, measured) in weights {
            let (charged, measured) = (charged.ref_time(), measured.ref_time());
            assert!(charged >= measured, "{name}: {charged} is charged, {measured} were measured");
        }
    }
}

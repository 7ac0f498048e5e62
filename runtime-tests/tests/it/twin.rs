//! The real runtime and the fake chain of `node-client` as twins: the same random calls, block by
//! block, and after each block equal outcomes, events and state.

use futures::FutureExt;
use node_client::chain::{fake::FakeChain, Chain, RunCost};
use pallet_gauntlet::LayoutVec;
use protocol::{
    layout::{Layout, LAYOUT_TENSORS_MAX},
    Planck,
};
use runtime::{AccountId, Gauntlet};

use self::{
    chains::{Chains, Counts, Twins},
    draw::{opening_calls, register_miner, Script, MINERS, VALIDATORS},
    state::Difference,
};
use crate::network::{endowed, genesis_storage, miner_hot, miner_key, validator_hot, RUN};

mod state;

mod real;

mod fake;

mod chains;

mod draw;

/// The seeds; the environment's `GAUNTLET_TEST_SEED` is one more.
const SEEDS: [u64; 4] = [3, 9, 11, 2_609];
/// Blocks of each seed: 75 windows of the quick run, more than an account's claims list apart.
const BLOCKS: u32 = 380;
const CALLS_PER_BLOCK: u32 = 14;

/// Everybody who has money or signs.
fn accounts() -> Vec<AccountId> {
    let hots = (0..MINERS).map(miner_hot).chain((0..VALIDATORS).map(validator_hot));
    (0..14).map(endowed).chain(hots).collect()
}

/// Adds to `counts` what a walk of random calls did; fails at the first block that differs.
fn walk(seed: u64, counts: &mut Counts) {
    println!("GAUNTLET_TEST_SEED={seed}");
    Twins::execute(seed, &accounts(), |twins| {
        let mut script = Script::new(seed);
        for (signer, call) in opening_calls() {
            twins.call(Chains::Both, &signer, call);
        }
        assert_equal(twins.end_block());
        for run in 0..2 {
            twins.set_run_weight(run, 1 + run as u16);
        }
        for _ in 1..BLOCKS {
            if let Some((run, weight)) = script.draw_weight() {
                twins.set_run_weight(run, weight);
            }
            for _ in 0..CALLS_PER_BLOCK {
                let (signer, call) = script.draw();
                twins.call(Chains::Both, &signer, call);
            }
            assert_equal(twins.end_block());
        }
        counts.add(&twins.counts);
    });
}

fn assert_equal(differences: Vec<Difference>) {
    assert!(differences.is_empty(), "the fake is not the runtime's twin:\n{differences:#?}");
}

#[test]
fn the_fake_chain_does_what_the_runtime_does() {
    let own_seed = std::env::var("GAUNTLET_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut counts = Counts::default();
    for seed in SEEDS.into_iter().chain(own_seed) {
        let mut of_walk = Counts::default();
        walk(seed, &mut of_walk);
        // What each walk does, whatever its seed: every kind of proof and what follows from it.
        for call in ["report_copy", "report_malformed", "challenge_data", "answer_data", "time_out"]
        {
            let (done, _) = of_walk.calls.get(call).copied().unwrap_or_default();
            assert!(done > 0, "{call} was never done from seed {seed}");
        }
        counts.add(&of_walk);
    }
    let (done, refused) = counts.total();
    println!("{} calls: {done} done, {refused} refused by both; {counts:#?}", done + refused);

    // The walks went where they should.
    assert!(done >= 1_500 && refused >= 2_000, "{done} done, {refused} refused");
    assert_eq!(counts.calls.len(), 28, "every call was made");
    for (name, (done, refused)) in &counts.calls {
        assert!(*done > 0, "{name} was never done");
        assert!(*refused > 0, "{name} was never refused");
    }
    // All events of the calls that the twins share but `WindowVoid` and `RunSwept`, which no call can bring about.
    assert_eq!(counts.events.len(), 35, "{:?}", counts.events);
    // Most errors of those calls, and those of the node and of Balances. Never met are `Internal`, `ClaimTooSmall`,
    // `TooManySponsors` (there are less accounts than places), `TooManyChallenges`, for which the walks are too short, and
    // `ChunkTooCommon` (no payload is of zeros).
    let errors: Vec<&str> = counts.errors.keys().map(String::as_str).collect();
    assert_eq!(errors.len(), 60 + 3, "{errors:?}");
}

#[test]
fn the_fake_chain_says_what_a_run_costs_as_the_runtime_does() {
    sp_io::TestExternalities::from(genesis_storage()).execute_with(|| {
        let fake = FakeChain::new(1, []);
        for tensors in [0, 1, 63, 64, LAYOUT_TENSORS_MAX as usize] {
            let layout = Layout(vec![4_096; tensors]);
            let told = fake.run_cost(&layout, None).now_or_never().expect("it never waits");
            let RunCost { deposit, foundation } = told.expect("it always answers");
            let real = Gauntlet::run_cost(LayoutVec::truncate_from(layout.0));
            assert_eq!((real.deposit, real.foundation), (deposit, foundation), "{tensors}");
        }
    });
}

/// The comparison is worth something: it finds one call that only the runtime got.
#[test]
fn a_call_that_only_one_of_them_got_is_found() {
    Twins::execute(1, &accounts(), |twins| {
        for (signer, call) in opening_calls() {
            twins.call(Chains::Both, &signer, call);
        }
        assert_equal(twins.end_block());
        let register = register_miner(&miner_key(MINERS - 1), RUN, &endowed(1), Planck::MAX);
        twins.call(Chains::RealOnly, &endowed(1), register.clone());
        let found = twins.end_block();
        let whats: Vec<&str> = found.iter().map(|found| found.what.as_str()).collect();
        assert_eq!(whats, ["events", "balances", "run 0: miners"], "{found:#?}");

        // The fake now takes what the runtime refuses.
        twins.call(Chains::Both, &endowed(1), register);
        let found = twins.end_block();
        let outcome = found.iter().find(|found| found.what == "outcome of call 0, register_miner");
        let outcome = outcome.expect("the outcome differs");
        assert!(outcome.real.contains("HotKeyTaken"), "{outcome:?}");
        assert_eq!(outcome.fake, "Ok(())");
    });
}

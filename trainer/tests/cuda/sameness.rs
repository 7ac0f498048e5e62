//! What must not change a single bit: what is computed again, the order in which streams and lanes run, how the
//! batch is cut.

use trainer::budget::Recompute;
use trainer::cuda::device::CudaSettings;

use crate::emulators::Emulators;
use crate::models::{config, learn, learner_settings, small};

/// Orders of streams.
const SEEDS: u64 = 50;

#[test]
fn what_is_computed_again_is_the_same() {
    let config = config((64, 2, 1), 72, false);
    for world in [1, 2] {
        let runs = [Recompute::None, Recompute::NormSwiglu, Recompute::Full].map(|recompute| {
            let settings = CudaSettings { recompute, ..CudaSettings::default() };
            learn(&Emulators::new(world).device(settings), &config, &learner_settings(2, false), 2)
        });
        for (other, name) in runs[1..].iter().zip(["norm-swiglu", "full"]) {
            runs[0].assert_same(other, name);
        }
    }
}

#[test]
fn the_order_of_streams_changes_nothing() {
    let (config, settings) = (small(), learner_settings(2, false));
    let run = |world, seed| {
        let device = Emulators::new(world).seeded(seed).device(CudaSettings::default());
        learn(&device, &config, &settings, 2)
    };
    let first = run(1, 0);
    for seed in 1..SEEDS {
        // Two in one GPU's streams alone, the others among ranks, too.
        let world = if seed % 5 == 1 { 1 } else { 2 };
        first.assert_same(&run(world, seed), &format!("seed {seed}, {world} GPUs"));
    }
}

#[test]
fn the_order_of_streams_changes_nothing_for_muon_and_states_on_the_host() {
    let (config, settings) = (small(), learner_settings(1, true));
    let run = |world, seed, offload| {
        let cuda = CudaSettings { offload, ..CudaSettings::default() };
        learn(&Emulators::new(world).seeded(seed).device(cuda), &config, &settings, 2)
    };
    let first = run(1, 0, false);
    for seed in 1..12 {
        let world = [1, 2, 4][seed as usize % 3];
        let name = format!("seed {seed}, {world} GPUs");
        first.assert_same(&run(world, seed, seed % 2 == 1), &name);
    }
}

/// That the tests above would find an event that is not waited for: with none of them, other bits come out.
#[test]
fn streams_that_do_not_wait_change_the_result() {
    let config = small();
    for (world, offload) in [(2, false), (1, true)] {
        let cuda = CudaSettings { offload, ..CudaSettings::default() };
        let settings = learner_settings(1, false);
        let run = |emulators: Emulators| learn(&emulators.device(cuda), &config, &settings, 2);
        let right = run(Emulators::new(world));
        let runs = (1..6).map(|seed| run(Emulators::new(world).seeded(seed).forgetting_waits()));
        let wrong = runs.filter(|run| *run != right).count();
        assert!(wrong > 0, "{world} GPUs: nobody needs the events");
    }
}

#[test]
fn a_second_run_has_the_same_bits() {
    let config = config((128, 2, 1), 70, false);
    let run = || {
        let device = Emulators::new(1).device(CudaSettings::default());
        learn(&device, &config, &learner_settings(2, true), 3)
    };
    run().assert_same(&run(), "the second run");
}

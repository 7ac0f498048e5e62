//! Any number of GPUs has the same bits: sums are taken in the order of micro-batches, rounding depends on a value's
//! number in the model, and a matrix that needs to be whole is whole somewhere.

use trainer::cuda::device::CudaSettings;
use trainer::ModelConfig;

use crate::emulators::Emulators;
use crate::models::{config, learn, learner_settings, small};

fn worlds_agree(config: &ModelConfig, muon: bool, offload: bool) {
    let cuda = CudaSettings { offload, ..CudaSettings::default() };
    let run =
        |world| learn(&Emulators::new(world).device(cuda), config, &learner_settings(1, muon), 3);
    let alone = run(1);
    for world in [2, 4, 8] {
        alone.assert_same(&run(world), &format!("{world} GPUs"));
    }
}

#[test]
fn adamw_has_the_same_bits_on_1_2_4_and_8_gpus() {
    worlds_agree(&small(), false, false);
    worlds_agree(&config((128, 4, 2), 33, false), false, false);
}

#[test]
fn muon_has_the_same_bits_on_1_2_4_and_8_gpus() {
    worlds_agree(&small(), true, false);
    worlds_agree(&config((128, 4, 2), 33, false), true, false);
}

#[test]
fn states_on_the_host_have_the_same_bits() {
    worlds_agree(&small(), false, true);
    worlds_agree(&small(), true, true);
    let run = |offload| {
        let cuda = CudaSettings { offload, ..CudaSettings::default() };
        learn(&Emulators::new(2).device(cuda), &small(), &learner_settings(1, true), 2)
    };
    run(false).assert_same(&run(true), "on the host");
}

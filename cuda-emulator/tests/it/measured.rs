//! What `gauntlet doctor --cuda` measures runs: on the emulator, whose times mean nothing.

use cuda_emulator::gpu::{Behaviour, Emulated};
use trainer::cuda::measure::{self, Sizes};
use trainer::cuda::Product;

#[test]
fn every_measurement_is_made_and_stays_in_its_memory() {
    let gpu = Emulated::new(Behaviour::default());
    let compare = |_: &Product, _: u32| Ok(vec![2e-3, 1e-3]);
    let measured = measure::all(&gpu, &Sizes::SMALL, Some(&compare)).unwrap();
    assert_eq!(measured.len(), 4 * 3 * 2 + 2 + 4 + 4);
    for one in &measured {
        assert!(one.seconds > 0.0 && one.rate.is_finite(), "{one:?}");
    }
    assert!(gpu.guards_are_whole());
}

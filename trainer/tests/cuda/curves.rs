//! Training on the emulated GPU goes as it does on the CPU with parameters in bf16.

use trainer::cuda::device::CudaSettings;
use trainer::learner::LearnerSettings;
use trainer::{
    AdamWSettings, Cpu, Device, Model, ModelConfig, MuonSettings, Precision, RateSchedule, Shape,
    Threads,
};

use crate::emulators::Emulators;
use crate::samples::MemorySamples;

const STEPS: u64 = 200;

/// Relative distance of the losses of a step. Rounding (bf16 activations and averages) makes two trainings drift apart
/// slowly.
const TOLERANCE: f32 = 1e-2;

/// `nano` with shorter samples.
fn config() -> ModelConfig {
    ModelConfig { seq_len: 48, ..ModelConfig::preset("nano").unwrap() }
}

fn losses(device: &dyn Device, muon: Option<MuonSettings>) -> Vec<f32> {
    let (config, adamw) = (config(), AdamWSettings::default());
    let settings = LearnerSettings { micro_batch: 2, adamw, muon, precision: Precision::Bf16 };
    let mut learner = device.learner(&config, &settings).unwrap();
    learner.load(&mut &Model::init(&config, 1).unwrap()).unwrap();
    // Each sample once: a training that repeats few of them ends where rounding alone moves losses.
    let source = MemorySamples::words(config.seq_len, 4 * STEPS as usize, 5);
    let rates =
        RateSchedule { peak_rate: 1e-3, floor: 0.1, warm_up_steps: 10, shape: Shape::Cosine };
    let step = |step: u64| {
        let ids: Vec<u64> = (step * 4..step * 4 + 4).collect();
        let gradient = learner.gradient(&source, &ids).unwrap();
        let rate = rates.rate(step + 1, STEPS);
        learner.step(rate, gradient.clip_factor(1.0)).unwrap();
        gradient.loss
    };
    (0..STEPS).map(step).collect()
}

fn curves_agree(muon: Option<MuonSettings>) {
    let gpu = losses(&Emulators::new(1).device(CudaSettings::default()), muon);
    let cpu = losses(&Cpu::new(Threads::single()), muon);
    for (step, (gpu, cpu)) in gpu.iter().zip(&cpu).enumerate() {
        println!("{:3} {gpu:.4} {cpu:.4} {:+.4}", step + 1, gpu / cpu - 1.0);
    }
    assert!(cpu[cpu.len() - 1] < 0.6 * cpu[0], "nothing is learnt: {cpu:?}");
    for (step, (gpu, cpu)) in gpu.iter().zip(&cpu).enumerate() {
        let relative = (gpu / cpu - 1.0).abs();
        assert!(relative < TOLERANCE, "step {}: {gpu} and {cpu}", step + 1);
    }
}

#[test]
fn two_hundred_steps_of_adamw_lose_as_the_cpu_does() {
    curves_agree(None);
}

#[test]
fn two_hundred_steps_of_muon_lose_as_the_cpu_does() {
    curves_agree(Some(MuonSettings::default()));
}

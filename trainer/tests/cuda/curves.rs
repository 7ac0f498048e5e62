//! Training on the emulated GPU goes as it does on the CPU with parameters in bf16.

use trainer::cuda::device::CudaSettings;
use trainer::learner::LearnerSettings;
use trainer::{
    warm_up, AdamWSettings, Cpu, Device, Model, ModelConfig, MuonSettings, Precision, Threads,
};

use crate::emulators::Emulators;
use crate::models::samples;

const STEPS: u64 = 60;

/// Steps over which losses are averaged.
const TOGETHER: usize = 10;

/// Relative distance of mean losses of ten steps. Rounding (bf16 activations and averages) makes two trainings drift
/// apart slowly.
const TOLERANCE: f32 = 1e-2;

/// Relative distance of the losses of a step: late in a training that repeats its samples, that of one batch moves by
/// more than a hundredth from rounding alone.
const STEP_TOLERANCE: f32 = 3e-2;

/// `nano` with shorter samples.
fn config() -> ModelConfig {
    ModelConfig { seq_len: 48, ..ModelConfig::preset("nano").unwrap() }
}

fn losses(device: &dyn Device, muon: Option<MuonSettings>) -> Vec<f32> {
    let (config, adamw) = (config(), AdamWSettings::default());
    let settings = LearnerSettings { micro_batch: 2, adamw, muon, precision: Precision::Bf16 };
    let mut learner = device.learner(&config, &settings).unwrap();
    learner.load(&mut &Model::init(&config, 1).unwrap()).unwrap();
    let source = samples(&config);
    let step = |step: u64| {
        let ids: Vec<u64> = (0..4).map(|sample| (step * 4 + sample) * 7 % 64).collect();
        let gradient = learner.gradient(&source, &ids).unwrap();
        learner.step(warm_up(step + 1, 10, 2e-3), gradient.clip_factor(1.0)).unwrap();
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
        assert!(relative < STEP_TOLERANCE, "step {}: {gpu} and {cpu}", step + 1);
    }
    for (gpu, cpu) in gpu.chunks(TOGETHER).zip(cpu.chunks(TOGETHER)) {
        let [gpu, cpu] = [gpu, cpu].map(|losses| losses.iter().sum::<f32>());
        println!("mean {:.4} {:.4} {:+.4}", gpu / 10.0, cpu / 10.0, gpu / cpu - 1.0);
        assert!((gpu / cpu - 1.0).abs() < TOLERANCE, "{gpu} and {cpu}");
    }
}

#[test]
fn sixty_steps_of_adamw_lose_as_the_cpu_does() {
    curves_agree(None);
}

#[test]
fn sixty_steps_of_muon_lose_as_the_cpu_does() {
    curves_agree(Some(MuonSettings::default()));
}

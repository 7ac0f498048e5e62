//! Training on the emulated GPU goes as it does on the CPU.

use std::ops::ControlFlow;

use trainer::cuda::device::CudaSettings;
use trainer::{
    warm_up, Cpu, Device, Model, ModelConfig, MuonSettings, Threads, Trainer, TrainerSettings,
};

use crate::emulators::Emulators;
use crate::models::samples;

const STEPS: u64 = 60;

/// Relative distance of the losses of a step, and of their mean over the last ten. Rounding (bf16 activations and averages) makes
/// two trainings drift apart slowly.
const TOLERANCE: f32 = 1e-2;

/// `nano` with shorter samples.
fn config() -> ModelConfig {
    ModelConfig { seq_len: 48, ..ModelConfig::preset("nano").unwrap() }
}

fn losses(device: &dyn Device, muon: Option<MuonSettings>) -> Vec<f32> {
    let config = config();
    let settings =
        TrainerSettings { batch_size: 4, micro_batch: 2, muon, ..TrainerSettings::default() };
    let mut trainer = Trainer::new(Model::init(&config, 1).unwrap(), settings, device).unwrap();
    let steps: Vec<Vec<u64>> = (0..STEPS)
        .map(|step| (0..4).map(|sample| (step * 4 + sample) * 7 % 64).collect())
        .collect();
    let mut losses = Vec::new();
    let rate = |step| warm_up(step, 10, 2e-3);
    trainer
        .train_window(&samples(&config), &steps, &rate, &mut |report| {
            losses.push(report.loss);
            ControlFlow::Continue(())
        })
        .unwrap();
    losses
}

fn curves_agree(muon: Option<MuonSettings>) {
    let gpu = losses(&Emulators::new(1).device(CudaSettings::default()), muon);
    let cpu = losses(&Cpu::new(Threads::single()), muon);
    for (step, (gpu, cpu)) in gpu.iter().zip(&cpu).enumerate() {
        println!("{:3} {gpu:.4} {cpu:.4} {:+.4}", step + 1, gpu / cpu - 1.0);
    }
    assert!(cpu[cpu.len() - 1] < 0.6 * cpu[0], "nothing is learnt: {cpu:?}");
    for (step, (gpu, cpu)) in gpu.iter().zip(&cpu).enumerate() {
        assert!((gpu / cpu - 1.0).abs() < TOLERANCE, "step {}: {gpu} and {cpu}", step + 1);
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

//! Measures this machine: its threads, and its rates by a short calibration.

use std::{hint::black_box, time::Instant};

use anyhow::{Context, Result};
use dataset::{SampleSource, Tokens};
use protocol::{aggregate::OuterRule, settings::PPM};
use trainer::{
    budget::{quantity, CpuRates, ModelCounts},
    engine::BatchError,
    Cpu, Engine, Model, ModelConfig, Threads, Trainer, TrainerSettings,
};

/// Threads that this process may run on; 1 if that cannot be told.
pub(super) fn threads() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

/// The same sample for every number.
struct OneSample(Vec<u8>);

impl SampleSource for OneSample {
    fn sample_len(&self) -> usize {
        self.0.len() - 1
    }

    fn sample_count(&self) -> u64 {
        64
    }

    fn sample(&self, _: u64) -> Option<Tokens<'_>> {
        Some(Tokens::U8(&self.0))
    }
}

/// Seconds of `work`, the best of three times.
fn best_of_three(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..3 {
        let started = Instant::now();
        work()?;
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(best.max(1e-9))
}

/// Measures this CPU with the trainer's own work: loss and gradient of the 7M model, a copy, an update, an outer step, a
/// state root. About two seconds on two cores.
pub(super) fn calibrate(threads: u64) -> Result<CpuRates> {
    let threads = Threads::new(usize::try_from(threads).context("too many threads")?)?;
    let count = threads.count() as u64;
    let config = ModelConfig::preset("7M")?;
    let samples = OneSample((0..=255).cycle().take(config.seq_len + 1).collect());
    let keep = 64;
    let counts = ModelCounts::new(&config, keep)?;
    let parameters = counts.parameters as f64;
    let bandwidth = copying(&threads)?;
    let products = products(&config, &samples, &threads, bandwidth)?;

    let settings = TrainerSettings { batch_size: 1, ..TrainerSettings::default() };
    let mut trainer = Trainer::new(Model::init(&config, 1)?, settings, &Cpu::new(threads.clone()))?;
    let (mut encode, mut update) = (f64::INFINITY, Vec::new());
    for _ in 0..3 {
        trainer.train_window(&samples, &[vec![0]], &|_| 1e-3, &mut |_| {
            std::ops::ControlFlow::Continue(())
        })?;
        let started = Instant::now();
        update = trainer.make_update(keep, 950_000)?;
        encode = encode.min(started.elapsed().as_secs_f64());
    }
    let mut model = trainer.model().clone();
    let updates: Vec<(u16, &[u8])> = (0..8).map(|uid| (uid, update.as_slice())).collect();
    let rule = OuterRule::new(1, PPM);
    let apply = best_of_three(|| Ok(model.apply_outer(&threads, &updates, keep, rule)?))?;
    let apply = (apply - 8.0 * parameters / bandwidth).max(apply / 4.0);
    let hash = best_of_three(|| {
        black_box(model.state_root(&threads));
        Ok(())
    })?;
    Ok(CpuRates {
        threads: count,
        products,
        bandwidth,
        encode: parameters / encode,
        decode: 8.0 * counts.kept as f64 / apply,
        hash: 4.0 * parameters / hash,
        measured: true,
    })
}

/// Bytes a second, read and written, of copying 64 MiB on each thread.
fn copying(threads: &Threads) -> Result<f64> {
    let len = 64 << 20;
    let sources = vec![1u8; len];
    let seconds = best_of_three(|| {
        threads.map(threads.count(), |_| black_box(sources.clone()).len());
        Ok(())
    })?;
    Ok(2.0 * (len * threads.count()) as f64 / seconds)
}

/// FLOP/s of matrix products, from a whole training step less what else the budget says it does.
fn products(
    config: &ModelConfig,
    samples: &OneSample,
    threads: &Threads,
    bandwidth: f64,
) -> Result<f64> {
    let at_once = 4;
    let mut engine = Engine::new(config, at_once, true, threads.clone())?;
    let model = Model::init(config, 1)?;
    let mut gradient = vec![0.0; model.parameters().len()];
    let ids: Vec<u64> = (0..at_once as u64).collect();
    let seconds = best_of_three(|| {
        let loss: Result<f64, BatchError> =
            engine.loss_and_gradient(model.parameters(), &mut gradient, samples, &ids, 1.0, false);
        black_box(loss?);
        Ok(())
    })?;
    let tokens = quantity::product("tokens", &[at_once as u64, config.seq_len as u64])?;
    Ok(trainer::budget::cpu::products_rate(config, tokens, seconds, bandwidth))
}

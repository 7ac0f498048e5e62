//! Tokens a second of training and of evaluation, for each preset:
//! `cargo run --release -p trainer --example throughput -- [THREADS] [PRESET…]`.

use std::ops::ControlFlow;
use std::time::Instant;

use dataset::{SampleSource, Tokens};
use trainer::{Cpu, Evaluator, Model, ModelConfig, Threads, Trainer, TrainerSettings, PRESETS};

/// Bytes of a linear congruential generator: any text does.
struct Noise {
    sample_len: usize,
    tokens: Vec<u8>,
}

impl SampleSource for Noise {
    fn sample_len(&self) -> usize {
        self.sample_len
    }

    fn sample_count(&self) -> u64 {
        64
    }

    fn sample(&self, id: u64) -> Option<Tokens<'_>> {
        let start = id as usize * self.sample_len;
        self.tokens.get(start..start + self.sample_len + 1).map(Tokens::U8)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let named: Vec<String> = arguments.collect();
    let presets = if named.is_empty() {
        PRESETS[..4].iter().map(ToString::to_string).collect()
    } else {
        named
    };
    for preset in presets {
        measure(&preset, threads)?;
    }
    Ok(())
}

fn measure(preset: &str, threads: usize) -> Result<(), Box<dyn std::error::Error>> {
    let config = ModelConfig::preset(preset)?;
    let threads = Threads::new(threads)?;
    let mut state = 1u32;
    let tokens = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let samples = Noise {
        sample_len: config.seq_len,
        tokens: tokens.take(64 * config.seq_len + 1).collect(),
    };
    let model = Model::init(&config, 1)?;
    let settings = TrainerSettings::default();
    let batch = settings.batch_size as u64;
    let mut trainer = Trainer::new(model.clone(), settings, &Cpu::new(threads.clone()))?;
    let steps: Vec<Vec<u64>> =
        (0..24).map(|step| (0..batch).map(|b| (step + b) % 64).collect()).collect();
    // The fastest step: the machine may be busy with other things.
    let mut best = f64::INFINITY;
    let mut last = Instant::now();
    trainer.train_window(&samples, &steps, &|_| 1e-3, &mut |report| {
        if report.step > 1 {
            best = best.min(last.elapsed().as_secs_f64());
        }
        last = Instant::now();
        ControlFlow::Continue(())
    })?;
    let step_tokens = batch as f64 * config.seq_len as f64;

    let mut evaluator = Evaluator::new(&config, &Cpu::new(threads.clone()), 8)?;
    let ids: Vec<u64> = (0..8).collect();
    let mut best_evaluation = f64::INFINITY;
    for _ in 0..8 {
        let start = Instant::now();
        evaluator.loss(&model, &samples, &ids)?;
        best_evaluation = best_evaluation.min(start.elapsed().as_secs_f64());
    }
    let start = Instant::now();
    let update = trainer.make_update(64, 950_000)?;
    let encode = start.elapsed().as_secs_f64();
    println!(
        "{preset}: {} parameters, {} threads: training {:.0} tokens/s, evaluation {:.0} tokens/s; \
         engine {} MiB; update {} bytes ({:.0}x) in {:.1} ms",
        config.parameter_count(),
        threads.count(),
        step_tokens / best,
        step_tokens / best_evaluation,
        trainer.learner().allocated_bytes() >> 20,
        update.len(),
        config.parameter_count() as f64 * 4.0 / update.len() as f64,
        encode * 1e3,
    );
    Ok(())
}

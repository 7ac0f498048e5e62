//! Several miners of one run in one process, without a chain: what the settings do to the loss.
//!
//! `cargo run --release -p trainer --example windows -- [MINERS] [WINDOWS] [STEPS] [BATCH] [RATE]
//! [OUTER] [KEEP] [PRESET]`, on the default corpus.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use dataset::{build, default_corpus, CorpusLimits, SampleSource};
use protocol::aggregate::OuterRule;
use protocol::assignment::own_samples;
use protocol::settings::PPM;
use trainer::{warm_up, Cpu, Evaluator, Model, ModelConfig, Threads, Trainer, TrainerSettings};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |index: usize, default: f64| {
        arguments.get(index).map_or(Ok(default), |argument| argument.parse::<f64>())
    };
    let (miners, windows) = (number(0, 4.0)? as u16, number(1, 8.0)? as u8);
    let (steps, batch) = (number(2, 15.0)? as u64, number(3, 8.0)? as usize);
    let (rate, outer) = (number(4, 2e-3)? as f32, (number(5, 1.0)? * 1e6) as u32);
    let keep = number(6, 64.0)? as u16;
    let config = ModelConfig::preset(arguments.get(7).map_or("nano", String::as_str))?;

    let start = Instant::now();
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    let documents = default_corpus(&lock, &CorpusLimits::default())?;
    let count = documents.len();
    let folder = std::env::temp_dir().join(format!("trainer-windows-{}", std::process::id()));
    let dataset = build(documents, config.seq_len, &folder)?;
    println!(
        "{count} documents, {} and {} samples, in {:.1} s",
        dataset.train().sample_count(),
        dataset.held_out().sample_count(),
        start.elapsed().as_secs_f64(),
    );

    let device = Cpu::new(Threads::single());
    let mut evaluator = Evaluator::new(&config, &device, 8)?;
    let model = Model::init(&config, 1)?;
    let settings = || TrainerSettings { batch_size: batch, ..TrainerSettings::default() };
    let mut trainers = (0..miners)
        .map(|_| Trainer::new(model.clone(), settings(), &device))
        .collect::<Result<Vec<_>, _>>()?;
    let loss = evaluator.held_out_loss(&model, &dataset, 256)?;
    println!("window -: held-out loss {loss:.4}");
    for window in 0..windows {
        let start = Instant::now();
        let permutation =
            own_samples(&[window; 32], dataset.train().sample_count()).ok_or("empty data set")?;
        let mut updates = Vec::new();
        for (uid, trainer) in (0u64..).zip(&mut trainers) {
            let per_uid = steps * batch as u64;
            let id = |position: u64| permutation.apply(uid * per_uid + position).unwrap_or(0);
            let ids: Vec<Vec<u64>> = (0..steps)
                .map(|step| (0..batch as u64).map(|b| id(step * batch as u64 + b)).collect())
                .collect();
            trainer.train_window(
                dataset.train(),
                &ids,
                &|step| warm_up(step, 10, rate),
                &mut |_| ControlFlow::Continue(()),
            )?;
            updates.push((uid as u16, trainer.make_update(keep, 950_000)?));
        }
        let accepted: Vec<(u16, &[u8])> =
            updates.iter().map(|(uid, bytes)| (*uid, bytes.as_slice())).collect();
        for trainer in &mut trainers {
            trainer.apply_outer(&accepted, keep, OuterRule::new(outer, PPM))?;
        }
        let model = trainers[0].model();
        let loss = evaluator.held_out_loss(model, &dataset, 256)?;
        let bytes: usize = updates.iter().map(|(_, bytes)| bytes.len()).sum();
        println!(
            "window {window}: held-out loss {loss:.4}, {bytes} bytes, {:.1} s",
            start.elapsed().as_secs_f64()
        );
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

//! Perplexity of a model on a text, and what some steps of training on another part of it change:
//! what checks/smollm2.sh runs.
//!
//! `perplexity MODEL TOKENIZER TEXT SAMPLE_LEN SAMPLES [STEPS BATCH RATE [OUT_FOLDER]]`
//!
//! The text is cut into samples of SAMPLE_LEN tokens, each read from an empty context. The first
//! SAMPLES are measured; training uses those behind them, in order.

use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use dataset::{SampleSource, Tokenizer, Tokens};
use trainer::files::{self, ExportSettings};
use trainer::{Cpu, Engine, Model, Threads, Trainer, TrainerSettings};

struct Text {
    sample_len: usize,
    tokens: Vec<u32>,
}

impl SampleSource for Text {
    fn sample_len(&self) -> usize {
        self.sample_len
    }

    fn sample_count(&self) -> u64 {
        ((self.tokens.len() - 1) / self.sample_len) as u64
    }

    fn sample(&self, id: u64) -> Option<Tokens<'_>> {
        let start = id as usize * self.sample_len;
        let tokens = self.tokens.get(start..=start + self.sample_len)?;
        Some(Tokens::U32(tokens))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, tokenizer, text, sample_len, samples, training @ ..] = arguments.as_slice() else {
        return Err(
            "MODEL TOKENIZER TEXT SAMPLE_LEN SAMPLES [STEPS BATCH RATE [OUT_FOLDER]]".into()
        );
    };
    let (sample_len, samples) = (sample_len.parse()?, samples.parse()?);
    let start = Instant::now();
    let (model, _) = files::open(Path::new(model))?;
    println!(
        "loaded {} parameters in {:.2} s",
        model.config().parameter_count(),
        start.elapsed().as_secs_f64()
    );
    let model = model.with_seq_len(sample_len)?;
    let tokenizer = Tokenizer::from_file(Path::new(tokenizer))?;
    let tokens = tokenizer.encode(&fs::read_to_string(text)?)?;
    println!("{} tokens, beginning {:?}", tokens.len(), &tokens[..12]);
    let text = Text { sample_len, tokens };
    let threads = Threads::new(std::thread::available_parallelism()?.get())?;
    measure(&model, model.parameters(), &text, samples, &threads)?;
    if let [steps, batch, rate, out @ ..] = training {
        let (steps, batch, rate) = (steps.parse()?, batch.parse()?, rate.parse()?);
        let trained = train(model, &text, (samples, steps, batch, rate), &threads)?;
        let out = out.first().map(Path::new);
        if let Some(out) = out {
            files::export(&trained, out, &ExportSettings::default())?;
        }
    }
    Ok(())
}

fn measure(
    model: &Model,
    parameters: &[f32],
    text: &Text,
    samples: u64,
    threads: &Threads,
) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let mut engine = Engine::new(model.config(), 1, false, threads.clone())?;
    let mut sum = 0.0;
    for id in 0..samples {
        sum += engine.loss(parameters, text, &[id])?;
    }
    let tokens = samples as usize * text.sample_len;
    let loss = sum / tokens as f64;
    println!(
        "loss {loss:.5}, perplexity {:.4} on {tokens} tokens, {:.0} tokens/s",
        loss.exp(),
        tokens as f64 / start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// The model after `steps` steps of `batch` samples behind the first `held_out`.
fn train(
    model: Model,
    text: &Text,
    (held_out, steps, batch, rate): (u64, u64, usize, f32),
    threads: &Threads,
) -> Result<Model, Box<dyn std::error::Error>> {
    let settings =
        TrainerSettings { batch_size: batch, micro_batch: 1, ..TrainerSettings::default() };
    let mut trainer = Trainer::new(model, settings, &Cpu::new(threads.clone()))?;
    let count = text.sample_count() - held_out;
    let ids =
        |step: u64| (0..batch as u64).map(move |i| held_out + (step * batch as u64 + i) % count);
    let steps: Vec<Vec<u64>> = (0..steps).map(|step| ids(step).collect()).collect();
    let start = Instant::now();
    trainer.train_window(text, &steps, &|_| rate, &mut |report| {
        let seconds = start.elapsed().as_secs_f64();
        println!("step {:2}: loss {:.4} ({seconds:.0} s)", report.step + 1, report.loss);
        ControlFlow::Continue(())
    })?;
    let trained = trainer.local_model()?;
    measure(&trained, trained.parameters(), text, held_out, threads)?;
    Ok(trained)
}

//! `gauntlet bench train --device cuda`: steps of training on GPUs, and how much of the cards they use.

use std::{sync::Arc, time::Instant};

use anyhow::{Context, Result};
use serde_json::{json, Value};
use trainer::{
    cuda::{fit, hardware, Cards, Chosen, Cuda, Gpus},
    flops::flops_a_token,
    AdamWSettings, Device, LearnerSettings, Model, ModelConfig, MuonSettings, Precision, Threads,
};

use super::{
    args::BenchTrainArgs,
    noise::{batch, Noise, BATCHES, WARM_UP_STEPS},
};
use crate::{
    commands::doctor::known_card,
    engine::{self, OptimiserArg},
};

/// Trains on noise and reports tokens a second, MFU by the card's data sheet, and memory beside the plan.
pub(super) fn train(args: &BenchTrainArgs, chosen: Chosen, config: &ModelConfig) -> Result<Value> {
    let cards = Cards::find(chosen)?;
    let first = cards.cards().first().context("no card")?.clone();
    let (world, name) = (cards.cards().len(), cards.name());
    let muon = (args.optimiser == OptimiserArg::Muon).then(MuonSettings::default);
    let asked = args.micro_batch.map(usize::from);
    let micro_batch =
        engine::cards_micro_batch(chosen, config, args.batch.into(), asked, muon.is_some())?;
    let cuda_settings = fit::way_for(config, world, micro_batch, muon.is_some(), first.memory);
    let planned = fit::plan(config, world, micro_batch, cuda_settings, muon.is_some()).bytes();
    let (free_before, _) = hardware::memory(first.index)?;

    let threads = Threads::new(args.threads.into())?;
    let device = Cuda::new(Arc::new(cards), threads, cuda_settings);
    let settings = LearnerSettings {
        micro_batch,
        adamw: AdamWSettings::default(),
        muon,
        precision: Precision::Bf16,
    };
    let mut learner = device.learner(config, &settings)?;
    let model = Model::init(config, 1)?;
    learner.load(&mut &model)?;
    drop(model);
    let samples = Noise::new(config, usize::from(args.batch) * BATCHES);
    let (mut seconds, mut loss) = (Vec::new(), 0.0);
    for step in 0..WARM_UP_STEPS + usize::from(args.steps) {
        let started = Instant::now();
        let gradient = learner.gradient(&samples, &batch(args.batch, step))?;
        learner.step(1e-3, gradient.clip_factor(1.0))?;
        loss = gradient.loss;
        if step >= WARM_UP_STEPS {
            seconds.push(started.elapsed().as_secs_f64());
        }
    }
    let (free_after, _) = hardware::memory(first.index)?;
    seconds.sort_by(f64::total_cmp);
    let median = seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN);
    let tokens = f64::from(args.batch) * config.seq_len as f64;
    let rate = tokens / median;
    let peak = known_card(&first).map(|known| known.peak);
    Ok(json!({
        "device": name,
        "preset": args.preset,
        "layers": config.layers,
        "parameters": config.parameter_count(),
        "optimiser": args.optimiser,
        "batch": args.batch,
        "micro_batch": micro_batch,
        "seq_len": config.seq_len,
        "steps": seconds.len(),
        "tokens_per_second": { "median": rate, "best": tokens / seconds.first().copied().unwrap_or(f64::NAN) },
        "step_ms": median * 1e3,
        "peak_flops": peak,
        "mfu": peak.map(|peak| rate * flops_a_token(config) / (peak * world as f64)),
        "planned_bytes": planned,
        "allocated_bytes": learner.allocated_bytes(),
        "used_bytes": free_before.saturating_sub(free_after),
        "loss": loss,
    }))
}

//! Shows a training's progress: a bar on a terminal, a line from time to time elsewhere.

use std::{
    collections::VecDeque,
    path::Path,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use trainer::{
    budget::CpuCosts, guard::Verdict, ModelConfig, MuonSettings, PretrainEvent, Pretrainer,
};

use super::{data::TrainingData, order::TrainingOrder};
use crate::terminal::print;

/// Time between lines where no bar can be shown.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Steps over which the shown speed is the mean.
const SPEED_STEPS: usize = 16;

pub(super) struct TrainingProgress {
    bar: ProgressBar,
    steps: u64,
    /// Utilisation is this times the tokens a second.
    seconds_a_token: f64,
    /// Tokens and seconds of the last steps.
    recent: VecDeque<(u64, f64)>,
    told: Option<Instant>,
}

/// What takes the steps, and how much higher its rate is than the one that is shown.
fn optimiser(muon: Option<&MuonSettings>) -> String {
    match muon {
        None => "AdamW".to_owned(),
        Some(MuonSettings { relative_rate, .. }) if *relative_rate == 1.0 => {
            "Muon for the layers' matrices, AdamW for the rest".to_owned()
        }
        Some(MuonSettings { relative_rate, .. }) => format!(
            "Muon for the layers' matrices at {relative_rate} times the rate, AdamW for the rest"
        ),
    }
}

impl TrainingProgress {
    /// `seconds_a_token`: how long a token would take at the machine's peak.
    pub(super) fn new(trainer: &Pretrainer, seconds_a_token: f64) -> Self {
        let steps = trainer.settings().steps;
        let bar = ProgressBar::with_draw_target(Some(steps), ProgressDrawTarget::stderr());
        // The template is ours and known to be one.
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} left · {msg}")
        {
            bar.set_style(style);
        }
        bar.set_position(trainer.steps_taken());
        bar.reset_eta();
        Self {
            bar,
            steps,
            seconds_a_token,
            recent: VecDeque::with_capacity(SPEED_STEPS),
            told: None,
        }
    }

    /// Shows the model, the data and the engine of the training.
    pub(super) fn begin(
        &self,
        config: &ModelConfig,
        data: &TrainingData,
        trainer: &Pretrainer,
        peak_flops: f64,
        resumed: bool,
    ) {
        let settings = trainer.settings();
        let (samples, precision) = (settings.micro_batch, settings.precision);
        let threads = trainer.threads().count();
        let costs = CpuCosts::of_pretrainer(config, samples, precision, threads)
            .and_then(|costs| costs.with_muon(settings.muon.is_some(), config, threads));
        let bytes = costs.map_or(0, |costs| costs.engine + costs.arrays);
        self.say(&format!(
            "model: {} parameters, vocabulary {}, samples of {} tokens; {:.1} MB on {} threads (peak {:.0} GFLOP/s)",
            config.parameter_count(),
            config.vocab,
            config.seq_len,
            bytes as f64 / 1e6,
            threads,
            peak_flops / 1e9,
        ));
        let samples = data.train_count();
        let seen = settings.steps.saturating_mul(settings.batch_size as u64);
        self.say(&format!(
            "data: {samples} training samples, of which {seen} are seen ({:.2} epochs), {} held out",
            seen as f64 / samples.max(1) as f64,
            data.held_out_count(),
        ));
        self.say(&format!(
            "{} steps of {} samples, {} at once; {}",
            settings.steps,
            settings.batch_size,
            settings.micro_batch,
            optimiser(settings.muon.as_ref()),
        ));
        if resumed {
            self.say(&format!("resumes after step {}", trainer.steps_taken()));
        }
    }

    /// Where samples come from that are not on this machine, `bytes` in all.
    pub(super) fn streamed(&self, bytes: u64, order: &TrainingOrder) {
        let url = order.data.as_deref().unwrap_or_else(|| Path::new(""));
        let kept = order.data_cache_bytes;
        self.say(&format!(
            "streamed from {} ({:.1} MB), kept in {} ({:.1} GB at most)",
            url.display(),
            bytes as f64 / 1e6,
            order.data_cache.display(),
            kept as f64 / 1e9,
        ));
        if kept < bytes {
            self.say(
                "the data set is larger than its cache: a MiB will be fetched for almost every sample; a larger \
                 --data-cache-gib or `gauntlet data fetch` is faster",
            );
        }
    }

    pub(super) fn event(&mut self, event: &PretrainEvent) {
        match event {
            PretrainEvent::Step(step) => {
                if self.recent.len() == SPEED_STEPS {
                    self.recent.pop_front();
                }
                self.recent.push_back((step.tokens, step.seconds));
                let tokens: u64 = self.recent.iter().map(|(tokens, _)| tokens).sum();
                let seconds: f64 = self.recent.iter().map(|(_, seconds)| seconds).sum();
                let speed = tokens as f64 / seconds.max(1e-9);
                if step.verdict != Verdict::Apply {
                    self.say(&format!(
                        "step {}: loss {:.3}, gradient norm {:.2}: left out",
                        step.step, step.loss, step.gradient_norm
                    ));
                }
                let text = format!(
                    "loss {:.4} · {speed:.0} tokens/s · MFU {:.0} % · gradient {:.2} · rate {:.2e}",
                    step.loss,
                    100.0 * speed * self.seconds_a_token,
                    step.gradient_norm,
                    step.rate
                );
                self.bar.set_position(step.step);
                if self.bar.is_hidden() {
                    let is_due = self.told.is_none_or(|told| told.elapsed() >= LINE_INTERVAL);
                    if is_due || step.step == self.steps {
                        self.told = Some(Instant::now());
                        print(&format!("step {}/{} · {text}", step.step, self.steps));
                    }
                } else {
                    self.bar.set_message(text);
                }
            }
            PretrainEvent::RolledBack(step) => {
                self.say(&format!("goes back to step {step}, with half the rate"));
            }
            PretrainEvent::Saved(_) => {}
        }
    }

    pub(super) fn held_out(&self, step: u64, loss: f64) {
        self.say(&format!("step {step}: held-out loss {loss:.4}"));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn say(&self, line: &str) {
        self.bar.suspend(|| print(line));
    }
}

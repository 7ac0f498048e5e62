//! Writes `metrics.jsonl`: a line for each step and for each evaluation. A training that is resumed cuts off what lies behind
//! its checkpoint, so that no step stands there twice, but for those before and after the loss ran away: lines after training
//! went back say how often it had (`rollbacks`), and of the lines of a step the last one counts.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use trainer::{guard::Verdict, PretrainEvent, Pretrainer};

use crate::telemetry;

pub(super) struct TrainingLog {
    file: File,
}

/// One line of the log; what does not apply is left out.
#[derive(Serialize, Default)]
struct LogRecord {
    step: u64,
    /// Times that training had gone back before.
    #[serde(skip_serializing_if = "is_zero")]
    rollbacks: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gradient_norm: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_out_loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'static str>,
}

/// The part of a line that says to which step it belongs.
#[derive(Deserialize)]
struct RecordPosition {
    #[serde(default)]
    rollbacks: u32,
    step: u64,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl TrainingLog {
    /// Opens the log and keeps what was written up to `step` of a training that has gone back `rollbacks` times.
    pub(super) fn open(path: &Path, rollbacks: u32, step: u64) -> Result<Self> {
        if path.exists() {
            cut(path, (rollbacks, step))
                .with_context(|| format!("cannot cut {}", path.display()))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file })
    }

    pub(super) fn event(&mut self, trainer: &Pretrainer, event: &PretrainEvent) -> Result<()> {
        let rollbacks = trainer.guard().rollbacks;
        match event {
            PretrainEvent::Step(step) => {
                metrics::gauge!(telemetry::TRAIN_LOSS).set(f64::from(step.loss));
                metrics::gauge!(telemetry::GRADIENT_NORM).set(f64::from(step.gradient_norm));
                metrics::gauge!(telemetry::RATE).set(f64::from(step.rate));
                metrics::gauge!(telemetry::STEP).set(step.step as f64);
                let speed = step.tokens as f64 / step.seconds.max(1e-9);
                metrics::gauge!(telemetry::TOKENS_PER_SECOND).set(speed);
                // JSON has no NaN.
                let number = |value: f32| value.is_finite().then_some(value);
                self.write(&LogRecord {
                    step: step.step,
                    rollbacks,
                    loss: number(step.loss),
                    rate: Some(step.rate),
                    gradient_norm: number(step.gradient_norm),
                    tokens: Some(step.tokens),
                    seconds: Some(step.seconds),
                    event: match step.verdict {
                        Verdict::Apply => None,
                        Verdict::Skip => Some("skipped"),
                        Verdict::RollBack => Some("rolled back"),
                        Verdict::Stop => Some("diverged"),
                    },
                    ..LogRecord::default()
                })
            }
            PretrainEvent::RolledBack(step) => self.write(&LogRecord {
                step: *step,
                rollbacks,
                event: Some("goes on from this checkpoint with half the rate"),
                ..LogRecord::default()
            }),
            PretrainEvent::Saved(_) => Ok(self.file.flush()?),
        }
    }

    pub(super) fn held_out(&mut self, trainer: &Pretrainer, loss: f64) -> Result<()> {
        metrics::gauge!(telemetry::HELD_OUT_LOSS).set(loss);
        self.write(&LogRecord {
            step: trainer.steps_taken(),
            rollbacks: trainer.guard().rollbacks,
            held_out_loss: loss.is_finite().then_some(loss),
            ..LogRecord::default()
        })
    }

    fn write(&mut self, line: &LogRecord) -> Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.file.write_all(text.as_bytes()).context("cannot write the log")
    }
}

/// Keeps the lines up to the last one of this many rollbacks and this step; what is torn goes too.
fn cut(path: &Path, last: (u32, u64)) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let mut out = std::io::BufWriter::new(File::create(&part)?);
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        let line = line?;
        let found = serde_json::from_slice::<RecordPosition>(&line);
        if found.is_ok_and(|found| (found.rollbacks, found.step) <= last) {
            out.write_all(&line)?;
            out.write_all(b"\n")?;
        }
    }
    out.into_inner()?.sync_all()?;
    std::fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_the_checkpoint_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let line = |rollbacks, step| {
            let line = LogRecord { step, rollbacks, ..LogRecord::default() };
            serde_json::to_string(&line).unwrap() + "\n"
        };
        // Steps 1 to 6, back to step 4, then 5 to 7 and half a line.
        let before: String = (1..=6).map(|step| line(0, step)).collect();
        let after: String = (4..=7).map(|step| line(1, step)).collect();
        let check = |checkpoint: (u32, u64), kept: String| {
            std::fs::write(&path, format!("{before}{after}{{\"step\":8,")).unwrap();
            TrainingLog::open(&path, checkpoint.0, checkpoint.1).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
        };
        assert!(before.starts_with("{\"step\":1}\n"), "{before}");
        check((1, 6), format!("{before}{}{}{}", line(1, 4), line(1, 5), line(1, 6)));
        check((1, 9), format!("{before}{after}"));
        check((0, 4), (1..=4).map(|step| line(0, step)).collect());
    }
}

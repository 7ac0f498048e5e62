//! `metrics.jsonl`: a line for each step and for each evaluation. A training that goes on cuts off what lies behind its
//! checkpoint, so that no step stands there twice.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::Path,
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use trainer::{guard::Verdict, PretrainEvent};

use crate::telemetry;

/// The open log.
pub(super) struct Log {
    file: File,
}

/// One line; what does not apply is left out.
#[derive(Serialize, Default)]
struct Line {
    step: u64,
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

/// What is read of a line.
#[derive(Deserialize)]
struct Numbered {
    step: u64,
}

impl Log {
    /// Opens the log and keeps its lines up to `step`.
    pub(super) fn open(path: &Path, step: u64) -> Result<Self> {
        if path.exists() {
            cut(path, step).with_context(|| format!("cannot cut {}", path.display()))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { file })
    }

    pub(super) fn event(&mut self, event: &PretrainEvent) -> Result<()> {
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
                self.write(&Line {
                    step: step.step,
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
                    ..Line::default()
                })
            }
            PretrainEvent::RolledBack(step) => self.write(&Line {
                step: *step,
                event: Some("goes on from this checkpoint with half the rate"),
                ..Line::default()
            }),
            PretrainEvent::Saved(_) => Ok(self.file.flush()?),
        }
    }

    pub(super) fn held_out(&mut self, step: u64, loss: f64) -> Result<()> {
        metrics::gauge!(telemetry::HELD_OUT_LOSS).set(loss);
        self.write(&Line {
            step,
            held_out_loss: loss.is_finite().then_some(loss),
            ..Line::default()
        })
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.file
            .write_all(text.as_bytes())
            .context("cannot write the log")
    }
}

/// Keeps the lines up to `step`; what is torn goes too.
fn cut(path: &Path, step: u64) -> std::io::Result<()> {
    let part = path.with_extension("part");
    let mut out = std::io::BufWriter::new(File::create(&part)?);
    for line in BufReader::new(File::open(path)?).split(b'\n') {
        let line = line?;
        let is_kept =
            serde_json::from_slice::<Numbered>(&line).is_ok_and(|found| found.step <= step);
        if is_kept {
            out.write_all(&line)?;
            out.write_all(b"\n")?;
        }
    }
    out.into_inner()?.sync_all()?;
    std::fs::rename(&part, path)
}

//! Logs to stderr and metrics for Prometheus.
//!
//! Metrics are names and numbers only; which ones there are stands in [`describe`].

use std::net::SocketAddr;

use anyhow::{Context, Result};
use metrics::{describe_counter, describe_gauge, describe_histogram, Unit};
use tracing_subscriber::EnvFilter;

/// Number of the last finalised block that was seen.
pub const HEAD_BLOCK: &str = "gauntlet_head_block";
/// Window whose parameters this participant holds.
pub const STATE_WINDOW: &str = "gauntlet_state_window";
/// Loss of the last local step.
pub const TRAIN_LOSS: &str = "gauntlet_train_loss";
/// Norm of the last local step's gradient before clipping.
pub const GRADIENT_NORM: &str = "gauntlet_gradient_norm";
/// Learning rate of the last local step.
pub const RATE: &str = "gauntlet_learning_rate";
/// Training tokens a second.
pub const TOKENS_PER_SECOND: &str = "gauntlet_tokens_per_second";
/// Steps of a training without a chain.
pub const STEP: &str = "gauntlet_train_step";
/// Held-out loss of the agreed parameters.
pub const HELD_OUT_LOSS: &str = "gauntlet_held_out_loss";
/// Seconds of one part of a window, by `part`.
pub const PART_SECONDS: &str = "gauntlet_part_seconds";
/// Extrinsics by `call` and `result`.
pub const EXTRINSICS: &str = "gauntlet_extrinsics_total";
/// Bytes of updates made.
pub const UPDATE_BYTES: &str = "gauntlet_update_bytes_total";
/// Payloads fetched, by `result`.
pub const FETCHES: &str = "gauntlet_fetches_total";
/// Windows in which a duty was missed, by `duty`.
pub const MISSED: &str = "gauntlet_missed_total";

/// Checks a log filter, for the command line's parser.
///
/// # Errors
/// Why it is none.
pub fn parse_filter(filter: &str) -> Result<String, String> {
    EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    Ok(filter.to_owned())
}

/// Starts logging to stderr with this filter.
///
/// # Errors
/// The filter is not one.
pub fn log_to_stderr(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("log filter {filter:?}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    Ok(())
}

/// Serves metrics at `http://address/metrics` from now on. Needs the tokio runtime.
///
/// # Errors
/// The address cannot be listened on, or metrics are served already.
pub fn serve_metrics(address: SocketAddr) -> Result<()> {
    metrics_exporter_prometheus::PrometheusBuilder::new()
        .with_http_listener(address)
        .install()
        .with_context(|| format!("cannot serve metrics at {address}"))?;
    describe();
    tracing::info!(%address, "metrics are served");
    Ok(())
}

/// Says what each metric is.
fn describe() {
    describe_gauge!(HEAD_BLOCK, Unit::Count, "last finalised block seen");
    describe_gauge!(STATE_WINDOW, Unit::Count, "window whose parameters are held");
    describe_gauge!(TRAIN_LOSS, "loss of the last local step, nats a token");
    describe_gauge!(GRADIENT_NORM, "norm of the last gradient before clipping");
    describe_gauge!(RATE, "learning rate of the last local step");
    describe_gauge!(TOKENS_PER_SECOND, "training tokens a second");
    describe_gauge!(STEP, Unit::Count, "steps of a training without a chain");
    describe_gauge!(HELD_OUT_LOSS, "held-out loss of the agreed parameters, nats a token");
    describe_histogram!(PART_SECONDS, Unit::Seconds, "duration of one part of a window");
    describe_counter!(EXTRINSICS, Unit::Count, "extrinsics by call and result");
    describe_counter!(UPDATE_BYTES, Unit::Bytes, "bytes of updates made");
    describe_counter!(FETCHES, Unit::Count, "payloads fetched by result");
    describe_counter!(MISSED, Unit::Count, "windows in which a duty was missed");
}

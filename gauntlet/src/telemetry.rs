//! Logs to stderr and serves metrics for Prometheus.
//!
//! Metrics are names and numbers only; [`describe`] lists them.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use metrics::{describe_gauge, Unit};
pub use participant::telemetry::{HELD_OUT_LOSS, TRAIN_LOSS};
use tracing_subscriber::EnvFilter;

/// Norm of the last local step's gradient before clipping.
pub const GRADIENT_NORM: &str = "gauntlet_gradient_norm";
/// Learning rate of the last local step.
pub const RATE: &str = "gauntlet_learning_rate";
/// Training tokens a second.
pub const TOKENS_PER_SECOND: &str = "gauntlet_tokens_per_second";
/// Steps of a training without a chain.
pub const STEP: &str = "gauntlet_train_step";

/// What a light client warns of while all is well; a filter may name them again.
const QUIET: &str = "sync-service=error,json-rpc=error";

/// Checks a log filter, for the command line's parser.
///
/// # Errors
/// The text is not a filter.
pub fn parse_filter(filter: &str) -> Result<String, String> {
    EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    Ok(filter.to_owned())
}

/// Starts logging to stderr with this filter.
///
/// # Errors
/// The text is not a filter.
pub fn log_to_stderr(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}"))
        .with_context(|| format!("log filter {filter:?}"))?;
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
    participant::telemetry::describe();
    describe_gauge!(GRADIENT_NORM, "norm of the last gradient before clipping");
    describe_gauge!(RATE, "learning rate of the last local step");
    describe_gauge!(TOKENS_PER_SECOND, "training tokens a second");
    describe_gauge!(STEP, Unit::Count, "steps of a training without a chain");
}

//! Signs and submits extrinsics with the hot key, and tries again while it makes sense.

use std::{sync::Arc, time::Duration};

use node_client::{
    chain::{Call, Chain, Included, SubmitError},
    keys::Keypair,
};
use protocol::BlockNumber;

use crate::{heads::Heads, telemetry};

/// How long one attempt may take to be included.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause before another attempt.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How a [`Failure::Refused`] begins.
pub const REFUSED: &str = "refused by the chain";

/// Submits with one key; clones share it.
#[derive(Clone)]
pub struct Submitter {
    chain: Arc<dyn Chain>,
    hot: Keypair,
    heads: Heads,
}

/// Why an extrinsic is not in a block.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The chain refuses it: trying again would change nothing.
    #[error("{REFUSED}: {0}")]
    Refused(SubmitError),
    /// It was not included in time.
    #[error("not included by block {last}: {error}")]
    TooLate {
        /// The last block that was good enough.
        last: BlockNumber,
        /// What happened at the last attempt.
        error: String,
    },
}

impl Submitter {
    /// Submits with `hot`.
    pub fn new(chain: Arc<dyn Chain>, hot: Keypair, heads: Heads) -> Self {
        Self { chain, hot, heads }
    }

    /// Submits until the extrinsic is in a block, the chain refuses it, or `last` is the head. Not cancel-safe: when
    /// dropped, an extrinsic may be on its way.
    ///
    /// # Errors
    /// [`Failure`].
    pub async fn by(&self, call: Call, last: BlockNumber) -> Result<Included, Failure> {
        let name = call.name();
        let mut error = "the block has passed".to_owned();
        // An extrinsic that is sent when `last` is the head comes into a later block.
        while self.heads.now().number < last {
            let attempt = self.chain.submit(&self.hot, call.clone());
            match tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await {
                Ok(Ok(included)) => {
                    metrics::counter!(telemetry::EXTRINSICS, "call" => name, "result" => "ok")
                        .increment(1);
                    return Ok(included);
                }
                Ok(Err(refused @ SubmitError::Rejected { .. })) => {
                    metrics::counter!(telemetry::EXTRINSICS, "call" => name, "result" => "refused")
                        .increment(1);
                    return Err(Failure::Refused(refused));
                }
                Ok(Err(other)) => error = other.to_string(),
                Err(_) => error = "no answer in time".to_owned(),
            }
            tracing::debug!(call = name, error, "submitting again");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        metrics::counter!(telemetry::EXTRINSICS, "call" => name, "result" => "late").increment(1);
        Err(Failure::TooLate { last, error })
    }

    /// Submits with one attempt. Not cancel-safe, as [`Submitter::by`].
    ///
    /// # Errors
    /// What the attempt says.
    pub async fn once(&self, call: Call) -> anyhow::Result<Included> {
        let attempt = self.chain.submit(&self.hot, call);
        Ok(tokio::time::timeout(ATTEMPT_TIMEOUT, attempt).await??)
    }
}

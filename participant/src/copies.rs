//! Copies to the mirror what others may need, in the background: payloads when they may be seen, and states now and
//! then.
//!
//! One copy of each kind is made at a time, so that a state does not hold up payloads. A copy that fails for minutes,
//! or finds too many waiting, is left out: that costs a warning and a count.

use std::{future::Future, sync::Arc};

use node_client::network::Network;
use protocol::{Hash, Window};
use tokio::sync::mpsc;

use crate::{error::Result, telemetry};

/// Every so many windows the state is copied, so that who joins replays at most so many. One of 72 B parameters, 282
/// GB, takes five windows at 500 Mb/s.
pub const STATE_WINDOWS: u64 = 8;

/// What waits to be copied, at most: payloads of a few windows, each with its list, and a state with its manifest.
const PAYLOADS_MAX: usize = 512;
const STATES_MAX: usize = 1;

/// Asks for copies; clones ask the same service.
#[derive(Clone)]
pub struct Copies {
    payloads: mpsc::Sender<Vec<Hash>>,
    states: mpsc::Sender<Vec<Hash>>,
}

impl Copies {
    /// Copies what `network` serves to its mirror, and the service that does it.
    pub fn new(network: Arc<dyn Network>) -> (Self, impl Future<Output = Result<()>> + Send) {
        let (payloads, waiting_payloads) = mpsc::channel(PAYLOADS_MAX);
        let (states, waiting_states) = mpsc::channel(STATES_MAX);
        let service = async move {
            futures::join!(copy(&*network, waiting_payloads), copy(&*network, waiting_states));
            Ok(())
        };
        (Self { payloads, states }, service)
    }

    /// Asks for copies of the contents of a payload, which is served and may be seen by everybody.
    pub fn payload(&self, ids: impl IntoIterator<Item = Hash>) {
        ask(&self.payloads, ids);
    }

    /// Asks for copies of the contents of the state of `window`, which are served, if it is one of those that are
    /// copied.
    pub fn state(&self, window: Window, ids: impl IntoIterator<Item = Hash>) {
        if window.is_multiple_of(STATE_WINDOWS) {
            ask(&self.states, ids);
        }
    }
}

fn ask(queue: &mpsc::Sender<Vec<Hash>>, ids: impl IntoIterator<Item = Hash>) {
    if let Err(error) = queue.try_send(ids.into_iter().collect()) {
        count("left out");
        tracing::warn!(%error, "contents are not copied to the mirror");
    }
}

async fn copy(network: &dyn Network, mut waiting: mpsc::Receiver<Vec<Hash>>) {
    while let Some(ids) = waiting.recv().await {
        copy_all(network, &ids).await;
    }
}

/// Copies contents one after the other, up to the first that fails: who finds the last one finds all.
async fn copy_all(network: &dyn Network, ids: &[Hash]) {
    for id in ids {
        match network.copy_to_mirror(*id).await {
            Ok(true) => {
                tracing::debug!(id = hex::encode(id), "copied to the mirror");
                count("copied");
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(id = hex::encode(id), %error, "not copied to the mirror");
                count("failed");
                return;
            }
        }
    }
}

fn count(result: &'static str) {
    metrics::counter!(telemetry::MIRROR_COPIES, "result" => result).increment(1);
}

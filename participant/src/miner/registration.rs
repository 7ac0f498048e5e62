//! Finds the miner's own record on the chain.

use std::time::Duration;

use node_client::chain::MinerInfo;

use crate::{
    error::{Attempt as _, Result},
    handles::Handles,
};

/// How long the start waits for the hot key to be registered.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(120);

/// Waits until the hot key is registered as a miner.
pub(super) async fn wait_for_registration(handles: &Handles) -> Result<()> {
    let look = async {
        while own_record(handles).await?.is_none() {
            tracing::info!("this hot key is not registered as a miner yet");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        Ok(())
    };
    tokio::time::timeout(REGISTRATION_TIMEOUT, look)
        .await
        .context("this hot key is not registered as a miner of the run")?
}

/// What the chain knows of this miner now.
pub(super) async fn own_record(handles: &Handles) -> Result<Option<MinerInfo>> {
    let miners = handles.chain.miners(handles.run.id, None).await?;
    Ok(miners.into_iter().find(|miner| miner.hot == handles.desk.account()))
}

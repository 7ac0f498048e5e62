//! Commits to what another miner sent in the window before.

use async_trait::async_trait;

use super::Conduct;
use crate::{
    error::Result,
    handles::{Handles, Run},
    miner::workshop::{Made, Prepared, Task, Workshop},
};

/// Trains in its first window only; afterwards it sends the payload that another miner revealed in the last one.
#[derive(Clone, Copy, Debug)]
pub struct Replayer;

#[async_trait]
impl Conduct for Replayer {
    async fn make(&self, workshop: &Workshop, task: Task) -> Result<Prepared> {
        let found = match task.state.window.checked_sub(1) {
            Some(last) => find(&workshop.handles, last, task.uid).await?,
            None => None,
        };
        let made = match found {
            Some(made) => made,
            None => workshop.train(&task).await?,
        };
        workshop.finish(&task, made, false).await
    }
}

/// The payload that another miner than `uid` revealed in a window.
async fn find(handles: &Handles, window: u64, uid: u16) -> Result<Option<Made>> {
    let Handles { chain, run: Run { id: run, .. }, .. } = handles;
    let miners = chain.miners(*run, None).await?;
    for reveal in chain.reveals(*run, window, None).await? {
        let miner = miners.iter().find(|miner| miner.uid == reveal.uid && miner.uid != uid);
        let Some(miner) = miner else { continue };
        if let Ok(payload) = handles.peers.payloads.fetch(window, &miner.hot, &reveal).await {
            return Ok(Some(Made { payload, losses: None }));
        }
    }
    Ok(None)
}

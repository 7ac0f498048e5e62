//! Commits to what another miner sent in the window before.

use async_trait::async_trait;
use futures::{stream::FuturesUnordered, StreamExt};

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

/// The payload that another miner than `uid` revealed in a window: the first that comes, as some come late or never.
async fn find(handles: &Handles, window: u64, uid: u16) -> Result<Option<Made>> {
    let Handles { chain, run: Run { id: run, .. }, .. } = handles;
    let miners = chain.miners(*run, None).await?;
    let reveals = chain.reveals(*run, window, None).await?;
    let of_others = reveals.iter().filter(|reveal| reveal.uid != uid);
    let mut fetches: FuturesUnordered<_> = of_others
        .filter_map(|reveal| {
            let miner = miners.iter().find(|miner| miner.uid == reveal.uid)?;
            Some(handles.peers.payloads.fetch(window, &miner.hot, reveal))
        })
        .collect();
    while let Some(fetched) = fetches.next().await {
        if let Ok(payload) = fetched {
            return Ok(Some(Made { payload, losses: None }));
        }
    }
    Ok(None)
}

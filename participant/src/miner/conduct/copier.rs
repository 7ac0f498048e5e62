//! Tries to open another miner's payload as its own.

use async_trait::async_trait;
use protocol::{commitment::Opening, layout::Layout, window::Phase, Hash};
use rand::{rngs::StdRng, RngCore, SeedableRng};

use super::Conduct;
use crate::{
    desk::Errand,
    error::{miss, Attempt as _, Result},
    handles::{Handles, Run},
    miner::{
        challenge::{challenge_seed, challenged},
        workshop::{Prepared, Task, Workshop},
    },
};

/// Commits to a guess and opens what somebody else revealed.
#[derive(Clone, Copy, Debug)]
pub struct Copier;

#[async_trait]
impl Conduct for Copier {
    async fn make(&self, workshop: &Workshop, task: Task) -> Result<Prepared> {
        let window = task.state.window;
        let layout = &workshop.handles.run.info.layout;
        let opening = guess(layout, task.state.root, workshop.salt(window));
        Ok(Prepared { window, uid: task.uid, opening, payload: None, trained: false })
    }

    async fn open(&self, handles: &Handles, update: &Prepared) -> Result<()> {
        let Handles { chain, heads, run: Run { id: run, info, .. }, .. } = handles;
        let (schedule, window) = (&info.settings.schedule, update.window);
        let seed = challenge_seed(handles, window).await?;
        let end = schedule.phase_end_block(window, Phase::Reveal).context("the run's end")?;
        let mut heads = heads.clone();
        let (bytes, reveal) = loop {
            let reveals = chain.reveals(*run, window, None).await?;
            if let Some(reveal) = reveals.into_iter().find(|reveal| reveal.uid != update.uid) {
                let miners = chain.miners(*run, None).await?;
                let miner = miners.iter().find(|miner| miner.uid == reveal.uid);
                let hot = miner.map(|miner| miner.hot).unwrap_or_default();
                break (handles.peers.payloads.fetch(window, &hot, &reveal).await?, reveal);
            }
            if heads.next().await?.number + 1 >= end {
                miss!("nobody revealed anything to copy");
            }
        };
        let chunks = challenged(handles, &seed, window, update.uid, &bytes).await?;
        let opening = Opening { salt: update.opening.salt, ..reveal.opening };
        let errand = Errand::RevealUpdate { window, opening, chunks };
        // Nobody can have opened a guess before.
        handles.desk.errand(errand, || async { Ok(false) }, end - 1).await?;
        tracing::info!(window, "the copy was not refused");
        Ok(())
    }
}

/// What is committed to before anything was seen.
fn guess(layout: &Layout, base_state_root: Hash, salt: Hash) -> Opening {
    let mut random = StdRng::from_seed(salt);
    let mut payload_root: Hash = [0; 32];
    random.fill_bytes(&mut payload_root);
    let chunk_count = layout.chunk_count().unwrap_or(0);
    Opening { payload_root, chunk_count, byte_len: 0, base_state_root, salt }
}

//! Trains on what was assigned and shows what was committed to.

use std::time::Instant;

use async_trait::async_trait;
use protocol::{update::Payload, window::Phase};

use super::Conduct;
use crate::{
    desk::{Errand, Submitted},
    diary::Duty,
    error::{Attempt as _, Result},
    handles::Handles,
    miner::{
        challenge::{challenge_seed, challenged},
        workshop::{Prepared, Task, Workshop},
    },
};

/// Does what the rules ask for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Honest;

#[async_trait]
impl Conduct for Honest {
    async fn make(&self, workshop: &Workshop, task: Task) -> Result<Prepared> {
        let made = workshop.train(&task).await?;
        workshop.finish(&task, made, true).await
    }
}

/// Serves the payload from the end of the commitments on, and reveals it with the chunks that the chain asks for.
pub(super) async fn open(handles: &Handles, update: &Prepared) -> Result<()> {
    let Handles { chain, run, info, .. } = handles;
    let (schedule, window) = (&info.settings.schedule, update.window);
    let bytes = update.payload.clone().context("there is no payload to reveal")?;
    let seed = challenge_seed(handles, window).await?;
    let started = Instant::now();
    handles.payloads.serve(window, update.opening.payload_root, bytes.clone()).await?;

    let payload = Payload::parse(&bytes, &info.layout, info.settings.training.keep)?;
    let chunks = challenged(handles, &seed, window, update.uid, &payload)?;
    let is_there = || async {
        let reveals = chain.reveals(*run, window, None).await?;
        Ok(reveals.iter().any(|reveal| reveal.uid == update.uid))
    };
    let errand = Errand::RevealUpdate { window, opening: update.opening.clone(), chunks };
    let end = schedule.phase_end_block(window, Phase::Reveal).context("the run's end")?;
    if handles.desk.errand(errand, is_there, end - 1).await? == Submitted::Now {
        tracing::info!(window, "revealed");
        handles.diary.done(window, Duty::Reveal, started.elapsed().as_secs_f64());
    }
    Ok(())
}

//! Reveals an update: serves it, and shows the chunks that the chain asks for.

use std::time::Instant;

use protocol::window::Phase;

use super::{
    challenge::{challenge_seed, challenged},
    workshop::Prepared,
};
use crate::{
    desk::{Errand, Submitted},
    diary::Duty,
    error::{Attempt as _, Result},
    handles::{Handles, Peers, Run},
};

/// Serves the payload from the end of the commitments on, and reveals it with the chunks that the chain asks for.
pub(super) async fn reveal(handles: &Handles, update: &Prepared) -> Result<()> {
    open(handles, update, true).await
}

/// Reveals the payload with the chunks that the chain asks for, and `serves` it or not.
pub(super) async fn open(handles: &Handles, update: &Prepared, serves: bool) -> Result<()> {
    let Handles { chain, run: Run { id: run, info, .. }, .. } = handles;
    let (schedule, window) = (&info.settings.schedule, update.window);
    let bytes = update.payload.clone().context("there is no payload to reveal")?;
    let is_there = || async {
        let reveals = chain.reveals(*run, window, None).await?;
        Ok(reveals.iter().any(|reveal| reveal.uid == update.uid))
    };
    // After a restart it may be long since.
    let seed = match is_there().await? {
        true => None,
        false => Some(challenge_seed(handles, window).await?),
    };
    let started = Instant::now();
    if serves {
        let (Peers { payloads, copies, .. }, root) = (&handles.peers, update.opening.payload_root);
        payloads.serve_own(window, root, bytes.clone()).await?;
        copies.payload(payloads.contents(root));
    }

    let Some(seed) = seed else { return Ok(()) };
    let chunks = challenged(handles, &seed, window, update.uid, &bytes).await?;
    let errand = Errand::RevealUpdate { window, opening: update.opening.clone(), chunks };
    let end = schedule.phase_end_block(window, Phase::Reveal).context("the run's end")?;
    if handles.desk.errand(errand, is_there, end - 1).await? == Submitted::Now {
        tracing::info!(window, "revealed");
        handles.machine.diary.done(window, Duty::Reveal, started.elapsed().as_secs_f64());
    }
    Ok(())
}

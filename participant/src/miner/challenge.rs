//! Answers the chain's challenge: which chunks it asks for, and their proofs.

use bytes::Bytes;
use protocol::{
    commitment::{challenged_chunks, ChunkProof},
    update::Frame,
    window::Phase,
    Hash, Uid, Window,
};

use super::workshop::MARGIN_BLOCKS;
use crate::{
    error::{miss, Attempt as _, Result},
    handles::{Handles, Run},
};

/// Waits for the seed from which the chain draws the chunks that it asks for.
pub(super) async fn challenge_seed(handles: &Handles, window: Window) -> Result<Hash> {
    let Handles { chain, heads, run: Run { id: run, info, .. }, .. } = handles;
    let schedule = &info.settings.schedule;
    let open = schedule.phase_end_block(window, Phase::Commit).context("the run's end")?;
    let close = schedule.phase_end_block(window, Phase::Reveal).context("the run's end")?;
    let mut heads = heads.clone();
    let mut head = heads.reach(open).await?;
    while heads.best() + MARGIN_BLOCKS <= close {
        let record = chain.window(*run, window, Some(head.hash)).await?;
        if let Some(seed) = record.and_then(|record| record.challenge_seed) {
            return Ok(seed);
        }
        head = heads.next().await?;
    }
    miss!("the chain has drawn no chunks, or it is too late to reveal them")
}

/// The chunks of a payload that the chain asks the miner `uid` for under `seed`, with their proofs.
pub(super) async fn challenged(
    handles: &Handles,
    seed: &Hash,
    window: Window,
    uid: Uid,
    payload: &Bytes,
) -> Result<Vec<ChunkProof>> {
    let Run { id: run, info, .. } = &handles.run;
    let (run, info, seed, payload) = (*run, info.clone(), *seed, payload.clone());
    let work = move || {
        let frame = Frame::cut(&payload, &info.layout, info.settings.training.keep)?;
        let count = info.settings.incentive.challenge_chunks;
        let indices = challenged_chunks(&seed, run, window, uid, frame.chunk_count(), count);
        let leaf_hashes = frame.leaf_hashes();
        let chunks = indices.iter().map(|index| frame.chunk_proof(&leaf_hashes, *index));
        chunks.collect::<Option<Vec<_>>>().context("the chain asks for a chunk that is not there")
    };
    handles.machine.work.run_short(work).await?
}

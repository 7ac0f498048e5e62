//! Commit, serve, reveal.

use std::time::Instant;

use anyhow::{bail, Context, Result};
use codec::{Decode, Encode};
use node_client::{
    chain::Call,
    journal::{JournalError, JournalKind},
};
use protocol::{
    commitment::{challenged_chunks, commitment_hash, Opening},
    update::Payload,
    window::Phase,
    Hash,
};
use tokio::sync::mpsc;

use super::{Prepared, MARGIN_BLOCKS};
use crate::{
    adversary, config::AdversaryKind, diary::Duty, participant::Handles, submitter::Failure,
};

/// Submits every update that `prepared` brings until the process ends.
pub(super) async fn run(
    handles: Handles,
    mut prepared: mpsc::Receiver<Prepared>,
    adversary: Option<AdversaryKind>,
) -> Result<()> {
    while let Some(update) = prepared.recv().await {
        let window = update.window;
        let update = match commit(&handles, update).await {
            Ok(update) => update,
            Err(error) => {
                handles.diary.missed(window, Duty::Commit, format!("{error:#}"));
                continue;
            }
        };
        let result = match adversary {
            Some(AdversaryKind::Copier) => adversary::open_anothers(&handles, &update).await,
            _ => reveal(&handles, &update).await,
        };
        if let Err(error) = result {
            handles.diary.missed(window, Duty::Reveal, format!("{error:#}"));
        }
    }
    Ok(())
}

/// Commits to the update, or finds that it has been committed to. Returns what was committed to: after a restart that
/// may be an earlier opening of the same update.
async fn commit(handles: &Handles, mut update: Prepared) -> Result<Prepared> {
    let started = Instant::now();
    let Handles { chain, run, info, .. } = handles;
    let schedule = &info.settings.schedule;
    let end = schedule.phase_end_block(update.window, Phase::Commit).context("the run's end")?;
    let hash = record(handles, &mut update).await?;
    let own = |commitments: Vec<node_client::chain::CommitmentInfo>| {
        commitments.into_iter().find(|commitment| commitment.uid == update.uid)
    };
    let on_chain = own(chain.commitments(*run, update.window, None).await?);
    match on_chain {
        Some(commitment) if commitment.hash == hash => return Ok(update),
        Some(_) => bail!("the chain has another commitment of ours"),
        None => {}
    }
    let call = Call::CommitUpdate { run: *run, window: update.window, hash };
    match handles.submitter.by(call, end - 1).await {
        Ok(_) => {}
        // An earlier attempt may have been included although we did not hear of it.
        Err(failure @ Failure::Refused(_)) => {
            let on_chain = own(chain.commitments(*run, update.window, None).await?);
            if on_chain.is_none_or(|commitment| commitment.hash != hash) {
                return Err(failure.into());
            }
        }
        Err(failure) => return Err(failure.into()),
    }
    handles.diary.done(update.window, Duty::Commit, started.elapsed().as_secs_f64());
    Ok(update)
}

/// Puts the commitment into the journal before it is signed. If the journal has another one for this window, made
/// before a restart, that one stands.
async fn record(handles: &Handles, update: &mut Prepared) -> Result<Hash> {
    let hash_of = |opening: &Opening| {
        commitment_hash(&handles.genesis, handles.run, update.window, &handles.hot, opening)
    };
    let hash = hash_of(&update.opening);
    let (journal, run, window) = (handles.journal.clone(), handles.run, update.window);
    let secret = update.opening.encode();
    let recorded = handles
        .work
        .run(move || journal.record_with(JournalKind::UpdateCommitment, run, window, hash, &secret))
        .await?;
    match recorded {
        Ok(_) => Ok(hash),
        Err(JournalError::Conflict { .. }) => {
            let entry = handles
                .journal
                .lookup(JournalKind::UpdateCommitment, run, window)
                .context("the journal forgot a commitment")?;
            let opening = Opening::decode(&mut &entry.secret[..])?;
            if opening.payload_root != update.opening.payload_root {
                bail!("another update has been committed to in this window");
            }
            update.opening = opening;
            Ok(entry.hash)
        }
        Err(error) => Err(error.into()),
    }
}

/// Serves the payload from the end of the commitments on, and reveals it with the chunks that the chain asks for.
async fn reveal(handles: &Handles, update: &Prepared) -> Result<()> {
    let Handles { chain, run, info, .. } = handles;
    let (schedule, window) = (&info.settings.schedule, update.window);
    let bytes = update.payload.clone().context("there is no payload to reveal")?;
    let seed = challenge_seed(handles, window).await?;
    let started = Instant::now();
    handles.payloads.serve(window, update.opening.payload_root, bytes.clone()).await?;

    let payload = Payload::parse(&bytes, &info.layout, info.settings.training.keep)?;
    let count = info.settings.incentive.challenge_chunks;
    let indices = challenged_chunks(&seed, *run, window, update.uid, payload.chunk_count(), count);
    let leaf_hashes = payload.leaf_hashes();
    let chunks = indices
        .iter()
        .map(|index| payload.chunk_proof(&leaf_hashes, *index))
        .collect::<Option<Vec<_>>>()
        .context("the chain asks for a chunk that is not there")?;
    let is_there = || async {
        let reveals = chain.reveals(*run, window, None).await?;
        anyhow::Ok(reveals.iter().any(|reveal| reveal.uid == update.uid))
    };
    if is_there().await? {
        return Ok(());
    }
    let call = Call::RevealUpdate { run: *run, window, opening: update.opening.clone(), chunks };
    let end = schedule.phase_end_block(window, Phase::Reveal).context("the run's end")?;
    if let Err(failure) = handles.submitter.by(call, end - 1).await {
        if matches!(failure, Failure::TooLate { .. }) || !is_there().await? {
            return Err(failure.into());
        }
    }
    tracing::info!(window, "revealed");
    handles.diary.done(window, Duty::Reveal, started.elapsed().as_secs_f64());
    Ok(())
}

/// Waits for the seed from which the chain draws the chunks that it asks for.
pub(crate) async fn challenge_seed(handles: &Handles, window: u64) -> Result<Hash> {
    let Handles { chain, run, info, heads, .. } = handles;
    let schedule = &info.settings.schedule;
    let open = schedule.phase_end_block(window, Phase::Commit).context("the run's end")?;
    let close = schedule.phase_end_block(window, Phase::Reveal).context("the run's end")?;
    let mut heads = heads.clone();
    let mut head = heads.reach(open).await?;
    while head.number + MARGIN_BLOCKS <= close {
        let record = chain.window(*run, window, Some(head.hash)).await?;
        if let Some(seed) = record.and_then(|record| record.challenge_seed) {
            return Ok(seed);
        }
        head = heads.next().await?;
    }
    bail!("the chain has drawn no chunks, or it is too late to reveal them")
}

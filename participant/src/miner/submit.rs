//! Commits to each update and has it opened. One that nobody has seen when its time is over goes back to who made it.

use std::{sync::Arc, time::Instant};

use codec::{Decode, Encode};
use node_client::{
    chain::{Call, CommitmentInfo},
    journal::JournalKind,
};
use protocol::{
    commitment::{commitment_hash, Opening},
    window::Phase,
    Window,
};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    conduct::Conduct,
    workshop::{Prepared, Workshop},
};
use crate::{
    desk::Submitted,
    diary::Duty,
    error::{miss, Attempt as _, Error, Result},
    handles::{Handles, Run},
    leave::Promise,
};

/// Submits every update that `prepared` brings until the process ends.
pub(super) async fn run(
    workshop: Workshop,
    mut prepared: mpsc::Receiver<Prepared>,
    conduct: Arc<dyn Conduct>,
) -> Result<()> {
    let handles = &workshop.handles;
    // They end with this service.
    let mut returning = JoinSet::new();
    while let Some(update) = prepared.recv().await {
        while returning.try_join_next().is_some() {}
        let window = update.window;
        let promise = handles.machine.leave.promise().await;
        let (duty, error) = match commit(handles, update.clone()).await {
            Err(error) => (Duty::Commit, error),
            Ok(committed) => match conduct.open(handles, &committed).await {
                Err(error) => (Duty::Reveal, error),
                Ok(()) => {
                    serve_until_attested(handles, window, promise);
                    continue;
                }
            },
        };
        handles.machine.diary.missed(window, duty, error.line());
        let workshop = workshop.clone();
        returning.spawn(async move {
            if let Err(error) = give_back(&workshop, &update).await {
                tracing::warn!(window, error = error.line(), "what the update had in it is lost");
            }
        });
    }
    Ok(())
}

/// Gives an update that was not committed to or revealed in time back to the trainer, once it is final that nobody will apply it.
async fn give_back(workshop: &Workshop, update: &Prepared) -> Result<()> {
    let Handles { chain, heads, run: Run { id: run, info, .. }, .. } = &workshop.handles;
    let (window, uid) = (update.window, update.uid);
    let end = info.settings.schedule.phase_end_block(window, Phase::Reveal);
    // Later nothing of it can be revealed. Until then the best chain may have what is not final yet.
    let head = heads.clone().reach(end.context("the run's end")?).await?;
    // After a restart it may be long since, and the chain may have forgotten whether it was accepted.
    let Some(record) = chain.window(*run, window, Some(head.hash)).await? else { return Ok(()) };
    let reveals = chain.reveals(*run, window, Some(head.hash)).await?;
    let is_seen = reveals.iter().any(|reveal| reveal.uid == uid) || record.accepted.contains(&uid);
    match is_seen {
        true => Ok(()),
        false => workshop.take_back(update).await,
    }
}

/// Keeps `promise` until no validator can attest the update of `window` any more: so long it is served.
fn serve_until_attested(handles: &Handles, window: Window, promise: Promise) {
    let schedule = &handles.run.info.settings.schedule;
    let Some(end) = schedule.phase_end_block(window, Phase::AttestCommit) else { return };
    let mut heads = handles.heads.clone();
    tokio::spawn(async move {
        // An error says that the process is ending.
        let _ = heads.reach_best(end).await;
        drop(promise);
    });
}

/// Commits to the update, or finds that it has been committed to. Returns what was committed to: after a restart that
/// may be an earlier opening of the same update.
async fn commit(handles: &Handles, mut update: Prepared) -> Result<Prepared> {
    let started = Instant::now();
    let Handles { chain, desk, run: Run { id: run, info, genesis, .. }, .. } = handles;
    let hot = &handles.desk.account();
    let (run, window, uid) = (*run, update.window, update.uid);
    let schedule = &info.settings.schedule;
    let end = schedule.phase_end_block(window, Phase::Commit).context("the run's end")?;
    let hash = commitment_hash(genesis, run, window, hot, &update.opening);
    let secret = update.opening.encode();
    let pledge = desk.pledge(JournalKind::UpdateCommitment, window, hash, secret).await?;
    let opening = Opening::decode(&mut pledge.secret())?;
    if opening.payload_root != update.opening.payload_root {
        miss!("another update has been committed to in this window");
    }
    update.opening = opening;

    let hash = pledge.hash();
    let is_there = || async {
        let commitments: Vec<CommitmentInfo> = chain.commitments(run, window, None).await?;
        match commitments.into_iter().find(|commitment| commitment.uid == uid) {
            Some(commitment) if commitment.hash == hash => Ok(true),
            Some(_) => Err(Error::Missed(
                "the chain has another commitment of ours; does another process use this key?"
                    .into(),
            )),
            None => Ok(false),
        }
    };
    let call = Call::CommitUpdate { run, window, hash };
    if pledge.submit(call, is_there, end - 1).await? == Submitted::Now {
        handles.machine.diary.done(window, Duty::Commit, started.elapsed().as_secs_f64());
    }
    Ok(update)
}

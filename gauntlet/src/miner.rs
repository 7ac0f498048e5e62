//! A miner: train on what the seed assigns, commit, serve, reveal; window after window.
//!
//! A service per duty, each with its own loop:
//!
//! - `replica`: holds the agreed parameters ([`crate::replica`]);
//! - `train` ([`train`]): from θ_w and the seed to an update, saved before anybody hears of it;
//! - `submit` ([`submit`]): commit, serve after the commitments are closed, reveal with the chunks that the chain asks for.
//!
//! **Killed at any moment.** An update is on disk, with the checkpoint that has its residual, before its commitment is in
//! the journal, and the commitment is in the journal before it is signed. A process that starts again finds how far it
//! came: it commits or reveals what it had made, and never makes a second update for a window.

mod submit;
mod train;
mod updates;

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use anyhow::{bail, Context, Result};
use bytes::Bytes;
use node_client::chain::MinerInfo;
use protocol::{commitment::Opening, Uid, Window};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use trainer::{Checkpoints, Cpu, Trainer, TrainerSettings};

use crate::{
    config::Participant,
    memory,
    participant::{self, Handles, Role, Surroundings},
    replica::{Replica, State},
    signals,
};

pub(crate) use submit::challenge_seed;
pub use updates::Updates;

/// Blocks before the end of a phase after which nothing is begun for it any more: time for an extrinsic to be included.
pub const MARGIN_BLOCKS: u32 = 2;

/// How long the start waits for the hot key to be registered.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(120);

/// An update that is ready to be committed to.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The window it is for.
    pub window: Window,
    /// Whose it is.
    pub uid: Uid,
    /// What opens the commitment.
    pub opening: Opening,
    /// The update; `None` for an adversary that has none.
    pub payload: Option<Bytes>,
}

/// What a checkpoint says beside the trainer's own state: the update that was made last.
#[derive(Serialize, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields)]
struct Note {
    uid: Uid,
    opening: Opening,
}

/// Runs a miner until it is told to end; returns the exit code.
///
/// # Errors
/// It cannot start, or a service failed for good.
pub async fn run(path: &Path) -> Result<u8> {
    let config = Participant::load(path)?;
    let surroundings = participant::connect(&config).await?;
    serve(config, surroundings, signals::end_requested()).await
}

/// Runs a miner in these surroundings until `end` resolves; returns the exit code. Dropped, it ends as if killed.
///
/// # Errors
/// As [`run`].
pub async fn serve(
    config: Participant,
    surroundings: Surroundings,
    end: impl Future<Output = ()>,
) -> Result<u8> {
    let (handles, mut services) = participant::open(&config, Role::Miner, surroundings).await?;
    let batch_size = handles.info.settings.training.batch_size as usize;
    let threads = handles.threads.count();
    let micro_batch = memory::micro_batch(
        "a miner",
        &config.model,
        batch_size,
        config.memory_bytes,
        &|model, samples| memory::miner(model, samples, threads),
    )?;
    let (model, root) = participant::initial_model(&config.model, &handles.info, &handles.threads)?;
    wait_for_registration(&handles).await?;

    let checkpoints =
        Arc::new(Checkpoints::open(&participant::subfolder(&config, "checkpoints")?)?);
    let updates = Updates::open(participant::subfolder(&config, "updates")?);
    let settings = TrainerSettings { batch_size, micro_batch, ..TrainerSettings::default() };
    let mut trainer = Trainer::new(model, settings, &Cpu::new(handles.threads.clone()))?;
    let mut state = State { window: 0, model: trainer.model().clone(), root };
    let mut recovered = None;
    if let Some(checkpoint) = checkpoints.load(&config.model)? {
        let position = trainer.restore(checkpoint)?;
        if position.run != handles.run {
            bail!("the checkpoint is of run {}, not {}", position.run, handles.run);
        }
        tracing::info!(
            window = position.window,
            trained = position.trained,
            "resumed from a checkpoint"
        );
        state = State {
            window: position.window,
            root: trainer.state_root(),
            model: trainer.model().clone(),
        };
        if position.trained {
            recovered = recover(&position, &updates)?;
        }
    }
    let trained = recovered.as_ref().map(|prepared: &Prepared| prepared.window);

    let (replica, states) = Replica::new(handles.clone(), state, None, config.window_end);
    let (ready, prepared) = mpsc::channel(1);
    if let Some(recovered) = recovered {
        ready.send(recovered).await?;
    }
    let train = train::Train {
        handles: handles.clone(),
        states,
        trainer: Arc::new(std::sync::Mutex::new(trainer)),
        checkpoints,
        updates,
        adversary: config.adversary,
        window_end: config.window_end,
        ready,
    };
    services.start("replica", replica.run());
    services.start("train", train.run(trained));
    services.start("submit", submit::run(handles, prepared, config.adversary));
    services.wait(end).await
}

/// The update that the checkpoint's note names, if it is still on disk.
fn recover(position: &trainer::Position, updates: &Updates) -> Result<Option<Prepared>> {
    let note: Note =
        serde_json::from_str(&position.note).context("the checkpoint's note is not ours")?;
    let payload = updates.load(position.window)?;
    Ok(Some(Prepared { window: position.window, uid: note.uid, opening: note.opening, payload }))
}

async fn wait_for_registration(handles: &Handles) -> Result<()> {
    let look = async {
        while own_record(handles).await?.is_none() {
            tracing::info!("this hot key is not registered as a miner yet");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(REGISTRATION_TIMEOUT, look)
        .await
        .context("this hot key is not registered as a miner of the run")?
}

/// What the chain knows of this miner now.
async fn own_record(handles: &Handles) -> Result<Option<MinerInfo>> {
    let miners = handles.chain.miners(handles.run, None).await?;
    Ok(miners.into_iter().find(|miner| miner.hot == handles.hot))
}

//! A validator: fetch what miners reveal, attest what is valid, measure what it is worth; window after window.
//!
//! A service per duty, each with its own loop:
//!
//! - `replica`: holds the agreed parameters, and last window's ([`crate::replica`]);
//! - `attest` ([`attest`]): fetches every revealed payload, checks it, and says which it found valid, and which state it
//!   holds;
//! - `score` ([`score`]): in the next window, measures the assigned miners' updates, commits to the scores and reveals them;
//! - `held_out` ([`held_out`]): the held-out loss of each window's parameters, for people; nobody is paid by it.
//!
//! **Killed at any moment.** Attestations and scores are in the journal before they are signed. A process that starts
//! again reveals what it had committed to and never signs a second, different thing for a window.

mod attest;
mod held_out;
mod score;

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use anyhow::{bail, Context, Result};
use node_client::chain::ValidatorInfo;
use trainer::{Checkpoints, Threads};

use crate::{
    config::Participant,
    memory::{self, SCORED_AT_ONCE as SAMPLES_AT_ONCE},
    participant::{self, Handles, Role, Surroundings},
    replica::{Replica, State},
    signals,
};

/// How long the start waits for the hot key to be registered.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs a validator until it is told to end; returns the exit code.
///
/// # Errors
/// It cannot start, or a service failed for good.
pub async fn run(path: &Path) -> Result<u8> {
    let config = Participant::load(path)?;
    let surroundings = participant::connect(&config).await?;
    serve(config, surroundings, signals::end_requested()).await
}

/// Runs a validator in these surroundings until `end` resolves; returns the exit code. Dropped, it ends as if killed.
///
/// # Errors
/// As [`run`].
pub async fn serve(
    config: Participant,
    surroundings: Surroundings,
    end: impl Future<Output = ()>,
) -> Result<u8> {
    if config.adversary.is_some() {
        bail!("only a miner can be an adversary");
    }
    let (handles, mut services) = participant::open(&config, Role::Validator, surroundings).await?;
    memory::check("a validator", &config.model, config.memory_bytes, |model| {
        memory::validator(model, handles.threads.count())?.bytes()
    })?;
    let (model, root) = participant::initial_model(&config.model, &handles.info, &handles.threads)?;
    wait_for_registration(&handles).await?;

    let checkpoints =
        Arc::new(Checkpoints::open(&participant::subfolder(&config, "checkpoints")?)?);
    let mut state = State { window: 0, model, root };
    if let Some(checkpoint) = checkpoints.load(&config.model)? {
        state = resume(checkpoint, &handles.threads, handles.run)?;
    }
    let (replica, states) =
        Replica::new(handles.clone(), state, Some(checkpoints), config.window_end);
    services.start("replica", replica.run());
    let attest = attest::Attest {
        handles: handles.clone(),
        states: states.clone(),
        window_end: config.window_end,
    };
    services.start("attest", attest.run());
    let score = score::Score::new(
        handles.clone(),
        states.clone(),
        config.model.clone(),
        config.window_end,
    )?;
    services.start("score", score.run());
    if config.held_out_samples > 0 {
        let samples = config.held_out_samples;
        services.start("held_out", held_out::run(handles, states, config.model, samples));
    }
    services.wait(end).await
}

fn resume(checkpoint: trainer::Checkpoint, threads: &Threads, run: u32) -> Result<State> {
    let position = checkpoint.position().clone();
    if position.run != run {
        bail!("the checkpoint is of run {}, not {run}", position.run);
    }
    tracing::info!(window = position.window, "resumed from a checkpoint");
    let model = checkpoint.into_model();
    Ok(State { window: position.window, root: model.state_root(threads), model })
}

async fn wait_for_registration(handles: &Handles) -> Result<()> {
    let look = async {
        while own_record(handles).await?.is_none() {
            tracing::info!("this hot key is not registered as a validator yet");
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(REGISTRATION_TIMEOUT, look)
        .await
        .context("this hot key is not registered as a validator of the run")?
}

/// What the chain knows of this validator now.
async fn own_record(handles: &Handles) -> Result<Option<ValidatorInfo>> {
    let validators = handles.chain.validators(handles.run, None).await?;
    Ok(validators.into_iter().find(|validator| validator.hot == handles.hot))
}

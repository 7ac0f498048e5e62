//! Runs a validator: it fetches what miners reveal, attests what is valid and measures its worth; window after window.
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

use std::{future::Future, sync::Arc};

use protocol::Hash;
use trainer::{Checkpoints, Model, Threads};

use crate::{
    error::{unfit, Result},
    events::Events,
    handles::{Handles, Role, Services, Surroundings},
    memory, open, pay,
    replica::{Replica, State},
    settings::Participant,
    slot,
};

/// A validator that has met its chain, its data and its model, and has not started yet.
pub struct Validator {
    settings: Participant,
    handles: Handles,
    services: Services,
    model: Model,
    root: Hash,
}

impl Validator {
    /// Opens everything of a validator, checks that model and data are the run's and fit the memory, and registers it if
    /// the settings have a cold key.
    ///
    /// # Errors
    /// Chain, disk or network refuse, or model or data are not the run's.
    pub async fn open(settings: Participant, surroundings: Surroundings) -> Result<Self> {
        let (handles, services) = open::open(&settings, Role::Validator, surroundings).await?;
        memory::check("a validator", &settings.model, settings.memory_bytes, |model| {
            memory::validator(model, handles.machine.threads().count())?.bytes()
        })?;
        let (model, root) =
            open::initial_model(&settings.model, &handles.run.info, handles.machine.threads())?;
        Ok(Self { settings, handles, services, model, root })
    }

    /// What the validator does, misses and is paid, from now on.
    pub fn events(&self) -> Events {
        self.handles.machine.diary.events()
    }

    /// Validates until `shutdown` resolves. Dropped, it ends as if killed, and nothing that was pledged is lost.
    ///
    /// # Errors
    /// The hot key is not registered in time, the disk is damaged, or a service failed for good.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        slot::wait(&self.handles, Role::Validator).await?;
        self.start()?.wait(shutdown).await
    }

    /// Starts a service per duty, from the last checkpoint if there is one.
    fn start(self) -> Result<Services> {
        let Self { settings, handles, mut services, model, root } = self;
        let checkpoints = Arc::new(Checkpoints::open(&open::subfolder(&settings, "checkpoints")?)?);
        let mut state = State { window: 0, model, root };
        if let Some(checkpoint) = checkpoints.load(&settings.model)? {
            state = resume(checkpoint, handles.machine.threads(), handles.run.id)?;
        }
        let window_end = settings.window_end;
        let (replica, states) = Replica::new(handles.clone(), state, Some(checkpoints), window_end);
        services.start("replica", replica.run());
        let attest =
            attest::Attest { handles: handles.clone(), states: states.clone(), window_end };
        services.start("attest", attest.run());
        let config = settings.model.clone();
        let score = score::Score::new(handles.clone(), states.clone(), config.clone(), window_end)?;
        services.start("score", score.run());
        let samples = settings.held_out_samples;
        if samples > 0 {
            services.start("held_out", held_out::run(handles.clone(), states, config, samples));
        }
        if handles.machine.diary.has_readers() {
            services.start("pay", pay::follow(handles, Role::Validator));
        }
        Ok(services)
    }
}

fn resume(checkpoint: trainer::Checkpoint, threads: &Threads, run: u32) -> Result<State> {
    let position = checkpoint.position().clone();
    if position.run != run {
        unfit!("the checkpoint is of run {}, not {run}", position.run);
    }
    tracing::info!(window = position.window, "resumed from a checkpoint");
    let model = checkpoint.into_model();
    Ok(State { window: position.window, root: model.state_root(threads), model })
}

//! Runs a validator: it fetches what miners reveal, attests what is valid and measures its worth; window after window.
//!
//! A service per duty, each with its own loop:
//!
//! - `replica`: holds the agreed parameters, and last window's ([`crate::replica`]);
//! - `attest` ([`attest`]): fetches every revealed payload, checks it, and says which it found valid, and which state it
//!   holds; it reports the faults that it comes upon ([`watch`]);
//! - `score` ([`score`]): in the next window, measures the assigned miners' updates, commits to the scores and reveals them;
//! - `jury` ([`jury`]): measures disputed evaluations again, and says what it found;
//! - `accuse` ([`accuse`]): ends the bonded accusations that `attest` and `score` begin where the settings say so;
//! - `proofs` (`outcomes`): tells what proofs of faults do to this validator;
//! - `held_out` ([`held_out`]): the held-out loss of each window's parameters, for people; nobody is paid by it.
//!
//! Whoever measures takes turns with one evaluator.
//!
//! **Killed at any moment.** Attestations and scores are in the journal before they are signed. A process that starts
//! again reveals what it had committed to and never signs a second, different thing for a window.

mod accuse;
mod checks;
mod measure;
mod turns;

mod attest;
mod held_out;
mod jury;
mod score;
mod watch;

use std::{
    future::Future,
    sync::{Arc, Mutex},
};

use node_client::journal::JournalKind;
use protocol::state_root::StateManifest;
use trainer::{checkpoint::OpenCheckpoint, Checkpoints, Evaluator, Model, Threads};

use crate::{
    error::{unfit, Result},
    events::Events,
    handles::{Handles, Role, Services, Surroundings},
    memory::{self, SCORED_AT_ONCE},
    open,
    outcomes::{self, Losses},
    pay,
    replica::{Replica, SaveStates, State},
    settings::Participant,
    slot,
};

/// A validator that has met its chain, its data and its model, and has not started yet.
pub struct Validator {
    settings: Participant,
    handles: Handles,
    services: Services,
    initial: (Model, StateManifest),
}

impl Validator {
    /// Opens everything of a validator, checks that model and data are the run's and fit the memory, and registers it if
    /// the settings have a cold key.
    ///
    /// # Errors
    /// Chain, disk or network refuse, or model or data are not the run's.
    pub async fn open(settings: Participant, surroundings: Surroundings) -> Result<Self> {
        let (handles, mut services) = open::open(&settings, surroundings).await?;
        let keep = handles.run.info.settings.training.keep;
        let device = &*handles.machine.device;
        memory::check_validator(device, &settings.model, keep, settings.memory_bytes)?;
        let initial =
            open::initial_model(&settings.model, &handles.run.info, handles.machine.threads())?;
        open::join(&settings, Role::Validator, &handles, &mut services).await?;
        Ok(Self { settings, handles, services, initial })
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
        let Self { settings, handles, mut services, initial } = self;
        let threads = handles.machine.threads().clone();
        let folder = open::subfolder(&settings, "checkpoints")?;
        let checkpoints = Arc::new(Checkpoints::open(&folder)?.on(threads.clone()));
        let state = match checkpoints.newest(&settings.model)? {
            Some(newest) => {
                drop(initial);
                resume(newest, &threads, handles.run.id)?
            }
            None => State::new(0, initial.0, initial.1),
        };
        let window_end = settings.window_end;
        let checkpoints = SaveStates { checkpoints, every: settings.checkpoint_every };
        let memo = open::memo(&settings);
        let (replica, states) =
            Replica::new(handles.clone(), state, Some(checkpoints), window_end, memo);
        services.start("replica", replica.run());
        // A salt of no window: nobody learns which chunks are watched.
        let salt = handles.desk.salt(JournalKind::Attestation, u64::MAX);
        let (layout, keep) = (&handles.run.info.layout, handles.run.info.settings.training.keep);
        let proofs = settings.proofs;
        let watch = (!proofs.is_silent).then(|| Arc::new(watch::Watch::new(layout, keep, &salt)));
        let losses = Losses::default();
        let follow = outcomes::follow(handles.clone(), Role::Validator, losses.clone());
        services.start("proofs", follow);
        let accuser = Arc::new(accuse::Accuser::new(handles.clone(), proofs, losses, salt));
        services.start("accuse", accuser.clone().run());
        let attest = attest::Attest {
            handles: handles.clone(),
            states: states.clone(),
            watch,
            accuser: accuser.clone(),
            window_end,
        };
        services.start("attest", attest.run());
        let evaluator = Evaluator::new(&settings.model, &*handles.machine.device, SCORED_AT_ONCE)?;
        let evaluator = Arc::new(Mutex::new(evaluator));
        let measurer = measure::Measurer::new(handles.clone(), states.clone(), evaluator.clone());
        let measurer = Arc::new(measurer);
        let score = score::Score::new(handles.clone(), measurer.clone(), accuser, window_end);
        services.start("score", score.run());
        let jury = jury::Jury::new(handles.clone(), measurer);
        services.start("jury", jury.run());
        let samples = settings.held_out_samples;
        if samples > 0 {
            services.start("held_out", held_out::run(handles.clone(), states, evaluator, samples));
        }
        if handles.machine.diary.has_readers() {
            services.start("pay", pay::follow(handles, Role::Validator));
        }
        Ok(services)
    }
}

fn resume(newest: OpenCheckpoint, threads: &Threads, run: u32) -> Result<State> {
    let position = newest.position().clone();
    if position.run != run {
        unfit!("the checkpoint is of run {}, not {run}", position.run);
    }
    tracing::info!(window = position.window, "resumed from a checkpoint");
    let model = newest.into_model()?;
    let manifest = model.state_manifest(threads);
    Ok(State::new(position.window, model, manifest))
}

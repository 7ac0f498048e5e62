//! Runs a miner: it trains on what the seed assigns, commits, serves and reveals; window after window.
//!
//! A service per duty, each with its own loop:
//!
//! - `replica`: holds the agreed parameters ([`crate::replica`]);
//! - `train` ([`train`]): from θ_w and the seed to an update, saved before anybody hears of it;
//!   in a run whose training overlaps with its exchange, the next window's steps while the update travels ([`ahead`]);
//! - `submit` ([`submit`]): commit, serve after the commitments are closed, reveal with the chunks that the chain asks for;
//! - `answer` ([`answer`]): shows the chunks that somebody asks for on chain, in time;
//! - `proofs` (`outcomes`): tells what proofs of faults do to this miner.
//!
//! **Killed at any moment.** An update is on disk before its commitment is in the journal, and the commitment is in the journal
//! before it is signed; the checkpoint that has its residual is written beside that, in the windows for it. A process that starts
//! again finds how far it came: it commits or reveals what it had made, and never makes a second update for a window. Where it
//! made updates after its last checkpoint, the error feedback of that checkpoint, which has in it what they sent, is dropped.
//! An update that misses its commitment or its reveal has reached nobody: it is error feedback again.

pub mod adversary_kind;
pub mod conduct;
pub mod workshop;

mod ahead;
mod answer;
mod challenge;
mod ending;
mod reveal;
mod submit;
mod train;
mod updates;

use std::{future::Future, sync::Arc};

use protocol::{
    settings::{InnerOptimiser, Training},
    state_root::StateManifest,
    Window,
};
use tokio::sync::mpsc;
use trainer::{Checkpoints, Model, MuonSettings, Trainer, TrainerSettings};

use crate::{
    aside::Aside,
    error::{unfit, Attempt as _, Result},
    events::Events,
    handles::{Handles, Role, Services, Surroundings},
    memory, open,
    outcomes::{self, Losses},
    pay, prefetch,
    replica::{Replica, State},
    settings::Participant,
    slot,
};

use updates::{Note, Updates};
use workshop::{Prepared, Workshop};

/// A miner that has met its chain, its data and its model, and has not started yet.
pub struct Miner {
    settings: Participant,
    handles: Handles,
    services: Services,
    initial: (Model, StateManifest),
    micro_batch: usize,
}

impl Miner {
    /// Opens everything of a miner, checks that model and data are the run's and fit the memory, and registers it if the
    /// settings have a cold key.
    ///
    /// # Errors
    /// Chain, disk or network refuse, or model or data are not the run's.
    pub async fn open(settings: Participant, surroundings: Surroundings) -> Result<Self> {
        let (handles, mut services) = open::open(&settings, surroundings).await?;
        let training = &handles.run.info.settings.training;
        let (batch_size, optimiser) = (training.batch_size as usize, training.optimiser);
        let micro_batch = memory::miner_samples(
            &*handles.machine.device,
            &settings.model,
            optimiser,
            batch_size,
            settings.memory_bytes,
        )?;
        let initial =
            open::initial_model(&settings.model, &handles.run.info, handles.machine.threads())?;
        open::join(&settings, Role::Miner, &handles, &mut services).await?;
        Ok(Self { settings, handles, services, initial, micro_batch })
    }

    /// What the miner does, misses and is paid, from now on.
    pub fn events(&self) -> Events {
        self.handles.machine.diary.events()
    }

    /// Mines until `shutdown` resolves. Dropped, it ends as if killed, and nothing that was pledged is lost.
    ///
    /// # Errors
    /// The hot key is not registered in time, the disk is damaged, or a service failed for good.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<()> {
        slot::wait(&self.handles, Role::Miner).await?;
        self.start()?.wait(shutdown).await
    }

    /// Starts a service per duty, from the last checkpoint if there is one.
    fn start(self) -> Result<Services> {
        let Self { settings, handles, mut services, initial, micro_batch } = self;
        let threads = handles.machine.threads();
        let folder = open::subfolder(&settings, "checkpoints")?;
        let checkpoints = Arc::new(Checkpoints::open(&folder)?.on(threads.clone()));
        let updates = Updates::open(open::subfolder(&settings, "updates")?);
        let shape = trainer_settings(&handles.run.info.settings.training, micro_batch);
        let (model, manifest) = (Arc::new(initial.0), initial.1);
        let mut trainer = Trainer::new(model.clone(), shape, &*handles.machine.device)?;
        let mut made = updates.newest()?;
        let state = match checkpoints.newest(&settings.model)? {
            None => State::new(0, model, manifest),
            Some(checkpoint) => {
                drop((model, manifest));
                let position = checkpoint.position().clone();
                if position.run != handles.run.id {
                    unfit!("the checkpoint is of run {}, not {}", position.run, handles.run.id);
                }
                trainer.resume(checkpoint)?;
                let (window, saved) = (position.window, position.trained);
                tracing::info!(window, trained = saved, "resumed from a checkpoint");
                if made.as_ref().is_some_and(|(last, _)| !saved || *last > window) {
                    tracing::warn!("updates were made since: the error feedback starts afresh");
                    trainer.forget_feedback();
                } else if saved {
                    let note = serde_json::from_str(&position.note);
                    made = Some((window, note.context("the checkpoint's note is not ours")?));
                }
                let model = trainer.shared_model();
                let manifest = model.state_manifest(threads);
                State::new(window, model, manifest)
            }
        };
        // The replica's alone until a window's training begins.
        trainer.release_model();
        let trained = made.as_ref().map(|(window, _)| *window);
        let recovered = made.map(|(window, note)| recover(window, note, &updates)).transpose()?;

        let window_end = settings.window_end;
        let (replica, states) =
            Replica::new(handles.clone(), state, None, window_end, open::memo(&settings));
        let (ready, prepared) = mpsc::channel(1);
        if let Some(recovered) = recovered {
            // The channel is new: there is room.
            let _ = ready.try_send(recovered);
        }
        let conduct = settings.conduct;
        let every = settings.checkpoint_every;
        if conduct.answers() {
            // Before everything else: its deadlines cost the bond.
            let answer = answer::Answer::new(handles.clone(), updates.clone());
            services.start("answer", answer.run());
        }
        let follow = outcomes::follow(handles.clone(), Role::Miner, Losses::default());
        services.start("proofs", follow);
        let workshop = Workshop::new(handles.clone(), trainer, checkpoints, every, updates);
        services.start("prefetch", prefetch::run(handles.clone(), states.clone()));
        let submitting = workshop.clone();
        let train = train::Train {
            workshop,
            states,
            conduct: conduct.clone(),
            window_end,
            ready,
            putting_away: Aside::default(),
        };
        services.start("replica", replica.run());
        services.start("train", train.run(trained));
        services.start("submit", submit::run(submitting, prepared, conduct));
        if handles.machine.diary.has_readers() {
            services.start("pay", pay::follow(handles, Role::Miner));
        }
        Ok(services)
    }
}

/// What a run's settings make of the trainer: the one place that knows both.
fn trainer_settings(training: &Training, micro_batch: usize) -> TrainerSettings {
    let batch_size = training.batch_size as usize;
    let muon = muon(training.optimiser, training.inner_rate_ppb);
    TrainerSettings { batch_size, micro_batch, muon, ..TrainerSettings::default() }
}

/// Muon's settings under `optimiser`, if it is to train, whose steps are given AdamW's rate.
pub fn muon(optimiser: InnerOptimiser, adamw_rate_ppb: u32) -> Option<MuonSettings> {
    let InnerOptimiser::Muon { rate_ppb } = optimiser else { return None };
    let relative_rate = (f64::from(rate_ppb) / f64::from(adamw_rate_ppb)) as f32;
    Some(MuonSettings { relative_rate, ..MuonSettings::default() })
}

/// The update that was made last, if it is still on disk.
fn recover(window: Window, note: Note, updates: &Updates) -> Result<Prepared> {
    let Note { uid, opening } = note;
    Ok(Prepared { window, uid, opening, payload: updates.load(window)?, trained: true })
}

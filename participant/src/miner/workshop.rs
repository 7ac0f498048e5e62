//! Holds what updates are made with, the trainer and its disk, and turns H local steps into an update that survives a crash.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use node_client::journal::JournalKind;
use protocol::{commitment::Opening, update::Frame, Hash, Uid, Window};
use trainer::{rate_from_ppb, warm_up, Checkpoints, LossSummary, Position, Trainer};

use super::{
    ending::{Ending, BLOCKS_MIN},
    updates::{Note, Updates},
};
use crate::{
    diary::{DiaryRecord, Duty},
    error::{Attempt as _, Result},
    handles::Handles,
    replica::State,
    telemetry,
};

/// Optimiser steps over which the rate grows to its full size.
pub(super) const WARM_UP_STEPS: u64 = 10;

/// Blocks that an extrinsic takes into a block at the least.
pub const MARGIN_BLOCKS: u32 = 2;

/// An update that is ready to be committed to.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The window it is for.
    pub window: Window,
    /// Slot of the miner in the run.
    pub uid: Uid,
    /// What opens the commitment.
    pub opening: Opening,
    /// The update; `None` for an adversary that has none.
    pub payload: Option<Bytes>,
    /// Whether the trainer made it.
    pub trained: bool,
}

/// The work of one window.
pub struct Task {
    /// The agreed parameters of the window.
    pub state: Arc<State>,
    /// Slot of the miner in the run.
    pub uid: Uid,
    /// Ids of the samples, step by step.
    pub steps: Vec<Vec<u64>>,
    /// Block at which the commitments close.
    pub commit_end: u32,
    /// When the work was started.
    pub started: Instant,
    /// What of it was done before θ was there.
    pub(super) ahead: Option<Ahead>,
}

/// A window that was trained while the updates of the one before travelled, and corrected when its θ was there.
pub(super) struct Ahead {
    /// The window.
    pub(super) window: Window,
    /// The root of the θ that arrived.
    pub(super) root: Hash,
    /// All steps of the window.
    pub(super) steps: Vec<Vec<u64>>,
    /// Of them, those that were taken before θ arrived.
    pub(super) steps_ahead: usize,
    /// The time that training took.
    pub(super) spent: Duration,
}

impl Task {
    /// What was done of it, if it is of the same window, samples and θ.
    pub(super) fn done(&self) -> Option<&Ahead> {
        let State { window, root, .. } = *self.state;
        let is_it = |ahead: &&Ahead| {
            (ahead.window, ahead.root, &ahead.steps) == (window, root, &self.steps)
        };
        self.ahead.as_ref().filter(is_it)
    }
}

/// An update, and what its training said.
pub struct Made {
    /// Bytes of the update.
    pub payload: Bytes,
    /// Losses of the local steps; `None` if there were none.
    pub losses: Option<LossSummary>,
}

/// The window after which a trainer is kept, and what opens its commitment.
pub(super) struct Kept {
    window: Window,
    note: Note,
}

impl Prepared {
    /// What is to be kept of the trainer that has just made it, if one did.
    pub(super) fn kept(&self) -> Option<Kept> {
        let note = Note { uid: self.uid, opening: self.opening.clone() };
        self.trained.then_some(Kept { window: self.window, note })
    }
}

/// What updates are made with; clones share it.
#[derive(Clone)]
pub struct Workshop {
    /// Shared by all services of the miner.
    pub handles: Handles,
    /// The miner's own updates on disk.
    pub updates: Updates,
    // Locked by one blocking task at a time.
    trainer: Arc<Mutex<Trainer>>,
    checkpoints: Arc<Checkpoints>,
    /// Windows from one checkpoint to the next.
    checkpoint_every: u64,
    ending: Arc<Ending>,
}

impl Workshop {
    pub(super) fn new(
        handles: Handles,
        trainer: Trainer,
        checkpoints: Arc<Checkpoints>,
        checkpoint_every: u64,
        updates: Updates,
    ) -> Self {
        let checkpoint_every = checkpoint_every.max(1);
        let trainer = Arc::new(Mutex::new(trainer));
        let ending = Arc::default();
        Self { handles, updates, trainer, checkpoints, checkpoint_every, ending }
    }

    /// Takes H local steps from θ_w, or as many as there is time for, and makes an update of them.
    ///
    /// # Errors
    /// The samples cannot be read, or training fails.
    pub async fn train(&self, task: &Task) -> Result<Made> {
        let training = self.handles.run.info.settings.training.clone();
        let (heads, dataset) = (self.handles.heads.clone(), self.handles.run.dataset.clone());
        let shutdown = self.handles.machine.shutdown.clone();
        let rate = rate_from_ppb(training.inner_rate_ppb);
        let (state, steps) = (task.state.clone(), task.steps.clone());
        let last = task.commit_end.saturating_sub(self.reserve());
        let ending = self.ending.clone();
        let is_done = task.done().is_some();
        let made = self.on_trainer(move |trainer| {
            if is_done && trainer.ahead().is_some_and(|(steps, arrived)| steps > 0 && arrived) {
                let losses = trainer.end_ahead(steps.len())?;
                ending.begin(heads.best());
                let payload = trainer.make_update(training.keep, training.error_decay_ppm)?;
                return Ok(Made { payload: payload.into(), losses: Some(losses) });
            }
            trainer.set_model(state.model()?)?;
            drop(state);
            let mut on_step = |report: &trainer::StepReport| {
                metrics::gauge!(telemetry::TRAIN_LOSS).set(f64::from(report.loss));
                if heads.best() >= last || shutdown.is_cancelled() {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            };
            // Those of a store are fetched while the steps before are computed.
            let mut batches = dataset.batches()?;
            let losses = trainer.train_window_from(
                &mut *batches,
                &steps,
                &|step| warm_up(step, WARM_UP_STEPS, rate),
                &mut on_step,
            )?;
            ending.begin(heads.best());
            let payload = trainer.make_update(training.keep, training.error_decay_ppm)?;
            Ok(Made { payload: payload.into(), losses: Some(losses) })
        });
        let made = made.await?;
        if made.losses.as_ref().is_some_and(|losses| losses.stopped) {
            tracing::warn!("there was no time for all steps of the window");
        }
        Ok(made)
    }

    /// Blocks before the commitments close in which no step is begun: what an update takes from the last step to the disk, by the
    /// windows before, and its commitment, if that leaves half of the phase to train in.
    pub(super) fn reserve(&self) -> u32 {
        let half = self.handles.run.info.settings.schedule.commit_end / 2;
        let needed = self.ending.blocks().saturating_add(self.handles.desk.margin_blocks());
        needed.min(half.max(BLOCKS_MIN + MARGIN_BLOCKS))
    }

    /// Keeps an update on disk and returns what opens its commitment. `trained` says that the trainer made it and is to be
    /// kept, too, when nothing waits for it any more ([`Workshop::put_away`]).
    ///
    /// # Errors
    /// The update is not cut as the layout says, or the disk failed.
    pub async fn finish(&self, task: &Task, made: Made, trained: bool) -> Result<Prepared> {
        let (window, uid) = (task.state.window, task.uid);
        let work = &self.handles.machine.work;
        let (info, payload) = (self.handles.run.info.clone(), made.payload.clone());
        let parse = move || -> Result<(Hash, u32)> {
            let parsed = Frame::cut(&payload, &info.layout, info.settings.training.keep);
            let parsed = parsed.context("our own update")?;
            Ok((parsed.root(), parsed.chunk_count()))
        };
        let (payload_root, chunk_count) = work.run_short(parse).await??;
        let opening = Opening {
            payload_root,
            chunk_count,
            byte_len: made.payload.len() as u64,
            base_state_root: task.state.root,
            salt: self.salt(window),
        };
        let (updates, payload) = (self.updates.clone(), made.payload.clone());
        let note = Note { uid, opening: opening.clone() };
        // With the note the window is done: after a kill its update is revealed as it was committed to.
        let keep =
            move || updates.save(window, &payload).and_then(|()| updates.note(window, &note));
        let kept = work.run(keep).await.and_then(|kept| kept);
        if trained {
            self.ending.end(self.handles.heads.best());
        }
        let prepared =
            Prepared { window, uid, opening, payload: Some(made.payload.clone()), trained };
        if let Err(error) = kept {
            // With its note it is the window's, and committed to.
            if !self.updates.has_note(window) {
                self.take_back(&prepared).await?;
                return Err(error);
            }
            tracing::warn!(window, error = error.line(), "the update may not outlive a power cut");
        }
        self.note(task, &made);
        Ok(prepared)
    }

    /// Ends the trainer's part of a window: writes a checkpoint of it, if it made the update (`kept`) and it is a window for
    /// one; it lets go of θ, once that is written.
    ///
    /// Nobody waits for it but the next window's training: the update of the window is on disk, and may be committed to
    /// meanwhile. A kill before it is whole costs the averages and the error feedback of the windows since the
    /// checkpoint before.
    ///
    /// # Errors
    /// The disk failed.
    pub(super) async fn put_away(&self, kept: Option<Kept>) -> Result<()> {
        let due = kept.filter(|kept| kept.window.is_multiple_of(self.checkpoint_every));
        let run = self.handles.run.id;
        let position = |Kept { window, note }| -> Result<Position> {
            Ok(Position { run, window, trained: true, note: serde_json::to_string(&note)? })
        };
        let position = due.map(position).transpose()?;
        let checkpoints = self.checkpoints.clone();
        self.on_trainer(move |trainer| {
            let Some(position) = position else {
                trainer.release_model();
                return Ok(());
            };
            Ok(trainer.save_and_release(&checkpoints, &position)?)
        })
        .await
    }

    /// Gives an update back to the trainer that made it, if one did: nobody has it, and what it had in it is sent later. Waits
    /// for what the trainer does.
    ///
    /// # Errors
    /// The process is ending.
    pub(super) async fn take_back(&self, update: &Prepared) -> Result<()> {
        let Some(payload) = update.payload.clone().filter(|_| update.trained) else {
            return Ok(());
        };
        let keep = self.handles.run.info.settings.training.keep;
        self.on_trainer(move |trainer| Ok(trainer.take_back(&payload, keep)?)).await?;
        tracing::info!(window = update.window, "the update is sent with later ones");
        Ok(())
    }

    /// A salt for the commitment to the update of `window`.
    pub fn salt(&self, window: Window) -> Hash {
        self.handles.desk.salt(JournalKind::UpdateCommitment, window)
    }

    /// Lets go of θ after a window that was not trained to its end, or in vain.
    ///
    /// # Errors
    /// The process is ending.
    pub(super) async fn let_go(&self) -> Result<()> {
        let let_go = |trainer: &mut Trainer| {
            trainer.release_model();
            Ok(())
        };
        self.on_trainer(let_go).await
    }

    /// Runs `work` on the trainer, on a thread that may block.
    pub(super) async fn on_trainer<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Trainer) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let trainer = self.trainer.clone();
        self.handles
            .machine
            .work
            .run(move || {
                // After a panic the window is missed and the next one sets the parameters anew.
                let mut trainer = trainer.lock().unwrap_or_else(PoisonError::into_inner);
                work(&mut trainer)
            })
            .await?
    }

    fn note(&self, task: &Task, made: &Made) {
        let (window, ahead) = (task.state.window, task.done());
        let spent = ahead.map_or(Duration::ZERO, |ahead| ahead.spent);
        let seconds = (spent + task.started.elapsed()).as_secs_f64();
        let steps_ahead = ahead.map_or(0, |ahead| ahead.steps_ahead);
        let update_bytes = made.payload.len() as u64;
        metrics::counter!(telemetry::UPDATE_BYTES).increment(update_bytes);
        let Some(losses) = &made.losses else { return };
        tracing::info!(
            window,
            steps = losses.steps,
            steps_ahead,
            loss = losses.last,
            seconds,
            "trained"
        );
        self.handles.machine.diary.done(window, Duty::Train, seconds);
        self.handles.machine.diary.write(&DiaryRecord::Trained {
            window,
            steps: losses.steps,
            steps_ahead,
            loss_first: losses.first,
            loss_last: losses.last,
            tokens: losses.tokens,
            seconds,
            update_bytes,
        });
    }
}

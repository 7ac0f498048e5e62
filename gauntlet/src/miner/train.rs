//! From θ_w and the window's seed to an update on disk.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use anyhow::{bail, Context, Result};
use bytes::Bytes;
use node_client::journal::JournalKind;
use protocol::{
    commitment::Opening,
    update::Payload,
    window::{phase_at, Phase},
    Uid, Window,
};
use tokio::sync::mpsc;
use trainer::{rate_from_ppb, warm_up, Checkpoints, LossSummary, Position, Trainer};

use super::{own_record, Note, Prepared, Updates, MARGIN_BLOCKS};
use crate::{
    adversary,
    config::AdversaryKind,
    diary::{Duty, Line},
    participant::Handles,
    replica::{State, States},
    samples, telemetry,
};

/// Optimiser steps over which the rate grows to its full size.
const WARM_UP_STEPS: u64 = 10;

/// Blocks that saving and committing may take after the last step.
const COMMIT_BLOCKS: u32 = 4;

/// The service that trains.
pub(super) struct Train {
    pub(super) handles: Handles,
    pub(super) states: States,
    /// Locked by one blocking task at a time.
    pub(super) trainer: Arc<Mutex<Trainer>>,
    pub(super) checkpoints: Arc<Checkpoints>,
    pub(super) updates: Updates,
    pub(super) adversary: Option<AdversaryKind>,
    pub(super) window_end: Option<Window>,
    pub(super) ready: mpsc::Sender<Prepared>,
}

/// What is needed to work in one window.
struct Task {
    state: Arc<State>,
    uid: Uid,
    steps: Vec<Vec<u64>>,
    commit_end: u32,
}

/// What came of it.
struct Made {
    payload: Bytes,
    losses: Option<LossSummary>,
}

impl Train {
    /// Trains in every window after `trained` until the process ends.
    pub(super) async fn run(mut self, trained: Option<Window>) -> Result<()> {
        let mut next = trained.map_or(0, |window| window + 1);
        loop {
            let state = self.states.reach(next).await?;
            let window = state.window;
            next = window + 1;
            if self.window_end.is_some_and(|end| window >= end) {
                std::future::pending::<()>().await;
            }
            if let Err(error) = self.window(state).await {
                self.handles.diary.missed(window, Duty::Train, format!("{error:#}"));
            }
        }
    }

    async fn window(&mut self, state: Arc<State>) -> Result<()> {
        let window = state.window;
        let task = self.begin(state).await?;
        let started = Instant::now();
        let (uid, base_state_root) = (task.uid, task.state.root);
        let made = match self.adversary {
            None => self.train(task).await?,
            Some(AdversaryKind::Garbage) => self.noise(task).await?,
            Some(AdversaryKind::Lazy) => self.again(task).await?,
            Some(AdversaryKind::Copier) => {
                let salt = (self.handles.salts)(JournalKind::UpdateCommitment, window);
                let opening = adversary::guess(&self.handles.info.layout, base_state_root, salt);
                let prepared = Prepared { window, uid, opening, payload: None };
                return self.ready.send(prepared).await.context("nobody submits");
            }
        };
        let training = &self.handles.info.settings.training;
        let parsed = Payload::parse(&made.payload, &self.handles.info.layout, training.keep)
            .context("our own update")?;
        let salt = (self.handles.salts)(JournalKind::UpdateCommitment, window);
        let opening = Opening {
            payload_root: parsed.root(),
            chunk_count: parsed.chunk_count(),
            byte_len: made.payload.len() as u64,
            base_state_root,
            salt,
        };
        self.save(window, uid, &opening, &made.payload).await?;
        self.note(window, &made, started.elapsed().as_secs_f64());
        let prepared = Prepared { window, uid, opening, payload: Some(made.payload) };
        self.ready.send(prepared).await.context("nobody submits")
    }

    /// Waits for the window's first block and asks the chain what to do.
    async fn begin(&self, state: Arc<State>) -> Result<Task> {
        let Handles { chain, run, info, heads, .. } = &self.handles;
        let (schedule, window) = (&info.settings.schedule, state.window);
        let start = schedule.window_start(window).context("the run's last window")?;
        let head = heads.clone().reach(start).await?;
        match phase_at(schedule, head.number) {
            Some(moment)
                if moment.window == window
                    && moment.phase == Phase::Commit
                    && moment.offset + COMMIT_BLOCKS + MARGIN_BLOCKS < schedule.commit_end => {}
            _ => bail!("its commitments are closed, or nearly, at block {}", head.number),
        }
        let record = chain.window(*run, window, Some(head.hash)).await?;
        let seed = record.context("the chain has not opened the window")?.seed;
        let uid = own_record(&self.handles).await?.context("this miner is not registered")?.uid;
        let steps = samples::training_steps(&seed, uid, &info.settings)?;
        Ok(Task { state, uid, steps, commit_end: start + schedule.commit_end })
    }

    /// H local steps from θ_w, or as many as there is time for, and the update that they make.
    async fn train(&self, task: Task) -> Result<Made> {
        let training = self.handles.info.settings.training.clone();
        let (heads, dataset) = (self.handles.heads.clone(), self.handles.dataset.clone());
        let shutdown = self.handles.shutdown.clone();
        let rate = rate_from_ppb(training.inner_rate_ppb);
        let made = self.on_trainer(move |trainer| {
            trainer.set_model(task.state.model.clone())?;
            let last = task.commit_end.saturating_sub(COMMIT_BLOCKS + MARGIN_BLOCKS);
            let mut on_step = |report: &trainer::StepReport| {
                metrics::gauge!(telemetry::TRAIN_LOSS).set(f64::from(report.loss));
                if heads.now().number >= last || shutdown.is_cancelled() {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            };
            // Those of a store are fetched while the steps before are computed.
            let mut batches = dataset.batches()?;
            let losses = trainer.train_window_from(
                &mut *batches,
                &task.steps,
                &|step| warm_up(step, WARM_UP_STEPS, rate),
                &mut on_step,
            )?;
            let payload = trainer.make_update(training.keep, training.error_decay_ppm)?;
            Ok(Made { payload: payload.into(), losses: Some(losses) })
        });
        let made = made.await?;
        if made.losses.as_ref().is_some_and(|losses| losses.stopped) {
            tracing::warn!("there was no time for all steps of the window");
        }
        Ok(made)
    }

    /// The garbage adversary's update.
    async fn noise(&self, task: Task) -> Result<Made> {
        let (layout, keep) =
            (self.handles.info.layout.clone(), self.handles.info.settings.training.keep);
        let seed = u64::from(task.uid) << 32 | task.state.window;
        let payload =
            self.handles.work.run(move || adversary::noise(&layout, keep, seed)).await??;
        Ok(Made { payload: payload.into(), losses: None })
    }

    /// The lazy adversary's update: trained for once, then sent again.
    async fn again(&self, task: Task) -> Result<Made> {
        let first = self.updates.load(adversary::LAZY_SLOT)?;
        if let Some(payload) = first {
            return Ok(Made { payload, losses: None });
        }
        let made = self.train(task).await?;
        self.updates.save(adversary::LAZY_SLOT, &made.payload)?;
        Ok(made)
    }

    /// Runs `work` on the trainer, on a thread that may block.
    async fn on_trainer<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Trainer) -> Result<R> + Send + 'static,
    ) -> Result<R> {
        let trainer = self.trainer.clone();
        self.handles
            .work
            .run(move || {
                // After a panic the window is missed and the next one sets the parameters anew.
                let mut trainer = trainer.lock().unwrap_or_else(PoisonError::into_inner);
                work(&mut trainer)
            })
            .await?
    }

    /// Puts update and checkpoint on disk, in this order.
    async fn save(
        &self,
        window: Window,
        uid: Uid,
        opening: &Opening,
        payload: &Bytes,
    ) -> Result<()> {
        let note = serde_json::to_string(&Note { uid, opening: opening.clone() })?;
        let position = Position { run: self.handles.run, window, trained: true, note };
        let (updates, checkpoints) = (self.updates.clone(), self.checkpoints.clone());
        let payload = payload.clone();
        let is_adversary = self.adversary.is_some();
        self.on_trainer(move |trainer| {
            updates.save(window, &payload)?;
            // An adversary's trainer is not at this window.
            if !is_adversary {
                trainer.save(&checkpoints, &position)?;
            }
            Ok(())
        })
        .await
    }

    fn note(&self, window: Window, made: &Made, seconds: f64) {
        let update_bytes = made.payload.len() as u64;
        metrics::counter!(telemetry::UPDATE_BYTES).increment(update_bytes);
        let Some(losses) = &made.losses else { return };
        tracing::info!(window, steps = losses.steps, loss = losses.last, seconds, "trained");
        self.handles.diary.done(window, Duty::Train, seconds);
        self.handles.diary.write(&Line::Trained {
            window,
            steps: losses.steps,
            loss_first: losses.first,
            loss_last: losses.last,
            tokens: losses.tokens,
            seconds,
            update_bytes,
        });
    }
}

//! Makes the update of each window: from θ_w and the window's seed to an update on disk.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use node_client::journal::JournalKind;
use protocol::{
    samples,
    window::{phase_at, Phase},
    Uid, Window,
};
use tokio::sync::mpsc;

use super::{
    ahead,
    conduct::Conduct,
    workshop::{Ahead, Kept, Prepared, Task, Workshop},
};
use crate::{
    aside::Aside,
    diary::Duty,
    error::{miss, Attempt as _, Error, Result},
    handles::{Handles, Role, Run},
    replica::{State, States},
    slot,
};

/// The service that trains.
pub(super) struct Train {
    pub(super) workshop: Workshop,
    pub(super) states: States,
    pub(super) conduct: Arc<dyn Conduct>,
    pub(super) window_end: Option<Window>,
    pub(super) ready: mpsc::Sender<Prepared>,
    /// What still writes of the window before.
    pub(super) putting_away: Aside,
}

impl Train {
    /// Trains in every window after `trained` until the process ends.
    pub(super) async fn run(mut self, trained: Option<Window>) -> Result<()> {
        let mut next = trained.map_or(0, |window| window + 1);
        let mut ahead = None;
        loop {
            let state = self.states.reach(next).await?;
            let window = state.window;
            next = window + 1;
            if !self.takes_part(window) {
                std::future::pending::<()>().await;
            }
            match self.window(state, ahead.take()).await {
                Ok(Some(own)) => ahead = self.ahead(window, own).await,
                Ok(None) => {}
                Err(error) => {
                    self.workshop.handles.machine.diary.missed(window, Duty::Train, error.line());
                    self.workshop.let_go().await?;
                }
            }
        }
    }

    /// Whether it is to train in `window`.
    fn takes_part(&self, window: Window) -> bool {
        let is_leaving = self.workshop.handles.machine.leave.is_asked();
        !is_leaving && self.window_end.is_none_or(|end| window < end)
    }

    /// Returns the update that the trainer made, if it made one.
    async fn window(&mut self, state: Arc<State>, ahead: Option<Ahead>) -> Result<Option<Bytes>> {
        let window = state.window;
        let task = self.begin(state, ahead).await?;
        self.putting_away.end().await;
        let prepared = self.conduct.make(&self.workshop, task).await;
        let kept = prepared.as_ref().ok().and_then(Prepared::kept);
        self.put_away(window, kept);
        let prepared = prepared?;
        let own = prepared.payload.clone().filter(|_| prepared.trained);
        let sent = self.ready.send(prepared).await;
        sent.map_err(|_| Error::Missed("nobody submits".into()))?;
        Ok(own)
    }

    /// Writes the checkpoint of `window` beside what follows: the update is committed to, the next window begins, and only its
    /// training waits for the trainer. What fails is a missed checkpoint, and costs nothing else.
    fn put_away(&mut self, window: Window, kept: Option<Kept>) {
        let workshop = self.workshop.clone();
        self.putting_away.start(async move {
            if let Err(error) = workshop.put_away(kept).await {
                workshop.handles.machine.diary.missed(window, Duty::Checkpoint, error.line());
            }
        });
    }

    /// Trains in the window after `window` while the updates of it, of which `own` is one, travel: if the run wants
    /// it, and if it can.
    async fn ahead(&mut self, window: Window, own: Bytes) -> Option<Ahead> {
        let wants = self.workshop.handles.run.info.settings.training.overlap;
        if !wants || !self.takes_part(window + 1) {
            return None;
        }
        // With it the trainer lets go of what it trains.
        self.putting_away.end().await;
        match ahead::train(&self.workshop, &self.states, window, own).await {
            Ok(ahead) => Some(ahead),
            Err(error) => {
                let error = error.line();
                tracing::info!(window = window + 1, error, "is not trained ahead");
                // Ends with the process at the latest: the window is trained as ever.
                let _ = self.workshop.let_go().await;
                None
            }
        }
    }

    /// Waits for the window's first block and asks the chain what to do.
    async fn begin(&self, state: Arc<State>, ahead: Option<Ahead>) -> Result<Task> {
        let Handles { chain, heads, run: Run { id: run, info, .. }, .. } = &self.workshop.handles;
        let (schedule, window) = (&info.settings.schedule, state.window);
        let start = schedule.window_start(window).context("the run's last window")?;
        let head = heads.clone().reach(start).await?;
        let closed = || {
            let at = head.number;
            Err(Error::Missed(format!("its commitments are closed, or nearly, at block {at}")))
        };
        let is_open = phase_at(schedule, head.number)
            .is_some_and(|moment| moment.window == window && moment.phase == Phase::Commit);
        if !is_open {
            return closed();
        }
        let record = chain.window(*run, window, Some(head.hash)).await?;
        let seed = record.context("the chain has not opened the window")?.seed;
        let uid = slot::own(&self.workshop.handles, Role::Miner, window).await?;
        self.check_alone(window, uid).await?;
        let steps = samples::training_steps(&seed, uid, &info.settings)?;
        let commit_end = start + schedule.commit_end;
        let task = Task { state, uid, steps, commit_end, started: Instant::now(), ahead };
        // What is trained already needs time to be committed to alone.
        let needed = if task.done().is_some() { 0 } else { self.workshop.reserve() };
        if head.number.saturating_add(needed) >= commit_end {
            return closed();
        }
        Ok(task)
    }

    /// That the chain has no commitment of ours that the journal does not know: made on another machine, or before this folder came from a
    /// backup. Nothing can be committed to in such a window.
    async fn check_alone(&self, window: Window, uid: Uid) -> Result<()> {
        let Handles { chain, desk, run: Run { id: run, .. }, .. } = &self.workshop.handles;
        let commitments = chain.commitments(*run, window, None).await?;
        let is_there = commitments.iter().any(|commitment| commitment.uid == uid);
        if is_there && desk.pledged(JournalKind::UpdateCommitment, window).is_none() {
            miss!("the chain has a commitment of ours that was made elsewhere; does another process use this key?");
        }
        Ok(())
    }
}

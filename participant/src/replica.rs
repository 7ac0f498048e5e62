//! Holds the agreed parameters: from one window to the next by the outer step, or whole from a peer after a long absence.
//!
//! The state of window `w` is what every participant holds at its start, θ_w. When the chain has computed the accepted
//! set of `w`, the accepted payloads are fetched and applied, which gives θ_{w+1}. A process that was away does the same
//! for each window that it missed, as long as the chain and the peers remember them; if one payload cannot be had, or
//! the own state is not the one that is final on chain, the newest final state is fetched by its root instead.

use std::{sync::Arc, time::Duration, time::Instant};

use bytes::Bytes;
use node_client::{chain::RevealInfo, network::FetchRequest};
use protocol::{
    aggregate::OuterRule,
    window::{phase_at, Phase},
    Hash, Uid, Window,
};
use tokio::sync::watch;
use trainer::{Checkpoints, Model, ModelConfig, Position, Threads};

use crate::{
    diary::{DiaryRecord, Duty},
    error::{miss, Attempt as _, Error, Result},
    handles::{Handles, Peers, Run},
    telemetry,
};

/// States that are held and served: this window's, the last one's for its scores, and one for who is late.
const STATES_MAX: usize = 3;

/// Copies of the agreed parameters that a process holds at once beside its trainer's: the states, the one that is made or
/// sent, and one for who still works on an older state.
pub const STATES_AT_ONCE: u64 = STATES_MAX as u64 + 2;

/// Windows that the journal remembers, at least; far longer than anything of them can still be revealed.
const JOURNAL_WINDOWS: u64 = 64;

/// Pause before a step is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How long a state may take to arrive.
const SYNC_TIMEOUT: Duration = Duration::from_secs(120);

/// The agreed parameters at the start of a window.
pub struct State {
    /// Number of the window, from 0 on.
    pub window: Window,
    /// θ of the window.
    pub model: Model,
    /// Root over all its parameters.
    pub root: Hash,
}

/// The newest states, as the other services see them; clones see the same.
#[derive(Clone)]
pub struct States {
    // Oldest first, never empty.
    states: watch::Receiver<Vec<Arc<State>>>,
}

impl States {
    /// The state of `window`, if it is among the newest.
    pub fn at(&self, window: Window) -> Option<Arc<State>> {
        self.states.borrow().iter().find(|state| state.window == window).cloned()
    }

    /// Waits until there is a state of `window` or a later one, and returns the newest. Cancel-safe.
    ///
    /// # Errors
    /// There will be none any more: the process is ending.
    pub async fn reach(&mut self, window: Window) -> Result<Arc<State>> {
        let is_reached =
            |states: &Vec<Arc<State>>| states.last().is_some_and(|s| s.window >= window);
        let states = self.states.wait_for(is_reached).await;
        let states = states.map_err(|_| Error::Missed("the replica has ended".into()))?;
        states.last().cloned().context("no state")
    }
}

/// The service that keeps the state.
pub struct Replica {
    handles: Handles,
    states: watch::Sender<Vec<Arc<State>>>,
    checkpoints: Option<Arc<Checkpoints>>,
    window_end: Option<Window>,
}

impl Replica {
    /// A replica that starts from `state`. It saves each new state to `checkpoints`, if given: a miner saves its own,
    /// which have more in them.
    pub fn new(
        handles: Handles,
        state: State,
        checkpoints: Option<Arc<Checkpoints>>,
        window_end: Option<Window>,
    ) -> (Self, States) {
        handles.machine.diary.write(&DiaryRecord::Started { window: state.window });
        let (sender, states) = watch::channel(vec![Arc::new(state)]);
        (Self { handles, states: sender, checkpoints, window_end }, States { states })
    }

    /// Follows the run until the process ends.
    ///
    /// # Errors
    /// The chain is no longer followed.
    pub async fn run(self) -> Result<()> {
        let mut heads = self.handles.heads.clone();
        self.serve(&self.newest()).await;
        loop {
            let state = self.newest();
            if self.window_end.is_some_and(|end| state.window >= end) {
                std::future::pending::<()>().await;
            }
            let schedule = &self.handles.run.info.settings.schedule;
            let known = schedule
                .phase_end_block(state.window, Phase::Attest)
                .context("the run's last window")?;
            heads.reach(known).await?;
            match self.advance(&state).await {
                Ok(next) => self.hold(next).await,
                Err(error) => {
                    let error = error.line();
                    tracing::warn!(
                        window = state.window,
                        error,
                        "cannot go to the next window yet"
                    );
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    fn newest(&self) -> Arc<State> {
        // Never empty: it starts with one and keeps at least one.
        #[allow(clippy::unwrap_used)]
        self.states.borrow().last().cloned().unwrap()
    }

    /// The state after `state`: by the outer step, or a later one from a peer.
    async fn advance(&self, state: &State) -> Result<State> {
        let started = Instant::now();
        match self.step(state).await {
            Ok((next, accepted)) => {
                let seconds = started.elapsed().as_secs_f64();
                self.note(&next, accepted, seconds, false);
                self.handles.machine.diary.done(state.window, Duty::Apply, seconds);
                Ok(next)
            }
            Err(error) => {
                tracing::debug!(window = state.window, error = error.line(), "no outer step");
                let Some(next) = self.newest_final_state(state).await? else {
                    return Err(error);
                };
                self.note(&next, Vec::new(), started.elapsed().as_secs_f64(), true);
                Ok(next)
            }
        }
    }

    /// Applies what was accepted in the state's window.
    async fn step(&self, state: &State) -> Result<(State, Vec<Uid>)> {
        let Handles { chain, run: Run { id: run, .. }, machine, .. } = &self.handles;
        let window = state.window;
        let record = chain
            .window(*run, window, None)
            .await?
            .with_context(|| format!("the chain no longer knows window {window}"))?;
        if record.state_root.is_some_and(|root| root != state.root) {
            miss!("our state {} is not the final one", hex::encode(state.root));
        }
        let payloads = self.accepted_payloads(window, &record.accepted).await?;
        let (model, threads) = (state.model.clone(), machine.threads().clone());
        // Those of this window, should the run's owner have changed them since this participant began.
        let training = &record.settings.training;
        let (keep, rule) = (training.keep, OuterRule::of_window(&training.outer, window));
        let (model, root) = self
            .handles
            .machine
            .work
            .run(move || {
                let accepted: Vec<(Uid, &[u8])> =
                    payloads.iter().map(|(uid, bytes)| (*uid, &bytes[..])).collect();
                step(model, &threads, &accepted, keep, rule)
            })
            .await??;
        Ok((State { window: window + 1, model, root }, record.accepted))
    }

    async fn accepted_payloads(
        &self,
        window: Window,
        accepted: &[Uid],
    ) -> Result<Vec<(Uid, Bytes)>> {
        if accepted.is_empty() {
            return Ok(Vec::new());
        }
        let Handles { chain, run: Run { id: run, .. }, peers: Peers { payloads, .. }, .. } =
            &self.handles;
        let reveals = chain.reveals(*run, window, None).await?;
        let miners = chain.miners(*run, None).await?;
        let fetches = accepted.iter().map(|uid| {
            let reveal: Option<&RevealInfo> = reveals.iter().find(|reveal| reveal.uid == *uid);
            let hot = miners.iter().find(|miner| miner.uid == *uid).map(|miner| miner.hot);
            async move {
                let reveal = reveal.with_context(|| format!("uid {uid} has no reveal"))?;
                let bytes = payloads
                    .fetch(window, &hot.unwrap_or_default(), reveal)
                    .await
                    .with_context(|| format!("payload of uid {uid}"))?;
                Ok::<_, crate::Error>((*uid, bytes))
            }
        });
        futures::future::try_join_all(fetches).await
    }

    /// The newest state that is final on chain and not older than `state`, from whichever peer has it; `None` if the
    /// chain has no such root, or it is the one that we hold.
    async fn newest_final_state(&self, state: &State) -> Result<Option<State>> {
        let Handles { chain, heads, run: Run { id: run, info, .. }, .. } = &self.handles;
        let head = heads.now();
        let Some(moment) = phase_at(&info.settings.schedule, head.number) else {
            return Ok(None);
        };
        for window in (state.window..=moment.window).rev() {
            let Some(record) = chain.window(*run, window, None).await? else {
                continue;
            };
            match record.state_root {
                Some(root) if root == state.root => return Ok(None),
                Some(root) => {
                    let model = fetch_state(&self.handles, state.model.config(), root).await?;
                    return Ok(Some(State { window, model, root }));
                }
                None => {}
            }
        }
        Ok(None)
    }

    fn note(&self, state: &State, accepted: Vec<Uid>, seconds: f64, synced: bool) {
        let root = hex::encode(state.root);
        tracing::info!(window = state.window, state_root = &root[..16], ?accepted, synced, "state");
        self.handles.machine.diary.write(&DiaryRecord::State {
            window: state.window,
            state_root: format!("0x{root}"),
            accepted,
            seconds,
            synced,
        });
        metrics::gauge!(telemetry::STATE_WINDOW).set(state.window as f64);
    }

    /// Saves, shows and serves a new state, and lets the oldest go.
    async fn hold(&self, state: State) {
        let state = Arc::new(state);
        if let Some(checkpoints) = self.checkpoints.clone() {
            let (state, run) = (state.clone(), self.handles.run.id);
            let saved = self.handles.machine.work.run(move || {
                let position =
                    Position { run, window: state.window, trained: false, note: String::new() };
                checkpoints.save_model(&state.model, &position)
            });
            match saved.await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "cannot save a checkpoint"),
                Err(error) => tracing::error!(%error, "cannot save a checkpoint"),
            }
        }
        let mut gone = Vec::new();
        self.states.send_modify(|states| {
            states.retain(|held| held.window < state.window);
            states.push(state.clone());
            while states.len() > STATES_MAX {
                gone.push(states.remove(0));
            }
        });
        self.serve(&state).await;
        let held: Vec<Hash> = self.states.borrow().iter().map(|state| state.root).collect();
        for old in gone.iter().filter(|old| !held.contains(&old.root)) {
            if let Err(error) = self.handles.peers.network.unpublish(old.root).await {
                tracing::warn!(%error, "cannot unpublish a state");
            }
        }
        self.handles.peers.payloads.forget_before(state.window).await;
        self.forget_commitments(state.window).await;
    }

    /// Keeps the journal short. What it forgets can never be signed again.
    async fn forget_commitments(&self, window: Window) {
        if !window.is_multiple_of(JOURNAL_WINDOWS) {
            return;
        }
        let first = window.saturating_sub(JOURNAL_WINDOWS);
        if let Err(error) = self.handles.desk.forget_before(first).await {
            tracing::warn!(error = error.line(), "cannot prune the journal");
        }
    }

    async fn serve(&self, state: &State) {
        let bytes = Bytes::from(state.model.to_bytes());
        if let Err(error) = self.handles.peers.network.publish(state.root, bytes).await {
            tracing::warn!(%error, "cannot serve the state");
        }
    }
}

/// Takes one outer step of `model` and hashes it. Blocks.
///
/// # Errors
/// A payload is not of the model's layout.
pub fn step(
    mut model: Model,
    threads: &Threads,
    accepted: &[(Uid, &[u8])],
    keep: u16,
    rule: OuterRule,
) -> Result<(Model, Hash)> {
    model.apply_outer(threads, accepted, keep, rule)?;
    let root = model.state_root(threads);
    Ok((model, root))
}

/// The state with this root, from the own store or whichever peer has it, verified. Cancel-safe.
///
/// # Errors
/// Nobody delivered it in time.
pub async fn fetch_state(handles: &Handles, config: &ModelConfig, root: Hash) -> Result<Model> {
    let len_max = config.parameter_count().saturating_mul(4);
    let (verify_config, threads) = (config.clone(), handles.machine.threads().clone());
    let request = FetchRequest::new(root, len_max, move |bytes| {
        Model::from_bytes(&verify_config, bytes)
            .is_ok_and(|model| model.state_root(&threads) == root)
    })
    .from_peers(handles.peers.announced.ordered(None));
    let fetched = tokio::time::timeout(SYNC_TIMEOUT, handles.peers.network.fetch(request))
        .await
        .context("the state did not arrive in time")??;
    Ok(Model::from_bytes(config, &fetched.bytes)?)
}

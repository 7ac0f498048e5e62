//! Holds the agreed parameters: from one window to the next by the outer step, or whole from a peer after a long absence.
//!
//! The state of window `w` is what every participant holds at its start, θ_w. When the chain has computed the
//! accepted set of `w`, the accepted payloads are fetched and applied, which gives θ_{w+1}. A process that was away
//! does the same for each window that it missed, as long as the chain and the peers remember them: who does not
//! answer is asked again. The newest final state is fetched by its root instead if the own one is not final on chain,
//! if the window is forgotten, or if nobody has delivered a payload for windows ([`trouble`]).
//!
//! **One θ in memory.** The newest state's parameters are held once and lent to whoever works with them. The outer step
//! changes them where they lie, when everybody has given them back ([`Replica::take`]). Every state is on disk from when it is
//! made, written from where it lies, and served from there; an older one is read from there again ([`fetch_state`]), each
//! piece checked and put where it stays.

mod sync;
mod trouble;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use codec::Encode as _;
use node_client::{
    backoff::Backoff,
    chain::{RevealInfo, WindowStatus},
    store::Content,
};
use protocol::{
    aggregate::OuterRule,
    state_root::{manifest_id, StateManifest},
    window::{phase_at, Phase},
    Hash, Uid, Window,
};
use tokio::sync::watch;
use trainer::{Checkpoints, Device, Model, Position};

use crate::{
    aside::Aside,
    diary::{DiaryRecord, Duty},
    error::{Attempt as _, Error, Result},
    handles::{Handles, Machine, Peers, Run},
    memory,
    payloads::{is_full, SERVED_WINDOWS},
    snapshots::{final_roots, snapshots_max},
    telemetry,
};

pub use sync::fetch_state;
use sync::Memo;
use trouble::{Patience, Trouble};

/// States that are kept on disk and served: this window's, the last one's for its scores, and one for who is late.
const STATES_MAX: usize = 3;

/// States that are on disk at once: those that are served, with a snapshot every so many windows, and one that is
/// being written.
pub const fn states_on_disk(snapshot_every: Window) -> u64 {
    STATES_MAX as u64 + 1 + snapshots_max(snapshot_every)
}

/// How long the outer step waits for who still works with θ before it goes on with a copy, if there is room for one.
const LENT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often it looks.
const LENT_PAUSE: Duration = Duration::from_millis(50);

/// Windows that the journal remembers, at least; far longer than anything of them can still be revealed.
const JOURNAL_WINDOWS: u64 = 64;

/// Pause before a step is tried again; it grows with each try.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// The longest pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(4);

/// The agreed parameters at the start of a window.
pub struct State {
    /// Number of the window, from 0 on.
    pub window: Window,
    /// Root over all its parameters.
    pub root: Hash,
    /// θ of the window, while it is in memory.
    held: Option<Held>,
}

/// Parameters in memory, and what is known of their pieces.
#[derive(Clone)]
struct Held {
    model: Arc<Model>,
    manifest: Arc<StateManifest>,
}

impl State {
    /// The state of `window`, in memory.
    pub fn new(window: Window, model: impl Into<Arc<Model>>, manifest: StateManifest) -> Self {
        let root = manifest.root();
        let held = Held { model: model.into(), manifest: Arc::new(manifest) };
        Self { window, root, held: Some(held) }
    }

    /// θ, shared. Who is given it lets go of it when its window's work is done: the outer step waits for that.
    ///
    /// # Errors
    /// It is the next state's by now: this one is on disk only ([`fetch_state`]).
    pub fn model(&self) -> Result<Arc<Model>> {
        let held = self.held.as_ref().map(|held| held.model.clone());
        held.with_context(|| format!("the parameters of window {} are over", self.window))
    }
}

/// A model as the content that is served under its state root.
pub struct Served(pub Arc<Model>);

impl Content for Served {
    fn byte_len(&self) -> u64 {
        self.0.byte_len()
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        self.0.read_bytes(offset, into)
    }
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
    checkpoints: Option<SaveStates>,
    window_end: Option<Window>,
    memo: Memo,
    /// The checkpoint that is being written.
    saving: Aside,
}

/// Where and how often states are saved.
pub struct SaveStates {
    /// The folder.
    pub checkpoints: Arc<Checkpoints>,
    /// Every so many windows; at least 1.
    pub every: u64,
}

impl Replica {
    /// A replica that starts from `state`. It saves new states as `checkpoints` says, if given: a miner saves its own,
    /// which have more in them. Which state arrives is remembered in the file `memo`.
    pub fn new(
        handles: Handles,
        state: State,
        checkpoints: Option<SaveStates>,
        window_end: Option<Window>,
        memo: PathBuf,
    ) -> (Self, States) {
        handles.machine.diary.write(&DiaryRecord::Started { window: state.window });
        let (sender, states) = watch::channel(vec![Arc::new(state)]);
        let memo = Memo::new(memo);
        (
            Self {
                handles,
                states: sender,
                checkpoints,
                window_end,
                memo,
                saving: Aside::default(),
            },
            States { states },
        )
    }

    /// Follows the run until the process ends.
    ///
    /// # Errors
    /// The chain is no longer followed.
    pub async fn run(mut self) -> Result<()> {
        let mut heads = self.handles.heads.clone();
        self.serve(&self.newest()).await;
        let (mut told, mut patience) = (None, Patience::default());
        let account = self.handles.desk.account();
        let mut backoff = Backoff::new(RETRY_PAUSE, RETRY_PAUSE_MAX, &account);
        loop {
            let state = self.newest();
            if self.window_end.is_some_and(|end| state.window >= end) {
                std::future::pending::<()>().await;
            }
            let schedule = &self.handles.run.info.settings.schedule;
            let known = schedule
                .phase_end_block(state.window, Phase::AttestReveal)
                .context("the run's last window")?;
            heads.reach(known).await?;
            let window = state.window;
            match self.advance(state, &mut patience).await {
                Ok(next) => {
                    backoff.reset();
                    self.hold(next).await;
                }
                Err(error) => {
                    let reason = (window, error.line());
                    if told.as_ref() != Some(&reason) {
                        let error = &reason.1;
                        tracing::warn!(window, error, "cannot go to the next window yet");
                        told = Some(reason);
                    }
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    fn newest(&self) -> Arc<State> {
        // Never empty: it starts with one and keeps at least one.
        #[allow(clippy::unwrap_used)]
        self.states.borrow().last().cloned().unwrap()
    }

    /// The state after `state`: by the outer step, or a later one from peers when that has failed for too long.
    async fn advance(&self, state: Arc<State>, patience: &mut Patience) -> Result<State> {
        let started = Instant::now();
        let (window, root) = (state.window, state.root);
        match self.step(state).await {
            Ok((next, accepted)) => {
                let seconds = started.elapsed().as_secs_f64();
                self.note(&next, accepted, seconds, false);
                self.handles.machine.diary.done(window, Duty::Apply, seconds);
                Ok(next)
            }
            Err(trouble) => {
                tracing::debug!(window, ?trouble, "no outer step");
                let is_over = patience.is_over(&trouble, window, self.now(), self.state_bytes());
                let error = trouble.error();
                if !is_over {
                    return Err(error);
                }
                let Some(next) = self.final_state(window, root).await? else {
                    return Err(error);
                };
                self.note(&next, Vec::new(), started.elapsed().as_secs_f64(), true);
                Ok(next)
            }
        }
    }

    /// The window that the chain is in.
    fn now(&self) -> Window {
        let Handles { heads, run: Run { info, .. }, .. } = &self.handles;
        let moment = phase_at(&info.settings.schedule, heads.now().number);
        moment.map_or(0, |moment| moment.window)
    }

    /// Bytes of all parameters.
    fn state_bytes(&self) -> u64 {
        self.handles.run.model.parameter_count().saturating_mul(size_of::<f32>() as u64)
    }

    /// Applies what was accepted in the state's window.
    async fn step(&self, state: Arc<State>) -> Result<(State, Vec<Uid>), Trouble> {
        let Handles { chain, run: Run { id: run, .. }, machine, .. } = &self.handles;
        let window = state.window;
        let record = chain
            .window(*run, window, None)
            .await?
            .with_context(|| format!("the chain does not know window {window}"))
            .map_err(|error| self.unknown(window, error))?;
        if record.status == WindowStatus::Open {
            // The chain may be late with it, or another node is asked by now, which is behind.
            let reason = "the accepted set is not fixed yet".to_owned();
            return Err(Trouble::Passing(Error::Missed(reason)));
        }
        if record.state_root.is_some_and(|root| root != state.root) {
            let root = hex::encode(state.root);
            return Err(Trouble::Lost(Error::Missed(format!(
                "our state {root} is not the final one"
            ))));
        }
        let payloads = self.accepted_payloads(window, &record.accepted).await?;
        let manifest = state.held.as_ref().map(|held| held.manifest.clone());
        let model = self.take(state).await;
        let (mut model, device) = (model.map_err(Trouble::Lost)?, machine.device.clone());
        // Those of this window, should the run's owner have changed them since this participant began.
        let training = &record.settings.training;
        let (keep, rule) = (training.keep, OuterRule::of_window(&training.outer, window));
        let (model, stepped) = machine
            .work
            .run(move || {
                let accepted: Vec<(Uid, &[u8])> =
                    payloads.iter().map(|(uid, bytes)| (*uid, &bytes[..])).collect();
                let stepped = step(&mut model, &*device, &accepted, keep, rule);
                (model, stepped)
            })
            .await?;
        match stepped {
            Ok(manifest) => Ok((State::new(window + 1, model, manifest), record.accepted)),
            Err(error) => {
                // Nothing of it has changed.
                if let Some(manifest) = manifest {
                    let manifest = Arc::unwrap_or_clone(manifest);
                    self.replace_newest(State::new(window, model, manifest));
                }
                Err(Trouble::Lost(error))
            }
        }
    }

    /// What it means that the chain does not know a window: that it has forgotten it, or that the node is behind.
    fn unknown(&self, window: Window, error: Error) -> Trouble {
        match window.saturating_add(SERVED_WINDOWS) < self.now() {
            true => Trouble::Lost(error),
            false => Trouble::Passing(error),
        }
    }

    /// The parameters of the newest state, `state`, to be changed: the ones in memory, as soon as nobody else works with
    /// them. After [`LENT_TIMEOUT`] a copy of them, if the memory has room for one: who is late with a measurement does not hold
    /// up the outer step. Parameters that an earlier attempt lost are read from disk again.
    async fn take(&self, state: Arc<State>) -> Result<Model> {
        let Some(held) = &state.held else {
            let config = &self.handles.run.model;
            return fetch_state(&self.handles, config, state.root).await;
        };
        let mut model = held.model.clone();
        self.replace_newest(State { window: state.window, root: state.root, held: None });
        let window = state.window;
        drop(state);
        let started = tokio::time::Instant::now();
        loop {
            model = match Arc::try_unwrap(model) {
                Ok(model) => return Ok(model),
                Err(shared) => shared,
            };
            let has_room = || memory::available().is_none_or(|free| free / 2 > model.byte_len());
            if started.elapsed() >= LENT_TIMEOUT && has_room() {
                tracing::info!(window, "somebody still works with θ: the outer step takes a copy");
                return Ok(Model::clone(&model));
            }
            tokio::time::sleep(LENT_PAUSE).await;
        }
    }

    /// Puts `state` in the place of the newest, which is of the same window.
    fn replace_newest(&self, state: State) {
        self.states.send_modify(|states| {
            states.pop();
            states.push(Arc::new(state));
        });
    }

    /// The payloads that were accepted in `window`. What arrives is kept, whatever else does not.
    async fn accepted_payloads(
        &self,
        window: Window,
        accepted: &[Uid],
    ) -> Result<Vec<(Uid, Bytes)>, Trouble> {
        if accepted.is_empty() {
            return Ok(Vec::new());
        }
        let Handles {
            chain, run: Run { id: run, .. }, peers: Peers { payloads, copies, .. }, ..
        } = &self.handles;
        let reveals = chain.reveals(*run, window, None).await?;
        let miners = chain.miners(*run, None).await?;
        let reveal_of = |uid: &Uid| {
            let reveal: Option<&RevealInfo> = reveals.iter().find(|reveal| reveal.uid == *uid);
            reveal.with_context(|| format!("uid {uid} has no reveal"))
        };
        let wanted: Result<Vec<&RevealInfo>> = accepted.iter().map(reveal_of).collect();
        let wanted = wanted.map_err(|error| self.unknown(window, error))?;
        let fetches = wanted.iter().map(|reveal| {
            let uid = reveal.uid;
            let hot = miners.iter().find(|miner| miner.uid == uid).map(|miner| miner.hot);
            async move {
                let fetched = payloads.fetch(window, &hot.unwrap_or_default(), reveal).await;
                (reveal, fetched.with_context(|| format!("payload of uid {uid}")))
            }
        });
        let (mut arrived, mut missing, mut failed) = (Vec::new(), 0u64, None);
        for (reveal, fetched) in futures::future::join_all(fetches).await {
            match fetched {
                Ok(bytes) => arrived.push((reveal.uid, bytes)),
                Err(error) => {
                    missing = missing.saturating_add(reveal.opening.byte_len);
                    failed = Some(error);
                }
            }
        }
        let Some(error) = failed else {
            for reveal in &wanted {
                copies.payload(payloads.contents(reveal.opening.payload_root));
            }
            return Ok(arrived);
        };
        let accepted = wanted.iter().map(|reveal| reveal.opening.byte_len);
        let accepted = accepted.fold(0, u64::saturating_add);
        Err(Trouble::Undelivered { error, missing, accepted })
    }

    /// A state that is final on chain and not older than that of `window`, from whichever peers have it ([`sync`]);
    /// `None` if the chain has no such root, or the newest is `own`, the one that we hold. Before another one is
    /// fetched the one that we hold is let go: it is not the chain's, or too old.
    async fn final_state(&self, window: Window, own: Hash) -> Result<Option<State>> {
        let Handles { chain, run: Run { id: run, .. }, .. } = &self.handles;
        let now = self.now();
        let mut finals = final_roots(chain.as_ref(), *run, window..=now).await?;
        if finals.last().is_none_or(|(_, root)| *root == own) {
            return Ok(None);
        }
        finals.retain(|(_, root)| *root != own);
        let (target, manifest) = sync::choose(&self.handles, &self.memo, &finals, now).await?;
        self.replace_newest(State { window, root: own, held: None });
        tracing::info!(window = target.window, now, "fetches a state");
        let fetched = sync::fetch_chosen(&self.handles, &self.memo, target, manifest.clone());
        let model = fetched.await?;
        Ok(Some(State::new(target.window, model, manifest)))
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

    /// Shows and serves a new state, and lets the oldest go; saves it when nobody waits for anything else.
    async fn hold(&mut self, state: State) {
        let state = Arc::new(state);
        let mut gone = Vec::new();
        self.states.send_modify(|states| {
            states.retain(|held| held.window < state.window);
            states.push(state.clone());
            while states.len() > STATES_MAX {
                gone.push(states.remove(0));
            }
        });
        self.serve(&state).await;
        self.let_go(state.window, gone).await;
        self.handles.peers.payloads.forget_before(state.window).await;
        self.forget_commitments(state.window).await;
        self.save(&state);
    }

    /// Serves no longer what is neither among the newest states nor a snapshot in window `now`.
    async fn let_go(&self, now: Window, gone: Vec<Arc<State>>) {
        let Peers { network, snapshots, .. } = &self.handles.peers;
        let mut old = snapshots.expire(now);
        old.extend(
            gone.iter()
                .filter(|state| !snapshots.keep(state.window, state.root))
                .map(|state| state.root),
        );
        let held: Vec<Hash> = self.states.borrow().iter().map(|state| state.root).collect();
        for root in old.iter().filter(|root| !held.contains(root) && !snapshots.has(root)) {
            for id in [*root, manifest_id(root)] {
                if let Err(error) = network.unpublish(id).await {
                    tracing::warn!(%error, "cannot unpublish a state");
                }
            }
        }
    }

    /// Writes a checkpoint beside what follows, if it is this state's turn. What fails, or would begin before the last one is
    /// written, is a missed checkpoint, and costs nothing else.
    fn save(&mut self, state: &State) {
        let Machine { work, diary, .. } = &self.handles.machine;
        let (window, run) = (state.window, self.handles.run.id);
        let due = |saves: &&SaveStates| window.is_multiple_of(saves.every.max(1));
        let (Some(saves), Some(held)) = (self.checkpoints.as_ref().filter(due), &state.held) else {
            return;
        };
        if self.saving.is_busy() {
            let reason = "the one before is still being written".to_owned();
            return diary.missed(window, Duty::Checkpoint, reason);
        }
        let (checkpoints, model) = (saves.checkpoints.clone(), held.model.clone());
        let (work, diary) = (work.clone(), diary.clone());
        self.saving.start(async move {
            let position = Position { run, window, trained: false, note: String::new() };
            let saved = work.run(move || checkpoints.save_model(&model, &position)).await;
            if let Err(error) = saved.and_then(|saved| Ok(saved?)) {
                diary.missed(window, Duty::Checkpoint, error.line());
            }
        });
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

    /// Writes a state to disk from where it lies, and serves it from there; who has the manifest finds the rest.
    async fn serve(&self, state: &State) {
        let Some(Held { model, manifest }) = state.held.clone() else {
            return;
        };
        let Peers { network, payloads, .. } = &self.handles.peers;
        let served = Arc::new(Served(model));
        let parameters = loop {
            let published = network.publish_content(state.root, served.clone(), None).await;
            // Payloads may have grown into its room.
            let is_full = published.as_ref().is_err_and(is_full);
            if !is_full || !payloads.forget_oldest(state.window).await {
                break published;
            }
        };
        let manifest = Bytes::from(manifest.encode());
        let both = match parameters {
            Ok(()) => network.publish(manifest_id(&state.root), manifest).await,
            Err(error) => Err(error),
        };
        match both {
            Ok(()) => {
                // Who has the manifest finds the rest.
                let contents = [state.root, manifest_id(&state.root)];
                self.handles.peers.copies.state(state.window, contents);
            }
            Err(error) => tracing::warn!(%error, "cannot serve the state"),
        }
    }
}

/// Takes one outer step of `model` and hashes it. Blocks.
///
/// # Errors
/// A payload is not of the model's layout; the model is as it was.
pub fn step(
    model: &mut Model,
    device: &dyn Device,
    accepted: &[(Uid, &[u8])],
    keep: u16,
    rule: OuterRule,
) -> Result<StateManifest> {
    device.apply_outer(model, accepted, keep, rule)?;
    Ok(model.state_manifest(device.threads()))
}

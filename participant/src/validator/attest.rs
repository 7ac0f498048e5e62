//! Fetches every revealed payload, checks it, and attests the valid ones.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use codec::{Decode, Encode};
use node_client::{
    chain::{Call, RevealInfo},
    journal::JournalKind,
};
use protocol::{
    accept::bitmap_of,
    update::Payload,
    validity::check_norm,
    window::{phase_at, Phase},
    AccountBytes, Hash, Uid, Window,
};
use tokio::task::JoinSet;

use super::watch::{look, Watch};
use crate::{
    desk::attestation_hash,
    diary::Duty,
    error::{Attempt as _, Result},
    handles::{Handles, Role, Run},
    replica::{State, States},
    slot,
};

/// Blocks before the end of the attestations at which no payload is waited for any more.
const ATTEST_BLOCKS: u32 = 2;

/// Pause before a payload is fetched again.
const RETRY_PAUSE: Duration = Duration::from_millis(300);

/// Says which updates are valid and which state they start from; kept in the journal.
#[derive(Encode, Decode, Clone, Debug)]
struct Attestation {
    bitmap: Vec<u8>,
    state_root: Hash,
}

/// The service that attests.
pub(super) struct Attest {
    pub(super) handles: Handles,
    pub(super) states: States,
    pub(super) watch: Arc<Watch>,
    pub(super) window_end: Option<Window>,
}

impl Attest {
    /// Attests in every window from the current one on, until the process ends.
    pub(super) async fn run(mut self) -> Result<()> {
        let schedule = self.handles.run.info.settings.schedule.clone();
        let now = self.handles.heads.now().number;
        let mut window = phase_at(&schedule, now).map_or(0, |moment| moment.window);
        loop {
            if self.window_end.is_some_and(|end| window >= end) {
                std::future::pending::<()>().await;
            }
            if let Err(error) = self.window(window).await {
                self.handles.machine.diary.missed(window, Duty::Attest, error.line());
            }
            // Not before the window's end, and not for windows that passed meanwhile.
            let next = schedule.window_start(window + 1).context("the run's last window")?;
            let head = self.handles.heads.clone().reach(next).await?;
            window = phase_at(&schedule, head.number).map_or(window + 1, |moment| moment.window);
        }
    }

    async fn window(&mut self, window: Window) -> Result<()> {
        let schedule = &self.handles.run.info.settings.schedule;
        let block = |phase| schedule.phase_end_block(window, phase).context("the run's end");
        let (open, begin, end) =
            (block(Phase::Commit)?, block(Phase::Reveal)?, block(Phase::Attest)?);
        self.handles.heads.clone().reach(open).await?;
        let started = Instant::now();
        let last = end.saturating_sub(ATTEST_BLOCKS);
        let attestation = match self.recorded(window) {
            Some(attestation) => attestation,
            None => {
                let state = self.state(window, last).await?;
                let valid = self.collect(window, &state, begin, last).await?;
                tracing::info!(window, ?valid, "attesting");
                Attestation { bitmap: bitmap_of(&valid), state_root: state.root }
            }
        };
        self.submit(window, attestation, end).await?;
        self.handles.machine.diary.done(window, Duty::Attest, started.elapsed().as_secs_f64());
        Ok(())
    }

    /// What the journal says was attested before a restart: fetching again may find other payloads, and nobody signs a
    /// second, different attestation.
    fn recorded(&self, window: Window) -> Option<Attestation> {
        let secret = self.handles.desk.pledged(JournalKind::Attestation, window)?;
        Attestation::decode(&mut &secret[..]).ok()
    }

    /// The state of the window, which the replica may still be working on.
    async fn state(&mut self, window: Window, last: u32) -> Result<Arc<State>> {
        let mut heads = self.handles.heads.clone();
        tokio::select! {
            reached = self.states.reach(window) => { reached?; }
            head = heads.reach(last) => { head?; }
        }
        self.states.at(window).context("the parameters of this window are not there")
    }

    /// Fetches and checks payloads as they are revealed, until all that can be had are there or block `last`. Returns
    /// the uids of the valid ones.
    async fn collect(
        &self,
        window: Window,
        state: &Arc<State>,
        reveal_end: u32,
        last: u32,
    ) -> Result<Vec<Uid>> {
        let Handles { chain, heads, run: Run { id: run, .. }, .. } = &self.handles;
        let miners = chain.miners(*run, None).await?;
        let mut heads = heads.clone();
        let mut seen = BTreeSet::new();
        let mut valid = Vec::new();
        let mut checks: JoinSet<(Uid, Result<()>)> = JoinSet::new();
        loop {
            let head = heads.now();
            let reveals = chain.reveals(*run, window, Some(head.hash)).await?;
            for reveal in reveals {
                if seen.insert(reveal.uid) {
                    let miner = miners.iter().find(|miner| miner.uid == reveal.uid);
                    let hot = miner.map(|miner| miner.hot).unwrap_or_default();
                    let (handles, state) = (self.handles.clone(), state.clone());
                    let watch = self.watch.clone();
                    checks.spawn(async move {
                        let checked = check(&handles, &watch, window, &state, &hot, &reveal).await;
                        (reveal.uid, checked)
                    });
                }
            }
            // In the last block of the reveals, what is there is all there will be.
            let is_complete = head.number + 1 >= reveal_end && checks.is_empty();
            if is_complete || head.number >= last {
                break;
            }
            tokio::select! {
                biased;
                Some(Ok((uid, result))) = checks.join_next(), if !checks.is_empty() => match result {
                    Ok(()) => valid.push(uid),
                    Err(error) => tracing::warn!(window, uid, error = error.line(), "update is not valid"),
                },
                next = heads.next() => { next?; }
            }
        }
        checks.abort_all();
        valid.sort_unstable();
        Ok(valid)
    }

    async fn submit(&self, window: Window, attestation: Attestation, end: u32) -> Result<()> {
        let Handles { chain, heads, desk, run: Run { id: run, info, .. }, .. } = &self.handles;
        let begin = info.settings.schedule.phase_end_block(window, Phase::Reveal);
        heads.clone().reach(begin.context("the run's end")?).await?;
        let hash = attestation_hash(&attestation.bitmap, &attestation.state_root);
        let secret = attestation.encode();
        let pledge = desk.pledge(JournalKind::Attestation, window, hash, secret).await?;
        let Attestation { bitmap, state_root } = Attestation::decode(&mut pledge.secret())?;
        let index = slot::own(&self.handles, Role::Validator).await?;
        let is_there = || async {
            let attestations = chain.attestations(*run, window, None).await?;
            Ok(attestations.iter().any(|attestation| attestation.index == index))
        };
        let call = Call::Attest { run: *run, window, bitmap, state_root };
        pledge.submit(call, is_there, end - 1).await?;
        Ok(())
    }
}

/// Fetches one payload, again and again until the caller gives up, and checks what the chain could not.
async fn check(
    handles: &Handles,
    watch: &Arc<Watch>,
    window: Window,
    state: &Arc<State>,
    miner: &AccountBytes,
    reveal: &RevealInfo,
) -> Result<()> {
    let bytes = loop {
        match handles.peers.payloads.fetch(window, miner, reveal).await {
            Ok(bytes) => break bytes,
            Err(error) => {
                tracing::debug!(window, uid = reveal.uid, error = error.line(), "fetch again");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    };
    let (seer, observer, revealed, fetched) =
        (watch.clone(), handles.clone(), reveal.clone(), bytes.clone());
    // Beside the attestation, which does not wait for it.
    tokio::spawn(async move { look(&seer, &observer, window, &revealed, &fetched).await });
    let (model, layout) = (state.model()?, handles.run.info.layout.clone());
    let keep = handles.run.info.settings.training.keep;
    handles
        .machine
        .work
        .run(move || {
            let payload = Payload::parse(&bytes, &layout, keep)?;
            let tensors = 0..layout.0.len();
            let parameters = tensors.flat_map(|tensor| model.tensor(tensor)).copied();
            Ok(check_norm(&payload, &layout, parameters)?)
        })
        .await?
}

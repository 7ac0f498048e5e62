//! Fetches every revealed payload, checks it, and attests the valid ones: it commits to them, and reveals them when nobody
//! can commit any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use codec::{Decode, Encode};
use futures::{stream::FuturesUnordered, StreamExt};
use node_client::{
    backoff::Backoff,
    chain::{Call, RevealInfo},
    journal::JournalKind,
};
use protocol::{
    accept::bitmap_of,
    commitment::{attestation_commitment_hash, AttestationOpening},
    update::Payload,
    validity::check_norm,
    window::{phase_at, Phase},
    AccountBytes, Uid, ValidatorIndex, Window,
};

use super::{
    accuse::Accuser,
    checks::{Checked, Checks},
    turns::Turns,
    watch::{look, Watch},
};
use crate::{
    desk::Errand,
    diary::Duty,
    error::{Attempt as _, Result},
    handles::{Handles, Role, Run},
    ranks::fetch_order,
    replica::{State, States},
    slot,
};

/// The part of the phase that is kept free for the commitment, whatever is not delivered: a payload that nobody has costs
/// its miner, not the window.
const RESERVE: u32 = 3;

/// Pauses after a payload that nobody delivered, the first and the longest.
const RETRY_PAUSE: Duration = Duration::from_millis(300);
const RETRY_PAUSE_MAX: Duration = Duration::from_millis(1_500);

/// Turns that a payload has at the least in the time that there is, should others wait.
const TURNS: u32 = 4;

/// What came of the payloads of a window.
struct Collected {
    /// The miners whose payloads are valid.
    valid: Vec<Uid>,
    /// Payloads that were fetched, valid or not.
    fetched: usize,
    /// The miners that revealed and whose payloads nobody delivered, of those that were asked for.
    missing: Vec<Uid>,
}

/// The service that attests.
pub(super) struct Attest {
    pub(super) handles: Handles,
    pub(super) states: States,
    /// Notices faults; `None` to report none.
    pub(super) watch: Option<Arc<Watch>>,
    pub(super) accuser: Arc<Accuser>,
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
        let (open, begin) = (block(Phase::Commit)?, block(Phase::Reveal)?);
        let (commit_end, end) = (block(Phase::AttestCommit)?, block(Phase::AttestReveal)?);
        self.handles.heads.clone().reach(open).await?;
        let started = Instant::now();
        let last = patience_end(self.handles.desk.inclusion_blocks(), open, begin, commit_end);
        let opening = match self.recorded(window) {
            Some(opening) => opening,
            None => {
                let state = self.state(window, last).await?;
                let Collected { valid, fetched, missing } =
                    self.collect(window, &state, begin, last).await?;
                let accuser = self.accuser.clone();
                // Beside the attestation, which does not wait for it.
                tokio::spawn(async move { accuser.challenge(window, fetched, missing).await });
                tracing::info!(window, ?valid, "attesting");
                let salt = self.handles.desk.salt(JournalKind::Attestation, window);
                AttestationOpening { bitmap: bitmap_of(&valid), state_root: state.root, salt }
            }
        };
        let index = slot::own(&self.handles, Role::Validator, window).await?;
        let _promise = self.handles.machine.leave.promise().await;
        let opening = self.commit(window, index, opening, begin, commit_end).await?;
        self.handles.heads.clone().reach_best(commit_end).await?;
        self.reveal(window, index, opening, end).await?;
        self.handles.machine.diary.done(window, Duty::Attest, started.elapsed().as_secs_f64());
        Ok(())
    }

    /// What the journal says was committed to before a restart: fetching again may find other payloads, and nobody commits
    /// to a second, different attestation.
    fn recorded(&self, window: Window) -> Option<AttestationOpening> {
        let secret = self.handles.desk.pledged(JournalKind::Attestation, window)?;
        AttestationOpening::decode(&mut &secret[..]).ok()
    }

    /// The state of the window, which the replica may still be working on.
    async fn state(&mut self, window: Window, last: u32) -> Result<Arc<State>> {
        let mut heads = self.handles.heads.clone();
        tokio::select! {
            reached = self.states.reach(window) => { reached?; }
            late = heads.reach_best(last) => late?,
        }
        self.states.at(window).context("the parameters of this window are not there")
    }

    /// Fetches and checks payloads as they are revealed, those first that would be accepted, until all that can be had are there or
    /// `last` is the best block.
    async fn collect(
        &self,
        window: Window,
        state: &Arc<State>,
        reveal_end: u32,
        last: u32,
    ) -> Result<Collected> {
        let Handles { chain, heads, desk, run: Run { id: run, info, .. }, .. } = &self.handles;
        let miners = chain.miners(*run, None).await?;
        let hot_of = |uid| miners.iter().find(|miner| miner.uid == uid).map(|miner| miner.hot);
        let (mut heads, mut clock) = (heads.clone(), heads.clone());
        let turn_blocks = last.saturating_sub(heads.best()).div_ceil(TURNS).max(1);
        let mut turns = Turns::default();
        let mut checks = Checks::default();
        let (mut tried, mut fetched) = (BTreeSet::new(), BTreeSet::new());
        let mut valid = Vec::new();
        let mut reveals = Vec::new();
        let mut read_at = None;
        let backoff = Backoff::new(RETRY_PAUSE, RETRY_PAUSE_MAX, &desk.account());
        let (mut pauses, mut resting) = (BTreeMap::new(), FuturesUnordered::new());
        loop {
            let head = heads.now();
            if read_at != Some(head.number) {
                reveals = chain.reveals(*run, window, Some(head.hash)).await?;
                let incentive = &info.settings.incentive;
                let order = fetch_order(window, &reveals, &miners, &state.root, incentive);
                turns.rank(&order, |uid| fetched.contains(&uid));
                read_at = Some(head.number);
            }
            let late =
                checks.late(heads.best(), turn_blocks, |uid, taken| turns.holds_up(uid, taken));
            late.into_iter().for_each(|(uid, taken)| turns.again(uid, taken));
            while let Some(uid) = turns.next() {
                let Some(reveal) = reveals.iter().find(|reveal| reveal.uid == uid).cloned() else {
                    turns.done(uid);
                    continue;
                };
                tried.insert(uid);
                let (handles, state) = (self.handles.clone(), state.clone());
                let (hot, watch) = (hot_of(uid).unwrap_or_default(), self.watch.clone());
                let check =
                    async move { check(&handles, watch, window, &state, &hot, &reveal).await };
                checks.start(uid, heads.best(), check);
            }
            // In the last block of the reveals, what is there is all there will be.
            let is_complete = head.number + 1 >= reveal_end && turns.is_empty();
            let best = heads.best();
            if is_complete || best >= last {
                break;
            }
            tokio::select! {
                biased;
                Some((uid, checked)) = checks.next() => match checked {
                    // Others have its turn meanwhile.
                    Checked::Missing => {
                        turns.rest(uid);
                        let pause = pauses.entry(uid).or_insert_with(|| backoff.clone()).pause();
                        resting.push(async move {
                            tokio::time::sleep(pause).await;
                            uid
                        });
                    }
                    Checked::Valid => {
                        turns.done(uid);
                        fetched.insert(uid);
                        valid.push(uid);
                    }
                    Checked::Invalid(error) => {
                        turns.done(uid);
                        fetched.insert(uid);
                        tracing::warn!(window, uid, error = error.line(), "update is not valid");
                    }
                },
                Some(uid) = resting.next() => turns.rested(uid),
                next = heads.next() => { next?; }
                // A turn may be over.
                late = clock.reach_best(best.saturating_add(1)) => late?,
            }
        }
        valid.sort_unstable();
        let missing = tried.difference(&fetched).copied().collect();
        Ok(Collected { valid, fetched: fetched.len(), missing })
    }

    /// Commits to `opening`, or to what the journal has. Returns what was committed to.
    async fn commit(
        &self,
        window: Window,
        index: ValidatorIndex,
        opening: AttestationOpening,
        begin: u32,
        commit_end: u32,
    ) -> Result<AttestationOpening> {
        let Handles { chain, heads, desk, run: Run { id: run, genesis, .. }, .. } = &self.handles;
        heads.clone().reach(begin).await?;
        let hash = attestation_commitment_hash(genesis, *run, window, &desk.account(), &opening);
        let pledge = desk.pledge(JournalKind::Attestation, window, hash, opening.encode()).await?;
        let opening = AttestationOpening::decode(&mut pledge.secret())?;
        let hash = pledge.hash();
        let is_there = || async {
            let commitments = chain.attestation_commitments(*run, window, None).await?;
            Ok(commitments.iter().any(|row| row.index == index && row.hash == hash))
        };
        let call = Call::CommitAttestation { run: *run, window, hash };
        pledge.submit(call, is_there, commit_end - 1).await?;
        Ok(opening)
    }

    async fn reveal(
        &self,
        window: Window,
        index: ValidatorIndex,
        opening: AttestationOpening,
        end: u32,
    ) -> Result<()> {
        let Handles { chain, desk, run: Run { id: run, .. }, .. } = &self.handles;
        let is_there = || async {
            let attestations = chain.attestations(*run, window, None).await?;
            Ok(attestations.iter().any(|attestation| attestation.index == index))
        };
        let errand = Errand::RevealAttestation { window, opening };
        desk.errand(errand, is_there, end - 1).await?;
        Ok(())
    }
}

/// The best block at which what is there is attested, as its commitment takes `inclusion` blocks: early enough for that and a block
/// more, but half of the time from the end of the commitments, `open`, to that of the attestations', `commit_end`, is to fetch in,
/// however slow the chain was. The reveals end with `begin`.
fn patience_end(inclusion: u32, open: u32, begin: u32, commit_end: u32) -> u32 {
    let reserve = inclusion.saturating_add(1).max(commit_end.saturating_sub(begin) / RESERVE);
    commit_end.saturating_sub(reserve.min(commit_end.saturating_sub(open) / 2))
}

/// Fetches one payload and checks what the chain could not.
async fn check(
    handles: &Handles,
    watch: Option<Arc<Watch>>,
    window: Window,
    state: &Arc<State>,
    miner: &AccountBytes,
    reveal: &RevealInfo,
) -> Checked {
    let bytes = match handles.peers.payloads.fetch(window, miner, reveal).await {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::debug!(window, uid = reveal.uid, error = error.line(), "not delivered yet");
            return Checked::Missing;
        }
    };
    if let Some(watch) = watch {
        let (observer, revealed, fetched) = (handles.clone(), reveal.clone(), bytes.clone());
        // Beside the attestation, which does not wait for it.
        tokio::spawn(async move { look(&watch, &observer, window, &revealed, &fetched).await });
    }
    match validate(handles, state, bytes).await {
        Ok(()) => Checked::Valid,
        Err(error) => Checked::Invalid(error),
    }
}

/// Whether the bytes are an update of the run's layout, and small enough beside θ.
async fn validate(handles: &Handles, state: &Arc<State>, bytes: Bytes) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_time_is_to_fetch_in_however_slow_the_chain_was() {
        assert_eq!(patience_end(1, 100, 110, 116), 114);
        assert_eq!(patience_end(1, 100, 110, 170), 150);
        assert_eq!(patience_end(20, 100, 110, 116), 108);
        assert_eq!(patience_end(u32::MAX, 100, 110, 116), 108);
    }
}

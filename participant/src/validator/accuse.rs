//! Accuses with a bond: it asks on chain for a chunk of a payload that nobody delivers, and disputes evaluations that differ from its own.
//!
//! A bond is lost if the accusation is wrong, so that nothing is done unless the settings say so, and then within bounds: so many accusations a
//! window, and what this process has lost and has at risk is never more than `bonds_max`. It keeps quiet, too, when it is probably itself that is
//! wrong: when it can fetch few payloads at all, or when others measured as the accused did.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use node_client::chain::{
    DataChallengeInfo, EvaluationDisputeInfo, EvaluationName, ScoreRevealInfo, WindowStatus,
};
use protocol::{
    consensus::Evaluation, fault::is_confirmed, limits::DISPUTE_WINDOWS, merkle::blake2_256,
    window::phase_at, AccountBytes, BlockNumber, Hash, Planck, Uid, ValidatorIndex, Window,
};

use crate::{
    desk::Errand,
    error::Result,
    handles::{Handles, Run},
    holders,
    outcomes::Losses,
    settings::Proofs,
    telemetry,
};

/// Blocks in which an accusation is to be included.
const ACCUSE_BLOCKS: u32 = 10;

/// How many times further than the run's tolerance an evaluation must be from the own one to be disputed: a juror that is within the
/// tolerance of the own one denies it then.
const DISPUTE_MARGIN: u32 = 2;

/// Accusations of a window.
#[derive(Clone, Copy, Default)]
struct Made {
    challenges: u32,
    disputes: u32,
}

/// Accuses, and ends what it began.
pub(super) struct Accuser {
    handles: Handles,
    settings: Proofs,
    losses: Losses,
    /// Draws which chunk is asked for; nobody knows it beforehand.
    salt: Hash,
    /// Held while an accusation is decided on and sent, so that two of them do not count the same money.
    turn: tokio::sync::Mutex<()>,
    // Never held across an await.
    made: Mutex<BTreeMap<Window, Made>>,
}

impl Accuser {
    pub(super) fn new(handles: Handles, settings: Proofs, losses: Losses, salt: Hash) -> Self {
        let turn = tokio::sync::Mutex::default();
        Self { handles, settings, losses, salt, turn, made: Mutex::default() }
    }

    /// Ends requests that nobody answered and disputes whose jury has spoken, until the process ends.
    pub(super) async fn run(self: Arc<Self>) -> Result<()> {
        let Some(account) = self.handles.desk.bonds_account() else {
            std::future::pending::<()>().await;
            return Ok(());
        };
        loop {
            if let Err(error) = self.end_own(&account).await {
                tracing::warn!(error = error.line(), "cannot end an accusation yet");
            }
            self.handles.heads.clone().next().await?;
        }
    }

    async fn end_own(&self, account: &AccountBytes) -> Result<()> {
        let (challenges, disputes) = self.own(account).await?;
        metrics::gauge!(telemetry::BONDS_AT_RISK).set(at_risk(&challenges, &disputes) as f64);
        let head = self.handles.heads.now().number;
        let schedule = &self.handles.run.info.settings.schedule;
        for challenge in challenges.iter().filter(|challenge| challenge.deadline < head) {
            if self.is_judged(challenge.deadline).await? {
                self.time_out(challenge).await?;
            }
        }
        let now = phase_at(schedule, head).map_or(0, |moment| moment.window);
        let over = |dispute: &&EvaluationDisputeInfo| dispute.opened + DISPUTE_WINDOWS <= now;
        for dispute in disputes.iter().filter(over) {
            self.close(dispute.name).await?;
        }
        Ok(())
    }

    /// Whether the window of `block` is accepted: before that the chain ends no request of it.
    async fn is_judged(&self, block: BlockNumber) -> Result<bool> {
        let Handles { chain, run: Run { id, info, .. }, .. } = &self.handles;
        let Some(moment) = phase_at(&info.settings.schedule, block) else { return Ok(true) };
        let record = chain.window(*id, moment.window, None).await?;
        Ok(record.is_none_or(|record| record.status != WindowStatus::Open))
    }

    /// The accusations of `account` that are open.
    async fn own(
        &self,
        account: &AccountBytes,
    ) -> Result<(Vec<DataChallengeInfo>, Vec<EvaluationDisputeInfo>)> {
        let Handles { chain, run: Run { id: run, .. }, .. } = &self.handles;
        let mut challenges = chain.data_challenges(*run, None).await?;
        challenges.retain(|challenge| challenge.challenger == *account);
        let mut disputes = chain.evaluation_disputes(*run, None).await?;
        disputes.retain(|dispute| dispute.challenger == *account);
        Ok((challenges, disputes))
    }

    async fn time_out(&self, challenge: &DataChallengeInfo) -> Result<()> {
        let DataChallengeInfo { window, uid, index, .. } = *challenge;
        let (chain, run) = (&self.handles.chain, self.handles.run.id);
        let is_there = || async {
            let open = chain.data_challenges(run, None).await?;
            Ok(!open.iter().any(|open| (open.window, open.uid, open.index) == (window, uid, index)))
        };
        // Of a miner that is gone for good the name does not matter: the bond comes back.
        let holder = holders::of(&self.handles, window, uid).await;
        let commitment = holder.map_or((window, uid, 0), |holder| holder.commitment(window));
        self.send(Errand::TimeOut { commitment, index }, is_there).await
    }

    async fn close(&self, evaluation: EvaluationName) -> Result<()> {
        let (chain, run) = (&self.handles.chain, self.handles.run.id);
        let is_there = || async {
            let open = chain.evaluation_disputes(run, None).await?;
            Ok(!open.iter().any(|open| open.name == evaluation))
        };
        self.send(Errand::CloseDispute { evaluation }, is_there).await
    }

    async fn send<F: Future<Output = Result<bool>>>(
        &self,
        errand: Errand,
        is_there: impl Fn() -> F,
    ) -> Result<()> {
        let last = self.handles.heads.best().saturating_add(ACCUSE_BLOCKS);
        self.handles.desk.errand(errand, is_there, last).await?;
        Ok(())
    }

    /// Asks on chain for a chunk of the payloads of `missing`, of which nobody delivered one in `window`; `fetched` payloads of the
    /// window could be had. What fails is logged.
    pub(super) async fn challenge(&self, window: Window, fetched: usize, missing: Vec<Uid>) {
        // Who reaches fewer than half of the miners has a bad connection.
        if self.settings.challenges_per_window == 0 || fetched == 0 || fetched < missing.len() {
            return;
        }
        for uid in missing {
            if let Err(error) = self.challenge_one(window, uid).await {
                let error = error.line();
                tracing::warn!(window, uid, error, "cannot ask for a chunk on chain");
            }
        }
    }

    async fn challenge_one(&self, window: Window, uid: Uid) -> Result<()> {
        let Handles { chain, run: Run { id: run, info, .. }, .. } = &self.handles;
        let _turn = self.turn.lock().await;
        let is_asked = |open: &[DataChallengeInfo]| {
            open.iter().any(|open| (open.window, open.uid) == (window, uid))
        };
        // Another one's request says as much.
        if is_asked(&chain.data_challenges(*run, None).await?)
            || chain.proven_faults(*run, window, None).await?.iter().any(|fault| fault.uid == uid)
        {
            return Ok(());
        }
        let limit = self.settings.challenges_per_window;
        let bond = info.settings.disputes.challenge_bond;
        if self.made(window).challenges >= limit || !self.can_risk(bond).await? {
            return Ok(());
        }
        let count = info.layout.chunk_count().unwrap_or(1).max(1);
        let drawn = blake2_256(&[&self.salt, &window.to_le_bytes(), &uid.to_le_bytes()]);
        let [a, b, c, d, ..] = drawn;
        let index = u32::from_le_bytes([a, b, c, d]) % count;
        let commitment = holders::of(&self.handles, window, uid).await?.commitment(window);
        let is_there = || async { Ok(is_asked(&chain.data_challenges(*run, None).await?)) };
        self.note(window, |made| made.challenges += 1);
        self.send(Errand::ChallengeData { commitment, index }, is_there).await?;
        tracing::info!(window, uid, index, "asked for a chunk that nobody delivers");
        Ok(())
    }

    /// Disputes evaluations of `window` that are far from `own`, which the validator `index` measured.
    ///
    /// # Errors
    /// The chain does not answer, or refuses.
    pub(super) async fn dispute(
        &self,
        window: Window,
        index: ValidatorIndex,
        own: &[Evaluation],
    ) -> Result<()> {
        let limit = self.settings.disputes_per_window;
        if limit == 0 {
            return Ok(());
        }
        let Handles { chain, run: Run { id: run, info, .. }, .. } = &self.handles;
        let reveals = chain.score_reveals(*run, window, None).await?;
        let tolerance_ppm = info.settings.disputes.evaluation_tolerance_ppm;
        for (accused, uid) in doubtful(index, own, &reveals, tolerance_ppm) {
            let _turn = self.turn.lock().await;
            let evaluation = (window, accused, uid);
            let is_disputed = || async {
                let open = chain.evaluation_disputes(*run, None).await?;
                Ok(open.iter().any(|open| open.name == evaluation))
            };
            if is_disputed().await? {
                continue;
            }
            let bond = info.settings.disputes.dispute_bond;
            if self.made(window).disputes >= limit || !self.can_risk(bond).await? {
                break;
            }
            self.note(window, |made| made.disputes += 1);
            self.send(Errand::DisputeEvaluation { evaluation }, is_disputed).await?;
            tracing::info!(window, accused, uid, "disputed an evaluation");
        }
        Ok(())
    }

    /// Whether there is a key, and this process may risk `bond` more.
    async fn can_risk(&self, bond: Planck) -> Result<bool> {
        let Some(account) = self.handles.desk.bonds_account() else {
            return Ok(false);
        };
        let (challenges, disputes) = self.own(&account).await?;
        let at_risk = at_risk(&challenges, &disputes).saturating_add(bond);
        let may = at_risk.saturating_add(self.losses.so_far()) <= self.settings.bonds_max;
        if !may {
            let (lost, bonds_max) = (self.losses.so_far(), self.settings.bonds_max);
            tracing::warn!(at_risk, lost, bonds_max, "no further accusation: proofs.bonds_max");
        }
        Ok(may)
    }

    fn made(&self, window: Window) -> Made {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.get(&window).copied().unwrap_or_default()
    }

    fn note(&self, window: Window, change: impl FnOnce(&mut Made)) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.retain(|of, _| *of + DISPUTE_WINDOWS >= window);
        change(made.entry(window).or_default());
    }
}

/// The bonds of accusations together.
fn at_risk(challenges: &[DataChallengeInfo], disputes: &[EvaluationDisputeInfo]) -> Planck {
    let bonds = challenges.iter().map(|challenge| challenge.bond);
    bonds.chain(disputes.iter().map(|dispute| dispute.bond)).fold(0, Planck::saturating_add)
}

/// The evaluations by other validators than `index` that are further than [`DISPUTE_MARGIN`] times the tolerance from `own`, and that not as
/// many others confirm as deny.
fn doubtful(
    index: ValidatorIndex,
    own: &[Evaluation],
    reveals: &[ScoreRevealInfo],
    tolerance_ppm: u32,
) -> Vec<(ValidatorIndex, Uid)> {
    let margin = tolerance_ppm.saturating_mul(DISPUTE_MARGIN);
    let others = reveals.iter().filter(|reveal| reveal.index != index);
    let all = others.flat_map(|reveal| {
        reveal.evaluations.iter().map(move |evaluation| (reveal.index, evaluation))
    });
    let mut found = Vec::new();
    for (accused, evaluation) in all.clone() {
        let same = own.iter().find(|own| own.uid == evaluation.uid);
        if same.is_none_or(|own| is_confirmed(evaluation, own, margin)) {
            continue;
        }
        let beside =
            all.clone().filter(|(by, other)| *by != accused && other.uid == evaluation.uid);
        let (confirming, denying): (Vec<_>, Vec<_>) =
            beside.partition(|(_, other)| is_confirmed(evaluation, other, tolerance_ppm));
        if confirming.len() <= denying.len() {
            found.push((accused, evaluation.uid));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation(uid: Uid, loss: u32) -> Evaluation {
        let (own_before, own_after) = (1_000_000, loss);
        Evaluation { uid, own_before, own_after, random_before: 1_000_000, random_after: 900_000 }
    }

    fn reveal(index: ValidatorIndex, losses: &[(Uid, u32)]) -> ScoreRevealInfo {
        let evaluations = losses.iter().map(|(uid, loss)| evaluation(*uid, *loss)).collect();
        ScoreRevealInfo { index, evaluations, salt: [0; 32] }
    }

    #[test]
    fn what_is_far_from_ones_own_and_lonely_is_doubtful() {
        let own = [evaluation(1, 900_000), evaluation(2, 800_000)];
        let of = |reveals: &[ScoreRevealInfo]| doubtful(0, &own, reveals, 10_000);
        let mine = reveal(0, &[(1, 900_000), (2, 800_000)]);
        // Within twice the tolerance; of a miner that was not measured; one's own.
        assert_eq!(of(&[mine.clone(), reveal(1, &[(1, 915_000), (3, 1)])]), []);
        assert_eq!(of(&[mine.clone(), reveal(1, &[(1, 500_000), (2, 800_000)])]), [(1, 1)]);
        // A third one agrees with the accused: it is us who are probably wrong.
        let liars = [reveal(1, &[(1, 500_000)]), reveal(2, &[(1, 500_000)])];
        assert_eq!(of(&liars), []);
        let judged = [reveal(1, &[(1, 500_000)]), reveal(2, &[(1, 900_000)])];
        assert_eq!(of(&judged), [(1, 1)]);
    }
}

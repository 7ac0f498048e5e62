//! Follows what proofs of faults do to this participant: what it proved, what it is asked for, what it loses and gains.
//!
//! Nothing has to be claimed: the chain pays half of a slash to the cold key for a report, to the key of the bonds for what that key signed,
//! and gives bonds back to it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::StreamExt;
use node_client::chain::{BlockRef, GauntletEvent, Offender};
use protocol::{
    fault::{reporter_part, Verdict},
    window::phase_at,
    AccountBytes, Planck, Uid, ValidatorIndex, Window,
};

use crate::{
    diary::ProofStep,
    error::Result,
    handles::{Handles, Role},
    slot::{self, Slot},
    telemetry,
};

/// What this process has lost of bonds, in planck; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Losses {
    // Never held across an await.
    lost: Arc<Mutex<Planck>>,
}

impl Losses {
    pub(crate) fn so_far(&self) -> Planck {
        *self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, amount: Planck) {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        *lost = lost.saturating_add(amount);
        metrics::gauge!(telemetry::BONDS_LOST).set(*lost as f64);
    }
}

/// What this participant accuses others of.
#[derive(Default)]
struct Accusations {
    /// The bonds of its requests for chunks, by window, miner and chunk.
    challenges: BTreeMap<(Window, Uid, u32), Planck>,
    /// The bonds of its disputes, by evaluation.
    disputes: BTreeMap<(Window, ValidatorIndex, Uid), Planck>,
}

/// Writes into the diary, block by block, until the process ends. What cannot be read is logged: no participant ends for it.
pub(crate) async fn follow(handles: Handles, role: Role, losses: Losses) -> Result<()> {
    let mut outcomes = Outcomes { handles, role, losses, own: None, ours: Accusations::default() };
    match outcomes.handles.chain.subscribe_finalized().await {
        Ok(mut blocks) => {
            if let Err(error) = outcomes.remember().await {
                tracing::warn!(error = error.line(), "cannot read what is disputed");
            }
            while let Some(block) = blocks.next().await {
                if let Err(error) = outcomes.tell(block).await {
                    let (number, error) = (block.number, error.line());
                    tracing::warn!(block = number, error, "cannot read what became of proofs");
                }
            }
        }
        Err(error) => tracing::warn!(%error, "cannot follow what becomes of proofs"),
    }
    std::future::pending().await
}

struct Outcomes {
    handles: Handles,
    role: Role,
    losses: Losses,
    /// The slot of this participant, as it was last seen: of one that is gone, too.
    own: Option<Slot>,
    ours: Accusations,
}

impl Outcomes {
    /// Whether an account is this participant's.
    fn is_ours(&self, account: &AccountBytes) -> bool {
        self.handles.desk.bonds_account() == Some(*account)
            || self.own.is_some_and(|own| own.cold == *account)
    }

    /// Whether a miner's slot was this miner's in a window.
    fn is_own_miner(&self, uid: Uid, window: Window) -> bool {
        let own = self.own.filter(|_| self.role == Role::Miner);
        own.is_some_and(|own| own.number == uid && own.registered_window <= window)
    }

    /// Reads what an earlier process accuses others of.
    async fn remember(&mut self) -> Result<()> {
        let (run, bonds) = (self.handles.run.id, self.handles.desk.bonds_account());
        let Some(bonds) = bonds else {
            return Ok(());
        };
        let challenges = self.handles.chain.data_challenges(run, None).await?;
        let own = challenges.into_iter().filter(|challenge| challenge.challenger == bonds);
        self.ours.challenges =
            own.map(|found| ((found.window, found.uid, found.index), found.bond)).collect();
        let disputes = self.handles.chain.evaluation_disputes(run, None).await?;
        let own = disputes.into_iter().filter(|dispute| dispute.challenger == bonds);
        self.ours.disputes = own.map(|found| (found.name, found.bond)).collect();
        Ok(())
    }

    async fn tell(&mut self, block: BlockRef) -> Result<()> {
        let events = self.handles.chain.events_at(block.hash).await?;
        let run = self.handles.run.id;
        if !events.iter().any(|event| is_of_proof(event, run)) {
            return Ok(());
        }
        let found = slot::find(&self.handles, self.role, Some(block.hash)).await?;
        self.own = found.or(self.own);
        let schedule = &self.handles.run.info.settings.schedule;
        let now = phase_at(schedule, block.number).map_or(0, |moment| moment.window);
        for event in events.iter().filter(|event| is_of_proof(event, run)) {
            if let Some((window, step)) = self.step(event, now).await? {
                self.handles.machine.diary.proof(window, step);
            }
        }
        Ok(())
    }

    /// What an event of window `now` means for this participant, if anything.
    async fn step(
        &mut self,
        event: &GauntletEvent,
        now: Window,
    ) -> Result<Option<(Window, ProofStep)>> {
        use GauntletEvent::*;
        let disputes = &self.handles.run.info.settings.disputes;
        let step = match *event {
            FaultProven { window, uid, fault, reporter, .. } => {
                let fault = fault.into();
                let proved = self.is_ours(&reporter).then_some(ProofStep::Proved { uid, fault });
                let convicted = ProofStep::Convicted { fault };
                proved
                    .or(self.is_own_miner(uid, window).then_some(convicted))
                    .map(|step| (window, step))
            }
            DataChallenged { window, uid, index, challenger, .. } => {
                if self.is_ours(&challenger) {
                    let bond = disputes.challenge_bond;
                    self.ours.challenges.insert((window, uid, index), bond);
                    Some((window, ProofStep::Challenged { uid, index }))
                } else {
                    let is_own = self.is_own_miner(uid, window);
                    is_own.then_some((window, ProofStep::Asked { index }))
                }
            }
            DataAnswered { window, uid, index, .. } => {
                let bond = self.ours.challenges.remove(&(window, uid, index));
                let lost = bond.map(|amount| {
                    self.losses.add(amount);
                    ProofStep::BondLost { amount }
                });
                let answered = ProofStep::Answered { index };
                lost.or(self.is_own_miner(uid, window).then_some(answered))
                    .map(|step| (window, step))
            }
            EvaluationDisputed { window, index, uid, challenger, .. } => {
                if self.is_ours(&challenger) {
                    self.ours.disputes.insert((window, index, uid), disputes.dispute_bond);
                    Some((window, ProofStep::Disputed { index, uid }))
                } else {
                    let own = self.own.filter(|_| self.role == Role::Validator);
                    let is_own = own.is_some_and(|own| own.number == index);
                    is_own.then_some((window, ProofStep::Doubted { uid }))
                }
            }
            DisputeClosed { window, index, uid, verdict, .. } => {
                let bond = self.ours.disputes.remove(&(window, index, uid));
                bond.filter(|_| verdict == Verdict::True).map(|amount| {
                    self.losses.add(amount);
                    (window, ProofStep::BondLost { amount })
                })
            }
            Slashed { offender, amount, reporter, .. } => {
                if reporter.is_some_and(|reporter| self.is_ours(&reporter)) {
                    Some((now, ProofStep::Rewarded { amount: reporter_part(amount) }))
                } else {
                    let is_own = self.is_own_money(offender).await?;
                    is_own.then_some((now, ProofStep::Slashed { amount }))
                }
            }
            _ => None,
        };
        Ok(step)
    }

    async fn is_own_money(&self, offender: Offender) -> Result<bool> {
        let Some(own) = self.own else {
            return Ok(false);
        };
        match (self.role, offender) {
            (Role::Miner, Offender::Miner { uid, registered_window }) => {
                Ok((own.number, own.registered_window) == (uid, registered_window))
            }
            (Role::Validator, Offender::Pool(number)) => {
                let pool = self.handles.chain.stake_pool(self.handles.run.id, number, None).await?;
                Ok(pool.is_some_and(|pool| pool.cold == own.cold))
            }
            _ => Ok(false),
        }
    }
}

/// Whether an event is of a proof in a run.
fn is_of_proof(event: &GauntletEvent, run: u32) -> bool {
    use GauntletEvent::*;
    match event {
        FaultProven { run: of, .. }
        | DataChallenged { run: of, .. }
        | DataAnswered { run: of, .. }
        | EvaluationDisputed { run: of, .. }
        | DisputeClosed { run: of, .. }
        | Slashed { run: of, .. } => *of == run,
        _ => false,
    }
}

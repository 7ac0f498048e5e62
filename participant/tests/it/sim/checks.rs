//! Checks what must hold whatever goes wrong.
//!
//! In every window:
//!
//! 1. every honest participant names the root of an independent replay: in reveals, in attestations, and so on chain;
//! 2. the accepted set has only miners that revealed on that root and that two thirds of the permitted stake attested;
//! 3. what was minted is where the ledger says, and no money comes from elsewhere;
//! 4. no honest participant is convicted of anything, and none loses money but for its own wrong accusations;
//! 5. nobody signs two different things for one duty (checked when it is signed, in [`World::sign`]), and what is
//!    signed is in the signer's journal;
//! 6. no payload is copied to the mirror before the commitments of its window are closed, and an accepted one is a
//!    window later.
//!
//! After the faults: every window has a final root, everybody's work is in it, and every miner has been paid.

use std::collections::BTreeSet;

use node_client::{
    chain::{Chain, GauntletEvent, Offender, WindowInfo, WindowStatus},
    journal::JournalKind,
    keys,
};
use protocol::{
    accept::{is_available, on_probation, AttestationInput},
    aggregate::OuterRule,
    fault::{juror_fee, Verdict},
    settings::Settings,
    BlockNumber, Hash, Planck, Uid, Window,
};
use trainer::{Model, Threads};

use super::{
    participants::Member,
    story::{phantom, Plan, Summary, BALANCE, QUIET_WINDOWS},
    world::World,
};

const RUN: u32 = 0;

/// What the fake chain's schedule gives in a block, in planck.
const PER_BLOCK: Planck = 250_000_000_000;

pub(super) struct Checks {
    settings: Settings,
    /// θ of `window`, from chain and payloads alone.
    replay: Model,
    window: Window,
    /// Miners accepted in each window so far, and whether its root is final.
    windows: Vec<(Vec<Uid>, bool)>,
    /// The accepted payloads of the last of them.
    payloads: Vec<Hash>,
    /// All payloads that were revealed.
    revealed: BTreeSet<Hash>,
    settled: Vec<WindowStatus>,
    /// What joining and faults have cost so far, which is destroyed.
    burned: Planck,
    /// What happened of proofs of faults.
    proofs: Vec<GauntletEvent>,
}

impl Checks {
    pub(super) fn new(replay: Model, settings: Settings) -> Self {
        let (windows, payloads) = (Vec::new(), Vec::new());
        let (settled, proofs) = (Vec::new(), Vec::new());
        let revealed = BTreeSet::new();
        Self {
            settings,
            replay,
            window: 0,
            windows,
            payloads,
            revealed,
            settled,
            burned: 0,
            proofs,
        }
    }

    /// Checks what a block has made final.
    pub(super) async fn block(&mut self, world: &World, members: &[Member], number: BlockNumber) {
        let at = world.chain.block_hash(number).await.unwrap();
        self.proofs(world, members, number, at).await;
        self.money(world, members, number, at).await;
        let schedule = self.settings.schedule.clone();
        if number == schedule.window_start(self.window).unwrap() + schedule.attest_end {
            self.accepted(world, at).await;
        }
        let settled = self.settled.len() as Window;
        let end = schedule.window_start(settled + 1).unwrap() + schedule.score_reveal_end;
        if number == end {
            let record = window(world, settled, at).await;
            assert_eq!(record.status, WindowStatus::Settled, "window {settled}");
            self.settled.push(record.status);
        }
    }

    /// 1 and 2, and one step of the replay.
    async fn accepted(&mut self, world: &World, at: Option<Hash>) {
        let (chain, number) = (&world.chain, self.window);
        let record = window(world, number, at).await;
        let root = self.replay.state_root(&Threads::single());
        assert!(
            record.state_root.is_none_or(|found| found == root),
            "window {number}: the final root is not the replay's"
        );
        let reveals = chain.reveals(RUN, number, at).await.unwrap();
        let closed = self.settings.schedule.window_start(number).unwrap()
            + self.settings.schedule.commit_end;
        for reveal in &reveals {
            // One that was revealed before is no secret.
            if self.revealed.insert(reveal.opening.payload_root) {
                let copied = world.copied(&reveal.opening.payload_root);
                assert!(copied.is_none_or(|block| block >= closed), "window {number}: {copied:?}");
            }
            let base = reveal.opening.base_state_root;
            assert_eq!(base, root, "window {number}: uid {}", reveal.uid);
        }
        let attestations = chain.attestations(RUN, number, at).await.unwrap();
        for attestation in &attestations {
            let (index, found) = (attestation.index, attestation.state_root);
            assert_eq!(found, root, "window {number}: validator {index}");
        }
        let permits = chain.permits(RUN, number, at).await.unwrap();
        let stake_of = |index| permits.iter().find(|permit| permit.index == index).unwrap().stake;
        let inputs: Vec<AttestationInput<'_>> = attestations
            .iter()
            .map(|attestation| AttestationInput {
                stake: stake_of(attestation.index),
                state_root: attestation.state_root,
                bitmap: &attestation.bitmap,
            })
            .collect();
        let permitted: u128 = permits.iter().map(|permit| u128::from(permit.stake)).sum();
        for root in self.payloads.drain(..) {
            assert!(world.copied(&root).is_some(), "before window {number}: not copied");
        }
        let mut payloads = Vec::new();
        for uid in &record.accepted {
            let reveal = reveals.iter().find(|reveal| reveal.uid == *uid);
            let reveal = reveal.expect("only who revealed is accepted");
            assert!(is_available(&inputs, permitted, *uid));
            self.payloads.push(reveal.opening.payload_root);
            let payload = world.content(&reveal.opening.payload_root);
            payloads.push((*uid, payload.expect("what is attested was published")));
        }
        let accepted: Vec<_> = payloads.iter().map(|(uid, bytes)| (*uid, &bytes[..])).collect();
        let training = &self.settings.training;
        let rule = OuterRule::of_window(&training.outer, self.window);
        self.replay.apply_outer(&Threads::single(), &accepted, training.keep, rule).unwrap();
        self.windows.push((record.accepted, record.state_root.is_some()));
        self.window += 1;
    }

    /// 4, and what faults burn.
    async fn proofs(
        &mut self,
        world: &World,
        members: &[Member],
        number: BlockNumber,
        at: Option<Hash>,
    ) {
        let chain = &world.chain;
        let before = chain.block_hash(number - 1).await.unwrap();
        for event in chain.events_at(at.unwrap()).await.unwrap() {
            match &event {
                GauntletEvent::FaultProven { uid, .. } => {
                    let miners = chain.miners(RUN, at).await.unwrap();
                    let accused = miners.iter().find(|miner| miner.uid == *uid).unwrap();
                    let member = members.iter().find(|member| member.account() == accused.hot);
                    assert!(!member.unwrap().is_honest(), "block {number}: {event:?}");
                }
                GauntletEvent::Slashed { amount, reporter, offender, .. } => {
                    assert!(reporter.is_some());
                    self.burned += amount - amount / 2;
                    if let Offender::Pool(pool) = offender {
                        let pool = chain.stake_pool(RUN, *pool, at).await.unwrap().unwrap();
                        assert_eq!(pool.cold, keys::account(&phantom()), "{event:?}");
                    }
                }
                GauntletEvent::DisputeClosed { window, index, uid, verdict, .. } => {
                    let disputes = chain.evaluation_disputes(RUN, before).await.unwrap();
                    let name = (*window, *index, *uid);
                    let dispute = disputes.iter().find(|dispute| dispute.name == name).unwrap();
                    let seats = dispute.jury.iter().filter(|seat| seat.measured.is_some());
                    let seats = seats.count();
                    if *verdict == Verdict::True {
                        let jurors = self.settings.disputes.jurors;
                        let fee = juror_fee(dispute.bond, jurors, seats);
                        self.burned += dispute.bond - fee * seats as Planck;
                    }
                }
                GauntletEvent::DataChallenged { .. }
                | GauntletEvent::DataAnswered { .. }
                | GauntletEvent::EvaluationDisputed { .. }
                | GauntletEvent::SlashDeferred { .. } => {}
                _ => continue,
            }
            self.proofs.push(event);
        }
    }

    /// 3.
    async fn money(
        &mut self,
        world: &World,
        members: &[Member],
        number: BlockNumber,
        at: Option<Hash>,
    ) {
        let chain = &world.chain;
        let ledger = chain.ledger(RUN, at).await.unwrap();
        assert!(ledger.is_conserved(), "block {number}: {ledger:?}");
        // The chain's one run has all that the schedule gives to its windows.
        let blocks = self.settled_by(number) * u64::from(self.settings.schedule.window_blocks);
        assert_eq!(ledger.minted, Planck::from(blocks) * PER_BLOCK, "block {number}");
        for event in chain.events_at(at.unwrap()).await.unwrap() {
            if let GauntletEvent::MinerRegistered { price, .. } = event {
                self.burned += price;
            }
        }
        let mut held: Planck = self.burned;
        for member in members {
            held += chain.balance(keys::account(&member.cold), at).await.unwrap();
        }
        let bonds = chain.miners(RUN, at).await.unwrap();
        let stakes = chain.validators(RUN, at).await.unwrap();
        held += bonds.iter().map(|miner| miner.bond).sum::<Planck>();
        held += stakes.iter().map(|found| found.stake).sum::<Planck>();
        let challenges = chain.data_challenges(RUN, at).await.unwrap();
        let disputes = chain.evaluation_disputes(RUN, at).await.unwrap();
        held += challenges.iter().map(|challenge| challenge.bond).sum::<Planck>();
        held += disputes.iter().map(|dispute| dispute.bond).sum::<Planck>();
        held += chain.balance(keys::account(&phantom()), at).await.unwrap();
        assert_eq!(held, BALANCE * (members.len() as Planck + 1) + ledger.paid);
    }

    /// Windows that are settled by block `number`.
    fn settled_by(&self, number: BlockNumber) -> Window {
        let schedule = &self.settings.schedule;
        let end = |window| schedule.window_start(window + 1).unwrap() + schedule.score_reveal_end;
        (0..).find(|window| end(*window) > number).unwrap()
    }

    /// Journals, liveness and pay.
    pub(super) async fn end(
        &self,
        world: &World,
        members: &[Member],
        plan: &Plan,
        digest: Hash,
    ) -> Summary {
        journals(world, members);
        let miners = world.chain.miners(RUN, None).await.unwrap();
        let quiet = (plan.windows - QUIET_WINDOWS + 1)..plan.windows;
        for number in quiet {
            let (accepted, is_final) = &self.windows[number as usize];
            assert!(is_final, "window {number} has no final root");
            for member in members.iter().filter(|member| member.is_honest()) {
                let miner = miners.iter().find(|miner| miner.hot == member.account());
                let incentive = &self.settings.incentive;
                let is_in = miner.is_none_or(|miner| {
                    let is_new = on_probation(miner.registered_window, number, incentive);
                    is_new || accepted.contains(&miner.uid)
                });
                let missed = || -> Vec<_> {
                    members.iter().map(|member| (&member.name, member.missed())).collect()
                };
                assert!(
                    is_in,
                    "{} is not accepted in window {number}: {miner:?}; missed: {:#?}",
                    member.name,
                    missed()
                );
            }
            let attested = world.chain.attestations(RUN, number, None).await.unwrap();
            assert_eq!(attested.len(), plan.validators, "window {number}");
            let scores = world.chain.score_reveals(RUN, number, None).await.unwrap();
            assert_eq!(scores.len(), plan.validators, "window {number}");
        }
        for member in members.iter().filter(|member| member.is_honest()) {
            for missed in member.missed() {
                // It never meets its own journal: what it had promised before it was killed, it keeps.
                assert!(!missed.contains("is recorded as"), "{}: {missed}", member.name);
            }
            let cold = keys::account(&member.cold);
            let claims = world.chain.claims(RUN, cold, None).await.unwrap();
            let earned: Planck = claims.iter().map(|claim| claim.amount).sum();
            // Trust in who has joined grows over more windows than a story has.
            assert!(earned > 0 || plan.joins(member.number), "{} has earned nothing", member.name);
        }
        Summary {
            accepted: self.windows.iter().map(|(uids, _)| uids.len()).sum(),
            accepted_max: miners.len() * self.windows.len(),
            finals: self.windows.iter().filter(|(_, is_final)| *is_final).count(),
            digest,
            proofs: self.proofs.clone(),
            miners,
            missed: members
                .iter()
                .flat_map(|member| {
                    member.missed().into_iter().map(|what| format!("{}: {what}", member.name))
                })
                .collect(),
            notes: world.notes(),
            synced: world.synced(),
            ahead: members.iter().flat_map(Member::trained_ahead).collect(),
        }
    }
}

/// 5: what was signed and can be recorded is recorded, but for what a backup did not have.
fn journals(world: &World, members: &[Member]) {
    let signed = world.signed();
    for member in members {
        let journal = member.journal();
        if !member.is_honest() {
            continue;
        }
        for ((_, call, window), hash) in
            signed.iter().filter(|((signer, ..), _)| *signer == member.account())
        {
            let kind = match *call {
                "commit_update" => JournalKind::UpdateCommitment,
                "commit_attestation" => JournalKind::Attestation,
                "commit_scores" => JournalKind::ScoreCommitment,
                _ => continue,
            };
            let entry = journal.lookup(kind, RUN, *window);
            if member.is_restored && entry.is_none() {
                continue;
            }
            assert_eq!(entry.map(|entry| entry.hash), Some(*hash), "{}", member.name);
        }
    }
}

async fn window(world: &World, number: Window, at: Option<Hash>) -> WindowInfo {
    let found = world.chain.window(RUN, number, at).await.unwrap();
    found.unwrap_or_else(|| panic!("no window {number}"))
}

//! One run: the work of a window, its boundaries, its settlement; mirrors the pallet's `submission`, `window` and
//! `settlement`.

use std::{cmp::Reverse, collections::BTreeMap};

use protocol::{
    accept::bitmap_of,
    books::{
        self, permit_of, Acceptance, Attested, Facts, MinerRow, Permit, Revealed, Staked,
        ValidatorRow, Voter,
    },
    commitment::{
        attestation_commitment_hash, challenged_chunks, commitment_hash, score_commitment_hash,
        AttestationOpening, ChunkProof, Opening,
    },
    consensus::{pay, settle, ConsensusError, Evaluation, Outcome},
    emission::{Pot, Pots},
    fault::ProvenFault,
    layout::Layout,
    limits::HISTORY_WINDOWS,
    merkle,
    seed::{challenge_seed, mix_salt, window_seed},
    settings::Settings,
    strikes,
    update::decode_chunk,
    window::{phase_at, Moment, Phase, ScorePhase},
    AccountBytes, BlockNumber, Hash, Planck, RunId, Uid, ValidatorIndex, Window,
};

use super::{
    super::{
        AnnouncementInfo, AttestationInfo, CommitmentInfo, GauntletEvent, MinerInfo, RevealInfo,
        RunInfo, ScoreRevealInfo, ValidatorInfo, VoidReason, WindowInfo, WindowStatus,
    },
    accusations::{Proofs, StakePool},
    departures::Registry,
    emission::{due_window, ChainEmission, Money},
    refusal::{ensure, Refusal},
};

/// What a call sees of its block.
pub(super) struct Block<'a> {
    pub(super) number: BlockNumber,
    pub(super) genesis: &'a Hash,
    pub(super) moment: Moment,
    pub(super) events: &'a mut Vec<GauntletEvent>,
}

/// What opens a commitment to evaluations.
pub(super) struct Scores {
    pub(super) evaluations: Vec<Evaluation>,
    pub(super) salt: Hash,
    pub(super) version: u32,
}

/// The rows of a window.
#[derive(Clone)]
pub(super) struct WindowRows {
    pub(super) info: WindowInfo,
    pub(super) commitments: BTreeMap<Uid, CommitmentInfo>,
    pub(super) reveals: BTreeMap<Uid, RevealInfo>,
    pub(super) permits: Vec<Permit>,
    pub(super) attestation_commitments: BTreeMap<ValidatorIndex, Hash>,
    pub(super) attestations: BTreeMap<ValidatorIndex, AttestationInfo>,
    pub(super) score_commitments: BTreeMap<ValidatorIndex, Hash>,
    pub(super) score_reveals: BTreeMap<ValidatorIndex, ScoreRevealInfo>,
    pub(super) proven: BTreeMap<Uid, ProvenFault>,
    /// What the settlement credited to miners.
    pub(super) paid: BTreeMap<Uid, Planck>,
}

/// A run with all that belongs to it.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) id: RunId,
    pub(super) info: RunInfo,
    chunk_count: u32,
    payload_bytes_max: u64,
    salt_mix: Hash,
    pub(super) next_settlement: Window,
    /// Settings that replace the run's from a window on.
    pub(super) pending: Option<(Window, Settings)>,
    pub(super) miners: BTreeMap<Uid, MinerInfo>,
    pub(super) validators: BTreeMap<ValidatorIndex, ValidatorInfo>,
    pub(super) announcements: BTreeMap<AccountBytes, AnnouncementInfo>,
    pub(super) windows: BTreeMap<Window, WindowRows>,
    pub(super) money: Money,
    /// The validators' bonds as the last settlement left them.
    pub(super) bonds: BTreeMap<ValidatorIndex, books::Bonds>,
    pub(super) registry: Registry,
    /// The validators' money, by the pool's number. A pool goes when a slash leaves nothing of it.
    pub(super) pools: BTreeMap<u32, StakePool>,
    /// The number of the next pool.
    pub(super) next_pool: u32,
    pub(super) proofs: Proofs,
}

fn internal() -> Refusal {
    Refusal::gauntlet("Internal")
}

impl WindowRows {
    /// The permits, each with what its holder attested.
    fn voters(&self) -> Vec<Voter<'_>> {
        let voter = |&(index, stake): &Permit| {
            let attestation = self
                .attestations
                .get(&index)
                .map(|row| Attested { state_root: row.state_root, bitmap: &row.bitmap });
            Voter { index, stake, attestation }
        };
        self.permits.iter().map(voter).collect()
    }
}

impl Run {
    pub(super) fn new(
        id: RunId,
        owner: AccountBytes,
        settings: Settings,
        layout: Layout,
        chunk_count: u32,
        payload_bytes_max: u64,
    ) -> Self {
        Self {
            id,
            info: RunInfo { owner, settings, layout },
            chunk_count,
            payload_bytes_max,
            salt_mix: [0; 32],
            next_settlement: 0,
            pending: None,
            miners: BTreeMap::new(),
            validators: BTreeMap::new(),
            announcements: BTreeMap::new(),
            windows: BTreeMap::new(),
            money: Money::default(),
            bonds: BTreeMap::new(),
            registry: Registry::default(),
            pools: BTreeMap::new(),
            next_pool: 0,
            proofs: Proofs::default(),
        }
    }

    /// Whether a hot key is a miner's or a validator's.
    pub(super) fn takes_part(&self, hot: &AccountBytes) -> bool {
        self.miners.values().any(|miner| miner.hot == *hot)
            || self.validators.values().any(|found| found.hot == *hot)
    }

    /// The validator with the least stake, if `stake` is more; of several it is the one of the highest slot.
    pub(super) fn weakest_validator(&self, stake: Planck) -> Option<ValidatorIndex> {
        let lowest =
            self.validators.values().min_by_key(|found| (found.stake, Reverse(found.index)))?;
        (stake > lowest.stake).then_some(lowest.index)
    }

    fn active_miner(&self, hot: &AccountBytes, window: Window) -> Result<Uid, Refusal> {
        let miner = self.miners.values().find(|miner| miner.hot == *hot);
        let miner = miner.ok_or(Refusal::gauntlet("MinerUnknown"))?;
        ensure(miner.registered_window <= window, "NotYetActive")?;
        let is_here = miner.last_window.is_none_or(|last| window <= last);
        ensure(is_here, "LeavingAlready")?;
        Ok(miner.uid)
    }

    /// The validator with this hot key, if it has a permit for `window`.
    fn permitted_validator(
        &self,
        hot: &AccountBytes,
        window: Window,
    ) -> Result<ValidatorIndex, Refusal> {
        let found = self.validators.values().find(|found| found.hot == *hot);
        let found = found.ok_or(Refusal::gauntlet("ValidatorUnknown"))?;
        ensure(found.registered_window <= window, "NotYetActive")?;
        let rows = self.windows.get(&window);
        let permit = rows.and_then(|rows| permit_of(&rows.permits, found.index));
        ensure(permit.is_some(), "NoPermit")?;
        Ok(found.index)
    }

    fn rows(&mut self, window: Window) -> Result<&mut WindowRows, Refusal> {
        self.windows.get_mut(&window).ok_or_else(internal)
    }

    pub(super) fn commit_update(
        &mut self,
        block: &mut Block<'_>,
        hot: AccountBytes,
        window: Window,
        hash: Hash,
    ) -> Result<(), Refusal> {
        ensure_phase(&block.moment, window, Phase::Commit)?;
        let uid = self.active_miner(&hot, window)?;
        let rows = self.rows(window)?;
        ensure(!rows.commitments.contains_key(&uid), "AlreadyCommitted")?;
        let commitment = CommitmentInfo {
            uid,
            hash,
            block: block.number,
            // One a slot, of which there are less than 2^16; none is removed while the phase lasts.
            order: rows.commitments.len() as u32,
        };
        rows.commitments.insert(uid, commitment);
        if let Some(miner) = self.miners.get_mut(&uid) {
            miner.committed_window = Some(window);
        }
        block.events.push(GauntletEvent::UpdateCommitted { run: self.id, window, uid, hash });
        Ok(())
    }

    pub(super) fn reveal_update(
        &mut self,
        block: &mut Block<'_>,
        hot: AccountBytes,
        window: Window,
        opening: Opening,
        chunks: &[ChunkProof],
    ) -> Result<(), Refusal> {
        ensure_phase(&block.moment, window, Phase::Reveal)?;
        let uid = self.active_miner(&hot, window)?;
        let run = self.id;
        let rows = self.rows(window)?;
        let commitment = rows.commitments.get(&uid).cloned();
        let commitment = commitment.ok_or(Refusal::gauntlet("NotCommitted"))?;
        ensure(!rows.reveals.contains_key(&uid), "AlreadyRevealed")?;
        let hash = commitment_hash(block.genesis, run, window, &hot, &opening);
        ensure(hash == commitment.hash, "OpeningMismatch")?;
        let has_all_chunks = opening.chunk_count == self.chunk_count;
        ensure(has_all_chunks, "ChunkCountWrong")?;
        let is_len_possible = (1..=self.payload_bytes_max).contains(&opening.byte_len);
        ensure(is_len_possible, "ByteLenOutOfRange")?;
        self.ensure_chunks_shown(window, uid, &opening, chunks)?;

        let payload_root = opening.payload_root;
        let byte_len = opening.byte_len;
        let reveals = &mut self.rows(window)?.reveals;
        let other = reveals
            .values()
            .find(|other| other.opening.payload_root == payload_root)
            .map(|other| (other.uid, other.order));
        if let Some((other, order)) = other {
            ensure(commitment.order < order, "CopiedPayload")?;
            reveals.remove(&other);
            block.events.push(GauntletEvent::CopyRefused {
                run,
                window,
                uid: other,
                original: uid,
            });
        }
        let reveal =
            RevealInfo { uid, opening, committed_block: commitment.block, order: commitment.order };
        reveals.insert(uid, reveal);
        block.events.push(GauntletEvent::UpdateRevealed {
            run,
            window,
            uid,
            payload_root,
            byte_len,
        });
        Ok(())
    }

    /// The chunks are those that the chain drew, belong to the payload and decode.
    fn ensure_chunks_shown(
        &mut self,
        window: Window,
        uid: Uid,
        opening: &Opening,
        chunks: &[ChunkProof],
    ) -> Result<(), Refusal> {
        let seed = self.rows(window)?.info.challenge_seed;
        let seed = seed.ok_or(Refusal::gauntlet("ChallengeNotDrawn"))?;
        let count = self.info.settings.incentive.challenge_chunks;
        let asked = challenged_chunks(&seed, self.id, window, uid, self.chunk_count, count);
        let is_asked = chunks.iter().map(|chunk| chunk.index).eq(asked);
        ensure(is_asked, "ChunksNotChallenged")?;
        for chunk in chunks {
            let belongs = merkle::verify(
                &opening.payload_root,
                self.chunk_count,
                chunk.index,
                &chunk.chunk,
                &chunk.proof,
            );
            ensure(belongs, "ProofInvalid")?;
            let len = self.info.layout.chunk_len(chunk.index);
            let len = len.ok_or_else(internal)?;
            let decoded = decode_chunk(&chunk.chunk, len, self.info.settings.training.keep);
            ensure(decoded.is_ok(), "ChunkMalformed")?;
        }
        Ok(())
    }

    pub(super) fn commit_attestation(
        &mut self,
        block: &mut Block<'_>,
        hot: AccountBytes,
        window: Window,
        hash: Hash,
    ) -> Result<(), Refusal> {
        ensure_phase(&block.moment, window, Phase::AttestCommit)?;
        let index = self.permitted_validator(&hot, window)?;
        let rows = self.rows(window)?;
        let is_first = !rows.attestation_commitments.contains_key(&index);
        ensure(is_first, "AlreadyCommitted")?;
        rows.attestation_commitments.insert(index, hash);
        block.events.push(GauntletEvent::AttestationCommitted {
            run: self.id,
            window,
            index,
            hash,
        });
        Ok(())
    }

    pub(super) fn reveal_attestation(
        &mut self,
        block: &mut Block<'_>,
        hot: AccountBytes,
        window: Window,
        opening: AttestationOpening,
    ) -> Result<(), Refusal> {
        ensure_phase(&block.moment, window, Phase::AttestReveal)?;
        let index = self.permitted_validator(&hot, window)?;
        let run = self.id;
        let bytes_max = usize::from(self.info.settings.incentive.uid_max).div_ceil(8);
        let rows = self.rows(window)?;
        let committed = rows.attestation_commitments.get(&index).copied();
        let committed = committed.ok_or(Refusal::gauntlet("NotCommitted"))?;
        ensure(!rows.attestations.contains_key(&index), "AlreadyRevealed")?;
        let hash = attestation_commitment_hash(block.genesis, run, window, &hot, &opening);
        ensure(hash == committed, "OpeningMismatch")?;
        let AttestationOpening { bitmap, state_root, .. } = opening;
        ensure(bitmap.len() <= bytes_max, "BitmapTooLong")?;
        rows.attestations.insert(index, AttestationInfo { index, bitmap, state_root });
        if let Some(validator) = self.validators.get_mut(&index) {
            validator.attested_window = Some(window);
        }
        block.events.push(GauntletEvent::Attested { run, window, index, state_root });
        Ok(())
    }

    pub(super) fn commit_scores(
        &mut self,
        block: &mut Block<'_>,
        hot: AccountBytes,
        window: Window,
        hash: Hash,
        version: u32,
    ) -> Result<(), Refusal> {
        ensure_score_phase(&block.moment, window, ScorePhase::Commit)?;
        let index = self.permitted_validator(&hot, window)?;
        let rows = self.rows(window)?;
        let is_first = !rows.score_commitments.contains_key(&index);
        ensure(is_first, "AlreadyCommitted")?;
        self.ensure_score_version(version)?;
        self.rows(window)?.score_commitments.insert(index, hash);
        block.events.push(GauntletEvent::ScoresCommitted { run: self.id, window, index, hash });
        Ok(())
    }

    pub(super) fn reveal_scores(
        &mut self,
        block: &mut Block<'_>,
        hot: AccountBytes,
        window: Window,
        scores: Scores,
    ) -> Result<(), Refusal> {
        ensure_score_phase(&block.moment, window, ScorePhase::Reveal)?;
        let index = self.permitted_validator(&hot, window)?;
        let run = self.id;
        let rows = self.rows(window)?;
        let committed = rows.score_commitments.get(&index).copied();
        let committed = committed.ok_or(Refusal::gauntlet("NotCommitted"))?;
        ensure(!rows.score_reveals.contains_key(&index), "AlreadyRevealed")?;
        let Scores { evaluations, salt, version } = scores;
        self.ensure_score_version(version)?;
        let hash =
            score_commitment_hash(block.genesis, run, window, &hot, &evaluations, version, &salt);
        ensure(hash == committed, "OpeningMismatch")?;
        let count = evaluations.len() as u32;
        let reveal = ScoreRevealInfo { index, evaluations, salt };
        self.rows(window)?.score_reveals.insert(index, reveal);
        self.salt_mix = mix_salt(&self.salt_mix, window, index, &salt);
        block.events.push(GauntletEvent::ScoresRevealed { run, window, index, count });
        Ok(())
    }

    fn ensure_score_version(&self, version: u32) -> Result<(), Refusal> {
        ensure(version == self.info.settings.incentive.score_version, "ScoreVersionWrong")
    }

    /// Does what the block is the boundary of.
    pub(super) fn cross_boundary(
        &mut self,
        number: BlockNumber,
        parent_hash: &Hash,
        chain: &mut ChainEmission,
        events: &mut Vec<GauntletEvent>,
    ) {
        let schedule = &self.info.settings.schedule;
        let (challenge, attest_end) = (schedule.challenge_offset(), schedule.attest_end);
        let Some(moment) = phase_at(schedule, number) else {
            return;
        };
        match moment.offset {
            0 => {
                self.end_budget(number, moment.window, chain);
                self.open_window(moment.window, parent_hash, events);
            }
            offset if offset == challenge => {
                let (run, mix) = (self.id, self.salt_mix);
                if let Some(WindowRows { info, .. }) = self.windows.get_mut(&moment.window) {
                    info.challenge_seed = Some(challenge_seed(&info.seed, parent_hash));
                    let overlap = info.settings.training.overlap;
                    let next = moment.window.checked_add(1).filter(|_| overlap);
                    info.next_seed = next.map(|next| window_seed(parent_hash, run, next, &mix));
                }
            }
            offset if offset == attest_end => self.accept(moment.window, events),
            _ => {}
        }
    }

    /// Fixes the budget of the window that ends.
    fn end_budget(&mut self, number: BlockNumber, next: Window, chain: &mut ChainEmission) {
        let Some(weight) = &mut self.money.weight else {
            return;
        };
        let budget = chain.open_window(number, weight);
        let ended = next.checked_sub(1).and_then(|window| self.windows.get_mut(&window));
        if let Some(rows) = ended {
            rows.info.budget = budget;
        }
    }

    fn open_window(&mut self, window: Window, parent_hash: &Hash, events: &mut Vec<GauntletEvent>) {
        let run = self.id;
        if let Some((_, settings)) = self.pending.take_if(|(from, _)| *from <= window) {
            self.info.settings = settings;
            events.push(GauntletEvent::SettingsApplied { run, window });
        }
        let drawn = window_seed(parent_hash, run, window, &self.salt_mix);
        let before = window.checked_sub(1).and_then(|before| self.windows.get(&before));
        let before = before.map(|before| &before.info).filter(|before| !before.excused);
        let seed = before.and_then(|before| before.next_seed).unwrap_or(drawn);
        let info = WindowInfo {
            seed,
            scoring_seed: drawn,
            challenge_seed: None,
            next_seed: None,
            state_root: None,
            accepted: Vec::new(),
            unavailable: Vec::new(),
            status: WindowStatus::Open,
            budget: 0,
            minted: 0,
            funded: 0,
            settings: self.info.settings.clone(),
            excused: false,
        };
        let validators: Vec<Staked> = self
            .validators
            .values()
            .map(|validator| Staked {
                index: validator.index,
                stake: validator.stake,
                registered_window: validator.registered_window,
            })
            .collect();
        let permits_max = self.info.settings.incentive.permits_max;
        let permits = books::permits(window, &validators, permits_max);
        let bench = self.bench(&permits);
        self.proofs.benches.insert(window, bench);
        let rows = WindowRows {
            info,
            commitments: BTreeMap::new(),
            reveals: BTreeMap::new(),
            permits,
            attestation_commitments: BTreeMap::new(),
            attestations: BTreeMap::new(),
            score_commitments: BTreeMap::new(),
            score_reveals: BTreeMap::new(),
            proven: BTreeMap::new(),
            paid: BTreeMap::new(),
        };
        self.windows.insert(window, rows);
        events.push(GauntletEvent::WindowOpened { run, window, seed });
    }

    /// Fixes state root and accepted set from the attestations.
    fn accept(&mut self, window: Window, events: &mut Vec<GauntletEvent>) {
        let incentive = &self.info.settings.incentive;
        let Some(rows) = self.windows.get_mut(&window) else {
            return;
        };
        let voters = rows.voters();
        let revealed: Vec<Revealed> = rows
            .reveals
            .values()
            .filter_map(|reveal| {
                let miner = self.miners.get(&reveal.uid);
                let miner = miner.filter(|miner| miner.registered_window <= window)?;
                Some(Revealed {
                    uid: miner.uid,
                    base_state_root: reveal.opening.base_state_root,
                    value: miner.value,
                    is_scored: miner.standing.scored_windows > 0,
                    registered_window: miner.registered_window,
                })
            })
            .collect();
        let genesis = &self.info.settings.training.genesis_state_root;
        let Acceptance { state_root, accepted, unavailable, is_silent } =
            books::accept(window, &voters, &revealed, incentive, genesis);
        rows.info.state_root = state_root;
        rows.info.accepted = accepted.clone();
        rows.info.unavailable = bitmap_of(&unavailable);
        rows.info.status = WindowStatus::Accepted;
        rows.info.excused |= is_silent;
        events.push(GauntletEvent::WindowAccepted { run: self.id, window, state_root, accepted });
    }

    /// Settles the windows whose scores are closed.
    pub(super) fn settle_due(
        &mut self,
        number: BlockNumber,
        chain: &mut ChainEmission,
        events: &mut Vec<GauntletEvent>,
    ) {
        while let Some(window) =
            books::due(&self.info.settings.schedule, number, self.next_settlement)
        {
            self.next_settlement += 1;
            if let Err(error) = self.settle(number, window, chain, events) {
                self.set_status(window, WindowStatus::Void);
                let run = self.id;
                let info = self.windows.get(&window).map(|rows| &rows.info);
                let (minted, funded) = info.map_or((0, 0), |info| (info.minted, info.funded));
                events.push(GauntletEvent::WindowVoid { run, window, error, minted, funded });
            }
        }
    }

    fn settle(
        &mut self,
        number: BlockNumber,
        window: Window,
        chain: &mut ChainEmission,
        events: &mut Vec<GauntletEvent>,
    ) -> Result<(), VoidReason> {
        let run = self.id;
        let info = &mut self.windows.get_mut(&window).ok_or(VoidReason::TooLate)?.info;
        let funds = self
            .money
            .fund_window(chain, number, info.budget, &info.settings)
            .map_err(void_reason)?;
        (info.minted, info.funded) = (funds.minted, funds.funded);
        let has_final_root = info.state_root.is_some();
        let pots = funds.payable(&info.settings, has_final_root).map_err(void_reason)?;
        let due = due_window(window, &info.settings);

        let outcome = self.outcome(window).map_err(void_reason)?;
        let shares: Vec<_> = outcome.miners.iter().map(|miner| miner.share).collect();
        let (miner_amounts, _) = pay(pots.miners, &shares).map_err(void_reason)?;
        let shares: Vec<_> = outcome.validators.iter().map(|found| found.share).collect();
        let (validator_amounts, _) = pay(pots.validators, &shares).map_err(void_reason)?;

        self.bonds = books::bonds_after(window, &outcome.validators).collect();
        let owner = self.money.credit(Pot::Owner, self.info.owner, due, pots.owner);
        let mut total = Pots { owner, ..Pots::default() };
        for (outcome, amount) in outcome.miners.into_iter().zip(miner_amounts) {
            let Some(miner) = self.miners.get_mut(&outcome.uid) else {
                continue;
            };
            miner.standing = outcome.standing;
            miner.value = outcome.value;
            miner.share = outcome.share;
            let cold = miner.cold;
            let paid = self.money.credit(Pot::Miners, cold, due, amount);
            total.miners = total.miners.saturating_add(paid);
            if let Some(rows) = self.windows.get_mut(&window) {
                rows.paid.insert(outcome.uid, paid);
            }
            events.push(GauntletEvent::MinerScored {
                run,
                window,
                uid: outcome.uid,
                own: outcome.own,
                random: outcome.random,
                standing_value: outcome.value,
                share: outcome.share,
                paid,
            });
        }
        for (outcome, amount) in outcome.validators.into_iter().zip(validator_amounts) {
            let Some(cold) = self.validators.get(&outcome.index).map(|found| found.cold) else {
                continue;
            };
            let paid = self.money.credit(Pot::Validators, cold, due, amount);
            total.validators = total.validators.saturating_add(paid);
            events.push(GauntletEvent::ValidatorPaid {
                run,
                window,
                index: outcome.index,
                agreement: outcome.agreement,
                paid,
            });
        }
        self.set_status(window, WindowStatus::Settled);
        events.push(GauntletEvent::WindowSettled {
            run,
            window,
            minted: funds.minted,
            funded: funds.funded,
            paid: total,
            carried: self.money.ledger.carried(),
        });
        Ok(())
    }

    /// What the window means for whom.
    fn outcome(&self, window: Window) -> Result<Outcome, ConsensusError> {
        let rows = self.windows.get(&window);
        let rows = rows.ok_or(ConsensusError::Overflow("window"))?;
        let miners: Vec<MinerRow> = self
            .miners
            .values()
            .map(|miner| MinerRow {
                uid: miner.uid,
                registered_window: miner.registered_window,
                standing: miner.standing.clone(),
                committed: rows.commitments.contains_key(&miner.uid),
                revealed: rows.reveals.contains_key(&miner.uid),
            })
            .collect();
        let validators: Vec<ValidatorRow> = self
            .validators
            .values()
            .map(|validator| ValidatorRow {
                index: validator.index,
                registered_window: validator.registered_window,
                evaluations: rows
                    .score_reveals
                    .get(&validator.index)
                    .map(|reveal| reveal.evaluations.clone()),
                bonds: self.bonds.get(&validator.index).cloned(),
            })
            .collect();
        let next = window.checked_add(1).and_then(|next| self.windows.get(&next));
        let revealed: Vec<Uid> = rows.reveals.keys().copied().collect();
        let convicted: Vec<Uid> = rows.proven.keys().copied().collect();
        let facts = Facts {
            state_root: rows.info.state_root,
            voters: &rows.voters(),
            revealed: &revealed,
            unavailable: &rows.info.unavailable,
            convicted: &bitmap_of(&convicted),
            excused: rows.info.excused,
            scoring_seed: books::scoring_seed(
                next.map(|next| next.info.scoring_seed),
                rows.info.challenge_seed,
            ),
        };
        let settings = &rows.info.settings;
        let incentive = &settings.incentive;
        let input = books::settlement_input(window, miners, validators, facts, incentive);
        let mut outcome = settle(&input, incentive)?;
        strikes::refuse_pay(&mut outcome.validators, &self.struck(window));
        Ok(outcome)
    }

    /// The validators, by index, that committed to scores in one of the last windows and withheld them.
    fn struck(&self, window: Window) -> Vec<ValidatorIndex> {
        let is_struck = |validator: &&ValidatorInfo| {
            strikes::is_struck(window, validator.registered_window, |judged| {
                self.windows.get(&judged).is_some_and(|rows| {
                    let revealed = rows.score_reveals.contains_key(&validator.index);
                    let committed = rows.score_commitments.contains_key(&validator.index);
                    strikes::is_withheld(committed, revealed, rows.info.excused)
                })
            })
        };
        self.validators.values().filter(is_struck).map(|validator| validator.index).collect()
    }

    /// Whether nobody is to blame in a window that is kept.
    pub(super) fn is_excused(&self, window: Window) -> bool {
        self.windows.get(&window).is_some_and(|rows| rows.info.excused)
    }

    fn set_status(&mut self, window: Window, status: WindowStatus) {
        if let Some(rows) = self.windows.get_mut(&window) {
            rows.info.status = status;
        }
    }

    /// Removes the windows that are old and settled.
    pub(super) fn prune_due(&mut self, number: BlockNumber) {
        let Some(moment) = phase_at(&self.info.settings.schedule, number) else {
            return;
        };
        let next_settlement = self.next_settlement;
        self.windows.retain(|window, _| {
            window.saturating_add(HISTORY_WINDOWS) >= moment.window || *window >= next_settlement
        });
        let windows = &self.windows;
        self.proofs.forget_benches(|window| windows.contains_key(&window));
    }
}

fn ensure_phase(moment: &Moment, window: Window, phase: Phase) -> Result<(), Refusal> {
    ensure(moment.window == window, "WrongWindow")?;
    ensure(moment.phase == phase, "WrongPhase")
}

fn ensure_score_phase(moment: &Moment, window: Window, phase: ScorePhase) -> Result<(), Refusal> {
    let is_last = moment.window.checked_sub(1) == Some(window);
    ensure(is_last, "WrongWindow")?;
    ensure(moment.score_phase == phase, "WrongPhase")
}

fn void_reason(error: ConsensusError) -> VoidReason {
    match error {
        ConsensusError::DuplicateMiner(_) | ConsensusError::DuplicateValidator(_) => {
            VoidReason::Duplicate
        }
        ConsensusError::Rating(_) => VoidReason::Rating,
        ConsensusError::Overflow(_) => VoidReason::Overflow,
        ConsensusError::Shares => VoidReason::Shares,
        ConsensusError::EmissionParts => VoidReason::EmissionParts,
    }
}

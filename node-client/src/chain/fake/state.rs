//! The state after a block: money, runs and the calls that change who takes part; mirrors the pallet's `registration`.

use std::collections::BTreeMap;

use protocol::{
    accept::bitmap_of,
    commitment::ChunkProof,
    consent::Role,
    fault::COPY_CHUNKS,
    layout::{Layout, LAYOUT_TENSORS_MAX},
    limits::VALIDATORS_MAX,
    merkle::MERKLE_PROOF_MAX,
    settings::{ChangeError, Settings, SettingsError, EVALUATIONS_MAX, UID_MAX},
    update::{payload_bytes_max, CHUNK_BYTES_MAX},
    window::{phase_at, Moment},
    AccountBytes, BlockNumber, Hash, Planck, RunId, ValidatorIndex, Window,
};

use super::{
    super::{AnnouncementInfo, Call, GauntletEvent, ValidatorInfo, SHOWN_BYTES_MAX},
    accusations::StakePool,
    cost::run_cost,
    emission::ChainEmission,
    refusal::{ensure, Refusal},
    run::{Block, Run, Scores},
};

/// The constants of the runtime.
const RUNS_MAX: usize = 16;
const START_HORIZON: BlockNumber = 1_296_000;
const ADMIN_DELAY_WINDOWS: Window = 2;
const CHUNKS_MAX: usize = 4;
const PEER_ID_BYTES_MAX: usize = 64;
const ADDRESS_BYTES_MAX: usize = 128;
const ADDRESSES_MAX: usize = protocol::limits::ANNOUNCED_ADDRESSES_MAX as usize;

/// Everything after a block, and the block's events.
#[derive(Clone)]
pub(super) struct State {
    pub(super) genesis: Hash,
    pub(super) number: BlockNumber,
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) events: Vec<GauntletEvent>,
    /// Free balances; what is held is with the participants, what is owed with the runs.
    balances: BTreeMap<AccountBytes, Planck>,
    emission: ChainEmission,
}

impl State {
    pub(super) fn genesis(
        genesis: Hash,
        balances: impl IntoIterator<Item = (AccountBytes, Planck)>,
    ) -> Self {
        Self {
            genesis,
            number: 0,
            runs: BTreeMap::new(),
            events: Vec::new(),
            balances: balances.into_iter().collect(),
            emission: ChainEmission::default(),
        }
    }

    pub(super) fn balance(&self, account: &AccountBytes) -> Planck {
        self.balances.get(account).copied().unwrap_or(0)
    }

    /// What happens in a block before its extrinsics.
    pub(super) fn begin_block(&mut self, number: BlockNumber, parent_hash: &Hash) {
        self.number = number;
        self.events.clear();
        let mut rewards = Vec::new();
        // As the pallet's hooks: the boundaries of every run, then the work that waits.
        for run in self.runs.values_mut() {
            run.cross_boundary(number, parent_hash, &mut self.emission, &mut self.events);
        }
        for run in self.runs.values_mut() {
            run.make_changes(number, &mut self.events);
            run.settle_due(number, &mut self.emission, &mut self.events);
            rewards.extend(run.slash_due(number, &mut self.events));
            run.prune_due(number);
        }
        for (reporter, amount) in rewards {
            // There is not more money than fits.
            let _ = self.release(reporter, amount);
        }
    }

    /// Executes a call. After an error the state is to be dropped.
    pub(super) fn apply(&mut self, signer: AccountBytes, call: Call) -> Result<(), Refusal> {
        if !fits(&call) {
            // The node cannot decode it.
            let (pallet, error) = ("Transaction", "Invalid");
            return Err(Refusal { pallet, error });
        }
        match call {
            Call::CreateRun { settings, layout } => self.create_run(signer, *settings, layout),
            Call::RegisterMiner { run, hot, proof, max_price } => {
                self.ensure_consent(run, Role::Miner, &signer, &hot, &proof)?;
                self.register_miner(signer, run, hot, max_price)
            }
            Call::LeaveMiner { run, uid } => self.leave_miner(signer, run, uid),
            Call::RegisterValidator { run, hot, proof, stake } => {
                self.ensure_consent(run, Role::Validator, &signer, &hot, &proof)?;
                self.register_validator(signer, run, hot, stake)
            }
            Call::AddStake { run, index, amount } => self.add_stake(signer, run, index, amount),
            Call::DeregisterValidator { run, index } => {
                self.deregister_validator(signer, run, index)
            }
            Call::Announce { run, peer_id, addresses, proof } => {
                self.ensure_peer(run, &signer, &peer_id, &proof)?;
                self.announce(signer, run, peer_id, addresses)
            }
            Call::CommitUpdate { run, window, hash } => {
                let (run, mut block) = self.work(run)?;
                run.commit_update(&mut block, signer, window, hash)
            }
            Call::RevealUpdate { run, window, opening, chunks } => {
                let (run, mut block) = self.work(run)?;
                run.reveal_update(&mut block, signer, window, opening, &chunks)
            }
            Call::CommitAttestation { run, window, hash } => {
                let (run, mut block) = self.work(run)?;
                run.commit_attestation(&mut block, signer, window, hash)
            }
            Call::RevealAttestation { run, window, opening } => {
                let (run, mut block) = self.work(run)?;
                run.reveal_attestation(&mut block, signer, window, opening)
            }
            Call::CommitScores { run, window, hash, version } => {
                let (run, mut block) = self.work(run)?;
                run.commit_scores(&mut block, signer, window, hash, version)
            }
            Call::RevealScores { run, window, evaluations, salt, version } => {
                let (run, mut block) = self.work(run)?;
                let scores = Scores { evaluations, salt, version };
                run.reveal_scores(&mut block, signer, window, scores)
            }
            Call::Claim { run, account } => self.claim(run, account),
            Call::FundRun { run, amount, per_window } => {
                self.fund_run(signer, run, amount, per_window)
            }
            Call::SetParams { run, settings } => self.set_params(signer, run, *settings),
            Call::Evict { run, uid } => self.evict(run, uid),
            Call::WithdrawBond { run, uid, registered_window } => {
                self.withdraw_bond(run, uid, registered_window)
            }
            // No client's program makes these calls.
            Call::PauseRun { .. }
            | Call::ResumeRun { .. }
            | Call::CloseRun { .. }
            | Call::ReapRun { .. }
            | Call::OfferRun { .. }
            | Call::AcceptRun { .. }
            | Call::CancelParams { .. }
            | Call::RotateHotKey { .. }
            | Call::OfferCold { .. }
            | Call::AcceptCold { .. }
            | Call::CancelCold { .. } => Err(Refusal::gauntlet("NotMirrored")),
            Call::ReportCopy { run, commitments, chunks } => {
                self.report_copy(signer, run, commitments, &chunks)
            }
            Call::ReportMalformed { run, commitment, chunk } => {
                self.report_malformed(signer, run, commitment, &chunk)
            }
            Call::ChallengeData { run, commitment, index } => {
                self.challenge_data(signer, run, commitment, index)
            }
            Call::AnswerData { run, commitment, chunk } => {
                self.answer_data(signer, run, commitment, &chunk)
            }
            Call::TimeOut { run, commitment, index } => self.time_out(run, commitment, index),
            Call::DisputeEvaluation { run, evaluation } => {
                self.dispute_evaluation(signer, run, evaluation)
            }
            Call::CommitVerdict { run, evaluation, hash } => {
                self.commit_verdict(signer, run, evaluation, hash)
            }
            Call::RevealVerdict { run, evaluation, measured, salt } => {
                self.reveal_verdict(signer, run, evaluation, measured, salt)
            }
            Call::CloseDispute { run, evaluation } => self.close_dispute(run, evaluation),
            Call::Transfer { to, amount } => {
                self.hold(signer, amount)?;
                self.release(to, amount)
            }
        }
    }

    /// A run and the block, for the calls of a window's work.
    fn work(&mut self, run: RunId) -> Result<(&mut Run, Block<'_>), Refusal> {
        let run = self.runs.get_mut(&run).ok_or(unknown_run())?;
        let moment = phase_at(&run.info.settings.schedule, self.number)
            .ok_or(Refusal::gauntlet("RunNotStarted"))?;
        let block =
            Block { number: self.number, genesis: &self.genesis, moment, events: &mut self.events };
        Ok((run, block))
    }

    pub(super) fn run_at(&mut self, run: RunId) -> Result<(&mut Run, Option<Moment>), Refusal> {
        let run = self.runs.get_mut(&run).ok_or(unknown_run())?;
        let moment = phase_at(&run.info.settings.schedule, self.number);
        Ok((run, moment))
    }

    pub(super) fn hold(&mut self, account: AccountBytes, amount: Planck) -> Result<(), Refusal> {
        let free = self.balance(&account).checked_sub(amount);
        let (pallet, error) = ("Runtime", "Token(FundsUnavailable)");
        let free = free.ok_or(Refusal { pallet, error })?;
        self.balances.insert(account, free);
        Ok(())
    }

    pub(super) fn release(&mut self, account: AccountBytes, amount: Planck) -> Result<(), Refusal> {
        let free = self.balance(&account).checked_add(amount);
        let (pallet, error) = ("Runtime", "Arithmetic(Overflow)");
        let free = free.ok_or(Refusal { pallet, error })?;
        self.balances.insert(account, free);
        Ok(())
    }

    fn create_run(
        &mut self,
        owner: AccountBytes,
        settings: Settings,
        layout: Layout,
    ) -> Result<(), Refusal> {
        settings.validate().map_err(invalid)?;
        let wait = settings.schedule.start_block.saturating_sub(self.number);
        ensure(wait > 0, "StartsInThePast")?;
        ensure(wait <= START_HORIZON, "StartsTooLate")?;
        let chunk_count = layout.chunk_count();
        let chunk_count = chunk_count.ok_or(Refusal::gauntlet("LayoutInvalid"))?;
        ensure(self.runs.len() < RUNS_MAX, "TooManyRuns")?;
        self.hold(owner, run_cost(&layout).taken())?;
        // Runs never end, so that their number is the next identifier; there are few.
        let run = self.runs.len() as RunId;
        let payload_max = payload_bytes_max(&layout, settings.training.keep);
        let created = Run::new(run, owner, settings, layout, chunk_count, payload_max);
        self.runs.insert(run, created);
        self.events.push(GauntletEvent::RunCreated { run, owner });
        Ok(())
    }

    /// Gives a run another weight, as the chain's governance would; it must exist.
    pub(super) fn set_run_weight(&mut self, run_id: RunId, weight: u16) -> Result<(), Refusal> {
        let (run, _) = self.run_at(run_id)?;
        run.money.weight.get_or_insert_default().next = weight;
        self.events.push(GauntletEvent::RunWeightSet { run: run_id, weight });
        Ok(())
    }

    fn claim(&mut self, run_id: RunId, account: AccountBytes) -> Result<(), Refusal> {
        let (run, moment) = self.run_at(run_id)?;
        let amount = run.money.claim(&account, moment.map_or(0, |moment| moment.window))?;
        self.release(account, amount)?;
        self.events.push(GauntletEvent::Claimed { run: run_id, account, amount });
        Ok(())
    }

    fn fund_run(
        &mut self,
        sponsor: AccountBytes,
        run_id: RunId,
        amount: Planck,
        per_window: Planck,
    ) -> Result<(), Refusal> {
        let (run, _) = self.run_at(run_id)?;
        run.money.fund(sponsor, amount, per_window)?;
        self.hold(sponsor, amount)?;
        self.events.push(GauntletEvent::RunFunded { run: run_id, sponsor, amount, per_window });
        Ok(())
    }

    fn set_params(
        &mut self,
        signer: AccountBytes,
        run_id: RunId,
        settings: Settings,
    ) -> Result<(), Refusal> {
        let (run, moment) = self.run_at(run_id)?;
        ensure(run.info.owner == signer, "NotOwner")?;
        settings.validate().map_err(invalid)?;
        run.info.settings.may_become(&settings).map_err(unchangeable)?;
        let window = moment.map_or(0, |moment| moment.window) + ADMIN_DELAY_WINDOWS;
        run.pending = Some((window, settings));
        let run = run_id;
        self.events.push(GauntletEvent::SettingsScheduled { run, window });
        Ok(())
    }

    fn register_validator(
        &mut self,
        cold: AccountBytes,
        run_id: RunId,
        hot: AccountBytes,
        stake: Planck,
    ) -> Result<(), Refusal> {
        let mut events = Vec::new();
        let (run, moment) = self.run_at(run_id)?;
        ensure(!run.takes_part(&hot), "HotKeyTaken")?;
        let stake_min = run.info.settings.incentive.validator_stake_min;
        ensure(stake >= stake_min, "StakeTooLow")?;
        let free = (0..VALIDATORS_MAX).find(|index| !run.validators.contains_key(index));
        let index = match free {
            Some(index) => index,
            None => {
                let no_slot = Refusal::gauntlet("NoFreeSlot");
                let index = run.weakest_validator(stake).ok_or(no_slot)?;
                events.push(GauntletEvent::ValidatorDisplaced { run: run_id, index });
                let now = moment.map_or(0, |moment| moment.window);
                run.remove_validator(index, now, &mut events);
                index
            }
        };
        let validator = ValidatorInfo {
            index,
            hot,
            cold,
            stake,
            registered_window: first_window(moment),
            attested_window: None,
        };
        run.validators.insert(index, validator);
        let pool = StakePool { cold, index: Some(index), own: stake, unbonding: BTreeMap::new() };
        run.pools.insert(run.next_pool, pool);
        run.next_pool += 1;
        self.hold(cold, stake)?;
        self.events.append(&mut events);
        self.events.push(GauntletEvent::ValidatorRegistered {
            run: run_id,
            index,
            hot,
            cold,
            stake,
        });
        Ok(())
    }

    fn add_stake(
        &mut self,
        signer: AccountBytes,
        run_id: RunId,
        index: ValidatorIndex,
        amount: Planck,
    ) -> Result<(), Refusal> {
        let unknown = Refusal::gauntlet("ValidatorUnknown");
        let run = self.runs.get_mut(&run_id).ok_or(unknown)?;
        let validator = run.validators.get_mut(&index).ok_or(unknown)?;
        ensure(validator.cold == signer, "NotColdKey")?;
        let stake = validator.stake.checked_add(amount).ok_or(Refusal::gauntlet("StakeTooHigh"))?;
        validator.stake = stake;
        run.pool_of(index)?.1.own = stake;
        self.hold(signer, amount)?;
        self.events.push(GauntletEvent::StakeAdded { run: run_id, index, stake });
        Ok(())
    }

    fn deregister_validator(
        &mut self,
        signer: AccountBytes,
        run_id: RunId,
        index: ValidatorIndex,
    ) -> Result<(), Refusal> {
        let mut events = Vec::new();
        let (run, now) = self.accusing(run_id)?;
        let validator = run.validators.get(&index).ok_or(Refusal::gauntlet("ValidatorUnknown"))?;
        ensure(validator.cold == signer, "NotColdKey")?;
        run.remove_validator(index, now, &mut events);
        self.events.append(&mut events);
        Ok(())
    }

    fn announce(
        &mut self,
        hot: AccountBytes,
        run_id: RunId,
        peer_id: Vec<u8>,
        addresses: Vec<Vec<u8>>,
    ) -> Result<(), Refusal> {
        let (run, _) = self.run_at(run_id)?;
        ensure(run.takes_part(&hot), "HotKeyUnknown")?;
        let announcement = AnnouncementInfo { hot, peer_id, addresses };
        run.announcements.insert(hot, announcement);
        let run = run_id;
        self.events.push(GauntletEvent::Announced { run, hot });
        Ok(())
    }
}

fn unknown_run() -> Refusal {
    Refusal::gauntlet("RunUnknown")
}

fn unchangeable(error: ChangeError) -> Refusal {
    Refusal::gauntlet(match error {
        ChangeError::Immutable { .. } => "SettingImmutable",
        ChangeError::TooFar { .. } => "ChangeTooLarge",
    })
}

fn invalid(error: SettingsError) -> Refusal {
    Refusal::gauntlet(match error {
        SettingsError::Schedule(_) => "ScheduleInvalid",
        SettingsError::OutOfRange { .. } => "SettingOutOfRange",
        SettingsError::DecayInWarmUp { .. } => "DecayInWarmUp",
        SettingsError::TooFewSamples { .. } => "TooFewSamples",
        SettingsError::EmissionSum { .. } => "EmissionSumWrong",
    })
}

/// Who registers takes part from the next window on, or from window 0 before the run's first block.
pub(super) fn first_window(moment: Option<Moment>) -> Window {
    moment.map_or(0, |moment| moment.window + 1)
}

/// Whether the lists of a call are within the bounds of the pallet's types.
fn fits(call: &Call) -> bool {
    match call {
        Call::CreateRun { layout, .. } => layout.0.len() <= LAYOUT_TENSORS_MAX as usize,
        Call::Announce { peer_id, addresses, .. } => {
            peer_id.len() <= PEER_ID_BYTES_MAX
                && addresses.len() <= ADDRESSES_MAX
                && addresses.iter().all(|address| address.len() <= ADDRESS_BYTES_MAX)
        }
        Call::RevealUpdate { chunks, .. } => {
            chunks.len() <= CHUNKS_MAX
                && chunks.iter().all(|chunk| {
                    chunk.chunk.len() <= CHUNK_BYTES_MAX as usize
                        && chunk.proof.len() <= MERKLE_PROOF_MAX as usize
                })
        }
        Call::ReportCopy { chunks, .. } => {
            chunks.len() <= COPY_CHUNKS && chunks.iter().flatten().all(can_be_shown)
        }
        Call::ReportMalformed { chunk, .. } | Call::AnswerData { chunk, .. } => can_be_shown(chunk),
        Call::RevealAttestation { opening, .. } => {
            opening.bitmap.len() <= bitmap_of(&[UID_MAX - 1]).len()
        }
        Call::RevealScores { evaluations, .. } => evaluations.len() <= usize::from(EVALUATIONS_MAX),
        _ => true,
    }
}

fn can_be_shown(chunk: &ChunkProof) -> bool {
    chunk.chunk.len() <= SHOWN_BYTES_MAX && chunk.proof.len() <= MERKLE_PROOF_MAX as usize
}

//! Proofs of miners' faults, requests for chunks, and the slashes that follow; mirrors the pallet's `proofs` and `slashing`.

use protocol::{
    books::takes_part,
    commitment::ChunkProof,
    fault::{
        copy_places, judge_answer, judge_copy, judge_malformed, miner_slash, reporter_part,
        Committed, NoFault, Place, ProvenFault, Shown,
    },
    limits::HISTORY_WINDOWS,
    pool::divide_slash,
    window::phase_at,
    AccountBytes, BlockNumber, Planck, RunId, Uid, ValidatorIndex, Window,
};

use super::{
    super::{
        CommitmentName, DataChallengeInfo, GauntletEvent, MinerInfo, Offender, SlashInfo,
        WindowStatus,
    },
    accusations::StakePool,
    refusal::{ensure, Refusal},
    registry::LEAVE_AFTER,
    run::Run,
    state::State,
};

/// The runtime's constants.
const CHALLENGES_PER_MINER_MAX: usize = 4;
const CHALLENGES_PER_ACCOUNT_MAX: usize = 16;
const SLASH_DELAY_WINDOWS: Window = 2;
const DISPUTE_WINDOWS: Window = 12;

/// Who is accused, and what answers for it.
struct Accused {
    hot: AccountBytes,
    cold: AccountBytes,
    bond: Planck,
}

fn shown(chunk: &ChunkProof) -> Shown<'_> {
    Shown { bytes: &chunk.chunk, proof: &chunk.proof }
}

fn no_fault(error: NoFault) -> Refusal {
    Refusal::gauntlet(match error {
        NoFault::Proof => "ProofInvalid",
        NoFault::WellFormed => "ChunkWellFormed",
        NoFault::Malformed => "ChunkMalformed",
        NoFault::TooCommon => "ChunkTooCommon",
        NoFault::Different | NoFault::Same => "NotACopy",
    })
}

impl Run {
    /// The window of a block; 0 before the first.
    pub(super) fn window_at(&self, number: BlockNumber) -> Window {
        phase_at(&self.info.settings.schedule, number).map_or(0, |moment| moment.window)
    }

    /// Whether faults of `window` can be reported in window `now`.
    pub(super) fn ensure_reportable(&self, window: Window, now: Window) -> Result<(), Refusal> {
        ensure(window <= now && now <= window.saturating_add(HISTORY_WINDOWS), "FaultTooOld")
    }

    /// The last block of a window's history, if there is one.
    fn history_end(&self, window: Window) -> Option<BlockNumber> {
        self.info.settings.schedule.window_start(window.saturating_add(HISTORY_WINDOWS))
    }

    fn committed(&self, name: CommitmentName, now: Window) -> Result<Committed, Refusal> {
        let (window, uid, _) = name;
        self.ensure_reportable(window, now)?;
        let reveal = self.windows.get(&window).and_then(|rows| rows.reveals.get(&uid));
        let reveal = reveal.ok_or(Refusal::gauntlet("NotRevealed"))?;
        let payload_root = reveal.opening.payload_root;
        Ok(Committed { window, order: reveal.order, uid, payload_root })
    }

    fn place(&self, index: u32) -> Result<Place, Refusal> {
        let layout = &self.info.layout;
        let len = layout.chunk_len(index).ok_or(Refusal::gauntlet("ChunkUnknown"))?;
        let chunk_count = layout.chunk_count().ok_or(Refusal::gauntlet("Internal"))?;
        Ok(Place { index, chunk_count, len, keep: self.info.settings.training.keep })
    }

    /// Whose money an account that reports works for.
    fn money_of(&self, who: AccountBytes) -> AccountBytes {
        let validator = self.validators.values().find(|found| found.hot == who);
        let miner = || self.miners.values().find(|found| found.hot == who).map(|found| found.cold);
        validator.map(|found| found.cold).or_else(miner).unwrap_or(who)
    }

    fn miner_then(&self, name: CommitmentName) -> Result<Accused, Refusal> {
        let (window, uid, registered_window) = name;
        let unknown = Refusal::gauntlet("MinerUnknown");
        ensure(takes_part(registered_window, window), "MinerUnknown")?;
        let miner = self.miners.get(&uid);
        if let Some(miner) = miner.filter(|found| found.registered_window == registered_window) {
            return Ok(Accused { hot: miner.hot, cold: miner.cold, bond: miner.bond });
        }
        let gone = self.registry.departures.get(&(uid, registered_window));
        gone.filter(|gone| window <= gone.last)
            .map(|gone| Accused { hot: gone.hot, cold: gone.cold, bond: gone.bond })
            .ok_or(unknown)
    }

    fn accused(&self, name: CommitmentName, now: Window) -> Result<Accused, Refusal> {
        let (window, uid, _) = name;
        self.ensure_reportable(window, now)?;
        let rows = self.windows.get(&window);
        let is_known = rows.is_some_and(|rows| rows.proven.contains_key(&uid));
        ensure(!is_known, "FaultKnown")?;
        self.miner_then(name)
    }

    /// Notes a fault and queues its slash.
    fn convict(
        &mut self,
        name: CommitmentName,
        now: Window,
        fault: ProvenFault,
        reporter: AccountBytes,
        events: &mut Vec<GauntletEvent>,
    ) -> Result<(), Refusal> {
        let miner = self.accused(name, now)?;
        let (window, uid, registered_window) = name;
        let mut paid = 0;
        if let Some(rows) = self.windows.get_mut(&window) {
            rows.proven.insert(uid, fault);
            paid = rows.paid.get(&uid).copied().unwrap_or(0);
        }
        events.push(GauntletEvent::FaultProven { run: self.id, window, uid, fault, reporter });
        let amount = miner_slash(&self.info.settings.disputes, miner.bond);
        let offender = Offender::Miner { uid, registered_window };
        self.defer_slash(offender, (window, now), amount, Some(reporter), events);
        if paid > 0 {
            self.defer_slash(offender, (window, now), paid, None, events);
        }
        Ok(())
    }

    /// Whether the acceptance of the window of `block` has said if its validators were silent.
    fn is_judged(&self, block: BlockNumber) -> bool {
        let rows = self.windows.get(&self.window_at(block));
        rows.is_none_or(|rows| rows.info.status != WindowStatus::Open)
    }

    /// Whether a miner had its time to answer until `deadline`: no window of that time is excused.
    fn could_answer(&self, (asked_of, ..): CommitmentName, deadline: BlockNumber) -> bool {
        let asked = deadline.saturating_sub(self.info.settings.disputes.answer_blocks);
        let last = self.window_at(deadline);
        let oldest = last.saturating_sub(HISTORY_WINDOWS);
        let mut windows = self.window_at(asked).max(asked_of).max(oldest)..=last;
        !windows.any(|window| self.is_excused(window))
    }

    /// Queues a slash for a fault of a window.
    pub(super) fn defer_slash(
        &mut self,
        offender: Offender,
        (window, now): (Window, Window),
        amount: Planck,
        reporter: Option<AccountBytes>,
        events: &mut Vec<GauntletEvent>,
    ) {
        let (number, due) = (self.proofs.slash_count, now.saturating_add(SLASH_DELAY_WINDOWS));
        self.proofs.slash_count = number.saturating_add(1);
        let slash = SlashInfo { number, offender, window, amount, reporter, due };
        self.proofs.slashes.insert(number, slash);
        events.push(GauntletEvent::SlashDeferred {
            run: self.id,
            slash: number,
            offender,
            amount,
            window: due,
        });
    }

    /// Takes an open request off the books, if `may` allows it.
    fn take_challenge(
        &mut self,
        (window, uid, _): CommitmentName,
        index: u32,
        may: impl FnOnce(&Self, &DataChallengeInfo) -> Result<(), Refusal>,
    ) -> Result<DataChallengeInfo, Refusal> {
        let unknown = Refusal::gauntlet("ChallengeUnknown");
        let open = self.proofs.challenges.get_mut(&(window, uid)).ok_or(unknown)?;
        let place = open.iter().position(|challenge| challenge.index == index).ok_or(unknown)?;
        let challenge = open.remove(place);
        may(self, &challenge)?;
        self.proofs.challenges.retain(|_, open| !open.is_empty());
        Ok(challenge)
    }

    /// A validator's pool and its number.
    pub(super) fn pool_of(
        &mut self,
        index: ValidatorIndex,
    ) -> Result<(u32, &mut StakePool), Refusal> {
        let found = self.pools.iter_mut().find(|(_, pool)| pool.index == Some(index));
        let (number, pool) = found.ok_or(Refusal::gauntlet("ValidatorUnknown"))?;
        Ok((*number, pool))
    }

    /// Frees a validator's slot; its stake unbonds.
    pub(super) fn remove_validator(
        &mut self,
        index: ValidatorIndex,
        now: Window,
        events: &mut Vec<GauntletEvent>,
    ) {
        let Some(validator) = self.validators.remove(&index) else {
            return;
        };
        self.bonds.remove(&index);
        if let Ok((_, pool)) = self.pool_of(index) {
            let own = std::mem::take(&mut pool.own);
            *pool.unbonding.entry(now).or_default() += own;
            pool.index = None;
        }
        self.announcements.remove(&validator.hot);
        events.push(GauntletEvent::ValidatorLeft { run: self.id, index });
    }

    /// What answers for a fault of `window`.
    pub(super) fn at_stake(&self, number: u32, window: Window) -> Planck {
        let Some(pool) = self.pools.get(&number) else {
            return 0;
        };
        let left: Planck = pool.unbonding.range(window..).map(|(_, amount)| *amount).sum();
        pool.own.saturating_add(left)
    }

    /// Takes the money of a slash; returns how much that was.
    fn take_slash(
        &mut self,
        slash: &SlashInfo,
        now: Window,
        events: &mut Vec<GauntletEvent>,
    ) -> Planck {
        match slash.offender {
            Offender::Miner { uid, registered_window } => {
                let miner = self.miners.get_mut(&uid);
                let miner = miner.filter(|miner| miner.registered_window == registered_window);
                let gone = self.registry.departures.get_mut(&(uid, registered_window));
                let bond = miner.map(|miner| &mut miner.bond);
                let Some(bond) = bond.or(gone.map(|gone| &mut gone.bond)) else {
                    return 0;
                };
                let taken = slash.amount.min(*bond);
                *bond -= taken;
                self.expel_unbonded((uid, registered_window), now, events);
                taken
            }
            Offender::Pool(number) => self.slash_pool(number, slash, now, events),
        }
    }

    /// Makes a miner leave whose bond no longer pays for one more fault. It took part, or there was none.
    fn expel_unbonded(
        &mut self,
        (uid, registered_window): (Uid, Window),
        now: Window,
        events: &mut Vec<GauntletEvent>,
    ) {
        let settings = &self.info.settings;
        let least = miner_slash(&settings.disputes, settings.incentive.miner_bond);
        let miner = self.miners.get_mut(&uid);
        let is_it = |miner: &&mut MinerInfo| {
            miner.registered_window == registered_window
                && miner.bond < least
                && miner.last_window.is_none()
        };
        if let Some(miner) = miner.filter(is_it) {
            miner.last_window = Some(now);
            self.registry.leaving.entry(now + LEAVE_AFTER).or_default().push(uid);
            events.push(GauntletEvent::MinerLeaving { run: self.id, uid, last_window: now });
        }
    }

    fn slash_pool(
        &mut self,
        number: u32,
        slash: &SlashInfo,
        now: Window,
        events: &mut Vec<GauntletEvent>,
    ) -> Planck {
        let Some(pool) = self.pools.get_mut(&number) else {
            return 0;
        };
        let first = slash.window.max(now.saturating_sub(DISPUTE_WINDOWS));
        let mut unbonding: Vec<&mut Planck> =
            pool.unbonding.range_mut(first..=now).map(|(_, amount)| amount).collect();
        // Nobody delegates here: those parts are nothing.
        let left = unbonding.iter().flat_map(|amount| [**amount, 0]);
        let parts: Vec<Planck> = [pool.own, 0].into_iter().chain(left).collect();
        let Some(taken) = divide_slash(slash.amount, &parts) else {
            return 0;
        };
        let mut own_parts = taken.iter().step_by(2);
        pool.own -= own_parts.next().copied().unwrap_or(0);
        for (amount, part) in unbonding.iter_mut().zip(own_parts) {
            **amount -= *part;
        }
        let (index, own) = (pool.index, pool.own);
        if let Some(validator) = index.and_then(|index| self.validators.get_mut(&index)) {
            validator.stake = own;
        }
        if let Some(index) =
            index.filter(|_| own < self.info.settings.incentive.validator_stake_min)
        {
            self.remove_validator(index, now, events);
        }
        // What holds nothing goes; nobody delegates here.
        self.pools.retain(|_, pool| {
            pool.index.is_some() || pool.own > 0 || pool.unbonding.values().any(|left| *left > 0)
        });
        taken.iter().sum()
    }

    /// Applies the slashes that are due; returns whom to reward with how much.
    pub(super) fn slash_due(
        &mut self,
        number: BlockNumber,
        events: &mut Vec<GauntletEvent>,
    ) -> Vec<(AccountBytes, Planck)> {
        let now = self.window_at(number);
        let mut rewards = Vec::new();
        while let Some(entry) = self.proofs.slashes.first_entry() {
            if entry.get().due > now {
                break;
            }
            let slash = entry.remove();
            let amount = self.take_slash(&slash, now, events);
            let SlashInfo { number, offender, reporter, .. } = slash;
            rewards.extend(reporter.map(|reporter| (reporter, reporter_part(amount))));
            let run = self.id;
            events.push(GauntletEvent::Slashed { run, slash: number, offender, amount, reporter });
        }
        rewards
    }
}

impl State {
    /// A run, for accusations: the current window beside it.
    pub(super) fn accusing(&mut self, run: RunId) -> Result<(&mut Run, Window), Refusal> {
        let number = self.number;
        let (run, _) = self.run_at(run)?;
        let now = run.window_at(number);
        Ok((run, now))
    }

    pub(super) fn report_copy(
        &mut self,
        reporter: AccountBytes,
        run_id: RunId,
        names: [CommitmentName; 2],
        chunks: &[[ChunkProof; 2]],
    ) -> Result<(), Refusal> {
        let mut events = Vec::new();
        let (run, now) = self.accusing(run_id)?;
        let reporter = run.money_of(reporter);
        let [first, second] = names.map(|name| run.committed(name, now));
        let (first, second) = (first?, second?);
        // What settings of later call a copy was none.
        let later = run.windows.get(&first.window.max(second.window));
        let info = &later.ok_or(Refusal::gauntlet("NotRevealed"))?.info;
        let seed = info.challenge_seed.ok_or(Refusal::gauntlet("NotRevealed"))?;
        let places = copy_places(&seed, &run.info.layout, info.settings.training.keep);
        let chunks: Vec<_> = chunks.iter().map(|pair| pair.each_ref().map(shown)).collect();
        let overlap_ppm = info.settings.disputes.copy_overlap_ppm;
        let uid = judge_copy((&first, &second), &chunks, &places, overlap_ppm).map_err(no_fault)?;
        let is_first = uid == first.uid && first.window >= second.window;
        let name = if is_first { names[0] } else { names[1] };
        run.convict(name, now, ProvenFault::Copy, reporter, &mut events)?;
        self.events.append(&mut events);
        Ok(())
    }

    pub(super) fn report_malformed(
        &mut self,
        reporter: AccountBytes,
        run_id: RunId,
        name: CommitmentName,
        chunk: &ChunkProof,
    ) -> Result<(), Refusal> {
        let mut events = Vec::new();
        let (run, now) = self.accusing(run_id)?;
        let reporter = run.money_of(reporter);
        let place = run.place(chunk.index)?;
        let root = run.committed(name, now)?.payload_root;
        judge_malformed(&root, shown(chunk), &place).map_err(no_fault)?;
        run.convict(name, now, ProvenFault::Malformed, reporter, &mut events)?;
        self.events.append(&mut events);
        Ok(())
    }

    pub(super) fn challenge_data(
        &mut self,
        challenger: AccountBytes,
        run_id: RunId,
        name: CommitmentName,
        index: u32,
    ) -> Result<(), Refusal> {
        let number = self.number;
        let (run, now) = self.accusing(run_id)?;
        let (window, uid, _) = name;
        run.place(index)?;
        run.committed(name, now)?;
        run.accused(name, now)?;
        let disputes = &run.info.settings.disputes;
        let (bond, deadline) =
            (disputes.challenge_bond, number.saturating_add(disputes.answer_blocks));
        ensure(deadline < run.history_end(window).unwrap_or(deadline), "FaultTooOld")?;
        let all = run.proofs.challenges.values().flatten();
        let count = all.filter(|challenge| challenge.challenger == challenger).count();
        ensure(count < CHALLENGES_PER_ACCOUNT_MAX, "TooManyChallenges")?;
        let open = run.proofs.challenges.entry((window, uid)).or_default();
        let is_open = open.iter().any(|challenge| challenge.index == index);
        ensure(!is_open, "AlreadyChallenged")?;
        ensure(open.len() < CHALLENGES_PER_MINER_MAX, "TooManyChallenges")?;
        open.push(DataChallengeInfo { window, uid, index, challenger, bond, deadline });
        self.hold(challenger, bond)?;
        let run = run_id;
        self.events.push(GauntletEvent::DataChallenged {
            run,
            window,
            uid,
            index,
            challenger,
            deadline,
        });
        Ok(())
    }

    pub(super) fn answer_data(
        &mut self,
        who: AccountBytes,
        run_id: RunId,
        name: CommitmentName,
        chunk: &ChunkProof,
    ) -> Result<(), Refusal> {
        let number = self.number;
        let (run, now) = self.accusing(run_id)?;
        let root = run.committed(name, now)?.payload_root;
        let miner = run.miner_then(name)?;
        ensure(miner.hot == who || miner.cold == who, "NotColdKey")?;
        let place = run.place(chunk.index)?;
        let fault = judge_answer(&root, shown(chunk), &place).map_err(no_fault)?;
        let challenge = run.take_challenge(name, chunk.index, |_, challenge| {
            ensure(number <= challenge.deadline, "TooLate")
        })?;
        let ((window, uid, _), index) = (name, chunk.index);
        let mut events = vec![GauntletEvent::DataAnswered { run: run_id, window, uid, index }];
        let DataChallengeInfo { challenger, bond, .. } = challenge;
        let owner = match fault {
            Some(fault) => {
                run.convict(name, now, fault, challenger, &mut events)?;
                challenger
            }
            None => miner.cold,
        };
        self.events.append(&mut events);
        self.release(owner, bond)
    }

    pub(super) fn time_out(
        &mut self,
        run_id: RunId,
        name: CommitmentName,
        index: u32,
    ) -> Result<(), Refusal> {
        let number = self.number;
        let mut events = Vec::new();
        let unknown = Refusal::gauntlet("ChallengeUnknown");
        let (run, now) = self.accusing(run_id).map_err(|_| unknown)?;
        let challenge = run.take_challenge(name, index, |run, challenge| {
            ensure(number > challenge.deadline && run.is_judged(challenge.deadline), "TooEarly")
        })?;
        let DataChallengeInfo { challenger, bond, deadline, .. } = challenge;
        if run.could_answer(name, deadline) {
            // A second fault costs nothing.
            let _ = run.convict(name, now, ProvenFault::Withheld, challenger, &mut events);
        }
        self.events.append(&mut events);
        self.release(challenger, bond)
    }
}

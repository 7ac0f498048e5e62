//! Handles proofs of miners' faults: copies, malformed chunks, chunks that are withheld. What evidence shows is decided by
//! [`protocol::fault`]; here are the rows it is held against, the bonds and the slashes.
//!
//! A fault can be reported for [`Config::HistoryWindows`], once a window and miner, by anybody.

use alloc::vec::Vec;

use frame_support::{
    ensure,
    traits::{
        fungible::{Inspect, InspectHold, MutateHold},
        tokens::{Fortitude, Precision, Restriction},
        Get,
    },
};
use protocol::{
    books::takes_part,
    fault::{
        copy_places, judge_answer, judge_copy, judge_malformed, miner_slash, Committed, NoFault,
        Place, ProvenFault, Shown,
    },
    layout::Layout,
    window::phase_at,
    BlockNumber, Planck, RunId, Window,
};
use sp_runtime::DispatchResult;

use crate::{
    ChallengeCounts, CommitmentName, Config, CopyProof, DataChallenge, Departures, Error, Event,
    HoldReason, Layouts, MinerUids, Miners, Offender, OpenChallenges, Pallet, ProvenFaults, Reveal,
    Reveals, RunOf, RunSettings, Runs, ShownChunk, ValidatorIndices, Validators, WindowStatus,
    Windows, CHALLENGES_PER_ACCOUNT_MAX,
};

impl<T: Config> From<NoFault> for Error<T> {
    fn from(error: NoFault) -> Self {
        match error {
            NoFault::Proof => Error::ProofInvalid,
            NoFault::WellFormed => Error::ChunkWellFormed,
            NoFault::Malformed => Error::ChunkMalformed,
            NoFault::TooCommon => Error::ChunkTooCommon,
            NoFault::Different => Error::NotACopy,
            NoFault::Same => Error::NotACopy,
        }
    }
}

/// Who is accused, and what answers for it.
struct Accused<AccountId> {
    hot: AccountId,
    cold: AccountId,
    bond: Planck,
}

impl ShownChunk {
    fn as_shown(&self) -> Shown<'_> {
        Shown { bytes: &self.bytes, proof: &self.proof }
    }
}

impl<T: Config> Pallet<T> {
    pub(crate) fn do_report_copy(
        reporter: T::AccountId,
        run_id: RunId,
        names: [CommitmentName; 2],
        chunks: &CopyProof,
    ) -> DispatchResult {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let reporter = Self::money_of(run_id, reporter);
        let [first, second] = names.map(|name| Self::committed(run_id, &run, name));
        let (first, second) = (first?, second?);
        let later = first.window.max(second.window);
        // What settings of later call a copy was none.
        let record = Windows::<T>::get(run_id, later).ok_or(Error::<T>::NotRevealed)?;
        let seed = record.challenge_seed.ok_or(Error::<T>::NotRevealed)?;
        let settings = RunSettings::<T>::get(run_id, record.settings_version)
            .ok_or(Error::<T>::NotRevealed)?;
        let places = copy_places(&seed, &Self::layout(run_id)?, settings.training.keep);
        let shown: Vec<_> =
            chunks.iter().map(|pair| pair.each_ref().map(ShownChunk::as_shown)).collect();
        let overlap_ppm = settings.disputes.copy_overlap_ppm;
        let uid = judge_copy((&first, &second), &shown, &places, overlap_ppm)
            .map_err(Error::<T>::from)?;
        let [first_name, second_name] = names;
        let is_first = uid == first.uid && first.window >= second.window;
        let name = if is_first { first_name } else { second_name };
        Self::convict(run_id, &run, name, ProvenFault::Copy, reporter)
    }

    pub(crate) fn do_report_malformed(
        reporter: T::AccountId,
        run_id: RunId,
        name: CommitmentName,
        index: u32,
        chunk: ShownChunk,
    ) -> DispatchResult {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let reporter = Self::money_of(run_id, reporter);
        let place = Self::place(run_id, &run, index)?;
        let committed = Self::committed(run_id, &run, name)?;
        judge_malformed(&committed.payload_root, chunk.as_shown(), &place)
            .map_err(Error::<T>::from)?;
        Self::convict(run_id, &run, name, ProvenFault::Malformed, reporter)
    }

    pub(crate) fn do_challenge_data(
        challenger: T::AccountId,
        run_id: RunId,
        name: CommitmentName,
        index: u32,
    ) -> DispatchResult {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let CommitmentName { window, uid, .. } = name;
        Self::place(run_id, &run, index)?;
        Self::committed(run_id, &run, name)?;
        Self::accused(run_id, &run, name)?;
        let disputes = Self::current_settings(run_id, &run)?.disputes;
        let deadline = Self::now().saturating_add(disputes.answer_blocks);
        // It is decided while the rows of the window are there.
        let last = window.saturating_add(T::HistoryWindows::get());
        let end = run.schedule.window_start(last).unwrap_or(deadline);
        ensure!(deadline < end, Error::<T>::FaultTooOld);

        let count = ChallengeCounts::<T>::get(run_id, &challenger);
        ensure!(count < CHALLENGES_PER_ACCOUNT_MAX, Error::<T>::TooManyChallenges);
        let bond = disputes.challenge_bond;
        OpenChallenges::<T>::try_mutate((run_id, window, uid), |open| {
            let is_open = open.iter().any(|challenge| challenge.index == index);
            ensure!(!is_open, Error::<T>::AlreadyChallenged);
            let challenger = challenger.clone();
            let challenge = DataChallenge { index, challenger, bond, deadline };
            open.try_push(challenge).map_err(|_| Error::<T>::TooManyChallenges)
        })?;
        T::Currency::hold(&HoldReason::DisputeBond.into(), &challenger, bond)?;
        ChallengeCounts::<T>::insert(run_id, &challenger, count.saturating_add(1));
        Self::deposit_event(Event::DataChallenged {
            run: run_id,
            window,
            uid,
            index,
            challenger,
            deadline,
        });
        Ok(())
    }

    pub(crate) fn do_answer_data(
        who: T::AccountId,
        run_id: RunId,
        name: CommitmentName,
        index: u32,
        chunk: ShownChunk,
    ) -> DispatchResult {
        let run = Runs::<T>::get(run_id).ok_or(Error::<T>::RunUnknown)?;
        let committed = Self::committed(run_id, &run, name)?;
        let miner = Self::miner_then(run_id, name)?;
        ensure!(miner.hot == who || miner.cold == who, Error::<T>::NotColdKey);
        let place = Self::place(run_id, &run, index)?;
        let fault = judge_answer(&committed.payload_root, chunk.as_shown(), &place)
            .map_err(Error::<T>::from)?;
        let challenge = Self::take_challenge(run_id, name, index, |challenge| {
            ensure!(Self::now() <= challenge.deadline, Error::<T>::TooLate);
            Ok(())
        })?;
        let CommitmentName { window, uid, .. } = name;
        Self::deposit_event(Event::DataAnswered { run: run_id, window, uid, index });
        if let Some(fault) = fault {
            // The answer is the proof of another fault.
            Self::release_bond(&challenge.challenger, challenge.bond)?;
            return Self::convict(run_id, &run, name, fault, challenge.challenger);
        }
        Self::transfer_bond(&challenge.challenger, &miner.cold, challenge.bond)
    }

    pub(crate) fn do_time_out(run_id: RunId, name: CommitmentName, index: u32) -> DispatchResult {
        let run = Runs::<T>::get(run_id);
        let challenge = Self::take_challenge(run_id, name, index, |challenge| {
            let deadline = challenge.deadline;
            let is_over = run.as_ref().is_none_or(|run| Self::is_judged(run_id, run, deadline));
            ensure!(Self::now() > deadline && is_over, Error::<T>::TooEarly);
            Ok(())
        })?;
        Self::release_bond(&challenge.challenger, challenge.bond)?;
        // A run that is gone, a chain that stood still, a second fault, or one whose rows are gone because nobody called in
        // time, costs nothing.
        if let Some(run) =
            run.filter(|run| Self::could_answer(run_id, run, name.window, challenge.deadline))
        {
            let _ = Self::convict(run_id, &run, name, ProvenFault::Withheld, challenge.challenger);
        }
        Ok(())
    }

    /// Whether the acceptance of the window of `block` has said if its validators were silent. After a run's last window there
    /// is nothing to wait for.
    fn is_judged(run_id: RunId, run: &RunOf<T>, block: BlockNumber) -> bool {
        let moment = phase_at(&run.schedule, block).filter(|moment| run.has_window(moment.window));
        moment.is_none_or(|moment| {
            let record = Windows::<T>::get(run_id, moment.window);
            let is_open = record.is_some_and(|record| record.status == WindowStatus::Open);
            Self::is_opened(run, moment.window) && !is_open
        })
    }

    /// Whether the chain gave a miner its time to answer for `asked_of`, a window, until `deadline`: no window of that time is
    /// excused, and the phase of now had its blocks so far.
    ///
    /// Nobody is asked before the window, and rows that are older than [`Config::HistoryWindows`] excuse nothing: that bounds the
    /// walk, whatever `answer_blocks` has become since.
    fn could_answer(
        run_id: RunId,
        run: &RunOf<T>,
        asked_of: Window,
        deadline: BlockNumber,
    ) -> bool {
        let Ok(settings) = Self::current_settings(run_id, run) else {
            return false;
        };
        let asked = deadline.saturating_sub(settings.disputes.answer_blocks);
        let window_at = |block| phase_at(&run.schedule, block).map_or(0, |moment| moment.window);
        let last = window_at(deadline);
        let oldest = last.saturating_sub(T::HistoryWindows::get());
        let mut windows = window_at(asked).max(asked_of).max(oldest)..=last;
        !windows.any(|window| Self::is_excused(run_id, window)) && !Self::is_phase_short(run_id)
    }

    /// Takes an open challenge off the books, if `may` allows it.
    fn take_challenge(
        run_id: RunId,
        CommitmentName { window, uid, .. }: CommitmentName,
        index: u32,
        may: impl FnOnce(&DataChallenge<T::AccountId>) -> Result<(), Error<T>>,
    ) -> Result<DataChallenge<T::AccountId>, Error<T>> {
        let key = (run_id, window, uid);
        let mut open = OpenChallenges::<T>::get(key);
        let place = open.iter().position(|challenge| challenge.index == index);
        let challenge = open.remove(place.ok_or(Error::<T>::ChallengeUnknown)?);
        may(&challenge)?;
        if open.is_empty() {
            OpenChallenges::<T>::remove(key);
        } else {
            OpenChallenges::<T>::insert(key, open);
        }
        ChallengeCounts::<T>::mutate_exists(run_id, &challenge.challenger, |count| {
            *count = count.and_then(|count| count.checked_sub(1)).filter(|left| *left > 0);
        });
        Ok(challenge)
    }

    /// Notes a fault and queues its slash. A settlement that is still to come does not pay the miner for the window; what one
    /// before has credited is taken of the bond as well, all of it burned, so that nobody earns by reporting late.
    fn convict(
        run_id: RunId,
        run: &RunOf<T>,
        name: CommitmentName,
        fault: ProvenFault,
        reporter: T::AccountId,
    ) -> DispatchResult {
        let miner = Self::accused(run_id, run, name)?;
        let CommitmentName { window, uid, .. } = name;
        ProvenFaults::<T>::insert((run_id, window, uid), fault);
        Self::deposit_event(Event::FaultProven {
            run: run_id,
            window,
            uid,
            fault,
            reporter: reporter.clone(),
        });
        let disputes = Self::current_settings(run_id, run)?.disputes;
        let amount = miner_slash(&disputes, miner.bond);
        let offender = Offender::Miner { uid, registered_window: name.registered_window };
        Self::defer_slash(run_id, offender, window, amount, Some(reporter));
        let paid = Self::pay_of(run_id, window, uid);
        if paid > 0 {
            Self::defer_slash(run_id, offender, window, paid, None);
        }
        Ok(())
    }

    /// The miner that an accusation concerns, if it can still be accused of this window.
    fn accused(
        run_id: RunId,
        run: &RunOf<T>,
        name: CommitmentName,
    ) -> Result<Accused<T::AccountId>, Error<T>> {
        let CommitmentName { window, uid, .. } = name;
        Self::ensure_reportable(run, window)?;
        let is_known = ProvenFaults::<T>::contains_key((run_id, window, uid));
        ensure!(!is_known, Error::<T>::FaultKnown);
        Self::miner_then(run_id, name)
    }

    /// Whether faults of `window` can be reported now.
    pub(crate) fn ensure_reportable(run: &RunOf<T>, window: Window) -> Result<(), Error<T>> {
        let now = Self::stake_window(Some(run));
        let last = window.saturating_add(T::HistoryWindows::get());
        ensure!(window <= now && now <= last, Error::<T>::FaultTooOld);
        Ok(())
    }

    /// The miner that had a slot in a window: it still has it, or its bond waits.
    fn miner_then(
        run_id: RunId,
        CommitmentName { window, uid, registered_window }: CommitmentName,
    ) -> Result<Accused<T::AccountId>, Error<T>> {
        ensure!(takes_part(registered_window, window), Error::<T>::MinerUnknown);
        let miner = Miners::<T>::get(run_id, uid)
            .filter(|miner| miner.registered_window == registered_window);
        if let Some(miner) = miner {
            return Ok(Accused { hot: miner.hot, cold: miner.cold, bond: miner.bond });
        }
        Departures::<T>::get(run_id, (uid, registered_window))
            .filter(|departure| window <= departure.last)
            .map(|gone| Accused { hot: gone.hot, cold: gone.cold, bond: gone.bond })
            .ok_or(Error::<T>::MinerUnknown)
    }

    /// What a miner committed to and revealed in a window.
    fn committed(
        run_id: RunId,
        run: &RunOf<T>,
        CommitmentName { window, uid, .. }: CommitmentName,
    ) -> Result<Committed, Error<T>> {
        Self::ensure_reportable(run, window)?;
        let Reveal { opening, order, .. } =
            Reveals::<T>::get((run_id, window, uid)).ok_or(Error::<T>::NotRevealed)?;
        Ok(Committed { window, order, uid, payload_root: opening.payload_root })
    }

    /// Whose money an account that reports works for: the cold key of a participant's hot key, anybody else for itself.
    fn money_of(run_id: RunId, who: T::AccountId) -> T::AccountId {
        let validator = ValidatorIndices::<T>::get(run_id, &who)
            .and_then(|index| Validators::<T>::get(run_id, index))
            .map(|validator| validator.cold);
        let miner = || {
            let uid = MinerUids::<T>::get(run_id, &who)?;
            Miners::<T>::get(run_id, uid).map(|miner| miner.cold)
        };
        validator.or_else(miner).unwrap_or(who)
    }

    fn layout(run_id: RunId) -> Result<Layout, Error<T>> {
        Ok(Layout(Layouts::<T>::get(run_id).ok_or(Error::<T>::Internal)?.into_inner()))
    }

    /// Where a chunk lies in every payload of a run.
    fn place(run_id: RunId, run: &RunOf<T>, index: u32) -> Result<Place, Error<T>> {
        let len = Self::layout(run_id)?.chunk_len(index).ok_or(Error::<T>::ChunkUnknown)?;
        let keep = Self::current_settings(run_id, run)?.training.keep;
        Ok(Place { index, chunk_count: run.chunk_count, len, keep })
    }

    pub(crate) fn release_bond(who: &T::AccountId, bond: Planck) -> DispatchResult {
        let reason = HoldReason::DisputeBond.into();
        T::Currency::release(&reason, who, bond, Precision::Exact).map(|_| ())
    }

    /// Pays a bond to `to`; where it cannot open that account it is released.
    fn transfer_bond(from: &T::AccountId, to: &T::AccountId, bond: Planck) -> DispatchResult {
        let reason = HoldReason::DisputeBond.into();
        let is_alive = T::Currency::total_balance(to) >= T::Currency::minimum_balance();
        if !is_alive && bond < T::Currency::minimum_balance() {
            return Self::release_bond(from, bond);
        }
        let bond = bond.min(T::Currency::balance_on_hold(&reason, from));
        T::Currency::transfer_on_hold(
            &reason,
            from,
            to,
            bond,
            Precision::Exact,
            Restriction::Free,
            Fortitude::Polite,
        )
        .map(|_| ())
    }
}

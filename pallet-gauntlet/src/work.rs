//! Shares the weight that is left of a block between the runs that have work: settlement, and the removal of old rows.
//!
//! A run is in [`WorkQueue`] while something waits. Each in turn takes one step; whose step does not fit keeps its
//! place at the front and has the whole of the next block's weight before it.

use alloc::{collections::VecDeque, vec::Vec};

use frame_support::{
    defensive,
    traits::Get,
    weights::{Weight, WeightMeter},
    BoundedVec,
};
use protocol::{settings::PLACKETT_LUCE_UID_MAX, window::phase_at, RunId, Window};
use sp_runtime::Perbill;

use crate::{
    AttestationCommitments, Attestations, CommitCounts, Commitments, Config, PaidMiners,
    PaidWindows, Pallet, PayloadOwners, Permits, ProvenFaults, Reveals, RunOf, RunSettings, Runs,
    ScoreCommitments, ScoreReveals, WeightInfo, Windows, WorkQueue, PAGE_LEN, UIDS_MAX,
    VALIDATORS_MAX,
};

/// The part of a block that the work may take before transactions.
const POLL_SHARE: Perbill = Perbill::from_percent(50);

/// Rows that one step of pruning removes, at most.
pub(crate) const PRUNE_ROWS: u32 = 2_048;

/// What became of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// It was taken, and there may be another one.
    Taken,
    /// The rest of the block is too small for it.
    NoRoom,
    /// There is none.
    Nothing,
}

/// Which step it was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One of pruning, of which a run has one in a turn: a later one of the same block would walk over what this one
    /// removed.
    Prune,
    /// Any other.
    Other,
}

impl<T: Config> Pallet<T> {
    /// Does the work that waits, in half of the block at most.
    pub(crate) fn do_poll(meter: &mut WeightMeter) {
        let limit = meter.remaining().min(Self::poll_limit());
        let mut own = WeightMeter::with_limit(limit);
        Self::work(&mut own);
        meter.consume(own.consumed());
    }

    /// Does the work that waits, in the part of the block that transactions left.
    pub(crate) fn do_idle(remaining: Weight) -> Weight {
        let mut meter = WeightMeter::with_limit(remaining);
        Self::work(&mut meter);
        meter.consumed()
    }

    /// The weight that a step can hope for.
    pub(crate) fn poll_limit() -> Weight {
        let max = T::BlockWeights::get().max_block;
        Weight::from_parts(
            POLL_SHARE.mul_floor(max.ref_time()),
            POLL_SHARE.mul_floor(max.proof_size()),
        )
    }

    /// Notes that something waits for a run. Returns the weight of it.
    pub(crate) fn enqueue(run_id: RunId) -> Weight {
        WorkQueue::<T>::mutate(|queue| {
            if !queue.contains(&run_id) && queue.try_push(run_id).is_err() {
                defensive!("more runs than RunsMax have work");
            }
        });
        T::WeightInfo::enqueue()
    }

    fn work(meter: &mut WeightMeter) {
        if meter.try_consume(T::WeightInfo::look_at_queue(T::RunsMax::get())).is_err() {
            return;
        }
        let queue = WorkQueue::<T>::get();
        if queue.is_empty() {
            return;
        }
        let mut waiting: VecDeque<RunId> = queue.iter().copied().collect();
        let (mut stuck, mut pruned) = (Vec::new(), Vec::new());
        while let Some(run_id) = waiting.pop_front() {
            match Self::step(run_id, meter) {
                (Step::Taken, Kind::Prune) => pruned.push(run_id),
                (Step::Taken, Kind::Other) => waiting.push_back(run_id),
                (Step::NoRoom, _) => stuck.push(run_id),
                (Step::Nothing, _) => {}
            }
        }
        stuck.append(&mut pruned);
        WorkQueue::<T>::put(BoundedVec::truncate_from(stuck));
    }

    /// Takes a run's next step: who leaves or changes keys, then pay, then slashes, and what is old at last.
    fn step(run_id: RunId, meter: &mut WeightMeter) -> (Step, Kind) {
        let steps = [Self::change_step, Self::settle_step, Self::slash_step];
        for step in steps {
            match step(run_id, meter) {
                Step::Nothing => {}
                done => return (done, Kind::Other),
            }
        }
        (Self::prune_step(run_id, meter), Kind::Prune)
    }

    /// Removes some rows of the oldest window that is old enough.
    fn prune_step(run_id: RunId, meter: &mut WeightMeter) -> Step {
        if meter.try_consume(T::WeightInfo::look_at_run()).is_err() {
            return Step::NoRoom;
        }
        let Some(run) = Runs::<T>::get(run_id) else {
            return Step::Nothing;
        };
        let window = run.next_pruning;
        if !Self::is_old(&run, window) {
            return Step::Nothing;
        }
        let base = T::WeightInfo::prune(0);
        let row = T::WeightInfo::prune(1).saturating_sub(base);
        let room = meter.remaining().saturating_sub(base).checked_div_per_component(&row);
        let rows = room.map_or(PRUNE_ROWS, |rows| rows.min(PRUNE_ROWS.into()) as u32);
        if rows == 0 {
            return Step::NoRoom;
        }
        let removed = Self::prune(run_id, run, window, rows);
        meter.consume(T::WeightInfo::prune(removed));
        Step::Taken
    }

    /// Whether a window's rows can go: it is settled, and nobody needs it any more.
    fn is_old(run: &RunOf<T>, window: Window) -> bool {
        let current = phase_at(&run.schedule, Self::now()).map_or(0, |moment| moment.window);
        window.saturating_add(T::HistoryWindows::get()) < current && window < run.next_settlement
    }

    /// Removes up to `rows` rows of a window, and with the last ones its record. Returns how many it removed.
    pub(crate) fn prune(run_id: RunId, mut run: RunOf<T>, window: Window, rows: u32) -> u32 {
        let prefix = (run_id, window);
        let mut left = rows;
        // First, so that no view tells of a part of the pay.
        PaidWindows::<T>::remove(run_id, window);
        drain(PaidMiners::<T>::iter_key_prefix(prefix).drain(), &mut left);
        drain(Commitments::<T>::iter_key_prefix(prefix).drain(), &mut left);
        drain(Reveals::<T>::iter_key_prefix(prefix).drain(), &mut left);
        drain(PayloadOwners::<T>::iter_key_prefix(prefix).drain(), &mut left);
        drain(AttestationCommitments::<T>::iter_key_prefix(prefix).drain(), &mut left);
        drain(Attestations::<T>::iter_key_prefix(prefix).drain(), &mut left);
        drain(ScoreCommitments::<T>::iter_key_prefix(prefix).drain(), &mut left);
        drain(ScoreReveals::<T>::iter_key_prefix(prefix).drain(), &mut left);
        drain(ProvenFaults::<T>::iter_key_prefix(prefix).drain(), &mut left);
        if left > 0 {
            CommitCounts::<T>::remove(run_id, window);
            Permits::<T>::remove(run_id, window);
            Self::forget_bench(run_id, window);
            Self::forget_window(run_id, &run, window);
            run.next_pruning = window.saturating_add(1);
            Runs::<T>::insert(run_id, run);
        }
        rows.saturating_sub(left)
    }

    /// Removes a window's record, and the settings that no later window names.
    fn forget_window(run_id: RunId, run: &RunOf<T>, window: Window) {
        let Some(record) = Windows::<T>::take(run_id, window) else {
            return;
        };
        let next = Windows::<T>::get(run_id, window.saturating_add(1));
        let kept = next.map_or(run.settings_version, |record| record.settings_version);
        for version in record.settings_version..kept {
            RunSettings::<T>::remove(run_id, version);
        }
    }

    /// Checks that every step fits into the weight that it can hope for; called by `integrity_test`, which may panic.
    pub(crate) fn check_steps() {
        let limit = Self::poll_limit();
        let looked = T::WeightInfo::look_at_queue(T::RunsMax::get())
            .saturating_add(T::WeightInfo::look_at_run().saturating_mul(4));
        let fits = |weight: Weight| weight.saturating_add(looked).all_lte(limit);
        let largest = T::WeightInfo::settle_begin(UIDS_MAX, VALIDATORS_MAX);
        assert!(fits(largest), "half of a block must hold the settlement of the largest run");
        let yuma = T::WeightInfo::settle_yuma(UIDS_MAX, VALIDATORS_MAX);
        assert!(
            fits(largest.saturating_add(yuma)),
            "half of a block must hold the largest settlement by Yuma consensus",
        );
        let players = u32::from(PLACKETT_LUCE_UID_MAX);
        assert!(
            fits(
                T::WeightInfo::settle_begin(players, VALIDATORS_MAX)
                    .saturating_add(T::WeightInfo::settle_match(players))
            ),
            "half of a block must hold the largest match",
        );
        assert!(fits(T::WeightInfo::settle_page(PAGE_LEN)), "half of a block must hold one page");
        assert!(fits(T::WeightInfo::prune(1)), "half of a block must remove a row");
    }
}

/// Drains at most `left` of the rows, and counts `left` down.
fn drain(rows: impl Iterator, left: &mut u32) {
    let removed = rows.take(*left as usize).count() as u32;
    *left = left.saturating_sub(removed);
}

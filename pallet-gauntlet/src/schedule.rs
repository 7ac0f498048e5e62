//! Crosses the boundaries of the runs' windows when their blocks have come, in a bounded part of the block.

use frame_support::{
    defensive,
    migrations::MultiStepMigrator,
    traits::Get,
    weights::{Weight, WeightMeter},
};
use protocol::{
    boundary::{Boundary, Crossing},
    BlockNumber, Hash, RunId, Window,
};
use sp_runtime::{traits::BlockNumberProvider, Perbill};

use crate::{
    CommitCounts, Config, Due, Mark, Pallet, RunOf, RunSchedule, Runs, WeightInfo, WindowStatus,
    Windows, VALIDATORS_MAX,
};

/// The part of a block that the boundaries may take; those that do not fit wait for the next block.
const BOUNDARY_SHARE: Perbill = Perbill::from_percent(25);

impl<T: Config> Pallet<T> {
    /// Crosses the boundaries that are due: the cheap ones first, so that no run's acceptance makes another run late.
    ///
    /// Reads one value when none is due.
    pub(crate) fn do_boundaries() -> Weight {
        let now = Self::mark();
        let looked = T::WeightInfo::look_at_schedule(T::RunsMax::get());
        let mut agenda = RunSchedule::<T>::get();
        if next_due(&agenda, now.clock).is_none() {
            return looked;
        }
        let mut meter = WeightMeter::with_limit(Self::boundary_limit());
        meter.consume(looked);
        let randomness = Self::randomness();
        let mut is_first = true;
        while let Some(place) = next_due(&agenda, now.clock) {
            let due = agenda.remove(place);
            // The first one always fits, see `check_boundaries`.
            if !is_first && !meter.can_consume(Self::crossing_cost(&due)) {
                Self::keep(&mut agenda, due);
                break;
            }
            is_first = false;
            let (weight, next) = Self::cross(&due, now, &randomness);
            meter.consume(weight);
            if let Some(next) = next {
                Self::keep(&mut agenda, Due { run: due.run, next, since: now });
            }
        }
        RunSchedule::<T>::put(agenda);
        meter.consumed()
    }

    /// Puts a run's next boundary into the schedule.
    pub(crate) fn schedule_run(run: RunId, next: Crossing) {
        let since = Self::mark();
        RunSchedule::<T>::mutate(|agenda| Self::keep(agenda, Due { run, next, since }));
    }

    /// Takes a run out of the schedule.
    pub(crate) fn unschedule(run: RunId) {
        RunSchedule::<T>::mutate(|agenda| agenda.retain(|due| due.run != run));
    }

    fn keep(agenda: &mut crate::Agenda<T>, due: Due) {
        if agenda.try_push(due).is_err() {
            defensive!("more runs than RunsMax are scheduled");
        }
    }

    /// What crossing a boundary costs at most.
    fn crossing_cost(due: &Due) -> Weight {
        match due.next.boundary {
            Boundary::Open => T::WeightInfo::open_window(),
            Boundary::Reveal => T::WeightInfo::draw_challenge(),
            Boundary::Accept => {
                let commits = CommitCounts::<T>::get(due.run, due.next.window);
                T::WeightInfo::accept(commits, VALIDATORS_MAX)
            }
            Boundary::ScoreReveal
            | Boundary::Attest
            | Boundary::AttestReveal
            | Boundary::Settle => T::WeightInfo::enqueue(),
        }
    }

    /// Does the work of one boundary. Returns its weight and the run's next boundary.
    fn cross(due: &Due, now: Mark, randomness: &Hash) -> (Weight, Option<Crossing>) {
        let (run_id, window) = (due.run, due.next.window);
        let Some(run) = Runs::<T>::get(run_id) else {
            defensive!("a boundary of no run");
            return (T::WeightInfo::enqueue(), None);
        };
        if !run.has_window(window) {
            return Self::cross_after_end(due, &run);
        }
        let next = run.schedule.crossing_after(window, due.next.boundary);
        let is_disturbed = Self::is_disturbed(due, now);
        // The scores of the window before are due in this one. The phase before this one opens is of the window
        // before, in which answers are due to the last block.
        let is_before_disturbed = is_disturbed || Self::is_short(due, now);
        let before = window
            .checked_sub(1)
            .filter(|before| is_before_disturbed && *before >= run.next_settlement);
        // Before this one opens: the seed of a disturbed window's next one is drawn anew.
        if let Some(before) = before {
            Self::excuse(run_id, before);
        }
        let weight = match due.next.boundary {
            Boundary::Open => Self::open_window(run_id, run, window, randomness),
            Boundary::Reveal => Self::draw_challenge(run_id, &run, window, randomness),
            Boundary::Accept => Self::accept(run_id, window),
            Boundary::Settle => Self::enqueue(run_id),
            Boundary::ScoreReveal | Boundary::Attest | Boundary::AttestReveal => {
                T::WeightInfo::enqueue()
            }
        };
        if is_disturbed {
            Self::excuse(run_id, window);
        }
        (weight, next)
    }

    /// Crosses a boundary behind the run's last window: its settlement is left, and what waits for a window to come, as
    /// slashes and departures do, until the run is removed.
    fn cross_after_end(due: &Due, run: &RunOf<T>) -> (Weight, Option<Crossing>) {
        Self::enqueue(due.run);
        let window = due.next.window;
        if due.next.boundary == Boundary::Open {
            Self::end_budget(due.run, window, false);
            return (T::WeightInfo::open_window(), run.schedule.crossing(window, Boundary::Settle));
        }
        let next = window.checked_add(1);
        let opening = next.and_then(|next| run.schedule.crossing(next, Boundary::Open));
        (T::WeightInfo::enqueue(), opening)
    }

    /// Whether the chain gave participants less than the phase before the boundary should have: it made less than half
    /// of the blocks, it crosses the boundary late, or it migrates and takes no transactions.
    fn is_disturbed(due: &Due, now: Mark) -> bool {
        let late = now.clock.saturating_sub(due.next.block);
        // Nobody acts for a window in the phase before it opens; an acceptance may be put off.
        let is_short = due.next.boundary != Boundary::Open && Self::is_short(due, now);
        let is_late = due.next.boundary != Boundary::Accept && late > T::ClockPerBlock::get();
        is_short || is_late || T::MultiBlockMigrator::ongoing()
    }

    /// Whether the chain made less than half of the blocks that it should have since the boundary before `due`.
    fn is_short(due: &Due, now: Mark) -> bool {
        let blocks = now.block.saturating_sub(due.since.block);
        let clock = now.clock.saturating_sub(due.since.clock);
        clock > blocks.saturating_mul(T::ClockPerBlock::get()).saturating_mul(2)
    }

    /// Whether the phase that a run is in has had less than half of its blocks so far.
    pub(crate) fn is_phase_short(run: RunId) -> bool {
        let now = Self::mark();
        RunSchedule::<T>::get().iter().any(|due| due.run == run && Self::is_short(due, now))
    }

    /// Whether nobody is to blame in a window that is kept.
    pub(crate) fn is_excused(run_id: RunId, window: Window) -> bool {
        Windows::<T>::get(run_id, window).is_some_and(|record| record.excused)
    }

    /// Frees everybody of blame in a window that is not settled yet.
    pub(crate) fn excuse(run_id: RunId, window: Window) {
        Windows::<T>::mutate(run_id, window, |record| {
            let open = record.as_mut().filter(|record| {
                matches!(record.status, WindowStatus::Open | WindowStatus::Accepted)
            });
            if let Some(record) = open {
                record.excused = true;
            }
        });
    }

    /// This block by both clocks.
    pub(crate) fn mark() -> Mark {
        let block = frame_system::Pallet::<T>::block_number();
        Mark { clock: Self::now(), block: block.try_into().unwrap_or(BlockNumber::MAX) }
    }

    /// The number of the current block by the clock that windows are counted by. A clock beyond the
    /// last number stands still there, where no window begins any more.
    pub(crate) fn now() -> BlockNumber {
        T::BlockNumberProvider::current_block_number().try_into().unwrap_or(BlockNumber::MAX)
    }

    /// Whether a run's window has been opened.
    pub(crate) fn is_opened(run: &RunOf<T>, window: Window) -> bool {
        run.window.is_some_and(|opened| window <= opened)
    }

    pub(crate) fn boundary_limit() -> Weight {
        let max = T::BlockWeights::get().max_block;
        Weight::from_parts(
            BOUNDARY_SHARE.mul_floor(max.ref_time()),
            BOUNDARY_SHARE.mul_floor(max.proof_size()),
        )
    }

    /// Checks that all runs' cheap boundaries at once, and one acceptance, stay within their part of a block; called by
    /// `integrity_test`, which may panic.
    pub(crate) fn check_boundaries() {
        let runs = u64::from(T::RunsMax::get());
        let cheapest = T::WeightInfo::open_window().max(T::WeightInfo::draw_challenge());
        let looked = T::WeightInfo::look_at_schedule(T::RunsMax::get());
        assert!(
            cheapest.saturating_mul(runs).saturating_add(looked).all_lte(Self::boundary_limit()),
            "a quarter of a block must hold the openings of all runs",
        );
        assert!(
            T::WeightInfo::accept(crate::UIDS_MAX, VALIDATORS_MAX)
                .saturating_add(looked)
                .all_lte(Self::boundary_limit()),
            "a quarter of a block must hold the acceptance of the largest run",
        );
    }
}

/// The place of the boundary to cross next, of those whose block has come.
fn next_due(agenda: &[Due], now: BlockNumber) -> Option<usize> {
    let due = agenda.iter().enumerate().filter(|(_, due)| due.next.block <= now);
    let order = |due: &Due| (due.next.boundary == Boundary::Accept, due.next.block, due.run);
    due.min_by_key(|(_, due)| order(due)).map(|(place, _)| place)
}

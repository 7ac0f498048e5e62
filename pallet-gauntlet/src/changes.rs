//! Keeps what waits for a window to begin: departures and rotations of hot keys. Written in bounded lists, one a window or
//! more, and done page by page in `on_poll` and `on_idle`, so that no number of them can make a block too heavy.

use frame_support::weights::WeightMeter;
use protocol::{window::phase_at, RunId, Window};

use crate::{
    work::Step, Change, Changes, Config, Error, Pallet, Runs, WeightInfo, CHANGES_PAGE,
    CHANGE_LISTS_MAX,
};

impl<T: Config> Pallet<T> {
    /// Notes a change for the window `earliest`, or for the next one whose list has room; returns that window. One that is
    /// noted already, of who had the seat before, serves.
    pub(crate) fn schedule_change(
        run_id: RunId,
        earliest: Window,
        change: Change,
    ) -> Result<Window, Error<T>> {
        for step in 0..CHANGE_LISTS_MAX {
            let window = earliest.saturating_add(u64::from(step));
            let is_noted = Changes::<T>::mutate(run_id, window, |list| {
                list.contains(&change) || list.try_push(change).is_ok()
            });
            if is_noted {
                return Ok(window);
            }
        }
        // There are fewer changes than room for them: one of each kind a seat.
        frame_support::defensive!("more changes wait than there are seats");
        Err(Error::<T>::Internal)
    }

    /// Makes up to [`CHANGES_PAGE`] changes whose window has begun.
    pub(crate) fn change_step(run_id: RunId, meter: &mut WeightMeter) -> Step {
        if meter.try_consume(T::WeightInfo::look_at_run()).is_err() {
            return Step::NoRoom;
        }
        let Some(moment) =
            Runs::<T>::get(run_id).and_then(|run| phase_at(&run.schedule, Self::now()))
        else {
            return Step::Nothing;
        };
        let Some(due) =
            Changes::<T>::iter_key_prefix(run_id).find(|window| *window <= moment.window)
        else {
            return Step::Nothing;
        };
        if meter.try_consume(T::WeightInfo::make_changes(CHANGES_PAGE)).is_err() {
            return Step::NoRoom;
        }
        Self::make_changes(run_id, due, moment.window);
        Step::Taken
    }

    /// Makes the first changes of a list in the window `now`.
    pub(crate) fn make_changes(run_id: RunId, due: Window, now: Window) {
        let mut list = Changes::<T>::take(run_id, due);
        let count = list.len().min(CHANGES_PAGE as usize);
        for change in list.drain(..count) {
            match change {
                Change::RotateHotKey(seat) => Self::finish_rotation(run_id, seat, now),
                Change::Leave(uid) if Self::finish_leaving(run_id, uid, now) => {}
                // The chain was too busy to settle its last window; it is not paid for a window that is not.
                Change::Leave(_) => {
                    let _ = Self::schedule_change(run_id, now.saturating_add(1), change);
                }
            }
        }
        if !list.is_empty() {
            Changes::<T>::insert(run_id, due, list);
        }
    }
}

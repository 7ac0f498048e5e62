//! Answers the view functions: composes storage that clients would otherwise read row by row.

use alloc::vec::Vec;

use protocol::{window::phase_at, Hash, RunId, Uid, Window};

use crate::{
    Announcements, Config, Metagraph, Miners, Pallet, Runs, Validators, WindowStatus, Windows,
};

impl<T: Config> Pallet<T> {
    /// All participants of a run, each list by slot. `None` for an unknown run.
    pub(crate) fn view_metagraph(run_id: RunId) -> Option<Metagraph<T::AccountId>> {
        let run = Runs::<T>::get(run_id)?;
        let mut miners: Vec<_> = Miners::<T>::iter_prefix(run_id).collect();
        miners.sort_by_key(|(uid, _)| *uid);
        let mut validators: Vec<_> = Validators::<T>::iter_prefix(run_id).collect();
        validators.sort_by_key(|(index, _)| *index);
        Some(Metagraph {
            window: phase_at(&run.schedule, Self::now()).map(|moment| moment.window),
            miners,
            validators,
            announcements: Announcements::<T>::iter_prefix(run_id).collect(),
        })
    }

    /// The current window and its seed. `None` before the run's first block.
    pub(crate) fn view_assignment_seed(run_id: RunId) -> Option<(Window, Hash)> {
        let run = Runs::<T>::get(run_id)?;
        let window = phase_at(&run.schedule, Self::now())?.window;
        Windows::<T>::get(run_id, window).map(|record| (window, record.seed))
    }

    /// The accepted set, once it is fixed.
    pub(crate) fn view_accepted_set(run_id: RunId, window: Window) -> Option<Vec<Uid>> {
        Windows::<T>::get(run_id, window)
            .filter(|record| record.status != WindowStatus::Open)
            .map(|record| record.accepted.into_inner())
    }
}

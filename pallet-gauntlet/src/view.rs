//! Answers the view functions: what clients and pages would otherwise compute from storage, row by row. Every answer is
//! bounded; what could be longer comes in pages.

use alloc::vec::Vec;

use protocol::{
    assignment::own_samples,
    entry::Seat,
    window::{phase_at, Boundaries},
    Hash, Planck, RunId, Uid, ValidatorIndex, Window,
};

use crate::{
    Announcements, Assignment, Claimable, Claims, Config, Disputes, EvaluationDisputes, Metagraph,
    Miner, MinerOf, Miners, OpenChallenges, PaidMiners, PaidWindow, PaidWindows, Pallet, PhaseInfo,
    ProvenFaults, Runs, SeatPay, StandingInfo, ValidatorOf, Validators, WindowPay, WindowStatus,
    Windows, VALIDATORS_MAX,
};

/// Slots of miners in a page of [`Pallet::metagraph`], samples in one of [`Pallet::assignment`], and windows in an
/// answer of [`Pallet::pay_history`].
pub const VIEW_PAGE: u32 = 256;

impl<T: Config> Pallet<T> {
    /// Where a run is and when its next phase begins. `None` for an unknown run.
    pub(crate) fn view_phase(run_id: RunId) -> Option<PhaseInfo> {
        let schedule = Runs::<T>::get(run_id)?.schedule;
        let block = Self::now();
        Some(PhaseInfo {
            block,
            moment: phase_at(&schedule, block),
            next_boundary: schedule.next_boundary(block),
        })
    }

    /// The boundaries of a window. `None` for an unknown run and past the last block number.
    pub(crate) fn view_schedule(run_id: RunId, window: Window) -> Option<Boundaries> {
        Runs::<T>::get(run_id)?.schedule.boundaries(window)
    }

    /// A page of a miner's samples. `None` for an unknown miner and before the run's first block.
    pub(crate) fn view_assignment(run_id: RunId, uid: Uid, page: u32) -> Option<Assignment> {
        Miners::<T>::get(run_id, uid)?;
        let (window, seed) = Self::view_assignment_seed(run_id)?;
        let settings = Self::settings_in_force(run_id)?;
        let per_uid = settings.samples_per_miner();
        let drawn = own_samples(&seed, settings.training.sample_count)?;
        let first = u64::from(page).checked_mul(VIEW_PAGE.into())?;
        let end = first.checked_add(VIEW_PAGE.into())?.min(per_uid);
        let offset = u64::from(uid).checked_mul(per_uid)?;
        let samples = (first..end).map(|position| drawn.apply(offset.checked_add(position)?));
        Some(Assignment {
            window,
            seed,
            sample_count: per_uid,
            samples: samples.collect::<Option<_>>()?,
        })
    }

    /// A miner's score. `None` for an unknown miner.
    pub(crate) fn view_standing(run_id: RunId, uid: Uid) -> Option<StandingInfo> {
        let Miner { standing, value, share, .. } = Miners::<T>::get(run_id, uid)?;
        Some(StandingInfo { standing, value, share })
    }

    /// What a run owes an account. `None` for an unknown run.
    pub(crate) fn view_claimable(run_id: RunId, account: &T::AccountId) -> Option<Claimable> {
        let settings = Self::settings_in_force(run_id)?;
        let window = phase_at(&settings.schedule, Self::now()).map_or(0, |moment| moment.window);
        let mut claimable = Claimable { now: 0, later: 0 };
        for claim in Claims::<T>::get(run_id, account) {
            let part = if claim.due <= window { &mut claimable.now } else { &mut claimable.later };
            *part = part.saturating_add(claim.amount);
        }
        Some(claimable)
    }

    /// What a window credited. `None` when it is gone, void or not settled yet.
    pub(crate) fn view_pay(run_id: RunId, window: Window) -> Option<WindowPay> {
        let PaidWindow { paid, validators } = PaidWindows::<T>::get(run_id, window)?;
        let mut miners: Vec<_> = Self::paid_miners(run_id, window).collect();
        miners.sort_unstable();
        Some(WindowPay { paid, miners, validators: validators.into_inner() })
    }

    /// What a seat's holders were credited, window by window. `None` for an unknown run.
    pub(crate) fn view_pay_history(
        run_id: RunId,
        seat: Seat,
        first: Window,
        last: Window,
    ) -> Option<Vec<SeatPay>> {
        let run = Runs::<T>::get(run_id)?;
        let kept = first.max(run.next_pruning)..run.next_settlement;
        let windows = kept.take_while(|window| *window <= last);
        let pays = windows.filter_map(|window| {
            let record = PaidWindows::<T>::get(run_id, window)?;
            Some(SeatPay { window, amount: Self::paid_to(run_id, window, seat, &record) })
        });
        Some(pays.take(VIEW_PAGE as usize).collect())
    }

    /// What the holder of a seat was credited for a window, in planck.
    fn paid_to(run_id: RunId, window: Window, seat: Seat, record: &PaidWindow) -> Planck {
        let found = match seat {
            Seat::Miner(uid) => Self::paid_miners(run_id, window).find(|(paid, _)| *paid == uid),
            Seat::Validator(index) => {
                record.validators.iter().copied().find(|(paid, _)| *paid == index)
            }
        };
        found.map_or(0, |(_, amount)| amount)
    }

    /// The miners' pay of a window, in no order.
    pub(crate) fn paid_miners(
        run_id: RunId,
        window: Window,
    ) -> impl Iterator<Item = (Uid, Planck)> {
        PaidMiners::<T>::iter_prefix((run_id, window)).flat_map(|(_, page)| page)
    }

    /// What is disputed and proven of a window.
    pub(crate) fn view_disputes(run_id: RunId, window: Window) -> Disputes<T::AccountId> {
        let page = VIEW_PAGE as usize;
        let of_window = (run_id, window);
        Disputes {
            challenges: OpenChallenges::<T>::iter_prefix(of_window).take(page).collect(),
            evaluations: EvaluationDisputes::<T>::iter_prefix(of_window).take(page).collect(),
            faults: ProvenFaults::<T>::iter_prefix(of_window).take(page).collect(),
        }
    }

    /// A page of the participants of a run, each list by slot. `None` for an unknown run.
    pub(crate) fn view_metagraph(run_id: RunId, page: u32) -> Option<Metagraph<T::AccountId>> {
        let settings = Self::settings_in_force(run_id)?;
        let slots = u32::from(settings.incentive.uid_max);
        let miners = Self::miners_of_page(run_id, page);
        let validators = if page == 0 { Self::all_validators(run_id) } else { Vec::new() };
        let hots = miners.iter().map(|(_, miner)| &miner.hot);
        let hots = hots.chain(validators.iter().map(|(_, validator)| &validator.hot));
        let announced =
            |hot: &T::AccountId| Some((hot.clone(), Announcements::<T>::get(run_id, hot)?));
        Some(Metagraph {
            window: phase_at(&settings.schedule, Self::now()).map(|moment| moment.window),
            pages: slots.div_ceil(VIEW_PAGE),
            announcements: hots.filter_map(announced).collect(),
            miners,
            validators,
        })
    }

    fn miners_of_page(run_id: RunId, page: u32) -> Vec<(Uid, MinerOf<T>)> {
        let first = page.saturating_mul(VIEW_PAGE);
        let uids =
            (first..first.saturating_add(VIEW_PAGE)).map_while(|uid| Uid::try_from(uid).ok());
        uids.filter_map(|uid| Some((uid, Miners::<T>::get(run_id, uid)?))).collect()
    }

    fn all_validators(run_id: RunId) -> Vec<(ValidatorIndex, ValidatorOf<T>)> {
        let indices = (0..VALIDATORS_MAX).map_while(|index| ValidatorIndex::try_from(index).ok());
        indices.filter_map(|index| Some((index, Validators::<T>::get(run_id, index)?))).collect()
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

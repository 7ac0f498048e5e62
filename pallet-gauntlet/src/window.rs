//! Does the work of a window's boundaries: opens it, draws the challenge, fixes the accepted set.

use alloc::{collections::BTreeMap, vec::Vec};

use frame_support::{
    defensive,
    traits::{Get, Randomness},
    weights::Weight,
    BoundedVec,
};
use protocol::{
    accept::bitmap_of,
    books::{self, permits, takes_part, Acceptance, Attested, Permit, Revealed, Staked, Voter},
    fault::Judge,
    seed::{challenge_seed, window_seed},
    Hash, RunId, ValidatorIndex, Window,
};

use crate::{
    lifecycle::is_paused, AcceptedSet, Attestation, Attestations, Bench, Benches, Bitmap, Config,
    Event, Miners, Pallet, PermitList, Permits, Reveals, RunOf, RunStatus, Runs, ValidatorOf,
    Validators, WeightInfo, WindowRecord, WindowStatus, Windows,
};

impl<T: Config> Pallet<T> {
    /// The chain's randomness as of the block before.
    pub(crate) fn randomness() -> Hash {
        T::Randomness::random(&T::PalletId::get().0).0.into()
    }

    /// Applies settings that are due and fixes the window's seed: the one that the window before drew for it, if it
    /// drew one and was not disturbed, else what is drawn now.
    pub(crate) fn open_window(
        run_id: RunId,
        mut run: RunOf<T>,
        window: Window,
        randomness: &Hash,
    ) -> Weight {
        Self::apply_settings(run_id, &mut run, window);
        Self::begin_pause(run_id, &mut run, window);
        if run.status == RunStatus::Waiting {
            run.status = RunStatus::Open;
        }
        run.window = Some(window);
        Self::end_budget(run_id, window, !is_paused(&run));
        let drawn = window_seed(randomness, run_id, window, &run.salt_mix);
        let seed = Self::early_seed(run_id, window).unwrap_or(drawn);
        let record = WindowRecord {
            seed,
            scoring_seed: drawn,
            challenge_seed: None,
            next_seed: None,
            state_root: None,
            accepted: BoundedVec::new(),
            unavailable: BoundedVec::new(),
            status: WindowStatus::Open,
            budget: 0,
            minted: 0,
            funded: 0,
            settings_version: run.settings_version,
            excused: is_paused(&run),
        };
        Windows::<T>::insert(run_id, window, record);
        Self::snapshot_permits(run_id, window, &run);
        Runs::<T>::insert(run_id, run);
        // The oldest window may have become old enough to be removed.
        Self::enqueue(run_id);
        Self::deposit_event(Event::WindowOpened { run: run_id, window, seed });
        T::WeightInfo::open_window()
    }

    /// The seed of a window that was fixed in the one before.
    fn early_seed(run_id: RunId, window: Window) -> Option<Hash> {
        let before = Windows::<T>::get(run_id, window.checked_sub(1)?)?;
        before.next_seed.filter(|_| !before.excused)
    }

    /// Draws up the window's permits, and who judges its evaluations, from the stakes of this block.
    fn snapshot_permits(run_id: RunId, window: Window, run: &RunOf<T>) {
        let settings = Self::current_settings(run_id, run);
        let permits_max = settings.map_or(0, |settings| settings.incentive.permits_max);
        let validators: BTreeMap<ValidatorIndex, ValidatorOf<T>> =
            Validators::<T>::iter_prefix(run_id).collect();
        let rows: Vec<Staked> = validators
            .iter()
            .map(|(index, validator)| Staked {
                index: *index,
                stake: validator.stake,
                registered_window: validator.registered_window,
            })
            .collect();
        let permits = permits(window, &rows, permits_max);
        let seat = |(index, stake): &Permit| {
            let validator = validators.get(index)?;
            let (pool, cold) = (validator.pool, validator.cold.clone());
            Some(Judge { index: *index, pool, cold, stake: *stake })
        };
        let seats = permits.iter().filter_map(seat).collect();
        Benches::<T>::insert(run_id, window, Bench::truncate_from(seats));
        Permits::<T>::insert(run_id, window, PermitList::truncate_from(permits));
    }

    /// The permits of a window, each with what its holder attested.
    pub(crate) fn attestation_rows(
        run_id: RunId,
        window: Window,
    ) -> Vec<(Permit, Option<Attestation>)> {
        Permits::<T>::get(run_id, window)
            .into_iter()
            .map(|permit| (permit, Attestations::<T>::get((run_id, window, permit.0))))
            .collect()
    }

    /// Draws the seed of the challenged chunks from what the block behind the commit phase decided, and from the same
    /// the next window's seed if its training overlaps with this one's exchange.
    pub(crate) fn draw_challenge(
        run_id: RunId,
        run: &RunOf<T>,
        window: Window,
        randomness: &Hash,
    ) -> Weight {
        let overlap =
            Self::settings_of(run_id, window).is_some_and(|settings| settings.training.overlap);
        let next = window.checked_add(1).filter(|_| overlap);
        let next_seed = next.map(|next| window_seed(randomness, run_id, next, &run.salt_mix));
        Self::change_record(run_id, window, |record| {
            record.challenge_seed = Some(challenge_seed(&record.seed, randomness));
            record.next_seed = next_seed.filter(|_| !record.excused);
        });
        T::WeightInfo::draw_challenge()
    }

    /// Changes what the chain fixed in a window, if it is still kept.
    pub(crate) fn change_record(
        run_id: RunId,
        window: Window,
        change: impl FnOnce(&mut WindowRecord),
    ) {
        Windows::<T>::mutate(run_id, window, |record| {
            if let Some(record) = record {
                change(record);
            }
        });
    }

    /// Fixes state root and accepted set from the attestations, and excuses a window that less than half of the stake attests.
    ///
    /// The standings are those of the last settlement written by now.
    pub(crate) fn accept(run_id: RunId, window: Window) -> Weight {
        let found = Windows::<T>::get(run_id, window).zip(Self::settings_of(run_id, window));
        let Some((mut record, settings)) = found else {
            defensive!("a window without a record or settings");
            return T::WeightInfo::accept(0, 0);
        };
        let rows = Self::attestation_rows(run_id, window);
        let voters: Vec<Voter<'_>> = rows.iter().map(voter).collect();
        let revealed = Self::revealed(run_id, window);
        let attested_count = rows.iter().filter(|(_, row)| row.is_some()).count();
        let Acceptance { state_root, accepted, unavailable, is_silent } = books::accept(
            window,
            &voters,
            &revealed,
            &settings.incentive,
            &settings.training.genesis_state_root,
        );

        if !accepted.is_empty() {
            Runs::<T>::mutate(run_id, |run| {
                if let Some(run) = run {
                    run.active_window = window;
                }
            });
        }
        record.state_root = state_root;
        record.accepted = AcceptedSet::truncate_from(accepted.clone());
        record.unavailable = Bitmap::truncate_from(bitmap_of(&unavailable));
        record.status = WindowStatus::Accepted;
        record.excused |= is_silent;
        Windows::<T>::insert(run_id, window, record);
        Self::deposit_event(Event::WindowAccepted { run: run_id, window, state_root, accepted });
        T::WeightInfo::accept(revealed.len() as u32, attested_count as u32)
    }

    /// Reads the miners that revealed.
    fn revealed(run_id: RunId, window: Window) -> Vec<Revealed> {
        Reveals::<T>::iter_prefix((run_id, window))
            .filter_map(|(uid, reveal)| {
                // Who took over the slot of a miner that had to make room takes part later.
                let miner = Miners::<T>::get(run_id, uid)
                    .filter(|miner| takes_part(miner.registered_window, window))?;
                Some(Revealed {
                    uid,
                    base_state_root: reveal.opening.base_state_root,
                    value: miner.value,
                    is_scored: miner.standing.scored_windows > 0,
                    registered_window: miner.registered_window,
                })
            })
            .collect()
    }
}

/// A permit and its attestation as the rules read them.
pub(crate) fn voter((permit, row): &(Permit, Option<Attestation>)) -> Voter<'_> {
    let (index, stake) = *permit;
    let attestation =
        row.as_ref().map(|row| Attested { state_root: row.state_root, bitmap: &row.bitmap });
    Voter { index, stake, attestation }
}

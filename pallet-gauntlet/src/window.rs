//! What `on_initialize` does at the boundaries of a window: open it, draw the challenge, fix the accepted set.

use alloc::vec::Vec;

use frame_support::{traits::Get, weights::Weight, BoundedVec};
use frame_system::pallet_prelude::BlockNumberFor;
use protocol::{
    accept::{
        accepted_set, bitmap_of, final_root, is_proven_unavailable, on_probation, AttestationInput,
        Candidate,
    },
    seed::{mix_salt, window_seed},
    window::phase_at,
    Hash, RunId, Window,
};
use sp_runtime::SaturatedConversion;

use crate::{
    AcceptedSet, Attestation, Attestations, Bitmap, Config, Event, Miners, Pallet, PendingSettings,
    Reveals, RunOf, RunStatus, Runs, Validators, WeightInfo, WindowRecord, WindowStatus, Windows,
};

impl<T: Config> Pallet<T> {
    /// Looks at every run, of which there are few, and does what the block is the boundary of.
    pub(crate) fn do_boundaries(now: BlockNumberFor<T>) -> Weight {
        let block: u32 = now.saturated_into();
        let parent: Hash = frame_system::Pallet::<T>::parent_hash().into();
        let runs: Vec<_> = Runs::<T>::iter().collect();
        let mut weight = T::WeightInfo::look_at_runs(T::RunsMax::get());
        for (run_id, run) in runs {
            let Some(moment) = phase_at(&run.settings.schedule, block) else {
                continue;
            };
            let (commit_end, attest_end) =
                (run.settings.schedule.commit_end, run.settings.schedule.attest_end);
            weight = weight.saturating_add(match moment.offset {
                0 => Self::open_window(run_id, run, moment.window, &parent),
                offset if offset == commit_end => {
                    Self::draw_challenge(run_id, moment.window, &parent)
                }
                offset if offset == attest_end => Self::accept(run_id, &run, moment.window),
                _ => Weight::zero(),
            });
        }
        weight
    }

    /// Applies settings that are due and fixes the window's seed.
    fn open_window(run_id: RunId, mut run: RunOf<T>, window: Window, parent: &Hash) -> Weight {
        if let Some(scheduled) =
            PendingSettings::<T>::get(run_id).filter(|scheduled| scheduled.window <= window)
        {
            run.settings = scheduled.settings;
            PendingSettings::<T>::remove(run_id);
            Self::deposit_event(Event::SettingsApplied { run: run_id, window });
        }
        run.status = RunStatus::Open;
        let seed = window_seed(parent, run_id, window, &run.salt_mix);
        let record = WindowRecord {
            seed,
            challenge_seed: None,
            state_root: None,
            accepted: BoundedVec::new(),
            unavailable: BoundedVec::new(),
            status: WindowStatus::Open,
            minted: 0,
            settings: run.settings.clone(),
        };
        Windows::<T>::insert(run_id, window, record);
        Runs::<T>::insert(run_id, run);
        Self::deposit_event(Event::WindowOpened { run: run_id, window, seed });
        T::WeightInfo::open_window()
    }

    /// Draws the seed of the challenged chunks from the hash of the commit phase's last block.
    fn draw_challenge(run_id: RunId, window: Window, parent: &Hash) -> Weight {
        Windows::<T>::mutate(run_id, window, |record| {
            if let Some(record) = record {
                record.challenge_seed = Some(mix_salt(&record.seed, parent));
            }
        });
        T::WeightInfo::draw_challenge()
    }

    /// Fixes state root and accepted set from the attestations.
    ///
    /// The standings are those of the last settlement written by now. Active stake, of which the
    /// shares are taken, is that of the validators that attested in this window or the one before.
    pub(crate) fn accept(run_id: RunId, run: &RunOf<T>, window: Window) -> Weight {
        let Some(mut record) = Windows::<T>::get(run_id, window) else {
            frame_support::defensive!("a window without a record");
            return T::WeightInfo::accept(0, 0);
        };
        let incentive = &run.settings.incentive;
        let (rows, active_stake) = Self::attestations(run_id, window);
        let attestations: Vec<AttestationInput<'_>> = rows
            .iter()
            .map(|(stake, row)| AttestationInput {
                stake: *stake,
                state_root: row.state_root,
                bitmap: &row.bitmap,
            })
            .collect();
        let state_root = final_root(&attestations, active_stake, incentive.finality_ppm)
            // The first state is known before anybody trains.
            .filter(|root| window > 0 || *root == run.settings.training.genesis_state_root);

        let candidates = Self::candidates(run_id, run, window);
        let accepted =
            accepted_set(&candidates, &attestations, active_stake, state_root, incentive);
        let unavailable: Vec<u16> = candidates
            .iter()
            .map(|candidate| candidate.uid)
            .filter(|uid| {
                is_proven_unavailable(&attestations, active_stake, *uid, incentive.finality_ppm)
            })
            .collect();

        record.state_root = state_root;
        record.accepted = AcceptedSet::truncate_from(accepted.clone());
        record.unavailable = Bitmap::truncate_from(bitmap_of(&unavailable));
        record.status = WindowStatus::Accepted;
        Windows::<T>::insert(run_id, window, record);
        Self::deposit_event(Event::WindowAccepted { run: run_id, window, state_root, accepted });
        T::WeightInfo::accept(candidates.len() as u32, rows.len() as u32)
    }

    /// The attestations of the window's validators with their stake, and the active stake.
    fn attestations(run_id: RunId, window: Window) -> (Vec<(u64, Attestation)>, u128) {
        let mut rows = Vec::new();
        let mut active_stake = 0u128;
        for (index, validator) in Validators::<T>::iter_prefix(run_id) {
            // Stakes are kept below 2^64.
            let stake: u64 = validator.stake.saturated_into();
            if validator
                .attested_window
                .is_some_and(|attested| attested.saturating_add(1) >= window)
            {
                active_stake = active_stake.saturating_add(u128::from(stake));
            }
            if validator.registered_window <= window {
                if let Some(row) = Attestations::<T>::get((run_id, window, index)) {
                    rows.push((stake, row));
                }
            }
        }
        (rows, active_stake)
    }

    /// The miners that revealed.
    fn candidates(run_id: RunId, run: &RunOf<T>, window: Window) -> Vec<Candidate> {
        Reveals::<T>::iter_prefix((run_id, window))
            .filter_map(|(uid, reveal)| {
                // Nobody leaves with a commitment of the window, so that the miner is who revealed.
                let miner = Miners::<T>::get(run_id, uid)?;
                Some(Candidate {
                    uid,
                    base_state_root: reveal.opening.base_state_root,
                    value: miner.value,
                    on_probation: on_probation(
                        miner.registered_window,
                        window,
                        &run.settings.incentive,
                    ),
                    registered_window: miner.registered_window,
                })
            })
            .collect()
    }
}

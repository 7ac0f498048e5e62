//! Speaks to the real runtime in the records of `node-client`, as its subxt client does to a node.

use std::collections::BTreeMap;

use codec::{DecodeAll, Encode};
use frame_support::traits::{GetCallIndex, GetCallName, PalletInfoAccess};
use node_client::chain::{
    AnnouncementInfo, AttestationCommitmentInfo, AttestationInfo, Call, CommitmentInfo,
    DataChallengeInfo, DepartureInfo, EvaluationDisputeInfo, GauntletEvent, JurorInfo, MinerInfo,
    Offender, PermitInfo, ProvenFaultInfo, RevealInfo, RunInfo, ScoreCommitmentInfo,
    ScoreRevealInfo, SlashInfo, StakePoolInfo, ValidatorInfo, WindowInfo,
};
use pallet_gauntlet::{
    account_bytes, Announcements, AttestationCommitments, Attestations, Claims, Commitments,
    Departures, EvaluationDisputes, Layouts, Ledgers, Miners, OpenChallenges, Permits, Pools,
    ProvenFaults, Reveals, RunSettings, Runs, ScoreCommitments, ScoreReveals, UnappliedSlashes,
    Validators, Windows,
};
use protocol::{layout::Layout, AccountBytes, Planck, RunId, Window};
use runtime::{AccountId, Balances, Gauntlet, Runtime, RuntimeCall, RuntimeOrigin};
use sp_runtime::{traits::Dispatchable, DispatchError};

use super::state::{by_run, ChainState, RunState, WindowState, POOLS};
use crate::network::events;

/// Why a call was refused: the pallet, and its name for the error.
pub(super) type Refusal = (String, String);

/// The runtime's form of a call; `None` if it cannot decode the call's bytes.
fn decoded(call: &Call) -> Option<RuntimeCall> {
    fn bytes<C: GetCallIndex + GetCallName>(call: &Call) -> Vec<u8> {
        let named = C::get_call_names().iter().zip(C::get_call_indices());
        let index = named.into_iter().find(|(name, _)| **name == call.name());
        let (_, index) = index.expect("the pallet has the call");
        [vec![*index], call.arguments()].concat()
    }
    if matches!(call, Call::Transfer { .. }) {
        let bytes = bytes::<pallet_balances::Call<Runtime>>(call);
        return pallet_balances::Call::decode_all(&mut &*bytes).ok().map(RuntimeCall::Balances);
    }
    let bytes = bytes::<pallet_gauntlet::Call<Runtime>>(call);
    pallet_gauntlet::Call::decode_all(&mut &*bytes).ok().map(RuntimeCall::Gauntlet)
}

/// Dispatches a call from the bytes that a client sends.
pub(super) fn dispatch(signer: &AccountId, call: &Call) -> Result<(), Refusal> {
    let Some(call) = decoded(call) else {
        return Err(("Transaction".to_owned(), "Invalid".to_owned()));
    };
    let result = call.dispatch(RuntimeOrigin::signed(signer.clone()));
    result.map(|_| ()).map_err(|error| match error.error {
        DispatchError::Module(module) => {
            let name = module.message.expect("a module's error has a name").to_owned();
            let of_gauntlet = usize::from(module.index) == <Gauntlet as PalletInfoAccess>::index();
            let pallet = if of_gauntlet { "Gauntlet" } else { "another" };
            (pallet.to_owned(), name)
        }
        other => ("Runtime".to_owned(), format!("{other:?}")),
    })
}

/// Gives a run another weight, by governance.
pub(super) fn set_run_weight(run: RunId, weight: u16) {
    let call = RuntimeCall::Gauntlet(pallet_gauntlet::Call::set_run_weight { run, weight });
    call.dispatch(RuntimeOrigin::root()).expect("the run exists");
}

/// The pallet's events of this block, from their bytes.
fn gauntlet_events() -> Vec<GauntletEvent> {
    let decode = |event: pallet_gauntlet::Event<Runtime>| {
        GauntletEvent::decode_all(&mut &*event.encode()).expect("the client reads every event")
    };
    events().into_iter().map(decode).collect()
}

/// The runtime's state after the current block. Reads the given windows of each run.
pub(super) fn state(
    windows: impl Fn(RunId) -> Vec<Window>,
    accounts: &[AccountBytes],
) -> ChainState {
    let balances: BTreeMap<AccountBytes, Planck> = accounts
        .iter()
        .map(|account| (*account, Balances::free_balance(AccountId::new(*account))))
        .collect();
    let runs = Runs::<Runtime>::iter_keys().map(|id| (id, run_state(id, windows(id)))).collect();
    ChainState { events: by_run(gauntlet_events()), runs, balances }
}

fn run_state(id: RunId, windows: Vec<Window>) -> RunState {
    let info = Runs::<Runtime>::get(id).map(|run| RunInfo {
        owner: account_bytes(&run.owner),
        settings: RunSettings::<Runtime>::get(id, run.settings_version).expect("kept settings"),
        layout: Layout(Layouts::<Runtime>::get(id).expect("a run has a layout").into_inner()),
    });
    let claims = Claims::<Runtime>::iter_prefix(id)
        .map(|(account, list)| (account_bytes(&account), list.into_inner()));
    RunState {
        info,
        miners: miners(id),
        validators: validators(id),
        announcements: announcements(id),
        departures: departures(id),
        data_challenges: data_challenges(id),
        evaluation_disputes: evaluation_disputes(id),
        stake_pools: (0..POOLS).map(|pool| stake_pool(id, pool)).collect(),
        slashes: slashes(id),
        ledger: Ledgers::<Runtime>::get(id),
        windows: windows.into_iter().map(|window| (window, window_state(id, window))).collect(),
        claims: claims.collect(),
    }
}

fn miners(run: RunId) -> Vec<MinerInfo> {
    let info = |(uid, miner): (_, pallet_gauntlet::Miner<AccountId>)| MinerInfo {
        uid,
        hot: account_bytes(&miner.hot),
        cold: account_bytes(&miner.cold),
        bond: miner.bond,
        registered_window: miner.registered_window,
        committed_window: miner.committed_window,
        last_window: miner.last_window,
        standing: miner.standing,
        value: miner.value,
        share: miner.share,
    };
    sorted(Miners::<Runtime>::iter_prefix(run).map(info), |miner| miner.uid)
}

fn validators(run: RunId) -> Vec<ValidatorInfo> {
    let info = |(index, validator): (_, pallet_gauntlet::Validator<AccountId>)| ValidatorInfo {
        index,
        hot: account_bytes(&validator.hot),
        cold: account_bytes(&validator.cold),
        stake: validator.stake,
        registered_window: validator.registered_window,
        attested_window: validator.attested_window,
    };
    sorted(Validators::<Runtime>::iter_prefix(run).map(info), |validator| validator.index)
}

fn announcements(run: RunId) -> Vec<AnnouncementInfo> {
    let info = |(hot, row): (AccountId, pallet_gauntlet::Announcement)| AnnouncementInfo {
        hot: account_bytes(&hot),
        peer_id: row.peer_id.into_inner(),
        addresses: row.addresses.into_iter().map(|address| address.into_inner()).collect(),
    };
    sorted(Announcements::<Runtime>::iter_prefix(run).map(info), |row| row.hot)
}

fn departures(run: RunId) -> Vec<DepartureInfo> {
    let info = |((uid, registered_window), gone): (_, pallet_gauntlet::Departure<AccountId>)| {
        DepartureInfo {
            uid,
            registered_window,
            hot: account_bytes(&gone.hot),
            cold: account_bytes(&gone.cold),
            bond: gone.bond,
            last: gone.last,
            due: gone.due,
        }
    };
    sorted(Departures::<Runtime>::iter_prefix(run).map(info), |gone| {
        (gone.uid, gone.registered_window)
    })
}

fn data_challenges(run: RunId) -> Vec<DataChallengeInfo> {
    let payloads = sorted(OpenChallenges::<Runtime>::iter_prefix((run,)), |(key, _)| *key);
    let of_payload = |((window, uid), open): (_, pallet_gauntlet::DataChallenges<AccountId>)| {
        open.into_iter().map(move |challenge| DataChallengeInfo {
            window,
            uid,
            index: challenge.index,
            challenger: account_bytes(&challenge.challenger),
            bond: challenge.bond,
            deadline: challenge.deadline,
        })
    };
    payloads.into_iter().flat_map(of_payload).collect()
}

fn evaluation_disputes(run: RunId) -> Vec<EvaluationDisputeInfo> {
    let seat = |seat: pallet_gauntlet::Juror<AccountId>| JurorInfo {
        index: seat.index,
        cold: account_bytes(&seat.cold),
        commitment: seat.commitment,
        measured: seat.measured,
    };
    let info = |(name, dispute): (_, pallet_gauntlet::EvaluationDispute<AccountId>)| {
        EvaluationDisputeInfo {
            name,
            evaluation: dispute.evaluation,
            pool: dispute.pool,
            challenger: account_bytes(&dispute.challenger),
            bond: dispute.bond,
            opened: dispute.opened,
            jury: dispute.jury.into_iter().map(seat).collect(),
        }
    };
    sorted(EvaluationDisputes::<Runtime>::iter_prefix((run,)).map(info), |dispute| dispute.name)
}

fn stake_pool(run: RunId, pool: u32) -> Option<StakePoolInfo> {
    Pools::<Runtime>::get(run, pool).map(|pool| StakePoolInfo {
        cold: account_bytes(&pool.cold),
        index: pool.index,
        own: pool.own,
        delegated: pool.delegated.amount,
    })
}

fn slashes(run: RunId) -> Vec<SlashInfo> {
    let info = |(number, slash): (_, pallet_gauntlet::UnappliedSlash<AccountId>)| SlashInfo {
        number,
        offender: Offender::decode_all(&mut &*slash.offender.encode())
            .expect("the client reads every offender"),
        window: slash.window,
        amount: slash.amount,
        reporter: slash.reporter.as_ref().map(account_bytes),
        due: slash.due,
    };
    sorted(UnappliedSlashes::<Runtime>::iter_prefix(run).map(info), |slash| slash.number)
}

fn window_state(run: RunId, window: Window) -> WindowState {
    let info = Windows::<Runtime>::get(run, window).map(|record| WindowInfo {
        seed: record.seed,
        scoring_seed: record.scoring_seed,
        challenge_seed: record.challenge_seed,
        next_seed: record.next_seed,
        state_root: record.state_root,
        accepted: record.accepted.into_inner(),
        unavailable: record.unavailable.into_inner(),
        status: DecodeAll::decode_all(&mut &*record.status.encode())
            .expect("the client reads every status"),
        budget: record.budget,
        minted: record.minted,
        funded: record.funded,
        settings: RunSettings::<Runtime>::get(run, record.settings_version).expect("kept settings"),
        excused: record.excused,
    });
    let of = (run, window);
    let commitments = Commitments::<Runtime>::iter_prefix(of).map(|(uid, row)| CommitmentInfo {
        uid,
        hash: row.hash,
        block: row.block,
        order: row.order,
    });
    let reveals = Reveals::<Runtime>::iter_prefix(of).map(|(uid, row)| RevealInfo {
        uid,
        opening: row.opening,
        committed_block: row.committed_block,
        order: row.order,
    });
    let permits = Permits::<Runtime>::get(run, window).into_iter();
    let attestation_commitments = AttestationCommitments::<Runtime>::iter_prefix(of)
        .map(|(index, hash)| AttestationCommitmentInfo { index, hash });
    let attestations = Attestations::<Runtime>::iter_prefix(of).map(|(index, row)| {
        AttestationInfo { index, bitmap: row.bitmap.into_inner(), state_root: row.state_root }
    });
    let score_commitments = ScoreCommitments::<Runtime>::iter_prefix(of)
        .map(|(index, hash)| ScoreCommitmentInfo { index, hash });
    let score_reveals = ScoreReveals::<Runtime>::iter_prefix(of).map(|(index, row)| {
        ScoreRevealInfo { index, evaluations: row.evaluations.into_inner(), salt: row.salt }
    });
    let proven = ProvenFaults::<Runtime>::iter_prefix(of);
    let proven = proven.map(|(uid, fault)| ProvenFaultInfo { uid, fault });
    WindowState {
        info,
        commitments: sorted(commitments, |row| row.uid),
        reveals: sorted(reveals, |row| row.uid),
        permits: permits.map(|(index, stake)| PermitInfo { index, stake }).collect(),
        attestation_commitments: sorted(attestation_commitments, |row| row.index),
        attestations: sorted(attestations, |row| row.index),
        score_commitments: sorted(score_commitments, |row| row.index),
        score_reveals: sorted(score_reveals, |row| row.index),
        proven_faults: sorted(proven, |row| row.uid),
    }
}

fn sorted<T, K: Ord>(rows: impl Iterator<Item = T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut rows: Vec<T> = rows.collect();
    rows.sort_by_key(key);
    rows
}

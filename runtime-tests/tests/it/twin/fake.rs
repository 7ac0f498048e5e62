//! Reads the fake chain through the trait that clients read any chain through.

use std::{collections::BTreeMap, future::Future};

use futures::executor::block_on;
use node_client::chain::{fake::FakeChain, Chain, ChainError, SubmitError};
use protocol::{AccountBytes, Hash, RunId, Window};

use super::{
    real::Refusal,
    state::{by_run, ChainState, RunState, WindowState, POOLS},
};

/// The answer of a read, which the fake has at once.
pub(super) fn now<T>(read: impl Future<Output = Result<T, ChainError>>) -> T {
    block_on(read).expect("the fake has the latest state")
}

/// How a call ended, in the runtime's names.
pub(super) fn outcome<T>(result: Result<T, SubmitError>) -> Result<(), Refusal> {
    match result {
        Ok(_) => Ok(()),
        Err(SubmitError::Rejected { pallet, error, .. }) => Err((pallet, error)),
        Err(other) => Err(("node-client".to_owned(), other.to_string())),
    }
}

/// The hash of the latest block.
pub(super) fn head_hash(chain: &FakeChain) -> Hash {
    now(chain.finalized_head()).hash
}

/// The fake's state after the latest block. Reads the given windows of each run.
pub(super) fn state(
    chain: &FakeChain,
    windows: impl Fn(RunId) -> Vec<Window>,
    accounts: &[AccountBytes],
) -> ChainState {
    let balance = |account: &AccountBytes| (*account, now(chain.balance(*account, None)));
    // Runs are numbered from 0 and never end.
    let ids = (0..).take_while(|run| now(chain.run(*run, None)).is_some());
    ChainState {
        events: by_run(now(chain.events_at(head_hash(chain)))),
        runs: ids.map(|run| (run, run_state(chain, run, windows(run), accounts))).collect(),
        balances: accounts.iter().map(balance).collect(),
    }
}

fn run_state(
    chain: &FakeChain,
    run: RunId,
    windows: Vec<Window>,
    accounts: &[AccountBytes],
) -> RunState {
    let claims: BTreeMap<_, _> =
        accounts.iter().map(|account| (*account, now(chain.claims(run, *account, None)))).collect();
    RunState {
        info: now(chain.run(run, None)),
        miners: now(chain.miners(run, None)),
        validators: now(chain.validators(run, None)),
        announcements: now(chain.announcements(run, None)),
        departures: now(chain.departures(run, None)),
        data_challenges: now(chain.data_challenges(run, None)),
        evaluation_disputes: now(chain.evaluation_disputes(run, None)),
        stake_pools: (0..POOLS).map(|pool| now(chain.stake_pool(run, pool, None))).collect(),
        slashes: now(chain.slashes(run, None)),
        ledger: now(chain.ledger(run, None)),
        windows: windows
            .into_iter()
            .map(|window| (window, window_state(chain, run, window)))
            .collect(),
        claims: claims.into_iter().filter(|(_, claims)| !claims.is_empty()).collect(),
    }
}

fn window_state(chain: &FakeChain, run: RunId, window: Window) -> WindowState {
    WindowState {
        info: now(chain.window(run, window, None)),
        commitments: now(chain.commitments(run, window, None)),
        reveals: now(chain.reveals(run, window, None)),
        permits: now(chain.permits(run, window, None)),
        attestation_commitments: now(chain.attestation_commitments(run, window, None)),
        attestations: now(chain.attestations(run, window, None)),
        score_commitments: now(chain.score_commitments(run, window, None)),
        score_reveals: now(chain.score_reveals(run, window, None)),
        proven_faults: now(chain.proven_faults(run, window, None)),
    }
}

//! Runs the two chains side by side, block by block, and compares them.

use std::collections::BTreeMap;

use node_client::chain::{
    fake::{FakeChain, Submission},
    Call, GauntletEvent,
};
use pallet_gauntlet::{account_bytes, Runs};
use protocol::{window::phase_at, AccountBytes, BlockNumber, RunId, Window};
use runtime::{AccountId, Balances, Executive, Runtime, System};
use sp_core::H256;

use super::{
    fake, real,
    real::Refusal,
    state::{Difference, Differences},
};
use crate::network::{check_state, genesis_storage, open_block};

/// Windows before the current one that are compared after each block: more than are kept.
const WINDOWS_BEHIND: Window = 10;

/// Which of the chains gets a call.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Chains {
    /// Both, as ever.
    Both,
    /// The runtime alone: a difference that is to be found.
    RealOnly,
}

/// A call of the open block: what it was, how it ended on the runtime, and the fake's answer to come.
struct Dispatched {
    name: &'static str,
    real: Result<(), Refusal>,
    fake: Option<Submission>,
}

/// How often something happened on the runtime.
#[derive(Default, Debug)]
pub(super) struct Counts {
    /// Calls by name: done, and refused.
    pub(super) calls: BTreeMap<&'static str, (u32, u32)>,
    /// Refusals by the error's name.
    pub(super) errors: BTreeMap<String, u32>,
    /// Events by name.
    pub(super) events: BTreeMap<String, u32>,
}

impl Counts {
    /// Adds what happened in another walk.
    pub(super) fn add(&mut self, other: &Counts) {
        for (name, (done, refused)) in &other.calls {
            let sums = self.calls.entry(name).or_default();
            *sums = (sums.0 + done, sums.1 + refused);
        }
        for (name, count) in &other.errors {
            *self.errors.entry(name.clone()).or_default() += count;
        }
        for (name, count) in &other.events {
            *self.events.entry(name.clone()).or_default() += count;
        }
    }

    /// Calls done and refused, of all names.
    pub(super) fn total(&self) -> (u32, u32) {
        self.calls.values().fold((0, 0), |sum, calls| (sum.0 + calls.0, sum.1 + calls.1))
    }
}

/// The runtime, in whose externalities this lives, and the fake chain, in the same block.
pub(super) struct Twins {
    fake: FakeChain,
    accounts: Vec<AccountBytes>,
    dispatched: Vec<Dispatched>,
    pub(super) counts: Counts,
}

impl Twins {
    /// Runs a scenario from block 1 of a runtime from its own genesis and of a fake chain of `seed`
    /// with the same balances. The runtime is told the fake's hashes of blocks.
    pub(super) fn execute(seed: u64, accounts: &[AccountId], scenario: impl FnOnce(&mut Twins)) {
        sp_io::TestExternalities::from(genesis_storage()).execute_with(|| {
            let accounts: Vec<AccountBytes> = accounts.iter().map(account_bytes).collect();
            let balances = accounts
                .iter()
                .map(|account| (*account, Balances::free_balance(AccountId::new(*account))));
            let fake = FakeChain::new(seed, balances);
            open_block(1, H256(fake::head_hash(&fake)));
            let counts = Counts::default();
            scenario(&mut Twins { fake, accounts, dispatched: Vec::new(), counts });
        });
    }

    /// Executes a call on the runtime and queues it on the fake.
    pub(super) fn call(&mut self, chains: Chains, signer: &AccountId, call: Call) {
        let name = call.name();
        let real = real::dispatch(signer, &call);
        let (done, refused) = self.counts.calls.entry(name).or_default();
        match &real {
            Ok(()) => *done += 1,
            Err((_, error)) => {
                *refused += 1;
                *self.counts.errors.entry(error.clone()).or_default() += 1;
            }
        }
        let fake = (chains == Chains::Both).then(|| {
            let queued = self.fake.enqueue(account_bytes(signer), call);
            queued.expect("the queue has room for a block")
        });
        self.dispatched.push(Dispatched { name, real, fake });
    }

    /// Has both chains' governance give a run another weight. To be called before the block's calls.
    pub(super) fn set_run_weight(&mut self, run: RunId, weight: u16) {
        real::set_run_weight(run, weight);
        self.fake.set_run_weight(run, weight);
    }

    /// Closes the block on both chains, compares what it did and left, and opens the next one.
    pub(super) fn end_block(&mut self) -> Vec<Difference> {
        let block = System::block_number();
        let mut differences = Differences::of_block(block);
        Executive::finalize_block();
        check_state();
        self.fake.advance(1);
        for (place, Dispatched { name, real, fake }) in
            std::mem::take(&mut self.dispatched).into_iter().enumerate()
        {
            if let Some(submission) = fake {
                let fake = fake::outcome(futures::executor::block_on(submission.wait()));
                differences.compare(&format!("outcome of call {place}, {name}"), &real, &fake);
            }
        }
        let windows = |run| recent_windows(run, block);
        let real = real::state(windows, &self.accounts);
        let fake = fake::state(&self.fake, windows, &self.accounts);
        differences.compare_chains(&real, &fake);
        for event in real.events.values().flatten() {
            *self.counts.events.entry(name_of(event)).or_default() += 1;
        }
        open_block(block + 1, H256(fake::head_hash(&self.fake)));
        differences.into_found()
    }
}

/// The windows of a run that may have rows, those that were just removed, and the next one.
fn recent_windows(run: RunId, block: BlockNumber) -> Vec<Window> {
    let moment = Runs::<Runtime>::get(run)
        .and_then(|run| phase_at(&run.schedule, block))
        .map_or(0, |moment| moment.window);
    (moment.saturating_sub(WINDOWS_BEHIND)..=moment + 1).collect()
}

/// The variant's name.
fn name_of(event: &GauntletEvent) -> String {
    let text = format!("{event:?}");
    text.split(' ').next().unwrap_or_default().to_owned()
}

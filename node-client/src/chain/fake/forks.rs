//! Best blocks that are replaced by others before they are final, and nodes that are behind.

use std::{collections::VecDeque, sync::Arc};

use protocol::{BlockNumber, Hash};

use super::{
    block_hash, refusal::Refusal, state::State, BlockRef, Blocks, FakeChain, Included, Queued,
    SubmitError, Untold, STATES_MAX,
};

impl FakeChain {
    /// Has another chain be the best one: the last `depth` blocks, or as many of them as are not final, are replaced, and
    /// one more follows. Each of their calls is in a block one later than it was, and may be refused there; what governance
    /// set is in the first.
    pub fn fork(&self, depth: u32) {
        let finalized = *self.shared.finalized.borrow();
        let mut chain = self.chain();
        let mut late = VecDeque::new();
        for calls in chain.drop_blocks(depth, finalized) {
            let calls = std::mem::replace(&mut late, calls);
            chain.push(self.shared.seed, calls);
        }
        late.append(&mut chain.queue);
        chain.push(self.shared.seed, late);
        self.tell(chain);
    }

    /// The same chain at a node that learns of each block when so many more are on top of it.
    pub fn behind(&self, blocks: BlockNumber) -> Self {
        Self { behind: blocks, ..self.clone() }
    }

    /// Of the blocks up to `number`, the last one that this node knows.
    pub(super) fn seen(&self, number: BlockNumber) -> BlockNumber {
        number.saturating_sub(self.behind)
    }

    /// The block of this number on the best chain.
    pub(super) fn block(&self, number: BlockNumber) -> Option<BlockRef> {
        let hash = self.chain().hash(number)?;
        Some(BlockRef { number, hash })
    }
}

impl Blocks {
    /// The hash of a block of the best chain.
    pub(super) fn hash(&self, number: BlockNumber) -> Option<Hash> {
        self.hashes.get(usize::try_from(number).ok()?).copied()
    }

    /// Takes the last `depth` blocks off, but none that is final, and returns the calls of each.
    fn drop_blocks(&mut self, depth: u32, finalized: BlockNumber) -> Vec<VecDeque<Queued>> {
        let mut dropped = Vec::new();
        while dropped.len() < depth as usize
            && self.states.back().is_some_and(|state| state.number > finalized)
        {
            self.states.pop_back();
            self.hashes.pop();
            let Some(block) = self.untold.pop_back() else { break };
            self.weights.splice(..0, block.weights);
            dropped.push(block.outcomes.into_iter().map(|(queued, _)| queued).collect());
        }
        self.forks += u64::from(!dropped.is_empty());
        dropped.reverse();
        dropped
    }

    /// Makes a block with these calls.
    pub(super) fn push(&mut self, seed: u64, calls: VecDeque<Queued>) {
        let Some(parent) = self.states.back().cloned() else {
            return;
        };
        let Some((number, parent_hash)) =
            parent.number.checked_add(1).zip(self.hash(parent.number))
        else {
            return;
        };
        let hash = block_hash(seed, self.forks, number);
        let block = BlockRef { number, hash };
        let mut state = State::clone(&parent);
        state.begin_block(number, &parent_hash);
        let weights = std::mem::take(&mut self.weights);
        for (run, weight) in &weights {
            // What is refused changes nothing.
            let _ = state.set_run_weight(*run, *weight);
        }
        let mut outcomes = Vec::new();
        for queued in calls {
            let first_event = state.events.len();
            // An extrinsic that fails changes nothing.
            let mut attempt = state.clone();
            let outcome = match attempt.apply(queued.signer, queued.call.clone()) {
                Ok(()) => {
                    state = attempt;
                    let events = state.events.iter().skip(first_event).cloned().collect();
                    Ok(Included { block, events })
                }
                Err(Refusal { pallet, error }) => Err(SubmitError::Rejected {
                    pallet: pallet.to_owned(),
                    error: error.to_owned(),
                    docs: format!("refused in block {number}"),
                }),
            };
            outcomes.push((queued, outcome));
        }
        self.states.push_back(Arc::new(state));
        self.hashes.push(hash);
        if self.states.len() > STATES_MAX {
            self.states.pop_front();
        }
        self.untold.push_back(Untold { number, weights, outcomes });
    }
}

//! Nodes of one chain for tests of who asks them: what each does wrong is told beforehand.

use std::{
    future::{pending, Future},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    door::{Pool, Trace},
    left::until_left,
    read, BlockRef, ChainError, Included, SubmitError,
};

/// Nodes of one chain that has the extrinsics of one account: those are their nonces and numbers. One node is asked,
/// until it is left for the next; whoever takes an extrinsic has it included at once.
pub(super) struct FakeNodes {
    /// How often a node was left.
    left: watch::Sender<usize>,
    count: usize,
    /// How long another connection takes to open.
    opening: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// Who took each nonce of the finalised chain: the number of one of ours, or `None` for another program's.
    pub(super) chain: Vec<Option<u64>>,
    /// Extrinsics that were signed.
    pub(super) signed: u64,
    /// On their way, the first to arrive first.
    delayed: Vec<(u64, u64)>,
    /// What is yet to go wrong at each node, the next last.
    faults: Vec<Vec<Fault>>,
}

/// What goes wrong when a node is asked.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Fault {
    /// Somebody else uses the nonce between the look and the hand-over.
    Overtaken,
    /// The extrinsic is taken and then dropped.
    Dropped,
    /// Another one with the same nonce takes its place.
    Usurped,
    /// The connection breaks while it is handed over: it is not there, or it is and will be included.
    BrokenBefore,
    BrokenAfter,
    /// The connection breaks before the node reports; the extrinsic is included.
    Silent,
    /// The chain refuses the call in its block; there is not what is read.
    Refused,
    /// The node takes it, loses it and says nothing.
    Swallowed,
    /// The node takes it, has it included and says nothing.
    Mute,
    /// The connection breaks while it is handed over; it is included before anything that comes later.
    Delayed,
    /// The node does not take it.
    Refuses,
    /// The node does not answer: it does not have it, or it has it included.
    Hangs,
    HangsAfter,
}

impl FakeNodes {
    /// One node.
    pub(super) fn with(faults: &[Fault]) -> Self {
        Self::of(&[faults], Duration::ZERO)
    }

    /// Several, by what goes wrong at each; a connection to another one takes `opening`.
    pub(super) fn of(faults: &[&[Fault]], opening: Duration) -> Self {
        let of_node = |faults: &&[Fault]| faults.iter().rev().copied().collect();
        let (count, faults) = (faults.len(), faults.iter().map(of_node).collect());
        let state = Mutex::new(State { faults, ..State::default() });
        Self { left: watch::Sender::new(0), count, opening, state }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The next node is asked from now on.
    pub(super) fn leave(&self) {
        self.left.send_modify(|left| *left += 1);
    }

    /// What has not gone wrong yet.
    pub(super) fn faults_left(&self) -> usize {
        self.state().faults.iter().map(Vec::len).sum()
    }

    /// What is on its way arrives.
    pub(super) fn arrive(&self) {
        let mut state = self.state();
        for (nonce, number) in std::mem::take(&mut state.delayed) {
            if nonce == state.chain.len() as u64 {
                state.chain.push(Some(number));
            }
        }
    }

    /// How often calls of ours are in the chain.
    pub(super) fn included(&self) -> usize {
        self.state().chain.iter().flatten().count()
    }

    /// How many blocks the chain has, over a connection.
    pub(super) async fn height(&self, connection: usize) -> Result<usize, ChainError> {
        match self.fault_of(connection) {
            Some(Fault::Hangs) => pending().await,
            Some(Fault::Refused) => Err(ChainError::UnknownBlock("latest".to_owned())),
            Some(_) => Err(ChainError::Transport("the connection is down".to_owned())),
            None => Ok(self.state().chain.len()),
        }
    }

    /// What goes wrong now at the node of a connection.
    fn fault_of(&self, connection: usize) -> Option<Fault> {
        self.state().faults[connection % self.count].pop()
    }

    /// Waits until another node is asked than at connection `used`.
    async fn moved_from(&self, used: usize) {
        self.left.subscribe().wait_for(|left| *left != used).await.unwrap();
    }

    /// Waits for an answer that does not come, until the node is left.
    fn no_answer<T>(&self, used: usize) -> impl Future<Output = Result<T, SubmitError>> + '_
    where
        T: Send + 'static,
    {
        until_left(pending(), self.moved_from(used))
    }
}

fn included() -> Included {
    Included { block: BlockRef { number: 1, hash: [1; 32] }, events: Vec::new() }
}

fn broken() -> SubmitError {
    SubmitError::Transport("the connection is down".to_owned())
}

#[async_trait]
impl Pool for FakeNodes {
    type Signed = (u64, u64);
    /// Over which connection it was handed over, and what is wrong there.
    type Progress = (usize, Option<Fault>);

    async fn next_nonce(&self) -> Result<u64, SubmitError> {
        Ok(self.state().chain.len() as u64)
    }

    async fn sign(&self, nonce: u64) -> Result<(u64, u64), SubmitError> {
        let mut state = self.state();
        state.signed += 1;
        Ok((nonce, state.signed))
    }

    async fn hand_over(
        &self,
        (nonce, number): &(u64, u64),
    ) -> Result<(usize, Option<Fault>), SubmitError> {
        let used = *self.left.borrow();
        let fault = self.fault_of(used);
        match fault {
            Some(Fault::Refuses) => return Err(SubmitError::Dropped("1016".to_owned())),
            Some(Fault::Hangs) => return self.no_answer(used).await,
            Some(Fault::Delayed) => {
                self.state().delayed.push((*nonce, *number));
                return Err(broken());
            }
            _ => self.arrive(),
        }
        {
            let mut state = self.state();
            let chain = &mut state.chain;
            if fault == Some(Fault::Overtaken) {
                chain.push(None);
            }
            if *nonce != chain.len() as u64 {
                return Err(SubmitError::Dropped("Invalid Transaction (1010)".to_owned()));
            }
            match fault {
                Some(Fault::Dropped | Fault::Swallowed) => {}
                Some(Fault::Usurped) => chain.push(None),
                Some(Fault::BrokenBefore) => return Err(broken()),
                _ => chain.push(Some(*number)),
            }
        }
        match fault {
            Some(Fault::BrokenAfter) => Err(broken()),
            Some(Fault::HangsAfter) => self.no_answer(used).await,
            fault => Ok((used, fault)),
        }
    }

    async fn watch(&self, (used, fault): (usize, Option<Fault>)) -> Result<Included, SubmitError> {
        match fault {
            Some(Fault::Dropped | Fault::Usurped) => {
                Err(SubmitError::Dropped("it was dropped".to_owned()))
            }
            Some(Fault::Silent) => Err(broken()),
            Some(Fault::Swallowed | Fault::Mute) => self.no_answer(used).await,
            Some(Fault::Refused) => Err(SubmitError::Rejected {
                pallet: "Gauntlet".to_owned(),
                error: "NothingToClaim".to_owned(),
                docs: String::new(),
            }),
            _ => Ok(included()),
        }
    }

    async fn trace(&self, (nonce, number): &mut (u64, u64)) -> Result<Trace, SubmitError> {
        let state = self.state();
        let found = usize::try_from(*nonce).ok().and_then(|nonce| state.chain.get(nonce));
        Ok(match found {
            None => Trace::Open,
            Some(taken) if *taken == Some(*number) => Trace::Found(Ok(included())),
            Some(_) => Trace::Gone,
        })
    }

    async fn reconnect(&self) {}
}

#[async_trait]
impl read::Nodes for FakeNodes {
    /// How many there were before it.
    type Connection = usize;

    async fn connection(&self) -> Arc<usize> {
        Arc::new(*self.left.borrow())
    }

    async fn moved(&self, used: &usize) {
        self.moved_from(*used).await;
    }

    async fn replace(&self, broken: &Arc<usize>) {
        if *self.left.borrow() == **broken {
            tokio::time::sleep(self.opening).await;
            self.leave();
        }
    }
}

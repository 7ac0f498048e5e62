//! Gets a call into a block once, whatever else its signer's account is used for meanwhile.
//!
//! Another program may use the nonce that an extrinsic was signed for, a node may drop an extrinsic or stop answering.
//! Then the account's next nonce is read again and the call signed anew, until a deadline.
//!
//! **Invariant.** A call that is signed anew is in the chain once. An extrinsic that a node may have is followed by
//! another one only if that has the same nonce, so that a block takes one of them; or once the finalised chain shows
//! that the first is not and cannot be in it, because its nonce went to another or its time is over.

use std::time::Duration;

use async_trait::async_trait;
use tokio::{sync::Mutex, time::Instant};

use super::{Included, SubmitError};

/// Pause before another attempt.
const PAUSE: Duration = Duration::from_millis(200);

/// How often a node whose next nonce is smaller than ours is asked again: what was handed over may not be counted yet.
const NONCE_LOOKS: usize = 5;

/// A node as a signer needs it, for one call.
#[async_trait]
pub(super) trait Pool: Send + Sync {
    /// An extrinsic that is signed.
    type Signed: Send;
    /// What a node tells of an extrinsic that it took.
    type Progress: Send;

    /// The account's next nonce, what waits in the node's pool counted.
    async fn next_nonce(&self) -> Result<u64, SubmitError>;
    /// Signs the call for a nonce.
    async fn sign(&self, nonce: u64) -> Result<Self::Signed, SubmitError>;
    /// Hands an extrinsic to the node.
    async fn hand_over(&self, signed: &Self::Signed) -> Result<Self::Progress, SubmitError>;
    /// Waits until an extrinsic is in a finalised block.
    async fn watch(&self, progress: Self::Progress) -> Result<Included, SubmitError>;
    /// Looks for an extrinsic in the finalised chain.
    async fn trace(&self, signed: &mut Self::Signed) -> Result<Trace, SubmitError>;
    /// Looks for a node that answers.
    async fn reconnect(&self);
}

/// What the finalised chain has of an extrinsic.
#[derive(Debug)]
pub(super) enum Trace {
    /// It is in a block; whether it succeeded there.
    Found(Result<Included, SubmitError>),
    /// It is in no block and cannot come into one.
    Gone,
    /// It is in no block yet.
    Open,
}

/// An extrinsic that a node may have.
struct Loose<S> {
    nonce: u64,
    signed: S,
}

/// Submits the call of `pool` and waits until it is in a finalised block, for at most `patience`. The signer's next
/// nonce is in `slot`, whose lock is held while an extrinsic is signed and handed over.
///
/// # Errors
/// The chain refuses the call; or it was not included in time, with the reason of the last attempt.
pub(super) async fn submit<P: Pool>(
    pool: &P,
    slot: &Mutex<Option<u64>>,
    patience: Duration,
) -> Result<Included, SubmitError> {
    let deadline = Instant::now() + patience;
    let mut loose: Option<Loose<P::Signed>> = None;
    let mut last = None;
    let attempts = async {
        loop {
            match attempt(pool, slot, &mut loose, &mut last).await {
                Ok(included) => return Ok(included),
                Err(refused @ SubmitError::Rejected { .. }) => return Err(refused),
                Err(error) => {
                    tracing::debug!(%error, "submitting again");
                    if matches!(error, SubmitError::Transport(_)) {
                        pool.reconnect().await;
                    }
                    last = Some(error);
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    // The lock is free when this returns; what is on its way may still be included.
    let outcome = tokio::time::timeout_at(deadline, attempts).await;
    outcome.unwrap_or_else(|_| {
        let seconds = patience.as_secs();
        Err(last.unwrap_or_else(|| SubmitError::Transport(format!("not final within {seconds} s"))))
    })
}

/// One attempt. Where it may have left an extrinsic with a node, that is `loose` afterwards.
async fn attempt<P: Pool>(
    pool: &P,
    slot: &Mutex<Option<u64>>,
    loose: &mut Option<Loose<P::Signed>>,
    last: &mut Option<SubmitError>,
) -> Result<Included, SubmitError> {
    let mut next = slot.lock().await;
    let handed = hand_over(pool, &mut next, loose).await;
    if handed.is_err() {
        *next = None;
    }
    drop(next);
    let (signed, progress) = match handed? {
        Handed::Over(signed, progress) => (signed, progress),
        Handed::Found(outcome) => return outcome,
        // What it waits for is said by the attempt before.
        Handed::Open => {
            let reason = last.take().unwrap_or_else(|| SubmitError::Dropped("it waits".to_owned()));
            return Err(reason);
        }
    };
    // From here on the node has it, also when this future is dropped at the deadline.
    *last = None;
    *loose = Some(signed);
    let mut unsure = Unsure { slot, is_sure: false };
    let outcome = pool.watch(progress).await;
    unsure.is_sure = matches!(outcome, Ok(_) | Err(SubmitError::Rejected { .. }));
    outcome
}

/// Forgets the next nonce, should what was handed over not be known to be in a block: when its report breaks off, and when nobody waits for
/// it any more.
struct Unsure<'a> {
    slot: &'a Mutex<Option<u64>>,
    is_sure: bool,
}

impl Drop for Unsure<'_> {
    fn drop(&mut self) {
        // Who has the lock asks the node anyway.
        if let Some(mut next) = self.slot.try_lock().ok().filter(|_| !self.is_sure) {
            *next = None;
        }
    }
}

/// What came of an attempt to hand an extrinsic over.
enum Handed<P: Pool + ?Sized> {
    /// The node has it.
    Over(Loose<P::Signed>, P::Progress),
    /// The one before is in a block.
    Found(Result<Included, SubmitError>),
    /// The one before may still come into a block.
    Open,
}

async fn hand_over<P: Pool>(
    pool: &P,
    next: &mut Option<u64>,
    loose: &mut Option<Loose<P::Signed>>,
) -> Result<Handed<P>, SubmitError> {
    let nonce = match loose {
        None => next_nonce(pool, *next).await?,
        Some(before) => {
            // With the same nonce, only one of the two can be included.
            if pool.next_nonce().await? > before.nonce {
                match pool.trace(&mut before.signed).await? {
                    Trace::Found(outcome) => return Ok(Handed::Found(outcome)),
                    Trace::Open => return Ok(Handed::Open),
                    Trace::Gone => {
                        *loose = None;
                        next_nonce(pool, *next).await?
                    }
                }
            } else {
                before.nonce
            }
        }
    };
    let signed = pool.sign(nonce).await?;
    match pool.hand_over(&signed).await {
        Ok(progress) => {
            *next = (*next).max(nonce.checked_add(1));
            Ok(Handed::Over(Loose { nonce, signed }, progress))
        }
        Err(error) => {
            // Whether the node took it before the connection broke is not known.
            if matches!(error, SubmitError::Transport(_)) {
                *loose = Some(Loose { nonce, signed });
            }
            Err(error)
        }
    }
}

/// The nonce to sign for: the node's, which counts what others signed. Where ours is larger, the node may not have
/// counted all that it took; if it stays so, ours have left its pool.
async fn next_nonce<P: Pool>(pool: &P, ours: Option<u64>) -> Result<u64, SubmitError> {
    let mut found = pool.next_nonce().await?;
    for _ in 0..NONCE_LOOKS {
        if ours.is_none_or(|ours| ours <= found) {
            break;
        }
        tokio::time::sleep(PAUSE / 2).await;
        found = pool.next_nonce().await?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex as StdMutex, MutexGuard};

    use super::*;
    use crate::chain::BlockRef;

    /// A node, its pool and the chain of one account in one: extrinsics are their nonces and numbers.
    #[derive(Default)]
    struct Node {
        state: StdMutex<State>,
    }

    #[derive(Default)]
    struct State {
        /// Who took each nonce of the finalised chain: the number of one of ours, or `None` for another program's.
        chain: Vec<Option<u64>>,
        signed: u64,
        /// What is yet to go wrong, the next last.
        faults: Vec<Fault>,
    }

    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Fault {
        /// Somebody else uses the nonce between the look and the hand-over.
        Overtaken,
        /// The extrinsic is taken and then dropped.
        Dropped,
        /// Another one with the same nonce takes its place.
        Usurped,
        /// The connection breaks while it is handed over: it is not there, or it is and will be included.
        BrokenBefore,
        BrokenAfter,
        /// The node stops reporting; the extrinsic is included.
        Silent,
        /// The chain refuses the call in its block.
        Refused,
        /// The node takes it, loses it and says nothing.
        Swallowed,
    }

    impl Node {
        fn with(faults: &[Fault]) -> Self {
            let node = Self::default();
            node.state().faults = faults.iter().rev().copied().collect();
            node
        }

        fn state(&self) -> MutexGuard<'_, State> {
            self.state.lock().unwrap()
        }

        /// How often calls of ours are in the chain.
        fn included(&self) -> usize {
            self.state().chain.iter().flatten().count()
        }
    }

    fn included() -> Included {
        Included { block: BlockRef { number: 1, hash: [1; 32] }, events: Vec::new() }
    }

    fn broken() -> SubmitError {
        SubmitError::Transport("the connection is down".to_owned())
    }

    #[async_trait]
    impl Pool for Node {
        type Signed = (u64, u64);
        type Progress = Option<Fault>;

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
        ) -> Result<Option<Fault>, SubmitError> {
            let mut state = self.state();
            let fault = state.faults.pop();
            if fault == Some(Fault::Overtaken) {
                state.chain.push(None);
            }
            if *nonce != state.chain.len() as u64 {
                return Err(SubmitError::Dropped("Invalid Transaction (1010)".to_owned()));
            }
            match fault {
                Some(Fault::Dropped | Fault::Swallowed) => {}
                Some(Fault::Usurped) => state.chain.push(None),
                Some(Fault::BrokenBefore) => return Err(broken()),
                _ => state.chain.push(Some(*number)),
            }
            match fault {
                Some(Fault::BrokenAfter) => Err(broken()),
                fault => Ok(fault),
            }
        }

        async fn watch(&self, fault: Option<Fault>) -> Result<Included, SubmitError> {
            match fault {
                Some(Fault::Dropped | Fault::Usurped) => {
                    Err(SubmitError::Dropped("it was dropped".to_owned()))
                }
                Some(Fault::Silent) => Err(broken()),
                Some(Fault::Swallowed) => std::future::pending().await,
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

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_call_is_included_once_whatever_happens_to_its_nonce() {
        use Fault::*;
        let stories: [&[Fault]; 9] = [
            &[],
            &[Overtaken],
            &[Overtaken, Overtaken, Overtaken],
            &[Dropped],
            &[Usurped, Overtaken],
            &[BrokenBefore],
            &[BrokenAfter],
            &[Silent],
            &[Dropped, BrokenBefore, Overtaken, Usurped, Dropped, BrokenAfter],
        ];
        for faults in stories {
            let node = Node::with(faults);
            submit(&node, &Mutex::new(None), PATIENCE).await.unwrap();
            assert_eq!(node.included(), 1, "{faults:?}");
            assert_eq!(node.state().faults, [], "{faults:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_nonce_that_is_remembered_is_not_believed() {
        // Somebody else used it; or it is ahead of the chain, because what was signed before was dropped.
        for (chain, remembered) in [(3, 2), (0, 2)] {
            let node = Node::default();
            node.state().chain = vec![None; chain];
            let slot = Mutex::new(Some(remembered));
            submit(&node, &slot, PATIENCE).await.unwrap();
            assert_eq!(node.state().signed, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_submission_that_is_given_up_leaves_no_nonce_behind() {
        let (node, slot) = (Node::with(&[Fault::Swallowed]), Mutex::new(None));
        let given_up = submit(&node, &slot, PATIENCE);
        assert!(tokio::time::timeout(PATIENCE / 2, given_up).await.is_err());
        assert_eq!(*slot.lock().await, None);
        submit(&node, &slot, PATIENCE).await.unwrap();
        assert_eq!(node.included(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_chain_refuses_is_not_tried_again_and_what_never_fits_ends() {
        let node = Node::with(&[Fault::Overtaken, Fault::Refused]);
        let refused = submit(&node, &Mutex::new(None), PATIENCE).await.unwrap_err();
        assert!(matches!(refused, SubmitError::Rejected { .. }), "{refused}");
        let node = Node::with(&[Fault::Overtaken; 1_000]);
        let late = submit(&node, &Mutex::new(None), PATIENCE).await.unwrap_err();
        assert!(matches!(&late, SubmitError::Dropped(reason) if reason.contains("1010")), "{late}");
        assert_eq!(node.included(), 0);
    }
}

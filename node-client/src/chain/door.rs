//! Gets a call into a block once, whatever else its signer's account is used for meanwhile.
//!
//! Another program may use the nonce that an extrinsic was signed for, a node may drop an extrinsic or stop
//! answering. What was signed is kept and handed over again, the same bytes, to whichever node answers, until it is
//! in a block or cannot come into one any more. The call is signed anew only for the same nonce, when a node refuses
//! those bytes; or once all that was signed for it is dead.
//!
//! **Invariant.** A call is in the chain once. What a node may have is followed by other bytes only if those have the
//! same nonce, so that a block takes one of them; or once the finalised chain shows that none of them is or can be in
//! it, because their nonce went to another or their time is over. That holds for a submission that is given up, too:
//! its bytes stay with the account ([`Account`]), and who submits the same call again goes on with them.

use std::{
    collections::VecDeque,
    sync::{Mutex as StdMutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use protocol::Hash;
use tokio::{sync::Mutex, time::Instant};

use super::{Included, SubmitError};
use crate::backoff::Backoff;

/// Pause before another attempt; it grows to the longest, a part of a block.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How often a node whose next nonce is smaller than ours is asked again: what was handed over may not be counted yet.
const NONCE_LOOKS: usize = 5;

/// How often a call is signed for one nonce, at most.
const SIGNED_MAX: usize = 8;

/// How long what was given up is remembered.
const GIVEN_UP_KEPT: Duration = Duration::from_secs(600);

/// Calls of one account that were given up and are remembered, at most; the oldest are dead by then.
const GIVEN_UP_MAX: usize = 64;

/// A node as a signer needs it, for one call.
#[async_trait]
pub(super) trait Pool: Send + Sync {
    /// An extrinsic that is signed.
    type Signed: Send;
    /// What a node tells of an extrinsic that it took.
    type Progress: Send;

    /// The account's next nonce, what waits in the node's pool counted if it counts that.
    async fn next_nonce(&self) -> Result<u64, SubmitError>;
    /// Whether the node in use counts what waits in its pool.
    fn counts_waiting(&self) -> bool {
        true
    }
    /// Signs the call for a nonce.
    async fn sign(&self, nonce: u64) -> Result<Self::Signed, SubmitError>;
    /// Hands an extrinsic to the node, which may be another one than it was signed with.
    async fn hand_over(&self, signed: &Self::Signed) -> Result<Self::Progress, SubmitError>;
    /// Whether another node may have an extrinsic that the node in use refused.
    fn is_out(&self, _: &Self::Signed) -> bool {
        false
    }
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

/// What was signed for one nonce, and a node may have: at least one extrinsic.
struct Loose<S> {
    nonce: u64,
    /// The last is the one that is handed over again.
    signed: Vec<S>,
    /// Whether a node has dropped or refused the last: other bytes are signed then.
    is_refused: bool,
}

/// A call that was given up.
struct GivenUp<S> {
    call: Hash,
    loose: Loose<S>,
    since: Instant,
}

/// What is remembered of an account that signs.
pub(super) struct Account<S> {
    /// The next nonce, if it is known. The lock is held while an extrinsic is signed and handed over.
    next: Mutex<Option<u64>>,
    /// Calls that were given up, the oldest first. Held for a look or a change.
    given_up: StdMutex<VecDeque<GivenUp<S>>>,
}

impl<S> Default for Account<S> {
    fn default() -> Self {
        Self { next: Mutex::default(), given_up: StdMutex::default() }
    }
}

impl<S> Account<S> {
    /// What was signed of a call and given up not long ago: who submits an equal call much later means it again.
    fn take(&self, call: &Hash) -> Option<Loose<S>> {
        let mut given_up = self.given_up();
        given_up.retain(|old| old.since.elapsed() < GIVEN_UP_KEPT);
        let place = given_up.iter().position(|old| old.call == *call)?;
        given_up.remove(place).map(|old| old.loose)
    }

    fn given_up(&self) -> MutexGuard<'_, VecDeque<GivenUp<S>>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that is being submitted. Dropped before it is known what became of it, it leaves what was signed with the
/// account, and no nonce: what waits in a pool may be lost.
struct Call<'a, S> {
    account: &'a Account<S>,
    hash: Hash,
    loose: Option<Loose<S>>,
}

impl<S> Drop for Call<'_, S> {
    fn drop(&mut self) {
        let Some(loose) = self.loose.take() else { return };
        let mut given_up = self.account.given_up();
        given_up.push_back(GivenUp { call: self.hash, loose, since: Instant::now() });
        if given_up.len() > GIVEN_UP_MAX {
            given_up.pop_front();
        }
        // Who has the lock asks the node anyway.
        if let Ok(mut next) = self.account.next.try_lock() {
            *next = None;
        }
    }
}

/// Submits the call of `pool`, whose hash is `call`, and waits until it is in a finalised block, for at most
/// `patience`.
///
/// # Errors
/// The chain refuses the call; or it was not included in time, with the reason of the last attempt.
pub(super) async fn submit<P: Pool>(
    pool: &P,
    account: &Account<P::Signed>,
    call: Hash,
    patience: Duration,
) -> Result<Included, SubmitError> {
    let deadline = Instant::now() + patience;
    let mut call = Call { account, hash: call, loose: account.take(&call) };
    let mut last = None;
    let mut backoff = Backoff::new(PAUSE, PAUSE_MAX, &call.hash);
    let attempts = async {
        loop {
            match attempt(pool, &mut call, &mut last).await {
                Ok(included) => break Ok(included),
                Err(refused @ SubmitError::Rejected { .. }) => break Err(refused),
                Err(error) => {
                    tracing::debug!(%error, "submitting again");
                    if matches!(error, SubmitError::Transport(_)) {
                        pool.reconnect().await;
                    }
                    last = Some(error);
                }
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    };
    // The lock is free when this returns; what is on its way may still be included.
    let outcome = tokio::time::timeout_at(deadline, attempts).await;
    if outcome.is_ok() {
        call.loose = None;
    }
    outcome.unwrap_or_else(|_| {
        let seconds = patience.as_secs();
        Err(last.unwrap_or_else(|| SubmitError::Transport(format!("not final within {seconds} s"))))
    })
}

/// One attempt. Where it may have left an extrinsic with a node, that is loose afterwards.
async fn attempt<P: Pool>(
    pool: &P,
    call: &mut Call<'_, P::Signed>,
    last: &mut Option<SubmitError>,
) -> Result<Included, SubmitError> {
    let mut next = call.account.next.lock().await;
    let handed = hand_over(pool, &mut next, &mut call.loose).await;
    if handed.is_err() {
        *next = None;
    }
    drop(next);
    let progress = match handed? {
        Handed::Over(progress) => progress,
        Handed::Found(outcome) => return outcome,
        // What it waits for is said by the attempt before.
        Handed::Open => {
            let reason = last.take().unwrap_or_else(|| SubmitError::Dropped("it waits".to_owned()));
            return Err(reason);
        }
    };
    *last = None;
    let outcome = pool.watch(progress).await;
    if let Some(loose) = &mut call.loose {
        loose.is_refused = matches!(outcome, Err(SubmitError::Dropped(_)));
    }
    if matches!(outcome, Err(SubmitError::Dropped(_) | SubmitError::Transport(_))) {
        *call.account.next.lock().await = None;
    }
    outcome
}

/// What came of an attempt to hand an extrinsic over.
enum Handed<P: Pool + ?Sized> {
    /// The node has it.
    Over(P::Progress),
    /// One of those before is in a block.
    Found(Result<Included, SubmitError>),
    /// One of those before may still come into a block.
    Open,
}

async fn hand_over<P: Pool>(
    pool: &P,
    next: &mut Option<u64>,
    loose: &mut Option<Loose<P::Signed>>,
) -> Result<Handed<P>, SubmitError> {
    if let Some(before) = loose {
        if pool.next_nonce().await? > before.nonce {
            match trace(pool, before).await? {
                Trace::Found(outcome) => return Ok(Handed::Found(outcome)),
                Trace::Open => return Ok(Handed::Open),
                Trace::Gone => *loose = None,
            }
        }
    }
    let is_again = loose.as_ref().is_some_and(|loose| !loose.is_refused);
    if !is_again {
        let is_spent = loose.as_ref().is_some_and(|loose| loose.signed.len() >= SIGNED_MAX);
        if is_spent {
            // Nobody takes them; when their time is over, they are signed anew.
            if let Some(Trace::Gone) = trace_if_any(pool, loose).await? {
                *loose = None;
            }
            return Ok(Handed::Open);
        }
        let nonce = match loose {
            Some(before) => before.nonce,
            None => next_nonce(pool, *next).await?,
        };
        let signed = pool.sign(nonce).await?;
        let all =
            loose.get_or_insert_with(|| Loose { nonce, signed: Vec::new(), is_refused: false });
        all.signed.push(signed);
        all.is_refused = false;
    }
    let Some(all) = loose.as_mut() else { return Ok(Handed::Open) };
    let Some(newest) = all.signed.last() else { return Ok(Handed::Open) };
    match pool.hand_over(newest).await {
        Ok(progress) => {
            *next = (*next).max(all.nonce.checked_add(1));
            Ok(Handed::Over(progress))
        }
        // Whether the node took it before the connection broke is not known.
        Err(error @ SubmitError::Transport(_)) => Err(error),
        Err(refusal) => {
            all.is_refused = true;
            if !is_again && !pool.is_out(newest) {
                all.signed.pop();
            }
            if all.signed.is_empty() {
                *loose = None;
            }
            Err(refusal)
        }
    }
}

async fn trace_if_any<P: Pool>(
    pool: &P,
    loose: &mut Option<Loose<P::Signed>>,
) -> Result<Option<Trace>, SubmitError> {
    match loose {
        Some(loose) => trace(pool, loose).await.map(Some),
        None => Ok(None),
    }
}

/// What the finalised chain has of all that was signed for one nonce.
async fn trace<P: Pool>(pool: &P, loose: &mut Loose<P::Signed>) -> Result<Trace, SubmitError> {
    let mut all = Trace::Gone;
    for signed in &mut loose.signed {
        match pool.trace(signed).await? {
            Trace::Gone => {}
            Trace::Open => all = Trace::Open,
            found => return Ok(found),
        }
    }
    Ok(all)
}

/// The nonce to sign for: the node's, which counts what others signed. Where ours is larger, the node may not have
/// counted all that it took; if it stays so, ours have left its pool.
async fn next_nonce<P: Pool>(pool: &P, ours: Option<u64>) -> Result<u64, SubmitError> {
    let mut found = pool.next_nonce().await?;
    if !pool.counts_waiting() {
        return Ok(ours.map_or(found, |ours| ours.max(found)));
    }
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
    use super::*;
    use crate::chain::nodes::{FakeNodes, Fault};

    const PATIENCE: Duration = Duration::from_secs(60);
    const CALL: Hash = [7; 32];

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
            let node = FakeNodes::with(faults);
            submit(&node, &Account::default(), CALL, PATIENCE).await.unwrap();
            assert_eq!(node.included(), 1, "{faults:?}");
            assert_eq!(node.faults_left(), 0, "{faults:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_nonce_that_is_remembered_is_not_believed() {
        // Somebody else used it; or it is ahead of the chain, because what was signed before was dropped.
        for (chain, remembered) in [(3, 2), (0, 2)] {
            let node = FakeNodes::with(&[]);
            node.state().chain = vec![None; chain];
            let account = Account::default();
            *account.next.lock().await = Some(remembered);
            submit(&node, &account, CALL, PATIENCE).await.unwrap();
            assert_eq!(node.state().signed, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_submission_that_is_given_up_leaves_no_nonce_behind() {
        let (node, account) = (FakeNodes::with(&[Fault::Swallowed]), Account::default());
        let given_up = submit(&node, &account, CALL, PATIENCE);
        assert!(tokio::time::timeout(PATIENCE / 2, given_up).await.is_err());
        assert_eq!(*account.next.lock().await, None);
        submit(&node, &account, CALL, PATIENCE).await.unwrap();
        assert_eq!(node.included(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_signed_is_handed_over_again_as_long_as_it_may_live() {
        use Fault::*;
        for faults in [&[BrokenBefore][..], &[BrokenAfter], &[Delayed, Delayed], &[Silent]] {
            let node = FakeNodes::with(faults);
            submit(&node, &Account::default(), CALL, PATIENCE).await.unwrap();
            let signed = node.state().signed;
            assert_eq!((node.included(), signed), (1, 1), "{faults:?}");
        }
        // The first is on its way when a node refuses it and it is signed anew, and the second breaks off as well.
        let node = FakeNodes::with(&[Delayed, Refuses, Delayed]);
        submit(&node, &Account::default(), CALL, PATIENCE).await.unwrap();
        assert_eq!(node.included(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_given_up_and_submitted_again_is_included_once() {
        let (node, account) =
            (FakeNodes::with(&[Fault::Delayed, Fault::Hangs]), Account::default());
        let given_up = submit(&node, &account, CALL, PATIENCE);
        assert!(tokio::time::timeout(PATIENCE / 2, given_up).await.is_err());
        node.arrive();
        submit(&node, &account, CALL, PATIENCE).await.unwrap();
        assert_eq!((node.included(), node.state().signed), (1, 1));
        // Another call is another one.
        submit(&node, &account, [1; 32], PATIENCE).await.unwrap();
        assert_eq!((node.included(), node.state().signed), (2, 2));
        assert!(account.given_up().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_signed_for_one_nonce_so_often_and_no_more() {
        let node = FakeNodes::with(&[Fault::Dropped; 100]);
        let account = Account::default();
        submit(&node, &account, CALL, PATIENCE).await.unwrap_err();
        assert_eq!(node.state().signed, SIGNED_MAX as u64);
        for call in 0..2 * GIVEN_UP_MAX as u8 {
            let node = FakeNodes::with(&[Fault::Dropped; 100]);
            submit(&node, &account, [call; 32], PATIENCE / 30).await.unwrap_err();
        }
        assert_eq!(account.given_up().len(), GIVEN_UP_MAX);
    }

    /// An equal call much later is another one: a peer that is announced where it was before, say.
    #[tokio::test(start_paused = true)]
    async fn what_was_given_up_long_ago_is_not_gone_on_with() {
        let (node, account) =
            (FakeNodes::with(&[Fault::Delayed, Fault::Hangs]), Account::default());
        let given_up = submit(&node, &account, CALL, PATIENCE);
        assert!(tokio::time::timeout(PATIENCE / 2, given_up).await.is_err());
        node.arrive();
        tokio::time::advance(GIVEN_UP_KEPT).await;
        submit(&node, &account, CALL, PATIENCE).await.unwrap();
        assert_eq!((node.included(), node.state().signed), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_chain_refuses_is_not_tried_again_and_what_never_fits_ends() {
        let node = FakeNodes::with(&[Fault::Overtaken, Fault::Refused]);
        let refused = submit(&node, &Account::default(), CALL, PATIENCE).await.unwrap_err();
        assert!(matches!(refused, SubmitError::Rejected { .. }), "{refused}");
        let node = FakeNodes::with(&[Fault::Overtaken; 1_000]);
        let late = submit(&node, &Account::default(), CALL, PATIENCE).await.unwrap_err();
        assert!(matches!(&late, SubmitError::Dropped(reason) if reason.contains("1010")), "{late}");
        assert_eq!(node.included(), 0);
    }
}

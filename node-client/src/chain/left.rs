//! Ends what waits for a node when another one is asked in its place: one that stands still reports nothing for ever.

use std::future::Future;

use super::SubmitError;

/// Waits for what a node says of an extrinsic, until it is `left`. Whether it took it is not known then, and it is looked
/// for, or handed over again, where the chain is read by now.
///
/// # Errors
/// What the node answers; [`SubmitError::Transport`] when it is left.
pub(super) async fn until_left<T>(
    said: impl Future<Output = Result<T, SubmitError>>,
    left: impl Future<Output = ()>,
) -> Result<T, SubmitError> {
    tokio::select! {
        // What it has said counts.
        biased;
        said = said => said,
        () = left => Err(SubmitError::Transport("another node is asked by now".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{Mutex, MutexGuard},
        time::Duration,
    };

    use async_trait::async_trait;
    use tokio::{
        sync::watch,
        time::{sleep, Instant},
    };

    use super::*;
    use crate::chain::{
        door::{submit, Account, Pool, Trace},
        BlockRef, Included,
    };

    /// Two nodes of one chain: the first stands still, the second makes blocks of what it is given.
    struct Nodes {
        /// Which one is asked.
        used: watch::Sender<usize>,
        /// Whether the first answers to what it is given.
        answers: bool,
        /// Whether it passes that on first.
        passes_on: bool,
        state: Mutex<State>,
    }

    #[derive(Default)]
    struct State {
        /// By nonce the number of the extrinsic that has it.
        chain: Vec<u64>,
        signed: u64,
    }

    impl Nodes {
        fn new(answers: bool, passes_on: bool) -> Self {
            let (used, state) = (watch::Sender::new(0), Mutex::default());
            Self { used, answers, passes_on, state }
        }

        fn state(&self) -> MutexGuard<'_, State> {
            self.state.lock().unwrap()
        }

        async fn left(&self) {
            self.used.subscribe().wait_for(|used| *used != 0).await.unwrap();
        }

        /// The second node has it: whether that is news.
        fn include(&self, (nonce, number): (u64, u64)) -> bool {
            let mut state = self.state();
            let is_next = nonce == state.chain.len() as u64;
            if is_next {
                state.chain.push(number);
            }
            is_next
        }
    }

    #[async_trait]
    impl Pool for Nodes {
        type Signed = (u64, u64);
        /// Which node it is with.
        type Progress = usize;

        async fn next_nonce(&self) -> Result<u64, SubmitError> {
            Ok(self.state().chain.len() as u64)
        }

        async fn sign(&self, nonce: u64) -> Result<(u64, u64), SubmitError> {
            let mut state = self.state();
            state.signed += 1;
            Ok((nonce, state.signed))
        }

        async fn hand_over(&self, signed: &(u64, u64)) -> Result<usize, SubmitError> {
            if *self.used.borrow() == 1 {
                let is_new = self.include(*signed);
                return is_new.then_some(1).ok_or(SubmitError::Dropped("1010".to_owned()));
            }
            if self.passes_on {
                self.include(*signed);
            }
            match self.answers {
                true => Ok(0),
                false => until_left(pending(), self.left()).await,
            }
        }

        async fn watch(&self, node: usize) -> Result<Included, SubmitError> {
            if node == 0 {
                return until_left(pending(), self.left()).await;
            }
            Ok(included())
        }

        async fn trace(&self, (nonce, number): &mut (u64, u64)) -> Result<Trace, SubmitError> {
            Ok(match self.state().chain.get(*nonce as usize) {
                None => Trace::Open,
                Some(found) if found == number => Trace::Found(Ok(included())),
                Some(_) => Trace::Gone,
            })
        }

        async fn reconnect(&self) {}
    }

    fn included() -> Included {
        Included { block: BlockRef { number: 1, hash: [1; 32] }, events: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_node_took_that_stands_still_is_included_once_by_the_one_asked_after_it() {
        let (still, patience) = (Duration::from_secs(12), Duration::from_secs(120));
        for (answers, passes_on) in [(true, false), (true, true), (false, false), (false, true)] {
            let (nodes, begin) = (Nodes::new(answers, passes_on), Instant::now());
            let leave = async {
                sleep(still).await;
                nodes.used.send_replace(1);
            };
            let account = Account::default();
            let (outcome, ()) = futures::join!(submit(&nodes, &account, [7; 32], patience), leave);
            outcome.unwrap();
            let took = begin.elapsed();
            assert!(took >= still && took < still + Duration::from_secs(1), "{took:?}");
            // The same bytes, once.
            let state = nodes.state();
            assert_eq!((&state.chain[..], state.signed), (&[1][..], 1), "{answers} {passes_on}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_node_has_said_counts_though_it_is_left() {
        let said = until_left(async { Ok(3) }, async {}).await;
        assert_eq!(said.unwrap(), 3);
        let said = until_left(pending::<Result<u8, _>>(), async {}).await;
        assert!(matches!(said, Err(SubmitError::Transport(_))));
    }
}
